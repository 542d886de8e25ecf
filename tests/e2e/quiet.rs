//! Nothing goes quiet: a role that stands still is ended by its watchdog with a code of its own, and no other is.

use std::collections::BTreeSet;
use std::time::Duration;

use postrider_testkit::rabbit::{Broker, Vhost};
use postrider_testkit::{Answer, eventually};
use serde_json::json;

use crate::system::{Role, System};

/// The exit code of a role that stood still.
const STALLED: i32 = 9;

/// The events that a stand-still is to meet.
const EVENTS: u64 = 12;

/// Runs a system of which one role stands still once it has work, and returns that role's log. Another one in its place
/// does what it left.
async fn stands_still(name: &str, role: &str, fault: &str) -> String {
    let vhost = Vhost::create(&Broker::shared().await, name).await;
    let system = System::new(vhost.url()).await;
    let faulty = [("POSTRIDER_FAULT", fault), ("POSTRIDER_STALL_SECONDS", "3")];
    let start = |one: &str| match one == role {
        true => system.start_with(one, &faulty),
        false => system.start_with(one, &[("POSTRIDER_STALL_SECONDS", "3")]),
    };
    // Control is ready, also the one that will stand still: so far nothing happened that it could write down.
    let mut control = start("control").ready().await;
    let mut router = start("router").ready().await;
    let mut worker = start("worker").ready().await;
    system.webhook("/hook", &json!({ "timeout_ms": 1000 })).await;
    for n in 0..EVENTS {
        system.post("/v1/events", &json!({ "event_type": "A", "id": format!("e{n}") })).await;
    }
    let failed: &mut Role = match role {
        "control" => &mut control,
        "router" => &mut router,
        _ => &mut worker,
    };
    let status = failed.process.wait_exit(Duration::from_secs(60)).await;
    let log = failed.process.log();
    assert_eq!(status.code(), Some(STALLED), "{log}");
    *failed = system.start(role).ready().await;
    let books = system.balanced(EVENTS).await;
    assert_eq!(books["events"]["accepted"], EVENTS);
    for role in [control, router, worker] {
        role.stop().await;
    }
    log
}

#[tokio::test]
async fn a_worker_that_stands_still_is_ended_and_the_next_does_its_work() {
    let log = stands_still("stall-worker", "worker", "stall-acks:3").await;
    assert!(log.contains("a role stands still and is ended") && log.contains("role=\"worker\""), "{log}");
    assert!(log.contains("it says that it is ready, holds "), "the log says why: {log}");
}

#[tokio::test]
async fn a_router_that_stands_still_is_ended_and_the_next_does_its_work() {
    let log = stands_still("stall-router", "router", "stall-acks:1").await;
    assert!(log.contains("role=\"router\""), "{log}");
}

#[tokio::test]
async fn a_control_that_stands_still_is_ended_and_the_next_does_its_work() {
    let log = stands_still("stall-control", "control", "stall-acks:2").await;
    assert!(log.contains("role=\"control\""), "{log}");
}

#[tokio::test]
async fn a_frozen_runtime_is_ended_by_a_thread_that_does_not_need_it() {
    let log = stands_still("stall-frozen", "worker", "freeze-runtime:2").await;
    assert!(log.contains("no timer has fired for "), "{log}");
}

/// With a limit far below what receivers take, neither idling nor waiting for receivers is standing still.
#[tokio::test]
async fn idle_roles_and_hanging_receivers_are_left_alone() {
    let vhost = Vhost::create(&Broker::shared().await, "no-stall").await;
    let system = System::new(vhost.url()).await;
    let strict = [("POSTRIDER_STALL_SECONDS", "3"), ("POSTRIDER_CONCURRENCY", "16")];
    let control = system.start_with("control", &strict).ready().await;
    let router = system.start_with("router", &strict).ready().await;
    let standby = system.start_with("router", &strict).ready().await;
    let worker = system.start_with("worker", &strict).ready().await;
    // Idle, for longer than the limit.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let once = json!({ "timeout_ms": 5000, "retry": { "max_attempts": 1 } });
    system.webhook("/hangs", &once).await;
    system.receiver.answer("/hangs", [Answer::Hang]);
    // Not so many that the breaker opens.
    for n in 0..9 {
        system.post("/v1/events", &json!({ "event_type": "A", "id": format!("e{n}") })).await;
    }
    eventually("every delivery is given up", async || {
        let status = system.status().await;
        status["deliveries"]["dead"] == 9 && status["deliveries"]["pending"] == 0
    })
    .await;
    for role in [control, router, standby, worker] {
        assert!(role.process.exited().is_none(), "{}", role.process.log());
        role.stop().await;
    }
}

/// Somebody who is woken by an alert finds what to do, and nothing about alerts that are gone.
#[test]
fn every_alert_is_explained() {
    let of = |file: &str| {
        std::fs::read_to_string(postrider_testkit::workspace_dir().join("deploy").join(file)).unwrap()
    };
    let (alerts, explained) = (of("prometheus/alerts.yml"), of("README.md"));
    let named: BTreeSet<&str> =
        alerts.lines().filter_map(|line| line.trim_start().strip_prefix("- alert: ")).collect();
    let rows = explained.lines().filter(|line| line.starts_with("| `Postrider"));
    let told: BTreeSet<&str> = rows
        .flat_map(|row| row.split('|').nth(1).unwrap().split('`'))
        .filter(|word| word.starts_with("Postrider"))
        .collect();
    assert!(named.len() >= 20, "{named:?}");
    assert_eq!(told, named);
}

/// Every metric that an alert names is there from the start, in a process with all roles.
#[tokio::test]
async fn every_metric_of_the_alerts_exists() {
    let vhost = Vhost::create(&Broker::shared().await, "alerts").await;
    let system = System::new(vhost.url()).await;
    let all = system.start("all").ready().await;
    let shown = all.metrics().await;
    let exists = |name: &str| {
        shown.lines().any(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])) && !line.starts_with('#')
        })
    };
    let alerts = postrider_testkit::workspace_dir().join("deploy/prometheus/alerts.yml");
    let alerts = std::fs::read_to_string(alerts).unwrap();
    let mut named = BTreeSet::new();
    for line in alerts.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let words = line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        named.extend(words.filter(|word| word.starts_with("postrider_")).map(str::to_owned));
    }
    assert!(named.len() >= 15, "{named:?}");
    let missing: Vec<&String> = named.iter().filter(|name| !exists(name)).collect();
    assert!(missing.is_empty(), "alerts name metrics that nobody has: {missing:?}");
    // And it says that it can work: every role receives from its queues.
    for (role, least) in [("router", 1), ("worker", 3), ("control", 4)] {
        let line =
            shown.lines().find(|line| line.starts_with(&format!("postrider_consumers{{role=\"{role}\"")));
        let consumers: i64 = line.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
        assert!(consumers >= least, "{role}: {consumers}");
    }
    all.stop().await;
}
