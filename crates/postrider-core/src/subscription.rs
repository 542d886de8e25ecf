//! Which events a webhook takes.

use std::collections::BTreeSet;

use crate::event::EventType;

/// The part of a webhook that says which events it takes: all of them, or the named types.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscription {
    /// Every type, also those that do not exist yet.
    pub all: bool,
    /// These types, compared exactly.
    pub event_types: BTreeSet<EventType>,
}

impl Subscription {
    /// Every event type.
    pub fn all() -> Self {
        Self { all: true, event_types: BTreeSet::new() }
    }

    /// The named types.
    pub fn of(event_types: impl IntoIterator<Item = EventType>) -> Self {
        Self { all: false, event_types: event_types.into_iter().collect() }
    }

    /// Whether it takes events of this type.
    pub fn takes(&self, event_type: &EventType) -> bool {
        self.all || self.event_types.contains(event_type)
    }

    /// Whether it can take no event at all.
    pub fn is_empty(&self) -> bool {
        !self.all && self.event_types.is_empty()
    }
}
