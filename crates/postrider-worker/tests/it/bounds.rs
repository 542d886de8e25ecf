//! Batches, messages that cannot be read, receivers without end.

use std::time::Duration;

use postrider_broker::Outgoing;
use postrider_core::wire::{self, DeliveryMessage, SCHEMA, Work};
use postrider_testkit::{Answer, eventually};

use crate::{Bench, Worker};

#[tokio::test]
async fn a_batch_is_acked_when_all_its_deliveries_are_settled() {
    let mut bench = Bench::new("batch").await;
    for id in ["good", "bad"] {
        let webhook = bench.webhook(id);
        bench.configuration.webhook(&webhook).await;
    }
    bench.receiver.answer("/bad", [Answer::Status(500), Answer::Status(200)]);
    let worker = Worker::start(&bench.settings);
    let work = (0..8).map(|n| {
        let event = bench.event(&format!("e{n}"));
        let to = vec![bench.delivery(&event, "good"), bench.delivery(&event, "bad")];
        Work { event, to }
    });
    bench.send(DeliveryMessage { schema: SCHEMA, work: work.collect() }).await;
    let done = bench.done(16).await;
    assert_eq!(
        done.iter().map(|done| done.attempts).sum::<u32>(),
        8 + 8 + 1,
        "one of them took two attempts"
    );
    assert_eq!(bench.receiver.count(), 17);
    bench.settled().await;
    worker.stop().await;
}

#[tokio::test]
async fn a_message_of_a_newer_schema_is_parked_and_one_that_is_none_is_poison() {
    let mut bench = Bench::new("unreadable").await;
    let webhook = bench.webhook("wh");
    bench.configuration.webhook(&webhook).await;
    let worker = Worker::start(&bench.settings);
    worker.ready().await;
    let newer = br#"{"schema":2,"work":"unknown"}"#;
    bench.send_raw(newer.to_vec(), "1").await;
    bench.send_raw(b"not ours".to_vec(), "1").await;
    bench.deliver(&["e1"], "wh").await;
    bench.receiver.wait_for(1).await;
    let parked = bench.vhost.take(&bench.names().park_queue(600), 1).await;
    assert_eq!((parked[0].body.as_slice(), parked[0].routing_key.as_str()), (&newer[..], "600.fresh.0"));
    assert_eq!(bench.vhost.take(&bench.names().poison(), 1).await[0].body, b"not ours");
    assert_eq!(worker.metric("postrider_deliveries_unusable_total", "unknown_schema"), 1);
    assert_eq!(worker.metric("postrider_deliveries_unusable_total", "malformed"), 1);
    bench.settled().await;
    worker.stop().await;
}

#[tokio::test]
async fn an_answer_without_end_is_read_up_to_a_bound_and_up_to_the_deadline() {
    let mut bench = Bench::new("endless").await;
    for (id, timeout_ms, bytes) in [("trickles", 500, 10), ("floods", 20_000, 16 * 1024)] {
        let mut webhook = bench.webhook(id);
        webhook.timeout_ms = timeout_ms;
        bench.configuration.webhook(&webhook).await;
        let endless = Answer::Endless { chunk: "x".repeat(bytes).into(), pause: Duration::from_millis(10) };
        bench.receiver.answer(&format!("/{id}"), [endless]);
    }
    let worker = Worker::start(&bench.settings);
    bench.deliver(&["e1"], "trickles").await;
    bench.deliver(&["e1"], "floods").await;
    bench.done(2).await;
    for attempt in bench.attempts() {
        // The one ends at its deadline, the other long before: 64 KiB are enough.
        assert!(attempt.duration_ms < 5_000, "{}: {} ms", attempt.webhook, attempt.duration_ms);
        assert!(attempt.response_body.as_ref().unwrap().len() <= 4096);
    }
    worker.stop().await;
}

#[tokio::test]
async fn headers_of_the_broker_do_not_travel_with_a_republished_message() {
    let mut bench = Bench::new("fresh-headers").await;
    let webhook = bench.webhook("wh").attempts(3);
    bench.configuration.webhook(&webhook).await;
    bench.receiver.answer("/wh", [Answer::Status(500)]);
    // Forged headers, as a broken tool might send them.
    let event = bench.event("e1");
    let body = wire::encode(&DeliveryMessage::single(event.clone(), bench.delivery(&event, "wh")));
    let forged = Outgoing::json(bench.names().deliveries(), "fresh.0", body, "m")
        .header("deliveries", "1")
        .header("x-death", "forged");
    bench.configuration.session().publisher().publish(forged).await.unwrap();
    let worker = Worker::start(&bench.settings);
    bench.done(1).await;
    let dead = bench.vhost.take(&bench.names().dead(), 1).await;
    let headers = dead[0].properties.headers();
    assert!(headers.as_ref().is_none_or(|headers| !headers.inner().contains_key("x-death")), "{headers:?}");
    eventually("nothing is left", async || bench.vhost.queue_depth(&bench.names().poison()).await == 0).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_batch_that_came_back_too_often_is_taken_apart_and_still_delivered() {
    let mut bench = Bench::new("set-apart").await;
    let webhook = bench.webhook("wh");
    bench.configuration.webhook(&webhook).await;
    bench.deliver(&["e1", "e2", "e3"], "wh").await;
    // Three consumers take it and die with it.
    let fresh = bench.names().delivery_queue(postrider_broker::Lane::Fresh, 0);
    for _ in 0..3 {
        let metrics = postrider_broker::Metrics::register(&prometheus::Registry::new(), "victim").unwrap();
        let victim = postrider_broker::Session::open(&bench.settings, &metrics).await.unwrap();
        let mut consumer = victim.consume(&fresh, 1).await.unwrap();
        let message = consumer.next().await.unwrap();
        drop(message);
        victim.close().await;
    }
    let worker = Worker::start(&bench.settings);
    eventually("each is parked alone", async || worker.metric("postrider_parked_total", "crashes") == 3)
        .await;
    let done = bench.done(3).await;
    assert!(done.iter().all(|done| done.attempts == 1), "no attempt was spent on the parking");
    assert_eq!(bench.receiver.count(), 3);
    bench.settled().await;
    worker.stop().await;
}
