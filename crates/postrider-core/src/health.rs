//! How a webhook does, and when it does so badly that it is disabled.
//!
//! Two rules, whichever comes first. By *count*: so many deliveries in a row were given up. By *time*: nothing arrived for
//! so long, although it was tried. A count alone would disable a busy webhook in an outage of two minutes, and a quiet one
//! never; so the rule by time counts attempts, long before deliveries are given up, and wants failures that are apart: three
//! moments, each at least a twentieth of the window after the one before, so over at least a tenth of it. Time alone
//! disables nothing: the window is over when a failure says so.
//!
//! A success of any attempt begins anew. Attempts that somebody asked for, and tests, are neither failures nor successes
//! here: whoever counts leaves them out.

use std::ops::RangeInclusive;

use crate::time::Timestamp;

/// The window of webhooks whose profile has none, milliseconds: five days.
pub const DEFAULT_WINDOW_MS: u64 = 5 * 24 * 3600 * 1000;
/// The windows that can be asked for, milliseconds: a minute to thirty days. 0 is never.
pub const WINDOW_MS: RangeInclusive<u64> = 60_000..=30 * 24 * 3600 * 1000;
/// At these shares of a threshold the owner is warned, percent.
pub const WARN_AT_PERCENT: [u8; 2] = [50, 90];

/// Failures that are apart, before the window counts.
const MOMENTS: u32 = 3;
/// They are apart by this part of the window.
const APART: u64 = 20;
/// A webhook that no count disables is called failing after so many.
const FAILING_WITHOUT_LIMIT: u32 = 5;

/// When a webhook is disabled; nothing for never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// After so many deliveries given up in a row.
    pub given_up: Option<u32>,
    /// After so long without a success, milliseconds.
    pub window_ms: Option<u64>,
}

/// What disables a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Deliveries given up in a row.
    GivenUp,
    /// Time without a success.
    Window,
    /// The receiver answered 410.
    Gone,
}

impl Rule {
    /// One word from a closed list.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GivenUp => "given_up",
            Self::Window => "window",
            Self::Gone => "gone",
        }
    }
}

/// What follows from the failures so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing, or nothing new.
    Nothing,
    /// The owner is to be told that this share of a threshold is reached; without a share where nothing would ever disable
    /// the webhook.
    Warn(Rule, Option<u8>),
    /// It is to be disabled.
    Disable(Rule),
}

/// Failures since the last success.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Streak {
    /// Deliveries given up in a row.
    pub given_up: u32,
    /// Attempts that failed.
    pub failed_attempts: u32,
    /// Those of them that are apart.
    pub moments: u32,
    /// The newest of these.
    pub moment_at: Option<Timestamp>,
    /// The first failure.
    pub since: Option<Timestamp>,
    /// The newest failure; kept over a success, for people who look.
    pub last_at: Option<Timestamp>,
    /// Of the rule by count the owner has been told up to this share, percent.
    pub told_given_up: u8,
    /// The same of the rule by time.
    pub told_window: u8,
}

impl Streak {
    /// Whether there is no failure since the last success.
    pub fn is_clean(&self) -> bool {
        self.since.is_none() && self.given_up == 0
    }

    /// Something arrived.
    pub fn succeed(&mut self) {
        *self = Self { last_at: self.last_at, ..Self::default() };
    }

    /// An attempt failed.
    pub fn fail(&mut self, at: Timestamp, limits: Limits) {
        self.failed(at);
        self.failed_attempts = self.failed_attempts.saturating_add(1);
        let apart_ms = limits.window_ms.unwrap_or(DEFAULT_WINDOW_MS) / APART;
        if self.moment_at.is_none_or(|last| at >= last.plus_ms(apart_ms)) {
            self.moments = self.moments.saturating_add(1);
            self.moment_at = Some(at);
        }
    }

    /// A delivery was given up.
    pub fn give_up(&mut self, at: Timestamp) {
        self.failed(at);
        self.given_up = self.given_up.saturating_add(1);
    }

    fn failed(&mut self, at: Timestamp) {
        self.since = Some(self.since.map_or(at, |since| since.min(at)));
        self.last_at = self.last_at.max(Some(at));
    }

