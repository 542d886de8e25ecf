//! What a replay sent, one by one, and how each has ended.

use postrider_core::Timestamp;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::super::{Store, StoreError, small, time};

/// States of a series in the order in which they are read. A series ends once: it goes from the first of these to one behind it, so
/// nothing that was sent before the reading began is missed.
const STATES: [&str; 5] = ["pending", "cancelled", "dead", "delivered", "skipped"];

/// What is in one state, behind a delivery, along the index of the replay. Nothing is sorted.
pub(super) const SENT: &str =
    "SELECT s.delivery AS n, s.series, s.state, s.held, s.reason, s.attempts, s.next_at, s.born_at,
    s.ended_at, d.id, d.webhook, d.event_id, d.event_type
    FROM series s INDEXED BY series_of_replay CROSS JOIN deliveries d
    WHERE s.replay = $1 AND s.replay IS NOT NULL AND s.state = $2 AND s.delivery > $3 AND d.seq = s.delivery
    ORDER BY s.delivery LIMIT $4";

/// One delivery that a replay made again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SentRow {
    /// The delivery.
    pub id: String,
    pub webhook: String,
    pub event_id: String,
    pub event_type: String,
    /// The series that the replay began; the delivery may have had others since.
    pub series: u32,
    pub state: String,
    pub held: bool,
    pub reason: String,
    pub attempts: u32,
    pub next_at: Option<Timestamp>,
    pub born_at: Timestamp,
    pub ended_at: Option<Timestamp>,
}

/// Where the reading goes on: behind this delivery among those in this state. A replay sends each delivery once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SentPlace {
    state: usize,
    delivery: i64,
}

impl std::fmt::Display for SentPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.state, self.delivery)
    }
}

impl SentPlace {
    const FIRST: Self = Self { state: 0, delivery: 0 };

    /// What `Display` wrote.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (state, delivery) = text.split_once('.')?;
        Some(Self { state: state.parse().ok()?, delivery: delivery.parse().ok()? })
    }
}

fn sent_of(row: &SqliteRow) -> Result<SentRow, sqlx::Error> {
    Ok(SentRow {
        id: row.try_get("id")?,
        webhook: row.try_get("webhook")?,
        event_id: row.try_get("event_id")?,
        event_type: row.try_get("event_type")?,
        series: small(row.try_get("series")?),
        state: row.try_get("state")?,
        held: row.try_get("held")?,
        reason: row.try_get("reason")?,
        attempts: small(row.try_get("attempts")?),
        next_at: time(row.try_get("next_at")?),
        born_at: Timestamp::from_millis(row.try_get("born_at")?),
        ended_at: time(row.try_get("ended_at")?),
    })
}

impl Store {
    /// A page of what a replay sent, by state, and where the next one begins if there may be one.
    pub(crate) async fn replay_sent(
        &self,
        replay: i64,
        after: Option<SentPlace>,
        limit: u32,
    ) -> Result<(Vec<SentRow>, Option<SentPlace>), StoreError> {
        let mut place = after.unwrap_or(SentPlace::FIRST);
        let mut found = Vec::new();
        let mut left = i64::from(limit);
        while let Some(state) = STATES.get(place.state) {
            let rows = sqlx::query(SENT)
                .bind(replay)
                .bind(*state)
                .bind(place.delivery)
                .bind(left)
                .fetch_all(&self.readers)
                .await?;
            for row in &rows {
                place.delivery = row.try_get("n")?;
                left -= 1;
                found.push(sent_of(row)?);
            }
            if left <= 0 {
                return Ok((found, Some(place)));
            }
            place = SentPlace { state: place.state + 1, delivery: 0 };
        }
        Ok((found, None))
    }
}
