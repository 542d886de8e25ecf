//! What follows from how webhooks do: warnings, and webhooks that are disabled.
//!
//! Judged in the transaction in which the recorder learns of attempts and ends, each once, so that a repeated batch changes
//! nothing; and looked at again now and then, since a webhook's limits may have been changed while nothing was tried.

use std::collections::{BTreeMap, HashMap, HashSet};

use postrider_core::books::End;
use postrider_core::catalogue::DELIVERY_DEAD;
use postrider_core::health::{Limits, Rule, Streak, Verdict};
use postrider_core::outcome::Retried;
use postrider_core::profile::{Profile, ProfileSpec};
use postrider_core::wire::AttemptFact;
use postrider_core::{Outcome, TenantId, Timestamp, WebhookId};
use sqlx::Row as _;

use super::health::Patient;
use super::ledger::{Ended, Ledger};
use super::own_events::{Failures, GivenUp, OwnEvent, is_own, is_test};
use super::{Change, Store, StoreError, small};

/// Classes of attempts that say nothing of the receiver: the fault was ours, or nobody saw the answer.
const SAY_NOTHING: [&str; 3] = ["internal", "local", "unknown"];
/// Clocks may differ by this much. What is gone counts also if it seems to have been said a little before the webhook was
/// enabled: its worker has stopped it, and nobody else would say so.
const SKEW_MS: u64 = 5_000;

/// Something that says how a webhook does.
struct Sign<'a> {
    webhook: &'a WebhookId,
    at: Timestamp,
    what: What,
    last: GivenUp<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Succeeded,
    Failed,
    Gone,
    GivenUp,
}

impl Sign<'_> {
    /// Whether it may cause events of ours: not when it is itself of such an event, nor before it is known of which.
    fn may_tell(&self) -> bool {
        !self.last.event.is_empty() && !is_own(self.last.event)
    }
}

impl Store {
    /// Looks again at webhooks that fail: what their limits say of them now. Returns how many were disabled.
    ///
    /// Nothing is disabled because time went by: the newest failure says how long a webhook has been failing.
    pub(crate) async fn judge_again(&self, now: Timestamp) -> Result<u64, StoreError> {
        let (mut after, mut disabled) = (String::new(), 0);
        loop {
            let mut change = self.change().await?;
            let page = change.failing(&after).await?;
            let Some(last) = page.last() else { return Ok(disabled) };
            after = last.clone();
            let ids: Vec<&str> = page.iter().map(String::as_str).collect();
            disabled += change.judge_patients(&ids, now).await?;
            change.commit().await?;
        }
    }
}

