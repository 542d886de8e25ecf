//! What the demo tells, and how it checks that it is true.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use postrider_broker::Readiness;
use postrider_core::Timestamp;
use postrider_core::catalogue::{Catalogue, TypeEntry};
use serde_json::{Value, json};
use url::Url;

use super::catalogues::{all, example, some};
use super::stage::Receiver;
use crate::api::{Answer, Api};
use crate::commands::delivery::{ATTEMPT_COLUMNS, COLUMNS, attempts_of, ended};
use crate::commands::open;
use crate::commands::status::books;
use crate::commands::wait_for;
use crate::exit::{Exit, Failure};
use crate::inbox::{self, Order};
use crate::output::{Output, Tone, plain};
use crate::settings::Settings;
use crate::table;

/// Starting everything may take this long.
const START: Duration = Duration::from_secs(60);
/// Each step may take this long.
pub(super) const STEP: Duration = Duration::from_secs(30);
/// The books come to rest within this.
const REST: Duration = Duration::from_secs(60);
/// Events of each product, beside those that come of an action.
pub(super) const EVENTS: usize = 3;
/// Deadline of a request to the inbox: short, since the books wait for the longest before they call it rest.
pub(super) const TIMEOUT_MS: u64 = 1_000;

/// What the demo tells.
pub(super) struct Story<'a> {
    pub(super) out: Output,
    pub(super) api: Api,
    pub(super) settings: &'a Settings,
    pub(super) receiver: &'a Receiver,
    pub(super) readiness: Vec<(&'static str, Readiness)>,
    pub(super) health: SocketAddr,
}

/// A webhook of the demo.
struct Target {
    id: String,
    name: String,
}

