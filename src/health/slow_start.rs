//! Endpoints that enter service get their calls little by little.

use std::time::Duration;

use crate::error::Error;
use crate::time::Instant;

use super::admission::{Fate, Standing};

/// How an endpoint that enters service comes to its share of the calls: caches are cold there, code is not compiled yet,
/// pools are empty.
///
/// It begins with a tenth of its due, which grows evenly over 30 s, under every policy. (The rule is Envoy's, `max(10 %,
/// (t / window)^(1 / aggression))`; there it is off unless a window is set.)
///
/// ```text
///  100 % ┤                   ┌────
///        │              ╭────╯
///   50 % ┤         ╭────╯
///        │    ╭────╯
///   10 % ┼────╯
///        └────┬──────────────┬───► time in service
///         10 % of the window  window
/// ```
///
/// An endpoint enters service when it is new, when it is connected again after dials have failed, and when it is back from
/// an ejection or from failed health checks. A connection that is replaced is none of that.
///
/// It is about endpoints beside others: the one that has been in service for longest always has its whole due. Those that
/// begin together, within a tenth of the window, as all do when a channel starts, are equal. In sets of fewer than three
/// endpoints there is no slow start: the other one would have to bear it alone. And there is none for endpoints that get
/// calls only because too few are well.
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct SlowStart {
    window: Duration,
    minimum: f64,
    aggression: f64,
}

/// Whether an endpoint is in service, and since when while that is news.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Service {
    #[default]
    Out,
    Starting(Instant),
    In,
}

const MAX_TIME: Duration = Duration::from_secs(24 * 60 * 60);

/// Smaller sets have no slow start.
const FEWEST: usize = 3;

/// The steps in which shares grow: of 1 s, and shorter ones in windows under 30 s. Each of them is a new set.
const STEPS: u32 = 30;
const LONGEST_STEP: Duration = Duration::from_secs(1);

/// Starts within this part of the window are one.
const TOGETHER: u32 = 10;

impl Default for SlowStart {
    fn default() -> Self {
        Self::new()
    }
}

impl SlowStart {
    /// The defaults.
    pub fn new() -> Self {
        Self {
            window: Duration::from_secs(30),
            minimum: 0.1,
            aggression: 1.0,
        }
    }

    /// The time after which an endpoint has its whole due. Default 30 s; from 100 ms to a day.
    pub fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// The part of its due that it has at least. Default 0.1; more than 0, at most 1.
    pub fn minimum(mut self, share: f64) -> Self {
        self.minimum = share;
        self
    }

    /// How the share grows: evenly with 1, faster at first above, slower at first below. Default 1; from 0.01 to 100.
    pub fn aggression(mut self, aggression: f64) -> Self {
        self.aggression = aggression;
        self
    }

    /// # Errors
    ///
    /// A configuration error that names the field.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let bad = |field: &str, problem: &str| Err(Error::config(field, problem));
        if self.window < Duration::from_millis(100) || self.window > MAX_TIME {
            return bad("slow_start.window", "must be from 100 ms to a day");
        }
        if !(self.minimum > 0.0 && self.minimum <= 1.0) {
            return bad("slow_start.minimum", "must be more than 0 and at most 1");
        }
        if !(0.01..=100.0).contains(&self.aggression) {
            return bad("slow_start.aggression", "must be from 0.01 to 100");
        }
        Ok(())
    }

    /// Notes who has entered or left service by what was decided over a set, and lets those have less that have begun
    /// lately. Returns when to do that again, if there are any.
    pub(crate) fn follow(
        &self,
        now: Instant,
        standings: &mut [Standing],
        fates: &mut [Fate],
    ) -> Option<Instant> {
        let is_small = standings.len() < FEWEST;
        let first = self.begun_lately(now, standings).unwrap_or(now);
        for (standing, fate) in standings.iter_mut().zip(&*fates) {
            standing.service = match (fate, standing.service) {
                (Fate::In(_), Service::Out) if !is_small => Service::Starting(first),
                (Fate::In(_) | Fate::Tolerated(_), Service::Out) => Service::In,
                (Fate::Out | Fate::Trial, _) => Service::Out,
                (Fate::Unusable, _) if standing.failing => Service::Out,
                (_, Service::Starting(at)) if is_small || since(at, now) >= self.window => {
                    Service::In
                }
                (_, same) => same,
            };
        }
        let served = standings.iter().zip(fates.iter_mut());
        let mut shares: Vec<_> = served
            .filter_map(|(standing, fate)| match fate {
                Fate::In(share) => Some((share, self.part(standing.service, now))),
                // Those that are tolerated are needed.
                _ => None,
            })
            .collect();
        let greatest = shares.iter().map(|it| it.1).fold(0.0, f64::max);
        let mut next = None;
        for (share, part) in &mut shares {
            if *part < greatest {
                **share *= *part / greatest;
                next = Some(now + (self.window / STEPS).min(LONGEST_STEP));
            }
        }
        next
    }

    /// When those began that whoever begins now belongs to.
    fn begun_lately(&self, now: Instant, standings: &[Standing]) -> Option<Instant> {
        let starts = standings.iter().filter_map(|it| match it.service {
            Service::Starting(at) => Some(at),
            Service::Out | Service::In => None,
        });
        let together = self.window / TOGETHER;
        starts.filter(|at| since(*at, now) <= together).min()
    }

    fn part(&self, service: Service, now: Instant) -> f64 {
        match service {
            Service::Starting(at) => self.ramp(since(at, now)),
            Service::Out | Service::In => 1.0,
        }
    }

    /// The part of its due that an endpoint has after that time in service.
    fn ramp(&self, time: Duration) -> f64 {
        let done = time.as_secs_f64() / self.window.as_secs_f64();
        done.powf(1.0 / self.aggression).clamp(self.minimum, 1.0)
    }
}

