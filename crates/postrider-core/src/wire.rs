//! What crosses the broker: messages and configuration records, each with its `schema`.
//!
//! Unknown members are ignored, so that a newer release may add some; an unknown `schema` is an error of its own, so
//! that such a message is parked and reported and never taken for damage. Golden messages in the tests pin every
//! encoding.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::books::End;
use crate::catalogue::Catalogue;
use crate::event::{Event, EventType, Json};
use crate::id::{DeliveryId, Epoch, EventId, TenantId, WebhookId};
use crate::retry::{BadRetry, RetryPolicy, RetrySpec};
use crate::subscription::Subscription;
use crate::time::Timestamp;
use crate::webhook::{KeyPlace, SealedApiKey, SealedCredentials, Webhook, WebhookState};

/// The schema that this release writes and reads.
pub const SCHEMA: u32 = 1;

/// The most deliveries in one message.
pub const MAX_BATCH: usize = 16;

/// Why bytes are not a message of ours.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Written by a newer release. To be parked and said, never acked away.
    #[error("schema {0} is newer than this release, which reads schema {SCHEMA}; upgrade this role")]
    UnknownSchema(u32),
    /// Not one of our messages at all.
    #[error("not a message of ours: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// How a message of [`SCHEMA`] begins as [`encode`] writes it.
const PREFIX: &[u8] = b"{\"schema\":1,";
const _: () = assert!(SCHEMA == 1, "the prefix says another");

/// Reads a message: the schema first, then the rest. What begins as we write it is read once, everything else twice.
///
/// # Errors
/// [`WireError`]: of a newer schema, or malformed.
pub fn decode<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, WireError> {
    #[derive(Deserialize)]
    struct Versioned {
        schema: u32,
    }
    if bytes.starts_with(PREFIX) {
        return Ok(serde_json::from_slice(bytes)?);
    }
    match serde_json::from_slice::<Versioned>(bytes)?.schema {
        SCHEMA => Ok(serde_json::from_slice(bytes)?),
        other => Err(WireError::UnknownSchema(other)),
    }
}

/// Writes a message. Our own types always serialise.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    serde_json::to_vec(message).unwrap_or_default()
}

/// An event as it travels inside deliveries, facts and dead letters.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EventRecord {
    /// Whose event.
    pub tenant: TenantId,
    /// Its id.
    pub id: EventId,
    /// Its type.
    #[serde(rename = "type")]
    pub event_type: EventType,
    /// When it happened, as upstream wrote it.
    #[serde(deserialize_with = "crate::shared::text")]
    pub time: Arc<str>,
    /// Any JSON, byte for byte.
    pub context: Json,
    /// Any JSON, byte for byte.
    pub data: Json,
    /// The subject.
    #[serde(default, deserialize_with = "crate::shared::optional", skip_serializing_if = "Option::is_none")]
    pub key: Option<Arc<str>>,
    /// Ties events of one action together.
    #[serde(default, deserialize_with = "crate::shared::optional", skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<Arc<str>>,
    /// W3C trace context.
    #[serde(default, deserialize_with = "crate::shared::optional", skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<Arc<str>>,
    /// When the router first saw it, milliseconds.
    pub accepted_at: Timestamp,
}

impl From<Event> for EventRecord {
    fn from(event: Event) -> Self {
        let Event { tenant, id, event_type, event_time, current_context, data, .. } = event;
        Self {
            tenant,
            id,
            event_type,
            time: event_time,
            context: current_context,
            data,
            key: event.key,
            correlation_id: event.correlation_id,
            traceparent: event.traceparent,
            accepted_at: event.accepted_at,
        }
    }
}

impl From<EventRecord> for Event {
    fn from(record: EventRecord) -> Self {
        Self {
            tenant: record.tenant,
            id: record.id,
            event_type: record.event_type,
            event_time: record.time,
            current_context: record.context,
            data: record.data,
            key: record.key,
            correlation_id: record.correlation_id,
            traceparent: record.traceparent,
            accepted_at: record.accepted_at,
        }
    }
}

/// Work for a worker: deliveries of one shard, each event's body once.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeliveryMessage {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Events and where they go.
    pub work: Vec<Work>,
}

