//! `postrider listen`: real deliveries reach a program on this machine, and its answers are what the books say.

use std::time::Duration;

use postrider_core::Timestamp;
use postrider_core::profile::KeyForm;
use postrider_core::signature::SigningKey;
use postrider_testkit::process::{Postrider, free_port};
use postrider_testkit::rabbit::{Broker, Vhost};
use postrider_testkit::{Answer, Receiver, eventually, eventually_some};
use serde_json::{Value, json};

use crate::system::System;

/// How long a command may take to end.
const END: Duration = Duration::from_secs(30);

/// Starts an inbox at an address, and waits until it answers.
async fn inbox(address: &str) -> Postrider {
    let inbox = Postrider::with(["inbox", "--listen", address]).start();
    eventually("the inbox answers", async || {
        let asked = postrider_testkit::http::client().get(format!("http://{address}/_inbox")).send().await;
        asked.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    inbox
}

/// Starts to listen, and waits until the webhook is there: the process, the webhook's id, and its secret.
async fn listen(system: &System, inbox: &str, target: &str, more: &[&str]) -> (Postrider, String, String) {
    let listener = Postrider::with(["listen", target, "-o", "jsonl"])
        .args(more.iter().copied())
        .envs(system.env())
        .env("POSTRIDER_INBOX_URL", format!("http://{inbox}"))
        .start();
    let secret = eventually_some("it shows the secret", async || {
        let log = listener.log();
        assert!(listener.exited().is_none(), "{log}");
        let (_, secret) = log.split_once("export WEBHOOK_SECRET=")?;
        secret.split_once('\n').map(|(secret, _)| secret.to_owned())
    })
    .await;
    let webhooks = system.get("/v1/webhooks").await;
    let [webhook] = webhooks["items"].as_array().unwrap().as_slice() else { panic!("{webhooks:#}") };
    assert!(webhook["name"].as_str().unwrap().starts_with("listen on "), "{webhook:#}");
    (listener, webhook["id"].as_str().unwrap().to_owned(), secret)
}

/// What it printed for programs so far.
fn lines(listener: &Postrider) -> Vec<Value> {
    let log = listener.log();
    log.lines().filter(|line| line.starts_with('{')).map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Waits until an event has been delivered, and returns the delivery with its attempts.
async fn delivered(system: &System, event: &str) -> Value {
    let path = format!("/v1/deliveries?event={event}");
    let id = eventually_some("it is delivered", async || {
        let listed = system.get(&path).await;
        let delivery =
            listed["items"].as_array()?.iter().find(|delivery| delivery["state"] == "delivered")?;
        delivery["id"].as_str().map(str::to_owned)
    })
    .await;
    system.get(&format!("/v1/deliveries/{id}")).await
}

#[tokio::test]
async fn deliveries_reach_a_local_program_and_its_answers_are_the_attempts() {
    let vhost = Vhost::create(&Broker::shared().await, "listen").await;
    let system = System::new(vhost.url()).await;
    let all = system.start("all").ready().await;
    let address = format!("127.0.0.1:{}", free_port());
    let inbox = inbox(&address).await;
    let program = Receiver::start().await;
    program.answer(
        "/hooks",
        [Answer::Status(503).with_body("not yet").with_header("x-mine", "1"), Answer::Status(200)],
    );
    let target = program.url("/hooks");
    let (listener, webhook, secret) =
        listen(&system, &address, &target, &["--event-type", "USER_CREATED", "--schedule", "100ms,100ms"])
            .await;

    let event = json!({ "event_type": "USER_CREATED", "id": "e1", "data": { "n": 1.50 } });
    system.post("/v1/events", &json!({ "event_type": "USER_DELETED", "id": "e0" })).await;
    system.post("/v1/events", &event).await;
    let delivery = delivered(&system, "e1").await;
    let attempts = delivery["all_series"][0]["attempts"].as_array().unwrap();
    let statuses: Vec<&Value> = attempts.iter().map(|attempt| &attempt["status"]).collect();
    assert_eq!(statuses, [&json!(503), &json!(200)], "{delivery:#}");
    assert!(attempts[0].to_string().contains("not yet"), "the program's answer is kept: {delivery:#}");

    // What came is what a receiver gets anywhere: the same id twice, signed with the secret that was shown.
    let requests = program.requests();
    assert_eq!(requests.len(), 2, "the other type was not asked for");
    let key = SigningKey::of_secret(&secret, KeyForm::Base64).unwrap();
    for (n, request) in (1..).zip(&requests) {
        let header = |name: &str| request.header(name).unwrap().to_owned();
        let time = Timestamp::from_millis(header("webhook-timestamp").parse::<i64>().unwrap() * 1000);
        assert!(key.verifies(&header("webhook-signature"), &header("webhook-id"), time, &request.body));
        assert_eq!((header("webhook-attempt"), request.method.as_str()), (format!("{n}"), "POST"));
        assert_eq!(header("host"), program.address().to_string());
        assert!(request.json().to_string().contains("1.5"), "{}", request.json());
    }
    let said = eventually_some("both are said", async || {
        let lines = lines(&listener);
        (lines.len() == 2).then_some(lines)
    })
    .await;
    let about = |line: &Value| (line["status"].clone(), line["attempt"].clone(), line["event_type"].clone());
    assert_eq!(about(&said[0]), (json!(503), json!(1), json!("USER_CREATED")));
    assert_eq!(about(&said[1]), (json!(200), json!(2), json!("USER_CREATED")));
    assert_eq!(listener.log().matches(&secret).count(), 1, "shown once");

    // Nobody else at the inbox sees any of it.
    let listed =
        postrider_testkit::http::client().get(format!("http://{address}/_inbox")).send().await.unwrap();
    assert_eq!(listed.json::<Value>().await.unwrap()["items"], json!([]));

    // A program that is not there is a reason that the attempt shows.
    drop(program);
    system.post("/v1/events", &json!({ "event_type": "USER_CREATED", "id": "e2" })).await;
    eventually("it was tried in vain", async || {
        lines(&listener).last().is_some_and(|line| line["status"] == 502 && line["error"].is_string())
    })
    .await;

    listener.interrupt();
    let status = listener.wait_exit(END).await;
    let log = listener.log();
    assert!(status.success(), "{status}: {log}");
    assert!(log.contains(&format!("the webhook {webhook} is deleted")), "{log}");
    assert_eq!(system.get("/v1/webhooks").await["items"], json!([]));
    drop(inbox);
    all.stop().await;
}

#[tokio::test]
async fn a_listener_outlives_its_inbox_and_says_when_there_is_none() {
    let vhost = Vhost::create(&Broker::shared().await, "listening").await;
    let system = System::new(vhost.url()).await;
    let all = system.start("all").ready().await;
    let address = format!("127.0.0.1:{}", free_port());
    let program = Receiver::start().await;
    let port = program.address().port().to_string();

    // Without an inbox nothing is made, and the message says how to start one.
    let nobody = Postrider::with(["listen", &port])
        .envs(system.env())
        .env("POSTRIDER_INBOX_URL", format!("http://{address}"))
        .start();
    assert_eq!(nobody.wait_exit(END).await.code(), Some(5), "{}", nobody.log());
    assert!(nobody.log().contains("next: start an inbox"), "{}", nobody.log());
    assert_eq!(system.get("/v1/webhooks").await["items"], json!([]));

    let first = inbox(&address).await;
    let (listener, webhook, _) = listen(&system, &address, &port, &["--schedule", "100ms,500ms,1s,2s"]).await;
    system.post("/v1/events", &json!({ "event_type": "USER_CREATED", "id": "e1" })).await;
    delivered(&system, "e1").await;
    assert_eq!(program.requests()[0].path(), "/");

    // Another inbox at the same address knows nothing of the listener, until that asks.
    first.kill();
    first.wait_exit(END).await;
    let second = inbox(&address).await;
    eventually("it listens again", async || listener.log().contains("it listens again")).await;
    system.post("/v1/events", &json!({ "event_type": "USER_CREATED", "id": "e2" })).await;
    delivered(&system, "e2").await;

    // SIGTERM is as good as Ctrl-C. What cannot be deleted is said, with the command that does it.
    all.stop().await;
    listener.terminate();
    assert_eq!(listener.wait_exit(END).await.code(), Some(5), "{}", listener.log());
    let by_hand = format!("next: postrider webhook delete {webhook}");
    assert!(listener.log().contains(&by_hand), "{}", listener.log());
    drop(second);
}
