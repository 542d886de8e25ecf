//! Which webhooks of a tenant may take a type, without looking at the others.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use crate::catalogue::TypeEntry;
use crate::event::EventType;
use crate::id::WebhookId;
use crate::subscription::Subscription;

/// Webhooks by what their subscriptions name. What that means is asked of the catalogues when an event is routed, so it
/// does not matter which of them arrived first.
#[derive(Debug, Default)]
pub(super) struct Takers {
    of_name: HashMap<EventType, BTreeSet<WebhookId>>,
    of_group: HashMap<Arc<str>, BTreeSet<WebhookId>>,
    of_category: HashMap<Arc<str>, BTreeSet<WebhookId>>,
    of_all: BTreeSet<WebhookId>,
}

impl Takers {
    /// Notes a webhook, and gives its subscription's names the storage that they have here, so that a name takes memory
    /// once however many webhooks have it.
    pub(super) fn add(&mut self, id: &WebhookId, subscription: &mut Subscription) {
        if subscription.all {
            self.of_all.insert(id.clone());
        }
        for name in std::mem::take(&mut subscription.event_types) {
            let name = self.of_name.get_key_value(&name).map_or(name, |(kept, _)| kept.clone());
            self.of_name.entry(name.clone()).or_default().insert(id.clone());
            subscription.event_types.insert(name);
        }
        for group in &subscription.groups {
            add_to(&mut self.of_group, group, id);
        }
        for category in &subscription.categories {
            add_to(&mut self.of_category, category, id);
        }
    }

    /// Forgets a webhook.
    pub(super) fn remove(&mut self, id: &WebhookId, subscription: &Subscription) {
        self.of_all.remove(id);
        for name in &subscription.event_types {
            remove_from(&mut self.of_name, name, id);
        }
        for group in &subscription.groups {
            remove_from(&mut self.of_group, group.as_str(), id);
        }
        for category in &subscription.categories {
            remove_from(&mut self.of_category, category.as_str(), id);
        }
    }

    /// Those whose subscription names this type in any way, each once, in order of their ids.
    pub(super) fn of<'a>(
        &'a self,
        event_type: &EventType,
        entry: Option<&TypeEntry>,
        own: bool,
    ) -> Vec<&'a WebhookId> {
        let mut sets: Vec<&BTreeSet<WebhookId>> = Vec::new();
        sets.extend(self.of_name.get(event_type));
        if let Some(entry) = entry {
            sets.extend(entry.aliases.iter().filter_map(|alias| self.of_name.get(alias)));
            sets.extend(entry.group.as_deref().and_then(|group| self.of_group.get(group)));
            sets.extend(self.of_category.get(entry.category.as_str()));
        }
        if !own && !self.of_all.is_empty() {
            sets.push(&self.of_all);
        }
        let mut found: Vec<&WebhookId> = sets.iter().copied().flatten().collect();
        if sets.len() > 1 {
            found.sort_unstable();
            found.dedup();
        }
        found
    }
}

fn add_to(map: &mut HashMap<Arc<str>, BTreeSet<WebhookId>>, name: &str, id: &WebhookId) {
    match map.get_mut(name) {
        Some(takers) => {
            takers.insert(id.clone());
        }
        None => {
            map.insert(name.into(), BTreeSet::from([id.clone()]));
        }
    }
}

fn remove_from<K, Q>(map: &mut HashMap<K, BTreeSet<WebhookId>>, name: &Q, id: &WebhookId)
where
    K: std::borrow::Borrow<Q> + Hash + Eq,
    Q: Hash + Eq + ?Sized,
{
    if let Some(takers) = map.get_mut(name) {
        takers.remove(id);
        if takers.is_empty() {
            map.remove(name);
        }
    }
}
