//! The receiver of all webhooks: answers, hangs or refuses by the path, and remembers how late each request came.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// The first retry of a webhook at `/retry/…` is due so long after its first answer.
pub const RETRY_MS: u64 = 2_000;

/// A request that came.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// When, since the sink's start.
    pub at: Duration,
    /// How late, milliseconds: since its event was published, or since its retry was due.
    pub late_ms: f64,
    /// Which attempt it was.
    pub attempt: u32,
}

/// What the paths begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `/well/…`: always answered.
    Well,
    /// `/retry/…`: refused once, then taken.
    Retry,
}

pub struct Sink {
    pub port: u16,
    board: Arc<Board>,
}

struct Board {
    start: Instant,
    /// Whether `/hang/…` hangs.
    hanging: AtomicBool,
    hang_requests: AtomicUsize,
    arrivals: Mutex<Vec<(Kind, Arrival)>>,
    refused: Mutex<HashMap<String, Instant>>,
}

/// Microseconds since 1970: written into events, read from requests.
pub fn micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}

impl Sink {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let board = Arc::new(Board {
            start: Instant::now(),
            hanging: AtomicBool::new(false),
            hang_requests: AtomicUsize::new(0),
            arrivals: Mutex::default(),
            refused: Mutex::default(),
        });
        tokio::spawn({
            let board = board.clone();
            async move {
                while let Ok((connection, _)) = listener.accept().await {
                    connection.set_nodelay(true).ok();
                    let board = board.clone();
                    tokio::spawn(async move { converse(connection, &board).await });
                }
            }
        });
        Self { port, board }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub fn hang(&self, hang: bool) {
        self.board.hanging.store(hang, Ordering::Relaxed);
    }

    pub fn now(&self) -> Duration {
        self.board.start.elapsed()
    }

    /// Requests that hung.
    pub fn hang_requests(&self) -> usize {
        self.board.hang_requests.load(Ordering::Relaxed)
    }

    /// What came of a kind since then.
    pub fn arrivals(&self, kind: Kind, since: Duration) -> Vec<Arrival> {
        let arrivals = self.board.arrivals.lock().unwrap();
        arrivals.iter().filter(|(k, arrival)| *k == kind && arrival.at >= since).map(|(_, a)| *a).collect()
    }
}

async fn converse(mut connection: TcpStream, board: &Board) -> Option<()> {
    let mut buffer = Vec::with_capacity(4096);
    loop {
        let head = loop {
            if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if connection.read_buf(&mut buffer).await.ok()? == 0 {
                return None;
            }
        };
        let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
        let value = |name: &str| text.split(name).nth(1)?.lines().next().map(|value| value.trim().to_owned());
        let whole = head + value("content-length:")?.parse::<usize>().ok()?;
        while buffer.len() < whole {
            if connection.read_buf(&mut buffer).await.ok()? == 0 {
                return None;
            }
        }
        let path = text.split(' ').nth(1)?;
        let published = || {
            let body = String::from_utf8_lossy(&buffer[head..whole]);
            body.split("\"at\":").nth(1)?.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok()
        };
        let (at, mut status) = (board.start.elapsed(), 200);
        let attempt = value("webhook-attempt:")?.parse().ok()?;
        if path.starts_with("/hang/") && board.hanging.load(Ordering::Relaxed) {
            board.hang_requests.fetch_add(1, Ordering::Relaxed);
            // Until the other side has enough of it.
            while connection.read_buf(&mut buffer).await.ok()? > 0 {}
            return None;
        } else if path.starts_with("/well/") {
            let late_ms = micros().saturating_sub(published()?) as f64 / 1000.0;
            board.arrivals.lock().unwrap().push((Kind::Well, Arrival { at, late_ms, attempt }));
        } else if path.starts_with("/retry/") {
            let id = value("webhook-id:")?;
            let before = board.refused.lock().unwrap().remove(&id);
            match before {
                None => {
                    // No 5xx: where many come at once its breaker would open, and that is not what is measured.
                    status = 404;
                    board.refused.lock().unwrap().insert(id, Instant::now());
                }
                Some(first) => {
                    let late_ms = first.elapsed().as_secs_f64() * 1000.0 - RETRY_MS as f64;
                    board.arrivals.lock().unwrap().push((Kind::Retry, Arrival { at, late_ms, attempt }));
                }
            }
        }
        buffer.drain(..whole);
        let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n");
        connection.write_all(answer.as_bytes()).await.ok()?;
    }
}
