//! Making, listing, changing and removing webhooks, and turning them on and off.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use http::StatusCode;
use postrider_core::WebhookId;
use postrider_core::signature::{SigningKey, new_secret};
use postrider_core::webhook::{SecretKind, WebhookState};
use postrider_core::wire::{SecretRecord, WebhookRecord};
use serde::Deserialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::check::{Base, Checked, may_be_active};
use super::explain::{directory_of, subscription_of};
use super::secrets::{as_kept, fits, hint_of};
use super::shape::{NewApiKey, NewAuth, NewSubscription, NewTls, NewWebhook, Retry, Webhook, limits_of};
use super::{Profiles, find, look_up, profile_of, unreadable_secret};
use crate::api::answer::Answer;
use crate::api::audit::{Changes, Subject, differing};
use crate::api::body::{self, Body, Params};
use crate::api::cursor::{List, limit};
use crate::api::deliveries::{time, word};
use crate::api::idempotency::Once;
use crate::api::merge::merge;
use crate::api::problem::{Code, Problem, ProblemBody};
use crate::api::scope::Scope;
use crate::api::{Api, event_types};
use crate::store::{OwnEvent, Takes, WebhookFilter};

/// The most webhooks of one tenant.
const MAX_WEBHOOKS: u64 = 10_000;
/// The longest part of a URL that can be looked for, bytes.
const MAX_URL_PART: usize = 2048;
/// The same of a name, bytes.
const MAX_NAME_PART: usize = 1024;

