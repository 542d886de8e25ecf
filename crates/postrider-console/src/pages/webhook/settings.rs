//! Everything that a webhook is, in words; and its secret.

use askama::Template;
use postrider_core::Timestamp;

use super::shape::Effective;
use super::{Tab, Webhook, shell, tabs};
use crate::page::{Answer, Shell, Visit, page};
use crate::pages::webhook_form::in_words;
use crate::words::{Html, counted, duration, escaped, number, when, when_if};

/// For how long the secret before signs as well, seconds, with what is said of it. Nothing is the profile's choice.
const OVERLAPS: [(&str, &str); 5] = [
    ("", "As the profile has it"),
    ("0", "It ends at once"),
    ("3600", "It signs too for 1 hour"),
    ("86400", "It signs too for 24 hours"),
    ("604800", "It signs too for 7 days"),
];

/// A setting with its value.
struct Fact {
    name: &'static str,
    value: Html,
}

/// Settings that belong together.
struct Group {
    title: &'static str,
    facts: Vec<Fact>,
}

#[derive(Template)]
#[template(path = "webhook_settings.html")]
struct SettingsTab {
    shell: Shell,
    webhook: Webhook,
    tabs: Vec<Tab>,
    groups: Vec<Group>,
    rotated: Html,
    previous: Html,
    overlaps: [(&'static str, &'static str); 5],
}

/// The summary.
pub(super) fn show(visit: &Visit, webhook: Webhook) -> Answer {
    let told = |at: Option<&str>| if at.is_some() { when_if(at, visit.now) } else { Html::default() };
    page(&SettingsTab {
        shell: shell(visit, &webhook, false),
        tabs: tabs(&webhook, "settings"),
        groups: groups(&webhook, visit.now),
        rotated: told(webhook.secret_rotated_at.as_deref()),
        previous: told(webhook.previous_secret_until.as_deref()),
        overlaps: OVERLAPS,
        webhook,
    })
}

fn text(text: &str) -> Html {
    Html(escaped(text))
}

fn code(text: &str) -> Html {
    Html(format!("<code>{}</code>", escaped(text)))
}

fn groups(webhook: &Webhook, now: Timestamp) -> Vec<Group> {
    vec![
        Group { title: "Receiver", facts: receiver(webhook, now) },
        Group { title: "Events", facts: events(webhook) },
        Group { title: "Getting in", facts: credentials(webhook) },
        Group { title: "Retries and limits", facts: limits(webhook, now) },
    ]
}

fn receiver(webhook: &Webhook, now: Timestamp) -> Vec<Fact> {
    let version = webhook.effective.as_ref().and_then(|effective| effective.payload_version.as_deref());
    let version = webhook.payload_version.as_deref().or(version);
    let mut facts = vec![
        Fact { name: "Id", value: code(&webhook.id) },
        Fact { name: "URL", value: code(&webhook.url) },
        Fact { name: "Notification type", value: text("REST") },
        Fact { name: "Profile", value: text(&webhook.profile) },
    ];
    facts.extend(version.map(|version| Fact { name: "Payload version", value: text(version) }));
    facts.push(Fact { name: "Created", value: when(&webhook.created_at, now) });
    facts.push(Fact { name: "Changed", value: when(&webhook.updated_at, now) });
    facts
}

fn events(webhook: &Webhook) -> Vec<Fact> {
    let subscription = &webhook.subscription;
    let list = |names: &mut dyn Iterator<Item = &String>| {
        Html(names.map(|name| code(name).0).collect::<Vec<_>>().join(" "))
    };
    let mut facts = vec![Fact { name: "Takes", value: subscription.summary() }];
    for (name, names) in [
        ("Event types", &subscription.event_types),
        ("Whole groups", &subscription.groups),
        ("Whole categories", &subscription.categories),
    ] {
        if !names.is_empty() {
            facts.push(Fact { name, value: list(&mut names.iter()) });
        }
    }
    if let Some(types) = &subscription.means_today {
        facts.push(Fact {
            name: "Today that is",
            value: text(&counted(types.len() as u64, "event type", "event types")),
        });
    }
    facts.extend(subscription.filter.as_deref().map(|filter| Fact { name: "Filter", value: code(filter) }));
    facts
}

