//! What callers send and see of a webhook.

use std::collections::{BTreeMap, BTreeSet};

use postrider_core::Timestamp;
use postrider_core::health::Limits;
use postrider_core::profile::{Profile, ProfileSpec};
use postrider_core::retry::RetrySpec;
use postrider_core::webhook::{self, Auth, ClientTls, SecretKind};
use postrider_core::wire::{RetryRecord, WebhookRecord};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::{MASK, unreadable_secret};
use crate::api::Api;
use crate::api::answer::shown;
use crate::api::problem::Problem;
use crate::store::{Health, WebhookRow};

/// Requests in flight to a webhook that does not say how many.
pub(super) const DEFAULT_IN_FLIGHT: u32 = 10;

/// A webhook to make.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct NewWebhook {
    /// Whose; `default` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tenant: Option<String>,
    /// What people call it, 1 to 256 characters.
    pub(super) name: String,
    /// Where requests go: `https://…`, or `http://…` with a warning where the profile allows it.
    pub(super) url: String,
    /// `rest`, the only one.
    pub(super) notification_type: Option<String>,
    /// How the receiver is spoken to: `postrider` (the default), `standard`, `cloudevents`, `cloudevents-binary`, or the
    /// profile of a catalogue of the tenant.
    pub(super) profile: Option<String>,
    /// Which version of the profile's payload; the profile's own by default.
    pub(super) payload_version: Option<String>,
    /// Whether requests are signed; true by default.
    pub(super) signed: Option<bool>,
    pub(super) subscription: Option<NewSubscription>,
    /// What the receiver wants to see to let us in.
    pub(super) api_key: Option<NewApiKey>,
    /// What `Authorization` says.
    pub(super) auth: Option<NewAuth>,
    /// What connections are made with where the public authorities do not do.
    pub(super) tls: Option<NewTls>,
    /// Static headers on every request, at most 20.
    pub(super) headers: Option<BTreeMap<String, String>>,
    /// When attempts follow each other; what is missing is the profile's.
    pub(super) retry: Option<Retry>,
    /// The deadline of a request, from 100 to 60000 milliseconds; the profile's by default.
    pub(super) timeout_ms: Option<u64>,
    /// After this many deliveries given up in a row the webhook is disabled, 0 for never; the profile's by default.
    pub(super) disable_after_failures: Option<u32>,
    /// After failing for so long without a success the webhook is disabled, milliseconds: 60000 (a minute) to 2592000000
    /// (30 days), 0 for never; the profile's by default, or 432000000 (5 days). It takes at least three failures, each a
    /// twentieth of that time after the one before.
    pub(super) disable_after_ms: Option<u64>,
    /// Most requests in flight, over all workers, from 1 to 1000; 10 by default. Each worker takes its share, and at least 1.
    pub(super) max_in_flight: Option<u32>,
    /// Most requests a second, over all workers, from 1 to 100000; unlimited by default.
    pub(super) rate_per_second: Option<u32>,
    /// Nothing is sent before this, RFC 3339.
    pub(super) active_from: Option<String>,
    /// Nothing is sent from this on, RFC 3339; never by default.
    pub(super) expires_at: Option<String>,
    /// The same in days from now, from 1 to 3650, or 0 for never. When the webhook is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expires_in_days: Option<u32>,
    /// `active` (the default), `paused` or `disabled`.
    pub(super) state: Option<String>,
    /// The signing secret, in the form that the profile wants; made here by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) secret: Option<String>,
}

impl NewWebhook {
    /// The same without what may be a secret. Names of headers stay, and of an `auth` which kind it is.
    pub(super) fn without_secrets(mut self) -> Self {
        // A query is where receivers' tokens are, when they are in a URL.
        if let Some((url, _)) = self.url.split_once('?') {
            self.url = format!("{url}?{MASK}");
        }
        if let Some(key) = &mut self.api_key {
            key.value = MASK.to_owned();
        }
        let mask = || Some(MASK.to_owned());
        self.auth = self.auth.map(NewAuth::kind_alone);
        self.tls = self.tls.map(|tls| NewTls {
            certificate_pem: tls.certificate_pem.and_then(|_| mask()),
            key_pem: tls.key_pem.and_then(|_| mask()),
            ca_pem: tls.ca_pem.and_then(|_| mask()),
        });
        for value in self.headers.iter_mut().flat_map(BTreeMap::values_mut) {
            value.clear();
            value.push_str(MASK);
        }
        self.secret = None;
        self
    }
}

