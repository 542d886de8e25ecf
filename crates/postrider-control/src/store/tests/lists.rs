//! Lists of a store that is large: what they find, by which plan, and how long that takes.

use std::time::Instant;

use super::*;
use crate::store::pages::Search;

/// When the first event was accepted; one follows each half second.
const FIRST: i64 = 1_700_000_000_000;
const SPACING_MS: i64 = 500;

/// A store with so many deliveries, two of each event. Every tenth event is of the tenant `small`; half of the deliveries go to
/// one webhook, a third of the events are of one type; what is not delivered is rare, and what is dead is old. Most newest attempts
/// delivered; some timed out or met a 429, and what is dead had twelve that met a 503.
async fn filled(deliveries: i64) -> TestStore {
    let t = TestStore::new().await;
    let writer = t.store.writer();
    for sql in [
        "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < $1 / 2)
         INSERT INTO events SELECT n, CASE WHEN n % 10 = 0 THEN 'small' ELSE 'default' END, 'evt_' || n,
         'type_' || (CASE WHEN n % 3 = 0 THEN 0 ELSE n * 7919 % 199 END), '',
         CASE WHEN n % 1000 = 1 THEN 'invalid' WHEN n % 50 = 2 THEN 'unmatched' ELSE 'routed' END, 2, '', '', '',
         $2 + n * 500 FROM n",
        "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < $1)
         INSERT INTO deliveries SELECT n, 'd_' || (n * 2654435761 % 4294967296), 'wh_' || (CASE WHEN n % 2 = 0 THEN 0 ELSE n * 7919 % 999 END),
         e.tenant, e.seq, e.id, e.event_type, 1,
         CASE WHEN n < $1 / 500 THEN 'dead' WHEN n % 1000 = 7 THEN 'cancelled' WHEN n % 700 = 9 THEN 'skipped'
         WHEN n > $1 - $1 / 200 THEN 'pending' ELSE 'delivered' END,
         n > $1 - $1 / 200 AND n % 10 = 0, '',
         CASE WHEN n < $1 / 500 THEN 12 WHEN n % 90 = 4 THEN 3 WHEN n % 700 = 9 THEN 0 ELSE 1 END, NULL, 1, 1,
         CASE WHEN n < $1 / 500 THEN 'http_5xx' WHEN n % 90 = 4 THEN 'timeout' WHEN n % 700 = 9 THEN ''
         WHEN n % 50 = 3 THEN 'http_429' ELSE 'none' END,
         CASE WHEN n < $1 / 500 THEN 503 WHEN n % 90 = 4 OR n % 700 = 9 THEN NULL WHEN n % 50 = 3 THEN 429 ELSE 200 END, e.accepted_at, e.accepted_at, $2
         FROM n JOIN events e ON e.seq = (n + 1) / 2",
        "INSERT INTO dead_letters SELECT seq, 'dl_' || seq, 'dead', tenant, 'attempts_exhausted', '', 'http_5xx', id, 1, webhook,
         event_id, event_type, '', NULL, created_at, CASE WHEN seq % 3 = 0 THEN 1 END, '' FROM deliveries
         WHERE state = 'dead' AND $1 + $2 > 0",
        "INSERT INTO series (delivery, series, owed, state, held, held_attempt, held_at, reason, attempts, logged, born_at,
         ended_at, seen_at) SELECT seq, 1, 1, state, held, 0, 0, '', 1, 1, created_at,
         CASE WHEN state <> 'pending' THEN created_at END, created_at FROM deliveries WHERE $1 + $2 > 0",
    ] {
        sqlx::query(sql).bind(deliveries).bind(FIRST).execute(writer).await.unwrap();
    }
    t
}

/// Every way in which deliveries can be asked for, with what each column may be. `deliveries` says how many there are.
fn asked(deliveries: i64) -> Vec<DeliveryFilter> {
    let of = |values: &[&str]| -> Vec<Option<String>> {
        std::iter::once(None).chain(values.iter().map(|value| Some((*value).to_owned()))).collect()
    };
    let time = |part: i64| Some(Timestamp::from_millis(FIRST + deliveries / 2 * SPACING_MS / 10 * part));
    let mut filters = Vec::new();
    for state in of(&["pending", "held", "delivered", "dead", "cancelled", "skipped"]) {
        for webhook in of(&["wh_0", "wh_500", "wh_unknown"]) {
            for event_type in of(&["type_0", "type_77", "unknown"]) {
                for (since, until) in [(None, None), (None, time(1)), (time(5), time(6))] {
                    let (state, webhook, event_type) = (state.clone(), webhook.clone(), event_type.clone());
                    let tenant = "default".to_owned();
                    filters.push(DeliveryFilter {
                        tenant,
                        state,
                        webhook,
                        event: None,
                        event_type,
                        since,
                        until,
                        ..DeliveryFilter::default()
                    });
                }
            }
        }
    }
    filters.extend(asked_of_attempts(time(1)));
    let event = Some(format!("evt_{}", deliveries / 4 + 1));
    filters.push(DeliveryFilter { tenant: "default".into(), event, ..DeliveryFilter::default() });
    filters
}

