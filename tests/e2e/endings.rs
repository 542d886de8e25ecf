//! How deliveries end otherwise than by being delivered: held and sent on, disabled, called off, made again. After each,
//! the books balance.

use postrider_core::Timestamp;
use postrider_core::profile::KeyForm;
use postrider_core::signature::SigningKey;
use postrider_testkit::rabbit::{Broker, Vhost};
use postrider_testkit::{Answer, eventually, eventually_some};
use reqwest::Method;
use serde_json::{Value, json};

use crate::system::{Role, System};

/// A system with all roles, on a vhost of its own.
struct World {
    system: System,
    roles: [Role; 3],
    _vhost: Vhost,
}

impl World {
    async fn new(name: &str) -> Self {
        let vhost = Vhost::create(&Broker::shared().await, name).await;
        let system = System::new(vhost.url()).await;
        let roles = system.start_all_roles().await;
        Self { system, roles, _vhost: vhost }
    }

    /// Sends events of a type and returns when the books know them.
    async fn send(&self, event_type: &str, ids: impl IntoIterator<Item = String>) {
        let events: Vec<Value> =
            ids.into_iter().map(|id| json!({ "event_type": event_type, "id": id })).collect();
        let ids: Vec<String> = events.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect();
        self.system.post("/v1/events", &Value::Array(events)).await;
        for id in ids {
            self.system.known(&id).await;
        }
    }

    /// The only delivery of an event.
    async fn delivery(&self, event: &str) -> Value {
        let path = format!("/v1/deliveries?event={event}");
        eventually_some("the event has a delivery", async || {
            self.system.get(&path).await["items"].as_array().unwrap().first().cloned()
        })
        .await
    }

    /// Waits until the delivery of an event is in this state, and returns it.
    async fn ended(&self, event: &str, state: &str) -> Value {
        eventually_some(&format!("the delivery of {event} is {state}"), async || {
            let delivery = self.delivery(event).await;
            (delivery["state"] == state).then_some(delivery)
        })
        .await
    }

    async fn holds(&self, event: &str) -> Value {
        eventually_some(&format!("the delivery of {event} is held"), async || {
            let delivery = self.delivery(event).await;
            (delivery["held"] == true).then_some(delivery)
        })
        .await
    }

    async fn post(&self, path: &str) -> (u16, Value) {
        let (status, body) = self.system.call(Method::POST, path, None).await;
        (status.as_u16(), body)
    }

    async fn redeliver(&self, event: &str) -> (u16, Value) {
        let id = self.delivery(event).await["id"].as_str().unwrap().to_owned();
        self.post(&format!("/v1/deliveries/{id}/redeliver")).await
    }

    /// Waits until the books rest with drift 0 and so many deliveries pending.
    async fn rests(&self, pending: u64) -> Value {
        eventually_some(&format!("the books rest with {pending} pending"), async || {
            let status = self.system.status().await;
            let rests = status["drift"] == 0
                && status["at_rest"] == true
                && status["deliveries"]["pending"] == pending;
            rests.then_some(status)
        })
        .await
    }

    async fn stop(self) {
        for role in self.roles {
            role.stop().await;
        }
    }
}

fn numbered(name: &str, range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| format!("{name}-{n}")).collect()
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap())
}