/// Which events a webhook takes: those of its types, groups and categories, or all, as far as the filter holds.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct NewSubscription {
    /// Events of these types, by name or alias.
    pub(super) event_types: Option<BTreeSet<String>>,
    /// Events of the types of these groups, by id, also of those that are added later.
    pub(super) groups: Option<BTreeSet<String>>,
    /// Events of the types of these categories, by id, also of those that are added later.
    pub(super) categories: Option<BTreeSet<String>>,
    /// Events of every type, also of those that do not exist yet; but not Postrider's own.
    pub(super) all: Option<bool>,
    /// CEL over `event_type`, `event_time`, `id`, `key`, `tenant`, `data` and `current_context` that must hold as well.
    pub(super) filter: Option<String>,
}

/// An API key that the receiver wants.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct NewApiKey {
    /// `header` or `query`.
    pub(super) r#in: String,
    /// The header's or parameter's name.
    pub(super) name: String,
    /// The key. Never shown again.
    pub(super) value: String,
}

impl std::fmt::Debug for NewApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewApiKey({} {})", self.r#in, self.name)
    }
}

/// What `Authorization` says: one of the three.
#[derive(Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct NewAuth {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) basic: Option<Basic>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bearer: Option<Bearer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) oauth2: Option<Oauth2>,
}

impl std::fmt::Debug for NewAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NewAuth(…)")
    }
}

/// `Authorization: Basic …`.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct Basic {
    /// Without a colon.
    pub(super) username: String,
    /// Never shown again.
    pub(super) password: String,
}

/// `Authorization: Bearer …`, always the same token.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct Bearer {
    /// Never shown again.
    pub(super) token: String,
}

/// `Authorization: Bearer …` with a token from an OAuth 2.0 server, by client credentials.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct Oauth2 {
    pub(super) token_url: String,
    pub(super) client_id: String,
    /// Never shown again.
    pub(super) client_secret: String,
    /// Scopes, separated by spaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) scope: Option<String>,
    /// What some servers want to know beside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) audience: Option<String>,
    /// Whether id and secret go into the body in place of `Authorization: Basic`.
    #[serde(default)]
    pub(super) in_body: bool,
}

/// What connections are made with.
#[derive(Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct NewTls {
    /// Certificate chain to show to the receiver, PEM; with `key_pem`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) certificate_pem: Option<String>,
    /// Its private key, PEM. Never shown again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) key_pem: Option<String>,
    /// Certificates of the authority that signs the receiver's certificate, PEM; in place of the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ca_pem: Option<String>,
}

impl std::fmt::Debug for NewTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NewTls(…)")
    }
}

impl From<Auth> for NewAuth {
    fn from(auth: Auth) -> Self {
        match auth {
            Auth::Basic { username, password } => {
                Self { basic: Some(Basic { username, password: password.to_string() }), ..Self::default() }
            }
            Auth::Bearer { token } => {
                Self { bearer: Some(Bearer { token: token.to_string() }), ..Self::default() }
            }
            Auth::Oauth2(it) => Self {
                oauth2: Some(Oauth2 {
                    token_url: it.token_url,
                    client_id: it.client_id,
                    client_secret: it.client_secret.to_string(),
                    scope: it.scope,
                    audience: it.audience,
                    in_body: it.in_body,
                }),
                ..Self::default()
            },
        }
    }
}

impl NewAuth {
    /// The one that is given; nothing if it is none or several.
    pub(super) fn one(self) -> Option<Auth> {
        match (self.basic, self.bearer, self.oauth2) {
            (Some(it), None, None) => {
                Some(Auth::Basic { username: it.username, password: Zeroizing::new(it.password) })
            }
            (None, Some(it), None) => Some(Auth::Bearer { token: Zeroizing::new(it.token) }),
            (None, None, Some(it)) => Some(Auth::Oauth2(webhook::Oauth2 {
                token_url: it.token_url,
                client_id: it.client_id,
                client_secret: Zeroizing::new(it.client_secret),
                scope: it.scope,
                audience: it.audience,
                in_body: it.in_body,
            })),
            _ => None,
        }
    }

    /// Which kind it is, and nothing else of it.
    fn kind_alone(self) -> Self {
        let mask = || MASK.to_owned();
        Self {
            basic: self.basic.map(|_| Basic { username: mask(), password: mask() }),
            bearer: self.bearer.map(|_| Bearer { token: mask() }),
            oauth2: self.oauth2.map(|it| Oauth2 {
                token_url: mask(),
                client_id: mask(),
                client_secret: mask(),
                scope: it.scope.map(|_| mask()),
                audience: it.audience.map(|_| mask()),
                in_body: it.in_body,
            }),
        }
    }

