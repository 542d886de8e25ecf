//! The listener's side of a relay.

use std::time::Duration;

use reqwest::{Method, RequestBuilder, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::{Relayed, Reply};
use crate::api::{http_client, read_body};
use crate::exit::{Failure, cause};
use crate::settings::Secret;

/// How long an answer of the inbox may take, beyond what it was asked to wait.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Somebody who listens under a name of an inbox that nobody else knows.
#[derive(Clone, Debug)]
pub struct Listener {
    http: reqwest::Client,
    base: Url,
    name: String,
    token: Secret,
}

/// Why an inbox did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// There was no answer, or one that says to try again.
    Unreachable(String),
    /// It does not know the name: it was started anew, or has waited too long.
    Forgotten,
    /// It refuses.
    Refused(String),
}

impl Listener {
    /// A listener with a new name and a new token, at the inbox at this address.
    ///
    /// # Errors
    /// [`Failure`] when TLS cannot be set up.
    pub fn new(base: &Url) -> Result<Self, Failure> {
        let (name, token): (u128, [u128; 2]) = (rand::random(), rand::random());
        Ok(Self {
            http: http_client(base)?,
            base: base.clone(),
            name: format!("listen-{name:032x}"),
            token: Secret::new(format!("{:032x}{:032x}", token[0], token[1])),
        })
    }

    /// Where a webhook sends what this listener gets, if workers reach the inbox at `base`.
    pub fn url(&self, base: &Url) -> Option<Url> {
        at(base, &["relay", &self.name])
    }

    /// Tells the inbox that somebody listens.
    ///
    /// # Errors
    /// [`Lost`].
    pub async fn begin(&self) -> Result<(), Lost> {
        self.call(self.request(Method::PUT, self.at(None)?).timeout(TIMEOUT)).await.map(|_| ())
    }

    /// Takes at most `most` requests, and waits for the first.
    ///
    /// # Errors
    /// [`Lost`].
    pub async fn next(&self, most: usize, wait: Duration) -> Result<Vec<Relayed>, Lost> {
        #[derive(Deserialize)]
        struct Items {
            items: Vec<Relayed>,
        }
        let mut url = self.at(None)?;
        url.set_query(Some(&format!("most={most}&wait_ms={}", wait.as_millis())));
        let request = self.request(Method::GET, url).timeout(wait + TIMEOUT);
        let text = self.call(request).await?;
        let items: Items = serde_json::from_str(&text)
            .map_err(|_| Lost::Refused("what it answers is not what an inbox answers".to_owned()))?;
        Ok(items.items)
    }

    /// Answers a request, and says whether anybody still waited for it.
    ///
    /// # Errors
    /// [`Lost`].
    pub async fn reply(&self, id: u64, reply: &Reply) -> Result<bool, Lost> {
        let body = serde_json::to_string(reply).map_err(|error| Lost::Refused(error.to_string()))?;
        let request = self.request(Method::POST, self.at(Some(id))?);
        let request = request.header("content-type", "application/json").body(body).timeout(TIMEOUT);
        let response = request.send().await.map_err(|error| unreachable(&error))?;
        match response.status() {
            StatusCode::GONE => Ok(false),
            _ => read(response).await.map(|_| true),
        }
    }

    /// Tells the inbox that nobody listens any more.
    ///
    /// # Errors
    /// [`Lost`].
    pub async fn end(&self) -> Result<(), Lost> {
        self.call(self.request(Method::DELETE, self.at(None)?).timeout(TIMEOUT)).await.map(|_| ())
    }

    /// Where the inbox is told about this listener, or about one of its requests.
    fn at(&self, id: Option<u64>) -> Result<Url, Lost> {
        let id = id.map(|id| id.to_string());
        let path: Vec<&str> = ["_relay", self.name.as_str()].into_iter().chain(id.as_deref()).collect();
        at(&self.base, &path).ok_or_else(|| Lost::Refused("its address cannot hold a path".to_owned()))
    }

    fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.http.request(method, url).bearer_auth(self.token.reveal())
    }

    async fn call(&self, request: RequestBuilder) -> Result<String, Lost> {
        read(request.send().await.map_err(|error| unreachable(&error))?).await
    }
}

