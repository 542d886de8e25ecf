//! `postrider bench`: it measures everything that it promises, and leaves nothing behind.

use std::process::Stdio;
use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use postrider_testkit::eventually;
use postrider_testkit::process::{Postrider, binary};
use postrider_testkit::rabbit::{Broker, Vhost};
use serde_json::{Value, json};

/// Every target.
const TARGETS: [&str; 14] = [
    "one-to-one-ratio",
    "arrays-ratio",
    "one-to-ten-ratio",
    "latency-p50",
    "latency-p99",
    "retries-early",
    "retries-late",
    "journal-lag",
    "recorder-alone",
    "recorder-apart",
    "worker-memory",
    "router-memory",
    "cost-of-webhooks",
    "cost-of-a-backlog",
];
/// Those that are measured only where it is asked for.
const GROWN: [&str; 2] = ["cost-of-webhooks", "cost-of-a-backlog"];

/// How long the smallest bench may take on a machine that does other things, too.
const LIMIT: Duration = Duration::from_secs(180);

/// The names of the vhost's queues.
async fn queues(vhost: &Vhost) -> Vec<String> {
    vhost.queues().await.into_iter().map(|queue| queue.name).collect()
}

#[tokio::test]
async fn it_measures_every_target_beside_an_installation_that_it_leaves_alone() {
    let vhost = Vhost::create(&Broker::shared().await, "bench").await;
    let channel = vhost.connect().await.create_channel().await.unwrap();
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare("postrider.events".into(), durable, FieldTable::default()).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (chart, files) = (dir.path().join("chart.svg"), dir.path().join("files"));
    std::fs::create_dir(&files).unwrap();

    let mut command = tokio::process::Command::new(binary());
    command.args(["bench", "--tiny", "--json"]).arg("--svg").arg(&chart).arg("--dir").arg(&files);
    command.env_clear().env("POSTRIDER_AMQP_URL", vhost.url()).env("POSTRIDER_DELAY_UNIT_MS", "50");
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, command.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");

    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let targets = report["targets"].as_array().unwrap();
    let names: Vec<&str> = targets.iter().map(|target| target["name"].as_str().unwrap()).collect();
    assert_eq!(names, TARGETS);
    for target in targets {
        let grown = GROWN.contains(&target["name"].as_str().unwrap());
        assert!(target["value"].is_number() != grown && target["met"].is_boolean() != grown, "{target}");
    }
    // Of numbers that mean nothing, those that must be right all the same.
    let of = |name: &str| targets.iter().find(|target| target["name"] == name).unwrap();
    assert_eq!(of("retries-early")["value"], 0.0);
    let runs = report["runs"].as_array().unwrap();
    assert!(
        runs.iter().all(|run| run["per_second"].as_f64().unwrap() > 0.0 && run["repeated"] == 0),
        "{runs:?}"
    );
    let burst = runs.iter().find(|run| run["workload"] == "retry-burst").unwrap();
    assert_eq!((&burst["deliveries"], &burst["retries"]["retried"]), (&json!(200), &json!(100)));
    assert!(std::fs::read_to_string(&chart).unwrap().starts_with("<svg "));

    assert_eq!(queues(&vhost).await, ["postrider.events"]);
    assert_eq!(std::fs::read_dir(&files).unwrap().count(), 0);
}

/// What grows is there when it is measured: webhooks, and deliveries that wait. With more than one of everything.
#[tokio::test]
async fn a_fleet_is_measured_with_a_backlog_and_many_webhooks() {
    let vhost = Vhost::create(&Broker::shared().await, "bench-fleet").await;
    let files = tempfile::tempdir().unwrap();
    let grown = ["--only", "hundred-thousand-webhooks-1k", "--only", "million-behind-1k"];
    let fleet = ["--workers", "2", "--routers", "2", "--shards", "3", "--pin"];
    let mut command = tokio::process::Command::new(binary());
    command.args(["bench", "--tiny", "--json"]).args(grown).args(fleet).arg("--dir").arg(files.path());
    command.env_clear().env("POSTRIDER_AMQP_URL", vhost.url()).env("POSTRIDER_DELAY_UNIT_MS", "50");
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, command.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for target in report["targets"].as_array().unwrap() {
        let grown = GROWN.contains(&target["name"].as_str().unwrap());
        assert!(!grown || target["value"].as_f64().unwrap() > 0.0, "{target}");
    }
    let runs = report["runs"].as_array().unwrap();
    let names: Vec<&str> = runs.iter().map(|run| run["workload"].as_str().unwrap()).collect();
    assert_eq!(names, ["ten-webhooks-1k", "hundred-thousand-webhooks-1k", "million-behind-1k"]);
    assert!(
        runs.iter().all(|run| run["deliveries"].as_u64().unwrap() > 0 && run["repeated"] == 0),
        "{runs:?}"
    );
    assert_eq!(queues(&vhost).await, [""; 0]);
}

#[tokio::test]
async fn a_bench_that_is_interrupted_leaves_nothing_behind() {
    let vhost = Vhost::create(&Broker::shared().await, "bench-interrupted").await;
    let files = tempfile::tempdir().unwrap();
    let args = ["bench", "--tiny", "--dir", files.path().to_str().unwrap()];
    let bench = Postrider::with(args).env("POSTRIDER_AMQP_URL", vhost.url()).start();
    let naked = async || queues(&vhost).await.iter().any(|name| name.ends_with(".naked"));
    eventually("it has declared its queues", naked).await;
    bench.terminate();
    let status = bench.wait_exit(LIMIT).await;
    assert_eq!(status.code(), Some(130), "{}", bench.log());
    assert_eq!(queues(&vhost).await, [] as [&str; 0]);
    assert_eq!(std::fs::read_dir(files.path()).unwrap().count(), 0);
}
