//! Deliveries that end otherwise than by an attempt: called off, with their webhook, or never; and those that are asked for
//! again.

use postrider_core::directory::{Directory, MAX_CANCELLATIONS};
use postrider_core::wire::{CancellationRecord, Cancelled, ConfigKind, ConfigRecord};

use super::cancellations::{BY_REQUEST, CANCELLING, Meant, SKIPPED};
use super::*;

async fn cancel(t: &TestStore, id: &DeliveryId) -> Result<CalledOff, NotCalledOff> {
    let mut change = t.store.change().await.unwrap();
    let done = change.cancel(&TenantId::default_tenant(), id.as_str(), NOW).await.unwrap();
    change.commit().await.unwrap();
    done
}

fn filter(webhook: Option<u32>) -> CancelFilter {
    CancelFilter {
        tenant: TenantId::default_tenant(),
        webhook: webhook.map(webhook_id),
        event_type: None,
        since: None,
        before: NOW,
        held_only: false,
    }
}

async fn cancel_matching(t: &TestStore, filter: &CancelFilter) -> Result<CancellationRow, NotCalledOff> {
    let mut change = t.store.change().await.unwrap();
    let done = change.cancel_matching(filter, NOW).await.unwrap();
    change.commit().await.unwrap();
    done
}

/// What workers are told, in order.
async fn told(t: &TestStore) -> Vec<(ConfigRecord, Option<Cancelled>)> {
    let rows = t.store.unsent(OutboxLane::Configuration, 1000).await.unwrap();
    let records = rows.iter().filter(|row| row.kind == OutboxKind::Config);
    let records = records.map(|row| serde_json::from_slice::<ConfigRecord>(&row.body).unwrap());
    records
        .filter(|record| record.kind == ConfigKind::Cancellation)
        .map(|record| {
            let body = record.body.as_ref().map(|body| serde_json::from_str(body.get()).unwrap());
            let what = body.map(|body: CancellationRecord| body.what);
            (record, what)
        })
        .collect()
}

async fn row(t: &TestStore, id: &DeliveryId) -> DeliveryRow {
    t.store.delivery("default", id.as_str()).await.unwrap().unwrap().row
}

/// Nothing is missing, owed by nobody or counted twice, with so many messages in the broker.
async fn balanced(t: &TestStore, in_broker: u64) -> Counts {
    let counts = counts(t).await;
    assert_eq!(counts.drift(Some(in_broker)).total(), 0, "{counts:?}");
    counts
}

#[tokio::test]
async fn one_that_is_on_its_way_is_told_and_shows_until_it_is_met() {
    let t = TestStore::new().await;
    make_webhook(&t, 0, "active").await;
    let (id, other) = (delivery("e", 0), delivery("f", 0));
    assert_eq!(cancel(&t, &id).await, Err(NotCalledOff::Unknown));
    record(&t, &[message("r", 0, vec![routed("e", 0..1), routed("f", 0..1)])]).await;
    let Ok(CalledOff::UnderWay { series: 1, cancellation: Some(cancellation) }) = cancel(&t, &id).await
    else {
        panic!("it is on its way")
    };
    assert!(cancellation.starts_with("cnl_"));
    let told_of = told(&t).await;
    assert_eq!(told_of.len(), 1);
    assert_eq!(
        (told_of[0].0.id.as_str(), told_of[0].0.revision),
        (cancellation.as_str(), t.store.revision().await.unwrap())
    );
    assert_eq!(told_of[0].1, Some(Cancelled::Series { delivery: id.clone(), series: 1 }));
    assert!(row(&t, &id).await.cancelling && !row(&t, &other).await.cancelling);
    let again = cancel(&t, &id).await;
    assert_eq!(again, Ok(CalledOff::UnderWay { series: 1, cancellation: None }), "nothing more to tell");
    assert_eq!(told(&t).await.len(), 1);
    let refused = redeliver(&t, id.as_str()).await.unwrap_err();
    assert_eq!(refused, RedeliverRefused::NotFinal { next_at: None, held: false, cancelling: true });
    balanced(&t, 2).await;

    // The worker met it.
    record(&t, &[message("w", 0, vec![done("e", 0, 1, End::Cancelled, 0)])]).await;
    let ended = row(&t, &id).await;
    assert_eq!((ended.state.as_str(), ended.cancelling), ("cancelled", false));
    assert_eq!(cancel(&t, &id).await, Err(NotCalledOff::Ended("cancelled".into())));
    // What is made again is another series, which nobody called off.
    assert_eq!(redeliver(&t, id.as_str()).await, Ok(2));
    assert!(!row(&t, &id).await.cancelling);
    assert_eq!(balanced(&t, 2).await.cancelled, 1);
}

