//! `postrider queues`.

use serde_json::Value;

use super::Context;
use crate::args::Queues;
use crate::exit::{Exit, Failure};
use crate::output::{Column, plain};
use crate::table;

const COLUMNS: &[Column] = &[
    ("QUEUE", "/name"),
    ("ROLE", "/role"),
    ("TYPE", "/type"),
    ("READY", "/ready"),
    ("TREND", "/trend_per_minute"),
    ("CONSUMERS", "/consumers"),
    ("DELAY MS", "/delay_ms"),
    ("DRIFT", "/drift/kind"),
    ("ARGUMENT", "/drift/argument"),
];

/// Of how many measurements one is in the table of what waited: one for five minutes.
const EVERY: usize = 20;

/// Lists the queues, or shows one. That one is not as it should be is a conflict, as it is for `topology diff`.
///
/// # Errors
/// [`Failure`] with what the API said, or with how many are not as they should be.
pub async fn run(context: &Context, command: Option<Queues>) -> Result<Exit, Failure> {
    match command {
        None => list(context).await,
        Some(Queues::Get { name }) => get(context, &name).await,
    }
}

async fn list(context: &Context) -> Result<Exit, Failure> {
    let answer = context.api()?.get("cannot list the queues", &["queues"], &[]).await?;
    context.out.list(&answer.raw, answer.items(), COLUMNS)?;
    if context.out.is_table() && answer.value["arguments_compared"] == false {
        context
            .out
            .note("control's user may not compare arguments; as the operator: postrider topology diff");
    }
    judge(answer.items())
}

async fn get(context: &Context, name: &str) -> Result<Exit, Failure> {
    let what = format!("cannot show the queue {name}");
    let answer = context.api()?.get(&what, &["queues", name], &[]).await?;
    let (queue, points) = apart(answer.value);
    context.out.one(&answer.raw, &queue)?;
    if context.out.is_table() {
        if !points.is_empty() {
            context.out.text(&format!("\n{}", waited(&points).trim_end()))?;
        }
        if let Some(why) = queue["unknown_because"].as_str() {
            context.out.note(&format!("how it is now is not known: {why}"));
        }
    }
    judge(std::slice::from_ref(&queue))
}

/// A queue without what was measured, and that.
fn apart(mut queue: Value) -> (Value, Vec<Value>) {
    let points =
        queue.get_mut("history").and_then(Value::as_object_mut).and_then(|history| history.remove("points"));
    let points = match points {
        Some(Value::Array(points)) => points,
        _ => Vec::new(),
    };
    (queue, points)
}

/// What waited, every five minutes, the newest last.
fn waited(points: &[Value]) -> String {
    let row = |point: &Value| vec![plain(point.get("at")), plain(point.get("ready"))];
    let mut rows: Vec<Vec<String>> = points.iter().rev().step_by(EVERY).map(row).collect();
    rows.reverse();
    table::render(&["AT", "READY"], &rows)
}

fn judge(queues: &[Value]) -> Result<Exit, Failure> {
    let differing = queues.iter().filter(|queue| !queue["drift"].is_null()).count();
    if differing == 0 {
        return Ok(Exit::Ok);
    }
    let what = format!("{differing} of {} queues are not as they should be", queues.len());
    Err(Failure::new(Exit::Conflict, what, "").next("postrider topology apply declares what is missing"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_measured_is_told_every_five_minutes() {
        let point = |n: u32| json!({ "at": format!("20:{:02}:{:02}", n / 4, n % 4 * 15), "ready": n });
        let points: Vec<Value> = (0..50).map(point).collect();
        let (queue, points) =
            apart(json!({ "name": "a", "history": { "since": "20:00", "points": points } }));
        assert_eq!(queue, json!({ "name": "a", "history": { "since": "20:00" } }));
        let lines: Vec<String> = waited(&points).lines().map(|line| line.trim_end().to_owned()).collect();
        assert_eq!(lines, ["AT        READY", "20:02:15  9", "20:07:15  29", "20:12:15  49"]);
        assert_eq!(apart(json!({ "history": null })).1, Vec::<Value>::new());
    }

    #[test]
    fn drift_has_the_exit_code_of_topology_diff() {
        let fine = json!({"name": "a", "drift": null});
        assert_eq!(judge(std::slice::from_ref(&fine)), Ok(Exit::Ok));
        let failure = judge(&[fine, json!({"name": "b", "drift": {"kind": "missing"}})]).unwrap_err();
        assert_eq!(failure.exit, Exit::Conflict);
        assert_eq!(failure.to_string(), "1 of 2 queues are not as they should be");
    }
}
