//! Settings: environment first, then a TOML file, then defaults; one struct for each concern (DESIGN §11).
//!
//! Everything that is no secret is checked here, once, so that a process that starts has settings it can use. Secrets
//! are read when a command needs them: `postrider event send` must not fail because of a master key that it never uses.

mod layers;
mod secret;

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use postrider_broker::topology::Mode;
use postrider_control::Setting;
use postrider_core::address::EgressPolicy;
use postrider_core::seal::MasterKey;
use url::Url;

pub use layers::{Key, Kind, Layers, Source, without_password};
pub use secret::{Secret, StateDir, new_master_key, new_token, read_file_or_stdin, write_new};

use crate::exit::Failure;

/// Every setting there is, in the order in which `postrider config` shows them.
pub const KEYS: &[Key] = &[
    key("amqp_url", Kind::Url, None, "the broker: amqp:// or amqps://user:password@host:port/vhost"),
    key("prefix", Kind::Plain, Some("postrider"), "what the name of every queue and exchange begins with"),
    key(
        "delay_unit_ms",
        Kind::Plain,
        Some("1000"),
        "the unit of the delay ladder; part of its queues' names",
    ),
    key(
        "topology",
        Kind::Plain,
        None,
        "check: wait until the queues are there; apply: declare what is missing (default for serve all)",
    ),
    key("listen", Kind::Plain, Some("127.0.0.1:8080"), "where control serves the API"),
    key(
        "store_url",
        Kind::Plain,
        None,
        "control's store: sqlite:PATH; default: postrider.db in the state directory",
    ),
    key("https_only", Kind::Plain, Some("false"), "refuse webhooks whose URL begins with http://"),
    key("admin_token", Kind::Secret, None, "the token of the API, for control and for operator commands"),
    key("api_token", Kind::Secret, None, "an API key for operator commands, in place of the admin token"),
    key(
        "master_key",
        Kind::Secret,
        None,
        "the key that seals the webhooks' secrets: 32 random bytes in base64",
    ),
    key(
        "egress_allow",
        Kind::Plain,
        Some(""),
        "private ranges that deliveries may reach, such as 10.1.0.0/16,::1/128",
    ),
    key("concurrency", Kind::Plain, Some("256"), "how many deliveries one worker works on at once"),
    key(
        "slow_concurrency",
        Kind::Plain,
        Some("1024"),
        "how many beside these may take longer than 250 ms, so that receivers that hang hold up nobody",
    ),
    key(
        "drain_seconds",
        Kind::Plain,
        Some("20"),
        "how long a role may finish what it has begun after SIGTERM",
    ),
    key(
        "stall_seconds",
        Kind::Plain,
        Some("300"),
        "a role that has work and settles nothing for this long ends with exit code 9; 0: never",
    ),
    key(
        "metrics_listen",
        Kind::Plain,
        Some("127.0.0.1:9090"),
        "where a role serves /livez, /readyz and /metrics",
    ),
    key(
        "log",
        Kind::Plain,
        Some("info"),
        "what is logged: error, warn, info, debug, or a filter such as info,lapin=debug",
    ),
    key("log_format", Kind::Plain, Some("text"), "text or json"),
    key(
        "state_dir",
        Kind::Plain,
        None,
        "where serve all keeps store, token and key; default: the user's state directory",
    ),
    key("api_url", Kind::Plain, Some("http://127.0.0.1:8080"), "the API that operator commands talk to"),
    key(
        "inbox_url",
        Kind::Plain,
        Some("http://127.0.0.1:8081"),
        "the inbox that postrider inbox and postrider listen talk to; where it is set, control shows that inbox in the console",
    ),
];

const fn key(name: &'static str, kind: Kind, default: Option<&'static str>, help: &'static str) -> Key {
    Key { name, kind, default, help }
}

/// All settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The broker.
    pub broker: Broker,
    /// The control role.
    pub control: Control,
    /// The worker role.
    pub worker: Worker,
    /// What every role shows of itself.
    pub observe: Observe,
    /// Operator commands.
    pub operator: Operator,
    /// Where `serve all` keeps store, token and key.
    pub state_dir: StateDir,
    /// The values as they were given.
    pub layers: Layers,
}

/// The broker, without its URL, which is a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// What every name begins with.
    pub prefix: String,
    /// The unit of the delay ladder, milliseconds.
    pub delay_unit_ms: u64,
    /// What a role does about missing queues, if that was said.
    pub topology: Option<Mode>,
}

