//! Standard Webhooks 1.0.0: HMAC-SHA256 (`v1`) and Ed25519 (`v1a`) over `id.timestamp.body`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, Verifier as _};
use subtle::ConstantTimeEq as _;

use super::{SigningKey, hmac};
use crate::time::Timestamp;

/// How far the timestamp of a request may be from the receiver's clock, seconds.
pub const TOLERANCE_SECS: i64 = 300;

/// What an entry with a shared secret takes, bytes.
const ENTRY_BYTES: usize = 47;

impl SigningKey {
    /// One entry of the `webhook-signature` header: `v1,` or `v1a,` and base64.
    pub fn sign(&self, id: &str, at: Timestamp, body: &[u8]) -> String {
        let mut entry = String::with_capacity(ENTRY_BYTES);
        self.sign_to(&mut entry, id, at, body);
        entry
    }

    fn sign_to(&self, to: &mut String, id: &str, at: Timestamp, body: &[u8]) {
        match self {
            Self::Hmac(key) => {
                to.push_str("v1,");
                STANDARD.encode_string(mac(key, id, at, body), to);
            }
            Self::Ed25519(key) => {
                to.push_str("v1a,");
                STANDARD.encode_string(key.sign(&signed_content(id, at, body)).to_bytes(), to);
            }
        }
    }

    /// Whether `header`, a list separated by spaces, holds a good signature of this key.
    pub fn verifies(&self, header: &str, id: &str, at: Timestamp, body: &[u8]) -> bool {
        header.split(' ').any(|entry| match (self, entry.split_once(',')) {
            (Self::Hmac(key), Some(("v1", encoded))) => STANDARD
                .decode(encoded)
                .is_ok_and(|given| mac(key, id, at, body).ct_eq(given.as_slice()).into()),
            (Self::Ed25519(key), Some(("v1a", encoded))) => STANDARD
                .decode(encoded)
                .ok()
                .and_then(|given| ed25519_dalek::Signature::from_slice(&given).ok())
                .is_some_and(|given| {
                    key.verifying_key().verify(&signed_content(id, at, body), &given).is_ok()
                }),
            _ => false,
        })
    }
}

/// The value of `webhook-signature`: an entry for each key.
pub(super) fn header<'a>(
    keys: impl Iterator<Item = &'a SigningKey>,
    id: &str,
    at: Timestamp,
    body: &[u8],
) -> String {
    let mut value = String::with_capacity(ENTRY_BYTES);
    for key in keys {
        if !value.is_empty() {
            value.push(' ');
        }
        key.sign_to(&mut value, id, at, body);
    }
    value
}

/// Why a receiver should not trust a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    /// One of the three headers is not there, or not as it should be.
    #[error("the header {0} is missing or malformed")]
    Header(&'static str),
    /// The timestamp is too far away.
    #[error("the timestamp is more than {TOLERANCE_SECS} s from this clock")]
    Timestamp,
    /// There is no signature at all.
    #[error("the request is not signed, or not as it is expected here")]
    NoSignature,
    /// The digest is another body's.
    #[error("the header content-digest does not fit the body")]
    Digest,
    /// No signature fits.
    #[error("no signature fits the secret and the body")]
    Signature,
}

/// What a receiver does with a request: checks timestamp and signature.
///
/// # Errors
/// [`Untrusted`] with the first thing that is wrong.
pub fn verify(
    key: &SigningKey,
    header: impl Fn(&str) -> Option<String>,
    body: &[u8],
    now: Timestamp,
) -> Result<(), Untrusted> {
    let required = |name: &'static str| header(name).filter(|v| !v.is_empty()).ok_or(Untrusted::Header(name));
    let id = required("webhook-id")?;
    let seconds = required("webhook-timestamp")?;
    let signatures = required("webhook-signature")?;
    let seconds: i64 = seconds.parse().map_err(|_| Untrusted::Header("webhook-timestamp"))?;
    if now.as_secs().abs_diff(seconds) > TOLERANCE_SECS.unsigned_abs() {
        return Err(Untrusted::Timestamp);
    }
    let at = Timestamp::from_millis(seconds.saturating_mul(1000));
    if key.verifies(&signatures, &id, at, body) { Ok(()) } else { Err(Untrusted::Signature) }
}

fn signed_content(id: &str, at: Timestamp, body: &[u8]) -> Vec<u8> {
    let mut content = format!("{id}.{}.", at.as_secs()).into_bytes();
    content.extend_from_slice(body);
    content
}

