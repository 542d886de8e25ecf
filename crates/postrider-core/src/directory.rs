//! The configuration as a role knows it, built record by record from the config stream (DESIGN §5.2).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::catalogue::TypeEntry;
use crate::event::{Event, EventType};
use crate::id::{DeliveryId, Epoch, TenantId, WebhookId};
use crate::intake::{Refusal, RefusalReason};
use crate::profile::{DEFAULT_TIMEOUT_MS, Profile};
use crate::webhook::Webhook;
use crate::wire::{ConfigKind, ConfigRecord, TenantRecord, TopologyRecord, WebhookRecord};

/// The most bytes that one event may become by fan-out: webhooks × size.
pub const MAX_FAN_OUT_BYTES: usize = 64 * 1024 * 1024;

/// The most webhooks that one event may go to: what is owed must fit into one message of the journal.
pub const MAX_FAN_OUT: usize = 100_000;

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

/// Tenants, webhooks and topology.
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
    tenants: HashMap<TenantId, Versioned<()>>,
    webhooks: HashMap<WebhookId, Versioned<Arc<Webhook>>>,
    index: HashMap<TenantId, TenantIndex>,
    topology: Versioned<TopologyRecord>,
}

/// An object at a revision; `None` when it was deleted.
#[derive(Debug)]
struct Versioned<T> {
    revision: u64,
    value: Option<T>,
}

#[derive(Debug)]
struct Snapshot {
    revision: u64,
    tenants: HashSet<TenantId>,
    webhooks: HashSet<WebhookId>,
    unreadable: BTreeMap<String, String>,
}

#[derive(Debug, Default)]
struct TenantIndex {
    of_type: HashMap<EventType, BTreeSet<WebhookId>>,
    of_all: BTreeSet<WebhookId>,
}

impl Default for Directory {
    fn default() -> Self {
        Self::new()
    }
}

impl Directory {
    /// Knows nothing yet.
    pub fn new() -> Self {
        Self {
            epoch: None,
            revision: 0,
            complete: false,
            snapshot: None,
            next: None,
            unreadable: BTreeMap::new(),
            tenants: HashMap::new(),
            webhooks: HashMap::new(),
            index: HashMap::new(),
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
    }

    /// Whether a record of this epoch may still come, so that waiting for its revision makes sense.
    pub fn expects(&self, epoch: &Epoch) -> bool {
        self.epoch.as_ref() == Some(epoch)
            || self.next.as_ref().is_some_and(|next| next.epoch.as_ref() == Some(epoch))
    }

    /// The longest total deadline of a webhook, milliseconds.
    pub fn longest_timeout_ms(&self) -> u64 {
        self.webhooks
            .values()
            .filter_map(|webhook| webhook.value.as_ref())
            .map(|w| {
                self.profile_of(w).map_or(DEFAULT_TIMEOUT_MS, |profile| profile.timeout_ms(w.timeout_ms))
            })
            .max()
            .unwrap_or(0)
    }

    /// The profile that a webhook speaks; `None` if the catalogue that it belongs to is not there.
    pub fn profile_of(&self, webhook: &Webhook) -> Option<Arc<Profile>> {
        Profile::built_in(&webhook.profile).map(Arc::new)
    }

    /// What the tenant's catalogues say of an event type, by its name or an alias.
    pub fn type_entry(&self, tenant: &TenantId, event_type: &EventType) -> Option<Arc<TypeEntry>> {
        let _ = (tenant, event_type);
        None
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
            Some(Some(webhook)) => Lookup::Known(webhook.clone()),
            Some(None) => Lookup::Deleted,
            None => Lookup::Unknown,
        }
    }

