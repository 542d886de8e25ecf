//! The pipeline of one delivery: begin → sign → send → classify → decide. What it decides is settled in
//! [`crate::settle`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use postrider_broker::{DirectoryFeed, Lane, now};
use postrider_core::catalogue::TypeEntry;
use postrider_core::directory::Lookup;
use postrider_core::ladder::Wait;
use postrider_core::lifecycle::{self, Admission, DeadReason, Next, Progress, SkipReason};
use postrider_core::outcome::Unreachable;
use postrider_core::profile::{KeyForm, Profile};
use postrider_core::request::{self, Attempt};
use postrider_core::seal::MasterKey;
use postrider_core::webhook::{Auth, Credentials, SealedCredentials};
use postrider_core::wire::{AttemptFact, DeliveryRecord, EventRecord};
use postrider_core::{Chance, Event, Outcome, Timestamp, Webhook, WebhookId};

use crate::gate::{Entry, Gate};
use crate::http::{Deadline, Http, Sent};
use crate::metrics::{Metrics, seconds};
use crate::token::Tokens;

/// How long a delivery waits for the configuration that routed it, before it is parked (DESIGN §5.2).
const REVISION_PATIENCE: Duration = Duration::from_secs(2);
/// How long a delivery may be parked for a webhook that nobody knows, milliseconds.
const UNKNOWN_PATIENCE_MS: u64 = 5 * 60 * 1000;
/// The rung of the parking for it, seconds.
const UNKNOWN_RUNG_SECS: u32 = 5;

/// One delivery in the hands of this worker.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    /// The event.
    pub(crate) event: Arc<EventRecord>,
    /// The delivery.
    pub(crate) delivery: DeliveryRecord,
    /// The lane it came on.
    pub(crate) lane: Lane,
    /// Its shard.
    pub(crate) shard: u16,
    /// How often its message was handed out before without being settled.
    pub(crate) repeats: u32,
}

/// A delivery is published again, to come back later; no attempt is spent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Park {
    /// Why.
    pub(crate) why: ParkReason,
    /// Which rung of the parking, seconds.
    pub(crate) rung_secs: u32,
}

/// Why a delivery is parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ParkReason {
    /// The configuration that routed it is not known yet; since when it is waited for.
    UnknownRevision {
        /// Since then.
        since: Timestamp,
    },
}

impl ParkReason {
    /// Every word of [`Self::as_str`].
    pub(crate) const WORDS: [&str; 1] = ["unknown_revision"];

    /// One word from a closed list.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::UnknownRevision { .. } => "unknown_revision",
        }
    }
}

/// What is to become of a delivery.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    /// The receiver has it.
    Delivered(AttemptFact),
    /// Another attempt.
    Retry {
        /// The attempt that was made.
        attempt: AttemptFact,
        /// When the next is due.
        at: Timestamp,
        /// The wait on the ladder.
        wait: Wait,
    },
    /// Given up.
    Dead {
        /// The last attempt.
        attempt: AttemptFact,
        /// Why.
        reason: DeadReason,
    },
    /// The webhook is paused.
    Held,
    /// The webhook does not receive now.
    Skipped(SkipReason),
    /// There is no such webhook any more; why, in one word.
    Cancelled(&'static str),
    /// Not now; no attempt is spent.
    Park(Park),
}

/// What delivering needs, shared by all deliveries of a worker.
pub(crate) struct Deliverer {
    pub(crate) feed: DirectoryFeed,
    pub(crate) http: Http,
    pub(crate) tokens: Tokens,
    pub(crate) master_key: MasterKey,
    pub(crate) metrics: Metrics,
    pub(crate) unit_ms: u64,
    pub(crate) worker: String,
    pub(crate) opened: Opened,
    pub(crate) gate: Gate,
}