/// One event and the deliveries of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Work {
    /// The event.
    pub event: Arc<EventRecord>,
    /// Its deliveries.
    pub to: Vec<DeliveryRecord>,
}

impl DeliveryMessage {
    /// A message of one delivery.
    pub fn single(event: Arc<EventRecord>, delivery: DeliveryRecord) -> Self {
        Self { schema: SCHEMA, work: vec![Work { event, to: vec![delivery] }] }
    }

    /// How many deliveries it holds.
    pub fn len(&self) -> usize {
        self.work.iter().map(|work| work.to.len()).sum()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One delivery on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryRecord {
    /// Its id: the same over everything that happens to it.
    pub id: DeliveryId,
    /// To which webhook.
    pub webhook: WebhookId,
    /// The configuration that routed it; a worker that knows an older one waits.
    pub revision: u64,
    /// The epoch of that revision.
    pub epoch: Epoch,
    /// Which run of attempts: 1, then one more for each redelivery.
    pub series: u32,
    /// The attempt to make next; the first is 1.
    pub attempt: u32,
    /// When the series began, or was sent on after its webhook had been paused, milliseconds: its age counts from here.
    pub born: Timestamp,
    /// When this attempt is due, milliseconds; missing for a first attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Timestamp>,
    /// How often the message killed, or was held by, a worker that died.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub crashes: u32,
    /// Since when it waits for a configuration that this fleet does not know, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_since: Option<Timestamp>,
    /// How often it was parked since its last attempt.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub parked: u32,
    /// Somebody asked for this series: it is attempted also when the webhook is disabled, and says nothing of the webhook's
    /// health.
    #[serde(default, skip_serializing_if = "is_false")]
    pub asked: bool,
    /// Somebody tries the webhook: one attempt, whatever its state.
    #[serde(default, skip_serializing_if = "is_false")]
    pub test: bool,
}

fn first() -> u32 {
    1
}

fn is_first(n: &u32) -> bool {
    *n == 1
}

fn is_false(b: &bool) -> bool {
    !b
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

fn is_none(n: &u64) -> bool {
    *n == 0
}

/// Facts on their way to the books.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JournalMessage {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Who writes: a name that is new at each start of a role.
    pub writer: String,
    /// How many facts this writer wrote before these: the books see gaps.
    pub first: u64,
    /// How many duplicates of events this writer has met so far. A duplicate makes no fact, only this number.
    #[serde(default, skip_serializing_if = "is_none")]
    pub duplicates: u64,
    /// The facts.
    pub facts: Vec<Fact>,
}

/// One keyed line of the books. A fact already known changes nothing.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// What became of an accepted message. Written by the router.
    Event(EventFact),
    /// One request. Written by the worker.
    Attempt(AttemptFact),
    /// The end of a series. Written by the worker.
    Done(DoneFact),
    /// The webhook is paused: the series is pending and no message holds it. Written by the worker.
    Held(HeldFact),
}

/// What became of an accepted message.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EventFact {
    /// Whose.
    pub tenant: TenantId,
    /// The event's id, or one made from the bytes of a message that is no event.
    pub event_id: EventId,
    /// When the router saw it, milliseconds.
    pub at: Timestamp,
    /// What became of it.
    pub fate: EventFate,
    /// The event, unless it was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Arc<EventRecord>>,
    /// What was noticed about it, in words of a closed list: [`crate::directory::Mark`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<String>,
}

/// What became of an accepted message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventFate {
    /// These deliveries are owed, each in series 1.
    Routed(Vec<Owed>),
    /// No webhook wants it.
    Unmatched,
    /// It is no event.
    Invalid {
        /// From the closed list of [`crate::intake::RefusalReason`].
        reason: String,
        /// What exactly.
        detail: String,
    },
}

/// A delivery that is owed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owed {
    /// The delivery.
    pub delivery: DeliveryId,
    /// To which webhook.
    pub webhook: WebhookId,
}