    /// Which deliveries an event becomes: one for each webhook of its tenant that takes it, whatever the webhook's
    /// state. Nothing but `subscription` decides, so that a paused webhook's deliveries can be held.
    ///
    /// # Errors
    /// [`Refusal`]: the tenant is unknown, or the fan-out is too large.
    pub fn route(&self, event: &Event) -> Result<Vec<Target>, Refusal> {
        if !self.has_tenant(&event.tenant) {
            let detail = format!(
                "there is no tenant {:?}; create it, or correct the routing key",
                event.tenant.as_str()
            );
            return Err(Refusal::new(RefusalReason::UnknownTenant, detail));
        }
        let Some(index) = self.index.get(&event.tenant) else { return Ok(Vec::new()) };
        let of_type = index.of_type.get(&event.event_type);
        let wanted = of_type.into_iter().flatten().chain(&index.of_all);
        let shards = self.topology.value.map_or(1, |topology| topology.shards);
        let mut targets: Vec<Target> = Vec::new();
        for id in wanted {
            let Some(Versioned { revision, value: Some(_) }) = self.webhooks.get(id) else { continue };
            targets.push(Target {
                delivery: DeliveryId::of(&event.tenant, &event.id, id),
                webhook: id.clone(),
                revision: *revision,
                shard: id.shard(shards),
            });
        }
        if targets.len() > MAX_FAN_OUT || targets.len().saturating_mul(event.weight()) > MAX_FAN_OUT_BYTES {
            let detail = format!("{} webhooks take this event of {} bytes", targets.len(), event.weight());
            return Err(Refusal::new(RefusalReason::FanOutTooLarge, detail));
        }
        Ok(targets)
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
            ConfigKind::Webhook => self.apply_webhook(record),
            ConfigKind::SnapshotEnd => self.end_snapshot(record),
            ConfigKind::Catalogue | ConfigKind::Topology | ConfigKind::SnapshotBegin | ConfigKind::Other => {
                Applied::Unchanged
            }
        };
        if self.snapshot.is_none() {
            self.revision = self.revision.max(record.revision);
        }
        if matches!(record.kind, ConfigKind::Tenant | ConfigKind::Webhook) {
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
        self.snapshot = Some(Snapshot {
            revision: record.revision,
            tenants: HashSet::new(),
            webhooks: HashSet::new(),
            unreadable: BTreeMap::new(),
        });
        Applied::Unchanged
    }

