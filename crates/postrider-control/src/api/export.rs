//! Lists as files: one JSON document a line (NDJSON), read and sent page by page, never more of it in memory.
//!
//! An export is bounded. Its last line says how many lines came before it and whether that is all; where it is not, it has the cursor
//! that goes on. So a file without that line was broken off.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, header};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use utoipa::ToSchema;

use super::answer::Page;
use super::problem::{Code, Problem};

/// Exports at the same time; more are refused, so that lists stay quick beside them.
const AT_ONCE: usize = 4;

/// How much longer than it may take an export keeps its place, if its reader is slow: then others come.
const GRACE: Duration = Duration::from_secs(10);

/// What the content is called.
pub(super) const CONTENT_TYPE: &str = "application/x-ndjson";

/// How long an export may become, and how long it may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Rows that are read at a time.
    pub(crate) page: u32,
    /// Lines, give or take a page.
    pub(crate) lines: u64,
    /// How long it may take.
    pub(crate) time: Duration,
    /// How long it may go on without finding a line: less than a connection may be silent.
    pub(crate) silence: Duration,
}

/// The exports that are under way, and how large each may become.
#[derive(Clone, Debug)]
pub(crate) struct Exports {
    places: Arc<Semaphore>,
    bounds: Bounds,
}

impl Exports {
    /// Exports within these bounds.
    pub(crate) fn within(bounds: Bounds) -> Self {
        Self { places: Arc::new(Semaphore::new(AT_ONCE)), bounds }
    }
}

impl Default for Exports {
    fn default() -> Self {
        Self::within(Bounds {
            page: 500,
            lines: 100_000,
            time: Duration::from_secs(60),
            silence: Duration::from_secs(20),
        })
    }
}

/// Why an export is not all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Cut {
    /// It had as many lines as an export may have.
    Lines,
    /// It took as long as an export may take.
    Time,
    /// The store did not answer.
    Unavailable,
}

/// The last line of an export.
#[derive(Serialize, ToSchema)]
pub(super) struct LastLine {
    export: End,
}

/// How an export ended.
#[derive(Serialize, ToSchema)]
pub(super) struct End {
    /// How many lines came before this one.
    lines: u64,
    /// Whether that is all.
    complete: bool,
    /// Why it is not all.
    cut: Option<Cut>,
    /// Where the rest begins, as `cursor` of the next export with the same filters.
    next: Option<String>,
}

/// What is to be sent next: a page that was read, or the one behind this cursor.
enum Step<T> {
    Have(Page<T>),
    Read(String),
}

/// An export under way.
struct Run<R> {
    read: R,
    bounds: Bounds,
    lines: u64,
    begun: Instant,
    found: Instant,
    /// Gives the place back.
    _over: DropGuard,
}

impl<R> Run<R> {
    /// Whether it may not go on.
    fn cut(&self, now: Instant) -> Option<Cut> {
        if self.lines >= self.bounds.lines {
            Some(Cut::Lines)
        } else if now.duration_since(self.begun) >= self.bounds.time
            || now.duration_since(self.found) >= self.bounds.silence
        {
            Some(Cut::Time)
        } else {
            None
        }
    }

    /// The last line.
    fn end(&self, cut: Option<Cut>, next: Option<String>, text: &mut Vec<u8>) {
        write_line(&LastLine { export: End { lines: self.lines, complete: cut.is_none(), cut, next } }, text);
    }
}

fn write_line(line: &impl Serialize, text: &mut Vec<u8>) {
    // Into memory, and of our own types: neither fails.
    if let Err(error) = serde_json::to_writer(&mut *text, line) {
        tracing::error!(%error, "a line of an export cannot be written");
    }
    text.push(b'\n');
}

impl Exports {
    /// A list as a file of this name, from `cursor` on. `read` reads a page behind a cursor, of so many rows.
    ///
    /// The first page is read before anything is answered, so that what is wrong with the request is said as ever.
    pub(super) async fn file<T, R, F>(
        &self,
        name: &'static str,
        cursor: Option<String>,
        read: R,
    ) -> Result<Response, Problem>
    where
        T: Serialize + Send + 'static,
        R: Fn(Option<String>, u32) -> F + Send + 'static,
        F: Future<Output = Result<Page<T>, Problem>> + Send,
    {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            let detail = format!("{AT_ONCE} exports are under way, and no more are made at the same time");
            return Err(Problem::new(Code::Busy, detail, "Try again in a moment.").retry_after(5));
        };
        let begun = Instant::now();
        let first = read(cursor, self.bounds.page).await?;
        let over = CancellationToken::new();
        tokio::spawn(held(place, over.clone(), self.bounds.time + GRACE));
        let run = Run { read, bounds: self.bounds, lines: 0, begun, found: begun, _over: over.drop_guard() };
        let chunks = stream::unfold(Some((run, Step::Have(first))), async |state| {
            let (run, step) = state?;
            let (text, rest) = chunk(run, step).await;
            Some((Ok::<_, Infallible>(Bytes::from(text)), rest))
        });
        let mut response = Response::new(Body::from_stream(chunks));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        // Answers hold what only this caller may see.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Ok(file) = HeaderValue::from_str(&format!("attachment; filename=\"{name}.ndjson\"")) {
            headers.insert(header::CONTENT_DISPOSITION, file);
        }
        Ok(response)
    }
}

/// Keeps a place until the export is over, and not for ever: who reads slowly, or not at all, keeps nobody out.
async fn held(place: OwnedSemaphorePermit, over: CancellationToken, most: Duration) {
    tokio::time::timeout(most, over.cancelled()).await.ok();
    drop(place);
}