impl Change<'_> {
    /// Counts what a batch brought, says what there is to say of it, and disables webhooks. Returns which webhooks do well
    /// once that is committed, and when that was noted.
    pub(super) async fn judge(
        &mut self,
        ledger: &Ledger,
        now: Timestamp,
    ) -> Result<Vec<(WebhookId, Timestamp)>, StoreError> {
        self.tell_of_the_dead(ledger, now).await?;
        let attempts = ledger.new_attempts.iter().filter_map(|fact| sign_of_attempt(ledger, fact));
        let ends = ledger.ended.iter().filter_map(|ended| sign_of_end(ledger, ended));
        let mut signs: Vec<Sign<'_>> = attempts.chain(ends).collect();
        let failed = signs.iter().filter(|sign| sign.what != What::Succeeded).map(|sign| sign.webhook);
        let failed: HashSet<&WebhookId> = failed.collect();
        let well = &self.store.well;
        if !failed.is_empty() {
            well.forget(&failed);
        }
        // Of a webhook at which nothing failed only the newest success counts, and only where that is news.
        let mut arrived: BTreeMap<&WebhookId, Timestamp> = BTreeMap::new();
        signs.retain(|sign| {
            let has_failed = failed.contains(sign.webhook);
            if !has_failed && !well.knows(sign.webhook, sign.at) {
                let newest = arrived.entry(sign.webhook).or_insert(sign.at);
                *newest = sign.at.max(*newest);
            }
            has_failed
        });
        self.succeed(&arrived).await?;
        let mut ids: Vec<&str> = signs.iter().map(|sign| sign.webhook.as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        let mut patients = self.patients(&ids).await?;
        let mut rules = Rules::default();
        for sign in &signs {
            let Some(patient) = patients.get_mut(sign.webhook) else { continue };
            if sign.what == What::Succeeded {
                patient.health.succeed(sign.at);
                continue;
            }
            let at = if sign.what == What::Gone { sign.at.plus_ms(SKEW_MS) } else { sign.at };
            if patient.state == "disabled" || !patient.health.counts(at) {
                continue;
            }
            let (limits, retried) = rules.of(self, patient).await?;
            let streak = &mut patient.health.streak;
            match sign.what {
                What::Succeeded => {}
                What::Failed | What::Gone => streak.fail(sign.at, limits),
                What::GivenUp => streak.give_up(sign.at),
            }
            patient.health.changed = true;
            let gone = sign.what == What::Gone && retried == Retried::Default;
            self.follow(sign.webhook, patient, limits, gone, sign, now).await?;
        }
        self.save_health(&patients).await?;
        let again = patients.into_iter().filter(|(_, patient)| patient.health.streak.is_clean());
        let again = again.filter_map(|(id, patient)| Some((id, patient.health.last_success_at?)));
        Ok(arrived.into_iter().map(|(id, at)| (id.clone(), at)).chain(again).collect())
    }

    /// Says and does what follows from a webhook's failures. `gone` when its receiver says that it wants nothing more.
    async fn follow(
        &mut self,
        id: &WebhookId,
        patient: &mut Patient,
        limits: Limits,
        gone: bool,
        sign: &Sign<'_>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        loop {
            let verdict =
                if gone { Verdict::Disable(Rule::Gone) } else { patient.health.streak.verdict(limits) };
            match verdict {
                // Otherwise it is said after the next failure.
                Verdict::Warn(rule, percent) if sign.may_tell() => {
                    patient.health.streak.tell(rule, percent);
                    patient.health.changed = true;
                    let Some(webhook) = self.webhook(patient.tenant.as_str(), id.as_str()).await? else {
                        return Ok(());
                    };
                    let failures = failures(rule, percent, &patient.health.streak, limits, None, sign.last);
                    self.own_event(OwnEvent::WebhookFailing(&webhook.record, &failures), now).await?;
                }
                Verdict::Nothing | Verdict::Warn(..) => return Ok(()),
                Verdict::Disable(rule) => {
                    let Some(webhook) = self.webhook(patient.tenant.as_str(), id.as_str()).await? else {
                        return Ok(());
                    };
                    let reason = reason(rule, &patient.health.streak, &sign.last);
                    let disabled = self.disable_webhook(webhook, &reason, now).await?;
                    patient.state.clone_from(&disabled.record.state);
                    tracing::warn!(webhook.id = id.as_str(), reason, "disabled a webhook");
                    if sign.may_tell() {
                        let streak = &patient.health.streak;
                        let failures = failures(rule, Some(100), streak, limits, Some(&reason), sign.last);
                        self.own_event(OwnEvent::WebhookDisabled(&disabled.record, &failures), now).await?;
                    }
                    return Ok(());
                }
            }
        }
    }

    /// The same for webhooks of which nothing new is known.
    async fn judge_patients(&mut self, ids: &[&str], now: Timestamp) -> Result<u64, StoreError> {
        let mut patients = self.patients(ids).await?;
        let (mut rules, mut disabled) = (Rules::default(), 0);
        for (id, patient) in &mut patients {
            if patient.state == "disabled" {
                continue;
            }
            let (limits, _) = rules.of(self, patient).await?;
            if patient.health.streak.verdict(limits) == Verdict::Nothing {
                continue;
            }
            let last = self.newest_failure(id.as_str()).await?;
            let last = last.as_ref().map(Failed::shown).unwrap_or_default();
            let at = patient.health.streak.last_at.unwrap_or(now);
            let sign = Sign { webhook: id, at, what: What::Failed, last };
            self.follow(id, patient, limits, false, &sign, now).await?;
            disabled += u64::from(patient.state == "disabled");
        }
        self.save_health(&patients).await?;
        Ok(disabled)
    }

    /// The newest delivery to a webhook whose newest attempt failed, among the newest of all.
    async fn newest_failure(&mut self, webhook: &str) -> Result<Option<Failed>, StoreError> {
        const AMONG: i64 = 100;
        let row = sqlx::query(
            "SELECT * FROM (SELECT * FROM deliveries WHERE webhook = $1 ORDER BY created_at DESC LIMIT $2) d
             WHERE d.last_class NOT IN ('', 'none') ORDER BY d.last_at DESC LIMIT 1",
        )
        .bind(webhook)
        .bind(AMONG)
        .fetch_optional(&mut *self.tx)
        .await?;
        let read = |row: sqlx::sqlite::SqliteRow| -> Result<Failed, sqlx::Error> {
            Ok(Failed {
                delivery: row.try_get("id")?,
                event: row.try_get("event_id")?,
                event_type: row.try_get("event_type")?,
                attempts: small(row.try_get("attempts")?),
                reason: row.try_get("reason")?,
                class: row.try_get("last_class")?,
                status: row.try_get("last_status")?,
            })
        };
        Ok(row.map(read).transpose()?)
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
                asked.insert(tenant.clone(), self.is_asked_for(tenant.as_str(), DELIVERY_DEAD, None).await?);
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
}

/// What applies to webhooks, each profile looked up once.
#[derive(Default)]
struct Rules(HashMap<(TenantId, String), ProfileSpec>);

impl Rules {
    async fn of(
        &mut self,
        change: &mut Change<'_>,
        patient: &Patient,
    ) -> Result<(Limits, Retried), StoreError> {
        let key = (patient.tenant.clone(), patient.profile.clone());
        if !self.0.contains_key(&key) {
            let spec = match Profile::built_in(&patient.profile) {
                Some(profile) => profile.spec().clone(),
                None => change.profile(key.0.as_str(), &key.1).await?.unwrap_or_default(),
            };
            self.0.insert(key.clone(), spec);
        }
        let limits =
            |spec: &ProfileSpec| (spec.limits(patient.own_failures, patient.own_window_ms), spec.retried);
        Ok(self.0.get(&key).map(limits).unwrap_or_default())
    }
}

