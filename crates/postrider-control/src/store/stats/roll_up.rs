//! Adding up what happened: from rows that the recorder has written, after it wrote them.
//!
//! A turn reads what is new in three tables, each from its cursor on, and writes what that adds to the steps together with the
//! cursors, in one transaction: whatever is interrupted, each row is added once. Reading is done beside whoever writes, and
//! what is written is bounded, so that the recorder does not wait for it.

use std::collections::{BTreeMap, HashMap};

use futures_util::TryStreamExt as _;
use postrider_core::Timestamp;
use postrider_core::catalogue::OWN_TYPES;
use postrider_core::stats::{Figures, Step, Tried};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection};

use super::super::record::{list, pieces};
use super::super::{Change, Store, StoreError, signed, small, unsigned};
use super::{FIGURES, figures_of};

/// Rows of each table that a turn reads, at most.
const MOST_ROWS: i64 = 20_000;
/// What a turn tells apart of each table (by webhook, event type and minute), at most: of each some four rows are written.
const MOST_FIGURES: usize = 1_000;
/// How long an attempt waits for the fact of its event, which says whose it is: the router may tell later than the worker.
const NAMELESS_MS: u64 = 60 * 1000;

/// A table that is added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Events,
    Attempts,
    DeadLetters,
}

impl Source {
    const ALL: [Self; 3] = [Self::Events, Self::Attempts, Self::DeadLetters];

    /// The counter that is its cursor: the number of the last row that was added.
    const fn cursor(self) -> &'static str {
        match self {
            Self::Events => "stats_events",
            Self::Attempts => "stats_attempts",
            Self::DeadLetters => "stats_dead_letters",
        }
    }

    /// The number of its newest row.
    const fn newest(self) -> &'static str {
        match self {
            Self::Events => "SELECT COALESCE(MAX(seq), 0) FROM events",
            Self::Attempts => "SELECT COALESCE(MAX(rowid), 0) FROM attempts",
            Self::DeadLetters => "SELECT COALESCE(MAX(seq), 0) FROM dead_letters",
        }
    }

    /// Rows from the cursor $1 on, $2 at most, their number first. They are read by position, since there are many.
    pub(super) const fn rows(self) -> &'static str {
        match self {
            Self::Events => {
                // Publishers may make up types as they like; those of catalogues are so many and no more.
                "SELECT e.seq, e.tenant, e.accepted_at, e.event_type, t.name IS NOT NULL FROM events e
                 LEFT JOIN event_types t ON t.tenant = e.tenant AND t.name = e.event_type
                 WHERE e.seq > $1 ORDER BY e.seq LIMIT $2"
            }
            Self::Attempts => {
                "SELECT a.rowid, a.at, d.event IS NULL,
                 COALESCE(NULLIF(d.tenant, ''), (SELECT w.tenant FROM webhooks w WHERE w.id = d.webhook), ''),
                 COALESCE(d.webhook, ''), COALESCE(d.event_type, ''), a.series, a.n, a.duration_ms, a.class = 'none',
                 a.status, e.accepted_at
                 FROM attempts a LEFT JOIN deliveries d ON d.seq = a.delivery LEFT JOIN events e ON e.seq = d.event
                 WHERE a.rowid > $1 ORDER BY a.rowid LIMIT $2"
            }
            Self::DeadLetters => {
                "SELECT seq, tenant, webhook, at, kind = 'dead' FROM dead_letters
                 WHERE seq > $1 ORDER BY seq LIMIT $2"
            }
        }
    }
}

/// What is told apart: places in the list of names, and the minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    tenant: u32,
    webhook: u32,
    event_type: u32,
    minute: Timestamp,
}

/// What a turn has read.
#[derive(Debug, Default)]
pub(super) struct Turn {
    places: HashMap<String, u32>,
    names: Vec<String>,
    figures: HashMap<Key, Figures>,
}

/// Whether a row was added up, or has to wait, and with it those behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Added {
    Yes,
    NotYet,
}

impl Turn {
    fn place(&mut self, name: &str) -> u32 {
        if let Some(place) = self.places.get(name) {
            return *place;
        }
        let place = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        self.names.push(name.to_owned());
        self.places.insert(name.to_owned(), place);
        place
    }

    fn name(&self, place: u32) -> &str {
        self.names.get(place as usize).map_or("", String::as_str)
    }

