//! What is added up, against the rows counted one by one; and what that costs.

use std::collections::BTreeMap;
use std::time::Instant;

use postrider_core::stats::STATUSES;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sqlx::{Sqlite, Transaction};

use super::roll_up::{Source, Turn};
use super::*;
use crate::store::test_store::TestStore;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_123_456);
const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
const WEBHOOKS: i64 = 5;

/// Step, time, tenant, webhook.
type Place = (i64, i64, String, String);

/// What there is in a place, counted one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sum {
    counts: [u64; 6],
    by_status: [u64; 6],
    last_at: Option<Timestamp>,
    first_attempt: Histogram,
    delivery: Histogram,
    attempt: Histogram,
}

impl From<Figures> for Sum {
    fn from(f: Figures) -> Self {
        Self {
            counts: [f.accepted, f.first_tried, f.first_delivered, f.delivered, f.failed, f.dead],
            by_status: f.by_status,
            last_at: f.last_at,
            first_attempt: f.first_attempt,
            delivery: f.delivery,
            attempt: f.attempt,
        }
    }
}

/// A delivery and its event, as they are in the store.
#[derive(Clone, Debug)]
struct Made {
    seq: i64,
    tenant: &'static str,
    webhook: String,
    event_type: String,
    accepted_at: Timestamp,
}

/// A store, and what is to be added up of what it holds.
struct World {
    t: TestStore,
    random: StdRng,
    next: i64,
    sums: BTreeMap<Place, Sum>,
    by_type: BTreeMap<(Place, String), (u64, u64)>,
    /// Events by event type, which stands where the webhook does.
    of_types: BTreeMap<Place, u64>,
}

/// Whose a webhook is.
fn tenant_of(webhook: i64) -> &'static str {
    if webhook % 2 == 0 { "default" } else { "other" }
}

impl World {
    async fn new(seed: u64) -> Self {
        let t = TestStore::new().await;
        t.execute("INSERT INTO tenants (id, revision, created_at) VALUES ('other', 1, 0)").await;
        for webhook in 0..WEBHOOKS {
            sqlx::query(
                "INSERT INTO webhooks (id, tenant, revision, state, timeout_ms, secret_hint, created_at, updated_at)
                 VALUES ('wh_' || $1, $2, 1, 'active', 1, '', 0, 0)",
            )
            .bind(webhook)
            .bind(tenant_of(webhook))
            .execute(t.store.writer())
            .await
            .unwrap();
        }
        // T0 and T1 are in catalogues, and T2 is in none.
        for tenant in ["default", "other"] {
            for name in ["T0", "T1"] {
                sqlx::query("INSERT INTO event_types VALUES ($1, $2, 'p', 'c', '', 0, '', '{}')")
                    .bind(tenant)
                    .bind(name)
                    .execute(t.store.writer())
                    .await
                    .unwrap();
            }
        }
        Self {
            t,
            random: StdRng::seed_from_u64(seed),
            next: 0,
            sums: BTreeMap::new(),
            by_type: BTreeMap::new(),
            of_types: BTreeMap::new(),
        }
    }

    /// Somewhere in the last two hours, or, seldom, in the last hundred days.
    fn some_time(&mut self) -> Timestamp {
        let range_ms = if self.random.random_bool(0.3) { 100 * DAY_MS } else { 2 * HOUR_MS };
        NOW.minus_ms(self.random.random_range(2 * MINUTE_MS..range_ms))
    }

    /// The places in which something of this time is to be counted.
    fn places(&mut self, at: Timestamp, tenant: &str, webhook: &str, count: impl Fn(&mut Sum)) -> Vec<Place> {
        let mut of_webhook = Vec::new();
        for (step_ms, kept_ms, names) in [
            (MINUTE_MS, 2 * DAY_MS, &[""][..]),
            (10 * MINUTE_MS, 7 * DAY_MS, &["", webhook]),
            (HOUR_MS, 90 * DAY_MS, &["", webhook]),
        ] {
            let ms = at.as_millis();
            let begins = ms - ms % i64::try_from(step_ms).unwrap();
            if begins < NOW.minus_ms(kept_ms).as_millis() {
                continue;
            }
            let names = if webhook.is_empty() { &[""] } else { names };
            for name in names {
                let place = (i64::try_from(step_ms).unwrap(), begins, tenant.to_owned(), (*name).to_owned());
                count(self.sums.entry(place.clone()).or_default());
                if !name.is_empty() {
                    of_webhook.push(place);
                }
            }
        }
        of_webhook
    }

