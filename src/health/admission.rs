//! Which endpoints of a set get calls.

use crate::time::Instant;

use super::{EjectionLimits, HealthSource, Service};

/// What is said of one endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Standing {
    /// It can be called: it is connected, and its probes, if it has any, have had their first answer.
    pub(crate) usable: bool,
    /// Its probes say that it must not be called.
    pub(crate) ill: bool,
    /// Calls say so, since then.
    pub(crate) ejected: Option<Instant>,
    /// Of those that calls speak against: one call may be tried.
    pub(crate) trial: bool,
    /// What it gets of its share of the calls.
    pub(crate) share: f64,
    /// It has no connection, and its dials fail.
    pub(crate) failing: bool,
    /// Whether it was in service until now.
    pub(crate) service: Service,
    /// A source that is only observed speaks against it.
    pub(crate) observed: bool,
    /// Who decides of it, or has something to say, if anybody does.
    pub(crate) word: Option<HealthSource>,
}

/// What becomes of one endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fate {
    /// It can't be called.
    Unusable,
    /// It gets no calls.
    Out,
    /// It gets one call at a time, to prove itself.
    Trial,
    /// It gets this part of its share.
    In(f64),
    /// It gets calls although it should not: too many others are out.
    Tolerated(f64),
}

impl Fate {
    /// What it gets of its share.
    pub(crate) fn share(self) -> f64 {
        match self {
            Self::In(share) | Self::Tolerated(share) => share,
            Self::Unusable | Self::Out | Self::Trial => 0.0,
        }
    }

    /// Whether it means more than another size of the share.
    fn differs(self, other: Self) -> bool {
        let whole = |it: Self| it.share() >= 1.0;
        std::mem::discriminant(&self) != std::mem::discriminant(&other)
            || whole(self) != whole(other)
    }
}

impl Admission {
    /// Whether something has changed that who follows the endpoints' health wants to hear of.
    pub(crate) fn differs(&self, other: &Self) -> bool {
        self.panic != other.panic
            || self.words != other.words
            || self.fates.len() != other.fates.len()
            || (self.fates.iter().zip(&other.fates)).any(|(one, other)| one.differs(*other))
    }
}

/// What becomes of a set.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Admission {
    pub(crate) fates: Vec<Fate>,
    /// Who has something to say of each.
    pub(crate) words: Vec<Option<HealthSource>>,
    /// All usable ones get calls, because too few are well.
    pub(crate) panic: bool,
}

/// Decides over all of a set. As long as one of them is usable, at least one gets calls.
pub(crate) fn admit(all: &[Standing], limits: &EjectionLimits) -> Admission {
    let usable = all.iter().filter(|it| it.usable).count();
    let well = all.iter().filter(|it| it.usable && it.is_well()).count();
    let panic = limits.is_panic(well, usable);
    let mut is_spared = vec![false; all.len()];
    if !panic {
        for index in spared(all, limits.most_ejected(usable)) {
            is_spared[index] = true;
        }
    }
    let fate = |(index, it): (usize, &Standing)| match it {
        Standing { usable: false, .. } => Fate::Unusable,
        _ if it.is_well() => Fate::In(it.share),
        _ if panic => Fate::Tolerated(it.share),
        Standing { ill: true, .. } => Fate::Out,
        _ if is_spared[index] => Fate::Tolerated(it.share),
        Standing { trial: true, .. } => Fate::Trial,
        _ => Fate::Out,
    };
    Admission {
        fates: all.iter().enumerate().map(fate).collect(),
        words: all.iter().map(|it| it.word).collect(),
        panic,
    }
}

/// Those that calls speak against, and that there is no room for among the ejected: the last ones that came.
fn spared(all: &[Standing], most: usize) -> Vec<usize> {
    let mut ejected: Vec<(Instant, usize)> = all
        .iter()
        .enumerate()
        .filter(|(_, it)| it.usable && !it.ill)
        .filter_map(|(index, it)| Some((it.ejected?, index)))
        .collect();
    if ejected.len() <= most {
        return Vec::new();
    }
    ejected.sort_unstable();
    ejected.drain(most..).map(|(_, index)| index).collect()
}

impl Standing {
    /// The same, if its probes had said nothing.
    pub(crate) fn without_probes(self) -> Self {
        Self {
            usable: true,
            ill: false,
            ..self
        }
    }