#[tokio::test]
async fn paused_held_resumed_and_gone_with_the_webhook() {
    let world = World::new("endings-paused").await;
    let system = &world.system;
    let (kept, _) = system.webhook("/kept", &json!({ "subscription": { "event_types": ["KEPT"] } })).await;
    let (doomed, _) =
        system.webhook("/doomed", &json!({ "subscription": { "event_types": ["DOOMED"] } })).await;
    for id in [&kept, &doomed] {
        system.post(&format!("/v1/webhooks/{id}/pause"), &json!({})).await;
    }
    world.send("KEPT", numbered("kept", 0..20)).await;
    world.send("DOOMED", numbered("doomed", 0..5)).await;
    eventually("all are held", async || system.status().await["deliveries"]["held"] == 25).await;
    world.rests(25).await;
    assert_eq!(system.receiver.count(), 0);

    // One that is held is not made again, but can be called off.
    let (status, refused) = world.redeliver("kept-0").await;
    assert_eq!((status, &refused["held"]), (409, &json!(true)), "{refused}");
    let id = world.delivery("kept-1").await["id"].as_str().unwrap().to_owned();
    let (status, ended) = world.post(&format!("/v1/deliveries/{id}/cancel")).await;
    assert_eq!((status, &ended["state"]), (200, &json!("cancelled")));
    world.rests(24).await;

    let (status, _) = system.call(Method::DELETE, &format!("/v1/webhooks/{doomed}"), None).await;
    assert!(status.is_success());
    let gone = world.ended("doomed-0", "cancelled").await;
    assert_eq!(gone["reason"], "webhook_deleted");
    system.post(&format!("/v1/webhooks/{kept}/resume"), &json!({})).await;
    let status = system.balanced(19).await;
    assert_eq!(
        (&status["deliveries"]["cancelled"], &status["deliveries"]["held"]),
        (&json!(6), &json!(0)),
        "{status}"
    );
    assert_eq!(system.receiver.requests_to("/kept").len(), 19);
    assert!(system.receiver.requests_to("/doomed").is_empty());
    let (status, refused) = world.redeliver("doomed-0").await;
    assert_eq!((status, &refused["code"]), (409, &json!("webhook_deleted")));
    world.stop().await;
}

#[tokio::test]
async fn gone_disables_the_webhook_and_its_owner_hears_of_it() {
    let world = World::new("endings-gone").await;
    let system = &world.system;
    let gone = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let is_gone = gone.clone();
    system.receiver.answer_by("/gone", move |_| {
        Answer::Status(if is_gone.load(std::sync::atomic::Ordering::SeqCst) { 410 } else { 200 })
    });
    // It asks for the news of itself, and does not get it.
    let takes = json!({ "subscription": { "event_types": ["A", "postrider.webhook.disabled"] } });
    let (webhook, _) = system.webhook("/gone", &takes).await;
    let owner = json!({ "subscription": { "event_types": ["postrider.webhook.disabled"] } });
    system.webhook("/owner", &owner).await;
    world.send("A", ["first".to_owned()]).await;
    world.ended("first", "dead").await;
    let path = format!("/v1/webhooks/{webhook}");
    eventually("it is disabled", async || system.get(&path).await["state"] == "disabled").await;
    let shown = system.get(&path).await;
    assert!(shown["disabled_reason"].as_str().unwrap().contains("410"), "{shown}");
    let heard =
        system.receiver.wait_until("the owner hears", |all| all.iter().any(|it| it.path() == "/owner")).await;
    let heard = heard.iter().find(|it| it.path() == "/owner").unwrap().json();
    assert_eq!(
        (&heard["data"]["rule"], &heard["data"]["webhook"]["id"]),
        (&json!("gone"), &json!(webhook)),
        "{heard}"
    );

    world.send("A", numbered("missed", 0..3)).await;
    world.ended("missed-2", "skipped").await;
    system.at_rest().await;
    assert_eq!(system.receiver.requests_to("/gone").len(), 1, "nothing is sent to it any more");
    // What was skipped can be asked for, although the webhook stays disabled.
    gone.store(false, std::sync::atomic::Ordering::SeqCst);
    let (status, again) = world.redeliver("missed-0").await;
    assert_eq!((status, &again["webhook_state"]), (202, &json!("disabled")), "{again}");
    let delivered = world.ended("missed-0", "delivered").await;
    assert_eq!(delivered["series"], 2);
    assert_eq!(system.get(&path).await["state"], "disabled");
    let (status, enabled) = world.post(&format!("{path}/enable")).await;
    assert_eq!((status, &enabled["skipped_while_disabled"]["deliveries"]), (200, &json!(2)), "{enabled}");
    world.send("A", ["after".to_owned()]).await;
    world.ended("after", "delivered").await;
    let status = system.at_rest().await;
    assert_eq!(status["deliveries"]["skipped"], 3, "{status}");
    world.stop().await;
}

