//! One delivery: where the time went, every attempt, and trying again.

mod course;

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::response::Response;
use axum::routing::{get, post};
use http::Method;
use postrider_core::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use self::course::{Times, course};
use super::deliveries::Delivery;
use crate::Console;
use crate::api::segment;
use crate::fields::Fields;
use crate::login::path_of_ours;
use crate::page::{Answer, Part, Sent, Shell, Visit, page};
use crate::words::{Html, clock, duration, indented, state, when, when_if};

/// The most marks of one timeline: a long history is told by its beginning and its end.
const MAX_MARKS: usize = 14;

/// The page of a delivery, and what is done there.
pub(crate) fn routes() -> Router<Console> {
    Router::new()
        .route("/deliveries/{id}", get(show))
        .route("/deliveries/{id}/redeliver", post(redeliver))
        .route("/deliveries/{id}/cancel", post(cancel))
}

/// A delivery with its attempts.
#[derive(Debug, Deserialize)]
pub(crate) struct Whole {
    #[serde(flatten)]
    pub(crate) delivery: Delivery,
    pub(crate) all_series: Vec<Series>,
}

/// One run of attempts.
#[derive(Debug, Deserialize)]
pub(crate) struct Series {
    pub(crate) series: u32,
    state: String,
    held: bool,
    started_at: String,
    ended_at: Option<String>,
    repeats: u32,
    pub(crate) attempts: Vec<Attempt>,
}

/// One request.
#[derive(Debug, Deserialize)]
pub(crate) struct Attempt {
    pub(crate) n: u32,
    pub(crate) at: String,
    url: String,
    class: String,
    status: Option<i64>,
    error: Option<String>,
    hint: String,
    response_body: Option<String>,
    response_headers: Vec<(String, String)>,
    next_at: Option<String>,
    worker: String,
    #[serde(default)]
    remote: Option<String>,
    #[serde(flatten)]
    pub(crate) times: Times,
}

impl Attempt {
    pub(crate) fn well(&self) -> bool {
        self.class == "none"
    }

    pub(crate) fn answer(&self) -> String {
        self.status.map_or_else(|| self.class.replace('_', " "), |status| status.to_string())
    }
}

#[derive(Debug, Deserialize)]
struct Event {
    event_time: String,
    accepted_at: String,
    current_context: Option<Value>,
    data: Option<Value>,
}

impl Event {
    /// What upstream wrote; nothing when it was removed.
    fn body(&self) -> Option<String> {
        let data = self.data.as_ref()?;
        let body = serde_json::json!({ "current_context": self.current_context, "data": data });
        serde_json::to_string_pretty(&body).ok()
    }
}

#[derive(Debug, Deserialize)]
struct Webhook {
    name: String,
    url: String,
    profile: String,
}

/// A point on the timeline.
struct Mark {
    class: &'static str,
    name: String,
    at: String,
}

/// An attempt in the list, and whether it is the one that is shown.
struct Entry {
    link: String,
    mark: Html,
    n: u32,
    series: u32,
    took: String,
    chosen: bool,
}

/// The attempt that is shown.
struct Chosen {
    attempt: Attempt,
    took: String,
    course: Html,
    at: Html,
    next: Html,
    body: Option<String>,
}

#[derive(Template)]
#[template(path = "delivery.html")]
struct DeliveryPage {
    shell: Shell,
    delivery: Delivery,
    summary: String,
    webhook: Option<Webhook>,
    event_body: Option<String>,
    timeline: Vec<Mark>,
    entries: Vec<Entry>,
    chosen: Option<Chosen>,
    curl: Option<String>,
    next: Html,
    is_over: bool,
    asks_twice: bool,
    untold: u32,
}

async fn show(visit: Visit, Path(id): Path<String>) -> Response {
    let made = shown(&visit, &id).await;
    visit.or_refused(Part::Deliveries, made)
}

async fn shown(visit: &Visit, id: &str) -> Answer {
    let whole: Whole = visit.api.get(&format!("/v1/deliveries/{}", segment(id)), &[]).await?;
    let event =
        visit.api.get::<Event>(&format!("/v1/events/{}", segment(&whole.delivery.event)), &[]).await.ok();
    let webhook = visit
        .api
        .get::<Webhook>(&format!("/v1/webhooks/{}", segment(&whole.delivery.webhook)), &[])
        .await
        .ok();
    let event_body = event.as_ref().and_then(Event::body);
    let timeline = timeline(event.as_ref(), &whole.all_series);
    let untold = whole.all_series.iter().map(|series| series.repeats).sum();
    let query = visit.query();
    let wanted = (query.get("series").parse().ok(), query.get("attempt").parse().ok());
    let (entries, chosen) = attempts(id, whole.all_series, wanted, visit.now);
    let delivery = whole.delivery;
    let curl =
        webhook.as_ref().zip(event_body.as_ref()).map(|(webhook, body)| as_curl(&delivery, webhook, body));
    let mut shell = visit.shell(Part::Deliveries, format!("{} delivery", delivery.event_type));
    shell.command = format!("postrider delivery get {}", delivery.id);
    shell.live = delivery.state == "pending";
    page(&DeliveryPage {
        summary: summary(&delivery),
        next: if delivery.next_at.is_some() {
            when_if(delivery.next_at.as_deref(), visit.now)
        } else {
            Html::default()
        },
        is_over: delivery.state != "pending",
        asks_twice: delivery.state == "delivered",
        shell,
        delivery,
        webhook,
        event_body,
        timeline,
        entries,
        chosen,
        curl,
        untold,
    })
}

