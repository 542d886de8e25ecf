//! `postrider listen`: real deliveries, to a program on this machine.
//!
//! It makes a webhook whose URL is a name at an inbox, and asks that inbox for what comes to the name. So attempts, retries,
//! signatures and what the console shows are those of any other webhook: the inbox answers the worker with what the program
//! answered here. At the end it deletes the webhook.

mod target;

use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use url::Url;

use super::Context;
use crate::api::Api;
use crate::args::{Listen, WebhookFields};
use crate::exit::{Exit, Failure};
use crate::inbox::event_type_of;
use crate::inbox::relay::{Listener, Lost, Relayed};
use crate::output::{self, Output, Tone, plain};
use crate::serve::Signals;
use crate::settings::{read_file_or_stdin, without_password};
use crate::table;
use target::{Forwarded, Target};

/// The most requests that are forwarded at once.
const AT_ONCE: usize = 16;
/// How long the inbox waits for a request before it says that there is none.
const POLL: Duration = Duration::from_secs(5);
/// How often a listener with no place left shows that it is there.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);
/// How much longer a worker waits for an answer than this program does: for the way there and back.
const MARGIN: Duration = Duration::from_secs(5);
/// How long an inbox that does not answer is asked again.
const GIVE_UP: Duration = Duration::from_secs(60);
/// The first and the longest pause before it is asked again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// How often an answer is sent before it is given up.
const REPLIES: u32 = 3;
/// The longest name of a webhook made here, characters.
const MAX_NAME: usize = 100;

/// Does what it says, until a signal.
///
/// # Errors
/// [`Failure`] with what could not be done: to reach the inbox, to make the webhook, to delete it again.
pub async fn run(context: &Context, command: Listen) -> Result<Exit, Failure> {
    let target = Target::new(&command.target, command.allow_external, command.timeout)?;
    let inbox = command.inbox.clone().unwrap_or_else(|| context.settings.operator.inbox_url.clone());
    let listener = Listener::new(&inbox)?;
    let url = listener
        .url(command.inbox_for_workers.as_ref().unwrap_or(&inbox))
        .ok_or_else(|| Failure::usage("cannot listen", "the address of the inbox cannot hold a path"))?;
    let body = webhook(&command, &target, &url)?;
    let api = context.api()?;
    // From here on a signal ends nothing by itself: what was made is removed again.
    let mut signals = Signals::listen()?;
    listener.begin().await.map_err(|lost| no_inbox(&inbox, lost))?;
    let made = match api.post("cannot make the webhook", &["webhooks"], Some(body)).await {
        Ok(made) => made,
        Err(failure) => {
            // What the inbox keeps of the name goes away by itself.
            listener.end().await.ok();
            return Err(failure);
        }
    };
    let session = Session { context, api, inbox, listener, target, webhook: plain(made.value.get("id")) };
    session.greet(&made.value, command.secret_file.is_some());
    let mut forwarding = JoinSet::new();
    let ended = tokio::select! {
        failure = session.forward(&mut forwarding) => Err(failure),
        () = signals.next() => Ok(Exit::Ok),
    };
    let removed = tokio::select! {
        removed = session.remove(&mut forwarding) => removed,
        () = signals.next() => {
            let what = format!("the webhook {} may still be there", session.webhook);
            Err(Failure::new(Exit::Interrupted, what, "a second signal ended its removal").next(session.by_hand()))
        }
    };
    match (ended, removed) {
        (Ok(exit), removed) => removed.map(|()| exit),
        (Err(failure), Ok(())) => Err(failure),
        (Err(failure), Err(other)) => {
            output::failure(&other);
            Err(failure)
        }
    }
}

/// The webhook as the API takes it.
fn webhook(command: &Listen, target: &Target, url: &Url) -> Result<String, Failure> {
    let mut body = Map::new();
    body.insert("name".into(), name(target).into());
    body.insert("url".into(), url.as_str().into());
    let fields = WebhookFields {
        selection: command.selection.clone(),
        all: !command.selection.names_some(),
        timeout: Some(command.timeout + MARGIN),
        max_attempts: command.max_attempts,
        schedule: command.schedule.clone(),
        ..WebhookFields::default()
    };
    fields.write(&mut body)?;
    if let Some(path) = &command.secret_file {
        body.insert("secret".into(), read_file_or_stdin(path)?.reveal().into());
    }
    Ok(Value::Object(body).to_string())
}

