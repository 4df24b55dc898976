//! What probes say of one endpoint.

use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;
use crate::time::Instant;

use super::Influence;

/// How many answers it takes, and how much time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Thresholds {
    pub(crate) unhealthy: u32,
    pub(crate) healthy: u32,
    /// How long an endpoint must have been well before it gets calls again, the first time. It doubles with each fall, so
    /// that one that is ill every few seconds is left alone more and more.
    pub(crate) min_healthy: Duration,
    /// At most; and after being well for this long, its past is forgotten.
    pub(crate) max_min_healthy: Duration,
    pub(crate) influence: Influence,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            unhealthy: 3,
            healthy: 2,
            min_healthy: Duration::from_secs(1),
            max_min_healthy: Duration::from_secs(60),
            influence: Influence::Veto,
        }
    }
}

/// What came of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The server says that it is well.
    Serving,
    /// The server says that it is not. Its word counts at once.
    NotServing(Arc<str>),
    /// The probe failed, or had no answer in time.
    Failed(Arc<str>),
    /// Nothing can be learnt: the server has no health service, or does not say.
    Untold,
}

/// The probes' verdict, with what leads to the next.
#[derive(Debug)]
pub(super) struct Probed {
    verdict: Verdict,
    since: Instant,
    /// Answers in a row.
    good: u32,
    bad: u32,
    /// When the good ones began.
    good_since: Option<Instant>,
    /// Enough of them have come; only their time has not.
    recovering: bool,
    /// How often it fell ill without having been well for long.
    falls: u32,
    why: Arc<str>,
    /// How long it must have been well, the first time and at most.
    min_healthy: (Duration, Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// No answer yet.
    Unknown,
    Healthy,
    Unhealthy,
}

const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

impl Thresholds {
    /// # Errors
    ///
    /// A configuration error that names the field.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        for (field, value) in [
            ("health_check.unhealthy_threshold", self.unhealthy),
            ("health_check.healthy_threshold", self.healthy),
        ] {
            if value == 0 {
                return Err(Error::config(field, "must be at least 1"));
            }
        }
        if self.max_min_healthy > LONGEST {
            let problem = "must be at most a day";
            return Err(Error::config("health_check.min_healthy_time", problem));
        }
        if self.max_min_healthy < self.min_healthy {
            let problem = "the longest time must not be below the first";
            return Err(Error::config("health_check.min_healthy_time", problem));
        }
        self.influence.validate("health_check")
    }
}

impl Probed {
    pub(super) fn new(now: Instant, rules: Option<&Thresholds>) -> Self {
        Self {
            min_healthy: rules
                .map_or_else(Default::default, |it| (it.min_healthy, it.max_min_healthy)),
            verdict: Verdict::Unknown,
            since: now,
            good: 0,
            bad: 0,
            good_since: None,
            recovering: false,
            falls: 0,
            why: Arc::from(""),
        }
    }

    pub(super) fn verdict(&self) -> Verdict {
        self.verdict
    }

    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// Why it is unhealthy.
    pub(super) fn why(&self) -> &Arc<str> {
        &self.why
    }

    /// Whether probes are about to change their verdict: more of them are worth while.
    pub(super) fn is_undecided(&self) -> bool {
        match self.verdict {
            Verdict::Unknown | Verdict::Unhealthy => true,
            Verdict::Healthy => self.bad > 0,
        }
    }

    /// When it may be taken for healthy again, if nothing happens until then.
    pub(super) fn next(&self) -> Option<Instant> {
        let began = self.good_since.filter(|_| self.recovering)?;
        Some(began + self.hold())
    }

    /// What time has done. Says whether the verdict has changed.
    pub(super) fn advance(&mut self, now: Instant) -> bool {
        self.next().is_some_and(|at| at <= now) && self.enter(Verdict::Healthy, now)
    }

