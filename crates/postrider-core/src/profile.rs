//! How a webhook is spoken to: body, signature, success, retries.
//!
//! A profile is data over closed sets: [`Body`], [`Member`], [`Scheme`], [`Success`], [`Retried`]. Four come with the
//! program; products bring theirs in their catalogue. `docs/profiles.md` has a table of all of them.

mod built_in;
mod member;

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

pub use member::Subject;

use crate::health;
use crate::outcome::{Retried, Success};
use crate::retry::{RetryPolicy, RetrySpec};
use crate::webhook::{TIMEOUT_MS, check_profile_header, check_signature_header};
use crate::wire::RetryRecord;
use member::{Filling, MAX_NAME_CHARS};

/// The deadline of a request that neither webhook nor profile sets, milliseconds.
pub const DEFAULT_TIMEOUT_MS: u64 = 15_000;

/// A profile as it is written in a catalogue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProfileSpec {
    /// 1 to 64 of `a-z`, `0-9` and `-`; webhooks name it.
    pub name: String,
    /// What it is for, in a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What the body holds.
    #[serde(default)]
    pub body: Body,
    /// The value of `Content-Type`; `application/json` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Members of the body, in this order; for [`Body::Members`].
    #[serde(default, rename = "member", skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<Member>,
    /// Headers with parts of the event.
    #[serde(default, rename = "header", skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<Member>,
    /// What the version of the payload above is called; empty when there is only one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Other versions of the payload that a webhook can ask for.
    #[serde(default, rename = "other_version", skip_serializing_if = "Vec::is_empty")]
    pub other_versions: Vec<PayloadVersion>,
    /// How requests are signed.
    #[serde(default)]
    pub signature: SignatureSpec,
    /// The rules for secrets.
    #[serde(default)]
    pub secret: SecretSpec,
    /// Which answers mean success.
    #[serde(default)]
    pub success: Success,
    /// Which failures are tried again.
    #[serde(default)]
    pub retried: Retried,
    /// The retry policy of webhooks that give none.
    #[serde(default)]
    pub retry: RetryRecord,
    /// The deadline of webhooks that give none, milliseconds; 15,000 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// After this many deliveries given up in a row a webhook is disabled, unless the webhook says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disable_after_failures: Option<u32>,
    /// After so long without a success a webhook is disabled, milliseconds, 0 for never, unless the webhook says otherwise;
    /// five days by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disable_after_ms: Option<u64>,
    /// The most active webhooks of this profile in one tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_active_webhooks: Option<u32>,
    /// Whether `http:` URLs are refused.
    #[serde(default)]
    pub https_only: bool,
}

impl ProfileSpec {
    /// When a webhook is disabled that says this much of its own: so many deliveries given up in a row, and so long without
    /// a success, milliseconds; 0 is never.
    pub fn limits(&self, own_failures: Option<u32>, own_window_ms: Option<u64>) -> health::Limits {
        let window_ms = own_window_ms.or(self.disable_after_ms).unwrap_or(health::DEFAULT_WINDOW_MS);
        health::Limits {
            given_up: own_failures.or(self.disable_after_failures).filter(|limit| *limit > 0),
            window_ms: Some(window_ms).filter(|window_ms| *window_ms > 0),
        }
    }
}

/// Another version of a profile's payload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PayloadVersion {
    /// What webhooks call it.
    pub name: String,
    /// Its members, in this order.
    #[serde(rename = "member")]
    pub members: Vec<Member>,
}

/// What a body holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// A JSON object of the profile's members.
    #[default]
    Members,
    /// The event's `data`, byte for byte.
    Data,
}

