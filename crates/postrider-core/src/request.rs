//! The request of one attempt: body, headers, URL.
//!
//! Pure, so that the body is the same on every attempt and the signature covers the exact bytes that are sent.

use url::Url;

use crate::catalogue::TypeEntry;
use crate::event::Event;
use crate::id::DeliveryId;
use crate::profile::{Profile, Subject};
use crate::signature::{self, CannotSign, Signable};
use crate::time::Timestamp;
use crate::webhook::{Credentials, KeyPlace, Webhook};

/// The value of `User-Agent`.
pub const USER_AGENT: &str = concat!("postrider/", env!("CARGO_PKG_VERSION"));

/// A request, ready to be sent by POST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Where to; with the API key in it if it goes there.
    pub url: Url,
    /// Header names in lower case, in the order in which they are sent.
    pub headers: Vec<(String, String)>,
    /// The exact bytes that were signed.
    pub body: Vec<u8>,
}

/// One attempt: everything that its request is made of.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// Where it goes.
    pub webhook: &'a Webhook,
    /// How the webhook is spoken to.
    pub profile: &'a Profile,
    /// What the catalogue says of the event's type.
    pub entry: Option<&'a TypeEntry>,
    /// The webhook's secrets.
    pub credentials: &'a Credentials,
    /// A token that was fetched for it, where the webhook authenticates by OAuth 2.0.
    pub bearer: Option<&'a str>,
    /// What happened.
    pub event: &'a Event,
    /// The delivery's id.
    pub delivery: &'a DeliveryId,
    /// Which attempt of its series; the first is 1.
    pub number: u32,
    /// Whether somebody only tries the webhook.
    pub test: bool,
    /// When it begins.
    pub at: Timestamp,
}

/// The largest body, bytes.
pub const MAX_BODY_BYTES: usize = 2 * 1024 * 1024;

/// Why there is no request to send. All of them are for the owner of the webhook, or of its profile, to mend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotMake {
    /// The profile signs and there is no secret for it.
    #[error("the webhook has no secret that its profile can sign with; rotate its secret")]
    NoSecret,
    /// The secret is of another kind than the profile signs with.
    #[error("the profile signs with a shared secret and the webhook has a whsk_ key; rotate its secret")]
    NotShared,
    /// The profile repeats what is large.
    #[error(
        "the body would have more than {MAX_BODY_BYTES} bytes; the profile takes the same data too often"
    )]
    TooLarge,
}

/// Makes the request of an attempt.
///
/// Headers come in this order, and of one name only the first: ours, the signature's, the profile's, `Authorization`,
/// the API key, the webhook's static ones. So nothing that an owner writes down can replace what is ours.
///
/// # Errors
/// [`CannotMake`] when the webhook and its profile do not go together.
pub fn build(attempt: &Attempt<'_>) -> Result<Request, CannotMake> {
    let Attempt { webhook, profile, credentials, event, delivery, at, .. } = *attempt;
    let subject = Subject { event, entry: attempt.entry, delivery, webhook: &webhook.id };
    let body = profile.body(webhook.payload_version.as_deref(), &subject);
    if body.len() > MAX_BODY_BYTES {
        return Err(CannotMake::TooLarge);
    }
    let mut url = webhook.url.clone();
    url.set_fragment(None);
    if let Some((KeyPlace::Query, name, value)) = &credentials.api_key {
        url.query_pairs_mut().append_pair(name, value);
    }

    let mut headers = Headers(Vec::with_capacity(16));
    headers.add("content-type", profile.content_type().to_owned());
    headers.add("user-agent", USER_AGENT.to_owned());
    headers.add("webhook-id", delivery.message_id());
    headers.add("webhook-timestamp", at.as_secs().to_string());
    headers.add("webhook-attempt", attempt.number.to_string());
    headers.add("webhook-event-id", event.id.to_string());
    if attempt.test {
        headers.add("webhook-test", "true".to_owned());
    }
    if webhook.signed {
        let request = Signable { webhook: &webhook.id, delivery, url: &url, body: &body, at };
        let signed = signature::headers(&profile.spec().signature, credentials, request);
        for (name, value) in signed.map_err(|why| match why {
            CannotSign::NoSecret => CannotMake::NoSecret,
            CannotSign::NotShared => CannotMake::NotShared,
        })? {
            headers.add(&name, value);
        }
    }
    if let Some(traceparent) = &event.traceparent {
        headers.add("traceparent", traceparent.to_string());
    }
    for (name, value) in profile.headers(&subject) {
        headers.add(name, value);
    }
    if let Some(value) = credentials.auth.as_ref().and_then(|auth| auth.authorization(attempt.bearer)) {
        headers.add("authorization", value.to_string());
    }
    if let Some((KeyPlace::Header, name, value)) = &credentials.api_key {
        headers.add(name, value.to_string());
    }
    for (name, value) in &credentials.headers {
        headers.add(name, value.to_string());
    }
    Ok(Request { url, headers: headers.0, body })
}

