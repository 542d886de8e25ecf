//! Answers that are given again when a request with the same key comes again.

use postrider_core::Timestamp;

use super::{Change, Store, StoreError};

/// How long an answer is kept.
pub(super) const KEPT_MS: u64 = 24 * 3600 * 1000;

/// An answer that was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeptAnswer {
    /// Hash of the request that it answers.
    pub request: String,
    /// The answer, sealed.
    pub answer: String,
}

impl Store {
    /// The answer kept under this key.
    pub(crate) async fn kept_answer(
        &self,
        key: &str,
        now: Timestamp,
    ) -> Result<Option<KeptAnswer>, StoreError> {
        let row: Option<(String, String)> =
            sqlx::query_as("SELECT request, answer FROM idempotency WHERE key = $1 AND created_at > $2")
                .bind(key)
                .bind(oldest(now))
                .fetch_optional(&self.readers)
                .await?;
        Ok(row.map(|(request, answer)| KeptAnswer { request, answer }))
    }
}

impl Change<'_> {
    /// Keeps an answer, in the transaction of what it answers. `false` when another request with this key was quicker:
    /// then this change must not be committed.
    pub(crate) async fn keep_answer(
        &mut self,
        key: &str,
        kept: &KeptAnswer,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "INSERT INTO idempotency (key, request, answer, created_at) VALUES ($1, $2, $3, $4)
             ON CONFLICT (key) DO UPDATE SET request = excluded.request, answer = excluded.answer,
             created_at = excluded.created_at WHERE idempotency.created_at <= $5",
        )
        .bind(key)
        .bind(&kept.request)
        .bind(&kept.answer)
        .bind(now.as_millis())
        .bind(oldest(now))
        .execute(&mut *self.tx)
        .await?;
        Ok(done.rows_affected() > 0)
    }
}

/// Answers of this time and before count as forgotten.
fn oldest(now: Timestamp) -> i64 {
    now.as_millis().saturating_sub(i64::try_from(KEPT_MS).unwrap_or(i64::MAX))
}
