//! What the command prints: data on standard output, everything else on standard error.
//!
//! Nothing else in this crate writes to either. A reader that went away (`postrider … | head`) ends the command without
//! a word, as it does for other tools.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use crate::exit::{Exit, Failure};
use crate::table;

/// The form of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Aligned columns for people; the default in a terminal.
    Table,
    /// One JSON document; the default elsewhere.
    Json,
    /// One JSON document a line.
    Jsonl,
}

/// A column of a table: its header, and where an item holds the value (`/a/b`).
pub type Column = (&'static str, &'static str);

/// Where and how a command prints.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// The form of the data.
    pub format: Format,
    /// Ids only.
    pub quiet: bool,
    colour: bool,
}

/// A colour with a meaning; the words and marks say the same without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// It went well.
    Good,
    /// It went wrong.
    Bad,
    /// It is not decided yet.
    Open,
    /// Less important.
    Faint,
    /// More important.
    Strong,
}

impl Output {
    /// As asked for, or as fits where standard output goes.
    pub fn new(format: Option<Format>, quiet: bool) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let format = format.unwrap_or(if terminal { Format::Table } else { Format::Json });
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { format, quiet, colour: terminal && !plain }
    }

    /// For a person, without colours, wherever it goes.
    pub fn plain() -> Self {
        Self { format: Format::Table, quiet: false, colour: false }
    }

    /// The same, for a person.
    #[must_use]
    pub fn as_table(self) -> Self {
        Self { format: Format::Table, quiet: false, ..self }
    }

    /// The text in the colour of `tone`, where colours are shown.
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Bad => "31",
            Tone::Open => "33",
            Tone::Faint => "2",
            Tone::Strong => "1",
        };
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// The word for a state, with its mark and colour.
    pub fn state(&self, state: &str) -> String {
        let (mark, tone) = match state {
            "delivered" | "active" | "ready" | "done" => ("✓", Tone::Good),
            "dead" | "disabled" | "invalid" | "failed" => ("✕", Tone::Bad),
            "pending" | "retrying" | "planning" | "running" => ("↻", Tone::Open),
            "held" | "paused" | "waiting" | "planned" => ("●", Tone::Open),
            "cancelled" | "cancelling" | "skipped" | "unmatched" | "revoked" | "expired" => {
                ("–", Tone::Faint)
            }
            _ => return table::printable(state),
        };
        self.paint(tone, &format!("{mark} {state}"))
    }

    /// An answer of the API that holds a list: `{"items": […], "next": …}`. `raw` is the answer as it came.
    pub fn list(&self, raw: &str, items: &[Value], columns: &[Column]) -> Result<(), Failure> {
        if self.quiet {
            return self.ids(items);
        }
        match self.format {
            Format::Json => data(raw.trim_end()),
            Format::Jsonl => items.iter().try_for_each(|item| data(&item.to_string())),
            Format::Table => {
                let header: Vec<&str> = columns.iter().map(|(header, _)| *header).collect();
                let rows: Vec<Vec<String>> = items
                    .iter()
                    .map(|item| columns.iter().map(|(_, path)| self.cell(path, item.pointer(path))).collect())
                    .collect();
                data(table::render(&header, &rows).trim_end())
            }
        }
    }

    /// An answer of the API that is one object.
    pub fn one(&self, raw: &str, object: &Value) -> Result<(), Failure> {
        if self.quiet {
            return self.ids(std::slice::from_ref(object));
        }
        match self.format {
            Format::Json | Format::Jsonl => data(raw.trim_end()),
            Format::Table => {
                let mut pairs = Vec::new();
                flatten(object, "", &mut pairs);
                let pairs: Vec<(String, String)> = pairs
                    .into_iter()
                    .map(|(name, value)| {
                        let value = self.cell(&format!("/{name}"), Some(&value));
                        (name, value)
                    })
                    .collect();
                data(table::pairs(&pairs).trim_end())
            }
        }
    }

    /// Data that has no other form than its own.
    pub fn text(&self, text: &str) -> Result<(), Failure> {
        data(text)
    }

    /// Whether the data goes to a person.
    pub fn is_table(&self) -> bool {
        self.format == Format::Table && !self.quiet
    }

    /// Something to know beside the data; not with `--quiet`.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            note(text);
        }
    }

    fn ids(&self, items: &[Value]) -> Result<(), Failure> {
        for item in items {
            // A change that was made has no id of its own, but something that it was made to.
            let own = ["id", "delivery", "name"].iter().find_map(|name| item.get(name));
            let id = own.or_else(|| item.pointer("/subject/id")).and_then(Value::as_str);
            if let Some(id) = id {
                data(&table::printable(id))?;
            }
        }
        Ok(())
    }

    fn cell(&self, path: &str, value: Option<&Value>) -> String {
        match value {
            Some(Value::String(text)) if path.ends_with("/state") || path.ends_with("/fate") => {
                self.state(text)
            }
            // The outcome's class says what went wrong; when nothing did there is a better word.
            Some(Value::String(text)) if path.ends_with("class") && text == "none" => "delivered".to_owned(),
            other => plain(other),
        }
    }
}

/// What is done this soon shows no progress.
const SOON: Duration = Duration::from_millis(500);
/// How often progress is said where there is no terminal.
const SAID: Duration = Duration::from_secs(5);

