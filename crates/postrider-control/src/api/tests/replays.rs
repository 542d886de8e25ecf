//! Replays: what can be asked for, what is said when it cannot, and running them.

use postrider_core::books::End;
use postrider_core::wire::{DoneFact, EventFact, EventFate, EventRecord, Fact, JournalMessage, Owed, SCHEMA};
use postrider_core::{DeliveryId, EventId, EventType, TenantId, Timestamp, WebhookId, event};

use super::configuration::shop;
use super::*;
use crate::store::{Entry, OutboxKind, OutboxLane};

impl Test {
    /// Records events that were accepted now; each with deliveries to these webhooks that ended like this.
    pub(super) async fn happened(&self, writer: &str, ids: &[&str], webhooks: &[&str], end: Option<End>) {
        let tenant = TenantId::default_tenant();
        let now = Timestamp::from_millis(postrider_broker::now().as_millis() - 1000);
        let mut facts = Vec::new();
        for id in ids {
            let id = EventId::from_trusted(*id);
            let owed = webhooks.iter().map(|webhook| {
                let webhook = WebhookId::from_trusted(*webhook);
                Owed { delivery: DeliveryId::of(&tenant, &id, &webhook), webhook }
            });
            let owed: Vec<Owed> = owed.collect();
            let record = EventRecord {
                tenant: tenant.clone(),
                id: id.clone(),
                event_type: EventType::parse("USER_CREATED").unwrap(),
                time: "2026-11-21T20:00:00Z".into(),
                context: event::null(),
                data: event::null(),
                key: None,
                correlation_id: None,
                traceparent: None,
                accepted_at: now,
            };
            facts.push(Fact::Event(EventFact {
                tenant: tenant.clone(),
                event_id: id,
                at: now,
                fate: if owed.is_empty() { EventFate::Unmatched } else { EventFate::Routed(owed.clone()) },
                event: Some(Arc::new(record)),
                marks: Vec::new(),
            }));
            for Owed { delivery, webhook } in owed {
                let Some(end) = end else { continue };
                let (reason, attempts, repeats) = ("exhausted".to_owned(), 0, 0);
                let series = 1;
                facts.push(Fact::Done(DoneFact {
                    delivery,
                    series,
                    webhook,
                    end,
                    reason,
                    attempts,
                    at: now,
                    repeats,
                }));
            }
        }
        let message =
            JournalMessage { schema: SCHEMA, writer: writer.to_owned(), first: 0, duplicates: 0, facts };
        self.api.store.record(&[Entry::Journal(message)], postrider_broker::now()).await.unwrap();
    }

    /// Plans and sends, as control does.
    fn at_work(&self) -> tokio_util::sync::DropGuard {
        let stop = CancellationToken::new();
        let (store, guard) = (self.api.store.clone(), stop.clone().drop_guard());
        tokio::spawn(async move {
            tokio::join!(crate::replays::plan(&store, &stop), crate::replays::send(&store, &stop));
        });
        guard
    }

    async fn replay_in(&self, id: &str, state: &str) -> Value {
        let what = format!("{id} is {state}");
        postrider_testkit::eventually_some(&what, async || {
            let (status, replay) = self.call("GET", &format!("/v1/replays/{id}"), None).await;
            assert_eq!(status, 200, "{replay}");
            (replay["state"] == state).then_some(replay)
        })
        .await
    }

    /// The export of a replay has a line for each of these events, none of which has ended again.
    async fn says_what_it_sent(&self, id: &str, webhook: &str, events: &[&str]) {
        let lines = self.get(&format!("/v1/replays/{id}/export")).await;
        let (last, sent) = lines.as_array().unwrap().split_last().unwrap();
        let end = json!({ "lines": events.len(), "complete": true, "cut": null, "next": null });
        assert_eq!(last, &json!({ "export": end }));
        let mut named: Vec<&str> = sent.iter().map(|line| line["event"].as_str().unwrap()).collect();
        named.sort_unstable();
        assert_eq!(named, events);
        for line in sent {
            assert_eq!((&line["webhook"], &line["state"]), (&json!(webhook), &json!("pending")), "{line}");
            assert!(line["sent_at"].is_string() && line["ended_at"].is_null(), "{line}");
        }
    }

    async fn planned(&self, body: Value) -> Value {
        let (status, made) = self.post("/v1/replays", body).await;
        assert_eq!((status, &made["state"]), (202, &json!("planning")), "{made}");
        self.replay_in(made["id"].as_str().unwrap(), "planned").await
    }
}

