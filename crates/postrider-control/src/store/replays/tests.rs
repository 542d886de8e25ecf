//! Plans against a simple look at everything, over restarts and whatever else happens meanwhile; each delivery once.

use std::collections::{BTreeMap, BTreeSet};

use postrider_core::books::End;
use postrider_core::wire::{
    DeliveryMessage, DoneFact, EventFact, EventFate, EventRecord, Fact, JournalMessage, Owed, SCHEMA,
    WebhookRecord, decode,
};
use postrider_core::{DeliveryId, EventId, EventType, TenantId, WebhookId, event};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::super::test_store::TestStore;
use super::super::{Entry, OutboxLane};
use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_100_000);
const TYPES: [&str; 3] = ["A", "B", "C"];
const STATES: [&str; 4] = ["delivered", "dead", "cancelled", "skipped"];

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + ms)
}

fn webhook_id(n: usize) -> WebhookId {
    WebhookId::from_trusted(format!("wh_{n}"))
}

fn delivery(event: &str, webhook: usize) -> DeliveryId {
    DeliveryId::of(&TenantId::default_tenant(), &EventId::from_trusted(event), &webhook_id(webhook))
}

fn record_of(id: &str, event_type: &str, accepted_at: Timestamp) -> Arc<EventRecord> {
    Arc::new(EventRecord {
        tenant: TenantId::default_tenant(),
        id: EventId::from_trusted(id),
        event_type: EventType::parse(event_type).unwrap(),
        time: "2026-11-21T20:00:00Z".into(),
        context: event::null(),
        data: event::null(),
        key: None,
        correlation_id: None,
        traceparent: None,
        accepted_at,
    })
}

use std::sync::Arc;

fn routed(id: &str, event_type: &str, accepted_at: Timestamp, webhooks: &[usize]) -> Fact {
    let owed: Vec<Owed> =
        webhooks.iter().map(|n| Owed { delivery: delivery(id, *n), webhook: webhook_id(*n) }).collect();
    Fact::Event(EventFact {
        tenant: TenantId::default_tenant(),
        event_id: EventId::from_trusted(id),
        at: accepted_at,
        fate: if owed.is_empty() { EventFate::Unmatched } else { EventFate::Routed(owed) },
        event: Some(record_of(id, event_type, accepted_at)),
        marks: Vec::new(),
    })
}

fn done(delivery: DeliveryId, webhook: usize, series: u32, state: &str) -> Fact {
    let end = match state {
        "delivered" => End::Delivered,
        "dead" => End::Dead,
        "cancelled" => End::Cancelled,
        _ => End::Skipped,
    };
    let (webhook, reason) = (webhook_id(webhook), "exhausted".to_owned());
    Fact::Done(DoneFact { delivery, series, webhook, end, reason, attempts: 0, at: at(90_000), repeats: 0 })
}

/// A store with facts of one writer.
struct Town {
    t: TestStore,
    facts: u64,
}

impl Town {
    async fn new(webhooks: usize) -> Self {
        let town = Self { t: TestStore::new().await, facts: 0 };
        for n in 0..webhooks {
            town.webhook(n, |record| record.all = true).await;
        }
        town
    }

    async fn webhook(&self, n: usize, change: impl FnOnce(&mut WebhookRecord)) {
        let mut record =
            WebhookRecord::new(webhook_id(n), TenantId::default_tenant(), "https://example.com/");
        change(&mut record);
        let mut change = self.t.store.change().await.unwrap();
        change.put_webhook(&record, "", at(0)).await.unwrap();
        change.commit().await.unwrap();
    }

    async fn delete(&self, n: usize) {
        let mut change = self.t.store.change().await.unwrap();
        change.delete_webhook(webhook_id(n).as_str(), NOW).await.unwrap();
        change.commit().await.unwrap();
    }

    async fn record(&mut self, facts: Vec<Fact>) {
        let first = self.facts;
        self.facts += facts.len() as u64;
        let message = JournalMessage { schema: SCHEMA, writer: "w".into(), first, duplicates: 0, facts };
        self.t.store.record(&[Entry::Journal(message)], NOW).await.unwrap();
    }

    async fn make(&self, new: NewReplay) -> ReplayRow {
        let mut change = self.t.store.change().await.unwrap();
        let row = change.make_replay(&new, NOW).await.unwrap().unwrap();
        change.commit().await.unwrap();
        row
    }

    async fn row(&self, id: &str) -> ReplayRow {
        self.t.store.replay("default", id).await.unwrap().unwrap()
    }

    async fn step(&self, id: &str, bounds: PlanBounds) -> Planned {
        let row = self.row(id).await;
        self.t.store.plan_replay(&row, &mut None, bounds, NOW).await.unwrap()
    }

