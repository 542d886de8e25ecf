//! The overview: whether it works, and what needs somebody.

use askama::Template;
use axum::Router;
use axum::response::Response;
use axum::routing::get;
use postrider_core::Timestamp;
use serde::{Deserialize, Deserializer};

use super::deliveries::{Delivery, Names};
use crate::Console;
use crate::api::Listed;
use crate::chart::{Bucket, Series, lines, spark, stacked};
use crate::page::{Answer, Part, Shell, Visit, page};
use crate::words::{Html, clock, counted, duration, exactly, number, percent, when, when_if};

/// The overview.
pub(crate) fn routes() -> Router<Console> {
    Router::new().route("/", get(show))
}

/// How far back the plots go.
const RANGES: [(&str, &str, u64); 4] = [
    ("1h", "1 h", 3_600_000),
    ("24h", "24 h", 86_400_000),
    ("7d", "7 d", 7 * 86_400_000),
    ("30d", "30 d", 30 * 86_400_000),
];
/// How many webhooks and failures are shown at most.
const MOST: usize = 8;

/// Numbers over time, as the API tells them.
#[derive(Debug, Deserialize)]
pub(crate) struct Stats {
    pub(crate) bucket_ms: u64,
    pub(crate) points: Vec<Point>,
    pub(crate) totals: Point,
}

/// Numbers of one bucket, or of all of them.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Point {
    pub(crate) at: Option<String>,
    #[serde(deserialize_with = "or_zero")]
    pub(crate) accepted: u64,
    pub(crate) delivered: u64,
    pub(crate) failed: u64,
    pub(crate) dead: u64,
    pub(crate) first_tried: u64,
    pub(crate) first_delivered: u64,
    pub(crate) first_attempt_ms: Option<Percentiles>,
    pub(crate) delivered_ms: Option<Percentiles>,
}

/// A number that may be null: events belong to the tenant and not to a webhook.
fn or_zero<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// How long something took, milliseconds.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
}

/// The books, as the API tells them to whoever may know of all tenants.
#[derive(Debug, Deserialize)]
struct Status {
    deliveries: Owed,
    drift: u64,
    workers: Option<u64>,
    routers: Option<Routers>,
    broker: String,
    #[serde(default)]
    due: Option<Due>,
}

/// What is due and was not tried yet.
#[derive(Debug, Deserialize)]
struct Due {
    oldest_ms: u64,
}

#[derive(Debug, Deserialize)]
struct Owed {
    pending: u64,
    held: u64,
    dead_unresolved: u64,
}

#[derive(Debug, Deserialize)]
struct Routers {
    active: u64,
    standby: u64,
}

/// A webhook, as far as the overview looks at it.
#[derive(Debug, Deserialize)]
struct Webhook {
    id: String,
    name: String,
    state: String,
    #[serde(default)]
    disabled_reason: Option<String>,
    #[serde(default)]
    health: Option<Health>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Health {
    failing_since: Option<String>,
    failures_in_a_row: u64,
}

/// Something that needs somebody.
struct Need {
    mark: Html,
    name: String,
    link: String,
    text: String,
    detail: Html,
    action: &'static str,
}

/// A number with how it went.
struct Tile {
    label: &'static str,
    value: String,
    unit: &'static str,
    link: String,
    bad: bool,
    spark: Html,
}

/// A step of the first five minutes.
struct Step {
    done: bool,
    text: &'static str,
    link: &'static str,
    action: &'static str,
}

/// The latest deliveries that failed.
struct Failure {
    delivery: Delivery,
    webhook: String,
    at: Html,
}

struct Choice {
    name: &'static str,
    link: String,
    chosen: bool,
}

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    shell: Shell,
    ranges: Vec<Choice>,
    tiles: Vec<Tile>,
    steps: Vec<Step>,
    begun: bool,
    deliveries: Html,
    latency: Html,
    nothing_since: Option<Html>,
    needs: Vec<Need>,
    failures: Vec<Failure>,
    status: Option<Status>,
}

