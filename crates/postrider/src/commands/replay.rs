//! `postrider replay`.

use std::io::IsTerminal as _;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::export::export;
use super::{Context, asked, detachable, each, list, show};
use crate::api::{Answer, Api};
use crate::args::{Replay, ReplayRun, ReplayWhich};
use crate::exit::{Exit, Failure};
use crate::output::{Column, plain};

const COLUMNS: &[Column] = &[
    ("REPLAY", "/id"),
    ("STATE", "/state"),
    ("TO", "/target"),
    ("CHOSEN", "/chosen"),
    ("SENT", "/sent"),
    ("RATE", "/rate_per_second"),
    ("CREATED", "/created_at"),
];

/// What fails when a plan does.
const PLAN: &str = "cannot plan the replay";

/// How often a replay is looked at while it is waited for.
const LOOK: Duration = Duration::from_millis(250);

/// Does what it says.
///
/// # Errors
/// [`Failure`] with what the API said.
pub async fn run(context: &Context, command: Replay) -> Result<Exit, Failure> {
    match command {
        Replay::Plan(which) => {
            let api = context.api()?;
            let made = api.post(PLAN, &["replays"], Some(body(&which).to_string())).await?;
            let id = plain(made.value.get("id"));
            let (goes_on, follow) = (format!("the replay {id} is being planned"), follow(&id));
            let planned = detachable(planned(context, &api, made), &goes_on, &follow).await?;
            context.out.one(&planned.raw, &planned.value)?;
            if context.out.is_table() {
                context.out.note(&told(&planned.value));
                if count(&planned.value, "chosen") > 0 {
                    let id = plain(planned.value.get("id"));
                    context.out.note(&format!("nothing is sent yet; send it with postrider replay run {id}"));
                }
            }
            Ok(Exit::Ok)
        }
        Replay::Run(command) => send(context, command).await,
        Replay::List(page) => list(context, &["replays"], &[], &page, COLUMNS).await,
        Replay::Show { id } => {
            show(context, &format!("cannot show the replay {id}"), &["replays", &id], &[]).await
        }
        Replay::Export { id } => export(context, &["replays", &id, "export"], Vec::new()).await,
        Replay::Cancel(ids) => {
            each(context, Method::POST, "cannot cancel the replay", &ids.ids, |id| {
                vec!["replays", id, "cancel"]
            })
            .await?;
            Ok(Exit::Ok)
        }
    }
}

/// What is asked of the API.
fn body(which: &ReplayWhich) -> Value {
    let mut body = Map::new();
    for (name, values) in
        [("states", &which.states), ("event_types", &which.event_types), ("events", &which.events)]
    {
        if !values.is_empty() {
            body.insert(name.to_owned(), json!(values));
        }
    }
    for (name, value) in [("webhook", &which.webhook), ("since", &which.since), ("until", &which.until)] {
        if let Some(value) = value {
            body.insert(name.to_owned(), json!(value));
        }
    }
    if which.again {
        body.insert("again".to_owned(), true.into());
    }
    body.insert("target".to_owned(), json!(which.to));
    body.insert("rate_per_second".to_owned(), json!(which.rate));
    Value::Object(body)
}

/// Plans a replay, and waits until it is planned.
async fn plan(context: &Context, api: &Api, which: &ReplayWhich) -> Result<Answer, Failure> {
    let made = api.post(PLAN, &["replays"], Some(body(which).to_string())).await?;
    planned(context, api, made).await
}

/// Waits until a replay is planned.
async fn planned(context: &Context, api: &Api, mut replay: Answer) -> Result<Answer, Failure> {
    let mut bar = context.out.progress("looking", None);
    while state(&replay.value) == "planning" {
        tokio::time::sleep(LOOK).await;
        replay = api.get(PLAN, &["replays", &plain(replay.value.get("id"))], &[]).await?;
        bar.at(count(&replay.value, "looked_at"), "events looked at");
    }
    bar.end();
    match state(&replay.value) {
        "failed" => Err(Failure::new(Exit::Invalid, PLAN, plain(replay.value.get("because")))),
        _ => Ok(replay),
    }
}

/// Sends a replay, and waits for it.
async fn send(context: &Context, command: ReplayRun) -> Result<Exit, Failure> {
    let what = "cannot run the replay";
    if !command.yes && !std::io::stdin().is_terminal() {
        let why = "standard input is no terminal, so nobody can be asked, and --yes was not given";
        return Err(Failure::usage(what, why).next("look with postrider replay plan, then give --yes"));
    }
    let api = context.api()?;
    let made_here = command.id.is_none();
    let replay = match &command.id {
        Some(id) => planned(context, &api, api.get(what, &["replays", id], &[]).await?).await?,
        None => plan(context, &api, &command.which).await?,
    };
    let id = plain(replay.value.get("id"));
    context.out.note(&told(&replay.value));
    let chosen = count(&replay.value, "chosen");
    let waits = state(&replay.value) == "planned";
    let go = !waits || chosen > 0 && (command.yes || asked(&format!("Send {chosen} again?"))?);
    if !go {
        // Nobody wants it.
        let dropped = match made_here {
            true => api.post(what, &["replays", &id, "cancel"], None).await?,
            false => replay,
        };
        context.out.note("nothing was sent");
        context.out.one(&dropped.raw, &dropped.value)?;
        return Ok(Exit::Ok);
    }
    let replay = api.post(what, &["replays", &id, "run"], None).await?;
    if command.no_wait {
        context.out.one(&replay.raw, &replay.value)?;
        return Ok(Exit::Ok);
    }
    let goes_on = format!("the replay {id} goes on");
    let replay =
        detachable(wait(context, &api, replay, command.wait_timeout), &goes_on, &follow(&id)).await?;
    context.out.one(&replay.raw, &replay.value)?;
    judge(&replay.value)
}

