//! A log that waits for nobody.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use prometheus::IntCounter;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait to be written, at most.
const WAITING: usize = 4_096;
/// How long the end of the process waits for what is not written yet.
const FLUSH: Duration = Duration::from_secs(1);

/// Takes lines at once and has a thread write them. When nobody reads them, such as from a pipe that is full, they are
/// dropped and counted: a role whose log is stuck must still work.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    waiting: SyncSender<Line>,
    /// Lines that were dropped.
    pub(super) dropped: IntCounter,
}

#[derive(Debug)]
enum Line {
    Text(Vec<u8>),
    /// Everything before it is written.
    Mark(SyncSender<()>),
}

impl Lines {
    /// Starts the thread that writes to `out`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn to(out: impl Write + Send + 'static, dropped: IntCounter) -> io::Result<Self> {
        let (waiting, lines) = sync_channel(WAITING);
        let counted = dropped.clone();
        thread::Builder::new().name("log".into()).spawn(move || write(out, &lines, &counted))?;
        Ok(Self { waiting, dropped })
    }

    /// Waits until everything so far is written, but not for long.
    pub(super) fn flush(&self) {
        let (mark, done) = sync_channel(1);
        // A log that is full, or gone, has nothing to wait for.
        if self.waiting.try_send(Line::Mark(mark)).is_ok() {
            done.recv_timeout(FLUSH).ok();
        }
    }
}

fn write(mut out: impl Write, lines: &Receiver<Line>, dropped: &IntCounter) {
    let mut told = 0;
    while let Ok(line) = lines.recv() {
        // There is nowhere to say that this failed.
        match line {
            Line::Text(text) => drop(out.write_all(&text)),
            Line::Mark(done) => drop(done.send(())),
        }
        let so_far = dropped.get();
        if so_far > told {
            drop(writeln!(out, "{} lines of the log were dropped: nobody read them in time", so_far - told));
            told = so_far;
        }
    }
}

impl Write for Lines {
    /// Takes one line; `tracing_subscriber` writes each in one piece.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Err(TrySendError::Full(_)) = self.waiting.try_send(Line::Text(line.to_vec())) {
            self.dropped.inc();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_log_that_nobody_reads_holds_nobody_up_and_says_later_what_it_dropped() {
        let (mut reader, writer) = io::pipe().unwrap();
        let dropped = IntCounter::new("dropped", "dropped").unwrap();
        let mut lines = Lines::to(writer, dropped.clone()).unwrap();
        // More than the pipe and what waits hold together; this thread would stand still here for ever.
        for number in 0..20_000 {
            lines.write_all(format!("line {number:0100}\n").as_bytes()).unwrap();
        }
        let so_far = dropped.get();
        assert!(so_far > 10_000, "{so_far} dropped");
        let reads = thread::spawn(move || {
            let mut read = String::new();
            reader.read_to_string(&mut read).unwrap();
            read
        });
        lines.flush();
        // The thread that writes ends with the last sender.
        drop(lines);
        let read = reads.join().unwrap();
        assert!(read.starts_with("line 000"), "the first lines are there");
        let said: u64 = read
            .lines()
            .filter_map(|line| line.strip_suffix(" lines of the log were dropped: nobody read them in time"))
            .map(|number| number.parse::<u64>().unwrap())
            .sum();
        assert_eq!(said, dropped.get());
    }
}
