//! Replays: deliveries made again by filter.
//!
//! A replay is planned first, then it runs. Planning looks at a range of events that is fixed when the replay is made, in
//! pieces, and writes down what it chose; sending takes that away again, in pieces. Each piece is one transaction with
//! how far it came, so whatever happens in between, each delivery is chosen once and made once.

mod find;
mod plan;
mod send;
mod sent;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use postrider_core::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, Sqlite};

use super::{Change, Store, StoreError, signed, small, time, unsigned};

pub(crate) use plan::{PlanBounds, Planned};
pub(crate) use sent::{SentPlace, SentRow};

/// The most deliveries in one replay.
pub(crate) const MAX_ITEMS: u64 = 1_000_000;
/// The most replays of a tenant that are not over.
pub(crate) const MAX_OPEN: u64 = 20;
/// How many of a tenant run at the same time; more wait.
const MAX_RUNNING: usize = 5;
/// A plan that nobody runs is given up after this long.
pub(crate) const EXPIRES_MS: u64 = 24 * 3600 * 1000;
/// Replays that are over are forgotten after this long.
const KEPT_MS: u64 = 90 * 24 * 3600 * 1000;
/// Rows of items removed in one transaction.
const REMOVED: i64 = 5000;
/// The most replays that are looked at in one turn.
const MOST_AT_ONCE: i64 = 1000;

/// The reason of a replay that was cancelled by somebody.
pub(crate) const BY_REQUEST: &str = "request";
/// The reason of a plan that nobody ran.
const EXPIRED: &str = "expired";
/// The reason of a plan that chose too much.
pub(crate) const TOO_MANY: &str = "too_many";

/// Where a replay is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplayState {
    /// It is looked up what it will send.
    Planning,
    /// It is known what it will send, and nothing is sent.
    Planned,
    /// It sends.
    Running,
    /// Everything is sent.
    Done,
    /// What was not sent by then never is.
    Cancelled,
    /// It cannot be planned.
    Failed,
}

impl ReplayState {
    /// All of them.
    pub(crate) const ALL: [Self; 6] =
        [Self::Planning, Self::Planned, Self::Running, Self::Done, Self::Cancelled, Self::Failed];

    /// One word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Planning => "planning",
            Self::Planned => "planned",
            Self::Running => "running",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }

    /// Nothing happens any more.
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Cancelled | Self::Failed)
    }
}

/// Why something is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LeftOut {
    /// The delivery has not ended.
    UnderWay,
    /// The delivery has not ended, and somebody called it off.
    Cancelling,
    /// The body of the event was removed.
    BodyGone,
    /// The webhook was deleted.
    WebhookDeleted,
    /// The webhook is disabled or not active now, and would not take the event either if it came now.
    WebhookInactive,
    /// The webhook has been delivered it.
    Delivered,
    /// Another replay that runs, or is going to, has chosen it.
    AlreadyChosen,
    /// There is no event of this id.
    UnknownEvent,
    /// A test of a webhook.
    Test,
    /// The router would refuse it today.
    Refused,
    /// The delivery was made again by somebody else after it was chosen.
    MadeAgain,
}

impl LeftOut {
    /// One word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::UnderWay => "under_way",
            Self::Cancelling => "cancelling",
            Self::BodyGone => "body_gone",
            Self::WebhookDeleted => "webhook_deleted",
            Self::WebhookInactive => "webhook_inactive",
            Self::Delivered => "delivered",
            Self::AlreadyChosen => "already_chosen",
            Self::UnknownEvent => "unknown_event",
            Self::Test => "test",
            Self::Refused => "refused",
            Self::MadeAgain => "made_again",
        }
    }
}

/// How many are not sent, by reason.
pub(crate) type Reasons = BTreeMap<LeftOut, u64>;

/// To which webhooks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ReplayTarget {
    /// Those of the deliveries that are chosen.
    #[default]
    Original,
    /// Those that take the events today.
    Matching,
    /// This one.
    Webhook(String),
}

/// What a replay is to send.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReplayAsked {
    /// How deliveries ended; any way when empty.
    pub states: Vec<String>,
    /// To which webhook they were.
    pub webhook: Option<String>,
    /// Of which types the events are, by name; all when empty.
    pub event_types: Vec<String>,
    /// How many events were named; 0 when none were.
    pub events: u64,
    pub target: ReplayTarget,
    /// Also what the target has been delivered.
    pub again: bool,
}

/// A replay as somebody wants it.
#[derive(Clone, Debug)]
pub(crate) struct NewReplay {
    pub id: String,
    pub tenant: String,
    pub asked: ReplayAsked,
    /// Only these events, each once.
    pub event_ids: Option<Vec<String>>,
    /// Accepted at this time or later.
    pub since: Option<Timestamp>,
    /// Accepted before this time.
    pub until: Option<Timestamp>,
    pub rate_per_second: u32,
    /// Run it when it is planned.
    pub run: bool,
}

