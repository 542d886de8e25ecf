//! `/v1/cancellations`: calling off many deliveries at once.

use std::sync::Arc;

use axum::extract::State;
use http::StatusCode;
use postrider_core::{EventType, TenantId, Timestamp, WebhookId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::answer::{Answer, shown};
use super::audit::{Changes, Subject};
use super::body::{Body, Params, moment};
use super::cursor::{List, limit};
use super::deliveries::not_called_off;
use super::idempotency::Once;
use super::problem::{Code, Problem, ProblemBody};
use super::scope::Scope;
use crate::store::{CancelFilter, CancellationRow, Change};

/// What to call off: deliveries that have not ended and fit everything that is given. At least one of `webhook`,
/// `event_type`, `since` and `until`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewCancellation {
    /// Whose; `default` by default.
    tenant: Option<String>,
    /// To this webhook.
    webhook: Option<String>,
    /// Of events of this type, by name or alias.
    event_type: Option<String>,
    /// Whose series began at this time or later, RFC 3339.
    since: Option<String>,
    /// Whose series began before this time, RFC 3339; now by default, and not later.
    until: Option<String>,
    /// `pending` (the default): all that have not ended, also those that are held. `held`: these alone.
    state: Option<String>,
    /// Only say how many it would be; false by default.
    #[serde(default)]
    plan: bool,
}

/// Something that was called off.
#[derive(Serialize, ToSchema)]
pub(super) struct Cancellation {
    /// Nothing in a plan.
    id: Option<String>,
    tenant: String,
    /// If it is about one delivery alone, like `series`.
    delivery: Option<String>,
    series: Option<u32>,
    webhook: Option<String>,
    event_type: Option<String>,
    since: Option<String>,
    /// Series that began later are not meant.
    until: String,
    /// `pending` or `held`.
    state: &'static str,
    /// How many deliveries it meant when it was made, as far as the books knew: exactly these, those that are held among
    /// them. What the books hear of later and began before `until` is meant as well.
    deliveries: u64,
    /// How many of them were held; these end in control, at once or, beyond 500, within moments.
    held: u64,
    /// Until when workers are told of it: then no message can be left that it is about. Nothing in a plan.
    kept_until: Option<String>,
    created_at: Option<String>,
}

/// How long a cancellation is kept, milliseconds.
const KEPT_MS: u64 = 12 * 24 * 3600 * 1000;

fn word(held_only: bool) -> &'static str {
    if held_only { "held" } else { "pending" }
}

impl From<CancellationRow> for Cancellation {
    fn from(row: CancellationRow) -> Self {
        let named = |text: String| (!text.is_empty()).then_some(text);
        let (delivery, series) = row.series.unzip();
        Self {
            id: Some(row.id),
            tenant: row.tenant,
            delivery,
            series,
            webhook: named(row.webhook),
            event_type: named(row.event_type),
            since: row.born_since.map(shown),
            until: shown(row.born_before),
            state: word(row.held_only),
            deliveries: row.pending,
            held: row.held,
            kept_until: Some(shown(row.created_at.plus_ms(KEPT_MS))),
            created_at: Some(shown(row.created_at)),
        }
    }
}

