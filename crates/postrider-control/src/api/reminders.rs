//! `/v1/reminders`: events that are due some days before a date.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use http::StatusCode;
use postrider_core::event::{EventType, Json};
use postrider_core::reminder::{Day, event_id};
use postrider_core::{TenantId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::answer::{Answer, shown};
use super::audit::{Changes, Subject};
use super::body::{Body, Params};
use super::cursor::{List, limit};
use super::deliveries::{time, word};
use super::problem::{Code, Problem, ProblemBody};
use super::scope::Scope;
use crate::store::{
    NewReminder, NotCancelled, ReminderDate, ReminderFilter, ReminderRefused, ReminderRow, ReminderState,
    Rule,
};

/// The longest key, characters.
const MAX_KEY: usize = 128;
/// The largest `data`, bytes.
const MAX_DATA_BYTES: usize = 64 * 1024;
/// The largest `current_context`, bytes.
const MAX_CONTEXT_BYTES: usize = 16 * 1024;

/// A reminder to make, or what to make of the one of this key.
#[derive(Deserialize, ToSchema)]
#[schema(as = NewReminder)]
#[serde(deny_unknown_fields)]
pub(super) struct Given {
    /// The type of the event, by name or alias. Somebody must have said how many days before the date it goes out: the
    /// tenant in its settings, or the catalogue.
    event_type: String,
    /// What is reminded of: a day, `2026-12-24`, or a moment in RFC 3339, of which the day in the tenant's time zone counts.
    date: String,
    /// Any JSON, at most 64 KiB; becomes the event's `data`, byte for byte.
    #[schema(value_type = Option<Object>)]
    data: Option<Json>,
    /// Any JSON, at most 16 KiB; becomes the event's `current_context`, byte for byte.
    #[schema(value_type = Option<Object>)]
    current_context: Option<Json>,
}

/// A reminder.
#[derive(Serialize, ToSchema)]
pub(super) struct Reminder {
    key: String,
    tenant: String,
    event_type: String,
    /// The day that is reminded of, where the tenant is.
    date: String,
    /// `pending`, `sent` or `cancelled`.
    state: &'static str,
    /// When it goes out, by the settings of this moment; null while nobody says how many days before the date.
    due_at: Option<String>,
    /// The id of its event: the same for this key and date, whatever happens.
    event_id: String,
    /// As it was given.
    #[schema(value_type = Option<Object>)]
    data: Option<Json>,
    /// As it was given.
    #[schema(value_type = Option<Object>)]
    current_context: Option<Json>,
    /// When its event was published.
    sent_at: Option<String>,
    created_at: String,
    updated_at: String,
}

impl Reminder {
    fn of(row: ReminderRow, due: Option<Timestamp>) -> Self {
        Self {
            event_id: event_id(&row.tenant, &row.key, row.date).to_string(),
            due_at: due.map(shown),
            key: row.key,
            tenant: row.tenant.to_string(),
            event_type: row.event_type,
            date: row.date.to_string(),
            state: row.state.as_str(),
            data: row.data,
            current_context: row.current_context,
            sent_at: row.sent_at.map(shown),
            created_at: shown(row.created_at),
            updated_at: shown(row.updated_at),
        }
    }
}

/// Makes a reminder, or moves and changes the one of this key.
///
/// One event is published for each key and date, whatever happens: over moved dates, changed lead times and time zones,
/// restarts, and when Postrider does not run at the time. The same request again changes nothing. A date whose lead time
/// has begun is due at once; a date in the past is refused. A key and date whose event was published stays `sent`.
#[utoipa::path(put, path = "/v1/reminders/{key}", tag = "reminders", operation_id = "put_reminder",
    params(("key" = String, Path, description = "1 to 128 printable ASCII characters; becomes the event's `key`"),
        ("tenant" = Option<String>, Query, description = "Whose; `default` by default")),
    request_body = Given,
    responses((status = 200, body = Reminder), (status = 201, body = Reminder), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn put(
    State(api): State<Arc<Api>>,
    scope: Scope,
    Path(key): Path<String>,
    Body(given): Body<Given>,
) -> Result<Answer, Problem> {
    let new = check(scope.tenant(), key, given)?;
    let now = postrider_broker::now();
    let mut change = api.store.change().await?;
    let put = match change.put_reminder(&new, now).await? {
        Ok(put) => put,
        Err(refused) => return Err(refusal(refused, &new)),
    };
    if put.is_changed {
        let changes =
            Changes::none().with("event_type", &put.row.event_type).with("date", put.row.date.to_string());
        change.note(&scope.entry(Some(&new.tenant), Subject::Reminder, &new.key, changes), now).await?;
    }
    let status = if put.is_new { StatusCode::CREATED } else { StatusCode::OK };
    let due = put.rule.due(put.row.date);
    let answer = Answer::json(status, &Reminder::of(put.row, due))?;
    change.commit().await?;
    Ok(answer)
}

fn check(tenant: TenantId, key: String, given: Given) -> Result<NewReminder, Problem> {
    let printable = key.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    if key.is_empty() || key.len() > MAX_KEY || !printable {
        let detail = format!("the key of a reminder must have 1 to {MAX_KEY} printable ASCII characters");
        return Err(Problem::parameter("key", detail));
    }
    let event_type =
        EventType::parse(&given.event_type).map_err(|e| Problem::body("event_type", e.to_string()))?;
    let day = Day::parse(&given.date).map(ReminderDate::Day).ok();
    let date = day.or_else(|| Timestamp::parse_rfc3339(&given.date).map(ReminderDate::Moment));
    for (member, json, most) in [
        ("data", &given.data, MAX_DATA_BYTES),
        ("current_context", &given.current_context, MAX_CONTEXT_BYTES),
    ] {
        if json.as_ref().is_some_and(|json| json.get().len() > most) {
            return Err(Problem::body(
                member,
                format!("{member} must not be larger than {} KiB", most / 1024),
            ));
        }
    }
    Ok(NewReminder {
        tenant,
        key,
        event_type,
        date: date.ok_or_else(bad_date)?,
        data: given.data,
        current_context: given.current_context,
    })
}

fn bad_date() -> Problem {
    Problem::body(
        "date",
        "date must be a day such as 2026-12-24, from 1970-01-01 to 9000-12-31, or a moment in RFC 3339",
    )
}

fn refusal(refused: ReminderRefused, new: &NewReminder) -> Problem {
    let event_type = new.event_type.as_str();
    match refused {
        ReminderRefused::UnknownTenant => {
            let detail = format!("there is no tenant {:?}", new.tenant.as_str());
            Problem::new(Code::UnknownTenant, detail, "POST /v1/tenants makes one.").field("tenant")
        }
        ReminderRefused::UnknownType => {
            let detail = format!("no catalogue of the tenant has an event type {event_type:?}");
            let hint = "GET /v1/event-types lists them; unknown_types in PATCH /v1/settings accepts others.";
            Problem::new(Code::BadBody, detail, hint).field("event_type")
        }
        ReminderRefused::NoLead => {
            let detail = format!("nobody says how many days before the date {event_type:?} goes out");
            let hint = "Set lead_days for it with PATCH /v1/settings, or lead_days of the type in its catalogue; 0 is the day \
                        itself.";
            Problem::new(Code::BadBody, detail, hint).field("event_type")
        }
        ReminderRefused::Past { date, today } => {
            let detail = format!("the date {date} is past: where the tenant is, today is {today}");
            let hint = "Give a date from today on; time_zone in GET /v1/settings says where the tenant is.";
            Problem::new(Code::BadBody, detail, hint).field("date")
        }
        ReminderRefused::BadDate => bad_date(),
        ReminderRefused::TooMany(most) => {
            let detail = format!("a tenant has at most {most} pending reminders of one event type");
            Problem::new(Code::Quota, detail, "Cancel reminders that are not needed.")
        }
    }
}

/// One reminder.
#[utoipa::path(get, path = "/v1/reminders/{key}", tag = "reminders", operation_id = "get_reminder",
    params(("key" = String, Path, description = "The reminder"), ("tenant" = Option<String>, Query, description = "Whose; `default` by default")),
    responses((status = 200, body = Reminder), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    scope: Scope,
    Path(key): Path<String>,
) -> Result<Answer, Problem> {
    let tenant = scope.tenant();
    let Some(row) = api.store.reminder(tenant.as_str(), &key).await? else {
        return Err(Problem::not_found("reminder"));
    };
    let due = rules(&api, tenant.as_str()).await?.get(&row.event_type).and_then(|rule| rule.due(row.date));
    Answer::ok(&Reminder::of(row, due))
}

async fn rules(api: &Api, tenant: &str) -> Result<HashMap<String, Rule>, Problem> {
    let groups = api.store.reminder_groups_of(tenant).await?;
    Ok(groups.into_iter().map(|group| (group.event_type, group.rule)).collect())
}

/// Takes a reminder back: nothing is sent for it, until it is put again.
///
/// One that is cancelled already stays so. What was sent cannot be taken back: 409.
#[utoipa::path(delete, path = "/v1/reminders/{key}", tag = "reminders", operation_id = "cancel_reminder",
    params(("key" = String, Path, description = "The reminder"), ("tenant" = Option<String>, Query, description = "Whose; `default` by default")),
    responses((status = 204), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    scope: Scope,
    Path(key): Path<String>,
) -> Result<Answer, Problem> {
    let (tenant, now) = (scope.tenant(), postrider_broker::now());
    let mut change = api.store.change().await?;
    match change.cancel_reminder(tenant.as_str(), &key, now).await? {
        Ok(was_pending) => {
            if was_pending {
                let entry = scope.entry(Some(&tenant), Subject::Reminder, &key, Changes::none());
                change.note(&entry, now).await?;
            }
            change.commit().await?;
            Ok(Answer::nothing())
        }
        Err(NotCancelled::Unknown) => Err(Problem::not_found("reminder")),
        Err(NotCancelled::Sent(at)) => {
            let detail = format!("the event of this reminder was published at {}", shown(at));
            let hint =
                "What was sent cannot be taken back. PUT another date to have it sent again for that date.";
            Err(Problem::new(Code::ReminderSent, detail, hint))
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Asked {
    /// Whose; `default` by default.
    #[allow(dead_code, reason = "read by `Scope`")]
    tenant: Option<String>,
    /// Of this type, by name or alias.
    event_type: Option<String>,
    /// `pending`, `sent` or `cancelled`.
    state: Option<String>,
    /// Due before this time by the settings of this moment, RFC 3339.
    due_before: Option<String>,
    /// How many, from 1 to 200; 50 by default.
    limit: Option<i64>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// Lists reminders, earliest dates first.
#[utoipa::path(get, path = "/v1/reminders", tag = "reminders", operation_id = "list_reminders", params(Asked),
    responses((status = 200, body = inline(ReminderPage)), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    scope: Scope,
    Params(asked): Params<Asked>,
) -> Result<Answer, Problem> {
    let limit = limit(asked.limit)?;
    let tenant = scope.tenant();
    let event_type = match asked.event_type {
        Some(spelling) => match api.store.event_type(tenant.as_str(), &spelling).await? {
            Some(row) => Some(row.entry.name.to_string()),
            None => Some(spelling),
        },
        None => None,
    };
    let states = ReminderState::ALL.map(ReminderState::as_str);
    let state = word("state", asked.state.as_deref(), &states)?;
    let filter = ReminderFilter {
        tenant: tenant.to_string(),
        event_type,
        state: states.into_iter().find(|known| Some(*known) == state.as_deref()),
        due_before: time("due_before", asked.due_before.as_deref())?,
    };
    let list = List::new(api.store.epoch(), "reminders", &filter);
    let after = asked.cursor.as_deref().map(|cursor| list.place(cursor)).transpose()?;
    let after = after.as_deref().and_then(|place| {
        let (date, seq) = place.split_once('/')?;
        Some((Day::from_number(date.parse().ok()?), seq.parse().ok()?))
    });
    let groups = api.store.reminder_groups_of(tenant.as_str()).await?;
    let rows = api.store.reminders(&filter, &groups, after, limit + 1).await?;
    let rules: HashMap<&str, &Rule> =
        groups.iter().map(|group| (group.event_type.as_str(), &group.rule)).collect();
    let place = |row: &ReminderRow| format!("{}/{}", row.date.number(), row.seq);
    let show = |row: ReminderRow| {
        let due = rules.get(row.event_type.as_str()).and_then(|rule| rule.due(row.date));
        Ok(Reminder::of(row, due))
    };
    Answer::ok(&list.page(rows, limit, place, show)?)
}

#[derive(ToSchema)]
#[allow(dead_code, reason = "it describes `Page<Reminder>`")]
pub(super) struct ReminderPage {
    items: Vec<Reminder>,
    next: Option<String>,
}
