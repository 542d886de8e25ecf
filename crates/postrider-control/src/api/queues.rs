//! `/v1/queues`: the broker's queues beside what they should be, and how full they were.

mod history;

use std::sync::Arc;

use axum::extract::{Path, State};
use postrider_broker::flow;
use postrider_broker::topology::{self, Argument, Difference, Looked, Topology};
use postrider_core::Timestamp;
use postrider_core::depths::{Depths, empty_in_ms, trend_per_minute};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use self::history::{QueueHistory, RoleHistory};
use super::Api;
use super::answer::{Answer, shown};
use super::problem::{Code, Problem, ProblemBody};
use super::scope::Scope;
use crate::queues::{Look, ready};

/// The queues and streams that this installation should have, as they are.
#[derive(Serialize, ToSchema)]
pub(super) struct Queues {
    /// Every one of them: there are no further pages.
    items: Vec<Queue>,
    /// Always null.
    next: Option<String>,
    /// The way of messages between roles, exchanges and queues, for a drawing. It is the same for every installation.
    edges: Vec<Edge>,
    /// What waited over the last hour, by what the queues are for.
    history: RoleHistory,
    /// For how many shards there are queues; null until control knows it, and then `items` has those of the first alone.
    shards: Option<u16>,
    /// Whether the arguments of all that is there were compared. RabbitMQ compares them for users alone that may
    /// configure the queue, and the roles of an installation with least rights may not: then `drift` says only what is missing, and
    /// `postrider topology diff`, as the operator, says the rest.
    arguments_compared: bool,
    /// When RabbitMQ was asked: a look stands for two seconds.
    at: String,
}

/// A queue or a stream.
#[derive(Serialize, ToSchema)]
struct Queue {
    name: String,
    /// What it is for: `events`, `fresh`, `retry`, `replay`, `delay`, `park`, `dead`, `invalid`, `poison`, `journal`, `config` or
    /// `seen`.
    role: &'static str,
    /// `quorum`, `stream` or `classic`.
    r#type: String,
    /// The arguments that it should have.
    #[schema(value_type = Object)]
    expected: Map<String, Value>,
    /// Messages that nobody holds; null where it is missing or may not be looked at, and for a stream, which is never emptied.
    ready: Option<u32>,
    /// Who consumes; null as `ready` is.
    consumers: Option<u32>,
    /// For how long it holds a message, milliseconds; null where it is not for waiting.
    delay_ms: Option<u64>,
    /// By how much more waits each minute, or less, over the last two minutes. It is the change of what waits, and no throughput:
    /// RabbitMQ tells no rates over AMQP. Null where too little was measured.
    trend_per_minute: Option<f64>,
    /// When it is empty if it goes on like this, milliseconds. Null where nobody consumes it, where it holds nothing or does not shrink,
    /// and where it would take more than a day.
    empty_in_ms: Option<u64>,
    /// How it differs from what it should be; null where no difference was found.
    drift: Option<QueueDrift>,
}

/// A queue or a stream with all that is known of it, also while RabbitMQ cannot be asked.
#[derive(Serialize, ToSchema)]
pub(super) struct QueueInFull {
    #[serde(flatten)]
    queue: Queue,
    /// Who can bring messages to queues of its role, by the bindings, the nearest first: `from` is a role, or queues that pass on what they
    /// hold no longer.
    writers: Vec<Edge>,
    /// Who can get messages from them: `to` is a role, or queues.
    readers: Vec<Edge>,
    /// How much waited in it over the last hour; null for a stream.
    history: Option<QueueHistory>,
    /// Whether its arguments were compared, as in the list.
    arguments_compared: bool,
    /// When RabbitMQ was asked; null where it could not be.
    at: Option<String>,
    /// Why RabbitMQ could not be asked; then nobody knows what is in the queue now, who consumes it and whether it differs.
    unknown_because: Option<String>,
}

/// How a queue differs from what it should be.
#[derive(Serialize, ToSchema)]
struct QueueDrift {
    /// `missing` or `arguments`.
    kind: &'static str,
    /// The first argument that differs; null where the queue is missing.
    argument: Option<String>,
    /// What RabbitMQ says of it.
    detail: Option<String>,
}

/// A step on the way of messages.
#[derive(Serialize, ToSchema)]
struct Edge {
    /// `upstream`, `router`, `worker`, `control`, or `exchange:` or `queue:` and what it is for.
    from: String,
    /// The same, or `receivers`.
    to: String,
    /// `publishes`, `routes`, `unroutable`, `expires`, `poisons`, `consumed`, `read` or `requests`.
    label: &'static str,
}

impl Queue {
    fn of(queue: &topology::Queue, looked: &Looked, depths: &Depths, now: Timestamp) -> Self {
        let ready = ready(queue, looked);
        let consumers = looked.depth.filter(|_| queue.kind() != "stream").map(|depth| depth.consumers);
        let trend_per_minute = trend_per_minute(&depths.points(&[&queue.name], now));
        let empty =
            |(ready, consumers): (u32, u32)| empty_in_ms(ready.into(), consumers.into(), trend_per_minute);
        Self {
            name: queue.name.clone(),
            role: queue.purpose.as_str(),
            r#type: queue.kind().to_owned(),
            expected: queue.arguments.iter().map(|(name, value)| ((*name).to_owned(), json(value))).collect(),
            ready,
            consumers,
            delay_ms: queue.delay_ms(),
            trend_per_minute,
            empty_in_ms: ready.zip(consumers).and_then(empty),
            drift: looked.difference.as_ref().map(QueueDrift::from),
        }
    }
}

