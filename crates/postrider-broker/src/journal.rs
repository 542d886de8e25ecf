//! Facts on their way to the books.
//!
//! One task for each role gathers the facts that are waiting into one message, publishes it, and only after its confirm
//! the next. Facts are numbered by their writer; since a message is tried again, also over a new session, until it is
//! confirmed, and never overtaken, a gap in the numbers at the books means a loss and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use postrider_core::wire::{self, EventFate, Fact, JournalMessage, SCHEMA};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::error::BrokerError;
use crate::names::Names;
use crate::publish::{Outgoing, Publisher};

/// Facts in one message, at most.
const MAX_FACTS: usize = 512;
/// Bytes in one message, give or take one fact: far below the 16 MiB that RabbitMQ 4 takes.
const PIECE_BYTES: usize = 512 * 1024;
/// Callers whose facts wait.
const MAX_WAITING: usize = 4096;

/// Writes facts. Clones share one writer.
#[derive(Clone, Debug)]
pub struct Journal {
    facts: mpsc::Sender<Entry>,
    publisher: watch::Sender<Option<Publisher>>,
    writer: Arc<str>,
    duplicates: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Entry {
    facts: Vec<Fact>,
    confirmed: oneshot::Sender<()>,
}

impl Journal {
    /// Starts the writer's task. `role` begins the writer's name, which is new at each start. The task ends when all
    /// clones are gone, or at `stop`.
    pub fn start(role: &str, names: Names, stop: CancellationToken) -> Self {
        let writer: Arc<str> = format!("{role}-{}", uuid::Uuid::now_v7().simple()).into();
        let (facts, entries) = mpsc::channel(MAX_WAITING);
        let (publisher, publishers) = watch::channel(None);
        let duplicates = Arc::new(AtomicU64::new(0));
        let task = Task {
            writer: writer.to_string(),
            names,
            written: 0,
            publishers,
            duplicates: duplicates.clone(),
        };
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task.run(entries) => {}
            }
        });
        Self { facts, publisher, writer, duplicates }
    }

    /// The writer's name.
    pub fn writer(&self) -> &str {
        &self.writer
    }

    /// From now on publish over this session.
    pub fn over(&self, publisher: Publisher) {
        self.publisher.send_replace(Some(publisher));
    }

    /// Writes facts, and returns when they are confirmed.
    ///
    /// # Errors
    /// [`BrokerError::Lost`] when the writer has stopped.
    pub async fn record(&self, facts: Vec<Fact>) -> Result<(), BrokerError> {
        if facts.is_empty() {
            return Ok(());
        }
        let mut waiting = Vec::new();
        for piece in pieces(facts) {
            waiting.push(self.send(piece).await?);
        }
        for confirmed in waiting {
            confirmed.await.map_err(|_| BrokerError::Lost)?;
        }
        Ok(())
    }

    /// Adds to the number of duplicates that this writer has met, and returns when the books can know.
    ///
    /// # Errors
    /// [`BrokerError::Lost`] when the writer has stopped.
    pub async fn count_duplicates(&self, count: u64) -> Result<(), BrokerError> {
        if count == 0 {
            return Ok(());
        }
        self.duplicates.fetch_add(count, Ordering::Relaxed);
        self.send(Vec::new()).await?.await.map_err(|_| BrokerError::Lost)
    }

    async fn send(&self, facts: Vec<Fact>) -> Result<oneshot::Receiver<()>, BrokerError> {
        let (confirmed, answer) = oneshot::channel();
        self.facts.send(Entry { facts, confirmed }).await.map_err(|_| BrokerError::Lost)?;
        Ok(answer)
    }
}

struct Task {
    writer: String,
    names: Names,
    written: u64,
    publishers: watch::Receiver<Option<Publisher>>,
    duplicates: Arc<AtomicU64>,
}