fn since(at: Instant, now: Instant) -> Duration {
    now.saturating_duration_since(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that can't be called.
    const OUT: Standing = Standing {
        usable: false,
        ill: false,
        ejected: None,
        trial: false,
        share: 1.0,
        failing: false,
        service: Service::Out,
        observed: false,
        word: None,
    };

    const SECOND: Duration = Duration::from_secs(1);

    /// A set whose time passes as it is told.
    struct Set {
        rules: SlowStart,
        now: Instant,
        standings: Vec<Standing>,
        next: Option<Instant>,
    }

    impl Set {
        fn of(endpoints: usize) -> Self {
            Self {
                rules: SlowStart::new(),
                now: Instant::now(),
                standings: vec![OUT; endpoints],
                next: None,
            }
        }

        /// The same after all have been in service for long.
        fn settled(endpoints: usize) -> Self {
            let mut set = Self::of(endpoints);
            set.decide(&vec![Fate::In(1.0); endpoints]);
            set.now += 40 * SECOND;
            set.decide(&vec![Fate::In(1.0); endpoints]);
            set
        }

        /// What each gets, in percent.
        fn decide(&mut self, fates: &[Fate]) -> Vec<u32> {
            let mut fates = fates.to_vec();
            self.next = self.rules.follow(self.now, &mut self.standings, &mut fates);
            let percent = |fate: &Fate| match fate {
                Fate::In(share) | Fate::Tolerated(share) => (share * 100.0).round() as u32,
                _ => 0,
            };
            fates.iter().map(percent).collect()
        }

        fn after(&mut self, seconds: u32, fates: &[Fate]) -> Vec<u32> {
            self.now += seconds * SECOND;
            self.decide(fates)
        }
    }

    const IN: Fate = Fate::In(1.0);

    #[test]
    fn the_curve_is_envoys() {
        let ramp = |aggression, seconds| {
            let rules = SlowStart::new().aggression(aggression);
            (rules.ramp(seconds * SECOND) * 1000.0).round()
        };
        let even: Vec<_> = [0, 1, 3, 6, 15, 30, 31, 1 << 30]
            .map(|at| ramp(1.0, at))
            .into();
        assert_eq!(even, [100., 100., 100., 200., 500., 1000., 1000., 1000.]);
        assert_eq!(ramp(2.0, 15), 707.0, "the square root of a half");
        assert_eq!(ramp(0.5, 15), 250.0, "its square");
    }

    #[test]
    fn all_that_begin_together_are_equal() {
        let mut set = Set::of(3);
        assert_eq!(
            set.decide(&[IN, Fate::Unusable, Fate::Unusable]),
            [100, 0, 0]
        );
        assert_eq!(set.after(1, &[IN, IN, Fate::Unusable]), [100, 100, 0]);
        assert_eq!(set.after(2, &[IN, IN, IN]), [100, 100, 100]);
        assert_eq!(set.next, None, "nothing grows");
        assert_eq!(set.after(20, &[IN, IN, IN]), [100, 100, 100]);
        assert_eq!(set.after(7, &[IN, IN, IN]), [100, 100, 100]);
        assert_eq!(set.next, None);
    }

    #[test]
    fn one_that_begins_later_grows_beside_those_that_grow() {
        let mut set = Set::of(3);
        set.decide(&[IN, IN, Fate::Unusable]);
        assert_eq!(set.after(6, &[IN, IN, IN]), [100, 100, 50]);
        assert_eq!(set.next, Some(set.now + SECOND));
        assert_eq!(set.after(6, &[IN, IN, IN]), [100, 100, 50]);
        assert_eq!(set.after(18, &[IN, IN, IN]), [100, 100, 80]);
        assert_eq!(set.after(6, &[IN, IN, IN]), [100, 100, 100]);
        assert_eq!(set.next, None);
    }

    #[test]
    fn one_that_joins_begins_with_a_tenth() {
        let mut set = Set::settled(3);
        set.standings.push(OUT);
        assert_eq!(set.decide(&[IN; 4]), [100, 100, 100, 10]);
        assert_eq!(set.after(15, &[IN; 4]), [100, 100, 100, 50]);
        assert_eq!(set.after(15, &[IN; 4]), [100, 100, 100, 100]);
        assert_eq!(set.next, None);
    }

    #[test]
    fn shares_that_others_set_are_kept() {
        let mut set = Set::settled(3);
        set.standings.push(OUT);
        let fates = [Fate::In(0.5), IN, IN, Fate::In(0.5)];
        assert_eq!(set.decide(&fates), [50, 100, 100, 5]);
    }

    #[test]
    fn what_is_back_from_ejection_begins_anew() {
        for out in [Fate::Out, Fate::Trial] {
            let mut set = Set::settled(3);
            assert_eq!(set.decide(&[IN, IN, out]), [100, 100, 0]);
            assert_eq!(set.after(1, &[IN; 3]), [100, 100, 10]);
        }
    }

    #[test]
    fn a_connection_that_is_replaced_is_no_start_and_a_failed_dial_is() {
        let mut set = Set::settled(3);
        set.decide(&[IN, IN, Fate::Unusable]);
        assert_eq!(set.after(1, &[IN; 3]), [100, 100, 100]);
        set.standings[2].failing = true;
        set.decide(&[IN, IN, Fate::Unusable]);
        set.standings[2].failing = false;
        set.decide(&[IN, IN, Fate::Unusable]);
        assert_eq!(set.after(1, &[IN; 3]), [100, 100, 10]);
    }

    /// Where nothing grows, nobody looks at the end of the window.
    #[test]
    fn what_leaves_service_has_left_it_although_nobody_noted_that_its_start_was_over() {
        let mut set = Set::of(3);
        set.decide(&[IN; 3]);
        assert_eq!(set.after(40, &[IN, IN, Fate::Out]), [100, 100, 0]);
        assert_eq!(set.after(30, &[IN; 3]), [100, 100, 10]);
        let mut set = Set::of(3);
        set.decide(&[IN; 3]);
        set.standings[2].failing = true;
        assert_eq!(set.after(40, &[IN, IN, Fate::Unusable]), [100, 100, 0]);
        set.standings[2].failing = false;
        assert_eq!(set.after(1, &[IN; 3]), [100, 100, 10]);
    }

    #[test]
    fn in_small_sets_and_in_panic_nobody_starts_slowly() {
        let mut set = Set::settled(2);
        set.decide(&[IN, Fate::Out]);
        assert_eq!(set.after(1, &[IN; 2]), [100, 100]);
        // It began in a set that was larger.
        let mut set = Set::settled(3);
        set.standings[2] = OUT;
        assert_eq!(set.decide(&[IN; 3]), [100, 100, 10]);
        set.standings.remove(0);
        assert_eq!(set.after(1, &[IN; 2]), [100, 100]);
        let mut set = Set::settled(3);
        set.decide(&[IN, Fate::Out, Fate::Out]);
        let panic = Fate::Tolerated(1.0);
        assert_eq!(set.after(1, &[IN, panic, panic]), [100, 100, 100]);
        assert_eq!(set.after(1, &[IN; 3]), [100, 100, 100], "it had them");
        set.decide(&[IN, IN, Fate::Out]);
        assert_eq!(set.after(1, &[IN; 3]), [100, 100, 10]);
        assert_eq!(set.after(1, &[panic, IN, IN]), [100, 100, 10]);
        assert_eq!(set.after(1, &[IN, panic, panic]), [100, 100, 100]);
    }

    #[test]
    fn at_the_start_those_that_are_tolerated_are_equal_too() {
        let mut set = Set::of(3);
        set.decide(&[IN; 3]);
        assert_eq!(set.after(1, &[IN, IN, Fate::Tolerated(1.0)]), [100; 3]);
    }

    #[test]
    fn when_all_are_new_none_waits_for_the_others() {
        let mut set = Set::settled(3);
        set.standings = vec![OUT; 3];
        assert_eq!(set.decide(&[IN; 3]), [100, 100, 100]);
    }
}
