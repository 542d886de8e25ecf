//! Faults on purpose, in debug builds only: a publish that is lost although it was believed to be confirmed.
//!
//! `POSTRIDER_FAULT=lose-publish:EXCHANGE:N` loses the N-th publish of this process to an exchange whose name ends in
//! EXCHANGE or holds `.EXCHANGE.`. The tests of the books use it to prove that drift shows such a loss.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

struct Fault {
    exchange: String,
    at: u64,
    seen: AtomicU64,
}

static FAULT: OnceLock<Option<Fault>> = OnceLock::new();

/// Whether this publish is the one to lose.
pub(crate) fn loses(exchange: &str) -> bool {
    let fault = FAULT.get_or_init(|| {
        let text = std::env::var("POSTRIDER_FAULT").ok()?;
        let mut parts = text.strip_prefix("lose-publish:")?.split(':');
        let exchange = parts.next()?.to_owned();
        let at = parts.next()?.parse().ok()?;
        Some(Fault { exchange, at, seen: AtomicU64::new(0) })
    });
    let Some(fault) = fault else { return false };
    let hit = exchange.ends_with(&format!(".{}", fault.exchange))
        || exchange.contains(&format!(".{}.", fault.exchange));
    let lost = hit && fault.seen.fetch_add(1, Ordering::Relaxed) + 1 == fault.at;
    if lost {
        tracing::warn!(exchange, "fault on purpose: this publish is lost");
    }
    lost
}
