//! Sending: what was chosen becomes series that are owed, with messages in the outbox.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures_util::TryStreamExt as _;
use postrider_core::wire::DeliveryRecord;
use postrider_core::{DeliveryId, EventId, TenantId, Timestamp, WebhookId};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, Sqlite};

use super::super::events::read_body;
use super::super::{Change, StoreError, signed, small, unsigned};
use super::{LeftOut, Reasons, ReplayState, written};

/// Bodies in one transaction, bytes, give or take one.
const MOST_BYTES: usize = 8 * 1024 * 1024;
/// Rows in one statement.
const ROWS: usize = 400;

/// What one piece of sending did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SentItems {
    /// Deliveries that are made again.
    pub sent: u64,
    /// Chosen, and not sent after all.
    pub dropped: u64,
    /// Nothing is left.
    pub done: bool,
}

/// Something that was chosen, as it is now.
struct Item {
    event: i64,
    event_id: String,
    event_type: String,
    webhook: i64,
    /// Nothing when the webhook is gone.
    to: Option<(WebhookId, u64)>,
    /// The delivery's latest series when it was chosen.
    series: i64,
    delivery: DeliveryId,
    body: Option<Vec<u8>>,
}

/// The first of what is left of a replay.
pub(super) const NEXT_ITEMS: &str =
    "SELECT i.event, i.webhook, i.series, e.id AS event_id, e.event_type, w.id AS webhook_id,
    w.revision, w.deleted_at, b.record
    FROM replay_items i LEFT JOIN events e ON e.seq = i.event LEFT JOIN webhooks w ON w.seq = i.webhook
    LEFT JOIN bodies b ON b.event = i.event
    WHERE i.replay = $1 ORDER BY i.event, i.webhook LIMIT $2";

fn item_of(row: &SqliteRow, tenant: &TenantId) -> Result<Item, StoreError> {
    let event_id: String = row.try_get::<Option<String>, _>("event_id")?.unwrap_or_default();
    let webhook_id: Option<String> = row.try_get("webhook_id")?;
    let webhook_id = WebhookId::from_trusted(webhook_id.unwrap_or_default());
    let deleted = row.try_get::<Option<i64>, _>("deleted_at")?.is_some();
    let revision = row.try_get::<Option<i64>, _>("revision")?.filter(|_| !deleted);
    let delivery = DeliveryId::of(tenant, &EventId::from_trusted(event_id.as_str()), &webhook_id);
    Ok(Item {
        event: row.try_get("event")?,
        event_id,
        event_type: row.try_get::<Option<String>, _>("event_type")?.unwrap_or_default(),
        webhook: row.try_get("webhook")?,
        to: revision.map(|revision| (webhook_id, unsigned(revision))),
        series: row.try_get("series")?,
        delivery,
        body: row.try_get("record")?,
    })
}

