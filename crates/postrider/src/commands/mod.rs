//! Operator commands, one module for each thing they are about.

pub mod api_keys;
pub mod audit;
pub mod catalogue;
pub mod config;
pub mod dead;
pub mod delivery;
pub mod event;
pub mod event_type;
mod export;
pub mod healthcheck;
pub mod inbox;
pub mod listen;
mod offline;
pub mod open;
pub mod queues;
pub mod reminder;
pub mod replay;
pub mod settings;
pub mod shell;
pub mod stats;
pub mod status;
pub mod system;
pub mod tenant;
pub mod topology;
pub mod trigger;
pub mod verify;
pub mod webhook;

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;
use url::Url;

use crate::api::{Answer, Api};
use crate::args::Page;
use crate::exit::{Exit, Failure};
use crate::output::{Column, Format, Output};
use crate::serve::Signals;
use crate::settings::{Secret, Settings, write_new};

/// How often something is asked again while a command waits for it.
pub(crate) const ASK_AGAIN: Duration = Duration::from_millis(100);

/// The largest file that a command reads at once, bytes.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// What every command has.
#[derive(Clone, Debug)]
pub struct Context {
    /// The settings.
    pub settings: Settings,
    /// `--api`.
    pub api: Option<Url>,
    /// `--tenant`.
    pub tenant: Option<String>,
    /// Where it prints.
    pub out: Output,
}

impl Context {
    /// The API's client.
    ///
    /// # Errors
    /// As [`Api::from_settings`].
    pub fn api(&self) -> Result<Api, Failure> {
        Ok(Api::from_settings(&self.settings, self.api.clone())?.of(self.tenant.clone()))
    }
}

/// Prints the version.
///
/// # Errors
/// When standard output cannot be written.
pub fn version(context: &Context) -> Result<Exit, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    if context.out.is_table() || context.out.quiet {
        context.out.text(&format!("postrider {version}"))?;
    } else {
        context.out.text(&json!({"name": "postrider", "version": version}).to_string())?;
    }
    Ok(Exit::Ok)
}

/// Lists something: one page, or all of them.
async fn list(
    context: &Context,
    path: &[&str],
    filter: &[(&str, Option<&String>)],
    page: &Page,
    columns: &[Column],
) -> Result<Exit, Failure> {
    let api = context.api()?;
    let what = format!("cannot list {}", path.join(" "));
    let mut query: Vec<(&str, String)> =
        filter.iter().filter_map(|(name, value)| value.map(|value| (*name, value.clone()))).collect();
    if let Some(limit) = page.limit {
        query.push(("limit", limit.to_string()));
    }
    let mut cursor = page.cursor.clone();
    loop {
        let mut query = query.clone();
        query.extend(cursor.take().map(|cursor| ("cursor", cursor)));
        let answer = api.get(&what, path, &query).await?;
        // Pages cannot be put together to one document without keeping them all: then it is a document a line.
        let mut out = context.out;
        if page.all && out.format == Format::Json {
            out.format = Format::Jsonl;
        }
        out.list(&answer.raw, answer.items(), columns)?;
        match (answer.next(), page.all) {
            (Some(next), true) => cursor = Some(next.to_owned()),
            (Some(next), false) => {
                if context.out.is_table() {
                    context.out.note(&format!("there are more: --all, or --cursor {next}"));
                }
                return Ok(Exit::Ok);
            }
            (None, _) => return Ok(Exit::Ok),
        }
    }
}

/// Shows one thing.
async fn show(
    context: &Context,
    what: &str,
    path: &[&str],
    query: &[(&str, String)],
) -> Result<Exit, Failure> {
    let answer = context.api()?.get(what, path, query).await?;
    context.out.one(&answer.raw, &answer.value)?;
    Ok(Exit::Ok)
}

/// Does the same to each of these ids, goes on when one fails, and says so at the end.
///
/// `path` makes the path from an id. One id that fails ends with its own exit code, some of several with 7.
async fn each(
    context: &Context,
    method: Method,
    what: &str,
    ids: &[String],
    path: impl for<'a> Fn(&'a str) -> Vec<&'a str>,
) -> Result<Vec<Answer>, Failure> {
    let api = context.api()?;
    let mut answers = Vec::new();
    let mut failures = Vec::new();
    let mut bar = context.out.progress("asked for", u64::try_from(ids.len()).ok());
    for (n, id) in (0..).zip(ids) {
        bar.at(n, "");
        match api.call(method.clone(), &format!("{what} {id}"), &path(id), &[], None).await {
            Ok(answer) => answers.push(answer),
            Err(failure) => failures.push(failure),
        }
    }
    bar.end();
    for answer in &answers {
        if !answer.value.is_null() {
            context.out.one(&answer.raw, &answer.value)?;
        }
    }
    if failures.is_empty() {
        return Ok(answers);
    }
    let last = failures.remove(failures.len() - 1);
    if ids.len() == 1 {
        return Err(last);
    }
    failures.iter().for_each(crate::output::failure);
    let exit = if answers.is_empty() { last.exit } else { Exit::Partly };
    Err(Failure { exit, ..last })
}

