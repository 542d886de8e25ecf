//! Bad neighbours: what one webhook or tenant does is its own trouble.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use postrider_broker::{Lane, Names, Outgoing};
use postrider_core::DeliveryId;
use postrider_core::address::EgressPolicy;
use postrider_core::books::End;
use postrider_core::wire::{self, DeliveryMessage, DoneFact, SCHEMA, TenantSettings, Work};
use postrider_testkit::config::NewWebhook;
use postrider_testkit::{Answer, Request, eventually};
use postrider_worker::Config;

use crate::{Bench, Worker};

/// Few slots, so that a receiver that hangs would fill them at once if it could.
fn few_slots(config: &mut Config) {
    config.egress = EgressPolicy::new(vec!["127.0.0.0/8".parse().unwrap()]);
    (config.concurrency, config.slow_concurrency) = (32, 64);
}

impl Bench {
    /// Publishes one delivery of its own to a lane.
    async fn send_to(&self, lane: Lane, event: &str, webhook: &str) -> DeliveryId {
        let event = self.event(event);
        let delivery = self.delivery(&event, webhook);
        let id = delivery.id.clone();
        let body = wire::encode(&DeliveryMessage::single(event, delivery));
        let message = Outgoing::json(self.names().deliveries(), Names::destination(lane, 0), body, "test");
        let message = message.header("deliveries", "1");
        self.configuration.session().publisher().publish(message).await.unwrap();
        id
    }

    /// Ends of the deliveries to webhooks whose ids begin so.
    async fn done_to(&mut self, webhooks: &str, count: usize) -> Vec<DoneFact> {
        let of = |facts: &[wire::Fact]| -> Vec<DoneFact> {
            crate::done(facts)
                .into_iter()
                .filter(|done| done.webhook.as_str().starts_with(webhooks))
                .collect()
        };
        self.facts_until(&format!("{count} series to {webhooks} ended"), |facts| of(facts).len() >= count)
            .await;
        of(&self.facts)
    }
}

fn most_in_flight(requests: &[Arc<Request>]) -> usize {
    requests.iter().map(|request| request.in_flight).max().unwrap_or(0)
}

fn quick(answer_ms: u64) -> Answer {
    Answer::Status(200).after(Duration::from_millis(answer_ms))
}

/// Two workers that know of each other.
async fn two_workers(bench: &Bench) -> [Worker; 2] {
    let workers = [Worker::start(&bench.settings), Worker::start(&bench.settings)];
    for worker in &workers {
        worker.ready().await;
        eventually("it sees both", async || worker.gauge("postrider_workers") == 2).await;
    }
    workers
}

