//! HTTP message signatures (RFC 9421) with `hmac-sha256` over method, target and `Content-Digest` (RFC 9530).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use url::Url;

use super::hmac;
use crate::time::Timestamp;

/// The value of `Content-Digest`.
pub(super) fn content_digest(body: &[u8]) -> String {
    format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(body)))
}

/// The signature base (RFC 9421 §2.5) of these components, and the parameters that go into `Signature-Input`.
pub(super) fn base(components: &[(&str, &str)], parameters: &str) -> (String, String) {
    let names: Vec<String> = components.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    let input = format!("({}){parameters}", names.join(" "));
    let mut base = String::new();
    for (name, value) in components {
        base.push_str(&format!("\"{name}\": {value}\n"));
    }
    base.push_str(&format!("\"@signature-params\": {input}"));
    (base, input)
}

/// The three headers. `url` is what is requested, with its query; `key_id` is printable ASCII.
pub(super) fn headers(
    key: &[u8],
    key_id: &str,
    url: &Url,
    body: &[u8],
    at: Timestamp,
) -> [(&'static str, String); 3] {
    let digest = content_digest(body);
    let key_id = key_id.replace('\\', "\\\\").replace('"', "\\\"");
    let parameters = format!(";created={};keyid=\"{key_id}\";alg=\"hmac-sha256\"", at.as_secs());
    let components = [("@method", "POST"), ("@target-uri", url.as_str()), ("content-digest", &digest)];
    let (base, input) = base(&components, &parameters);
    let signature = STANDARD.encode(hmac(key, &[base.as_bytes()]));
    [
        ("content-digest", digest),
        ("signature-input", format!("sig={input}")),
        ("signature", format!("sig=:{signature}:")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9421, appendix B.2.5, with the key of B.1.5.
    #[test]
    fn the_vector_of_rfc_9421() {
        let key = STANDARD
            .decode(
                "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==",
            )
            .unwrap();
        let components = [
            ("date", "Tue, 20 Apr 2021 02:07:55 GMT"),
            ("@authority", "example.com"),
            ("content-type", "application/json"),
        ];
        let (base, input) = base(&components, ";created=1618884473;keyid=\"test-shared-secret\"");
        assert_eq!(
            input,
            "(\"date\" \"@authority\" \"content-type\");created=1618884473;keyid=\"test-shared-secret\""
        );
        let signature = STANDARD.encode(hmac(&key, &[base.as_bytes()]));
        assert_eq!(signature, "pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=");
    }

    #[test]
    fn the_digest_of_rfc_9530() {
        let digest = "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:";
        assert_eq!(content_digest(b"{\"hello\": \"world\"}"), digest);
    }

    #[test]
    fn the_headers_cover_the_whole_target() {
        let url = Url::parse("https://example.com/in?a=1&key=%20").unwrap();
        let at = Timestamp::from_millis(1_700_000_000_999);
        let [digest, input, signature] = headers(b"0123456789abcdef", "wh_\"1\\", &url, b"{}", at);
        assert_eq!(digest.1, "sha-256=:RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=:");
        assert_eq!(
            input.1,
            r#"sig=("@method" "@target-uri" "content-digest");created=1700000000;keyid="wh_\"1\\";alg="hmac-sha256""#
        );
        assert_eq!(signature.1, "sig=:78Vxg0djEJNfnRfa0Gbdbfs8hCmpgZlQEc4EpqtdXCA=:");
        let other = Url::parse("https://example.com/in?a=1&key=%21").unwrap();
        assert_ne!(headers(b"0123456789abcdef", "wh_1", &other, b"{}", at)[2].1, signature.1);
    }
}
