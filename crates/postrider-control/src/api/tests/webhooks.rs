//! Webhooks: what they ask for, how they are spoken to, their secrets, and trying them.

use postrider_core::DeliveryId;
use postrider_core::wire::WebhookRecord;

use super::configuration::{names, shop};
use super::*;
use crate::store::{Audience, NewEvent, OutboxKind, OutboxLane, OutboxRow};

impl Test {
    /// Makes a webhook of the shop's profile.
    async fn of_shop(&self, change: Value) -> (u16, Value) {
        let mut body = json!({ "name": "till", "url": "https://example.com/till", "profile": "shop",
                               "subscription": { "categories": ["orders"] } });
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        self.post("/v1/webhooks", body).await
    }

    async fn record(&self, id: &str) -> WebhookRecord {
        self.api.store.webhook("default", id).await.unwrap().unwrap().record
    }

    /// The secrets that sign now, the current one first.
    async fn secrets(&self, id: &str) -> Vec<String> {
        let record = self.record(id).await;
        let purpose = postrider_core::webhook::purpose(
            &record.tenant,
            &record.id,
            postrider_core::webhook::SecretKind::Signing,
        );
        let open = |sealed: &str| String::from_utf8(key(1).open(&purpose, sealed).unwrap().to_vec()).unwrap();
        record.secrets.iter().map(|secret| open(&secret.value)).collect()
    }

    /// The events that control has to publish, once it has told of the configuration before them.
    async fn events(&self) -> Vec<(OutboxRow, Value)> {
        self.api.store.mark_sent(OutboxKind::Config, i64::MAX, postrider_broker::now()).await.unwrap();
        let rows = self.api.store.unsent(OutboxLane::Events, 100).await.unwrap();
        rows.into_iter()
            .map(|row| {
                let body = serde_json::from_slice(&row.body).unwrap();
                (row, body)
            })
            .collect()
    }
}

fn id_of(webhook: &Value) -> &str {
    webhook["id"].as_str().unwrap()
}

fn path_of(webhook: &Value) -> String {
    format!("/v1/webhooks/{}", id_of(webhook))
}