    pub(crate) fn is_well(&self) -> bool {
        !self.ill && self.ejected.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn well() -> Standing {
        Standing {
            usable: true,
            ill: false,
            ejected: None,
            trial: false,
            share: 1.0,
            failing: false,
            service: Service::Out,
            observed: false,
            word: None,
        }
    }

    fn ejected(order: u64) -> Standing {
        // Any fixed moment does.
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        let start = *START.get_or_init(Instant::now);
        Standing {
            ejected: Some(start + Duration::from_secs(order)),
            ..well()
        }
    }

    fn ill() -> Standing {
        Standing {
            ill: true,
            ..well()
        }
    }

    fn down() -> Standing {
        Standing {
            usable: false,
            ..well()
        }
    }

    fn fates(all: &[Standing]) -> (Vec<Fate>, bool) {
        let admission = admit(all, &EjectionLimits::new());
        (admission.fates, admission.panic)
    }

    const IN: Fate = Fate::In(1.0);
    const TOLERATED: Fate = Fate::Tolerated(1.0);

    #[test]
    fn in_small_sets_all_but_the_last_may_be_out() {
        assert_eq!(fates(&[]), (vec![], false));
        assert_eq!(fates(&[ejected(1)]), (vec![TOLERATED], true));
        assert_eq!(fates(&[ill()]), (vec![TOLERATED], true));
        assert_eq!(fates(&[ejected(1), well()]), (vec![Fate::Out, IN], false));
        let three = [ejected(1), ejected(2), ill(), well()];
        assert_eq!(
            fates(&three),
            (vec![Fate::Out, Fate::Out, Fate::Out, IN], false)
        );
        let none = [ejected(1), ill(), ejected(3)];
        assert_eq!(fates(&none), (vec![TOLERATED; 3], true));
    }

    #[test]
    fn endpoints_without_a_connection_do_not_count() {
        let all = [down(), ejected(1), down()];
        let (fates, panic) = fates(&all);
        assert_eq!(fates, [Fate::Unusable, TOLERATED, Fate::Unusable]);
        assert!(panic);
    }

    #[test]
    fn in_large_sets_half_may_be_out_and_fewer_than_half_well_is_panic() {
        let mut all = vec![well(); 10];
        for (index, it) in all.iter_mut().enumerate().take(5) {
            *it = ejected(index as u64);
        }
        let (half, panic) = fates(&all);
        assert_eq!(half.iter().filter(|it| **it == Fate::Out).count(), 5);
        assert!(!panic);
        all[5] = ejected(9);
        let (six, panic) = fates(&all);
        assert!(panic);
        assert_eq!(six.iter().filter(|it| **it == TOLERATED).count(), 6);
    }

    #[test]
    fn over_the_cap_the_last_ones_stay() {
        let limits = EjectionLimits::new().max_ejected(0.2).panic_threshold(0.0);
        let mut all = vec![well(); 10];
        all[3] = ejected(3);
        all[4] = ejected(1);
        all[5] = ejected(2);
        let fates = admit(&all, &limits).fates;
        assert_eq!(
            (fates[4], fates[5], fates[3]),
            (Fate::Out, Fate::Out, TOLERATED)
        );
        let none = EjectionLimits::new().max_ejected(0.0);
        assert_eq!(admit(&[well(), ejected(1)], &none).fates, [IN, TOLERATED]);
    }

    #[test]
    fn one_that_may_prove_itself_gets_one_call_and_is_not_well() {
        let trial = Standing {
            trial: true,
            ..ejected(1)
        };
        assert_eq!(fates(&[trial, well()]), (vec![Fate::Trial, IN], false));
        assert_eq!(fates(&[trial, ejected(2)]), (vec![TOLERATED; 2], true));
    }

    #[test]
    fn whatever_is_said_someone_gets_calls() {
        proptest::proptest!(|(
            words in proptest::collection::vec((0..8u8, 0..5u64), 1..12),
            cap in 0.0..=1.0f64,
            threshold in 0.0..=1.0f64,
        )| {
            let all: Vec<_> = words
                .iter()
                .map(|(word, order)| Standing {
                    usable: word & 1 == 1,
                    ill: word & 2 == 2,
                    trial: word & 4 == 4 && *order > 0,
                    ejected: ejected(*order).ejected.filter(|_| *order > 0),
                    share: 1.0,
                    failing: false,
                    service: Service::Out,
                    observed: false,
            word: None,
                })
                .collect();
            let limits = EjectionLimits::new().max_ejected(cap).panic_threshold(threshold);
            // Also where others take the calls of those that are sick.
            for limits in [limits, limits.lifted()] {
                let admission = admit(&all, &limits);
                let gets_calls = |fate: &Fate| matches!(fate, Fate::In(_) | Fate::Tolerated(_));
                let usable = all.iter().any(|it| it.usable);
                proptest::prop_assert_eq!(admission.fates.iter().any(gets_calls), usable);
                for (it, fate) in all.iter().zip(&admission.fates) {
                    proptest::prop_assert_eq!(!it.usable, *fate == Fate::Unusable);
                }
            }
        });
    }
}
