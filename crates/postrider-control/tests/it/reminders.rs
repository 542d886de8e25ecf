//! Reminders: the API, and what goes out.

use postrider_broker::{Consumer, Incoming};
use postrider_core::reminder::{Day, Schedule, event_id};
use postrider_core::{TenantId, Timestamp};
use postrider_testkit::{eventually, eventually_some, patience};
use serde_json::{Value, json};

use crate::{Control, Place};

/// So many days from today, in UTC.
fn ahead(days: i32) -> Day {
    Schedule::new("UTC", "09:00").unwrap().day_of(postrider_broker::now()).plus(days)
}

impl Control {
    async fn put(&self, path: &str, body: Value) -> (u16, Value) {
        self.call("PUT", path, body).await
    }

    async fn lead_days(&self, event_type: &str, days: impl Into<Value>) {
        let body = json!({ "lead_days": { event_type: days.into() } });
        let (status, answer) = self.call("PATCH", "/v1/settings", body).await;
        assert_eq!(status, 200, "{answer}");
    }
}

async fn next(consumer: &mut Consumer) -> Incoming {
    tokio::time::timeout(patience(), consumer.next()).await.expect("an event comes").unwrap()
}

#[tokio::test]
async fn a_reminder_goes_out_once_when_it_is_due() {
    let place = Place::new("reminders").await;
    let control = place.start().await.ready().await;
    let mut events = place.session.consume(&place.session.names().events(), 100).await.unwrap();
    control.lead_days("CouponWillExpire", 7).await;

    let date = ahead(30);
    let body = format!(
        r#"{{"event_type":"CouponWillExpire","date":"{date}","data":{{ "coupon" : 1.50 }},"current_context":{{"by":"x"}}}}"#
    );
    let request =
        control.http.put(format!("{}/v1/reminders/coupon%2F1", control.base)).bearer_auth(crate::TOKEN);
    let response =
        request.header("content-type", "application/json").body(body.clone()).send().await.unwrap();
    assert_eq!(response.status(), 201);
    let made: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    let id = event_id(&TenantId::default_tenant(), "coupon/1", date);
    assert_eq!(
        (&made["state"], &made["date"], &made["due_at"], &made["event_id"]),
        (
            &json!("pending"),
            &json!(date.to_string()),
            &json!(format!("{}T09:00:00Z", date.plus(-7))),
            &json!(id.as_str())
        )
    );
    // The same again changes nothing.
    let given: Value = serde_json::from_str(&body).unwrap();
    let (status, again) = control.put("/v1/reminders/coupon%2F1", given.clone()).await;
    assert_eq!(status, 200);
    assert_ne!(again["updated_at"], Value::Null);

    // A longer lead counts at once, also for what is pending.
    control.lead_days("CouponWillExpire", 60).await;
    let event = next(&mut events).await;
    assert_eq!((event.routing_key(), event.message_id()), ("default", Some(id.as_str())));
    assert!(
        event.header_str("postrider-revision").is_some() && event.header_str("postrider-epoch").is_some()
    );
    let body: Value = serde_json::from_slice(event.body()).unwrap();
    assert!(Timestamp::parse_rfc3339(body["event_time"].as_str().unwrap()).is_some());
    assert_eq!(
        body,
        json!({ "event_type": "CouponWillExpire", "event_time": body["event_time"], "id": id.as_str(),
            "key": "coupon/1", "data": { "coupon": 1.5 }, "current_context": { "by": "x" } })
    );
    eventually("it is shown as sent", async || {
        control.get("/v1/reminders/coupon%2F1").await["state"] == "sent"
    })
    .await;
    let (status, problem) = control.call("DELETE", "/v1/reminders/coupon%2F1", Value::Null).await;
    assert_eq!((status, &problem["code"]), (409, &json!("reminder_sent")));

    // Moved: sent for that date too. Moved back: that was sent. Inside its window when it is put: at once.
    let moved = json!({ "event_type": "CouponWillExpire", "date": ahead(31).to_string() });
    assert_eq!(control.put("/v1/reminders/coupon%2F1", moved).await.0, 200);
    let second = event_id(&TenantId::default_tenant(), "coupon/1", ahead(31));
    assert_eq!(next(&mut events).await.message_id(), Some(second.as_str()));
    let (status, back) = control.put("/v1/reminders/coupon%2F1", given).await;
    assert_eq!((status, &back["state"], back["sent_at"].is_string()), (200, &json!("sent"), true));

    // What comes next is something else: nothing was sent twice, also not after a restart.
    control.stop().await;
    let control = place.start().await.ready().await;
    let other = json!({ "event_type": "CouponWillExpire", "date": ahead(1).to_string() });
    assert_eq!(control.put("/v1/reminders/last", other).await.0, 201);
    let last = event_id(&TenantId::default_tenant(), "last", ahead(1));
    assert_eq!(next(&mut events).await.message_id(), Some(last.as_str()));
    assert_eq!(control.metric("postrider_reminders_sent_total"), 1.0);
    control.stop().await;
}