/// Headers, each name once.
struct Headers(Vec<(String, String)>);

impl Headers {
    fn add(&mut self, name: &str, value: String) {
        if !self.0.iter().any(|(there, _)| there.eq_ignore_ascii_case(name)) {
            self.0.push((name.to_ascii_lowercase(), value));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::value::RawValue;
    use zeroize::Zeroizing;

    use super::*;
    use crate::EventType;
    use crate::id::{EventId, TenantId, WebhookId};
    use crate::signature::SigningKey;
    use crate::subscription::Subscription;
    use crate::webhook::{SealedCredentials, WebhookState};
    use crate::wire::RetryRecord;

    #[test]
    fn the_default_request() {
        let raw = |text: &str| Arc::<RawValue>::from(RawValue::from_string(text.into()).unwrap());
        let event = Event {
            tenant: TenantId::default_tenant(),
            id: EventId::from_trusted("evt_1"),
            event_type: EventType::parse("Client added \"two\" factor auth").unwrap(),
            event_time: "2026-11-21T20:00:00Z".into(),
            current_context: raw("{ \"b\" : 1.0, \"a\": \"\\u00fc\" }"),
            data: raw("null"),
            key: None,
            correlation_id: None,
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
            accepted_at: Timestamp::default(),
        };
        let webhook = Webhook {
            id: WebhookId::from_trusted("wh_1"),
            tenant: event.tenant.clone(),
            name: "n".into(),
            url: Url::parse("https://example.com/hooks?a=1").unwrap(),
            profile: "postrider".into(),
            payload_version: None,
            signed: true,
            subscription: Subscription::all(),
            state: WebhookState::Active,
            active_from: None,
            expires_at: None,
            retry: RetryRecord::default(),
            timeout_ms: None,
            max_in_flight: 10,
            rate_per_second: None,
            sealed: SealedCredentials::default(),
            revision: 1,
        };
        let credentials = Credentials {
            keys: vec![(SigningKey::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap(), None)],
            version: 1,
            auth: None,
            tls: None,
            api_key: Some((KeyPlace::Query, "key".into(), Zeroizing::new("a&b".into()))),
            headers: vec![("x-shop".into(), Zeroizing::new("7".into()))],
        };
        let delivery = DeliveryId::of(&event.tenant, &event.id, &webhook.id);
        let at = Timestamp::from_millis(1_614_265_330_999);
        let request = build(&Attempt {
            webhook: &webhook,
            profile: &Profile::built_in("postrider").unwrap(),
            entry: None,
            credentials: &credentials,
            bearer: None,
            event: &event,
            delivery: &delivery,
            number: 3,
            test: false,
            at,
        })
        .unwrap();
        assert_eq!(
            String::from_utf8(request.body.clone()).unwrap(),
            r#"{"event_time":"2026-11-21T20:00:00Z","event_type":"Client added \"two\" factor auth","current_context":{ "b" : 1.0, "a": "\u00fc" },"data":null}"#
        );
        assert_eq!(request.url.as_str(), "https://example.com/hooks?a=1&key=a%26b");
        let header = |name: &str| {
            let found: Vec<_> = request.headers.iter().filter(|(n, _)| n == name).collect();
            assert_eq!(found.len(), 1, "{name}");
            found[0].1.clone()
        };
        assert_eq!(header("webhook-id"), delivery.message_id());
        assert_eq!(header("webhook-timestamp"), "1614265330");
        assert_eq!(header("webhook-attempt"), "3");
        assert_eq!(header("x-shop"), "7");
        assert_eq!(header("traceparent"), event.traceparent.clone().unwrap().to_string());
        assert!(credentials.keys[0].0.verifies(
            &header("webhook-signature"),
            &header("webhook-id"),
            at,
            &request.body
        ));
    }
}
