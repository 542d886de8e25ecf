//! What was called off, so that a worker can ask for each delivery that it meets.
//!
//! Single series are looked up by delivery. Those in bulk are kept as spans of time for each combination of tenant,
//! webhook and event type that was named, merged where they overlap: a delivery fits at most four combinations, and each
//! is one binary search, however much was called off.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::event::EventType;
use crate::id::{DeliveryId, TenantId, WebhookId};
use crate::time::Timestamp;
use crate::wire::{CancellationRecord, Cancelled, DeliveryRecord};

/// Cancellations that are kept, at most; the oldest go first. Control takes each away when no message can be left that it
/// is about.
pub const MAX_CANCELLATIONS: usize = 10_000;

/// Every cancellation that is known, by the id of its record.
#[derive(Debug, Default)]
pub(super) struct Cancellations {
    records: HashMap<String, Known>,
    by_age: BTreeSet<(Timestamp, String)>,
    series: HashMap<(TenantId, DeliveryId), BTreeMap<u32, u32>>,
    spans: HashMap<Scope, Spans>,
}

/// A record that is known, or the word that there is none any more.
#[derive(Debug)]
struct Known {
    revision: u64,
    /// When it was called off. A tombstone has the time of what it removed.
    at: Timestamp,
    value: Option<CancellationRecord>,
}

/// What a cancellation in bulk named.
type Scope = (TenantId, Option<WebhookId>, Option<EventType>);

/// Spans of time, from the first up to and without the second: in order, apart from each other.
#[derive(Debug, Default)]
struct Spans(Vec<(Timestamp, Timestamp)>);

/// The beginning of time.
const ALWAYS: Timestamp = Timestamp::from_millis(i64::MIN);

impl Spans {
    fn add(&mut self, since: Timestamp, before: Timestamp) {
        if since >= before {
            return;
        }
        let first = self.0.partition_point(|(_, end)| *end < since);
        let past = self.0.partition_point(|(begin, _)| *begin <= before);
        let merged =
            self.0[first..past].iter().fold((since, before), |(a, b), (c, d)| (a.min(*c), b.max(*d)));
        self.0.splice(first..past, [merged]);
    }

    fn has(&self, at: Timestamp) -> bool {
        let next = self.0.partition_point(|(begin, _)| *begin <= at);
        next > 0 && at < self.0[next - 1].1
    }
}

/// The scope and the span of a cancellation in bulk.
fn bulk(record: &CancellationRecord) -> Option<(Scope, Timestamp, Timestamp)> {
    match &record.what {
        Cancelled::Series { .. } => None,
        Cancelled::Matching { webhook, event_type, born_since, born_before } => {
            let scope = (record.tenant.clone(), webhook.clone(), event_type.clone());
            Some((scope, born_since.unwrap_or(ALWAYS), *born_before))
        }
    }
}

impl Cancellations {
    /// Whether a delivery was called off.
    pub(super) fn has(&self, tenant: &TenantId, event_type: &EventType, delivery: &DeliveryRecord) -> bool {
        if self.records.is_empty() {
            return false;
        }
        let single = || {
            let series = self.series.get(&(tenant.clone(), delivery.id.clone()));
            series.is_some_and(|series| series.contains_key(&delivery.series))
        };
        let fits = |webhook: bool, named: bool| {
            let webhook = webhook.then(|| delivery.webhook.clone());
            let event_type = named.then(|| event_type.clone());
            let spans = self.spans.get(&(tenant.clone(), webhook, event_type));
            spans.is_some_and(|spans| spans.has(delivery.born))
        };
        let in_bulk = || fits(true, true) || fits(true, false) || fits(false, true) || fits(false, false);
        (!self.series.is_empty() && single()) || (!self.spans.is_empty() && in_bulk())
    }

    /// The revision of a record that is known.
    pub(super) fn revision(&self, id: &str) -> Option<u64> {
        self.records.get(id).map(|known| known.revision)
    }

    /// Takes a record, or the word that there is none any more.
    pub(super) fn put(&mut self, id: &str, revision: u64, value: Option<CancellationRecord>) {
        let before = self.forget(id);
        let at = value.as_ref().map(|record| record.at).or(before).unwrap_or_default();
        if let Some(record) = &value {
            self.index(record);
        }
        self.records.insert(id.to_owned(), Known { revision, at, value });
        self.by_age.insert((at, id.to_owned()));
        while self.records.len() > MAX_CANCELLATIONS
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.forget(&oldest);
        }
    }

    /// Forgets what a whole snapshot of `revision` does not hold, unless it is newer.
    pub(super) fn keep(&mut self, held: &HashSet<String>, revision: u64) {
        let absent =
            self.records.iter().filter(|(id, known)| !held.contains(*id) && known.revision <= revision);
        let absent: Vec<String> = absent.map(|(id, _)| id.clone()).collect();
        for id in absent {
            self.forget(&id);
        }
    }

    fn index(&mut self, record: &CancellationRecord) {
        if let Cancelled::Series { delivery, series } = &record.what {
            let known = self.series.entry((record.tenant.clone(), delivery.clone())).or_default();
            *known.entry(*series).or_default() += 1;
        }
        if let Some((scope, since, before)) = bulk(record) {
            self.spans.entry(scope).or_default().add(since, before);
        }
    }

    /// Forgets a record, and answers with its time.
    fn forget(&mut self, id: &str) -> Option<Timestamp> {
        let Known { at, value, .. } = self.records.remove(id)?;
        self.by_age.remove(&(at, id.to_owned()));
        let Some(record) = value else { return Some(at) };
        if let Cancelled::Series { delivery, series } = &record.what {
            let key = (record.tenant.clone(), delivery.clone());
            if let Some(known) = self.series.get_mut(&key) {
                if let Some(n) = known.get_mut(series) {
                    *n -= 1;
                }
                known.retain(|_, n| *n > 0);
                if known.is_empty() {
                    self.series.remove(&key);
                }
            }
        }
        if let Some((scope, ..)) = bulk(&record) {
            // Spans that were merged cannot be told apart any more.
            let mut spans = Spans::default();
            let others = self.records.values().filter_map(|known| bulk(known.value.as_ref()?));
            others
                .filter(|(other, ..)| *other == scope)
                .for_each(|(_, since, before)| spans.add(since, before));
            if spans.0.is_empty() {
                self.spans.remove(&scope);
            } else {
                self.spans.insert(scope, spans);
            }
        }
        Some(at)
    }
}