/// One request that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptFact {
    /// Of which delivery.
    pub delivery: DeliveryId,
    /// Of which series.
    pub series: u32,
    /// Which attempt of the series; the first is 1.
    pub n: u32,
    /// To which webhook.
    pub webhook: WebhookId,
    /// When it started, milliseconds.
    pub at: Timestamp,
    /// How long it took, milliseconds.
    pub duration_ms: u64,
    /// The URL, without its query.
    #[serde(deserialize_with = "crate::shared::text")]
    pub url: Arc<str>,
    /// [`crate::Outcome::class`].
    #[serde(deserialize_with = "crate::shared::class")]
    pub class: Cow<'static, str>,
    /// The HTTP status, if there was an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What went wrong, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The beginning of the answer's body, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_body: Option<String>,
    /// Some of the answer's headers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub response_headers: Vec<(String, String)>,
    /// When the next attempt is due, milliseconds, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_at: Option<Timestamp>,
    /// Which worker.
    #[serde(deserialize_with = "crate::shared::text")]
    pub worker: Arc<str>,
    /// How often the message was handed out before without being settled: so many requests may have been made of which
    /// nobody could write a fact.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub repeats: u32,
    /// Where the time went.
    #[serde(default, skip_serializing_if = "RequestTimes::is_unknown")]
    pub times: RequestTimes,
    /// The address that answered, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<IpAddr>,
}

/// Where the time of a request went. What did not happen, or nobody knows, is absent: over a connection that was kept from
/// before there is neither a name to resolve nor a connection to make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestTimes {
    /// How long its name took to resolve, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_ms: Option<u32>,
    /// How long the connection took to make once there was an address, with TLS, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_ms: Option<u32>,
    /// From the beginning of the attempt until the head of the answer was there, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_byte_ms: Option<u32>,
}

impl RequestTimes {
    /// Whether nothing was measured.
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

/// The end of a series.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoneFact {
    /// Of which delivery.
    pub delivery: DeliveryId,
    /// Of which series.
    pub series: u32,
    /// To which webhook.
    pub webhook: WebhookId,
    /// How it ended.
    pub end: End,
    /// Why, in one word of a closed list; empty when delivered.
    pub reason: String,
    /// How many attempts it took.
    pub attempts: u32,
    /// When, milliseconds.
    pub at: Timestamp,
    /// Like [`AttemptFact::repeats`], where it ended without another attempt.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub repeats: u32,
}

/// A series that waits for its webhook to be resumed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldFact {
    /// Of which delivery.
    pub delivery: DeliveryId,
    /// Of which series.
    pub series: u32,
    /// To which webhook.
    pub webhook: WebhookId,
    /// The attempt that it would make next.
    pub attempt: u32,
    /// When, milliseconds.
    pub at: Timestamp,
    /// Like [`AttemptFact::repeats`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub repeats: u32,
}

/// A delivery that was given up, in `postrider.dead`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeadMessage {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The event.
    pub event: Arc<EventRecord>,
    /// The delivery as it was at its last attempt.
    pub delivery: DeliveryRecord,
    /// Why: `exhausted`, `too_old` or `gone`.
    pub reason: String,
    /// [`crate::Outcome::class`] of the last attempt.
    pub class: String,
    /// When, milliseconds.
    pub at: Timestamp,
}

/// One record of the configuration stream. It is complete in itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConfigRecord {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Which store wrote it; empty for the topology, which no store owns.
    pub epoch: Epoch,
    /// Which change it is; newer is larger within an epoch.
    pub revision: u64,
    /// What it describes.
    pub kind: ConfigKind,
    /// Of which object; empty for the marks of a snapshot.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The object, or nothing when it was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Box<RawValue>>,
}

/// What a configuration record describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfigKind {
    /// A [`TenantRecord`].
    Tenant,
    /// A [`CatalogueRecord`]; its id is tenant and product with a slash between.
    Catalogue,
    /// A [`WebhookRecord`].
    Webhook,
    /// A [`CancellationRecord`].
    Cancellation,
    /// A [`TopologyRecord`]. Its revision is the time at which it was applied, milliseconds.
    Topology,
    /// What follows is a whole snapshot of this revision.
    SnapshotBegin,
    /// The snapshot is complete.
    SnapshotEnd,
    /// A kind of a newer release: skipped.
    #[serde(other)]
    Other,
}

