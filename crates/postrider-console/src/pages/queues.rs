//! Queues: what RabbitMQ holds and held, drawn as the way of messages, and whether it is as it should be.

mod drawing;
mod history;
mod one;

use std::collections::BTreeMap;

use askama::Template;
use axum::Router;
use axum::response::Response;
use axum::routing::get;
use postrider_core::Timestamp;
use serde::Deserialize;

use self::drawing::{Held, Roles, drawing};
use self::history::{History, Plot, by_role, empty_in, trend};
use super::overview::{Point, Stats, buckets};
use crate::Console;
use crate::api::{Refused, segment};
use crate::chart::{Bucket, Series, lines, stacked};
use crate::page::{Answer, Part, Shell, Visit, page};
use crate::words::{Html, counted, duration, number, state, when};

/// The pages of queues.
pub(crate) fn routes() -> Router<Console> {
    Router::new().route("/queues", get(show)).route("/queues/{name}", get(one::show))
}

/// How far back the plots go.
const HOUR_MS: u64 = 3_600_000;

/// What the list can be narrowed to: a word, what it is called, and the purposes of its queues.
const PARTS: [(&str, &str, &[&str]); 5] = [
    ("", "All", &[]),
    ("work", "Work", &["events", "fresh", "retry", "replay"]),
    ("waiting", "Waiting", &["delay", "park"]),
    ("ends", "Ends", &["dead", "invalid", "poison"]),
    ("books", "Books and streams", &["journal", "config", "seen"]),
];

/// The purposes of queues that somebody must consume.
const CONSUMED: [&str; 8] = ["events", "fresh", "retry", "replay", "journal", "dead", "invalid", "poison"];

#[derive(Debug, Deserialize)]
struct Queues {
    items: Vec<Queue>,
    history: Option<History<BTreeMap<String, u64>>>,
    #[serde(default)]
    arguments_compared: bool,
    at: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Queue {
    name: String,
    role: String,
    #[serde(rename = "type")]
    kind: String,
    ready: Option<u64>,
    consumers: Option<u64>,
    #[serde(default)]
    delay_ms: Option<u64>,
    #[serde(default)]
    trend_per_minute: Option<f64>,
    #[serde(default)]
    empty_in_ms: Option<u64>,
    #[serde(default)]
    drift: Option<Drift>,
}

#[derive(Clone, Debug, Deserialize)]
struct Drift {
    kind: String,
    argument: Option<String>,
    detail: Option<String>,
}

impl Queue {
    fn must_be_consumed(&self) -> bool {
        CONSUMED.contains(&self.role.as_str())
    }

