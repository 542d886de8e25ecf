//! The configuration as a role knows it, built record by record from the config stream (DESIGN §5.2), and what it makes
//! of events.
//!
//! Routing never looks at webhooks that do not select an event's type: `takers` knows them by what their subscriptions
//! name, `vocabulary` knows what the names mean, `judge` puts both together.

mod cancellations;
mod judge;
mod takers;
mod vocabulary;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

pub use cancellations::MAX_CANCELLATIONS;
pub use judge::{Explanation, FilterFound, Routed, TypeFound};

use self::cancellations::Cancellations;
use self::takers::Takers;
use self::vocabulary::{Compiled, Vocabulary};
use crate::catalogue::TypeEntry;
use crate::event::EventType;
use crate::expression::Expression;
use crate::id::{DeliveryId, Epoch, TenantId, WebhookId};
use crate::intake::{Refusal, RefusalReason};
use crate::profile::{BUILT_IN, DEFAULT_TIMEOUT_MS, Profile};
use crate::webhook::Webhook;
use crate::wire::{
    CancellationRecord, CatalogueRecord, ConfigKind, ConfigRecord, DeliveryRecord, TenantRecord,
    TenantSettings, TopologyRecord, WebhookRecord,
};

/// The most bytes that one event, or all events of one action, may become by fan-out: webhooks × size.
pub const MAX_FAN_OUT_BYTES: usize = 64 * 1024 * 1024;

/// The most webhooks that one event, or all events of one action, may go to: what is owed must fit into one message of
/// the journal.
pub const MAX_FAN_OUT: usize = 100_000;

/// The most steps that judging the filters of webhooks on one event, or on all events of one action, may take: less than
/// a quarter of a second of work. Equal filters are judged once.
pub const MAX_FILTER_STEPS: u32 = 10_000_000;

/// What became of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It changed the directory.
    Changed,
    /// It is older than what is known, of another epoch, or a mark.
    Unchanged,
    /// It cannot be read by this release; what was known of the object stays.
    Unreadable(String),
}

/// What was noticed about an event that was routed all the same: a closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mark {
    /// No catalogue of the tenant has its type.
    UnknownType,
    /// Its data does not fit its type's schema.
    Schema,
}

/// Every mark, for metrics that are created at start.
pub const MARKS: [Mark; 2] = [Mark::UnknownType, Mark::Schema];

impl Mark {
    /// One word from a closed list.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownType => "unknown_type",
            Self::Schema => "schema",
        }
    }
}

/// One delivery that routing decided on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The delivery's id.
    pub delivery: DeliveryId,
    /// To which webhook.
    pub webhook: WebhookId,
    /// The webhook's revision.
    pub revision: u64,
    /// Which shard carries it.
    pub shard: u16,
}

/// What is known of a webhook.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// It exists.
    Known(Arc<Webhook>),
    /// It existed and was deleted.
    Deleted,
    /// Nothing is known of it.
    Unknown,
}

/// Tenants, catalogues, webhooks, cancellations and topology.
///
/// Readers keep the newer revision of each object. A snapshot, read from its beginning to its end, makes the directory
/// complete: what it does not hold, and is not newer, is dropped. A snapshot of another epoch replaces everything, at its
/// end and at once: until then the directory stays what it was.
#[derive(Debug)]
pub struct Directory {
    epoch: Option<Epoch>,
    revision: u64,
    complete: bool,
    snapshot: Option<Snapshot>,
    /// Another epoch, until its first snapshot is whole.
    next: Option<Box<Directory>>,
    /// Objects that this release cannot read, and why.
    unreadable: BTreeMap<String, String>,
    tenants: HashMap<TenantId, Versioned<TenantSettings>>,
    /// By tenant and product.
    catalogues: HashMap<TenantId, BTreeMap<String, Versioned<Compiled>>>,
    /// What the catalogues of those tenants that have some come to.
    vocabularies: HashMap<TenantId, Vocabulary>,
    /// The catalogue of Postrider's own events.
    own: Compiled,
    /// What the others know.
    own_vocabulary: Vocabulary,
    built_in: HashMap<&'static str, Arc<Profile>>,
    webhooks: HashMap<WebhookId, Versioned<Subscriber>>,
    takers: HashMap<TenantId, Takers>,
    /// Filters, each once however many webhooks have it.
    filters: HashMap<Arc<str>, Arc<Expression>>,
    cancellations: Cancellations,
    topology: Versioned<TopologyRecord>,
}

