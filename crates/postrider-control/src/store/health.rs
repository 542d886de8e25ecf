//! How webhooks do, as it is stored; the rules are [`postrider_core::health`]. `judging` applies them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use postrider_core::health::Streak;
use postrider_core::wire::WebhookRecord;
use postrider_core::{TenantId, Timestamp, WebhookId};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, Sqlite};

use super::record::list;
use super::{Change, Store, StoreError, small, time, unsigned};

/// A success is noted again after this long: a webhook that does well costs no write for each delivery.
const SUCCESS_GRAIN_MS: u64 = 60_000;
/// Webhooks that fail.
pub(super) const FAILING: &str = "SELECT webhook FROM webhook_health WHERE failing_since IS NOT NULL AND webhook > $1 ORDER BY webhook LIMIT $2";
/// Rows in one statement.
pub(super) const ROWS: usize = 400;

/// How a webhook does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    /// Its failures since its last success.
    pub streak: Streak,
    /// To within a minute.
    pub last_success_at: Option<Timestamp>,
    /// What ended before this does not count: the webhook was enabled then.
    pub(super) counted_from: Option<Timestamp>,
    pub(super) changed: bool,
}

impl Health {
    /// Something arrived.
    pub(super) fn succeed(&mut self, at: Timestamp) {
        let noted = self.last_success_at.is_some_and(|last| at.since_ms(last) < SUCCESS_GRAIN_MS);
        if self.streak.is_clean() && noted {
            return;
        }
        self.streak.succeed();
        self.last_success_at = self.last_success_at.max(Some(at));
        self.changed = true;
    }

    /// Whether something that ended at this time counts.
    pub(super) fn counts(&self, at: Timestamp) -> bool {
        self.counted_from.is_none_or(|from| at >= from)
    }
}

/// Webhooks that do well, and when that was noted last: another success of one of them changes nothing, and nothing is read.
#[derive(Debug, Default)]
pub(super) struct Well(Mutex<HashMap<WebhookId, Timestamp>>);

impl Well {
    /// Webhooks that are remembered, at most: some 10 MiB. What is forgotten is noted again.
    const MOST: usize = 100_000;

    fn known(&self) -> MutexGuard<'_, HashMap<WebhookId, Timestamp>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a success at this time is nothing new.
    pub(super) fn knows(&self, webhook: &WebhookId, at: Timestamp) -> bool {
        self.known().get(webhook).is_some_and(|last| at.since_ms(*last) < SUCCESS_GRAIN_MS)
    }

    /// Forgets webhooks that may not do well any more: before that is committed.
    pub(super) fn forget(&self, webhooks: &HashSet<&WebhookId>) {
        let mut known = self.known();
        for webhook in webhooks {
            known.remove(*webhook);
        }
    }

    /// Remembers what was committed.
    pub(super) fn remember(&self, webhooks: Vec<(WebhookId, Timestamp)>) {
        let mut known = self.known();
        if known.len() + webhooks.len() > Self::MOST {
            known.clear();
        }
        known.extend(webhooks.into_iter().take(Self::MOST));
    }
}

/// A webhook that is judged.
#[derive(Clone, Debug)]
pub(super) struct Patient {
    pub tenant: TenantId,
    pub state: String,
    pub profile: String,
    /// What the webhook says itself of when it is disabled.
    pub own_failures: Option<u32>,
    pub own_window_ms: Option<u64>,
    pub health: Health,
}

impl Store {
    /// How this webhook does; all zero when nothing is known.
    pub(crate) async fn health(&self, webhook: &str) -> Result<Health, StoreError> {
        let row = sqlx::query("SELECT * FROM webhook_health WHERE webhook = $1")
            .bind(webhook)
            .fetch_optional(&self.readers)
            .await?;
        Ok(row.as_ref().map(health_of).transpose()?.unwrap_or_default())
    }
}

