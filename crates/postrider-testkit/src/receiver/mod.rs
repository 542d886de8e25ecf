//! An HTTP/1.1 receiver of webhooks that answers by script and remembers all it got.
//!
//! It speaks HTTP by hand: so it records headers exactly as they came, and can misbehave below HTTP.

mod hostile;
mod tls;
mod token_server;
mod wire;

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};
use wire::Connection;

pub use hostile::{Hostile, Manner, gzip_bomb};
pub use tls::{Authority, Identity};
pub use token_server::TokenServer;

use postrider_core::Timestamp;
use postrider_core::verify::ReceivedLine;

use crate::ledger::Received;
use crate::{must, patience};

/// What the receiver does with one request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// This status, without a body.
    Status(u16),
    /// A whole answer.
    Full {
        /// The status.
        status: u16,
        /// Headers in the order in which they go out. `Content-Length` is added.
        headers: Vec<(String, String)>,
        /// The body.
        body: Bytes,
    },
    /// No answer, while the connection stays open.
    Hang,
    /// No answer: the connection is reset.
    Reset,
    /// The given answer, later.
    After(Duration, Box<Answer>),
    /// These bytes instead of an HTTP answer, and the end of the connection.
    Raw(Bytes),
    /// The same, one byte after each pause.
    Trickle {
        /// What is written.
        bytes: Bytes,
        /// How long to wait before each.
        pause: Duration,
    },
    /// Status 200 and a body without end: `chunk` once in every `pause`.
    Endless {
        /// A piece of the body.
        chunk: Bytes,
        /// How long to wait before the next piece; zero for as fast as it goes.
        pause: Duration,
    },
}

impl Answer {
    /// The same with one more header. Answers without a status stay what they are.
    pub fn with_header(self, name: &str, value: &str) -> Self {
        self.full(|headers, _| headers.push((name.to_owned(), value.to_owned())))
    }

    /// The same with this body. Answers without a status stay what they are.
    pub fn with_body(self, new: impl Into<Bytes>) -> Self {
        self.full(|_, body| *body = new.into())
    }

    /// The status that it has, sooner or later; 0 where it has none, or nobody knows what a client makes of it.
    pub fn status(&self) -> u16 {
        match self {
            Self::Status(status) | Self::Full { status, .. } => *status,
            Self::After(_, answer) => answer.status(),
            Self::Endless { .. } => 200,
            Self::Hang | Self::Reset | Self::Raw(_) | Self::Trickle { .. } => 0,
        }
    }

    /// The same, later.
    pub fn after(self, delay: Duration) -> Self {
        Self::After(delay, Box::new(self))
    }

    fn full(self, change: impl FnOnce(&mut Vec<(String, String)>, &mut Bytes)) -> Self {
        match self {
            Self::Status(status) => {
                Self::Full { status, headers: Vec::new(), body: Bytes::new() }.full(change)
            }
            Self::Full { status, mut headers, mut body } => {
                change(&mut headers, &mut body);
                Self::Full { status, headers, body }
            }
            Self::After(delay, answer) => Self::After(delay, Box::new(answer.full(change))),
            other @ (Self::Hang
            | Self::Reset
            | Self::Raw(_)
            | Self::Trickle { .. }
            | Self::Endless { .. }) => other,
        }
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its place among all requests of this receiver, from 0.
    pub seq: usize,
    /// When its last byte was read.
    pub received_at: SystemTime,
    /// The method.
    pub method: String,
    /// The path with the query.
    pub target: String,
    /// Headers in the order, and the case, in which they came.
    pub headers: Vec<(String, String)>,
    /// The body, without chunking.
    pub body: Bytes,
    /// The certificate that the client showed, DER.
    pub client_certificate: Option<Vec<u8>>,
    /// Requests to the same path that waited for their answer at that moment, with this one.
    pub in_flight: usize,
}

impl Request {
    /// The path without the query.
    pub fn path(&self) -> &str {
        path_of(&self.target)
    }

    /// The first header of this name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(given, _)| given.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        must("read a request's body as JSON", serde_json::from_slice(&self.body))
    }
}

fn path_of(target: &str) -> &str {
    target.split_once('?').map_or(target, |(path, _)| path)
}

/// A receiver on a free loopback port. It ends with the value, and resets its connections then.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    scheme: &'static str,
    board: Arc<Board>,
    _end: DropGuard,
}

