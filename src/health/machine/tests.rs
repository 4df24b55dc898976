//! Every transition, with time and chance as arguments.
//!
//! | transition | tests |
//! |---|---|
//! | probes: unknown to healthy, unknown to unhealthy | `probed`: `the_first_answer_decides` |
//! | probes: healthy to unhealthy, by failures, by the server's word | `probes_step_by_step` |
//! | probes: unhealthy to healthy, by answers, by a standing word, by an unhelpful one, by time | `probes_step_by_step` |
//! | breaker: closed to open, by faults in a row | `the_breaker_step_by_step` |
//! | breaker: closed to open, by rate | `the_rate_of_successes_step_by_step` |
//! | breaker: open to half-open; half-open to closed, to open, and neither where calls come all the same | `the_breaker_step_by_step`; `circuit`: `a_trial_decides…`, `where_calls_come_all_the_same…` |
//! | breaker: the trial begins, ends, is cancelled, is overtaken | `endpoint::health::trial` |
//! | outliers: in to ejected, and back by time, by a sweep; longer, shorter | `outlier::ejection` |
//! | overload: watched, less, more, left alone | `overload`, `refusals` |
//! | discovery: unlisted and listed again; connection: lost and made | `reports` |
//! | together: who decides, since when, until when | `sources_do_not_speak_for_each_other`, `reports` |
//! | the set: in, out, trial, tolerated, panic | `admission` |
//! | whatever happens | `stories` |

mod refusals;
mod reports;
mod stories;

use std::time::Duration;

use super::super::admission::Fate;
use super::super::{Breaker, EjectionLimits, OutlierDetection};
use super::*;

/// Both sources with their defaults.
fn rules() -> Rules {
    Rules {
        breaker: Some(Breaker::new()),
        probes: Some(Thresholds::default()),
        ..Rules::default()
    }
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// One thing that happens to an endpoint.
#[derive(Clone, Copy, Debug)]
enum Event {
    Fault,
    Success,
    Serving,
    NotServing,
    ProbeFails,
    Untold,
    StandingWord,
    Sample,
    Eject,
    Spare,
    /// It refuses a call because it has too much to do.
    Refuse,
    Connected(bool),
    Listed(bool),
    /// Nothing but time.
    Look,
}

use Event::{Eject, Fault, Look, NotServing, ProbeFails, Serving, StandingWord, Success, Untold};

/// A machine with the counters that calls feed it from.
#[derive(Debug)]
struct Patient {
    machine: Machine,
    totals: Totals,
    consecutive: u32,
    refusals: u64,
    /// Its calls come although they should not.
    tolerated: bool,
}

impl Patient {
    fn new(rules: &Arc<Rules>, now: Instant) -> Self {
        let mut machine = Machine::new(Arc::clone(rules), now);
        machine.connected(now, true);
        Self {
            machine,
            totals: Totals::default(),
            consecutive: 0,
            refusals: 0,
            tolerated: false,
        }
    }

    /// Lets it happen. Says what the machine says: whether others must hear of it.
    fn meet(&mut self, now: Instant, event: Event, random: f64) -> bool {
        let machine = &mut self.machine;
        match event {
            Fault => {
                self.consecutive += 1;
                self.totals.calls += 1;
                self.totals.faults += 1;
                let (consecutive, any) = (self.consecutive, self.tolerated);
                return machine.fault(now, consecutive, self.totals, any, random);
            }
            Success => {
                self.consecutive = 0;
                self.totals.calls += 1;
                return machine.success(now, self.totals);
            }
            Serving => return machine.probed(now, Answer::Serving),
            NotServing => return machine.probed(now, Answer::NotServing("ill".into())),
            ProbeFails => return machine.probed(now, Answer::Failed("no answer".into())),
            Untold => return machine.probed(now, Answer::Untold),
            StandingWord => return machine.standing_word(now),
            Look => return machine.advance(now),
            Event::Sample => machine.sample(now, self.totals),
            Eject => machine.eject(now),
            Event::Refuse => {
                let before = Totals {
                    calls: self.refusals,
                    faults: self.refusals,
                };
                self.refusals += 1;
                machine.refused(now, before);
            }
            Event::Connected(connected) => machine.connected(now, connected),
            Event::Listed(listed) => machine.listed(now, listed),
            Event::Spare => return machine.spare(now),
        }
        false
    }

    fn is_well(&self) -> bool {
        let standing = self.machine.standing();
        !standing.ill && standing.ejected.is_none()
    }
}

/// What is asked of the machine after a step.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stands {
    /// Waits for its first probe.
    Pending,
    Well,
    Ill,
    Ejected,
    /// May prove itself.
    Trial,
}

