//! From what a caller sends to the record that the data plane gets: everything is checked here.

use std::collections::{BTreeMap, BTreeSet};

use postrider_core::catalogue::{self, OWN};
use postrider_core::expression::Expression;
use postrider_core::health::WINDOW_MS;
use postrider_core::profile::{BUILT_IN, Profile};
use postrider_core::retry::RetryPolicy;
use postrider_core::spelling::suggestion;
use postrider_core::webhook::{
    self, BadHeader, ClientTls, MAX_HEADERS, MAX_IN_FLIGHT, SecretKind, TIMEOUT_MS, WebhookState,
};
use postrider_core::wire::{ApiKeyRecord, RetryRecord, UnknownTypes, WebhookRecord};
use postrider_core::{EventType, TenantId, Timestamp, WebhookId};

use super::shape::{DEFAULT_IN_FLIGHT, NewApiKey, NewAuth, NewSubscription, NewTls, NewWebhook};
use super::{MASK, profile_of, unreadable_secret};
use crate::api::Api;
use crate::api::problem::{Code, Problem};
use crate::store::{Change, TermKind};

/// The most event types of one webhook.
const MAX_EVENT_TYPES: usize = 1000;
/// The most groups, and the most categories, of one webhook.
const MAX_RULES: usize = 200;
/// The highest rate that can be asked for.
const MAX_RATE: u32 = 100_000;
/// The highest number of failures in a row that can be asked for.
const MAX_FAILURES: u32 = 1_000_000;
/// The longest time until a webhook expires that can be asked for in days.
const MAX_EXPIRY_DAYS: u32 = 3650;
const DAY_MS: u64 = 24 * 3600 * 1000;
/// How many known names are looked at to suggest one, and how many are told.
const LOOKED_AT: u32 = 5000;
const TOLD: usize = 20;

/// What Postrider says of webhooks under names of a product; known also where its catalogue is not.
const OWN_NAMES: [&str; 3] = ["WEBHOOK_CREATED", "WEBHOOK_UPDATED", "WEBHOOK_DELETED"];

/// A webhook that may be kept.
pub(super) struct Checked {
    pub(super) record: WebhookRecord,
    pub(super) profile: Profile,
    /// What is allowed and should be mended.
    pub(super) warnings: Vec<String>,
}

/// What a webhook is made from: its names, and what was there before.
pub(super) struct Base<'a> {
    pub(super) id: &'a WebhookId,
    pub(super) tenant: &'a TenantId,
    /// The webhook as it was, if it is changed.
    pub(super) before: Option<&'a WebhookRecord>,
    pub(super) now: Timestamp,
}