fn mac(key: &[u8], id: &str, at: Timestamp, body: &[u8]) -> [u8; 32] {
    hmac(key, &[id.as_bytes(), format!(".{}.", at.as_secs()).as_bytes(), body])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::signature::BadKey;

    const V1: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const AT: Timestamp = Timestamp::from_millis(1_614_265_330_000);
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const ED: &str =
        "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";

    #[test]
    fn official_vectors() {
        let key = SigningKey::parse(V1).unwrap();
        assert_eq!(key.sign(ID, AT, BODY), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let key = SigningKey::parse("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD").unwrap();
        assert_eq!(
            key.sign(
                "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
                Timestamp::from_millis(1_649_367_553_000),
                br#"{"email":"test@example.com","username":"test_user"}"#
            ),
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw="
        );
        let key = SigningKey::parse(ED).unwrap();
        assert_eq!(
            key.sign(ID, AT, BODY),
            "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="
        );
        assert_eq!(key.public_key().unwrap(), "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=");
    }

    #[test]
    fn any_bytes_can_be_signed() {
        let key = SigningKey::parse(V1).unwrap();
        let every_byte: Vec<u8> = (0..=255).collect();
        for (body, signature) in [
            (&b""[..], "v48jdbgvh29KJz2Qc+ghw8G6vG3nAKnujWBg8oM/62A="),
            (b"x", "6r2kIAv0EH9Xdn1ZStTdAQq79fFXrP5P6VRnWlitNfc="),
            (b"{\"a\":1}\n", "gHpkzUwAcTCAx6mVTdVP1Xcvw5OF91BO8CGnDfdstVo="),
            ("{\"n\":\"Zażółć 🐇\"}".as_bytes(), "Dr+FIky+TY0iFDbOyBNqFl3d4Op5cCdVNh1WvqhueD0="),
            (&every_byte, "sEcZ042G8Crqgxbybb3y0eDxQR3TcfYsk11I1XULhSI="),
        ] {
            assert_eq!(key.sign(ID, AT, body), format!("v1,{signature}"));
        }
    }

    #[test]
    fn secrets_may_lack_prefix_and_padding() {
        for (secret, signature) in [
            ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
            ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwBr", "yK2tMbA6BHPrMEJ1lLv7UlJJbgFoqGenJkiajZ29evg="),
        ] {
            assert_eq!(SigningKey::parse(secret).unwrap().sign(ID, AT, BODY), format!("v1,{signature}"));
        }
        // 23 bytes: the reference libraries take it, the text of the standard asks for 24 at least.
        assert_eq!(SigningKey::parse("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS=").unwrap_err(), BadKey::Length);
    }

    #[test]
    fn bad_secrets_are_refused_without_being_shown() {
        let zeros = format!("whsec_{}", STANDARD.encode([0; 32]));
        for (bad, why) in [
            ("", BadKey::Length),
            ("whsec_", BadKey::Length),
            ("whsec_AAAA", BadKey::Length),
            ("whsec_not base64!", BadKey::NotBase64),
            ("whsk_AAAA", BadKey::Length),
            (zeros.as_str(), BadKey::NotRandom),
        ] {
            assert_eq!(SigningKey::parse(bad).unwrap_err(), why, "{bad}");
        }
        assert_eq!(format!("{:?}", SigningKey::parse(V1).unwrap()), "SigningKey(whsec_…)");
    }

    #[test]
    fn verification_has_the_libraries_behaviour() {
        let key = SigningKey::parse(V1).unwrap();
        let good = key.sign(ID, AT, BODY);
        let check = |id: Option<&str>, at: Option<&str>, signature: Option<&str>, now_secs: i64| {
            let header = |name: &str| match name {
                "webhook-id" => id.map(str::to_owned),
                "webhook-timestamp" => at.map(str::to_owned),
                _ => signature.map(str::to_owned),
            };
            verify(&key, header, BODY, Timestamp::from_millis(now_secs * 1000))
        };
        let now = AT.as_secs();
        let at = Some("1614265330");
        assert_eq!(check(Some(ID), at, Some(&good), now), Ok(()));
        assert_eq!(check(None, at, Some(&good), now), Err(Untrusted::Header("webhook-id")));
        assert_eq!(check(Some(ID), None, Some(&good), now), Err(Untrusted::Header("webhook-timestamp")));
        assert_eq!(
            check(Some(ID), Some("hello"), Some(&good), now),
            Err(Untrusted::Header("webhook-timestamp"))
        );
        assert_eq!(check(Some(ID), at, None, now), Err(Untrusted::Header("webhook-signature")));
        for late in [-301, 301] {
            assert_eq!(check(Some(ID), at, Some(&good), now + late), Err(Untrusted::Timestamp));
        }
        let wrong = good.replace("OE=", "OA=");
        for bad in ["v1,", &good[..30], &good.replace("v1,", "v2,"), &wrong, "g0hM9SsE"] {
            assert_eq!(check(Some(ID), at, Some(bad), now), Err(Untrusted::Signature), "{bad}");
        }
        assert_eq!(check(Some(ID), at, Some(&format!("v2,x {wrong} {good}")), now), Ok(()));
    }

    proptest! {
        #[test]
        fn what_is_signed_verifies_and_nothing_else_does(
            seed in any::<[u8; 32]>(), body in prop::collection::vec(any::<u8>(), 0..300), flip in any::<prop::sample::Index>(),
        ) {
            prop_assume!(seed.iter().any(|b| *b != seed[0]));
            for prefix in ["whsec_", "whsk_"] {
                let key = SigningKey::parse(&format!("{prefix}{}", STANDARD.encode(seed))).unwrap();
                let header = key.sign(ID, AT, &body);
                prop_assert!(key.verifies(&header, ID, AT, &body));
                if !body.is_empty() {
                    let mut other = body.clone();
                    other[flip.index(body.len())] ^= 1;
                    prop_assert!(!key.verifies(&header, ID, AT, &other));
                }
            }
        }
    }
}
