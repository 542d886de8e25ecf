//! What is wrong with a catalogue, and what looks wrong.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    CATALOGUE_SCHEMA, Catalogue, Cause, MAX_CATALOGUE_BYTES, OWN, TriggerSpec, TypeEntry, own, run_together,
};
use crate::event::EventType;
use crate::profile::Profile;
use crate::reminder::MAX_LEAD_DAYS;
use crate::schema::Schema;
use crate::spelling::suggestion;
use crate::time::Timestamp;
use crate::trigger::{BadTrigger, Trigger};

/// The most of each in one catalogue.
const MAX_TYPES: usize = 2_000;
const MAX_CATEGORIES: usize = 200;
const MAX_GROUPS: usize = 1_000;
const MAX_TRIGGERS: usize = 2_000;
/// The most triggers that name one action.
const MAX_TRIGGERS_OF_ACTION: usize = 20;
const MAX_ALIASES: usize = 20;
const MAX_CONDITIONS: usize = 50;
/// The longest texts, characters.
const MAX_LABEL: usize = 200;
const MAX_TEXT: usize = 2_000;
/// The largest example, bytes.
const MAX_EXAMPLE_BYTES: usize = 64 * 1024;
/// The most findings that are told.
pub(super) const MAX_FINDINGS: usize = 200;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The catalogue is refused.
    Error,
    /// Somebody should look at it.
    Suspect,
}

/// Something that is wrong with a catalogue, or looks wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Where: `event_type "USER_LOGIN"`.
    pub at: String,
    /// What.
    pub problem: String,
    /// What to do about it.
    pub hint: String,
}

/// Everything that is wrong with a catalogue or looks wrong: errors first, at most 200 in all.
///
/// What only shows beside the tenant's other catalogues (names that two of them share) is not for this function to see.
pub fn check(catalogue: &Catalogue) -> Vec<Finding> {
    let mut findings = Findings::default();
    product(catalogue, &mut findings);
    sizes(catalogue, &mut findings);
    categories_and_groups(catalogue, &mut findings);
    names(catalogue, &mut findings);
    for entry in &catalogue.event_types {
        event_type(catalogue, entry, &mut findings);
    }
    triggers(catalogue, &mut findings);
    if let Some(Err(bad)) = catalogue.profile.clone().map(Profile::new) {
        findings.error("profile", bad, "see docs/profiles.md for what a profile may say");
    }
    suspects(catalogue, &mut findings);
    findings.finish()
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, severity: Severity, at: impl ToString, problem: impl ToString, hint: impl ToString) {
        self.0.push(Finding {
            severity,
            at: at.to_string(),
            problem: problem.to_string(),
            hint: hint.to_string(),
        });
    }

    fn error(&mut self, at: impl ToString, problem: impl ToString, hint: impl ToString) {
        self.add(Severity::Error, at, problem, hint);
    }

    fn suspect(&mut self, at: impl ToString, problem: impl ToString, hint: impl ToString) {
        self.add(Severity::Suspect, at, problem, hint);
    }

    /// An error if there are more than may be.
    fn most(&mut self, at: impl ToString, count: usize, most: usize, what: &str) {
        if count > most {
            self.error(at, format!("{count} {what}; at most {most} are taken"), "make it smaller");
        }
    }

    /// An error if a text is too long, or holds what no text for people does.
    fn text(&mut self, at: &str, member: &str, text: &str, most: usize) {
        let characters = text.chars().count();
        if characters > most {
            let problem = format!("its {member} has {characters} characters; at most {most} are taken");
            self.error(at, problem, "make it shorter");
        }
        if text.chars().any(|c| c.is_control() && c != '\n') {
            self.error(at, format!("its {member} holds a control character"), "write it anew");
        }
    }

    fn finish(mut self) -> Vec<Finding> {
        self.0.sort_by_key(|finding| finding.severity);
        self.0.truncate(MAX_FINDINGS);
        self.0
    }
}

/// Whether it can be an id: 1 to 64 of letters, digits, `-`, `_` and `.`.
fn is_id(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    (1..=64).contains(&text.len()) && text.bytes().all(legal)
}