/// A replay as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReplayRow {
    pub seq: i64,
    pub id: String,
    pub tenant: String,
    pub asked: ReplayAsked,
    pub rate_per_second: u32,
    pub state: ReplayState,
    /// Somebody asked that it runs.
    pub run: bool,
    /// Why it failed or was cancelled, in one word.
    pub reason: String,
    pub since: Option<Timestamp>,
    pub until: Timestamp,
    /// Acceptance of the last event that was looked at, and its row.
    at: (i64, i64),
    last_event: i64,
    last_delivery: i64,
    /// Events looked at.
    pub looked_at: u64,
    pub chosen: u64,
    pub left_out: Reasons,
    pub sent: u64,
    /// Chosen, and not sent when their turn came.
    pub dropped: Reasons,
    pub created_at: Timestamp,
    pub planned_at: Option<Timestamp>,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
}

impl ReplayRow {
    /// Chosen, and neither sent nor dropped yet; what is left when it was cancelled stays so.
    pub(crate) fn to_send(&self) -> u64 {
        self.chosen.saturating_sub(self.sent).saturating_sub(self.dropped.values().sum())
    }
}

/// How what was sent has ended so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcomes {
    pub delivered: u64,
    pub dead: u64,
    pub cancelled: u64,
    pub skipped: u64,
    /// Not ended.
    pub pending: u64,
}

/// Why a replay is not made, or not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplayRefused {
    /// There is none of this id.
    Unknown,
    /// It is over.
    Over(ReplayState),
    /// The tenant has this many that are not.
    TooMany(u64),
}

/// Without the ids of events: there may be many.
const COLUMNS: &str =
    "seq, id, tenant, asked, rate, state, run, reason, since, until, last_event, last_delivery, at_time,
    at_event, looked_at, chosen, left_out, sent, dropped, created_at, planned_at, started_at, finished_at";

/// How what a replay sent has ended, from an index.
pub(super) const OUTCOMES: &str =
    "SELECT state, COUNT(*) AS n FROM series WHERE replay = $1 AND replay IS NOT NULL GROUP BY state";

fn replay_of(row: &SqliteRow) -> Result<ReplayRow, StoreError> {
    fn json<T: for<'de> Deserialize<'de>>(row: &SqliteRow, name: &'static str) -> Result<T, StoreError> {
        let text: String = row.try_get(name)?;
        serde_json::from_str(&text).map_err(|e| StoreError::Damaged(format!("{name} of a replay: {e}")))
    }
    let state: String = row.try_get("state")?;
    let known = ReplayState::ALL.into_iter().find(|known| known.as_str() == state);
    Ok(ReplayRow {
        seq: row.try_get("seq")?,
        id: row.try_get("id")?,
        tenant: row.try_get("tenant")?,
        asked: json(row, "asked")?,
        rate_per_second: small(row.try_get("rate")?),
        state: known.ok_or_else(|| StoreError::Damaged(format!("the state of a replay is {state:?}")))?,
        run: row.try_get("run")?,
        reason: row.try_get("reason")?,
        since: time(row.try_get("since")?),
        until: Timestamp::from_millis(row.try_get("until")?),
        at: (row.try_get("at_time")?, row.try_get("at_event")?),
        last_event: row.try_get("last_event")?,
        last_delivery: row.try_get("last_delivery")?,
        looked_at: unsigned(row.try_get("looked_at")?),
        chosen: unsigned(row.try_get("chosen")?),
        left_out: json(row, "left_out")?,
        sent: unsigned(row.try_get("sent")?),
        dropped: json(row, "dropped")?,
        created_at: Timestamp::from_millis(row.try_get("created_at")?),
        planned_at: time(row.try_get("planned_at")?),
        started_at: time(row.try_get("started_at")?),
        finished_at: time(row.try_get("finished_at")?),
    })
}

fn written<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|e| StoreError::Damaged(e.to_string()))
}

fn select() -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new("SELECT ");
    query.push(COLUMNS).push(" FROM replays WHERE ");
    query
}

impl Store {
    /// A replay of this tenant.
    pub(crate) async fn replay(&self, tenant: &str, id: &str) -> Result<Option<ReplayRow>, StoreError> {
        let mut query = select();
        query.push("tenant = ").push_bind(tenant).push(" AND id = ").push_bind(id);
        query.build().fetch_optional(&self.readers).await?.as_ref().map(replay_of).transpose()
    }