impl ConfigRecord {
    /// A record with a body.
    pub fn of<T: Serialize>(epoch: &Epoch, revision: u64, kind: ConfigKind, id: &str, body: &T) -> Self {
        let body = serde_json::value::to_raw_value(body).ok();
        Self { schema: SCHEMA, epoch: epoch.clone(), revision, kind, id: id.to_owned(), body }
    }

    /// A record without one: a deletion, or a mark of a snapshot.
    pub fn bare(epoch: &Epoch, revision: u64, kind: ConfigKind, id: &str) -> Self {
        Self { schema: SCHEMA, epoch: epoch.clone(), revision, kind, id: id.to_owned(), body: None }
    }
}

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantRecord {
    /// Its id, also the routing key.
    pub id: TenantId,
    /// What the data plane does with its events.
    #[serde(default)]
    pub settings: TenantSettings,
}

/// What the data plane does with a tenant's events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantSettings {
    /// Events of types that no catalogue of the tenant has.
    #[serde(default)]
    pub unknown_types: UnknownTypes,
    /// Events whose data does not fit their type's schema.
    #[serde(default)]
    pub schemas: SchemaMode,
    /// Most requests in flight to all webhooks of the tenant, over the whole fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<u32>,
    /// Most requests a second to all webhooks of the tenant, over the whole fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_per_second: Option<u32>,
}

/// What becomes of events of types that no catalogue of the tenant has. A tenant without a catalogue takes all types.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownTypes {
    /// They are routed, and marked.
    #[default]
    Accept,
    /// They are refused.
    Refuse,
}

/// What becomes of events whose data does not fit their type's schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SchemaMode {
    /// Nobody looks.
    #[default]
    Off,
    /// They are routed, marked and counted.
    Warn,
    /// They are refused.
    Refuse,
}

/// A catalogue of a tenant.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CatalogueRecord {
    /// Whose.
    pub tenant: TenantId,
    /// The catalogue.
    pub catalogue: Catalogue,
}

/// What somebody called off: workers that meet it write it down as cancelled in place of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancellationRecord {
    /// Whose.
    pub tenant: TenantId,
    /// When, milliseconds.
    pub at: Timestamp,
    /// What.
    pub what: Cancelled,
}

/// What is called off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cancelled {
    /// One series of one delivery.
    Series {
        /// The delivery.
        delivery: DeliveryId,
        /// Which run of attempts: one that begins later is not meant.
        series: u32,
    },
    /// Every series that began before `born_before` and fits the rest.
    Matching {
        /// To this webhook.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        webhook: Option<WebhookId>,
        /// Of events of this type.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        event_type: Option<EventType>,
        /// Began then or later, milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        born_since: Option<Timestamp>,
        /// Began earlier, milliseconds.
        born_before: Timestamp,
    },
}

/// A signing secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretRecord {
    /// Sealed.
    pub value: String,
    /// From when on it signs nothing more, milliseconds; missing for the current one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl SecretRecord {
    /// The current secret.
    pub fn current(sealed: String) -> Self {
        Self { value: sealed, until: None }
    }
}

/// How the topology was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopologyRecord {
    /// Deliveries are spread over this many shards.
    pub shards: u16,
    /// The most shards there ever were: workers consume all of them.
    pub most_shards: u16,
}