impl QueueInFull {
    /// A queue of the topology, as the look found it or with why there was none.
    fn of(
        queue: &topology::Queue,
        topology: &Topology,
        look: Result<&Look, String>,
        depths: &Depths,
        now: Timestamp,
    ) -> Self {
        let in_look = |look: &Look| {
            let mut all = look.topology.queues.iter().zip(&look.looked);
            all.find(|(known, _)| known.name == queue.name).map(|(_, looked)| looked.clone())
        };
        let looked = look.as_ref().ok().and_then(|look| in_look(look));
        let looked = looked.unwrap_or(Looked { depth: None, difference: None, compared: false });
        let edges = flow::edges(topology);
        let told = |edges: Vec<flow::Edge>| edges.iter().map(Edge::from).collect();
        Self {
            queue: Queue::of(queue, &looked, depths, now),
            writers: told(flow::writers(&edges, queue.purpose)),
            readers: told(flow::readers(&edges, queue.purpose)),
            history: (queue.kind() != "stream").then(|| QueueHistory::of(&queue.name, depths, now)),
            arguments_compared: looked.compared,
            at: look.as_ref().ok().map(|look| shown(look.at)),
            unknown_because: look.err(),
        }
    }
}

impl From<&Difference> for QueueDrift {
    fn from(difference: &Difference) -> Self {
        match difference {
            Difference::Missing(_) => Self { kind: "missing", argument: None, detail: None },
            Difference::Other { argument, detail, .. } => {
                Self { kind: "arguments", argument: Some(argument.clone()), detail: Some(detail.clone()) }
            }
        }
    }
}

impl Queues {
    fn of(look: &Look, depths: &Depths, now: Timestamp) -> Self {
        let queues = look.topology.queues.iter().zip(&look.looked);
        let is_there = |looked: &&Looked| !matches!(looked.difference, Some(Difference::Missing(_)));
        Self {
            items: queues.map(|(queue, looked)| Queue::of(queue, looked, depths, now)).collect(),
            next: None,
            edges: flow::edges(&look.topology).iter().map(Edge::from).collect(),
            history: RoleHistory::of(&look.topology, depths, now),
            shards: look.shards,
            arguments_compared: look.looked.iter().filter(is_there).all(|looked| looked.compared),
            at: shown(look.at),
        }
    }
}

impl From<&flow::Edge> for Edge {
    fn from(edge: &flow::Edge) -> Self {
        Self { from: edge.from.to_string(), to: edge.to.to_string(), label: edge.step.as_str() }
    }
}

fn json(argument: &Argument) -> Value {
    match argument {
        Argument::Text(text) => text.as_str().into(),
        Argument::Number(number) => (*number).into(),
        Argument::Flag(flag) => (*flag).into(),
    }
}

/// The broker's queues, how full they are, and whether they are as they should be.
#[utoipa::path(get, path = "/v1/queues", tag = "status", operation_id = "list_queues",
    responses((status = 200, body = Queues), (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn list(State(api): State<Arc<Api>>, _: Scope) -> Result<Answer, Problem> {
    let look = api.queues.look().await.map_err(unavailable)?;
    Answer::ok(&Queues::of(&look, &api.queues.depths(), postrider_broker::now()))
}

fn unavailable(why: String) -> Problem {
    let hint = "Ask again later; the log of control says more, and GET /v1/status answers meanwhile.";
    Problem::new(Code::BrokerUnavailable, why, hint).retry_after(2)
}

/// One of the broker's queues: what it is for, how full it is and was, and who writes to it and reads it.
///
/// While RabbitMQ cannot be asked it says what is known without it: see `unknown_because`.
#[utoipa::path(get, path = "/v1/queues/{name}", tag = "status", operation_id = "get_queue",
    params(("name" = String, Path, description = "The queue's name, as the list has it")),
    responses((status = 200, body = QueueInFull), (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    _: Scope,
) -> Result<Answer, Problem> {
    let look = api.queues.look().await;
    let (topology, shards) = api.queues.topology();
    let Some(queue) = topology.queues.iter().find(|queue| queue.name == name) else {
        return Err(match look {
            // It may be one of a shard that control has not heard of.
            Err(why) if shards.is_none() => unavailable(why),
            _ => Problem::new(
                Code::NotFound,
                "this installation has no queue of this name",
                "GET /v1/queues, or postrider queues, lists them.",
            ),
        });
    };
    let look = look.as_ref().map(|look| &**look).map_err(Clone::clone);
    let now = postrider_broker::now();
    Answer::ok(&QueueInFull::of(queue, &topology, look, &api.queues.depths(), now))
}
