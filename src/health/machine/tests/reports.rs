//! What users see: who decides, since when, until when.

use super::super::super::report::{Health, HealthStatus};
use super::*;

/// The state, its source, and the milliseconds since then and until it ends.
type Told = (Health, Option<HealthSource>, u64, Option<u64>);

fn told(status: &HealthStatus) -> Told {
    let millis = |time: Duration| time.as_millis() as u64;
    (
        status.health,
        status.decided_by,
        millis(status.for_how_long),
        status.changes_in.map(millis),
    )
}

/// An endpoint, with the decision on it after each event, as if others were there for its calls.
struct Seen {
    patient: Patient,
    start: Instant,
}

impl Seen {
    fn new(rules: Rules) -> Self {
        let start = Instant::now();
        Self {
            patient: Patient::new(&Arc::new(rules), start),
            start,
        }
    }

    /// What is told at that time after these things.
    fn at(&mut self, millis: u64, events: &[Event]) -> Told {
        let now = self.start + ms(millis);
        self.patient.machine.advance(now);
        for event in events {
            self.patient.meet(now, *event, 0.0);
        }
        self.look(now)
    }

    fn connected(&mut self, millis: u64, connected: bool) -> Told {
        let now = self.start + ms(millis);
        self.patient.machine.connected(now, connected);
        self.look(now)
    }

    fn listed(&mut self, millis: u64, listed: bool) -> Told {
        let now = self.start + ms(millis);
        self.patient.machine.listed(now, listed);
        self.look(now)
    }

    fn look(&mut self, now: Instant) -> Told {
        let machine = &mut self.patient.machine;
        let fate = match machine.asked(now) {
            Standing { usable: false, .. } => Fate::Unusable,
            standing if standing.is_well() => Fate::In(standing.share),
            Standing { trial: true, .. } => Fate::Trial,
            _ => Fate::Out,
        };
        told(&machine.report(now, fate, None))
    }
}

use Health::{Disconnected, Ejected, HalfOpen, Healthy, Suspect, Tolerated, Unknown};
use HealthSource::{Breaker as ByBreaker, Connectivity, Discovery, Outliers, Probe};

#[test]
fn without_a_connection_nobody_waits_for_a_probe() {
    let mut it = Seen::new(rules());
    let no_connection = |time| (Disconnected, Some(Connectivity), time, None);
    assert_eq!(it.connected(0, false), no_connection(0));
    assert_eq!(it.at(700, &[]), no_connection(700));
    // It is waited for from here on.
    assert_eq!(it.connected(1_000, true), (Unknown, Some(Probe), 0, None));
    // What calls said has nothing to do with that.
    assert_eq!(it.at(1_500, &FIVE), (Unknown, Some(Probe), 500, None));
    let open = (Ejected, Some(ByBreaker), 200, Some(800));
    assert_eq!(it.at(1_700, &[Serving]), open);
    assert_eq!(it.connected(2_000, false), no_connection(0));
    let half_open = (HalfOpen, Some(ByBreaker), 500, None);
    assert_eq!(it.at(2_500, &[]), no_connection(500));
    assert_eq!(it.connected(3_000, true), half_open);
    assert_eq!(it.at(3_100, &[Success]), (Healthy, None, 0, None));
}

#[test]
fn an_endpoint_is_well_since_its_last_trouble_whatever_that_was() {
    let mut it = Seen::new(Rules {
        breaker: Some(Breaker::new()),
        outliers: Some(OutlierDetection::new()),
        discovery: Influence::Hint,
        ..Rules::default()
    });
    let well = |time| (Healthy, None, time, None);
    assert_eq!(it.at(0, &[]), well(0));
    assert_eq!(it.at(5_000, &[]), well(5_000));
    let out = |since, until| (Ejected, Some(Outliers), since, Some(until));
    assert_eq!(it.at(6_000, &[Eject]), out(0, 30_000));
    assert_eq!(it.at(16_000, &[]), out(10_000, 20_000));
    assert_eq!(it.at(36_000, &[]), well(0));
    assert_eq!(it.at(37_000, &[]), well(1_000));
    let unlisted = |time| (Suspect, Some(Discovery), time, None);
    assert_eq!(it.listed(40_000, false), unlisted(0));
    assert_eq!(it.listed(41_000, false), unlisted(1_000));
    assert_eq!(it.listed(42_000, true), well(0));
    assert_eq!(it.at(43_000, &[]), well(1_000));
    it.connected(44_000, false);
    assert_eq!(it.connected(50_000, true), well(0));
    it.at(51_000, &FIVE);
    assert_eq!(it.at(53_000, &[Success]), well(0));
    assert_eq!(it.at(54_000, &[]), well(1_000));
}

