//! A clock that never goes back, whatever happens to the machine's.

use postrider_core::Timestamp;
use tokio::time::Instant;

/// Counts from its start, which is called the time that it was then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Steady {
    start: Instant,
    at: Timestamp,
}

impl Steady {
    /// Starts now.
    pub(crate) fn start() -> Self {
        Self { start: Instant::now(), at: postrider_broker::now() }
    }

    /// The time.
    pub(crate) fn now(&self) -> Timestamp {
        self.at.plus_ms(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}
