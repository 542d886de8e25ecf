//! Sending reminders when they are due.
//!
//! Whether one is due is decided where it is marked as sent and its event is put into the outbox: in one transaction. So
//! it does not matter how often, how late or after what this looks.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use postrider_broker::crash;
use postrider_core::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::store::{OutboxLane, Store, StoreError};

/// Reminders sent in one transaction.
const CHUNK: u32 = 200;
/// Events in the outbox above which no more are sent: what is due waits in the store, where it costs nothing.
const MOST_UNSENT: u64 = 2000;
/// How often to look even if nothing is said to be due: the clock may have been set.
const LOOK: Duration = Duration::from_secs(60);
/// Pause while the outbox is full, and after an error.
const PAUSE: Duration = Duration::from_millis(500);

/// What time it is: tests have clocks of their own.
pub(crate) type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Sends reminders that are due.
pub(crate) struct Reminders {
    pub store: Arc<Store>,
    pub metrics: Metrics,
    pub clock: Clock,
    /// The group whose turn it was when the outbox was full: the next look begins with it.
    pub turn: AtomicI64,
}

/// What a look at all reminders found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Look {
    /// How many were sent.
    pub sent: u64,
    /// More are due now.
    pub more: bool,
    /// The outbox is full.
    pub full: bool,
    /// When the next one is due.
    pub next: Option<Timestamp>,
}

impl Reminders {
    /// Sends what is due until `stop`.
    pub(crate) async fn run(&self, stop: &CancellationToken) {
        let wake = self.store.wake();
        while !stop.is_cancelled() {
            let wait = match self.look(stop).await {
                Ok(look) if look.full => PAUSE,
                Ok(look) if look.more => continue,
                Ok(look) => match look.next {
                    Some(next) => Duration::from_millis(next.since_ms((self.clock)())).min(LOOK),
                    None => LOOK,
                },
                Err(error) => {
                    tracing::warn!(%error, "reminders cannot be sent; trying again");
                    PAUSE
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = wake.reminders.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Looks at every group once, and sends some of what is due of each: no tenant waits for all of another's.
    pub(crate) async fn look(&self, stop: &CancellationToken) -> Result<Look, StoreError> {
        let mut groups = self.store.reminder_groups().await?;
        let turn = self.turn.swap(0, Ordering::Relaxed);
        let first = groups.iter().position(|group| group.id == turn).unwrap_or(0);
        groups.rotate_left(first);
        self.metrics.reminders_pending(groups.iter().map(|group| group.pending).sum());
        let mut look = Look::default();
        for group in &groups {
            if stop.is_cancelled() {
                break;
            }
            let now = (self.clock)();
            let mut next = group.next_due();
            if next.is_some_and(|due| due <= now) {
                if self.store.count_unsent_in(OutboxLane::Events).await? >= MOST_UNSENT {
                    look.full = true;
                    self.turn.store(group.id, Ordering::Relaxed);
                    break;
                }
                let mut change = self.store.change().await?;
                let sent = change.send_reminders(group, CHUNK, now).await?;
                crash::point("reminders.written");
                change.commit().await?;
                crash::point("reminders.committed");
                self.metrics.reminders_sent(sent.count);
                look.sent += sent.count;
                look.more |= sent.next.is_some_and(|due| due <= now);
                next = sent.next;
            }
            look.next = [look.next, next].into_iter().flatten().min();
        }
        if look.sent > 0 {
            tracing::info!(sent = look.sent, more = look.more, "reminders were due");
        }
        Ok(look)
    }
}

#[cfg(test)]
mod tests;
