//! Ledgers: what a publisher was promised and what a receiver got, on disk before anybody relies on it.
//!
//! `postrider verify` and `postrider_core::verify` judge a run by them.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use postrider_core::verify::{PublishedLine, ReceivedLine};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use crate::must;

/// What was published and confirmed. Clones share the file.
#[derive(Clone, Debug)]
pub struct Published(Ledger);

impl Published {
    /// Appends to this file, which is made when it is not there.
    pub fn open(path: impl Into<PathBuf>) -> Self {
        Self(Ledger::open(path.into()))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Writes down that an event is confirmed; returns when that is on disk.
    pub async fn append(&self, tenant: &str, id: &str) {
        let (tenant, id) = (tenant.to_owned(), id.to_owned());
        self.0.append(&PublishedLine { tenant, id, at: postrider_broker::now(), action: false }).await;
    }

    /// The lines of a file. One that is not whole at its end was promised to nobody, and is left out.
    pub fn read(path: &Path) -> Vec<PublishedLine> {
        read(path)
    }
}

/// What a receiver got. Clones share the file.
#[derive(Clone, Debug)]
pub struct Received(Ledger);

impl Received {
    /// Appends to this file, which is made when it is not there.
    pub fn open(path: impl Into<PathBuf>) -> Self {
        Self(Ledger::open(path.into()))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Writes down a request; returns when that is on disk. Answer it then.
    pub async fn append(&self, line: &ReceivedLine) {
        self.0.append(line).await;
    }

    /// The lines of a file. One that is not whole at its end was never answered, and is left out.
    pub fn read(path: &Path) -> Vec<ReceivedLine> {
        read(path)
    }
}

/// Lines of JSON. Those that wait together share one fsync.
#[derive(Clone, Debug)]
struct Ledger {
    path: PathBuf,
    lines: mpsc::Sender<Line>,
}

#[derive(Debug)]
struct Line {
    text: String,
    on_disk: oneshot::Sender<()>,
}

impl Ledger {
    fn open(path: PathBuf) -> Self {
        let what = format!("open the ledger {}", path.display());
        let file = must(&what, OpenOptions::new().create(true).append(true).open(&path));
        let (lines, waiting) = mpsc::channel();
        let writer = thread::Builder::new().name("ledger".into()).spawn(move || write(file, &waiting));
        must("start the writer of a ledger", writer);
        Self { path, lines }
    }

    async fn append(&self, line: &impl Serialize) {
        let mut text = must("write a line of a ledger", serde_json::to_string(line));
        text.push('\n');
        let (on_disk, done) = oneshot::channel();
        must("reach the writer of a ledger", self.lines.send(Line { text, on_disk }));
        must(&format!("write the ledger {}", self.path.display()), done.await);
    }
}

fn write(mut file: File, waiting: &mpsc::Receiver<Line>) {
    while let Ok(first) = waiting.recv() {
        let mut text = first.text;
        let mut told = vec![first.on_disk];
        for line in waiting.try_iter() {
            text.push_str(&line.text);
            told.push(line.on_disk);
        }
        // Whoever waits is told by the end of this thread.
        if file.write_all(text.as_bytes()).and_then(|()| file.sync_data()).is_err() {
            return;
        }
        for on_disk in told {
            on_disk.send(()).ok();
        }
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Vec<T> {
    let what = format!("read the ledger {}", path.display());
    let mut lines = BufReader::new(must(&what, File::open(path)));
    let mut read = Vec::new();
    let mut line = String::new();
    while must(&what, lines.read_line(&mut line)) > 0 {
        if line.ends_with('\n') {
            read.push(must(&what, serde_json::from_str(&line)));
        }
        line.clear();
    }
    read
}
