//! What control has to tell the broker: changes of the configuration, and deliveries to be made again.
//!
//! A row is written in the transaction of the change that it tells, so that neither is true without the other.

use std::sync::Arc;

use postrider_core::wire::{
    self, ConfigKind, ConfigRecord, DeliveryMessage, DeliveryRecord, EventRecord, TenantRecord,
};
use postrider_core::{TenantId, Timestamp};
use serde_json::value::RawValue;
use sqlx::{Row as _, Sqlite, Transaction};

use super::catalogues::catalogue_record;
use super::{Change, Settings, Store, StoreError, unsigned};

/// How long deleted things stay in snapshots: as long as a delivery can be on its way (DESIGN §5.2).
const TOMBSTONES_MS: u64 = 12 * 24 * 3600 * 1000;
/// Rows of a snapshot that are read at once.
const SNAPSHOT_ROWS: i64 = 500;
/// Catalogues of a snapshot that are read at once: each may be large.
const SNAPSHOT_CATALOGUES: i64 = 16;

/// What a row of the outbox is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutboxKind {
    /// A record for the config stream.
    Config,
    /// A message for the replay lane.
    Delivery,
}

/// A row of the outbox.
#[derive(Clone, Debug)]
pub(crate) struct OutboxRow {
    pub seq: i64,
    pub kind: OutboxKind,
    /// For a delivery: its webhook, from which the shard follows.
    pub webhook: String,
    pub message_id: String,
    pub body: Vec<u8>,
}

impl Change<'_> {
    /// Tells the data plane of a change.
    pub(super) async fn tell(&mut self, record: &ConfigRecord, now: Timestamp) -> Result<(), StoreError> {
        let id = format!("{}/{}/{}", record.epoch, record.revision, record.id);
        self.post(OutboxKind::Config, "", &id, wire::encode(record), now).await
    }

    /// Has a delivery made again, on the replay lane.
    pub(super) async fn deliver(
        &mut self,
        event: Arc<EventRecord>,
        delivery: DeliveryRecord,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let webhook = delivery.webhook.to_string();
        let id = format!("{}/{}/{}", delivery.id, delivery.series, delivery.attempt);
        let body = wire::encode(&DeliveryMessage::single(event, delivery));
        self.post(OutboxKind::Delivery, &webhook, &id, body, now).await
    }

    async fn post(
        &mut self,
        kind: OutboxKind,
        webhook: &str,
        message_id: &str,
        body: Vec<u8>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let kind = match kind {
            OutboxKind::Config => "config",
            OutboxKind::Delivery => "delivery",
        };
        sqlx::query(
            "INSERT INTO outbox (kind, webhook, message_id, body, created_at) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(kind)
        .bind(webhook)
        .bind(message_id)
        .bind(body)
        .bind(now.as_millis())
        .execute(&mut *self.tx)
        .await?;
        self.for_outbox = true;
        Ok(())
    }
}

impl Store {
    /// The oldest rows that are not sent yet, in order.
    pub(crate) async fn unsent(&self, limit: u32) -> Result<Vec<OutboxRow>, StoreError> {
        let rows = sqlx::query("SELECT * FROM outbox WHERE sent_at IS NULL ORDER BY seq LIMIT $1")
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await?;
        rows.iter()
            .map(|row| {
                let kind = match row.try_get::<String, _>("kind")?.as_str() {
                    "delivery" => OutboxKind::Delivery,
                    _ => OutboxKind::Config,
                };
                Ok(OutboxRow {
                    seq: row.try_get("seq")?,
                    kind,
                    webhook: row.try_get("webhook")?,
                    message_id: row.try_get("message_id")?,
                    body: row.try_get("body")?,
                })
            })
            .collect()
    }

    /// How many rows are not sent yet.
    pub(crate) async fn count_unsent(&self) -> Result<u64, StoreError> {
        let n: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM outbox WHERE sent_at IS NULL")
            .fetch_one(&self.readers)
            .await?;
        Ok(unsigned(n))
    }

    /// Notes that rows are sent, up to this one. Deliveries are removed: with their bodies they may be large.
    pub(crate) async fn mark_sent(&self, up_to: i64, now: Timestamp) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM outbox WHERE sent_at IS NULL AND kind = 'delivery' AND seq <= $1")
            .bind(up_to)
            .execute(&self.writer)
            .await?;
        sqlx::query("UPDATE outbox SET sent_at = $2 WHERE sent_at IS NULL AND seq <= $1")
            .bind(up_to)
            .bind(now.as_millis())
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    /// Begins to read a snapshot: everything that it gives is of one moment.
    pub(crate) async fn snapshot(&self, now: Timestamp) -> Result<SnapshotReader<'_>, StoreError> {
        let mut tx = self.readers.begin().await?;
        let revision: i64 =
            sqlx::query_scalar("SELECT n FROM counters WHERE name = 'revision'").fetch_one(&mut *tx).await?;
        let (webhooks, bytes): (i64, i64) =
            sqlx::query_as("SELECT COUNT(*), COALESCE(SUM(LENGTH(CAST(record AS BLOB))), 0) FROM webhooks")
                .fetch_one(&mut *tx)
                .await?;
        let tenants: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM tenants").fetch_one(&mut *tx).await?;
        let (catalogues, more): (i64, i64) =
            sqlx::query_as("SELECT COUNT(*), COALESCE(SUM(LENGTH(CAST(record AS BLOB))), 0) FROM catalogues")
                .fetch_one(&mut *tx)
                .await?;
        // The rest of a record, and what the stream adds to it.
        let bytes = unsigned(bytes + more) + 200 * unsigned(webhooks + tenants + catalogues);
        Ok(SnapshotReader {
            tx,
            store: self,
            revision: unsigned(revision),
            bytes,
            since: now.as_millis().saturating_sub(i64::try_from(TOMBSTONES_MS).unwrap_or(i64::MAX)),
            part: SnapshotPart::Tenants(String::new()),
        })
    }
}

