//! Reminders go out once, whatever happens to control in between.

use postrider_testkit::eventually;
use postrider_testkit::rabbit::{Broker, Vhost};
use reqwest::Method;
use serde_json::json;

use crate::system::System;

/// A day so many days from now, in UTC.
fn day(from_now: i64) -> String {
    let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let at = i64::try_from(now_ms).unwrap() + from_now * 86_400_000;
    postrider_core::Timestamp::from_millis(at).to_rfc3339()[..10].to_owned()
}

#[tokio::test]
async fn a_reminder_goes_out_once_over_restarts_moved_dates_and_changed_lead_times() {
    let vhost = Vhost::create(&Broker::shared().await, "reminders").await;
    let system = System::new(vhost.url()).await;
    let [control, router, worker] = system.start_all_roles().await;
    system.import("open-loyalty").await;
    system.webhook("/hook", &json!({ "subscription": { "event_types": ["PointsWillExpire"] } })).await;
    let settings = json!({ "lead_days": { "PointsWillExpire": 30 } });
    system.call(Method::PATCH, "/v1/settings", Some(&settings)).await;

    let put = async |key: &str, date: String| {
        let reminder = json!({ "event_type": "PointsWillExpire", "date": date, "data": { "units": key } });
        let (status, body) = system.call(Method::PUT, &format!("/v1/reminders/{key}"), Some(&reminder)).await;
        assert!(status.is_success(), "{status} {body}");
        body
    };
    // Inside its window: at once. The same again changes nothing.
    put("due", day(10)).await;
    put("due", day(10)).await;
    system.receiver.wait_for(1).await;
    // Outside of it: not yet; cancelled: never.
    assert_eq!(put("later", day(60)).await["state"], "pending");
    put("never", day(60)).await;
    let (status, _) = system.call(Method::DELETE, "/v1/reminders/never", None).await;
    assert!(status.is_success());
    // A date in the past, and a type without a lead time, are refused by name.
    for (date, event_type) in [(day(-2), "PointsWillExpire"), (day(60), "CustomerUpdated")] {
        let reminder = json!({ "event_type": event_type, "date": date });
        let (status, body) = system.call(Method::PUT, "/v1/reminders/bad", Some(&reminder)).await;
        assert!(status.is_client_error(), "{status} {body}");
    }

    // A longer lead time makes the later one due, and control dies at that moment: it catches up at its start, without
    // doubles.
    let settings = json!({ "lead_days": { "PointsWillExpire": 90 } });
    let (status, body) = system.call(Method::PATCH, "/v1/settings", Some(&settings)).await;
    assert!(status.is_success(), "{body}");
    control.process.kill();
    let control = system.start("control").ready().await;
    eventually("the later one goes out", async || system.receiver.count() >= 2).await;
    // Moved after it went out: another date, another event, also once.
    put("due", day(20)).await;
    eventually("the moved one goes out", async || system.receiver.count() >= 3).await;
    put("due", day(10)).await;
    // Looked for by date: when a later date of another reminder is out, nothing that was due before it is still to come.
    put("last", day(30)).await;
    eventually("the last one goes out", async || {
        system.receiver.requests().iter().any(|request| request.json()["data"]["units"] == "last")
    })
    .await;
    system.at_rest().await;

    let mut units: Vec<String> = system
        .receiver
        .requests()
        .iter()
        .map(|request| request.json()["data"]["units"].to_string())
        .collect();
    units.sort();
    assert_eq!(units, ["\"due\"", "\"due\"", "\"last\"", "\"later\""]);
    for role in [control, router, worker] {
        role.stop().await;
    }
}