/// An object at a revision; `None` when it was deleted.
#[derive(Debug)]
struct Versioned<T> {
    revision: u64,
    value: Option<T>,
}

/// A webhook and its filter.
#[derive(Debug)]
struct Subscriber {
    webhook: Arc<Webhook>,
    filter: Option<Arc<Expression>>,
}

#[derive(Debug, Default)]
struct Snapshot {
    revision: u64,
    tenants: HashSet<TenantId>,
    catalogues: HashSet<(TenantId, String)>,
    webhooks: HashSet<WebhookId>,
    cancellations: HashSet<String>,
    unreadable: BTreeMap<String, String>,
}

impl Default for Directory {
    fn default() -> Self {
        Self::new()
    }
}

impl Directory {
    /// Knows nothing yet.
    pub fn new() -> Self {
        let own = Compiled::own();
        Self {
            epoch: None,
            revision: 0,
            complete: false,
            snapshot: None,
            next: None,
            unreadable: BTreeMap::new(),
            tenants: HashMap::new(),
            catalogues: HashMap::new(),
            vocabularies: HashMap::new(),
            own_vocabulary: Vocabulary::of([&own].into_iter()),
            own,
            built_in: BUILT_IN
                .into_iter()
                .filter_map(|name| Some((name, Arc::new(Profile::built_in(name)?))))
                .collect(),
            webhooks: HashMap::new(),
            takers: HashMap::new(),
            filters: HashMap::new(),
            cancellations: Cancellations::default(),
            topology: Versioned { revision: 0, value: None },
        }
    }

    /// Whether a whole snapshot has been read.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// The store that wrote what is known.
    pub fn epoch(&self) -> Option<&Epoch> {
        self.epoch.as_ref()
    }

    /// The newest revision that was read.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// What this release cannot read of the configuration, if there is anything: routing without it could miss webhooks.
    pub fn unreadable(&self) -> Option<&str> {
        self.unreadable.values().next().map(String::as_str)
    }

    /// Notes a record that cannot be read at all, until a whole snapshot follows without it.
    pub fn note_unreadable(&mut self, why: &str) {
        self.forget_or_note("record".to_owned(), Some(why));
        // It may belong to the epoch that is about to replace this one.
        if let Some(next) = &mut self.next {
            next.note_unreadable(why);
        }
    }

    /// Whether a record of this epoch may still come, so that waiting for its revision makes sense.
    pub fn expects(&self, epoch: &Epoch) -> bool {
        self.epoch.as_ref() == Some(epoch)
            || self.next.as_ref().is_some_and(|next| next.epoch.as_ref() == Some(epoch))
    }

