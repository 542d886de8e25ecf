//! `postrider serve`: roles in this process, until a signal.

use std::sync::Arc;
use std::time::Duration;

use postrider_broker::topology::{self, Mode};
use postrider_broker::{Metrics, Readiness};
use postrider_control::AdminToken;
use postrider_core::seal::MasterKey;
use prometheus::Registry;
use tokio::signal::unix::{Signal, SignalKind};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::args::Role;
use crate::commands::Context;
use crate::exit::{Exit, Failure, chain};
use crate::health::{self, Health};
use crate::inbox::Client;
use crate::output;
use crate::settings::{Secret, Settings, new_master_key, new_token};
use crate::telemetry;
use crate::watchdog;

/// How much longer than its drain a role may take to stop.
const STOPPING: Duration = Duration::from_secs(10);
/// How long control may take: it answers what it has begun, then sends what it answered for.
const CONTROL_STOPPING: Duration = Duration::from_secs(25);
/// A worker drains at least as long as a webhook may take to answer, and 5 s.
const LONGEST_DRAIN: Duration = Duration::from_millis(*postrider_core::webhook::TIMEOUT_MS.end() + 5_000);
/// How long control waits for the topology before it serves what it has: its API must not depend on the broker.
const CONTROL_PATIENCE: Duration = Duration::from_secs(3);

/// Serves until a signal, or until a role fails.
///
/// # Errors
/// [`Failure`] when a role cannot start, fails, or does not stop in time.
pub async fn run(context: &Context, role: Role) -> Result<Exit, Failure> {
    let settings = &context.settings;
    let (plan, notes) = Plan::of(settings, role)?;
    notes.iter().for_each(|note| output::note(note));
    telemetry::start(&settings.observe, telemetry::Destination::Stderr)?;
    let mut signals = Signals::listen()?;
    let listener = health::bind(settings.observe.metrics_listen, "POSTRIDER_METRICS_LISTEN").await?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        roles = plan.names().join(","),
        broker = plan.broker.address(),
        prefix = plan.broker.prefix,
        metrics = %settings.observe.metrics_listen,
        "starting"
    );
    let registry = health::registry()?;
    telemetry::register(&registry)?;
    let mut fleet = Fleet::start(plan, registry.clone());
    let stop_health = CancellationToken::new();
    let health = Health { roles: fleet.readiness.clone(), registry, stopping: fleet.stopping.clone() };
    let health = tokio::spawn(health::serve(listener, health, stop_health.clone()));
    let stalled = watchdog::start(fleet.readiness.clone(), settings.observe.stall)?;
    let result = tokio::select! {
        () = signals.next() => {
            tracing::info!("stopping: what has begun is finished; a second signal ends at once");
            Ok(Exit::Ok)
        }
        failure = fleet.failed() => Err(failure),
        Ok(failure) = stalled => Err(failure),
    };
    let stopped = tokio::select! {
        stopped = fleet.stop() => stopped,
        () = signals.next() => {
            output::note("postrider: second signal: ending at once; what was under way is done again by others");
            telemetry::flush();
            std::process::exit(Exit::Interrupted as i32);
        }
    };
    stop_health.cancel();
    health.await.ok();
    if stopped.is_ok() && result.is_ok() {
        tracing::info!("stopped");
    }
    telemetry::flush();
    result.and_then(|exit| stopped.map(|()| exit))
}

/// Waits for SIGINT or SIGTERM, once.
///
/// # Errors
/// [`Failure`] when signals cannot be waited for.
pub async fn signal() -> Result<(), Failure> {
    Signals::listen()?.next().await;
    Ok(())
}

/// SIGINT and SIGTERM. From `listen` on they no longer end the process by themselves.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Begins to listen.
    ///
    /// # Errors
    /// [`Failure`] when the system refuses.
    pub fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            tokio::signal::unix::signal(kind)
                .map_err(|error| Failure::new(Exit::Other, "cannot wait for signals", error))
        };
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// What runs in this process, with everything that it needs.
#[derive(Debug)]
pub struct Plan {
    broker: postrider_broker::Settings,
    mode: Mode,
    drain: Duration,
    router: Option<postrider_router::Config>,
    worker: Option<postrider_worker::Config>,
    control: Option<postrider_control::Config>,
}

