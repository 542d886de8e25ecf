//! How webhooks do: deliveries given up in a row, and what follows from too many of them.
//!
//! Counted in the transaction in which the recorder learns of the ends, in the order in which it learns of them, each end
//! once. So a repeated batch changes nothing.

use std::collections::{BTreeMap, HashMap};

use postrider_core::books::End;
use postrider_core::catalogue::DELIVERY_DEAD;
use postrider_core::profile::Profile;
use postrider_core::wire::WebhookRecord;
use postrider_core::{TenantId, Timestamp, WebhookId};
use sqlx::{QueryBuilder, Row as _, Sqlite};

use super::ledger::{Ended, Ledger};
use super::own_events::{Failures, GivenUp, OwnEvent, is_own, is_test};
use super::{Change, Store, StoreError, WebhookRow, small, time};

/// A webhook that is never disabled counts as failing after this many.
const FAILING_WITHOUT_LIMIT: u32 = 5;
/// A success is noted again after this long: a webhook that does well costs no write for each delivery.
const SUCCESS_GRAIN_MS: u64 = 10_000;
/// Rows in one statement.
const ROWS: usize = 400;

/// How a webhook does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    /// Deliveries given up since the last that was delivered.
    pub in_a_row: u32,
    /// Since when.
    pub failing_since: Option<Timestamp>,
    pub last_failure_at: Option<Timestamp>,
    /// To within ten seconds.
    pub last_success_at: Option<Timestamp>,
    /// The tenant has been told that it is failing.
    told: bool,
    /// Ends before this do not count: the webhook was enabled then.
    counted_from: Option<Timestamp>,
    changed: bool,
}

/// What follows from one more delivery that was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Nothing,
    Failing,
    Disable,
}

impl Health {
    /// One was delivered.
    fn succeed(&mut self, at: Timestamp) {
        let noted = self.last_success_at.is_some_and(|last| at.since_ms(last) < SUCCESS_GRAIN_MS);
        if self.in_a_row == 0 && noted {
            return;
        }
        let last_success_at = self.last_success_at.max(Some(at));
        *self =
            Self { last_success_at, in_a_row: 0, failing_since: None, told: false, changed: true, ..*self };
    }

