//! Reading a stream from a position to its end, and then on.

use std::time::Duration;

use lapin::types::{AMQPValue, FieldTable, ShortString};

use crate::consume::{Consumer, Incoming};
use crate::error::BrokerError;
use crate::session::Session;

/// Records that the broker may send ahead. Acks are only credit.
const PREFETCH: u16 = 500;
/// How long the end of a stream that is not empty takes to show.
const END_SHOWS: Duration = Duration::from_secs(5);
/// A pause this long after the first record of the last chunk means that the chunk was read.
const QUIET: Duration = Duration::from_millis(200);

/// Where to begin.
#[derive(Clone, Copy, Debug)]
pub(crate) enum From {
    /// At the oldest record.
    First,
    /// At the records of this time, seconds since the Unix epoch, or a little earlier.
    Seconds(u64),
}

/// A stream, read record by record. It knows when it has passed what was newest at its opening.
#[derive(Debug)]
pub(crate) struct StreamReader {
    consumer: Consumer,
    /// Offset of the newest record at the opening; `None` when there was none.
    newest: Option<i64>,
    caught_up: bool,
}

/// What reading gives.
#[derive(Debug)]
pub(crate) enum Step {
    /// A record.
    Record(Vec<u8>),
    /// Everything that was there at the opening has been read. Comes once.
    CaughtUp,
}

impl StreamReader {
    /// Opens a stream: first its end is looked up, then it is read from `from`.
    pub(crate) async fn open(session: &Session, stream: &str, from: From) -> Result<Self, BrokerError> {
        let newest = newest_offset(session, stream).await?;
        Ok(Self { newest, ..Self::attach(session, stream, from).await? })
    }

    /// Opens a stream without looking for its end.
    pub(crate) async fn attach(session: &Session, stream: &str, from: From) -> Result<Self, BrokerError> {
        let offset = match from {
            From::First => AMQPValue::LongString("first".into()),
            From::Seconds(seconds) => AMQPValue::Timestamp(seconds),
        };
        let consumer = session.consume_stream(stream, PREFETCH, offset_argument(offset)).await?;
        Ok(Self { consumer, newest: None, caught_up: false })
    }

    /// The next step; `None` when the session is over.
    pub(crate) async fn next(&mut self) -> Option<Step> {
        let Some(newest) = self.newest.filter(|_| !self.caught_up) else {
            if !self.caught_up {
                self.caught_up = true;
                return Some(Step::CaughtUp);
            }
            return self.record().await.map(|(_, body)| Step::Record(body));
        };
        // The record at `newest` itself must be handed out before the mark, so the mark follows one call later.
        let (offset, body) = self.record().await?;
        if offset >= newest {
            self.newest = None;
        }
        Some(Step::Record(body))
    }

    /// The next record and its offset; `None` when the session is over.
    pub(crate) async fn record(&mut self) -> Option<(i64, Vec<u8>)> {
        let message = self.consumer.next().await?;
        let offset = offset_of(&message);
        let body = message.body().to_vec();
        // Never rejected: that would close the whole connection. An ack is only credit.
        message.ack().await.ok()?;
        Some((offset, body))
    }
}

async fn newest_offset(session: &Session, stream: &str) -> Result<Option<i64>, BrokerError> {
    let last = offset_argument(AMQPValue::LongString("last".into()));
    let mut consumer = session.consume_stream(stream, PREFETCH, last).await?;
    let mut newest = None;
    let mut patience = END_SHOWS;
    while let Ok(message) = tokio::time::timeout(patience, consumer.next()).await {
        let message = message.ok_or(BrokerError::Lost)?;
        newest = newest.max(Some(offset_of(&message)));
        message.ack().await?;
        patience = QUIET;
    }
    consumer.cancel().await?;
    Ok(newest)
}

fn offset_of(message: &Incoming) -> i64 {
    message.header_i64("x-stream-offset").unwrap_or(0)
}

fn offset_argument(offset: AMQPValue) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert(ShortString::from("x-stream-offset"), offset);
    arguments
}