/// What became of it, in a few words.
pub(crate) fn summary(delivery: &Delivery) -> String {
    let attempts = crate::words::counted(delivery.attempts.into(), "attempt", "attempts");
    match delivery.state.as_str() {
        "delivered" => format!("Delivered after {attempts}"),
        "dead" => format!("Given up after {attempts}: {}", delivery.reason.replace('_', " ")),
        "skipped" => format!("Not sent: {}", delivery.reason.replace('_', " ")),
        "cancelled" => format!("Called off after {attempts}"),
        _ if delivery.held => "Held: its webhook is paused".to_owned(),
        _ if delivery.attempts == 0 => "Waiting for its first attempt".to_owned(),
        _ => format!("{attempts} so far"),
    }
}

fn moment(told: &str) -> Option<Timestamp> {
    Timestamp::parse_rfc3339(told)
}

/// Points in the order of time: each with how long it was after the one before.
fn timeline(event: Option<&Event>, all: &[Series]) -> Vec<Mark> {
    let mut points: Vec<(Timestamp, &'static str, String)> = Vec::new();
    let mut add = |at: Option<Timestamp>, class, name: String| points.extend(at.map(|at| (at, class, name)));
    if let Some(event) = event {
        add(moment(&event.event_time), "", "Happened".into());
        add(moment(&event.accepted_at), "", "Accepted".into());
    }
    for series in all {
        if series.series > 1 {
            add(moment(&series.started_at), "", "Sent again".into());
        }
        for attempt in &series.attempts {
            let class = if attempt.well() { "ok" } else { "bad" };
            add(moment(&attempt.at), class, format!("Attempt {} · {}", attempt.n, attempt.answer()));
        }
        if series.state != "delivered" && series.state != "pending" {
            let class = if series.state == "dead" { "bad" } else { "" };
            add(series.ended_at.as_deref().and_then(moment), class, state_word(series).to_owned());
        }
    }
    points.sort_by_key(|(at, ..)| *at);
    let mut marks = Vec::new();
    let mut before: Option<Timestamp> = None;
    for (at, class, name) in points {
        let told = before.map_or_else(|| clock(at), |before| format!("+ {}", duration(at.since_ms(before))));
        before = Some(at);
        marks.push(Mark { class, name, at: told });
    }
    if marks.len() > MAX_MARKS {
        let left_out = marks.len() - MAX_MARKS;
        let name = format!("{left_out} more");
        marks.splice(MAX_MARKS / 2..MAX_MARKS / 2 + left_out, [Mark { class: "", name, at: "…".into() }]);
    }
    marks
}

fn state_word(series: &Series) -> &'static str {
    match series.state.as_str() {
        "dead" => "Given up",
        "cancelled" => "Cancelled",
        "skipped" => "Skipped",
        _ if series.held => "Held",
        _ => "Ended",
    }
}

/// Every attempt, newest first, and the one that is asked for or else the newest.
fn attempts(
    id: &str,
    all: Vec<Series>,
    wanted: (Option<u32>, Option<usize>),
    now: Timestamp,
) -> (Vec<Entry>, Option<Chosen>) {
    let mut flat: Vec<(u32, usize, Attempt)> = all
        .into_iter()
        .flat_map(|series| {
            let number = series.series;
            series.attempts.into_iter().enumerate().map(move |(i, attempt)| (number, i, attempt))
        })
        .collect();
    flat.sort_by(|(_, _, a), (_, _, b)| b.at.cmp(&a.at));
    let chosen =
        flat.iter().position(|(series, i, _)| Some(*series) == wanted.0 && Some(*i) == wanted.1).unwrap_or(0);
    let entries = flat
        .iter()
        .enumerate()
        .map(|(place, (series, i, attempt))| Entry {
            link: format!("/deliveries/{}?series={series}&attempt={i}", segment(id)),
            mark: state(if attempt.well() { "ok" } else { "bad" }, &attempt.answer()),
            n: attempt.n,
            series: *series,
            took: duration(attempt.times.duration_ms),
            chosen: place == chosen,
        })
        .collect();
    let shown = flat.into_iter().nth(chosen).map(|(_, _, attempt)| Chosen {
        took: duration(attempt.times.duration_ms),
        course: course(attempt.times, &attempt.class),
        at: when(&attempt.at, now),
        next: if attempt.next_at.is_some() {
            when_if(attempt.next_at.as_deref(), now)
        } else {
            Html::default()
        },
        body: attempt.response_body.as_deref().map(indented),
        attempt,
    });
    (entries, shown)
}

