//! Jobs: replays, which make many deliveries again, and cancellations, which call many off.

use std::collections::BTreeMap;

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::response::Response;
use axum::routing::{get, post};
use http::Method;
use serde::Deserialize;
use serde_json::Value;

use super::deliveries::Names;
use crate::Console;
use crate::api::{Listed, segment};
use crate::page::{Answer, Part, Sent, Shell, Visit, page};
use crate::words::{Html, counted, duration, number, shortened, state, when, when_if};

/// The pages of jobs, and what is done there.
pub(crate) fn routes() -> Router<Console> {
    Router::new()
        .route("/jobs", get(list))
        .route("/jobs/{id}", get(show))
        .route("/jobs/{id}/export", get(export))
        .route("/jobs/{id}/run", post(run))
        .route("/jobs/{id}/cancel", post(cancel))
}

/// How many of each kind the list of all begins with.
const NEWEST: &str = "25";
const KINDS: [(&str, &str); 3] = [("", "Newest"), ("replays", "Replays"), ("cancellations", "Cancellations")];

#[derive(Debug, Deserialize)]
struct Replay {
    id: String,
    state: String,
    run: bool,
    #[serde(default)]
    reason: String,
    because: Option<String>,
    #[serde(default)]
    states: Vec<String>,
    webhook: Option<String>,
    #[serde(default)]
    event_types: Vec<String>,
    #[serde(default)]
    events_named: u64,
    since: Option<String>,
    until: String,
    target: String,
    #[serde(default)]
    again: bool,
    rate_per_second: u64,
    looked_at: u64,
    chosen: u64,
    #[serde(default)]
    left_out: BTreeMap<String, u64>,
    sent: u64,
    #[serde(default)]
    dropped: BTreeMap<String, u64>,
    to_send: u64,
    outcomes: Option<Outcomes>,
    created_at: String,
    started_at: Option<String>,
    finished_at: Option<String>,
    expires_at: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Outcomes {
    delivered: u64,
    dead: u64,
    cancelled: u64,
    skipped: u64,
    pending: u64,
}

#[derive(Debug, Deserialize)]
struct Cancellation {
    delivery: Option<String>,
    webhook: Option<String>,
    event_type: Option<String>,
    since: Option<String>,
    until: String,
    state: String,
    deliveries: u64,
    held: u64,
    #[serde(default)]
    created_at: String,
}

impl Replay {
    fn waits_for_others(&self) -> bool {
        self.state == "planned" && self.run
    }

    fn waits_for_somebody(&self) -> bool {
        self.state == "planned" && !self.run
    }

    fn is_over(&self) -> bool {
        matches!(self.state.as_str(), "done" | "cancelled" | "failed")
    }

    /// Its state with a mark.
    fn mark(&self) -> Html {
        match self.state.as_str() {
            "planning" => state("warn", "Counting"),
            "planned" if self.run => state("still", "Waits for others"),
            "planned" => state("still", "Planned"),
            "running" => state("warn", "Running"),
            "done" => state("ok", "Done"),
            "cancelled" if self.reason == "expired" => state("off", "Expired"),
            "cancelled" => state("off", "Cancelled"),
            "failed" => state("bad", "Failed"),
            other => state("still", other),
        }
    }

    /// How many of what was chosen have had their turn.
    fn settled(&self) -> u64 {
        self.sent + self.dropped.values().sum::<u64>()
    }

    /// How long the rest takes at its rate; nothing where that says nothing.
    fn remaining(&self) -> Option<String> {
        let ms = self.to_send.saturating_mul(1000).checked_div(self.rate_per_second)?;
        (!self.is_over() && self.to_send > 0).then(|| format!("about {}", duration(ms.max(1000))))
    }

    /// How far it is, in a few words.
    fn numbers(&self) -> String {
        match self.state.as_str() {
            "planning" => format!("{} looked at", counted(self.looked_at, "event", "events")),
            "planned" => counted(self.chosen, "delivery", "deliveries"),
            _ => format!("{} of {} sent", number(self.sent), number(self.chosen)),
        }
    }

