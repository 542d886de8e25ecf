//! One installation that is hurt on purpose: real roles behind proxies, a publisher and a receiver with ledgers, and a
//! judgement at the end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use postrider_core::verify::{Faults, Run};
use postrider_testkit::chaos::Proxy;
use postrider_testkit::ledger::Published;
use postrider_testkit::load::{Load, Loading};
use postrider_testkit::process::{Postrider, Start, free_port};
use postrider_testkit::rabbit::{Broker, Node, Vhost};
use postrider_testkit::{Receiver, eventually, patience, within};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::judge;
use crate::machine::Disk;
use crate::report::{self, Row};

pub(crate) const TOKEN: &str = "chaos-admin-token-of-more-than-32-characters";
pub(crate) const MASTER_KEY: &str = "cG9zdHJpZGVyIHRlc3Qga2V5IG9mIDMyIGJ5dGVzISE=";

/// Everything must work again so soon after a fault's end.
const MOST_RECOVERY: Duration = Duration::from_secs(30);

const PUBLISHED: &str = "published.jsonl";
const RECEIVED: &str = "received.jsonl";

/// The roles, in the order of the report's columns.
pub(crate) const ROLES: [&str; 3] = ["router", "worker", "control"];

/// An installation.
pub(crate) struct Rig {
    row: Row,
    begun: Instant,
    remarks: Vec<String>,
    pub(crate) vhost: Vhost,
    /// The broker, where this rig has one of its own.
    node: Option<Node>,
    /// The lines from the roles to the broker.
    pub(crate) lines: BTreeMap<&'static str, Proxy>,
    /// Where receivers are told to be, if not at the receiver's own address.
    pub(crate) receiver_at: Option<String>,
    pub(crate) receiver: Receiver,
    home: TempDir,
    store: Option<PathBuf>,
    api: String,
    client: reqwest::Client,
    more: Vec<(String, String)>,
    roles: BTreeMap<String, Role>,
    processes: Arc<Mutex<Vec<(usize, u32)>>>,
    peaks: Arc<Mutex<[u64; 3]>>,
    ledger: Published,
    loads: Vec<Loading>,
    verdict: Option<String>,
    heartbeat: Option<&'static str>,
    user: Option<(String, String)>,
    /// The length of a text in each event.
    pub(crate) text_bytes: usize,
}

/// A role's process.
pub(crate) struct Role {
    pub(crate) process: Postrider,
    pub(crate) health: String,
}

impl Rig {
    /// On the broker that the tests share: for faults that do not hurt it.
    pub(crate) async fn shared(id: &str, fault: &str) -> Self {
        let broker = Broker::shared().await;
        Self::on(id, fault, &broker, None).await
    }

    /// With a broker of its own; nothing where the tester's is the only one.
    pub(crate) async fn own(id: &str, fault: &str) -> Option<Self> {
        let node = Node::start().await?;
        let broker = node.broker().clone();
        Some(Self::on(id, fault, &broker, Some(node)).await)
    }

    /// With this broker.
    pub(crate) async fn with(id: &str, fault: &str, node: Node) -> Self {
        let broker = node.broker().clone();
        Self::on(id, fault, &broker, Some(node)).await
    }

    async fn on(id: &str, fault: &str, broker: &Broker, node: Option<Node>) -> Self {
        postrider_testkit::logging();
        let vhost = Vhost::create(broker, &format!("chaos-{id}")).await;
        let mut lines = BTreeMap::new();
        for role in ROLES {
            lines.insert(role, Proxy::start(broker.amqp_address()).await);
        }
        let home = tempfile::Builder::new().prefix("chaos-").tempdir().unwrap();
        let receiver = Receiver::start().await.with_ledger(home.path().join(RECEIVED));
        let ledger = Published::open(home.path().join(PUBLISHED));
        let rig = Self {
            row: Row { id: id.into(), fault: fault.into(), ..Row::default() },
            begun: Instant::now(),
            remarks: Vec::new(),
            vhost,
            node,
            lines,
            receiver_at: None,
            receiver,
            home,
            store: None,
            api: format!("127.0.0.1:{}", free_port()),
            client: postrider_testkit::http::client(),
            more: Vec::new(),
            roles: BTreeMap::new(),
            processes: Arc::default(),
            peaks: Arc::default(),
            ledger,
            loads: Vec::new(),
            verdict: None,
            heartbeat: None,
            user: None,
            text_bytes: 300,
        };
        tokio::spawn(watch_memory(Arc::downgrade(&rig.processes), Arc::clone(&rig.peaks)));
        rig
    }