/// A webhook, complete.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WebhookRecord {
    /// Its id.
    pub id: WebhookId,
    /// Whose.
    pub tenant: TenantId,
    /// What people call it.
    pub name: String,
    /// Where requests go.
    pub url: String,
    /// The profile's name.
    pub profile: String,
    /// Which version of the profile's payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_version: Option<String>,
    /// Takes every event type.
    #[serde(default)]
    pub all: bool,
    /// Takes these.
    #[serde(default)]
    pub event_types: BTreeSet<EventType>,
    /// Takes the types of these groups.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub groups: BTreeSet<String>,
    /// Takes the types of these categories.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub categories: BTreeSet<String>,
    /// CEL that must hold as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Whether requests are not signed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unsigned: bool,
    /// Signing secrets, the current one first.
    pub secrets: Vec<SecretRecord>,
    /// Which secret the current one is: 1, then one more for each rotation.
    #[serde(default = "first", skip_serializing_if = "is_first")]
    pub secret_version: u32,
    /// The API key, value sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<ApiKeyRecord>,
    /// Sealed [`crate::webhook::Auth`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<String>,
    /// Sealed [`crate::webhook::ClientTls`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<String>,
    /// Sealed JSON object of static headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<String>,
    /// Nothing is sent before this, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_from: Option<Timestamp>,
    /// Nothing is sent from this on, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// The retry policy, as far as it is not the profile's.
    #[serde(default)]
    pub retry: RetryRecord,
    /// Total deadline, milliseconds, if it is not the profile's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// After this many deliveries given up in a row control disables it, if that is not the profile's; 0 for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disable_after_failures: Option<u32>,
    /// After failing for so long without a success control disables it, milliseconds, if that is not the profile's; 0 for
    /// never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disable_after_ms: Option<u64>,
    /// Most requests in flight.
    pub max_in_flight: u32,
    /// Most requests a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_per_second: Option<u32>,
    /// `active`, `paused` or `disabled`.
    pub state: String,
}

/// An API key whose value is sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKeyRecord {
    /// `header` or `query`.
    #[serde(rename = "in")]
    pub place: String,
    /// The header's or parameter's name.
    pub name: String,
    /// The sealed value.
    pub value: String,
}

/// A retry policy; what is missing has its default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RetryRecord {
    /// The first interval, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_ms: Option<u64>,
    /// Each interval is this many times the one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor: Option<f64>,
    /// No interval is longer, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_interval_ms: Option<u64>,
    /// The most requests for one series.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// No attempt starts later than this after the series began, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_ms: Option<u64>,
    /// Spread around each interval, from 0 to 0.9.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<f64>,
    /// The intervals themselves, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_ms: Option<Vec<u64>>,
}

impl RetryRecord {
    /// The policy, with defaults for what is missing.
    ///
    /// # Errors
    /// [`BadRetry`] when a member is out of range.
    pub fn policy(&self) -> Result<RetryPolicy, BadRetry> {
        RetryPolicy::new(self.over(RetrySpec::default()))
    }

    /// `default`, with what this record says in its place.
    pub fn over(&self, default: RetrySpec) -> RetrySpec {
        RetrySpec {
            initial_ms: self.initial_ms.unwrap_or(default.initial_ms),
            factor: self.factor.unwrap_or(default.factor),
            max_interval_ms: self.max_interval_ms.unwrap_or(default.max_interval_ms),
            max_attempts: self.max_attempts.unwrap_or(default.max_attempts),
            max_age_ms: self.max_age_ms.unwrap_or(default.max_age_ms),
            jitter: self.jitter.unwrap_or(default.jitter),
            schedule_ms: self.schedule_ms.clone().or(default.schedule_ms),
        }
    }
}