/// Every way in which they can be asked for by their attempts, alone and beside what an index knows.
fn asked_of_attempts(until: Option<Timestamp>) -> Vec<DeliveryFilter> {
    let of = |value: &str| Some(value.to_owned());
    let mut filters = Vec::new();
    for class in [None, of("http_5xx"), of("timeout")] {
        for status in
            [None, Some(StatusFilter::Is(429)), Some(StatusFilter::Hundred(5)), Some(StatusFilter::NoAnswer)]
        {
            for attempts_from in [None, Some(3)] {
                for (state, webhook, until) in [
                    (None, None, None),
                    (None, of("wh_0"), until),
                    (of("dead"), None, None),
                    (of("dead"), of("wh_0"), None),
                ] {
                    let (tenant, class) = ("default".to_owned(), class.clone());
                    filters.push(DeliveryFilter {
                        tenant,
                        state,
                        webhook,
                        until,
                        class,
                        status,
                        attempts_from,
                        ..DeliveryFilter::default()
                    });
                }
            }
        }
    }
    filters
}

/// A delivery as a filter sees it: tenant, webhook, state, held, event type, when it was made, and of its attempts the class and the
/// status of the newest, and how many.
type Seen = (String, String, String, bool, String, i64, String, Option<u16>, u32);

/// What a filter means, said without an index.
fn means(filter: &DeliveryFilter, row: &Seen) -> bool {
    let (tenant, webhook, state, held, event_type, created_at, class, status, attempts) = row;
    let at = Timestamp::from_millis(*created_at);
    filter.tenant == *tenant
        && filter.webhook.as_ref().is_none_or(|asked| asked == webhook)
        && filter.event_type.as_ref().is_none_or(|asked| asked == event_type)
        && filter.state.as_ref().is_none_or(|asked| asked == state || (asked == "held" && *held))
        && filter.since.is_none_or(|since| at >= since)
        && filter.until.is_none_or(|until| at < until)
        && filter.class.as_ref().is_none_or(|asked| asked == class)
        && filter.attempts_from.is_none_or(|least| *attempts >= least)
        && filter.status.is_none_or(|asked| match asked {
            StatusFilter::Is(one) => *status == Some(one),
            StatusFilter::Hundred(hundred) => status.is_some_and(|status| status / 100 == hundred),
            StatusFilter::NoAnswer => status.is_none() && !class.is_empty(),
        })
}

/// The steps of a plan.
async fn plan(t: &TestStore, search: &Search, from: &str) -> Vec<String> {
    let query = search.page("d.seq", from, Some(Place { at: FIRST, seq: 9 }), 50);
    let sql = format!("EXPLAIN QUERY PLAN {}", query.sql().as_str());
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_all(&t.store.readers).await.unwrap();
    rows.iter().map(|row| sqlx::Row::get(row, "detail")).collect()
}