#[tokio::test]
async fn what_cannot_be_asked_for_is_named() {
    let t = Test::new().await;
    for (body, field) in [
        (json!({ "states": ["dead", "gone"] }), "states[1]"),
        (json!({ "states": ["held"] }), "states[0]"),
        (json!({ "states": ["pending"] }), "states[0]"),
        (json!({ "target": "everybody" }), "target"),
        (json!({ "target": "wh_none" }), "target"),
        (json!({ "webhook": "wh_none" }), "webhook"),
        (json!({ "again": true }), "again"),
        (json!({ "rate_per_second": 0 }), "rate_per_second"),
        (json!({ "rate_per_second": 5001 }), "rate_per_second"),
        (json!({ "since": "yesterday" }), "since"),
        (json!({ "since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z" }), "until"),
        (json!({ "events": [] }), "events"),
        (json!({ "events": ["a", ""] }), "events[1]"),
        (json!({ "events": vec!["x"; 1001] }), "events"),
        (json!({ "event_types": vec!["x"; 201] }), "event_types"),
        (json!({ "state": ["dead"] }), "state"),
    ] {
        let (status, problem) = t.post("/v1/replays", body.clone()).await;
        assert_eq!((status, problem["field"].as_str()), (422, Some(field)), "{body}: {problem}");
    }
    let (status, problem) = t.post("/v1/replays?tenant=nobody", json!({})).await;
    assert_eq!((status, &problem["code"]), (422, &json!("unknown_tenant")));
    for (method, path) in [("GET", ""), ("POST", "/run"), ("POST", "/cancel")] {
        let (status, _) = t.call(method, &format!("/v1/replays/rpl_none{path}"), None).await;
        assert_eq!(status, 404, "{method} {path}");
    }
    assert_eq!(t.get("/v1/replays").await, json!({ "items": [], "next": null }));
}

#[tokio::test]
async fn a_replay_is_planned_looked_at_and_run() {
    let t = Test::new().await;
    let _work = t.at_work();
    let old = t.webhook(json!({})).await["id"].as_str().unwrap().to_owned();
    t.happened("w1", &["e1", "e2", "e3"], &[&old], Some(End::Dead)).await;
    t.happened("w2", &["e4"], &[&old], None).await;
    t.happened("w3", &["e5"], &[&old], Some(End::Delivered)).await;
    let planned = t.planned(json!({ "webhook": old, "rate_per_second": 5000 })).await;
    assert_eq!((&planned["chosen"], &planned["looked_at"]), (&json!(3), &json!(5)));
    assert_eq!(planned["states"], json!(["dead", "cancelled", "skipped"]), "what is not said is shown");
    assert_eq!((&planned["left_out"], &planned["to_send"]), (&json!({ "under_way": 1 }), &json!(3)));
    assert_eq!((&planned["target"], &planned["because"]), (&json!("original"), &Value::Null));
    assert!(planned["expires_at"].is_string() && planned["run"] == false, "{planned}");
    let id = planned["id"].as_str().unwrap().to_owned();
    assert_eq!(t.api.store.unsent(OutboxLane::Deliveries, 9).await.unwrap().len(), 0);

    // The same request again is the same run.
    let path = format!("/v1/replays/{id}/run");
    let (status, _, ran) = read(t.send(with_key(&path, "", "k1")).await).await;
    assert_eq!((status, &ran["run"]), (202, &json!(true)));
    let done = t.replay_in(&id, "done").await;
    assert_eq!((&done["sent"], &done["to_send"], &done["dropped"]), (&json!(3), &json!(0), &json!({})));
    assert_eq!(
        done["outcomes"],
        json!({ "delivered": 0, "dead": 0, "cancelled": 0, "skipped": 0, "pending": 3 })
    );
    let (status, headers, again) = read(t.send(with_key(&path, "", "k1")).await).await;
    assert_eq!((status, &headers["idempotency-replayed"], &again), (202, &"true".parse().unwrap(), &ran));
    let (status, problem) = t.call("POST", &path, None).await;
    assert_eq!((status, &problem["code"], &problem["state"]), (409, &json!("replay_over"), &json!("done")));
    t.api.store.mark_sent(OutboxKind::Config, i64::MAX, postrider_broker::now()).await.unwrap();
    let rows = t.api.store.unsent(OutboxLane::Deliveries, 9).await.unwrap();
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().all(|row| row.webhook == old));

    // A new webhook gets what happened before it was there; the deliveries show that.
    let new = t.webhook(json!({})).await["id"].as_str().unwrap().to_owned();
    let (status, made) =
        t.post("/v1/replays", json!({ "target": new, "run": true, "rate_per_second": 5000 })).await;
    assert_eq!(status, 202, "{made}");
    let done = t.replay_in(made["id"].as_str().unwrap(), "done").await;
    assert_eq!((&done["sent"], &done["chosen"]), (&json!(5), &json!(5)));
    t.says_what_it_sent(&id, &old, &["e1", "e2", "e3"]).await;
    t.says_what_it_sent(made["id"].as_str().unwrap(), &new, &["e1", "e2", "e3", "e4", "e5"]).await;
    let event = t.get("/v1/events/e5").await;
    let deliveries = event["deliveries"].as_array().unwrap();
    assert_eq!(deliveries.len(), 2);
    assert!(deliveries.iter().any(|delivery| delivery["webhook"] == new && delivery["state"] == "pending"));
    let list = t.get("/v1/replays?limit=1").await;
    assert_eq!((&list["items"][0]["id"], &list["items"][0]["outcomes"]), (&made["id"], &Value::Null));
    let next = t.get(&format!("/v1/replays?limit=1&cursor={}", list["next"].as_str().unwrap())).await;
    assert_eq!(next["items"][0]["id"], json!(id));
}

