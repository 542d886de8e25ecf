//! Asking the API, as whoever has logged in.

use std::sync::{Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::response::Response;
use http::{Extensions, HeaderValue, Method, Request, StatusCode, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use tower::ServiceExt as _;
use url::form_urlencoded::Serializer;
use zeroize::Zeroizing;

use crate::fields::Fields;

/// The longest answer that is read, bytes: a page of 200 with everything in them is far below.
const MAX_ANSWER_BYTES: usize = 32 * 1024 * 1024;
/// The member of a form that is another one each time the form is shown.
pub(crate) const ONCE: &str = "once";
/// The most requests that a page remembers, to show them at its end.
const MAX_CALLS: usize = 8;

/// What was asked of the API for a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    /// The method.
    pub(crate) method: Method,
    /// The path with its query.
    pub(crate) path: String,
}

/// Why the API did not do it: the problem that it answered (RFC 9457).
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Refused {
    /// The HTTP status.
    pub(crate) status: u16,
    /// One word from the API's list.
    pub(crate) code: String,
    /// What exactly is wrong.
    pub(crate) detail: String,
    /// What to do next.
    pub(crate) hint: String,
    /// Which member or parameter is meant, if it is one.
    #[serde(default)]
    pub(crate) field: Option<String>,
    /// More members, such as the scope that is missing.
    #[serde(flatten)]
    pub(crate) more: Map<String, Value>,
}

impl Refused {
    fn unreadable(what: &dyn std::fmt::Display) -> Self {
        tracing::error!(%what, "the console cannot read an answer of the API");
        Self {
            status: 500,
            code: "internal".into(),
            detail: "the console could not read what the API answered".into(),
            hint: "Report this; the log of control says more.".into(),
            field: None,
            more: Map::new(),
        }
    }

    /// Whether the token opens nothing any more.
    pub(crate) fn is_logged_out(&self) -> bool {
        self.status == StatusCode::UNAUTHORIZED.as_u16()
    }
}

/// The API, for one request of a browser.
pub(crate) struct Api {
    router: Router,
    token: Zeroizing<String>,
    /// What the socket knows of who asks: the API limits wrong tokens by it.
    socket: Extensions,
    tenant: Option<String>,
    calls: Mutex<Vec<Call>>,
}

impl Api {
    /// The API, asked with this token for a request over this socket.
    pub(crate) fn new(
        router: Router,
        token: Zeroizing<String>,
        tenant: Option<String>,
        socket: Extensions,
    ) -> Self {
        Self { router, token, socket, tenant, calls: Mutex::default() }
    }

    /// Reads something. Parameters without a value are left out.
    ///
    /// # Errors
    /// [`Refused`] with the API's problem.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<T, Refused> {
        self.ask(Method::GET, path, query, None, None).await
    }

    /// Changes something.
    ///
    /// # Errors
    /// [`Refused`] with the API's problem.
    pub(crate) async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, Refused> {
        self.ask(method, path, &[], body.map(Value::to_string), None).await
    }

    /// Makes something with a body that is JSON already, and that stays as it is spelt.
    ///
    /// # Errors
    /// [`Refused`] with the API's problem.
    pub(crate) async fn send_text<T: DeserializeOwned>(
        &self,
        path: &str,
        body: String,
    ) -> Result<T, Refused> {
        self.ask(Method::POST, path, &[], Some(body), None).await
    }

    /// Makes something once for each form: if the same form is sent again, as when the answer is loaded again, nothing more is made.
    ///
    /// # Errors
    /// [`Refused`] with the API's problem.
    pub(crate) async fn make_once<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
        fields: &Fields,
    ) -> Result<T, Refused> {
        let body = body.to_string();
        let once = once_of(fields.get(ONCE), &body);
        self.ask(Method::POST, path, &[], Some(body), once.as_deref()).await
    }

    /// Changes something, with parameters. Those without a value are left out.
    ///
    /// # Errors
    /// [`Refused`] with the API's problem.
    pub(crate) async fn send_with<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<T, Refused> {
        self.ask(method, path, query, body.map(Value::to_string), None).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<String>,
        once: Option<&str>,
    ) -> Result<T, Refused> {
        let response = self.answer(method, path, query, body, once).await?;
        let bytes = to_bytes(response.into_body(), MAX_ANSWER_BYTES).await;
        let bytes = bytes.map_err(|e| Refused::unreadable(&e))?;
        let bytes: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
        serde_json::from_slice(bytes).map_err(|e| Refused::unreadable(&e))
    }

    /// A list as a file (NDJSON), handed on as it comes: it is never here as a whole. Parameters without a value are left out.
    ///
    /// # Errors
    /// [`Refused`] with the API's problem.
    pub(crate) async fn file(&self, path: &str, query: &[(&str, &str)]) -> Result<Response, Refused> {
        let response = self.answer(Method::GET, path, query, None, None).await?;
        let headers = [header::CONTENT_TYPE, header::CONTENT_DISPOSITION];
        let [Some(kind), Some(name)] = headers.map(|name| response.headers().get(name).cloned()) else {
            return Err(Refused::unreadable(&"it is no file"));
        };
        let mut file = Response::new(response.into_body());
        file.headers_mut().insert(header::CONTENT_TYPE, kind);
        file.headers_mut().insert(header::CONTENT_DISPOSITION, name);
        Ok(file)
    }

    /// What the API answers when it does it.
    async fn answer(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<String>,
        once: Option<&str>,
    ) -> Result<Response, Refused> {
        let path = self.path(path, query);
        self.note(Call { method: method.clone(), path: path.clone() });
        let is_json = body.is_some();
        let mut request = Request::new(body.map_or_else(Body::empty, Body::from));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|e| Refused::unreadable(&e))?;
        *request.extensions_mut() = self.socket.clone();
        let token = HeaderValue::from_str(&format!("Bearer {}", self.token.as_str()));
        let mut token = token.map_err(|e| Refused::unreadable(&e))?;
        token.set_sensitive(true);
        request.headers_mut().insert(header::AUTHORIZATION, token);
        if let Some(once) = once.and_then(|once| HeaderValue::from_str(once).ok()) {
            request.headers_mut().insert("idempotency-key", once);
        }
        if is_json {
            let json = HeaderValue::from_static("application/json");
            request.headers_mut().insert(header::CONTENT_TYPE, json);
        }
        let response = match self.router.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let bytes = to_bytes(response.into_body(), MAX_ANSWER_BYTES).await;
        let bytes = bytes.map_err(|e| Refused::unreadable(&e))?;
        Err(serde_json::from_slice(&bytes).unwrap_or_else(|e| Refused::unreadable(&e)))
    }

    /// The path with its query, and with the tenant where one was chosen.
    fn path(&self, path: &str, query: &[(&str, &str)]) -> String {
        let mut all = Serializer::new(String::new());
        for (name, value) in query.iter().filter(|(_, value)| !value.is_empty()) {
            all.append_pair(name, value);
        }
        // Tenants themselves are nobody's.
        if let Some(tenant) = self.tenant.as_ref().filter(|_| !path.starts_with("/v1/tenants")) {
            all.append_pair("tenant", tenant);
        }
        let all = all.finish();
        if all.is_empty() { path.to_owned() } else { format!("{path}?{all}") }
    }

    fn note(&self, call: Call) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        if calls.len() < MAX_CALLS && !calls.contains(&call) {
            calls.push(call);
        }
    }

    /// What was read so far.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The key under which the API does this once: that of the form with what is asked, so that a form that was changed meanwhile is