impl Plan {
    /// What `role` needs, and what the user should know about it. Only `serve all` makes secrets that are not set: roles
    /// that run apart must share them.
    ///
    /// # Errors
    /// [`Failure`] that names what is not set.
    pub fn of(settings: &Settings, role: Role) -> Result<(Self, Vec<String>), Failure> {
        let mut notes = Vec::new();
        let all = role == Role::All;
        let is = |one| all || role == one;
        let broker = |name| settings.broker_as(name);
        let (token, key) = match role {
            Role::All => {
                let (token, key) = kept_secrets(settings, &mut notes)?;
                (Some(token), Some(key))
            }
            Role::Router => (None, None),
            Role::Worker => (None, settings.master_key()?),
            Role::Control => (settings.admin_token()?, settings.master_key()?),
        };
        let key = |role: &str| {
            let missing = || {
                Failure::usage(
                    "POSTRIDER_MASTER_KEY is not set",
                    format!("{role} needs the key that seals the webhooks' secrets"),
                )
                .next("make one with: openssl rand -base64 32; control and every worker must have the same")
            };
            key.clone().ok_or_else(missing)
        };
        let router = is(Role::Router)
            .then(|| {
                broker("router").map(|broker| postrider_router::Config {
                    drain: settings.worker.drain,
                    ..postrider_router::Config::new(broker)
                })
            })
            .transpose()?;
        let worker = match is(Role::Worker) {
            false => None,
            true => {
                let mut config = postrider_worker::Config::new(broker("worker")?, key("a worker")?);
                config.egress = settings.worker.egress.clone();
                config.drain = settings.worker.drain;
                config.concurrency = settings.worker.concurrency;
                config.slow_concurrency = settings.worker.slow_concurrency;
                Some(config)
            }
        };
        let control = match is(Role::Control) {
            false => None,
            true => {
                let missing = || {
                    Failure::usage(
                        "POSTRIDER_ADMIN_TOKEN is not set",
                        "control needs the token that its API asks for",
                    )
                    .next(
                        "make one with: openssl rand -hex 32, and set POSTRIDER_ADMIN_TOKEN_FILE to its file",
                    )
                };
                Some(postrider_control::Config {
                    broker: broker("control")?,
                    store_url: settings.store_url(),
                    listen: settings.control.listen.into(),
                    admin_token: admin_token(&token.ok_or_else(missing)?)?,
                    master_key: key("control")?,
                    egress: settings.worker.egress.clone(),
                    https_only: settings.control.https_only,
                    inbox: inbox(settings)?,
                    settings: settings.told(),
                })
            }
        };
        let mode = settings.broker.topology.unwrap_or(if all { Mode::Apply } else { Mode::Check });
        let plan =
            Self { broker: broker("topology")?, mode, drain: settings.worker.drain, router, worker, control };
        Ok((plan, notes))
    }

    /// Has control serve its API on a socket that is bound already.
    pub fn listen_on(&mut self, listener: tokio::net::TcpListener) {
        if let Some(control) = &mut self.control {
            control.listen = listener.into();
        }
    }

    fn names(&self) -> Vec<&'static str> {
        let all = [
            ("router", self.router.is_some()),
            ("worker", self.worker.is_some()),
            ("control", self.control.is_some()),
        ];
        all.into_iter().filter(|(_, runs)| *runs).map(|(name, _)| name).collect()
    }
}

/// The test inbox that the console shows, if somebody named one.
fn inbox(settings: &Settings) -> Result<Option<Arc<dyn postrider_console::Inbox>>, Failure> {
    let Some(url) = &settings.control.inbox_url else { return Ok(None) };
    Ok(Some(Arc::new(Client::new(url)?)))
}

/// The token as control keeps it.
fn admin_token(token: &Secret) -> Result<AdminToken, Failure> {
    AdminToken::new(token.reveal()).map_err(|error| Failure::usage("cannot use the admin token", error))
}

/// Token and key: those that are set, otherwise those in the state directory, made where they are missing.
fn kept_secrets(settings: &Settings, notes: &mut Vec<String>) -> Result<(Secret, MasterKey), Failure> {
    let state = &settings.state_dir;
    let token = match settings.admin_token()? {
        Some(token) => token,
        None => kept(state, &state.admin_token_file(), new_token, "the admin token", notes)?,
    };
    let key = match settings.master_key()? {
        Some(key) => key,
        None => {
            let file = state.master_key_file();
            let text = kept(state, &file, new_master_key, "the master key", notes)?;
            MasterKey::parse(text.reveal())
                .map_err(|error| Failure::usage(format!("cannot use {}", file.display()), error))?
        }
    };
    Ok((token, key))
}