/// The decision over the set comes a moment after the words that it follows from.
#[test]
fn before_the_next_decision_the_last_one_is_told_with_its_source() {
    let mut it = Seen::new(rules());
    it.at(0, &[Serving]);
    it.at(0, &FIVE);
    it.at(1_000, &[]);
    assert_eq!(it.at(1_100, &[Success]), (Healthy, None, 0, None));
    let now = it.start + ms(1_100);
    for (fate, health) in [
        (Fate::Trial, HalfOpen),
        (Fate::Out, Ejected),
        (Fate::Tolerated(1.0), Tolerated),
    ] {
        let status = it.patient.machine.report(now, fate, Some(ByBreaker));
        assert_eq!(told(&status), (health, Some(ByBreaker), 0, Some(0)));
        assert_eq!(status.reason.as_deref(), Some("it has just recovered"));
    }
    it.at(1_200, &[NotServing]);
    let now = it.start + ms(1_200);
    let status = it.patient.machine.report(now, Fate::In(1.0), None);
    assert_eq!(told(&status), (Suspect, Some(Probe), 0, None));
}

/// It gets no calls until the last of them has ended.
#[test]
fn of_several_vetoes_the_one_that_lasts_longest_decides() {
    let mut it = Seen::new(Rules {
        outliers: Some(OutlierDetection::new()),
        ..rules()
    });
    it.at(0, &[Serving]);
    it.at(0, &FIVE);
    let out = (Ejected, Some(Outliers), 0, Some(30_000));
    assert_eq!(it.at(100, &[Eject]), out);
    // Nobody knows when its probes will be of another mind.
    let ill = |time| (Ejected, Some(Probe), time, None);
    assert_eq!(it.at(200, &[NotServing]), ill(0));
    assert_eq!(it.at(300, &[Serving, StandingWord]), {
        (Ejected, Some(Outliers), 200, Some(29_800))
    });
    // The breaker would let it try, the sweep does not.
    assert_eq!(it.at(2_000, &[]), {
        (Ejected, Some(Outliers), 1_900, Some(28_100))
    });
    let half_open = (HalfOpen, Some(ByBreaker), 28_100, None);
    assert_eq!(it.at(30_100, &[]), half_open);
    assert_eq!(it.at(30_200, &[Success]), (Healthy, None, 0, None));
}

/// Each source in each mode: what is done, and what is told of it.
#[test]
fn every_source_is_declared_and_may_be_observed_only() {
    for influence in [
        Influence::Veto,
        Influence::Weight(0.5),
        Influence::Hint,
        Influence::Observe,
    ] {
        for source in [Probe, ByBreaker, Outliers, Discovery] {
            let mut it = Seen::new(Rules {
                breaker: Some(Breaker::new().influence(influence)),
                outliers: Some(OutlierDetection::new().influence(influence)),
                probes: Some(Thresholds {
                    influence,
                    ..Thresholds::default()
                }),
                discovery: influence,
                ..Rules::default()
            });
            it.at(0, &[Serving]);
            let (health, decided_by, ..) = match source {
                Probe => it.at(10, &[NotServing]),
                ByBreaker => it.at(10, &FIVE),
                Outliers => it.at(10, &[Eject]),
                _ => it.listed(10, false),
            };
            let case = format!("{source} as {influence:?}");
            let expected = match influence {
                Influence::Veto => Ejected,
                _ => Suspect,
            };
            assert_eq!((health, decided_by), (expected, Some(source)), "{case}");
            let standing = it.patient.machine.standing();
            assert_eq!(standing.is_well(), influence != Influence::Veto, "{case}");
            let share = match influence {
                Influence::Weight(share) => share,
                _ => 1.0,
            };
            assert!((standing.share - share).abs() < 1e-9, "{case}");
            assert_eq!(standing.observed, influence == Influence::Observe);
            let now = it.start + ms(10);
            let report = it.patient.machine.report(now, Fate::In(1.0), None);
            let observed = match influence {
                Influence::Observe => vec![source],
                _ => Vec::new(),
            };
            assert_eq!(report.observed, observed, "{case}");
        }
    }
}
