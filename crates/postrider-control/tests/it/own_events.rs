//! Postrider's own events on their whole way: control, router, worker, receiver.

use postrider_broker::Readiness;
use postrider_core::address::EgressPolicy;
use postrider_testkit::config::Configuration;
use postrider_testkit::receiver::Answer;
use postrider_testkit::{Receiver, eventually};
use prometheus::Registry;
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{Control, Place, Settings};

const EVERYTHING: [&str; 6] = [
    "WEBHOOK_CREATED",
    "WEBHOOK_UPDATED",
    "WEBHOOK_DELETED",
    "postrider.webhook.failing",
    "postrider.webhook.disabled",
    "postrider.delivery.dead",
];

/// A router and a worker, until the value goes.
pub(crate) struct DataPlane {
    parts: Vec<Readiness>,
    _end: DropGuard,
}

impl DataPlane {
    pub(crate) async fn start(place: &Place) -> Self {
        let shutdown = CancellationToken::new();
        let (router, worker) = (Readiness::new(), Readiness::new());
        let broker = |role| Settings { role, ..place.settings.clone() };
        let config = postrider_router::Config::new(broker("router"));
        tokio::spawn({
            let (readiness, shutdown) = (router.clone(), shutdown.clone());
            async move { postrider_router::run(config, &Registry::new(), readiness, shutdown).await.unwrap() }
        });
        let egress = EgressPolicy::new(vec!["127.0.0.0/8".parse().unwrap()]);
        let config = postrider_worker::Config {
            egress,
            ..postrider_worker::Config::new(broker("worker"), Configuration::master_key())
        };
        tokio::spawn({
            let (readiness, shutdown) = (worker.clone(), shutdown.clone());
            async move { postrider_worker::run(config, &Registry::new(), readiness, shutdown).await.unwrap() }
        });
        let plane = Self { parts: vec![router, worker], _end: shutdown.drop_guard() };
        for part in &plane.parts {
            eventually("router and worker are ready", async || part.is_ready()).await;
        }
        plane
    }
}

impl Control {
    /// Makes a webhook that takes these types and tries once.
    async fn listener(&self, url: String, takes: &[&str], more: Value) -> String {
        let mut body = json!({ "name": "listener", "url": url, "retry": { "max_attempts": 1 },
            "subscription": { "event_types": takes, "all": false } });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.post("/v1/webhooks", body).await["id"].as_str().unwrap().to_owned()
    }

    /// Everything that was accepted has ended.
    async fn rests(&self, accepted: u64) -> Value {
        self.books(&format!("{accepted} events are accepted and done"), |status| {
            let (events, deliveries) = (&status["events"], &status["deliveries"]);
            events["accepted"] == accepted && events["waiting"] == 0 && deliveries["pending"] == 0
        })
        .await
    }
}

