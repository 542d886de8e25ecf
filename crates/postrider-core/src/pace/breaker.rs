//! A circuit breaker: nothing is sent to a receiver that fails every time, but for a probe now and then.
//!
//! It looks at failures in a row and not at a share of failures: a receiver that takes half of what it gets is better
//! served by retries than by silence. Failures of one delivery alone do not open it either: that may be the delivery's own
//! fault. Nor do those of a moment: a receiver that fails each delivery the first time, and takes it when it comes again, has
//! to be given the time in which it comes again, which the webhook's retry policy says; time in which nothing was sent does
//! not count. And since first attempts alone would never show that such a receiver is well, a delivery that has failed before
//! may try once in each silence, whether or not that is over.

use std::collections::VecDeque;

use super::pacer::Limits;
use crate::outcome::Outcome;
use crate::time::Timestamp;

/// So many failures in a row open it,
const FAILURES: usize = 10;
/// if they are of so many different deliveries,
const DELIVERIES: usize = 5;
/// if nothing but failures came for so long, milliseconds: half as long again as until the first retry at the latest, but
/// within these bounds,
const FOR_MS: std::ops::RangeInclusive<u64> = 10_000..=600_000;
/// of which the time between two failures counts for no more than this, or than a request took, milliseconds: longer means that
/// nothing was sent, since the broker or the worker was away,
const GAP_MS: u64 = 1_000;
/// and if they came within so long, milliseconds, or within what so many requests in a row take if that is longer.
const WITHIN_MS: u64 = 60_000;
/// Failures that are remembered.
const REMEMBERED: usize = 32;
/// How long it is open at first, and at most, milliseconds.
const OPEN_MS: std::ops::RangeInclusive<u64> = 5_000..=60_000;
/// So many failures in a row open it again during the slow start, if they took as long.
const FAILURES_AGAIN: u32 = 5;

/// What a request says of its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answers, be it that it refuses.
    Well,
    /// It gives no answer, or says that it cannot.
    Ill,
    /// Nothing: the fault is ours, or the receiver was not asked.
    Unknown,
}

impl Health {
    /// What an outcome says: no answer, 5xx, 408, 425, 429 and 503 are bad signs; other 4xx and redirects are not.
    pub fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Busy { status, .. } | Outcome::Failed { status } => match status {
                408 | 425 | 429 | 500.. => Self::Ill,
                _ => Self::Well,
            },
            Outcome::Delivered { .. }
            | Outcome::Refused { .. }
            | Outcome::Redirected { .. }
            | Outcome::Gone => Self::Well,
            Outcome::Unreachable(why) if why.is_not_receivers() => Self::Unknown,
            Outcome::Unreachable(_) => Self::Ill,
            Outcome::Blocked => Self::Unknown,
        }
    }
}

/// Whether something may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// As much as the caps allow.
    All,
    /// So many at the same time: the slow start.
    Few(u32),
    /// One, to see whether the receiver is well again.
    Probe,
    /// Nothing before then.
    Not(Timestamp),
}

/// How long a receiver has to fail before it is taken for dead, milliseconds.
fn patience_ms(limits: Limits) -> u64 {
    (limits.first_retry_ms.saturating_mul(3) / 2).clamp(*FOR_MS.start(), *FOR_MS.end())
}

/// The breaker of one webhook.
#[derive(Clone, Debug, Default)]
pub struct Breaker {
    state: State,
    open_ms: u64,
}

#[derive(Clone, Debug)]
enum State {
    Closed {
        failures: VecDeque<(Timestamp, u64)>,
        failing: Failing,
    },
    Open {
        until: Timestamp,
        /// Whether a delivery that had failed before has had its try in this silence.
        retried: bool,
    },
    Probing {
        /// The end of the silence, if it is not over yet.
        silent_until: Option<Timestamp>,
    },
    Rising {
        window: u32,
        failures: u32,
        failing: Failing,
    },
}

impl Default for State {
    fn default() -> Self {
        Self::Closed { failures: VecDeque::new(), failing: Failing::default() }
    }
}

/// For how long nothing but failures came.
#[derive(Clone, Copy, Debug, Default)]
struct Failing {
    ms: u64,
    last: Option<Timestamp>,
}

