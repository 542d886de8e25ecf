//! Ledgers: files of what was confirmed to a publisher and of what a receiver got, on disk before anybody relies on it.
//! `postrider verify` judges by them.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use crate::exit::{Exit, Failure};

/// The longest line, bytes: far more than any of ours.
const MAX_LINE_BYTES: u64 = 64 * 1024;

/// Appends lines of JSON. Those that wait together share one fsync. Clones share the file.
#[derive(Clone, Debug)]
pub struct Ledger {
    path: PathBuf,
    lines: mpsc::Sender<Lines>,
}

#[derive(Debug)]
struct Lines {
    text: String,
    written: oneshot::Sender<Result<(), String>>,
}

impl Ledger {
    /// Opens a ledger, made when it is not there. A line that a crash left unfinished is closed, so that it stays alone.
    ///
    /// # Errors
    /// [`Failure`] that names the file.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let failed = |error| Failure::usage(format!("cannot write the ledger {}", path.display()), error);
        let unfinished = is_unfinished(path).map_err(failed)?;
        let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(failed)?;
        if unfinished {
            file.write_all(b"\n").map_err(failed)?;
        }
        let (lines, waiting) = mpsc::channel();
        std::thread::Builder::new()
            .name("ledger".into())
            .spawn(move || write(file, &waiting))
            .map_err(|error| Failure::new(Exit::Other, "cannot start the writer of a ledger", error))?;
        Ok(Self { path: path.to_owned(), lines })
    }

    /// Writes lines, and returns when they are on disk.
    ///
    /// # Errors
    /// [`Failure`]: whoever relies on these lines must not be answered.
    pub async fn append(&self, lines: &[impl Serialize]) -> Result<(), Failure> {
        let failed = |why: &dyn std::fmt::Display| {
            Failure::new(Exit::Other, format!("cannot write the ledger {}", self.path.display()), why)
        };
        let mut text = String::new();
        for line in lines {
            text.push_str(&serde_json::to_string(line).map_err(|error| failed(&error))?);
            text.push('\n');
        }
        let (written, done) = oneshot::channel();
        self.lines.send(Lines { text, written }).map_err(|error| failed(&error))?;
        done.await.map_err(|error| failed(&error))?.map_err(|why| failed(&why))
    }
}

fn is_unfinished(path: &Path) -> io::Result<bool> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

fn write(mut file: File, waiting: &mpsc::Receiver<Lines>) {
    while let Ok(first) = waiting.recv() {
        let mut text = first.text;
        let mut told = vec![first.written];
        for lines in waiting.try_iter() {
            text.push_str(&lines.text);
            told.push(lines.written);
        }
        let result = file.write_all(text.as_bytes()).and_then(|()| file.sync_data());
        let result = result.map_err(|error| error.to_string());
        for written in told {
            // Whoever asked may have gone; the line is true all the same.
            written.send(result.clone()).ok();
        }
    }
}

/// Hands every line of a ledger to `take`. A line that a crash left unfinished was promised to nobody and is left out;
/// returns how many there were.
///
/// # Errors
/// [`Failure`] that names the file, and the line that is none.
pub fn read<T: DeserializeOwned>(path: &Path, mut take: impl FnMut(&T)) -> Result<u64, Failure> {
    use std::io::Read as _;
    let failed = |why: &dyn std::fmt::Display| {
        Failure::usage(format!("cannot read the ledger {}", path.display()), why)
    };
    let mut lines = BufReader::new(File::open(path).map_err(|error| failed(&error))?);
    let (mut number, mut unfinished) = (0u64, 0);
    let mut line = Vec::new();
    loop {
        line.clear();
        number += 1;
        let read = lines.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line);
        if read.map_err(|error| failed(&error))? == 0 {
            return Ok(unfinished);
        }
        match serde_json::from_slice::<T>(&line) {
            Ok(parsed) if line.ends_with(b"\n") => take(&parsed),
            Err(error) if error.is_data() => return Err(failed(&format!("line {number}: {error}"))),
            // Cut off: at the end, or closed by who went on after a crash.
            Ok(_) | Err(_) => unfinished += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_core::Timestamp;
    use postrider_core::verify::PublishedLine;

    fn line(id: &str) -> PublishedLine {
        PublishedLine { tenant: "t".into(), id: id.into(), at: Timestamp::from_millis(1), action: false }
    }

    #[tokio::test]
    async fn what_is_written_is_read_and_an_unfinished_line_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let ledger = Ledger::open(&path).unwrap();
        ledger.append(&[line("a"), line("b")]).await.unwrap();
        drop(ledger);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(br#"{"tenant":"t","id":"c"#).unwrap();
        let ids = || {
            let mut ids = Vec::new();
            let unfinished = read(&path, |line: &PublishedLine| ids.push(line.id.clone())).unwrap();
            (ids.join(" "), unfinished)
        };
        assert_eq!(ids(), ("a b".to_owned(), 1));
        Ledger::open(&path).unwrap().append(&[line("d")]).await.unwrap();
        assert_eq!(ids(), ("a b d".to_owned(), 1));
    }

    #[test]
    fn a_file_that_is_no_ledger_is_named_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        std::fs::write(&path, "{\"tenant\":\"t\",\"id\":\"a\",\"at\":1}\n{\"id\":5}\n").unwrap();
        let failure = read(&path, |_: &PublishedLine| {}).unwrap_err().to_string();
        assert!(failure.contains("line 2") && failure.contains("ledger"), "{failure}");
    }
}