/// What the connections share.
#[derive(Default)]
struct Board {
    requests: Mutex<Vec<Arc<Request>>>,
    scripts: Mutex<HashMap<String, Script>>,
    in_flight: Mutex<HashMap<String, Arc<AtomicUsize>>>,
    arrived: Notify,
    ledger: OnceLock<Received>,
}

enum Script {
    /// Consumed in order; the last one repeats.
    Answers(VecDeque<Answer>),
    Decides(Arc<dyn Fn(&Request) -> Answer + Send + Sync>),
}

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Board").field("requests", &lock(&self.requests).len()).finish_non_exhaustive()
    }
}

/// A test that failed while it held a lock shall not hide behind the poison.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Receiver {
    /// Listens on a free port of 127.0.0.1 and answers 200 to everything.
    pub async fn start() -> Self {
        Self::listen(None).await
    }

    /// The same over TLS, with a certificate of `authority`. If `clients` is given, only clients that show a certificate
    /// of that authority get in.
    pub async fn start_tls(authority: &Authority, clients: Option<&Authority>) -> Self {
        Self::listen(Some(authority.acceptor(clients))).await
    }

    async fn listen(tls: Option<TlsAcceptor>) -> Self {
        let listener = must("listen for webhooks", TcpListener::bind(("127.0.0.1", 0)).await);
        let address = must("listen for webhooks", listener.local_addr());
        let board = Arc::<Board>::default();
        let end = CancellationToken::new();
        let scheme = if tls.is_some() { "https" } else { "http" };
        tokio::spawn(accept(listener, tls, Arc::clone(&board), end.clone()));
        Self { address, scheme, board, _end: end.drop_guard() }
    }

    /// Writes every request into this ledger, on disk, before it is answered. Give it before the first request.
    pub fn with_ledger(self, path: impl Into<std::path::PathBuf>) -> Self {
        assert!(self.board.ledger.set(Received::open(path)).is_ok(), "a receiver has one ledger");
        self
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path, which begins with `/`.
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// Scripts the answers to a path, in order; the last one repeats. A later script replaces an earlier one.
    pub fn answer(&self, path: &str, answers: impl IntoIterator<Item = Answer>) {
        self.script(path, Script::Answers(answers.into_iter().collect()));
    }

    /// Lets a function decide about every request to a path.
    pub fn answer_by(&self, path: &str, decide: impl Fn(&Request) -> Answer + Send + Sync + 'static) {
        self.script(path, Script::Decides(Arc::new(decide)));
    }

    fn script(&self, path: &str, script: Script) {
        lock(&self.board.scripts).insert(path.to_owned(), script);
    }

    /// All requests so far, in order of arrival.
    pub fn requests(&self) -> Vec<Arc<Request>> {
        lock(&self.board.requests).clone()
    }

    /// The requests so far to one path, given without query.
    pub fn requests_to(&self, path: &str) -> Vec<Arc<Request>> {
        lock(&self.board.requests).iter().filter(|request| request.path() == path).cloned().collect()
    }

    /// The requests from the one with this `seq` on.
    pub fn requests_from(&self, seq: usize) -> Vec<Arc<Request>> {
        lock(&self.board.requests).iter().skip(seq).cloned().collect()
    }

    /// How many requests came so far.
    pub fn count(&self) -> usize {
        lock(&self.board.requests).len()
    }

    /// Waits until at least `count` requests came, and returns all.
    pub async fn wait_for(&self, count: usize) -> Vec<Arc<Request>> {
        self.wait_until(&format!("{count} requests"), |requests| requests.len() >= count).await
    }

    /// Waits until the requests satisfy `enough`, and returns all; panics with `what` when patience ends.
    pub async fn wait_until(
        &self,
        what: &str,
        mut enough: impl FnMut(&[Arc<Request>]) -> bool,
    ) -> Vec<Arc<Request>> {
        let waiting = async {
            loop {
                let arrival = self.board.arrived.notified();
                if enough(&lock(&self.board.requests)) {
                    return;
                }
                arrival.await;
                // A condition over many requests is not asked for each one of them.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(patience(), waiting).await.is_err() {
            let seen = self.summary();
            panic!("the receiver did not see within {:?}: {what}\n{seen}", patience());
        }
        self.requests()
    }

    /// The last requests, for a failed expectation.
    fn summary(&self) -> String {
        let requests = lock(&self.board.requests);
        let mut lines = vec![format!("{} requests so far, the last of them:", requests.len())];
        let last = requests.iter().skip(requests.len().saturating_sub(10));
        lines.extend(last.map(|r| format!("  {} {} {} ({} bytes)", r.seq, r.method, r.target, r.body.len())));
        lines.join("\n")
    }
}

impl Board {
    fn record(&self, mut request: Request) -> Arc<Request> {
        let mut requests = lock(&self.requests);
        request.seq = requests.len();
        let request = Arc::new(request);
        requests.push(Arc::clone(&request));
        drop(requests);
        self.arrived.notify_waiters();
        request
    }

    fn in_flight(&self, path: &str) -> Arc<AtomicUsize> {
        let mut counters = lock(&self.in_flight);
        if let Some(counter) = counters.get(path) {
            return Arc::clone(counter);
        }
        Arc::clone(counters.entry(path.to_owned()).or_default())
    }

    fn answer_to(&self, request: &Request) -> Answer {
        let decides = match lock(&self.scripts).get_mut(request.path()) {
            None => return Answer::Status(200),
            Some(Script::Answers(answers)) => {
                let next = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
                return next.unwrap_or(Answer::Status(200));
            }
            Some(Script::Decides(decides)) => Arc::clone(decides),
        };
        decides(request)
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, board: Arc<Board>, end: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = end.cancelled() => return,
        };
        // Out of file descriptors, or a client gone already: the next one may do.
        let Ok((stream, _)) = accepted else { continue };
        serve(stream, tls.clone(), Arc::clone(&board), end.clone());
    }
}

