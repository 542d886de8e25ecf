//! Webhooks that change while events flow; clocks that jump.

use std::time::{Duration, SystemTime};

use postrider_core::Timestamp;
use postrider_core::signature::SigningKey;
use postrider_core::verify::{Faults, Run};
use postrider_testkit::Request;
use reqwest::Method;
use serde_json::json;
use tokio::time::sleep;

use crate::machine;
use crate::report;
use crate::rig::{ROLES, Rig};

#[tokio::test]
#[ignore = "takes a minute; part of make chaos"]
async fn f83_webhooks_come_change_and_go() {
    let fault = "webhooks created, changed, paused, resumed, given another secret and deleted for 30 s, as fast as the API \
                 takes it, while events flow";
    let mut rig = Rig::shared("F-83", fault).await;
    rig.start_all().await;
    rig.webhook("/stays", json!({})).await;
    rig.publish(1_200, 35.0);
    let begun = SystemTime::now();
    let (mut calls, mut deleted) = (0, Vec::new());
    while begun.elapsed().unwrap_or_default() < Duration::from_secs(30) {
        let path = format!("/comes{}", deleted.len());
        let (id, _) = rig.webhook(&path, json!({})).await;
        let webhook = format!("/v1/webhooks/{id}");
        let filter = json!({ "subscription": { "all": true, "filter": "data.n % 2 == 0" } });
        for (method, path, body) in [
            (Method::PATCH, webhook.clone(), Some(filter)),
            (Method::POST, format!("{webhook}/pause"), None),
            (Method::POST, format!("{webhook}/resume"), None),
            (Method::POST, format!("{webhook}/rotate-secret"), None),
            (Method::DELETE, webhook.clone(), None),
        ] {
            let (status, answer) = rig.call(method.clone(), &path, body.as_ref()).await;
            assert!(status.is_success(), "{method} {path}: {status} {answer}");
            calls += 1;
        }
        deleted.push((path, SystemTime::now()));
    }
    rig.at_rest().await;
    // What was deleted gets nothing more 5 s later.
    let late = |(path, at): &(String, SystemTime)| {
        let requests = rig.receiver.requests_to(path);
        requests.iter().filter(|request| request.received_at > *at + Duration::from_secs(5)).count()
    };
    assert_eq!(deleted.iter().map(late).sum::<usize>(), 0, "requests after a webhook was deleted");
    rig.remark(format!("{} webhooks, {} calls", deleted.len(), calls + deleted.len()));
    rig.finish(Faults::NONE).await;
}

#[tokio::test]
#[ignore = "takes a minute; part of make chaos"]
async fn f84_secrets_are_rotated_with_an_overlap() {
    let mut rig =
        Rig::shared("F-84", "the signing secret changed every 3 s, 6 times; both sign for a while").await;
    rig.start_all().await;
    let (id, first) = rig.webhook("/hook", json!({})).await;
    rig.publish(800, 30.0);
    let mut secrets = vec![(SystemTime::now(), first)];
    let path = format!("/v1/webhooks/{id}/rotate-secret");
    for _ in 0..6 {
        sleep(Duration::from_secs(3)).await;
        let (status, answer) = rig.call(Method::POST, &path, Some(&json!({ "overlap_seconds": 600 }))).await;
        assert!(status.is_success(), "{answer}");
        secrets.push((SystemTime::now(), answer["secret"].as_str().unwrap().to_owned()));
    }
    rig.at_rest().await;
    let requests = rig.receiver.requests_to("/hook");
    for (number, (since, secret)) in secrets.iter().enumerate() {
        let key = SigningKey::parse(secret).unwrap();
        // A change is known within 2 s; before that a request may carry the older signatures alone.
        let known = *since + Duration::from_secs(2);
        let of = |request: &&std::sync::Arc<Request>| number == 0 || request.received_at > known;
        let all: Vec<_> = requests.iter().filter(of).collect();
        let good = all.iter().filter(|request| verifies(&key, request)).count();
        assert_eq!(good, all.len(), "secret {number} verifies {good} of {} requests", all.len());
    }
    // Without an overlap the older ones end.
    let (status, answer) = rig.call(Method::POST, &path, Some(&json!({ "overlap_seconds": 0 }))).await;
    assert!(status.is_success(), "{answer}");
    sleep(Duration::from_secs(2)).await;
    let seen = rig.receiver.count();
    rig.publish(20, 20.0);
    rig.at_rest().await;
    let last = SigningKey::parse(answer["secret"].as_str().unwrap()).unwrap();
    let old = SigningKey::parse(&secrets[0].1).unwrap();
    for request in rig.receiver.requests_from(seen) {
        assert!(verifies(&last, &request), "the newest secret does not verify");
        assert!(!verifies(&old, &request), "a secret that has ended still verifies");
    }
    rig.remark(format!("{} requests, each verified with every secret of its moment", requests.len()));
    rig.finish(Faults::NONE).await;
}

