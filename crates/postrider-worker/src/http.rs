//! Sending requests: the only HTTP client that talks to strangers.
//!
//! No redirects, no retries of its own, no proxy, no decompression, one total deadline. The address policy is applied to
//! literal addresses before a request and by the resolver to every answer of DNS, so that what was checked is what is
//! connected to (`reference/reliability.md` S-1 to S-7).

use std::error::Error as StdError;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use postrider_core::address::{EgressPolicy, literal_address};
use postrider_core::outcome::Unreachable;
use postrider_core::request::Request;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// The most of an answer's body that is read, bytes.
const MAX_BODY: usize = 64 * 1024;
/// The most of it that is kept, bytes.
const KEPT_BODY: usize = 4 * 1024;
/// How long an idle connection is kept: shorter than receivers usually do, so that they seldom close it first.
const IDLE: Duration = Duration::from_secs(4);
/// Answers of DNS that are looked at.
const MAX_ADDRESSES: usize = 64;
/// Headers of an answer that are kept, the rest is of no use to anybody.
const KEPT_HEADERS: [&str; 5] = ["content-type", "retry-after", "server", "location", "www-authenticate"];

/// Sends requests under an address policy.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    client: reqwest::Client,
    policy: Arc<EgressPolicy>,
}

/// What a request came to.
#[derive(Clone, Debug)]
pub(crate) enum Sent {
    /// There was an answer.
    Answered(Answer),
    /// There was none: why, and what the error said.
    Unreachable(Unreachable, String),
    /// The address is one that may not be reached; nothing was sent.
    Blocked,
}

/// An answer's head and the beginning of its body.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: u16,
    /// Values of `Retry-After`.
    pub(crate) retry_after: Vec<Vec<u8>>,
    /// Some headers, as text.
    pub(crate) headers: Vec<(String, String)>,
    /// The beginning of the body, as text.
    pub(crate) body: String,
}

impl Http {
    /// A client under this policy.
    pub(crate) fn new(policy: EgressPolicy) -> Result<Self, reqwest::Error> {
        let policy = Arc::new(policy);
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .referer(false)
            .http1_only()
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(64)
            .dns_resolver(Arc::new(Guarded { policy: policy.clone() }))
            .build()?;
        Ok(Self { client, policy })
    }

    /// Sends one request, all of it within `deadline`: name, connection, TLS, head and body.
    pub(crate) async fn send(&self, request: Request, deadline: Duration) -> Sent {
        if literal_address(&request.url).is_some_and(|address| !self.policy.permits(address)) {
            return Sent::Blocked;
        }
        let mut builder = self.client.post(request.url).body(request.body);
        for (name, value) in &request.headers {
            builder = builder.header(name.as_str(), value.as_str());
        }
        let end = tokio::time::Instant::now() + deadline;
        let timed_out = || {
            let why = format!("no answer within {} ms", deadline.as_millis());
            Sent::Unreachable(Unreachable::Timeout, why)
        };
        match tokio::time::timeout_at(end, builder.send()).await {
            Ok(Ok(response)) => Sent::Answered(read(response, end).await),
            Ok(Err(error)) => explain(&error),
            Err(_) => timed_out(),
        }
    }
}

/// Reads an answer. Its status counts from here on, whatever becomes of the body.
async fn read(mut response: reqwest::Response, end: tokio::time::Instant) -> Answer {
    let status = response.status().as_u16();
    let retry_after =
        response.headers().get_all("retry-after").iter().map(|value| value.as_bytes().to_vec()).collect();
    let mut headers = Vec::new();
    for name in KEPT_HEADERS {
        if let Some(value) = response.headers().get(name) {
            let text = String::from_utf8_lossy(value.as_bytes());
            headers.push((name.to_owned(), text.chars().take(256).collect()));
        }
    }
    let mut kept = Vec::new();
    let mut bytes = 0;
    while let Ok(Ok(Some(chunk))) = tokio::time::timeout_at(end, response.chunk()).await {
        bytes += chunk.len();
        let room = KEPT_BODY.saturating_sub(kept.len());
        kept.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if bytes > MAX_BODY {
            break;
        }
    }
    Answer { status, retry_after, headers, body: String::from_utf8_lossy(&kept).into_owned() }
}

/// Finds out from an error's causes why there was no answer. The text names no address: a blocked or closed port must
/// not be an oracle for the network behind us.
fn explain(error: &reqwest::Error) -> Sent {
    let mut reset = false;
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(current) = cause {
        if current.is::<BlockedAddress>() {
            return Sent::Blocked;
        }
        if let Some(failed) = current.downcast_ref::<NameFailed>() {
            return Sent::Unreachable(Unreachable::Dns, failed.to_string());
        }
        if let Some(tls) = current.downcast_ref::<rustls::Error>() {
            return Sent::Unreachable(Unreachable::Tls, tls.to_string());
        }
        if let Some(io) = current.downcast_ref::<std::io::Error>() {
            if let Some(tls) = tls_cause(io) {
                return Sent::Unreachable(Unreachable::Tls, tls.to_string());
            }
            reset |= matches!(
                io.kind(),
                std::io::ErrorKind::ConnectionReset
                    | std::io::ErrorKind::ConnectionAborted
                    | std::io::ErrorKind::BrokenPipe
                    | std::io::ErrorKind::UnexpectedEof
            );
        }
        if let Some(http) = current.downcast_ref::<hyper::Error>() {
            if http.is_parse() || http.is_parse_status() {
                return Sent::Unreachable(Unreachable::BadResponse, http.to_string());
            }
            reset |= http.is_incomplete_message() || http.is_closed() || http.is_canceled();
        }
        cause = current.source();
    }
    if error.is_timeout() {
        Sent::Unreachable(Unreachable::Timeout, "the connection took too long".into())
    } else if error.is_connect() {
        Sent::Unreachable(Unreachable::Connect, "no connection could be made".into())
    } else if reset {
        Sent::Unreachable(Unreachable::Reset, "the connection ended before an answer".into())
    } else if error.is_builder() {
        Sent::Unreachable(Unreachable::Internal, "the request could not be made".into())
    } else {
        Sent::Unreachable(Unreachable::BadResponse, "the answer could not be read".into())
    }
}

/// The TLS error inside an I/O error, which may itself be wrapped in one.
fn tls_cause(error: &std::io::Error) -> Option<&rustls::Error> {
    let inner = error.get_ref()?;
    inner
        .downcast_ref::<rustls::Error>()
        .or_else(|| inner.downcast_ref::<std::io::Error>().and_then(tls_cause))
}

/// The resolver: system DNS, every answer judged; one bad answer refuses the name.
#[derive(Debug)]
struct Guarded {
    policy: Arc<EgressPolicy>,
}

#[derive(Debug, thiserror::Error)]
#[error("the name resolves to an address that deliveries may not reach")]
struct BlockedAddress;

#[derive(Debug, thiserror::Error)]
#[error("the name does not resolve")]
struct NameFailed;

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = self.policy.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await.map_err(|_| NameFailed)?;
            let addresses: Vec<SocketAddr> = found.take(MAX_ADDRESSES).collect();
            if addresses.is_empty() {
                return Err(NameFailed.into());
            }
            if addresses.iter().any(|address| !policy.permits(address.ip())) {
                return Err(BlockedAddress.into());
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}
