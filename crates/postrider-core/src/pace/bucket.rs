//! A token bucket.

use crate::time::Timestamp;

/// What may begin at once after a pause, in seconds' worth of the rate: so any one second sees at most 1.1 times the rate,
/// and one more.
const BURST_SECONDS: f64 = 0.1;

/// Tokens, one for each request. Full at first.
#[derive(Clone, Debug, Default)]
pub struct Bucket {
    // Missing means full.
    tokens: Option<f64>,
    at: Timestamp,
}

impl Bucket {
    /// Takes one token, if there is one; a changed rate counts from the last call on.
    pub fn take(&mut self, now: Timestamp, per_second: f64) -> bool {
        let tokens = self.refill(now, per_second);
        let taken = tokens >= 1.0;
        self.tokens = Some(if taken { tokens - 1.0 } else { tokens });
        taken
    }

    /// Gives back a token that was not used.
    pub fn give_back(&mut self) {
        self.tokens = self.tokens.map(|tokens| tokens + 1.0);
    }

    /// In how many milliseconds there is a token for the one before whom `ahead` others wait; rounded up.
    pub fn wait_ms(&mut self, now: Timestamp, per_second: f64, ahead: u32) -> u64 {
        let missing = f64::from(ahead) + 1.0 - self.refill(now, per_second);
        if missing <= 0.0 { 0 } else { (missing * 1000.0 / per_second.max(f64::MIN_POSITIVE)).ceil() as u64 }
    }

    fn refill(&mut self, now: Timestamp, per_second: f64) -> f64 {
        let most = (per_second * BURST_SECONDS).max(1.0);
        let tokens = match self.tokens {
            Some(tokens) => (tokens + now.since_ms(self.at) as f64 * per_second / 1000.0).min(most),
            None => most,
        };
        (self.tokens, self.at) = (Some(tokens), self.at.max(now));
        tokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_rate_below_one_waits_for_its_token() {
        let mut bucket = Bucket::default();
        let at = Timestamp::from_millis;
        assert!(bucket.take(at(0), 0.1));
        assert!(!bucket.take(at(5_000), 0.1));
        assert_eq!(bucket.wait_ms(at(5_000), 0.1, 0), 5_000);
        assert_eq!(bucket.wait_ms(at(5_000), 0.1, 1), 15_000);
        assert!(bucket.take(at(10_000), 0.1));
    }

    proptest! {
        #[test]
        fn no_window_sees_more_than_its_rate_and_the_burst(
            per_second in 0.05f64..2_000.0,
            steps in prop::collection::vec(0u64..400, 1..60),
        ) {
            let mut bucket = Bucket::default();
            let mut now = Timestamp::from_millis(1_700_000_000_000);
            let mut taken = Vec::new();
            for step in steps {
                now = now.plus_ms(step);
                while bucket.take(now, per_second) {
                    taken.push(now);
                }
                let wait_ms = bucket.wait_ms(now, per_second, 0);
                prop_assert!(wait_ms > 0);
                let mut later = bucket.clone();
                prop_assert!(later.take(now.plus_ms(wait_ms + 1), per_second), "it is there when it was promised");
            }
            let burst = (per_second * BURST_SECONDS).max(1.0);
            // count <= passed * rate + burst for every window: the largest of (taken - passed * rate) over its smallest.
            let mut least = f64::MAX;
            for (before, at) in taken.iter().enumerate() {
                let due = at.since_ms(taken[0]) as f64 * per_second / 1000.0;
                least = least.min(before as f64 - due);
                let most = (before + 1) as f64 - due - least;
                prop_assert!(most <= burst + 1e-6, "{most} beyond the rate");
            }
        }
    }
}
