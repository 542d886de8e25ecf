//! Ends without another request: called off, deleted, stopped by 410, too old; and what is sent all the same, since
//! somebody asked for it.

use postrider_broker::{Lane, Names, Outgoing, now};
use postrider_core::Timestamp;
use postrider_core::books::End;
use postrider_core::wire::{
    self, CancellationRecord, Cancelled, ConfigKind, ConfigRecord, DeadMessage, DeliveryMessage,
    DeliveryRecord, DoneFact, Fact,
};
use postrider_core::{EventType, TenantId, WebhookId};
use postrider_testkit::Answer;

use crate::{Bench, Worker};

/// Writes a cancellation to the config stream, as control would.
async fn call_off(bench: &Bench, revision: u64, what: Cancelled) {
    let body = CancellationRecord { tenant: TenantId::default_tenant(), at: now(), what };
    let id = format!("cnl_{revision}");
    let record =
        ConfigRecord::of(bench.configuration.epoch(), revision, ConfigKind::Cancellation, &id, &body);
    bench.configuration.write(&record).await;
}

fn end_of<'a>(done: &'a [DoneFact], webhook: &str) -> (End, &'a str, u32) {
    let done = done.iter().find(|done| done.webhook.as_str() == webhook).expect("its series ended");
    (done.end, done.reason.as_str(), done.attempts)
}

#[tokio::test]
async fn what_was_called_off_is_cancelled_on_the_ladder_in_the_parking_and_where_it_would_be_held() {
    let mut bench = Bench::new("called-off").await;
    for id in ["ladder", "parked", "paused", "other"] {
        let mut webhook = bench.webhook(id);
        webhook.retry.initial_ms = Some(5_000);
        bench.configuration.webhook(&webhook).await;
        bench.receiver.answer(&format!("/{id}"), [Answer::Status(500), Answer::Status(200)]);
    }
    let worker = Worker::start(&bench.settings);
    worker.ready().await;
    bench.deliver(&["e1"], "ladder").await;
    bench.deliver(&["e1"], "other").await;
    bench.receiver.wait_for(2).await;

    // A worker waits for the configuration that a delivery names, the cancellations among it.
    let next = bench.configuration.revision() + 10;
    let parked =
        DeliveryRecord { parked: 1, revision: next + 2, ..bench.delivery(&bench.event("e1"), "parked") };
    let body = wire::encode(&DeliveryMessage::single(bench.event("e1"), parked.clone()));
    let key = Names::park_key(1, &Names::destination(Lane::Fresh, 0));
    let message = Outgoing::json(bench.names().park(), key, body, "test").header("deliveries", "1");
    bench.configuration.session().publisher().publish(message).await.unwrap();

    let ladder = bench.delivery(&bench.event("e1"), "ladder");
    call_off(&bench, next, Cancelled::Series { delivery: ladder.id, series: 1 }).await;
    call_off(&bench, next + 1, Cancelled::Series { delivery: parked.id, series: 1 }).await;
    let event_type = EventType::parse("USER_LOGIN").unwrap();
    let matching = |webhook: &str| Cancelled::Matching {
        webhook: Some(WebhookId::from_trusted(webhook)),
        event_type: Some(event_type.clone()),
        born_since: None,
        born_before: now().plus_ms(60_000),
    };
    call_off(&bench, next + 2, matching("paused")).await;
    let mut paused = bench.webhook("paused");
    paused.state = "paused".into();
    bench.configuration.webhook(&paused).await;
    let paused = DeliveryRecord { revision: next + 2, ..bench.delivery(&bench.event("e1"), "paused") };
    bench.send(DeliveryMessage::single(bench.event("e1"), paused)).await;

    let done = bench.done(4).await;
    assert_eq!(end_of(&done, "ladder"), (End::Cancelled, "cancelled_by_request", 1));
    assert_eq!(end_of(&done, "parked"), (End::Cancelled, "cancelled_by_request", 0));
    assert_eq!(end_of(&done, "paused"), (End::Cancelled, "cancelled_by_request", 0));
    assert_eq!(end_of(&done, "other"), (End::Delivered, "", 2));
    assert!(!bench.facts.iter().any(|fact| matches!(fact, Fact::Held(_))), "called off, and not held");
    assert_eq!(bench.receiver.count(), 3);

    // Another series is not meant; nor is anything, when the cancellation is taken back.
    let again = DeliveryRecord { series: 2, ..bench.delivery(&bench.event("e1"), "ladder") };
    bench.send(DeliveryMessage::single(bench.event("e1"), again)).await;
    bench.receiver.wait_for(4).await;
    bench.settled().await;
    worker.stop().await;
}

