//! `/v1/replays`: deliveries made again by filter, at a rate.

pub(super) mod export;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use http::StatusCode;
use postrider_core::EventId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::answer::{Answer, shown};
use super::audit::{Changes, Subject};
use super::body::{Body, Params, moment};
use super::cursor::{List, limit};
use super::event_types;
use super::idempotency::Once;
use super::problem::{Code, Problem, ProblemBody};
use super::scope::Scope;
use crate::store::{
    EXPIRES_MS, LeftOut, MAX_ITEMS, MAX_OPEN, NewReplay, Outcomes, ReplayAsked, ReplayRefused, ReplayRow,
    ReplayState, ReplayTarget, TOO_MANY,
};

/// How a delivery can have ended.
const STATES: [&str; 4] = ["delivered", "dead", "cancelled", "skipped"];
/// What is made again when nobody says what: everything that its receiver does not have.
const UNDELIVERED: [&str; 3] = ["dead", "cancelled", "skipped"];
/// The most events that can be named.
const MAX_EVENTS: usize = 1000;
/// The most event types that can be named.
const MAX_TYPES: usize = 200;
const RATES: std::ops::RangeInclusive<u32> = 1..=5000;
const DEFAULT_RATE: u32 = 100;

/// What to make again: deliveries that are as asked for in every way.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewReplayBody {
    /// Whose; `default` by default.
    tenant: Option<String>,
    /// How the deliveries ended: `delivered`, `dead`, `cancelled`, `skipped`. With the target `original` all but
    /// `delivered` by default; with another target any, also events that nobody took.
    states: Option<Vec<String>>,
    /// To which webhook they were, also one that was deleted.
    webhook: Option<String>,
    /// Of which types the events are, by name or alias; at most 200.
    event_types: Option<Vec<String>>,
    /// Only these events, by id; at most 1000.
    events: Option<Vec<String>>,
    /// Events accepted at this time or later, RFC 3339.
    since: Option<String>,
    /// Events accepted before this time, RFC 3339; now by default and at most.
    until: Option<String>,
    /// `original`: the webhooks that the deliveries were to. `matching`: the webhooks that take the events today. Or the id
    /// of a webhook, whatever it takes, which may be new.
    target: Option<String>,
    /// Also what the target has been delivered. Not with `original`, where `states` says it.
    again: Option<bool>,
    /// How many a second, at most: from 1 to 5000; 100 by default.
    rate_per_second: Option<u32>,
    /// Run it as soon as it is planned.
    run: Option<bool>,
}

/// A replay: what it makes again, and how far it is.
///
/// `chosen` = `sent` + the sum of `dropped` + `to_send`.
#[derive(Serialize, ToSchema)]
pub(super) struct Replay {
    id: String,
    tenant: String,
    /// `planning`, `planned`, `running`, `done`, `cancelled` or `failed`.
    state: &'static str,
    /// Somebody asked that it runs. One that is planned waits, then, for others of the tenant: five run at the same time.
    run: bool,
    /// Why it was cancelled (`request`, `expired`) or failed (`too_many`, `damaged`); empty otherwise.
    reason: String,
    /// Why it sends nothing, in a sentence, if that is so.
    because: Option<String>,
    states: Vec<String>,
    webhook: Option<String>,
    event_types: Vec<String>,
    /// How many events were named; 0 when none were.
    events_named: u64,
    since: Option<String>,
    until: String,
    target: String,
    again: bool,
    rate_per_second: u32,
    /// Events that planning has looked at.
    looked_at: u64,
    /// Deliveries that it makes again.
    chosen: u64,
    /// What was found and not chosen, by reason.
    left_out: BTreeMap<String, u64>,
    sent: u64,
    /// What was chosen and not sent when its turn came, by reason.
    dropped: BTreeMap<String, u64>,
    /// Chosen, and not sent yet; once it is over, never.
    to_send: u64,
    /// How what was sent has ended so far. Not in lists.
    outcomes: Option<ReplayOutcomes>,
    created_at: String,
    planned_at: Option<String>,
    started_at: Option<String>,
    finished_at: Option<String>,
    /// A plan that nobody runs is given up then.
    expires_at: Option<String>,
}

/// How what a replay sent has ended so far. The sum is `sent`.
#[derive(Serialize, ToSchema)]
pub(super) struct ReplayOutcomes {
    delivered: u64,
    dead: u64,
    cancelled: u64,
    skipped: u64,
    /// Not ended: waiting for an attempt, or held for a paused webhook.
    pending: u64,
}

