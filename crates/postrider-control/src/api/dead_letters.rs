//! `/v1/dead-letters`: deliveries given up, and messages that cannot be processed.

use std::sync::Arc;

use axum::extract::{Path, State};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::answer::{Answer, shown};
use super::audit::{Changes, Subject};
use super::body::{self, Params};
use super::cursor::{List, limit};
use super::deliveries::{Redelivery, again, word};
use super::idempotency::Once;
use super::problem::{Code, Problem, ProblemBody};
use super::scope::Scope;
use crate::store::{DeadLetterFilter, DeadLetterRow};

/// A dead letter.
#[derive(Serialize, ToSchema)]
pub(super) struct DeadLetter {
    id: String,
    /// `dead`: a delivery that was given up. `invalid`: a message that is no event. `poison`: a message that crashed its
    /// readers, or that they cannot read.
    kind: String,
    tenant: String,
    /// Why, in one word.
    reason: String,
    /// What exactly.
    detail: String,
    /// What became of the last attempt, in one word.
    #[serde(skip_serializing_if = "String::is_empty")]
    class: String,
    /// The delivery, if it is one.
    delivery: Option<String>,
    series: Option<u32>,
    webhook: Option<String>,
    event: Option<String>,
    event_type: Option<String>,
    at: String,
    resolved: bool,
    resolved_at: Option<String>,
    /// `delivered` when a later series was, otherwise what the one who resolved it said.
    resolution: String,
}

/// A dead letter with the message itself.
#[derive(Serialize, ToSchema)]
pub(super) struct DeadLetterWithBody {
    #[serde(flatten)]
    letter: DeadLetter,
    content_type: Option<String>,
    /// The bytes of a message that is no delivery.
    body_base64: Option<String>,
    /// The same as text, where it is UTF-8.
    body_text: Option<String>,
}

