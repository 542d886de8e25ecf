//! `/v1/access`: who asks, and what they may.

use serde::Serialize;
use utoipa::ToSchema;

use super::answer::Answer;
use super::audit::ADMIN_TOKEN;
use super::problem::{Problem, ProblemBody};
use super::scope::{Caller, Scope};
use crate::keys::KeyScope;

/// Who has a token, and what it is for.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Access {
    /// `admin token`, or the id of the API key.
    actor: String,
    /// What people call the key; null for the admin token.
    name: Option<String>,
    /// The only tenant that the caller may see; null for who may see all.
    tenant: Option<String>,
    /// What the token is for. `admin` includes the others; the admin token has it.
    scopes: Vec<&'static str>,
}

impl From<&Caller> for Access {
    fn from(caller: &Caller) -> Self {
        match caller {
            Caller::AdminToken => Self {
                actor: ADMIN_TOKEN.to_owned(),
                name: None,
                tenant: None,
                scopes: vec![KeyScope::Admin.as_str()],
            },
            Caller::Key(key) => Self {
                actor: key.id.clone(),
                name: Some(key.name.clone()),
                tenant: key.tenant.as_ref().map(ToString::to_string),
                scopes: key.scopes.words(),
            },
        }
    }
}

/// Who asks, and what they may. Every valid token will do, whatever its scopes.
#[utoipa::path(get, path = "/v1/access", tag = "api keys", operation_id = "get_access",
    responses((status = 200, body = Access), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn get(scope: Scope) -> Result<Answer, Problem> {
    Answer::ok(&Access::from(scope.caller()))
}