#[tokio::test]
async fn one_that_is_held_ends_at_once_and_its_books_balance() {
    let t = TestStore::new().await;
    make_webhook(&t, 0, "paused").await;
    let facts = vec![routed("e", 0..1), attempt("e", 0, 1, "timeout"), held("e", 0, 2, 5000)];
    record(&t, &[message("w", 0, facts)]).await;
    let id = delivery("e", 0);
    assert_eq!(
        redeliver(&t, id.as_str()).await,
        Err(RedeliverRefused::NotFinal { next_at: None, held: true, cancelling: false })
    );
    assert_eq!(cancel(&t, &id).await, Ok(CalledOff::Ended { series: 1 }));
    let ended = row(&t, &id).await;
    assert_eq!((ended.state.as_str(), ended.held, ended.reason.as_str()), ("cancelled", false, BY_REQUEST));
    assert!(told(&t).await.is_empty(), "no message of it is on its way");
    let counts = balanced(&t, 0).await;
    assert_eq!((counts.cancelled, counts.pending, counts.held), (1, 0, 0));
    make_webhook(&t, 0, "active").await;
    assert_eq!(release(&t, 10).await, 0, "resuming does not bring it back");
}

#[tokio::test]
async fn many_are_counted_exactly_and_only_those_that_are_meant() {
    let t = TestStore::new().await;
    for n in 0..3 {
        make_webhook(&t, n, "paused").await;
    }
    // Five events to three webhooks; of the first webhook two are held and one is delivered.
    let mut facts: Vec<Fact> = (0..5).map(|n| routed(&format!("e{n}"), 0..3)).collect();
    facts.extend([
        held("e0", 0, 1, 10),
        held("e1", 0, 1, 11),
        attempt("e2", 0, 1, "none"),
        done("e2", 0, 1, End::Delivered, 1),
    ]);
    record(&t, &[message("w", 0, facts)]).await;
    let meant = async |filter: &CancelFilter| t.store.count_cancellable(filter).await.unwrap();
    assert_eq!(meant(&filter(None)).await, Meant { pending: 14, held: 2 });
    assert_eq!(meant(&filter(Some(0))).await, Meant { pending: 4, held: 2 });
    let held_only = CancelFilter { held_only: true, ..filter(Some(0)) };
    assert_eq!(meant(&held_only).await, Meant { pending: 2, held: 2 });
    let typed =
        |name: &str| CancelFilter { event_type: Some(EventType::parse(name).unwrap()), ..filter(Some(1)) };
    assert_eq!(meant(&typed("USER_CREATED")).await.pending, 5);
    assert_eq!(meant(&typed("OTHER")).await.pending, 0);
    assert_eq!(
        meant(&CancelFilter { before: at(0), ..filter(None) }).await.pending,
        0,
        "they began at that time"
    );
    assert_eq!(meant(&CancelFilter { since: Some(at(0)), before: at(1), ..filter(None) }).await.pending, 14);
    let elsewhere = CancelFilter { tenant: TenantId::parse("acme").unwrap(), ..filter(None) };
    assert_eq!(meant(&elsewhere).await, Meant::default());

    let made = cancel_matching(&t, &filter(Some(0))).await.unwrap();
    assert_eq!((made.pending, made.held), (4, 2));
    let counts = balanced(&t, 12).await;
    assert_eq!((counts.cancelled, counts.pending, counts.held, counts.delivered), (2, 12, 0, 1));
    assert!(
        matches!(&told(&t).await[..], [(_, Some(Cancelled::Matching { webhook: Some(webhook), event_type: None, born_since: None, born_before }))]
        if *webhook == webhook_id(0) && *born_before == NOW)
    );
    for (event, webhook, cancelling) in [("e3", 0, true), ("e4", 0, true), ("e3", 1, false), ("e2", 0, false)]
    {
        assert_eq!(row(&t, &delivery(event, webhook)).await.cancelling, cancelling, "{event} {webhook}");
    }
    let all = DeliveryFilter { tenant: "default".into(), ..DeliveryFilter::default() };
    let listed = t.store.deliveries(&all, None, 50).await.unwrap().rows;
    assert_eq!(listed.iter().filter(|row| row.cancelling).count(), 2);
    // What begins later is not meant.
    record(&t, &[message("w", 100, vec![done("e3", 0, 1, End::Cancelled, 0)])]).await;
    assert_eq!(redeliver(&t, delivery("e3", 0).as_str()).await, Ok(2));
    assert!(!row(&t, &delivery("e3", 0)).await.cancelling);

    let (first, second) = (made, cancel_matching(&t, &held_only).await.unwrap());
    assert!(second.held_only && told(&t).await.len() == 1, "workers have no part in what is held");
    let all = t.store.cancellations("default", None, 10).await.unwrap();
    assert_eq!(all.iter().map(|row| &row.id).collect::<Vec<_>>(), [&second.id, &first.id]);
    assert_eq!(t.store.cancellations("default", Some(second.seq), 10).await.unwrap(), [first]);
    assert!(t.store.cancellations("acme", None, 10).await.unwrap().is_empty());
}

