//! What the demo plays on: a state directory, names on the broker that nobody else uses, an inbox.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use postrider_broker::topology::{MAX_SHARDS, Mode, Topology};
use postrider_core::address::EgressPolicy;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::args;
use crate::commands::{Context, topology};
use crate::exit::{Exit, Failure};
use crate::health;
use crate::inbox::{self, Certificate, Inbox, Received};
use crate::settings::{Settings, StateDir};
use crate::telemetry::{self, Destination};

/// The ladder's unit: small, so that retries are seen within seconds.
const UNIT_MS: u64 = 100;

/// What an earlier demo left, and this one begins without.
const LEFTOVERS: [&str; 7] = [
    "postrider.db",
    "postrider.db-wal",
    "postrider.db-shm",
    "postrider.db.lock",
    "admin-token",
    "master-key",
    "demo.log",
];

/// Names the prefix on the broker for as long as there is something with it: a demo that was killed is cleaned up by
/// the next.
const PREFIX_FILE: &str = "prefix";

/// What the demo plays on.
pub(super) struct Stage {
    /// Settings of this demo alone.
    pub(super) settings: Settings,
    /// Where control listens.
    pub(super) api: TcpListener,
    /// Where health and metrics are.
    pub(super) health: TcpListener,
    /// Held until the demo ends.
    pub(super) lock: File,
}

impl Stage {
    /// Takes the state directory and begins anew in it.
    pub(super) async fn set(context: &Context, demo: &args::Demo) -> Result<Self, Failure> {
        let layers = &context.settings.layers;
        let path = match &demo.state {
            Some(path) => path.clone(),
            None if layers.is_given("state_dir") => context.settings.state_dir.path().to_path_buf(),
            None => PathBuf::from("target/demo"),
        };
        let state = StateDir::new(path);
        let mut settings = context.settings.clone();
        let loopback = Ipv4Net::new_assert(std::net::Ipv4Addr::new(127, 0, 0, 0), 8);
        let opened = settings.worker.egress.opened().iter().copied().chain([IpNet::V4(loopback)]);
        settings.worker.egress = EgressPolicy::new(opened.collect());
        settings.broker.delay_unit_ms = UNIT_MS;
        settings.broker.topology = Some(Mode::Apply);
        settings.control.https_only = false;
        settings.control.store_url = Some(format!("sqlite:{}", state.store_file().display()));
        settings.state_dir = state.clone();
        settings.amqp_url().map_err(|failure| match layers.is_given("amqp_url") {
            true => failure,
            false => failure
                .next("make demo starts a private RabbitMQ; or set it to amqp://user:password@host:5672/%2f"),
        })?;

        // Whether there is a broker at all: roles would wait for it.
        topology::open(&settings.broker_as("operator")?).await?.close().await;

        state.create()?;
        let lock = lock(&state)?;
        let prefix_file = state.path().join(PREFIX_FILE);
        if let Ok(prefix) = std::fs::read_to_string(&prefix_file) {
            settings.broker.prefix = prefix.trim().to_owned();
            clear_broker(&settings).await?;
        }
        for name in LEFTOVERS {
            remove(&state.path().join(name))?;
        }
        let random: u32 = rand::random();
        settings.broker.prefix = format!("demo-{random:08x}");
        let unwritten =
            |error| Failure::new(Exit::Other, format!("cannot write {}", prefix_file.display()), error);
        std::fs::write(&prefix_file, &settings.broker.prefix).map_err(unwritten)?;
        let log = state.path().join("demo.log");
        let log = File::create(&log)
            .map_err(|error| Failure::new(Exit::Other, format!("cannot write {}", log.display()), error))?;
        telemetry::start(&settings.observe, Destination::File(log))?;

        let any_port = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let api = health::bind(demo.listen, "--listen").await?;
        let health = health::bind(any_port, "the system's settings").await?;
        Ok(Self { settings, api, health, lock })
    }
}

/// Removes what this demo made on the broker. Its files stay until the next demo.
pub(super) async fn clear_broker(settings: &Settings) -> Result<(), Failure> {
    let broker = settings.broker_as("operator")?;
    let session = topology::open(&broker).await?;
    // However many shards there were.
    let everything = Topology::new(session.names(), MAX_SHARDS);
    let deleted = everything.delete(&session).await;
    session.close().await;
    deleted.map_err(|error| topology::broker("cannot delete the demo's queues", &error))?;
    remove(&settings.state_dir.path().join(PREFIX_FILE))
}

fn lock(state: &StateDir) -> Result<File, Failure> {
    let path = state.path().join("demo.lock");
    let failed = |error| Failure::new(Exit::Other, format!("cannot lock {}", path.display()), error);
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::Error(error)) => Err(failed(error)),
        Err(std::fs::TryLockError::WouldBlock) => Err(Failure::new(
            Exit::Conflict,
            format!("{} is in use", state.path().display()),
            "another demo runs with it",
        )
        .next("end that one, or give --state another directory")),
    }
}

fn remove(path: &Path) -> Result<(), Failure> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::new(Exit::Other, format!("cannot remove {}", path.display()), error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The receiver of the demo's webhooks, over HTTP and, for profiles that take nothing else, over TLS.
pub(super) struct Receiver {
    /// What it remembers.
    pub(super) inbox: Arc<Inbox>,
    /// Where it is.
    pub(super) base: String,
    /// Where it is over TLS.
    tls_base: String,
    /// Whose authority must be trusted there.
    pub(super) certificate: Certificate,
    /// Ends it.
    pub(super) stop: CancellationToken,
}

impl Receiver {
    /// Starts it.
    pub(super) async fn start() -> Result<Self, Failure> {
        let any_port = ([127, 0, 0, 1], 0).into();
        let plain = health::bind(any_port, "the system's settings").await?;
        let tls = health::bind(any_port, "the system's settings").await?;
        let (plain_address, tls_address) = (address(&plain)?, address(&tls)?);
        let certificate = Certificate::new(tls_address)
            .map_err(|error| Failure::new(Exit::Other, "cannot receive over TLS", error))?;
        let (inbox, stop) = (Arc::new(Inbox::new(None)), CancellationToken::new());
        tokio::spawn(inbox::serve(plain, None, inbox.clone(), |_: &Received| {}, stop.clone()));
        let over_tls = Some(certificate.clone());
        tokio::spawn(inbox::serve(tls, over_tls, inbox.clone(), |_: &Received| {}, stop.clone()));
        let (base, tls_base) = (format!("http://{plain_address}"), format!("https://{tls_address}"));
        Ok(Self { inbox, base, tls_base, certificate, stop })
    }

    /// Where requests to `name` go.
    pub(super) fn url(&self, name: &str, tls: bool) -> String {
        let base = if tls { &self.tls_base } else { &self.base };
        format!("{base}/in/{name}")
    }
}

/// Where a socket listens.
pub(super) fn address(listener: &TcpListener) -> Result<std::net::SocketAddr, Failure> {
    listener
        .local_addr()
        .map_err(|error| Failure::new(Exit::Other, "cannot read a socket's own address", error))
}
