//! `postrider trigger`.

use postrider_core::intake::{Refusal, RefusalReason, Report};
use serde::Serialize;
use serde_json::{Value, json};

use super::Context;
use super::offline::{Offline, Shown, messages};
use crate::args::Trigger;
use crate::exit::{Exit, Failure};
use crate::output::Format;
use crate::table;

/// The longest data in a table, characters.
const MAX_DATA: usize = 60;

/// An action and what it would become.
#[derive(Debug, Serialize)]
struct Outcome {
    line: usize,
    action: Option<String>,
    id: Option<String>,
    events: Vec<Shown>,
    refused: Option<Refused>,
}

/// Why it would be refused.
#[derive(Debug, Serialize)]
struct Refused {
    reason: &'static str,
    detail: String,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { reason: refusal.reason.as_str(), detail: refusal.detail }
    }
}

/// Does what it says.
///
/// # Errors
/// [`Failure`] when an action would be refused.
pub async fn run(context: &Context, command: Trigger) -> Result<Exit, Failure> {
    let Trigger::Test { file, against } = command;
    let offline = Offline::new(context, &against).await?;
    let outcomes: Vec<Outcome> =
        messages(&file)?.into_iter().map(|(line, message)| outcome(&offline, line, &message)).collect();
    show(context, &outcomes)?;
    let refused = outcomes.iter().filter(|outcome| outcome.refused.is_some()).count();
    if refused == 0 {
        return Ok(Exit::Ok);
    }
    let exit = if refused == outcomes.len() { Exit::Invalid } else { Exit::Partly };
    let what = format!("{refused} of {} actions would be refused, with all their events", outcomes.len());
    Err(Failure::new(exit, what, "").next("docs/triggers.md says what each reason means"))
}

fn outcome(offline: &Offline, line: usize, message: &str) -> Outcome {
    let nothing = Outcome { line, action: None, id: None, events: Vec::new(), refused: None };
    match offline.read(message) {
        Err(refusal) => Outcome { refused: Some(refusal.into()), ..nothing },
        Ok(Report::Event(event)) => {
            let detail =
                format!("{:?} is an event, not an action: it goes out as it is", event.event_type.as_str());
            let refused = Refused { reason: RefusalReason::UnknownAction.as_str(), detail };
            Outcome { refused: Some(refused), ..nothing }
        }
        Ok(Report::Action(action)) => {
            let (name, id) = (action.name.as_str().to_owned(), action.id.as_str().to_owned());
            let named = Outcome { action: Some(name), id: Some(id), ..nothing };
            match offline.resolve(Report::Action(action)) {
                Ok(events) => Outcome { events, ..named },
                Err(refusal) => Outcome { refused: Some(refusal.into()), ..named },
            }
        }
    }
}

fn show(context: &Context, outcomes: &[Outcome]) -> Result<(), Failure> {
    let write = |error: serde_json::Error| Failure::new(Exit::Other, "cannot write the events", error);
    let out = &context.out;
    if !out.quiet {
        match out.format {
            Format::Json => {
                let items = serde_json::to_string(outcomes).map_err(write)?;
                return out.text(&format!("{{\"items\":{items},\"next\":null}}"));
            }
            Format::Jsonl => {
                return outcomes
                    .iter()
                    .try_for_each(|outcome| out.text(&serde_json::to_string(outcome).map_err(write)?));
            }
            Format::Table => {}
        }
    }
    let mut rows: Vec<Value> = Vec::new();
    for outcome in outcomes {
        let action = outcome.action.as_deref().unwrap_or("-");
        let row = |event_type: &str, key: Option<&str>, id: Option<&str>, data: &str| {
            let data = table::cut(data, MAX_DATA);
            json!({"line": outcome.line, "action": action, "event_type": event_type, "key": key, "id": id, "data": data})
        };
        rows.extend(
            outcome
                .events
                .iter()
                .map(|event| row(&event.event_type, event.key.as_deref(), Some(&event.id), event.data.get())),
        );
        if out.quiet {
            continue;
        }
        match &outcome.refused {
            Some(refused) => rows.push(row(&format!("✕ {}", refused.reason), None, None, &refused.detail)),
            None if outcome.events.is_empty() => {
                rows.push(row("– nothing", None, None, "no trigger applies"))
            }
            None => {}
        }
    }
    let columns = [
        ("LINE", "/line"),
        ("ACTION", "/action"),
        ("EVENT TYPE", "/event_type"),
        ("KEY", "/key"),
        ("EVENT", "/id"),
        ("DATA", "/data"),
    ];
    out.list("", &rows, &columns)
}
