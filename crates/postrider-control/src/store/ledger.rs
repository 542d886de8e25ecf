//! The working set of one batch: the rows that its facts touch, and the rules by which facts change them.
//!
//! No database here. One fact, one key: a fact already known changes nothing, and the order of facts does not matter,
//! except that the first end of a series wins. So a batch may come again, and in pieces, without harm.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use postrider_core::books::End;
use postrider_core::wire::{
    AttemptFact, DeadMessage, DeliveryMessage, DoneFact, EventFact, EventFate, EventRecord, Fact, HeldFact,
};
use postrider_core::{DeliveryId, EventId, TenantId, Timestamp, WebhookId};

use super::record::{Entry, Letter, LetterKind};

pub(super) type EventKey = (TenantId, EventId);

/// What a request is known by within its series: the number of the attempt, when it began, and the worker.
pub(super) type Request = (u32, i64, Arc<str>);

/// What became of an event, least to most: what is known can only move up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    Invalid,
    Unmatched,
    Routed,
}

impl Fate {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Unmatched => "unmatched",
            Self::Routed => "routed",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        [Self::Invalid, Self::Unmatched, Self::Routed].into_iter().find(|fate| fate.as_str() == text)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Event {
    pub seq: i64,
    pub fate: Fate,
    pub owed: u32,
    pub event_type: Arc<str>,
    pub event_time: Arc<str>,
    pub reason: String,
    pub detail: String,
    pub accepted_at: i64,
    pub has_body: bool,
    /// The body to keep, when it is new.
    pub body: Option<Arc<EventRecord>>,
    /// What the router noticed about it: words with a space between.
    pub marks: String,
    pub changed: bool,
}

/// The end of a series that was not known before, as its worker reports it.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub webhook: WebhookId,
    pub delivery: DeliveryId,
    pub series: u32,
    pub end: End,
    pub reason: String,
    pub attempts: u32,
    pub at: Timestamp,
}

#[derive(Clone, Debug)]
pub(super) struct Delivery {
    pub seq: i64,
    pub webhook: Arc<str>,
    /// Empty until the event's fact is known, like the next three.
    pub tenant: Arc<str>,
    /// In the store it is not known yet of which event it is.
    pub nameless: bool,
    pub event: Option<i64>,
    pub event_id: Arc<str>,
    pub event_type: Arc<str>,
    pub series: BTreeMap<u32, Series>,
    pub last: Last,
    pub created_at: i64,
    pub changed: bool,
}

/// The newest attempt.
#[derive(Clone, Debug, Default)]
pub(super) struct Last {
    pub series: u32,
    pub n: u32,
    pub class: Cow<'static, str>,
    pub status: Option<i64>,
    pub at: Option<i64>,
}

#[derive(Clone, Debug)]
pub(super) struct Series {
    pub owed: bool,
    /// Somebody asked for it; noted by whoever made it.
    pub asked: bool,
    pub end: Option<End>,
    pub held: bool,
    pub held_attempt: u32,
    pub held_at: i64,
    pub reason: String,
    /// How many attempts its end says there were.
    pub attempts: u32,
    /// How many attempts of different numbers arrived.
    pub logged: u32,
    /// How often its messages were handed out without being settled, as far as that was told.
    pub repeats: u32,
    pub next_at: Option<i64>,
    pub born_at: i64,
    /// When it was last sent on after it was held; noted by whoever did.
    pub released_at: Option<i64>,
    pub ended_at: Option<i64>,
    pub seen_at: i64,
    pub changed: bool,
}

impl Series {
    fn new(born_at: i64, seen_at: i64) -> Self {
        Self {
            owed: false,
            asked: false,
            end: None,
            held: false,
            held_attempt: 0,
            held_at: 0,
            reason: String::new(),
            attempts: 0,
            logged: 0,
            repeats: 0,
            next_at: None,
            born_at,
            released_at: None,
            ended_at: None,
            seen_at,
            changed: true,
        }
    }

    /// The word for it in the store and the API.
    pub(super) fn state(&self) -> &'static str {
        self.end.map_or("pending", End::as_str)
    }
}

