//! The program that deliveries are forwarded to.

use std::fmt;
use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use url::{Host, Url};

use crate::exit::{Exit, Failure, cause, chain};
use crate::inbox::relay::{Headers, Raw, Relayed, Reply, is_of_connection};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// The most bytes of an answer's body that are passed on: workers read no more.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// The most bytes of an answer's headers.
const MAX_HEADER_BYTES: usize = 64 * 1024;

/// Where deliveries are forwarded to.
#[derive(Clone, Debug)]
pub(super) struct Target {
    url: Url,
    http: reqwest::Client,
    timeout: Duration,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Forwarded {
    /// What the worker is answered.
    pub(super) reply: Reply,
    /// Why it is not what the program answered.
    pub(super) error: Option<String>,
}

impl Target {
    /// A port of this machine, or a URL; of another machine only if that is allowed.
    ///
    /// # Errors
    /// [`Failure`] that says what it must be.
    pub(super) fn new(text: &str, external: bool, timeout: Duration) -> Result<Self, Failure> {
        let bad = |why: &str| {
            Failure::usage(format!("cannot forward to {text}"), why)
                .next("give a port such as 3000, or a URL such as http://localhost:3000/hooks")
        };
        let url: Url = match text.parse::<u16>() {
            Ok(0) => return Err(bad("0 is no port")),
            Ok(port) => format!("http://localhost:{port}/").parse().map_err(|_| bad("it is no port"))?,
            Err(_) => text.parse().map_err(|_| bad("it is neither a port nor a URL"))?,
        };
        if !matches!(url.scheme(), "http" | "https") {
            return Err(bad("its scheme must be http or https"));
        }
        let local = is_local(&url);
        if !local && !external {
            return Err(Failure::usage(format!("cannot forward to {text}"), "it is not on this machine")
                .next("give --allow-external if what events hold may leave this machine"));
        }
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .redirect(reqwest::redirect::Policy::none())
            // Tools restart programs while connections idle.
            .pool_max_idle_per_host(0);
        if local {
            http = http.no_proxy();
        }
        if url.scheme() == "http" {
            // The image of a container may hold no certificates, and none are needed.
            http = http.tls_certs_only([]);
        }
        let http = http
            .build()
            .map_err(|error| Failure::new(Exit::Other, "cannot make an HTTP client", chain(&error)))?;
        Ok(Self { url, http, timeout })
    }

    /// Its port.
    pub(super) fn port(&self) -> u16 {
        self.url.port_or_known_default().unwrap_or_default()
    }

    /// Forwards a request as it came, and returns the answer as it came; or one that says why there is none.
    pub(super) async fn forward(&self, request: &Relayed) -> Forwarded {
        match tokio::time::timeout(self.timeout, self.ask(request)).await {
            Ok(Ok(reply)) => Forwarded { reply, error: None },
            Ok(Err(why)) => refused(502, why),
            Err(_) => {
                refused(504, format!("{self} did not answer within {:.1} s", self.timeout.as_secs_f64()))
            }
        }
    }

    async fn ask(&self, request: &Relayed) -> Result<Reply, String> {
        let method = request.method.parse::<reqwest::Method>();
        let method = method.map_err(|_| format!("{:?} is no method", request.method))?;
        let mut headers = HeaderMap::new();
        for (name, value) in &request.headers {
            let name = HeaderName::try_from(name.as_str()).map_err(|_| format!("{name:?} is no header"))?;
            let value =
                HeaderValue::from_bytes(&value.0).map_err(|_| format!("{name} has no legal value"))?;
            headers.append(name, value);
        }
        let sent = self.http.request(method, self.at(&request.path)).headers(headers);
        let response = sent.body(request.body.0.clone()).send().await.map_err(|error| {
            let what = if error.is_connect() { "cannot be reached" } else { "gave no answer" };
            format!("{self} {what}: {}", cause(&error))
        })?;
        let status = response.status().as_u16();
        let headers = about_the_answer(response.headers())
            .ok_or_else(|| format!("{self} answered with more than {MAX_HEADER_BYTES} bytes of headers"))?;
        let mut body = Vec::new();
        let mut stream = response.bytes_stream();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|error| format!("{self} did not end its answer: {}", cause(&error)))?;
            let room = MAX_BODY_BYTES - body.len();
            body.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
            if body.len() == MAX_BODY_BYTES {
                break;
            }
        }
        Ok(Reply { status, headers, body: Raw(body) })
    }

    /// Where a request goes that came with this behind its name.
    fn at(&self, path: &str) -> Url {
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let mut url = self.url.clone();
        if !path.is_empty() {
            url.set_path(&format!("{}{path}", self.url.path().trim_end_matches('/')));
        }
        if let Some(query) = query.filter(|query| !query.is_empty()) {
            let own = self.url.query().map_or(String::new(), |own| format!("{own}&"));
            url.set_query(Some(&format!("{own}{query}")));
        }
        url
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::settings::without_password(self.url.as_str()))
    }
}

/// Whether a URL leads to this machine.
fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.to_canonical().is_loopback(),
        None => false,
    }
}

/// The headers of an answer that are about it; nothing when they are too large.
fn about_the_answer(headers: &HeaderMap) -> Option<Headers> {
    let headers: Headers = headers
        .iter()
        .filter(|(name, _)| !is_of_connection(name.as_str()))
        .map(|(name, value)| (name.as_str().to_owned(), Raw(value.as_bytes().to_vec())))
        .collect();
    let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.0.len()).sum();
    (bytes <= MAX_HEADER_BYTES).then_some(headers)
}