impl Failing {
    /// One more, of a request that took so long.
    fn add(&mut self, now: Timestamp, took_ms: u64) {
        let gap_ms = self.last.map_or(took_ms, |last| now.since_ms(last).min(took_ms.max(GAP_MS)));
        *self = Self { ms: self.ms.saturating_add(gap_ms), last: Some(now) };
    }
}

impl Breaker {
    /// Whether something may be sent now: a delivery that has failed before, or one that has not.
    pub fn permits(&self, now: Timestamp, retried: bool) -> Permission {
        match &self.state {
            State::Closed { .. } => Permission::All,
            State::Open { until, retried: tried } if now < *until && (*tried || !retried) => {
                Permission::Not(*until)
            }
            State::Open { .. } => Permission::Probe,
            // How long the probe takes is not known; a second from now is soon enough to ask again.
            State::Probing { .. } => Permission::Not(now.plus_ms(1_000)),
            State::Rising { window, .. } => Permission::Few(*window),
        }
    }

    /// A probe begins: after [`Permission::Probe`].
    pub fn probe(&mut self, now: Timestamp) {
        let silent_until = match self.state {
            State::Open { until, .. } if now < until => Some(until),
            _ => None,
        };
        self.state = State::Probing { silent_until };
    }

    /// The probe ended without a sign: another may begin.
    pub fn probe_was_nothing(&mut self, now: Timestamp) {
        if let State::Probing { silent_until } = self.state {
            self.state = State::Open { until: silent_until.unwrap_or(now), retried: false };
        }
    }

    /// A request ended: of which delivery (any number that tells deliveries apart), after how long, and whether it was the
    /// probe. The slow start is over when the window is that of the limits.
    pub fn ended(
        &mut self,
        now: Timestamp,
        health: Health,
        delivery: u64,
        took_ms: u64,
        probe: bool,
        limits: Limits,
    ) {
        match (health, &mut self.state) {
            (Health::Unknown, _) => {
                if probe {
                    self.probe_was_nothing(now);
                }
            }
            (Health::Well, State::Closed { failures, .. }) => failures.clear(),
            // One that began before it opened is as good a sign as a probe.
            (Health::Well, State::Open { .. } | State::Probing { .. }) => self.rise(1, limits.most),
            (Health::Well, State::Rising { window, .. }) => {
                let window = window.saturating_mul(2);
                self.rise(window, limits.most);
            }
            (Health::Ill, State::Closed { failures, failing }) => {
                if failures.len() == REMEMBERED {
                    failures.pop_front();
                }
                failures.push_back((now, delivery));
                let within_ms = WITHIN_MS.max(took_ms.saturating_mul(FAILURES as u64 + 1));
                failures.retain(|(at, _)| now.since_ms(*at) <= within_ms);
                if failures.len() == 1 {
                    *failing = Failing::default();
                }
                failing.add(now, took_ms);
                let mut deliveries: Vec<u64> = failures.iter().map(|(_, delivery)| *delivery).collect();
                deliveries.sort_unstable();
                deliveries.dedup();
                let long = failing.ms >= patience_ms(limits);
                if failures.len() >= FAILURES && deliveries.len() >= DELIVERIES && long {
                    self.open(now);
                }
            }
            (Health::Ill, State::Rising { window, failures, failing }) => {
                failing.add(now, took_ms);
                *failures = failures.saturating_add(1);
                *window = (*window / 2).max(1);
                if *failures >= FAILURES_AGAIN && failing.ms >= patience_ms(limits) {
                    self.open(now);
                }
            }
            (Health::Ill, State::Probing { silent_until }) if probe => match *silent_until {
                Some(until) => self.state = State::Open { until, retried: true },
                None => self.open(now),
            },
            // Of before it opened.
            (Health::Ill, State::Open { .. } | State::Probing { .. }) => {}
        }
    }

    /// Whether it holds anything back.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    /// Whether it was closed for so long that nothing need be remembered.
    pub fn is_fresh(&self) -> bool {
        matches!(&self.state, State::Closed { failures, .. } if failures.is_empty())
    }

