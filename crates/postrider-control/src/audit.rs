//! The store, read for the checker of `postrider_core::verify`.
//!
//! Reading takes no lock that control could wait for, and works while control is down: `postrider verify` judges a running
//! installation, a stopped one and a copy of its store alike.

use postrider_core::verify::Run;

use crate::store::{StoreError, audit};

/// Feeds a run with everything that the store at `sqlite:PATH` says.
///
/// Events, deliveries, series, attempts, dead letters, webhooks and counters, all of one moment. Rows are streamed; nothing of the store is changed.
///
/// # Errors
/// [`StoreError`]: there is no such store, another release wrote it, or it cannot be read.
pub async fn read(address: &str, run: &mut Run) -> Result<(), StoreError> {
    audit::read(address, run).await
}
