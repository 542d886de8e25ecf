//! Writing a batch of facts into the books, in one transaction.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use futures_util::future::join;
use postrider_broker::crash;
use postrider_core::books::End;
use postrider_core::wire::{self, DeadMessage, DeliveryMessage, Fact, JournalMessage, RequestTimes};
use postrider_core::{DeliveryId, EventId, TenantId, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serializer as _};
use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments as _, QueryBuilder, Row as _, Sqlite};

use super::ledger::{self, Delivery, Event, Fate, Last, Ledger, Series, letter_id};
use super::{Change, Store, StoreError, signed, small, unsigned};

/// Rows in one statement. Few sizes, so that the database knows each statement after its first time; times their columns the
/// largest stays far under its limit of parameters.
const PIECES: [usize; 5] = [256, 64, 16, 4, 1];

/// Deliveries that are asked for at a time: their rows are one value, which the database does not let grow without end.
const MOST_KEYS: usize = 10_000;

/// Something for the books.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    /// Facts of a writer.
    Journal(JournalMessage),
    /// A delivery that was given up.
    Dead(DeadMessage),
    /// A message that cannot be processed.
    Letter(Letter),
    /// Deliveries that killed their workers, or that the broker gave up.
    Poison {
        /// The message.
        message: DeliveryMessage,
        /// What is known of the reason.
        detail: String,
        /// When.
        at: Timestamp,
    },
}

/// What a dead letter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LetterKind {
    /// A delivery that was given up.
    Dead,
    /// A message that is no event.
    Invalid,
    /// A message that crashed its readers, or that they cannot read.
    Poison,
}

impl LetterKind {
    /// The word in store and API.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Invalid => "invalid",
            Self::Poison => "poison",
        }
    }
}

/// A dead letter.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    pub id: String,
    pub kind: LetterKind,
    pub tenant: String,
    pub reason: String,
    pub detail: String,
    pub class: String,
    pub delivery: Option<(DeliveryId, u32)>,
    pub webhook: String,
    pub event_id: String,
    pub event_type: String,
    pub content_type: String,
    pub body: Option<Vec<u8>>,
    /// Of a delivery that was given up, as far as the letter says.
    pub attempts: u32,
    pub at: Timestamp,
}

impl Letter {
    /// A message that cannot be read, as it is.
    pub(crate) fn unreadable(
        kind: LetterKind,
        reason: &str,
        detail: String,
        name: &str,
        body: &[u8],
        at: Timestamp,
    ) -> Self {
        Self {
            id: letter_id(kind.as_str(), &[reason, name, &String::from_utf8_lossy(body)]),
            kind,
            tenant: TenantId::default_tenant().to_string(),
            reason: reason.to_owned(),
            detail,
            class: String::new(),
            delivery: None,
            webhook: String::new(),
            event_id: String::new(),
            event_type: String::new(),
            content_type: String::new(),
            body: Some(body.to_vec()),
            attempts: 0,
            at,
        }
    }
}

/// What a batch did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Recorded {
    /// Facts and letters that were known already.
    pub repeated: u64,
    /// Ends of series that had ended otherwise.
    pub late: u64,
    /// Journal messages that came again.
    pub repeated_messages: u64,
    /// The time of the newest fact.
    pub newest: Option<Timestamp>,
}

impl Store {
    /// Writes a batch, all of it at once.
    ///
    /// # Errors
    /// [`StoreError`]: then nothing of it was written.
    pub(crate) async fn record(&self, entries: &[Entry], now: Timestamp) -> Result<Recorded, StoreError> {
        let mut change = self.change().await?;
        let mut ledger = change.load(entries, now).await?;
        for entry in entries {
            ledger.apply(entry);
        }
        change.end_held_again(&mut ledger).await?;
        let resolved = ledger.resolve();
        change.save(&ledger, &resolved, now).await?;
        let well = change.judge(&ledger, now).await?;
        let repeated_messages = change.number_writers(entries, now).await?;
        change.count("repeated_facts", ledger.repeated).await?;
        change.count("late_finals", ledger.late).await?;
        change.for_release |= ledger.held;
        crash::point("recorder.written");
        change.commit().await?;
        self.well.remember(well);
        Ok(Recorded {
            repeated: ledger.repeated,
            late: ledger.late,
            repeated_messages,
            newest: ledger.newest,
        })
    }
}

