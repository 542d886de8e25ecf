//! What Postrider itself reports: changes of webhooks, failing and disabled ones, dead deliveries.

use postrider_testkit::rabbit::{Broker, Vhost};
use postrider_testkit::{Answer, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use crate::system::System;

const OWN: [&str; 6] = [
    "WEBHOOK_CREATED",
    "WEBHOOK_UPDATED",
    "WEBHOOK_DELETED",
    "postrider.webhook.failing",
    "postrider.webhook.disabled",
    "postrider.delivery.dead",
];

/// How often each type arrived at a path.
async fn heard(system: &System, path: &str) -> Vec<usize> {
    let requests = system.receiver.requests_to(path);
    let count = |event_type: &&str| {
        requests.iter().filter(|request| request.json()["event_type"] == **event_type).count()
    };
    OWN.iter().map(count).collect()
}

#[tokio::test]
async fn changes_and_troubles_of_webhooks_are_events_and_cause_no_others() {
    let vhost = Vhost::create(&Broker::shared().await, "own-events").await;
    let system = System::new(vhost.url()).await;
    let roles = system.start_all_roles().await;
    system.receiver.answer_by("/broken", |_| Answer::Status(500));

    // One that listens, and takes part in what it hears of: its own creation is the first thing.
    let listens = json!({ "subscription": { "event_types": OWN } });
    system.webhook("/listens", &listens).await;
    eventually("the listener hears of itself", async || heard(&system, "/listens").await[0] == 1).await;

    // One that takes everything, own events by name, and always fails.
    let broken = json!({
        "subscription": { "all": true, "event_types": OWN }, "retry": { "max_attempts": 1 },
        "disable_after_failures": 4,
    });
    let (broken, _) = system.webhook("/broken", &broken).await;
    system.call(Method::PATCH, &format!("/v1/webhooks/{broken}"), Some(&json!({ "name": "other" }))).await;
    for n in 0..4 {
        let event = json!({ "event_type": "USER_CREATED", "id": format!("user-{n}"), "data": {} });
        system.post("/v1/events", &event).await;
    }
    let path = format!("/v1/webhooks/{broken}");
    eventually("the failing webhook is disabled", async || system.get(&path).await["state"] == "disabled")
        .await;
    let disabled = system.get(&path).await;
    assert!(disabled["disabled_reason"].as_str().is_some_and(|why| why.contains('4')), "{disabled}");
    system.call(Method::DELETE, &path, None).await;

    eventually("the listener heard of the deletion", async || heard(&system, "/listens").await[2] == 1).await;
    system.at_rest().await;
    // Created twice, updated once, deleted once. What became of deliveries of own events is no event: of all that the
    // broken one lost, only the deliveries of the users' events are reported.
    let dead = system.get(&format!("/v1/deliveries?webhook={broken}&state=dead&limit=200")).await;
    let dead = dead["items"].as_array().unwrap();
    let of_users = dead.iter().filter(|delivery| delivery["event_type"] == "USER_CREATED").count();
    assert!(dead.len() > of_users, "some deliveries of own events are dead, too: {dead:#?}");
    let counts = heard(&system, "/listens").await;
    assert_eq!(counts[..3], [2, 1, 1], "{counts:?}");
    assert!(counts[3] <= 1 && counts[4] <= 1, "{counts:?}");
    assert_eq!(counts[5], of_users, "{counts:?}");
    let bodies: Vec<Value> = system.receiver.requests_to("/listens").iter().map(|r| r.json()).collect();
    assert!(bodies.iter().all(|body| !body.to_string().contains("whsec_")), "no secret in an own event");

    for role in roles {
        role.stop().await;
    }
}
