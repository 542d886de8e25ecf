//! The pages: one module for each group of them.

mod catalogue;
mod dead_letters;
mod deliveries;
mod delivery;
mod events;
mod inbox;
mod jobs;
mod listing;
mod overview;
mod queues;
mod reference;
mod reminders;
mod send;
mod settings;
#[cfg(test)]
mod trouble;
mod webhook;
mod webhook_form;
mod webhooks;

pub use reference::ASYNCAPI;
pub use settings::AUDITED;

use axum::Router;
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, Uri};

use crate::Console;
use crate::api::Refused;
use crate::page::{Part, Visit};

/// Every page.
pub(crate) fn routes() -> Router<Console> {
    Router::new()
        .merge(overview::routes())
        .merge(deliveries::routes())
        .merge(delivery::routes())
        .merge(events::routes())
        .merge(send::routes())
        .merge(inbox::routes())
        .merge(webhooks::routes())
        .merge(webhook_form::routes())
        .merge(webhook::routes())
        .merge(catalogue::routes())
        .merge(queues::routes())
        .merge(dead_letters::routes())
        .merge(jobs::routes())
        .merge(reminders::routes())
        .merge(settings::routes())
        .merge(reference::routes())
}

/// What answers a path that no page has.
pub(crate) async fn nothing_here(visit: Option<Visit>, uri: Uri) -> Response {
    let Some(visit) = visit else {
        return (StatusCode::NOT_FOUND, "There is no such page.").into_response();
    };
    let refused = Refused {
        status: 404,
        code: "not_found".into(),
        detail: format!("There is no page at {}", crate::words::shortened(uri.path(), 120)),
        hint: "The bar at the top leads to everything.".into(),
        field: None,
        more: serde_json::Map::new(),
    };
    visit.or_refused(Part::Overview, Err(refused.into()))
}
