//! A receiver's registration.

use serde::{Deserialize, Serialize};
use url::Url;
use zeroize::Zeroizing;

use crate::id::{TenantId, WebhookId};
use crate::profile::KeyForm;
use crate::seal::{BadSeal, MasterKey};
use crate::signature::SigningKey;
use crate::subscription::Subscription;
use crate::time::Timestamp;
use crate::wire::{RetryRecord, SecretRecord};

/// Shortest and longest total deadline of a request, milliseconds (DESIGN §7).
pub const TIMEOUT_MS: std::ops::RangeInclusive<u64> = 100..=60_000;

/// Fewest and most requests in flight to one webhook.
pub const MAX_IN_FLIGHT: std::ops::RangeInclusive<u32> = 1..=1_000;

/// The most static headers of a webhook, and the most bytes of one value.
pub const MAX_HEADERS: usize = 20;
/// The most bytes of one static header's value.
pub const MAX_HEADER_BYTES: usize = 4096;

/// A receiver's registration: where deliveries go, which events it takes, how it is spoken to.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// Its id.
    pub id: WebhookId,
    /// Whose it is; it takes this tenant's events and no others.
    pub tenant: TenantId,
    /// What people call it.
    pub name: String,
    /// Where requests go.
    pub url: Url,
    /// The name of the profile: one of the built-in ones, or of a catalogue of the tenant.
    pub profile: String,
    /// Which version of the profile's payload; the profile's own when missing.
    pub payload_version: Option<String>,
    /// Whether requests are signed.
    pub signed: bool,
    /// Which events it takes.
    pub subscription: Subscription,
    /// Whether it receives.
    pub state: WebhookState,
    /// Nothing is sent before this.
    pub active_from: Option<Timestamp>,
    /// Nothing is sent from this on.
    pub expires_at: Option<Timestamp>,
    /// When attempts follow each other, as far as the webhook says; the rest is the profile's.
    pub retry: RetryRecord,
    /// Total deadline of a request, milliseconds; the profile's when missing.
    pub timeout_ms: Option<u64>,
    /// Most requests in flight.
    pub max_in_flight: u32,
    /// Most requests a second, if limited.
    pub rate_per_second: Option<u32>,
    /// Secrets, sealed with the master key. Only the worker opens them.
    pub sealed: SealedCredentials,
    /// Which change of the configuration this is; newer is larger within an epoch.
    pub revision: u64,
}

/// Whether a webhook receives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WebhookState {
    /// Deliveries are sent.
    #[default]
    Active,
    /// Deliveries are held until it is resumed.
    Paused,
    /// Deliveries are skipped; they can be replayed.
    Disabled,
}

impl WebhookState {
    /// The word for it in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Disabled => "disabled",
        }
    }

    /// Reads the word.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Active, Self::Paused, Self::Disabled].into_iter().find(|state| state.as_str() == text)
    }
}

/// Where an API key goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPlace {
    /// A request header.
    Header,
    /// A query parameter.
    Query,
}

/// What a webhook needs to authenticate, sealed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SealedCredentials {
    /// Signing secrets, the current one first.
    pub secrets: Vec<SecretRecord>,
    /// Which secret the current one is: 1, then one more for each rotation.
    pub version: u32,
    /// The API key, if the receiver wants one.
    pub api_key: Option<SealedApiKey>,
    /// [`Auth`] as JSON, if the receiver wants some.
    pub auth: Option<String>,
    /// [`ClientTls`] as JSON, if the receiver wants some.
    pub tls: Option<String>,
    /// Static headers as a JSON object of strings, if there are any.
    pub headers: Option<String>,
}

/// How a webhook authenticates towards its receiver, beside an API key and the signature.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Auth {
    /// `Authorization: Basic …` (RFC 7617).
    Basic {
        /// Without a colon.
        username: String,
        /// May be empty.
        password: Zeroizing<String>,
    },
    /// `Authorization: Bearer …` (RFC 6750), always the same token.
    Bearer {
        /// The token.
        token: Zeroizing<String>,
    },
    /// A token from an OAuth 2.0 server by client credentials (RFC 6749 §4.4).
    Oauth2(Oauth2),
}

/// Where and how a token is fetched.
#[derive(Clone, Serialize, Deserialize)]
pub struct Oauth2 {
    /// The token endpoint.
    pub token_url: String,
    /// The client's id.
    pub client_id: String,
    /// The client's secret.
    pub client_secret: Zeroizing<String>,
    /// Scopes, separated by spaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// What some servers want to know beside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// Whether id and secret go into the body in place of `Authorization: Basic`.
    #[serde(default)]
    pub in_body: bool,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Basic { .. } => "Auth(basic)",
            Self::Bearer { .. } => "Auth(bearer)",
            Self::Oauth2(_) => "Auth(oauth2)",
        })
    }
}

