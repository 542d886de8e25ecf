//! From what was typed to what the API takes, from a webhook back to what would be typed, and from the members of the API
//! to the inputs where something is wrong.

use std::collections::BTreeSet;

use postrider_core::wire::RetryRecord;
use serde_json::{Map, Value, json};
use url::form_urlencoded;

use super::spans;
use crate::api::Refused;
use crate::fields::Fields;
use crate::pages::webhook::{MASK, Webhook};
use crate::words::{Html, escaped};

/// The header in which receivers usually want an API key.
const KEY_HEADER: &str = "X-API-Key";

/// What is wrong with what was typed, and at which input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// The input; empty if it is none.
    pub(crate) input: String,
    /// What is wrong.
    pub(crate) text: String,
    /// What to do next, where the text does not say it.
    pub(crate) hint: String,
}

impl Wrong {
    /// Something at an input.
    pub(crate) fn at(input: &str, text: impl Into<String>) -> Self {
        Self { input: input.to_owned(), text: text.into(), hint: String::new() }
    }

    /// Whether anything is wrong.
    pub(crate) fn is_any(&self) -> bool {
        !self.text.is_empty()
    }

    /// Attributes of an input: they point to what is wrong with it.
    pub(crate) fn marks(&self, input: &str) -> Html {
        if !self.is_any() || self.input != input {
            return Html::default();
        }
        Html(format!(" aria-invalid=\"true\" aria-describedby=\"wrong-{input}\""))
    }

    /// An attribute of what holds several inputs: it points to what is wrong with them.
    pub(crate) fn described(&self, input: &str) -> Html {
        if !self.is_any() || self.input != input {
            return Html::default();
        }
        Html(format!(" aria-describedby=\"wrong-{input}\""))
    }

    /// What is wrong with an input, under it.
    pub(crate) fn told(&self, input: &str) -> Html {
        if !self.is_any() || self.input != input {
            return Html::default();
        }
        Html(format!("<small class=\"field-problem\" id=\"wrong-{input}\">{}</small>", escaped(&self.text)))
    }

    /// Whether it is at an input that is shown only when it is asked for.
    pub(crate) fn is_advanced(&self) -> bool {
        self.is_any()
            && !matches!(
                self.input.as_str(),
                "" | "name" | "url" | "event_type" | "api_key" | "notification_type"
            )
    }
}

impl From<&Refused> for Wrong {
    fn from(refused: &Refused) -> Self {
        // Of a member the text says everything; the hint is for programs.
        let hint = if refused.hint.starts_with("Correct the member") { "" } else { &refused.hint };
        let input = refused.field.as_deref().map_or("", input_of);
        Self { input: input.to_owned(), text: sentence(&refused.detail), hint: hint.to_owned() }
    }
}

/// A text as a sentence of its own; one that begins with the name of a member keeps it as it is.
fn sentence(text: &str) -> String {
    let is_member = text.split(' ').next().is_some_and(|word| word.contains(['_', '.', '[']));
    let mut letters = text.chars();
    let text = match letters.next() {
        Some(first) if !is_member => format!("{}{}", first.to_uppercase(), letters.as_str()),
        _ => text.to_owned(),
    };
    if text.ends_with(['.', '?', '!']) { text } else { format!("{text}.") }
}

/// The input for a member of the API's body; empty if there is none.
pub(crate) fn input_of(member: &str) -> &'static str {
    const INPUTS: [(&str, &str); 36] = [
        ("name", "name"),
        ("url", "url"),
        ("notification_type", "notification_type"),
        ("profile", "profile"),
        ("payload_version", "payload_version"),
        ("signed", "signed"),
        ("state", "state"),
        ("subscription.event_types", "event_type"),
        ("subscription.groups", "rules"),
        ("subscription.categories", "rules"),
        ("subscription.all", "all"),
        ("subscription.filter", "filter"),
        ("api_key.in", "api_key_in"),
        ("api_key.name", "api_key_name"),
        ("api_key", "api_key"),
        ("auth.basic.username", "auth_username"),
        ("auth.basic", "auth_password"),
        ("auth.bearer", "auth_token"),
        ("auth.oauth2.token_url", "oauth2_token_url"),
        ("auth.oauth2.client_id", "oauth2_client_id"),
        ("auth.oauth2.scope", "oauth2_scope"),
        ("auth.oauth2.audience", "oauth2_audience"),
        ("auth.oauth2", "oauth2_client_secret"),
        ("auth", "auth"),
        ("tls.key_pem", "tls_key"),
        ("tls.ca_pem", "tls_ca"),
        ("tls", "tls_certificate"),
        ("headers", "headers"),
        ("timeout_ms", "timeout"),
        ("disable_after_failures", "disable_after_failures"),
        ("disable_after_ms", "disable_after"),
        ("max_in_flight", "max_in_flight"),
        ("rate_per_second", "rate_per_second"),
        ("active_from", "active_from"),
        ("expires_at", "expires_at"),
        ("retry", "retry_schedule"),
    ];
    if let Some((_, input)) = RETRY.iter().find(|(known, _)| is_within(member, known)) {
        return input;
    }
    INPUTS.iter().find(|(known, _)| is_within(member, known)).map_or("", |(_, input)| input)
}

