//! The pipeline of one delivery: begin → sign → send → classify → decide. What it decides is settled in
//! [`crate::settle`].

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use postrider_broker::{DirectoryFeed, Lane, crash, now};
use postrider_core::catalogue::TypeEntry;
use postrider_core::directory::Lookup;
use postrider_core::ladder::Wait;
use postrider_core::lifecycle::{self, Admission, DeadReason, Next, Progress, SkipReason};
use postrider_core::outcome::{Retried, Unreachable};
use postrider_core::pace::Reason;
use postrider_core::profile::Profile;
use postrider_core::request::{self, Attempt};
use postrider_core::seal::MasterKey;
use postrider_core::webhook::Auth;
use postrider_core::wire::{AttemptFact, DeliveryRecord, EventRecord, RequestTimes};
use postrider_core::{Chance, Event, Outcome, Timestamp, Webhook};

use crate::gate::{Entry, Gate};
use crate::http::{Deadline, Http, Over, Sent, Timely};
use crate::metrics::{Metrics, seconds};
use crate::moments::Moments;
use crate::opened::Opened;
use crate::slots::Slot;
use crate::stopped::Stopped;
use crate::token::Tokens;

/// Why a delivery ends that somebody called off.
const CANCELLED: &str = "cancelled_by_request";
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
    /// Whether it is the only one in its message.
    pub(crate) alone: bool,
    /// The slots of its message.
    pub(crate) slot: Slot,
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
    /// This machine has nothing left to make a connection with.
    Local,
    /// Its webhook or its tenant has what it may have.
    Pace(Reason),
}

impl ParkReason {
    /// Every word of [`Self::as_str`].
    pub(crate) const WORDS: [&str; 8] =
        ["unknown_revision", "local", "full", "rate", "breaker", "retry_after", "slow", "tenant"];

    /// One word from a closed list.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::UnknownRevision { .. } => "unknown_revision",
            Self::Local => "local",
            Self::Pace(why) => why.as_str(),
        }
    }
}

/// What is to become of a delivery. `made` are the requests of this attempt: one, or two if the first went over a
/// connection that the receiver had closed.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    /// The receiver has it.
    Delivered {
        /// The requests of this attempt.
        made: Vec<AttemptFact>,
    },
    /// Another attempt.
    Retry {
        /// The requests of this attempt.
        made: Vec<AttemptFact>,
        /// When the next is due.
        at: Timestamp,
        /// The wait on the ladder.
        wait: Wait,
    },
    /// Given up.
    Dead {
        /// The requests of this attempt; none if it came too late to be made.
        made: Vec<AttemptFact>,
        /// Why.
        reason: DeadReason,
    },
    /// The webhook is paused.
    Held,
    /// The webhook does not receive now.
    Skipped(SkipReason),
    /// It is not wanted any more, or there is no such webhook; why, in one word.
    Cancelled(&'static str),
    /// Not now; no attempt is spent.
    Park(Park),
    /// Not together with others: it comes again at once, alone.
    Apart,
}

/// One request, and what it came to.
struct Exchange {
    at: Timestamp,
    ended: Timestamp,
    sent: Sent,
    times: RequestTimes,
}

impl Exchange {
    fn took(&self) -> Duration {
        Duration::from_millis(self.ended.since_ms(self.at))
    }
}

/// What delivering needs, shared by all deliveries of a worker.
pub(crate) struct Deliverer {
    pub(crate) feed: DirectoryFeed,
    pub(crate) http: Http,
    pub(crate) tokens: Tokens,
    pub(crate) master_key: MasterKey,
    pub(crate) metrics: Metrics,
    pub(crate) unit_ms: u64,
    pub(crate) worker: Arc<str>,
    pub(crate) opened: Opened,
    pub(crate) moments: Moments,
    pub(crate) stopped: Stopped,
    /// When it was last said that this machine has nothing left, milliseconds.
    pub(crate) local_said: AtomicI64,
    pub(crate) gate: Gate,
}

impl Deliverer {
    /// Makes one attempt, or finds out why there is none to make.
    pub(crate) async fn deliver(&self, taken: &Taken) -> Verdict {
        let found = self.webhook_of(taken).await;
        if self.is_cancelled(taken) {
            return Verdict::Cancelled(CANCELLED);
        }
        let webhook = match found {
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
            Admission::Attempt if is_usual(&taken.delivery) && self.stopped.has(&webhook) => {
                Verdict::Skipped(SkipReason::Disabled)
            }
            Admission::Attempt => self.attempt(taken, &webhook).await,
            Admission::Hold => Verdict::Held,
            Admission::Skip(reason) => Verdict::Skipped(reason),
        }
    }

    fn is_cancelled(&self, taken: &Taken) -> bool {
        self.feed.read().is_cancelled(&taken.event.tenant, &taken.event.event_type, &taken.delivery)
    }

