//! What is parked, and for how long the next is parked.
//!
//! A parked delivery comes back by itself. When it comes too early it is parked again, which costs the broker two messages
//! and brings nobody anything; when it comes late the receiver waits for nothing. So the wait follows from how much is
//! parked and how fast it drains: about as many come back as can begin, and a few more.

use crate::retry::Chance;
use crate::time::Timestamp;

/// How long the parking queues hold a message, seconds, shortest first (DESIGN §5.1).
pub const RUNGS_SECS: [u32; 6] = [1, 5, 30, 120, 600, 3600];

/// Deliveries of one webhook that are parked again, a second, over the whole fleet; where the longest rung allows it.
pub const MAX_REPARKED_PER_SECOND: f64 = 50.0;

/// The same for all webhooks of the fleet together.
const MAX_ALL_REPARKED_PER_SECOND: f64 = 100.0;

/// So many come back a second beside what drains, also where nothing seems to: else a receiver that is well again would wait
/// for long. Less than the bound, since what is parked is an estimate.
const AGAIN_PER_SECOND: f64 = 40.0;

/// How much is parked, as far as one worker knows: what it parked itself, fading with the time that it is parked for.
///
/// Where a parked delivery comes back, in this worker or another, is chance; so each worker knows its part of the fleet's
/// backlog, about the same in all of them.
#[derive(Clone, Debug, Default)]
pub struct Backlog {
    rungs: [f64; RUNGS_SECS.len()],
    at: Timestamp,
}

impl Backlog {
    /// One was parked on this rung.
    pub fn add(&mut self, now: Timestamp, rung_secs: u32) {
        self.fade(now);
        if let Some(index) = RUNGS_SECS.iter().position(|rung| *rung == rung_secs) {
            self.rungs[index] += 1.0;
        }
    }

    /// How many are parked.
    pub fn count(&mut self, now: Timestamp) -> f64 {
        self.fade(now);
        self.rungs.iter().sum()
    }

    fn fade(&mut self, now: Timestamp) {
        let passed_secs = now.since_ms(self.at) as f64 / 1000.0;
        if passed_secs > 0.0 {
            for (parked, rung_secs) in self.rungs.iter_mut().zip(RUNGS_SECS) {
                if *parked > 0.0 {
                    *parked *= (-passed_secs / f64::from(rung_secs)).exp();
                }
            }
            self.at = now;
        }
    }
}

/// How many may come back a second.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Requests a second that this worker can begin to the webhook; 0 while it may begin none.
    pub drain_per_second: f64,
    /// Workers in the fleet.
    pub workers: u32,
    /// Webhooks of which something is parked.
    pub backlogged: u32,
}

impl Budget {
    /// How long to park one of `parked`, itself among them, milliseconds, so that what comes back a second is what drains and a few more.
    pub fn wait_ms(self, parked: f64) -> u64 {
        let workers = f64::from(self.workers.max(1));
        let of_all = MAX_ALL_REPARKED_PER_SECOND / f64::from(self.backlogged.max(1));
        let again = AGAIN_PER_SECOND.min(of_all);
        (parked * 1000.0 / (self.drain_per_second + again / workers)) as u64
    }
}