impl Replay {
    fn of(row: ReplayRow, outcomes: Option<Outcomes>) -> Self {
        let planned = matches!(row.state, ReplayState::Planned) && !row.run;
        Self {
            because: because(&row),
            target: target_of(&row).to_owned(),
            to_send: row.to_send(),
            expires_at: row.planned_at.filter(|_| planned).map(|at| shown(at.plus_ms(EXPIRES_MS))),
            outcomes: outcomes.map(|n| ReplayOutcomes {
                delivered: n.delivered,
                dead: n.dead,
                cancelled: n.cancelled,
                skipped: n.skipped,
                pending: n.pending,
            }),
            id: row.id,
            tenant: row.tenant,
            state: row.state.as_str(),
            run: row.run,
            reason: row.reason,
            states: row.asked.states,
            webhook: row.asked.webhook,
            event_types: row.asked.event_types,
            events_named: row.asked.events,
            since: row.since.map(shown),
            until: shown(row.until),
            again: row.asked.again,
            rate_per_second: row.rate_per_second,
            looked_at: row.looked_at,
            chosen: row.chosen,
            left_out: counted(&row.left_out),
            sent: row.sent,
            dropped: counted(&row.dropped),
            created_at: shown(row.created_at),
            planned_at: row.planned_at.map(shown),
            started_at: row.started_at.map(shown),
            finished_at: row.finished_at.map(shown),
        }
    }
}

fn target_of(row: &ReplayRow) -> &str {
    match &row.asked.target {
        ReplayTarget::Original => "original",
        ReplayTarget::Matching => "matching",
        ReplayTarget::Webhook(id) => id,
    }
}

fn counted(reasons: &BTreeMap<LeftOut, u64>) -> BTreeMap<String, u64> {
    reasons.iter().map(|(reason, n)| (reason.as_str().to_owned(), *n)).collect()
}

/// Why a replay sends nothing, if that is so.
fn because(row: &ReplayRow) -> Option<String> {
    if row.state == ReplayState::Failed {
        return Some(match row.reason.as_str() {
            TOO_MANY => {
                format!(
                    "it chose more than {MAX_ITEMS} deliveries; narrow it by since, until, webhook or event_types"
                )
            }
            _ => "what it would send cannot be read; the log of control says more".to_owned(),
        });
    }
    if row.chosen > 0 || row.planned_at.is_none() {
        return None;
    }
    if !row.left_out.is_empty() {
        let reasons: Vec<String> =
            row.left_out.iter().map(|(reason, n)| format!("{} {n}", reason.as_str())).collect();
        return Some(format!("what was found is all left out: {}", reasons.join(", ")));
    }
    if row.looked_at == 0 {
        return Some("no event of the tenant was accepted in this time".to_owned());
    }
    let looked_at = match row.looked_at {
        1 => "1 event was".to_owned(),
        n => format!("{n} events were"),
    };
    Some(match (&row.asked.webhook, row.asked.states.is_empty()) {
        (Some(_), false) => {
            format!(
                "{looked_at} looked at; none has a delivery to the webhook that is {}",
                row.asked.states.join(" or ")
            )
        }
        (None, false) => {
            format!("{looked_at} looked at; none has a delivery that is {}", row.asked.states.join(" or "))
        }
        (Some(_), true) => format!("{looked_at} looked at; none has a delivery to the webhook"),
        (None, true) => format!("{looked_at} looked at; none is as asked for and taken by a webhook"),
    })
}

/// Plans a replay: looks up what it would send, and counts it.
///
/// Planning goes on after the answer; the state is `planned` when the counts are complete. What happens after the request
/// is not looked at. Nothing is sent until somebody runs it, unless `run` says so.
#[utoipa::path(post, path = "/v1/replays", tag = "replays", operation_id = "plan_replay",
    request_body = NewReplayBody,
    responses((status = 202, body = Replay), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    scope: Scope,
    once: Once,
    Body(asked): Body<NewReplayBody>,
) -> Result<Answer, Problem> {
    let tenant = scope.of_body(asked.tenant.as_deref())?;
    let new = read(&api, tenant.to_string(), asked).await?;
    let now = postrider_broker::now();
    let mut change = api.store.change().await?;
    if !change.has_tenant(&new.tenant).await? {
        let detail = format!("there is no tenant {:?}", new.tenant);
        return Err(Problem::new(Code::UnknownTenant, detail, "POST /v1/tenants makes one.").field("tenant"));
    }
    let made = change.make_replay(&new, now).await?;
    let row = made.map_err(|refused| problem(refused, "planned"))?;
    let changes = Changes::none()
        .with("target", target_of(&row))
        .with("states", &row.asked.states)
        .with_some("webhook", row.asked.webhook.as_ref())
        .with("event_types", &row.asked.event_types)
        .with("events_named", row.asked.events)
        .with_some("since", row.since.map(shown))
        .with("until", shown(row.until))
        .with("rate_per_second", row.rate_per_second)
        .with("run", row.run);
    change.note(&scope.entry(Some(&tenant), Subject::Replay, &row.id, changes), now).await?;
    let answer = Answer::json(StatusCode::ACCEPTED, &Replay::of(row, Some(Outcomes::default())))?;
    once.keep(&api, &mut change, &answer).await?;
    change.commit().await?;
    Ok(answer)
}

