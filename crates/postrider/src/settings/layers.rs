//! Where settings come from: environment, then file, then default; and which names there are.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use postrider_core::spelling::suggestion;

use super::secret::{self, Secret};
use crate::exit::Failure;

/// What every variable begins with.
pub(super) const ENV_PREFIX: &str = "POSTRIDER_";

/// What tests, the scripts in `dev/` and the compose file read: no settings of this program, and no mistakes either.
const OTHERS: [&str; 11] = [
    "POSTRIDER_CRASH_AT",
    "POSTRIDER_CHAOS_",
    "POSTRIDER_TEST_",
    "POSTRIDER_FAULT",
    "POSTRIDER_DEMO_BUILD",
    "POSTRIDER_RABBITMQ_SERVER",
    "POSTRIDER_BROKER_START_SECONDS",
    "POSTRIDER_IMAGE",
    "POSTRIDER_BUILD_PROFILE",
    "POSTRIDER_API_PORT",
    "POSTRIDER_PROMETHEUS_PORT",
];

/// The largest settings file, bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// How a setting is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Shown as it is.
    Plain,
    /// Never shown; may come from a file named by `…_FILE`.
    Secret,
    /// A URL with a password in it: shown without; may come from a file named by `…_FILE`.
    Url,
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name in the file. In the environment it is in capitals, after `POSTRIDER_`.
    pub name: &'static str,
    /// How it is treated.
    pub kind: Kind,
    /// What it is without being set; `None` where there is no sensible value.
    pub default: Option<&'static str>,
    /// What it is for.
    pub help: &'static str,
}

impl Key {
    /// Its name in the environment.
    pub fn env(&self) -> String {
        format!("{ENV_PREFIX}{}", self.name.to_ascii_uppercase())
    }

    fn has_file(&self) -> bool {
        self.kind != Kind::Plain
    }
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// The settings file.
    File(PathBuf),
    /// The environment variable of this name.
    Env(String),
    /// A file that was named by the environment or by the settings file.
    SecretFile(PathBuf),
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Env(name) => write!(f, "env {name}"),
            Self::SecretFile(path) => write!(f, "secret file {}", path.display()),
        }
    }
}

/// A value as it was given.
#[derive(Clone, Debug)]
enum Given {
    Text(String),
    SecretFile(PathBuf),
}

/// All settings as they were given.
#[derive(Clone, Debug)]
pub struct Layers {
    keys: &'static [Key],
    given: BTreeMap<&'static str, (Given, Source)>,
}

/// What was read, and what the caller should be warned about.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub layers: Layers,
    /// Variables that mean nothing, each a sentence.
    pub warnings: Vec<String>,
}

impl Layers {
    /// Reads the environment and, if there is one, the settings file.
    ///
    /// An empty variable counts as not set, because that is what a compose file makes of one.
    ///
    /// # Errors
    /// [`Failure`] that names the file and the key.
    pub fn load(
        keys: &'static [Key],
        env: impl IntoIterator<Item = (String, String)>,
        file: Option<&Path>,
    ) -> Result<Loaded, Failure> {
        let env: BTreeMap<String, String> = env
            .into_iter()
            .filter(|(name, value)| name.starts_with(ENV_PREFIX) && !value.is_empty())
            .collect();
        let mut layers = Self { keys, given: BTreeMap::new() };
        let from_env = env.get("POSTRIDER_CONFIG").map(PathBuf::from);
        if let Some(path) = file.map(Path::to_path_buf).or(from_env) {
            layers.read_file(&path)?;
        }
        let mut known: Vec<String> = vec!["POSTRIDER_CONFIG".into()];
        for key in keys {
            let (text_name, file_name) = (key.env(), format!("{}_FILE", key.env()));
            let text = env.get(&text_name);
            let path = env.get(&file_name).filter(|_| key.has_file());
            match (text, path) {
                (Some(_), Some(_)) => {
                    return Err(Failure::usage(
                        format!("{text_name} and {file_name} are both set"),
                        "only one of them can be meant",
                    )
                    .next("unset one of them"));
                }
                (Some(text), None) => {
                    let value = (Given::Text(text.clone()), Source::Env(text_name.clone()));
                    layers.given.insert(key.name, value);
                }
                (None, Some(path)) => {
                    let path = PathBuf::from(path);
                    layers
                        .given
                        .insert(key.name, (Given::SecretFile(path.clone()), Source::SecretFile(path)));
                }
                (None, None) => {}
            }
            known.push(text_name);
            if key.has_file() {
                known.push(file_name);
            }
        }
        let warnings = env
            .keys()
            .filter(|name| !known.contains(name) && !OTHERS.iter().any(|other| name.starts_with(other)))
            .map(|name| {
                let hint = suggestion(name, known.iter().map(String::as_str));
                format!("{name} is no setting and is ignored{hint}")
            })
            .collect();
        Ok(Loaded { layers, warnings })
    }

