//! One event for each live reminder, whatever happens: a store on disk, a clock of the test's own, and a simple model
//! beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use postrider_core::reminder::{Day, Schedule, event_id};
use postrider_core::{EventType, TenantId};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use serde_json::Value;

use super::*;
use crate::store::test_store::{TestStore, key};
use crate::store::{
    NewReminder, OutboxKind, OutboxLane, ReminderDate, ReminderRefused, ReminderState, Settings,
};

const TYPES: [&str; 2] = ["PointsWillExpire", "CouponWillExpire"];
const ZONES: [&str; 6] =
    ["UTC", "Europe/Berlin", "America/New_York", "Pacific/Apia", "Asia/Kathmandu", "Australia/Lord_Howe"];
const HOURS: [&str; 4] = ["00:00", "02:30", "09:00", "23:59"];
const KEYS: u8 = 3;
const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 24 * 60 * MINUTE_MS;
/// 2026-01-15, so that clocks change twice within a run.
const START: i64 = 1_768_478_400_000;

/// What can happen.
#[derive(Clone, Debug)]
enum Op {
    /// Puts a reminder, or moves it, to this many days from now.
    Put {
        key: u8,
        event_type: usize,
        ahead: i64,
        data: u8,
        moment: bool,
    },
    /// Puts it as it was put before.
    Again(u8),
    Lead {
        event_type: usize,
        days: Option<u32>,
    },
    Zone(usize),
    Hour(usize),
    Cancel(u8),
    /// Control stops and starts.
    Restart,
    /// Control dies while it sends.
    Crash,
    Forward {
        ms: i64,
    },
    Run,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    // Few days, so that a reminder often comes back to one that it had before.
    let ahead = prop_oneof![3 => 0i64..3, 2 => -2i64..60];
    let put = (0..KEYS, 0..TYPES.len(), ahead, 0u8..2, any::<bool>())
        .prop_map(|(key, event_type, ahead, data, moment)| Op::Put { key, event_type, ahead, data, moment });
    let lead = (0..TYPES.len(), prop::option::weighted(0.8, 0u32..40))
        .prop_map(|(event_type, days)| Op::Lead { event_type, days });
    let forward = prop_oneof![
        6 => (1i64..24 * 60).prop_map(|minutes| Op::Forward { ms: minutes * MINUTE_MS }),
        3 => (1i64..20).prop_map(|days| Op::Forward { ms: days * DAY_MS }),
        1 => (20i64..400).prop_map(|days| Op::Forward { ms: days * DAY_MS }),
    ];
    let op = prop_oneof![
        10 => put,
        3 => (0..KEYS).prop_map(Op::Again),
        2 => lead,
        1 => (0..ZONES.len()).prop_map(Op::Zone),
        1 => (0..HOURS.len()).prop_map(Op::Hour),
        2 => (0..KEYS).prop_map(Op::Cancel),
        1 => Just(Op::Restart),
        1 => Just(Op::Crash),
        6 => forward,
        8 => Just(Op::Run),
    ];
    prop::collection::vec(op, 1..60)
}

/// What a reminder should be.
#[derive(Clone, Debug)]
struct Expected {
    event_type: usize,
    date: Day,
    data: u8,
    state: ReminderState,
}

struct World {
    /// Nothing between the end of control and its start.
    store: Option<Arc<Store>>,
    dir: tempfile::TempDir,
    clock: Arc<AtomicI64>,
    settings: Settings,
    reminders: BTreeMap<u8, Expected>,
    sent: BTreeSet<(u8, Day)>,
}

fn tenant() -> TenantId {
    TenantId::default_tenant()
}

impl World {
    async fn new() -> Self {
        let TestStore { store, dir } = TestStore::new().await;
        let world = Self {
            store: Some(Arc::new(store)),
            dir,
            clock: Arc::new(AtomicI64::new(START)),
            settings: Settings { lead_days: [(TYPES[0].to_owned(), 7)].into(), ..Settings::default() },
            reminders: BTreeMap::new(),
            sent: BTreeSet::new(),
        };
        world.keep_settings().await;
        world
    }

