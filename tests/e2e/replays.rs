//! Replays: what was lost, skipped or never had is sent again, once, at a rate, whatever is killed meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use postrider_testkit::process::{self, Postrider};
use postrider_testkit::rabbit::{Broker, Vhost};
use postrider_testkit::{Answer, eventually, patience, within, workspace_dir};
use reqwest::Method;
use serde_json::{Value, json};

use crate::system::System;

impl System {
    /// Publishes events, ids from `first` up to and without `past`.
    async fn happens(&self, kind: &str, numbers: std::ops::Range<usize>) {
        let numbers: Vec<usize> = numbers.collect();
        for chunk in numbers.chunks(100) {
            let events: Vec<Value> = chunk
                .iter()
                .map(|n| json!({ "event_type": "USER_CREATED", "id": format!("{kind}-{n}"), "data": { "n": n } }))
                .collect();
            self.post("/v1/events", &Value::Array(events)).await;
        }
    }

    /// Waits until the books count so many in a state.
    async fn counted(&self, part: &str, state: &str, count: u64) {
        eventually(&format!("{count} {state}"), async || self.status().await[part][state] == count).await;
    }

    /// Plans a replay, and waits until it is planned.
    async fn plan(&self, body: &Value) -> Value {
        let made = self.post("/v1/replays", body).await;
        let path = format!("/v1/replays/{}", made["id"].as_str().unwrap());
        let planned = within(patience(), async || {
            let replay = self.get(&path).await;
            (replay["state"] != "planning").then_some(replay)
        });
        planned.await.expect("the replay is planned")
    }

    /// Runs a replay, and waits until all of it has ended.
    async fn replay(&self, body: &Value) -> Value {
        let planned = self.plan(body).await;
        let path = format!("/v1/replays/{}", planned["id"].as_str().unwrap());
        self.post(&format!("{path}/run"), &Value::Null).await;
        let mut last = Value::Null;
        let ended = within(3 * patience(), async || {
            last = self.get(&path).await;
            (last["state"] == "done" && last["outcomes"]["pending"] == 0).then_some(())
        });
        assert!(ended.await.is_some(), "the replay did not end: {last:#}");
        last
    }
}

/// Ids of requests to a path, and how often each came.
fn ids_at(system: &System, path: &str) -> BTreeMap<String, usize> {
    let mut ids = BTreeMap::new();
    for request in system.receiver.requests_to(path) {
        *ids.entry(request.header("webhook-id").unwrap().to_owned()).or_default() += 1;
    }
    ids
}

async fn call(system: &System, method: Method, path: &str) {
    let (status, answer) = system.call(method, path, None).await;
    assert!(status.is_success(), "{path}: {status} {answer}");
}

