use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::catalogue::Catalogue;
use crate::event::{self, Action, Event};
use crate::intake::Report;
use crate::subscription::{By, Subscription};
use crate::time::Timestamp;
use crate::webhook::WebhookState;
use crate::wire::{SchemaMode, TenantSettings, UnknownTypes};
use crate::{EventId, wire};

fn epoch(name: &str) -> Epoch {
    Epoch::from_trusted(name)
}

fn webhook(ep: &str, revision: u64, id: &str, types: &[&str]) -> ConfigRecord {
    let body = WebhookRecord {
        all: types.is_empty(),
        event_types: types.iter().map(|t| EventType::parse(t).unwrap()).collect(),
        ..WebhookRecord::new(WebhookId::from_trusted(id), TenantId::default_tenant(), "https://example.com/")
    };
    ConfigRecord::of(&epoch(ep), revision, ConfigKind::Webhook, id, &body)
}

fn tenant(ep: &str, revision: u64) -> ConfigRecord {
    let body = TenantRecord { id: TenantId::default_tenant(), settings: TenantSettings::default() };
    ConfigRecord::of(&epoch(ep), revision, ConfigKind::Tenant, "default", &body)
}

fn mark(ep: &str, revision: u64, kind: ConfigKind) -> ConfigRecord {
    ConfigRecord::bare(&epoch(ep), revision, kind, "")
}

fn directory(records: &[ConfigRecord]) -> Directory {
    let mut directory = Directory::new();
    for record in records {
        assert!(!matches!(directory.apply(record), Applied::Unreadable(_)), "{record:?}");
    }
    directory
}

fn event(event_type: &str, data: Value) -> Event {
    Event {
        tenant: TenantId::default_tenant(),
        id: EventId::from_trusted("e"),
        event_type: EventType::parse(event_type).unwrap(),
        event_time: "2026-11-21T20:00:00Z".into(),
        current_context: event::null(),
        data: serde_json::value::to_raw_value(&data).unwrap().into(),
        key: None,
        correlation_id: None,
        traceparent: None,
        accepted_at: Timestamp::default(),
    }
}

fn own(event_type: &str) -> Event {
    Event { id: EventId::from_trusted("own_1"), ..event(event_type, Value::Null) }
}

fn action(name: &str, id: &str, data: Value) -> Action {
    let Event { tenant, event_time, current_context, data, accepted_at, .. } = event(name, data);
    let (id, name) = (EventId::from_trusted(id), EventType::parse(name).unwrap());
    Action {
        tenant,
        id,
        name,
        time: event_time,
        current_context,
        data,
        key: None,
        correlation_id: None,
        traceparent: None,
        accepted_at,
    }
}

fn takers(directory: &Directory, event: &Event) -> Vec<String> {
    let targets = directory.route(event).unwrap();
    let mut ids: Vec<String> = targets.into_iter().map(|target| target.webhook.to_string()).collect();
    ids.sort();
    ids
}

fn routed(directory: &Directory, event_type: &str) -> Vec<String> {
    takers(directory, &event(event_type, Value::Null))
}

/// A webhook whose record is changed before it is written.
fn changed(revision: u64, id: &str, change: impl FnOnce(&mut WebhookRecord)) -> ConfigRecord {
    let (id, tenant) = (WebhookId::from_trusted(id), TenantId::default_tenant());
    let mut body = WebhookRecord::new(id.clone(), tenant, "https://example.com/");
    change(&mut body);
    ConfigRecord::of(&epoch("a"), revision, ConfigKind::Webhook, id.as_str(), &body)
}

/// A catalogue of the default tenant with these types, as JSON.
fn catalogue(revision: u64, product: &str, types: Value, rest: Value) -> ConfigRecord {
    let mut text = json!({ "schema": 1, "product": { "id": product, "name": product }, "event_type": types });
    text.as_object_mut().unwrap().extend(rest.as_object().cloned().unwrap_or_default());
    let catalogue: Catalogue = serde_json::from_value(text).unwrap();
    let body = CatalogueRecord { tenant: TenantId::default_tenant(), catalogue };
    ConfigRecord::of(&epoch("a"), revision, ConfigKind::Catalogue, &format!("default/{product}"), &body)
}

fn entry(name: &str, aliases: &[&str], group: Option<&str>, category: &str) -> Value {
    json!({ "name": name, "label": name, "aliases": aliases, "group": group, "category": category })
}

/// A whole snapshot of the default tenant with these records.
fn whole(records: impl IntoIterator<Item = ConfigRecord>) -> Directory {
    let begin = [mark("a", 0, SnapshotBegin), tenant("a", 1)];
    let records: Vec<ConfigRecord> =
        begin.into_iter().chain(records).chain([mark("a", 0, SnapshotEnd)]).collect();
    directory(&records)
}

fn settings(revision: u64, settings: TenantSettings) -> ConfigRecord {
    let body = TenantRecord { id: TenantId::default_tenant(), settings };
    ConfigRecord::of(&epoch("a"), revision, ConfigKind::Tenant, "default", &body)
}

use ConfigKind::{SnapshotBegin, SnapshotEnd};

#[test]
fn types_are_matched_exactly_and_all_takes_all() {
    let directory = directory(&[
        mark("a", 0, SnapshotBegin),
        tenant("a", 1),
        webhook("a", 2, "w1", &["USER_LOGIN", "A b"]),
        webhook("a", 3, "w2", &[]),
        mark("a", 0, SnapshotEnd),
    ]);
    assert_eq!(routed(&directory, "USER_LOGIN"), ["w1", "w2"]);
    assert_eq!(routed(&directory, "user_login"), ["w2"]);
    assert_eq!(routed(&directory, "USER_LOGIN.x"), ["w2"]);
}

#[test]
fn nothing_is_complete_before_a_whole_snapshot() {
    let mut directory =
        directory(&[webhook("a", 5, "w0", &[]), mark("a", 3, SnapshotEnd), mark("a", 6, SnapshotBegin)]);
    assert!(!directory.is_complete());
    directory.apply(&tenant("a", 6));
    directory.apply(&mark("a", 6, SnapshotEnd));
    assert!(directory.is_complete());
    assert_eq!(directory.webhook_count(), 0, "a record before the first snapshot is a leftover");
}

