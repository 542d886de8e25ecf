//! `/v1/login-links`: a link that logs its reader in to the console, once.

use std::sync::Arc;

use axum::extract::State;
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::answer::{Answer, shown};
use super::audit::{Changes, Subject};
use super::problem::{Problem, ProblemBody};
use super::scope::{Scope, token};

/// A link that logs in.
#[derive(Serialize, ToSchema)]
pub(super) struct LoginLink {
    /// The path and the query of the page that logs in; the code in it works once.
    path: String,
    /// Until then.
    expires_at: String,
}

/// Makes a link that logs in to the console as whoever asks for it.
#[utoipa::path(post, path = "/v1/login-links", tag = "console", operation_id = "create_login_link",
    params(("tenant" = Option<String>, Query, description = "Whose; `default` by default")),
    responses((status = 201, body = LoginLink), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    scope: Scope,
    headers: HeaderMap,
) -> Result<Answer, Problem> {
    let now = postrider_broker::now();
    let mut change = api.store.change().await?;
    change.note(&scope.entry(scope.only(), Subject::Login, "console", Changes::none()), now).await?;
    change.commit().await?;
    let path = format!("/login?code={}", api.logins.link(token(&headers)));
    let lasts = u64::try_from(postrider_console::LINK.as_millis()).unwrap_or(u64::MAX);
    let expires_at = shown(now.plus_ms(lasts));
    Answer::json(StatusCode::CREATED, &LoginLink { path, expires_at })
}
