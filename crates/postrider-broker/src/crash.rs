//! Crash points: every place between two durable steps has a name, and a test can end the process there.
//!
//! In debug builds `POSTRIDER_CRASH_AT=NAME:N` aborts the process the N-th time that it passes NAME. A release has no
//! crash points.

/// Passes a crash point.
#[cfg(debug_assertions)]
pub fn point(name: &'static str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static AT: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);
    let at = AT.get_or_init(|| {
        let text = std::env::var("POSTRIDER_CRASH_AT").ok()?;
        let (name, n) = text.split_once(':')?;
        Some((name.to_owned(), n.parse().ok()?))
    });
    let Some((chosen, n)) = at else { return };
    if chosen == name && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == *n {
        tracing::warn!(name, n, "crash on purpose");
        std::process::abort();
    }
}

/// Passes a crash point: nothing, in a release.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn point(_name: &'static str) {}
