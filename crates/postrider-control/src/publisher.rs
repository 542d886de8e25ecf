//! The publisher: what control decides, on its way to the broker.
//!
//! Three lanes, each in order, each row confirmed before it is marked: configuration, which waits for nothing; deliveries to
//! be made again, of which there may be many; and events, which may find their queue full. A snapshot of the whole
//! configuration is written when a session begins, and whenever so much has followed the last one that readers would have
//! to read long.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use postrider_broker::config_stream::{self, ConfigStream, Read};
use postrider_broker::{BrokerError, Names, Outgoing, Publisher, Readiness, Session, crash};
use postrider_core::Epoch;
use postrider_core::WebhookId;
use postrider_core::wire::{self, ConfigKind, ConfigRecord, TopologyRecord};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::link::{Broker as _, Link};
use crate::metrics::Metrics;
use crate::recorder::Activity;
use crate::store::{OutboxLane, OutboxRow, Store, StoreError};

/// A snapshot is due when more than this followed the last one, and more than it was large.
const DUE_BYTES: u64 = 32 * 1024 * 1024;
/// The largest snapshot: a third of what the stream keeps.
const MAX_SNAPSHOT_BYTES: u64 = 512 * 1024 * 1024 / 3;
/// Rows of the outbox that are read at once.
const ROWS: u32 = 256;
/// Publishes under way where order does not matter.
const IN_FLIGHT: usize = 64;
/// How often to look even if nobody said that there is something.
const LOOK: Duration = Duration::from_secs(1);
/// How long the last deliveries and events may take when the last configuration is told.
const LAST: Duration = Duration::from_secs(5);
/// How long to wait after a snapshot was refused because it is too large.
const REFUSED: Duration = Duration::from_secs(30);
/// How long the config stream may take to give its next record while we catch up.
const NEXT_RECORD: Duration = Duration::from_secs(30);

/// Sends what control decides.
#[derive(Debug)]
pub(crate) struct OutboxPublisher {
    pub store: Arc<Store>,
    pub link: Arc<Link>,
    pub metrics: Metrics,
    pub readiness: Readiness,
    pub activity: Activity,
}

/// What ended the work of the moment.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How far the stream has come since the last snapshot.
#[derive(Debug, Default)]
struct Written {
    snapshot: Option<u64>,
    since: u64,
    /// When one was refused: the next try is later.
    refused: Option<Instant>,
}

impl Written {
    fn is_due(&self) -> bool {
        self.refused.is_none_or(|at| at.elapsed() > REFUSED)
            && self.snapshot.is_none_or(|bytes| self.since > bytes.max(DUE_BYTES))
    }
}

/// A lane of the outbox.
enum Lane<'a> {
    /// With how far the stream has come.
    Configuration(&'a mut Written),
    Deliveries,
    Events,
}

impl Lane<'_> {
    fn kind(&self) -> OutboxLane {
        match self {
            Self::Configuration(_) => OutboxLane::Configuration,
            Self::Deliveries => OutboxLane::Deliveries,
            Self::Events => OutboxLane::Events,
        }
    }
}

impl OutboxPublisher {
    /// Publishes until `stop`, when everything that was answered for is out, or until the session is over.
    pub(crate) async fn run(&self, session: &Session, stop: &CancellationToken) -> Result<(), BrokerError> {
        let mut stream = ConfigStream::open(session).await?;
        let newest = self.catch_up(&mut stream, stop).await?;
        match self.renew_if_restored(newest).await {
            Ok(()) => {}
            Err(error) => {
                self.readiness.set("store", Err(error.to_string()));
                return Err(BrokerError::Config(format!("the store does not answer: {error}")));
            }
        }
        let follow = async {
            while let Some(read) = stream.next().await {
                self.learn(&read);
            }
            Err(BrokerError::Lost)
        };
        tokio::select! {
            ended = follow => ended,
            ended = self.publish(session, stop) => ended,
        }
    }

    /// A store that is older than what it once published was restored from a backup. Under its old epoch readers would
    /// take its next changes for older ones and ignore them.
    async fn renew_if_restored(&self, newest: u64) -> Result<(), StoreError> {
        let revision = self.store.revision().await?;
        if newest > revision {
            tracing::warn!(
                newest,
                revision,
                "the store is older than what it published: it was restored; a new epoch begins"
            );
            self.store.renew_epoch().await?;
        }
        Ok(())
    }

    /// Reads what is on the stream: the topology is not ours, but our snapshots carry it on. Returns the newest revision
    /// of this store's epoch.
    async fn catch_up(
        &self,
        stream: &mut ConfigStream,
        stop: &CancellationToken,
    ) -> Result<u64, BrokerError> {
        let epoch = self.store.epoch();
        let mut newest = 0;
        loop {
            let read = tokio::select! {
                () = stop.cancelled() => return Ok(newest),
                read = tokio::time::timeout(NEXT_RECORD, stream.next()) => read,
            };
            match read {
                Err(_) => {
                    let seconds = NEXT_RECORD.as_secs();
                    return Err(BrokerError::Timeout {
                        what: "the next record of the config stream",
                        seconds,
                    });
                }
                Ok(None) => return Err(BrokerError::Lost),
                Ok(Some(Read::CaughtUp)) => return Ok(newest),
                Ok(Some(read)) => {
                    if let Read::Record(record) = &read
                        && record.epoch == epoch
                    {
                        newest = newest.max(record.revision);
                    }
                    self.learn(&read);
                }
            }
        }
    }

