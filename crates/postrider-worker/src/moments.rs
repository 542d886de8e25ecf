//! When requests begin: never twice at the same millisecond for one delivery, since copies of it are told apart by that.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, PoisonError};

use postrider_core::{DeliveryId, Timestamp};

/// How long a moment is remembered, milliseconds, at least.
const KEPT_MS: u64 = 1_000;

/// The last moments of deliveries, in two generations: as many as begin within two seconds. A delivery is known by a number
/// that its id gives: two that share one begin a millisecond apart, which hurts nobody.
#[derive(Debug, Default)]
pub(crate) struct Moments {
    numbers: RandomState,
    known: Mutex<Generations>,
}

#[derive(Debug, Default)]
struct Generations {
    begun: Timestamp,
    current: HashMap<u64, Timestamp>,
    before: HashMap<u64, Timestamp>,
}

impl Moments {
    /// The moment of a request that begins now: now, or later if another of the delivery began now.
    pub(crate) fn of(&self, delivery: &DeliveryId, now: Timestamp) -> Timestamp {
        let number = self.numbers.hash_one(delivery);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = &mut *known;
        // Also when the clock was set back.
        if now.since_ms(known.begun) > KEPT_MS || now < known.begun {
            std::mem::swap(&mut known.before, &mut known.current);
            known.current.clear();
            known.begun = now;
        }
        let last = known.current.get(&number).or_else(|| known.before.get(&number));
        let at = match last {
            Some(last) if *last >= now && last.since_ms(now) < KEPT_MS => last.plus_ms(1),
            _ => now,
        };
        known.current.insert(number, at);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_one_delivery_never_begin_at_the_same_moment() {
        let moments = Moments::default();
        let id = |id: &str| DeliveryId::from_trusted(id);
        let at = |id: &DeliveryId, ms| moments.of(id, Timestamp::from_millis(ms)).as_millis();
        let (a, b) = (id("a"), id("b"));
        let given = [
            at(&a, 5_000),
            at(&a, 5_000),
            at(&b, 5_000),
            at(&a, 5_001),
            at(&a, 5_100),
            at(&a, 6_200),
            at(&a, 6_200),
        ];
        assert_eq!(given, [5_000, 5_001, 5_000, 5_002, 5_100, 6_200, 6_201]);
        assert_eq!(at(&a, 100), 100, "the clock was set back");
    }
}
