//! When to try again.
//!
//! The `backoff` crate supplies the exponential interval and nothing else: its clock and its chance are not used. It is
//! unmaintained, so it stays behind [`RetryPolicy::interval_ms`]; `deny.toml` lists the exception with its reason.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;

/// A draw of chance: a number from 0 (included) to 1 (excluded), drawn by the caller.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Chance(f64);

impl Chance {
    /// The middle: no jitter.
    pub const MIDDLE: Self = Self(0.5);

    /// Takes a draw; anything outside the range, or not a number, is moved into it.
    pub fn new(draw: f64) -> Self {
        if draw.is_nan() { Self::MIDDLE } else { Self(draw.clamp(0.0, 1.0 - f64::EPSILON)) }
    }

    /// The draw.
    pub fn get(self) -> f64 {
        self.0
    }
}

/// The longest interval that can be asked for: what the ladder carries, in whole days (11).
pub const MAX_INTERVAL_MS: u64 = 11 * 24 * 3600 * 1000;

/// The most attempts that can be asked for.
pub const MAX_ATTEMPTS: u32 = 100;

/// How attempts follow each other: checked once, then only read.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    initial_ms: u64,
    factor: f64,
    max_interval_ms: u64,
    max_attempts: u32,
    max_age_ms: u64,
    jitter: f64,
    schedule_ms: Option<Vec<u64>>,
}

/// What a retry policy is made from; every member has the default of DESIGN §10.
#[derive(Clone, Debug, PartialEq)]
pub struct RetrySpec {
    /// The first interval, milliseconds.
    pub initial_ms: u64,
    /// Each interval is this many times the one before.
    pub factor: f64,
    /// No interval is longer, milliseconds.
    pub max_interval_ms: u64,
    /// The most requests for one series.
    pub max_attempts: u32,
    /// No attempt starts later than this after the series began, milliseconds.
    pub max_age_ms: u64,
    /// Spread around each interval: 0.2 means from 0.8 to 1.2 times.
    pub jitter: f64,
    /// The intervals themselves, milliseconds, in place of `initial_ms`, `factor` and `max_interval_ms`.
    pub schedule_ms: Option<Vec<u64>>,
}

impl Default for RetrySpec {
    fn default() -> Self {
        Self {
            initial_ms: 5_000,
            factor: 4.0,
            max_interval_ms: 43_200_000,
            max_attempts: 12,
            max_age_ms: 259_200_000,
            jitter: 0.2,
            schedule_ms: None,
        }
    }
}

/// Why a retry policy is refused. The text names the member and its range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BadRetry {
    /// A number outside its range.
    #[error("retry.{member} must be from {least} to {most}")]
    OutOfRange {
        /// The member's name.
        member: &'static str,
        /// Smallest legal value.
        least: f64,
        /// Largest legal value.
        most: f64,
    },
    /// A list without entries.
    #[error("retry.schedule_ms must have at least one interval; for no retries set max_attempts to 1")]
    EmptySchedule,
}

impl RetryPolicy {
    /// Checks a specification.
    ///
    /// # Errors
    /// [`BadRetry`] with the first member that is out of range.
    pub fn new(spec: RetrySpec) -> Result<Self, BadRetry> {
        let within = |member, value: f64, least: f64, most: f64| {
            if value.is_finite() && (least..=most).contains(&value) {
                Ok(())
            } else {
                Err(BadRetry::OutOfRange { member, least, most })
            }
        };
        let longest = MAX_INTERVAL_MS as f64;
        within("initial_ms", spec.initial_ms as f64, 1.0, longest)?;
        within("factor", spec.factor, 1.0, 100.0)?;
        within("max_interval_ms", spec.max_interval_ms as f64, 1.0, longest)?;
        within("max_attempts", f64::from(spec.max_attempts), 1.0, f64::from(MAX_ATTEMPTS))?;
        within("max_age_ms", spec.max_age_ms as f64, 1.0, 30.0 * 24.0 * 3_600_000.0)?;
        within("jitter", spec.jitter, 0.0, 0.9)?;
        if let Some(schedule) = &spec.schedule_ms {
            if schedule.is_empty() {
                return Err(BadRetry::EmptySchedule);
            }
            for interval in schedule {
                within("schedule_ms", *interval as f64, 1.0, longest)?;
            }
        }
        let RetrySpec { initial_ms, factor, max_interval_ms, max_attempts, max_age_ms, jitter, schedule_ms } =
            spec;
        Ok(Self { initial_ms, factor, max_interval_ms, max_attempts, max_age_ms, jitter, schedule_ms })
    }

    /// The most requests for one series. A schedule of `n` intervals allows `n` + 1.
    pub fn max_attempts(&self) -> u32 {
        match &self.schedule_ms {
            Some(schedule) => {
                self.max_attempts.min(u32::try_from(schedule.len()).unwrap_or(u32::MAX).saturating_add(1))
            }
            None => self.max_attempts,
        }
    }

    /// How long after its beginning a series may start another attempt, milliseconds.
    pub fn max_age_ms(&self) -> u64 {
        self.max_age_ms
    }

