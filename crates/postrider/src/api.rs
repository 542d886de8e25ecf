//! The client of control's API, for operator commands and the demo.

use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use crate::exit::{Exit, Failure, cause, chain};
use crate::settings::{Secret, Settings};

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(35);
/// How long an export may take: longer than the API lets it.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The most bytes of one answer.
const MAX_ANSWER_BYTES: usize = 32 * 1024 * 1024;

/// Resources that belong to no tenant.
const NOBODYS: [&str; 4] = ["tenants", "status", "queues", "access"];

/// The API of one Postrider.
#[derive(Clone, Debug)]
pub struct Api {
    http: reqwest::Client,
    base: Url,
    token: Secret,
    tenant: Option<String>,
}

/// An answer that says yes.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its body as it came.
    pub raw: String,
    /// Its body; null when there was none.
    pub value: Value,
}

/// What the API says when it says no (RFC 9457).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Problem {
    title: Option<String>,
    detail: Option<String>,
    code: Option<String>,
    hint: Option<String>,
    field: Option<String>,
}

impl Answer {
    /// The body as a type.
    ///
    /// # Errors
    /// [`Failure`] when it is something else.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_str(&self.raw)
            .map_err(|error| Failure::new(Exit::Unavailable, "cannot read the API's answer", error))
    }

    /// The items of a list.
    pub fn items(&self) -> &[Value] {
        self.value.get("items").and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// Where the list goes on.
    pub fn next(&self) -> Option<&str> {
        self.value.get("next").and_then(Value::as_str)
    }
}

/// A client for `http:` and `https:`, with timeouts. A loopback address is never asked through a proxy.
///
/// # Errors
/// [`Failure`] when TLS cannot be set up.
pub fn http_client(base: &Url) -> Result<reqwest::Client, Failure> {
    let mut client = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(REQUEST_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("postrider/", env!("CARGO_PKG_VERSION")));
    if postrider_core::address::literal_address(base).is_some_and(|address| address.is_loopback()) {
        client = client.no_proxy();
    }
    if base.scheme() == "http" {
        // The image of a container may hold no certificates, and none are needed.
        client = client.tls_certs_only([]);
    }
    client.build().map_err(|error| Failure::new(Exit::Other, "cannot make an HTTP client", chain(&error)))
}

impl Api {
    /// The API at this address.
    ///
    /// # Errors
    /// [`Failure`] when TLS cannot be set up.
    pub fn new(base: Url, token: Secret) -> Result<Self, Failure> {
        Ok(Self { http: http_client(&base)?, base, token, tenant: None })
    }

    /// The same API, about what this tenant owns; without one, about the default tenant.
    #[must_use]
    pub fn of(self, tenant: Option<String>) -> Self {
        Self { tenant, ..self }
    }

    /// The API that the settings name, with their API key, or their admin token, or the one in the state directory.
    ///
    /// # Errors
    /// [`Failure`] when there is no token.
    pub fn from_settings(settings: &Settings, base: Option<Url>) -> Result<Self, Failure> {
        let kept = settings.state_dir.admin_token_file();
        let given = match settings.api_token()? {
            Some(key) => Some(key),
            None => settings.admin_token()?,
        };
        let token = match given {
            Some(token) => token,
            None if kept.exists() => crate::settings::read_file_or_stdin(&kept)?,
            None => {
                return Err(Failure::usage(
                    "there is no API key and no admin token",
                    format!(
                        "POSTRIDER_API_TOKEN and POSTRIDER_ADMIN_TOKEN are not set and {} does not exist",
                        kept.display()
                    ),
                )
                .next(
                    "set POSTRIDER_API_TOKEN_FILE to a file with an API key, or POSTRIDER_ADMIN_TOKEN_FILE to the one that \
                     control reads its token from",
                ));
            }
        };
        Self::new(base.unwrap_or_else(|| settings.operator.api_url.clone()), token)
    }

    /// Where it is.
    pub fn base(&self) -> &Url {
        &self.base
    }

