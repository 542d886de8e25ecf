//! The recorder, the books, and what is sent again.

use postrider_broker::{Lane, Names, Outgoing};
use postrider_core::books::End;
use postrider_core::wire::{
    self, DeadMessage, DeliveryMessage, DeliveryRecord, DoneFact, Fact, HeldFact, SCHEMA,
};
use postrider_core::{Epoch, WebhookId};
use postrider_testkit::eventually;
use serde_json::{Value, json};

use crate::{Place, at, delivery, event_record, routed};

fn done(id: &str, webhook: &str, end: End) -> Fact {
    Fact::Done(DoneFact {
        delivery: delivery(id, webhook),
        series: 1,
        webhook: WebhookId::from_trusted(webhook),
        end,
        reason: "exhausted".into(),
        attempts: 0,
        at: at(9),
        repeats: 0,
    })
}

fn delivery_record(id: &str, webhook: &str) -> DeliveryRecord {
    DeliveryRecord {
        id: delivery(id, webhook),
        webhook: WebhookId::from_trusted(webhook),
        revision: 2,
        epoch: Epoch::from_trusted("ep"),
        series: 1,
        attempt: 1,
        born: at(0),
        due: None,
        crashes: 0,
        unknown_since: None,
        parked: 0,
        asked: false,
        test: false,
    }
}

fn message(id: &str, webhook: &str) -> Vec<u8> {
    wire::encode(&DeliveryMessage::single(event_record(id), delivery_record(id, webhook)))
}

#[tokio::test]
async fn every_queue_of_the_recorder_ends_in_the_books() {
    let place = Place::new("recorder").await;
    let names = place.session.names().clone();
    // A backlog, from before control was there.
    place.journal("worker-1", 0, vec![done("e1", "wh_1", End::Dead)]).await;
    place.journal("router-1", 0, vec![routed("e1", "wh_1"), routed("e2", "wh_1")]).await;
    let dead = DeadMessage {
        schema: SCHEMA,
        event: event_record("e1"),
        delivery: delivery_record("e1", "wh_1"),
        reason: "exhausted".into(),
        class: "http_5xx".into(),
        at: at(9),
    };
    place.publish(&names.dead(), wire::encode(&dead)).await;
    place.publish(&names.poison(), message("e2", "wh_1")).await;
    let invalid = Outgoing {
        content_type: String::new(),
        ..Outgoing::json(names.invalid(), "", b"\xffnonsense".to_vec(), "i")
    }
    .header("reason", "not_json")
    .header("detail", "expected value")
    .header("event-id", "invalid_00")
    .header("tenant", "default")
    .header("received-at", at(5).as_millis().to_string())
    .header("original-content-type", "text/html");
    place.session.publisher().publish(invalid).await.unwrap();
    place.publish(&names.journal(), b"{\"schema\":1,\"half".to_vec()).await;
    place.publish(&names.journal(), b"{\"schema\":99,\"moon\":true}".to_vec()).await;

    let control = place.start().await.ready().await;
    let books = control.books("all of it is recorded", |s| s["deliveries"]["dead_unresolved"] == 2).await;
    assert_eq!((&books["events"]["routed"], &books["deliveries"]["dead"]), (&json!(2), &json!(2)));
    eventually("the rest is recorded", async || {
        control.get("/v1/dead-letters").await["items"].as_array().unwrap().len() == 4
    })
    .await;
    let letters = control.get("/v1/dead-letters").await;
    let kinds = |kind: &str| -> Vec<Value> {
        let items = letters["items"].as_array().unwrap();
        items.iter().filter(|letter| letter["kind"] == kind).cloned().collect()
    };
    assert_eq!((kinds("dead").len(), kinds("invalid").len(), kinds("poison").len()), (1, 1, 2));
    let invalid = &kinds("invalid")[0];
    assert_eq!((&invalid["reason"], &invalid["event"]), (&json!("not_json"), &json!("invalid_00")));
    let shown = control.get(&format!("/v1/dead-letters/{}", invalid["id"].as_str().unwrap())).await;
    assert_eq!((&shown["body_base64"], &shown["body_text"]), (&json!("/25vbnNlbnNl"), &Value::Null));
    assert_eq!(shown["content_type"], "text/html");
    let damaged = kinds("poison").into_iter().find(|letter| letter["delivery"].is_null()).unwrap();
    assert_eq!(damaged["reason"], "unreadable_journal");
    let id = damaged["id"].as_str().unwrap();
    let (status, problem) =
        control.call("POST", &format!("/v1/dead-letters/{id}/redeliver"), Value::Null).await;
    assert_eq!((status, &problem["code"]), (409, &json!("no_delivery")));
    let resolved =
        control.post(&format!("/v1/dead-letters/{id}/resolve"), json!({ "reason": "looked at" })).await;
    assert_eq!((&resolved["resolved"], &resolved["resolution"]), (&json!(true), &json!("looked at")));

    // A message of a newer release is put away for later, not lost and not taken for damage.
    assert_eq!(place.vhost.queue_depth(&names.park_queue(600)).await, 1);
    assert!((control.metric("postrider_recorder_unknown_schema_total") - 1.0).abs() < f64::EPSILON);
    let parked = place.vhost.take(&names.park_queue(600), 1).await.remove(0);
    assert_eq!(
        (parked.routing_key.as_str(), parked.json()),
        ("600.journal", json!({ "schema": 99, "moon": true }))
    );
    for queue in [names.journal(), names.dead(), names.invalid(), names.poison()] {
        assert_eq!(place.vhost.queue_depth(&queue).await, 0, "{queue}");
    }
    control.stop().await;
}