/// One member of a body, or one header: its name and where its value comes from.
///
/// `path` is tried first; where it leads nowhere, or to null, the other source counts. Without a value it is null, or
/// left out if it is `optional`. A header without a value is always left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// A JSON pointer into the event (`/data/client`, `/current_context/actor`, `/key`), taken byte for byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Whether `path` counts only where it leads to a string that is not empty.
    #[serde(default, skip_serializing_if = "is_false")]
    pub only_text: bool,
    /// An id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<IdSource>,
    /// The time of the event, in a format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<TimeFormat>,
    /// Something of the event's type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_type: Option<TypeSource>,
    /// Text with `{tenant}`, `{event_id}`, `{delivery_id}`, `{event_type}` and `{webhook_id}` filled in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Any JSON, always the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<serde_json::Value>,
    /// Left out rather than null when it has no value.
    #[serde(default, skip_serializing_if = "is_false")]
    pub optional: bool,
}

fn is_false(b: &bool) -> bool {
    !b
}

/// Which id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdSource {
    /// The event's: the same for every webhook and every attempt.
    Event,
    /// The delivery's: another for each webhook, the same on every attempt.
    Delivery,
    /// The delivery's, in the form of a UUID.
    DeliveryUuid,
    /// The correlation id, which events of one action share.
    Correlation,
}

/// How a time is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeFormat {
    /// As upstream wrote it (RFC 3339).
    AsGiven,
    /// RFC 3339, UTC, three digits of a second: `2026-11-21T20:00:00.000Z`.
    Rfc3339Ms,
    /// RFC 3339, UTC, whole seconds.
    Rfc3339,
    /// `2026-11-21 20:00:00`, UTC.
    SpaceSeparated,
    /// Seconds since the Unix epoch.
    UnixSecs,
    /// Milliseconds since the Unix epoch.
    UnixMs,
}

/// What of an event's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TypeSource {
    /// Its name.
    Name,
    /// The product's code for it.
    Code,
    /// Its category's id.
    Category,
    /// Its group's id.
    Group,
}

/// How requests are signed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignatureSpec {
    /// What is signed and where the signature goes.
    #[serde(default)]
    pub scheme: Scheme,
    /// For [`Scheme::BodyHex`]: the header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// What of the secret is the key.
    #[serde(default)]
    pub key: KeyForm,
}

/// What is signed and where the signature goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    /// Standard Webhooks 1.0.0.
    #[default]
    StandardWebhooks,
    /// HMAC-SHA256 of the body, in hexadecimal digits, in one header.
    BodyHex,
    /// HMAC-SHA256 of a canonical string, five `X-Webhook-*` headers.
    Canonical,
    /// RFC 9421 with `Content-Digest`.
    HttpMessage,
    /// Not signed.
    None,
}

/// What of the secret is the key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyForm {
    /// The bytes that the base64 after `whsec_` or `whsk_` stands for.
    #[default]
    Base64,
    /// The text as it is.
    Text,
    /// The text without a leading `whsec_`.
    TextAfterPrefix,
}

/// The rules for secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretSpec {
    /// When it is shown.
    #[serde(default)]
    pub shown: Shown,
    /// What becomes of the old one at a rotation.
    #[serde(default)]
    pub rotation: Rotation,
    /// The shortest time between two rotations, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation_interval_secs: Option<u32>,
}

/// When a secret is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shown {
    /// When it is made, and never again.
    #[default]
    Once,
    /// Whenever somebody who may manage the webhook asks.
    Always,
}

/// What becomes of the old secret at a rotation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rotation {
    /// It signs too, for as long as the rotation says.
    #[default]
    Overlap,
    /// It signs nothing more from that moment.
    AtOnce,
}

/// A profile, checked: what deliveries are made with.
#[derive(Clone, Debug)]
pub struct Profile {
    spec: ProfileSpec,
    retry: RetrySpec,
    members: Vec<Filling>,
    other_versions: Vec<(String, Vec<Filling>)>,
    headers: Vec<Filling>,
}

/// Why a profile is refused. The text names the member and says what it must be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("profile.{member}: {problem}")]
pub struct BadProfile {
    /// Which member.
    pub member: String,
    /// What it must be.
    pub problem: String,
}

impl BadProfile {
    fn new(member: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { member: member.into(), problem: problem.into() }
    }
}

