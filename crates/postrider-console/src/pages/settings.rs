//! Settings: keys, tenants, the audit log.

use axum::Router;

use crate::Console;

/// Its pages.
pub(crate) fn routes() -> Router<Console> {
    Router::new()
}
