//! The catalogues of four products, and what the demo does with each.

use postrider_core::catalogue::{Catalogue, TypeEntry};
use serde_json::{Value, json};

use crate::builtin;
use crate::exit::{Exit, Failure};

/// The catalogues of all four products.
pub(super) fn all() -> Result<Vec<Catalogue>, Failure> {
    let read = |(name, text): (&str, &str)| {
        toml::from_str(text).map_err(|error: toml::de::Error| {
            Failure::new(Exit::Other, format!("cannot read the catalogue of {name}"), error.message())
        })
    };
    builtin::all().map(read).collect()
}

/// So many event types, of different categories as long as there are some.
pub(super) fn some(catalogue: &Catalogue, count: usize) -> Vec<&TypeEntry> {
    let mut chosen: Vec<&TypeEntry> = Vec::with_capacity(count);
    let of_categories = catalogue.categories.iter().filter_map(|category| {
        catalogue.event_types.iter().find(|event_type| event_type.category == category.id)
    });
    for event_type in of_categories.chain(&catalogue.event_types) {
        if chosen.len() < count && chosen.iter().all(|other| other.name != event_type.name) {
            chosen.push(event_type);
        }
    }
    chosen
}

/// A whole event of this type, as its catalogue shows it.
pub(super) fn example(event_type: &TypeEntry) -> Value {
    let text = event_type.example.as_deref().unwrap_or_default();
    serde_json::from_str(text).unwrap_or_default()
}

/// Something that upstream reports, and what the product's triggers make of it.
#[derive(Debug)]
pub(super) struct Happening {
    /// The action, as it is sent.
    pub(super) action: Value,
    /// The event types that come of it, in order.
    pub(super) emits: &'static [&'static str],
    /// One that would come of it under other circumstances.
    pub(super) not: Option<&'static str>,
}

/// An action of the product.
pub(super) fn happening(catalogue: &Catalogue) -> Option<Happening> {
    let of = |name: &str| {
        catalogue.event_types.iter().find(|event_type| event_type.name.as_str() == name).map(example)
    };
    let (name, context, data, emits, not): (_, _, _, &'static [&'static str], _) = match catalogue
        .product
        .id
        .as_str()
    {
        "entrust-idaas" => {
            let failed = of("authentication.failed")?;
            let mut context = failed["current_context"].clone();
            context["outcome"] = json!("failure");
            let emits = &["authentication.failed"];
            (
                "authentication.attempted",
                context,
                failed["data"].clone(),
                emits,
                Some("authentication.succeeded"),
            )
        }
        "open-loyalty" => {
            let sent = of("AvailablePointsAmountChanged")?;
            let mut received = sent["data"].clone();
            received["customer"]["customerId"] = json!("0f6ba1f0-6a43-4d0d-a4bb-2c8a3b3f8a11");
            let data = json!({"sender": sent["data"], "receiver": received});
            let emits = &[
                "AvailablePointsAmountChanged",
                "AvailablePointsAmountChanged",
                "WalletBalanceUpdated",
                "WalletBalanceUpdated",
            ];
            ("units.transferred", sent["current_context"].clone(), data, emits, None)
        }
        "skillmine-auth" => {
            let (check, session) = (of("TOKEN_CHECKED")?, of("LOGOUT")?);
            let data = json!({"check": check["data"], "session": session["data"]});
            ("session.ended", session["current_context"].clone(), data, &["TOKEN_CHECKED", "LOGOUT"], None)
        }
        "upmind-client" => {
            let reset = of("Client password was reset")?;
            let mut context = reset["current_context"].clone();
            context["actor_type"] = json!("user");
            let emits = &["Client password was reset"];
            ("client.password_set", context, reset["data"].clone(), emits, Some("Client password changed"))
        }
        _ => return None,
    };
    let id = format!("demo-{}", catalogue.product.id);
    let action = json!({"action": name, "id": id, "current_context": context, "data": data});
    Some(Happening { action, emits, not })
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_core::intake::{self, Envelope, Report};
    use postrider_core::trigger::{Trigger, derive};
    use postrider_core::{EventId, TenantId, Timestamp};

    #[test]
    fn every_event_type_has_an_example_of_its_own() {
        let catalogues = all().unwrap();
        let counts: Vec<(&str, usize)> =
            catalogues.iter().map(|c| (c.product.id.as_str(), c.event_types.len())).collect();
        assert_eq!(
            counts,
            [("entrust-idaas", 16), ("open-loyalty", 19), ("skillmine-auth", 92), ("upmind-client", 23)]
        );
        for catalogue in &catalogues {
            assert!(TenantId::parse(&catalogue.product.id).is_ok());
            assert!(catalogue.profile.is_some());
            for event_type in &catalogue.event_types {
                assert_eq!(example(event_type)["event_type"], event_type.name.as_str());
            }
        }
    }

    #[test]
    fn some_are_of_different_categories() {
        for catalogue in all().unwrap() {
            let some = some(&catalogue, 4);
            assert_eq!(some.len(), 4, "{}", catalogue.product.id);
            let mut categories: Vec<&str> = some.iter().map(|e| e.category.as_str()).collect();
            categories.sort_unstable();
            categories.dedup();
            assert_eq!(categories.len(), catalogue.categories.len().min(4));
        }
    }

    #[test]
    fn what_happens_emits_what_the_demo_expects() {
        for catalogue in all().unwrap() {
            let happening = happening(&catalogue).unwrap();
            let triggers: Vec<Trigger> =
                catalogue.triggers.iter().map(|trigger| Trigger::compile(trigger).unwrap()).collect();
            let body = happening.action.to_string();
            let envelope = Envelope {
                routing_key: "default",
                content_type: Some("application/json"),
                ..Envelope::default()
            };
            let made = EventId::from_trusted("made");
            let read = intake::read(envelope, body.as_bytes(), Timestamp::default(), made).unwrap();
            let Report::Action(action) = read else { panic!("{body} is an action") };
            let events = derive(&triggers, &action).unwrap();
            let names: Vec<&str> = events.iter().map(|event| event.event_type.as_str()).collect();
            assert_eq!(names, happening.emits);
        }
    }
}