    /// Takes an answer in. Says whether the verdict has changed.
    pub(super) fn learn(&mut self, now: Instant, answer: Answer, rules: &Thresholds) -> bool {
        match answer {
            Answer::Serving => self.rise(now, rules.healthy),
            // It answers; that is all that can be had.
            Answer::Untold => self.rise(now, 0),
            Answer::NotServing(why) => self.fall(now, why),
            Answer::Failed(why) => {
                self.forget_the_good();
                self.bad = self.bad.saturating_add(1);
                match self.verdict {
                    // Its connection has just shown that it works: only the probe did not.
                    Verdict::Unknown => self.enter(Verdict::Healthy, now),
                    Verdict::Healthy if self.bad >= rules.unhealthy => self.fall(now, why),
                    Verdict::Healthy | Verdict::Unhealthy => false,
                }
            }
        }
    }

    /// More answers of the same kind as the last one, without asking: a server that said that it is well stays so
    /// until it says otherwise, and does not repeat itself.
    pub(super) fn standing_word(&mut self, now: Instant) -> bool {
        self.recovering = self.verdict == Verdict::Unhealthy && self.good > 0;
        self.advance(now)
    }

    /// A good answer, of which so many are needed.
    fn rise(&mut self, now: Instant, needed: u32) -> bool {
        self.bad = 0;
        self.good = self.good.saturating_add(1);
        self.good_since.get_or_insert(now);
        match self.verdict {
            Verdict::Unknown => self.enter(Verdict::Healthy, now),
            Verdict::Healthy => false,
            Verdict::Unhealthy => {
                self.recovering |= self.good >= needed;
                self.advance(now)
            }
        }
    }

    fn fall(&mut self, now: Instant, why: Arc<str>) -> bool {
        self.forget_the_good();
        self.why = why;
        match self.verdict {
            Verdict::Unhealthy => return false,
            Verdict::Healthy if now.saturating_duration_since(self.since) >= self.min_healthy.1 => {
                self.falls = 1;
            }
            Verdict::Healthy | Verdict::Unknown => self.falls = self.falls.saturating_add(1),
        }
        self.enter(Verdict::Unhealthy, now)
    }

    fn forget_the_good(&mut self) {
        self.good = 0;
        self.good_since = None;
        self.recovering = false;
    }

    fn hold(&self) -> Duration {
        let doublings = self.falls.saturating_sub(1).min(16);
        let (first, longest) = self.min_healthy;
        first.saturating_mul(1 << doublings).min(longest)
    }

