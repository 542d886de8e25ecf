//! The books under facts in any order, again and again, in pieces; and what happens when one is lost.

mod endings;
mod lists;

use std::sync::Arc;

use postrider_core::books::{Counts, End};
use postrider_core::health::Streak;
use postrider_core::wire::{
    AttemptFact, DeadMessage, DeliveryMessage, DeliveryRecord, DoneFact, EventFact, EventFate, EventRecord,
    Fact, HeldFact, JournalMessage, Owed, RequestTimes, SCHEMA, SecretRecord, WebhookRecord, decode,
};
use postrider_core::{DeliveryId, Epoch, EventId, EventType, TenantId, Timestamp, WebhookId, event};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::test_store::TestStore;
use super::*;
use sqlx::migrate::Migrator;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_100_000);

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + ms)
}

fn event_record(id: &str) -> Arc<EventRecord> {
    Arc::new(EventRecord {
        tenant: TenantId::default_tenant(),
        id: EventId::from_trusted(id),
        event_type: EventType::parse("USER_CREATED").unwrap(),
        time: "2026-11-21T20:00:00Z".into(),
        context: event::null(),
        data: Arc::from(serde_json::value::RawValue::from_string("{ \"n\" : 1.0 }".into()).unwrap()),
        key: None,
        correlation_id: None,
        traceparent: None,
        accepted_at: at(0),
    })
}

fn webhook_id(n: u32) -> WebhookId {
    WebhookId::from_trusted(format!("wh_{n}"))
}

fn delivery(event: &str, webhook: u32) -> DeliveryId {
    DeliveryId::of(&TenantId::default_tenant(), &EventId::from_trusted(event), &webhook_id(webhook))
}

fn event_fact(id: &str, fate: EventFate) -> Fact {
    let event = (!matches!(fate, EventFate::Invalid { .. })).then(|| event_record(id));
    let tenant = TenantId::default_tenant();
    Fact::Event(EventFact {
        tenant,
        event_id: EventId::from_trusted(id),
        at: at(0),
        fate,
        event,
        marks: Vec::new(),
    })
}

fn routed(id: &str, webhooks: std::ops::Range<u32>) -> Fact {
    let owed = webhooks.map(|n| Owed { delivery: delivery(id, n), webhook: webhook_id(n) });
    event_fact(id, EventFate::Routed(owed.collect()))
}

fn attempt(id: &str, webhook: u32, n: u32, class: &str) -> Fact {
    Fact::Attempt(AttemptFact {
        delivery: delivery(id, webhook),
        series: 1,
        n,
        webhook: webhook_id(webhook),
        at: at(i64::from(n) * 1000),
        duration_ms: 5,
        url: "https://example.com/".into(),
        class: class.to_owned().into(),
        status: Some(200),
        error: None,
        response_body: Some("ok".into()),
        response_headers: vec![("x-a".into(), "b".into())],
        next_at: None,
        worker: "worker-1".into(),
        repeats: 0,
        times: RequestTimes { dns_ms: None, connect_ms: Some(2), first_byte_ms: Some(4) },
        remote: Some([192, 0, 2, 7].into()),
    })
}

fn done(id: &str, webhook: u32, series: u32, end: End, attempts: u32) -> Fact {
    Fact::Done(DoneFact {
        delivery: delivery(id, webhook),
        series,
        webhook: webhook_id(webhook),
        end,
        reason: if end == End::Delivered { String::new() } else { "exhausted".into() },
        attempts,
        at: at(60_000),
        repeats: 0,
    })
}

fn held(id: &str, webhook: u32, attempt: u32, when: i64) -> Fact {
    let (delivery, webhook) = (delivery(id, webhook), webhook_id(webhook));
    Fact::Held(HeldFact { delivery, series: 1, webhook, attempt, at: at(when), repeats: 0 })
}

fn delivery_record(id: &str, webhook: u32) -> DeliveryRecord {
    DeliveryRecord {
        id: delivery(id, webhook),
        webhook: webhook_id(webhook),
        revision: 2,
        epoch: Epoch::from_trusted("ep_1"),
        series: 1,
        attempt: 2,
        born: at(0),
        due: None,
        crashes: 0,
        unknown_since: None,
        parked: 0,
        asked: false,
        test: false,
    }
}

fn dead(id: &str, webhook: u32) -> Entry {
    Entry::Dead(DeadMessage {
        schema: SCHEMA,
        event: event_record(id),
        delivery: delivery_record(id, webhook),
        reason: "exhausted".into(),
        class: "http_5xx".into(),
        at: at(60_000),
    })
}

fn message(writer: &str, first: u64, facts: Vec<Fact>) -> Entry {
    Entry::Journal(JournalMessage { schema: SCHEMA, writer: writer.into(), first, duplicates: 0, facts })
}

/// Facts of one writer in messages of up to `size` facts.
fn messages(writer: &str, facts: Vec<Fact>, size: usize) -> Vec<Entry> {
    let mut first = 0;
    facts
        .chunks(size)
        .map(|chunk| {
            let entry = message(writer, first, chunk.to_vec());
            first += chunk.len() as u64;
            entry
        })
        .collect()
}

async fn record(t: &TestStore, entries: &[Entry]) -> Recorded {
    t.store.record(entries, NOW).await.unwrap()
}

async fn counts(t: &TestStore) -> Counts {
    let wrong: i64 = sqlx::query_scalar(books::WRONG_TALLIES).fetch_one(t.store.writer()).await.unwrap();
    assert_eq!(wrong, 0, "the tallies are those of the rows");
    // Everything unowed counts.
    t.store.books(NOW.plus_ms(1)).await.unwrap().counts
}

/// A history that balances: what the router and two workers would write.
fn history(events: u32) -> (Vec<Fact>, Vec<Fact>, Vec<Fact>, Vec<Entry>) {
    let (mut router, mut one, mut two, mut letters) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for n in 0..events {
        let id = format!("evt_{n}");
        match n % 5 {
            0 => router.push(event_fact(&id, EventFate::Unmatched)),
            1 => router.push(event_fact(
                &format!("invalid_{n}"),
                EventFate::Invalid { reason: "not_json".into(), detail: "d".into() },
            )),
            _ => {
                router.push(routed(&id, 0..4));
                one.extend([attempt(&id, 0, 1, "none"), done(&id, 0, 1, End::Delivered, 1)]);
                one.extend([attempt(&id, 1, 1, "http_5xx")]);
                two.extend([attempt(&id, 1, 2, "http_5xx"), done(&id, 1, 1, End::Dead, 2)]);
                letters.push(dead(&id, 1));
                two.extend([done(&id, 2, 1, End::Skipped, 0)]);
                if n % 2 == 0 {
                    two.extend([held(&id, 3, 1, 10)]);
                }
            }
        }
    }
    (router, one, two, letters)
}