fn stands(machine: &Machine) -> Stands {
    let standing = machine.standing();
    match standing {
        Standing { usable: false, .. } => Stands::Pending,
        Standing { ill: true, .. } => Stands::Ill,
        Standing { trial: true, .. } => Stands::Trial,
        Standing {
            ejected: Some(_), ..
        } => Stands::Ejected,
        _ => Stands::Well,
    }
}

/// A step of a table: at so many milliseconds these things happen, and then it stands so, until time changes it at so
/// many.
type Step<'a> = (u64, &'a [Event], Stands, Option<u64>);

/// Goes through a table, without jitter.
fn walk(rules: Rules, steps: &[Step<'_>]) {
    let rules = Arc::new(rules);
    let start = Instant::now();
    let mut patient = Patient::new(&rules, start);
    for (row, (at, events, wanted, turns)) in steps.iter().enumerate() {
        let now = start + ms(*at);
        patient.machine.advance(now);
        for event in *events {
            patient.meet(now, *event, 0.0);
        }
        let place = format!("row {row} ({at} ms)");
        assert_eq!(stands(&patient.machine), *wanted, "{place}");
        let next = patient.machine.next();
        assert_eq!(next, turns.map(|at| start + ms(at)), "{place}");
        // Nothing happens before its time.
        if let Some(next) = next {
            assert!(!patient.machine.advance(next - ms(1)), "{place}");
            assert_eq!(stands(&patient.machine), *wanted, "{place}");
        }
    }
}

const FIVE: [Event; 5] = [Fault; 5];

#[test]
fn the_breaker_step_by_step() {
    let breaker = Rules {
        probes: None,
        ..rules()
    };
    walk(
        breaker,
        &[
            (0, &[Fault; 4], Stands::Well, None),
            (10, &[Success], Stands::Well, None),
            (20, &[Fault; 4], Stands::Well, None),
            (30, &[Fault], Stands::Ejected, Some(1_030)),
            // Calls from before it opened.
            (500, &[Success, Fault], Stands::Ejected, Some(1_030)),
            (1_030, &[], Stands::Trial, None),
            (60_000, &[], Stands::Trial, None),
            (60_001, &[Fault], Stands::Ejected, Some(62_001)),
            (62_001, &[Success], Stands::Well, None),
            (63_000, &FIVE, Stands::Ejected, Some(67_000)),
            (67_000, &[Success], Stands::Well, None),
            // Well for a minute: it is forgotten.
            (127_000, &FIVE, Stands::Ejected, Some(128_000)),
        ],
    );
}

#[test]
fn the_rate_of_successes_step_by_step() {
    let breaker = Rules {
        probes: None,
        ..rules()
    };
    let bad = [Success, Success, Success, Fault];
    walk(
        breaker,
        &[
            (0, &bad, Stands::Well, None),
            (10, &bad, Stands::Well, None),
            // 3 of 11 is not enough for 80 %, 2 of 10 was.
            (20, &[Success, Success], Stands::Well, None),
            (30, &[Fault], Stands::Ejected, Some(1_030)),
            (1_030, &[Success], Stands::Well, None),
            // The window begins with the recovery.
            (1_040, &[Fault], Stands::Well, None),
            (1_050, &[Success; 9], Stands::Well, None),
            (1_060, &[Fault], Stands::Well, None),
            (1_070, &[Fault], Stands::Ejected, Some(3_070)),
        ],
    );
}

#[test]
fn probes_step_by_step() {
    let probes = Rules {
        breaker: None,
        ..rules()
    };
    walk(
        probes,
        &[
            (0, &[], Stands::Pending, None),
            (10, &[Serving], Stands::Well, None),
            (20, &[ProbeFails, ProbeFails], Stands::Well, None),
            (30, &[Serving], Stands::Well, None),
            (40, &[ProbeFails; 3], Stands::Ill, None),
            (50, &[Serving], Stands::Ill, None),
            (60, &[ProbeFails], Stands::Ill, None),
            (70, &[Serving, Serving], Stands::Ill, Some(1_070)),
            (80, &[ProbeFails], Stands::Ill, None),
            (90, &[Serving], Stands::Ill, None),
            (2_000, &[Serving], Stands::Well, None),
            (2_010, &[NotServing], Stands::Ill, None),
            // Twice the time from here on.
            (2_020, &[Serving, StandingWord], Stands::Ill, Some(4_020)),
            (4_020, &[], Stands::Well, None),
            (64_020, &[NotServing], Stands::Ill, None),
            // Forgotten. It can't be asked any more: that is no reason to hurry.
            (64_030, &[Untold], Stands::Ill, Some(65_030)),
            (65_030, &[], Stands::Well, None),
        ],
    );
}

#[test]
fn sources_do_not_speak_for_each_other() {
    walk(
        rules(),
        &[
            (0, &FIVE, Stands::Pending, Some(1_000)),
            (10, &[Serving], Stands::Ejected, Some(1_000)),
            (20, &[NotServing], Stands::Ill, Some(1_000)),
            // Well by its probes, and the breaker still wants its proof.
            (30, &[Serving, Serving], Stands::Ill, Some(1_000)),
            (1_000, &[], Stands::Ill, Some(1_030)),
            (1_030, &[], Stands::Trial, None),
            (1_040, &[Success], Stands::Well, None),
        ],
    );
    let outliers = Rules {
        outliers: Some(OutlierDetection::new()),
        probes: None,
        ..rules()
    };
    walk(
        outliers,
        &[
            (0, &[Eject], Stands::Ejected, Some(30_000)),
            (10, &FIVE, Stands::Ejected, Some(1_010)),
            // The breaker would let one call through.
            (1_010, &[], Stands::Ejected, Some(30_000)),
            (30_000, &[], Stands::Trial, None),
            (30_010, &[Success], Stands::Well, None),
            (30_020, &[Eject], Stands::Ejected, Some(90_020)),
        ],
    );
}

#[test]
fn sources_without_a_veto_leave_it_its_calls() {
    for (influence, share) in [
        (Influence::Weight(0.25), 0.25),
        (Influence::Hint, 1.0),
        (Influence::Observe, 1.0),
    ] {
        let rules = Rules {
            breaker: Some(Breaker::new().influence(influence)),
            probes: Some(Thresholds {
                influence,
                ..Thresholds::default()
            }),
            ..Rules::default()
        };
        let now = Instant::now();
        let mut patient = Patient::new(&Arc::new(rules), now);
        assert_eq!(stands(&patient.machine), Stands::Well, "nobody waits");
        patient.meet(now, NotServing, 0.0);
        assert_eq!(stands(&patient.machine), Stands::Well);
        let standing = patient.machine.standing();
        assert!((standing.share - share).abs() < 1e-9, "{standing:?}");
        for _ in 0..5 {
            patient.meet(now, Fault, 0.0);
        }
        let standing = patient.machine.standing();
        assert!((standing.share - share * share).abs() < 1e-9);
        // Its calls go on: none of them is a trial, and the first that succeeds in due time counts.
        patient.meet(now, Success, 0.0);
        let later = now + Duration::from_secs(1);
        patient.machine.advance(later);
        patient.meet(later, Fault, 0.0);
        assert_eq!(patient.machine.next(), None);
        let standing = patient.machine.standing();
        assert!((standing.share - share * share).abs() < 1e-9);
        patient.meet(later, Success, 0.0);
        let standing = patient.machine.standing();
        assert!((standing.share - share).abs() < 1e-9);
    }
}

#[test]
fn jitter_moves_the_breakers_times_by_a_fifth_at_most() {
    // The same for each run.
    let mut random = fastrand::Rng::with_seed(41);
    let start = Instant::now();
    let rules = Arc::new(rules());
    for _ in 0..1000 {
        let mut patient = Patient::new(&rules, start);
        let mut now = start;
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            for _ in 0..5 {
                patient.meet(now, Fault, random.f64());
            }
            let next = patient.machine.next().unwrap();
            let least = Duration::from_secs(seconds);
            assert!((least..=least.mul_f64(1.2)).contains(&(next - now)));
            assert!(!patient.machine.advance(next - ms(1)));
            assert!(patient.machine.advance(next));
            assert!(patient.meet(next, Success, 0.0));
            now = next;
        }
    }
}
