//! `/v1/audit`: who changed what. And what every handler that changes something notes for it.

use std::sync::Arc;

use axum::extract::State;
use postrider_core::TenantId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::answer::{Answer, shown};
use super::body::Params;
use super::cursor::{List, limit};
use super::deliveries::{time, word};
use super::problem::{Problem, ProblemBody};
use super::rights::OPERATIONS;
use super::scope::{Caller, Scope};
use crate::store::{AuditEntry, AuditFilter, AuditRow};

/// Who has the admin token, in the audit log.
pub(super) const ADMIN_TOKEN: &str = "admin token";
/// The longest value that is noted, bytes of JSON; of a longer one only its size.
const MAX_VALUE_BYTES: usize = 2048;

/// What kind of thing was changed. A closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    ApiKey,
    Cancellation,
    Catalogue,
    DeadLetter,
    Delivery,
    Reminder,
    Replay,
    /// With the id of the tenant.
    Settings,
    Tenant,
    Webhook,
}

impl Subject {
    fn as_str(self) -> &'static str {
        match self {
            Self::ApiKey => "api_key",
            Self::Cancellation => "cancellation",
            Self::Catalogue => "catalogue",
            Self::DeadLetter => "dead_letter",
            Self::Delivery => "delivery",
            Self::Reminder => "reminder",
            Self::Replay => "replay",
            Self::Settings => "settings",
            Self::Tenant => "tenant",
            Self::Webhook => "webhook",
        }
    }
}

/// What was changed: members with what they were and what they are. Whoever notes one has taken secrets out.
#[derive(Debug, Default)]
pub(super) struct Changes(Map<String, Value>);

impl Changes {
    /// Nothing to say beside that it was done.
    pub(super) fn none() -> Self {
        Self::default()
    }

    /// A member that has this value now.
    pub(super) fn with(mut self, name: &str, new: impl Serialize) -> Self {
        self.0.insert(name.to_owned(), json!({ "new": bounded(json!(new)) }));
        self
    }

    /// The same, if there is a value.
    pub(super) fn with_some(self, name: &str, new: Option<impl Serialize>) -> Self {
        match new {
            Some(new) => self.with(name, new),
            None => self,
        }
    }

    /// A member that had this value.
    pub(super) fn was(mut self, name: &str, old: impl Serialize) -> Self {
        self.0.insert(name.to_owned(), json!({ "old": bounded(json!(old)) }));
        self
    }

    /// A member that had one value and has another.
    pub(super) fn turned(mut self, name: &str, old: impl Serialize, new: impl Serialize) -> Self {
        let change = json!({ "old": bounded(json!(old)), "new": bounded(json!(new)) });
        self.0.insert(name.to_owned(), change);
        self
    }

    /// These members of an object as it was and as it is.
    pub(super) fn of<'a>(names: impl IntoIterator<Item = &'a String>, old: &Value, new: &Value) -> Self {
        let turned = |all: Self, name: &String| all.turned(name, &old[name], &new[name]);
        names.into_iter().fold(Self::none(), turned)
    }

    /// Every member of an object that was made.
    pub(super) fn made(new: &Value) -> Self {
        let members = new.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
        members.fold(Self::none(), |all, (name, value)| all.with(name, value))
    }
}

/// The members in which two objects differ.
pub(super) fn differing(a: &Value, b: &Value) -> Vec<String> {
    let (Value::Object(a), Value::Object(b)) = (a, b) else { return Vec::new() };
    let mut names: Vec<String> =
        a.keys().chain(b.keys()).filter(|name| a.get(*name) != b.get(*name)).cloned().collect();
    names.sort();
    names.dedup();
    names
}

fn bounded(value: Value) -> Value {
    match value.to_string().len() {
        bytes if bytes > MAX_VALUE_BYTES => json!(format!("({bytes} bytes)")),
        _ => value,
    }
}

impl Scope {
    /// What is noted of the change that this request makes, to a subject of this tenant.
    pub(super) fn entry(
        &self,
        tenant: Option<&TenantId>,
        kind: Subject,
        subject: &str,
        changes: Changes,
    ) -> AuditEntry {
        let (actor, actor_name) = match self.caller() {
            Caller::AdminToken => (ADMIN_TOKEN.to_owned(), String::new()),
            Caller::Key(key) => (key.id.clone(), key.name.clone()),
        };
        AuditEntry {
            tenant: tenant.cloned(),
            actor,
            actor_name,
            operation: self.operation().id,
            subject_kind: kind.as_str(),
            subject: subject.to_owned(),
            changes: Value::Object(changes.0).to_string(),
        }
    }
}