    async fn attempt(&self, taken: &Taken, webhook: &Arc<Webhook>) -> Verdict {
        let delivery = &taken.delivery;
        let (known, entry) = {
            let directory = self.feed.read();
            let entry = directory.type_entry(&taken.event.tenant, &taken.event.event_type);
            (directory.profile_of(webhook), entry)
        };
        let profile = known.clone().unwrap_or_else(|| Arc::new(Profile::default_profile()));
        let policy = profile.retry(&webhook.retry);
        if lifecycle::is_too_old(&policy, delivery, now()) {
            let reason = if delivery.test { DeadReason::Test } else { DeadReason::TooOld };
            tracing::warn!(
                delivery.id = delivery.id.as_str(),
                webhook.id = webhook.id.as_str(),
                reason = reason.as_str(),
                "delivery given up before another attempt"
            );
            return Verdict::Dead { made: Vec::new(), reason };
        }
        let left_ms = delivery.born.plus_ms(policy.max_age_ms()).since_ms(now());
        let entered = match self.gate.enter(taken, webhook, left_ms).await {
            Entry::Begin(entered) => entered,
            Entry::Apart => return Verdict::Apart,
            Entry::Park(park) => return Verdict::Park(park),
        };
        // It may have waited.
        if self.is_cancelled(taken) {
            return Verdict::Cancelled(CANCELLED);
        }
        crash::point("worker.begun");
        let begun = self.moments.of(&delivery.id, now());
        self.observe_start(taken, begun);
        let (stale, last) = match known {
            Some(_) => self.send(taken, webhook, &profile, entry.as_deref(), begun).await,
            // Control refuses to remove a catalogue whose profile is spoken. A body of another profile would be worse
            // than a late one.
            None => (None, ended(begun, not_made(webhook, &"its profile is not known").into())),
        };
        crash::point("worker.answered");
        let outcome = match &last.sent {
            Sent::Answered(answer) => {
                let retry_after = answer.retry_after.iter().map(Vec::as_slice);
                Outcome::classify(profile.spec().success, answer.status, retry_after, last.ended)
            }
            Sent::Unreachable(why, _) => Outcome::Unreachable(*why),
            Sent::Stale(_) => Outcome::Unreachable(Unreachable::Reset),
            Sent::Blocked => Outcome::Blocked,
        };
        entered.ended(&outcome, last.took());
        if outcome == Outcome::Unreachable(Unreachable::Local) && stale.is_none() {
            self.metrics.attempted(&outcome, last.ended.since_ms(last.at));
            self.say_local(&outcome);
            return Verdict::Park(Park {
                why: ParkReason::Local,
                rung_secs: local_rung_secs(delivery.parked),
            });
        }
        let retried = profile.spec().retried;
        if outcome == Outcome::Gone
            && retried == Retried::Default
            && is_usual(delivery)
            && self.stopped.stop(webhook)
        {
            tracing::warn!(
                webhook.id = webhook.id.as_str(),
                "the receiver answered 410: nothing more is sent to it"
            );
        }
        let progress = Progress { attempt: delivery.attempt, born: delivery.born, test: delivery.test };
        let chance = Chance::new(rand::random());
        let next = lifecycle::next(&policy, retried, self.unit_ms, progress, &outcome, last.ended, chance);
        let mut made = Vec::with_capacity(1);
        if let Some(stale) = stale {
            let reset = Outcome::Unreachable(Unreachable::Reset);
            tracing::info!(
                delivery.id = delivery.id.as_str(),
                webhook.id = webhook.id.as_str(),
                attempt = delivery.attempt,
                "a connection that was kept from before had ended; sent again at once over a new one"
            );
            made.push(self.fact(taken, webhook, stale, &reset, None));
        }
        self.say(taken, webhook, &outcome, next, last.ended.since_ms(last.at));
        let mut fact = self.fact(taken, webhook, last, &outcome, Some(next));
        if !made.is_empty() {
            // The first of the two said it.
            fact.repeats = 0;
        }
        made.push(fact);
        match next {
            Next::Delivered => Verdict::Delivered { made },
            Next::Retry { at, wait } => Verdict::Retry { made, at, wait },
            Next::Dead(reason) => Verdict::Dead { made, reason },
        }
    }