#[tokio::test]
async fn what_waits_on_the_ladder_is_called_off_one_and_many() {
    let world = World::new("endings-cancel").await;
    let system = &world.system;
    // Refusals: no breaker opens.
    system.receiver.answer_by("/slow", |_| Answer::Status(404));
    system.receiver.answer_by("/other", |_| Answer::Status(500));
    // Long enough to be called off meanwhile; the bystander's webhook is deleted when the others have ended.
    let waits = |ms: u64, event_types: &[&str]| {
        json!({
            "retry": { "schedule_ms": [ms], "jitter": 0.0 },
            "subscription": { "event_types": event_types },
        })
    };
    let (webhook, _) = system.webhook("/slow", &waits(12_000, &["ONE", "MANY"])).await;
    let (bystander, _) = system.webhook("/other", &waits(20_000, &["OTHER"])).await;
    world.send("ONE", ["one".to_owned()]).await;
    world.send("MANY", numbered("many", 0..30)).await;
    world.send("OTHER", ["other".to_owned()]).await;
    system.receiver.wait_for(32).await;
    eventually("all wait for their next attempt", async || {
        let list = system.get("/v1/deliveries?state=pending&limit=200").await;
        list["items"].as_array().unwrap().iter().filter(|it| it["attempts"] == 1).count() == 32
    })
    .await;

    let id = world.delivery("one").await["id"].as_str().unwrap().to_owned();
    let (status, called_off) = world.post(&format!("/v1/deliveries/{id}/cancel")).await;
    assert_eq!((status, &called_off["cancelling"]), (202, &json!(true)), "{called_off}");
    assert_eq!(world.delivery("one").await["cancelling"], true);
    let (status, refused) = world.redeliver("one").await;
    assert_eq!((status, &refused["cancelling"]), (409, &json!(true)), "{refused}");
    let filter = json!({ "webhook": webhook, "event_type": "MANY" });
    let mut plan = filter.clone();
    plan["plan"] = json!(true);
    assert_eq!(system.post("/v1/cancellations", &plan).await["deliveries"], 30);
    assert_eq!(system.post("/v1/cancellations", &filter).await["deliveries"], 30);
    let all = system.get("/v1/deliveries?state=pending&limit=200").await;
    assert_eq!(all["items"].as_array().unwrap().iter().filter(|it| it["cancelling"] == true).count(), 31);
    assert_eq!(world.delivery("other").await["cancelling"], false, "the bystander's");

    for event in ["one", "many-0", "many-29"] {
        let ended = world.ended(event, "cancelled").await;
        assert_eq!(
            (&ended["attempts"], &ended["reason"]),
            (&json!(1), &json!("cancelled_by_request")),
            "{ended}"
        );
    }
    system.call(Method::DELETE, &format!("/v1/webhooks/{bystander}"), None).await;
    let status = system.at_rest().await;
    assert_eq!(
        (&status["deliveries"]["cancelled"], &status["deliveries"]["dead"]),
        (&json!(32), &json!(0)),
        "{status}"
    );
    assert_eq!(system.receiver.requests_to("/slow").len(), 31, "no attempt after it was called off");
    // What was called off can be asked for again.
    system.receiver.answer_by("/slow", |_| Answer::Status(200));
    assert_eq!(world.redeliver("one").await.0, 202);
    world.ended("one", "delivered").await;
    system.at_rest().await;
    world.stop().await;
}

