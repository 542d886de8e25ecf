//! `/v1/events`: reporting events over HTTP, and looking them up.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, StatusCode};
use postrider_broker::{Outgoing, crash};
use postrider_core::event::OWN_ID_PREFIX;
use postrider_core::intake::{self, Envelope, Report};
use postrider_core::{EventId, TenantId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::answer::{Answer, shown};
use super::body::{Params, bad_json};
use super::cursor::{List, limit};
use super::deliveries::{Delivery, time, word};
use super::idempotency::Once;
use super::layers;
use super::problem::{Code, Problem, ProblemBody};
use super::scope::Scope;
use crate::store::{EventFilter, EventRow};

/// Events in one request.
const MAX_EVENTS: usize = 1000;
/// Publishes of one request under way at the same time.
const IN_FLIGHT: usize = 64;
/// How long the broker may take for all of them: less than a request may.
const PUBLISH: Duration = Duration::from_secs(8);

/// An event to report, or an action in place of one. Members that are not listed are ignored, as they are over AMQP.
#[derive(Deserialize, ToSchema)]
#[allow(dead_code, reason = "it describes what `intake::read` reads")]
pub(super) struct NewEvent {
    /// The name of its type, 1 to 128 characters; not together with `action`.
    event_type: Option<String>,
    /// The name of an action, of which triggers make events; needs an `id`.
    action: Option<String>,
    /// When it happened, RFC 3339; the time of arrival by default.
    event_time: Option<String>,
    /// Any JSON; reaches receivers byte for byte.
    #[schema(value_type = Option<Object>)]
    current_context: Option<serde_json::Value>,
    /// Any JSON; reaches receivers byte for byte.
    #[schema(value_type = Option<Object>)]
    data: Option<serde_json::Value>,
    /// What makes it the same event when it is sent twice, 1 to 128 printable ASCII characters; made here by default.
    /// Those that begin with `own_` are Postrider's own.
    id: Option<String>,
    /// The subject that it is about.
    key: Option<String>,
    /// Ties events of one action together.
    correlation_id: Option<String>,
    /// Whose; `default` by default.
    tenant: Option<String>,
}

/// One event or several.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, clippy::large_enum_variant, reason = "it describes what `publish` reads")]
pub(super) enum NewEvents {
    One(NewEvent),
    Several(Vec<NewEvent>),
}

/// What was accepted: RabbitMQ has all of it, on disk.
#[derive(Serialize, ToSchema)]
pub(super) struct Accepted {
    items: Vec<AcceptedEvent>,
    /// The configuration by which they are routed, or a newer one.
    revision: u64,
}

#[derive(Serialize, ToSchema)]
struct AcceptedEvent {
    /// The event's, or the action's.
    id: String,
    /// The books know an event of this id: this one changes nothing. Of an action they know only its events.
    duplicate: bool,
}

/// One event that was checked and goes to the broker.
struct Checked {
    tenant: TenantId,
    id: EventId,
    is_action: bool,
    message: Outgoing,
}

/// Reports one event or action, or several in an array; also as CloudEvents 1.0, by the content type
/// `application/cloudevents+json` or, for an array, `application/cloudevents-batch+json`.
///
/// 202 means that RabbitMQ has confirmed all of them. 503 names those that are confirmed in `confirmed`; sending all of
/// them again with the same ids is safe.
#[utoipa::path(post, path = "/v1/events", tag = "events", operation_id = "publish_events",
    request_body = NewEvents,
    responses((status = 202, body = Accepted), (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn publish(
    State(api): State<Arc<Api>>,
    scope: Scope,
    once: Once,
    headers: HeaderMap,
    given: Bytes,
) -> Result<Answer, Problem> {
    let raw = read_all(&given)?;
    // Read first: whatever these events need to be routed by has been committed by now.
    let revision = api.store.revision().await?;
    let content_type = layers::content_type(&headers).unwrap_or_else(|| "application/json".into());
    let traceparent = headers.get("traceparent").and_then(|value| value.to_str().ok());
    let several = is_array(&given);
    let content_type = match content_type.as_str() {
        intake::CLOUD_EVENT_BATCH if several => intake::CLOUD_EVENT.to_owned(),
        intake::CLOUD_EVENT_BATCH => {
            return Err(Problem::body("", "a batch of CloudEvents must be a JSON array"));
        }
        _ => content_type,
    };
    let mut events = Vec::with_capacity(raw.len());
    for (index, raw) in raw.iter().enumerate() {
        let made = match once.derive(index) {
            Some(digits) => format!("evt_{digits}"),
            None => format!("evt_{}", uuid::Uuid::now_v7().simple()),
        };
        let place = if several { format!("[{index}]") } else { String::new() };
        let checked = check(&scope, &content_type, traceparent, raw.get(), made, &place)?;
        let message = checked
            .message
            .header("postrider-revision", revision.to_string())
            .header("postrider-epoch", api.store.epoch().as_str());
        events.push(Checked { message, ..checked });
    }
    let tenants: HashSet<&TenantId> = events.iter().map(|event| &event.tenant).collect();
    for tenant in &tenants {
        if api.store.tenant(tenant.as_str()).await?.is_none() {
            let detail = format!("there is no tenant {:?}", tenant.as_str());
            return Err(
                Problem::new(Code::UnknownTenant, detail, "POST /v1/tenants makes one.").field("tenant")
            );
        }
    }
    let mut known = HashSet::new();
    for tenant in tenants {
        let ids: Vec<EventId> =
            events.iter().filter(|event| event.tenant == *tenant).map(|event| event.id.clone()).collect();
        known.extend(
            api.store.known_events(tenant, &ids).await?.into_iter().map(|id| (tenant.to_string(), id)),
        );
    }
    let items: Vec<AcceptedEvent> = events
        .iter()
        .map(|event| AcceptedEvent {
            id: event.id.to_string(),
            duplicate: !event.is_action && known.contains(&(event.tenant.to_string(), event.id.to_string())),
        })
        .collect();
    send_all(&api, events).await?;
    crash::point("api.events_confirmed");
    let answer = Answer::json(StatusCode::ACCEPTED, &Accepted { items, revision })?;
    once.keep_alone(&api, &answer).await?;
    Ok(answer)
}

fn is_array(body: &[u8]) -> bool {
    body.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[')
}

/// The events of a request, each as it was written.
fn read_all(body: &[u8]) -> Result<Vec<&RawValue>, Problem> {
    let raw: Vec<&RawValue> = if is_array(body) {
        serde_json::from_slice(body).map_err(|e| bad_json(&e))?
    } else {
        vec![serde_json::from_slice(body).map_err(|e| bad_json(&e))?]
    };
    if raw.is_empty() || raw.len() > MAX_EVENTS {
        return Err(Problem::body("", format!("the array must have 1 to {MAX_EVENTS} events")));
    }
    Ok(raw)
}

/// Checks one event as a router would, so that what is confirmed is routed.
fn check(
    scope: &Scope,
    content_type: &str,
    traceparent: Option<&str>,
    text: &str,
    made: String,
    place: &str,
) -> Result<Checked, Problem> {
    #[derive(Deserialize)]
    struct Tenant {
        tenant: Option<String>,
    }
    let at = |name: &str| match (place, name) {
        ("", name) => name.to_owned(),
        (place, "") => place.to_owned(),
        (place, name) => format!("{place}.{name}"),
    };
    // What is wrong with the rest is said by the intake.
    let given = serde_json::from_str::<Tenant>(text);
    let tenant = match &given {
        Ok(given) => scope.of_body(given.tenant.as_deref()).map_err(|problem| problem.field(at("tenant")))?,
        Err(_) => scope.tenant(),
    };
    let envelope = Envelope {
        routing_key: tenant.as_str(),
        content_type: Some(content_type),
        content_encoding: None,
        message_id: None,
        traceparent,
        place: None,
    };
    let report =
        intake::read(envelope, text.as_bytes(), postrider_broker::now(), EventId::from_trusted(made));
    let report = report.map_err(|refusal| {
        use postrider_core::intake::RefusalReason as Why;
        let member = match refusal.reason {
            Why::WrongShape | Why::BadEventType if says_action(text) => "action",
            Why::MissingEventType | Why::BadEventType => "event_type",
            Why::BadEventId => "id",
            Why::BadEventTime => "event_time",
            Why::ActionWithoutId => "id",
            _ => "",
        };
        let problem =
            Problem::new(Code::BadEvent, refusal.detail, "Correct the event and send the request again.")
                .with("reason", refusal.reason.as_str());
        match at(member) {
            field if field.is_empty() => problem,
            field => problem.field(field),
        }
    })?;
    if given.is_err() {
        return Err(Problem::body(at("tenant"), "the tenant must be a string, given once"));
    }
    let id = report.id().clone();
    if id.as_str().starts_with(OWN_ID_PREFIX) {
        let detail = format!("ids that begin with {OWN_ID_PREFIX} are Postrider's own");
        let hint = "Give the event another id, or none, and send the request again.";
        return Err(Problem::new(Code::BadEvent, detail, hint)
            .field(at("id"))
            .with("reason", "bad_event_id"));
    }
    let mut message = Outgoing::json("", tenant.as_str(), text.as_bytes().to_vec(), id.as_str());
    message.content_type = content_type.to_owned();
    if let Some(traceparent) = report.traceparent() {
        message = message.header("traceparent", traceparent.as_ref());
    }
    Ok(Checked { tenant, id, is_action: matches!(report, Report::Action(_)), message })
}

/// Whether it names an action.
fn says_action(text: &str) -> bool {
    #[derive(Deserialize)]
    struct Named {
        action: Option<serde::de::IgnoredAny>,
    }
    serde_json::from_str::<Named>(text).is_ok_and(|named| named.action.is_some())
}

/// Publishes all of them and waits for all confirms.
async fn send_all(api: &Api, events: Vec<Checked>) -> Result<(), Problem> {
    let exchange = api.broker.names().events();
    let all = events.len();
    let mut confirmed = Vec::with_capacity(all);
    let mut why = None;
    if api.broker.is_flowing() {
        let sending = async {
            let mut sending = stream::iter(events)
                .map(|event| {
                    let message = Outgoing { exchange: exchange.clone(), ..event.message };
                    async move { (event.id, api.broker.publish(message).await) }
                })
                .buffered(IN_FLIGHT);
            while let Some((id, published)) = sending.next().await {
                match published {
                    Ok(()) => confirmed.push(id.to_string()),
                    Err(error) => why = Some(error.to_string()),
                }
            }
        };
        if tokio::time::timeout(PUBLISH, sending).await.is_err() {
            why = Some(format!("RabbitMQ did not confirm all of them within {} s", PUBLISH.as_secs()));
        }
    } else {
        why = Some("RabbitMQ cannot be reached, or takes nothing at the moment".to_owned());
    }
    match why {
        None if confirmed.len() == all => Ok(()),
        why => Err(Problem::new(
            Code::BrokerUnavailable,
            why.unwrap_or_else(|| "not all of them were confirmed".into()),
            "Send the request again with the same ids; those that are confirmed are not accepted twice.",
        )
        .retry_after(2)
        .with("confirmed", confirmed)),
    }
}

/// An event.
#[derive(Serialize, ToSchema)]
pub(super) struct Event {
    id: String,
    tenant: String,
    event_type: String,
    /// As upstream wrote it.
    event_time: String,
    /// `routed`, `unmatched` or `invalid`.
    fate: String,
    /// How many series of deliveries are owed, redeliveries among them.
    owed: u32,
    /// Why it is invalid, in one word.
    reason: Option<String>,
    detail: Option<String>,
    /// What was noticed about it, which did not keep it from being routed: `unknown_type`, `schema`.
    marks: Vec<String>,
    accepted_at: String,
}

impl From<EventRow> for Event {
    fn from(row: EventRow) -> Self {
        let given = |text: String| (!text.is_empty()).then_some(text);
        Self {
            id: row.id,
            tenant: row.tenant,
            event_type: row.event_type,
            event_time: row.event_time,
            fate: row.fate,
            owed: row.owed,
            reason: given(row.reason),
            detail: given(row.detail),
            marks: row.marks,
            accepted_at: shown(row.accepted_at),
        }
    }
}

/// An event with its body and its deliveries.
#[derive(Serialize, ToSchema)]
pub(super) struct EventWithBody {
    #[serde(flatten)]
    event: Event,
    /// As upstream wrote it; missing when the body was removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    current_context: Option<postrider_core::Json>,
    /// As upstream wrote it; missing when the body was removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    data: Option<postrider_core::Json>,
    key: Option<String>,
    correlation_id: Option<String>,
    traceparent: Option<String>,
    /// The first 1000.
    deliveries: Vec<Delivery>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Asked {
    /// Whose; `default` by default.
    #[allow(dead_code, reason = "read by `Scope`")]
    tenant: Option<String>,
    /// Of this type.
    event_type: Option<String>,
    /// `routed`, `unmatched` or `invalid`.
    fate: Option<String>,
    /// Accepted at this time or later, RFC 3339.
    since: Option<String>,
    /// How many, from 1 to 200; 50 by default.
    limit: Option<i64>,
    /// `next` of the page before. A page may have fewer items than were asked for, or none, and a `next` all the same: of a list
    /// that is long, so much is looked through at a time.
    cursor: Option<String>,
}

/// Lists events, newest first.
#[utoipa::path(get, path = "/v1/events", tag = "events", operation_id = "list_events", params(Asked),
    responses((status = 200, body = inline(EventPage)), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    scope: Scope,
    Params(asked): Params<Asked>,
) -> Result<Answer, Problem> {
    let limit = limit(asked.limit)?;
    let filter = EventFilter {
        tenant: scope.tenant().to_string(),
        event_type: asked.event_type,
        fate: word("fate", asked.fate.as_deref(), &["routed", "unmatched", "invalid"])?,
        since: time("since", asked.since.as_deref())?,
    };
    let list = List::new(api.store.epoch(), "events", &filter);
    let after = list.after(asked.cursor.as_deref())?;
    let found = api.store.events(&filter, after, limit).await?;
    Answer::ok(&list.found(found, Event::from))
}

#[derive(ToSchema)]
#[allow(dead_code, reason = "it describes `Page<Event>`")]
pub(super) struct EventPage {
    items: Vec<Event>,
    next: Option<String>,
}

/// One event with its body, what became of it, and its deliveries.
#[utoipa::path(get, path = "/v1/events/{id}", tag = "events", operation_id = "get_event",
    params(("id" = String, Path, description = "The event"), ("tenant" = Option<String>, Query, description = "Whose; `default` by default")),
    responses((status = 200, body = EventWithBody), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    scope: Scope,
    Path(id): Path<String>,
) -> Result<Answer, Problem> {
    let Some(detail) = api.store.event(scope.tenant().as_str(), &id).await? else {
        return Err(Problem::not_found("event"));
    };
    let (context, data, key, correlation_id, traceparent) = match detail.body {
        Some(body) => (Some(body.context), Some(body.data), body.key, body.correlation_id, body.traceparent),
        None => Default::default(),
    };
    Answer::ok(&EventWithBody {
        event: detail.row.into(),
        current_context: context,
        data,
        key: key.map(|text| text.to_string()),
        correlation_id: correlation_id.map(|text| text.to_string()),
        traceparent: traceparent.map(|text| text.to_string()),
        deliveries: detail.deliveries.into_iter().map(Delivery::from).collect(),
    })
}
