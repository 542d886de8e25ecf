//! The configuration of the data plane, on a stream (DESIGN §5.2).

use postrider_core::wire::{self, ConfigRecord, WireError};

use crate::error::BrokerError;
use crate::names::Names;
use crate::publish::{Outgoing, Publisher};
use crate::session::Session;
use crate::stream::{From, Step, StreamReader};

/// Writes one record and waits for its confirm.
///
/// # Errors
/// [`BrokerError`] when it is not known to be written.
pub async fn write(publisher: &Publisher, names: &Names, record: &ConfigRecord) -> Result<(), BrokerError> {
    let id = format!("{}/{}/{}", record.epoch, record.revision, record.id);
    publisher.publish(Outgoing::json(names.config(), "", wire::encode(record), id)).await
}

/// Reads the configuration from its beginning, and then on.
#[derive(Debug)]
pub struct ConfigStream(StreamReader);

/// What reading gives.
#[derive(Debug)]
pub enum Read {
    /// A record.
    Record(Box<ConfigRecord>),
    /// Everything that was there at the opening has been read. Comes once.
    CaughtUp,
    /// A record of a newer release: what it says, and what to do.
    Unreadable(String),
    /// Not a record of ours at all.
    Damaged(String),
}

impl ConfigStream {
    /// Opens the stream at its beginning.
    ///
    /// # Errors
    /// [`BrokerError::Missing`] when the topology was not applied.
    pub async fn open(session: &Session) -> Result<Self, BrokerError> {
        let stream = session.names().config();
        Ok(Self(StreamReader::open(session, &stream, From::First).await?))
    }

    /// The next thing; `None` when the session is over.
    pub async fn next(&mut self) -> Option<Read> {
        Some(match self.0.next().await? {
            Step::CaughtUp => Read::CaughtUp,
            Step::Record(body) => match wire::decode::<ConfigRecord>(&body) {
                Ok(record) => Read::Record(Box::new(record)),
                Err(error @ WireError::UnknownSchema(_)) => {
                    Read::Unreadable(format!("a configuration record: {error}"))
                }
                Err(error) => Read::Damaged(error.to_string()),
            },
        })
    }
}