#[test]
fn newer_wins_whatever_the_order() {
    let mut directory = directory(&[
        mark("a", 9, SnapshotBegin),
        tenant("a", 1),
        webhook("a", 9, "w1", &["NEW"]),
        webhook("a", 7, "w1", &["OLD"]),
        mark("a", 9, SnapshotEnd),
    ]);
    assert_eq!(routed(&directory, "NEW"), ["w1"]);
    assert!(routed(&directory, "OLD").is_empty());
    directory.apply(&ConfigRecord::bare(&epoch("a"), 10, ConfigKind::Webhook, "w1"));
    assert!(routed(&directory, "NEW").is_empty());
    assert!(matches!(directory.webhook(&WebhookId::from_trusted("w1")), Lookup::Deleted));
    assert_eq!(directory.apply(&webhook("a", 9, "w1", &["NEW"])), Applied::Unchanged);
    assert_eq!(directory.revision(), 10);
}

#[test]
fn the_end_of_a_snapshot_drops_what_is_absent_and_not_newer() {
    let mut directory = directory(&[
        mark("a", 1, SnapshotBegin),
        tenant("a", 1),
        webhook("a", 1, "gone", &["T"]),
        mark("a", 1, SnapshotEnd),
        webhook("a", 8, "newer", &["T"]),
    ]);
    for record in [mark("a", 5, SnapshotBegin), tenant("a", 1), mark("a", 5, SnapshotEnd)] {
        directory.apply(&record);
    }
    assert_eq!(routed(&directory, "T"), ["newer"]);
    assert!(matches!(directory.webhook(&WebhookId::from_trusted("gone")), Lookup::Unknown));
}

#[test]
fn another_epoch_replaces_everything() {
    let mut directory = directory(&[
        mark("a", 90, SnapshotBegin),
        tenant("a", 1),
        webhook("a", 90, "w1", &["T"]),
        mark("a", 90, SnapshotEnd),
    ]);
    for record in [mark("b", 2, SnapshotBegin), tenant("b", 1), webhook("b", 2, "w2", &["T"])] {
        directory.apply(&record);
    }
    assert_eq!(routed(&directory, "T"), ["w1"], "until the new snapshot ends");
    assert!(directory.is_complete() && directory.expects(&epoch("b")) && directory.expects(&epoch("a")));
    directory.apply(&mark("b", 2, SnapshotEnd));
    assert!(!directory.expects(&epoch("a")));
    directory.apply(&webhook("a", 91, "w1", &["T"]));
    assert_eq!(routed(&directory, "T"), ["w2"]);
    assert_eq!(directory.epoch(), Some(&epoch("b")));
}

#[test]
fn an_unreadable_record_leaves_what_was_known() {
    let mut directory = directory(&[
        mark("a", 1, SnapshotBegin),
        tenant("a", 1),
        webhook("a", 1, "w1", &["T"]),
        mark("a", 1, SnapshotEnd),
    ]);
    let mut record = webhook("a", 2, "w1", &["U"]);
    let text = record.body.take().unwrap().get().replace("\"active\"", "\"hologram\"");
    record.body = Some(serde_json::value::RawValue::from_string(text).unwrap());
    assert!(matches!(directory.apply(&record), Applied::Unreadable(_)));
    assert_eq!(routed(&directory, "T"), ["w1"]);
    assert!(directory.unreadable().is_some_and(|why| why.contains("hologram")));
    directory.apply(&webhook("a", 3, "w1", &["V"]));
    assert_eq!((directory.unreadable(), routed(&directory, "V")), (None, vec!["w1".to_owned()]));
    directory.note_unreadable("schema 2");
    for record in [mark("a", 4, SnapshotBegin), tenant("a", 1), mark("a", 4, SnapshotEnd)] {
        assert!(directory.unreadable().is_some());
        directory.apply(&record);
    }
    assert_eq!(directory.unreadable(), None, "a whole snapshot without it");
}

#[test]
fn what_cannot_be_read_of_another_epoch_is_not_forgotten_when_that_begins() {
    let mut directory = whole([webhook("a", 2, "w", &["T"])]);
    directory.apply(&mark("b", 1, SnapshotBegin));
    directory.apply(&tenant("b", 1));
    directory.note_unreadable("schema 2");
    directory.apply(&mark("b", 1, SnapshotEnd));
    assert_eq!((directory.epoch(), directory.unreadable()), (Some(&epoch("b")), Some("schema 2")));
    for record in [mark("b", 2, SnapshotBegin), tenant("b", 1), mark("b", 2, SnapshotEnd)] {
        directory.apply(&record);
    }
    assert_eq!(directory.unreadable(), None, "a whole snapshot without it");
}

#[test]
fn an_unknown_tenant_is_refused() {
    let directory = directory(&[mark("a", 0, SnapshotBegin), mark("a", 0, SnapshotEnd)]);
    let event: Event = serde_json::from_str::<wire::EventRecord>(
        r#"{"tenant":"nobody","id":"e","type":"T","time":"","context":null,"data":null,"accepted_at":0}"#,
    )
    .unwrap()
    .into();
    assert_eq!(directory.route(&event).unwrap_err().reason, RefusalReason::UnknownTenant);
}

