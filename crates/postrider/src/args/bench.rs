//! The command line of the bench.

#![allow(clippy::doc_markdown, reason = "clap shows these comments as they are, in a terminal")]

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// What to measure.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Bench {
    /// Less of everything, in under three minutes; every target but growth
    #[arg(long)]
    pub quick: bool,
    /// Next to nothing of everything, to see that it works: the numbers mean nothing
    #[arg(long, hide = true, conflicts_with = "quick")]
    pub tiny: bool,
    /// Only these workloads, with their baselines, such as one-to-one-1k; may be repeated
    #[arg(long, value_name = "WORKLOAD", value_delimiter = ',', value_parser = crate::bench::NAMES)]
    pub only: Vec<String>,
    /// So many workers [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16))]
    pub workers: Option<u32>,
    /// So many routers, of which one is active [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16))]
    pub routers: Option<u32>,
    /// So many shards, each with its queues [default: 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub shards: Option<u16>,
    /// Keep each worker and each router on one core, in turn
    #[arg(long)]
    pub pin: bool,
    /// The same as --output json
    #[arg(long)]
    pub json: bool,
    /// Write a chart to this file
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Keep the store in this directory meanwhile: what its disk takes to sync is part of what is measured
    /// [default: the one for temporary files]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// What the bench starts itself.
    #[command(subcommand)]
    pub command: Option<BenchCommand>,
}

/// What the bench starts itself.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// The receiver: answers 200 to everything, and counts
    #[command(hide = true)]
    Sink {
        /// What it refuses at first is due again after so long, milliseconds
        #[arg(long, value_name = "N")]
        retry_ms: u64,
    },
}
