//! Every event type of the four products through every profile: exact bodies, verified by code that is not ours.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use lapin::BasicProperties;
use postrider_core::{DeliveryId, Timestamp};
use postrider_testkit::process::{node_path, python};
use postrider_testkit::rabbit::{Broker, Vhost};
use postrider_testkit::{Authority, Receiver, Request, workspace_dir};
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::system::System;

const PRODUCTS: [&str; 4] = ["upmind-client", "skillmine-auth", "open-loyalty", "entrust-idaas"];

/// A profile, the script that verifies it, and the headers of its own.
const PROFILES: [(&str, &str, &[&str]); 8] = [
    ("postrider", "verify.py", &["webhook-signature"]),
    ("standard", "verify.py", &["webhook-signature"]),
    ("cloudevents", "verify.py", &["webhook-signature"]),
    (
        "cloudevents-binary",
        "verify.py",
        &["ce-id", "ce-source", "ce-specversion", "ce-time", "ce-type", "webhook-signature"],
    ),
    ("skillmine", "verify.py", &["webhook-signature"]),
    ("upmind", "verify_body_hex.py", &["x-webhook-signature"]),
    (
        "open-loyalty",
        "verify_canonical.py",
        &[
            "x-webhook-request-id",
            "x-webhook-signature",
            "x-webhook-signature-algorithm",
            "x-webhook-signature-version",
            "x-webhook-timestamp",
        ],
    ),
    ("entrust", "verify_http_message.py", &["content-digest", "signature", "signature-input"]),
];

/// A message of the fixtures: what upstream published.
#[derive(Deserialize)]
struct Published {
    id: String,
    event_type: String,
    event_time: Option<String>,
    current_context: Option<Box<RawValue>>,
    data: Option<Box<RawValue>>,
    key: Option<String>,
}

impl Published {
    fn data(&self) -> &str {
        self.data.as_ref().map_or("null", |raw| raw.get())
    }

    fn context(&self) -> &str {
        self.current_context.as_ref().map_or("null", |raw| raw.get())
    }
}