#[test]
fn groups_and_categories_are_rules_that_new_types_fall_under() {
    let client = |types| {
        catalogue(
            if types == 1 { 5 } else { 6 },
            "upmind",
            {
                let all = [
                    entry("Client added", &["Client_added"], Some("changes"), "client"),
                    entry("Client removed", &[], Some("changes"), "client"),
                ];
                Value::from(all[..types].to_vec())
            },
            Value::Null,
        )
    };
    let mut directory = whole([
        changed(2, "of_group", |w| w.groups = ["changes".to_owned()].into()),
        changed(3, "of_category", |w| w.categories = ["client".to_owned()].into()),
        client(1),
        changed(4, "of_other", |w| w.groups = ["other".to_owned()].into()),
    ]);
    assert_eq!(routed(&directory, "Client added"), ["of_category", "of_group"]);
    assert!(routed(&directory, "Client removed").is_empty());
    directory.apply(&client(2));
    assert_eq!(routed(&directory, "Client removed"), ["of_category", "of_group"]);
    let taken = |subscription: &Subscription| -> Vec<String> {
        let taken = directory.types_taken(subscription, &TenantId::default_tenant());
        taken.iter().map(ToString::to_string).collect()
    };
    let of_group = Subscription { groups: ["changes".to_owned()].into(), ..Subscription::default() };
    assert_eq!(taken(&of_group), ["Client added", "Client removed"]);
    assert_eq!(taken(&Subscription::all()), ["Client added", "Client removed"], "not Postrider's own");
    let named = Subscription::of(["Client_added", "none"].map(|name| EventType::parse(name).unwrap()));
    assert_eq!(taken(&named), ["Client added", "none"]);
    directory.apply(&ConfigRecord::bare(&epoch("a"), 7, ConfigKind::Catalogue, "default/upmind"));
    assert!(routed(&directory, "Client added").is_empty(), "the catalogue is gone");
}

#[test]
fn catalogues_are_dropped_and_deleted_like_webhooks() {
    let types = |name: &str| json!([entry(name, &[], None, "c")]);
    let category = changed(2, "w", |w| w.categories = ["c".to_owned()].into());
    let mut directory = whole([
        category.clone(),
        catalogue(3, "absent", types("A"), Value::Null),
        catalogue(4, "kept", types("B"), Value::Null),
    ]);
    directory.apply(&catalogue(9, "newer", types("C"), Value::Null));
    let known = |directory: &Directory| ["A", "B", "C"].map(|name| !routed(directory, name).is_empty());
    assert_eq!(known(&directory), [true; 3]);
    let kept = catalogue(4, "kept", types("B"), Value::Null);
    for record in
        [mark("a", 5, SnapshotBegin), tenant("a", 1), kept.clone(), category, mark("a", 5, SnapshotEnd)]
    {
        directory.apply(&record);
    }
    assert_eq!(known(&directory), [false, true, true]);
    let deleted = |revision| ConfigRecord::bare(&epoch("a"), revision, ConfigKind::Catalogue, "default/kept");
    assert_eq!(directory.apply(&deleted(3)), Applied::Unchanged);
    assert_eq!(directory.apply(&deleted(10)), Applied::Changed);
    assert_eq!(directory.apply(&kept), Applied::Unchanged, "older than its deletion");
    assert_eq!(known(&directory), [false, false, true]);
}

#[test]
fn an_alias_is_the_type_for_upstream_and_for_subscriptions() {
    let types =
        json!([entry("Client added two factor auth", &["Client added two_factor auth"], None, "client")]);
    let directory = whole([
        changed(2, "by_alias", |w| {
            w.event_types = [EventType::parse("Client added two_factor auth").unwrap()].into()
        }),
        changed(3, "by_name", |w| {
            w.event_types = [EventType::parse("Client added two factor auth").unwrap()].into()
        }),
        changed(4, "by_all_ways", |w| {
            w.all = true;
            w.categories = ["client".to_owned()].into();
            w.event_types = ["Client added two_factor auth", "Client added two factor auth"]
                .map(|n| EventType::parse(n).unwrap())
                .into();
        }),
        catalogue(5, "upmind", types, Value::Null),
    ]);
    for name in ["Client added two factor auth", "Client added two_factor auth"] {
        assert_eq!(
            routed(&directory, name),
            ["by_alias", "by_all_ways", "by_name"],
            "{name}: one delivery each"
        );
        let report = Report::Event(event(name, Value::Null));
        let [routed] = &directory.resolve(report, None).unwrap()[..] else { panic!() };
        assert_eq!(routed.event.event_type.as_str(), "Client added two factor auth", "what receivers see");
        assert_eq!((routed.targets.len(), routed.marks.len()), (3, 0));
        let entry = directory.type_entry(&routed.event.tenant, &EventType::parse(name).unwrap()).unwrap();
        assert_eq!(entry.name, routed.event.event_type);
    }
}

#[test]
fn unknown_types_are_marked_or_refused_where_there_is_a_catalogue() {
    let resolve = |directory: &Directory| directory.resolve(Report::Event(event("X", Value::Null)), None);
    let mut directory = whole([webhook("a", 2, "w", &["X"])]);
    assert_eq!(resolve(&directory).unwrap()[0].marks, [], "without a catalogue all types are known");
    directory.apply(&catalogue(3, "p", json!([entry("A", &[], None, "c")]), Value::Null));
    let routed = resolve(&directory).unwrap();
    assert_eq!((&routed[0].marks[..], routed[0].targets.len()), (&[Mark::UnknownType][..], 1));
    let refuse = TenantSettings { unknown_types: UnknownTypes::Refuse, ..TenantSettings::default() };
    directory.apply(&settings(4, refuse));
    let refusal = resolve(&directory).unwrap_err();
    assert_eq!(refusal.reason, RefusalReason::UnknownEventType);
    assert!(refusal.detail.contains("\"X\""), "{refusal}");
    let explanation = directory.explain(&WebhookId::from_trusted("w"), &event("X", Value::Null));
    assert!(!explanation.matches && explanation.because.contains("unknown_event_type"), "{explanation:?}");
    let own = directory.resolve(Report::Event(Event { id: own("X").id, ..event("X", Value::Null) }), None);
    assert_eq!(own.unwrap()[0].targets.len(), 1, "Postrider's own events are not asked");
}

