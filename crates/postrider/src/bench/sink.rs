//! The receiver, a process of its own so that its cost can be told apart.
//!
//! It answers as cheaply as can be. Over its standard input it is asked for what it counted; when that closes, it ends: it
//! never outlives the bench.

use std::collections::HashMap;
use std::io::BufRead as _;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::figures::Histogram;
use crate::exit::{Exit, Failure};
use crate::output;
use crate::serve::Signals;

/// How long it may take to start, and to answer a question.
const PATIENCE: Duration = Duration::from_secs(20);
/// The largest request.
const MAX_REQUEST_BYTES: usize = 1024 * 1024;
/// How far into a body the time is looked for.
const TIME_WITHIN: usize = 512;
/// What the webhook is called whose requests are answered with 503 and `Retry-After: 3600`.
pub(super) const BUSY: &str = "busy";
/// The most deliveries that have been refused and did not come again yet.
const MAX_REFUSED: usize = 1_000_000;

/// What the sink has counted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Counted {
    /// Requests that it took, since its start.
    pub(super) taken: u64,
    /// Requests that it refused, since its start.
    pub(super) refused: u64,
    /// Requests that came after a refusal, since its start.
    pub(super) retried: u64,
    /// Of these, those that came before they were due.
    pub(super) early: u64,
    /// How long requests were under way since their publisher's time, microseconds; since the last mark.
    pub(super) latency: Histogram,
    /// How late the others that came after a refusal were, microseconds; since the last mark.
    pub(super) late: Histogram,
}

/// The sink's side of what is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    /// The counts alone.
    Count,
    /// Everything.
    Report,
    /// Everything, and begin new histograms.
    Mark,
}

impl Question {
    const ALL: [Self; 3] = [Self::Count, Self::Report, Self::Mark];

    fn as_str(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Report => "report",
            Self::Mark => "mark",
        }
    }
}

/// Microseconds since 1970, as they stand in events.
pub(super) fn micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// The sink as the bench sees it. It ends with the value.
#[derive(Debug)]
pub(super) struct Sink {
    child: Child,
    questions: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    address: SocketAddr,
}

impl Sink {
    /// Starts it.
    pub(super) async fn start(retry: Duration) -> Result<Self, Failure> {
        let failed = |why: &dyn std::fmt::Display| Failure::new(Exit::Other, "cannot start the sink", why);
        let program = std::env::current_exe().map_err(|error| failed(&error))?;
        let mut child = Command::new(program)
            .args(["bench", "sink", "--retry-ms", &retry.as_millis().to_string()])
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(&error))?;
        let (Some(questions), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed(&"its input and output are not there"));
        };
        let mut answers = BufReader::new(answers).lines();
        let address = read(&mut answers).await.map_err(|why| failed(&why))?;
        Ok(Self { child, questions, answers, address })
    }

    /// Its process.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Where requests go.
    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// The counts, without the histograms.
    pub(super) async fn count(&mut self) -> Result<Counted, Failure> {
        self.ask(Question::Count).await
    }

    /// Everything it has counted.
    pub(super) async fn report(&mut self) -> Result<Counted, Failure> {
        self.ask(Question::Report).await
    }

    /// The same, and new histograms from now on.
    pub(super) async fn mark(&mut self) -> Result<Counted, Failure> {
        self.ask(Question::Mark).await
    }

    async fn ask(&mut self, question: Question) -> Result<Counted, Failure> {
        let asked = async {
            let line = format!("{}\n", question.as_str());
            self.questions.write_all(line.as_bytes()).await.map_err(|error| error.to_string())?;
            read(&mut self.answers).await
        };
        asked.await.map_err(|why| Failure::new(Exit::Other, "the sink does not answer", why))
    }
}

/// The next answer.
async fn read<T: for<'a> Deserialize<'a>>(answers: &mut Lines<BufReader<ChildStdout>>) -> Result<T, String> {
    let line = match tokio::time::timeout(PATIENCE, answers.next_line()).await {
        Ok(Ok(Some(line))) => line,
        Ok(Ok(None)) => return Err("it has ended".to_owned()),
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err(format!("nothing came within {} s", PATIENCE.as_secs())),
    };
    serde_json::from_str(&line).map_err(|error| error.to_string())
}