/// A delivery, as [`Change::load_deliveries`] asks for it: the members are in the order of the columns.
#[derive(Deserialize)]
struct DeliveryRow {
    seq: i64,
    id: DeliveryId,
    webhook: Arc<str>,
    tenant: Arc<str>,
    event: Option<i64>,
    event_id: Arc<str>,
    event_type: Arc<str>,
    last_series: u32,
    last_n: u32,
    last_class: Cow<'static, str>,
    last_status: Option<i64>,
    last_at: Option<i64>,
    created_at: i64,
}

/// A series, likewise.
#[derive(Deserialize)]
struct SeriesRow {
    delivery: i64,
    series: u32,
    owed: i64,
    asked: i64,
    state: String,
    held: i64,
    held_attempt: u32,
    held_at: i64,
    reason: String,
    attempts: u32,
    logged: u32,
    repeats: u32,
    next_at: Option<i64>,
    born_at: i64,
    released_at: Option<i64>,
    ended_at: Option<i64>,
    seen_at: i64,
}

/// The keys that a batch touches.
#[derive(Default)]
struct Keys {
    events: BTreeMap<TenantId, BTreeSet<EventId>>,
    deliveries: BTreeSet<DeliveryId>,
    /// Deliveries that an end, or a dead letter, may resolve.
    lettered: BTreeSet<DeliveryId>,
    letters: BTreeSet<String>,
}

impl Keys {
    fn of(entries: &[Entry]) -> Self {
        let mut keys = Self::default();
        for entry in entries {
            match entry {
                Entry::Journal(message) => message.facts.iter().for_each(|fact| keys.fact(fact)),
                Entry::Dead(message) => {
                    let delivery = &message.delivery;
                    keys.deliveries.insert(delivery.id.clone());
                    keys.letters
                        .insert(letter_id("dead", &[delivery.id.as_str(), &delivery.series.to_string()]));
                }
                Entry::Letter(letter) => {
                    keys.letters.insert(letter.id.clone());
                }
                Entry::Poison { message, .. } => {
                    for delivery in message.work.iter().flat_map(|work| &work.to) {
                        keys.deliveries.insert(delivery.id.clone());
                        keys.letters.insert(letter_id(
                            "poison",
                            &[delivery.id.as_str(), &delivery.series.to_string()],
                        ));
                    }
                }
            }
        }
        keys
    }

    fn fact(&mut self, fact: &Fact) {
        match fact {
            Fact::Event(event) => {
                self.events.entry(event.tenant.clone()).or_default().insert(event.event_id.clone());
                if let wire::EventFate::Routed(owed) = &event.fate {
                    self.deliveries.extend(owed.iter().map(|owed| owed.delivery.clone()));
                }
            }
            Fact::Attempt(attempt) => {
                self.deliveries.insert(attempt.delivery.clone());
            }
            Fact::Done(done) => {
                self.deliveries.insert(done.delivery.clone());
                if done.end == End::Delivered {
                    self.lettered.insert(done.delivery.clone());
                }
            }
            Fact::Held(held) => {
                self.deliveries.insert(held.delivery.clone());
            }
        }
    }
}

