//! The audit log: who changed what, from which value to which.

use askama::Template;
use axum::Router;
use axum::response::Response;
use axum::routing::get;
use postrider_core::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::Console;
use crate::api::{Listed, segment};
use crate::fields::Fields;
use crate::page::{Answer, Part, Shell, Visit, page};
use crate::words::{Html, shortened, when};

/// The page of the audit log.
pub(super) fn routes() -> Router<Console> {
    Router::new().route("/settings/audit", get(list))
}

/// How far back the list goes.
const RANGES: [(&str, &str, u64); 4] = [
    ("1h", "Last hour", 3_600_000),
    ("24h", "Last 24 hours", 86_400_000),
    ("7d", "Last 7 days", 7 * 86_400_000),
    ("", "Everything", 0),
];
/// Operations that are in the audit log, to choose from. A test of control holds the list against those of the API.
pub const AUDITED: [&str; 28] = [
    "create_webhook",
    "update_webhook",
    "delete_webhook",
    "pause_webhook",
    "resume_webhook",
    "enable_webhook",
    "disable_webhook",
    "test_webhook",
    "rotate_secret",
    "get_secret",
    "redeliver",
    "cancel_delivery",
    "create_cancellation",
    "redeliver_dead_letter",
    "resolve_dead_letter",
    "plan_replay",
    "run_replay",
    "cancel_replay",
    "put_catalogue",
    "delete_catalogue",
    "put_reminder",
    "cancel_reminder",
    "update_settings",
    "create_tenant",
    "delete_tenant",
    "create_api_key",
    "revoke_api_key",
    "create_login_link",
];
/// The most characters of a value that are shown.
const MAX_VALUE: usize = 200;

