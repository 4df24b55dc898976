//! Who is far worse than the others: the arithmetic.

use super::super::window::Totals;
use super::OutlierDetection;

/// What a sweep looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Since the last sweep.
    pub(crate) totals: Totals,
    /// It is out already.
    pub(crate) ejected: bool,
}

/// Rates that differ by less are the same: mean and deviation of equal ones are rounded, and with few deviations allowed
/// each of them would be below their mean.
const ROUNDING: f64 = 1e-9;

/// The endpoints that are to be ejected, by their index. `random` gives numbers in `[0, 1)`.
///
/// Where gRFC A50 and what implements it differ, this does as grpc-go and grpc-java do: no more are ejected once the share
/// is reached, not only once it is exceeded, and the endpoints that are counted for `minimum_hosts` are those with enough
/// calls, of both algorithms.
pub(crate) fn sweep(
    rules: &OutlierDetection,
    seen: &[Seen],
    mut random: impl FnMut() -> f64,
) -> Vec<usize> {
    let mut out: Vec<bool> = seen.iter().map(|it| it.ejected).collect();
    let mut count = out.iter().filter(|out| **out).count();
    let mut chosen = Vec::new();
    let [of_rate, of_share] = rules.enforced;
    for (rule, by_rate, enforced) in [
        (&rules.success_rate, true, of_rate),
        (&rules.failure_share, false, of_share),
    ] {
        let Some(rule) = rule else { continue };
        let rates: Vec<(usize, f64)> = seen
            .iter()
            .enumerate()
            .filter(|(_, it)| it.totals.calls >= rule.min_calls)
            .map(|(index, it)| (index, it.totals.success_rate()))
            .collect();
        if rates.len() < rule.min_endpoints {
            continue;
        }
        let lowest = match by_rate {
            true => {
                let (mean, deviation) = spread(&rates);
                mean - deviation * rule.threshold
            }
            false => 1.0 - rule.threshold,
        };
        for (index, rate) in rates {
            // A50 looks before each ejection, so that one is possible however small the share.
            if count > 0 && share(count, seen.len()) >= rules.max_ejected {
                break;
            }
            if rate < lowest - ROUNDING && !out[index] && random() < enforced {
                out[index] = true;
                count += 1;
                chosen.push(index);
            }
        }
    }
    chosen
}

#[expect(clippy::cast_precision_loss, reason = "a share")]
fn share(part: usize, all: usize) -> f64 {
    part as f64 / all as f64
}