/// Progress on standard error, of what takes longer than a moment: a bar in a terminal, a line now and then elsewhere.
#[derive(Debug)]
pub struct Progress {
    what: &'static str,
    bar: Option<ProgressBar>,
    of: Option<u64>,
    begun: Instant,
    said: Option<Instant>,
    quiet: bool,
}

impl Output {
    /// Begins to show how something goes on; `of` is how many there are, if that is known.
    pub fn progress(&self, what: &'static str, of: Option<u64>) -> Progress {
        let bar = (!self.quiet && std::io::stderr().is_terminal()).then(|| {
            let (bar, template) = match of {
                Some(of) => (ProgressBar::new(of), "{prefix} {wide_bar} {pos}/{len} {per_sec} {eta} {msg}"),
                None => (ProgressBar::new_spinner(), "{prefix} {spinner} {pos} {per_sec} {msg}"),
            };
            bar.set_draw_target(ProgressDrawTarget::hidden());
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.with_prefix(what)
        });
        Progress { what, bar, of, begun: Instant::now(), said: None, quiet: self.quiet }
    }
}

impl Progress {
    /// How far it is, with more to say.
    pub fn at(&mut self, position: u64, more: &str) {
        let now = Instant::now();
        let due = self.is_due(now);
        match &self.bar {
            Some(bar) => {
                if due {
                    bar.set_draw_target(ProgressDrawTarget::stderr());
                    self.said = Some(now);
                }
                bar.set_message(more.to_owned());
                bar.set_position(position);
            }
            None if self.quiet || !due => {}
            None => {
                self.said = Some(now);
                let of = self.of.map_or(String::new(), |of| format!(" of {of}"));
                let more = if more.is_empty() { String::new() } else { format!(" ({more})") };
                note(&format!("{}: {position}{of}{more}", self.what));
            }
        }
    }

    /// Whether it is time to say something: a bar that is shown goes on by itself.
    fn is_due(&self, now: Instant) -> bool {
        match self.said {
            None => now.saturating_duration_since(self.begun) >= SOON,
            Some(said) => self.bar.is_none() && now.saturating_duration_since(said) >= SAID,
        }
    }

    /// It is over.
    pub fn end(self) {}
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A value as one line of text for people.
pub fn plain(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => table::printable(text),
        Some(Value::Array(items)) if items.is_empty() => "-".to_owned(),
        Some(Value::Array(items)) if items.iter().all(|item| !item.is_object() && !item.is_array()) => {
            items.iter().map(|item| plain(Some(item))).collect::<Vec<_>>().join(",")
        }
        Some(other) => table::printable(&other.to_string()),
    }
}

fn flatten(value: &Value, prefix: &str, pairs: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (name, member) in members {
                let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                flatten(member, &name, pairs);
            }
        }
        other => pairs.push((prefix.to_owned(), other.clone())),
    }
}

/// Writes one line of data to standard output.
pub fn data(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(Exit::Ok as i32),
        Err(error) => Err(Failure::new(Exit::Other, "cannot write the result to standard output", error)),
    }
}

/// Writes one line to standard error. If that is closed there is nobody left to tell.
pub fn note(text: &str) {
    let mut err = std::io::stderr().lock();
    let written = err.write_all(text.as_bytes()).and_then(|()| err.write_all(b"\n"));
    drop(written);
}

/// Says why the command failed.
pub fn failure(failure: &Failure) {
    note(&format!("postrider: {}", table::printable(&failure.to_string())));
    if let Some(next) = &failure.next {
        note(&format!("  next: {}", table::printable(next)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_become_one_line() {
        assert_eq!(plain(None), "-");
        assert_eq!(plain(Some(&json!(["A", "B"]))), "A,B");
        assert_eq!(plain(Some(&json!([]))), "-");
        assert_eq!(plain(Some(&json!([{"a": 1}]))), r#"[{"a":1}]"#);
        assert_eq!(plain(Some(&json!(12))), "12");
        assert_eq!(plain(Some(&json!("a\nb"))), "a\u{fffd}b");
    }

    #[test]
    fn what_is_done_at_once_shows_no_progress() {
        let mut progress = Output::plain().progress("sending", Some(3));
        progress.bar = None;
        let begun = progress.begun;
        assert!(!progress.is_due(begun + SOON - Duration::from_millis(1)));
        assert!(progress.is_due(begun + SOON));
        progress.said = Some(begun + SOON);
        assert!(!progress.is_due(begun + SAID));
        assert!(progress.is_due(begun + SOON + SAID));
        progress.bar = Some(ProgressBar::hidden());
        assert!(!progress.is_due(begun + SOON + SAID), "the bar is there already");
    }

    #[test]
    fn objects_are_shown_member_by_member() {
        let mut pairs = Vec::new();
        flatten(&json!({"a": {"b": 1, "c": {}}, "d": null}), "", &mut pairs);
        assert_eq!(
            pairs,
            [("a.b".to_owned(), json!(1)), ("a.c".to_owned(), json!({})), ("d".to_owned(), Value::Null)]
        );
    }

    #[test]
    fn states_have_a_mark_beside_their_colour() {
        let plain = Output::plain();
        assert_eq!(plain.state("delivered"), "✓ delivered");
        assert_eq!(plain.state("dead"), "✕ dead");
        assert_eq!(plain.state("\u{1b}x"), "\u{fffd}x");
        let coloured = Output { colour: true, ..plain };
        assert_eq!(coloured.state("pending"), "\u{1b}[33m↻ pending\u{1b}[0m");
    }
}
