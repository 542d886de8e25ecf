//! Stopping: SIGTERM at any moment loses nothing, repeats nothing, and ends within its limit.

use std::time::{Duration, Instant};

use postrider_testkit::load::{Load, Loading};
use postrider_testkit::rabbit::{Broker, Node, Vhost};
use postrider_testkit::{Answer, eventually};
use serde_json::json;

use crate::system::{Role, System};

/// How long a role may take to stop under load: what is in flight, and to close.
const LIMIT: Duration = Duration::from_secs(30);

/// A system under a load, whose receiver takes a moment for each request.
async fn under_load(name: &str, events: u64) -> (System, Loading, Vhost) {
    let vhost = Vhost::create(&Broker::shared().await, name).await;
    let system = System::new(vhost.url()).await;
    system.receiver.answer("/hook", [Answer::Status(200).after(Duration::from_millis(20))]);
    let control = system.start("control").ready().await;
    system.webhook("/hook", &json!({ "timeout_ms": 5000, "max_in_flight": 100 })).await;
    control.stop().await;
    let load = Load::new(vhost.url(), events).per_second(150.0).start();
    (system, load, vhost)
}

/// Ends it as compose does, and says how long that took.
async fn terminate(role: &Role) -> Duration {
    let begun = Instant::now();
    role.process.terminate();
    let status = role.process.wait_exit(LIMIT).await;
    assert!(status.success(), "{status}: {}", role.process.log());
    eprintln!("stopped in good order; its log:\n{}", role.process.log());
    begun.elapsed()
}

/// Every event arrived, and none twice; the books say the same.
async fn once_each(system: &System, load: Loading, events: u64) {
    assert_eq!(load.finish().await, events);
    let books = system.balanced(events).await;
    assert_eq!(books["events"]["accepted"], events, "{books:#}");
    let (ids, repeated) = system.requests_by_id();
    assert_eq!(ids, events, "each one arrived");
    assert!(repeated.is_empty(), "each one once: {repeated:#?}");
}

/// Stops a role twice under load and starts it again.
async fn stopped_under_load(role: &'static str) {
    const EVENTS: u64 = 600;
    let (system, load, _vhost) = under_load(&format!("drain-{role}"), EVENTS).await;
    let mut others = Vec::new();
    for other in ["control", "router", "worker"] {
        if role != "all" && role != other {
            others.push(system.start(other).ready().await);
        }
    }
    let mut running = system.start(role).ready().await;
    let mut longest = Duration::ZERO;
    for round in 1..=2 {
        load.reached(round * EVENTS / 3).await;
        longest = longest.max(terminate(&running).await);
        running = system.start(role).ready().await;
    }
    once_each(&system, load, EVENTS).await;
    eprintln!("{role}: stopped twice under load, at most {:.1} s", longest.as_secs_f64());
    running.stop().await;
    for other in others {
        other.stop().await;
    }
}

#[tokio::test]
async fn a_worker_stopped_under_load_loses_nothing_and_repeats_nothing() {
    stopped_under_load("worker").await;
}

#[tokio::test]
async fn a_router_stopped_under_load_loses_nothing_and_repeats_nothing() {
    stopped_under_load("router").await;
}

#[tokio::test]
async fn control_stopped_under_load_loses_nothing_and_repeats_nothing() {
    stopped_under_load("control").await;
}

#[tokio::test]
async fn all_roles_in_one_process_stopped_under_load_lose_nothing_and_repeat_nothing() {
    stopped_under_load("all").await;
}

/// A rolling upgrade: every role is replaced, several times over, the new one before the old one goes where that can be.
#[tokio::test]
async fn rolling_restarts_under_load_lose_nothing_and_repeat_nothing() {
    const EVENTS: u64 = 1500;
    const ROUNDS: u64 = 3;
    let (system, load, _vhost) = under_load("rolling", EVENTS).await;
    let [mut control, mut router, mut worker] = system.start_all_roles().await;
    for round in 1..=ROUNDS {
        load.reached(round * EVENTS / (ROUNDS + 1)).await;
        let next = system.start("router").ready().await;
        terminate(&std::mem::replace(&mut router, next)).await;
        let next = system.start("worker").ready().await;
        terminate(&std::mem::replace(&mut worker, next)).await;
        // Two controls cannot have one store.
        terminate(&control).await;
        control = system.start("control").ready().await;
    }
    once_each(&system, load, EVENTS).await;
    for role in [control, router, worker] {
        role.stop().await;
    }
}