    async fn plan(&self, new: NewReplay) -> ReplayRow {
        let id = self.make(new).await.id;
        while self.step(&id, PlanBounds::default()).await == Planned::More {}
        self.row(&id).await
    }

    async fn run(&self, id: &str) {
        let mut change = self.t.store.change().await.unwrap();
        change.run_replay("default", id).await.unwrap().unwrap();
        change.commit().await.unwrap();
        self.t.store.start_replays(NOW).await.unwrap();
    }

    async fn send(&self, row: &ReplayRow, limit: u32) -> send::SentItems {
        let mut change = self.t.store.change().await.unwrap();
        let sent = change.send_replay(row.seq, limit, NOW).await.unwrap();
        change.commit().await.unwrap();
        sent
    }

    async fn send_all(&self, row: &ReplayRow) {
        while !self.send(row, 3).await.done {}
    }

    /// What waits in the outbox: delivery, webhook, series and whether it was asked for; then it is empty.
    async fn posted(&self) -> Vec<(String, String, u32, bool)> {
        let mut posted = Vec::new();
        // None is sent before the configuration that was changed before it.
        let config = self.t.store.unsent(OutboxLane::Configuration, 1000).await.unwrap();
        if let Some(last) = config.last() {
            self.t.store.mark_sent(last.kind, last.seq, NOW).await.unwrap();
        }
        loop {
            let rows = self.t.store.unsent(OutboxLane::Deliveries, 100).await.unwrap();
            let Some(last) = rows.last() else { return posted };
            for row in &rows {
                let message: DeliveryMessage = decode(&row.body).unwrap();
                let to = &message.work[0].to[0];
                assert_eq!((to.attempt, to.due), (1, None));
                assert_eq!(
                    to.id,
                    DeliveryId::of(&message.work[0].event.tenant, &message.work[0].event.id, &to.webhook)
                );
                posted.push((to.id.to_string(), to.webhook.to_string(), to.series, to.asked));
            }
            self.t.store.mark_sent(last.kind, last.seq, NOW).await.unwrap();
        }
    }

    async fn balanced(&self) -> postrider_core::books::Counts {
        let books = self.t.store.books(NOW.plus_ms(1)).await.unwrap();
        assert_eq!(books.counts.drift(None).total(), 0, "{:?}", books.counts);
        books.counts
    }

    async fn items(&self, row: &ReplayRow) -> BTreeSet<(String, String)> {
        let items: Vec<(String, String)> = sqlx::query_as(
            "SELECT e.id, w.id FROM replay_items i JOIN events e ON e.seq = i.event JOIN webhooks w ON w.seq = i.webhook
             WHERE i.replay = $1",
        )
        .bind(row.seq)
        .fetch_all(&self.t.store.readers)
        .await
        .unwrap();
        items.into_iter().collect()
    }
}

fn new(id: &str) -> NewReplay {
    NewReplay {
        id: id.to_owned(),
        tenant: "default".to_owned(),
        asked: ReplayAsked { states: vec!["dead".to_owned()], ..ReplayAsked::default() },
        event_ids: None,
        since: None,
        until: None,
        rate_per_second: 100,
        run: false,
    }
}

fn to(target: ReplayTarget) -> ReplayAsked {
    ReplayAsked { target, ..ReplayAsked::default() }
}

/// What is in the store, kept beside it.
struct Known {
    id: String,
    event_type: &'static str,
    accepted_at: Timestamp,
    has_body: bool,
    /// By webhook.
    deliveries: BTreeMap<usize, &'static str>,
}

