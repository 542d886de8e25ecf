//! `/v1/webhooks`: receivers' registrations.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::{Path, State};
use http::StatusCode;
use postrider_core::event::EventType;
use postrider_core::profile::Profile;
use postrider_core::signature::{self, SigningKey};
use postrider_core::webhook::{self, MAX_HEADERS, MAX_IN_FLIGHT, SecretKind, TIMEOUT_MS, WebhookState};
use postrider_core::wire::{ApiKeyRecord, RetryRecord, SecretRecord, WebhookRecord};
use postrider_core::{TenantId, WebhookId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::answer::{Answer, shown};
use super::body::{self, Body, Params};
use super::cursor::{List, limit};
use super::deliveries::word;
use super::idempotency::Once;
use super::problem::{Code, Problem, ProblemBody};
use super::scope::Scope;
use crate::store::{Change, WebhookFilter, WebhookRow};

/// The most webhooks of one tenant.
/// Requests in flight to a webhook that does not say how many.
const DEFAULT_IN_FLIGHT: u32 = 10;
const MAX_WEBHOOKS: u64 = 10_000;
/// The most event types of one webhook.
const MAX_EVENT_TYPES: usize = 1000;
/// The highest rate that can be asked for.
const MAX_RATE: u32 = 100_000;
/// What is shown in place of a secret value.
const MASK: &str = "********";

/// A webhook to make.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewWebhook {
    /// Whose; `default` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    /// What people call it, 1 to 256 characters.
    name: String,
    /// Where requests go: `https://…`, or `http://…` with a warning.
    url: String,
    /// `rest`, the only one.
    notification_type: Option<String>,
    /// Envelope and signature: `postrider`, the only one of this release.
    profile: Option<String>,
    subscription: Option<NewSubscription>,
    /// What the receiver wants to see to let us in.
    api_key: Option<NewApiKey>,
    /// Static headers on every request, at most 20.
    headers: Option<BTreeMap<String, String>>,
    /// When attempts follow each other; what is missing has its default.
    retry: Option<Retry>,
    /// The deadline of a request, from 100 to 60000 milliseconds; 15000 by default.
    timeout_ms: Option<u64>,
    /// Most requests in flight, from 1 to 1000; 10 by default.
    max_in_flight: Option<u32>,
    /// Most requests a second, from 1 to 100000; unlimited by default.
    rate_per_second: Option<u32>,
    /// `active` (the default), `paused` or `disabled`.
    state: Option<String>,
    /// The signing secret, `whsec_…` or `whsk_…`; made here by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

/// Which events a webhook takes.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewSubscription {
    /// Events of these types.
    event_types: Option<BTreeSet<String>>,
    /// Not in this release: must be empty.
    groups: Option<Vec<String>>,
    /// Not in this release: must be empty.
    categories: Option<Vec<String>>,
    /// Events of every type, also of those that do not exist yet.
    all: Option<bool>,
    /// Not in this release: must be null.
    #[schema(value_type = Option<Object>)]
    filter: Option<Value>,
}

/// An API key that the receiver wants.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewApiKey {
    /// `header` or `query`.
    r#in: String,
    /// The header's or parameter's name.
    name: String,
    /// The key. Never shown again.
    value: String,
}

impl std::fmt::Debug for NewApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewApiKey({} {})", self.r#in, self.name)
    }
}

/// A retry policy; what is missing has its default.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Retry {
    /// The first interval, milliseconds; 5000 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    initial_ms: Option<u64>,
    /// Each interval is this many times the one before; 4 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    factor: Option<f64>,
    /// No interval is longer; 12 hours by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_interval_ms: Option<u64>,
    /// The most requests for one series; 12 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_attempts: Option<u32>,
    /// No attempt starts later than this after the series began; 3 days by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_age_ms: Option<u64>,
    /// Spread around each interval, from 0 to 0.9; 0.2 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    jitter: Option<f64>,
    /// The intervals themselves, in place of the first three.
    #[serde(skip_serializing_if = "Option::is_none")]
    schedule_ms: Option<Vec<u64>>,
}