    /// Reads something.
    ///
    /// # Errors
    /// [`Failure`] with the exit code that fits the answer.
    pub async fn get(&self, what: &str, path: &[&str], query: &[(&str, String)]) -> Result<Answer, Failure> {
        self.call(Method::GET, what, path, query, None).await
    }

    /// Does or makes something. Sent again by a caller, it is another thing unless the body says otherwise.
    ///
    /// # Errors
    /// [`Failure`] with the exit code that fits the answer.
    pub async fn post(&self, what: &str, path: &[&str], body: Option<String>) -> Result<Answer, Failure> {
        self.call(Method::POST, what, path, &[], body).await
    }

    /// Any call. `what` is the sentence's beginning when it fails: "cannot create the webhook".
    ///
    /// # Errors
    /// [`Failure`] with the exit code that fits the answer.
    pub async fn call(
        &self,
        method: Method,
        what: &str,
        path: &[&str],
        query: &[(&str, String)],
        body: Option<String>,
    ) -> Result<Answer, Failure> {
        let response = self.send(method, what, path, query, body, REQUEST_TIMEOUT).await?;
        let status = response.status().as_u16();
        let raw = read_body(response).await.map_err(|why| Failure::new(Exit::Unavailable, what, why))?;
        if !(200..300).contains(&status) {
            return Err(refusal(what, status, &raw));
        }
        let value = if raw.trim().is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&raw).map_err(|_| {
                Failure::new(Exit::Unavailable, what, format!("{} did not answer with JSON", self.base))
                    .next("check that --api or POSTRIDER_API_URL names a Postrider")
            })?
        };
        Ok(Answer { status, raw, value })
    }

    /// Reads a list as lines, each as soon as it is there: `line` is given one after the other, and none is kept.
    ///
    /// # Errors
    /// [`Failure`] with the exit code that fits the answer, or what `line` fails with.
    pub async fn lines(
        &self,
        what: &str,
        path: &[&str],
        query: &[(&str, String)],
        mut line: impl FnMut(&str) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let response = self.send(Method::GET, what, path, query, None, EXPORT_TIMEOUT).await?;
        let status = response.status().as_u16();
        let failed = |why: String| Failure::new(Exit::Unavailable, what, why);
        if !(200..300).contains(&status) {
            return Err(refusal(what, status, &read_body(response).await.map_err(failed)?));
        }
        let mut stream = response.bytes_stream();
        let mut begun: Vec<u8> = Vec::new();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|error| failed(format!("it was broken off: {}", cause(&error))))?;
            begun.extend_from_slice(&chunk);
            if let Some(end) = begun.iter().rposition(|byte| *byte == b'\n') {
                let text = std::str::from_utf8(&begun[..end]).map_err(|error| failed(error.to_string()))?;
                text.lines().try_for_each(&mut line)?;
                begun.drain(..=end);
            }
            if begun.len() > MAX_ANSWER_BYTES {
                return Err(failed("a line of the answer is too long".to_owned()));
            }
        }
        Ok(())
    }

    /// Sends a request: what comes back, whatever it says.
    async fn send(
        &self,
        method: Method,
        what: &str,
        path: &[&str],
        query: &[(&str, String)],
        body: Option<String>,
        timeout: Duration,
    ) -> Result<reqwest::Response, Failure> {
        let mut url = self.base.clone();
        match url.path_segments_mut() {
            Ok(mut segments) => drop(segments.pop_if_empty().push("v1").extend(path)),
            Err(()) => return Err(Failure::usage(what, format!("{} cannot hold a path", self.base))),
        }
        let owned = !path.first().is_some_and(|resource| NOBODYS.contains(resource));
        let tenant = self.tenant.as_deref().filter(|_| owned).map(|tenant| ("tenant", tenant));
        for (name, value) in query.iter().map(|(name, value)| (*name, value.as_str())).chain(tenant) {
            url.query_pairs_mut().append_pair(name, value);
        }
        let mut request = self.http.request(method.clone(), url).bearer_auth(self.token.reveal());
        if method == Method::POST {
            request = request.header("idempotency-key", uuid::Uuid::now_v7().to_string());
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        request.timeout(timeout).send().await.map_err(|error| self.unreachable(what, &error))
    }

    fn unreachable(&self, what: &str, error: &reqwest::Error) -> Failure {
        let why = if error.is_timeout() {
            format!("{} did not answer in time", self.base)
        } else {
            format!("{} cannot be reached: {}", self.base, cause(error))
        };
        Failure::new(Exit::Unavailable, what, why)
            .next("check that control runs, and that --api or POSTRIDER_API_URL names it")
    }
}

