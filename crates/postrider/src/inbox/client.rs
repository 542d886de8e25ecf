//! Asks a running inbox over HTTP, for the console: control itself links no HTTP client.

use std::time::Duration;

use futures_util::StreamExt as _;
use postrider_console::{Asking, NoAnswer};
use reqwest::Method;
use serde_json::Value;
use url::Url;

use crate::api::http_client;
use crate::exit::{Failure, cause};
use crate::settings::without_password;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The most bytes of one answer.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// The inbox at an address.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    shown: String,
}

impl Client {
    /// Asks the inbox at this address.
    ///
    /// # Errors
    /// [`Failure`] when TLS cannot be set up.
    pub fn new(base: &Url) -> Result<Self, Failure> {
        let bare = |text: &str| text.trim_end_matches('/').to_owned();
        Ok(Self {
            http: http_client(base)?,
            base: bare(base.as_str()),
            shown: bare(&without_password(base.as_str())),
        })
    }

    async fn call(&self, method: Method, path: &str, body: Option<String>) -> Result<String, NoAnswer> {
        let unreachable = |error: &reqwest::Error| {
            let late = format!("it did not answer within {} s", TIMEOUT.as_secs());
            NoAnswer::Unreachable(if error.is_timeout() { late } else { cause(error) })
        };
        let mut request = self.http.request(method, format!("{}{path}", self.base)).timeout(TIMEOUT);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let response = request.send().await.map_err(|error| unreachable(&error))?;
        let status = response.status();
        let mut bytes = Vec::new();
        let mut stream = response.bytes_stream();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|error| unreachable(&error))?;
            if bytes.len() + chunk.len() > MAX_ANSWER_BYTES {
                let why = format!("what came is larger than {MAX_ANSWER_BYTES} bytes");
                return Err(NoAnswer::Unreachable(why));
            }
            bytes.extend_from_slice(&chunk);
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if status.is_success() {
            return Ok(text);
        }
        let detail = serde_json::from_str::<Value>(&text).ok();
        let detail = detail.and_then(|body| body["detail"].as_str().map(str::to_owned));
        Err(NoAnswer::Refused(detail.unwrap_or_else(|| format!("the answer was {status}"))))
    }
}

impl postrider_console::Inbox for Client {
    fn address(&self) -> &str {
        &self.shown
    }

    fn ask(&self, method: Method, path: String, body: Option<String>) -> Asking<'_> {
        Box::pin(async move { self.call(method, &path, body).await })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::Router;
    use axum::routing::get;
    use postrider_console::Inbox as _;
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::inbox::{Inbox, Received, serve};

    async fn listening() -> (TcpListener, Client) {
        rustls::crypto::ring::default_provider().install_default().ok();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://someone:hunter2@{}/", listener.local_addr().unwrap());
        let client = Client::new(&base.parse().unwrap()).unwrap();
        (listener, client)
    }

    #[tokio::test]
    async fn an_inbox_is_told_and_asked() {
        let (listener, client) = listening().await;
        assert!(!client.address().contains("hunter2") && !client.address().ends_with('/'));
        let stop = CancellationToken::new();
        let inbox = Arc::new(Inbox::new(None));
        let served = tokio::spawn(serve(listener, None, inbox, |_: &Received| {}, stop.clone()));
        let order = Some("{\"answer\":503}".to_owned());
        assert_eq!(client.ask(Method::PUT, "/_inbox/a".into(), order).await, Ok(String::new()));
        let listed = client.ask(Method::GET, "/_inbox/a?limit=1".into(), None).await.unwrap();
        assert!(listed.contains("\"total\":0"), "{listed}");
        let refused = client.ask(Method::PUT, "/_inbox/a".into(), Some("{\"answer\":99}".into())).await;
        assert!(
            matches!(&refused, Err(NoAnswer::Refused(why)) if why.contains("from 200 to 599")),
            "{refused:?}"
        );
        stop.cancel();
        served.await.unwrap();
        let gone = client.ask(Method::GET, "/_inbox".into(), None).await;
        assert!(matches!(gone, Err(NoAnswer::Unreachable(_))), "{gone:?}");
    }

    #[tokio::test]
    async fn an_answer_is_bounded() {
        let (listener, client) = listening().await;
        let routes = Router::new().route("/_inbox", get(|| async { "x".repeat(MAX_ANSWER_BYTES + 1) }));
        let served = tokio::spawn(async move { axum::serve(listener, routes).await });
        let large = client.ask(Method::GET, "/_inbox".into(), None).await;
        assert!(matches!(&large, Err(NoAnswer::Unreachable(why)) if why.contains("larger")), "{large:?}");
        served.abort();
    }
}
