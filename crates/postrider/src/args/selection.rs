//! Which events a webhook takes, on the command line.

#![allow(clippy::doc_markdown, reason = "clap shows these comments as they are, in a terminal")]

use clap::Args;

/// Which events to take, and how they are sent.
#[derive(Clone, Debug, Default, Args)]
pub struct Selection {
    /// Take events of these types, by name or alias; may be repeated
    #[arg(long = "event-type", value_name = "TYPE")]
    pub event_types: Vec<String>,
    /// Take events of the types of this group, also of those to come; may be repeated
    #[arg(long = "group", value_name = "GROUP")]
    pub groups: Vec<String>,
    /// Take events of the types of this category, also of those to come; may be repeated
    #[arg(long = "category", value_name = "CATEGORY")]
    pub categories: Vec<String>,
    /// Of these take only events for which this CEL expression holds, such as 'data.amount > 100'
    #[arg(long, value_name = "CEL")]
    pub filter: Option<String>,
    /// How the receiver is spoken to: envelope, signature, success and retry rules
    #[arg(long)]
    pub profile: Option<String>,
}

impl Selection {
    /// Whether it names types, groups or categories.
    pub fn names_some(&self) -> bool {
        !(self.event_types.is_empty() && self.groups.is_empty() && self.categories.is_empty())
    }
}