#[tokio::test]
async fn a_redelivery_goes_to_the_replay_lane_of_its_shard() {
    let place = Place::new("redeliver").await;
    let control = place.start().await.ready().await;
    let webhook = control.webhook(json!({})).await;
    let webhook = webhook["id"].as_str().unwrap();
    let id = delivery("e1", webhook);
    place.journal("router-1", 0, vec![routed("e1", webhook), done("e1", webhook, End::Dead)]).await;
    control.books("it is dead", |status| status["deliveries"]["dead"] == 1).await;
    let made = control.post(&format!("/v1/deliveries/{id}/redeliver"), Value::Null).await;
    assert_eq!((&made["id"], &made["series"]), (&json!(id.as_str()), &json!(2)), "{made}");
    assert_eq!((&made["state"], &made["webhook_state"]), (&json!("pending"), &json!("active")), "{made}");
    let (status, problem) =
        control.call("POST", &format!("/v1/deliveries/{id}/redeliver"), Value::Null).await;
    assert_eq!((status, &problem["code"]), (409, &json!("not_final")));

    let shard = WebhookId::from_trusted(webhook).shard(2);
    let queue = place.session.names().delivery_queue(Lane::Replay, shard);
    let taken = place.vhost.take(&queue, 1).await.remove(0);
    let message: DeliveryMessage = wire::decode(&taken.body).unwrap();
    let again = &message.work[0].to[0];
    assert_eq!((again.id.as_str(), again.series, again.attempt), (id.as_str(), 2, 1));
    assert_eq!(message.work[0].event.data.get(), "{ \"n\" : 1.0 }", "the body as it was");
    control.stop().await;
}

#[tokio::test]
async fn what_was_held_is_sent_on_after_the_resume() {
    let place = Place::new("held").await;
    let control = place.start().await.ready().await;
    let webhook = control.webhook(json!({ "state": "paused" })).await;
    let webhook = webhook["id"].as_str().unwrap().to_owned();
    let held = |id: &str| {
        Fact::Held(HeldFact {
            delivery: delivery(id, &webhook),
            series: 1,
            webhook: WebhookId::from_trusted(webhook.as_str()),
            attempt: 3,
            at: at(20),
            repeats: 0,
        })
    };
    place.journal("router-1", 0, (0..3).map(|n| routed(&format!("e{n}"), &webhook)).collect()).await;
    place.journal("worker-1", 0, vec![held("e0"), held("e1")]).await;
    control.books("two are held", |status| status["deliveries"]["held"] == 2).await;
    let list = control.get("/v1/deliveries?state=held").await;
    assert_eq!(list["items"].as_array().unwrap().len(), 2);

    let resumed = control.post(&format!("/v1/webhooks/{webhook}/resume"), Value::Null).await;
    let queue = place
        .session
        .names()
        .delivery_queue(Lane::Replay, WebhookId::from_trusted(webhook.as_str()).shard(2));
    let taken = place.vhost.take(&queue, 2).await;
    for taken in taken {
        let message: DeliveryMessage = wire::decode(&taken.body).unwrap();
        let delivery = &message.work[0].to[0];
        assert_eq!((delivery.series, delivery.attempt), (1, 3));
        assert_eq!(delivery.revision, resumed["revision"].as_u64().unwrap());
    }
    // One that a worker held with the older configuration crosses the resume, and is sent on all the same.
    place.journal("worker-1", 2, vec![held("e2")]).await;
    place.vhost.take(&queue, 1).await;
    control.books("nothing is held", |status| status["deliveries"]["held"] == 0).await;
    control.stop().await;
}

/// At rest the books are compared with what the broker holds, so a delivery that is lost without a trace shows.
#[tokio::test]
async fn at_rest_a_lost_delivery_shows() {
    let place = Place::new("at-rest").await;
    let control = place.start().await.ready().await;
    let webhook = control.webhook(json!({ "timeout_ms": 100 })).await;
    let webhook = webhook["id"].as_str().unwrap();
    place.journal("router-1", 0, vec![routed("e1", webhook)]).await;
    // The delivery waits in a parking queue that nobody empties here.
    let key = Names::park_key(3600, "retry.0");
    let parked = Outgoing::json(place.session.names().park(), key, message("e1", webhook), "d1");
    place.session.publisher().publish(parked).await.unwrap();
    let books = control.books("the books are at rest", |status| status["at_rest"] == true).await;
    assert_eq!((&books["drift"], &books["deliveries"]["pending"]), (&json!(0), &json!(1)), "{books:#}");

    place.vhost.take(&place.session.names().park_queue(3600), 1).await;
    let books = control.books("the loss shows", |status| status["drift"] == 1).await;
    assert_eq!((&books["drift_parts"]["at_rest"], &books["at_rest"]), (&json!(1), &json!(true)), "{books:#}");
    // Something happens: not at rest, and no comparison.
    place.journal("router-1", 1, vec![routed("e2", webhook)]).await;
    let books = control.books("it is recorded", |status| status["deliveries"]["pending"] == 2).await;
    assert_eq!((&books["drift"], &books["at_rest"]), (&json!(0), &json!(false)), "{books:#}");
    control.stop().await;
}
