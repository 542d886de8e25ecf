//! What judging a condition costs at worst, and what converting a large event costs.
//!
//! Each case of `dearest` uses up all steps, or all that a source can ask for. Not one may take 5 ms.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use postrider_core::expression::{Expression, MAX_SOURCE_BYTES, Scope};
use postrider_core::{Event, EventId, EventType, TenantId, Timestamp, event};
use serde_json::value::RawValue;

/// As many times `part` as fit into a source, joined, within `before` and `after`.
fn repeated(before: &str, part: &str, joined: &str, after: &str) -> String {
    let fits = |times: &usize| {
        let source = format!("{before}{}{after}", vec![part; *times].join(joined));
        source.len() <= MAX_SOURCE_BYTES && Expression::parse(&source).is_ok()
    };
    let times = (1..200).take_while(fits).last().unwrap_or(1);
    format!("{before}{}{after}", vec![part; times].join(joined))
}

fn event_of(data: String) -> Option<Event> {
    Some(Event {
        tenant: TenantId::default_tenant(),
        id: EventId::from_trusted("evt_1"),
        event_type: EventType::parse("T").ok()?,
        event_time: "2026-11-21T20:00:00Z".into(),
        current_context: event::null(),
        data: Arc::from(RawValue::from_string(data).ok()?),
        key: None,
        correlation_id: None,
        traceparent: None,
        accepted_at: Timestamp::default(),
    })
}

/// A thousand elements, a large map, long texts and long lists.
fn large() -> String {
    let elements: Vec<String> =
        (0..1000).map(|n| format!(r#"{{"id":{n},"price":{n}e300,"name":"{}"}}"#, "n".repeat(63))).collect();
    let members: Vec<String> = (0..3000).map(|n| format!(r#""{}{n}":{n}"#, "member".repeat(2))).collect();
    let numbers = vec!["7"; 10_000].join(",");
    format!(
        r#"{{"list":[{}],"map":{{{}}},"numbers":[{numbers}],"text":"{}","digits":"{}"}}"#,
        elements.join(","),
        members.join(","),
        "ab".repeat(10_000),
        format_args!("0.{}", "1234567890".repeat(6))
    )
}

fn dearest(criterion: &mut Criterion) {
    let each = |part: &str| repeated("data.list.all(x, ", part, " && ", ")");
    let cases = [
        ("comparisons", each("x.id<9999")),
        ("texts of 63 bytes", each("x.name==x.name")),
        ("lists made", each("[x.id,1]!=[2,3]")),
        ("empty lists made", each("[]==[]")),
        ("nested loops", "data.list.all(x, data.list.all(y, x.id < 9999 && y.id < 9999))".to_owned()),
        ("a large map", each("data.map.membermember7==7")),
        ("an index into it", each("data.map['membermember2999']>1")),
        ("a long list", each("!(8 in data.numbers)")),
        ("a list of maps", each("!(x in data.map.all)||true")),
        ("a long text", repeated("", "!data.text.contains('aa')", " && ", "")),
        ("a short text", each("!x.name.contains('ab')")),
        ("the size of a text", each("size(x.name)==63")),
        ("numbers written", each("string(x.price)!='1'")),
        ("numbers read", each("double(x.name)>1.0||true")),
        ("numbers read well", each("double(data.digits)<1.0")),
        ("errors", each("(x.absent||true)")),
        ("deep equality", repeated("", "data==data", " && ", "")),
    ];
    let Some(event) = event_of(large()) else { return };
    let mut group = criterion.benchmark_group("dearest");
    for (name, source) in cases {
        let Ok(expression) = Expression::parse(&source) else { panic!("{source}") };
        let Ok(scope) = Scope::of_event(&event) else { return };
        group.bench_function(name, |bencher| bencher.iter(|| black_box(expression.holds(&scope))));
    }
    group.finish();
}

fn usual(criterion: &mut Criterion) {
    let data = r#"{"amount":120,"currency":"EUR","items":[{"sku":"A-1"},{"sku":"B-2"}],"customer":{"country":"DE"}}"#;
    let source =
        "data.amount > 100 && data.customer.country in ['DE','AT'] && data.items.exists(i, i.sku == 'B-2')";
    let (Some(event), Ok(expression)) = (event_of(data.to_owned()), Expression::parse(source)) else {
        return;
    };
    criterion.bench_function("usual/with conversion", |bencher| {
        bencher.iter(|| Scope::of_event(&event).map(|scope| expression.holds(&scope)));
    });
    criterion.bench_function("usual/parse", |bencher| bencher.iter(|| Expression::parse(black_box(source))));
    let deep = format!("{}data{}", "(".repeat(24), ")".repeat(24));
    let long = repeated("", "data.a[0]<-1", "||", "");
    for (name, source) in [("deep", deep), ("long", long), ("not closed", "[".repeat(1024))] {
        criterion
            .bench_function(&format!("parse/{name}"), |b| b.iter(|| Expression::parse(black_box(&source))));
    }
}

fn conversion(criterion: &mut Criterion) {
    let full = |part: &str| format!("[{}]", vec![part; 256 * 1024 / (part.len() + 1) - 1].join(","));
    let names: Vec<String> = (0..30_000).map(|n| format!(r#""{n:x}":0"#)).collect();
    let cases = [
        ("numbers", full("0")),
        ("empty texts", full("\"\"")),
        ("short texts", full("\"ab\"")),
        ("maps of one", full(r#"{"a":0}"#)),
        ("lists of one", full("[0]")),
        ("one map", format!("{{{}}}", names.join(","))),
        ("one text", format!("\"{}\"", "a".repeat(256 * 1024 - 2))),
    ];
    let Ok(expression) = Expression::parse("data == 1") else { return };
    let mut group = criterion.benchmark_group("conversion of 256 KiB");
    for (name, data) in cases {
        let Some(event) = event_of(data) else { panic!("{name}") };
        group.bench_function(name, |bencher| {
            bencher.iter(|| Scope::of_event(&event).map(|scope| expression.holds(&scope)));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(std::time::Duration::from_millis(300))
        .measurement_time(std::time::Duration::from_secs(1));
    targets = dearest, usual, conversion
}
criterion_main!(benches);