fn credentials(webhook: &Webhook) -> Vec<Fact> {
    let key = match &webhook.api_key {
        Some(key) if key.place == "query" => Html(format!("in the query parameter {}", code(&key.name))),
        Some(key) => Html(format!("in the header {}", code(&key.name))),
        None => text("none"),
    };
    let auth = match webhook.auth.as_ref().map_or("none", |auth| auth.kind()) {
        "basic" => "Basic",
        "bearer" => "Bearer, always the same token",
        "oauth2" => "OAuth 2.0, client credentials",
        _ => "none",
    };
    let names: Vec<String> = webhook.headers.keys().map(|name| code(name).0).collect();
    let tls = webhook.tls.as_ref();
    let certificate = tls.is_some_and(|tls| tls.certificate_pem.is_some() && tls.key_pem.is_some());
    let authority = tls.is_some_and(|tls| tls.ca_pem.is_some());
    vec![
        Fact { name: "Signed", value: text(if webhook.signed { "yes" } else { "no" }) },
        Fact { name: "API key", value: key },
        Fact { name: "Authorization", value: text(auth) },
        Fact { name: "Headers", value: if names.is_empty() { text("none") } else { Html(names.join(" ")) } },
        Fact { name: "Client certificate", value: text(if certificate { "yes" } else { "none" }) },
        Fact { name: "Authorities", value: text(if authority { "its own" } else { "the public ones" }) },
    ]
}

fn limits(webhook: &Webhook, now: Timestamp) -> Vec<Fact> {
    let rate = webhook.rate_per_second.map_or_else(|| "unlimited".to_owned(), |n| number(n.into()));
    let mut facts = vec![
        Fact { name: "Retries", value: retries(webhook) },
        Fact { name: "Time for an answer", value: text(&duration(webhook.timeout_ms)) },
        Fact { name: "Requests at the same time", value: text(&number(webhook.max_in_flight.into())) },
        Fact { name: "Requests a second", value: text(&rate) },
    ];
    if let Some(effective) = &webhook.effective {
        facts.push(Fact { name: "Disabled", value: text(&disabled(effective)) });
    }
    let from = webhook.active_from.as_deref();
    facts.extend(from.map(|from| Fact { name: "Nothing is sent before", value: when(from, now) }));
    let until = webhook.expires_at.as_deref();
    facts.extend(until.map(|until| Fact { name: "Nothing is sent from then on", value: when(until, now) }));
    facts
}

fn retries(webhook: &Webhook) -> Html {
    let policy = webhook.effective.as_ref().and_then(|effective| effective.retry.policy().ok());
    let words = policy.map_or_else(|| "nobody knows its profile".to_owned(), |policy| in_words(&policy));
    let whose = if webhook.retry.is_some() { "Its own: " } else { "The profile’s: " };
    text(&format!("{whose}{words}"))
}

/// When it is disabled by itself.
fn disabled(effective: &Effective) -> String {
    let count = effective.disable_after_failures;
    let count = (count > 0)
        .then(|| format!("after {} given up in a row", counted(count.into(), "delivery", "deliveries")));
    let ms = effective.disable_after_ms;
    let time = (ms > 0).then(|| format!("after {} without a success", duration(ms)));
    match [count, time].into_iter().flatten().collect::<Vec<_>>().as_slice() {
        [] => "never".to_owned(),
        ways => ways.join(", or "),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(json: serde_json::Value) -> Vec<String> {
        let webhook: Webhook = serde_json::from_value(json).unwrap();
        let groups = groups(&webhook, Timestamp::from_millis(0));
        groups
            .iter()
            .flat_map(|group| &group.facts)
            .map(|fact| format!("{}: {}", fact.name, fact.value))
            .collect()
    }

    #[test]
    fn settings_are_told_in_words() {
        let told = told(
            json!({"id": "wh_1", "url": "https://example.com/?<", "signed": true, "timeout_ms": 15000,
            "max_in_flight": 10, "api_key": {"in": "query", "name": "key"}, "auth": {"bearer": {"token": "x"}},
            "headers": {"X-Env": "x"}, "retry": {"schedule_ms": [1000], "jitter": 0.0},
            "effective": {"retry": {"schedule_ms": [1000], "jitter": 0.0}, "disable_after_failures": 20, "disable_after_ms": 432000000}}),
        );
        for fact in [
            "URL: <code>https://example.com/?&lt;</code>",
            "API key: in the query parameter <code>key</code>",
            "Authorization: Bearer, always the same token",
            "Headers: <code>X-Env</code>",
            "Retries: Its own: 2 attempts over 1 s: at once, then after 1 s.",
            "Time for an answer: 15 s",
            "Requests a second: unlimited",
            "Disabled: after 20 deliveries given up in a row, or after 5 d without a success",
        ] {
            assert!(told.iter().any(|it| it == fact), "{fact} in {told:#?}");
        }
    }

    #[test]
    fn a_webhook_may_never_be_disabled() {
        assert_eq!(disabled(&Effective::default()), "never");
    }
}