#[tokio::test]
async fn a_category_stays_a_rule_and_says_what_it_means_today() {
    let t = Test::new().await;
    t.import(&shop()).await;
    let made = t
        .webhook(json!({ "subscription": {
            "event_types": ["MemberWillExpire", "Order_placed"], "categories": ["orders"], "groups": ["checkout"],
            "filter": "data.amount > 10.0 && event_type != 'x'" } }))
        .await;
    assert!(made.get("warnings").is_none(), "{made}");
    assert_eq!(made["subscription"]["groups"], json!(["checkout"]));
    let path = path_of(&made);
    let shown = t.get(&path).await;
    assert_eq!(
        shown["subscription"]["event_types"],
        json!(["MemberWillExpire", "Order_placed"]),
        "as it was asked"
    );
    assert_eq!(
        shown["subscription"]["means_today"],
        json!(["MemberWillExpire", "Order placed", "order.paid"]),
        "{shown}"
    );
    assert_eq!(shown["subscription"]["filter"], "data.amount > 10.0 && event_type != 'x'");

    // A type that comes later is included.
    let mut more = shop();
    let returned = json!({ "name": "order.returned", "label": "Order returned", "category": "orders" });
    more["event_type"].as_array_mut().unwrap().push(returned);
    t.import(&more).await;
    let today = t.get(&path).await["subscription"]["means_today"].clone();
    assert_eq!(today, json!(["MemberWillExpire", "Order placed", "order.paid", "order.returned"]));
    assert_eq!(t.get("/v1/event-types/order.returned").await["webhooks"], 1);

    let (_, patched) = t.patch(&path, json!({ "subscription": { "filter": null, "categories": [] } })).await;
    assert_eq!(patched["subscription"]["filter"], Value::Null, "{patched}");
    let record = t.record(id_of(&made)).await;
    assert!(record.filter.is_none() && record.categories.is_empty() && record.groups.contains("checkout"));
    let all = t.webhook(json!({})).await;
    assert_eq!(
        t.get(&path_of(&all)).await["subscription"]["means_today"],
        json!(["MemberWillExpire", "Order placed", "order.paid", "order.returned"]),
        "not Postrider's own"
    );
    let own = t.webhook(json!({ "subscription": { "categories": ["postrider"] } })).await;
    assert_eq!(t.get(&path_of(&own)).await["subscription"]["means_today"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_subscription_that_names_nothing_known_is_refused_or_said() {
    let t = Test::new().await;
    let free = t.webhook(json!({ "subscription": { "event_types": ["anything"] } })).await;
    assert!(free.get("warnings").is_none(), "without a catalogue every name is as good as another");
    t.import(&shop()).await;
    let cel_long = "x".repeat(2000);
    for (subscription, field, said) in [
        (json!({ "groups": ["chekout"] }), "subscription.groups", "checkout"),
        (json!({ "categories": ["order"] }), "subscription.categories", "orders"),
        (json!({ "all": true, "filter": "data.amount >" }), "subscription.filter", "CEL"),
        (json!({ "all": true, "filter": "amount > 1" }), "subscription.filter", "amount"),
        (json!({ "all": true, "filter": cel_long }), "subscription.filter", "bytes"),
        (json!({ "all": true, "filter": 5 }), "subscription.filter", "string"),
        (json!({ "groups": [], "categories": [] }), "subscription.event_types", "nothing"),
    ] {
        let body = json!({ "name": "a", "url": "https://example.com/", "subscription": subscription });
        let (status, body) = t.post("/v1/webhooks", body).await;
        assert_eq!((status, body["field"].as_str()), (422, Some(field)), "{subscription}: {body}");
        assert!(body["detail"].as_str().unwrap().contains(said), "{said} in {body}");
    }
    let warned =
        t.webhook(json!({ "subscription": { "event_types": ["order.payed", "WEBHOOK_CREATED"] } })).await;
    assert_eq!(warned["warnings"].as_array().unwrap().len(), 1, "{warned}");
    assert!(warned["warnings"][0].as_str().unwrap().contains("did you mean order.paid?"), "{warned}");
    t.patch("/v1/settings", json!({ "unknown_types": "refuse" })).await;
    let body = json!({ "name": "a", "url": "https://example.com/", "subscription": { "event_types": ["order.payed"] } });
    let (status, body) = t.post("/v1/webhooks", body).await;
    assert_eq!((status, body["field"].as_str()), (422, Some("subscription.event_types")), "{body}");
    // What was there before the rule does not stop other changes.
    assert_eq!(t.patch(&path_of(&warned), json!({ "name": "b" })).await.0, 200);
    assert_eq!(t.patch(&path_of(&free), json!({ "name": "b" })).await.0, 200);
}

#[tokio::test]
async fn a_products_profile_brings_its_rules() {
    let t = Test::new().await;
    let (status, body) = t.of_shop(json!({})).await;
    assert_eq!((status, body["field"].as_str()), (422, Some("profile")), "{body}");
    let said = body["detail"].as_str().unwrap();
    assert!(said.contains("postrider, standard, cloudevents, cloudevents-binary"), "{said}");
    assert!(body["hint"].as_str().unwrap().contains("catalogue"), "{body}");
    t.import(&shop()).await;
    let (_, body) = t.of_shop(json!({ "profile": "shopp" })).await;
    assert!(body["detail"].as_str().unwrap().contains("did you mean shop?"), "{body}");

    let (status, made) = t.of_shop(json!({ "retry": { "jitter": 0.5 } })).await;
    assert_eq!(status, 201, "{made}");
    assert_eq!(made["retry"], json!({ "jitter": 0.5 }), "what it says itself");
    let effective = &made["effective"];
    assert_eq!(effective["retry"]["schedule_ms"], json!([1000, 2000]));
    assert_eq!(
        (&effective["retry"]["jitter"], &effective["retry"]["max_attempts"]),
        (&json!(0.5), &json!(3))
    );
    assert_eq!((&effective["timeout_ms"], &made["timeout_ms"]), (&json!(3000), &json!(3000)));
    assert_eq!(
        (&effective["disable_after_failures"], &effective["payload_version"]),
        (&json!(100), &json!("2"))
    );
    let path = path_of(&made);
    for (patch, field) in [
        (json!({ "url": "http://example.com/" }), "url"),
        (json!({ "payload_version": "3" }), "payload_version"),
        (json!({ "retry": { "schedule_ms": [] } }), "retry.schedule_ms"),
        (json!({ "disable_after_failures": -1 }), "disable_after_failures"),
    ] {
        let (status, body) = t.patch(&path, patch.clone()).await;
        assert_eq!((status, body["field"].as_str()), (422, Some(field)), "{patch}: {body}");
    }
    let patch = json!({ "payload_version": "1", "timeout_ms": 5000, "disable_after_failures": 0, "signed": false,
                        "retry": { "initial_ms": 7000 } });
    let (status, patched) = t.patch(&path, patch).await;
    assert_eq!(status, 200, "{patched}");
    let effective = &patched["effective"];
    assert_eq!((&effective["payload_version"], &effective["timeout_ms"]), (&json!("1"), &json!(5000)));
    assert_eq!(effective["disable_after_failures"], 0);
    assert_eq!(
        (&effective["retry"]["initial_ms"], &effective["retry"]["schedule_ms"]),
        (&json!(7000), &Value::Null)
    );
    assert_eq!(patched["signed"], false);
    let record = t.record(id_of(&made)).await;
    assert!(record.unsigned && record.payload_version.as_deref() == Some("1"));
    let standard = t.webhook(json!({ "profile": "standard" })).await;
    assert_eq!(standard["profile"], "standard");
    let (_, body) = t.patch(&path_of(&standard), json!({ "payload_version": "1" })).await;
    assert_eq!(body["field"], "payload_version", "{body}");
}

#[tokio::test]
async fn active_webhooks_are_limited_when_made_enabled_and_changed() {
    let t = Test::new().await;
    t.import(&shop()).await;
    let (_, first) = t.of_shop(json!({})).await;
    let (_, second) = t.of_shop(json!({ "state": "paused" })).await;
    let (status, body) = t.of_shop(json!({})).await;
    assert_eq!((status, body["code"].as_str()), (403, Some("quota")), "a paused one counts: {body}");
    assert!(body["detail"].as_str().unwrap().contains("2 active"), "{body}");
    let (status, third) = t.of_shop(json!({ "state": "disabled" })).await;
    assert_eq!((status, &third["disabled_reason"]), (201, &json!("request")), "{third}");
    assert!(third["disabled_at"].is_string());
    let enable = format!("{}/enable", path_of(&third));
    assert_eq!(t.call("POST", &enable, None).await.1["code"], "quota");
    assert_eq!(t.patch(&path_of(&third), json!({ "state": "active" })).await.1["code"], "quota");
    let other = t.webhook(json!({ "url": "https://example.com/" })).await;
    assert_eq!(t.patch(&path_of(&other), json!({ "profile": "shop" })).await.1["code"], "quota");
    assert_eq!(
        t.patch(&path_of(&first), json!({ "name": "still there" })).await.0,
        200,
        "what counts already may stay"
    );
    assert_eq!(t.call("POST", &format!("{}/resume", path_of(&second)), None).await.0, 200);

    assert_eq!(t.call("POST", &format!("{}/disable", path_of(&first)), None).await.0, 200);
    let (status, third) = t.call("POST", &enable, None).await;
    assert_eq!((status, &third["disabled_reason"]), (200, &Value::Null), "{third}");

    t.patch("/v1/settings", json!({ "max_active_webhooks": 3 })).await;
    let body = json!({ "name": "x", "url": "https://example.com/", "subscription": { "all": true } });
    let (status, refused) = t.post("/v1/webhooks", body.clone()).await;
    assert_eq!((status, refused["code"].as_str()), (403, Some("quota")), "{refused}");
    assert_eq!(t.call("POST", &format!("{}/enable", path_of(&first)), None).await.0, 403);
    assert_eq!(t.call("DELETE", &path_of(&second), None).await.0, 204);
    assert_eq!(t.post("/v1/webhooks", body).await.0, 201);
}

#[tokio::test]
async fn a_webhook_has_a_window_in_which_it_is_active() {
    let t = Test::new().await;
    let made =
        t.webhook(json!({ "active_from": "2030-01-01T00:00:00+01:00", "expires_in_days": 3650 })).await;
    assert_eq!(made["active_from"], "2029-12-31T23:00:00Z");
    assert!(made["expires_at"].as_str().unwrap() > "2035", "{made}");
    let record = t.record(id_of(&made)).await;
    assert_eq!(record.active_from.unwrap().as_secs(), 1_893_452_400);
    let path = path_of(&made);
    for (patch, field) in [
        (json!({ "active_from": "tomorrow" }), "active_from"),
        (json!({ "expires_at": "2020-01-01T00:00:00Z" }), "expires_at"),
        (json!({ "expires_at": "2029-01-01T00:00:00Z" }), "expires_at"),
        (json!({ "expires_in_days": 5 }), "expires_in_days"),
    ] {
        let (status, body) = t.patch(&path, patch.clone()).await;
        assert_eq!((status, body["field"].as_str()), (422, Some(field)), "{patch}: {body}");
    }
    let (_, patched) = t.patch(&path, json!({ "active_from": null, "expires_at": null })).await;
    assert_eq!((&patched["active_from"], &patched["expires_at"]), (&Value::Null, &Value::Null));
    assert_eq!(t.webhook(json!({ "expires_in_days": 0 })).await["expires_at"], Value::Null);
    for body in [
        json!({ "expires_in_days": 3651 }),
        json!({ "expires_in_days": 1, "expires_at": "2035-01-01T00:00:00Z" }),
    ] {
        let mut all = json!({ "name": "a", "url": "https://example.com/", "subscription": { "all": true } });
        all.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        assert_eq!(t.post("/v1/webhooks", all).await.1["field"], "expires_in_days", "{body}");
    }
}

#[tokio::test]
async fn credentials_are_checked_sealed_and_masked() {
    let t = Test::new().await;
    let pem = |label: &str| format!("-----BEGIN {label}-----\nMIIBszCCAVmgAwIBAgIU\n-----END {label}-----\n");
    let oauth2 = json!({ "token_url": "https://login.example.com/token", "client_id": "me",
                         "client_secret": "canary-oauth", "scope": "a b" });
    let made = t
        .webhook(json!({
            "auth": { "oauth2": oauth2 },
            "tls": { "certificate_pem": pem("CERTIFICATE"), "key_pem": pem("PRIVATE KEY"), "ca_pem": pem("CERTIFICATE") },
        }))
        .await;
    let path = path_of(&made);
    for text in [made.to_string(), t.get(&path).await.to_string(), t.get("/v1/webhooks").await.to_string()] {
        assert!(!text.contains("canary") && !text.contains("BEGIN PRIVATE KEY"), "{text}");
    }
    assert_eq!(made["auth"]["oauth2"]["client_secret"], "********");
    assert_eq!(made["auth"]["oauth2"]["client_id"], "me");
    assert_eq!(
        (&made["tls"]["key_pem"], &made["tls"]["ca_pem"]),
        (&json!("********"), &json!(pem("CERTIFICATE")))
    );
    let open = |record: WebhookRecord| record.webhook(1).unwrap().open(&key(1), KeyForm::Base64).unwrap();
    match open(t.record(id_of(&made)).await).auth.unwrap() {
        postrider_core::webhook::Auth::Oauth2(it) => assert_eq!(it.client_secret.as_str(), "canary-oauth"),
        other => panic!("{other:?}"),
    }

    // A part changes, the secret stays.
    let (status, patched) =
        t.patch(&path, json!({ "auth": { "oauth2": { "scope": "c", "in_body": true } } })).await;
    assert_eq!((status, &patched["auth"]["oauth2"]["scope"]), (200, &json!("c")), "{patched}");
    let credentials = open(t.record(id_of(&made)).await);
    match credentials.auth.unwrap() {
        postrider_core::webhook::Auth::Oauth2(it) => {
            assert!(it.in_body && it.client_secret.as_str() == "canary-oauth")
        }
        other => panic!("{other:?}"),
    }
    assert!(credentials.tls.unwrap().key_pem.unwrap().contains("PRIVATE KEY"));

    for (patch, field) in [
        (json!({ "auth": { "basic": { "username": "u", "password": "p" } } }), "auth"),
        (json!({ "auth": { "oauth2": { "client_secret": "********" } } }), "auth.oauth2.client_secret"),
        (json!({ "auth": { "oauth2": { "token_url": "https://10.1.2.3/token" } } }), "auth.oauth2.token_url"),
        (
            json!({ "auth": { "oauth2": null, "basic": { "username": "a:b", "password": "p" } } }),
            "auth.basic.username",
        ),
        (json!({ "auth": { "oauth2": null, "basic": { "username": "a" } } }), "auth.basic.password"),
        (json!({ "auth": { "oauth2": null, "bearer": { "token": "a b" } } }), "auth.bearer.token"),
        (json!({ "auth": { "digest": {} } }), "auth.digest"),
        (json!({ "headers": { "Authorization": "x" } }), "auth"),
        (json!({ "api_key": { "in": "header", "name": "authorization", "value": "x" } }), "auth"),
        (
            json!({ "headers": { "X-Key": "x" }, "api_key": { "in": "header", "name": "x-key", "value": "x" } }),
            "headers.X-Key",
        ),
        (json!({ "api_key": { "in": "header", "name": "X-Key", "value": "********" } }), "api_key.value"),
        (json!({ "tls": { "key_pem": null } }), "tls.key_pem"),
        (json!({ "tls": { "key_pem": "********" } }), "tls.key_pem"),
        (json!({ "tls": { "ca_pem": "no pem" } }), "tls.ca_pem"),
    ] {
        let (status, body) = t.patch(&path, patch.clone()).await;
        assert_eq!((status, body["field"].as_str()), (422, Some(field)), "{patch}: {body}");
        assert!(!body.to_string().contains("canary"), "{body}");
    }
    let patch = json!({ "auth": { "oauth2": null, "bearer": { "token": "canary-bearer" } }, "tls": null });
    let (_, patched) = t.patch(&path, patch).await;
    assert_eq!(
        (&patched["auth"], &patched["tls"]),
        (&json!({ "bearer": { "token": "********" } }), &Value::Null)
    );
    let (_, patched) = t.patch(&path, json!({ "auth": null })).await;
    assert_eq!(patched["auth"], Value::Null);
    assert!(t.record(id_of(&made)).await.auth.is_none());
}

#[tokio::test]
async fn a_secret_is_rotated_with_an_overlap() {
    let t = Test::new().await;
    let made = t.webhook(json!({})).await;
    let (path, first) = (path_of(&made), made["secret"].as_str().unwrap().to_owned());
    assert_eq!((&made["secret_version"], &made["previous_secret_until"]), (&json!(1), &Value::Null));
    let rotate = format!("{path}/rotate-secret");
    let (status, once) = t.call("POST", &rotate, None).await;
    assert_eq!(status, 200, "{once}");
    let second = once["secret"].as_str().unwrap().to_owned();
    assert_ne!(first, second);
    assert_eq!(once["secret_version"], 2);
    assert!(once["secret_rotated_at"].is_string() && once["previous_secret_until"].is_string(), "{once}");
    assert_eq!(t.secrets(id_of(&made)).await, [second.clone(), first.clone()], "the current one first");
    let until = t.record(id_of(&made)).await.secrets[1].until.unwrap();
    let left = until.since_ms(postrider_broker::now());
    assert!((86_000_000..=86_400_000).contains(&left), "{left}");
    assert!(t.get(&path).await.get("secret").is_none(), "shown once");

    let third = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let body = json!({ "secret": &third["whsec_".len()..], "overlap_seconds": 60 });
    let (_, twice) = t.post(&rotate, body).await;
    assert_eq!((&twice["secret"], &twice["secret_hint"]), (&json!(third), &json!("whsec_…LaSw")));
    assert_eq!(t.secrets(id_of(&made)).await, [third.to_owned(), second, first]);
    let record = t.record(id_of(&made)).await;
    assert!(record.secrets[2].until <= record.secrets[1].until && record.secrets[0].until.is_none());
    for (body, field) in [
        (json!({ "secret": third }), "secret"),
        (json!({ "secret": "short" }), "secret"),
        (json!({ "overlap_seconds": 604_801 }), "overlap_seconds"),
        (json!({ "overlap": 1 }), "overlap"),
    ] {
        let (status, answer) = t.post(&rotate, body.clone()).await;
        assert_eq!((status, answer["field"].as_str()), (422, Some(field)), "{body}: {answer}");
    }
    let (_, last) = t.post(&rotate, json!({ "overlap_seconds": 0 })).await;
    assert_eq!(last["previous_secret_until"], Value::Null);
    assert_eq!(t.secrets(id_of(&made)).await.len(), 1, "all that were before end");

    for _ in 0..9 {
        assert_eq!(t.call("POST", &rotate, None).await.0, 200);
    }
    let (status, full) = t.call("POST", &rotate, None).await;
    assert_eq!((status, full["code"].as_str()), (409, Some("secret_rules")), "{full}");

    let with = with_key(&rotate, r#"{"overlap_seconds":0}"#, "k");
    let (_, _, one) = read(t.send(with).await).await;
    let (_, headers, again) = read(t.send(with_key(&rotate, r#"{"overlap_seconds":0}"#, "k")).await).await;
    assert_eq!((one, "true"), (again, headers["idempotency-replayed"].to_str().unwrap()));
    let ed25519 = json!({ "secret": format!("whsk_{}B=", "A".repeat(42)) });
    let public = t.post(&rotate, ed25519).await.1["public_key"].as_str().unwrap().to_owned();
    assert!(public.starts_with("whpk_"), "{public}");
    assert_eq!(t.call("GET", &format!("{path}/secret"), None).await.1["code"], "secret_rules");
    assert_eq!(t.call("POST", "/v1/webhooks/wh_none/rotate-secret", None).await.0, 404);
}

#[tokio::test]
async fn secrets_follow_the_rules_of_the_profile() {
    let t = Test::new().await;
    t.import(&shop()).await;
    let (_, made) = t.of_shop(json!({})).await;
    let (path, secret) = (path_of(&made), made["secret"].as_str().unwrap());
    assert_eq!(secret.len(), 43, "a text without a prefix: {secret}");
    let again = t.get(&format!("{path}/secret")).await;
    assert_eq!(again, json!({ "secret": secret, "secret_version": 1 }), "this profile shows it again");
    let rotate = format!("{path}/rotate-secret");
    let (_, refused) = t.post(&rotate, json!({ "overlap_seconds": 60 })).await;
    assert_eq!(refused["field"], "overlap_seconds", "{refused}");
    let (status, rotated) = t.post(&rotate, json!({ "secret": "sixteen-letters!" })).await;
    assert_eq!((status, &rotated["secret_hint"]), (200, &json!("…ers!")), "{rotated}");
    assert_eq!(t.secrets(id_of(&made)).await, ["sixteen-letters!"], "the one before ended at once");
    let response = t.send(request("POST", &rotate, None)).await;
    let (status, headers, soon) = read(response).await;
    assert_eq!((status, soon["code"].as_str()), (429, Some("too_soon")), "{soon}");
    let wait: u64 = headers[header::RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!((290..=300).contains(&wait), "{wait}");
    for secret in ["short", "has a space in its midst", &"x".repeat(257)] {
        let (status, body) = t.of_shop(json!({ "secret": secret })).await;
        assert_eq!((status, body["field"].as_str()), (422, Some("secret")), "{secret}: {body}");
        assert!(!body.to_string().contains(secret), "{body}");
    }

    // Another profile, and the secret cannot sign in it.
    let (status, moved) = t.patch(&path, json!({ "profile": "postrider" })).await;
    assert_eq!((status, &moved["secret_version"]), (200, &json!(3)), "{moved}");
    let new = moved["secret"].as_str().unwrap();
    assert!(new.starts_with("whsec_") && moved["warnings"].to_string().contains("new one"), "{moved}");
    assert_eq!(t.get(&path).await["secret_rotated_at"], moved["secret_rotated_at"], "said at once");
    assert_ne!(moved["secret_rotated_at"], rotated["secret_rotated_at"]);
    let record = t.record(id_of(&made)).await;
    assert_eq!(record.webhook(1).unwrap().open(&key(1), KeyForm::Base64).unwrap().keys.len(), 1);
    // And one that can sign in both stays.
    let (_, back) = t.patch(&path, json!({ "profile": "shop" })).await;
    assert!(back.get("secret").is_none(), "{back}");
    assert_eq!(t.secrets(id_of(&made)).await, [new]);
}

#[tokio::test]
async fn webhooks_are_found_by_what_they_take_and_how() {
    let t = Test::new().await;
    t.import(&shop()).await;
    for (name, subscription) in [
        ("by-type", json!({ "event_types": ["Order placed"] })),
        ("by-alias", json!({ "event_types": ["Order_placed"] })),
        ("by-group", json!({ "groups": ["checkout"] })),
        ("by-category", json!({ "categories": ["orders"] })),
        ("all", json!({ "all": true })),
        ("other", json!({ "event_types": ["MemberWillExpire"] })),
        ("own", json!({ "categories": ["postrider"] })),
        ("gone", json!({ "all": true })),
    ] {
        let url = format!("https://{name}.example.com/%25hook");
        t.webhook(json!({ "name": name, "url": url, "subscription": subscription })).await;
    }
    let gone = t.get("/v1/webhooks?url=gone.example").await["items"][0].clone();
    t.call("DELETE", &path_of(&gone), None).await;
    let takers = vec!["all", "by-category", "by-group", "by-alias", "by-type"];
    for (query, found) in [
        ("event_type=Order%20placed", takers.clone()),
        ("event_type=Order_placed", takers),
        ("event_type=order.paid", vec!["all", "by-category", "by-group"]),
        ("event_type=MemberWillExpire", vec!["other", "all"]),
        ("event_type=nothing-of-the-sort", vec!["all"]),
        ("event_type=postrider.delivery.dead", vec!["own"]),
        ("url=by-type", vec!["by-type"]),
        ("name=by-TYPE", vec!["by-type"]),
        ("name=by-type&url=by-type", vec!["by-type"]),
        ("name=by-type&url=by-group", vec![]),
        ("name=%25", vec![]),
        ("url=%2525hook&event_type=order.paid&limit=200", vec!["all", "by-category", "by-group"]),
        ("url=_", vec![]),
        ("profile=standard", vec![]),
        ("profile=postrider&state=active&event_type=MemberWillExpire", vec!["other", "all"]),
    ] {
        assert_eq!(names(&t.get(&format!("/v1/webhooks?{query}")).await), found, "{query}");
    }
    let other = t.get("/v1/webhooks?name=other").await["items"][0].clone();
    let fails = "INSERT INTO webhook_health (webhook, in_a_row, told, failing_since) VALUES ($1, 1, 0, 1)";
    sqlx::query(fails).bind(id_of(&other)).execute(t.api.store.writer()).await.unwrap();
    assert_eq!(names(&t.get("/v1/webhooks?failing=true").await), ["other"]);
    assert!(names(&t.get("/v1/webhooks?failing=true&state=paused").await).is_empty());
    assert_eq!(t.call("GET", "/v1/webhooks?failing=no", None).await.1["field"], "failing");
    let first = t.get("/v1/webhooks?order=oldest&limit=1").await;
    assert_eq!(names(&first), ["by-type"]);
    let next = first["next"].as_str().unwrap();
    let second = t.get(&format!("/v1/webhooks?order=oldest&limit=1&cursor={next}")).await;
    assert_eq!(names(&second), ["by-alias"]);
    let made = second["items"][0]["created_at"].as_str().unwrap();
    let since = t.get(&format!("/v1/webhooks?order=oldest&limit=200&since={made}")).await;
    assert!(names(&since).contains(&"by-alias") && names(&since).contains(&"own"), "{since}");
    assert!(!names(&t.get(&format!("/v1/webhooks?until={made}")).await).contains(&"by-alias"));
    for (query, field) in [
        ("order=name", "order"),
        ("since=now", "since"),
        ("since=2030-01-01T00:00:00Z&until=2029-01-01T00:00:00Z", "until"),
    ] {
        assert_eq!(t.call("GET", &format!("/v1/webhooks?{query}"), None).await.1["field"], field, "{query}");
    }
    assert_eq!(t.get("/v1/event-types/Order_placed").await["webhooks"], 5);
    assert_eq!(t.get("/v1/event-types/postrider.delivery.dead").await["webhooks"], 1);
    assert_eq!(t.call("GET", "/v1/webhooks?name=", None).await.1["field"], "name");
    assert_eq!(t.call("GET", "/v1/webhooks?url=", None).await.1["field"], "url");
    let page = t.get("/v1/webhooks?event_type=order.paid&limit=2").await;
    let next = page["next"].as_str().unwrap();
    let rest = t.get(&format!("/v1/webhooks?event_type=order.paid&limit=2&cursor={next}")).await;
    assert_eq!((names(&rest), &rest["next"]), (vec!["by-group"], &Value::Null));
}

#[tokio::test]
async fn what_webhooks_use_cannot_be_taken_away() {
    let t = Test::new().await;
    t.import(&shop()).await;
    let (_, made) = t
        .of_shop(json!({ "payload_version": "1", "subscription": {
        "event_types": ["Order_placed"], "groups": ["checkout"] } }))
        .await;
    let without = |pointer: &str| {
        let mut less = shop();
        *less.pointer_mut(pointer).unwrap() = Value::Null;
        if pointer == "/profile" {
            less.as_object_mut().unwrap().remove("profile");
        }
        less
    };
    let no_alias = {
        let mut less = shop();
        less["event_type"][0]["aliases"] = json!([]);
        less
    };
    let no_version = {
        let mut less = shop();
        less["profile"]["other_version"] = json!([]);
        less
    };
    let other_key = {
        let mut less = shop();
        less["profile"]["signature"]["key"] = json!("text_after_prefix");
        less
    };
    for (less, kind, name) in [
        (no_alias, "type", "Order_placed"),
        (no_version, "payload_version", "1"),
        (other_key, "signature.key", "shop"),
        (without("/profile"), "profile", "shop"),
    ] {
        for query in ["", "?dry_run=true"] {
            let (status, body) = t.put(&format!("/v1/catalogues/shop{query}"), &less).await;
            assert_eq!((status, body["code"].as_str()), (409, Some("catalogue_in_use")), "{kind}: {body}");
            assert_eq!(body["uses"], json!([{ "kind": kind, "name": name, "webhooks": 1, "reminders": 0 }]));
        }
    }
    let (status, body) = t.call("DELETE", "/v1/catalogues/shop", None).await;
    assert_eq!((status, body["uses"].as_array().unwrap().len()), (409, 3), "{body}");
    assert_eq!(body["detail"], "the type \"Order_placed\" would be removed, and is used");
    assert_eq!(t.call("DELETE", &path_of(&made), None).await.0, 204);
    assert_eq!(t.call("DELETE", "/v1/catalogues/shop", None).await.0, 204);
}

#[tokio::test]
async fn a_profile_cannot_demand_https_of_those_who_have_none() {
    let t = Test::new().await;
    let mut plain = shop();
    plain["profile"]["https_only"] = json!(false);
    t.import(&plain).await;
    let (status, made) = t.of_shop(json!({ "url": "http://example.com/" })).await;
    assert_eq!(status, 201, "{made}");
    let (status, body) = t.put("/v1/catalogues/shop", &shop()).await;
    assert_eq!((status, &body["uses"][0]["kind"]), (409, &json!("https_only")), "{body}");
    t.patch(&path_of(&made), json!({ "url": "https://example.com/" })).await;
    assert_eq!(t.put("/v1/catalogues/shop", &shop()).await.0, 200);
}

#[tokio::test]
async fn a_webhook_is_tried_with_a_sample_for_it_alone() {
    let t = Test::new().await;
    t.import(&shop()).await;
    let made = t.webhook(json!({ "subscription": { "groups": ["checkout"] }, "state": "disabled" })).await;
    let path = format!("{}/test", path_of(&made));
    let (status, trial) = t.call("POST", &path, None).await;
    assert_eq!((status, &trial["event_type"]), (202, &json!("Order placed")), "{trial}");
    let id = trial["event_id"].as_str().unwrap();
    assert!(id.starts_with("own_test_"), "{id}");
    let webhook = postrider_core::WebhookId::from_trusted(id_of(&made));
    let tenant = postrider_core::TenantId::default_tenant();
    let delivery = DeliveryId::of(&tenant, &postrider_core::EventId::from_trusted(id), &webhook);
    assert_eq!(trial["delivery_id"], delivery.to_string());
    let (row, event) = t.events().await.remove(0);
    assert_eq!((row.tenant.as_str(), row.webhook.as_str()), ("default", id_of(&made)), "for it alone");
    assert_eq!(row.revision, t.api.store.revision().await.unwrap());
    assert_eq!(
        (&event["data"], &event["current_context"]),
        (&json!({ "order": 17 }), &json!({ "who": "till" }))
    );

    let body = json!({ "event_type": "Order_placed", "data": { "mine": true } });
    let (_, trial) = t.post(&path, body).await;
    assert_eq!(trial["event_type"], "Order placed", "receivers see the name");
    let (_, event) = t.events().await.remove(1);
    assert_eq!((&event["data"], &event["event_type"]), (&json!({ "mine": true }), &json!("Order placed")));
    for (body, status, field) in [
        (json!({ "event_type": " x" }), 422, json!("event_type")),
        (json!({ "type": "x" }), 422, json!("type")),
        (json!({ "data": "x".repeat(256 * 1024) }), 422, json!("data")),
    ] {
        let (got, answer) = t.post(&path, body).await;
        assert_eq!((got, &answer["field"]), (status, &field), "{answer}");
    }
    assert_eq!(t.call("POST", "/v1/webhooks/wh_none/test", None).await.0, 404);
    assert_eq!(t.events().await.len(), 2);

    t.post("/v1/tenants", json!({ "id": "acme" })).await;
    let any = t.webhook(json!({ "tenant": "acme" })).await;
    let path = format!("{}/test?tenant=acme", path_of(&any));
    assert_eq!(t.call("POST", &path, None).await.1["event_type"], "postrider.test");
    // A category whose types all went away means nothing today.
    let less = json!({ "schema": 1, "product": { "id": "shop", "name": "Shop" },
                       "category": [{ "id": "empty", "label": "Empty" }] });
    assert_eq!(t.put("/v1/catalogues/shop?tenant=acme", &less).await.0, 201);
    let none = t.webhook(json!({ "tenant": "acme", "subscription": { "categories": ["empty"] } })).await;
    let (status, body) = t.call("POST", &format!("{}/test?tenant=acme", path_of(&none)), None).await;
    assert_eq!((status, body["code"].as_str()), (409, Some("nothing_to_send")), "{body}");
}

#[tokio::test]
async fn nothing_is_tried_while_many_events_wait_for_the_broker() {
    let t = Test::new().await;
    let path = format!("{}/test", path_of(&t.webhook(json!({})).await));
    assert_eq!(t.call("POST", &path, None).await.0, 202);
    let (_, event) = t.events().await.remove(0);
    let event = NewEvent {
        event_type: postrider_core::EventType::parse("x").unwrap(),
        event_time: event["event_time"].as_str().unwrap().to_owned(),
        current_context: postrider_core::event::null(),
        data: postrider_core::event::null(),
        id: postrider_core::EventId::from_trusted("own_x"),
        key: None,
        correlation_id: None,
    };
    let (tenant, now) = (postrider_core::TenantId::default_tenant(), postrider_broker::now());
    let mut change = t.api.store.change().await.unwrap();
    for _ in 1..crate::api::webhooks::MOST_WAITING {
        change.publish_event(&tenant, &event, Audience::All, now).await.unwrap();
    }
    change.commit().await.unwrap();
    let response = t.send(request("POST", &path, None)).await;
    let (status, headers, body) = read(response).await;
    assert_eq!((status, body["code"].as_str()), (503, Some("broker_unavailable")), "{body}");
    assert!(headers.contains_key(header::RETRY_AFTER));
}

#[tokio::test]
async fn a_webhook_explains_why_it_would_take_an_event() {
    let t = Test::new().await;
    t.import(&shop()).await;
    let made =
        t.webhook(json!({ "subscription": { "groups": ["checkout"], "filter": "data.amount > 10" } })).await;
    let path = format!("{}/explain", path_of(&made));
    let ask = |event: Value| {
        let (t, path) = (&t, &path);
        async move {
            let (status, answer) = t.post(path, json!({ "event": event })).await;
            assert_eq!(status, 200, "{answer}");
            answer
        }
    };
    let yes = ask(json!({ "event_type": "Order_placed", "data": { "amount": 11 } })).await;
    assert_eq!((&yes["match"], &yes["event_type"]["name"]), (&json!(true), &json!("Order placed")), "{yes}");
    assert_eq!(yes["taken_by"][0]["name"], "checkout", "{yes}");
    let no = ask(json!({ "event_type": "order.paid", "data": { "amount": 9 } })).await;
    assert_eq!((&no["match"], &no["filter"]["holds"]), (&json!(false), &json!(false)), "{no}");
    let unmet = ask(json!({ "event_type": "order.paid", "data": {} })).await;
    assert_eq!((&unmet["match"], unmet["filter"]["error"].is_string()), (&json!(false), true), "{unmet}");
    let other = ask(json!({ "event_type": "MemberWillExpire" })).await;
    assert_eq!((&other["match"], &other["filter"]), (&json!(false), &Value::Null), "{other}");
    t.patch("/v1/settings", json!({ "unknown_types": "refuse" })).await;
    let refused = ask(json!({ "event_type": "unheard" })).await;
    assert!(refused["because"].as_str().unwrap().contains("refused"), "{refused}");

    for (body, code) in [
        (json!({}), "bad_body"),
        (json!({ "event": {}, "event_id": "x" }), "bad_body"),
        (json!({ "event": { "event_type": "" } }), "bad_event"),
        (json!({ "event": { "action": "shop.checkout", "id": "a" } }), "bad_body"),
        (json!({ "event_id": "unheard" }), "not_found"),
    ] {
        let (_, answer) = t.post(&path, body.clone()).await;
        assert_eq!(answer["code"], code, "{body}: {answer}");
    }
    assert_eq!(t.post("/v1/webhooks/wh_none/explain", json!({ "event": {} })).await.0, 404);
    assert!(t.events().await.is_empty(), "nothing is sent");
}

#[tokio::test]
async fn who_asks_hears_what_happens_to_webhooks() {
    let t = Test::new().await;
    t.webhook(json!({ "name": "takes everything" })).await;
    assert!(t.events().await.is_empty(), "nobody asks by name");
    let subscription = json!({ "event_types": ["WEBHOOK_CREATED", "WEBHOOK_UPDATED", "WEBHOOK_DELETED"] });
    let listener = t.webhook(json!({ "name": "listener", "subscription": subscription })).await;
    let other = t.webhook(json!({ "name": "other", "url": "https://example.com/?key=canary" })).await;
    t.patch(&path_of(&other), json!({ "name": "renamed", "max_in_flight": 3 })).await;
    t.patch(&path_of(&other), json!({ "name": "renamed" })).await;
    t.call("POST", &format!("{}/pause", path_of(&other)), None).await;
    t.call("POST", &format!("{}/pause", path_of(&other)), None).await;
    t.call("POST", &format!("{}/rotate-secret", path_of(&other)), None).await;
    t.call("DELETE", &path_of(&other), None).await;
    t.call("DELETE", &path_of(&listener), None).await;
    let events = t.events().await;
    let told: Vec<(&str, &str, String)> = events
        .iter()
        .map(|(row, event)| {
            assert!(event["id"].as_str().unwrap().starts_with("own_") && row.webhook.is_empty());
            let data = &event["data"];
            (
                event["event_type"].as_str().unwrap(),
                data["name"].as_str().unwrap(),
                data["changed"].to_string(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("WEBHOOK_CREATED", "listener", "null".to_owned()),
            ("WEBHOOK_CREATED", "other", "null".to_owned()),
            ("WEBHOOK_UPDATED", "renamed", r#"["max_in_flight","name"]"#.to_owned()),
            ("WEBHOOK_UPDATED", "renamed", r#"["state"]"#.to_owned()),
            ("WEBHOOK_UPDATED", "renamed", r#"["secret"]"#.to_owned()),
            ("WEBHOOK_DELETED", "renamed", "null".to_owned()),
        ],
        "also its own creation, not its own deletion, and nothing where nothing changed"
    );
    assert!(events.iter().all(|(_, event)| !event.to_string().contains("canary")), "{events:?}");
}