#[tokio::test]
async fn what_was_lost_skipped_or_never_had_is_sent_again() {
    let vhost = Vhost::create(&Broker::shared().await, "replays").await;
    let system = System::new(vhost.url()).await;
    let roles = system.start_all_roles().await;

    // A receiver that is down for longer than its retries.
    system.receiver.answer("/billing", [Answer::Status(400)]);
    let retry = json!({ "retry": { "initial_ms": 100, "max_attempts": 2, "jitter": 0.0 } });
    let (billing, _) = system.webhook("/billing", &retry).await;
    system.happens("lost", 0..20).await;
    system.counted("deliveries", "dead", 20).await;
    let lost: BTreeSet<String> = ids_at(&system, "/billing").into_keys().collect();
    system.receiver.answer("/billing", [Answer::Status(200)]);
    let planned = system.plan(&json!({ "states": ["dead"], "webhook": billing })).await;
    assert_eq!((&planned["chosen"], &planned["looked_at"]), (&json!(20), &json!(20)), "{planned:#}");
    let before = system.receiver.count();
    let done =
        system.replay(&json!({ "states": ["dead"], "webhook": billing, "rate_per_second": 1000 })).await;
    assert_eq!((&done["sent"], &done["outcomes"]["delivered"]), (&json!(20), &json!(20)), "{done:#}");
    let again: BTreeSet<String> = system
        .receiver
        .requests_from(before)
        .iter()
        .map(|request| request.header("webhook-id").unwrap().to_owned())
        .collect();
    assert_eq!((again, system.receiver.count() - before), (lost, 20), "the same ids, each once");
    // The plan that was only looked at comes too late: what it chose was made again, and it says so.
    let path = format!("/v1/replays/{}", planned["id"].as_str().unwrap());
    system.post(&format!("{path}/run"), &Value::Null).await;
    eventually("it is done", async || system.get(&path).await["state"] == "done").await;
    let late = system.get(&path).await;
    assert_eq!((&late["sent"], &late["dropped"]), (&json!(0), &json!({ "made_again": 20 })), "{late:#}");
    assert_eq!(system.status().await["deliveries"]["dead_unresolved"], 0);

    // What is skipped while the webhook is disabled.
    call(&system, Method::POST, &format!("/v1/webhooks/{billing}/disable")).await;
    system.happens("skipped", 0..10).await;
    system.counted("deliveries", "skipped", 10).await;
    call(&system, Method::POST, &format!("/v1/webhooks/{billing}/enable")).await;
    let done = system
        .replay(&json!({ "states": ["skipped"], "webhook": billing, "since": "2026-01-01T00:00:00Z" }))
        .await;
    assert_eq!(done["outcomes"]["delivered"], 10, "{done:#}");

    // A webhook that is new gets the last hour, once.
    let (new, _) = system.webhook("/new", &json!({})).await;
    let done = system.replay(&json!({ "target": new, "rate_per_second": 1000 })).await;
    assert_eq!((&done["chosen"], &done["outcomes"]["delivered"]), (&json!(30), &json!(30)), "{done:#}");
    let nothing = system.plan(&json!({ "target": "matching" })).await;
    assert_eq!(nothing["left_out"], json!({ "delivered": 60 }), "{nothing:#}");
    assert!(nothing["because"].is_string(), "{nothing:#}");
    let ids = ids_at(&system, "/new");
    assert!(ids.len() == 30 && ids.values().all(|n| *n == 1), "{ids:?}");

    // What one missed goes to another; what is deleted cannot be sent to, which is said.
    call(&system, Method::DELETE, &format!("/v1/webhooks/{billing}")).await;
    let gone = system.plan(&json!({ "states": ["delivered"], "webhook": billing })).await;
    assert_eq!(gone["left_out"], json!({ "webhook_deleted": 30 }), "{gone:#}");
    let (heir, _) = system.webhook("/heir", &json!({})).await;
    let done = system
        .replay(
            &json!({ "states": ["delivered"], "webhook": billing, "target": heir, "rate_per_second": 1000 }),
        )
        .await;
    assert_eq!(done["outcomes"]["delivered"], 30, "{done:#}");
    let books = system.at_rest().await;
    // 20 and 10 that were lost and skipped, and four times what was sent again.
    assert_eq!(books["deliveries"]["owed"], 20 + 10 + 20 + 10 + 30 + 30, "{books:#}");
    assert_eq!(books["deliveries"]["delivered"], 90, "{books:#}");
    for role in roles {
        role.stop().await;
    }
}

