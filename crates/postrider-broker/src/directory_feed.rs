//! The configuration as a role knows it, kept fresh from the config stream.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use postrider_core::Epoch;
use postrider_core::directory::{Applied, Directory};
use prometheus::IntGauge;
use tokio::sync::watch;

use crate::config_stream::{ConfigStream, Read};
use crate::error::BrokerError;
use crate::readiness::Readiness;
use crate::session::Session;

/// A directory that follows the config stream. Clones share it; it outlives sessions.
#[derive(Clone, Debug)]
pub struct DirectoryFeed {
    directory: Arc<RwLock<Directory>>,
    changes: watch::Sender<u64>,
}

impl Default for DirectoryFeed {
    fn default() -> Self {
        Self { directory: Arc::default(), changes: watch::Sender::new(0) }
    }
}

impl DirectoryFeed {
    /// Knows nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is known now. Not to be held over an await.
    pub fn read(&self) -> RwLockReadGuard<'_, Directory> {
        self.directory.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of every change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Reads the stream until the directory is complete and as new as the stream was at the call, then goes on following
    /// it in the background for as long as the session lasts. The part `config` of `readiness` says what is missing.
    ///
    /// # Errors
    /// [`BrokerError`] when the session ends before that, or there is no stream.
    pub async fn catch_up(&self, session: &Session, readiness: &Readiness) -> Result<(), BrokerError> {
        let mut stream = ConfigStream::open(session).await?;
        let revision = session.metrics().revision.clone();
        let mut at_end = false;
        while !(at_end && self.read().is_complete()) {
            at_end |= self.step(&mut stream, readiness, &revision).await?;
            if at_end && !self.read().is_complete() {
                let why = "the config stream holds no whole snapshot yet; start control once: postrider serve control";
                readiness.set("config", Err(why.into()));
            }
        }
        self.report(readiness);
        let (feed, readiness) = (self.clone(), readiness.clone());
        tokio::spawn(async move { while feed.step(&mut stream, &readiness, &revision).await.is_ok() {} });
        Ok(())
    }

    /// Takes one step; `true` at the mark of the end.
    async fn step(
        &self,
        stream: &mut ConfigStream,
        readiness: &Readiness,
        revision: &IntGauge,
    ) -> Result<bool, BrokerError> {
        match stream.next().await.ok_or(BrokerError::Lost)? {
            Read::CaughtUp => return Ok(true),
            Read::Unreadable(why) => {
                self.directory.write().unwrap_or_else(PoisonError::into_inner).note_unreadable(&why);
                self.report(readiness);
            }
            Read::Damaged(why) => {
                tracing::error!(why, "a record of the config stream is no record of ours; skipped")
            }
            Read::Record(record) => {
                let applied = self.directory.write().unwrap_or_else(PoisonError::into_inner).apply(&record);
                if let Applied::Unreadable(why) = &applied {
                    tracing::warn!(why, "a record of the config stream cannot be read by this release");
                }
                if applied != Applied::Unchanged {
                    self.report(readiness);
                }
                revision.set(i64::try_from(self.read().revision()).unwrap_or(i64::MAX));
                self.changes.send_modify(|n| *n += 1);
            }
        }
        Ok(false)
    }

    /// Says in the part `config` whether everything can be read.
    fn report(&self, readiness: &Readiness) {
        let directory = self.read();
        let state = match directory.unreadable() {
            Some(why) => Err(why.to_owned()),
            None if directory.is_complete() => Ok(()),
            None => return,
        };
        readiness.set("config", state);
    }

    /// Waits until the directory is of this epoch and not older than `revision`, at most for `patience`; `false` when it
    /// is not. An epoch of which no record is expected is not waited for.
    pub async fn at_least(&self, epoch: &Epoch, revision: u64, patience: Duration) -> bool {
        let mut changes = self.changes();
        let fresh = || {
            let directory = self.read();
            directory.epoch() == Some(epoch) && directory.revision() >= revision
        };
        let wait = async {
            while !fresh() {
                changes.changed().await.ok();
            }
        };
        fresh() || (self.read().expects(epoch) && tokio::time::timeout(patience, wait).await.is_ok())
    }
}
