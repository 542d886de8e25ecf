//! HMAC-SHA256 of a canonical string, in five `X-Webhook-*` headers.
//!
//! What the product's public pages leave open is decided here and said in `docs/profiles.md`: lengths are in bytes, the
//! host has its port unless that is the scheme's own, the path is without the query.

use sha2::{Digest as _, Sha256};
use url::Url;

use super::hmac;
use crate::id::hex;
use crate::time::Timestamp;

/// The string that is signed: `METHOD\n{len}:{host}\n{len}:{path}\n{sha256(body)}\n{timestamp}\n{request id}`.
pub(super) fn string(url: &Url, body: &[u8], at: Timestamp, request_id: &str) -> String {
    let host = url.host_str().unwrap_or_default();
    let host = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    let (path, digest) = (url.path(), hex(&Sha256::digest(body)));
    let seconds = at.as_secs();
    format!("POST\n{}:{host}\n{}:{path}\n{digest}\n{seconds}\n{request_id}", host.len(), path.len())
}

/// The five headers.
pub(super) fn headers(
    key: &[u8],
    version: u32,
    url: &Url,
    body: &[u8],
    at: Timestamp,
    request_id: String,
) -> [(&'static str, String); 5] {
    let signature = hex(&hmac(key, &[string(url, body, at, &request_id).as_bytes()]));
    [
        ("x-webhook-signature", signature),
        ("x-webhook-signature-algorithm", "hmac-sha256".to_owned()),
        ("x-webhook-timestamp", at.as_secs().to_string()),
        ("x-webhook-request-id", request_id),
        ("x-webhook-signature-version", version.to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_string_has_lengths_in_bytes_a_port_where_it_matters_and_no_query() {
        let at = Timestamp::from_millis(1_700_000_000_999);
        let digest = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
        let of = |url: &str| string(&Url::parse(url).unwrap(), b"{}", at, "id");
        assert_eq!(
            of("https://hooks.example.com:443/a/ü?key=1#x"),
            format!("POST\n17:hooks.example.com\n9:/a/%C3%BC\n{digest}\n1700000000\nid")
        );
        assert_eq!(of("http://[::1]:8080"), format!("POST\n10:[::1]:8080\n1:/\n{digest}\n1700000000\nid"));
    }

    #[test]
    fn the_headers() {
        let url = Url::parse("https://hooks.example.com/in").unwrap();
        let at = Timestamp::from_millis(1_700_000_000_000);
        let headers = headers(b"0123456789abcdef", 3, &url, b"{}", at, "id".into());
        assert_eq!(
            headers.map(|(_, value)| value),
            [
                "5f790450d707a9f1fecd45b004931960220581dc9d1e779aab5acb12f9be40b3",
                "hmac-sha256",
                "1700000000",
                "id",
                "3",
            ]
        );
    }
}
