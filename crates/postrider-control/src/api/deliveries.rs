//! `/v1/deliveries`: one event for one webhook, what was tried, and trying again.

pub(super) mod export;

use std::sync::Arc;

use axum::extract::{Path, State};
use http::StatusCode;
use postrider_core::directory::MAX_CANCELLATIONS;
use postrider_core::outcome::{CLASSES, Unreachable};
use postrider_core::wire::WebhookRecord;
use postrider_core::{DeliveryId, Outcome, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::answer::{Answer, Page, shown};
use super::audit::{Changes, Subject};
use super::body::Params;
use super::cursor::{List, limit};
use super::idempotency::Once;
use super::problem::{Code, Problem, ProblemBody};
use super::scope::Scope;
use crate::store::{
    AttemptRow, CalledOff, Change, DeliveryDetail, DeliveryFilter, DeliveryRow, NotCalledOff,
    RedeliverRefused, SeriesRow, StatusFilter,
};

const STATES: [&str; 6] = ["pending", "held", "delivered", "dead", "cancelled", "skipped"];

/// A delivery with a summary of its latest series.
#[derive(Serialize, ToSchema)]
pub(super) struct Delivery {
    id: String,
    /// The value of the `webhook-id` header.
    message_id: String,
    tenant: String,
    webhook: String,
    event: String,
    event_type: String,
    /// The latest series.
    series: u32,
    /// Of the latest series: `pending`, `delivered`, `dead`, `cancelled` or `skipped`.
    state: String,
    /// Pending, and waiting for its webhook to be resumed.
    held: bool,
    /// Pending, and called off: it ends as cancelled when a worker meets it.
    cancelling: bool,
    /// Why it ended, in one word; empty when it was delivered or has not ended.
    reason: String,
    /// Attempts of the latest series.
    attempts: u32,
    /// When the next attempt is due, if that is known.
    next_at: Option<String>,
    /// The newest attempt.
    last: Option<LastAttempt>,
    created_at: String,
    updated_at: String,
}

#[derive(Serialize, ToSchema)]
struct LastAttempt {
    /// What became of it, in one word; `none` when it was delivered.
    class: String,
    /// The HTTP status, if there was an answer.
    status: Option<i64>,
    at: Option<String>,
    /// What the owner of the receiver can do about it.
    hint: &'static str,
}

impl From<DeliveryRow> for Delivery {
    fn from(row: DeliveryRow) -> Self {
        let last = (!row.last_class.is_empty()).then(|| LastAttempt {
            hint: hint(&row.last_class, row.last_status),
            class: row.last_class,
            status: row.last_status,
            at: row.last_at.map(shown),
        });
        Self {
            message_id: DeliveryId::from_trusted(row.id.as_str()).message_id(),
            id: row.id,
            tenant: row.tenant,
            webhook: row.webhook,
            event: row.event_id,
            event_type: row.event_type,
            series: row.series,
            state: row.state,
            held: row.held,
            cancelling: row.cancelling,
            reason: row.reason,
            attempts: row.attempts,
            next_at: row.next_at.map(shown),
            last,
            created_at: shown(row.created_at),
            updated_at: shown(row.updated_at),
        }
    }
}

/// A delivery with its series and their attempts: the newest 100 series, the newest 1000 attempts.
#[derive(Serialize, ToSchema)]
pub(super) struct DeliveryWithAttempts {
    #[serde(flatten)]
    delivery: Delivery,
    all_series: Vec<Series>,
}

#[derive(Serialize, ToSchema)]
struct Series {
    series: u32,
    state: String,
    held: bool,
    reason: String,
    next_at: Option<String>,
    started_at: String,
    ended_at: Option<String>,
    /// At most so many more requests may have been made than `attempts` has: after a crash of a worker or of the broker,
    /// nobody could write down what the worker had begun.
    repeats: u32,
    /// One for each request, in order of time.
    attempts: Vec<Attempt>,
}

#[derive(Serialize, ToSchema)]
struct Attempt {
    /// The first of a series is 1. Several have the same number when a request was repeated at once, since the receiver had
    /// closed the connection that it was sent over, and after a crash.
    n: u32,
    at: String,
    duration_ms: u64,
    /// Without its query.
    url: String,
    class: String,
    status: Option<i64>,
    error: Option<String>,
    hint: &'static str,
    /// The beginning of what the receiver answered, as text.
    response_body: Option<String>,
    response_headers: Vec<(String, String)>,
    next_at: Option<String>,
    /// Who made it.
    worker: String,
    /// How often the delivery was handed to a worker before, and not settled: so many requests may have been made before
    /// this one of which nobody could write anything down. 0 without crashes and lost connections.
    repeats: u32,
    /// How long the receiver's name took to resolve, milliseconds; null over a connection that was kept from before, for a URL with an
    /// address in place of a name, and where it did not come so far.
    dns_ms: Option<u32>,
    /// How long the connection took to make after that, with TLS, milliseconds; null over one that was kept, and where it did
    /// not come so far.
    connect_ms: Option<u32>,
    /// From the beginning until the head of the answer was there, milliseconds; null without an answer.
    first_byte_ms: Option<u32>,
    /// The address that answered; null without an answer.
    remote: Option<String>,
}

impl From<DeliveryDetail> for DeliveryWithAttempts {
    fn from(detail: DeliveryDetail) -> Self {
        Self {
            delivery: detail.row.into(),
            all_series: detail.series.into_iter().map(Series::from).collect(),
        }
    }
}

impl From<SeriesRow> for Series {
    fn from(row: SeriesRow) -> Self {
        Self {
            series: row.series,
            state: row.state,
            held: row.held,
            reason: row.reason,
            next_at: row.next_at.map(shown),
            started_at: shown(row.born_at),
            ended_at: row.ended_at.map(shown),
            repeats: row.repeats,
            attempts: row.attempts.into_iter().map(Attempt::from).collect(),
        }
    }
}

impl From<AttemptRow> for Attempt {
    fn from(row: AttemptRow) -> Self {
        Self {
            n: row.n,
            at: shown(row.at),
            duration_ms: row.duration_ms,
            url: row.url,
            hint: hint(&row.class, row.status),
            class: row.class,
            status: row.status,
            error: row.error,
            response_body: row.response_body,
            response_headers: row.response_headers,
            next_at: row.next_at.map(shown),
            worker: row.worker,
            repeats: row.repeats,
            dns_ms: row.times.dns_ms,
            connect_ms: row.times.connect_ms,
            first_byte_ms: row.times.first_byte_ms,
            remote: row.remote,
        }
    }
}

/// What the owner of the receiver can do about an attempt that ended like this.
fn hint(class: &str, status: Option<i64>) -> &'static str {
    let status = status.and_then(|status| u16::try_from(status).ok()).unwrap_or(0);
    let outcome = match class {
        "none" => Outcome::Delivered { status },
        "dns" => Outcome::Unreachable(Unreachable::Dns),
        "connect" => Outcome::Unreachable(Unreachable::Connect),
        "tls" => Outcome::Unreachable(Unreachable::Tls),
        "timeout" => Outcome::Unreachable(Unreachable::Timeout),
        "reset" => Outcome::Unreachable(Unreachable::Reset),
        "bad_response" => Outcome::Unreachable(Unreachable::BadResponse),
        "token" => Outcome::Unreachable(Unreachable::Token),
        "unknown" => Outcome::Unreachable(Unreachable::Unknown),
        "internal" => Outcome::Unreachable(Unreachable::Internal),
        "local" => Outcome::Unreachable(Unreachable::Local),
        "egress_blocked" => Outcome::Blocked,
        "http_3xx" => Outcome::Redirected { status },
        "http_410" => Outcome::Gone,
        "http_429" => Outcome::Busy { status, retry_after_ms: None },
        "http_4xx" => Outcome::Refused { status },
        "http_2xx" | "http_5xx" => Outcome::Failed { status },
        _ => return "",
    };
    outcome.hint()
}

