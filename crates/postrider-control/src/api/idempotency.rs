//! `Idempotency-Key`: a request that is sent again gets the same answer, and is carried out once.
//!
//! The answer is kept in the transaction of what it answers, so that after a crash either both are there or neither.
//! It may hold a secret, so it is sealed.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Api;
use super::answer::Answer;
use super::problem::{Code, Problem};
use crate::store::{Change, KeptAnswer};

/// Says that an answer was given before.
const REPLAYED: &str = "idempotency-replayed";

/// Keys whose first request is being worked on.
#[derive(Clone, Debug, Default)]
pub(crate) struct InProgress(Arc<Mutex<HashSet<String>>>);

struct Claim {
    keys: InProgress,
    key: String,
}

impl InProgress {
    fn claim(&self, key: &str) -> Option<Claim> {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.insert(key.to_owned()).then(|| Claim { keys: self.clone(), key: key.to_owned() })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.keys.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// The key of this request, if it has one. Whoever carries the request out keeps its answer under it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Once(Option<Slot>);

#[derive(Clone, Debug)]
struct Slot {
    key: String,
    request: String,
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    status: u16,
    body: String,
}

impl Once {
    /// Keeps the answer, in the transaction of what it answers.
    pub(crate) async fn keep(
        &self,
        api: &Api,
        change: &mut Change<'_>,
        answer: &Answer,
    ) -> Result<(), Problem> {
        let Some(slot) = &self.0 else { return Ok(()) };
        let sealed =
            Sealed { status: answer.status, body: String::from_utf8_lossy(&answer.body).into_owned() };
        let text = serde_json::to_vec(&sealed).unwrap_or_default();
        let sealed = api.key.seal(&purpose(&slot.key), &text, rand::random()).map_err(|error| {
            tracing::error!(%error, "an answer cannot be sealed");
            Problem::new(
                Code::Internal,
                "the answer cannot be kept",
                "Report this; the log of control says more.",
            )
        })?;
        let kept = KeptAnswer { request: slot.request.clone(), answer: sealed };
        if change.keep_answer(&slot.key, &kept, postrider_broker::now()).await? {
            Ok(())
        } else {
            Err(in_progress())
        }
    }

    /// Keeps the answer of what needs no transaction.
    pub(crate) async fn keep_alone(&self, api: &Api, answer: &Answer) -> Result<(), Problem> {
        if self.0.is_none() {
            return Ok(());
        }
        let mut change = api.store.change().await?;
        self.keep(api, &mut change, answer).await?;
        Ok(change.commit().await?)
    }

    /// Something that is the same when the request comes again; nothing without a key.
    pub(crate) fn derive(&self, index: usize) -> Option<String> {
        let slot = self.0.as_ref()?;
        Some(
            hash(&[slot.key.as_bytes(), slot.request.as_bytes(), &(index as u64).to_be_bytes()])[..32]
                .to_owned(),
        )
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Once {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

/// Gives the kept answer, or lets the request through as the one that makes it. The body is in memory already.
pub(crate) async fn once(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    if request.method() != Method::POST {
        return next.run(request).await;
    }
    let key = match key_of(request.headers()) {
        Ok(Some(key)) => key.to_owned(),
        Ok(None) => return next.run(request).await,
        Err(problem) => return problem.into_response(),
    };
    let token =
        request.headers().get(http::header::AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
    let path = request.uri().path().to_owned();
    let key = hash(&[token, path.as_bytes(), key.as_bytes()]);
    let query = request.uri().query().unwrap_or_default().to_owned();
    let body = request.extensions().get::<Bytes>().cloned().unwrap_or_default();
    let slot = Slot { key, request: hash(&[query.as_bytes(), &body]) };
    let Some(_claim) = api.in_progress.claim(&slot.key) else { return in_progress().into_response() };
    match api.store.kept_answer(&slot.key, postrider_broker::now()).await {
        Ok(Some(kept)) if kept.request == slot.request => replay(&api, &slot, &kept),
        Ok(Some(_)) => Problem::new(
            Code::IdempotencyMismatch,
            "the same Idempotency-Key came with another body or query less than 24 hours ago",
            "Use a new key for a new request.",
        )
        .into_response(),
        Ok(None) => {
            request.extensions_mut().insert(Once(Some(slot)));
            next.run(request).await
        }
        Err(error) => Problem::from(error).into_response(),
    }
}

fn replay(api: &Api, slot: &Slot, kept: &KeptAnswer) -> Response {
    let opened = api.key.open(&purpose(&slot.key), &kept.answer);
    let sealed = opened.ok().and_then(|text| serde_json::from_slice::<Sealed>(&text).ok());
    let Some(sealed) = sealed else {
        return Problem::new(
            Code::Internal,
            "the kept answer cannot be read",
            "Use a new key, and look at what exists.",
        )
        .into_response();
    };
    let mut response = Answer { status: sealed.status, body: sealed.body.into_bytes() }.into_response();
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

fn key_of(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let legal =
        |text: &&str| (1..=255).contains(&text.len()) && text.bytes().all(|b| (b' '..=b'~').contains(&b));
    value.to_str().ok().filter(legal).map(Some).ok_or_else(|| {
        Problem::new(
            Code::BadIdempotencyKey,
            "the Idempotency-Key must have 1 to 255 printable ASCII characters",
            "Send a random key, such as a UUID.",
        )
        .field("Idempotency-Key")
    })
}

fn in_progress() -> Problem {
    Problem::new(
        Code::IdempotencyInProgress,
        "the first request with this Idempotency-Key has no answer yet",
        "Send the same request again in a moment.",
    )
    .retry_after(1)
}

fn purpose(key: &str) -> String {
    format!("idempotency/{key}")
}

fn hash(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