    fn enter(&mut self, verdict: Verdict, now: Instant) -> bool {
        self.verdict = verdict;
        self.since = now;
        self.bad = 0;
        if verdict == Verdict::Healthy {
            self.recovering = false;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD: Duration = Duration::from_secs(1);
    const RULES: Thresholds = Thresholds {
        unhealthy: 3,
        healthy: 2,
        min_healthy: HOLD,
        max_min_healthy: Duration::from_secs(60),
        influence: Influence::Veto,
    };

    fn failed() -> Answer {
        Answer::Failed("no answer".into())
    }

    fn not_serving() -> Answer {
        Answer::NotServing("NOT_SERVING".into())
    }

    fn start() -> (Probed, Instant) {
        let now = Instant::now();
        (Probed::new(now, Some(&RULES)), now)
    }

    #[test]
    fn the_time_to_be_well_doubles_with_each_fall_up_to_its_limit() {
        for (first, longest, times) in [
            (1_000, 60_000, [1_000, 2_000, 4_000, 8_000]),
            (100, 300, [100, 200, 300, 300]),
            (0, 60_000, [0; 4]),
        ] {
            let rules = Thresholds {
                min_healthy: Duration::from_millis(first),
                max_min_healthy: Duration::from_millis(longest),
                ..RULES
            };
            let mut now = Instant::now();
            let mut probed = Probed::new(now, Some(&rules));
            for time in times.map(Duration::from_millis) {
                assert!(probed.learn(now, not_serving(), &rules));
                probed.learn(now, Answer::Serving, &rules);
                let is_back = probed.learn(now, Answer::Serving, &rules);
                assert_eq!(is_back, time.is_zero());
                assert_eq!(probed.next(), Some(now + time).filter(|_| !is_back));
                now += time;
                assert_eq!(probed.advance(now), !is_back);
                assert_eq!(probed.verdict(), Verdict::Healthy);
            }
            // Well for as long as may be: its past is forgotten.
            now += rules.max_min_healthy;
            probed.learn(now, not_serving(), &rules);
            probed.learn(now, Answer::Serving, &rules);
            probed.standing_word(now);
            assert!(probed.advance(now + rules.min_healthy) || first == 0);
        }
    }

    #[test]
    fn the_first_answer_decides() {
        for (answer, verdict) in [
            (Answer::Serving, Verdict::Healthy),
            (Answer::Untold, Verdict::Healthy),
            (failed(), Verdict::Healthy),
            (not_serving(), Verdict::Unhealthy),
        ] {
            let (mut probed, now) = start();
            assert!(probed.learn(now, answer, &RULES));
            assert_eq!(probed.verdict(), verdict);
        }
    }

    #[test]
    fn failures_in_a_row_make_it_unhealthy_and_one_success_between_does_not() {
        let (mut probed, now) = start();
        probed.learn(now, Answer::Serving, &RULES);
        for _ in 0..4 {
            assert!(!probed.learn(now, failed(), &RULES));
            assert!(!probed.learn(now, failed(), &RULES));
            assert!(!probed.learn(now, Answer::Serving, &RULES));
        }
        assert!(!probed.learn(now, failed(), &RULES));
        assert!(!probed.learn(now, failed(), &RULES));
        assert!(probed.learn(now, failed(), &RULES));
        assert_eq!(&**probed.why(), "no answer");
    }

    #[test]
    fn recovery_takes_successes_and_time() {
        let (mut probed, now) = start();
        probed.learn(now, not_serving(), &RULES);
        assert!(!probed.learn(now, Answer::Serving, &RULES));
        assert_eq!(probed.next(), None, "one success is too few");
        let later = now + Duration::from_millis(10);
        assert!(!probed.learn(later, Answer::Serving, &RULES));
        assert_eq!(probed.next(), Some(now + HOLD));
        assert!(!probed.advance(now + HOLD / 2));
        assert!(probed.advance(now + HOLD));
        assert_eq!(probed.verdict(), Verdict::Healthy);
    }

    #[test]
    fn a_standing_word_counts_as_often_as_needed() {
        let (mut probed, now) = start();
        probed.learn(now, not_serving(), &RULES);
        probed.learn(now, Answer::Serving, &RULES);
        assert!(!probed.standing_word(now));
        assert!(probed.advance(now + HOLD));
    }

    #[test]
    fn flapping_ends_on_the_unhealthy_side() {
        let (mut probed, mut now) = start();
        probed.learn(now, Answer::Serving, &RULES);
        let mut flips = 0;
        for beat in 0..600 {
            now += Duration::from_millis(100);
            let answer = match beat % 2 {
                0 => not_serving(),
                _ => Answer::Serving,
            };
            flips += u32::from(probed.advance(now));
            flips += u32::from(probed.learn(now, answer, &RULES));
            flips += u32::from(probed.standing_word(now));
        }
        assert_eq!(flips, 1);
        assert_eq!(probed.verdict(), Verdict::Unhealthy);
    }

    #[test]
    fn slow_flapping_flips_less_and_less() {
        let (mut probed, mut now) = start();
        probed.learn(now, Answer::Serving, &RULES);
        let mut flips = Vec::new();
        for second in 0..600 {
            now += Duration::from_secs(1);
            let answer = match second / 5 % 2 {
                0 => not_serving(),
                _ => Answer::Serving,
            };
            let flipped = probed.advance(now) | probed.learn(now, answer, &RULES);
            if flipped || probed.standing_word(now) {
                flips.push(second);
            }
        }
        assert!(flips.len() <= 8, "{flips:?}");
        assert!(flips.iter().all(|at| *at < 60), "{flips:?}");
    }
}
