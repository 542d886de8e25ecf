//! Trying a webhook: one signed request with a sample, to it alone.

use std::sync::Arc;

use axum::extract::{Path, State};
use bytes::Bytes;
use http::StatusCode;
use postrider_core::event::{self, Json, OWN_ID_PREFIX};
use postrider_core::intake::MAX_MESSAGE_BYTES;
use postrider_core::{DeliveryId, EventId, EventType};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::explain::{directory_of, subscription_of};
use super::{find, look_up};
use crate::api::answer::Answer;
use crate::api::audit::{Changes, Subject};
use crate::api::idempotency::Once;
use crate::api::problem::{Code, Problem, ProblemBody};
use crate::api::scope::Scope;
use crate::api::{Api, body, event_types};
use crate::store::{Audience, NewEvent, OutboxLane, TypeRow};

/// What a webhook that takes everything is tried with where there is no catalogue.
const ANY_TYPE: &str = "postrider.test";
/// Events that wait for the broker above which nothing is tried: nobody would hear of it soon.
pub(in crate::api) const MOST_WAITING: u64 = 5000;
/// After how many seconds to try again then.
const RETRY_AFTER_SECS: u64 = 10;

/// What to try a webhook with.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct NewTrial {
    /// By name or alias; by default the first that the webhook takes.
    event_type: Option<String>,
    /// By default that of the type's example.
    #[schema(value_type = Option<Object>)]
    current_context: Option<Box<RawValue>>,
    /// By default that of the type's example.
    #[schema(value_type = Option<Object>)]
    data: Option<Box<RawValue>>,
}

/// A request that is on its way.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct Trial {
    event_id: String,
    /// GET /v1/deliveries/{id} shows what became of it.
    delivery_id: String,
    event_type: String,
}

/// Sends one signed request with a sample event to a webhook, whatever its state and subscription.
///
/// There is one attempt and no other; the request has the header `webhook-test: true`.
#[utoipa::path(post, path = "/v1/webhooks/{id}/test", tag = "webhooks", operation_id = "test_webhook",
    params(("id" = String, Path, description = "The webhook"), ("tenant" = Option<String>, Query, description = "Whose; `default` by default")),
    request_body = Option<NewTrial>,
    responses((status = 202, body = Trial), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn test(
    State(api): State<Arc<Api>>,
    scope: Scope,
    once: Once,
    Path(id): Path<String>,
    given: Bytes,
) -> Result<Answer, Problem> {
    let asked = if given.is_empty() { NewTrial::default() } else { body::read::<NewTrial>(&given)? };
    let tenant = scope.tenant();
    let row = look_up(&api, &scope, &id).await?;
    let name = match asked.event_type {
        Some(name) => name,
        None => {
            let directory = directory_of(&api.store, &tenant, &row).await?;
            let subscription = subscription_of(&row.record);
            match directory.types_taken(&subscription, &tenant).first() {
                Some(first) => first.to_string(),
                None if subscription.all => ANY_TYPE.to_owned(),
                None => {
                    let detail = "the subscription of the webhook means no event type today";
                    let hint = "Name an event_type in the body, or change the subscription.";
                    return Err(Problem::new(Code::NothingToSend, detail, hint));
                }
            }
        }
    };
    let event_type = EventType::parse(&name).map_err(|e| Problem::body("event_type", e.to_string()))?;
    let known = event_types::find(&api.store, tenant.as_str(), &name).await?;
    let (context, data) = sample(known.as_ref());
    let now = postrider_broker::now();
    let event = NewEvent {
        event_type: known.map_or(event_type, |known| known.entry.name),
        event_time: now.to_rfc3339(),
        current_context: asked.current_context.map_or(context, Arc::from),
        data: asked.data.map_or(data, Arc::from),
        id: EventId::from_trusted(format!("{OWN_ID_PREFIX}test_{}", uuid::Uuid::now_v7().simple())),
        key: None,
        correlation_id: None,
    };
    let bytes = serde_json::to_vec(&event).map_or(usize::MAX, |text| text.len());
    if bytes > MAX_MESSAGE_BYTES {
        let detail = format!(
            "data and current_context make an event of {bytes} bytes; at most {MAX_MESSAGE_BYTES} are taken"
        );
        return Err(Problem::body("data", detail));
    }
    if api.store.count_unsent_in(OutboxLane::Events).await? >= MOST_WAITING {
        let detail = format!("{MOST_WAITING} events of Postrider's own wait for RabbitMQ");
        let problem = Problem::new(Code::BrokerUnavailable, detail, "Send the same request again later.");
        return Err(problem.retry_after(RETRY_AFTER_SECS));
    }
    let mut change = api.store.change().await?;
    // It may be gone by now.
    let row = find(&mut change, &scope, &id).await?;
    change.publish_event(&tenant, &event, Audience::Only(&row.record.id), now).await?;
    let trial = Trial {
        delivery_id: DeliveryId::of(&tenant, &event.id, &row.record.id).to_string(),
        event_id: event.id.to_string(),
        event_type: event.event_type.to_string(),
    };
    let changes = Changes::none().with("event_id", &trial.event_id).with("event_type", &trial.event_type);
    change.note(&scope.entry(Some(&tenant), Subject::Webhook, &id, changes), now).await?;
    let answer = Answer::json(StatusCode::ACCEPTED, &trial)?;
    once.keep(&api, &mut change, &answer).await?;
    change.commit().await?;
    Ok(answer)
}

/// Context and data of a type's example.
fn sample(row: Option<&TypeRow>) -> (Json, Json) {
    #[derive(Deserialize)]
    struct Example {
        current_context: Option<Box<RawValue>>,
        data: Option<Box<RawValue>>,
    }
    let example = row.and_then(|row| row.entry.example.as_deref());
    match example.and_then(|text| serde_json::from_str::<Example>(text).ok()) {
        Some(example) => {
            let json = |given: Option<Box<RawValue>>| given.map_or_else(event::null, Arc::from);
            (json(example.current_context), json(example.data))
        }
        None => (event::null(), event::null()),
    }
}