/// The names of the profiles that come with the program.
pub const BUILT_IN: [&str; 4] = ["postrider", "standard", "cloudevents", "cloudevents-binary"];

/// The most members of a body.
pub const MAX_MEMBERS: usize = 64;
/// The most headers of a profile.
pub const MAX_PROFILE_HEADERS: usize = 20;
/// The most other versions of a payload.
pub const MAX_OTHER_VERSIONS: usize = 8;
/// The most bytes of a description.
const MAX_DESCRIPTION_BYTES: usize = 2_000;
/// The longest time between two rotations that can be asked for: a year, seconds.
const MAX_ROTATION_INTERVAL_SECS: u32 = 366 * 24 * 3600;

impl Profile {
    /// Checks a profile.
    ///
    /// # Errors
    /// [`BadProfile`] with the first member that is wrong.
    pub fn new(spec: ProfileSpec) -> Result<Self, BadProfile> {
        if BUILT_IN.contains(&spec.name.as_str()) {
            let problem = format!("{} comes with Postrider; choose another name", spec.name);
            return Err(BadProfile::new("name", problem));
        }
        Self::checked(spec)
    }

    /// One of the profiles that come with the program; `None` for any other name.
    pub fn built_in(name: &str) -> Option<Self> {
        Self::checked(built_in::spec(name)?).ok()
    }

    /// The profile of webhooks that name none.
    pub fn default_profile() -> Self {
        // A test reads every built-in profile, so the second half is never needed.
        Self::built_in(BUILT_IN[0]).unwrap_or_else(|| Self {
            spec: ProfileSpec::default(),
            retry: RetrySpec::default(),
            members: Vec::new(),
            other_versions: Vec::new(),
            headers: Vec::new(),
        })
    }

    fn checked(spec: ProfileSpec) -> Result<Self, BadProfile> {
        check_words(&spec)?;
        check_signature(&spec)?;
        let retry = check_retry(&spec)?;
        let members = fillings("member", &spec.members, MAX_MEMBERS)?;
        match spec.body {
            Body::Members if members.is_empty() => {
                return Err(BadProfile::new("member", "a body of members needs at least one"));
            }
            Body::Data if !members.is_empty() || !spec.other_versions.is_empty() => {
                return Err(BadProfile::new("member", "a body that is the event's data has no members"));
            }
            Body::Members | Body::Data => {}
        }
        if spec.other_versions.len() > MAX_OTHER_VERSIONS {
            return Err(BadProfile::new(
                "other_version",
                format!("at most {MAX_OTHER_VERSIONS} are possible"),
            ));
        }
        let mut names = BTreeSet::from([spec.version.as_str()]);
        let mut other_versions = Vec::with_capacity(spec.other_versions.len());
        for (index, version) in spec.other_versions.iter().enumerate() {
            let at = format!("other_version[{index}]");
            if version.name.is_empty()
                || version.name.len() > 64
                || version.name.chars().any(char::is_control)
            {
                return Err(BadProfile::new(format!("{at}.name"), "must have 1 to 64 characters"));
            }
            if !names.insert(&version.name) {
                return Err(BadProfile::new(
                    format!("{at}.name"),
                    format!("{:?} is there twice", version.name),
                ));
            }
            let members = fillings(&format!("{at}.member"), &version.members, MAX_MEMBERS)?;
            if members.is_empty() {
                return Err(BadProfile::new(format!("{at}.member"), "a body of members needs at least one"));
            }
            other_versions.push((version.name.clone(), members));
        }
        let headers = fillings("header", &spec.headers, MAX_PROFILE_HEADERS)?;
        for (index, header) in spec.headers.iter().enumerate() {
            check_profile_header(&header.name)
                .map_err(|why| BadProfile::new(format!("header[{index}].name"), why.to_string()))?;
            let same = |other: &Member| other.name.eq_ignore_ascii_case(&header.name);
            if spec.headers[..index].iter().any(same) {
                let problem = format!("{:?} is there twice", header.name);
                return Err(BadProfile::new(format!("header[{index}].name"), problem));
            }
        }
        Ok(Self { retry, members, other_versions, headers, spec })
    }

