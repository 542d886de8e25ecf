//! What receivers answer, and what becomes of the delivery.

use postrider_core::address::EgressPolicy;
use postrider_core::books::End;
use postrider_core::signature::{self, SigningKey};
use postrider_core::wire::{self, DeadMessage, Fact};
use postrider_core::{Timestamp, signature::Untrusted};
use postrider_testkit::config::Configuration;
use postrider_testkit::{Answer, Request};

use crate::{Bench, Worker};

fn verify(request: &Request) -> Result<(), Untrusted> {
    let key = SigningKey::parse(&Configuration::secret()).unwrap();
    let header = |name: &str| request.header(name).map(str::to_owned);
    signature::verify(&key, header, &request.body, postrider_broker::now())
}

#[tokio::test]
async fn a_delivery_is_sent_signed_and_written_down() {
    let mut bench = Bench::new("delivered").await;
    let webhook = bench.webhook("wh");
    bench.configuration.webhook(&webhook).await;
    let worker = Worker::start(&bench.settings);
    worker.ready().await;
    bench.deliver(&["e1"], "wh").await;
    let requests = bench.receiver.wait_for(1).await;
    let request = &requests[0];
    verify(request).unwrap();
    let expected = br#"{"event_time":"2026-11-21T20:00:00Z","event_type":"USER_LOGIN","current_context":null,"data":null}"#;
    assert_eq!(request.body.as_ref(), expected);
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert!(request.header("user-agent").unwrap().starts_with("postrider/"));

    let done = bench.done(1).await;
    assert_eq!((done[0].end, done[0].attempts), (End::Delivered, 1));
    assert_eq!(request.header("webhook-id").unwrap(), done[0].delivery.message_id());
    let attempts = bench.attempts();
    assert_eq!((attempts.len(), attempts[0].status, &*attempts[0].class), (1, Some(200), "none"));
    bench.settled().await;
    worker.stop().await;
}

#[tokio::test]
async fn an_attempt_says_where_its_time_went() {
    let mut bench = Bench::new("times").await;
    let mut webhook = bench.webhook("wh");
    webhook.url = webhook.url.replace("127.0.0.1", "localhost");
    bench.configuration.webhook(&webhook).await;
    // The name may have an address of version 6 as well, at which nobody listens.
    let egress = EgressPolicy::new(vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]);
    let worker = Worker::with(&bench.settings, |config| config.egress = egress);
    for (n, event) in ["e1", "e2"].into_iter().enumerate() {
        bench.deliver(&[event], "wh").await;
        bench.done(n + 1).await;
    }
    let [first, second] = <[_; 2]>::try_from(bench.attempts()).unwrap();
    assert_eq!(first.remote, Some([127, 0, 0, 1].into()));
    assert!(first.times.dns_ms.is_some() && first.times.connect_ms.is_some(), "{first:?}");
    assert!(u64::from(first.times.first_byte_ms.unwrap()) <= first.duration_ms + 1, "{first:?}");
    assert_eq!((second.times.dns_ms, second.times.connect_ms), (None, None), "the connection was kept");
    assert!(second.times.first_byte_ms.is_some() && second.remote == first.remote, "{second:?}");
    worker.stop().await;
}

#[tokio::test]
async fn failures_are_retried_never_early_with_the_same_id_and_body() {
    let mut bench = Bench::new("retried").await;
    let webhook = bench.webhook("wh");
    bench.configuration.webhook(&webhook).await;
    bench.receiver.answer_by("/wh", |request| match request.header("webhook-attempt") {
        Some("1") => Answer::Status(500),
        Some("2") => Answer::Status(503).with_header("retry-after", "1"),
        Some("3") => Answer::Reset,
        _ => Answer::Status(204),
    });
    let worker = Worker::start(&bench.settings);
    bench.deliver(&["e1"], "wh").await;
    let done = bench.done(1).await;
    assert_eq!((done[0].end, done[0].attempts), (End::Delivered, 4));

    let requests = bench.receiver.requests();
    let attempts = bench.attempts();
    let numbers: Vec<u32> = attempts.iter().map(|attempt| attempt.n).collect();
    assert_eq!(
        numbers,
        [1, 2, 3, 3, 4],
        "at once again over a new connection, since the first was a used one"
    );
    assert_eq!(requests.len(), attempts.len());
    for (request, attempt) in requests.iter().zip(&attempts) {
        verify(request).unwrap();
        assert_eq!(request.header("webhook-attempt"), Some(attempt.n.to_string().as_str()));
        assert_eq!(request.header("webhook-id"), requests[0].header("webhook-id"));
        assert_eq!(request.body, requests[0].body);
    }
    let classes: Vec<&str> = attempts.iter().map(|attempt| &*attempt.class).collect();
    assert_eq!(classes, ["http_5xx", "http_5xx", "reset", "reset", "none"]);
    for (attempt, next) in attempts.iter().zip(&attempts[1..]) {
        if attempt.n == next.n {
            assert_eq!(attempt.next_at, None, "it was repeated at once");
            continue;
        }
        let due = attempt.next_at.unwrap();
        assert!(next.at >= due, "attempt {} began {} ms early", next.n, due.since_ms(next.at));
        let late_ms = next.at.since_ms(due);
        assert!(late_ms < 2_000, "attempt {} began {late_ms} ms late", next.n);
    }
    let waited_ms = attempts[2].at.since_ms(Timestamp::from_millis(attempts[1].at.as_millis()));
    assert!(waited_ms >= 1_000, "Retry-After: 1 was obeyed, {waited_ms} ms");
    worker.stop().await;
}