fn kept(
    state: &crate::settings::StateDir,
    file: &std::path::Path,
    make: fn() -> Secret,
    what: &str,
    notes: &mut Vec<String>,
) -> Result<Secret, Failure> {
    let (secret, made) = state.read_or_make(file, make)?;
    let verb = if made { "was made and is" } else { "is" };
    notes.push(format!("postrider: {what} {verb} in {}", file.display()));
    Ok(secret)
}

/// The roles that run in this process.
#[derive(Debug)]
pub struct Fleet {
    /// Each role, and the topology before them, with how it does.
    pub readiness: Vec<(&'static str, Readiness)>,
    /// Cancelled when the process begins to stop.
    pub stopping: CancellationToken,
    data_plane: JoinSet<(&'static str, Result<(), String>)>,
    control: JoinSet<(&'static str, Result<(), String>)>,
    stop_control: CancellationToken,
    drain: Duration,
}

impl Fleet {
    /// Starts everything in the plan. The data plane waits until the topology is there.
    pub fn start(plan: Plan, registry: Registry) -> Self {
        let Plan { broker, mode, drain, router, worker, control } = plan;
        let (stopping, stop_control) = (CancellationToken::new(), CancellationToken::new());
        let there = CancellationToken::new();
        let mut readiness = Vec::new();
        let mut part = |name| {
            let part = Readiness::new();
            readiness.push((name, part.clone()));
            part
        };
        let (mut data_plane, mut control_plane) = (JoinSet::new(), JoinSet::new());
        data_plane.spawn({
            let (readiness, there, stopping) = (part("topology"), there.clone(), stopping.clone());
            async move {
                // Shown to nobody: after a few seconds there is nothing more to count.
                let metrics = match Metrics::register(&Registry::new(), broker.role) {
                    Ok(metrics) => metrics,
                    Err(error) => return ("topology", Err(error.to_string())),
                };
                topology::ensure(&broker, &metrics, mode, &readiness, &stopping).await;
                there.cancel();
                stopping.cancelled().await;
                ("topology", Ok(()))
            }
        });
        if let Some(config) = router {
            let (readiness, registry) = (part("router"), registry.clone());
            let (there, stopping) = (there.clone(), stopping.clone());
            data_plane.spawn(async move {
                if !ready_before(&there, &stopping).await {
                    return ("router", Ok(()));
                }
                let ended = postrider_router::run(config, &registry, readiness, stopping).await;
                ("router", ended.map_err(|error| chain(&error)))
            });
        }
        if let Some(config) = worker {
            let (readiness, registry) = (part("worker"), registry.clone());
            let (there, stopping) = (there.clone(), stopping.clone());
            data_plane.spawn(async move {
                if !ready_before(&there, &stopping).await {
                    return ("worker", Ok(()));
                }
                let ended = postrider_worker::run(config, &registry, readiness, stopping).await;
                ("worker", ended.map_err(|error| chain(&error)))
            });
        }
        if let Some(config) = control {
            let (readiness, stop) = (part("control"), stop_control.clone());
            control_plane.spawn(async move {
                tokio::time::timeout(CONTROL_PATIENCE, there.cancelled()).await.ok();
                let ended = postrider_control::run(config, &registry, readiness, stop).await;
                ("control", ended.map_err(|error| chain(&error)))
            });
        }
        Self { readiness, stopping, data_plane, control: control_plane, stop_control, drain }
    }

    /// Waits until a role ends although nobody asked it to.
    pub async fn failed(&mut self) -> Failure {
        let ended = tokio::select! {
            Some(ended) = self.data_plane.join_next() => ended,
            Some(ended) = self.control.join_next() => ended,
        };
        unasked(ended)
    }

    /// Stops the data plane, then control, which writes down what the data plane did.
    ///
    /// # Errors
    /// [`Failure`] when a role does not stop in time, or fails while it stops.
    pub async fn stop(&mut self) -> Result<(), Failure> {
        self.stopping.cancel();
        let data_plane = finish(&mut self.data_plane, self.drain.max(LONGEST_DRAIN) + STOPPING).await;
        self.stop_control.cancel();
        let control = finish(&mut self.control, CONTROL_STOPPING).await;
        data_plane.and(control)
    }
}

/// Waits until the topology is there; false when the process stops before.
async fn ready_before(there: &CancellationToken, stopping: &CancellationToken) -> bool {
    tokio::select! {
        () = there.cancelled() => !stopping.is_cancelled(),
        () = stopping.cancelled() => false,
    }
}

type Ended = Result<(&'static str, Result<(), String>), tokio::task::JoinError>;

fn unasked(ended: Ended) -> Failure {
    match ended {
        Ok((role, Ok(()))) => Failure::new(Exit::Other, format!("{role} ended"), "nobody asked it to"),
        Ok((role, Err(why))) => Failure::new(Exit::Other, format!("{role} cannot go on"), why),
        Err(error) => {
            Failure::new(Exit::Other, "a role broke down", error).next("please report this with the log")
        }
    }
}

async fn finish(
    roles: &mut JoinSet<(&'static str, Result<(), String>)>,
    limit: Duration,
) -> Result<(), Failure> {
    let mut result = Ok(());
    let all = async {
        while let Some(ended) = roles.join_next().await {
            if !matches!(ended, Ok((_, Ok(())))) {
                result = Err(unasked(ended));
            }
        }
    };
    if tokio::time::timeout(limit, all).await.is_err() {
        roles.abort_all();
        let why = format!("it had {} s", limit.as_secs());
        return Err(Failure::new(Exit::Other, "a role did not stop in time", why).next(
            "what it had begun is done again by others; raise POSTRIDER_DRAIN_SECONDS if this happens often",
        ));
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        let env = pairs.iter().map(|(name, value)| (format!("POSTRIDER_{name}"), (*value).to_owned()));
        Settings::from_parts(env, None).unwrap().settings
    }

    const KEY: (&str, &str) = ("MASTER_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
    const TOKEN: (&str, &str) = ("ADMIN_TOKEN", "0123456789abcdef");
    const URL: (&str, &str) = ("AMQP_URL", "amqp://127.0.0.1");

    #[test]
    fn single_roles_refuse_to_start_without_what_they_share() {
        let refused =
            |role, pairs: &[(&str, &str)]| Plan::of(&settings(pairs), role).unwrap_err().to_string();
        assert!(refused(Role::Router, &[]).contains("POSTRIDER_AMQP_URL is not set"));
        assert!(refused(Role::Worker, &[URL]).contains("POSTRIDER_MASTER_KEY is not set"));
        assert!(refused(Role::Control, &[URL, KEY]).contains("POSTRIDER_ADMIN_TOKEN is not set"));
        assert!(refused(Role::Control, &[URL, TOKEN]).contains("POSTRIDER_MASTER_KEY is not set"));
    }

    #[test]
    fn roles_need_no_more_than_they_use() {
        let names = |role, pairs: &[(&str, &str)]| Plan::of(&settings(pairs), role).unwrap().0.names();
        assert_eq!(names(Role::Router, &[URL]), ["router"]);
        assert_eq!(names(Role::Worker, &[URL, KEY]), ["worker"]);
        assert_eq!(names(Role::Control, &[URL, KEY, TOKEN]), ["control"]);
        let unused = [URL, ("MASTER_KEY_FILE", "/does/not/exist"), ("ADMIN_TOKEN_FILE", "/does/not/exist")];
        assert_eq!(names(Role::Router, &unused), ["router"]);
    }

    #[test]
    fn all_of_them_make_what_is_missing_and_keep_it() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let settings = settings(&[URL, ("STATE_DIR", state.to_str().unwrap())]);
        let (plan, notes) = Plan::of(&settings, Role::All).unwrap();
        assert!(notes.iter().all(|note| note.contains("was made")), "{notes:?}");
        assert_eq!(plan.names(), ["router", "worker", "control"]);
        assert_eq!(plan.mode, Mode::Apply);
        let (again, notes) = Plan::of(&settings, Role::All).unwrap();
        assert!(notes.iter().all(|note| !note.contains("was made")), "{notes:?}");
        let key = |plan: Plan| plan.control.unwrap().master_key.fingerprint();
        assert_eq!(key(plan), key(again));
    }

    #[test]
    fn only_all_of_them_apply_the_topology_unasked() {
        let mode = |pairs: &[(&str, &str)]| Plan::of(&settings(pairs), Role::Router).unwrap().0.mode;
        assert_eq!(mode(&[URL]), Mode::Check);
        assert_eq!(mode(&[URL, ("TOPOLOGY", "apply")]), Mode::Apply);
    }
}