/// A secret is never written over another file; `flag` says where to write it.
fn refuse_existing(path: Option<&Path>, flag: &str) -> Result<(), Failure> {
    match path.filter(|path| path.exists()) {
        None => Ok(()),
        Some(path) => Err(Failure::usage(
            format!("{} exists", path.display()),
            "a secret is never written over another file",
        )
        .next(format!("give {flag} a new file"))),
    }
}

/// Shows an answer with a secret in this member, which is not shown again; or writes the secret to a file and shows where it is.
fn show_secret(
    context: &Context,
    answer: &mut Answer,
    member: &str,
    to: Option<PathBuf>,
) -> Result<Exit, Failure> {
    if let (Some(path), Some(secret)) = (to, answer.value.get_mut(member).filter(|s| s.is_string())) {
        write_new(&path, &Secret::new(secret.as_str().unwrap_or_default()))?;
        *secret = Value::String(format!("in {}", path.display()));
        answer.raw = answer.value.to_string();
    } else if context.out.is_table() && answer.value.get(member).is_some_and(Value::is_string) {
        context.out.note(&format!("keep the {member} now: it may not be shown again"));
    }
    context.out.one(&answer.raw, &answer.value)?;
    Ok(Exit::Ok)
}

/// Asks a person. Only `y` and `yes` are a yes.
fn asked(question: &str) -> Result<bool, Failure> {
    crate::output::note(&format!("{question} [y/N]"));
    use std::io::BufRead as _;
    let mut answer = String::new();
    let mut stdin = std::io::Read::take(std::io::stdin().lock(), 64);
    stdin.read_line(&mut answer).map_err(|error| Failure::usage("cannot read the answer", error))?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// A file as text, or standard input for `-`.
fn read_text(path: &Path) -> Result<String, Failure> {
    use std::io::Read as _;
    let what = || match path == Path::new("-") {
        true => "cannot read standard input".to_owned(),
        false => format!("cannot read {}", path.display()),
    };
    let failed = |error| Failure::usage(what(), error);
    let mut text = String::new();
    let read = match path == Path::new("-") {
        true => std::io::stdin().take(MAX_FILE_BYTES + 1).read_to_string(&mut text),
        false => {
            std::fs::File::open(path).map_err(failed)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)
        }
    };
    read.map_err(failed)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(Failure::usage(what(), format!("it is larger than {MAX_FILE_BYTES} bytes")));
    }
    Ok(text)
}

/// Waits for something that goes on without this process: a signal ends the wait and nothing else. `goes_on` says what goes on,
/// `follow` how to see it.
///
/// # Errors
/// What `wait` fails with, or exit code 130.
pub(crate) async fn detachable<T>(
    wait: impl Future<Output = Result<T, Failure>>,
    goes_on: &str,
    follow: &str,
) -> Result<T, Failure> {
    let mut signals = Signals::listen()?;
    tokio::select! {
        biased;
        waited = wait => waited,
        () = signals.next() => {
            let why = "nobody waits for it here any more";
            Err(Failure::new(Exit::Interrupted, goes_on, why).next(follow))
        }
    }
}

/// Asks again and again until `look` has an answer.
///
/// # Errors
/// What `look` fails with, or exit code 8 with what it last said it waits for.
pub(crate) async fn wait_for<T, F>(
    what: &str,
    timeout: Duration,
    mut look: impl FnMut() -> F,
) -> Result<T, Failure>
where
    F: Future<Output = Result<Result<T, String>, Failure>>,
{
    let deadline = Instant::now() + timeout;
    loop {
        let pending = match look().await? {
            Ok(done) => return Ok(done),
            Err(pending) => pending,
        };
        if Instant::now() + ASK_AGAIN > deadline {
            let why = format!("after {:.1} s {pending}", timeout.as_secs_f64());
            return Err(Failure::new(Exit::TimedOut, what, why));
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_with_what_it_waited_for() {
        let mut asked = 0;
        let waited = wait_for("cannot see it", Duration::from_secs(1), || {
            asked += 1;
            let answer = if asked == 3 { Ok(asked) } else { Err("it is not there".to_owned()) };
            async { Ok(answer) }
        });
        assert_eq!(waited.await, Ok(3));
        let waited: Result<(), Failure> = wait_for("cannot see it", Duration::from_secs(1), || async {
            Ok(Err("it is not there".to_owned()))
        })
        .await;
        let failure = waited.unwrap_err();
        assert_eq!(failure.exit, Exit::TimedOut);
        assert_eq!(failure.to_string(), "cannot see it: after 1.0 s it is not there");
    }
}
