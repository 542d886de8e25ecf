//! What routing one event costs among 100,000 webhooks of its tenant.

use criterion::{Criterion, criterion_group, criterion_main};
use postrider_core::directory::{Applied, Directory};
use postrider_core::id::Epoch;
use postrider_core::wire::{ConfigKind, ConfigRecord, TenantRecord, TenantSettings, WebhookRecord};
use postrider_core::{Event, EventId, EventType, TenantId, Timestamp, WebhookId, event};
use serde_json::value::RawValue;

const WEBHOOKS: usize = 100_000;

/// How many webhooks an event goes to in each case.
const MATCHING: usize = 10;

const WANTED: &str = "order.paid";

fn event_type(name: &str) -> EventType {
    EventType::parse(name).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// A directory in which `taking` of the webhooks take the wanted type, and the others one of a thousand other types.
fn directory(taking: usize, filter: impl Fn(usize) -> Option<String>) -> Directory {
    let (epoch, tenant) = (Epoch::from_trusted("bench"), TenantId::default_tenant());
    let mut directory = Directory::new();
    let mut apply = |record: ConfigRecord| match directory.apply(&record) {
        Applied::Changed | Applied::Unchanged => {}
        Applied::Unreadable(why) => panic!("{why}"),
    };
    apply(ConfigRecord::bare(&epoch, 1, ConfigKind::SnapshotBegin, ""));
    let record = TenantRecord { id: tenant.clone(), settings: TenantSettings::default() };
    apply(ConfigRecord::of(&epoch, 1, ConfigKind::Tenant, "default", &record));
    for number in 0..WEBHOOKS {
        let id = WebhookId::from_trusted(format!("wh_{number:06}"));
        let mut record = WebhookRecord::new(id.clone(), tenant.clone(), "https://receiver.example/hook");
        let wanted = number % (WEBHOOKS / taking) == 0;
        let name = if wanted { WANTED.to_owned() } else { format!("other.{}", number % 1000) };
        record.event_types.insert(event_type(&name));
        record.filter = filter(number);
        apply(ConfigRecord::of(&epoch, 1, ConfigKind::Webhook, id.as_str(), &record));
    }
    apply(ConfigRecord::bare(&epoch, 1, ConfigKind::SnapshotEnd, ""));
    directory
}

fn event() -> Event {
    let data = r#"{"amount":120,"currency":"EUR","shop":0,"items":[{"sku":"A-1"},{"sku":"B-2"}]}"#;
    let Ok(data) = RawValue::from_string(data.to_owned()) else { panic!("{data}") };
    Event {
        tenant: TenantId::default_tenant(),
        id: EventId::from_trusted("evt_1"),
        event_type: event_type(WANTED),
        event_time: "2026-11-21T20:00:00Z".into(),
        current_context: event::null(),
        data: data.into(),
        key: None,
        correlation_id: None,
        traceparent: None,
        accepted_at: Timestamp::default(),
    }
}

fn route(criterion: &mut Criterion) {
    let holding = "data.amount > 100 && data.items.exists(item, item.sku == 'B-2')".to_owned();
    // Every hundredth of those that take the type is of shop 0.
    let of_shop = |number: usize| Some(format!("data.shop == {} && data.amount > 100", number / 100 % 100));
    let cases = [
        ("10 take the type", directory(MATCHING, |_| None)),
        ("10 take the type, filters hold", directory(MATCHING, |_| Some(holding.clone()))),
        ("1000 take the type, filters leave 10", directory(1000, of_shop)),
    ];
    let event = event();
    for (name, directory) in cases {
        match directory.route(&event) {
            Ok(targets) if targets.len() == MATCHING => {}
            other => panic!("{name}: {:?}", other.map(|targets| targets.len())),
        }
        criterion.bench_function(&format!("route among 100000/{name}"), |bencher| {
            bencher.iter(|| directory.route(&event));
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(std::time::Duration::from_millis(300))
        .measurement_time(std::time::Duration::from_secs(1));
    targets = route
}
criterion_main!(benches);
