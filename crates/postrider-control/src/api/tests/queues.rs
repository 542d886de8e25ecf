//! What is said of the broker's queues. That it is true is tested with a broker, in `tests/it`.

use postrider_broker::topology::Difference;

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
            "ready": 7, "consumers": 2, "delay_ms": null, "drift": null,
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