    fn read_file(&mut self, path: &Path) -> Result<(), Failure> {
        let here = |why: &dyn std::fmt::Display| {
            Failure::usage(format!("cannot use the settings file {}", path.display()), why)
        };
        let file = File::open(path).map_err(|error| here(&error))?;
        let mut text = String::new();
        (&file).take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(|error| here(&error))?;
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| here(&error.message()))?;
        let names = self.keys.iter().flat_map(|key| {
            let file = key.has_file().then(|| format!("{}_file", key.name));
            [Some(key.name.to_owned()), file].into_iter().flatten()
        });
        let names: Vec<String> = names.collect();
        for (name, value) in table {
            let text = plain_text(&value).ok_or_else(|| {
                here(&format!("{name} must be a text, a number, true or false, or a list of texts"))
            })?;
            let direct = self.keys.iter().find(|key| key.name == name);
            let by_file =
                self.keys.iter().find(|key| key.has_file() && name.strip_suffix("_file") == Some(key.name));
            let (key, value) = match (direct, by_file) {
                (Some(key), _) => {
                    if key.kind != Kind::Plain {
                        secret::check_mode(path, &file)?;
                    }
                    (key, (Given::Text(text), Source::File(path.to_path_buf())))
                }
                (None, Some(key)) => {
                    let secret = PathBuf::from(text);
                    (key, (Given::SecretFile(secret.clone()), Source::SecretFile(secret)))
                }
                (None, None) => {
                    let hint = suggestion(&name, names.iter().map(String::as_str));
                    return Err(here(&format!("there is no setting {name:?}{hint}"))
                        .next("postrider config lists every setting"));
                }
            };
            if self.given.insert(key.name, value).is_some() {
                return Err(
                    here(&format!("{0} and {0}_file are both set", key.name)).next("remove one of them")
                );
            }
        }
        Ok(())
    }

    /// The key of this name. All names in this crate are in the table.
    fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// The value of a setting that is no secret.
    pub fn text(&self, name: &'static str) -> Option<String> {
        match self.given.get(name) {
            Some((Given::Text(text), _)) => Some(text.clone()),
            Some((Given::SecretFile(_), _)) => None,
            None => self.key(name).and_then(|key| key.default).map(str::to_owned),
        }
    }

    /// The value of a secret setting; reads its file if it is in one.
    ///
    /// # Errors
    /// [`Failure`] when the file cannot be read, or everybody may read it.
    pub fn secret(&self, name: &'static str) -> Result<Option<Secret>, Failure> {
        match self.given.get(name) {
            Some((Given::Text(text), _)) => Ok(Some(Secret::new(text.as_str()))),
            Some((Given::SecretFile(path), _)) => Ok(Some(secret::read(path)?)),
            None => Ok(self.key(name).and_then(|key| key.default).map(Secret::new)),
        }
    }

    /// Whether somebody set it.
    pub fn is_given(&self, name: &'static str) -> bool {
        self.given.contains_key(name)
    }

    /// Where a value came from.
    pub fn source(&self, name: &'static str) -> Source {
        self.given.get(name).map_or(Source::Default, |(_, source)| source.clone())
    }

    /// What to call a setting in an error: where it was set.
    pub fn called(&self, name: &'static str) -> String {
        match self.source(name) {
            Source::File(path) => format!("{name} in {}", path.display()),
            Source::Env(_) | Source::SecretFile(_) | Source::Default => {
                format!("{ENV_PREFIX}{}", name.to_ascii_uppercase())
            }
        }
    }

    /// The value as it may be shown.
    pub fn shown(&self, key: &Key) -> Option<String> {
        match (key.kind, self.given.get(key.name)) {
            (Kind::Plain, _) => self.text(key.name).map(without_credentials),
            (_, None) => key.default.map(str::to_owned),
            (Kind::Secret, Some(_)) => Some("***".to_owned()),
            (Kind::Url, Some((Given::Text(text), _))) => Some(without_password(text)),
            (Kind::Url, Some((Given::SecretFile(path), _))) => Some(
                secret::read(path).map_or_else(|_| "***".to_owned(), |url| without_password(url.reveal())),
            ),
        }
    }
}

/// The URL with `***` in place of its password and its query; only `***` if it cannot be read.
pub fn without_password(text: &str) -> String {
    let Ok(mut url) = url::Url::parse(text) else { return "***".to_owned() };
    if url.password().is_some() && url.set_password(Some("***")).is_err() {
        return "***".to_owned();
    }
    if url.query().is_some() {
        url.set_query(Some("***"));
    }
    url.to_string()
}

/// A value that is a URL with a password or a query is shown without; any other as it is.
fn without_credentials(text: String) -> String {
    match url::Url::parse(&text) {
        Ok(url) if url.password().is_some() || url.query().is_some() => without_password(&text),
        _ => text,
    }
}