/// Calls off every delivery that has not ended and fits a filter, or with `plan` says how many that would be.
///
/// What is held ends here; what is on its way ends when a worker meets it, and shows `cancelling` until then. 200 for a plan.
#[utoipa::path(post, path = "/v1/cancellations", tag = "deliveries", operation_id = "create_cancellation",
    request_body = NewCancellation,
    responses((status = 200, body = Cancellation), (status = 201, body = Cancellation), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    scope: Scope,
    once: Once,
    Body(new): Body<NewCancellation>,
) -> Result<Answer, Problem> {
    let tenant = scope.of_body(new.tenant.as_deref())?;
    let now = postrider_broker::now();
    let plan = new.plan;
    let mut change = api.store.change().await?;
    let filter = check(&mut change, tenant, new, now).await?;
    if plan {
        // Counting needs no place in line.
        drop(change);
        let meant = api.store.count_cancellable(&filter).await?;
        return Answer::ok(&Cancellation {
            id: None,
            tenant: filter.tenant.to_string(),
            delivery: None,
            series: None,
            webhook: filter.webhook.map(|id| id.to_string()),
            event_type: filter.event_type.map(|name| name.to_string()),
            since: filter.since.map(shown),
            until: shown(filter.before),
            state: word(filter.held_only),
            deliveries: meant.pending,
            held: meant.held,
            kept_until: None,
            created_at: None,
        });
    }
    let made = change.cancel_matching(&filter, now).await?.map_err(not_called_off)?;
    let changes = Changes::none()
        .with_some("webhook", filter.webhook.as_ref().map(ToString::to_string))
        .with_some("event_type", filter.event_type.as_ref().map(ToString::to_string))
        .with_some("since", filter.since.map(shown))
        .with("until", shown(filter.before))
        .with("state", word(filter.held_only))
        .with("deliveries", made.pending);
    let entry = scope.entry(Some(&filter.tenant), Subject::Cancellation, &made.id, changes);
    change.note(&entry, now).await?;
    let answer = Answer::json(StatusCode::CREATED, &Cancellation::from(made))?;
    once.keep(&api, &mut change, &answer).await?;
    change.commit().await?;
    Ok(answer)
}

async fn check(
    change: &mut Change<'_>,
    tenant: TenantId,
    new: NewCancellation,
    now: Timestamp,
) -> Result<CancelFilter, Problem> {
    let since = moment("since", new.since.as_deref())?;
    let until = moment("until", new.until.as_deref())?;
    if new.webhook.is_none() && new.event_type.is_none() && since.is_none() && until.is_none() {
        let detail = "at least one of webhook, event_type, since and until says what is meant";
        let hint = "To call off everything of the tenant, give until the time of now.";
        return Err(Problem::new(Code::BadBody, detail, hint).field("webhook"));
    }
    if until.is_some_and(|until| until > now) {
        return Err(Problem::body(
            "until",
            "until must not be later than now: what is to come cannot be called off",
        ));
    }
    let before = until.unwrap_or(now);
    if since.is_some_and(|since| since >= before) {
        return Err(Problem::body("since", "since must be earlier than until, and than now"));
    }
    let held_only = match new.state.as_deref() {
        None | Some("pending") => false,
        Some("held") => true,
        Some(_) => return Err(Problem::body("state", "state must be pending or held")),
    };
    if let Some(id) = &new.webhook
        && !change.knew_webhook(tenant.as_str(), id).await?
    {
        let hint = "GET /v1/webhooks lists them.";
        return Err(
            Problem::new(Code::BadBody, "the tenant has no webhook of this id", hint).field("webhook")
        );
    }
    let event_type = match new.event_type {
        None => None,
        Some(name) => Some(match change.event_type(tenant.as_str(), &name).await? {
            Some(row) => row.entry.name,
            None => EventType::parse(&name).map_err(|e| Problem::body("event_type", e.to_string()))?,
        }),
    };
    let webhook = new.webhook.map(WebhookId::from_trusted);
    Ok(CancelFilter { tenant, webhook, event_type, since, before, held_only })
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Asked {
    /// Whose; `default` by default.
    #[allow(dead_code, reason = "read by `Scope`")]
    tenant: Option<String>,
    /// How many, from 1 to 200; 50 by default.
    limit: Option<i64>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// Lists what was called off, newest first: each for 12 days.
#[utoipa::path(get, path = "/v1/cancellations", tag = "deliveries", operation_id = "list_cancellations", params(Asked),
    responses((status = 200, body = inline(CancellationPage)), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    scope: Scope,
    Params(asked): Params<Asked>,
) -> Result<Answer, Problem> {
    let limit = limit(asked.limit)?;
    let tenant = scope.tenant();
    let list = List::new(api.store.epoch(), "cancellations", &tenant);
    let before = list.row(asked.cursor.as_deref())?;
    let rows = api.store.cancellations(tenant.as_str(), before, limit + 1).await?;
    Answer::ok(&list.page(rows, limit, |row| row.seq.to_string(), |row| Ok(Cancellation::from(row)))?)
}

#[derive(ToSchema)]
#[allow(dead_code, reason = "it describes `Page<Cancellation>`")]
pub(super) struct CancellationPage {
    items: Vec<Cancellation>,
    next: Option<String>,
}