#[tokio::test]
async fn a_replay_keeps_its_rate_and_stops_when_it_is_cancelled() {
    let vhost = Vhost::create(&Broker::shared().await, "replay-rate").await;
    let system = System::new(vhost.url()).await;
    let roles = system.start_all_roles().await;
    // Nobody takes them.
    system.happens("e", 0..400).await;
    system.counted("events", "unmatched", 400).await;
    let (new, _) = system.webhook("/new", &json!({ "subscription": { "event_types": ["X"] } })).await;
    let begun = Instant::now();
    let made =
        system.post("/v1/replays", &json!({ "target": new, "run": true, "rate_per_second": 50 })).await;
    let path = format!("/v1/replays/{}", made["id"].as_str().unwrap());
    let mut last = (0, begun.elapsed());
    let arrived = within(3 * patience(), async || {
        let sent = system.get(&path).await["sent"].as_u64().unwrap();
        last = (sent, begun.elapsed());
        (sent >= 150).then_some(())
    });
    assert!(arrived.await.is_some(), "{} were sent", last.0);
    // Whatever the machine does, never more than the rate says.
    let (sent, took) = last;
    let allowed = 50.0 * took.as_secs_f64() + 16.0;
    eprintln!("{sent} sent in {:.2} s at 50/s", took.as_secs_f64());
    assert!(f64::from(u32::try_from(sent).unwrap()) <= allowed, "{sent} sent in {took:?}");

    let cancelled = system.post(&format!("{path}/cancel"), &Value::Null).await;
    let sent = cancelled["sent"].as_u64().unwrap();
    assert!((150..400).contains(&sent), "{cancelled:#}");
    assert_eq!(cancelled["to_send"], 400 - sent, "{cancelled:#}");
    // What was sent goes its way, and nothing else.
    let books = system.at_rest().await;
    assert_eq!(
        (&books["deliveries"]["owed"], &books["deliveries"]["delivered"]),
        (&json!(sent), &json!(sent))
    );
    assert_eq!(system.receiver.requests_to("/new").len() as u64, sent);
    let after = system.get(&path).await;
    assert_eq!((&after["state"], &after["sent"]), (&json!("cancelled"), &json!(sent)));
    // The rest can be had by another one.
    let done = system.replay(&json!({ "target": new, "rate_per_second": 5000 })).await;
    assert_eq!(done["outcomes"]["delivered"], 400 - sent, "{done:#}");
    for role in roles {
        role.stop().await;
    }
}

/// Control is killed while it plans and while it sends, and at each crash point: each delivery is made once.
#[tokio::test]
async fn control_is_killed_in_the_middle_and_each_is_made_once() {
    const EVENTS: usize = 2500;
    let vhost = Vhost::create(&Broker::shared().await, "replay-kills").await;
    let system = System::new(vhost.url()).await;
    let mut control = system.start("control").ready().await;
    let others = [system.start("router").ready().await, system.start("worker").ready().await];
    system.happens("e", 0..EVENTS).await;
    system.counted("events", "unmatched", EVENTS as u64).await;
    let (new, _) = system.webhook("/new", &json!({ "subscription": { "event_types": ["X"] } })).await;

    // A plan of 2500 events takes three steps.
    control.process.kill();
    for (n, point) in [
        (1, "replays.chosen"),
        (2, "replays.chosen_committed"),
        (2, "replays.written"),
        (3, "replays.committed"),
    ] {
        let crash = format!("{point}:{n}");
        control = system.start_with("control", &[("POSTRIDER_CRASH_AT", &crash)]);
        if point == "replays.chosen" {
            let body = json!({ "target": new, "run": true, "rate_per_second": 400 });
            // The answer may be lost with the process.
            eventually("control answers", async || try_get(&system, "/v1/status").await.is_some()).await;
            drop(try_post(&system, "/v1/replays", &body).await);
        }
        let status = control.process.wait_exit(3 * patience()).await;
        assert!(!status.success(), "{point} was not passed");
    }
    control = system.start("control").ready().await;
    let id = system.get("/v1/replays").await["items"][0]["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/replays/{id}");
    for part in [900, 1600] {
        let mut sent = 0;
        let reached = within(3 * patience(), async || {
            sent = system.get(&path).await["sent"].as_u64().unwrap();
            (sent >= part).then_some(())
        });
        assert!(reached.await.is_some(), "{sent} of {part} were sent");
        control.process.kill();
        control = system.start("control").ready().await;
    }
    let mut last = Value::Null;
    let done = within(3 * patience(), async || {
        last = system.get(&path).await;
        (last["state"] == "done" && last["outcomes"]["pending"] == 0).then_some(())
    });
    assert!(done.await.is_some(), "{last:#}");
    assert_eq!((&last["chosen"], &last["sent"]), (&json!(EVENTS), &json!(EVENTS)), "{last:#}");
    assert_eq!((&last["dropped"], &last["outcomes"]["delivered"]), (&json!({}), &json!(EVENTS)), "{last:#}");
    let books = system.balanced(EVENTS as u64).await;
    assert_eq!((&books["deliveries"]["owed"], &books["drift"]), (&json!(EVENTS), &json!(0)));
    let ids = ids_at(&system, "/new");
    assert_eq!(ids.len(), EVENTS, "every event, and no other");
    let requests: usize = ids.values().sum();
    let kills = 6;
    eprintln!("{} duplicates after killing control {kills} times", requests - EVENTS);
    assert!(requests - EVENTS <= kills * 256, "{requests} requests");
    control.stop().await;
    for role in others {
        role.stop().await;
    }
}

