//! The command line of what happened over time.

#![allow(clippy::doc_markdown, reason = "clap shows these comments as they are, in a terminal")]

use clap::Args;

use super::moment;

/// Which time, and of what.
#[derive(Debug, Args)]
pub struct Stats {
    /// Of this webhook [default: of the whole tenant]
    #[arg(long, value_name = "ID")]
    pub webhook: Option<String>,
    /// From then on: 3h, 7d, or 2026-11-21T20:00:00Z [default: 24 hours ago]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub since: Option<String>,
    /// Up to then [default: now]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub until: Option<String>,
}
