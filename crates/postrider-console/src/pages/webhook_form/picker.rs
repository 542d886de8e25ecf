//! Event types to choose from, by category and group, and what else catalogues bring: labels and profiles.

use std::collections::BTreeSet;

use postrider_core::catalogue::OWN;
use postrider_core::profile::{BUILT_IN, Profile, ProfileSpec};
use serde::Deserialize;

use crate::api::{Listed, Refused, segment};
use crate::page::Visit;
use crate::words::number;

/// The most event types that are read for a page.
const MAX_TYPES: usize = 2_000;
/// How many the API gives at a time.
const PAGE: &str = "200";

/// An event type, as the API shows it.
#[derive(Debug, Deserialize)]
pub(crate) struct TypeItem {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) label: String,
    #[serde(default)]
    pub(crate) aliases: Vec<String>,
    pub(crate) product: String,
    pub(crate) category: String,
    #[serde(default)]
    pub(crate) group: Option<String>,
    #[serde(default)]
    pub(crate) description: String,
    #[serde(default)]
    pub(crate) events_24h: u64,
    #[serde(default)]
    pub(crate) sensitive: bool,
}

/// What is read of a catalogue.
#[derive(Debug, Deserialize)]
pub(crate) struct Catalogue {
    product: Product,
    #[serde(default, rename = "category")]
    categories: Vec<Term>,
    #[serde(default, rename = "group")]
    groups: Vec<Term>,
    #[serde(default)]
    profile: Option<ProfileSpec>,
}

#[derive(Debug, Deserialize)]
struct Product {
    id: String,
    name: String,
}

#[derive(Debug, Deserialize)]
struct Term {
    id: String,
    label: String,
}

#[derive(Debug, Deserialize)]
struct Summary {
    product: String,
}

/// Everything that the form chooses from.
#[derive(Debug, Default)]
pub(crate) struct Known {
    types: Vec<TypeItem>,
    catalogues: Vec<Catalogue>,
    /// There are more types than are read.
    pub(crate) cut: bool,
    /// Why there are no types, if the API did not give them.
    pub(crate) unread: Option<String>,
}

/// Types of one category.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) title: String,
    pub(crate) product: String,
    pub(crate) size: usize,
    pub(crate) chosen: usize,
    pub(crate) blocks: Vec<Block>,
}

/// Types of one group, or of none.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) title: String,
    pub(crate) grouped: bool,
    pub(crate) types: Vec<Choice>,
}

/// A type with its box.
#[derive(Debug)]
pub(crate) struct Choice {
    pub(crate) name: String,
    pub(crate) label: String,
    pub(crate) chosen: bool,
    pub(crate) sensitive: bool,
    /// How many events of it the last day had, in words; empty if there was none.
    pub(crate) volume: String,
}

/// A category or group that stands for its types, also future ones.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) field: &'static str,
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) size: usize,
    pub(crate) chosen: bool,
}

/// A profile to choose.
#[derive(Debug)]
pub(crate) struct ProfileChoice {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) chosen: bool,
}

/// The catalogues of a tenant.
pub(crate) async fn catalogues(visit: &Visit) -> Result<Vec<Catalogue>, Refused> {
    let listed: Listed<Summary> = visit.api.get("/v1/catalogues", &[]).await?;
    let mut all = Vec::new();
    for summary in listed.items {
        let path = format!("/v1/catalogues/{}", segment(&summary.product));
        // One may be deleted between the list and this.
        match visit.api.get::<Catalogue>(&path, &[]).await {
            Ok(catalogue) => all.push(catalogue),
            Err(refused) if refused.status == 404 => {}
            Err(refused) => return Err(refused),
        }
    }
    Ok(all)
}

/// The profile of this name, if there is one.
pub(crate) fn profile_of(catalogues: &[Catalogue], name: &str) -> Option<Profile> {
    if let Some(profile) = Profile::built_in(name) {
        return Some(profile);
    }
    let mut specs = catalogues.iter().filter_map(|catalogue| catalogue.profile.as_ref());
    specs.find(|spec| spec.name == name).and_then(|spec| Profile::new(spec.clone()).ok())
}

impl Known {
    /// Reads it. What the API does not give is missing, so that the form can be used all the same.
    pub(crate) async fn read(visit: &Visit) -> Result<Self, Refused> {
        let mut known = Self::default();
        match catalogues(visit).await {
            Ok(catalogues) => known.catalogues = catalogues,
            Err(refused) if refused.is_logged_out() => return Err(refused),
            Err(refused) => known.unread = Some(refused.detail),
        }
        let mut cursor = String::new();
        loop {
            let query = [("limit", PAGE), ("cursor", cursor.as_str())];
            let listed = match visit.api.get::<Listed<TypeItem>>("/v1/event-types", &query).await {
                Ok(listed) => listed,
                Err(refused) if refused.is_logged_out() => return Err(refused),
                Err(refused) => {
                    known.unread = Some(refused.detail);
                    return Ok(known);
                }
            };
            known.types.extend(listed.items);
            let Some(next) = listed.next else { return Ok(known) };
            if known.types.len() >= MAX_TYPES {
                known.cut = true;
                return Ok(known);
            }
            cursor = next;
        }
    }