    /// Counts the event of a delivery.
    fn accepted(&mut self, made: &Made) {
        self.places(made.accepted_at, made.tenant, "", |sum| sum.counts[0] += 1);
        if !["T0", "T1"].contains(&made.event_type.as_str()) {
            return;
        }
        for (step_ms, kept_ms) in [(10 * MINUTE_MS, 7 * DAY_MS), (HOUR_MS, 90 * DAY_MS)] {
            let step_ms = i64::try_from(step_ms).unwrap();
            let begins = made.accepted_at.as_millis() / step_ms * step_ms;
            if begins >= NOW.minus_ms(kept_ms).as_millis() {
                let place = (step_ms, begins, made.tenant.to_owned(), made.event_type.clone());
                *self.of_types.entry(place).or_default() += 1;
            }
        }
    }

    /// An event, and one delivery of it.
    async fn make(&mut self, tx: &mut Transaction<'static, Sqlite>) -> Made {
        self.next += 1;
        let webhook = self.random.random_range(0..WEBHOOKS);
        let made = Made {
            seq: self.next,
            tenant: tenant_of(webhook),
            webhook: format!("wh_{webhook}"),
            event_type: format!("T{}", self.random.random_range(0..3)),
            accepted_at: self.some_time(),
        };
        insert_delivery(tx, &made, Some(made.seq)).await;
        self.accepted(&made);
        made
    }

    /// An attempt of this delivery. `named` is `false` where nothing is known of its event.
    async fn attempt(
        &mut self,
        tx: &mut Transaction<'static, Sqlite>,
        made: &Made,
        at: Timestamp,
        named: bool,
    ) {
        self.next += 1;
        let (series, n) = (self.random.random_range(1..3_u32), self.random.random_range(1..4_u32));
        let duration_ms = self.random.random_range(0..20_000_u64);
        let answers = [
            ("none", Some(200)),
            ("http_3xx", Some(301)),
            ("http_4xx", Some(404)),
            ("http_429", Some(429)),
            ("http_5xx", Some(503)),
            ("timeout", None),
        ];
        let place = self.random.random_range(0..answers.len());
        let (class, status) = answers[place];
        sqlx::query(
            "INSERT INTO attempts (delivery, series, n, at, duration_ms, url, class, status, response_headers, worker, repeats)
             VALUES ($1, $2, $3, $4, $5, '', $6, $7, '[]', $8, 0)",
        )
        .bind(made.seq)
        .bind(i64::from(series))
        .bind(i64::from(n))
        .bind(at.as_millis())
        .bind(signed(duration_ms))
        .bind(class)
        .bind(status.map(i64::from))
        .bind(format!("worker-{}", self.next))
        .execute(&mut **tx)
        .await
        .unwrap();
        let (delivered, first) = (class == "none", series == 1 && n == 1);
        let webhook = made.webhook.clone();
        let of_webhook = self.places(at, made.tenant, &webhook, |sum| {
            sum.counts[1] += u64::from(first);
            sum.counts[2] += u64::from(first && delivered);
            sum.counts[if delivered { 3 } else { 4 }] += 1;
            sum.by_status[place] += 1;
            sum.last_at = sum.last_at.max(Some(at));
            sum.attempt.add(duration_ms);
            let waited = |at: Timestamp| at.since_ms(made.accepted_at);
            if named && first {
                sum.first_attempt.add(waited(at));
            }
            if named && series == 1 && delivered {
                sum.delivery.add(waited(at.plus_ms(duration_ms)));
            }
        });
        let event_type = if named { made.event_type.clone() } else { String::new() };
        for place in of_webhook {
            let (good, bad) = self.by_type.entry((place, event_type.clone())).or_default();
            *(if delivered { good } else { bad }) += 1;
        }
    }