async fn try_post(system: &System, path: &str, body: &Value) -> Option<Value> {
    let client = postrider_testkit::http::client();
    let request = client.post(system.url(path)).bearer_auth(crate::system::TOKEN).json(body);
    request.timeout(Duration::from_secs(10)).send().await.ok()?.json().await.ok()
}

async fn try_get(system: &System, path: &str) -> Option<Value> {
    let client = postrider_testkit::http::client();
    let request = client.get(system.url(path)).bearer_auth(crate::system::TOKEN);
    request.timeout(Duration::from_secs(2)).send().await.ok()?.json().await.ok()
}

/// While thousands are replayed to a slow receiver, fresh events go to another as if nothing were.
#[tokio::test]
async fn fresh_events_do_not_wait_for_a_replay() {
    let vhost = Vhost::create(&Broker::shared().await, "replay-fresh").await;
    let system = System::new(vhost.url()).await;
    let roles = system.start_all_roles().await;
    system.happens("old", 0..3000).await;
    system.counted("events", "unmatched", 3000).await;
    system.receiver.answer("/slow", [Answer::Status(200).after(Duration::from_millis(100))]);
    let (slow, _) = system.webhook("/slow", &json!({ "subscription": { "event_types": ["X"] } })).await;
    system.webhook("/fresh", &json!({})).await;
    let mut fresh = 0;
    let mut latencies = async |count: usize| {
        let mut latencies = Vec::new();
        for _ in 0..count {
            let begun = Instant::now();
            system.happens("fresh", fresh..fresh + 1).await;
            fresh += 1;
            eventually("the fresh event arrives", async || {
                system.receiver.requests_to("/fresh").len() >= fresh
            })
            .await;
            latencies.push(begun.elapsed());
        }
        latencies.sort_unstable();
        latencies
    };
    let before = latencies(20).await;
    let made = system
        .post(
            "/v1/replays",
            &json!({ "target": slow, "run": true, "rate_per_second": 5000, "until": "2100-01-01T00:00:00Z" }),
        )
        .await;
    let path = format!("/v1/replays/{}", made["id"].as_str().unwrap());
    eventually("much is sent", async || system.get(&path).await["sent"].as_u64().unwrap() >= 1000).await;
    let during = latencies(20).await;
    let replay = system.get(&path).await;
    assert!(
        replay["outcomes"]["pending"].as_u64().unwrap() > 100,
        "the replay was still under way: {replay:#}"
    );
    let (before, during) = (before[18], during[18]);
    eprintln!("p95 of fresh events: {before:?} before the replay, {during:?} during it");
    let limit = (20 * before).max(Duration::from_secs(5));
    assert!(during < limit, "p95 {during:?}, before it {before:?}");
    for role in roles {
        role.process.kill();
    }
}

#[tokio::test]
async fn a_replay_goes_on_when_nobody_waits_for_it_any_more() {
    let vhost = Vhost::create(&Broker::shared().await, "replay-left").await;
    let system = System::new(vhost.url()).await;
    let all = system.start("all").ready().await;
    system.happens("order", 0..100).await;
    system.counted("events", "unmatched", 100).await;
    let (new, _) = system.webhook("/new", &json!({})).await;
    // It would take 100 s.
    let waiting =
        Postrider::with(["replay", "run", "--to", &new, "--rate", "1", "--yes"]).envs(system.env()).start();
    eventually("it shows how far it is", async || waiting.log().contains(" of 100")).await;
    waiting.interrupt();
    let status = waiting.wait_exit(Duration::from_secs(20)).await;
    let log = waiting.log();
    assert_eq!(status.code(), Some(130), "{log}");
    let replay = system.get("/v1/replays").await["items"][0].clone();
    let id = replay["id"].as_str().unwrap();
    assert!(log.contains(&format!("the replay {id} goes on")), "{log}");
    assert!(log.contains(&format!("next: postrider replay show {id}")), "{log}");
    let sent = replay["sent"].as_u64().unwrap();
    let path = format!("/v1/replays/{id}");
    eventually("more is sent", async || system.get(&path).await["sent"].as_u64().unwrap() > sent).await;
    assert_eq!(system.get(&path).await["state"], "running");
    call(&system, Method::POST, &format!("{path}/cancel")).await;
    all.stop().await;
}