fn at(base: &Url, path: &[&str]) -> Option<Url> {
    let mut url = base.clone();
    url.path_segments_mut().ok()?.pop_if_empty().extend(path);
    Some(url)
}

fn unreachable(error: &reqwest::Error) -> Lost {
    Lost::Unreachable(if error.is_timeout() { "it did not answer in time".to_owned() } else { cause(error) })
}

async fn read(response: reqwest::Response) -> Result<String, Lost> {
    let status = response.status();
    let text = read_body(response).await.map_err(Lost::Unreachable)?;
    if status.is_success() {
        return Ok(text);
    }
    let body = serde_json::from_str::<Value>(&text).ok();
    let detail = body.and_then(|body| body["detail"].as_str().map(str::to_owned));
    match (status, detail) {
        // Whatever else answers at this address has no words of an inbox.
        (StatusCode::NOT_FOUND, Some(_)) => Err(Lost::Forgotten),
        (status, detail) => {
            let why =
                detail.unwrap_or_else(|| format!("it answered {status}: it is no inbox that can relay"));
            let again = status.is_server_error() && status != StatusCode::INSUFFICIENT_STORAGE;
            Err(if again { Lost::Unreachable(why) } else { Lost::Refused(why) })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::inbox::relay::Raw;
    use crate::inbox::{Inbox, Received, serve};

    async fn serving(listener: TcpListener, stop: &CancellationToken) -> tokio::task::JoinHandle<()> {
        let inbox = Arc::new(Inbox::new(None));
        tokio::spawn(serve(listener, None, inbox, |_: &Received| {}, stop.clone()))
    }

    #[tokio::test]
    async fn a_listener_answers_what_comes_and_notices_another_inbox() {
        rustls::crypto::ring::default_provider().install_default().ok();
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let base: Url = format!("http://{address}/").parse().unwrap();
        let listener = Listener::new(&base).unwrap();
        let shown = format!("{listener:?}");
        assert!(!shown.contains(listener.token.reveal()), "{shown}");
        let stop = CancellationToken::new();
        let served = serving(socket, &stop).await;
        let wait = Duration::from_millis(1);
        assert_eq!(listener.next(1, wait).await, Err(Lost::Forgotten), "it has not begun");
        listener.begin().await.unwrap();
        assert_eq!(listener.next(1, wait).await, Ok(Vec::new()));

        let url = listener.url(&base).unwrap();
        let sender = http_client(&base).unwrap();
        let sending = async { sender.post(url).body("hello").send().await.unwrap() };
        let answering = async {
            let taken = listener.next(16, Duration::from_secs(5)).await.unwrap();
            assert_eq!(taken[0].body.0, b"hello");
            let reply = Reply { status: 418, headers: Vec::new(), body: Raw(b"tea".to_vec()) };
            assert_eq!(listener.reply(taken[0].id, &reply).await, Ok(true));
            assert_eq!(listener.reply(taken[0].id, &reply).await, Ok(false));
        };
        let (answer, ()) = tokio::join!(sending, answering);
        assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().as_str()), (418, "tea"));
        listener.end().await.unwrap();
        assert_eq!(listener.next(1, wait).await, Err(Lost::Forgotten));
        stop.cancel();
        served.await.unwrap();
    }

    #[tokio::test]
    async fn what_is_no_inbox_is_said_to_be_none() {
        rustls::crypto::ring::default_provider().install_default().ok();
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base: Url = format!("http://{}/", socket.local_addr().unwrap()).parse().unwrap();
        let listener = Listener::new(&base).unwrap();
        let served = tokio::spawn(async move { axum::serve(socket, axum::Router::new()).await });
        let refused = listener.begin().await;
        assert!(matches!(&refused, Err(Lost::Refused(why)) if why.contains("no inbox")), "{refused:?}");
        served.abort();
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base: Url = format!("http://{}/", socket.local_addr().unwrap()).parse().unwrap();
        drop(socket);
        let nobody = Listener::new(&base).unwrap().begin().await;
        assert!(matches!(nobody, Err(Lost::Unreachable(_))), "{nobody:?}");
    }
}
