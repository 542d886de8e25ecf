//! Dead letters: deliveries that were given up, and messages that cannot be processed.

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::response::Response;
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::deliveries::{Delivery, Names};
use super::listing::{Choice, Filtered, plan};
use crate::Console;
use crate::api::{Listed, Refused, segment};
use crate::fields::Fields;
use crate::page::{Answer, Part, Sent, Shell, Visit, page, page_with};
use crate::words::{Html, indented, state, when, when_if};

/// The pages of dead letters, and what is done there.
pub(crate) fn routes() -> Router<Console> {
    Router::new()
        .route("/dead-letters", get(list))
        .route("/dead-letters/redeliver", post(redeliver_all))
        .route("/dead-letters/{id}", get(show))
        .route("/dead-letters/{id}/resolve", post(resolve))
        .route("/dead-letters/{id}/redeliver", post(redeliver))
}

/// Kinds that are listed apart, with what they are called.
const KINDS: [(&str, &str); 4] =
    [("", "All"), ("dead", "Given up"), ("invalid", "Invalid"), ("poison", "Poison")];
/// Which of them are shown.
const SHOWN: [(&str, &str); 3] = [("", "Unresolved"), ("resolved", "Resolved"), ("all", "Both")];
/// The most bytes of a body that are written in hex.
const MAX_HEX_BYTES: usize = 4096;
/// Bytes in a line of hex.
const HEX_LINE: usize = 16;

#[derive(Debug, Deserialize)]
struct Letter {
    id: String,
    kind: String,
    reason: String,
    detail: String,
    #[serde(default)]
    class: String,
    delivery: Option<String>,
    webhook: Option<String>,
    event: Option<String>,
    event_type: Option<String>,
    at: String,
    resolved: bool,
    resolved_at: Option<String>,
    #[serde(default)]
    resolution: String,
}

#[derive(Debug, Deserialize)]
struct Whole {
    #[serde(flatten)]
    letter: Letter,
    content_type: Option<String>,
    body_base64: Option<String>,
    body_text: Option<String>,
}

impl Letter {
    /// What it is, with a mark.
    fn mark(&self) -> Html {
        match self.kind.as_str() {
            "dead" => state("bad", "Given up"),
            "invalid" => state("off", "Invalid"),
            "poison" => state("bad", "Poison"),
            other => state("still", other),
        }
    }

    /// What it is called: its event type, or what it is.
    fn name(&self) -> String {
        match (self.event_type.as_deref(), self.kind.as_str()) {
            (Some(event_type), _) => event_type.to_owned(),
            (None, "invalid") => "A message that was refused".to_owned(),
            (None, "poison") => "A message that cannot be read".to_owned(),
            (None, _) => "A delivery".to_owned(),
        }
    }

    fn reason_in_words(&self) -> String {
        self.reason.replace('_', " ")
    }

    fn can_be_redelivered(&self) -> bool {
        self.delivery.is_some()
    }

    /// What to do about it.
    fn hint(&self) -> &'static str {
        match (self.kind.as_str(), self.reason.as_str()) {
            ("dead", "exhausted") => "Every attempt failed. Mend the receiver, then redeliver.",
            ("dead", "too_old") => {
                "Its time was over before an attempt succeeded. Redelivering begins a new series of attempts."
            }
            ("dead", "gone") => {
                "The receiver answered 410: it wants nothing more. Correct the URL of the webhook, or delete it."
            }
            ("dead", "not_retried") => {
                "The profile of the webhook does not try such an answer again. Mend the receiver, then redeliver."
            }
            ("dead", "test") => "It was a test of the webhook. Nothing of the receiver's is missing.",
            ("dead", _) => {
                "The last attempt says what went wrong; redelivering begins a new series of attempts."
            }
            ("invalid", "unknown_event_type") => {
                "Import a catalogue that has the type, or accept unknown types in the tenant's settings; then publish it again."
            }
            ("invalid", "unknown_action" | "trigger_failed" | "subject_absent") => {
                "The catalogue's triggers say what an action becomes: correct them or the action, then publish it again."
            }
            ("invalid", "schema_violation") => {
                "Correct the data, or the schema in the catalogue; then publish it again."
            }
            ("invalid", "unknown_tenant") => {
                "Create the tenant, or correct the routing key; then publish it again."
            }
            ("invalid", "fan_out_too_large") => {
                "Make the event smaller, or its webhooks fewer; then publish it again."
            }
            ("invalid", _) => "Correct the message, publish it again, and resolve this one.",
            ("poison", _) => {
                "It stopped its readers, or lost its way on RabbitMQ. Keep what is below for a report, then resolve it."
            }
            _ => "",
        }
    }
}