/// Runs the sink in this process, until its standard input closes.
///
/// # Errors
/// [`Failure`] when it cannot listen.
pub(super) async fn run(retry: Duration) -> Result<Exit, Failure> {
    let failed = |error: std::io::Error| Failure::new(Exit::Other, "cannot be a sink", error);
    // A Ctrl-C in the terminal is for the bench, which then closes our input.
    let _signals = Signals::listen()?;
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let board = Arc::new(Board { retry, state: Mutex::default() });
    let served = board.clone();
    // One thread does it all: nothing is cheaper.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    std::thread::Builder::new()
        .name("sink".into())
        .spawn(move || runtime.block_on(serve(listener, served)))
        .map_err(failed)?;
    output::data(&serde_json::to_string(&address).unwrap_or_default())?;
    let answering = tokio::task::spawn_blocking(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            let Some(question) = Question::ALL.into_iter().find(|one| one.as_str() == line) else { continue };
            output::data(&serde_json::to_string(&board.answer(question)).unwrap_or_default())?;
        }
        Ok(())
    });
    answering.await.map_err(|error| Failure::new(Exit::Other, "cannot be a sink", error))??;
    Ok(Exit::Ok)
}

/// What the sink knows.
#[derive(Debug)]
struct Board {
    retry: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    counted: Counted,
    /// When what was refused is due, by its id; microseconds since 1970.
    due: HashMap<Box<[u8]>, u64>,
}

impl Board {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, question: Question) -> Counted {
        let counted = &mut self.state().counted;
        match question {
            Question::Count => {
                Counted { latency: Histogram::default(), late: Histogram::default(), ..*counted }
            }
            Question::Report => counted.clone(),
            Question::Mark => {
                let new = Counted { latency: Histogram::default(), late: Histogram::default(), ..*counted };
                std::mem::replace(counted, new)
            }
        }
    }

    /// A request came; how it is answered.
    fn took(&self, request: &Request<'_>) -> Answer {
        if request.busy {
            return Answer::Busy;
        }
        let now = micros();
        let (sent, refuse) = marked(request.body);
        let mut state = self.state();
        if let Some(sent) = sent {
            state.counted.latency.add(now.saturating_sub(sent));
        }
        if refuse && request.attempt == Some(1) && state.due.len() < MAX_REFUSED {
            let due = now + u64::try_from(self.retry.as_micros()).unwrap_or(u64::MAX);
            state.due.insert(request.id.into(), due);
            state.counted.refused += 1;
            return Answer::Refused;
        }
        if request.attempt.is_some_and(|attempt| attempt > 1)
            && let Some(due) = state.due.remove(request.id)
        {
            state.counted.retried += 1;
            match now.checked_sub(due) {
                Some(late) => state.counted.late.add(late),
                None => state.counted.early += 1,
            }
        }
        state.counted.taken += 1;
        Answer::Taken
    }
}

/// How a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Taken,
    Refused,
    Busy,
}

impl Answer {
    fn bytes(self) -> &'static [u8] {
        match self {
            Self::Taken => b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            Self::Refused => b"HTTP/1.1 500 Refused\r\ncontent-length: 0\r\n\r\n",
            Self::Busy => b"HTTP/1.1 503 Busy\r\nretry-after: 3600\r\ncontent-length: 0\r\n\r\n",
        }
    }
}