/// Whatever is asked is found, all of it and in order, in pages that no plan sorts or scans for.
#[tokio::test]
async fn lists_find_what_is_asked_for_by_an_index() {
    const DELIVERIES: i64 = 200_000;
    let t = filled(DELIVERIES).await;
    let all: Vec<Seen> = sqlx::query_as(
        "SELECT tenant, webhook, state, held, event_type, created_at, last_class, last_status, attempts FROM deliveries
         ORDER BY created_at DESC, seq DESC",
    )
    .fetch_all(&t.store.readers)
    .await
    .unwrap();
    for (n, filter) in asked(DELIVERIES).iter().enumerate() {
        let event = match &filter.event {
            Some(event) => t.store.event_number("default", event).await.unwrap(),
            None => None,
        };
        let steps = plan(&t, &filter.search(event), "deliveries d").await;
        // The rows of one event are few, and may be sorted.
        let sorted = event.is_none() && steps.iter().any(|step| step.contains("TEMP B-TREE"));
        let scanned = steps.iter().any(|step| step.starts_with("SCAN") && step != "SCAN l");
        assert!(!sorted && !scanned, "{filter:?}: {steps:?}");
        // Reading all of what is asked takes its time; a part of the filters says as much.
        if filter.event.is_some() || n % 5 != 0 {
            continue;
        }
        let expected: Vec<_> = all.iter().filter(|row| means(filter, row)).take(450).collect();
        let (mut found, mut after) = (Vec::new(), None);
        while found.len() < expected.len().max(1) {
            let page = t.store.deliveries(filter, after, 200).await.unwrap();
            found.extend(page.rows);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let found: Vec<_> = found
            .iter()
            .take(450)
            .map(|row| (&row.webhook, &row.state, row.created_at.as_millis()))
            .collect();
        let expected: Vec<_> = expected.iter().map(|row| (&row.1, &row.2, row.5)).collect();
        assert_eq!(found, expected, "{filter:?}");
    }
}

/// Every way in which events can be asked for.
fn asked_of_events() -> Vec<EventFilter> {
    let of = |value: &str| Some(value.to_owned());
    let mut filters = Vec::new();
    for fate in [None, of("routed"), of("unmatched"), of("invalid")] {
        for event_type in [None, of("type_0"), of("type_77"), of("unknown")] {
            for since in [None, Some(Timestamp::from_millis(FIRST + 1_000))] {
                let (event_type, fate) = (event_type.clone(), fate.clone());
                filters.push(EventFilter { tenant: "default".into(), event_type, fate, since });
            }
        }
    }
    filters
}

/// Every way in which dead letters can be asked for.
fn asked_of_letters() -> Vec<DeadLetterFilter> {
    let of = |value: &str| Some(value.to_owned());
    let mut filters = Vec::new();
    for kind in [None, of("dead"), of("invalid")] {
        for reason in [None, of("attempts_exhausted"), of("unknown")] {
            for resolved in [None, Some(false), Some(true)] {
                let (kind, reason) = (kind.clone(), reason.clone());
                filters.push(DeadLetterFilter { tenant: "default".into(), kind, reason, resolved });
            }
        }
    }
    filters
}

/// The same of events and dead letters: by an index, all of it, newest first.
#[tokio::test]
async fn events_and_letters_are_found_by_an_index_too() {
    let t = filled(30_000).await;
    let sorts_or_scans = |steps: &[String]| {
        steps
            .iter()
            .any(|step| step.contains("TEMP B-TREE") || (step.starts_with("SCAN") && step != "SCAN l"))
    };
    let events: Vec<(String, String, String, i64)> = sqlx::query_as(
        "SELECT id, event_type, fate, accepted_at FROM events WHERE tenant = 'default' ORDER BY accepted_at DESC, seq DESC",
    )
    .fetch_all(&t.store.readers)
    .await
    .unwrap();
    for filter in asked_of_events() {
        let steps = plan(&t, &filter.search(), "events d").await;
        assert!(!sorts_or_scans(&steps), "{filter:?}: {steps:?}");
        let is_meant = |(_, event_type, fate, at): &&(String, String, String, i64)| {
            filter.event_type.as_ref().is_none_or(|asked| asked == event_type)
                && filter.fate.as_ref().is_none_or(|asked| asked == fate)
                && filter.since.is_none_or(|since| *at >= since.as_millis())
        };
        let expected: Vec<&str> = events.iter().filter(is_meant).map(|(id, ..)| id.as_str()).collect();
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = t.store.events(&filter, after, 200).await.unwrap();
            found.extend(page.rows.into_iter().map(|row| row.id));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, expected, "{filter:?}");
    }
    let letters: Vec<(String, String, String, bool)> = sqlx::query_as(
        "SELECT id, kind, reason, resolved_at IS NOT NULL FROM dead_letters WHERE tenant = 'default' ORDER BY at DESC, seq DESC",
    )
    .fetch_all(&t.store.readers)
    .await
    .unwrap();
    assert!(letters.len() > 20);
    for filter in asked_of_letters() {
        let steps = plan(&t, &filter.search(), "dead_letters d").await;
        assert!(!sorts_or_scans(&steps), "{filter:?}: {steps:?}");
        let is_meant = |(_, kind, reason, resolved): &&(String, String, String, bool)| {
            filter.kind.as_ref().is_none_or(|asked| asked == kind)
                && filter.reason.as_ref().is_none_or(|asked| asked == reason)
                && filter.resolved.is_none_or(|asked| asked == *resolved)
        };
        let expected: Vec<&str> = letters.iter().filter(is_meant).map(|(id, ..)| id.as_str()).collect();
        let page = t.store.dead_letters(&filter, None, 200).await.unwrap();
        let found: Vec<String> = page.rows.into_iter().map(|row| row.id).collect();
        assert_eq!(found, expected[..expected.len().min(200)], "{filter:?}");
    }
}

