//! Facts on their way to the books.
//!
//! One task for each role gathers the facts that are waiting into one message, publishes it, and only after its confirm
//! the next. Facts are numbered by their writer; since a message is tried again, also over a new session, until it is
//! confirmed, and never overtaken, a gap in the numbers at the books means a loss and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use postrider_core::wire::{self, Fact, JournalMessage, SCHEMA};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::error::BrokerError;
use crate::names::Names;
use crate::publish::{Outgoing, Publisher};

/// Facts in one message, at most.
const MAX_FACTS: usize = 512;
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
        self.send(facts).await
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
        self.send(Vec::new()).await
    }

    async fn send(&self, facts: Vec<Fact>) -> Result<(), BrokerError> {
        let (confirmed, answer) = oneshot::channel();
        self.facts.send(Entry { facts, confirmed }).await.map_err(|_| BrokerError::Lost)?;
        answer.await.map_err(|_| BrokerError::Lost)
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
            let mut waiting = vec![first.confirmed];
            while facts.len() < MAX_FACTS && weight(&facts) < wire_budget() {
                let Ok(entry) = entries.try_recv() else { break };
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

/// Bytes of event bodies in one message, at most, give or take one entry.
fn wire_budget() -> usize {
    512 * 1024
}

fn weight(facts: &[Fact]) -> usize {
    facts
        .iter()
        .map(|fact| match fact {
            Fact::Event(event) => {
                event.event.as_ref().map_or(256, |e| e.context.get().len() + e.data.get().len() + 256)
            }
            Fact::Attempt(attempt) => attempt.response_body.as_ref().map_or(256, |body| body.len() + 256),
            Fact::Done(_) | Fact::Held(_) => 128,
        })
        .sum()
}
