//! Catalogues, event types and settings.

use postrider_core::wire::{CatalogueRecord, ConfigKind, ConfigRecord, TenantRecord, UnknownTypes};

use super::*;

/// A small catalogue with everything in it.
pub(super) fn shop() -> Value {
    json!({
        "schema": 1,
        "product": { "id": "shop", "name": "Shop" },
        "category": [
            { "id": "orders", "label": "Orders", "description": "What customers buy." },
            { "id": "members", "label": "Members" },
        ],
        "group": [{ "id": "checkout", "category": "orders", "label": "Checkout", "description": "At the till." }],
        "event_type": [
            { "name": "Order placed", "label": "Order placed", "aliases": ["Order_placed"], "category": "orders",
              "group": "checkout", "description": "A customer orders.", "conditions": ["in the shop", "by phone"],
              "conditions_open": true, "code": "order_hook",
              "example": "{\"event_type\":\"Order placed\",\"event_time\":\"2026-11-21T20:00:00Z\",\"current_context\":{\"who\":\"till\"},\"data\":{\"order\":17}}" },
            { "name": "order.paid", "label": "Order paid", "category": "orders", "group": "checkout",
              "data_schema": { "type": "object", "required": ["amount"] } },
            { "name": "MemberWillExpire", "label": "Membership expires", "category": "members",
              "trigger": "scheduled", "lead_days": 14, "sensitive": true },
        ],
        "trigger": [
            { "action": "shop.checkout", "description": "The till reports it.",
              "emit": [{ "event_type": "Order placed" }, { "event_type": "order.paid", "when": "data.paid" }] },
        ],
        "profile": {
            "name": "shop", "member": [{ "name": "type", "event_type": "name" }, { "name": "data", "path": "/data" }],
            "version": "2", "other_version": [{ "name": "1", "member": [{ "name": "d", "path": "/data" }] }],
            "signature": { "scheme": "body_hex", "header": "X-Shop-Signature", "key": "text" },
            "secret": { "shown": "always", "rotation": "at_once", "rotation_interval_secs": 300 },
            "retry": { "schedule_ms": [1000, 2000] }, "timeout_ms": 3000,
            "disable_after_failures": 100, "max_active_webhooks": 2, "https_only": true,
        },
    })
}

/// `shop` as another product with other words, all with this prefix.
pub(super) fn other(prefix: &str) -> Value {
    let text = shop().to_string();
    let mut text = text.replace("\"shop\"", &format!("\"{prefix}shop\""));
    for word in
        ["orders", "members", "checkout", "Order placed", "Order_placed", "order.paid", "MemberWillExpire"]
    {
        text = text.replace(&format!("\"{word}\""), &format!("\"{prefix}{word}\""));
        text = text.replace(&format!("\\\"{word}\\\""), &format!("\\\"{prefix}{word}\\\""));
    }
    serde_json::from_str(&text).unwrap()
}

impl Test {
    pub(super) async fn put(&self, path: &str, body: &Value) -> (u16, Value) {
        self.call("PUT", path, Some(&body.to_string())).await
    }

    pub(super) async fn patch(&self, path: &str, body: Value) -> (u16, Value) {
        self.call("PATCH", path, Some(&body.to_string())).await
    }

    pub(super) async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call("GET", path, None).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    pub(super) async fn import(&self, catalogue: &Value) -> Value {
        let product = catalogue["product"]["id"].as_str().unwrap();
        let (status, body) = self.put(&format!("/v1/catalogues/{product}"), catalogue).await;
        assert!(matches!(status, 200 | 201), "{body}");
        body
    }

    /// What the data plane was told, oldest first.
    pub(super) async fn told(&self) -> Vec<ConfigRecord> {
        let rows = self.api.store.unsent(crate::store::OutboxLane::Configuration, 1000).await.unwrap();
        rows.iter().map(|row| serde_json::from_slice(&row.body).unwrap()).collect()
    }
}

pub(super) fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect()
}

