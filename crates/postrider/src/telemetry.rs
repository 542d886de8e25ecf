//! The log.

use std::sync::Mutex;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::SubscriberBuilder;
use tracing_subscriber::fmt::format::{DefaultFields, Format};

use crate::exit::{Exit, Failure};
use crate::settings::{LogFormat, Observe};

/// Where the log goes.
#[derive(Debug)]
pub enum Destination {
    /// Standard error.
    Stderr,
    /// A file.
    File(std::fs::File),
}

/// The AMQP library logs as errors what we handle, such as asking whether a queue exists: it is quiet unless the filter
/// names it.
const QUIET: &str = "lapin=off";

/// Starts the log; once for each process.
///
/// # Errors
/// [`Failure`] when it was started before.
pub fn start(observe: &Observe, destination: Destination) -> Result<(), Failure> {
    let filter = EnvFilter::builder()
        .parse(format!("{QUIET},{}", observe.log))
        .map_err(|error| Failure::usage("POSTRIDER_LOG", error))?;
    let log: SubscriberBuilder<DefaultFields, Format, EnvFilter> =
        tracing_subscriber::fmt().with_env_filter(filter);
    let started = match (destination, observe.log_format) {
        (Destination::Stderr, LogFormat::Text) => {
            let colours = std::io::IsTerminal::is_terminal(&std::io::stderr())
                && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            log.with_ansi(colours).with_writer(std::io::stderr).try_init()
        }
        (Destination::Stderr, LogFormat::Json) => {
            log.json().flatten_event(true).with_writer(std::io::stderr).try_init()
        }
        (Destination::File(file), LogFormat::Text) => {
            log.with_ansi(false).with_writer(Mutex::new(file)).try_init()
        }
        (Destination::File(file), LogFormat::Json) => {
            log.json().flatten_event(true).with_writer(Mutex::new(file)).try_init()
        }
    };
    started.map_err(|error| Failure::new(Exit::Other, "cannot start the log", error))
}