#[derive(Debug, Deserialize)]
struct Change {
    at: String,
    tenant: Option<String>,
    actor: Actor,
    operation: String,
    subject: Subject,
    #[serde(default)]
    changes: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
struct Actor {
    id: String,
    name: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Subject {
    kind: String,
    id: String,
}

impl Subject {
    /// Its page.
    fn link(&self) -> Option<String> {
        let id = segment(&self.id);
        Some(match self.kind.as_str() {
            "webhook" => format!("/webhooks/{id}"),
            "delivery" => format!("/deliveries/{id}"),
            "dead_letter" => format!("/dead-letters/{id}"),
            "replay" => format!("/jobs/{id}"),
            "cancellation" => "/jobs?kind=cancellations".to_owned(),
            "catalogue" => "/catalogue".to_owned(),
            "api_key" => "/settings/api-keys".to_owned(),
            "tenant" => "/settings/tenants".to_owned(),
            "settings" => "/settings/tenant".to_owned(),
            "reminder" => "/settings/reminders".to_owned(),
            _ => return None,
        })
    }
}

/// A member that was changed.
#[derive(Debug, PartialEq, Eq)]
struct Turned {
    name: String,
    /// What it was; nothing where nobody says.
    old: Option<String>,
    /// What it is; nothing where nobody says.
    new: Option<String>,
}

/// What was changed, member by member.
fn turned(changes: &Map<String, Value>) -> Vec<Turned> {
    let said = |change: &Value, member: &str| change.get(member).map(said);
    changes
        .iter()
        .map(|(name, change)| Turned {
            name: name.replace('_', " "),
            old: said(change, "old"),
            new: said(change, "new"),
        })
        .collect()
}

/// A value in a few words.
fn said(value: &Value) -> String {
    let text = match value {
        Value::Null => "none".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) if text.is_empty() => "empty".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(all) if all.is_empty() => "none".to_owned(),
        Value::Array(all) if all.iter().all(Value::is_string) => {
            all.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
        }
        Value::Object(all) if all.is_empty() => "none".to_owned(),
        other => other.to_string(),
    };
    shortened(&text, MAX_VALUE)
}

struct Row {
    at: Html,
    who: String,
    who_link: String,
    operation: String,
    operation_link: String,
    tenant: String,
    subject: String,
    subject_link: Option<String>,
    turned: Vec<Turned>,
}

impl Row {
    fn new(change: Change, fields: &Fields, now: Timestamp) -> Self {
        let narrowed = |name: &str, value: &str| {
            format!("/settings/audit{}", fields.with(&[(name, value), ("cursor", "")]))
        };
        Self {
            at: when(&change.at, now),
            who_link: narrowed("actor", &change.actor.id),
            who: change.actor.name.unwrap_or(change.actor.id),
            operation_link: narrowed("operation", &change.operation),
            operation: change.operation.replace('_', " "),
            tenant: change.tenant.unwrap_or_default(),
            subject_link: change.subject.link(),
            subject: format!(
                "{} {}",
                change.subject.kind.replace('_', " "),
                shortened(&change.subject.id, 24)
            ),
            turned: turned(&change.changes),
        }
    }
}

struct Choice {
    value: &'static str,
    text: String,
    chosen: bool,
}

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage {
    shell: Shell,
    rows: Vec<Row>,
    fields: Fields,
    ranges: Vec<Choice>,
    operations: Vec<Choice>,
    chips: Vec<(String, String)>,
    older: Option<String>,
    newest: Option<String>,
    filtered: bool,
}

/// What the API is asked for: the filters of the address.
fn asked(fields: &Fields, now: Timestamp) -> Vec<(&'static str, String)> {
    let mut query: Vec<(&'static str, String)> = ["operation", "subject", "actor"]
        .into_iter()
        .map(|name| (name, fields.get(name).to_owned()))
        .filter(|(_, value)| !value.is_empty())
        .collect();
    let range = RANGES.iter().find(|(value, ..)| *value == fields.get("range") && !value.is_empty());
    query.extend(range.map(|(_, _, ms)| ("since", now.minus_ms(*ms).to_rfc3339())));
    query
}

/// The same with the command line.
fn command(query: &[(&str, String)]) -> String {
    let options: Vec<String> =
        query.iter().map(|(name, value)| format!(" --{name} '{}'", value.replace('\'', ""))).collect();
    format!("postrider audit{}", options.concat())
}

async fn list(visit: Visit) -> Response {
    let made = listed(&visit).await;
    visit.or_refused(Part::Settings, made)
}

async fn listed(visit: &Visit) -> Answer {
    let fields = visit.query();
    let query = asked(&fields, visit.now);
    let mut pairs: Vec<(&str, &str)> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
    pairs.push(("cursor", fields.get("cursor")));
    let found: Listed<Change> = visit.api.get("/v1/audit", &pairs).await?;
    let link = |changes: &[(&str, &str)]| format!("/settings/audit{}", fields.with(changes));
    let older = found.next.map(|next| link(&[("cursor", &next)]));
    let newest = fields.has("cursor").then(|| link(&[("cursor", "")]));
    let chips = query.iter().filter(|(name, _)| *name != "since");
    let chips = chips.map(|(name, value)| {
        (format!("{name}: {}", value.replace('_', " ")), link(&[(name, ""), ("cursor", "")]))
    });
    let mut shell = visit.shell(Part::Settings, "Audit log");
    shell.command = command(&query);
    shell.live = newest.is_none();
    page(&AuditPage {
        shell,
        rows: found.items.into_iter().map(|change| Row::new(change, &fields, visit.now)).collect(),
        ranges: RANGES
            .iter()
            .map(|(value, text, _)| Choice {
                value,
                text: (*text).to_owned(),
                chosen: fields.get("range") == *value,
            })
            .collect(),
        operations: AUDITED
            .iter()
            .map(|id| Choice {
                value: id,
                text: id.replace('_', " "),
                chosen: fields.get("operation") == *id,
            })
            .collect(),
        chips: chips.collect(),
        filtered: !query.is_empty(),
        fields,
        older,
        newest,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_change_says_what_was_and_what_is() {
        let changes = json!({ "max_in_flight": { "old": 10, "new": 20 }, "headers": { "old": {}, "new": { "X-Shop": "********" } },
            "name": { "new": "crm" }, "filter": { "old": null, "new": "" }, "types": { "old": ["A", "B"] } });
        let all = turned(changes.as_object().unwrap());
        let told = |name: &str| {
            let one = all.iter().find(|one| one.name == name).unwrap();
            (one.old.as_deref(), one.new.as_deref())
        };
        assert_eq!(told("max in flight"), (Some("10"), Some("20")));
        assert_eq!(told("headers"), (Some("none"), Some("{\"X-Shop\":\"********\"}")));
        assert_eq!(told("name"), (None, Some("crm")));
        assert_eq!(told("filter"), (Some("none"), Some("empty")));
        assert_eq!(told("types"), (Some("A, B"), None));
    }

    #[test]
    fn the_address_is_what_the_api_is_asked() {
        let now = Timestamp::parse_rfc3339("2026-11-22T20:00:00Z").unwrap();
        let fields = Fields::parse(b"operation=update_webhook&subject=&actor=admin+token&range=1h&other=x");
        let query = asked(&fields, now);
        assert_eq!(
            query,
            [
                ("operation", "update_webhook".to_owned()),
                ("actor", "admin token".to_owned()),
                ("since", "2026-11-22T19:00:00Z".to_owned())
            ]
        );
        assert_eq!(
            command(&query),
            "postrider audit --operation 'update_webhook' --actor 'admin token' --since '2026-11-22T19:00:00Z'"
        );
    }

    #[test]
    fn what_was_changed_leads_to_its_page() {
        let link = |kind: &str| Subject { kind: kind.into(), id: "a/b".into() }.link();
        assert_eq!(link("webhook").as_deref(), Some("/webhooks/a%2Fb"));
        assert_eq!(link("something new"), None);
    }
}
