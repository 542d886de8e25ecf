use serde_json::{Value, json};

use super::*;

/// A catalogue of two types that nothing is wrong with, with these members changed.
fn catalogue(changes: Value) -> Catalogue {
    let mut catalogue = json!({
        "schema": 1,
        "product": {"id": "shop", "name": "Shop"},
        "category": [{"id": "orders", "label": "Orders"}, {"id": "people", "label": "People"}],
        "group": [{"id": "new_orders", "category": "orders", "label": "New orders"}],
        "event_type": [
            {"name": "ORDER_PLACED", "label": "Order placed", "category": "orders", "group": "new_orders",
             "description": "Somebody ordered.",
             "example": "{\"event_type\":\"ORDER_PLACED\",\"event_time\":\"2026-11-21T20:00:00Z\",\"data\":{}}"},
            {"name": "USER_SEEN", "label": "User seen", "category": "people", "description": "Somebody came by."},
        ],
        "trigger": [{"action": "checkout", "emit": [{"event_type": "ORDER_PLACED"}]}],
    });
    for (path, value) in changes.as_object().unwrap() {
        let (parent, name) = path.rsplit_once('/').unwrap();
        match catalogue.pointer_mut(parent).unwrap() {
            Value::Array(items) if name == "-" => items.push(value.clone()),
            parent => parent[name] = value.clone(),
        }
    }
    serde_json::from_value(catalogue).unwrap()
}

fn lines(changes: Value) -> Vec<String> {
    check(&catalogue(changes))
        .into_iter()
        .map(|finding| {
            assert!(!finding.hint.is_empty(), "{finding:?} does not say what to do");
            let severity = if finding.severity == Severity::Error { "error" } else { "suspect" };
            format!("{severity}: {}: {}", finding.at, finding.problem)
        })
        .collect()
}

/// The one finding that these changes lead to.
#[track_caller]
fn line(changes: Value) -> String {
    let mut lines = lines(changes);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    lines.remove(0)
}

fn named(name: &str) -> Value {
    json!({"name": name, "label": format!("{name} as people say"), "category": "people", "description": name})
}

#[test]
fn nothing_is_wrong_with_a_good_one_or_our_own() {
    assert_eq!(lines(json!({})), [""; 0]);
    // Our own ids are refused in others' catalogues, and nothing else.
    let own = check(&own());
    assert!(own.iter().all(|finding| finding.problem.contains("own event")), "{own:#?}");
}

