//! What is made for a webhook and kept until the webhook changes: at most so many, the least recently used go first.
//!
//! Revisions alone do not say that it changed: those of a restored store start again, so what is sealed counts too.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use postrider_core::webhook::SealedCredentials;
use postrider_core::{Webhook, WebhookId};

/// Things of webhooks, each made for one revision with its secrets.
#[derive(Debug)]
pub(crate) struct Kept<V> {
    most: usize,
    entries: Mutex<Entries<V>>,
}

#[derive(Debug)]
struct Entries<V> {
    of: HashMap<WebhookId, Entry<V>>,
    uses: u64,
}

#[derive(Debug)]
struct Entry<V> {
    revision: u64,
    sealed: SealedCredentials,
    used: u64,
    value: Arc<V>,
}

impl<V: Default> Kept<V> {
    /// Keeps at most this many.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, entries: Mutex::new(Entries { of: HashMap::new(), uses: 0 }) }
    }

    /// What is kept of the webhook as it is; empty when there was nothing.
    pub(crate) fn of(&self, webhook: &Webhook) -> Arc<V> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.uses += 1;
        let used = entries.uses;
        if let Some(entry) = entries.of.get_mut(&webhook.id)
            && entry.revision == webhook.revision
            && entry.sealed == webhook.sealed
        {
            entry.used = used;
            return entry.value.clone();
        }
        entries.of.remove(&webhook.id);
        if entries.of.len() >= self.most
            && let Some(oldest) =
                entries.of.iter().min_by_key(|(_, entry)| entry.used).map(|(id, _)| id.clone())
        {
            entries.of.remove(&oldest);
        }
        let value = Arc::<V>::default();
        let sealed = webhook.sealed.clone();
        let entry = Entry { revision: webhook.revision, sealed, used, value: value.clone() };
        entries.of.insert(webhook.id.clone(), entry);
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    use postrider_core::TenantId;
    use postrider_core::wire::WebhookRecord;

    fn webhook(id: &str, revision: u64) -> Webhook {
        let record = WebhookRecord::new(
            WebhookId::from_trusted(id),
            TenantId::default_tenant(),
            "https://example.com/",
        );
        record.webhook(revision).unwrap()
    }

    #[test]
    fn it_keeps_until_the_webhook_changes_and_forgets_what_was_not_used_for_longest() {
        let kept = Kept::<AtomicU32>::new(2);
        kept.of(&webhook("a", 1)).store(1, Ordering::Relaxed);
        kept.of(&webhook("b", 1)).store(2, Ordering::Relaxed);
        let look = |id, revision| kept.of(&webhook(id, revision)).load(Ordering::Relaxed);
        assert_eq!(look("a", 1), 1);
        assert_eq!(look("c", 1), 0, "it takes the place of b");
        assert_eq!(look("a", 1), 1);
        assert_eq!(look("b", 1), 0);
        assert_eq!(look("a", 2), 0, "a newer revision begins anew");
    }

    #[test]
    fn other_secrets_under_the_same_revision_are_another_webhook() {
        let kept = Kept::<AtomicU32>::new(2);
        let of = |auth: &str| {
            let mut webhook = webhook("a", 7);
            webhook.sealed.auth = Some(auth.to_owned());
            webhook
        };
        kept.of(&of("before the restore")).store(1, Ordering::Relaxed);
        assert_eq!(kept.of(&of("before the restore")).load(Ordering::Relaxed), 1);
        assert_eq!(kept.of(&of("after it")).load(Ordering::Relaxed), 0);
    }
}
