//! Which events were accepted lately.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use postrider_core::{EventId, TenantId, Timestamp};

/// How long an id is remembered, milliseconds (DESIGN §6).
pub(crate) const WINDOW_MS: u64 = 3_600_000;
/// How many ids are remembered, at most.
const MAX_IDS: usize = 5_000_000;

/// The ids of the last hour, as 128-bit hashes: 16 bytes for each, whatever the ids' lengths.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    known: HashSet<u128>,
    by_age: VecDeque<(Timestamp, u128)>,
}

impl Seen {
    /// Whether this event was accepted within the window.
    pub(crate) fn knows(&self, tenant: &TenantId, event: &EventId) -> bool {
        self.known.contains(&fingerprint(tenant, event))
    }

    /// Notes an accepted event; `false` when it was known.
    pub(crate) fn note(&mut self, tenant: &TenantId, event: &EventId, at: Timestamp) -> bool {
        let id = fingerprint(tenant, event);
        let new = self.known.insert(id);
        if new {
            self.by_age.push_back((at, id));
        }
        new
    }

    /// Forgets what is older than the window, and the oldest above the most that are remembered.
    pub(crate) fn forget(&mut self, now: Timestamp) {
        while let Some((at, id)) = self.by_age.front() {
            if now.since_ms(*at) <= WINDOW_MS && self.by_age.len() <= MAX_IDS {
                return;
            }
            self.known.remove(id);
            self.by_age.pop_front();
        }
    }
}

/// Two hashes with different prefixes: the same in every process of this build, and collisions are out of reach of
/// chance (5 million ids: 4e-26).
fn fingerprint(tenant: &TenantId, event: &EventId) -> u128 {
    let half = |prefix: u8| {
        let mut hasher = DefaultHasher::new();
        prefix.hash(&mut hasher);
        tenant.hash(&mut hasher);
        event.hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(1) << 64 | half(2)
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
}
