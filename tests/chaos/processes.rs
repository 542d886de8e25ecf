//! Roles that are killed, frozen, starved and told to go.

use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use postrider_core::verify::Faults;
use postrider_testkit::within;
use serde_json::json;
use tokio::time::sleep;

use crate::machine::{self, MemoryLimit};
use crate::report;
use crate::rig::Rig;

const HEARTBEAT: &str = "5";

#[tokio::test]
async fn f01_workers_are_killed() {
    killed_thrice("F-1", "worker", "a worker killed 3 times", Faults { workers: 3, ..Faults::NONE }).await;
}

#[tokio::test]
async fn f01_control_is_killed() {
    killed_thrice("F-1c", "control", "control killed 3 times", Faults { controls: 3, ..Faults::NONE }).await;
}

async fn killed_thrice(id: &str, role: &str, fault: &str, faults: Faults) {
    let mut rig = Rig::shared(id, fault).await;
    rig.start_all().await;
    rig.webhook("/hook", json!({})).await;
    rig.publish(900, 150.0);
    for _ in 0..3 {
        rig.more_requests(80).await;
        rig.kill(role).await;
        rig.start(role);
        rig.recovers().await;
        rig.ready(role).await;
    }
    rig.finish(faults).await;
}

#[tokio::test]
async fn f02_the_router_is_killed_while_it_fans_out() {
    let mut rig = Rig::shared("F-2", "the router killed 3 times while each event goes to 8 webhooks").await;
    rig.start_all().await;
    for number in 0..8 {
        rig.webhook(&format!("/hook{number}"), json!({})).await;
    }
    rig.publish(200, 30.0);
    for _ in 0..3 {
        rig.more_requests(150).await;
        rig.kill("router").await;
        rig.start("router");
        rig.recovers().await;
        rig.ready("router").await;
    }
    rig.finish(Faults { routers: 3, ..Faults::NONE }).await;
}

#[tokio::test]
#[ignore = "takes minutes; part of make chaos"]
async fn f01_workers_are_killed_fifty_times() {
    let mut rig = Rig::shared("F-1x", "one of two workers killed 50 times").await;
    rig.start_all().await;
    rig.start("worker2");
    rig.all_ready().await;
    rig.webhook("/hook", json!({})).await;
    rig.webhook("/slow", json!({})).await;
    slow_answers(&rig, "/slow", Duration::from_millis(150));
    rig.publish(12_000, 120.0);
    for round in 0..50 {
        rig.more_requests(100).await;
        let name = if round % 2 == 0 { "worker" } else { "worker2" };
        rig.kill(name).await;
        rig.recovers().await;
        rig.start(name);
        rig.ready(name).await;
    }
    rig.finish(Faults { workers: 50, ..Faults::NONE }).await;
}

fn slow_answers(rig: &Rig, path: &str, pause: Duration) {
    rig.receiver.answer(path, [postrider_testkit::Answer::Status(200).after(pause)]);
}

#[tokio::test]
#[ignore = "takes minutes; part of make chaos"]
async fn f06_a_worker_is_frozen_beyond_its_heartbeat() {
    frozen("F-6", "worker", "a worker stopped for 40 s (heartbeat 5 s), another one goes on").await;
}

#[tokio::test]
#[ignore = "takes minutes; part of make chaos"]
async fn f06_the_router_is_frozen_beyond_its_heartbeat() {
    frozen("F-6r", "router", "the active router stopped for 40 s (heartbeat 5 s), another one takes over")
        .await;
}

#[tokio::test]
#[ignore = "takes minutes; part of make chaos"]
async fn f06_control_is_frozen_beyond_its_heartbeat() {
    frozen("F-6c", "control", "control stopped for 40 s (heartbeat 5 s)").await;
}

async fn frozen(id: &str, role: &str, fault: &str) {
    let mut rig = Rig::shared(id, fault).await;
    rig.heartbeat(HEARTBEAT);
    rig.start_all().await;
    if role != "control" {
        rig.start(&format!("{role}2"));
        rig.all_ready().await;
    }
    rig.webhook("/hook", json!({})).await;
    rig.publish(1_500, 20.0);
    rig.more_requests(50).await;
    // Of two routers the first one is active: it was there first.
    rig.role(role).process.freeze();
    let stopped = SystemTime::now();
    // The broker takes back what it held when heartbeats have been missing.
    let elsewhere = rig.recovers_since(stopped + Duration::from_secs(1)).await;
    rig.remark(format!("the others went on after {:.1} s", elsewhere.as_secs_f64() + 1.0));
    let left = Duration::from_secs(40).saturating_sub(stopped.elapsed().unwrap_or_default());
    sleep(left).await;
    rig.role(role).process.thaw();
    rig.recovers().await;
    rig.all_ready().await;
    let faults = match role {
        "worker" => Faults { workers: 1, ..Faults::NONE },
        "router" => Faults { routers: 1, ..Faults::NONE },
        _ => Faults { controls: 1, ..Faults::NONE },
    };
    rig.finish(faults).await;
}

#[tokio::test]
async fn f04_a_worker_is_told_to_go_under_load() {
    let mut rig = Rig::shared("F-4", "a worker and the router told to stop (SIGTERM) under load").await;
    rig.start_all().await;
    rig.webhook("/hook", json!({})).await;
    rig.publish(600, 150.0);
    rig.more_requests(80).await;
    let worker = rig.stop("worker").await;
    rig.start("worker");
    rig.recovers().await;
    rig.more_requests(80).await;
    let router = rig.stop("router").await;
    rig.start("router");
    rig.recovers().await;
    rig.remark(format!(
        "the worker took {:.1} s to go, the router {:.1} s, both with exit code 0",
        worker.as_secs_f64(),
        router.as_secs_f64()
    ));
    // An orderly stop is no fault: no duplicates.
    rig.finish(Faults::NONE).await;
}

