//! Who asks, and for which tenant. Every handler gets its tenant here.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::header;
use http::request::Parts;
use postrider_core::TenantId;

use super::Api;
use super::problem::{Code, Problem};

/// Who asks: whoever has the admin token, for any tenant.
#[derive(Clone, Copy, Debug)]
struct Admin;

/// The tenant that a request is about.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    asked: Option<TenantId>,
}

impl Scope {
    /// The tenant of the query, or the default tenant.
    pub(crate) fn tenant(&self) -> TenantId {
        self.asked.clone().unwrap_or_else(TenantId::default_tenant)
    }

    /// The tenant of the body, which must not be another than that of the query.
    pub(crate) fn of_body(&self, given: Option<&str>) -> Result<TenantId, Problem> {
        let Some(given) = given else { return Ok(self.tenant()) };
        let given = TenantId::parse(given).map_err(|e| Problem::body("tenant", e.to_string()))?;
        match &self.asked {
            Some(asked) if *asked != given => {
                Err(Problem::body("tenant", "the body and the query name different tenants"))
            }
            _ => Ok(given),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Scope {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // Set by `authorize`: a route that forgot it answers nobody.
        if parts.extensions.get::<Admin>().is_none() {
            return Err(unauthorized());
        }
        let query = parts.uri.query().unwrap_or_default();
        let asked = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "tenant");
        let asked = asked.map(|(_, tenant)| TenantId::parse(&tenant)).transpose();
        Ok(Self { asked: asked.map_err(|e| Problem::parameter("tenant", e.to_string()))? })
    }
}

/// Lets through who has the token. A missing, a malformed and a wrong one get the same answer.
pub(crate) async fn authorize(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    if request.uri().path() == super::OPENAPI_PATH {
        return next.run(request).await;
    }
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let token = given
        .split_once(' ')
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map_or("", |(_, token)| token.trim());
    // Compared also when there is none, so that every refusal takes the same time.
    if !api.token.is(token) {
        return unauthorized().into_response();
    }
    request.extensions_mut().insert(Admin);
    next.run(request).await
}

fn unauthorized() -> Problem {
    Problem::new(
        Code::Unauthorized,
        "the request has no valid token",
        "Send the header Authorization: Bearer and the token in POSTRIDER_ADMIN_TOKEN.",
    )
}