#[test]
fn data_that_does_not_fit_is_passed_marked_or_refused() {
    let mut of_type = entry("A", &[], None, "c");
    of_type["data_schema"] = json!({ "type": "object", "required": ["n"] });
    let mut directory = whole([webhook("a", 2, "w", &[]), catalogue(3, "p", json!([of_type]), Value::Null)]);
    let resolve = |directory: &Directory, data| directory.resolve(Report::Event(event("A", data)), None);
    assert_eq!(resolve(&directory, json!({})).unwrap()[0].marks, []);
    let set = |schemas| TenantSettings { schemas, ..TenantSettings::default() };
    directory.apply(&settings(4, set(SchemaMode::Warn)));
    assert_eq!(resolve(&directory, json!({})).unwrap()[0].marks, [Mark::Schema]);
    assert_eq!(resolve(&directory, json!({ "n": 1 })).unwrap()[0].marks, []);
    directory.apply(&settings(5, set(SchemaMode::Refuse)));
    assert_eq!(resolve(&directory, json!({})).unwrap_err().reason, RefusalReason::SchemaViolation);
    assert_eq!(resolve(&directory, json!({ "n": 1 })).unwrap()[0].targets.len(), 1);
    let only = WebhookId::from_trusted("w");
    let tried = directory.resolve(Report::Event(own("A")), Some(&only)).unwrap();
    assert_eq!(tried[0].targets.len(), 1, "whoever tries a webhook is not asked");
}

#[test]
fn filters_decide_and_one_that_cannot_be_judged_takes_nothing() {
    let filtered = |revision, id: &str, filter: &str| {
        changed(revision, id, |w| (w.all, w.filter) = (true, Some(filter.to_owned())))
    };
    let directory = whole([
        filtered(2, "large", "data.amount > 100"),
        filtered(3, "large_too", "data.amount > 100"),
        filtered(4, "small", "data.amount <= 100"),
        filtered(5, "absent", "data.nothing == 1"),
    ]);
    let large = event("A", json!({ "amount": 500 }));
    assert_eq!(takers(&directory, &large), ["large", "large_too"]);
    let routed = directory.resolve(Report::Event(large.clone()), None).unwrap();
    assert_eq!(routed[0].filter_errors, 1);
    let explain = |id: &str| directory.explain(&WebhookId::from_trusted(id), &large);
    assert_eq!(explain("small").filter.unwrap().holds, Some(false));
    let absent = explain("absent");
    let filter = absent.filter.as_ref().unwrap();
    assert!(!absent.matches && filter.holds.is_none() && filter.error.is_some(), "{absent:?}");
    assert_eq!(directory.filters.len(), 3, "equal filters are one");
}

#[test]
fn filters_together_take_bounded_work() {
    let dear = |n: usize| format!("data.all(a, data.all(b, b >= a || b < a)) && {n} == {n}");
    let filtered = |n: usize, filter: String| {
        changed(2 + n as u64, &format!("w{n}"), |w| (w.all, w.filter) = (true, Some(filter)))
    };
    let numbers = event("A", json!((0..88).collect::<Vec<_>>()));
    let equal = whole((0..300).map(|n| filtered(n, dear(0))));
    assert_eq!(equal.route(&numbers).unwrap().len(), 300, "equal filters are judged once");
    let different = whole((0..300).map(|n| filtered(n, dear(n))));
    let refusal = different.route(&numbers).unwrap_err();
    assert_eq!(refusal.reason, RefusalReason::FanOutTooLarge);
    assert!(refusal.detail.contains("filters"), "{refusal}");
    assert_eq!(different.route(&event("A", json!([1, 2]))).unwrap().len(), 300);
}

#[test]
fn a_filter_or_catalogue_that_this_release_cannot_compile_is_unreadable() {
    let mut directory = whole([webhook("a", 2, "w", &["A"])]);
    let bad = changed(3, "w", |w| (w.all, w.filter) = (true, Some("data. >".to_owned())));
    assert!(matches!(directory.apply(&bad), Applied::Unreadable(why) if why.contains("filter")));
    assert!(directory.unreadable().is_some());
    assert_eq!((routed(&directory, "A"), routed(&directory, "B")), (vec!["w".to_owned()], vec![]));
    directory.apply(&webhook("a", 4, "w", &["B"]));
    assert_eq!(directory.unreadable(), None);

    directory.apply(&catalogue(5, "p", json!([entry("A", &["B"], None, "c")]), Value::Null));
    for (revision, types, rest) in [
        (6, json!([]), json!({ "schema": 2 })),
        (7, json!([{ "name": "A", "label": "A", "category": "c", "data_schema": 7 }]), Value::Null),
        (
            8,
            json!([]),
            json!({ "trigger": [{ "action": "a", "when": "data. >", "emit": [{ "event_type": "A" }] }] }),
        ),
    ] {
        let applied = directory.apply(&catalogue(revision, "p", types, rest));
        assert!(matches!(&applied, Applied::Unreadable(why) if why.contains("default/p")), "{applied:?}");
        assert_eq!(routed(&directory, "A"), ["w"], "what was known stays");
    }
    directory.apply(&catalogue(9, "p", json!([]), Value::Null));
    assert_eq!(directory.unreadable(), None);
}

#[test]
fn own_events_are_taken_only_by_those_that_name_them() {
    let directory = whole([
        changed(2, "all", |w| w.all = true),
        changed(3, "named", |w| {
            w.event_types = [EventType::parse("postrider.delivery.dead").unwrap()].into()
        }),
        changed(4, "category", |w| (w.all, w.categories) = (true, ["postrider".to_owned()].into())),
        changed(5, "other", |w| w.event_types = [EventType::parse("A").unwrap()].into()),
    ]);
    assert_eq!(takers(&directory, &own("postrider.delivery.dead")), ["category", "named"]);
    assert_eq!(takers(&directory, &own("WEBHOOK_CREATED")), Vec::<String>::new());
    assert_eq!(routed(&directory, "WEBHOOK_CREATED"), ["all", "category"], "upstream's own of that name");
    let explanation = directory.explain(&WebhookId::from_trusted("all"), &own("postrider.delivery.dead"));
    assert!(!explanation.matches && explanation.because.contains("own events"), "{explanation:?}");
}

