//! Adding up what happened over time, in the background: plots read these figures, and never the tables.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::store::Store;

/// How often it is looked for what is new.
const TICK: Duration = Duration::from_secs(5);
/// The pause between two turns while there is more: whoever else writes comes first.
const PAUSE: Duration = Duration::from_millis(20);

/// Adds up what is new, until `stop`.
pub(crate) async fn roll_up(store: &Arc<Store>, stop: &CancellationToken) {
    while !stop.is_cancelled() {
        let wait = match store.roll_up(postrider_broker::now()).await {
            Ok(true) => PAUSE,
            Ok(false) => TICK,
            Err(error) => {
                tracing::warn!(%error, "what happened cannot be added up for plots; trying again");
                TICK
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}
