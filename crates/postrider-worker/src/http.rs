//! Sending requests: the only HTTP clients that talk to strangers.
//!
//! Two clients are for all webhooks, one that takes idle connections and one that never does; webhooks with a client certificate
//! or an authority of their own have two of their own, kept until the webhook changes.
//! No redirects, no proxy, no decompression, one total deadline. The client repeats a request by itself only when it had
//! written nothing of it; a request that a used connection swallowed is said to be [`Sent::Stale`]. The address policy is applied to
//! literal addresses before a request and by the resolver to every answer of DNS, so that what was checked is what is
//! connected to (`reference/reliability.md` S-1 to S-7).

use std::borrow::Cow;
use std::error::Error as StdError;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use postrider_broker::crash;
use postrider_core::Webhook;
use postrider_core::address::{EgressPolicy, literal_address};
use postrider_core::outcome::Unreachable;
use postrider_core::request::Request;
use postrider_core::webhook::ClientTls;
use postrider_core::wire::RequestTimes;
use reqwest::Method;
use reqwest::header::{HeaderName, HeaderValue};
use rustls::{AlertDescription, CertificateError};
use tokio::sync::OnceCell;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::kept::Kept;
use crate::local;
use crate::resolve::{Resolver, Unresolved};
use crate::reuse::Answered;
use crate::times::{Measured, Timed};

/// The most of an answer's body that is read, bytes.
const MAX_BODY: usize = 64 * 1024;
/// The most of it that is kept, bytes.
const KEPT_BODY: usize = 4 * 1024;
/// How long an idle connection is kept: shorter than receivers usually do, so that they seldom close it first.
const IDLE: Duration = Duration::from_secs(4);
/// Idle connections to one receiver that are kept. As many as a worker usually has requests in flight: fewer, and a quick
/// receiver of many webhooks is connected to again and again.
const MAX_IDLE: usize = 256;
/// Clients of single webhooks that are kept.
const MAX_PRIVATE: usize = 256;
/// Idle connections that the client of a single webhook keeps.
const MAX_PRIVATE_IDLE: usize = 16;
/// Headers that the client adds by itself.
const THE_CLIENTS_OWN: usize = 3;
/// Headers of an answer that are kept, the rest is of no use to anybody.
const KEPT_HEADERS: [&str; 5] = ["content-type", "retry-after", "server", "location", "www-authenticate"];

/// Sends requests under an address policy.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    clients: Clients,
    private: Arc<Kept<Private>>,
    policy: Arc<EgressPolicy>,
    resolver: Resolver,
    answered: Arc<Answered>,
}

/// Two clients that differ in nothing but their pools.
#[derive(Clone, Debug)]
struct Clients {
    /// Takes idle connections first.
    pooled: reqwest::Client,
    /// Makes a connection for each request.
    single: reqwest::Client,
}

/// The clients of a single webhook, or why there are none.
type Private = OnceCell<Result<Clients, String>>;

/// Over which connection a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// One that is idle, if there is one.
    Any,
    /// A new one.
    New,
}

/// When an attempt has to be over, with everything that belongs to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    end: Instant,
    whole: Duration,
}

impl Deadline {
    /// So much from now on.
    pub(crate) fn after(whole: Duration) -> Self {
        Self { end: Instant::now() + whole, whole }
    }

    /// This one, or so much from now on if that is sooner.
    pub(crate) fn at_most(self, whole: Duration) -> Self {
        let other = Self::after(whole);
        if other.end < self.end { other } else { self }
    }

    /// When it is.
    pub(crate) fn end(self) -> Instant {
        self.end
    }

    /// What is said when it passed.
    pub(crate) fn missed(self) -> String {
        format!("no answer within {} ms", self.whole.as_millis())
    }
}

/// What a request came to.
#[derive(Clone, Debug)]
pub(crate) enum Sent {
    /// There was an answer.
    Answered(Answer),
    /// There was none: why, and what the error said.
    Unreachable(Unreachable, String),
    /// There was none, and the connection had carried an answer before: perhaps the receiver closed it while it was idle,
    /// and has not seen the request. What the error said. Only where the request could go over any connection.
    Stale(String),
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
    /// The address that answered.
    pub(crate) remote: Option<IpAddr>,
}

