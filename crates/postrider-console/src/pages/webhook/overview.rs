//! How a webhook does: numbers over time, by status and by event type, failures in a row, and what is tried next.

use std::collections::BTreeMap;

use askama::Template;
use postrider_core::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::received::Row;
use super::shape::Health;
use super::{Tab, Webhook, link, shell, tabs};
use crate::api::{Listed, segment};
use crate::fields::Fields;
use crate::page::{Answer, Shell, Visit, page};
use crate::pages::deliveries::Delivery;
use crate::pages::overview::{Percentiles, Stats, buckets, plot_deliveries, plot_latency};
use crate::words::{Html, counted, duration, number, percent, when, when_if};

/// How far back the plots go.
const RANGES: [(&str, &str, u64); 4] = [
    ("1h", "1 h", 3_600_000),
    ("24h", "24 h", 86_400_000),
    ("7d", "7 d", 7 * 86_400_000),
    ("30d", "30 d", 30 * 86_400_000),
];
/// How many retries are told.
const MOST: usize = 20;
/// Statuses as the API counts them, with how they are shown.
const STATUSES: [(&str, &str, &str); 6] = [
    ("2xx", "2xx", "ok"),
    ("3xx", "3xx", "warn"),
    ("4xx", "4xx", "bad"),
    ("429", "429", "warn"),
    ("5xx", "5xx", "bad"),
    ("none", "no answer", "bad"),
];

/// What the API tells of a webhook beside what it tells of everything.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct More {
    totals: MoreTotals,
    by_event_type: Vec<TypeStats>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct MoreTotals {
    by_status: BTreeMap<String, u64>,
    attempt_ms: Option<Percentiles>,
}

#[derive(Debug, Deserialize)]
struct TypeStats {
    event_type: String,
    delivered: u64,
    failed: u64,
}

/// A share of all attempts, with a bar.
#[derive(Debug)]
struct Share {
    name: &'static str,
    class: &'static str,
    percent: String,
    attempts: String,
}

/// How attempts of one event type ended.
struct TypeRow {
    event_type: String,
    link: String,
    delivered: String,
    failed: String,
    failing: String,
}

/// A number with its name.
struct Tile {
    label: &'static str,
    value: String,
    unit: &'static str,
    bad: bool,
}

/// Everything that is drawn.
struct Plots {
    tiles: Vec<Tile>,
    deliveries: Html,
    latency: Html,
    statuses: Vec<Share>,
    types: Vec<TypeRow>,
}

struct Choice {
    name: &'static str,
    link: String,
    chosen: bool,
}

#[derive(Template)]
#[template(path = "webhook_overview.html")]
struct OverviewTab {
    shell: Shell,
    webhook: Webhook,
    tabs: Vec<Tab>,
    ranges: Vec<Choice>,
    /// Nothing was ever sent to it.
    waiting: bool,
    /// What is said of failures in a row.
    failing: Option<Html>,
    disabled_at: Html,
    plots: Option<Plots>,
    /// What is tried again next.
    next: Vec<Row>,
}

/// The first part of the page.
pub(super) async fn show(visit: &Visit, webhook: Webhook, query: &Fields) -> Answer {
    let wanted = if query.has("range") { query.get("range") } else { "24h" };
    let (range, _, ms) = RANGES.into_iter().find(|(value, ..)| *value == wanted).unwrap_or(RANGES[1]);
    let since = visit.now.minus_ms(ms).to_rfc3339();
    let of_it = ("webhook", webhook.id.as_str());
    let newest: Listed<Delivery> = visit.api.get("/v1/deliveries", &[of_it, ("limit", "1")]).await?;
    let pending: Listed<Delivery> =
        visit.api.get("/v1/deliveries", &[of_it, ("state", "pending"), ("limit", "200")]).await?;
    // Without numbers the page says less, so nothing fails for that.
    let stats = visit.api.get::<Value>("/v1/stats", &[of_it, ("since", &since)]).await.ok();
    let choice = |(value, name, _): &(&str, &'static str, u64)| Choice {
        name,
        link: format!("{}&range={value}", link(&webhook.id, "overview")),
        chosen: *value == range,
    };
    page(&OverviewTab {
        shell: shell(visit, &webhook, true),
        tabs: tabs(&webhook, "overview"),
        ranges: RANGES.iter().map(choice).collect(),
        waiting: newest.items.is_empty(),
        failing: failing(&webhook, visit.now),
        disabled_at: when_if(webhook.disabled_at.as_deref(), visit.now),
        plots: stats.and_then(|stats| plots(&webhook.id, stats, visit.now)),
        next: next(pending.items, visit.now),
        webhook,
    })
}

