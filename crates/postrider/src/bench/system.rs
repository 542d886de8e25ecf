//! The roles as processes of this same program, as an operator would run them.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::json;
use tokio::process::{Child, Command};
use tokio::time::Instant;
use url::Url;

use super::patience::reach;
use super::place::Place;
use super::plan::{Kind, Workload};
use super::sink::Sink;
use crate::api::{Api, read_body};
use crate::exit::{Exit, Failure, cause};
use crate::output;
use crate::settings::{Secret, new_master_key, new_token};

/// How long a role may take until it is ready.
const STARTING: Duration = Duration::from_secs(60);
/// How long a role may take to stop.
const STOPPING: Duration = Duration::from_secs(90);
/// How often is looked whether it does either.
const LOOK: Duration = Duration::from_millis(10);
/// Webhooks that are made at the same time.
const AT_ONCE: usize = 8;
/// Most requests in flight to one webhook: the receiver is to be the limit, and not this.
const IN_FLIGHT: u32 = 256;
/// Lines of a role's log that are shown when it fails.
const LAST_LINES: usize = 20;
/// Above the range from which systems take ports for outgoing connections.
const PORTS: std::ops::Range<u16> = 61_000..65_500;

/// The roles of one installation.
#[derive(Debug)]
pub(super) struct System {
    program: PathBuf,
    dir: PathBuf,
    environment: Vec<(&'static str, String)>,
    api: Api,
    http: reqwest::Client,
    fleet: Fleet,
    roles: BTreeMap<&'static str, Vec<Role>>,
}

/// How many processes of which role there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fleet {
    /// Workers.
    pub(super) workers: u32,
    /// Routers, of which one is active.
    pub(super) routers: u32,
    /// Whether each of them is kept on one core, in turn.
    pub(super) pinned: bool,
}

impl Fleet {
    fn of(self, role: &str) -> u32 {
        match role {
            "worker" => self.workers,
            "router" => self.routers,
            _ => 1,
        }
    }
}

#[derive(Debug)]
struct Role {
    child: Child,
    health: SocketAddr,
}

