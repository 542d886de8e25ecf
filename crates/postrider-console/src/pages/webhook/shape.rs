//! A webhook, as the API shows it.

use std::collections::{BTreeMap, BTreeSet};

use postrider_core::wire::RetryRecord;
use serde::Deserialize;

use crate::words::{Html, counted, state, webhook_state};

/// What the API shows in place of a secret.
pub(crate) const MASK: &str = "********";
/// How many names are told in a title.
const TOLD: usize = 40;

/// A webhook. Nothing here is printed: the answer that makes one has its secret.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Webhook {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) profile: String,
    pub(crate) payload_version: Option<String>,
    pub(crate) signed: bool,
    pub(crate) subscription: Subscription,
    pub(crate) api_key: Option<ApiKey>,
    pub(crate) auth: Option<Auth>,
    pub(crate) tls: Option<Tls>,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) retry: Option<RetryRecord>,
    pub(crate) timeout_ms: u64,
    pub(crate) disable_after_failures: Option<u32>,
    pub(crate) disable_after_ms: Option<u64>,
    pub(crate) effective: Option<Effective>,
    pub(crate) max_in_flight: u32,
    pub(crate) rate_per_second: Option<u32>,
    pub(crate) active_from: Option<String>,
    pub(crate) expires_at: Option<String>,
    pub(crate) state: String,
    pub(crate) disabled_reason: Option<String>,
    pub(crate) disabled_at: Option<String>,
    pub(crate) skipped_while_disabled: Option<Skipped>,
    pub(crate) health: Option<Health>,
    pub(crate) secret_hint: String,
    pub(crate) secret_version: u32,
    pub(crate) secret_rotated_at: Option<String>,
    pub(crate) previous_secret_until: Option<String>,
    pub(crate) created_at: String,
    pub(crate) updated_at: String,
    pub(crate) warnings: Vec<String>,
    pub(crate) secret: Option<String>,
    pub(crate) public_key: Option<String>,
}

/// Which events it takes.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Subscription {
    pub(crate) event_types: BTreeSet<String>,
    pub(crate) groups: BTreeSet<String>,
    pub(crate) categories: BTreeSet<String>,
    pub(crate) all: bool,
    pub(crate) filter: Option<String>,
    /// Which types that means today; the list of webhooks does not say it.
    pub(crate) means_today: Option<Vec<String>>,
}

/// The key that the receiver wants to see; its value is never shown.
#[derive(Debug, Deserialize)]
pub(crate) struct ApiKey {
    #[serde(rename = "in")]
    pub(crate) place: String,
    pub(crate) name: String,
}

/// What `Authorization` says: one of the three, with masked secrets.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Auth {
    pub(crate) basic: Option<Basic>,
    pub(crate) bearer: Option<Bearer>,
    pub(crate) oauth2: Option<Oauth2>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Basic {
    pub(crate) username: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Bearer {}

#[derive(Debug, Deserialize)]
pub(crate) struct Oauth2 {
    pub(crate) token_url: String,
    pub(crate) client_id: String,
    #[serde(default)]
    pub(crate) scope: Option<String>,
    #[serde(default)]
    pub(crate) audience: Option<String>,
    #[serde(default)]
    pub(crate) in_body: bool,
}

/// What its connections are made with; the key is masked.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Tls {
    pub(crate) certificate_pem: Option<String>,
    pub(crate) key_pem: Option<String>,
    pub(crate) ca_pem: Option<String>,
}

/// What applies, its own and its profile's taken together.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Effective {
    pub(crate) retry: RetryRecord,
    pub(crate) disable_after_failures: u32,
    pub(crate) disable_after_ms: u64,
    pub(crate) payload_version: Option<String>,
}

/// What it missed while it was disabled.
#[derive(Debug, Deserialize)]
pub(crate) struct Skipped {
    pub(crate) deliveries: u64,
}

/// How deliveries went of late.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Health {
    pub(crate) given_up_in_a_row: u32,
    pub(crate) failed_attempts: u32,
    pub(crate) failing_since: Option<String>,
    pub(crate) last_success_at: Option<String>,
    pub(crate) disabled_by_failure_from: Option<String>,
}

