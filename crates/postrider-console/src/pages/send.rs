//! Sending an event by hand: the form, the same in other ways, and what became of it.

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::response::Response;
use axum::routing::get;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::catalogue::{TypeInShort, every_type};
use super::deliveries::Names;
use super::events::{Taker, Whole, takers};
use crate::Console;
use crate::api::{Refused, segment};
use crate::fields::Fields;
use crate::page::{Answer, Part, Sent, Shell, Visit, page, page_with};
use crate::words::{Html, counted, indented, on_one_line, state};

/// The form, and the page that follows what was sent.
pub(crate) fn routes() -> Router<Console> {
    Router::new().route("/send", get(form).post(send)).route("/send/{id}", get(follow))
}

/// What is typed into the form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Typed {
    event_type: String,
    data: String,
    context: String,
    key: String,
    id: String,
}

/// What is wrong with the form, and with which field.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Problem {
    /// The field's name; empty for the whole.
    field: &'static str,
    text: String,
}

impl Typed {
    fn of(fields: &Fields) -> Self {
        Self {
            event_type: fields.get("event_type").to_owned(),
            data: fields.exactly("data").to_owned(),
            context: fields.exactly("current_context").to_owned(),
            key: fields.get("key").to_owned(),
            id: fields.get("id").to_owned(),
        }
    }

    /// An event of this type, as the catalogue's example has it if there is one.
    fn like(event_type: &str, example: Option<&str>) -> Self {
        let example: Example = example.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let member = |value: Option<Box<RawValue>>| value.map(|value| indented(value.get()));
        Self {
            event_type: event_type.to_owned(),
            data: member(example.data).unwrap_or_else(|| "{}".to_owned()),
            context: member(example.current_context).unwrap_or_default(),
            key: example.key.as_str().unwrap_or_default().to_owned(),
            id: String::new(),
        }
    }

    /// The body that reports it. Data and context are in it as they were typed: members in their order, numbers as they are spelt.
    fn body(&self) -> Result<String, Problem> {
        if self.event_type.is_empty() {
            let text = "Name the type of the event.".to_owned();
            return Err(Problem { field: "event_type", text });
        }
        let named = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let body = Body {
            event_type: &self.event_type,
            id: named(&self.id),
            key: named(&self.key),
            current_context: json_in("current_context", &self.context)?,
            data: json_in("data", &self.data)?,
        };
        serde_json::to_string(&body).map_err(|error| Problem { field: "", text: format!("{error}.") })
    }
}

/// An event as the API takes it.
#[derive(Serialize)]
struct Body<'a> {
    event_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_context: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Box<RawValue>>,
}

/// What the form takes from an example of the catalogue.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Example {
    current_context: Option<Box<RawValue>>,
    data: Option<Box<RawValue>>,
    key: Value,
}

/// The JSON in a field, without the spaces between its parts; nothing where nothing is typed.
fn json_in(field: &'static str, text: &str) -> Result<Option<Box<RawValue>>, Problem> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    let wrong = |error: serde_json::Error| Problem { field, text: format!("This is not JSON: {error}.") };
    serde_json::from_str::<&RawValue>(text).map_err(wrong)?;
    RawValue::from_string(on_one_line(text)).map(Some).map_err(wrong)
}

/// The API's problem, at the field that it is about.
fn problem_of(refused: &Refused) -> Problem {
    let field = match refused.field.as_deref().unwrap_or_default() {
        "event_type" | "action" => "event_type",
        "id" => "id",
        "key" => "key",
        field if field.starts_with("data") => "data",
        field if field.starts_with("current_context") => "current_context",
        _ => "",
    };
    let detail = refused.detail.trim_end_matches('.');
    let kept = if refused.status == 503 {
        " It may have been stored or not: with an event id it can be sent again safely."
    } else {
        ""
    };
    let hint = if refused.status == 503 { "" } else { refused.hint.as_str() };
    Problem { field, text: format!("{detail}. {hint}{kept}").replace("  ", " ") }
}

/// The same event, sent in other ways.
struct Ways {
    curl: String,
    command: String,
    amqp: String,
    rust: String,
}

/// Text for a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

impl Ways {
    fn of(typed: &Typed, tenant: &str) -> Self {
        let tenant = if tenant.is_empty() { "default" } else { tenant };
        let typed = if typed.event_type.is_empty() {
            Typed {
                event_type: "USER_LOGIN".to_owned(),
                data: "{\"sub\":\"u-1\"}".to_owned(),
                ..Typed::default()
            }
        } else {
            typed.clone()
        };
        let body = typed.body().unwrap_or_default();
        Self {
            curl: curl(&body, tenant),
            command: command(&typed, tenant),
            amqp: amqp(&body, tenant),
            rust: rust(&typed, tenant),
        }
    }
}

