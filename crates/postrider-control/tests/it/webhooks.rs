//! Webhooks on their whole way: a change through the API, and what the receiver sees of it.

use postrider_core::profile::KeyForm;
use postrider_core::signature::SigningKey;
use postrider_testkit::receiver::Answer;
use postrider_testkit::{Receiver, eventually_some};
use serde_json::{Value, json};

use crate::own_events::DataPlane;
use crate::{Control, Place, Timestamp};

impl Control {
    /// Waits until a delivery has this state, and returns it.
    async fn delivery(&self, id: &Value, state: &str) -> Value {
        let path = format!("/v1/deliveries/{}", id.as_str().unwrap());
        eventually_some(&format!("the delivery is {state}"), async || {
            let (status, delivery) = self.call("GET", &path, Value::Null).await;
            (status == 200 && delivery["state"] == state).then_some(delivery)
        })
        .await
    }
}

#[tokio::test]
async fn a_webhook_that_is_off_is_tried_once_with_a_sample() {
    let place = Place::new("trial").await;
    let control = place.start().await.ready().await;
    let _plane = DataPlane::start(&place).await;
    let receiver = Receiver::start().await;
    receiver.answer("/tried", [Answer::Status(500), Answer::Status(204)]);
    let catalogue = json!({
        "schema": 1,
        "product": { "id": "shop", "name": "Shop" },
        "category": [{ "id": "orders", "label": "Orders" }],
        "event_type": [{ "name": "order.placed", "label": "Placed", "category": "orders", "example":
            r#"{"event_type":"order.placed","event_time":"2026-11-21T20:00:00Z","current_context":null,"data":{"order":17}}"# }],
    });
    let (status, answer) = control.call("PUT", "/v1/catalogues/shop", catalogue).await;
    assert_eq!(status, 201, "{answer}");
    let tried = control
        .webhook(json!({ "url": receiver.url("/tried"), "subscription": { "categories": ["orders"] }, "state": "disabled" }))
        .await;
    control.webhook(json!({ "url": receiver.url("/bystander") })).await;
    let path = format!("/v1/webhooks/{}/test", tried["id"].as_str().unwrap());

    let trial = control.post(&path, Value::Null).await;
    let failed = control.delivery(&trial["delivery_id"], "dead").await;
    assert_eq!((&failed["attempts"], &failed["reason"]), (&json!(1), &json!("test")), "{failed}");
    assert_eq!(failed["event"], trial["event_id"]);
    let request = receiver.requests_to("/tried").remove(0);
    assert_eq!(request.header("webhook-test"), Some("true"));
    assert_eq!(request.json()["data"], json!({ "order": 17 }));
    let trial = control.post(&path, json!({ "data": { "order": 18 } })).await;
    control.delivery(&trial["delivery_id"], "delivered").await;
    assert_eq!(receiver.requests_to("/tried")[1].json()["data"], json!({ "order": 18 }));
    let status = control.books("both are done", |status| status["deliveries"]["delivered"] == 1).await;
    assert_eq!((&status["events"]["accepted"], &status["drift"]), (&json!(2), &json!(0)), "{status}");
    assert!(
        receiver.requests_to("/bystander").is_empty(),
        "a webhook that takes everything has no part in it"
    );
    assert_eq!(control.get("/v1/dead-letters").await["items"], json!([]), "there is nothing to make again");
    control.stop().await;
}

#[tokio::test]
async fn a_rotated_secret_signs_beside_the_one_before() {
    let place = Place::new("rotation").await;
    let control = place.start().await.ready().await;
    let _plane = DataPlane::start(&place).await;
    let receiver = Receiver::start().await;
    let made = control.webhook(json!({ "url": receiver.url("/r") })).await;
    let path = format!("/v1/webhooks/{}/rotate-secret", made["id"].as_str().unwrap());
    let rotated = control.post(&path, json!({ "overlap_seconds": 3600 })).await;
    control.post("/v1/events", json!({ "event_type": "A", "id": "both" })).await;
    receiver.wait_for(1).await;
    let ended = control.post(&path, json!({ "overlap_seconds": 0 })).await;
    control.post("/v1/events", json!({ "event_type": "A", "id": "one" })).await;
    receiver.wait_for(2).await;
    let signed_with = |at: usize| {
        let request = &receiver.requests_to("/r")[at];
        let header = |name: &str| request.header(name).unwrap().to_owned();
        let (id, signature) = (header("webhook-id"), header("webhook-signature"));
        let time = Timestamp::from_millis(header("webhook-timestamp").parse::<i64>().unwrap() * 1000);
        [&made, &rotated, &ended].map(|webhook| {
            let key = SigningKey::of_secret(webhook["secret"].as_str().unwrap(), KeyForm::Base64).unwrap();
            key.verifies(&signature, &id, time, &request.body)
        })
    };
    assert_eq!(signed_with(0), [true, true, false], "the first two sign the first");
    assert_eq!(signed_with(1), [false, false, true], "those before it have ended");
    control.stop().await;
}