impl Change<'_> {
    /// Makes again the next of what a replay has chosen, at most `limit`, oldest first. What cannot be is counted.
    pub(crate) async fn send_replay(
        &mut self,
        replay: i64,
        limit: u32,
        now: Timestamp,
    ) -> Result<SentItems, StoreError> {
        let row = sqlx::query("SELECT tenant, dropped FROM replays WHERE seq = $1 AND state = 'running'")
            .bind(replay)
            .fetch_optional(&mut *self.tx)
            .await?;
        // Cancelled meanwhile.
        let Some(row) = row else { return Ok(SentItems { done: true, ..SentItems::default() }) };
        let tenant = TenantId::from_trusted(row.try_get::<String, _>("tenant")?);
        let mut dropped: Reasons = serde_json::from_str(row.try_get("dropped")?)
            .map_err(|e| StoreError::Damaged(format!("dropped of a replay: {e}")))?;

        let (items, done) = self.next_items(replay, &tenant, limit).await?;
        let known = self.latest_of(&items).await?;
        let (mut made, mut left) = (Vec::new(), 0);
        let last = items.last().map(|item| (item.event, item.webhook));
        for item in items {
            match verdict(&item, known.get(&item.delivery)) {
                None => made.push(item),
                Some(reason) => {
                    *dropped.entry(reason).or_default() += 1;
                    left += 1;
                }
            }
        }
        self.owe(&tenant, &made, replay, now).await?;
        let sent = made.len() as u64;
        for item in made {
            self.send_item(item, now).await?;
        }
        if let Some((event, webhook)) = last {
            sqlx::query("DELETE FROM replay_items WHERE replay = $1 AND (event, webhook) <= ($2, $3)")
                .bind(replay)
                .bind(event)
                .bind(webhook)
                .execute(&mut *self.tx)
                .await?;
        }
        sqlx::query("UPDATE replays SET sent = sent + $2, dropped = $3 WHERE seq = $1")
            .bind(replay)
            .bind(signed(sent))
            .bind(written(&dropped)?)
            .execute(&mut *self.tx)
            .await?;
        if done {
            self.end_replay(replay, ReplayState::Done, "", now).await?;
            // There may be room for the next.
            self.for_replays = true;
        }
        Ok(SentItems { sent, dropped: left, done })
    }

    /// The first of what is left, and whether that is all of it.
    async fn next_items(
        &mut self,
        replay: i64,
        tenant: &TenantId,
        limit: u32,
    ) -> Result<(Vec<Item>, bool), StoreError> {
        let most = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut rows = sqlx::query(NEXT_ITEMS).bind(replay).bind(i64::from(limit) + 1).fetch(&mut *self.tx);
        let (mut items, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.try_next().await? {
            if items.len() == most || bytes >= MOST_BYTES {
                return Ok((items, false));
            }
            let item = item_of(&row, tenant)?;
            bytes += item.body.as_ref().map_or(0, Vec::len);
            items.push(item);
        }
        Ok((items, true))
    }

    /// The latest series of those deliveries that are there, and whether it has ended.
    async fn latest_of(&mut self, items: &[Item]) -> Result<HashMap<DeliveryId, (i64, bool)>, StoreError> {
        let mut known = HashMap::new();
        for chunk in items.chunks(ROWS) {
            let mut query =
                QueryBuilder::<Sqlite>::new("SELECT id, series, state, event FROM deliveries WHERE id IN (");
            let mut list = query.separated(", ");
            for item in chunk {
                list.push_bind(item.delivery.as_str().to_owned());
            }
            query.push(")");
            for row in query.build().persistent(false).fetch_all(&mut *self.tx).await? {
                let whole = row.try_get::<Option<i64>, _>("event")?.is_some();
                let ended = whole && row.try_get::<String, _>("state")? != "pending";
                let id = DeliveryId::from_trusted(row.try_get::<String, _>("id")?);
                known.insert(id, (row.try_get("series")?, ended));
            }
        }
        Ok(known)
    }

    /// The books' side of it: one more series of each is owed and pending.
    async fn owe(
        &mut self,
        tenant: &TenantId,
        items: &[Item],
        replay: i64,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let (fresh, again): (Vec<&Item>, Vec<&Item>) = items.iter().partition(|item| item.series == 0);
        for chunk in again.chunks(ROWS) {
            let mut query = QueryBuilder::<Sqlite>::new(
                "UPDATE deliveries SET series = series + 1, state = 'pending', held = 0, reason = '', attempts = 0,
                 next_at = NULL, updated_at = ",
            );
            query.push_bind(now.as_millis()).push(" WHERE id IN (");
            let mut list = query.separated(", ");
            for item in chunk {
                list.push_bind(item.delivery.as_str().to_owned());
            }
            query.push(")");
            query.build().persistent(false).execute(&mut *self.tx).await?;
        }
        if !fresh.is_empty() {
            let mut seq: i64 = sqlx::query_scalar("SELECT n FROM counters WHERE name = 'delivery_seq'")
                .fetch_one(&mut *self.tx)
                .await?;
            for chunk in fresh.chunks(ROWS) {
                let mut query = QueryBuilder::<Sqlite>::new(
                    "INSERT INTO deliveries (seq, id, webhook, tenant, event, event_id, event_type, series, state, held,
                     reason, attempts, last_series, last_n, last_class, created_at, updated_at) ",
                );
                query.push_values(chunk, |mut row, item| {
                    seq += 1;
                    row.push_bind(seq)
                        .push_bind(item.delivery.as_str())
                        .push_bind(item.to.as_ref().map_or("", |(webhook, _)| webhook.as_str()))
                        .push_bind(tenant.as_str())
                        .push_bind(item.event)
                        .push_bind(&item.event_id)
                        .push_bind(&item.event_type)
                        .push("1, 'pending', 0, '', 0, 0, 0, ''")
                        .push_bind(now.as_millis())
                        .push_bind(now.as_millis());
                });
                query.build().persistent(false).execute(&mut *self.tx).await?;
            }
            sqlx::query("UPDATE counters SET n = $1 WHERE name = 'delivery_seq'")
                .bind(seq)
                .execute(&mut *self.tx)
                .await?;
        }
        for chunk in items.chunks(ROWS) {
            let mut query = QueryBuilder::<Sqlite>::new(
                "INSERT INTO series (delivery, series, owed, state, held, held_attempt, held_at, reason, attempts, logged,
                 born_at, seen_at, replay, asked) ",
            );
            query.push_values(chunk, |mut row, item| {
                row.push("(SELECT seq FROM deliveries WHERE id = ")
                    .push_bind_unseparated(item.delivery.as_str())
                    .push_unseparated(")")
                    .push_bind(item.series + 1)
                    .push("1, 'pending', 0, 0, 0, '', 0, 0")
                    .push_bind(now.as_millis())
                    .push_bind(now.as_millis())
                    .push_bind(replay)
                    .push("1");
            });
            query.build().persistent(false).execute(&mut *self.tx).await?;
        }
        let mut more: BTreeMap<i64, i64> = BTreeMap::new();
        for item in items {
            *more.entry(item.event).or_default() += 1;
        }
        let mut by_count: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        for (event, n) in more {
            by_count.entry(n).or_default().push(event);
        }
        for (n, events) in by_count {
            for chunk in events.chunks(ROWS) {
                let mut query = QueryBuilder::<Sqlite>::new("UPDATE events SET owed = owed + ");
                query.push_bind(n).push(" WHERE seq IN (");
                let mut list = query.separated(", ");
                for event in chunk {
                    list.push_bind(*event);
                }
                query.push(")");
                query.build().persistent(false).execute(&mut *self.tx).await?;
            }
        }
        Ok(())
    }

    /// The broker's side of it.
    async fn send_item(&mut self, item: Item, now: Timestamp) -> Result<(), StoreError> {
        let (Some((webhook, revision)), Some(body)) = (item.to, item.body) else { return Ok(()) };
        let delivery = DeliveryRecord {
            id: item.delivery,
            webhook,
            revision,
            epoch: self.store.epoch(),
            series: small(item.series + 1),
            attempt: 1,
            born: now,
            due: None,
            crashes: 0,
            unknown_since: None,
            parked: 0,
            asked: true,
            test: false,
        };
        self.deliver(Arc::new(read_body(&body)?), delivery, now).await
    }
}

/// Why something that was chosen is not sent after all; `known` is its latest series now, and whether that has ended.
fn verdict(item: &Item, known: Option<&(i64, bool)>) -> Option<LeftOut> {
    match known {
        Some((_, false)) => return Some(LeftOut::UnderWay),
        Some((series, true)) if *series != item.series => return Some(LeftOut::MadeAgain),
        Some(_) => {}
        // It was there when it was chosen.
        None if item.series > 0 => return Some(LeftOut::BodyGone),
        None => {}
    }
    if item.to.is_none() {
        return Some(LeftOut::WebhookDeleted);
    }
    match item.body.as_deref().map(read_body) {
        None => Some(LeftOut::BodyGone),
        Some(Err(_)) => Some(LeftOut::Refused),
        Some(Ok(_)) => None,
    }
}