fn at_type(entry: &TypeEntry) -> String {
    format!("event_type {:?}", entry.name.as_str())
}

fn product(catalogue: &Catalogue, findings: &mut Findings) {
    if catalogue.schema != CATALOGUE_SCHEMA {
        let problem =
            format!("schema {} is not known; this release reads {CATALOGUE_SCHEMA}", catalogue.schema);
        findings.error("schema", problem, format!("write schema = {CATALOGUE_SCHEMA}"));
    }
    let product = &catalogue.product;
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    if !(1..=64).contains(&product.id.len()) || !product.id.bytes().all(legal) {
        findings.error(
            "product.id",
            format!("{:?} cannot be the id of a product", product.id),
            "1 to 64 characters of a-z, 0-9, - and _",
        );
    }
    if product.id == OWN {
        let problem = format!("{OWN} is the catalogue of Postrider's own events");
        findings.error("product.id", problem, "choose another id");
    }
    if product.name.trim().is_empty() {
        findings.error("product.name", "it is empty", "write what people call the product");
    }
    findings.text("product", "name", &product.name, MAX_LABEL);
    findings.text("product", "note", &product.note, 2 * MAX_TEXT);
}

fn sizes(catalogue: &Catalogue, findings: &mut Findings) {
    let at = "the catalogue";
    findings.most(at, catalogue.event_types.len(), MAX_TYPES, "event types");
    findings.most(at, catalogue.categories.len(), MAX_CATEGORIES, "categories");
    findings.most(at, catalogue.groups.len(), MAX_GROUPS, "groups");
    findings.most(at, catalogue.triggers.len(), MAX_TRIGGERS, "triggers");
    let bytes = serde_json::to_vec(catalogue).map_or(0, |json| json.len());
    if bytes > MAX_CATALOGUE_BYTES {
        let problem = format!("it has {bytes} bytes as JSON; at most {MAX_CATALOGUE_BYTES} are taken");
        findings.error(at, problem, "leave out examples, or make it two catalogues");
    }
    if catalogue.event_types.is_empty() {
        findings.suspect(at, "it has no event types", "write them as [[event_type]]");
    }
}

fn categories_and_groups(catalogue: &Catalogue, findings: &mut Findings) {
    let categories = catalogue.categories.iter().map(|c| ("category", &c.id, &c.label, &c.description));
    let groups = catalogue.groups.iter().map(|g| ("group", &g.id, &g.label, &g.description));
    let mut seen = BTreeSet::new();
    for (what, id, label, description) in categories.chain(groups) {
        let at = format!("{what} {id:?}");
        if !is_id(id) {
            findings.error(
                &at,
                "this cannot be an id",
                "1 to 64 characters of a-z, A-Z, 0-9, -, _ and .; what people read goes into label",
            );
        }
        if !seen.insert((what, id)) {
            findings.error(&at, format!("there are two {}", plural(what)), "remove or rename one of them");
        }
        if what == "category" && id == OWN {
            findings.error(&at, "this is the category of Postrider's own events", "choose another id");
        }
        if label.trim().is_empty() {
            findings.error(&at, "its label is empty", "write what people shall read");
        }
        findings.text(&at, "label", label, MAX_LABEL);
        findings.text(&at, "description", description, MAX_TEXT);
    }
    for group in &catalogue.groups {
        if !catalogue.categories.iter().any(|category| category.id == group.category) {
            let at = format!("group {:?}", group.id);
            findings.error(at, unknown_category(catalogue, &group.category), "add it as [[category]]");
        }
    }
}

fn plural(what: &str) -> &'static str {
    if what == "category" { "categories of this id" } else { "groups of this id" }
}

fn unknown_category(catalogue: &Catalogue, id: &str) -> String {
    let hint = suggestion(id, catalogue.categories.iter().map(|category| category.id.as_str()));
    format!("there is no category {id:?}{hint}")
}

