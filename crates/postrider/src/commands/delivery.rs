//! `postrider delivery`.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

use super::{Context, each, list, wait_for};
use crate::api::Api;
use crate::args::Delivery;
use crate::exit::{Exit, Failure};
use crate::output::{Column, plain};
use crate::table;

/// What a list of deliveries shows.
pub(crate) const COLUMNS: &[Column] = &[
    ("DELIVERY", "/id"),
    ("STATE", "/state"),
    ("EVENT TYPE", "/event_type"),
    ("WEBHOOK", "/webhook"),
    ("ATTEMPTS", "/attempts"),
    ("OUTCOME", "/last/class"),
    ("STATUS", "/last/status"),
    ("NEXT", "/next_at"),
];

/// The columns of a delivery's attempts.
pub(crate) const ATTEMPT_COLUMNS: &[Column] = &[
    ("SERIES", "/series"),
    ("ATTEMPT", "/n"),
    ("AT", "/at"),
    ("TOOK MS", "/duration_ms"),
    ("OUTCOME", "/class"),
    ("STATUS", "/status"),
    ("NEXT", "/next_at"),
    ("ERROR", "/error"),
];

/// The most deliveries whose end is told one by one.
const MAX_SHOWN: usize = 10;

/// Does what it says.
///
/// # Errors
/// [`Failure`] with what the API said.
pub async fn run(context: &Context, command: Delivery) -> Result<Exit, Failure> {
    match command {
        Delivery::List { state, webhook, event, event_type, since, until, page } => {
            let filter = [
                ("state", state.as_ref()),
                ("webhook", webhook.as_ref()),
                ("event", event.as_ref()),
                ("event_type", event_type.as_ref()),
                ("since", since.as_ref()),
                ("until", until.as_ref()),
            ];
            list(context, &["deliveries"], &filter, &page, COLUMNS).await
        }
        Delivery::Get { id } => {
            let answer = context
                .api()?
                .get(&format!("cannot show the delivery {id}"), &["deliveries", &id], &[])
                .await?;
            if !context.out.is_table() {
                context.out.one(&answer.raw, &answer.value)?;
                return Ok(Exit::Ok);
            }
            let mut summary = answer.value.clone();
            if let Some(summary) = summary.as_object_mut() {
                summary.remove("all_series");
            }
            context.out.one("", &summary)?;
            context.out.text("")?;
            context.out.list("", &attempts_of(&answer.value), ATTEMPT_COLUMNS)?;
            Ok(Exit::Ok)
        }
        Delivery::Redeliver { ids, wait, wait_timeout } => {
            let answers = each(context, Method::POST, "cannot redeliver", &ids.ids, |id| {
                vec!["deliveries", id, "redeliver"]
            })
            .await?;
            if !wait {
                return Ok(Exit::Ok);
            }
            drop(answers);
            let states = ended(&context.api()?, &ids.ids, wait_timeout).await?;
            judge(context, &states)
        }
    }
}

/// Every attempt of a delivery, in order, each with its series.
pub(crate) fn attempts_of(delivery: &Value) -> Vec<Value> {
    let mut attempts = Vec::new();
    for series in delivery["all_series"].as_array().into_iter().flatten() {
        for attempt in series["attempts"].as_array().into_iter().flatten() {
            let mut attempt = attempt.clone();
            attempt["series"] = series["series"].clone();
            attempts.push(attempt);
        }
    }
    attempts.sort_by_key(|attempt| (attempt["series"].as_u64(), attempt["n"].as_u64()));
    attempts
}

/// Waits until each of these deliveries has ended, and returns their states in the same order.
pub(crate) async fn ended(
    api: &Api,
    ids: &[String],
    timeout: Duration,
) -> Result<Vec<(String, String)>, Failure> {
    let mut states: Vec<(String, String)> = Vec::with_capacity(ids.len());
    let deadline = tokio::time::Instant::now() + timeout;
    for id in ids {
        let what = format!("the delivery {id} has not ended");
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        let state = wait_for(&what, left, || async {
            let answer = api.get(&what, &["deliveries", id], &[]).await?;
            let state = plain(answer.value.get("state"));
            Ok(if is_final(&state) { Ok(state) } else { Err(format!("it is {state}")) })
        })
        .await?;
        states.push((id.clone(), state));
    }
    Ok(states)
}

/// Whether nothing more happens in this state.
pub(crate) fn is_final(state: &str) -> bool {
    matches!(state, "delivered" | "dead" | "cancelled" | "skipped")
}

/// Says how deliveries ended; the exit code says whether all were delivered.
pub(crate) fn judge(context: &Context, states: &[(String, String)]) -> Result<Exit, Failure> {
    let undelivered = states.iter().filter(|(_, state)| state != "delivered").count();
    if states.len() <= MAX_SHOWN {
        for (id, state) in states {
            context.out.note(&format!("{}  {}", context.out.state(state), table::printable(id)));
        }
    } else {
        context
            .out
            .note(&format!("{} deliveries ended, {undelivered} without being delivered", states.len()));
    }
    if undelivered == 0 {
        return Ok(Exit::Ok);
    }
    Err(Failure::new(
        Exit::Partly,
        format!("{undelivered} of {} deliveries ended without being delivered", states.len()),
        "",
    )
    .next("postrider delivery get ID shows the attempts, postrider delivery redeliver ID tries again"))
}
