//! `postrider inbox`.

use std::sync::Arc;

use postrider_core::profile::SignatureSpec;
use reqwest::Method;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::Context;
use crate::api::{http_client, read_body};
use crate::args::{Inbox, InboxCommand};
use crate::exit::{Exit, Failure, cause};
use crate::health;
use crate::inbox::{self, Answer, Certificate, Order, Received, Verifier};
use crate::ledger::Ledger;
use crate::output::{self, Column};
use crate::settings::{Secret, read_file_or_stdin};

const COLUMNS: &[Column] = &[
    ("RECEIVED", "/received_at"),
    ("EVENT TYPE", "/event_type"),
    ("SIGNED BY", "/scheme"),
    ("VERIFIED", "/verified"),
    ("REASON", "/reason"),
    ("ANSWER", "/answer"),
    ("BODY", "/body"),
];

/// Runs an inbox, or tells a running one what to do.
///
/// # Errors
/// [`Failure`] with what could not be done.
pub async fn run(context: &Context, command: Inbox) -> Result<Exit, Failure> {
    let Inbox { listen, secret_file, profile, tls_ca_to, ledger, command } = command;
    let base = |given: Option<Url>| given.unwrap_or_else(|| context.settings.operator.inbox_url.clone());
    match command {
        None => {
            let secret = secret_file.as_deref().map(read_file_or_stdin).transpose()?;
            let any = secret.map(|secret| verifier(&secret, profile.as_deref())).transpose()?;
            let ledger = ledger.as_deref().map(Ledger::open).transpose()?;
            let inbox = inbox::Inbox::new(any).with_ledger(ledger);
            receive(context, listen, inbox, tls_ca_to.as_deref()).await
        }
        Some(InboxCommand::Answer { name, answer, times, duration, retry_after, inbox }) => {
            let Some(answer) = Answer::parse(&answer) else {
                return Err(Failure::usage(
                    format!("cannot answer {answer:?}"),
                    "it must be a status from 200 to 599, or hang",
                ));
            };
            let order = Order {
                answer: Some(answer),
                times,
                for_ms: duration.map(|lasts| u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX)),
                retry_after: retry_after.map(|wait| wait.as_secs()),
                ..Order::default()
            };
            tell(&base(inbox), &name, &order).await?;
            context.out.note(&format!("{name} answers {answer} from now on"));
            Ok(Exit::Ok)
        }
        Some(InboxCommand::Secret { name, secret_file, profile, inbox }) => {
            let secret = read_file_or_stdin(&secret_file)?;
            let order = Order { secret: Some(secret.reveal().to_owned()), profile, ..Order::default() };
            tell(&base(inbox), &name, &order).await?;
            context.out.note(&format!("{name} verifies from now on"));
            Ok(Exit::Ok)
        }
        Some(InboxCommand::List { name, inbox }) => {
            let raw = call(&base(inbox), Method::GET, &name, None).await?;
            let list: Value = serde_json::from_str(&raw)
                .map_err(|error| Failure::new(Exit::Unavailable, "cannot read the inbox's answer", error))?;
            let items = list["items"].as_array().map_or(&[][..], Vec::as_slice);
            context.out.list(&raw, items, COLUMNS)?;
            Ok(Exit::Ok)
        }
    }
}

async fn receive(
    context: &Context,
    listen: std::net::SocketAddr,
    inbox: inbox::Inbox,
    tls_ca_to: Option<&std::path::Path>,
) -> Result<Exit, Failure> {
    let listener = health::bind(listen, "--listen").await?;
    let address = listener
        .local_addr()
        .map_err(|error| Failure::new(Exit::Other, "cannot read the inbox's own address", error))?;
    let certificate = match tls_ca_to {
        None => None,
        Some(path) => {
            let certificate = Certificate::new(address)
                .map_err(|error| Failure::new(Exit::Other, "cannot receive over TLS", error))?;
            std::fs::write(path, certificate.ca_pem()).map_err(|error| {
                Failure::new(Exit::Other, format!("cannot write {}", path.display()), error)
            })?;
            context.out.note(&format!("{} is for the webhook's tls.ca_pem", path.display()));
            Some(certificate)
        }
    };
    let scheme = if certificate.is_some() { "https" } else { "http" };
    if !address.ip().is_loopback() {
        output::note(
            "postrider: warning: anybody who reaches this address can read what came and change the answers",
        );
    }
    context.out.note(&format!("webhooks may send to {scheme}://{address}/in/NAME"));
    if certificate.is_none() {
        context
            .out
            .note(&format!("  answer:  postrider inbox answer NAME 503 --times 3 --inbox http://{address}"));
        context.out.note(&format!("  list:    postrider inbox list NAME --inbox http://{address}"));
    }
    let out = context.out;
    let notify = move |received: &Received| {
        let line = match out.is_table() {
            true => received.line(),
            false => serde_json::to_string(received).unwrap_or_default(),
        };
        // Nobody reads any more: then there is nobody to tell.
        output::data(&line).ok();
    };
    let stop = CancellationToken::new();
    let server = inbox::serve(listener, certificate, Arc::new(inbox), notify, stop.clone());
    tokio::select! {
        () = server => Err(Failure::new(Exit::Other, "the inbox ended", "its server failed")),
        interrupted = crate::serve::signal() => {
            stop.cancel();
            interrupted.map(|()| Exit::Ok)
        }
    }
}

fn verifier(secret: &Secret, profile: Option<&str>) -> Result<Verifier, Failure> {
    let signature = match profile {
        Some(profile) => inbox::signature_of(profile).map_err(|error| Failure::usage("--profile", error))?,
        None => SignatureSpec::default(),
    };
    Verifier::new(signature, secret.reveal()).map_err(|error| Failure::usage("--secret-file", error))
}

async fn tell(base: &Url, name: &str, order: &Order) -> Result<(), Failure> {
    let body =
        serde_json::to_string(order).map_err(|error| Failure::usage("cannot write the order", error))?;
    call(base, Method::PUT, name, Some(body)).await.map(|_| ())
}

async fn call(base: &Url, method: Method, name: &str, body: Option<String>) -> Result<String, Failure> {
    let what = format!("cannot talk to the inbox about {name}");
    let mut url = base.clone();
    match url.path_segments_mut() {
        Ok(mut segments) => drop(segments.pop_if_empty().extend(["_inbox", name])),
        Err(()) => return Err(Failure::usage(what, format!("{base} cannot hold a path"))),
    }
    let mut request = http_client(base)?.request(method, url);
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body);
    }
    let response = request.send().await.map_err(|error| {
        Failure::new(Exit::Unavailable, &what, format!("{base} cannot be reached: {}", cause(&error)))
            .next("start one with: postrider inbox; or name it with --inbox URL")
    })?;
    let status = response.status();
    let raw = read_body(response).await.map_err(|why| Failure::new(Exit::Unavailable, &what, why))?;
    if status.is_success() {
        return Ok(raw);
    }
    let detail =
        serde_json::from_str::<Value>(&raw).ok().and_then(|body| body["detail"].as_str().map(str::to_owned));
    Err(Failure::new(
        Exit::of_status(status.as_u16()),
        what,
        detail.unwrap_or_else(|| format!("the answer was {status}")),
    ))
}