/// Where in the snapshot the reader is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SnapshotPart {
    /// Tenants after this one.
    Tenants(String),
    /// Catalogues after this tenant and product.
    Catalogues(String, String),
    /// Webhooks after this row.
    Webhooks(i64),
    /// At its end.
    End,
}

/// Reads a snapshot in pieces.
#[derive(Debug)]
pub(crate) struct SnapshotReader<'a> {
    tx: Transaction<'static, Sqlite>,
    store: &'a Store,
    /// Of which revision it is.
    pub revision: u64,
    /// How large it will be, about.
    pub bytes: u64,
    since: i64,
    part: SnapshotPart,
}

impl SnapshotReader<'_> {
    /// The next records; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Vec<ConfigRecord>, StoreError> {
        loop {
            match self.part.clone() {
                SnapshotPart::Tenants(after) => {
                    let records = self.tenants(&after).await?;
                    match records.last() {
                        Some(last) => {
                            self.part = SnapshotPart::Tenants(last.id.clone());
                            return Ok(records);
                        }
                        None => self.part = SnapshotPart::Catalogues(String::new(), String::new()),
                    }
                }
                SnapshotPart::Catalogues(tenant, product) => {
                    let (records, last) = self.catalogues(&tenant, &product).await?;
                    match last {
                        Some((tenant, product)) => {
                            self.part = SnapshotPart::Catalogues(tenant, product);
                            return Ok(records);
                        }
                        None => self.part = SnapshotPart::Webhooks(0),
                    }
                }
                SnapshotPart::Webhooks(after) => {
                    let (records, last) = self.webhooks(after).await?;
                    match last {
                        Some(last) => {
                            self.part = SnapshotPart::Webhooks(last);
                            return Ok(records);
                        }
                        None => self.part = SnapshotPart::End,
                    }
                }
                SnapshotPart::End => return Ok(Vec::new()),
            }
        }
    }

    async fn tenants(&mut self, after: &str) -> Result<Vec<ConfigRecord>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM tenants WHERE id > $1 AND (deleted_at IS NULL OR deleted_at > $2) ORDER BY id LIMIT $3",
        )
        .bind(after)
        .bind(self.since)
        .bind(SNAPSHOT_ROWS)
        .fetch_all(&mut *self.tx)
        .await?;
        let mut records = Vec::with_capacity(rows.len());
        for row in rows {
            let id: String = row.try_get("id")?;
            let revision = unsigned(row.try_get("revision")?);
            let deleted = row.try_get::<Option<i64>, _>("deleted_at")?.is_some();
            let epoch = self.store.epoch();
            records.push(if deleted {
                ConfigRecord::bare(&epoch, revision, ConfigKind::Tenant, &id)
            } else {
                let settings = Settings::read(row.try_get("settings")?)?.told();
                let body = TenantRecord { id: TenantId::from_trusted(id.as_str()), settings };
                ConfigRecord::of(&epoch, revision, ConfigKind::Tenant, &id, &body)
            });
        }
        Ok(records)
    }

    async fn catalogues(
        &mut self,
        tenant: &str,
        product: &str,
    ) -> Result<(Vec<ConfigRecord>, Option<(String, String)>), StoreError> {
        let rows = sqlx::query(
            "SELECT tenant, product, revision, record FROM catalogues
             WHERE (tenant, product) > ($1, $2) AND (deleted_at IS NULL OR deleted_at > $3)
             ORDER BY tenant, product LIMIT $4",
        )
        .bind(tenant)
        .bind(product)
        .bind(self.since)
        .bind(SNAPSHOT_CATALOGUES)
        .fetch_all(&mut *self.tx)
        .await?;
        let mut records = Vec::with_capacity(rows.len());
        let mut last = None;
        for row in rows {
            let (tenant, product): (String, String) = (row.try_get("tenant")?, row.try_get("product")?);
            let revision = unsigned(row.try_get("revision")?);
            let record = row.try_get::<Option<String>, _>("record")?;
            records.push(catalogue_record(&self.store.epoch(), revision, &tenant, &product, record)?);
            last = Some((tenant, product));
        }
        Ok((records, last))
    }

    async fn webhooks(&mut self, after: i64) -> Result<(Vec<ConfigRecord>, Option<i64>), StoreError> {
        let rows = sqlx::query(
            "SELECT seq, id, revision, record FROM webhooks
             WHERE seq > $1 AND (deleted_at IS NULL OR deleted_at > $2) ORDER BY seq LIMIT $3",
        )
        .bind(after)
        .bind(self.since)
        .bind(SNAPSHOT_ROWS)
        .fetch_all(&mut *self.tx)
        .await?;
        let mut records = Vec::with_capacity(rows.len());
        let mut last = None;
        for row in rows {
            last = Some(row.try_get("seq")?);
            let id: String = row.try_get("id")?;
            let revision = unsigned(row.try_get("revision")?);
            let mut record = ConfigRecord::bare(&self.store.epoch(), revision, ConfigKind::Webhook, &id);
            if let Some(text) = row.try_get::<Option<String>, _>("record")? {
                let body = RawValue::from_string(text)
                    .map_err(|e| StoreError::Damaged(format!("the record of webhook {id}: {e}")))?;
                record.body = Some(body);
            }
            records.push(record);
        }
        Ok((records, last))
    }
}
