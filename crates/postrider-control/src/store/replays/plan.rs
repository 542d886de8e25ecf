//! Planning: which deliveries a replay makes again.

use std::collections::HashMap;
use std::sync::Arc;

use postrider_broker::crash;
use postrider_core::directory::{Directory, Lookup};
use postrider_core::webhook::{Webhook, WebhookState};
use postrider_core::wire::{ConfigKind, ConfigRecord};
use postrider_core::{Event, TenantId, Timestamp, WebhookId};
use serde_json::value::RawValue;
use sqlx::{QueryBuilder, Sqlite};

use super::super::{Store, StoreError, unsigned};
use super::find::{self, Found, Target};
use super::{LeftOut, MAX_ITEMS, Reasons, ReplayRow, ReplayState, ReplayTarget, TOO_MANY, written};

/// Rows in one statement.
const ROWS: usize = 400;
/// Webhooks read at once.
const WEBHOOKS: i64 = 500;

/// How much one step of planning may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlanBounds {
    /// Events looked at.
    pub events: u32,
    /// The same where their bodies are needed.
    pub bodies: u32,
    /// Deliveries looked at, give or take those of one event.
    pub deliveries: usize,
    /// Deliveries chosen by the whole plan.
    pub items: u64,
}

impl Default for PlanBounds {
    fn default() -> Self {
        Self { events: 1000, bodies: 200, deliveries: 4000, items: MAX_ITEMS }
    }
}

/// What a step of planning came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Planned {
    /// There is more to look at.
    More,
    /// The plan is complete, or given up.
    Over,
}

/// Where events of a tenant go today.
#[derive(Debug)]
pub(crate) struct Roads {
    directory: Directory,
    /// The rows of its webhooks.
    rows: HashMap<WebhookId, i64>,
}

impl Roads {
    /// The webhooks that take an event and would be sent it if it came now.
    pub(super) fn of(
        &self,
        event: &Event,
        now: Timestamp,
        left_out: &mut Reasons,
    ) -> Result<Vec<Target>, LeftOut> {
        let targets = self.directory.route(event).map_err(|_| LeftOut::Refused)?;
        let mut roads = Vec::with_capacity(targets.len());
        for target in targets {
            let Lookup::Known(webhook) = self.directory.webhook(&target.webhook) else { continue };
            let Some(row) = self.rows.get(&target.webhook) else { continue };
            if is_active(&webhook, now) {
                roads.push(Target { delivery: target.delivery, webhook: *row });
            } else {
                *left_out.entry(LeftOut::WebhookInactive).or_default() += 1;
            }
        }
        Ok(roads)
    }
}

/// Whether a delivery to this webhook would be sent, or held.
fn is_active(webhook: &Webhook, now: Timestamp) -> bool {
    webhook.state != WebhookState::Disabled
        && webhook.active_from.is_none_or(|from| now >= from)
        && webhook.expires_at.is_none_or(|end| now < end)
}

impl Store {
    /// Plans a piece of a replay.
    ///
    /// `roads` is where events of its tenant go, made when it is needed and not there yet.
    pub(crate) async fn plan_replay(
        &self,
        row: &ReplayRow,
        roads: &mut Option<Arc<Roads>>,
        bounds: PlanBounds,
        now: Timestamp,
    ) -> Result<Planned, StoreError> {
        if row.asked.target == ReplayTarget::Matching && roads.is_none() {
            *roads = Some(Arc::new(self.roads(&row.tenant).await?));
        }
        let mut tx = self.readers.begin().await?;
        let found = find::next(&mut tx, row, roads.as_ref(), bounds, now).await?;
        drop(tx);
        match found {
            Some(found) => self.keep_plan(row, found, bounds, now).await,
            None => self.finish_plan(row, now).await,
        }
    }