    /// What may be shown.
    fn masked(mut self) -> Self {
        if let Some(it) = &mut self.basic {
            it.password = MASK.to_owned();
        }
        if let Some(it) = &mut self.bearer {
            it.token = MASK.to_owned();
        }
        if let Some(it) = &mut self.oauth2 {
            it.client_secret = MASK.to_owned();
        }
        self
    }
}

impl From<ClientTls> for NewTls {
    fn from(tls: ClientTls) -> Self {
        Self {
            certificate_pem: tls.certificate_pem,
            key_pem: tls.key_pem.map(|key| key.to_string()),
            ca_pem: tls.ca_pem,
        }
    }
}

impl From<NewTls> for ClientTls {
    fn from(tls: NewTls) -> Self {
        Self {
            certificate_pem: tls.certificate_pem,
            key_pem: tls.key_pem.map(Zeroizing::new),
            ca_pem: tls.ca_pem,
        }
    }
}

/// A retry policy; what is missing is the profile's.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct Retry {
    /// The first interval, milliseconds; 5000 where the profile says nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    initial_ms: Option<u64>,
    /// Each interval is this many times the one before; 4 where the profile says nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    factor: Option<f64>,
    /// No interval is longer; 12 hours where the profile says nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_interval_ms: Option<u64>,
    /// The most requests for one series; 12 where the profile says nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_attempts: Option<u32>,
    /// No attempt starts later than this after the series began; 3 days where the profile says nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_age_ms: Option<u64>,
    /// Spread around each interval, from 0 to 0.9; 0.2 where the profile says nothing.
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

impl From<RetrySpec> for Retry {
    fn from(spec: RetrySpec) -> Self {
        // Where there is a schedule the first three count for nothing.
        let counts = spec.schedule_ms.is_none();
        Self {
            initial_ms: counts.then_some(spec.initial_ms),
            factor: counts.then_some(spec.factor),
            max_interval_ms: counts.then_some(spec.max_interval_ms),
            max_attempts: Some(spec.max_attempts),
            max_age_ms: Some(spec.max_age_ms),
            jitter: Some(spec.jitter),
            schedule_ms: spec.schedule_ms,
        }
    }
}

/// A webhook. Secrets are not shown.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct Webhook {
    id: String,
    tenant: String,
    name: String,
    url: String,
    notification_type: &'static str,
    profile: String,
    payload_version: Option<String>,
    signed: bool,
    subscription: Subscription,
    api_key: Option<ApiKey>,
    /// With masked secrets.
    auth: Option<NewAuth>,
    /// With a masked key.
    tls: Option<NewTls>,
    /// Names with masked values.
    headers: BTreeMap<String, &'static str>,
    /// What the webhook says itself; the rest is the profile's.
    retry: Option<Retry>,
    /// The deadline that applies, the webhook's or its profile's.
    timeout_ms: u64,
    /// What the webhook says itself.
    disable_after_failures: Option<u32>,
    /// What the webhook says itself.
    disable_after_ms: Option<u64>,
    /// What applies, the webhook's and its profile's taken together.
    effective: Option<Effective>,
    max_in_flight: u32,
    rate_per_second: Option<u32>,
    active_from: Option<String>,
    expires_at: Option<String>,
    state: String,
    /// Why it is disabled: `request`, or what Postrider says.
    disabled_reason: Option<String>,
    disabled_at: Option<String>,
    /// What it missed, in the answer that enables it.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped_while_disabled: Option<Skipped>,
    /// How deliveries went of late. In the answer to a GET of one webhook.
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<WebhookHealth>,
    /// The end of the signing secret.
    secret_hint: String,
    /// 1, and one more with each rotation.
    secret_version: u32,
    secret_rotated_at: Option<String>,
    /// Until when the secret before signs as well.
    previous_secret_until: Option<String>,
    revision: u64,
    created_at: String,
    updated_at: String,
    /// What is allowed and should be mended.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) warnings: Vec<String>,
    /// The signing secret: shown when it is made, given or rotated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) secret: Option<String>,
    /// For an Ed25519 secret: what the receiver verifies with. Shown with the secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) public_key: Option<String>,
}

/// What applies to a webhook: what it says itself and, for the rest, what its profile says.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct Effective {
    retry: Retry,
    timeout_ms: u64,
    /// 0 for never.
    disable_after_failures: u32,
    /// 0 for never.
    disable_after_ms: u64,
    payload_version: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(in crate::api) struct Subscription {
    event_types: BTreeSet<String>,
    groups: BTreeSet<String>,
    categories: BTreeSet<String>,
    all: bool,
    filter: Option<String>,
    /// The event types that it takes now, by name. In the answer to a GET of one webhook.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) means_today: Option<Vec<String>>,
}