/// A row of the list.
struct Row {
    letter: Letter,
    webhook_name: String,
    at: Html,
    reason: String,
}

#[derive(Template)]
#[template(path = "dead_letters.html")]
struct DeadLettersPage {
    shell: Shell,
    rows: Vec<Row>,
    tabs: Vec<Choice>,
    shown: Vec<Choice>,
    webhooks: Vec<Choice>,
    fields: Fields,
    older: Option<String>,
    newest: Option<String>,
    filtered: bool,
}

/// What the API is asked for: the filters of the address.
fn asked(fields: &Fields) -> Vec<(&'static str, String)> {
    let resolved = match fields.get("show") {
        "" => "false",
        "resolved" => "true",
        _ => "",
    };
    let query = [("kind", fields.get("kind")), ("reason", fields.get("reason")), ("resolved", resolved)];
    query
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (name, value.to_owned()))
        .collect()
}

/// The same with the command line.
fn command(fields: &Fields) -> String {
    let mut command = "postrider dead list".to_owned();
    for name in ["kind", "reason"] {
        if fields.has(name) {
            command.push_str(&format!(" --{name} '{}'", fields.get(name).replace('\'', "")));
        }
    }
    if !fields.has("show") {
        command.push_str(" --unresolved");
    }
    command
}

async fn list(visit: Visit) -> Response {
    let made = listed(&visit).await;
    visit.or_refused(Part::Deliveries, made)
}

async fn listed(visit: &Visit) -> Answer {
    let fields = visit.query();
    let query = asked(&fields);
    let mut pairs: Vec<(&str, &str)> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
    pairs.push(("cursor", fields.get("cursor")));
    let found: Listed<Letter> = visit.api.get("/v1/dead-letters", &pairs).await?;
    let names = Names::read(visit).await;
    let list = Filtered { path: "/dead-letters", fields: &fields };
    let (older, newest) = (list.older(found.next, visit.now), list.newest());
    let row = |letter: Letter| Row {
        webhook_name: letter.webhook.as_deref().map(|id| names.of(id)).unwrap_or_default(),
        at: when(&letter.at, visit.now),
        reason: letter.reason_in_words(),
        letter,
    };
    let mut shell = visit.shell(Part::Deliveries, "Dead letters");
    shell.command = command(&fields);
    shell.live = newest.is_none();
    page(&DeadLettersPage {
        shell,
        rows: found.items.into_iter().map(row).collect(),
        tabs: KINDS.iter().map(|(value, name)| list.choice(name, value, "kind")).collect(),
        shown: SHOWN.iter().map(|(value, name)| list.choice(name, value, "show")).collect(),
        webhooks: names.0.iter().map(|named| list.choice(&named.name, &named.id, "webhook")).collect(),
        filtered: fields.has("kind") || fields.has("reason") || fields.has("show"),
        fields,
        older,
        newest,
    })
}

/// Plans to make all again that was given up; nothing is sent before somebody has seen how much that is.
async fn redeliver_all(Sent { visit, fields }: Sent) -> Response {
    let made = plan(&visit, &replay_of(fields.get("webhook")), "/dead-letters").await;
    visit.or_refused(Part::Deliveries, made)
}

/// The body that plans a replay of what was given up, to one webhook or to all.
fn replay_of(webhook: &str) -> Value {
    let mut body = json!({ "states": ["dead"] });
    if !webhook.is_empty() {
        body["webhook"] = webhook.into();
    }
    body
}