#[tokio::test]
async fn facts_in_any_order_and_repeated_give_the_same_counts() {
    let (router, one, two, letters) = history(20);
    for round in 0..8u64 {
        let seed = rand::random::<u64>();
        println!("round {round}, seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let mut entries = letters.clone();
        for (writer, facts) in [("router-1", &router), ("worker-1", &one), ("worker-2", &two)] {
            entries.extend(messages(writer, facts.clone(), rng.random_range(1..6)));
        }
        for _ in 0..entries.len() / 2 {
            let again = entries[rng.random_range(0..entries.len())].clone();
            entries.push(again);
        }
        entries.shuffle(&mut rng);
        let mut t = TestStore::new().await;
        while !entries.is_empty() {
            let size = rng.random_range(1..=entries.len());
            record(&t, &entries.drain(..size).collect::<Vec<_>>()).await;
            if rng.random_bool(0.2) {
                t = t.reopen().await;
            }
        }
        let counts = counts(&t).await;
        let expected = Counts {
            accepted: 20,
            routed: 12,
            unmatched: 4,
            invalid: 4,
            owed: 48,
            delivered: 12,
            dead: 12,
            cancelled: 0,
            skipped: 12,
            pending: 12,
            held: 6,
            missing_facts: 0,
            unowed: 0,
            missing_attempts: 0,
        };
        assert_eq!(counts, expected, "seed {seed}");
        assert_eq!(counts.drift(Some(6)).total(), 0, "seed {seed}");
        assert_eq!(t.store.books(NOW).await.unwrap().dead_unresolved, 12, "seed {seed}");
        let event = t.store.event("default", "evt_2").await.unwrap().unwrap();
        assert_eq!(event.body.unwrap().data.get(), "{ \"n\" : 1.0 }", "byte for byte");
        assert_eq!(event.deliveries.len(), 4);
        let detail = t.store.delivery("default", delivery("evt_2", 1).as_str()).await.unwrap().unwrap();
        assert_eq!((detail.row.state.as_str(), detail.row.attempts, detail.row.series), ("dead", 2, 1));
        assert_eq!(detail.series[0].attempts.iter().map(|a| a.n).collect::<Vec<_>>(), [1, 2]);
    }
}

/// Every loss shows: this is what the books are for.
#[tokio::test]
async fn a_lost_fact_shows_as_drift() {
    let (router, one, two, _) = history(10);
    let facts = [("router-1", router), ("worker-1", one), ("worker-2", two)];

    // A message of the journal is lost: the numbers of its writer have a gap.
    let t = TestStore::new().await;
    for (writer, facts) in &facts {
        let mut entries = messages(writer, facts.clone(), 2);
        entries.remove(entries.len() / 2);
        record(&t, &entries).await;
    }
    assert_eq!(counts(&t).await.missing_facts, 6);

    // A fact is never written, so no number is missing: the other side of the books tells.
    type Lost = fn(&Fact) -> bool;
    type Part = fn(&postrider_core::books::Drift) -> u64;
    let losses: [(&str, Lost, Part); 3] = [
        (
            "event",
            |fact| matches!(fact, Fact::Event(event) if event.event_id.as_str() == "evt_3"),
            |d| d.unowed,
        ),
        ("attempt", |fact| matches!(fact, Fact::Attempt(attempt) if attempt.n == 2), |d| d.missing_attempts),
        ("done", |fact| matches!(fact, Fact::Done(done) if done.end == End::Dead), |d| d.at_rest),
    ];
    for (name, lost, part) in losses {
        let t = TestStore::new().await;
        for (writer, facts) in &facts {
            let at = facts.iter().position(lost);
            let mut facts = facts.clone();
            if let Some(at) = at {
                facts.remove(at);
            }
            record(&t, &messages(writer, facts, 3)).await;
        }
        let drift = counts(&t).await.drift(Some(3));
        assert!(part(&drift) > 0, "{name}: {drift:?}");
    }

    // A row is lost: the sums differ.
    for sql in [
        "DELETE FROM series WHERE delivery IN (SELECT delivery FROM series LIMIT 1)",
        "UPDATE series SET state = 'moon' WHERE delivery IN (SELECT delivery FROM series LIMIT 1)",
        "UPDATE events SET fate = 'moon' WHERE seq = 1",
    ] {
        let t = TestStore::new().await;
        for (writer, facts) in &facts {
            record(&t, &messages(writer, facts.clone(), 3)).await;
        }
        assert_eq!(counts(&t).await.drift(None).total(), 0);
        t.execute(sql).await;
        assert!(counts(&t).await.drift(None).total() > 0, "{sql}");
    }
}

/// The request of an attempt that was made at another time, by another worker, of a message that had been handed out before.
fn copy(id: &str, webhook: u32, n: u32, when: i64, repeats: u32) -> Fact {
    let Fact::Attempt(fact) = attempt(id, webhook, n, "reset") else { unreachable!("it is an attempt") };
    Fact::Attempt(AttemptFact { at: at(when), worker: "worker-2".into(), repeats, ..fact })
}

#[tokio::test]
async fn every_request_has_its_row_and_numbers_are_counted_once() {
    let facts = [
        routed("e", 0..1),
        attempt("e", 0, 1, "http_5xx"),
        copy("e", 0, 1, 1_000, 1),
        copy("e", 0, 1, 1_300, 0),
        attempt("e", 0, 2, "http_5xx"),
        held("e", 0, 3, 2_500),
        copy("e", 0, 3, 9_000, 2),
        done("e", 0, 1, End::Dead, 3),
    ];
    for reversed in [false, true] {
        let t = TestStore::new().await;
        let mut facts = facts.to_vec();
        if reversed {
            facts.reverse();
        }
        for message in messages("w", facts.clone(), 3) {
            record(&t, &[message]).await;
        }
        let again = record(&t, &messages("w", facts, 50)).await;
        assert_eq!(again.repeated, 8, "nothing is written twice");
        assert_eq!(counts(&t).await.drift(None).total(), 0, "reversed: {reversed}");
        let detail = t.store.delivery("default", delivery("e", 0).as_str()).await.unwrap().unwrap();
        let request = &detail.series[0].attempts[0];
        assert_eq!((request.times.connect_ms, request.times.first_byte_ms), (Some(2), Some(4)));
        assert_eq!(request.remote.as_deref(), Some("192.0.2.7"));
        let series = &detail.series[0];
        let rows: Vec<_> =
            series.attempts.iter().map(|row| (row.at.as_millis() - at(0).as_millis(), row.n)).collect();
        assert_eq!(rows, [(1_000, 1), (1_000, 1), (1_300, 1), (2_000, 2), (9_000, 3)], "in order of time");
        assert_eq!(series.attempts.iter().map(|row| row.repeats).sum::<u32>(), 3);
        assert_eq!((series.repeats, detail.row.attempts), (3, 3));
        assert_eq!((detail.row.last_class.as_str(), detail.row.last_at), ("reset", Some(at(9_000))));
    }
}

#[tokio::test]
async fn copies_do_not_hide_an_attempt_that_is_missing() {
    let t = TestStore::new().await;
    let facts = vec![
        routed("e", 0..1),
        attempt("e", 0, 1, "http_5xx"),
        copy("e", 0, 1, 1_500, 1),
        copy("e", 0, 1, 1_700, 1),
        done("e", 0, 1, End::Delivered, 2),
    ];
    record(&t, &messages("w", facts, 50)).await;
    assert_eq!(counts(&t).await.drift(None).total(), 1, "attempt 2 never arrived");
    record(&t, &[message("w", 5, vec![copy("e", 0, 2, 3_000, 0)])]).await;
    assert_eq!(counts(&t).await.drift(None).total(), 0);
}

#[tokio::test]
async fn repeats_are_told_also_where_no_attempt_follows() {
    let t = TestStore::new().await;
    let Fact::Held(waits) = held("e", 0, 1, 500) else { unreachable!("it is held") };
    let Fact::Done(ends) = done("e", 0, 1, End::Skipped, 0) else { unreachable!("it is done") };
    let facts = vec![
        routed("e", 0..1),
        Fact::Held(HeldFact { repeats: 2, ..waits }),
        Fact::Done(DoneFact { repeats: 1, ..ends }),
    ];
    record(&t, &messages("w", facts.clone(), 50)).await;
    record(&t, &messages("w", facts, 50)).await;
    let detail = t.store.delivery("default", delivery("e", 0).as_str()).await.unwrap().unwrap();
    assert_eq!((detail.series[0].repeats, detail.series[0].attempts.len()), (3, 0));
}

#[tokio::test]
async fn the_first_end_wins_and_later_ones_are_counted() {
    let t = TestStore::new().await;
    record(&t, &[message("r", 0, vec![routed("e", 0..1)])]).await;
    record(&t, &[message("w", 0, vec![done("e", 0, 1, End::Delivered, 0)])]).await;
    let late = record(&t, &[message("w", 1, vec![done("e", 0, 1, End::Dead, 0)])]).await;
    assert_eq!((late.late, late.repeated), (1, 0));
    let again = record(&t, &[message("w", 0, vec![done("e", 0, 1, End::Delivered, 0)])]).await;
    assert_eq!((again.late, again.repeated, again.repeated_messages), (0, 1, 1));
    let counts = counts(&t).await;
    assert_eq!((counts.delivered, counts.dead, counts.owed), (1, 0, 1));
    assert_eq!(counts.drift(Some(0)).total(), 0);
}

#[tokio::test]
async fn an_event_routed_by_two_routers_owes_what_either_says() {
    let t = TestStore::new().await;
    record(&t, &[message("r1", 0, vec![routed("e", 0..2)])]).await;
    // The first router died after its facts; meanwhile there is one webhook more, and one less.
    record(&t, &[message("r2", 0, vec![routed("e", 1..3)])]).await;
    let now = counts(&t).await;
    assert_eq!((now.accepted, now.owed, now.pending), (1, 3, 3));
    record(&t, &[message("r3", 0, vec![event_fact("e", EventFate::Unmatched)])]).await;
    assert_eq!(counts(&t).await, now);
}

#[tokio::test]
async fn writers_with_gaps_are_known_over_restarts() {
    let mut t = TestStore::new().await;
    let fact = |n: u32| event_fact(&format!("e{n}"), EventFate::Unmatched);
    record(&t, &[message("w", 4, vec![fact(4), fact(5)])]).await;
    assert_eq!(counts(&t).await.missing_facts, 4, "nothing before it has come");
    record(&t, &[message("w", 0, vec![fact(0)]), message("w", 9, vec![fact(9)])]).await;
    assert_eq!(counts(&t).await.missing_facts, 3 + 3);
    t = t.reopen().await;
    let repeated = record(&t, &[message("w", 4, vec![fact(4), fact(5)])]).await;
    assert_eq!(repeated.repeated_messages, 1);
    record(&t, &[message("w", 1, vec![fact(1), fact(2), fact(3)]), message("w", 6, vec![fact(6), fact(7)])])
        .await;
    assert_eq!(counts(&t).await.missing_facts, 1);
    record(&t, &[message("w", 8, vec![fact(8)])]).await;
    assert_eq!(counts(&t).await.missing_facts, 0);
    assert_eq!(t.rows("SELECT COUNT(*) FROM writers").await, 1, "merged into one range");
}

#[tokio::test]
async fn duplicates_are_counted_up_by_each_writer() {
    let t = TestStore::new().await;
    let met = |writer: &str, duplicates| {
        let (schema, writer) = (SCHEMA, writer.to_owned());
        Entry::Journal(JournalMessage { schema, writer, first: 0, duplicates, facts: Vec::new() })
    };
    record(&t, &[met("r1", 3), met("r2", 1)]).await;
    record(&t, &[met("r1", 7), met("r1", 5)]).await;
    record(&t, &[met("r1", 3)]).await;
    assert_eq!(t.store.books(NOW).await.unwrap().duplicates, 8);
}

#[tokio::test]
async fn a_batch_that_fails_leaves_nothing_behind() {
    let t = TestStore::new().await;
    record(&t, &[message("r", 0, vec![routed("e", 0..1)])]).await;
    // The last table that a batch writes is out of order: as if the disk were full in the middle.
    t.execute("ALTER TABLE writers RENAME TO gone").await;
    let batch = [message("r", 1, vec![routed("f", 0..2)]), message("w", 0, vec![attempt("f", 0, 1, "none")])];
    assert!(t.store.record(&batch, NOW).await.is_err());
    t.execute("ALTER TABLE gone RENAME TO writers").await;
    let before = counts(&t).await;
    assert_eq!((before.accepted, before.owed, before.missing_facts), (1, 1, 0));
    // Not acked, so it comes again.
    record(&t, &batch).await;
    assert_eq!((counts(&t).await.accepted, counts(&t).await.owed), (2, 3));
}

#[tokio::test]
async fn a_transaction_that_sqlite_ended_by_itself_does_not_stop_the_store() {
    let t = TestStore::new().await;
    let mut change = t.store.change().await.unwrap();
    // What SQLite does when the disk is full or fails.
    sqlx::query("ROLLBACK").execute(&mut *change.tx).await.unwrap();
    drop(change);
    record(&t, &[message("r", 0, vec![routed("e", 0..1)])]).await;
    assert_eq!(counts(&t).await.accepted, 1);
}

#[tokio::test]
async fn poison_closes_its_deliveries_and_is_kept_once() {
    let t = TestStore::new().await;
    record(&t, &[message("r", 0, vec![routed("e", 0..2)])]).await;
    let work = postrider_core::wire::Work {
        event: event_record("e"),
        to: vec![delivery_record("e", 0), delivery_record("e", 1)],
    };
    let poison = |when| Entry::Poison {
        message: DeliveryMessage { schema: SCHEMA, work: vec![work.clone()] },
        detail: "5 crashes".into(),
        at: when,
    };
    record(&t, &[poison(at(1))]).await;
    let again = record(&t, &[poison(at(2))]).await;
    assert_eq!((again.late, again.repeated), (0, 4));
    let books = t.store.books(NOW).await.unwrap();
    assert_eq!((books.counts.dead, books.counts.pending, books.dead_unresolved), (2, 0, 2));
    assert_eq!(books.counts.drift(Some(0)).total(), 0);
    let letters = t.store.dead_letters(&letters_of("default"), None, 10).await.unwrap().rows;
    assert_eq!(
        letters.iter().map(|l| (l.kind.as_str(), l.reason.as_str())).collect::<Vec<_>>(),
        [("poison", "poison"); 2]
    );
}

fn letters_of(tenant: &str) -> DeadLetterFilter {
    DeadLetterFilter { tenant: tenant.into(), ..DeadLetterFilter::default() }
}

async fn make_webhook(t: &TestStore, n: u32, state: &str) -> WebhookRow {
    let record = WebhookRecord {
        all: true,
        secrets: vec![SecretRecord::current("s1.x".into())],
        timeout_ms: Some(1000),
        state: state.into(),
        ..WebhookRecord::new(webhook_id(n), TenantId::default_tenant(), "https://example.com/")
    };
    let mut change = t.store.change().await.unwrap();
    let row = change.put_webhook(&record, "whsec_…x", NOW).await.unwrap();
    change.commit().await.unwrap();
    row
}

/// The deliveries that wait in the outbox.
async fn outgoing(t: &TestStore) -> Vec<DeliveryRecord> {
    // None is sent before the configuration that was changed before it.
    t.store.mark_sent(OutboxKind::Config, i64::MAX, NOW).await.unwrap();
    let rows = t.store.unsent(OutboxLane::Deliveries, 100).await.unwrap();
    let deliveries = rows.iter().filter(|row| row.kind == OutboxKind::Delivery);
    deliveries
        .map(|row| {
            let message: DeliveryMessage = decode(&row.body).unwrap();
            assert_eq!(row.webhook, message.work[0].to[0].webhook.as_str());
            message.work[0].to[0].clone()
        })
        .collect()
}

async fn redeliver(t: &TestStore, id: &str) -> Result<u32, RedeliverRefused> {
    let mut change = t.store.change().await.unwrap();
    let made = change.redeliver("default", id, NOW).await.unwrap();
    change.commit().await.unwrap();
    made.map(|made| made.series)
}

#[tokio::test]
async fn a_redelivery_is_a_new_series_that_is_owed() {
    let t = TestStore::new().await;
    let revision = make_webhook(&t, 1, "active").await.revision;
    let id = delivery("evt_2", 1);
    assert_eq!(redeliver(&t, id.as_str()).await, Err(RedeliverRefused::Unknown));
    let mut first = attempt("evt_2", 1, 1, "http_5xx");
    if let Fact::Attempt(attempt) = &mut first {
        attempt.next_at = Some(at(99_000));
    }
    record(&t, &[message("r", 0, vec![routed("evt_2", 0..2)]), message("w", 0, vec![first])]).await;
    let refused = redeliver(&t, id.as_str()).await.unwrap_err();
    assert_eq!(
        refused,
        RedeliverRefused::NotFinal { next_at: Some(at(99_000)), held: false, cancelling: false }
    );

    record(&t, &[message("w", 1, vec![done("evt_2", 1, 1, End::Dead, 1)]), dead("evt_2", 1)]).await;
    assert_eq!(redeliver(&t, id.as_str()).await, Ok(2));
    assert!(
        matches!(redeliver(&t, id.as_str()).await, Err(RedeliverRefused::NotFinal { .. })),
        "it is under way again"
    );
    let sent = outgoing(&t).await;
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].series, sent[0].attempt, sent[0].revision, sent[0].asked), (2, 1, revision, true));
    assert_eq!(sent[0].epoch, t.store.epoch());
    let books = t.store.books(NOW).await.unwrap();
    assert_eq!((books.counts.owed, books.counts.dead, books.counts.pending), (3, 1, 2));
    assert_eq!((books.counts.drift(None).total(), books.dead_unresolved, books.unsent_deliveries), (0, 1, 1));

    record(&t, &[message("w", 2, vec![done("evt_2", 1, 2, End::Delivered, 0)])]).await;
    let books = t.store.books(NOW).await.unwrap();
    assert_eq!(
        (books.counts.delivered, books.dead_unresolved),
        (1, 0),
        "the letter is resolved by the delivery"
    );
    let letter = &t.store.dead_letters(&letters_of("default"), None, 10).await.unwrap().rows[0];
    assert_eq!(letter.resolution, "delivered");

    t.execute("DELETE FROM bodies").await;
    assert_eq!(redeliver(&t, id.as_str()).await, Err(RedeliverRefused::BodyGone));
    let mut change = t.store.change().await.unwrap();
    change.delete_webhook("wh_1", NOW).await.unwrap();
    change.commit().await.unwrap();
    assert_eq!(redeliver(&t, id.as_str()).await, Err(RedeliverRefused::WebhookDeleted));
}