/// What people see in the list of webhooks.
fn name(target: &Target) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let host = host.map(|host| host.trim().to_owned()).filter(|host| !host.is_empty());
    let host = host.unwrap_or_else(|| "a machine".to_owned());
    table::cut(&table::printable(&format!("listen on {host}:{}", target.port())), MAX_NAME)
}

fn no_inbox(inbox: &Url, lost: Lost) -> Failure {
    let inbox = without_password(inbox.as_str());
    let why = match lost {
        Lost::Unreachable(why) => format!("the inbox at {inbox} cannot be reached: {why}"),
        Lost::Forgotten => format!("the inbox at {inbox} does not know what it was just told"),
        Lost::Refused(why) => format!("the inbox at {inbox} refuses: {why}"),
    };
    Failure::new(Exit::Unavailable, "cannot listen", why).next(
        "start an inbox where workers reach it: postrider inbox; or name one with --inbox URL or POSTRIDER_INBOX_URL",
    )
}

/// A webhook that was made to listen, and what it needs.
struct Session<'a> {
    context: &'a Context,
    api: Api,
    inbox: Url,
    listener: Listener,
    target: Target,
    webhook: String,
}

impl Session<'_> {
    /// Says where deliveries go, and how to know that they are real.
    fn greet(&self, made: &Value, own_secret: bool) {
        let out = &self.context.out;
        let name = plain(made.get("name"));
        out.note(&format!(
            "listening: deliveries of the webhook {} ({name}) go to {}",
            self.webhook, self.target
        ));
        match made.get("secret").and_then(Value::as_str).filter(|_| !own_secret) {
            Some(secret) => {
                out.note("your program verifies them with this secret, which is shown this once:");
                out.note(&format!("  export WEBHOOK_SECRET={}", table::printable(secret)));
            }
            None if own_secret => out.note("they are signed with the secret of --secret-file"),
            None => {}
        }
        out.note("Ctrl-C ends it and deletes the webhook");
    }

    /// Forwards what comes. It ends when the inbox is lost for good.
    async fn forward(&self, forwarding: &mut JoinSet<()>) -> Failure {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut lost_since: Option<Instant> = None;
        let mut pause = PAUSES.0;
        loop {
            while forwarding.try_join_next().is_some() {}
            let free = places.available_permits();
            let lost = match self.listener.next(free, if free == 0 { Duration::ZERO } else { POLL }).await {
                Ok(requests) => {
                    if lost_since.take().is_some() {
                        self.context.out.note("the inbox answers again");
                    }
                    pause = PAUSES.0;
                    for request in requests {
                        // The inbox hands out no more than was asked for.
                        let Ok(place) = Arc::clone(&places).acquire_owned().await else { continue };
                        let (listener, target, out) =
                            (self.listener.clone(), self.target.clone(), self.context.out);
                        forwarding.spawn(async move {
                            handle(&listener, &target, out, &request).await;
                            drop(place);
                        });
                    }
                    if free == 0 {
                        // Until there is a place, or it is time to show itself.
                        tokio::time::timeout(SIGN_OF_LIFE, places.acquire()).await.ok();
                    }
                    continue;
                }
                Err(lost) => lost,
            };
            let why = match lost {
                Lost::Forgotten => match self.begin_again().await {
                    Ok(()) => continue,
                    Err(lost) => lost,
                },
                other => other,
            };
            let since = *lost_since.get_or_insert_with(Instant::now);
            match why {
                Lost::Unreachable(why) if since.elapsed() < GIVE_UP => {
                    if pause == PAUSES.0 {
                        let seconds = GIVE_UP.as_secs();
                        let inbox = without_password(self.inbox.as_str());
                        let again = format!("the inbox at {inbox} cannot be reached: {why}");
                        let again = format!("postrider: {again}; it is asked again for {seconds} s");
                        output::note(&table::printable(&again));
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSES.1);
                }
                other => return no_inbox(&self.inbox, other),
            }
        }
    }

    /// The inbox was started anew, or nobody asked for a while, as when a lid was closed. Then it may have answered that nobody
    /// listens any more, which disables the webhook.
    async fn begin_again(&self) -> Result<(), Lost> {
        self.listener.begin().await?;
        let what = format!("the webhook {} may be disabled", self.webhook);
        if let Err(failure) = self.api.post(&what, &["webhooks", &self.webhook, "enable"], None).await {
            output::failure(&failure.next(format!(
                "postrider webhook enable {}{}",
                self.webhook,
                self.tenant()
            )));
        }
        self.context.out.note("the inbox had forgotten this listener: it listens again");
        Ok(())
    }

    /// Deletes the webhook, gives what has begun its time, and says goodbye to the inbox.
    async fn remove(&self, forwarding: &mut JoinSet<()>) -> Result<(), Failure> {
        let what = format!("cannot delete the webhook {}", self.webhook);
        let deleted = self.api.call(Method::DELETE, &what, &["webhooks", &self.webhook], &[], None).await;
        let deleted = match deleted {
            Ok(_) => Ok(format!("the webhook {} is deleted", self.webhook)),
            Err(failure) if failure.exit == Exit::NotFound => {
                Ok(format!("the webhook {} was deleted already", self.webhook))
            }
            Err(failure) => Err(failure.next(self.by_hand())),
        };
        // Each has a timeout of its own.
        while forwarding.join_next().await.is_some() {}
        // An inbox that does not hear it finds out by itself.
        self.listener.end().await.ok();
        self.context.out.note(&deleted?);
        Ok(())
    }

    /// What deletes the webhook, for people.
    fn by_hand(&self) -> String {
        format!("postrider webhook delete {}{}", self.webhook, self.tenant())
    }

    fn tenant(&self) -> String {
        self.context.tenant.as_ref().map_or(String::new(), |tenant| format!(" --tenant {tenant}"))
    }
}