    fn learn(&self, read: &Read) {
        match read {
            Read::Record(record) if record.kind == ConfigKind::Topology => {
                let body =
                    record.body.as_ref().map(|body| serde_json::from_str::<TopologyRecord>(body.get()));
                match body {
                    Some(Ok(topology)) => self.link.learn(record.revision, topology),
                    Some(Err(error)) => {
                        tracing::error!(%error, "a topology record cannot be read; upgrade control")
                    }
                    None => {}
                }
            }
            Read::Record(_) | Read::CaughtUp => {}
            Read::Unreadable(why) | Read::Damaged(why) => {
                tracing::error!(why, "a record of the config stream cannot be read")
            }
        }
    }

    async fn publish(&self, session: &Session, stop: &CancellationToken) -> Result<(), BrokerError> {
        // What was changed last is told before what depends on it.
        let told = CancellationToken::new();
        let configuration = async {
            let mut written = Written::default();
            self.send(session, Lane::Configuration(&mut written), stop).await?;
            told.cancel();
            Ok(())
        };
        // A queue is full, or they are many: the rest is sent at the next start.
        let late = async || {
            told.cancelled().await;
            tokio::time::sleep(LAST).await;
        };
        let deliveries = async {
            tokio::select! {
                ended = self.send(session, Lane::Deliveries, &told) => ended,
                () = late() => Ok(()),
            }
        };
        let events = async {
            tokio::select! {
                ended = self.send(session, Lane::Events, &told) => ended,
                () = late() => Ok(()),
            }
        };
        tokio::try_join!(configuration, deliveries, events)?;
        Ok(())
    }

    /// Sends what a lane has until `stop`, and then what is left of it.
    async fn send(
        &self,
        session: &Session,
        mut lane: Lane<'_>,
        stop: &CancellationToken,
    ) -> Result<(), BrokerError> {
        let wake = self.store.wake();
        let woken = match lane {
            Lane::Configuration(_) => &wake.outbox,
            Lane::Deliveries => &wake.deliveries,
            Lane::Events => &wake.events,
        };
        let mut failing = false;
        loop {
            let last = stop.is_cancelled();
            match self.send_all(session, &mut lane).await {
                Ok(()) => {
                    if std::mem::take(&mut failing) {
                        self.metrics.store_up(true);
                        self.readiness.set("store", Ok(()));
                    }
                }
                Err(Trouble::Broker(error)) => return Err(error),
                Err(Trouble::Store(error)) => {
                    failing = true;
                    self.metrics.store_up(false);
                    self.readiness.set("store", Err(error.to_string()));
                }
            }
            // The notification of a commit, or time: a row is never forgotten.
            if last {
                return Ok(());
            }
            tokio::select! {
                () = stop.cancelled() => {}
                looked = tokio::time::timeout(LOOK, woken.notified()) => drop(looked),
            }
        }
    }

    async fn send_all(&self, session: &Session, lane: &mut Lane<'_>) -> Result<(), Trouble> {
        if let Lane::Configuration(written) = lane
            && written.is_due()
        {
            self.write_snapshot(&session.publisher(), session.names(), written).await?;
        }
        loop {
            let rows = self.store.unsent(lane.kind(), ROWS).await?;
            self.metrics.outbox(self.store.count_unsent().await?);
            if rows.is_empty() {
                return Ok(());
            }
            match lane {
                Lane::Configuration(written) => {
                    self.send_config(session, &rows, written).await?;
                    // What waited for it.
                    self.store.wake().events.notify_one();
                    self.store.wake().deliveries.notify_one();
                }
                Lane::Deliveries => self.send_deliveries(session, &rows).await?,
                Lane::Events => self.send_events(session, &rows).await?,
            }
        }
    }

    /// To the router, which waits for the configuration of that moment.
    async fn send_events(&self, session: &Session, rows: &[OutboxRow]) -> Result<(), Trouble> {
        let (exchange, epoch) = (session.names().events(), self.store.epoch());
        let messages = rows.iter().map(|row| {
            let message = Outgoing::json(&exchange, &row.tenant, row.body.clone(), &row.message_id)
                .header("postrider-revision", row.revision.to_string())
                .header("postrider-epoch", epoch.as_str());
            let named = [("only-webhook", &row.webhook), ("except-webhook", &row.except_webhook)];
            let named = named.into_iter().filter(|(_, webhook)| !webhook.is_empty());
            named.fold(message, |message, (name, webhook)| message.header(name, webhook))
        });
        publish_all(session.publisher(), messages.collect()).await?;
        crash::point("outbox.event_published");
        self.mark(rows).await
    }