/// The next lines, and what follows them.
async fn chunk<T, R, F>(mut run: Run<R>, step: Step<T>) -> (Vec<u8>, Option<(Run<R>, Step<T>)>)
where
    T: Serialize,
    R: Fn(Option<String>, u32) -> F,
    F: Future<Output = Result<Page<T>, Problem>>,
{
    let mut text = Vec::new();
    let page = match step {
        Step::Have(page) => page,
        Step::Read(cursor) => match (run.read)(Some(cursor.clone()), run.bounds.page).await {
            Ok(page) => page,
            // What was wrong is in the log.
            Err(_) => {
                run.end(Some(Cut::Unavailable), Some(cursor), &mut text);
                return (text, None);
            }
        },
    };
    let now = Instant::now();
    if !page.items.is_empty() {
        run.found = now;
    }
    for item in &page.items {
        write_line(item, &mut text);
        run.lines += 1;
    }
    match (page.next, run.cut(now)) {
        (Some(next), None) => (text, Some((run, Step::Read(next)))),
        (Some(next), cut) => {
            run.end(cut, Some(next), &mut text);
            (text, None)
        }
        (None, _) => {
            run.end(None, None, &mut text);
            (text, None)
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use serde_json::{Value, json};

    use super::*;

    const BOUNDS: Bounds =
        Bounds { page: 2, lines: 4, time: Duration::from_secs(60), silence: Duration::from_secs(20) };

    /// The numbers up to `all`; a page takes so long, and finds one where `finds` says so. From `fails` on the store is away.
    async fn exported(
        bounds: Bounds,
        all: u64,
        takes: Duration,
        finds: bool,
        fails: u64,
    ) -> (Vec<Value>, Exports) {
        let exports = Exports::within(bounds);
        let read = move |cursor: Option<String>, page: u32| async move {
            let first: u64 = cursor.map_or(0, |cursor| cursor.parse().unwrap());
            tokio::time::sleep(takes).await;
            if first >= fails {
                return Err(Problem::new(Code::StoreUnavailable, "away", "wait"));
            }
            let after = first + u64::from(page);
            let items = if finds { (first..after.min(all)).collect() } else { Vec::new() };
            Ok(Page { items, next: (after < all).then(|| after.to_string()) })
        };
        let response = exports.file("numbers", None, read).await.unwrap();
        assert_eq!(
            response.headers()[header::CONTENT_DISPOSITION],
            "attachment; filename=\"numbers.ndjson\""
        );
        let text = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let text = String::from_utf8(text.to_vec()).unwrap();
        assert!(text.ends_with('\n'), "{text}");
        (text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), exports)
    }

    const AT_ONCE_READ: Duration = Duration::ZERO;

    #[tokio::test(start_paused = true)]
    async fn the_last_line_says_whether_it_is_all() {
        let end = |lines, cut: Value, next: Value| json!({ "export": { "lines": lines, "complete": cut.is_null(), "cut": cut, "next": next } });
        let (lines, _) = exported(BOUNDS, 3, AT_ONCE_READ, true, 9).await;
        assert_eq!(lines, [json!(0), json!(1), json!(2), end(3, Value::Null, Value::Null)]);
        let (lines, _) = exported(BOUNDS, 0, AT_ONCE_READ, true, 9).await;
        assert_eq!(lines, [end(0, Value::Null, Value::Null)], "nothing is all as well");
        let (lines, _) = exported(BOUNDS, 4, AT_ONCE_READ, true, 9).await;
        assert_eq!(lines.last().unwrap(), &end(4, Value::Null, Value::Null), "exactly as many as may be");
        let (lines, _) = exported(BOUNDS, 5, AT_ONCE_READ, true, 9).await;
        assert_eq!(lines.last().unwrap(), &end(4, json!("lines"), json!("4")));
        let (lines, _) = exported(BOUNDS, 5, AT_ONCE_READ, true, 2).await;
        assert_eq!(lines.last().unwrap(), &end(2, json!("unavailable"), json!("2")));
        let slow = Duration::from_secs(31);
        let (lines, _) = exported(Bounds { lines: 99, ..BOUNDS }, 99, slow, true, 99).await;
        assert_eq!(lines.last().unwrap(), &end(4, json!("time"), json!("4")));
        let (lines, _) =
            exported(Bounds { lines: 99, ..BOUNDS }, 99, Duration::from_secs(7), false, 99).await;
        assert_eq!(lines, [end(0, json!("time"), json!("6"))], "before the connection is taken to be dead");
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_are_made_at_the_same_time() {
        let exports = Exports::within(BOUNDS);
        async fn read(_: Option<String>, _: u32) -> Result<Page<u8>, Problem> {
            Ok(Page { items: vec![1], next: Some(String::new()) })
        }
        let file = async || exports.file("n", None, read).await;
        let mut open = Vec::new();
        for _ in 0..AT_ONCE {
            open.push(file().await.unwrap());
        }
        assert_eq!(file().await.unwrap_err().code(), Code::Busy);
        // One whose reader has gone away leaves its place.
        open.pop();
        tokio::task::yield_now().await;
        open.push(file().await.unwrap());
        assert_eq!(file().await.unwrap_err().code(), Code::Busy);
        // Those whose readers do not read keep theirs for a while.
        tokio::time::sleep(BOUNDS.time + GRACE * 2).await;
        assert!(file().await.is_ok());
    }

    #[tokio::test]
    async fn what_is_wrong_with_the_first_page_is_said_as_ever() {
        let exports = Exports::default();
        let read =
            async |_: Option<String>, _: u32| Err::<Page<u8>, _>(Problem::parameter("cursor", "no cursor"));
        let refused = exports.file("n", None, read).await.unwrap_err();
        assert_eq!(refused.code(), Code::BadParameter);
    }
}