    /// The profile as it is written.
    pub fn spec(&self) -> &ProfileSpec {
        &self.spec
    }

    /// What of a secret is the key.
    pub fn key_form(&self) -> KeyForm {
        self.spec.signature.key
    }

    /// The value of `Content-Type`.
    pub fn content_type(&self) -> Cow<'static, str> {
        self.spec.content_type.clone().map_or(Cow::Borrowed("application/json"), Cow::Owned)
    }

    /// Whether a webhook may ask for this version of the payload.
    pub fn has_version(&self, name: &str) -> bool {
        name == self.spec.version || self.other_versions.iter().any(|(version, _)| version == name)
    }

    /// The body, exactly. A version that the profile does not have gives its own.
    pub fn body(&self, version: Option<&str>, subject: &Subject<'_>) -> Vec<u8> {
        let data = subject.event.data.get();
        if self.spec.body == Body::Data {
            return data.trim_ascii().as_bytes().to_vec();
        }
        let other = version.and_then(|name| self.other_versions.iter().find(|(version, _)| version == name));
        let members = other.map_or(&self.members, |(_, members)| members);
        member::object(members, subject)
    }

    /// The headers with parts of the event: names in lower case, values percent-encoded as in the HTTP binding of
    /// CloudEvents (§3.1.3.2).
    pub fn headers<'a>(&'a self, subject: &'a Subject<'_>) -> impl Iterator<Item = (&'a str, String)> {
        self.headers
            .iter()
            .filter_map(move |header| Some((header.header_name(), header.header_value(subject)?)))
    }

    /// What the retry policy of a webhook is made from that gives this much of its own.
    ///
    /// A webhook that gives an exponential interval, and no schedule, does not want the profile's schedule.
    pub fn retry_spec(&self, own: &RetryRecord) -> RetrySpec {
        let mut base = self.retry.clone();
        if own.initial_ms.is_some() || own.factor.is_some() || own.max_interval_ms.is_some() {
            base.schedule_ms = None;
        }
        own.over(base)
    }

    /// The retry policy of a webhook that gives this much of its own. What does not fit together is the profile's alone.
    pub fn retry(&self, own: &RetryRecord) -> RetryPolicy {
        RetryPolicy::new(self.retry_spec(own))
            .or_else(|_| RetryPolicy::new(self.retry.clone()))
            .unwrap_or_default()
    }

    /// The deadline of a webhook that gives this one of its own, milliseconds.
    pub fn timeout_ms(&self, own: Option<u64>) -> u64 {
        own.or(self.spec.timeout_ms).unwrap_or(DEFAULT_TIMEOUT_MS)
    }
}

fn check_words(spec: &ProfileSpec) -> Result<(), BadProfile> {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if spec.name.is_empty() || spec.name.len() > 64 || !spec.name.bytes().all(legal) {
        return Err(BadProfile::new("name", "must have 1 to 64 characters of a-z, 0-9 and -"));
    }
    if spec.description.len() > MAX_DESCRIPTION_BYTES {
        return Err(BadProfile::new(
            "description",
            format!("must have at most {MAX_DESCRIPTION_BYTES} bytes"),
        ));
    }
    if spec.version.len() > 64 || spec.version.chars().any(char::is_control) {
        return Err(BadProfile::new("version", "must have at most 64 characters"));
    }
    if let Some(content_type) = &spec.content_type {
        let printable = content_type.bytes().all(|b| (b' '..=b'~').contains(&b));
        let trimmed = content_type.trim() == content_type;
        if !printable || !trimmed || content_type.len() > 128 || !content_type.contains('/') {
            return Err(BadProfile::new("content_type", "must be a media type, such as application/json"));
        }
    }
    if spec.timeout_ms.is_some_and(|timeout| !TIMEOUT_MS.contains(&timeout)) {
        let problem = format!("must be from {} to {}", TIMEOUT_MS.start(), TIMEOUT_MS.end());
        return Err(BadProfile::new("timeout_ms", problem));
    }
    if spec.disable_after_ms.is_some_and(|window| window > 0 && !health::WINDOW_MS.contains(&window)) {
        let problem = format!(
            "must be 0 or from {} to {} milliseconds",
            health::WINDOW_MS.start(),
            health::WINDOW_MS.end()
        );
        return Err(BadProfile::new("disable_after_ms", problem));
    }
    if spec.max_active_webhooks == Some(0) {
        return Err(BadProfile::new("max_active_webhooks", "must be at least 1"));
    }
    if spec.secret.rotation_interval_secs.is_some_and(|interval| interval > MAX_ROTATION_INTERVAL_SECS) {
        let problem = format!("must be at most {MAX_ROTATION_INTERVAL_SECS}");
        return Err(BadProfile::new("secret.rotation_interval_secs", problem));
    }
    Ok(())
}

