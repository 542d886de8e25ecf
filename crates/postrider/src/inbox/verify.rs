//! By which profile the requests of a name are verified.

use postrider_core::Timestamp;
use postrider_core::catalogue::Catalogue;
use postrider_core::profile::{BUILT_IN, Profile, Scheme, SignatureSpec};
use postrider_core::signature::{Arrived, SigningKey, Untrusted, verify_by};
use url::Url;

use super::book::{BadOrder, Given};
use crate::builtin;

/// Verifies requests of one profile, signed with one secret.
#[derive(Clone, Debug)]
pub struct Verifier {
    signature: SignatureSpec,
    key: SigningKey,
}

impl Verifier {
    /// With a secret as the profile wants it.
    ///
    /// # Errors
    /// [`BadOrder`] when the secret is not one.
    pub fn new(signature: SignatureSpec, secret: &str) -> Result<Self, BadOrder> {
        let key = SigningKey::of_secret(secret, signature.key)?;
        Ok(Self { signature, key })
    }

    /// How it is verified; nothing where nothing is signed.
    pub(super) fn scheme(&self) -> Option<Scheme> {
        (self.signature.scheme != Scheme::None).then_some(self.signature.scheme)
    }

    /// Verifies a request. It must have come here without a proxy that changed the host or the path.
    pub(super) fn verify(&self, given: &Given<'_>, at: Timestamp) -> Result<(), Untrusted> {
        let header = |name: &str| {
            given.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
        };
        let host = header("host").filter(|host| !host.is_empty()).ok_or(Untrusted::Header("host"))?;
        let url = format!("{}://{host}{}", given.scheme, given.path);
        let url: Url = url.parse().map_err(|_| Untrusted::Header("host"))?;
        let request = Arrived { method: given.method, url: &url, header: &header, body: given.body };
        verify_by(&self.signature, &self.key, &request, at)
    }
}

/// How requests of a profile are signed, by its name: one that comes with the program, or one of the four products.
///
/// # Errors
/// [`BadOrder::Profile`] for any other name.
pub fn signature_of(profile: &str) -> Result<SignatureSpec, BadOrder> {
    if let Some(profile) = Profile::built_in(profile) {
        return Ok(profile.spec().signature.clone());
    }
    let mut known: Vec<String> = BUILT_IN.map(str::to_owned).into();
    for (_, text) in builtin::all() {
        // A test reads all of them.
        let Some(spec) = toml::from_str::<Catalogue>(text).ok().and_then(|catalogue| catalogue.profile)
        else {
            continue;
        };
        if spec.name == profile {
            return Ok(spec.signature);
        }
        known.push(spec.name);
    }
    Err(BadOrder::Profile { known: known.join(", ") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profiles_of_the_products_are_known() {
        for (profile, scheme) in [
            ("postrider", Scheme::StandardWebhooks),
            ("cloudevents-binary", Scheme::StandardWebhooks),
            ("skillmine", Scheme::StandardWebhooks),
            ("upmind", Scheme::BodyHex),
            ("open-loyalty", Scheme::Canonical),
            ("entrust", Scheme::HttpMessage),
        ] {
            assert_eq!(signature_of(profile).unwrap().scheme, scheme, "{profile}");
        }
        let refused = signature_of("entrusted").unwrap_err().to_string();
        assert!(refused.contains("cloudevents-binary, entrust, open-loyalty"), "{refused}");
    }
}
