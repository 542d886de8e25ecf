//! First attempts over the time of the list, low and above it: each bar leads to the deliveries of its time, which are tried at once
//! when they are made.

use std::time::Duration;

use postrider_core::Timestamp;
use serde::Deserialize;

use crate::chart::{Bar, brush};
use crate::page::Visit;
use crate::pages::listing::Filtered;
use crate::words::{Html, exactly, number};

/// How far back it goes where no time is chosen.
const DAY_MS: u64 = 24 * 3_600_000;
/// What it cannot be narrowed to: with one of these it would be about other deliveries than the list.
const UNKNOWN: [&str; 6] = ["state", "event", "event_type", "class", "status", "attempts_from"];
/// How long the list waits for it.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Deserialize)]
struct Stats {
    bucket_ms: u64,
    points: Vec<Point>,
}

#[derive(Debug, Deserialize)]
struct Point {
    at: String,
    first_tried: u64,
    first_delivered: u64,
}

impl Point {
    fn later(&self) -> u64 {
        self.first_tried.saturating_sub(self.first_delivered)
    }
}

/// The plot; empty where there was nothing, or where it would be about something else than the list. The list is worth more than
/// the plot, so that nothing fails for it.
pub(super) async fn over_time(visit: &Visit, list: &Filtered<'_>) -> Html {
    let given = |name: &str| Some(list.fields.get(name)).filter(|value| !value.is_empty());
    if UNKNOWN.iter().any(|name| given(name).is_some()) || given("cursor").is_some() {
        return Html::default();
    }
    let chosen = list.since(visit.now).or_else(|| given("since").map(str::to_owned));
    let over = if chosen.is_some() { "over this time" } else { "in the last 24 hours" };
    let since = chosen.unwrap_or_else(|| visit.now.minus_ms(DAY_MS).to_rfc3339());
    let mut asked = vec![("since", since.as_str())];
    asked.extend(given("until").map(|until| ("until", until)));
    asked.extend(given("webhook").map(|webhook| ("webhook", webhook)));
    let stats = tokio::time::timeout(PATIENCE, visit.api.get::<Stats>("/v1/stats", &asked)).await;
    match stats {
        Ok(Ok(stats)) => drawn(&stats, over, list),
        Ok(Err(_)) | Err(_) => Html::default(),
    }
}

fn drawn(stats: &Stats, over: &str, list: &Filtered<'_>) -> Html {
    let sum = |count: fn(&Point) -> u64| stats.points.iter().map(count).sum::<u64>();
    let (delivered, later) = (sum(|point| point.first_delivered), sum(Point::later));
    if delivered + later == 0 {
        return Html::default();
    }
    let bars: Vec<Bar> = stats.points.iter().filter_map(|point| bar(point, stats.bucket_ms, list)).collect();
    brush(&format!("First attempts {over}: {}", told(delivered, later)), &bars)
}

fn told(delivered: u64, later: u64) -> String {
    format!("{} delivered at once, {} not", number(delivered), number(later))
}

fn bar(point: &Point, bucket_ms: u64, list: &Filtered<'_>) -> Option<Bar> {
    let begins = Timestamp::parse_rfc3339(&point.at)?;
    let ends = begins.plus_ms(bucket_ms);
    let (since, until) = (begins.to_rfc3339(), ends.to_rfc3339());
    Some(Bar {
        title: format!(
            "{} to {}: {}",
            to_the_minute(begins),
            to_the_minute(ends),
            told(point.first_delivered, point.later())
        ),
        link: list.link(&[("range", ""), ("since", &since), ("until", &until), ("d", "")]),
        good: point.first_delivered,
        bad: point.later(),
    })
}

fn to_the_minute(at: Timestamp) -> String {
    exactly(at).chars().take("2026-11-22 20:00".len()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::Fields;

    fn stats(points: &[(u64, u64)]) -> Stats {
        let begins = Timestamp::parse_rfc3339("2026-11-22T20:00:00Z").unwrap();
        let point = |(n, (first_tried, first_delivered)): (u64, &(u64, u64))| Point {
            at: begins.plus_ms(n * 60_000).to_rfc3339(),
            first_tried: *first_tried,
            first_delivered: *first_delivered,
        };
        Stats { bucket_ms: 60_000, points: (0..).zip(points).map(point).collect() }
    }

    #[test]
    fn a_bar_leads_to_the_list_of_its_time() {
        let fields = Fields::parse(b"webhook=wh_1&range=1h&d=x");
        let list = Filtered { path: "/deliveries", fields: &fields };
        let html = drawn(&stats(&[(4, 3), (2, 0)]), "over this time", &list).0;
        let link =
            "/deliveries?webhook=wh_1&amp;since=2026-11-22T20%3A01%3A00Z&amp;until=2026-11-22T20%3A02%3A00Z";
        assert!(html.contains(link), "{html}");
        assert!(html.contains("First attempts over this time: 3 delivered at once, 3 not"), "{html}");
        assert!(html.contains("2026-11-22 20:00 to 2026-11-22 20:01: 3 delivered at once, 1 not"), "{html}");
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        let fields = Fields::default();
        let list = Filtered { path: "/deliveries", fields: &fields };
        assert_eq!(drawn(&stats(&[(0, 0)]), "", &list).0, "");
        assert_eq!(drawn(&stats(&[]), "", &list).0, "");
    }
}
