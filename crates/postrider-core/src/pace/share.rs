//! What one worker may take of a cap that is for the whole fleet.

/// Most requests in flight that one worker of `workers` may have, of a cap for all of them; at least one.
///
/// Rounded down, so that all workers together have at most max(cap, workers): rounding up would let ten workers have
/// twenty requests where eleven are allowed.
pub fn share(cap: u32, workers: u32) -> u32 {
    (cap / workers.max(1)).max(1)
}

/// Requests a second that one worker of `workers` may begin, of a rate for all of them. A fraction where there are more
/// workers than that, so the fleet keeps the rate exactly.
pub fn rate_share(per_second: u32, workers: u32) -> f64 {
    f64::from(per_second) / f64::from(workers.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn all_workers_together_keep_to_the_cap(cap in 1u32..=1000, workers in 1u32..=100) {
            let all = share(cap, workers) * workers;
            prop_assert!(all <= cap.max(workers), "{all} of {cap} by {workers}");
            // What is lost to rounding is less than one for each worker.
            prop_assert!(all + workers > cap);
            prop_assert!((rate_share(cap, workers) * f64::from(workers) - f64::from(cap)).abs() < 1e-9);
        }
    }
}