    /// Whether a catalogue of a product is there. Postrider's own is always.
    pub(crate) fn is_empty(&self) -> bool {
        self.types.iter().all(|known| known.product == OWN)
    }

    /// How many types there are.
    pub(crate) fn count(&self) -> usize {
        self.types.len()
    }

    /// The profile of this name.
    pub(crate) fn profile(&self, name: &str) -> Option<Profile> {
        profile_of(&self.catalogues, name)
    }

    /// The profiles that can be chosen.
    pub(crate) fn profiles(&self, chosen: &str) -> Vec<ProfileChoice> {
        let built_in = BUILT_IN.iter().filter_map(|name| Profile::built_in(name)).map(|it| it.spec().clone());
        let brought = self.catalogues.iter().filter_map(|catalogue| catalogue.profile.clone());
        let mut all: Vec<ProfileChoice> = built_in
            .chain(brought)
            .map(|spec| ProfileChoice {
                chosen: spec.name == chosen,
                name: spec.name,
                description: spec.description,
            })
            .collect();
        if !chosen.is_empty() && !all.iter().any(|profile| profile.chosen) {
            let description = "in no catalogue of the tenant".to_owned();
            all.push(ProfileChoice { name: chosen.to_owned(), description, chosen: true });
        }
        all
    }

    /// The types by category and group, in the order of their catalogues, with those marked that are chosen.
    pub(crate) fn sections(&self, chosen: &BTreeSet<&str>) -> Vec<Section> {
        let mut sections: Vec<(&str, &str, Section)> = Vec::new();
        for known in &self.types {
            let at = sections
                .iter()
                .position(|(product, category, _)| *product == known.product && *category == known.category);
            let at = at.unwrap_or_else(|| {
                sections.push((&known.product, &known.category, self.section(known)));
                sections.len() - 1
            });
            sections[at].2.add(known, self.group_title(known), chosen);
        }
        sections.into_iter().map(|(_, _, section)| section).collect()
    }

    fn section(&self, of: &TypeItem) -> Section {
        let catalogue = self.catalogues.iter().find(|catalogue| catalogue.product.id == of.product);
        let term = catalogue.and_then(|it| it.categories.iter().find(|term| term.id == of.category));
        Section {
            title: term.map_or_else(|| of.category.clone(), |term| term.label.clone()),
            product: catalogue.map_or_else(|| of.product.clone(), |it| it.product.name.clone()),
            size: 0,
            chosen: 0,
            blocks: Vec::new(),
        }
    }

    fn group_title(&self, of: &TypeItem) -> Option<String> {
        let group = of.group.as_ref()?;
        let catalogue = self.catalogues.iter().find(|catalogue| catalogue.product.id == of.product);
        let term = catalogue.and_then(|it| it.groups.iter().find(|term| term.id == *group));
        Some(term.map_or_else(|| group.clone(), |term| term.label.clone()))
    }

    /// Categories and groups that a webhook can take as a whole.
    pub(crate) fn rules(&self, categories: &BTreeSet<&str>, groups: &BTreeSet<&str>) -> Vec<Rule> {
        let mut rules = Vec::new();
        for catalogue in &self.catalogues {
            for term in &catalogue.categories {
                let size = self.types.iter().filter(|known| known.category == term.id).count();
                let chosen = categories.contains(term.id.as_str());
                rules.push(Rule {
                    field: "category",
                    id: term.id.clone(),
                    title: term.label.clone(),
                    size,
                    chosen,
                });
            }
            for term in &catalogue.groups {
                let size = self.types.iter().filter(|known| known.group.as_ref() == Some(&term.id)).count();
                let chosen = groups.contains(term.id.as_str());
                rules.push(Rule {
                    field: "group",
                    id: term.id.clone(),
                    title: term.label.clone(),
                    size,
                    chosen,
                });
            }
        }
        // What is asked for and in no catalogue any more can be kept.
        for (field, ids) in [("category", categories), ("group", groups)] {
            for id in ids {
                if !rules.iter().any(|rule: &Rule| rule.field == field && rule.id == *id) {
                    let (id, title) = ((*id).to_owned(), (*id).to_owned());
                    rules.push(Rule { field, id, title, size: 0, chosen: true });
                }
            }
        }
        rules
    }