fn plain_text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(yes) => Some(yes.to_string()),
        toml::Value::Array(items) => {
            let items: Option<Vec<&str>> = items.iter().map(toml::Value::as_str).collect();
            Some(items?.join(","))
        }
        toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: &[Key] = &[
        Key { name: "prefix", kind: Kind::Plain, default: Some("postrider"), help: "" },
        Key { name: "egress_allow", kind: Kind::Plain, default: Some(""), help: "" },
        Key { name: "amqp_url", kind: Kind::Url, default: None, help: "" },
        Key { name: "admin_token", kind: Kind::Secret, default: None, help: "" },
    ];

    fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn file(text: &str, mode: u32) -> tempfile::NamedTempFile {
        use std::os::unix::fs::PermissionsExt as _;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn environment_before_file_before_default() {
        let path = file("prefix = \"from-file\"\negress_allow = [\"10.0.0.0/8\", \"::1/128\"]\n", 0o644);
        let layers = Layers::load(KEYS, env(&[]), None).unwrap().layers;
        assert_eq!(layers.text("prefix").unwrap(), "postrider");
        assert_eq!(layers.source("prefix"), Source::Default);
        let layers = Layers::load(KEYS, env(&[]), Some(path.path())).unwrap().layers;
        assert_eq!(layers.text("prefix").unwrap(), "from-file");
        assert_eq!(layers.text("egress_allow").unwrap(), "10.0.0.0/8,::1/128");
        assert_eq!(layers.source("prefix"), Source::File(path.path().into()));
        let from_env = env(&[
            ("POSTRIDER_PREFIX", "from-env"),
            ("POSTRIDER_EGRESS_ALLOW", ""),
            ("POSTRIDER_CONFIG", path.path().to_str().unwrap()),
        ]);
        let layers = Layers::load(KEYS, from_env, None).unwrap().layers;
        assert_eq!(layers.text("prefix").unwrap(), "from-env");
        assert_eq!(layers.text("egress_allow").unwrap(), "10.0.0.0/8,::1/128", "empty counts as not set");
        assert_eq!(layers.source("prefix").to_string(), "env POSTRIDER_PREFIX");
    }

    #[test]
    fn unknown_names_come_with_a_suggestion() {
        let path = file("prefx = \"a\"\n", 0o644);
        let failure = Layers::load(KEYS, env(&[]), Some(path.path())).unwrap_err();
        assert!(
            failure.to_string().ends_with("there is no setting \"prefx\"; did you mean prefix?"),
            "{failure}"
        );
        let path = file("[broker]\nprefix = \"a\"\n", 0o644);
        let failure = Layers::load(KEYS, env(&[]), Some(path.path())).unwrap_err();
        assert!(failure.to_string().contains("broker must be"), "{failure}");
        let given =
            env(&[("POSTRIDER_PREFX", "a"), ("POSTRIDER_TEST_X", "a"), ("POSTRIDER_Z", "a"), ("HOME", "a")]);
        assert_eq!(
            Layers::load(KEYS, given, None).unwrap().warnings,
            [
                "POSTRIDER_PREFX is no setting and is ignored; did you mean POSTRIDER_PREFIX?",
                "POSTRIDER_Z is no setting and is ignored"
            ]
        );
    }

    #[test]
    fn secrets_are_read_from_private_files_and_masked() {
        let secret = file("s3cret\n", 0o600);
        let given = env(&[
            ("POSTRIDER_ADMIN_TOKEN_FILE", secret.path().to_str().unwrap()),
            ("POSTRIDER_AMQP_URL", "amqp://user:hunter2@broker:5672/%2f?heartbeat=5"),
        ]);
        let layers = Layers::load(KEYS, given, None).unwrap().layers;
        assert_eq!(layers.secret("admin_token").unwrap().unwrap().reveal(), "s3cret");
        assert_eq!(layers.shown(&KEYS[3]).unwrap(), "***");
        assert_eq!(layers.shown(&KEYS[2]).unwrap(), "amqp://user:***@broker:5672/%2f?***");
        assert!(layers.secret("amqp_url").unwrap().unwrap().reveal().contains("hunter2"));
        assert!(!layers.shown(&KEYS[2]).unwrap().contains("hunter2"));
    }

    #[test]
    fn a_secret_is_given_once_and_not_in_a_public_file() {
        let both = env(&[("POSTRIDER_ADMIN_TOKEN", "a"), ("POSTRIDER_ADMIN_TOKEN_FILE", "b")]);
        assert!(Layers::load(KEYS, both, None).unwrap_err().to_string().contains("both set"));
        let public = file("admin_token = \"a\"\n", 0o644);
        assert!(Layers::load(KEYS, env(&[]), Some(public.path())).is_err());
        let private = file("admin_token = \"a\"\n", 0o600);
        let layers = Layers::load(KEYS, env(&[]), Some(private.path())).unwrap().layers;
        assert_eq!(layers.secret("admin_token").unwrap().unwrap().reveal(), "a");
        let missing = env(&[("POSTRIDER_ADMIN_TOKEN_FILE", "/does/not/exist")]);
        let layers = Layers::load(KEYS, missing, None).unwrap().layers;
        assert!(layers.secret("admin_token").is_err());
    }

    #[test]
    fn passwords_are_never_shown() {
        assert_eq!(without_password("nonsense hunter2"), "***");
        assert_eq!(without_password("amqp://host"), "amqp://host");
    }
}