fn curl(body: &str, tenant: &str) -> String {
    let tenant = if tenant == "default" { String::new() } else { format!("?tenant={}", segment(tenant)) };
    format!(
        "curl -X POST \"$POSTRIDER_API_URL/v1/events{tenant}\" \\\n  -H \"Authorization: Bearer $POSTRIDER_API_TOKEN\" \\\n  \
         -H 'Content-Type: application/json' \\\n  --data {}",
        quoted(body)
    )
}

fn command(typed: &Typed, tenant: &str) -> String {
    let mut command = "postrider".to_owned();
    if tenant != "default" {
        command.push_str(&format!(" --tenant {}", quoted(tenant)));
    }
    command.push_str(&format!(" event send {}", quoted(&typed.event_type)));
    let (data, context) = (on_one_line(&typed.data), on_one_line(&typed.context));
    for (option, value) in [("data", &data), ("context", &context), ("key", &typed.key), ("id", &typed.id)] {
        if !value.trim().is_empty() {
            command.push_str(&format!(" \\\n  --{option} {}", quoted(value)));
        }
    }
    command.push_str(" --wait");
    command
}

fn amqp(body: &str, tenant: &str) -> String {
    format!(
        "exchange:      postrider.events\nrouting key:   {tenant}\ncontent_type:  application/json\ndelivery_mode: 2\n\n{body}\n\n\
         rabbitmqadmin publish exchange=postrider.events routing_key={} \\\n  \
         properties='{{\"content_type\":\"application/json\",\"delivery_mode\":2}}' \\\n  payload={}",
        quoted(tenant),
        quoted(body)
    )
}

fn rust(typed: &Typed, tenant: &str) -> String {
    let data = if typed.data.trim().is_empty() { "null" } else { typed.data.trim() };
    let mut event = format!("NewEvent::new({:?}, &json!({data}))", typed.event_type);
    let mut add = |call: &str, value: &str| {
        if !value.is_empty() {
            event.push_str(&format!("\n    .{call}({value})"));
        }
    };
    let context = typed.context.trim();
    add("context", &if context.is_empty() { String::new() } else { format!("&json!({context})") });
    for (call, value) in [("id", typed.id.as_str()), ("key", typed.key.as_str())] {
        add(call, &if value.is_empty() { String::new() } else { format!("{value:?}") });
    }
    add("tenant", &if tenant == "default" { String::new() } else { format!("{tenant:?}") });
    format!(
        "use postrider_producer::{{NewEvent, Producer, Settings}};\nuse serde_json::json;\n\n\
         let producer = Producer::connect(Settings::new(amqp_url)).await?;\nlet event = {event};\n\
         let id = producer.publish(event).await?;"
    )
}

#[derive(Template)]
#[template(path = "send.html")]
struct SendPage {
    shell: Shell,
    typed: Typed,
    types: Vec<TypeInShort>,
    problem: Option<Problem>,
    ways: Ways,
    sensitive: bool,
    unknown: bool,
}

impl SendPage {
    /// What is wrong with a field, if something is.
    fn wrong(&self, field: &str) -> Option<&str> {
        self.problem.as_ref().filter(|problem| problem.field == field).map(|problem| problem.text.as_str())
    }
}

/// What the form takes from the catalogue.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Known {
    example: Option<String>,
    sensitive: bool,
}

async fn form(visit: Visit) -> Response {
    let made = empty(&visit).await;
    visit.or_refused(Part::Events, made)
}

async fn empty(visit: &Visit) -> Answer {
    let query = visit.query();
    let wanted = query.get("type");
    let known = if wanted.is_empty() {
        None
    } else {
        visit.api.get::<Known>(&format!("/v1/event-types/{}", segment(wanted)), &[]).await.ok()
    };
    let example = known.as_ref().and_then(|known| known.example.as_deref());
    let typed = Typed::like(wanted, example);
    let page_of = form_page(visit, typed, None).await;
    let sensitive = known.as_ref().is_some_and(|known| known.sensitive);
    page(&SendPage { sensitive, unknown: !wanted.is_empty() && known.is_none(), ..page_of })
}

