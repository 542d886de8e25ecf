//! Everything that can become of a delivery after one attempt.

use crate::ladder::{self, Wait};
use crate::outcome::{Outcome, Retried, Unreachable};
use crate::retry::{Chance, RetryPolicy};
use crate::time::Timestamp;
use crate::webhook::{Webhook, WebhookState};
use crate::wire::DeliveryRecord;

/// An answer of 4xx or a redirect is tried at most this often: owners mend URLs and credentials within minutes or not
/// at all, and a redelivery is at hand afterwards.
pub const SHORT_SCHEDULE_ATTEMPTS: u32 = 5;

/// How far a series has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The attempt just made; the first is 1.
    pub attempt: u32,
    /// When the series began: age is counted from here.
    pub born: Timestamp,
    /// Whether somebody only tries the webhook: then there is one attempt.
    pub test: bool,
}

/// What follows an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The receiver has it.
    Delivered,
    /// Another attempt, `wait` after the decision; `at` is the due time that is shown everywhere.
    Retry {
        /// When it is due.
        at: Timestamp,
        /// The wait on the ladder; already rounded up.
        wait: Wait,
    },
    /// Given up.
    Dead(DeadReason),
}

/// Why a delivery was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadReason {
    /// Every attempt was used.
    Exhausted,
    /// The next attempt would be later than the series may live.
    TooOld,
    /// The receiver answered 410.
    Gone,
    /// The profile does not try such a failure again.
    NotRetried,
    /// Somebody tried the webhook, and that failed.
    Test,
}

impl DeadReason {
    /// One word from a closed list.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::TooOld => "too_old",
            Self::Gone => "gone",
            Self::NotRetried => "not_retried",
            Self::Test => "test",
        }
    }
}

/// Decides what follows an attempt.
///
/// Jitter is drawn first, then `Retry-After` may push the time out, then the wait is rounded up to what the ladder
/// carries; so an attempt is never early. `unit_ms` is the ladder's unit.
pub fn next(
    policy: &RetryPolicy,
    retried: Retried,
    unit_ms: u64,
    progress: Progress,
    outcome: &Outcome,
    now: Timestamp,
    chance: Chance,
) -> Next {
    if let Outcome::Delivered { .. } = outcome {
        return Next::Delivered;
    }
    if progress.test {
        return Next::Dead(DeadReason::Test);
    }
    let most_attempts = match (retried, outcome) {
        (Retried::Default, Outcome::Gone) => return Next::Dead(DeadReason::Gone),
        (Retried::Default, Outcome::Refused { .. } | Outcome::Redirected { .. } | Outcome::Blocked) => {
            policy.max_attempts().min(SHORT_SCHEDULE_ATTEMPTS)
        }
        // The receiver was not asked, so there is no answer that its product's rule could be about.
        (
            Retried::ServerErrors,
            Outcome::Unreachable(Unreachable::Token | Unreachable::Internal | Unreachable::Local),
        ) => policy.max_attempts(),
        (Retried::ServerErrors, _) if outcome.status().is_none_or(|status| status < 500) => {
            return Next::Dead(DeadReason::NotRetried);
        }
        (Retried::Default | Retried::Everything | Retried::ServerErrors, _) => policy.max_attempts(),
    };
    let at_least_ms = match outcome {
        Outcome::Busy { retry_after_ms, .. } => retry_after_ms.unwrap_or(0),
        _ => 0,
    };
    if progress.attempt >= most_attempts {
        return Next::Dead(DeadReason::Exhausted);
    }
    // An interval whose jitter takes it beyond the ladder is cut to what the ladder carries; a `Retry-After` is not.
    let longest_ms = u64::from(ladder::MAX_UNITS).saturating_mul(unit_ms);
    let delay_ms = policy.delay_ms(progress.attempt, chance).min(longest_ms).max(at_least_ms);
    let Some(wait) = Wait::at_least(delay_ms, unit_ms) else {
        return Next::Dead(DeadReason::TooOld);
    };
    let at = now.plus_ms(wait.as_ms(unit_ms));
    if at.since_ms(progress.born) > policy.max_age_ms() {
        return Next::Dead(DeadReason::TooOld);
    }
    Next::Retry { at, wait }
}

