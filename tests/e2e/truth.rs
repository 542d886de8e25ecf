//! The attempt log against the wire, over a worker that is killed in the middle of requests and one that is frozen and
//! replaced.

use std::collections::BTreeMap;
use std::time::Duration;

use postrider_testkit::Answer;
use postrider_testkit::rabbit::{Broker, Vhost};
use serde_json::json;

use crate::system::System;

/// Of one delivery: requests on the wire, rows of the log, and how many requests the log says that it may lack.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    requests: u64,
    rows: u64,
    repeats: u64,
}

/// What the receiver saw of each delivery, and what the API says of it.
async fn compared(system: &System, path: &str) -> BTreeMap<String, Counts> {
    let mut all: BTreeMap<String, Counts> = BTreeMap::new();
    for request in system.receiver.requests_to(path) {
        all.entry(request.header("webhook-id").unwrap().to_owned()).or_default().requests += 1;
    }
    for (id, counts) in &mut all {
        let delivery = system.get(&format!("/v1/deliveries/{}", id.trim_start_matches("msg_"))).await;
        let series = &delivery["all_series"][0];
        let rows = series["attempts"].as_array().unwrap();
        counts.rows = rows.len() as u64;
        counts.repeats = rows.iter().map(|row| row["repeats"].as_u64().unwrap()).sum();
        assert_eq!(series["repeats"], counts.repeats, "the series says the same: {delivery:#}");
        let times: Vec<&str> = rows.iter().map(|row| row["at"].as_str().unwrap()).collect();
        assert!(times.is_sorted(), "in order of time: {times:?}");
    }
    all
}

fn assert_honest(all: &BTreeMap<String, Counts>) {
    for (id, counts) in all {
        let Counts { requests, rows, repeats } = *counts;
        assert!(rows <= requests && requests - rows <= repeats, "{id}: {counts:?}");
    }
}

async fn publish(system: &System, names: impl Iterator<Item = String>) {
    let event = |id: String| json!({ "id": id, "event_type": "T", "data": {} });
    let events: Vec<_> = names.map(event).collect();
    system.post("/v1/events", &json!(events)).await;
}

#[tokio::test]
async fn the_log_is_the_wire_without_faults_and_says_what_it_may_lack_after_a_kill_and_a_freeze() {
    let vhost = Vhost::create(&Broker::shared().await, "log-and-wire").await;
    let system = System::new(vhost.url()).await;
    let [control, router, worker] = system.start_all_roles().await;
    system.webhook("/hook", &json!({ "max_in_flight": 100, "timeout_ms": 6_000 })).await;
    let fails_once = |request: &postrider_testkit::Request| {
        let first = request.header("webhook-attempt") == Some("1");
        Answer::Status(if first && request.seq.is_multiple_of(3) { 500 } else { 200 })
    };
    system.receiver.answer_by("/hook", fails_once);
    publish(&system, (0..40).map(|n| format!("calm-{n}"))).await;
    system.balanced(40).await;
    let calm = compared(&system, "/hook").await;
    assert_eq!(calm.len(), 40);
    for (id, counts) in &calm {
        assert_eq!((counts.rows, counts.repeats), (counts.requests, 0), "{id}");
    }

    // Killed while 30 requests wait for their answers, all of which the receiver has.
    system.receiver.answer_by("/hook", |_| Answer::Status(200).after(Duration::from_secs(3)));
    let before = system.receiver.count();
    publish(&system, (0..30).map(|n| format!("killed-{n}"))).await;
    system.receiver.wait_for(before + 30).await;
    worker.process.kill();
    // Short heartbeats, so that the broker soon finds out that this one is frozen.
    let heartbeats = format!("{}?heartbeat=2", vhost.url());
    let frozen = system.start_with("worker", &[("POSTRIDER_AMQP_URL", &heartbeats)]).ready().await;
    system.receiver.wait_for(before + 60).await;
    system.balanced(70).await;
    let killed = compared(&system, "/hook").await;
    assert_honest(&killed);
    let lacking: u64 = killed.values().map(|counts| counts.requests - counts.rows).sum();
    assert_eq!(lacking, 30, "what the killed worker had begun, and nobody could write down");

    // Frozen in the middle of requests, replaced, and thawed when others have done its work.
    let before = system.receiver.count();
    publish(&system, (0..30).map(|n| format!("frozen-{n}"))).await;
    system.receiver.wait_for(before + 30).await;
    frozen.process.freeze();
    let next = system.start("worker").ready().await;
    system.receiver.wait_for(before + 60).await;
    frozen.process.thaw();
    system.balanced(100).await;
    let all = compared(&system, "/hook").await;
    assert_eq!(all.len(), 100);
    assert_honest(&all);
    let (requests, rows) =
        all.values().fold((0, 0), |sum, counts| (sum.0 + counts.requests, sum.1 + counts.rows));
    eprintln!("{requests} requests, {rows} rows, after a kill and a freeze with 30 requests under way each");
    for role in [control, router, frozen, next] {
        role.stop().await;
    }
}

/// Lets a process have at most so many files open from now on; `false` where there is no `prlimit`.
fn limit_files(pid: u32, most: usize) -> bool {
    let limit = format!("--nofile={most}:4096");
    std::process::Command::new("prlimit")
        .args(["--pid", &pid.to_string(), &limit])
        .status()
        .is_ok_and(|status| status.success())
}

#[tokio::test]
async fn a_worker_without_file_descriptors_charges_no_webhook_for_it() {
    let vhost = Vhost::create(&Broker::shared().await, "no-descriptors").await;
    let system = System::new(vhost.url()).await;
    let [control, router, worker] = system.start_all_roles().await;
    let (by_address, _) = system.webhook("/address", &json!({})).await;
    let port = system.receiver.address().port();
    // A name, so that the resolver needs descriptors too.
    let named = json!({ "url": format!("http://localhost:{port}/name") });
    let (by_name, _) = system.webhook("/name", &named).await;
    let pid = worker.process.pid();
    // It has more than these already, and keeps them.
    if !limit_files(pid, 8) {
        return postrider_testkit::not_run("there is no prlimit");
    }
    publish(&system, (0..5).map(|n| format!("e{n}"))).await;
    postrider_testkit::eventually("all ten are parked", async || {
        let mut parked = 0;
        for rung in [1, 5, 30] {
            parked += vhost.queue_depth(&format!("postrider.park.{rung}")).await;
        }
        parked == 10
    })
    .await;
    assert_eq!(system.receiver.count(), 0);
    assert!(limit_files(pid, 1024));
    system.balanced(10).await;
    let metrics = worker.metrics().await;
    assert!(metrics.contains("postrider_parked_total{reason=\"local\"}"), "{metrics}");
    for webhook in [by_address, by_name] {
        let listed = system.get(&format!("/v1/deliveries?webhook={webhook}")).await;
        for delivery in listed["items"].as_array().unwrap() {
            assert_eq!(
                (&delivery["state"], &delivery["attempts"]),
                (&json!("delivered"), &json!(1)),
                "{delivery:#}"
            );
        }
    }
    assert_eq!(system.receiver.count(), 10, "no attempt was spent");
    for role in [control, router, worker] {
        role.stop().await;
    }
}