impl Api {
    /// Checks everything and makes the record, with the secrets of before.
    pub(super) async fn check(
        &self,
        change: &mut Change<'_>,
        base: Base<'_>,
        new: NewWebhook,
    ) -> Result<Checked, Problem> {
        check_name(&new.name)?;
        let profile = self.check_profile(change, base.tenant, new.profile.as_deref()).await?;
        let url = self
            .egress
            .check_url(&new.url, self.https_only)
            .map_err(|e| Problem::body("url", e.to_string()))?;
        if profile.spec().https_only && url.scheme() != "https" {
            let detail = format!(
                "the profile {} takes only URLs that begin with https://, so that bodies cannot be read on the way",
                profile.spec().name
            );
            return Err(Problem::body("url", detail));
        }
        if new.notification_type.as_deref().is_some_and(|kind| kind != "rest") {
            return Err(Problem::body("notification_type", "notification_type must be rest"));
        }
        let payload_version = check_version(&profile, new.payload_version)?;
        let mut record = WebhookRecord {
            name: new.name,
            profile: profile.spec().name.clone(),
            payload_version,
            unsigned: !new.signed.unwrap_or(true),
            retry: check_retry(&profile, new.retry.map(RetryRecord::from).unwrap_or_default())?,
            timeout_ms: new.timeout_ms.map(|ms| within("timeout_ms", ms, TIMEOUT_MS)).transpose()?,
            disable_after_failures: new
                .disable_after_failures
                .map(|n| within("disable_after_failures", n, 0..=MAX_FAILURES))
                .transpose()?,
            disable_after_ms: new.disable_after_ms.map(check_window).transpose()?,
            max_in_flight: within(
                "max_in_flight",
                new.max_in_flight.unwrap_or(DEFAULT_IN_FLIGHT),
                MAX_IN_FLIGHT,
            )?,
            rate_per_second: new
                .rate_per_second
                .map(|rate| within("rate_per_second", rate, 1..=MAX_RATE))
                .transpose()?,
            state: new.state.unwrap_or_else(|| WebhookState::default().as_str().to_owned()),
            ..WebhookRecord::new(base.id.clone(), base.tenant.clone(), url.as_str())
        };
        if WebhookState::parse(&record.state).is_none() {
            return Err(Problem::body("state", "state must be active, paused or disabled"));
        }
        if let Some(before) = base.before {
            record.secrets = before.secrets.clone();
            record.secret_version = before.secret_version;
        }
        record.active_from = read_time("active_from", new.active_from.as_deref())?;
        record.expires_at = expiry(&base, new.expires_at.as_deref(), new.expires_in_days)?;
        if let (Some(from), Some(until)) = (record.active_from, record.expires_at)
            && from >= until
        {
            return Err(Problem::body("expires_at", "expires_at must be later than active_from"));
        }
        let warnings =
            check_subscription(change, &base, &mut record, new.subscription.unwrap_or_default()).await?;
        let headers = new.headers.unwrap_or_default();
        let key_header = new.api_key.as_ref().filter(|key| key.r#in == "header").map(|key| key.name.clone());
        if let Some(name) =
            headers.keys().find(|name| key_header.as_ref().is_some_and(|key| key.eq_ignore_ascii_case(name)))
        {
            return Err(Problem::body(format!("headers.{name}"), "the api_key is in the same header"));
        }
        let names = headers.keys().chain(&key_header).map(String::as_str);
        record.auth = self.seal_auth(&record, new.auth, names)?;
        record.tls = self.seal_tls(&record, new.tls)?;
        record.api_key = new.api_key.map(|key| self.seal_api_key(&record, key)).transpose()?;
        record.headers = self.seal_headers(&record, headers)?;
        check_limits(change, &base, &record, &profile).await?;
        Ok(Checked { record, profile, warnings })
    }

    async fn check_profile(
        &self,
        change: &mut Change<'_>,
        tenant: &TenantId,
        name: Option<&str>,
    ) -> Result<Profile, Problem> {
        let Some(name) = name else { return Ok(Profile::default_profile()) };
        if let Some(profile) = profile_of(change, tenant.as_str(), name).await? {
            return Ok(profile);
        }
        let others = change.terms(tenant.as_str(), TermKind::Profile, LOOKED_AT).await?;
        let known: Vec<&str> =
            BUILT_IN.iter().copied().chain(others.iter().map(|term| term.name.as_str())).collect();
        let name: String = name.chars().take(64).collect();
        let near = suggestion(&name, known.iter().copied());
        let detail = format!("there is no profile {name:?} in this tenant, only {}{near}", known.join(", "));
        let hint = "A product's profile comes with its catalogue: PUT /v1/catalogues/{product}, or `postrider catalogue \
                    import`.";
        Err(Problem::new(Code::BadBody, detail, hint).field("profile"))
    }

    fn seal_auth<'a>(
        &self,
        record: &WebhookRecord,
        auth: Option<NewAuth>,
        headers: impl Iterator<Item = &'a str>,
    ) -> Result<Option<String>, Problem> {
        let Some(given) = auth else { return Ok(None) };
        let Some(auth) = given.one() else {
            let detail = "auth must have exactly one of basic, bearer and oauth2; set the one before to null";
            return Err(Problem::body("auth", detail));
        };
        auth.check().map_err(|e| Problem::body(e.member, e.problem))?;
        auth.check_beside(headers).map_err(|e| Problem::body(e.member, e.problem))?;
        let (member, secret) = match &auth {
            webhook::Auth::Basic { password, .. } => ("auth.basic.password", password),
            webhook::Auth::Bearer { token } => ("auth.bearer.token", token),
            webhook::Auth::Oauth2(oauth2) => {
                self.egress
                    .check_url(&oauth2.token_url, self.https_only)
                    .map_err(|e| Problem::body("auth.oauth2.token_url", e.to_string()))?;
                ("auth.oauth2.client_secret", &oauth2.client_secret)
            }
        };
        not_masked(member, secret)?;
        let text = serde_json::to_string(&auth).map_err(|error| unreadable_secret(&error))?;
        self.seal(record, SecretKind::Auth, &text).map(Some)
    }