/// What a webhook missed while it was disabled.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct Skipped {
    deliveries: u64,
    /// When it was disabled.
    since: String,
    /// How to send them.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// How deliveries to a webhook went of late.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct WebhookHealth {
    /// Deliveries given up since the last that was delivered.
    given_up_in_a_row: u32,
    /// Attempts that failed since the last that succeeded.
    failed_attempts: u32,
    /// The first of these failures.
    failing_since: Option<String>,
    last_failure_at: Option<String>,
    /// To within a minute.
    last_success_at: Option<String>,
    /// How much of `disable_after_failures` is reached, 0 to 100; null where that is never.
    given_up_percent: Option<u8>,
    /// How much of `disable_after_ms` had passed at the last failure, 0 to 100; null where that is never. It stays below 100
    /// while failures are too few, or too close together.
    window_percent: Option<u8>,
    /// A failure from then on disables the webhook, if there were enough before it; null while it does not fail.
    disabled_by_failure_from: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(in crate::api) struct ApiKey {
    r#in: String,
    name: String,
}

impl Webhook {
    /// Adds which event types it takes now.
    pub(super) fn meaning(mut self, types: Vec<String>) -> Self {
        self.subscription.means_today = Some(types);
        self
    }

    /// Adds what it missed since it was disabled.
    pub(super) fn with_missed(mut self, deliveries: u64, since: Timestamp) -> Self {
        let hint = || {
            format!(
                "POST /v1/replays {{\"webhook\": \"{}\", \"states\": [\"skipped\"]}} plans to send what was skipped; POST \
                 /v1/deliveries/{{id}}/redeliver sends one.",
                self.id
            )
        };
        let hint = (deliveries > 0).then(hint);
        self.skipped_while_disabled = Some(Skipped { deliveries, since: shown(since), hint });
        self
    }

    /// Adds how deliveries went of late.
    pub(super) fn with_health(mut self, health: &Health, limits: Limits) -> Self {
        let streak = &health.streak;
        self.health = Some(WebhookHealth {
            given_up_in_a_row: streak.given_up,
            failed_attempts: streak.failed_attempts,
            failing_since: streak.since.map(shown),
            last_failure_at: streak.last_at.map(shown),
            last_success_at: health.last_success_at.map(shown),
            given_up_percent: streak.given_up_percent(limits),
            window_percent: streak.window_percent(limits),
            disabled_by_failure_from: streak.window_ends_at(limits).map(shown),
        });
        self
    }
}

impl Api {
    pub(super) fn headers_of(&self, record: &WebhookRecord) -> Result<BTreeMap<String, String>, Problem> {
        let Some(sealed) = &record.headers else { return Ok(BTreeMap::new()) };
        let text = self.open(record, SecretKind::Headers, sealed)?;
        serde_json::from_str(&text).map_err(|error| unreadable_secret(&error))
    }

    fn auth_of(&self, record: &WebhookRecord) -> Result<Option<NewAuth>, Problem> {
        let Some(sealed) = &record.auth else { return Ok(None) };
        let text = self.open(record, SecretKind::Auth, sealed)?;
        let auth: Auth = serde_json::from_str(&text).map_err(|error| unreadable_secret(&error))?;
        Ok(Some(auth.into()))
    }

    fn tls_of(&self, record: &WebhookRecord) -> Result<Option<NewTls>, Problem> {
        let Some(sealed) = &record.tls else { return Ok(None) };
        let text = self.open(record, SecretKind::Tls, sealed)?;
        let tls: ClientTls = serde_json::from_str(&text).map_err(|error| unreadable_secret(&error))?;
        Ok(Some(tls.into()))
    }