#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Asked {
    /// Whose; `default` by default.
    #[allow(dead_code, reason = "read by `Scope`")]
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
    /// How many, from 1 to 200; 50 by default.
    limit: Option<i64>,
    /// `next` of the page before. A page may have fewer items than were asked for, or none, and a `next` all the same: of a list
    /// that is long, so much is looked through at a time.
    cursor: Option<String>,
}

/// A time in a query.
pub(super) fn time(name: &str, given: Option<&str>) -> Result<Option<Timestamp>, Problem> {
    let Some(given) = given else { return Ok(None) };
    let read = Timestamp::parse_rfc3339(given).map(Some);
    read.ok_or_else(|| {
        Problem::parameter(name, format!("{name} must be RFC 3339, such as 2026-11-21T20:00:00Z"))
    })
}

/// A word in a query, from a closed list.
pub(super) fn word(name: &str, given: Option<&str>, known: &[&str]) -> Result<Option<String>, Problem> {
    match given {
        None => Ok(None),
        Some(given) if known.contains(&given) => Ok(Some(given.to_owned())),
        Some(_) => Err(Problem::parameter(name, format!("{name} must be one of {}", known.join(", ")))),
    }
}

/// A status in a query.
fn status(given: Option<&str>) -> Result<Option<StatusFilter>, Problem> {
    let Some(given) = given else { return Ok(None) };
    let number =
        |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u16>().ok()).flatten();
    let read = match given.strip_suffix("xx") {
        _ if given == "none" => Some(StatusFilter::NoAnswer),
        Some(hundred) => number(hundred).filter(|n| (1..=9).contains(n)).map(StatusFilter::Hundred),
        None => number(given).filter(|n| (100..=999).contains(n)).map(StatusFilter::Is),
    };
    read.map(Some).ok_or_else(|| {
        Problem::parameter("status", "status must be a status such as 429, a hundred such as 5xx, or none")
    })
}