    fn seal_tls(&self, record: &WebhookRecord, tls: Option<NewTls>) -> Result<Option<String>, Problem> {
        let Some(given) = tls else { return Ok(None) };
        if let Some(key) = &given.key_pem {
            not_masked("tls.key_pem", key)?;
        }
        if given.certificate_pem.is_none() && given.key_pem.is_none() && given.ca_pem.is_none() {
            return Ok(None);
        }
        let tls = ClientTls::from(given);
        tls.check().map_err(|e| Problem::body(e.member, e.problem))?;
        let text = serde_json::to_string(&tls).map_err(|error| unreadable_secret(&error))?;
        self.seal(record, SecretKind::Tls, &text).map(Some)
    }

    fn seal_api_key(&self, record: &WebhookRecord, key: NewApiKey) -> Result<ApiKeyRecord, Problem> {
        match key.r#in.as_str() {
            "header" => webhook::check_header(&key.name, &key.value).map_err(|e| {
                let member = if matches!(e, BadHeader::Value(_)) { "api_key.value" } else { "api_key.name" };
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
        not_masked("api_key.value", &key.value)?;
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
            not_masked(&field(), value)?;
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

/// What is shown in place of a secret is no secret.
fn not_masked(member: &str, value: &str) -> Result<(), Problem> {
    if value != MASK {
        return Ok(());
    }
    let detail = "this is what is shown in place of the secret; leave the member out to keep the secret";
    Err(Problem::body(member, detail))
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

fn check_version(profile: &Profile, given: Option<String>) -> Result<Option<String>, Problem> {
    let Some(version) = given.filter(|version| !version.is_empty()) else { return Ok(None) };
    if profile.has_version(&version) {
        return Ok(Some(version));
    }
    let spec = profile.spec();
    let known: Vec<&str> = std::iter::once(spec.version.as_str())
        .chain(spec.other_versions.iter().map(|version| version.name.as_str()))
        .filter(|name| !name.is_empty())
        .collect();
    let detail = match known.as_slice() {
        [] => {
            format!(
                "the profile {} has one payload, without a version; payload_version must be null",
                spec.name
            )
        }
        known => format!("the profile {} has the payload versions {}", spec.name, known.join(", ")),
    };
    Err(Problem::body("payload_version", detail))
}

fn check_retry(profile: &Profile, own: RetryRecord) -> Result<RetryRecord, Problem> {
    RetryPolicy::new(profile.retry_spec(&own)).map_err(|e| {
        let text = e.to_string();
        let field = text.split_whitespace().next().unwrap_or("retry").to_owned();
        Problem::body(field, text)
    })?;
    Ok(own)
}

/// How long a webhook may fail: 0 for ever.
fn check_window(window_ms: u64) -> Result<u64, Problem> {
    if window_ms == 0 || WINDOW_MS.contains(&window_ms) {
        return Ok(window_ms);
    }
    let detail = format!(
        "disable_after_ms must be 0, for never, or from {} to {}",
        WINDOW_MS.start(),
        WINDOW_MS.end()
    );
    Err(Problem::body("disable_after_ms", detail))
}

fn read_time(member: &str, given: Option<&str>) -> Result<Option<Timestamp>, Problem> {
    let Some(given) = given else { return Ok(None) };
    let read = Timestamp::parse_rfc3339(given).map(Some);
    read.ok_or_else(|| {
        Problem::body(member, format!("{member} must be RFC 3339, such as 2026-11-21T20:00:00Z"))
    })
}

/// When a webhook expires. What is given anew must be later than now; what was there may be over.
fn expiry(base: &Base<'_>, at: Option<&str>, in_days: Option<u32>) -> Result<Option<Timestamp>, Problem> {
    let at = read_time("expires_at", at)?;
    let in_days = match in_days {
        None => None,
        Some(_) if base.before.is_some() => {
            let detail = "expires_in_days is for making a webhook; set expires_at";
            return Err(Problem::body("expires_in_days", detail));
        }
        Some(_) if at.is_some() => {
            return Err(Problem::body("expires_in_days", "give expires_at or expires_in_days, not both"));
        }
        Some(0) => None,
        Some(days) => {
            let days = within("expires_in_days", days, 0..=MAX_EXPIRY_DAYS)?;
            Some(base.now.plus_ms(u64::from(days) * DAY_MS))
        }
    };
    let kept = base.before.and_then(|before| before.expires_at);
    if at.is_some_and(|at| at <= base.now && kept != Some(at)) {
        return Err(Problem::body("expires_at", "expires_at must be later than now, or null for never"));
    }
    Ok(at.or(in_days))
}

/// Checks what the webhook asks for, puts it into the record, and says what nobody knows of it.
async fn check_subscription(
    change: &mut Change<'_>,
    base: &Base<'_>,
    record: &mut WebhookRecord,
    given: NewSubscription,
) -> Result<Vec<String>, Problem> {
    let names = given.event_types.unwrap_or_default();
    if names.len() > MAX_EVENT_TYPES {
        let detail = format!("at most {MAX_EVENT_TYPES} event types can be named; set all to take every one");
        return Err(Problem::body("subscription.event_types", detail));
    }
    for name in names {
        let event_type =
            EventType::parse(&name).map_err(|e| Problem::body("subscription.event_types", e.to_string()))?;
        record.event_types.insert(event_type);
    }
    record.groups = rules(change, base, TermKind::Group, given.groups).await?;
    record.categories = rules(change, base, TermKind::Category, given.categories).await?;
    record.all = given.all.unwrap_or(false);
    if !record.all
        && record.event_types.is_empty()
        && record.groups.is_empty()
        && record.categories.is_empty()
    {
        let detail = "the webhook would take nothing: name at least one of event_types, groups or categories, or set \
                      all to true";
        return Err(Problem::body("subscription.event_types", detail));
    }
    if let Some(filter) = given.filter {
        Expression::over_events(&filter).map_err(|e| Problem::body("subscription.filter", e.to_string()))?;
        record.filter = Some(filter);
    }
    unknown_types(change, base, record).await
}

/// Groups or categories that some catalogue has.
async fn rules(
    change: &mut Change<'_>,
    base: &Base<'_>,
    kind: TermKind,
    given: Option<BTreeSet<String>>,
) -> Result<BTreeSet<String>, Problem> {
    let given = given.unwrap_or_default();
    let (member, before) = match kind {
        TermKind::Group => ("groups", base.before.map(|before| &before.groups)),
        _ => ("categories", base.before.map(|before| &before.categories)),
    };
    let field = format!("subscription.{member}");
    if given.len() > MAX_RULES {
        return Err(Problem::body(field, format!("at most {MAX_RULES} {member} can be named")));
    }
    for name in &given {
        let kept = before.is_some_and(|before| before.contains(name));
        let own = kind == TermKind::Category && name == OWN;
        if kept || own || change.term(base.tenant.as_str(), kind, name).await?.is_some() {
            continue;
        }
        let known = change.terms(base.tenant.as_str(), kind, LOOKED_AT).await?;
        let known: Vec<&str> = known.iter().map(|term| term.name.as_str()).collect();
        let name: String = name.chars().take(64).collect();
        let near = suggestion(&name, known.iter().copied());
        let there = match known.as_slice() {
            [] => "there are none at all".to_owned(),
            known if known.len() <= TOLD => format!("there are {}", known.join(", ")),
            known => format!("there are {}", known.len()),
        };
        let detail = format!("no catalogue of the tenant has the {} {name:?}{near}; {there}", kind.as_str());
        let hint = "GET /v1/catalogues/{product} shows the ids of groups and categories.";
        return Err(Problem::new(Code::BadBody, detail, hint).field(field));
    }
    Ok(given)
}

/// What no catalogue knows of the types that are named anew: an error if the tenant refuses such events, else a warning.
async fn unknown_types(
    change: &mut Change<'_>,
    base: &Base<'_>,
    record: &WebhookRecord,
) -> Result<Vec<String>, Problem> {
    let tenant = base.tenant.as_str();
    if change.count_catalogues(tenant).await? == 0 {
        return Ok(Vec::new());
    }
    let own = catalogue::own();
    let mut unknown = Vec::new();
    for event_type in &record.event_types {
        let kept = base.before.is_some_and(|before| before.event_types.contains(event_type));
        let ours = OWN_NAMES.contains(&event_type.as_str())
            || own.event_types.iter().any(|entry| entry.name == *event_type);
        if !kept && !ours && change.term(tenant, TermKind::Type, event_type.as_str()).await?.is_none() {
            unknown.push(event_type);
        }
    }
    if unknown.is_empty() {
        return Ok(Vec::new());
    }
    let known = change.terms(tenant, TermKind::Type, LOOKED_AT).await?;
    let told = |name: &EventType| {
        let near = suggestion(name.as_str(), known.iter().map(|term| term.name.as_str()));
        format!("no catalogue of the tenant has the event type {:?}{near}", name.as_str())
    };
    if change.settings(tenant).await?.unknown_types == UnknownTypes::Refuse {
        let hint =
            "GET /v1/event-types?search= finds types; the tenant's setting unknown_types refuses others.";
        return Err(Problem::new(Code::BadBody, told(unknown[0]), hint).field("subscription.event_types"));
    }
    Ok(unknown.into_iter().take(TOLD).map(|name| format!("Unknown event type: {}.", told(name))).collect())
}

/// Refuses one active webhook more than the tenant or the profile may have. A paused one counts: it is resumed as it is.
async fn check_limits(
    change: &mut Change<'_>,
    base: &Base<'_>,
    record: &WebhookRecord,
    profile: &Profile,
) -> Result<(), Problem> {
    let counts = |record: &WebhookRecord| {
        record.state != WebhookState::Disabled.as_str() && record.expires_at.is_none_or(|at| at > base.now)
    };
    let counted = base.before.is_some_and(counts);
    let same_profile = base.before.is_some_and(|before| before.profile == record.profile);
    if !counts(record) || (counted && same_profile) {
        return Ok(());
    }
    let tenant = base.tenant.as_str();
    let (of_tenant, allowed) =
        (change.settings(tenant).await?.max_active_webhooks, profile.spec().max_active_webhooks);
    if of_tenant.is_none() && allowed.is_none() {
        // Counting looks at every webhook of the tenant.
        return Ok(());
    }
    let (all, of_profile) =
        change.count_active_webhooks(tenant, &record.profile, record.id.as_str(), base.now).await?;
    let hint = "Disable or delete a webhook that is not needed, or make this one with the state disabled.";
    if let Some(most) = of_tenant
        && !counted
        && all >= u64::from(most)
    {
        let detail = format!("the tenant's settings allow {most} active webhooks, and there are as many");
        return Err(Problem::new(Code::Quota, detail, hint));
    }
    if let Some(most) = allowed
        && of_profile >= u64::from(most)
    {
        let detail =
            format!("the profile {} allows {most} active webhooks, and there are as many", record.profile);
        return Err(Problem::new(Code::Quota, detail, hint));
    }
    Ok(())
}

/// The same for a webhook that becomes active by itself.
pub(super) async fn may_be_active(
    change: &mut Change<'_>,
    before: &WebhookRecord,
    after: &WebhookRecord,
    now: Timestamp,
) -> Result<(), Problem> {
    let Some(profile) = profile_of(change, after.tenant.as_str(), &after.profile).await? else {
        return Ok(());
    };
    let base = Base { id: &after.id, tenant: &after.tenant, before: Some(before), now };
    check_limits(change, &base, after, &profile).await
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