    /// How many may be in flight during the slow start.
    pub fn window(&self) -> Option<u32> {
        match self.state {
            State::Rising { window, .. } => Some(window),
            State::Closed { .. } | State::Open { .. } | State::Probing { .. } => None,
        }
    }

    fn rise(&mut self, window: u32, most: u32) {
        if window >= most {
            *self = Self::default();
        } else {
            // The first span again: it grows with probes that fail in a row.
            let state = State::Rising { window, failures: 0, failing: Failing::default() };
            *self = Self { state, open_ms: 0 };
        }
    }

    fn open(&mut self, now: Timestamp) {
        self.open_ms = (self.open_ms * 2).clamp(*OPEN_MS.start(), *OPEN_MS.end());
        self.state = State::Open { until: now.plus_ms(self.open_ms), retried: false };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Unreachable;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits { most: 10, per_second: None, first_retry_ms: 6_000 };
    /// Until it may open.
    const PATIENCE_MS: u64 = 10_000;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    fn opened() -> Breaker {
        let mut breaker = Breaker::default();
        for n in 0..10 {
            breaker.ended(at(n), Health::Ill, n.unsigned_abs(), PATIENCE_MS, false, LIMITS);
        }
        breaker
    }

    #[test]
    fn it_opens_probes_once_and_starts_slowly() {
        let mut breaker = opened();
        assert_eq!(breaker.permits(at(10), false), Permission::Not(at(5_009)));
        assert_eq!(breaker.permits(at(5_009), false), Permission::Probe);
        breaker.probe(at(5_009));
        assert!(matches!(breaker.permits(at(5_010), false), Permission::Not(_)), "one probe");
        breaker.ended(at(5_020), Health::Ill, 77, 11, true, LIMITS);
        assert_eq!(breaker.permits(at(5_021), false), Permission::Not(at(15_020)), "twice as long");
        breaker.probe(at(15_020));
        breaker.ended(at(15_030), Health::Well, 78, 10, true, LIMITS);
        let mut windows = Vec::new();
        while let Permission::Few(window) = breaker.permits(at(15_031), false) {
            windows.push(window);
            breaker.ended(at(15_031), Health::Well, 79, 1, false, LIMITS);
        }
        assert_eq!(windows, [1, 2, 4, 8]);
        assert!(breaker.is_fresh());
        for n in 0..10 {
            breaker.ended(at(16_000), Health::Ill, n, PATIENCE_MS, false, LIMITS);
        }
        assert_eq!(breaker.permits(at(16_000), false), Permission::Not(at(21_000)), "the first span again");
    }

    #[test]
    fn neither_few_failures_nor_one_delivery_nor_old_ones_open_it() {
        let mut breaker = Breaker::default();
        for n in 0..100 {
            breaker.ended(at(n), Health::Ill, n.unsigned_abs() % 4, 5, false, LIMITS);
        }
        assert_eq!(breaker.permits(at(100), false), Permission::All, "four deliveries");
        let mut breaker = Breaker::default();
        for n in 0..100 {
            breaker.ended(at(n * 10_000), Health::Ill, n.unsigned_abs(), 5, false, LIMITS);
        }
        assert_eq!(breaker.permits(at(1_000_000), false), Permission::All, "seven within a minute");
        let mut breaker = Breaker::default();
        for n in 0..100 {
            let health = if n % 10 == 9 { Health::Well } else { Health::Ill };
            breaker.ended(at(n), health, n.unsigned_abs(), 5, false, LIMITS);
        }
        assert_eq!(breaker.permits(at(100), false), Permission::All, "every tenth is taken");
    }

    /// Each delivery fails once and is taken when it comes again, three seconds later: as many as come are sent.
    #[test]
    fn a_receiver_that_fails_everything_once_is_no_dead_one() {
        let mut breaker = Breaker::default();
        for n in 0..1_000 {
            breaker.ended(at(n * 25), Health::Ill, n.unsigned_abs(), 5, false, LIMITS);
            if n >= 120 {
                breaker.ended(at(n * 25), Health::Well, (n - 120).unsigned_abs(), 5, false, LIMITS);
            }
            assert_eq!(breaker.permits(at(n * 25), false), Permission::All, "after {n}");
        }
        // The same after an outage, in the slow start.
        let mut breaker = opened();
        breaker.probe(at(6_000));
        breaker.ended(at(6_000), Health::Well, 0, 5, true, LIMITS);
        for n in 0..100 {
            breaker.ended(at(6_010 + n * 30), Health::Ill, n.unsigned_abs(), 5, false, LIMITS);
            assert_eq!(breaker.permits(at(6_010 + n * 30), false), Permission::Few(1), "after {n}");
        }
        for n in 0..4 {
            breaker.ended(at(9_010 + n), Health::Well, n.unsigned_abs(), 5, false, LIMITS);
        }
        assert_eq!(breaker.permits(at(9_020), false), Permission::All);
        // And one that is dead.
        let mut breaker = Breaker::default();
        for n in 0..=1_000 {
            breaker.ended(at(n * 10), Health::Ill, n.unsigned_abs(), 5, false, LIMITS);
        }
        assert!(matches!(breaker.permits(at(10_000), false), Permission::Not(_)));
    }

    /// Whoever failed before an outage of the broker, and fails after it, has not failed meanwhile.
    #[test]
    fn time_in_which_nothing_was_sent_does_not_count() {
        let mut breaker = Breaker::default();
        for n in 0..40 {
            breaker.ended(at(n * 100), Health::Ill, n.unsigned_abs(), 5, false, LIMITS);
        }
        for n in 0..40 {
            breaker.ended(at(20_000 + n * 100), Health::Ill, n.unsigned_abs(), 5, false, LIMITS);
            assert_eq!(breaker.permits(at(20_000 + n * 100), false), Permission::All, "{n}");
        }
        for n in 40..60 {
            breaker.ended(at(20_000 + n * 100), Health::Ill, n.unsigned_abs(), 5, false, LIMITS);
        }
        assert!(matches!(breaker.permits(at(26_000), false), Permission::Not(_)));
    }

    /// Thousands wait that have not been tried yet: a probe of these says nothing of a receiver that takes what comes again.
    #[test]
    fn one_that_has_failed_before_may_try_in_each_silence() {
        let mut breaker = opened();
        assert!(matches!(breaker.permits(at(1_000), false), Permission::Not(_)));
        assert_eq!(breaker.permits(at(1_000), true), Permission::Probe);
        breaker.probe(at(1_000));
        assert!(matches!(breaker.permits(at(1_001), true), Permission::Not(_)), "one at a time");
        breaker.ended(at(1_010), Health::Ill, 3, 10, true, LIMITS);
        assert_eq!(breaker.permits(at(1_011), true), Permission::Not(at(5_009)), "no longer, and not again");
        assert_eq!(breaker.permits(at(5_009), false), Permission::Probe);
        breaker.probe(at(5_009));
        breaker.ended(at(5_010), Health::Ill, 4, 1, true, LIMITS);
        assert_eq!(breaker.permits(at(5_011), false), Permission::Not(at(15_010)));
        assert_eq!(breaker.permits(at(10_000), true), Permission::Probe, "the next silence");
        breaker.probe(at(10_000));
        breaker.probe_was_nothing(at(10_100));
        assert_eq!(breaker.permits(at(10_200), true), Permission::Probe, "that was none");
        breaker.probe(at(10_200));
        breaker.ended(at(10_300), Health::Well, 5, 100, true, LIMITS);
        assert_eq!(breaker.permits(at(10_301), false), Permission::Few(1));
    }

    /// The same with a first retry after a minute: it is given a minute and a half, and one with a first retry after a day no
    /// more than ten minutes.
    #[test]
    fn how_long_it_has_to_fail_follows_from_the_retry_policy() {
        for (first_retry_ms, patience_ms) in [(1, 10_000), (60_000, 90_000), (86_400_000, 600_000)] {
            let limits = Limits { first_retry_ms, ..LIMITS };
            let mut breaker = Breaker::default();
            for ms in (0..patience_ms - 5).step_by(100) {
                breaker.ended(at(ms), Health::Ill, ms.unsigned_abs(), 5, false, limits);
                assert_eq!(breaker.permits(at(ms), false), Permission::All, "after {ms} ms");
            }
            breaker.ended(at(patience_ms), Health::Ill, 1, 5, false, limits);
            assert!(
                matches!(breaker.permits(at(patience_ms), false), Permission::Not(_)),
                "{first_retry_ms}"
            );
        }
    }

    #[test]
    fn a_receiver_that_hangs_one_request_at_a_time_opens_it_too() {
        let one = Limits { most: 1, ..LIMITS };
        let mut breaker = Breaker::default();
        for n in 1..=10 {
            breaker.ended(at(n * 15_000), Health::Ill, n.unsigned_abs(), 15_000, false, one);
        }
        assert!(matches!(breaker.permits(at(150_000), false), Permission::Not(_)));
    }

    #[test]
    fn a_probe_that_says_nothing_lets_another_follow() {
        let mut breaker = opened();
        breaker.probe(at(6_000));
        breaker.ended(at(6_010), Health::Unknown, 1, 10, true, LIMITS);
        assert_eq!(breaker.permits(at(6_010), false), Permission::Probe);
        breaker.probe(at(6_010));
        breaker.probe_was_nothing(at(6_030));
        assert_eq!(breaker.permits(at(6_030), false), Permission::Probe);
    }

    #[test]
    fn what_counts_as_ill_is_what_the_docs_say() {
        let health = |outcome| Health::of(&outcome);
        for status in [500, 502, 599] {
            assert_eq!(health(Outcome::Failed { status }), Health::Ill);
        }
        for status in [408, 425] {
            assert_eq!(health(Outcome::Failed { status }), Health::Ill);
        }
        assert_eq!(health(Outcome::Busy { status: 429, retry_after_ms: None }), Health::Ill);
        assert_eq!(health(Outcome::Refused { status: 404 }), Health::Well);
        assert_eq!(health(Outcome::Redirected { status: 301 }), Health::Well);
        assert_eq!(health(Outcome::Unreachable(Unreachable::Timeout)), Health::Ill);
        assert_eq!(health(Outcome::Unreachable(Unreachable::Internal)), Health::Unknown);
        assert_eq!(health(Outcome::Blocked), Health::Unknown);
    }

    /// A receiver that fails half the time is hardly ever left alone.
    #[test]
    fn flapping_does_not_starve() {
        for seed in 0..20u64 {
            let mut breaker = Breaker::default();
            let (mut now, mut sent, mut draw) = (0, 0u32, seed);
            for n in 0..4_000 {
                now += 100;
                let probe = match breaker.permits(at(now), false) {
                    Permission::Not(_) => continue,
                    Permission::Probe => {
                        breaker.probe(at(now));
                        true
                    }
                    Permission::All | Permission::Few(_) => false,
                };
                sent += 1;
                // splitmix64
                draw = draw.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let z = (draw ^ (draw >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                let health = if (z ^ (z >> 31)) & 1 == 0 { Health::Well } else { Health::Ill };
                breaker.ended(at(now), health, n, 5, probe, LIMITS);
            }
            assert!(sent > 1_000, "{sent} of 4000 with seed {seed}");
        }
    }

    proptest! {
        #[test]
        fn while_it_is_open_at_most_one_probe_is_out(
            steps in prop::collection::vec((0i64..4_000, any::<bool>(), any::<bool>(), any::<bool>()), 1..300),
        ) {
            let mut breaker = opened();
            let (mut now, mut probing) = (10, false);
            for (n, (step, end, well, retried)) in steps.into_iter().enumerate() {
                now += step;
                if probing && end {
                    let health = if well { Health::Well } else { Health::Ill };
                    breaker.ended(at(now), health, n as u64, 5, true, LIMITS);
                    probing = false;
                }
                match breaker.permits(at(now), retried) {
                    Permission::Probe => {
                        prop_assert!(!probing);
                        breaker.probe(at(now));
                        probing = true;
                    }
                    Permission::Not(until) => prop_assert!(until > at(now) && until <= at(now + 60_000)),
                    Permission::Few(window) => prop_assert!((1..LIMITS.most).contains(&window)),
                    Permission::All => {}
                }
            }
        }
    }
}
