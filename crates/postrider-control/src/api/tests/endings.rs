//! Calling deliveries off, making them again, and how webhooks do.

use postrider_core::books::End;
use postrider_core::wire::{
    AttemptFact, DoneFact, EventFact, EventFate, EventRecord, Fact, HeldFact, JournalMessage, Owed,
    RequestTimes, SCHEMA,
};
use postrider_core::{DeliveryId, EventId, EventType, TenantId, Timestamp, WebhookId, event};

use super::*;
use crate::store::Entry;

/// Half a second ago, as everything in these tests.
fn then() -> Timestamp {
    Timestamp::from_millis(postrider_broker::now().as_millis() - 500)
}

fn delivery(event: &str, webhook: &str) -> DeliveryId {
    let (event, webhook) = (EventId::from_trusted(event), WebhookId::from_trusted(webhook));
    DeliveryId::of(&TenantId::default_tenant(), &event, &webhook)
}

fn routed(id: &str, webhook: &str) -> Fact {
    let at = then();
    let record = EventRecord {
        tenant: TenantId::default_tenant(),
        id: EventId::from_trusted(id),
        event_type: EventType::parse("A").unwrap(),
        time: "2026-11-21T20:00:00Z".into(),
        context: event::null(),
        data: event::null(),
        key: None,
        correlation_id: None,
        traceparent: None,
        accepted_at: at,
    };
    let owed = Owed { delivery: delivery(id, webhook), webhook: WebhookId::from_trusted(webhook) };
    Fact::Event(EventFact {
        tenant: record.tenant.clone(),
        event_id: record.id.clone(),
        at,
        fate: EventFate::Routed(vec![owed]),
        event: Some(Arc::new(record)),
        marks: Vec::new(),
    })
}

fn done(id: &str, webhook: &str, end: End, reason: &str) -> Fact {
    Fact::Done(DoneFact {
        delivery: delivery(id, webhook),
        series: 1,
        webhook: WebhookId::from_trusted(webhook),
        end,
        reason: reason.into(),
        attempts: 0,
        at: then(),
        repeats: 0,
    })
}

fn held(id: &str, webhook: &str) -> Fact {
    let (delivery, webhook) = (delivery(id, webhook), WebhookId::from_trusted(webhook));
    Fact::Held(HeldFact { delivery, series: 1, webhook, attempt: 1, at: then(), repeats: 0 })
}

fn attempt(id: &str, webhook: &str, class: &str, at: Timestamp, next_at: Option<Timestamp>) -> Fact {
    Fact::Attempt(AttemptFact {
        delivery: delivery(id, webhook),
        series: 1,
        n: 1,
        webhook: WebhookId::from_trusted(webhook),
        at,
        duration_ms: 1,
        url: "".into(),
        class: class.to_owned().into(),
        status: None,
        error: None,
        response_body: None,
        response_headers: Vec::new(),
        next_at,
        worker: "w".into(),
        repeats: 0,
        times: RequestTimes::default(),
        remote: None,
    })
}

impl Test {
    async fn journal(&self, writer: &str, facts: Vec<Fact>) {
        let message =
            JournalMessage { schema: SCHEMA, writer: writer.into(), first: 0, duplicates: 0, facts };
        self.api.store.record(&[Entry::Journal(message)], postrider_broker::now()).await.unwrap();
    }