impl std::fmt::Debug for Oauth2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Oauth2(…)")
    }
}

/// What a webhook's connections are made with, where the public certificate authorities do not do.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct ClientTls {
    /// Certificate chain to show to the receiver, PEM; with `key_pem`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_pem: Option<String>,
    /// Its private key, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_pem: Option<Zeroizing<String>>,
    /// Certificates of the authority that signs the receiver's certificate, PEM; in place of the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
}

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientTls(…)")
    }
}

/// An API key whose value is sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedApiKey {
    /// Where it goes.
    pub place: KeyPlace,
    /// The header's or parameter's name.
    pub name: String,
    /// The sealed value.
    pub value: String,
}

/// What a webhook needs to authenticate, opened. Shows nothing in logs.
#[derive(Clone)]
pub struct Credentials {
    /// Signing keys, the current one first, each with the time from which on it signs nothing more.
    pub keys: Vec<(SigningKey, Option<Timestamp>)>,
    /// Which secret the current one is: 1, then one more for each rotation.
    pub version: u32,
    /// Place, name and value.
    pub api_key: Option<(KeyPlace, String, Zeroizing<String>)>,
    /// What `Authorization` says.
    pub auth: Option<Auth>,
    /// What connections are made with.
    pub tls: Option<ClientTls>,
    /// Static headers, names in lower case.
    pub headers: Vec<(String, Zeroizing<String>)>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({} keys)", self.keys.len())
    }
}

/// For what a secret of a webhook is sealed: the same text opens it.
pub fn purpose(tenant: &TenantId, webhook: &WebhookId, what: SecretKind) -> String {
    let what = match what {
        SecretKind::Signing => "secret",
        SecretKind::ApiKey => "api_key",
        SecretKind::Headers => "headers",
        SecretKind::Auth => "auth",
        SecretKind::Tls => "tls",
    };
    format!("{tenant}/{webhook}/{what}")
}

/// The kinds of secret that a webhook has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretKind {
    /// A signing key, as `whsec_…` or `whsk_…`.
    Signing,
    /// The value of the API key.
    ApiKey,
    /// The static headers.
    Headers,
    /// [`Auth`].
    Auth,
    /// [`ClientTls`].
    Tls,
}

impl Webhook {
    /// Opens everything that is sealed; `form` is how the profile wants secrets read.
    ///
    /// # Errors
    /// [`BadSeal`] when the master key is another, or a value is damaged.
    pub fn open(&self, key: &MasterKey, form: KeyForm) -> Result<Credentials, BadSeal> {
        let open = |what, sealed: &str| -> Result<Zeroizing<String>, BadSeal> {
            let bytes = key.open(&purpose(&self.tenant, &self.id, what), sealed)?;
            let text = std::str::from_utf8(&bytes).map_err(|_| BadSeal::Damaged)?;
            Ok(Zeroizing::new(text.to_owned()))
        };
        let mut keys = Vec::with_capacity(self.sealed.secrets.len());
        for secret in &self.sealed.secrets {
            let text = open(SecretKind::Signing, &secret.value)?;
            // A secret in the form of another profile signs nothing; without any the request is refused, with a reason.
            keys.extend(SigningKey::of_secret(&text, form).ok().map(|key| (key, secret.until)));
        }
        let api_key = match &self.sealed.api_key {
            Some(k) => Some((k.place, k.name.clone(), open(SecretKind::ApiKey, &k.value)?)),
            None => None,
        };
        let headers = match &self.sealed.headers {
            Some(sealed) => {
                let text = open(SecretKind::Headers, sealed)?;
                let map: std::collections::BTreeMap<String, String> =
                    serde_json::from_str(&text).map_err(|_| BadSeal::Damaged)?;
                map.into_iter()
                    .map(|(name, value)| (name.to_ascii_lowercase(), Zeroizing::new(value)))
                    .collect()
            }
            None => Vec::new(),
        };
        let auth = match &self.sealed.auth {
            Some(sealed) => {
                let text = open(SecretKind::Auth, sealed)?;
                Some(serde_json::from_str(&text).map_err(|_| BadSeal::Damaged)?)
            }
            None => None,
        };
        let tls = match &self.sealed.tls {
            Some(sealed) => {
                let text = open(SecretKind::Tls, sealed)?;
                Some(serde_json::from_str(&text).map_err(|_| BadSeal::Damaged)?)
            }
            None => None,
        };
        Ok(Credentials { keys, version: self.sealed.version, api_key, auth, tls, headers })
    }
}