/// The rung for a wait: of the two neighbours by chance, so that the mean is the wait.
pub fn rung(wait_ms: u64, chance: Chance) -> u32 {
    let mut rungs = RUNGS_SECS.iter().zip(&RUNGS_SECS[1..]);
    let wait_secs = wait_ms as f64 / 1000.0;
    let Some((shorter, longer)) = rungs.find(|(_, longer)| wait_secs < f64::from(**longer)) else {
        return RUNGS_SECS[RUNGS_SECS.len() - 1];
    };
    let part = (wait_secs - f64::from(*shorter)) / f64::from(longer - shorter);
    if chance.get() < part { *longer } else { *shorter }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pace::MAX_WAIT_MS;
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    #[test]
    fn the_mean_of_the_rungs_is_the_wait() {
        for (wait_ms, all) in [(0, 1), (1_000, 1), (5_000, 5), (3_600_000, 3_600), (u64::MAX, 3_600)] {
            for draw in [0.0, 0.5, 0.99] {
                assert_eq!(rung(wait_ms, Chance::new(draw)), all);
            }
        }
        for wait_ms in [2_000, 10_000, 100_000, 500_000, 2_000_000] {
            let draws = 1_000u32;
            let sum: u64 = (0..draws)
                .map(|n| u64::from(rung(wait_ms, Chance::new(f64::from(n) / f64::from(draws)))))
                .sum();
            let mean_ms = sum * 1000 / u64::from(draws);
            assert!(mean_ms.abs_diff(wait_ms) < wait_ms / 50, "{mean_ms} for {wait_ms}");
        }
    }

    /// A virtual clock runs a fleet over one webhook with a backlog. Gives re-parkings a second and begun a second, over the
    /// last fifth of the time.
    fn fleet(workers: u32, parked: u32, drain_per_second: f64, hours: f64, seed: u64) -> (f64, f64) {
        let mut draw = seed;
        let mut chance = move || {
            // splitmix64
            draw = draw.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = draw;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
        };
        let end_ms = (hours * 3_600_000.0) as i64;
        // All of them arrive within the first tenth.
        let mut due: BinaryHeap<Reverse<i64>> =
            (0..parked).map(|_| Reverse((chance() * end_ms as f64 / 10.0) as i64)).collect();
        let mut backlogs = vec![Backlog::default(); workers as usize];
        let mut buckets = vec![super::super::Bucket::default(); workers as usize];
        let (mut again, mut begun) = (0u32, 0u32);
        let from_ms = end_ms / 5 * 4;
        while let Some(Reverse(now_ms)) = due.pop().filter(|Reverse(at)| *at < end_ms) {
            let now = Timestamp::from_millis(now_ms);
            let worker = (chance() * f64::from(workers)) as usize;
            let share = drain_per_second / f64::from(workers);
            if share > 0.0 && buckets[worker].take(now, share) {
                begun += u32::from(now_ms >= from_ms);
                // Another takes its place: the backlog stays as it is.
                due.push(Reverse(now_ms + 1 + (chance() * 1000.0) as i64));
                continue;
            }
            let wait_ms = buckets[worker].wait_ms(now, share, 0);
            if share > 0.0 && wait_ms <= MAX_WAIT_MS && chance() < 0.5 {
                due.push(Reverse(now_ms + i64::try_from(wait_ms).unwrap()));
                continue;
            }
            let budget = Budget { drain_per_second: share, workers, backlogged: 1 };
            let wait_ms = budget.wait_ms(backlogs[worker].count(now) + 1.0);
            let rung_secs = rung(wait_ms, Chance::new(chance()));
            backlogs[worker].add(now, rung_secs);
            again += u32::from(now_ms >= from_ms);
            due.push(Reverse(now_ms + i64::from(rung_secs) * 1000));
        }
        let span_secs = (end_ms - from_ms) as f64 / 1000.0;
        (f64::from(again) / span_secs, f64::from(begun) / span_secs)
    }

    #[test]
    fn a_webhook_is_parked_again_less_than_fifty_times_a_second_and_drains() {
        for (workers, parked) in [(1, 20), (1, 2_000), (2, 200), (4, 2_000)] {
            for drain in [0.0, 0.5, 5.0, 40.0] {
                for seed in 0..2 {
                    let (all, begun) = fleet(workers, parked, drain, 0.5, seed);
                    // Each that begins is replaced by a new one, which is parked once: that is no parking again.
                    let again = all - begun;
                    let what = format!(
                        "{workers} workers, {parked} parked, {drain}/s: {again}/s again, {begun}/s begun"
                    );
                    assert!(again < MAX_REPARKED_PER_SECOND, "{what}");
                    if f64::from(parked) >= 50.0 * drain {
                        assert!(begun >= 0.3 * drain, "{what}");
                    }
                }
            }
        }
    }

    #[test]
    fn many_backlogged_webhooks_share_what_may_come_back() {
        let one = Budget { drain_per_second: 0.07, workers: 1, backlogged: 1 };
        assert!((2_400..2_600).contains(&one.wait_ms(100.0)), "{}", one.wait_ms(100.0));
        let of_many = Budget { backlogged: 900, ..one };
        assert!((500_000..600_000).contains(&of_many.wait_ms(100.0)), "{}", of_many.wait_ms(100.0));
        let drains = Budget { drain_per_second: 2_000.0, ..one };
        assert!((400..500).contains(&drains.wait_ms(1_000.0)), "{}", drains.wait_ms(1_000.0));
    }
}