/// A dead letter to keep.
#[derive(Clone, Debug)]
pub(super) struct NewLetter {
    pub letter: Letter,
    /// A later series, or this one after all, was delivered.
    pub resolved: bool,
}

/// The rows that a batch touches.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub now: i64,
    pub next_event: i64,
    pub next_delivery: i64,
    pub events: HashMap<EventKey, Event>,
    pub deliveries: HashMap<DeliveryId, Delivery>,
    /// The requests of each series: number, time and worker. Several may have one number: of copies of a delivery, and one
    /// that was repeated at once over a new connection.
    pub attempts: HashMap<(DeliveryId, u32), BTreeSet<Request>>,
    pub new_attempts: Vec<AttemptFact>,
    /// Ids of dead letters that are in the store already.
    pub known_letters: HashSet<String>,
    /// Dead letters of the batch, by id.
    pub new_letters: BTreeMap<String, NewLetter>,
    /// Unresolved dead letters of the store: id, delivery, series.
    pub open_letters: Vec<(String, DeliveryId, u32)>,
    /// Series that workers ended in this batch, in the order in which that came.
    pub ended: Vec<Ended>,
    pub repeated: u64,
    pub late: u64,
    /// Something was held: perhaps for a webhook that has been resumed meanwhile.
    pub held: bool,
    /// The time of the newest fact.
    pub newest: Option<Timestamp>,
}

