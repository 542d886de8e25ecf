//! The recorder: from the journal, the dead, invalid and poison queues into the books.
//!
//! A batch is what came within some milliseconds, and more of them where there is much. It is written in one transaction and acked after the commit; when
//! the store fails, nothing is acked, and the batch is tried again until the store works or the session is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use postrider_broker::{BrokerError, Incoming, Names, Outgoing, Readiness, Seldom, Session, crash};
use postrider_core::books::End;
use postrider_core::wire::{self, DeadMessage, DeliveryMessage, Fact, JournalMessage, WireError};
use postrider_core::{TenantId, Timestamp};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::store::{Entry, Letter, LetterKind, Recorded, Store, letter_id};

/// Messages in one transaction, at most.
const BATCH: usize = 100;
/// Messages that the journal hands out before they are acked: those of a batch, and those of the next, so that they are read while
/// the batch is written. Of the other queues, which are nearly empty, it is one batch.
const JOURNAL_PREFETCH: u16 = 2 * BATCH as u16;
/// Facts in one transaction, at most, give or take one message.
const BATCH_FACTS: usize = 8192;
/// How long a batch waits for more after one of at least so many facts. Each commit writes some page of every index, whatever
/// it holds, and a delivery whose facts are all in one batch is written once: where there is much to record, waiting makes it
/// cheaper, and who looks sees it half a second later.
const GATHER: [(usize, Duration); 4] = [
    (1_000, Duration::from_millis(400)),
    (64, Duration::from_millis(50)),
    (8, Duration::from_millis(25)),
    (0, Duration::from_millis(5)),
];
/// A batch that waits ends when nothing came for so long: the load is over.
const QUIET: Duration = Duration::from_millis(50);
/// Pauses between tries when the store fails.
const RETRY: std::ops::Range<Duration> = Duration::from_millis(100)..Duration::from_secs(5);
/// How long a message of a newer release is put away, seconds: one of the parking queues.
const PARK_SECS: u32 = 600;

/// When something last happened to deliveries, as far as control knows.
#[derive(Clone, Debug)]
pub(crate) struct Activity(Arc<AtomicI64>);

impl Activity {
    /// Something happened now.
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicI64::new(postrider_broker::now().as_millis())))
    }

    /// Something happens now.
    pub(crate) fn note(&self) {
        self.0.store(postrider_broker::now().as_millis(), Ordering::SeqCst);
    }

    /// When something last happened.
    pub(crate) fn last(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// Writes what the other roles report into the books.
#[derive(Debug)]
pub(crate) struct Recorder {
    pub store: Arc<Store>,
    pub metrics: Metrics,
    pub readiness: Readiness,
    pub activity: Activity,
}

/// Where a message comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Journal,
    Dead,
    Invalid,
    Poison,
}

impl Source {
    const ALL: [Self; 4] = [Self::Journal, Self::Dead, Self::Invalid, Self::Poison];

    fn queue(self, names: &Names) -> String {
        match self {
            Self::Journal => names.journal(),
            Self::Dead => names.dead(),
            Self::Invalid => names.invalid(),
            Self::Poison => names.poison(),
        }
    }
}

/// A message that came, and what it means for the books; nothing when that is to be read later.
struct Received {
    source: Source,
    entry: Option<Entry>,
    message: Incoming,
}

/// How long a batch waits for more after one of so many facts.
fn patience_after(facts: usize) -> Duration {
    GATHER.iter().find(|(many, _)| facts >= *many).map_or(Duration::ZERO, |(_, patience)| *patience)
}

/// What comes within `patience`, and how many facts that is.
async fn gather(
    first: Received,
    messages: &mut mpsc::Receiver<Received>,
    patience: Duration,
) -> (Vec<Received>, usize) {
    let until = Instant::now() + patience;
    let (mut batch, mut facts) = (Vec::new(), 0);
    let mut next = Some(first);
    while let Some(received) = next {
        if let Some(Entry::Journal(journal)) = &received.entry {
            facts += journal.facts.len();
        }
        batch.push(received);
        if batch.len() >= BATCH || facts >= BATCH_FACTS {
            break;
        }
        let quiet = Instant::now() + QUIET;
        next = tokio::time::timeout_at(until.min(quiet), messages.recv()).await.ok().flatten();
    }
    (batch, facts)
}

