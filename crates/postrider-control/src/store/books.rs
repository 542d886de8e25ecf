//! Counting the books, from rows (DESIGN §5.3).

use postrider_core::Timestamp;
use postrider_core::books::Counts;
use sqlx::Row as _;

use super::{Store, StoreError, unsigned};

/// Facts that their writers have numbered and that have not arrived.
pub(super) const MISSING_FACTS: &str = "SELECT COALESCE(SUM(expected - received), 0) FROM
     (SELECT MAX(past) AS expected, SUM(past - first) AS received FROM writers GROUP BY writer) w";

/// The books at one moment, with what is not part of their balance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Books {
    /// Both sides.
    pub counts: Counts,
    /// Every series that a worker reported and nobody said is owed, however short a time ago.
    pub unowed_now: u64,
    /// Dead letters of deliveries that no later series has delivered and nobody has resolved.
    pub dead_unresolved: u64,
    /// Events that came again and were not accepted again.
    pub duplicates: u64,
    /// The newest change of the configuration.
    pub revision: u64,
    /// Deliveries that wait in the outbox: pending, and not yet in the broker.
    pub unsent_deliveries: u64,
    /// The longest timeout of a webhook, milliseconds.
    pub longest_timeout_ms: u64,
}

impl Store {
    /// Counts the books.
    ///
    /// A series that a worker reported before its event was recorded is no drift: `unowed` counts those that were seen
    /// before `unowed_since`.
    pub(crate) async fn books(&self, unowed_since: Timestamp) -> Result<Books, StoreError> {
        // One transaction: all numbers are of one moment.
        let mut tx = self.readers.begin().await?;
        let mut counts = Counts::default();
        let accepted: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM events").fetch_one(&mut *tx).await?;
        counts.accepted = unsigned(accepted);
        let fates = sqlx::query("SELECT fate, COUNT(*) AS n, SUM(owed) AS owed FROM events GROUP BY fate");
        for row in fates.fetch_all(&mut *tx).await? {
            let n = unsigned(row.try_get("n")?);
            match row.try_get::<String, _>("fate")?.as_str() {
                "routed" => counts.routed = n,
                "unmatched" => counts.unmatched = n,
                "invalid" => counts.invalid = n,
                // Counted as accepted and nothing else: drift says that something is wrong.
                _ => {}
            }
            counts.owed += unsigned(row.try_get("owed")?);
        }
        let series = "SELECT state, held, COUNT(*) AS n FROM series WHERE owed = 1 GROUP BY state, held";
        for row in sqlx::query(series).fetch_all(&mut *tx).await? {
            let n = unsigned(row.try_get("n")?);
            match row.try_get::<String, _>("state")?.as_str() {
                "delivered" => counts.delivered += n,
                "dead" => counts.dead += n,
                "cancelled" => counts.cancelled += n,
                "skipped" => counts.skipped += n,
                "pending" => {
                    counts.pending += n;
                    if row.try_get::<bool, _>("held")? {
                        counts.held += n;
                    }
                }
                _ => {}
            }
        }
        let (unowed, unowed_now): (i64, i64) = sqlx::query_as(
            "SELECT COUNT(CASE WHEN seen_at < $1 THEN 1 END), COUNT(*) FROM series WHERE owed = 0",
        )
        .bind(unowed_since.as_millis())
        .fetch_one(&mut *tx)
        .await?;
        let missing_attempts: i64 = sqlx::query_scalar(
            "SELECT COALESCE(SUM(attempts - logged), 0) FROM series WHERE logged < attempts",
        )
        .fetch_one(&mut *tx)
        .await?;
        let missing_facts: i64 = sqlx::query_scalar(MISSING_FACTS).fetch_one(&mut *tx).await?;
        counts.unowed = unsigned(unowed);
        counts.missing_attempts = unsigned(missing_attempts);
        counts.missing_facts = unsigned(missing_facts);
        let dead_unresolved: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM dead_letters WHERE resolved_at IS NULL AND delivery > ''",
        )
        .fetch_one(&mut *tx)
        .await?;
        let unsent: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM outbox WHERE sent_at IS NULL AND kind = 'delivery'")
                .fetch_one(&mut *tx)
                .await?;
        let duplicates: i64 =
            sqlx::query_scalar("SELECT COALESCE(SUM(n), 0) FROM duplicates").fetch_one(&mut *tx).await?;
        let revision: i64 =
            sqlx::query_scalar("SELECT n FROM counters WHERE name = 'revision'").fetch_one(&mut *tx).await?;
        let longest: Option<i64> =
            sqlx::query_scalar("SELECT MAX(timeout_ms) FROM webhooks WHERE deleted_at IS NULL")
                .fetch_one(&mut *tx)
                .await?;
        tx.commit().await?;
        Ok(Books {
            counts,
            unowed_now: unsigned(unowed_now),
            dead_unresolved: unsigned(dead_unresolved),
            duplicates: unsigned(duplicates),
            revision: unsigned(revision),
            unsent_deliveries: unsigned(unsent),
            longest_timeout_ms: unsigned(longest.unwrap_or(0)),
        })
    }
}
