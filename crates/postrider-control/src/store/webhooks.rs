//! Webhooks: the record that goes to the data plane, and what people see beside it.

use postrider_core::Timestamp;
use postrider_core::profile::DEFAULT_TIMEOUT_MS;
use postrider_core::wire::{ConfigKind, ConfigRecord, WebhookRecord};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, Sqlite};

use super::{Change, Store, StoreError, signed, time, unsigned};

/// Somebody asked for it: the reason of a webhook that was disabled by hand.
pub(crate) const BY_REQUEST: &str = "request";

/// Held deliveries that end with the request that deletes their webhook.
const HELD_AT_ONCE: u32 = 500;

/// A webhook as it is stored.
#[derive(Clone, Debug)]
pub(crate) struct WebhookRow {
    pub seq: i64,
    pub record: WebhookRecord,
    pub revision: u64,
    pub secret_hint: String,
    /// For people; [`BY_REQUEST`] if somebody asked for it, and empty while it is not disabled.
    pub disabled_reason: String,
    pub disabled_at: Option<Timestamp>,
    /// When its secret was last rotated.
    pub rotated_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// Which webhooks to list.
#[derive(Clone, Debug, Default)]
pub(crate) struct WebhookFilter {
    pub tenant: String,
    pub state: Option<String>,
    /// A part of the name; A and a are the same.
    pub name: Option<String>,
    /// A part of the URL.
    pub url: Option<String>,
    pub profile: Option<String>,
    /// Only those that have failed since they last delivered something.
    pub failing: bool,
    /// Those that take events of this type.
    pub takes: Option<Takes>,
    /// Made at this time or later.
    pub since: Option<Timestamp>,
    /// Made before this time.
    pub until: Option<Timestamp>,
    /// The oldest first.
    pub oldest_first: bool,
}

impl WebhookFilter {
    /// The list along the index of the tenant's webhooks: in order, and never more of them than a tenant may have.
    pub(super) fn list(&self, query: &mut QueryBuilder<Sqlite>, beyond: Option<i64>, limit: u32) {
        query.push(
            "SELECT * FROM webhooks INDEXED BY webhooks_of_tenant WHERE deleted_at IS NULL AND tenant = ",
        );
        query.push_bind(self.tenant.clone());
        if let Some(state) = &self.state {
            query.push(" AND state = ").push_bind(state.clone());
        }
        if let Some(profile) = &self.profile {
            query.push(" AND profile = ").push_bind(profile.clone());
        }
        if self.failing {
            query.push(
                " AND EXISTS (SELECT 1 FROM webhook_health h WHERE h.webhook = webhooks.id AND h.failing_since IS NOT NULL)",
            );
        }
        if let Some(name) = &self.name {
            query
                .push(" AND instr(lower(json_extract(record, '$.name')), lower(")
                .push_bind(name.clone())
                .push(")) > 0");
        }
        if let Some(url) = &self.url {
            query.push(" AND instr(url, ").push_bind(url.clone()).push(") > 0");
        }
        if let Some(takes) = &self.takes {
            query.push(" AND id IN (");
            takes.webhooks(&self.tenant, query);
            query.push(")");
        }
        if let Some(since) = self.since {
            query.push(" AND created_at >= ").push_bind(since.as_millis());
        }
        if let Some(until) = self.until {
            query.push(" AND created_at < ").push_bind(until.as_millis());
        }
        let (past, order) = if self.oldest_first { (">", "ASC") } else { ("<", "DESC") };
        if let Some(beyond) = beyond {
            query.push(format_args!(" AND seq {past} ")).push_bind(beyond);
        }
        query.push(format_args!(" ORDER BY seq {order} LIMIT ")).push_bind(i64::from(limit));
    }
}

/// The ways in which a webhook can ask for an event type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Takes {
    /// Its name and its aliases.
    pub spellings: Vec<String>,
    pub group: Option<String>,
    pub category: Option<String>,
    /// Whether webhooks that take everything take it.
    pub all: bool,
}

impl Takes {
    /// The webhooks of the tenant that ask for it, each once. One search of the index for each way: in one condition they
    /// would be a look at everything that the tenant subscribed to.
    pub(super) fn webhooks(&self, tenant: &str, query: &mut QueryBuilder<Sqlite>) {
        const FROM: &str = "SELECT webhook FROM subscriptions WHERE tenant = ";
        query.push(FROM).push_bind(tenant.to_owned()).push(" AND kind = 'type' AND name IN (");
        let mut list = query.separated(", ");
        for spelling in &self.spellings {
            list.push_bind(spelling.clone());
        }
        query.push(")");
        let all = self.all.then(String::new);
        for (kind, name) in [("group", &self.group), ("category", &self.category), ("all", &all)] {
            if let Some(name) = name {
                query.push(" UNION ").push(FROM).push_bind(tenant.to_owned());
                query.push(format_args!(" AND kind = '{kind}' AND name = ")).push_bind(name.clone());
            }
        }
    }

