//! Removing what is not needed any more.

use postrider_core::Timestamp;

use super::{Store, StoreError, idempotency};

/// Rows removed in one transaction, so that writers do not wait long.
const CHUNK: i64 = 2000;
/// How long rows of the outbox stay after they were sent, for people who look.
const SENT_MS: u64 = 3600 * 1000;
/// How long rows of the audit log stay, and keys that are revoked or have expired: as long as books are meant to.
pub(crate) const AUDIT_MS: u64 = 90 * 24 * 3600 * 1000;

pub(super) const OLD_AUDIT: &str =
    "DELETE FROM audit WHERE seq IN (SELECT seq FROM audit WHERE at < $1 LIMIT $2)";
pub(super) const OLD_KEYS: &str = "DELETE FROM api_keys WHERE seq IN
    (SELECT seq FROM api_keys WHERE COALESCE(revoked_at, expires_at) < $1 LIMIT $2)";

impl Store {
    /// Removes some of what is too old; `true` when there may be more.
    pub(crate) async fn prune(&self, now: Timestamp) -> Result<bool, StoreError> {
        let ago = |ms: u64| now.as_millis().saturating_sub(i64::try_from(ms).unwrap_or(i64::MAX));
        let mut more = self.forget_cancellations(now).await? | self.prune_stats(now).await?;
        for (sql, before) in [
            (
                "DELETE FROM outbox WHERE seq IN
                 (SELECT seq FROM outbox WHERE sent_at IS NOT NULL AND sent_at < $1 LIMIT $2)",
                ago(SENT_MS),
            ),
            (
                "DELETE FROM idempotency WHERE key IN (SELECT key FROM idempotency WHERE created_at < $1 LIMIT $2)",
                ago(idempotency::KEPT_MS),
            ),
            (OLD_AUDIT, ago(AUDIT_MS)),
            (OLD_KEYS, ago(AUDIT_MS)),
        ] {
            let done = sqlx::query(sql).bind(before).bind(CHUNK).execute(&self.writer).await?;
            more |= done.rows_affected() >= u64::try_from(CHUNK).unwrap_or(u64::MAX);
        }
        Ok(more)
    }
}
