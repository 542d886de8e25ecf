//! `postrider event`.

use std::collections::BTreeMap;
use std::io::{BufRead, Read as _};
use std::path::Path;
use std::time::Duration;

use postrider_core::TenantId;
use postrider_core::verify::PublishedLine;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::delivery::{self, is_final, judge};
use super::offline::{Offline, messages};
use super::{Context, detachable, list, read_text, wait_for};
use crate::api::Api;
use crate::args::{Against, Event, Send};
use crate::exit::{Exit, Failure};
use crate::ledger::Ledger;
use crate::output::{self, Column, Format, Progress, plain};
use crate::table;

const COLUMNS: &[Column] =
    &[("EVENT", "/id"), ("TYPE", "/event_type"), ("FATE", "/fate"), ("ACCEPTED", "/accepted_at")];
const SENT_COLUMNS: &[Column] = &[("EVENT", "/id"), ("DUPLICATE", "/duplicate")];

/// The most events in one request.
const BATCH: usize = 100;
/// The most events whose deliveries are waited for.
const MAX_WAITED: usize = 10_000;
/// How often a request that may be repeated is made again, and the first pause before it.
const REPEATS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The most failures that are shown one by one.
const MAX_SHOWN: u64 = 10;
/// The longest line of a file of events, bytes.
const MAX_LINE_BYTES: usize = 1024 * 1024;

/// Does what it says.
///
/// # Errors
/// [`Failure`] with what the API said.
pub async fn run(context: &Context, command: Event) -> Result<Exit, Failure> {
    match command {
        Event::Send(command) => send(context, command).await,
        Event::Validate { file, against } => validate(context, &file, &against).await,
        Event::List { event_type, fate, since, page } => {
            let filter =
                [("event_type", event_type.as_ref()), ("fate", fate.as_ref()), ("since", since.as_ref())];
            list(context, &["events"], &filter, &page, COLUMNS).await
        }
        Event::Get { id } => {
            let answer =
                context.api()?.get(&format!("cannot show the event {id}"), &["events", &id], &[]).await?;
            if !context.out.is_table() {
                context.out.one(&answer.raw, &answer.value)?;
                return Ok(Exit::Ok);
            }
            let mut event = answer.value;
            let deliveries = event.as_object_mut().and_then(|event| event.remove("deliveries"));
            context.out.one("", &event)?;
            if let Some(Value::Array(deliveries)) = deliveries {
                context.out.text("")?;
                context.out.list("", &deliveries, delivery::COLUMNS)?;
            }
            Ok(Exit::Ok)
        }
    }
}

/// Says of each message in a file whether the router would take it.
async fn validate(context: &Context, file: &Path, against: &Against) -> Result<Exit, Failure> {
    const COLUMNS: &[Column] = &[
        ("LINE", "/line"),
        ("VERDICT", "/verdict"),
        ("EVENT TYPES", "/event_types"),
        ("REASON", "/reason"),
        ("DETAIL", "/detail"),
    ];
    let offline = Offline::new(context, against).await?;
    let items: Vec<Value> = messages(file)?
        .into_iter()
        .map(|(line, message)| match offline.read(&message).and_then(|report| offline.resolve(report)) {
            Ok(events) => {
                let types: Vec<&str> = events.iter().map(|event| event.event_type.as_str()).collect();
                json!({"line": line, "verdict": "taken", "event_types": types, "reason": null, "detail": null})
            }
            Err(refusal) => {
                let reason = refusal.reason.as_str();
                json!({"line": line, "verdict": "refused", "event_types": [], "reason": reason, "detail": refusal.detail})
            }
        })
        .collect();
    context.out.list(&json!({"items": items, "next": null}).to_string(), &items, COLUMNS)?;
    let refused = items.iter().filter(|item| item["verdict"] == "refused").count();
    if refused == 0 {
        return Ok(Exit::Ok);
    }
    let exit = if refused == items.len() { Exit::Invalid } else { Exit::Partly };
    Err(Failure::new(exit, format!("{refused} of {} messages would be refused", items.len()), ""))
}