    /// What it is to send, as chips.
    fn chips(&self, names: &Names) -> Vec<String> {
        let mut chips: Vec<String> = self.states.iter().map(|state| format!("state: {state}")).collect();
        chips.extend(self.webhook.as_ref().map(|id| format!("webhook: {}", names.of(id))));
        chips.extend(self.event_types.iter().map(|name| format!("event type: {name}")));
        if self.events_named > 0 {
            chips.push(counted(self.events_named, "event by id", "events by id"));
        }
        chips.extend(self.since.as_ref().map(|since| format!("since: {since}")));
        chips.push(format!("until: {}", self.until));
        chips.push(match self.target.as_str() {
            "original" => "to: the same webhooks".to_owned(),
            "matching" => "to: whoever takes it today".to_owned(),
            id => format!("to: {}", names.of(id)),
        });
        if self.again {
            chips.push("also what was delivered".to_owned());
        }
        chips
    }
}

/// Why some were not chosen, or not sent when their turn came, in words.
fn in_words(reason: &str) -> &str {
    match reason {
        "under_way" => "have not ended: they wait for an attempt, or are held",
        "cancelling" => "were called off, and have not ended yet",
        "body_gone" => "have no body any more: it was removed",
        "webhook_deleted" => "were for a webhook that was deleted",
        "webhook_inactive" => "are for a webhook that is disabled, expired or not yet active",
        "delivered" => "were delivered to the target already",
        "already_chosen" => "were chosen by another replay",
        "unknown_event" => "name an event that does not exist",
        "test" => "were tests of a webhook",
        "refused" => "would be refused today",
        "made_again" => "were made again by somebody else meanwhile",
        other => other,
    }
}

/// A number with what it counts.
struct Reason {
    n: String,
    text: String,
}

fn reasons(counts: &BTreeMap<String, u64>) -> Vec<Reason> {
    let mut sorted: Vec<(&String, &u64)> = counts.iter().filter(|(_, n)| **n > 0).collect();
    sorted.sort_by(|a, b| b.1.cmp(a.1));
    sorted
        .into_iter()
        .map(|(reason, n)| Reason { n: number(*n), text: in_words(reason).to_owned() })
        .collect()
}

/// A row of the list.
struct Row {
    /// When it was made, to be sorted by.
    created_at: String,
    kind: &'static str,
    link: Option<String>,
    what: String,
    mark: Html,
    numbers: String,
    /// How many have had their turn, and of how many.
    progress: Option<(u64, u64)>,
    at: Html,
}

impl Row {
    fn of_replay(replay: &Replay, names: &Names, visit: &Visit) -> Self {
        Self {
            kind: "Replay",
            link: Some(format!("/jobs/{}", segment(&replay.id))),
            what: replay.chips(names).join(", "),
            mark: replay.mark(),
            numbers: replay.numbers(),
            progress: (replay.state == "running").then(|| (replay.settled(), replay.chosen)),
            at: when(&replay.created_at, visit.now),
            created_at: replay.created_at.clone(),
        }
    }