impl Recorder {
    /// Records until `stop`, or until the session is over. What was received before `stop` is recorded and acked.
    pub(crate) async fn run(
        self: &Arc<Self>,
        session: &Session,
        stop: &CancellationToken,
    ) -> Result<(), BrokerError> {
        let (sender, mut messages) = mpsc::channel::<Received>(BATCH);
        let mut pumps = JoinSet::new();
        for source in Source::ALL {
            let prefetch = match source {
                Source::Journal => JOURNAL_PREFETCH,
                Source::Dead | Source::Invalid | Source::Poison => BATCH as u16,
            };
            let mut consumer = session.consume(&source.queue(session.names()), prefetch).await?;
            let (recorder, sender, stop) = (self.clone(), sender.clone(), stop.clone());
            // What comes next is read while the batch before it is written.
            pumps.spawn(async move {
                loop {
                    let next = tokio::select! {
                        () = stop.cancelled() => return,
                        next = consumer.next() => next,
                    };
                    let Some(message) = next else { return };
                    let entry = recorder.read(source, &message).await;
                    if sender.send(Received { source, entry, message }).await.is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut patience = patience_after(0);
        while let Some(first) = messages.recv().await {
            let (batch, facts) = gather(first, &mut messages, patience).await;
            patience = patience_after(facts);
            self.record(batch, session, stop).await?;
        }
        if stop.is_cancelled() { Ok(()) } else { Err(BrokerError::Lost) }
    }

    async fn record(
        &self,
        batch: Vec<Received>,
        session: &Session,
        stop: &CancellationToken,
    ) -> Result<(), BrokerError> {
        let mut entries = Vec::with_capacity(batch.len());
        let mut messages: [Vec<Incoming>; Source::ALL.len()] = Default::default();
        for Received { source, entry, message } in batch {
            match entry {
                Some(entry) => entries.push(entry),
                None => self.park(session, &message).await?,
            }
            messages[source as usize].push(message);
        }
        crash::point("recorder.read");
        self.write(&entries, stop).await?;
        crash::point("recorder.committed");
        for messages in messages.into_iter().filter(|messages| !messages.is_empty()) {
            Incoming::ack_all(messages).await?;
            crash::point("recorder.one_acked");
        }
        Ok(())
    }

    /// Writes a batch, however long the store takes to work again.
    async fn write(&self, entries: &[Entry], stop: &CancellationToken) -> Result<(), BrokerError> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut pause = RETRY.start;
        let (recorded, took) = loop {
            let begun = Instant::now();
            match self.store.record(entries, postrider_broker::now()).await {
                Ok(recorded) => break (recorded, begun.elapsed()),
                Err(error) => {
                    self.metrics.store_up(false);
                    self.readiness.set("store", Err(error.to_string()));
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        // Nothing is acked: it all comes again.
                        () = stop.cancelled() => return Err(BrokerError::Lost),
                    }
                    pause = (pause * 2).min(RETRY.end);
                }
            }
        };
        self.activity.note();
        self.metrics.store_up(true);
        self.readiness.set("store", Ok(()));
        self.account(entries, &recorded, took);
        Ok(())
    }

    fn account(&self, entries: &[Entry], recorded: &Recorded, took: Duration) {
        let (mut event, mut attempt, mut done, mut held) = (0, 0, 0, 0);
        for entry in entries {
            match entry {
                Entry::Journal(message) => {
                    for fact in &message.facts {
                        *match fact {
                            Fact::Event(_) => &mut event,
                            Fact::Attempt(_) => &mut attempt,
                            Fact::Done(fact) => {
                                if fact.end == End::Delivered {
                                    self.metrics.delivered(fact.at);
                                }
                                &mut done
                            }
                            Fact::Held(_) => &mut held,
                        } += 1;
                    }
                }
                Entry::Dead(_) => self.metrics.recorded("dead", 1),
                Entry::Letter(letter) => self.metrics.recorded(letter.kind.as_str(), 1),
                Entry::Poison { .. } => self.metrics.recorded("poison", 1),
            }
        }
        for (kind, count) in [("event", event), ("attempt", attempt), ("done", done), ("held", held)] {
            self.metrics.recorded(kind, count);
        }
        self.metrics.batch(entries.len(), took, recorded, postrider_broker::now());
        if recorded.repeated_messages > 0 {
            tracing::debug!(messages = recorded.repeated_messages, "the journal repeated itself");
        }
    }

    /// Puts a message of a newer release away; it comes back after a while.
    async fn park(&self, session: &Session, message: &Incoming) -> Result<(), BrokerError> {
        let key = Names::park_key(PARK_SECS, "journal");
        let id = message.message_id().unwrap_or_default();
        session
            .publisher()
            .publish(Outgoing::json(session.names().park(), key, message.body().to_vec(), id))
            .await
    }

    /// What a message means for the books; nothing when a newer release wrote it and it is to be read later.
    async fn read(&self, source: Source, message: &Incoming) -> Option<Entry> {
        let now = postrider_broker::now();
        let body = message.body();
        Some(match source {
            Source::Journal => match wire::decode::<JournalMessage>(body) {
                Ok(journal) => Entry::Journal(journal),
                Err(error @ WireError::UnknownSchema(_)) => {
                    self.metrics.unknown_schema();
                    static PUT_AWAY: Seldom = Seldom::new();
                    if let Some(unsaid) = PUT_AWAY.due() {
                        tracing::error!(
                            %error,
                            unsaid,
                            "a journal message is put away for {PARK_SECS} s; upgrade control"
                        );
                    }
                    return None;
                }
                Err(error) => unreadable(LetterKind::Poison, "unreadable_journal", &error, message, now),
            },
            Source::Dead => match wire::decode::<DeadMessage>(body) {
                Ok(dead) => Entry::Dead(dead),
                Err(error @ WireError::UnknownSchema(_)) => {
                    self.metrics.unknown_schema();
                    unreadable(LetterKind::Dead, "unknown_schema", &error, message, now)
                }
                Err(error) => unreadable(LetterKind::Poison, "unreadable_dead", &error, message, now),
            },
            Source::Poison => match wire::decode::<DeliveryMessage>(body) {
                Ok(poison) => Entry::Poison { message: poison, detail: why_poison(message), at: now },
                Err(error @ WireError::UnknownSchema(_)) => {
                    self.metrics.unknown_schema();
                    unreadable(LetterKind::Poison, "unknown_schema", &error, message, now)
                }
                Err(error) => unreadable(LetterKind::Poison, "unreadable", &error, message, now),
            },
            Source::Invalid => Entry::Letter(self.invalid(message, now).await),
        })
    }

    /// A message that is no event, as the router found it.
    async fn invalid(&self, message: &Incoming, now: Timestamp) -> Letter {
        let header = |name: &str| message.header_str(name).unwrap_or_default().to_owned();
        let (key, event_id) = (header("tenant"), header("event-id"));
        // What no tenant owns is shown to the default tenant; the detail names the routing key.
        let known = match TenantId::parse(&key) {
            Ok(tenant) => self.store.tenant(tenant.as_str()).await.ok().flatten().map(|tenant| tenant.id),
            Err(_) => None,
        };
        let mut letter = Letter::unreadable(
            LetterKind::Invalid,
            &header("reason"),
            header("detail"),
            &event_id,
            message.body(),
            now,
        );
        if !event_id.is_empty() {
            letter.id = letter_id("invalid", &[&key, &event_id]);
        }
        if let Some(tenant) = known {
            letter.tenant = tenant;
        }
        letter.event_id = event_id;
        letter.content_type = header("original-content-type");
        if let Some(ms) = message.header_i64("received-at") {
            letter.at = Timestamp::from_millis(ms);
        }
        letter
    }
}

fn unreadable(
    kind: LetterKind,
    reason: &str,
    error: &WireError,
    message: &Incoming,
    now: Timestamp,
) -> Entry {
    let name = message.message_id().unwrap_or_default();
    let detail = format!("{error}; {}", why_poison(message));
    let mut letter = Letter::unreadable(kind, reason, detail, name, message.body(), now);
    letter.content_type = message.content_type().unwrap_or_default().to_owned();
    // Upstream's own message that killed routers.
    if died_in(message).is_some_and(|queue| queue.ends_with(".events")) {
        letter.reason = "event".into();
        letter.event_id = name.to_owned();
        let tenant = message.header_str("tenant").unwrap_or_else(|| message.routing_key());
        if let Ok(tenant) = TenantId::parse(tenant) {
            letter.tenant = tenant.to_string();
        }
    }
    Entry::Letter(letter)
}

/// The queue whose readers a message of the poison queue troubled: as they say, or as the broker says.
fn died_in(message: &Incoming) -> Option<&str> {
    message.header_str("queue").or_else(|| message.header_str("x-first-death-queue"))
}

/// What the message itself says of why it is here.
fn why_poison(message: &Incoming) -> String {
    let reason = message.header_str("reason").or_else(|| message.header_str("x-first-death-reason"));
    match (reason, died_in(message)) {
        (Some(reason), Some(queue)) => format!("{reason} in {queue}").chars().take(300).collect(),
        (Some(reason), None) => reason.chars().take(300).collect(),
        (None, _) => {
            format!(
                "it came by way of the exchange {:?} with key {:?}",
                message.exchange(),
                message.routing_key()
            )
        }
    }
}