impl Ledger {
    pub(super) fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::Journal(message) => {
                for fact in &message.facts {
                    self.fact(fact);
                }
            }
            Entry::Dead(message) => self.dead(message),
            Entry::Letter(letter) => self.keep(letter.clone()),
            Entry::Poison { message, detail, at } => self.poison(message, detail, *at),
        }
    }

    fn fact(&mut self, fact: &Fact) {
        let at = match fact {
            Fact::Event(event) => event.at,
            Fact::Attempt(attempt) => attempt.at.plus_ms(attempt.duration_ms),
            Fact::Done(done) => done.at,
            Fact::Held(held) => held.at,
        };
        self.newest = self.newest.max(Some(at));
        match fact {
            Fact::Event(event) => self.event(event),
            Fact::Attempt(attempt) => self.attempt(attempt),
            Fact::Done(done) => self.done(done),
            Fact::Held(held) => self.held(held),
        }
    }

    /// An event that was routed twice, since a router died over it, owes what either routing says.
    fn event(&mut self, fact: &EventFact) {
        let (fate, owed, reason, detail) = match &fact.fate {
            EventFate::Routed(owed) => (Fate::Routed, owed.as_slice(), "", ""),
            EventFate::Unmatched => (Fate::Unmatched, &[][..], "", ""),
            EventFate::Invalid { reason, detail } => {
                (Fate::Invalid, &[][..], reason.as_str(), detail.as_str())
            }
        };
        let key = (fact.tenant.clone(), fact.event_id.clone());
        let next_event = &mut self.next_event;
        let mut known = true;
        let event = self.events.entry(key.clone()).or_insert_with(|| {
            known = false;
            *next_event += 1;
            Event {
                seq: *next_event,
                fate,
                owed: 0,
                event_type: Arc::default(),
                event_time: Arc::default(),
                reason: reason.to_owned(),
                detail: detail.to_owned(),
                accepted_at: fact.at.as_millis(),
                has_body: false,
                body: None,
                marks: String::new(),
                changed: true,
            }
        });
        if fate > event.fate {
            event.fate = fate;
            event.reason = reason.to_owned();
            event.detail = detail.to_owned();
            event.changed = true;
        }
        if let Some(record) = &fact.event
            && !event.has_body
        {
            event.event_type = record.event_type.shared();
            event.event_time = record.time.clone();
            event.body = Some(record.clone());
            event.has_body = true;
            event.changed = true;
        }
        if event.marks.is_empty() && !fact.marks.is_empty() {
            event.marks = fact.marks.join(" ");
            event.changed = true;
        }
        let (seq, event_type) = (event.seq, event.event_type.clone());
        let mut newly_owed = 0;
        for owed in owed {
            let now = self.now;
            let delivery = self.delivery(&owed.delivery, &owed.webhook, fact.at);
            if delivery.tenant.is_empty() {
                delivery.tenant = key.0.shared();
                delivery.event = Some(seq);
                delivery.event_id = key.1.shared();
                delivery.event_type = event_type.clone();
                delivery.changed = true;
            }
            let born_at = fact.at.as_millis();
            let series = delivery.series.entry(1).or_insert_with(|| Series::new(born_at, now));
            if !series.owed {
                series.owed = true;
                series.born_at = born_at;
                series.changed = true;
                delivery.changed = true;
                newly_owed += 1;
            }
        }
        if newly_owed > 0
            && let Some(event) = self.events.get_mut(&key)
        {
            event.owed += newly_owed;
            event.changed = true;
        }
        if known && newly_owed == 0 {
            self.repeated += 1;
        }
    }

    fn attempt(&mut self, fact: &AttemptFact) {
        let at = fact.at.as_millis();
        let made = self.attempts.entry((fact.delivery.clone(), fact.series)).or_default();
        let first_of_number =
            made.range((fact.n, i64::MIN, Arc::default())..).next().is_none_or(|r| r.0 != fact.n);
        if !made.insert((fact.n, at, fact.worker.clone())) {
            self.repeated += 1;
            return;
        }
        let newest = made.last().is_some_and(|(n, when, _)| (*n, *when) == (fact.n, at));
        let delivery = self.touch(&fact.delivery, &fact.webhook, fact.series, fact.at);
        let last = &delivery.last;
        if (fact.series, fact.n, Some(at)) > (last.series, last.n, last.at) {
            delivery.last = Last {
                series: fact.series,
                n: fact.n,
                class: fact.class.clone(),
                status: fact.status.map(i64::from),
                at: Some(at),
            };
        }
        if let Some(series) = delivery.series.get_mut(&fact.series) {
            series.logged += u32::from(first_of_number);
            series.repeats = series.repeats.saturating_add(fact.repeats);
            if newest && series.end.is_none() {
                series.next_at = fact.next_at.map(Timestamp::as_millis);
            }
            // Somebody has the delivery in hand again.
            if fact.n >= series.held_attempt && at > series.held_at {
                series.held = false;
            }
        }
        self.new_attempts.push(fact.clone());
    }

    fn done(&mut self, fact: &DoneFact) {
        let ended = self.close(
            &fact.delivery,
            &fact.webhook,
            fact.series,
            fact.end,
            &fact.reason,
            fact.attempts,
            fact.at,
        );
        if ended {
            self.add_repeats(&fact.delivery, fact.series, fact.repeats);
            self.ended.push(Ended {
                webhook: fact.webhook.clone(),
                delivery: fact.delivery.clone(),
                series: fact.series,
                end: fact.end,
                reason: fact.reason.clone(),
                attempts: fact.attempts,
                at: fact.at,
            });
        }
    }

    /// Messages of a series were handed out so often without being settled.
    fn add_repeats(&mut self, delivery: &DeliveryId, series: u32, repeats: u32) {
        if let Some(series) = self.deliveries.get_mut(delivery).and_then(|row| row.series.get_mut(&series)) {
            series.repeats = series.repeats.saturating_add(repeats);
        }
    }

    /// Ends a series, unless it has ended: the first end wins. `true` when this is it.
    #[allow(clippy::too_many_arguments, reason = "they are the members of one fact")]
    fn close(
        &mut self,
        delivery: &DeliveryId,
        webhook: &WebhookId,
        series: u32,
        end: End,
        reason: &str,
        attempts: u32,
        at: Timestamp,
    ) -> bool {
        let row = self.touch(delivery, webhook, series, at);
        let Some(series) = row.series.get_mut(&series) else { return false };
        match series.end {
            None => {
                series.end = Some(end);
                series.reason = reason.to_owned();
                series.attempts = attempts;
                series.ended_at = Some(at.as_millis());
                series.next_at = None;
                series.held = false;
                return true;
            }
            // Poison is dated when it is found, so the time does not tell.
            Some(known)
                if known == end
                    && series.reason == reason
                    && (series.ended_at == Some(at.as_millis()) || reason == "poison") =>
            {
                self.repeated += 1;
            }
            Some(_) => self.late += 1,
        }
        false
    }

    fn held(&mut self, fact: &HeldFact) {
        let at = fact.at.as_millis();
        let attempts = self.attempts.get(&(fact.delivery.clone(), fact.series));
        let gone_on =
            attempts.is_some_and(|made| made.iter().any(|(n, when, _)| *n >= fact.attempt && *when > at));
        let row = self.touch(&fact.delivery, &fact.webhook, fact.series, fact.at);
        let Some(series) = row.series.get_mut(&fact.series) else { return };
        // A series may be held, released and held again at the same attempt: then the times differ.
        if (series.held_attempt, series.held_at) == (fact.attempt, at) || (series.held && at < series.held_at)
        {
            self.repeated += 1;
            return;
        }
        series.repeats = series.repeats.saturating_add(fact.repeats);
        series.held_attempt = fact.attempt;
        series.held_at = at;
        series.held = series.end.is_none() && !gone_on;
        self.held |= series.held;
    }

    fn dead(&mut self, message: &DeadMessage) {
        let (event, delivery) = (&message.event, &message.delivery);
        self.keep(Letter {
            id: letter_id("dead", &[delivery.id.as_str(), &delivery.series.to_string()]),
            kind: LetterKind::Dead,
            tenant: event.tenant.to_string(),
            reason: message.reason.clone(),
            detail: String::new(),
            class: message.class.clone(),
            delivery: Some((delivery.id.clone(), delivery.series)),
            webhook: delivery.webhook.to_string(),
            event_id: event.id.to_string(),
            event_type: event.event_type.to_string(),
            content_type: String::new(),
            body: None,
            attempts: delivery.attempt,
            at: message.at,
        });
    }

    /// What killed its workers is dead, all of it.
    fn poison(&mut self, message: &DeliveryMessage, detail: &str, at: Timestamp) {
        for work in &message.work {
            for delivery in &work.to {
                self.close(&delivery.id, &delivery.webhook, delivery.series, End::Dead, "poison", 0, at);
                self.keep(Letter {
                    id: letter_id("poison", &[delivery.id.as_str(), &delivery.series.to_string()]),
                    kind: LetterKind::Poison,
                    tenant: work.event.tenant.to_string(),
                    reason: "poison".into(),
                    detail: detail.to_owned(),
                    class: String::new(),
                    delivery: Some((delivery.id.clone(), delivery.series)),
                    webhook: delivery.webhook.to_string(),
                    event_id: work.event.id.to_string(),
                    event_type: work.event.event_type.to_string(),
                    content_type: String::new(),
                    body: None,
                    attempts: 0,
                    at,
                });
            }
        }
    }

    fn keep(&mut self, letter: Letter) {
        if self.known_letters.contains(&letter.id) || self.new_letters.contains_key(&letter.id) {
            self.repeated += 1;
            return;
        }
        self.new_letters.insert(letter.id.clone(), NewLetter { letter, resolved: false });
    }

    /// After the whole batch: what it says is held, of deliveries whose event is known.
    pub(super) fn newly_held(&self) -> Vec<(&DeliveryId, &Delivery)> {
        let is_held = |delivery: &Delivery| {
            let latest = delivery.series.last_key_value().map(|(_, series)| series);
            delivery.changed
                && !delivery.tenant.is_empty()
                && latest.is_some_and(|latest| latest.changed && latest.held && latest.end.is_none())
        };
        self.deliveries.iter().filter(|(_, delivery)| is_held(delivery)).collect()
    }

    /// Ends the latest series of a delivery, which is held.
    pub(super) fn cancel_held(&mut self, id: &DeliveryId, reason: &str) {
        let now = self.now;
        let Some(delivery) = self.deliveries.get_mut(id) else { return };
        let Some((_, series)) = delivery.series.iter_mut().next_back() else { return };
        series.held = false;
        series.end = Some(End::Cancelled);
        series.reason = reason.to_owned();
        series.attempts = series.logged;
        series.ended_at = Some(now);
        series.next_at = None;
    }

    /// After the whole batch: marks dead letters whose delivery was delivered, then or later. Returns those that are in
    /// the store.
    pub(super) fn resolve(&mut self) -> Vec<String> {
        let deliveries = &self.deliveries;
        let delivered = |id: &DeliveryId, since: u32| {
            deliveries.get(id).is_some_and(|delivery| {
                delivery.series.range(since..).any(|(_, series)| series.end == Some(End::Delivered))
            })
        };
        for new in self.new_letters.values_mut() {
            new.resolved = new.letter.delivery.as_ref().is_some_and(|(id, series)| delivered(id, *series));
        }
        let resolved = self.open_letters.iter().filter(|(_, id, series)| delivered(id, *series));
        resolved.map(|(letter, ..)| letter.clone()).collect()
    }

    /// The delivery and its series, made where they are not known yet.
    fn touch(&mut self, id: &DeliveryId, webhook: &WebhookId, series: u32, at: Timestamp) -> &mut Delivery {
        let now = self.now;
        let delivery = self.delivery(id, webhook, at);
        delivery.changed = true;
        delivery.series.entry(series).or_insert_with(|| Series::new(at.as_millis(), now)).changed = true;
        delivery
    }

    fn delivery(&mut self, id: &DeliveryId, webhook: &WebhookId, at: Timestamp) -> &mut Delivery {
        let next_delivery = &mut self.next_delivery;
        self.deliveries.entry(id.clone()).or_insert_with(|| {
            *next_delivery += 1;
            Delivery {
                seq: *next_delivery,
                webhook: webhook.shared(),
                tenant: Arc::default(),
                nameless: false,
                event: None,
                event_id: Arc::default(),
                event_type: Arc::default(),
                series: BTreeMap::new(),
                last: Last::default(),
                created_at: at.as_millis(),
                changed: true,
            }
        })
    }
}

