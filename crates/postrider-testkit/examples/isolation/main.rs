//! What bad neighbours do to others: four measurements, each with and without in the same run, and a figure of them.
//!
//! ```text
//! cargo build --release --package postrider
//! cargo run --release --package postrider-testkit --example isolation -- [--seconds N] [--rate N] [--backlog N] [--worst N] [--svg FILE] [hang|half|backlog|tenant]...
//! ```
//!
//! Router and worker are processes of the binary (`POSTRIDER_TEST_BINARY`, else the debug build); their configuration is
//! published by the test kit, and what they write into the journal is thrown away: control is not part of it.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a measurement prints, and stops at the first trouble"
)]

mod chart;
mod sink;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chart::{Line, Panel};
use futures_util::StreamExt as _;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use postrider_broker::Settings;
use postrider_testkit::config::{Configuration, NewWebhook};
use postrider_testkit::load::Load;
use postrider_testkit::process::{Postrider, free_port};
use postrider_testkit::rabbit::{Broker, Vhost};
use serde_json::json;
use sink::{Arrival, Kind, RETRY_MS, Sink, micros};

/// What the command line says.
struct Options {
    seconds: u64,
    per_second: f64,
    backlog: u64,
    worst: usize,
    svg: Option<String>,
    only: Vec<String>,
}

#[tokio::main]
async fn main() {
    let mut options =
        Options { seconds: 60, per_second: 300.0, backlog: 100_000, worst: 0, svg: None, only: Vec::new() };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap();
        match arg.as_str() {
            "--seconds" => options.seconds = value().parse().unwrap(),
            "--rate" => options.per_second = value().parse().unwrap(),
            "--backlog" => options.backlog = value().parse().unwrap(),
            "--worst" => options.worst = value().parse().unwrap(),
            "--svg" => options.svg = Some(value()),
            other => options.only.push(other.to_owned()),
        }
    }
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|only| only == name);
    let mut panels = Vec::new();
    if wanted("hang") {
        panels.push(many_hang(&options).await);
    }
    if wanted("half") {
        panels.push(half_of_all(&options).await);
    }
    if wanted("backlog") {
        panels.push(backlog(&options).await);
    }
    if wanted("tenant") {
        panels.push(loud_tenant(&options).await);
    }
    if let Some(file) = &options.svg {
        std::fs::write(file, chart::svg(&panels)).unwrap();
        println!("written: {file}");
    }
}

/// Router and worker on a vhost of their own.
struct Lab {
    vhost: Vhost,
    configuration: Configuration,
    sink: Sink,
    router: Postrider,
    worker: Postrider,
    health: String,
}

impl Lab {
    async fn start(name: &str) -> Self {
        let vhost = Vhost::create(&Broker::shared().await, name).await;
        let configuration = Configuration::publish(&Settings::new(vhost.url(), "testkit")).await;
        forget_journal(&vhost).await;
        let start = |role: &str, health: &str| {
            Postrider::with(["serve", role])
                .env("POSTRIDER_AMQP_URL", vhost.url())
                .env("POSTRIDER_MASTER_KEY", "cG9zdHJpZGVyIHRlc3Qga2V5IG9mIDMyIGJ5dGVzISE=")
                .env("POSTRIDER_METRICS_LISTEN", health)
                .env("POSTRIDER_EGRESS_ALLOW", "127.0.0.0/8")
                .env("POSTRIDER_LOG", "error")
                .start()
        };
        let [of_router, health] = [(); 2].map(|()| format!("127.0.0.1:{}", free_port()));
        let (router, worker) = (start("router", &of_router), start("worker", &health));
        router.wait_ready(&of_router).await;
        worker.wait_ready(&health).await;
        Self { vhost, configuration, sink: Sink::start().await, router, worker, health }
    }

    /// A webhook at this path that takes events of this type.
    async fn webhook(&mut self, tenant: &str, path: &str, event_type: &str) {
        let mut webhook =
            NewWebhook::new(path.trim_start_matches('/').replace('/', "-"), self.sink.url(path));
        webhook.tenant = tenant.to_owned();
        webhook.timeout_ms = 15_000;
        webhook.retry.initial_ms = Some(RETRY_MS);
        webhook.retry.factor = Some(4.0);
        self.configuration.webhook(&webhook.takes(&[event_type])).await;
    }