#[tokio::test]
async fn a_second_signal_ends_at_once_and_loses_nothing() {
    const EVENTS: u64 = 30;
    let vhost = Vhost::create(&Broker::shared().await, "second-signal").await;
    let system = System::new(vhost.url()).await;
    let [control, router, worker] = system.start_all_roles().await;
    system.webhook("/slow", &json!({ "timeout_ms": 20000, "max_in_flight": 100 })).await;
    system.receiver.answer("/slow", [Answer::Status(200).after(Duration::from_secs(15))]);
    for n in 0..EVENTS {
        system.post("/v1/events", &json!({ "event_type": "A", "id": format!("e{n}") })).await;
    }
    system.receiver.wait_for(EVENTS as usize / 2).await;
    worker.process.terminate();
    eventually("it begins to stop", async || worker.process.log().contains("a second signal ends at once"))
        .await;
    let begun = Instant::now();
    worker.process.terminate();
    let status = worker.process.wait_exit(Duration::from_secs(10)).await;
    assert_eq!(status.code(), Some(130), "{}", worker.process.log());
    assert!(begun.elapsed() < Duration::from_secs(10));
    system.receiver.answer("/slow", [Answer::Status(200)]);
    let worker = system.start("worker").ready().await;
    system.balanced(EVENTS).await;
    for role in [control, router, worker] {
        role.stop().await;
    }
}

/// Roles that have nothing to finish end soon: without a configuration, and without a broker.
#[tokio::test]
async fn a_role_that_waits_ends_soon() {
    let Some(node) = Node::start().await else { return };
    let vhost = Vhost::create(node.broker(), "waiting-drain").await;
    let system = System::new(vhost.url()).await;
    // No control has ever run: the stream has no snapshot.
    for role in ["router", "worker"] {
        let role = system.start(role);
        eventually("it waits for the configuration", async || {
            role.process.log().contains("start control once")
        })
        .await;
        terminate(&role).await;
    }
    let roles = system.start_all_roles().await;
    node.kill().await;
    for role in &roles {
        eventually("it has lost the broker", async || role.process.log().contains("cannot be reached")).await;
        let took = terminate(role).await;
        assert!(took < LIMIT, "{took:?}");
    }
    // And one that has never seen a broker.
    for role in ["router", "worker", "control"] {
        let role = system.start(role);
        eventually("it looks for the broker", async || role.process.log().contains("cannot be reached"))
            .await;
        terminate(&role).await;
    }
    node.leave().await;
}

/// RabbitMQ takes no messages: what is begun cannot be settled, and the roles end all the same.
#[tokio::test]
async fn roles_that_the_broker_blocks_end_within_their_drain_and_lose_nothing() {
    /// More than it can publish before the broker takes no more.
    const EVENTS: u64 = 100_000;
    let Some(node) = Node::start().await else { return };
    let vhost = Vhost::create(node.broker(), "blocked-drain").await;
    let system = System::new(vhost.url()).await;
    let short = [("POSTRIDER_DRAIN_SECONDS", "3")];
    let start = |role| system.start_with(role, &short);
    let roles = [start("control"), start("router"), start("worker")];
    let mut ready = Vec::new();
    for role in roles {
        ready.push(role.ready().await);
    }
    system.webhook("/hook", &json!({ "timeout_ms": 1000, "max_in_flight": 100 })).await;
    system.configured(&ready[1]).await;
    let late = || Answer::After(Duration::from_millis(300), Box::new(Answer::Status(200)));
    system.receiver.answer_by("/hook", move |_| late());
    let load = Load::new(vhost.url(), EVENTS).per_second(50.0).start();
    load.reached(50).await;
    if !node.block(true).await {
        return;
    }
    // A connection is told when it publishes next; the worker has answers to write down.
    let worker = &ready[2];
    eventually("the worker is blocked", async || {
        worker.metrics().await.contains("postrider_broker_blocked{role=\"worker\"} 1")
    })
    .await;
    for role in &ready {
        terminate(role).await;
    }
    node.block(false).await;
    let ready = system.start_all_roles().await;
    let events = load.stop().await;
    let books = system.balanced(events).await;
    assert_eq!(books["events"]["accepted"], events, "{books:#}");
    let repeated = system.receiver.count() as u64 - events;
    eprintln!("{repeated} of {events} repeated after stopping roles that the broker blocked");
    // What was begun and could not be settled: the router's 100 events, the worker's requests of that moment.
    assert!(repeated <= 100 + 256, "{repeated}");
    for role in ready {
        role.stop().await;
    }
}
