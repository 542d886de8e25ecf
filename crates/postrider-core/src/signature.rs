//! Signatures of requests, one file for each scheme, and the keys that make them.
//!
//! Every scheme covers the exact bytes that are sent. Standard Webhooks signs with all secrets that are still good, so
//! that receivers can change over; the others have one signature, by the current secret.

mod body_hex;
mod canonical;
mod http_message;
mod standard_webhooks;
mod verify;

use base64::Engine as _;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::{GeneralPurposeConfig, STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use url::Url;
use zeroize::Zeroizing;

pub use standard_webhooks::{TOLERANCE_SECS, Untrusted, verify};
pub use verify::{Arrived, verify_by};

use crate::id::{DeliveryId, WebhookId};
use crate::profile::{KeyForm, Scheme, SignatureSpec};
use crate::request::Header;
use crate::time::Timestamp;
use crate::webhook::Credentials;

const DECODE: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// A key that signs. It shows nothing of itself in logs, and its memory is wiped when it is dropped.
#[derive(Clone)]
pub enum SigningKey {
    /// `whsec_…`: shared with the receiver.
    Hmac(Zeroizing<Vec<u8>>),
    /// `whsk_…`: the receiver has the public half.
    Ed25519(Box<ed25519_dalek::SigningKey>),
}

/// Why a text is not a signing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// Not base64.
    #[error("the secret must be base64 after its prefix (whsec_ or whsk_)")]
    NotBase64,
    /// Too short or too long.
    #[error("the secret must hold 24 to 64 bytes (whsec_), or 32 or 64 bytes (whsk_)")]
    Length,
    /// All bytes the same.
    #[error("the secret must be random, not the same byte over and over")]
    NotRandom,
    /// Not a text that the profile can sign with.
    #[error("the secret must have 16 to 256 printable ASCII characters and no spaces")]
    Text,
}

impl SigningKey {
    /// Reads `whsec_` + base64 (the prefix may be missing, padding too) or `whsk_` + base64.
    ///
    /// # Errors
    /// [`BadKey`]; none of them shows the secret.
    pub fn parse(text: &str) -> Result<Self, BadKey> {
        if let Some(encoded) = text.strip_prefix("whsk_") {
            let bytes = Zeroizing::new(DECODE.decode(encoded).map_err(|_| BadKey::NotBase64)?);
            // The seed alone, or the seed followed by the public key.
            if bytes.len() != 32 && bytes.len() != 64 {
                return Err(BadKey::Length);
            }
            let seed: &[u8; 32] = bytes.first_chunk().ok_or(BadKey::Length)?;
            return Ok(Self::Ed25519(Box::new(ed25519_dalek::SigningKey::from_bytes(seed))));
        }
        let encoded = text.strip_prefix("whsec_").unwrap_or(text);
        let bytes = Zeroizing::new(DECODE.decode(encoded).map_err(|_| BadKey::NotBase64)?);
        if bytes.len() < 24 || bytes.len() > 64 {
            return Err(BadKey::Length);
        }
        if bytes.iter().all(|b| *b == bytes[0]) {
            return Err(BadKey::NotRandom);
        }
        Ok(Self::Hmac(bytes))
    }

    /// Reads a webhook's secret as its profile wants it.
    ///
    /// # Errors
    /// [`BadKey`]; none of them shows the secret.
    pub fn of_secret(text: &str, form: KeyForm) -> Result<Self, BadKey> {
        match form {
            KeyForm::Base64 => Self::parse(text),
            KeyForm::Text => Self::of_text(text),
            KeyForm::TextAfterPrefix => Self::of_text(text.strip_prefix("whsec_").unwrap_or(text)),
        }
    }

    fn of_text(text: &str) -> Result<Self, BadKey> {
        let printable = text.bytes().all(|b| b.is_ascii_graphic());
        if !printable || !(16..=256).contains(&text.len()) {
            return Err(BadKey::Text);
        }
        if text.bytes().all(|b| b == text.as_bytes()[0]) {
            return Err(BadKey::NotRandom);
        }
        Ok(Self::Hmac(Zeroizing::new(text.as_bytes().to_vec())))
    }

    /// `whpk_…` to give to the receiver; `None` for a shared secret.
    pub fn public_key(&self) -> Option<String> {
        match self {
            Self::Hmac(_) => None,
            Self::Ed25519(key) => Some(format!("whpk_{}", STANDARD.encode(key.verifying_key().to_bytes()))),
        }
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Hmac(_) => "SigningKey(whsec_…)",
            Self::Ed25519(_) => "SigningKey(whsk_…)",
        })
    }
}

/// `whsec_…` from 32 random bytes that the caller drew.
pub fn secret_text(random: &[u8; 32]) -> Zeroizing<String> {
    Zeroizing::new(format!("whsec_{}", STANDARD.encode(random)))
}

