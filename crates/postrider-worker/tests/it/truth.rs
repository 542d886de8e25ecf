//! The log is the truth of the wire: every request has its row, and a connection that a receiver closed while it was idle
//! costs no attempt.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use postrider_core::books::End;
use postrider_core::wire::{AttemptFact, DeliveryMessage, Fact, SCHEMA, Work};
use postrider_testkit::{Answer, Request, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::{Bench, Worker};

/// How a receiver treats a connection that it has answered on.
#[derive(Clone, Copy, Debug)]
enum Idle {
    /// It closes about so long after the answer, whatever arrives meanwhile.
    Closed(Duration),
    /// It closes when the next request arrives, without reading it: what a race looks like that the client always loses.
    /// One in so many requests.
    Swallows(usize),
}

/// What such a receiver saw.
#[derive(Debug, Default)]
struct Seen {
    answered: AtomicUsize,
    swallowed: AtomicUsize,
}

/// A receiver that answers 200 and is careless with idle connections. Returns its port.
async fn careless(idle: Idle) -> (u16, Arc<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::<Seen>::default();
    let board = seen.clone();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            connection.set_nodelay(true).unwrap();
            tokio::spawn(answer_carelessly(connection, idle, board.clone()));
        }
    });
    (port, seen)
}

async fn answer_carelessly(mut connection: TcpStream, idle: Idle, seen: Arc<Seen>) {
    loop {
        if !read_request(&mut connection).await {
            return;
        }
        let n = seen.answered.fetch_add(1, Ordering::SeqCst);
        if connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.is_err() {
            return;
        }
        match idle {
            Idle::Swallows(one_in) if n.is_multiple_of(one_in) => {
                if connection.peek(&mut [0]).await.is_ok_and(|bytes| bytes > 0) {
                    seen.swallowed.fetch_add(1, Ordering::SeqCst);
                }
                // Dropped with something unread: a reset.
                return;
            }
            Idle::Swallows(_) => {}
            Idle::Closed(about) => {
                let wait = about.mul_f64(0.5 + (n % 97) as f64 / 97.0);
                if tokio::time::timeout(wait, connection.readable()).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Reads one request with a `Content-Length`; `false` when the client is gone.
async fn read_request(connection: &mut TcpStream) -> bool {
    let mut bytes = Vec::new();
    loop {
        if let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
            let length =
                text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
            if bytes.len() >= head + 4 + length.unwrap_or(0) {
                return true;
            }
        }
        if connection.read_buf(&mut bytes).await.is_ok_and(|read| read > 0) {
            continue;
        }
        return false;
    }
}

/// Delivers `count` events to a careless receiver, a few at a time so that connections are idle in between, and returns
/// the attempts.
async fn deliver_to(name: &str, idle: Idle, count: usize) -> (Vec<AttemptFact>, Arc<Seen>) {
    let mut bench = Bench::new(name).await;
    let (port, seen) = careless(idle).await;
    let mut webhook = bench.webhook("wh");
    webhook.url = format!("http://127.0.0.1:{port}/");
    webhook.timeout_ms = 20_000;
    webhook.change = |record| record.max_in_flight = 64;
    bench.configuration.webhook(&webhook).await;
    let worker = Worker::start(&bench.settings);
    worker.ready().await;
    for batch in 0..count.div_ceil(16) {
        let work = (0..16).map(|n| {
            let event = bench.event(&format!("e{batch}-{n}"));
            let to = vec![bench.delivery(&event, "wh")];
            Work { event, to }
        });
        bench.send(DeliveryMessage { schema: SCHEMA, work: work.collect() }).await;
    }
    let done = bench.done(count).await;
    assert_eq!(done.len(), count);
    for done in &done {
        assert_eq!((done.end, done.attempts), (End::Delivered, 1), "a step of the ladder was lost");
    }
    worker.stop().await;
    (bench.attempts(), seen)
}

/// Of each delivery the attempts: any number that were swallowed, at most one, and then the one that was answered.
fn each_is_swallowed_at_most_once(attempts: &[AttemptFact]) -> usize {
    let mut rows: BTreeMap<&str, Vec<&AttemptFact>> = BTreeMap::new();
    attempts.iter().for_each(|row| rows.entry(row.delivery.as_str()).or_default().push(row));
    for rows in rows.values() {
        let classes: Vec<&str> = rows.iter().map(|row| &*row.class).collect();
        assert!(classes == ["none"] || classes == ["reset", "none"], "{rows:#?}");
        assert!(rows.iter().all(|row| row.n == 1 && row.repeats == 0 && row.next_at.is_none()));
        assert!(rows.windows(2).all(|pair| pair[0].at < pair[1].at), "told apart by their times");
    }
    attempts.iter().filter(|row| row.class == "reset").count()
}

#[tokio::test]
async fn a_request_that_an_idle_connection_swallows_is_repeated_at_once() {
    let (attempts, seen) = deliver_to("swallows", Idle::Swallows(4), 2_000).await;
    let repeated = each_is_swallowed_at_most_once(&attempts);
    let (answered, swallowed) = (seen.answered.load(Ordering::SeqCst), seen.swallowed.load(Ordering::SeqCst));
    println!("{answered} answered, {swallowed} swallowed, {repeated} repeated");
    assert!(swallowed > 20, "the receiver was careless {swallowed} times only");
    assert_eq!((answered, repeated), (2_000, swallowed));
    assert_eq!(attempts.len(), answered + swallowed, "a row for each request on the wire");
}

#[tokio::test]
async fn a_receiver_that_closes_idle_connections_costs_no_attempt() {
    for about_ms in [1, 5] {
        let name = format!("closes-idle-{about_ms}");
        let (attempts, seen) = deliver_to(&name, Idle::Closed(Duration::from_millis(about_ms)), 2_000).await;
        let repeated = each_is_swallowed_at_most_once(&attempts);
        println!("idle for about {about_ms} ms: {repeated} repeated");
        // What was swallowed here the receiver never read, so it cannot count it.
        assert_eq!(seen.answered.load(Ordering::SeqCst), 2_000);
        assert_eq!(attempts.len(), 2_000 + repeated);
    }
}

#[tokio::test]
async fn a_receiver_that_always_resets_is_asked_again_at_once_only_over_a_used_connection() {
    let mut bench = Bench::new("resets").await;
    let webhook = bench.webhook("wh").attempts(3);
    bench.configuration.webhook(&webhook).await;
    let resets = |request: &Request| match request.header("webhook-id") {
        Some(id) if id == warm_up() => Answer::Status(200),
        _ => Answer::Reset,
    };
    bench.receiver.answer_by("/wh", resets);
    let worker = Worker::start(&bench.settings);
    bench.deliver(&["warm-up"], "wh").await;
    bench.done(1).await;
    bench.deliver(&["e1"], "wh").await;
    let done = bench.done(2).await;
    let end = done.iter().find(|done| done.end == End::Dead).unwrap();
    assert_eq!((end.reason.as_str(), end.attempts), ("exhausted", 3));
    let rows: Vec<(u32, String)> = bench
        .attempts()
        .into_iter()
        .filter(|row| row.delivery == end.delivery)
        .map(|row| (row.n, row.class.into_owned()))
        .collect();
    let expected = [1, 1, 2, 3].map(|n| (n, "reset".to_owned()));
    assert_eq!(rows, expected, "once over the used connection and at once again, then the ladder");
    assert_eq!(bench.receiver.count(), 1 + 4, "a row for each request");
    worker.stop().await;
}

fn warm_up() -> String {
    let event = postrider_core::EventId::from_trusted("warm-up");
    let webhook = postrider_core::WebhookId::from_trusted("wh");
    postrider_core::DeliveryId::of(&postrider_core::TenantId::default_tenant(), &event, &webhook).message_id()
}

/// For each delivery: its requests, its rows, and how many requests may have been made of which nobody could write.
fn compared(bench: &Bench) -> BTreeMap<String, (usize, usize, usize)> {
    let mut all: BTreeMap<String, (usize, usize, usize)> = BTreeMap::new();
    for request in bench.receiver.requests() {
        all.entry(request.header("webhook-id").unwrap().to_owned()).or_default().0 += 1;
    }
    // The journal may say the same twice; the store knows it by its key.
    let mut known = std::collections::BTreeSet::new();
    let new = |row: &AttemptFact| known.insert((row.delivery.clone(), row.n, row.at, row.worker.clone()));
    for row in bench.attempts().into_iter().filter(new) {
        let counts = all.entry(row.delivery.message_id()).or_default();
        (counts.1, counts.2) = (counts.1 + 1, counts.2 + row.repeats as usize);
    }
    all
}

fn is_honest((requests, rows, repeats): &(usize, usize, usize)) -> bool {
    rows <= requests && requests - rows <= *repeats
}

#[tokio::test]
async fn over_lost_sessions_the_log_says_how_much_it_may_lack() {
    let mut bench = Bench::new("wire-lost").await;
    let mut webhook = bench.webhook("wh");
    webhook.change = |record| record.max_in_flight = 64;
    bench.configuration.webhook(&webhook).await;
    // Some fail, so that there are retries too.
    bench.receiver.answer_by("/wh", |request| {
        let fails = request.seq % 5 == 0 && request.header("webhook-attempt") == Some("1");
        Answer::Status(if fails { 500 } else { 200 }).after(Duration::from_millis(100))
    });
    let worker = Worker::start(&bench.settings);
    worker.ready().await;
    for n in 0..300 {
        bench.deliver(&[&format!("e{n}")], "wh").await;
    }
    for cut in 1..=3 {
        bench.receiver.wait_for(cut * 60).await;
        eventually("connections are cut", async || bench.vhost.close_all_connections().await > 0).await;
        eventually("the worker is back", async || worker.readiness.is_ready()).await;
    }
    bench
        .facts_until("every delivery ended", |facts| {
            let done = crate::done(facts);
            let ids: std::collections::BTreeSet<_> = done.iter().map(|done| done.delivery.as_str()).collect();
            ids.len() == 300
        })
        .await;
    bench.settled().await;
    worker.stop().await;
    bench.facts_until("the journal is read", |_| true).await;
    let compared = compared(&bench);
    assert_eq!(compared.len(), 300);
    let lies: Vec<_> = compared.iter().filter(|(_, counts)| !is_honest(counts)).collect();
    assert!(lies.is_empty(), "requests, rows, repeats: {lies:?}");
    let repeated = compared.values().filter(|counts| counts.0 > 2).count();
    println!("{} requests, {repeated} deliveries were sent more than twice", bench.receiver.count());
}

#[tokio::test]
async fn copies_of_a_delivery_have_rows_of_their_own() {
    let mut bench = Bench::new("wire-copies").await;
    let webhook = bench.webhook("wh");
    bench.configuration.webhook(&webhook).await;
    let worker = Worker::start(&bench.settings);
    worker.ready().await;
    let event = bench.event("e1");
    let copy = Work { event: event.clone(), to: vec![bench.delivery(&event, "wh")] };
    bench.send(DeliveryMessage { schema: SCHEMA, work: vec![copy; 8] }).await;
    bench.done(8).await;
    let mut keys: Vec<_> = bench.attempts().into_iter().map(|row| (row.n, row.at, row.worker)).collect();
    keys.sort();
    keys.dedup();
    assert_eq!((keys.len(), bench.receiver.count()), (8, 8), "told apart though they began at once");
    worker.stop().await;
}

#[tokio::test]
async fn what_was_handed_out_before_is_told_also_after_parking_and_when_nothing_is_sent() {
    let mut bench = Bench::new("wire-repeats").await;
    for (id, state) in [("wh", "active"), ("paused", "paused"), ("disabled", "disabled")] {
        let mut webhook = bench.webhook(id);
        webhook.state = state.into();
        bench.configuration.webhook(&webhook).await;
    }
    for webhook in ["wh", "paused", "disabled"] {
        bench.deliver(&["e1"], webhook).await;
    }
    // Taken, and lost with its consumer: so often that the guard publishes each alone, which begins the broker's count anew.
    let fresh = bench.names().delivery_queue(postrider_broker::Lane::Fresh, 0);
    for _ in 0..3 {
        let metrics = postrider_broker::Metrics::register(&prometheus::Registry::new(), "victim").unwrap();
        let victim = postrider_broker::Session::open(&bench.settings, &metrics).await.unwrap();
        let mut consumer = victim.consume(&fresh, 3).await.unwrap();
        for _ in 0..3 {
            drop(consumer.next().await.unwrap());
        }
        victim.close().await;
    }
    let worker = Worker::start(&bench.settings);
    let done = bench.done(2).await;
    bench.facts_until("one is held", |facts| facts.iter().any(|fact| matches!(fact, Fact::Held(_)))).await;
    let of = |webhook: &str| done.iter().find(|done| done.webhook.as_str() == webhook).unwrap();
    assert_eq!((of("disabled").end, of("disabled").repeats), (End::Skipped, 3));
    assert_eq!((of("wh").repeats, bench.attempts()[0].repeats), (0, 3), "the row says it");
    let held = bench.facts.iter().find_map(|fact| match fact {
        Fact::Held(held) => Some(held.repeats),
        _ => None,
    });
    assert_eq!(held, Some(3));
    worker.stop().await;
}