#[test]
fn a_webhook_can_be_tried_whatever_it_subscribes_to_but_only_by_its_tenant() {
    let mut other = changed(3, "theirs", |w| w.tenant = TenantId::from_trusted("other"));
    other.kind = ConfigKind::Webhook;
    let directory = whole([changed(2, "w", |_| ()), changed(4, "all", |w| w.all = true), other]);
    let tried = |id: &str| {
        let only = WebhookId::from_trusted(id);
        let routed = directory.resolve(Report::Event(own("X")), Some(&only)).unwrap();
        routed[0].targets.iter().map(|target| target.webhook.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(tried("w"), ["w"]);
    assert!(tried("theirs").is_empty() && tried("none").is_empty());
}

fn triggered() -> Directory {
    let emit = |event_type: &str| json!({ "event_type": event_type });
    let triggers = json!([
        { "action": "member.created", "emit": [emit("CustomerRegistered"), emit("CustomerLevelChanged")] },
        { "action": "password.reset", "when": "data.by == 'member'", "emit": [emit("CustomerRegistered")] },
    ]);
    let mut strict = entry("CustomerLevelChanged", &[], None, "member");
    strict["data_schema"] = json!({ "type": "object", "required": ["level"] });
    let types = json!([entry("CustomerRegistered", &[], None, "member"), strict]);
    whole([
        webhook("a", 2, "all", &[]),
        webhook("a", 3, "level", &["CustomerLevelChanged"]),
        catalogue(4, "ol", types, json!({ "trigger": triggers })),
    ])
}

#[test]
fn an_action_becomes_all_of_its_events_or_none() {
    let mut directory = triggered();
    let created = |data| Report::Action(action("member.created", "a1", data));
    let routed = directory.resolve(created(json!({})), None).unwrap();
    let names: Vec<&str> = routed.iter().map(|routed| routed.event.event_type.as_str()).collect();
    assert_eq!(names, ["CustomerRegistered", "CustomerLevelChanged"]);
    assert_eq!(routed.iter().map(|routed| routed.targets.len()).collect::<Vec<_>>(), [1, 2]);
    assert!(routed.iter().all(|routed| routed.event.id.as_str().starts_with("act_")));
    assert!(routed.iter().all(|routed| routed.event.correlation_id.as_deref() == Some("a1")));
    let again = directory.resolve(created(json!({})), None).unwrap();
    assert!(routed.iter().zip(&again).all(|(a, b)| a.event.id == b.event.id));

    directory
        .apply(&settings(5, TenantSettings { schemas: SchemaMode::Refuse, ..TenantSettings::default() }));
    assert_eq!(
        directory.resolve(created(json!({})), None).unwrap_err().reason,
        RefusalReason::SchemaViolation
    );
    assert_eq!(directory.resolve(created(json!({ "level": 1 })), None).unwrap().len(), 2);
}

#[test]
fn an_action_of_which_nothing_comes_is_one_event_that_nobody_takes() {
    let directory = triggered();
    let reset = |by: &str| Report::Action(action("password.reset", "a2", json!({ "by": by })));
    assert_eq!(directory.resolve(reset("member"), None).unwrap()[0].targets.len(), 1);
    let [nothing] = &directory.resolve(reset("staff"), None).unwrap()[..] else { panic!() };
    assert_eq!((nothing.event.id.as_str(), nothing.event.event_type.as_str()), ("a2", "password.reset"));
    assert!(nothing.targets.is_empty() && nothing.marks.is_empty());
    let refusal = |name: &str, data| {
        directory.resolve(Report::Action(action(name, "a", data)), None).unwrap_err().reason
    };
    assert_eq!(refusal("member.removed", json!({})), RefusalReason::UnknownAction);
    assert_eq!(refusal("password.reset", json!({})), RefusalReason::TriggerFailed);
    let elsewhere =
        Action { tenant: TenantId::from_trusted("other"), ..action("member.created", "a", json!({})) };
    assert_eq!(
        directory.resolve(Report::Action(elsewhere), None).unwrap_err().reason,
        RefusalReason::UnknownTenant
    );
}

#[test]
fn the_events_of_an_action_share_the_room_that_one_event_has() {
    let emit = vec![json!({ "event_type": "A" }); 50];
    let mut records: Vec<ConfigRecord> =
        (0..30).map(|n| webhook("a", 2 + n, &format!("w{n}"), &["A"])).collect();
    let triggers = json!({ "trigger": [{ "action": "a", "emit": emit }] });
    records.push(catalogue(90, "p", json!([entry("A", &[], None, "c")]), triggers));
    let directory = whole(records);
    let data = |bytes| json!("x".repeat(bytes));
    let large = |bytes| directory.resolve(Report::Action(action("a", "a1", data(bytes))), None);
    assert_eq!(large(1_000).unwrap().len(), 50);
    assert_eq!(large(200_000).unwrap_err().reason, RefusalReason::FanOutTooLarge);
    assert!(directory.route(&event("A", data(200_000))).is_ok(), "one of them alone is not too large");
}

#[test]
fn profiles_come_with_the_program_or_with_a_catalogue() {
    let speaks = |revision, profile: &str| changed(revision, "w", |w| w.profile = profile.to_owned());
    let mut directory = whole([speaks(2, "entrust")]);
    let of = |directory: &Directory| match directory.webhook(&WebhookId::from_trusted("w")) {
        Lookup::Known(webhook) => directory.profile_of(&webhook),
        _ => None,
    };
    assert!(of(&directory).is_none());
    assert_eq!(directory.longest_timeout_ms(), DEFAULT_TIMEOUT_MS);
    let profile = json!({ "profile": { "name": "entrust", "timeout_ms": 30_000, "member": [{ "name": "id", "id": "delivery" }] } });
    directory.apply(&catalogue(3, "entrust-idaas", json!([]), profile));
    assert_eq!(of(&directory).unwrap().spec().name, "entrust");
    assert_eq!(directory.longest_timeout_ms(), 30_000);
    directory.apply(&changed(4, "w", |w| (w.profile, w.timeout_ms) = ("entrust".to_owned(), Some(3_000))));
    assert_eq!(directory.longest_timeout_ms(), 3_000);
    directory.apply(&speaks(5, "standard"));
    assert_eq!(of(&directory).unwrap().spec().name, "standard");
}

#[test]
fn an_explanation_says_what_takes_the_type_and_what_becomes_of_the_delivery() {
    let types = json!([entry("A", &["a"], Some("g"), "c")]);
    let at = |rfc3339: &str| Timestamp::parse_rfc3339(rfc3339).unwrap();
    let directory = whole([
        catalogue(2, "p", types, Value::Null),
        changed(3, "w", |w| {
            (w.all, w.groups, w.categories) = (true, ["g".to_owned()].into(), ["c".to_owned()].into());
            w.event_types = ["A", "a"].map(|name| EventType::parse(name).unwrap()).into();
            w.filter = Some("data.n == 1".to_owned());
            w.expires_at = Some(at("2026-01-01T00:00:00Z"));
            w.state = WebhookState::Paused.as_str().to_owned();
        }),
    ]);
    let event = Event { accepted_at: at("2025-01-01T00:00:00Z"), ..event("a", json!({ "n": 1 })) };
    let explanation = directory.explain(&WebhookId::from_trusted("w"), &event);
    let ways: Vec<(By, &str)> = explanation.taken_by.iter().map(|way| (way.by, way.name.as_str())).collect();
    let all = [(By::Type, "A"), (By::Alias, "a"), (By::Group, "g"), (By::Category, "c"), (By::All, "all")];
    assert_eq!(ways, all);
    assert!(explanation.remark.as_ref().unwrap().contains("paused"));
    let json = serde_json::to_value(&explanation).unwrap();
    assert_eq!(json["match"], true);
    assert_eq!(json["because"], "the subscription names the type \"A\", and the filter holds");
    assert_eq!(
        json["event_type"],
        json!({ "given": "a", "name": "A", "known": true, "product": "p", "group": "g", "category": "c" })
    );
    assert_eq!(json["filter"], json!({ "source": "data.n == 1", "holds": true, "error": null }));
    let late = Event { accepted_at: at("2026-01-01T00:00:00Z"), ..event };
    let remark = directory.explain(&WebhookId::from_trusted("w"), &late).remark.unwrap();
    assert!(remark.contains("expired at 2026-01-01"), "{remark}");
}

/// Objects of a small world, so that they meet.
mod world {
    use super::*;

    const NAMES: [&str; 5] = ["A", "B", "C", "D", "postrider.delivery.dead"];
    const ALIASES: [&str; 4] = ["a", "b", "c", "d"];
    const GROUPS: [&str; 3] = ["g0", "g1", "g2"];
    const CATEGORIES: [&str; 3] = ["c0", "c1", "postrider"];
    const FILTERS: [&str; 4] =
        ["data.n > 1", "event_type == 'A'", "data.nothing == 1", "tenant == 'default'"];

    #[derive(Clone, Debug)]
    pub(super) struct Type {
        pub(super) name: usize,
        pub(super) alias: bool,
        pub(super) group: Option<&'static str>,
        pub(super) category: &'static str,
    }

    #[derive(Clone, Debug)]
    pub(super) enum Object {
        Catalogue { product: usize, types: Vec<Type> },
        Webhook { id: usize, webhook: Option<Wants> },
    }

    #[derive(Clone, Debug)]
    pub(super) struct Wants {
        pub(super) all: bool,
        pub(super) types: BTreeSet<&'static str>,
        pub(super) groups: BTreeSet<&'static str>,
        pub(super) categories: BTreeSet<&'static str>,
        pub(super) filter: Option<&'static str>,
    }

    #[derive(Clone, Debug)]
    pub(super) struct Happens {
        pub(super) name: &'static str,
        pub(super) own: bool,
        pub(super) n: u8,
    }

    use std::collections::BTreeSet;

    fn some(of: &'static [&'static str], most: usize) -> impl Strategy<Value = BTreeSet<&'static str>> {
        proptest::collection::btree_set(proptest::sample::select(of), 0..=most)
    }

    fn every_name() -> Vec<&'static str> {
        NAMES.into_iter().chain(ALIASES).chain(["X"]).collect()
    }

    fn wants() -> impl Strategy<Value = Wants> {
        let types = proptest::collection::btree_set(proptest::sample::select(every_name()), 0..=2);
        let filter = proptest::option::of(proptest::sample::select(&FILTERS[..]));
        (proptest::bool::weighted(0.2), types, some(&GROUPS, 1), some(&CATEGORIES, 1), filter).prop_map(
            |(all, types, groups, categories, filter)| Wants { all, types, groups, categories, filter },
        )
    }

    /// Product 0 has the types A and B, product 1 C and D, so that no name is in both.
    fn object() -> impl Strategy<Value = Object> {
        let of_type = (any::<bool>(), proptest::option::of(proptest::sample::select(&GROUPS[..])), 0..2usize);
        let of_type = move |name| {
            of_type.clone().prop_map(move |(alias, group, category)| Type {
                name,
                alias,
                group,
                category: CATEGORIES[category],
            })
        };
        let catalogue = (0..2usize).prop_flat_map(move |product| {
            let types = (0..2).map(|n| proptest::option::of(of_type(2 * product + n))).collect::<Vec<_>>();
            types.prop_map(move |types| Object::Catalogue {
                product,
                types: types.into_iter().flatten().collect(),
            })
        });
        let webhook = (0..4usize, proptest::option::weighted(0.9, wants()))
            .prop_map(|(id, webhook)| Object::Webhook { id, webhook });
        prop_oneof![1 => catalogue, 3 => webhook]
    }

    /// Changes in the order of their revisions, and the same in the order in which they arrive.
    pub(super) fn changes() -> impl Strategy<Value = (Vec<Object>, Vec<usize>)> {
        proptest::collection::vec(object(), 0..14).prop_flat_map(|objects| {
            let order: Vec<usize> = (0..objects.len()).collect();
            (Just(objects), Just(order).prop_shuffle())
        })
    }

    pub(super) fn happens() -> impl Strategy<Value = Happens> {
        (proptest::sample::select(every_name()), proptest::bool::weighted(0.3), 0..4u8)
            .prop_map(|(name, own, n)| Happens { name, own, n })
    }

    impl Object {
        pub(super) fn record(&self, revision: u64) -> ConfigRecord {
            match self {
                Self::Catalogue { product, types } => {
                    let of_type = |t: &Type| {
                        let alias = if t.alias { &ALIASES[t.name..=t.name] } else { &[] };
                        entry(NAMES[t.name], alias, t.group, t.category)
                    };
                    let types = types.iter().map(of_type).collect();
                    catalogue(revision, &format!("p{product}"), types, Value::Null)
                }
                Self::Webhook { id, webhook: Some(wants) } => changed(revision, &format!("w{id}"), |w| {
                    let texts = |names: &BTreeSet<&str>| names.iter().map(|&name| name.to_owned()).collect();
                    w.all = wants.all;
                    w.event_types = wants.types.iter().map(|name| EventType::parse(name).unwrap()).collect();
                    (w.groups, w.categories) = (texts(&wants.groups), texts(&wants.categories));
                    w.filter = wants.filter.map(str::to_owned);
                }),
                Self::Webhook { id, webhook: None } => {
                    ConfigRecord::bare(&epoch("a"), revision, ConfigKind::Webhook, &format!("w{id}"))
                }
            }
        }
    }

    /// Who takes an event, found by looking at every webhook.
    pub(super) fn naive(objects: &[Object], happens: &Happens) -> Vec<String> {
        let mut products: [&[Type]; 2] = [&[], &[]];
        let mut webhooks: [Option<&Wants>; 4] = [None; 4];
        for object in objects {
            match object {
                Object::Catalogue { product, types } => products[*product] = types,
                Object::Webhook { id, webhook } => webhooks[*id] = webhook.as_ref(),
            }
        }
        let found = products
            .iter()
            .copied()
            .flatten()
            .find(|t| happens.name == NAMES[t.name] || t.alias && happens.name == ALIASES[t.name]);
        let mut names = vec![happens.name];
        let (mut group, mut category, mut name) = (None, None, happens.name);
        if let Some(t) = found {
            name = NAMES[t.name];
            names = vec![name];
            names.extend(t.alias.then_some(ALIASES[t.name]));
            (group, category) = (t.group, Some(t.category));
        } else if name == "postrider.delivery.dead" {
            category = Some("postrider");
        }
        let takes = |wants: &Wants| {
            let named = wants.types.iter().any(|name| names.contains(name))
                || group.is_some_and(|group| wants.groups.contains(group))
                || category.is_some_and(|category| wants.categories.contains(category))
                || wants.all && !happens.own;
            let holds = match wants.filter {
                None | Some("tenant == 'default'") => true,
                Some("data.n > 1") => happens.n > 1,
                Some("event_type == 'A'") => name == "A",
                Some("data.nothing == 1") => false,
                Some(other) => panic!("{other}"),
            };
            named && holds
        };
        let takers = webhooks.iter().enumerate().filter(|(_, wants)| wants.is_some_and(takes));
        takers.map(|(id, _)| format!("w{id}")).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn routing_agrees_with_a_look_at_every_webhook(
        (objects, order) in world::changes(),
        happened in proptest::collection::vec(world::happens(), 1..6),
    ) {
        let arrive = order.iter().map(|&at| objects[at].record(2 + at as u64));
        let in_any_order = whole(arrive);
        prop_assert_eq!(in_any_order.unreadable(), None);
        for happens in happened {
            let data = json!({ "n": happens.n });
            let event = if happens.own {
                Event { id: own("X").id, ..event(happens.name, data) }
            } else {
                event(happens.name, data)
            };
            let found = takers(&in_any_order, &event);
            prop_assert_eq!(&found, &world::naive(&objects, &happens), "{:?}", happens);
            let resolved = in_any_order.resolve(Report::Event(event.clone()), None).unwrap();
            let targets = resolved[0].targets.iter().map(|target| target.webhook.to_string());
            prop_assert_eq!(targets.collect::<Vec<_>>(), found.clone());
            for id in (0..4).map(|id| format!("w{id}")) {
                let explanation = in_any_order.explain(&WebhookId::from_trusted(id.as_str()), &event);
                prop_assert_eq!(explanation.matches, found.contains(&id), "{:?}", explanation);
            }
        }
    }
}