/// The control role, without its secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Its store, if one was named.
    pub store_url: Option<String>,
    /// Whether `http:` webhooks are refused.
    pub https_only: bool,
    /// The inbox that the console shows, if one was named.
    pub inbox_url: Option<Url>,
}

/// The worker role, without its secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    /// The addresses that deliveries may reach. Control judges new webhooks by it, too.
    pub egress: EgressPolicy,
    /// Most requests in flight.
    pub concurrency: u32,
    /// Most requests in flight that take longer than a moment, beside these.
    pub slow_concurrency: u32,
    /// How long it may finish what it has begun.
    pub drain: Duration,
}

/// What every role shows of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observe {
    /// Where `/livez`, `/readyz` and `/metrics` are.
    pub metrics_listen: SocketAddr,
    /// How long a role may have work and settle nothing before it is ended; zero for ever.
    pub stall: Duration,
    /// The log's filter.
    pub log: String,
    /// The log's form.
    pub log_format: LogFormat,
}

/// The form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Operator commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// The API.
    pub api_url: Url,
    /// The inbox.
    pub inbox_url: Url,
}

/// Settings, and what the user should be warned about.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Each a sentence.
    pub warnings: Vec<String>,
}

impl Settings {
    /// Every setting as people may read it, in the order of [`KEYS`].
    pub fn told(&self) -> Vec<Setting> {
        KEYS.iter().map(|key| self.told_of(key)).collect()
    }

    fn told_of(&self, key: &Key) -> Setting {
        let told = |value, source| Setting { name: key.name, value, source, env: key.env(), help: key.help };
        let source = self.layers.source(key.name);
        let kept = match key.name {
            _ if source != Source::Default => None,
            "state_dir" => {
                return told(Some(self.state_dir.path().display().to_string()), source.to_string());
            }
            "store_url" => return told(Some(self.store_url()), source.to_string()),
            "admin_token" => Some(self.state_dir.admin_token_file()),
            "master_key" => Some(self.state_dir.master_key_file()),
            _ => None,
        };
        match kept.filter(|file| file.exists()) {
            Some(file) => told(Some("***".to_owned()), format!("state directory {}", file.display())),
            None => told(self.layers.shown(key), source.to_string()),
        }
    }

    /// Reads the process's environment and the settings file.
    ///
    /// # Errors
    /// [`Failure`] that names the setting, where it was set, and what it may be.
    pub fn load(config: Option<&Path>) -> Result<Loaded, Failure> {
        let env = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        let mut texts = Vec::new();
        for (name, value) in env {
            match value.into_string() {
                Ok(value) => texts.push((name, value)),
                Err(_) if name.starts_with(layers::ENV_PREFIX) => {
                    return Err(Failure::usage(name, "its value is not UTF-8"));
                }
                Err(_) => {}
            }
        }
        Self::from_parts(texts, config)
    }