/// An event or an action as the API takes it. Members that hold JSON reach the receiver byte for byte.
#[derive(Debug, Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    event_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_context: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
}

/// One event, ready to be sent, again and again if need be: it has an id.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ready {
    id: String,
    json: String,
    /// The books know an action's events, not the action.
    is_action: bool,
    /// Where it is from, if it is from a file.
    line: Option<u64>,
}

/// What was sent and what became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Tally {
    accepted: u64,
    duplicate: u64,
    failed: u64,
}

async fn send(context: &Context, command: Send) -> Result<Exit, Failure> {
    let api = context.api()?;
    let single = command.from_file.is_none() && command.count.is_none();
    let mut sender = Sender::new(&api, context, &command, single)?;
    if let Some(path) = &command.from_file {
        let mut lines: Box<dyn BufRead> = match path == Path::new("-") {
            true => Box::new(std::io::stdin().lock()),
            false => {
                let file = std::fs::File::open(path)
                    .map_err(|error| Failure::usage(format!("cannot read {}", path.display()), error))?;
                Box::new(std::io::BufReader::new(file))
            }
        };
        let mut number = 0u64;
        while let Some(line) = next_line(&mut lines, path)? {
            number += 1;
            if line.trim().is_empty() {
                continue;
            }
            match with_id(line.trim(), number) {
                Ok(event) => sender.add(event).await?,
                Err(why) => sender.failed(1, Exit::Invalid, &format!("line {number}: {why}")),
            }
        }
    } else {
        let data = command.data.as_deref().map(|text| json_argument("--data", text)).transpose()?;
        let json_context =
            command.context.as_deref().map(|text| json_argument("--context", text)).transpose()?;
        for _ in 0..command.count.unwrap_or(1) {
            let id = command.id.clone().unwrap_or_else(new_id);
            let body = Body {
                event_type: command.event_type.as_deref(),
                action: command.action.as_deref(),
                current_context: json_context.as_deref(),
                data: data.as_deref(),
                id: &id,
                key: command.key.as_deref(),
            };
            let json = serde_json::to_string(&body)
                .map_err(|error| Failure::usage("cannot write the event", error))?;
            sender.add(Ready { id, json, is_action: command.action.is_some(), line: None }).await?;
        }
    }
    sender.flush().await?;
    let Sender { tally, waited, not_waited, actions, begun, last_failure, bar, .. } = sender;
    if let Some(bar) = bar {
        bar.end();
    }
    if !single {
        let seconds = begun.elapsed().as_secs_f64();
        context.out.note(&format!(
            "{} accepted, {} of them duplicates, {} failed, in {seconds:.1} s",
            tally.accepted, tally.duplicate, tally.failed
        ));
        if context.out.format == Format::Json && !context.out.quiet {
            context.out.text(&json!(tally).to_string())?;
        }
    }
    if let Some(failure) = last_failure {
        let exit = if single || tally.accepted == 0 { failure.exit } else { Exit::Partly };
        return Err(Failure { exit, ..failure });
    }
    if !command.wait {
        return Ok(Exit::Ok);
    }
    if actions > 0 {
        context
            .out
            .note(&format!("{actions} actions are not waited for: the books know their events, not them"));
    }
    if not_waited > 0 {
        context.out.note(&format!("{not_waited} of them are not waited for: the most is {MAX_WAITED}"));
    }
    let deadline = Instant::now() + command.wait_timeout;
    let many = u64::try_from(waited.len()).ok().filter(|many| *many > 1);
    let mut bar = many.map(|many| context.out.progress("ended", Some(many)));
    let waiting = async {
        let mut states = Vec::new();
        for (n, id) in (0..).zip(&waited) {
            let left = deadline.saturating_duration_since(Instant::now());
            states.extend(fate(&api, id, left, || bar.iter_mut().for_each(|bar| bar.at(n, ""))).await?);
        }
        Ok::<_, Failure>(states)
    };
    let follow = "postrider event get ID says what becomes of an event";
    let states = detachable(waiting, "what was accepted is delivered", follow).await?;
    if let Some(bar) = bar {
        bar.end();
    }
    if states.is_empty() && !waited.is_empty() {
        context.out.note("no webhook takes these events");
    }
    judge(context, &states)
}

