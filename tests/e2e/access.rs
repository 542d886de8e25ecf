//! API keys, the audit log and the queues from the command line.

use postrider_broker::Names;
use postrider_testkit::process;
use postrider_testkit::rabbit::{Broker, Vhost};
use postrider_testkit::{eventually, eventually_some};
use reqwest::Method;
use serde_json::{Value, json};

use crate::system::System;

/// Runs a command with the admin token, or with the API key in a file.
async fn run(system: &System, key_file: Option<&str>, args: &[&str]) -> std::process::Output {
    let mut env = system.env();
    if let Some(file) = key_file {
        env.retain(|(name, _)| *name != "POSTRIDER_ADMIN_TOKEN");
        env.push(("POSTRIDER_API_TOKEN_FILE", file.to_owned()));
    }
    process::run(args.to_vec(), env.iter().map(|(name, value)| (*name, value.as_str()))).await
}

/// A command that must succeed, and its JSON.
async fn said(system: &System, key_file: Option<&str>, args: &[&str]) -> Value {
    let output = run(system, key_file, &[args, &["-o", "json"]].concat()).await;
    assert!(output.status.success(), "postrider {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
        panic!("postrider {args:?} printed no JSON ({e}): {}", String::from_utf8_lossy(&output.stdout))
    })
}

#[tokio::test]
async fn a_key_is_made_used_and_revoked_and_the_audit_log_tells_it() {
    let vhost = Vhost::create(&Broker::shared().await, "keys").await;
    let system = System::new(vhost.url()).await;
    let all = system.start("all").ready().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("support.key");
    let file = file.to_str().unwrap();
    said(&system, None, &["tenant", "create", "acme"]).await;
    assert_eq!(said(&system, None, &["tenant", "get", "acme"]).await["id"], "acme");

    let create = ["--tenant", "acme", "api-keys", "create", "--name", "support", "--scope", "read,manage"];
    let made = said(&system, None, &[&create[..], &["--key-to", file]].concat()).await;
    let id = made["id"].as_str().unwrap();
    let key = std::fs::read_to_string(file).unwrap();
    assert!(key.starts_with("ptr_") && !made.to_string().contains(key.trim()), "{made}");
    let over = run(&system, None, &[&create[..], &["--key-to", file]].concat()).await;
    assert_eq!(over.status.code(), Some(2), "a key is never written over another");
    let quiet = run(&system, None, &[&create[..], &["--quiet"]].concat()).await;
    assert_eq!(quiet.status.code(), Some(2), "nobody would see the key");

    // Whose it is, and what may be done with it.
    let access = said(&system, Some(file), &["api-keys", "whoami"]).await;
    let expected = json!({ "actor": id, "name": "support", "tenant": "acme", "scopes": ["read", "manage"] });
    assert_eq!(access, expected);
    let actor = run(&system, None, &["api-keys", "whoami", "--quiet"]).await;
    assert_eq!(String::from_utf8_lossy(&actor.stdout).trim(), "admin token");
    let url = system.receiver.url("/hook");
    let webhook =
        said(&system, Some(file), &["webhook", "create", "--name", "of the key", "--url", &url, "--all"])
            .await;
    assert_eq!(webhook["tenant"], "acme");
    for denied in [&["event", "send", "A"][..], &["status"], &["queues"], &["api-keys", "list"]] {
        let output = run(&system, Some(file), denied).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{denied:?}: {said}");
        assert!(said.contains("does not have the scope"), "{denied:?}: {said}");
    }
    let elsewhere = run(&system, Some(file), &["--tenant", "default", "webhook", "list"]).await;
    assert_eq!(elsewhere.status.code(), Some(2));

    let listed = said(&system, None, &["--tenant", "acme", "api-keys", "list"]).await;
    assert_eq!((&listed["items"][0]["id"], &listed["items"][0]["state"]), (&json!(id), &json!("active")));
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    assert!(run(&system, None, &["api-keys", "revoke", id]).await.status.success());
    let revoked = run(&system, Some(file), &["api-keys", "whoami"]).await;
    assert_eq!(revoked.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&revoked.stderr).contains("valid API key"));
    assert_eq!(said(&system, None, &["api-keys", "get", id]).await["state"], "revoked");
    assert_eq!(run(&system, None, &["api-keys", "revoke", "key_none"]).await.status.code(), Some(3));

    // Who did what, newest first.
    let log = said(&system, None, &["--tenant", "acme", "audit"]).await;
    let told: Vec<(&str, &str)> = log["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["operation"].as_str().unwrap(), row["actor"]["id"].as_str().unwrap()))
        .collect();
    let admin = "admin token";
    let expected = [
        ("revoke_api_key", admin),
        ("create_webhook", id),
        ("create_api_key", admin),
        ("create_tenant", admin),
    ];
    assert_eq!(told, expected);
    assert!(!log.to_string().contains(key.trim()));
    let by_key = said(&system, None, &["audit", "--actor", id, "--since", "1h"]).await;
    assert_eq!(by_key["items"].as_array().unwrap().len(), 1);
    assert_eq!(by_key["items"][0]["subject"]["id"], webhook["id"]);
    let nonsense = run(&system, None, &["audit", "--operation", "everything"]).await;
    assert_eq!(nonsense.status.code(), Some(4));
    all.stop().await;
}