    /// Reads this environment and the settings file.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub fn from_parts(
        env: impl IntoIterator<Item = (String, String)>,
        config: Option<&Path>,
    ) -> Result<Loaded, Failure> {
        let env: Vec<(String, String)> = env.into_iter().collect();
        let variable = |wanted: &str| {
            env.iter().find(|(name, value)| name == wanted && !value.is_empty()).map(|(_, v)| v.clone())
        };
        let default_state = match (variable("XDG_STATE_HOME"), variable("HOME")) {
            (Some(state), _) => PathBuf::from(state).join("postrider"),
            (None, Some(home)) => PathBuf::from(home).join(".local/state/postrider"),
            (None, None) => PathBuf::from("postrider-state"),
        };
        let layers::Loaded { layers, warnings } = Layers::load(KEYS, env, config)?;
        let state_dir = StateDir::new(layers.text("state_dir").map_or(default_state, PathBuf::from));
        let broker = Broker {
            prefix: checked(&layers, "prefix", "1 to 64 of a-z, A-Z, 0-9, -, _ and .", good_prefix)?,
            delay_unit_ms: within(&layers, "delay_unit_ms", 10..=60_000)?,
            topology: optional(&layers, "topology", "check or apply", |text| match text {
                "check" => Some(Mode::Check),
                "apply" => Some(Mode::Apply),
                _ => None,
            })?,
        };
        let inbox_url = checked(&layers, "inbox_url", "a URL such as http://127.0.0.1:8081", base_url)?;
        let control = Control {
            listen: parsed(&layers, "listen", "an address and a port, such as 127.0.0.1:8080")?,
            store_url: layers.text("store_url"),
            https_only: checked(&layers, "https_only", "true or false", truth)?,
            inbox_url: layers.is_given("inbox_url").then(|| inbox_url.clone()),
        };
        let worker = Worker {
            egress: checked(
                &layers,
                "egress_allow",
                "ranges such as 10.1.0.0/16, separated by commas",
                ranges,
            )?,
            concurrency: within(&layers, "concurrency", 16..=10_000)?,
            slow_concurrency: within(&layers, "slow_concurrency", 16..=50_000)?,
            drain: Duration::from_secs(within(&layers, "drain_seconds", 1..=3_600)?),
        };
        let observe = Observe {
            metrics_listen: parsed(
                &layers,
                "metrics_listen",
                "an address and a port, such as 127.0.0.1:9090",
            )?,
            stall: Duration::from_secs(within(&layers, "stall_seconds", 0..=86_400)?),
            log: checked(
                &layers,
                "log",
                "error, warn, info, debug, trace, or a filter such as info,lapin=debug",
                |text| tracing_subscriber::EnvFilter::builder().parse(text).ok().map(|_| text.to_owned()),
            )?,
            log_format: checked(&layers, "log_format", "text or json", |text| match text {
                "text" => Some(LogFormat::Text),
                "json" => Some(LogFormat::Json),
                _ => None,
            })?,
        };
        let operator = Operator {
            api_url: checked(&layers, "api_url", "a URL such as http://127.0.0.1:8080", base_url)?,
            inbox_url,
        };
        let settings = Self { broker, control, worker, observe, operator, state_dir, layers };
        Ok(Loaded { settings, warnings })
    }

    /// How `role` reaches the broker, and how things are called there.
    ///
    /// # Errors
    /// As [`Settings::amqp_url`].
    pub fn broker_as(&self, role: &'static str) -> Result<postrider_broker::Settings, Failure> {
        let Broker { prefix, delay_unit_ms, topology: _ } = &self.broker;
        let url = self.amqp_url()?.reveal().to_owned();
        Ok(postrider_broker::Settings { url, prefix: prefix.clone(), unit_ms: *delay_unit_ms, role })
    }

    /// The broker's URL.
    ///
    /// # Errors
    /// [`Failure`] when it is not set, or is no AMQP URL. The URL is never shown.
    pub fn amqp_url(&self) -> Result<Secret, Failure> {
        let Some(url) = self.layers.secret("amqp_url")? else {
            return Err(Failure::usage("POSTRIDER_AMQP_URL is not set", "the broker's address is needed")
                .next("set it to amqp://user:password@host:5672/%2f"));
        };
        let good = Url::parse(url.reveal()).is_ok_and(|url| {
            matches!(url.scheme(), "amqp" | "amqps") && url.host_str().is_some_and(|h| !h.is_empty())
        });
        if !good {
            return Err(Failure::usage(
                self.layers.called("amqp_url"),
                "it must be amqp:// or amqps:// with a host, such as amqp://user:password@host:5672/%2f",
            )
            .next("write special characters of the password as %XX"));
        }
        Ok(url)
    }

    /// The admin token, if one is set.
    ///
    /// # Errors
    /// [`Failure`] when its file cannot be read, or it is too short to be one.
    pub fn admin_token(&self) -> Result<Option<Secret>, Failure> {
        self.token("admin_token")
    }

    /// The API key of operator commands, if one is set.
    ///
    /// # Errors
    /// [`Failure`] when its file cannot be read, or it is too short to be one.
    pub fn api_token(&self) -> Result<Option<Secret>, Failure> {
        self.token("api_token")
    }

    fn token(&self, name: &'static str) -> Result<Option<Secret>, Failure> {
        let Some(token) = self.layers.secret(name)? else { return Ok(None) };
        let fits =
            token.reveal().len() >= MIN_TOKEN_BYTES && token.reveal().bytes().all(|b| b.is_ascii_graphic());
        if !fits {
            return Err(Failure::usage(
                self.layers.called(name),
                format!(
                    "a token must have at least {MIN_TOKEN_BYTES} printable ASCII characters and no spaces"
                ),
            )
            .next(match name {
                "api_token" => "postrider api-keys create makes one",
                _ => "openssl rand -hex 32 makes one",
            }));
        }
        Ok(Some(token))
    }

    /// The master key, if one is set.
    ///
    /// # Errors
    /// [`Failure`] when its file cannot be read, or it is no key.
    pub fn master_key(&self) -> Result<Option<MasterKey>, Failure> {
        let Some(key) = self.layers.secret("master_key")? else { return Ok(None) };
        MasterKey::parse(key.reveal())
            .map(Some)
            .map_err(|error| Failure::usage(self.layers.called("master_key"), error))
    }

    /// Control's store: the one that was named, or the embedded one in the state directory.
    pub fn store_url(&self) -> String {
        self.control
            .store_url
            .clone()
            .unwrap_or_else(|| format!("sqlite:{}", self.state_dir.store_file().display()))
    }
}

