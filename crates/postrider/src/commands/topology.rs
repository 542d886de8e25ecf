//! `postrider topology`: straight to the broker, since it must work before there is anything else.

use postrider_broker::topology::{self, Topology};
use postrider_broker::{BrokerError, Lane, Metrics, Session, Settings};
use postrider_core::wire::TopologyRecord;
use prometheus::Registry;
use serde_json::json;

use super::Context;
use crate::args;
use crate::exit::{Exit, Failure};

/// How often the topology is applied before a lost session is a failure.
const TRIES: u32 = 3;

/// Does what it says.
///
/// # Errors
/// [`Failure`] with what the broker said.
pub async fn run(context: &Context, command: args::Topology) -> Result<Exit, Failure> {
    match command {
        args::Topology::Show { shards } => {
            let broker = &context.settings.broker;
            let names = postrider_broker::Names::new(&broker.prefix, broker.delay_unit_ms);
            let topology = Topology::new(&names, shards);
            let text = topology.to_string();
            if context.out.is_table() || context.out.quiet {
                context.out.text(text.trim_end())?;
            } else {
                let lines: Vec<&str> = text.lines().collect();
                context.out.text(&json!({"items": lines, "next": null}).to_string())?;
            }
            Ok(Exit::Ok)
        }
        args::Topology::Diff(shards) => {
            let settings = context.settings.broker_as("operator")?;
            let session = open(&settings).await?;
            let shards = match shards.shards {
                Some(shards) => Ok(shards),
                None => existing_shards(&session).await,
            };
            let found = match shards {
                Ok(shards) => Topology::new(session.names(), shards).diff(&session).await,
                Err(error) => Err(error),
            };
            session.close().await;
            let differences = found.map_err(|error| broker("cannot compare the topology", &error))?;
            if !context.out.is_table() {
                let lines: Vec<String> = differences.iter().map(ToString::to_string).collect();
                context.out.text(&json!({"items": lines, "next": null}).to_string())?;
            } else {
                for difference in &differences {
                    context.out.text(&difference.to_string())?;
                }
            }
            if differences.is_empty() {
                context.out.note("the broker has everything");
                return Ok(Exit::Ok);
            }
            Err(Failure::new(Exit::Conflict, format!("{} things differ", differences.len()), "")
                .next("postrider topology apply declares what is missing"))
        }
        args::Topology::Apply { shards, renew_streams } => {
            let settings = context.settings.broker_as("operator")?;
            if renew_streams {
                let session = open(&settings).await?;
                let renewed = topology::delete_streams(&session).await;
                session.close().await;
                renewed.map_err(|error| broker("cannot delete the streams", &error))?;
            }
            let record = apply(&settings, shards.shards).await?;
            if renew_streams {
                context
                    .out
                    .note("the streams are empty; restart control now: it writes the configuration again");
            }
            if context.out.is_table() {
                let text = format!("applied to {} with {} shards", settings.address(), record.shards);
                context.out.text(&text)?;
            } else {
                context.out.text(&serde_json::to_string(&record).unwrap_or_default())?;
            }
            Ok(Exit::Ok)
        }
    }
}

/// Applies the topology; again where the session was lost, since doing it twice changes nothing.
pub(crate) async fn apply(settings: &Settings, shards: Option<u16>) -> Result<TopologyRecord, Failure> {
    let mut left = TRIES;
    loop {
        left -= 1;
        let session = open(settings).await?;
        let applied = topology::apply(&session, shards).await;
        session.close().await;
        match applied {
            Err(BrokerError::Lost) if left > 0 => {}
            other => return other.map_err(|error| broker("cannot apply the topology", &error)),
        }
    }
}

/// As many shards as have queues; as many as a new installation has, if there are none.
async fn existing_shards(session: &Session) -> Result<u16, BrokerError> {
    for shard in 0..topology::MAX_SHARDS {
        match session.depth(&session.names().delivery_queue(Lane::Fresh, shard)).await {
            Ok(_) => {}
            Err(BrokerError::Missing { .. }) if shard == 0 => return Ok(topology::DEFAULT_SHARDS),
            Err(BrokerError::Missing { .. }) => return Ok(shard),
            Err(error) => return Err(error),
        }
    }
    Ok(topology::MAX_SHARDS)
}

/// A session of an operator: its metrics are shown to nobody.
pub(crate) async fn open(settings: &Settings) -> Result<Session, Failure> {
    let metrics = Metrics::register(&Registry::new(), settings.role)
        .map_err(|error| Failure::new(Exit::Other, "cannot make metrics", error))?;
    Session::open(settings, &metrics).await.map_err(|error| broker("cannot talk to the broker", &error))
}

/// Trouble with the broker as a failure with the exit code that fits.
pub(crate) fn broker(what: &str, error: &BrokerError) -> Failure {
    let exit = match error {
        BrokerError::BadAddress(_) | BrokerError::Denied { .. } | BrokerError::Config(_) => Exit::Usage,
        BrokerError::Missing { .. } => Exit::NotFound,
        BrokerError::Inequivalent { .. } => Exit::Conflict,
        BrokerError::Connect { .. }
        | BrokerError::Lost
        | BrokerError::Timeout { .. }
        | BrokerError::Unconfirmed { .. }
        | BrokerError::Full { .. }
        | BrokerError::Unroutable { .. }
        | BrokerError::Protocol { .. } => Exit::Unavailable,
    };
    Failure::new(exit, what, error)
}
