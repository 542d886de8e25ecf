//! The catalogues of the four products, held against what their own pages list.

#![allow(clippy::disallowed_methods, reason = "tests read their fixtures")]
#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use std::collections::{BTreeMap, BTreeSet};

use postrider_core::catalogue::{
    Catalogue, Category, Cause, Severity, TriggerSpec, TypeEntry, check, diff, unknown_members,
};
use postrider_core::event::{self, Action, EventType};
use postrider_core::intake::{self, Envelope, RefusalReason, Report};
use postrider_core::trigger::{self, Trigger};
use postrider_core::{EventId, Timestamp};
use serde_json::json;
use serde_json::value::RawValue;

const PRODUCTS: [(&str, usize); 4] =
    [("upmind-client", 23), ("skillmine-auth", 92), ("open-loyalty", 19), ("entrust-idaas", 16)];

fn workspace() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn catalogue(product: &str) -> Catalogue {
    let text = std::fs::read_to_string(workspace().join(format!("catalogues/{product}.toml"))).unwrap();
    let value: serde_json::Value = toml::from_str(&text).unwrap();
    assert_eq!(unknown_members(&value), [], "{product}");
    serde_json::from_value(value).unwrap()
}

/// The names as the product's page lists them, in order, each under its heading.
fn seed(product: &str) -> Vec<(String, String)> {
    let path = workspace().join(format!("tests/fixtures/seeds/{product}.txt"));
    let mut heading = String::new();
    let mut names = Vec::new();
    for line in std::fs::read_to_string(path).unwrap().lines().filter(|line| !line.is_empty()) {
        match line.strip_prefix("== ") {
            Some(text) => heading = text.to_owned(),
            None => names.push((heading.clone(), line.to_owned())),
        }
    }
    names
}

/// The types that a line of the seed stands for.
fn meant<'a>(catalogue: &'a Catalogue, line: &str) -> Vec<&'a TypeEntry> {
    let bare = line.trim_end_matches(':');
    let is = |name: &EventType| name.as_str() == bare;
    let found: Vec<&TypeEntry> = catalogue
        .event_types
        .iter()
        .filter(|entry| is(&entry.name) || entry.aliases.iter().any(is))
        .collect();
    if !found.is_empty() {
        return found;
    }
    catalogue.event_types.iter().filter(|entry| entry.split_from.as_deref() == Some(line)).collect()
}

#[test]
fn every_catalogue_holds_the_names_of_its_seed_and_no_others() {
    for (product, count) in PRODUCTS {
        let catalogue = catalogue(product);
        assert_eq!(catalogue.event_types.len(), count, "{product}");
        let mut left: BTreeSet<&EventType> = catalogue.event_types.iter().map(|entry| &entry.name).collect();
        for (_, line) in seed(product) {
            let types = meant(&catalogue, &line);
            assert!(!types.is_empty(), "{product}: {line} is missing");
            // Where it was cut, the parts in the catalogue's order are the line, letter for letter.
            if types.len() > 1 || types[0].split_from.is_some() {
                let parts: String = types.iter().map(|entry| entry.name.as_str()).collect();
                assert_eq!(parts, line.trim_end_matches(':'), "{product}");
            }
            for entry in types {
                left.remove(&entry.name);
            }
        }
        assert!(left.is_empty(), "{product}: {left:?} are in the catalogue and not in the seed");
    }
}

#[test]
fn names_that_were_run_together_are_marked_and_only_those() {
    let mut cut: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (product, _) in PRODUCTS {
        let lines: Vec<String> = seed(product).into_iter().map(|(_, line)| line).collect();
        for entry in catalogue(product).event_types {
            if let Some(from) = entry.split_from {
                assert!(lines.contains(&from), "{product}: {from} is no line of the seed");
                cut.entry(from).or_default().push(entry.name.as_str().to_owned());
            }
        }
    }
    let cut: Vec<String> = cut.into_values().map(|parts| parts.join(" ")).collect();
    assert_eq!(
        cut,
        [
            "APP_CREATED APP_MODIFIED",
            "COMBINED LOGOUT TOKEN_CHECKED",
            "INVITE_ACCEPTED INVITE_REVOKED",
            "INVITE_USER RE_INVITE_USER",
            "ROLE_CREATED ROLE_UPDATED",
            "TOKEN_RENEWED CODE_OBTAINED",
        ]
    );
}