impl Change<'_> {
    async fn load(&mut self, entries: &[Entry], now: Timestamp) -> Result<Ledger, StoreError> {
        let keys = Keys::of(entries);
        let mut ledger = Ledger {
            now: now.as_millis(),
            next_event: self.counter("event_seq").await?,
            next_delivery: self.counter("delivery_seq").await?,
            ..Ledger::default()
        };
        for (tenant, ids) in &keys.events {
            self.load_events(tenant, ids, &mut ledger.events).await?;
        }
        self.load_deliveries(&keys.deliveries, &mut ledger).await?;
        if !keys.letters.is_empty() {
            let known: Vec<String> = sqlx::query_scalar(
                "SELECT l.id FROM json_each($1) k CROSS JOIN dead_letters l ON l.id = k.value",
            )
            .bind(list(keys.letters.iter()))
            .fetch_all(&mut *self.tx)
            .await?;
            ledger.known_letters.extend(known);
        }
        if !keys.lettered.is_empty() {
            let open = sqlx::query(
                "SELECT l.id, l.delivery, l.series FROM json_each($1) k
                 CROSS JOIN dead_letters l ON l.delivery = k.value AND l.resolved_at IS NULL",
            )
            .bind(list(keys.lettered.iter().map(DeliveryId::as_str)));
            for row in open.fetch_all(&mut *self.tx).await? {
                let delivery = DeliveryId::from_trusted(row.try_get::<String, _>("delivery")?);
                ledger.open_letters.push((row.try_get("id")?, delivery, small(row.try_get("series")?)));
            }
        }
        Ok(ledger)
    }

    async fn load_events(
        &mut self,
        tenant: &TenantId,
        ids: &BTreeSet<EventId>,
        events: &mut HashMap<ledger::EventKey, Event>,
    ) -> Result<(), StoreError> {
        let known = sqlx::query(
            "SELECT e.*, b.event AS body FROM json_each($2) k
             CROSS JOIN events e ON e.tenant = $1 AND e.id = k.value LEFT JOIN bodies b ON b.event = e.seq",
        )
        .bind(tenant.as_str())
        .bind(list(ids.iter().map(EventId::as_str)));
        for row in known.fetch_all(&mut *self.tx).await? {
            let id = EventId::from_trusted(row.try_get::<String, _>("id")?);
            let fate: String = row.try_get("fate")?;
            let event = Event {
                seq: row.try_get("seq")?,
                fate: Fate::parse(&fate)
                    .ok_or_else(|| StoreError::Damaged(format!("an event's fate is {fate:?}")))?,
                owed: small(row.try_get("owed")?),
                event_type: row.try_get::<String, _>("event_type")?.into(),
                event_time: row.try_get::<String, _>("event_time")?.into(),
                reason: row.try_get("reason")?,
                detail: row.try_get("detail")?,
                accepted_at: row.try_get("accepted_at")?,
                has_body: row.try_get::<Option<i64>, _>("body")?.is_some(),
                body: None,
                marks: row.try_get("marks")?,
                changed: false,
            };
            events.insert((tenant.clone(), id), event);
        }
        Ok(())
    }

    /// Deliveries that are known, their series, and which requests of them are.
    async fn load_deliveries(
        &mut self,
        ids: &BTreeSet<DeliveryId>,
        ledger: &mut Ledger,
    ) -> Result<(), StoreError> {
        let ids: Vec<&str> = ids.iter().map(DeliveryId::as_str).collect();
        for ids in ids.chunks(MOST_KEYS) {
            self.load_some_deliveries(ids, ledger).await?;
        }
        Ok(())
    }

    /// The same for at most [`MOST_KEYS`].
    async fn load_some_deliveries(&mut self, ids: &[&str], ledger: &mut Ledger) -> Result<(), StoreError> {
        let mut numbered: BTreeMap<i64, DeliveryId> = BTreeMap::new();
        let known = self.rows(
            "SELECT json_group_array(json_array(d.seq, d.id, d.webhook, d.tenant, d.event, d.event_id, d.event_type,
                 d.last_series, d.last_n, d.last_class, d.last_status, d.last_at, d.created_at))
             FROM json_each($1) k CROSS JOIN deliveries d ON d.id = k.value",
            list(ids),
        );
        for row in known.await? {
            let DeliveryRow {
                seq,
                id,
                webhook,
                tenant,
                event,
                event_id,
                event_type,
                last_series: series,
                last_n: n,
                last_class: class,
                last_status: status,
                last_at: at,
                created_at,
            } = row;
            let delivery = Delivery {
                seq,
                webhook,
                nameless: tenant.is_empty(),
                tenant,
                event,
                event_id,
                event_type,
                series: BTreeMap::new(),
                last: Last { series, n, class, status, at },
                created_at,
                changed: false,
            };
            numbered.insert(seq, id.clone());
            ledger.deliveries.insert(id, delivery);
        }
        if numbered.is_empty() {
            return Ok(());
        }
        let numbers = list(numbered.keys());
        let known = self.rows::<SeriesRow>(
            "SELECT json_group_array(json_array(s.delivery, s.series, s.owed, s.asked, s.state, s.held, s.held_attempt,
                 s.held_at, s.reason, s.attempts, s.logged, s.repeats, s.next_at, s.born_at, s.released_at, s.ended_at,
                 s.seen_at))
             FROM json_each($1) k CROSS JOIN series s ON s.delivery = k.value",
            numbers.clone(),
        );
        for row in known.await? {
            let series = Series {
                owed: row.owed != 0,
                asked: row.asked != 0,
                end: end_of(&row.state)?,
                held: row.held != 0,
                held_attempt: row.held_attempt,
                held_at: row.held_at,
                reason: row.reason,
                attempts: row.attempts,
                logged: row.logged,
                repeats: row.repeats,
                next_at: row.next_at,
                born_at: row.born_at,
                released_at: row.released_at,
                ended_at: row.ended_at,
                seen_at: row.seen_at,
                changed: false,
            };
            let delivery = numbered.get(&row.delivery);
            if let Some(delivery) = delivery.and_then(|id| ledger.deliveries.get_mut(id)) {
                delivery.series.insert(row.series, series);
            }
        }
        let known = self.rows::<(i64, u32, u32, i64, Arc<str>)>(
            "SELECT json_group_array(json_array(a.delivery, a.series, a.n, a.at, a.worker))
             FROM json_each($1) k CROSS JOIN attempts a ON a.delivery = k.value",
            numbers,
        );
        for (delivery, series, n, at, worker) in known.await? {
            let Some(delivery) = numbered.get(&delivery) else { continue };
            ledger.attempts.entry((delivery.clone(), series)).or_default().insert((n, at, worker));
        }
        Ok(())
    }

    /// The rows of a query that gives all of them as one JSON array. Taken one by one, each value of each row would be copied and
    /// freed by itself, and a batch has a hundred thousand of them.
    async fn rows<T: DeserializeOwned>(
        &mut self,
        query: &'static str,
        keys: String,
    ) -> Result<Vec<T>, StoreError> {
        let rows: String = sqlx::query_scalar(query).bind(keys).fetch_one(&mut *self.tx).await?;
        serde_json::from_str(&rows).map_err(|error| StoreError::Damaged(format!("rows of a batch: {error}")))
    }

    async fn save(&mut self, ledger: &Ledger, resolved: &[String], now: Timestamp) -> Result<(), StoreError> {
        self.save_events(ledger).await?;
        self.save_deliveries(ledger).await?;
        self.save_attempts(ledger).await?;
        self.save_letters(ledger, now).await?;
        if !resolved.is_empty() {
            sqlx::query(
                "UPDATE dead_letters SET resolution = 'delivered', resolved_at = $1
                 WHERE resolved_at IS NULL AND id IN (SELECT value FROM json_each($2))",
            )
            .bind(now.as_millis())
            .bind(list(resolved))
            .execute(&mut *self.tx)
            .await?;
        }
        self.set_counter("event_seq", ledger.next_event).await?;
        self.set_counter("delivery_seq", ledger.next_delivery).await
    }

    async fn save_events(&mut self, ledger: &Ledger) -> Result<(), StoreError> {
        let mut changed: Vec<_> = ledger.events.iter().filter(|(_, event)| event.changed).collect();
        changed.sort_unstable_by_key(|(_, event)| event.seq);
        self.execute_each(&changed, |chunk| {
            let mut query = insert(
                "INSERT INTO events (seq, tenant, id, event_type, event_time, fate, owed, reason, detail,
                 marks, accepted_at) ",
                chunk.len(),
            );
            let mut words = Words::default();
            query.push_values(chunk, |mut row, ((tenant, id), event)| {
                row.push_bind(event.seq)
                    .push_bind(tenant.shared())
                    .push_bind(id.shared())
                    .push_bind(event.event_type.clone())
                    .push_bind(event.event_time.clone())
                    .push_bind(words.shared(event.fate.as_str()))
                    .push_bind(i64::from(event.owed))
                    .push_bind(words.shared(&event.reason))
                    .push_bind(words.shared(&event.detail))
                    .push_bind(words.shared(&event.marks))
                    .push_bind(event.accepted_at);
            });
            query.push(
                " ON CONFLICT (tenant, id) DO UPDATE SET event_type = excluded.event_type,
                  event_time = excluded.event_time, fate = excluded.fate, owed = excluded.owed,
                  reason = excluded.reason, detail = excluded.detail, marks = excluded.marks",
            );
            query
        })
        .await?;
        let bodies = ledger.events.values().filter_map(|event| Some((event.seq, event.body.as_ref()?)));
        let mut bodies: Vec<_> = bodies.collect();
        bodies.sort_unstable_by_key(|(seq, _)| *seq);
        self.execute_each(&bodies, |chunk| {
            let mut query = insert("INSERT INTO bodies (event, record) ", chunk.len());
            query.push_values(chunk, |mut row, (seq, body)| {
                row.push_bind(seq).push_bind(wire::encode(body.as_ref()));
            });
            query.push(" ON CONFLICT (event) DO NOTHING");
            query
        })
        .await
    }

    async fn save_deliveries(&mut self, ledger: &Ledger) -> Result<(), StoreError> {
        let mut changed: Vec<_> = ledger.deliveries.iter().filter(|(_, delivery)| delivery.changed).collect();
        changed.sort_unstable_by_key(|(_, delivery)| delivery.seq);
        // An index is written again if a column of it is set, whatever to: so only those get a name that had none.
        let (named, others): (Vec<_>, Vec<_>) =
            changed.iter().partition(|(_, delivery)| delivery.nameless && !delivery.tenant.is_empty());
        for (rows, and_its_name) in [
            (others, ""),
            (
                named,
                ", tenant = excluded.tenant, event = excluded.event, event_id = excluded.event_id,
                 event_type = excluded.event_type",
            ),
        ] {
            self.execute_each(&rows, |chunk| rows_of_deliveries(chunk, and_its_name, ledger.now)).await?;
        }
        let changed: Vec<_> = changed
            .iter()
            .flat_map(|(_, delivery)| {
                delivery.series.iter().map(move |(n, series)| (delivery.seq, *n, series))
            })
            .filter(|(_, _, series)| series.changed)
            .collect();
        self.execute_each(&changed, |chunk| {
            let mut query = insert(
                "INSERT INTO series (delivery, series, owed, state, held, held_attempt, held_at, reason, attempts,
                 logged, repeats, next_at, born_at, ended_at, seen_at) ",
                chunk.len(),
            );
            let mut words = Words::default();
            query.push_values(chunk, |mut row, (delivery, n, series)| {
                row.push_bind(delivery)
                    .push_bind(i64::from(*n))
                    .push_bind(series.owed)
                    .push_bind(words.shared(series.state()))
                    .push_bind(series.held)
                    .push_bind(i64::from(series.held_attempt))
                    .push_bind(series.held_at)
                    .push_bind(words.shared(&series.reason))
                    .push_bind(i64::from(series.attempts))
                    .push_bind(i64::from(series.logged))
                    .push_bind(i64::from(series.repeats))
                    .push_bind(series.next_at)
                    .push_bind(series.born_at)
                    .push_bind(series.ended_at)
                    .push_bind(series.seen_at);
            });
            query.push(
                " ON CONFLICT (delivery, series) DO UPDATE SET owed = excluded.owed, state = excluded.state,
                  held = excluded.held, held_attempt = excluded.held_attempt, held_at = excluded.held_at,
                  reason = excluded.reason, attempts = excluded.attempts, logged = excluded.logged,
                  repeats = excluded.repeats, next_at = excluded.next_at, born_at = excluded.born_at, ended_at = excluded.ended_at",
            );
            query
        })
        .await
    }

    async fn save_attempts(&mut self, ledger: &Ledger) -> Result<(), StoreError> {
        // Whatever was tried is a delivery of this batch.
        let new = ledger.new_attempts.iter();
        let new = new.filter_map(|attempt| Some((ledger.deliveries.get(&attempt.delivery)?.seq, attempt)));
        let mut new: Vec<_> = new.collect();
        new.sort_by_key(|(delivery, _)| *delivery);
        self.execute_each(&new, |chunk| {
            let mut query = insert(
                "INSERT INTO attempts (delivery, series, n, at, duration_ms, url, class, status, error, response_body,
                 response_headers, next_at, worker, repeats, times, remote) ",
                chunk.len(),
            );
            let mut words = Words::default();
            query.push_values(chunk, |mut row, (delivery, attempt)| {
                let headers = match attempt.response_headers.as_slice() {
                    [] => words.shared("[]"),
                    headers => serde_json::to_string(headers).unwrap_or_default().into(),
                };
                row.push_bind(delivery)
                    .push_bind(i64::from(attempt.series))
                    .push_bind(i64::from(attempt.n))
                    .push_bind(attempt.at.as_millis())
                    .push_bind(signed(attempt.duration_ms))
                    .push_bind(attempt.url.clone())
                    .push_bind(words.shared(&attempt.class))
                    .push_bind(attempt.status.map(i64::from))
                    .push_bind(&attempt.error)
                    .push_bind(&attempt.response_body)
                    .push_bind(headers)
                    .push_bind(attempt.next_at.map(Timestamp::as_millis))
                    .push_bind(attempt.worker.clone())
                    .push_bind(i64::from(attempt.repeats))
                    .push_bind(known(attempt.times))
                    .push_bind(attempt.remote.map(|address| address.to_string()));
            });
            query
        })
        .await
    }

    /// Executes a statement for each piece of these rows. The next is made while the database works at the one before it.
    async fn execute_each<T>(
        &mut self,
        rows: &[T],
        statement: impl Fn(&[T]) -> QueryBuilder<Sqlite>,
    ) -> Result<(), StoreError> {
        let mut statements = pieces(rows).map(statement);
        let mut next = statements.next();
        while let Some(mut query) = next {
            // In this order: the first hands its statement over, and then waits.
            let (executed, following) =
                join(query.build().execute(&mut *self.tx), async { statements.next() }).await;
            executed?;
            next = following;
        }
        Ok(())
    }

    async fn save_letters(&mut self, ledger: &Ledger, now: Timestamp) -> Result<(), StoreError> {
        if ledger.new_letters.is_empty() {
            return Ok(());
        }
        let mut seq = self.counter("letter_seq").await?;
        let letters: Vec<_> = ledger.new_letters.values().collect();
        for chunk in pieces(&letters) {
            let mut query = insert(
                "INSERT INTO dead_letters (seq, id, kind, tenant, reason, detail, class, delivery, series, webhook,
                 event_id, event_type, content_type, body, at, resolved_at, resolution) ",
                chunk.len(),
            );
            query.push_values(chunk, |mut row, new| {
                let letter = &new.letter;
                let (delivery, series) = match &letter.delivery {
                    Some((delivery, series)) => (delivery.as_str(), i64::from(*series)),
                    None => ("", 0),
                };
                seq += 1;
                row.push_bind(seq)
                    .push_bind(&letter.id)
                    .push_bind(letter.kind.as_str())
                    .push_bind(&letter.tenant)
                    .push_bind(&letter.reason)
                    .push_bind(&letter.detail)
                    .push_bind(&letter.class)
                    .push_bind(delivery)
                    .push_bind(series)
                    .push_bind(&letter.webhook)
                    .push_bind(&letter.event_id)
                    .push_bind(&letter.event_type)
                    .push_bind(&letter.content_type)
                    .push_bind(&letter.body)
                    .push_bind(letter.at.as_millis())
                    .push_bind(new.resolved.then_some(now.as_millis()))
                    .push_bind(if new.resolved { "delivered" } else { "" });
            });
            query.build().execute(&mut *self.tx).await?;
        }
        self.set_counter("letter_seq", seq).await
    }

    /// Notes which facts of each writer arrived; returns how many messages were here before.
    async fn number_writers(&mut self, entries: &[Entry], now: Timestamp) -> Result<u64, StoreError> {
        let mut arrived: BTreeMap<&str, Vec<(u64, u64)>> = BTreeMap::new();
        let mut duplicates: BTreeMap<&str, u64> = BTreeMap::new();
        for entry in entries {
            let Entry::Journal(message) = entry else { continue };
            if message.duplicates > 0 {
                let known = duplicates.entry(&message.writer).or_default();
                *known = message.duplicates.max(*known);
            }
            if !message.facts.is_empty() {
                let past = message.first.saturating_add(message.facts.len() as u64);
                arrived.entry(&message.writer).or_default().push((message.first, past));
            }
        }
        // Each writer counts up, so the largest number is the newest.
        for (writer, n) in duplicates {
            sqlx::query(
                "INSERT INTO duplicates (writer, n) VALUES ($1, $2)
                 ON CONFLICT (writer) DO UPDATE SET n = excluded.n WHERE duplicates.n < excluded.n",
            )
            .bind(writer)
            .bind(signed(n))
            .execute(&mut *self.tx)
            .await?;
        }
        let mut repeated = 0;
        for (writer, messages) in arrived {
            let lowest = messages.iter().map(|(first, _)| *first).min().unwrap_or(0);
            let highest = messages.iter().map(|(_, past)| *past).max().unwrap_or(0);
            // Only what the batch can touch: the ranges of a writer with many gaps stay in the database.
            let known: Vec<(i64, i64)> = sqlx::query_as(
                "SELECT first, past FROM writers WHERE writer = $1 AND first <= $2 AND past >= $3 ORDER BY first",
            )
            .bind(writer)
            .bind(signed(highest))
            .bind(signed(lowest))
            .fetch_all(&mut *self.tx)
            .await?;
            let before: Vec<(u64, u64)> = known.iter().map(|(a, b)| (unsigned(*a), unsigned(*b))).collect();
            let mut ranges = before.clone();
            for (first, past) in messages {
                if !ledger::add_range(&mut ranges, first, past) {
                    repeated += 1;
                }
            }
            for (first, _) in before.iter().filter(|range| !ranges.contains(range)) {
                sqlx::query("DELETE FROM writers WHERE writer = $1 AND first = $2")
                    .bind(writer)
                    .bind(signed(*first))
                    .execute(&mut *self.tx)
                    .await?;
            }
            for (first, past) in ranges.iter().filter(|range| !before.contains(range)) {
                sqlx::query("INSERT INTO writers (writer, first, past, seen_at) VALUES ($1, $2, $3, $4)")
                    .bind(writer)
                    .bind(signed(*first))
                    .bind(signed(*past))
                    .bind(now.as_millis())
                    .execute(&mut *self.tx)
                    .await?;
            }
        }
        Ok(repeated)
    }

    pub(super) async fn counter(&mut self, name: &'static str) -> Result<i64, StoreError> {
        Ok(sqlx::query_scalar("SELECT n FROM counters WHERE name = $1")
            .bind(name)
            .fetch_one(&mut *self.tx)
            .await?)
    }

    pub(super) async fn set_counter(&mut self, name: &'static str, n: i64) -> Result<(), StoreError> {
        sqlx::query("UPDATE counters SET n = $2 WHERE name = $1")
            .bind(name)
            .bind(n)
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }

    /// Adds to one of the recorder's counters.
    async fn count(&mut self, name: &'static str, more: u64) -> Result<(), StoreError> {
        if more > 0 {
            sqlx::query("UPDATE counters SET n = n + $2 WHERE name = $1")
                .bind(name)
                .bind(signed(more))
                .execute(&mut *self.tx)
                .await?;
        }
        Ok(())
    }
}