#[tokio::test]
#[ignore = "part of make chaos"]
async fn f05_a_second_signal_ends_at_once() {
    let mut rig = Rig::shared("F-5", "SIGTERM twice while requests hang").await;
    rig.start_all().await;
    rig.webhook("/hook", json!({})).await;
    slow_answers(&rig, "/hook", Duration::from_millis(1_500));
    rig.publish(300, 100.0);
    rig.more_requests(50).await;
    let process = &rig.role("worker").process;
    process.terminate();
    sleep(Duration::from_millis(200)).await;
    process.terminate();
    let status = process.wait_exit(Duration::from_secs(2)).await;
    assert!(!status.success(), "{status}");
    rig.kill("worker").await;
    rig.start("worker");
    rig.recovers().await;
    rig.finish(Faults { workers: 1, ..Faults::NONE }).await;
}

#[tokio::test]
#[ignore = "needs root; part of make chaos"]
async fn f07_a_worker_lives_within_its_memory() {
    let (id, fault) =
        ("F-7", "worker and router each limited to 128 MiB, a backlog of 20,000 events of 2 KiB");
    if let Some(lacking) = machine::lacks(&["root", "/sys/fs/cgroup/memory/cgroup.procs"]) {
        return report::not_run(id, fault, &lacking);
    }
    let mut rig = Rig::shared(id, fault).await;
    rig.text_bytes = 2_000;
    rig.start("control");
    rig.ready("control").await;
    rig.webhook("/hook", json!({ "max_in_flight": 200 })).await;
    // Not paced: as quickly as the broker takes them.
    rig.publish(20_000, f64::INFINITY);
    let published = within(Duration::from_secs(120), async || (rig.confirmed() == 20_000).then_some(()));
    assert!(published.await.is_some(), "{} published", rig.confirmed());
    let limits =
        [("router", MemoryLimit::create("router", 128)), ("worker", MemoryLimit::create("worker", 128))];
    for (role, limit) in &limits {
        rig.start(role);
        limit.take(rig.role(role).process.pid());
    }
    rig.recovers().await;
    rig.at_rest().await;
    for (role, limit) in &limits {
        let (most, met) = limit.used();
        rig.remark(format!("{role}: {most} MiB at most, the limit was met {met} times"));
        assert!(rig.role(role).process.exited().is_none(), "the {role} was killed at its limit");
    }
    rig.finish(Faults::NONE).await;
}

#[tokio::test]
#[ignore = "part of make chaos"]
async fn f09_a_worker_runs_out_of_descriptors() {
    let (id, fault) = ("F-9", "a worker with 80 file descriptors and 200 slow requests to make at once");
    if let Some(lacking) = machine::lacks(&["prlimit"]) {
        return report::not_run(id, fault, &lacking);
    }
    let mut rig = Rig::shared(id, fault).await;
    rig.start("control");
    rig.start("router");
    rig.start_with("worker", |start| start.through(["prlimit", "--nofile=80"]));
    rig.all_ready().await;
    let (webhook, _) = rig.webhook("/hook", json!({ "max_in_flight": 200 })).await;
    slow_answers(&rig, "/hook", Duration::from_secs(1));
    rig.publish(400, 400.0);
    rig.more_requests(20).await;
    rig.at_rest().await;
    let failed = rig.receiver.count();
    rig.remark(format!("{failed} requests for 400 deliveries"));
    let (_, shown) = rig.call(reqwest::Method::GET, &format!("/v1/webhooks/{webhook}"), None).await;
    assert_eq!(shown["state"], "active", "our own want is not the receiver's fault: {shown:#}");
    rig.finish(Faults::NONE).await;
}

#[tokio::test]
#[ignore = "takes minutes; part of make chaos"]
async fn f10_the_processor_is_busy_with_others() {
    let mut rig = Rig::shared("F-10", "8 endless loops beside for 40 s (heartbeat 5 s)").await;
    rig.heartbeat(HEARTBEAT);
    rig.start_all().await;
    rig.webhook("/hook", json!({})).await;
    rig.publish(2_000, 50.0);
    rig.more_requests(50).await;
    let before: usize = rig.lines.values().map(postrider_testkit::chaos::Proxy::accepted).sum();
    let mut loops: Vec<_> = (0..8)
        .map(|_| Command::new("sh").args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn().unwrap())
        .collect();
    sleep(Duration::from_secs(40)).await;
    for busy in &mut loops {
        busy.kill().unwrap();
        busy.wait().unwrap();
    }
    rig.recovers().await;
    let after: usize = rig.lines.values().map(postrider_testkit::chaos::Proxy::accepted).sum();
    rig.remark(format!("{} new connections to the broker meanwhile", after - before));
    assert_eq!(after, before, "a busy processor loses no connection");
    rig.finish(Faults::NONE).await;
}

#[tokio::test]
async fn f13_nobody_reads_the_log() {
    let mut rig =
        Rig::shared("F-13", "standard error of all roles is a pipe that nobody reads, log level debug").await;
    // Held open to the end, and never read.
    let mut pipes = Vec::new();
    rig.env("POSTRIDER_LOG", "debug");
    for name in ["control", "router", "worker"] {
        let (reader, writer) = std::io::pipe().unwrap();
        pipes.push(reader);
        rig.start_with(name, |start| start.output(writer));
    }
    rig.all_ready().await;
    rig.webhook("/hook", json!({})).await;
    rig.publish(600, 200.0);
    rig.finish(Faults::NONE).await;
}