    /// How many webhooks of the tenant ask for it, besides one.
    fn count(&self, tenant: &str, besides: &str) -> QueryBuilder<Sqlite> {
        let mut query = QueryBuilder::new("SELECT COUNT(DISTINCT webhook) FROM (");
        self.webhooks(tenant, &mut query);
        query.push(") WHERE webhook <> ").push_bind(besides.to_owned());
        query
    }
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
        disabled_reason: row.try_get("disabled_reason")?,
        disabled_at: time(row.try_get("disabled_at")?),
        rotated_at: time(row.try_get("rotated_at")?),
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

    /// Webhooks in the order of their making, beyond the one at `beyond`.
    pub(crate) async fn webhooks(
        &self,
        filter: &WebhookFilter,
        beyond: Option<i64>,
        limit: u32,
    ) -> Result<Vec<WebhookRow>, StoreError> {
        let mut query = QueryBuilder::new("");
        filter.list(&mut query, beyond, limit);
        let rows = query.build().persistent(false).fetch_all(&self.readers).await?;
        rows.iter().map(webhook_of).collect()
    }

    /// How many webhooks of a tenant ask for an event type.
    pub(crate) async fn count_takers(&self, tenant: &str, takes: &Takes) -> Result<u64, StoreError> {
        let mut query = takes.count(tenant, "");
        let n: i64 = query.build_query_scalar().persistent(false).fetch_one(&self.readers).await?;
        Ok(unsigned(n))
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

    /// How many webhooks that are not disabled and not over a tenant has besides one: all of them, and those of a profile.
    pub(crate) async fn count_active_webhooks(
        &mut self,
        tenant: &str,
        profile: &str,
        besides: &str,
        now: Timestamp,
    ) -> Result<(u64, u64), StoreError> {
        let (all, of_profile): (i64, i64) = sqlx::query_as(
            "SELECT COUNT(*), COUNT(*) FILTER (WHERE profile = $2) FROM webhooks
             WHERE tenant = $1 AND state <> 'disabled' AND id <> $3 AND deleted_at IS NULL
             AND COALESCE(json_extract(record, '$.expires_at') > $4, TRUE)",
        )
        .bind(tenant)
        .bind(profile)
        .bind(besides)
        .bind(now.as_millis())
        .fetch_one(&mut *self.tx)
        .await?;
        Ok((unsigned(all), unsigned(of_profile)))
    }

    /// How many webhooks of a tenant besides one ask for an event type, as this change sees it.
    pub(super) async fn count_takers_besides(
        &mut self,
        tenant: &str,
        takes: &Takes,
        besides: &str,
    ) -> Result<u64, StoreError> {
        let mut query = takes.count(tenant, besides);
        let n: i64 = query.build_query_scalar().persistent(false).fetch_one(&mut *self.tx).await?;
        Ok(unsigned(n))
    }

    /// How many webhooks of a tenant speak a profile, or a version of its payload.
    pub(crate) async fn count_speakers(
        &mut self,
        tenant: &str,
        profile: &str,
        version: Option<&str>,
    ) -> Result<u64, StoreError> {
        let n: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM webhooks WHERE tenant = $1 AND profile = $2 AND deleted_at IS NULL
             AND ($3 IS NULL OR json_extract(record, '$.payload_version') = $3)",
        )
        .bind(tenant)
        .bind(profile)
        .bind(version)
        .fetch_one(&mut *self.tx)
        .await?;
        Ok(unsigned(n))
    }