/// What is tried again, the soonest first.
fn next(pending: Vec<Delivery>, now: Timestamp) -> Vec<Row> {
    let mut due: Vec<Delivery> = pending.into_iter().filter(|it| it.next_at.is_some() && !it.held).collect();
    due.sort_by_key(|it| it.next_at.as_deref().and_then(Timestamp::parse_rfc3339));
    due.truncate(MOST);
    due.into_iter().map(|delivery| Row::new(delivery, now)).collect()
}

/// What is said of failures since the last success, and of what follows from them.
fn failing(webhook: &Webhook, now: Timestamp) -> Option<Html> {
    let health = webhook.health.as_ref()?;
    let since = health.failing_since.as_deref()?;
    let mut text = format!(
        "<b>{} in a row failed</b> since {}",
        counted(health.failed_attempts.into(), "attempt", "attempts"),
        when(since, now)
    );
    if health.given_up_in_a_row > 0 {
        let given_up = counted(health.given_up_in_a_row.into(), "delivery was", "deliveries were");
        text.push_str(&format!("; {given_up} given up"));
    }
    text.push('.');
    if webhook.state != "disabled" {
        text.push_str(&what_follows(webhook, health, now));
    }
    if health.last_success_at.is_some() {
        text.push_str(&format!(" The last success was {}.", when_if(health.last_success_at.as_deref(), now)));
    }
    Some(Html(text))
}

fn what_follows(webhook: &Webhook, health: &Health, now: Timestamp) -> String {
    let most = webhook.effective.as_ref().map_or(0, |effective| effective.disable_after_failures);
    let count = (most > 0)
        .then(|| format!("after {} given up in a row", counted(most.into(), "delivery", "deliveries")));
    let from = health.disabled_by_failure_from.as_deref();
    let is_over = |from: &str| Timestamp::parse_rfc3339(from).is_some_and(|from| from <= now);
    let time = from.map(|from| match is_over(from) {
        true => "by the next failure that is long enough after the last".to_owned(),
        false => format!("by a failure, the earliest {}", when(from, now)),
    });
    match [count, time].into_iter().flatten().collect::<Vec<_>>().as_slice() {
        [] => " It is never disabled for that.".to_owned(),
        ways => format!(" It is disabled {}.", ways.join(", or ")),
    }
}

fn plots(id: &str, stats: Value, now: Timestamp) -> Option<Plots> {
    let more: More = serde_json::from_value(stats.clone()).ok()?;
    let stats: Stats = serde_json::from_value(stats).ok()?;
    let buckets = buckets(&stats, now);
    Some(Plots {
        tiles: tiles(&stats, more.totals.attempt_ms),
        deliveries: plot_deliveries(&stats, &buckets),
        latency: plot_latency(&stats, &buckets),
        statuses: shares(&more.totals.by_status),
        types: more.by_event_type.into_iter().map(|stats| type_row(id, stats)).collect(),
    })
}

fn tiles(stats: &Stats, attempts: Option<Percentiles>) -> Vec<Tile> {
    let totals = &stats.totals;
    let success = percent(totals.delivered, totals.delivered.saturating_add(totals.failed));
    let first = percent(totals.first_delivered, totals.first_tried);
    let dash = || "–".to_owned();
    let unit = |known: bool| if known { "%" } else { "" };
    vec![
        Tile { label: "Delivered", value: number(totals.delivered), unit: "", bad: false },
        Tile { label: "Attempts that failed", value: number(totals.failed), unit: "", bad: false },
        Tile { label: "Given up", value: number(totals.dead), unit: "", bad: totals.dead > 0 },
        Tile {
            label: "Success",
            unit: unit(success.is_some()),
            value: success.unwrap_or_else(dash),
            bad: false,
        },
        Tile {
            label: "At the first try",
            unit: unit(first.is_some()),
            value: first.unwrap_or_else(dash),
            bad: false,
        },
        Tile {
            label: "Answer, p95",
            value: attempts.map_or_else(dash, |at| duration(at.p95.max(0.0).round() as u64)),
            unit: "",
            bad: false,
        },
    ]
}