/// A number of attempts in a query.
fn attempts(given: Option<i64>) -> Result<Option<u32>, Problem> {
    let read = given.map(u32::try_from).transpose();
    read.map_err(|_| {
        Problem::parameter("attempts_from", "attempts_from must be a whole number that is not negative")
    })
}

/// Lists deliveries, newest first.
#[utoipa::path(get, path = "/v1/deliveries", tag = "deliveries", operation_id = "list_deliveries", params(Asked),
    responses((status = 200, body = inline(DeliveryPage)), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    scope: Scope,
    Params(asked): Params<Asked>,
) -> Result<Answer, Problem> {
    let limit = limit(asked.limit)?;
    let filter = filter(&asked, &scope)?;
    Answer::ok(&page(&api, &filter, asked.cursor.as_deref(), limit).await?)
}

/// What a query asks for.
fn filter(asked: &Asked, scope: &Scope) -> Result<DeliveryFilter, Problem> {
    let (since, until) = (time("since", asked.since.as_deref())?, time("until", asked.until.as_deref())?);
    if since.zip(until).is_some_and(|(since, until)| since >= until) {
        return Err(Problem::parameter("until", "until must be later than since"));
    }
    Ok(DeliveryFilter {
        tenant: scope.tenant().to_string(),
        state: word("state", asked.state.as_deref(), &STATES)?,
        webhook: asked.webhook.clone(),
        event: asked.event.clone(),
        event_type: asked.event_type.clone(),
        since,
        until,
        class: word("class", asked.class.as_deref(), &CLASSES)?,
        status: status(asked.status.as_deref())?,
        attempts_from: attempts(asked.attempts_from)?,
    })
}

/// A page of the list.
async fn page(
    api: &Api,
    filter: &DeliveryFilter,
    cursor: Option<&str>,
    limit: u32,
) -> Result<Page<Delivery>, Problem> {
    let list = List::new(api.store.epoch(), "deliveries", filter);
    let found = api.store.deliveries(filter, list.after(cursor)?, limit).await?;
    Ok(list.found(found, Delivery::from))
}

#[derive(ToSchema)]
#[allow(dead_code, reason = "it describes `Page<Delivery>`")]
pub(super) struct DeliveryPage {
    items: Vec<Delivery>,
    next: Option<String>,
}