/// What to do with a delivery whose webhook is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Make an attempt.
    Attempt,
    /// The webhook is paused: hold it until it is resumed.
    Hold,
    /// The webhook does not receive now: end it; it can be replayed.
    Skip(SkipReason),
}

/// Why a delivery was skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkipReason {
    /// The webhook is disabled.
    Disabled,
    /// The time from which it is active has not come.
    NotYetActive,
    /// The time until which it is active has passed.
    Expired,
}

impl SkipReason {
    /// One word from a closed list.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "webhook_disabled",
            Self::NotYetActive => "webhook_not_yet_active",
            Self::Expired => "webhook_expired",
        }
    }
}

/// Decides whether an attempt is made. A test is always made: it is how somebody finds out whether the webhook would
/// work. A series that somebody asked for waits only while the webhook is paused.
pub fn admit(webhook: &Webhook, delivery: &DeliveryRecord, now: Timestamp) -> Admission {
    if delivery.test {
        Admission::Attempt
    } else if delivery.asked {
        if webhook.state == WebhookState::Paused { Admission::Hold } else { Admission::Attempt }
    } else if webhook.state == WebhookState::Disabled {
        Admission::Skip(SkipReason::Disabled)
    } else if webhook.expires_at.is_some_and(|end| now >= end) {
        Admission::Skip(SkipReason::Expired)
    } else if webhook.active_from.is_some_and(|start| now < start) {
        Admission::Skip(SkipReason::NotYetActive)
    } else if webhook.state == WebhookState::Paused {
        Admission::Hold
    } else {
        Admission::Attempt
    }
}

/// Whether a delivery that comes back from the ladder or from parking has outlived its policy.
///
/// Then there is nothing left to try. One that was never tried nor parked is always attempted, however late it comes.
pub fn is_too_old(policy: &RetryPolicy, delivery: &DeliveryRecord, now: Timestamp) -> bool {
    let waited = delivery.due.is_some() || delivery.parked > 0;
    waited && now.since_ms(delivery.born) > policy.max_age_ms()
}

/// What to do with a message before it is begun (DESIGN §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Begin.
    Begin,
    /// It came back too often without being settled: publish it alone, with this many crashes, through a short parking.
    SetApart {
        /// The number of crashes to carry on.
        crashes: u32,
    },
    /// It killed its consumers again and again: poison.
    Poison,
}

/// A message that was handed out this often without being settled is set apart.
pub const SET_APART_AT: i64 = 3;

/// A message that was set apart this often is poison.
pub const POISON_AT: u32 = 5;

