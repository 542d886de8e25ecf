//! What receivers do: every scheme, verified from the request alone.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq as _;
use url::Url;

use super::{SigningKey, TOLERANCE_SECS, Untrusted, canonical, hmac, http_message, verify};
use crate::id::hex;
use crate::profile::{Scheme, SignatureSpec};
use crate::time::Timestamp;

/// A request as it reached a receiver.
#[derive(Clone, Copy)]
pub struct Arrived<'a> {
    /// The method.
    pub method: &'a str,
    /// What was requested, with its query.
    pub url: &'a Url,
    /// A header's value, by its name in lower case.
    pub header: &'a dyn Fn(&str) -> Option<String>,
    /// The exact bytes of the body.
    pub body: &'a [u8],
}

impl std::fmt::Debug for Arrived<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Arrived({} {}, {} bytes)", self.method, self.url.path(), self.body.len())
    }
}

impl Arrived<'_> {
    fn required(&self, name: &'static str) -> Result<String, Untrusted> {
        (self.header)(name).filter(|value| !value.is_empty()).ok_or(Untrusted::Header(name))
    }
}

/// Verifies a request by a scheme: signature, and timestamp where there is a signed one.
///
/// # Errors
/// [`Untrusted`] with the first thing that is wrong. [`Scheme::None`] is never trusted: nothing was proved.
pub fn verify_by(
    spec: &SignatureSpec,
    key: &SigningKey,
    request: &Arrived<'_>,
    now: Timestamp,
) -> Result<(), Untrusted> {
    let shared = || match key {
        SigningKey::Hmac(key) => Ok(key.as_slice()),
        SigningKey::Ed25519(_) => Err(Untrusted::Signature),
    };
    match spec.scheme {
        Scheme::StandardWebhooks => verify(key, request.header, request.body, now),
        Scheme::BodyHex => {
            let name = spec.header.as_deref().unwrap_or(super::BODY_HEX_HEADER).to_ascii_lowercase();
            let given = (request.header)(&name).ok_or(Untrusted::NoSignature)?;
            same_hex(&given, &hmac(shared()?, &[request.body]))
        }
        Scheme::Canonical => by_canonical(shared()?, request, now),
        Scheme::HttpMessage => by_http_message(shared()?, request, now),
        Scheme::None => Err(Untrusted::NoSignature),
    }
}

fn by_canonical(key: &[u8], request: &Arrived<'_>, now: Timestamp) -> Result<(), Untrusted> {
    let given = request.required("x-webhook-signature")?;
    let seconds = request.required("x-webhook-timestamp")?;
    let id = request.required("x-webhook-request-id")?;
    if request.required("x-webhook-signature-algorithm")? != "hmac-sha256" {
        return Err(Untrusted::Header("x-webhook-signature-algorithm"));
    }
    let seconds: i64 = seconds.parse().map_err(|_| Untrusted::Header("x-webhook-timestamp"))?;
    let at = recent(seconds, now)?;
    if request.method != "POST" {
        return Err(Untrusted::Signature);
    }
    same_hex(&given, &hmac(key, &[canonical::string(request.url, request.body, at, &id).as_bytes()]))
}

/// RFC 9421 with one signature, whose label is of no matter, over at least method, target and `Content-Digest`.
fn by_http_message(key: &[u8], request: &Arrived<'_>, now: Timestamp) -> Result<(), Untrusted> {
    let digest = request.required("content-digest")?;
    let input = request.required("signature-input")?;
    let signature = request.required("signature")?;
    let unreadable = Untrusted::Header("signature-input");
    let (label, input) = input.split_once('=').ok_or(unreadable)?;
    let (components, parameters) = covered(input).ok_or(unreadable)?;
    for needed in ["@method", "@target-uri", "content-digest"] {
        if !components.contains(&needed) {
            return Err(unreadable);
        }
    }
    let mut values = Vec::with_capacity(components.len());
    for name in components {
        let value = match name {
            "@method" => request.method.to_owned(),
            "@target-uri" => request.url.as_str().to_owned(),
            name if name.starts_with('@') => return Err(unreadable),
            name => (request.header)(name).ok_or(unreadable)?,
        };
        values.push((name, value));
    }
    let parameter = |wanted: &str| {
        let mut all = parameters.split(';').filter_map(|parameter| parameter.split_once('='));
        all.find_map(|(name, value)| (name == wanted).then(|| value.trim_matches('"')))
    };
    if parameter("alg").is_some_and(|algorithm| algorithm != "hmac-sha256") {
        return Err(unreadable);
    }
    let created = parameter("created").and_then(|seconds| seconds.parse().ok()).ok_or(unreadable)?;
    recent(created, now)?;
    let borrowed: Vec<(&str, &str)> = values.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let (base, _) = http_message::base(&borrowed, parameters);
    let given = signature
        .strip_prefix(label)
        .and_then(|rest| rest.strip_prefix("=:")?.strip_suffix(':'))
        .and_then(|encoded| STANDARD.decode(encoded).ok())
        .ok_or(Untrusted::Header("signature"))?;
    if !bool::from(hmac(key, &[base.as_bytes()]).ct_eq(given.as_slice())) {
        return Err(Untrusted::Signature);
    }
    // The digest is signed: now it has to be the body's.
    if digest == http_message::content_digest(request.body) { Ok(()) } else { Err(Untrusted::Digest) }
}