    fn figures(&mut self, tenant: &str, webhook: &str, event_type: &str, at: Timestamp) -> &mut Figures {
        let key = Key {
            tenant: self.place(tenant),
            webhook: self.place(webhook),
            event_type: self.place(event_type),
            minute: Step::Minute.bucket(at),
        };
        self.figures.entry(key).or_default()
    }

    /// Adds a row of a table.
    fn add(&mut self, source: Source, row: &SqliteRow, now: Timestamp) -> Result<Added, StoreError> {
        match source {
            Source::Events => self.add_event(row)?,
            Source::Attempts => return self.add_attempt(row, now),
            Source::DeadLetters => self.add_letter(row)?,
        }
        Ok(Added::Yes)
    }

    fn add_event(&mut self, row: &SqliteRow) -> Result<(), StoreError> {
        let at = Timestamp::from_millis(row.try_get(2)?);
        let event_type: &str = row.try_get(3)?;
        let is_known = row.try_get(4)? || OWN_TYPES.contains(&event_type);
        self.figures(row.try_get(1)?, "", if is_known { event_type } else { "" }, at).accepted += 1;
        Ok(())
    }

    fn add_letter(&mut self, row: &SqliteRow) -> Result<(), StoreError> {
        let at = Timestamp::from_millis(row.try_get(3)?);
        if row.try_get::<bool, _>(4)? {
            self.figures(row.try_get(1)?, row.try_get(2)?, "", at).dead += 1;
        }
        Ok(())
    }

    fn add_attempt(&mut self, row: &SqliteRow, now: Timestamp) -> Result<Added, StoreError> {
        let at = Timestamp::from_millis(row.try_get(1)?);
        let nameless: bool = row.try_get(2)?;
        let (tenant, webhook): (&str, &str) = (row.try_get(3)?, row.try_get(4)?);
        if nameless && !webhook.is_empty() && now < at.plus_ms(NAMELESS_MS) {
            return Ok(Added::NotYet);
        }
        if tenant.is_empty() {
            // It is nobody's: neither its event nor its webhook is known.
            return Ok(Added::Yes);
        }
        let tried = Tried {
            series: small(row.try_get(6)?),
            n: small(row.try_get(7)?),
            at,
            duration_ms: unsigned(row.try_get(8)?),
            delivered: row.try_get(9)?,
            status: row.try_get::<Option<i64>, _>(10)?.and_then(|status| u16::try_from(status).ok()),
            accepted_at: row.try_get::<Option<i64>, _>(11)?.map(Timestamp::from_millis),
        };
        self.figures(tenant, webhook, row.try_get(5)?, at).tried(&tried);
        Ok(Added::Yes)
    }

    /// Reads what is new in a table. Returns up to which row everything is added, and whether there is more to read.
    async fn read(
        &mut self,
        connection: &mut SqliteConnection,
        source: Source,
        cursor: i64,
        now: Timestamp,
    ) -> Result<(i64, bool), StoreError> {
        let newest: i64 = sqlx::query_scalar(source.newest()).fetch_one(&mut *connection).await?;
        if newest <= cursor {
            // Earlier than the cursor only if rows were removed, the newest among them: then numbers are given anew.
            return Ok((newest, false));
        }
        let full = self.figures.len() + MOST_FIGURES;
        let mut rows = sqlx::query(source.rows()).bind(cursor).bind(MOST_ROWS).fetch(connection);
        let mut added = cursor;
        while let Some(row) = rows.try_next().await? {
            if self.figures.len() >= full {
                return Ok((added, true));
            }
            if self.add(source, &row, now)? == Added::NotYet {
                return Ok((added, false));
            }
            added = row.try_get(0)?;
        }
        Ok((added, added < newest))
    }

    /// What it adds to each step that is kept.
    fn sums(&self, now: Timestamp) -> Sums<'_> {
        let mut sums = Sums::default();
        for (key, figures) in &self.figures {
            let (tenant, webhook) = (self.name(key.tenant), self.name(key.webhook));
            for step in Step::ALL {
                let at = step.bucket(key.minute);
                if at < step.kept_from(now) {
                    continue;
                }
                sums.whole.entry((step, at, tenant, "")).or_default().merge(figures);
                if !Step::OF_WEBHOOKS.contains(&step) {
                    continue;
                }
                let event_type = self.name(key.event_type);
                if figures.accepted > 0 && !event_type.is_empty() {
                    *sums.of_types.entry((step, at, tenant, event_type)).or_default() += figures.accepted;
                }
                if webhook.is_empty() {
                    continue;
                }
                sums.whole.entry((step, at, tenant, webhook)).or_default().merge(figures);
                if figures.delivered + figures.failed > 0 {
                    let of_type = (step, at, tenant, webhook, event_type);
                    let (delivered, failed) = sums.by_type.entry(of_type).or_default();
                    *delivered += figures.delivered;
                    *failed += figures.failed;
                }
            }
        }
        sums
    }
}

