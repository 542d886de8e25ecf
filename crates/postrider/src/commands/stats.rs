//! `postrider stats`: what happened over time.

use serde_json::Value;

use super::Context;
use crate::args::Stats;
use crate::exit::{Exit, Failure};
use crate::output::plain;
use crate::table;

/// What is shown of each bucket, and of all of them: its header, and where it is.
const COLUMNS: [(&str, &str); 9] = [
    ("ACCEPTED", "/accepted"),
    ("DELIVERED", "/delivered"),
    ("FAILED", "/failed"),
    ("DEAD", "/dead"),
    ("FIRST TRIED", "/first_tried"),
    ("AT ONCE", "/first_delivered"),
    ("FIRST P95 MS", "/first_attempt_ms/p95"),
    ("DELIVERED P95 MS", "/delivered_ms/p95"),
    ("ATTEMPT P95 MS", "/attempt_ms/p95"),
];

/// What of a bucket says that something happened in it.
const HAPPENED: [&str; 4] = ["accepted", "delivered", "failed", "dead"];

/// Shows what happened, bucket by bucket; empty buckets are left out of the table.
///
/// # Errors
/// [`Failure`] with what the API said.
pub async fn run(context: &Context, asked: Stats) -> Result<Exit, Failure> {
    let query: Vec<(&str, String)> =
        [("webhook", asked.webhook), ("since", asked.since), ("until", asked.until)]
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect();
    let answer = context.api()?.get("cannot show what happened", &["stats"], &query).await?;
    if context.out.is_table() {
        context.out.text(shown(&answer.value).trim_end())?;
    } else {
        context.out.text(answer.raw.trim_end())?;
    }
    Ok(Exit::Ok)
}

/// The answer as tables: buckets and their totals, attempts by status, and by event type where it is about a webhook.
fn shown(stats: &Value) -> String {
    let header: Vec<&str> = std::iter::once("FROM").chain(COLUMNS.map(|(header, _)| header)).collect();
    let row = |name: String, counted: &Value| -> Vec<String> {
        std::iter::once(name).chain(COLUMNS.map(|(_, path)| plain(counted.pointer(path)))).collect()
    };
    let happened = |point: &&Value| HAPPENED.iter().any(|name| point[name].as_u64().is_some_and(|n| n > 0));
    let points = stats["points"].as_array().map_or(&[][..], Vec::as_slice);
    let mut rows: Vec<Vec<String>> =
        points.iter().filter(happened).map(|point| row(plain(point.get("at")), point)).collect();
    rows.push(row("all".to_owned(), &stats["totals"]));
    let minutes = stats["bucket_ms"].as_u64().unwrap_or_default() / 60_000;
    let mut text = format!(
        "{} to {}, by {minutes} min\n\n{}\n",
        plain(stats.get("since")),
        plain(stats.get("until")),
        table::render(&header, &rows)
    );
    let by_status = stats["totals"]["by_status"].as_object().into_iter().flatten();
    let by_status: Vec<Vec<String>> = by_status.map(|(name, n)| vec![name.clone(), plain(Some(n))]).collect();
    text.push_str(&table::render(&["STATUS", "ATTEMPTS"], &by_status));
    if let Some(types) = stats.get("by_event_type").and_then(Value::as_array) {
        let row = |of: &Value| ["event_type", "delivered", "failed"].map(|name| plain(of.get(name))).to_vec();
        let rows: Vec<Vec<String>> = types.iter().map(row).collect();
        text.push('\n');
        text.push_str(&table::render(&["EVENT TYPE", "DELIVERED", "FAILED"], &rows));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_happened_is_shown_without_what_is_empty() {
        let counted = |n: u64| {
            let of = |n: u64| json!({ "p50": n, "p95": n * 2, "p99": n * 3 });
            let ms = if n > 0 { of(n) } else { Value::Null };
            json!({ "at": format!("2026-11-21T20:0{n}:00Z"), "accepted": null, "delivered": n, "failed": n / 2, "dead": 0,
                "first_tried": n, "first_delivered": n, "first_attempt_ms": ms, "delivered_ms": null, "attempt_ms": ms })
        };
        let mut totals = counted(6);
        totals["by_status"] = json!({ "2xx": 6, "3xx": 0, "4xx": 0, "429": 1, "5xx": 2, "none": 0 });
        let stats = json!({ "since": "2026-11-21T20:00:00Z", "until": "2026-11-21T20:05:00Z", "bucket_ms": 60_000,
            "points": [counted(4), counted(0), counted(2)], "totals": totals,
            "by_event_type": [{ "event_type": "USER_CREATED", "delivered": 6, "failed": 3 }] });
        insta::assert_snapshot!(shown(&stats));
    }
}
