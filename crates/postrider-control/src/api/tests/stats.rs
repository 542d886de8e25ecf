//! What happened over time, as plots and sparklines get it.

use postrider_core::wire::{
    AttemptFact, DeadMessage, DeliveryRecord, EventFact, EventFate, EventRecord, Fact, JournalMessage, Owed,
    RequestTimes, SCHEMA,
};
use postrider_core::{DeliveryId, EventId, EventType, TenantId, Timestamp, WebhookId, event};

use super::*;
use crate::store::Entry;

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;

/// One webhook of the default tenant, and what happens to it.
struct History {
    webhook: WebhookId,
    now: Timestamp,
    facts: Vec<Fact>,
    letters: Vec<Entry>,
}

impl History {
    fn delivery(&self, id: &str) -> DeliveryId {
        DeliveryId::of(&TenantId::default_tenant(), &EventId::from_trusted(id), &self.webhook)
    }

    fn record(&self, id: &str, event_type: &str, minutes_ago: u64) -> Arc<EventRecord> {
        Arc::new(EventRecord {
            tenant: TenantId::default_tenant(),
            id: EventId::from_trusted(id),
            event_type: EventType::parse(event_type).unwrap(),
            time: "2026-11-21T20:00:00Z".into(),
            context: event::null(),
            data: event::null(),
            key: None,
            correlation_id: None,
            traceparent: None,
            accepted_at: self.now.minus_ms(minutes_ago * MINUTE_MS),
        })
    }

    fn event(&mut self, id: &str, event_type: &str, minutes_ago: u64) {
        let record = self.record(id, event_type, minutes_ago);
        let owed = Owed { delivery: self.delivery(id), webhook: self.webhook.clone() };
        self.facts.push(Fact::Event(EventFact {
            tenant: record.tenant.clone(),
            event_id: record.id.clone(),
            at: record.accepted_at,
            fate: EventFate::Routed(vec![owed]),
            event: Some(record),
            marks: Vec::new(),
        }));
    }

    fn attempt(&mut self, id: &str, n: u32, minutes_ago: u64, class: &str, status: Option<u16>) {
        self.facts.push(Fact::Attempt(AttemptFact {
            delivery: self.delivery(id),
            series: 1,
            n,
            webhook: self.webhook.clone(),
            at: self.now.minus_ms(minutes_ago * MINUTE_MS),
            duration_ms: 150,
            url: "https://example.com/".into(),
            class: class.to_owned().into(),
            status,
            error: None,
            response_body: None,
            response_headers: Vec::new(),
            next_at: None,
            worker: "worker".into(),
            repeats: 0,
            times: RequestTimes::default(),
            remote: None,
        }));
    }

    fn dead(&mut self, id: &str, event_type: &str, minutes_ago: u64) {
        let event = self.record(id, event_type, minutes_ago);
        let delivery = DeliveryRecord {
            id: self.delivery(id),
            webhook: self.webhook.clone(),
            revision: 2,
            epoch: postrider_core::Epoch::from_trusted("ep_1"),
            series: 1,
            attempt: 2,
            born: self.now,
            due: None,
            crashes: 0,
            unknown_since: None,
            parked: 0,
            asked: false,
            test: false,
        };
        let at = self.now.minus_ms(minutes_ago * MINUTE_MS);
        let (reason, class) = ("exhausted".into(), "timeout".into());
        self.letters.push(Entry::Dead(DeadMessage { schema: SCHEMA, event, delivery, reason, class, at }));
    }

    /// It happened, and is added up.
    async fn happened(self, t: &Test) {
        let Self { facts, letters, now, .. } = self;
        let message = JournalMessage { schema: SCHEMA, writer: "w".into(), first: 0, duplicates: 0, facts };
        let entries: Vec<Entry> = std::iter::once(Entry::Journal(message)).chain(letters).collect();
        t.api.store.record(&entries, now).await.unwrap();
        assert!(!t.api.store.roll_up(now).await.unwrap());
    }
}