async fn show(visit: Visit) -> Response {
    let made = shown(&visit).await;
    visit.or_refused(Part::Overview, made)
}

async fn shown(visit: &Visit) -> Answer {
    let query = visit.query();
    let wanted = if query.has("range") { query.get("range") } else { "24h" };
    let (range, name, ms) = RANGES.into_iter().find(|(value, ..)| *value == wanted).unwrap_or(RANGES[1]);
    let since = visit.now.minus_ms(ms).to_rfc3339();
    let stats: Stats = visit.api.get("/v1/stats", &[("since", &since)]).await?;
    let webhooks: Listed<Webhook> = visit.api.get("/v1/webhooks", &[("limit", "200")]).await?;
    let newest: Listed<Delivery> = visit.api.get("/v1/deliveries", &[("limit", "50")]).await?;
    let dead: Listed<Delivery> =
        visit.api.get("/v1/deliveries", &[("state", "dead"), ("limit", "8")]).await?;
    // Only who may know of all tenants gets the books; without them the page says less.
    let status: Option<Status> = visit.api.get("/v1/status", &[]).await.ok();
    let names = Names::read(visit).await;
    let buckets = buckets(&stats, visit.now);
    let steps = steps(&webhooks.items, &newest.items);
    let begun = steps.iter().all(|step| step.done);
    let nothing_since = if stats.totals.accepted == 0 && stats.totals.delivered == 0 {
        newest.items.first().map(|last| when(&last.created_at, visit.now))
    } else {
        None
    };
    let failures = latest_failures(newest.items, dead.items, &names, visit.now);
    let mut shell = visit.shell(Part::Overview, "Overview");
    shell.command = format!("postrider stats --since {range}");
    page(&OverviewPage {
        shell,
        ranges: RANGES
            .iter()
            .map(|(value, name, _)| Choice {
                name,
                link: format!("/?range={value}"),
                chosen: *value == range,
            })
            .collect(),
        tiles: tiles(&stats, status.as_ref(), name),
        steps,
        begun,
        deliveries: plot_deliveries(&stats, &buckets),
        latency: plot_latency(&stats, &buckets),
        nothing_since,
        needs: needs(&webhooks.items, status.as_ref(), visit.now),
        failures,
        status,
    })
}

/// Labels of the plots' buckets.
pub(crate) fn buckets(stats: &Stats, now: Timestamp) -> Vec<Bucket> {
    let days = stats.bucket_ms >= 86_400_000;
    let told = |point: &Point| point.at.as_deref().and_then(Timestamp::parse_rfc3339).unwrap_or(now);
    stats
        .points
        .iter()
        .map(|point| {
            let at = told(point);
            let (date, time) = (exactly(at)[5..10].to_owned(), clock(at)[..5].to_owned());
            let label = if days || (stats.bucket_ms >= 7_200_000 && time == "00:00") {
                date.clone()
            } else {
                time.clone()
            };
            let title = if days { date } else { format!("{date} {time}") };
            Bucket { label, title }
        })
        .collect()
}

/// Deliveries over time.
pub(crate) fn plot_deliveries(stats: &Stats, buckets: &[Bucket]) -> Html {
    let of = |value: fn(&Point) -> u64| stats.points.iter().map(|point| Some(value(point) as f64)).collect();
    let series = [
        Series { name: "delivered", class: "ok", values: of(|point| point.delivered) },
        Series { name: "attempts failed", class: "warn", values: of(|point| point.failed) },
        Series { name: "given up", class: "bad", values: of(|point| point.dead) },
    ];
    stacked("Deliveries over time", buckets, &series, 760.0)
}

/// How long it takes from acceptance to delivery, over time.
pub(crate) fn plot_latency(stats: &Stats, buckets: &[Bucket]) -> Html {
    let of = |value: fn(&Percentiles) -> f64| {
        stats
            .points
            .iter()
            .map(|point| point.first_attempt_ms.as_ref().map(value))
            .collect::<Vec<Option<f64>>>()
    };
    let series = [
        Series { name: "p50", class: "l50", values: of(|at| at.p50) },
        Series { name: "p95", class: "l95", values: of(|at| at.p95) },
        Series { name: "p99", class: "l99", values: of(|at| at.p99) },
    ];
    lines("Accepted to first attempt, milliseconds", buckets, &series, 400.0)
}