    async fn letter(&mut self, tx: &mut Transaction<'static, Sqlite>, made: &Made, kind: &str) {
        self.next += 1;
        let at = self.some_time();
        sqlx::query(
            "INSERT INTO dead_letters (seq, id, kind, tenant, reason, detail, class, delivery, series, webhook, event_id,
             event_type, content_type, at, resolution) VALUES ($1, $1, $2, $3, '', '', '', '', 1, $4, '', $5, '', $6, '')",
        )
        .bind(self.next)
        .bind(kind)
        .bind(made.tenant)
        .bind(&made.webhook)
        .bind(&made.event_type)
        .bind(at.as_millis())
        .execute(&mut **tx)
        .await
        .unwrap();
        if kind == "dead" {
            let webhook = made.webhook.clone();
            self.places(at, made.tenant, &webhook, |sum| sum.counts[5] += 1);
        }
    }

    /// So many deliveries, four attempts for each, and some dead letters.
    async fn happen(&mut self, deliveries: usize) {
        let mut tx = self.t.store.writer().begin().await.unwrap();
        for _ in 0..deliveries {
            let made = self.make(&mut tx).await;
            for _ in 0..4 {
                let at = self.some_time();
                self.attempt(&mut tx, &made, at, true).await;
            }
            let kind = *["dead", "invalid", "poison", ""].get(self.random.random_range(0..4)).unwrap();
            if !kind.is_empty() {
                self.letter(&mut tx, &made, kind).await;
            }
        }
        tx.commit().await.unwrap();
    }

    /// Adds up all that is new; returns in how many turns.
    async fn add_all(&self) -> usize {
        let mut turns = 1;
        while self.t.store.roll_up(NOW).await.unwrap() {
            turns += 1;
        }
        turns
    }

    async fn restart(self) -> Self {
        Self { t: self.t.reopen().await, ..self }
    }

    async fn assert_exact(&self) {
        let sql = format!("SELECT s.step_ms, s.at, s.tenant, s.webhook, {FIGURES} FROM stats s");
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_all(self.t.store.writer()).await.unwrap();
        let place = |row: &SqliteRow| (row.get(0), row.get(1), row.get(2), row.get(3));
        let found: BTreeMap<Place, Sum> =
            rows.iter().map(|row| (place(row), figures_of(row).unwrap().into())).collect();
        assert_eq!(found.len(), self.sums.len());
        for (place, sum) in &found {
            assert_eq!(Some(sum), self.sums.get(place), "{place:?}");
        }
        let rows = sqlx::query(
            "SELECT step_ms, at, tenant, webhook, event_type, delivered, failed FROM stats_by_type",
        )
        .fetch_all(self.t.store.writer())
        .await
        .unwrap();
        let found: BTreeMap<(Place, String), (u64, u64)> = rows
            .iter()
            .map(|row| ((place(row), row.get(4)), (unsigned(row.get(5)), unsigned(row.get(6)))))
            .collect();
        assert!(found == self.by_type, "{} rows by type, {} expected", found.len(), self.by_type.len());
        let rows = sqlx::query("SELECT step_ms, at, tenant, event_type, accepted FROM stats_of_types");
        let rows = rows.fetch_all(self.t.store.writer()).await.unwrap();
        let found: BTreeMap<Place, u64> = rows.iter().map(|row| (place(row), unsigned(row.get(4)))).collect();
        assert!(found == self.of_types, "{} rows of types, {} expected", found.len(), self.of_types.len());
    }
}