/// What a request came to, and what is known of its time.
#[derive(Clone, Debug)]
pub(crate) struct Timely {
    /// What it came to.
    pub(crate) sent: Sent,
    /// Where the time went.
    pub(crate) times: RequestTimes,
}

impl From<Sent> for Timely {
    /// Of which nothing is known.
    fn from(sent: Sent) -> Self {
        Self { sent, times: RequestTimes::default() }
    }
}

impl Http {
    /// A client under this policy.
    pub(crate) fn new(policy: EgressPolicy) -> Result<Self, reqwest::Error> {
        let policy = Arc::new(policy);
        let resolver = Resolver::new(policy.clone());
        let clients = Clients {
            pooled: builder(&resolver).pool_max_idle_per_host(MAX_IDLE).build()?,
            single: builder(&resolver).pool_max_idle_per_host(0).build()?,
        };
        let private = Arc::new(Kept::new(MAX_PRIVATE));
        Ok(Self { clients, private, policy, resolver, answered: Arc::default() })
    }

    /// Sends the request of a webhook, all of it within the deadline: name, connection, TLS, head and body. `tls` is what
    /// the webhook's connections are made with, if it says anything about that.
    pub(crate) async fn send(
        &self,
        request: Request,
        webhook: &Webhook,
        tls: Option<&ClientTls>,
        over: Over,
        deadline: Deadline,
    ) -> Timely {
        let (sent, taken) = match tls {
            None => Measured::of(self.exchange(&self.clients, request, over, deadline)).await,
            Some(tls) => match self.private(webhook, tls).await {
                Ok(clients) => Measured::of(self.exchange(&clients, request, over, deadline)).await,
                Err(none) => return none.into(),
            },
        };
        match sent {
            Ok(response) => {
                let (response, body) = read(response, KEPT_BODY, deadline).await;
                Timely { sent: answer(&response, &body), times: taken.answered() }
            }
            Err(none) => Timely { sent: none, times: taken.unanswered() },
        }
    }

    /// Sends a request that belongs to no receiver, and answers with status and body.
    ///
    /// # Errors
    /// What it came to instead; never [`Sent::Stale`].
    pub(crate) async fn fetch(&self, request: Request, deadline: Deadline) -> Result<(u16, Vec<u8>), Sent> {
        let response = match self.exchange(&self.clients, request.clone(), Over::Any, deadline).await {
            Err(Sent::Stale(_)) => self.exchange(&self.clients, request, Over::New, deadline).await?,
            sent => sent?,
        };
        let (response, body) = read(response, MAX_BODY, deadline).await;
        Ok((response.status().as_u16(), body))
    }

    /// Sends a request and waits for the head of its answer.
    async fn exchange(
        &self,
        clients: &Clients,
        request: Request,
        over: Over,
        deadline: Deadline,
    ) -> Result<reqwest::Response, Sent> {
        if literal_address(&request.url).is_some_and(|address| !self.policy.permits(address)) {
            return Err(Sent::Blocked);
        }
        let client = match over {
            Over::Any => &clients.pooled,
            Over::New => &clients.single,
        };
        let Some(request) = prepared(request) else {
            return Err(Sent::Unreachable(Unreachable::Internal, "the request could not be made".into()));
        };
        let sending = crash::while_waiting("worker.sent", client.execute(request));
        match tokio::time::timeout_at(deadline.end, sending).await {
            Ok(Ok(response)) => {
                if over == Over::Any {
                    self.answered.note(&response);
                }
                Ok(response)
            }
            Ok(Err(error)) => Err(match explain(&error) {
                Sent::Unreachable(Unreachable::Reset, why) if self.answered.had(&error) => Sent::Stale(why),
                other => other,
            }),
            Err(_) => Err(Sent::Unreachable(Unreachable::Timeout, deadline.missed())),
        }
    }

    /// The clients of a webhook that has TLS settings of its own.
    async fn private(&self, webhook: &Webhook, tls: &ClientTls) -> Result<Clients, Sent> {
        let kept = self.private.of(webhook);
        let make = || async {
            let (resolver, tls) = (self.resolver.clone(), tls.clone());
            // Certificates are read, the system's own among them: nothing for a thread that others wait for.
            let made = tokio::task::spawn_blocking(move || {
                let made = with_tls(&resolver, &tls);
                let has_descriptors = made.is_ok() || local::has_descriptors();
                (made, has_descriptors)
            });
            match made.await {
                Ok((made, true)) => Ok(made),
                // It says nothing of the certificates, so it is not kept.
                Ok((_, false)) => {
                    Err(Sent::Unreachable(Unreachable::Local, "no file descriptor is left".to_owned()))
                }
                Err(_) => Ok(Err("the webhook's TLS client could not be made".to_owned())),
            }
        };
        let made = kept.get_or_try_init(make).await?.clone();
        made.map_err(|why| Sent::Unreachable(Unreachable::Tls, why))
    }
}