    fn load(&self, events: u64, event_type: impl Fn(u64) -> String + Send + Sync + 'static) -> Load {
        let body = move |n| json!({ "event_type": event_type(n), "data": { "at": micros() } });
        Load::new(self.vhost.url(), events).window(256).body(body)
    }

    /// A metric of the worker.
    async fn metric(&self, name: &str) -> f64 {
        let url = format!("http://{}/metrics", self.health);
        let text = postrider_testkit::http::client().get(url).send().await.unwrap().text().await.unwrap();
        let values = text.lines().filter(|line| line.starts_with(name));
        values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

/// Reads the journal and throws it away, for as long as the runtime lasts.
async fn forget_journal(vhost: &Vhost) {
    let connection = vhost.connect().await;
    let channel = connection.create_channel().await.unwrap();
    channel.basic_qos(1000, BasicQosOptions::default()).await.unwrap();
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let none = FieldTable::default();
    let mut journal =
        channel.basic_consume("postrider.journal".into(), "forget".into(), options, none).await.unwrap();
    tokio::spawn(async move {
        let _connection = connection;
        while let Some(Ok(_)) = journal.next().await {}
    });
}

/// Resident memory of a process, MiB: now, and the most so far.
fn memory_mib(process: &Postrider) -> (f64, f64) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap_or_default();
    let field = |name: &str| -> f64 {
        let line = status.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
    };
    (field("VmRSS:"), field("VmHWM:"))
}

fn percentile(arrivals: &[Arrival], part: f64) -> f64 {
    let mut late: Vec<f64> = arrivals.iter().map(|arrival| arrival.late_ms).collect();
    late.sort_by(f64::total_cmp);
    late.get(((late.len() as f64 * part) as usize).min(late.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

/// The 99th percentile of every two seconds.
fn over_time(arrivals: &[Arrival], begin: Duration) -> Vec<(f64, f64)> {
    const STEP: f64 = 2.0;
    let mut steps: Vec<Vec<Arrival>> = Vec::new();
    for arrival in arrivals {
        let index = (arrival.at.saturating_sub(begin).as_secs_f64() / STEP) as usize;
        steps.resize(steps.len().max(index + 1), Vec::new());
        steps[index].push(*arrival);
    }
    let points = steps.iter().enumerate().filter(|(_, step)| !step.is_empty());
    points.map(|(index, step)| ((index as f64 + 0.5) * STEP, percentile(step, 0.99))).collect()
}

/// Publishes at a rate, first while all is well, then while `/hang/…` hangs; and says what the healthy saw.
async fn before_and_after(
    lab: &Lab,
    options: &Options,
    title: String,
    mark: &'static str,
    event_type: impl Fn(u64) -> String + Clone + Send + Sync + 'static,
) -> Panel {
    let events = options.per_second as u64 * options.seconds;
    let warm = lab.load(events / 6, event_type.clone()).per_second(options.per_second);
    warm.publish().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let begin = lab.sink.now();
    lab.load(events, event_type.clone()).per_second(options.per_second).publish().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let turn = lab.sink.now();
    let without = lab.sink.arrivals(Kind::Well, begin);
    lab.sink.hang(true);
    lab.load(events, event_type).per_second(options.per_second).publish().await;
    // Whatever is late arrives yet.
    tokio::time::sleep(Duration::from_secs(20)).await;
    let with = lab.sink.arrivals(Kind::Well, turn);
    let mut worst = with.clone();
    worst.sort_by(|one, other| other.late_ms.total_cmp(&one.late_ms));
    for arrival in worst.iter().take(options.worst) {
        let at = (arrival.at - turn).as_secs_f64();
        println!("  {at:.1} s after the turn: {:.0} ms, attempt {}", arrival.late_ms, arrival.attempt);
    }
    let lost = without.len().abs_diff(with.len()) as f64 / without.len() as f64;
    assert!(lost < 0.1, "{} requests without, {} with", without.len(), with.len());
    let (before, after) = (percentile(&without, 0.99), percentile(&with, 0.99));
    let says = vec![
        format!(
            "p99 {before:.0} ms without, {after:.0} ms with: {:.2} times; median {:.1} and {:.1} ms; {} requests each",
            after / before,
            percentile(&without, 0.5),
            percentile(&with, 0.5),
            without.len()
        ),
        format!(
            "{} requests hung; parked {:.0} times; worker at most {:.0} MiB",
            lab.sink.hang_requests(),
            lab.metric("postrider_parked_total").await,
            memory_mib(&lab.worker).1
        ),
    ];
    println!("{title}\n  {}\n  {}", says[0], says[1]);
    let mut points = over_time(&without, begin);
    points.extend(over_time(&with, begin));
    let marks = vec![((turn - begin).as_secs_f64(), mark)];
    Panel { title, unit: "ms", lines: vec![Line { name: "p99 of the healthy", points }], marks, says }
}

/// (a) 1,000 webhooks, of which 900 begin to hang at once.
async fn many_hang(options: &Options) -> Panel {
    let mut lab = Lab::start("figure-hang").await;
    for n in 0..1_000 {
        let path = if n < 100 { format!("/well/{n}") } else { format!("/hang/{n}") };
        lab.webhook("default", &path, &format!("E{n}")).await;
    }
    let title = format!("900 of 1,000 webhooks hang for 15 s, {:.0} events/s", options.per_second);
    // 7 and 1,000 have no common divisor, so each has its turn.
    before_and_after(&lab, options, title, "they begin to hang", |n| format!("E{}", n * 7 % 1_000)).await
}

/// (b) One webhook that hangs and receives half of all events.
async fn half_of_all(options: &Options) -> Panel {
    let mut lab = Lab::start("figure-half").await;
    for n in 0..100 {
        lab.webhook("default", &format!("/well/{n}"), &format!("E{n}")).await;
    }
    lab.webhook("default", "/hang/0", "HALF").await;
    let title = format!("One webhook hangs and gets half of all events, {:.0}/s", options.per_second);
    let event_type = |n: u64| if n.is_multiple_of(2) { "HALF".into() } else { format!("E{}", n / 2 % 100) };
    before_and_after(&lab, options, title, "it begins to hang", event_type).await
}

/// (c) A backlog on one hanging webhook, while others retry.
async fn backlog(options: &Options) -> Panel {
    let mut lab = Lab::start("figure-backlog").await;
    lab.webhook("default", "/hang/0", "MANY").await;
    for n in 0..50 {
        lab.webhook("default", &format!("/retry/{n}"), &format!("R{n}")).await;
    }
    lab.sink.hang(true);
    let begin = lab.sink.now();
    let many = lab.load(options.backlog, |_| "MANY".into()).window(1_000).start();
    let done = Arc::new(AtomicBool::new(false));
    let beside = {
        let (url, done) = (lab.vhost.url(), done.clone());
        tokio::spawn(async move {
            let mut round = 0u64;
            while !done.load(Ordering::Relaxed) {
                let body = move |n| json!({ "event_type": format!("R{}", (round * 40 + n) % 50), "data": 0 });
                Load::new(url.clone(), 40).per_second(20.0).body(body).publish().await;
                round += 1;
            }
        })
    };
    let (mut worker, mut router) = (Vec::new(), Vec::new());
    let started = Instant::now();
    let mut published_after = None;
    // Until everything was seen by the worker once, and a minute longer.
    let mut calm_since = None::<Instant>;
    while calm_since.is_none_or(|since| since.elapsed() < Duration::from_secs(60)) {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let at = started.elapsed().as_secs_f64();
        worker.push((at, memory_mib(&lab.worker).0));
        router.push((at, memory_mib(&lab.router).0));
        if published_after.is_none() && many.confirmed() >= options.backlog {
            published_after = Some(at);
        }
        let waiting = lab.vhost.queue_depth("postrider.events").await
            + lab.vhost.queue_depth("postrider.deliveries.fresh.0").await;
        if published_after.is_some() && waiting < 200 {
            calm_since.get_or_insert_with(Instant::now);
        }
    }
    let mut parked = 0;
    for rung in [1, 5, 30, 120, 600, 3600] {
        parked += lab.vhost.queue_depth(&format!("postrider.park.{rung}")).await;
    }
    done.store(true, Ordering::Relaxed);
    beside.await.unwrap();
    tokio::time::sleep(Duration::from_millis(2 * RETRY_MS)).await;
    let late = lab.sink.arrivals(Kind::Retry, begin);
    let title = format!("A backlog of {} on one webhook that hangs", options.backlog);
    let says = vec![
        format!(
            "{} retries of others: p99 {:.0} ms late, at most {:.0} ms",
            late.len(),
            percentile(&late, 0.99),
            percentile(&late, 1.0)
        ),
        format!(
            "at most {:.0} MiB worker, {:.0} MiB router; {parked} parked at the end, {:.0} parkings; published in {:.0} s",
            memory_mib(&lab.worker).1,
            memory_mib(&lab.router).1,
            lab.metric("postrider_parked_total").await,
            published_after.unwrap_or(0.0)
        ),
    ];
    println!("{title}\n  {}\n  {}", says[0], says[1]);
    let lines = vec![Line { name: "worker", points: worker }, Line { name: "router", points: router }];
    let marks = published_after.map(|at| (at, "all published")).into_iter().collect();
    Panel { title, unit: "MiB resident", lines, marks, says }
}

/// (d) One tenant publishes a hundred times what each of the others publishes: at a rate that can be kept, then all at once.
async fn loud_tenant(options: &Options) -> Panel {
    let mut lab = Lab::start("figure-tenant").await;
    for n in 0..9 {
        let tenant = format!("quiet{n}");
        lab.configuration.tenant(&tenant).await;
        lab.webhook(&tenant, &format!("/well/{n}"), "E").await;
    }
    lab.configuration.tenant("loud").await;
    for n in 0..20 {
        lab.webhook("loud", &format!("/loud/{n}"), &format!("L{n}")).await;
    }
    let quiet_rate = options.per_second / 100.0;
    let quiet = |seconds: u64| {
        let loads: Vec<_> = (0..9)
            .map(|n| {
                let events = (quiet_rate * seconds as f64) as u64;
                let load = lab.load(events, |_| "E".into()).tenant(format!("quiet{n}"));
                load.per_second(quiet_rate).start()
            })
            .collect();
        async move {
            for load in loads {
                load.finish().await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let loud = |events| lab.load(events, |n| format!("L{}", n % 20)).tenant("loud");
    quiet(3).await;
    let begin = lab.sink.now();
    quiet(options.seconds / 2).await;
    let turn = lab.sink.now();
    let alone = lab.sink.arrivals(Kind::Well, begin);
    let steady = loud(options.per_second as u64 * options.seconds / 2).per_second(options.per_second).start();
    quiet(options.seconds / 2).await;
    steady.finish().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let burst = lab.sink.now();
    let beside = lab.sink.arrivals(Kind::Well, turn);
    let events = options.per_second as u64 * options.seconds / 2;
    let all_at_once = loud(events).window(1_000).start();
    quiet(options.seconds / 2).await;
    all_at_once.finish().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let after = lab.sink.arrivals(Kind::Well, burst);
    let title = format!("One tenant publishes 100 times as much, {:.0} events/s", options.per_second);
    let says = vec![
        format!(
            "p99 of the nine others: {:.0} ms alone, {:.0} ms beside it",
            percentile(&alone, 0.99),
            percentile(&beside, 0.99)
        ),
        format!(
            "{:.0} ms (at most {:.0} ms) while it publishes {events} at once",
            percentile(&after, 0.99),
            percentile(&after, 1.0)
        ),
    ];
    println!("{title}\n  {}\n  {}", says[0], says[1]);
    let marks =
        vec![((turn - begin).as_secs_f64(), "100 times"), ((burst - begin).as_secs_f64(), "all at once")];
    let points = over_time(&lab.sink.arrivals(Kind::Well, begin), begin);
    Panel { title, unit: "ms", lines: vec![Line { name: "p99 of the others", points }], marks, says }
}