/// A delivery; its event too, if it has one.
async fn insert_delivery(tx: &mut Transaction<'static, Sqlite>, made: &Made, event: Option<i64>) {
    if let Some(event) = event {
        sqlx::query(
            "INSERT INTO events (seq, tenant, id, event_type, event_time, fate, owed, reason, detail, marks, accepted_at)
             VALUES ($1, $2, 'evt_' || $1, $3, '', 'routed', 1, '', '', '', $4)",
        )
        .bind(event)
        .bind(made.tenant)
        .bind(&made.event_type)
        .bind(made.accepted_at.as_millis())
        .execute(&mut **tx)
        .await
        .unwrap();
    }
    let known = event.is_some();
    sqlx::query(
        "INSERT INTO deliveries (seq, id, webhook, tenant, event, event_id, event_type, series, state, held, reason, attempts,
         last_series, last_n, last_class, created_at, updated_at)
         VALUES ($1, 'd_' || $1, $2, $3, $4, '', $5, 1, 'pending', 0, '', 0, 0, 0, '', 0, 0)",
    )
    .bind(made.seq)
    .bind(&made.webhook)
    .bind(if known { made.tenant } else { "" })
    .bind(event)
    .bind(if known { made.event_type.as_str() } else { "" })
    .execute(&mut **tx)
    .await
    .unwrap();
}

/// Whatever happens between turns, what is added up is what the rows say, to the last one.
#[tokio::test]
async fn what_is_added_up_is_what_the_rows_say() {
    for seed in 1..=3 {
        let mut world = World::new(seed).await;
        let mut turns = 0;
        for round in 0..8 {
            world.happen(60).await;
            if round == 5 {
                world.happen(1200).await;
            }
            match (seed + round) % 4 {
                // Only a part, and the rest later.
                0 => {
                    world.t.store.roll_up(NOW).await.unwrap();
                }
                1 => world = world.restart().await,
                2 => {
                    turns += world.add_all().await;
                    world.assert_exact().await;
                }
                _ => {
                    // What was added up is removed, and rows are numbered anew.
                    turns += world.add_all().await;
                    world.t.execute("DELETE FROM attempts").await;
                    assert!(!world.t.store.roll_up(NOW).await.unwrap());
                    world = world.restart().await;
                }
            }
        }
        turns += world.add_all().await;
        world.assert_exact().await;
        assert!(turns > 6, "{turns}: more than a turn takes at once");
        assert!(!world.t.store.roll_up(NOW).await.unwrap(), "nothing is added twice");
        world.assert_exact().await;
    }
}

/// A turn is not written when another was written since it was read: some of its rows are added, and those that it adds to have
/// changed.
#[tokio::test]
async fn whoever_is_second_adds_nothing() {
    let mut world = World::new(4).await;
    for _ in 0..3 {
        world.happen(30).await;
        let mut early = Turn::default();
        let early = world.t.store.reckon_turn(&mut early, NOW).await.unwrap();
        world.happen(30).await;
        let mut late = Turn::default();
        let late = world.t.store.reckon_turn(&mut late, NOW).await.unwrap();
        assert!(!world.t.store.write_turn(late).await.unwrap());
        assert!(world.t.store.write_turn(early).await.unwrap(), "to be read again");
        world.assert_exact().await;
    }
}

/// A table that was emptied, and has fewer rows than were added up before: it begins behind them.
#[tokio::test]
async fn a_table_that_begins_anew_is_added_up_from_then_on() {
    let mut world = World::new(7).await;
    world.happen(20).await;
    world.add_all().await;
    world.t.execute("DELETE FROM attempts").await;
    let mut tx = world.t.store.writer().begin().await.unwrap();
    let made = world.make(&mut tx).await;
    let counted = (world.sums.clone(), world.by_type.clone());
    for _ in 0..3 {
        let at = world.some_time();
        world.attempt(&mut tx, &made, at, true).await;
    }
    tx.commit().await.unwrap();
    // Nobody can tell these three from rows that were added up.
    (world.sums, world.by_type) = counted;
    world.add_all().await;
    world.assert_exact().await;
    world.happen(20).await;
    world.add_all().await;
    world.assert_exact().await;
}

