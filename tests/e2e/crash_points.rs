//! The process dies at every crash point, several times, under load; then it is started again, everything comes to rest,
//! and the checker finds nothing: no event lost, the books right, and duplicates only where the point allows them.
//!
//! Four systems, two of them for control, each on a vhost of its own, go through the points of their role side by side.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use postrider_broker::crash::{POINTS, Point, Repeats};
use postrider_testkit::ledger::Published;
use postrider_testkit::load::Load;
use postrider_testkit::rabbit::{Broker, Vhost};
use postrider_testkit::{Answer, eventually, patience, within, workspace_dir};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::system::{Role, System};

/// Which passes of a point the process dies at, one start for each.
const USUAL: &[u64] = &[1, 2, 7];
/// Of points that one life passes once.
const ONCE: &[u64] = &[1, 1, 1];

/// Events for one death, at most.
const MOST_EVENTS: u64 = 300;

/// What makes a role pass a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drive {
    /// Its start is enough.
    Start,
    /// Events.
    Events,
    /// Events of which more arrive than may begin, and an orderly stop in the middle.
    Drain,
    /// Messages that a worker died over three times.
    TakenTooOften,
    /// A message that is no delivery.
    Garbage,
    /// Events over HTTP.
    Post,
    /// New objects over HTTP, each with a key.
    Create,
    /// Changes of a webhook.
    Change,
    /// Redeliveries of what is dead.
    Redeliver,
    /// A replay of what is dead.
    Replay,
    /// Reminders that are due.
    Remind,
    /// Events for a paused webhook, which is resumed.
    Resume,
}

/// Who passes a point, which passes are chosen, and how it is made to.
fn plan(point: &Point) -> (&'static str, &'static [u64], Drive) {
    let (task, _) = point.name.split_once('.').unwrap();
    match (task, point.name) {
        (_, "router.marker") => ("router", ONCE, Drive::Events),
        ("router", _) => ("router", USUAL, Drive::Events),
        (_, "worker.set_apart") => ("worker", ONCE, Drive::TakenTooOften),
        (_, "worker.poisoned") => ("worker", ONCE, Drive::Garbage),
        (_, "worker.gave_back") => ("worker", ONCE, Drive::Drain),
        ("worker", _) => ("worker", USUAL, Drive::Events),
        ("recorder", _) => ("control", USUAL, Drive::Events),
        ("snapshot", _) => ("control", ONCE, Drive::Start),
        (_, "outbox.config_published" | "outbox.marked") => ("control", USUAL, Drive::Change),
        (_, "outbox.event_published") => ("control", USUAL, Drive::Remind),
        (_, "outbox.delivery_published") => ("control", USUAL, Drive::Redeliver),
        ("release", _) => ("control", ONCE, Drive::Resume),
        ("replays", _) => ("control", ONCE, Drive::Replay),
        ("reminders", _) => ("control", USUAL, Drive::Remind),
        (_, "api.events_confirmed") => ("control", USUAL, Drive::Post),
        (_, "api.committed") => ("control", USUAL, Drive::Create),
        _ => panic!("{} has no plan", point.name),
    }
}

/// A system under load, one of whose roles dies again and again.
struct Rig {
    system: System,
    published: Published,
    role: &'static str,
    crashes: u64,
    /// Requests to the API whose answer never came: key, path and body.
    unanswered: Vec<(String, String, Value)>,
    numbers: u64,
    paused: String,
    changed: String,
    vhost: Vhost,
}