impl Deliverer {
    /// Makes one attempt, or finds out why there is none to make.
    pub(crate) async fn deliver(&self, taken: &Taken) -> Verdict {
        let webhook = match self.webhook_of(taken).await {
            Ok(webhook) => webhook,
            Err(verdict) => return verdict,
        };
        let lacks_profile = {
            let directory = self.feed.read();
            directory.unreadable().is_some() && directory.profile_of(&webhook).is_none()
        };
        if lacks_profile {
            return unknown(true, true, taken.delivery.unknown_since, now());
        }
        match lifecycle::admit(&webhook, &taken.delivery, now()) {
            Admission::Attempt => self.attempt(taken, &webhook).await,
            Admission::Hold => Verdict::Held,
            Admission::Skip(reason) => Verdict::Skipped(reason),
        }
    }

    async fn attempt(&self, taken: &Taken, webhook: &Webhook) -> Verdict {
        let delivery = &taken.delivery;
        let entered = match self.gate.enter(taken, webhook).await {
            Entry::Begin(entered) => entered,
            Entry::Park(park) => return Verdict::Park(park),
        };
        let begun = now();
        self.observe_start(taken, begun);
        let (profile, entry) = {
            let directory = self.feed.read();
            let entry = directory.type_entry(&taken.event.tenant, &taken.event.event_type);
            (directory.profile_of(webhook), entry)
        };
        let (profile, sent) = match profile {
            Some(profile) => {
                let sent = self.send(taken, webhook, &profile, entry.as_deref(), begun).await;
                (profile, sent)
            }
            // Control refuses to remove a catalogue whose profile is spoken. A body of another profile would be worse
            // than a late one.
            None => (Arc::new(Profile::default_profile()), not_made(webhook, &"its profile is not known")),
        };
        let ended = now();
        let outcome = match &sent {
            Sent::Answered(answer) => {
                let retry_after = answer.retry_after.iter().map(Vec::as_slice);
                Outcome::classify(profile.spec().success, answer.status, retry_after, ended)
            }
            Sent::Unreachable(why, _) => Outcome::Unreachable(*why),
            Sent::Blocked => Outcome::Blocked,
        };
        entered.ended(&outcome, Duration::from_millis(ended.since_ms(begun)));
        let progress = Progress { attempt: delivery.attempt, born: delivery.born, test: delivery.test };
        let chance = Chance::new(rand::random());
        let (policy, retried) = (profile.retry(&webhook.retry), profile.spec().retried);
        let next = lifecycle::next(&policy, retried, self.unit_ms, progress, &outcome, ended, chance);
        let attempt = self.record(taken, webhook, sent, &outcome, next, begun, ended);
        match next {
            Next::Delivered => Verdict::Delivered(attempt),
            Next::Retry { at, wait } => Verdict::Retry { attempt, at, wait },
            Next::Dead(reason) => Verdict::Dead { attempt, reason },
        }
    }

    /// Makes the request and sends it. A token that it needs is fetched within the same deadline.
    async fn send(
        &self,
        taken: &Taken,
        webhook: &Webhook,
        profile: &Profile,
        entry: Option<&TypeEntry>,
        at: Timestamp,
    ) -> Sent {
        let credentials = match self.opened.credentials(webhook, profile, &self.master_key) {
            Ok(credentials) => credentials,
            Err(error) => return not_made(webhook, &error),
        };
        let deadline = Deadline::after(Duration::from_millis(profile.timeout_ms(webhook.timeout_ms)));
        let token = match &credentials.auth {
            Some(Auth::Oauth2(oauth2)) => match self.tokens.token(webhook, oauth2, deadline).await {
                Ok(token) => Some(token),
                Err(why) => return Sent::Unreachable(Unreachable::Token, why),
            },
            Some(Auth::Basic { .. } | Auth::Bearer { .. }) | None => None,
        };
        if let Some(version) =
            webhook.payload_version.as_deref().filter(|version| !profile.has_version(version))
        {
            // Control refuses it when a webhook is saved; a catalogue that came later may have dropped it.
            tracing::warn!(
                webhook.id = webhook.id.as_str(),
                version,
                "the profile has no such version of the payload; its own is sent"
            );
        }
        let event = Event::from((*taken.event).clone());
        let request = request::build(&Attempt {
            webhook,
            profile,
            entry,
            credentials: &credentials,
            bearer: token.as_ref().map(|token| token.value()),
            event: &event,
            delivery: &taken.delivery.id,
            number: taken.delivery.attempt,
            test: taken.delivery.test,
            at,
        });
        let request = match request {
            Ok(request) => request,
            Err(error) => return not_made(webhook, &error),
        };
        let sent = self.http.send(request, webhook, credentials.tls.as_ref(), deadline).await;
        if let (Sent::Answered(answer), Some(token)) = (&sent, &token)
            && answer.status == 401
        {
            self.tokens.refused(webhook, token);
        }
        sent
    }

