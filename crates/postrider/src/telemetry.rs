//! The log.

mod lines;

use std::sync::{Mutex, OnceLock};

use prometheus::{IntCounter, Registry};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::SubscriberBuilder;
use tracing_subscriber::fmt::format::{DefaultFields, Format};

use crate::exit::{Exit, Failure};
use crate::settings::{LogFormat, Observe};
use lines::Lines;

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

/// Standard error, once the log goes there.
static LINES: OnceLock<Lines> = OnceLock::new();

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
    let stderr = || {
        let help = "Lines of the log that were dropped since nobody read them in time.";
        let dropped = IntCounter::new("postrider_log_lines_dropped_total", help);
        let dropped =
            dropped.map_err(|error| Failure::new(Exit::Other, "cannot count what the log drops", error))?;
        let lines = Lines::to(std::io::stderr(), dropped);
        let lines = lines.map_err(|error| Failure::new(Exit::Other, "cannot start the log", error))?;
        Ok::<_, Failure>(LINES.get_or_init(|| lines).clone())
    };
    let started = match (destination, observe.log_format) {
        (Destination::Stderr, LogFormat::Text) => {
            let colours = std::io::IsTerminal::is_terminal(&std::io::stderr())
                && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            log.with_ansi(colours).with_writer(stderr()?).try_init()
        }
        (Destination::Stderr, LogFormat::Json) => {
            log.json().flatten_event(true).with_writer(stderr()?).try_init()
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

/// Shows how much of the log was dropped.
///
/// # Errors
/// [`Failure`] when the registry has it already.
pub fn register(registry: &Registry) -> Result<(), Failure> {
    let Some(lines) = LINES.get() else { return Ok(()) };
    let registered = registry.register(Box::new(lines.dropped.clone()));
    registered.map_err(|error| Failure::new(Exit::Other, "cannot count what the log drops", error))
}

/// Has what was logged so far written, when somebody reads it; call it before the process ends.
pub fn flush() {
    if let Some(lines) = LINES.get() {
        lines.flush();
    }
}
