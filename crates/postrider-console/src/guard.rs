//! What surrounds every page: what the browser is told, and that changes are asked for from here.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use url::Url;

/// Nothing is loaded from elsewhere, nothing is run that is not a file of ours, and no other site frames a page. `data:` is for the
/// marks that Pico draws in boxes and menus.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// With `same-origin` no other site learns a path, and forms still say where they come from.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=(), payment=()"),
];

/// Adds the headers that every answer has. A page with a policy of its own keeps it; what says nothing is kept by no cache.
pub(crate) async fn headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Refuses changes that another site asks for. The form's own proof is checked where its session is known.
pub(crate) async fn same_origin(request: Request, next: Next) -> Response {
    if request.method().is_safe() || comes_from_here(request.headers()) {
        return next.run(request).await;
    }
    (StatusCode::FORBIDDEN, "This form was sent from another site. Open the console and do it there.")
        .into_response()
}

/// What the browser says of where a request comes from. One that says nothing is none of a browser: it has no cookies either.
fn comes_from_here(headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = text(HeaderName::from_static("sec-fetch-site")) {
        return matches!(site, "same-origin" | "none");
    }
    let Some(origin) = text(header::ORIGIN) else { return true };
    let host = |url: Url| Some((url.host_str()?.to_owned(), url.port_or_known_default()));
    let origin = Url::parse(origin).ok();
    let scheme = origin.as_ref().map_or("http", Url::scheme);
    let own =
        text(header::HOST).and_then(|name| Url::parse(&format!("{scheme}://{name}")).ok()).and_then(host);
    own.is_some() && origin.and_then(host) == own
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(headers: &[(&'static str, &'static str)]) -> bool {
        let headers = headers.iter();
        comes_from_here(
            &headers
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect(),
        )
    }

    #[test]
    fn another_site_changes_nothing() {
        for site in ["cross-site", "same-site", "", "SAME-ORIGIN"] {
            assert!(
                !said(&[("sec-fetch-site", site), ("origin", "http://here"), ("host", "here")]),
                "{site}"
            );
        }
        for origin in
            ["null", "http://there:8080", "http://here", "http://here:8081", "https://here.evil.example"]
        {
            assert!(!said(&[("origin", origin), ("host", "here:8080")]), "{origin}");
        }
        assert!(!said(&[("origin", "http://here")]), "no host");
    }

    #[test]
    fn a_form_of_ours_is_let_through() {
        assert!(said(&[("sec-fetch-site", "same-origin")]));
        assert!(said(&[("sec-fetch-site", "none")]));
        assert!(said(&[("origin", "http://here:8080"), ("host", "here:8080")]));
        assert!(said(&[("origin", "https://here"), ("host", "here")]), "the usual port");
        assert!(said(&[]), "no browser");
    }
}