/// Why a static header or an API key's name is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHeader {
    /// Not a header's name.
    #[error("{0:?} is not a header name: use letters, digits and any of !#$%&'*+-.^_`|~")]
    Name(String),
    /// A name that belongs to HTTP or to us.
    #[error("the header {0} is set by Postrider or by HTTP itself")]
    Reserved(String),
    /// Control characters, or too long.
    #[error("the value of {0} must have no control characters and at most {MAX_HEADER_BYTES} bytes")]
    Value(String),
}

/// Names that belong to HTTP, to the connection or to us, whatever the profile.
const RESERVED: [&str; 21] = [
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "upgrade",
    "http2-settings",
    "expect",
    "cookie",
    "set-cookie",
    "user-agent",
    "traceparent",
    "tracestate",
    "accept-encoding",
];

/// Names, and beginnings of names, under which profiles sign: receivers trust what stands there.
const SIGNING: [&str; 4] = ["content-digest", "signature", "x-webhook-signature", "x-webhook-timestamp"];

/// Checks a header that the owner of a webhook wants on every request (`reference/reliability.md` H-22).
///
/// # Errors
/// [`BadHeader`]; the value is never shown.
pub fn check_header(name: &str, value: &str) -> Result<(), BadHeader> {
    check_profile_header(name)?;
    if name.len() >= 3 && name.as_bytes()[..3].eq_ignore_ascii_case(b"ce-") {
        return Err(BadHeader::Reserved(shown(name)));
    }
    if value.len() > MAX_HEADER_BYTES || value.bytes().any(|b| !(b == b'\t' || (b' '..=b'~').contains(&b))) {
        return Err(BadHeader::Value(shown(name)));
    }
    Ok(())
}

/// Checks the name of a header that a profile fills from the event.
///
/// # Errors
/// [`BadHeader`].
pub fn check_profile_header(name: &str) -> Result<(), BadHeader> {
    check_signature_header(name)?;
    let lower = name.to_ascii_lowercase();
    let signs = SIGNING.iter().any(|name| lower.starts_with(name)) || lower == "x-webhook-request-id";
    if signs { Err(BadHeader::Reserved(shown(name))) } else { Ok(()) }
}

/// Checks the name of a header that a profile puts its signature in.
///
/// # Errors
/// [`BadHeader`].
pub fn check_signature_header(name: &str) -> Result<(), BadHeader> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || name.len() > 128 || !name.bytes().all(token) {
        return Err(BadHeader::Name(shown(name)));
    }
    let lower = name.to_ascii_lowercase();
    if RESERVED.contains(&lower.as_str()) || lower.starts_with("webhook-") {
        return Err(BadHeader::Reserved(shown(name)));
    }
    Ok(())
}

/// As much of a name as fits into a message.
fn shown(name: &str) -> String {
    name.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_are_not_theirs_are_refused() {
        for name in
            ["Host", "content-length", "Transfer-Encoding", "webhook-id", "Cookie", "Upgrade", "user-agent"]
        {
            assert!(matches!(check_header(name, "x"), Err(BadHeader::Reserved(_))), "{name}");
            assert!(matches!(check_signature_header(name), Err(BadHeader::Reserved(_))), "{name}");
        }
        for name in [
            "X-Webhook-Signature",
            "X-Webhook-Signature-Algorithm",
            "X-Webhook-Timestamp",
            "x-webhook-request-id",
            "Content-Digest",
            "Signature",
            "Signature-Input",
        ] {
            assert!(matches!(check_header(name, "x"), Err(BadHeader::Reserved(_))), "{name}");
            assert!(matches!(check_profile_header(name), Err(BadHeader::Reserved(_))), "{name}");
            assert!(check_signature_header(name).is_ok(), "{name}");
        }
        assert!(matches!(check_header("CE-Id", "x"), Err(BadHeader::Reserved(_))));
        assert!(check_profile_header("CE-Id").is_ok());
        for name in ["", ":path", "a b", "a\r\nb", "ü"] {
            assert!(matches!(check_header(name, "x"), Err(BadHeader::Name(_))), "{name:?}");
        }
        for value in ["a\r\nb", "a\0", "é", &"x".repeat(MAX_HEADER_BYTES + 1)] {
            assert!(matches!(check_header("X-Key", value), Err(BadHeader::Value(_))));
        }
        assert!(check_header("X-Shop_1", "a b\tc").is_ok());
    }
}
