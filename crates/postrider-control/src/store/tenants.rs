//! Tenants.

use postrider_core::wire::{ConfigKind, ConfigRecord, TenantRecord, TenantSettings};
use postrider_core::{TenantId, Timestamp};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::{Change, Store, StoreError, signed, unsigned};

/// The most tenants.
pub(crate) const MAX_TENANTS: i64 = 10_000;

/// A tenant as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TenantRow {
    pub id: String,
    pub revision: u64,
    pub created_at: Timestamp,
}

/// Why a tenant cannot be made or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TenantRefused {
    /// There is one of that name.
    Exists,
    /// There is none.
    Unknown,
    /// It has webhooks.
    HasWebhooks,
    /// It has reminders that are pending.
    HasReminders,
    /// There are too many.
    TooMany,
}

fn tenant_of(row: &SqliteRow) -> Result<TenantRow, sqlx::Error> {
    Ok(TenantRow {
        id: row.try_get("id")?,
        revision: unsigned(row.try_get("revision")?),
        created_at: Timestamp::from_millis(row.try_get("created_at")?),
    })
}

/// Tenants by name, after one.
pub(super) const LIST: &str =
    "SELECT * FROM tenants WHERE deleted_at IS NULL AND id > $1 ORDER BY id LIMIT $2";

impl Store {
    /// A tenant that exists.
    pub(crate) async fn tenant(&self, id: &str) -> Result<Option<TenantRow>, StoreError> {
        let row = sqlx::query("SELECT * FROM tenants WHERE id = $1 AND deleted_at IS NULL")
            .bind(id)
            .fetch_optional(&self.readers)
            .await?;
        Ok(row.as_ref().map(tenant_of).transpose()?)
    }

    /// Tenants by name, after `after`.
    pub(crate) async fn tenants(&self, after: &str, limit: u32) -> Result<Vec<TenantRow>, StoreError> {
        let rows = sqlx::query(LIST).bind(after).bind(i64::from(limit)).fetch_all(&self.readers).await?;
        Ok(rows.iter().map(tenant_of).collect::<Result<_, _>>()?)
    }
}

impl Change<'_> {
    /// Makes a tenant.
    pub(crate) async fn create_tenant(
        &mut self,
        id: &TenantId,
        now: Timestamp,
    ) -> Result<Result<TenantRow, TenantRefused>, StoreError> {
        if self.has_tenant(id.as_str()).await? {
            return Ok(Err(TenantRefused::Exists));
        }
        let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM tenants WHERE deleted_at IS NULL")
            .fetch_one(&mut *self.tx)
            .await?;
        if count >= MAX_TENANTS {
            return Ok(Err(TenantRefused::TooMany));
        }
        let revision = self.next_revision().await?;
        sqlx::query(
            "INSERT INTO tenants (id, revision, created_at) VALUES ($1, $2, $3)
             ON CONFLICT (id) DO UPDATE SET revision = excluded.revision, created_at = excluded.created_at,
             deleted_at = NULL, settings = '{}'",
        )
        .bind(id.as_str())
        .bind(signed(revision))
        .bind(now.as_millis())
        .execute(&mut *self.tx)
        .await?;
        let body = TenantRecord { id: id.clone(), settings: TenantSettings::default() };
        let record = ConfigRecord::of(&self.store.epoch(), revision, ConfigKind::Tenant, id.as_str(), &body);
        self.tell(&record, now).await?;
        Ok(Ok(TenantRow { id: id.to_string(), revision, created_at: now }))
    }

    /// Removes a tenant that has no webhooks, with its catalogues; its keys are revoked.
    pub(crate) async fn delete_tenant(
        &mut self,
        id: &TenantId,
        now: Timestamp,
    ) -> Result<Result<u64, TenantRefused>, StoreError> {
        if !self.has_tenant(id.as_str()).await? {
            return Ok(Err(TenantRefused::Unknown));
        }
        if self.count_webhooks(id.as_str()).await? > 0 {
            return Ok(Err(TenantRefused::HasWebhooks));
        }
        if self.count_pending_reminders(id.as_str(), None).await? > 0 {
            return Ok(Err(TenantRefused::HasReminders));
        }
        for row in self.catalogues(id.as_str()).await? {
            self.delete_catalogue(id.as_str(), &row.catalogue.product.id, now).await?;
        }
        self.revoke_keys_of(id, now).await?;
        let revision = self.next_revision().await?;
        sqlx::query("UPDATE tenants SET revision = $2, deleted_at = $3 WHERE id = $1")
            .bind(id.as_str())
            .bind(signed(revision))
            .bind(now.as_millis())
            .execute(&mut *self.tx)
            .await?;
        let record = ConfigRecord::bare(&self.store.epoch(), revision, ConfigKind::Tenant, id.as_str());
        self.tell(&record, now).await?;
        Ok(Ok(revision))
    }

    /// Whether there is such a tenant.
    pub(crate) async fn has_tenant(&mut self, id: &str) -> Result<bool, StoreError> {
        let n: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM tenants WHERE id = $1 AND deleted_at IS NULL")
            .bind(id)
            .fetch_one(&mut *self.tx)
            .await?;
        Ok(n > 0)
    }
}