/// The end that a state is; nothing for `pending`.
pub(super) fn end_of(state: &str) -> Result<Option<End>, StoreError> {
    match state {
        "pending" => Ok(None),
        "delivered" => Ok(Some(End::Delivered)),
        "dead" => Ok(Some(End::Dead)),
        "cancelled" => Ok(Some(End::Cancelled)),
        "skipped" => Ok(Some(End::Skipped)),
        other => Err(StoreError::Damaged(format!("the state of a series is {other:?}"))),
    }
}

/// Rows in pieces of the sizes that statements have.
pub(super) fn pieces<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = PIECES.into_iter().find(|size| *size <= rows.len())?;
        let (piece, rest) = rows.split_at(size);
        rows = rest;
        Some(piece)
    })
}

/// Deliveries that are new, or have changed. `and_its_name` says what more is set of those that have changed.
fn rows_of_deliveries(
    rows: &[&(&DeliveryId, &Delivery)],
    and_its_name: &'static str,
    now: i64,
) -> QueryBuilder<Sqlite> {
    let mut query = insert(
        "INSERT INTO deliveries (seq, id, webhook, tenant, event, event_id, event_type, series, state, held,
         reason, attempts, next_at, last_series, last_n, last_class, last_status, last_at, created_at,
         updated_at) ",
        rows.len(),
    );
    let mut words = Words::default();
    query.push_values(rows, |mut row, (id, delivery)| {
        let latest = delivery.series.last_key_value();
        let series = latest.map(|(_, series)| series);
        row.push_bind(delivery.seq)
            .push_bind(id.shared())
            .push_bind(delivery.webhook.clone())
            .push_bind(delivery.tenant.clone())
            .push_bind(delivery.event)
            .push_bind(delivery.event_id.clone())
            .push_bind(delivery.event_type.clone())
            .push_bind(latest.map_or(0, |(n, _)| i64::from(*n)))
            .push_bind(words.shared(series.map_or("pending", Series::state)))
            .push_bind(series.is_some_and(|series| series.held))
            .push_bind(words.shared(series.map_or("", |series| &series.reason)))
            .push_bind(series.map_or(0, |series| i64::from(series.logged)))
            .push_bind(series.and_then(|series| series.next_at))
            .push_bind(i64::from(delivery.last.series))
            .push_bind(i64::from(delivery.last.n))
            .push_bind(words.shared(&delivery.last.class))
            .push_bind(delivery.last.status)
            .push_bind(delivery.last.at)
            .push_bind(delivery.created_at)
            .push_bind(now);
    });
    query.push(
        " ON CONFLICT (id) DO UPDATE SET series = excluded.series, state = excluded.state, held = excluded.held,
          reason = excluded.reason, attempts = excluded.attempts, next_at = excluded.next_at,
          last_series = excluded.last_series, last_n = excluded.last_n, last_class = excluded.last_class,
          last_status = excluded.last_status, last_at = excluded.last_at, updated_at = excluded.updated_at",
    );
    query.push(and_its_name);
    query
}

