//! A whole Postrider: its settings, its processes, its API.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use postrider_testkit::ledger::Published;
use postrider_testkit::process::{self, Postrider, free_port};
use postrider_testkit::{Receiver, eventually, patience, within, workspace_dir};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const TOKEN: &str = "e2e-admin-token-of-more-than-32-characters";
pub(crate) const MASTER_KEY: &str = "cG9zdHJpZGVyIHRlc3Qga2V5IG9mIDMyIGJ5dGVzISE=";

/// Settings of one installation, shared by its processes.
pub(crate) struct System {
    amqp_url: String,
    api: String,
    store: TempDir,
    client: reqwest::Client,
    /// Receives what the workers send.
    pub(crate) receiver: Receiver,
}

/// A role's process, and where it serves its health.
pub(crate) struct Role {
    pub(crate) process: Postrider,
    health: String,
}

impl Role {
    pub(crate) async fn ready(self) -> Self {
        self.process.wait_ready(&self.health).await;
        self
    }

    pub(crate) async fn is_ready(&self) -> bool {
        let url = format!("http://{}/readyz", self.health);
        postrider_testkit::http::client().get(url).send().await.is_ok_and(|answer| answer.status() == 200)
    }

    pub(crate) async fn metrics(&self) -> String {
        let url = format!("http://{}/metrics", self.health);
        postrider_testkit::http::client().get(url).send().await.unwrap().text().await.unwrap()
    }

    /// SIGTERM, and a clean end.
    pub(crate) async fn stop(self) {
        self.process.terminate();
        let status = self.process.wait_exit(Duration::from_secs(40)).await;
        assert!(status.success(), "{status}");
    }
}

impl System {
    pub(crate) async fn new(amqp_url: String) -> Self {
        postrider_testkit::logging();
        Self {
            amqp_url,
            api: format!("127.0.0.1:{}", free_port()),
            store: TempDir::new().unwrap(),
            client: postrider_testkit::http::client(),
            receiver: Receiver::start().await,
        }
    }

    /// The same with a ledger of all that its receiver gets.
    pub(crate) async fn with_ledger(mut self) -> Self {
        self.receiver = Receiver::start().await.with_ledger(self.received_path());
        self
    }

    fn received_path(&self) -> PathBuf {
        self.store.path().join("received.jsonl")
    }

    /// Its ledger of what was published.
    pub(crate) fn published(&self) -> Published {
        Published::open(self.store.path().join("published.jsonl"))
    }

