//! What a tenant's catalogues come to: types, triggers and profiles, compiled once.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::catalogue::{self, CATALOGUE_SCHEMA, Catalogue, TypeEntry};
use crate::event::EventType;
use crate::profile::Profile;
use crate::schema::Schema;
use crate::trigger::Trigger;

/// A catalogue, compiled.
pub(super) struct Compiled {
    types: Vec<Arc<KnownType>>,
    triggers: Vec<Arc<Trigger>>,
    profile: Option<Arc<Profile>>,
}

/// A type of a catalogue.
pub(super) struct KnownType {
    /// The product of the catalogue.
    pub(super) product: Arc<str>,
    /// What the catalogue says.
    pub(super) entry: Arc<TypeEntry>,
    /// For its data.
    pub(super) schema: Option<Schema>,
}

impl Compiled {
    /// Compiles a catalogue; the error says what this release cannot.
    pub(super) fn of(catalogue: Catalogue) -> Result<Self, String> {
        if catalogue.schema != CATALOGUE_SCHEMA {
            let given = catalogue.schema;
            return Err(format!(
                "its format is {given}, and this release reads {CATALOGUE_SCHEMA}; upgrade this role"
            ));
        }
        let product: Arc<str> = catalogue.product.id.into();
        let of_type = |entry: TypeEntry| {
            let schema = entry.data_schema.as_ref().map(Schema::compile).transpose();
            let schema =
                schema.map_err(|e| format!("event_type {:?}: data_schema: {e}", entry.name.as_str()))?;
            Ok(Arc::new(KnownType { product: product.clone(), entry: Arc::new(entry), schema }))
        };
        let of_trigger = |(index, spec)| {
            Trigger::compile(spec).map(Arc::new).map_err(|e| format!("trigger {}: {e}", index + 1))
        };
        Ok(Self {
            types: catalogue.event_types.into_iter().map(of_type).collect::<Result<_, String>>()?,
            triggers: catalogue.triggers.iter().enumerate().map(of_trigger).collect::<Result<_, String>>()?,
            profile: match catalogue.profile {
                Some(spec) => Some(Arc::new(Profile::new(spec).map_err(|e| e.to_string())?)),
                None => None,
            },
        })
    }
}

impl Compiled {
    /// The catalogue of Postrider's own events.
    pub(super) fn own() -> Self {
        Self::of(catalogue::own()).unwrap_or(Self { types: Vec::new(), triggers: Vec::new(), profile: None })
    }
}

impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Compiled({} types, {} triggers)", self.types.len(), self.triggers.len())
    }
}

/// What all catalogues of a tenant come to, the one of Postrider's own events among them.
///
/// Within a tenant a name is there once. Should it be there twice all the same, Postrider's own counts first, then the
/// catalogue whose product comes first, and a name before an alias: so every role comes to the same, whatever came first.
#[derive(Default)]
pub(super) struct Vocabulary {
    types: HashMap<EventType, Arc<KnownType>>,
    triggers: HashMap<EventType, Vec<Arc<Trigger>>>,
    profiles: HashMap<String, Arc<Profile>>,
}

impl Vocabulary {
    /// Of these catalogues, in this order.
    pub(super) fn of<'a>(catalogues: impl Iterator<Item = &'a Compiled> + Clone) -> Self {
        let mut vocabulary = Self::default();
        for known in catalogues.clone().flat_map(|catalogue| &catalogue.types) {
            vocabulary.types.entry(known.entry.name.clone()).or_insert_with(|| known.clone());
        }
        for known in catalogues.clone().flat_map(|catalogue| &catalogue.types) {
            for alias in &known.entry.aliases {
                vocabulary.types.entry(alias.clone()).or_insert_with(|| known.clone());
            }
        }
        for catalogue in catalogues {
            for trigger in &catalogue.triggers {
                vocabulary.triggers.entry(trigger.action().clone()).or_default().push(trigger.clone());
            }
            if let Some(profile) = &catalogue.profile {
                vocabulary.profiles.entry(profile.spec().name.clone()).or_insert_with(|| profile.clone());
            }
        }
        vocabulary
    }

    /// A type, by its name or an alias.
    pub(super) fn known(&self, event_type: &EventType) -> Option<&Arc<KnownType>> {
        self.types.get(event_type)
    }

    /// Every type, in no order, those with aliases several times.
    pub(super) fn types(&self) -> impl Iterator<Item = &KnownType> {
        self.types.values().map(|known| &**known)
    }

    /// What an action triggers.
    pub(super) fn triggers(&self, action: &EventType) -> &[Arc<Trigger>] {
        self.triggers.get(action).map_or(&[], Vec::as_slice)
    }

    /// A profile.
    pub(super) fn profile(&self, name: &str) -> Option<&Arc<Profile>> {
        self.profiles.get(name)
    }
}

impl fmt::Debug for Vocabulary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vocabulary({} names, {} actions)", self.types.len(), self.triggers.len())
    }
}