    fn of_cancellation(cancellation: &Cancellation, names: &Names, visit: &Visit) -> Self {
        let link = cancellation.delivery.as_ref().map(|id| format!("/deliveries/{}", segment(id)));
        Self {
            kind: "Cancellation",
            link,
            what: called_off(cancellation, names),
            mark: state("off", "Called off"),
            numbers: match cancellation.held {
                0 => counted(cancellation.deliveries, "delivery", "deliveries"),
                held => {
                    format!(
                        "{}, {} of them held",
                        counted(cancellation.deliveries, "delivery", "deliveries"),
                        number(held)
                    )
                }
            },
            progress: None,
            at: when(&cancellation.created_at, visit.now),
            created_at: cancellation.created_at.clone(),
        }
    }
}

/// What a cancellation is about.
fn called_off(cancellation: &Cancellation, names: &Names) -> String {
    if let Some(delivery) = &cancellation.delivery {
        return format!("delivery {}", shortened(delivery, 12));
    }
    let mut what = Vec::new();
    what.extend(cancellation.webhook.as_ref().map(|id| format!("webhook: {}", names.of(id))));
    what.extend(cancellation.event_type.as_ref().map(|name| format!("event type: {name}")));
    what.extend(cancellation.since.as_ref().map(|since| format!("since: {since}")));
    what.push(format!("until: {}", cancellation.until));
    if cancellation.state == "held" {
        what.push("only what is held".to_owned());
    }
    what.join(", ")
}

struct Tab {
    name: &'static str,
    link: String,
    chosen: bool,
}

#[derive(Template)]
#[template(path = "jobs.html")]
struct JobsPage {
    shell: Shell,
    tabs: Vec<Tab>,
    rows: Vec<Row>,
    older: Option<String>,
    newest: Option<String>,
    /// The list has the newest of both kinds, and there are more.
    more_elsewhere: bool,
    is_first_use: bool,
}

async fn list(visit: Visit) -> Response {
    let made = listed(&visit).await;
    visit.or_refused(Part::Deliveries, made)
}

async fn listed(visit: &Visit) -> Answer {
    let fields = visit.query();
    let (kind, cursor) = (fields.get("kind"), fields.get("cursor"));
    let limit = if kind.is_empty() { NEWEST } else { "" };
    let query = [("limit", limit), ("cursor", if kind.is_empty() { "" } else { cursor })];
    let names = Names::read(visit).await;
    let (mut rows, mut next) = (Vec::new(), Vec::new());
    if kind != "cancellations" {
        let found: Listed<Replay> = visit.api.get("/v1/replays", &query).await?;
        rows.extend(found.items.iter().map(|replay| Row::of_replay(replay, &names, visit)));
        next.extend(found.next);
    }
    if kind != "replays" {
        let found: Listed<Cancellation> = visit.api.get("/v1/cancellations", &query).await?;
        rows.extend(found.items.iter().map(|cancellation| Row::of_cancellation(cancellation, &names, visit)));
        next.extend(found.next);
    }
    rows.sort_by(|a, b| b.created_at.cmp(&a.created_at));
    let older = next.first().filter(|_| !kind.is_empty());
    let older = older.map(|next| format!("/jobs{}", fields.with(&[("cursor", next)])));
    let newest = fields.has("cursor").then(|| format!("/jobs{}", fields.with(&[("cursor", "")])));
    let link =
        |value: &str| if value.is_empty() { "/jobs".to_owned() } else { format!("/jobs?kind={value}") };
    let mut shell = visit.shell(Part::Deliveries, "Jobs");
    shell.command =
        if kind == "cancellations" { "postrider delivery cancellations" } else { "postrider replay list" }
            .to_owned();
    shell.live = newest.is_none();
    page(&JobsPage {
        shell,
        tabs: KINDS
            .iter()
            .map(|(value, name)| Tab { name, link: link(value), chosen: *value == kind })
            .collect(),
        is_first_use: rows.is_empty() && newest.is_none(),
        more_elsewhere: kind.is_empty() && !next.is_empty(),
        rows,
        older,
        newest,
    })
}

#[derive(Template)]
#[template(path = "job.html")]
struct JobPage {
    shell: Shell,
    replay: Replay,
    heading: String,
    chips: Vec<String>,
    chosen: String,
    left_out: Vec<Reason>,
    dropped: Vec<Reason>,
    settled: u64,
    sent: String,
    to_send: String,
    remaining: String,
    outcomes: Vec<(Html, String)>,
    created: Html,
    started: Html,
    finished: Html,
    expires: Html,
    /// Whether a start is asked for: it is planned, and there is something to send.
    can_start: bool,
}

async fn show(visit: Visit, Path(id): Path<String>) -> Response {
    let made = shown(&visit, &id).await;
    visit.or_refused(Part::Deliveries, made)
}

async fn shown(visit: &Visit, id: &str) -> Answer {
    let replay: Replay = visit.api.get(&format!("/v1/replays/{}", segment(id)), &[]).await?;
    let names = Names::read(visit).await;
    let mut shell = visit.shell(Part::Deliveries, "Replay");
    shell.command = format!("postrider replay show {}", replay.id);
    let pending = replay.outcomes.as_ref().map_or(0, |outcomes| outcomes.pending);
    shell.live = !replay.is_over() || pending > 0;
    page(&JobPage {
        shell,
        heading: heading(&replay),
        chips: replay.chips(&names),
        chosen: number(replay.chosen),
        left_out: reasons(&replay.left_out),
        dropped: reasons(&replay.dropped),
        settled: replay.settled(),
        sent: number(replay.sent),
        to_send: number(replay.to_send),
        remaining: replay.remaining().unwrap_or_default(),
        outcomes: replay.outcomes.as_ref().map(outcomes).unwrap_or_default(),
        created: when(&replay.created_at, visit.now),
        started: when_if(replay.started_at.as_deref(), visit.now),
        finished: when_if(replay.finished_at.as_deref(), visit.now),
        expires: when_if(replay.expires_at.as_deref(), visit.now),
        can_start: replay.waits_for_somebody() && replay.chosen > 0,
        replay,
    })
}

/// What it does, in a line.
fn heading(replay: &Replay) -> String {
    let deliveries = counted(replay.chosen, "delivery", "deliveries");
    match replay.state.as_str() {
        "planning" => "Counting what would be sent again".to_owned(),
        "planned" if replay.run => format!("{deliveries} wait for other replays"),
        "planned" => format!("{deliveries} can be sent again"),
        "running" => format!("Sending {deliveries} again"),
        "done" => format!("{} sent again", counted(replay.sent, "delivery", "deliveries")),
        "failed" => "The replay failed".to_owned(),
        _ => "The replay was given up".to_owned(),
    }
}

/// How what was sent has ended, where there is something to say.
fn outcomes(outcomes: &Outcomes) -> Vec<(Html, String)> {
    let all = [
        (state("ok", "Delivered"), outcomes.delivered),
        (state("warn", "Not ended"), outcomes.pending),
        (state("bad", "Dead"), outcomes.dead),
        (state("off", "Cancelled"), outcomes.cancelled),
        (state("skipped", "Skipped"), outcomes.skipped),
    ];
    all.into_iter().filter(|(_, n)| *n > 0).map(|(mark, n)| (mark, number(n))).collect()
}

/// What a replay sent, as a file: page by page from the API to the browser.
async fn export(visit: Visit, Path(id): Path<String>) -> Response {
    let query = visit.query();
    let path = format!("/v1/replays/{}/export", segment(&id));
    let made = visit.api.file(&path, &[("cursor", query.get("cursor"))]).await;
    visit.or_refused(Part::Deliveries, made.map_err(Into::into))
}

async fn run(Path(id): Path<String>, sent: Sent) -> Response {
    change(&id, "run", sent, "Started.").await
}

async fn cancel(Path(id): Path<String>, sent: Sent) -> Response {
    change(&id, "cancel", sent, "Cancelled: nothing more is sent. What was sent goes its way.").await
}

async fn change(id: &str, what: &str, Sent { visit, .. }: Sent, done: &str) -> Response {
    let (path, here) = (format!("/v1/replays/{}/{what}", segment(id)), format!("/jobs/{}", segment(id)));
    let made = match visit.api.send::<Value>(Method::POST, &path, None).await {
        Ok(_) => Ok(visit.done(&here, done)),
        Err(refused) => visit.not_done(&here, &refused),
    };
    visit.or_refused(Part::Deliveries, made)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn replay(state: &str, run: bool) -> Replay {
        let json = json!({ "id": "rpl_1", "state": state, "run": run, "reason": "", "because": null, "states": ["dead"], "webhook": null,
            "event_types": ["USER_LOGIN"], "events_named": 2, "since": null, "until": "2026-11-22T20:00:00Z", "target": "original",
            "again": false, "rate_per_second": 100, "looked_at": 3000, "chosen": 1204, "left_out": { "under_way": 3, "test": 9, "refused": 0 },
            "sent": 200, "dropped": { "made_again": 4 }, "to_send": 1000, "outcomes": null, "created_at": "2026-11-22T20:00:00Z",
            "planned_at": null, "started_at": null, "finished_at": null, "expires_at": null });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_replay_says_what_it_is_about() {
        let chips = replay("planned", false).chips(&Names(Vec::new()));
        assert_eq!(
            chips,
            [
                "state: dead",
                "event type: USER_LOGIN",
                "2 events by id",
                "until: 2026-11-22T20:00:00Z",
                "to: the same webhooks"
            ]
        );
    }

    #[test]
    fn what_is_left_out_is_said_in_words_most_first() {
        let told: Vec<String> = reasons(&replay("planned", false).left_out)
            .into_iter()
            .map(|one| format!("{} {}", one.n, one.text))
            .collect();
        assert_eq!(
            told,
            ["9 were tests of a webhook", "3 have not ended: they wait for an attempt, or are held"]
        );
        assert_eq!(in_words("something_new"), "something_new");
    }

    #[test]
    fn progress_counts_what_had_its_turn() {
        let running = replay("running", true);
        assert_eq!((running.settled(), running.remaining().as_deref()), (204, Some("about 10 s")));
        assert_eq!(running.numbers(), "200 of 1,204 sent");
        assert_eq!(replay("done", true).remaining(), None);
        assert_eq!(Replay { rate_per_second: 0, ..replay("running", true) }.remaining(), None);
    }

    #[test]
    fn a_plan_says_who_it_waits_for() {
        assert!(
            replay("planned", false).waits_for_somebody() && !replay("planned", false).waits_for_others()
        );
        assert!(replay("planned", true).waits_for_others());
        assert_eq!(heading(&replay("planned", false)), "1,204 deliveries can be sent again");
        assert_eq!(heading(&replay("planned", true)), "1,204 deliveries wait for other replays");
    }

    #[test]
    fn a_cancellation_says_what_it_called_off() {
        let json = json!({ "id": "c", "delivery": null, "webhook": "wh_1", "event_type": null, "since": null,
            "until": "2026-11-22T20:00:00Z", "state": "held", "deliveries": 5, "held": 5, "created_at": "2026-11-22T20:00:00Z" });
        let cancellation: Cancellation = serde_json::from_value(json).unwrap();
        assert_eq!(
            called_off(&cancellation, &Names(Vec::new())),
            "webhook: wh_1, until: 2026-11-22T20:00:00Z, only what is held"
        );
    }
}