fn verifies(key: &SigningKey, request: &Request) -> bool {
    let header = |name: &str| request.header(name).unwrap_or_default();
    let seconds: i64 = header("webhook-timestamp").parse().unwrap();
    key.verifies(
        header("webhook-signature"),
        header("webhook-id"),
        Timestamp::from_millis(seconds * 1000),
        &request.body,
    )
}

const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

#[tokio::test]
#[ignore = "needs libfaketime; part of make chaos"]
async fn f60_the_clock_jumps() {
    let fault =
        "the wall clock of all roles jumps 1 h ahead, and 2 h back, while events flow and retries wait";
    if let Some(lacking) = machine::lacks(&[FAKETIME]) {
        return report::not_run("F-60", fault, &format!("{lacking} (apt-get install libfaketime)"));
    }
    let mut rig = Rig::shared("F-60", fault).await;
    let home = tempfile::tempdir().unwrap();
    let clock = home.path().join("clock");
    // Written beside and moved: nobody reads half of it.
    let set = |offset: &str| {
        std::fs::write(clock.with_extension("new"), format!("{offset}\n")).unwrap();
        std::fs::rename(clock.with_extension("new"), &clock).unwrap();
    };
    set("+0");
    rig.env("LD_PRELOAD", FAKETIME);
    rig.env("FAKETIME_TIMESTAMP_FILE", clock.display());
    rig.env("FAKETIME_NO_CACHE", "1");
    rig.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    rig.start_all().await;
    rig.receiver.answer_by("/once", |request| {
        let first = request.header("webhook-attempt") == Some("1");
        postrider_testkit::Answer::Status(if first { 503 } else { 200 })
    });
    rig.webhook("/hook", json!({})).await;
    let slowly = json!({ "retry": { "initial_ms": 3000, "factor": 1.0, "jitter": 0.0, "max_attempts": 10 } });
    rig.webhook("/once", slowly).await;
    rig.publish(900, 40.0);
    rig.more_requests(100).await;
    for offset in ["+1h", "-1h", "+0"] {
        set(offset);
        rig.recovers().await;
        sleep(Duration::from_secs(5)).await;
        for role in ROLES {
            assert!(
                rig.role(role).process.exited().is_none(),
                "{role} ended when the clock jumped to {offset}"
            );
        }
    }
    let early = rig.early_retries("/once", Duration::from_secs(3));
    rig.remark(format!("{early} retries came before their 3 s by a clock that does not jump"));
    rig.at_rest().await;
    // The books carry times of a clock that jumped: what came early is judged above, by one that did not.
    rig.finish_with(Faults::NONE, |run: &mut Run| run.clock_ms(3 * 3_600_000)).await;
    assert_eq!(early, 0);
}

impl Rig {
    /// Second requests at a path that came sooner after the first than this.
    fn early_retries(&self, path: &str, least: Duration) -> usize {
        let mut first = std::collections::BTreeMap::new();
        let mut early = 0;
        for request in self.receiver.requests_to(path) {
            let id = request.header("webhook-id").unwrap_or_default().to_owned();
            match first.get(&id) {
                None => {
                    first.insert(id, request.received_at);
                }
                Some(before) => {
                    let after = request.received_at.duration_since(*before).unwrap_or_default();
                    early += usize::from(after + Duration::from_millis(5) < least);
                }
            }
        }
        early
    }
}