/// Names and aliases are unique, and none of them is Postrider's.
fn names(catalogue: &Catalogue, findings: &mut Findings) {
    let own = own();
    let reserved: BTreeSet<&EventType> = own.event_types.iter().map(|entry| &entry.name).collect();
    let mut seen: HashMap<&EventType, (&EventType, bool)> = HashMap::new();
    for entry in &catalogue.event_types {
        let at = at_type(entry);
        findings.most(&at, entry.aliases.len(), MAX_ALIASES, "aliases");
        let names = std::iter::once((&entry.name, false)).chain(entry.aliases.iter().map(|a| (a, true)));
        for (name, alias) in names {
            if reserved.contains(name) {
                let problem = format!("{name:?} is one of Postrider's own event types", name = name.as_str());
                findings.error(&at, problem, "choose another name");
            }
            let Some((other, other_alias)) = seen.insert(name, (&entry.name, alias)) else { continue };
            let shown = name.as_str();
            let (problem, hint) = match (alias, other_alias, *other == entry.name) {
                (false, false, _) => ("there are two event types of this name".to_owned(), "remove one"),
                (true, _, true) if name == &entry.name => {
                    (format!("its alias {shown:?} is its own name"), "remove the alias")
                }
                (true, true, true) => (format!("its alias {shown:?} is there twice"), "remove one"),
                (true, _, _) => {
                    (format!("its alias {shown:?} already means {:?}", other.as_str()), "remove the alias")
                }
                (false, true, _) => {
                    (format!("{:?} has this name as an alias", other.as_str()), "remove the alias there")
                }
            };
            findings.error(&at, problem, hint);
        }
    }
}

fn event_type(catalogue: &Catalogue, entry: &TypeEntry, findings: &mut Findings) {
    let at = at_type(entry);
    if !catalogue.categories.iter().any(|category| category.id == entry.category) {
        findings.error(&at, unknown_category(catalogue, &entry.category), "add it as [[category]]");
    }
    if let Some(id) = &entry.group {
        match catalogue.groups.iter().find(|group| &group.id == id) {
            None => {
                let hint = suggestion(id, catalogue.groups.iter().map(|group| group.id.as_str()));
                findings.error(&at, format!("there is no group {id:?}{hint}"), "add it as [[group]]");
            }
            Some(group) if group.category != entry.category => findings.error(
                &at,
                format!(
                    "its group {id:?} is in the category {:?}, not in {:?}",
                    group.category, entry.category
                ),
                "correct the group or the category",
            ),
            Some(_) => {}
        }
    }
    if entry.label.trim().is_empty() {
        findings.error(&at, "its label is empty", "write what people shall read");
    }
    findings.text(&at, "label", &entry.label, MAX_LABEL);
    findings.text(&at, "description", &entry.description, MAX_TEXT);
    findings.text(&at, "code", entry.code.as_deref().unwrap_or_default(), MAX_LABEL);
    findings.text(&at, "split_from", entry.split_from.as_deref().unwrap_or_default(), MAX_LABEL);
    findings.most(&at, entry.conditions.len(), MAX_CONDITIONS, "conditions");
    for condition in &entry.conditions {
        findings.text(&at, "condition", condition, MAX_TEXT);
    }
    match (entry.trigger, entry.lead_days) {
        (Cause::Scheduled, None) => findings.suspect(
            &at,
            "it is scheduled but says no lead_days, so reminders of it are refused until the tenant sets some",
            "write lead_days = 7, or as many as fit",
        ),
        (Cause::Scheduled, Some(days)) if days > MAX_LEAD_DAYS => {
            let problem = format!("lead_days is {days}; at most {MAX_LEAD_DAYS} are taken");
            findings.error(&at, problem, "make it shorter");
        }
        (Cause::Action | Cause::Own, Some(_)) => {
            let hint = "remove lead_days, or write trigger = \"scheduled\"";
            findings.suspect(&at, "it has lead_days but is not scheduled", hint);
        }
        _ => {}
    }
    if entry.conditions_open && entry.conditions.is_empty() {
        let hint = "write conditions, or remove conditions_open";
        findings.suspect(&at, "it has an open list of conditions and no condition", hint);
    }
    schema_and_example(entry, &at, findings);
}