/// One delivery with its attempts.
#[utoipa::path(get, path = "/v1/deliveries/{id}", tag = "deliveries", operation_id = "get_delivery",
    params(("id" = String, Path, description = "The delivery"), ("tenant" = Option<String>, Query, description = "Whose; `default` by default")),
    responses((status = 200, body = DeliveryWithAttempts), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    scope: Scope,
    Path(id): Path<String>,
) -> Result<Answer, Problem> {
    match api.store.delivery(scope.tenant().as_str(), &id).await? {
        Some(detail) => Answer::ok(&DeliveryWithAttempts::from(detail)),
        None => Err(Problem::not_found("delivery")),
    }
}

/// A delivery that is made again.
#[derive(Serialize, ToSchema)]
pub(super) struct Redelivery {
    /// The delivery.
    id: String,
    /// The series that begins.
    series: u32,
    state: &'static str,
    /// `active`, `paused` or `disabled`.
    webhook_state: String,
    /// What that means for this series, where it is not simply sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
}

/// What the state of its webhook means for a delivery that somebody asked for.
fn note_of(webhook: &WebhookRecord, now: Timestamp) -> Option<&'static str> {
    if webhook.state == "paused" {
        Some("The webhook is paused: the delivery is held until it is resumed.")
    } else if webhook.state == "disabled" {
        Some("The webhook is disabled and stays so; this delivery is attempted, since it was asked for.")
    } else if webhook.expires_at.is_some_and(|at| now >= at) {
        Some("The webhook has expired; this delivery is attempted, since it was asked for.")
    } else if webhook.active_from.is_some_and(|at| now < at) {
        Some("The webhook is not active yet; this delivery is attempted, since it was asked for.")
    } else {
        None
    }
}

/// A delivery that was called off.
#[derive(Serialize, ToSchema)]
pub(super) struct Cancelled {
    /// The delivery.
    id: String,
    /// The series that was called off.
    series: u32,
    /// `cancelled`, or `pending` until a worker meets it.
    state: &'static str,
    /// Whether it is still to end.
    cancelling: bool,
    /// The cancellation, if this request made one.
    #[serde(skip_serializing_if = "Option::is_none")]
    cancellation: Option<String>,
}

