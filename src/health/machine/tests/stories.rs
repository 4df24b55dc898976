//! Whatever happens, in whatever order: somebody gets calls, and nobody goes in and out all the time.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::super::admission::{Admission, admit};
use super::super::super::outlier::{Seen, sweep};
use super::super::super::report::Health;
use super::*;

/// The most changes between well and not that one source makes in any minute.
///
/// Breaker and probes keep an endpoint out for 1, 2, 4 … 60 s, the longer the more often in a row they did; they forget
/// that after a minute in which it was well. So the busiest minute begins with a first fall, and each further one
/// follows a recovery at once: falls at 0, 1, 3, 7, 15 and 31 s, and recoveries at 1, 3, 7, 15 and 31 s.
const IN_A_MINUTE: usize = 11;

/// The same in the long run, per second, against somebody who knows the rules: five falls, a minute well, and so on.
/// (2 × 5 changes in 31 + 60 s; four or six give less.) Whoever does not wait for the minute gets two a minute.
const IN_THE_LONG_RUN: f64 = 10.0 / 91.0;

/// Asserts both bounds, for so many sources.
fn are_few(flips: &[Instant], sources: usize) {
    let minute = Duration::from_secs(60);
    for (index, first) in flips.iter().enumerate() {
        let within = flips[index..].iter();
        let within = within.take_while(|at| **at <= *first + minute).count();
        assert!(
            within <= IN_A_MINUTE * sources,
            "{within} flips in a minute"
        );
    }
    if let [first, .., last] = flips {
        let all = (*last - *first).as_secs_f64() * IN_THE_LONG_RUN;
        #[expect(clippy::cast_precision_loss, reason = "a small count")]
        let (count, sources) = (flips.len() as f64, sources as f64);
        assert!(count <= sources * (all + 12.0), "{count} flips");
    }
}

#[test]
fn the_worst_that_can_be_done_is_two_changes_a_minute_in_the_end() {
    let start = Instant::now();
    let rules = Arc::new(rules());
    for (fall, rise) in [
        (&FIVE[..], &[Success][..]),
        (&[NotServing], &[Serving, StandingWord]),
        (&[ProbeFails; 3], &[Serving, Serving]),
        (&[NotServing], &[Untold]),
    ] {
        // Whether others are there for its calls or not.
        for tolerated in [false, true] {
            let mut patient = Patient::new(&rules, start);
            patient.tolerated = tolerated;
            patient.meet(start, Serving, 0.0);
            let mut flips = Vec::new();
            // Falls whenever it is well, and does what it can to be well again.
            for step in 0..60_000 {
                let now = start + ms(step * 10);
                patient.machine.advance(now);
                let before = patient.is_well();
                let events = if before { fall } else { rise };
                for event in events {
                    patient.meet(now, *event, 0.0);
                }
                if patient.is_well() != before {
                    flips.push(now);
                }
            }
            are_few(&flips, 1);
            let later = flips
                .iter()
                .filter(|at| **at - start >= Duration::from_secs(120));
            let later = later.count();
            assert!(later <= 2 * 8 + 1, "{later} flips in 8 minutes");
        }
    }
}

#[test]
fn waiting_until_all_is_forgotten_gains_little() {
    let start = Instant::now();
    let rules = Arc::new(rules());
    for falls in 1..8 {
        let mut patient = Patient::new(&rules, start);
        patient.meet(start, Serving, 0.0);
        let mut flips = Vec::new();
        let mut now = start;
        for _ in 0..20 {
            for _ in 0..falls {
                patient.meet(now, NotServing, 0.0);
                flips.push(now);
                patient.meet(now, Serving, 0.0);
                patient.meet(now, StandingWord, 0.0);
                now = patient.machine.next().unwrap();
                assert!(patient.machine.advance(now));
                flips.push(now);
            }
            now += Duration::from_secs(60);
        }
        are_few(&flips, 1);
    }
}

/// Events of many endpoints: which, what, and the milliseconds before it.
type Story = Vec<(usize, Event, u64)>;

/// Of calls and probes.
fn stories() -> impl Strategy<Value = Story> {
    vec((0..8usize, events(), pauses()), 1..200)
}

/// Of all that an endpoint hears of.
fn full_stories() -> impl Strategy<Value = Story> {
    let event = prop_oneof![
        8 => events(),
        1 => any::<bool>().prop_map(Event::Connected),
        1 => any::<bool>().prop_map(Event::Listed),
        1 => Just(Event::Refuse),
    ];
    vec((0..8usize, event, pauses()), 1..200)
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => Just(Fault),
        2 => Just(Success),
        1 => Just(Serving),
        1 => Just(NotServing),
        1 => Just(ProbeFails),
        1 => Just(Untold),
        1 => Just(StandingWord),
        1 => Just(Event::Sample),
        1 => Just(Look),
    ]
}

fn pauses() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0..5u64, 4 => 0..500u64, 2 => 0..5_000u64, 1 => 0..90_000u64]
}

fn influences() -> impl Strategy<Value = Influence> {
    prop_oneof![
        Just(Influence::Veto),
        Just(Influence::Weight(0.1)),
        Just(Influence::Hint),
        Just(Influence::Observe),
    ]
}

/// A set of endpoints under one channel's rules.
#[derive(Debug)]
struct World {
    rules: Arc<Rules>,
    patients: Vec<Patient>,
    admission: Admission,
}

impl World {
    fn new(size: usize, rules: Rules, now: Instant) -> Self {
        let rules = Arc::new(rules);
        let mut world = Self {
            patients: (0..size).map(|_| Patient::new(&rules, now)).collect(),
            rules,
            admission: Admission::default(),
        };
        world.decide(now);
        world
    }

