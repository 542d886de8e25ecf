//! The request of one attempt: body, headers, URL.
//!
//! Pure, so that the body is the same on every attempt and the signature covers the exact bytes that are sent.

use std::borrow::Cow;

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

/// A request, ready to be sent by POST. Its URL and headers hold secrets, so it shows little of itself in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// Where to; with the API key in it if it goes there.
    pub url: Url,
    /// Header names in lower case, in the order in which they are sent.
    pub headers: Vec<Header>,
    /// The exact bytes that were signed.
    pub body: Vec<u8>,
}

/// A header's name, in lower case, and its value. What is always the same is borrowed.
pub type Header = (Cow<'static, str>, Cow<'static, str>);

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let host = self.url.host_str().unwrap_or_default();
        write!(f, "Request({host}, {} headers, {} bytes)", self.headers.len(), self.body.len())
    }
}

/// One attempt: everything that its request is made of.
#[derive(Clone, Copy)]
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

impl std::fmt::Debug for Attempt<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Attempt({} of {})", self.number, self.delivery)
    }
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
    headers.add("content-type", profile.content_type());
    headers.add("user-agent", USER_AGENT);
    headers.add("webhook-id", delivery.message_id());
    headers.add("webhook-timestamp", at.as_secs().to_string());
    headers.add(
        "webhook-attempt",
        match attempt.number {
            1 => Cow::Borrowed("1"),
            number => number.to_string().into(),
        },
    );
    headers.add("webhook-event-id", event.id.to_string());
    if attempt.test {
        headers.add("webhook-test", "true");
    }
    if webhook.signed {
        let request = Signable { webhook: &webhook.id, delivery, url: &url, body: &body, at };
        let signed = signature::headers(&profile.spec().signature, credentials, request);
        for (name, value) in signed.map_err(|why| match why {
            CannotSign::NoSecret => CannotMake::NoSecret,
            CannotSign::NotShared => CannotMake::NotShared,
        })? {
            headers.add(name, value);
        }
    }
    if let Some(traceparent) = &event.traceparent {
        headers.add("traceparent", traceparent.to_string());
    }
    for (name, value) in profile.headers(&subject) {
        headers.add(name.to_ascii_lowercase(), value);
    }
    if let Some(value) = credentials.auth.as_ref().and_then(|auth| auth.authorization(attempt.bearer)) {
        headers.add("authorization", value.to_string());
    }
    if let Some((KeyPlace::Header, name, value)) = &credentials.api_key {
        headers.add(name.to_ascii_lowercase(), value.to_string());
    }
    for (name, value) in &credentials.headers {
        headers.add(name.to_ascii_lowercase(), value.to_string());
    }
    Ok(Request { url, headers: headers.0, body })
}

/// Headers, each name once. Names are in lower case.
struct Headers(Vec<Header>);

impl Headers {
    fn add(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Cow<'static, str>>) {
        let name = name.into();
        if !self.0.iter().any(|(there, _)| *there == name) {
            self.0.push((name, value.into()));
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
    use crate::profile::KeyForm;
    use crate::signature::SigningKey;
    use crate::webhook::Auth;
    use crate::wire::WebhookRecord;

    fn raw(text: &str) -> Arc<RawValue> {
        Arc::from(RawValue::from_string(text.into()).unwrap())
    }

    fn event() -> Event {
        Event {
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
        }
    }

    fn webhook(url: &str) -> Webhook {
        let id = WebhookId::from_trusted("wh_1");
        WebhookRecord::new(id, TenantId::default_tenant(), url).webhook(1).unwrap()
    }

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const AT: Timestamp = Timestamp::from_millis(1_614_265_330_999);

    fn credentials(form: KeyForm) -> Credentials {
        Credentials {
            keys: vec![(SigningKey::of_secret(SECRET, form).unwrap(), None)],
            version: 1,
            auth: None,
            tls: None,
            api_key: None,
            headers: Vec::new(),
        }
    }

    fn signing(scheme: &str, more: &str) -> Profile {
        let spec = format!(
            r#"{{"name":"p","member":[{{"name":"id","id":"event"}}],"signature":{{"scheme":"{scheme}"{more}}},
                "secret":{{"rotation":"at_once"}}}}"#
        );
        Profile::new(serde_json::from_str(&spec).unwrap()).unwrap()
    }

    fn made(webhook: &Webhook, profile: &Profile, credentials: &Credentials) -> Result<Request, CannotMake> {
        let event = event();
        build(&Attempt {
            webhook,
            profile,
            entry: None,
            credentials,
            bearer: None,
            event: &event,
            delivery: &DeliveryId::of(&event.tenant, &event.id, &webhook.id),
            number: 3,
            test: false,
            at: AT,
        })
    }

