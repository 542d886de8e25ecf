//! Which events a webhook takes.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::catalogue::TypeEntry;
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

/// By what of a subscription a type is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// Its name.
    Type,
    /// One of its aliases.
    Alias,
    /// Its group.
    Group,
    /// Its category.
    Category,
    /// Everything is taken.
    All,
}

/// One way in which a type is taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Way {
    /// By what.
    pub by: By,
    /// What the subscription names: the type, the alias, the group's id, the category's id; `all` for everything.
    pub name: String,
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

    /// The ways in which it takes a type: by its name, and by what its entry says where a catalogue has one. One is
    /// enough. `own` is whether the event is one of Postrider's own, which is not taken by taking everything.
    pub fn ways<'a>(
        &'a self,
        event_type: &'a EventType,
        entry: Option<&'a TypeEntry>,
        own: bool,
    ) -> impl Iterator<Item = (By, &'a str)> {
        let named = |name: &&EventType| self.event_types.contains(*name);
        let name = Some(event_type).filter(named).map(|name| (By::Type, name.as_str()));
        let aliases = entry.into_iter().flat_map(|entry| &entry.aliases);
        let aliases = aliases.filter(named).map(|alias| (By::Alias, alias.as_str()));
        let group = entry.and_then(|entry| entry.group.as_deref());
        let group = group.filter(|id| self.groups.contains(*id)).map(|id| (By::Group, id));
        let category = entry.map(|entry| entry.category.as_str());
        let category = category.filter(|id| self.categories.contains(*id)).map(|id| (By::Category, id));
        let all = (self.all && !own).then_some((By::All, "all"));
        name.into_iter().chain(aliases).chain(group).chain(category).chain(all)
    }
}