#[tokio::test]
async fn what_came_due_while_nobody_ran_or_the_broker_was_away_goes_out() {
    let place = Place::new("reminders-away").await;
    let proxy = postrider_testkit::chaos::Proxy::start(place.vhost.broker().amqp_address()).await;
    proxy.cut().await;
    let control = place.start_at(place.vhost.url_through(proxy.addr())).await;
    eventually("the API answers", async || control.part("api").is_ok()).await;
    control.lead_days("LevelWillExpire", 14).await;
    for n in 0..5 {
        let body = json!({ "event_type": "LevelWillExpire", "date": ahead(n).to_string() });
        assert_eq!(control.put(&format!("/v1/reminders/member-{n}"), body).await.0, 201);
    }
    eventually("they are sent as far as control can", async || {
        control.metric("postrider_reminders_sent_total") == 5.0
    })
    .await;
    control.kill().await;

    let control = place.start().await.ready().await;
    let queue = place.session.names().events();
    eventually("all of them are there", async || place.vhost.queue_depth(&queue).await == 5).await;
    let sent = control.get("/v1/reminders?state=sent&event_type=LevelWillExpire").await;
    assert_eq!(sent["items"].as_array().unwrap().len(), 5);
    control.stop().await;
}

#[tokio::test]
async fn reminders_are_listed_by_date_and_filtered() {
    let place = Place::new("reminders-list").await;
    let control = place.start().await.ready().await;
    control.lead_days("A", 0).await;
    control.lead_days("B", 10).await;
    for n in 0..6 {
        let event_type = if n % 2 == 0 { "A" } else { "B" };
        let body = json!({ "event_type": event_type, "date": ahead(100 - n).to_string(), "data": n });
        assert_eq!(control.put(&format!("/v1/reminders/k{n}"), body).await.0, 201);
    }
    assert_eq!(control.call("DELETE", "/v1/reminders/k3", Value::Null).await.0, 204);
    assert_eq!(
        control.call("DELETE", "/v1/reminders/k3", Value::Null).await.0,
        204,
        "it is cancelled already"
    );
    let keys = async |query: &str| -> Vec<String> {
        let page = control.get(&format!("/v1/reminders?{query}")).await;
        assert_eq!(page["next"], Value::Null, "{query}");
        let items = page["items"].as_array().unwrap();
        items.iter().map(|item| item["key"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(keys("").await, ["k5", "k4", "k3", "k2", "k1", "k0"]);
    assert_eq!(keys("state=pending").await, ["k5", "k4", "k2", "k1", "k0"]);
    assert_eq!(keys("state=cancelled").await, ["k3"]);
    assert_eq!(keys("event_type=B&state=pending").await, ["k5", "k1"]);
    assert_eq!(keys("event_type=C").await, [""; 0]);
    // A is due on its date, B ten days before.
    let before = format!("due_before={}T09:00:01Z", ahead(96));
    assert_eq!(keys(&before).await, ["k5", "k4", "k3", "k1"]);
    assert_eq!(keys(&format!("{before}&state=pending")).await, ["k5", "k4", "k1"]);
    assert_eq!(
        keys(&format!("due_before={}T09:00:00Z&event_type=A", ahead(96))).await,
        [""; 0],
        "not before itself"
    );

    let mut paged = Vec::new();
    let mut path = "/v1/reminders?state=pending&limit=2".to_owned();
    loop {
        let page = control.get(&path).await;
        paged.extend(page["items"].as_array().unwrap().iter().map(|item| item["data"].as_u64().unwrap()));
        let Some(cursor) = page["next"].as_str() else { break };
        path = format!("/v1/reminders?state=pending&limit=2&cursor={cursor}");
    }
    assert_eq!(paged, [5, 4, 2, 1, 0]);
    // Without a lead nothing is due, and nothing is lost.
    control.lead_days("A", Value::Null).await;
    let shown = control.get("/v1/reminders/k0").await;
    assert_eq!((&shown["state"], &shown["due_at"]), (&json!("pending"), &Value::Null));
    assert_eq!(keys(&before).await, ["k5", "k3", "k1"]);
    control.stop().await;
}

#[tokio::test]
async fn a_reminder_that_cannot_be_is_refused_and_says_why() {
    let place = Place::new("reminders-bad").await;
    let control = place.start().await.ready().await;
    control.lead_days("A", 7).await;
    let date = ahead(30).to_string();
    let large = "x".repeat(64 * 1024);
    for (key, body, field, says) in [
        ("k", json!({ "event_type": "A", "date": ahead(-1).to_string() }), "date", "is past"),
        ("k", json!({ "event_type": "A", "date": "2026-02-30" }), "date", "2026-12-24"),
        ("k", json!({ "event_type": "A", "date": "tomorrow" }), "date", "2026-12-24"),
        ("k", json!({ "event_type": "A", "date": "9999-12-31T23:59:59Z" }), "date", "9000-12-31"),
        ("k", json!({ "event_type": "B", "date": date }), "event_type", "how many days"),
        ("k", json!({ "event_type": " A", "date": date }), "event_type", "1 to 128"),
        ("k", json!({ "event_type": "A", "date": date, "data": large }), "data", "64 KiB"),
        (
            "k",
            json!({ "event_type": "A", "date": date, "current_context": large }),
            "current_context",
            "16 KiB",
        ),
        ("k", json!({ "event_type": "A" }), "date", "missing"),
        ("k", json!({ "event_type": "A", "date": date, "dat": 1 }), "dat", "no member"),
        ("%C3%BC", json!({ "event_type": "A", "date": date }), "key", "printable"),
        (&"x".repeat(129), json!({ "event_type": "A", "date": date }), "key", "1 to 128"),
    ] {
        let (status, problem) = control.put(&format!("/v1/reminders/{key}"), body).await;
        assert_eq!((status, &problem["field"]), (422, &json!(field)), "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(says), "{problem}");
        assert!(problem["hint"].as_str().is_some_and(|hint| hint.len() > 20), "{problem}");
    }
    let (_, problem) = control.put("/v1/reminders/k", json!({ "event_type": "B", "date": date })).await;
    assert!(problem["hint"].as_str().unwrap().contains("/v1/settings"), "{problem}");
    for (method, path) in [("GET", "/v1/reminders/k"), ("DELETE", "/v1/reminders/k")] {
        assert_eq!(control.call(method, path, Value::Null).await.0, 404);
    }
    let tenant = "/v1/reminders/k?tenant=nobody";
    assert_eq!(
        control.put(tenant, json!({ "event_type": "A", "date": date })).await.1["code"],
        "unknown_tenant"
    );
    assert_eq!(control.get("/v1/reminders").await["items"], json!([]));

    // A tenant with reminders stays; without them it can go.
    control.post("/v1/tenants", json!({ "id": "acme" })).await;
    let (status, _) =
        control.call("PATCH", "/v1/settings?tenant=acme", json!({ "lead_days": { "A": 7 } })).await;
    assert_eq!(status, 200);
    let body = json!({ "event_type": "A", "date": date });
    assert_eq!(control.put("/v1/reminders/k?tenant=acme", body).await.0, 201);
    let (status, problem) = control.call("DELETE", "/v1/tenants/acme", Value::Null).await;
    assert_eq!((status, &problem["code"]), (409, &json!("tenant_in_use")));
    assert_eq!(control.call("DELETE", "/v1/reminders/k?tenant=acme", Value::Null).await.0, 204);
    assert_eq!(control.call("DELETE", "/v1/tenants/acme", Value::Null).await.0, 204);
    control.stop().await;
}

/// The lead of a catalogue, by an alias, in the tenant's zone.
#[tokio::test]
async fn lead_days_come_from_the_catalogue_and_days_from_the_tenants_zone() {
    let place = Place::new("reminders-zone").await;
    let control = place.start().await.ready().await;
    let catalogue = json!({
        "schema": 1, "product": { "id": "loyalty", "name": "Loyalty" },
        "category": [{ "id": "coupon", "label": "Coupons" }],
        "event_type": [{ "name": "CouponWillExpire", "label": "Coupon will expire", "category": "coupon",
            "aliases": ["coupon will expire"], "description": "A coupon is close to its end.", "trigger": "scheduled",
            "lead_days": 3 }]
    });
    let (status, answer) = control.put("/v1/catalogues/loyalty", catalogue).await;
    assert_eq!(status, 201, "{answer}");
    let settings = json!({ "time_zone": "Asia/Tokyo", "send_at": "00:30" });
    assert_eq!(control.call("PATCH", "/v1/settings", settings).await.0, 200);
    // 20:00 in UTC is the next day in Tokyo.
    let given = json!({ "event_type": "coupon will expire", "date": format!("{}T20:00:00Z", ahead(50)) });
    let (status, made) = control.put("/v1/reminders/c", given).await;
    assert_eq!(status, 201, "{made}");
    assert_eq!(
        (&made["event_type"], &made["date"], &made["due_at"]),
        (
            &json!("CouponWillExpire"),
            &json!(ahead(51).to_string()),
            &json!(format!("{}T15:30:00Z", ahead(47)))
        )
    );
    let (status, problem) = control.call("DELETE", "/v1/catalogues/loyalty", Value::Null).await;
    assert_eq!((status, &problem["code"]), (409, &json!("catalogue_in_use")));
    assert_eq!(
        problem["uses"],
        json!([{ "kind": "type", "name": "CouponWillExpire", "webhooks": 0, "reminders": 1 }])
    );
    // The tenant's own number comes first.
    control.lead_days("coupon will expire", 5).await;
    let due = eventually_some("the reminder is shown", async || {
        control.get("/v1/reminders/c").await["due_at"].as_str().map(str::to_owned)
    })
    .await;
    assert_eq!(due, format!("{}T15:30:00Z", ahead(45)));
    control.stop().await;
}
