//! The operator's commands, as an operator would use them.

use postrider_testkit::Answer;
use postrider_testkit::process;
use postrider_testkit::rabbit::{Broker, Vhost};
use serde_json::{Value, json};

use crate::system::System;

/// Runs a command that must succeed, and returns its JSON.
async fn postrider(system: &System, args: &[&str]) -> Value {
    let output = run(system, args).await;
    assert!(output.status.success(), "postrider {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
        panic!("postrider {args:?} printed no JSON ({e}): {}", String::from_utf8_lossy(&output.stdout))
    })
}

async fn run(system: &System, args: &[&str]) -> std::process::Output {
    let env = system.env();
    process::run(args.to_vec(), env.iter().map(|(name, value)| (*name, value.as_str()))).await
}

#[tokio::test]
async fn a_dead_delivery_is_found_mended_and_sent_again() {
    let vhost = Vhost::create(&Broker::shared().await, "command").await;
    let system = System::new(vhost.url()).await;
    let all = system.start("all").ready().await;
    postrider(&system, &["tenant", "create", "acme", "-o", "json"]).await;
    system
        .receiver
        .answer("/hook", [Answer::Status(500).with_body("full"), Answer::Status(500), Answer::Status(200)]);
    let webhook =
        json!({ "tenant": "acme", "retry": { "initial_ms": 100, "jitter": 0.0, "max_attempts": 2 } });
    let (webhook, _) = system.webhook("/hook", &webhook).await;
    let sent = postrider(
        &system,
        &[
            "--tenant",
            "acme",
            "event",
            "send",
            "Client registered",
            "--id",
            "e1",
            "-d",
            r#"{"n":1}"#,
            "-o",
            "json",
        ],
    )
    .await;
    assert!(sent.to_string().contains("e1"), "{sent}");
    system.receiver.wait_for(2).await;
    postrider_testkit::eventually("it is dead", async || {
        system.get("/v1/deliveries?tenant=acme&state=dead").await["items"]
            .as_array()
            .is_some_and(|items| items.len() == 1)
    })
    .await;
    let dead =
        postrider(&system, &["--tenant", "acme", "delivery", "list", "--state", "dead", "-o", "json"]).await;
    let delivery = dead["items"][0]["id"].as_str().or(dead[0]["id"].as_str()).unwrap().to_owned();
    let detail = postrider(&system, &["--tenant", "acme", "delivery", "get", &delivery, "-o", "json"]).await;
    assert!(detail.to_string().contains("full"), "the receiver's answer is shown: {detail:#}");
    assert!(detail.to_string().contains(&webhook), "{detail:#}");

    postrider(&system, &["--tenant", "acme", "delivery", "redeliver", &delivery, "--wait", "-o", "json"])
        .await;
    let requests = system.receiver.wait_for(3).await;
    assert_eq!(requests[0].header("webhook-id"), requests[2].header("webhook-id"));
    assert_eq!(requests[0].body, requests[2].body);
    let books = postrider(&system, &["status", "-o", "json"]).await;
    assert_eq!((&books["deliveries"]["dead"], &books["deliveries"]["delivered"]), (&json!(1), &json!(1)));
    assert_eq!(books["deliveries"]["dead_unresolved"], 0, "the later series delivered it");

    let missing = run(&system, &["delivery", "get", "0123456789abcdef0123456789abcdef"]).await;
    assert_eq!(missing.status.code(), Some(3), "{}", String::from_utf8_lossy(&missing.stderr));
    let usage = run(&system, &["delivery", "gte"]).await;
    assert_eq!(usage.status.code(), Some(2));
    all.stop().await;
}

#[tokio::test]
async fn trace_context_goes_from_the_event_to_the_request_and_settings_hide_secrets() {
    let vhost = Vhost::create(&Broker::shared().await, "trace").await;
    let system = System::new(vhost.url()).await;
    let all = system.start("all").ready().await;
    system
        .webhook(
            "/hook",
            &json!({ "api_key": { "in": "header", "name": "X-API-Key", "value": "canary-key" } }),
        )
        .await;
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let url = system.env().iter().find(|(name, _)| *name == "POSTRIDER_API_URL").unwrap().1.clone();
    let response = postrider_testkit::http::client()
        .post(format!("{url}/v1/events"))
        .bearer_auth(crate::system::TOKEN)
        .header("traceparent", traceparent)
        .json(&json!({ "event_type": "A" }))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 202);
    let requests = system.receiver.wait_for(1).await;
    assert_eq!(requests[0].header("traceparent"), Some(traceparent));
    assert_eq!(requests[0].header("x-api-key"), Some("canary-key"));

    let config = run(&system, &["config"]).await;
    let shown = String::from_utf8_lossy(&config.stdout).into_owned();
    assert!(config.status.success() && shown.contains("master_key"), "{shown}");
    for secret in [crate::system::TOKEN, crate::system::MASTER_KEY] {
        assert!(!shown.contains(secret), "{shown}");
        assert!(!all.process.log().contains(secret));
    }
    assert!(!all.process.log().contains("canary-key"));
    let store = std::fs::read(system.store_path()).unwrap();
    let wal = std::fs::read(system.store_path().with_extension("db-wal")).unwrap_or_default();
    for bytes in [store, wal] {
        assert!(!bytes.windows(10).any(|window| window == b"canary-key"), "the store holds the key in clear");
    }
    all.stop().await;
}
