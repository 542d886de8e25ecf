//! Which events a webhook takes.

use std::collections::BTreeSet;

use crate::event::EventType;

/// The part of a webhook that says which events it takes: all of them, or those of named types, groups and categories.
///
/// Groups and categories stay rules: a type that a catalogue adds to one later is taken from then on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscription {
    /// Every type, also those that do not exist yet; but not Postrider's own events, which are taken only by name, group
    /// or category.
    pub all: bool,
    /// These types, by name or alias, compared exactly.
    pub event_types: BTreeSet<EventType>,
    /// The types of these groups, by the group's id.
    pub groups: BTreeSet<String>,
    /// The types of these categories, by the category's id.
    pub categories: BTreeSet<String>,
    /// CEL that must hold of the event as well.
    pub filter: Option<String>,
}

impl Subscription {
    /// Every event type.
    pub fn all() -> Self {
        Self { all: true, ..Self::default() }
    }

    /// The named types.
    pub fn of(event_types: impl IntoIterator<Item = EventType>) -> Self {
        Self { event_types: event_types.into_iter().collect(), ..Self::default() }
    }

    /// Whether it can take no event at all.
    pub fn is_empty(&self) -> bool {
        !self.all && self.event_types.is_empty() && self.groups.is_empty() && self.categories.is_empty()
    }
}