impl Webhook {
    /// Its state with a mark.
    pub(crate) fn mark(&self) -> Html {
        let failing = self.health.as_ref().is_some_and(|health| health.failing_since.is_some());
        webhook_state(&self.state, failing)
    }

    /// Why it is disabled, in words; empty if it is not.
    pub(crate) fn why_disabled(&self) -> &str {
        match self.disabled_reason.as_deref() {
            Some("request") => "by request",
            Some(reason) => reason,
            None => "",
        }
    }

    /// The host and path of its URL: a query may hold a token.
    pub(crate) fn short_url(&self) -> &str {
        let behind = self.url.split_once("://").map_or(self.url.as_str(), |(_, rest)| rest);
        behind.split(['?', '#']).next().unwrap_or(behind)
    }

    /// Whether its requests can be read on the way.
    pub(crate) fn is_open(&self) -> bool {
        self.url.starts_with("http:")
    }
}

impl Subscription {
    /// What it takes, in a few words.
    pub(crate) fn summary(&self) -> Html {
        if self.all {
            return state("all", "All types");
        }
        Html(self.counts().join(", "))
    }

    fn counts(&self) -> Vec<String> {
        let parts = [
            (self.event_types.len(), "type", "types"),
            (self.groups.len(), "group", "groups"),
            (self.categories.len(), "category", "categories"),
        ];
        let given = parts.into_iter().filter(|(n, ..)| *n > 0);
        given.map(|(n, one, more)| counted(n as u64, one, more)).collect()
    }

    /// What it takes, by name: for a title.
    pub(crate) fn names(&self) -> String {
        if self.all {
            return "Every event type, also those that do not exist yet".to_owned();
        }
        let all: Vec<&str> =
            self.event_types.iter().chain(&self.groups).chain(&self.categories).map(String::as_str).collect();
        let mut text = all.iter().take(TOLD).copied().collect::<Vec<_>>().join(", ");
        if all.len() > TOLD {
            text.push_str(&format!(" and {} more", all.len() - TOLD));
        }
        text
    }
}

impl Auth {
    /// Which of the three it is.
    pub(crate) fn kind(&self) -> &'static str {
        match (&self.basic, &self.bearer, &self.oauth2) {
            (Some(_), ..) => "basic",
            (_, Some(_), _) => "bearer",
            (.., Some(_)) => "oauth2",
            _ => "none",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn webhook(json: serde_json::Value) -> Webhook {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn everything_is_a_warning_and_the_rest_is_counted() {
        let all = Subscription { all: true, ..Subscription::default() };
        assert_eq!(all.summary().0, "<span class=\"state all\">All types</span>");
        let some =
            webhook(serde_json::json!({"subscription": {"event_types": ["A", "B"], "categories": ["c"]}}));
        assert_eq!(some.subscription.summary().0, "2 types, 1 category");
        assert_eq!(some.subscription.names(), "A, B, c");
        let many = Subscription {
            event_types: (0..50).map(|n| format!("T{n:02}")).collect(),
            ..Subscription::default()
        };
        assert!(many.names().ends_with("T39 and 10 more"));
    }

    #[test]
    fn a_url_is_shown_without_its_query() {
        let short = |url: &str| webhook(serde_json::json!({ "url": url })).short_url().to_owned();
        assert_eq!(short("https://example.com/hooks?token=secret"), "example.com/hooks");
        assert_eq!(short("http://example.com:81/#x"), "example.com:81/");
    }

    #[test]
    fn secrets_and_what_is_missing_are_read() {
        let it =
            webhook(serde_json::json!({"id": "wh_1", "auth": {"bearer": {"token": MASK}}, "signed": true,
            "api_key": {"in": "query", "name": "key"}, "health": {"failing_since": "2026-11-22T20:00:00Z"},
            "state": "active", "disabled_reason": null}));
        assert_eq!(it.auth.as_ref().unwrap().kind(), "bearer");
        assert!(it.mark().0.contains("Failing"));
        assert_eq!(it.why_disabled(), "");
    }
}