    /// Its broker's node.
    pub(crate) fn node(&self) -> &Node {
        self.node.as_ref().unwrap()
    }

    /// Sets a variable of every role that is started from now on.
    pub(crate) fn env(&mut self, name: &str, value: impl ToString) {
        self.more.retain(|(other, _)| other != name);
        self.more.push((name.to_owned(), value.to_string()));
    }

    /// Has the roles that are started from now on agree on this heartbeat with the broker.
    pub(crate) fn heartbeat(&mut self, seconds: &'static str) {
        self.heartbeat = Some(seconds);
    }

    /// Puts the store somewhere else.
    pub(crate) fn store_in(&mut self, directory: PathBuf) {
        self.store = Some(directory);
    }

    /// The store's file.
    pub(crate) fn store_path(&self) -> PathBuf {
        self.store.clone().unwrap_or_else(|| self.home.path().to_owned()).join("postrider.db")
    }

    /// Says something in the report.
    pub(crate) fn remark(&mut self, what: impl Into<String>) {
        self.remarks.push(what.into());
    }

    /// How a role is started. `name` is the role's, with a number for a second one: `worker`, `worker2`.
    pub(crate) fn plan(&self, name: &str) -> (Start, String) {
        let role = role_of(name);
        let mut url = self.vhost.url_through(self.lines[role].addr());
        if let Some((user, password)) = &self.user {
            let mut parsed = reqwest::Url::parse(&url).unwrap();
            parsed.set_username(user).unwrap();
            parsed.set_password(Some(password)).unwrap();
            url = parsed.into();
        }
        if let Some(seconds) = self.heartbeat {
            url = format!("{url}?heartbeat={seconds}");
        }
        let health = format!("127.0.0.1:{}", free_port());
        let store = format!("sqlite:{}", self.store_path().display());
        let mut start = Postrider::with(["serve", role]).envs([
            ("POSTRIDER_AMQP_URL", url.as_str()),
            ("POSTRIDER_METRICS_LISTEN", &health),
            ("POSTRIDER_DELAY_UNIT_MS", "50"),
            ("POSTRIDER_TOPOLOGY", "apply"),
            ("POSTRIDER_ADMIN_TOKEN", TOKEN),
            ("POSTRIDER_MASTER_KEY", MASTER_KEY),
            ("POSTRIDER_STORE_URL", &store),
            ("POSTRIDER_LISTEN", &self.api),
            ("POSTRIDER_EGRESS_ALLOW", "127.0.0.0/8,10.98.0.0/15"),
            ("POSTRIDER_LOG", "info,postrider_worker=warn"),
        ]);
        for (name, value) in &self.more {
            start = start.env(name, value);
        }
        (start, health)
    }

    /// Starts a role.
    pub(crate) fn start(&mut self, name: &str) {
        self.start_with(name, |start| start);
    }

    /// Starts a role otherwise than usual.
    pub(crate) fn start_with(&mut self, name: &str, change: impl FnOnce(Start) -> Start) {
        let (start, health) = self.plan(name);
        let process = change(start).start();
        let column = ROLES.iter().position(|role| *role == role_of(name)).unwrap();
        self.processes.lock().unwrap().push((column, process.pid()));
        self.roles.insert(name.to_owned(), Role { process, health });
    }

    /// Control, router and worker, ready.
    pub(crate) async fn start_all(&mut self) {
        for name in ["control", "router", "worker"] {
            self.start(name);
        }
        self.all_ready().await;
    }

    /// Waits until every role is ready.
    pub(crate) async fn all_ready(&self) {
        for role in self.roles.values() {
            role.process.wait_ready(&role.health).await;
        }
    }

    /// A role that runs.
    pub(crate) fn role(&self, name: &str) -> &Role {
        &self.roles[name]
    }

    /// Waits until a role is ready.
    pub(crate) async fn ready(&self, name: &str) {
        let role = self.role(name);
        role.process.wait_ready(&role.health).await;
    }

    /// `/readyz` of a role: the status, or 0 when it does not answer.
    pub(crate) async fn readyz(&self, name: &str) -> u16 {
        self.probe(name, "readyz").await
    }

    async fn probe(&self, name: &str, what: &str) -> u16 {
        let url = format!("http://{}/{what}", self.role(name).health);
        let asked = self.client.get(url).timeout(Duration::from_secs(2)).send().await;
        asked.map_or(0, |answer| answer.status().as_u16())
    }

