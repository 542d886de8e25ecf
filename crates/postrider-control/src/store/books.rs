//! The books (DESIGN §5.3), from the tallies that the database keeps with its rows.

use postrider_core::Timestamp;
use postrider_core::books::Counts;
use sqlx::Row as _;

use super::{Store, StoreError, unsigned};

/// Facts that their writers have numbered and that have not arrived.
pub(super) const MISSING_FACTS: &str = "SELECT COALESCE(SUM(expected - received), 0) FROM
     (SELECT MAX(past) AS expected, SUM(past - first) AS received FROM writers GROUP BY writer) w";

/// By how much the tallies differ from the rows, summed up. This counts rows, all of them.
pub(super) const WRONG_TALLIES: &str = "SELECT COALESCE(SUM(ABS(n)), 0) FROM (SELECT SUM(n) AS n FROM (
     SELECT what, kind, n FROM tallies
     UNION ALL SELECT 'events', fate, -COUNT(*) FROM events GROUP BY fate
     UNION ALL SELECT 'owed', '', -COALESCE(SUM(owed), 0) FROM events
     UNION ALL SELECT 'series', CASE WHEN state = 'pending' AND held THEN 'held' ELSE state END, -1
         FROM series WHERE owed = 1
     UNION ALL SELECT 'letters', kind, -1 FROM dead_letters WHERE resolved_at IS NULL
     UNION ALL SELECT 'lettered', '', -1 FROM dead_letters WHERE resolved_at IS NULL AND delivery <> ''
     ) GROUP BY what, kind)";

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
    /// Reads the books. What there is much of is not counted here: the tallies are kept with every change of a row.
    ///
    /// A series that a worker reported before its event was recorded is no drift: `unowed` counts those that were seen
    /// before `unowed_since`.
    pub(crate) async fn books(&self, unowed_since: Timestamp) -> Result<Books, StoreError> {
        // One transaction: all numbers are of one moment.
        let mut tx = self.readers.begin().await?;
        let mut counts = Counts::default();
        let mut dead_unresolved = 0;
        for row in sqlx::query("SELECT what, kind, n FROM tallies").fetch_all(&mut *tx).await? {
            let n = unsigned(row.try_get("n")?);
            match (row.try_get("what")?, row.try_get("kind")?) {
                ("events", fate) => {
                    counts.accepted += n;
                    match fate {
                        "routed" => counts.routed = n,
                        "unmatched" => counts.unmatched = n,
                        "invalid" => counts.invalid = n,
                        // Counted as accepted and nothing else: drift says that something is wrong.
                        _ => {}
                    }
                }
                ("owed", _) => counts.owed = n,
                ("series", "delivered") => counts.delivered = n,
                ("series", "dead") => counts.dead = n,
                ("series", "cancelled") => counts.cancelled = n,
                ("series", "skipped") => counts.skipped = n,
                ("series", "pending") => counts.pending += n,
                ("series", "held") => {
                    counts.held = n;
                    counts.pending += n;
                }
                ("lettered", _) => dead_unresolved = n,
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
            dead_unresolved,
            duplicates: unsigned(duplicates),
            revision: unsigned(revision),
            unsent_deliveries: unsigned(unsent),
            longest_timeout_ms: unsigned(longest.unwrap_or(0)),
        })
    }
}