    /// What of the chosen is no box of the picker: names that no catalogue has.
    pub(crate) fn others(&self, chosen: &BTreeSet<&str>) -> Vec<String> {
        let known = |name: &str| self.types.iter().any(|known| known.is(name));
        chosen.iter().filter(|name| self.is_empty() || !known(name)).map(|name| (*name).to_owned()).collect()
    }
}

impl TypeItem {
    fn is(&self, name: &str) -> bool {
        self.name == name || self.aliases.iter().any(|alias| alias == name)
    }
}

impl Section {
    fn add(&mut self, known: &TypeItem, group: Option<String>, chosen: &BTreeSet<&str>) {
        let is_chosen = chosen.contains(known.name.as_str())
            || known.aliases.iter().any(|alias| chosen.contains(alias.as_str()));
        let label = if known.label.is_empty() { &known.description } else { &known.label };
        let choice = Choice {
            name: known.name.clone(),
            label: label.clone(),
            chosen: is_chosen,
            sensitive: known.sensitive,
            volume: match known.events_24h {
                0 => String::new(),
                n => format!("{} in 24 h", number(n)),
            },
        };
        let (title, grouped) = group.map_or_else(|| (self.title.clone(), false), |title| (title, true));
        self.size += 1;
        self.chosen += usize::from(is_chosen);
        match self.blocks.iter_mut().find(|block| block.title == title && block.grouped == grouped) {
            Some(block) => block.types.push(choice),
            None => self.blocks.push(Block { title, grouped, types: vec![choice] }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        let types = serde_json::json!([
            {"name": "USER_LOGIN", "label": "Login", "aliases": ["user.login"], "product": "shop", "category": "users", "group": "logins"},
            {"name": "USER_CREATED", "label": "Created", "product": "shop", "category": "users", "group": null},
            {"name": "PAID", "label": "Paid", "product": "shop", "category": "orders"},
            {"name": "postrider.delivery.dead", "label": "Dead", "product": "postrider", "category": "postrider"}]);
        let catalogue = serde_json::json!({"schema": 1, "product": {"id": "shop", "name": "Shop"},
            "category": [{"id": "users", "label": "Users"}, {"id": "orders", "label": "Orders"}],
            "group": [{"id": "logins", "category": "users", "label": "Logins"}],
            "profile": {"name": "shop", "description": "As the shop speaks.", "member": [{"name": "id", "id": "delivery"}], "retry": {"schedule_ms": [1000]}}});
        Known {
            types: serde_json::from_value(types).unwrap(),
            catalogues: vec![serde_json::from_value(catalogue).unwrap()],
            ..Known::default()
        }
    }

    #[test]
    fn types_are_by_category_and_group_and_an_alias_is_its_type() {
        let sections = known().sections(&BTreeSet::from(["user.login", "PAID"]));
        let told: Vec<(&str, usize, usize)> =
            sections.iter().map(|section| (section.title.as_str(), section.chosen, section.size)).collect();
        assert_eq!(told, [("Users", 1, 2), ("Orders", 1, 1), ("postrider", 0, 1)]);
        let blocks: Vec<(&str, bool)> =
            sections[0].blocks.iter().map(|block| (block.title.as_str(), block.grouped)).collect();
        assert_eq!(blocks, [("Logins", true), ("Users", false)]);
        assert!(sections[0].blocks[0].types[0].chosen);
    }

    #[test]
    fn what_no_catalogue_has_is_typed() {
        assert_eq!(known().others(&BTreeSet::from(["PAID", "user.login", "OTHER"])), ["OTHER"]);
        let mut empty = known();
        empty.types.retain(|known| known.product == OWN);
        assert!(empty.is_empty() && !known().is_empty());
        assert_eq!(empty.others(&BTreeSet::from(["PAID", "postrider.delivery.dead"])).len(), 2);
    }

    #[test]
    fn rules_that_no_catalogue_has_any_more_are_kept() {
        let rules = known().rules(&BTreeSet::from(["users", "gone"]), &BTreeSet::new());
        let told: Vec<(&str, &str, usize, bool)> =
            rules.iter().map(|rule| (rule.field, rule.id.as_str(), rule.size, rule.chosen)).collect();
        assert_eq!(
            told,
            [
                ("category", "users", 2, true),
                ("category", "orders", 1, false),
                ("group", "logins", 1, false),
                ("category", "gone", 0, true)
            ]
        );
    }

    #[test]
    fn profiles_are_built_in_or_come_with_a_catalogue() {
        let names = |chosen: &str| known().profiles(chosen).into_iter().map(|it| it.name).collect::<Vec<_>>();
        assert_eq!(names("shop"), ["postrider", "standard", "cloudevents", "cloudevents-binary", "shop"]);
        assert_eq!(names("gone").last().unwrap(), "gone");
        assert_eq!(known().profile("shop").unwrap().retry(&Default::default()).intervals_ms(), [1000]);
        assert!(known().profile("gone").is_none());
    }
}
