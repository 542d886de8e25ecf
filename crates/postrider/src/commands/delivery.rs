//! `postrider delivery`.

use std::io::IsTerminal as _;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Map, Value};

use super::export::export;
use super::{Context, asked, detachable, each, list, wait_for};
use crate::api::Api;
use crate::args::{Delivery, DeliveryCancel, DeliveryFilter};
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

/// What a list of cancellations shows.
const CANCELLATION_COLUMNS: &[Column] = &[
    ("CANCELLATION", "/id"),
    ("AT", "/created_at"),
    ("DELIVERY", "/delivery"),
    ("WEBHOOK", "/webhook"),
    ("EVENT TYPE", "/event_type"),
    ("SINCE", "/since"),
    ("UNTIL", "/until"),
    ("STATE", "/state"),
    ("DELIVERIES", "/deliveries"),
];

/// The columns of a delivery's attempts.
pub(crate) const ATTEMPT_COLUMNS: &[Column] = &[
    ("SERIES", "/series"),
    ("ATTEMPT", "/n"),
    ("AT", "/at"),
    ("TOOK MS", "/duration_ms"),
    ("FIRST BYTE MS", "/first_byte_ms"),
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
        Delivery::List { filter, page } => {
            let filter = query_of(filter);
            let filter: Vec<_> = filter.iter().map(|(name, value)| (*name, value.as_ref())).collect();
            list(context, &["deliveries"], &filter, &page, COLUMNS).await
        }
        Delivery::Export(filter) => {
            let filter = query_of(filter).into_iter().filter_map(|(name, value)| Some((name, value?)));
            export(context, &["deliveries", "export"], filter.collect()).await
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
        Delivery::Cancel(command) => cancel(context, command).await,
        Delivery::Cancellations(page) => {
            list(context, &["cancellations"], &[], &page, CANCELLATION_COLUMNS).await
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
            let api = context.api()?;
            let many = u64::try_from(ids.ids.len()).ok().filter(|many| *many > 1);
            let mut bar = many.map(|many| context.out.progress("ended", Some(many)));
            let seen = |n| bar.iter_mut().for_each(|bar| bar.at(n, ""));
            let waited = ended(&api, &ids.ids, wait_timeout, seen);
            let follow = "postrider delivery get ID says how a delivery goes";
            let states = detachable(waited, "the deliveries go on", follow).await?;
            if let Some(bar) = bar {
                bar.end();
            }
            judge(context, &states)
        }
    }
}

/// The filters as the API calls them.
fn query_of(filter: DeliveryFilter) -> [(&'static str, Option<String>); 9] {
    let DeliveryFilter { state, webhook, event, event_type, since, until, class, status, attempts_from } =
        filter;
    [
        ("state", state),
        ("webhook", webhook),
        ("event", event),
        ("event_type", event_type),
        ("since", since),
        ("until", until),
        ("class", class),
        ("status", status),
        ("attempts_from", attempts_from.map(|n| n.to_string())),
    ]
}

async fn cancel(context: &Context, command: DeliveryCancel) -> Result<Exit, Failure> {
    let DeliveryCancel { ids, webhook, event_type, since, until, state, yes, dry_run } = command;
    if !ids.is_empty() {
        each(context, Method::POST, "cannot cancel", &ids, |id| vec!["deliveries", id, "cancel"]).await?;
        return Ok(Exit::Ok);
    }
    let what = "cannot cancel deliveries";
    // Said before anything is asked of the API, so that scripts fail alike whatever is there.
    if !yes && !dry_run && !std::io::stdin().is_terminal() {
        let why = "standard input is no terminal, so nobody can be asked, and --yes was not given";
        return Err(Failure::usage(what, why).next("look with --dry-run, then give --yes"));
    }
    let filter = [
        ("webhook", webhook),
        ("event_type", event_type),
        ("since", since),
        ("until", until),
        ("state", state),
    ];
    let mut body: Map<String, Value> =
        filter.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into()))).collect();
    let api = context.api()?;
    let post = async |body: &Map<String, Value>| {
        api.post(what, &["cancellations"], Some(Value::Object(body.clone()).to_string())).await
    };
    if !yes {
        body.insert("plan".to_owned(), true.into());
        let plan = post(&body).await?;
        if dry_run {
            context.out.one(&plan.raw, &plan.value)?;
            return Ok(Exit::Ok);
        }
        let (count, held) = (plain(plan.value.get("deliveries")), plain(plan.value.get("held")));
        if !asked(&format!("Cancel {count} deliveries, {held} of them held?"))? {
            context.out.note("nothing was cancelled");
            return Ok(Exit::Ok);
        }
        body.remove("plan");
    }
    let done = post(&body).await?;
    context.out.one(&done.raw, &done.value)?;
    Ok(Exit::Ok)
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

/// Waits until each of these deliveries has ended, and returns their states in the same order. `seen` is told, now and then, of
/// how many it is known.
pub(crate) async fn ended(
    api: &Api,
    ids: &[String],
    timeout: Duration,
    mut seen: impl FnMut(u64),
) -> Result<Vec<(String, String)>, Failure> {
    let mut states: Vec<(String, String)> = Vec::with_capacity(ids.len());
    let deadline = tokio::time::Instant::now() + timeout;
    for (n, id) in (0..).zip(ids) {
        let what = format!("the delivery {id} has not ended");
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        let state = wait_for(&what, left, || {
            seen(n);
            async {
                let answer = api.get(&what, &["deliveries", id], &[]).await?;
                let state = plain(answer.value.get("state"));
                Ok(if is_final(&state) { Ok(state) } else { Err(format!("it is {state}")) })
            }
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