#[tokio::test]
async fn a_cap_holds_over_the_whole_fleet_and_parking_spends_no_attempt() {
    let mut bench = Bench::new("cap").await;
    let mut webhook = bench.webhook("wh");
    webhook.change = |record| record.max_in_flight = 4;
    bench.configuration.webhook(&webhook).await;
    bench.receiver.answer("/wh", [quick(100)]);
    let workers = two_workers(&bench).await;
    for n in 0..60 {
        bench.send_to(Lane::Fresh, &format!("e{n}"), "wh").await;
    }
    let done = bench.done(60).await;
    let most = most_in_flight(&bench.receiver.requests());
    assert!((2..=4).contains(&most), "{most} at once");
    assert!(done.iter().all(|done| (done.end, done.attempts) == (End::Delivered, 1)));
    assert_eq!(bench.receiver.count(), 60);
    let parked: u64 = workers.iter().map(|worker| worker.metric("postrider_parked_total", "full")).sum();
    assert!(parked > 0, "some were parked");
    bench.settled().await;
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test]
async fn a_rate_holds_over_the_whole_fleet() {
    let mut bench = Bench::new("rate").await;
    let mut webhook = bench.webhook("wh");
    webhook.change = |record| record.rate_per_second = Some(20);
    bench.configuration.webhook(&webhook).await;
    let workers = two_workers(&bench).await;
    for n in 0..80 {
        bench.send_to(Lane::Fresh, &format!("e{n}"), "wh").await;
    }
    let done = bench.done(80).await;
    let arrivals: Vec<SystemTime> =
        bench.receiver.requests().iter().map(|request| request.received_at).collect();
    let took = arrivals[79].duration_since(arrivals[0]).unwrap();
    // Each worker may begin one at once. The first request may have been held up on its way, so a little is allowed for.
    assert!(took > Duration::from_millis(78 * 50 * 9 / 10), "80 requests within {took:?}");
    assert!(done.iter().all(|done| done.attempts == 1));
    let parked: u64 = workers.iter().map(|worker| worker.metric("postrider_parked_total", "rate")).sum();
    assert!(parked > 0, "what would wait for long is parked");
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test]
async fn what_a_tenant_may_have_holds_over_its_webhooks() {
    let mut bench = Bench::new("tenant").await;
    let capped = TenantSettings { max_in_flight: Some(2), ..TenantSettings::default() };
    bench.configuration.tenant_settings("default", capped).await;
    for id in ["one", "two", "three"] {
        // One path for all, since the receiver counts what is in flight for each path.
        let webhook = NewWebhook::new(id, bench.receiver.url(&format!("/all?{id}")));
        bench.configuration.webhook(&webhook).await;
    }
    bench.receiver.answer("/all", [quick(50)]);
    let worker = Worker::start(&bench.settings);
    worker.ready().await;
    for n in 0..10 {
        for id in ["one", "two", "three"] {
            bench.send_to(Lane::Fresh, &format!("e{n}"), id).await;
        }
    }
    bench.done(30).await;
    assert_eq!(most_in_flight(&bench.receiver.requests()), 2);
    assert_eq!(bench.receiver.count(), 30);
    worker.stop().await;
}