/// The whole body as text, within limits.
///
/// # Errors
/// A sentence: too large, not UTF-8, or cut short.
pub async fn read_body(response: reqwest::Response) -> Result<String, String> {
    let mut bytes = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| cause(&error))?;
        if bytes.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err("the answer is too large".to_owned());
        }
        bytes.extend_from_slice(&chunk);
    }
    String::from_utf8(bytes).map_err(|_| "the answer is not UTF-8".to_owned())
}

/// The failure that an answer of the API describes.
fn refusal(what: &str, status: u16, raw: &str) -> Failure {
    let problem: Problem = serde_json::from_str(raw).unwrap_or_default();
    let reason = problem
        .detail
        .or(problem.title)
        .or(problem.code.clone())
        .unwrap_or_else(|| format!("the answer was {status}"));
    let why = match problem.field {
        Some(field) if !reason.contains(&field) => format!("{field}: {reason}"),
        Some(_) | None => reason,
    };
    let exit = match problem.code.as_deref() {
        Some("quota") => Exit::Conflict,
        Some(_) | None => Exit::of_status(status),
    };
    let mut failure = Failure::new(exit, what, why);
    failure.next = match status {
        // What the API advises is for those who write requests.
        401 => Some(
            "give a valid API key in POSTRIDER_API_TOKEN_FILE, or control's admin token in POSTRIDER_ADMIN_TOKEN_FILE"
                .to_owned(),
        ),
        _ => problem.hint,
    };
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_becomes_what_why_and_next() {
        let raw = r#"{"type":"about:blank","title":"Invalid","status":422,"detail":"10.0.0.1 is private",
            "code":"invalid","hint":"open the range","field":"url"}"#;
        let failure = refusal("cannot create the webhook", 422, raw);
        assert_eq!(failure.to_string(), "cannot create the webhook: url: 10.0.0.1 is private");
        assert_eq!(failure.next.as_deref(), Some("open the range"));
        assert_eq!(failure.exit, Exit::Invalid);
    }

    #[test]
    fn an_api_key_goes_before_the_admin_token() {
        rustls::crypto::ring::default_provider().install_default().ok();
        let dir = tempfile::tempdir().unwrap();
        let of = |pairs: &[(&str, &str)]| {
            let env = pairs.iter().map(|(name, value)| (format!("POSTRIDER_{name}"), (*value).to_owned()));
            let state = ("POSTRIDER_STATE_DIR".to_owned(), dir.path().display().to_string());
            let settings = Settings::from_parts(env.chain([state]), None).unwrap().settings;
            Api::from_settings(&settings, None).map(|api| api.token.reveal().to_owned())
        };
        let key = format!("ptr_{}", "A".repeat(43));
        let (key, token) = (("API_TOKEN", key.as_str()), ("ADMIN_TOKEN", "0123456789abcdef"));
        assert_eq!(of(&[token]).unwrap(), token.1);
        assert_eq!(of(&[key]).unwrap(), key.1);
        assert_eq!(of(&[token, key]).unwrap(), key.1);
        let failure = of(&[]).unwrap_err();
        assert!(failure.to_string().contains("POSTRIDER_API_TOKEN"), "{failure}");
    }

    #[test]
    fn an_answer_of_somebody_else_is_still_explained() {
        let failure = refusal("cannot list webhooks", 502, "<html>bad gateway</html>");
        assert_eq!(failure.to_string(), "cannot list webhooks: the answer was 502");
        assert_eq!(failure.exit, Exit::Unavailable);
        assert!(refusal("x", 401, "").next.is_some());
    }
}