    /// A webhook as its owner may see it.
    pub(super) fn shown(&self, row: WebhookRow, profile: Option<&Profile>) -> Result<Webhook, Problem> {
        let headers = self.headers_of(&row.record)?;
        let auth = self.auth_of(&row.record)?.map(NewAuth::masked);
        let tls = self.tls_of(&row.record)?;
        let now = postrider_broker::now();
        let record = row.record;
        let effective = profile.map(|profile| (profile, limits_of(&record, Some(profile))));
        let effective = effective.map(|(profile, limits)| Effective {
            // With a schedule, as many as it allows.
            retry: Retry {
                max_attempts: Some(profile.retry(&record.retry).max_attempts()),
                ..profile.retry_spec(&record.retry).into()
            },
            timeout_ms: profile.timeout_ms(record.timeout_ms),
            disable_after_failures: limits.given_up.unwrap_or(0),
            disable_after_ms: limits.window_ms.unwrap_or(0),
            payload_version: record
                .payload_version
                .clone()
                .or_else(|| Some(profile.spec().version.clone()).filter(|version| !version.is_empty())),
        });
        let previous =
            record.secrets.iter().filter_map(|secret| secret.until).filter(|until| *until > now).max();
        Ok(Webhook {
            warnings: warnings(&record, profile, now),
            id: record.id.to_string(),
            tenant: record.tenant.to_string(),
            name: record.name,
            url: record.url,
            notification_type: "rest",
            profile: record.profile,
            payload_version: record.payload_version,
            signed: !record.unsigned,
            subscription: Subscription {
                event_types: record.event_types.iter().map(ToString::to_string).collect(),
                groups: record.groups,
                categories: record.categories,
                all: record.all,
                filter: record.filter,
                means_today: None,
            },
            api_key: record.api_key.map(|key| ApiKey { r#in: key.place, name: key.name }),
            auth,
            tls: tls.map(|tls| NewTls { key_pem: tls.key_pem.map(|_| MASK.to_owned()), ..tls }),
            headers: headers.into_keys().map(|name| (name, MASK)).collect(),
            retry: (record.retry != RetryRecord::default()).then(|| record.retry.into()),
            timeout_ms: effective.as_ref().map_or(record.timeout_ms.unwrap_or_default(), |it| it.timeout_ms),
            disable_after_failures: record.disable_after_failures,
            disable_after_ms: record.disable_after_ms,
            effective,
            max_in_flight: record.max_in_flight,
            rate_per_second: record.rate_per_second,
            active_from: record.active_from.map(shown),
            expires_at: record.expires_at.map(shown),
            state: record.state,
            disabled_reason: Some(row.disabled_reason).filter(|reason| !reason.is_empty()),
            disabled_at: row.disabled_at.map(shown),
            skipped_while_disabled: None,
            health: None,
            secret_hint: row.secret_hint,
            secret_version: record.secret_version,
            secret_rotated_at: row.rotated_at.map(shown),
            previous_secret_until: previous.map(shown),
            revision: row.revision,
            created_at: shown(row.created_at),
            updated_at: shown(row.updated_at),
            secret: None,
            public_key: None,
        })
    }

    /// What a person would have to send to make this webhook as it is, secrets opened.
    pub(super) fn as_new(&self, record: &WebhookRecord) -> Result<NewWebhook, Problem> {
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
            payload_version: record.payload_version.clone(),
            signed: Some(!record.unsigned),
            subscription: Some(NewSubscription {
                event_types: Some(record.event_types.iter().map(ToString::to_string).collect()),
                groups: Some(record.groups.clone()),
                categories: Some(record.categories.clone()),
                all: Some(record.all),
                filter: record.filter.clone(),
            }),
            api_key,
            auth: self.auth_of(record)?,
            tls: self.tls_of(record)?,
            headers: Some(self.headers_of(record)?),
            retry: Some(record.retry.clone().into()),
            timeout_ms: record.timeout_ms,
            disable_after_failures: record.disable_after_failures,
            disable_after_ms: record.disable_after_ms,
            max_in_flight: Some(record.max_in_flight),
            rate_per_second: record.rate_per_second,
            active_from: record.active_from.map(shown),
            expires_at: record.expires_at.map(shown),
            expires_in_days: None,
            state: Some(record.state.clone()),
            secret: None,
        })
    }
}

/// When a webhook is disabled.
pub(super) fn limits_of(record: &WebhookRecord, profile: Option<&Profile>) -> Limits {
    let (failures, window_ms) = (record.disable_after_failures, record.disable_after_ms);
    match profile {
        Some(profile) => profile.spec().limits(failures, window_ms),
        None => ProfileSpec::default().limits(failures, window_ms),
    }
}

/// What is allowed and should be mended.
fn warnings(record: &WebhookRecord, profile: Option<&Profile>, now: Timestamp) -> Vec<String> {
    let mut warnings = Vec::new();
    if record.url.starts_with("http:") {
        warnings.push(
            "The URL begins with http://: bodies and signatures can be read on the way; use https://."
                .to_owned(),
        );
    }
    if profile.is_none() {
        let name: &str = &record.profile;
        warnings.push(format!("The profile {name:?} is in no catalogue of the tenant: nothing can be sent."));
    }
    if record.expires_at.is_some_and(|at| at <= now) {
        warnings.push("The webhook has expired: nothing is sent until expires_at is later.".to_owned());
    }
    warnings
}
