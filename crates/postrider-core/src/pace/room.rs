//! The waiting room: who may wait in place, in place of being parked.
//!
//! Whoever waits keeps a slot of the worker meanwhile, so a webhook may have few waiting, and only when its turn is near.

/// The longest expected wait in place, milliseconds.
pub const MAX_WAIT_MS: u64 = 250;
/// At least so many may wait for one webhook.
const LEAST_PLACES: u32 = 4;

/// How many may wait for one webhook on one lane.
///
/// Twice its share of requests in flight and at least four; while half of the lane's quick slots are free, up to a quarter
/// of them, since nobody else wants them.
pub fn places(share: u32, lane_slots: u32, lane_free: u32) -> u32 {
    let usual = share.saturating_mul(2).max(LEAST_PLACES);
    if lane_free.saturating_mul(2) >= lane_slots { usual.max(lane_slots / 4) } else { usual }
}

/// How long the one before whom `ahead` others wait will wait until one of `most` requests, each of which takes
/// `expected_ms`, is over, milliseconds.
pub(super) fn wait_ms(ahead: u32, most: u32, expected_ms: u64) -> u64 {
    (u64::from(ahead) + 1).saturating_mul(expected_ms) / u64::from(most.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_is_small_unless_nobody_else_wants_it() {
        assert_eq!(places(1, 176, 10), 4);
        assert_eq!(places(10, 176, 10), 20);
        assert_eq!(places(1, 176, 88), 44);
        assert_eq!(places(1000, 176, 88), 2000);
    }

    #[test]
    fn the_wait_grows_with_those_ahead_and_shrinks_with_the_share() {
        assert_eq!(wait_ms(0, 10, 1_000), 100);
        assert_eq!(wait_ms(9, 10, 1_000), 1_000);
        assert_eq!(wait_ms(9, 0, 10), 100);
    }
}
