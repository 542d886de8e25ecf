//! What a new version of a catalogue changes.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Catalogue, TriggerSpec, TypeEntry};

/// What kind of thing changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The product's name or note.
    Product,
    /// A category.
    Category,
    /// A group.
    Group,
    /// An event type.
    EventType,
    /// The triggers of an action.
    Trigger,
    /// The profile.
    Profile,
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is different.
    Changed,
}

/// One thing that a new version of a catalogue changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What kind of thing.
    pub part: Part,
    /// Which: its name or id; for triggers the action.
    pub name: String,
    /// What happens to it.
    pub how: How,
    /// The same in a sentence, with what follows from it.
    pub sentence: String,
}

/// What changes when `new` takes the place of `old`, or is imported for the first time.
///
/// The order in which things are shown is no change.
pub fn diff(old: Option<&Catalogue>, new: &Catalogue) -> Vec<Change> {
    let mut changes = Vec::new();
    let none = Catalogue {
        schema: new.schema,
        product: new.product.clone(),
        categories: Vec::new(),
        groups: Vec::new(),
        event_types: Vec::new(),
        triggers: Vec::new(),
        profile: None,
    };
    let old = old.unwrap_or(&none);
    if old.product != new.product {
        let name = new.product.id.clone();
        let fields: Vec<&str> = [
            ("id", old.product.id != new.product.id),
            ("name", old.product.name != new.product.name),
            ("note", old.product.note != new.product.note),
        ]
        .into_iter()
        .filter_map(|(field, differs)| differs.then_some(field))
        .collect();
        let sentence = format!("product {name}: {} changed", listed(&fields));
        changes.push(Change { part: Part::Product, name, how: How::Changed, sentence });
    }
    compare(
        Part::Category,
        by_id(&old.categories, |c| &c.id),
        by_id(&new.categories, |c| &c.id),
        &mut changes,
    );
    compare(Part::Group, by_id(&old.groups, |g| &g.id), by_id(&new.groups, |g| &g.id), &mut changes);
    compare(
        Part::EventType,
        by_id(&old.event_types, |entry| entry.name.as_str()),
        by_id(&new.event_types, |entry| entry.name.as_str()),
        &mut changes,
    );
    compare(Part::Trigger, by_action(&old.triggers), by_action(&new.triggers), &mut changes);
    let profile = |catalogue: &Catalogue| {
        catalogue.profile.iter().map(|profile| (profile.name.clone(), profile.clone())).collect()
    };
    compare(Part::Profile, profile(old), profile(new), &mut changes);
    changes
}

/// Something that may have changed.
trait Compared: Clone {
    /// What is different, each in a phrase; empty when nothing is.
    fn differences(&self, new: &Self) -> Vec<String>;

    /// What follows for those who look for it where it was added or removed.
    fn follows(&self, how: How) -> String {
        let _ = how;
        String::new()
    }
}

fn by_id<T: Clone>(items: &[T], id: impl Fn(&T) -> &str) -> BTreeMap<String, T> {
    items.iter().map(|item| (id(item).to_owned(), item.clone())).collect()
}

fn by_action(triggers: &[TriggerSpec]) -> BTreeMap<String, Vec<TriggerSpec>> {
    let mut map: BTreeMap<String, Vec<TriggerSpec>> = BTreeMap::new();
    for trigger in triggers {
        map.entry(trigger.action.as_str().to_owned()).or_default().push(trigger.clone());
    }
    map
}

fn compare<T: Compared>(
    part: Part,
    old: BTreeMap<String, T>,
    new: BTreeMap<String, T>,
    changes: &mut Vec<Change>,
) {
    let what = match part {
        Part::Product => "product",
        Part::Category => "category",
        Part::Group => "group",
        Part::EventType => "event type",
        Part::Trigger => "triggers of the action",
        Part::Profile => "profile",
    };
    for (name, item) in &new {
        match old.get(name) {
            None => changes.push(Change {
                part,
                name: name.clone(),
                how: How::Added,
                sentence: format!("{what} {name}: new{}", item.follows(How::Added)),
            }),
            Some(before) => {
                let differences = before.differences(item);
                if !differences.is_empty() {
                    changes.push(Change {
                        part,
                        name: name.clone(),
                        how: How::Changed,
                        sentence: format!("{what} {name}: {}", differences.join("; ")),
                    });
                }
            }
        }
    }
    for (name, item) in old.iter().filter(|(name, _)| !new.contains_key(*name)) {
        changes.push(Change {
            part,
            name: name.clone(),
            how: How::Removed,
            sentence: format!("{what} {name}: removed{}", item.follows(How::Removed)),
        });
    }
}

