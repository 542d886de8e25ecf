//! What control needs to be told.

use std::net::SocketAddr;
use std::sync::Arc;

use postrider_broker::Settings;
use postrider_core::address::EgressPolicy;
use postrider_core::seal::MasterKey;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use utoipa::ToSchema;

/// What control needs to be told.
#[derive(Debug)]
pub struct Config {
    /// Where the broker is.
    pub broker: Settings,
    /// Where the store is: `sqlite:PATH`.
    pub store_url: String,
    /// Where the API listens.
    pub listen: Listen,
    /// Opens the API.
    pub admin_token: AdminToken,
    /// Seals secrets.
    pub master_key: MasterKey,
    /// Which addresses a webhook's URL may name.
    pub egress: EgressPolicy,
    /// Refuse `http:` URLs.
    pub https_only: bool,
    /// The test inbox that the console shows, if there is one.
    pub inbox: Option<Arc<dyn postrider_console::Inbox>>,
    /// What this process was started with, for people to read.
    pub settings: Vec<Setting>,
}

/// A setting as this process found it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Setting {
    /// Its name in the settings file.
    pub name: &'static str,
    /// Its value, as it may be shown: a secret that is set is `***`. Null where there is none.
    pub value: Option<String>,
    /// Where the value came from: `default`, `file …`, `env …`, `secret file …`, or `state directory …`.
    pub source: String,
    /// Its name in the environment.
    pub env: String,
    /// What it is for.
    pub help: &'static str,
}

/// Where the API listens.
#[derive(Debug)]
pub enum Listen {
    /// At this address.
    Address(SocketAddr),
    /// On a socket that is bound already, so that its port is known.
    Bound(tokio::net::TcpListener),
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address)
    }
}

impl From<tokio::net::TcpListener> for Listen {
    fn from(listener: tokio::net::TcpListener) -> Self {
        Self::Bound(listener)
    }
}

/// The token that opens the API. Only its hash is kept.
#[derive(Clone)]
pub struct AdminToken([u8; 32]);

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "POSTRIDER_ADMIN_TOKEN must have 16 to 256 printable ASCII characters without spaces (openssl rand -hex 32 makes one)"
)]
pub struct BadToken;

impl AdminToken {
    /// Takes a token.
    ///
    /// # Errors
    /// [`BadToken`] when it is too short to be secret, or cannot be sent in a header.
    pub fn new(token: &str) -> Result<Self, BadToken> {
        if !(16..=256).contains(&token.len()) || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(BadToken);
        }
        Ok(Self(Sha256::digest(token).into()))
    }

    /// Whether this is the token, in the same time whatever it is.
    pub(crate) fn is(&self, given: &str) -> bool {
        let given: [u8; 32] = Sha256::digest(given).into();
        self.0.ct_eq(&given).into()
    }
}

impl std::fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AdminToken(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_compared_and_never_shown() {
        let token = AdminToken::new("0123456789abcdef").unwrap();
        assert!(token.is("0123456789abcdef"));
        assert!(!token.is("0123456789abcde") && !token.is(""));
        assert!(!format!("{token:?}").contains("0123"));
        assert!(AdminToken::new("short").is_err());
        assert!(AdminToken::new("with spaces in the middle").is_err());
    }
}