/// The worker may tell of an attempt before the router tells of the event: it is added up when it has a name, or after a minute
/// without one, for the tenant of its webhook.
#[tokio::test]
async fn an_attempt_waits_for_its_event_and_not_for_ever() {
    let mut world = World::new(11).await;
    let made = |seq: i64| Made {
        seq,
        tenant: tenant_of(1),
        webhook: "wh_1".into(),
        event_type: "T9".into(),
        accepted_at: NOW.minus_ms(40_000),
    };
    let (soon, never, behind) = (made(101), made(102), made(103));
    let mut tx = world.t.store.writer().begin().await.unwrap();
    insert_delivery(&mut tx, &soon, None).await;
    insert_delivery(&mut tx, &never, None).await;
    insert_delivery(&mut tx, &behind, Some(1)).await;
    world.attempt(&mut tx, &never, NOW.minus_ms(61_000), false).await;
    let counted = (world.sums.clone(), world.by_type.clone());
    world.attempt(&mut tx, &soon, NOW.minus_ms(30_000), true).await;
    world.attempt(&mut tx, &behind, NOW.minus_ms(20_000), true).await;
    tx.commit().await.unwrap();
    world.accepted(&behind);
    let all = (world.sums.clone(), world.by_type.clone());
    (world.sums, world.by_type) = counted;
    world.places(behind.accepted_at, behind.tenant, "", |sum| sum.counts[0] += 1);
    assert!(!world.t.store.roll_up(NOW).await.unwrap(), "what waits is not tried again at once");
    world.assert_exact().await;
    let named = "UPDATE deliveries SET tenant = 'other', event_type = 'T9', event = 1 WHERE seq = 101";
    world.t.execute(named).await;
    world.add_all().await;
    (world.sums, world.by_type) = all;
    world.assert_exact().await;
}

/// Each step is kept for its time, and removed in pieces.
#[tokio::test]
async fn old_steps_are_removed_each_in_its_time() {
    let mut world = World::new(5).await;
    world.happen(1500).await;
    world.add_all().await;
    let kept = |now: Timestamp| {
        let from = |step: &Step| (signed(step.ms()), step.kept_from(now).as_millis());
        let from: BTreeMap<i64, i64> = Step::ALL.iter().map(from).collect();
        move |place: &Place| place.1 >= from[&place.0]
    };
    let mut pieces = 0;
    for later_ms in [1, 3 * HOUR_MS, 2 * DAY_MS, 7 * DAY_MS, 100 * DAY_MS] {
        let now = NOW.plus_ms(later_ms);
        while world.t.store.prune(now).await.unwrap() {
            pieces += 1;
        }
        let is_kept = kept(now);
        world.sums.retain(|place, _| is_kept(place));
        world.by_type.retain(|(place, _), _| is_kept(place));
        world.of_types.retain(|place, _| is_kept(place));
        world.assert_exact().await;
    }
    assert!(
        pieces > 0 && world.sums.is_empty() && world.by_type.is_empty() && world.of_types.is_empty(),
        "{pieces}"
    );
}

/// What is read and removed is looked up, and a turn reads each table from its cursor on.
#[tokio::test]
async fn nothing_is_looked_for_without_an_index() {
    let t = TestStore::new().await;
    let mut queries: Vec<String> = [Source::Events, Source::Attempts, Source::DeadLetters]
        .map(|source| source.rows().to_owned())
        .to_vec();
    for old in OLD {
        queries.extend([old.boundary, old.up_to, old.all].map(str::to_owned));
    }
    for query in queries {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {query}")))
            .fetch_all(t.store.writer())
            .await
            .unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
        let bad = |step: &String| step.starts_with("SCAN") || step.contains("TEMP B-TREE");
        assert!(!plan.is_empty() && !plan.iter().any(bad), "{query}: {plan:?}");
        if query.starts_with("DELETE") {
            assert!(plan[0].contains("PRIMARY KEY (step_ms=? AND"), "{query}: {plan:?}");
        }
    }
}