    /// `/livez` of a role: the status, or 0 when it does not answer.
    pub(crate) async fn livez(&self, name: &str) -> u16 {
        self.probe(name, "livez").await
    }

    /// Waits until router and worker know the configuration as it is now.
    pub(crate) async fn configured(&self) {
        let (_, status) = self.call(Method::GET, "/v1/status", None).await;
        let wanted = status["revision"].as_u64().unwrap();
        for name in ["router", "worker"] {
            let url = format!("http://{}/metrics", self.role(name).health);
            eventually("it knows the newest configuration", async || {
                let Ok(shown) = self.client.get(&url).send().await else { return false };
                let shown = shown.text().await.unwrap_or_default();
                let line = shown.lines().find(|line| line.starts_with("postrider_configuration_revision"));
                line.and_then(|line| line.rsplit(' ').next()?.parse().ok()) >= Some(wanted)
            })
            .await;
        }
    }

    /// Runs an operator's command that must succeed.
    pub(crate) async fn command(&self, args: &[&str]) {
        let url = self.vhost.url();
        let output = postrider_testkit::process::run(
            args,
            [("POSTRIDER_AMQP_URL", url.as_str()), ("POSTRIDER_DELAY_UNIT_MS", "50")],
        );
        let output = output.await;
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Connections of the roles to the broker that are open now.
    pub(crate) fn connections(&self) -> usize {
        self.lines.values().map(Proxy::connections).sum()
    }

    /// Connections of the roles to the broker since the start.
    pub(crate) fn accepted(&self) -> usize {
        self.lines.values().map(Proxy::accepted).sum()
    }

    /// Cuts the roles' connections once.
    pub(crate) async fn close_role_connections(&self) {
        for line in self.lines.values() {
            line.cut().await;
            line.restore().await;
        }
    }

    /// Has the roles log in as a user of their own.
    pub(crate) async fn user(&mut self, name: &str, password: &str) {
        let broker = self.vhost.broker();
        let user = json!({ "password": password, "tags": "" });
        broker.manage(Method::PUT, &format!("users/{name}"), Some(user)).await.unwrap();
        let all = json!({ "configure": ".*", "write": ".*", "read": ".*" });
        let path = format!("permissions/{}/{name}", self.vhost.name());
        broker.manage(Method::PUT, &path, Some(all)).await.unwrap();
        self.user = Some((name.to_owned(), password.to_owned()));
    }

    /// SIGKILL, and its end.
    pub(crate) async fn kill(&mut self, name: &str) {
        let role = self.roles.remove(name).unwrap();
        measure(&self.processes, &self.peaks);
        role.process.kill();
        role.process.wait_exit(Duration::from_secs(10)).await;
    }

    /// SIGTERM, and a clean end; how long it took.
    pub(crate) async fn stop(&mut self, name: &str) -> Duration {
        let role = self.roles.remove(name).unwrap();
        measure(&self.processes, &self.peaks);
        let begun = Instant::now();
        role.process.terminate();
        let status = role.process.wait_exit(Duration::from_secs(75)).await;
        assert!(status.success(), "{name} ended with {status}: {}", role.process.log());
        begun.elapsed()
    }

    /// Calls the API.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> (StatusCode, Value) {
        match self.try_call(method, path, body).await {
            Ok(answer) => answer,
            Err(error) => panic!("{path}: {error}"),
        }
    }

    /// The same where it may be down.
    pub(crate) async fn try_call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> reqwest::Result<(StatusCode, Value)> {
        let mut request =
            self.client.request(method, format!("http://{}{path}", self.api)).bearer_auth(TOKEN);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.timeout(Duration::from_secs(20)).send().await?;
        let status = answer.status();
        Ok((status, answer.json().await.unwrap_or(Value::Null)))
    }

    /// Creates a webhook that takes everything and retries quickly, and returns its id and secret.
    pub(crate) async fn webhook(&self, path: &str, more: Value) -> (String, String) {
        let url = match &self.receiver_at {
            Some(base) => format!("{base}{path}"),
            None => self.receiver.url(path),
        };
        self.webhook_at(&url, more).await
    }