    /// The longest total deadline of a webhook, milliseconds.
    pub fn longest_timeout_ms(&self) -> u64 {
        let webhooks = self.webhooks.values().filter_map(|webhook| webhook.value.as_ref());
        let timeouts = webhooks.map(|Subscriber { webhook, .. }| match self.profile(webhook) {
            Some(profile) => profile.timeout_ms(webhook.timeout_ms),
            None => webhook.timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS),
        });
        timeouts.max().unwrap_or(0)
    }

    /// The profile that a webhook speaks; `None` if the catalogue that it belongs to is not there.
    pub fn profile_of(&self, webhook: &Webhook) -> Option<Arc<Profile>> {
        self.profile(webhook).cloned()
    }

    /// The longest that the first retry of a webhook's delivery may come after its attempt, milliseconds.
    pub fn first_retry_ms(&self, webhook: &Webhook) -> u64 {
        let policy = match self.profile(webhook) {
            Some(profile) => profile.retry(&webhook.retry),
            None => webhook.retry.policy().unwrap_or_default(),
        };
        policy.first_retry_ms()
    }

    fn profile(&self, webhook: &Webhook) -> Option<&Arc<Profile>> {
        let of_catalogue = || self.vocabularies.get(&webhook.tenant)?.profile(&webhook.profile);
        self.built_in.get(webhook.profile.as_str()).or_else(of_catalogue)
    }

    /// What the tenant's catalogues say of an event type, by its name or an alias. Postrider's own are known to all.
    pub fn type_entry(&self, tenant: &TenantId, event_type: &EventType) -> Option<Arc<TypeEntry>> {
        self.vocabulary(tenant).known(event_type).map(|known| known.entry.clone())
    }

    /// What the catalogues of a tenant come to.
    fn vocabulary(&self, tenant: &TenantId) -> &Vocabulary {
        self.vocabularies.get(tenant).unwrap_or(&self.own_vocabulary)
    }

    /// Whether the tenant has a catalogue, so that there are types which it does not have.
    fn has_catalogue(&self, tenant: &TenantId) -> bool {
        self.vocabularies.contains_key(tenant)
    }

    /// What a tenant decided, if there is such a tenant.
    pub fn tenant_settings(&self, tenant: &TenantId) -> Option<&TenantSettings> {
        self.tenants.get(tenant).and_then(|tenant| tenant.value.as_ref())
    }

    fn settings(&self, tenant: &TenantId) -> Result<&TenantSettings, Refusal> {
        self.tenant_settings(tenant).ok_or_else(|| {
            let detail =
                format!("there is no tenant {:?}; create it, or correct the routing key", tenant.as_str());
            Refusal::new(RefusalReason::UnknownTenant, detail)
        })
    }

    /// How the topology was applied, once that is known.
    pub fn topology(&self) -> Option<TopologyRecord> {
        self.topology.value
    }

    /// How many webhooks there are.
    pub fn webhook_count(&self) -> usize {
        self.webhooks.values().filter(|webhook| webhook.value.is_some()).count()
    }

    /// Whether there is such a tenant.
    pub fn has_tenant(&self, tenant: &TenantId) -> bool {
        self.tenants.get(tenant).is_some_and(|tenant| tenant.value.is_some())
    }

    /// What is known of a webhook.
    pub fn webhook(&self, id: &WebhookId) -> Lookup {
        match self.webhooks.get(id).map(|webhook| &webhook.value) {
            Some(Some(known)) => Lookup::Known(known.webhook.clone()),
            Some(None) => Lookup::Deleted,
            None => Lookup::Unknown,
        }
    }

    /// Whether somebody called this delivery off.
    pub fn is_cancelled(&self, tenant: &TenantId, event_type: &EventType, delivery: &DeliveryRecord) -> bool {
        self.cancellations.has(tenant, event_type, delivery)
    }

    /// Takes the next record of the stream.
    pub fn apply(&mut self, record: &ConfigRecord) -> Applied {
        if record.kind == ConfigKind::Topology {
            return self.apply_topology(record);
        }
        if record.kind == ConfigKind::SnapshotBegin {
            return self.begin_snapshot(record);
        }
        if let Some(next) = self.next.as_mut().filter(|next| next.epoch.as_ref() == Some(&record.epoch)) {
            let applied = next.apply(record);
            if next.complete
                && let Some(mut next) = self.next.take()
            {
                std::mem::swap(&mut next.topology, &mut self.topology);
                *self = *next;
                return Applied::Changed;
            }
            return applied;
        }
        // Before the first snapshot begins, and after one of another epoch, records of an epoch we are not in are
        // leftovers: the snapshot holds everything that matters of them.
        if self.epoch.as_ref() != Some(&record.epoch) {
            return Applied::Unchanged;
        }
        let applied = match record.kind {
            ConfigKind::Tenant => self.apply_tenant(record),
            ConfigKind::Catalogue => self.apply_catalogue(record),
            ConfigKind::Webhook => self.apply_webhook(record),
            ConfigKind::SnapshotEnd => self.end_snapshot(record),
            ConfigKind::Cancellation => self.apply_cancellation(record),
            ConfigKind::Topology | ConfigKind::SnapshotBegin | ConfigKind::Other => Applied::Unchanged,
        };
        if self.snapshot.is_none() {
            self.revision = self.revision.max(record.revision);
        }
        if matches!(record.kind, ConfigKind::Tenant | ConfigKind::Catalogue | ConfigKind::Webhook) {
            let why = match &applied {
                Applied::Unreadable(why) => Some(why.as_str()),
                Applied::Changed => None,
                // Older than what is known: says nothing about what cannot be read.
                Applied::Unchanged => return applied,
            };
            self.forget_or_note(format!("{:?}/{}", record.kind, record.id), why);
        }
        applied
    }

    fn apply_topology(&mut self, record: &ConfigRecord) -> Applied {
        if record.revision < self.topology.revision {
            return Applied::Unchanged;
        }
        match parse::<TopologyRecord>(record) {
            Ok(Some(topology)) if self.topology.value == Some(topology) => Applied::Unchanged,
            Ok(Some(topology)) => {
                self.topology = Versioned { revision: record.revision, value: Some(topology) };
                Applied::Changed
            }
            Ok(None) => Applied::Unchanged,
            Err(why) => Applied::Unreadable(why),
        }
    }

    fn begin_snapshot(&mut self, record: &ConfigRecord) -> Applied {
        if self.epoch.as_ref() != Some(&record.epoch) {
            let mut other = Self { epoch: Some(record.epoch.clone()), ..Self::new() };
            other.begin_snapshot(record);
            if self.complete {
                self.next = Some(Box::new(other));
                return Applied::Unchanged;
            }
            std::mem::swap(&mut other.topology, &mut self.topology);
            *self = other;
            return Applied::Changed;
        }
        self.snapshot = Some(Snapshot { revision: record.revision, ..Snapshot::default() });
        Applied::Unchanged
    }

    fn end_snapshot(&mut self, record: &ConfigRecord) -> Applied {
        let Some(snapshot) = self.snapshot.take_if(|snapshot| snapshot.revision == record.revision) else {
            return Applied::Unchanged;
        };
        self.tenants
            .retain(|id, tenant| snapshot.tenants.contains(id) || tenant.revision > snapshot.revision);
        let kept = |tenant: &TenantId, product: &str, revision| {
            revision > snapshot.revision
                || snapshot.catalogues.contains(&(tenant.clone(), product.to_owned()))
        };
        let mut poorer = Vec::new();
        for (tenant, catalogues) in &mut self.catalogues {
            let before = catalogues.len();
            catalogues.retain(|product, catalogue| kept(tenant, product, catalogue.revision));
            if catalogues.len() < before {
                poorer.push(tenant.clone());
            }
        }
        poorer.iter().for_each(|tenant| self.learn(tenant));
        let dropped: Vec<WebhookId> = self
            .webhooks
            .iter()
            .filter(|(id, webhook)| !snapshot.webhooks.contains(id) && webhook.revision <= snapshot.revision)
            .map(|(id, _)| id.clone())
            .collect();
        for id in dropped {
            self.forget_webhook(&id);
        }
        self.cancellations.keep(&snapshot.cancellations, snapshot.revision);
        self.unreadable = snapshot.unreadable;
        self.complete = true;
        Applied::Changed
    }

    fn forget_or_note(&mut self, what: String, why: Option<&str>) {
        match why {
            Some(why) => {
                if let Some(snapshot) = &mut self.snapshot {
                    snapshot.unreadable.insert(what.clone(), why.to_owned());
                }
                self.unreadable.insert(what, why.to_owned());
            }
            None => {
                self.unreadable.remove(&what);
            }
        }
    }

    fn apply_tenant(&mut self, record: &ConfigRecord) -> Applied {
        let id = TenantId::from_trusted(record.id.as_str());
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.tenants.insert(id.clone());
        }
        if self.tenants.get(&id).is_some_and(|known| known.revision >= record.revision) {
            return Applied::Unchanged;
        }
        match parse::<TenantRecord>(record) {
            Ok(tenant) => {
                self.tenants.insert(
                    id,
                    Versioned { revision: record.revision, value: tenant.map(|tenant| tenant.settings) },
                );
                Applied::Changed
            }
            Err(why) => Applied::Unreadable(why),
        }
    }

    fn apply_catalogue(&mut self, record: &ConfigRecord) -> Applied {
        let Some((tenant, product)) = record.id.split_once('/') else {
            return Applied::Unreadable(format!("{:?} is no tenant and product", record.id));
        };
        let tenant = TenantId::from_trusted(tenant);
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.catalogues.insert((tenant.clone(), product.to_owned()));
        }
        let known = self.catalogues.get(&tenant).and_then(|catalogues| catalogues.get(product));
        if known.is_some_and(|known| known.revision >= record.revision) {
            return Applied::Unchanged;
        }
        let value = match parse::<CatalogueRecord>(record) {
            Ok(None) => None,
            Ok(Some(body)) => match Compiled::of(body.catalogue) {
                Ok(catalogue) => Some(catalogue),
                Err(why) => return Applied::Unreadable(format!("catalogue {:?}: {why}", record.id)),
            },
            Err(why) => return Applied::Unreadable(why),
        };
        let catalogue = Versioned { revision: record.revision, value };
        self.catalogues.entry(tenant.clone()).or_default().insert(product.to_owned(), catalogue);
        self.learn(&tenant);
        Applied::Changed
    }

    /// Puts together anew what the catalogues of a tenant come to.
    fn learn(&mut self, tenant: &TenantId) {
        let catalogues = self.catalogues.get(tenant).into_iter().flat_map(BTreeMap::values);
        let catalogues: Vec<&Compiled> = catalogues.filter_map(|known| known.value.as_ref()).collect();
        if catalogues.is_empty() {
            self.vocabularies.remove(tenant);
        } else {
            let all = std::iter::once(&self.own).chain(catalogues.iter().copied());
            let vocabulary = Vocabulary::of(all);
            self.vocabularies.insert(tenant.clone(), vocabulary);
        }
    }

    fn apply_webhook(&mut self, record: &ConfigRecord) -> Applied {
        let id = WebhookId::from_trusted(record.id.as_str());
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.webhooks.insert(id.clone());
        }
        if self.webhooks.get(&id).is_some_and(|known| known.revision >= record.revision) {
            return Applied::Unchanged;
        }
        let read = match parse::<WebhookRecord>(record) {
            Ok(None) => None,
            Ok(Some(body)) => match body.webhook(record.revision) {
                Ok(webhook) => Some(webhook),
                Err(why) => return Applied::Unreadable(why.to_string()),
            },
            Err(why) => return Applied::Unreadable(why),
        };
        let filter = match read.as_ref().and_then(|webhook| webhook.subscription.filter.as_deref()) {
            Some(source) => match self.filter(source) {
                Ok(filter) => Some(filter),
                Err(why) => return Applied::Unreadable(format!("webhook {:?}: filter: {why}", record.id)),
            },
            None => None,
        };
        self.forget_webhook(&id);
        let value = read.map(|mut webhook| {
            // Names take memory once, however many webhooks have them.
            webhook.id = id.clone();
            if let Some((tenant, _)) = self.takers.get_key_value(&webhook.tenant) {
                webhook.tenant = tenant.clone();
            }
            let takers = self.takers.entry(webhook.tenant.clone()).or_default();
            takers.add(&id, &mut webhook.subscription);
            Subscriber { webhook: Arc::new(webhook), filter }
        });
        self.webhooks.insert(id, Versioned { revision: record.revision, value });
        Applied::Changed
    }

    /// What cannot be read of cancellations holds up nothing: at worst a request is made that was called off.
    fn apply_cancellation(&mut self, record: &ConfigRecord) -> Applied {
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.cancellations.insert(record.id.clone());
        }
        if self.cancellations.revision(&record.id).is_some_and(|known| known >= record.revision) {
            return Applied::Unchanged;
        }
        match parse::<CancellationRecord>(record) {
            Ok(value) => {
                self.cancellations.put(&record.id, record.revision, value);
                Applied::Changed
            }
            Err(why) => Applied::Unreadable(why),
        }
    }

    /// The filter of this source: the one that another webhook has, or a new one.
    fn filter(&mut self, source: &str) -> Result<Arc<Expression>, String> {
        if let Some(filter) = self.filters.get(source) {
            return Ok(filter.clone());
        }
        let filter = Arc::new(Expression::over_events(source).map_err(|e| e.to_string())?);
        self.filters.insert(source.into(), filter.clone());
        Ok(filter)
    }

    fn forget_webhook(&mut self, id: &WebhookId) {
        let Some(Versioned { value: Some(Subscriber { webhook, filter }), .. }) = self.webhooks.remove(id)
        else {
            return;
        };
        if let Some(takers) = self.takers.get_mut(&webhook.tenant) {
            takers.remove(id, &webhook.subscription);
        }
        // One reference is the table's, one was the webhook's.
        if let Some(filter) = filter.filter(|filter| Arc::strong_count(filter) == 2) {
            self.filters.remove(filter.source());
        }
    }

    /// What the directory holds, in order, for tests and for people: tenant → webhooks.
    pub fn outline(&self) -> BTreeMap<TenantId, Vec<WebhookId>> {
        let mut outline: BTreeMap<TenantId, Vec<WebhookId>> = BTreeMap::new();
        for (tenant, _) in self.tenants.iter().filter(|(_, tenant)| tenant.value.is_some()) {
            outline.entry(tenant.clone()).or_default();
        }
        for known in self.webhooks.values().filter_map(|webhook| webhook.value.as_ref()) {
            let Webhook { id, tenant, .. } = &*known.webhook;
            outline.entry(tenant.clone()).or_default().push(id.clone());
        }
        outline.values_mut().for_each(|ids| ids.sort());
        outline
    }
}

fn parse<T: for<'de> serde::Deserialize<'de>>(record: &ConfigRecord) -> Result<Option<T>, String> {
    let Some(body) = &record.body else { return Ok(None) };
    serde_json::from_str(body.get())
        .map(Some)
        .map_err(|e| format!("{:?} {:?} at revision {}: {e}", record.kind, record.id, record.revision))
}

#[cfg(test)]
mod tests;
