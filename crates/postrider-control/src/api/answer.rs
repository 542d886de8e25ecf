//! An answer that went well.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use postrider_core::Timestamp;
use serde::Serialize;

use super::problem::{Code, Problem};

/// Status and JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Answer {
    /// An answer with a body.
    pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Result<Self, Problem> {
        match serde_json::to_vec(body) {
            Ok(body) => Ok(Self { status: status.as_u16(), body }),
            Err(error) => {
                tracing::error!(%error, "an answer cannot be written");
                let hint = "Report this; the log of control says more.";
                Err(Problem::new(Code::Internal, "the answer cannot be written", hint))
            }
        }
    }

    /// 200 with a body.
    pub(crate) fn ok(body: &impl Serialize) -> Result<Self, Problem> {
        Self::json(StatusCode::OK, body)
    }

    /// 204.
    pub(crate) fn nothing() -> Self {
        Self { status: StatusCode::NO_CONTENT.as_u16(), body: Vec::new() }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let empty = self.body.is_empty();
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::OK);
        if !empty {
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        // Answers hold what only this caller may see.
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// A time as people see it.
pub(crate) fn shown(at: Timestamp) -> String {
    at.to_rfc3339()
}

/// One page of a list.
#[derive(Serialize)]
pub(crate) struct Page<T> {
    pub items: Vec<T>,
    pub next: Option<String>,
}