#[test]
fn names_are_there_once() {
    assert_eq!(
        lines(json!({"/event_type/-": {"name": "USER_SEEN", "label": "x", "category": "people"}})),
        [r#"error: event_type "USER_SEEN": there are two event types of this name"#]
    );
    assert_eq!(
        line(json!({"/event_type/1/aliases": ["ORDER_PLACED"]})),
        r#"error: event_type "USER_SEEN": its alias "ORDER_PLACED" already means "ORDER_PLACED""#
    );
    assert_eq!(
        line(json!({"/event_type/0/aliases": ["USER_SEEN"]})),
        r#"error: event_type "USER_SEEN": "ORDER_PLACED" has this name as an alias"#
    );
    assert_eq!(
        line(json!({"/event_type/0/aliases": ["ORDER_PLACED"]})),
        r#"error: event_type "ORDER_PLACED": its alias "ORDER_PLACED" is its own name"#
    );
    assert_eq!(
        line(json!({"/event_type/0/aliases": ["order", "order"]})),
        r#"error: event_type "ORDER_PLACED": its alias "order" is there twice"#
    );
    assert_eq!(
        line(json!({"/event_type/0/aliases": ["seen"], "/event_type/1/aliases": ["seen"]})),
        r#"error: event_type "USER_SEEN": its alias "seen" already means "ORDER_PLACED""#
    );
    assert_eq!(
        line(json!({"/event_type/0/aliases": ["postrider.delivery.dead"]})),
        r#"error: event_type "ORDER_PLACED": "postrider.delivery.dead" is one of Postrider's own event types"#
    );
}

#[test]
fn ids_are_ids_and_lead_somewhere() {
    assert_eq!(
        line(json!({"/category/-": {"id": "people", "label": "P"}})),
        r#"error: category "people": there are two categories of this id"#
    );
    assert_eq!(
        line(json!({"/group/-": {"id": "new_orders", "label": "P", "category": "people"}})),
        r#"error: group "new_orders": there are two groups of this id"#
    );
    assert_eq!(
        line(json!({"/category/-": {"id": "two words", "label": "Two"}})),
        r#"error: category "two words": this cannot be an id"#
    );
    assert_eq!(
        line(json!({"/category/-": {"id": "postrider", "label": "Ours"}})),
        r#"error: category "postrider": this is the category of Postrider's own events"#
    );
    assert_eq!(
        line(json!({"/product/id": "Shop"})),
        r#"error: product.id: "Shop" cannot be the id of a product"#
    );
    assert!(line(json!({"/product/id": "postrider"})).starts_with("error: product.id: postrider is"));
    assert_eq!(
        line(json!({"/event_type/1/category": "peple"})),
        r#"error: event_type "USER_SEEN": there is no category "peple"; did you mean people?"#
    );
    assert_eq!(
        line(json!({"/event_type/1/group": "old_orders"})),
        r#"error: event_type "USER_SEEN": there is no group "old_orders"; did you mean new_orders?"#
    );
    assert_eq!(
        line(json!({"/event_type/1/group": "new_orders"})),
        r#"error: event_type "USER_SEEN": its group "new_orders" is in the category "orders", not in "people""#
    );
    assert_eq!(
        line(json!({"/group/-": {"id": "g", "label": "P", "category": "nowhere"}})),
        r#"error: group "g": there is no category "nowhere""#
    );
    assert_eq!(line(json!({"/schema": 2})), "error: schema: schema 2 is not known; this release reads 1");
}

#[test]
fn triggers_emit_what_there_is_and_cannot_set_themselves_off() {
    assert_eq!(
        line(json!({"/trigger/0/emit/0/event_type": "ORDER_PLACD"})),
        r#"error: trigger 1 (action "checkout"): it emits "ORDER_PLACD", which is no event type of this catalogue; did you mean ORDER_PLACED?"#
    );
    assert_eq!(
        line(json!({"/trigger/0/emit/0/event_type": "order", "/event_type/0/aliases": ["order"]})),
        r#"error: trigger 1 (action "checkout"): it emits "order", which is an alias"#
    );
    for action in ["ORDER_PLACED", "order"] {
        let line = line(json!({"/trigger/0/action": action, "/event_type/0/aliases": ["order"]}));
        assert!(line.ends_with("is an event type: a trigger that emitted it could set itself off"), "{line}");
    }
    assert_eq!(
        line(json!({"/trigger/0/emit": []})),
        r#"error: trigger 1 (action "checkout"): it emits nothing; name at least one event type under `emit`"#
    );
    let line_of = |member: &str, value: Value| line(json!({format!("/trigger/0/{member}"): value}));
    assert!(line_of("when", json!("data.n ==")).contains("when: the expression is not CEL"));
    assert!(line_of("emit/0/when", json!("subject.n == 1")).contains("there is no variable `subject`"));
    assert!(line_of("emit/0/for_each", json!(["sender"])).contains("must begin with a slash"));
    assert!(line_of("emit/0/key", json!("/subject/id")).contains("is into a subject, and there is none"));
    let again = json!({"action": "checkout", "emit": [{"event_type": "ORDER_PLACED"}]});
    assert_eq!(
        line(json!({"/trigger/-": again})),
        r#"suspect: trigger 2 (action "checkout"): there is another trigger that does the same"#
    );
    let many: Vec<Value> = (0..21)
        .map(|n| json!({"action": "checkout", "when": format!("data.n == {n}"), "emit": [{"event_type": "ORDER_PLACED"}]}))
        .collect();
    assert_eq!(
        line(json!({"/trigger": many})),
        r#"error: action "checkout": 21 triggers name it; at most 20 are taken"#
    );
    let own = json!({"/event_type/0/trigger": "own"});
    assert!(line(own).ends_with("which Postrider itself publishes"));
}

#[test]
fn examples_are_events_of_their_type() {
    for (example, problem) in [
        ("{", "its example is no event: "),
        ("[]", "its example is no event: "),
        (r#"{"event_type":"USER_SEEN"}"#, r#"its example is of the type "USER_SEEN""#),
        (r#"{"data":1}"#, "its example says no event_type"),
        (r#"{"event_type":"ORDER_PLACED","event_time":"today"}"#, "the event_time of its example is no time"),
    ] {
        let line = line(json!({"/event_type/0/example": example}));
        assert!(line.starts_with("error") && line.contains(problem), "{line}");
    }
    let long = format!(r#"{{"event_type":"ORDER_PLACED","data":"{}"}}"#, "x".repeat(MAX_EXAMPLE_BYTES));
    assert!(line(json!({"/event_type/0/example": long})).contains("at most 65536 are taken"));
}

#[test]
fn schemas_are_schemas_and_examples_fit_them() {
    let bad = line(json!({"/event_type/0/data_schema": {"type": "objekt"}}));
    assert!(bad.contains("its data_schema cannot be used"), "{bad}");
    let fetched = line(json!({"/event_type/0/data_schema": {"$ref": "https://example.com/schema"}}));
    assert!(fetched.contains("nothing is ever fetched"), "{fetched}");
    let schema = json!({"type": "object", "required": ["order_id"]});
    let misfit = line(json!({"/event_type/0/data_schema": schema}));
    assert!(
        misfit.contains("its example does not fit its data_schema") && misfit.contains("order_id"),
        "{misfit}"
    );
    assert_eq!(lines(json!({"/event_type/0/data_schema": {"type": "object"}})), [""; 0]);
}

#[test]
fn reminders_say_how_long_before() {
    let scheduled = json!({"/event_type/0/trigger": "scheduled", "/trigger": []});
    assert_eq!(
        line(scheduled),
        "suspect: event_type \"ORDER_PLACED\": it is scheduled but says no lead_days, so reminders of it are refused until the tenant sets some"
    );
    let far = json!({"/event_type/0/trigger": "scheduled", "/event_type/0/lead_days": 4000, "/trigger": []});
    assert!(line(far).contains("at most 365 are taken"));
    assert!(line(json!({"/event_type/0/lead_days": 7})).ends_with("it has lead_days but is not scheduled"));
}

#[test]
fn nothing_is_unbounded() {
    let types: Vec<Value> = (0..=MAX_TYPES).map(|n| named(&format!("T{n}X"))).collect();
    let found = lines(json!({"/event_type": types, "/trigger": []}));
    assert!(found[0].ends_with("2001 event types; at most 2000 are taken"), "{found:#?}");
    assert!(found.len() <= MAX_FINDINGS);
    let aliases: Vec<String> = (0..=MAX_ALIASES).map(|n| format!("alias {n}")).collect();
    assert!(line(json!({"/event_type/0/aliases": aliases})).contains("21 aliases"));
    assert!(line(json!({"/event_type/0/label": "x".repeat(201)})).contains("201 characters"));
    assert!(line(json!({"/event_type/0/label": "a\u{1b}[2J"})).contains("control character"));
    let large: Vec<Value> = (0..20)
        .map(|n| {
            let mut entry = named(&format!("T{n}X"));
            entry["example"] = json!(format!(r#"{{"event_type":"T{n}X","data":"{}"}}"#, "x".repeat(60_000)));
            entry
        })
        .collect();
    let large = json!({"/event_type": large, "/trigger": []});
    assert!(lines(large).iter().any(|line| line.contains("bytes as JSON")));
}

#[test]
fn what_looks_copied_wrongly_is_a_suspect() {
    assert_eq!(
        line(json!({"/event_type/-": named("APP_CREATEDAPP_MODIFIED")})),
        "suspect: event_type \"APP_CREATEDAPP_MODIFIED\": this looks like several names run together: \
         APP_CREATED + APP_MODIFIED"
    );
    // Once it says where it was cut from, somebody has looked at it.
    let mut looked = named("APP_CREATEDAPP_MODIFIED");
    looked["split_from"] = json!("APP_CREATEDAPP_MODIFIED:");
    assert_eq!(lines(json!({"/event_type/-": looked})), [""; 0]);
    assert_eq!(
        line(json!({"/event_type/-": named("USER_MODIFIED:")})),
        r#"suspect: event_type "USER_MODIFIED:": its name ends with a colon"#
    );
    assert_eq!(
        lines(json!({"/category/0/label": "ClientTriggers:"})),
        [
            r#"suspect: category "orders": its label ends with a colon"#,
            r#"suspect: category "orders": its label looks like two words run together: Client + Triggers"#,
        ]
    );
    assert_eq!(
        line(json!({"/event_type/-": named("user seen")})),
        r#"suspect: event_type "user seen": "user seen" is almost "USER_SEEN", a name of "USER_SEEN""#
    );
    assert_eq!(
        line(json!({"/event_type/1/label": "order placed"})),
        r#"suspect: event_type "USER_SEEN": it has the label of "ORDER_PLACED""#
    );
    assert_eq!(
        line(json!({"/event_type/1/description": "Somebody ordered."})),
        r#"suspect: event_type "USER_SEEN": it has the description of "ORDER_PLACED""#
    );
    // Another spelling of its own name is what aliases are for.
    assert_eq!(lines(json!({"/event_type/1/aliases": ["User_Seen"]})), [""; 0]);
}