/// Forwards one request, answers it, and says so.
async fn handle(listener: &Listener, target: &Target, out: Output, request: &Relayed) {
    let at = postrider_broker::now().to_rfc3339();
    let begun = Instant::now();
    let forwarded = target.forward(request).await;
    let line = Line::of(&at, request, &forwarded, begun.elapsed());
    let mut sent = Err(Lost::Forgotten);
    for _ in 0..REPLIES {
        sent = listener.reply(request.id, &forwarded.reply).await;
        if !matches!(sent, Err(Lost::Unreachable(_))) {
            break;
        }
        tokio::time::sleep(PAUSES.0).await;
    }
    // Nobody reads any more: then there is nobody to tell.
    output::data(&line.text(out)).ok();
    let late = match sent {
        Ok(true) => return,
        Ok(false) | Err(Lost::Forgotten) => "nobody waits for it any more".to_owned(),
        Err(Lost::Unreachable(why) | Lost::Refused(why)) => why,
    };
    let id = line.webhook_id.as_deref().unwrap_or("a request");
    output::note(&table::printable(&format!(
        "postrider: the answer to {id} does not reach the worker: {late}"
    )));
}

/// What is said of one request.
struct Line<'a> {
    at: &'a str,
    event_type: Option<String>,
    webhook_id: Option<String>,
    attempt: Option<u64>,
    method: &'a str,
    status: u16,
    duration_ms: u64,
    error: Option<&'a str>,
}

impl<'a> Line<'a> {
    fn of(at: &'a str, request: &'a Relayed, forwarded: &'a Forwarded, took: Duration) -> Self {
        let header = |name: &str| request.header(name).map(|value| table::cut(value, 128));
        Self {
            at,
            event_type: event_type_of(&request.body.0, request.header("ce-type")),
            webhook_id: header("webhook-id"),
            attempt: request.header("webhook-attempt").and_then(|n| n.parse().ok()),
            method: &request.method,
            status: forwarded.reply.status,
            duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            error: forwarded.error.as_deref(),
        }
    }

