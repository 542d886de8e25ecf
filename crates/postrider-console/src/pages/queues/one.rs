//! One queue: what it is for, how full it is and was, who writes to it and reads it, and whether it is as it should be.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::Path;
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;

use super::history::{History, Plot, empty_in, of_one, trend};
use super::{Drift, PARTS, Queue};
use crate::api::segment;
use crate::page::{Answer, Part, Shell, Visit, page};
use crate::words::{Html, duration, number, state, when};

/// Pages of the console: what they are called, and where they are.
type Pages = &'static [(&'static str, &'static str)];

/// What queues of each role are for, and where what lies in them is found in the books.
const PURPOSES: [(&str, &str, Pages); 12] = [
    (
        "events",
        "What upstream services publish waits here for the router, which decides what each event becomes.",
        &[("Events", "/events")],
    ),
    (
        "fresh",
        "First attempts. The router puts a delivery here for each webhook that wants the event, and a worker sends it.",
        &[("Deliveries that wait", "/deliveries?state=pending")],
    ),
    (
        "retry",
        "Later attempts. What failed comes here when its time has come, and a worker tries it again.",
        &[("Deliveries that were tried and wait", "/deliveries?state=pending&attempts_from=1")],
    ),
    (
        "replay",
        "What is sent again, by hand or by a job. It has a lane of its own, so that new events do not wait for it.",
        &[("Jobs", "/jobs"), ("Deliveries that wait", "/deliveries?state=pending")],
    ),
    (
        "delay",
        "A level of the ladder. What failed waits here for as long as the level lasts, and goes on to a shorter level or back to its lane.",
        &[("Deliveries that were tried and wait", "/deliveries?state=pending&attempts_from=1")],
    ),
    (
        "park",
        "What its webhook cannot take now waits here, and spends no attempt: there are too many requests, or its breaker is open.",
        &[("Deliveries that wait", "/deliveries?state=pending")],
    ),
    (
        "dead",
        "Deliveries that were given up, on their way into the books. Control takes them out; then they are dead letters.",
        &[("Dead letters that were given up", "/dead-letters?kind=dead")],
    ),
    (
        "invalid",
        "Messages that are no event, on their way into the books. Control takes them out; then they are dead letters.",
        &[("Dead letters that are no event", "/dead-letters?kind=invalid")],
    ),
    (
        "poison",
        "Messages that crashed their readers or found no queue, on their way into the books. Control takes them out; then they are dead \
         letters.",
        &[("Dead letters that are poison", "/dead-letters?kind=poison")],
    ),
    (
        "journal",
        "What router and workers report: what became of each event, attempt and delivery. Control writes the books from it. While \
         control is down it waits here, and nothing is lost.",
        &[("Deliveries", "/deliveries")],
    ),
    (
        "config",
        "The stream of settings. Control writes what webhooks and tenants are; router and workers read all of it when they start, and \
         each change.",
        &[("Webhooks", "/webhooks"), ("Settings", "/settings")],
    ),
    (
        "seen",
        "The stream of ids that were accepted lately. A router reads it when it starts, so that an event that comes twice is taken once.",
        &[("Events", "/events")],
    ),
];

