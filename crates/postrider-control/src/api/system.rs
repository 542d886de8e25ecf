//! `/v1/system`: what control was started with, what it stands on, and whether that is as it should be.

use std::sync::Arc;

use axum::extract::State;
use postrider_broker::topology::Difference;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::answer::{Answer, shown};
use super::problem::{Problem, ProblemBody};
use super::scope::Scope;
use crate::config::Setting;
use crate::queues::Look;

/// Control, what it stands on, and its settings.
#[derive(Serialize, ToSchema)]
pub(super) struct System {
    /// The version of control.
    version: &'static str,
    /// When control was started.
    started_at: String,
    store: StoreVersion,
    /// Where RabbitMQ is: host and port.
    broker: String,
    /// What was looked at just now.
    checks: Vec<Check>,
    /// Every setting of control's process, in the order of `postrider config`. Workers and routers that run apart have their
    /// own.
    settings: Vec<Setting>,
}

/// Control's database.
#[derive(Serialize, ToSchema)]
struct StoreVersion {
    /// `sqlite`.
    kind: &'static str,
    /// The version of the library; null where the store does not answer.
    version: Option<String>,
    /// The number of the last step that made its tables.
    schema: i64,
    /// How much of the disk it takes, its log included; null where that cannot be read.
    bytes: Option<u64>,
}

/// Whether something is as it should be.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
struct Check {
    /// `broker`, `store`, `queues`, `arguments`, `router` or `worker`.
    name: &'static str,
    /// Whether it is; null where that cannot be known now.
    ok: Option<bool>,
    /// In a sentence.
    detail: String,
}

impl Check {
    fn new(name: &'static str, ok: impl Into<Option<bool>>, detail: impl Into<String>) -> Self {
        Self { name, ok: ok.into(), detail: detail.into() }
    }
}

/// What control was started with, what it stands on, and whether that is as it should be.
#[utoipa::path(get, path = "/v1/system", tag = "status", operation_id = "get_system",
    responses((status = 200, body = System), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn get(State(api): State<Arc<Api>>, _: Scope) -> Result<Answer, Problem> {
    let (version, bytes, look, balance) =
        tokio::join!(api.store.version(), api.store.bytes(), api.queues.look(), api.books.balance());
    let consumers = balance.ok().and_then(|balance| balance.broker);
    let mut checks = vec![broker(&api), store(&api)];
    checks.extend(queues(look.as_deref()));
    checks.push(consumed("router", "routes events", consumers.map(|(.., routers)| routers)));
    checks.push(consumed("worker", "makes requests", consumers.map(|(_, workers, _)| workers)));
    Answer::ok(&System {
        version: env!("CARGO_PKG_VERSION"),
        started_at: shown(api.started_at),
        store: StoreVersion {
            kind: api.store.kind(),
            version: version.ok(),
            schema: api.store.schema(),
            bytes: bytes.ok(),
        },
        broker: api.broker_address.clone(),
        checks,
        settings: api.settings.clone(),
    })
}

fn broker(api: &Api) -> Check {
    let state = api.broker.state();
    let since = shown(state.since);
    match (state.connected, state.blocked) {
        (false, _) => Check::new("broker", false, format!("not connected since {since}")),
        (true, true) => Check::new("broker", false, "RabbitMQ takes no messages: it lacks memory or disk"),
        (true, false) => Check::new("broker", true, format!("connected since {since}")),
    }
}

fn store(api: &Api) -> Check {
    let writable = api.books.is_store_writable();
    let detail =
        if writable { "it can be written" } else { "it could not be written; the log of control says why" };
    Check::new("store", writable, detail)
}

/// Whether queues are there, and as they should be: quorum queues that lose nothing, with their limits and dead letters.
fn queues(look: Result<&Look, &String>) -> [Check; 2] {
    let look = match look {
        Ok(look) => look,
        Err(why) => return ["queues", "arguments"].map(|name| Check::new(name, None, why.clone())),
    };
    let count = look.looked.len();
    let missing =
        look.looked.iter().filter(|it| matches!(it.difference, Some(Difference::Missing(_)))).count();
    let other =
        look.looked.iter().filter(|it| matches!(it.difference, Some(Difference::Other { .. }))).count();
    let there = match missing {
        0 => Check::new("queues", true, format!("all {count} are there")),
        _ => Check::new(
            "queues",
            false,
            format!("{missing} of {count} are missing; postrider topology apply declares them"),
        ),
    };
    let compared =
        look.looked.iter().all(|it| it.compared || matches!(it.difference, Some(Difference::Missing(_))));
    let alike = match (other, compared) {
        (0, true) => {
            Check::new("arguments", true, "types, limits and dead letters are those that were declared")
        }
        (0, false) => Check::new(
            "arguments",
            None,
            "control's user may not compare them; as the operator: postrider topology diff",
        ),
        _ => Check::new(
            "arguments",
            false,
            format!("{other} of {count} differ; postrider topology diff says in what"),
        ),
    };
    [there, alike]
}

fn consumed(role: &'static str, does: &str, consumers: Option<u64>) -> Check {
    match consumers {
        None => Check::new(role, None, "RabbitMQ did not say"),
        Some(0) => Check::new(role, false, format!("no {role} {does}; start one: postrider serve {role}")),
        Some(1) => Check::new(role, true, format!("one {role} {does}")),
        Some(n) => Check::new(role, true, format!("{n} {role}s are there")),
    }
}

#[cfg(test)]
mod tests {
    use postrider_broker::topology::{Looked, Topology};

    use super::*;

    fn look(looked: Vec<Looked>) -> Look {
        let names = postrider_broker::Names::new("postrider", 1000);
        let at = postrider_core::Timestamp::from_millis(0);
        Look { topology: Topology::new(&names, 1), looked, shards: Some(1), at }
    }

    #[test]
    fn queues_are_judged_by_what_was_seen() {
        let fine = || Looked { depth: None, difference: None, compared: true };
        let ok = |look: &Look| queues(Ok(look)).map(|check| check.ok);
        assert_eq!(ok(&look(vec![fine(), fine()])), [Some(true), Some(true)]);
        let unseen = Looked { compared: false, ..fine() };
        assert_eq!(ok(&look(vec![fine(), unseen])), [Some(true), None]);
        let missing =
            || Looked { difference: Some(Difference::Missing("a".into())), compared: false, ..fine() };
        let [there, alike] = queues(Ok(&look(vec![fine(), missing()])));
        assert_eq!((there.ok, alike.ok), (Some(false), Some(true)), "what is missing is told once");
        assert!(there.detail.starts_with("1 of 2 are missing"), "{}", there.detail);
        let unknown = queues(Err(&"no answer".to_owned()));
        assert!(unknown.iter().all(|check| check.ok.is_none() && check.detail == "no answer"));
    }

    #[test]
    fn nobody_who_consumes_is_no_good() {
        assert_eq!(consumed("router", "routes events", None).ok, None);
        let none = consumed("worker", "makes requests", Some(0));
        assert_eq!(
            (none.ok, none.detail.as_str()),
            (Some(false), "no worker makes requests; start one: postrider serve worker")
        );
        assert_eq!(consumed("worker", "makes requests", Some(2)).ok, Some(true));
    }
}