/// Decides from the broker's count of deliveries and our own count of crashes.
///
/// A small delivery limit of the broker would kill whole prefetches of innocents, so the count of the broker only sets
/// a message apart; alone, it can hurt nobody else.
pub fn guard(delivery_count: i64, crashes: u32) -> Guard {
    if delivery_count < SET_APART_AT {
        Guard::Begin
    } else if crashes + 1 >= POISON_AT {
        Guard::Poison
    } else {
        Guard::SetApart { crashes: crashes + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retry::RetrySpec;
    use proptest::prelude::*;

    fn outcome() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            1 => Just(Outcome::Delivered { status: 200 }),
            4 => prop::option::of(0u64..200_000_000)
                .prop_map(|retry_after_ms| Outcome::Busy { status: 503, retry_after_ms }),
            4 => Just(Outcome::Failed { status: 500 }),
            2 => Just(Outcome::Refused { status: 404 }),
            2 => Just(Outcome::Redirected { status: 301 }),
            1 => Just(Outcome::Busy { status: 429, retry_after_ms: None }),
            1 => Just(Outcome::Gone),
            4 => Just(Outcome::Unreachable(Unreachable::Timeout)),
            1 => Just(Outcome::Blocked),
        ]
    }

    fn policy() -> impl Strategy<Value = RetryPolicy> {
        let spec =
            (1u64..100_000, 1.0f64..8.0, 1u64..100_000_000, 1u32..30, 1u64..1_000_000_000, 0.0f64..0.9);
        spec.prop_map(|(initial_ms, factor, max_interval_ms, max_attempts, max_age_ms, jitter)| {
            let spec = RetrySpec {
                initial_ms,
                factor,
                max_interval_ms,
                max_attempts,
                max_age_ms,
                jitter,
                schedule_ms: None,
            };
            RetryPolicy::new(spec).unwrap()
        })
    }

    proptest! {
        /// A virtual clock runs one delivery against any receiver: it reaches exactly one end, within its attempts and
        /// its age, and no attempt is earlier than its interval less jitter or than the receiver asked.
        #[test]
        fn every_delivery_reaches_one_end_within_its_bounds(
            policy in policy(),
            answers in prop::collection::vec((outcome(), 0.0f64..1.0, 0u64..60_000, 0u64..5_000), 30),
            unit_ms in prop::sample::select(vec![20u64, 1000]),
            retried in prop::sample::select(vec![Retried::Default, Retried::Everything, Retried::ServerErrors]),
            test in prop::bool::weighted(0.1),
        ) {
            let born = Timestamp::from_millis(1_700_000_000_000);
            let mut now = born;
            let mut ends = 0;
            for (index, (outcome, draw, request_ms, late_ms)) in answers.iter().enumerate() {
                let attempt = u32::try_from(index).unwrap() + 1;
                now = now.plus_ms(*request_ms);
                let decided = next(&policy, retried, unit_ms, Progress { attempt, born, test }, outcome, now, Chance::new(*draw));
                prop_assert!(attempt <= policy.max_attempts());
                match decided {
                    Next::Delivered | Next::Dead(_) => {
                        prop_assert_eq!(decided == Next::Delivered, matches!(outcome, Outcome::Delivered { .. }));
                        if let Next::Dead(DeadReason::NotRetried) = decided {
                            prop_assert!(retried == Retried::ServerErrors);
                            prop_assert!(outcome.status().is_none_or(|status| status < 500));
                        }
                        if retried == Retried::Everything && !test {
                            let reasons = [DeadReason::Exhausted, DeadReason::TooOld].map(Next::Dead);
                            prop_assert!(decided == Next::Delivered || reasons.contains(&decided));
                        }
                        ends += 1;
                        break;
                    }
                    Next::Retry { at, wait } => {
                        prop_assert!(!test, "a test is not repeated");
                        if retried == Retried::ServerErrors {
                            let was_asked = !matches!(outcome, Outcome::Unreachable(Unreachable::Token | Unreachable::Internal));
                            prop_assert!(!was_asked || outcome.status().is_some_and(|status| status >= 500));
                        }
                        let longest_ms = u64::from(ladder::MAX_UNITS) * unit_ms;
                        prop_assert!(at.since_ms(now) >= policy.delay_ms(attempt, Chance::new(*draw)).min(longest_ms));
                        prop_assert_eq!(at.since_ms(now), wait.as_ms(unit_ms));
                        if let Outcome::Busy { retry_after_ms: Some(asked_ms), .. } = outcome {
                            prop_assert!(at.since_ms(now) >= *asked_ms);
                        }
                        prop_assert!(at.since_ms(born) <= policy.max_age_ms());
                        now = at.plus_ms(*late_ms);
                    }
                }
            }
            prop_assert_eq!(ends, 1, "one end within {} attempts", policy.max_attempts());
        }
    }

    #[test]
    fn a_message_that_kills_is_set_apart_and_then_poison() {
        assert_eq!(guard(0, 0), Guard::Begin);
        assert_eq!(guard(2, 4), Guard::Begin);
        assert_eq!(guard(3, 0), Guard::SetApart { crashes: 1 });
        assert_eq!(guard(9, 3), Guard::SetApart { crashes: 4 });
        assert_eq!(guard(3, 4), Guard::Poison);
    }

    #[test]
    fn the_longest_legal_interval_is_retried() {
        let spec = RetrySpec {
            schedule_ms: Some(vec![crate::retry::MAX_INTERVAL_MS]),
            max_age_ms: 30 * 24 * 3600 * 1000,
            ..RetrySpec::default()
        };
        let policy = RetryPolicy::new(spec).unwrap();
        let born = Timestamp::from_millis(0);
        for draw in [0.0, 0.5, 0.999] {
            let progress = Progress { attempt: 1, born, test: false };
            let outcome = Outcome::Failed { status: 500 };
            let decided = next(&policy, Retried::Default, 1000, progress, &outcome, born, Chance::new(draw));
            assert!(matches!(decided, Next::Retry { .. }), "{decided:?}");
        }
    }

    #[test]
    fn gone_ends_at_once_and_refusals_end_early() {
        let policy = RetryPolicy::default();
        let born = Timestamp::from_millis(0);
        let after = |attempt, outcome: Outcome| {
            let progress = Progress { attempt, born, test: false };
            next(&policy, Retried::Default, 1000, progress, &outcome, born, Chance::MIDDLE)
        };
        assert_eq!(after(1, Outcome::Gone), Next::Dead(DeadReason::Gone));
        assert_eq!(after(5, Outcome::Refused { status: 404 }), Next::Dead(DeadReason::Exhausted));
        assert!(matches!(after(5, Outcome::Failed { status: 500 }), Next::Retry { .. }));
        assert_eq!(after(12, Outcome::Failed { status: 500 }), Next::Dead(DeadReason::Exhausted));
    }

    #[test]
    fn a_profile_says_which_failures_are_tried_again() {
        let policy = RetryPolicy::default();
        let born = Timestamp::from_millis(0);
        let after = |retried, attempt, outcome: Outcome| {
            let progress = Progress { attempt, born, test: false };
            next(&policy, retried, 1000, progress, &outcome, born, Chance::MIDDLE)
        };
        let refused = Outcome::Refused { status: 404 };
        let moved = Outcome::Redirected { status: 301 };
        let timeout = Outcome::Unreachable(Unreachable::Timeout);
        let failed = Outcome::Failed { status: 500 };
        for outcome in [&refused, &moved, &Outcome::Gone, &Outcome::Blocked, &timeout, &failed] {
            let decided = after(Retried::Everything, 11, outcome.clone());
            assert!(matches!(decided, Next::Retry { .. }), "everything: {outcome:?} {decided:?}");
            assert_eq!(after(Retried::Everything, 12, outcome.clone()), Next::Dead(DeadReason::Exhausted));
        }
        let slow_down = Outcome::Busy { status: 429, retry_after_ms: Some(1000) };
        for outcome in [refused, moved, Outcome::Gone, Outcome::Blocked, timeout, slow_down] {
            let decided = after(Retried::ServerErrors, 1, outcome.clone());
            assert_eq!(decided, Next::Dead(DeadReason::NotRetried), "server errors: {outcome:?}");
        }
        assert!(matches!(after(Retried::ServerErrors, 1, failed), Next::Retry { .. }));
        for why in [Unreachable::Token, Unreachable::Internal, Unreachable::Local] {
            let decided = after(Retried::ServerErrors, 1, Outcome::Unreachable(why));
            assert!(matches!(decided, Next::Retry { .. }), "the receiver was not asked: {decided:?}");
            let last = after(Retried::ServerErrors, 12, Outcome::Unreachable(why));
            assert_eq!(last, Next::Dead(DeadReason::Exhausted));
        }
        let later = Outcome::Busy { status: 503, retry_after_ms: Some(100_000) };
        let Next::Retry { at, .. } = after(Retried::ServerErrors, 1, later) else {
            panic!("503 is tried again")
        };
        assert!(at.since_ms(born) >= 100_000);
    }

    #[test]
    fn a_test_is_one_attempt_and_reaches_any_webhook() {
        let progress = Progress { attempt: 1, born: Timestamp::default(), test: true };
        for retried in [Retried::Default, Retried::Everything, Retried::ServerErrors] {
            let after = |outcome| {
                let policy = RetryPolicy::default();
                next(&policy, retried, 1000, progress, &outcome, Timestamp::default(), Chance::MIDDLE)
            };
            assert_eq!(after(Outcome::Failed { status: 500 }), Next::Dead(DeadReason::Test));
            assert_eq!(after(Outcome::Gone), Next::Dead(DeadReason::Test));
            assert_eq!(after(Outcome::Delivered { status: 204 }), Next::Delivered);
        }
    }

    fn delivery() -> DeliveryRecord {
        serde_json::from_str(
            r#"{"id":"d","webhook":"wh","revision":1,"epoch":"e","series":1,"attempt":1,"born":1000}"#,
        )
        .unwrap()
    }

    #[test]
    fn only_what_waited_can_be_too_old() {
        let spec = RetrySpec { max_age_ms: 5_000, ..RetrySpec::default() };
        let policy = RetryPolicy::new(spec).unwrap();
        let (in_time, late) = (Timestamp::from_millis(6_000), Timestamp::from_millis(6_001));
        let fresh = delivery();
        let retry = DeliveryRecord { attempt: 2, due: Some(in_time), ..delivery() };
        let parked = DeliveryRecord { parked: 1, ..delivery() };
        for (delivery, expected) in [(fresh, false), (retry, true), (parked, true)] {
            assert!(!is_too_old(&policy, &delivery, in_time), "{delivery:?}");
            assert_eq!(is_too_old(&policy, &delivery, late), expected, "{delivery:?}");
        }
    }

    #[test]
    fn a_webhook_receives_within_its_time_and_state() {
        let (start, end) = (Timestamp::from_millis(1_000), Timestamp::from_millis(2_000));
        let webhook = |state: &str| {
            let id = crate::WebhookId::from_trusted("wh");
            let mut record = crate::wire::WebhookRecord::new(
                id,
                crate::TenantId::default_tenant(),
                "https://example.com/",
            );
            (record.active_from, record.expires_at) = (Some(start), Some(end));
            record.state = state.into();
            record.webhook(1).unwrap()
        };
        let at = |state: &str, ms| admit(&webhook(state), &delivery(), Timestamp::from_millis(ms));
        let tested = DeliveryRecord { test: true, ..delivery() };
        let asked = DeliveryRecord { asked: true, ..delivery() };
        let skip = |reason| Admission::Skip(reason);
        for (state, ms, admission) in [
            ("active", 999, skip(SkipReason::NotYetActive)),
            ("active", 1_000, Admission::Attempt),
            ("active", 1_999, Admission::Attempt),
            ("active", 2_000, skip(SkipReason::Expired)),
            ("paused", 999, skip(SkipReason::NotYetActive)),
            ("paused", 1_500, Admission::Hold),
            ("paused", 2_000, skip(SkipReason::Expired)),
            ("disabled", 1_500, skip(SkipReason::Disabled)),
            ("disabled", 2_000, skip(SkipReason::Disabled)),
        ] {
            assert_eq!(at(state, ms), admission, "{state} at {ms}");
            let now = Timestamp::from_millis(ms);
            assert_eq!(admit(&webhook(state), &tested, now), Admission::Attempt);
            let expected = if state == "paused" { Admission::Hold } else { Admission::Attempt };
            assert_eq!(admit(&webhook(state), &asked, now), expected, "asked, {state} at {ms}");
        }
    }
}