    /// The interval after attempt `attempt` (the first is 1), before jitter, milliseconds.
    pub fn interval_ms(&self, attempt: u32) -> u64 {
        let index = attempt.saturating_sub(1);
        if let Some(schedule) = &self.schedule_ms {
            let last = schedule.len() - 1;
            return schedule[usize::try_from(index).unwrap_or(last).min(last)];
        }
        let initial = Duration::from_millis(self.initial_ms);
        let mut exponential = ExponentialBackoff {
            current_interval: initial,
            initial_interval: initial,
            randomization_factor: 0.0,
            multiplier: self.factor,
            max_interval: Duration::from_millis(self.max_interval_ms),
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        for _ in 0..index.min(MAX_ATTEMPTS) {
            exponential.next_backoff();
        }
        let interval_ms = u64::try_from(exponential.current_interval.as_millis()).unwrap_or(u64::MAX);
        interval_ms.min(self.max_interval_ms)
    }

    /// The intervals between the attempts of a series of which every attempt fails at once, before jitter, milliseconds: as many as
    /// the attempts and the age allow.
    pub fn intervals_ms(&self) -> Vec<u64> {
        let mut age_ms = 0u64;
        let within_age = |interval_ms: &u64| {
            age_ms = age_ms.saturating_add(*interval_ms);
            age_ms <= self.max_age_ms
        };
        (1..self.max_attempts()).map(|attempt| self.interval_ms(attempt)).take_while(within_age).collect()
    }

    /// How much an interval may be shorter or longer, as a part of it: from 0 to 0.9.
    pub fn jitter(&self) -> f64 {
        self.jitter
    }

    /// The longest that the first retry may come after its attempt, milliseconds.
    pub fn first_retry_ms(&self) -> u64 {
        (self.interval_ms(1) as f64 * (1.0 + self.jitter)).ceil() as u64
    }

    /// The interval after attempt `attempt` with jitter, milliseconds: from `1 - jitter` to `1 + jitter` times.
    pub fn delay_ms(&self, attempt: u32, chance: Chance) -> u64 {
        let spread = 1.0 + self.jitter * (2.0 * chance.get() - 1.0);
        ((self.interval_ms(attempt) as f64 * spread).round() as u64).max(1)
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        let RetrySpec { initial_ms, factor, max_interval_ms, max_attempts, max_age_ms, jitter, schedule_ms } =
            RetrySpec::default();
        Self { initial_ms, factor, max_interval_ms, max_attempts, max_age_ms, jitter, schedule_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_default_schedule_is_what_the_docs_say() {
        let policy = RetryPolicy::default();
        let seconds: Vec<u64> = (1..12).map(|n| policy.interval_ms(n) / 1000).collect();
        assert_eq!(seconds, [5, 20, 80, 320, 1280, 5120, 20480, 43200, 43200, 43200, 43200]);
        assert!(seconds.iter().sum::<u64>() * 1200 < policy.max_age_ms(), "12 attempts fit into the age");
        assert_eq!(policy, RetryPolicy::new(RetrySpec::default()).unwrap());
    }

    #[test]
    fn a_schedule_sets_the_intervals_and_the_attempts() {
        let spec = RetrySpec {
            schedule_ms: Some(vec![60_000, 300_000, 600_000]),
            jitter: 0.0,
            ..RetrySpec::default()
        };
        let policy = RetryPolicy::new(spec).unwrap();
        assert_eq!(policy.max_attempts(), 4);
        assert_eq!(policy.delay_ms(2, Chance::new(0.9)), 300_000);
        assert_eq!(policy.interval_ms(9), 600_000);
    }

    #[test]
    fn intervals_end_with_the_attempts_or_with_the_age() {
        let policy = |max_attempts, max_age_ms| {
            RetryPolicy::new(RetrySpec { max_attempts, max_age_ms, ..RetrySpec::default() }).unwrap()
        };
        assert_eq!(policy(4, 259_200_000).intervals_ms(), [5_000, 20_000, 80_000]);
        assert_eq!(policy(12, 105_000).intervals_ms(), [5_000, 20_000, 80_000]);
        assert_eq!(policy(12, 104_999).intervals_ms(), [5_000, 20_000]);
        assert!(policy(1, 259_200_000).intervals_ms().is_empty());
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let refused = |change: fn(&mut RetrySpec)| {
            let mut spec = RetrySpec::default();
            change(&mut spec);
            RetryPolicy::new(spec).unwrap_err().to_string()
        };
        assert!(refused(|s| s.factor = f64::NAN).contains("retry.factor"));
        assert!(refused(|s| s.max_attempts = 0).contains("retry.max_attempts"));
        assert!(refused(|s| s.max_interval_ms = MAX_INTERVAL_MS + 1).contains("retry.max_interval_ms"));
        assert!(refused(|s| s.schedule_ms = Some(vec![])).contains("schedule_ms"));
        assert!(refused(|s| s.jitter = 1.0).contains("retry.jitter"));
    }

    proptest! {
        #[test]
        fn the_same_inputs_give_the_same_delay_within_the_jitter(
            initial_ms in 1u64..3_600_000, factor in 1.0f64..10.0, jitter in 0.0f64..0.9,
            attempt in 1u32..100, draw in 0.0f64..1.0,
        ) {
            let spec = RetrySpec { initial_ms, factor, jitter, ..RetrySpec::default() };
            let policy = RetryPolicy::new(spec).unwrap();
            let delay_ms = policy.delay_ms(attempt, Chance::new(draw));
            prop_assert_eq!(delay_ms, policy.delay_ms(attempt, Chance::new(draw)));
            let interval_ms = policy.interval_ms(attempt) as f64;
            prop_assert!(delay_ms as f64 >= (interval_ms * (1.0 - jitter)).floor().max(1.0) - 1.0);
            prop_assert!(delay_ms as f64 <= (interval_ms * (1.0 + jitter)).ceil() + 1.0);
            prop_assert!(policy.interval_ms(attempt) <= policy.interval_ms(attempt + 1));
            prop_assert!(policy.interval_ms(attempt) <= 43_200_000);
        }
    }
}