const RETRY: [(&str, &str); 7] = [
    ("retry.schedule_ms", "retry_schedule"),
    ("retry.initial_ms", "retry_initial"),
    ("retry.factor", "retry_factor"),
    ("retry.max_interval_ms", "retry_max_interval"),
    ("retry.max_attempts", "retry_max_attempts"),
    ("retry.max_age_ms", "retry_max_age"),
    ("retry.jitter", "retry_jitter"),
];

fn is_within(member: &str, known: &str) -> bool {
    member.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// The names of event types that are chosen and typed.
pub(crate) fn names_of(fields: &Fields) -> BTreeSet<&str> {
    let typed = fields.get("other_types").lines().map(str::trim).filter(|line| !line.is_empty());
    fields.all("event_type").chain(typed).collect()
}

/// What a new webhook is, before anybody has typed anything; a link to the form may say some of it.
pub(crate) fn defaults(asked: &Fields) -> Fields {
    let mut pairs = vec![
        ("profile", "postrider"),
        ("signed", "on"),
        ("state", "active"),
        ("auth", "none"),
        ("api_key_in", "header"),
        ("api_key_name", KEY_HEADER),
    ];
    pairs.extend(["name", "url"].into_iter().map(|name| (name, asked.get(name))));
    pairs.extend(asked.all("event_type").map(|name| ("event_type", name)));
    fields_from(pairs.into_iter().map(|(name, value)| (name, value.to_owned())))
}

fn fields_from(pairs: impl IntoIterator<Item = (&'static str, String)>) -> Fields {
    let mut text = form_urlencoded::Serializer::new(String::new());
    text.extend_pairs(pairs.into_iter().filter(|(_, value)| !value.is_empty()));
    Fields::parse(text.finish().as_bytes())
}

/// What would have been typed to make this webhook as it is, without secrets.
pub(crate) fn fields_of(webhook: &Webhook) -> Fields {
    let on = |is: bool| if is { "on".to_owned() } else { String::new() };
    let span = |ms: Option<u64>| ms.map(spans::written).unwrap_or_default();
    let number = |n: Option<u32>| n.map(|n| n.to_string()).unwrap_or_default();
    let decimal = |n: Option<f64>| n.map(|n| n.to_string()).unwrap_or_default();
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let RetryRecord { initial_ms, factor, max_interval_ms, max_attempts, max_age_ms, jitter, schedule_ms } =
        webhook.retry.clone().unwrap_or_default();
    let headers: Vec<String> = webhook.headers.keys().map(|name| format!("{name}: {MASK}")).collect();
    let mut pairs = vec![
        ("name", webhook.name.clone()),
        ("url", webhook.url.clone()),
        ("profile", webhook.profile.clone()),
        ("payload_version", text(&webhook.payload_version)),
        ("signed", on(webhook.signed)),
        ("state", webhook.state.clone()),
        ("all", on(webhook.subscription.all)),
        ("filter", text(&webhook.subscription.filter)),
        ("headers", headers.join("\n")),
        // The API shows the deadline that applies, and not whose it is.
        ("timeout", span(Some(webhook.timeout_ms))),
        ("retry_schedule", schedule_ms.map(|all| spans::written_all(&all)).unwrap_or_default()),
        ("retry_initial", span(initial_ms)),
        ("retry_factor", decimal(factor)),
        ("retry_max_interval", span(max_interval_ms)),
        ("retry_max_attempts", number(max_attempts)),
        ("retry_max_age", span(max_age_ms)),
        ("retry_jitter", decimal(jitter.map(|part| (part * 1e6).round() / 1e4))),
        ("max_in_flight", webhook.max_in_flight.to_string()),
        ("rate_per_second", number(webhook.rate_per_second)),
        ("active_from", webhook.active_from.as_deref().map(local).unwrap_or_default()),
        ("expires_at", webhook.expires_at.as_deref().map(local).unwrap_or_default()),
        ("disable_after_failures", number(webhook.disable_after_failures)),
        ("disable_after", span(webhook.disable_after_ms)),
    ];
    pairs.extend(webhook.subscription.event_types.iter().map(|name| ("event_type", name.clone())));
    pairs.extend(webhook.subscription.groups.iter().map(|id| ("group", id.clone())));
    pairs.extend(webhook.subscription.categories.iter().map(|id| ("category", id.clone())));
    pairs.extend(key_fields(webhook));
    fields_from(pairs)
}

/// What would have been typed of its API key, of `Authorization` and of its connections.
fn key_fields(webhook: &Webhook) -> Vec<(&'static str, String)> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let key = webhook.api_key.as_ref();
    let mut pairs = vec![
        ("api_key_in", key.map_or("header", |key| &key.place).to_owned()),
        ("api_key_name", key.map_or(KEY_HEADER, |key| &key.name).to_owned()),
        ("auth", webhook.auth.as_ref().map_or("none", |auth| auth.kind()).to_owned()),
    ];
    if let Some(basic) = webhook.auth.as_ref().and_then(|auth| auth.basic.as_ref()) {
        pairs.push(("auth_username", basic.username.clone()));
    }
    if let Some(oauth2) = webhook.auth.as_ref().and_then(|auth| auth.oauth2.as_ref()) {
        pairs.push(("oauth2_token_url", oauth2.token_url.clone()));
        pairs.push(("oauth2_client_id", oauth2.client_id.clone()));
        pairs.push(("oauth2_scope", text(&oauth2.scope)));
        pairs.push(("oauth2_audience", text(&oauth2.audience)));
        pairs.push(("oauth2_in_body", if oauth2.in_body { "on".to_owned() } else { String::new() }));
    }
    if let Some(tls) = &webhook.tls {
        pairs.push(("tls_certificate", text(&tls.certificate_pem)));
        pairs.push(("tls_ca", text(&tls.ca_pem)));
    }
    pairs
}

/// A time as an input for dates has it: UTC, without a zone.
fn local(told: &str) -> String {
    let text = told.trim_end_matches('Z');
    text.split('.').next().unwrap_or(text).to_owned()
}

/// The same as the API has it.
fn utc(typed: &str) -> Value {
    match typed.len() {
        0 => Value::Null,
        // Browsers leave seconds out where they are zero.
        16 => format!("{typed}:00Z").into(),
        _ if typed.ends_with('Z') || typed.contains('+') => typed.into(),
        _ => format!("{typed}Z").into(),
    }
}

/// The body that makes this webhook, or everything that is typed of one that is there.
///
/// # Errors
/// [`Wrong`] with what cannot be read as a number or a time. Everything else is for the API to judge.
pub(crate) fn body_of(fields: &Fields, before: Option<&Webhook>) -> Result<Map<String, Value>, Wrong> {
    let mut body = Map::new();
    let mut put = |name: &str, value: Value| body.insert(name.to_owned(), value);
    put("name", fields.get("name").into());
    put("url", fields.get("url").into());
    put("notification_type", "rest".into());
    put("profile", text(fields, "profile"));
    put("payload_version", text(fields, "payload_version"));
    put("signed", fields.has("signed").into());
    put("state", text(fields, "state"));
    put("subscription", subscription(fields));
    put("api_key", api_key(fields, before));
    put("auth", auth(fields));
    put("tls", tls(fields));
    put("headers", headers(fields, before)?);
    put("retry", Value::Object(retry(fields)?));
    put("timeout_ms", span(fields, "timeout")?);
    put("disable_after_failures", whole(fields, "disable_after_failures")?);
    put("disable_after_ms", span(fields, "disable_after")?);
    put("max_in_flight", whole(fields, "max_in_flight")?);
    put("rate_per_second", whole(fields, "rate_per_second")?);
    put("active_from", utc(fields.get("active_from")));
    put("expires_at", utc(fields.get("expires_at")));
    Ok(body)
}

/// What changes this webhook into what was typed: the members that differ, so that nothing else is overwritten.
///
/// # Errors
/// As [`body_of`].
pub(crate) fn patch_of(fields: &Fields, before: &Webhook) -> Result<Map<String, Value>, Wrong> {
    let was = body_of(&fields_of(before), Some(before))?;
    let is = body_of(fields, Some(before))?;
    Ok(is.into_iter().filter(|(name, value)| was.get(name) != Some(value)).collect())
}

fn text(fields: &Fields, name: &str) -> Value {
    let text = fields.get(name).replace("\r\n", "\n");
    if text.is_empty() { Value::Null } else { text.into() }
}

fn span(fields: &Fields, name: &str) -> Result<Value, Wrong> {
    if !fields.has(name) {
        return Ok(Value::Null);
    }
    spans::read(fields.get(name)).map(Value::from).ok_or_else(|| Wrong::at(name, spans::HOW))
}

fn whole(fields: &Fields, name: &str) -> Result<Value, Wrong> {
    if !fields.has(name) {
        return Ok(Value::Null);
    }
    let read = fields.get(name).parse::<u32>().map(Value::from);
    read.map_err(|_| Wrong::at(name, "Write a whole number that is not negative."))
}

fn decimal(fields: &Fields, name: &str, parts: f64) -> Result<Value, Wrong> {
    if !fields.has(name) {
        return Ok(Value::Null);
    }
    let read = fields.get(name).trim_end_matches('%').trim_end().parse::<f64>().ok();
    let read = read.filter(|number| number.is_finite()).map(|number| json!(number / parts));
    read.ok_or_else(|| Wrong::at(name, "Write a number, such as 2 or 1.5."))
}

fn subscription(fields: &Fields) -> Value {
    let sorted = |name: &str| fields.all(name).map(str::to_owned).collect::<BTreeSet<String>>();
    json!({
        "event_types": names_of(fields),
        "groups": sorted("group"),
        "categories": sorted("category"),
        "all": fields.has("all"),
        "filter": text(fields, "filter"),
    })
}

/// Without a value, a key that is there keeps its own.
fn api_key(fields: &Fields, before: Option<&Webhook>) -> Value {
    let is_there = before.is_some_and(|before| before.api_key.is_some());
    let value = fields.get("api_key");
    if fields.has("api_key_remove") || (value.is_empty() && !is_there) {
        return Value::Null;
    }
    let place = if fields.has("api_key_in") { fields.get("api_key_in") } else { "header" };
    let mut key = json!({ "in": place, "name": fields.get("api_key_name") });
    if !value.is_empty() {
        key["value"] = value.into();
    }
    key
}

/// Without its secret, what is there keeps its own.
fn auth(fields: &Fields) -> Value {
    let secret = |mut of: Value, member: &str, name: &str| {
        if fields.has(name) {
            of[member] = fields.exactly(name).into();
        }
        of
    };
    match fields.get("auth") {
        "basic" => {
            let basic = json!({ "username": fields.get("auth_username") });
            json!({ "basic": secret(basic, "password", "auth_password"), "bearer": null, "oauth2": null })
        }
        "bearer" => {
            json!({ "basic": null, "bearer": secret(json!({}), "token", "auth_token"), "oauth2": null })
        }
        "oauth2" => {
            let oauth2 = json!({
                "token_url": fields.get("oauth2_token_url"),
                "client_id": fields.get("oauth2_client_id"),
                "scope": text(fields, "oauth2_scope"),
                "audience": text(fields, "oauth2_audience"),
                "in_body": fields.has("oauth2_in_body"),
            });
            let oauth2 = secret(oauth2, "client_secret", "oauth2_client_secret");
            json!({ "basic": null, "bearer": null, "oauth2": oauth2 })
        }
        _ => Value::Null,
    }
}

/// Without a key, a certificate that is there keeps its own.
fn tls(fields: &Fields) -> Value {
    let (certificate, ca) = (text(fields, "tls_certificate"), text(fields, "tls_ca"));
    let key = text(fields, "tls_key");
    if certificate.is_null() && ca.is_null() && key.is_null() {
        return Value::Null;
    }
    let mut tls = json!({ "certificate_pem": certificate, "ca_pem": ca });
    if !key.is_null() || tls["certificate_pem"].is_null() {
        tls["key_pem"] = key;
    }
    tls
}

/// One header in each line. What is masked keeps its value, what is missing goes.
fn headers(fields: &Fields, before: Option<&Webhook>) -> Result<Value, Wrong> {
    let mut headers = Map::new();
    let mut named = Vec::new();
    for line in fields.get("headers").lines().map(str::trim).filter(|line| !line.is_empty()) {
        let Some((name, value)) = line.split_once(':') else {
            return Err(Wrong::at("headers", "Write one header in each line: its name, a colon, its value."));
        };
        let (name, value) = (name.trim(), value.trim());
        named.push(name.to_ascii_lowercase());
        let kept = before.is_some_and(|before| before.headers.contains_key(name)) && value == MASK;
        if !kept {
            headers.insert(name.to_owned(), value.into());
        }
    }
    let gone = before.into_iter().flat_map(|before| before.headers.keys());
    for name in gone.filter(|name| !named.contains(&name.to_ascii_lowercase())) {
        headers.insert(name.clone(), Value::Null);
    }
    Ok(Value::Object(headers))
}

/// What the webhook says itself of its retries.
///
/// # Errors
/// As [`body_of`].
pub(crate) fn retry(fields: &Fields) -> Result<Map<String, Value>, Wrong> {
    let schedule = match fields.get("retry_schedule") {
        "" => Value::Null,
        typed => {
            let wrong =
                || Wrong::at("retry_schedule", "Write times with commas between them: 5 s, 5 min, 30 min.");
            json!(spans::read_all(typed).ok_or_else(wrong)?)
        }
    };
    let mut retry = Map::new();
    let mut put = |name: &str, value: Value| retry.insert(name.to_owned(), value);
    put("schedule_ms", schedule);
    put("initial_ms", span(fields, "retry_initial")?);
    put("factor", decimal(fields, "retry_factor", 1.0)?);
    put("max_interval_ms", span(fields, "retry_max_interval")?);
    put("max_attempts", whole(fields, "retry_max_attempts")?);
    put("max_age_ms", span(fields, "retry_max_age")?);
    put("jitter", decimal(fields, "retry_jitter", 100.0)?);
    Ok(retry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> Map<String, Value> {
        body_of(&Fields::parse(text.as_bytes()), None).unwrap()
    }

    fn webhook() -> Webhook {
        serde_json::from_value(json!({"id": "wh_1", "name": "billing", "url": "https://example.com/", "profile": "postrider",
            "signed": true, "state": "active", "timeout_ms": 15000, "max_in_flight": 10,
            "subscription": {"event_types": ["A", "B"], "filter": "data.n > 1"},
            "api_key": {"in": "header", "name": "X-Key"}, "auth": {"basic": {"username": "u", "password": MASK}},
            "tls": {"certificate_pem": "CERT\n", "key_pem": MASK}, "headers": {"X-Env": MASK, "X-Team": MASK},
            "retry": {"schedule_ms": [5000, 300000], "jitter": 0.15}, "disable_after_ms": 3600000,
            "expires_at": "2027-01-01T00:00:00.5Z"}))
        .unwrap()
    }

    fn patch(change: &[(&str, &str)]) -> Value {
        let fields = fields_of(&webhook());
        let fields = Fields::parse(fields.with(change).trim_start_matches('?').as_bytes());
        Value::Object(patch_of(&fields, &webhook()).unwrap())
    }

    #[test]
    fn the_first_screen_makes_a_webhook() {
        let body = body(
            "name=billing&url=https%3A%2F%2Fexample.com&event_type=A&event_type=B&api_key=k&signed=on&state=active\
                         &profile=postrider&auth=none&api_key_in=header&api_key_name=X-API-Key",
        );
        assert_eq!(body["subscription"]["event_types"], json!(["A", "B"]));
        assert_eq!(body["api_key"], json!({"in": "header", "name": "X-API-Key", "value": "k"}));
        assert_eq!(body["notification_type"], "rest");
        for name in ["auth", "tls", "timeout_ms", "expires_at", "payload_version"] {
            assert_eq!(body[name], Value::Null, "{name}");
        }
    }

    #[test]
    fn without_a_key_there_is_none() {
        assert_eq!(body("name=n&api_key=&api_key_name=X-API-Key")["api_key"], Value::Null);
    }

    #[test]
    fn types_are_picked_and_typed() {
        assert_eq!(
            body("event_type=A&other_types=+B+%0D%0A%0D%0AC%2C1")["subscription"]["event_types"],
            json!(["A", "B", "C,1"])
        );
    }

    #[test]
    fn everything_advanced_is_sent() {
        let body = body(
            "timeout=5+s&retry_schedule=5+s%2C+5+min&retry_jitter=20+%25&retry_factor=1.5&max_in_flight=3&all=on\
                         &active_from=2026-11-22T20%3A00&category=users&group=logins&headers=X-Env%3A+a%3Ab%0D%0AX-Team%3Ac\
                         &auth=bearer&auth_token=t&disable_after=0",
        );
        assert_eq!(body["timeout_ms"], 5000);
        assert_eq!(body["retry"]["schedule_ms"], json!([5000, 300_000]));
        assert_eq!(body["retry"]["jitter"], 0.2);
        assert_eq!(body["retry"]["factor"], 1.5);
        assert_eq!(body["max_in_flight"], 3);
        assert_eq!(body["active_from"], "2026-11-22T20:00:00Z");
        assert_eq!(body["headers"], json!({"X-Env": "a:b", "X-Team": "c"}));
        assert_eq!(body["auth"], json!({"basic": null, "bearer": {"token": "t"}, "oauth2": null}));
        assert_eq!(body["disable_after_ms"], 0);
        assert_eq!(body["subscription"]["categories"], json!(["users"]));
        assert_eq!(body["subscription"]["all"], true);
    }

    #[test]
    fn what_cannot_be_read_is_told_at_its_input() {
        for (text, input) in [
            ("timeout=5", "timeout"),
            ("retry_schedule=5+s%2Clater", "retry_schedule"),
            ("retry_jitter=much", "retry_jitter"),
            ("max_in_flight=-1", "max_in_flight"),
            ("headers=X-Env", "headers"),
        ] {
            let wrong = body_of(&Fields::parse(text.as_bytes()), None).unwrap_err();
            assert_eq!(wrong.input, input);
            assert!(wrong.marks(input).0.contains("aria-invalid") && wrong.marks("name").0.is_empty());
        }
    }

    #[test]
    fn a_form_that_is_sent_as_it_was_shown_changes_nothing() {
        assert_eq!(patch(&[]), json!({}));
    }

    #[test]
    fn only_what_was_changed_is_sent_and_secrets_stay() {
        assert_eq!(patch(&[("name", "other")]), json!({"name": "other"}));
        assert_eq!(
            patch(&[("api_key_name", "X-Other")]),
            json!({"api_key": {"in": "header", "name": "X-Other"}})
        );
        assert_eq!(patch(&[("api_key_remove", "on")]), json!({"api_key": null}));
        let auth = patch(&[("auth", "bearer"), ("auth_token", "t")]);
        assert_eq!(auth, json!({"auth": {"basic": null, "bearer": {"token": "t"}, "oauth2": null}}));
        let headers = patch(&[("headers", "X-Env: new\r\nX-More: 1")]);
        assert_eq!(headers, json!({"headers": {"X-Env": "new", "X-More": "1", "X-Team": null}}));
        assert_eq!(patch(&[("tls_certificate", "")]), json!({"tls": null}));
        assert_eq!(
            patch(&[("tls_certificate", "OTHER")]),
            json!({"tls": {"certificate_pem": "OTHER", "ca_pem": null}})
        );
        assert_eq!(patch(&[("timeout", "")]), json!({"timeout_ms": null}));
        assert_eq!(patch(&[("expires_at", "")]), json!({"expires_at": null}));
    }

    #[test]
    fn members_of_the_api_are_inputs_of_the_form() {
        for (member, input) in [
            ("url", "url"),
            ("subscription.event_types", "event_type"),
            ("subscription.categories", "rules"),
            ("api_key.value", "api_key"),
            ("api_key.name", "api_key_name"),
            ("auth.oauth2.client_secret", "oauth2_client_secret"),
            ("auth.basic.username", "auth_username"),
            ("headers.X-Env", "headers"),
            ("retry.max_attempts", "retry_max_attempts"),
            ("retry.schedule_ms[3]", "retry_schedule"),
            ("tls.certificate_pem", "tls_certificate"),
            ("urls", ""),
            ("tenant", ""),
        ] {
            assert_eq!(input_of(member), input, "{member}");
        }
    }

    #[test]
    fn problems_are_sentences() {
        assert_eq!(
            sentence("the name must have 1 to 256 characters"),
            "The name must have 1 to 256 characters."
        );
        assert_eq!(sentence("retry.factor must be from 1 to 100"), "retry.factor must be from 1 to 100.");
    }
}
