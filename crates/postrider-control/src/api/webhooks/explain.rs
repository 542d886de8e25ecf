//! Why an event would or would not go to a webhook, by the rules that the router has.

use std::sync::Arc;

use axum::extract::{Path, State};
use postrider_core::directory::Directory;
use postrider_core::intake::{self, Envelope, Report};
use postrider_core::subscription::Subscription;
use postrider_core::wire::WebhookRecord;
use postrider_core::{Event, EventId, TenantId};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::look_up;
use crate::api::Api;
use crate::api::answer::Answer;
use crate::api::body::Body;
use crate::api::problem::{Code, Problem, ProblemBody};
use crate::api::scope::Scope;
use crate::store::{Store, StoreError, WebhookRow};

/// Which event to explain: one of the two.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct Question {
    /// An event, in the shape in which it would be reported.
    #[schema(value_type = Option<Object>)]
    event: Option<Box<RawValue>>,
    /// The id of an event that the books know.
    event_id: Option<String>,
}

/// What a webhook asks for.
pub(super) fn subscription_of(record: &WebhookRecord) -> Subscription {
    Subscription {
        all: record.all,
        event_types: record.event_types.clone(),
        groups: record.groups.clone(),
        categories: record.categories.clone(),
        filter: record.filter.clone(),
    }
}

/// The configuration of a tenant as the router knows it, with one webhook.
pub(super) async fn directory_of(
    store: &Store,
    tenant: &TenantId,
    row: &WebhookRow,
) -> Result<Directory, StoreError> {
    let mut directory = Directory::new();
    for record in store.excerpt(tenant, row).await? {
        directory.apply(&record);
    }
    match directory.unreadable() {
        None => Ok(directory),
        Some(why) => Err(StoreError::Damaged(why.to_owned())),
    }
}

/// Answers why an event would or would not go to a webhook.
///
/// `match` says whether it would, `because` why; `taken_by` is what in the subscription takes its type, `filter` what the
/// filter says of it. Nothing is sent.
#[utoipa::path(post, path = "/v1/webhooks/{id}/explain", tag = "webhooks", operation_id = "explain_webhook",
    params(("id" = String, Path, description = "The webhook"), ("tenant" = Option<String>, Query, description = "Whose; `default` by default")),
    request_body = Question,
    responses((status = 200, body = Object), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn explain(
    State(api): State<Arc<Api>>,
    scope: Scope,
    Path(id): Path<String>,
    Body(asked): Body<Question>,
) -> Result<Answer, Problem> {
    let tenant = scope.tenant();
    let row = look_up(&api, &scope, &id).await?;
    let event = match (asked.event, asked.event_id) {
        (Some(event), None) => read(&tenant, event.get())?,
        (None, Some(event_id)) => known(&api, &tenant, &event_id).await?,
        _ => return Err(Problem::body("event", "give an event, or the event_id of one that the books know")),
    };
    let directory = directory_of(&api.store, &tenant, &row).await?;
    Answer::ok(&directory.explain(&row.record.id, &event))
}

/// An event as it was written, read as the router would.
fn read(tenant: &TenantId, text: &str) -> Result<Event, Problem> {
    let envelope = Envelope {
        routing_key: tenant.as_str(),
        content_type: Some("application/json"),
        ..Envelope::default()
    };
    let made = EventId::from_trusted("evt_explained");
    match intake::read(envelope, text.as_bytes(), postrider_broker::now(), made) {
        Ok(Report::Event(event)) => Ok(event),
        Ok(Report::Action(_)) => Err(Problem::body(
            "event.action",
            "this is an action; give one of the events that its triggers make (`postrider trigger test` shows them)",
        )),
        Err(refusal) => {
            let hint = "Correct the event and send the request again.";
            let problem = Problem::new(Code::BadEvent, refusal.detail, hint).field("event");
            Err(problem.with("reason", refusal.reason.as_str()))
        }
    }
}

/// An event that the books know.
async fn known(api: &Api, tenant: &TenantId, id: &str) -> Result<Event, Problem> {
    let Some(detail) = api.store.event(tenant.as_str(), id).await? else {
        return Err(Problem::not_found("event"));
    };
    match detail.body {
        Some(body) => Ok(body.into()),
        None => Err(Problem::new(
            Code::BodyGone,
            "the books do not have the body of this event: it was none, or it was removed",
            "Give the event itself in `event`.",
        )),
    }
}