#[tokio::test]
async fn queues_are_listed_and_one_that_is_missing_is_a_conflict() {
    let vhost = Vhost::create(&Broker::shared().await, "queues").await;
    let system = System::new(vhost.url()).await;
    let all = system.start("all").ready().await;
    let names = Names::new("postrider", 50);
    let queues = async || {
        let output = run(&system, None, &["queues", "-o", "json"]).await;
        let list: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.code(), list)
    };
    let (code, list) = eventually_some("the topology is known", async || {
        Some(queues().await).filter(|(_, list)| list["shards"] == 2)
    })
    .await;
    assert_eq!(code, Some(0), "{list:#}");
    let events = list["items"].as_array().unwrap().iter().find(|queue| queue["role"] == "events").unwrap();
    assert_eq!((&events["consumers"], &events["drift"]), (&json!(1), &Value::Null));
    let table = run(&system, None, &["queues", "-o", "table"]).await;
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(table.starts_with("QUEUE") && table.contains("postrider.park.600"), "{table}");

    let get = async |name: &str, form: &str| {
        let output = run(&system, None, &["queues", "get", name, "-o", form]).await;
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, one) = get("postrider.events", "table").await;
    assert!(code == Some(0) && one.contains("single-active-consumer") && !one.contains("points"), "{one}");
    assert_eq!(get("postrider.nothing", "json").await.0, Some(3));

    let gone = names.ladder(19);
    let path = format!("queues/{}/{gone}", vhost.name());
    vhost.broker().manage(Method::DELETE, &path, None).await.unwrap();
    eventually("a queue is missing", async || queues().await.0 == Some(6)).await;
    assert_eq!(get(&gone, "json").await.0, Some(6));
    let applied = run(&system, None, &["topology", "apply"]).await;
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    eventually("it is back", async || queues().await.0 == Some(0)).await;
    all.stop().await;
}

#[tokio::test]
async fn completions_and_the_manual_need_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("man");
    let none = || std::iter::empty::<(&str, &str)>();
    let man = process::run(["man", "--dir", dir.to_str().unwrap()], none()).await;
    assert!(man.status.success(), "{}", String::from_utf8_lossy(&man.stderr));
    assert!(std::fs::read_to_string(dir.join("postrider-queues.1")).unwrap().contains("queues"));
    let script = process::run(["completions", "zsh"], none()).await;
    assert!(script.status.success() && script.stdout.starts_with(b"#compdef postrider"));
}