/// Mean and standard deviation (of the population, as in A50).
#[expect(clippy::cast_precision_loss, reason = "a count of endpoints")]
fn spread(rates: &[(usize, f64)]) -> (f64, f64) {
    let count = rates.len() as f64;
    let mean = rates.iter().map(|it| it.1).sum::<f64>() / count;
    let variance = rates.iter().map(|it| (it.1 - mean).powi(2)).sum::<f64>() / count;
    (mean, variance.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(calls: u64, faults: u64) -> Seen {
        Seen {
            totals: Totals { calls, faults },
            ejected: false,
        }
    }

    /// Those found when all are enforced.
    fn all_of(rules: &OutlierDetection, seen: &[Seen]) -> Vec<usize> {
        sweep(rules, seen, || 0.999)
    }

    #[test]
    fn the_one_that_stands_out_is_ejected_by_its_success_rate() {
        let rules = OutlierDetection::new().no_failure_share();
        let mut all = vec![seen(100, 1); 9];
        all.push(seen(100, 30));
        assert_eq!(all_of(&rules, &all), [9]);
        // With all alike, the lowest is no outlier, however little it takes to be one.
        for deviations in [0.0, 0.5, 1.0, 1.9] {
            let rules = rules.clone().success_rate(deviations, 5, 100);
            for (endpoints, calls, faults) in
                (5..20).flat_map(|count| (1..100).map(move |faults| (count, 100 + faults, faults)))
            {
                let all = vec![seen(calls, faults); endpoints];
                assert_eq!(
                    all_of(&rules, &all),
                    [0; 0],
                    "{deviations}: {faults} of {calls}"
                );
            }
        }
    }

    #[test]
    fn few_calls_or_few_endpoints_say_nothing() {
        let rules = OutlierDetection::new();
        let mut four = vec![seen(1000, 0); 3];
        four.push(seen(1000, 1000));
        assert!(all_of(&rules, &four).is_empty());
        let mut idle = vec![seen(49, 0); 9];
        idle.push(seen(49, 49));
        assert!(all_of(&rules, &idle).is_empty());
    }

    #[test]
    fn a_share_of_failures_above_the_threshold_ejects() {
        let rules = OutlierDetection::new().no_success_rate();
        let mut all = vec![seen(100, 85); 5];
        assert!(all_of(&rules, &all).is_empty(), "85 % is not above it");
        all[2] = seen(100, 86);
        assert_eq!(all_of(&rules, &all), [2]);
    }

    #[test]
    fn one_may_always_be_ejected_and_no_more_than_the_share() {
        let rules = OutlierDetection::new().no_success_rate();
        let bad = vec![seen(100, 100); 10];
        assert_eq!(all_of(&rules, &bad).len(), 1, "10 % of 10");
        let bad = vec![seen(100, 100); 5];
        assert_eq!(all_of(&rules, &bad).len(), 1, "one, although that is 20 %");
        let half = rules.clone().max_ejected(0.5);
        let bad = vec![seen(100, 100); 10];
        assert_eq!(all_of(&half, &bad).len(), 5);
        let mut out = vec![seen(100, 100); 10];
        out[0].ejected = true;
        assert!(all_of(&rules, &out).is_empty(), "the share is used up");
        let none = rules.max_ejected(0.0);
        assert_eq!(all_of(&none, &[seen(100, 100); 5]).len(), 1);
    }

    /// A50's arithmetic, worked by hand.
    #[test]
    fn the_success_rate_must_be_below_the_mean_less_factor_times_deviation() {
        // Rates 1 1 1 1 r. Mean m = (4 + r) / 5; variance = (4 (1 - m)² + (r - m)²) / 5 with 1 - m = (1 - r) / 5 and
        // r - m = -4 (1 - r) / 5: (4 + 16) / 125 (1 - r)² = 0.16 (1 - r)². So the deviation is 0.4 (1 - r), and r is 2
        // deviations below the mean, whatever it is: out with a factor of 1.9 (1900 / 1000), in with 2.1.
        let rules = OutlierDetection::new().no_failure_share();
        for faults in [1, 30, 100] {
            let mut all = vec![seen(100, 0); 4];
            all.push(seen(100, faults));
            assert_eq!(all_of(&rules, &all), [4], "{faults}");
            let wider = rules.clone().success_rate(2.1, 5, 100);
            assert!(all_of(&wider, &all).is_empty(), "{faults}");
        }
        // Rates 0.9 0.8 0.7 0.6 0.5 0.4 0.3 0.2: mean 0.55, variance (0.35² + 0.25² + 0.15² + 0.05²) / 4 = 0.0525,
        // deviation 0.22913. The lowest is 0.35 below, 1.5275 deviations.
        let all: Vec<_> = (1..=8).map(|nth| seen(100, nth * 10)).collect();
        assert!(all_of(&rules.clone().success_rate(1.528, 5, 100), &all).is_empty());
        assert_eq!(
            all_of(&rules.clone().success_rate(1.527, 5, 100), &all),
            [7]
        );
        // Of a sample, not of the population, the deviation would be 0.24495: 1.4289.
        assert_eq!(all_of(&rules.clone().success_rate(1.45, 5, 100), &all), [7]);
    }

    #[test]
    fn only_endpoints_with_enough_calls_are_compared() {
        let rules = OutlierDetection::new().no_failure_share();
        // With 99 calls it is no outlier, nor does it count among the five, nor for mean and deviation.
        let mut all = vec![seen(100, 0); 4];
        all.push(seen(99, 99));
        assert!(all_of(&rules, &all).is_empty());
        all.push(seen(100, 50));
        assert_eq!(all_of(&rules, &all), [5], "five of six");
        let rules = OutlierDetection::new().no_success_rate();
        let mut all = vec![seen(50, 0); 4];
        all.push(seen(49, 49));
        assert!(all_of(&rules, &all).is_empty());
        all.push(seen(50, 50));
        assert_eq!(all_of(&rules, &all), [5]);
    }

    #[test]
    fn the_share_of_ejected_ones_is_looked_at_before_each() {
        let rules = OutlierDetection::new().no_success_rate();
        // 10 % of 21 is 2.1: after two, 9.5 % are out, and a third one may be; 14.3 % are enough.
        assert_eq!(all_of(&rules, &vec![seen(100, 100); 21]).len(), 3);
        // 10 % of 20 is 2: that is reached.
        assert_eq!(all_of(&rules, &vec![seen(100, 100); 20]).len(), 2);
        // Both ways to find them draw on the same share.
        let rules = OutlierDetection::new();
        let mut all = vec![seen(100, 0); 9];
        all.push(seen(100, 100));
        assert_eq!(all_of(&rules, &all), [9], "once, though both find it");
        all[8] = seen(100, 90);
        assert_eq!(all_of(&rules, &all).len(), 1);
    }

    #[test]
    fn chance_decides_on_each_as_often_as_is_enforced() {
        let mut random = fastrand::Rng::with_seed(50);
        let bad = vec![seen(100, 100); 5];
        let mut rate = vec![seen(100, 0); 9];
        rate.push(seen(100, 30));
        for (rules, all) in [
            (OutlierDetection::new().enforced(0.25, 1.0), &rate),
            (
                OutlierDetection::new()
                    .no_success_rate()
                    .enforced(1.0, 0.25),
                &bad,
            ),
        ] {
            let rules = rules.max_ejected(1.0);
            let mut ejected = 0;
            for _ in 0..1000 {
                ejected += sweep(&rules, all, || random.f64()).len();
            }
            let found = sweep(&rules, all, || 0.0).len();
            assert!((200 * found..300 * found).contains(&ejected), "{ejected}");
            let none = rules.enforced(0.0, 0.0);
            assert!(sweep(&none, all, || random.f64()).is_empty());
        }
    }
}