/// Makes a webhook.
///
/// The answer holds the signing secret, once.
#[utoipa::path(post, path = "/v1/webhooks", tag = "webhooks", operation_id = "create_webhook",
    request_body = NewWebhook,
    responses((status = 201, body = Webhook), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn create(
    State(api): State<Arc<Api>>,
    scope: Scope,
    once: Once,
    Body(mut new): Body<NewWebhook>,
) -> Result<Answer, Problem> {
    let tenant = scope.of_body(new.tenant.as_deref())?;
    let id = WebhookId::from_trusted(format!("wh_{}", uuid::Uuid::now_v7().simple()));
    let given = new.secret.take();
    let now = postrider_broker::now();

    let mut change = api.store.change().await?;
    if !change.has_tenant(tenant.as_str()).await? {
        let detail = format!("there is no tenant {:?}", tenant.as_str());
        return Err(Problem::new(Code::UnknownTenant, detail, "POST /v1/tenants makes one.").field("tenant"));
    }
    if change.count_webhooks(tenant.as_str()).await? >= MAX_WEBHOOKS {
        let detail = format!("a tenant has at most {MAX_WEBHOOKS} webhooks");
        return Err(Problem::new(Code::Quota, detail, "Delete webhooks that are not needed."));
    }
    let base = Base { id: &id, tenant: &tenant, before: None, now };
    let Checked { mut record, profile, warnings } = api.check(&mut change, base, new).await?;
    let form = profile.key_form();
    let secret = match given {
        Some(given) => as_kept(given, form)?,
        None => new_secret(form, &rand::random()).to_string(),
    };
    record.secrets = vec![SecretRecord::current(api.seal(&record, SecretKind::Signing, &secret)?)];
    let row = change.put_webhook(&record, &hint_of(&secret), now).await?;
    change.own_event(OwnEvent::WebhookCreated(&record), now).await?;
    let changes = Changes::made(&told(api.as_new(&record)?)?);
    change.note(&scope.entry(Some(&tenant), Subject::Webhook, id.as_str(), changes), now).await?;
    let mut webhook = api.shown(row, Some(&profile))?;
    webhook.warnings.extend(warnings);
    webhook.public_key = SigningKey::of_secret(&secret, form).ok().and_then(|key| key.public_key());
    webhook.secret = Some(secret);
    let answer = Answer::json(StatusCode::CREATED, &webhook)?;
    once.keep(&api, &mut change, &answer).await?;
    change.commit().await?;
    Ok(answer)
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct Asked {
    /// Whose; `default` by default.
    #[allow(dead_code, reason = "read by `Scope`")]
    tenant: Option<String>,
    /// `active`, `paused` or `disabled`.
    state: Option<String>,
    /// Those that take events of this type: by name or alias, by group, by category or with everything.
    event_type: Option<String>,
    /// Those whose name has this in it, in upper or lower case.
    name: Option<String>,
    /// Those whose URL has this in it.
    url: Option<String>,
    /// Those that speak this profile.
    profile: Option<String>,
    /// `true` for those that have failed since they last delivered something.
    failing: Option<String>,
    /// Made at this time or later, RFC 3339.
    since: Option<String>,
    /// Made before this time, RFC 3339.
    until: Option<String>,
    /// `newest` first (the default) or `oldest` first.
    order: Option<String>,
    /// How many, from 1 to 200; 50 by default.
    limit: Option<i64>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// Lists webhooks in the order of their making, newest first unless asked otherwise.
#[utoipa::path(get, path = "/v1/webhooks", tag = "webhooks", operation_id = "list_webhooks", params(Asked),
    responses((status = 200, body = inline(WebhookPage)), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn list(
    State(api): State<Arc<Api>>,
    scope: Scope,
    Params(asked): Params<Asked>,
) -> Result<Answer, Problem> {
    let limit = limit(asked.limit)?;
    let tenant = scope.tenant();
    if asked.name.as_ref().is_some_and(|part| part.is_empty() || part.len() > MAX_NAME_PART) {
        return Err(Problem::parameter("name", format!("name must have 1 to {MAX_NAME_PART} bytes")));
    }
    if asked.url.as_ref().is_some_and(|part| part.is_empty() || part.len() > MAX_URL_PART) {
        return Err(Problem::parameter("url", format!("url must have 1 to {MAX_URL_PART} bytes")));
    }
    let (since, until) = (time("since", asked.since.as_deref())?, time("until", asked.until.as_deref())?);
    if since.zip(until).is_some_and(|(since, until)| since >= until) {
        return Err(Problem::parameter("until", "until must be later than since"));
    }
    let takes = match asked.event_type {
        None => None,
        Some(name) => Some(match event_types::find(&api.store, tenant.as_str(), &name).await? {
            Some(row) => event_types::takes(&row),
            None => Takes { spellings: vec![name], all: true, ..Takes::default() },
        }),
    };
    let filter = WebhookFilter {
        tenant: tenant.to_string(),
        state: word("state", asked.state.as_deref(), &["active", "paused", "disabled"])?,
        name: asked.name,
        url: asked.url,
        profile: asked.profile,
        failing: word("failing", asked.failing.as_deref(), &["true"])?.is_some(),
        takes,
        since,
        until,
        oldest_first: word("order", asked.order.as_deref(), &["newest", "oldest"])?.as_deref()
            == Some("oldest"),
    };
    let list = List::new(api.store.epoch(), "webhooks", &filter);
    let beyond = list.row(asked.cursor.as_deref())?;
    let rows = api.store.webhooks(&filter, beyond, limit + 1).await?;
    let mut profiles = Profiles::of(&api.store, tenant);
    let mut spoken = Vec::with_capacity(rows.len());
    for row in rows {
        let profile = profiles.get(&row.record.profile).await?;
        spoken.push((row, profile));
    }
    let show = |(row, profile): (_, Option<Arc<_>>)| api.shown(row, profile.as_deref());
    Answer::ok(&list.page(spoken, limit, |(row, _)| row.seq.to_string(), show)?)
}

#[derive(ToSchema)]
#[allow(dead_code, reason = "it describes `Page<Webhook>`")]
pub(in crate::api) struct WebhookPage {
    items: Vec<Webhook>,
    next: Option<String>,
}

/// One webhook, with what its subscription means today.
#[utoipa::path(get, path = "/v1/webhooks/{id}", tag = "webhooks", operation_id = "get_webhook",
    params(("id" = String, Path, description = "The webhook"), ("tenant" = Option<String>, Query, description = "Whose; `default` by default")),
    responses((status = 200, body = Webhook), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn get(
    State(api): State<Arc<Api>>,
    scope: Scope,
    Path(id): Path<String>,
) -> Result<Answer, Problem> {
    let tenant = scope.tenant();
    let row = look_up(&api, &scope, &id).await?;
    let profile = Profiles::of(&api.store, tenant.clone()).get(&row.record.profile).await?;
    let directory = directory_of(&api.store, &tenant, &row).await?;
    let types = directory.types_taken(&subscription_of(&row.record), &tenant);
    let health = api.store.health(&id).await?;
    let limits = limits_of(&row.record, profile.as_deref());
    let webhook = api.shown(row, profile.as_deref())?;
    let types = types.iter().map(ToString::to_string).collect();
    Answer::ok(&webhook.meaning(types).with_health(&health, limits))
}

/// Changes what is given and leaves the rest; null sets a member back to its default (RFC 7396).
///
/// The change applies to the next attempt, also of deliveries that are under way. If the webhook gets a profile that
/// cannot sign with its secret, a new secret is made, and the answer holds it, once.
#[utoipa::path(patch, path = "/v1/webhooks/{id}", tag = "webhooks", operation_id = "update_webhook",
    params(("id" = String, Path, description = "The webhook"), ("tenant" = Option<String>, Query, description = "Whose; `default` by default")),
    request_body = inline(WebhookPatch),
    responses((status = 200, body = Webhook), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn patch(
    State(api): State<Arc<Api>>,
    scope: Scope,
    Path(id): Path<String>,
    Body(patch): Body<Value>,
) -> Result<Answer, Problem> {
    if !patch.is_object() {
        return Err(Problem::body("", "the body must be an object with the members to change"));
    }
    if patch.get("secret").is_some() {
        let detail =
            "the secret is not a member to change; POST /v1/webhooks/{id}/rotate-secret sets another";
        return Err(Problem::body("secret", detail));
    }
    if let Some(tenant) = patch.get("tenant")
        && tenant.as_str().map(|tenant| scope.of_body(Some(tenant))).transpose()? != Some(scope.tenant())
    {
        return Err(Problem::body("tenant", "a webhook cannot move to another tenant"));
    }
    let now = postrider_broker::now();
    let mut change = api.store.change().await?;
    let row = find(&mut change, &scope, &id).await?;
    let before = row.record;
    let was = serde_json::to_value(api.as_new(&before)?).map_err(|error| unreadable_secret(&error))?;
    let merged = merge(was.clone(), patch).to_string();
    // The merged text is read like one that was sent, so that the checks are the same and name the same members.
    let new: NewWebhook = body::read(merged.as_bytes())?;
    let base = Base { id: &before.id, tenant: &before.tenant, before: Some(&before), now };
    let Checked { mut record, profile, mut warnings } = api.check(&mut change, base, new).await?;
    let (mut hint, mut made) = (row.secret_hint, None);
    let form = profile.key_form();
    if record.profile != before.profile {
        // What a rotation left belongs to the profile before.
        record.secrets.truncate(1);
    }
    if record.profile != before.profile
        && let Some(current) = record.secrets.first()
        && !fits(&api.open(&record, SecretKind::Signing, &current.value)?, form)
    {
        let secret = new_secret(form, &rand::random()).to_string();
        record.secrets = vec![SecretRecord::current(api.seal(&record, SecretKind::Signing, &secret)?)];
        record.secret_version += 1;
        hint = hint_of(&secret);
        warnings.push(format!(
            "The profile {} cannot sign with the secret that the webhook had: a new one was made. It is in this answer, \
             and the receiver needs it.",
            record.profile
        ));
        made = Some(secret);
    }
    let is = serde_json::to_value(api.as_new(&record)?).map_err(|error| unreadable_secret(&error))?;
    // Compared with their secrets, told without them.
    let changed = differing(&was, &is);
    let mut changes = Changes::of(&changed, &told(api.as_new(&before)?)?, &told(api.as_new(&record)?)?);
    if made.is_some() {
        changes = changes.turned("secret_version", before.secret_version, record.secret_version);
    }
    change.note(&scope.entry(Some(&record.tenant), Subject::Webhook, &id, changes), now).await?;
    let mut row = change.put_webhook(&record, &hint, now).await?;
    if made.is_some() {
        change.note_rotation(&id, now).await?;
        row.rotated_at = Some(now);
    }
    if !changed.is_empty() {
        change.own_event(OwnEvent::WebhookUpdated(&record, &changed), now).await?;
    }
    let mut webhook = api.shown(row, Some(&profile))?;
    webhook.warnings.extend(warnings);
    webhook.secret = made;
    let answer = Answer::ok(&webhook)?;
    change.commit().await?;
    Ok(answer)
}

/// A webhook as the audit log tells of it.
fn told(webhook: NewWebhook) -> Result<Value, Problem> {
    serde_json::to_value(webhook.without_secrets()).map_err(|error| unreadable_secret(&error))
}

/// Members of a webhook to change.
#[derive(ToSchema)]
#[allow(dead_code, reason = "it describes the body of `patch`")]
pub(in crate::api) struct WebhookPatch {
    name: Option<String>,
    url: Option<String>,
    profile: Option<String>,
    payload_version: Option<String>,
    signed: Option<bool>,
    subscription: Option<NewSubscription>,
    api_key: Option<NewApiKey>,
    auth: Option<NewAuth>,
    tls: Option<NewTls>,
    headers: Option<BTreeMap<String, Option<String>>>,
    retry: Option<Retry>,
    timeout_ms: Option<u64>,
    disable_after_failures: Option<u32>,
    disable_after_ms: Option<u64>,
    max_in_flight: Option<u32>,
    rate_per_second: Option<u32>,
    active_from: Option<String>,
    expires_at: Option<String>,
    state: Option<String>,
}

/// Removes a webhook. Deliveries of it end as cancelled, for the reason `webhook_deleted`: those that are held at once or,
/// beyond 500, within moments, and those that are on their way when a worker meets them.
#[utoipa::path(delete, path = "/v1/webhooks/{id}", tag = "webhooks", operation_id = "delete_webhook",
    params(("id" = String, Path, description = "The webhook"), ("tenant" = Option<String>, Query, description = "Whose; `default` by default")),
    responses((status = 204), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn delete(
    State(api): State<Arc<Api>>,
    scope: Scope,
    Path(id): Path<String>,
) -> Result<Answer, Problem> {
    let now = postrider_broker::now();
    let mut change = api.store.change().await?;
    let row = find(&mut change, &scope, &id).await?;
    change.delete_webhook(&id, now).await?;
    change.own_event(OwnEvent::WebhookDeleted(&row.record), now).await?;
    let changes = Changes::none().was("name", &row.record.name);
    change.note(&scope.entry(Some(&row.record.tenant), Subject::Webhook, &id, changes), now).await?;
    change.commit().await?;
    Ok(Answer::nothing())
}

/// Brings a webhook from one of the states `from` to `to`; one that is there already stays as it is.
async fn turn(
    api: &Api,
    scope: &Scope,
    once: &Once,
    id: &str,
    from: &[WebhookState],
    to: WebhookState,
) -> Result<Answer, Problem> {
    let now = postrider_broker::now();
    let mut change = api.store.change().await?;
    let mut row = find(&mut change, scope, id).await?;
    let is = WebhookState::parse(&row.record.state).unwrap_or_default();
    let mut missed = None;
    if is != to {
        if !from.contains(&is) {
            let detail = format!("the webhook is {}", is.as_str());
            let hint = match is {
                WebhookState::Disabled => "Enable it first.",
                WebhookState::Paused => "Resume it, so that what is held is sent.",
                WebhookState::Active => "",
            };
            return Err(Problem::new(Code::WrongState, detail, hint));
        }
        let record = WebhookRecord { state: to.as_str().to_owned(), ..row.record.clone() };
        may_be_active(&mut change, &row.record, &record, now).await?;
        if let (WebhookState::Disabled, Some(since)) = (is, row.disabled_at) {
            missed = Some((change.count_skipped(id, since).await?, since));
        }
        row = change.put_webhook(&record, &row.secret_hint, now).await?;
        change.own_event(OwnEvent::WebhookUpdated(&record, &["state".to_owned()]), now).await?;
        let changes = Changes::none().turned("state", is.as_str(), to.as_str());
        change.note(&scope.entry(Some(&record.tenant), Subject::Webhook, id, changes), now).await?;
    }
    let profile = profile_of(&mut change, row.record.tenant.as_str(), &row.record.profile).await?;
    let mut webhook = api.shown(row, profile.as_ref())?;
    if let Some((deliveries, since)) = missed {
        webhook = webhook.with_missed(deliveries, since);
    }
    let answer = Answer::ok(&webhook)?;
    once.keep(api, &mut change, &answer).await?;
    change.commit().await?;
    Ok(answer)
}

/// Holds deliveries until the webhook is resumed.
#[utoipa::path(post, path = "/v1/webhooks/{id}/pause", tag = "webhooks", operation_id = "pause_webhook",
    params(("id" = String, Path, description = "The webhook"), ("tenant" = Option<String>, Query, description = "Whose; `default` by default")),
    responses((status = 200, body = Webhook), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn pause(
    State(api): State<Arc<Api>>,
    scope: Scope,
    once: Once,
    Path(id): Path<String>,
) -> Result<Answer, Problem> {
    turn(&api, &scope, &once, &id, &[WebhookState::Active], WebhookState::Paused).await
}

/// Sends again, also what was held, oldest first: at most 1000 deliveries a second, over all webhooks that are resumed.
#[utoipa::path(post, path = "/v1/webhooks/{id}/resume", tag = "webhooks", operation_id = "resume_webhook",
    params(("id" = String, Path, description = "The webhook"), ("tenant" = Option<String>, Query, description = "Whose; `default` by default")),
    responses((status = 200, body = Webhook), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn resume(
    State(api): State<Arc<Api>>,
    scope: Scope,
    once: Once,
    Path(id): Path<String>,
) -> Result<Answer, Problem> {
    turn(&api, &scope, &once, &id, &[WebhookState::Paused], WebhookState::Active).await
}

/// Sends again after the webhook was disabled, and counts its failures anew. The answer says how many deliveries were
/// skipped meanwhile, in `skipped_while_disabled`: none of them is sent by itself.
///
/// Refused if the tenant, or the webhook's profile, has as many active webhooks as it may have.
#[utoipa::path(post, path = "/v1/webhooks/{id}/enable", tag = "webhooks", operation_id = "enable_webhook",
    params(("id" = String, Path, description = "The webhook"), ("tenant" = Option<String>, Query, description = "Whose; `default` by default")),
    responses((status = 200, body = Webhook), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn enable(
    State(api): State<Arc<Api>>,
    scope: Scope,
    once: Once,
    Path(id): Path<String>,
) -> Result<Answer, Problem> {
    turn(&api, &scope, &once, &id, &[WebhookState::Disabled], WebhookState::Active).await
}

/// Skips deliveries, also those that are under way or held.
#[utoipa::path(post, path = "/v1/webhooks/{id}/disable", tag = "webhooks", operation_id = "disable_webhook",
    params(("id" = String, Path, description = "The webhook"), ("tenant" = Option<String>, Query, description = "Whose; `default` by default")),
    responses((status = 200, body = Webhook), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn disable(
    State(api): State<Arc<Api>>,
    scope: Scope,
    once: Once,
    Path(id): Path<String>,
) -> Result<Answer, Problem> {
    let from = [WebhookState::Active, WebhookState::Paused];
    turn(&api, &scope, &once, &id, &from, WebhookState::Disabled).await
}