fn serve(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    board: Arc<Board>,
    end: CancellationToken,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut connection = match Connection::new(stream, tls).await {
            Ok(connection) => connection,
            Err(error) => return tracing::debug!(%error, "no TLS with a client"),
        };
        tokio::select! {
            // A client that goes away in the middle of something is no trouble of the receiver.
            result = converse(&mut connection, &board) => if let Err(error) = result {
                tracing::debug!(%error, "a connection to the receiver ended");
            },
            () = end.cancelled() => connection.reset(),
        }
    })
}

async fn converse(connection: &mut Connection, board: &Board) -> std::io::Result<()> {
    while let Some(mut request) = connection.read_request().await? {
        let counter = board.in_flight(path_of(&request.target));
        request.in_flight = counter.fetch_add(1, Ordering::SeqCst) + 1;
        let _waiting = Waiting(counter);
        let request = board.record(request);
        let mut answer = board.answer_to(&request);
        if let Some(ledger) = board.ledger.get() {
            ledger.append(&line_of(&request, &answer)).await;
        }
        while let Answer::After(delay, then) = answer {
            if !connection.stays_for(delay).await {
                return Ok(());
            }
            answer = *then;
        }
        match answer {
            Answer::Status(status) => connection.answer(status, &[], b"").await?,
            Answer::Full { status, headers, body } => connection.answer(status, &headers, &body).await?,
            Answer::Hang => {
                connection.stays_for(Duration::MAX).await;
                return Ok(());
            }
            Answer::Reset => {
                connection.reset();
                return Ok(());
            }
            Answer::Raw(bytes) => return connection.raw(&bytes).await,
            Answer::Trickle { bytes, pause } => return connection.trickle(&bytes, pause).await,
            Answer::Endless { chunk, pause } => return connection.endless(&chunk, pause).await,
            Answer::After(..) => unreachable!("taken apart above"),
        }
    }
    Ok(())
}

/// A request as a ledger has it.
fn line_of(request: &Request, answer: &Answer) -> ReceivedLine {
    let at = request.received_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    ReceivedLine {
        webhook_id: request.header("webhook-id").unwrap_or_default().to_owned(),
        n: request.header("webhook-attempt").and_then(|n| n.parse().ok()).unwrap_or(0),
        at: Timestamp::from_millis(i64::try_from(at.as_millis()).unwrap_or(i64::MAX)),
        status: answer.status(),
        path: request.path().to_owned(),
        verified: None,
    }
}

/// Counts one request as in flight until its answer is out or its connection gone.
struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