/// `a, b and c`.
fn listed(items: &[&str]) -> String {
    match items {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}

/// `label and description changed` for those that did.
fn changed(fields: &[(&str, bool)]) -> Option<String> {
    let names: Vec<&str> = fields.iter().filter_map(|(name, differs)| differs.then_some(*name)).collect();
    (!names.is_empty()).then(|| format!("{} changed", listed(&names)))
}

impl Compared for super::Category {
    fn differences(&self, new: &Self) -> Vec<String> {
        let fields =
            [("label", self.label != new.label), ("description", self.description != new.description)];
        changed(&fields).into_iter().collect()
    }

    fn follows(&self, how: How) -> String {
        match how {
            How::Removed => "; webhooks that name it take nothing more through it".to_owned(),
            How::Added | How::Changed => String::new(),
        }
    }
}

impl Compared for super::Group {
    fn differences(&self, new: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        if self.category != new.category {
            differences.push(format!("moves from the category {} to {}", self.category, new.category));
        }
        let fields =
            [("label", self.label != new.label), ("description", self.description != new.description)];
        differences.extend(changed(&fields));
        differences
    }

    fn follows(&self, how: How) -> String {
        match how {
            How::Added => format!(", in the category {}", self.category),
            How::Removed => "; webhooks that name it take nothing more through it".to_owned(),
            How::Changed => String::new(),
        }
    }
}

impl Compared for TypeEntry {
    fn differences(&self, new: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        if self.category != new.category {
            differences.push(format!("moves from the category {} to {}", self.category, new.category));
        }
        if self.group != new.group {
            let shown = |group: &Option<String>| match group {
                Some(group) => format!("the group {group}"),
                None => "no group".to_owned(),
            };
            differences.push(format!("moves from {} to {}", shown(&self.group), shown(&new.group)));
        }
        for alias in new.aliases.iter().filter(|alias| !self.aliases.contains(alias)) {
            differences.push(format!("{:?} is a new alias", alias.as_str()));
        }
        for alias in self.aliases.iter().filter(|alias| !new.aliases.contains(alias)) {
            differences.push(format!("{:?} is no alias any more", alias.as_str()));
        }
        if self.sensitive != new.sensitive {
            let shown = if new.sensitive { "is sensitive now" } else { "is not sensitive any more" };
            differences.push(shown.to_owned());
        }
        if self.lead_days != new.lead_days {
            let shown = |days: Option<u32>| days.map_or("none".to_owned(), |days| days.to_string());
            differences.push(format!(
                "lead_days goes from {} to {}",
                shown(self.lead_days),
                shown(new.lead_days)
            ));
        }
        differences.extend(changed(&[
            ("label", self.label != new.label),
            ("description", self.description != new.description),
            ("conditions", self.conditions != new.conditions || self.conditions_open != new.conditions_open),
            ("code", self.code != new.code),
            ("trigger", self.trigger != new.trigger),
            ("split_from", self.split_from != new.split_from),
            ("data_schema", self.data_schema != new.data_schema),
            ("example", self.example != new.example),
        ]));
        differences
    }

    fn follows(&self, how: How) -> String {
        match (how, &self.group) {
            (How::Added, None) => format!(", in the category {}", self.category),
            (How::Added, Some(group)) => format!(", in the category {}, group {group}", self.category),
            (How::Removed, _) => {
                "; events of it become unknown, and reach only webhooks that take everything or name it"
                    .to_owned()
            }
            (How::Changed, _) => String::new(),
        }
    }
}

impl Compared for Vec<TriggerSpec> {
    fn differences(&self, new: &Self) -> Vec<String> {
        if self == new {
            return Vec::new();
        }
        let (before, after) = (emitted(self), emitted(new));
        if before == after {
            return vec!["conditions, data or descriptions changed".to_owned()];
        }
        vec![format!("emit {after} instead of {before}")]
    }

    fn follows(&self, how: How) -> String {
        match how {
            How::Added => format!(", emit {}", emitted(self)),
            How::Removed => "; upstream's reports of it are refused".to_owned(),
            How::Changed => String::new(),
        }
    }
}

/// The types that triggers emit.
fn emitted(triggers: &[TriggerSpec]) -> String {
    let mut names: Vec<&str> =
        triggers.iter().flat_map(|trigger| &trigger.emit).map(|emit| emit.event_type.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    listed(&names)
}

impl Compared for crate::profile::ProfileSpec {
    fn differences(&self, new: &Self) -> Vec<String> {
        if self == new {
            return Vec::new();
        }
        let fields = changed(&[
            ("description", self.description != new.description),
            ("body", self.body != new.body || self.members != new.members),
            ("content_type", self.content_type != new.content_type),
            ("headers", self.headers != new.headers),
            ("versions", self.version != new.version || self.other_versions != new.other_versions),
            ("signature", self.signature != new.signature),
            ("secret", self.secret != new.secret),
            ("success", self.success != new.success),
            ("retries", self.retried != new.retried || self.retry != new.retry),
            ("timeout_ms", self.timeout_ms != new.timeout_ms),
            ("disable_after_failures", self.disable_after_failures != new.disable_after_failures),
            ("disable_after_ms", self.disable_after_ms != new.disable_after_ms),
            ("max_active_webhooks", self.max_active_webhooks != new.max_active_webhooks),
            ("https_only", self.https_only != new.https_only),
        ]);
        vec![match fields {
            Some(fields) => format!("{fields}, for all webhooks that use it, from their next attempt on"),
            None => "changed, for all webhooks that use it, from their next attempt on".to_owned(),
        }]
    }

    fn follows(&self, how: How) -> String {
        match how {
            How::Removed => "; webhooks that use it must name another one first".to_owned(),
            How::Added | How::Changed => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::own;

    fn sentences(old: Option<&Catalogue>, new: &Catalogue) -> Vec<String> {
        diff(old, new).into_iter().map(|change| change.sentence).collect()
    }

    #[test]
    fn the_first_time_everything_is_new() {
        let changes = diff(None, &own());
        assert!(changes.iter().all(|change| change.how == How::Added));
        assert_eq!(changes.len(), 4);
        assert_eq!(changes[1].sentence, "event type postrider.delivery.dead: new, in the category postrider");
    }

    #[test]
    fn nothing_changes_when_only_the_order_does() {
        let mut other = own();
        other.event_types.reverse();
        assert_eq!(diff(Some(&own()), &other), []);
    }

    #[test]
    fn every_change_is_a_sentence() {
        let old = own();
        let mut new = own();
        new.product.note.clear();
        new.event_types.remove(0);
        let entry = &mut new.event_types[0];
        entry.label = "Other".to_owned();
        entry.description.clear();
        entry.sensitive = true;
        entry.aliases = vec![crate::EventType::parse("off").unwrap()];
        new.event_types[1].category = "elsewhere".to_owned();
        new.triggers = vec![TriggerSpec {
            action: crate::EventType::parse("give up").unwrap(),
            when: None,
            description: String::new(),
            emit: vec![super::super::EmitSpec {
                event_type: new.event_types[0].name.clone(),
                when: None,
                for_each: Vec::new(),
                data: None,
                key: None,
            }],
        }];
        assert_eq!(
            sentences(Some(&old), &new),
            [
                "product postrider: note changed",
                "event type postrider.delivery.dead: moves from the category postrider to elsewhere",
                "event type postrider.webhook.disabled: \"off\" is a new alias; is sensitive now; \
                 label and description changed",
                "event type postrider.webhook.failing: removed; events of it become unknown, and reach only \
                 webhooks that take everything or name it",
                "triggers of the action give up: new, emit postrider.webhook.disabled",
            ]
        );
        assert_eq!(
            sentences(Some(&new), &old)[4],
            "triggers of the action give up: removed; upstream's reports of it are refused"
        );
    }
}
