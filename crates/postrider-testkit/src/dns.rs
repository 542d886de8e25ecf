//! A DNS server that answers by script, over UDP and TCP.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::must;

/// What the server says to one query.
#[derive(Clone, Debug)]
pub enum Said {
    /// These addresses, those of the family that was asked for, with a time to live of zero.
    Addresses(Vec<IpAddr>),
    /// The name exists and has no address.
    Nothing,
    /// `SERVFAIL`.
    Failure,
    /// `NXDOMAIN`.
    NoSuchName,
    /// `REFUSED`.
    Refused,
    /// No answer at all.
    Silence,
    /// The given answer, later.
    After(Duration, Box<Said>),
    /// Over UDP an empty answer that says it was cut short, so that the client asks over TCP; there the given one.
    OverTcp(Box<Said>),
}

impl Said {
    /// One address.
    pub fn address(address: impl Into<IpAddr>) -> Self {
        Self::Addresses(vec![address.into()])
    }

    /// The same, later.
    pub fn after(self, delay: Duration) -> Self {
        Self::After(delay, Box::new(self))
    }
}

/// A DNS server. Names without a script do not exist. It ends with the value.
#[derive(Debug)]
pub struct Dns {
    address: SocketAddr,
    board: Arc<Board>,
    _end: DropGuard,
}

#[derive(Debug, Default)]
struct Board {
    scripts: Mutex<HashMap<String, VecDeque<Said>>>,
    /// Queries for addresses, by name.
    asked: Mutex<HashMap<String, usize>>,
}

/// A question as it came.
struct Question {
    id: [u8; 2],
    name: String,
    kind: u16,
    /// Name, type and class, to be said back.
    bytes: Vec<u8>,
}

const A: u16 = 1;
const AAAA: u16 = 28;

