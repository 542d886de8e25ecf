//! The catalogues of four products, as they are in `catalogues/`.

use serde::Deserialize;

use crate::exit::{Exit, Failure};

const TEXTS: [&str; 4] = [
    include_str!("../../../../catalogues/entrust-idaas.toml"),
    include_str!("../../../../catalogues/open-loyalty.toml"),
    include_str!("../../../../catalogues/skillmine-auth.toml"),
    include_str!("../../../../catalogues/upmind-client.toml"),
];

/// The event types of one product.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Catalogue {
    /// Whose.
    pub(crate) product: Product,
    /// In what order the product shows them.
    #[serde(rename = "category")]
    pub(crate) categories: Vec<Category>,
    /// All of them.
    #[serde(rename = "event_type")]
    pub(crate) event_types: Vec<EventType>,
}

/// A product.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Product {
    /// One word; the demo's tenant.
    pub(crate) id: String,
    /// What people call it.
    pub(crate) name: String,
}

/// A category of event types.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Category {
    /// One word.
    pub(crate) id: String,
}

/// An event type.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct EventType {
    /// Its name.
    pub(crate) name: String,
    /// Its category.
    pub(crate) category: String,
    /// A whole event of this type, as JSON.
    pub(crate) example: String,
}

impl Catalogue {
    /// The catalogues of all four products.
    pub(crate) fn all() -> Result<Vec<Self>, Failure> {
        let read = |text: &&str| {
            toml::from_str(text)
                .map_err(|error| Failure::new(Exit::Other, "cannot read a catalogue", error.message()))
        };
        TEXTS.iter().map(read).collect()
    }

    /// So many event types, of different categories as long as there are some.
    pub(crate) fn some(&self, count: usize) -> Vec<&EventType> {
        let mut chosen: Vec<&EventType> = Vec::with_capacity(count);
        let of_categories = self.categories.iter().filter_map(|category| {
            self.event_types.iter().find(|event_type| event_type.category == category.id)
        });
        for event_type in of_categories.chain(&self.event_types) {
            if chosen.len() < count && chosen.iter().all(|other| other.name != event_type.name) {
                chosen.push(event_type);
            }
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_type_has_an_example_of_its_own() {
        let catalogues = Catalogue::all().unwrap();
        let counts: Vec<(&str, usize)> =
            catalogues.iter().map(|c| (c.product.id.as_str(), c.event_types.len())).collect();
        assert_eq!(
            counts,
            [("entrust-idaas", 16), ("open-loyalty", 19), ("skillmine-auth", 92), ("upmind-client", 23)]
        );
        for catalogue in &catalogues {
            assert!(postrider_core::TenantId::parse(&catalogue.product.id).is_ok());
            for event_type in &catalogue.event_types {
                let example: serde_json::Value = serde_json::from_str(&event_type.example).unwrap();
                assert_eq!(example["event_type"], event_type.name.as_str());
                assert!(catalogue.categories.iter().any(|category| category.id == event_type.category));
            }
        }
    }

    #[test]
    fn some_are_of_different_categories() {
        for catalogue in Catalogue::all().unwrap() {
            let some = catalogue.some(4);
            assert_eq!(some.len(), 4, "{}", catalogue.product.id);
            let mut categories: Vec<&str> = some.iter().map(|e| e.category.as_str()).collect();
            categories.sort_unstable();
            categories.dedup();
            assert_eq!(categories.len(), catalogue.categories.len().min(4));
        }
    }
}