    /// As the directory does.
    fn decide(&mut self, now: Instant) {
        let standings: Vec<_> = self
            .patients
            .iter_mut()
            .map(|it| {
                it.machine.advance(now);
                let refusals = Totals {
                    calls: it.refusals,
                    faults: it.refusals,
                };
                it.machine.weigh(now, refusals);
                it.machine.asked(now)
            })
            .collect();
        self.admission = admit(&standings, &self.rules.limits);
        for (patient, fate) in self.patients.iter_mut().zip(&self.admission.fates) {
            patient.tolerated = matches!(fate, Fate::Tolerated(_));
        }
    }

    /// As the directory does.
    fn sweep(&mut self, now: Instant, rules: &OutlierDetection) {
        let seen = self.patients.iter().map(|it| Seen {
            totals: it.totals,
            ejected: it.machine.is_ejected(),
        });
        let seen: Vec<_> = seen.collect();
        let found = sweep(rules, &seen, || 0.0);
        for (index, patient) in self.patients.iter_mut().enumerate() {
            let event = match found.contains(&index) {
                true => Eject,
                false => Event::Spare,
            };
            patient.meet(now, event, 0.0);
        }
    }

    fn check(&self, now: Instant) {
        let fates = &self.admission.fates;
        let gets_calls = |fate: &Fate| matches!(fate, Fate::In(_) | Fate::Tolerated(_));
        let mut patients = self.patients.iter();
        let any_usable = patients.any(|it| it.machine.standing().usable);
        assert_eq!(fates.iter().any(gets_calls), any_usable, "{self:?}");
        // Connected is usable, but for one whose health check is to be heard first.
        for patient in &self.patients {
            let machine = &patient.machine;
            let usable = machine.connected && !machine.is_pending();
            assert_eq!(machine.standing().usable, usable);
        }
        for fate in fates.iter().filter(|fate| gets_calls(fate)) {
            assert!(fate.share() > 0.0, "{self:?}");
        }
        for (patient, fate) in self.patients.iter().zip(fates) {
            // What time does is done: or the directory would come back for it for ever.
            let next = patient.machine.next();
            assert!(next.is_none_or(|at| at > now), "{next:?}");
            let report = patient.machine.report(now, *fate, None);
            match report.health {
                Health::Healthy => assert_eq!(report.decided_by, None),
                // Waits for its probe, whatever calls said.
                Health::Unknown => {}
                _ => assert!(report.decided_by.is_some(), "{report:?}"),
            }
            assert_eq!(report.reason.is_none(), report.decided_by.is_none());
        }
    }
}

proptest! {
    /// Whatever happens to them: as long as one can be called, one is.
    #[test]
    fn someone_always_gets_calls(
        size in 1..=8usize,
        cap in 0.0..=1.0f64,
        threshold in 0.0..=1.0f64,
        story in full_stories(),
        (by_breaker, by_outliers, by_probes, discovery) in
            (influences(), influences(), influences(), influences()),
        seed in any::<u64>(),
    ) {
        let mut random = fastrand::Rng::with_seed(seed);
        let outliers = OutlierDetection::new()
            .influence(by_outliers)
            .success_rate(1.0, 2, 5)
            .failure_share(0.5, 2, 5)
            .max_ejected(1.0);
        let rules = Rules {
            outliers: Some(outliers.clone()),
            breaker: Some(Breaker::new().influence(by_breaker)),
            probes: Some(Thresholds { influence: by_probes, ..Thresholds::default() }),
            discovery,
            limits: EjectionLimits::new().max_ejected(cap).panic_threshold(threshold),
            ..rules()
        };
        let mut now = Instant::now();
        let mut world = World::new(size, rules, now);
        for (nth, (index, event, pause)) in story.into_iter().enumerate() {
            now += ms(pause);
            world.patients[index % size].meet(now, event, random.f64());
            if nth % 20 == 19 {
                world.sweep(now, &outliers);
            }
            world.decide(now);
            world.check(now);
        }
    }

    /// Whatever happens to an endpoint, it goes in and out rarely, whether others are there for its calls or not.
    #[test]
    fn changes_are_few(story in stories(), tolerated in vec(any::<bool>(), 200), seed in any::<u64>()) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut now = Instant::now();
        let mut patient = Patient::new(&Arc::new(rules()), now);
        let mut flips = Vec::new();
        for ((_, event, pause), tolerated) in story.into_iter().zip(tolerated) {
            patient.tolerated = tolerated;
            let before = patient.is_well();
            now += ms(pause);
            patient.machine.advance(now);
            let between = patient.is_well();
            patient.meet(now, event, random.f64());
            let after = patient.is_well();
            let changes = usize::from(between != before) + usize::from(after != between);
            flips.extend(std::iter::repeat_n(now, changes));
        }
        // The first answer is no change for the better or worse that anybody was waiting for.
        are_few(&flips, 2);
    }

    /// An event that changes what is said says so, or nobody would look.
    #[test]
    fn changes_are_told(story in stories(), seed in any::<u64>()) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut now = Instant::now();
        let mut patient = Patient::new(&Arc::new(rules()), now);
        for (_, event, pause) in story {
            now += ms(pause);
            let turns = patient.machine.next().is_some_and(|at| at <= now);
            let before = stands(&patient.machine);
            prop_assert_eq!(patient.machine.advance(now), turns);
            if !turns {
                prop_assert_eq!(stands(&patient.machine), before);
            }
            let before = stands(&patient.machine);
            let told = patient.meet(now, event, random.f64());
            if stands(&patient.machine) != before {
                prop_assert!(told, "{:?}: {:?}", event, patient);
            }
        }
    }
}