/// another one. Nothing where the form has none of ours.
fn once_of(form: &str, body: &str) -> Option<String> {
    let ours = (16..=64).contains(&form.len())
        && form.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    ours.then(|| {
        let body: String = Sha256::digest(body).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("console/{form}/{body}")
    })
}

/// A word as part of a path.
pub(crate) fn segment(word: &str) -> String {
    url::form_urlencoded::byte_serialize(word.as_bytes()).collect::<String>().replace('+', "%20")
}

/// A page of a list.
#[derive(Debug, Deserialize)]
pub(crate) struct Listed<T> {
    /// What is on it.
    pub(crate) items: Vec<T>,
    /// Where the next page begins; nothing after the last.
    #[serde(default)]
    pub(crate) next: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_that_was_changed_is_another_one() {
        let form = "0123456789abcdef_-";
        let once = once_of(form, "{}").unwrap();
        assert!(once.starts_with("console/0123456789abcdef_-/"), "{once}");
        assert_eq!(once_of(form, "{}").unwrap(), once);
        assert_ne!(once_of(form, "{\"name\":\"b\"}").unwrap(), once);
        for none in ["", "short", "with a space in it", &"x".repeat(65)] {
            assert_eq!(once_of(none, "{}"), None, "{none}");
        }
    }
}