    fn store(&self) -> &Arc<Store> {
        self.store.as_ref().unwrap()
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.clock.load(Ordering::SeqCst))
    }

    fn schedule(&self) -> Schedule {
        Schedule::new(&self.settings.time_zone, &self.settings.send_at).unwrap()
    }

    fn due(&self, event_type: usize, date: Day) -> Option<Timestamp> {
        let lead = self.settings.lead_days.get(TYPES[event_type])?;
        Some(self.schedule().due(date, *lead))
    }

    async fn keep_settings(&self) {
        let mut change = self.store().change().await.unwrap();
        change.put_settings(&tenant(), &self.settings, self.now()).await.unwrap();
        change.commit().await.unwrap();
    }

    async fn happen(&mut self, op: &Op) {
        match op {
            Op::Put { key, event_type, ahead, data, moment } => {
                let at = Timestamp::from_millis(self.now().as_millis() + ahead * DAY_MS);
                let day = self.schedule().day_of(at);
                let given = if *moment { ReminderDate::Moment(at) } else { ReminderDate::Day(day) };
                self.put(*key, *event_type, given, day, *data).await;
            }
            Op::Again(key) => {
                if let Some(known) = self.reminders.get(key).cloned() {
                    let given = ReminderDate::Day(known.date);
                    self.put(*key, known.event_type, given, known.date, known.data).await;
                }
            }
            Op::Lead { event_type, days } => {
                let name = TYPES[*event_type].to_owned();
                match days {
                    Some(days) => self.settings.lead_days.insert(name, *days),
                    None => self.settings.lead_days.remove(&name),
                };
                self.keep_settings().await;
            }
            Op::Zone(zone) => {
                self.settings.time_zone = ZONES[*zone].to_owned();
                self.keep_settings().await;
            }
            Op::Hour(hour) => {
                self.settings.send_at = HOURS[*hour].to_owned();
                self.keep_settings().await;
            }
            Op::Cancel(key) => self.cancel(*key).await,
            Op::Restart => {
                self.store().close().await;
                self.store = None;
                let url = format!("sqlite:{}/state/postrider.db", self.dir.path().display());
                self.store = Some(Arc::new(Store::open(&url, &key(1)).await.unwrap()));
            }
            Op::Crash => {
                for group in self.store().reminder_groups().await.unwrap() {
                    let mut change = self.store().change().await.unwrap();
                    change.send_reminders(&group, CHUNK, self.now()).await.unwrap();
                    drop(change);
                }
            }
            Op::Forward { ms } => {
                self.clock.fetch_add(*ms, Ordering::SeqCst);
            }
            Op::Run => self.run().await,
        }
    }

    async fn put(&mut self, key: u8, event_type: usize, given: ReminderDate, date: Day, data: u8) {
        let now = self.now();
        let new = NewReminder {
            tenant: tenant(),
            key: format!("k{key}"),
            event_type: EventType::parse(TYPES[event_type]).unwrap(),
            date: given,
            data: Some(serde_json::value::to_raw_value(&data).unwrap().into()),
            current_context: None,
        };
        let mut change = self.store().change().await.unwrap();
        let put = change.put_reminder(&new, now).await.unwrap();
        change.commit().await.unwrap();

        let same = self.reminders.get(&key).is_some_and(|known| {
            known.state != ReminderState::Cancelled
                && (known.event_type, known.date, known.data) == (event_type, date, data)
        });
        if !same && !self.settings.lead_days.contains_key(TYPES[event_type]) {
            assert!(matches!(put, Err(ReminderRefused::NoLead)), "{put:?}");
            return;
        }
        if !same && date < self.schedule().day_of(now) {
            assert!(matches!(put, Err(ReminderRefused::Past { .. })), "{put:?}");
            return;
        }
        let state =
            if self.sent.contains(&(key, date)) { ReminderState::Sent } else { ReminderState::Pending };
        let put = put.unwrap();
        assert_eq!(
            (put.row.state, put.row.date, put.is_new),
            (state, date, !self.reminders.contains_key(&key))
        );
        assert_eq!(put.rule.due(date), self.due(event_type, date));
        self.reminders.insert(key, Expected { event_type, date, data, state });
    }

    async fn cancel(&mut self, key: u8) {
        let mut change = self.store().change().await.unwrap();
        let cancelled = change.cancel_reminder("default", &format!("k{key}"), self.now()).await.unwrap();
        change.commit().await.unwrap();
        let Some(known) = self.reminders.get_mut(&key) else {
            return assert!(cancelled.is_err(), "there is none");
        };
        if known.state == ReminderState::Sent {
            assert!(cancelled.is_err(), "it was sent");
        } else {
            assert!(cancelled.is_ok());
            known.state = ReminderState::Cancelled;
        }
    }

    /// Lets the task do its work, and compares what went out with what was due.
    async fn run(&mut self) {
        let clock = self.clock.clone();
        let reminders = Reminders {
            store: self.store().clone(),
            metrics: Metrics::register(&prometheus::Registry::new()).unwrap(),
            clock: Arc::new(move || Timestamp::from_millis(clock.load(Ordering::SeqCst))),
            turn: 0.into(),
        };
        let stop = CancellationToken::new();
        let mut look = reminders.look(&stop).await.unwrap();
        while look.more {
            look = reminders.look(&stop).await.unwrap();
        }
        assert!(!look.full);

        let now = self.now();
        let mut expected = BTreeMap::new();
        let mut next: Option<Timestamp> = None;
        let dues: Vec<_> = self
            .reminders
            .iter()
            .filter(|(_, known)| known.state == ReminderState::Pending)
            .filter_map(|(key, known)| Some((*key, self.due(known.event_type, known.date)?)))
            .collect();
        for (key, due) in dues {
            if due > now {
                next = [next, Some(due)].into_iter().flatten().min();
                continue;
            }
            let known = self.reminders.get_mut(&key).unwrap();
            known.state = ReminderState::Sent;
            assert!(self.sent.insert((key, known.date)), "the model sends nothing twice");
            let name = format!("k{key}");
            let id = event_id(&tenant(), &name, known.date).to_string();
            expected.insert(id, (TYPES[known.event_type].to_owned(), name, u64::from(known.data)));
        }
        assert_eq!(self.published().await, expected, "what was due went out, once, and nothing else");
        assert_eq!(look.next, next);
        self.compare().await;
    }

    /// Takes what waits in the outbox.
    async fn published(&self) -> BTreeMap<String, (String, String, u64)> {
        let mut published = BTreeMap::new();
        for (lane, kind) in
            [(OutboxLane::Configuration, OutboxKind::Config), (OutboxLane::Events, OutboxKind::Event)]
        {
            for row in self.store().unsent(lane, 1000).await.unwrap() {
                self.store().mark_sent(kind, row.seq, self.now()).await.unwrap();
                if kind == OutboxKind::Event {
                    let event: Value = serde_json::from_slice(&row.body).unwrap();
                    let text = |name: &str| event[name].as_str().unwrap().to_owned();
                    assert_eq!((row.tenant.as_str(), row.message_id == text("id")), ("default", true));
                    let what = (text("event_type"), text("key"), event["data"].as_u64().unwrap());
                    assert!(published.insert(text("id"), what).is_none(), "twice in a row");
                }
            }
        }
        published
    }

    /// The store says what the model says.
    async fn compare(&self) {
        for (key, known) in &self.reminders {
            let row = self.store().reminder("default", &format!("k{key}")).await.unwrap().unwrap();
            assert_eq!((row.state, row.date), (known.state, known.date), "k{key}");
            assert_eq!(row.event_type, TYPES[known.event_type]);
        }
        let pending = |name: &str| {
            let of = self.reminders.values().filter(|known| TYPES[known.event_type] == name);
            of.filter(|known| known.state == ReminderState::Pending).count() as u64
        };
        for group in self.store().reminder_groups_of("default").await.unwrap() {
            assert_eq!(group.pending, pending(&group.event_type), "{}", group.event_type);
        }
    }
}

