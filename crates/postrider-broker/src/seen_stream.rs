//! The ids of accepted events, on a stream, so that a router that takes over knows what was accepted before it.

use postrider_core::wire::{self, SCHEMA};
use postrider_core::{EventId, TenantId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::error::BrokerError;
use crate::names::Names;
use crate::publish::{Outgoing, Publisher};
use crate::session::Session;
use crate::stream::{From, Step, StreamReader};

/// Events that were accepted together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenRecord {
    /// The schema of this record.
    pub schema: u32,
    /// When, milliseconds.
    pub at: Timestamp,
    /// Tenant and event.
    pub ids: Vec<(TenantId, EventId)>,
}

impl SeenRecord {
    /// A record of this release.
    pub fn new(at: Timestamp, ids: Vec<(TenantId, EventId)>) -> Self {
        Self { schema: SCHEMA, at, ids }
    }
}

/// Writes one record and waits for its confirm.
///
/// # Errors
/// [`BrokerError`] when it is not known to be written.
pub async fn write(publisher: &Publisher, names: &Names, record: &SeenRecord) -> Result<(), BrokerError> {
    let id = format!("seen-{}", record.at.as_millis());
    publisher.publish(Outgoing::json(names.seen(), "", wire::encode(record), id)).await
}

/// Reads everything since `since` that was there when it was called.
///
/// # Errors
/// [`BrokerError`] when the session ends meanwhile, or a record is of a newer schema.
pub async fn read_since(session: &Session, since: Timestamp) -> Result<Vec<SeenRecord>, BrokerError> {
    let seconds = u64::try_from(since.as_secs()).unwrap_or_default();
    let mut reader = StreamReader::open(session, &session.names().seen(), From::Seconds(seconds)).await?;
    let mut records = Vec::new();
    loop {
        match reader.next().await.ok_or(BrokerError::Lost)? {
            Step::CaughtUp => return Ok(records),
            Step::Record(body) => match wire::decode::<SeenRecord>(&body) {
                Ok(record) => records.push(record),
                Err(error) => {
                    return Err(BrokerError::Config(format!("a record of the seen stream: {error}")));
                }
            },
        }
    }
}
