//! Faults on purpose, in debug builds only. `POSTRIDER_FAULT` is one of
//!
//! - `lose-publish:EXCHANGE:N`: the N-th publish of this process to an exchange whose name ends in EXCHANGE or holds
//!   `.EXCHANGE.` is not made, although it is believed to be confirmed. The tests of the books prove by it that drift shows
//!   such a loss.
//! - `stall-acks:N`: the N-th ack and all that follow never return, as if their task had come to a standstill.
//! - `freeze-runtime:N`: at the N-th ack every thread of the runtime stands still. This one and `stall-acks` show that
//!   the watchdog ends such a role.
//! - `panic:POINT:N`: whoever passes the crash point POINT as the N-th panics. Points that are passed while an answer is
//!   awaited are not among them.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

enum Kind {
    LosePublish { exchange: String },
    StallAcks,
    FreezeRuntime,
    Panic { point: String },
}

struct Fault {
    kind: Kind,
    at: u64,
    seen: AtomicU64,
}

impl Fault {
    fn read(text: &str) -> Option<Self> {
        let (rest, at) = text.rsplit_once(':')?;
        let kind = match rest.split_once(':') {
            Some(("lose-publish", exchange)) => Kind::LosePublish { exchange: exchange.to_owned() },
            Some(("panic", point)) => Kind::Panic { point: point.to_owned() },
            None if rest == "stall-acks" => Kind::StallAcks,
            None if rest == "freeze-runtime" => Kind::FreezeRuntime,
            _ => return None,
        };
        Some(Self { kind, at: at.parse().ok()?, seen: AtomicU64::new(0) })
    }

    /// How often it was passed, this time included.
    fn pass(&self) -> u64 {
        self.seen.fetch_add(1, Ordering::Relaxed) + 1
    }
}

static FAULT: OnceLock<Option<Fault>> = OnceLock::new();

fn fault() -> Option<&'static Fault> {
    FAULT.get_or_init(|| Fault::read(&std::env::var("POSTRIDER_FAULT").ok()?)).as_ref()
}

/// Whether this publish is the one to lose.
pub(crate) fn loses(exchange: &str) -> bool {
    let Some(fault @ Fault { kind: Kind::LosePublish { exchange: chosen }, .. }) = fault() else {
        return false;
    };
    let hit = exchange.ends_with(&format!(".{chosen}")) || exchange.contains(&format!(".{chosen}."));
    let lost = hit && fault.pass() == fault.at;
    if lost {
        tracing::warn!(exchange, "fault on purpose: this publish is lost");
    }
    lost
}

/// Panics, if this is the pass of a crash point that is to.
pub(crate) fn at_point(name: &str) {
    if let Some(fault @ Fault { kind: Kind::Panic { point }, .. }) = fault()
        && point == name
        && fault.pass() == fault.at
    {
        panic!("fault on purpose: a panic at {name}");
    }
}

/// Before an ack: does not return when it is to stall, and stops the runtime when that is the fault.
pub(crate) async fn before_ack() {
    let Some(fault) = fault() else { return };
    match fault.kind {
        Kind::LosePublish { .. } | Kind::Panic { .. } => {}
        Kind::StallAcks => {
            if fault.pass() >= fault.at {
                tracing::warn!("fault on purpose: this ack never returns");
                std::future::pending::<()>().await;
            }
        }
        Kind::FreezeRuntime => {
            if fault.pass() == fault.at {
                tracing::warn!("fault on purpose: the runtime stands still");
                for _ in 0..256 {
                    tokio::spawn(async {
                        loop {
                            std::thread::park();
                        }
                    });
                }
            }
        }
    }
}
