//! A TCP line that a test can cut.

use std::{
    io,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpSocket, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};
use tokio_util::task::TaskTracker;

use crate::must;

/// A TCP proxy in front of an address, on a free port of 127.0.0.1.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    upstream: String,
    line: watch::Sender<Line>,
    connections: TaskTracker,
    acceptor: Mutex<Option<JoinHandle<()>>>,
    /// Bound but never listening: it keeps the port ours while nobody listens there.
    _place: TcpSocket,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Passes,
    Stalls,
    Cut,
}

impl Proxy {
    /// Starts a proxy to `upstream`, `host:port`.
    pub async fn start(upstream: impl ToString) -> Self {
        let place = must("take a port for a proxy", bind(SocketAddr::from(([127, 0, 0, 1], 0))));
        let address = must("take a port for a proxy", place.local_addr());
        let proxy = Self {
            address,
            upstream: upstream.to_string(),
            line: watch::Sender::new(Line::Passes),
            connections: TaskTracker::new(),
            acceptor: Mutex::default(),
            _place: place,
        };
        proxy.listen();
        proxy
    }

    /// Where to connect instead of the upstream.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Connections that are open now.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Resets all connections and refuses new ones; both are done when this returns.
    pub async fn cut(&self) {
        let acceptor = self.acceptor().take();
        if let Some(acceptor) = acceptor {
            acceptor.abort();
            // It ends by the abort, which is no failure.
            acceptor.await.ok();
        }
        self.line.send_replace(Line::Cut);
        self.connections.close();
        self.connections.wait().await;
        self.connections.reopen();
    }

    /// Keeps connections and accepts new ones, but moves no byte.
    pub async fn stall(&self) {
        self.line.send_replace(Line::Stalls);
        self.listen();
    }

    /// Passes everything again; what a stall held back arrives.
    pub async fn restore(&self) {
        self.line.send_replace(Line::Passes);
        self.listen();
    }

    fn listen(&self) {
        let mut acceptor = self.acceptor();
        if acceptor.is_some() {
            return;
        }
        let listener = bind(self.address).and_then(|socket| socket.listen(1024));
        let listener = must("listen for a proxy", listener);
        let accept = accept(listener, self.upstream.clone(), self.line.subscribe(), self.connections.clone());
        *acceptor = Some(tokio::spawn(accept));
    }

    fn acceptor(&self) -> std::sync::MutexGuard<'_, Option<JoinHandle<()>>> {
        self.acceptor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(acceptor) = self.acceptor().take() {
            acceptor.abort();
        }
        self.line.send_replace(Line::Cut);
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn accept(
    listener: TcpListener,
    upstream: String,
    line: watch::Receiver<Line>,
    connections: TaskTracker,
) {
    loop {
        // A client that is gone already is no trouble.
        let Ok((client, _)) = listener.accept().await else { continue };
        connections.spawn(connect(client, upstream.clone(), line.clone()));
    }
}

async fn connect(mut client: TcpStream, upstream: String, line: watch::Receiver<Line>) {
    let mut cut = line.clone();
    let server = tokio::select! {
        server = TcpStream::connect(&upstream) => server,
        () = until_cut(&mut cut) => return reset(&client),
    };
    let mut server = match server {
        Ok(server) => server,
        Err(error) => {
            tracing::debug!(%error, upstream, "the proxy cannot reach its upstream");
            return reset(&client);
        }
    };
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    let ended = tokio::select! {
        ended = pass(&mut client, &mut server, &line) => ended.is_ok(),
        () = until_cut(&mut cut) => false,
    };
    if !ended {
        reset(&client);
        reset(&server);
    }
}

/// Passes both directions until both have ended: a half-closed connection stays so.
async fn pass(
    client: &mut TcpStream,
    server: &mut TcpStream,
    line: &watch::Receiver<Line>,
) -> io::Result<()> {
    // Borrowed halves: owned ones say goodbye when dropped, and so spoil a reset.
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    tokio::try_join!(
        pump(&mut from_client, &mut to_server, line.clone()),
        pump(&mut from_server, &mut to_client, line.clone()),
    )?;
    Ok(())
}

async fn pump(
    from: &mut ReadHalf<'_>,
    to: &mut WriteHalf<'_>,
    mut line: watch::Receiver<Line>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = tokio::select! {
            biased;
            () = while_stalled(&mut line) => continue,
            read = from.read(&mut buffer) => read?,
        };
        // The line may have stalled while these bytes arrived.
        until_passing(&mut line).await;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
    }
}

/// Waits through a stall; never ends when there is none, until one comes and goes.
async fn while_stalled(line: &mut watch::Receiver<Line>) {
    // The sender outlives the pump, or has said `Cut` before it went.
    line.wait_for(|line| *line != Line::Passes).await.ok();
    until_passing(line).await;
}

async fn until_passing(line: &mut watch::Receiver<Line>) {
    if line.wait_for(|line| *line == Line::Passes).await.is_err() {
        std::future::pending().await
    }
}

async fn until_cut(line: &mut watch::Receiver<Line>) {
    line.wait_for(|line| *line == Line::Cut).await.ok();
}

/// Makes the end of this connection a reset.
fn reset(stream: &TcpStream) {
    // It may be closed already.
    stream.set_zero_linger().ok();
}
