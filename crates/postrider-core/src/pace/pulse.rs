//! How long the requests of one webhook take, lately and right now.

use std::collections::VecDeque;

use crate::time::Timestamp;

/// A request that takes longer is slow, milliseconds.
pub const SLOW_MS: u64 = 1_000;

/// Length of one window, milliseconds; six of them are the last minute.
const WINDOW_MS: u64 = 10_000;
const WINDOWS: usize = 6;
/// What a request is expected to take when nothing is known, milliseconds.
const GUESS_MS: u64 = 20;
/// What a request is expected to take that hangs, milliseconds, as long as none has ended.
const HANG_GUESS_MS: u64 = 10_000;

/// Requests that ended within the last minute, and those under way.
#[derive(Clone, Debug, Default)]
pub struct Pulse {
    windows: [Window; WINDOWS],
    // In order of their beginning; those that ended stay until they are at the front.
    under_way: VecDeque<Begun>,
    ended: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Window {
    number: u64,
    count: u32,
    slow: u32,
    sum_ms: u64,
}

#[derive(Clone, Copy, Debug)]
struct Begun {
    number: u64,
    at: Timestamp,
    ended: bool,
}

impl Pulse {
    /// A request begins, under a number larger than all before it.
    pub fn began(&mut self, now: Timestamp, number: u64) {
        self.under_way.push_back(Begun { number, at: now, ended: false });
    }

    /// The request of this number is over; `took_ms` when it says something of the receiver.
    pub fn ended(&mut self, now: Timestamp, number: u64, took_ms: Option<u64>) {
        if let Ok(index) = self.under_way.binary_search_by_key(&number, |begun| begun.number)
            && !self.under_way[index].ended
        {
            self.under_way[index].ended = true;
            self.ended += 1;
        }
        while self.under_way.front().is_some_and(|begun| begun.ended) {
            self.under_way.pop_front();
            self.ended -= 1;
        }
        // One that takes very long does not keep the others that ended meanwhile.
        if self.ended > 32 && self.ended * 2 > self.under_way.len() {
            self.under_way.retain(|begun| !begun.ended);
            self.ended = 0;
        }
        if let Some(took_ms) = took_ms {
            let number = window_number(now);
            let window = &mut self.windows[(number % WINDOWS as u64) as usize];
            if window.number != number {
                *window = Window { number, ..Window::default() };
            }
            window.count += 1;
            window.slow += u32::from(took_ms > SLOW_MS);
            window.sum_ms = window.sum_ms.saturating_add(took_ms);
        }
    }

    /// How many are under way.
    pub fn under_way(&self) -> usize {
        self.under_way.len() - self.ended
    }

    /// How long the oldest request has been under way, milliseconds; 0 for none.
    pub fn oldest_ms(&self, now: Timestamp) -> u64 {
        self.under_way.front().map_or(0, |begun| now.since_ms(begun.at))
    }

    /// Whether the webhook is slow: a request is under way for longer than [`SLOW_MS`], or the 95th percentile of those that
    /// ended within the last minute is above it.
    pub fn is_slow(&self, now: Timestamp) -> bool {
        let (count, slow) =
            self.recent(now).fold((0, 0), |(count, slow), window| (count + window.count, slow + window.slow));
        self.oldest_ms(now) > SLOW_MS || u64::from(slow) * 20 > u64::from(count)
    }

    /// What the next request will take, milliseconds: the mean of those that ended last, but no less than the oldest has
    /// taken already; and while that is slow, it is taken for one that hangs.
    pub fn expected_ms(&self, now: Timestamp) -> u64 {
        let last = self.recent(now).filter(|window| window.count > 0).max_by_key(|window| window.number);
        let mean_ms = last.map_or(GUESS_MS, |window| window.sum_ms / u64::from(window.count));
        let oldest_ms = self.oldest_ms(now);
        let hangs_ms = if oldest_ms > SLOW_MS { HANG_GUESS_MS } else { 1 };
        mean_ms.max(oldest_ms).max(hangs_ms)
    }

