//! What cannot work says so at the start, in one sentence with the next step, and loses nothing.

use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use postrider_testkit::eventually;
use postrider_testkit::process::Postrider;
use postrider_testkit::rabbit::{Broker, Vhost};
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::system::System;

const OTHER_KEY: &str = "YW5vdGhlciBrZXkgb2YgMzIgYnl0ZXMsIGZvciB0ZXM=";

/// Starts `serve role` with a changed environment, waits for its end, and returns what it said.
async fn refused(system: &System, role: &str, change: &[(&str, Option<&str>)]) -> String {
    let mut start = Postrider::with(["serve", role]).env("POSTRIDER_METRICS_LISTEN", "127.0.0.1:0");
    for (name, value) in system.env() {
        match change.iter().find(|(changed, _)| *changed == name) {
            Some((_, Some(value))) => start = start.env(name, value),
            Some((_, None)) => {}
            None => start = start.env(name, value),
        }
    }
    let process = start.start();
    let status = process.wait_exit(Duration::from_secs(20)).await;
    assert!(!status.success(), "{role} with {change:?} ended with {status}");
    process.log()
}

#[tokio::test]
async fn a_role_without_what_it_needs_does_not_start() {
    let vhost = Vhost::create(&Broker::shared().await, "refusals").await;
    let system = System::new(vhost.url()).await;
    let said = refused(&system, "worker", &[("POSTRIDER_MASTER_KEY", None)]).await;
    assert!(said.contains("POSTRIDER_MASTER_KEY"), "{said}");
    let said = refused(&system, "control", &[("POSTRIDER_ADMIN_TOKEN", None)]).await;
    assert!(said.contains("POSTRIDER_ADMIN_TOKEN"), "{said}");
    let said = refused(&system, "worker", &[("POSTRIDER_MASTER_KEY", Some("c2hvcnQ="))]).await;
    assert!(said.contains("32 random bytes"), "{said}");
    let said = refused(&system, "router", &[("POSTRIDER_AMQP_URL", None)]).await;
    assert!(said.contains("POSTRIDER_AMQP_URL"), "{said}");
}

#[tokio::test]
async fn another_master_key_is_refused_and_the_store_stays_as_it_is() {
    let vhost = Vhost::create(&Broker::shared().await, "wrong-key").await;
    let system = System::new(vhost.url()).await;
    let control = system.start("control").ready().await;
    let (id, _) = system.webhook("/hook", &json!({})).await;
    control.stop().await;
    let said = refused(&system, "control", &[("POSTRIDER_MASTER_KEY", Some(OTHER_KEY))]).await;
    assert!(said.contains("master key"), "{said}");
    assert!(!said.contains(OTHER_KEY), "{said}");
    let control = system.start("control").ready().await;
    assert_eq!(system.get(&format!("/v1/webhooks/{id}")).await["name"], "/hook");
    control.stop().await;
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_waited_for_and_named() {
    let port = postrider_testkit::process::free_port();
    let system = System::new(format!("amqp://guest:canary@127.0.0.1:{port}/%2f")).await;
    let router = system.start("router");
    eventually("it names the broker", async || {
        let log = router.process.log();
        log.contains(&format!("127.0.0.1:{port}")) && log.contains("cannot be reached")
    })
    .await;
    assert!(!router.process.log().contains("canary"), "{}", router.process.log());
    router.stop().await;
}

#[tokio::test]
async fn a_queue_with_another_argument_is_named_and_nothing_is_consumed() {
    let vhost = Vhost::create(&Broker::shared().await, "other-argument").await;
    let channel = vhost.connect().await.create_channel().await.unwrap();
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(3));
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare("postrider.dead".into(), durable, arguments).await.unwrap();
    let system = System::new(vhost.url()).await;
    let router = system.start("router");
    eventually("it names the queue and the argument", async || {
        let log = router.process.log();
        log.contains("postrider.dead") && log.contains("x-delivery-limit")
    })
    .await;
    router.stop().await;
}

#[tokio::test]
async fn the_api_refuses_what_it_cannot_do_and_says_what_to_do() {
    let vhost = Vhost::create(&Broker::shared().await, "api-refusals").await;
    let system = System::new(vhost.url()).await;
    let control = system.start_with("control", &[("POSTRIDER_EGRESS_ALLOW", "")]).ready().await;
    let good = json!({ "name": "n", "url": "https://example.com/", "subscription": { "all": true } });
    let with = |name: &str, value: serde_json::Value| {
        let mut webhook = good.clone();
        webhook[name] = value;
        webhook
    };
    let cases = [
        (json!({ "name": "n" }), "url"),
        (with("colour", json!("red")), "colour"),
        (with("url", json!("ftp://example.com/")), "https://"),
        (with("url", json!("http://127.0.0.1/")), "POSTRIDER_EGRESS_ALLOW"),
        (with("url", json!("http://[::ffff:10.0.0.1]/")), "POSTRIDER_EGRESS_ALLOW"),
        (with("subscription", json!({ "event_types": ["x".repeat(129)] })), "event type"),
        (with("timeout_ms", json!(61_000)), "timeout_ms"),
        (with("headers", json!({ "Host": "x" })), "Host"),
    ];
    for (webhook, expected) in &cases {
        let (status, problem) = system.call(Method::POST, "/v1/webhooks", Some(webhook)).await;
        assert!(
            status == StatusCode::UNPROCESSABLE_ENTITY || status == StatusCode::BAD_REQUEST,
            "{status} {problem}"
        );
        assert!(
            problem["code"].is_string() && problem.to_string().contains(expected),
            "{expected}: {problem:#}"
        );
    }
    assert_eq!(system.get("/v1/webhooks").await["items"], json!([]), "nothing was created");
    let unknown = json!({ "event_type": "A", "tenant": "nobody" });
    let (status, problem) = system.call(Method::POST, "/v1/events", Some(&unknown)).await;
    assert_eq!(
        (status, &problem["code"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("unknown_tenant")),
        "{problem}"
    );
    control.stop().await;
}