impl Rig {
    async fn start(role: &'static str) -> (Self, BTreeMap<&'static str, Role>) {
        let vhost = Vhost::create(&Broker::shared().await, &format!("crash-{role}")).await;
        let system = System::new(vhost.url()).await.with_ledger().await;
        let [control, router, worker] = system.start_all_roles().await;
        let receiver = &system.receiver;
        // Refusals: failures of the receiver would open its breaker, and everything would take its time.
        receiver.answer_by("/once", |request| match request.header("webhook-attempt") {
            Some("1") => Answer::Status(404),
            _ => Answer::Status(200),
        });
        receiver.answer("/dead", [Answer::Status(404)]);
        receiver.answer("/late", [Answer::Status(200).after(Duration::from_millis(60))]);
        let brief = json!({ "initial_ms": 100, "jitter": 0.1, "max_attempts": 2 });
        for path in ["/ok", "/once"] {
            system.webhook(path, &json!({ "timeout_ms": 15_000 })).await;
        }
        // Few at a time, so that some are parked.
        system.webhook("/late", &json!({ "timeout_ms": 15_000, "max_in_flight": 3 })).await;
        // It goes on failing for longer than any webhook may.
        let dead = json!({ "retry": brief, "disable_after_failures": 0 });
        system.webhook("/dead", &dead).await;
        let held = json!({ "subscription": { "event_types": ["HELD"] } });
        let (paused, _) = system.webhook("/paused", &held).await;
        let nothing = json!({ "subscription": { "event_types": ["NEVER"] } });
        let (changed, _) = system.webhook("/changed", &nothing).await;
        system.configured(&router).await;
        let published = system.published();
        let numbers = 0;
        let rig = Self {
            system,
            published,
            role,
            crashes: 0,
            unanswered: Vec::new(),
            numbers,
            paused,
            changed,
            vhost,
        };
        (rig, BTreeMap::from([("control", control), ("router", router), ("worker", worker)]))
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn load(&self, events: u64) -> Load {
        let body = |n| json!({ "event_type": "LOAD", "data": { "n": n } });
        let load = Load::new(self.vhost.url(), events).ledger(&self.published).window(16).body(body);
        // Who takes a message in pieces must not lose one.
        if self.role == "router" { load.per_message(3) } else { load }
    }

    /// Starts the role so that it dies at the `n`-th pass of a point, and sees to it that it passes.
    async fn die(&mut self, point: &Point, n: u64, drive: Drive) {
        if drive == Drive::TakenTooOften {
            self.take_three_times().await;
        }
        // Few slots and a slow receiver, so that more is handed out than may begin.
        let (slots, slow) = if drive == Drive::Drain { ("16", "16") } else { ("64", "1024") };
        let ok = Answer::Status(200);
        let pause = Duration::from_millis(if drive == Drive::Drain { 500 } else { 0 });
        self.system.receiver.answer("/ok", [ok.after(pause)]);
        let at = format!("{}:{n}", point.name);
        let more = [
            ("POSTRIDER_CRASH_AT", at.as_str()),
            ("POSTRIDER_CONCURRENCY", slots),
            ("POSTRIDER_SLOW_CONCURRENCY", slow),
        ];
        let role = self.system.start_with(self.role, &more);
        // What is published before it works would come in one piece.
        eventually("it is ready, or has died", async || {
            role.process.exited().is_some() || role.is_ready().await
        })
        .await;
        let loading = matches!(drive, Drive::Events | Drive::TakenTooOften);
        let loading = loading.then(|| self.load(MOST_EVENTS).per_second(100.0).start());
        let begun = Instant::now();
        let mut driven = false;
        while role.process.exited().is_none() {
            assert!(
                begun.elapsed() < patience(),
                "{at} was not passed within {:?}\n{}",
                patience(),
                role.process.log()
            );
            match drive {
                Drive::Start | Drive::Events | Drive::TakenTooOften => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Drive::Drain if !driven => {
                    driven = true;
                    let before = self.system.receiver.count();
                    self.load(60).publish().await;
                    eventually("it is at work", async || self.system.receiver.count() > before).await;
                    role.process.terminate();
                }
                Drive::Garbage if !driven => {
                    driven = true;
                    let properties = lapin::BasicProperties::default().with_delivery_mode(2);
                    let bytes = format!("no delivery {}", self.number());
                    self.vhost.publish("postrider.deliveries", "fresh.0", bytes.as_bytes(), properties).await;
                }
                Drive::Drain | Drive::Garbage => tokio::time::sleep(Duration::from_millis(5)).await,
                _ => self.call(drive).await,
            }
        }
        let status = role.process.exited().unwrap();
        assert_eq!(status.signal(), Some(6), "{at}: {status}\n{}", role.process.log());
        self.crashes += 1;
        if let Some(loading) = loading {
            loading.stop().await;
        }
    }

    /// Three workers die over the same messages.
    async fn take_three_times(&mut self) {
        for _ in 0..3 {
            let at = [("POSTRIDER_CRASH_AT", "worker.read:1")];
            let worker = self.system.start_with(self.role, &at);
            self.load(3).publish().await;
            worker.process.wait_exit(patience()).await;
            self.crashes += 1;
        }
    }

    /// One step of what is done over the API. No answer is as good as any: control may be down.
    async fn call(&mut self, drive: Drive) {
        let n = self.number();
        let key = format!("key-{n}");
        match drive {
            Drive::Post => {
                let body = json!({ "event_type": "LOAD", "id": format!("http-{n}") });
                self.once(key, "/v1/events".into(), body).await;
            }
            Drive::Create => {
                let body = json!({
                    "name": format!("created-{n}"), "url": self.system.receiver.url("/created"),
                    "subscription": { "event_types": ["NEVER"] },
                });
                self.once(key, "/v1/webhooks".into(), body).await;
            }
            Drive::Change => {
                let (path, body) =
                    (format!("/v1/webhooks/{}", self.changed), json!({ "name": format!("n{n}") }));
                self.system.try_call(Method::PATCH, &path, None, Some(&body)).await;
            }
            Drive::Redeliver => {
                for delivery in self.dead(5).await {
                    let path = format!("/v1/deliveries/{}/redeliver", delivery["id"].as_str().unwrap());
                    self.system.try_call(Method::POST, &path, None, None).await;
                }
            }
            Drive::Replay => {
                let events: Vec<Value> = self.dead(3).await.iter().map(|row| row["event"].clone()).collect();
                let body = json!({ "states": ["dead"], "events": events, "run": true });
                self.system.try_call(Method::POST, "/v1/replays", None, Some(&body)).await;
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
            Drive::Remind => {
                let tomorrow = postrider_core::Timestamp::from_millis(now_ms() + 86_400_000).to_rfc3339();
                let body = json!({ "event_type": "PointsWillExpire", "date": &tomorrow[..10] });
                let path = format!("/v1/reminders/due-{n}");
                self.system.try_call(Method::PUT, &path, None, Some(&body)).await;
            }
            Drive::Resume => {
                let webhook = |what: &str| format!("/v1/webhooks/{}/{what}", self.paused);
                self.system.try_call(Method::POST, &webhook("pause"), None, None).await;
                self.load(3).body(|_| json!({ "event_type": "HELD" })).publish().await;
                within(Duration::from_secs(5), async || {
                    let books = self.system.try_call(Method::GET, "/v1/status", None, None).await;
                    books.is_none_or(|(_, books)| books["deliveries"]["held"] != 0).then_some(())
                })
                .await;
                self.system.try_call(Method::POST, &webhook("resume"), None, None).await;
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            Drive::Start | Drive::Events | Drive::Drain | Drive::TakenTooOften | Drive::Garbage => {}
        }
    }

    /// Some deliveries that were given up.
    async fn dead(&self, most: u32) -> Vec<Value> {
        let path = format!("/v1/deliveries?state=dead&limit={most}");
        let list = self.system.try_call(Method::GET, &path, None, None).await;
        list.map(|(_, list)| list["items"].as_array().cloned().unwrap_or_default()).unwrap_or_default()
    }

    /// A request with a key; if no answer came it is remembered, to be sent again.
    async fn once(&mut self, key: String, path: String, body: Value) {
        match self.system.try_call(Method::POST, &path, Some(&key), Some(&body)).await {
            Some((status, _)) if status.is_success() => self.accepted(&body).await,
            // It has no connection yet, or none any more: do not run ahead of who looks whether it is gone.
            answer => {
                let down = answer.is_none_or(|(status, _)| status == StatusCode::SERVICE_UNAVAILABLE);
                assert!(down, "{path} was refused");
                self.unanswered.push((key, path, body));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    async fn accepted(&self, body: &Value) {
        if let Some(id) = body["id"].as_str() {
            self.published.append("default", id).await;
        }
    }

    /// What was not answered is sent again under the same key: there is one of each.
    async fn repeat_unanswered(&mut self) {
        for (key, path, body) in std::mem::take(&mut self.unanswered) {
            let (status, answer) =
                self.system.try_call(Method::POST, &path, Some(&key), Some(&body)).await.unwrap();
            assert!(status.is_success(), "{path} again: {status} {answer}");
            self.accepted(&body).await;
            if let Some(name) = body["name"].as_str() {
                let all = self.system.get("/v1/webhooks?limit=200").await;
                let made = all["items"].as_array().unwrap().iter().filter(|webhook| webhook["name"] == name);
                assert_eq!(made.count(), 1, "{name} was created once");
            }
        }
    }

    /// Waits until the broker holds nothing that a worker would send, copies of what was delivered among it: the books may be
    /// right before they have all gone their way.
    async fn nothing_on_its_way(&self, worker: &Role) {
        let names = self.vhost.queues().await.into_iter().map(|queue| queue.name);
        let mut queues: Vec<String> = names
            .filter(|name| [".park.", ".delay.", ".deliveries."].iter().any(|part| name.contains(part)))
            .collect();
        // In the order in which a delivery goes: what has left one is found in the next, or with the worker.
        queues.sort_by_key(|name| name.contains(".deliveries."));
        assert!(!queues.is_empty());
        let of_worker = async |name: &str| {
            let metrics = worker.metrics().await;
            let line = metrics.lines().find(|line| line.starts_with(name)).map(str::to_owned);
            line.unwrap_or_else(|| panic!("{name} is a metric of the worker"))
        };
        eventually("no delivery is on its way", async || {
            let before = of_worker("postrider_consumed_total").await;
            for queue in &queues {
                if self.vhost.queue_depth(queue).await > 0 {
                    return false;
                }
            }
            // Nor has the worker one, or sent one back to where was looked before.
            of_worker("postrider_held_messages").await.ends_with(" 0")
                && of_worker("postrider_consumed_total").await == before
        })
        .await;
    }

    /// Waits until the checker finds nothing, and returns its report.
    async fn clean(&self, point: &str) -> Value {
        let crashes = format!("{}={}", self.role, self.crashes);
        let mut last = Value::Null;
        let clean = within(2 * patience(), async || {
            let (code, report) = self.system.verify(&["--at-rest", "--crashes", &crashes]).await;
            last = report;
            (code == Some(0)).then_some(())
        });
        assert!(clean.await.is_some(), "after {point}, {crashes}: {last:#}");
        last
    }
}

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// Goes through the points of a role whose tasks are among these; all of its points, where none are named.
async fn crash_everywhere(role: &'static str, tasks: &[&str]) {
    let begun = Instant::now();
    let (mut rig, mut roles) = Rig::start(role).await;
    if role == "control" {
        rig.system.import("open-loyalty").await;
        let settings = json!({ "lead_days": { "PointsWillExpire": 30 } });
        rig.system.call(Method::PATCH, "/v1/settings", Some(&settings)).await;
        // Something to redeliver and to replay.
        rig.load(20).publish().await;
    }
    let mut duplicated = 0;
    let (mut died, mut lines, mut since) = (0, Vec::new(), Instant::now());
    let chosen = |point: &&Point| {
        let task = point.name.split_once('.').unwrap().0;
        plan(point).0 == role && (tasks.is_empty() || tasks.contains(&task))
    };
    for point in POINTS.iter().filter(chosen) {
        let (_, passes, drive) = plan(point);
        roles.remove(role).unwrap().stop().await;
        for n in passes {
            rig.die(point, *n, drive).await;
        }
        died += passes.len();
        roles.insert(role, rig.system.start(role).ready().await);
        rig.repeat_unanswered().await;
        rig.nothing_on_its_way(&roles["worker"]).await;
        let report = rig.clean(point.name).await;
        let now = report["duplicated"].as_u64().unwrap();
        let more = now - duplicated;
        if point.repeats != Repeats::Begun && more > 0 {
            let (_, mut repeated) = rig.system.requests_by_id();
            // What fails once is sent twice.
            repeated.retain(|_, requests| !requests[0].contains("/once") || requests.len() > 2);
            panic!("{}: {more} duplicates among {repeated:#?}", point.name);
        }
        duplicated = now;
        let took = std::mem::replace(&mut since, Instant::now()).elapsed().as_secs_f64();
        lines.push(format!(
            "{:<28} died {} times in {took:.1} s: {} pairs, lost {}, {more} duplicated, {} unlogged so far",
            point.name,
            passes.len(),
            report["n"],
            report["lost"],
            report["unlogged"],
        ));
    }
    rig.system.at_rest().await;
    let report = rig.clean("all of them").await;
    eprintln!("{}", lines.join("\n"));
    eprintln!(
        "{role}: {died} crashes in {:.0} s; n = {}, lost {}, duplicated {} of at most {}, drift {}, 95 % bound {} %",
        begun.elapsed().as_secs_f64(),
        report["n"],
        report["lost"],
        report["duplicated"],
        report["most_duplicated"],
        report["drift"],
        report["bound_percent"],
    );
    for (_, role) in roles {
        role.stop().await;
    }
}

#[tokio::test]
async fn a_router_dies_at_every_crash_point() {
    crash_everywhere("router", &[]).await;
}

#[tokio::test]
async fn a_worker_dies_at_every_crash_point() {
    crash_everywhere("worker", &[]).await;
}

/// The tasks of control in two parts, side by side.
const CONTROL: [&[&str]; 2] =
    [&["recorder", "snapshot", "outbox"], &["release", "replays", "reminders", "api"]];

#[tokio::test]
async fn control_dies_at_every_crash_point_of_recording_and_sending() {
    crash_everywhere("control", CONTROL[0]).await;
}

#[tokio::test]
async fn control_dies_at_every_crash_point_of_its_other_tasks() {
    crash_everywhere("control", CONTROL[1]).await;
}

#[test]
fn the_two_parts_have_all_tasks_of_control() {
    for point in POINTS.iter().filter(|point| plan(point).0 == "control") {
        let task = point.name.split_once('.').unwrap().0;
        assert!(CONTROL.iter().any(|part| part.contains(&task)), "{} is in no part", point.name);
    }
}

/// One list: the names in the code, `crash::POINTS`, and the table of the documentation.
#[test]
fn the_list_the_code_and_the_documentation_name_the_same_points() {
    let mut listed: Vec<&str> = POINTS.iter().map(|point| point.name).collect();
    listed.sort_unstable();
    assert!(listed.is_sorted_by(|a, b| a < b), "a name is there twice: {listed:?}");

    let mut passed = Vec::new();
    let mut folders = vec![workspace_dir().join("crates")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("tests") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = std::fs::read_to_string(&path).unwrap();
                for call in ["crash::point(\"", "crash::while_waiting(\""] {
                    let names = source.split(call).skip(1).filter_map(|rest| rest.split_once('"'));
                    passed.extend(names.map(|(name, _)| name.to_owned()));
                }
            }
        }
    }
    passed.sort_unstable();
    assert_eq!(passed, listed, "each is passed in one place, and is in the list");

    let text = std::fs::read_to_string(workspace_dir().join("docs/crash-points.md")).unwrap();
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let mut documented: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in text.lines().filter(|line| line.starts_with("| `")).map(cells) {
        documented.insert(row[0].trim_matches('`').to_owned(), row);
    }
    for point in POINTS {
        let duplicates = match point.repeats {
            Repeats::None => "none",
            Repeats::Begun => "what had begun",
        };
        let expected =
            [format!("`{}`", point.name), point.place.into(), point.after.into(), duplicates.into()];
        assert_eq!(documented.remove(point.name), Some(expected.to_vec()), "docs/crash-points.md");
    }
    assert!(documented.is_empty(), "not crash points: {:?}", documented.keys());
}
