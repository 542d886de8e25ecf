//! Postrider's own events: what it says of webhooks and deliveries to webhooks that ask for it.
//!
//! They are published in the transaction of what they say, and only if somebody asks. What becomes of their own
//! deliveries causes no event: otherwise two webhooks that fail could keep each other busy for ever.

use std::sync::Arc;

use postrider_core::catalogue::{DELIVERY_DEAD, OWN, WEBHOOK_DISABLED, WEBHOOK_FAILING, own};
use postrider_core::event::OWN_ID_PREFIX;
use postrider_core::wire::WebhookRecord;
use postrider_core::{EventId, EventType, TenantId, Timestamp, WebhookId};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{Audience, Change, NewEvent, StoreError, Takes};

/// What Postrider can say.
#[derive(Clone, Copy, Debug)]
pub(crate) enum OwnEvent<'a> {
    /// Somebody made a webhook.
    WebhookCreated(&'a WebhookRecord),
    /// Somebody changed these members of a webhook.
    WebhookUpdated(&'a WebhookRecord, &'a [String]),
    /// Somebody removed a webhook. It does not hear of that itself.
    WebhookDeleted(&'a WebhookRecord),
    /// A webhook has come near to being disabled, or fails again and again. It does not hear of that itself.
    WebhookFailing(&'a WebhookRecord, &'a Failures<'a>),
    /// Postrider disabled a webhook. It does not hear of that itself.
    WebhookDisabled(&'a WebhookRecord, &'a Failures<'a>),
    /// A delivery was given up. The webhook may be gone.
    DeliveryDead(&'a TenantId, Option<&'a WebhookRecord>, &'a GivenUp<'a>),
}

/// Why a webhook is failing.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Failures<'a> {
    /// `given_up`, `window` or `gone`.
    pub rule: &'static str,
    /// How much of the rule's threshold is reached; nothing where it disables nothing.
    pub share_percent: Option<u8>,
    pub given_up_in_a_row: u32,
    /// At how many it is disabled; nothing for never.
    pub disable_after_failures: Option<u32>,
    /// Attempts since the last success.
    pub failed_attempts: u32,
    pub failing_since: Option<String>,
    /// After how long without a success it is disabled; nothing for never.
    pub disable_after_ms: Option<u64>,
    /// Why it was disabled, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    /// The newest failure.
    pub last: GivenUp<'a>,
}

/// A delivery that was given up, or of which an attempt failed.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct GivenUp<'a> {
    pub delivery: &'a str,
    pub event: &'a str,
    pub event_type: &'a str,
    pub attempts: u32,
    /// Why it was given up, in one word; empty while it is tried again.
    pub reason: &'a str,
    /// What the last attempt's outcome was, in one word; empty where there was none.
    pub class: &'a str,
    pub status: Option<i64>,
}

/// A webhook as its owner may see it in an event: without secrets, and without those parts of its URL that often hold
/// one.
#[derive(Serialize)]
struct Shown<'a> {
    id: &'a str,
    name: &'a str,
    url: String,
    profile: &'a str,
    state: &'a str,
}

impl<'a> From<&'a WebhookRecord> for Shown<'a> {
    fn from(record: &'a WebhookRecord) -> Self {
        Self {
            id: record.id.as_str(),
            name: &record.name,
            url: shown_url(&record.url),
            profile: &record.profile,
            state: &record.state,
        }
    }
}

/// A URL without user, password, query and fragment.
fn shown_url(url: &str) -> String {
    let Ok(mut url) = url::Url::parse(url) else { return String::new() };
    url.set_query(None);
    url.set_fragment(None);
    // These fail where there can be none.
    url.set_username("").ok();
    url.set_password(None).ok();
    url.to_string()
}