/// What a plan should come to: the slow and simple way.
fn expected(
    history: &[Known],
    new: &NewReplay,
    deleted: &BTreeSet<usize>,
    all: &[usize],
) -> (BTreeSet<(String, String)>, Reasons) {
    let (mut items, mut left_out) = (BTreeSet::new(), Reasons::new());
    let mut leave = |reason| *left_out.entry(reason).or_default() += 1;
    let asked = &new.asked;
    let named = |n: usize| asked.webhook.as_deref().is_none_or(|id| id == webhook_id(n).as_str());
    let stated = |state: &str| asked.states.is_empty() || asked.states.iter().any(|known| known == state);
    for event in history {
        let in_time = new.since.is_none_or(|since| event.accepted_at >= since)
            && event.accepted_at < new.until.unwrap_or(NOW).min(NOW);
        let of_type = asked.event_types.is_empty() || asked.event_types.iter().any(|t| t == event.event_type);
        let by_id = new.event_ids.as_ref().is_none_or(|ids| ids.contains(&event.id));
        if !(in_time && of_type && by_id) {
            continue;
        }
        if asked.target == ReplayTarget::Original {
            for (n, state) in event.deliveries.iter().filter(|(n, _)| named(**n)) {
                match *state {
                    "pending" => leave(LeftOut::UnderWay),
                    state if !stated(state) => {}
                    _ if deleted.contains(n) => leave(LeftOut::WebhookDeleted),
                    _ if !event.has_body => leave(LeftOut::BodyGone),
                    _ => {
                        items.insert((event.id.clone(), webhook_id(*n).to_string()));
                    }
                }
            }
            continue;
        }
        if (asked.webhook.is_some() || !asked.states.is_empty())
            && !event.deliveries.iter().any(|(n, state)| named(*n) && stated(state))
        {
            continue;
        }
        if !event.has_body {
            leave(LeftOut::BodyGone);
            continue;
        }
        let targets: Vec<usize> = match &asked.target {
            ReplayTarget::Webhook(id) => vec![id.strip_prefix("wh_").unwrap().parse().unwrap()],
            _ => all.iter().copied().filter(|n| !deleted.contains(n)).collect(),
        };
        for n in targets {
            match event.deliveries.get(&n) {
                Some(&"pending") => leave(LeftOut::UnderWay),
                Some(&"delivered") if !asked.again => leave(LeftOut::Delivered),
                _ => {
                    items.insert((event.id.clone(), webhook_id(n).to_string()));
                }
            }
        }
    }
    (items, left_out)
}