impl From<Retry> for RetryRecord {
    fn from(retry: Retry) -> Self {
        let Retry { initial_ms, factor, max_interval_ms, max_attempts, max_age_ms, jitter, schedule_ms } =
            retry;
        Self { initial_ms, factor, max_interval_ms, max_attempts, max_age_ms, jitter, schedule_ms }
    }
}

impl From<RetryRecord> for Retry {
    fn from(record: RetryRecord) -> Self {
        let RetryRecord {
            initial_ms,
            factor,
            max_interval_ms,
            max_attempts,
            max_age_ms,
            jitter,
            schedule_ms,
        } = record;
        Self { initial_ms, factor, max_interval_ms, max_attempts, max_age_ms, jitter, schedule_ms }
    }
}

/// A webhook. Secrets are not shown.
#[derive(Serialize, ToSchema)]
pub(super) struct Webhook {
    id: String,
    tenant: String,
    name: String,
    url: String,
    notification_type: &'static str,
    profile: String,
    subscription: Subscription,
    api_key: Option<ApiKey>,
    /// Names with masked values.
    headers: BTreeMap<String, &'static str>,
    /// What differs from the defaults.
    retry: Option<Retry>,
    timeout_ms: u64,
    max_in_flight: u32,
    rate_per_second: Option<u32>,
    state: String,
    /// The end of the signing secret.
    secret_hint: String,
    revision: u64,
    created_at: String,
    updated_at: String,
    /// What is allowed and should be mended.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<&'static str>,
    /// The signing secret: shown once, in the answer to the creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    /// For an Ed25519 secret: what the receiver verifies with. In the answer to the creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct Subscription {
    event_types: BTreeSet<String>,
    groups: Vec<String>,
    categories: Vec<String>,
    all: bool,
    #[schema(value_type = Option<Object>)]
    filter: Option<Value>,
}

#[derive(Serialize, ToSchema)]
struct ApiKey {
    r#in: String,
    name: String,
}

/// What `secret_hint` shows of a secret.
fn hint_of(secret: &str) -> String {
    let prefix = if secret.starts_with("whsk_") { "whsk_" } else { "whsec_" };
    let last: String = secret.chars().skip(secret.chars().count().saturating_sub(4)).collect();
    format!("{prefix}…{last}")
}

impl Api {
    fn seal(&self, record: &WebhookRecord, what: SecretKind, secret: &str) -> Result<String, Problem> {
        let purpose = webhook::purpose(&record.tenant, &record.id, what);
        self.key.seal(&purpose, secret.as_bytes(), rand::random()).map_err(|error| unreadable_secret(&error))
    }

    fn open(&self, record: &WebhookRecord, what: SecretKind, sealed: &str) -> Result<String, Problem> {
        let purpose = webhook::purpose(&record.tenant, &record.id, what);
        let opened = self.key.open(&purpose, sealed).map_err(|error| unreadable_secret(&error))?;
        Ok(String::from_utf8_lossy(&opened).into_owned())
    }

    fn headers_of(&self, record: &WebhookRecord) -> Result<BTreeMap<String, String>, Problem> {
        let Some(sealed) = &record.headers else { return Ok(BTreeMap::new()) };
        let text = self.open(record, SecretKind::Headers, sealed)?;
        serde_json::from_str(&text).map_err(|error| unreadable_secret(&error))
    }

