//! `/v1/settings`: what a tenant decided.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use postrider_core::EventType;
use postrider_core::reminder::{MAX_LEAD_DAYS, Schedule};
use postrider_core::wire::{SchemaMode, UnknownTypes};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Api;
use super::answer::Answer;
use super::audit::{Changes, Subject, differing};
use super::body::{self, Body};
use super::merge::merge;
use super::problem::{Code, Problem, ProblemBody};
use super::scope::Scope;
use crate::store::{Change, Settings};

/// The most lead times of one tenant.
const MAX_LEAD_TIMES: usize = 1000;
/// The highest limit of active webhooks that can be asked for.
const MAX_ACTIVE: u32 = 10_000;
/// The highest number of requests, in flight or a second, that can be asked for.
const MAX_RATE: u32 = 100_000;

/// What a tenant decided.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Settings)]
pub(super) struct Shape {
    /// What becomes of events of types that no catalogue of the tenant has: `accept` (the default; they are marked) or
    /// `refuse`. A tenant without catalogues takes all types.
    #[serde(default)]
    #[schema(value_type = String)]
    unknown_types: UnknownTypes,
    /// What becomes of events whose data does not fit their type's schema: `off` (the default; nobody looks), `warn`
    /// (they are marked and counted) or `refuse`.
    #[serde(default)]
    #[schema(value_type = String)]
    schemas: SchemaMode,
    /// Where the tenant's days begin: a name of the IANA database, such as `Europe/Berlin`; `UTC` by default.
    #[serde(default = "default_zone")]
    time_zone: String,
    /// When reminders go out, local time: `HH:MM`; `09:00` by default.
    #[serde(default = "default_send_at")]
    send_at: String,
    /// By event type: how many days before its date a reminder goes out, from 0 to 365. What is missing here is as in
    /// the catalogue.
    #[serde(default)]
    lead_days: BTreeMap<String, u32>,
    /// The most active webhooks; unlimited by default.
    #[serde(default)]
    max_active_webhooks: Option<u32>,
    /// The most requests in flight to all webhooks of the tenant, over all workers: from 1 to 100000; unlimited by default.
    /// Each worker takes its share, and at least 1.
    #[serde(default)]
    max_in_flight: Option<u32>,
    /// The most requests a second to all webhooks of the tenant, over all workers: from 1 to 100000; unlimited by default.
    #[serde(default)]
    rate_per_second: Option<u32>,
}

fn default_zone() -> String {
    Settings::default().time_zone
}

fn default_send_at() -> String {
    Settings::default().send_at
}

impl From<Shape> for Settings {
    fn from(shape: Shape) -> Self {
        let Shape {
            unknown_types,
            schemas,
            time_zone,
            send_at,
            lead_days,
            max_active_webhooks,
            max_in_flight,
            rate_per_second,
        } = shape;
        Self {
            unknown_types,
            schemas,
            time_zone,
            send_at,
            lead_days,
            max_active_webhooks,
            max_in_flight,
            rate_per_second,
        }
    }
}

impl From<Settings> for Shape {
    fn from(settings: Settings) -> Self {
        let Settings {
            unknown_types,
            schemas,
            time_zone,
            send_at,
            lead_days,
            max_active_webhooks,
            max_in_flight,
            rate_per_second,
        } = settings;
        Self {
            unknown_types,
            schemas,
            time_zone,
            send_at,
            lead_days,
            max_active_webhooks,
            max_in_flight,
            rate_per_second,
        }
    }
}

/// Members to change; null sets one back to its default.
#[derive(ToSchema)]
#[allow(dead_code, reason = "it describes the body of `patch`")]
pub(super) struct SettingsPatch {
    unknown_types: Option<String>,
    schemas: Option<String>,
    time_zone: Option<String>,
    send_at: Option<String>,
    lead_days: Option<BTreeMap<String, Option<u32>>>,
    max_active_webhooks: Option<u32>,
    max_in_flight: Option<u32>,
    rate_per_second: Option<u32>,
}

