//! What was called off: one series of a delivery, or all that fit.
//!
//! What is held is on no queue: it ends here. Of what is on its way workers are told; whichever meets it writes it down as
//! cancelled, and until that is known it shows as `cancelling`, which follows from the records and is stored nowhere else.

use postrider_core::directory::MAX_CANCELLATIONS;
use postrider_core::wire::{CancellationRecord, Cancelled, ConfigKind, ConfigRecord};
use postrider_core::{DeliveryId, EventType, TenantId, Timestamp, WebhookId};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, Sqlite};

use super::ledger::Ledger;
use super::{Change, Store, StoreError, signed, small, unsigned};

/// Why a delivery ended that somebody called off; workers write the same.
pub(super) const BY_REQUEST: &str = "cancelled_by_request";
/// Why a delivery ended whose webhook was deleted.
pub(super) const WEBHOOK_DELETED: &str = "webhook_deleted";
/// How long a cancellation is kept: as long as a message can be on its way.
const KEPT_MS: u64 = 12 * 24 * 3600 * 1000;
/// Held series that end with the request; the rest follows in the background.
const AT_ONCE: u32 = 500;
/// Old cancellations that are removed in one transaction.
const CHUNK: i64 = 200;
/// Rows in one statement.
const ROWS: usize = 400;

/// When a series `s` began, as its message says.
const BORN: &str = "COALESCE(s.released_at, s.born_at)";

/// Whether a pending delivery `d`, with its latest series `s`, was called off.
pub(super) const CANCELLING: &str = "CASE WHEN d.state <> 'pending' THEN 0 ELSE
    EXISTS (SELECT 1 FROM cancellations c WHERE c.delivery > '' AND c.delivery = d.id AND c.series = d.series)
    OR EXISTS (SELECT 1 FROM cancellations c WHERE c.delivery = '' AND c.record IS NOT NULL AND c.tenant = d.tenant
        AND c.webhook IN ('', d.webhook) AND c.event_type IN ('', d.event_type)
        AND c.born_before > COALESCE(s.released_at, s.born_at)
        AND c.born_since <= COALESCE(s.released_at, s.born_at)) END";

/// A cancellation as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CancellationRow {
    pub seq: i64,
    pub id: String,
    pub tenant: String,
    /// The delivery and its series, if it is about one alone.
    pub series: Option<(String, u32)>,
    /// Empty for any.
    pub webhook: String,
    /// Empty for any.
    pub event_type: String,
    pub born_since: Option<Timestamp>,
    pub born_before: Timestamp,
    /// Only what is held was meant.
    pub held_only: bool,
    /// How many it meant when it was made, those that are held among them.
    pub pending: u64,
    /// How many of these were held.
    pub held: u64,
    pub created_at: Timestamp,
}

/// What to call off.
#[derive(Clone, Debug)]
pub(crate) struct CancelFilter {
    pub tenant: TenantId,
    pub webhook: Option<WebhookId>,
    pub event_type: Option<EventType>,
    /// Series that began then or later.
    pub since: Option<Timestamp>,
    /// Series that began earlier.
    pub before: Timestamp,
    /// Only what is held.
    pub held_only: bool,
}

/// What a filter means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meant {
    /// Everything that has not ended.
    pub pending: u64,
    /// What is held of it.
    pub held: u64,
}

/// What became of a delivery that was called off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CalledOff {
    /// It was held, and has ended.
    Ended { series: u32 },
    /// A worker ends it when it meets it. With the cancellation, unless it had been called off before.
    UnderWay { series: u32, cancellation: Option<String> },
}

/// Why nothing can be called off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotCalledOff {
    /// There is no such delivery.
    Unknown,
    /// It has ended like this.
    Ended(String),
    /// There are as many cancellations as workers keep.
    TooMany,
}

fn cancellation_of(row: &SqliteRow) -> Result<CancellationRow, sqlx::Error> {
    let delivery: String = row.try_get("delivery")?;
    let series = small(row.try_get("series")?);
    let since: i64 = row.try_get("born_since")?;
    Ok(CancellationRow {
        seq: row.try_get("seq")?,
        id: row.try_get("id")?,
        tenant: row.try_get("tenant")?,
        series: (!delivery.is_empty()).then_some((delivery, series)),
        webhook: row.try_get("webhook")?,
        event_type: row.try_get("event_type")?,
        born_since: (since != i64::MIN).then(|| Timestamp::from_millis(since)),
        born_before: Timestamp::from_millis(row.try_get("born_before")?),
        held_only: row.try_get::<Option<String>, _>("record")?.is_none(),
        pending: unsigned(row.try_get("pending")?),
        held: unsigned(row.try_get("held")?),
        created_at: Timestamp::from_millis(row.try_get("created_at")?),
    })
}

