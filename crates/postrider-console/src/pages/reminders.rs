//! Reminders: events that are due some days before a date, and how many days that is.

use std::collections::BTreeMap;

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::response::Response;
use axum::routing::{get, post};
use http::{Method, StatusCode};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use super::settings::{Ask, asks};
use crate::Console;
use crate::api::{Listed, Refused, segment};
use crate::fields::Fields;
use crate::page::{Answer, Part, Sent, Shell, Visit, page_with};
use crate::words::{Html, escaped, state, when, when_if};

/// The page of reminders, and what is done there.
pub(crate) fn routes() -> Router<Console> {
    Router::new()
        .route("/settings/reminders", get(list))
        .route("/settings/reminders/lead-times", post(change_lead_times))
        .route("/settings/reminders/{key}/cancel", get(ask_to_cancel).post(cancel))
}

const HERE: &str = "/settings/reminders";
/// States that are listed apart, with what they are called.
const STATES: [(&str, &str); 3] = [("", "Upcoming"), ("sent", "Sent"), ("cancelled", "Cancelled")];

#[derive(Debug, Deserialize)]
struct Reminder {
    key: String,
    event_type: String,
    date: String,
    state: String,
    due_at: Option<String>,
    event_id: String,
    sent_at: Option<String>,
}

impl Reminder {
    fn mark(&self) -> Html {
        match self.state.as_str() {
            "pending" => state("still", "Upcoming"),
            "sent" => state("ok", "Sent"),
            "cancelled" => state("off", "Cancelled"),
            other => state("still", other),
        }
    }

    fn is_pending(&self) -> bool {
        self.state == "pending"
    }
}

#[derive(Debug, Deserialize)]
struct Settings {
    time_zone: String,
    send_at: String,
    #[serde(default)]
    lead_days: BTreeMap<String, u64>,
}

struct Row {
    reminder: Reminder,
    cancel: String,
    due: Html,
    sent: Html,
}

/// The lead time of an event type, as it is shown in its field.
struct Lead {
    name: String,
    field: String,
    days: String,
    problem: Option<String>,
}

struct Tab {
    name: &'static str,
    link: String,
    chosen: bool,
}

#[derive(Template)]
#[template(path = "reminders.html")]
struct RemindersPage {
    shell: Shell,
    tabs: Vec<Tab>,
    rows: Vec<Row>,
    fields: Fields,
    settings: Settings,
    leads: Vec<Lead>,
    new_type: String,
    new_days: String,
    problem: Option<String>,
    next: Option<String>,
    first: Option<String>,
    filtered: bool,
}

async fn list(visit: Visit) -> Response {
    let made = listed(&visit, None).await;
    visit.or_refused(Part::Settings, made)
}

/// The page; with a problem it is the answer to a form that must be sent again.
async fn listed(visit: &Visit, sent: Option<(&Fields, &Refused)>) -> Answer {
    let fields = visit.query();
    let wanted = if fields.has("state") { fields.get("state") } else { "pending" };
    let query =
        [("state", wanted), ("event_type", fields.get("event_type")), ("cursor", fields.get("cursor"))];
    let found: Listed<Reminder> = visit.api.get("/v1/reminders", &query).await?;
    let settings: Settings = visit.api.get("/v1/settings", &[]).await?;
    let link = |changes: &[(&str, &str)]| format!("{HERE}{}", fields.with(changes));
    let row = |reminder: Reminder| Row {
        cancel: format!("{HERE}/{}/cancel", segment(&reminder.key)),
        due: when_if(reminder.due_at.as_deref(), visit.now),
        sent: when_if(reminder.sent_at.as_deref(), visit.now),
        reminder,
    };
    let tab = |(value, name): &(&'static str, &'static str)| Tab {
        name,
        link: link(&[("state", value), ("cursor", "")]),
        chosen: fields.get("state") == *value,
    };
    let mut shell = visit.shell(Part::Settings, "Reminders");
    shell.command = command(wanted);
    shell.live = false;
    let typed = |name: &str| sent.map_or_else(String::new, |(fields, _)| fields.get(name).to_owned());
    let status = if sent.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    let template = RemindersPage {
        shell,
        tabs: STATES.iter().map(tab).collect(),
        rows: found.items.into_iter().map(row).collect(),
        leads: leads(&settings.lead_days, sent),
        new_type: typed("new_type"),
        new_days: typed("new_days"),
        problem: sent.map(|(_, refused)| said(refused)),
        next: found.next.map(|next| link(&[("cursor", &next)])),
        first: fields.has("cursor").then(|| link(&[("cursor", "")])),
        filtered: fields.has("event_type") || fields.has("state"),
        settings,
        fields,
    };
    page_with(status, &template)
}

/// The same with the command line.
fn command(wanted: &str) -> String {
    let known = STATES.iter().map(|(value, _)| *value).find(|value| *value == wanted);
    format!("postrider reminder list --state {}", known.unwrap_or("pending"))
}

fn said(refused: &Refused) -> String {
    format!("{}. {}", refused.detail.trim_end_matches('.'), refused.hint)
}