    /// What `postrider verify` says of the ledgers and the store: its exit code, and its report.
    pub(crate) async fn verify(&self, more: &[&str]) -> (Option<i32>, Value) {
        let (published, received) = (self.store.path().join("published.jsonl"), self.received_path());
        let (published, received) = (published.display().to_string(), received.display().to_string());
        let mut args = vec!["verify", "--published", &published, "--received", &received, "-o", "json"];
        args.extend(more);
        let env = self.env();
        let output = process::run(args, env.iter().map(|(name, value)| (*name, value.as_str()))).await;
        let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
            panic!("postrider verify printed no report: {}", String::from_utf8_lossy(&output.stderr))
        });
        (output.status.code(), report)
    }

    pub(crate) fn store_path(&self) -> PathBuf {
        self.store.path().join("postrider.db")
    }

    /// The environment of its processes. The ladder's unit is short, so that retries take no time.
    pub(crate) fn env(&self) -> Vec<(&'static str, String)> {
        vec![
            ("POSTRIDER_AMQP_URL", self.amqp_url.clone()),
            ("POSTRIDER_DELAY_UNIT_MS", "50".into()),
            ("POSTRIDER_TOPOLOGY", "apply".into()),
            ("POSTRIDER_ADMIN_TOKEN", TOKEN.into()),
            ("POSTRIDER_MASTER_KEY", MASTER_KEY.into()),
            ("POSTRIDER_STORE_URL", format!("sqlite:{}", self.store_path().display())),
            ("POSTRIDER_LISTEN", self.api.clone()),
            ("POSTRIDER_API_URL", format!("http://{}", self.api)),
            ("POSTRIDER_EGRESS_ALLOW", "127.0.0.0/8".into()),
            ("POSTRIDER_LOG", "info,postrider_worker=warn".into()),
        ]
    }

    /// Starts a role: `router`, `worker`, `control` or `all`.
    pub(crate) fn start(&self, role: &str) -> Role {
        self.start_with(role, &[])
    }

    /// The same with more in its environment.
    pub(crate) fn start_with(&self, role: &str, more: &[(&str, &str)]) -> Role {
        let health = format!("127.0.0.1:{}", free_port());
        let mut start = Postrider::with(["serve", role]).env("POSTRIDER_METRICS_LISTEN", &health);
        for (name, value) in self.env() {
            start = start.env(name, value);
        }
        for (name, value) in more {
            start = start.env(name, value);
        }
        Role { process: start.start(), health }
    }

    /// Control, router and worker, ready.
    pub(crate) async fn start_all_roles(&self) -> [Role; 3] {
        let [control, router, worker] = ["control", "router", "worker"].map(|role| self.start(role));
        [control.ready().await, router.ready().await, worker.ready().await]
    }

    /// Where a path of the API is.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.api)
    }

    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> (StatusCode, Value) {
        self.try_call(method, path, None, body).await.unwrap_or_else(|| panic!("{path}: no answer"))
    }

    /// The same, with an `Idempotency-Key` if one is given; nothing when there is no answer.
    pub(crate) async fn try_call(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> Option<(StatusCode, Value)> {
        let mut request =
            self.client.request(method, format!("http://{}{path}", self.api)).bearer_auth(TOKEN);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.timeout(Duration::from_secs(20)).send().await.ok()?;
        let status = response.status();
        // Half an answer is none.
        let text = response.text().await.ok()?;
        Some((status, serde_json::from_str(&text).unwrap_or(Value::Null)))
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call(Method::GET, path, None).await;
        assert!(status.is_success(), "GET {path}: {status} {body}");
        body
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.call(Method::POST, path, Some(body)).await;
        assert!(status.is_success(), "POST {path}: {status} {answer}");
        answer
    }

    /// Creates a webhook that takes everything and retries quickly, and returns its id and secret.
    pub(crate) async fn webhook(&self, path: &str, more: &Value) -> (String, String) {
        let mut webhook = json!({
            "name": path, "url": self.receiver.url(path), "subscription": { "all": true },
            "retry": { "initial_ms": 100, "factor": 2.0, "jitter": 0.1 }, "timeout_ms": 2000,
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            webhook[name] = value.clone();
        }
        let created = self.post("/v1/webhooks", &webhook).await;
        (created["id"].as_str().unwrap().to_owned(), created["secret"].as_str().unwrap().to_owned())
    }

    /// Waits until the routers and workers in this process know the configuration as it is now. An event that comes over AMQP
    /// does not wait for that, as the API does: what is published right after a webhook was made may be routed without it.
    pub(crate) async fn configured(&self, role: &Role) {
        let wanted = self.status().await["revision"].as_u64().unwrap();
        eventually("it knows the newest configuration", async || {
            let metrics = role.metrics().await;
            let known = |line: &str| line.rsplit(' ').next()?.parse::<u64>().ok();
            let mut lines = metrics
                .lines()
                .filter(|line| {
                    line.starts_with("postrider_configuration_revision") && !line.contains("control")
                })
                .peekable();
            lines.peek().is_some() && lines.all(|line| known(line) >= Some(wanted))
        })
        .await;
    }

    /// How many ids came to the receiver, and, of each that came more than once, its requests: when they came, to which path, and as
    /// which attempt.
    pub(crate) fn requests_by_id(&self) -> (u64, BTreeMap<String, Vec<String>>) {
        let mut requests: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for request in self.receiver.requests() {
            let header = |name: &str| request.header(name).unwrap_or_default().to_owned();
            let since_epoch = request.received_at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            requests.entry(header("webhook-id")).or_default().push(format!(
                "{:.3} s, {}, attempt {}",
                since_epoch.as_secs_f64(),
                request.target,
                header("webhook-attempt"),
            ));
        }
        let ids = requests.len() as u64;
        requests.retain(|_, requests| requests.len() > 1);
        (ids, requests)
    }

    /// Waits until the books know an event.
    pub(crate) async fn known(&self, event: &str) {
        let path = format!("/v1/events/{event}");
        eventually("the books know the event", async || {
            self.call(Method::GET, &path, None).await.0.is_success()
        })
        .await;
    }

    /// Imports one of the catalogues that come with the program into the default tenant.
    pub(crate) async fn import(&self, product: &str) {
        let path = workspace_dir().join(format!("catalogues/{product}.toml"));
        let catalogue: toml::Value = toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let body = serde_json::to_value(catalogue).unwrap();
        let path = format!("/v1/catalogues/{product}");
        let (status, answer) = self.call(Method::PUT, &path, Some(&body)).await;
        assert!(status.is_success(), "PUT {path}: {status} {answer:#}");
    }

    pub(crate) async fn status(&self) -> Value {
        self.get("/v1/status").await
    }

    /// Waits until everything ended and the books balance at rest, and returns them.
    pub(crate) async fn balanced(&self, delivered: u64) -> Value {
        let mut last = Value::Null;
        // Three times the usual: retries of what was in flight when something was killed take their time.
        let balanced = within(3 * patience(), async || {
            last = self.status().await;
            let all = last["deliveries"]["delivered"] == delivered && last["deliveries"]["pending"] == 0;
            (all && last["drift"] == 0 && last["at_rest"] == true).then_some(())
        });
        assert!(
            balanced.await.is_some(),
            "{delivered} delivered and drift 0 at rest was not reached: {last:#}"
        );
        last
    }

    /// Waits until nothing is pending and the books balance at rest, however many deliveries there were.
    pub(crate) async fn at_rest(&self) -> Value {
        let mut last = Value::Null;
        let rest = within(3 * patience(), async || {
            last = self.status().await;
            let done = last["deliveries"]["pending"] == 0 && last["events"]["waiting"] == 0;
            (done && last["drift"] == 0 && last["at_rest"] == true).then_some(())
        });
        assert!(rest.await.is_some(), "drift 0 at rest was not reached: {last:#}");
        last
    }

    /// Waits until the books are at rest with a drift, and returns them.
    pub(crate) async fn drifted(&self) -> Value {
        let mut last = Value::Null;
        eventually("drift shows", async || {
            last = self.status().await;
            last["at_rest"] == true && last["drift"] != 0
        })
        .await;
        last
    }
}
