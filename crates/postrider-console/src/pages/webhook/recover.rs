//! Sending again what a webhook missed: a replay is planned, and its job says how much it is before anything is sent.

use askama::Template;
use axum::extract::Path;
use axum::response::Response;
use http::StatusCode;
use postrider_core::Timestamp;
use serde_json::{Map, Value, json};

use super::{Tab, Webhook, read, shell, tabs};
use crate::fields::Fields;
use crate::page::{Answer, Part, Sent, Shell, Visit, page_with};
use crate::pages::listing;
use crate::pages::webhook_form::Wrong;
use crate::words::relative;

/// How far back a recovery goes.
const RANGES: [(&str, &str, u64); 5] = [
    ("1h", "The last hour", 3_600_000),
    ("6h", "The last 6 hours", 6 * 3_600_000),
    ("24h", "The last 24 hours", 86_400_000),
    ("7d", "The last 7 days", 7 * 86_400_000),
    ("all", "Everything that is kept", 0),
];
/// How deliveries can have ended, with what is said of it and whether it is chosen at first.
const STATES: [(&str, &str, bool); 4] = [
    ("dead", "Given up", true),
    ("skipped", "Skipped, since the webhook was disabled, expired or not yet active", true),
    ("cancelled", "Called off", false),
    ("delivered", "Delivered: the receiver gets them again, with the same webhook-id", false),
];

/// Something to choose.
struct Choice {
    value: String,
    name: String,
    chosen: bool,
}

#[derive(Template)]
#[template(path = "webhook_recover.html")]
struct RecoverTab {
    shell: Shell,
    webhook: Webhook,
    tabs: Vec<Tab>,
    ranges: Vec<Choice>,
    states: Vec<Choice>,
    fields: Fields,
    wrong: Wrong,
}

/// The form.
pub(super) fn show(visit: &Visit, webhook: Webhook) -> Answer {
    shown(visit, webhook, Fields::default(), Wrong::default())
}

fn shown(visit: &Visit, webhook: Webhook, fields: Fields, wrong: Wrong) -> Answer {
    let mut shell = shell(visit, &webhook, false);
    shell.command = format!("postrider replay plan --webhook {}", webhook.id);
    let status = if wrong.is_any() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    let page = RecoverTab {
        shell,
        tabs: tabs(&webhook, "recover"),
        ranges: ranges(&webhook, &fields, visit.now),
        states: states(&fields),
        webhook,
        fields,
        wrong,
    };
    page_with(status, &page)
}

/// Since when: moments that the webhook is known for come first.
fn ranges(webhook: &Webhook, fields: &Fields, now: Timestamp) -> Vec<Choice> {
    let success = webhook.health.as_ref().and_then(|health| health.last_success_at.as_deref());
    let known =
        [("Since the last success", success), ("Since it was disabled", webhook.disabled_at.as_deref())];
    let mut choices: Vec<Choice> = known
        .into_iter()
        .filter_map(|(words, at)| {
            let at = at?;
            let ago = relative(Timestamp::parse_rfc3339(at)?, now);
            Some(Choice { value: at.to_owned(), name: format!("{words}, {ago}"), chosen: false })
        })
        .collect();
    choices.extend(RANGES.iter().map(|(value, name, _)| Choice {
        value: (*value).into(),
        name: (*name).into(),
        chosen: false,
    }));
    let wanted = fields.get("since");
    for (i, choice) in choices.iter_mut().enumerate() {
        choice.chosen = if wanted.is_empty() { i == 0 } else { choice.value == wanted };
    }
    choices
}

fn states(fields: &Fields) -> Vec<Choice> {
    let asked = fields.has("csrf");
    let chosen =
        |value: &str, first: bool| if asked { fields.all("state").any(|it| it == value) } else { first };
    let choice = |(value, name, first): &(&str, &str, bool)| Choice {
        value: (*value).to_owned(),
        name: (*name).to_owned(),
        chosen: chosen(value, *first),
    };
    STATES.iter().map(choice).collect()
}

/// Plans the replay, and goes to its job.
pub(super) async fn plan(Path(id): Path<String>, Sent { visit, fields }: Sent) -> Response {
    let made = planned(&visit, &id, fields).await;
    visit.or_refused(Part::Webhooks, made)
}

