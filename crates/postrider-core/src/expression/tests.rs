use std::collections::HashMap;

use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;
use crate::event::EventType;
use crate::id::{EventId, TenantId};
use crate::time::Timestamp;

const DATA: &str = r#"{
    "name": "Ada Lovelace", "amount": 120, "rate": 2.5, "paid": true, "nothing": null, "big": 18446744073709551615,
    "list": [1, 2, 3], "mixed": [1, "x", null, {"a": 1}], "empty": [], "a b": 7,
    "items": [{"sku": "A-1", "tags": ["x", "y"]}, {"sku": "B-2", "tags": []}], "nested": {"a": {"b": "c"}}
}"#;

fn event(data: &str) -> Event {
    Event {
        tenant: TenantId::default_tenant(),
        id: EventId::from_trusted("evt_1"),
        event_type: EventType::parse("USER_LOGIN").unwrap(),
        event_time: "2026-11-21T20:00:00Z".into(),
        current_context: Arc::from(RawValue::from_string(r#"{"ip":"10.0.0.1"}"#.to_owned()).unwrap()),
        data: Arc::from(RawValue::from_string(data.to_owned()).unwrap()),
        key: None,
        correlation_id: None,
        traceparent: None,
        accepted_at: Timestamp::default(),
    }
}

fn judge(source: &str, data: &str) -> Result<bool, Unmet> {
    let expression = Expression::over_events(source).unwrap_or_else(|e| panic!("{source}: {e}"));
    expression.holds(&Scope::of_event(&event(data)).unwrap())
}

#[test]
fn conditions_that_people_write() {
    for holds in [
        r#"event_type == 'USER_LOGIN' && tenant == "default""#,
        "key == null",
        "id.startsWith('evt_') && event_time.endsWith('Z') && data.name.contains('Love')",
        "current_context.ip in ['10.0.0.1', '10.0.0.2']",
        "data.amount > 100 && data.amount >= 120.0 && data.rate < 3 && 2.5 == data.rate",
        "data.amount * 2 - 40 == 200 && data.amount / 7 == 17 && data.amount % 7 == 1",
        "data.big > 9223372036854775807",
        "data.paid && !has(data.refunded) && has(data.nothing) && data.nothing == null",
        "!has(data.x) || data.x > 1",
        "data['a b'] == 7 && 'a b' in data && data.list[1] == 2 && 3 in data.list",
        "size(data.list) == 3 && data.name.size() == 12 && size(data.nested) == 1",
        "data.items.exists(item, item.sku == 'B-2') && !data.items.all(item, size(item.tags) > 0)",
        "data.items.exists(item, item.tags.exists(tag, tag == 'y' && item.sku == 'A-1'))",
        "data.empty.all(x, x > 'a') && !data.empty.exists(x, x > 'a')",
        "data.exists(member, member.startsWith('rat'))",
        "data.mixed.exists(x, x > 0) && data.list == [1, 2.0, 3] && data.nested == data.nested",
        "data.amount > 1000 ? false : data.paid",
        "int('12') + int(2.9) == 14 && double('0.5') == 0.5 && string(data.amount) == '120'",
        "-data.amount < 0 // a comment",
        "true || data.absent.x",
        "data.absent.x || true",
    ] {
        assert_eq!(judge(holds, DATA), Ok(true), "{holds}");
    }
}

#[test]
fn the_examples_of_the_docs_hold() {
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/filters.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    let examples: Vec<&str> =
        docs.split("```cel\n").skip(1).filter_map(|rest| rest.split("\n```").next()).collect();
    assert_eq!(examples.len(), 5);
    let data = r#"{"currency":"EUR","amount":1000.5,"country":"AT","order total":1,"shop_id":"42",
        "items":[{"sku":"CD-1","quantity":9},{"sku":"BOOK-1","quantity":2}]}"#;
    let mut event = event(data);
    event.key = Some("member-4711".into());
    let scope = Scope::of_event(&event).unwrap();
    for example in examples {
        assert_eq!(Expression::over_events(example).unwrap().holds(&scope), Ok(true), "{example}");
    }
}

#[test]
fn what_cannot_be_said_is_unmet() {
    let unmet = |source: &str| judge(source, DATA).expect_err(source).to_string();
    assert_eq!(unmet("data.absent == 1"), "there is no `absent`; ask with has() first");
    assert_eq!(unmet("has(data.absent.x)"), "there is no `absent`; ask with has() first");
    assert_eq!(unmet("data.list[3] == 1"), "there is no such element; ask with size() or `in` first");
    assert_eq!(unmet("data['x'] == 1 || data.list[-1] == 1"), unmet("data.list[3] == 1"));
    assert_eq!(unmet("data.name > 3"), "an order cannot be applied to a text and a number");
    assert_eq!(unmet("data.name + 'x' == 'y'"), "+ cannot be applied to a text");
    assert_eq!(unmet("data.list + data.list == []"), "+ cannot be applied to a list");
    assert_eq!(
        unmet("data.amount * 1.5 > 1.0"),
        "* cannot be applied to a whole number and another kind of number; use double() or int()"
    );
    assert_eq!(unmet("9223372036854775807 + data.amount > 0"), "a number is too large");
    assert_eq!(unmet("(-9223372036854775807 - 1) / -1 > 0 && data.paid"), "a number is too large");
    assert_eq!(unmet("data.amount / 0 == 1"), "a division by zero");
    assert_eq!(unmet("data.amount % 0 == 1"), "a division by zero");
    assert_eq!(unmet("int(data.name) == 1"), "int() cannot read this value");
    assert_eq!(unmet("data.name"), "the expression is a text, neither true nor false");
    assert_eq!(unmet("data.name && true"), "&& cannot be applied to a text");
    assert_eq!(unmet("data.items.all(i, i.tags[0] == 'x')"), unmet("data.list[3] == 1"));
    assert_eq!(unmet("data.name.exists(c, c == 'A')"), "exists cannot be applied to a text");
    assert_eq!(
        judge("data.paid", r#"{"paid": 1e999}"#).unwrap_err().to_string(),
        "`data` cannot be read as JSON: it has a number out of range or a text that is no Unicode"
    );
    assert_eq!(judge("data == 'x'", r#""\ud800""#), Err(Unmet::Unreadable("data")));
    let expression = Expression::parse("subject == 1 || action == 'x'").unwrap();
    let scope = Scope::of_event(&event("1")).unwrap();
    assert_eq!(expression.holds(&scope), Err(Unmet::NoVariable("action")));
}

#[test]
fn a_bad_expression_is_refused_with_a_reason() {
    let refused = |source: &str| Expression::over_events(source).expect_err(source).to_string();
    for (source, why) in [
        (" ", "the expression is empty; leave it out where everything should match"),
        (
            "data.amount = 1",
            "the expression is not CEL: line 1, column 13: mismatched input '=' expecting <EOF>; texts stand in quotes, \
             `==` compares, `&&` and `||` combine",
        ),
        (
            "amount > 1",
            "there is no variable `amount`; there are event_type, event_time, action, time, id, key, tenant, data, \
             current_context, subject; texts stand in quotes",
        ),
        (
            "subject.x > 1",
            "there is no variable `subject`; there are event_type, event_time, id, key, tenant, data, \
             current_context; texts stand in quotes",
        ),
        (
            "now() > 1",
            "there is no function `now` with 0 arguments; there are has, exists, all, size, contains, startsWith, \
             endsWith, string, int and double",
        ),
        ("data.name.matches('a+')", "matches cannot be used here; use contains, startsWith or endsWith"),
        ("data.list.map(x, x)", "map and filter cannot be used here; use exists or all"),
        ("data.list.exists_one(x, x == 1)", "exists_one cannot be used here; use exists"),
        ("data == {'a': 1}", "a map cannot be used here; compare its members one by one"),
        ("data == b'a'", "a text of bytes cannot be used here; leave out the `b`"),
        ("'yes'", "a text is never true or false; compare it with something"),
        ("data.amount + 1", "a number is never true or false; compare it with something"),
        ("data.paid && event_type", "a text is never true or false; compare it with something"),
        ("data.paid ? 1 : 2", "a number is never true or false; compare it with something"),
        ("data.list.exists(x, size(x))", "a number is never true or false; compare it with something"),
    ] {
        assert_eq!(refused(source), why, "{source}");
    }
    assert_eq!(
        Expression::over_actions("subject == 1", false).unwrap_err(),
        BadExpression::UnknownVariable { name: "subject".into(), known: ACTION_VARIABLES[..7].join(", ") }
    );
    assert!(Expression::over_actions("subject == 1 && action == 'x'", true).is_ok());
    let used = Expression::parse("data.x == key && data.list.exists(id, id == tenant)").unwrap();
    assert_eq!(used.variables().collect::<Vec<_>>(), ["key", "tenant", "data"]);
}

/// Sources made to overflow a stack or to keep a parser busy.
fn hostile() -> impl Iterator<Item = String> {
    let openings = [
        "(",
        "[",
        "{",
        "{1:",
        "size(",
        "data[",
        "!",
        "-",
        "!-",
        "data ? true : ",
        "data ? ",
        "data.",
        ".",
        "a{",
        "data + ",
        "data && ",
        "data || data && ",
        "data < ",
        "data in ",
        "1,",
        "\"",
        "'''",
        "`",
        "[?",
        "a.?b",
        "\\",
        "é",
        "data.list.all(x, ",
        "data.exists(x,(",
        "([{",
        ")(",
        "0x",
        "1e",
        "r\"",
        "b'",
        "\u{0}",
        "a=b ",
        "//",
    ];
    openings.into_iter().flat_map(|opening| {
        [5, 20, 24, 25, 60, 100, 200, 1024].into_iter().flat_map(move |times| {
            let closing: String = opening
                .chars()
                .rev()
                .filter_map(|c| match c {
                    '(' => Some(')'),
                    '[' => Some(']'),
                    '{' => Some('}'),
                    _ => None,
                })
                .collect();
            let whole = format!("{}data{}", opening.repeat(times), closing.repeat(times));
            [opening.repeat(times), whole].map(|source| {
                let end = source.floor_char_boundary(MAX_SOURCE_BYTES);
                source[..end].to_owned()
            })
        })
    })
}

#[test]
fn hostile_sources_need_little_stack() {
    // Threads of the program have 2 MiB and more.
    let small = std::thread::Builder::new().stack_size(512 * 1024).spawn(|| {
        let scope = Scope::of_event(&event(DATA)).unwrap();
        for source in hostile() {
            if let Ok(expression) = Expression::parse(&source) {
                let _unmet_or_not = expression.holds(&scope);
            }
        }
    });
    small.unwrap().join().unwrap();
}

#[test]
fn bounds_on_sources() {
    let refused = |source: &str| Expression::parse(source).unwrap_err();
    assert_eq!(refused(&" 1".repeat(513)), BadExpression::TooLong { bytes: 1026 });
    assert_eq!(
        refused(&format!("{}data{} == 1", "size(".repeat(30), ")".repeat(30))),
        BadExpression::TooDeep
    );
    assert_eq!(refused(&format!("data{} == 1", ".a".repeat(70))), BadExpression::TooDeep);
    assert_eq!(refused(&format!("{}data", "data&&".repeat(150))), BadExpression::TooLarge);
    assert!(Expression::parse(&format!("{}data", "data&&".repeat(99))).is_ok());
    assert!(Expression::parse(&format!("{}data{} == 1", "size(".repeat(20), ")".repeat(20))).is_ok());
}

#[test]
fn bounds_on_data() {
    let list = |length: usize| format!(r#"{{"list":{:?}}}"#, vec![7; length]);
    assert_eq!(judge("data.list.exists(x, x == 8)", &list(MAX_ELEMENTS)), Ok(false));
    assert_eq!(judge("data.list.exists(x, x == 8)", &list(MAX_ELEMENTS + 1)), Err(Unmet::TooManyElements));
    assert_eq!(judge("data.list.exists(x, x == 8) || true", &list(1001)), Err(Unmet::TooManyElements));
    assert_eq!(judge("true || data.list.exists(x, x == 8)", &list(1001)), Ok(true));
    let nested = "data.list.all(x, data.list.all(y, x == y))";
    assert_eq!(judge(nested, &list(100)), Ok(true));
    for (source, data) in [
        (nested, list(1000)),
        ("data.list.all(x, x in data.list && !(8 in data.list))", list(1000)),
        ("data.list.all(x, !(8 in data.list)) || true", list(1000)),
    ] {
        assert_eq!(judge(source, &data), Err(Unmet::TooManySteps), "{source}");
    }
    let text = format!(r#"{{"list":{:?},"text":"{}"}}"#, vec![7; 1000], "ab".repeat(60_000));
    assert_eq!(judge("data.text.contains('aa')", &text), Ok(false));
    for source in [
        "data.list.exists(x, data.text.contains('aa'))",
        "data.list.exists(x, size(data.text) == x)",
        "data.list.exists(x, data != data)",
        "data.list.exists(x, data.text < data.text)",
    ] {
        assert_eq!(judge(source, &text), Err(Unmet::TooManySteps), "{source}");
    }
}

#[test]
fn of_a_name_that_is_there_twice_the_last_counts() {
    let data = r#"{"b":1,"a":1,"c":{"x":1,"x":2},"a":2,"b":3,"a":4}"#;
    let holds = "data.a == 4 && data.b == 3 && data.c.x == 2 && size(data) == 3 && size(data.c) == 1";
    assert_eq!(judge(holds, data), Ok(true));
}

#[test]
fn a_scope_converts_what_is_used_and_once() {
    let scope = Scope::of_event(&event(DATA)).unwrap();
    let converted = |variable: Variable| scope.variables[variable as usize].as_ref().unwrap().value.get();
    assert!(converted(Variable::Data).is_none());
    Expression::parse("event_type == 'x' || data.paid").unwrap().holds(&scope).unwrap();
    assert!(converted(Variable::CurrentContext).is_none());
    let first: *const Option<Node> = converted(Variable::Data).unwrap();
    let subject = RawValue::from_string("1".to_owned()).unwrap();
    let with_subject = scope.with_subject(&subject).unwrap();
    assert_eq!(Expression::parse("subject == 1 && data.paid").unwrap().holds(&with_subject), Ok(true));
    let again = with_subject.variables[Variable::Data as usize].as_ref().unwrap().value.get().unwrap();
    assert!(std::ptr::eq(first, again));
    let bad = RawValue::from_string("1e999".to_owned()).unwrap();
    assert_eq!(scope.with_subject(&bad).unwrap_err(), Unmet::Unreadable("subject"));
}

fn json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        (-3_i64..4).prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        Just(Json::from(1.0)),
        "[ab]{0,3}".prop_map(Json::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            proptest::collection::btree_map("[abc]", inner, 0..4)
                .prop_map(|members| members.into_iter().collect()),
        ]
    })
}

/// Sources that are mostly conditions.
fn source() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("data".to_owned()),
        Just("data.a".to_owned()),
        Just("data.b".to_owned()),
        Just("data.a.b".to_owned()),
        Just("data[0]".to_owned()),
        Just("has(data.a)".to_owned()),
        Just("x".to_owned()),
        Just("key".to_owned()),
        Just("null".to_owned()),
        any::<bool>().prop_map(|value| value.to_string()),
        (-3_i64..4).prop_map(|value| value.to_string()),
        any::<i64>().prop_map(|value| value.to_string()),
        (0_u64..4).prop_map(|value| format!("{value}u")),
        Just("0.0".to_owned()),
        Just("1.5".to_owned()),
        Just("1e300".to_owned()),
        "[ab]{0,2}".prop_map(|text| format!("'{text}'")),
    ];
    let operator = proptest::sample::select(vec![
        "&&", "||", "==", "!=", "<", "<=", ">", ">=", "+", "-", "*", "/", "%", "in", "&&", "||", "==",
    ]);
    let function = proptest::sample::select(vec!["size", "string", "int", "double", "!", "-"]);
    let method = proptest::sample::select(vec!["contains", "startsWith", "endsWith"]);
    let each = proptest::sample::select(vec!["exists", "all"]);
    let source = leaf.prop_recursive(4, 24, 3, move |inner| {
        let two = (inner.clone(), inner.clone());
        prop_oneof![
            6 => (two.clone(), operator.clone()).prop_map(|((a, b), o)| format!("({a} {o} {b})")),
            2 => (function.clone(), inner.clone()).prop_map(|(f, a)| format!("{f}({a})")),
            1 => (two.clone(), method.clone()).prop_map(|((a, b), m)| format!("({a}).{m}({b})")),
            2 => (two.clone(), each.clone()).prop_map(|((a, b), e)| format!("({a}).{e}(x, {b})")),
            1 => (two.clone(), inner.clone()).prop_map(|((a, b), c)| format!("({a} ? {b} : {c})")),
            1 => two.prop_map(|(a, b)| format!("({a})[{b}]")),
            1 => proptest::collection::vec(inner, 0..3).prop_map(|parts| format!("[{}]", parts.join(","))),
        ]
    });
    // A name for `x` wherever it is not bound.
    source.prop_map(|source| format!("[1].exists(x, {source})"))
}

fn cel_value(json: &Json) -> cel::Value {
    match json {
        Json::Null => cel::Value::Null,
        Json::Bool(value) => cel::Value::Bool(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => cel::Value::Int(value),
            (None, Some(value)) => cel::Value::UInt(value),
            (None, None) => cel::Value::Float(number.as_f64().unwrap()),
        },
        Json::String(text) => cel::Value::from(text.as_str()),
        Json::Array(elements) => cel::Value::from(elements.iter().map(cel_value).collect::<Vec<_>>()),
        Json::Object(members) => {
            let members = members.iter().map(|(name, value)| (name.clone(), cel_value(value)));
            cel::Value::from(members.collect::<HashMap<_, _>>())
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_answer_is_that_of_the_cel_crate(source in source(), a in json(), b in json()) {
        let data = serde_json::json!({"a": a, "b": b});
        let Ok(expression) = Expression::over_events(&source) else { return Ok(()) };
        let ours = expression.holds(&Scope::of_event(&event(&data.to_string())).unwrap());
        let mut context = cel::Context::default();
        context.add_variable_from_value("data", cel_value(&data));
        context.add_variable_from_value("key", cel::Value::Null);
        let theirs = cel::Program::compile(&source).unwrap().execute(&context);
        match (&ours, &theirs) {
            (Ok(ours), Ok(cel::Value::Bool(theirs))) => prop_assert_eq!(ours, theirs),
            (Err(_), Err(_)) => {}
            // Larger values are not made of smaller ones here.
            (Err(Unmet::WrongType { what: "+", .. }), Ok(_)) => {}
            (ours, theirs) => prop_assert!(false, "{source} over {data}: {ours:?}, {theirs:?}"),
        }
    }
}

proptest! {
    #[test]
    fn no_source_panics(source in "\\PC{0,200}") {
        let _good_or_bad = Expression::parse(&source);
    }

    #[test]
    fn no_source_of_cel_words_panics(words in proptest::collection::vec(proptest::sample::select(vec![
        "data", "event_type", "(", ")", "[", "]", "{", "}", ",", ".", "?", ":", "+", "-", "!", "==", "&&", "||",
        " in ", "has(", ".exists(x,", "'a'", "\"", "'", "\\", "1", "2u", "1e9", "r'", "b'", "`", "//", "\n", "é",
        "-9223372036854775808", "9223372036854775808", "'\\ud800'", "null", "size(", "x",
    ]), 0..40)) {
        if let Ok(expression) = Expression::parse(&words.concat()) {
            let _unmet_or_not = expression.holds(&Scope::of_event(&event(DATA)).unwrap());
        }
    }

    #[test]
    fn no_json_panics(source in source(), data in json()) {
        if let Ok(expression) = Expression::parse(&source) {
            let _unmet_or_not = expression.holds(&Scope::of_event(&event(&data.to_string())).unwrap());
        }
    }
}