/// A failure that is read from the store.
struct Failed {
    delivery: String,
    event: String,
    event_type: String,
    attempts: u32,
    reason: String,
    class: String,
    status: Option<i64>,
}

impl Failed {
    fn shown(&self) -> GivenUp<'_> {
        GivenUp {
            delivery: &self.delivery,
            event: &self.event,
            event_type: &self.event_type,
            attempts: self.attempts,
            reason: &self.reason,
            class: &self.class,
            status: self.status,
        }
    }
}

/// Whether a series says something of its webhook: not one that somebody asked for.
fn counts(ledger: &Ledger, delivery: &postrider_core::DeliveryId, series: u32) -> bool {
    let row = ledger.deliveries.get(delivery);
    series == 1 && row.and_then(|row| row.series.get(&series)).is_none_or(|series| !series.asked)
}

fn event_of<'a>(ledger: &'a Ledger, delivery: &postrider_core::DeliveryId) -> (&'a str, &'a str) {
    ledger.deliveries.get(delivery).map_or(("", ""), |row| (&row.event_id, &row.event_type))
}

/// What an attempt says. A test says nothing, nor does what somebody asked for, nor a failure that may be one of these,
/// since its event is not known yet.
fn sign_of_attempt<'a>(ledger: &'a Ledger, fact: &'a AttemptFact) -> Option<Sign<'a>> {
    let (event, event_type) = event_of(ledger, &fact.delivery);
    let class = &*fact.class;
    let what = match class {
        class if class == Outcome::Delivered { status: 200 }.class() => What::Succeeded,
        class if class == Outcome::Gone.class() => What::Gone,
        class if SAY_NOTHING.contains(&class) => return None,
        _ => What::Failed,
    };
    let unknown = event.is_empty() && what != What::Succeeded;
    if unknown || is_test(event) || !counts(ledger, &fact.delivery, fact.series) {
        return None;
    }
    let last = GivenUp {
        delivery: fact.delivery.as_str(),
        event,
        event_type,
        attempts: fact.n,
        reason: "",
        class,
        status: fact.status.map(i64::from),
    };
    Some(Sign { webhook: &fact.webhook, at: fact.at.plus_ms(fact.duration_ms), what, last })
}

/// What an end says: delivered, or given up.
fn sign_of_end<'a>(ledger: &'a Ledger, ended: &'a Ended) -> Option<Sign<'a>> {
    let (event, event_type) = event_of(ledger, &ended.delivery);
    let what = match ended.end {
        End::Delivered => What::Succeeded,
        End::Dead => What::GivenUp,
        End::Cancelled | End::Skipped => return None,
    };
    if ended.reason == "test" || is_test(event) || !counts(ledger, &ended.delivery, ended.series) {
        return None;
    }
    let row = ledger.deliveries.get(&ended.delivery);
    let last = GivenUp {
        delivery: ended.delivery.as_str(),
        event,
        event_type,
        attempts: ended.attempts,
        reason: &ended.reason,
        class: row.map_or("", |row| &row.last.class),
        status: row.and_then(|row| row.last.status),
    };
    Some(Sign { webhook: &ended.webhook, at: ended.at, what, last })
}

fn failures<'a>(
    rule: Rule,
    share_percent: Option<u8>,
    streak: &Streak,
    limits: Limits,
    reason: Option<&'a str>,
    last: GivenUp<'a>,
) -> Failures<'a> {
    Failures {
        rule: rule.as_str(),
        share_percent,
        given_up_in_a_row: streak.given_up,
        disable_after_failures: limits.given_up,
        failed_attempts: streak.failed_attempts,
        failing_since: streak.since.map(Timestamp::to_rfc3339),
        disable_after_ms: limits.window_ms,
        reason,
        last,
    }
}

/// Why a webhook is disabled, for people.
fn reason(rule: Rule, streak: &Streak, last: &GivenUp<'_>) -> String {
    let outcome = match (last.class, last.status) {
        ("", _) => String::new(),
        (class, Some(status)) if !class.contains(&status.to_string()) => format!("{class} {status}"),
        (class, _) => class.to_owned(),
    };
    let joined: Vec<&str> = [last.reason, &outcome].into_iter().filter(|part| !part.is_empty()).collect();
    let last = joined.join(": ");
    match rule {
        Rule::Gone => "the receiver answered 410: it wants no more deliveries".to_owned(),
        Rule::GivenUp => match streak.given_up {
            1 => format!("a delivery was given up; last: {last}"),
            n => format!("{n} deliveries in a row were given up; last: {last}"),
        },
        Rule::Window => {
            let since = streak.since.map(Timestamp::to_rfc3339).unwrap_or_default();
            let n = streak.failed_attempts;
            format!("nothing has arrived since {since}, over {n} attempts; last: {last}")
        }
    }
}
