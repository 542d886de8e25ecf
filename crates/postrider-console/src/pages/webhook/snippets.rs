//! How a receiver verifies a signature, in a few lines.

use postrider_core::profile::{Profile, Scheme};

/// The same lines as those of the page, so that a test can run them.
#[cfg(test)]
#[path = "../../../snippets/standard.rs"]
#[allow(missing_docs, unreachable_pub, reason = "it is for other people's code")]
mod rust;

/// Lines of one language.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Snippet {
    /// For the id of its element.
    pub(crate) id: &'static str,
    /// The language.
    pub(crate) language: &'static str,
    /// The lines.
    pub(crate) text: &'static str,
}

const STANDARD: [Snippet; 4] = [
    Snippet { id: "rust", language: "Rust", text: include_str!("../../../snippets/standard.rs") },
    Snippet { id: "node", language: "Node", text: include_str!("../../../snippets/standard.js") },
    Snippet { id: "python", language: "Python", text: include_str!("../../../snippets/standard.py") },
    Snippet { id: "go", language: "Go", text: include_str!("../../../snippets/standard.go") },
];
const BODY_HEX: [Snippet; 1] =
    [Snippet { id: "python", language: "Python", text: include_str!("../../../snippets/body_hex.py") }];
const CANONICAL: [Snippet; 1] =
    [Snippet { id: "python", language: "Python", text: include_str!("../../../snippets/canonical.py") }];
const HTTP_MESSAGE: [Snippet; 1] =
    [Snippet { id: "python", language: "Python", text: include_str!("../../../snippets/http_message.py") }];

/// Those for the signatures of a profile.
pub(crate) fn of(profile: Option<&Profile>) -> &'static [Snippet] {
    match profile.map(|profile| profile.spec().signature.scheme) {
        Some(Scheme::StandardWebhooks) => &STANDARD,
        Some(Scheme::BodyHex) => &BODY_HEX,
        Some(Scheme::Canonical) => &CANONICAL,
        Some(Scheme::HttpMessage) => &HTTP_MESSAGE,
        Some(Scheme::None) | None => &[],
    }
}

#[cfg(test)]
mod tests {
    use postrider_core::Timestamp;
    use postrider_core::profile::KeyForm;
    use postrider_core::signature::SigningKey;

    use super::*;

    #[test]
    fn python_is_as_documented_where_a_worker_is_verified_with_it() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/profiles.md");
        let page = std::fs::read_to_string(page).unwrap();
        for snippet in [STANDARD[2], BODY_HEX[0], CANONICAL[0], HTTP_MESSAGE[0]] {
            assert!(page.contains(snippet.text), "{}", snippet.text);
        }
    }

    #[test]
    fn the_rust_lines_take_what_was_signed_and_nothing_else() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let at = Timestamp::from_millis(1_700_000_000_000);
        let signature = SigningKey::of_secret(secret, KeyForm::Base64).unwrap().sign("msg_1", at, b"{}");
        let several = format!("v1,AAAA v1a,BBBB {signature}");
        let verify = |body: &[u8], id: &'static str, late_secs: i64| {
            let header = |name: &str| match name {
                "webhook-id" => Some(id),
                "webhook-timestamp" => Some("1700000000"),
                "webhook-signature" => Some(several.as_str()),
                _ => None,
            };
            rust::verify(secret, header, body, at.as_secs() + late_secs)
        };
        assert!(verify(b"{}", "msg_1", 0) && verify(b"{}", "msg_1", -300));
        assert!(!verify(b"{ }", "msg_1", 0), "another body");
        assert!(!verify(b"{}", "msg_2", 0), "another id");
        assert!(!verify(b"{}", "msg_1", 301), "too late");
        assert!(!rust::verify(secret, |_| None, b"{}", 0), "no headers");
    }

    #[test]
    fn each_signature_has_lines() {
        let built_in = Profile::built_in("standard").unwrap();
        assert_eq!(of(Some(&built_in)).len(), 4);
        assert!(of(None).is_empty());
    }
}
