//! Keys of the API: what they look like, what they are for, and when they were used.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use postrider_core::Timestamp;
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::store::{KeyRow, Store};

/// What every key begins with.
const PREFIX: &str = "ptr_";
/// How often the use of a key is written down at most, milliseconds.
pub(crate) const USE_WRITTEN_MS: u64 = 60 * 1000;
/// Keys whose use waits to be written; the use of more is written later.
const MAX_USES: usize = 4096;
/// How long uses are gathered before they are written.
const GATHER: Duration = Duration::from_secs(1);

/// What a key is for. A closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyScope {
    /// Publishing events, and writing reminders.
    EventsWrite,
    /// Everything that is read, except secrets.
    Read,
    /// Webhooks with their secrets, catalogues, settings, cancelling and dead letters.
    Manage,
    /// Making deliveries again.
    Replay,
    /// Everything, of every tenant: also tenants, keys and the books of the whole installation.
    Admin,
}

impl KeyScope {
    /// Every scope.
    pub(crate) const ALL: [Self; 5] =
        [Self::EventsWrite, Self::Read, Self::Manage, Self::Replay, Self::Admin];

    /// One word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::EventsWrite => "events:write",
            Self::Read => "read",
            Self::Manage => "manage",
            Self::Replay => "replay",
            Self::Admin => "admin",
        }
    }

    /// The scope of this word.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == word)
    }

    fn bit(self) -> u8 {
        1 << (self as u8)
    }
}

/// The scopes of a key, each once.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct KeyScopes(u8);

impl KeyScopes {
    /// Whether it is for all tenants and everything.
    pub(crate) fn is_admin(self) -> bool {
        self.0 & KeyScope::Admin.bit() != 0
    }

    /// Whether a key with these may do what needs this scope. `admin` includes the others: who has it can make a key with any.
    pub(crate) fn allow(self, scope: KeyScope) -> bool {
        self.is_admin() || self.0 & scope.bit() != 0
    }

    /// The words, in the order of the list.
    pub(crate) fn words(self) -> Vec<&'static str> {
        let has = |scope: &KeyScope| self.0 & scope.bit() != 0;
        KeyScope::ALL.into_iter().filter(has).map(KeyScope::as_str).collect()
    }

    /// What [`Self::words`] gave, with spaces between them.
    pub(crate) fn parse(words: &str) -> Option<Self> {
        words.split(' ').map(KeyScope::parse).collect()
    }
}

impl FromIterator<KeyScope> for KeyScopes {
    fn from_iter<I: IntoIterator<Item = KeyScope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |all, scope| all | scope.bit()))
    }
}

impl std::fmt::Debug for KeyScopes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.words().join(" "))
    }
}

/// All that is kept of a key: its SHA-256.
///
/// That is enough, without salt and without a slow hash. Those make it dear to try the passwords that people choose; a key is
/// 256 random bits, of which nobody can try a part worth mentioning, however quick the hash is. Looking a hash up tells nothing
/// by its time either: who does not have the key cannot choose what it is hashed to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyHash([u8; 32]);

impl KeyHash {
    /// The hash of what somebody sent as a key.
    pub(crate) fn of(given: &str) -> Self {
        Self(Sha256::digest(given).into())
    }

    /// Its bytes.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyHash(…)")
    }
}

/// A key that was just made: `ptr_` and 43 characters. It is shown once, and kept by nobody here.
pub(crate) struct FreshKey(Zeroizing<String>);

impl FreshKey {
    /// The key of these random bytes.
    pub(crate) fn of(random: [u8; 32]) -> Self {
        Self(Zeroizing::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random))))
    }

    /// The key itself.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    pub(crate) fn hash(&self) -> KeyHash {
        KeyHash::of(&self.0)
    }

    /// Its last four characters, by which people tell it from others.
    pub(crate) fn hint(&self) -> &str {
        &self.0[self.0.len() - 4..]
    }
}

impl std::fmt::Debug for FreshKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FreshKey(…)")
    }
}

/// Keys that were used, until it is written down. No request waits for that.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    waiting: Mutex<HashMap<String, Timestamp>>,
    wake: Notify,
}

impl Uses {
    /// Notes that a key is used now, unless that was written down less than a minute ago.
    pub(crate) fn note(&self, key: &KeyRow, now: Timestamp) {
        if key.last_used_at.is_some_and(|at| now < at.plus_ms(USE_WRITTEN_MS)) {
            return;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < MAX_USES && waiting.insert(key.id.clone(), now).is_none() {
            self.wake.notify_one();
        }
    }

    fn take(&self) -> Vec<(String, Timestamp)> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).drain().collect()
    }

    /// Writes down what waits. What cannot be written is forgotten: the next use comes soon.
    pub(crate) async fn write(&self, store: &Store) {
        let uses = self.take();
        if uses.is_empty() {
            return;
        }
        if let Err(error) = store.note_uses(&uses).await {
            tracing::warn!(%error, keys = uses.len(), "the use of API keys cannot be written down");
        }
    }

    /// Writes down uses until `stop`, and what is left then.
    pub(crate) async fn run(&self, store: &Arc<Store>, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => {}
                () = async { self.wake.notified().await; tokio::time::sleep(GATHER).await } => {}
            }
            self.write(store).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_256_random_bits_behind_a_prefix() {
        let key = FreshKey::of([0xfb; 32]);
        assert_eq!(key.reveal().len(), 47);
        assert!(key.reveal().starts_with("ptr_-_v7"), "letters of base64url");
        assert_eq!(key.hint(), &key.reveal()[43..]);
        assert_eq!(key.hash(), KeyHash::of(key.reveal()));
        assert_ne!(key.hash(), FreshKey::of([0xfa; 32]).hash());
        assert!(!format!("{key:?} {:?}", key.hash()).contains("-_v7"));
    }

    #[test]
    fn scopes_are_words_and_admin_includes_them_all() {
        let all: KeyScopes = KeyScope::ALL.into_iter().collect();
        assert_eq!(all.words().join(" "), "events:write read manage replay admin");
        assert_eq!(
            KeyScopes::parse("replay read"),
            Some([KeyScope::Read, KeyScope::Replay].into_iter().collect())
        );
        for bad in ["", "read ", "write", "Read", "read,manage"] {
            assert_eq!(KeyScopes::parse(bad), None, "{bad}");
        }
        for scope in KeyScope::ALL {
            let one: KeyScopes = std::iter::once(scope).collect();
            for other in KeyScope::ALL {
                assert_eq!(
                    one.allow(other),
                    scope == other || scope == KeyScope::Admin,
                    "{scope:?} {other:?}"
                );
            }
        }
        assert!(KeyScope::ALL.into_iter().all(|scope| !KeyScopes::default().allow(scope)));
    }
}