/// The audit log too: whoever asks for whatever, it is read along an index, and all of it is found.
#[tokio::test]
async fn the_audit_log_is_found_by_an_index() {
    let t = TestStore::new().await;
    sqlx::query(
        "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 30000)
         INSERT INTO audit (at, tenant, actor, actor_name, operation, subject_kind, subject, changes)
         SELECT $1 + n / 3, CASE n % 7 WHEN 0 THEN '' WHEN 1 THEN 'small' ELSE 'default' END,
         CASE WHEN n % 1000 = 3 THEN 'key_1' ELSE 'admin token' END, '', CASE WHEN n % 5 = 0 THEN 'redeliver' ELSE 'pause_webhook' END,
         'webhook', 'wh_' || n % 40, '{}' FROM n",
    )
    .bind(FIRST)
    .execute(t.store.writer())
    .await
    .unwrap();
    let all: Vec<(String, String, String, String, i64)> =
        sqlx::query_as("SELECT tenant, actor, operation, subject, at FROM audit ORDER BY at DESC, seq DESC")
            .fetch_all(&t.store.readers)
            .await
            .unwrap();
    let of = |value: &str| Some(value.to_owned());
    let time = |part: i64| Some(Timestamp::from_millis(FIRST + part * 1000));
    for tenant in [None, Some("default"), Some("small"), Some("unknown")] {
        for actor in [None, of("key_1"), of("admin token")] {
            for subject in [None, of("wh_3"), of("unknown")] {
                for operation in [None, of("redeliver")] {
                    for (since, until) in [(None, None), (time(2), time(5))] {
                        let filter = AuditFilter {
                            tenant: tenant.map(|tenant| TenantId::parse(tenant).unwrap()),
                            operation: operation.clone(),
                            subject: subject.clone(),
                            actor: actor.clone(),
                            since,
                            until,
                        };
                        let steps = plan(&t, &filter.search(), "audit d").await;
                        let bad = |step: &String| {
                            step.contains("TEMP B-TREE") || (step.starts_with("SCAN") && step != "SCAN l")
                        };
                        assert!(!steps.iter().any(bad), "{filter:?}: {steps:?}");
                        let is_meant = |row: &&(String, String, String, String, i64)| {
                            tenant.is_none_or(|asked| asked == row.0)
                                && filter.actor.as_ref().is_none_or(|asked| *asked == row.1)
                                && filter.operation.as_ref().is_none_or(|asked| *asked == row.2)
                                && filter.subject.as_ref().is_none_or(|asked| *asked == row.3)
                                && since.is_none_or(|since| row.4 >= since.as_millis())
                                && until.is_none_or(|until| row.4 < until.as_millis())
                        };
                        let expected: Vec<i64> =
                            all.iter().filter(is_meant).take(300).map(|row| row.4).collect();
                        let (mut found, mut after) = (Vec::new(), None);
                        while found.len() < expected.len().max(1) {
                            let page = t.store.audit_log(&filter, after, 150).await.unwrap();
                            found.extend(page.rows.into_iter().map(|row| row.at.as_millis()));
                            after = page.next;
                            if after.is_none() {
                                break;
                            }
                        }
                        found.truncate(300);
                        assert_eq!(found, expected, "{filter:?}");
                    }
                }
            }
        }
    }
}

