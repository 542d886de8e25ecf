//! Secrets at rest and on the broker.
//!
//! XChaCha20-Poly1305 under the operator's master key. What the secret is for is bound in as associated data, so that
//! sealed values cannot be swapped between webhooks (`reference/reliability.md` S-27).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use zeroize::{Zeroize as _, Zeroizing};

use crate::id::hex;
use sha2::{Digest as _, Sha256};

/// The operator's key: 32 bytes, base64, from `POSTRIDER_MASTER_KEY`.
#[derive(Clone)]
pub struct MasterKey(Zeroizing<[u8; 32]>);

/// Why a master key is refused. The key is never shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMasterKey {
    /// Not base64 of 32 bytes.
    #[error("the master key must be 32 random bytes in base64 (openssl rand -base64 32 makes one)")]
    Shape,
    /// All bytes the same.
    #[error("the master key must be random (openssl rand -base64 32 makes one)")]
    NotRandom,
}

/// Why a sealed secret cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSeal {
    /// Another key sealed it.
    #[error(
        "sealed with master key {sealed_with}, but this is master key {this}; give the key that the store was made with"
    )]
    OtherKey {
        /// Fingerprint of the key that sealed.
        sealed_with: String,
        /// Fingerprint of the key at hand.
        this: String,
    },
    /// Changed, cut short, or moved from another place.
    #[error("the sealed secret is damaged, or belongs to something else")]
    Damaged,
}

impl MasterKey {
    /// Reads 32 bytes in base64.
    ///
    /// # Errors
    /// [`BadMasterKey`] when it is something else, or not random.
    pub fn parse(text: &str) -> Result<Self, BadMasterKey> {
        let mut bytes = STANDARD.decode(text.trim()).map_err(|_| BadMasterKey::Shape)?;
        let key = <[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| BadMasterKey::Shape);
        bytes.zeroize();
        let key = key?;
        if key.iter().all(|b| *b == key[0]) {
            return Err(BadMasterKey::NotRandom);
        }
        Ok(Self(Zeroizing::new(key)))
    }

    /// Eight hexadecimal digits that tell keys apart and give nothing away.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(b"postrider master key");
        hash.update(self.0.as_slice());
        hex(&hash.finalize()[..4])
    }

    /// Seals `secret` for `purpose`. The caller draws the nonce at random, anew each time.
    ///
    /// # Errors
    /// [`BadSeal::Damaged`] only if the secret is too long for the cipher (256 GiB).
    pub fn seal(&self, purpose: &str, secret: &[u8], nonce: [u8; 24]) -> Result<String, BadSeal> {
        let payload = Payload { msg: secret, aad: purpose.as_bytes() };
        let sealed = self.cipher().encrypt(&XNonce::from(nonce), payload).map_err(|_| BadSeal::Damaged)?;
        let mut bytes = nonce.to_vec();
        bytes.extend_from_slice(&sealed);
        Ok(format!("s1.{}.{}", self.fingerprint(), STANDARD.encode(bytes)))
    }

    /// Opens what was sealed for the same `purpose`.
    ///
    /// # Errors
    /// [`BadSeal`]: another key, or damaged.
    pub fn open(&self, purpose: &str, sealed: &str) -> Result<Zeroizing<Vec<u8>>, BadSeal> {
        let mut parts = sealed.splitn(3, '.');
        let (Some("s1"), Some(sealed_with), Some(encoded)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(BadSeal::Damaged);
        };
        let this = self.fingerprint();
        if sealed_with != this {
            return Err(BadSeal::OtherKey { sealed_with: sealed_with.chars().take(8).collect(), this });
        }
        let bytes = STANDARD.decode(encoded).map_err(|_| BadSeal::Damaged)?;
        let (nonce, sealed) = bytes.split_first_chunk::<24>().ok_or(BadSeal::Damaged)?;
        let payload = Payload { msg: sealed, aad: purpose.as_bytes() };
        let secret = self.cipher().decrypt(&XNonce::from(*nonce), payload).map_err(|_| BadSeal::Damaged)?;
        Ok(Zeroizing::new(secret))
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&(*self.0).into())
    }
}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MasterKey({})", self.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(byte: u8) -> MasterKey {
        let mut bytes = [7; 32];
        bytes[0] = byte;
        MasterKey::parse(&STANDARD.encode(bytes)).unwrap()
    }

    #[test]
    fn a_sealed_secret_opens_only_with_its_key_and_purpose() {
        let sealed = key(1).seal("wh_1/secret", b"whsec_x", [9; 24]).unwrap();
        assert!(!sealed.contains("whsec"));
        assert_eq!(key(1).open("wh_1/secret", &sealed).unwrap().as_slice(), b"whsec_x");
        assert_eq!(key(1).open("wh_2/secret", &sealed), Err(BadSeal::Damaged));
        assert!(matches!(key(2).open("wh_1/secret", &sealed), Err(BadSeal::OtherKey { .. })));
    }

    #[test]
    fn bad_keys_are_refused() {
        assert_eq!(MasterKey::parse("x").unwrap_err(), BadMasterKey::Shape);
        assert_eq!(MasterKey::parse(&STANDARD.encode([1; 31])).unwrap_err(), BadMasterKey::Shape);
        assert_eq!(MasterKey::parse(&STANDARD.encode([0; 32])).unwrap_err(), BadMasterKey::NotRandom);
    }

    proptest! {
        #[test]
        fn damage_is_an_error_and_never_a_panic(text in ".{0,80}", cut in 0usize..200) {
            prop_assert!(key(1).open("p", &text).is_err());
            let sealed = key(1).seal("p", b"secret", [3; 24]).unwrap();
            if cut < sealed.len() {
                prop_assert!(key(1).open("p", &sealed[..cut]).is_err());
            }
        }
    }
}