impl CancelFilter {
    /// `FROM` and `WHERE` of the deliveries that it means, all of which have not ended. Found among what is pending, or held,
    /// and not among everything that there ever was.
    pub(super) fn deliveries(&self, query: &mut QueryBuilder<Sqlite>) {
        let (index, what) = match (self.held_only, &self.webhook) {
            (false, _) => ("deliveries_pending", "d.state = 'pending'"),
            (true, Some(_)) => ("deliveries_held", "d.held = 1"),
            (true, None) => ("deliveries_held_of_tenant", "d.held = 1"),
        };
        query.push(format_args!(
            " FROM deliveries d INDEXED BY {index} JOIN series s ON s.delivery = d.seq AND s.series = d.series WHERE {what}"
        ));
        query.push(" AND d.tenant = ").push_bind(self.tenant.to_string());
        if let Some(webhook) = &self.webhook {
            query.push(" AND d.webhook = ").push_bind(webhook.to_string());
        }
        if let Some(event_type) = &self.event_type {
            query.push(" AND d.event_type = ").push_bind(event_type.as_str().to_owned());
        }
        if let Some(since) = self.since {
            query.push(format_args!(" AND {BORN} >= ")).push_bind(since.as_millis());
        }
        query.push(format_args!(" AND {BORN} < ")).push_bind(self.before.as_millis());
    }

    pub(super) fn count(&self) -> QueryBuilder<Sqlite> {
        let mut query = QueryBuilder::new("SELECT COUNT(*) AS n, COALESCE(SUM(d.held), 0) AS held");
        self.deliveries(&mut query);
        query
    }

    /// Held series that it means, the oldest first.
    pub(super) fn held(&self, limit: u32) -> QueryBuilder<Sqlite> {
        let mut query = QueryBuilder::new("SELECT d.id, d.series");
        Self { held_only: true, ..self.clone() }.deliveries(&mut query);
        query.push(" ORDER BY d.created_at, d.seq LIMIT ").push_bind(i64::from(limit));
        query
    }
}

fn meant(row: &SqliteRow) -> Result<Meant, sqlx::Error> {
    Ok(Meant { pending: unsigned(row.try_get("n")?), held: unsigned(row.try_get("held")?) })
}

impl Store {
    /// What a filter means now.
    pub(crate) async fn count_cancellable(&self, filter: &CancelFilter) -> Result<Meant, StoreError> {
        let mut query = filter.count();
        let row = query.build().persistent(false).fetch_one(&self.readers).await?;
        Ok(meant(&row)?)
    }

