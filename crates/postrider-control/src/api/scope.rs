//! Who asks, whether they may, and for which tenant. Every handler gets its tenant here.

use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Uri, header};
use postrider_core::TenantId;
use tokio::time::Instant;

use super::Api;
use super::layers;
use super::problem::{Code, Problem};
use super::rights::{Asked, Operation, Rights};
use super::wrong_tokens::Peer;
use crate::keys::{KeyHash, KeyScope, KeyScopes};

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// Whoever has the admin token: everything, for any tenant.
    AdminToken,
    /// Whoever has this key.
    Key(Arc<CallerKey>),
}

/// The key of a caller.
#[derive(Debug)]
pub(crate) struct CallerKey {
    pub id: String,
    pub name: String,
    /// Whose it is; none only with the scope `admin`.
    pub tenant: Option<TenantId>,
    pub scopes: KeyScopes,
}

impl Caller {
    /// The only tenant that the caller may see; none for those who may see all.
    fn tenant(&self) -> Option<&TenantId> {
        match self {
            Self::AdminToken => None,
            Self::Key(key) => key.tenant.as_ref(),
        }
    }

    /// The scope without which the caller may not ask for this.
    fn lacks(&self, operation: &Operation) -> Option<KeyScope> {
        match self {
            Self::AdminToken => None,
            Self::Key(key) => operation.needs.filter(|scope| !key.scopes.allow(*scope)),
        }
    }
}

/// Who asks for what, and the tenant that it is about.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    caller: Caller,
    operation: &'static Operation,
    /// The tenant of the query, or the only one that the caller may see.
    tenant: Option<TenantId>,
}

impl Scope {
    /// Of a caller who asks for an operation with this query.
    fn new(caller: Caller, operation: &'static Operation, uri: &Uri) -> Result<Self, Problem> {
        if let Some(scope) = caller.lacks(operation) {
            return Err(lacks_scope(scope));
        }
        let query = uri.query().unwrap_or_default();
        let asked = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "tenant");
        let asked = asked.map(|(_, tenant)| TenantId::parse(&tenant)).transpose();
        let asked = asked.map_err(|e| Problem::parameter("tenant", e.to_string()))?;
        let tenant = match (caller.tenant(), asked) {
            (Some(own), Some(asked)) if *own != asked => return Err(another_tenant()),
            (Some(own), _) => Some(own.clone()),
            (None, asked) => asked,
        };
        Ok(Self { caller, operation, tenant })
    }

    /// The tenant of the query; without one, that of the key, or the default tenant.
    pub(crate) fn tenant(&self) -> TenantId {
        self.tenant.clone().unwrap_or_else(TenantId::default_tenant)
    }

    /// The tenant of the query or the key, for lists that go over every tenant where there is none.
    pub(crate) fn only(&self) -> Option<&TenantId> {
        self.tenant.as_ref()
    }

    /// The tenant of the body, which must not be another than that of the query or of the key.
    pub(crate) fn of_body(&self, given: Option<&str>) -> Result<TenantId, Problem> {
        let Some(given) = given else { return Ok(self.tenant()) };
        let given = TenantId::parse(given).map_err(|e| Problem::body("tenant", e.to_string()))?;
        if self.caller.tenant().is_some_and(|own| *own != given) {
            return Err(another_tenant().field("tenant"));
        }
        match &self.tenant {
            Some(asked) if *asked != given => {
                Err(Problem::body("tenant", "the body and the query name different tenants"))
            }
            _ => Ok(given),
        }
    }

    /// Who asks.
    pub(crate) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// For what.
    pub(super) fn operation(&self) -> &'static Operation {
        self.operation
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Scope {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // Set by `authorize`: a route that forgot it answers nobody.
        parts.extensions.get::<Self>().cloned().ok_or_else(unauthorized)
    }
}

/// Who lets requests in, and by what.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) api: Arc<Api>,
    pub(super) rights: Arc<Rights>,
}

/// Lets through who may ask for this. A missing, a malformed, a wrong, an expired and a revoked token get the same answer.
pub(super) async fn authorize(State(door): State<Door>, mut request: Request, next: Next) -> Response {
    if request.uri().path() == super::OPENAPI_PATH {
        return next.run(request).await;
    }
    let peer = request.extensions().get::<ConnectInfo<Peer>>().map_or(Peer::UNKNOWN, |info| info.0);
    let caller = match door.caller(peer, token(request.headers())).await {
        Ok(caller) => caller,
        Err(problem) => return problem.into_response(),
    };
    // No route has this path: what answers says so, and does nothing.
    let Some(route) = request.extensions().get::<MatchedPath>() else { return next.run(request).await };
    let operation = match door.rights.asked(route.as_str(), request.method()) {
        Some(Asked::Operation(operation)) => operation,
        Some(Asked::OtherMethods(methods)) => {
            let mut response = layers::method_not_allowed(request.method().clone()).await.into_response();
            if let Ok(methods) = HeaderValue::from_str(&methods) {
                response.headers_mut().insert(header::ALLOW, methods);
            }
            return response;
        }
        None => return layers::not_found(request.uri().clone()).await.into_response(),
    };
    match Scope::new(caller, operation, request.uri()) {
        Ok(scope) => {
            request.extensions_mut().insert(scope);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

impl Door {
    /// Who sends this token from there.
    async fn caller(&self, peer: Peer, token: &str) -> Result<Caller, Problem> {
        let api = &self.api;
        let hash = KeyHash::of(token);
        let look = api.wrong_tokens.look(peer, &hash, Instant::now()).map_err(too_many_wrong)?;
        if api.token.is(token) {
            api.wrong_tokens.right(look);
            return Ok(Caller::AdminToken);
        }
        // Looked up also when there is none, so that every refusal takes the same time.
        let row = match api.store.key_of(&hash).await {
            Ok(row) => row,
            Err(error) => {
                api.wrong_tokens.unknown(look);
                return Err(error.into());
            }
        };
        let now = postrider_broker::now();
        let Some(row) = row.filter(|row| row.is_usable(now)) else {
            api.wrong_tokens.wrong(look);
            return Err(unauthorized());
        };
        api.wrong_tokens.right(look);
        api.uses.note(&row, now);
        let key = CallerKey { id: row.id, name: row.name, tenant: row.tenant, scopes: row.scopes };
        Ok(Caller::Key(Arc::new(key)))
    }
}

/// The token of a request; empty if it has none.
fn token(headers: &HeaderMap) -> &str {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    given
        .split_once(' ')
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map_or("", |(_, token)| token.trim())
}

fn unauthorized() -> Problem {
    Problem::new(
        Code::Unauthorized,
        "the request has no valid token",
        "Send the header Authorization: Bearer and an API key, or the token in POSTRIDER_ADMIN_TOKEN.",
    )
}

fn too_many_wrong(seconds: u64) -> Problem {
    Problem::new(
        Code::WrongTokens,
        "too many requests came without a valid token",
        "Wait, and send a token that is valid; one that was valid from this address before is let through.",
    )
    .retry_after(seconds)
}

fn lacks_scope(scope: KeyScope) -> Problem {
    let scope = scope.as_str();
    Problem::new(
        Code::Forbidden,
        format!("the API key does not have the scope {scope}"),
        "Use a key that has it; who has the admin token makes one with POST /v1/api-keys.",
    )
    .with("scope", scope)
}

/// It says the same whether there is such a tenant or not.
fn another_tenant() -> Problem {
    Problem::new(
        Code::Forbidden,
        "the API key is for one tenant, and the request names another",
        "Leave the tenant out, or use a key of that tenant.",
    )
}