    /// Makes the request and sends it. A token that it needs is fetched within the same deadline, and if the connection
    /// had been used before and swallows the request, another is sent over a new one, once, within the same deadline:
    /// then that one comes first of the two.
    async fn send(
        &self,
        taken: &Taken,
        webhook: &Webhook,
        profile: &Profile,
        entry: Option<&TypeEntry>,
        begun: Timestamp,
    ) -> (Option<Exchange>, Exchange) {
        let credentials = match self.opened.credentials(webhook, profile, &self.master_key) {
            Ok(credentials) => credentials,
            Err(error) => return (None, ended(begun, not_made(webhook, &error).into())),
        };
        let deadline = Deadline::after(Duration::from_millis(profile.timeout_ms(webhook.timeout_ms)));
        let token = match &credentials.auth {
            Some(Auth::Oauth2(oauth2)) => match self.tokens.token(webhook, oauth2, deadline).await {
                Ok(token) => Some(token),
                Err((class, why)) => return (None, ended(begun, Sent::Unreachable(class, why).into())),
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
        let exchange = async |at: Timestamp, over: Over| {
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
            let sent = match request {
                Ok(request) => {
                    self.http.send(request, webhook, credentials.tls.as_ref(), over, deadline).await
                }
                Err(error) => not_made(webhook, &error).into(),
            };
            ended(at, sent)
        };
        let first = exchange(begun, Over::Any).await;
        let (stale, last) = match first.sent {
            Sent::Stale(_) => {
                let at = self.moments.of(&taken.delivery.id, now());
                (Some(first), exchange(at, Over::New).await)
            }
            Sent::Answered(_) | Sent::Unreachable(..) | Sent::Blocked => (None, first),
        };
        if let (Sent::Answered(answer), Some(token)) = (&last.sent, &token)
            && answer.status == 401
        {
            self.tokens.refused(webhook, token);
        }
        (stale, last)
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

    /// One line for many deliveries: they all meet it.
    fn say_local(&self, outcome: &Outcome) {
        const EVERY_MS: u64 = 10_000;
        let (at, said) = (now(), &self.local_said);
        let last = said.load(Ordering::Relaxed);
        let due = at.since_ms(Timestamp::from_millis(last)) > EVERY_MS;
        if due && said.compare_exchange(last, at.as_millis(), Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            tracing::warn!(hint = outcome.hint(), "deliveries are parked, since no connection can be begun");
        }
    }

    /// One line in the log for an attempt.
    fn say(&self, taken: &Taken, webhook: &Webhook, outcome: &Outcome, next: Next, duration_ms: u64) {
        let delivery = &taken.delivery;
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
    }

    /// A request as a fact, and its metrics. `next` is what follows it; nothing if it was repeated at once.
    fn fact(
        &self,
        taken: &Taken,
        webhook: &Webhook,
        exchange: Exchange,
        outcome: &Outcome,
        next: Option<Next>,
    ) -> AttemptFact {
        let delivery = &taken.delivery;
        let duration_ms = exchange.ended.since_ms(exchange.at);
        self.metrics.attempted(outcome, duration_ms);
        let times = exchange.times;
        let mut remote = None;
        let (response_headers, response_body, error) = match exchange.sent {
            Sent::Answered(answer) => {
                remote = answer.remote;
                let body = (!answer.body.is_empty()).then_some(answer.body);
                let error = (next != Some(Next::Delivered))
                    .then(|| format!("the receiver answered {}", answer.status));
                (answer.headers, body, error)
            }
            Sent::Unreachable(_, error) => (Vec::new(), None, Some(error)),
            Sent::Stale(error) => {
                (Vec::new(), None, Some(format!("{error}, which was kept from before; sent again at once")))
            }
            Sent::Blocked => (Vec::new(), None, Some(outcome.hint().to_owned())),
        };
        let next_at = match next {
            Some(Next::Retry { at, .. }) => Some(at),
            Some(Next::Delivered | Next::Dead(_)) | None => None,
        };
        let mut url = webhook.url.clone();
        url.set_query(None);
        AttemptFact {
            delivery: delivery.id.clone(),
            series: delivery.series,
            n: delivery.attempt,
            webhook: webhook.id.clone(),
            at: exchange.at,
            duration_ms,
            url: String::from(url).into(),
            class: outcome.class().into(),
            status: outcome.status(),
            error,
            response_body,
            response_headers,
            next_at,
            worker: self.worker.clone(),
            repeats: taken.repeats,
            times,
            remote,
        }
    }
}

/// Whether a delivery is neither a test nor asked for: only those are held up by what their webhook has come to.
fn is_usual(delivery: &DeliveryRecord) -> bool {
    !delivery.test && !delivery.asked
}

/// An exchange that has just ended.
fn ended(at: Timestamp, timely: Timely) -> Exchange {
    Exchange { at, ended: now(), sent: timely.sent, times: timely.times }
}

/// How long a delivery waits for this machine to have something left: longer the more often it did.
fn local_rung_secs(parked: u32) -> u32 {
    match parked {
        0 => 1,
        1..5 => 5,
        _ => 30,
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
        let just_now = Timestamp::from_millis(9_999_999);
        let Verdict::Park(park) = unknown(false, false, Some(just_now), at) else {
            panic!("it is given up at once");
        };
        assert_eq!(park.why, ParkReason::UnknownRevision { since: just_now });
    }
}