#[test]
fn groups_and_categories_hold_what_their_pages_say() {
    let upmind = catalogue("upmind-client");
    let mut sizes: BTreeMap<String, usize> = BTreeMap::new();
    for (heading, line) in seed("upmind-client").into_iter().filter(|(heading, _)| !heading.is_empty()) {
        let entry = meant(&upmind, &line)[0];
        let group = upmind.groups.iter().find(|group| Some(&group.id) == entry.group.as_ref()).unwrap();
        assert_eq!(group.label, heading, "{line}");
        assert_eq!((entry.category.as_str(), group.category.as_str()), ("client", "client"));
        *sizes.entry(heading).or_default() += 1;
    }
    let sizes: Vec<usize> = upmind.groups.iter().map(|group| sizes[&group.label]).collect();
    assert_eq!(sizes, [4, 9, 4, 3, 3]);

    for (product, count) in [("entrust-idaas", 8), ("open-loyalty", 3)] {
        let catalogue = catalogue(product);
        assert_eq!(catalogue.categories.len(), count, "{product}");
        let mut held: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for entry in &catalogue.event_types {
            let category =
                catalogue.categories.iter().find(|category| category.id == entry.category).unwrap();
            held.entry(category.label.clone()).or_default().push(entry.name.as_str().to_owned());
        }
        let mut listed: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (heading, line) in seed(product) {
            let heading = heading.strip_suffix(" events").unwrap_or(&heading).to_owned();
            listed.entry(heading).or_default().push(line);
        }
        assert_eq!(held, listed, "{product}");
    }
}

#[test]
fn two_spellings_of_one_name_are_one_type() {
    let catalogue = catalogue("upmind-client");
    assert_eq!(
        meant(&catalogue, "Client added two_factor auth")[0].name,
        meant(&catalogue, "Client added two factor auth")[0].name
    );
}

#[test]
fn nothing_is_wrong_with_them() {
    for (product, _) in PRODUCTS {
        let catalogue = catalogue(product);
        assert_eq!(check(&catalogue), [], "{product}");
        for entry in &catalogue.event_types {
            assert!(!entry.description.is_empty() && entry.example.is_some(), "{:?}", entry.name);
        }
        for trigger in &catalogue.triggers {
            assert!(!trigger.description.is_empty(), "{:?}", trigger.action);
        }
        assert_eq!(diff(Some(&catalogue), &catalogue), []);
    }
}

#[test]
fn one_tenant_can_have_all_four() {
    let mut names = BTreeSet::new();
    let mut ids = BTreeSet::new();
    let mut actions: BTreeMap<String, String> = BTreeMap::new();
    for (product, _) in PRODUCTS {
        let catalogue = catalogue(product);
        for entry in &catalogue.event_types {
            for name in std::iter::once(&entry.name).chain(&entry.aliases) {
                assert!(names.insert(name.as_str().to_owned()), "{name:?} is there twice");
            }
        }
        let categories = catalogue.categories.iter().map(|category| ("category", &category.id));
        for (what, id) in categories.chain(catalogue.groups.iter().map(|group| ("group", &group.id))) {
            assert!(ids.insert((what, id.clone())), "the {what} {id} is there twice");
        }
        for trigger in &catalogue.triggers {
            let owner =
                actions.entry(trigger.action.as_str().to_owned()).or_insert_with(|| product.to_owned());
            assert_eq!(owner, product, "{:?} is an action of both", trigger.action);
        }
    }
    for action in actions.keys() {
        assert!(!names.contains(action), "{action} is an event type too");
    }
}

#[test]
fn causes_are_as_the_products_say() {
    let of = |cause: Cause| -> Vec<String> {
        PRODUCTS
            .iter()
            .flat_map(|(product, _)| catalogue(product).event_types)
            .filter(|entry| entry.trigger == cause)
            .map(|entry| {
                assert_eq!(entry.lead_days.is_some(), cause == Cause::Scheduled, "{:?}", entry.name);
                entry.name.as_str().to_owned()
            })
            .collect()
    };
    assert_eq!(of(Cause::Scheduled), ["PointsWillExpire", "CouponWillExpire", "LevelWillExpire"]);
    assert_eq!(of(Cause::Own), ["WEBHOOK_CREATED", "WEBHOOK_UPDATED", "WEBHOOK_DELETED"]);
    // What the page lists as "common reasons" or "this includes" is open.
    let loyalty = catalogue("open-loyalty");
    for name in ["AvailablePointsAmountChanged", "WalletBalanceUpdated"] {
        let entry = meant(&loyalty, name)[0];
        assert!(entry.conditions_open && entry.conditions.len() == 10, "{name}");
    }
    assert!(!meant(&loyalty, "CustomerLevelChanged")[0].conditions_open);
}