/// Plots and sparklines read the rows of their buckets, each by its key.
#[tokio::test]
async fn plots_read_only_the_rows_that_they_show() {
    let t = TestStore::new().await;
    for (query, table, asked) in [
        (points_sql(), "s", "(step_ms=? AND at=? AND tenant=? AND webhook=?)"),
        (sparks_sql(), "s", "(step_ms=? AND at=? AND tenant=? AND webhook=?)"),
        (types_sql(), "s", "(step_ms=? AND at=? AND tenant=? AND webhook=?)"),
        (volumes_sql(), "s", "(step_ms=? AND at=? AND tenant=? AND event_type=?)"),
    ] {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {query}")))
            .fetch_all(&t.store.readers)
            .await
            .unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
        let looked_up = format!("SEARCH {table} USING PRIMARY KEY {asked}");
        assert!(plan.contains(&looked_up) && !plan.contains(&format!("SCAN {table}")), "{query}: {plan:?}");
    }
}

#[test]
fn every_status_has_its_column() {
    for name in STATUSES {
        assert!(FIGURES.contains(&format!("status_{name}")), "{name}");
    }
}

/// How long this process has been working, seconds; nothing where the system does not tell.
fn worked_s() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The times in user and system mode are the 14th and 15th field, in hundredths; the second field ends with a bracket.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: f64 = fields.get(11..13)?.iter().filter_map(|field| field.parse::<f64>().ok()).sum();
    Some(ticks / 100.0)
}

/// What adding up costs. Prints figures; run it with `cargo test --workspace --lib -- adding_up_costs --ignored --nocapture`.
#[tokio::test]
#[ignore = "a measurement"]
async fn what_adding_up_costs() {
    const ATTEMPTS: u32 = 100_000;
    for (webhooks, types) in [(1, 1), (100, 5), (1000, 20)] {
        let t = TestStore::new().await;
        for sql in [
            "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < $1)
             INSERT INTO events SELECT n, 'default', 'evt_' || n, 'type_' || (n * 7919 % $3), '', 'routed', 1, '', '', '', $4 FROM n
             WHERE $2 > 0",
            "INSERT INTO deliveries SELECT seq, 'd_' || seq, 'wh_' || (seq * 31 % $2), tenant, seq, id, event_type, 1, 'delivered', 0, '', 1,
             NULL, 1, 1, 'none', 200, $4, $4, $4 FROM events WHERE $1 + $3 > 0",
            "INSERT INTO attempts SELECT seq, 1, 1, $4 + seq % 5000, seq % 300, 'https://example.com/', 'none', 200, NULL, 'ok', '[]',
             NULL, 'worker', 0 FROM deliveries WHERE $1 + $2 + $3 > 0",
        ] {
            sqlx::query(sql)
                .bind(ATTEMPTS)
                .bind(webhooks)
                .bind(types)
                .bind(NOW.minus_ms(10_000).as_millis())
                .execute(t.store.writer())
                .await
                .unwrap();
        }
        t.execute("PRAGMA wal_checkpoint(TRUNCATE)").await;
        t.execute("UPDATE counters SET n = 100000 WHERE name = 'stats_events'").await;
        let (begun, worked, mut turns) = (Instant::now(), worked_s(), 1);
        while t.store.roll_up(NOW).await.unwrap() {
            turns += 1;
        }
        let (took, worked) = (begun.elapsed(), worked_s().zip(worked).map_or(0.0, |(now, then)| now - then));
        assert_eq!(
            t.rows("SELECT SUM(delivered) FROM stats WHERE step_ms = 3600000 AND webhook = ''").await,
            100_000
        );
        eprintln!(
            "{webhooks} webhooks, {types} event types: {:.2} µs an attempt, {:.2} µs of them at work, {turns} turns of {:.0} ms",
            took.as_secs_f64() * 1e6 / f64::from(ATTEMPTS),
            worked * 1e6 / f64::from(ATTEMPTS),
            took.as_secs_f64() * 1e3 / f64::from(turns),
        );
    }
}