impl OwnEvent<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::WebhookCreated(_) => "WEBHOOK_CREATED",
            Self::WebhookUpdated(..) => "WEBHOOK_UPDATED",
            Self::WebhookDeleted(_) => "WEBHOOK_DELETED",
            Self::WebhookFailing(..) => WEBHOOK_FAILING,
            Self::WebhookDisabled(..) => WEBHOOK_DISABLED,
            Self::DeliveryDead(..) => DELIVERY_DEAD,
        }
    }

    fn tenant(&self) -> &TenantId {
        match self {
            Self::WebhookCreated(webhook)
            | Self::WebhookUpdated(webhook, _)
            | Self::WebhookDeleted(webhook)
            | Self::WebhookFailing(webhook, _)
            | Self::WebhookDisabled(webhook, _) => &webhook.tenant,
            Self::DeliveryDead(tenant, ..) => tenant,
        }
    }

    /// A webhook that does not hear of it: what cannot be delivered is not told by a delivery.
    fn except(&self) -> Option<&WebhookId> {
        match self {
            Self::WebhookFailing(webhook, _) | Self::WebhookDisabled(webhook, _) => Some(&webhook.id),
            Self::WebhookCreated(_)
            | Self::WebhookUpdated(..)
            | Self::WebhookDeleted(_)
            | Self::DeliveryDead(..) => None,
        }
    }

    /// The subject: the webhook.
    fn key(&self) -> Option<String> {
        match self {
            Self::WebhookCreated(webhook)
            | Self::WebhookUpdated(webhook, _)
            | Self::WebhookDeleted(webhook)
            | Self::WebhookFailing(webhook, _)
            | Self::WebhookDisabled(webhook, _) => Some(webhook.id.to_string()),
            Self::DeliveryDead(_, webhook, _) => webhook.map(|webhook| webhook.id.to_string()),
        }
    }

    fn data(&self) -> Result<Box<RawValue>, serde_json::Error> {
        #[derive(Serialize)]
        struct Changed<'a> {
            #[serde(flatten)]
            webhook: Shown<'a>,
            #[serde(skip_serializing_if = "Option::is_none")]
            changed: Option<&'a [String]>,
        }
        #[derive(Serialize)]
        struct About<'a, T: Serialize> {
            webhook: Option<Shown<'a>>,
            #[serde(flatten)]
            what: &'a T,
        }
        match self {
            Self::WebhookCreated(webhook) | Self::WebhookDeleted(webhook) => {
                to_raw_value(&Changed { webhook: (*webhook).into(), changed: None })
            }
            Self::WebhookUpdated(webhook, changed) => {
                to_raw_value(&Changed { webhook: (*webhook).into(), changed: Some(changed) })
            }
            Self::WebhookFailing(webhook, what) | Self::WebhookDisabled(webhook, what) => {
                to_raw_value(&About { webhook: Some((*webhook).into()), what })
            }
            Self::DeliveryDead(_, webhook, what) => {
                to_raw_value(&About { webhook: webhook.map(Shown::from), what })
            }
        }
    }
}

/// Whether an event is one of Postrider's own: nothing is said because of a delivery of it.
pub(super) fn is_own(event_id: &str) -> bool {
    event_id.starts_with(OWN_ID_PREFIX)
}

/// Whether an event is a test of a webhook: it says nothing of how the webhook does.
pub(super) fn is_test(event_id: &str) -> bool {
    event_id.strip_prefix(OWN_ID_PREFIX).is_some_and(|rest| rest.starts_with("test_"))
}

impl Change<'_> {
    /// Says something to the webhooks of the tenant that ask for it by type, group or category; nothing when none does.
    ///
    /// It is routed by what this change says, so this comes after what it is about.
    pub(crate) async fn own_event(&mut self, event: OwnEvent<'_>, now: Timestamp) -> Result<(), StoreError> {
        let tenant = event.tenant();
        let except = event.except();
        if !self.is_asked_for(tenant.as_str(), event.name(), except).await? {
            return Ok(());
        }
        let bad = |e: &dyn std::fmt::Display| StoreError::Damaged(format!("an event of our own: {e}"));
        let new = NewEvent {
            event_type: EventType::parse(event.name()).map_err(|e| bad(&e))?,
            event_time: now.to_rfc3339(),
            current_context: Arc::from(
                RawValue::from_string(r#"{"source":"postrider"}"#.to_owned()).map_err(|e| bad(&e))?,
            ),
            data: Arc::from(event.data().map_err(|e| bad(&e))?),
            id: EventId::from_trusted(format!("{OWN_ID_PREFIX}{}", uuid::Uuid::now_v7().simple())),
            key: event.key(),
            correlation_id: None,
        };
        self.publish_event(tenant, &new, except.map_or(Audience::All, Audience::Except), now).await
    }

    /// Whether a webhook of the tenant other than `except` takes this type by other means than taking everything.
    pub(super) async fn is_asked_for(
        &mut self,
        tenant: &str,
        name: &str,
        except: Option<&WebhookId>,
    ) -> Result<bool, StoreError> {
        let takes = match self.event_type(tenant, name).await? {
            // Also where it is an alias: the router takes it for that type.
            Some(row) => Takes {
                spellings: row.spellings(),
                group: row.entry.group,
                category: Some(row.entry.category),
                all: false,
            },
            None => {
                let own = own().event_types.iter().any(|entry| entry.name.as_str() == name);
                Takes {
                    spellings: vec![name.to_owned()],
                    group: None,
                    category: own.then(|| OWN.to_owned()),
                    all: false,
                }
            }
        };
        Ok(self.count_takers_besides(tenant, &takes, except.map_or("", WebhookId::as_str)).await? > 0)
    }
}

#[cfg(test)]
mod tests;