    /// What follows.
    pub fn verdict(&self, limits: Limits) -> Verdict {
        let shares = [
            (Rule::GivenUp, self.given_up_percent(limits), self.told_given_up),
            (Rule::Window, self.window_percent(limits), self.told_window),
        ];
        if let Some((rule, ..)) = shares.iter().find(|(_, share, _)| *share == Some(100)) {
            return Verdict::Disable(*rule);
        }
        for (rule, share, told) in shares {
            let Some(share) = share else { continue };
            if let Some(reached) = WARN_AT_PERCENT.into_iter().rev().find(|step| share >= *step)
                && reached > told
            {
                return Verdict::Warn(rule, Some(reached));
            }
        }
        if limits.given_up.is_none() && self.given_up >= FAILING_WITHOUT_LIMIT && self.told_given_up == 0 {
            return Verdict::Warn(Rule::GivenUp, None);
        }
        Verdict::Nothing
    }

    /// The owner has been told.
    pub fn tell(&mut self, rule: Rule, percent: Option<u8>) {
        let told = percent.unwrap_or(WARN_AT_PERCENT[0]);
        match rule {
            Rule::GivenUp => self.told_given_up = self.told_given_up.max(told),
            Rule::Window => self.told_window = self.told_window.max(told),
            Rule::Gone => {}
        }
    }

    /// How much of the count is reached, 0 to 100 percent; nothing where it disables nothing.
    pub fn given_up_percent(&self, limits: Limits) -> Option<u8> {
        let limit = u64::from(limits.given_up?.max(1));
        Some(percent(u64::from(self.given_up), limit))
    }

    /// How much of the window is over, 0 to 100 percent; nothing where it disables nothing. It stays below 100 while the
    /// failures are too few, or too close together.
    pub fn window_percent(&self, limits: Limits) -> Option<u8> {
        let window_ms = limits.window_ms?.max(1);
        let (Some(since), Some(last)) = (self.since, self.last_at) else { return Some(0) };
        let share = percent(last.since_ms(since), window_ms);
        Some(if self.moments < MOMENTS { share.min(99) } else { share })
    }

    /// When the window is over: a failure from then on disables the webhook, if there were enough before it.
    pub fn window_ends_at(&self, limits: Limits) -> Option<Timestamp> {
        Some(self.since?.plus_ms(limits.window_ms?))
    }
}