mod cancellations {
    use super::*;
    use crate::wire::{CancellationRecord, Cancelled, DeliveryRecord};

    fn called_off(revision: u64, id: &str, at: i64, what: Cancelled) -> ConfigRecord {
        let body =
            CancellationRecord { tenant: TenantId::default_tenant(), at: Timestamp::from_millis(at), what };
        ConfigRecord::of(&epoch("a"), revision, ConfigKind::Cancellation, id, &body)
    }

    fn series(delivery: &str, series: u32) -> Cancelled {
        Cancelled::Series { delivery: DeliveryId::from_trusted(delivery), series }
    }

    fn matching(
        webhook: Option<&str>,
        event_type: Option<&str>,
        since: Option<i64>,
        before: i64,
    ) -> Cancelled {
        Cancelled::Matching {
            webhook: webhook.map(WebhookId::from_trusted),
            event_type: event_type.map(|name| EventType::parse(name).unwrap()),
            born_since: since.map(Timestamp::from_millis),
            born_before: Timestamp::from_millis(before),
        }
    }

    fn delivery(id: &str, webhook: &str, series: u32, born: i64) -> DeliveryRecord {
        let text = json!({ "id": id, "webhook": webhook, "revision": 1, "epoch": "a", "series": series, "attempt": 1, "born": born });
        serde_json::from_value(text).unwrap()
    }