async fn form_page(visit: &Visit, typed: Typed, problem: Option<Problem>) -> SendPage {
    // Without the catalogue any type can still be typed.
    let types = every_type(visit, &[]).await.map(|(types, _)| types).unwrap_or_default();
    let ways = Ways::of(&typed, visit.session.tenant.as_deref().unwrap_or_default());
    let mut shell = visit.shell(Part::Events, "Send an event");
    shell.live = false;
    SendPage { shell, typed, types, problem, ways, sensitive: false, unknown: false }
}

/// What was accepted, as the API answers.
#[derive(Debug, Deserialize)]
struct Accepted {
    items: Vec<AcceptedEvent>,
}

#[derive(Debug, Deserialize)]
struct AcceptedEvent {
    id: String,
    duplicate: bool,
}

async fn send(Sent { visit, fields }: Sent) -> Response {
    let made = sent(&visit, &fields).await;
    visit.or_refused(Part::Events, made)
}

async fn sent(visit: &Visit, fields: &Fields) -> Answer {
    let typed = Typed::of(fields);
    let problem = match typed.body() {
        Err(problem) => problem,
        Ok(body) => match visit.api.send_text::<Accepted>("/v1/events", body).await {
            Ok(accepted) => return Ok(went(visit, &accepted)),
            // Another page says what a key may not do.
            Err(refused) if matches!(refused.status, 401 | 403) => return Err(refused.into()),
            Err(refused) => problem_of(&refused),
        },
    };
    page_with(StatusCode::UNPROCESSABLE_ENTITY, &form_page(visit, typed, Some(problem)).await)
}

fn went(visit: &Visit, accepted: &Accepted) -> Response {
    let Some(event) = accepted.items.first() else { return visit.done("/events", "Accepted.") };
    let text = if event.duplicate {
        "Duplicate: there is an event of this id already, so this one changes nothing. That one is shown."
    } else {
        "Accepted: RabbitMQ has it on disk."
    };
    visit.done(&format!("/send/{}", segment(&event.id)), text)
}

/// A step on the way of an event.
struct Step {
    mark: Html,
    text: String,
}

/// How far an event is.
fn steps(event: Option<&Whole>) -> Vec<Step> {
    let step = |kind, word, text: String| Step { mark: state(kind, word), text };
    let mut steps = vec![step("ok", "Accepted", "RabbitMQ has it on disk.".into())];
    let Some(whole) = event else {
        steps.push(step(
            "still",
            "Waiting",
            "No router has told of it yet. This page looks again by itself.".into(),
        ));
        return steps;
    };
    let of = |state: &str| whole.deliveries.iter().filter(|delivery| delivery.state == state).count() as u64;
    match whole.event.fate.as_str() {
        "invalid" => {
            let detail = whole.event.detail.clone().unwrap_or_default();
            steps.push(step("bad", "Refused", format!("{}: {detail}", whole.event.why())));
        }
        "unmatched" => steps.push(step("skipped", "Unmatched", "No webhook asks for it.".into())),
        _ => {
            let owed = counted(whole.deliveries.len() as u64, "webhook takes it", "webhooks take it");
            steps.push(step("ok", "Routed", format!("{owed}.")));
            if whole.goes_on() {
                let text = format!(
                    "{} of {} have ended.",
                    whole.deliveries.len() as u64 - of("pending"),
                    whole.deliveries.len()
                );
                steps.push(step("still", "Under way", text));
            } else {
                let kind = if of("dead") > 0 { "bad" } else { "ok" };
                steps.push(step(
                    kind,
                    "Ended",
                    format!("{} of {} were delivered.", of("delivered"), whole.deliveries.len()),
                ));
            }
        }
    }
    steps
}

#[derive(Template)]
#[template(path = "sent.html")]
struct SentPage {
    shell: Shell,
    id: String,
    event_type: String,
    steps: Vec<Step>,
    takers: Vec<Taker>,
    link: String,
    known: bool,
    again: String,
    unmatched: bool,
}

async fn follow(visit: Visit, Path(id): Path<String>) -> Response {
    let made = followed(&visit, &id).await;
    visit.or_refused(Part::Events, made)
}

