//! Webhooks: the record that goes to the data plane, and what people see beside it.

use postrider_core::Timestamp;
use postrider_core::profile::DEFAULT_TIMEOUT_MS;
use postrider_core::wire::{ConfigKind, ConfigRecord, WebhookRecord};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, Sqlite};

use super::{Change, Store, StoreError, signed, unsigned};

/// A webhook as it is stored.
#[derive(Clone, Debug)]
pub(crate) struct WebhookRow {
    pub seq: i64,
    pub record: WebhookRecord,
    pub revision: u64,
    pub secret_hint: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// Which webhooks to list.
#[derive(Clone, Debug, Default)]
pub(crate) struct WebhookFilter {
    pub tenant: String,
    pub state: Option<String>,
}

fn webhook_of(row: &SqliteRow) -> Result<WebhookRow, StoreError> {
    let record: Option<String> = row.try_get("record")?;
    let record = serde_json::from_str(record.as_deref().unwrap_or_default())
        .map_err(|e| StoreError::Damaged(format!("the record of a webhook: {e}")))?;
    Ok(WebhookRow {
        seq: row.try_get("seq")?,
        record,
        revision: unsigned(row.try_get("revision")?),
        secret_hint: row.try_get("secret_hint")?,
        created_at: Timestamp::from_millis(row.try_get("created_at")?),
        updated_at: Timestamp::from_millis(row.try_get("updated_at")?),
    })
}

const ONE: &str = "SELECT * FROM webhooks WHERE tenant = $1 AND id = $2 AND deleted_at IS NULL";

impl Store {
    /// A webhook of this tenant that exists.
    pub(crate) async fn webhook(&self, tenant: &str, id: &str) -> Result<Option<WebhookRow>, StoreError> {
        let row = sqlx::query(ONE).bind(tenant).bind(id).fetch_optional(&self.readers).await?;
        row.as_ref().map(webhook_of).transpose()
    }

    /// Webhooks, newest first, before `before`.
    pub(crate) async fn webhooks(
        &self,
        filter: &WebhookFilter,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<WebhookRow>, StoreError> {
        let mut query =
            QueryBuilder::<Sqlite>::new("SELECT * FROM webhooks WHERE deleted_at IS NULL AND tenant = ");
        query.push_bind(&filter.tenant);
        if let Some(state) = &filter.state {
            query.push(" AND state = ").push_bind(state);
        }
        if let Some(before) = before {
            query.push(" AND seq < ").push_bind(before);
        }
        query.push(" ORDER BY seq DESC LIMIT ").push_bind(i64::from(limit));
        let rows = query.build().fetch_all(&self.readers).await?;
        rows.iter().map(webhook_of).collect()
    }
}

impl Change<'_> {
    /// A webhook of this tenant that exists, as this change sees it.
    pub(crate) async fn webhook(&mut self, tenant: &str, id: &str) -> Result<Option<WebhookRow>, StoreError> {
        let row = sqlx::query(ONE).bind(tenant).bind(id).fetch_optional(&mut *self.tx).await?;
        row.as_ref().map(webhook_of).transpose()
    }

    /// How many webhooks a tenant has.
    pub(crate) async fn count_webhooks(&mut self, tenant: &str) -> Result<u64, StoreError> {
        let n: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM webhooks WHERE tenant = $1 AND deleted_at IS NULL")
                .bind(tenant)
                .fetch_one(&mut *self.tx)
                .await?;
        Ok(unsigned(n))
    }

    /// Makes a webhook, or replaces what is known of it, and tells the data plane.
    pub(crate) async fn put_webhook(
        &mut self,
        record: &WebhookRecord,
        secret_hint: &str,
        now: Timestamp,
    ) -> Result<WebhookRow, StoreError> {
        let revision = self.next_revision().await?;
        let text = serde_json::to_string(record).map_err(|e| StoreError::Damaged(e.to_string()))?;
        let row = sqlx::query(
            "INSERT INTO webhooks (id, tenant, revision, state, record, timeout_ms, secret_hint, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)
             ON CONFLICT (id) DO UPDATE SET revision = excluded.revision, state = excluded.state,
             record = excluded.record, timeout_ms = excluded.timeout_ms, secret_hint = excluded.secret_hint,
             updated_at = excluded.updated_at
             RETURNING *",
        )
        .bind(record.id.as_str())
        .bind(record.tenant.as_str())
        .bind(signed(revision))
        .bind(&record.state)
        .bind(text)
        .bind(signed(record.timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS)))
        .bind(secret_hint)
        .bind(now.as_millis())
        .fetch_one(&mut *self.tx)
        .await?;
        let row = webhook_of(&row)?;
        let told =
            ConfigRecord::of(&self.store.epoch(), revision, ConfigKind::Webhook, record.id.as_str(), record);
        self.tell(&told, now).await?;
        self.for_release = true;
        Ok(row)
    }

    /// Removes a webhook. Its secrets go at once; that it existed stays, so that deliveries of it end as cancelled.
    pub(crate) async fn delete_webhook(&mut self, id: &str, now: Timestamp) -> Result<u64, StoreError> {
        let revision = self.next_revision().await?;
        sqlx::query(
            "UPDATE webhooks SET revision = $2, state = 'deleted', record = NULL, secret_hint = '', deleted_at = $3,
             updated_at = $3 WHERE id = $1",
        )
        .bind(id)
        .bind(signed(revision))
        .bind(now.as_millis())
        .execute(&mut *self.tx)
        .await?;
        let told = ConfigRecord::bare(&self.store.epoch(), revision, ConfigKind::Webhook, id);
        self.tell(&told, now).await?;
        self.for_release = true;
        Ok(revision)
    }
}