    /// A webhook by itself, and its id.
    async fn one(&self, change: Value) -> String {
        self.webhook(change).await["id"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn one_delivery_is_called_off() {
    let t = Test::new().await;
    let webhook = t.one(json!({})).await;
    let (webhook, ids) =
        (webhook.as_str(), |event: &str| format!("/v1/deliveries/{}", delivery(event, &webhook)));
    let facts = ["way", "held", "over"].map(|event| routed(event, webhook)).to_vec();
    t.journal("r", facts).await;
    t.journal("w", vec![held("held", webhook), done("over", webhook, End::Dead, "exhausted")]).await;

    let (status, body) = t.post(&format!("{}/cancel", ids("nothing")), Value::Null).await;
    assert_eq!((status, body["code"].as_str()), (404, Some("not_found")));
    let (status, body) = t.post(&format!("{}/cancel", ids("over")), Value::Null).await;
    assert_eq!((status, &body["code"], &body["state"]), (409, &json!("ended"), &json!("dead")));
    let (status, body) = t.post(&format!("{}/cancel", ids("held")), Value::Null).await;
    assert_eq!((status, &body["state"], &body["cancelling"]), (200, &json!("cancelled"), &json!(false)));
    let path = format!("{}/cancel", ids("way"));
    let (status, headers, first) = read(t.send(with_key(&path, "", "k1")).await).await;
    assert_eq!((status, &first["state"], &first["cancelling"]), (202, &json!("pending"), &json!(true)));
    assert!(
        first["cancellation"].as_str().unwrap().starts_with("cnl_")
            && !headers.contains_key("idempotency-replayed")
    );
    let (status, headers, again) = read(t.send(with_key(&path, "", "k1")).await).await;
    assert_eq!((status, again), (202, first.clone()));
    assert!(headers.contains_key("idempotency-replayed"));
    let (status, other) = t.call("POST", &path, None).await;
    assert_eq!((status, &other["cancellation"]), (202, &Value::Null), "it is called off already");
    let (_, shown) = t.call("GET", &ids("way"), None).await;
    assert_eq!((&shown["state"], &shown["cancelling"]), (&json!("pending"), &json!(true)));
    let (_, list) = t.call("GET", "/v1/cancellations", None).await;
    let only = &list["items"].as_array().unwrap()[..];
    assert_eq!(only.len(), 1, "{list}");
    assert_eq!((&only[0]["id"], &only[0]["delivery"]), (&first["cancellation"], &first["id"]));
    let (status, _) = t.call("POST", &format!("{path}?tenant=acme"), None).await;
    assert_eq!(status, 404, "another tenant's");
}

#[tokio::test]
async fn many_are_called_off_by_a_filter_that_means_something() {
    let t = Test::new().await;
    let (one, two) = (t.one(json!({})).await, t.one(json!({})).await);
    let facts = (0..5).flat_map(|n| [&one, &two].map(|id| routed(&format!("e{n}"), id))).collect();
    t.journal("r", facts).await;
    t.journal("w", vec![held("e0", &one), held("e1", &two)]).await;
    let soon = Timestamp::from_millis(postrider_broker::now().as_millis() + 60_000).to_rfc3339();
    for (body, field) in [
        (json!({}), "webhook"),
        (json!({ "state": "pending" }), "webhook"),
        (json!({ "webhook": "wh_nobody" }), "webhook"),
        (json!({ "webhook": one, "state": "dead" }), "state"),
        (json!({ "webhook": one, "since": "yesterday" }), "since"),
        (json!({ "webhook": one, "until": soon }), "until"),
        (json!({ "webhook": one, "since": soon }), "since"),
        (
            json!({ "webhook": one, "since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z" }),
            "since",
        ),
        (json!({ "event_type": " " }), "event_type"),
        (json!({ "webhooks": [one] }), "webhooks"),
        (json!({ "webhook": one, "tenant": "no such" }), "tenant"),
    ] {
        let (status, answer) = t.post("/v1/cancellations", body.clone()).await;
        assert_eq!((status, answer["field"].as_str()), (422, Some(field)), "{body}: {answer}");
    }
    let (status, plan) = t.post("/v1/cancellations", json!({ "webhook": one, "plan": true })).await;
    assert_eq!((status, &plan["id"]), (200, &Value::Null));
    assert_eq!(
        (&plan["deliveries"], &plan["held"], &plan["state"]),
        (&json!(5), &json!(1), &json!("pending"))
    );
    let (_, plan) =
        t.post("/v1/cancellations", json!({ "event_type": "A", "state": "held", "plan": true })).await;
    assert_eq!((&plan["deliveries"], &plan["held"]), (&json!(2), &json!(2)));
    let (_, list) = t.call("GET", "/v1/cancellations", None).await;
    assert_eq!(list["items"], json!([]), "a plan calls off nothing");

    let body = json!({ "webhook": one }).to_string();
    let (status, _, made) = read(t.send(with_key("/v1/cancellations", &body, "k")).await).await;
    assert_eq!((status, &made["deliveries"], &made["held"]), (201, &json!(5), &json!(1)));
    assert!(made["kept_until"].as_str() > made["created_at"].as_str());
    let (_, _, again) = read(t.send(with_key("/v1/cancellations", &body, "k")).await).await;
    assert_eq!(again, made, "the same request has one effect");
    let state = async |event: &str, webhook: &str| {
        let (_, shown) = t.call("GET", &format!("/v1/deliveries/{}", delivery(event, webhook)), None).await;
        (shown["state"].clone(), shown["cancelling"].clone())
    };
    assert_eq!(state("e0", &one).await, (json!("cancelled"), json!(false)));
    assert_eq!(state("e1", &one).await, (json!("pending"), json!(true)));
    assert_eq!(state("e1", &two).await, (json!("pending"), json!(false)));
    let (_, more) = t.post("/v1/cancellations", json!({ "event_type": "A", "state": "held" })).await;
    assert_eq!((&more["deliveries"], &more["state"]), (&json!(1), &json!("held")));
    let (_, page) = t.call("GET", "/v1/cancellations?limit=1", None).await;
    assert_eq!(page["items"][0]["id"], more["id"]);
    let next = format!("/v1/cancellations?limit=1&cursor={}", page["next"].as_str().unwrap());
    assert_eq!(t.call("GET", &next, None).await.1["items"][0]["id"], made["id"]);
}

#[tokio::test]
async fn a_redelivery_says_what_becomes_of_it_or_why_there_is_none() {
    let t = Test::new().await;
    let webhook = t.one(json!({})).await;
    let webhook = webhook.as_str();
    let names = [
        "pending",
        "waiting",
        "called_off",
        "held",
        "delivered",
        "dead",
        "skipped",
        "paused",
        "disabled",
        "expired",
    ];
    let names: Vec<&str> = names.into_iter().chain(["early", "bodiless", "twice"]).collect();
    t.journal("r", names.iter().map(|event| routed(event, webhook)).collect()).await;
    let due = Timestamp::from_millis(postrider_broker::now().as_millis() + 60_000);
    let mut facts = vec![held("held", webhook), attempt("waiting", webhook, "http_5xx", then(), Some(due))];
    facts.push(done("delivered", webhook, End::Delivered, ""));
    facts.push(done("skipped", webhook, End::Skipped, "webhook_disabled"));
    facts.extend(
        names[5..]
            .iter()
            .filter(|event| **event != "skipped")
            .map(|event| done(event, webhook, End::Dead, "exhausted")),
    );
    t.journal("w", facts).await;
    let path = |event: &str| format!("/v1/deliveries/{}/redeliver", delivery(event, webhook));
    let again = async |event: &str| t.call("POST", &path(event), None).await;
    t.call("POST", &format!("/v1/deliveries/{}/cancel", delivery("called_off", webhook)), None).await;

    assert_eq!(again("nothing").await.0, 404);
    let (status, body) = again("pending").await;
    assert_eq!((status, &body["code"], &body["next_at"]), (409, &json!("not_final"), &Value::Null));
    let (status, body) = again("waiting").await;
    assert_eq!((status, &body["next_at"]), (409, &json!(due.to_rfc3339())), "{body}");
    let (status, body) = again("called_off").await;
    assert_eq!((status, &body["cancelling"]), (409, &json!(true)), "{body}");
    let (status, body) = again("held").await;
    assert_eq!((status, &body["held"]), (409, &json!(true)));
    assert!(body["hint"].as_str().unwrap().contains("Resume"), "{body}");

    for event in ["delivered", "dead", "skipped"] {
        let (status, body) = again(event).await;
        assert_eq!(
            (status, &body["series"], &body["webhook_state"]),
            (202, &json!(2), &json!("active")),
            "{event}"
        );
        assert_eq!(body["note"], Value::Null, "{event}");
        assert_eq!(again(event).await.0, 409, "it is under way again");
    }
    let turn = async |change: Value| {
        let path = format!("/v1/webhooks/{webhook}");
        assert_eq!(t.call("PATCH", &path, Some(&change.to_string())).await.0, 200);
    };
    for (event, change, state, word) in [
        ("paused", json!({ "state": "paused" }), "paused", "held until it is resumed"),
        ("disabled", json!({ "state": "disabled" }), "disabled", "stays so"),
        (
            "early",
            json!({ "state": "active", "active_from": "2100-01-01T00:00:00Z" }),
            "active",
            "not active yet",
        ),
    ] {
        turn(change).await;
        let (status, body) = again(event).await;
        assert_eq!((status, &body["webhook_state"]), (202, &json!(state)), "{event}: {body}");
        assert!(body["note"].as_str().unwrap().contains(word), "{body}");
    }
    turn(json!({ "active_from": null, "expires_at": "2100-01-01T00:00:00Z" })).await;
    assert_eq!(again("expired").await.1["note"], Value::Null, "it has not yet");

    // Twice at once: one of them wins. With one key: the same answer, and one effect.
    let twice = path("twice");
    let (a, b) = tokio::join!(t.call("POST", &twice, None), t.call("POST", &twice, None));
    let mut answers = [a.0, b.0];
    answers.sort_unstable();
    assert_eq!(answers, [202, 409], "{a:?} {b:?}");
    t.journal("w2", vec![done("twice", webhook, End::Dead, "x")]).await;
    let mut ended = done("twice", webhook, End::Dead, "exhausted");
    if let Fact::Done(fact) = &mut ended {
        fact.series = 2;
    }
    t.journal("w3", vec![ended]).await;
    let (status, _, first) = read(t.send(with_key(&twice, "", "once")).await).await;
    assert_eq!((status, &first["series"]), (202, &json!(3)));
    let (status, headers, second) = read(t.send(with_key(&twice, "", "once")).await).await;
    assert_eq!((status, second), (202, first));
    assert!(headers.contains_key("idempotency-replayed"));

    sqlx::query("DELETE FROM bodies").execute(t.api.store.writer()).await.unwrap();
    let (status, body) = again("bodiless").await;
    assert_eq!((status, &body["code"]), (409, &json!("body_gone")));
    assert_eq!(t.call("DELETE", &format!("/v1/webhooks/{webhook}"), None).await.0, 204);
    let (status, body) = again("bodiless").await;
    assert_eq!((status, &body["code"]), (409, &json!("webhook_deleted")));
}

#[tokio::test]
async fn a_webhook_shows_how_near_it_is_to_being_disabled_and_what_it_missed() {
    let t = Test::new().await;
    for (value, ok) in
        [(0u64, true), (60_000, true), (2_592_000_000, true), (59_999, false), (2_592_000_001, false)]
    {
        let body = json!({ "name": "n", "url": "https://example.com/", "subscription": { "all": true },
            "disable_after_ms": value });
        let (status, answer) = t.post("/v1/webhooks", body).await;
        assert_eq!(status == 201, ok, "{value}: {answer}");
        assert!(ok || answer["field"] == "disable_after_ms", "{answer}");
    }
    let webhook = t.one(json!({ "disable_after_failures": 4, "disable_after_ms": 86_400_000 })).await;
    let path = format!("/v1/webhooks/{webhook}");
    let (_, shown) = t.call("GET", &path, None).await;
    assert_eq!(
        (&shown["disable_after_ms"], &shown["effective"]["disable_after_ms"]),
        (&json!(86_400_000), &json!(86_400_000))
    );
    assert_eq!(shown["health"]["disabled_by_failure_from"], Value::Null);
    let (_, plain) = t.call("GET", &format!("/v1/webhooks/{}", t.one(json!({})).await), None).await;
    assert_eq!(
        (&plain["disable_after_ms"], &plain["effective"]["disable_after_ms"]),
        (&Value::Null, &json!(432_000_000))
    );

    let began = postrider_broker::now().as_millis() - 18 * 3_600_000;
    let at = |hours: i64| Timestamp::from_millis(began + hours * 3_600_000);
    let mut facts: Vec<Fact> = (0..4).map(|n| routed(&format!("e{n}"), &webhook)).collect();
    facts.extend((0..4).map(|n| attempt(&format!("e{n}"), &webhook, "timeout", at(n * 6), None)));
    facts.push(done("e0", &webhook, End::Dead, "exhausted"));
    t.journal("w", facts).await;
    let (_, shown) = t.call("GET", &path, None).await;
    let health = &shown["health"];
    assert_eq!(
        (&health["failed_attempts"], &health["given_up_in_a_row"]),
        (&json!(4), &json!(1)),
        "{health}"
    );
    assert_eq!(
        (&health["given_up_percent"], &health["window_percent"]),
        (&json!(25), &json!(75)),
        "{health}"
    );
    let first = Timestamp::parse_rfc3339(health["failing_since"].as_str().unwrap()).unwrap();
    assert_eq!(health["disabled_by_failure_from"], json!(first.plus_ms(86_400_000).to_rfc3339()));

    // The receiver is gone; what comes now is skipped, and said when somebody enables the webhook.
    t.journal("w2", vec![routed("gone", &webhook), attempt("gone", &webhook, "http_410", then(), None)])
        .await;
    let (_, shown) = t.call("GET", &path, None).await;
    assert_eq!(
        (&shown["state"], shown["disabled_reason"].as_str().is_some_and(|why| why.contains("410"))),
        (&json!("disabled"), true)
    );
    let skipped = ["s0", "s1"]
        .iter()
        .flat_map(|event| [routed(event, &webhook), done(event, &webhook, End::Skipped, "webhook_disabled")]);
    t.journal("w3", skipped.collect()).await;
    let (status, enabled) = t.call("POST", &format!("{path}/enable"), None).await;
    assert_eq!((status, &enabled["skipped_while_disabled"]["deliveries"]), (200, &json!(2)), "{enabled}");
    assert!(enabled["skipped_while_disabled"]["hint"].as_str().unwrap().contains("/v1/replays"), "{enabled}");
    let (_, shown) = t.call("GET", &path, None).await;
    assert_eq!(
        (&shown["health"]["failed_attempts"], &shown["health"]["failing_since"]),
        (&json!(0), &Value::Null)
    );
    let (_, again) = t.call("POST", &format!("{path}/enable"), None).await;
    assert_eq!(again["skipped_while_disabled"], Value::Null, "nothing was enabled");
}
