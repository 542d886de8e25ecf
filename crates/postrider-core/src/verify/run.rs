//! What is known of a run, in tables that are small enough for a million pairs.

use std::collections::{HashMap, HashSet};

use sha2::{Digest as _, Sha256};

use super::{Faults, PublishedLine, ReceivedLine};
use crate::id::digest_of;

/// Names that are kept only to be shown, at most.
const MOST_NAMES: usize = 10_000;

/// An event in the books.
#[derive(Clone, Copy, Debug)]
pub struct EventRow<'a> {
    /// Whose.
    pub tenant: &'a str,
    /// Its id.
    pub id: &'a str,
    /// Its type.
    pub event_type: &'a str,
    /// `routed`, `unmatched` or `invalid`.
    pub fate: &'a str,
    /// Series that are owed for it, as its row says.
    pub owed: u64,
}

/// A delivery in the books.
#[derive(Clone, Copy, Debug)]
pub struct DeliveryRow<'a> {
    /// Its id.
    pub id: &'a str,
    /// Whose; empty while its event is not known.
    pub tenant: &'a str,
    /// Of which event; empty while it is not known.
    pub event_id: &'a str,
    /// To which webhook.
    pub webhook: &'a str,
}

/// A series in the books.
#[derive(Clone, Copy, Debug)]
pub struct SeriesRow<'a> {
    /// Of which delivery.
    pub delivery: &'a str,
    /// Its number, from 1.
    pub series: u32,
    /// Whether somebody said that it is owed.
    pub owed: bool,
    /// `pending`, `delivered`, `dead`, `cancelled` or `skipped`.
    pub state: &'a str,
    /// Whether it waits for its webhook to be resumed.
    pub held: bool,
    /// Why it ended.
    pub reason: &'a str,
    /// How many attempts its end says there were.
    pub attempts: u32,
    /// How many different attempts are in the log, as its row says.
    pub logged: u32,
    /// How often its messages were handed out without being settled: so many more requests may have been made than there
    /// are attempts in the log.
    pub repeats: u32,
    /// When it began, milliseconds.
    pub born_at: i64,
    /// When it ended, milliseconds.
    pub ended_at: Option<i64>,
}

/// An attempt in the log.
#[derive(Clone, Copy, Debug)]
pub struct AttemptRow<'a> {
    /// Of which delivery.
    pub delivery: &'a str,
    /// Of which series.
    pub series: u32,
    /// Which attempt, from 1.
    pub n: u32,
    /// When it started, milliseconds.
    pub at: i64,
    /// How long it took, milliseconds.
    pub duration_ms: u64,
    /// [`crate::Outcome::class`].
    pub class: &'a str,
    /// The status of the answer, if there was one.
    pub status: Option<u16>,
    /// When the next attempt is due, milliseconds.
    pub next_at: Option<i64>,
}

/// A dead letter.
#[derive(Clone, Copy, Debug)]
pub struct LetterRow<'a> {
    /// `dead`, `invalid` or `poison`.
    pub kind: &'a str,
    /// Of which delivery; empty for a message that is none.
    pub delivery: &'a str,
    /// Of which series.
    pub series: u32,
}

/// A webhook.
#[derive(Clone, Copy, Debug)]
pub struct WebhookRow<'a> {
    /// Its id.
    pub id: &'a str,
    /// The most attempts of a series that its policy ever allowed, where that is known.
    pub max_attempts: Option<u32>,
}

/// What the books count beside their rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Facts numbered by their writer that have not arrived.
    pub missing_facts: u64,
    /// Ends of series that had ended otherwise, or at another time.
    pub late_ends: u64,
    /// By how many rows the numbers that are kept beside the rows differ from them.
    pub wrong_tallies: u64,
}

