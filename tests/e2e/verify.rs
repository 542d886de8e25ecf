//! The walk-through of `docs/verify.md`, as it stands there.

use postrider_testkit::process::{binary, free_port};
use postrider_testkit::rabbit::{Broker, Vhost};
use postrider_testkit::{patience, workspace_dir};

use crate::system::System;

/// The shell of the documentation, block after block.
fn walk_through() -> Vec<String> {
    let text = std::fs::read_to_string(workspace_dir().join("docs/verify.md")).unwrap();
    text.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn the_walk_through_works_and_ends_clean() {
    let vhost = Vhost::create(&Broker::shared().await, "walk-through").await;
    let system = System::new(vhost.url()).await;
    let [control, router, worker] = system.start_all_roles().await;
    let folder = tempfile::tempdir().unwrap();
    let blocks = walk_through();
    assert_eq!(blocks.len(), 2, "{blocks:?}");
    let inbox = format!("127.0.0.1:{}", free_port());
    let script = blocks.join("\necho '--- hurt'\n").replace("127.0.0.1:8081", &inbox);
    let script = format!("set -e\ntrap 'kill $(jobs -p) 2>/dev/null' EXIT\n{script}");
    let path = format!("{}:{}", binary().parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut shell = tokio::process::Command::new("bash");
    shell.arg("-c").arg(script).current_dir(folder.path()).env_clear().env("PATH", path);
    shell.env("HOME", folder.path()).env("WORKER", worker.process.pid().to_string());
    shell.env("POSTRIDER_METRICS_LISTEN", format!("127.0.0.1:{}", free_port()));
    shell.envs(system.env()).kill_on_drop(true);
    let output = tokio::time::timeout(4 * patience(), shell.output()).await.expect("it ends").unwrap();
    let (said, noted) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{said}\n{noted}", output.status);
    let (calm, hurt) = said.split_once("--- hurt").unwrap();
    assert!(calm.contains("accepted 200   pairs 200   requests 200   attempts 200"), "{calm}");
    assert!(calm.contains("n = 200, lost 0"), "{calm}");
    assert!(hurt.contains("n = 600, lost 0"), "{hurt}");
    assert!(!said.contains("VIOLATED"), "{said}");
    for role in [control, router] {
        role.stop().await;
    }
}

#[tokio::test]
async fn what_is_missing_is_found_and_named() {
    let vhost = Vhost::create(&Broker::shared().await, "verify-fails").await;
    let system = System::new(vhost.url()).await.with_ledger().await;
    let all = system.start("all").ready().await;
    system.webhook("/hook", &serde_json::json!({})).await;
    system.configured(&all).await;
    let published = system.published();
    postrider_testkit::load::Load::new(vhost.url(), 20).ledger(&published).publish().await;
    system.balanced(20).await;
    let (code, report) = system.verify(&["--at-rest"]).await;
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!((&report["n"], &report["lost"]), (&20.into(), &0.into()));
    // An event that was confirmed and is nowhere, and one that nobody published.
    published.append("default", "lost").await;
    system.post("/v1/events", &serde_json::json!({ "event_type": "A", "id": "unknown" })).await;
    system.known("unknown").await;
    system.at_rest().await;
    let (code, report) = system.verify(&["--at-rest"]).await;
    assert_eq!(code, Some(1));
    let violated: Vec<&str> = report["violations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|violation| violation["invariant"].as_str().unwrap())
        .collect();
    assert_eq!(violated, ["I-1", "I-4"], "{report:#}");
    assert!(report["violations"][0]["examples"][0].as_str().unwrap().contains("default/lost"));
    all.stop().await;
    // The same of a store that nobody has open, and of one that is not there.
    assert_eq!(system.verify(&["--at-rest"]).await.0, Some(1));
    let missing = postrider_testkit::process::run(
        ["verify", "--published", "p", "--received", "r", "--store", "sqlite:/nowhere/postrider.db"],
        [],
    )
    .await;
    assert_eq!(missing.status.code(), Some(2), "{}", String::from_utf8_lossy(&missing.stderr));
}
