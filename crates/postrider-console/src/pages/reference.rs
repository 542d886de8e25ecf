//! What programs need to know. The reference of the API, as Swagger UI shows it, and how to publish over RabbitMQ. They need no
//! login: the descriptions are for everybody, and trying something out needs a token.

use std::sync::LazyLock;

use askama::Template;
use axum::Router;
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::get;
use http::{HeaderValue, StatusCode, header};

use crate::Console;
use crate::assets::{ADDRESSES, Addresses, address};

/// What this page may: the same as every other, and Swagger UI's styles, which it writes into the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; \
                      form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

/// The page of the reference.
pub(crate) fn routes() -> Router<Console> {
    Router::new()
        .route("/docs", get(show))
        .route("/docs/asyncapi", get(show_publishers))
        .route("/docs/asyncapi.yaml", get(|| async { ([(header::CONTENT_TYPE, YAML)], ASYNCAPI) }))
}

/// How events are published over RabbitMQ, for programs. A test of control holds it against what is declared there.
pub const ASYNCAPI: &str = include_str!("../../asyncapi.yaml");
const YAML: HeaderValue = HeaderValue::from_static("application/yaml");

/// Addresses of what this page alone loads.
struct Swagger {
    style: String,
    script: String,
    around: String,
    start: String,
}

static SWAGGER: LazyLock<Swagger> = LazyLock::new(|| Swagger {
    style: address("swagger-ui.css"),
    script: address("swagger-ui-bundle.js"),
    around: address("reference.css"),
    start: address("reference.js"),
});

#[derive(Template)]
#[template(path = "reference.html")]
struct ReferencePage {
    assets: &'static Addresses,
    swagger: &'static Swagger,
    version: &'static str,
}

#[derive(Template)]
#[template(path = "publishers.html")]
struct PublishersPage {
    assets: &'static Addresses,
    document: &'static str,
}

async fn show() -> Response {
    let page = ReferencePage { assets: &ADDRESSES, swagger: &SWAGGER, version: env!("CARGO_PKG_VERSION") };
    let policy = (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    ([policy], rendered(&page)).into_response()
}

async fn show_publishers() -> Response {
    rendered(&PublishersPage { assets: &ADDRESSES, document: ASYNCAPI })
}

fn rendered(page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => Html(text).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page cannot be made");
            (StatusCode::INTERNAL_SERVER_ERROR, "The page cannot be made; the log of control says why.")
                .into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::Stage;

    #[tokio::test]
    async fn the_reference_is_in_the_binary_and_loads_nothing_from_elsewhere() {
        let response = show().await;
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
        assert!(policy.contains("script-src 'self';"), "{policy}");
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        for address in [&SWAGGER.style, &SWAGGER.script, &SWAGGER.around, &SWAGGER.start] {
            assert!(text.contains(address.as_str()) && !address.contains("/-"), "{address} is no file");
        }
        assert!(!text.contains("://"), "{text}");
    }

    #[tokio::test]
    async fn publishers_have_a_page_and_a_file() {
        let stage = Stage::new(Router::new());
        let (status, text) = stage.get("/docs/asyncapi").await;
        assert_eq!(status, 200, "{text}");
        assert!(text.contains("postrider.events") && text.contains("asyncapi: 3.0.0"), "{text}");
        let (headers, file) = stage.file("/docs/asyncapi.yaml").await;
        assert_eq!(headers[header::CONTENT_TYPE], "application/yaml");
        assert_eq!(file, ASYNCAPI);
    }

    #[test]
    fn only_this_page_may_have_styles_in_it() {
        assert_eq!(POLICY.matches("unsafe").count(), 1);
        assert!(POLICY.contains("style-src 'self' 'unsafe-inline'"));
    }
}