#[tokio::test]
async fn a_replay_of_nothing_says_why() {
    let t = Test::new().await;
    let _work = t.at_work();
    t.import(&shop()).await;
    let webhook = t.webhook(json!({})).await["id"].as_str().unwrap().to_owned();
    let because = async |body: Value| {
        let planned = t.planned(body).await;
        assert_eq!(planned["chosen"], 0, "{planned}");
        planned["because"].as_str().unwrap().to_owned()
    };
    assert_eq!(because(json!({})).await, "no event of the tenant was accepted in this time");
    t.happened("w1", &["e1"], &[&webhook], Some(End::Delivered)).await;
    assert_eq!(
        because(json!({ "states": ["skipped"] })).await,
        "1 event was looked at; none has a delivery that is skipped"
    );
    assert_eq!(
        because(json!({ "webhook": webhook })).await,
        "1 event was looked at; none has a delivery to the webhook that is dead or cancelled or skipped"
    );
    assert_eq!(because(json!({ "target": "matching" })).await, "what was found is all left out: delivered 1");
    assert_eq!(
        because(json!({ "events": ["e9", "e9"] })).await,
        "what was found is all left out: unknown_event 1"
    );
    assert_eq!(
        because(json!({ "target": "matching", "event_types": ["Order_placed"] })).await,
        "1 event was looked at; none is as asked for and taken by a webhook"
    );
    // One that is run nevertheless is done at once.
    let (_, made) = t.post("/v1/replays", json!({ "run": true })).await;
    let done = t.replay_in(made["id"].as_str().unwrap(), "done").await;
    assert!(done["sent"] == 0 && done["because"].is_string(), "{done}");
    // Named by an alias, a type is found by its name.
    let planned = t.planned(json!({ "event_types": ["USER_CREATED", "USER_CREATED"] })).await;
    assert_eq!(planned["event_types"], json!(["USER_CREATED"]));
}

#[tokio::test]
async fn a_replay_can_be_cancelled_and_there_are_not_too_many() {
    let t = Test::new().await;
    let (_, made) = t.post("/v1/replays", json!({ "run": true })).await;
    let path = format!("/v1/replays/{}", made["id"].as_str().unwrap());
    let (status, cancelled) = t.call("POST", &format!("{path}/cancel"), None).await;
    assert_eq!((status, &cancelled["state"]), (200, &json!("cancelled")));
    assert_eq!(cancelled["reason"], "request");
    let (status, problem) = t.call("POST", &format!("{path}/cancel"), None).await;
    assert_eq!((status, &problem["state"]), (409, &json!("cancelled")));
    assert!(t.get(&path).await["finished_at"].is_string());
    for _ in 0..crate::store::MAX_OPEN {
        assert_eq!(t.post("/v1/replays", json!({})).await.0, 202);
    }
    let (status, problem) = t.post("/v1/replays", json!({})).await;
    assert_eq!((status, &problem["code"]), (403, &json!("quota")));
}