/// Reads what is to be sent.
async fn read(api: &Api, tenant: String, asked: NewReplayBody) -> Result<NewReplay, Problem> {
    let target = match asked.target.as_deref() {
        None | Some("original") => ReplayTarget::Original,
        Some("matching") => ReplayTarget::Matching,
        Some(id) => match api.store.webhook(&tenant, id).await? {
            Some(_) => ReplayTarget::Webhook(id.to_owned()),
            None => {
                let detail = "target must be original, matching, or the id of a webhook of the tenant";
                return Err(Problem::body("target", detail));
            }
        },
    };
    let original = target == ReplayTarget::Original;
    if original && asked.again.is_some() {
        let detail = "again is for other targets; with original, name delivered in states to send that again";
        return Err(Problem::body("again", detail));
    }
    let mut states = asked.states.unwrap_or_default();
    states.sort_unstable();
    states.dedup();
    for (index, state) in states.iter().enumerate() {
        if state == "pending" || state == "held" {
            let detail = "what has not ended is not made again; cancel it first, or wait";
            return Err(Problem::body(format!("states[{index}]"), detail));
        }
        if !STATES.contains(&state.as_str()) {
            let detail = format!("a state is one of {}", STATES.join(", "));
            return Err(Problem::body(format!("states[{index}]"), detail));
        }
    }
    if original && states.is_empty() {
        states = UNDELIVERED.map(str::to_owned).to_vec();
    }
    if let Some(webhook) = &asked.webhook
        && !api.store.webhook_existed(&tenant, webhook).await?
    {
        let detail = "the tenant never had a webhook of this id";
        return Err(Problem::body("webhook", detail));
    }
    let rate_per_second = asked.rate_per_second.unwrap_or(DEFAULT_RATE);
    if !RATES.contains(&rate_per_second) {
        let detail = format!("rate_per_second must be from {} to {}", RATES.start(), RATES.end());
        return Err(Problem::body("rate_per_second", detail));
    }
    let (since, until) = (moment("since", asked.since.as_deref())?, moment("until", asked.until.as_deref())?);
    if since.zip(until).is_some_and(|(since, until)| since >= until) {
        return Err(Problem::body("until", "until must be later than since"));
    }
    let event_ids = asked.events.map(named).transpose()?;
    Ok(NewReplay {
        id: format!("rpl_{}", uuid::Uuid::now_v7().simple()),
        asked: ReplayAsked {
            states,
            webhook: asked.webhook,
            event_types: types(api, &tenant, asked.event_types.unwrap_or_default()).await?,
            events: event_ids.as_ref().map_or(0, |ids| ids.len() as u64),
            target,
            again: asked.again.unwrap_or(false),
        },
        tenant,
        event_ids,
        since,
        until,
        rate_per_second,
        run: asked.run.unwrap_or(false),
    })
}