/// A dead letter that comes after the delivery of a later series is resolved when it comes.
#[tokio::test]
async fn letters_and_deliveries_may_cross() {
    let t = TestStore::new().await;
    record(&t, &[message("r", 0, vec![routed("e", 0..1)])]).await;
    record(&t, &[message("w", 0, vec![done("e", 0, 1, End::Dead, 0), done("e", 0, 2, End::Delivered, 0)])])
        .await;
    record(&t, &[dead("e", 0)]).await;
    assert_eq!(t.store.books(NOW).await.unwrap().dead_unresolved, 0);
}

async fn release(t: &TestStore, limit: u32) -> u64 {
    let mut change = t.store.change().await.unwrap();
    let released = change.release("wh_0", limit, NOW).await.unwrap();
    change.commit().await.unwrap();
    released
}

#[tokio::test]
async fn what_is_held_is_released_oldest_first_when_its_webhook_is_not_paused() {
    let t = TestStore::new().await;
    make_webhook(&t, 0, "paused").await;
    let mut facts = Vec::new();
    for n in 0..5 {
        facts.extend([routed(&format!("e{n}"), 0..1), attempt(&format!("e{n}"), 0, 1, "timeout")]);
        facts.push(held(&format!("e{n}"), 0, 2, 5000 + n));
    }
    record(&t, &[message("w", 0, facts)]).await;
    assert_eq!(counts(&t).await.held, 5);
    assert!(t.store.webhooks_to_release().await.unwrap().is_empty());
    assert_eq!(release(&t, 10).await, 0, "still paused");

    let revision = make_webhook(&t, 0, "active").await.revision;
    assert_eq!(t.store.webhooks_to_release().await.unwrap(), [("wh_0".to_owned(), false)]);
    assert_eq!(release(&t, 2).await, 2);
    assert_eq!(release(&t, 10).await, 3);
    let sent = outgoing(&t).await;
    let expected: Vec<_> = (0..5).map(|n| delivery(&format!("e{n}"), 0)).collect();
    assert_eq!(sent.iter().map(|d| d.id.clone()).collect::<Vec<_>>(), expected);
    assert!(
        sent.iter().all(|d| (d.series, d.attempt, d.revision, d.born) == (1, 2, revision, NOW)),
        "{sent:?}"
    );
    let now = counts(&t).await;
    assert_eq!((now.held, now.pending), (0, 5));
    assert_eq!(now.drift(Some(5)).total(), 0);

    // The same fact again does not hold it again; another hold at the same attempt does.
    record(&t, &[message("w", 100, vec![held("e0", 0, 2, 5000)])]).await;
    assert_eq!(counts(&t).await.held, 0);
    record(&t, &[message("w", 101, vec![held("e0", 0, 2, 9000)])]).await;
    assert_eq!(counts(&t).await.held, 1);
    // Without a body nothing can be sent on.
    t.execute("DELETE FROM bodies").await;
    assert_eq!(release(&t, 10).await, 1);
    let now = counts(&t).await;
    assert_eq!((now.held, now.dead, now.pending), (0, 1, 4));
    let letters = t.store.dead_letters(&letters_of("default"), None, 10).await.unwrap().rows;
    let shown: Vec<_> = letters.iter().map(|row| (row.delivery.as_str(), row.reason.as_str())).collect();
    assert_eq!(shown, [(delivery("e0", 0).as_str(), "body_gone")]);
}

