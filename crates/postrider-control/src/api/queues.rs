//! `/v1/queues`: the broker's queues beside what they should be.

use std::sync::Arc;

use axum::extract::State;
use postrider_broker::flow;
use postrider_broker::topology::{self, Argument, Difference, Looked};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::Api;
use super::answer::{Answer, shown};
use super::problem::{Code, Problem, ProblemBody};
use super::scope::Scope;
use crate::queues::Look;

/// The queues and streams that this installation should have, as they are.
#[derive(Serialize, ToSchema)]
pub(super) struct Queues {
    /// Every one of them: there are no further pages.
    items: Vec<Queue>,
    /// Always null.
    next: Option<String>,
    /// The way of messages between roles, exchanges and queues, for a drawing. It is the same for every installation.
    edges: Vec<Edge>,
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
    /// How it differs from what it should be; null where no difference was found.
    drift: Option<QueueDrift>,
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
    fn of(queue: &topology::Queue, looked: &Looked) -> Self {
        let kind = queue.kind();
        // What AMQP says of a stream differs from release to release, and nothing of it is ever taken out.
        let depth = looked.depth.filter(|_| kind != "stream");
        Self {
            name: queue.name.clone(),
            role: queue.purpose.as_str(),
            r#type: kind.to_owned(),
            expected: queue.arguments.iter().map(|(name, value)| ((*name).to_owned(), json(value))).collect(),
            ready: depth.map(|depth| depth.ready),
            consumers: depth.map(|depth| depth.consumers),
            delay_ms: queue.delay_ms(),
            drift: looked.difference.as_ref().map(QueueDrift::from),
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

impl From<&Look> for Queues {
    fn from(look: &Look) -> Self {
        let queues = look.topology.queues.iter().zip(&look.looked);
        let is_there = |looked: &&Looked| !matches!(looked.difference, Some(Difference::Missing(_)));
        Self {
            items: queues.map(|(queue, looked)| Queue::of(queue, looked)).collect(),
            next: None,
            edges: flow::edges(&look.topology).iter().map(Edge::from).collect(),
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
    let unavailable = |why| {
        let hint = "Ask again later; the log of control says more, and GET /v1/status answers meanwhile.";
        Problem::new(Code::BrokerUnavailable, why, hint).retry_after(2)
    };
    let look = api.queues.look().await.map_err(unavailable)?;
    Answer::ok(&Queues::from(&*look))
}