/// Ids of events, each once.
fn named(mut ids: Vec<String>) -> Result<Vec<String>, Problem> {
    if ids.is_empty() || ids.len() > MAX_EVENTS {
        let detail = format!("events names from 1 to {MAX_EVENTS} events; leave it out for all of a time");
        return Err(Problem::body("events", detail));
    }
    for (index, id) in ids.iter().enumerate() {
        EventId::parse(id).map_err(|e| Problem::body(format!("events[{index}]"), e.to_string()))?;
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// Event types by the names under which the books have them.
async fn types(api: &Api, tenant: &str, given: Vec<String>) -> Result<Vec<String>, Problem> {
    if given.len() > MAX_TYPES {
        return Err(Problem::body("event_types", format!("at most {MAX_TYPES} event types can be named")));
    }
    let mut names = Vec::with_capacity(given.len());
    for name in given {
        let known = event_types::find(&api.store, tenant, &name).await?;
        names.push(known.map_or(name, |known| known.entry.name.to_string()));
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

fn problem(refused: ReplayRefused, what: &str) -> Problem {
    match refused {
        ReplayRefused::Unknown => Problem::not_found("replay"),
        ReplayRefused::Over(state) => {
            let state = state.as_str();
            let problem = Problem::new(
                Code::ReplayOver,
                format!("the replay is {state} and cannot be {what}"),
                "Plan a new one.",
            );
            problem.with("state", state)
        }
        ReplayRefused::TooMany(open) => Problem::new(
            Code::Quota,
            format!("the tenant has {open} replays that are not over, and at most {MAX_OPEN} are kept"),
            "Cancel plans that are not needed, or wait until some are done.",
        ),
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Asked {
    /// Whose; `default` by default.
    #[allow(dead_code, reason = "read by `Scope`")]
    tenant: Option<String>,
    /// How many, from 1 to 200; 50 by default.
    limit: Option<i64>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// Lists replays, newest first.
#[utoipa::path(get, path = "/v1/replays", tag = "replays", operation_id = "list_replays", params(Asked),
    responses((status = 200, body = inline(ReplayPage)), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    scope: Scope,
    Params(asked): Params<Asked>,
) -> Result<Answer, Problem> {
    let limit = limit(asked.limit)?;
    let tenant = scope.tenant().to_string();
    let list = List::new(api.store.epoch(), "replays", &tenant);
    let before = list.row(asked.cursor.as_deref())?;
    let rows = api.store.replays(&tenant, before, limit + 1).await?;
    Answer::ok(&list.page(rows, limit, |row| row.seq.to_string(), |row| Ok(Replay::of(row, None)))?)
}

#[derive(ToSchema)]
#[allow(dead_code, reason = "it describes `Page<Replay>`")]
pub(super) struct ReplayPage {
    items: Vec<Replay>,
    next: Option<String>,
}

/// One replay, with how what it sent has ended so far.
#[utoipa::path(get, path = "/v1/replays/{id}", tag = "replays", operation_id = "get_replay",
    params(("id" = String, Path, description = "The replay"), ("tenant" = Option<String>, Query, description = "Whose; `default` by default")),
    responses((status = 200, body = Replay), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    scope: Scope,
    Path(id): Path<String>,
) -> Result<Answer, Problem> {
    let Some(row) = api.store.replay(scope.tenant().as_str(), &id).await? else {
        return Err(Problem::not_found("replay"));
    };
    let outcomes = api.store.replay_outcomes(row.seq).await?;
    Answer::ok(&Replay::of(row, Some(outcomes)))
}

/// Runs a replay, as soon as it is planned. Of one that runs already nothing changes.
#[utoipa::path(post, path = "/v1/replays/{id}/run", tag = "replays", operation_id = "run_replay",
    params(("id" = String, Path, description = "The replay"), ("tenant" = Option<String>, Query, description = "Whose; `default` by default")),
    responses((status = 202, body = Replay), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn run(
    State(api): State<Arc<Api>>,
    scope: Scope,
    once: Once,
    Path(id): Path<String>,
) -> Result<Answer, Problem> {
    let tenant = scope.tenant();
    let mut change = api.store.change().await?;
    let before = change.run_replay(tenant.as_str(), &id).await?;
    let mut row = before.map_err(|refused| problem(refused, "run"))?;
    if !row.run {
        let changes = Changes::none().turned("run", false, true);
        let entry = scope.entry(Some(&tenant), Subject::Replay, &id, changes);
        change.note(&entry, postrider_broker::now()).await?;
    }
    row.run = true;
    let outcomes = api.store.replay_outcomes(row.seq).await?;
    let answer = Answer::json(StatusCode::ACCEPTED, &Replay::of(row, Some(outcomes)))?;
    once.keep(&api, &mut change, &answer).await?;
    change.commit().await?;
    Ok(answer)
}

/// Sends nothing more of a replay. What was sent already is not called off: it goes its way.
#[utoipa::path(post, path = "/v1/replays/{id}/cancel", tag = "replays", operation_id = "cancel_replay",
    params(("id" = String, Path, description = "The replay"), ("tenant" = Option<String>, Query, description = "Whose; `default` by default")),
    responses((status = 200, body = Replay), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn cancel(
    State(api): State<Arc<Api>>,
    scope: Scope,
    once: Once,
    Path(id): Path<String>,
) -> Result<Answer, Problem> {
    let (tenant, now) = (scope.tenant(), postrider_broker::now());
    let mut change = api.store.change().await?;
    let cancelled = change.cancel_replay(tenant.as_str(), &id, now).await?;
    let row = cancelled.map_err(|refused| problem(refused, "cancelled"))?;
    let changes = Changes::none().with("sent", row.sent).with("not_sent", row.to_send());
    change.note(&scope.entry(Some(&tenant), Subject::Replay, &id, changes), now).await?;
    let outcomes = api.store.replay_outcomes(row.seq).await?;
    let answer = Answer::ok(&Replay::of(row, Some(outcomes)))?;
    once.keep(&api, &mut change, &answer).await?;
    change.commit().await?;
    Ok(answer)
}