#[tokio::test]
async fn the_outbox_is_in_order_and_the_snapshot_is_whole() {
    let t = TestStore::new().await;
    let mut change = t.store.change().await.unwrap();
    change.create_tenant(&TenantId::parse("acme").unwrap(), NOW).await.unwrap().unwrap();
    change.commit().await.unwrap();
    make_webhook(&t, 1, "active").await;
    make_webhook(&t, 2, "paused").await;
    let mut change = t.store.change().await.unwrap();
    change.delete_webhook("wh_1", NOW).await.unwrap();
    change.commit().await.unwrap();
    // A change that is not committed is told to nobody.
    let mut change = t.store.change().await.unwrap();
    change.delete_webhook("wh_2", NOW).await.unwrap();
    drop(change);

    let rows = t.store.unsent(OutboxLane::Configuration, 10).await.unwrap();
    let revisions: Vec<u64> = rows
        .iter()
        .map(|row| serde_json::from_slice::<postrider_core::wire::ConfigRecord>(&row.body).unwrap().revision)
        .collect();
    assert_eq!(revisions, [2, 3, 4, 5]);
    t.store.mark_sent(OutboxKind::Config, rows[2].seq, NOW).await.unwrap();
    assert_eq!(t.store.count_unsent().await.unwrap(), 1);

    let mut directory = postrider_core::directory::Directory::new();
    let mut snapshot = t.store.snapshot(NOW).await.unwrap();
    let mark = |kind| postrider_core::wire::ConfigRecord::bare(&t.store.epoch(), 5, kind, "");
    directory.apply(&mark(postrider_core::wire::ConfigKind::SnapshotBegin));
    loop {
        let records = snapshot.next().await.unwrap();
        if records.is_empty() {
            break;
        }
        for record in records {
            directory.apply(&record);
        }
    }
    assert_eq!(snapshot.revision, 5);
    drop(snapshot);
    directory.apply(&mark(postrider_core::wire::ConfigKind::SnapshotEnd));
    assert!(directory.is_complete() && directory.revision() == 5);
    assert!(
        directory.has_tenant(&TenantId::default_tenant())
            && directory.has_tenant(&TenantId::parse("acme").unwrap())
    );
    assert!(matches!(directory.webhook(&webhook_id(1)), postrider_core::directory::Lookup::Deleted));
    assert!(matches!(directory.webhook(&webhook_id(2)), postrider_core::directory::Lookup::Known(_)));
    // Deleted things are forgotten when no delivery can be on its way any more.
    let later = NOW.plus_ms(13 * 24 * 3600 * 1000);
    let mut snapshot = t.store.snapshot(later).await.unwrap();
    let mut ids = Vec::new();
    loop {
        let records = snapshot.next().await.unwrap();
        if records.is_empty() {
            break;
        }
        ids.extend(records.into_iter().map(|record| record.id));
    }
    assert_eq!(ids, ["acme", "default", "wh_2"]);
}