/// Why a webhook's record cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadWebhook {
    /// The URL.
    #[error("url: {0}")]
    Url(#[from] url::ParseError),
    /// The retry policy.
    #[error(transparent)]
    Retry(#[from] BadRetry),
    /// A word that is not in its list.
    #[error("{member} is {value:?}, which this release does not know")]
    Word {
        /// Which member.
        member: &'static str,
        /// What it says.
        value: String,
    },
}

impl WebhookRecord {
    /// An active webhook of the default profile that takes nothing yet.
    pub fn new(id: WebhookId, tenant: TenantId, url: impl Into<String>) -> Self {
        Self {
            name: id.to_string(),
            id,
            tenant,
            url: url.into(),
            profile: crate::profile::BUILT_IN[0].to_owned(),
            payload_version: None,
            all: false,
            event_types: BTreeSet::new(),
            groups: BTreeSet::new(),
            categories: BTreeSet::new(),
            filter: None,
            unsigned: false,
            secrets: Vec::new(),
            secret_version: 1,
            api_key: None,
            auth: None,
            tls: None,
            headers: None,
            active_from: None,
            expires_at: None,
            retry: RetryRecord::default(),
            timeout_ms: None,
            disable_after_failures: None,
            disable_after_ms: None,
            max_in_flight: 10,
            rate_per_second: None,
            state: WebhookState::Active.as_str().to_owned(),
        }
    }

    /// The webhook that this record describes.
    ///
    /// # Errors
    /// [`BadWebhook`] when it uses what this release does not know.
    pub fn webhook(self, revision: u64) -> Result<Webhook, BadWebhook> {
        let word = |member, value: &str| BadWebhook::Word { member, value: value.chars().take(64).collect() };
        let api_key = match self.api_key {
            Some(key) => {
                let place = match key.place.as_str() {
                    "header" => KeyPlace::Header,
                    "query" => KeyPlace::Query,
                    other => return Err(word("api_key.in", other)),
                };
                Some(SealedApiKey { place, name: key.name, value: key.value })
            }
            None => None,
        };
        Ok(Webhook {
            url: self.url.parse()?,
            profile: self.profile,
            payload_version: self.payload_version,
            signed: !self.unsigned,
            state: WebhookState::parse(&self.state).ok_or_else(|| word("state", &self.state))?,
            retry: self.retry,
            subscription: Subscription {
                all: self.all,
                event_types: self.event_types,
                groups: self.groups,
                categories: self.categories,
                filter: self.filter,
            },
            sealed: SealedCredentials {
                secrets: self.secrets,
                version: self.secret_version,
                api_key,
                auth: self.auth,
                tls: self.tls,
                headers: self.headers,
            },
            active_from: self.active_from,
            expires_at: self.expires_at,
            id: self.id,
            tenant: self.tenant,
            name: self.name,
            timeout_ms: self.timeout_ms,
            max_in_flight: self.max_in_flight,
            rate_per_second: self.rate_per_second,
            revision,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden(name: &str) -> String {
        let path = format!("{}/tests/golden/0.1/{name}.json", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}")).trim_end().to_owned()
    }

    /// A golden message of a release decodes, and this release still writes the very same bytes.
    fn check<T: Serialize + for<'de> Deserialize<'de>>(name: &str) {
        let text = golden(name);
        let message: T = decode(text.as_bytes()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(String::from_utf8(encode(&message)).unwrap(), text, "{name}");
    }

    #[test]
    fn golden_messages() {
        check::<DeliveryMessage>("delivery");
        check::<DeliveryMessage>("delivery_batch");
        check::<JournalMessage>("journal_router");
        check::<JournalMessage>("journal_worker");
        check::<DeadMessage>("dead");
        check::<ConfigRecord>("config_webhook");
        check::<ConfigRecord>("config_tenant");
        check::<ConfigRecord>("config_topology");
        check::<ConfigRecord>("config_deleted");
    }

    #[test]
    fn a_newer_schema_is_told_from_damage() {
        assert!(matches!(
            decode::<DeliveryMessage>(br#"{"schema":2,"anything":[]}"#),
            Err(WireError::UnknownSchema(2))
        ));
        assert!(matches!(decode::<DeliveryMessage>(b"{}"), Err(WireError::Malformed(_))));
        assert!(matches!(decode::<DeliveryMessage>(br#"{"schema":1}"#), Err(WireError::Malformed(_))));
        let newer = br#"{"schema":1,"epoch":"e","revision":4,"kind":"moon","id":"m","phase":"full"}"#;
        assert_eq!(decode::<ConfigRecord>(newer).unwrap().kind, ConfigKind::Other);
    }

    #[test]
    fn the_schema_is_found_wherever_it_stands() {
        let begun = golden("journal_worker");
        assert!(begun.as_bytes().starts_with(PREFIX), "{begun}");
        let (inner, schema) = (begun.trim_start_matches("{\"schema\":1,"), "\"schema\" : 1 }");
        let ended = format!("{{ {},{schema}", inner.trim_end_matches('}'));
        let twice = format!("{},{schema}", begun.trim_end_matches('}'));
        let message: JournalMessage = decode(ended.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(encode(&message)).unwrap(), begun);
        assert!(matches!(decode::<JournalMessage>(twice.as_bytes()), Err(WireError::Malformed(_))));
    }
}