    /// One was given up, where so many in a row disable the webhook.
    fn fail(&mut self, at: Timestamp, limit: Option<u32>) -> Verdict {
        if self.counted_from.is_some_and(|from| at < from) {
            return Verdict::Nothing;
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.failing_since = self.failing_since.or(Some(at));
        self.last_failure_at = self.last_failure_at.max(Some(at));
        self.changed = true;
        let failing = limit.map_or(FAILING_WITHOUT_LIMIT, |limit| limit.div_ceil(2));
        match limit {
            Some(limit) if self.in_a_row >= limit => Verdict::Disable,
            _ if self.in_a_row >= failing && !self.told => Verdict::Failing,
            _ => Verdict::Nothing,
        }
    }
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

fn health_of(row: &sqlx::sqlite::SqliteRow) -> Result<Health, sqlx::Error> {
    Ok(Health {
        in_a_row: small(row.try_get("in_a_row")?),
        told: row.try_get("told")?,
        failing_since: time(row.try_get("failing_since")?),
        last_failure_at: time(row.try_get("last_failure_at")?),
        last_success_at: time(row.try_get("last_success_at")?),
        counted_from: time(row.try_get("counted_from")?),
        changed: false,
    })
}

/// A webhook that a batch is about.
struct Patient {
    tenant: TenantId,
    health: Health,
}

impl Change<'_> {
    /// Counts the ends that a batch brought, says what there is to say of them, and disables webhooks.
    pub(super) async fn judge(&mut self, ledger: &Ledger, now: Timestamp) -> Result<(), StoreError> {
        self.tell_of_the_dead(ledger, now).await?;
        let ended: Vec<&Ended> = ledger.ended.iter().filter(|ended| counts(ledger, ended)).collect();
        let mut ids: Vec<&str> = ended.iter().map(|ended| ended.webhook.as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        let mut patients = self.patients(&ids).await?;
        let (mut webhooks, mut limits) = (HashMap::new(), HashMap::new());
        for ended in ended {
            let Some(patient) = patients.get_mut(&ended.webhook) else { continue };
            if ended.end == End::Delivered {
                patient.health.succeed(ended.at);
                continue;
            }
            if !webhooks.contains_key(&ended.webhook) {
                let webhook = self.webhook(patient.tenant.as_str(), ended.webhook.as_str()).await?;
                webhooks.insert(&ended.webhook, webhook.filter(|webhook| webhook.record.state != "disabled"));
            }
            let Some(Some(webhook)) = webhooks.get(&ended.webhook) else { continue };
            let limit = self.failure_limit(&webhook.record, &mut limits).await?;
            match patient.health.fail(ended.at, limit) {
                Verdict::Nothing => {}
                Verdict::Failing => {
                    // Otherwise it is said after the next one.
                    if causes_events(ledger, ended) {
                        patient.health.told = true;
                        let failures = failures(ledger, ended, &patient.health, limit, None);
                        self.own_event(OwnEvent::WebhookFailing(&webhook.record, &failures), now).await?;
                    }
                }
                Verdict::Disable => {
                    self.disable_failing(webhook.clone(), ledger, ended, &patient.health, limit, now).await?;
                    webhooks.insert(&ended.webhook, None);
                }
            }
        }
        self.save_health(&patients).await
    }

    async fn disable_failing(
        &mut self,
        webhook: WebhookRow,
        ledger: &Ledger,
        ended: &Ended,
        health: &Health,
        limit: Option<u32>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let last = given_up(ledger, ended);
        let outcome = match (last.class, last.status) {
            ("", _) => String::new(),
            (class, Some(status)) if !class.contains(&status.to_string()) => format!(": {class} {status}"),
            (class, _) => format!(": {class}"),
        };
        let in_a_row = match health.in_a_row {
            1 => "a delivery was given up".to_owned(),
            n => format!("{n} deliveries in a row were given up"),
        };
        let reason = format!("{in_a_row}; last: {}{outcome}", last.reason);
        let disabled = self.disable_webhook(webhook, &reason, now).await?;
        tracing::warn!(webhook.id = disabled.record.id.as_str(), reason, "disabled a webhook");
        if causes_events(ledger, ended) {
            let failures = failures(ledger, ended, health, limit, Some(&reason));
            self.own_event(OwnEvent::WebhookDisabled(&disabled.record, &failures), now).await?;
        }
        Ok(())
    }

    /// Deliveries that were given up, except those of Postrider's own events.
    async fn tell_of_the_dead(&mut self, ledger: &Ledger, now: Timestamp) -> Result<(), StoreError> {
        let (mut asked, mut webhooks) = (HashMap::new(), HashMap::new());
        for new in ledger.new_letters.values() {
            let letter = &new.letter;
            let Some((delivery, n)) = &letter.delivery else { continue };
            if new.resolved || is_own(&letter.event_id) {
                continue;
            }
            let tenant = TenantId::from_trusted(letter.tenant.as_str());
            if !asked.contains_key(&tenant) {
                asked.insert(tenant.clone(), self.is_asked_for(tenant.as_str(), DELIVERY_DEAD).await?);
            }
            if asked.get(&tenant) != Some(&true) {
                continue;
            }
            if !webhooks.contains_key(&letter.webhook) {
                webhooks.insert(&letter.webhook, self.webhook(tenant.as_str(), &letter.webhook).await?);
            }
            let webhook = webhooks.get(&letter.webhook).and_then(Option::as_ref);
            let row = ledger.deliveries.get(delivery);
            let attempts =
                row.and_then(|row| row.series.get(n)).map_or(0, |series| series.attempts.max(series.logged));
            let what = GivenUp {
                delivery: delivery.as_str(),
                event: &letter.event_id,
                event_type: &letter.event_type,
                attempts: letter.attempts.max(attempts),
                reason: &letter.reason,
                class: &letter.class,
                status: row.filter(|row| row.last.series == *n).and_then(|row| row.last.status),
            };
            let record = webhook.map(|webhook| &webhook.record);
            self.own_event(OwnEvent::DeliveryDead(&tenant, record, &what), now).await?;
        }
        Ok(())
    }

    /// Those of these webhooks that exist.
    async fn patients(&mut self, ids: &[&str]) -> Result<BTreeMap<WebhookId, Patient>, StoreError> {
        let mut patients = BTreeMap::new();
        for chunk in ids.chunks(ROWS) {
            let mut query = QueryBuilder::<Sqlite>::new(
                "SELECT w.id, w.tenant, h.webhook IS NOT NULL AS known, COALESCE(h.in_a_row, 0) AS in_a_row,
                 COALESCE(h.told, 0) AS told, h.failing_since, h.last_failure_at, h.last_success_at, h.counted_from
                 FROM webhooks w LEFT JOIN webhook_health h ON h.webhook = w.id
                 WHERE w.deleted_at IS NULL AND w.id IN (",
            );
            let mut list = query.separated(", ");
            for id in chunk {
                list.push_bind((*id).to_owned());
            }
            query.push(")");
            for row in query.build().persistent(false).fetch_all(&mut *self.tx).await? {
                let tenant = TenantId::from_trusted(row.try_get::<String, _>("tenant")?);
                let patient = Patient { tenant, health: health_of(&row)? };
                patients.insert(WebhookId::from_trusted(row.try_get::<String, _>("id")?), patient);
            }
        }
        Ok(patients)
    }

    async fn save_health(&mut self, patients: &BTreeMap<WebhookId, Patient>) -> Result<(), StoreError> {
        let changed: Vec<_> = patients.iter().filter(|(_, patient)| patient.health.changed).collect();
        for chunk in changed.chunks(ROWS) {
            let mut query = QueryBuilder::<Sqlite>::new(
                "INSERT INTO webhook_health (webhook, in_a_row, told, failing_since, last_failure_at, last_success_at,
                 counted_from) ",
            );
            query.push_values(chunk, |mut row, (id, patient)| {
                let health = &patient.health;
                row.push_bind(id.as_str())
                    .push_bind(i64::from(health.in_a_row))
                    .push_bind(health.told)
                    .push_bind(health.failing_since.map(Timestamp::as_millis))
                    .push_bind(health.last_failure_at.map(Timestamp::as_millis))
                    .push_bind(health.last_success_at.map(Timestamp::as_millis))
                    .push_bind(health.counted_from.map(Timestamp::as_millis));
            });
            query.push(
                " ON CONFLICT (webhook) DO UPDATE SET in_a_row = excluded.in_a_row, told = excluded.told,
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
             ON CONFLICT (webhook) DO UPDATE SET in_a_row = 0, told = 0, failing_since = NULL,
             counted_from = excluded.counted_from",
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

    /// After how many deliveries given up in a row this webhook is disabled; nothing for never.
    async fn failure_limit(
        &mut self,
        record: &WebhookRecord,
        of_profiles: &mut HashMap<(TenantId, String), Option<u32>>,
    ) -> Result<Option<u32>, StoreError> {
        let limit = match record.disable_after_failures {
            Some(own) => Some(own),
            None => match Profile::built_in(&record.profile) {
                Some(profile) => profile.spec().disable_after_failures,
                None => {
                    let key = (record.tenant.clone(), record.profile.clone());
                    match of_profiles.get(&key) {
                        Some(known) => *known,
                        None => {
                            let profile = self.profile(key.0.as_str(), &key.1).await?;
                            let found = profile.and_then(|profile| profile.disable_after_failures);
                            of_profiles.insert(key, found);
                            found
                        }
                    }
                }
            },
        };
        Ok(limit.filter(|limit| *limit > 0))
    }
}

/// Whether an end says something of its webhook: it was delivered to, or given up. A test says nothing.
fn counts(ledger: &Ledger, ended: &Ended) -> bool {
    let event = ledger.deliveries.get(&ended.delivery).map_or("", |row| row.event_id.as_str());
    matches!(ended.end, End::Delivered | End::Dead) && ended.reason != "test" && !is_test(event)
}

/// Whether an end may cause events of ours: not when it is itself of such an event, nor before it is known of which.
fn causes_events(ledger: &Ledger, ended: &Ended) -> bool {
    let event = ledger.deliveries.get(&ended.delivery).map_or("", |row| row.event_id.as_str());
    !event.is_empty() && !is_own(event)
}

fn given_up<'a>(ledger: &'a Ledger, ended: &'a Ended) -> GivenUp<'a> {
    let row = ledger.deliveries.get(&ended.delivery);
    GivenUp {
        delivery: ended.delivery.as_str(),
        event: row.map_or("", |row| &row.event_id),
        event_type: row.map_or("", |row| &row.event_type),
        attempts: ended.attempts,
        reason: &ended.reason,
        class: row.map_or("", |row| &row.last.class),
        status: row.and_then(|row| row.last.status),
    }
}

fn failures<'a>(
    ledger: &'a Ledger,
    ended: &'a Ended,
    health: &Health,
    limit: Option<u32>,
    reason: Option<&'a str>,
) -> Failures<'a> {
    Failures {
        given_up_in_a_row: health.in_a_row,
        disable_after_failures: limit,
        reason,
        last: given_up(ledger, ended),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + ms)
    }

    fn verdicts(health: &mut Health, times: u32, limit: Option<u32>) -> Vec<Verdict> {
        (0..times)
            .map(|n| {
                let verdict = health.fail(at(i64::from(n)), limit);
                health.told |= verdict == Verdict::Failing;
                verdict
            })
            .collect()
    }

    #[test]
    fn a_webhook_is_failing_at_half_its_limit_and_disabled_at_all_of_it() {
        use Verdict::{Disable, Failing, Nothing};
        assert_eq!(verdicts(&mut Health::default(), 4, Some(4)), [Nothing, Failing, Nothing, Disable]);
        assert_eq!(verdicts(&mut Health::default(), 3, Some(3)), [Nothing, Failing, Disable]);
        assert_eq!(verdicts(&mut Health::default(), 1, Some(1)), [Disable]);
        let never = verdicts(&mut Health::default(), 300, None);
        assert_eq!(never.iter().position(|v| *v == Failing), Some(4));
        assert_eq!(never.iter().filter(|v| **v != Nothing).count(), 1, "it is said once");
    }

    #[test]
    fn a_success_begins_anew() {
        let mut health = Health::default();
        verdicts(&mut health, 3, Some(4));
        assert_eq!((health.in_a_row, health.failing_since), (3, Some(at(0))));
        health.succeed(at(50));
        assert_eq!((health.in_a_row, health.failing_since, health.told), (0, None, false));
        assert_eq!(health.last_success_at, Some(at(50)));
        assert_eq!(verdicts(&mut health, 2, Some(4)), [Verdict::Nothing, Verdict::Failing], "said again");
    }

    #[test]
    fn successes_are_written_now_and_then() {
        let mut health = Health { last_success_at: Some(at(0)), ..Health::default() };
        health.succeed(at(9_999));
        assert!(!health.changed);
        health.succeed(at(10_000));
        assert!(health.changed && health.last_success_at == Some(at(10_000)));
    }

    #[test]
    fn what_ended_before_the_webhook_was_enabled_does_not_count() {
        let mut health = Health { counted_from: Some(at(10)), ..Health::default() };
        assert_eq!(health.fail(at(9), Some(1)), Verdict::Nothing);
        assert_eq!((health.in_a_row, health.changed), (0, false));
        assert_eq!(health.fail(at(10), Some(1)), Verdict::Disable);
    }
}