fn schema_and_example(entry: &TypeEntry, at: &str, findings: &mut Findings) {
    let schema = match entry.data_schema.as_ref().map(Schema::compile) {
        Some(Err(bad)) => {
            findings.error(at, format!("its data_schema cannot be used: {bad}"), "correct the JSON Schema");
            None
        }
        Some(Ok(schema)) => Some(schema),
        None => None,
    };
    let Some(text) = &entry.example else { return };
    if text.len() > MAX_EXAMPLE_BYTES {
        let problem = format!("its example has {} bytes; at most {MAX_EXAMPLE_BYTES} are taken", text.len());
        return findings.error(at, problem, "make it shorter");
    }
    #[derive(serde::Deserialize)]
    struct Example<'a> {
        event_type: Option<String>,
        event_time: Option<String>,
        #[serde(borrow)]
        data: Option<&'a RawValue>,
    }
    let hint = "write one event as upstream would send it";
    let example: Example<'_> = match serde_json::from_str(text) {
        Ok(example) => example,
        Err(error) => return findings.error(at, format!("its example is no event: {error}"), hint),
    };
    match &example.event_type {
        Some(name) if name == entry.name.as_str() => {}
        Some(name) => findings.error(at, format!("its example is of the type {name:?}"), hint),
        None => findings.error(at, "its example says no event_type", hint),
    }
    if example.event_time.is_some_and(|time| Timestamp::parse_rfc3339(&time).is_none()) {
        let hint = "write RFC 3339, such as 2026-11-21T20:00:00Z";
        findings.error(at, "the event_time of its example is no time", hint);
    }
    let data = example.data.unwrap_or(RawValue::NULL);
    if let Some(Err(misfits)) = schema.map(|schema| schema.check(data)) {
        let misfits: Vec<String> = misfits.iter().map(ToString::to_string).collect();
        let problem = format!("its example does not fit its data_schema: {}", misfits.join("; "));
        findings.error(at, problem, "correct the one or the other");
    }
}

fn triggers(catalogue: &Catalogue, findings: &mut Findings) {
    let types: HashMap<&str, &TypeEntry> =
        catalogue.event_types.iter().map(|entry| (entry.name.as_str(), entry)).collect();
    let aliases: HashMap<&str, &TypeEntry> = catalogue
        .event_types
        .iter()
        .flat_map(|entry| entry.aliases.iter().map(move |alias| (alias.as_str(), entry)))
        .collect();
    let mut of_action: BTreeMap<&EventType, Vec<&TriggerSpec>> = BTreeMap::new();
    for (index, trigger) in catalogue.triggers.iter().enumerate() {
        let action = trigger.action.as_str();
        let at = format!("trigger {} (action {action:?})", index + 1);
        if types.contains_key(action) || aliases.contains_key(action) {
            let problem =
                format!("{action:?} is an event type: a trigger that emitted it could set itself off");
            findings.error(&at, problem, "give the action a name that no event type has");
        }
        findings.text(&at, "description", &trigger.description, MAX_TEXT);
        for emit in &trigger.emit {
            let name = emit.event_type.as_str();
            match (types.get(name), aliases.get(name)) {
                (Some(entry), _) if entry.trigger == Cause::Own => {
                    let problem = format!("it emits {name:?}, which Postrider itself publishes");
                    findings.suspect(&at, problem, "leave these to Postrider");
                }
                (Some(_), _) => {}
                (None, Some(entry)) => {
                    let problem = format!("it emits {name:?}, which is an alias");
                    findings.error(&at, problem, format!("write the name: {:?}", entry.name.as_str()));
                }
                (None, None) => {
                    let hint = suggestion(name, types.keys().copied().collect::<BTreeSet<_>>());
                    let problem =
                        format!("it emits {name:?}, which is no event type of this catalogue{hint}");
                    findings.error(&at, problem, "add it as [[event_type]], or correct the name");
                }
            }
        }
        match Trigger::compile(trigger) {
            // Said above, in other words.
            Ok(_) | Err(BadTrigger::Itself(_)) => {}
            Err(bad) => findings.error(&at, bad, "docs/triggers.md says what a trigger may hold"),
        }
        let same = of_action.entry(&trigger.action).or_default();
        if same.iter().any(|other| other.when == trigger.when && other.emit == trigger.emit) {
            findings.suspect(&at, "there is another trigger that does the same", "remove one of them");
        }
        same.push(trigger);
    }
    for (action, same) in of_action {
        let at = format!("action {:?}", action.as_str());
        findings.most(at, same.len(), MAX_TRIGGERS_OF_ACTION, "triggers name it");
    }
}