/// A request as the client takes it; none if a header is not one.
fn prepared(request: Request) -> Option<reqwest::Request> {
    let mut prepared = reqwest::Request::new(Method::POST, request.url);
    *prepared.body_mut() = Some(request.body.into());
    let headers = prepared.headers_mut();
    headers.reserve(request.headers.len() + THE_CLIENTS_OWN);
    // The client copies all headers, twice. Values that share their memory are only counted then.
    let bytes = request.headers.iter().map(|(_, value)| value.len()).sum();
    let mut values = BytesMut::with_capacity(bytes);
    request.headers.iter().for_each(|(_, value)| values.extend_from_slice(value.as_bytes()));
    let mut values = values.freeze();
    for (name, value) in request.headers {
        let name = match name {
            Cow::Borrowed(name) => HeaderName::from_static(name),
            Cow::Owned(name) => HeaderName::try_from(name).ok()?,
        };
        headers.append(name, HeaderValue::from_maybe_shared(values.split_to(value.len())).ok()?);
    }
    Some(prepared)
}

/// What all clients have in common.
fn builder(resolver: &Resolver) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .referer(false)
        .http1_only()
        .tls_version_min(reqwest::tls::Version::TLS_1_2)
        .pool_idle_timeout(IDLE)
        .dns_resolver(Arc::new(resolver.clone()))
        .connector_layer(Timed)
}

/// Clients that show a certificate, trust another authority, or both.
fn with_tls(resolver: &Resolver, tls: &ClientTls) -> Result<Clients, String> {
    let client = |idle| {
        let mut builder = builder(resolver).pool_max_idle_per_host(idle);
        if let (Some(certificate), Some(key)) = (&tls.certificate_pem, &tls.key_pem) {
            let pem = Zeroizing::new(format!("{}\n{certificate}", key.as_str()));
            let identity = reqwest::Identity::from_pem(pem.as_bytes()).map_err(|error| {
                format!("the webhook's client certificate or key cannot be read: {}", innermost(&error))
            })?;
            builder = builder.identity(identity);
        }
        if let Some(ca) = &tls.ca_pem {
            let authority = reqwest::Certificate::from_pem_bundle(ca.as_bytes())
                .map_err(|error| format!("the webhook's ca_pem cannot be read: {}", innermost(&error)))?;
            builder = builder.tls_certs_only(authority);
        }
        builder.build().map_err(|error| {
            format!("the webhook's certificates or key cannot be used: {}", innermost(&error))
        })
    };
    Ok(Clients { pooled: client(MAX_PRIVATE_IDLE)?, single: client(0)? })
}

/// What an error comes down to.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn StdError = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// Reads the beginning of an answer's body.
async fn read(
    mut response: reqwest::Response,
    most_kept: usize,
    deadline: Deadline,
) -> (reqwest::Response, Vec<u8>) {
    let mut kept = Vec::new();
    let mut bytes = 0;
    while let Ok(Ok(Some(chunk))) = tokio::time::timeout_at(deadline.end, response.chunk()).await {
        bytes += chunk.len();
        let room = most_kept.saturating_sub(kept.len());
        kept.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if bytes > MAX_BODY {
            break;
        }
    }
    (response, kept)
}

/// An answer. Its status counts from here on, whatever became of the body.
fn answer(response: &reqwest::Response, body: &[u8]) -> Sent {
    let retry_after =
        response.headers().get_all("retry-after").iter().map(|value| value.as_bytes().to_vec()).collect();
    let mut headers = Vec::new();
    for name in KEPT_HEADERS {
        if let Some(value) = response.headers().get(name) {
            headers.push((name.to_owned(), kept(name, &String::from_utf8_lossy(value.as_bytes()))));
        }
    }
    let body = String::from_utf8_lossy(body).into_owned();
    let remote = response.remote_addr().map(|address| address.ip().to_canonical());
    Sent::Answered(Answer { status: response.status().as_u16(), retry_after, headers, body, remote })
}