/// Waits until every delivery of an event has ended, and returns their ids and states. `asked` is called now and then.
pub(crate) async fn fate(
    api: &Api,
    id: &str,
    timeout: Duration,
    mut asked: impl FnMut(),
) -> Result<Vec<(String, String)>, Failure> {
    let what = format!("not every delivery of the event {id} has ended");
    wait_for(&what, timeout, || {
        asked();
        async {
            let event = match api.get(&what, &["events", id], &[]).await {
                Ok(event) => event,
                Err(failure) if failure.exit == Exit::NotFound => {
                    return Ok(Err("it is not in the books".to_owned()));
                }
                Err(failure) => return Err(failure),
            };
            let fate = plain(event.value.get("fate"));
            if fate == "invalid" {
                let why =
                    format!("{}: {}", plain(event.value.get("reason")), plain(event.value.get("detail")));
                return Err(Failure::new(Exit::Invalid, format!("the event {id} was refused"), why));
            }
            let deliveries = event.value.get("deliveries").and_then(Value::as_array);
            let states: Vec<(String, String)> = deliveries
                .into_iter()
                .flatten()
                .map(|delivery| (plain(delivery.get("id")), plain(delivery.get("state"))))
                .collect();
            let open = states.iter().filter(|(_, state)| !is_final(state)).count();
            Ok(match (fate.as_str(), open) {
                ("routed" | "unmatched", 0) => Ok(states),
                ("routed" | "unmatched", open) => Err(format!("{open} of {} are open", states.len())),
                _ => Err(format!("it is {fate}")),
            })
        }
    })
    .await
}

/// Sends events in batches, at most so many a second, and counts.
struct Sender<'a> {
    api: &'a Api,
    context: &'a Context,
    rate: Option<f64>,
    batch: usize,
    single: bool,
    keep: bool,
    begun: Instant,
    sent: u64,
    pending: Vec<Ready>,
    tally: Tally,
    waited: Vec<String>,
    not_waited: u64,
    actions: u64,
    last_failure: Option<Failure>,
    ledger: Option<Ledger>,
    /// Where nothing else is shown of what goes on.
    bar: Option<Progress>,
}

impl<'a> Sender<'a> {
    fn new(api: &'a Api, context: &'a Context, command: &'a Send, single: bool) -> Result<Self, Failure> {
        Ok(Self {
            api,
            context,
            rate: command.rate,
            batch: command.rate.map_or(BATCH, batch_at),
            single,
            keep: command.wait,
            begun: Instant::now(),
            sent: 0,
            pending: Vec::new(),
            tally: Tally::default(),
            waited: Vec::new(),
            not_waited: 0,
            actions: 0,
            last_failure: None,
            ledger: command.ledger.as_deref().map(Ledger::open).transpose()?,
            bar: (!single && !context.out.quiet && context.out.format != Format::Jsonl)
                .then(|| context.out.progress("sent", command.count)),
        })
    }