fn health_of(row: &SqliteRow) -> Result<Health, sqlx::Error> {
    let percent = |n: i64| u8::try_from(n).unwrap_or(100);
    Ok(Health {
        streak: Streak {
            given_up: small(row.try_get("in_a_row")?),
            failed_attempts: small(row.try_get("failed_attempts")?),
            moments: small(row.try_get("moments")?),
            moment_at: time(row.try_get("moment_at")?),
            since: time(row.try_get("failing_since")?),
            last_at: time(row.try_get("last_failure_at")?),
            told_given_up: percent(row.try_get("told")?),
            told_window: percent(row.try_get("told_window")?),
        },
        last_success_at: time(row.try_get("last_success_at")?),
        counted_from: time(row.try_get("counted_from")?),
        changed: false,
    })
}

impl Change<'_> {
    /// Those of these webhooks that exist.
    pub(super) async fn patients(
        &mut self,
        ids: &[&str],
    ) -> Result<BTreeMap<WebhookId, Patient>, StoreError> {
        let mut patients = BTreeMap::new();
        for chunk in ids.chunks(ROWS) {
            let mut query = QueryBuilder::<Sqlite>::new(
                "SELECT w.id, w.tenant, w.state, w.profile,
                 json_extract(w.record, '$.disable_after_failures') AS own_failures,
                 json_extract(w.record, '$.disable_after_ms') AS own_window_ms,
                 COALESCE(h.in_a_row, 0) AS in_a_row, COALESCE(h.told, 0) AS told,
                 COALESCE(h.failed_attempts, 0) AS failed_attempts, COALESCE(h.moments, 0) AS moments, h.moment_at,
                 COALESCE(h.told_window, 0) AS told_window, h.failing_since, h.last_failure_at, h.last_success_at,
                 h.counted_from
                 FROM webhooks w LEFT JOIN webhook_health h ON h.webhook = w.id
                 WHERE w.deleted_at IS NULL AND w.id IN (",
            );
            let mut list = query.separated(", ");
            for id in chunk {
                list.push_bind((*id).to_owned());
            }
            query.push(")");
            for row in query.build().persistent(false).fetch_all(&mut *self.tx).await? {
                let patient = Patient {
                    tenant: TenantId::from_trusted(row.try_get::<String, _>("tenant")?),
                    state: row.try_get("state")?,
                    profile: row.try_get("profile")?,
                    own_failures: row.try_get::<Option<i64>, _>("own_failures")?.map(small),
                    own_window_ms: row.try_get::<Option<i64>, _>("own_window_ms")?.map(unsigned),
                    health: health_of(&row)?,
                };
                patients.insert(WebhookId::from_trusted(row.try_get::<String, _>("id")?), patient);
            }
        }
        Ok(patients)
    }

    /// Notes when something arrived at these webhooks, at which nothing failed since: what they failed before is over. It is what
    /// [`Health::succeed`] does, for as many webhooks as there are and without reading them; only that the time is noted in any
    /// case, since whoever asks does not know when it was last.
    pub(super) async fn succeed(
        &mut self,
        arrived: &BTreeMap<&WebhookId, Timestamp>,
    ) -> Result<(), StoreError> {
        if arrived.is_empty() {
            return Ok(());
        }
        let arrived = arrived.iter().map(|(id, at)| (id.as_str(), at.as_millis()));
        sqlx::query(
            "INSERT INTO webhook_health (webhook, in_a_row, told, last_success_at)
             SELECT w.id, 0, 0, k.value ->> 1 FROM json_each($1) k CROSS JOIN webhooks w ON w.id = k.value ->> 0
             WHERE w.deleted_at IS NULL
             ON CONFLICT (webhook) DO UPDATE SET in_a_row = 0, told = 0, failed_attempts = 0, moments = 0,
             moment_at = NULL, told_window = 0, failing_since = NULL,
             last_success_at = MAX(excluded.last_success_at, COALESCE(webhook_health.last_success_at, 0))",
        )
        .bind(list(arrived))
        .execute(&mut *self.tx)
        .await?;
        Ok(())
    }

    pub(super) async fn save_health(
        &mut self,
        patients: &BTreeMap<WebhookId, Patient>,
    ) -> Result<(), StoreError> {
        let changed: Vec<_> = patients.iter().filter(|(_, patient)| patient.health.changed).collect();
        for chunk in changed.chunks(ROWS) {
            let mut query = QueryBuilder::<Sqlite>::new(
                "INSERT INTO webhook_health (webhook, in_a_row, told, failed_attempts, moments, moment_at, told_window,
                 failing_since, last_failure_at, last_success_at, counted_from) ",
            );
            query.push_values(chunk, |mut row, (id, patient)| {
                let Health { streak, last_success_at, counted_from, .. } = &patient.health;
                let millis = |at: &Option<Timestamp>| at.map(Timestamp::as_millis);
                row.push_bind(id.as_str())
                    .push_bind(i64::from(streak.given_up))
                    .push_bind(i64::from(streak.told_given_up))
                    .push_bind(i64::from(streak.failed_attempts))
                    .push_bind(i64::from(streak.moments))
                    .push_bind(millis(&streak.moment_at))
                    .push_bind(i64::from(streak.told_window))
                    .push_bind(millis(&streak.since))
                    .push_bind(millis(&streak.last_at))
                    .push_bind(millis(last_success_at))
                    .push_bind(millis(counted_from));
            });
            query.push(
                " ON CONFLICT (webhook) DO UPDATE SET in_a_row = excluded.in_a_row, told = excluded.told,
                  failed_attempts = excluded.failed_attempts, moments = excluded.moments,
                  moment_at = excluded.moment_at, told_window = excluded.told_window,
                  failing_since = excluded.failing_since, last_failure_at = excluded.last_failure_at,
                  last_success_at = excluded.last_success_at",
            );
            query.build().persistent(false).execute(&mut *self.tx).await?;
        }
        Ok(())
    }

    /// A webhook that was disabled and is not to be any more begins anew: its failures are forgotten. To be called before
    /// its record is replaced.
    pub(super) async fn forget_failures(
        &mut self,
        record: &WebhookRecord,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        if record.state == "disabled" {
            return Ok(());
        }
        sqlx::query(
            "INSERT INTO webhook_health (webhook, in_a_row, told, counted_from)
             SELECT id, 0, 0, $2 FROM webhooks WHERE id = $1 AND state = 'disabled'
             ON CONFLICT (webhook) DO UPDATE SET in_a_row = 0, told = 0, failed_attempts = 0, moments = 0,
             moment_at = NULL, told_window = 0, failing_since = NULL, counted_from = excluded.counted_from",
        )
        .bind(record.id.as_str())
        .bind(now.as_millis())
        .execute(&mut *self.tx)
        .await?;
        Ok(())
    }

    /// Forgets how a webhook did: it is gone.
    pub(super) async fn forget_health(&mut self, webhook: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM webhook_health WHERE webhook = $1")
            .bind(webhook)
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }

    /// Webhooks that fail, in the order of their ids, after this one.
    pub(super) async fn failing(&mut self, after: &str) -> Result<Vec<String>, StoreError> {
        let limit = i64::try_from(ROWS).unwrap_or(i64::MAX);
        Ok(sqlx::query_scalar(FAILING).bind(after).bind(limit).fetch_all(&mut *self.tx).await?)
    }
}