    /// The same to any URL.
    pub(crate) async fn webhook_at(&self, url: &str, more: Value) -> (String, String) {
        let mut webhook = json!({
            "name": url, "url": url, "subscription": { "all": true }, "timeout_ms": 2000,
            "retry": { "initial_ms": 200, "factor": 1.5, "max_interval_ms": 2000, "jitter": 0.1, "max_attempts": 40 },
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            webhook[name] = value.clone();
        }
        let (status, created) = self.call(Method::POST, "/v1/webhooks", Some(&webhook)).await;
        assert!(status.is_success(), "creating a webhook: {status} {created}");
        (created["id"].as_str().unwrap().to_owned(), created["secret"].as_str().unwrap().to_owned())
    }

    /// Publishes so many events beside what follows, so many each second, straight to the broker.
    pub(crate) fn publish(&mut self, events: u64, per_second: f64) {
        let text = "x".repeat(self.text_bytes);
        let number = self.loads.len();
        let body = move |n| json!({ "event_type": "USER_CREATED", "data": { "load": number, "n": n, "text": text } });
        let load = Load::new(self.vhost.url(), events).ids(format!("load{number}")).ledger(&self.ledger);
        // Every other load is published in arrays, and the first.
        let per_message = if number.is_multiple_of(2) { 7 } else { 1 };
        let load = load.per_second(per_second).per_message(per_message).body(body);
        self.loads.push(load.start());
    }

    /// Events that the broker has confirmed so far.
    pub(crate) fn confirmed(&self) -> u64 {
        self.loads.iter().map(Loading::confirmed).sum()
    }

    /// Publishes so many more events, unless as many are still to come: on a slow machine a load may be over already.
    fn keep_publishing(&mut self, events: u64) {
        let all: u64 = self.loads.iter().map(Loading::events).sum();
        if all - self.confirmed() < events {
            self.publish(events, 100.0);
        }
    }

    /// Waits until so many more requests came than now.
    pub(crate) async fn more_requests(&mut self, more: usize) {
        self.keep_publishing(more as u64);
        let wanted = self.receiver.count() + more;
        let came = within(2 * patience(), async || (self.receiver.count() >= wanted).then_some(())).await;
        assert!(came.is_some(), "{} of {wanted} requests came", self.receiver.count());
    }

    /// The fault is over: waits for the next delivery, and keeps how long it took.
    pub(crate) async fn recovers(&mut self) -> Duration {
        self.recovers_since(SystemTime::now()).await
    }

    /// The same for a fault that ended a while ago.
    pub(crate) async fn recovers_since(&mut self, end: SystemTime) -> Duration {
        let before = self.receiver.count();
        self.keep_publishing(5);
        let came = within(4 * MOST_RECOVERY, async || {
            self.receiver
                .requests_from(before.saturating_sub(50))
                .into_iter()
                .find_map(|request| request.received_at.duration_since(end).ok())
        });
        let Some(took) = came.await else {
            panic!("nothing is delivered for {:?} after the end of the fault", 4 * MOST_RECOVERY)
        };
        let longest = self.row.recovery_s.unwrap_or_default().max(took.as_secs_f64());
        self.row.recovery_s = Some(longest);
        took
    }

    /// Waits until everything is published and has ended and the books balance at rest.
    pub(crate) async fn at_rest(&self) -> Value {
        self.at_rest_within(6 * patience()).await
    }

    /// The same where it may take longer.
    pub(crate) async fn at_rest_within(&self, limit: Duration) -> Value {
        for load in &self.loads {
            load.reached(load.events()).await;
        }
        let mut last = Value::Null;
        let rest = within(limit, async || {
            last = self.try_call(Method::GET, "/v1/status", None).await.ok()?.1;
            let done = last["deliveries"]["pending"] == last["deliveries"]["held"]
                && last["events"]["waiting"] == 0
                && last["events"]["accepted"].as_u64() >= Some(self.confirmed());
            (done && last["drift"] == 0 && last["at_rest"] == true).then_some(())
        });
        assert!(rest.await.is_some(), "drift 0 at rest was not reached: {last:#}");
        last
    }

    /// The longest time from the confirm of an event of the first load to its first request at a path.
    pub(crate) fn lateness(&self, path: &str) -> Duration {
        let most = self.latenesses(path, 0).into_iter().max().unwrap_or_default();
        Duration::from_millis(u64::try_from(most).unwrap_or_default())
    }

    /// The time from the confirm of each event of a load to its first request at a path, milliseconds.
    pub(crate) fn latenesses(&self, path: &str, load: usize) -> Vec<i64> {
        let confirmed: BTreeMap<String, i64> = Published::read(&self.home.path().join(PUBLISHED))
            .into_iter()
            .map(|line| (line.id, line.at.as_millis()))
            .collect();
        let mut first: BTreeMap<String, i64> = BTreeMap::new();
        for request in self.receiver.requests_to(path) {
            let at = request.received_at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
            let at = i64::try_from(at).unwrap();
            let data = &request.json()["data"];
            if data["load"] == load {
                let kept = first.entry(format!("load{load}-{}", data["n"])).or_insert(at);
                *kept = at.min(*kept);
            }
        }
        first.iter().filter_map(|(id, at)| Some(at - confirmed.get(id)?)).collect()
    }

    /// Waits until so many deliveries are in the books as delivered, however far away the broker is.
    pub(crate) async fn delivered(&self, wanted: u64) {
        let mut last = Value::Null;
        let done = within(6 * patience(), async || {
            last = self.try_call(Method::GET, "/v1/status", None).await.ok()?.1;
            (last["deliveries"]["delivered"].as_u64() >= Some(wanted)).then_some(())
        });
        assert!(done.await.is_some(), "{wanted} deliveries were not reached: {last:#}");
    }

    /// Waits until so many events are confirmed.
    pub(crate) async fn until_confirmed(&self, events: u64) {
        self.loads[0].reached(events).await;
    }

    /// Waits for rest, ends all roles in good order, judges, and writes the row. Everything that is judged must hold.
    pub(crate) async fn finish(self, faults: Faults) {
        self.finish_with(faults, Run::at_rest).await;
    }

    /// The same with more that the judge should know.
    pub(crate) async fn finish_with(mut self, faults: Faults, more: impl FnOnce(&mut Run)) {
        let status = self.at_rest().await;
        let names: Vec<String> = self.roles.keys().cloned().collect();
        for name in names {
            self.stop(&name).await;
        }
        self.judge(&status, faults, more).await;
        self.report();
    }

    /// The same with a broker or a store on this disk, which outlives them.
    pub(crate) async fn finish_with_disk(self, faults: Faults, disk: Disk) {
        self.finish(faults).await;
        drop(disk);
    }

    /// Judges what there is now, at rest.
    pub(crate) async fn judge(&mut self, status: &Value, faults: Faults, more: impl FnOnce(&mut Run)) {
        let ledgers = [PUBLISHED, RECEIVED].map(|name| self.home.path().join(name));
        let verdict = judge::judge(&ledgers, &self.store_path(), faults, more).await;
        let row = &mut self.row;
        row.accepted = verdict.accepted;
        row.pairs = verdict.n;
        row.lost = verdict.lost;
        row.duplicated = verdict.duplicated;
        row.bound = verdict.most_duplicated;
        row.bound_percent = verdict.bound_percent;
        row.drift = status["drift"].as_u64().unwrap_or(u64::MAX).max(verdict.drift);
        row.violations = judge::words(&verdict);
        self.verdict = Some(verdict.to_string());
    }

    /// Writes the row; everything that was judged must have held.
    pub(crate) fn report(mut self) {
        measure(&self.processes, &self.peaks);
        let row = &mut self.row;
        row.peak_mib = self.peaks.lock().unwrap().map(|kibibytes| kibibytes.div_ceil(1024));
        row.took_s = self.begun.elapsed().as_secs();
        row.remarks = self.remarks.join("; ");
        report::row(row);
        assert!(row.violations.is_empty(), "{}", self.verdict.unwrap_or_default());
        let recovery = Duration::from_secs_f64(row.recovery_s.unwrap_or_default());
        assert!(recovery <= MOST_RECOVERY, "recovered after {recovery:?}");
    }
}

fn role_of(name: &str) -> &'static str {
    let found = ROLES.iter().find(|role| name.starts_with(*role));
    found.unwrap_or_else(|| panic!("{name} is no role"))
}

/// Looks at the peak of every process while there is a rig.
async fn watch_memory(processes: std::sync::Weak<Mutex<Vec<(usize, u32)>>>, peaks: Arc<Mutex<[u64; 3]>>) {
    while let Some(processes) = processes.upgrade() {
        measure(&processes, &peaks);
        drop(processes);
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// The kernel keeps each process's peak; this keeps the highest of each role. Those that ended are forgotten.
fn measure(processes: &Mutex<Vec<(usize, u32)>>, peaks: &Mutex<[u64; 3]>) {
    let mut peaks = peaks.lock().unwrap();
    processes.lock().unwrap().retain(|(column, pid)| {
        let Some(peak) = peak_kib(*pid) else { return false };
        peaks[*column] = peaks[*column].max(peak);
        true
    });
}

fn peak_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    // It is not it yet: a child of the test, or a program that it is started through, such as `ip`.
    if !status.lines().next()?.contains("postrider") {
        return Some(0);
    }
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}
