//! How full queues were over the last hour, as plots, and where it goes, in words.

use std::collections::BTreeMap;

use postrider_core::Timestamp;
use serde::Deserialize;

use crate::chart::{Bucket, Series, stacked};
use crate::words::{Html, clock, counted, duration, number};

const HOUR_MS: i64 = 3_600_000;
/// How much of an hour a bar stands for where many roles are drawn, and where one queue is.
const MINUTE_MS: i64 = 60_000;
const QUARTER_MS: i64 = 15_000;

/// What queues are for, in the order in which they are drawn on one another, each with a class of the style sheet.
const ROLES: [(&str, &str); 10] = [
    ("events", "r-events"),
    ("fresh", "r-fresh"),
    ("retry", "r-retry"),
    ("replay", "r-replay"),
    ("delay", "r-delay"),
    ("park", "r-park"),
    ("journal", "r-journal"),
    ("dead", "r-dead"),
    ("invalid", "r-invalid"),
    ("poison", "r-poison"),
];

/// What was measured, as the API tells it.
#[derive(Debug, Deserialize)]
pub(super) struct History<T> {
    interval_ms: u64,
    since: Option<String>,
    points: Vec<Point<T>>,
}

#[derive(Debug, Deserialize)]
struct Point<T> {
    at: String,
    ready: Option<T>,
}

/// A plot with what its colours mean.
pub(super) struct Plot {
    pub(super) plot: Html,
    pub(super) legend: Vec<(&'static str, &'static str)>,
    pub(super) measured: String,
}

impl<T: Clone> History<T> {
    /// Buckets of the last hour, and the last measurement in each of them.
    fn laid_out(&self, bucket_ms: i64, now: Timestamp) -> (Vec<Bucket>, Vec<Option<T>>) {
        let bucket = |at: Timestamp| at.as_millis().div_euclid(bucket_ms);
        let parsed = |point: &Point<T>| Timestamp::parse_rfc3339(&point.at).map(bucket);
        // What has just begun is drawn once it was measured.
        let last = self.points.last().and_then(parsed).unwrap_or(bucket(now));
        let first = last + 1 - HOUR_MS / bucket_ms;
        let mut values = vec![None; usize::try_from(HOUR_MS / bucket_ms).unwrap_or_default()];
        for point in self.points.iter().filter(|point| point.ready.is_some()) {
            let place = parsed(point).and_then(|bucket| usize::try_from(bucket - first).ok());
            if let Some(value) = place.and_then(|place| values.get_mut(place)) {
                value.clone_from(&point.ready);
            }
        }
        let digits = if bucket_ms < MINUTE_MS { 8 } else { 5 };
        let buckets = (first..=last).map(|n| {
            let time = clock(Timestamp::from_millis(n * bucket_ms));
            Bucket { label: time[..5].to_owned(), title: time[..digits].to_owned() }
        });
        (buckets.collect(), values)
    }

    /// Since when it is measured, and how often it was.
    fn measured(&self, now: Timestamp) -> String {
        let every = duration(self.interval_ms);
        let Some(since) = self.since.as_deref().and_then(Timestamp::parse_rfc3339) else {
            return format!("Nothing was measured yet. Control measures every {every}.");
        };
        let known = self.points.iter().filter(|point| point.ready.is_some()).count() as u64;
        let known = counted(known, "point", "points");
        if now.since_ms(since) > HOUR_MS as u64 {
            format!("Measured every {every} over the last hour: {known}.")
        } else {
            format!("Measured every {every} since {}: {known}.", &clock(since)[..8])
        }
    }
}

/// What waited, by what the queues are for: of each minute the last measurement.
pub(super) fn by_role(history: &History<BTreeMap<String, u64>>, now: Timestamp) -> Plot {
    let (buckets, ready) = history.laid_out(MINUTE_MS, now);
    let of = |role: &str| -> Vec<Option<f64>> {
        let value = |ready: &BTreeMap<String, u64>| Some(*ready.get(role)? as f64);
        ready.iter().map(|ready| ready.as_ref().and_then(value)).collect()
    };
    let all = ROLES.into_iter().map(|(name, class)| Series { name, class, values: of(name) });
    // Most of them are empty, always.
    let mut series: Vec<Series> =
        all.filter(|one| one.values.iter().flatten().any(|value| *value > 0.0)).collect();
    let legend = series.iter().map(|one| (one.class, one.name)).collect();
    if series.is_empty() {
        let sum = |ready: &BTreeMap<String, u64>| ready.values().sum::<u64>() as f64;
        let values = ready.iter().map(|ready| ready.as_ref().map(sum)).collect();
        series.push(Series { name: "waiting", class: ROLES[0].1, values });
    }
    let plot = stacked("Messages that waited over the last hour, by role", &buckets, &series, 560.0);
    Plot { plot, legend, measured: history.measured(now) }
}