#[tokio::test]
async fn what_cannot_be_delivered_is_set_aside() {
    let mut bench = Bench::new("dead").await;
    let webhook = bench.webhook("wh").attempts(2);
    bench.configuration.webhook(&webhook).await;
    bench.receiver.answer("/wh", [Answer::Status(500).with_body("no room")]);
    let worker = Worker::start(&bench.settings);
    bench.deliver(&["e1"], "wh").await;
    let done = bench.done(1).await;
    assert_eq!((done[0].end, done[0].reason.as_str(), done[0].attempts), (End::Dead, "exhausted", 2));
    let dead: DeadMessage = wire::decode(&bench.vhost.take(&bench.names().dead(), 1).await[0].body).unwrap();
    assert_eq!((dead.event.id.as_str(), dead.reason.as_str()), ("e1", "exhausted"));
    assert_eq!(bench.attempts()[0].response_body.as_deref(), Some("no room"));
    assert_eq!(bench.receiver.count(), 2);
    worker.stop().await;
}

#[tokio::test]
async fn gone_ends_at_once_and_a_redirect_is_not_followed() {
    let mut bench = Bench::new("gone").await;
    for id in ["gone", "moved"] {
        let webhook = bench.webhook(id).attempts(2);
        bench.configuration.webhook(&webhook).await;
    }
    bench.receiver.answer("/gone", [Answer::Status(410)]);
    let target = bench.receiver.url("/elsewhere");
    bench.receiver.answer("/moved", [Answer::Status(302).with_header("location", &target)]);
    let worker = Worker::start(&bench.settings);
    bench.deliver(&["e1"], "gone").await;
    bench.deliver(&["e2"], "moved").await;
    let done = bench.done(2).await;
    let of = |webhook: &str| done.iter().find(|done| done.webhook.as_str() == webhook).unwrap();
    assert_eq!((of("gone").end, of("gone").reason.as_str(), of("gone").attempts), (End::Dead, "gone", 1));
    assert_eq!((of("moved").end, of("moved").attempts), (End::Dead, 2));
    assert!(bench.receiver.requests_to("/elsewhere").is_empty());
    worker.stop().await;
}

#[tokio::test]
async fn private_addresses_are_not_reached_by_literal_or_by_name() {
    let mut bench = Bench::new("blocked").await;
    let port = bench.receiver.address().port();
    for (id, host) in [("literal", "127.0.0.1"), ("name", "localhost."), ("mapped", "[::ffff:127.0.0.1]")] {
        let mut webhook = bench.webhook(id).attempts(1);
        webhook.url = format!("http://{host}:{port}/{id}");
        bench.configuration.webhook(&webhook).await;
    }
    let worker = Worker::with(&bench.settings, |_| {});
    for id in ["literal", "name", "mapped"] {
        bench.deliver(&["e"], id).await;
    }
    assert!(bench.done(3).await.iter().all(|done| done.end == End::Dead));
    assert!(
        bench.attempts().iter().all(|attempt| attempt.class == "egress_blocked"),
        "{:?}",
        bench.attempts()
    );
    assert_eq!(bench.receiver.count(), 0);
    worker.stop().await;
}

/// A port that answers every connection in plain HTTP.
async fn speaks_no_tls() -> u16 {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            connection.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.ok();
            // Closing with something unread would reset the connection before the answer is read.
            connection.read_to_end(&mut Vec::new()).await.ok();
        }
    });
    port
}

