//! Four products side by side: the catalogue, the profile, some events and an action of each.

use postrider_core::catalogue::Catalogue;
use postrider_core::profile::Scheme;
use reqwest::Method;
use serde_json::{Value, json};

use super::catalogues::{example, happening, some};
use super::story::{EVENTS, STEP, Story, TIMEOUT_MS, answered_ms, millis, one, untrue};
use crate::api::Api;
use crate::commands::event::fate;
use crate::commands::wait_for;
use crate::exit::Failure;
use crate::inbox::Received;
use crate::output::{Column, plain};

/// The key that Skillmine's webhook sends along.
const API_KEY: &str = "demo-api-key";
const API_KEY_HEADER: &str = "x-api-key";

const COLUMNS: &[Column] = &[
    ("  PRODUCT", "/product"),
    ("PROFILE", "/profile"),
    ("EVENT TYPE", "/event_type"),
    ("FROM", "/from"),
    ("SIGNED BY", "/signed_by"),
    ("VERDICT OF THE INBOX", "/verdict"),
    ("AFTER", "/after"),
];

impl Story<'_> {
    /// Makes a tenant for each product and imports its catalogue.
    pub(super) async fn tenants(&self, catalogues: &[Catalogue]) -> Result<(), Failure> {
        self.chapter("The catalogues of four products, a tenant for each")?;
        for catalogue in catalogues {
            let product = &catalogue.product;
            let body = json!({"id": product.id}).to_string();
            self.api.post("cannot make a tenant", &["tenants"], Some(body)).await?;
            let api = self.of(catalogue);
            let body = json!(catalogue).to_string();
            let what = format!("cannot import the catalogue {}", product.id);
            let path = ["catalogues", product.id.as_str()];
            let import = api.call(Method::PUT, &what, &path, &[], Some(body)).await?;
            let of_product = [("product", product.id.clone()), ("limit", "100".to_owned())];
            let found = api.get(&what, &["event-types"], &of_product).await?.items().len();
            if found != catalogue.event_types.len() {
                let expected = format!("{} event types should be imported", catalogue.event_types.len());
                return Err(untrue(&expected, &format!("{found} were")));
            }
            let suspects = import.value["findings"].as_array().map_or(0, Vec::len);
            let plural = if catalogue.categories.len() == 1 { "category" } else { "categories" };
            let counts = format!(
                "{found:>3} event types in {} {plural}, {} triggers",
                catalogue.categories.len(),
                catalogue.triggers.len()
            );
            let noted = match suspects {
                0 => String::new(),
                1 => ", 1 note".to_owned(),
                more => format!(", {more} notes"),
            };
            self.good(&product.name, &format!("{counts}{noted}"))?;
        }
        Ok(())
    }

    /// Sends events and an action of each product to a webhook that speaks as the product does, and shows what the
    /// receiver got and thinks of it. Returns how many events there were.
    pub(super) async fn side_by_side(&self, catalogues: &[Catalogue]) -> Result<usize, Failure> {
        self.chapter("Four products side by side: each receiver is spoken to as its product does")?;
        let mut rows = Vec::new();
        for catalogue in catalogues {
            rows.extend(self.product(catalogue).await?);
        }
        self.out.as_table().list("", &rows, COLUMNS)?;
        Ok(rows.len())
    }

    async fn product(&self, catalogue: &Catalogue) -> Result<Vec<Value>, Failure> {
        let product = catalogue.product.id.as_str();
        let missing =
            |what: &str| untrue(&format!("the product {product} should have {what}"), "it has none");
        let profile = catalogue.profile.as_ref().ok_or_else(|| missing("a profile"))?;
        let happening = happening(catalogue).ok_or_else(|| missing("an action"))?;
        let action = plain(happening.action.get("action"));
        let examples: Vec<Value> = some(catalogue, EVENTS).into_iter().map(example).collect();
        let mut types: Vec<&str> = examples.iter().filter_map(|event| event["event_type"].as_str()).collect();
        types.extend(happening.emits.iter().copied().chain(happening.not));

        let api = self.of(catalogue);
        let mut webhook = json!({
            "name": product, "url": self.receiver.url(product, profile.https_only), "profile": profile.name,
            "subscription": {"event_types": types}, "timeout_ms": TIMEOUT_MS,
        });
        if profile.https_only {
            webhook["tls"] = json!({"ca_pem": self.receiver.certificate.ca_pem()});
        }
        let keyed = profile.signature.scheme == Scheme::StandardWebhooks;
        if keyed {
            webhook["api_key"] = json!({"in": "header", "name": API_KEY_HEADER, "value": API_KEY});
        }
        let made = api.post("cannot make a webhook", &["webhooks"], Some(webhook.to_string())).await?;
        let secret = made.value["secret"].as_str().unwrap_or_default();
        self.told(product, json!({"secret": secret, "profile": profile.name}))?;

        let mut upstream = examples.clone();
        upstream.push(happening.action.clone());
        let sent = api.post("cannot send events", &["events"], Some(json!(upstream).to_string())).await?;
        let direct: Vec<String> = sent.items().iter().map(|item| plain(item.get("id"))).collect();
        let expected = examples.len() + happening.emits.len();
        let received = wait_for("not every event reached the inbox", STEP, || async {
            let (received, _) = self.receiver.inbox.received(product);
            let count = received.len();
            Ok(if count >= expected { Ok(received) } else { Err(format!("{count} of {expected} did")) })
        })
        .await?;

        let mut rows = Vec::new();
        let mut emitted = Vec::new();
        for got in &received {
            let id = got.header("webhook-event-id").unwrap_or_default();
            let (delivery, state) = one(fate(&api, id, STEP, || {}).await?)?;
            if state != "delivered" {
                return Err(untrue(
                    &format!("the event {id} should be delivered"),
                    &format!("it is {state}"),
                ));
            }
            let event = api.get("cannot show an event", &["events", id], &[]).await?;
            let event_type = plain(event.value.get("event_type"));
            let place = direct.iter().position(|sent| sent == id).unwrap_or(examples.len());
            let of_action = place == examples.len();
            if of_action {
                emitted.push(event_type.clone());
            }
            let members: Vec<&str> = profile.members.iter().map(|member| member.name.as_str()).collect();
            check_body(&event_type, &members, got)?;
            if let Some(example) = examples.get(place) {
                check_values(&event_type, profile, example, got)?;
            }
            let shown = api.get("cannot show a delivery", &["deliveries", &delivery], &[]).await?;
            let row = json!({
                "product": format!("  {product}"),
                "profile": profile.name,
                "event_type": event_type,
                "from": if of_action { action.as_str() } else { "an event" },
                "signed_by": signed_by(profile.signature.scheme),
                "verdict": self.verdict(got, keyed)?,
                "after": after(&event.value, answered_ms(&shown)),
            });
            rows.push((place, row));
        }
        let mut emits = happening.emits.to_vec();
        emits.sort_unstable();
        emitted.sort_unstable();
        if rows.len() != expected || emitted != emits {
            let expected = format!("the action {action} should become {}", happening.emits.join(", "));
            return Err(untrue(&expected, &format!("it became {}", emitted.join(", "))));
        }
        // As they were sent; what came of the action last, as it arrived.
        rows.sort_by_key(|(place, _)| *place);
        Ok(rows.into_iter().map(|(_, row)| row).collect())
    }

    /// What the inbox says of a request; an error unless it trusts it.
    fn verdict(&self, got: &Received, keyed: bool) -> Result<String, Failure> {
        if got.verified != Some(true) {
            let why = got.reason.clone().unwrap_or_default();
            return Err(untrue(&format!("the signature for {} should be good", got.name), &why));
        }
        if !keyed {
            return Ok(self.out.paint(crate::output::Tone::Good, "✓ signature good"));
        }
        match got.header(API_KEY_HEADER) {
            Some(API_KEY) => Ok(self.out.paint(crate::output::Tone::Good, "✓ signature and API key good")),
            _ => Err(untrue(&format!("the API key of {} should be there", got.name), "it is not")),
        }
    }

    pub(super) fn of(&self, catalogue: &Catalogue) -> Api {
        self.api.clone().of(Some(catalogue.product.id.clone()))
    }
}