/// What waited in one queue of this purpose.
pub(super) fn of_one(history: &History<u64>, role: &str, now: Timestamp) -> Plot {
    let (buckets, ready) = history.laid_out(QUARTER_MS, now);
    let values = ready.into_iter().map(|ready| ready.map(|ready| ready as f64)).collect();
    let class = ROLES.iter().find(|(known, _)| *known == role).map_or(ROLES[0].1, |(_, class)| class);
    let series = [Series { name: "waiting", class, values }];
    let plot = stacked("Messages that waited over the last hour", &buckets, &series, 760.0);
    Plot { plot, legend: Vec::new(), measured: history.measured(now) }
}

/// By how much more waits each minute.
pub(super) fn trend(per_minute: Option<f64>) -> String {
    let Some(trend) = per_minute else { return "–".to_owned() };
    let sign = match trend {
        trend if trend > 0.0 => "+",
        trend if trend < 0.0 => "−",
        _ => "",
    };
    let size = trend.abs();
    if size < 100.0 && size.fract() > 0.0 {
        format!("{sign}{size:.1}")
    } else {
        format!("{sign}{}", number(size.round() as u64))
    }
}

/// When it is empty if it goes on like this.
pub(super) fn empty_in(ms: u64) -> String {
    let about = match ms.div_ceil(MINUTE_MS as u64) {
        0 | 1 => "a minute".to_owned(),
        minutes @ 2..120 => format!("{minutes} min"),
        minutes => format!("{} h", minutes.div_ceil(60)),
    };
    format!("empty in about {about}")
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;

    fn now() -> Timestamp {
        Timestamp::parse_rfc3339("2026-11-22T20:00:20Z").unwrap()
    }

    fn history<T: DeserializeOwned>(since: &str, points: &[(&str, Value)]) -> History<T> {
        let point =
            |(at, ready): &(&str, Value)| json!({ "at": format!("2026-11-22T{at}Z"), "ready": ready });
        let points: Vec<Value> = points.iter().map(point).collect();
        let since = (!since.is_empty()).then(|| format!("2026-11-22T{since}Z"));
        serde_json::from_value(json!({ "interval_ms": 15_000, "since": since, "points": points })).unwrap()
    }

    #[test]
    fn a_minute_has_its_last_measurement_and_a_gap_is_no_zero() {
        let measured = [
            ("19:57:45", json!({ "fresh": 9 })),
            ("19:58:00", json!({ "fresh": 1, "delay": 2 })),
            ("19:58:45", json!({ "fresh": 5, "delay": 0 })),
            ("19:59:00", json!(null)),
            ("19:59:45", json!(null)),
            ("20:00:00", json!({ "fresh": 0, "delay": 7 })),
        ];
        let Plot { plot, legend, measured } = by_role(&history("19:57:31", &measured), now());
        assert_eq!(legend, [("r-fresh", "fresh"), ("r-delay", "delay")]);
        assert_eq!(measured, "Measured every 15 s since 19:57:31: 4 points.");
        for title in
            ["19:57: 9 fresh", "19:58: 5 fresh, 0 delay", "19:59: not measured", "20:00: 0 fresh, 7 delay"]
        {
            assert!(plot.0.contains(&format!("<title>{title}</title>")), "{title} in {}", plot.0);
        }
        assert_eq!(plot.0.matches("not measured").count(), 57);
        assert_eq!(plot.0.matches("<g>").count(), 60);
    }

    #[test]
    fn the_first_measurement_can_be_seen() {
        let Plot { plot, measured, .. } =
            of_one(&history("20:00:00", &[("20:00:00", json!(3))]), "retry", now());
        assert_eq!(measured, "Measured every 15 s since 20:00:00: 1 point.");
        assert!(plot.0.contains("<title>20:00:00: 3 waiting</title>"), "{}", plot.0);
        assert_eq!(plot.0.matches("class=\"r-retry\"").count(), 1);
        let Plot { plot, measured, .. } = of_one(&history("", &[]), "retry", now());
        assert_eq!(measured, "Nothing was measured yet. Control measures every 15 s.");
        assert_eq!(plot.0.matches("not measured").count(), 240);
        let long = of_one(&history("01:00:00", &[("19:59:45", json!(0))]), "no such role", now());
        assert_eq!(long.measured, "Measured every 15 s over the last hour: 1 point.");
    }

    #[test]
    fn where_nothing_waits_the_plot_says_so() {
        let Plot { plot, legend, .. } =
            by_role(&history("19:00:00", &[("20:00:00", json!({ "fresh": 0 }))]), now());
        assert!(legend.is_empty() && plot.0.contains("<title>20:00: 0 waiting</title>"), "{}", plot.0);
    }

    #[test]
    fn a_trend_has_a_sign_and_no_false_exactness() {
        let told: Vec<String> =
            [None, Some(0.0), Some(3.5), Some(-12.0), Some(-1234.5)].into_iter().map(trend).collect();
        assert_eq!(told, ["–", "0", "+3.5", "−12", "−1,235"]);
        let told: Vec<String> =
            [1, 60_000, 200_000, 7_200_000, 80_000_000].into_iter().map(empty_in).collect();
        let about = ["a minute", "a minute", "4 min", "2 h", "23 h"];
        assert_eq!(told, about.map(|about| format!("empty in about {about}")));
    }
}
