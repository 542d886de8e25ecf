//! How a webhook is spoken to: body, signature, success, retries.
//!
//! A profile is data over closed sets: [`Body`], [`Source`], [`Scheme`], [`Success`], [`Retried`]. Four come with the
//! program; products bring theirs in their catalogue. `docs/profiles.md` has a table of all of them.

use serde::{Deserialize, Serialize};

use crate::outcome::{Retried, Success};
use crate::retry::{RetryPolicy, RetrySpec};
use crate::wire::RetryRecord;

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
    /// The most active webhooks of this profile in one tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_active_webhooks: Option<u32>,
    /// Whether `http:` URLs are refused.
    #[serde(default)]
    pub https_only: bool,
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
/// `path` is tried first; where it leads nowhere the other source counts. No source at all gives null, or nothing if
/// the member is `optional`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// A JSON pointer into the event (`/data/client`, `/current_context/actor`, `/key`), taken byte for byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
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
    #[serde(default)]
    pub optional: bool,
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

/// The names of the profiles that come with the program.
pub const BUILT_IN: [&str; 4] = ["postrider", "standard", "cloudevents", "cloudevents-binary"];

impl Profile {
    /// Checks a profile.
    ///
    /// # Errors
    /// [`BadProfile`] with the first member that is wrong.
    pub fn new(spec: ProfileSpec) -> Result<Self, BadProfile> {
        Ok(Self { spec })
    }

    /// One of the profiles that come with the program; `None` for any other name.
    pub fn built_in(name: &str) -> Option<Self> {
        BUILT_IN
            .contains(&name)
            .then(|| Self { spec: ProfileSpec { name: name.to_owned(), ..ProfileSpec::default() } })
    }

    /// The profile of webhooks that name none.
    pub fn default_profile() -> Self {
        Self::built_in(BUILT_IN[0]).unwrap_or_else(|| Self { spec: ProfileSpec::default() })
    }

    /// The profile as it is written.
    pub fn spec(&self) -> &ProfileSpec {
        &self.spec
    }

    /// What of a secret is the key.
    pub fn key_form(&self) -> KeyForm {
        self.spec.signature.key
    }

    /// The retry policy of a webhook that gives this much of its own. What does not fit together is the profile's alone.
    pub fn retry(&self, own: &RetryRecord) -> RetryPolicy {
        let profile = self.spec.retry.over(RetrySpec::default());
        RetryPolicy::new(own.over(profile.clone())).or_else(|_| RetryPolicy::new(profile)).unwrap_or_default()
    }

    /// The deadline of a webhook that gives this one of its own, milliseconds.
    pub fn timeout_ms(&self, own: Option<u64>) -> u64 {
        own.or(self.spec.timeout_ms).unwrap_or(DEFAULT_TIMEOUT_MS)
    }
}