/// The id of a dead letter: the same for the same thing, however often it comes.
pub(crate) fn letter_id(kind: &str, parts: &[&str]) -> String {
    use sha2::{Digest as _, Sha256};
    let mut hash = Sha256::new();
    for part in [kind].iter().chain(parts) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let digest = hash.finalize();
    let digits: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("dl_{digits}")
}

/// Adds a range to sorted ranges and merges what touches; `false` when all of it was there.
pub(super) fn add_range(ranges: &mut Vec<(u64, u64)>, first: u64, past: u64) -> bool {
    if ranges.iter().any(|(from, to)| *from <= first && past <= *to) {
        return false;
    }
    let (mut first, mut past) = (first, past);
    ranges.retain(|(from, to)| {
        let apart = *to < first || past < *from;
        if !apart {
            first = first.min(*from);
            past = past.max(*to);
        }
        apart
    });
    let at = ranges.partition_point(|(from, _)| *from < first);
    ranges.insert(at, (first, past));
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_merge_and_know_what_they_have() {
        let mut ranges = Vec::new();
        assert!(add_range(&mut ranges, 0, 5));
        assert!(add_range(&mut ranges, 10, 12));
        assert!(!add_range(&mut ranges, 10, 12), "the same again");
        assert!(!add_range(&mut ranges, 1, 4));
        assert_eq!(ranges, [(0, 5), (10, 12)]);
        assert!(add_range(&mut ranges, 5, 10), "closes the gap");
        assert_eq!(ranges, [(0, 12)]);
        assert!(add_range(&mut ranges, 20, 21));
        assert!(add_range(&mut ranges, 15, 30));
        assert_eq!(ranges, [(0, 12), (15, 30)]);
    }

    #[test]
    fn letter_ids_are_stable_and_told_apart() {
        assert_eq!(letter_id("dead", &["a", "1"]), letter_id("dead", &["a", "1"]));
        assert_ne!(letter_id("dead", &["a1", ""]), letter_id("dead", &["a", "1"]));
        assert_ne!(letter_id("dead", &["a", "1"]), letter_id("poison", &["a", "1"]));
    }
}