#[tokio::test]
async fn a_redelivery_is_signed_anew_under_the_same_id_and_never_does_nothing() {
    let world = World::new("endings-redeliver").await;
    let system = &world.system;
    system.receiver.answer_by("/r", |_| Answer::Status(400));
    let (webhook, _) = system
        .webhook("/r", &json!({ "retry": { "max_attempts": 1 }, "subscription": { "event_types": ["A"] } }))
        .await;
    world.send("A", numbered("e", 0..3)).await;
    for n in 0..3 {
        world.ended(&format!("e-{n}"), "dead").await;
    }
    let before = system.get(&format!("/v1/webhooks/{webhook}")).await["health"].clone();
    assert_eq!(before["given_up_in_a_row"], 3);

    // Signed with the secret of now, under the same id, with a time of its own.
    let rotated =
        system.post(&format!("/v1/webhooks/{webhook}/rotate-secret"), &json!({ "overlap_seconds": 0 })).await;
    system.receiver.answer_by("/r", |_| Answer::Status(200));
    assert_eq!(world.redeliver("e-0").await.0, 202);
    let delivered = world.ended("e-0", "delivered").await;
    assert_eq!(delivered["series"], 2);
    let requests = system.receiver.requests_to("/r");
    let again = requests.last().unwrap();
    let header = |name: &str| again.header(name).unwrap().to_owned();
    let of_e_0: Vec<_> =
        requests.iter().filter(|it| it.header("webhook-id") == Some(&header("webhook-id"))).collect();
    assert_eq!(of_e_0.len(), 2, "under the id of before");
    assert_eq!(again.json(), of_e_0[0].json(), "the body is the same");
    let time = Timestamp::from_millis(header("webhook-timestamp").parse::<i64>().unwrap() * 1000);
    let key = SigningKey::of_secret(rotated["secret"].as_str().unwrap(), KeyForm::Base64).unwrap();
    assert!(key.verifies(&header("webhook-signature"), &header("webhook-id"), time, &again.body));

    // It says nothing of how the webhook does, whether it fails or not.
    system.receiver.answer_by("/r", |_| Answer::Status(500));
    assert_eq!(world.redeliver("e-1").await.0, 202);
    eventually("it was tried again", async || {
        let delivery = world.delivery("e-1").await;
        delivery["series"] == 2 && delivery["state"] == "dead"
    })
    .await;
    let after = system.get(&format!("/v1/webhooks/{webhook}")).await["health"].clone();
    assert_eq!(after, before, "neither raised nor cleared");
    system.at_rest().await;

    // Paused: held until it is resumed, and said so. Expired: attempted, since somebody asked.
    system.receiver.answer_by("/r", |_| Answer::Status(200));
    system.post(&format!("/v1/webhooks/{webhook}/pause"), &json!({})).await;
    let (status, held) = world.redeliver("e-2").await;
    assert_eq!((status, &held["webhook_state"]), (202, &json!("paused")));
    assert!(held["note"].as_str().unwrap().contains("resumed"), "{held}");
    world.holds("e-2").await;
    world.rests(1).await;
    system.post(&format!("/v1/webhooks/{webhook}/resume"), &json!({})).await;
    world.ended("e-2", "delivered").await;
    system.at_rest().await;
    let patch = json!({ "expires_at": now().plus_ms(500).to_rfc3339() });
    assert!(
        system.call(Method::PATCH, &format!("/v1/webhooks/{webhook}"), Some(&patch)).await.0.is_success()
    );
    eventually("it has expired", async || {
        let shown = system.get(&format!("/v1/webhooks/{webhook}")).await;
        // Not as texts, which leave zeros out at the end: 00.345Z would come before 00.34Z.
        Timestamp::parse_rfc3339(shown["expires_at"].as_str().unwrap()).unwrap() < now()
    })
    .await;
    let (status, expired) = world.redeliver("e-2").await;
    assert_eq!(status, 202);
    assert!(expired["note"].as_str().unwrap().contains("expired"), "{expired}");
    eventually("it was delivered once more", async || {
        let delivery = world.delivery("e-2").await;
        delivery["series"] == 3 && delivery["state"] == "delivered"
    })
    .await;
    system.at_rest().await;
    world.stop().await;
}