    async fn add(&mut self, event: Ready) -> Result<(), Failure> {
        self.pending.push(event);
        if self.pending.len() >= self.batch { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        let batch = std::mem::take(&mut self.pending);
        if batch.is_empty() {
            return Ok(());
        }
        if let Some(rate) = self.rate {
            let due = self.begun + Duration::from_secs_f64(self.sent as f64 / rate);
            tokio::time::sleep_until(due).await;
        }
        if let Some(bar) = &mut self.bar {
            bar.at(self.sent, "");
        }
        self.sent += batch.len() as u64;
        match self.post(&batch).await {
            Ok(()) => Ok(()),
            // One bad event has the whole batch refused: find it.
            Err(failure) if failure.exit == Exit::Invalid && batch.len() > 1 => {
                for event in &batch {
                    if let Err(failure) = self.post(std::slice::from_ref(event)).await {
                        self.refused(std::slice::from_ref(event), failure)?;
                    }
                }
                Ok(())
            }
            Err(failure) => self.refused(&batch, failure),
        }
    }

    /// Counts what failed and goes on, unless nothing can succeed.
    fn refused(&mut self, events: &[Ready], failure: Failure) -> Result<(), Failure> {
        if failure.exit == Exit::Usage {
            return Err(failure);
        }
        if self.single {
            let again =
                events.first().map(|event| format!("send it again with --id {}: that is safe", event.id));
            self.last_failure = Some(match (failure.exit, again) {
                (Exit::Unavailable, Some(again)) => failure.next(again),
                _ => failure,
            });
            return Ok(());
        }
        let from = match events.first().and_then(|event| event.line) {
            Some(line) => format!("line {line}: "),
            None => String::new(),
        };
        self.failed(events.len() as u64, failure.exit, &format!("{from}{failure}"));
        Ok(())
    }

    fn failed(&mut self, events: u64, exit: Exit, why: &str) {
        if self.tally.failed < MAX_SHOWN {
            output::note(&format!("postrider: {}", table::printable(why)));
        }
        self.tally.failed += events;
        let summary = format!("{} events were not accepted", self.tally.failed);
        self.last_failure = Some(Failure::new(exit, summary, ""));
    }

    /// Posts events; repeats what may help, since the ids stay the same.
    async fn post(&mut self, events: &[Ready]) -> Result<(), Failure> {
        let body = match events {
            [event] => event.json.clone(),
            events => {
                let all: Vec<&str> = events.iter().map(|event| event.json.as_str()).collect();
                format!("[{}]", all.join(","))
            }
        };
        let mut pause = FIRST_PAUSE;
        let mut repeats = 0;
        let answer = loop {
            let what = "cannot send the event";
            let call = self.api.call(reqwest::Method::POST, what, &["events"], &[], Some(body.clone()));
            match call.await {
                Err(failure) if failure.exit == Exit::Unavailable && repeats < REPEATS => {
                    repeats += 1;
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                other => break other?,
            }
        };
        self.write_down(events).await?;
        let items = answer.items();
        self.tally.accepted += items.len() as u64;
        self.tally.duplicate += items.iter().filter(|item| item["duplicate"] == true).count() as u64;
        self.actions += events.iter().filter(|event| event.is_action).count() as u64;
        for event in events.iter().filter(|event| !event.is_action) {
            let id = event.id.clone();
            if self.keep && self.waited.len() < MAX_WAITED {
                self.waited.push(id);
            } else if self.keep {
                self.not_waited += 1;
            }
        }
        let out = &self.context.out;
        if self.single || out.quiet || out.format == Format::Jsonl {
            out.list(&answer.raw, items, SENT_COLUMNS)?;
        }
        Ok(())
    }
}

impl Sender<'_> {
    /// What was accepted, into the ledger.
    async fn write_down(&self, events: &[Ready]) -> Result<(), Failure> {
        let Some(ledger) = &self.ledger else { return Ok(()) };
        let tenant = self.context.tenant.as_deref().unwrap_or(TenantId::DEFAULT);
        let at = postrider_broker::now();
        let line = |event: &Ready| PublishedLine {
            tenant: tenant.to_owned(),
            id: event.id.clone(),
            at,
            action: event.is_action,
        };
        ledger.append(&events.iter().map(line).collect::<Vec<_>>()).await
    }
}

/// How many events one request holds at this rate: ten requests a second, if that is possible.
fn batch_at(rate: f64) -> usize {
    ((rate / 10.0) as usize).clamp(1, BATCH)
}

fn new_id() -> String {
    format!("evt_{}", uuid::Uuid::now_v7().simple())
}

/// An argument that is JSON, the name of a file that holds it, or `-`.
pub(super) fn json_argument(flag: &str, text: &str) -> Result<Box<RawValue>, Failure> {
    let text = match text.strip_prefix('@') {
        Some(path) => read_text(Path::new(path))?,
        None if text == "-" => read_text(Path::new("-"))?,
        None => text.to_owned(),
    };
    RawValue::from_string(text.trim().to_owned())
        .map_err(|error| Failure::usage(flag, error).next("write JSON, @FILE, or - for standard input"))
}

/// A line of a file as an event with an id, its own or a new one, so that it can be sent again.
fn with_id(line: &str, number: u64) -> Result<Ready, String> {
    let from = Some(number);
    let members: BTreeMap<String, &RawValue> =
        serde_json::from_str(line).map_err(|error| format!("it must be one JSON object: {error}"))?;
    let is_action = members.contains_key("action");
    if let Some(id) = members.get("id") {
        let id: String = serde_json::from_str(id.get()).map_err(|_| "its id must be a text".to_owned())?;
        return Ok(Ready { id, json: line.to_owned(), is_action, line: from });
    }
    let id = new_id();
    let rest = line.trim_start_matches('{');
    let comma = if members.is_empty() { "" } else { "," };
    Ok(Ready { json: format!("{{\"id\":\"{id}\"{comma}{rest}"), id, is_action, line: from })
}

/// The next line, without its end; `None` at the end of the file.
fn next_line(lines: &mut impl BufRead, path: &Path) -> Result<Option<String>, Failure> {
    let failed = |why: &dyn std::fmt::Display| Failure::usage(format!("cannot read {}", path.display()), why);
    let mut line = Vec::new();
    lines.take(MAX_LINE_BYTES as u64 + 1).read_until(b'\n', &mut line).map_err(|error| failed(&error))?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.len() > MAX_LINE_BYTES {
        return Err(failed(&format!("a line is longer than {MAX_LINE_BYTES} bytes")));
    }
    String::from_utf8(line).map(Some).map_err(|_| failed(&"it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_get_an_id_and_keep_their_bytes() {
        let kept = with_id(r#"{"id":"e 1","event_type":"A","data":{"n":1.50}}"#, 1).unwrap();
        assert_eq!((kept.id.as_str(), kept.json.contains("1.50")), ("e 1", true));
        assert!(!kept.is_action && with_id(r#"{"action":"a","id":"a-1"}"#, 5).unwrap().is_action);
        let made = with_id(r#"{"event_type":"A","data":{"n":1.50}}"#, 2).unwrap();
        assert_eq!(made.json, format!(r#"{{"id":"{}","event_type":"A","data":{{"n":1.50}}}}"#, made.id));
        let empty = with_id("{}", 3).unwrap();
        assert!(serde_json::from_str::<Value>(&empty.json).is_ok());
        for bad in ["", "[]", "{", "1", r#"{"id":5}"#] {
            assert!(with_id(bad, 4).is_err(), "{bad}");
        }
    }

    #[test]
    fn files_are_read_line_by_line() {
        let mut lines = std::io::Cursor::new("a\n\nb");
        let mut read = || next_line(&mut lines, Path::new("f")).unwrap();
        assert_eq!(read().as_deref(), Some("a\n"));
        assert_eq!(read().as_deref(), Some("\n"));
        assert_eq!(read().as_deref(), Some("b"));
        assert_eq!(read(), None);
        let mut endless = std::io::Cursor::new(vec![b'x'; MAX_LINE_BYTES + 1]);
        assert!(next_line(&mut endless, Path::new("f")).is_err());
    }

    #[test]
    fn an_event_is_written_byte_for_byte() {
        let data = json_argument("--data", " {\"n\": 1.50} ").unwrap();
        let body = Body {
            event_type: Some("A b"),
            action: None,
            current_context: None,
            data: Some(&data),
            id: "e",
            key: None,
        };
        assert_eq!(
            serde_json::to_string(&body).unwrap(),
            r#"{"event_type":"A b","data":{"n": 1.50},"id":"e"}"#
        );
        assert!(json_argument("--data", "{").is_err());
    }

    #[test]
    fn batches_fit_the_rate() {
        assert_eq!(batch_at(0.5), 1);
        assert_eq!(batch_at(200.0), 20);
        assert_eq!(batch_at(1e6), BATCH);
    }
}