/// A new secret in the form that a profile wants, from 32 random bytes that the caller drew.
pub fn new_secret(form: KeyForm, random: &[u8; 32]) -> Zeroizing<String> {
    match form {
        KeyForm::Base64 => secret_text(random),
        KeyForm::Text => Zeroizing::new(URL_SAFE_NO_PAD.encode(random)),
        KeyForm::TextAfterPrefix => Zeroizing::new(format!("whsec_{}", URL_SAFE_NO_PAD.encode(random))),
    }
}

/// Where [`Scheme::BodyHex`] signs if its profile does not say.
const BODY_HEX_HEADER: &str = "x-webhook-signature";

/// What is signed: a request, but for its headers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signable<'a> {
    pub(crate) webhook: &'a WebhookId,
    pub(crate) delivery: &'a DeliveryId,
    /// What is requested, with its query and without a fragment.
    pub(crate) url: &'a Url,
    pub(crate) body: &'a [u8],
    pub(crate) at: Timestamp,
}

/// Why a request cannot be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CannotSign {
    /// There is no secret that is still good.
    NoSecret,
    /// The secret is no shared one.
    NotShared,
}

/// The headers that sign a request: names in lower case.
pub(crate) fn headers(
    spec: &SignatureSpec,
    credentials: &Credentials,
    request: Signable<'_>,
) -> Result<Vec<Header>, CannotSign> {
    let Signable { webhook, delivery, url, body, at } = request;
    let good = || credentials.keys.iter().filter(|(_, until)| until.is_none_or(|until| at < until));
    let current = || match good().next() {
        Some((SigningKey::Hmac(key), _)) => Ok(key.as_slice()),
        Some((SigningKey::Ed25519(_), _)) => Err(CannotSign::NotShared),
        None => Err(CannotSign::NoSecret),
    };
    let header = |(name, value): (&'static str, String)| (name.into(), value.into());
    Ok(match spec.scheme {
        Scheme::StandardWebhooks => {
            good().next().ok_or(CannotSign::NoSecret)?;
            let keys = good().map(|(key, _)| key);
            let value = standard_webhooks::header(keys, &delivery.message_id(), at, body);
            vec![("webhook-signature".into(), value.into())]
        }
        Scheme::BodyHex => {
            let name = spec.header.as_deref().unwrap_or(BODY_HEX_HEADER);
            vec![(name.to_ascii_lowercase().into(), body_hex::value(current()?, body).into())]
        }
        Scheme::Canonical => {
            let (version, id) = (credentials.version, delivery.uuid());
            canonical::headers(current()?, version, url, body, at, id).map(header).into()
        }
        Scheme::HttpMessage => {
            http_message::headers(current()?, webhook.as_str(), url, body, at).map(header).into()
        }
        Scheme::None => Vec::new(),
    })
}

/// HMAC-SHA256 of these parts, one after the other.
fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    // HMAC takes keys of any length, so this cannot fail; an impossible error gives a signature that fits nothing.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_secrets_can_be_read_in_their_form() {
        let random: [u8; 32] = std::array::from_fn(|n| 250_u8.wrapping_add(n as u8));
        for (form, length) in [(KeyForm::Base64, 50), (KeyForm::Text, 43), (KeyForm::TextAfterPrefix, 49)] {
            let secret = new_secret(form, &random);
            assert_eq!(secret.len(), length);
            let SigningKey::Hmac(key) = SigningKey::of_secret(&secret, form).unwrap() else {
                panic!("a shared secret");
            };
            match form {
                KeyForm::Base64 => assert_eq!(key.as_slice(), random),
                KeyForm::Text => assert_eq!(key.as_slice(), secret.as_bytes()),
                KeyForm::TextAfterPrefix => assert_eq!(key.as_slice(), &secret.as_bytes()[6..]),
            }
        }
    }

    #[test]
    fn texts_that_are_no_secrets_are_refused() {
        for form in [KeyForm::Text, KeyForm::TextAfterPrefix] {
            for bad in ["", "fifteen letters", "sixteen letters…", &"x1".repeat(129), "0123456789 abcdef"] {
                assert_eq!(SigningKey::of_secret(bad, form).unwrap_err(), BadKey::Text, "{bad:?}");
            }
            assert_eq!(SigningKey::of_secret(&"x".repeat(20), form).unwrap_err(), BadKey::NotRandom);
            assert!(SigningKey::of_secret("0123456789abcdef", form).is_ok());
        }
        assert_eq!(
            SigningKey::of_secret("whsec_0123456789", KeyForm::TextAfterPrefix).unwrap_err(),
            BadKey::Text
        );
    }
}
