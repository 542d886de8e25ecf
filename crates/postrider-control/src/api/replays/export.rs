//! What a replay sent, as a file.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Api, List, Params, Problem, ProblemBody, Scope, shown};
use crate::api::answer::Page;
use crate::api::cursor::not_of_this_list;
use crate::api::export::LastLine;
use crate::store::{SentPlace, SentRow};

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct Exported {
    /// Whose; `default` by default.
    #[allow(dead_code, reason = "read by `Scope`")]
    tenant: Option<String>,
    /// `next` of an export of this replay that was cut.
    cursor: Option<String>,
}

/// A delivery that a replay made again.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct Sent {
    delivery: String,
    webhook: String,
    event: String,
    event_type: String,
    /// The series that the replay began; the delivery may have had others since.
    series: u32,
    /// How this series ended: `delivered`, `dead`, `cancelled` or `skipped`; `pending` where it has not.
    state: String,
    /// Pending, and waiting for its webhook to be resumed.
    held: bool,
    /// Why it ended, in one word; empty when it was delivered or has not ended.
    reason: String,
    attempts: u32,
    /// When the next attempt is due, if that is known.
    next_at: Option<String>,
    sent_at: String,
    ended_at: Option<String>,
}

impl From<SentRow> for Sent {
    fn from(row: SentRow) -> Self {
        Self {
            delivery: row.id,
            webhook: row.webhook,
            event: row.event_id,
            event_type: row.event_type,
            series: row.series,
            state: row.state,
            held: row.held,
            reason: row.reason,
            attempts: row.attempts,
            next_at: row.next_at.map(shown),
            sent_at: shown(row.born_at),
            ended_at: row.ended_at.map(shown),
        }
    }
}

/// A line.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "it describes what is written")]
pub(in crate::api) enum SentLine {
    Sent(Box<Sent>),
    End(LastLine),
}

/// Exports what a replay sent and how each of it ended, one delivery a line (NDJSON): what has not ended first, then the rest by
/// how it ended.
///
/// The last line and the bounds are those of `GET /v1/deliveries/export`. While the replay goes on, what ends during the export may
/// have two lines, the second of which is how it ended; what was sent after the beginning may be missing.
#[utoipa::path(get, path = "/v1/replays/{id}/export", tag = "replays", operation_id = "export_replay",
    params(("id" = String, Path, description = "The replay"), Exported),
    responses((status = 200, body = inline(SentLine), content_type = "application/x-ndjson"),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn export(
    State(api): State<Arc<Api>>,
    scope: Scope,
    Path(id): Path<String>,
    Params(asked): Params<Exported>,
) -> Result<Response, Problem> {
    let Some(row) = api.store.replay(scope.tenant().as_str(), &id).await? else {
        return Err(Problem::not_found("replay"));
    };
    let exports = api.exports.clone();
    let read = move |cursor: Option<String>, limit: u32| {
        let api = api.clone();
        async move { page(&api, row.seq, cursor.as_deref(), limit).await }
    };
    exports.file("replay", asked.cursor, read).await
}

async fn page(api: &Api, replay: i64, cursor: Option<&str>, limit: u32) -> Result<Page<Sent>, Problem> {
    let list = List::new(api.store.epoch(), "sent by a replay", &replay);
    let place = |cursor| SentPlace::parse(&list.place(cursor)?).ok_or_else(not_of_this_list);
    let after = cursor.map(place).transpose()?;
    let (rows, next) = api.store.replay_sent(replay, after, limit).await?;
    let next = next.map(|place| list.cursor(&place.to_string()));
    Ok(Page { items: rows.into_iter().map(Sent::from).collect(), next })
}