#[tokio::test]
async fn a_plan_is_what_a_look_at_everything_gives_and_each_is_sent_once() {
    for round in 0..12u64 {
        let seed = rand::random::<u64>();
        println!("round {round}, seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        // The last one is new: it has had no event.
        let mut town = Town::new(5).await;
        let mut history = Vec::new();
        let mut facts = Vec::new();
        for n in 0..60 {
            let id = format!("e{n}");
            let event_type = TYPES[rng.random_range(0..3)];
            // Not in order, and several at the same time.
            let accepted_at = at(rng.random_range(0..40) * 1000);
            let webhooks: Vec<usize> = (0..4).filter(|_| rng.random_bool(0.6)).collect();
            facts.push(routed(&id, event_type, accepted_at, &webhooks));
            let mut deliveries = BTreeMap::new();
            for webhook in webhooks {
                let state = *["pending", "delivered", "dead", "cancelled", "skipped"]
                    .get(rng.random_range(0..5))
                    .unwrap();
                if state != "pending" {
                    facts.push(done(delivery(&id, webhook), webhook, 1, state));
                }
                deliveries.insert(webhook, state);
            }
            history.push(Known { id, event_type, accepted_at, has_body: true, deliveries });
        }
        town.record(facts).await;
        for event in &mut history {
            if rng.random_bool(0.1) {
                event.has_body = false;
                sqlx::query("DELETE FROM bodies WHERE event = (SELECT seq FROM events WHERE id = $1)")
                    .bind(&event.id)
                    .execute(&town.t.store.writer)
                    .await
                    .unwrap();
            }
        }
        let deleted: BTreeSet<usize> = rng.random_bool(0.5).then_some(3).into_iter().collect();
        for n in &deleted {
            town.delete(*n).await;
        }
        let before = town.balanced().await;

        let mut asked = to(match rng.random_range(0..4) {
            0 => ReplayTarget::Matching,
            1 => ReplayTarget::Webhook("wh_4".to_owned()),
            2 => ReplayTarget::Webhook("wh_1".to_owned()),
            _ => ReplayTarget::Original,
        });
        asked.states = STATES.iter().filter(|_| rng.random_bool(0.5)).map(|s| (*s).to_owned()).collect();
        if asked.target == ReplayTarget::Original {
            if asked.states.is_empty() {
                asked.states.push("dead".to_owned());
            }
        } else {
            asked.again = rng.random_bool(0.3);
        }
        asked.webhook = rng.random_bool(0.3).then(|| webhook_id(rng.random_range(0..4)).to_string());
        asked.event_types = TYPES.iter().filter(|_| rng.random_bool(0.3)).map(|t| (*t).to_owned()).collect();
        let event_ids = rng.random_bool(0.3).then(|| {
            (0..60)
                .filter(|_| rng.random_bool(0.3))
                .map(|n| format!("e{n}"))
                .chain(["x".to_owned()])
                .collect()
        });
        asked.events = event_ids.as_ref().map_or(0, |ids: &Vec<String>| ids.len() as u64);
        let since = rng.random_bool(0.5).then(|| at(rng.random_range(0..20) * 1000));
        let until = rng.random_bool(0.5).then(|| at(rng.random_range(20..50) * 1000));
        let new = NewReplay { asked, event_ids, since, until, ..new("rpl_1") };
        println!("{new:?}");
        let (items, mut left_out) = expected(&history, &new, &deleted, &[0, 1, 2, 3, 4]);
        if new.event_ids.is_some() {
            left_out.insert(LeftOut::UnknownEvent, 1);
        }

        town.make(new.clone()).await;
        let mut later = 0;
        loop {
            let bounds = PlanBounds {
                events: rng.random_range(1..20),
                bodies: rng.random_range(1..20),
                deliveries: rng.random_range(1..30),
                items: MAX_ITEMS,
            };
            if town.step("rpl_1", bounds).await == Planned::Over {
                break;
            }
            if rng.random_bool(0.2) {
                town.t = town.t.reopen().await;
            }
            if rng.random_bool(0.3) {
                // What comes later is not looked at, whenever it says that it was accepted.
                later += 1;
                let id = format!("later{later}");
                let facts = vec![routed(&id, "A", at(30_000), &[0]), done(delivery(&id, 0), 0, 1, "dead")];
                town.record(facts).await;
            }
        }
        let row = town.row("rpl_1").await;
        assert_eq!(row.state, ReplayState::Planned);
        assert_eq!(town.items(&row).await, items, "seed {seed}");
        assert_eq!((row.chosen, &row.left_out), (items.len() as u64, &left_out), "seed {seed}");
        assert!(town.posted().await.is_empty(), "a plan sends nothing");

        town.run("rpl_1").await;
        let mut posted = Vec::new();
        loop {
            // Ended before the commit: as if it had not been.
            if rng.random_bool(0.3) {
                let mut change = town.t.store.change().await.unwrap();
                change.send_replay(row.seq, 7, NOW).await.unwrap();
                drop(change);
                town.t = town.t.reopen().await;
            }
            let limit = rng.random_range(1..10);
            let sent = town.send(&row, limit).await;
            if rng.random_bool(0.3) {
                town.t = town.t.reopen().await;
            }
            posted.extend(town.posted().await);
            if sent.done {
                break;
            }
            assert!(sent.sent > 0, "nothing else changes these deliveries");
        }
        let row = town.row("rpl_1").await;
        assert_eq!((row.state, row.sent, row.to_send()), (ReplayState::Done, items.len() as u64, 0));
        let sent: BTreeSet<(String, String)> =
            posted.iter().map(|(id, webhook, ..)| (id.clone(), webhook.clone())).collect();
        let wanted: BTreeSet<(String, String)> = items
            .iter()
            .map(|(event, webhook)| {
                let n: usize = webhook.strip_prefix("wh_").unwrap().parse().unwrap();
                (delivery(event, n).to_string(), webhook.clone())
            })
            .collect();
        assert_eq!(sent, wanted, "seed {seed}");
        assert_eq!(posted.len(), items.len(), "each once, seed {seed}");
        for (id, webhook, series, asked) in &posted {
            let known = history.iter().any(|event| {
                event.deliveries.keys().any(|n| {
                    delivery(&event.id, *n).as_str() == id && webhook_id(*n).as_str() == webhook.as_str()
                })
            });
            assert_eq!((*series, *asked), (if known { 2 } else { 1 }, true), "{id}");
        }
        let after = town.balanced().await;
        let more = items.len() as u64;
        assert_eq!((after.owed, after.pending), (before.owed + more + later, before.pending + more));

        // How they end is counted, each once, whatever comes again.
        let mut ends = BTreeMap::<&str, u64>::new();
        let mut facts = Vec::new();
        for (id, webhook, series, _) in &posted {
            let state = STATES[rng.random_range(0..4)];
            let n = webhook.strip_prefix("wh_").unwrap().parse().unwrap();
            let fact = done(DeliveryId::from_trusted(id.as_str()), n, *series, state);
            facts.extend([fact.clone(), fact]);
            *ends.entry(state).or_default() += 1;
        }
        town.record(facts).await;
        let outcomes = town.t.store.replay_outcomes(row.seq).await.unwrap();
        let count = |state: &str| ends.get(state).copied().unwrap_or(0);
        let wanted = Outcomes {
            delivered: count("delivered"),
            dead: count("dead"),
            cancelled: count("cancelled"),
            skipped: count("skipped"),
            pending: 0,
        };
        assert_eq!(outcomes, wanted);
        town.balanced().await;
    }
}

#[tokio::test]
async fn what_changed_since_it_was_chosen_is_dropped_and_counted() {
    let mut town = Town::new(3).await;
    let mut facts = Vec::new();
    for n in 0..6 {
        let (id, webhook) = (format!("e{n}"), usize::from(n == 4));
        facts.extend([routed(&id, "A", at(n), &[webhook]), done(delivery(&id, webhook), webhook, 1, "dead")]);
    }
    town.record(facts).await;
    let row = town.plan(new("rpl_1")).await;
    assert_eq!(row.chosen, 6);
    // Somebody redelivers two of them; one is delivered, one is under way.
    let mut change = town.t.store.change().await.unwrap();
    for n in [0, 1] {
        change.redeliver("default", delivery(&format!("e{n}"), 0).as_str(), NOW).await.unwrap().unwrap();
    }
    change.commit().await.unwrap();
    town.record(vec![done(delivery("e0", 0), 0, 2, "delivered")]).await;
    town.t.execute("DELETE FROM bodies WHERE event = (SELECT seq FROM events WHERE id = 'e2')").await;
    town.t
        .execute("UPDATE bodies SET record = x'00' WHERE event = (SELECT seq FROM events WHERE id = 'e3')")
        .await;
    town.delete(1).await;
    town.posted().await;
    town.run("rpl_1").await;
    town.send_all(&row).await;
    let row = town.row("rpl_1").await;
    let wanted = [
        (LeftOut::MadeAgain, 1),
        (LeftOut::UnderWay, 1),
        (LeftOut::BodyGone, 1),
        (LeftOut::Refused, 1),
        (LeftOut::WebhookDeleted, 1),
    ];
    assert_eq!(row.dropped, Reasons::from(wanted));
    assert_eq!((row.chosen, row.sent, row.to_send(), row.state), (6, 1, 0, ReplayState::Done));
    let posted = town.posted().await;
    assert_eq!(posted.iter().map(|(id, ..)| id.as_str()).collect::<Vec<_>>(), [delivery("e5", 0).as_str()]);
    town.balanced().await;
}

#[tokio::test]
async fn matching_asks_what_the_router_asks_and_leaves_out_who_would_not_be_sent_it() {
    let mut town = Town::new(0).await;
    let only = |record: &mut WebhookRecord, filter: Option<&str>| {
        record.event_types.insert(EventType::parse("A").unwrap());
        record.filter = filter.map(str::to_owned);
    };
    town.webhook(0, |record| only(record, None)).await;
    town.webhook(1, |record| only(record, Some("data == 7"))).await;
    town.webhook(2, |record| record.all = true).await;
    town.webhook(3, |record| {
        record.all = true;
        record.state = "disabled".to_owned();
    })
    .await;
    town.webhook(4, |record| {
        record.all = true;
        record.state = "paused".to_owned();
    })
    .await;
    town.webhook(5, |record| {
        record.all = true;
        record.expires_at = Some(at(50));
    })
    .await;
    town.record(vec![routed("e0", "A", at(0), &[]), routed("e1", "B", at(1), &[])]).await;
    let row = town.plan(NewReplay { asked: to(ReplayTarget::Matching), ..new("rpl_1") }).await;
    let items = town.items(&row).await;
    let wanted = [("e0", "wh_0"), ("e0", "wh_2"), ("e0", "wh_4"), ("e1", "wh_2"), ("e1", "wh_4")];
    assert_eq!(items, wanted.map(|(event, webhook)| (event.to_owned(), webhook.to_owned())).into());
    assert_eq!(row.left_out, Reasons::from([(LeftOut::WebhookInactive, 4)]));
    // One that is named takes it anyway.
    for (id, webhook) in [("rpl_2", "wh_3"), ("rpl_3", "wh_1")] {
        let asked = to(ReplayTarget::Webhook(webhook.to_owned()));
        assert_eq!(town.plan(NewReplay { asked, ..new(id) }).await.chosen, 2, "{webhook}");
    }
}

#[tokio::test]
async fn tests_of_webhooks_and_what_another_replay_has_are_left_out() {
    let mut town = Town::new(1).await;
    let test = format!("{}test_1", event::OWN_ID_PREFIX);
    let mut facts = Vec::new();
    for id in ["e0", "e1", test.as_str()] {
        facts.extend([routed(id, "A", at(0), &[0]), done(delivery(id, 0), 0, 1, "dead")]);
    }
    town.record(facts).await;
    let first = town.plan(new("rpl_1")).await;
    assert_eq!((first.chosen, &first.left_out), (2, &Reasons::from([(LeftOut::Test, 1)])));
    // A plan that nobody runs takes nothing away from others.
    assert_eq!(town.plan(new("rpl_2")).await.chosen, 2);
    town.run("rpl_1").await;
    let third = town.plan(new("rpl_3")).await;
    assert_eq!((third.chosen, third.left_out[&LeftOut::AlreadyChosen]), (0, 2));
    for target in [ReplayTarget::Matching, ReplayTarget::Webhook("wh_0".to_owned())] {
        let mut change = town.t.store.change().await.unwrap();
        change.cancel_replay("default", "rpl_1", NOW).await.ok();
        change.commit().await.unwrap();
        let id = format!("rpl_{target:?}");
        let row = town.plan(NewReplay { asked: to(target), ..new(&id) }).await;
        assert_eq!((row.chosen, &row.left_out), (2, &Reasons::from([(LeftOut::Test, 1)])));
    }
}

#[tokio::test]
async fn what_has_not_ended_is_left_out_and_what_is_called_off_is_told_apart() {
    let mut town = Town::new(1).await;
    town.record(vec![routed("e0", "A", at(0), &[0]), routed("e1", "A", at(1), &[0])]).await;
    let mut change = town.t.store.change().await.unwrap();
    change.cancel(&TenantId::default_tenant(), delivery("e0", 0).as_str(), NOW).await.unwrap().unwrap();
    change.commit().await.unwrap();
    for target in [ReplayTarget::Original, ReplayTarget::Matching, ReplayTarget::Webhook("wh_0".to_owned())] {
        let id = format!("rpl_{target:?}");
        let states = (target == ReplayTarget::Original).then(|| "dead".to_owned()).into_iter().collect();
        let asked = ReplayAsked { states, ..to(target) };
        let row = town.plan(NewReplay { asked, ..new(&id) }).await;
        let wanted = [(LeftOut::UnderWay, 1), (LeftOut::Cancelling, 1)];
        assert_eq!((row.chosen, &row.left_out), (0, &Reasons::from(wanted)), "{id}");
    }
}

#[tokio::test]
async fn a_plan_that_chooses_too_much_fails_and_leaves_nothing() {
    let mut town = Town::new(1).await;
    let facts = (0..30).flat_map(|n| {
        let id = format!("e{n}");
        [routed(&id, "A", at(n), &[0]), done(delivery(&id, 0), 0, 1, "dead")]
    });
    town.record(facts.collect()).await;
    town.make(new("rpl_1")).await;
    let bounds = PlanBounds { events: 5, items: 12, ..PlanBounds::default() };
    while town.step("rpl_1", bounds).await == Planned::More {}
    let row = town.row("rpl_1").await;
    assert_eq!((row.state, row.reason.as_str(), row.chosen), (ReplayState::Failed, TOO_MANY, 15));
    assert!(!town.t.store.prune_replays(NOW).await.unwrap());
    assert_eq!(town.t.rows("SELECT COUNT(*) FROM replay_items").await, 0);
    assert!(town.posted().await.is_empty());
    // It is forgotten in the end.
    town.t.store.prune_replays(NOW.plus_ms(KEPT_MS + 1)).await.unwrap();
    assert!(town.t.store.replay("default", "rpl_1").await.unwrap().is_none());
}

#[tokio::test]
async fn cancelling_stops_planning_and_sending_and_calls_nothing_off() {
    let mut town = Town::new(1).await;
    let facts = (0..20).flat_map(|n| {
        let id = format!("e{n}");
        [routed(&id, "A", at(n), &[0]), done(delivery(&id, 0), 0, 1, "dead")]
    });
    town.record(facts.collect()).await;
    let cancel = async |id: &'static str| {
        let mut change = town.t.store.change().await.unwrap();
        let cancelled = change.cancel_replay("default", id, NOW).await.unwrap();
        change.commit().await.unwrap();
        cancelled
    };
    town.make(new("rpl_1")).await;
    let planning = town.row("rpl_1").await;
    cancel("rpl_1").await.unwrap();
    // A step that had begun.
    let bounds = PlanBounds { events: 5, ..PlanBounds::default() };
    let step = town.t.store.plan_replay(&planning, &mut None, bounds, NOW).await.unwrap();
    assert_eq!((step, town.row("rpl_1").await.chosen), (Planned::Over, 0));
    assert_eq!(town.t.rows("SELECT COUNT(*) FROM replay_items").await, 0);

    let row = town.plan(new("rpl_2")).await;
    town.run("rpl_2").await;
    town.send(&row, 7).await;
    cancel("rpl_2").await.unwrap();
    assert!(town.send(&row, 7).await.done);
    let row = town.row("rpl_2").await;
    assert_eq!((row.state, row.sent, row.to_send()), (ReplayState::Cancelled, 7, 13));
    assert_eq!(cancel("rpl_2").await, Err(ReplayRefused::Over(ReplayState::Cancelled)));
    assert_eq!(cancel("rpl_9").await, Err(ReplayRefused::Unknown));
    assert_eq!(town.posted().await.len(), 7);
    town.t.store.prune_replays(NOW).await.unwrap();
    assert_eq!(town.t.rows("SELECT COUNT(*) FROM replay_items").await, 0);
    assert_eq!(town.balanced().await.pending, 7);
    // What is left can be chosen again.
    assert_eq!(town.plan(new("rpl_3")).await.chosen, 13);
}