#[cfg(test)]
mod tests {
    use postrider_core::health::Limits;

    use super::*;
    use crate::store::test_store::TestStore;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + ms)
    }

    #[test]
    fn successes_are_written_now_and_then_and_at_once_after_a_failure() {
        let mut health = Health { last_success_at: Some(at(0)), ..Health::default() };
        health.succeed(at(59_999));
        assert!(!health.changed);
        health.succeed(at(60_000));
        assert!(health.changed && health.last_success_at == Some(at(60_000)));
        health.changed = false;
        health.streak.fail(at(60_001), Limits::default());
        health.succeed(at(60_002));
        assert!(health.changed && health.streak.is_clean());
    }

    #[test]
    fn webhooks_that_do_well_are_remembered_until_they_fail() {
        let (well, id) = (Well::default(), WebhookId::from_trusted("wh_1"));
        assert!(!well.knows(&id, at(0)), "never seen");
        well.remember(vec![(id.clone(), at(0))]);
        assert!(well.knows(&id, at(59_999)) && !well.knows(&id, at(60_000)), "to be noted again by then");
        well.forget(&HashSet::from([&id]));
        assert!(!well.knows(&id, at(1)));
        for n in 0..3 {
            let many = (0..Well::MOST / 2).map(|i| (WebhookId::from_trusted(format!("wh_{n}_{i}")), at(0)));
            well.remember(many.collect());
            assert!(well.known().len() <= Well::MOST);
        }
    }

    #[test]
    fn what_ended_before_the_webhook_was_enabled_does_not_count() {
        let health = Health { counted_from: Some(at(10)), ..Health::default() };
        assert!(!health.counts(at(9)) && health.counts(at(10)));
        assert!(Health::default().counts(at(0)));
    }

    #[tokio::test]
    async fn what_the_database_notes_of_a_success_is_what_the_rule_says() {
        let test = TestStore::new().await;
        let mut failing = Health { counted_from: Some(at(1)), ..Health::default() };
        failing.streak.fail(at(2), Limits::default());
        failing.streak.give_up(at(3));
        failing.streak.tell(postrider_core::health::Rule::GivenUp, Some(50));
        failing.streak.tell(postrider_core::health::Rule::Window, Some(90));
        let succeeded = |ms| Health { last_success_at: Some(at(ms)), ..Health::default() };
        let known = [
            ("wh_failing", failing.clone()),
            ("wh_failing_again", Health { last_success_at: Some(at(1)), ..failing }),
            ("wh_well", succeeded(-60_000)),
            ("wh_well_later", succeeded(20)),
            ("wh_well_just_now", succeeded(5)),
        ];
        let mut change = test.store.change().await.unwrap();
        let all = known.iter().map(|(id, _)| *id).chain(["wh_new", "wh_deleted"]);
        for id in all.clone() {
            let webhook = sqlx::query(
                "INSERT INTO webhooks (id, tenant, revision, state, timeout_ms, secret_hint, created_at, updated_at, deleted_at)
                 VALUES ($1, 'default', 1, 'active', 1, '', 1, 1, $2)",
            );
            webhook.bind(id).bind((id == "wh_deleted").then_some(1)).execute(&mut *change.tx).await.unwrap();
        }
        let ids: Vec<&str> = known.iter().map(|(id, _)| *id).collect();
        let mut patients = change.patients(&ids).await.unwrap();
        for (id, health) in &known {
            let patient = patients.get_mut(&WebhookId::from_trusted(*id)).unwrap();
            patient.health = Health { changed: true, ..health.clone() };
        }
        change.save_health(&patients).await.unwrap();

        let arrived: Vec<WebhookId> = all.chain(["wh_unknown"]).map(WebhookId::from_trusted).collect();
        change.succeed(&arrived.iter().map(|id| (id, at(10))).collect()).await.unwrap();
        change.commit().await.unwrap();
        for (id, health) in known.into_iter().chain([("wh_new", Health::default())]) {
            let mut expected = health;
            expected.succeed(at(10));
            let noted = expected.last_success_at.max(Some(at(10)));
            let expected = Health { changed: false, last_success_at: noted, ..expected };
            assert_eq!(test.store.health(id).await.unwrap(), expected, "{id}");
        }
        assert_eq!(test.rows("SELECT COUNT(*) FROM webhook_health").await, 6, "of those that exist");
    }
}