fn check_signature(spec: &ProfileSpec) -> Result<(), BadProfile> {
    let signature = &spec.signature;
    match (signature.scheme, &signature.header) {
        (Scheme::BodyHex, None) => {
            return Err(BadProfile::new("signature.header", "body_hex needs the name of a header"));
        }
        (Scheme::BodyHex, Some(name)) => check_signature_header(name)
            .map_err(|why| BadProfile::new("signature.header", why.to_string()))?,
        (_, Some(_)) => {
            return Err(BadProfile::new("signature.header", "only body_hex lets you choose the header"));
        }
        (_, None) => {}
    }
    if signature.scheme == Scheme::StandardWebhooks && signature.key != KeyForm::Base64 {
        return Err(BadProfile::new("signature.key", "standard_webhooks has keys in base64"));
    }
    let one_secret = matches!(signature.scheme, Scheme::BodyHex | Scheme::Canonical | Scheme::HttpMessage);
    if one_secret && spec.secret.rotation == Rotation::Overlap {
        let problem = "must be at_once: only standard_webhooks signs with two secrets";
        return Err(BadProfile::new("secret.rotation", problem));
    }
    Ok(())
}

fn check_retry(spec: &ProfileSpec) -> Result<RetrySpec, BadProfile> {
    let retry = spec.retry.over(RetrySpec::default());
    let policy = RetryPolicy::new(retry.clone()).map_err(|why| BadProfile::new("retry", why.to_string()))?;
    if let Some(schedule) = &retry.schedule_ms {
        let used = usize::try_from(policy.max_attempts().saturating_sub(1)).unwrap_or(schedule.len());
        let sum_ms: u64 = schedule.iter().take(used).sum();
        let longest_ms = (sum_ms as f64 * (1.0 + retry.jitter)).ceil();
        if longest_ms > retry.max_age_ms as f64 {
            let problem = format!("must be at least {longest_ms}, or the schedule does not come to its end");
            return Err(BadProfile::new("retry.max_age_ms", problem));
        }
    }
    Ok(retry)
}

/// Checks members, or headers, and makes of each what fills it.
fn fillings(list: &str, members: &[Member], most: usize) -> Result<Vec<Filling>, BadProfile> {
    if members.len() > most {
        return Err(BadProfile::new(list, format!("at most {most} are possible")));
    }
    let mut names = BTreeSet::new();
    let mut fillings = Vec::with_capacity(members.len());
    for (index, member) in members.iter().enumerate() {
        let at = |what: &str| format!("{list}[{index}].{what}");
        if member.name.is_empty() || member.name.chars().count() > MAX_NAME_CHARS {
            return Err(BadProfile::new(at("name"), format!("must have 1 to {MAX_NAME_CHARS} characters")));
        }
        if !names.insert(&member.name) {
            return Err(BadProfile::new(at("name"), format!("{:?} is there twice", member.name)));
        }
        fillings.push(Filling::new(member).map_err(|(what, problem)| BadProfile::new(at(what), problem))?);
    }
    Ok(fillings)
}

#[cfg(test)]
mod tests;