#[derive(Template)]
#[template(path = "dead_letter.html")]
struct DeadLetterPage {
    shell: Shell,
    letter: Letter,
    name: String,
    reason: String,
    class: String,
    at: Html,
    resolved_at: Html,
    webhook_name: String,
    content_type: String,
    body: Option<Shown>,
    advice: String,
    /// What was typed as the reason for resolving it, and what is wrong with that.
    typed: String,
    problem: Option<String>,
}

/// A body, as people can read it.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    text: String,
    is_hex: bool,
    /// How many bytes were left out.
    left_out: usize,
}

async fn show(visit: Visit, Path(id): Path<String>) -> Response {
    let made = shown(&visit, &id, "", None).await;
    visit.or_refused(Part::Deliveries, made)
}

/// The page of a dead letter; with a problem it is the answer to a form that must be sent again.
async fn shown(visit: &Visit, id: &str, typed: &str, refused: Option<Refused>) -> Answer {
    let whole: Whole = visit.api.get(&format!("/v1/dead-letters/{}", segment(id)), &[]).await?;
    let names = Names::read(visit).await;
    let letter = whole.letter;
    let advice = match &letter.delivery {
        Some(delivery) => {
            let path = format!("/v1/deliveries/{}", segment(delivery));
            let delivery = visit.api.get::<Delivery>(&path, &[]).await.ok();
            delivery.map(|delivery| delivery.advice().to_owned()).unwrap_or_default()
        }
        None => String::new(),
    };
    let mut shell = visit.shell(Part::Deliveries, format!("{}, dead letter", letter.name()));
    shell.command = format!("postrider dead get {}", letter.id);
    shell.live = false;
    let status = if refused.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    let template = DeadLetterPage {
        shell,
        name: letter.name(),
        reason: letter.reason_in_words(),
        class: letter.class.replace('_', " "),
        at: when(&letter.at, visit.now),
        resolved_at: when_if(letter.resolved_at.as_deref(), visit.now),
        webhook_name: letter.webhook.as_deref().map(|id| names.of(id)).unwrap_or_default(),
        body: readable(whole.body_text.as_deref(), whole.body_base64.as_deref()),
        content_type: whole.content_type.unwrap_or_else(|| "no content type".to_owned()),
        letter,
        advice,
        typed: typed.to_owned(),
        problem: refused.map(|refused| format!("{}. {}", refused.detail, refused.hint)),
    };
    page_with(status, &template)
}

/// The body of a message: as text where it is text, otherwise in hex.
fn readable(text: Option<&str>, base64: Option<&str>) -> Option<Shown> {
    let can_be_read = |text: &str| !text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'));
    if let Some(text) = text.filter(|text| can_be_read(text)) {
        return Some(Shown { text: indented(text), is_hex: false, left_out: 0 });
    }
    let bytes = STANDARD.decode(base64?).ok()?;
    let most = bytes.len().min(MAX_HEX_BYTES);
    Some(Shown { text: hex(&bytes[..most]), is_hex: true, left_out: bytes.len() - most })
}

/// Lines of an offset, sixteen bytes, and the same as characters where they are ones.
fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 5);
    for (line, bytes) in bytes.chunks(HEX_LINE).enumerate() {
        text.push_str(&format!("{:06x} ", line * HEX_LINE));
        for place in 0..HEX_LINE {
            text.push_str(&bytes.get(place).map_or_else(|| "   ".to_owned(), |byte| format!(" {byte:02x}")));
        }
        text.push_str("  ");
        text.extend(
            bytes.iter().map(|byte| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' }),
        );
        text.push('\n');
    }
    text
}

async fn resolve(Path(id): Path<String>, Sent { visit, fields }: Sent) -> Response {
    let made = resolved(&visit, &id, &fields).await;
    visit.or_refused(Part::Deliveries, made)
}