async fn serve(listener: std::net::TcpListener, board: Arc<Board>) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    loop {
        match listener.accept().await {
            Ok((connection, _)) => {
                connection.set_nodelay(true).ok();
                tokio::spawn(converse(connection, board.clone()));
            }
            // Such as too many open files: it passes.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Answers the requests of one connection until it closes, or sends what is no request.
async fn converse(mut connection: TcpStream, board: Arc<Board>) -> Option<()> {
    let mut buffer = Vec::with_capacity(32 * 1024);
    loop {
        let (whole, answer) = loop {
            if let Some(request) = Request::read(&buffer)? {
                break (request.whole, board.took(&request));
            }
            if buffer.len() > MAX_REQUEST_BYTES || connection.read_buf(&mut buffer).await.ok()? == 0 {
                return None;
            }
        };
        buffer.drain(..whole);
        connection.write_all(answer.bytes()).await.ok()?;
    }
}

/// What matters of a request.
#[derive(Debug, PartialEq, Eq)]
struct Request<'a> {
    whole: usize,
    busy: bool,
    attempt: Option<u32>,
    id: &'a [u8],
    body: &'a [u8],
}

impl<'a> Request<'a> {
    /// The first request in a buffer, if it is there as a whole; nothing at all if it is none.
    fn read(buffer: &'a [u8]) -> Option<Option<Self>> {
        let (mut length, mut attempt, mut id) = (0, None, &b""[..]);
        let busy = buffer.strip_prefix(b"POST /").is_some_and(|path| path.starts_with(BUSY.as_bytes()));
        let mut at = 0;
        loop {
            let Some(end) = buffer[at..].iter().position(|byte| *byte == b'\n') else { return Some(None) };
            let line = buffer[at..at + end].trim_ascii_end();
            at += end + 1;
            if line.is_empty() {
                break;
            }
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"content-length") {
                length = number(value)?;
            } else if name.eq_ignore_ascii_case(b"webhook-attempt") {
                attempt = number(value);
            } else if name.eq_ignore_ascii_case(b"webhook-id") {
                id = value;
            }
        }
        let whole = at.checked_add(length)?;
        Some(buffer.get(at..whole).map(|body| Self { whole, busy, attempt, id, body }))
    }
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// When an event says that it was published, and whether it wants its first attempt refused: `"at":1,"refuse":true`.
fn marked(body: &[u8]) -> (Option<u64>, bool) {
    let begin = &body[..body.len().min(TIME_WITHIN)];
    let Some(at) = begin.windows(5).position(|part| part == b"\"at\":") else { return (None, false) };
    let rest = &begin[at + 5..];
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (number(&rest[..digits]), rest[digits..].starts_with(b",\"refuse\":true"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board() -> Board {
        Board { retry: Duration::from_millis(20), state: Mutex::default() }
    }

    fn request<'a>(attempt: u32, body: &'a [u8]) -> Request<'a> {
        Request { whole: 0, busy: false, attempt: Some(attempt), id: b"msg_1", body }
    }

    #[test]
    fn requests_are_read_as_they_come() {
        let one = b"POST /0 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nwebhook-attempt: 3\r\nWebhook-Id: m\r\n\r\n{}";
        for end in 0..one.len() {
            assert_eq!(Request::read(&one[..end]), Some(None), "{end}");
        }
        let read = Request::read(one).unwrap().unwrap();
        assert_eq!(read, Request { whole: one.len(), busy: false, attempt: Some(3), id: b"m", body: b"{}" });
        let two = [&one[..], &one[..]].concat();
        assert_eq!(Request::read(&two).unwrap().unwrap(), read);
        let busy = b"POST /busy-0-0 HTTP/1.1\r\ncontent-length: 0\r\n\r\n";
        assert!(Request::read(busy).unwrap().unwrap().busy);
        assert_eq!(Request::read(b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n"), None);
    }

    #[test]
    fn events_say_when_they_were_published() {
        assert_eq!(marked(br#"{"event_type":"A","data":{"at":12,"pad":""}}"#), (Some(12), false));
        assert_eq!(marked(br#"{"data":{"at":12,"refuse":true,"pad":""}}"#), (Some(12), true));
        assert_eq!(marked(b"{}"), (None, false));
        assert_eq!(marked(br#"{"at":"#), (None, false));
    }

    #[test]
    fn what_is_refused_is_due_again() {
        let board = board();
        let refuse = br#"{"at":1,"refuse":true}"#;
        assert_eq!(board.took(&request(1, refuse)), Answer::Refused);
        assert_eq!(board.took(&request(2, refuse)), Answer::Taken, "only the first attempt is refused");
        assert_eq!(board.took(&request(1, refuse)), Answer::Refused);
        std::thread::sleep(Duration::from_millis(25));
        assert_eq!(board.took(&request(2, refuse)), Answer::Taken);
        assert_eq!(board.took(&request(1, br#"{"at":1}"#)), Answer::Taken);
        assert_eq!(
            board.took(&Request { busy: true, ..request(1, refuse) }),
            Answer::Busy,
            "and is not counted"
        );
        let counted = board.answer(Question::Mark);
        assert_eq!((counted.taken, counted.refused, counted.retried, counted.early), (3, 2, 2, 1));
        assert_eq!((counted.late.count(), counted.latency.count()), (1, 5));
        let counted = board.answer(Question::Count);
        assert_eq!((counted.taken, counted.latency.count()), (3, 0));
        assert_eq!(board.answer(Question::Report).latency.count(), 0);
    }
}