/// The seed is printed when this fails; `PROPTEST_RNG_SEED` runs it again.
#[test]
fn one_event_for_each_live_reminder_whatever_happens() {
    let config = Config { cases: 48, failure_persistence: None, ..Config::default() };
    let seed = match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => rand::random(),
    };
    let mut runner = TestRunner::new(Config { rng_seed: RngSeed::Fixed(seed), ..config });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let failed = runner.run(&ops(), |ops| {
        runtime.block_on(async {
            let mut world = World::new().await;
            for op in &ops {
                world.happen(op).await;
            }
            // In the end everything that lives goes out.
            world.settings.lead_days = TYPES.map(|name| (name.to_owned(), 3)).into();
            world.keep_settings().await;
            world.clock.fetch_add(500 * DAY_MS, Ordering::SeqCst);
            world.run().await;
            assert!(!world.reminders.values().any(|known| known.state == ReminderState::Pending));
            world.run().await;
        });
        Ok(())
    });
    if let Err(failed) = failed {
        panic!("PROPTEST_RNG_SEED={seed}: {failed}");
    }
}

/// When more is due than the outbox takes, every group has its turn.
#[tokio::test]
async fn no_group_waits_for_all_of_the_others() {
    let t = TestStore::new().await;
    let (now, groups) = (Timestamp::from_millis(START), MOST_UNSENT / u64::from(CHUNK) + 1);
    let today = Schedule::new("UTC", "09:00").unwrap().day_of(now);
    let mut change = t.store.change().await.unwrap();
    let lead_days = (0..groups).map(|group| (format!("T{group}"), 300)).collect();
    change.put_settings(&tenant(), &Settings { lead_days, ..Settings::default() }, now).await.unwrap();
    for n in 0..groups * u64::from(CHUNK) * 2 {
        let new = NewReminder {
            tenant: tenant(),
            key: format!("k{n}"),
            event_type: EventType::parse(&format!("T{}", n % groups)).unwrap(),
            date: ReminderDate::Day(today.plus(1)),
            data: None,
            current_context: None,
        };
        change.put_reminder(&new, now).await.unwrap().unwrap();
    }
    change.commit().await.unwrap();
    let store = Arc::new(t.store);
    let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
    let reminders = Reminders { store: store.clone(), metrics, clock: Arc::new(move || now), turn: 0.into() };
    let stop = CancellationToken::new();
    for _ in 0..2 {
        let look = reminders.look(&stop).await.unwrap();
        assert!(look.full && look.sent == MOST_UNSENT, "{look:?}");
        store.mark_sent(OutboxKind::Config, i64::MAX, now).await.unwrap();
        store.mark_sent(OutboxKind::Event, i64::MAX, now).await.unwrap();
    }
    let left = store.reminder_groups().await.unwrap();
    let waiting: Vec<u64> = left.iter().map(|group| group.pending).collect();
    assert_eq!(waiting, [u64::from(CHUNK); 2], "one has had its turn, like the other");
}