#[tokio::test]
async fn events_wait_for_the_configuration_before_them_and_hold_up_nothing() {
    let t = TestStore::new().await;
    let event = |id: &str| NewEvent {
        event_type: EventType::parse("WEBHOOK_CREATED").unwrap(),
        event_time: "2026-11-21T20:00:00Z".into(),
        current_context: event::null(),
        data: event::null(),
        id: EventId::from_trusted(id),
        key: None,
        correlation_id: None,
    };
    let tenant = TenantId::default_tenant();
    let mut change = t.store.change().await.unwrap();
    change.publish_event(&tenant, &event("a"), Audience::All, NOW).await.unwrap();
    change.create_tenant(&TenantId::parse("acme").unwrap(), NOW).await.unwrap().unwrap();
    change.publish_event(&tenant, &event("b"), Audience::Only(&webhook_id(7)), NOW).await.unwrap();
    change.commit().await.unwrap();

    let ids = async |lane| -> Vec<String> {
        let rows = t.store.unsent(lane, 10).await.unwrap();
        rows.into_iter().map(|row| row.message_id).collect()
    };
    assert_eq!(ids(OutboxLane::Events).await, ["a"], "b is routed by what is not told yet");
    let config = t.store.unsent(OutboxLane::Configuration, 10).await.unwrap();
    assert_eq!(config.len(), 1);
    t.store.mark_sent(OutboxKind::Config, config[0].seq, NOW).await.unwrap();
    let events = t.store.unsent(OutboxLane::Events, 10).await.unwrap();
    let told: Vec<_> = events.iter().map(|row| (row.webhook.as_str(), row.revision)).collect();
    assert_eq!(told, [("", 1), ("wh_7", 2)]);
    assert_eq!(events[1].tenant, "default");
    let body: serde_json::Value = serde_json::from_slice(&events[0].body).unwrap();
    let expected = serde_json::json!({ "event_type": "WEBHOOK_CREATED", "event_time": "2026-11-21T20:00:00Z",
        "current_context": null, "data": null, "id": "a" });
    assert_eq!(body, expected);
    t.store.mark_sent(OutboxKind::Event, events[0].seq, NOW).await.unwrap();
    assert_eq!(ids(OutboxLane::Events).await, ["b"]);
}

