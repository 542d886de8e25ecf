//! A publisher that is not ours, a broker that is killed, a worker and a router that are killed, a worker that
//! panics: nothing is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};

use postrider_testkit::ledger::Published;
use postrider_testkit::process::python;
use postrider_testkit::rabbit::{Broker, Node, Vhost};
use postrider_testkit::{eventually, workspace_dir};
use serde_json::json;

use crate::system::System;

const EVENTS: usize = 1000;

#[tokio::test]
async fn pika_publishes_while_everything_is_killed_once() {
    let Some(python) = python() else { return };
    let Some(node) = Node::start().await else { return };
    let vhost = Vhost::create(node.broker(), "kills").await;
    let system = System::new(vhost.url()).await.with_ledger().await;
    let [control, router, worker] = system.start_all_roles().await;
    let (_, secret) = system.webhook("/hook", &json!({ "timeout_ms": 5000 })).await;
    system.configured(&router).await;
    node.settled().await;

    let ledger = system.published().path().to_owned();
    let mut publisher = Command::new(&python)
        .arg(workspace_dir().join("tests/python/publish.py"))
        .args([vhost.url(), EVENTS.to_string(), ledger.display().to_string()])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let arrived = async |count: usize| {
        let receiver = &system.receiver;
        eventually(&format!("{count} requests"), async || receiver.count() >= count).await;
    };
    arrived(150).await;
    node.kill().await;
    node.start_again().await;
    arrived(400).await;
    worker.process.kill();
    let worker = system.start("worker").ready().await;
    arrived(650).await;
    router.process.kill();
    let router = system.start("router").ready().await;
    let published = tokio::task::spawn_blocking(move || publisher.wait().unwrap()).await.unwrap();
    assert!(published.success(), "the publisher gave up: {published}");

    let confirmed: BTreeSet<String> = Published::read(&ledger).into_iter().map(|line| line.id).collect();
    assert_eq!(confirmed.len(), EVENTS);
    let books = system.balanced(EVENTS as u64).await;
    assert_eq!(books["events"]["accepted"], EVENTS as u64);

    let mut received: BTreeMap<String, usize> = BTreeMap::new();
    let requests = system.receiver.requests();
    for request in &requests {
        let id = request.json()["data"]["id"].as_str().unwrap().to_owned();
        *received.entry(id).or_default() += 1;
    }
    let delivered: BTreeSet<String> = received.keys().cloned().collect();
    assert_eq!(delivered, confirmed, "every confirmed event, and no other");
    let by_id: BTreeSet<&str> =
        requests.iter().map(|request| request.header("webhook-id").unwrap()).collect();
    assert_eq!(by_id.len(), EVENTS, "a repeated request has the id of the first");
    // Worker and router each met two faults, their own kill and the broker's; control met the broker's.
    let faults = ["worker=2", "router=2", "control=1"].map(|crashes| ["--crashes", crashes]).concat();
    let (code, report) = system.verify(&[&["--at-rest"], &faults[..]].concat()).await;
    assert_eq!(code, Some(0), "{report:#}");
    let duplicates = requests.len() - EVENTS;
    assert_eq!(report["duplicated"], duplicates, "every answer was 200: {report:#}");
    eprintln!(
        "{duplicates} duplicates (at most {}), {} requests that the log does not have, after killing the broker, a worker \
         and a router; lost 0 of {}",
        report["most_duplicated"], report["unlogged"], report["n"]
    );

    verify_with_standardwebhooks(&python, &secret, &requests);
    for role in [control, router, worker] {
        role.stop().await;
    }
}

/// Five deliveries, by a worker that panics the second time that it passes a crash point while it delivers: of as many
/// events to one webhook, one at a time, or of one event to as many webhooks, all in one message. Returns how many requests
/// each delivery had that had more than one.
async fn requests_beside_a_panic(point: &str, webhooks: u64) -> Vec<usize> {
    const DELIVERIES: u64 = 5;
    let vhost = Vhost::create(&Broker::shared().await, "panic").await;
    let system = System::new(vhost.url()).await;
    let [control, router] = ["control", "router"].map(|role| system.start(role));
    let roles = [control.ready().await, router.ready().await];
    let fault = format!("panic:{point}:2");
    let worker = system.start_with("worker", &[("POSTRIDER_FAULT", &fault)]).ready().await;
    for n in 0..webhooks {
        // A place that the panic kept would leave none for whatever comes after it.
        system.webhook(&format!("/hook{n}"), &json!({ "max_in_flight": 1 })).await;
    }
    for n in 0..DELIVERIES / webhooks {
        system.post("/v1/events", &json!({ "event_type": "A", "id": format!("e{n}") })).await;
    }

    system.balanced(DELIVERIES).await;
    let metrics = worker.metrics().await;
    for line in ["postrider_parked_total{reason=\"crashes\"} 1", "postrider_worker_in_flight 0"] {
        assert!(metrics.lines().any(|known| known == line), "{line} is missing:\n{metrics}");
    }
    let log = worker.process.log();
    let said = |line: &str| line.contains("delivering panicked") && line.contains("fault on purpose");
    assert!(log.lines().any(said), "{log}");
    let (ids, repeated) = system.requests_by_id();
    assert_eq!(ids, DELIVERIES);
    for role in roles.into_iter().chain([worker]) {
        role.stop().await;
    }
    repeated.into_values().map(|requests| requests.len()).collect()
}

#[tokio::test]
async fn a_panic_before_a_request_costs_nothing() {
    for webhooks in [1, 5] {
        let repeated = requests_beside_a_panic("worker.begun", webhooks).await;
        assert!(repeated.is_empty(), "{webhooks} webhooks: {repeated:?}");
    }
}

#[tokio::test]
async fn a_panic_after_a_request_repeats_that_one() {
    for webhooks in [1, 5] {
        assert_eq!(requests_beside_a_panic("worker.answered", webhooks).await, [2], "{webhooks} webhooks");
    }
}

/// Every request verifies with somebody else's code.
fn verify_with_standardwebhooks(
    python: &std::path::Path,
    secret: &str,
    requests: &[std::sync::Arc<postrider_testkit::Request>],
) {
    let mut verify = Command::new(python)
        .arg(workspace_dir().join("tests/python/verify.py"))
        .arg(secret)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = verify.stdin.take().unwrap();
    for request in requests {
        let headers: BTreeMap<String, &str> =
            request.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.as_str())).collect();
        let line = json!({ "headers": headers, "body": String::from_utf8(request.body.to_vec()).unwrap() });
        writeln!(input, "{line}").unwrap();
    }
    drop(input);
    let output = verify.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(output.status.success(), "{said}");
    assert_eq!(said, format!("{} verified", requests.len()));
}