async fn planned(visit: &Visit, id: &str, fields: Fields) -> Answer {
    let body = match body_of(id, &fields, visit.now) {
        Ok(body) => Value::Object(body),
        Err(wrong) => return shown(visit, read(visit, id).await?, fields, wrong),
    };
    match listing::planned(visit, &body).await {
        Ok(to_plan) => Ok(to_plan),
        Err(refused) if refused.is_logged_out() => Err(refused.into()),
        Err(refused) => {
            let mut wrong = Wrong::from(&refused);
            wrong.input = input_of(refused.field.as_deref()).to_owned();
            shown(visit, read(visit, id).await?, fields, wrong)
        }
    }
}

fn input_of(member: Option<&str>) -> &'static str {
    match member.unwrap_or_default().split('[').next() {
        Some("since") => "since",
        Some("states") => "state",
        Some("rate_per_second") => "rate",
        _ => "",
    }
}

/// The body that plans the replay.
fn body_of(webhook: &str, fields: &Fields, now: Timestamp) -> Result<Map<String, Value>, Wrong> {
    let states: Vec<&str> = fields.all("state").collect();
    if states.is_empty() {
        return Err(Wrong::at("state", "Choose at least one."));
    }
    let mut body = Map::new();
    body.insert("webhook".to_owned(), webhook.into());
    body.insert("states".to_owned(), json!(states));
    let since = fields.get("since");
    match RANGES.iter().find(|(value, ..)| *value == since) {
        Some((.., 0)) => {}
        Some((.., ms)) => {
            body.insert("since".to_owned(), now.minus_ms(*ms).to_rfc3339().into());
        }
        None if since.is_empty() => {}
        None => {
            body.insert("since".to_owned(), since.into());
        }
    }
    if fields.has("rate") {
        let rate = fields.get("rate").parse::<u32>();
        let rate = rate.map_err(|_| Wrong::at("rate", "Write a whole number that is not negative."))?;
        body.insert("rate_per_second".to_owned(), rate.into());
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::parse_rfc3339("2026-11-22T20:00:00Z").unwrap()
    }

    fn body(text: &str) -> Result<Value, Wrong> {
        body_of("wh_1", &Fields::parse(text.as_bytes()), now()).map(Value::Object)
    }

    #[test]
    fn a_recovery_is_a_replay_of_this_webhook() {
        assert_eq!(
            body("state=dead&state=skipped&since=6h&rate=50").unwrap(),
            json!({"webhook": "wh_1", "states": ["dead", "skipped"], "since": "2026-11-22T14:00:00Z", "rate_per_second": 50})
        );
        assert_eq!(body("state=dead&since=all").unwrap(), json!({"webhook": "wh_1", "states": ["dead"]}));
        let exact = body("state=dead&since=2026-11-22T18%3A00%3A00Z").unwrap();
        assert_eq!(exact["since"], "2026-11-22T18:00:00Z");
        assert_eq!(body("since=1h").unwrap_err().input, "state");
        assert_eq!(body("state=dead&rate=fast").unwrap_err().input, "rate");
    }

    #[test]
    fn what_is_known_of_the_webhook_is_offered_first() {
        let webhook: Webhook =
            serde_json::from_value(json!({"id": "wh_1", "disabled_at": "2026-11-22T19:00:00Z",
            "health": {"last_success_at": "2026-11-22T18:00:00Z"}}))
            .unwrap();
        let choices = ranges(&webhook, &Fields::default(), now());
        let told: Vec<(&str, bool)> =
            choices.iter().take(3).map(|it| (it.name.as_str(), it.chosen)).collect();
        assert_eq!(
            told,
            [
                ("Since the last success, 2 h ago", true),
                ("Since it was disabled, 1 h ago", false),
                ("The last hour", false)
            ]
        );
        let chosen = ranges(&webhook, &Fields::parse(b"since=7d"), now());
        assert_eq!(chosen.iter().find(|it| it.chosen).unwrap().value, "7d");
    }

    #[test]
    fn what_was_not_ticked_stays_so() {
        let ticked =
            |text: &[u8]| -> Vec<bool> { states(&Fields::parse(text)).iter().map(|it| it.chosen).collect() };
        assert_eq!(ticked(b""), [true, true, false, false]);
        assert_eq!(ticked(b"csrf=x&state=delivered"), [false, false, false, true]);
    }
}