fn tiles(stats: &Stats, status: Option<&Status>, range: &'static str) -> Vec<Tile> {
    let of = |value: fn(&Point) -> u64| {
        spark(&stats.points.iter().map(|point| value(point) as f64).collect::<Vec<_>>())
    };
    let totals = &stats.totals;
    let tile = |label, value: String, link: &str, spark| Tile {
        label,
        value,
        unit: "",
        link: link.to_owned(),
        bad: false,
        spark,
    };
    let first = percent(totals.first_delivered, totals.first_tried);
    let mut tiles = vec![
        Tile {
            unit: range,
            ..tile("Accepted", number(totals.accepted), "/events", of(|point| point.accepted))
        },
        Tile {
            unit: range,
            ..tile(
                "Delivered",
                number(totals.delivered),
                "/deliveries?state=delivered",
                of(|point| point.delivered),
            )
        },
        Tile {
            unit: if first.is_some() { "%" } else { "" },
            ..tile(
                "At the first try",
                first.unwrap_or_else(|| "–".to_owned()),
                "/deliveries?attempts_from=2",
                of(|point| point.first_delivered),
            )
        },
        Tile {
            bad: totals.dead > 0,
            unit: range,
            ..tile("Given up", number(totals.dead), "/deliveries?state=dead", of(|point| point.dead))
        },
    ];
    if let Some(status) = status {
        let waiting = status.deliveries.pending.saturating_sub(status.deliveries.held);
        // The API says 0 where nothing is due.
        let due = status.due.as_ref().map(|due| due.oldest_ms).filter(|ms| *ms > 0);
        tiles.push(tile("Waiting now", number(waiting), "/deliveries?state=pending", Html::default()));
        tiles.push(Tile {
            bad: due.is_some_and(|ms| ms > 120_000),
            ..tile(
                "Oldest due",
                due.map_or_else(|| "–".to_owned(), duration),
                "/deliveries?state=pending",
                Html::default(),
            )
        });
    }
    tiles
}

fn steps(webhooks: &[Webhook], newest: &[Delivery]) -> Vec<Step> {
    let step = |done, text, link, action| Step { done, text, link, action };
    vec![
        step(!webhooks.is_empty(), "Create a webhook", "/webhooks/new", "Create webhook"),
        step(!newest.is_empty(), "Send an event", "/send", "Send an event"),
        step(
            newest.iter().any(|delivery| delivery.state == "delivered"),
            "See it delivered",
            "/deliveries",
            "Deliveries",
        ),
        step(
            newest.iter().any(|delivery| delivery.attempts > 1 || delivery.series > 1),
            "See one tried again",
            "/inbox",
            "Make the inbox fail",
        ),
    ]
}