impl Dns {
    /// Listens at this address, on a free port if its port is 0. Clients that cannot be told a port ask at port 53,
    /// which only root may take.
    pub async fn start(address: SocketAddr) -> Self {
        let (udp, tcp) = must(&format!("listen for DNS at {address}"), bind(address).await);
        let address = must("the address of the DNS server", udp.local_addr());
        let board = Arc::<Board>::default();
        let end = CancellationToken::new();
        let (over_udp, over_tcp) = (Arc::clone(&board), Arc::clone(&board));
        let (udp_end, tcp_end) = (end.clone(), end.clone());
        tokio::spawn(async move { udp_end.run_until_cancelled(serve_udp(udp, over_udp)).await });
        tokio::spawn(async move { tcp_end.run_until_cancelled(serve_tcp(tcp, over_tcp)).await });
        Self { address, board, _end: end.drop_guard() }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets what it says of a name: one for each time that somebody asks for addresses, the last one for ever. A client
    /// that asks for both families asks twice.
    pub fn answer(&self, name: &str, said: impl IntoIterator<Item = Said>) {
        lock(&self.board.scripts).insert(name.to_ascii_lowercase(), said.into_iter().collect());
    }

    /// How often a name was asked for, in both families.
    pub fn asked(&self, name: &str) -> usize {
        lock(&self.board.asked).get(&name.to_ascii_lowercase()).copied().unwrap_or_default()
    }
}

/// The same port for both; a free one is looked for until both have it.
async fn bind(address: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut tries = 0;
    loop {
        let udp = UdpSocket::bind(address).await?;
        match TcpListener::bind(udp.local_addr()?).await {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(error) if address.port() != 0 || tries == 20 => return Err(error),
            Err(_) => tries += 1,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Board {
    fn said(&self, question: &Question, tcp: bool) -> Said {
        // A question that comes again over TCP was answered and counted over UDP.
        let mut scripts = lock(&self.scripts);
        let Some(script) = scripts.get_mut(&question.name) else { return Said::NoSuchName };
        let said = match script.front() {
            Some(Said::OverTcp(_)) if !tcp => return Said::OverTcp(Box::new(Said::Nothing)),
            _ if script.len() > 1 => script.pop_front(),
            _ => script.front().cloned(),
        };
        said.unwrap_or(Said::NoSuchName)
    }

    /// The answer's bytes, when they are due; none for silence.
    async fn answer(&self, query: &[u8], tcp: bool) -> Option<Vec<u8>> {
        let question = read(query)?;
        *lock(&self.asked).entry(question.name.clone()).or_default() += 1;
        let mut said = self.said(&question, tcp);
        loop {
            said = match said {
                Said::After(delay, then) => {
                    tokio::time::sleep(delay).await;
                    *then
                }
                Said::OverTcp(then) if tcp => *then,
                Said::OverTcp(_) => return Some(write(&question, 0, true, &[])),
                Said::Silence => return None,
                Said::Addresses(addresses) => return Some(write(&question, 0, false, &addresses)),
                Said::Nothing => return Some(write(&question, 0, false, &[])),
                Said::Failure => return Some(write(&question, 2, false, &[])),
                Said::NoSuchName => return Some(write(&question, 3, false, &[])),
                Said::Refused => return Some(write(&question, 5, false, &[])),
            }
        }
    }
}

async fn serve_udp(socket: UdpSocket, board: Arc<Board>) {
    let socket = Arc::new(socket);
    let answers = TaskTracker::new();
    let mut buffer = [0; 1500];
    loop {
        // An answer that nobody waited for comes back as an error of the next read.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        let (query, board, socket) = (buffer[..length].to_vec(), Arc::clone(&board), Arc::clone(&socket));
        answers.spawn(async move {
            if let Some(answer) = board.answer(&query, false).await {
                socket.send_to(&answer, client).await.ok();
            }
        });
    }
}

async fn serve_tcp(listener: TcpListener, board: Arc<Board>) {
    let conversations = TaskTracker::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        conversations.spawn(converse(stream, Arc::clone(&board)));
    }
}

async fn converse(mut stream: TcpStream, board: Arc<Board>) -> io::Result<()> {
    loop {
        let length = stream.read_u16().await?;
        let mut query = vec![0; usize::from(length)];
        stream.read_exact(&mut query).await?;
        let Some(answer) = board.answer(&query, true).await else { return Ok(()) };
        stream.write_u16(u16::try_from(answer.len()).unwrap_or(u16::MAX)).await?;
        stream.write_all(&answer).await?;
    }
}

/// The first question of a query, in lower case.
fn read(query: &[u8]) -> Option<Question> {
    let id = [*query.first()?, *query.get(1)?];
    let mut at = 12;
    let mut name = String::new();
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        let label = query.get(at..at + length)?;
        if !name.is_empty() {
            name.push('.');
        }
        name.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
        at += length;
    }
    let kind = u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]);
    Some(Question { id, name, kind, bytes: query.get(12..at + 4)?.to_vec() })
}

fn write(question: &Question, code: u8, truncated: bool, addresses: &[IpAddr]) -> Vec<u8> {
    let wanted: Vec<Vec<u8>> = addresses
        .iter()
        .filter_map(|address| match (address, question.kind) {
            (IpAddr::V4(address), A) => Some(address.octets().to_vec()),
            (IpAddr::V6(address), AAAA) => Some(address.octets().to_vec()),
            _ => None,
        })
        .collect();
    let mut answer = Vec::with_capacity(64 + question.bytes.len());
    answer.extend_from_slice(&question.id);
    // An answer, with authority; recursion is available.
    answer.push(0x84 | (u8::from(truncated) << 1) | 0x01);
    answer.push(0x80 | code);
    answer.extend_from_slice(&1_u16.to_be_bytes());
    answer.extend_from_slice(&u16::try_from(wanted.len()).unwrap_or(u16::MAX).to_be_bytes());
    answer.extend_from_slice(&[0; 4]);
    answer.extend_from_slice(&question.bytes);
    for address in wanted {
        // The name is that of the question, at byte 12.
        answer.extend_from_slice(&[0xc0, 12]);
        answer.extend_from_slice(&question.kind.to_be_bytes());
        answer.extend_from_slice(&[0, 1, 0, 0, 0, 0]);
        answer.extend_from_slice(&u16::try_from(address.len()).unwrap_or(u16::MAX).to_be_bytes());
        answer.extend_from_slice(&address);
    }
    answer
}
