//! What is said of the broker's queues. That it is true is tested with a broker, in `tests/it`.

use postrider_broker::topology::Difference;
use postrider_core::depths::INTERVAL_MS;

use super::*;

#[tokio::test]
async fn every_queue_is_listed_beside_what_it_should_be() {
    let t = Test::new().await;
    let full = Looked { depth: Some(Depth { ready: 7, consumers: 2 }), difference: None, compared: true };
    t.sheet.looked.lock().unwrap().insert("postrider.deliveries.retry.0".into(), full.clone());
    t.sheet.looked.lock().unwrap().insert("postrider.config".into(), full.clone());
    let list = t.call("GET", "/v1/queues", None).await.1;
    let items = list["items"].as_array().unwrap();
    let named = |name: &str| items.iter().find(|queue| queue["name"] == name).unwrap();
    assert_eq!(
        *named("postrider.deliveries.retry.0"),
        json!({
            "name": "postrider.deliveries.retry.0", "role": "retry", "type": "quorum",
            "expected": { "x-queue-type": "quorum", "x-queue-leader-locator": "balanced", "x-delivery-limit": 1000,
                "x-dead-letter-exchange": "postrider.poison", "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish" },
            "ready": 7, "consumers": 2, "delay_ms": null, "trend_per_minute": null, "empty_in_ms": null, "drift": null,
        })
    );
    assert_eq!(named("postrider.delay.1000.l04")["delay_ms"], 16_000);
    assert_eq!(named("postrider.park.600")["delay_ms"], 600_000);
    assert_eq!(named("postrider.events")["expected"]["x-single-active-consumer"], true);
    // What AMQP says of a stream is not what people would take it for.
    let stream = named("postrider.config");
    assert_eq!(
        (&stream["type"], &stream["ready"], &stream["consumers"]),
        (&json!("stream"), &Value::Null, &Value::Null)
    );
    assert_eq!((&list["next"], &list["shards"]), (&Value::Null, &Value::Null));
    assert_eq!((&list["arguments_compared"], items.len()), (&json!(true), 36));
    let edges = list["edges"].as_array().unwrap();
    assert!(
        edges.contains(&json!({ "from": "queue:fresh", "to": "worker", "label": "consumed" })),
        "{edges:?}"
    );
}

#[tokio::test]
async fn what_is_missing_or_different_is_said() {
    let t = Test::new().await;
    let missing = Looked {
        depth: None,
        difference: Some(Difference::Missing("postrider.dead".into())),
        compared: false,
    };
    let other = Looked {
        depth: Some(Depth { ready: 0, consumers: 0 }),
        difference: Some(Difference::Other {
            name: "postrider.journal".into(),
            argument: "x-overflow".into(),
            detail: "received none".into(),
        }),
        compared: true,
    };
    let denied = Looked { depth: Some(Depth { ready: 0, consumers: 0 }), difference: None, compared: false };
    let put = |name: &str, looked| t.sheet.looked.lock().unwrap().insert(format!("postrider.{name}"), looked);
    put("dead", missing);
    put("journal", other);
    let of = |list: &Value, name: &str| {
        let items = list["items"].as_array().unwrap();
        items.iter().find(|queue| queue["name"] == format!("postrider.{name}")).unwrap().clone()
    };
    let list = t.call("GET", "/v1/queues", None).await.1;
    let drift = json!({ "kind": "missing", "argument": null, "detail": null });
    assert_eq!((&of(&list, "dead")["drift"], &of(&list, "dead")["ready"]), (&drift, &Value::Null));
    let drift = json!({ "kind": "arguments", "argument": "x-overflow", "detail": "received none" });
    assert_eq!(of(&list, "journal")["drift"], drift);
    assert_eq!(list["arguments_compared"], true, "of what is missing there is nothing to compare");

    // A user that may not configure queues sees only what is missing.
    let t = Test::new().await;
    t.sheet.looked.lock().unwrap().insert("postrider.seen".into(), denied);
    let list = t.call("GET", "/v1/queues", None).await.1;
    assert_eq!((&list["arguments_compared"], &of(&list, "seen")["drift"]), (&json!(false), &Value::Null));
}

#[tokio::test]
async fn without_the_broker_nothing_is_made_up() {
    let t = Test::new().await;
    t.sheet.away.store(true, Ordering::SeqCst);
    let (status, headers, problem) = read(t.send(request("GET", "/v1/queues", None)).await).await;
    assert_eq!((status, problem["code"].as_str()), (503, Some("broker_unavailable")), "{problem}");
    assert!(headers.contains_key(header::RETRY_AFTER));
    let (status, body) = t.call("GET", "/v1/status", None).await;
    assert_eq!((status, &body["broker_session"]["connected"]), (200, &json!(false)));
}