    /// The webhook as this worker knows it, or what becomes of the delivery without one.
    async fn webhook_of(&self, taken: &Taken) -> Result<Arc<Webhook>, Verdict> {
        let delivery = &taken.delivery;
        let known = |feed: &DirectoryFeed| {
            let directory = feed.read();
            let fresh =
                directory.epoch() == Some(&delivery.epoch) && directory.revision() >= delivery.revision;
            (directory.webhook(&delivery.webhook), fresh)
        };
        let (mut found, fresh) = known(&self.feed);
        // A webhook that is known under another epoch is delivered to as it is: the store was restored, and revisions of
        // different epochs do not compare.
        let expected = self.feed.read().expects(&delivery.epoch);
        if !fresh && (expected || matches!(found, Lookup::Unknown)) {
            self.feed.at_least(&delivery.epoch, delivery.revision, REVISION_PATIENCE).await;
            found = known(&self.feed).0;
        }
        match found {
            Lookup::Known(webhook) => Ok(webhook),
            Lookup::Deleted => Err(Verdict::Cancelled("webhook_deleted")),
            Lookup::Unknown => {
                let unreadable = self.feed.read().unreadable().is_some();
                Err(unknown(known(&self.feed).1, unreadable, delivery.unknown_since, now()))
            }
        }
    }

    fn observe_start(&self, taken: &Taken, begun: Timestamp) {
        match taken.delivery.due {
            Some(due) => self.metrics.retry_lag_seconds.observe(seconds(begun.since_ms(due))),
            None if taken.delivery.attempt == 1 && taken.delivery.series == 1 => {
                let waited_ms = begun.since_ms(taken.event.accepted_at);
                self.metrics.first_attempt_seconds.observe(seconds(waited_ms));
            }
            None => {}
        }
    }

    /// The attempt as a fact, its metrics, and one line in the log.
    #[expect(clippy::too_many_arguments, reason = "everything that is known of one attempt, once")]
    fn record(
        &self,
        taken: &Taken,
        webhook: &Webhook,
        sent: Sent,
        outcome: &Outcome,
        next: Next,
        begun: Timestamp,
        ended: Timestamp,
    ) -> AttemptFact {
        let delivery = &taken.delivery;
        let duration_ms = ended.since_ms(begun);
        self.metrics.attempted(outcome, duration_ms);
        let (response_headers, response_body, error) = match sent {
            Sent::Answered(answer) => {
                let body = (!answer.body.is_empty()).then_some(answer.body);
                let error =
                    (next != Next::Delivered).then(|| format!("the receiver answered {}", answer.status));
                (answer.headers, body, error)
            }
            Sent::Unreachable(_, error) => (Vec::new(), None, Some(error)),
            Sent::Blocked => (Vec::new(), None, Some(outcome.hint().to_owned())),
        };
        let next_at = match next {
            Next::Retry { at, .. } => Some(at),
            Next::Delivered | Next::Dead(_) => None,
        };
        match next {
            Next::Delivered => tracing::debug!(
                delivery.id = delivery.id.as_str(),
                webhook.id = webhook.id.as_str(),
                event.r#type = taken.event.event_type.as_str(),
                attempt = delivery.attempt,
                status = outcome.status(),
                duration_ms,
                "delivered"
            ),
            Next::Retry { at, .. } => tracing::info!(
                delivery.id = delivery.id.as_str(), webhook.id = webhook.id.as_str(),
                event.r#type = taken.event.event_type.as_str(), attempt = delivery.attempt,
                class = outcome.class(), status = outcome.status(), duration_ms, next_at = %at,
                "attempt failed, will retry"
            ),
            Next::Dead(reason) => tracing::warn!(
                delivery.id = delivery.id.as_str(),
                webhook.id = webhook.id.as_str(),
                event.r#type = taken.event.event_type.as_str(),
                attempt = delivery.attempt,
                class = outcome.class(),
                status = outcome.status(),
                duration_ms,
                reason = reason.as_str(),
                "delivery given up"
            ),
        }
        let mut url = webhook.url.clone();
        url.set_query(None);
        AttemptFact {
            delivery: delivery.id.clone(),
            series: delivery.series,
            n: delivery.attempt,
            webhook: webhook.id.clone(),
            at: begun,
            duration_ms,
            url: url.into(),
            class: outcome.class().to_owned(),
            status: outcome.status(),
            error,
            response_body,
            response_headers,
            next_at,
            worker: self.worker.clone(),
            repeats: taken.repeats,
        }
    }
}

