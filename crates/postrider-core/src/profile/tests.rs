//! Profiles: what is refused, and what bodies and headers come out.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;
use serde_json::value::RawValue;

use super::*;
use crate::catalogue::TypeEntry;
use crate::event::{Event, EventType};
use crate::id::{DeliveryId, EventId, TenantId, WebhookId};
use crate::time::Timestamp;

fn raw(text: &str) -> Arc<RawValue> {
    Arc::from(RawValue::from_string(text.into()).unwrap())
}

fn event() -> Event {
    Event {
        tenant: TenantId::from_trusted("acme"),
        id: EventId::from_trusted("evt_1"),
        event_type: EventType::parse("Client added \"two\" factor auth").unwrap(),
        event_time: "2026-11-21T21:00:00.25+01:00".into(),
        current_context: raw(r#" { "actor" : null, "actor_id": 7, "source": "/shop/ü 1" } "#),
        data: raw(r#"{"object":{ "n" : 1.0, "s": "\u00fc" },"kind":"client","flag":false}"#),
        key: Some("client/7".into()),
        correlation_id: None,
        traceparent: None,
        accepted_at: Timestamp::default(),
    }
}

fn entry() -> TypeEntry {
    serde_json::from_value(json!({
        "name": "Client added two factor auth", "label": "l", "category": "client", "group": "security",
        "code": "client_added_2fa_hook",
    }))
    .unwrap()
}

fn body_of(profile: &Profile, version: Option<&str>, event: &Event, entry: Option<&TypeEntry>) -> String {
    let webhook = WebhookId::from_trusted("wh_1");
    let delivery = DeliveryId::of(&event.tenant, &event.id, &webhook);
    let subject = Subject { event, entry, delivery: &delivery, webhook: &webhook };
    String::from_utf8(profile.body(version, &subject)).unwrap()
}

fn headers_of(profile: &Profile, event: &Event) -> Vec<(String, String)> {
    let webhook = WebhookId::from_trusted("wh_1");
    let delivery = DeliveryId::of(&event.tenant, &event.id, &webhook);
    let subject = Subject { event, entry: None, delivery: &delivery, webhook: &webhook };
    profile.headers(&subject).map(|(name, value)| (name.to_owned(), value)).collect()
}

/// A profile of its JSON, with a name.
fn parse(spec: serde_json::Value) -> Result<Profile, BadProfile> {
    let mut whole = json!({ "name": "p" });
    for (name, value) in spec.as_object().unwrap() {
        whole[name] = value.clone();
    }
    Profile::new(serde_json::from_value(whole).unwrap())
}

#[test]
fn every_built_in_profile_is_good_and_its_name_is_taken() {
    for name in BUILT_IN {
        let profile = Profile::built_in(name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(profile.spec().name, name);
        let refused = Profile::new(ProfileSpec { name: name.into(), ..profile.spec().clone() }).unwrap_err();
        assert_eq!(refused.member, "name");
    }
    assert!(Profile::built_in("hologram").is_none());
    assert_eq!(Profile::default_profile().spec().name, "postrider");
}

#[test]
fn the_default_body_has_four_members_byte_for_byte() {
    assert_eq!(
        body_of(&Profile::default_profile(), None, &event(), None),
        r#"{"event_time":"2026-11-21T21:00:00.25+01:00","event_type":"Client added \"two\" factor auth","current_context":{ "actor" : null, "actor_id": 7, "source": "/shop/ü 1" },"data":{"object":{ "n" : 1.0, "s": "\u00fc" },"kind":"client","flag":false}}"#
    );
}

#[test]
fn the_standard_body_and_schedule() {
    let standard = Profile::built_in("standard").unwrap();
    let event = Event { data: raw("null"), ..event() };
    assert_eq!(
        body_of(&standard, None, &event, None),
        r#"{"type":"Client added \"two\" factor auth","timestamp":"2026-11-21T21:00:00.25+01:00","data":null}"#
    );
    let policy = standard.retry(&RetryRecord::default());
    assert_eq!(policy.max_attempts(), 10);
    let hours: Vec<u64> = (4..10).map(|n| policy.interval_ms(n) / 3_600_000).collect();
    assert_eq!(hours, [2, 5, 10, 14, 20, 24]);
    assert_eq!([1, 2, 3].map(|n| policy.interval_ms(n)), [5_000, 300_000, 1_800_000]);
}

#[test]
fn cloud_events_in_both_modes() {
    let structured = Profile::built_in("cloudevents").unwrap();
    assert_eq!(structured.content_type(), "application/cloudevents+json");
    let plain = Event { current_context: raw("{\"source\":7}"), key: None, data: raw("[ 1 ]"), ..event() };
    assert_eq!(
        body_of(&structured, None, &plain, None),
        r#"{"specversion":"1.0","id":"evt_1","source":"/tenants/acme","type":"Client added \"two\" factor auth","time":"2026-11-21T21:00:00.25+01:00","datacontenttype":"application/json","data":[ 1 ]}"#
    );
    let whole: serde_json::Value = serde_json::from_str(&body_of(&structured, None, &event(), None)).unwrap();
    assert_eq!((&whole["source"], &whole["subject"]), (&json!("/shop/ü 1"), &json!("client/7")));

    let binary = Profile::built_in("cloudevents-binary").unwrap();
    assert_eq!(body_of(&binary, None, &plain, None), "[ 1 ]");
    assert_eq!(binary.content_type(), "application/json");
    let expected = [
        ("ce-specversion", "1.0"),
        ("ce-id", "evt_1"),
        ("ce-source", "/shop/%C3%BC%201"),
        ("ce-type", "Client%20added%20%22two%22%20factor%20auth"),
        ("ce-time", "2026-11-21T21:00:00.25+01:00"),
        ("ce-subject", "client/7"),
    ];
    assert_eq!(
        headers_of(&binary, &event()),
        expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
    assert_eq!(headers_of(&binary, &plain).len(), 5, "no subject");
}

#[test]
fn every_source_of_a_member() {
    let profile = parse(json!({ "member": [
        { "name": "whole", "path": "/current_context" },
        { "name": "deep", "path": "/data/object/n" },
        { "name": "null_at_path", "path": "/current_context/actor", "text": "nobody" },
        { "name": "nowhere", "path": "/data/no/such", "value": { "a": [1] } },
        { "name": "only_text", "path": "/current_context/actor_id", "only_text": true, "text": "7 is no text" },
        { "name": "false", "path": "/data/flag", "text": "no" },
        { "name": "key", "path": "/key" },
        { "name": "gone", "path": "/correlation_id", "optional": true },
        { "name": "null", "path": "/correlation_id" },
        { "name": "ids", "text": "{tenant}/{event_id}/{webhook_id}/{event_type}" },
        { "name": "event", "id": "event" }, { "name": "delivery", "id": "delivery" },
        { "name": "uuid", "id": "delivery_uuid" }, { "name": "correlation", "id": "correlation" },
        { "name": "code", "event_type": "code" }, { "name": "category", "event_type": "category" },
        { "name": "group", "event_type": "group" },
        { "name": "as_given", "time": "as_given" }, { "name": "ms", "time": "rfc3339_ms" },
        { "name": "s", "time": "rfc3339" }, { "name": "space", "time": "space_separated" },
        { "name": "unix", "time": "unix_secs" }, { "name": "unix_ms", "time": "unix_ms" },
        { "name": "quo\"ted" },
    ]}))
    .unwrap();
    let event = event();
    let delivery = DeliveryId::of(&event.tenant, &event.id, &WebhookId::from_trusted("wh_1"));
    let expected = [
        r#""whole":{ "actor" : null, "actor_id": 7, "source": "/shop/ü 1" }"#.to_owned(),
        r#""deep":1.0,"null_at_path":"nobody","nowhere":{"a":[1]},"only_text":"7 is no text","false":false"#
            .into(),
        r#""key":"client/7","null":null,"ids":"acme/evt_1/wh_1/Client added \"two\" factor auth""#.into(),
        format!(r#""event":"evt_1","delivery":"{delivery}","uuid":"{}","correlation":null"#, delivery.uuid()),
        r#""code":"client_added_2fa_hook","category":"client","group":"security""#.into(),
        r#""as_given":"2026-11-21T21:00:00.25+01:00","ms":"2026-11-21T20:00:00.250Z""#.into(),
        r#""s":"2026-11-21T20:00:00Z","space":"2026-11-21 20:00:00""#.into(),
        r#""unix":1795291200,"unix_ms":1795291200250,"quo\"ted":null"#.into(),
    ];
    assert_eq!(body_of(&profile, None, &event, Some(&entry())), format!("{{{}}}", expected.join(",")));
    let without = body_of(&profile, None, &event, None);
    assert!(without.contains(r#""code":null,"category":null,"group":null"#), "{without}");
}

#[test]
fn a_webhook_may_ask_for_another_version_of_the_payload() {
    let profile = parse(json!({
        "version": "2", "member": [{ "name": "type", "event_type": "name" }],
        "other_version": [{ "name": "legacy", "member": [{ "name": "eventName", "event_type": "name" }] }],
    }))
    .unwrap();
    let event = event();
    let body = |version| body_of(&profile, version, &event, None);
    assert!(body(Some("legacy")).starts_with("{\"eventName\""));
    for version in [None, Some("2"), Some("3")] {
        assert!(body(version).starts_with("{\"type\""), "{version:?}");
    }
    assert_eq!(["2", "legacy", "3"].map(|name| profile.has_version(name)), [true, true, false]);
}

#[test]
fn what_is_wrong_is_named() {
    let member = |member: serde_json::Value| json!({ "member": [{ "name": "ok", "id": "event" }, member] });
    let ok = json!([{ "name": "ok", "id": "event" }]);
    let scheme = |scheme: &str, more: serde_json::Value| {
        let mut spec =
            json!({ "member": ok, "signature": { "scheme": scheme }, "secret": { "rotation": "at_once" } });
        for (name, value) in more.as_object().unwrap() {
            spec["signature"][name] = value.clone();
        }
        spec
    };
    for (spec, member) in [
        (json!({}), "member"),
        (json!({ "body": "data", "member": ok }), "member"),
        (json!({ "name": "Big", "member": ok }), "name"),
        (json!({ "name": "postrider", "member": ok }), "name"),
        (member(json!({ "name": "ok" })), "member[1].name"),
        (member(json!({ "name": "" })), "member[1].name"),
        (member(json!({ "name": "a", "id": "event", "text": "x" })), "member[1].text"),
        (member(json!({ "name": "a", "time": "rfc3339", "value": 1 })), "member[1].value"),
        (member(json!({ "name": "a", "text": "{nobody}" })), "member[1].text"),
        (member(json!({ "name": "a", "text": "{tenant" })), "member[1].text"),
        (member(json!({ "name": "a", "text": "x".repeat(1025) })), "member[1].text"),
        (member(json!({ "name": "a", "path": "data" })), "member[1].path"),
        (member(json!({ "name": "a", "path": "/data/~2" })), "member[1].path"),
        (member(json!({ "name": "a", "path": "/data/a~" })), "member[1].path"),
        (member(json!({ "name": "a", "path": "/payload" })), "member[1].path"),
        (member(json!({ "name": "a", "path": "/key/deeper" })), "member[1].path"),
        (member(json!({ "name": "a", "path": "" })), "member[1].path"),
        (member(json!({ "name": "a", "only_text": true })), "member[1].only_text"),
        (member(json!({ "name": "a", "value": "x".repeat(20_000) })), "member[1].value"),
        (json!({ "member": ok, "header": [{ "name": "a b", "id": "event" }] }), "header[0].name"),
        (json!({ "member": ok, "header": [{ "name": "Host", "id": "event" }] }), "header[0].name"),
        (json!({ "member": ok, "header": [{ "name": "Webhook-Id", "id": "event" }] }), "header[0].name"),
        (json!({ "member": ok, "header": [{ "name": "Signature", "id": "event" }] }), "header[0].name"),
        (json!({ "member": ok, "header": [{ "name": "X-A" }, { "name": "x-a" }] }), "header[1].name"),
        (json!({ "member": ok, "content_type": "json" }), "content_type"),
        (json!({ "member": ok, "content_type": "a/b\r\nx: y" }), "content_type"),
        (json!({ "member": ok, "timeout_ms": 60_001 }), "timeout_ms"),
        (json!({ "member": ok, "max_active_webhooks": 0 }), "max_active_webhooks"),
        (json!({ "member": ok, "retry": { "jitter": 2.0 } }), "retry"),
        (
            json!({ "member": ok, "retry": { "schedule_ms": [1000, 4000], "max_age_ms": 5999 } }),
            "retry.max_age_ms",
        ),
        (scheme("body_hex", json!({})), "signature.header"),
        (scheme("body_hex", json!({ "header": "Content-Type" })), "signature.header"),
        (scheme("canonical", json!({ "header": "X-S" })), "signature.header"),
        (scheme("standard_webhooks", json!({ "key": "text" })), "signature.key"),
        (json!({ "member": ok, "signature": { "scheme": "http_message" } }), "secret.rotation"),
        (json!({ "member": ok, "other_version": [{ "name": "", "member": ok }] }), "other_version[0].name"),
        (
            json!({ "member": ok, "version": "1", "other_version": [{ "name": "1", "member": ok }] }),
            "other_version[0].name",
        ),
        (
            json!({ "member": ok, "other_version": [{ "name": "1", "member": [] }] }),
            "other_version[0].member",
        ),
        (
            json!({ "member": ok, "other_version": [{ "name": "1", "member": [{ "name": "a", "path": "x" }] }] }),
            "other_version[0].member[0].path",
        ),
    ] {
        let refused = parse(spec.clone()).err().unwrap_or_else(|| panic!("{spec} was taken"));
        assert_eq!(refused.member, member, "{spec}: {refused}");
    }
    assert!(parse(json!({ "member": ok, "signature": { "scheme": "none" } })).is_ok());
    assert!(parse(json!({ "member": ok, "header": [{ "name": "X-Type", "event_type": "name" }] })).is_ok());
}

#[test]
fn a_webhooks_own_retries_go_over_the_profiles() {
    let profile = parse(json!({
        "member": [{ "name": "a" }], "timeout_ms": 3000,
        "retry": { "schedule_ms": [2000, 4000], "jitter": 0.0 },
    }))
    .unwrap();
    let intervals = |own: RetryRecord| {
        let policy = profile.retry(&own);
        (1..policy.max_attempts()).map(|n| policy.interval_ms(n)).collect::<Vec<_>>()
    };
    assert_eq!(intervals(RetryRecord::default()), [2000, 4000]);
    assert_eq!(intervals(RetryRecord { max_attempts: Some(2), ..RetryRecord::default() }), [2000]);
    assert_eq!(intervals(RetryRecord { schedule_ms: Some(vec![9]), ..RetryRecord::default() }), [9]);
    let exponential = RetryRecord {
        initial_ms: Some(10),
        factor: Some(2.0),
        max_attempts: Some(4),
        ..RetryRecord::default()
    };
    assert_eq!(intervals(exponential), [10, 20, 40]);
    assert_eq!(intervals(RetryRecord { jitter: Some(7.0), ..RetryRecord::default() }), [2000, 4000]);
    assert_eq!([profile.timeout_ms(None), profile.timeout_ms(Some(500))], [3000, 500]);
}

proptest! {
    /// Whatever upstream wrote: a body is JSON, has nothing around it, and holds what is free-form byte for byte.
    #[test]
    fn bodies_are_json_and_hold_the_very_bytes(
        text in any::<String>(), number in any::<f64>(), spaces in "[ \t\r\n]{0,4}", name in "[^\u{0}-\u{1f}]{1,20}",
    ) {
        let written = serde_json::to_string(&json!({ "t": text, "n": number })).unwrap();
        let data = written.replace(':', &format!(":{spaces}"));
        prop_assume!(!text.contains(':'));
        let event = Event { data: raw(&format!("{spaces}{data}{spaces}")), ..event() };
        let profile = parse(json!({ "member": [{ "name": name, "path": "/data" }] })).unwrap();
        let body = body_of(&profile, None, &event, None);
        let parsed: serde_json::Value = serde_json::from_str(&body).unwrap();
        prop_assert_eq!(&parsed[&name], &serde_json::from_str::<serde_json::Value>(&data).unwrap());
        prop_assert!(body.ends_with(&format!(":{data}}}")), "{}", body);
        prop_assert_eq!(body_of(&Profile::built_in("cloudevents-binary").unwrap(), None, &event, None), data);
    }

    /// Percent-encoding can be undone, and leaves nothing that a header may not hold.
    #[test]
    fn headers_are_printable_and_can_be_read_back(key in any::<String>()) {
        let profile = parse(json!({ "member": [{ "name": "a" }], "header": [{ "name": "X-Key", "path": "/key" }] })).unwrap();
        let event = Event { key: Some(key.as_str().into()), ..event() };
        let headers = headers_of(&profile, &event);
        let value = &headers[0].1;
        prop_assert!(value.bytes().all(|b| b.is_ascii_graphic() && b != b'"'));
        let mut bytes = Vec::new();
        let mut rest = value.as_bytes();
        while let [first, after @ ..] = rest {
            if *first == b'%' {
                bytes.push(u8::from_str_radix(std::str::from_utf8(&after[..2]).unwrap(), 16).unwrap());
                rest = &after[2..];
            } else {
                bytes.push(*first);
                rest = after;
            }
        }
        prop_assert_eq!(String::from_utf8(bytes).unwrap(), key);
    }
}

#[test]
fn a_constant_is_not_so_deep_that_readers_of_the_configuration_refuse_it() {
    let nested = |depth: usize| {
        let value = (0..depth)
            .fold(json!(1), |inner, n| if n % 2 == 0 { json!([inner]) } else { json!({ "a": inner }) });
        parse(json!({ "member": [{ "name": "m", "value": value }], }))
    };
    assert!(nested(32).is_ok());
    let bad = nested(33).unwrap_err();
    assert_eq!(bad.member, "member[0].value");
    assert!(bad.problem.contains("32"), "{bad}");
}