#[tokio::test]
async fn few_run_at_the_same_time_and_plans_expire() {
    let mut town = Town::new(1).await;
    town.record(vec![routed("e", "A", at(0), &[0])]).await;
    for n in 0..MAX_OPEN {
        let asked = to(ReplayTarget::Matching);
        let id = format!("rpl_{n}");
        let row = town.plan(NewReplay { asked, run: n < 8, ..new(&id) }).await;
        assert_eq!(row.state, ReplayState::Planned);
    }
    let mut change = town.t.store.change().await.unwrap();
    let refused = change.make_replay(&new("rpl_x"), NOW).await.unwrap();
    assert_eq!(refused, Err(ReplayRefused::TooMany(MAX_OPEN)));
    drop(change);
    let running = town.t.store.start_replays(NOW).await.unwrap();
    let ids: Vec<&str> = running.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(ids, ["rpl_0", "rpl_1", "rpl_2", "rpl_3", "rpl_4"]);
    town.send_all(&running[2]).await;
    let ids: Vec<String> =
        town.t.store.start_replays(NOW).await.unwrap().into_iter().map(|row| row.id).collect();
    assert_eq!(ids, ["rpl_0", "rpl_1", "rpl_3", "rpl_4", "rpl_5"]);
    town.t.store.start_replays(NOW.plus_ms(EXPIRES_MS + 1)).await.unwrap();
    let row = town.row("rpl_9").await;
    assert_eq!((row.state, row.reason.as_str()), (ReplayState::Cancelled, EXPIRED));
    assert_eq!(town.row("rpl_7").await.state, ReplayState::Planned, "somebody wants it to run");
}

