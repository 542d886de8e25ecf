//! What control has to tell the broker: changes of the configuration, deliveries to be made again, and events of its own.
//!
//! A row is written in the transaction of the change that it tells, so that neither is true without the other.

use std::sync::Arc;

use postrider_core::wire::{
    self, ConfigKind, ConfigRecord, DeliveryMessage, DeliveryRecord, EventRecord, TenantRecord,
};
use postrider_core::{EventId, EventType, Json, TenantId, Timestamp, WebhookId};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, Sqlite, Transaction};

use super::catalogues::catalogue_record;
use super::{Change, Settings, Store, StoreError, unsigned};

/// How long deleted things stay in snapshots: as long as a delivery can be on its way (DESIGN §5.2).
const TOMBSTONES_MS: u64 = 12 * 24 * 3600 * 1000;
/// Rows of a snapshot that are read at once.
const SNAPSHOT_ROWS: i64 = 500;
/// Catalogues of a snapshot that are read at once: each may be large.
const SNAPSHOT_CATALOGUES: i64 = 16;

pub(super) const CONFIGURATION_LANE: &str =
    "SELECT * FROM outbox WHERE sent_at IS NULL AND kind = 'config' ORDER BY seq LIMIT $1";
pub(super) const DELIVERY_LANE: &str =
    "SELECT * FROM outbox WHERE sent_at IS NULL AND kind = 'delivery' AND seq <
    (SELECT COALESCE(MIN(seq), 9223372036854775807) FROM outbox WHERE sent_at IS NULL AND kind = 'config')
    ORDER BY seq LIMIT $1";
pub(super) const EVENT_LANE: &str = "SELECT * FROM outbox WHERE sent_at IS NULL AND kind = 'event' AND seq <
    (SELECT COALESCE(MIN(seq), 9223372036854775807) FROM outbox WHERE sent_at IS NULL AND kind = 'config')
    ORDER BY seq LIMIT $1";

/// What a row of the outbox is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutboxKind {
    /// A record for the config stream.
    Config,
    /// A message for the replay lane.
    Delivery,
    /// An event, for the router.
    Event,
}

impl OutboxKind {
    const ALL: [Self; 3] = [Self::Config, Self::Delivery, Self::Event];

    fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Delivery => "delivery",
            Self::Event => "event",
        }
    }
}

/// Rows that are sent in order, whatever becomes of the other lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutboxLane {
    /// Configuration: nothing delays it.
    Configuration,
    /// Deliveries to be made again. None is sent before the configuration that was changed before it.
    Deliveries,
    /// Events. None is sent before the configuration that was changed before it.
    Events,
}

/// Whom an event of ours is for, of those webhooks of its tenant that take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience<'a> {
    /// All of them.
    All,
    /// This one alone, whatever it takes.
    Only(&'a WebhookId),
    /// All but this one.
    Except(&'a WebhookId),
}

/// An event that control publishes, in the shape in which upstream would.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct NewEvent {
    pub event_type: EventType,
    /// When it happened, RFC 3339.
    pub event_time: String,
    pub current_context: Json,
    pub data: Json,
    pub id: EventId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
}

/// A row of the outbox.
#[derive(Clone, Debug)]
pub(crate) struct OutboxRow {
    pub seq: i64,
    pub kind: OutboxKind,
    /// For an event: whose.
    pub tenant: String,
    /// For a delivery: its webhook, from which the shard follows. For an event: the only one that it is for, or empty.
    pub webhook: String,
    /// For an event: the webhook that it is not for, or empty.
    pub except_webhook: String,
    /// For an event: the configuration by which it is to be routed, or a newer one.
    pub revision: u64,
    pub message_id: String,
    pub body: Vec<u8>,
}

impl Change<'_> {
    /// Tells the data plane of a change.
    pub(super) async fn tell(&mut self, record: &ConfigRecord, now: Timestamp) -> Result<(), StoreError> {
        let id = format!("{}/{}/{}", record.epoch, record.revision, record.id);
        self.post(OutboxKind::Config, Destination::default(), &id, wire::encode(record), now).await
    }

    /// Has a delivery made again, on the replay lane.
    pub(super) async fn deliver(
        &mut self,
        event: Arc<EventRecord>,
        delivery: DeliveryRecord,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let to = Destination { webhook: delivery.webhook.as_str(), ..Destination::default() };
        let id = format!("{}/{}/{}", delivery.id, delivery.series, delivery.attempt);
        let body = wire::encode(&DeliveryMessage::single(event, delivery.clone()));
        self.post(OutboxKind::Delivery, to, &id, body, now).await
    }

    /// Publishes an event, once this change is true. It is routed by what this change says, so it comes after what it
    /// changes.
    pub(crate) async fn publish_event(
        &mut self,
        tenant: &TenantId,
        event: &NewEvent,
        audience: Audience<'_>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let revision: i64 = sqlx::query_scalar("SELECT n FROM counters WHERE name = 'revision'")
            .fetch_one(&mut *self.tx)
            .await?;
        let (webhook, except_webhook) = match audience {
            Audience::All => ("", ""),
            Audience::Only(webhook) => (webhook.as_str(), ""),
            Audience::Except(webhook) => ("", webhook.as_str()),
        };
        let to = Destination { tenant: tenant.as_str(), webhook, except_webhook, revision };
        self.post(OutboxKind::Event, to, event.id.as_str(), wire::encode(event), now).await
    }

    async fn post(
        &mut self,
        kind: OutboxKind,
        to: Destination<'_>,
        message_id: &str,
        body: Vec<u8>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO outbox (kind, tenant, webhook, revision, message_id, body, created_at, except_webhook)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(kind.as_str())
        .bind(to.tenant)
        .bind(to.webhook)
        .bind(to.revision)
        .bind(message_id)
        .bind(body)
        .bind(now.as_millis())
        .bind(to.except_webhook)
        .execute(&mut *self.tx)
        .await?;
        self.for_outbox = true;
        Ok(())
    }
}