    /// One after the other: readers take what they have read to be complete up to its revision.
    async fn send_config(
        &self,
        session: &Session,
        rows: &[OutboxRow],
        written: &mut Written,
    ) -> Result<(), Trouble> {
        let publisher = session.publisher();
        for row in rows {
            let record: ConfigRecord = serde_json::from_slice(&row.body)
                .map_err(|e| StoreError::Damaged(format!("row {} of the outbox: {e}", row.seq)))?;
            config_stream::write(&publisher, session.names(), &record).await?;
            written.since += row.body.len() as u64;
        }
        crash::point("outbox.config_published");
        self.mark(rows).await
    }

    async fn send_deliveries(&self, session: &Session, rows: &[OutboxRow]) -> Result<(), Trouble> {
        let shards = self.link.topology().map_or(1, |topology| topology.shards);
        let exchange = session.names().deliveries();
        let messages: Vec<Outgoing> = rows
            .iter()
            .map(|row| {
                let shard = WebhookId::from_trusted(row.webhook.as_str()).shard(shards);
                let key = Names::destination(postrider_broker::Lane::Replay, shard);
                Outgoing::json(&exchange, key, row.body.clone(), &row.message_id)
            })
            .collect();
        publish_all(session.publisher(), messages).await?;
        crash::point("outbox.delivery_published");
        self.activity.note();
        self.mark(rows).await
    }

    async fn mark(&self, rows: &[OutboxRow]) -> Result<(), Trouble> {
        if let Some(last) = rows.last() {
            self.store.mark_sent(last.kind, last.seq, postrider_broker::now()).await?;
            crash::point("outbox.marked");
        }
        Ok(())
    }

    async fn write_snapshot(
        &self,
        publisher: &Publisher,
        names: &Names,
        written: &mut Written,
    ) -> Result<(), Trouble> {
        let mut snapshot = self.store.snapshot(postrider_broker::now()).await?;
        if snapshot.bytes > MAX_SNAPSHOT_BYTES {
            let why = format!(
                "the configuration is {} MiB, and the config stream carries at most {} MiB; delete webhooks that are not needed",
                snapshot.bytes >> 20,
                MAX_SNAPSHOT_BYTES >> 20
            );
            self.readiness.set("config", Err(why));
            written.refused = Some(Instant::now());
            return Ok(());
        }
        let (epoch, revision) = (self.store.epoch(), snapshot.revision);
        let mark = |kind| ConfigRecord::bare(&epoch, revision, kind, "");
        config_stream::write(publisher, names, &mark(ConfigKind::SnapshotBegin)).await?;
        crash::point("snapshot.begun");
        let (mut bytes, mut objects) = (0, 0u64);
        loop {
            let records = snapshot.next().await?;
            if records.is_empty() {
                break;
            }
            objects += records.len() as u64;
            bytes += records.iter().map(|record| wire::encode(record).len() as u64).sum::<u64>();
            write_all(publisher, names, records).await?;
        }
        drop(snapshot);
        config_stream::write(publisher, names, &mark(ConfigKind::SnapshotEnd)).await?;
        if let Some((revision, topology)) = self.link.known_topology() {
            let record = ConfigRecord::of(
                &Epoch::from_trusted(""),
                revision,
                ConfigKind::Topology,
                "topology",
                &topology,
            );
            config_stream::write(publisher, names, &record).await?;
        }
        *written = Written { snapshot: Some(bytes), ..Written::default() };
        self.metrics.snapshot(bytes);
        self.readiness.set("config", Ok(()));
        tracing::info!(revision, objects, bytes, "wrote a snapshot of the configuration");
        Ok(())
    }
}

/// Publishes messages whose order does not matter, several at a time.
async fn publish_all(publisher: Publisher, messages: Vec<Outgoing>) -> Result<(), BrokerError> {
    stream::iter(messages)
        .map(move |message| {
            let publisher = publisher.clone();
            async move { publisher.publish(message).await }
        })
        .buffer_unordered(IN_FLIGHT)
        .try_collect()
        .await
}

/// Writes records between the marks of a snapshot, where their order does not matter.
async fn write_all(
    publisher: &Publisher,
    names: &Names,
    records: Vec<ConfigRecord>,
) -> Result<(), BrokerError> {
    let (publisher, names) = (publisher.clone(), names.clone());
    stream::iter(records)
        .map(move |record| {
            let (publisher, names) = (publisher.clone(), names.clone());
            async move { config_stream::write(&publisher, &names, &record).await }
        })
        .buffer_unordered(IN_FLIGHT)
        .try_collect()
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_due_at_the_start_and_when_much_has_followed() {
        let mut written = Written::default();
        assert!(written.is_due());
        written = Written { snapshot: Some(10), since: DUE_BYTES, refused: None };
        assert!(!written.is_due());
        written.since += 1;
        assert!(written.is_due());
        written.refused = Some(Instant::now());
        assert!(!written.is_due());
        written = Written { snapshot: Some(2 * DUE_BYTES), since: DUE_BYTES + 1, refused: None };
        assert!(!written.is_due());
    }
}