    /// For whoever reads: a line for people, a JSON document a line, or the id alone.
    fn text(&self, out: Output) -> String {
        if out.quiet {
            return table::printable(self.webhook_id.as_deref().unwrap_or("-"));
        }
        if !out.is_table() {
            return json!({
                "at": self.at, "event_type": self.event_type, "webhook_id": self.webhook_id, "attempt": self.attempt,
                "method": self.method, "status": self.status, "duration_ms": self.duration_ms, "error": self.error,
            })
            .to_string();
        }
        let tone = if (200..300).contains(&self.status) { Tone::Good } else { Tone::Bad };
        let attempt = self.attempt.map_or("-".to_owned(), |n| n.to_string());
        // The time of day, the first of an id: enough to find it again.
        let about = format!(
            "{}  {:<28}  {:<13}  attempt {attempt}",
            self.at.get(11..19).unwrap_or(self.at),
            self.event_type.as_deref().unwrap_or("-"),
            table::cut(self.webhook_id.as_deref().unwrap_or("-"), 13),
        );
        let error = self.error.map_or(String::new(), |error| format!("  {error}"));
        let status = out.paint(tone, &self.status.to_string());
        let after = table::printable(&format!("  {} ms{error}", self.duration_ms));
        format!("{}  → {status}{after}", table::printable(&about))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbox::relay::{Raw, Reply};
    use crate::output::Format;

    fn line(out: Output, error: Option<&str>) -> String {
        let header = |name: &str, value: &str| (name.to_owned(), Raw(value.as_bytes().to_vec()));
        let request = Relayed {
            id: 1,
            method: "POST".into(),
            path: String::new(),
            headers: vec![header("webhook-id", "msg_0123456789abcdef\u{1b}"), header("webhook-attempt", "2")],
            body: Raw(br#"{"event_type":"USER_CREATED"}"#.to_vec()),
        };
        let reply = Reply { status: 503, headers: Vec::new(), body: Raw::default() };
        let forwarded = Forwarded { reply, error: error.map(str::to_owned) };
        Line::of("2026-11-22T23:04:05.678Z", &request, &forwarded, Duration::from_millis(12)).text(out)
    }

    #[test]
    fn a_request_is_a_line() {
        assert_eq!(
            line(Output::plain(), None),
            "23:04:05  USER_CREATED                  msg_01234567…  attempt 2  → 503  12 ms"
        );
        let refused = line(Output::plain(), Some("connection refused\n"));
        assert!(refused.ends_with("12 ms  connection refused\u{fffd}"), "{refused}");
        let mut jsonl = Output::plain();
        jsonl.format = Format::Jsonl;
        let object: Value = serde_json::from_str(&line(jsonl, None)).unwrap();
        assert_eq!((&object["status"], &object["attempt"]), (&json!(503), &json!(2)));
        assert_eq!((&object["event_type"], &object["error"]), (&json!("USER_CREATED"), &Value::Null));
        let mut quiet = Output::plain();
        quiet.quiet = true;
        assert_eq!(line(quiet, None), "msg_0123456789abcdef\u{fffd}");
    }

    #[test]
    fn the_webhook_takes_what_was_asked_for() {
        let command = |words: &str| {
            use clap::Parser as _;
            let line = format!("postrider listen {words}");
            match crate::args::Cli::try_parse_from(line.split(' ')).unwrap().command {
                crate::args::Command::Listen(listen) => *listen,
                other => panic!("{other:?}"),
            }
        };
        let made = |words: &str| -> Value {
            let command = command(words);
            let target = Target::new(&command.target, command.allow_external, command.timeout).unwrap();
            let url = "http://127.0.0.1:8081/relay/listen-1".parse().unwrap();
            serde_json::from_str(&webhook(&command, &target, &url).unwrap()).unwrap()
        };
        rustls::crypto::ring::default_provider().install_default().ok();
        let all = made("3000");
        assert_eq!(all["subscription"]["all"], true);
        assert_eq!(
            (&all["timeout_ms"], &all["url"]),
            (&json!(15_000), &json!("http://127.0.0.1:8081/relay/listen-1"))
        );
        let name = all["name"].as_str().unwrap();
        assert!(name.starts_with("listen on ") && name.ends_with(":3000"), "{name}");
        let some =
            made("http://localhost:3000/hooks --event-type A --event-type B --schedule 1s,2s --timeout 2s");
        assert_eq!(
            some["subscription"],
            json!({"all": false, "event_types": ["A", "B"], "groups": [], "categories": []})
        );
        assert_eq!(
            (&some["timeout_ms"], &some["retry"]),
            (&json!(7_000), &json!({"schedule_ms": [1000, 2000]}))
        );
    }

    #[test]
    fn without_an_inbox_it_says_how_to_start_one() {
        let inbox: Url = "http://127.0.0.1:8081".parse().unwrap();
        let failure = no_inbox(&inbox, Lost::Unreachable("connection refused".into()));
        assert_eq!(failure.exit, Exit::Unavailable);
        assert!(failure.to_string().contains("http://127.0.0.1:8081/ cannot be reached"), "{failure}");
        let next = failure.next.unwrap();
        assert!(next.contains("postrider inbox") && next.contains("POSTRIDER_INBOX_URL"), "{next}");
    }
}