    fn is_cancelled(directory: &Directory, event_type: &str, delivery: &DeliveryRecord) -> bool {
        directory.is_cancelled(&TenantId::default_tenant(), &EventType::parse(event_type).unwrap(), delivery)
    }

    #[test]
    fn one_series_is_called_off_and_no_other() {
        let mut directory = whole([called_off(5, "cnl_1", 10, series("d", 2))]);
        let is = |directory: &Directory, series| is_cancelled(directory, "T", &delivery("d", "w", series, 0));
        assert!(is(&directory, 2) && !is(&directory, 1) && !is(&directory, 3));
        assert!(!is_cancelled(&directory, "T", &delivery("other", "w", 2, 0)));
        let elsewhere = TenantId::from_trusted("elsewhere");
        let t = EventType::parse("T").unwrap();
        assert!(!directory.is_cancelled(&elsewhere, &t, &delivery("d", "w", 2, 0)));
        directory.apply(&called_off(6, "cnl_2", 11, series("d", 2)));
        directory.apply(&ConfigRecord::bare(&epoch("a"), 7, ConfigKind::Cancellation, "cnl_1"));
        assert!(is(&directory, 2), "another says the same");
        directory.apply(&ConfigRecord::bare(&epoch("a"), 8, ConfigKind::Cancellation, "cnl_2"));
        assert!(!is(&directory, 2));
        assert_eq!(directory.apply(&called_off(6, "cnl_2", 11, series("d", 2))), Applied::Unchanged);
    }