/// `part` of `whole`, rounded down, at most 100.
fn percent(part: u64, whole: u64) -> u8 {
    u8::try_from((part.saturating_mul(100) / whole).min(100)).unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use Verdict::{Disable, Nothing, Warn};

    use super::*;

    const HOUR_MS: u64 = 3_600_000;
    const DAY_MS: u64 = 24 * HOUR_MS;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000).plus_ms(ms)
    }

    fn count(limit: u32) -> Limits {
        Limits { given_up: Some(limit), window_ms: None }
    }

    fn days(n: u64) -> Limits {
        Limits { given_up: None, window_ms: Some(n * DAY_MS) }
    }

    /// What the owner hears while deliveries are given up, one after the other.
    fn given_up(times: u32, limits: Limits) -> Vec<Verdict> {
        let mut streak = Streak::default();
        (0..times)
            .map(|n| {
                streak.give_up(at(u64::from(n)));
                heard(&mut streak, limits)
            })
            .collect()
    }

    fn heard(streak: &mut Streak, limits: Limits) -> Verdict {
        let verdict = streak.verdict(limits);
        if let Warn(rule, percent) = verdict {
            streak.tell(rule, percent);
        }
        verdict
    }

    /// The same while attempts fail at these hours.
    fn attempts(hours: &[u64], limits: Limits) -> Vec<Verdict> {
        let mut streak = Streak::default();
        let fail = |hour: &u64| {
            streak.fail(at(hour * HOUR_MS), limits);
            heard(&mut streak, limits)
        };
        hours.iter().map(fail).collect()
    }

    #[test]
    fn a_count_warns_at_half_and_at_nine_tenths_and_then_disables() {
        let warn = |percent| Warn(Rule::GivenUp, Some(percent));
        let disable = Disable(Rule::GivenUp);
        assert_eq!(given_up(4, count(4)), [Nothing, warn(50), Nothing, disable]);
        assert_eq!(given_up(3, count(3)), [Nothing, warn(50), disable]);
        assert_eq!(given_up(1, count(1)), [disable]);
        let ten = given_up(10, count(10));
        assert_eq!((ten[4], ten[8], ten[9]), (warn(50), warn(90), disable));
        assert_eq!(ten.iter().filter(|verdict| **verdict != Nothing).count(), 3, "each once: {ten:?}");
        let never = given_up(300, Limits::default());
        assert_eq!(never.iter().position(|verdict| *verdict == Warn(Rule::GivenUp, None)), Some(4));
        assert_eq!(never.iter().filter(|verdict| **verdict != Nothing).count(), 1, "it is said once");
    }

    #[test]
    fn a_window_warns_at_half_and_at_nine_tenths_and_then_disables() {
        let warn = |percent| Warn(Rule::Window, Some(percent));
        let every_six_hours: Vec<u64> = (0..=20).map(|n| n * 6).collect();
        let heard = attempts(&every_six_hours, days(5));
        assert_eq!((heard[10], heard[18], heard[20]), (warn(50), warn(90), Disable(Rule::Window)));
        assert_eq!(heard.iter().filter(|verdict| **verdict != Nothing).count(), 3, "{heard:?}");
    }

    #[test]
    fn a_blip_never_disables_nor_does_time_alone() {
        // A thousand failures within an hour, and one long after: those are two moments.
        let mut streak = Streak::default();
        for n in 0..1000 {
            streak.fail(at(n * 3600), days(5));
        }
        assert_eq!((streak.moments, streak.verdict(days(5))), (1, Nothing));
        streak.fail(at(6 * DAY_MS), days(5));
        assert_eq!(streak.window_percent(days(5)), Some(99));
        assert_eq!(streak.verdict(days(5)), Warn(Rule::Window, Some(90)), "the owner hears of it");
        // A third, some hours later, is enough.
        streak.fail(at(6 * DAY_MS + 5 * HOUR_MS), days(5));
        assert!(!matches!(streak.verdict(days(5)), Disable(_)), "too close to the second");
        streak.fail(at(6 * DAY_MS + 6 * HOUR_MS), days(5));
        assert_eq!(streak.verdict(days(5)), Disable(Rule::Window));
        assert!(streak.last_at.unwrap().since_ms(streak.since.unwrap()) >= DAY_MS / 2);
        // Whatever is counted, without a failure in the end nothing is over.
        let quiet = attempts(&[0, 6, 12], days(5));
        assert_eq!(quiet, [Nothing; 3]);
    }

    #[test]
    fn a_success_begins_anew_and_warnings_are_given_again() {
        let mut streak = Streak::default();
        for n in 0..=11 {
            streak.fail(at(n * 6 * HOUR_MS), days(5));
            heard(&mut streak, days(5));
        }
        streak.give_up(at(12 * 6 * HOUR_MS));
        assert_eq!((streak.told_window, streak.given_up), (50, 1));
        streak.succeed();
        assert!(streak.is_clean() && streak.last_at.is_some());
        assert_eq!((streak.since, streak.moments, streak.told_window), (None, 0, 0));
        assert_eq!(attempts(&[0, 60], days(5))[1], Warn(Rule::Window, Some(50)));
    }

    #[test]
    fn the_window_is_shown_and_a_shorter_one_counts_at_once() {
        let mut streak = Streak::default();
        for n in 0..4 {
            streak.fail(at(n * 6 * HOUR_MS), days(5));
        }
        assert_eq!(streak.window_percent(days(5)), Some(15));
        assert_eq!(streak.window_ends_at(days(5)), Some(at(5 * DAY_MS)));
        assert_eq!(streak.window_percent(Limits::default()), None);
        assert_eq!(streak.window_ends_at(Limits::default()), None);
        let half_a_day = Limits { given_up: None, window_ms: Some(12 * HOUR_MS) };
        assert_eq!(streak.verdict(half_a_day), Disable(Rule::Window));
        // A failure that is told late moves the beginning, not the end.
        streak.fail(at(0), days(5));
        assert_eq!((streak.since, streak.last_at), (Some(at(0)), Some(at(18 * HOUR_MS))));
    }
}
