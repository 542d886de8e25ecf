//! Saying the same thing seldom: what may happen a thousand times in a second is logged once in a while, with how often
//! it happened in between.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long one line stands for all that follow.
const PAUSE: Duration = Duration::from_secs(10);

/// Says when a line is due again. One static for each line.
#[derive(Debug, Default)]
pub struct Seldom {
    begun: OnceLock<Instant>,
    /// When the line is due again, milliseconds after the first.
    due_ms: AtomicU64,
    unsaid: AtomicU64,
}

impl Seldom {
    /// A line that was never said.
    pub const fn new() -> Self {
        Self { begun: OnceLock::new(), due_ms: AtomicU64::new(0), unsaid: AtomicU64::new(0) }
    }

    /// It happened once more. When the line is due: how often it happened unsaid since the last one.
    pub fn due(&self) -> Option<u64> {
        let passed = self.begun.get_or_init(Instant::now).elapsed();
        self.due_after(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX))
    }

    fn due_after(&self, passed_ms: u64) -> Option<u64> {
        let pause_ms = u64::try_from(PAUSE.as_millis()).unwrap_or(u64::MAX);
        let due_ms = self.due_ms.load(Ordering::Relaxed);
        let next_ms = passed_ms.saturating_add(pause_ms);
        let said = passed_ms >= due_ms
            && self.due_ms.compare_exchange(due_ms, next_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if said {
            Some(self.unsaid.swap(0, Ordering::Relaxed))
        } else {
            self.unsaid.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stands_for_those_that_follow() {
        let line = Seldom::new();
        assert_eq!(line.due_after(0), Some(0));
        for _ in 0..1000 {
            assert_eq!(line.due_after(9_999), None);
        }
        assert_eq!(line.due_after(10_000), Some(1000));
        assert_eq!(line.due_after(10_001), None);
        assert_eq!(line.due_after(60_000), Some(1));
        assert_eq!(line.due(), None);
    }
}
