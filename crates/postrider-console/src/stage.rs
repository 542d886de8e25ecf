//! For tests: the console over an API that answers what it is told, and somebody who has logged in.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::response::Response;
use http::{Extensions, HeaderMap, Request, StatusCode, header};
use postrider_core::Timestamp;
use tokio::time::Instant;
use tower::ServiceExt as _;
use url::form_urlencoded::Serializer;
use zeroize::Zeroizing;

use crate::inbox::Inbox;
use crate::page::COOKIE;
use crate::{Sessions, Surroundings};

/// The time on the stage.
pub(crate) const NOW: &str = "2026-11-22T20:00:00Z";

#[derive(Default)]
struct Around {
    inbox: Option<Arc<dyn Inbox>>,
    broker_lost_since: Option<Timestamp>,
}

impl Surroundings for Around {
    fn broker_lost_since(&self) -> Option<Timestamp> {
        self.broker_lost_since
    }

    fn now(&self) -> Timestamp {
        Timestamp::parse_rfc3339(NOW).unwrap()
    }

    fn socket(&self, _: &Extensions) -> Extensions {
        Extensions::new()
    }

    fn inbox(&self) -> Option<Arc<dyn Inbox>> {
        self.inbox.clone()
    }
}

/// A console with somebody who has logged in.
pub(crate) struct Stage {
    console: Router,
    cookie: String,
    csrf: String,
}

impl Stage {
    /// Over this API.
    pub(crate) fn new(api: Router) -> Self {
        Self::beside(api, None)
    }

    /// Over this API, beside an inbox.
    pub(crate) fn beside(api: Router, inbox: Option<Arc<dyn Inbox>>) -> Self {
        Self::among(api, Around { inbox, broker_lost_since: None })
    }

    /// Over this API, while the broker cannot be reached.
    pub(crate) fn without_broker(api: Router) -> Self {
        let since = Timestamp::parse_rfc3339(NOW).unwrap().minus_ms(90_000);
        Self::among(api, Around { inbox: None, broker_lost_since: Some(since) })
    }

    fn among(api: Router, around: Around) -> Self {
        let sessions = Arc::new(Sessions::default());
        let now = Instant::now();
        let id = sessions.begin(Zeroizing::new("token".to_owned()), now);
        let csrf = sessions.get(&id, now).unwrap().csrf;
        let console = crate::router(api, sessions, Arc::new(around));
        Self { console, cookie: format!("{COOKIE}={}", id.as_str()), csrf }
    }

    async fn call(&self, request: http::request::Builder, body: Body) -> (StatusCode, HeaderMap, String) {
        let request = request.header(header::COOKIE, &self.cookie).header("sec-fetch-site", "same-origin");
        let response: Response = self.console.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let text = String::from_utf8(to_bytes(body, 1 << 24).await.unwrap().to_vec()).unwrap();
        if text.starts_with("<!doctype html>") {
            assert_eq!(text.matches("<h1").count(), 1, "one heading: {text}");
            assert!(
                !text.contains(" style=") && !text.contains(" onclick="),
                "the policy forbids it: {text}"
            );
        }
        (parts.status, parts.headers, text)
    }

    /// A page.
    pub(crate) async fn get(&self, path: &str) -> (StatusCode, String) {
        let (status, _, text) = self.call(Request::get(path), Body::empty()).await;
        (status, text)
    }

    /// A file.
    pub(crate) async fn file(&self, path: &str) -> (HeaderMap, String) {
        let (status, headers, text) = self.call(Request::get(path), Body::empty()).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        (headers, text)
    }

    /// A page that leads elsewhere: its status, and where.
    pub(crate) async fn leads(&self, path: &str) -> (StatusCode, String) {
        let (status, headers, _) = self.call(Request::get(path), Body::empty()).await;
        let to = headers.get(header::LOCATION).map(|to| to.to_str().unwrap().to_owned());
        (status, to.unwrap_or_default())
    }

    /// Sends a form of a page: the status, where it leads, and what it says.
    pub(crate) async fn send(&self, path: &str, fields: &[(&str, &str)]) -> (StatusCode, String, String) {
        let (status, headers, text) = self.post(path, fields).await;
        let leads = headers.get(header::LOCATION).map(|to| to.to_str().unwrap().to_owned());
        (status, leads.unwrap_or_default(), text)
    }

    /// Sends a form of a page: the whole answer.
    pub(crate) async fn post(&self, path: &str, fields: &[(&str, &str)]) -> (StatusCode, HeaderMap, String) {
        let mut form = Serializer::new(String::new());
        form.append_pair("csrf", &self.csrf).extend_pairs(fields);
        self.call(Request::post(path), Body::from(form.finish())).await
    }
}