fn types(receiver: &Receiver, path: &str) -> Vec<String> {
    let requests = receiver.requests_to(path);
    requests.iter().map(|request| request.json()["event_type"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_webhook_hears_of_webhooks_its_own_creation_included() {
    let place = Place::new("own-events").await;
    let control = place.start().await.ready().await;
    let _plane = DataPlane::start(&place).await;
    let receiver = Receiver::start().await;
    let secret = json!({ "api_key": { "in": "header", "name": "X-Key", "value": "canary" } });
    let url = receiver.url("/a?token=canary");
    let id = control.listener(url, &EVERYTHING[..3], secret).await;
    receiver.wait_for(1).await;
    let path = format!("/v1/webhooks/{id}");
    assert_eq!(control.call("PATCH", &path, json!({ "name": "renamed", "timeout_ms": 5000 })).await.0, 200);
    receiver.wait_for(2).await;
    assert_eq!(control.call("POST", &format!("{path}/disable"), Value::Null).await.0, 200);
    // Disabled, it hears nothing, not even of that.
    control.books("the event is skipped", |status| status["deliveries"]["skipped"] == 1).await;
    assert_eq!(control.call("POST", &format!("{path}/enable"), Value::Null).await.0, 200);
    receiver.wait_for(3).await;
    let silent = control.listener(receiver.url("/silent"), &["A"], json!({})).await;
    let all = control.webhook(json!({ "url": receiver.url("/all") })).await;
    assert_eq!(control.call("DELETE", &format!("/v1/webhooks/{silent}"), Value::Null).await.0, 204);
    receiver.wait_for(6).await;
    assert_eq!(control.call("DELETE", &path, Value::Null).await.0, 204);

    // Nobody asks any more.
    assert_eq!(
        control.call("DELETE", &format!("/v1/webhooks/{}", all["id"].as_str().unwrap()), Value::Null).await.0,
        204
    );
    let status = control.rests(7).await;
    assert_eq!((&status["drift"], &status["events"]["unmatched"]), (&json!(0), &json!(0)));
    let mut heard = types(&receiver, "/a");
    heard[3..].sort();
    assert_eq!(heard[..3], ["WEBHOOK_CREATED", "WEBHOOK_UPDATED", "WEBHOOK_UPDATED"]);
    assert_eq!(heard[3..], ["WEBHOOK_CREATED", "WEBHOOK_CREATED", "WEBHOOK_DELETED"]);
    assert!(types(&receiver, "/all").is_empty() && types(&receiver, "/silent").is_empty());
    let updated = receiver.requests_to("/a")[1].json();
    assert_eq!(updated["current_context"], json!({ "source": "postrider" }));
    assert_eq!(updated["data"]["changed"], json!(["name", "timeout_ms"]));
    assert_eq!((&updated["data"]["id"], &updated["data"]["name"]), (&json!(id), &json!("renamed")));
    assert!(updated["data"]["url"].as_str().unwrap().ends_with("/a"), "{updated}");
    let bodies: String = receiver
        .requests()
        .iter()
        .map(|request| String::from_utf8_lossy(&request.body).into_owned())
        .collect();
    assert!(!bodies.contains("canary"), "{bodies}");
    control.stop().await;
}

/// Webhooks that want to hear everything and take nothing, while people change them.
#[tokio::test]
async fn own_events_that_fail_do_not_feed_themselves() {
    let place = Place::new("own-events-loop").await;
    let control = place.start().await.ready().await;
    let _plane = DataPlane::start(&place).await;
    let receiver = Receiver::start().await;
    for path in ["/1", "/2"] {
        // A refusal: no breaker opens.
        receiver.answer_by(path, |_| Answer::Status(400));
    }
    let mut changes = 0;
    let mut ids = Vec::new();
    for path in ["/1", "/2"] {
        ids.push(control.listener(receiver.url(path), &EVERYTHING, json!({})).await);
        changes += 1;
        control.rests(changes).await;
    }
    for round in 0..4 {
        for id in &ids {
            let path = format!("/v1/webhooks/{id}");
            let (status, answer) = control.call("PATCH", &path, json!({ "name": format!("{round}") })).await;
            assert_eq!(status, 200, "{answer}");
            changes += 1;
        }
        let status = control.rests(changes).await;
        assert_eq!(status["drift"], 0);
    }
    let dead = control.get("/v1/status").await["deliveries"]["dead"].as_u64().unwrap();
    assert_eq!(
        dead,
        2 * changes - 1,
        "each of them was given up by both, but for the first, which one heard of alone"
    );

    // Something of upstream's is given up: that is said once, with the webhook failing, and then there is rest again.
    let takes: Vec<&str> = EVERYTHING.into_iter().chain(["A"]).collect();
    // More than half of so many in a row were given up already, of own events alone, and that was no event.
    let patch = json!({ "subscription": { "event_types": takes }, "disable_after_failures": 16 });
    assert_eq!(control.call("PATCH", &format!("/v1/webhooks/{}", ids[0]), patch).await.0, 200);
    control.post("/v1/events", json!({ "event_type": "A", "id": "upstream" })).await;
    // The change, the event, that its delivery is dead, and that the webhook is failing.
    let accepted = changes + 4;
    control.rests(accepted).await;
    let heard = types(&receiver, "/2");
    let count = |name: &str| heard.iter().filter(|heard| *heard == name).count();
    assert_eq!((count("postrider.delivery.dead"), count("postrider.webhook.failing")), (1, 1), "{heard:?}");
    let failing = receiver.requests_to("/2");
    let failing = failing.iter().map(|request| request.json());
    let failing =
        failing.into_iter().find(|event| event["event_type"] == "postrider.webhook.failing").unwrap();
    assert_eq!(failing["data"]["last"]["event"], "upstream");

    // What was caused before this would be accepted before it.
    control.post("/v1/events", json!({ "event_type": "NOBODY", "id": "last" })).await;
    let status = control.rests(accepted + 1).await;
    assert_eq!(status["drift"], 0);
    control.stop().await;
}

#[tokio::test]
async fn a_webhook_that_fails_too_often_is_disabled_and_says_why_and_when() {
    let place = Place::new("own-events-disabled").await;
    let control = place.start().await.ready().await;
    let _plane = DataPlane::start(&place).await;
    let receiver = Receiver::start().await;
    receiver.answer_by("/bad", |_| Answer::Status(503));
    let bad = control.listener(receiver.url("/bad"), &["A"], json!({ "disable_after_failures": 3 })).await;
    control.listener(receiver.url("/good"), &["postrider.webhook.disabled"], json!({})).await;
    for n in 0..3 {
        control.post("/v1/events", json!({ "event_type": "A", "id": format!("e{n}") })).await;
    }
    let path = format!("/v1/webhooks/{bad}");
    eventually("it is disabled", async || control.get(&path).await["state"] == "disabled").await;
    let shown = control.get(&path).await;
    assert_eq!(
        shown["disabled_reason"], "3 deliveries in a row were given up; last: exhausted: http_5xx 503",
        "{shown}"
    );
    assert!(shown["disabled_at"].is_string(), "{shown}");
    let heard = receiver.wait_until("it is said", |all| all.iter().any(|it| it.path() == "/good")).await;
    let heard = heard.iter().find(|request| request.path() == "/good").unwrap().json();
    assert_eq!(
        (&heard["data"]["webhook"]["id"], &heard["data"]["given_up_in_a_row"]),
        (&json!(bad), &json!(3))
    );

    // The data plane knows: what comes now is skipped.
    control.post("/v1/events", json!({ "event_type": "A", "id": "late" })).await;
    control.books("it is skipped", |status| status["deliveries"]["skipped"] == 1).await;
    assert_eq!(receiver.requests_to("/bad").len(), 3);
    let (status, enabled) = control.call("POST", &format!("{path}/enable"), Value::Null).await;
    assert_eq!((status, &enabled["disabled_at"]), (200, &Value::Null));
    control.post("/v1/events", json!({ "event_type": "A", "id": "again" })).await;
    receiver
        .wait_until("it is tried again", |all| all.iter().filter(|it| it.path() == "/bad").count() == 4)
        .await;
    control.stop().await;
}