    /// Writes down what a piece chose, with how far it came.
    async fn keep_plan(
        &self,
        row: &ReplayRow,
        mut found: Found,
        bounds: PlanBounds,
        now: Timestamp,
    ) -> Result<Planned, StoreError> {
        let mut change = self.change().await?;
        let mut chosen = 0;
        for items in found.items.chunks(ROWS) {
            let mut query =
                QueryBuilder::<Sqlite>::new("INSERT INTO replay_items (replay, event, webhook, series) ");
            query.push_values(items, |mut values, item| {
                values
                    .push_bind(row.seq)
                    .push_bind(item.event)
                    .push_bind(item.webhook)
                    .push_bind(item.series);
            });
            query.push(" ON CONFLICT DO NOTHING");
            chosen += query.build().persistent(false).execute(&mut *change.tx).await?.rows_affected();
        }
        let twice = (found.items.len() as u64).saturating_sub(chosen);
        if twice > 0 {
            *found.left_out.entry(LeftOut::AlreadyChosen).or_default() += twice;
        }
        let mut left_out = row.left_out.clone();
        for (reason, n) in &found.left_out {
            *left_out.entry(*reason).or_default() += n;
        }
        // Nothing, if it was cancelled meanwhile.
        let kept = sqlx::query(
            "UPDATE replays SET at_time = $2, at_event = $3, looked_at = looked_at + $4, chosen = chosen + $5, left_out = $6
             WHERE seq = $1 AND state = 'planning' AND at_time = $7 AND at_event = $8",
        )
        .bind(row.seq)
        .bind(found.last.0)
        .bind(found.last.1)
        .bind(i64::try_from(found.events).unwrap_or(i64::MAX))
        .bind(i64::try_from(chosen).unwrap_or(i64::MAX))
        .bind(written(&left_out)?)
        .bind(row.at.0)
        .bind(row.at.1)
        .execute(&mut *change.tx)
        .await?;
        if kept.rows_affected() == 0 {
            return Ok(Planned::Over);
        }
        let too_many = row.chosen + chosen > bounds.items;
        if too_many {
            change.end_replay(row.seq, ReplayState::Failed, TOO_MANY, now).await?;
        }
        crash::point("replays.chosen");
        change.commit().await?;
        crash::point("replays.chosen_committed");
        Ok(if too_many { Planned::Over } else { Planned::More })
    }

    async fn finish_plan(&self, row: &ReplayRow, now: Timestamp) -> Result<Planned, StoreError> {
        let mut change = self.change().await?;
        sqlx::query(
            "UPDATE replays SET state = 'planned', planned_at = $2 WHERE seq = $1 AND state = 'planning'",
        )
        .bind(row.seq)
        .bind(now.as_millis())
        .execute(&mut *change.tx)
        .await?;
        change.for_replays = true;
        change.commit().await?;
        Ok(Planned::Over)
    }

    /// Gives up a replay that cannot be planned.
    pub(crate) async fn fail_replay(&self, seq: i64, reason: &str, now: Timestamp) -> Result<(), StoreError> {
        let mut change = self.change().await?;
        change.end_replay(seq, ReplayState::Failed, reason, now).await?;
        change.commit().await
    }

    /// Where events of a tenant go, as its configuration is now.
    async fn roads(&self, tenant: &str) -> Result<Roads, StoreError> {
        let id = TenantId::from_trusted(tenant);
        let mut tx = self.readers.begin().await?;
        let mut directory = Directory::new();
        let epoch = self.epoch();
        let mark = |kind| ConfigRecord::bare(&epoch, 0, kind, "");
        directory.apply(&mark(ConfigKind::SnapshotBegin));
        for record in self.vocabulary_of(&mut tx, &id).await? {
            directory.apply(&record);
        }
        let mut rows = HashMap::new();
        let mut after = 0;
        loop {
            let webhooks: Vec<(i64, String, i64, String)> = sqlx::query_as(
                "SELECT seq, id, revision, record FROM webhooks
                 WHERE tenant = $1 AND deleted_at IS NULL AND seq > $2 AND record IS NOT NULL ORDER BY seq LIMIT $3",
            )
            .bind(tenant)
            .bind(after)
            .bind(WEBHOOKS)
            .fetch_all(&mut *tx)
            .await?;
            let Some((last, ..)) = webhooks.last() else { break };
            after = *last;
            for (seq, id, revision, text) in webhooks {
                let mut record = ConfigRecord::bare(&epoch, unsigned(revision), ConfigKind::Webhook, &id);
                let body = RawValue::from_string(text);
                record.body =
                    Some(body.map_err(|e| StoreError::Damaged(format!("the record of webhook {id}: {e}")))?);
                directory.apply(&record);
                rows.insert(WebhookId::from_trusted(id), seq);
            }
        }
        directory.apply(&mark(ConfigKind::SnapshotEnd));
        match directory.unreadable() {
            None => Ok(Roads { directory, rows }),
            Some(why) => Err(StoreError::Damaged(why.to_owned())),
        }
    }
}