/// Sends to these webhooks a few at a time, and gives the 99th percentile of what it took to arrive, milliseconds.
async fn p99_ms(bench: &Bench, round: &str, webhooks: &[String], beside: Option<&str>) -> u64 {
    let mut sent = BTreeMap::new();
    for n in 0..15 {
        let event = bench.event(&format!("{round}{n}"));
        let mut to: Vec<_> = webhooks.iter().map(|id| bench.delivery(&event, id)).collect();
        let at = SystemTime::now();
        sent.extend(to.iter().map(|delivery| (delivery.id.message_id(), at)));
        if let Some(hanging) = beside {
            // Half of all, in the same messages.
            for m in 0..webhooks.len() {
                let other = bench.event(&format!("{round}{n}-{m}"));
                let hangs = bench.delivery(&other, hanging);
                let work = vec![
                    Work { event: event.clone(), to: to.pop().into_iter().collect() },
                    Work { event: other, to: vec![hangs] },
                ];
                bench.send(DeliveryMessage { schema: SCHEMA, work }).await;
            }
        } else {
            bench.send(DeliveryMessage { schema: SCHEMA, work: vec![Work { event, to }] }).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let arrived = |requests: &[Arc<Request>]| -> Vec<u64> {
        let late = requests.iter().filter_map(|request| {
            let at = sent.get(request.header("webhook-id")?)?;
            let late = request.received_at.duration_since(*at).unwrap_or_default();
            Some(u64::try_from(late.as_millis()).unwrap())
        });
        late.collect()
    };
    let all = |requests: &[Arc<Request>]| arrived(requests).len() >= sent.len();
    let mut late = arrived(&bench.receiver.wait_until("the healthy ones have all", all).await);
    late.sort_unstable();
    late[late.len() * 99 / 100]
}

#[tokio::test]
async fn a_webhook_that_hangs_and_gets_half_of_all_events_delays_nobody() {
    let mut bench = Bench::new("hangs").await;
    let healthy: Vec<String> = (0..8).map(|n| format!("well{n}")).collect();
    for id in &healthy {
        let webhook = bench.webhook(id);
        bench.configuration.webhook(&webhook).await;
    }
    let mut hangs = bench.webhook("hangs");
    hangs.timeout_ms = 4_000;
    bench.configuration.webhook(&hangs).await;
    bench.receiver.answer("/hangs", [Answer::Hang]);
    let worker = Worker::with(&bench.settings, few_slots);
    worker.ready().await;
    let without_ms = p99_ms(&bench, "without", &healthy, None).await;
    let with_ms = p99_ms(&bench, "with", &healthy, Some("hangs")).await;
    // 120 requests that take 4 s each, in 22 slots, would be over after 20 s.
    assert!(with_ms < 2 * without_ms + 2_000, "{with_ms} ms, {without_ms} ms without it");
    assert!(most_in_flight(&bench.receiver.requests_to("/hangs")) <= 10);
    worker.stop().await;
}

#[tokio::test]
async fn many_webhooks_that_hang_leave_the_others_alone() {
    let mut bench = Bench::new("many-hang").await;
    for n in 0..40 {
        let mut webhook = bench.webhook(&format!("hangs{n}"));
        webhook.timeout_ms = 60_000;
        bench.configuration.webhook(&webhook).await;
        bench.receiver.answer(&format!("/hangs{n}"), [Answer::Hang]);
    }
    let healthy: Vec<String> = (0..10).map(|n| format!("well{n}")).collect();
    for id in &healthy {
        let webhook = bench.webhook(id);
        bench.configuration.webhook(&webhook).await;
    }
    let worker = Worker::with(&bench.settings, few_slots);
    worker.ready().await;
    // They hang for longer than the test has patience: whoever waited for them would never arrive.
    for n in 0..10 {
        for hanging in 0..40 {
            bench.send_to(Lane::Fresh, &format!("h{n}"), &format!("hangs{hanging}")).await;
        }
        for id in &healthy {
            bench.send_to(Lane::Fresh, &format!("e{n}"), id).await;
        }
    }
    bench.done_to("well", 100).await;
    let hanging =
        bench.receiver.requests().iter().filter(|request| request.path().starts_with("/hangs")).count();
    assert!(hanging <= 22 + 64, "{hanging} of them, in 22 quick slots of the lane and 64 slow ones");
    eventually("it says so", async || worker.gauge("postrider_slow_webhooks") > 0).await;
    eventually("the rest is parked", async || worker.metric("postrider_parked_total", "slow") > 0).await;
}

#[tokio::test]
async fn in_a_batch_what_is_slow_is_moved_out() {
    let mut bench = Bench::new("moved-out").await;
    for id in ["hangs", "well"] {
        let mut webhook = bench.webhook(id);
        webhook.timeout_ms = 60_000;
        bench.configuration.webhook(&webhook).await;
    }
    bench.receiver.answer("/hangs", [Answer::Hang]);
    let worker = Worker::with(&bench.settings, few_slots);
    worker.ready().await;
    bench.deliver(&["first"], "hangs").await;
    bench.receiver.wait_for(1).await;
    eventually("it is known to be slow", async || worker.gauge("postrider_slow_webhooks") == 1).await;
    let work = (0..4).map(|n| {
        let event = bench.event(&format!("e{n}"));
        let to = vec![bench.delivery(&event, "hangs"), bench.delivery(&event, "well")];
        Work { event, to }
    });
    bench.send(DeliveryMessage { schema: SCHEMA, work: work.collect() }).await;
    bench.done_to("well", 4).await;
    eventually("they hang alone", async || bench.receiver.requests_to("/hangs").len() == 5).await;
    assert_eq!(worker.metric("postrider_moved_out_total", ""), 4);
    // Each that hangs has one slow slot: none has those of a batch.
    eventually("slow slots", async || worker.gauge("postrider_worker_slow_slots") == 5).await;
}

#[tokio::test]
async fn a_breaker_opens_probes_once_and_starts_slowly() {
    let mut bench = Bench::new("breaker").await;
    let mut webhook = bench.webhook("wh");
    webhook.timeout_ms = 30_000;
    // Long enough that it is open before one that failed comes again, and short enough that it is still silent then.
    webhook.retry.initial_ms = Some(1_000);
    bench.configuration.webhook(&webhook).await;
    let (failed, well) = (AtomicUsize::new(0), AtomicBool::new(false));
    bench.receiver.answer_by("/wh", move |request| {
        if well.load(Ordering::SeqCst) {
            return quick(100);
        }
        // One that failed may try in the silence: from then on it is well.
        well.fetch_or(is_second(request), Ordering::SeqCst);
        // The first ones fail for as long as it takes to open. Those that begin before it does are over soon.
        let first = failed.fetch_add(1, Ordering::SeqCst) < 10;
        Answer::Status(500).after(Duration::from_millis(if first { 10_000 } else { 500 }))
    });
    let worker = Worker::start(&bench.settings);
    worker.ready().await;
    for n in 0..30 {
        bench.send_to(Lane::Fresh, &format!("e{n}"), "wh").await;
    }
    let done = bench.done(30).await;
    assert!(done.iter().all(|done| done.end == End::Delivered));
    assert!(worker.metric("postrider_parked_total", "breaker") > 0);
    let requests = bench.receiver.requests();
    let attempts: u32 = done.iter().map(|done| done.attempts).sum();
    assert_eq!(attempts as usize, requests.len(), "parking spent none");

    // As the worker began them: a busy receiver notes some later.
    let mut begun: Vec<_> = bench.attempts().iter().map(|attempt| attempt.at).collect();
    begun.sort_unstable();
    assert_eq!(begun.len(), requests.len(), "each has a fact");
    let tried = requests.iter().position(|request| is_second(request)).unwrap();
    let silent_ms = begun[tried + 1].since_ms(begun[tried - 1]);
    assert!(silent_ms >= 4_900, "silent for {silent_ms} ms, but for one that had failed");
    let risen = &requests[tried + 1..];
    assert_eq!(risen[0].in_flight, 1, "one probe");
    for (successes, request) in risen.iter().enumerate() {
        let window = 1usize << successes.min(10);
        assert!(request.in_flight <= window, "{} at once after {successes} successes", request.in_flight);
    }
    worker.stop().await;
}

fn is_second(request: &Request) -> bool {
    request.header("webhook-attempt") == Some("2")
}

#[tokio::test]
async fn retry_after_silences_the_whole_webhook_and_nothing_comes_earlier() {
    let mut bench = Bench::new("retry-after").await;
    for id in ["wh", "other"] {
        let webhook = bench.webhook(id);
        bench.configuration.webhook(&webhook).await;
    }
    let busy = Answer::Status(429).with_header("retry-after", "4");
    bench.receiver.answer("/wh", [busy, Answer::Status(200)]);
    let worker = Worker::start(&bench.settings);
    worker.ready().await;
    bench.deliver(&["e0"], "wh").await;
    bench.facts_until("the receiver asked for silence", |facts| !facts.is_empty()).await;
    for n in 1..6 {
        bench.deliver(&[&format!("e{n}")], "wh").await;
        bench.deliver(&[&format!("e{n}")], "other").await;
    }
    bench.done_to("other", 5).await;
    assert_eq!(bench.receiver.requests_to("/wh").len(), 1, "the other webhook is not silent");
    let done = bench.done_to("wh", 6).await;
    assert_eq!(done.iter().map(|done| done.attempts).sum::<u32>(), 7);
    let requests = bench.receiver.requests_to("/wh");
    let silent = requests[1].received_at.duration_since(requests[0].received_at).unwrap();
    assert!(silent >= Duration::from_secs(4), "{silent:?}");
    assert!(worker.metric("postrider_parked_total", "retry_after") >= 1);
    worker.stop().await;
}

#[tokio::test]
async fn lanes_do_not_starve_each_other() {
    let mut bench = Bench::new("lanes").await;
    let mut webhook = bench.webhook("wh");
    webhook.change = |record| record.max_in_flight = 4;
    bench.configuration.webhook(&webhook).await;
    bench.receiver.answer("/wh", [quick(50)]);
    for n in 0..200 {
        bench.send_to(Lane::Fresh, &format!("e{n}"), "wh").await;
    }
    let mut few = Vec::new();
    for n in 0..5 {
        for lane in [Lane::Retry, Lane::Replay] {
            few.push(bench.send_to(lane, &format!("{lane:?}{n}"), "wh").await.message_id());
        }
    }
    let worker = Worker::start(&bench.settings);
    bench.done(210).await;
    let requests = bench.receiver.requests();
    let is_few = |request: &Arc<Request>| few.iter().any(|id| request.header("webhook-id") == Some(id));
    let last = requests.iter().rposition(is_few).unwrap();
    assert!(last < 150, "the last of the few is number {last} of 210");
    worker.stop().await;
}
