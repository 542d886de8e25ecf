//! A TCP line that a test can cut, hold up and spoil.

mod pump;
mod toxic;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    net::{TcpListener, TcpSocket},
    sync::watch,
    task::JoinHandle,
};
use tokio_util::task::TaskTracker;

use toxic::Toxics;
pub use toxic::{Toxic, Way};

use crate::must;

/// A TCP proxy in front of an address, on a free port.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    upstream: String,
    state: watch::Sender<State>,
    connections: TaskTracker,
    accepted: Arc<AtomicUsize>,
    acceptor: Mutex<Option<JoinHandle<()>>>,
    /// Bound but never listening: it keeps the port ours while nobody listens there.
    _place: TcpSocket,
}

/// What every connection looks at before it moves a byte.
#[derive(Clone, Debug, Default)]
struct State {
    cut: bool,
    stalled: bool,
    up: Toxics,
    down: Toxics,
}

impl State {
    fn of(&self, way: Way) -> &Toxics {
        match way {
            Way::Up => &self.up,
            Way::Down => &self.down,
        }
    }

    fn passes(&self, way: Way) -> bool {
        !self.cut && !self.stalled && !self.of(way).holds()
    }
}

impl Proxy {
    /// Starts a proxy on 127.0.0.1 to `upstream`, `host:port`.
    pub async fn start(upstream: impl ToString) -> Self {
        Self::start_at(IpAddr::V4(Ipv4Addr::LOCALHOST), upstream).await
    }

    /// The same on another address of this machine.
    pub async fn start_at(address: IpAddr, upstream: impl ToString) -> Self {
        Self::start_on(SocketAddr::new(address, 0), upstream).await
    }

    /// The same on a port of the caller's choice.
    pub async fn start_on(address: SocketAddr, upstream: impl ToString) -> Self {
        let place = must("take a port for a proxy", bind(address));
        let address = must("take a port for a proxy", place.local_addr());
        let proxy = Self {
            address,
            upstream: upstream.to_string(),
            state: watch::Sender::default(),
            connections: TaskTracker::new(),
            accepted: Arc::default(),
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

    /// Connections since the start.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Resets all connections and refuses new ones; both are done when this returns.
    pub async fn cut(&self) {
        let acceptor = self.acceptor().take();
        if let Some(acceptor) = acceptor {
            acceptor.abort();
            // It ends by the abort, which is no failure.
            acceptor.await.ok();
        }
        self.state.send_modify(|state| state.cut = true);
        self.connections.close();
        self.connections.wait().await;
        self.connections.reopen();
    }

    /// Keeps connections and accepts new ones, but moves no byte.
    pub async fn stall(&self) {
        self.state.send_modify(|state| (state.cut, state.stalled) = (false, true));
        self.listen();
    }

    /// Adds a toxic to one way of all connections, those that are open among them, or changes the one of its kind.
    pub fn set(&self, way: Way, toxic: Toxic) {
        self.state.send_modify(|state| match way {
            Way::Up => state.up.set(toxic),
            Way::Down => state.down.set(toxic),
        });
    }

    /// Takes all toxics away. Connections that they have ended stay so.
    pub fn clear(&self) {
        self.state.send_modify(|state| {
            state.up.clear();
            state.down.clear();
        });
    }

    /// Passes everything again, without toxics; what a stall held back arrives.
    pub async fn restore(&self) {
        self.state.send_replace(State::default());
        self.listen();
    }

    fn listen(&self) {
        let mut acceptor = self.acceptor();
        if acceptor.is_some() {
            return;
        }
        let listener = bind(self.address).and_then(|socket| socket.listen(1024));
        let listener = must("listen for a proxy", listener);
        let (upstream, state) = (self.upstream.clone(), self.state.subscribe());
        let accept = accept(listener, upstream, state, self.connections.clone(), Arc::clone(&self.accepted));
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
        self.state.send_modify(|state| state.cut = true);
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn accept(
    listener: TcpListener,
    upstream: String,
    state: watch::Receiver<State>,
    connections: TaskTracker,
    accepted: Arc<AtomicUsize>,
) {
    loop {
        // A client that is gone already is no trouble.
        let Ok((client, _)) = listener.accept().await else { continue };
        accepted.fetch_add(1, Ordering::Relaxed);
        connections.spawn(pump::connect(client, upstream.clone(), state.clone()));
    }
}