/// Fenced blocks of a language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let start = format!("```{language}\n");
    text.split(start.as_str()).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// What docs/replays.md shows is done as it stands there.
#[tokio::test]
async fn the_examples_of_the_docs_work() {
    let vhost = Vhost::create(&Broker::shared().await, "replay-docs").await;
    let system = System::new(vhost.url()).await;
    let all = system.start("all").ready().await;
    let retry = json!({ "retry": { "initial_ms": 50, "max_attempts": 1 } });
    let (billing, _) = system.webhook("/billing", &retry).await;
    system.receiver.answer("/billing", [Answer::Status(400)]);
    system.happens("order", 0..3).await;
    system.counted("deliveries", "dead", 3).await;
    system.receiver.answer("/billing", [Answer::Status(200)]);
    let (new, _) = system.webhook("/new", &json!({})).await;

    let text = std::fs::read_to_string(workspace_dir().join("docs/replays.md")).unwrap();
    let filled = |text: &str| text.replace("wh_billing", &billing).replace("wh_new", &new);
    let env = system.env();
    let run = async |line: &str| {
        let args: Vec<&str> = line.split_whitespace().skip(1).collect();
        process::run(args, env.iter().map(|(name, value)| (*name, value.as_str()))).await
    };
    let mut sent = Vec::new();
    let lines: Vec<&str> = blocks(&text, "sh").into_iter().flat_map(str::lines).collect();
    assert!(lines.len() >= 5, "{lines:?}");
    for line in &lines {
        let output = run(&filled(line)).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{line}: {said}");
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        if line.contains(" run ") {
            sent.push(answer["sent"].as_u64().unwrap());
            assert!(said.contains("deliveries are chosen"), "{said}");
        } else if line.contains(" plan ") {
            assert_eq!((&answer["state"], &answer["chosen"]), (&json!("planned"), &json!(3)), "{answer}");
        }
    }
    assert_eq!(sent, [3, 0, 3, 0], "dead, skipped, to the new one, and nothing is left that matches");
    let bodies = blocks(&text, "json");
    assert_eq!(bodies.len(), 3);
    for body in bodies {
        let planned = system.plan(&serde_json::from_str(&filled(body)).unwrap()).await;
        assert_ne!(planned["state"], "failed", "{body}: {planned:#}");
    }

    // Without a terminal nobody can be asked; what cannot be asked for is a usage error; what is not there is not found.
    let output = run("postrider replay run --state dead").await;
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(run("postrider replay plan --state held").await.status.code(), Some(2));
    assert_eq!(run("postrider replay plan --to nobody").await.status.code(), Some(4));
    assert_eq!(run("postrider replay show rpl_none").await.status.code(), Some(3));
    // A receiver that fails again: the exit code says it.
    system.receiver.answer("/billing", [Answer::Status(400)]);
    let line = format!("postrider replay run --state delivered --webhook {billing} --yes -q");
    assert_eq!(run(&line).await.status.code(), Some(7));
    let list = run("postrider replay list -o json").await;
    let list: Value = serde_json::from_slice(&list.stdout).unwrap();
    let id = list["items"][0]["id"].as_str().unwrap();
    assert_eq!(run(&format!("postrider replay cancel {id}")).await.status.code(), Some(6), "it is done");
    // Each of what it sent, with how it ended.
    let lines = run(&format!("postrider replay export {id}")).await;
    assert!(lines.status.success(), "{}", String::from_utf8_lossy(&lines.stderr));
    let lines = String::from_utf8(lines.stdout).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len() as u64, list["items"][0]["sent"].as_u64().unwrap());
    for line in &lines {
        assert_eq!((&line["state"], &line["webhook"]), (&json!("dead"), &json!(billing)), "{line}");
    }
    assert_eq!(run("postrider replay export rpl_none").await.status.code(), Some(3));
    let made = run("postrider replay plan --since 1h").await;
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let id = made["id"].as_str().unwrap();
    assert!(run(&format!("postrider replay cancel {id}")).await.status.success());
    all.stop().await;
}