/// A member of an object as it is written there; `null` where there is none.
fn member(object: &str, name: &str) -> String {
    let members = serde_json::from_str::<BTreeMap<String, Box<RawValue>>>(object).unwrap_or_default();
    members.get(name).map_or("null", |raw| raw.get()).to_owned()
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

/// The body that a profile makes of an event, put together from the bytes that were published.
fn expected(profile: &str, event: &Published, time: &str, kind: &Kind, delivery: &DeliveryId) -> String {
    let (name, data, context) = (quoted(&event.event_type), event.data(), event.context());
    let uuid = delivery.uuid();
    let utc = Timestamp::parse_rfc3339(time).unwrap().to_rfc3339();
    let (second, fraction) =
        utc.trim_end_matches('Z').split_once('.').unwrap_or((utc.trim_end_matches('Z'), ""));
    let source = match member(context, "source") {
        text if text.starts_with('"') && text.len() > 2 => text,
        _ => "\"/tenants/default\"".to_owned(),
    };
    let subject = event.key.as_ref().map(|key| format!(r#""subject":{},"#, quoted(key))).unwrap_or_default();
    let account = match member(context, "accountId") {
        none if none == "null" => "\"default\"".to_owned(),
        some => some,
    };
    let code = kind.code.as_ref().map_or("null".to_owned(), |code| quoted(code));
    let of = |object: &str, name: &str| format!(r#","{name}":{}"#, member(object, name));
    match profile {
        "postrider" => format!(
            r#"{{"event_time":{},"event_type":{name},"current_context":{context},"data":{data}}}"#,
            quoted(time)
        ),
        "skillmine" => format!(
            r#"{{"event_time":"{second}.{fraction:0<3}Z","event_type":{name},"current_context":{context},"data":{data}}}"#
        ),
        "standard" => format!(r#"{{"type":{name},"timestamp":{},"data":{data}}}"#, quoted(time)),
        "cloudevents" => format!(
            r#"{{"specversion":"1.0","id":{},"source":{source},"type":{name},"time":{},{subject}"datacontenttype":"application/json","data":{data}}}"#,
            quoted(&event.id),
            quoted(time)
        ),
        "cloudevents-binary" => data.to_owned(),
        "open-loyalty" => format!(r#"{{"type":{name},"data":{data}}}"#),
        "entrust" => format!(
            r#"{{"id":"{uuid}","type":{name},"accountId":{account},"eventTime":{},"data":{data}}}"#,
            quoted(time)
        ),
        "upmind" => {
            let of_data = ["object_type", "object_id", "object"].map(|name| of(data, name)).concat();
            let names = ["actor_type", "actor_id", "actor", "brand_id", "brand"];
            let of_context = names.map(|name| of(context, name)).concat();
            format!(
                r#"{{"webhook_event_id":{},"event_datetime":"{}","version":"V1","hook_category":{},"hook_code":{code},"hook_log_id":"{uuid}"{of_data}{of_context}}}"#,
                quoted(&event.id),
                second.replace('T', " "),
                quoted(&kind.category),
            )
        }
        other => panic!("{other}"),
    }
}

/// What the catalogue says of an event type.
#[derive(Clone, Deserialize)]
struct Kind {
    name: String,
    category: String,
    code: Option<String>,
}

fn catalogue(product: &str) -> serde_json::Value {
    let path = workspace_dir().join(format!("catalogues/{product}.toml"));
    toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn kinds() -> BTreeMap<String, Kind> {
    let of = |product: &str| Vec::<Kind>::deserialize(&catalogue(product)["event_type"]).unwrap();
    PRODUCTS.iter().flat_map(|product| of(product)).map(|kind| (kind.name.clone(), kind)).collect()
}

/// Every request verifies with somebody else's code.
fn verify(mut verifier: Command, base: &str, requests: &[Arc<Request>]) {
    let mut process = verifier.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = process.stdin.take().unwrap();
    for request in requests {
        let headers: BTreeMap<String, &str> =
            request.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.as_str())).collect();
        let line = json!({
            "method": request.method, "url": format!("{base}{}", request.target), "headers": headers,
            "body": String::from_utf8(request.body.to_vec()).unwrap(),
        });
        writeln!(input, "{line}").unwrap();
    }
    drop(input);
    let output = process.wait_with_output().unwrap();
    assert!(output.status.success(), "{verifier:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), format!("{} verified", requests.len()));
}

fn script(python: &Path, name: &str, secret: &str) -> Command {
    let mut command = Command::new(python);
    command.arg(workspace_dir().join("tests/python").join(name)).arg(secret);
    command
}

#[tokio::test]
async fn every_event_type_in_every_profile_verified_by_somebody_elses_code() {
    let vhost = Vhost::create(&Broker::shared().await, "profiles").await;
    let system = System::new(vhost.url()).await;
    let [control, router, worker] = system.start_all_roles().await;
    for product in PRODUCTS {
        let path = format!("/v1/catalogues/{product}");
        let (status, answer) = system.call(Method::PUT, &path, Some(&catalogue(product))).await;
        assert!(status.is_success(), "PUT {path}: {status} {answer:#}");
    }
    let authority = Authority::new("receivers");
    let tls = Receiver::start_tls(&authority, None).await;

    let plain = json!({
        "name": "plain", "url": system.receiver.url("/entrust"), "profile": "entrust", "subscription": { "all": true },
    });
    let (status, refused) = system.call(Method::POST, "/v1/webhooks", Some(&plain)).await;
    assert!(status.is_client_error() && refused.to_string().contains("https"), "{status} {refused}");

    let mut secrets = BTreeMap::new();
    for (profile, _, _) in PROFILES {
        // With a query, which is part of what is signed under one of them.
        let mut webhook =
            json!({ "profile": profile, "url": system.receiver.url(&format!("/{profile}?a=1&b=%20")) });
        if profile == "entrust" {
            webhook["url"] = tls.url("/entrust?a=1&b=%20").into();
            webhook["tls"] = json!({ "ca_pem": authority.pem() });
        }
        let (_, secret) = system.webhook(&format!("/{profile}"), &webhook).await;
        secrets.insert(profile, secret);
    }
    system.configured(&router).await;

    let mut published = BTreeMap::new();
    for product in PRODUCTS {
        let path = workspace_dir().join(format!("tests/fixtures/events/{product}.jsonl"));
        for line in std::fs::read_to_string(path).unwrap().lines() {
            let event: Published = serde_json::from_str(line).unwrap();
            let properties =
                BasicProperties::default().with_content_type("application/json".into()).with_delivery_mode(2);
            vhost.publish("postrider.events", "default", line.as_bytes(), properties).await;
            published.insert(event.id.clone(), event);
        }
    }
    system.balanced(150 * 8).await;

    let kinds = kinds();
    let of = |profile: &str| {
        let receiver = if profile == "entrust" { &tls } else { &system.receiver };
        (receiver.requests_to(&format!("/{profile}")), receiver.url(""))
    };
    let id_of = |request: &Request| request.header("webhook-event-id").unwrap().to_owned();
    // Where upstream gave no time it is that of the arrival.
    let times: BTreeMap<String, String> = of("postrider")
        .0
        .iter()
        .map(|request| (id_of(request), request.json()["event_time"].as_str().unwrap().to_owned()))
        .collect();
    for (profile, _, own) in PROFILES {
        let (requests, _) = of(profile);
        assert_eq!(requests.len(), 150, "{profile}");
        for request in &requests {
            let id = id_of(request);
            let (event, time) = (&published[&id], times[&id].as_str());
            assert!(event.event_time.as_deref().is_none_or(|given| given == time), "{id}");
            let delivery = request.header("webhook-id").unwrap().strip_prefix("msg_").unwrap();
            let delivery = DeliveryId::from_trusted(delivery);
            let expected = expected(profile, event, time, &kinds[&event.event_type], &delivery);
            assert_eq!(String::from_utf8_lossy(&request.body), expected, "{profile} {id}");

            let ours =
                ["user-agent", "webhook-attempt", "webhook-event-id", "webhook-id", "webhook-timestamp"];
            let mut allowed =
                [&["host", "content-length", "accept", "content-type"], &ours[..], own].concat();
            if profile == "cloudevents-binary" && event.key.is_some() {
                allowed.push("ce-subject");
            }
            let mut names: Vec<&str> = request.headers.iter().map(|(name, _)| name.as_str()).collect();
            names.sort_unstable();
            allowed.sort_unstable();
            assert_eq!(names, allowed, "{profile} {id}");
        }
    }

    if let Some(python) = python() {
        for (profile, name, _) in PROFILES {
            let (requests, base) = of(profile);
            verify(script(&python, name, &secrets[profile]), &base, &requests);
        }
    }
    if let Some(node_path) = node_path() {
        for (profile, _, _) in PROFILES.iter().filter(|(_, name, _)| *name == "verify.py") {
            let (requests, base) = of(profile);
            let mut node = Command::new("node");
            node.arg(workspace_dir().join("tests/node/verify.js"))
                .arg(&secrets[profile])
                .env("NODE_PATH", &node_path);
            verify(node, &base, &requests);
        }
    }
    for role in [control, router, worker] {
        role.stop().await;
    }
}