/// A row by step, time, tenant and webhook, or event type.
type Place<'a> = (Step, Timestamp, &'a str, &'a str);
/// And by event type.
type PlaceOfType<'a> = (Step, Timestamp, &'a str, &'a str, &'a str);

/// What a turn adds to rows, in the order in which they lie.
#[derive(Debug, Default)]
struct Sums<'a> {
    whole: BTreeMap<Place<'a>, Figures>,
    /// Delivered and failed.
    by_type: BTreeMap<PlaceOfType<'a>, (u64, u64)>,
    /// Events by tenant and event type.
    of_types: BTreeMap<Place<'a>, u64>,
}

/// What a turn is to write.
#[derive(Debug)]
pub(super) struct Reckoned<'a> {
    /// Of each table the cursor, where it was and where it is to be.
    cursors: Vec<(Source, i64, i64)>,
    /// What rows are to say.
    whole: Vec<(Place<'a>, Figures)>,
    /// What is added to others.
    sums: Sums<'a>,
    /// Whether there is more to read.
    more: bool,
}

impl Store {
    /// Adds up some of what is new; `true` when there is more.
    pub(crate) async fn roll_up(&self, now: Timestamp) -> Result<bool, StoreError> {
        let mut turn = Turn::default();
        let reckoned = self.reckon_turn(&mut turn, now).await?;
        self.write_turn(reckoned).await
    }

    /// Reads some of what is new, and the rows that it is to be added to, beside whoever writes.
    pub(super) async fn reckon_turn<'a>(
        &self,
        turn: &'a mut Turn,
        now: Timestamp,
    ) -> Result<Reckoned<'a>, StoreError> {
        let (mut cursors, mut more) = (Vec::new(), false);
        let mut tx = self.readers.begin().await?;
        for source in Source::ALL {
            let cursor: i64 = sqlx::query_scalar("SELECT n FROM counters WHERE name = $1")
                .bind(source.cursor())
                .fetch_one(&mut *tx)
                .await?;
            let (to, rest) = turn.read(&mut tx, source, cursor, now).await?;
            more |= rest;
            cursors.push((source, cursor, to));
        }
        let mut sums = turn.sums(now);
        let whole = with_known(&mut tx, std::mem::take(&mut sums.whole)).await?;
        tx.commit().await?;
        Ok(Reckoned { cursors, whole, sums, more })
    }

    /// Writes it, unless a cursor has moved since: then another turn has added some of the same, to rows that were read.
    /// `true` when there is more.
    pub(super) async fn write_turn(&self, reckoned: Reckoned<'_>) -> Result<bool, StoreError> {
        let Reckoned { cursors, whole, sums, more } = reckoned;
        if cursors.iter().all(|(_, from, to)| from == to) {
            return Ok(more);
        }
        let mut change = self.change().await?;
        for (source, from, to) in cursors {
            if !change.move_cursor(source, from, to).await? {
                return Ok(true);
            }
        }
        change.put_figures(&whole).await?;
        change.add_by_type(&sums).await?;
        change.add_of_types(&sums).await?;
        change.commit().await?;
        Ok(more)
    }
}

/// Figures and what their rows have already.
async fn with_known<'a>(
    connection: &mut SqliteConnection,
    whole: BTreeMap<Place<'a>, Figures>,
) -> Result<Vec<(Place<'a>, Figures)>, StoreError> {
    let mut whole: Vec<_> = whole.into_iter().collect();
    let keys = whole.iter().map(|((step, at, tenant, webhook), _)| (step.ms(), at, tenant, webhook));
    let known = sqlx::query(sqlx::AssertSqlSafe(format!(
        "SELECT k.key, {FIGURES} FROM json_each($1) k CROSS JOIN stats s ON s.step_ms = k.value ->> 0
         AND s.at = k.value ->> 1 AND s.tenant = k.value ->> 2 AND s.webhook = k.value ->> 3"
    )))
    .bind(list(keys));
    let mut known = known.fetch(connection);
    while let Some(row) = known.try_next().await? {
        let place = usize::try_from(row.try_get::<i64, _>("key")?).unwrap_or(usize::MAX);
        if let Some((_, figures)) = whole.get_mut(place) {
            figures.merge(&figures_of(&row)?);
        }
    }
    Ok(whole)
}