/// What many pending reminders cost, measured: `POSTRIDER_BENCH_REMINDERS` of them, ten million by default.
///
/// `make bench` runs it. The first are put as the API puts them, the rest in one statement.
#[tokio::test]
#[ignore = "it takes minutes and gigabytes; make bench runs it"]
#[allow(clippy::print_stdout, reason = "its numbers are what it is for")]
async fn ten_million_reminders() {
    const PUT: i64 = 20_000;
    const IN_ONE: i64 = 100;
    let n: i64 = std::env::var("POSTRIDER_BENCH_REMINDERS").map_or(10_000_000, |n| n.parse().unwrap());
    let t = TestStore::new().await;
    let now = Timestamp::from_millis(START);
    let schedule = Schedule::new("UTC", "09:00").unwrap();
    let today = schedule.day_of(now);
    let mut change = t.store.change().await.unwrap();
    let settings = Settings { lead_days: [(TYPES[0].to_owned(), 14)].into(), ..Settings::default() };
    change.put_settings(&tenant(), &settings, now).await.unwrap();
    change.commit().await.unwrap();
    let memory = resident_mib();

    // Dates from a month on, for a year, none of them due.
    let begun = Instant::now();
    let new = |key: i64| NewReminder {
        tenant: tenant(),
        key: format!("member-{key:09}"),
        event_type: EventType::parse(TYPES[0]).unwrap(),
        date: ReminderDate::Day(today.plus(30 + i32::try_from(key % 365).unwrap())),
        data: Some(
            serde_json::value::to_raw_value(&serde_json::json!({ "points": key, "member": key }))
                .unwrap()
                .into(),
        ),
        current_context: None,
    };
    for first in (0..PUT.min(n)).step_by(IN_ONE as usize) {
        let mut change = t.store.change().await.unwrap();
        for key in first..(first + IN_ONE).min(n) {
            change.put_reminder(&new(key), now).await.unwrap().unwrap();
        }
        change.commit().await.unwrap();
    }
    let put = begun.elapsed();
    let begun = Instant::now();
    t.fill_reminders(PUT, n).await;
    let filled = begun.elapsed();
    println!("{n} pending reminders");
    println!("  put, {IN_ONE} in a transaction: {:.0}/s", PUT.min(n) as f64 / put.as_secs_f64());
    println!("  filled up: {:.0}/s", (n - PUT.min(n)) as f64 / filled.as_secs_f64());
    let bytes = std::fs::metadata(t.dir.path().join("state/postrider.db")).unwrap().len();
    println!("  file: {} MiB, {} bytes each", bytes >> 20, bytes / u64::try_from(n).unwrap());

    let TestStore { store, dir } = t.reopen().await;
    let clock = Arc::new(AtomicI64::new(START));
    let at = clock.clone();
    let reminders = Reminders {
        store: Arc::new(store),
        metrics: Metrics::register(&prometheus::Registry::new()).unwrap(),
        clock: Arc::new(move || Timestamp::from_millis(at.load(Ordering::SeqCst))),
        turn: 0.into(),
    };
    let stop = CancellationToken::new();
    let begun = Instant::now();
    let look = reminders.look(&stop).await.unwrap();
    let idle = begun.elapsed();
    println!("  a look when nothing is due: {:.1} ms", idle.as_secs_f64() * 1e3);
    assert_eq!((look.sent, look.next), (0, Some(schedule.due(today.plus(30), 14))));

    // The first day's are due.
    clock.store(look.next.unwrap().as_millis(), Ordering::SeqCst);
    let begun = Instant::now();
    let look = reminders.look(&stop).await.unwrap();
    let busy = begun.elapsed();
    println!("  finding and sending the first {}: {:.1} ms", look.sent, busy.as_secs_f64() * 1e3);
    let expected = u64::from(CHUNK).min(u64::try_from(n / 365 + 1).unwrap());
    assert_eq!(look.sent, expected);
    let moved = Instant::now();
    let mut change = reminders.store.change().await.unwrap();
    let shorter = Settings { lead_days: [(TYPES[0].to_owned(), 3)].into(), ..settings };
    change.put_settings(&tenant(), &shorter, now).await.unwrap();
    change.commit().await.unwrap();
    let look = reminders.look(&stop).await.unwrap();
    println!("  another lead for all of them, and a look: {:.1} ms", moved.elapsed().as_secs_f64() * 1e3);
    assert!(!look.more && look.next > Some(Timestamp::from_millis(clock.load(Ordering::SeqCst))));
    let grown = resident_mib().saturating_sub(memory);
    println!("  memory: {grown} MiB more than before the first");
    assert!(grown < 256, "an index, not memory");
    assert!(idle < Duration::from_secs(1) && busy < Duration::from_secs(2));
    drop(dir);
}

/// Memory that this process has.
fn resident_mib() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
    (pages * 4096) >> 20
}
