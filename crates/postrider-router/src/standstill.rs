//! Whether this process stood still: stopped by a signal, paused with its machine, or starved.
//!
//! A router that stands still for longer than the heartbeat loses its events to the next one, and does not know it when it
//! goes on: what it then publishes is published twice. So it asks the broker first. What it had already handed to the
//! network cannot be called back: that is the bound of a batch (DESIGN §1).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

/// How often the clocks are looked at.
const TICK: Duration = Duration::from_millis(100);
/// A pause this long is a standstill. Far below any heartbeat, and asking costs a millisecond.
const GAP: Duration = Duration::from_secs(1);

/// Watches the clocks for as long as it lives.
#[derive(Debug)]
pub(crate) struct Standstill(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    last: Mutex<(Instant, SystemTime)>,
    stood: AtomicBool,
}

impl Standstill {
    /// Begins to watch.
    pub(crate) fn watch() -> Self {
        let inner = Arc::new(Inner {
            last: Mutex::new((Instant::now(), SystemTime::now())),
            stood: AtomicBool::new(false),
        });
        tokio::spawn(tick(Arc::downgrade(&inner)));
        Self(inner)
    }

    /// Whether there was one since the last time that this was asked.
    pub(crate) fn happened(&self) -> bool {
        // The task that ticks may not have run yet since then.
        self.0.look();
        self.0.stood.swap(false, Ordering::Relaxed)
    }
}

async fn tick(inner: Weak<Inner>) {
    while let Some(inner) = inner.upgrade() {
        inner.look();
        drop(inner);
        tokio::time::sleep(TICK).await;
    }
}

impl Inner {
    fn look(&self) {
        let now = (Instant::now(), SystemTime::now());
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // One clock stands while a machine sleeps, the other may be set: either will do.
        let passed = now.0.saturating_duration_since(last.0).max(now.1.duration_since(last.1).unwrap_or(GAP));
        *last = now;
        if passed >= GAP {
            self.stood.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_noticed_once_by_whoever_asks_first() {
        let inner = |ago: Duration| Inner {
            last: Mutex::new((Instant::now() - ago, SystemTime::now() - ago)),
            stood: AtomicBool::new(false),
        };
        let paused = Standstill(Arc::new(inner(GAP * 2)));
        assert!(paused.happened());
        assert!(!paused.happened());
        // The ticking task was first.
        let ticked = Standstill(Arc::new(inner(GAP * 2)));
        ticked.0.look();
        ticked.0.look();
        assert!(ticked.happened());
        assert!(!Standstill(Arc::new(inner(GAP / 4))).happened());
    }
}