/// The fields of the lead times: what was typed, or what is decided.
fn leads(decided: &BTreeMap<String, u64>, sent: Option<(&Fields, &Refused)>) -> Vec<Lead> {
    let lead = |(name, days): (&String, &u64)| {
        let field = field_of(name);
        let problem =
            sent.filter(|(_, refused)| refused.field.as_deref() == Some(&format!("lead_days.{name}")));
        Lead {
            days: sent.map_or_else(|| days.to_string(), |(typed, _)| typed.get(&field).to_owned()),
            problem: problem.map(|(_, refused)| said(refused)),
            name: name.clone(),
            field,
        }
    };
    decided.iter().map(lead).collect()
}

/// The field of the form that has the lead time of a type.
fn field_of(event_type: &str) -> String {
    format!("days:{event_type}")
}

/// The patch of the form: days by type; a type whose field is empty is as in its catalogue.
fn patch_of(fields: &Fields, decided: &BTreeMap<String, u64>) -> Value {
    let days = |text: &str| match text.parse::<u64>() {
        Ok(days) => days.into(),
        Err(_) if text.is_empty() => Value::Null,
        Err(_) => Value::from(text),
    };
    let mut leads: Map<String, Value> =
        decided.keys().map(|name| (name.clone(), days(fields.get(&field_of(name))))).collect();
    if fields.has("new_type") {
        leads.insert(fields.get("new_type").to_owned(), days(fields.get("new_days")));
    }
    json!({ "lead_days": leads })
}

async fn change_lead_times(Sent { visit, fields }: Sent) -> Response {
    let made = lead_times_changed(&visit, &fields).await;
    visit.or_refused(Part::Settings, made)
}

async fn lead_times_changed(visit: &Visit, fields: &Fields) -> Answer {
    let settings: Settings = visit.api.get("/v1/settings", &[]).await?;
    let patch = patch_of(fields, &settings.lead_days);
    match visit.api.send::<IgnoredAny>(Method::PATCH, "/v1/settings", Some(&patch)).await {
        Ok(_) => Ok(visit.done(HERE, "Saved. It counts at once, also for reminders that are upcoming.")),
        Err(refused) if refused.field.is_some() => listed(visit, Some((fields, &refused))).await,
        Err(refused) => visit.not_done(HERE, &refused),
    }
}

async fn ask_to_cancel(visit: Visit, Path(key): Path<String>) -> Response {
    let made = asked_to_cancel(&visit, &key).await;
    visit.or_refused(Part::Settings, made)
}

async fn asked_to_cancel(visit: &Visit, key: &str) -> Answer {
    let reminder: Reminder = visit.api.get(&format!("/v1/reminders/{}", segment(key)), &[]).await?;
    asks(
        visit,
        Ask {
            heading: format!("Cancel the reminder {}?", reminder.key),
            facts: vec![
                ("Event type", Html(escaped(&reminder.event_type))),
                ("Date", Html(escaped(&reminder.date))),
                (
                    "Goes out",
                    reminder
                        .due_at
                        .as_deref()
                        .map_or_else(|| Html("–".to_owned()), |due| when(due, visit.now)),
                ),
            ],
            follows: "Nothing is sent for it, until it is put again with the same key.",
            action: format!("{HERE}/{}/cancel", segment(&reminder.key)),
            button: "Cancel the reminder".to_owned(),
            back: (HERE, "Keep it"),
            typed: String::new(),
            problem: None,
        },
    )
}

async fn cancel(Path(key): Path<String>, Sent { visit, .. }: Sent) -> Response {
    let path = format!("/v1/reminders/{}", segment(&key));
    let made = match visit.api.send::<IgnoredAny>(Method::DELETE, &path, None).await {
        Ok(_) => Ok(visit.done(HERE, "Cancelled: nothing is sent for it.")),
        Err(refused) => visit.not_done(HERE, &refused),
    };
    visit.or_refused(Part::Settings, made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lead_times_are_patched_by_type() {
        let decided = BTreeMap::from([("PointsWillExpire".to_owned(), 14), ("a=b&c".to_owned(), 3)]);
        let fields = Fields::parse(
            b"days%3APointsWillExpire=7&days%3Aa%3Db%26c=&new_type=LevelWillExpire&new_days=30",
        );
        assert_eq!(
            patch_of(&fields, &decided),
            json!({ "lead_days": { "PointsWillExpire": 7, "a=b&c": null, "LevelWillExpire": 30 } })
        );
        assert_eq!(
            patch_of(&Fields::parse(b"new_type=X&new_days=soon"), &BTreeMap::new()),
            json!({ "lead_days": { "X": "soon" } })
        );
    }

    #[test]
    fn what_was_typed_is_kept_with_its_problem() {
        let decided = BTreeMap::from([("A".to_owned(), 14), ("B".to_owned(), 3)]);
        let refused: Refused = serde_json::from_value(
            json!({ "status": 422, "code": "bad_body", "detail": "a lead time must be from 0 to 365 days",
            "hint": "Correct it.", "field": "lead_days.A" }),
        )
        .unwrap();
        let fields = Fields::parse(b"days%3AA=900&days%3AB=4");
        let shown = leads(&decided, Some((&fields, &refused)));
        assert_eq!((shown[0].days.as_str(), shown[0].problem.is_some()), ("900", true));
        assert_eq!((shown[1].days.as_str(), shown[1].problem.is_some()), ("4", false));
        assert_eq!(leads(&decided, None)[0].days, "14");
    }
}