/// The beginning of a statement that writes so many rows, with room for all of them: what grows by doubling is moved over and
/// over, into memory that has to be cleared first.
fn insert(head: &'static str, rows: usize) -> QueryBuilder<Sqlite> {
    const TAIL: usize = 1024;
    let values = rows * (head.matches(',').count() + 1);
    let mut arguments = SqliteArguments::default();
    arguments.reserve(values, 0);
    // Each value is `?, `, and each row has parentheses.
    let mut text = String::with_capacity(head.len() + 3 * values + 4 * rows + TAIL);
    text.push_str(head);
    QueryBuilder::with_arguments(text, arguments)
}

/// Words that the rows of a statement have in common. The library copies each text, unless it is given one that is shared.
#[derive(Default)]
struct Words(Vec<Arc<str>>);

impl Words {
    /// How many are kept: those of closed lists, and no more.
    const MOST: usize = 16;

    fn shared(&mut self, word: &str) -> Arc<str> {
        if let Some(known) = self.0.iter().find(|known| ***known == *word) {
            return known.clone();
        }
        let shared: Arc<str> = word.into();
        if self.0.len() < Self::MOST {
            self.0.push(shared.clone());
        }
        shared
    }
}

/// A list as one parameter, for `json_each`.
pub(super) fn list<T: serde::Serialize>(keys: impl IntoIterator<Item = T>) -> String {
    let mut text = Vec::new();
    // Writing texts and numbers into memory cannot fail.
    serde_json::Serializer::new(&mut text).collect_seq(keys).ok();
    String::from_utf8(text).unwrap_or_default()
}

