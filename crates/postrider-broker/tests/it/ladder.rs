//! The ladder and the parking keep their promises: never early, never lost, back where they belong.

use std::time::{Duration, Instant};

use lapin::options::ExchangeUnbindOptions;
use lapin::types::FieldTable;
use postrider_broker::{Lane, Names, Outgoing, topology};
use postrider_core::ladder::Wait;
use postrider_testkit::eventually;

use crate::open;

#[tokio::test]
async fn waits_are_never_early_and_end_in_their_lane() {
    let (_vhost, settings, session) = open("ladder", 100).await;
    topology::apply(&session, Some(1)).await.unwrap();
    let names = settings.names();
    let mut retries = session.consume(&names.delivery_queue(Lane::Retry, 0), 10).await.unwrap();
    let begun = Instant::now();
    for delay_ms in [100u64, 250, 700, 1500] {
        let wait = Wait::at_least(delay_ms, 100).unwrap();
        let key = wait.routing_key(&Names::destination(Lane::Retry, 0));
        let body = delay_ms.to_string().into_bytes();
        let message = Outgoing::json(names.ladder(wait.entry_level()), key, body, delay_ms.to_string());
        session.publisher().publish(message).await.unwrap();
    }
    for expected_ms in [100u64, 250, 700, 1500] {
        let message = retries.next().await.unwrap();
        let waited = begun.elapsed();
        assert_eq!(message.body(), expected_ms.to_string().as_bytes(), "in the order in which they are due");
        assert!(waited >= Duration::from_millis(expected_ms), "{expected_ms} ms came after {waited:?}");
        let lateness = waited - Duration::from_millis(expected_ms);
        assert!(lateness < Duration::from_secs(2), "{expected_ms} ms came {lateness:?} late");
        message.ack().await.unwrap();
    }
}

#[tokio::test]
async fn a_second_pass_of_a_republished_message_is_no_cycle() {
    let (_vhost, settings, session) = open("second-pass", 20).await;
    topology::apply(&session, Some(1)).await.unwrap();
    let names = settings.names();
    let mut retries = session.consume(&names.delivery_queue(Lane::Retry, 0), 10).await.unwrap();
    let wait = Wait::at_least(20, 20).unwrap();
    for pass in 0..4 {
        let key = wait.routing_key(&Names::destination(Lane::Retry, 0));
        let message =
            Outgoing::json(names.ladder(wait.entry_level()), key, b"again".to_vec(), pass.to_string());
        session.publisher().publish(message).await.unwrap();
        let message = tokio::time::timeout(Duration::from_secs(20), retries.next())
            .await
            .expect("it comes back")
            .unwrap();
        assert!(
            message.header_str("x-first-death-queue").is_some(),
            "the broker's own headers are on what it sends"
        );
        message.ack().await.unwrap();
    }
}

#[tokio::test]
async fn parking_brings_messages_back_to_every_destination() {
    let (_vhost, settings, session) = open("parking", 1000).await;
    topology::apply(&session, Some(1)).await.unwrap();
    let names = settings.names();
    let destinations = [
        ("fresh.0", names.delivery_queue(Lane::Fresh, 0)),
        ("events", names.events()),
        ("journal", names.journal()),
    ];
    for (destination, _) in &destinations {
        let message =
            Outgoing::json(names.park(), Names::park_key(1, destination), b"x".to_vec(), *destination);
        session.publisher().publish(message).await.unwrap();
    }
    for (_, queue) in &destinations {
        eventually(&format!("{queue} has its message back"), async || {
            session.depth(queue).await.unwrap().ready == 1
        })
        .await;
    }
}

#[tokio::test]
async fn a_lost_binding_shows_as_poison_and_wedges_nobody() {
    let (vhost, settings, session) = open("lost-binding", 20).await;
    topology::apply(&session, Some(1)).await.unwrap();
    let names = settings.names();
    let channel = vhost.connect().await.create_channel().await.unwrap();
    // Level 0 no longer leads out of the ladder.
    let pattern = format!("{}0.#", "*.".repeat(19));
    channel
        .exchange_unbind(
            names.delay_out().as_str().into(),
            names.ladder(0).as_str().into(),
            pattern.as_str().into(),
            ExchangeUnbindOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    let wait = Wait::at_least(40, 20).unwrap();
    let key = wait.routing_key(&Names::destination(Lane::Retry, 0));
    let message = Outgoing::json(names.ladder(wait.entry_level()), key, b"x".to_vec(), "m");
    session.publisher().publish(message).await.unwrap();
    eventually("it is in the poison queue", async || {
        session.depth(&names.poison()).await.unwrap().ready == 1
    })
    .await;
}