/// No statement looks at more than it needs.
#[tokio::test]
async fn what_replays_ask_is_looked_up_by_an_index() {
    let town = Town::new(0).await;
    let explain = async |mut query: QueryBuilder<Sqlite>| {
        let rows = query.build().fetch_all(&town.t.store.readers).await.unwrap();
        rows.iter().map(|row| row.get::<String, _>("detail")).collect::<Vec<_>>().join("; ")
    };
    let plain = |sql: &str| QueryBuilder::<Sqlite>::new(format!("EXPLAIN QUERY PLAN {sql}"));
    let plan = explain(plain(find::NEXT_EVENTS)).await;
    assert!(
        plan.contains("events_by_acceptance (tenant=? AND accepted_at=? AND rowid>? AND rowid<?)"),
        "{plan}"
    );
    assert!(plan.contains("events_by_acceptance (tenant=? AND accepted_at>? AND accepted_at<?)"), "{plan}");
    assert!(!plan.contains("TEMP B-TREE"), "{plan}");
    let named = explain(plain(find::NEXT_NAMED)).await;
    assert!(named.contains("(tenant=? AND id=?)"), "{named}");
    let items = explain(plain(send::NEXT_ITEMS)).await;
    assert!(
        items.contains("SEARCH i USING PRIMARY KEY (replay=?)") && !items.contains("TEMP B-TREE"),
        "{items}"
    );
    let outcomes = explain(plain(OUTCOMES)).await;
    assert!(outcomes.contains("COVERING INDEX series_of_replay (replay=?)"), "{outcomes}");
    assert!(!outcomes.contains("TEMP B-TREE"), "{outcomes}");
    let sent = explain(plain(sent::SENT)).await;
    assert!(
        sent.contains("SEARCH s USING INDEX series_of_replay (replay=? AND state=? AND delivery>?)"),
        "{sent}"
    );
    assert!(sent.contains("SEARCH d USING INTEGER PRIMARY KEY"), "{sent}");
    assert!(!sent.contains("TEMP B-TREE") && !sent.contains("SCAN"), "{sent}");
    let list =
        explain(plain("SELECT * FROM replays WHERE tenant = 'a' AND seq < 9 ORDER BY seq DESC LIMIT 5"))
            .await;
    assert!(list.contains("replays_of_tenant (tenant=? AND seq<?)"), "{list}");
    let state = explain(plain("SELECT * FROM replays WHERE state = 'planning' ORDER BY seq LIMIT 5")).await;
    assert!(state.contains("replays_of_state (state=?)") && !state.contains("TEMP B-TREE"), "{state}");

    for target in [ReplayTarget::Original, ReplayTarget::Matching] {
        let asked = ReplayAsked {
            states: vec!["dead".to_owned()],
            webhook: Some("wh_1".to_owned()),
            event_types: vec!["A".to_owned()],
            ..to(target.clone())
        };
        let row = town.make(NewReplay { asked, ..new(&format!("rpl_{target:?}")) }).await;
        let query = if target == ReplayTarget::Original { find::deliveries_of } else { find::events_of };
        let plan = explain(query("EXPLAIN QUERY PLAN ", &row, "[1,2]")).await;
        assert!(plan.contains("SEARCH e USING INTEGER PRIMARY KEY"), "{plan}");
        assert!(plan.contains("deliveries_of_event (event=?"), "{plan}");
    }
}