/// Shortest admin token, bytes.
const MIN_TOKEN_BYTES: usize = 16;

fn refused(layers: &Layers, name: &'static str, text: &str, rule: &str) -> Failure {
    Failure::usage(layers.called(name), format!("it must be {rule}, not {text:?}"))
}

/// The value of a setting that has a default, as `read` understands it.
fn checked<T>(
    layers: &Layers,
    name: &'static str,
    rule: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<T, Failure> {
    let text = layers.text(name).unwrap_or_default();
    read(text.trim()).ok_or_else(|| refused(layers, name, &text, rule))
}

fn optional<T>(
    layers: &Layers,
    name: &'static str,
    rule: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, Failure> {
    match layers.text(name) {
        Some(_) => checked(layers, name, rule, read).map(Some),
        None => Ok(None),
    }
}

fn parsed<T: FromStr>(layers: &Layers, name: &'static str, rule: &str) -> Result<T, Failure> {
    checked(layers, name, rule, |text| text.parse().ok())
}

fn within<T: FromStr + PartialOrd + Display>(
    layers: &Layers,
    name: &'static str,
    range: std::ops::RangeInclusive<T>,
) -> Result<T, Failure> {
    let rule = format!("a whole number from {} to {}", range.start(), range.end());
    checked(layers, name, &rule, |text| text.parse().ok().filter(|number| range.contains(number)))
}

fn good_prefix(text: &str) -> Option<String> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let good = (1..=64).contains(&text.len()) && text.bytes().all(legal) && !text.starts_with("amq.");
    good.then(|| text.to_owned())
}

fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

fn ranges(text: &str) -> Option<EgressPolicy> {
    let one = |text: &str| {
        text.parse::<IpNet>().or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from)).ok()
    };
    let ranges: Option<Vec<IpNet>> =
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(one).collect();
    ranges.map(EgressPolicy::new)
}