/// 128 bits that name an event or a delivery.
pub(super) type Key = [u8; 16];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Routed,
    Unmatched,
    Invalid,
    Unknown,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    /// Where its name begins among all names, and how long tenant and id are.
    name: u32,
    tenant_bytes: u8,
    id_bytes: u8,
    pub(super) published: bool,
    pub(super) action: bool,
    /// What the books say; nothing when they do not know it.
    pub(super) fate: Option<Fate>,
    pub(super) owed: u32,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Delivery {
    pub(super) key: Key,
    pub(super) event: Option<u32>,
    pub(super) webhook: u32,
    /// Whether the books know it.
    pub(super) known: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Webhook {
    pub(super) max_attempts: Option<u32>,
    pub(super) covered: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Pending,
    Delivered,
    Dead,
    Cancelled,
    Skipped,
    Unknown,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Series {
    pub(super) delivery: u32,
    pub(super) number: u32,
    pub(super) state: State,
    pub(super) owed: bool,
    pub(super) held: bool,
    /// It was only a test: nobody misses it.
    pub(super) test: bool,
    /// It killed its workers, so none of them could count.
    pub(super) poison: bool,
    pub(super) ended: bool,
    pub(super) attempts: u16,
    pub(super) logged: u16,
    pub(super) repeats: u16,
    pub(super) born_at: i64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pub(super) delivery: u32,
    pub(super) series: u32,
    pub(super) at: i64,
    /// 0 for none.
    pub(super) next_at: i64,
    pub(super) took_ms: u32,
    pub(super) n: u16,
    /// 0 for no answer.
    pub(super) status: u16,
    pub(super) delivered: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) delivery: u32,
    pub(super) n: u16,
    pub(super) status: u16,
    pub(super) at: i64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Letter {
    pub(super) delivery: u32,
    pub(super) series: u32,
}

/// Everything that is known of a run. The order in which it is fed does not matter.
#[derive(Debug, Default)]
pub struct Run {
    pub(super) faults: Faults,
    pub(super) at_rest: bool,
    pub(super) others: bool,
    pub(super) seed: Option<u64>,
    pub(super) clock_ms: Option<u64>,
    pub(super) peak_mib: Option<(u64, u64)>,
    names: String,
    pub(super) events: Vec<Event>,
    event_of: HashMap<Key, u32>,
    pub(super) deliveries: Vec<Delivery>,
    delivery_of: HashMap<Key, u32>,
    /// Ids of deliveries that are no ids of ours.
    odd: HashMap<Key, Box<str>>,
    pub(super) webhooks: Vec<Webhook>,
    webhook_of: HashMap<Box<str>, u32>,
    covered: Option<HashSet<Box<str>>>,
    types: HashSet<Box<str>>,
    pub(super) series: Vec<Series>,
    pub(super) attempts: Vec<Attempt>,
    pub(super) requests: Vec<Request>,
    pub(super) letters: Vec<Letter>,
    pub(super) counters: Counters,
    pub(super) unnamed_requests: u64,
    pub(super) verified: u64,
    pub(super) unverified: u64,
    pub(super) unverified_examples: Vec<String>,
}

impl Run {
    /// A run of which nothing is known yet: no faults, and not said to be at rest.
    pub fn new() -> Self {
        Self::default()
    }

    /// The faults that it went through.
    pub fn faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// Says that everything has ended: nothing may be pending but what is held.
    pub fn at_rest(&mut self) {
        self.at_rest = true;
    }

    /// Says that there are other publishers than those of the ledger: events that it does not have are no invention.
    pub fn other_publishers(&mut self) {
        self.others = true;
    }

    /// What chance was drawn from, to be shown.
    pub fn seed(&mut self, seed: u64) {
        self.seed = Some(seed);
    }

    /// How far the receiver's clock may be behind that of the workers, milliseconds. Without it 5: both are the same clock,
    /// read in whole milliseconds and by different threads.
    pub fn clock_ms(&mut self, allowance_ms: u64) {
        self.clock_ms = Some(allowance_ms);
    }

    /// The largest resident memory that was measured of a worker or router, and what it may be; MiB.
    pub fn peak_memory_mib(&mut self, measured: u64, most: u64) {
        let before = self.peak_mib.map_or(0, |(measured, _)| measured);
        self.peak_mib = Some((measured.max(before), most));
    }

    /// The receiver's ledger has the requests of this webhook. Without such a call it has those of all.
    pub fn covers(&mut self, webhook: &str) {
        self.covered.get_or_insert_default().insert(webhook.into());
        for (name, at) in &self.webhook_of {
            let covered = self.covered.as_ref().is_none_or(|covered| covered.contains(name));
            self.webhooks[*at as usize].covered = covered;
        }
    }

    /// A line of a publisher's ledger.
    pub fn published(&mut self, line: &PublishedLine) {
        let at = self.event_at(&line.tenant, &line.id);
        let event = &mut self.events[at as usize];
        event.published = true;
        event.action |= line.action;
    }

    /// A line of a receiver's ledger.
    pub fn received(&mut self, line: &ReceivedLine) {
        match line.verified {
            Some(true) => self.verified += 1,
            Some(false) => {
                self.unverified += 1;
                if self.unverified_examples.len() < super::report::MOST_EXAMPLES {
                    self.unverified_examples.push(format!("{} attempt {}", line.webhook_id, line.n));
                }
            }
            None => {}
        }
        if line.webhook_id.is_empty() {
            self.unnamed_requests += 1;
            return;
        }
        let id = line.webhook_id.strip_prefix("msg_").unwrap_or(&line.webhook_id);
        let delivery = self.delivery_at(id);
        self.requests.push(Request {
            delivery,
            n: narrow(line.n),
            status: line.status,
            at: line.at.as_millis(),
        });
    }

    /// An event in the books.
    pub fn event(&mut self, row: &EventRow<'_>) {
        let at = self.event_at(row.tenant, row.id);
        let event = &mut self.events[at as usize];
        event.fate = Some(match row.fate {
            "routed" => Fate::Routed,
            "unmatched" => Fate::Unmatched,
            "invalid" => Fate::Invalid,
            _ => Fate::Unknown,
        });
        event.owed = u32::try_from(row.owed).unwrap_or(u32::MAX);
        if !self.types.contains(row.event_type) && self.types.len() < MOST_NAMES {
            self.types.insert(row.event_type.into());
        }
    }

    /// A delivery in the books.
    pub fn delivery(&mut self, row: &DeliveryRow<'_>) {
        let webhook = self.webhook_at(row.webhook);
        let event = (!row.event_id.is_empty()).then(|| self.event_at(row.tenant, row.event_id));
        let at = self.delivery_at(row.id);
        let delivery = &mut self.deliveries[at as usize];
        (delivery.event, delivery.webhook, delivery.known) = (event, webhook, true);
    }

    /// A series in the books.
    pub fn series(&mut self, row: &SeriesRow<'_>) {
        let delivery = self.delivery_at(row.delivery);
        self.series.push(Series {
            delivery,
            number: row.series,
            state: match row.state {
                "pending" => State::Pending,
                "delivered" => State::Delivered,
                "dead" => State::Dead,
                "cancelled" => State::Cancelled,
                "skipped" => State::Skipped,
                _ => State::Unknown,
            },
            owed: row.owed,
            held: row.held,
            test: row.reason == "test",
            poison: row.reason == "poison",
            ended: row.ended_at.is_some(),
            attempts: narrow(row.attempts),
            logged: narrow(row.logged),
            repeats: narrow(row.repeats),
            born_at: row.born_at,
        });
    }

    /// An attempt in the log.
    pub fn attempt(&mut self, row: &AttemptRow<'_>) {
        let delivery = self.delivery_at(row.delivery);
        self.attempts.push(Attempt {
            delivery,
            series: row.series,
            at: row.at,
            next_at: row.next_at.unwrap_or(0),
            took_ms: u32::try_from(row.duration_ms).unwrap_or(u32::MAX),
            n: narrow(row.n),
            status: row.status.unwrap_or(0),
            delivered: row.class == "none",
        });
    }

    /// A dead letter.
    pub fn letter(&mut self, row: &LetterRow<'_>) {
        if row.delivery.is_empty() {
            return;
        }
        let delivery = self.delivery_at(row.delivery);
        self.letters.push(Letter { delivery, series: row.series });
    }

    /// A webhook.
    pub fn webhook(&mut self, row: &WebhookRow<'_>) {
        let at = self.webhook_at(row.id);
        self.webhooks[at as usize].max_attempts = row.max_attempts;
    }

    /// What the books count beside their rows.
    pub fn counters(&mut self, counters: Counters) {
        self.counters = counters;
    }

    /// Takes events for published that follow from a published action, and says which actions the books know.
    pub(super) fn derive(&self) -> (HashSet<u32>, HashSet<u32>) {
        let (mut derived, mut known) = (HashSet::new(), HashSet::new());
        for (at, action) in self.events.iter().enumerate().filter(|(_, event)| event.action) {
            let (tenant, id) = self.name_of(action);
            for event_type in &self.types {
                let event = |number| crate::trigger::event_id(tenant, id, event_type, number);
                let found = (0..).map_while(|number| {
                    let at = *self.event_of.get(&event_key(tenant, &event(number)))?;
                    self.events[at as usize].fate.map(|_| at)
                });
                for event in found {
                    derived.insert(event);
                    known.insert(at as u32);
                }
            }
        }
        (derived, known)
    }

    /// Tenant and id of an event.
    pub(super) fn name_of(&self, event: &Event) -> (&str, &str) {
        let from = event.name as usize;
        let id = from + usize::from(event.tenant_bytes);
        (&self.names[from..id], &self.names[id..id + usize::from(event.id_bytes)])
    }

    /// A delivery as people know it.
    pub(super) fn shown(&self, delivery: &Delivery) -> String {
        match self.odd.get(&delivery.key) {
            Some(odd) => odd.to_string(),
            None => crate::id::hex(&delivery.key),
        }
    }

    fn event_at(&mut self, tenant: &str, id: &str) -> u32 {
        let next = index(self.events.len());
        let at = *self.event_of.entry(event_key(tenant, id)).or_insert(next);
        if at == next {
            // Names are at most 64 and 128 bytes; longer ones are nobody's, and are shown cut.
            let (tenant, id) = (cut(tenant), cut(id));
            let name = index(self.names.len());
            self.names.push_str(tenant);
            self.names.push_str(id);
            self.events.push(Event {
                name,
                tenant_bytes: tenant.len() as u8,
                id_bytes: id.len() as u8,
                published: false,
                action: false,
                fate: None,
                owed: 0,
            });
        }
        at
    }

    fn delivery_at(&mut self, id: &str) -> u32 {
        let key = match ours(id) {
            Some(key) => key,
            None => {
                let key = key(&Sha256::digest(id).into());
                if self.odd.len() < MOST_NAMES {
                    self.odd.entry(key).or_insert_with(|| cut(id).into());
                }
                key
            }
        };
        let next = index(self.deliveries.len());
        let at = *self.delivery_of.entry(key).or_insert(next);
        if at == next {
            self.deliveries.push(Delivery { key, event: None, webhook: 0, known: false });
        }
        at
    }

    fn webhook_at(&mut self, id: &str) -> u32 {
        if let Some(at) = self.webhook_of.get(id) {
            return *at;
        }
        let at = index(self.webhooks.len());
        let covered = self.covered.as_ref().is_none_or(|covered| covered.contains(id));
        self.webhooks.push(Webhook { max_attempts: None, covered });
        self.webhook_of.insert(id.into(), at);
        at
    }
}

fn event_key(tenant: &str, id: &str) -> Key {
    key(&digest_of(&[tenant, id]))
}

fn key(digest: &[u8; 32]) -> Key {
    let mut key = [0; 16];
    key.copy_from_slice(&digest[..16]);
    key
}

/// The 16 bytes of an id of ours: 32 lower hexadecimal digits.
fn ours(id: &str) -> Option<Key> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let digits: &[u8; 32] = id.as_bytes().try_into().ok()?;
    let mut key = [0; 16];
    for (byte, two) in key.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(two[0])? << 4 | digit(two[1])?;
    }
    Some(key)
}

/// At most 200 bytes of a text.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(200)]
}

/// Tables have at most 2^32 rows.
fn index(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

fn narrow(n: u32) -> u16 {
    u16::try_from(n).unwrap_or(u16::MAX)
}

impl Run {
    /// The allowance for clocks, milliseconds.
    pub(super) fn allowance_ms(&self) -> i64 {
        i64::try_from(self.clock_ms.unwrap_or(5)).unwrap_or(i64::MAX)
    }
}