impl Story<'_> {
    /// Tells it all.
    pub(super) async fn tell(&self) -> Result<(), Failure> {
        self.line(
            &self.out.paint(Tone::Strong, &format!("Postrider {} at work", env!("CARGO_PKG_VERSION"))),
        )?;
        self.start().await?;
        let catalogues = all()?;
        self.tenants(&catalogues).await?;
        let events = self.side_by_side(&catalogues).await?;
        let Some(shop) = catalogues.first() else {
            return Err(untrue("there should be catalogues", "there are none"));
        };
        let spare = some(shop, EVENTS + 2);
        let [.., fails, breaks] = spare.as_slice() else {
            return Err(Failure::new(
                Exit::Other,
                "the demo has no events",
                "the first catalogue is too small",
            ));
        };
        let api = self.of(shop);
        let recovered = self.recovers(&api, fails).await?;
        let redelivered = self.dies(&api, breaks).await?;
        self.operators(&api, &[recovered, redelivered]).await?;
        self.books(&catalogues, events + 2).await
    }

    /// Says what to try while everything goes on.
    pub(super) async fn invite(&self, base: &Url) -> Result<(), Failure> {
        let token = self.settings.state_dir.admin_token_file();
        let token = std::path::absolute(&token).unwrap_or(token);
        let (base, inbox) = (base.as_str().trim_end_matches('/'), &self.receiver.base);
        let postrider = std::env::args().next().unwrap_or_else(|| "postrider".to_owned());
        self.chapter("Your turn: everything goes on until Ctrl-C")?;
        self.line("  The console; this link logs you in, once, within five minutes:")?;
        self.line(&format!("  {}", open::link(&self.api, None).await?.0))?;
        self.line(&format!("  export POSTRIDER_API_URL={base} POSTRIDER_INBOX_URL={inbox}"))?;
        self.line(&format!("  export POSTRIDER_ADMIN_TOKEN_FILE={}", token.display()))?;
        for command in [
            "status".to_owned(),
            "delivery list --tenant skillmine-auth".to_owned(),
            format!("webhook create --name mine --url {inbox}/in/mine --all"),
            "event send HELLO -d '{\"to\":\"you\"}' --wait".to_owned(),
            "inbox list mine".to_owned(),
            "listen 3000".to_owned(),
            "open".to_owned(),
        ] {
            self.line(&format!("  {postrider} {command}"))?;
        }
        self.line(&format!("  curl -s http://{}/metrics", self.health))
    }

    async fn start(&self) -> Result<(), Failure> {
        self.chapter("Start")?;
        let begun = Instant::now();
        wait_for("the roles are not ready", START, || async {
            let waits: Vec<String> = self
                .readiness
                .iter()
                .filter(|(_, readiness)| !readiness.is_ready())
                .map(|(role, readiness)| {
                    let parts = readiness.parts().into_iter();
                    let why = parts.filter_map(|(part, state)| Some(format!("{part}: {}", state.err()?)));
                    format!("{role} waits ({})", why.collect::<Vec<_>>().join(", "))
                })
                .collect();
            Ok(if waits.is_empty() { Ok(()) } else { Err(waits.join("; ")) })
        })
        .await?;
        let broker = self.settings.broker_as("operator")?;
        let seconds = begun.elapsed().as_secs_f64();
        self.good("RabbitMQ", &format!("at {}, every name begins with {}", broker.address(), broker.prefix))?;
        self.good("router, worker, control", &format!("ready after {seconds:.1} s"))?;
        self.good("API", &format!("{}v1", self.api.base()))?;
        self.good("health and metrics", &format!("http://{}/readyz and /metrics", self.health))?;
        self.good("inbox", &format!("{}/in/NAME receives and verifies", self.receiver.base))
    }

    /// A receiver answers 503 twice and then recovers.
    async fn recovers(&self, api: &Api, event_type: &TypeEntry) -> Result<String, Failure> {
        self.chapter("A receiver that fails twice, and recovers")?;
        let retry = json!({"schedule_ms": [400, 800], "jitter": 0});
        let webhook = self.webhook(api, "recovers", json!({"event_types": [event_type.name]}), retry).await?;
        self.told("recovers", json!({"answer": 503, "times": 2}))?;
        let id = one(send(api, &[event_type]).await?)?;
        let delivery = self.watch(api, &webhook, &id, &["503", "503", "200"]).await?;
        self.ended_as(api, &delivery, "delivered").await?;
        Ok(delivery)
    }

    /// A receiver breaks until the delivery is given up; repaired, it gets it again.
    async fn dies(&self, api: &Api, event_type: &TypeEntry) -> Result<String, Failure> {
        self.chapter("A receiver that breaks, and is repaired")?;
        let retry = json!({"max_attempts": 2, "initial_ms": 400, "jitter": 0});
        let webhook = self.webhook(api, "breaks", json!({"event_types": [event_type.name]}), retry).await?;
        self.told("breaks", json!({"answer": 500}))?;
        let id = one(send(api, &[event_type]).await?)?;
        let delivery = self.watch(api, &webhook, &id, &["500", "500"]).await?;
        self.ended_as(api, &delivery, "dead").await?;
        let letter = wait_for("the dead letter is not there", STEP, || async {
            let dead = api.get("cannot list dead letters", &["dead-letters"], &[]).await?;
            let found = dead.items().iter().find(|letter| letter["delivery"] == delivery.as_str()).cloned();
            Ok(found.ok_or_else(|| "it is not listed".to_owned()))
        })
        .await?;
        self.bad("given up", &format!("{}, a dead letter now", plain(letter.get("reason"))))?;
        self.told("breaks", json!({"answer": 200}))?;
        self.good("repaired", "the receiver answers 200 again")?;
        api.post("cannot redeliver", &["deliveries", &delivery, "redeliver"], None).await?;
        self.ended_as(api, &delivery, "delivered").await?;
        let (all, _) = self.receiver.inbox.received("breaks");
        let ids: Vec<Option<&str>> = all.iter().map(|received| received.header("webhook-id")).collect();
        if ids.len() != 3 || ids.iter().any(|id| id.is_none() || *id != ids[0]) {
            return Err(untrue(
                "the receiver should see one webhook-id three times",
                &format!("it saw {ids:?}"),
            ));
        }
        self.good("redelivered", "200 in a new series, with the same webhook-id for the receiver")?;
        Ok(delivery)
    }

    /// What the people who run it see.
    async fn operators(&self, api: &Api, deliveries: &[String]) -> Result<(), Failure> {
        self.chapter("What operators see: postrider delivery list, postrider delivery get")?;
        let table = self.out.as_table();
        let listed = api.get("cannot list deliveries", &["deliveries"], &[("limit", "5".to_owned())]).await?;
        table.list("", listed.items(), COLUMNS)?;
        let Some(last) = deliveries.last() else { return Ok(()) };
        let shown = api.get("cannot show a delivery", &["deliveries", last], &[]).await?;
        self.line("")?;
        table.list("", &attempts_of(&shown.value), ATTEMPT_COLUMNS)
    }

    /// The books balance, and what was received is what was logged.
    async fn books(&self, catalogues: &[Catalogue], events: usize) -> Result<(), Failure> {
        self.chapter("The books: everything accepted is somewhere")?;
        let status = wait_for("the books do not come to rest with drift 0", REST, || async {
            let status = self.api.get("cannot show the books", &["status"], &[]).await?.value;
            let number = |path: &str| status.pointer(path).and_then(Value::as_u64);
            let rests = status["at_rest"] == true
                && number("/drift") == Some(0)
                && number("/deliveries/pending") == Some(0)
                && number("/events/waiting") == Some(0)
                && number("/events/accepted") >= u64::try_from(events).ok();
            Ok(if rests { Ok(status) } else { Err(format!("they say {status}")) })
        })
        .await?;
        for line in books(&self.out, &status).lines() {
            self.line(&format!("  {line}"))?;
        }
        let mut logged = 0;
        let mut received = 0;
        for catalogue in catalogues {
            let api = self.of(catalogue);
            let all =
                api.get("cannot list deliveries", &["deliveries"], &[("limit", "100".to_owned())]).await?;
            for delivery in all.items() {
                let id = plain(delivery.get("id"));
                let shown = api.get("cannot show a delivery", &["deliveries", &id], &[]).await?;
                logged += attempts_of(&shown.value).len() as u64;
            }
            received += self.receiver.inbox.received(&catalogue.product.id).1;
        }
        received += self.receiver.inbox.received("recovers").1 + self.receiver.inbox.received("breaks").1;
        if logged != received {
            let why = format!("{received} were received and {logged} are logged");
            return Err(untrue("every request should be in the log of attempts, once", &why));
        }
        self.good("the log is the wire", &format!("{received} requests received, {logged} attempts logged"))
    }

    /// Makes a webhook to the inbox's `name`, and gives the inbox its secret.
    async fn webhook(
        &self,
        api: &Api,
        name: &str,
        subscription: Value,
        retry: Value,
    ) -> Result<Target, Failure> {
        let url = self.receiver.url(name, false);
        let body = json!({
            "name": name, "url": url, "subscription": subscription, "retry": retry, "timeout_ms": TIMEOUT_MS
        });
        let made = api.post("cannot make a webhook", &["webhooks"], Some(body.to_string())).await?;
        let secret = made.value["secret"].as_str().unwrap_or_default();
        self.told(name, json!({"secret": secret}))?;
        Ok(Target { id: plain(made.value.get("id")), name: name.to_owned() })
    }

    pub(super) fn told(&self, name: &str, order: Value) -> Result<(), Failure> {
        let order: Order = serde_json::from_value(order)
            .map_err(|_| Failure::new(Exit::Other, "cannot tell the inbox", "the order cannot be read"))?;
        self.receiver
            .inbox
            .order(name, &order, Instant::now())
            .map_err(|error| Failure::new(Exit::Other, "cannot tell the inbox", error))
    }

    /// Shows requests to a webhook as they come, until it has answered all that is expected; returns the delivery.
    async fn watch(
        &self,
        api: &Api,
        webhook: &Target,
        event: &str,
        expected: &[&str],
    ) -> Result<String, Failure> {
        let begun = Instant::now();
        let mut shown = 0;
        while shown < expected.len() {
            let (all, _) = self.receiver.inbox.received(&webhook.name);
            for received in all.iter().skip(shown) {
                let attempt = received.header("webhook-attempt").unwrap_or("?");
                let left = format!("attempt {attempt}");
                let right = format!("{} after {:.1} s", received.answer, begun.elapsed().as_secs_f64());
                match received.answer {
                    inbox::Answer::Status(200..=299) => self.good(&left, &right)?,
                    inbox::Answer::Status(_) | inbox::Answer::Hang(_) if shown + 1 == expected.len() => {
                        self.bad(&left, &right)?;
                    }
                    inbox::Answer::Status(_) | inbox::Answer::Hang(_) => self.again(&left, &right)?,
                }
                let expected = expected.get(shown).copied().unwrap_or("nothing");
                if received.answer.to_string() != expected || received.verified != Some(true) {
                    let got = format!("it was {}, {:?}", received.answer, received.reason);
                    return Err(untrue(
                        &format!("answer {} should be {expected}, verified", shown + 1),
                        &got,
                    ));
                }
                shown += 1;
            }
            if begun.elapsed() > STEP {
                let got = format!("after {} s there were {shown}", STEP.as_secs());
                return Err(untrue(
                    &format!("{} requests should reach {}", expected.len(), webhook.name),
                    &got,
                ));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let event = wait_for("the event is not in the books", STEP, || async {
            match api.get("cannot show an event", &["events", event], &[]).await {
                Ok(event) => Ok(Ok(event)),
                Err(failure) if failure.exit == Exit::NotFound => Ok(Err("it is not there".to_owned())),
                Err(failure) => Err(failure),
            }
        })
        .await?;
        let delivery = event.value["deliveries"].as_array().into_iter().flatten();
        let delivery = delivery
            .filter(|delivery| delivery["webhook"] == webhook.id.as_str())
            .map(|d| plain(d.get("id")));
        one(delivery.collect())
    }

    async fn ended_as(&self, api: &Api, delivery: &str, state: &str) -> Result<(), Failure> {
        match ended(api, &[delivery.to_owned()], STEP, |_| {}).await?.first() {
            Some((_, found)) if found == state => Ok(()),
            found => {
                let found = found.map_or("gone", |(_, found)| found.as_str());
                Err(untrue(&format!("the delivery {delivery} should be {state}"), &format!("it is {found}")))
            }
        }
    }

    pub(super) fn chapter(&self, title: &str) -> Result<(), Failure> {
        self.line("")?;
        self.line(&self.out.paint(Tone::Strong, title))
    }

    pub(super) fn good(&self, left: &str, right: &str) -> Result<(), Failure> {
        self.marked(Tone::Good, "✓", left, right)
    }

    fn bad(&self, left: &str, right: &str) -> Result<(), Failure> {
        self.marked(Tone::Bad, "✕", left, right)
    }

    fn again(&self, left: &str, right: &str) -> Result<(), Failure> {
        self.marked(Tone::Open, "↻", left, right)
    }

    fn marked(&self, tone: Tone, mark: &str, left: &str, right: &str) -> Result<(), Failure> {
        let left = table::cut(&table::printable(left), 42);
        self.line(&format!("  {} {left:<42}  {}", self.out.paint(tone, mark), table::printable(right)))
    }

    fn line(&self, text: &str) -> Result<(), Failure> {
        self.out.text(text)
    }
}

/// Sends one event of each of these types, as the catalogue shows it, and returns their ids.
async fn send(api: &Api, event_types: &[&TypeEntry]) -> Result<Vec<String>, Failure> {
    let examples: Vec<Value> = event_types.iter().map(|event_type| example(event_type)).collect();
    let sent = api.post("cannot send events", &["events"], Some(json!(examples).to_string())).await?;
    let ids: Vec<String> = sent.items().iter().map(|item| plain(item.get("id"))).collect();
    if ids.len() == event_types.len() {
        return Ok(ids);
    }
    Err(untrue(
        &format!("{} events should be accepted", event_types.len()),
        &format!("the answer has {}", ids.len()),
    ))
}

pub(super) fn one<T>(mut found: Vec<T>) -> Result<T, Failure> {
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        _ => Err(untrue("there should be exactly one", "there is another number of them")),
    }
}

/// When the first answer came, milliseconds.
pub(super) fn answered_ms(delivery: &Answer) -> Option<i64> {
    let attempts = attempts_of(&delivery.value);
    let first = attempts.first()?;
    Some(millis(first.get("at"))? + i64::try_from(first.get("duration_ms")?.as_u64()?).ok()?)
}

pub(super) fn millis(time: Option<&Value>) -> Option<i64> {
    Timestamp::parse_rfc3339(time?.as_str()?).map(Timestamp::as_millis)
}

pub(super) fn untrue(expected: &str, found: &str) -> Failure {
    Failure::new(Exit::Other, expected, found)
}
