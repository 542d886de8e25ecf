//! The roles as processes of this same program, as an operator would run them.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::process::{Child, Command};
use tokio::time::Instant;
use url::Url;

use super::patience::reach;
use super::place::Place;
use super::plan::{Kind, Plan};
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
    roles: BTreeMap<&'static str, Role>,
}

#[derive(Debug)]
struct Role {
    child: Child,
    health: SocketAddr,
}

impl System {
    /// The roles at a place, none of which runs yet.
    pub(super) fn at(place: &Place) -> Result<Self, Failure> {
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
            roles: BTreeMap::new(),
        })
    }

    /// Starts a role. It is not ready at once.
    pub(super) fn begin(&mut self, role: &'static str) -> Result<(), Failure> {
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
        self.roles.insert(role, Role { child, health });
        Ok(())
    }

    /// Waits until a role is ready.
    pub(super) async fn ready(&mut self, role: &'static str) -> Result<(), Failure> {
        let begun = Instant::now();
        loop {
            self.check()?;
            let why = match self.ask(role, "readyz").await {
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

    /// Stops a role in order.
    pub(super) async fn stop(&mut self, role: &'static str) -> Result<(), Failure> {
        let Some(Role { mut child, health: _ }) = self.roles.remove(role) else { return Ok(()) };
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

    /// The process of a role.
    pub(super) fn pid(&self, role: &str) -> Option<u32> {
        self.roles.get(role)?.child.id()
    }

    /// Whether every role still runs.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        let mut ended = None;
        for (name, role) in &mut self.roles {
            if let Ok(Some(status)) = role.child.try_wait() {
                ended = Some((*name, status));
            }
        }
        let Some((name, status)) = ended else { return Ok(()) };
        self.show_log(name);
        Err(Failure::new(Exit::Other, format!("{name} has ended"), status)
            .next("its last lines are above; postrider serve shows whether it can run with these settings"))
    }

    /// The value of a metric of a role; nothing while the role does not answer.
    pub(super) async fn metric(&mut self, role: &'static str, name: &str) -> Result<Option<f64>, Failure> {
        self.check()?;
        let Ok(response) = self.ask(role, "metrics").await else { return Ok(None) };
        Ok(read_body(response).await.ok().and_then(|text| value_of(&text, name)))
    }

    /// The sum of metrics that count; 0 while the role does not answer.
    pub(super) async fn counters(&mut self, role: &'static str, names: &[&str]) -> Result<u64, Failure> {
        self.check()?;
        let Ok(response) = self.ask(role, "metrics").await else { return Ok(0) };
        let text = read_body(response).await.unwrap_or_default();
        Ok(names.iter().filter_map(|name| value_of(&text, name)).sum::<f64>() as u64)
    }

    /// Makes every webhook that a plan needs, and waits until the router knows them.
    pub(super) async fn prepare(&mut self, plan: &Plan, sink: &Sink) -> Result<(), Failure> {
        let mut webhooks = Vec::new();
        for workload in &plan.workloads {
            let (groups, fan_out) = workload.webhooks();
            let burst = workload.kind == Kind::Burst;
            for (group, n) in (0..groups).flat_map(|group| (0..fan_out).map(move |n| (group, n))) {
                let name = format!("{}-{group}-{n}", workload.name);
                let mut webhook = json!({
                    "name": name,
                    "url": sink.url(&name),
                    "subscription": { "event_types": [workload.event_type(group)] },
                    "max_in_flight": IN_FLIGHT,
                });
                if burst {
                    let retry_ms = u64::try_from(plan.retry.as_millis()).unwrap_or(u64::MAX);
                    webhook["retry"] = json!({ "initial_ms": retry_ms, "jitter": 0.0 });
                }
                webhooks.push(webhook.to_string());
            }
        }
        let api = &self.api;
        stream::iter(webhooks)
            .map(|webhook| api.post("cannot make a webhook", &["webhooks"], Some(webhook)))
            .buffer_unordered(AT_ONCE)
            .try_for_each(|_| async { Ok(()) })
            .await?;
        // An event over HTTP waits until the router knows what control knew; the measured ones, over AMQP, do not.
        let event = json!({ "event_type": "bench.nobody" }).to_string();
        api.post("cannot send an event", &["events"], Some(event)).await?;
        let unmatched = "postrider_events_total{fate=\"unmatched\"}";
        reach("events that nobody takes", 1, LOOK, async || self.counters("router", &[unmatched]).await).await
    }

    async fn ask(&self, role: &str, path: &str) -> Result<reqwest::Response, reqwest::Error> {
        let health =
            self.roles.get(role).map_or_else(|| SocketAddr::from(([127, 0, 0, 1], 9)), |role| role.health);
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