/// Makes a delivery again: a new series of attempts, with the same `webhook-id` and body, signed with the secret of now.
///
/// Only a delivery that has ended, however it did; otherwise 409, with the time of its next attempt in `next_at`. It is
/// attempted also if its webhook is disabled, has expired or is not active yet, and held if it is paused: the answer says
/// so. It says nothing of how the webhook does.
#[utoipa::path(post, path = "/v1/deliveries/{id}/redeliver", tag = "deliveries", operation_id = "redeliver",
    params(("id" = String, Path, description = "The delivery"), ("tenant" = Option<String>, Query, description = "Whose; `default` by default")),
    responses((status = 202, body = Redelivery), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn redeliver(
    State(api): State<Arc<Api>>,
    scope: Scope,
    once: Once,
    Path(id): Path<String>,
) -> Result<Answer, Problem> {
    let tenant = scope.tenant();
    let mut change = api.store.change().await?;
    let (answer, series) = again(&mut change, tenant.as_str(), &id).await?;
    let entry = scope.entry(Some(&tenant), Subject::Delivery, &id, Changes::none().with("series", series));
    change.note(&entry, postrider_broker::now()).await?;
    once.keep(&api, &mut change, &answer).await?;
    change.commit().await?;
    Ok(answer)
}

/// Calls off the latest series of a delivery that has not ended.
///
/// What is held ends at once (200). What is on its way ends when a worker meets it, at the latest when its next attempt is
/// due: 202, and the delivery shows `cancelling` until then. An attempt that is under way is not broken off, so the delivery
/// may still end as delivered.
#[utoipa::path(post, path = "/v1/deliveries/{id}/cancel", tag = "deliveries", operation_id = "cancel_delivery",
    params(("id" = String, Path, description = "The delivery"), ("tenant" = Option<String>, Query, description = "Whose; `default` by default")),
    responses((status = 200, body = Cancelled), (status = 202, body = Cancelled), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn cancel(
    State(api): State<Arc<Api>>,
    scope: Scope,
    once: Once,
    Path(id): Path<String>,
) -> Result<Answer, Problem> {
    let (tenant, now) = (scope.tenant(), postrider_broker::now());
    let mut change = api.store.change().await?;
    let called_off = change.cancel(&tenant, &id, now).await?;
    let done = match &called_off {
        Ok(CalledOff::Ended { series }) => Some(Changes::none().with("series", series)),
        Ok(CalledOff::UnderWay { series, cancellation: Some(made) }) => {
            Some(Changes::none().with("series", series).with("cancellation", made))
        }
        // It was called off before.
        Ok(CalledOff::UnderWay { cancellation: None, .. }) | Err(_) => None,
    };
    if let Some(changes) = done {
        change.note(&scope.entry(Some(&tenant), Subject::Delivery, &id, changes), now).await?;
    }
    let answer = match called_off {
        Ok(CalledOff::Ended { series }) => {
            let (state, cancelling, cancellation) = ("cancelled", false, None);
            Answer::ok(&Cancelled { id, series, state, cancelling, cancellation })?
        }
        Ok(CalledOff::UnderWay { series, cancellation }) => {
            let (state, cancelling) = ("pending", true);
            Answer::json(StatusCode::ACCEPTED, &Cancelled { id, series, state, cancelling, cancellation })?
        }
        Err(refused) => return Err(not_called_off(refused)),
    };
    once.keep(&api, &mut change, &answer).await?;
    change.commit().await?;
    Ok(answer)
}

/// Why nothing was called off.
pub(super) fn not_called_off(refused: NotCalledOff) -> Problem {
    match refused {
        NotCalledOff::Unknown => Problem::not_found("delivery"),
        NotCalledOff::Ended(state) => {
            let detail = format!("the delivery is {state}: there is nothing to call off");
            Problem::new(Code::Ended, detail, "POST /v1/deliveries/{id}/redeliver makes it again.")
                .with("state", Some(state))
        }
        NotCalledOff::TooMany => {
            let detail = format!(
                "{MAX_CANCELLATIONS} cancellations are kept, each for 12 days, and there are as many"
            );
            let hint = "Call off many at once with a filter, POST /v1/cancellations, or pause the webhook.";
            Problem::new(Code::Quota, detail, hint)
        }
    }
}

/// Makes a delivery again, as part of a change: the answer, and the series that begins.
pub(super) async fn again(change: &mut Change<'_>, tenant: &str, id: &str) -> Result<(Answer, u32), Problem> {
    let now = postrider_broker::now();
    match change.redeliver(tenant, id, now).await? {
        Ok(made) => {
            let redelivery = Redelivery {
                id: made.id,
                series: made.series,
                state: "pending",
                note: note_of(&made.webhook, now),
                webhook_state: made.webhook.state,
            };
            Ok((Answer::json(StatusCode::ACCEPTED, &redelivery)?, redelivery.series))
        }
        Err(RedeliverRefused::Unknown) => Err(Problem::not_found("delivery")),
        Err(RedeliverRefused::NotFinal { held: true, .. }) => Err(Problem::new(
            Code::NotFinal,
            "the delivery is held, since its webhook is paused",
            "Resume the webhook: it is sent then.",
        )
        .with("held", Some(true))),
        Err(RedeliverRefused::NotFinal { cancelling: true, .. }) => Err(Problem::new(
            Code::NotFinal,
            "the delivery was called off, and a worker has not met it yet",
            "Wait until it is cancelled; then it can be redelivered.",
        )
        .with("cancelling", Some(true))),
        Err(RedeliverRefused::NotFinal { next_at, .. }) => {
            let detail = match next_at {
                Some(at) => format!("the delivery is under way; its next attempt is due at {at}"),
                None => "the delivery is under way".to_owned(),
            };
            let problem = Problem::new(Code::NotFinal, detail, "Wait until it has ended.");
            Err(problem.with("next_at", next_at.map(shown)))
        }
        Err(RedeliverRefused::WebhookDeleted) => Err(Problem::new(
            Code::WebhookDeleted,
            "the webhook of this delivery was deleted",
            "Create a webhook, and publish the event again with a new id.",
        )),
        Err(RedeliverRefused::BodyGone) => Err(Problem::new(
            Code::BodyGone,
            "the body of the event was removed, since it was kept for as long as it had to be",
            "Publish the event again with a new id.",
        )),
    }
}
