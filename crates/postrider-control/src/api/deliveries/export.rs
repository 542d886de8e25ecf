//! Deliveries as a file.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Api, Asked, Delivery, Params, Problem, ProblemBody, Scope, filter, page};
use crate::api::export::LastLine;

/// The filters of the list, and where to begin.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct Exported {
    /// Whose; `default` by default.
    tenant: Option<String>,
    /// `pending`, `held`, `delivered`, `dead`, `cancelled` or `skipped`.
    state: Option<String>,
    /// Of this webhook.
    webhook: Option<String>,
    /// Of this event.
    event: Option<String>,
    /// Of events of this type.
    event_type: Option<String>,
    /// Made at this time or later, RFC 3339.
    since: Option<String>,
    /// Made before this time, RFC 3339.
    until: Option<String>,
    /// Whose newest attempt ended like this, in one word: `none` (delivered), `timeout`, `http_5xx` and so on.
    class: Option<String>,
    /// Whose newest attempt was answered with this status (`429`), with one of this hundred (`5xx`), or not at all (`none`).
    status: Option<String>,
    /// With so many attempts of the latest series, or more.
    attempts_from: Option<i64>,
    /// `next` of an export that was cut, or of a page of the list with the same filters.
    cursor: Option<String>,
}

impl From<Exported> for Asked {
    fn from(asked: Exported) -> Self {
        let Exported { tenant, state, webhook, event, event_type, .. } = asked;
        let Exported { since, until, class, status, attempts_from, cursor, .. } = asked;
        let limit = None;
        Self {
            tenant,
            state,
            webhook,
            event,
            event_type,
            since,
            until,
            class,
            status,
            attempts_from,
            limit,
            cursor,
        }
    }
}

/// A line.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "it describes what is written")]
pub(in crate::api) enum DeliveryLine {
    Delivery(Box<Delivery>),
    End(LastLine),
}

/// Exports deliveries, newest first: one a line (NDJSON), as the list shows them.
///
/// The last line is `{"export": …}`: how many came before it, and whether that is all. An export has at most 100,000 lines and
/// takes at most 60 s; one that was cut says why and where to go on. A file without that line was broken off. Each delivery is as it
/// was when its line was read; what is made after the beginning is not in it. At most four exports are made at the same time.
#[utoipa::path(get, path = "/v1/deliveries/export", tag = "deliveries", operation_id = "export_deliveries", params(Exported),
    responses((status = 200, body = inline(DeliveryLine), content_type = "application/x-ndjson"),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn export(
    State(api): State<Arc<Api>>,
    scope: Scope,
    Params(asked): Params<Exported>,
) -> Result<Response, Problem> {
    let asked = Asked::from(asked);
    let filter = filter(&asked, &scope)?;
    let exports = api.exports.clone();
    let read = move |cursor: Option<String>, limit: u32| {
        let (api, filter) = (api.clone(), filter.clone());
        async move { page(&api, &filter, cursor.as_deref(), limit).await }
    };
    exports.file("deliveries", asked.cursor, read).await
}
