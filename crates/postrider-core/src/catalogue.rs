//! What a product's catalogue says: categories, groups, event types, triggers and the product's profile.
//!
//! The same shape is the file under `catalogues/` (TOML), the body of the API (JSON) and the record on the config stream.
//! Catalogues belong to a tenant; within one tenant a name or alias of an event type is there once.
//!
//! [`check()`] says what is wrong with one, [`diff()`] what it changes, [`own()`] is the catalogue of Postrider's own events.

mod check;
mod diff;
mod members;
mod own;
mod run_together;

pub use check::{Finding, Severity, check};
pub use diff::{Change, How, Part, diff};
pub use members::unknown_members;
pub use own::{DELIVERY_DEAD, OWN, OWN_TYPES, WEBHOOK_DISABLED, WEBHOOK_FAILING, own};

use serde::{Deserialize, Serialize};

use crate::event::EventType;
use crate::profile::ProfileSpec;

/// The version of the format that this release reads and writes.
pub const CATALOGUE_SCHEMA: u32 = 1;

/// The largest catalogue, bytes of JSON.
pub const MAX_CATALOGUE_BYTES: usize = 1024 * 1024;

/// A product's catalogue.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Catalogue {
    /// [`CATALOGUE_SCHEMA`].
    pub schema: u32,
    /// Whose event types they are.
    pub product: Product,
    /// Categories, in the order in which they are shown.
    #[serde(default, rename = "category", skip_serializing_if = "Vec::is_empty")]
    pub categories: Vec<Category>,
    /// Groups, in the order in which they are shown within their category.
    #[serde(default, rename = "group", skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
    /// Event types, in the order in which they are shown.
    #[serde(default, rename = "event_type", skip_serializing_if = "Vec::is_empty")]
    pub event_types: Vec<TypeEntry>,
    /// What triggers them.
    #[serde(default, rename = "trigger", skip_serializing_if = "Vec::is_empty")]
    pub triggers: Vec<TriggerSpec>,
    /// How the product speaks to receivers, if it has a way of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<ProfileSpec>,
}

/// A product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Product {
    /// 1 to 64 of `a-z`, `0-9`, `-` and `_`; names the catalogue within a tenant.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What a reader should know.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// A category of event types.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Category {
    /// One word; subscriptions name it.
    pub id: String,
    /// What people read.
    pub label: String,
    /// What it covers, in a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// A group of event types within a category.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// One word; subscriptions name it.
    pub id: String,
    /// The category that it is in.
    pub category: String,
    /// What people read.
    pub label: String,
    /// What it covers, in a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// An event type: an entry of a catalogue.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TypeEntry {
    /// Its name: opaque, exact.
    pub name: EventType,
    /// What people read.
    pub label: String,
    /// Other spellings that upstream and subscriptions may use; receivers only ever see the name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<EventType>,
    /// The category's id.
    pub category: String,
    /// The group's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The product's own code for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// When it happens, in a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What causes it, each in a phrase.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<String>,
    /// Whether there may be causes that are not listed.
    #[serde(default)]
    pub conditions_open: bool,
    /// What makes it happen.
    #[serde(default)]
    pub trigger: Cause,
    /// For a reminder: how many days before its date it goes out unless the tenant says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lead_days: Option<u32>,
    /// Where the source ran names together: the text that this name was cut from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split_from: Option<String>,
    /// Whether its data may hold secrets, so that it is hidden in logs and lists.
    #[serde(default)]
    pub sensitive: bool,
    /// A JSON Schema for `data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_schema: Option<serde_json::Value>,
    /// A whole event of this type, as JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub example: Option<String>,
}

impl TypeEntry {
    /// A type of this name that says nothing more of itself.
    pub fn new(name: EventType) -> Self {
        Self {
            label: name.as_str().to_owned(),
            name,
            aliases: Vec::new(),
            category: String::new(),
            group: None,
            code: None,
            description: String::new(),
            conditions: Vec::new(),
            conditions_open: false,
            trigger: Cause::Action,
            lead_days: None,
            split_from: None,
            sensitive: false,
            data_schema: None,
            example: None,
        }
    }
}

/// What makes an event of a type happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Something that somebody or some system does.
    #[default]
    Action,
    /// A date that comes close: a reminder.
    Scheduled,
    /// A change of Postrider's own configuration.
    Own,
}

/// A rule: which events an action becomes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TriggerSpec {
    /// The action's name, compared exactly. Several triggers may name the same; all that apply emit.
    pub action: EventType,
    /// CEL over the action; without one it always applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// What upstream should know, in a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What it emits, in this order.
    pub emit: Vec<EmitSpec>,
}

/// One kind of event that a trigger emits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EmitSpec {
    /// The name of an event type of the same catalogue.
    pub event_type: EventType,
    /// CEL over the action and, with `for_each`, the subject; without one it is always emitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// One event for each of these subjects: JSON pointers into the action (`/data/sender`). One that ends in `/*` takes
    /// each element of an array. A subject that is absent or null refuses the whole action.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub for_each: Vec<String>,
    /// Where the event's `data` is: a JSON pointer into the action, or into the subject where it begins with `/subject`.
    /// By default `/subject` with `for_each`, else `/data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Where the event's `key` is: a JSON pointer to a string or number. By default the action's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}
