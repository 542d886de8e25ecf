//! What a role shows the watchdog of itself.
//!
//! The rule is [`postrider_core::stall`]. The signs are gathered here, by a task of each session: what was settled, what
//! waits in the queues that the session consumes, and what is held. The watchdog itself runs on a thread of its own, in
//! the process that serves the roles, since a runtime that stands still cannot watch itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use postrider_core::stall::{Signs, Work};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::readiness::Readiness;
use crate::session::Prober;

/// How often the signs are gathered.
const LOOK: Duration = Duration::from_secs(1);

/// The signs of one role. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Pulse {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    signs: Mutex<Signs>,
    allowed_ms: AtomicU64,
    still_ms: AtomicU64,
}

impl Pulse {
    /// How long one message may rightly take, such as the longest timeout of a webhook.
    pub fn allow(&self, longest: Duration) {
        let ms = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
        self.inner.allowed_ms.store(ms, Ordering::Relaxed);
    }

    /// What was shown last; `beats` is for the watchdog to fill in, who knows the runtime.
    pub fn signs(&self) -> Signs {
        let signs = *self.inner.signs.lock().unwrap_or_else(PoisonError::into_inner);
        Signs { allowed_ms: self.inner.allowed_ms.load(Ordering::Relaxed), ..signs }
    }

    /// The watchdog says for how long the role has stood still with work at hand.
    pub fn still_for(&self, ms: u64) {
        self.inner.still_ms.store(ms, Ordering::Relaxed);
    }

    fn show(&self, signs: Signs) {
        *self.inner.signs.lock().unwrap_or_else(PoisonError::into_inner) = signs;
    }
}

/// The queues that a session consumes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Consumed(Arc<Mutex<Vec<Queue>>>);

#[derive(Clone, Debug)]
struct Queue {
    name: String,
    handed: Arc<AtomicU64>,
    one_at_a_time: bool,
}

impl Consumed {
    /// One more, perhaps one of which only one consumer at a time is handed anything; the answer counts what is handed out
    /// of it.
    pub(crate) fn add(&self, name: &str, one_at_a_time: bool) -> Arc<AtomicU64> {
        let handed = Arc::<AtomicU64>::default();
        let queue = Queue { name: name.to_owned(), handed: handed.clone(), one_at_a_time };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(queue);
        handed
    }

    fn all(&self) -> Vec<Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Messages that wait for this session; nothing when the broker does not say.
    async fn ready(&self, prober: &Prober) -> Option<u64> {
        let mut ready = 0;
        for queue in self.all() {
            // What waits for the active consumer does not wait for its standby. Who is active only the one knows who was
            // handed something: of the consumers of such a queue RabbitMQ counts the active one alone.
            if !queue.one_at_a_time || queue.handed.load(Ordering::Relaxed) > 0 {
                ready += u64::from(prober.depth(&queue.name).await.ok()?.ready);
            }
        }
        Some(ready)
    }
}

/// Gathers the signs for as long as the session lasts.
pub(crate) fn show(
    consumed: Consumed,
    prober: Prober,
    metrics: Metrics,
    readiness: Readiness,
    lost: CancellationToken,
) {
    tokio::spawn(async move {
        let pulse = readiness.pulse().clone();
        let mut before = 0;
        while !lost.is_cancelled() {
            let settled = metrics.acked.get();
            let held = u64::try_from(metrics.held.get()).unwrap_or(0);
            // Whoever holds something has work; the broker is asked only about who does nothing.
            let work = match held == 0 && settled == before {
                true => consumed.ready(&prober).await.map(|ready| Work { ready, held }),
                false => Some(Work { ready: 0, held }),
            };
            before = settled;
            let excused = !readiness.is_excuseless();
            pulse.show(Signs { beats: 0, settled, work, excused, allowed_ms: 0 });
            metrics.stalled_seconds.set(pulse.inner.still_ms.load(Ordering::Relaxed) as f64 / 1000.0);
            tokio::select! {
                () = lost.cancelled() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        // Without a session nobody knows what waits.
        let settled = metrics.acked.get();
        pulse.show(Signs { settled, excused: true, ..Signs::default() });
        metrics.stalled_seconds.set(0.0);
    });
}