async fn resolved(visit: &Visit, id: &str, fields: &Fields) -> Answer {
    let reason = fields.get("reason");
    let body = if reason.is_empty() { json!({}) } else { json!({ "reason": reason }) };
    let path = format!("/v1/dead-letters/{}/resolve", segment(id));
    match visit.api.send::<Value>(Method::POST, &path, Some(&body)).await {
        Ok(_) => Ok(visit.done("/dead-letters", "Resolved: it is no longer counted.")),
        Err(refused) if refused.field.is_some() => shown(visit, id, reason, Some(refused)).await,
        Err(refused) => visit.not_done(&format!("/dead-letters/{}", segment(id)), &refused),
    }
}

async fn redeliver(Path(id): Path<String>, Sent { visit, .. }: Sent) -> Response {
    let (path, here) =
        (format!("/v1/dead-letters/{}/redeliver", segment(&id)), format!("/dead-letters/{}", segment(&id)));
    let made = match visit.api.send::<Value>(Method::POST, &path, None).await {
        Ok(_) => Ok(visit.done(&here, "Queued: it is sent again. It is resolved when it is delivered.")),
        Err(refused) => visit.not_done(&here, &refused),
    };
    visit.or_refused(Part::Deliveries, made)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(kind: &str, reason: &str) -> Letter {
        let json = json!({ "id": "dl_1", "kind": kind, "reason": reason, "detail": "", "delivery": null, "webhook": null, "event": null,
            "event_type": null, "at": "2026-11-22T20:00:00Z", "resolved": false, "resolved_at": null });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn what_nobody_has_resolved_is_shown_first() {
        assert_eq!(asked(&Fields::parse(b"")), [("resolved", "false".to_owned())]);
        assert!(asked(&Fields::parse(b"show=all")).is_empty());
        assert_eq!(
            asked(&Fields::parse(b"kind=dead&show=resolved&reason=gone&other=x")),
            [("kind", "dead".to_owned()), ("reason", "gone".to_owned()), ("resolved", "true".to_owned())]
        );
        assert_eq!(
            command(&Fields::parse(b"kind=poison")),
            "postrider dead list --kind 'poison' --unresolved"
        );
        assert_eq!(command(&Fields::parse(b"show=all")), "postrider dead list");
    }

    #[test]
    fn all_of_one_webhook_are_planned() {
        assert_eq!(replay_of("wh_1"), json!({ "states": ["dead"], "webhook": "wh_1" }));
        assert_eq!(replay_of(""), json!({ "states": ["dead"] }));
    }

    #[test]
    fn a_body_is_text_where_it_can_be_read() {
        let base64 = STANDARD.encode("{\"a\":1}");
        let text = readable(Some("{\"a\":1}"), Some(&base64)).unwrap();
        assert_eq!(text, Shown { text: "{\n  \"a\": 1\n}".into(), is_hex: false, left_out: 0 });
        assert_eq!(readable(None, None), None);
        assert!(readable(Some("a\u{0}b"), Some("YQBi")).unwrap().is_hex, "control characters");
    }

    #[test]
    fn other_bytes_are_written_in_hex_within_bounds() {
        let shown = readable(None, Some(&STANDARD.encode([0xff, 0x00, b'A', b'<']))).unwrap();
        assert_eq!(shown.text, format!("000000  ff 00 41 3c{}  ..A<\n", "   ".repeat(12)));
        let long = readable(None, Some(&STANDARD.encode([0xfe; 5000]))).unwrap();
        assert_eq!(
            (long.left_out, long.text.lines().count()),
            (5000 - MAX_HEX_BYTES, MAX_HEX_BYTES / HEX_LINE)
        );
        assert_eq!(long.text.lines().last().unwrap().split(' ').next(), Some("000ff0"));
    }

    #[test]
    fn every_kind_says_what_to_do() {
        for (kind, reason) in
            [("dead", "exhausted"), ("dead", "other"), ("invalid", "not_json"), ("poison", "crashes in x")]
        {
            assert!(!letter(kind, reason).hint().is_empty(), "{kind} {reason}");
        }
        assert_eq!(letter("invalid", "not_json").name(), "A message that was refused");
    }
}