    fn names(request: &Request) -> Vec<&str> {
        request.headers.iter().map(|(name, _)| &**name).collect()
    }

    fn header<'a>(request: &'a Request, name: &str) -> &'a str {
        let found: Vec<_> = request.headers.iter().filter(|(n, _)| n == name).collect();
        assert_eq!(found.len(), 1, "{name} in {:?}", names(request));
        &found[0].1
    }

    #[test]
    fn a_request_shows_no_secret() {
        let credentials = Credentials {
            api_key: Some((KeyPlace::Query, "key".into(), Zeroizing::new("in-the-url".into()))),
            headers: vec![("x-token".into(), Zeroizing::new("in-a-header".into()))],
            ..credentials(KeyForm::Base64)
        };
        let request = made(&webhook("https://example.com/hook"), &Profile::default_profile(), &credentials);
        let shown = format!("{request:?}");
        assert!(shown.contains("example.com"), "{shown}");
        for secret in ["in-the-url", "in-a-header", "v1,"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }

    const OURS: [&str; 6] = [
        "content-type",
        "user-agent",
        "webhook-id",
        "webhook-timestamp",
        "webhook-attempt",
        "webhook-event-id",
    ];

    #[test]
    fn the_default_request() {
        let webhook = webhook("https://example.com/hooks?a=1#fragment");
        let credentials = Credentials {
            api_key: Some((KeyPlace::Query, "key".into(), Zeroizing::new("a&b".into()))),
            headers: vec![("x-shop".into(), Zeroizing::new("7".into()))],
            ..credentials(KeyForm::Base64)
        };
        let request = made(&webhook, &Profile::default_profile(), &credentials).unwrap();
        assert_eq!(
            String::from_utf8(request.body.clone()).unwrap(),
            r#"{"event_time":"2026-11-21T20:00:00Z","event_type":"Client added \"two\" factor auth","current_context":{ "b" : 1.0, "a": "\u00fc" },"data":null}"#
        );
        assert_eq!(request.url.as_str(), "https://example.com/hooks?a=1&key=a%26b");
        assert_eq!(names(&request), [&OURS[..], &["webhook-signature", "traceparent", "x-shop"]].concat());
        let delivery = DeliveryId::of(&event().tenant, &event().id, &webhook.id);
        assert_eq!(header(&request, "webhook-id"), delivery.message_id());
        assert_eq!(header(&request, "webhook-event-id"), "evt_1");
        assert_eq!(header(&request, "webhook-timestamp"), "1614265330");
        assert_eq!(header(&request, "webhook-attempt"), "3");
        assert_eq!(header(&request, "x-shop"), "7");
        assert_eq!(header(&request, "traceparent"), &*event().traceparent.unwrap());
        let (signature, id) = (header(&request, "webhook-signature"), header(&request, "webhook-id"));
        assert!(credentials.keys[0].0.verifies(signature, id, AT, &request.body));
    }

    #[test]
    fn each_scheme_has_its_headers_and_no_others() {
        let webhook = webhook("https://example.com/hooks?a=1");
        for (scheme, more, form, expected) in [
            ("standard_webhooks", "", KeyForm::Base64, &["webhook-signature"][..]),
            (
                "body_hex",
                r#","key":"text","header":"X-Webhook-Signature""#,
                KeyForm::Text,
                &["x-webhook-signature"],
            ),
            (
                "canonical",
                r#","key":"text_after_prefix""#,
                KeyForm::TextAfterPrefix,
                &[
                    "x-webhook-signature",
                    "x-webhook-signature-algorithm",
                    "x-webhook-timestamp",
                    "x-webhook-request-id",
                    "x-webhook-signature-version",
                ],
            ),
            ("http_message", "", KeyForm::Base64, &["content-digest", "signature-input", "signature"]),
            ("none", "", KeyForm::Base64, &[]),
        ] {
            let profile = signing(scheme, more);
            let request = made(&webhook, &profile, &credentials(form)).unwrap();
            assert_eq!(names(&request), [&OURS[..], expected, &["traceparent"]].concat(), "{scheme}");
            let unsigned = Webhook { signed: false, ..webhook.clone() };
            let request = made(&unsigned, &profile, &credentials(form)).unwrap();
            assert_eq!(names(&request), [&OURS[..], &["traceparent"]].concat(), "{scheme}");

            let no_secret = Credentials { keys: Vec::new(), ..credentials(form) };
            let of_none = made(&webhook, &profile, &no_secret);
            assert_eq!(of_none.is_ok(), scheme == "none", "{scheme}: {of_none:?}");
            let asymmetric = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
            let key = SigningKey::parse(asymmetric).unwrap();
            let of_public =
                made(&webhook, &profile, &Credentials { keys: vec![(key, None)], ..credentials(form) });
            match scheme {
                "standard_webhooks" | "none" => assert!(of_public.is_ok()),
                _ => assert_eq!(of_public.unwrap_err(), CannotMake::NotShared, "{scheme}"),
            }
        }
    }

    #[test]
    fn old_secrets_sign_until_their_time_and_only_where_two_can() {
        let webhook = webhook("https://example.com/");
        let key = |letter: char| {
            SigningKey::of_secret(&format!("{letter}0123456789abcdef0123456789"), KeyForm::Text).unwrap()
        };
        let (new, old) = (key('n'), key('o'));
        let keys = |until: Timestamp| Credentials {
            keys: vec![(new.clone(), None), (old.clone(), Some(until))],
            ..credentials(KeyForm::Base64)
        };
        let later = Timestamp::from_millis(AT.as_millis() + 1);
        for (until, entries) in [(later, 2), (AT, 1)] {
            let request = made(&webhook, &Profile::default_profile(), &keys(until)).unwrap();
            let signature = header(&request, "webhook-signature");
            assert_eq!(signature.split(' ').count(), entries);
            let id = header(&request, "webhook-id");
            assert!(new.verifies(signature, id, AT, &request.body));
            assert_eq!(old.verifies(signature, id, AT, &request.body), entries == 2);
        }
        let profile = signing("body_hex", r#","key":"text","header":"X-Sig""#);
        let both = made(&webhook, &profile, &keys(later)).unwrap();
        let one = Credentials { keys: vec![(new, None)], ..credentials(KeyForm::Text) };
        assert_eq!(header(&both, "x-sig"), header(&made(&webhook, &profile, &one).unwrap(), "x-sig"));
    }

    #[test]
    fn what_an_owner_writes_down_replaces_nothing_of_ours() {
        let webhook = webhook("https://example.com/");
        let profile = signing("body_hex", r#","key":"text","header":"X-Shop-Sign""#);
        let plain = made(&webhook, &profile, &credentials(KeyForm::Text)).unwrap();
        let forged = |name: &str| (name.to_owned(), Zeroizing::new("forged".to_owned()));
        let owner = Credentials {
            auth: Some(Auth::Basic { username: "u".into(), password: Zeroizing::new("p".into()) }),
            api_key: Some((KeyPlace::Header, "Authorization".into(), Zeroizing::new("forged".into()))),
            headers: vec![
                forged("x-shop-sign"),
                forged("webhook-id"),
                forged("Content-Type"),
                forged("x-own"),
            ],
            ..credentials(KeyForm::Text)
        };
        let request = made(&webhook, &profile, &owner).unwrap();
        for (name, value) in &plain.headers {
            assert_eq!(header(&request, name), value);
        }
        assert_eq!(header(&request, "authorization"), "Basic dTpw");
        assert_eq!(header(&request, "x-own"), "forged");
        assert_eq!(request.headers.len(), plain.headers.len() + 2);
    }

    #[test]
    fn a_test_says_so_and_a_token_goes_where_it_belongs() {
        let webhook = webhook("https://example.com/");
        let event = event();
        let oauth2 = Auth::Oauth2(
            serde_json::from_str(r#"{"token_url":"https://a.example/","client_id":"c","client_secret":"s"}"#)
                .unwrap(),
        );
        let credentials = Credentials { auth: Some(oauth2), ..credentials(KeyForm::Base64) };
        let request = build(&Attempt {
            webhook: &webhook,
            profile: &Profile::default_profile(),
            entry: None,
            credentials: &credentials,
            bearer: Some("fetched"),
            event: &event,
            delivery: &DeliveryId::of(&event.tenant, &event.id, &webhook.id),
            number: 1,
            test: true,
            at: AT,
        })
        .unwrap();
        assert_eq!(header(&request, "webhook-test"), "true");
        assert_eq!(header(&request, "authorization"), "Bearer fetched");
    }

    #[test]
    fn a_profile_cannot_make_a_body_without_end() {
        let members: Vec<String> = (0..64).map(|n| format!(r#"{{"name":"m{n}","path":"/data"}}"#)).collect();
        let spec = format!(r#"{{"name":"p","member":[{}]}}"#, members.join(","));
        let profile = Profile::new(serde_json::from_str(&spec).unwrap()).unwrap();
        let webhook = webhook("https://example.com/");
        let event = Event { data: raw(&format!("\"{}\"", "x".repeat(64 * 1024))), ..event() };
        let made = build(&Attempt {
            webhook: &webhook,
            profile: &profile,
            entry: None,
            credentials: &credentials(KeyForm::Base64),
            bearer: None,
            event: &event,
            delivery: &DeliveryId::of(&event.tenant, &event.id, &webhook.id),
            number: 1,
            test: false,
            at: AT,
        });
        assert_eq!(made, Err(CannotMake::TooLarge));
    }
}
