//! Which events were accepted lately.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use postrider_core::{EventId, TenantId, Timestamp};

/// How long an id is remembered at least, milliseconds (DESIGN §6).
pub(crate) const WINDOW_MS: u64 = 3_600_000;
/// Over how long ids are kept together, and forgotten together, milliseconds.
const SPAN_MS: u64 = WINDOW_MS / 4;
/// How many ids are remembered at least, where the window has so many; the oldest beyond are forgotten.
const ENOUGH_IDS: usize = 5_000_000;
/// How many are kept together, at most: a set of a million places doubles when seven of eight are taken.
const MOST_TOGETHER: usize = (1 << 20) / 8 * 7;

/// An id of a tenant's event, as a hash.
type Fingerprint = [u8; 10];

/// The ids of the last hour, in a few sets by age: an id is 10 bytes in one of them and a place in no list beside it, so that 5 million
/// take some 70 MB. The oldest set is dropped as a whole, so some are remembered for a quarter of an hour longer.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The oldest first.
    sets: VecDeque<Set>,
}

#[derive(Debug)]
struct Set {
    since: Timestamp,
    newest: Timestamp,
    ids: HashSet<Fingerprint>,
}

impl Seen {
    /// Whether this event was accepted within the window.
    pub(crate) fn knows(&self, tenant: &TenantId, event: &EventId) -> bool {
        self.has(&fingerprint(tenant, event))
    }

    /// Notes an accepted event; `false` when it was known.
    pub(crate) fn note(&mut self, tenant: &TenantId, event: &EventId, at: Timestamp) -> bool {
        let id = fingerprint(tenant, event);
        if self.has(&id) {
            return false;
        }
        let open = |set: &&mut Set| at.since_ms(set.since) < SPAN_MS && set.ids.len() < MOST_TOGETHER;
        match self.sets.back_mut().filter(open) {
            Some(set) => {
                set.newest = set.newest.max(at);
                set.ids.insert(id);
            }
            None => self.sets.push_back(Set { since: at, newest: at, ids: HashSet::from([id]) }),
        }
        true
    }

    /// Forgets what is older than the window, and the oldest where enough are remembered without them.
    pub(crate) fn forget(&mut self, now: Timestamp) {
        while let Some(oldest) = self.sets.front() {
            let others: usize = self.sets.iter().skip(1).map(|set| set.ids.len()).sum();
            if now.since_ms(oldest.newest) <= WINDOW_MS && others < ENOUGH_IDS {
                return;
            }
            self.sets.pop_front();
        }
    }

    fn has(&self, id: &Fingerprint) -> bool {
        // What comes again comes soon, mostly.
        self.sets.iter().rev().any(|set| set.ids.contains(id))
    }
}

/// Of two hashes with different prefixes, 80 bits: the same in every process of this build. That one of 5 million others has the same
/// is out of reach of chance (4e-18 for each event).
fn fingerprint(tenant: &TenantId, event: &EventId) -> Fingerprint {
    let half = |prefix: u8| {
        let mut hasher = DefaultHasher::new();
        prefix.hash(&mut hasher);
        tenant.hash(&mut hasher);
        event.hash(&mut hasher);
        hasher.finish().to_le_bytes()
    };
    let ([a, b, c, d, e, f, g, h], [i, j, ..]) = (half(1), half(2));
    [a, b, c, d, e, f, g, h, i, j]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_known_for_the_window_and_per_tenant() {
        let (a, b) = (TenantId::from_trusted("a"), TenantId::from_trusted("b"));
        let id = EventId::from_trusted("e");
        let start = Timestamp::from_millis(1_000_000);
        let mut seen = Seen::default();
        assert!(seen.note(&a, &id, start));
        assert!(!seen.note(&a, &id, start));
        assert!(seen.knows(&a, &id) && !seen.knows(&b, &id));
        seen.forget(start.plus_ms(WINDOW_MS));
        assert!(seen.knows(&a, &id));
        seen.forget(start.plus_ms(WINDOW_MS + 1));
        assert!(!seen.knows(&a, &id));
    }

    /// Also where some are told a little late.
    #[test]
    fn what_is_younger_than_the_window_is_known_and_what_is_much_older_is_not() {
        let tenant = TenantId::from_trusted("a");
        let id = |n: u64| EventId::from_trusted(format!("e{n}"));
        let mut seen = Seen::default();
        let begun = Timestamp::from_millis(1_000_000_000);
        let minute = |n: u64| begun.plus_ms(n * 60_000);
        for n in 0..300 {
            let at = if n % 5 == 0 { minute(n).minus_ms(30_000) } else { minute(n) };
            assert!(seen.note(&tenant, &id(n), at), "{n}");
            seen.forget(minute(n));
            for age in 0..=n {
                let known = seen.knows(&tenant, &id(n - age));
                assert!(known || age >= 60, "after {age} minutes at {n}");
                assert!(!known || age <= 76, "after {age} minutes at {n}");
            }
            assert!(seen.sets.len() <= 6, "{} sets", seen.sets.len());
        }
    }

    #[test]
    fn no_more_are_kept_than_fit() {
        let tenant = TenantId::from_trusted("a");
        let at = Timestamp::from_millis(1_000_000);
        let mut seen = Seen::default();
        let full = (0..MOST_TOGETHER as u64).map(|n| {
            let [a, b, c, d, e, f, g, h] = n.to_le_bytes();
            [a, b, c, d, e, f, g, h, 0, 0]
        });
        let ids: HashSet<Fingerprint> = full.collect();
        assert_eq!(ids.capacity(), MOST_TOGETHER, "no place is left, and no more are taken");
        for _ in 0..8 {
            seen.sets.push_back(Set { since: at, newest: at, ids: ids.clone() });
        }
        let id = EventId::from_trusted("e");
        assert!(seen.note(&tenant, &id, at));
        assert_eq!(seen.sets.len(), 9, "a set that is full takes no more");
        seen.forget(at);
        let kept: usize = seen.sets.iter().map(|set| set.ids.len()).sum();
        assert!((ENOUGH_IDS..ENOUGH_IDS + MOST_TOGETHER).contains(&kept), "{kept}");
        assert!(seen.knows(&tenant, &id));
    }
}
