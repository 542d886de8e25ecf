//! Signing secrets: their forms, their rotation, and showing them where the profile allows it.

use std::sync::Arc;

use axum::extract::{Path, State};
use bytes::Bytes;
use postrider_core::profile::{KeyForm, Profile, Rotation, Scheme, Shown};
use postrider_core::signature::{SigningKey, new_secret};
use postrider_core::webhook::SecretKind;
use postrider_core::wire::SecretRecord;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::shape::Webhook;
use super::{Profiles, find, look_up, profile_of};
use crate::api::Api;
use crate::api::answer::{Answer, shown};
use crate::api::audit::{Changes, Subject};
use crate::api::body;
use crate::api::idempotency::Once;
use crate::api::problem::{Code, Problem, ProblemBody};
use crate::api::scope::Scope;
use crate::store::OwnEvent;

/// The longest time for which an old secret signs as well, seconds.
const MAX_OVERLAP_SECS: u32 = 7 * 24 * 3600;
/// How long it does when nothing is said, seconds.
const DEFAULT_OVERLAP_SECS: u32 = 24 * 3600;
/// The most secrets that sign at the same time.
const MAX_SECRETS: usize = 10;

/// What `secret_hint` shows of a secret.
pub(super) fn hint_of(secret: &str) -> String {
    let prefix =
        ["whsk_", "whsec_"].into_iter().find(|prefix| secret.starts_with(prefix)).unwrap_or_default();
    let last: String = secret.chars().skip(secret.chars().count().saturating_sub(4)).collect();
    format!("{prefix}…{last}")
}

/// Whether a profile of this form signs with a secret that was made for another.
pub(super) fn fits(secret: &str, form: KeyForm) -> bool {
    // A private key is no shared secret: the receiver does not have it.
    let private = secret.starts_with("whsk_") && form != KeyForm::Base64;
    !private && SigningKey::of_secret(secret, form).is_ok()
}

/// A secret that somebody gives, as it is kept: with the prefix of its form.
pub(super) fn as_kept(given: String, form: KeyForm) -> Result<String, Problem> {
    SigningKey::of_secret(&given, form).map_err(|e| Problem::body("secret", e.to_string()))?;
    Ok(match form {
        KeyForm::Base64 if !given.starts_with("whsec_") && !given.starts_with("whsk_") => {
            format!("whsec_{given}")
        }
        KeyForm::TextAfterPrefix if !given.starts_with("whsec_") => format!("whsec_{given}"),
        _ => given,
    })
}

/// How to rotate a secret.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct NewSecret {
    /// The new secret, in the form that the profile wants; made here by default.
    secret: Option<String>,
    /// For how long the secret before signs as well, from 0 (not at all) to 604800 seconds. 86400 by default where the
    /// profile allows an overlap, else 0.
    overlap_seconds: Option<u32>,
}

/// Gives a webhook another signing secret.
///
/// The answer holds the new secret, once. With an overlap, requests are signed with both until it is over; every older
/// secret ends then at the latest.
#[utoipa::path(post, path = "/v1/webhooks/{id}/rotate-secret", tag = "webhooks", operation_id = "rotate_secret",
    params(("id" = String, Path, description = "The webhook"), ("tenant" = Option<String>, Query, description = "Whose; `default` by default")),
    request_body = Option<NewSecret>,
    responses((status = 200, body = Webhook), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn rotate_secret(
    State(api): State<Arc<Api>>,
    scope: Scope,
    once: Once,
    Path(id): Path<String>,
    given: Bytes,
) -> Result<Answer, Problem> {
    let asked = if given.is_empty() { NewSecret::default() } else { body::read::<NewSecret>(&given)? };
    let now = postrider_broker::now();
    let mut change = api.store.change().await?;
    let row = find(&mut change, &scope, &id).await?;
    let mut record = row.record;
    let Some(profile) = profile_of(&mut change, record.tenant.as_str(), &record.profile).await? else {
        return Err(no_profile(&record.profile));
    };
    let overlap_secs = overlap(&profile, asked.overlap_seconds)?;
    if let (Some(interval), Some(last)) = (profile.spec().secret.rotation_interval_secs, row.rotated_at) {
        let next = last.plus_ms(u64::from(interval) * 1000);
        if next > now {
            let detail =
                format!("the secret was rotated at {last}; the profile allows the next rotation at {next}");
            let problem = Problem::new(Code::TooSoon, detail, "Wait until then.");
            return Err(problem.retry_after(next.since_ms(now).div_ceil(1000)).with("next_at", shown(next)));
        }
    }
    let form = profile.key_form();
    let secret = match asked.secret {
        Some(given) => as_kept(given, form)?,
        None => new_secret(form, &rand::random()).to_string(),
    };
    let until = now.plus_ms(u64::from(overlap_secs) * 1000);
    let mut secrets = vec![SecretRecord::current(api.seal(&record, SecretKind::Signing, &secret)?)];
    for old in std::mem::take(&mut record.secrets) {
        if api.open(&record, SecretKind::Signing, &old.value)? == secret {
            return Err(Problem::body("secret", "the webhook has this secret already; choose another"));
        }
        let ends = old.until.map_or(until, |ends| ends.min(until));
        if ends > now {
            secrets.push(SecretRecord { value: old.value, until: Some(ends) });
        }
    }
    if secrets.len() > MAX_SECRETS {
        let detail = format!("{} secrets before it still sign", secrets.len() - 1);
        let hint = "Wait until one of them ends, or rotate with overlap_seconds 0, which ends them all.";
        return Err(Problem::new(Code::SecretRules, detail, hint));
    }
    record.secrets = secrets;
    let version = record.secret_version;
    record.secret_version = version.saturating_add(1);
    change.put_webhook(&record, &hint_of(&secret), now).await?;
    change.note_rotation(&id, now).await?;
    change.own_event(OwnEvent::WebhookUpdated(&record, &["secret".to_owned()]), now).await?;
    let changes = Changes::none()
        .turned("secret_version", version, record.secret_version)
        .with("overlap_seconds", overlap_secs);
    change.note(&scope.entry(Some(&record.tenant), Subject::Webhook, &id, changes), now).await?;
    let row = find(&mut change, &scope, &id).await?;
    let mut webhook = api.shown(row, Some(&profile))?;
    webhook.public_key = SigningKey::of_secret(&secret, form).ok().and_then(|key| key.public_key());
    webhook.secret = Some(secret);
    let answer = Answer::ok(&webhook)?;
    once.keep(&api, &mut change, &answer).await?;
    change.commit().await?;
    Ok(answer)
}

/// For how long the old secret signs as well, seconds.
fn overlap(profile: &Profile, asked: Option<u32>) -> Result<u32, Problem> {
    let spec = profile.spec();
    let refused = if spec.secret.rotation == Rotation::AtOnce {
        Some("wants the old secret to end at once")
    } else if spec.signature.scheme != Scheme::StandardWebhooks {
        Some("puts one signature on a request, so the old secret cannot sign as well")
    } else {
        None
    };
    match (asked, refused) {
        (None, None) => Ok(DEFAULT_OVERLAP_SECS),
        (None | Some(0), Some(_)) => Ok(0),
        (Some(_), Some(why)) => {
            let detail = format!("the profile {} {why}; leave overlap_seconds out", spec.name);
            Err(Problem::body("overlap_seconds", detail))
        }
        (Some(seconds), None) if seconds <= MAX_OVERLAP_SECS => Ok(seconds),
        (Some(_), None) => {
            let detail = format!("overlap_seconds must be from 0 to {MAX_OVERLAP_SECS}");
            Err(Problem::body("overlap_seconds", detail))
        }
    }
}

/// A signing secret.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct Secret {
    secret: String,
    /// 1, and one more with each rotation.
    secret_version: u32,
}

