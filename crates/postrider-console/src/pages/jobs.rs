//! Jobs: replays and cancellations.

use axum::Router;

use crate::Console;

/// Its pages.
pub(crate) fn routes() -> Router<Console> {
    Router::new()
}