#[tokio::test]
async fn old_rows_are_removed_and_others_are_not() {
    let t = TestStore::new().await;
    make_webhook(&t, 1, "active").await;
    make_webhook(&t, 2, "active").await;
    let rows = t.store.unsent(OutboxLane::Configuration, 10).await.unwrap();
    t.store.mark_sent(OutboxKind::Config, rows[0].seq, NOW).await.unwrap();
    let kept = KeptAnswer { request: "r".into(), answer: "a".into() };
    let mut change = t.store.change().await.unwrap();
    assert!(change.keep_answer("k", &kept, NOW).await.unwrap());
    assert!(!change.keep_answer("k", &kept, NOW).await.unwrap(), "the first one stays");
    change.commit().await.unwrap();
    t.store.prune(NOW).await.unwrap();
    assert_eq!(t.rows("SELECT COUNT(*) FROM outbox").await, 2);
    assert_eq!(t.store.kept_answer("k", NOW).await.unwrap(), Some(kept.clone()));
    let tomorrow = NOW.plus_ms(24 * 3600 * 1000 + 1);
    assert_eq!(t.store.kept_answer("k", tomorrow).await.unwrap(), None);
    assert!(!t.store.prune(tomorrow).await.unwrap());
    assert_eq!(t.rows("SELECT COUNT(*) FROM outbox").await, 1, "what is not sent stays");
    assert_eq!(t.rows("SELECT COUNT(*) FROM idempotency").await, 0);
}

/// The audit log is kept for 90 days, and for as long a key that opens nothing any more.
#[tokio::test]
async fn the_audit_log_and_old_keys_are_kept_for_ninety_days() {
    let t = TestStore::new().await;
    let (mut entry, mut ids) = (audit_entry("default", "wh_1"), Vec::new());
    let mut change = t.store.change().await.unwrap();
    for n in 0..3 {
        let new = NewKeyRow {
            id: format!("key_{n}"),
            hash: crate::keys::KeyHash::of(&n.to_string()),
            tenant: Some(TenantId::default_tenant()),
            name: "n".into(),
            scopes: std::iter::once(crate::keys::KeyScope::Read).collect(),
            hint: "abcd".into(),
            expires_at: (n == 1).then(|| NOW.plus_ms(5)),
        };
        ids.push(change.make_key(&new, NOW).await.unwrap().unwrap().id);
    }
    assert!(change.revoke_key("key_0", NOW).await.unwrap().unwrap().revoked_at.is_none());
    assert_eq!(change.revoke_key("key_0", NOW.plus_ms(9)).await.unwrap().unwrap().revoked_at, Some(NOW));
    change.note(&entry, NOW).await.unwrap();
    entry.operation = "later";
    change.note(&entry, NOW.plus_ms(10)).await.unwrap();
    change.commit().await.unwrap();
    // A change that is not committed was never made, and nobody made it.
    let mut change = t.store.change().await.unwrap();
    change.note(&entry, NOW).await.unwrap();
    drop(change);
    let then = NOW.plus_ms(upkeep::AUDIT_MS);
    t.store.prune(then).await.unwrap();
    assert_eq!(t.rows("SELECT COUNT(*) FROM audit").await, 2);
    assert_eq!(t.rows("SELECT COUNT(*) FROM api_keys").await, 3);
    t.store.prune(then.plus_ms(6)).await.unwrap();
    assert_eq!(t.rows("SELECT COUNT(*) FROM audit WHERE operation = 'later'").await, 1);
    assert_eq!(t.rows("SELECT COUNT(*) FROM audit").await, 1);
    let left = t.store.keys(None, None, 9).await.unwrap();
    assert_eq!(left.iter().map(|key| &key.id).collect::<Vec<_>>(), [&ids[2]], "one that still opens stays");
}

fn audit_entry(tenant: &str, subject: &str) -> AuditEntry {
    AuditEntry {
        tenant: (!tenant.is_empty()).then(|| TenantId::parse(tenant).unwrap()),
        actor: "admin token".into(),
        actor_name: String::new(),
        operation: "update_webhook",
        subject_kind: "webhook",
        subject: subject.into(),
        changes: "{}".into(),
    }
}