    /// What is the matter with it, in a few words.
    fn trouble(&self) -> Option<String> {
        match &self.drift {
            Some(drift) if drift.kind == "missing" => return Some("Missing".to_owned()),
            Some(Drift { argument: Some(argument), .. }) => return Some(format!("{argument} differs")),
            Some(_) => return Some("Differs".to_owned()),
            None => {}
        }
        (self.must_be_consumed() && self.consumers == Some(0)).then(|| "No consumer".to_owned())
    }
}

#[derive(Debug, Deserialize)]
struct Status {
    workers: Option<u64>,
    routers: Option<Routers>,
}

#[derive(Debug, Deserialize)]
struct Routers {
    active: u64,
    standby: u64,
}

/// A row of the list.
struct Row {
    queue: Queue,
    link: String,
    ready: String,
    trend: String,
    empty_in: String,
    consumers: String,
    holds: String,
    mark: Html,
    detail: String,
}

impl From<Queue> for Row {
    fn from(queue: Queue) -> Self {
        let trouble = queue.trouble();
        let dash = || "–".to_owned();
        Self {
            link: format!("/queues/{}", segment(&queue.name)),
            ready: queue.ready.map_or_else(dash, number),
            trend: trend(queue.trend_per_minute),
            empty_in: queue.empty_in_ms.map(empty_in).unwrap_or_default(),
            consumers: queue.consumers.filter(|_| queue.must_be_consumed()).map_or_else(dash, number),
            holds: queue.delay_ms.map(duration).unwrap_or_default(),
            mark: trouble
                .as_deref()
                .map_or_else(|| state("ok", "As it should be"), |trouble| state("bad", trouble)),
            detail: queue.drift.as_ref().and_then(|drift| drift.detail.clone()).unwrap_or_default(),
            queue,
        }
    }
}

struct Tab {
    name: &'static str,
    link: String,
    chosen: bool,
}

#[derive(Template)]
#[template(path = "queues.html")]
struct QueuesPage {
    shell: Shell,
    drawing: Html,
    /// Why there are no numbers.
    without: Option<Refused>,
    at: Html,
    troubles: u64,
    depths: Option<Plot>,
    /// What came and what was requested; nothing where that is not known.
    rates: Option<Html>,
    /// Whose rates they are.
    tenant: String,
    ladder: Html,
    parking: Html,
    waiting: u64,
    parked: u64,
    compared: bool,
    tabs: Vec<Tab>,
    rows: Vec<Row>,
}

async fn show(visit: Visit) -> Response {
    let made = shown(&visit).await;
    visit.or_refused(Part::Queues, made)
}

async fn shown(visit: &Visit) -> Answer {
    let (found, without) = match visit.api.get::<Queues>("/v1/queues", &[]).await {
        Ok(found) => (Some(found), None),
        Err(refused) if refused.status == 503 => (None, Some(refused)),
        Err(refused) => return Err(refused.into()),
    };
    let status: Option<Status> = visit.api.get("/v1/status", &[]).await.ok();
    let since = visit.now.minus_ms(HOUR_MS).to_rfc3339();
    let stats: Option<Stats> = visit.api.get("/v1/stats", &[("since", &since)]).await.ok();
    let queues = found.as_ref().map(|found| found.items.as_slice()).unwrap_or_default();
    let wanted = visit.query().get("part").to_owned();
    let mut shell = visit.shell(Part::Queues, "Queues");
    shell.command = "postrider queues".to_owned();
    let history = found.as_ref().and_then(|found| found.history.as_ref());
    page(&QueuesPage {
        depths: history.map(|history| by_role(history, visit.now)),
        rates: stats.map(|stats| rates(stats, visit.now)),
        tenant: if shell.tenant.is_empty() { "default".to_owned() } else { shell.tenant.clone() },
        shell,
        drawing: drawing(&held(queues), &roles(status.as_ref())),
        without,
        at: found.as_ref().map(|found| when(&found.at, visit.now)).unwrap_or_default(),
        troubles: queues.iter().filter(|queue| queue.trouble().is_some()).count() as u64,
        ladder: bars("Waiting in each delay level", queues, "delay"),
        parking: bars("Waiting in the parking", queues, "park"),
        waiting: ready_in(queues, "delay"),
        parked: ready_in(queues, "park"),
        compared: found.as_ref().is_none_or(|found| found.arguments_compared),
        tabs: tabs(&wanted),
        rows: queues.iter().filter(|queue| is_in(&wanted, &queue.role)).cloned().map(Row::from).collect(),
    })
}

fn tabs(wanted: &str) -> Vec<Tab> {
    let link =
        |value: &str| if value.is_empty() { "/queues".to_owned() } else { format!("/queues?part={value}") };
    PARTS.iter().map(|(value, name, _)| Tab { name, link: link(value), chosen: *value == wanted }).collect()
}

/// Whether queues of this purpose are in a part of the list.
fn is_in(part: &str, role: &str) -> bool {
    let known = PARTS.iter().find(|(value, ..)| *value == part && !value.is_empty());
    known.is_none_or(|(.., roles)| roles.contains(&role))
}

/// What the queues of each purpose hold together.
fn held(queues: &[Queue]) -> BTreeMap<String, Held> {
    let mut all: BTreeMap<String, Held> = BTreeMap::new();
    for queue in queues {
        let held = all.entry(queue.role.clone()).or_default();
        held.queues += 1;
        held.ready = added(held.ready, queue.ready);
        held.trend = held.trend.into_iter().chain(queue.trend_per_minute).reduce(|a, b| a + b);
        let consumers = queue.consumers.filter(|_| queue.must_be_consumed());
        held.consumers = held.consumers.into_iter().chain(consumers).min();
        held.trouble = held.trouble.take().or_else(|| queue.trouble());
    }
    all
}

fn added(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    if a.is_none() && b.is_none() { None } else { Some(a.unwrap_or(0) + b.unwrap_or(0)) }
}

fn ready_in(queues: &[Queue], role: &str) -> u64 {
    queues.iter().filter(|queue| queue.role == role).filter_map(|queue| queue.ready).sum()
}

fn roles(status: Option<&Status>) -> Roles {
    let workers = status.and_then(|status| status.workers);
    let routers = status.and_then(|status| status.routers.as_ref());
    let missing =
        [("worker", workers == Some(0)), ("router", routers.is_some_and(|routers| routers.active == 0))];
    Roles {
        workers: workers.map(|workers| counted(workers, "worker", "workers")),
        routers: routers.map(|routers| match routers.standby {
            0 => format!("{} active", routers.active),
            standby => format!("{} and {standby} standby", routers.active),
        }),
        missing: missing.into_iter().filter(|(_, is)| *is).map(|(role, _)| role).collect(),
    }
}

/// Events and requests of each minute. Which queue they passed RabbitMQ does not say.
fn rates(mut stats: Stats, now: Timestamp) -> Html {
    // The last minute is under way.
    stats.points.pop();
    let of = |value: fn(&Point) -> u64| stats.points.iter().map(|point| Some(value(point) as f64)).collect();
    let series = [
        Series { name: "accepted", class: "l50", values: of(|point| point.accepted) },
        Series { name: "requests", class: "l95", values: of(|point| point.delivered + point.failed) },
    ];
    lines("Events accepted and requests made, per minute", &buckets(&stats, now), &series, 560.0)
}

/// Bars of what waits, one for each queue of a purpose that holds messages for a time, shortest first.
fn bars(name: &str, queues: &[Queue], role: &str) -> Html {
    let mut waiting: Vec<&Queue> = queues.iter().filter(|queue| queue.role == role).collect();
    waiting.sort_by_key(|queue| queue.delay_ms);
    let buckets: Vec<Bucket> = waiting
        .iter()
        .map(|queue| {
            let label = queue.delay_ms.map(duration).unwrap_or_default();
            Bucket { title: format!("for {label} each"), label }
        })
        .collect();
    let values = waiting.iter().map(|queue| queue.ready.map(|ready| ready as f64)).collect();
    stacked(name, &buckets, &[Series { name: "waiting", class: "warn", values }], 560.0)
}

#[cfg(test)]
mod tests {
    use axum::Json;
    use http::StatusCode;
    use serde_json::json;

