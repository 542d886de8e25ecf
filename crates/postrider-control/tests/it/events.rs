//! Events over HTTP.

use postrider_testkit::chaos::Proxy;
use postrider_testkit::eventually;
use serde_json::{Value, json};

use crate::{Place, routed};

#[tokio::test]
async fn accepted_events_are_in_the_queue() {
    let place = Place::new("events").await;
    let control = place.start().await.ready().await;
    let several: Vec<Value> =
        (0..300).map(|n| json!({ "event_type": "A", "id": format!("e{n}"), "data": n })).collect();
    let answer = control.post("/v1/events", json!(several)).await;
    assert_eq!(answer["items"].as_array().unwrap().len(), 300);
    let queue = place.session.names().events();
    // 202 means that it is there, not that it will be.
    assert_eq!(place.vhost.queue_depth(&queue).await, 300);
    let mut consumer = place.session.consume(&queue, 1).await.unwrap();
    let first = consumer.next().await.unwrap();
    let body: Value = serde_json::from_slice(first.body()).unwrap();
    // The order within one request is not promised.
    let n = body["data"].as_u64().unwrap();
    assert_eq!(body, json!({ "event_type": "A", "id": format!("e{n}"), "data": n }));
    assert_eq!((first.routing_key(), first.message_id()), ("default", body["id"].as_str()));
    assert_eq!(first.header_str("postrider-revision"), Some("1"));
    assert!(first.header_str("postrider-epoch").is_some_and(|epoch| epoch.starts_with("ep_")));

    let shown = |status: &Value| status["events"]["waiting"] == 299 && status["routers"]["active"] == 1;
    control.books("what waits is shown", shown).await;
    place.journal("router-1", 0, vec![routed("e0", "wh_1")]).await;
    control.books("the event is known", |status| status["events"]["routed"] == 1).await;
    let again = control
        .post("/v1/events", json!([{ "event_type": "A", "id": "e0" }, { "event_type": "A", "id": "e1" }]))
        .await;
    assert_eq!(
        again["items"],
        json!([{ "id": "e0", "duplicate": true }, { "id": "e1", "duplicate": false }])
    );
    let event = control.get("/v1/events/e0").await;
    assert_eq!((&event["fate"], &event["data"]), (&json!("routed"), &json!({ "n": 1.0 })));
    control.stop().await;
}

#[tokio::test]
async fn without_the_broker_the_api_reads_and_refuses_events() {
    let place = Place::new("down").await;
    let proxy = Proxy::start(place.vhost.broker().amqp_address()).await;
    proxy.cut().await;
    let control = place.start_at(place.vhost.url_through(proxy.addr())).await;
    eventually("the API answers", async || control.part("api").is_ok()).await;
    assert_eq!(control.get("/v1/status").await["broker"], "unreachable");
    let (status, problem) =
        control.call("POST", "/v1/events", json!({ "event_type": "A", "id": "e1" })).await;
    assert_eq!(
        (status, &problem["code"], &problem["confirmed"]),
        (503, &json!("broker_unavailable"), &json!([]))
    );
    // What is changed meanwhile is told later.
    let webhook = control.webhook(json!({})).await;
    assert!(control.part("broker").is_err() && control.part("config").is_err());

    proxy.restore().await;
    let control = control.ready().await;
    control.post("/v1/events", json!({ "event_type": "A", "id": "e1" })).await;
    assert_eq!(
        control.get(&format!("/v1/webhooks/{}", webhook["id"].as_str().unwrap())).await["state"],
        "active"
    );
    control.books("the broker answers", |status| status["broker"] == "ok").await;

    // Lost again, and back again.
    proxy.cut().await;
    eventually("the loss is noticed", async || control.part("broker").is_err()).await;
    proxy.restore().await;
    let control = control.ready().await;
    control.post("/v1/events", json!({ "event_type": "A", "id": "e2" })).await;
    control.stop().await;
}
