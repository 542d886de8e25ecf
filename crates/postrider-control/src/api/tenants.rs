//! `/v1/tenants`: owners of webhooks and events.

use std::sync::Arc;

use axum::extract::{Path, State};
use http::StatusCode;
use postrider_core::TenantId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::answer::{Answer, shown};
use super::audit::{Changes, Subject};
use super::body::{Body, Params};
use super::cursor::{List, limit};
use super::idempotency::Once;
use super::problem::{Code, Problem, ProblemBody};
use super::scope::Scope;
use crate::store::{TenantRefused, TenantRow};

/// A tenant to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewTenant {
    /// Its name, and the routing key of its events: 1 to 64 of `a-z`, `A-Z`, `0-9`, `-` and `_`.
    id: String,
}

/// A tenant.
#[derive(Serialize, ToSchema)]
pub(super) struct Tenant {
    id: String,
    revision: u64,
    created_at: String,
}

impl From<TenantRow> for Tenant {
    fn from(row: TenantRow) -> Self {
        Self { id: row.id, revision: row.revision, created_at: shown(row.created_at) }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Asked {
    /// How many, from 1 to 200; 50 by default.
    limit: Option<i64>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// Makes a tenant.
#[utoipa::path(post, path = "/v1/tenants", tag = "tenants", operation_id = "create_tenant",
    request_body = NewTenant,
    responses((status = 201, body = Tenant), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    scope: Scope,
    once: Once,
    Body(new): Body<NewTenant>,
) -> Result<Answer, Problem> {
    let id = TenantId::parse(&new.id).map_err(|e| Problem::body("id", e.to_string()))?;
    let now = postrider_broker::now();
    let mut change = api.store.change().await?;
    match change.create_tenant(&id, now).await? {
        Ok(row) => {
            let entry = scope.entry(Some(&id), Subject::Tenant, id.as_str(), Changes::none());
            change.note(&entry, now).await?;
            let answer = Answer::json(StatusCode::CREATED, &Tenant::from(row))?;
            once.keep(&api, &mut change, &answer).await?;
            change.commit().await?;
            Ok(answer)
        }
        Err(TenantRefused::TooMany) => Err(Problem::new(
            Code::Quota,
            "there are as many tenants as there may be",
            "Delete tenants that are not needed.",
        )),
        Err(
            TenantRefused::Exists
            | TenantRefused::Unknown
            | TenantRefused::HasWebhooks
            | TenantRefused::HasReminders,
        ) => {
            let detail = format!("there is a tenant {:?}", id.as_str());
            Err(Problem::new(Code::TenantExists, detail, "Use it, or choose another name.").field("id"))
        }
    }
}

/// Lists tenants by name.
#[utoipa::path(get, path = "/v1/tenants", tag = "tenants", operation_id = "list_tenants", params(Asked),
    responses((status = 200, body = inline(TenantPage)), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    _: Scope,
    Params(asked): Params<Asked>,
) -> Result<Answer, Problem> {
    let limit = limit(asked.limit)?;
    let list = List::new(api.store.epoch(), "tenants", &());
    let after = asked.cursor.as_deref().map(|cursor| list.place(cursor)).transpose()?.unwrap_or_default();
    let rows = api.store.tenants(&after, limit + 1).await?;
    Answer::ok(&list.page(rows, limit, |row| row.id.clone(), |row| Ok(Tenant::from(row)))?)
}

#[derive(ToSchema)]
#[allow(dead_code, reason = "it describes `Page<Tenant>`")]
pub(super) struct TenantPage {
    items: Vec<Tenant>,
    next: Option<String>,
}

/// One tenant.
#[utoipa::path(get, path = "/v1/tenants/{id}", tag = "tenants", operation_id = "get_tenant",
    params(("id" = String, Path, description = "The tenant")),
    responses((status = 200, body = Tenant), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    _: Scope,
    Path(id): Path<String>,
) -> Result<Answer, Problem> {
    match api.store.tenant(&id).await? {
        Some(row) => Answer::ok(&Tenant::from(row)),
        None => Err(unknown()),
    }
}

/// Removes a tenant that has no webhooks, and revokes its API keys. Its events and deliveries stay in the books.
#[utoipa::path(delete, path = "/v1/tenants/{id}", tag = "tenants", operation_id = "delete_tenant",
    params(("id" = String, Path, description = "The tenant")),
    responses((status = 204), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    scope: Scope,
    Path(id): Path<String>,
) -> Result<Answer, Problem> {
    let Ok(id) = TenantId::parse(&id) else { return Err(unknown()) };
    if id == TenantId::default_tenant() {
        let detail = "the default tenant exists for those who name none";
        return Err(Problem::new(Code::TenantInUse, detail, "Leave it; it costs nothing."));
    }
    let now = postrider_broker::now();
    let mut change = api.store.change().await?;
    match change.delete_tenant(&id, now).await? {
        Ok(_) => {
            let entry = scope.entry(Some(&id), Subject::Tenant, id.as_str(), Changes::none());
            change.note(&entry, now).await?;
            change.commit().await?;
            Ok(Answer::nothing())
        }
        Err(TenantRefused::HasWebhooks) => {
            Err(Problem::new(Code::TenantInUse, "the tenant has webhooks", "Delete its webhooks first."))
        }
        Err(TenantRefused::HasReminders) => Err(Problem::new(
            Code::TenantInUse,
            "the tenant has reminders that are pending",
            "Cancel them first; GET /v1/reminders?state=pending lists them.",
        )),
        Err(TenantRefused::Unknown | TenantRefused::Exists | TenantRefused::TooMany) => Err(unknown()),
    }
}

fn unknown() -> Problem {
    Problem::new(Code::NotFound, "there is no such tenant", "GET /v1/tenants lists them.")
}