    /// Cancellations of a tenant, newest first, before `before`.
    pub(crate) async fn cancellations(
        &self,
        tenant: &str,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<CancellationRow>, StoreError> {
        let rows = sqlx::query(LIST)
            .bind(tenant)
            .bind(before.unwrap_or(i64::MAX))
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await?;
        Ok(rows.iter().map(cancellation_of).collect::<Result<_, _>>()?)
    }

    /// Ends some of what is held and was called off in bulk; returns how many.
    pub(crate) async fn end_called_off(&self, limit: u32, now: Timestamp) -> Result<u64, StoreError> {
        let open = sqlx::query(OPEN).fetch_optional(&self.readers).await?;
        let Some(row) = open.as_ref().map(cancellation_of).transpose()? else { return Ok(0) };
        let named = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let filter = CancelFilter {
            tenant: TenantId::from_trusted(row.tenant.as_str()),
            webhook: named(&row.webhook).map(WebhookId::from_trusted),
            event_type: named(&row.event_type).and_then(|name| EventType::parse(&name).ok()),
            since: row.born_since,
            before: row.born_before,
            held_only: row.held_only,
        };
        let mut change = self.change().await?;
        let ended = change.end_held_of(&filter, row.seq, limit, now).await?;
        change.commit().await?;
        Ok(ended)
    }

    /// Takes back some cancellations that are as old as no message can be; `true` when there may be more.
    pub(crate) async fn forget_cancellations(&self, now: Timestamp) -> Result<bool, StoreError> {
        let before = now.as_millis().saturating_sub(signed(KEPT_MS));
        let old = sqlx::query(OLD).bind(before).bind(CHUNK).fetch_all(&self.readers).await?;
        if old.is_empty() {
            return Ok(false);
        }
        let mut change = self.change().await?;
        for row in &old {
            let id: String = row.try_get("id")?;
            sqlx::query("DELETE FROM cancellations WHERE id = $1").bind(&id).execute(&mut *change.tx).await?;
            if row.try_get::<bool, _>("told")? {
                let revision = change.next_revision().await?;
                let gone = ConfigRecord::bare(&self.epoch(), revision, ConfigKind::Cancellation, &id);
                change.tell(&gone, now).await?;
            }
        }
        change.commit().await?;
        Ok(i64::try_from(old.len()).is_ok_and(|n| n >= CHUNK))
    }
}

pub(super) const LIST: &str =
    "SELECT * FROM cancellations WHERE tenant = $1 AND seq < $2 ORDER BY seq DESC LIMIT $3";
pub(super) const OPEN: &str = "SELECT * FROM cancellations WHERE open = 1 ORDER BY seq LIMIT 1";
pub(super) const OLD: &str = "SELECT id, record IS NOT NULL AS told FROM cancellations WHERE created_at < $1
    ORDER BY created_at LIMIT $2";

impl Change<'_> {
    /// Calls off the latest series of a delivery.
    pub(crate) async fn cancel(
        &mut self,
        tenant: &TenantId,
        id: &str,
        now: Timestamp,
    ) -> Result<Result<CalledOff, NotCalledOff>, StoreError> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT d.webhook, d.event_type, d.series, d.state, d.held, {CANCELLING} AS cancelling FROM deliveries d
             LEFT JOIN series s ON s.delivery = d.seq AND s.series = d.series WHERE d.tenant = $1 AND d.id = $2"
        )))
        .bind(tenant.as_str())
        .bind(id)
        .fetch_optional(&mut *self.tx)
        .await?;
        let Some(row) = row else { return Ok(Err(NotCalledOff::Unknown)) };
        let state: String = row.try_get("state")?;
        if state != "pending" {
            return Ok(Err(NotCalledOff::Ended(state)));
        }
        let series: i64 = row.try_get("series")?;
        if row.try_get("held")? {
            self.end_held(id, series, Outcome::Cancelled(BY_REQUEST), now).await?;
            return Ok(Ok(CalledOff::Ended { series: small(series) }));
        }
        if row.try_get("cancelling")? {
            return Ok(Ok(CalledOff::UnderWay { series: small(series), cancellation: None }));
        }
        if self.is_full().await? {
            return Ok(Err(NotCalledOff::TooMany));
        }
        let what = Cancelled::Series { delivery: DeliveryId::from_trusted(id), series: small(series) };
        let new = NewRow {
            delivery: (id, small(series)),
            webhook: row.try_get("webhook")?,
            event_type: row.try_get("event_type")?,
            since: i64::MIN,
            before: now,
            meant: Meant { pending: 1, held: 0 },
        };
        let row = self.call_off(tenant, Some(what), new, now).await?;
        Ok(Ok(CalledOff::UnderWay { series: small(series), cancellation: Some(row.id) }))
    }

    /// Calls off everything that a filter means, and says how many that were. What is held ends at once, or if it is much
    /// in the background.
    pub(crate) async fn cancel_matching(
        &mut self,
        filter: &CancelFilter,
        now: Timestamp,
    ) -> Result<Result<CancellationRow, NotCalledOff>, StoreError> {
        if self.is_full().await? {
            return Ok(Err(NotCalledOff::TooMany));
        }
        let mut query = filter.count();
        let meant = meant(&query.build().persistent(false).fetch_one(&mut *self.tx).await?)?;
        let what = Cancelled::Matching {
            webhook: filter.webhook.clone(),
            event_type: filter.event_type.clone(),
            born_since: filter.since,
            born_before: filter.before,
        };
        let new = NewRow {
            delivery: ("", 0),
            webhook: filter.webhook.as_ref().map(ToString::to_string).unwrap_or_default(),
            event_type: filter.event_type.as_ref().map(ToString::to_string).unwrap_or_default(),
            since: filter.since.map_or(i64::MIN, Timestamp::as_millis),
            before: filter.before,
            meant,
        };
        let row = self.call_off(&filter.tenant, (!filter.held_only).then_some(what), new, now).await?;
        self.end_held_of(filter, row.seq, AT_ONCE, now).await?;
        Ok(Ok(row))
    }

    async fn is_full(&mut self) -> Result<bool, StoreError> {
        let n: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM cancellations").fetch_one(&mut *self.tx).await?;
        Ok(usize::try_from(n).is_ok_and(|n| n >= MAX_CANCELLATIONS))
    }

    /// Keeps a cancellation, and tells workers of `what`.
    async fn call_off(
        &mut self,
        tenant: &TenantId,
        what: Option<Cancelled>,
        new: NewRow<'_>,
        now: Timestamp,
    ) -> Result<CancellationRow, StoreError> {
        let id = format!("cnl_{}", uuid::Uuid::now_v7().simple());
        let (mut revision, mut text) = (0, None);
        if let Some(what) = what {
            revision = self.next_revision().await?;
            let record = CancellationRecord { tenant: tenant.clone(), at: now, what };
            text = Some(serde_json::to_string(&record).map_err(|e| StoreError::Damaged(e.to_string()))?);
            let told =
                ConfigRecord::of(&self.store.epoch(), revision, ConfigKind::Cancellation, &id, &record);
            self.tell(&told, now).await?;
        }
        let row = sqlx::query(
            "INSERT INTO cancellations (id, tenant, revision, record, delivery, series, webhook, event_type, born_since,
             born_before, pending, held, open, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12 > 0, $13) RETURNING *",
        )
        .bind(&id)
        .bind(tenant.as_str())
        .bind(signed(revision))
        .bind(text)
        .bind(new.delivery.0)
        .bind(i64::from(new.delivery.1))
        .bind(new.webhook)
        .bind(new.event_type)
        .bind(new.since)
        .bind(new.before.as_millis())
        .bind(signed(new.meant.pending))
        .bind(signed(new.meant.held))
        .bind(now.as_millis())
        .fetch_one(&mut *self.tx)
        .await?;
        Ok(cancellation_of(&row)?)
    }

    /// Ends some held series that a cancellation means; notes it when there are no more.
    async fn end_held_of(
        &mut self,
        filter: &CancelFilter,
        cancellation: i64,
        limit: u32,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let mut query = filter.held(limit);
        let held: Vec<(String, i64)> =
            query.build_query_as().persistent(false).fetch_all(&mut *self.tx).await?;
        for (id, series) in &held {
            self.end_held(id, *series, Outcome::Cancelled(BY_REQUEST), now).await?;
        }
        let ended = held.len() as u64;
        if ended < u64::from(limit) {
            sqlx::query("UPDATE cancellations SET open = 0 WHERE seq = $1")
                .bind(cancellation)
                .execute(&mut *self.tx)
                .await?;
        } else {
            self.for_release = true;
        }
        Ok(ended)
    }

    /// Ends some held series of a webhook that was deleted; returns how many.
    pub(crate) async fn end_held_of_deleted(
        &mut self,
        webhook: &str,
        limit: u32,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let held: Vec<(String, i64)> = sqlx::query_as(
            "SELECT id, series FROM deliveries WHERE webhook = $1 AND held = 1 ORDER BY created_at, seq LIMIT $2",
        )
        .bind(webhook)
        .bind(i64::from(limit))
        .fetch_all(&mut *self.tx)
        .await?;
        for (id, series) in &held {
            self.end_held(id, *series, Outcome::Cancelled(WEBHOOK_DELETED), now).await?;
        }
        Ok(held.len() as u64)
    }

    /// Ends a series that is held: nothing of it is on its way.
    pub(super) async fn end_held(
        &mut self,
        id: &str,
        series: i64,
        outcome: Outcome,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let (state, reason) = match outcome {
            Outcome::Cancelled(reason) => ("cancelled", reason),
            Outcome::Dead(reason) => ("dead", reason),
        };
        for sql in [
            "UPDATE series SET held = 0, state = $3, reason = $4, ended_at = $5, next_at = NULL, attempts = logged
             WHERE delivery = (SELECT seq FROM deliveries WHERE id = $1) AND series = $2 AND state = 'pending'",
            "UPDATE deliveries SET held = 0, state = $3, reason = $4, next_at = NULL, updated_at = $5
             WHERE id = $1 AND series = $2 AND state = 'pending'",
        ] {
            sqlx::query(sql)
                .bind(id)
                .bind(series)
                .bind(state)
                .bind(reason)
                .bind(now.as_millis())
                .execute(&mut *self.tx)
                .await?;
        }
        if let Outcome::Dead(reason) = outcome {
            self.keep_letter(id, series, reason, now).await?;
        }
        Ok(())
    }

    /// Ends what a batch says is held although it was called off, or its webhook deleted, before: its worker did not know
    /// yet, and nobody else would meet it.
    pub(super) async fn end_held_again(&mut self, ledger: &mut Ledger) -> Result<(), StoreError> {
        let held = ledger.newly_held();
        if held.is_empty() {
            return Ok(());
        }
        let mut webhooks: Vec<&str> = held.iter().map(|(_, delivery)| &*delivery.webhook).collect();
        webhooks.sort_unstable();
        webhooks.dedup();
        let mut deleted = std::collections::HashSet::new();
        for chunk in webhooks.chunks(ROWS) {
            let mut query = QueryBuilder::<Sqlite>::new(
                "SELECT id FROM webhooks WHERE deleted_at IS NOT NULL AND id IN (",
            );
            let mut list = query.separated(", ");
            for id in chunk {
                list.push_bind((*id).to_owned());
            }
            query.push(")");
            let found: Vec<String> =
                query.build_query_scalar().persistent(false).fetch_all(&mut *self.tx).await?;
            deleted.extend(found);
        }
        let any: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM cancellations)")
            .fetch_one(&mut *self.tx)
            .await?;
        let called_off = format!(
            "SELECT {CANCELLING} FROM (SELECT $1 AS id, $2 AS series, 'pending' AS state, $3 AS tenant, $4 AS webhook,
             $5 AS event_type) d, (SELECT $6 AS born_at, NULL AS released_at) s"
        );
        let mut ends = Vec::new();
        for (id, delivery) in held {
            if deleted.contains(&*delivery.webhook) {
                ends.push((id.clone(), WEBHOOK_DELETED));
            } else if any && let Some((series, latest)) = delivery.series.last_key_value() {
                let called_off: bool = sqlx::query_scalar(sqlx::AssertSqlSafe(called_off.clone()))
                    .bind(id.as_str())
                    .bind(i64::from(*series))
                    .bind(&delivery.tenant)
                    .bind(&delivery.webhook)
                    .bind(&delivery.event_type)
                    .bind(latest.released_at.unwrap_or(latest.born_at))
                    .fetch_one(&mut *self.tx)
                    .await?;
                if called_off {
                    ends.push((id.clone(), BY_REQUEST));
                }
            }
        }
        for (id, reason) in ends {
            ledger.cancel_held(&id, reason);
        }
        Ok(())
    }

    /// How many deliveries a webhook missed since it was disabled.
    pub(crate) async fn count_skipped(&mut self, webhook: &str, since: Timestamp) -> Result<u64, StoreError> {
        let n: i64 = sqlx::query_scalar(SKIPPED)
            .bind(webhook)
            .bind(since.as_millis())
            .fetch_one(&mut *self.tx)
            .await?;
        Ok(unsigned(n))
    }

    /// Whether a webhook of this tenant exists, or existed.
    pub(crate) async fn knew_webhook(&mut self, tenant: &str, id: &str) -> Result<bool, StoreError> {
        Ok(sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM webhooks WHERE tenant = $1 AND id = $2)")
            .bind(tenant)
            .bind(id)
            .fetch_one(&mut *self.tx)
            .await?)
    }
}

pub(super) const SKIPPED: &str = "SELECT COUNT(*) FROM deliveries WHERE webhook = $1 AND state = 'skipped'
    AND reason = 'webhook_disabled' AND updated_at >= $2";

/// A cancellation to keep.
struct NewRow<'a> {
    delivery: (&'a str, u32),
    webhook: String,
    event_type: String,
    since: i64,
    before: Timestamp,
    meant: Meant,
}

/// How a held series ends here, with the reason.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    Cancelled(&'static str),
    Dead(&'static str),
}