    use super::*;
    use crate::stage::{NOW, Stage};

    fn queue(role: &str, ready: u64, consumers: u64) -> Queue {
        Queue {
            name: format!("postrider.{role}"),
            role: role.into(),
            kind: "quorum".into(),
            ready: Some(ready),
            consumers: Some(consumers),
            delay_ms: None,
            trend_per_minute: None,
            empty_in_ms: None,
            drift: None,
        }
    }

    #[test]
    fn a_queue_without_its_consumer_is_trouble() {
        assert_eq!(queue("fresh", 0, 0).trouble().as_deref(), Some("No consumer"));
        assert_eq!(queue("fresh", 9, 1).trouble(), None);
        assert_eq!(queue("delay", 9, 0).trouble(), None, "nobody should consume it");
        let unknown = Queue { consumers: None, ..queue("config", 0, 0) };
        assert_eq!(unknown.trouble(), None);
    }

    #[test]
    fn drift_says_what_differs() {
        let drift = |kind: &str, argument: Option<&str>| Queue {
            drift: Some(Drift { kind: kind.into(), argument: argument.map(str::to_owned), detail: None }),
            ..queue("fresh", 0, 0)
        };
        assert_eq!(drift("missing", None).trouble().as_deref(), Some("Missing"));
        assert_eq!(
            drift("arguments", Some("x-queue-type")).trouble().as_deref(),
            Some("x-queue-type differs")
        );
    }