/// A webhook that has met good and bad: two deliveries of type A, one at the second attempt, and one of type B, which is dead.
async fn with_history() -> (Test, String, Timestamp) {
    let t = Test::new().await;
    let webhook = t.webhook(json!({})).await["id"].as_str().unwrap().to_owned();
    let now = postrider_broker::now();
    let mut history = History {
        webhook: WebhookId::from_trusted(webhook.clone()),
        now,
        facts: Vec::new(),
        letters: Vec::new(),
    };
    history.event("a1", "A", 91);
    history.event("a2", "A", 91);
    history.event("b", "B", 91);
    history.attempt("a1", 1, 90, "none", Some(204));
    history.attempt("a2", 1, 90, "http_429", Some(429));
    history.attempt("a2", 2, 40, "none", Some(200));
    history.attempt("b", 1, 40, "timeout", None);
    history.attempt("b", 2, 20, "http_5xx", Some(503));
    history.dead("b", "B", 20);
    history.happened(&t).await;
    (t, webhook, now)
}

fn since(now: Timestamp, ago_ms: u64) -> String {
    now.minus_ms(ago_ms).to_rfc3339()
}

/// The catalogue says how many events of each type the last day had, of this tenant alone.
#[tokio::test]
async fn event_types_are_told_with_what_came_of_them() {
    let t = Test::new().await;
    let one = |name| json!({ "name": name, "label": name, "category": "all", "description": name });
    let types = ["A", "C"].map(one);
    let catalogue = json!({
        "schema": 1, "product": { "id": "shop", "name": "Shop" },
        "category": [{ "id": "all", "label": "All" }],
        "event_type": types,
    });
    assert_eq!(t.call("POST", "/v1/tenants", Some(r#"{"id":"other"}"#)).await.0, 201);
    for tenant in ["default", "other"] {
        let path = format!("/v1/catalogues/shop?tenant={tenant}");
        assert_eq!(t.put(&path, &catalogue).await.0, 201);
    }
    let webhook = t.webhook(json!({})).await["id"].as_str().unwrap().to_owned();
    let webhook = WebhookId::from_trusted(webhook);
    let now = postrider_broker::now();
    let mut history = History { webhook, now, facts: Vec::new(), letters: Vec::new() };
    // B is in no catalogue; Postrider's own types are stored nowhere.
    for (id, event_type) in [("a1", "A"), ("a2", "A"), ("b", "B"), ("own", "postrider.delivery.dead")] {
        history.event(id, event_type, 91);
    }
    history.happened(&t).await;
    let volumes = async |tenant: &str| {
        let list = t.get(&format!("/v1/event-types?product=shop&tenant={tenant}")).await;
        let items = list["items"].as_array().unwrap().clone();
        items.iter().map(|item| item["events_24h"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(volumes("default").await, [2, 0]);
    assert_eq!(volumes("other").await, [0, 0]);
    assert_eq!(t.get("/v1/event-types/A").await["events_24h"], 2);
    assert_eq!(t.get("/v1/event-types/postrider.delivery.dead").await["events_24h"], 1);
}

/// Every bucket of a plot is there, one after the other, and together they are the totals.
fn assert_whole(stats: &Value) {
    let points = stats["points"].as_array().unwrap();
    let time = |value: &Value| Timestamp::parse_rfc3339(value.as_str().unwrap()).unwrap();
    let bucket_ms = stats["bucket_ms"].as_u64().unwrap();
    let (first, past) = (time(&stats["since"]), time(&stats["until"]));
    for (n, point) in points.iter().enumerate() {
        assert_eq!(time(&point["at"]), first.plus_ms(n as u64 * bucket_ms), "{point}");
    }
    assert_eq!(past, first.plus_ms(points.len() as u64 * bucket_ms));
    assert!((1..=200).contains(&points.len()), "{}", points.len());
    for name in ["delivered", "failed", "dead", "first_tried", "first_delivered"] {
        let sum: u64 = points.iter().map(|point| point[name].as_u64().unwrap()).sum();
        assert_eq!(stats["totals"][name], sum, "{name}");
    }
}

#[tokio::test]
async fn a_plot_is_of_what_happened_bucket_by_bucket() {
    let (t, webhook, now) = with_history().await;
    let stats = t.get(&format!("/v1/stats?since={}", since(now, 120 * MINUTE_MS))).await;
    assert_whole(&stats);
    assert_eq!(stats["bucket_ms"], MINUTE_MS);
    let totals = &stats["totals"];
    for (name, n) in [
        ("accepted", 3),
        ("delivered", 2),
        ("failed", 3),
        ("dead", 1),
        ("first_tried", 3),
        ("first_delivered", 1),
    ] {
        assert_eq!(totals[name], n, "{name}: {totals}");
    }
    let by_status = json!({ "2xx": 2, "3xx": 0, "4xx": 0, "429": 1, "5xx": 1, "none": 1 });
    assert_eq!(totals["by_status"], by_status);
    // A minute twice, and 51 minutes once: the middle of three lies three quarters of the way from 30 to 60 seconds.
    assert_eq!(totals["first_attempt_ms"]["p50"], 52_500);
    assert!(totals["delivered_ms"]["p99"].as_u64().unwrap() > 30 * MINUTE_MS, "{totals}");
    assert_eq!(totals["attempt_ms"]["p50"], 150, "half way from 100 to 200");
    assert!(stats.get("by_event_type").is_none());
    let busy: Vec<&Value> = stats["points"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|point| point["attempt_ms"] != Value::Null)
        .collect();
    assert_eq!(busy.len(), 3, "attempts began in three minutes");
    assert_eq!(
        (&busy[0]["delivered"], &busy[0]["failed"], &busy[2]["dead"]),
        (&json!(1), &json!(1), &json!(1))
    );

    // Of the webhook, which has no events of its own.
    let of_webhook =
        t.get(&format!("/v1/stats?webhook={webhook}&since={}", since(now, 120 * MINUTE_MS))).await;
    assert_whole(&of_webhook);
    assert_eq!(
        (&of_webhook["bucket_ms"], &of_webhook["totals"]["accepted"]),
        (&json!(10 * MINUTE_MS), &Value::Null)
    );
    assert_eq!(of_webhook["totals"]["by_status"], by_status);
    let types = json!([{ "event_type": "A", "delivered": 2, "failed": 1 }, { "event_type": "B", "delivered": 0, "failed": 2 }]);
    assert_eq!(of_webhook["by_event_type"], types);

    // Longer ranges are of longer buckets, with the same totals.
    for (range_ms, bucket_ms) in [
        (DAY_MS, 30 * MINUTE_MS),
        (7 * DAY_MS, 120 * MINUTE_MS),
        (30 * DAY_MS, DAY_MS),
        (100 * DAY_MS, DAY_MS),
    ] {
        for of in [String::new(), format!("&webhook={webhook}")] {
            let longer = t.get(&format!("/v1/stats?since={}{of}", since(now, range_ms))).await;
            assert_whole(&longer);
            assert_eq!(longer["bucket_ms"], bucket_ms);
            assert_eq!(longer["totals"]["by_status"], by_status, "{range_ms}{of}");
        }
    }
    let day = t.get("/v1/stats").await;
    assert_eq!((&day["bucket_ms"], &day["totals"]["accepted"]), (&json!(30 * MINUTE_MS), &json!(3)));
    // A part of it, and before.
    let part = format!("/v1/stats?since={}&until={}", since(now, 60 * MINUTE_MS), since(now, 30 * MINUTE_MS));
    let part = t.get(&part).await;
    assert_eq!((&part["totals"]["delivered"], &part["totals"]["failed"]), (&json!(1), &json!(1)));
    let before =
        format!("/v1/stats?since={}&until={}", since(now, 600 * MINUTE_MS), since(now, 500 * MINUTE_MS));
    let before = t.get(&before).await;
    assert_whole(&before);
    assert_eq!((&before["totals"]["accepted"], &before["totals"]["attempt_ms"]), (&json!(0), &Value::Null));
}

#[tokio::test]
async fn sparklines_are_those_of_the_webhooks_that_are_asked_for() {
    let (t, webhook, now) = with_history().await;
    let list = t.get(&format!("/v1/stats/webhooks?webhook=wh_none&webhook={webhook}&webhook=wh_none")).await;
    let items = list["items"].as_array().unwrap();
    assert_eq!(
        items.iter().map(|item| item["webhook"].as_str().unwrap()).collect::<Vec<_>>(),
        ["wh_none", &webhook]
    );
    assert_eq!(list["bucket_ms"], 60 * MINUTE_MS);
    let none = vec![json!({ "delivered": 0, "failed": 0 }); 24];
    let nothing = json!({ "webhook": "wh_none", "delivered": 0, "failed": 0, "p95_ms": null, "last_at": null, "points": none });
    assert_eq!(items[0], nothing);
    assert_eq!(
        (&items[1]["delivered"], &items[1]["failed"], &items[1]["p95_ms"]),
        (&json!(2), &json!(3), &json!(195))
    );
    assert_eq!(items[1]["last_at"], since(now, 20 * MINUTE_MS));
    let points = items[1]["points"].as_array().unwrap();
    let sum = |name: &str| points.iter().map(|point| point[name].as_u64().unwrap()).sum::<u64>();
    assert_eq!((points.len(), sum("delivered"), sum("failed")), (24, 2, 3));
    // The last four hours in 24 buckets; and as many webhooks as may be asked for.
    let many: Vec<String> = (0..199).map(|n| format!("wh_{n:032}")).chain([webhook.clone()]).collect();
    let path = format!("/v1/stats/webhooks?since={}&webhook={}", since(now, 60 * MINUTE_MS), many.join(","));
    let list = t.get(&path).await;
    assert_eq!((&list["bucket_ms"], &list["items"][199]["failed"]), (&json!(10 * MINUTE_MS), &json!(3)));
    for (query, field) in [
        (String::new(), "webhook"),
        ("webhook=".to_owned(), "webhook"),
        (format!("webhook={},one-more", many.join(",")), "webhook"),
        ("webhook=a&since=x".to_owned(), "since"),
        (format!("webhook=a&since={}", since(now, 9 * DAY_MS)), "since"),
        ("webhook=a&since=2099-01-01T00:00:00Z".to_owned(), "since"),
        ("webhook=a&colour=red".to_owned(), "colour"),
    ] {
        let (status, problem) = t.call("GET", &format!("/v1/stats/webhooks?{query}"), None).await;
        assert_eq!((status, problem["field"].as_str()), (422, Some(field)), "{query}: {problem}");
    }
}

#[tokio::test]
async fn a_range_that_cannot_be_is_refused_by_name() {
    let t = Test::new().await;
    for (query, field) in [
        ("since=yesterday", "since"),
        ("until=tomorrow", "until"),
        ("since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z", "until"),
        ("since=2026-01-01T00:00:00Z&until=2026-01-01T00:00:00Z", "until"),
        ("since=2025-01-01T00:00:00Z&until=2026-01-01T00:00:00Z", "since"),
        ("colour=red", "colour"),
    ] {
        let (status, problem) = t.call("GET", &format!("/v1/stats?{query}"), None).await;
        assert_eq!((status, problem["field"].as_str()), (422, Some(field)), "{query}: {problem}");
    }
}

/// Deliveries are found by how their newest attempt ended, and by how many there were.
#[tokio::test]
async fn deliveries_are_listed_by_their_attempts() {
    let (t, webhook, _) = with_history().await;
    for (query, expected) in [
        ("class=none", &["a1", "a2"][..]),
        ("class=http_5xx", &["b"]),
        ("class=timeout", &[]),
        ("status=200", &["a2"]),
        ("status=2xx", &["a1", "a2"]),
        ("status=5xx", &["b"]),
        ("status=429", &[]),
        ("status=none", &[]),
        ("attempts_from=2", &["a2", "b"]),
        ("attempts_from=2&status=2xx&class=none", &["a2"]),
        ("attempts_from=3", &[]),
    ] {
        for of in [String::new(), format!("&webhook={webhook}")] {
            let list = t.get(&format!("/v1/deliveries?{query}{of}")).await;
            let mut found: Vec<&str> = list["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|item| item["event"].as_str().unwrap())
                .collect();
            found.sort_unstable();
            assert_eq!(found, expected, "{query}{of}");
        }
    }
    for (query, field) in [
        ("class=gone", "class"),
        ("status=gone", "status"),
        ("status=0xx", "status"),
        ("status=xx", "status"),
        ("status=42", "status"),
        ("status=%2B429", "status"),
        ("status=99999", "status"),
        ("attempts_from=-1", "attempts_from"),
        ("attempts_from=x", "attempts_from"),
    ] {
        let (status, problem) = t.call("GET", &format!("/v1/deliveries?{query}"), None).await;
        assert_eq!((status, problem["field"].as_str()), (422, Some(field)), "{query}: {problem}");
    }
}