#[tokio::test]
async fn a_retry_that_waits_sees_what_was_edited_and_that_its_webhook_was_deleted() {
    let mut bench = Bench::new("pending-edits").await;
    for id in ["edited", "deleted", "disabled"] {
        let webhook = bench.webhook(id);
        bench.configuration.webhook(&webhook).await;
        bench.receiver.answer(&format!("/{id}"), [Answer::Status(500)]);
    }
    let worker = Worker::start(&bench.settings);
    worker.ready().await;
    for id in ["edited", "deleted", "disabled"] {
        bench.deliver(&["e1"], id).await;
        bench
            .receiver
            .wait_until("its first request", |all| all.iter().any(|r| r.path() == format!("/{id}")))
            .await;
        let mut webhook = bench.webhook(id);
        match id {
            "edited" => {
                webhook.url = bench.receiver.url("/new");
                webhook.secret =
                    postrider_core::signature::secret_text(b"another secret of 32 bytes here!").to_string();
                webhook.change = |record| {
                    record.api_key = Some(wire::ApiKeyRecord {
                        place: "header".into(),
                        name: "X-Key".into(),
                        value: sealed_key(),
                    });
                };
                bench.configuration.webhook(&webhook).await;
            }
            "disabled" => {
                webhook.state = "disabled".into();
                bench.configuration.webhook(&webhook).await;
            }
            _ => bench.configuration.delete(id).await,
        }
    }
    let done = bench.done(3).await;
    assert_eq!(end_of(&done, "edited").0, End::Delivered);
    let (end, reason, attempts) = end_of(&done, "deleted");
    assert_eq!((end, reason), (End::Cancelled, "webhook_deleted"));
    assert!(attempts >= 1, "what was made before is counted");
    assert_eq!(end_of(&done, "disabled").1, "webhook_disabled");
    let request = &bench.receiver.requests_to("/new")[0];
    assert_eq!(request.header("x-key"), Some("the new key"));
    let key = postrider_core::signature::SigningKey::parse(&postrider_core::signature::secret_text(
        b"another secret of 32 bytes here!",
    ));
    let header = |name: &str| request.header(name).map(str::to_owned);
    postrider_core::signature::verify(&key.unwrap(), header, &request.body, now()).unwrap();
    worker.stop().await;
}

/// An API key of the webhook `edited`, sealed.
fn sealed_key() -> String {
    use postrider_core::webhook::{SecretKind, purpose};
    let (tenant, id) = (TenantId::default_tenant(), WebhookId::from_trusted("edited"));
    let purpose = purpose(&tenant, &id, SecretKind::ApiKey);
    postrider_testkit::config::Configuration::master_key()
        .seal(&purpose, b"the new key", rand::random())
        .unwrap()
}

#[tokio::test]
async fn after_410_a_worker_sends_nothing_more_until_the_webhook_is_another() {
    let mut bench = Bench::new("gone-at-once").await;
    let webhook = bench.webhook("wh");
    bench.configuration.webhook(&webhook).await;
    bench.receiver.answer("/wh", [Answer::Status(410), Answer::Status(200)]);
    let worker = Worker::start(&bench.settings);
    worker.ready().await;
    bench.deliver(&["e1"], "wh").await;
    assert_eq!(end_of(&bench.done(1).await, "wh"), (End::Dead, "gone", 1));
    for n in 2..=4 {
        bench.deliver(&[&format!("e{n}")], "wh").await;
    }
    let done = bench.done(4).await;
    for done in done.iter().filter(|done| done.end != End::Dead) {
        assert_eq!((done.end, done.reason.as_str(), done.attempts), (End::Skipped, "webhook_disabled", 0));
    }
    assert_eq!(bench.receiver.count(), 1);
    // Somebody who asks for it finds out.
    let asked = DeliveryRecord { asked: true, series: 2, ..bench.delivery(&bench.event("e2"), "wh") };
    bench.send(DeliveryMessage::single(bench.event("e2"), asked)).await;
    bench.receiver.wait_for(2).await;
    // Enabled again: a newer record.
    let webhook = bench.webhook("wh");
    bench.configuration.webhook(&webhook).await;
    bench.deliver(&["e5"], "wh").await;
    bench.receiver.wait_for(3).await;
    worker.stop().await;
}

