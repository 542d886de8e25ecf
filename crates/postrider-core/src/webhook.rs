//! A receiver's registration.

use url::Url;
use zeroize::Zeroizing;

use crate::id::{TenantId, WebhookId};
use crate::retry::RetryPolicy;
use crate::seal::{BadSeal, MasterKey};
use crate::signature::SigningKey;
use crate::subscription::Subscription;

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
    /// Envelope, signature and success rules.
    pub profile: Profile,
    /// Which events it takes.
    pub subscription: Subscription,
    /// Whether it receives.
    pub state: WebhookState,
    /// When attempts follow each other.
    pub retry: RetryPolicy,
    /// Total deadline of a request, milliseconds.
    pub timeout_ms: u64,
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

/// Envelope, signature and success rules that a webhook speaks (DESIGN §7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Profile {
    /// The four members of the event and nothing else; Standard Webhooks headers; 2xx.
    #[default]
    Postrider,
}

impl Profile {
    /// The profile's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Postrider => "postrider",
        }
    }

    /// Reads a profile's name.
    pub fn parse(text: &str) -> Option<Self> {
        (text == Self::Postrider.as_str()).then_some(Self::Postrider)
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
#[derive(Clone, Debug, Default)]
pub struct SealedCredentials {
    /// Signing keys, the current one first.
    pub secrets: Vec<String>,
    /// The API key, if the receiver wants one.
    pub api_key: Option<SealedApiKey>,
    /// Static headers as a JSON object of strings, if there are any.
    pub headers: Option<String>,
}

/// An API key whose value is sealed.
#[derive(Clone, Debug)]
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
    /// Signing keys, the current one first.
    pub keys: Vec<SigningKey>,
    /// Place, name and value.
    pub api_key: Option<(KeyPlace, String, Zeroizing<String>)>,
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
}

impl Webhook {
    /// Opens everything that is sealed.
    ///
    /// # Errors
    /// [`BadSeal`] when the master key is another, or a value is damaged.
    pub fn open(&self, key: &MasterKey) -> Result<Credentials, BadSeal> {
        let open = |what, sealed: &str| -> Result<Zeroizing<String>, BadSeal> {
            let bytes = key.open(&purpose(&self.tenant, &self.id, what), sealed)?;
            let text = std::str::from_utf8(&bytes).map_err(|_| BadSeal::Damaged)?;
            Ok(Zeroizing::new(text.to_owned()))
        };
        let mut keys = Vec::with_capacity(self.sealed.secrets.len());
        for sealed in &self.sealed.secrets {
            keys.push(SigningKey::parse(&open(SecretKind::Signing, sealed)?).map_err(|_| BadSeal::Damaged)?);
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
        Ok(Credentials { keys, api_key, headers })
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

/// Checks a header that the owner of a webhook wants on every request (`reference/reliability.md` H-22).
///
/// # Errors
/// [`BadHeader`]; the value is never shown.
pub fn check_header(name: &str, value: &str) -> Result<(), BadHeader> {
    let shown = || name.chars().take(64).collect::<String>();
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || name.len() > 128 || !name.bytes().all(token) {
        return Err(BadHeader::Name(shown()));
    }
    const RESERVED: [&str; 18] = [
        "host",
        "content-length",
        "content-type",
        "content-encoding",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "te",
        "trailer",
        "upgrade",
        "expect",
        "cookie",
        "user-agent",
        "traceparent",
        "tracestate",
        "accept-encoding",
    ];
    let lower = name.to_ascii_lowercase();
    if RESERVED.contains(&lower.as_str()) || lower.starts_with("webhook-") {
        return Err(BadHeader::Reserved(shown()));
    }
    if value.len() > MAX_HEADER_BYTES || value.bytes().any(|b| !(b == b'\t' || (b' '..=b'~').contains(&b))) {
        return Err(BadHeader::Value(shown()));
    }
    Ok(())
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
        }
        for name in ["", ":path", "a b", "a\r\nb", "ü"] {
            assert!(matches!(check_header(name, "x"), Err(BadHeader::Name(_))), "{name:?}");
        }
        for value in ["a\r\nb", "a\0", "é", &"x".repeat(MAX_HEADER_BYTES + 1)] {
            assert!(matches!(check_header("X-Key", value), Err(BadHeader::Value(_))));
        }
        assert!(check_header("X-Shop_1", "a b\tc").is_ok());
    }
}