/// The request as a command. It has no signature: only a worker has the secret.
fn as_curl(delivery: &Delivery, webhook: &Webhook, body: &str) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "'\\''"));
    format!(
        "curl -X POST {} \\\n  -H 'Content-Type: application/json' \\\n  -H {} \\\n  --data {}",
        quoted(&webhook.url),
        quoted(&format!("webhook-id: {}", delivery.message_id)),
        quoted(body)
    )
}

async fn redeliver(Path(id): Path<String>, sent: Sent) -> Response {
    change(&id, "redeliver", sent, "Queued: it is sent again, with the same webhook-id.").await
}

async fn cancel(Path(id): Path<String>, sent: Sent) -> Response {
    change(&id, "cancel", sent, "Called off: it ends as cancelled when its turn comes.").await
}

async fn change(id: &str, what: &str, Sent { visit, fields }: Sent, done: &str) -> Response {
    let (path, here) = (format!("/v1/deliveries/{}/{what}", segment(id)), back(id, &fields));
    let made = match visit.api.send::<Value>(Method::POST, &path, None).await {
        Ok(_) => Ok(visit.done(&here, done)),
        Err(refused) => visit.not_done(&here, &refused),
    };
    visit.or_refused(Part::Deliveries, made)
}

/// Back to the list, if that is where it was asked for; to the delivery otherwise.
fn back(id: &str, fields: &Fields) -> String {
    let list = path_of_ours(fields.get("back"));
    if list.starts_with("/deliveries?") { list.to_owned() } else { format!("/deliveries/{}", segment(id)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(n: u32, at: &str, status: Option<i64>, class: &str) -> Attempt {
        let json = serde_json::json!({"n": n, "at": at, "duration_ms": 12, "url": "http://x/", "class": class, "status": status,
            "error": null, "hint": "", "response_body": null, "response_headers": [], "next_at": null, "worker": "w"});
        serde_json::from_value(json).unwrap()
    }

    fn series(number: u32, attempts: Vec<Attempt>) -> Series {
        let json = serde_json::json!({"series": number, "state": "delivered", "held": false, "started_at": "2026-11-22T20:00:00Z",
            "ended_at": null, "repeats": 0, "attempts": []});
        Series { attempts, ..serde_json::from_value(json).unwrap() }
    }

    #[test]
    fn a_form_leads_back_to_where_it_was() {
        let to = |query: &str| back("d1", &Fields::parse(query.as_bytes()));
        assert_eq!(to("back=/deliveries?state=dead%26d=d1"), "/deliveries?state=dead&d=d1");
        for other in ["", "back=", "back=https://elsewhere.example/", "back=//elsewhere", "back=/settings"] {
            assert_eq!(to(other), "/deliveries/d1", "{other}");
        }
    }

    #[test]
    fn the_timeline_says_how_long_each_step_took() {
        let event = Event {
            event_time: "2026-11-22T20:00:00Z".into(),
            accepted_at: "2026-11-22T20:00:00.045Z".into(),
            current_context: None,
            data: None,
        };
        let attempts = vec![
            attempt(1, "2026-11-22T20:00:00.056Z", Some(503), "http_5xx"),
            attempt(2, "2026-11-22T20:00:05.056Z", Some(200), "none"),
        ];
        let marks = timeline(Some(&event), &[series(1, attempts)]);
        let told: Vec<(&str, &str)> =
            marks.iter().map(|mark| (mark.name.as_str(), mark.at.as_str())).collect();
        assert_eq!(
            told,
            [
                ("Happened", "20:00:00.000"),
                ("Accepted", "+ 45 ms"),
                ("Attempt 1 · 503", "+ 11 ms"),
                ("Attempt 2 · 200", "+ 5 s")
            ]
        );
    }

    #[test]
    fn a_long_history_is_told_by_its_beginning_and_its_end() {
        let many =
            (1..=40).map(|n| attempt(n, &format!("2026-11-22T20:00:{n:02}Z"), None, "timeout")).collect();
        let marks = timeline(None, &[series(1, many)]);
        assert_eq!(marks.len(), MAX_MARKS + 1);
        assert_eq!(marks[MAX_MARKS / 2].name, "26 more");
        assert_eq!(marks.last().unwrap().name, "Attempt 40 · timeout");
    }

    #[test]
    fn the_newest_attempt_is_shown_unless_another_is_asked_for() {
        let all = || {
            vec![series(
                1,
                vec![
                    attempt(1, "2026-11-22T20:00:01Z", Some(500), "http_5xx"),
                    attempt(2, "2026-11-22T20:00:02Z", Some(200), "none"),
                ],
            )]
        };
        let now = moment("2026-11-22T20:01:00Z").unwrap();
        let (entries, chosen) = attempts("d", all(), (None, None), now);
        assert_eq!(entries.len(), 2);
        assert_eq!(chosen.unwrap().attempt.n, 2);
        assert_eq!(attempts("d", all(), (Some(1), Some(0)), now).1.unwrap().attempt.n, 1);
        assert!(attempts("d", Vec::new(), (Some(1), Some(7)), now).1.is_none());
    }
}