#[test]
fn the_seeds_as_they_are_would_be_suspects() {
    let lines: Vec<String> = seed("skillmine-auth").into_iter().map(|(_, line)| line).collect();
    let mut raw = catalogue("skillmine-auth");
    raw.categories = vec![Category { id: "all".into(), label: "All".into(), description: String::new() }];
    raw.triggers.clear();
    raw.event_types = lines
        .iter()
        .map(|line| TypeEntry { category: "all".into(), ..TypeEntry::new(EventType::parse(line).unwrap()) })
        .collect();
    let findings = check(&raw);
    assert!(findings.iter().all(|finding| finding.severity == Severity::Suspect), "{findings:#?}");
    let about = |problem: &str| -> BTreeSet<String> {
        findings
            .iter()
            .filter(|finding| finding.problem.contains(problem))
            .map(|finding| finding.at.trim_start_matches("event_type ").trim_matches('"').to_owned())
            .collect()
    };
    let colons: BTreeSet<String> = lines.iter().filter(|line| line.ends_with(':')).cloned().collect();
    assert_eq!(about("its name ends with a colon"), colons);
    let together: BTreeSet<String> =
        catalogue("skillmine-auth").event_types.into_iter().filter_map(|entry| entry.split_from).collect();
    assert_eq!(together.len(), 6);
    assert_eq!(about("run together"), together);
}

/// An action of the fixtures, and the events that it must become.
#[derive(serde::Deserialize)]
struct Example {
    action: Box<RawValue>,
    emits: Vec<Expected>,
}

#[derive(Debug, PartialEq, serde::Deserialize)]
struct Expected {
    event_type: String,
    key: Option<String>,
    /// Where in the action its data is.
    data: String,
}

