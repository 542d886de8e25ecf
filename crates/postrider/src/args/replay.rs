//! The command line of replays.

#![allow(clippy::doc_markdown, reason = "clap shows these comments as they are, in a terminal")]

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{Ids, Page, duration, moment};

/// Replays.
#[derive(Debug, Subcommand)]
pub enum Replay {
    /// Look up what would be sent again, and count it; nothing is sent
    Plan(ReplayWhich),
    /// Send again: plan it, show how many there are, ask, send
    Run(ReplayRun),
    /// List replays, newest first
    List(Page),
    /// Show a replay, and how what it sent has ended so far
    Show {
        /// Its id
        id: String,
    },
    /// Write what a replay sent to standard output, one JSON document a line, each with how it has ended
    Export {
        /// Its id
        id: String,
    },
    /// Send nothing more of replays; what was sent already goes its way
    Cancel(Ids),
}

/// What to send again.
#[derive(Clone, Debug, Args)]
pub struct ReplayWhich {
    /// Deliveries that ended like this: delivered, dead, cancelled or skipped
    /// [default: all but delivered; with another --to than original, any]
    #[arg(long = "state", value_name = "STATE", value_delimiter = ',',
        value_parser = ["delivered", "dead", "cancelled", "skipped"])]
    pub states: Vec<String>,
    /// Deliveries to this webhook, which may be a deleted one
    #[arg(long, value_name = "ID")]
    pub webhook: Option<String>,
    /// Of events of these types
    #[arg(long = "type", value_name = "TYPE")]
    pub event_types: Vec<String>,
    /// Of these events, at most 1000
    #[arg(long = "event", value_name = "ID")]
    pub events: Vec<String>,
    /// Of events accepted since then: 2h, or 2026-11-21T20:00:00Z
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub since: Option<String>,
    /// Of events accepted before then
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub until: Option<String>,
    /// To the webhooks that they were to (original), to those that take the events today (matching), or to the webhook of
    /// this id, whatever it takes
    #[arg(long, value_name = "TARGET", default_value = "original")]
    pub to: String,
    /// Also what the target has been delivered; not with original, where --state delivered says it
    #[arg(long)]
    pub again: bool,
    /// How many a second, at most
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u32).range(1..=5000))]
    pub rate: u32,
}

/// What to send again, and how.
#[derive(Clone, Debug, Args)]
pub struct ReplayRun {
    /// A plan that was made before
    #[arg(conflicts_with_all = ["states", "webhook", "event_types", "events", "since", "until", "to", "again", "rate"])]
    pub id: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would take a doc comment here as help for every flag")]
    pub which: ReplayWhich,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Do not wait until everything is sent and has ended
    #[arg(long)]
    pub no_wait: bool,
    /// How long to wait, once everything is sent, until it has ended
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub wait_timeout: Duration,
}