/// An answer in place of the program.
fn refused(status: u16, why: String) -> Forwarded {
    let headers = vec![(CONTENT_TYPE.as_str().to_owned(), Raw(b"text/plain; charset=utf-8".to_vec()))];
    let body = Raw(format!("postrider listen: {why}\n").into_bytes());
    Forwarded { reply: Reply { status, headers, body }, error: Some(why) }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Bytes;
    use axum::extract::Request;
    use tokio::net::TcpListener;

    use super::*;

    fn target(text: &str) -> Result<Target, Failure> {
        rustls::crypto::ring::default_provider().install_default().ok();
        Target::new(text, false, Duration::from_secs(5))
    }

    fn request(path: &str, headers: &[(&str, &[u8])], body: &[u8]) -> Relayed {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), Raw(value.to_vec()))).collect();
        Relayed { id: 1, method: "PUT".into(), path: path.to_owned(), headers, body: Raw(body.to_vec()) }
    }

    #[test]
    fn a_target_is_on_this_machine_unless_allowed() {
        assert_eq!(target("3000").unwrap().url.as_str(), "http://localhost:3000/");
        for local in
            ["http://localhost/", "http://app.localhost:1/x", "http://127.9.9.9", "https://[::1]:3000/hooks"]
        {
            assert!(target(local).is_ok(), "{local}");
        }
        for other in
            ["http://10.0.0.1/", "http://example.com", "http://[fe80::1]/", "http://localhost.example/"]
        {
            let failure = target(other).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.next.unwrap().contains("--allow-external"), "{other}");
            assert!(Target::new(other, true, Duration::from_secs(1)).is_ok(), "{other}");
        }
        for bad in ["0", "65536", "-1", "localhost:3000", "ftp://localhost/", "", "hooks"] {
            assert_eq!(target(bad).unwrap_err().exit, Exit::Usage, "{bad}");
        }
        let shown = target("http://me:hunter2@localhost:3000/").unwrap().to_string();
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn what_follows_the_name_follows_the_target() {
        let plain = target("3000").unwrap();
        assert_eq!(plain.at("").as_str(), "http://localhost:3000/");
        assert_eq!(plain.at("/a%20b?k=%26").as_str(), "http://localhost:3000/a%20b?k=%26");
        let hooks = target("http://localhost:3000/hooks/?t=1").unwrap();
        assert_eq!(hooks.at("").as_str(), "http://localhost:3000/hooks/?t=1");
        assert_eq!(hooks.at("/a?k=v").as_str(), "http://localhost:3000/hooks/a?t=1&k=v");
        assert_eq!(hooks.at("?k=v").as_str(), "http://localhost:3000/hooks/?t=1&k=v");
    }

    #[tokio::test]
    async fn a_request_and_its_answer_stay_as_they_are() {
        async fn answer(request: Request) -> (axum::http::StatusCode, HeaderMap, Bytes) {
            let seen = format!("{} {}", request.method(), request.uri());
            let mut headers = request.headers().clone();
            headers.insert("seen", seen.parse().unwrap());
            headers.remove("content-length");
            let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
            let doubled = [body.as_ref(), body.as_ref()].concat();
            (axum::http::StatusCode::IM_A_TEAPOT, headers, doubled.into())
        }
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let served = tokio::spawn(async move { axum::serve(socket, Router::new().fallback(answer)).await });
        let target = target(&format!("http://{address}/base")).unwrap();
        let headers: [(&str, &[u8]); 3] =
            [("webhook-id", b"msg_1"), ("x-bytes", b"\xff"), ("user-agent", b"Postrider")];
        let large = vec![b'x'; MAX_BODY_BYTES - 1];
        let forwarded = target.forward(&request("/sub?k=v", &headers, &large)).await;
        assert_eq!((forwarded.reply.status, forwarded.error), (418, None));
        assert_eq!(forwarded.reply.body.0.len(), MAX_BODY_BYTES, "the rest is not passed on");
        let answered = forwarded.reply.headers;
        let of = |name: &str| {
            let (_, value) = answered.iter().find(|(known, _)| known == name).unwrap();
            value.0.as_slice()
        };
        assert_eq!(of("seen"), b"PUT /base/sub?k=v");
        for (name, value) in headers {
            assert_eq!(of(name), value, "{name}");
        }
        assert_eq!(of("host"), address.to_string().as_bytes());
        served.abort();
        served.await.ok();
        let gone = target.forward(&request("", &[], b"")).await;
        assert_eq!(gone.reply.status, 502);
        let why = String::from_utf8(gone.reply.body.0).unwrap();
        assert!(why.starts_with("postrider listen: ") && why.contains("cannot be reached"), "{why}");
    }

    #[tokio::test]
    async fn a_program_that_dawdles_is_answered_for() {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        rustls::crypto::ring::default_provider().install_default().ok();
        let url = format!("http://{}/", socket.local_addr().unwrap());
        let target = Target::new(&url, false, Duration::from_millis(50)).unwrap();
        let forwarded = target.forward(&request("", &[], b"")).await;
        assert_eq!(forwarded.reply.status, 504);
        assert!(forwarded.error.unwrap().contains("did not answer within 0.1 s"));
    }
}
