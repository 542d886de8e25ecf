//! Background work on the store: sending on what was held, ending what is held and was called off, and removing what is old.

use std::sync::Arc;
use std::time::Duration;

use postrider_broker::crash;
use tokio_util::sync::CancellationToken;

use crate::store::{OutboxLane, Store, StoreError};

/// Series released between two pauses.
const CHUNK: u32 = 200;
/// What a webhook has of them at least.
const SMALLEST_SHARE: u32 = 10;
/// That pause: a thousand a second in all, however many webhooks are resumed.
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

/// Each webhook in turn, so that one for which much is held does not keep the others waiting.
async fn release_all(store: &Arc<Store>, stop: &CancellationToken) -> Result<(), StoreError> {
    loop {
        let now = postrider_broker::now;
        let mut more = store.end_called_off(CHUNK, now()).await? >= u64::from(CHUNK);
        let webhooks = store.webhooks_to_release().await?;
        let each = share_of(webhooks.len());
        let mut left = CHUNK;
        for (webhook, deleted) in webhooks {
            while store.count_unsent_in(OutboxLane::Deliveries).await? > MOST_UNSENT {
                if pause(stop).await {
                    return Ok(());
                }
            }
            let mut change = store.change().await?;
            let done = if deleted {
                change.end_held_of_deleted(&webhook, each, now()).await?
            } else {
                change.release(&webhook, each, now()).await?
            };
            if done > 0 && !deleted {
                crash::point("release.written");
            }
            change.commit().await?;
            if done > 0 {
                crash::point("release.committed");
                tracing::info!(webhook.id = webhook, done, deleted, "sent on, or ended, what was held");
            }
            more |= done >= u64::from(each);
            left = left.saturating_sub(u32::try_from(done).unwrap_or(CHUNK));
            if left == 0 {
                left = CHUNK;
                if pause(stop).await {
                    return Ok(());
                }
            }
        }
        if !more || pause(stop).await {
            return Ok(());
        }
    }
}

/// How much of a chunk each of so many webhooks has.
fn share_of(webhooks: usize) -> u32 {
    let webhooks = u32::try_from(webhooks).unwrap_or(u32::MAX).max(1);
    (CHUNK / webhooks).max(SMALLEST_SHARE)
}

/// Waits; `true` when it is time to stop.
async fn pause(stop: &CancellationToken) -> bool {
    tokio::select! {
        () = stop.cancelled() => true,
        () = tokio::time::sleep(PAUSE) => false,
    }
}

/// Removes what is old, and looks again at webhooks that fail, until `stop`.
pub(crate) async fn upkeep(store: &Arc<Store>, stop: &CancellationToken) {
    while !stop.is_cancelled() {
        let now = postrider_broker::now();
        if let Err(error) = store.judge_again(now).await {
            tracing::warn!(%error, "webhooks that fail cannot be judged; trying again");
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_shared_out_and_nobody_is_left_out() {
        assert_eq!([0, 1, 2, 20, 1000].map(share_of), [CHUNK, CHUNK, CHUNK / 2, 10, 10]);
        let a_second = CHUNK * 1000 / u32::try_from(PAUSE.as_millis()).unwrap();
        assert_eq!(a_second, 1000, "as the API says");
    }
}
