//! The delay ladder: which levels of it carry a wait.
//!
//! Level `n` holds a message for 2^n units, then passes it down. A wait is a sum of levels, written most significant bit
//! first into the routing key, so that each level knows whether the message stops there. Rounding up to four set bits
//! bounds the hops to four and adds at most an eighth (`reference/rabbitmq.md` §2.2, §9.3).

/// How many levels the ladder has.
pub const LEVELS: u32 = 20;

/// The longest wait, in units: the four highest levels. With a unit of one second, 11.4 days.
pub const MAX_UNITS: u32 = 0b1111 << (LEVELS - SET_BITS);

/// At most this many levels carry one wait.
const SET_BITS: u32 = 4;

/// A wait on the ladder, in whole units; at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wait(u32);

impl Wait {
    /// The shortest wait on the ladder that is not shorter than `delay_ms`, or `None` above [`MAX_UNITS`].
    pub fn at_least(delay_ms: u64, unit_ms: u64) -> Option<Self> {
        let units = delay_ms.div_ceil(unit_ms.max(1)).max(1);
        if units > u64::from(MAX_UNITS) {
            return None;
        }
        let bits = u64::BITS - units.leading_zeros();
        let step = 1u64 << bits.saturating_sub(SET_BITS);
        let rounded = units.div_ceil(step) * step;
        u32::try_from(rounded).ok().filter(|units| *units <= MAX_UNITS).map(Self)
    }

    /// The wait in units.
    pub fn units(self) -> u32 {
        self.0
    }

    /// The wait in milliseconds.
    pub fn as_ms(self, unit_ms: u64) -> u64 {
        u64::from(self.0) * unit_ms
    }

    /// The level at which a message enters: the highest set bit.
    pub fn entry_level(self) -> u32 {
        u32::BITS - 1 - self.0.leading_zeros()
    }

    /// The routing key: the bits, most significant first, then where the message goes afterwards.
    pub fn routing_key(self, destination: &str) -> String {
        let mut key = String::with_capacity(2 * LEVELS as usize + destination.len());
        for level in (0..LEVELS).rev() {
            key.push(if self.0 & (1 << level) == 0 { '0' } else { '1' });
            key.push('.');
        }
        key + destination
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_are_bits_and_destination() {
        let wait = Wait::at_least(5000, 1000).unwrap();
        assert_eq!(wait.routing_key("retry.0"), "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.1.retry.0");
        assert_eq!(wait.entry_level(), 2);
        assert_eq!(Wait::at_least(0, 1000).unwrap().units(), 1);
        assert_eq!(Wait::at_least(u64::MAX, 1), None);
    }

    proptest! {
        #[test]
        fn rounding_never_goes_early_and_adds_at_most_an_eighth(
            delay_ms in 0u64..1_048_000_000, unit_ms in prop::sample::select(vec![1u64, 20, 100, 1000]),
        ) {
            if let Some(wait) = Wait::at_least(delay_ms, unit_ms) {
                let waited_ms = wait.as_ms(unit_ms);
                prop_assert!(waited_ms >= delay_ms);
                let exact_ms = delay_ms.div_ceil(unit_ms).max(1) * unit_ms;
                prop_assert!(waited_ms <= exact_ms + exact_ms / 8);
                prop_assert!(wait.units().count_ones() <= SET_BITS);
                prop_assert!(wait.entry_level() < LEVELS);
            } else {
                prop_assert!(delay_ms.div_ceil(unit_ms) > u64::from(MAX_UNITS));
            }
        }
    }
}