fn examples(product: &str) -> Vec<Example> {
    let path = workspace().join(format!("tests/fixtures/actions/{product}.jsonl"));
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn action(json: &RawValue) -> Action {
    let envelope = Envelope { routing_key: "default", ..Envelope::default() };
    let now = Timestamp::from_millis(1_763_755_200_000);
    match intake::read(envelope, json.get().as_bytes(), now, EventId::from_trusted("made")).unwrap() {
        Report::Action(action) => action,
        Report::Event(event) => panic!("{event:?}"),
    }
}

fn compiled(catalogue: &Catalogue) -> Vec<Trigger> {
    catalogue.triggers.iter().map(|spec| Trigger::compile(spec).unwrap()).collect()
}

#[test]
fn actions_become_the_events_that_their_products_promise() {
    for (product, _) in PRODUCTS {
        let triggers = compiled(&catalogue(product));
        for example in examples(product) {
            let action = action(&example.action);
            let events = trigger::derive(&triggers, &action)
                .unwrap_or_else(|refusal| panic!("{product} {}: {refusal:?}", example.action));
            let expected: Vec<(&str, Option<&str>, &str)> = example
                .emits
                .iter()
                .map(|expected| {
                    let data = event::pointer(&example.action, &expected.data).unwrap();
                    (expected.event_type.as_str(), expected.key.as_deref(), data.get())
                })
                .collect();
            let found: Vec<(&str, Option<&str>, &str)> = events
                .iter()
                .map(|event| (event.event_type.as_str(), event.key.as_deref(), event.data.get()))
                .collect();
            assert_eq!(found, expected, "{product} {}", example.action);
            // All of one action belong together, each is an event of its own, and the second time gives the same.
            let ids: BTreeSet<&str> = events.iter().map(|event| event.id.as_str()).collect();
            assert_eq!(ids.len(), events.len());
            let correlation = action.correlation_id.as_deref().unwrap_or(action.id.as_str());
            assert!(events.iter().all(|event| event.correlation_id.as_deref() == Some(correlation)));
            let again = trigger::derive(&triggers, &action).unwrap();
            assert!(again.iter().zip(&events).all(|(again, event)| again.id == event.id));
        }
    }
}

#[test]
fn every_kind_of_event_of_every_trigger_is_seen_to_happen() {
    for (product, _) in PRODUCTS {
        for spec in catalogue(product).triggers {
            for emit in &spec.emit {
                let alone = TriggerSpec { emit: vec![emit.clone()], ..spec.clone() };
                let alone = [Trigger::compile(&alone).unwrap()];
                let happens = examples(product).iter().any(|example| {
                    let action = action(&example.action);
                    action.name == spec.action
                        && trigger::derive(&alone, &action).is_ok_and(|events| !events.is_empty())
                });
                assert!(happens, "{product}: {:?} never emits {:?}", spec.action, emit.event_type);
            }
        }
    }
}

/// The types that an action becomes, in order.
fn becomes(product: &str, json: serde_json::Value) -> Vec<String> {
    let json = serde_json::value::to_raw_value(&json).unwrap();
    let events = trigger::derive(&compiled(&catalogue(product)), &action(&json)).unwrap();
    events.iter().map(|event| event.event_type.as_str().to_owned()).collect()
}

#[test]
fn what_the_pages_say_of_several_events_and_of_who_acts_holds() {
    let member = json!({"customer": {"customerId": "m-1"}});
    let transfer = json!({"sender": member, "receiver": {"customer": {"customerId": "m-2"}}});
    assert_eq!(
        becomes("open-loyalty", json!({"action": "units.transferred", "id": "a", "data": transfer})),
        [
            "AvailablePointsAmountChanged",
            "AvailablePointsAmountChanged",
            "WalletBalanceUpdated",
            "WalletBalanceUpdated",
        ]
    );
    let created = json!({"member": member, "tier": {"newLevel": {"name": "Basic"}}});
    assert_eq!(
        becomes("open-loyalty", json!({"action": "member.created", "id": "a", "data": created})),
        ["CustomerRegistered", "CustomerLevelChanged"]
    );
    let by = |who: &str, action: &str| {
        let context = json!({"actor_type": who});
        let data = json!({"object_id": "c-1", "object": {"verified": true}});
        let action = json!({"action": action, "id": "a", "current_context": context, "data": data});
        becomes("upmind-client", action)
    };
    assert_eq!(by("client", "client.password_reset_requested"), ["Client requested password reset"]);
    assert_eq!(by("user", "client.password_set"), ["Client password was reset"]);
    assert_eq!(by("user", "client.password_reset_requested"), [""; 0]);
    assert_eq!(by("client", "client.created"), ["Client registered"]);
    assert_eq!(by("user", "client.created"), ["Staff created verified client"]);
}

#[test]
fn the_docs_name_every_action_and_its_events() {
    let docs = std::fs::read_to_string(workspace().join("docs/triggers.md")).unwrap();
    for (product, _) in PRODUCTS {
        for trigger in catalogue(product).triggers {
            let row = docs.lines().find(|line| {
                let begins = line.starts_with(&format!("| `{}`", trigger.action));
                begins && trigger.emit.iter().all(|emit| line.contains(&format!("`{}`", emit.event_type)))
            });
            assert!(row.is_some(), "{product}: {:?} is not in docs/triggers.md as it is", trigger.action);
        }
    }
}

#[test]
fn the_example_in_the_docs_is_a_catalogue() {
    let docs = std::fs::read_to_string(workspace().join("docs/catalogues.md")).unwrap();
    let (_, rest) = docs.split_once("```toml\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    let value: serde_json::Value = toml::from_str(example).unwrap();
    assert_eq!(unknown_members(&value), []);
    assert_eq!(check(&serde_json::from_value(value).unwrap()), []);
}

#[test]
fn a_transfer_without_a_receiver_is_no_half_transfer() {
    let triggers = compiled(&catalogue("open-loyalty"));
    for receiver in [r#""#, r#","receiver":null"#] {
        let json = format!(
            r#"{{"action":"units.transferred","id":"a","data":{{"sender":{{"customer":{{"customerId":"m"}}}}{receiver}}}}}"#
        );
        let json = RawValue::from_string(json).unwrap();
        let refusal = trigger::derive(&triggers, &action(&json)).unwrap_err();
        assert_eq!(refusal.reason, RefusalReason::SubjectAbsent);
    }
}

#[test]
fn types_without_a_trigger_are_reminders_postriders_own_or_said_to_be_published_as_they_are() {
    for (product, _) in PRODUCTS {
        let catalogue = catalogue(product);
        let triggered: BTreeSet<&EventType> = catalogue
            .triggers
            .iter()
            .flat_map(|trigger| &trigger.emit)
            .map(|emit| &emit.event_type)
            .collect();
        let left = catalogue
            .event_types
            .iter()
            .filter(|entry| entry.trigger == Cause::Action && !triggered.contains(&entry.name))
            .count();
        // Only Skillmine Auth has names that are themselves what happened.
        assert_eq!(left, if product == "skillmine-auth" { 70 } else { 0 }, "{product}");
    }
}

#[test]
fn the_fixtures_have_one_event_of_every_type() {
    for (product, _) in PRODUCTS {
        let path = workspace().join(format!("tests/fixtures/events/{product}.jsonl"));
        let events: Vec<String> = std::fs::read_to_string(path)
            .unwrap()
            .lines()
            .map(|line| {
                let event: serde_json::Value = serde_json::from_str(line).unwrap();
                event["event_type"].as_str().unwrap().to_owned()
            })
            .collect();
        let names: Vec<String> =
            catalogue(product).event_types.iter().map(|entry| entry.name.as_str().to_owned()).collect();
        assert_eq!(events, names, "{product}");
    }
}
