//! Background work on the store: sending on what was held, and removing what is old.

use std::sync::Arc;
use std::time::Duration;

use postrider_broker::crash;
use tokio_util::sync::CancellationToken;

use crate::store::{OutboxLane, Store, StoreError};

/// Series released in one transaction.
const CHUNK: u32 = 200;
/// Pause between two of them: a thousand a second in all.
const PAUSE: Duration = Duration::from_millis(200);
/// Rows in its lane of the outbox above which no more is released.
const MOST_UNSENT: u64 = 1000;
/// How often to look for held series even if nobody said that there are some.
const LOOK: Duration = Duration::from_secs(30);
/// How often old rows are removed.
const UPKEEP: Duration = Duration::from_secs(60);

/// Sends on what is held for webhooks that are not paused any more, oldest first, until `stop`.
///
/// Resuming a webhook and holding a series may cross: a series that a worker held with the older configuration is
/// recorded after the resume. So this looks at what is, not at what was asked.
pub(crate) async fn release(store: &Arc<Store>, stop: &CancellationToken) {
    let wake = store.wake();
    while !stop.is_cancelled() {
        if let Err(error) = release_all(store, stop).await {
            tracing::warn!(%error, "held deliveries cannot be sent on; trying again");
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = wake.release.notified() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
        // While much is held, much wakes us.
        pause(stop).await;
    }
}

async fn release_all(store: &Arc<Store>, stop: &CancellationToken) -> Result<(), StoreError> {
    for webhook in store.webhooks_to_release().await? {
        loop {
            while store.count_unsent_in(OutboxLane::Deliveries).await? > MOST_UNSENT {
                if pause(stop).await {
                    return Ok(());
                }
            }
            let mut change = store.change().await?;
            let released = change.release(&webhook, CHUNK, postrider_broker::now()).await?;
            if released > 0 {
                crash::point("release.written");
            }
            change.commit().await?;
            if released > 0 {
                crash::point("release.committed");
                tracing::info!(webhook.id = webhook, released, "sent on what was held");
            }
            if released < u64::from(CHUNK) {
                break;
            }
            if pause(stop).await {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Waits; `true` when it is time to stop.
async fn pause(stop: &CancellationToken) -> bool {
    tokio::select! {
        () = stop.cancelled() => true,
        () = tokio::time::sleep(PAUSE) => false,
    }
}

/// Removes what is old, until `stop`.
pub(crate) async fn upkeep(store: &Arc<Store>, stop: &CancellationToken) {
    while !stop.is_cancelled() {
        let now = postrider_broker::now();
        let pruned = async { Ok::<_, StoreError>(store.prune(now).await? | store.prune_replays(now).await?) };
        let wait = match pruned.await {
            Ok(true) => PAUSE,
            Ok(false) => UPKEEP,
            Err(error) => {
                tracing::warn!(%error, "old rows cannot be removed; trying again");
                UPKEEP
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}