    /// How many webhooks of a tenant speak a profile over `http:`.
    pub(crate) async fn count_plain_speakers(
        &mut self,
        tenant: &str,
        profile: &str,
    ) -> Result<u64, StoreError> {
        let n: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM webhooks WHERE tenant = $1 AND profile = $2 AND deleted_at IS NULL
             AND url LIKE 'http:%'",
        )
        .bind(tenant)
        .bind(profile)
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
        self.forget_failures(record, now).await?;
        let revision = self.next_revision().await?;
        let text = serde_json::to_string(record).map_err(|e| StoreError::Damaged(e.to_string()))?;
        let row = sqlx::query(
            "INSERT INTO webhooks (id, tenant, revision, state, record, timeout_ms, secret_hint, created_at, updated_at,
             url, profile, disabled_reason, disabled_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8, $9, $10,
             CASE $4 WHEN 'disabled' THEN $11 ELSE '' END, CASE $4 WHEN 'disabled' THEN $8 END)
             ON CONFLICT (id) DO UPDATE SET revision = excluded.revision, state = excluded.state,
             record = excluded.record, timeout_ms = excluded.timeout_ms, secret_hint = excluded.secret_hint,
             updated_at = excluded.updated_at, url = excluded.url, profile = excluded.profile,
             disabled_reason = CASE WHEN state = 'disabled' AND excluded.state = 'disabled'
                               THEN disabled_reason ELSE excluded.disabled_reason END,
             disabled_at = CASE WHEN state = 'disabled' AND excluded.state = 'disabled'
                           THEN disabled_at ELSE excluded.disabled_at END
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
        .bind(&record.url)
        .bind(&record.profile)
        .bind(BY_REQUEST)
        .fetch_one(&mut *self.tx)
        .await?;
        let row = webhook_of(&row)?;
        self.note_subscription(record).await?;
        let told =
            ConfigRecord::of(&self.store.epoch(), revision, ConfigKind::Webhook, record.id.as_str(), record);
        self.tell(&told, now).await?;
        self.for_release = true;
        Ok(row)
    }

    /// Disables a webhook for a reason of Postrider's own, which people read.
    pub(crate) async fn disable_webhook(
        &mut self,
        row: WebhookRow,
        reason: &str,
        now: Timestamp,
    ) -> Result<WebhookRow, StoreError> {
        let mut record = row.record;
        record.state = "disabled".to_owned();
        let mut row = self.put_webhook(&record, &row.secret_hint, now).await?;
        sqlx::query("UPDATE webhooks SET disabled_reason = $2 WHERE id = $1")
            .bind(record.id.as_str())
            .bind(reason)
            .execute(&mut *self.tx)
            .await?;
        row.disabled_reason = reason.to_owned();
        Ok(row)
    }

    /// Notes that a webhook's secret was rotated now.
    pub(crate) async fn note_rotation(&mut self, id: &str, now: Timestamp) -> Result<(), StoreError> {
        sqlx::query("UPDATE webhooks SET rotated_at = $2 WHERE id = $1")
            .bind(id)
            .bind(now.as_millis())
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }

    /// Keeps what a webhook asks for in a form that can be looked up.
    async fn note_subscription(&mut self, record: &WebhookRecord) -> Result<(), StoreError> {
        self.forget_subscription(record.id.as_str()).await?;
        let types = record.event_types.iter().map(|name| ("type", name.as_str()));
        let groups = record.groups.iter().map(|name| ("group", name.as_str()));
        let categories = record.categories.iter().map(|name| ("category", name.as_str()));
        let rows: Vec<_> =
            types.chain(groups).chain(categories).chain(record.all.then_some(("all", ""))).collect();
        for chunk in rows.chunks(200) {
            let mut query = QueryBuilder::<Sqlite>::new(
                "INSERT OR IGNORE INTO subscriptions (tenant, kind, name, webhook) ",
            );
            query.push_values(chunk, |mut row, (kind, name)| {
                row.push_bind(record.tenant.as_str())
                    .push_bind(*kind)
                    .push_bind(*name)
                    .push_bind(record.id.as_str());
            });
            query.build().persistent(false).execute(&mut *self.tx).await?;
        }
        Ok(())
    }

    async fn forget_subscription(&mut self, webhook: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM subscriptions WHERE webhook = $1")
            .bind(webhook)
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }

    /// Removes a webhook. Its secrets go at once; that it existed stays, so that deliveries of it end as cancelled: what is
    /// held at once, or if it is much in the background, and what is on its way when a worker meets it.
    pub(crate) async fn delete_webhook(&mut self, id: &str, now: Timestamp) -> Result<u64, StoreError> {
        let revision = self.next_revision().await?;
        sqlx::query(
            "UPDATE webhooks SET revision = $2, state = 'deleted', record = NULL, secret_hint = '', url = '',
             deleted_at = $3, updated_at = $3 WHERE id = $1",
        )
        .bind(id)
        .bind(signed(revision))
        .bind(now.as_millis())
        .execute(&mut *self.tx)
        .await?;
        self.forget_subscription(id).await?;
        self.forget_health(id).await?;
        self.end_held_of_deleted(id, HELD_AT_ONCE, now).await?;
        let told = ConfigRecord::bare(&self.store.epoch(), revision, ConfigKind::Webhook, id);
        self.tell(&told, now).await?;
        self.for_release = true;
        Ok(revision)
    }
}