/// What the tenant decided, with the defaults of what it did not.
#[utoipa::path(get, path = "/v1/settings", tag = "settings", operation_id = "get_settings",
    params(("tenant" = Option<String>, Query, description = "Whose; `default` by default")),
    responses((status = 200, body = Shape), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn get(State(api): State<Arc<Api>>, scope: Scope) -> Result<Answer, Problem> {
    let tenant = scope.tenant();
    if api.store.tenant(tenant.as_str()).await?.is_none() {
        return Err(unknown_tenant(tenant.as_str()));
    }
    Answer::ok(&Shape::from(api.store.settings(tenant.as_str()).await?))
}

/// Changes what is given and leaves the rest; null sets a member back to its default (RFC 7396).
///
/// A change counts at once, also for reminders that are pending.
#[utoipa::path(patch, path = "/v1/settings", tag = "settings", operation_id = "update_settings",
    params(("tenant" = Option<String>, Query, description = "Whose; `default` by default")),
    request_body = inline(SettingsPatch),
    responses((status = 200, body = Shape), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn patch(
    State(api): State<Arc<Api>>,
    scope: Scope,
    Body(mut patch): Body<Value>,
) -> Result<Answer, Problem> {
    if !patch.is_object() {
        return Err(Problem::body("", "the body must be an object with the members to change"));
    }
    let tenant = scope.tenant();
    let mut change = api.store.change().await?;
    if !change.has_tenant(tenant.as_str()).await? {
        return Err(unknown_tenant(tenant.as_str()));
    }
    let before = change.settings(tenant.as_str()).await?;
    if let Some(Value::Object(leads)) = patch.get_mut("lead_days") {
        for (name, days) in std::mem::take(leads) {
            let known = match change.event_type(tenant.as_str(), &name).await? {
                Some(row) => row.entry.name.to_string(),
                None if days.is_null() => name,
                None => no_catalogue_has(&mut change, tenant.as_str(), name).await?,
            };
            leads.insert(known, days);
        }
    }
    let merged = merge(json!(Shape::from(before.clone())), patch).to_string();
    // The merged text is read like one that was sent, so that what is wrong is named in the same way.
    let shape: Shape = body::read(merged.as_bytes())?;
    check(&shape)?;
    let settings = Settings::from(shape);
    if settings != before {
        let now = postrider_broker::now();
        change.put_settings(&tenant, &settings, now).await?;
        let (old, new) = (json!(Shape::from(before)), json!(Shape::from(settings.clone())));
        let changes = Changes::of(&differing(&old, &new), &old, &new);
        change.note(&scope.entry(Some(&tenant), Subject::Settings, tenant.as_str(), changes), now).await?;
    }
    let answer = Answer::ok(&Shape::from(settings))?;
    change.commit().await?;
    Ok(answer)
}

fn check(shape: &Shape) -> Result<(), Problem> {
    use postrider_core::reminder::BadSchedule;
    Schedule::new(&shape.time_zone, &shape.send_at).map_err(|bad| {
        let member = match bad {
            BadSchedule::TimeZone(_) => "time_zone",
            BadSchedule::SendAt => "send_at",
        };
        Problem::body(member, bad.to_string())
    })?;
    if shape.lead_days.len() > MAX_LEAD_TIMES {
        let detail = format!("at most {MAX_LEAD_TIMES} event types can have a lead time of the tenant's own");
        return Err(Problem::body("lead_days", detail));
    }
    for (name, days) in &shape.lead_days {
        if *days > MAX_LEAD_DAYS {
            let detail = format!("a lead time must be from 0 to {MAX_LEAD_DAYS} days");
            return Err(Problem::body(at(name), detail));
        }
    }
    if shape.max_active_webhooks.is_some_and(|most| !(1..=MAX_ACTIVE).contains(&most)) {
        let detail = format!("max_active_webhooks must be from 1 to {MAX_ACTIVE}, or null for no limit");
        return Err(Problem::body("max_active_webhooks", detail));
    }
    for (member, limit) in
        [("max_in_flight", shape.max_in_flight), ("rate_per_second", shape.rate_per_second)]
    {
        if limit.is_some_and(|limit| !(1..=MAX_RATE).contains(&limit)) {
            let detail = format!("{member} must be from 1 to {MAX_RATE}, or null for no limit");
            return Err(Problem::body(member, detail));
        }
    }
    Ok(())
}

/// A name that no catalogue has can have a lead time only if there is no catalogue.
async fn no_catalogue_has(change: &mut Change<'_>, tenant: &str, name: String) -> Result<String, Problem> {
    EventType::parse(&name).map_err(|e| Problem::body(at(&name), e.to_string()))?;
    if change.count_catalogues(tenant).await? > 0 {
        let detail = format!("no catalogue of the tenant has an event type {name:?}");
        let hint = "GET /v1/event-types lists them; PUT /v1/catalogues/{product} adds some.";
        return Err(Problem::new(Code::BadBody, detail, hint).field(at(&name)));
    }
    Ok(name)
}

fn at(name: &str) -> String {
    format!("lead_days.{}", name.chars().take(128).collect::<String>())
}

fn unknown_tenant(tenant: &str) -> Problem {
    let detail = format!("there is no tenant {tenant:?}");
    Problem::new(Code::UnknownTenant, detail, "POST /v1/tenants makes one.").field("tenant")
}
