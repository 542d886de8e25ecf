//! The system: what control was started with, what it stands on, and whether that is as it should be.

use askama::Template;
use axum::Router;
use axum::response::Response;
use axum::routing::get;
use serde::Deserialize;

use crate::Console;
use crate::page::{Answer, Part, Shell, Visit, page};
use crate::words::{Html, bytes, state, when};

/// The page.
pub(super) fn routes() -> Router<Console> {
    Router::new().route("/settings/system", get(show))
}

#[derive(Debug, Deserialize)]
struct System {
    version: String,
    started_at: String,
    store: Store,
    broker: String,
    checks: Vec<Check>,
    settings: Vec<Setting>,
}

#[derive(Debug, Deserialize)]
struct Store {
    kind: String,
    version: Option<String>,
    schema: i64,
    bytes: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Check {
    name: String,
    ok: Option<bool>,
    detail: String,
}

impl Check {
    /// What was looked at, in words.
    fn told(&self) -> &str {
        match self.name.as_str() {
            "broker" => "RabbitMQ",
            "store" => "Store",
            "queues" => "Queues",
            "arguments" => "How queues were declared",
            "router" => "Router",
            "worker" => "Workers",
            other => other,
        }
    }

    fn mark(&self) -> Html {
        match self.ok {
            Some(true) => state("ok", "Fine"),
            Some(false) => state("bad", "Not as it should be"),
            None => state("still", "Not known"),
        }
    }
}

#[derive(Debug, Deserialize)]
struct Setting {
    name: String,
    value: Option<String>,
    source: String,
    env: String,
    help: String,
}

impl Setting {
    fn is_set(&self) -> bool {
        self.source != "default"
    }
}

#[derive(Template)]
#[template(path = "system.html")]
struct SystemPage {
    shell: Shell,
    started: Html,
    size: Option<String>,
    system: System,
}

async fn show(visit: Visit) -> Response {
    let made = shown(&visit).await;
    visit.or_refused(Part::Settings, made)
}

async fn shown(visit: &Visit) -> Answer {
    let system: System = visit.api.get("/v1/system", &[]).await?;
    let mut shell = visit.shell(Part::Settings, "System");
    shell.command = "postrider system".to_owned();
    page(&SystemPage {
        shell,
        started: when(&system.started_at, visit.now),
        size: system.store.bytes.map(bytes),
        system,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_knows_is_neither_fine_nor_wrong() {
        let check = |ok| Check { name: "queues".into(), ok, detail: String::new() };
        assert!(check(Some(true)).mark().0.contains("ok") && check(Some(false)).mark().0.contains("bad"));
        assert!(check(None).mark().0.contains("Not known"));
        assert_eq!(check(None).told(), "Queues");
        assert_eq!(Check { name: "newer".into(), ..check(None) }.told(), "newer", "of a newer API");
    }
}
