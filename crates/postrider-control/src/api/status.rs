//! `/v1/status`: the books, and how control, its store and its session with RabbitMQ do.

use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::answer::{Answer, shown};
use super::problem::{Problem, ProblemBody};
use super::scope::Scope;

/// The books: whether everything that was accepted is accounted for.
#[derive(Serialize, ToSchema)]
pub(super) struct Status {
    events: Events,
    deliveries: Deliveries,
    /// How far the books are from balancing: the sum of `drift_parts`. 0 is right.
    drift: u64,
    drift_parts: DriftParts,
    /// Nothing is on its way: then the books are compared with what RabbitMQ holds, too.
    at_rest: bool,
    /// The newest change of the configuration.
    revision: u64,
    /// Workers that consume; null while RabbitMQ does not answer.
    workers: Option<u64>,
    /// Routers that consume; null while RabbitMQ does not answer.
    routers: Option<Routers>,
    /// `ok` or `unreachable`: whether RabbitMQ said lately how full its queues are.
    broker: &'static str,
    /// Control's connection to RabbitMQ.
    broker_session: BrokerSession,
    store: StoreState,
    /// What should have been attempted by now; null until control knows it, and while its store does not answer.
    due: Option<DueNow>,
    /// The version of control.
    version: &'static str,
    /// When control was started.
    started_at: String,
}

/// Control's connection to RabbitMQ.
#[derive(Serialize, ToSchema)]
struct BrokerSession {
    connected: bool,
    /// RabbitMQ takes no messages of anybody: it lacks memory or disk.
    blocked: bool,
    /// Since when control is connected, or is not.
    since: String,
}

/// Control's database.
#[derive(Serialize, ToSchema)]
struct StoreState {
    /// `sqlite`.
    kind: &'static str,
    /// How much of the disk it takes, its log included; null where that cannot be read.
    bytes: Option<u64>,
    /// Whether it could be written a few seconds ago.
    up: bool,
}

/// Deliveries whose time has come and that nobody has tried yet, a few seconds ago.
#[derive(Serialize, ToSchema)]
struct DueNow {
    /// For how long the oldest of them has been due, milliseconds; 0 where there is none.
    oldest_ms: u64,
    /// To how many webhooks those go that have been due for more than two minutes.
    late_webhooks: u64,
}

/// accepted = routed + unmatched + invalid.
#[derive(Serialize, ToSchema)]
struct Events {
    accepted: u64,
    routed: u64,
    unmatched: u64,
    invalid: u64,
    /// Came again, and were not accepted again.
    duplicate: u64,
    /// Messages that no router has seen yet, each of one event or an array of them; null while RabbitMQ does not answer.
    waiting: Option<u64>,
}

/// owed = delivered + dead + cancelled + skipped + pending; counted are series.
#[derive(Serialize, ToSchema)]
struct Deliveries {
    owed: u64,
    delivered: u64,
    dead: u64,
    cancelled: u64,
    skipped: u64,
    pending: u64,
    /// Of the pending ones, those that wait for their webhook to be resumed.
    held: u64,
    /// Dead letters that no later series has delivered and nobody has resolved.
    dead_unresolved: u64,
}

#[derive(Serialize, ToSchema)]
struct Routers {
    active: u64,
    standby: u64,
}

#[derive(Serialize, ToSchema)]
struct DriftParts {
    /// |accepted − (routed + unmatched + invalid)|.
    events: u64,
    /// |owed − (delivered + dead + cancelled + skipped + pending)|.
    deliveries: u64,
    /// Facts that were numbered and did not arrive.
    missing_facts: u64,
    /// Deliveries that a worker reported and nobody said are owed.
    unowed: u64,
    /// Attempts missing from the log.
    missing_attempts: u64,
    /// At rest: pending deliveries that are neither held nor in RabbitMQ.
    at_rest: u64,
    /// At rest: messages in RabbitMQ beyond what is pending: copies of deliveries that a lost connection left behind. They
    /// are no drift.
    copies: u64,
}

/// The books.
#[utoipa::path(get, path = "/v1/status", tag = "status", operation_id = "get_status",
    responses((status = 200, body = Status), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn status(State(api): State<Arc<Api>>, _: Scope) -> Result<Answer, Problem> {
    let balance = api.books.balance().await?;
    let (books, counts, drift) = (balance.books, balance.books.counts, balance.drift);
    let session = api.broker.state();
    Answer::ok(&Status {
        events: Events {
            accepted: counts.accepted,
            routed: counts.routed,
            unmatched: counts.unmatched,
            invalid: counts.invalid,
            duplicate: books.duplicates,
            waiting: balance.broker.map(|(waiting, ..)| waiting),
        },
        deliveries: Deliveries {
            owed: counts.owed,
            delivered: counts.delivered,
            dead: counts.dead,
            cancelled: counts.cancelled,
            skipped: counts.skipped,
            pending: counts.pending,
            held: counts.held,
            dead_unresolved: books.dead_unresolved,
        },
        drift: drift.total(),
        drift_parts: DriftParts {
            events: drift.events,
            deliveries: drift.deliveries,
            missing_facts: drift.missing_facts,
            unowed: drift.unowed,
            missing_attempts: drift.missing_attempts,
            at_rest: drift.at_rest,
            copies: drift.copies,
        },
        at_rest: balance.at_rest,
        revision: books.revision,
        workers: balance.broker.map(|(_, workers, _)| workers),
        // One is active, the others stand by: the queue has a single active consumer.
        routers: balance
            .broker
            .map(|(.., routers)| Routers { active: routers.min(1), standby: routers.saturating_sub(1) }),
        broker: if balance.broker.is_some() { "ok" } else { "unreachable" },
        broker_session: BrokerSession {
            connected: session.connected,
            blocked: session.blocked,
            since: shown(session.since),
        },
        store: StoreState {
            kind: api.store.kind(),
            bytes: api.store.bytes().await.ok(),
            up: api.books.is_store_writable(),
        },
        due: api.books.due().map(|due| DueNow { oldest_ms: due.oldest_ms, late_webhooks: due.webhooks }),
        version: env!("CARGO_PKG_VERSION"),
        started_at: shown(api.started_at),
    })
}
