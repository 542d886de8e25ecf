//! What waits, and whether the store can be written: for the gauges, and for whoever is to be woken.

use postrider_core::Timestamp;
use sqlx::Row as _;

use super::{Store, StoreError, unsigned};

/// How many of the oldest deliveries are looked at to count the webhooks that wait.
const OLDEST: i64 = 2000;

/// Deliveries whose time has come and that nobody has tried yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    /// For how long the oldest of them has been due, milliseconds; 0 when there is none.
    pub oldest_ms: u64,
    /// To how many webhooks the oldest of them go that have been due for longer than was asked for: one receiver that is
    /// down is not the same as all of them waiting.
    pub webhooks: u64,
    /// Dead letters that nobody has resolved, by kind.
    pub letters: Vec<(String, u64)>,
}

impl Store {
    /// What is due now; webhooks are counted whose deliveries have been due for longer than `late_ms`.
    pub(crate) async fn due(&self, now: Timestamp, late_ms: u64) -> Result<Due, StoreError> {
        let mut tx = self.readers.begin().await?;
        let oldest: Option<i64> = sqlx::query_scalar(
            "SELECT MIN(COALESCE(next_at, born_at)) FROM series
             WHERE ended_at IS NULL AND held = 0 AND owed <> 0",
        )
        .fetch_one(&mut *tx)
        .await?;
        let late = now.as_millis().saturating_sub(i64::try_from(late_ms).unwrap_or(i64::MAX));
        let webhooks: i64 = sqlx::query_scalar(
            "SELECT COUNT(DISTINCT d.webhook) FROM
             (SELECT delivery FROM series
              WHERE ended_at IS NULL AND held = 0 AND owed <> 0 AND COALESCE(next_at, born_at) < $1
              ORDER BY COALESCE(next_at, born_at) LIMIT $2) late
             JOIN deliveries d ON d.seq = late.delivery",
        )
        .bind(late)
        .bind(OLDEST)
        .fetch_one(&mut *tx)
        .await?;
        let mut letters = Vec::new();
        let open = sqlx::query("SELECT kind, n FROM tallies WHERE what = 'letters' AND n > 0");
        for row in open.fetch_all(&mut *tx).await? {
            letters.push((row.try_get("kind")?, unsigned(row.try_get("n")?)));
        }
        tx.commit().await?;
        let oldest_ms = oldest.map_or(0, |at| now.since_ms(Timestamp::from_millis(at)));
        Ok(Due { oldest_ms, webhooks: unsigned(webhooks), letters })
    }

    /// Writes something, to know that the store takes it: not full, not locked by another, its disk in order.
    pub(crate) async fn probe(&self, now: Timestamp) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO counters (name, n) VALUES ('probe', $1) ON CONFLICT (name) DO UPDATE SET n = excluded.n",
        )
        .bind(now.as_millis())
        .execute(&self.writer)
        .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_store::TestStore;
    use super::*;

    const NOW: i64 = 1_700_000_000_000;

    async fn series(store: &Store, webhook: &str, n: u32, next_at: Option<i64>, state: &str, held: bool) {
        let delivery = format!("{webhook}-{n}");
        sqlx::query(
            "INSERT INTO deliveries (id, webhook, tenant, event_id, event_type, series, state, held, reason, attempts,
             last_series, last_n, last_class, created_at, updated_at)
             VALUES ($1, $2, 'default', 'e', 'A', 1, $3, $4, '', 0, 0, 0, '', 0, 0)",
        )
        .bind(&delivery)
        .bind(webhook)
        .bind(state)
        .bind(held)
        .execute(&store.writer)
        .await
        .unwrap();
        sqlx::query(
            "INSERT INTO series (delivery, series, owed, state, held, held_attempt, held_at, reason, attempts, logged,
             next_at, born_at, seen_at, ended_at)
             VALUES ((SELECT seq FROM deliveries WHERE id = $1), 1, 1, $2, $3, 0, 0, '', 0, 0, $4, $5, 0, CASE $2 WHEN 'pending' THEN NULL ELSE 1 END)",
        )
        .bind(&delivery)
        .bind(state)
        .bind(held)
        .bind(next_at)
        .bind(NOW - 200_000)
        .execute(&store.writer)
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn the_oldest_due_delivery_is_found_and_late_webhooks_are_counted() {
        let kept = TestStore::new().await;
        let store = &kept.store;
        let now = Timestamp::from_millis(NOW);
        assert_eq!(store.due(now, 120_000).await.unwrap(), Due::default());
        // Not due yet, held, ended: none of them waits for a worker.
        series(store, "wh_1", 0, Some(NOW + 60_000), "pending", false).await;
        series(store, "wh_1", 1, Some(NOW - 900_000), "pending", true).await;
        series(store, "wh_1", 2, Some(NOW - 900_000), "delivered", false).await;
        assert_eq!(store.due(now, 120_000).await.unwrap(), Due::default());
        // A first attempt has been due since its series began.
        series(store, "wh_1", 3, None, "pending", false).await;
        let due = store.due(now, 120_000).await.unwrap();
        assert_eq!((due.oldest_ms, due.webhooks), (200_000, 1));
        series(store, "wh_1", 4, Some(NOW - 500_000), "pending", false).await;
        series(store, "wh_2", 5, Some(NOW - 130_000), "pending", false).await;
        series(store, "wh_3", 6, Some(NOW - 110_000), "pending", false).await;
        let due = store.due(now, 120_000).await.unwrap();
        assert_eq!((due.oldest_ms, due.webhooks), (500_000, 2));
    }

    #[tokio::test]
    async fn what_is_due_is_looked_up_by_its_index() {
        let kept = TestStore::new().await;
        let store = &kept.store;
        for sql in [
            "SELECT MIN(COALESCE(next_at, born_at)) FROM series WHERE ended_at IS NULL AND held = 0 AND owed <> 0",
            "SELECT delivery FROM series WHERE ended_at IS NULL AND held = 0 AND owed <> 0
             AND COALESCE(next_at, born_at) < 5 ORDER BY COALESCE(next_at, born_at) LIMIT 5",
        ] {
            let plan: Vec<(i64, i64, i64, String)> =
                sqlx::query_as(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}")))
                    .fetch_all(&store.readers)
                    .await
                    .unwrap();
            let plan: Vec<&str> = plan.iter().map(|(.., detail)| detail.as_str()).collect();
            assert!(plan.iter().any(|step| step.contains("series_due")), "{plan:?}");
            assert!(!plan.iter().any(|step| step.contains("TEMP B-TREE")), "{plan:?}");
        }
    }

    #[tokio::test]
    async fn a_probe_tells_whether_the_store_takes_anything() {
        let kept = TestStore::new().await;
        let store = &kept.store;
        store.probe(Timestamp::from_millis(NOW)).await.unwrap();
        store.probe(Timestamp::from_millis(NOW + 1)).await.unwrap();
        store.writer.close().await;
        assert!(store.probe(Timestamp::from_millis(NOW)).await.is_err());
    }
}