/// A change: who made it, and to what.
#[derive(Serialize, ToSchema)]
pub(super) struct AuditedChange {
    at: String,
    /// Whose the subject is; null if it is nobody's.
    tenant: Option<String>,
    actor: Actor,
    /// The operation of this API by its `operationId`.
    operation: String,
    subject: AuditedSubject,
    /// Members with what they were (`old`) and what they are (`new`), without secrets.
    #[schema(value_type = Object)]
    changes: Box<RawValue>,
}

/// Who made a change.
#[derive(Serialize, ToSchema)]
pub(super) struct Actor {
    /// `admin token`, or the id of an API key.
    id: String,
    /// What the key was called.
    name: Option<String>,
}

/// What was changed.
#[derive(Serialize, ToSchema)]
pub(super) struct AuditedSubject {
    /// `api_key`, `cancellation`, `catalogue`, `dead_letter`, `delivery`, `reminder`, `replay`, `settings`, `tenant` or
    /// `webhook`.
    kind: String,
    id: String,
}

impl From<AuditRow> for AuditedChange {
    fn from(row: AuditRow) -> Self {
        let given = |text: String| (!text.is_empty()).then_some(text);
        Self {
            at: shown(row.at),
            tenant: given(row.tenant),
            actor: Actor { id: row.actor, name: given(row.actor_name) },
            operation: row.operation,
            subject: AuditedSubject { kind: row.subject_kind, id: row.subject },
            changes: RawValue::from_string(row.changes).unwrap_or_default(),
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Asked {
    /// Whose; without it that of the key, or every tenant's.
    #[allow(dead_code, reason = "read by `Scope`")]
    tenant: Option<String>,
    /// Made by this operation, by its `operationId`.
    operation: Option<String>,
    /// To what has this id.
    subject: Option<String>,
    /// By `admin token`, or by the API key of this id.
    actor: Option<String>,
    /// Made at this time or later, RFC 3339.
    since: Option<String>,
    /// Made before this time, RFC 3339.
    until: Option<String>,
    /// How many, from 1 to 200; 50 by default.
    limit: Option<i64>,
    /// `next` of the page before. A page may have fewer items than were asked for, or none, and a `next` all the same: of a list
    /// that is long, so much is looked through at a time.
    cursor: Option<String>,
}

/// Lists changes that were made over this API, newest first. They are kept for 90 days.
#[utoipa::path(get, path = "/v1/audit", tag = "audit", operation_id = "list_audit", params(Asked),
    responses((status = 200, body = inline(AuditPage)), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    scope: Scope,
    Params(asked): Params<Asked>,
) -> Result<Answer, Problem> {
    let limit = limit(asked.limit)?;
    let (since, until) = (time("since", asked.since.as_deref())?, time("until", asked.until.as_deref())?);
    if since.zip(until).is_some_and(|(since, until)| since >= until) {
        return Err(Problem::parameter("until", "until must be later than since"));
    }
    let known: Vec<&str> = OPERATIONS.iter().map(|operation| operation.id).collect();
    let filter = AuditFilter {
        tenant: scope.only().cloned(),
        operation: word("operation", asked.operation.as_deref(), &known)?,
        subject: asked.subject,
        actor: asked.actor,
        since,
        until,
    };
    let list = List::new(api.store.epoch(), "audit", &filter);
    let after = list.after(asked.cursor.as_deref())?;
    let found = api.store.audit_log(&filter, after, limit).await?;
    Answer::ok(&list.found(found, AuditedChange::from))
}

#[derive(ToSchema)]
#[allow(dead_code, reason = "it describes `Page<AuditedChange>`")]
pub(super) struct AuditPage {
    items: Vec<AuditedChange>,
    next: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_say_what_was_and_what_is_within_bounds() {
        let (old, new) = (json!({ "a": 1, "b": null, "c": 3 }), json!({ "a": 2, "b": null, "d": "x" }));
        let names = differing(&old, &new);
        assert_eq!(names, ["a", "c", "d"]);
        let changes = Changes::of(&names, &old, &new);
        let expected = json!({ "a": { "old": 1, "new": 2 }, "c": { "old": 3, "new": null },
            "d": { "old": null, "new": "x" } });
        assert_eq!(Value::Object(changes.0), expected);
        assert_eq!(Value::Object(Changes::made(&old).0), json!({ "a": { "new": 1 }, "c": { "new": 3 } }));
        let long = Changes::none().was("list", vec!["x"; 1000]);
        assert_eq!(Value::Object(long.0), json!({ "list": { "old": "(4001 bytes)" } }));
    }
}