    fn shown(&self, row: WebhookRow) -> Result<Webhook, Problem> {
        let headers = self.headers_of(&row.record)?;
        let record = row.record;
        let mut warnings = Vec::new();
        if record.url.starts_with("http:") {
            warnings.push(
                "The URL begins with http://: bodies and signatures can be read on the way; use https://.",
            );
        }
        if record.max_in_flight != DEFAULT_IN_FLIGHT || record.rate_per_second.is_some() {
            warnings.push(
                "max_in_flight and rate_per_second are kept, but this release does not hold to them yet.",
            );
        }
        Ok(Webhook {
            id: record.id.to_string(),
            tenant: record.tenant.to_string(),
            name: record.name,
            url: record.url,
            notification_type: "rest",
            profile: record.profile,
            subscription: Subscription {
                event_types: record.event_types.iter().map(ToString::to_string).collect(),
                groups: Vec::new(),
                categories: Vec::new(),
                all: record.all,
                filter: None,
            },
            api_key: record.api_key.map(|key| ApiKey { r#in: key.place, name: key.name }),
            headers: headers.into_keys().map(|name| (name, MASK)).collect(),
            retry: (record.retry != RetryRecord::default()).then(|| record.retry.into()),
            timeout_ms: record.timeout_ms.unwrap_or(15_000),
            max_in_flight: record.max_in_flight,
            rate_per_second: record.rate_per_second,
            state: record.state,
            secret_hint: row.secret_hint,
            revision: row.revision,
            created_at: shown(row.created_at),
            updated_at: shown(row.updated_at),
            warnings,
            secret: None,
            public_key: None,
        })
    }

    /// What a person would have to send to make this webhook as it is, secrets opened.
    fn as_new(&self, record: &WebhookRecord) -> Result<NewWebhook, Problem> {
        let api_key = match &record.api_key {
            Some(key) => Some(NewApiKey {
                r#in: key.place.clone(),
                name: key.name.clone(),
                value: self.open(record, SecretKind::ApiKey, &key.value)?,
            }),
            None => None,
        };
        Ok(NewWebhook {
            tenant: None,
            name: record.name.clone(),
            url: record.url.clone(),
            notification_type: None,
            profile: Some(record.profile.clone()),
            subscription: Some(NewSubscription {
                event_types: Some(record.event_types.iter().map(ToString::to_string).collect()),
                all: Some(record.all),
                ..NewSubscription::default()
            }),
            api_key,
            headers: Some(self.headers_of(record)?),
            retry: Some(record.retry.clone().into()),
            timeout_ms: record.timeout_ms,
            max_in_flight: Some(record.max_in_flight),
            rate_per_second: record.rate_per_second,
            state: Some(record.state.clone()),
            secret: None,
        })
    }

    /// Checks everything and makes the record, with `secrets` as its sealed signing keys.
    fn record(
        &self,
        id: &WebhookId,
        tenant: &TenantId,
        new: NewWebhook,
        secrets: Vec<SecretRecord>,
    ) -> Result<WebhookRecord, Problem> {
        check_name(&new.name)?;
        let url = self
            .egress
            .check_url(&new.url, self.https_only)
            .map_err(|e| Problem::body("url", e.to_string()))?;
        if new.notification_type.as_deref().is_some_and(|kind| kind != "rest") {
            return Err(Problem::body("notification_type", "notification_type must be rest"));
        }
        let profile = match new.profile.as_deref() {
            None => Profile::default_profile(),
            Some(name) => Profile::built_in(name).ok_or_else(|| {
                let name: String = name.chars().take(64).collect();
                Problem::body(
                    "profile",
                    format!("the profile {name:?} is not in this release; it knows postrider"),
                )
            })?,
        };
        let (all, event_types) = check_subscription(new.subscription.unwrap_or_default())?;
        let retry: RetryRecord = new.retry.map(RetryRecord::from).unwrap_or_default();
        retry.policy().map_err(|e| {
            let text = e.to_string();
            let field = text.split_whitespace().next().unwrap_or("retry").to_owned();
            Problem::body(field, text)
        })?;
        let state = new.state.unwrap_or_else(|| WebhookState::default().as_str().to_owned());
        if WebhookState::parse(&state).is_none() {
            return Err(Problem::body("state", "state must be active, paused or disabled"));
        }
        let mut record = WebhookRecord {
            name: new.name,
            profile: profile.spec().name.clone(),
            all,
            event_types,
            secrets,
            retry,
            timeout_ms: new.timeout_ms.map(|ms| within("timeout_ms", ms, TIMEOUT_MS)).transpose()?,
            max_in_flight: within(
                "max_in_flight",
                new.max_in_flight.unwrap_or(DEFAULT_IN_FLIGHT),
                MAX_IN_FLIGHT,
            )?,
            rate_per_second: new
                .rate_per_second
                .map(|rate| within("rate_per_second", rate, 1..=MAX_RATE))
                .transpose()?,
            state,
            ..WebhookRecord::new(id.clone(), tenant.clone(), url.as_str())
        };
        record.api_key = new.api_key.map(|key| self.seal_api_key(&record, key)).transpose()?;
        record.headers = self.seal_headers(&record, new.headers.unwrap_or_default())?;
        Ok(record)
    }

    fn seal_api_key(&self, record: &WebhookRecord, key: NewApiKey) -> Result<ApiKeyRecord, Problem> {
        match key.r#in.as_str() {
            "header" => webhook::check_header(&key.name, &key.value).map_err(|e| {
                let member =
                    if matches!(e, webhook::BadHeader::Value(_)) { "api_key.value" } else { "api_key.name" };
                Problem::body(member, e.to_string())
            })?,
            "query" => {
                if key.name.is_empty() || key.name.len() > 128 || key.name.chars().any(char::is_control) {
                    return Err(Problem::body(
                        "api_key.name",
                        "the name must have 1 to 128 bytes and no control characters",
                    ));
                }
                if key.value.len() > webhook::MAX_HEADER_BYTES || key.value.chars().any(char::is_control) {
                    let detail = format!(
                        "the value must have at most {} bytes and no control characters",
                        webhook::MAX_HEADER_BYTES
                    );
                    return Err(Problem::body("api_key.value", detail));
                }
            }
            _ => return Err(Problem::body("api_key.in", "in must be header or query")),
        }
        if key.value.is_empty() {
            return Err(Problem::body("api_key.value", "the value must not be empty"));
        }
        Ok(ApiKeyRecord {
            value: self.seal(record, SecretKind::ApiKey, &key.value)?,
            place: key.r#in,
            name: key.name,
        })
    }

    fn seal_headers(
        &self,
        record: &WebhookRecord,
        headers: BTreeMap<String, String>,
    ) -> Result<Option<String>, Problem> {
        if headers.len() > MAX_HEADERS {
            return Err(Problem::body("headers", format!("at most {MAX_HEADERS} headers are sent")));
        }
        let mut seen = BTreeSet::new();
        for (name, value) in &headers {
            let field = || format!("headers.{}", name.chars().take(64).collect::<String>());
            webhook::check_header(name, value).map_err(|e| Problem::body(field(), e.to_string()))?;
            if !seen.insert(name.to_ascii_lowercase()) {
                return Err(Problem::body(field(), "the header is given twice, in upper and lower case"));
            }
        }
        if headers.is_empty() {
            return Ok(None);
        }
        let text = serde_json::to_string(&headers).map_err(|error| unreadable_secret(&error))?;
        self.seal(record, SecretKind::Headers, &text).map(Some)
    }
}

fn unreadable_secret(error: &dyn std::fmt::Display) -> Problem {
    tracing::error!(%error, "a secret of a webhook cannot be sealed or opened");
    Problem::new(Code::Internal, "a secret of the webhook cannot be read", "The log of control says why.")
}

fn check_name(name: &str) -> Result<(), Problem> {
    // Characters that turn the direction of the text around them: they make a name look like another.
    let turns = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let length = name.chars().count();
    if !(1..=256).contains(&length)
        || name.trim().is_empty()
        || name.chars().any(|c| c.is_control() || turns(c))
    {
        let detail = "the name must have 1 to 256 characters, not only spaces, and no control characters";
        return Err(Problem::body("name", detail));
    }
    Ok(())
}

fn check_subscription(given: NewSubscription) -> Result<(bool, BTreeSet<EventType>), Problem> {
    let later = |member: &str| {
        let detail = format!("{member} come in a later release; name event_types, or set all");
        Err(Problem::body(format!("subscription.{member}"), detail))
    };
    if given.groups.is_some_and(|groups| !groups.is_empty()) {
        return later("groups");
    }
    if given.categories.is_some_and(|categories| !categories.is_empty()) {
        return later("categories");
    }
    if given.filter.is_some_and(|filter| !filter.is_null()) {
        return later("filter");
    }
    let names = given.event_types.unwrap_or_default();
    if names.len() > MAX_EVENT_TYPES {
        let detail = format!("at most {MAX_EVENT_TYPES} event types can be named; set all to take every one");
        return Err(Problem::body("subscription.event_types", detail));
    }
    let mut event_types = BTreeSet::new();
    for name in names {
        let event_type =
            EventType::parse(&name).map_err(|e| Problem::body("subscription.event_types", e.to_string()))?;
        event_types.insert(event_type);
    }
    let all = given.all.unwrap_or(false);
    if !all && event_types.is_empty() {
        let detail = "the webhook would take nothing: name at least one of event_types, or set all to true";
        return Err(Problem::body("subscription.event_types", detail));
    }
    Ok((all, event_types))
}

fn within<T: PartialOrd + std::fmt::Display>(
    member: &str,
    value: T,
    range: std::ops::RangeInclusive<T>,
) -> Result<T, Problem> {
    if range.contains(&value) {
        return Ok(value);
    }
    Err(Problem::body(member, format!("{member} must be from {} to {}", range.start(), range.end())))
}

/// Makes a webhook.
///
/// The answer holds the signing secret, once.
#[utoipa::path(post, path = "/v1/webhooks", tag = "webhooks", operation_id = "create_webhook",
    request_body = NewWebhook,
    responses((status = 201, body = Webhook), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    scope: Scope,
    once: Once,
    Body(mut new): Body<NewWebhook>,
) -> Result<Answer, Problem> {
    let tenant = scope.of_body(new.tenant.as_deref())?;
    let id = WebhookId::from_trusted(format!("wh_{}", uuid::Uuid::now_v7().simple()));
    let secret = match new.secret.take() {
        Some(given) => {
            SigningKey::parse(&given).map_err(|e| Problem::body("secret", e.to_string()))?;
            let prefixed = given.starts_with("whsec_") || given.starts_with("whsk_");
            if prefixed { given } else { format!("whsec_{given}") }
        }
        None => signature::secret_text(&rand::random()).to_string(),
    };
    let public_key = SigningKey::parse(&secret).ok().and_then(|key| key.public_key());
    let mut record = api.record(&id, &tenant, new, Vec::new())?;
    record.secrets = vec![SecretRecord::current(api.seal(&record, SecretKind::Signing, &secret)?)];

    let mut change = api.store.change().await?;
    if !change.has_tenant(tenant.as_str()).await? {
        let detail = format!("there is no tenant {:?}", tenant.as_str());
        return Err(Problem::new(Code::UnknownTenant, detail, "POST /v1/tenants makes one.").field("tenant"));
    }
    if change.count_webhooks(tenant.as_str()).await? >= MAX_WEBHOOKS {
        let detail = format!("a tenant has at most {MAX_WEBHOOKS} webhooks");
        return Err(Problem::new(Code::Quota, detail, "Delete webhooks that are not needed."));
    }
    let row = change.put_webhook(&record, &hint_of(&secret), postrider_broker::now()).await?;
    let mut webhook = api.shown(row)?;
    webhook.secret = Some(secret);
    webhook.public_key = public_key;
    let answer = Answer::json(StatusCode::CREATED, &webhook)?;
    once.keep(&api, &mut change, &answer).await?;
    change.commit().await?;
    Ok(answer)
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Asked {
    /// Whose; `default` by default.
    #[allow(dead_code, reason = "read by `Scope`")]
    tenant: Option<String>,
    /// `active`, `paused` or `disabled`.
    state: Option<String>,
    /// How many, from 1 to 200; 50 by default.
    limit: Option<i64>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// Lists webhooks, newest first.
#[utoipa::path(get, path = "/v1/webhooks", tag = "webhooks", operation_id = "list_webhooks", params(Asked),
    responses((status = 200, body = inline(WebhookPage)), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    scope: Scope,
    Params(asked): Params<Asked>,
) -> Result<Answer, Problem> {
    let limit = limit(asked.limit)?;
    let state = word("state", asked.state.as_deref(), &["active", "paused", "disabled"])?;
    let filter = WebhookFilter { tenant: scope.tenant().to_string(), state, ..WebhookFilter::default() };
    let list = List::new(api.store.epoch(), "webhooks", &filter);
    let before = list.row(asked.cursor.as_deref())?;
    let rows = api.store.webhooks(&filter, before, limit + 1).await?;
    Answer::ok(&list.page(rows, limit, |row| row.seq.to_string(), |row| api.shown(row))?)
}

#[derive(ToSchema)]
#[allow(dead_code, reason = "it describes `Page<Webhook>`")]
pub(super) struct WebhookPage {
    items: Vec<Webhook>,
    next: Option<String>,
}

/// One webhook.
#[utoipa::path(get, path = "/v1/webhooks/{id}", tag = "webhooks", operation_id = "get_webhook",
    params(("id" = String, Path, description = "The webhook"), ("tenant" = Option<String>, Query, description = "Whose; `default` by default")),
    responses((status = 200, body = Webhook), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    scope: Scope,
    Path(id): Path<String>,
) -> Result<Answer, Problem> {
    match api.store.webhook(scope.tenant().as_str(), &id).await? {
        Some(row) => Answer::ok(&api.shown(row)?),
        None => Err(Problem::not_found("webhook")),
    }
}

/// Changes what is given and leaves the rest; null sets a member back to its default (RFC 7396).
///
/// The change applies to the next attempt, also of deliveries that are under way.
#[utoipa::path(patch, path = "/v1/webhooks/{id}", tag = "webhooks", operation_id = "update_webhook",
    params(("id" = String, Path, description = "The webhook"), ("tenant" = Option<String>, Query, description = "Whose; `default` by default")),
    request_body = inline(WebhookPatch),
    responses((status = 200, body = Webhook), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn patch(
    State(api): State<Arc<Api>>,
    scope: Scope,
    Path(id): Path<String>,
    Body(patch): Body<Value>,
) -> Result<Answer, Problem> {
    if !patch.is_object() {
        return Err(Problem::body("", "the body must be an object with the members to change"));
    }
    if patch.get("secret").is_some() {
        return Err(Problem::body(
            "secret",
            "the secret of a webhook cannot be set afterwards; make another webhook",
        ));
    }
    if let Some(tenant) = patch.get("tenant")
        && tenant.as_str() != Some(scope.tenant().as_str())
    {
        return Err(Problem::body("tenant", "a webhook cannot move to another tenant"));
    }
    let mut change = api.store.change().await?;
    let row = find(&mut change, &scope, &id).await?;
    let now = serde_json::to_value(api.as_new(&row.record)?).map_err(|error| unreadable_secret(&error))?;
    let merged = merge(now, patch).to_string();
    // The merged text is read like one that was sent, so that the checks are the same and name the same members.
    let new: NewWebhook = body::read(merged.as_bytes())?;
    let record = api.record(&row.record.id, &row.record.tenant, new, row.record.secrets)?;
    let row = change.put_webhook(&record, &row.secret_hint, postrider_broker::now()).await?;
    let answer = Answer::ok(&api.shown(row)?)?;
    change.commit().await?;
    Ok(answer)
}

/// Members of a webhook to change.
#[derive(ToSchema)]
#[allow(dead_code, reason = "it describes the body of `patch`")]
pub(super) struct WebhookPatch {
    name: Option<String>,
    url: Option<String>,
    profile: Option<String>,
    subscription: Option<NewSubscription>,
    api_key: Option<NewApiKey>,
    headers: Option<BTreeMap<String, Option<String>>>,
    retry: Option<Retry>,
    timeout_ms: Option<u64>,
    max_in_flight: Option<u32>,
    rate_per_second: Option<u32>,
    state: Option<String>,
}

/// RFC 7396. As deep as the body was, which is bounded by its reader.
fn merge(target: Value, patch: Value) -> Value {
    let Value::Object(patch) = patch else { return patch };
    let mut target = match target {
        Value::Object(target) => target,
        _ => serde_json::Map::new(),
    };
    for (name, value) in patch {
        if value.is_null() {
            target.remove(&name);
        } else {
            let before = target.remove(&name).unwrap_or(Value::Null);
            target.insert(name, merge(before, value));
        }
    }
    Value::Object(target)
}

async fn find(change: &mut Change<'_>, scope: &Scope, id: &str) -> Result<WebhookRow, Problem> {
    let row = change.webhook(scope.tenant().as_str(), id).await?;
    row.ok_or_else(|| Problem::not_found("webhook"))
}

/// Removes a webhook. Deliveries of it that are under way end as cancelled.
#[utoipa::path(delete, path = "/v1/webhooks/{id}", tag = "webhooks", operation_id = "delete_webhook",
    params(("id" = String, Path, description = "The webhook"), ("tenant" = Option<String>, Query, description = "Whose; `default` by default")),
    responses((status = 204), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    scope: Scope,
    Path(id): Path<String>,
) -> Result<Answer, Problem> {
    let mut change = api.store.change().await?;
    find(&mut change, &scope, &id).await?;
    change.delete_webhook(&id, postrider_broker::now()).await?;
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
    let mut change = api.store.change().await?;
    let mut row = find(&mut change, scope, id).await?;
    let now = WebhookState::parse(&row.record.state).unwrap_or_default();
    if now != to {
        if !from.contains(&now) {
            let detail = format!("the webhook is {}", now.as_str());
            let hint = match now {
                WebhookState::Disabled => "Enable it first.",
                WebhookState::Paused => "Resume it, so that what is held is sent.",
                WebhookState::Active => "",
            };
            return Err(Problem::new(Code::WrongState, detail, hint));
        }
        let mut record = row.record;
        record.state = to.as_str().to_owned();
        row = change.put_webhook(&record, &row.secret_hint, postrider_broker::now()).await?;
    }
    let answer = Answer::ok(&api.shown(row)?)?;
    once.keep(api, &mut change, &answer).await?;
    change.commit().await?;
    Ok(answer)
}

/// Holds deliveries until the webhook is resumed.
#[utoipa::path(post, path = "/v1/webhooks/{id}/pause", tag = "webhooks", operation_id = "pause_webhook",
    params(("id" = String, Path, description = "The webhook"), ("tenant" = Option<String>, Query, description = "Whose; `default` by default")),
    responses((status = 200, body = Webhook), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn pause(
    State(api): State<Arc<Api>>,
    scope: Scope,
    once: Once,
    Path(id): Path<String>,
) -> Result<Answer, Problem> {
    turn(&api, &scope, &once, &id, &[WebhookState::Active], WebhookState::Paused).await
}

/// Sends again, also what was held, oldest first.
#[utoipa::path(post, path = "/v1/webhooks/{id}/resume", tag = "webhooks", operation_id = "resume_webhook",
    params(("id" = String, Path, description = "The webhook"), ("tenant" = Option<String>, Query, description = "Whose; `default` by default")),
    responses((status = 200, body = Webhook), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn resume(
    State(api): State<Arc<Api>>,
    scope: Scope,
    once: Once,
    Path(id): Path<String>,
) -> Result<Answer, Problem> {
    turn(&api, &scope, &once, &id, &[WebhookState::Paused], WebhookState::Active).await
}

/// Sends again after the webhook was disabled. What was skipped meanwhile can be redelivered.
#[utoipa::path(post, path = "/v1/webhooks/{id}/enable", tag = "webhooks", operation_id = "enable_webhook",
    params(("id" = String, Path, description = "The webhook"), ("tenant" = Option<String>, Query, description = "Whose; `default` by default")),
    responses((status = 200, body = Webhook), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn enable(
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
pub(super) async fn disable(
    State(api): State<Arc<Api>>,
    scope: Scope,
    once: Once,
    Path(id): Path<String>,
) -> Result<Answer, Problem> {
    let from = [WebhookState::Active, WebhookState::Paused];
    turn(&api, &scope, &once, &id, &from, WebhookState::Disabled).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn merging_follows_rfc_7396() {
        let target = json!({ "a": "b", "c": { "d": "e", "f": "g" } });
        let patch = json!({ "a": "z", "c": { "f": null }, "h": { "i": null, "j": 1 } });
        assert_eq!(merge(target, patch), json!({ "a": "z", "c": { "d": "e" }, "h": { "j": 1 } }));
        assert_eq!(merge(json!([1]), json!({ "a": 1 })), json!({ "a": 1 }));
        assert_eq!(merge(json!({ "a": [1, 2] }), json!({ "a": [3] })), json!({ "a": [3] }));
    }

    #[test]
    fn hints_show_four_characters() {
        assert_eq!(hint_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), "whsec_…LaSw");
        assert_eq!(hint_of("whsk_AAAABBBB"), "whsk_…BBBB");
    }
}