#[tokio::test]
async fn lists_page_without_gaps_or_repeats() {
    let t = TestStore::new().await;
    let facts: Vec<Fact> = (0..25).map(|n| routed(&format!("e{n}"), 0..1)).collect();
    record(&t, &[message("r", 0, facts)]).await;
    let filter = DeliveryFilter { tenant: "default".into(), ..DeliveryFilter::default() };
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let found = t.store.deliveries(&filter, after, 10).await.unwrap();
        seen.extend(found.rows.iter().map(|row| row.event_id.clone()));
        after = found.next;
        if after.is_none() {
            break;
        }
        // Newer rows do not disturb.
        let n = seen.len() as u64;
        record(&t, &[message("r", 100 + n, vec![routed(&format!("new{n}"), 0..1)])]).await;
    }
    let expected: Vec<String> = (0..25).rev().map(|n| format!("e{n}")).collect();
    assert_eq!(seen, expected);
    let one = DeliveryFilter { event: Some("e7".into()), ..filter.clone() };
    assert_eq!(t.store.deliveries(&one, None, 10).await.unwrap().rows.len(), 1);
    let like = DeliveryFilter { event_type: Some("%".into()), ..filter };
    assert!(t.store.deliveries(&like, None, 10).await.unwrap().rows.is_empty(), "compared literally");
}

/// Lists walk an index backwards; none reads and sorts a whole tenant.
#[tokio::test]
async fn lists_are_read_by_an_index() {
    let t = TestStore::new().await;
    for list in [
        "SELECT seq FROM outbox WHERE sent_at IS NOT NULL AND sent_at < 9 LIMIT 5",
        outbox::CONFIGURATION_LANE,
        outbox::DELIVERY_LANE,
        outbox::EVENT_LANE,
        // What is due of a group, and a tenant's reminders by date.
        &format!(
            "{} WHERE r.state = 'pending' AND r.grp = 1 AND r.date <= 5 ORDER BY r.date, r.seq LIMIT 5",
            reminders::ROW
        ),
        &format!(
            "{} WHERE r.tenant = 'a' AND (r.date, r.seq) > (5, 5) ORDER BY r.date, r.seq LIMIT 5",
            reminders::ROW
        ),
        "SELECT MIN(r.date) FROM reminders r WHERE r.grp = 1 AND r.state = 'pending'",
        "SELECT COUNT(*) FROM subscriptions WHERE tenant = 'a' AND kind = 'type' AND name = 'n'",
        cancellations::LIST,
        cancellations::OPEN,
        cancellations::OLD,
        cancellations::SKIPPED,
        upkeep::OLD_AUDIT,
        upkeep::OLD_KEYS,
        "SELECT * FROM api_keys WHERE hash = x'00'",
        "SELECT * FROM api_keys WHERE seq < 9 AND tenant = 'a' ORDER BY seq DESC LIMIT 5",
        "SELECT * FROM api_keys WHERE seq < 9 ORDER BY seq DESC LIMIT 5",
        "SELECT COUNT(*) FROM api_keys WHERE tenant = 'a' AND revoked_at IS NULL",
        tenants::LIST,
    ] {
        let plan: Vec<String> = sqlx::query(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {list}")))
            .fetch_all(&t.store.readers)
            .await
            .unwrap()
            .iter()
            .map(|row| sqlx::Row::get(row, "detail"))
            .collect();
        let plan = plan.join("; ");
        // What is unsent, and what is open, is an index of its own, and read from its beginning.
        let own = ["outbox_unsent", "cancellations_open"]
            .iter()
            .any(|own| plan.contains(&format!("USING INDEX {own}")));
        let scans = plan.starts_with("SCAN") && !own;
        assert!(!plan.contains("TEMP B-TREE") && !scans, "{list}: {plan}");
    }
}

/// Who takes an event type, and a tenant's reminders of a type and state, are looked up by everything that is given: the
/// rest of the tenant's is not read.
#[tokio::test]
async fn what_is_asked_for_is_looked_up_by_all_of_it() {
    let t = TestStore::new().await;
    let takes = Takes {
        spellings: vec!["a".to_owned(), "b".to_owned()],
        group: Some("g".to_owned()),
        category: Some("c".to_owned()),
        all: true,
    };
    let mut query = sqlx::QueryBuilder::new("EXPLAIN QUERY PLAN ");
    takes.webhooks("t", &mut query);
    let rows = query.build().fetch_all(&t.store.readers).await.unwrap();
    let plan: Vec<String> = rows.iter().map(|row| sqlx::Row::get(row, "detail")).collect();
    let searches: Vec<_> = plan.iter().filter(|step| step.contains("subscriptions")).collect();
    assert_eq!(searches.len(), 4, "{plan:?}");
    let by_all = |step: &&String| step.contains("(tenant=? AND kind=? AND name=?)");
    assert!(searches.iter().all(by_all), "{plan:?}");

    for state in ReminderState::ALL {
        let list = format!(
            "EXPLAIN QUERY PLAN {}{} AND r.grp = 1 AND r.date <= 9 AND (r.date, r.seq) > (1, 2)
             ORDER BY r.date, r.seq LIMIT 5",
            reminders::ROW,
            reminders::of_state(state)
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(list)).fetch_all(&t.store.readers).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| sqlx::Row::get(row, "detail")).collect();
        let plan = plan.join("; ");
        let found = match state {
            ReminderState::Pending => "USING INDEX reminders_due (grp=? AND date>? AND date<?)",
            _ => "USING INDEX reminders_over (grp=? AND state=? AND date>? AND date<?)",
        };
        assert!(plan.contains(found) && !plan.contains("TEMP B-TREE"), "{state:?}: {plan}");
    }
}

