//! Files of the browser, in the binary. Their addresses have a hash of what is in them, so that browsers keep them for ever.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, StatusCode, header};
use rust_embed::Embed;
use sha2::{Digest as _, Sha256};

#[derive(Embed)]
#[folder = "assets/"]
#[exclude = "*.md"]
#[exclude = "SHA256SUMS"]
struct Files;

/// Addresses of what every page loads.
#[derive(Debug)]
pub(crate) struct Addresses {
    /// Pico: how plain HTML looks.
    pub(crate) pico: String,
    /// How the console looks.
    pub(crate) style: String,
    /// htmx: pages that refresh in place.
    pub(crate) htmx: String,
    /// What the console does in the browser.
    pub(crate) script: String,
    /// The picture in the tab.
    pub(crate) icon: String,
}

/// Addresses of what every page loads.
pub(crate) static ADDRESSES: LazyLock<Addresses> = LazyLock::new(|| Addresses {
    pico: address("pico.min.css"),
    style: address("console.css"),
    htmx: address("htmx.min.js"),
    script: address("console.js"),
    icon: address("icon.svg"),
});

/// The address of a file: `/assets/`, a hash of the file, its name.
pub(crate) fn address(name: &str) -> String {
    let hash = Files::get(name).map(|file| short(&file.data)).unwrap_or_default();
    format!("/assets/{hash}-{name}")
}

fn short(data: &[u8]) -> String {
    Sha256::digest(data)[..6].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Answers with a file.
pub(crate) async fn file(Path(name): Path<String>) -> Response {
    let known = name.split_once('-').and_then(|(hash, name)| {
        let file = Files::get(name)?;
        (short(&file.data) == hash).then_some((file, name))
    });
    let Some((file, name)) = known else {
        return (StatusCode::NOT_FOUND, "There is no such file.").into_response();
    };
    let kind = match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    };
    let mut response = file.data.into_owned().into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_others_are_those_that_were_checked() {
        let sums = include_str!("../assets/SHA256SUMS");
        let mut checked = 0;
        for line in sums.lines() {
            let (sum, name) = line.split_once("  ").unwrap();
            let file = Files::get(name).unwrap();
            let found: String = Sha256::digest(&file.data).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(found, sum, "{name}");
            checked += 1;
        }
        assert_eq!(checked, 5, "Pico, htmx and Swagger UI");
    }
}