/// A worker that does not know yet holds what was called off, or whose webhook is gone: nobody else would meet it.
#[tokio::test]
async fn what_is_held_after_it_was_called_off_ends_as_it_is_recorded() {
    let t = TestStore::new().await;
    for n in 0..3 {
        make_webhook(&t, n, "paused").await;
    }
    record(&t, &[message("r", 0, vec![routed("e", 0..3), routed("f", 0..3)])]).await;
    cancel(&t, &delivery("e", 0)).await.unwrap();
    cancel_matching(&t, &filter(Some(1))).await.unwrap();
    let mut change = t.store.change().await.unwrap();
    change.delete_webhook("wh_2", NOW).await.unwrap();
    change.commit().await.unwrap();
    let facts = (0..3).flat_map(|n| [held("e", n, 1, 10), held("f", n, 1, 11)]).collect::<Vec<_>>();
    for _ in 0..2 {
        record(&t, &[message("w", 0, facts.clone())]).await;
    }
    let mut ends = Vec::new();
    for n in 0..3 {
        for event in ["e", "f"] {
            let row = row(&t, &delivery(event, n)).await;
            ends.push((row.state, row.held, row.reason));
        }
    }
    let end = |reason: &str| ("cancelled".to_owned(), false, reason.to_owned());
    let (asked, gone) = (end(BY_REQUEST), end("webhook_deleted"));
    let waits = ("pending".to_owned(), true, String::new());
    assert_eq!(ends, [asked.clone(), waits, asked.clone(), asked, gone.clone(), gone]);
    let counts = balanced(&t, 0).await;
    assert_eq!((counts.cancelled, counts.held), (5, 1));
}

#[tokio::test]
async fn much_that_is_held_ends_in_pieces() {
    let t = TestStore::new().await;
    make_webhook(&t, 0, "paused").await;
    make_webhook(&t, 1, "paused").await;
    let mut facts = Vec::new();
    for n in 0..700 {
        facts.push(routed(&format!("e{n}"), 0..2));
        facts.extend((0..2).map(|webhook| held(&format!("e{n}"), webhook, 1, 10)));
    }
    for (index, chunk) in facts.chunks(300).enumerate() {
        record(&t, &[message("w", index as u64 * 300, chunk.to_vec())]).await;
    }
    let made = cancel_matching(&t, &CancelFilter { held_only: true, ..filter(Some(0)) }).await.unwrap();
    assert_eq!((made.pending, made.held), (700, 700));
    assert_eq!(balanced(&t, 0).await.cancelled, 500, "with the request");
    assert_eq!(t.store.end_called_off(150, NOW).await.unwrap(), 150);
    assert_eq!(t.store.end_called_off(150, NOW).await.unwrap(), 50);
    assert_eq!(t.store.end_called_off(150, NOW).await.unwrap(), 0);
    assert_eq!(balanced(&t, 0).await.held, 700, "the other webhook's");

    let mut change = t.store.change().await.unwrap();
    change.delete_webhook("wh_1", NOW).await.unwrap();
    change.commit().await.unwrap();
    assert_eq!(balanced(&t, 0).await.held, 200);
    assert_eq!(t.store.webhooks_to_release().await.unwrap(), [("wh_1".to_owned(), true)]);
    let mut change = t.store.change().await.unwrap();
    assert_eq!(change.release("wh_1", 10, NOW).await.unwrap(), 0, "nothing is sent");
    assert_eq!(change.end_held_of_deleted("wh_1", 1000, NOW).await.unwrap(), 200);
    change.commit().await.unwrap();
    let counts = balanced(&t, 0).await;
    assert_eq!((counts.cancelled, counts.pending), (1400, 0));
    assert!(outgoing(&t).await.is_empty() && t.store.webhooks_to_release().await.unwrap().is_empty());
}

