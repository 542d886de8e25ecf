//! `/v1/api-keys`: who else may use the API, and for what.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{Path, State};
use http::StatusCode;
use postrider_core::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::answer::{Answer, shown};
use super::audit::{Changes, Subject};
use super::body::{Body, Params, moment};
use super::cursor::{List, limit};
use super::idempotency::Once;
use super::problem::{Code, Problem, ProblemBody};
use super::scope::Scope;
use crate::keys::{FreshKey, KeyScope, KeyScopes};
use crate::store::{KeyRefused, KeyRow, MAX_KEYS, NewKeyRow};

/// The longest name, characters.
const MAX_NAME: usize = 128;

/// A key to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewKey {
    /// What people call it, 1 to 128 characters.
    name: String,
    /// Whose; `default` by default. Not with the scope `admin`, which is for every tenant.
    tenant: Option<String>,
    /// What it is for, at least one: `events:write`, `read`, `manage`, `replay`, `admin`. `admin` includes the others.
    scopes: BTreeSet<String>,
    /// It opens nothing from this on, RFC 3339; never by default.
    expires_at: Option<String>,
}

/// A key of this API, without the key itself.
#[derive(Serialize, ToSchema)]
pub(super) struct Key {
    id: String,
    name: String,
    /// Whose; null for a key that is for every tenant.
    tenant: Option<String>,
    scopes: Vec<&'static str>,
    /// `active`, `expired` or `revoked`.
    state: &'static str,
    /// The last four characters of the key.
    hint: String,
    created_at: String,
    expires_at: Option<String>,
    revoked_at: Option<String>,
    /// To within a minute.
    last_used_at: Option<String>,
    /// The key itself: in the answer that makes it, this once. An answer that is given again for an `Idempotency-Key` does not
    /// have it: it is kept nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

impl Key {
    fn of(row: KeyRow, now: Timestamp) -> Self {
        let state = match row.revoked_at {
            Some(_) => "revoked",
            None if row.is_usable(now) => "active",
            None => "expired",
        };
        Self {
            id: row.id,
            name: row.name,
            tenant: row.tenant.map(|tenant| tenant.to_string()),
            scopes: row.scopes.words(),
            state,
            hint: format!("…{}", row.hint),
            created_at: shown(row.created_at),
            expires_at: row.expires_at.map(shown),
            revoked_at: row.revoked_at.map(shown),
            last_used_at: row.last_used_at.map(shown),
            key: None,
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Asked {
    /// Of this tenant; all keys by default.
    #[allow(dead_code, reason = "read by `Scope`")]
    tenant: Option<String>,
    /// How many, from 1 to 200; 50 by default.
    limit: Option<i64>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// Makes an API key for a tenant, or with the scope `admin` for every tenant.
///
/// The answer holds the key, once. Only a hash of it is kept.
#[utoipa::path(post, path = "/v1/api-keys", tag = "api keys", operation_id = "create_api_key",
    request_body = NewKey,
    responses((status = 201, body = Key), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    scope: Scope,
    once: Once,
    Body(new): Body<NewKey>,
) -> Result<Answer, Problem> {
    let now = postrider_broker::now();
    let scopes = check(&new)?;
    let expires_at = moment("expires_at", new.expires_at.as_deref())?;
    if expires_at.is_some_and(|at| at <= now) {
        return Err(Problem::body("expires_at", "expires_at must be later than now, or null for never"));
    }
    let tenant = match scopes.is_admin() {
        false => Some(scope.of_body(new.tenant.as_deref())?),
        true if new.tenant.is_none() && scope.only().is_none() => None,
        true => {
            let detail = "a key with the scope admin is for every tenant; leave the tenant out";
            return Err(Problem::body("tenant", detail));
        }
    };
    let fresh = FreshKey::of(rand::random());
    let row = NewKeyRow {
        id: format!("key_{}", uuid::Uuid::now_v7().simple()),
        hash: fresh.hash(),
        tenant,
        name: new.name,
        scopes,
        hint: fresh.hint().to_owned(),
        expires_at,
    };
    let mut change = api.store.change().await?;
    let made = change.make_key(&row, now).await?.map_err(|refused| refusal(refused, &row))?;
    let changes = Changes::none()
        .with("name", &made.name)
        .with("scopes", made.scopes.words())
        .with_some("expires_at", made.expires_at.map(shown));
    let entry = scope.entry(made.tenant.as_ref(), Subject::ApiKey, &made.id, changes);
    change.note(&entry, now).await?;
    let mut key = Key::of(made, now);
    // Kept without the key: a hash is all that is to be found of it afterwards.
    once.keep(&api, &mut change, &Answer::json(StatusCode::CREATED, &key)?).await?;
    key.key = Some(fresh.reveal().to_owned());
    let answer = Answer::json(StatusCode::CREATED, &key)?;
    change.commit().await?;
    Ok(answer)
}

fn check(new: &NewKey) -> Result<KeyScopes, Problem> {
    let length = new.name.chars().count();
    if !(1..=MAX_NAME).contains(&length)
        || new.name.trim().is_empty()
        || new.name.chars().any(char::is_control)
    {
        let detail = format!(
            "the name must have 1 to {MAX_NAME} characters, not only spaces, and no control characters"
        );
        return Err(Problem::body("name", detail));
    }
    let known = KeyScope::ALL.map(KeyScope::as_str).join(", ");
    if new.scopes.is_empty() {
        return Err(Problem::body("scopes", format!("a key needs at least one scope: {known}")));
    }
    let scopes = new.scopes.iter().map(|word| {
        KeyScope::parse(word).ok_or_else(|| Problem::body("scopes", format!("a scope is one of {known}")))
    });
    scopes.collect()
}

fn refusal(refused: KeyRefused, new: &NewKeyRow) -> Problem {
    match (refused, &new.tenant) {
        (KeyRefused::UnknownTenant, tenant) => {
            let tenant = tenant.as_ref().map_or("", |tenant| tenant.as_str());
            let detail = format!("there is no tenant {tenant:?}");
            Problem::new(Code::UnknownTenant, detail, "POST /v1/tenants makes one.").field("tenant")
        }
        (KeyRefused::TooMany, tenant) => {
            let whose = if tenant.is_some() { "the tenant has" } else { "there are, for every tenant," };
            let detail = format!("{whose} {MAX_KEYS} keys that are not revoked, and at most so many");
            Problem::new(Code::Quota, detail, "Revoke keys that are not needed.")
        }
    }
}

/// Lists keys, newest first, also those that have expired or were revoked less than 90 days ago.
#[utoipa::path(get, path = "/v1/api-keys", tag = "api keys", operation_id = "list_api_keys", params(Asked),
    responses((status = 200, body = inline(KeyPage)), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    scope: Scope,
    Params(asked): Params<Asked>,
) -> Result<Answer, Problem> {
    let limit = limit(asked.limit)?;
    let list = List::new(api.store.epoch(), "api keys", &scope.only());
    let before = list.row(asked.cursor.as_deref())?;
    let rows = api.store.keys(scope.only(), before, limit + 1).await?;
    let now = postrider_broker::now();
    Answer::ok(&list.page(rows, limit, |row| row.seq.to_string(), |row| Ok(Key::of(row, now)))?)
}

#[derive(ToSchema)]
#[allow(dead_code, reason = "it describes `Page<Key>`")]
pub(super) struct KeyPage {
    items: Vec<Key>,
    next: Option<String>,
}

/// One key.
#[utoipa::path(get, path = "/v1/api-keys/{id}", tag = "api keys", operation_id = "get_api_key",
    params(("id" = String, Path, description = "The key's id")),
    responses((status = 200, body = Key), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    _: Scope,
    Path(id): Path<String>,
) -> Result<Answer, Problem> {
    match api.store.key(&id).await? {
        Some(row) => Answer::ok(&Key::of(row, postrider_broker::now())),
        None => Err(unknown()),
    }
}

/// Revokes a key, at once and for good. It stays listed; one that is revoked already stays as it is.
#[utoipa::path(delete, path = "/v1/api-keys/{id}", tag = "api keys", operation_id = "revoke_api_key",
    params(("id" = String, Path, description = "The key's id")),
    responses((status = 204), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn revoke(
    State(api): State<Arc<Api>>,
    scope: Scope,
    Path(id): Path<String>,
) -> Result<Answer, Problem> {
    let now = postrider_broker::now();
    let mut change = api.store.change().await?;
    let Some(before) = change.revoke_key(&id, now).await? else { return Err(unknown()) };
    if before.revoked_at.is_none() {
        let changes = Changes::none().was("name", &before.name);
        change.note(&scope.entry(before.tenant.as_ref(), Subject::ApiKey, &id, changes), now).await?;
        change.commit().await?;
    }
    Ok(Answer::nothing())
}

fn unknown() -> Problem {
    Problem::new(Code::NotFound, "there is no such API key", "GET /v1/api-keys lists them.")
}