/// What is legal but looks like a mistake of whoever copied the list.
fn suspects(catalogue: &Catalogue, findings: &mut Findings) {
    let names = run_together::Names::new(catalogue.event_types.iter().map(|entry| entry.name.as_str()));
    for entry in &catalogue.event_types {
        let name = entry.name.as_str();
        let at = at_type(entry);
        stray_colon(&at, "name", name, findings);
        if entry.label != name {
            stray_colon(&at, "label", &entry.label, findings);
        }
        if entry.split_from.is_none()
            && let Some(parts) = names.parts(name)
        {
            findings.suspect(
                &at,
                format!("this looks like several names run together: {}", parts.join(" + ")),
                format!("if it is, make each an event type with split_from = {name:?}"),
            );
        }
    }
    let labels = catalogue
        .categories
        .iter()
        .map(|c| (format!("category {:?}", c.id), &c.label))
        .chain(catalogue.groups.iter().map(|g| (format!("group {:?}", g.id), &g.label)));
    for (at, label) in labels {
        stray_colon(&at, "label", label, findings);
        if let Some((first, rest)) = two_words(label) {
            let problem = format!("its label looks like two words run together: {first} + {rest}");
            findings.suspect(
                at,
                problem,
                "put a space or a colon between them, or leave out what is no part of it",
            );
        }
    }
    // Each is compared with the first that looks the same, so that n of a kind make n − 1 findings.
    let mut folded: HashMap<String, (&EventType, &TypeEntry)> = HashMap::new();
    for entry in &catalogue.event_types {
        for name in std::iter::once(&entry.name).chain(&entry.aliases) {
            let (spelling, other) = *folded.entry(fold(name.as_str())).or_insert((name, entry));
            if other.name != entry.name && spelling != name {
                findings.suspect(
                    at_type(entry),
                    format!(
                        "{:?} is almost {:?}, a name of {:?}",
                        name.as_str(),
                        spelling.as_str(),
                        other.name.as_str()
                    ),
                    "if both mean the same, make one an alias of the other",
                );
            }
        }
    }
    twice(catalogue, "label", |entry| &entry.label, findings);
    twice(catalogue, "description", |entry| &entry.description, findings);
}

fn stray_colon(at: &str, member: &str, text: &str, findings: &mut Findings) {
    if text.trim_end().ends_with(':') {
        let problem = format!("its {member} ends with a colon");
        findings.suspect(at, problem, "remove it, unless the product really writes it so");
    }
}

fn twice(catalogue: &Catalogue, member: &str, text: impl Fn(&TypeEntry) -> &String, findings: &mut Findings) {
    let mut seen: HashMap<String, &TypeEntry> = HashMap::new();
    for entry in &catalogue.event_types {
        let key = text(entry).trim().to_lowercase();
        if key.is_empty() {
            continue;
        }
        if let Some(other) = seen.get(&key) {
            findings.suspect(
                at_type(entry),
                format!("it has the {member} of {:?}", other.name.as_str()),
                "say what is different about it",
            );
        } else {
            seen.insert(key, entry);
        }
    }
}

/// What two spellings of one name have in common.
fn fold(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// `ClientTriggers` as its two words. A label for people has spaces between words.
fn two_words(label: &str) -> Option<(&str, &str)> {
    label.split(|c: char| !c.is_alphanumeric()).find_map(|word| {
        let cut = word.char_indices().skip(1).find(|(at, c)| {
            c.is_uppercase() && word[..*at].chars().next_back().is_some_and(char::is_lowercase)
        })?;
        let (first, rest) = word.split_at(cut.0);
        (first.chars().count() >= 3 && rest.chars().count() >= 3).then_some((first, rest))
    })
}

#[cfg(test)]
mod tests;