fn base_url(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    (matches!(url.scheme(), "http" | "https") && url.has_host()).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(pairs: &[(&str, &str)]) -> Result<Settings, Failure> {
        let env = pairs.iter().map(|(name, value)| (format!("POSTRIDER_{name}"), (*value).to_owned()));
        Settings::from_parts(env, None).map(|loaded| loaded.settings)
    }

    #[test]
    fn settings_are_told_without_their_secrets() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        write_new(&key, &Secret::new("canary-key")).unwrap();
        let settings = load(&[
            ("AMQP_URL", "amqp://postrider:canary-1@broker/vhost"),
            ("ADMIN_TOKEN", "canary-token-0123456789"),
            ("API_TOKEN", "canary-token-9876543210"),
            ("MASTER_KEY_FILE", key.to_str().unwrap()),
            ("API_URL", "http://someone:canary-2@control:8080"),
            ("INBOX_URL", "http://inbox:8081/?key=canary-3"),
            ("STATE_DIR", dir.path().to_str().unwrap()),
        ])
        .unwrap();
        let told = settings.told();
        assert_eq!(told.len(), KEYS.len());
        let text = serde_json::to_string(&told).unwrap();
        assert!(!text.contains("canary"), "{text}");
        let of = |name: &str| told.iter().find(|setting| setting.name == name).unwrap();
        assert_eq!(of("amqp_url").value.as_deref(), Some("amqp://postrider:***@broker/vhost"));
        assert_eq!(of("api_url").value.as_deref(), Some("http://someone:***@control:8080/"));
        assert_eq!(of("admin_token").source, "env POSTRIDER_ADMIN_TOKEN");
        assert!(of("master_key").source.starts_with("secret file "), "{:?}", of("master_key"));
        assert_eq!(
            (of("prefix").value.as_deref(), of("prefix").source.as_str()),
            (Some("postrider"), "default")
        );
    }

    #[test]
    fn defaults_are_usable() {
        let settings = load(&[]).unwrap();
        assert_eq!(settings.control.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(settings.worker.drain, Duration::from_secs(20));
        assert_eq!(settings.worker.concurrency, 256);
        assert_eq!(settings.worker.slow_concurrency, 1024);
        assert_eq!(settings.broker.topology, None);
        assert_eq!(settings.operator.inbox_url.as_str(), "http://127.0.0.1:8081/");
        assert_eq!(settings.control.inbox_url, None, "the console shows an inbox that somebody named");
        assert!(settings.worker.egress.opened().is_empty());
        assert!(settings.admin_token().unwrap().is_none());
        assert!(settings.master_key().unwrap().is_none());
        assert!(settings.amqp_url().unwrap_err().to_string().contains("POSTRIDER_AMQP_URL is not set"));
    }

    #[test]
    fn the_state_directory_is_the_users() {
        let of = |pairs: &[(&str, &str)]| {
            let env = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            Settings::from_parts(env, None).unwrap().settings.store_url()
        };
        assert_eq!(of(&[]), "sqlite:postrider-state/postrider.db");
        assert_eq!(of(&[("HOME", "/h")]), "sqlite:/h/.local/state/postrider/postrider.db");
        assert_eq!(of(&[("HOME", "/h"), ("XDG_STATE_HOME", "/s")]), "sqlite:/s/postrider/postrider.db");
        assert_eq!(of(&[("HOME", "/h"), ("POSTRIDER_STATE_DIR", "x")]), "sqlite:x/postrider.db");
        assert_eq!(of(&[("POSTRIDER_STORE_URL", "sqlite:y.db")]), "sqlite:y.db");
    }

    #[test]
    fn bad_values_are_refused_by_name() {
        for (name, value, says) in [
            ("LISTEN", "localhost:8080", "POSTRIDER_LISTEN: it must be an address and a port"),
            (
                "DRAIN_SECONDS",
                "0",
                "POSTRIDER_DRAIN_SECONDS: it must be a whole number from 1 to 3600, not \"0\"",
            ),
            ("CONCURRENCY", "many", "POSTRIDER_CONCURRENCY: it must be a whole number"),
            ("PREFIX", "a b", "POSTRIDER_PREFIX: it must be 1 to 64"),
            ("PREFIX", "amq.x", "POSTRIDER_PREFIX"),
            ("TOPOLOGY", "maybe", "POSTRIDER_TOPOLOGY: it must be check or apply"),
            ("EGRESS_ALLOW", "10.0.0.0/33", "POSTRIDER_EGRESS_ALLOW"),
            ("HTTPS_ONLY", "perhaps", "POSTRIDER_HTTPS_ONLY"),
            ("LOG", "info,,=", "POSTRIDER_LOG"),
            ("LOG_FORMAT", "xml", "POSTRIDER_LOG_FORMAT"),
            ("API_URL", "ftp://x", "POSTRIDER_API_URL"),
            ("INBOX_URL", "127.0.0.1:8081", "POSTRIDER_INBOX_URL: it must be a URL"),
        ] {
            let failure = load(&[(name, value)]).unwrap_err();
            assert!(failure.to_string().starts_with(says), "{failure}");
            assert_eq!(failure.exit, crate::exit::Exit::Usage);
        }
    }

    #[test]
    fn ranges_and_single_addresses_open_egress() {
        let settings = load(&[("EGRESS_ALLOW", "10.1.0.0/16, ::1")]).unwrap();
        assert!(settings.worker.egress.permits("10.1.2.3".parse().unwrap()));
        assert!(settings.worker.egress.permits("::1".parse().unwrap()));
        assert!(!settings.worker.egress.permits("10.2.0.1".parse().unwrap()));
    }

    #[test]
    fn secrets_are_checked_without_being_shown() {
        for (name, value) in [
            ("AMQP_URL", "http://hunter2@host"),
            ("AMQP_URL", "hunter2"),
            ("ADMIN_TOKEN", "hunter2"),
            ("ADMIN_TOKEN", "hunter2 hunter2 hunter2"),
            ("API_TOKEN", "hunter2"),
            ("MASTER_KEY", "hunter2"),
        ] {
            let settings = load(&[(name, value)]).unwrap();
            let failures = [
                settings.amqp_url().err(),
                settings.admin_token().err(),
                settings.api_token().err(),
                settings.master_key().err(),
            ];
            let failure =
                failures.into_iter().flatten().find(|failure| failure.to_string().contains(name)).unwrap();
            assert!(!failure.to_string().contains("hunter2"), "{failure}");
        }
    }

    #[test]
    fn every_setting_has_help_and_a_unique_name() {
        let mut names: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
        assert!(KEYS.iter().all(|key| !key.help.is_empty()));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), KEYS.len());
    }
}
