//! What the API says when it does not do what was asked: RFC 9457, with a code from a closed list and a hint.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::store::StoreError;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $status:ident, $code:literal, $title:literal;)*) => {
        /// What is wrong, from a closed list: part of every problem, label of a metric.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Code {
            $($(#[$doc])* $name,)*
        }

        /// Every code, for metrics that are created at start.
        pub(crate) const PROBLEM_CODES: &[Code] = &[$(Code::$name,)*];

        impl Code {
            /// One word.
            pub(crate) fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)*
                }
            }

            /// The status that goes with it.
            pub(crate) fn status(self) -> StatusCode {
                match self {
                    $(Self::$name => StatusCode::$status,)*
                }
            }

            fn title(self) -> &'static str {
                match self {
                    $(Self::$name => $title,)*
                }
            }
        }
    };
}

codes! {
    /// JSON that is no JSON.
    BadJson = BAD_REQUEST, "bad_json", "The body is not JSON";
    /// A cursor that was not given out for this list.
    BadCursor = BAD_REQUEST, "bad_cursor", "The cursor is not one of this list";
    /// No token, or not the right one.
    Unauthorized = UNAUTHORIZED, "unauthorized", "A valid token is needed";
    /// The key is not for this, or not for this tenant.
    Forbidden = FORBIDDEN, "forbidden", "The API key does not allow it";
    /// Too many of something.
    Quota = FORBIDDEN, "quota", "There are too many of these";
    /// Nothing there.
    NotFound = NOT_FOUND, "not_found", "Not found";
    /// Another method.
    MethodNotAllowed = METHOD_NOT_ALLOWED, "method_not_allowed", "The resource does not have this method";
    /// The body came too slowly.
    SlowBody = REQUEST_TIMEOUT, "slow_body", "The body did not arrive in time";
    /// A tenant of that name exists.
    TenantExists = CONFLICT, "tenant_exists", "The tenant exists";
    /// A tenant that cannot go.
    TenantInUse = CONFLICT, "tenant_in_use", "The tenant is in use";
    /// A catalogue and another one of the tenant have the same words.
    CatalogueClash = CONFLICT, "catalogue_clash", "Another catalogue has some of its names";
    /// What a catalogue would lose is in use.
    CatalogueInUse = CONFLICT, "catalogue_in_use", "What would be removed is in use";
    /// The secret cannot be shown or set like this.
    SecretRules = CONFLICT, "secret_rules", "The profile's rules for secrets do not allow it";
    /// Nothing to try the webhook with.
    NothingToSend = CONFLICT, "nothing_to_send", "There is no event type to try the webhook with";
    /// A reminder that was sent.
    ReminderSent = CONFLICT, "reminder_sent", "The event of the reminder was published";
    /// The webhook is in another state.
    WrongState = CONFLICT, "wrong_state", "The webhook is in another state";
    /// The delivery is still under way.
    NotFinal = CONFLICT, "not_final", "The delivery is still under way";
    /// The delivery has ended.
    Ended = CONFLICT, "ended", "The delivery has ended";
    /// The webhook is gone.
    WebhookDeleted = CONFLICT, "webhook_deleted", "The webhook was deleted";
    /// The dead letter is no delivery.
    NoDelivery = CONFLICT, "no_delivery", "The dead letter is no delivery";
    /// Nothing happens with this replay any more.
    ReplayOver = CONFLICT, "replay_over", "The replay is over";
    /// The key was used for another request.
    IdempotencyMismatch = CONFLICT, "idempotency_mismatch", "The Idempotency-Key was used for another request";
    /// The first request with this key is still being worked on.
    IdempotencyInProgress = CONFLICT, "idempotency_in_progress", "A request with this Idempotency-Key is being worked on";
    /// The body of the event was removed.
    BodyGone = CONFLICT, "body_gone", "The body of the event was removed";
    /// The body is too large.
    BodyTooLarge = PAYLOAD_TOO_LARGE, "body_too_large", "The body is too large";
    /// The URL is too long.
    UriTooLong = URI_TOO_LONG, "uri_too_long", "The URL is too long";
    /// Not JSON by its content type.
    UnsupportedMediaType = UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "The content type is not read";
    /// A member of the body.
    BadBody = UNPROCESSABLE_ENTITY, "bad_body", "A member of the body is not as it must be";
    /// A parameter of the query.
    BadParameter = UNPROCESSABLE_ENTITY, "bad_parameter", "A parameter is not as it must be";
    /// A catalogue with errors.
    BadCatalogue = UNPROCESSABLE_ENTITY, "bad_catalogue", "The catalogue has errors";
    /// An event that is none.
    BadEvent = UNPROCESSABLE_ENTITY, "bad_event", "One of the events is not one";
    /// There is no such tenant.
    UnknownTenant = UNPROCESSABLE_ENTITY, "unknown_tenant", "There is no such tenant";
    /// The Idempotency-Key cannot be one.
    BadIdempotencyKey = UNPROCESSABLE_ENTITY, "bad_idempotency_key", "The Idempotency-Key cannot be used";
    /// Too soon after the last time.
    TooSoon = TOO_MANY_REQUESTS, "too_soon", "It was done a moment ago";
    /// Too many requests without a valid token.
    WrongTokens = TOO_MANY_REQUESTS, "wrong_tokens", "Too many requests had no valid token";
    /// A fault of ours.
    Internal = INTERNAL_SERVER_ERROR, "internal", "Something failed here";
    /// The broker does not take it now.
    BrokerUnavailable = SERVICE_UNAVAILABLE, "broker_unavailable", "RabbitMQ does not take it now";
    /// The store does not answer.
    StoreUnavailable = SERVICE_UNAVAILABLE, "store_unavailable", "The store does not answer";
    /// It took too long.
    Timeout = SERVICE_UNAVAILABLE, "timeout", "It took too long";
    /// Too much at once.
    Busy = SERVICE_UNAVAILABLE, "busy", "Too much is asked at once";
}

