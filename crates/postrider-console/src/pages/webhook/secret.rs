//! Showing a signing secret: in the answer to the form that asked for it, and nowhere else. It is in no address and no cookie.

use askama::Template;
use axum::extract::Path;
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::snippets::{self, Snippet};
use super::{Webhook, read};
use crate::api::segment;
use crate::fields::Fields;
use crate::page::{Answer, Part, Sent, Shell, Visit, page_with};
use crate::pages::webhook_form::{catalogues, profile_of};
use crate::words::{Html, when_if};

/// Why a secret is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// The webhook was made.
    Created,
    /// The secret was rotated.
    Rotated,
    /// The webhook got a profile that cannot use the secret that it had.
    Remade,
    /// Somebody asked for it.
    Revealed,
}

impl Told {
    fn heading(self) -> &'static str {
        match self {
            Self::Created => "Webhook created",
            Self::Rotated | Self::Remade => "New signing secret",
            Self::Revealed => "Signing secret",
        }
    }

    fn status(self) -> StatusCode {
        if self == Self::Created { StatusCode::CREATED } else { StatusCode::OK }
    }
}

#[derive(Template)]
#[template(path = "webhook_secret.html")]
struct SecretPage {
    shell: Shell,
    heading: &'static str,
    created: bool,
    webhook: Webhook,
    /// Until when the secret before signs as well; empty if it does not.
    until: Html,
    snippets: &'static [Snippet],
}

/// Shows the secret that is in this answer of the API, and how to verify with it.
pub(crate) async fn show_secret(visit: &Visit, webhook: Webhook, told: Told) -> Answer {
    // Without the catalogues there are no lines to copy; the secret is shown all the same, since there is no other time.
    let catalogues = catalogues(visit).await.unwrap_or_default();
    let profile = profile_of(&catalogues, &webhook.profile);
    let mut shell = visit.shell(Part::Webhooks, told.heading());
    shell.live = false;
    let until = webhook.previous_secret_until.as_deref();
    let page = SecretPage {
        heading: told.heading(),
        created: told == Told::Created,
        until: if until.is_some() { when_if(until, visit.now) } else { Html::default() },
        snippets: snippets::of(profile.as_ref()),
        shell,
        webhook,
    };
    page_with(told.status(), &page)
}

/// Gives the webhook another secret, and shows it.
pub(super) async fn rotate(Path(id): Path<String>, Sent { visit, fields }: Sent) -> Response {
    let made = rotated(&visit, &id, &fields).await;
    visit.or_refused(Part::Webhooks, made)
}

async fn rotated(visit: &Visit, id: &str, fields: &Fields) -> Answer {
    let path = format!("/v1/webhooks/{}/rotate-secret", segment(id));
    let body = rotation_of(fields.get("overlap"));
    match visit.api.make_once::<Webhook>(&path, &body, fields).await {
        Ok(webhook) => show_secret(visit, webhook, Told::Rotated).await,
        Err(refused) => visit.not_done(&settings(id), &refused),
    }
}

/// The body of a rotation: nothing is said of the overlap where the profile decides.
fn rotation_of(overlap: &str) -> Value {
    overlap.parse::<u32>().map_or_else(|_| json!({}), |seconds| json!({ "overlap_seconds": seconds }))
}

#[derive(Deserialize)]
struct Secret {
    secret: String,
}

/// Shows the secret again, where the profile allows that. Who saw it is in the audit log.
pub(super) async fn reveal(Path(id): Path<String>, Sent { visit, .. }: Sent) -> Response {
    let made = revealed(&visit, &id).await;
    visit.or_refused(Part::Webhooks, made)
}

async fn revealed(visit: &Visit, id: &str) -> Answer {
    let mut webhook = read(visit, id).await?;
    match visit.api.get::<Secret>(&format!("/v1/webhooks/{}/secret", segment(id)), &[]).await {
        Ok(found) => {
            webhook.secret = Some(found.secret);
            show_secret(visit, webhook, Told::Revealed).await
        }
        Err(refused) => visit.not_done(&settings(id), &refused),
    }
}

fn settings(id: &str) -> String {
    format!("/webhooks/{}?tab=settings", segment(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_says_no_more_than_was_chosen() {
        assert_eq!(rotation_of(""), json!({}));
        assert_eq!(rotation_of("profile"), json!({}));
        assert_eq!(rotation_of("3600"), json!({"overlap_seconds": 3600}));
        assert_eq!(rotation_of("0"), json!({"overlap_seconds": 0}));
    }
}