impl From<DeadLetterRow> for DeadLetter {
    fn from(row: DeadLetterRow) -> Self {
        let given = |text: String| (!text.is_empty()).then_some(text);
        Self {
            id: row.id,
            kind: row.kind,
            tenant: row.tenant,
            reason: row.reason,
            detail: row.detail,
            class: row.class,
            series: (!row.delivery.is_empty()).then_some(row.series),
            delivery: given(row.delivery),
            webhook: given(row.webhook),
            event: given(row.event_id),
            event_type: given(row.event_type),
            at: shown(row.at),
            resolved: row.resolved_at.is_some(),
            resolved_at: row.resolved_at.map(shown),
            resolution: row.resolution,
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Asked {
    /// Whose; `default` by default. Messages that belong to no tenant are shown to the default tenant.
    #[allow(dead_code, reason = "read by `Scope`")]
    tenant: Option<String>,
    /// `dead`, `invalid` or `poison`.
    kind: Option<String>,
    /// With this reason.
    reason: Option<String>,
    /// Only resolved ones, or only those that are not.
    resolved: Option<bool>,
    /// How many, from 1 to 200; 50 by default.
    limit: Option<i64>,
    /// `next` of the page before. A page may have fewer items than were asked for, or none, and a `next` all the same: of a list
    /// that is long, so much is looked through at a time.
    cursor: Option<String>,
}

/// Lists dead letters, newest first.
#[utoipa::path(get, path = "/v1/dead-letters", tag = "dead letters", operation_id = "list_dead_letters", params(Asked),
    responses((status = 200, body = inline(DeadLetterPage)), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    scope: Scope,
    Params(asked): Params<Asked>,
) -> Result<Answer, Problem> {
    let limit = limit(asked.limit)?;
    let filter = DeadLetterFilter {
        tenant: scope.tenant().to_string(),
        kind: word("kind", asked.kind.as_deref(), &["dead", "invalid", "poison"])?,
        reason: asked.reason,
        resolved: asked.resolved,
    };
    let list = List::new(api.store.epoch(), "dead letters", &filter);
    let after = list.after(asked.cursor.as_deref())?;
    let found = api.store.dead_letters(&filter, after, limit).await?;
    Answer::ok(&list.found(found, DeadLetter::from))
}

#[derive(ToSchema)]
#[allow(dead_code, reason = "it describes `Page<DeadLetter>`")]
pub(super) struct DeadLetterPage {
    items: Vec<DeadLetter>,
    next: Option<String>,
}

/// One dead letter with its body.
#[utoipa::path(get, path = "/v1/dead-letters/{id}", tag = "dead letters", operation_id = "get_dead_letter",
    params(("id" = String, Path, description = "The dead letter"), ("tenant" = Option<String>, Query, description = "Whose; `default` by default")),
    responses((status = 200, body = DeadLetterWithBody), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    scope: Scope,
    Path(id): Path<String>,
) -> Result<Answer, Problem> {
    let Some(mut row) = api.store.dead_letter(scope.tenant().as_str(), &id).await? else {
        return Err(Problem::not_found("dead letter"));
    };
    let body = row.body.take();
    Answer::ok(&DeadLetterWithBody {
        content_type: (!row.content_type.is_empty()).then(|| row.content_type.clone()),
        letter: row.into(),
        body_base64: body.as_ref().map(|body| STANDARD.encode(body)),
        body_text: body.and_then(|body| String::from_utf8(body).ok()),
    })
}

/// Why a dead letter needs no more care.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Resolution {
    /// In words, at most 256 characters; `resolved` by default.
    reason: Option<String>,
}

/// Says that a dead letter needs no more care.
#[utoipa::path(post, path = "/v1/dead-letters/{id}/resolve", tag = "dead letters", operation_id = "resolve_dead_letter",
    params(("id" = String, Path, description = "The dead letter"), ("tenant" = Option<String>, Query, description = "Whose; `default` by default")),
    request_body = Option<Resolution>,
    responses((status = 200, body = DeadLetter), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn resolve(
    State(api): State<Arc<Api>>,
    scope: Scope,
    once: Once,
    Path(id): Path<String>,
    given: Bytes,
) -> Result<Answer, Problem> {
    let given: Resolution = if given.is_empty() { Resolution::default() } else { body::read(&given)? };
    let reason = given.reason.unwrap_or_else(|| "resolved".into());
    if reason.trim().is_empty() || reason.chars().count() > 256 || reason.chars().any(char::is_control) {
        return Err(Problem::body(
            "reason",
            "reason must have 1 to 256 characters and no control characters",
        ));
    }
    let (tenant, now) = (scope.tenant(), postrider_broker::now());
    let mut change = api.store.change().await?;
    let before = change.dead_letter(tenant.as_str(), &id).await?;
    let resolved = change.resolve_dead_letter(tenant.as_str(), &id, &reason, now).await?;
    let Some(row) = resolved else { return Err(Problem::not_found("dead letter")) };
    if before.is_some_and(|before| before.resolved_at.is_none()) {
        let changes = Changes::none().with("resolution", &reason);
        change.note(&scope.entry(Some(&tenant), Subject::DeadLetter, &id, changes), now).await?;
    }
    let answer = Answer::ok(&DeadLetter::from(row))?;
    once.keep(&api, &mut change, &answer).await?;
    change.commit().await?;
    Ok(answer)
}

/// Makes the delivery of a dead letter again.
#[utoipa::path(post, path = "/v1/dead-letters/{id}/redeliver", tag = "dead letters", operation_id = "redeliver_dead_letter",
    params(("id" = String, Path, description = "The dead letter"), ("tenant" = Option<String>, Query, description = "Whose; `default` by default")),
    responses((status = 202, body = Redelivery), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn redeliver(
    State(api): State<Arc<Api>>,
    scope: Scope,
    once: Once,
    Path(id): Path<String>,
) -> Result<Answer, Problem> {
    let tenant = scope.tenant();
    let mut change = api.store.change().await?;
    let Some(row) = change.dead_letter(tenant.as_str(), &id).await? else {
        return Err(Problem::not_found("dead letter"));
    };
    if row.delivery.is_empty() {
        return Err(Problem::new(
            Code::NoDelivery,
            "the dead letter is a message that was never a delivery",
            "Correct the message, publish it again, and resolve this one.",
        ));
    }
    let (answer, series) = again(&mut change, tenant.as_str(), &row.delivery).await?;
    let changes = Changes::none().with("delivery", &row.delivery).with("series", series);
    let entry = scope.entry(Some(&tenant), Subject::DeadLetter, &id, changes);
    change.note(&entry, postrider_broker::now()).await?;
    once.keep(&api, &mut change, &answer).await?;
    change.commit().await?;
    Ok(answer)
}