fn shares(by_status: &BTreeMap<String, u64>) -> Vec<Share> {
    let all = by_status.values().fold(0u64, |sum, n| sum.saturating_add(*n));
    let shown = STATUSES.iter().filter_map(|(key, name, class)| {
        let attempts = by_status.get(*key).copied().filter(|n| *n > 0)?;
        Some(Share { name, class, percent: percent(attempts, all)?, attempts: number(attempts) })
    });
    shown.collect()
}

fn type_row(id: &str, stats: TypeStats) -> TypeRow {
    let all = stats.delivered.saturating_add(stats.failed);
    TypeRow {
        link: format!("/deliveries?webhook={}&event_type={}", segment(id), segment(&stats.event_type)),
        delivered: number(stats.delivered),
        failed: number(stats.failed),
        failing: percent(stats.failed, all).map_or_else(|| "–".to_owned(), |share| format!("{share} %")),
        event_type: stats.event_type,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn now() -> Timestamp {
        Timestamp::parse_rfc3339("2026-11-22T20:00:00Z").unwrap()
    }

    fn webhook(json: Value) -> Webhook {
        serde_json::from_value(json).unwrap()
    }

    fn words(html: &str) -> String {
        let mut text = String::new();
        let mut inside = false;
        for c in html.chars() {
            match c {
                '<' => inside = true,
                '>' => inside = false,
                c if !inside => text.push(c),
                _ => {}
            }
        }
        text
    }

    #[test]
    fn failures_say_when_they_disable_the_webhook() {
        let mut it = webhook(json!({"state": "active", "effective": {"disable_after_failures": 20},
            "health": {"given_up_in_a_row": 7, "failed_attempts": 84, "failing_since": "2026-11-22T19:00:00Z",
                "last_success_at": "2026-11-22T18:00:00Z", "disabled_by_failure_from": "2026-11-23T20:00:00Z"}}));
        assert_eq!(
            words(&failing(&it, now()).unwrap().0),
            "84 attempts in a row failed since 1 h ago; 7 deliveries were given up. It is disabled after 20 deliveries given up \
             in a row, or by a failure, the earliest in 1 d. The last success was 2 h ago."
        );
        it.state = "disabled".into();
        assert!(!failing(&it, now()).unwrap().0.contains("It is disabled"));
        it.health = Some(Health::default());
        assert!(failing(&it, now()).is_none());
    }

    #[test]
    fn numbers_of_a_webhook_are_drawn() {
        let point = json!({"at": "2026-11-22T19:00:00Z", "accepted": null, "delivered": 3, "failed": 1, "dead": 1,
            "first_tried": 3, "first_delivered": 2, "first_attempt_ms": null, "delivered_ms": null, "attempt_ms": null});
        let mut totals = point.clone();
        totals["by_status"] = json!({"2xx": 3, "3xx": 0, "4xx": 0, "429": 0, "5xx": 1, "none": 0});
        totals["attempt_ms"] = json!({"p50": 10, "p95": 1500, "p99": 2000});
        let stats = json!({"since": "", "until": "", "bucket_ms": 3600000, "points": [point], "totals": totals,
            "by_event_type": [{"event_type": "A", "delivered": 3, "failed": 1}]});
        let plots = plots("wh_1", stats, now()).unwrap();
        let told: Vec<(&str, &str)> =
            plots.tiles.iter().map(|tile| (tile.label, tile.value.as_str())).collect();
        assert_eq!(told[3..], [("Success", "75"), ("At the first try", "66.6"), ("Answer, p95", "1.5 s")]);
        let shares: Vec<(&str, &str)> =
            plots.statuses.iter().map(|it| (it.name, it.percent.as_str())).collect();
        assert_eq!(shares, [("2xx", "75"), ("5xx", "25")]);
        assert_eq!(plots.types[0].failing, "25 %");
    }
}
