//! Receivers that fail in every way, and what it costs the others.

use std::time::Duration;

use bytes::Bytes;
use postrider_core::verify::{Faults, Run};
use postrider_testkit::receiver::gzip_bomb;
use postrider_testkit::{Answer, Authority, Hostile, Manner, Receiver, patience, within};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::rig::Rig;

/// What one receiver does, and what is to become of its deliveries.
struct Guest {
    row: &'static str,
    path: &'static str,
    answers: Vec<Answer>,
    end: &'static str,
    /// One of these is the class of the last attempt.
    classes: &'static [&'static str],
}

fn guest(
    row: &'static str,
    path: &'static str,
    answers: impl IntoIterator<Item = Answer>,
    end: &'static str,
    classes: &'static [&'static str],
) -> Guest {
    Guest { row, path, answers: answers.into_iter().collect(), end, classes }
}

fn guests() -> Vec<Guest> {
    let ok = || Answer::Status(200);
    let headers = |count: usize, length: usize| Answer::Full {
        status: 200,
        headers: (0..count).map(|n| (format!("x-{n}"), "x".repeat(length))).collect(),
        body: Bytes::new(),
    };
    let body = |pause_ms| Answer::Endless {
        chunk: if pause_ms == 0 { Bytes::from(vec![b'x'; 64 * 1024]) } else { "x".into() },
        pause: Duration::from_millis(pause_ms),
    };
    let bomb = ok().with_body(gzip_bomb(1 << 20)).with_header("content-encoding", "gzip");
    let trickle =
        |bytes: &'static str| Answer::Trickle { bytes: bytes.into(), pause: Duration::from_millis(200) };
    let raw = |text: &'static str| Answer::Raw(text.into());
    vec![
        guest("F-64 always 500", "/f64", [Answer::Status(500)], "dead", &["http_5xx"]),
        guest("F-65 no answer", "/f65", [Answer::Hang], "dead", &["timeout"]),
        guest(
            "F-66 headers byte by byte",
            "/f66",
            [trickle("HTTP/1.1 200 OK\r\nx: y\r\n\r\n")],
            "dead",
            &["timeout"],
        ),
        guest("F-67 200, then a body byte by byte for ever", "/f67", [body(200)], "delivered", &["none"]),
        guest("F-68 200, then a body at full speed for ever", "/f68", [body(0)], "delivered", &["none"]),
        guest("F-69 a gzip bomb of 1 MiB", "/f69", [bomb], "delivered", &["none"]),
        guest("F-70 10,000 headers", "/f70a", [headers(10_000, 10)], "dead", &["bad_response"]),
        guest("F-70 a header of 1 MiB", "/f70b", [headers(1, 1 << 20)], "dead", &["bad_response"]),
        guest("F-71 no HTTP", "/f71a", [raw("SSH-2.0-OpenSSH\r\n\r\n")], "dead", &["bad_response"]),
        guest("F-71 half a head", "/f71b", [raw("HTTP/1.1 200 OK\r\nx")], "dead", &["reset", "bad_response"]),
        guest(
            "F-71 an endless chunk size",
            "/f71c",
            [raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFFFF\r\n")],
            "delivered",
            &["none"],
        ),
        guest(
            "F-72 a redirect",
            "/f72",
            [Answer::Status(302).with_header("location", "/metadata")],
            "dead",
            &["http_3xx"],
        ),
        guest(
            "F-73 429 with Retry-After: 1, then 200",
            "/f73",
            [Answer::Status(429).with_header("retry-after", "1"), ok()],
            "delivered",
            &["none"],
        ),
        guest(
            "F-76 a reset after the request, then 200",
            "/f76",
            [Answer::Reset, ok()],
            "delivered",
            &["none"],
        ),
    ]
}

#[tokio::test]
#[ignore = "part of make chaos"]
async fn f64_to_f78_receivers_fail_in_every_way() {
    let fault = "21 receivers with bad manners (500, hangs, trickles, endless bodies, a gzip bomb, too many and too long \
                 headers, no HTTP, redirect, 429, 410, flapping, resets, early answers, bad TLS), and a healthy one";
    let mut rig = Rig::shared("F-64 … F-78", fault).await;
    rig.text_bytes = 5_000;
    rig.start_all().await;
    let few = json!({
        "timeout_ms": 1500, "max_in_flight": 10,
        "retry": { "initial_ms": 100, "factor": 1.0, "max_attempts": 2, "jitter": 0.0 },
    });
    let mut expected: Vec<(String, &str, &str, &[&str])> = Vec::new();
    let mut covered = Vec::new();
    for guest in guests() {
        rig.receiver.answer(guest.path, guest.answers);
        let (id, _) = rig.webhook(guest.path, few.clone()).await;
        covered.push(id.clone());
        expected.push((id, guest.row, guest.end, guest.classes));
    }
    let (healthy, _) = rig.webhook("/healthy", json!({})).await;
    rig.receiver.answer_by("/f75", |request| {
        // Every second request of each delivery fails, from the first on.
        let attempt: u32 = request.header("webhook-attempt").and_then(|n| n.parse().ok()).unwrap_or_default();
        if attempt % 2 == 1 { Answer::Status(503) } else { Answer::Status(200) }
    });
    let (flapping, _) = rig.webhook("/f75", json!({})).await;
    rig.receiver.answer("/f74", [Answer::Status(410)]);
    let (gone, _) = rig.webhook("/f74", few.clone()).await;
    covered.extend([healthy.clone(), flapping.clone(), gone.clone()]);
    expected.push((healthy, "a healthy one", "delivered", &["none"]));
    expected.push((flapping, "F-75 every second request fails", "delivered", &["none"]));

    let early = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let strangers = Authority::new("strangers");
    let tls = Receiver::start_tls(&strangers, None).await;
    let others = [
        (Manner::Closes, "http", "F-71 closes at once", "dead", &["reset", "connect"][..]),
        (Manner::Resets, "http", "F-71 resets at once", "dead", &["reset", "connect"]),
        (
            Manner::AnswersHead(early.into()),
            "http",
            "F-77 200 before it reads the body",
            "delivered",
            &["none"],
        ),
        // An answer to nothing: whatever becomes of it, nothing breaks.
        (
            Manner::Answers(early.into()),
            "http",
            "F-77 200 before it reads anything",
            "either",
            &["none", "bad_response", "reset", "timeout"],
        ),
        (Manner::Silent, "https", "F-78 a handshake without an end", "dead", &["timeout", "tls"]),
        (Manner::Answers(early.into()), "https", "F-78 no TLS", "dead", &["tls"]),
    ];
    let mut hostile = Vec::new();
    for (manner, scheme, row, end, classes) in others {
        let one = Hostile::start(manner).await;
        let url = format!("{scheme}://{}/hook", one.address());
        let (id, _) = rig.webhook_at(&url, few.clone()).await;
        expected.push((id, row, end, classes));
        hostile.push(one);
    }
    let (id, _) = rig.webhook_at(&tls.url("/hook"), few).await;
    expected.push((id, "F-78 a certificate of a stranger", "dead", &["tls"]));

    rig.configured().await;
    rig.publish(4, 4.0);
    rig.at_rest().await;
    for (id, row, end, classes) in &expected {
        let deliveries = rig.deliveries(id).await;
        assert_eq!(deliveries.len(), 4, "{row}");
        for delivery in deliveries {
            let class = delivery["last"]["class"].as_str().unwrap_or_default();
            assert!(*end == "either" || delivery["state"] == *end, "{row}: {delivery:#}");
            assert!(classes.contains(&class), "{row}: {delivery:#}");
        }
    }
    assert!(rig.receiver.requests_to("/metadata").is_empty(), "a redirect was followed");
    // Gone is gone: after the first answers nothing more is sent.
    let (_, shown) = rig.call(Method::GET, &format!("/v1/webhooks/{gone}"), None).await;
    rig.remark(format!(
        "410: {} requests of 4 events, the webhook is {} afterwards",
        rig.receiver.requests_to("/f74").len(),
        shown["state"].as_str().unwrap_or_default()
    ));
    let late = rig.lateness("/healthy");
    rig.remark(format!(
        "the healthy one got its last event {:.1} s after it was published",
        late.as_secs_f64()
    ));
    // What the others got is in no ledger.
    let cover = move |run: &mut Run| covered.iter().for_each(|id| run.covers(id));
    rig.finish_with(Faults::NONE, cover).await;
}

impl Rig {
    /// The deliveries of a webhook, at most 100.
    async fn deliveries(&self, webhook: &str) -> Vec<Value> {
        let path = format!("/v1/deliveries?webhook={webhook}&limit=100");
        let (status, mut page) = self.call(Method::GET, &path, None).await;
        assert!(status.is_success(), "{page:#}");
        page["items"].as_array_mut().map(std::mem::take).unwrap_or_default()
    }

    /// 99 of 100 first requests at these paths came so long after their event's confirm, milliseconds.
    fn p99_ms(&self, paths: &[String], load: usize) -> i64 {
        let mut late: Vec<i64> = paths.iter().flat_map(|path| self.latenesses(path, load)).collect();
        late.sort_unstable();
        late.get(late.len().saturating_sub(1) * 99 / 100).copied().unwrap_or_default()
    }
}

#[tokio::test]
#[ignore = "takes minutes; part of make chaos"]
async fn f80_most_webhooks_are_dead() {
    let fault = "300 dead webhooks (a third each hang for 15 s, answer 500, take no connection) beside 10 healthy ones; \
                 then they are deleted";
    let mut rig = Rig::shared("F-80", fault).await;
    rig.start_all().await;
    let healthy: Vec<String> = (0..10).map(|n| format!("/healthy{n}")).collect();
    let (mut covered, mut dead) = (Vec::new(), Vec::new());
    for path in &healthy {
        covered.push(rig.webhook(path, json!({})).await.0);
    }
    rig.publish(300, 20.0);
    rig.at_rest().await;
    let absent = Hostile::start(Manner::Absent).await;
    rig.receiver.answer("/hangs", [Answer::Hang]);
    rig.receiver.answer("/fails", [Answer::Status(500)]);
    let few =
        json!({ "timeout_ms": 15000, "retry": { "initial_ms": 1000, "factor": 2.0, "max_attempts": 2 } });
    for n in 0..300 {
        let url = match n % 3 {
            0 => rig.receiver.url("/hangs"),
            1 => rig.receiver.url("/fails"),
            _ => absent.url("/absent"),
        };
        let (id, _) = rig.webhook_at(&url, few.clone()).await;
        if n % 3 != 2 {
            covered.push(id.clone());
        }
        dead.push(id);
    }
    rig.configured().await;
    rig.publish(30, 2.0);
    for path in &healthy {
        let all = within(6 * patience(), async || (rig.latenesses(path, 1).len() == 30).then_some(()));
        assert!(all.await.is_some(), "{path} did not get everything");
    }
    // They are tried again for hours. Their owners give up, and what is left of theirs is called off.
    for id in dead {
        let (status, problem) = rig.call(Method::DELETE, &format!("/v1/webhooks/{id}"), None).await;
        assert!(status.is_success(), "{problem}");
    }
    rig.at_rest_within(Duration::from_secs(600)).await;
    let (alone, beside) = (rig.p99_ms(&healthy, 0), rig.p99_ms(&healthy, 1));
    rig.remark(format!("p99 of the healthy ones: {alone} ms before, {beside} ms beside the dead ones"));
    assert!(beside <= (2 * alone).max(2_000), "{alone} ms alone, {beside} ms beside the dead ones");
    let cover = move |run: &mut Run| covered.iter().for_each(|id| run.covers(id));
    rig.finish_with(Faults::NONE, cover).await;
}

#[tokio::test]
#[ignore = "takes minutes; part of make chaos"]
async fn f81_everything_is_due_when_a_receiver_comes_back() {
    let fault = "a receiver that answers 503 to 5,000 events for 30 s, and then works; at most 20 at once";
    let mut rig = Rig::shared("F-81", fault).await;
    rig.start_all().await;
    rig.receiver.answer("/hook", [Answer::Status(503)]);
    rig.webhook("/hook", json!({ "max_in_flight": 20 })).await;
    rig.publish(5_000, 500.0);
    sleep(Duration::from_secs(30)).await;
    rig.receiver.answer("/hook", [Answer::Status(200).after(Duration::from_millis(20))]);
    rig.recovers().await;
    rig.at_rest_within(Duration::from_secs(600)).await;
    let most = rig.receiver.requests().iter().map(|request| request.in_flight).max().unwrap_or_default();
    rig.remark(format!("{} requests, at most {most} at once", rig.receiver.count()));
    assert!(most <= 20, "{most} requests at once");
    rig.finish(Faults::NONE).await;
}