impl System {
    /// The roles at a place, none of which runs yet.
    pub(super) fn at(place: &Place, fleet: Fleet) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::new(Exit::Other, "cannot start the roles", error);
        let program = std::env::current_exe().map_err(failed)?;
        let listen = free_address()?;
        let base: Url = format!("http://{listen}")
            .parse()
            .map_err(|error: url::ParseError| Failure::new(Exit::Other, "cannot name the API", error))?;
        let (token, key) = (new_token(), new_master_key());
        let settings = place.settings();
        let text = |secret: &Secret| secret.reveal().to_owned();
        let environment = vec![
            ("POSTRIDER_AMQP_URL", text(&place.url)),
            ("POSTRIDER_PREFIX", place.prefix().to_owned()),
            ("POSTRIDER_DELAY_UNIT_MS", settings.broker.delay_unit_ms.to_string()),
            ("POSTRIDER_CONCURRENCY", settings.worker.concurrency.to_string()),
            ("POSTRIDER_SLOW_CONCURRENCY", settings.worker.slow_concurrency.to_string()),
            ("POSTRIDER_STORE_URL", format!("sqlite:{}", place.dir().join("postrider.db").display())),
            ("POSTRIDER_STATE_DIR", place.dir().display().to_string()),
            ("POSTRIDER_ADMIN_TOKEN", text(&token)),
            ("POSTRIDER_MASTER_KEY", text(&key)),
            ("POSTRIDER_LISTEN", listen.to_string()),
            ("POSTRIDER_EGRESS_ALLOW", "127.0.0.0/8".to_owned()),
        ];
        Ok(Self {
            program,
            dir: place.dir().to_path_buf(),
            environment,
            http: crate::api::http_client(&base)?,
            api: Api::new(base, token)?,
            fleet,
            roles: BTreeMap::new(),
        })
    }

    /// Starts a role, all processes of it. They are not ready at once.
    pub(super) fn begin(&mut self, role: &'static str) -> Result<(), Failure> {
        let processes: Result<Vec<Role>, Failure> =
            (0..self.fleet.of(role)).map(|n| self.spawn(role, n)).collect();
        self.roles.insert(role, processes?);
        Ok(())
    }

    fn spawn(&self, role: &'static str, n: u32) -> Result<Role, Failure> {
        let failed = |error| Failure::new(Exit::Other, format!("cannot start {role}"), error);
        let health = free_address()?;
        let log = File::options().create(true).append(true).open(self.log(role)).map_err(failed)?;
        let child = Command::new(&self.program)
            .args(["serve", role])
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (*name, value)))
            .env("POSTRIDER_METRICS_LISTEN", health.to_string())
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        // What it starts itself stays there, too: it has not got so far yet.
        if self.fleet.pinned && role != "control" {
            pin(child.id(), n).map_err(|error| failed(error.into()))?;
        }
        Ok(Role { child, health })
    }

    /// Waits until all processes of a role are ready.
    pub(super) async fn ready(&mut self, role: &'static str) -> Result<(), Failure> {
        let begun = Instant::now();
        for health in self.health(role) {
            self.one_ready(role, health, begun).await?;
        }
        Ok(())
    }

    async fn one_ready(
        &mut self,
        role: &'static str,
        health: SocketAddr,
        begun: Instant,
    ) -> Result<(), Failure> {
        loop {
            self.check()?;
            let why = match self.ask(health, "readyz").await {
                Ok(response) if response.status().is_success() => return Ok(()),
                Ok(response) => read_body(response).await.unwrap_or_else(|why| why),
                Err(error) => cause(&error),
            };
            if begun.elapsed() > STARTING {
                self.show_log(role);
                let what = format!("{role} is not ready after {} s", STARTING.as_secs());
                return Err(Failure::new(Exit::TimedOut, what, why));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Stops a role in order, all processes of it.
    pub(super) async fn stop(&mut self, role: &'static str) -> Result<(), Failure> {
        for process in self.roles.remove(role).unwrap_or_default() {
            self.stop_one(role, process).await?;
        }
        Ok(())
    }

    async fn stop_one(&self, role: &'static str, process: Role) -> Result<(), Failure> {
        let mut child = process.child;
        let pid = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        if let Some(pid) = pid {
            kill_process(pid, Signal::TERM)
                .map_err(|error| Failure::new(Exit::Other, format!("cannot stop {role}"), error))?;
        }
        match tokio::time::timeout(STOPPING, child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => {
                self.show_log(role);
                Err(Failure::new(Exit::Other, format!("{role} did not stop in order"), status))
            }
            Ok(Err(error)) => Err(Failure::new(Exit::Other, format!("cannot stop {role}"), error)),
            Err(_) => {
                self.show_log(role);
                let why = format!("it had {} s", STOPPING.as_secs());
                Err(Failure::new(Exit::TimedOut, format!("{role} does not stop"), why))
            }
        }
    }

    /// The processes of a role.
    pub(super) fn pids(&self, role: &str) -> Vec<u32> {
        self.roles.get(role).into_iter().flatten().filter_map(|process| process.child.id()).collect()
    }

    /// Whether every role still runs.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        let mut ended = None;
        for (name, processes) in &mut self.roles {
            for process in processes {
                if let Ok(Some(status)) = process.child.try_wait() {
                    ended = Some((*name, status));
                }
            }
        }
        let Some((name, status)) = ended else { return Ok(()) };
        self.show_log(name);
        Err(Failure::new(Exit::Other, format!("{name} has ended"), status)
            .next("its last lines are above; postrider serve shows whether it can run with these settings"))
    }

    /// The value of a metric of a role with one process; nothing while it does not answer.
    pub(super) async fn metric(&mut self, role: &'static str, name: &str) -> Result<Option<f64>, Failure> {
        self.check()?;
        let Some(health) = self.health(role).first().copied() else { return Ok(None) };
        let Ok(response) = self.ask(health, "metrics").await else { return Ok(None) };
        Ok(read_body(response).await.ok().and_then(|text| value_of(&text, name)))
    }

    /// The sum of metrics that count, over all processes of a role; 0 for those that do not answer.
    pub(super) async fn counters(&mut self, role: &'static str, names: &[&str]) -> Result<u64, Failure> {
        self.check()?;
        let mut sum = 0.0;
        for health in self.health(role) {
            let Ok(response) = self.ask(health, "metrics").await else { continue };
            let text = read_body(response).await.unwrap_or_default();
            sum += names.iter().filter_map(|name| value_of(&text, name)).sum::<f64>();
        }
        Ok(sum as u64)
    }

    /// Makes every webhook that a workload needs, and waits until the router knows them.
    pub(super) async fn prepare(
        &mut self,
        workload: &Workload,
        retry: Duration,
        sink: &Sink,
    ) -> Result<(), Failure> {
        let (groups, fan_out) = workload.webhooks();
        let each = (0..groups).flat_map(|group| (0..fan_out).map(move |n| (group, n)));
        let webhook = |(group, n): (u32, u32)| {
            let name = format!("{}-{group}-{n}", workload.name);
            let mut webhook = json!({
                "name": name,
                "tenant": workload.tenant(group),
                "url": sink.url(&name),
                "subscription": { "event_types": [workload.event_type(group)] },
                "max_in_flight": IN_FLIGHT,
            });
            if workload.kind == Kind::Burst {
                let retry_ms = u64::try_from(retry.as_millis()).unwrap_or(u64::MAX);
                webhook["retry"] = json!({ "initial_ms": retry_ms, "jitter": 0.0 });
            }
            webhook.to_string()
        };
        for group in (0..workload.tenants).filter(|_| workload.tenants > 1) {
            let tenant = json!({ "id": workload.tenant(group) }).to_string();
            self.api.post("cannot make a tenant", &["tenants"], Some(tenant)).await?;
        }
        let unmatched = "postrider_events_total{fate=\"unmatched\"}";
        let before = self.counters("router", &[unmatched]).await?;
        let api = &self.api;
        stream::iter(each.map(webhook))
            .map(|webhook| api.post("cannot make a webhook", &["webhooks"], Some(webhook)))
            .buffer_unordered(AT_ONCE)
            .try_for_each(|_| async { Ok(()) })
            .await?;
        // An event over HTTP waits until the router knows what control knew; the measured ones, over AMQP, do not.
        let event = json!({ "event_type": "bench.nobody" }).to_string();
        api.post("cannot send an event", &["events"], Some(event)).await?;
        reach("events that nobody takes", before + 1, LOOK, async || {
            self.counters("router", &[unmatched]).await
        })
        .await
    }

    fn health(&self, role: &str) -> Vec<SocketAddr> {
        self.roles.get(role).into_iter().flatten().map(|process| process.health).collect()
    }

    async fn ask(&self, health: SocketAddr, path: &str) -> Result<reqwest::Response, reqwest::Error> {
        self.http.get(format!("http://{health}/{path}")).send().await
    }

    fn log(&self, role: &str) -> PathBuf {
        self.dir.join(format!("{role}.log"))
    }

    /// Shows the end of a role's log, which is removed with everything else.
    fn show_log(&self, role: &str) {
        let log = std::fs::read(self.log(role)).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        for line in &lines[lines.len().saturating_sub(LAST_LINES)..] {
            output::note(&format!("{role}: {}", crate::table::printable(line)));
        }
    }
}

/// Keeps a process on the core of a number, in turn.
fn pin(pid: Option<u32>, n: u32) -> rustix::io::Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut set = CpuSet::new();
    set.set(n as usize % cores);
    let pid = pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    sched_setaffinity(pid, &set)
}

/// The value of a metric, with its labels, in the text of `/metrics`.
fn value_of(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// A loopback address on which nothing listens.
fn free_address() -> Result<SocketAddr, Failure> {
    const TRIES: u32 = 1_000;
    (0..TRIES)
        .map(|_| SocketAddr::from(([127, 0, 0, 1], rand::random_range(PORTS))))
        .find(|address| TcpListener::bind(address).is_ok())
        .ok_or_else(|| {
            let why = format!("none was free between {} and {} in {TRIES} tries", PORTS.start, PORTS.end);
            Failure::new(Exit::Other, "cannot find a port for a role", why)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_found_by_their_whole_name() {
        let text = "# HELP a_total x\na_total{k=\"x\"} 1\na_total{k=\"xy\"} 2\na 3.5\n";
        assert_eq!(value_of(text, "a_total{k=\"x\"}"), Some(1.0));
        assert_eq!(value_of(text, "a"), Some(3.5));
        assert_eq!(value_of(text, "a_total"), None);
    }
}