/// Pages of reminders by type, state and time are those of all of them.
#[tokio::test]
async fn reminders_are_listed_in_pages_over_types_and_states() {
    let t = TestStore::new().await;
    let tenant = TenantId::default_tenant();
    let mut change = t.store.change().await.unwrap();
    let types = ["A", "B", "C"];
    let lead_days = types.iter().zip([0, 3, 9]).map(|(name, days)| ((*name).to_owned(), days)).collect();
    change.put_settings(&tenant, &Settings { lead_days, ..Settings::default() }, NOW).await.unwrap();
    let day = postrider_core::reminder::Day::parse("2023-12-01").unwrap();
    for n in 0..30 {
        let new = NewReminder {
            tenant: tenant.clone(),
            key: format!("k{n}"),
            event_type: EventType::parse(types[usize::try_from(n % 3).unwrap()]).unwrap(),
            date: ReminderDate::Day(day.plus(n * 7 % 11)),
            data: None,
            current_context: None,
        };
        change.put_reminder(&new, NOW).await.unwrap().unwrap();
        if n % 4 == 0 {
            change.cancel_reminder("default", &new.key, NOW).await.unwrap().unwrap();
        }
    }
    change.commit().await.unwrap();
    let groups = t.store.reminder_groups_of("default").await.unwrap();
    let due = |row: &ReminderRow| {
        groups.iter().find(|group| group.event_type == row.event_type).unwrap().rule.due(row.date)
    };
    let all = ReminderFilter { tenant: "default".to_owned(), ..ReminderFilter::default() };
    let rows = t.store.reminders(&all, &groups, None, 100).await.unwrap();
    assert_eq!(rows.len(), 30);
    assert!(rows.is_sorted_by_key(|row| (row.date.number(), row.seq)));
    let mut found = 0;
    for event_type in [None, Some("B"), Some("D")] {
        for state in [None, Some("pending"), Some("cancelled"), Some("sent")] {
            for due_before in [None, due(&rows[15])] {
                let event_type = event_type.map(str::to_owned);
                let filter = ReminderFilter { event_type, state, due_before, ..all.clone() };
                let wanted = rows.iter().filter(|row| {
                    filter.event_type.as_ref().is_none_or(|name| *name == row.event_type)
                        && state.is_none_or(|state| state == row.state.as_str())
                        && due_before.is_none_or(|before| due(row).unwrap() < before)
                });
                let wanted: Vec<i64> = wanted.map(|row| row.seq).collect();
                let (mut paged, mut after) = (Vec::new(), None);
                loop {
                    let page = t.store.reminders(&filter, &groups, after, 4).await.unwrap();
                    let Some(last) = page.last() else { break };
                    after = Some((last.date, last.seq));
                    paged.extend(page.iter().map(|row| row.seq));
                }
                assert_eq!(paged, wanted, "{filter:?}");
                found += wanted.len();
            }
        }
    }
    assert_eq!(found, 88, "most filters find some");
}

/// A store whose first migration was another is refused and left as it is.
#[tokio::test]
async fn a_store_of_an_unreleased_state_is_refused() {
    let t = TestStore::new().await;
    t.execute("UPDATE _sqlx_migrations SET checksum = x'00' WHERE version = 1").await;
    let TestStore { store, dir } = t;
    store.close().await;
    drop(store);
    let address = format!("sqlite:{}/state/postrider.db", dir.path().display());
    let refused = Store::open(&address, &test_store::key(1)).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unreleased), "{refused}");
}

/// What a store held that a release before this one wrote is there, and counted.
#[tokio::test]
async fn a_store_of_before_keeps_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("postrider.db");
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let before = SqlitePool::connect_with(options).await.unwrap();
    let known = schema::steps().into_iter().filter(|migration| migration.version < 8).collect();
    Migrator::with_migrations(known).run(&before).await.unwrap();
    for sql in [
        "INSERT INTO events VALUES (1, 'default', 'evt_1', 'A', '', 'routed', 3, '', '', '', 5),
         (2, 'default', 'evt_2', 'A', '', 'unmatched', 0, '', '', '', 6)",
        "INSERT INTO deliveries VALUES
         (7, 'd_b', 'wh_1', 'default', 1, 'evt_1', 'A', 2, 'delivered', 0, '', 1, NULL, 2, 1, 'success', 200, 9, 5, 9),
         (8, 'd_a', 'wh_2', 'default', 1, 'evt_1', 'A', 1, 'pending', 1, '', 0, NULL, 0, 0, '', NULL, NULL, 5, 9)",
        "INSERT INTO series (delivery, series, owed, state, held, held_attempt, held_at, reason, attempts, logged, born_at,
         ended_at, seen_at, asked) VALUES ('d_a', 1, 1, 'pending', 1, 1, 7, '', 0, 0, 5, NULL, 5, 0),
         ('d_b', 1, 1, 'dead', 0, 0, 0, 'http_4xx', 1, 1, 5, 7, 5, 0), ('d_b', 2, 1, 'delivered', 0, 0, 0, '', 1, 1, 8, 9, 8, 1)",
        "INSERT INTO attempts VALUES ('d_b', 2, 1, 9, 3, 'https://b', 'success', 200, NULL, 'ok', '[]', NULL, 'w', 0),
         ('d_b', 1, 1, 6, 3, 'https://b', 'http_4xx', 404, NULL, '', '[]', NULL, 'w', 0)",
        "INSERT INTO dead_letters VALUES
         (1, 'dl_1', 'dead', 'default', 'r', '', '', 'd_b', 1, 'wh_1', 'evt_1', 'A', '', NULL, 7, 9, 'delivered'),
         (2, 'dl_2', 'invalid', 'default', 'r', '', '', '', 0, '', '', '', '', NULL, 7, NULL, '')",
        "INSERT INTO webhook_health (webhook, in_a_row, told, failing_since, last_failure_at, last_success_at, counted_from,
         failed_attempts, moments, moment_at, told_window) VALUES ('wh_1', 1, 50, 3, 4, 5, 6, 7, 8, 9, 90)",
    ] {
        sqlx::query(sql).execute(&before).await.unwrap();
    }
    before.close().await;
    let store = Store::open(&format!("sqlite:{}", path.display()), &test_store::key(1)).await.unwrap();
    let t = TestStore { store, dir };
    let counted = counts(&t).await;
    assert_eq!((counted.accepted, counted.routed, counted.unmatched, counted.owed), (2, 1, 1, 3));
    assert_eq!((counted.delivered, counted.dead, counted.pending, counted.held), (1, 1, 1, 1));
    let detail = t.store.delivery("default", "d_b").await.unwrap().unwrap();
    let attempts: Vec<_> =
        detail.series.iter().map(|series| (series.series, series.attempts[0].status)).collect();
    assert_eq!(attempts, [(1, Some(404)), (2, Some(200))]);
    assert!(t.store.delivery("default", "d_a").await.unwrap().unwrap().series[0].held);
    let health = t.store.health("wh_1").await.unwrap();
    let [since, last_at, success, from, moment_at] =
        [3, 4, 5, 6, 9].map(|ms| Some(Timestamp::from_millis(ms)));
    let streak = Streak {
        given_up: 1,
        failed_attempts: 7,
        moments: 8,
        moment_at,
        since,
        last_at,
        told_given_up: 50,
        told_window: 90,
    };
    let known = Health { streak, last_success_at: success, counted_from: from, changed: false };
    assert_eq!(health, known);
    assert_eq!(t.store.due(NOW, 0).await.unwrap().letters, [("invalid".to_owned(), 1)]);
}