/// A queue, as the API tells it in full.
#[derive(Debug, Deserialize)]
struct Whole {
    #[serde(flatten)]
    queue: Queue,
    expected: BTreeMap<String, Value>,
    writers: Vec<Edge>,
    readers: Vec<Edge>,
    history: Option<History<u64>>,
    arguments_compared: bool,
    at: Option<String>,
    unknown_because: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Edge {
    from: String,
    to: String,
    label: String,
}

/// Who writes or reads.
#[derive(Debug, PartialEq, Eq)]
struct End {
    who: String,
    /// The list of those queues, where it is not a role.
    link: Option<String>,
    how: &'static str,
}

impl End {
    fn of(who: &str, how: &'static str) -> Self {
        let Some(role) = who.strip_prefix("queue:") else {
            return Self { who: role_name(who).to_owned(), link: None, how };
        };
        let part = PARTS.iter().find(|(.., roles)| roles.contains(&role)).map_or("", |(part, ..)| part);
        Self { who: format!("Queues of the role {role}"), link: Some(format!("/queues?part={part}")), how }
    }
}

fn role_name(role: &str) -> &str {
    match role {
        "upstream" => "Upstream services",
        "router" => "The router",
        "worker" => "Workers",
        "control" => "Control",
        other => other,
    }
}

fn writer(edge: &Edge) -> End {
    let how = match edge.label.as_str() {
        "expires" => "what has waited there for its time",
        "poisons" => "what was handed out there too often",
        "unroutable" => "what no other queue takes",
        _ => "by publishing",
    };
    End::of(&edge.from, how)
}

fn reader(edge: &Edge) -> End {
    let how = match edge.label.as_str() {
        "expires" => "what has waited for its time",
        "poisons" => "what was handed out too often",
        "read" => "by reading; everything stays",
        _ => "by taking it out",
    };
    End::of(&edge.to, how)
}

/// What is the matter with it: what, and what mends it.
#[derive(Debug, PartialEq, Eq)]
struct Trouble {
    what: String,
    /// What RabbitMQ says of it.
    detail: String,
    mends: &'static str,
    command: &'static str,
}

fn trouble(queue: &Queue, readers: &[Edge]) -> Option<Trouble> {
    const APPLY: &str = "postrider topology apply";
    match &queue.drift {
        Some(Drift { kind, .. }) if kind == "missing" => Some(Trouble {
            what: "RabbitMQ does not have this queue.".into(),
            detail: String::new(),
            mends: "This declares what is missing, and changes nothing else:",
            command: APPLY,
        }),
        Some(Drift { argument, detail, .. }) => Some(Trouble {
            what: format!("{} differs.", argument.as_deref().unwrap_or("An argument")),
            detail: detail.clone().unwrap_or_default(),
            mends: "Arguments are part of what a queue is, and nothing changes them afterwards. Drain the queue and delete it in RabbitMQ; \
                    then this declares it as it should be:",
            command: APPLY,
        }),
        None => {
            let nobody = queue.must_be_consumed() && queue.consumers == Some(0);
            let role = readers.iter().find(|edge| edge.label == "consumed").map(|edge| edge.to.as_str());
            let (name, command) = match role {
                Some("router") => ("the router", "postrider serve router"),
                Some("worker") => ("a worker", "postrider serve worker"),
                _ => ("control", "postrider serve control"),
            };
            nobody.then(|| Trouble {
                what: format!("Nobody consumes it. That is for {name} to do."),
                detail: String::new(),
                mends: "What waits is kept until one is started:",
                command,
            })
        }
    }
}

/// An argument that it should have.
struct Argument {
    name: String,
    value: String,
    differs: bool,
}

#[derive(Template)]
#[template(path = "queue.html")]
struct QueuePage {
    shell: Shell,
    queue: Queue,
    purpose: &'static str,
    books: Pages,
    part: String,
    mark: Html,
    at: Html,
    /// Why nobody knows how it is now.
    unknown_because: Option<String>,
    trouble: Option<Trouble>,
    not_compared: bool,
    ready: String,
    consumers: String,
    trend: String,
    empty_in: String,
    holds: String,
    plot: Option<Plot>,
    arguments: Vec<Argument>,
    writers: Vec<End>,
    readers: Vec<End>,
}

/// The page of a queue.
pub(super) async fn show(visit: Visit, Path(name): Path<String>) -> Response {
    let made = shown(&visit, &name).await;
    visit.or_refused(Part::Queues, made)
}

async fn shown(visit: &Visit, name: &str) -> Answer {
    let whole: Whole = visit.api.get(&format!("/v1/queues/{}", segment(name)), &[]).await?;
    let Whole { queue, expected, writers, readers, history, arguments_compared, at, unknown_because } = whole;
    let (purpose, books) = PURPOSES
        .iter()
        .find(|(role, ..)| *role == queue.role)
        .map_or(("", &[][..]), |(_, purpose, books)| (*purpose, *books));
    let is_missing = queue.drift.as_ref().is_some_and(|drift| drift.kind == "missing");
    let differs = queue.drift.as_ref().and_then(|drift| drift.argument.as_deref());
    let argument = |(name, value): (String, Value)| Argument {
        differs: differs == Some(name.as_str()),
        value: value.as_str().map_or_else(|| value.to_string(), str::to_owned),
        name,
    };
    let dash = || "–".to_owned();
    let mut shell = visit.shell(Part::Queues, queue.name.clone());
    shell.command = format!("postrider queues get {}", queue.name);
    page(&QueuePage {
        shell,
        purpose,
        books,
        part: End::of(&format!("queue:{}", queue.role), "").link.unwrap_or_default(),
        mark: match queue.trouble() {
            _ if unknown_because.is_some() => state("still", "Unknown"),
            Some(trouble) => state("bad", &trouble),
            None => state("ok", "As it should be"),
        },
        at: at.map(|at| when(&at, visit.now)).unwrap_or_default(),
        trouble: trouble(&queue, &readers),
        not_compared: !arguments_compared && !is_missing && unknown_because.is_none(),
        unknown_because,
        ready: queue.ready.map_or_else(dash, number),
        consumers: queue.consumers.map_or_else(dash, number),
        trend: trend(queue.trend_per_minute),
        empty_in: queue.empty_in_ms.map(empty_in).unwrap_or_default(),
        holds: queue.delay_ms.map(duration).unwrap_or_default(),
        plot: history.map(|history| of_one(&history, &queue.role, visit.now)),
        arguments: expected.into_iter().map(argument).collect(),
        writers: writers.iter().map(writer).collect(),
        readers: readers.iter().map(reader).collect(),
        queue,
    })
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use axum::{Json, Router};
    use serde_json::json;

    use super::*;
    use crate::stage::{NOW, Stage};

    /// A queue of this role, as the API tells it, but for this.
    fn told(change: &Value) -> Value {
        let mut told = json!({
            "name": "p.deliveries.retry.0", "role": "retry", "type": "quorum", "ready": 120, "consumers": 2, "delay_ms": null,
            "trend_per_minute": -30.0, "empty_in_ms": 240_000, "drift": null,
            "expected": { "x-queue-type": "quorum", "x-delivery-limit": 1000 },
            "writers": [{ "from": "worker", "to": "queue:retry", "label": "publishes" },
                { "from": "queue:delay", "to": "queue:retry", "label": "expires" }],
            "readers": [{ "from": "queue:retry", "to": "worker", "label": "consumed" }],
            "history": { "interval_ms": 15_000, "since": "2026-11-22T19:59:45Z",
                "points": [{ "at": "2026-11-22T19:59:45Z", "ready": 135 }, { "at": NOW, "ready": 120 }] },
            "arguments_compared": true, "at": NOW, "unknown_because": null,
        });
        told.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        told
    }

    async fn page_of(change: Value) -> String {
        let answer = told(&change);
        let api = Router::new().route("/v1/queues/{name}", get(move || async move { Json(answer) }));
        let (status, text) = Stage::new(api).get("/queues/p.deliveries.retry.0").await;
        assert_eq!(status, 200, "{text}");
        text
    }

    #[tokio::test]
    async fn a_queue_says_what_it_is_for_and_how_it_goes() {
        let text = page_of(json!({})).await;
        for part in [
            "Later attempts.",
            "href=\"/deliveries?state=pending&#38;attempts_from=1\"",
            "−30",
            "empty in about 4 min",
            "since 19:59:45: 2 points",
            "<title>20:00:00: 120 waiting</title>",
            ">x-delivery-limit</th>",
            "href=\"/queues?part=waiting\">Queues of the role delay</a>",
            ">Workers",
            "As it should be",
            "postrider queues get p.deliveries.retry.0",
        ] {
            assert!(text.contains(part), "no {part} in {text}");
        }
        assert!(
            !text.contains("data-testid=\"trouble\"") && !text.contains("data-testid=\"unknown\""),
            "{text}"
        );
    }

    #[tokio::test]
    async fn without_the_broker_it_says_what_is_known() {
        let why = "there is no session with RabbitMQ";
        let unknown = json!({ "ready": null, "consumers": null, "trend_per_minute": null, "empty_in_ms": null, "at": null,
            "unknown_because": why, "arguments_compared": false });
        let text = page_of(unknown).await;
        for part in [why, ">Unknown</span>", "19:59:45: 135 waiting", ">x-delivery-limit</th>"] {
            assert!(text.contains(part), "no {part} in {text}");
        }
        assert!(!text.contains("As it should be") && !text.contains("were not compared"), "{text}");
    }

    #[tokio::test]
    async fn what_differs_is_said_with_what_mends_it() {
        let missing = json!({ "kind": "missing", "argument": null, "detail": null });
        let text = page_of(
            json!({ "ready": null, "consumers": null, "drift": missing, "arguments_compared": false }),
        )
        .await;
        assert!(
            text.contains("RabbitMQ does not have this queue.") && text.contains(">Missing</span>"),
            "{text}"
        );
        assert!(
            text.contains("<code>postrider topology apply</code>") && !text.contains("were not compared"),
            "{text}"
        );
        let differs =
            json!({ "kind": "arguments", "argument": "x-delivery-limit", "detail": "received <7>" });
        let text = page_of(json!({ "drift": differs })).await;
        assert!(
            text.contains("x-delivery-limit differs.") && text.contains("<code>received &#60;7&#62;</code>"),
            "{text}"
        );
        assert!(text.contains("Drain the queue and delete it"), "{text}");
        let text = page_of(json!({ "consumers": 0 })).await;
        assert!(
            text.contains("That is for a worker to do") && text.contains("postrider serve worker"),
            "{text}"
        );
        let text = page_of(json!({ "arguments_compared": false })).await;
        assert!(text.contains("were not compared"), "{text}");
    }

    #[tokio::test]
    async fn a_stream_has_no_numbers_and_says_why() {
        let stream = json!({ "name": "p.config", "role": "config", "type": "stream", "ready": null, "consumers": null,
            "trend_per_minute": null, "empty_in_ms": null, "history": null });
        let text = page_of(stream).await;
        assert!(text.contains("does not say over AMQP how much is in a stream"), "{text}");
        assert!(!text.contains("not measured"), "{text}");
    }

    #[test]
    fn every_role_has_a_purpose_and_pages_that_there_are() {
        let roles: Vec<&str> = PARTS.iter().flat_map(|(.., roles)| roles.iter().copied()).collect();
        assert_eq!(roles.len(), PURPOSES.len());
        for role in roles {
            assert!(PURPOSES.iter().any(|(known, ..)| *known == role), "{role}");
        }
    }
}