#[tokio::test]
async fn cancellations_are_bounded_in_snapshots_and_forgotten_after_twelve_days() {
    let t = TestStore::new().await;
    make_webhook(&t, 0, "paused").await;
    record(&t, &[message("r", 0, vec![routed("e", 0..1), routed("f", 0..1), held("f", 0, 1, 10)])]).await;
    cancel(&t, &delivery("e", 0)).await.unwrap();
    let bulk = cancel_matching(&t, &filter(Some(0))).await.unwrap();
    cancel_matching(&t, &CancelFilter { held_only: true, ..filter(Some(0)) }).await.unwrap();

    let mut directory = Directory::new();
    let mut snapshot = t.store.snapshot(NOW).await.unwrap();
    let mark = |kind, revision| ConfigRecord::bare(&t.store.epoch(), revision, kind, "");
    directory.apply(&mark(ConfigKind::SnapshotBegin, snapshot.revision));
    let mut kinds = Vec::new();
    loop {
        let records = snapshot.next().await.unwrap();
        if records.is_empty() {
            break;
        }
        for record in records {
            kinds.push(record.kind);
            directory.apply(&record);
        }
    }
    directory.apply(&mark(ConfigKind::SnapshotEnd, snapshot.revision));
    drop(snapshot);
    assert_eq!(kinds.iter().filter(|kind| **kind == ConfigKind::Cancellation).count(), 2, "{kinds:?}");
    let event_type = EventType::parse("USER_CREATED").unwrap();
    let is = |directory: &Directory, event: &str, webhook| {
        let mut delivery = delivery_record(event, webhook);
        delivery.webhook = webhook_id(webhook);
        directory.is_cancelled(&TenantId::default_tenant(), &event_type, &delivery)
    };
    assert!(is(&directory, "e", 0) && is(&directory, "other", 0) && !is(&directory, "e", 1));

    assert!(!t.store.forget_cancellations(NOW.plus_ms(11 * 24 * 3_600_000)).await.unwrap());
    assert_eq!(t.rows("SELECT COUNT(*) FROM cancellations").await, 3);
    let before = told(&t).await.len();
    t.store.forget_cancellations(NOW.plus_ms(12 * 24 * 3_600_000 + 1)).await.unwrap();
    assert_eq!(t.rows("SELECT COUNT(*) FROM cancellations").await, 0);
    let gone = told(&t).await.split_off(before);
    assert_eq!(gone.len(), 2, "what workers were told of");
    assert!(gone.iter().any(|(record, what)| record.id == bulk.id && what.is_none()));
    gone.iter().for_each(|(record, _)| drop(directory.apply(record)));
    assert!(!is(&directory, "e", 0));

    let full = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {MAX_CANCELLATIONS})
         INSERT INTO cancellations (id, tenant, revision, delivery, series, webhook, event_type, born_since, born_before,
         pending, held, open, created_at) SELECT 'cnl_' || i, 'default', i, 'd' || i, 1, '', '', 0, 0, 1, 0, 0, {} FROM n",
        NOW.as_millis()
    );
    sqlx::query(sqlx::AssertSqlSafe(full)).execute(&t.store.writer).await.unwrap();
    assert_eq!(cancel(&t, &delivery("e", 0)).await, Err(NotCalledOff::TooMany));
    assert_eq!(cancel_matching(&t, &filter(None)).await, Err(NotCalledOff::TooMany));
}

/// A series that somebody asked for stays one while it is held.
#[tokio::test]
async fn what_was_asked_for_is_asked_for_also_after_it_was_held() {
    let t = TestStore::new().await;
    make_webhook(&t, 0, "paused").await;
    let facts = vec![routed("e", 0..1), routed("f", 0..1), done("e", 0, 1, End::Skipped, 0)];
    record(&t, &[message("w", 0, facts)]).await;
    assert_eq!(redeliver(&t, delivery("e", 0).as_str()).await, Ok(2));
    let mut again = held("e", 0, 1, 10);
    if let Fact::Held(held) = &mut again {
        held.series = 2;
    }
    record(&t, &[message("w", 3, vec![again, held("f", 0, 1, 11)])]).await;
    make_webhook(&t, 0, "active").await;
    assert_eq!(release(&t, 10).await, 2);
    let sent = outgoing(&t).await;
    let sent: Vec<_> = sent.iter().map(|it| (it.id == delivery("e", 0), it.series, it.asked)).collect();
    assert_eq!(sent, [(true, 2, true), (true, 2, true), (false, 1, false)]);
    balanced(&t, 2).await;
}