/// What was measured of a request, as text; nothing where nothing was.
fn known(times: RequestTimes) -> Option<String> {
    if times.is_unknown() { None } else { serde_json::to_string(&times).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::test_store::TestStore;

    /// Every column has another value, so that none can be taken for another.
    #[tokio::test]
    async fn each_column_of_a_known_delivery_is_read_as_what_it_is() {
        let test = TestStore::new().await;
        let mut change = test.store.change().await.unwrap();
        for statement in [
            "INSERT INTO deliveries (seq, id, webhook, tenant, event, event_id, event_type, series, state, held, reason,
                 attempts, next_at, last_series, last_n, last_class, last_status, last_at, created_at, updated_at)
             VALUES (1, 'd', 'wh', 't', 2, 'e', 'type', 3, 'dead', 1, 'r', 4, 5, 6, 7, 'class', 8, 9, 10, 11)",
            "INSERT INTO series (delivery, series, owed, asked, state, held, held_attempt, held_at, reason, attempts, logged,
                 repeats, next_at, born_at, released_at, ended_at, seen_at)
             VALUES (1, 3, 1, 0, 'dead', 0, 12, 13, 'why', 14, 15, 16, 17, 18, 19, 20, 21),
                    (1, 4, 0, 1, 'pending', 1, 0, 0, '', 0, 0, 0, NULL, 22, NULL, NULL, 23)",
            "INSERT INTO attempts (delivery, series, n, at, duration_ms, url, class, response_headers, worker, repeats)
             VALUES (1, 3, 24, 25, 26, 'u', 'c', '[]', 'w', 27)",
        ] {
            sqlx::query(statement).execute(&mut *change.tx).await.unwrap();
        }
        let mut ledger = Ledger::default();
        let id = DeliveryId::from_trusted("d");
        let others = (0..2 * MOST_KEYS).map(|n| DeliveryId::from_trusted(format!("d{n}")));
        change.load_deliveries(&others.chain([id.clone()]).collect(), &mut ledger).await.unwrap();
        assert_eq!(ledger.deliveries.len(), 1);
        let ended = "Series { owed: true, asked: false, end: Some(Dead), held: false, held_attempt: 12, held_at: 13, \
                     reason: \"why\", attempts: 14, logged: 15, repeats: 16, next_at: Some(17), born_at: 18, \
                     released_at: Some(19), ended_at: Some(20), seen_at: 21, changed: false }";
        let pending = "Series { owed: false, asked: true, end: None, held: true, held_attempt: 0, held_at: 0, \
                       reason: \"\", attempts: 0, logged: 0, repeats: 0, next_at: None, born_at: 22, \
                       released_at: None, ended_at: None, seen_at: 23, changed: false }";
        let delivery = format!(
            "Delivery {{ seq: 1, webhook: \"wh\", tenant: \"t\", nameless: false, event: Some(2), event_id: \"e\", \
             event_type: \"type\", series: {{3: {ended}, 4: {pending}}}, last: Last {{ series: 6, n: 7, \
             class: \"class\", status: Some(8), at: Some(9) }}, created_at: 10, changed: false }}"
        );
        assert_eq!(format!("{:?}", ledger.deliveries[&id]), delivery);
        let made: Vec<_> = ledger.attempts.into_iter().collect();
        assert_eq!(made, [((id, 3), BTreeSet::from([(24, 25, "w".into())]))]);
    }
}