    /// Replays of a tenant, newest first, before `before`.
    pub(crate) async fn replays(
        &self,
        tenant: &str,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<ReplayRow>, StoreError> {
        let mut query = select();
        query.push("tenant = ").push_bind(tenant);
        if let Some(before) = before {
            query.push(" AND seq < ").push_bind(before);
        }
        query.push(" ORDER BY seq DESC LIMIT ").push_bind(i64::from(limit));
        query.build().fetch_all(&self.readers).await?.iter().map(replay_of).collect()
    }

    /// Replays in a state, oldest first.
    pub(crate) async fn replays_in(&self, state: ReplayState) -> Result<Vec<ReplayRow>, StoreError> {
        let mut query = select();
        query.push("state = ").push_bind(state.as_str());
        query.push(" ORDER BY seq LIMIT ").push_bind(MOST_AT_ONCE);
        query.build().fetch_all(&self.readers).await?.iter().map(replay_of).collect()
    }

    /// How what a replay sent has ended so far.
    pub(crate) async fn replay_outcomes(&self, seq: i64) -> Result<Outcomes, StoreError> {
        let mut outcomes = Outcomes::default();
        for row in sqlx::query(OUTCOMES).bind(seq).fetch_all(&self.readers).await? {
            let n = unsigned(row.try_get("n")?);
            match row.try_get::<String, _>("state")?.as_str() {
                "delivered" => outcomes.delivered = n,
                "dead" => outcomes.dead = n,
                "cancelled" => outcomes.cancelled = n,
                "skipped" => outcomes.skipped = n,
                _ => outcomes.pending += n,
            }
        }
        Ok(outcomes)
    }

    /// Whether a tenant has, or had, a webhook of this id.
    pub(crate) async fn webhook_existed(&self, tenant: &str, id: &str) -> Result<bool, StoreError> {
        let found: Option<i64> = sqlx::query_scalar("SELECT 1 FROM webhooks WHERE id = $1 AND tenant = $2")
            .bind(id)
            .bind(tenant)
            .fetch_optional(&self.readers)
            .await?;
        Ok(found.is_some())
    }

    /// Starts what is planned, is to run, and has room beside what its tenant runs already; gives up plans that nobody
    /// ran. Returns how many are running or could not start yet.
    pub(crate) async fn start_replays(&self, now: Timestamp) -> Result<Vec<ReplayRow>, StoreError> {
        let mut running = self.replays_in(ReplayState::Running).await?;
        let planned = self.replays_in(ReplayState::Planned).await?;
        let stale = now.as_millis().saturating_sub(signed(EXPIRES_MS));
        for mut row in planned {
            if row.run {
                let beside = running.iter().filter(|other| other.tenant == row.tenant).count();
                if beside < MAX_RUNNING {
                    sqlx::query("UPDATE replays SET state = 'running', started_at = $2 WHERE seq = $1 AND state = 'planned'")
                        .bind(row.seq)
                        .bind(now.as_millis())
                        .execute(&self.writer)
                        .await?;
                    row.state = ReplayState::Running;
                    running.push(row);
                }
            } else if row.planned_at.is_some_and(|at| at.as_millis() < stale) {
                let mut change = self.change().await?;
                change.end_replay(row.seq, ReplayState::Cancelled, EXPIRED, now).await?;
                change.commit().await?;
            }
        }
        Ok(running)
    }

    /// Removes some of what replays that are over leave behind; `true` when there may be more.
    pub(crate) async fn prune_replays(&self, now: Timestamp) -> Result<bool, StoreError> {
        let items = sqlx::query(
            "DELETE FROM replay_items WHERE (replay, event, webhook) IN
             (SELECT i.replay, i.event, i.webhook FROM replays r JOIN replay_items i ON i.replay = r.seq
              WHERE r.state IN ('cancelled', 'failed') LIMIT $1)",
        )
        .bind(REMOVED)
        .execute(&self.writer)
        .await?;
        let old = now.as_millis().saturating_sub(signed(KEPT_MS));
        let replays = sqlx::query(
            "DELETE FROM replays WHERE seq IN (SELECT seq FROM replays WHERE finished_at < $1 LIMIT $2)
             AND NOT EXISTS (SELECT 1 FROM replay_items i WHERE i.replay = replays.seq)",
        )
        .bind(old)
        .bind(MOST_AT_ONCE)
        .execute(&self.writer)
        .await?;
        Ok(items.rows_affected() >= unsigned(REMOVED) || replays.rows_affected() >= unsigned(MOST_AT_ONCE))
    }
}

impl Change<'_> {
    /// Makes a replay, which begins to be planned. What it will look at is fixed here.
    pub(crate) async fn make_replay(
        &mut self,
        new: &NewReplay,
        now: Timestamp,
    ) -> Result<Result<ReplayRow, ReplayRefused>, StoreError> {
        let open: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM replays WHERE tenant = $1 AND state IN ('planning', 'planned', 'running')",
        )
        .bind(&new.tenant)
        .fetch_one(&mut *self.tx)
        .await?;
        if unsigned(open) >= MAX_OPEN {
            return Ok(Err(ReplayRefused::TooMany(unsigned(open))));
        }
        let mut left_out = Reasons::new();
        let ids = new.event_ids.as_ref().map(written).transpose()?;
        if let Some(ids) = &ids {
            let found: i64 = sqlx::query_scalar(
                "SELECT COUNT(*) FROM events WHERE tenant = $1 AND id IN (SELECT value FROM json_each($2))",
            )
            .bind(&new.tenant)
            .bind(ids)
            .fetch_one(&mut *self.tx)
            .await?;
            let unknown = new.asked.events.saturating_sub(unsigned(found));
            if unknown > 0 {
                left_out.insert(LeftOut::UnknownEvent, unknown);
            }
        }
        let until = new.until.map_or(now, |until| until.min(now));
        let mut query = QueryBuilder::<Sqlite>::new(
            "INSERT INTO replays (id, tenant, asked, event_ids, rate, state, run, reason, since, until, last_event,
             last_delivery, at_time, at_event, looked_at, chosen, left_out, sent, dropped, created_at) VALUES (",
        );
        let mut row = query.separated(", ");
        row.push_bind(&new.id)
            .push_bind(&new.tenant)
            .push_bind(written(&new.asked)?)
            .push_bind(ids)
            .push_bind(i64::from(new.rate_per_second))
            .push("'planning'")
            .push_bind(new.run)
            .push("''")
            .push_bind(new.since.map(Timestamp::as_millis))
            .push_bind(until.as_millis())
            .push("(SELECT n FROM counters WHERE name = 'event_seq')")
            .push("(SELECT n FROM counters WHERE name = 'delivery_seq')")
            // Rows are numbered from 1, so this is before the first event of that moment.
            .push_bind(new.since.map_or(i64::MIN, Timestamp::as_millis))
            .push("0, 0, 0")
            .push_bind(written(&left_out)?)
            .push("0, '{}'")
            .push_bind(now.as_millis());
        query.push(") RETURNING ").push(COLUMNS);
        let row = query.build().fetch_one(&mut *self.tx).await?;
        self.for_replays = true;
        Ok(Ok(replay_of(&row)?))
    }

    /// Has a replay run, now or when it is planned. One that runs goes on. Gives it as it was before.
    pub(crate) async fn run_replay(
        &mut self,
        tenant: &str,
        id: &str,
    ) -> Result<Result<ReplayRow, ReplayRefused>, StoreError> {
        let row = match self.open_replay(tenant, id).await? {
            Ok(row) => row,
            Err(refused) => return Ok(Err(refused)),
        };
        sqlx::query("UPDATE replays SET run = 1 WHERE seq = $1").bind(row.seq).execute(&mut *self.tx).await?;
        self.for_replays = true;
        Ok(Ok(row))
    }

    /// Sends nothing more of a replay. What was sent goes its way.
    pub(crate) async fn cancel_replay(
        &mut self,
        tenant: &str,
        id: &str,
        now: Timestamp,
    ) -> Result<Result<ReplayRow, ReplayRefused>, StoreError> {
        let row = match self.open_replay(tenant, id).await? {
            Ok(row) => row,
            Err(refused) => return Ok(Err(refused)),
        };
        self.end_replay(row.seq, ReplayState::Cancelled, BY_REQUEST, now).await?;
        self.for_replays = true;
        let (state, reason) = (ReplayState::Cancelled, BY_REQUEST.to_owned());
        Ok(Ok(ReplayRow { state, reason, finished_at: Some(now), ..row }))
    }

    async fn open_replay(
        &mut self,
        tenant: &str,
        id: &str,
    ) -> Result<Result<ReplayRow, ReplayRefused>, StoreError> {
        let mut query = select();
        query.push("tenant = ").push_bind(tenant).push(" AND id = ").push_bind(id);
        match query.build().fetch_optional(&mut *self.tx).await?.as_ref().map(replay_of).transpose()? {
            None => Ok(Err(ReplayRefused::Unknown)),
            Some(row) if row.state.is_over() => Ok(Err(ReplayRefused::Over(row.state))),
            Some(row) => Ok(Ok(row)),
        }
    }

    /// Ends a replay, unless it is over.
    async fn end_replay(
        &mut self,
        seq: i64,
        state: ReplayState,
        reason: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE replays SET state = $2, reason = $3, finished_at = $4
             WHERE seq = $1 AND state IN ('planning', 'planned', 'running')",
        )
        .bind(seq)
        .bind(state.as_str())
        .bind(reason)
        .bind(now.as_millis())
        .execute(&mut *self.tx)
        .await?;
        Ok(())
    }
}