/// The signing secret, if the webhook's profile shows it again; most show it once. Who saw it is in the audit log.
#[utoipa::path(get, path = "/v1/webhooks/{id}/secret", tag = "webhooks", operation_id = "get_secret",
    params(("id" = String, Path, description = "The webhook"), ("tenant" = Option<String>, Query, description = "Whose; `default` by default")),
    responses((status = 200, body = Secret), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn get_secret(
    State(api): State<Arc<Api>>,
    scope: Scope,
    Path(id): Path<String>,
) -> Result<Answer, Problem> {
    let tenant = scope.tenant();
    let row = look_up(&api, &scope, &id).await?;
    let record = row.record;
    let Some(profile) = Profiles::of(&api.store, tenant).get(&record.profile).await? else {
        return Err(no_profile(&record.profile));
    };
    if profile.spec().secret.shown != Shown::Always {
        let detail = format!("the profile {} shows a secret once, when it is made", record.profile);
        let hint = "POST /v1/webhooks/{id}/rotate-secret makes another and shows it.";
        return Err(Problem::new(Code::SecretRules, detail, hint));
    }
    let Some(current) = record.secrets.first() else { return Err(Problem::not_found("secret")) };
    let secret = api.open(&record, SecretKind::Signing, &current.value)?;
    let mut change = api.store.change().await?;
    let entry = scope.entry(Some(&record.tenant), Subject::Webhook, &id, Changes::none());
    change.note(&entry, postrider_broker::now()).await?;
    change.commit().await?;
    Answer::ok(&Secret { secret, secret_version: record.secret_version })
}

fn no_profile(name: &str) -> Problem {
    let detail = format!("the profile {name:?} of the webhook is in no catalogue of the tenant");
    Problem::new(Code::SecretRules, detail, "Import its catalogue, or give the webhook another profile.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_show_four_characters() {
        assert_eq!(hint_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), "whsec_…LaSw");
        assert_eq!(hint_of("whsk_AAAABBBB"), "whsk_…BBBB");
        assert_eq!(hint_of("a-text-of-the-owner"), "…wner");
    }

    #[test]
    fn secrets_are_kept_with_their_prefix_and_fit_where_they_can_sign() {
        let base64 = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let prefixed = format!("whsec_{base64}");
        assert_eq!(as_kept(base64.to_owned(), KeyForm::Base64).unwrap(), prefixed);
        assert_eq!(as_kept(base64.to_owned(), KeyForm::TextAfterPrefix).unwrap(), prefixed);
        assert_eq!(as_kept(base64.to_owned(), KeyForm::Text).unwrap(), base64);
        assert!(as_kept("short".to_owned(), KeyForm::Text).is_err());
        assert!(as_kept("not base64, but long enough".to_owned(), KeyForm::Base64).is_err());
        for form in [KeyForm::Base64, KeyForm::Text, KeyForm::TextAfterPrefix] {
            assert!(fits(&prefixed, form), "{form:?}");
            assert_eq!(
                fits(&format!("whsk_{}=", "A".repeat(42) + "B"), form),
                form == KeyForm::Base64,
                "{form:?}"
            );
            assert!(!fits("plain text with-words", form), "{form:?}");
        }
        assert!(fits("sixteen-letters!", KeyForm::Text) && !fits("sixteen-letters!", KeyForm::Base64));
    }
}
