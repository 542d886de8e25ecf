//! The command line of deliveries.

#![allow(clippy::doc_markdown, reason = "clap shows these comments as they are, in a terminal")]

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{Ids, Page, duration, moment};

/// Deliveries.
#[derive(Debug, Subcommand)]
pub enum Delivery {
    /// List deliveries
    List {
        #[command(flatten)]
        #[allow(missing_docs, reason = "clap would take a doc comment here as help for every flag")]
        filter: DeliveryFilter,
        #[command(flatten)]
        #[allow(missing_docs, reason = "clap would take a doc comment here as help for every flag")]
        page: Page,
    },
    /// Write deliveries to standard output, one JSON document a line: all that fit, however many
    Export(DeliveryFilter),
    /// Show a delivery and its attempts
    Get {
        /// Its id
        id: String,
    },
    /// Call off deliveries that have not ended: these, or all that fit
    Cancel(DeliveryCancel),
    /// List what was called off, newest first
    Cancellations(Page),
    /// Deliver again what has ended
    Redeliver {
        #[command(flatten)]
        #[allow(missing_docs, reason = "clap would take a doc comment here as help for every flag")]
        ids: Ids,
        /// Wait until they have ended again
        #[arg(long)]
        wait: bool,
        /// How long to wait
        #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
        wait_timeout: Duration,
    },
}

/// What to call off.
#[derive(Debug, Args)]
pub struct DeliveryCancel {
    /// The deliveries
    #[arg(num_args = 1..=1000, value_name = "ID", required_unless_present_any = ["webhook", "event_type", "since", "until"],
        conflicts_with_all = ["webhook", "event_type", "since", "until", "state", "yes", "dry_run"])]
    pub ids: Vec<String>,
    /// All to this webhook
    #[arg(long)]
    pub webhook: Option<String>,
    /// All of events of this type, by name or alias
    #[arg(long, value_name = "TYPE")]
    pub event_type: Option<String>,
    /// All that began since then: 2h, or 2026-11-21T20:00:00Z
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub since: Option<String>,
    /// All that began before then [default: now]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub until: Option<String>,
    /// Also what is on its way (pending), or only what waits for its webhook to be resumed (held) [default: pending]
    #[arg(long, value_parser = ["pending", "held"])]
    pub state: Option<String>,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Say how many it would be, and call off nothing
    #[arg(long, conflicts_with = "yes")]
    pub dry_run: bool,
}

/// Which deliveries.
#[derive(Clone, Debug, Args)]
pub struct DeliveryFilter {
    /// In this state
    #[arg(long)]
    pub state: Option<String>,
    /// To this webhook
    #[arg(long)]
    pub webhook: Option<String>,
    /// Of this event
    #[arg(long)]
    pub event: Option<String>,
    /// Of events of this type
    #[arg(long = "type", value_name = "TYPE")]
    pub event_type: Option<String>,
    /// Made since then: 2h, or 2026-11-21T20:00:00Z
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub since: Option<String>,
    /// Made before then
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub until: Option<String>,
    /// Whose newest attempt ended like this: none (delivered), timeout, http_5xx and so on
    #[arg(long, value_parser = postrider_core::outcome::CLASSES, hide_possible_values = true)]
    pub class: Option<String>,
    /// Whose newest attempt was answered with this status (429), one of this hundred (5xx), or not at all (none)
    #[arg(long)]
    pub status: Option<String>,
    /// With so many attempts or more
    #[arg(long, value_name = "N")]
    pub attempts_from: Option<u32>,
}