async fn followed(visit: &Visit, id: &str) -> Answer {
    let whole = match visit.api.get::<Whole>(&format!("/v1/events/{}", segment(id)), &[]).await {
        Ok(whole) => Some(whole),
        Err(refused) if refused.status == 404 => None,
        Err(refused) => return Err(refused.into()),
    };
    let names = Names::read(visit).await;
    let steps = steps(whole.as_ref());
    let mut shell = visit.shell(Part::Events, "Sent");
    shell.command = format!("postrider event get '{}'", id.replace('\'', ""));
    shell.live = whole.as_ref().is_none_or(Whole::goes_on);
    let known = whole.is_some();
    let (event_type, unmatched, deliveries) = whole.map_or_else(Default::default, |whole| {
        (whole.event.event_type, whole.event.fate == "unmatched", whole.deliveries)
    });
    page(&SentPage {
        shell,
        id: id.to_owned(),
        steps,
        takers: takers(deliveries, &names, visit.now),
        link: format!("/events/{}", segment(id)),
        known,
        again: if event_type.is_empty() {
            "/send".into()
        } else {
            format!("/send?type={}", segment(&event_type))
        },
        event_type,
        unmatched,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::{NOW, Stage};
    use axum::Json;
    use axum::routing::post;
    use serde_json::json;

    fn typed() -> Typed {
        Typed {
            event_type: "USER LOGIN".into(),
            data: "{\n  \"name\": \"O'Hara\"\n}".into(),
            key: "u-1".into(),
            ..Typed::default()
        }
    }

    #[test]
    fn the_form_becomes_a_body() {
        let fields =
            Fields::parse(b"event_type=+A+&data=%7B%22a%22%3A1%7D&current_context=+&key=&id=e-1&csrf=x");
        let body = Typed::of(&fields).body().unwrap();
        assert_eq!(body, r#"{"event_type":"A","id":"e-1","data":{"a":1}}"#);
        let typed = |data: &str| Typed { data: data.into(), ..typed() }.body().unwrap();
        assert!(
            typed(" {\"z\": 1.10, \"a\": 12345678901234567890123, \"b\": 1E2} ")
                .ends_with(r#""data":{"z":1.10,"a":12345678901234567890123,"b":1E2}}"#),
            "as it was typed"
        );
        assert_eq!(Typed::default().body().unwrap_err().field, "event_type");
        let bad = Typed { data: "{".into(), ..self::typed() }.body().unwrap_err();
        assert_eq!(bad.field, "data");
        assert!(bad.text.starts_with("This is not JSON: EOF while parsing"), "{}", bad.text);
    }

    #[test]
    fn an_example_fills_the_form() {
        let example = r#"{"event_type":"A","current_context":{"c":1},"data":{"d":[2]},"key":"k"}"#;
        let typed = Typed::like("A", Some(example));
        assert_eq!((typed.data.as_str(), typed.key.as_str()), ("{\n  \"d\": [\n    2\n  ]\n}", "k"));
        assert!(typed.body().unwrap().contains(r#""current_context":{"c":1}"#));
        let in_order = Typed::like("A", Some(r#"{"data":{"z":1.0,"a":2}}"#)).data;
        assert_eq!(in_order, "{\n  \"z\": 1.0,\n  \"a\": 2\n}");
        assert_eq!(Typed::like("A", None).data, "{}");
    }

    #[test]
    fn the_same_can_be_sent_in_other_ways() {
        let ways = Ways::of(&typed(), "acme");
        assert!(ways.curl.contains("/v1/events?tenant=acme\""), "{}", ways.curl);
        assert!(ways.curl.contains(r"O'\''Hara"), "{}", ways.curl);
        assert_eq!(
            ways.command,
            "postrider --tenant 'acme' event send 'USER LOGIN' \\\n  --data '{\"name\":\"O'\\''Hara\"}' \\\n  --key 'u-1' --wait"
        );
        assert!(
            ways.amqp.starts_with("exchange:      postrider.events\nrouting key:   acme\n"),
            "{}",
            ways.amqp
        );
        assert!(ways.rust.contains("NewEvent::new(\"USER LOGIN\", &json!({"), "{}", ways.rust);
        assert!(ways.rust.contains(".tenant(\"acme\")"), "{}", ways.rust);
        assert!(!Ways::of(&typed(), "").rust.contains("tenant"), "the default needs no name");
    }

    #[test]
    fn a_problem_is_told_at_its_field() {
        let refused = |field: Option<&str>, status: u16| Refused {
            status,
            code: "bad_event".into(),
            detail: "it is no id".into(),
            hint: "Give another.".into(),
            field: field.map(str::to_owned),
            more: serde_json::Map::new(),
        };
        assert_eq!(
            problem_of(&refused(Some("id"), 422)),
            Problem { field: "id", text: "it is no id. Give another.".into() }
        );
        assert_eq!(problem_of(&refused(None, 422)).field, "");
        assert!(problem_of(&refused(None, 503)).text.contains("with an event id"));
    }

    #[test]
    fn steps_say_how_far_it_is() {
        let whole = |fate: &str, states: &[&str]| -> Whole {
            let deliveries: Vec<Value> = states
                .iter()
                .map(|state| {
                    json!({ "id": "d", "message_id": "m", "webhook": "w", "event": "e", "event_type": "A", "series": 1,
                        "state": state, "held": false, "cancelling": false, "reason": "", "attempts": 0, "next_at": null,
                        "last": null, "created_at": "2026-11-22T20:00:00Z" })
                })
                .collect();
            serde_json::from_value(
                json!({ "id": "e", "event_type": "A", "event_time": "t", "fate": fate, "owed": 1,
                "reason": null, "detail": "no", "marks": [], "accepted_at": "t", "deliveries": deliveries }),
            )
            .unwrap()
        };
        let last = |whole: &Whole| steps(Some(whole)).pop().unwrap().text;
        assert_eq!(steps(None).len(), 2);
        assert_eq!(last(&whole("routed", &["pending", "delivered"])), "1 of 2 have ended.");
        assert_eq!(last(&whole("routed", &["dead", "delivered"])), "1 of 2 were delivered.");
        assert_eq!(last(&whole("unmatched", &[])), "No webhook asks for it.");
    }

    fn api() -> Router {
        let types = json!({ "items": [{ "name": "A", "label": "An A" }], "next": null });
        let one = json!({ "name": "A", "example": "{\"event_type\":\"A\",\"data\":{\"from\":\"example\"}}", "sensitive": true });
        let taken = |Json(body): Json<Value>| async move {
            if body["id"] == "known" {
                return (
                    StatusCode::ACCEPTED,
                    Json(json!({ "items": [{ "id": "known", "duplicate": true }] })),
                );
            }
            if body["id"] == "bad" {
                let problem = json!({ "status": 422, "code": "bad_event", "detail": "it is no id", "hint": "Give another.", "field": "id" });
                return (StatusCode::UNPROCESSABLE_ENTITY, Json(problem));
            }
            (StatusCode::ACCEPTED, Json(json!({ "items": [{ "id": "e 1", "duplicate": false }] })))
        };
        let event = json!({ "id": "known", "event_type": "A", "event_time": NOW, "fate": "unmatched", "owed": 0, "accepted_at": NOW });
        let unheard = json!({ "status": 404, "code": "not_found", "detail": "no", "hint": "no" });
        Router::new()
            .route("/v1/event-types", get(move || async move { Json(types) }))
            .route("/v1/event-types/A", get(move || async move { Json(one) }))
            .route("/v1/events", post(taken))
            .route("/v1/events/known", get(move || async move { Json(event) }))
            .route("/v1/events/{id}", get(move || async move { (StatusCode::NOT_FOUND, Json(unheard)) }))
            .route("/v1/webhooks", get(|| async { Json(json!({ "items": [] })) }))
    }

    #[tokio::test]
    async fn the_form_begins_with_the_example() {
        let stage = Stage::new(api());
        let (status, text) = stage.get("/send?type=A").await;
        assert_eq!(status, 200, "{text}");
        assert!(
            text.contains("&#34;from&#34;: &#34;example&#34;") && text.contains("may hold secrets"),
            "{text}"
        );
        assert!(text.contains("<option value=\"A\">An A</option>"), "{text}");
        assert!(stage.get("/send").await.1.contains("USER_LOGIN"), "ways without a type");
    }

    #[tokio::test]
    async fn what_is_wrong_keeps_what_was_typed() {
        let stage = Stage::new(api());
        let (status, _, text) = stage.send("/send", &[("event_type", "A"), ("data", "{oops")]).await;
        assert_eq!(status, 422);
        assert!(
            text.contains("{oops") && text.contains("This is not JSON") && text.contains("aria-invalid"),
            "{text}"
        );
        let (status, _, text) =
            stage.send("/send", &[("event_type", "A"), ("id", "bad"), ("key", "k-7")]).await;
        assert_eq!(status, 422);
        assert!(text.contains("it is no id. Give another.") && text.contains("k-7"), "{text}");
    }

    #[tokio::test]
    async fn what_was_sent_is_followed() {
        let stage = Stage::new(api());
        let (status, leads, _) = stage.send("/send", &[("event_type", "A"), ("data", "{}")]).await;
        assert_eq!((status.as_u16(), leads.as_str()), (303, "/send/e%201"));
        let (_, text) = stage.get(&leads).await;
        assert!(text.contains("No router has told of it yet"), "{text}");
        let (_, leads, _) = stage.send("/send", &[("event_type", "A"), ("id", "known")]).await;
        let (_, text) = stage.get(&leads).await;
        assert!(text.contains("No webhook asks for it."), "{text}");
    }
}