/// Webhooks and event types too, whatever is asked of them: in order along the index of the tenant, whose quota bounds them.
#[tokio::test]
async fn webhooks_and_event_types_are_found_by_an_index_too() {
    let t = TestStore::new().await;
    let of = |value: &str| Some(value.to_owned());
    let explain = async |mut query: sqlx::QueryBuilder<Sqlite>| {
        let rows = query.build().persistent(false).fetch_all(&t.store.readers).await.unwrap();
        rows.iter().map(|row| sqlx::Row::get(row, "detail")).collect::<Vec<String>>()
    };
    let takes = Takes { spellings: vec!["A".to_owned()], group: of("g"), category: of("c"), all: true };
    for state in [None, of("paused")] {
        for (name, url) in
            [(None, None), (of("bill"), None), (None, of("example")), (of("bill"), of("example"))]
        {
            for (profile, takes) in [(None, None), (of("standard"), None), (None, Some(takes.clone()))] {
                for (oldest_first, beyond) in [(false, None), (false, Some(9)), (true, Some(9))] {
                    let filter = WebhookFilter {
                        tenant: "default".into(),
                        state: state.clone(),
                        name: name.clone(),
                        url: url.clone(),
                        profile: profile.clone(),
                        failing: oldest_first,
                        takes: takes.clone(),
                        since: Some(Timestamp::from_millis(FIRST)),
                        until: None,
                        oldest_first,
                    };
                    let mut query = sqlx::QueryBuilder::new("EXPLAIN QUERY PLAN ");
                    filter.list(&mut query, beyond, 50);
                    let steps = explain(query).await;
                    let index = match beyond {
                        None => "webhooks_of_tenant (tenant=? AND deleted_at=?)",
                        Some(_) if oldest_first => "webhooks_of_tenant (tenant=? AND deleted_at=? AND seq>?)",
                        Some(_) => "webhooks_of_tenant (tenant=? AND deleted_at=? AND seq<?)",
                    };
                    assert!(steps[0].ends_with(index), "{filter:?}: {steps:?}");
                    let sorts = steps.iter().any(|step| step == "USE TEMP B-TREE FOR ORDER BY");
                    let scans = steps.iter().any(|step| step.starts_with("SCAN"));
                    assert!(!sorts && !scans, "{filter:?}: {steps:?}");
                }
            }
        }
    }
    for (product, category, group) in
        [(None, None, None), (of("p"), None, None), (of("p"), of("c"), of("g")), (None, of("c"), None)]
    {
        for search in [Vec::new(), vec!["order".to_owned()]] {
            for after in [None, Some(("p", 9))] {
                let (product, category, group) = (product.clone(), category.clone(), group.clone());
                let filter =
                    TypeFilter { tenant: "default".into(), product, category, group, search: search.clone() };
                let mut query = sqlx::QueryBuilder::new("EXPLAIN QUERY PLAN ");
                filter.list(&mut query, after, 200);
                let steps = explain(query).await;
                assert!(
                    steps.len() == 1 && steps[0].contains("event_types_in_order (tenant=?"),
                    "{filter:?}: {steps:?}"
                );
            }
        }
    }
}

/// How long lists take with ten million deliveries. Prints figures; run it in a release build with
/// `cargo test --release --workspace --lib --locked -- lists_are_quick_with_ten_million --ignored --nocapture`.
#[tokio::test]
#[ignore = "takes minutes, and six gigabytes of disk"]
async fn lists_are_quick_with_ten_million_deliveries() {
    const DELIVERIES: i64 = 10_000_000;
    const MOST_MS: u128 = 150;
    let begun = Instant::now();
    let t = filled(DELIVERIES).await;
    eprintln!("{DELIVERIES} deliveries made in {} s", begun.elapsed().as_secs());
    let mut took = Vec::new();
    for filter in asked(DELIVERIES) {
        // The first page, and the one after it.
        let mut after = None;
        for page in 1..=2 {
            let begun = Instant::now();
            let found = t.store.deliveries(&filter, after, 50).await.unwrap();
            took.push((begun.elapsed(), format!("deliveries, page {page}: {filter:?}")));
            after = found.next;
            if after.is_none() {
                break;
            }
        }
    }
    for filter in asked_of_events() {
        let begun = Instant::now();
        t.store.events(&filter, None, 50).await.unwrap();
        took.push((begun.elapsed(), format!("events: {filter:?}")));
    }
    for filter in asked_of_letters() {
        let begun = Instant::now();
        t.store.dead_letters(&filter, None, 50).await.unwrap();
        took.push((begun.elapsed(), format!("dead letters: {filter:?}")));
    }
    let begun = Instant::now();
    t.store.books(NOW).await.unwrap();
    took.push((begun.elapsed(), "books".to_owned()));
    let begun = Instant::now();
    t.store.due(NOW, 0).await.unwrap();
    took.push((begun.elapsed(), "due".to_owned()));
    took.sort_by_key(|(took, _)| std::cmp::Reverse(*took));
    eprintln!("{} lists; the slowest:", took.len());
    for (took, what) in took.iter().take(10) {
        eprintln!("{:>6.1} ms  {what}", took.as_secs_f64() * 1000.0);
    }
    assert!(took[0].0.as_millis() <= MOST_MS);
}