fn needs(webhooks: &[Webhook], status: Option<&Status>, now: Timestamp) -> Vec<Need> {
    let mut needs = Vec::new();
    if let Some(status) = status {
        if status.drift > 0 {
            needs.push(Need {
                mark: crate::words::state("bad", "Drift"),
                name: format!("The books are {} apart", number(status.drift)),
                link: "/queues".into(),
                text: String::new(),
                detail: Html("`postrider verify` says what is missing".into()),
                action: "Look",
            });
        }
        if status.workers == Some(0) {
            needs.push(need_of_system("No worker", "Nothing is delivered until one is started"));
        }
        if status.routers.as_ref().is_some_and(|routers| routers.active == 0) {
            needs.push(need_of_system("No router", "Events wait in RabbitMQ until one is started"));
        }
        if status.deliveries.dead_unresolved > 0 {
            needs.push(Need {
                mark: crate::words::state("bad", "Dead"),
                name: counted(status.deliveries.dead_unresolved, "dead letter is", "dead letters are"),
                link: "/dead-letters".into(),
                text: " unresolved".into(),
                detail: Html::default(),
                action: "Look",
            });
        }
    }
    for webhook in webhooks {
        let health = webhook.health.as_ref();
        let failing = health.and_then(|health| health.failing_since.as_deref());
        let (mark, text, detail, action) = match (webhook.state.as_str(), failing) {
            ("active", Some(since)) => {
                let failures = health.map_or(0, |health| health.failures_in_a_row);
                let text = if failures > 0 {
                    format!(" gave up {} in a row", counted(failures, "delivery", "deliveries"))
                } else {
                    " is failing".to_owned()
                };
                (
                    crate::words::webhook_state("active", true),
                    text,
                    Html(format!("since {}", when(since, now))),
                    "Look",
                )
            }
            ("disabled", _) => {
                let why = webhook.disabled_reason.clone().unwrap_or_default().replace('_', " ");
                (
                    crate::words::webhook_state("disabled", false),
                    " gets nothing".to_owned(),
                    Html(crate::words::escaped(&why)),
                    "Enable",
                )
            }
            ("paused", _) => (
                crate::words::webhook_state("paused", false),
                " holds its deliveries".to_owned(),
                Html::default(),
                "Resume",
            ),
            _ => continue,
        };
        needs.push(Need {
            mark,
            name: webhook.name.clone(),
            link: format!("/webhooks/{}", webhook.id),
            text,
            detail,
            action,
        });
    }
    needs.truncate(MOST);
    needs
}

fn need_of_system(name: &str, text: &str) -> Need {
    Need {
        mark: crate::words::state("bad", "Missing"),
        name: name.to_owned(),
        link: "/queues".into(),
        text: String::new(),
        detail: Html(text.to_owned()),
        action: "Look",
    }
}

fn latest_failures(
    newest: Vec<Delivery>,
    dead: Vec<Delivery>,
    names: &Names,
    now: Timestamp,
) -> Vec<Failure> {
    let failed = |delivery: &Delivery| delivery.state == "pending" && delivery.attempts > 0;
    let mut failures: Vec<Delivery> = newest.into_iter().filter(failed).chain(dead).collect();
    failures.sort_by(|a, b| b.created_at.cmp(&a.created_at));
    failures.truncate(MOST);
    failures
        .into_iter()
        .map(|delivery| Failure {
            webhook: names.of(&delivery.webhook),
            at: when_if(Some(&delivery.created_at), now),
            delivery,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn webhook(state: &str, failing: bool) -> Webhook {
        let health = Health {
            failing_since: failing.then(|| "2026-11-22T19:00:00Z".to_owned()),
            failures_in_a_row: 3,
        };
        Webhook {
            id: "wh_1".into(),
            name: "crm".into(),
            state: state.into(),
            disabled_reason: Some("gone".into()),
            health: Some(health),
        }
    }

    #[test]
    fn what_works_needs_nobody() {
        let now = Timestamp::parse_rfc3339("2026-11-22T20:00:00Z").unwrap();
        assert!(needs(&[webhook("active", false)], None, now).is_empty());
        let told: Vec<String> =
            needs(&[webhook("active", true), webhook("paused", false), webhook("disabled", true)], None, now)
                .into_iter()
                .map(|need| format!("{}{}", need.name, need.text))
                .collect();
        assert_eq!(
            told,
            ["crm gave up 3 deliveries in a row", "crm holds its deliveries", "crm gets nothing"]
        );
        let many: Vec<Webhook> = (0..100).map(|_| webhook("active", true)).collect();
        assert_eq!(needs(&many, None, now).len(), MOST);
    }

    #[test]
    fn the_first_steps_tick_themselves() {
        let done = |webhooks: &[Webhook], newest: &[Delivery]| {
            steps(webhooks, newest).into_iter().map(|step| step.done).collect::<Vec<_>>()
        };
        assert_eq!(done(&[], &[]), [false; 4]);
        assert_eq!(done(&[webhook("active", false)], &[]), [true, false, false, false]);
    }
}