impl Task {
    async fn run(mut self, mut entries: mpsc::Receiver<Entry>) {
        while let Some(first) = entries.recv().await {
            let mut facts = first.facts;
            let mut bytes = weight(&facts);
            let mut waiting = vec![first.confirmed];
            while facts.len() < MAX_FACTS && bytes < PIECE_BYTES {
                let Ok(entry) = entries.try_recv() else { break };
                bytes += weight(&entry.facts);
                facts.extend(entry.facts);
                waiting.push(entry.confirmed);
            }
            let count = facts.len() as u64;
            let duplicates = self.duplicates.load(Ordering::Relaxed);
            let writer = self.writer.clone();
            let message = JournalMessage { schema: SCHEMA, writer, first: self.written, duplicates, facts };
            if !self.write(wire::encode(&message)).await {
                return;
            }
            self.written += count;
            for confirmed in waiting {
                // Whoever asked may have gone with its session; the fact is true all the same.
                confirmed.send(()).ok();
            }
        }
    }

    /// Publishes until it is confirmed, over as many sessions as it takes; `false` when the role has ended.
    async fn write(&mut self, body: Vec<u8>) -> bool {
        let id = format!("{}-{}", self.writer, self.written);
        loop {
            let publisher = self.publishers.borrow_and_update().clone();
            if let Some(publisher) = publisher {
                let message = Outgoing::json(self.names.journal(), "", body.clone(), id.clone());
                if publisher.publish(message).await.is_ok() {
                    return true;
                }
            }
            if self.publishers.changed().await.is_err() {
                return false;
            }
        }
    }
}

/// Facts as they go into messages: no piece is much larger than [`PIECE_BYTES`], unless one fact alone is.
fn pieces(facts: Vec<Fact>) -> Vec<Vec<Fact>> {
    if facts.len() <= MAX_FACTS && weight(&facts) <= PIECE_BYTES {
        return vec![facts];
    }
    let mut pieces: Vec<Vec<Fact>> = Vec::new();
    let mut bytes = 0;
    for fact in facts {
        let more = weight(std::slice::from_ref(&fact));
        match pieces.last_mut().filter(|piece| bytes + more <= PIECE_BYTES && piece.len() < MAX_FACTS) {
            Some(piece) => {
                bytes += more;
                piece.push(fact);
            }
            None => {
                bytes = more;
                pieces.push(vec![fact]);
            }
        }
    }
    pieces
}

/// About how many bytes facts become.
fn weight(facts: &[Fact]) -> usize {
    const OWED: usize = 128;
    let of = |fact: &Fact| match fact {
        Fact::Event(event) => {
            let body = event.event.as_ref().map_or(0, |e| e.context.get().len() + e.data.get().len());
            let owed = match &event.fate {
                EventFate::Routed(owed) => owed.len() * OWED,
                EventFate::Unmatched | EventFate::Invalid { .. } => 0,
            };
            body + owed + 512
        }
        Fact::Attempt(attempt) => attempt.response_body.as_ref().map_or(0, String::len) + 1024,
        Fact::Done(_) | Fact::Held(_) => 256,
    };
    facts.iter().map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_core::wire::{EventFact, Owed};
    use postrider_core::{DeliveryId, EventId, TenantId, Timestamp, WebhookId};

    #[test]
    fn no_message_is_larger_than_a_broker_takes() {
        let owed = |n: usize| Owed {
            delivery: DeliveryId::from_trusted(format!("{n:032x}")),
            webhook: WebhookId::from_trusted(format!("wh_{n:032x}")),
        };
        let fact = |webhooks: usize| {
            Fact::Event(EventFact {
                tenant: TenantId::default_tenant(),
                event_id: EventId::from_trusted("e"),
                at: Timestamp::default(),
                fate: EventFate::Routed((0..webhooks).map(owed).collect()),
                event: None,
                marks: Vec::new(),
            })
        };
        let facts: Vec<Fact> = (0..100).map(|_| fact(2_000)).collect();
        let pieces = pieces(facts);
        assert_eq!(pieces.iter().map(Vec::len).sum::<usize>(), 100);
        for facts in pieces {
            let message =
                JournalMessage { schema: SCHEMA, writer: "w".into(), first: 0, duplicates: 0, facts };
            let bytes = wire::encode(&message).len();
            assert!(bytes <= 2 * PIECE_BYTES, "{bytes} bytes");
        }
    }
}