/// How to see what becomes of a replay, and how to end it.
fn follow(id: &str) -> String {
    format!("postrider replay show {id} says how it goes; postrider replay cancel {id} ends it")
}

/// Waits until everything is sent, and then until it has ended or the time is over.
async fn wait(
    context: &Context,
    api: &Api,
    mut replay: Answer,
    timeout: Duration,
) -> Result<Answer, Failure> {
    let id = plain(replay.value.get("id"));
    let what = format!("cannot show the replay {id}");
    let mut bar = context.out.progress("sending", Some(count(&replay.value, "chosen")));
    let mut sent_at = None;
    loop {
        let value = &replay.value;
        let dropped = sum(value.get("dropped"));
        bar.at(count(value, "sent") + dropped, &outcomes(value));
        if !matches!(state(value), "planning" | "planned" | "running") {
            let since = *sent_at.get_or_insert_with(Instant::now);
            if pending(value) == 0 || since.elapsed() >= timeout {
                bar.end();
                return Ok(replay);
            }
        }
        tokio::time::sleep(LOOK).await;
        replay = api.get(&what, &["replays", &id], &[]).await?;
    }
}

/// Says how a replay ended; the exit code says whether all was delivered.
fn judge(replay: &Value) -> Result<Exit, Failure> {
    let id = plain(replay.get("id"));
    let (delivered, sent, pending) =
        (count(&replay["outcomes"], "delivered"), count(replay, "sent"), pending(replay));
    if state(replay) != "done" {
        let what = format!("the replay was {} after {sent} were sent", state(replay));
        return Err(Failure::new(Exit::Partly, what, ""));
    }
    if pending > 0 {
        let what = format!("{pending} of {sent} deliveries have not ended");
        return Err(Failure::new(Exit::TimedOut, what, "").next(format!(
            "postrider replay show {id} says how they end; a paused webhook holds its deliveries"
        )));
    }
    if delivered < sent {
        let what = format!("{} of {sent} deliveries ended without being delivered", sent - delivered);
        return Err(
            Failure::new(Exit::Partly, what, "").next("postrider delivery list --state dead shows them")
        );
    }
    Ok(Exit::Ok)
}

/// What a plan says, in a line.
fn told(replay: &Value) -> String {
    let (chosen, rate) = (count(replay, "chosen"), count(replay, "rate_per_second").max(1));
    if chosen == 0 {
        return format!("0 deliveries are chosen: {}", plain(replay.get("because")));
    }
    let seconds = chosen.div_ceil(rate);
    let time = match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h", seconds.div_ceil(3600)),
    };
    let left_out: Vec<String> = replay["left_out"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(reason, n)| format!("{reason} {}", plain(Some(n))))
        .collect();
    let mut text = format!("{chosen} deliveries are chosen; at {rate}/s they take about {time}");
    if !left_out.is_empty() {
        text.push_str(&format!("; left out: {}", left_out.join(", ")));
    }
    text
}

/// How what was sent has ended so far, in a few words.
fn outcomes(replay: &Value) -> String {
    let counts = ["delivered", "dead", "cancelled", "skipped", "pending"]
        .into_iter()
        .map(|name| (name, count(&replay["outcomes"], name)))
        .filter(|(_, n)| *n > 0)
        .map(|(name, n)| format!("{n} {name}"));
    counts.collect::<Vec<_>>().join(", ")
}

fn state(replay: &Value) -> &str {
    replay.get("state").and_then(Value::as_str).unwrap_or_default()
}

fn count(object: &Value, name: &str) -> u64 {
    object.get(name).and_then(Value::as_u64).unwrap_or(0)
}

fn pending(replay: &Value) -> u64 {
    count(&replay["outcomes"], "pending")
}

fn sum(counts: Option<&Value>) -> u64 {
    counts.and_then(Value::as_object).into_iter().flatten().filter_map(|(_, n)| n.as_u64()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_told_in_a_line() {
        let plan =
            json!({ "chosen": 1204, "rate_per_second": 5, "left_out": { "under_way": 3 }, "because": null });
        assert_eq!(
            told(&plan),
            "1204 deliveries are chosen; at 5/s they take about 5 min; left out: under_way 3"
        );
        let nothing = json!({ "chosen": 0, "because": "no event of the tenant was accepted in this time" });
        assert_eq!(
            told(&nothing),
            "0 deliveries are chosen: no event of the tenant was accepted in this time"
        );
    }

    #[test]
    fn the_end_of_a_replay_has_a_code() {
        let ended = |state: &str, delivered: u64, dead: u64, pending: u64| {
            let sent = delivered + dead + pending;
            json!({ "id": "rpl_1", "state": state, "sent": sent,
                    "outcomes": { "delivered": delivered, "dead": dead, "pending": pending } })
        };
        assert_eq!(judge(&ended("done", 5, 0, 0)), Ok(Exit::Ok));
        assert_eq!(judge(&ended("done", 4, 1, 0)).unwrap_err().exit, Exit::Partly);
        assert_eq!(judge(&ended("done", 4, 0, 1)).unwrap_err().exit, Exit::TimedOut);
        assert_eq!(judge(&ended("cancelled", 4, 0, 0)).unwrap_err().exit, Exit::Partly);
    }
}