#[tokio::test]
async fn what_somebody_asked_for_is_sent_unless_its_webhook_is_paused_or_deleted() {
    let mut bench = Bench::new("asked").await;
    for id in ["disabled", "expired", "later", "paused", "deleted"] {
        let mut webhook = bench.webhook(id);
        match id {
            "disabled" | "paused" => webhook.state = id.into(),
            "expired" => webhook.change = |record| record.expires_at = Some(Timestamp::from_millis(1)),
            "later" => webhook.change = |record| record.active_from = Some(now().plus_ms(3_600_000)),
            _ => {}
        }
        bench.configuration.webhook(&webhook).await;
    }
    bench.configuration.delete("deleted").await;
    let worker = Worker::start(&bench.settings);
    worker.ready().await;
    let event = bench.event("e1");
    for id in ["disabled", "expired", "later", "paused", "deleted"] {
        let asked = DeliveryRecord { asked: true, ..bench.delivery(&event, id) };
        bench.send(DeliveryMessage::single(event.clone(), asked)).await;
    }
    let done = bench.done(4).await;
    for id in ["disabled", "expired", "later"] {
        assert_eq!(end_of(&done, id), (End::Delivered, "", 1), "{id}");
    }
    assert_eq!(end_of(&done, "deleted"), (End::Cancelled, "webhook_deleted", 0));
    bench.facts_until("paused is held", |facts| facts.iter().any(|fact| matches!(fact, Fact::Held(_)))).await;
    assert_eq!(bench.receiver.count(), 3);
    worker.stop().await;
}

#[tokio::test]
async fn what_outlived_its_policy_while_it_waited_is_dead_without_another_request() {
    let mut bench = Bench::new("too-old").await;
    for id in ["parked", "ladder", "fresh", "young"] {
        let mut webhook = bench.webhook(id);
        webhook.retry.max_age_ms = Some(60_000);
        bench.configuration.webhook(&webhook).await;
    }
    let long_ago = Timestamp::from_millis(now().as_millis() - 61_000);
    let event = bench.event("e1");
    let record = |id: &str| DeliveryRecord { born: long_ago, ..bench.delivery(&event, id) };
    let parked = DeliveryRecord { parked: 3, ..record("parked") };
    let ladder = DeliveryRecord { attempt: 4, due: Some(long_ago), ..record("ladder") };
    let young = DeliveryRecord { parked: 3, born: now(), ..record("young") };
    for delivery in [parked, ladder, record("fresh"), young] {
        bench.send(DeliveryMessage::single(event.clone(), delivery)).await;
    }
    let worker = Worker::start(&bench.settings);
    let done = bench.done(4).await;
    assert_eq!(end_of(&done, "parked"), (End::Dead, "too_old", 0));
    assert_eq!(end_of(&done, "ladder"), (End::Dead, "too_old", 3));
    assert_eq!(
        end_of(&done, "fresh"),
        (End::Delivered, "", 1),
        "what was never tried is tried, however late"
    );
    assert_eq!(end_of(&done, "young"), (End::Delivered, "", 1));
    let mut dead: Vec<(String, u32, String)> = Vec::new();
    for taken in bench.vhost.take(&bench.names().dead(), 2).await {
        let letter: DeadMessage = wire::decode(&taken.body).unwrap();
        dead.push((letter.delivery.webhook.to_string(), letter.delivery.attempt, letter.reason));
    }
    dead.sort();
    assert_eq!(dead, [("ladder".into(), 3, "too_old".into()), ("parked".into(), 0, "too_old".into())]);
    assert_eq!(bench.receiver.count(), 2);
    worker.stop().await;
}