    /// Whether a request ended within the last minute.
    pub fn answered_lately(&self, now: Timestamp) -> bool {
        self.recent(now).any(|window| window.count > 0)
    }

    /// The windows of the last minute.
    fn recent(&self, now: Timestamp) -> impl Iterator<Item = &Window> {
        let newest = window_number(now);
        self.windows.iter().filter(move |window| newest - window.number.min(newest) < WINDOWS as u64)
    }
}

fn window_number(now: Timestamp) -> u64 {
    now.since_ms(Timestamp::from_millis(0)) / WINDOW_MS
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    #[test]
    fn slow_is_an_old_request_or_one_of_twenty_within_the_last_minute() {
        let mut pulse = Pulse::default();
        pulse.began(at(0), 1);
        assert!(!pulse.is_slow(at(1_000)));
        assert!(pulse.is_slow(at(1_001)));
        pulse.ended(at(1_500), 1, Some(1_500));
        assert!(pulse.is_slow(at(1_500)), "one of one");
        for number in 2..=20 {
            pulse.began(at(2_000), number);
            pulse.ended(at(2_010), number, Some(10));
        }
        assert!(!pulse.is_slow(at(2_010)), "one of twenty");
        pulse.began(at(3_000), 21);
        pulse.ended(at(5_000), 21, Some(2_000));
        assert!(pulse.is_slow(at(5_000)), "two of 21");
        assert!(pulse.is_slow(at(59_999)));
        assert!(!pulse.is_slow(at(60_000)), "a minute later");
        assert!(pulse.answered_lately(at(59_999)) && !pulse.answered_lately(at(60_000)));
    }

    #[test]
    fn what_is_expected_is_the_mean_or_the_age_of_what_hangs() {
        let mut pulse = Pulse::default();
        assert_eq!(pulse.expected_ms(at(0)), GUESS_MS);
        for (number, took_ms) in [(1, 10), (2, 30)] {
            pulse.began(at(0), number);
            pulse.ended(at(30), number, Some(took_ms));
        }
        assert_eq!(pulse.expected_ms(at(30)), 20);
        pulse.began(at(100), 3);
        assert_eq!(pulse.expected_ms(at(600)), 500);
        assert_eq!(pulse.expected_ms(at(1_200)), HANG_GUESS_MS);
        assert_eq!(pulse.expected_ms(at(15_000)), 14_900);
        pulse.ended(at(15_100), 3, Some(15_000));
        assert_eq!(pulse.expected_ms(at(15_100)), 15_000, "what was quick before it says nothing any more");
        pulse.began(at(15_200), 4);
        pulse.ended(at(15_210), 4, Some(10));
        assert_eq!(pulse.expected_ms(at(15_210)), 7_505);
    }

    proptest! {
        #[test]
        fn the_oldest_is_the_oldest_and_little_is_kept(
            steps in prop::collection::vec((0i64..50, prop::option::of(0usize..40)), 1..600),
        ) {
            let mut pulse = Pulse::default();
            let mut open: Vec<(u64, i64)> = Vec::new();
            let mut now = 0;
            for (number, (step, end)) in steps.into_iter().enumerate() {
                now += step;
                match end.filter(|index| *index < open.len()) {
                    Some(index) => {
                        let (number, begun) = open.remove(index);
                        pulse.ended(at(now), number, Some((now - begun).unsigned_abs()));
                    }
                    None => {
                        pulse.began(at(now), number as u64);
                        open.push((number as u64, now));
                    }
                }
                prop_assert_eq!(pulse.under_way(), open.len());
                let oldest = open.first().map_or(0, |(_, begun)| (now - begun).unsigned_abs());
                prop_assert_eq!(pulse.oldest_ms(at(now)), oldest);
                prop_assert!(pulse.under_way.len() <= 2 * open.len() + 64);
            }
        }
    }
}