/// What people call a scheme.
fn signed_by(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::StandardWebhooks => "Standard Webhooks",
        Scheme::BodyHex => "hex HMAC of the body",
        Scheme::Canonical => "canonical string",
        Scheme::HttpMessage => "RFC 9421",
        Scheme::None => "nothing",
    }
}

fn after(event: &Value, answered_ms: Option<i64>) -> String {
    match (millis(event.get("accepted_at")), answered_ms) {
        (Some(accepted_ms), Some(answered_ms)) => format!("{} ms", answered_ms.saturating_sub(accepted_ms)),
        _ => "?".to_owned(),
    }
}

/// The body has exactly the members of the profile.
fn check_body(event_type: &str, members: &[&str], received: &Received) -> Result<(), Failure> {
    let got: Value = serde_json::from_str(&received.body).unwrap_or_default();
    let got = got.as_object().cloned().unwrap_or_default();
    if got.len() == members.len() && members.iter().all(|member| got.contains_key(*member)) {
        return Ok(());
    }
    let got: Vec<&str> = got.keys().map(String::as_str).collect();
    let expected = format!("the body of {event_type} should have {}", members.join(", "));
    Err(untrue(&expected, &format!("it has {}", got.join(", "))))
}

/// Members that are taken from the event have what upstream sent.
fn check_values(
    event_type: &str,
    profile: &postrider_core::profile::ProfileSpec,
    sent: &Value,
    received: &Received,
) -> Result<(), Failure> {
    let got: Value = serde_json::from_str(&received.body).unwrap_or_default();
    for member in &profile.members {
        let given = member.path.as_deref().and_then(|path| sent.pointer(path));
        if given.is_some_and(|given| got.get(&member.name) != Some(given)) {
            let expected =
                format!("{} of {event_type} should reach the receiver as it was sent", member.name);
            return Err(untrue(&expected, "it got something else"));
        }
    }
    Ok(())
}
