//! Trying a webhook: one signed request with an example, through the same way as every event.

use askama::Template;
use axum::extract::Path;
use axum::response::Response;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Tab, Webhook, link, read, shell, tabs};
use crate::api::segment;
use crate::fields::Fields;
use crate::page::{Answer, Part, Sent, Shell, Visit, page_with};
use crate::pages::deliveries::Delivery;
use crate::pages::webhook_form::Wrong;
use crate::words::Html;

/// The most event types that are offered.
const MAX_OFFERED: usize = 500;
/// What is sent where the catalogue has no example.
const NO_EXAMPLE: &str = "{\n  \"current_context\": {},\n  \"data\": {}\n}";

/// What is read of an event type.
#[derive(Debug, Deserialize)]
struct Known {
    #[serde(default)]
    example: Option<String>,
}

/// A test that was sent, and what became of it.
struct Outcome {
    delivery: Option<Delivery>,
    id: String,
    mark: Html,
}

#[derive(Template)]
#[template(path = "webhook_test.html")]
struct TestTab {
    shell: Shell,
    webhook: Webhook,
    tabs: Vec<Tab>,
    event_type: String,
    payload: String,
    wrong: Wrong,
    sent: Option<Outcome>,
}

impl TestTab {
    /// The event types that are offered: those that the webhook takes.
    fn offered(&self) -> &[String] {
        let all = self.webhook.subscription.means_today.as_deref().unwrap_or_default();
        &all[..all.len().min(MAX_OFFERED)]
    }
}

/// The form with an example of the type that is asked for; or the test that was sent.
pub(super) async fn show(visit: &Visit, webhook: Webhook, query: &Fields) -> Answer {
    if query.has("sent") {
        let sent = outcome(visit, query.get("sent")).await;
        return shown(visit, webhook, String::new(), String::new(), Wrong::default(), Some(sent));
    }
    let first = webhook.subscription.means_today.iter().flatten().next();
    let event_type = match query.get("event_type") {
        "" => first.cloned().unwrap_or_default(),
        asked => asked.to_owned(),
    };
    let payload = example(visit, &event_type).await;
    shown(visit, webhook, event_type, payload, Wrong::default(), None)
}

fn shown(
    visit: &Visit,
    webhook: Webhook,
    event_type: String,
    payload: String,
    wrong: Wrong,
    sent: Option<Outcome>,
) -> Answer {
    let mut shell = shell(visit, &webhook, sent.is_some());
    shell.command = format!("postrider webhook test {}", webhook.id);
    let status = if wrong.is_any() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    page_with(
        status,
        &TestTab { shell, tabs: tabs(&webhook, "test"), webhook, event_type, payload, wrong, sent },
    )
}

/// What became of a test. Its delivery is not known before the router has seen it.
async fn outcome(visit: &Visit, id: &str) -> Outcome {
    let delivery = visit.api.get::<Delivery>(&format!("/v1/deliveries/{}", segment(id)), &[]).await.ok();
    let mark = delivery.as_ref().map_or_else(|| crate::words::state("still", "On its way"), Delivery::mark);
    Outcome { delivery, id: id.to_owned(), mark }
}

/// What the catalogue has as an example of this type.
async fn example(visit: &Visit, event_type: &str) -> String {
    if event_type.is_empty() {
        return NO_EXAMPLE.to_owned();
    }
    let known = visit.api.get::<Known>(&format!("/v1/event-types/{}", segment(event_type)), &[]).await;
    known.ok().and_then(|known| payload_of(&known.example?)).unwrap_or_else(|| NO_EXAMPLE.to_owned())
}

/// What of an example can be changed: who owns the rest is Postrider.
fn payload_of(example: &str) -> Option<String> {
    let Value::Object(mut event) = serde_json::from_str(example).ok()? else { return None };
    event.retain(|name, _| matches!(name.as_str(), "current_context" | "data"));
    serde_json::to_string_pretty(&event).ok()
}

/// Sends it, and goes to where its outcome is shown.
pub(super) async fn send(Path(id): Path<String>, Sent { visit, fields }: Sent) -> Response {
    let made = sent(&visit, &id, &fields).await;
    visit.or_refused(Part::Webhooks, made)
}

#[derive(Deserialize)]
struct Trial {
    delivery_id: String,
}

async fn sent(visit: &Visit, id: &str, fields: &Fields) -> Answer {
    let (event_type, payload) = (fields.get("event_type").to_owned(), fields.exactly("payload").to_owned());
    let body = match body_of(&event_type, &payload) {
        Ok(body) => Value::Object(body),
        Err(wrong) => return shown(visit, read(visit, id).await?, event_type, payload, wrong, None),
    };
    match visit
        .api
        .send::<Trial>(Method::POST, &format!("/v1/webhooks/{}/test", segment(id)), Some(&body))
        .await
    {
        Ok(trial) => {
            let there = format!("{}&sent={}", link(id, "test"), segment(&trial.delivery_id));
            Ok(visit.done(&there, "Sent: one signed request, and no other."))
        }
        Err(refused) if refused.is_logged_out() || refused.status == 404 => Err(refused.into()),
        Err(refused) => {
            let mut wrong = Wrong::from(&refused);
            wrong.input = input_of(refused.field.as_deref()).to_owned();
            shown(visit, read(visit, id).await?, event_type, payload, wrong, None)
        }
    }
}

fn input_of(member: Option<&str>) -> &'static str {
    match member.unwrap_or_default().split('.').next() {
        Some("event_type") => "event_type",
        Some("data" | "current_context") => "payload",
        _ => "",
    }
}

/// The body of the API's operation. What is left empty is the API's choice.
fn body_of(event_type: &str, payload: &str) -> Result<Map<String, Value>, Wrong> {
    let mut body = Map::new();
    if !payload.trim().is_empty() {
        let read = serde_json::from_str::<Value>(payload)
            .map_err(|e| Wrong::at("payload", format!("This is not JSON: {e}.")))?;
        let Value::Object(members) = read else {
            return Err(Wrong::at("payload", "This is no JSON object with data and current_context."));
        };
        if let Some(other) = members.keys().find(|name| !matches!(name.as_str(), "current_context" | "data"))
        {
            let text = format!("Only data and current_context can be given; there is {other:?} beside them.");
            return Err(Wrong::at("payload", text));
        }
        body = members;
    }
    if !event_type.is_empty() {
        body.insert("event_type".to_owned(), event_type.into());
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_left_empty_is_the_apis_choice() {
        assert_eq!(Value::Object(body_of("", "  ").unwrap()), json!({}));
        let body = body_of("A", "{\"data\": {\"n\": 1}, \"current_context\": null}").unwrap();
        assert_eq!(
            Value::Object(body),
            json!({"event_type": "A", "data": {"n": 1}, "current_context": null})
        );
    }

    #[test]
    fn what_is_no_payload_is_told() {
        for (payload, text) in
            [("{", "not JSON"), ("[]", "no JSON object"), ("{\"event_type\": \"B\"}", "event_type")]
        {
            let wrong = body_of("A", payload).unwrap_err();
            assert!(wrong.input == "payload" && wrong.text.contains(text), "{}", wrong.text);
        }
    }

    #[test]
    fn an_example_is_shown_without_what_postrider_fills_in() {
        let shown = payload_of("{\"event_type\":\"A\",\"event_time\":\"x\",\"data\":{\"n\":1}}").unwrap();
        assert_eq!(shown, "{\n  \"data\": {\n    \"n\": 1\n  }\n}");
        assert_eq!(payload_of("no JSON"), None);
    }
}