#[tokio::test]
async fn receivers_that_do_not_answer_have_their_class() {
    let mut bench = Bench::new("unreachable").await;
    let closed = postrider_testkit::process::free_port();
    for (id, url) in [
        ("hangs", bench.receiver.url("/hangs")),
        ("resets", bench.receiver.url("/resets")),
        ("babbles", bench.receiver.url("/babbles")),
        ("closed", format!("http://127.0.0.1:{closed}/")),
        ("nameless", "http://no-such-host.invalid/".to_owned()),
        ("plain", format!("https://127.0.0.1:{}/", speaks_no_tls().await)),
    ] {
        let mut webhook = bench.webhook(id).attempts(1);
        webhook.url = url;
        webhook.timeout_ms = 500;
        bench.configuration.webhook(&webhook).await;
    }
    bench.receiver.answer("/hangs", [Answer::Hang]);
    bench.receiver.answer("/resets", [Answer::Reset]);
    bench.receiver.answer("/babbles", [Answer::Raw("SSH-2.0-OpenSSH_9\r\n\r\n".into())]);
    let worker = Worker::start(&bench.settings);
    for id in ["hangs", "resets", "babbles", "closed", "nameless", "plain"] {
        bench.deliver(&["e"], id).await;
    }
    bench.done(6).await;
    let mut classes: Vec<(String, String)> = bench
        .attempts()
        .iter()
        .map(|attempt| (attempt.webhook.to_string(), attempt.class.to_string()))
        .collect();
    classes.sort();
    let expected = [
        ("babbles", "bad_response"),
        ("closed", "connect"),
        ("hangs", "timeout"),
        ("nameless", "dns"),
        ("plain", "tls"),
        ("resets", "reset"),
    ];
    assert_eq!(classes, expected.map(|(id, class)| (id.to_owned(), class.to_owned())));
    worker.stop().await;
}

#[tokio::test]
async fn paused_is_held_disabled_is_skipped_deleted_is_cancelled() {
    let mut bench = Bench::new("states").await;
    for state in ["paused", "disabled"] {
        let mut webhook = bench.webhook(state);
        webhook.state = state.into();
        bench.configuration.webhook(&webhook).await;
    }
    let webhook = bench.webhook("deleted");
    bench.configuration.webhook(&webhook).await;
    bench.configuration.delete("deleted").await;
    let worker = Worker::start(&bench.settings);
    for webhook in ["paused", "disabled", "deleted", "never-existed"] {
        bench.deliver(&["e"], webhook).await;
    }
    let done = bench.done(3).await;
    bench.facts_until("one is held", |facts| facts.iter().any(|fact| matches!(fact, Fact::Held(_)))).await;
    let end = |webhook: &str| {
        done.iter().find(|done| done.webhook.as_str() == webhook).map(|d| (d.end, d.reason.as_str()))
    };
    assert_eq!(end("disabled"), Some((End::Skipped, "webhook_disabled")));
    assert_eq!(end("deleted"), Some((End::Cancelled, "webhook_deleted")));
    assert_eq!(end("never-existed"), Some((End::Cancelled, "webhook_unknown")));
    assert_eq!(end("paused"), None);
    assert_eq!(bench.receiver.count(), 0);
    bench.settled().await;
    worker.stop().await;
}

#[tokio::test]
async fn a_delivery_waits_for_the_configuration_that_routed_it() {
    let mut bench = Bench::new("newer-revision").await;
    let worker = Worker::start(&bench.settings);
    worker.ready().await;
    let event = bench.event("e1");
    let mut delivery = bench.delivery(&event, "wh");
    delivery.revision += 1;
    bench.send(wire::DeliveryMessage::single(event, delivery)).await;
    let webhook = bench.webhook("wh");
    bench.configuration.webhook(&webhook).await;
    bench.receiver.wait_for(1).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_webhook_that_nobody_knows_yet_is_waited_for_in_the_parking() {
    let mut bench = Bench::new("parked").await;
    let worker = Worker::start(&bench.settings);
    worker.ready().await;
    let event = bench.event("e1");
    let mut delivery = bench.delivery(&event, "wh");
    delivery.revision += 1;
    bench.send(wire::DeliveryMessage::single(event, delivery)).await;
    let parked = bench.names().park_queue(5);
    postrider_testkit::eventually("it is parked", async || bench.vhost.queue_depth(&parked).await == 1).await;
    let webhook = bench.webhook("wh");
    bench.configuration.webhook(&webhook).await;
    bench.receiver.wait_for(1).await;
    let done = bench.done(1).await;
    assert_eq!((done[0].end, done[0].attempts), (End::Delivered, 1), "no attempt was spent");
    assert_eq!(worker.metric("postrider_parked_total", "unknown_revision"), 1);
    worker.stop().await;
}

#[tokio::test]
async fn edits_apply_to_the_next_attempt() {
    let mut bench = Bench::new("edited").await;
    let mut webhook = bench.webhook("wh");
    bench.configuration.webhook(&webhook).await;
    bench.receiver.answer("/wh", [Answer::Status(500)]);
    let worker = Worker::start(&bench.settings);
    bench.deliver(&["e1"], "wh").await;
    bench.receiver.wait_for(1).await;
    webhook.url = bench.receiver.url("/new");
    bench.configuration.webhook(&webhook).await;
    let done = bench.done(1).await;
    assert_eq!(done[0].end, End::Delivered);
    assert_eq!(bench.receiver.requests_to("/new").len(), 1);
    worker.stop().await;
}
