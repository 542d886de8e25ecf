//! The command line of listening.

#![allow(clippy::doc_markdown, reason = "clap shows these comments as they are, in a terminal")]

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use url::Url;

use super::{Selection, duration};

/// What to receive, and where.
#[derive(Debug, Args)]
pub struct Listen {
    /// A port of this machine (3000), or a URL such as http://localhost:3000/hooks
    pub target: String,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would take a doc comment here as help for every flag")]
    pub selection: Selection,
    /// Most attempts
    #[arg(long, value_name = "N")]
    pub max_attempts: Option<u32>,
    /// The intervals between attempts, such as 1s,5s,1m
    #[arg(long, value_name = "DURATIONS", value_delimiter = ',', value_parser = duration)]
    pub schedule: Vec<Duration>,
    /// Sign with the secret in this file, so that it is the same each time (- reads standard input) [default: a new one]
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// How long your program may take to answer, from 1s to 55s; a worker waits 5 s longer
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = patience)]
    pub timeout: Duration,
    /// Where the inbox is that hands deliveries on [default: POSTRIDER_INBOX_URL]
    #[arg(long, value_name = "URL")]
    pub inbox: Option<Url>,
    /// Where workers reach that inbox, if that is another address, such as http://inbox:8081 between containers
    #[arg(long, value_name = "URL")]
    pub inbox_for_workers: Option<Url>,
    /// Forward to another machine than this one, too
    #[arg(long)]
    pub allow_external: bool,
}

/// Reads how long a target may take.
fn patience(text: &str) -> Result<Duration, String> {
    let patience = duration(text)?;
    match (Duration::from_secs(1)..=Duration::from_secs(55)).contains(&patience) {
        true => Ok(patience),
        false => Err("it must be from 1s to 55s".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_has_seconds_to_answer() {
        assert_eq!(patience("55s"), Ok(Duration::from_secs(55)));
        for bad in ["0s", "999ms", "56s", "1m", "5"] {
            assert!(patience(bad).is_err(), "{bad}");
        }
    }
}