    fn end_snapshot(&mut self, record: &ConfigRecord) -> Applied {
        let Some(snapshot) = self.snapshot.take_if(|snapshot| snapshot.revision == record.revision) else {
            return Applied::Unchanged;
        };
        self.tenants
            .retain(|id, tenant| snapshot.tenants.contains(id) || tenant.revision > snapshot.revision);
        let dropped: Vec<WebhookId> = self
            .webhooks
            .iter()
            .filter(|(id, webhook)| !snapshot.webhooks.contains(id) && webhook.revision <= snapshot.revision)
            .map(|(id, _)| id.clone())
            .collect();
        for id in dropped {
            self.unindex(&id);
            self.webhooks.remove(&id);
        }
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
                self.tenants.insert(id, Versioned { revision: record.revision, value: tenant.map(|_| ()) });
                Applied::Changed
            }
            Err(why) => Applied::Unreadable(why),
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
        let webhook = match parse::<WebhookRecord>(record) {
            Ok(None) => None,
            Ok(Some(body)) => match body.webhook(record.revision) {
                Ok(webhook) => Some(Arc::new(webhook)),
                Err(why) => return Applied::Unreadable(why.to_string()),
            },
            Err(why) => return Applied::Unreadable(why),
        };
        self.unindex(&id);
        if let Some(webhook) = &webhook {
            let index = self.index.entry(webhook.tenant.clone()).or_default();
            if webhook.subscription.all {
                index.of_all.insert(id.clone());
            } else {
                for event_type in &webhook.subscription.event_types {
                    index.of_type.entry(event_type.clone()).or_default().insert(id.clone());
                }
            }
        }
        self.webhooks.insert(id, Versioned { revision: record.revision, value: webhook });
        Applied::Changed
    }

    fn unindex(&mut self, id: &WebhookId) {
        let Some(Versioned { value: Some(webhook), .. }) = self.webhooks.get(id) else { return };
        let Some(index) = self.index.get_mut(&webhook.tenant) else { return };
        index.of_all.remove(id);
        for event_type in &webhook.subscription.event_types {
            if let Some(takers) = index.of_type.get_mut(event_type) {
                takers.remove(id);
                if takers.is_empty() {
                    index.of_type.remove(event_type);
                }
            }
        }
    }

    /// What the directory holds, in order, for tests and for people: tenant → webhooks.
    pub fn outline(&self) -> BTreeMap<TenantId, Vec<WebhookId>> {
        let mut outline: BTreeMap<TenantId, Vec<WebhookId>> = BTreeMap::new();
        for (tenant, _) in self.tenants.iter().filter(|(_, tenant)| tenant.value.is_some()) {
            outline.entry(tenant.clone()).or_default();
        }
        for webhook in self.webhooks.values().filter_map(|webhook| webhook.value.as_ref()) {
            outline.entry(webhook.tenant.clone()).or_default().push(webhook.id.clone());
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
mod tests {
    use super::*;
    use crate::event;
    use crate::time::Timestamp;
    use crate::wire::TenantSettings;
    use crate::{EventId, wire};

    fn epoch(name: &str) -> Epoch {
        Epoch::from_trusted(name)
    }

    fn webhook(ep: &str, revision: u64, id: &str, types: &[&str]) -> ConfigRecord {
        let body = WebhookRecord {
            all: types.is_empty(),
            event_types: types.iter().map(|t| EventType::parse(t).unwrap()).collect(),
            ..WebhookRecord::new(
                WebhookId::from_trusted(id),
                TenantId::default_tenant(),
                "https://example.com/",
            )
        };
        ConfigRecord::of(&epoch(ep), revision, ConfigKind::Webhook, id, &body)
    }

    fn tenant(ep: &str, revision: u64) -> ConfigRecord {
        let body = TenantRecord { id: TenantId::default_tenant(), settings: TenantSettings::default() };
        ConfigRecord::of(&epoch(ep), revision, ConfigKind::Tenant, "default", &body)
    }

    fn mark(ep: &str, revision: u64, kind: ConfigKind) -> ConfigRecord {
        ConfigRecord::bare(&epoch(ep), revision, kind, "")
    }

    fn directory(records: &[ConfigRecord]) -> Directory {
        let mut directory = Directory::new();
        for record in records {
            assert!(!matches!(directory.apply(record), Applied::Unreadable(_)), "{record:?}");
        }
        directory
    }

    fn routed(directory: &Directory, event_type: &str) -> Vec<String> {
        let event = Event {
            tenant: TenantId::default_tenant(),
            id: EventId::from_trusted("e"),
            event_type: EventType::parse(event_type).unwrap(),
            event_time: "".into(),
            current_context: event::null(),
            data: event::null(),
            key: None,
            correlation_id: None,
            traceparent: None,
            accepted_at: Timestamp::default(),
        };
        let mut ids: Vec<String> =
            directory.route(&event).unwrap().into_iter().map(|target| target.webhook.to_string()).collect();
        ids.sort();
        ids
    }

    use ConfigKind::{SnapshotBegin, SnapshotEnd};

    #[test]
    fn types_are_matched_exactly_and_all_takes_all() {
        let directory = directory(&[
            mark("a", 0, SnapshotBegin),
            tenant("a", 1),
            webhook("a", 2, "w1", &["USER_LOGIN", "A b"]),
            webhook("a", 3, "w2", &[]),
            mark("a", 0, SnapshotEnd),
        ]);
        assert_eq!(routed(&directory, "USER_LOGIN"), ["w1", "w2"]);
        assert_eq!(routed(&directory, "user_login"), ["w2"]);
        assert_eq!(routed(&directory, "USER_LOGIN.x"), ["w2"]);
    }

    #[test]
    fn nothing_is_complete_before_a_whole_snapshot() {
        let mut directory =
            directory(&[webhook("a", 5, "w0", &[]), mark("a", 3, SnapshotEnd), mark("a", 6, SnapshotBegin)]);
        assert!(!directory.is_complete());
        directory.apply(&tenant("a", 6));
        directory.apply(&mark("a", 6, SnapshotEnd));
        assert!(directory.is_complete());
        assert_eq!(directory.webhook_count(), 0, "a record before the first snapshot is a leftover");
    }

    #[test]
    fn newer_wins_whatever_the_order() {
        let mut directory = directory(&[
            mark("a", 9, SnapshotBegin),
            tenant("a", 1),
            webhook("a", 9, "w1", &["NEW"]),
            webhook("a", 7, "w1", &["OLD"]),
            mark("a", 9, SnapshotEnd),
        ]);
        assert_eq!(routed(&directory, "NEW"), ["w1"]);
        assert!(routed(&directory, "OLD").is_empty());
        directory.apply(&ConfigRecord::bare(&epoch("a"), 10, ConfigKind::Webhook, "w1"));
        assert!(routed(&directory, "NEW").is_empty());
        assert!(matches!(directory.webhook(&WebhookId::from_trusted("w1")), Lookup::Deleted));
        assert_eq!(directory.apply(&webhook("a", 9, "w1", &["NEW"])), Applied::Unchanged);
        assert_eq!(directory.revision(), 10);
    }

    #[test]
    fn the_end_of_a_snapshot_drops_what_is_absent_and_not_newer() {
        let mut directory = directory(&[
            mark("a", 1, SnapshotBegin),
            tenant("a", 1),
            webhook("a", 1, "gone", &["T"]),
            mark("a", 1, SnapshotEnd),
            webhook("a", 8, "newer", &["T"]),
        ]);
        for record in [mark("a", 5, SnapshotBegin), tenant("a", 1), mark("a", 5, SnapshotEnd)] {
            directory.apply(&record);
        }
        assert_eq!(routed(&directory, "T"), ["newer"]);
        assert!(matches!(directory.webhook(&WebhookId::from_trusted("gone")), Lookup::Unknown));
    }

    #[test]
    fn another_epoch_replaces_everything() {
        let mut directory = directory(&[
            mark("a", 90, SnapshotBegin),
            tenant("a", 1),
            webhook("a", 90, "w1", &["T"]),
            mark("a", 90, SnapshotEnd),
        ]);
        for record in [mark("b", 2, SnapshotBegin), tenant("b", 1), webhook("b", 2, "w2", &["T"])] {
            directory.apply(&record);
        }
        assert_eq!(routed(&directory, "T"), ["w1"], "until the new snapshot ends");
        assert!(directory.is_complete() && directory.expects(&epoch("b")) && directory.expects(&epoch("a")));
        directory.apply(&mark("b", 2, SnapshotEnd));
        assert!(!directory.expects(&epoch("a")));
        directory.apply(&webhook("a", 91, "w1", &["T"]));
        assert_eq!(routed(&directory, "T"), ["w2"]);
        assert_eq!(directory.epoch(), Some(&epoch("b")));
    }

    #[test]
    fn an_unreadable_record_leaves_what_was_known() {
        let mut directory = directory(&[
            mark("a", 1, SnapshotBegin),
            tenant("a", 1),
            webhook("a", 1, "w1", &["T"]),
            mark("a", 1, SnapshotEnd),
        ]);
        let mut record = webhook("a", 2, "w1", &["U"]);
        let text = record.body.take().unwrap().get().replace("\"active\"", "\"hologram\"");
        record.body = Some(serde_json::value::RawValue::from_string(text).unwrap());
        assert!(matches!(directory.apply(&record), Applied::Unreadable(_)));
        assert_eq!(routed(&directory, "T"), ["w1"]);
        assert!(directory.unreadable().is_some_and(|why| why.contains("hologram")));
        directory.apply(&webhook("a", 3, "w1", &["V"]));
        assert_eq!((directory.unreadable(), routed(&directory, "V")), (None, vec!["w1".to_owned()]));
        directory.note_unreadable("schema 2");
        for record in [mark("a", 4, SnapshotBegin), tenant("a", 1), mark("a", 4, SnapshotEnd)] {
            assert!(directory.unreadable().is_some());
            directory.apply(&record);
        }
        assert_eq!(directory.unreadable(), None, "a whole snapshot without it");
    }

    #[test]
    fn an_unknown_tenant_is_refused() {
        let directory = directory(&[mark("a", 0, SnapshotBegin), mark("a", 0, SnapshotEnd)]);
        let event: Event = serde_json::from_str::<wire::EventRecord>(
            r#"{"tenant":"nobody","id":"e","type":"T","time":"","context":null,"data":null,"accepted_at":0}"#,
        )
        .unwrap()
        .into();
        assert_eq!(directory.route(&event).unwrap_err().reason, RefusalReason::UnknownTenant);
    }
}
