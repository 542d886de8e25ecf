//! The ids of accepted events, on a stream, so that a router that takes over knows what was accepted before it.

use std::time::Duration;

use postrider_core::wire::{self, SCHEMA};
use postrider_core::{EventId, TenantId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::error::BrokerError;
use crate::names::Names;
use crate::publish::{Outgoing, Publisher};
use crate::session::Session;
use crate::stream::{From, StreamReader};

/// How long the stream may take to give its next record.
const NEXT_RECORD: Duration = Duration::from_secs(30);

/// Events that were accepted together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenRecord {
    /// The schema of this record.
    pub schema: u32,
    /// When, milliseconds.
    pub at: Timestamp,
    /// Tenant and event.
    pub ids: Vec<(TenantId, EventId)>,
    /// Set in a record without ids, which a reader wrote to know the end when it meets it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub marker: String,
}

impl SeenRecord {
    /// A record of this release.
    pub fn new(at: Timestamp, ids: Vec<(TenantId, EventId)>) -> Self {
        Self { schema: SCHEMA, at, ids, marker: String::new() }
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

/// Hands every record since `since` to `take`, oldest first, up to a marker that is written now: so what was on the
/// stream before the call is read, all of it, however old the stream's newest record is.
///
/// # Errors
/// [`BrokerError`] when the session ends meanwhile, the stream stands still, or a record is of a newer schema.
pub async fn read_since(
    session: &Session,
    since: Timestamp,
    mut take: impl FnMut(SeenRecord),
) -> Result<(), BrokerError> {
    let marker = uuid::Uuid::new_v4().to_string();
    let record = SeenRecord { marker: marker.clone(), ..SeenRecord::new(crate::now(), Vec::new()) };
    write(&session.publisher(), session.names(), &record).await?;
    crate::crash::point("router.marker");
    let seconds = u64::try_from(since.as_secs()).unwrap_or_default();
    let mut reader = StreamReader::attach(session, &session.names().seen(), From::Seconds(seconds)).await?;
    loop {
        let next = tokio::time::timeout(NEXT_RECORD, reader.record()).await;
        let what = "the next record of the seen stream";
        let next = next.map_err(|_| BrokerError::Timeout { what, seconds: NEXT_RECORD.as_secs() })?;
        let (_, body) = next.ok_or(BrokerError::Lost)?;
        match wire::decode::<SeenRecord>(&body) {
            Ok(record) if record.marker == marker => return Ok(()),
            Ok(record) => take(record),
            Err(error) => return Err(BrokerError::Config(format!("a record of the seen stream: {error}"))),
        }
    }
}
