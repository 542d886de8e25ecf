//! What a tenant decided: limits and defaults.

use askama::Template;
use axum::Router;
use axum::response::Response;
use axum::routing::get;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::{Problem, is_of_form};
use crate::Console;
use crate::fields::Fields;
use crate::page::{Answer, Part, Sent, Shell, Visit, page_with};

/// The page of a tenant's settings.
pub(super) fn routes() -> Router<Console> {
    Router::new().route("/settings/tenant", get(show).post(change))
}

/// What becomes of events of types that no catalogue has.
const UNKNOWN_TYPES: [(&str, &str); 2] =
    [("accept", "Accept them, and mark them"), ("refuse", "Refuse them as invalid")];
/// What becomes of data that does not fit its schema.
const SCHEMAS: [(&str, &str); 3] =
    [("off", "Nobody looks"), ("warn", "Deliver it, and count it"), ("refuse", "Refuse it as invalid")];
/// Members that are a number, or unlimited.
const LIMITS: [&str; 3] = ["max_active_webhooks", "max_in_flight", "rate_per_second"];

#[derive(Debug, Deserialize)]
struct Settings {
    unknown_types: String,
    schemas: String,
    time_zone: String,
    send_at: String,
    max_active_webhooks: Option<u64>,
    max_in_flight: Option<u64>,
    rate_per_second: Option<u64>,
}

impl Settings {
    /// As the fields of the form.
    fn fields(&self) -> Fields {
        let limit = |limit: Option<u64>| limit.map(|limit| limit.to_string()).unwrap_or_default();
        let pairs = [
            ("unknown_types", self.unknown_types.clone()),
            ("schemas", self.schemas.clone()),
            ("time_zone", self.time_zone.clone()),
            ("send_at", self.send_at.clone()),
            ("max_active_webhooks", limit(self.max_active_webhooks)),
            ("max_in_flight", limit(self.max_in_flight)),
            ("rate_per_second", limit(self.rate_per_second)),
        ];
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Fields::parse(Fields::default().with(&pairs).trim_start_matches('?').as_bytes())
    }
}

struct Choice {
    value: &'static str,
    text: &'static str,
    chosen: bool,
}

#[derive(Template)]
#[template(path = "tenant.html")]
struct TenantPage {
    shell: Shell,
    whose: String,
    typed: Fields,
    unknown_types: Vec<Choice>,
    schemas: Vec<Choice>,
    problem: Option<Problem>,
}

impl TenantPage {
    /// What is wrong with a field.
    fn problem_of(&self, field: &str) -> Option<&str> {
        self.problem.as_ref().filter(|problem| problem.is_of(field)).map(|problem| problem.text.as_str())
    }
}

async fn show(visit: Visit) -> Response {
    let made = shown(&visit).await;
    visit.or_refused(Part::Settings, made)
}

async fn shown(visit: &Visit) -> Answer {
    let settings: Settings = visit.api.get("/v1/settings", &[]).await?;
    form(visit, settings.fields(), None)
}

fn form(visit: &Visit, typed: Fields, problem: Option<Problem>) -> Answer {
    let mut shell = visit.shell(Part::Settings, "Limits and defaults");
    shell.command = "postrider settings show".to_owned();
    shell.live = false;
    let choices = |all: &[(&'static str, &'static str)], field: &str| {
        all.iter().map(|(value, text)| Choice { value, text, chosen: typed.get(field) == *value }).collect()
    };
    let status = if problem.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    let template = TenantPage {
        whose: if shell.tenant.is_empty() { "your tenant".to_owned() } else { shell.tenant.clone() },
        unknown_types: choices(&UNKNOWN_TYPES, "unknown_types"),
        schemas: choices(&SCHEMAS, "schemas"),
        shell,
        typed,
        problem,
    };
    page_with(status, &template)
}

/// The patch of a form: an empty limit is none, and what is no number is the API's to refuse.
fn patch_of(fields: &Fields) -> Value {
    let mut patch = Map::new();
    for name in ["unknown_types", "schemas", "time_zone", "send_at"] {
        patch.insert(name.to_owned(), fields.get(name).into());
    }
    for name in LIMITS {
        let text = fields.get(name);
        let value = match text.parse::<u64>() {
            Ok(limit) => limit.into(),
            Err(_) if text.is_empty() => Value::Null,
            Err(_) => text.into(),
        };
        patch.insert(name.to_owned(), value);
    }
    Value::Object(patch)
}

async fn change(Sent { visit, fields }: Sent) -> Response {
    let made = changed(&visit, fields).await;
    visit.or_refused(Part::Settings, made)
}

async fn changed(visit: &Visit, fields: Fields) -> Answer {
    match visit.api.send::<IgnoredAny>(Method::PATCH, "/v1/settings", Some(&patch_of(&fields))).await {
        Ok(_) => Ok(visit.done("/settings/tenant", "Saved. It counts from now on.")),
        Err(refused) if is_of_form(&refused) => form(visit, fields, Some(Problem::of(&refused))),
        Err(refused) => Err(refused.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_shown_and_sent_back_changes_nothing() {
        let settings = json!({ "unknown_types": "accept", "schemas": "warn", "time_zone": "Europe/Berlin", "send_at": "09:00",
            "max_active_webhooks": null, "max_in_flight": 50, "rate_per_second": null });
        let shown: Settings = serde_json::from_value(settings.clone()).unwrap();
        assert_eq!(patch_of(&shown.fields()), settings);
    }

    #[test]
    fn an_empty_limit_is_none_and_no_number_is_told_as_it_is() {
        let patch = patch_of(&Fields::parse(b"max_in_flight=&rate_per_second=many&max_active_webhooks=+7+"));
        assert_eq!(patch["max_in_flight"], Value::Null);
        assert_eq!(patch["rate_per_second"], "many");
        assert_eq!(patch["max_active_webhooks"], 7);
    }
}