fn product_file(name: &str) -> Value {
    let path = format!("{}/../../catalogues/{name}.toml", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    serde_json::to_value(toml::from_str::<toml::Value>(&text).unwrap()).unwrap()
}

#[tokio::test]
async fn a_catalogue_is_imported_shown_changed_and_removed() {
    let t = Test::new().await;
    let dry = t.put("/v1/catalogues/shop?dry_run=true", &shop()).await;
    assert_eq!((dry.0, &dry.1["dry_run"], &dry.1["revision"]), (200, &json!(true), &Value::Null));
    assert!(!dry.1["changes"].as_array().unwrap().is_empty(), "{}", dry.1);
    assert_eq!(t.call("GET", "/v1/catalogues/shop", None).await.0, 404, "nothing was changed");
    assert!(t.told().await.is_empty());

    let (status, made) = t.put("/v1/catalogues/shop", &shop()).await;
    assert_eq!(status, 201, "{made}");
    assert_eq!(made["changes"], dry.1["changes"]);
    let shown = t.get("/v1/catalogues/shop").await;
    let again = t.put("/v1/catalogues/shop", &shown).await;
    assert_eq!((again.0, &again.1["changes"], &again.1["revision"]), (200, &json!([]), &made["revision"]));
    assert_eq!(t.get("/v1/catalogues/shop").await, shown, "what is shown can be put again");
    let told = t.told().await;
    assert_eq!(told.len(), 1, "what is the same is not told again");
    assert_eq!((told[0].kind, told[0].id.as_str()), (ConfigKind::Catalogue, "default/shop"));
    let record: CatalogueRecord = serde_json::from_str(told[0].body.as_ref().unwrap().get()).unwrap();
    assert_eq!((record.tenant.as_str(), record.catalogue.event_types.len()), ("default", 3));

    let list = t.get("/v1/catalogues").await;
    assert_eq!(list["items"][0]["product"], "shop");
    assert_eq!((&list["items"][0]["event_types"], &list["items"][0]["profile"]), (&json!(3), &json!("shop")));
    assert_eq!(
        (&list["items"][1]["product"], &list["items"][1]["built_in"]),
        (&json!("postrider"), &json!(true))
    );

    let mut less = shop();
    less["event_type"].as_array_mut().unwrap().remove(2);
    less["category"].as_array_mut().unwrap().remove(1);
    let (status, changed) = t.put("/v1/catalogues/shop", &less).await;
    assert_eq!(status, 200, "{changed}");
    assert!(changed["changes"].to_string().contains("MemberWillExpire"), "{changed}");
    assert!(changed["revision"].as_u64() > made["revision"].as_u64());
    assert_eq!(t.call("GET", "/v1/event-types/MemberWillExpire", None).await.0, 404);

    assert_eq!(t.call("DELETE", "/v1/catalogues/shop", None).await.0, 204);
    assert_eq!(t.call("DELETE", "/v1/catalogues/shop", None).await.0, 404);
    assert_eq!(t.call("GET", "/v1/event-types/order.paid", None).await.0, 404);
    let told = t.told().await;
    assert!(told.last().unwrap().body.is_none(), "its end is told");
    t.import(&shop()).await;
}

#[tokio::test]
async fn a_catalogue_with_errors_is_refused_with_all_of_them() {
    let t = Test::new().await;
    let mut bad = shop();
    bad["event_type"][1]["category"] = json!("nowhere");
    bad["event_type"][1]["colour"] = json!("red");
    bad["event_type"][2]["name"] = json!("order.paid");
    bad["trigger"][0]["emit"][0]["event_type"] = json!("Order plaiced");
    bad["profile"]["signature"]["header"] = Value::Null;
    for path in ["/v1/catalogues/shop", "/v1/catalogues/shop?dry_run=true"] {
        let (status, body) = t.put(path, &bad).await;
        assert_eq!((status, body["code"].as_str()), (422, Some("bad_catalogue")), "{body}");
        let findings = body["findings"].to_string();
        for word in ["nowhere", "colour", "order.paid", "Order plaiced", "profile"] {
            assert!(findings.contains(word), "{word} in {findings}");
        }
    }
    for (change, field) in [
        (json!({ "product": { "id": "store", "name": "Shop" } }), "product.id"),
        (json!({ "schema": "one" }), "schema"),
        (
            json!({ "event_type": [{ "name": " x", "label": "x", "category": "orders" }] }),
            "event_type[0].name",
        ),
    ] {
        let mut body = shop();
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let (status, body) = t.put("/v1/catalogues/shop", &body).await;
        assert_eq!((status, body["field"].as_str()), (422, Some(field)), "{body}");
    }
    let mut own = shop();
    own["product"]["id"] = json!("postrider");
    assert_eq!(t.put("/v1/catalogues/postrider", &own).await.0, 409);
    assert_eq!(t.call("DELETE", "/v1/catalogues/postrider", None).await.0, 409);
    assert_eq!(t.put("/v1/catalogues/shop?tenant=nobody", &shop()).await.1["code"], "unknown_tenant");
    assert!(t.told().await.is_empty(), "nothing of it was taken");
}

#[tokio::test]
async fn names_are_there_once_within_a_tenant() {
    let t = Test::new().await;
    t.import(&shop()).await;
    t.import(&other("x")).await;
    for (path, value) in [
        ("/event_type/0/name", "order.paid"),
        ("/event_type/0/aliases/0", "Order placed"),
        ("/profile/name", "shop"),
    ] {
        let mut clash = other("y");
        *clash.pointer_mut(path).unwrap() = json!(value);
        let text = clash
            .to_string()
            .replace("yOrder placed", if path.ends_with("name") { value } else { "yOrder placed" });
        let clash: Value = serde_json::from_str(&text).unwrap();
        let (status, body) = t.put("/v1/catalogues/yshop", &clash).await;
        assert_eq!((status, body["code"].as_str()), (409, Some("catalogue_clash")), "{value}: {body}");
        assert_eq!(body["clashes"][0]["name"], value, "{body}");
    }
    for (word, kind) in [("orders", "category"), ("checkout", "group")] {
        let text = other("y").to_string().replace(&format!("\"y{word}\""), &format!("\"{word}\""));
        let (status, body) = t.put("/v1/catalogues/yshop", &serde_json::from_str(&text).unwrap()).await;
        assert_eq!((status, body["clashes"][0]["kind"].as_str()), (409, Some(kind)), "{word}: {body}");
    }
    t.post("/v1/tenants", json!({ "id": "acme" })).await;
    assert_eq!(t.put("/v1/catalogues/shop?tenant=acme", &shop()).await.0, 201, "tenants do not meet");
    assert_eq!(t.call("DELETE", "/v1/tenants/acme", None).await.0, 204);
    t.post("/v1/tenants", json!({ "id": "acme" })).await;
    assert_eq!(
        t.call("GET", "/v1/catalogues/shop?tenant=acme", None).await.0,
        404,
        "it went with its tenant"
    );
}

#[tokio::test]
async fn a_tenant_has_few_catalogues() {
    let t = Test::new().await;
    for n in 0..16 {
        t.import(&other(&format!("p{n}-"))).await;
    }
    let (status, body) = t.put("/v1/catalogues/shop", &shop()).await;
    assert_eq!((status, body["code"].as_str()), (403, Some("quota")), "{body}");
    t.import(&other("p3-")).await;
}

#[tokio::test]
async fn event_types_are_listed_searched_and_shown() {
    let t = Test::new().await;
    t.import(&shop()).await;
    t.import(&other("x")).await;
    let own = ["postrider.webhook.failing", "postrider.webhook.disabled", "postrider.delivery.dead"];
    let shops = ["Order placed", "order.paid", "MemberWillExpire"];
    let all = t.get("/v1/event-types").await;
    let expected: Vec<String> = own
        .iter()
        .chain(&shops)
        .map(|name| (*name).to_owned())
        .chain(shops.iter().map(|name| format!("x{name}")))
        .collect();
    assert_eq!(names(&all), expected);
    let mut paged = Vec::new();
    let mut path = "/v1/event-types?limit=2".to_owned();
    loop {
        let page = t.get(&path).await;
        paged.extend(names(&page).into_iter().map(str::to_owned));
        match page["next"].as_str() {
            Some(next) => path = format!("/v1/event-types?limit=2&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(paged, expected);
    for (query, found) in [
        ("product=shop&category=orders", vec!["Order placed", "order.paid"]),
        ("group=checkout", vec!["Order placed", "order.paid"]),
        ("search=ORDER_placed&product=shop", vec!["Order placed"]),
        ("search=customer%20order&product=shop", vec!["Order placed"]),
        ("search=paid%25", vec![]),
        ("search=dead", vec!["postrider.delivery.dead"]),
        (
            "category=postrider&search=webhook",
            vec!["postrider.webhook.failing", "postrider.webhook.disabled"],
        ),
        ("category=nowhere", vec![]),
        ("tenant=acme&product=shop", vec![]),
    ] {
        let list = t.get(&format!("/v1/event-types?{query}")).await;
        assert_eq!(names(&list), found, "{query}");
    }
    let long = format!("/v1/event-types?search={}", "a".repeat(129));
    assert_eq!(t.call("GET", &long, None).await.1["field"], "search");

    for spelling in ["Order%20placed", "Order_placed"] {
        let one = t.get(&format!("/v1/event-types/{spelling}")).await;
        assert_eq!((&one["name"], &one["conditions_open"]), (&json!("Order placed"), &json!(true)));
        assert_eq!(one["conditions"], json!(["in the shop", "by phone"]));
        assert_eq!(
            (&one["category_label"], &one["group_description"]),
            (&json!("Orders"), &json!("At the till."))
        );
        assert_eq!(one["triggers"][0]["action"], "shop.checkout");
        assert!(one["example"].as_str().unwrap().contains("17"));
        assert_eq!(one["webhooks"], 0);
    }
    let paid = t.get("/v1/event-types/order.paid").await;
    assert_eq!(paid["triggers"][0]["emit"], json!([{ "when": "data.paid" }]));
    assert_eq!((&paid["has_schema"], &paid["data_schema"]["type"]), (&json!(true), &json!("object")));
    assert_eq!(t.get("/v1/event-types/postrider.delivery.dead").await["cause"], "own");
    for missing in ["order%20placed", "Order", "order.paid?tenant=acme"] {
        assert_eq!(t.call("GET", &format!("/v1/event-types/{missing}"), None).await.0, 404, "{missing}");
    }
}

#[tokio::test]
async fn the_four_products_fit_into_one_tenant() {
    let t = Test::new().await;
    for name in ["upmind-client", "skillmine-auth", "open-loyalty", "entrust-idaas"] {
        let mut catalogue = product_file(name);
        let product = catalogue["product"]["id"].as_str().unwrap().to_owned();
        let (status, body) = t.put(&format!("/v1/catalogues/{product}"), &catalogue).await;
        assert_eq!(status, 201, "{name}: {body}");
        let shown = t.get(&format!("/v1/catalogues/{product}")).await;
        catalogue = shown.clone();
        assert_eq!(t.import(&catalogue).await["changes"], json!([]), "{name}");
    }
    let mut count = 0;
    let mut path = "/v1/event-types?limit=200".to_owned();
    loop {
        let page = t.get(&path).await;
        count += page["items"].as_array().unwrap().len();
        match page["next"].as_str() {
            Some(next) => path = format!("/v1/event-types?limit=200&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(count, 150 + 3, "150 of the products and our own");
    let alias = t.get("/v1/event-types/Client%20added%20two_factor%20auth").await;
    assert_eq!(alias["name"], "Client added two factor auth");
}

#[tokio::test]
async fn settings_are_kept_and_told() {
    let t = Test::new().await;
    let defaults = json!({ "unknown_types": "accept", "schemas": "off", "time_zone": "UTC", "send_at": "09:00",
                           "lead_days": {}, "max_active_webhooks": null, "max_in_flight": null,
                           "rate_per_second": null });
    assert_eq!(t.get("/v1/settings").await, defaults);
    t.import(&shop()).await;
    let patch = json!({ "unknown_types": "refuse", "schemas": "warn", "time_zone": "Europe/Berlin", "send_at": "06:30",
                        "lead_days": { "MemberWillExpire": 7, "Order_placed": 1 }, "max_active_webhooks": 20,
                        "max_in_flight": 500, "rate_per_second": 1000 });
    let (status, changed) = t.patch("/v1/settings", patch).await;
    assert_eq!(status, 200, "{changed}");
    assert_eq!(
        changed["lead_days"],
        json!({ "MemberWillExpire": 7, "Order placed": 1 }),
        "an alias is resolved"
    );
    assert_eq!(t.get("/v1/settings").await, changed);
    assert_eq!(t.get("/v1/event-types/MemberWillExpire").await["lead_days"], 7);
    let told = t.told().await;
    let record: TenantRecord =
        serde_json::from_str(told.last().unwrap().body.as_ref().unwrap().get()).unwrap();
    assert_eq!(record.settings.unknown_types, UnknownTypes::Refuse);
    assert_eq!((record.settings.max_in_flight, record.settings.rate_per_second), (Some(500), Some(1000)));

    let (_, changed) =
        t.patch("/v1/settings", json!({ "lead_days": { "MemberWillExpire": null }, "schemas": null })).await;
    assert_eq!((&changed["lead_days"], &changed["schemas"]), (&json!({ "Order placed": 1 }), &json!("off")));
    assert_eq!(t.get("/v1/event-types/MemberWillExpire").await["lead_days"], 14);
    let before = t.told().await.len();
    t.patch("/v1/settings", json!({ "time_zone": "Europe/Berlin" })).await;
    assert_eq!(t.told().await.len(), before, "what is the same is not told");
    // The setting outlives a restart, and a type that went away does not block other changes.
    t.import(&json!({ "schema": 1, "product": { "id": "shop", "name": "Shop" } })).await;
    assert_eq!(t.patch("/v1/settings", json!({ "send_at": "07:00" })).await.0, 200);
}

#[tokio::test]
async fn settings_that_mean_nothing_are_refused_by_name() {
    let t = Test::new().await;
    t.import(&shop()).await;
    for (patch, field) in [
        (json!({ "time_zone": "Mars/Olympus" }), "time_zone"),
        (json!({ "time_zone": "" }), "time_zone"),
        (json!({ "time_zone": "../../etc/passwd" }), "time_zone"),
        (json!({ "send_at": "24:00" }), "send_at"),
        (json!({ "send_at": "9:00" }), "send_at"),
        (json!({ "send_at": 9 }), "send_at"),
        (json!({ "unknown_types": "drop" }), "unknown_types"),
        (json!({ "schemas": true }), "schemas"),
        (json!({ "lead_days": { "MemberWillExpire": 366 } }), "lead_days.MemberWillExpire"),
        (json!({ "lead_days": { "MemberWillExpire": -1 } }), "lead_days.MemberWillExpire"),
        (json!({ "lead_days": { "MemberWontExpire": 1 } }), "lead_days.MemberWontExpire"),
        (json!({ "lead_days": { " x": 1 } }), "lead_days. x"),
        (json!({ "lead_days": 7 }), "lead_days"),
        (json!({ "max_active_webhooks": 0 }), "max_active_webhooks"),
        (json!({ "max_active_webhooks": 10_001 }), "max_active_webhooks"),
        (json!({ "max_in_flight": 0 }), "max_in_flight"),
        (json!({ "rate_per_second": 100_001 }), "rate_per_second"),
        (json!({ "timezone": "UTC" }), "timezone"),
    ] {
        let (status, body) = t.patch("/v1/settings", patch.clone()).await;
        assert_eq!((status, body["field"].as_str()), (422, Some(field)), "{patch}: {body}");
    }
    assert_eq!(t.patch("/v1/settings", json!([])).await.0, 422);
    assert_eq!(t.patch("/v1/settings?tenant=nobody", json!({})).await.1["code"], "unknown_tenant");
    assert_eq!(t.call("GET", "/v1/settings?tenant=nobody", None).await.1["code"], "unknown_tenant");
    assert_eq!(t.told().await.len(), 1, "only the catalogue");
}