/// What a large plan costs: planning, sending and counting. Prints figures; run it in a release build with
/// `cargo test --release --workspace --lib -- a_large_replay --ignored --nocapture`.
#[tokio::test]
#[ignore = "takes a minute"]
async fn a_large_replay_is_planned_and_sent() {
    const EVENTS: i64 = 500_000;
    let mut town = Town::new(2).await;
    town.record(vec![routed("e", "A", at(0), &[0]), done(delivery("e", 0), 0, 1, "dead")]).await;
    for sql in [
        "WITH RECURSIVE n (n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM n WHERE n < 500000)
         INSERT INTO events SELECT n.n, tenant, 'e' || n.n, event_type, event_time, fate, owed, reason, detail, marks,
         accepted_at + n.n / 10 FROM n JOIN events WHERE seq = 1",
        "INSERT INTO bodies SELECT e.seq, b.record FROM events e JOIN bodies b ON b.event = 1 WHERE e.seq > 1",
        "INSERT INTO deliveries (seq, id, webhook, tenant, event, event_id, event_type, series, state, held, reason, attempts,
         last_series, last_n, last_class, created_at, updated_at)
         SELECT e.seq, 'd' || e.seq, 'wh_0', tenant, e.seq, e.id, event_type, 1, 'dead', 0, '', 0, 0, 0, '', accepted_at,
         accepted_at FROM events e WHERE e.seq > 1",
        "UPDATE counters SET n = 500000 WHERE name IN ('event_seq', 'delivery_seq')",
        "PRAGMA wal_checkpoint(TRUNCATE)",
    ] {
        town.t.execute(sql).await;
    }
    let mut figures = Vec::new();
    for (name, asked) in [
        ("dead", new("rpl").asked),
        ("to a new webhook", to(ReplayTarget::Webhook("wh_1".to_owned()))),
        ("matching", to(ReplayTarget::Matching)),
    ] {
        let begun = std::time::Instant::now();
        let id = town.make(NewReplay { asked, ..new(&format!("rpl_{name}")) }).await.id;
        let (mut steps, mut longest, mut roads) = (0, std::time::Duration::ZERO, None);
        loop {
            let step = std::time::Instant::now();
            let row = town.row(&id).await;
            let over = town.t.store.plan_replay(&row, &mut roads, PlanBounds::default(), NOW).await.unwrap();
            longest = longest.max(step.elapsed());
            steps += 1;
            if over == Planned::Over {
                break;
            }
        }
        let row = town.row(&id).await;
        let took = begun.elapsed().as_secs_f64();
        figures.push(format!(
            "plan {name}: {} of {} events in {took:.1} s, {steps} steps, the longest {longest:?}",
            row.chosen, row.looked_at
        ));
        assert_eq!(row.looked_at, EVENTS.unsigned_abs());
    }
    town.run("rpl_to a new webhook").await;
    let row = town.row("rpl_to a new webhook").await;
    let begun = std::time::Instant::now();
    let mut sent = 0;
    while sent < 20_000 {
        sent += town.send(&row, 250).await.sent;
        town.t.execute("DELETE FROM outbox WHERE kind = 'delivery'").await;
    }
    let per_second = f64::from(u32::try_from(sent).unwrap()) / begun.elapsed().as_secs_f64();
    figures.push(format!("sending: {per_second:.0} a second"));
    let begun = std::time::Instant::now();
    let outcomes = town.t.store.replay_outcomes(row.seq).await.unwrap();
    assert_eq!(outcomes.pending, sent);
    figures.push(format!("counting {sent}: {:?}", begun.elapsed()));
    println!("{}", figures.join("\n"));
}