    #[test]
    fn shards_are_told_together_by_the_worst() {
        let growing = Queue { trend_per_minute: Some(4.5), ..queue("fresh", 5, 3) };
        let shrinking = Queue { trend_per_minute: Some(-1.0), ..queue("fresh", 7, 0) };
        let all = held(&[growing, shrinking, queue("fresh", 0, 1), queue("delay", 2, 0)]);
        let trouble = Some("No consumer".into());
        assert_eq!(
            all["fresh"],
            Held { queues: 3, ready: Some(12), consumers: Some(0), trend: Some(3.5), trouble }
        );
        assert_eq!(
            all["delay"],
            Held { queues: 1, ready: Some(2), consumers: None, trend: None, trouble: None }
        );
    }

    #[test]
    fn a_part_of_the_list_has_its_queues_alone() {
        assert!(is_in("", "fresh") && is_in("work", "fresh") && !is_in("ends", "fresh"));
        assert!(is_in("no such part", "fresh"));
    }

    #[tokio::test]
    async fn the_list_leads_to_each_queue_and_says_how_it_goes() {
        let queues = json!({ "items": [
                { "name": "p.deliveries.fresh.0", "role": "fresh", "type": "quorum", "ready": 120, "consumers": 2, "delay_ms": null,
                  "trend_per_minute": -30.0, "empty_in_ms": 240_000, "drift": null },
                { "name": "p.config", "role": "config", "type": "stream", "ready": null, "consumers": null, "drift": null }],
            "history": { "interval_ms": 15_000, "since": NOW, "points": [{ "at": NOW, "ready": { "fresh": 120 } }] },
            "arguments_compared": true, "at": NOW });
        let point = |at: &str| json!({ "at": at, "accepted": 7, "delivered": 5, "failed": 1 });
        let stats = json!({ "bucket_ms": 60_000, "points": [point("2026-11-22T19:59:00Z"), point(NOW)], "totals": {} });
        let api = Router::new()
            .route("/v1/queues", get(move || async move { Json(queues) }))
            .route("/v1/stats", get(move || async move { Json(stats) }))
            .fallback(|| async { StatusCode::NOT_FOUND });
        let (status, text) = Stage::new(api).get("/queues").await;
        assert_eq!(status, 200, "{text}");
        for part in [
            "href=\"/queues/p.deliveries.fresh.0\">p.deliveries.fresh.0</a>",
            ">−30 ",
            "empty in about 4 min",
            "<title>20:00: 120 fresh</title>",
            "<title>19:59: not measured</title>",
            "since 20:00:00: 1 point.",
            "<li class=\"r-fresh\">fresh</li>",
            "19:59: accepted 7, requests 6</title>",
            "Fresh 120 and shrinking",
        ] {
            assert!(text.contains(part), "no {part} in {text}");
        }
        assert!(!text.contains("20:00: accepted"), "it is under way: {text}");
    }

    #[test]
    fn every_purpose_is_in_one_part() {
        for role in [
            "events", "fresh", "retry", "replay", "delay", "park", "dead", "invalid", "poison", "journal",
            "config", "seen",
        ] {
            let parts = PARTS.iter().filter(|(value, ..)| !value.is_empty() && is_in(value, role)).count();
            assert_eq!(parts, 1, "{role}");
        }
    }
}