/// What becomes of a delivery whose webhook, or its profile, is not known: `fresh` is whether that is all that there is to
/// know. While part of the configuration cannot be read it may be in there, so nothing is given up.
fn unknown(fresh: bool, unreadable: bool, since: Option<Timestamp>, at: Timestamp) -> Verdict {
    let unknown_since = if unreadable { at } else { since.unwrap_or(at) };
    if !unreadable && (fresh || at.since_ms(unknown_since) > UNKNOWN_PATIENCE_MS) {
        return Verdict::Cancelled("webhook_unknown");
    }
    let why = ParkReason::UnknownRevision { since: unknown_since };
    Verdict::Park(Park { why, rung_secs: UNKNOWN_RUNG_SECS })
}

/// There is no request, and why.
fn not_made(webhook: &Webhook, error: &dyn std::fmt::Display) -> Sent {
    tracing::error!(webhook.id = webhook.id.as_str(), %error, "no request could be made");
    Sent::Unreachable(Unreachable::Internal, error.to_string())
}

/// Opened credentials, kept until what is sealed changes, or how the profile reads it. Revisions would not do: those of a
/// restored store start again.
#[derive(Debug, Default)]
pub(crate) struct Opened(Mutex<HashMap<WebhookId, Open>>);

#[derive(Debug)]
struct Open {
    sealed: SealedCredentials,
    form: KeyForm,
    credentials: Arc<Credentials>,
}

/// Credentials that are kept, at most.
const MAX_OPENED: usize = 50_000;

impl Opened {
    fn credentials(
        &self,
        webhook: &Webhook,
        profile: &Profile,
        key: &MasterKey,
    ) -> Result<Arc<Credentials>, postrider_core::seal::BadSeal> {
        let (sealed, form) = (&webhook.sealed, profile.key_form());
        let mut opened = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = opened.get(&webhook.id)
            && open.form == form
            && open.sealed == *sealed
        {
            return Ok(open.credentials.clone());
        }
        let credentials = Arc::new(webhook.open(key, form)?);
        if opened.len() >= MAX_OPENED {
            opened.clear();
        }
        let open = Open { sealed: sealed.clone(), form, credentials: credentials.clone() };
        opened.insert(webhook.id.clone(), open);
        Ok(credentials)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_not_given_up_while_part_of_the_configuration_cannot_be_read() {
        let at = Timestamp::from_millis(10_000_000);
        let long_ago = Some(Timestamp::from_millis(1));
        for (fresh, since) in [(true, None), (true, long_ago), (false, long_ago)] {
            assert!(matches!(unknown(fresh, false, since, at), Verdict::Cancelled("webhook_unknown")));
            let Verdict::Park(park) = unknown(fresh, true, since, at) else {
                panic!("it is given up: fresh {fresh}, since {since:?}");
            };
            let begins_now = ParkReason::UnknownRevision { since: at };
            assert_eq!(park.why, begins_now, "the patience begins when everything can be read");
        }
        let just_now = Some(Timestamp::from_millis(9_999_999));
        let Verdict::Park(park) = unknown(false, false, just_now, at) else {
            panic!("it is given up at once");
        };
        assert_eq!(park.why, ParkReason::UnknownRevision { since: just_now.unwrap_or(at) });
    }
}