/// Where a row goes, as far as its kind needs to say.
#[derive(Clone, Copy, Debug, Default)]
struct Destination<'a> {
    tenant: &'a str,
    webhook: &'a str,
    except_webhook: &'a str,
    revision: i64,
}

impl Store {
    /// The oldest rows of a lane that can be sent, in order.
    pub(crate) async fn unsent(&self, lane: OutboxLane, limit: u32) -> Result<Vec<OutboxRow>, StoreError> {
        let sql = match lane {
            OutboxLane::Configuration => CONFIGURATION_LANE,
            OutboxLane::Deliveries => DELIVERY_LANE,
            OutboxLane::Events => EVENT_LANE,
        };
        let rows = sqlx::query(sql).bind(i64::from(limit)).fetch_all(&self.readers).await?;
        rows.iter()
            .map(|row| {
                let kind: String = row.try_get("kind")?;
                let kind = OutboxKind::ALL.into_iter().find(|known| known.as_str() == kind);
                Ok(OutboxRow {
                    seq: row.try_get("seq")?,
                    kind: kind
                        .ok_or_else(|| StoreError::Damaged("a row of the outbox has no kind".into()))?,
                    tenant: row.try_get("tenant")?,
                    webhook: row.try_get("webhook")?,
                    except_webhook: row.try_get("except_webhook")?,
                    revision: unsigned(row.try_get("revision")?),
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

    /// How many rows of a lane are not sent yet.
    pub(crate) async fn count_unsent_in(&self, lane: OutboxLane) -> Result<u64, StoreError> {
        let sql = match lane {
            OutboxLane::Configuration => {
                "SELECT COUNT(*) FROM outbox WHERE sent_at IS NULL AND kind = 'config'"
            }
            OutboxLane::Deliveries => {
                "SELECT COUNT(*) FROM outbox WHERE sent_at IS NULL AND kind = 'delivery'"
            }
            OutboxLane::Events => "SELECT COUNT(*) FROM outbox WHERE sent_at IS NULL AND kind = 'event'",
        };
        let n: i64 = sqlx::query_scalar(sql).fetch_one(&self.readers).await?;
        Ok(unsigned(n))
    }

    /// Notes that rows of a kind are sent, up to this one. Deliveries and events are removed: with their bodies they may
    /// be large.
    pub(crate) async fn mark_sent(
        &self,
        kind: OutboxKind,
        up_to: i64,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let sql = match kind {
            OutboxKind::Config => {
                "UPDATE outbox SET sent_at = $3 WHERE sent_at IS NULL AND kind = $1 AND seq <= $2"
            }
            OutboxKind::Delivery | OutboxKind::Event => {
                "DELETE FROM outbox WHERE sent_at IS NULL AND kind = $1 AND seq <= $2"
            }
        };
        sqlx::query(sql).bind(kind.as_str()).bind(up_to).bind(now.as_millis()).execute(&self.writer).await?;
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
        let cancellations: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM cancellations").fetch_one(&mut *tx).await?;
        // The rest of a record, and what the stream adds to it. A cancellation is small.
        let bytes = unsigned(bytes + more)
            + 200 * unsigned(webhooks + tenants + catalogues)
            + 500 * unsigned(cancellations);
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
    /// Cancellations after this row.
    Cancellations(i64),
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
                        None => self.part = SnapshotPart::Cancellations(0),
                    }
                }
                SnapshotPart::Cancellations(after) => {
                    let (records, last) = self.cancellations(after).await?;
                    match last {
                        Some(last) => {
                            self.part = SnapshotPart::Cancellations(last);
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

    async fn cancellations(&mut self, after: i64) -> Result<(Vec<ConfigRecord>, Option<i64>), StoreError> {
        let rows = sqlx::query(
            "SELECT seq, id, revision, record FROM cancellations WHERE seq > $1 AND record IS NOT NULL
             ORDER BY seq LIMIT $2",
        )
        .bind(after)
        .bind(SNAPSHOT_ROWS)
        .fetch_all(&mut *self.tx)
        .await?;
        self.records(&rows, ConfigKind::Cancellation)
    }

    /// Rows of `seq`, `id`, `revision` and `record` as records, and the last row's `seq`.
    fn records(
        &self,
        rows: &[SqliteRow],
        kind: ConfigKind,
    ) -> Result<(Vec<ConfigRecord>, Option<i64>), StoreError> {
        let mut records = Vec::with_capacity(rows.len());
        let mut last = None;
        for row in rows {
            last = Some(row.try_get("seq")?);
            let id: String = row.try_get("id")?;
            let revision = unsigned(row.try_get("revision")?);
            let mut record = ConfigRecord::bare(&self.store.epoch(), revision, kind, &id);
            if let Some(text) = row.try_get::<Option<String>, _>("record")? {
                let body = RawValue::from_string(text)
                    .map_err(|e| StoreError::Damaged(format!("the record of {id}: {e}")))?;
                record.body = Some(body);
            }
            records.push(record);
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
        self.records(&rows, ConfigKind::Webhook)
    }
}