impl Change<'_> {
    /// Moves a cursor; `false` when it is not where it was.
    async fn move_cursor(&mut self, source: Source, from: i64, to: i64) -> Result<bool, StoreError> {
        let moved = sqlx::query("UPDATE counters SET n = $3 WHERE name = $1 AND n = $2")
            .bind(source.cursor())
            .bind(from)
            .bind(to)
            .execute(&mut *self.tx)
            .await?;
        Ok(moved.rows_affected() == 1)
    }

    async fn put_figures(&mut self, whole: &[(Place<'_>, Figures)]) -> Result<(), StoreError> {
        for piece in pieces(whole) {
            let mut query = QueryBuilder::<Sqlite>::new(
                "INSERT OR REPLACE INTO stats (step_ms, at, tenant, webhook, accepted, first_tried, first_delivered, delivered,
                 failed, dead, status_2xx, status_3xx, status_4xx, status_429, status_5xx, status_none, last_at, first_attempt,
                 delivery, attempt) ",
            );
            query.push_values(piece, |mut row, ((step, at, tenant, webhook), figures)| {
                row.push_bind(signed(step.ms()))
                    .push_bind(at.as_millis())
                    .push_bind(*tenant)
                    .push_bind(*webhook)
                    .push_bind(signed(figures.accepted))
                    .push_bind(signed(figures.first_tried))
                    .push_bind(signed(figures.first_delivered))
                    .push_bind(signed(figures.delivered))
                    .push_bind(signed(figures.failed))
                    .push_bind(signed(figures.dead));
                for n in figures.by_status {
                    row.push_bind(signed(n));
                }
                row.push_bind(figures.last_at.map(Timestamp::as_millis))
                    .push_bind(figures.first_attempt.to_bytes())
                    .push_bind(figures.delivery.to_bytes())
                    .push_bind(figures.attempt.to_bytes());
            });
            query.build().execute(&mut *self.tx).await?;
        }
        Ok(())
    }

    async fn add_of_types(&mut self, sums: &Sums<'_>) -> Result<(), StoreError> {
        let of_types: Vec<_> = sums.of_types.iter().collect();
        for piece in pieces(&of_types) {
            let mut query = QueryBuilder::<Sqlite>::new(
                "INSERT INTO stats_of_types (step_ms, at, tenant, event_type, accepted) ",
            );
            query.push_values(piece, |mut row, ((step, at, tenant, event_type), accepted)| {
                row.push_bind(signed(step.ms()))
                    .push_bind(at.as_millis())
                    .push_bind(*tenant)
                    .push_bind(*event_type)
                    .push_bind(signed(**accepted));
            });
            query.push(
                " ON CONFLICT (step_ms, at, tenant, event_type) DO UPDATE SET
                  accepted = stats_of_types.accepted + excluded.accepted",
            );
            query.build().execute(&mut *self.tx).await?;
        }
        Ok(())
    }

    async fn add_by_type(&mut self, sums: &Sums<'_>) -> Result<(), StoreError> {
        let by_type: Vec<_> = sums.by_type.iter().collect();
        for piece in pieces(&by_type) {
            let mut query = QueryBuilder::<Sqlite>::new(
                "INSERT INTO stats_by_type (step_ms, at, tenant, webhook, event_type, delivered, failed) ",
            );
            query.push_values(
                piece,
                |mut row, ((step, at, tenant, webhook, event_type), (delivered, failed))| {
                    row.push_bind(signed(step.ms()))
                        .push_bind(at.as_millis())
                        .push_bind(*tenant)
                        .push_bind(*webhook)
                        .push_bind(*event_type)
                        .push_bind(signed(*delivered))
                        .push_bind(signed(*failed));
                },
            );
            query.push(
                " ON CONFLICT (step_ms, at, tenant, webhook, event_type) DO UPDATE SET
                  delivered = stats_by_type.delivered + excluded.delivered, failed = stats_by_type.failed + excluded.failed",
            );
            query.build().execute(&mut *self.tx).await?;
        }
        Ok(())
    }
}