/// The covered components of a signature's input, and its parameters as they are written.
fn covered(input: &str) -> Option<(Vec<&str>, &str)> {
    let (names, parameters) = input.strip_prefix('(')?.split_once(')')?;
    let bare = |name: &'_ str| -> bool {
        !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"@-".contains(&b))
    };
    let mut components = Vec::new();
    for name in names.split(' ') {
        let name = name.strip_prefix('"')?.strip_suffix('"')?;
        if !bare(name) || components.contains(&name) {
            return None;
        }
        components.push(name);
    }
    Some((components, parameters))
}

fn recent(seconds: i64, now: Timestamp) -> Result<Timestamp, Untrusted> {
    if now.as_secs().abs_diff(seconds) > TOLERANCE_SECS.unsigned_abs() {
        return Err(Untrusted::Timestamp);
    }
    Ok(Timestamp::from_millis(seconds.saturating_mul(1000)))
}

fn same_hex(given: &str, expected: &[u8; 32]) -> Result<(), Untrusted> {
    match bool::from(given.as_bytes().ct_eq(hex(expected).as_bytes())) {
        true => Ok(()),
        false => Err(Untrusted::Signature),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{DeliveryId, EventId, TenantId, WebhookId};
    use crate::profile::KeyForm;
    use crate::signature::{Signable, headers};
    use crate::webhook::Credentials;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const AT: Timestamp = Timestamp::from_millis(1_700_000_000_000);
    const URL: &str = "https://example.com:8443/in/a?b=c";
    const BODY: &[u8] = br#"{"type":"X"}"#;

    const SIGNED: [Scheme; 4] =
        [Scheme::StandardWebhooks, Scheme::BodyHex, Scheme::Canonical, Scheme::HttpMessage];

    fn spec(scheme: Scheme) -> SignatureSpec {
        SignatureSpec { scheme, header: None, key: KeyForm::TextAfterPrefix }
    }

    fn signed(scheme: Scheme) -> Vec<(String, String)> {
        let key = SigningKey::of_secret(SECRET, KeyForm::TextAfterPrefix).unwrap();
        let credentials = Credentials {
            keys: vec![(key, None)],
            version: 1,
            api_key: None,
            auth: None,
            tls: None,
            headers: Vec::new(),
        };
        let (webhook, url) = (WebhookId::from_trusted("wh_1"), Url::parse(URL).unwrap());
        let delivery = DeliveryId::of(&TenantId::default_tenant(), &EventId::from_trusted("e"), &webhook);
        let request = Signable { webhook: &webhook, delivery: &delivery, url: &url, body: BODY, at: AT };
        let mut all = vec![
            ("webhook-id".to_owned(), delivery.message_id()),
            ("webhook-timestamp".to_owned(), AT.as_secs().to_string()),
        ];
        let signed = headers(&spec(scheme), &credentials, request).unwrap();
        all.extend(signed.into_iter().map(|(name, value)| (name.into_owned(), value.into_owned())));
        all
    }

    struct Case<'a> {
        method: &'a str,
        url: &'a str,
        body: &'a [u8],
        secret: &'a str,
        late_secs: i64,
    }

    const AS_SENT: Case<'_> = Case { method: "POST", url: URL, body: BODY, secret: SECRET, late_secs: 0 };

    fn check(scheme: Scheme, headers: &[(String, String)], case: &Case<'_>) -> Result<(), Untrusted> {
        let header = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
        let url = Url::parse(case.url).unwrap();
        let request = Arrived { method: case.method, url: &url, header: &header, body: case.body };
        let key = SigningKey::of_secret(case.secret, KeyForm::TextAfterPrefix).unwrap();
        let now = Timestamp::from_millis(AT.as_millis() + case.late_secs * 1000);
        verify_by(&spec(scheme), &key, &request, now)
    }

    #[test]
    fn what_is_signed_is_verified_and_nothing_that_was_changed() {
        for scheme in SIGNED {
            let headers = signed(scheme);
            assert_eq!(check(scheme, &headers, &AS_SENT), Ok(()), "{scheme:?}");
            let other = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSx";
            let refused = check(scheme, &headers, &Case { secret: other, ..AS_SENT });
            assert_eq!(refused, Err(Untrusted::Signature), "{scheme:?}");
            assert!(check(scheme, &headers, &Case { body: b"{}", ..AS_SENT }).is_err(), "{scheme:?}");
            let covers_target = matches!(scheme, Scheme::Canonical | Scheme::HttpMessage);
            for case in [
                Case { url: "https://example.com:8443/in/b?b=c", ..AS_SENT },
                Case { url: "https://example.org:8443/in/a?b=c", ..AS_SENT },
                Case { method: "PUT", ..AS_SENT },
            ] {
                let expected = if covers_target { Err(Untrusted::Signature) } else { Ok(()) };
                assert_eq!(check(scheme, &headers, &case), expected, "{scheme:?} {}", case.url);
            }
            for late_secs in [-301, 301] {
                let expected = if scheme == Scheme::BodyHex { Ok(()) } else { Err(Untrusted::Timestamp) };
                assert_eq!(check(scheme, &headers, &Case { late_secs, ..AS_SENT }), expected, "{scheme:?}");
            }
        }
    }

    #[test]
    fn every_signing_header_is_needed_and_none_may_change() {
        for scheme in SIGNED {
            let headers = signed(scheme);
            for n in 0..headers.len() {
                let name = headers[n].0.clone();
                let ours = scheme != Scheme::StandardWebhooks && name.starts_with("webhook-");
                // It says which key, and is not signed.
                if ours || name == "x-webhook-signature-version" {
                    continue;
                }
                let mut without = headers.clone();
                without.remove(n);
                assert!(check(scheme, &without, &AS_SENT).is_err(), "{scheme:?} without {name}");
                let mut changed = headers.clone();
                changed[n].1 = changed[n].1.replace(|c: char| c.is_ascii_digit(), "7");
                assert!(check(scheme, &changed, &AS_SENT).is_err(), "{scheme:?} with another {name}");
            }
        }
        assert_eq!(check(Scheme::None, &[], &AS_SENT), Err(Untrusted::NoSignature));
        assert_eq!(check(Scheme::BodyHex, &[], &AS_SENT), Err(Untrusted::NoSignature));
    }

    #[test]
    fn a_message_signature_must_cover_what_matters() {
        let headers = signed(Scheme::HttpMessage);
        let given = &headers.iter().find(|(name, _)| name == "signature-input").unwrap().1;
        for weaker in [
            given.replace(" \"content-digest\"", ""),
            given.replace("\"@method\" ", ""),
            given.replace("hmac-sha256", "none"),
            given.replace("created=", "made="),
            given.replace("\"@method\"", "\"@method\" \"@query\""),
            given.replace("\"@method\"", "\"@method\" \"@method\""),
            given.replace("\"@method\"", "\"@method\";req"),
            "sig".to_owned(),
        ] {
            let changed: Vec<(String, String)> = headers
                .iter()
                .cloned()
                .map(
                    |(name, value)| {
                        if name == "signature-input" { (name, weaker.clone()) } else { (name, value) }
                    },
                )
                .collect();
            let refused = check(Scheme::HttpMessage, &changed, &AS_SENT);
            assert_eq!(refused, Err(Untrusted::Header("signature-input")), "{weaker}");
        }
    }

    /// RFC 9421, appendix B.2.5 covers other components; here with ours in another order, made by hand.
    #[test]
    fn components_may_come_in_any_order() {
        let body = b"{}";
        let digest = http_message::content_digest(body);
        let key = b"0123456789abcdef0123456789abcdef";
        let base = format!(
            "\"content-digest\": {digest}\n\"@target-uri\": {URL}\n\"@method\": POST\n\"@signature-params\": \
             (\"content-digest\" \"@target-uri\" \"@method\");created=1700000000"
        );
        let signature = STANDARD.encode(hmac(key, &[base.as_bytes()]));
        let input = "k1=(\"content-digest\" \"@target-uri\" \"@method\");created=1700000000";
        let headers = [
            ("content-digest".to_owned(), digest),
            ("signature-input".to_owned(), input.to_owned()),
            ("signature".to_owned(), format!("k1=:{signature}:")),
        ];
        let case = Case { body, secret: "0123456789abcdef0123456789abcdef", ..AS_SENT };
        assert_eq!(check(Scheme::HttpMessage, &headers, &case), Ok(()));
    }
}