/// As much of an answer's header as may be kept. A redirect often repeats the query of the request, which may hold the
/// webhook's API key.
fn kept(name: &str, value: &str) -> String {
    let end = if name == "location" { value.find(['?', '#']) } else { None };
    value[..end.unwrap_or(value.len())].chars().take(256).collect()
}

/// Finds out from an error's causes why there was no answer. The text names no address: a blocked or closed port must
/// not be an oracle for the network behind us.
fn explain(error: &reqwest::Error) -> Sent {
    let (mut reset, mut local) = (false, false);
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(unresolved) = current.downcast_ref::<Unresolved>() {
            return match unresolved {
                Unresolved::Blocked => Sent::Blocked,
                Unresolved::Local => Sent::Unreachable(Unreachable::Local, unresolved.to_string()),
                Unresolved::Failed | Unresolved::Slow => {
                    Sent::Unreachable(Unreachable::Dns, unresolved.to_string())
                }
            };
        }
        if let Some(tls) = current.downcast_ref::<rustls::Error>() {
            return Sent::Unreachable(Unreachable::Tls, tls_text(tls));
        }
        if let Some(io) = current.downcast_ref::<std::io::Error>() {
            if let Some(tls) = tls_cause(io) {
                return Sent::Unreachable(Unreachable::Tls, tls_text(tls));
            }
            local |= local::is_local(io);
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
    if local && error.is_connect() {
        let why = "this machine has no file descriptor, port or memory left for a connection";
        Sent::Unreachable(Unreachable::Local, why.into())
    } else if error.is_timeout() {
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

/// A TLS error, with what it means for the webhook where that is known.
fn tls_text(error: &rustls::Error) -> String {
    let meaning = match error {
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "the receiver wants a client certificate"
        }
        rustls::Error::AlertReceived(
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied,
        ) => "the receiver does not accept the client certificate",
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "no authority that is trusted for this webhook signed the receiver's certificate"
        }
        _ => return error.to_string(),
    };
    format!("{meaning}: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn a_redirect_is_kept_without_the_query_that_may_hold_a_key() {
        assert_eq!(kept("location", "https://example.com/in?key=secret#x"), "https://example.com/in");
        assert_eq!(kept("location", "/in#secret"), "/in");
        assert_eq!(kept("www-authenticate", "Bearer realm=\"a?b\""), "Bearer realm=\"a?b\"");
        assert_eq!(kept("server", &"ü".repeat(300)).chars().count(), 256);
    }

    /// What the client would send of these headers.
    fn sent(headers: Vec<(Cow<'static, str>, Cow<'static, str>)>) -> Option<Vec<(String, Vec<u8>)>> {
        let url = "https://example.com/".parse().unwrap();
        let prepared = prepared(Request { url, headers, body: b"{}".to_vec() })?;
        let of = |(name, value): (&HeaderName, &HeaderValue)| (name.to_string(), value.as_bytes().to_vec());
        Some(prepared.headers().iter().map(of).collect())
    }

    proptest! {
        /// They lie in one piece of memory, so a value that is taken one byte too long would shift all that follow.
        #[test]
        fn headers_go_out_as_they_are(values in vec("[ -~ü]{0,12}", 0..12)) {
            let headers: Vec<_> =
                values.iter().enumerate().map(|(n, value)| (format!("x-{n}"), value.clone())).collect();
            let given = headers.iter().cloned().map(|(name, value)| (name.into(), value.into())).collect();
            let wanted: Vec<_> = headers.into_iter().map(|(name, value)| (name, value.into_bytes())).collect();
            prop_assert_eq!(sent(given), Some(wanted));
        }
    }

    #[test]
    fn what_is_no_header_is_not_sent() {
        let well = || (Cow::Borrowed("content-type"), Cow::Borrowed("application/json"));
        assert!(sent(vec![well()]).is_some());
        for (name, value) in [("x-a", "one\r\nx-b: two"), ("x-a", "\0"), ("x a", ""), ("", "")] {
            assert_eq!(
                sent(vec![well(), (name.to_owned().into(), value.into())]),
                None,
                "{name:?}: {value:?}"
            );
        }
    }
}