    #[test]
    fn a_snapshot_replaces_what_was_called_off() {
        let mut directory =
            whole([called_off(5, "old", 10, series("d", 1)), called_off(6, "kept", 10, series("d", 2))]);
        directory.apply(&called_off(12, "newer", 10, series("d", 3)));
        let records = [
            mark("a", 9, SnapshotBegin),
            tenant("a", 1),
            called_off(6, "kept", 10, series("d", 2)),
            mark("a", 9, SnapshotEnd),
        ];
        records.iter().for_each(|record| drop(directory.apply(record)));
        let called_off: Vec<u32> =
            (1..5).filter(|n| is_cancelled(&directory, "T", &delivery("d", "w", *n, 0))).collect();
        assert_eq!(called_off, [2, 3]);
        for record in [mark("b", 1, SnapshotBegin), tenant("b", 1), mark("b", 1, SnapshotEnd)] {
            directory.apply(&record);
        }
        assert!(!is_cancelled(&directory, "T", &delivery("d", "w", 2, 0)), "another epoch");
    }

    #[test]
    fn what_cannot_be_read_of_a_cancellation_holds_up_nothing() {
        let mut directory = whole([]);
        let mut record = called_off(5, "cnl", 10, series("d", 1));
        record.body = Some(serde_json::value::RawValue::from_string(r#"{"what":"moon"}"#.into()).unwrap());
        assert!(matches!(directory.apply(&record), Applied::Unreadable(_)));
        assert_eq!(directory.unreadable(), None);
    }

    #[test]
    fn they_are_bounded_and_the_oldest_go_first() {
        let most = i64::try_from(MAX_CANCELLATIONS).unwrap();
        let mut directory = whole([]);
        for n in 0..most + 5 {
            let revision = u64::try_from(n).unwrap() + 2;
            directory.apply(&called_off(revision, &format!("cnl_{n}"), n, series(&format!("d{n}"), 1)));
        }
        let is = |n: i64| is_cancelled(&directory, "T", &delivery(&format!("d{n}"), "w", 1, 0));
        assert!(!is(0) && !is(4) && is(5) && is(most + 4));
        // As many in bulk as may be, over each other, are asked as quickly.
        for n in 0..most {
            let revision = u64::try_from(most + n).unwrap() + 10;
            directory.apply(&called_off(
                revision,
                &format!("bulk_{n}"),
                most * 2 + n,
                matching(None, None, Some(n * 10), n * 10 + 15),
            ));
        }
        assert!(is_cancelled(&directory, "T", &delivery("d", "w", 1, 5_000)));
        assert!(!is_cancelled(&directory, "T", &delivery("d", "w", 1, most * 10 + 5)));
        assert!(!is_cancelled(&directory, "T", &delivery("d", "w", 1, -1)));
    }

    proptest! {
        /// Whatever comes and goes: a delivery is called off exactly if one of the cancellations that are left is about it.
        #[test]
        fn a_delivery_is_called_off_exactly_if_something_says_so(
            steps in prop::collection::vec(
                (0u8..6, prop::option::of(0u8..2), prop::option::of(0u8..2), prop::option::of(0i64..20), 0i64..20, prop::bool::weighted(0.3)),
                1..40,
            ),
        ) {
            let mut directory = whole([]);
            let mut left = BTreeMap::new();
            for (revision, (id, webhook, event_type, since, before, gone)) in (2u64..).zip(steps) {
                let id_text = format!("cnl_{id}");
                if gone {
                    left.remove(&id);
                    directory.apply(&ConfigRecord::bare(&epoch("a"), revision, ConfigKind::Cancellation, &id_text));
                } else {
                    left.insert(id, (webhook, event_type, since, before));
                    let (w, t) = (webhook.map(|n| format!("w{n}")), event_type.map(|n| format!("T{n}")));
                    directory.apply(&called_off(revision, &id_text, 1, matching(w.as_deref(), t.as_deref(), since, before)));
                }
            }
            for (webhook, event_type, born) in (0..2u8).flat_map(|w| (0..2u8).flat_map(move |t| (-1..21).map(move |b| (w, t, b)))) {
                let expected = left.values().any(|(w, t, since, before)| {
                    w.is_none_or(|w| w == webhook) && t.is_none_or(|t| t == event_type)
                        && since.is_none_or(|since| born >= since) && born < *before
                });
                let found = is_cancelled(&directory, &format!("T{event_type}"), &delivery("d", &format!("w{webhook}"), 1, born));
                prop_assert_eq!(found, expected, "w{} T{} at {}: {:?}", webhook, event_type, born, left);
            }
        }
    }
}