/// Notes that these queues held so much in each of the last intervals.
fn measured(t: &Test, ready: &[[(&'static str, u32); 2]]) {
    let now = postrider_broker::now();
    for (ago, ready) in (0..).zip(ready.iter().rev()).collect::<Vec<_>>().into_iter().rev() {
        let ready = ready.map(|(name, ready)| (name, Some(ready)));
        t.api.queues.depths().note(now.minus_ms(ago * INTERVAL_MS), ready);
    }
}

#[tokio::test]
async fn what_was_measured_is_told_by_role_and_as_a_trend() {
    const FRESH: &str = "postrider.deliveries.fresh.0";
    const DELAYS: [&str; 2] = ["postrider.delay.1000.l00", "postrider.delay.1000.l01"];
    let t = Test::new().await;
    let full = Looked { depth: Some(Depth { ready: 60, consumers: 2 }), difference: None, compared: true };
    t.sheet.looked.lock().unwrap().insert(FRESH.into(), full);
    let list = t.call("GET", "/v1/queues", None).await.1;
    assert_eq!(list["history"], json!({ "interval_ms": 15_000, "since": null, "points": [] }));
    let depths =
        [[(FRESH, 120), (DELAYS[0], 1)], [(FRESH, 100), (DELAYS[0], 2)], [(FRESH, 60), (DELAYS[0], 4)]];
    measured(&t, &depths);
    let list = t.call("GET", "/v1/queues", None).await.1;
    let points = list["history"]["points"].as_array().unwrap();
    assert_eq!(points.len(), 3, "{points:?}");
    assert_eq!(points[0]["ready"], json!({ "fresh": 120, "delay": 1 }));
    assert_eq!(points[2]["ready"], json!({ "fresh": 60, "delay": 4 }));
    let named = |name: &str| {
        let items = list["items"].as_array().unwrap();
        items.iter().find(|queue| queue["name"] == name).unwrap().clone()
    };
    let told = |name: &str| (named(name)["trend_per_minute"].clone(), named(name)["empty_in_ms"].clone());
    assert_eq!(told(FRESH), (json!(-120.0), json!(30_000)));
    assert_eq!(told(DELAYS[0]), (json!(6.0), Value::Null));
    assert_eq!(told(DELAYS[1]), (Value::Null, Value::Null), "it was not measured");
    let one = t.call("GET", &format!("/v1/queues/{FRESH}"), None).await.1;
    let ready: Vec<&Value> =
        one["history"]["points"].as_array().unwrap().iter().map(|point| &point["ready"]).collect();
    assert_eq!(ready, [120, 100, 60]);
    assert_eq!(one["history"]["since"], list["history"]["since"]);
    assert_eq!((&one["trend_per_minute"], &one["ready"]), (&json!(-120.0), &json!(60)));
}

#[tokio::test]
async fn one_queue_is_told_with_its_neighbours() {
    let t = Test::new().await;
    let (status, one) = t.call("GET", "/v1/queues/postrider.deliveries.retry.0", None).await;
    assert_eq!(status, 200, "{one}");
    let list = t.call("GET", "/v1/queues", None).await.1;
    let listed = list["items"].as_array().unwrap().iter().find(|queue| queue["name"] == one["name"]).unwrap();
    for (member, value) in listed.as_object().unwrap() {
        assert_eq!(one[member], *value, "{member}");
    }
    let edge = |from: &str, to: &str, label: &str| json!({ "from": from, "to": to, "label": label });
    let writers = one["writers"].as_array().unwrap();
    assert!(writers.contains(&edge("worker", "queue:retry", "publishes")), "{writers:?}");
    assert!(writers.contains(&edge("queue:delay", "queue:retry", "expires")), "{writers:?}");
    let readers =
        json!([edge("queue:retry", "worker", "consumed"), edge("queue:retry", "queue:poison", "poisons")]);
    assert_eq!(one["readers"], readers);
    assert_eq!((&one["arguments_compared"], &one["unknown_because"]), (&json!(true), &Value::Null));
    let stream = t.call("GET", "/v1/queues/postrider.seen", None).await.1;
    assert_eq!((&stream["type"], &stream["history"]), (&json!("stream"), &Value::Null));
    let (status, problem) = t.call("GET", "/v1/queues/postrider.nothing", None).await;
    assert_eq!((status, &problem["code"]), (404, &json!("not_found")), "{problem}");
    assert!(problem["hint"].as_str().unwrap().contains("GET /v1/queues"), "{problem}");
}

#[tokio::test]
async fn without_the_broker_a_queue_says_what_was_before() {
    const EVENTS: &str = "postrider.events";
    let t = Test::new().await;
    measured(&t, &[[(EVENTS, 5), ("postrider.dead", 0)]]);
    t.sheet.away.store(true, Ordering::SeqCst);
    let (status, one) = t.call("GET", "/v1/queues/postrider.events", None).await;
    assert_eq!(status, 200, "{one}");
    let unknown = (&one["ready"], &one["consumers"], &one["drift"], &one["at"]);
    assert_eq!(unknown, (&Value::Null, &Value::Null, &Value::Null, &Value::Null));
    assert!(one["unknown_because"].as_str().is_some_and(|why| !why.is_empty()), "{one}");
    assert_eq!(
        (&one["arguments_compared"], &one["history"]["points"][0]["ready"]),
        (&json!(false), &json!(5))
    );
    assert_eq!(one["expected"]["x-single-active-consumer"], true);
    // Which shards there are nobody knows here: it may be one of them.
    let (status, _) = t.call("GET", "/v1/queues/postrider.deliveries.fresh.7", None).await;
    assert_eq!(status, 503);
}