/// A problem, to be answered.
#[derive(Debug)]
pub(crate) struct Problem {
    code: Code,
    detail: String,
    hint: String,
    field: Option<String>,
    retry_after_secs: Option<u64>,
    more: Map<String, Value>,
}

/// Members of a problem, as they are documented.
#[derive(ToSchema)]
#[schema(as = Problem)]
#[allow(dead_code, reason = "it describes what `Problem` writes")]
pub(crate) struct ProblemBody {
    /// `urn:postrider:problem:` and the code.
    r#type: String,
    /// The code in words.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What exactly is wrong.
    detail: String,
    /// One word from a closed list.
    code: String,
    /// What to do next.
    hint: String,
    /// Which member or parameter is meant, if it is one.
    field: Option<String>,
}

impl Problem {
    /// A problem with what exactly is wrong, and what to do next.
    pub(crate) fn new(code: Code, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            hint: hint.into(),
            field: None,
            retry_after_secs: None,
            more: Map::new(),
        }
    }

    /// A member of the body that is not as it must be.
    pub(crate) fn body(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(Code::BadBody, detail, "Correct the member and send the request again.").field(field)
    }

    /// A parameter that is not as it must be.
    pub(crate) fn parameter(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(Code::BadParameter, detail, "Correct the parameter and send the request again.")
            .field(field)
    }

    /// Nothing of this kind has this id, or not for this tenant.
    pub(crate) fn not_found(what: &str) -> Self {
        Self::new(
            Code::NotFound,
            format!("there is no such {what} in this tenant"),
            "Check the id, and the tenant parameter when it is not the default tenant.",
        )
    }

    #[cfg(test)]
    pub(crate) fn code(&self) -> Code {
        self.code
    }

    #[cfg(test)]
    pub(crate) fn named(&self) -> &str {
        self.field.as_deref().unwrap_or_default()
    }

    /// Which member or parameter is meant.
    pub(crate) fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// When to try again.
    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_secs = Some(seconds);
        self
    }

    /// One more member.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "a request failed at the store");
        Self::new(
            Code::StoreUnavailable,
            "the store did not do its part",
            "Try again in a moment; the log of control says why.",
        )
        .retry_after(2)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.code.status();
        let mut members = Map::new();
        members.insert("type".into(), format!("urn:postrider:problem:{}", self.code.as_str()).into());
        members.insert("title".into(), self.code.title().into());
        members.insert("status".into(), status.as_u16().into());
        members.insert("detail".into(), self.detail.into());
        members.insert("code".into(), self.code.as_str().into());
        members.insert("hint".into(), self.hint.into());
        if let Some(field) = self.field {
            members.insert("field".into(), field.into());
        }
        members.extend(self.more);
        let mut response = Response::new(Body::from(Value::Object(members).to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_secs {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.code == Code::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"postrider\""));
        }
        response.extensions_mut().insert(self.code);
        response
    }
}
