//! Keys of the API. What opens with them is decided by whoever asks; here they are rows.

use postrider_core::{TenantId, Timestamp};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, Sqlite};

use super::{Change, Store, StoreError, signed, time};
use crate::keys::{KeyHash, KeyScopes, USE_WRITTEN_MS};

/// The most keys of one tenant that are not revoked, and of those that are for every tenant.
pub(crate) const MAX_KEYS: i64 = 1000;

/// A key as it is stored: the key itself is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyRow {
    pub seq: i64,
    pub id: String,
    /// Whose it is; none for a key that is for every tenant.
    pub tenant: Option<TenantId>,
    pub name: String,
    pub scopes: KeyScopes,
    /// The last four characters of the key.
    pub hint: String,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
    /// To within a minute.
    pub last_used_at: Option<Timestamp>,
}

impl KeyRow {
    /// Whether it opens anything now.
    pub(crate) fn is_usable(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|at| now < at)
    }
}

/// A key to keep.
#[derive(Clone, Debug)]
pub(crate) struct NewKeyRow {
    pub id: String,
    pub hash: KeyHash,
    /// None only with the scope `admin`.
    pub tenant: Option<TenantId>,
    pub name: String,
    pub scopes: KeyScopes,
    pub hint: String,
    pub expires_at: Option<Timestamp>,
}

/// Why a key cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyRefused {
    /// There is no such tenant.
    UnknownTenant,
    /// There are too many.
    TooMany,
}

fn key_of(row: &SqliteRow) -> Result<KeyRow, StoreError> {
    let damaged = || StoreError::Damaged("a row of the API keys".to_owned());
    let (tenant, scopes): (String, String) = (row.try_get("tenant")?, row.try_get("scopes")?);
    let scopes = KeyScopes::parse(&scopes).ok_or_else(damaged)?;
    let tenant = match tenant.as_str() {
        "" => None,
        tenant => Some(TenantId::parse(tenant).map_err(|_| damaged())?),
    };
    // Exactly those with `admin` are for every tenant: no other row may open more than one.
    if tenant.is_none() != scopes.is_admin() {
        return Err(damaged());
    }
    Ok(KeyRow {
        seq: row.try_get("seq")?,
        id: row.try_get("id")?,
        tenant,
        name: row.try_get("name")?,
        scopes,
        hint: row.try_get("hint")?,
        created_at: Timestamp::from_millis(row.try_get("created_at")?),
        expires_at: time(row.try_get("expires_at")?),
        revoked_at: time(row.try_get("revoked_at")?),
        last_used_at: time(row.try_get("last_used_at")?),
    })
}

impl Store {
    /// The key with this hash, also one that is revoked or has expired.
    pub(crate) async fn key_of(&self, hash: &KeyHash) -> Result<Option<KeyRow>, StoreError> {
        let row = sqlx::query("SELECT * FROM api_keys WHERE hash = $1")
            .bind(hash.as_bytes())
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(key_of).transpose()
    }

    /// A key by its id.
    pub(crate) async fn key(&self, id: &str) -> Result<Option<KeyRow>, StoreError> {
        let row = sqlx::query("SELECT * FROM api_keys WHERE id = $1")
            .bind(id)
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(key_of).transpose()
    }

    /// Keys, newest first, before `before`: of a tenant, or all of them.
    pub(crate) async fn keys(
        &self,
        tenant: Option<&TenantId>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<KeyRow>, StoreError> {
        let mut query = QueryBuilder::<Sqlite>::new("SELECT * FROM api_keys WHERE seq < ");
        query.push_bind(before.unwrap_or(i64::MAX));
        if let Some(tenant) = tenant {
            query.push(" AND tenant = ").push_bind(tenant.as_str().to_owned());
        }
        query.push(" ORDER BY seq DESC LIMIT ").push_bind(i64::from(limit));
        query.build().fetch_all(&self.readers).await?.iter().map(key_of).collect()
    }

    /// Writes down when keys were used, each at most once a minute.
    pub(crate) async fn note_uses(&self, uses: &[(String, Timestamp)]) -> Result<(), StoreError> {
        let mut tx = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        for (id, at) in uses {
            sqlx::query(
                "UPDATE api_keys SET last_used_at = $2 WHERE id = $1 AND COALESCE(last_used_at + $3 <= $2, TRUE)",
            )
            .bind(id)
            .bind(at.as_millis())
            .bind(signed(USE_WRITTEN_MS))
            .execute(&mut *tx)
            .await?;
        }
        Ok(tx.commit().await?)
    }
}

impl Change<'_> {
    /// Keeps a key.
    pub(crate) async fn make_key(
        &mut self,
        new: &NewKeyRow,
        now: Timestamp,
    ) -> Result<Result<KeyRow, KeyRefused>, StoreError> {
        let tenant = new.tenant.as_ref().map_or("", TenantId::as_str);
        if new.tenant.is_some() && !self.has_tenant(tenant).await? {
            return Ok(Err(KeyRefused::UnknownTenant));
        }
        let kept: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM api_keys WHERE tenant = $1 AND revoked_at IS NULL")
                .bind(tenant)
                .fetch_one(&mut *self.tx)
                .await?;
        if kept >= MAX_KEYS {
            return Ok(Err(KeyRefused::TooMany));
        }
        let row = sqlx::query(
            "INSERT INTO api_keys (id, hash, tenant, name, scopes, hint, created_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING *",
        )
        .bind(&new.id)
        .bind(new.hash.as_bytes())
        .bind(tenant)
        .bind(&new.name)
        .bind(new.scopes.words().join(" "))
        .bind(&new.hint)
        .bind(now.as_millis())
        .bind(new.expires_at.map(Timestamp::as_millis))
        .fetch_one(&mut *self.tx)
        .await?;
        key_of(&row).map(Ok)
    }

    /// Revokes a key. Gives it as it was before: one that is revoked already stays as it is.
    pub(crate) async fn revoke_key(
        &mut self,
        id: &str,
        now: Timestamp,
    ) -> Result<Option<KeyRow>, StoreError> {
        let row = sqlx::query("SELECT * FROM api_keys WHERE id = $1")
            .bind(id)
            .fetch_optional(&mut *self.tx)
            .await?;
        sqlx::query("UPDATE api_keys SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL")
            .bind(id)
            .bind(now.as_millis())
            .execute(&mut *self.tx)
            .await?;
        row.as_ref().map(key_of).transpose()
    }

    /// Revokes every key of a tenant: another tenant may have its name one day.
    pub(super) async fn revoke_keys_of(
        &mut self,
        tenant: &TenantId,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        sqlx::query("UPDATE api_keys SET revoked_at = $2 WHERE tenant = $1 AND revoked_at IS NULL")
            .bind(tenant.as_str())
            .bind(now.as_millis())
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }
}