#[tokio::test]
async fn what_a_disabled_webhook_missed_is_counted_from_then_on() {
    let t = TestStore::new().await;
    make_webhook(&t, 0, "active").await;
    let skipped = |event: &str| {
        let Fact::Done(mut fact) = done(event, 0, 1, End::Skipped, 0) else { unreachable!() };
        fact.reason = "webhook_disabled".into();
        Fact::Done(fact)
    };
    record(&t, &[message("w", 0, vec![routed("e", 0..1), routed("f", 0..1), skipped("e"), skipped("f")])])
        .await;
    let mut change = t.store.change().await.unwrap();
    assert_eq!(change.count_skipped("wh_0", NOW).await.unwrap(), 2);
    assert_eq!(change.count_skipped("wh_0", NOW.plus_ms(1)).await.unwrap(), 0);
    assert_eq!(change.count_skipped("wh_1", NOW).await.unwrap(), 0);
}

/// The age of what is resumed counts from then on, for workers and so for what is called off by age.
#[tokio::test]
async fn what_was_resumed_began_when_it_was() {
    let t = TestStore::new().await;
    make_webhook(&t, 0, "paused").await;
    record(&t, &[message("w", 0, vec![routed("e", 0..1), held("e", 0, 1, 10)])]).await;
    make_webhook(&t, 0, "active").await;
    assert_eq!(release(&t, 10).await, 1);
    assert_eq!(outgoing(&t).await[0].born, NOW);
    let before = CancelFilter { before: NOW, ..filter(Some(0)) };
    let made = cancel_matching(&t, &before).await.unwrap();
    assert_eq!((made.pending, row(&t, &delivery("e", 0)).await.cancelling), (0, false));
    // It is held once more: as old as it was when it was resumed.
    record(&t, &[message("w", 2, vec![held("e", 0, 1, 20)])]).await;
    assert!(row(&t, &delivery("e", 0)).await.held);
    let all = CancelFilter { before: NOW.plus_ms(1), ..filter(Some(0)) };
    assert_eq!(cancel_matching(&t, &all).await.unwrap().held, 1);
    assert_eq!(balanced(&t, 0).await.cancelled, 1);
}

/// What can be called off is looked for among what is pending, or held: not among everything that there ever was.
#[tokio::test]
async fn what_is_called_off_is_found_by_an_index() {
    let t = TestStore::new().await;
    let plan = async |sql: &str| -> String {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}")));
        let rows = rows.fetch_all(&t.store.readers).await.unwrap();
        rows.iter().map(|row| sqlx::Row::get::<String, _>(row, "detail")).collect::<Vec<_>>().join("; ")
    };
    for webhook in [None, Some(1)] {
        for event_type in [None, EventType::parse("A").ok()] {
            for held_only in [false, true] {
                let filter = CancelFilter {
                    event_type: event_type.clone(),
                    held_only,
                    since: Some(at(0)),
                    ..filter(webhook)
                };
                for (query, held) in [(filter.count(), held_only), (filter.held(5), true)] {
                    let plan = plan(query.sql().as_str()).await;
                    let index = if held { "deliveries_held" } else { "deliveries_pending" };
                    assert!(plan.contains(index), "{filter:?}: {plan}");
                    assert!(!plan.contains("TEMP B-TREE") && !plan.contains("SCAN"), "{filter:?}: {plan}");
                }
            }
        }
    }
    let called_off = plan(&format!(
        "SELECT {CANCELLING} FROM deliveries d LEFT JOIN series s ON s.delivery = d.seq AND s.series = d.series WHERE d.id = 'a'"
    ))
    .await;
    assert!(
        called_off.contains("cancellations_of_delivery") && called_off.contains("cancellations_matching"),
        "{called_off}"
    );
    assert!(!called_off.contains("SCAN c"), "{called_off}");
    let skipped = plan(SKIPPED).await;
    assert!(skipped.contains("deliveries_skipped (webhook=? AND reason=? AND updated_at>?)"), "{skipped}");
}
