//! Lines that are slow, cut, half open; names that do not resolve; a machine without ports.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use postrider_core::verify::Faults;
use postrider_testkit::chaos::{Proxy, Toxic, Way};
use postrider_testkit::dns::{Dns, Said};
use postrider_testkit::{Hostile, Manner, eventually, patience, within};
use reqwest::Method;
use serde_json::json;
use tokio::time::sleep;

use crate::machine::{self, Namespace};
use crate::report;
use crate::rig::{ROLES, Rig};

const HEARTBEAT: &str = "5";
const NAMESPACES: [&str; 3] = ["root", "ip", "iptables"];

#[tokio::test]
#[ignore = "takes a minute; part of make chaos"]
async fn f35_lines_to_the_broker_are_half_open() {
    let fault =
        "no byte passes between any role and the broker for 25 s, connections stay open (heartbeat 5 s)";
    let mut rig = Rig::shared("F-35", fault).await;
    rig.heartbeat(HEARTBEAT);
    rig.start_all().await;
    rig.webhook("/hook", json!({})).await;
    rig.publish(1_200, 30.0);
    rig.more_requests(60).await;
    let stalled = SystemTime::now();
    for line in rig.lines.values() {
        line.stall().await;
    }
    eventually("router and worker notice", async || {
        rig.readyz("router").await == 503 && rig.readyz("worker").await == 503
    })
    .await;
    let noticed = stalled.elapsed().unwrap_or_default();
    rig.remark(format!("router and worker noticed after {:.1} s", noticed.as_secs_f64()));
    sleep(Duration::from_secs(25).saturating_sub(noticed)).await;
    for line in rig.lines.values() {
        line.restore().await;
    }
    rig.recovers().await;
    rig.finish(Faults::of_each(1)).await;
}

#[tokio::test]
async fn f36_connections_are_reset_again_and_again() {
    storm("F-36", "all lines to the broker cut for 0.5 s, 5 times, 1.5 s apart", 5, 900).await;
}

#[tokio::test]
#[ignore = "takes minutes; part of make chaos"]
async fn f36_connections_are_reset_for_minutes() {
    storm("F-36x", "all lines to the broker cut for 0.5 s, 60 times, 1.5 s apart", 60, 9_000).await;
}

async fn storm(id: &str, fault: &str, times: u64, events: u64) {
    let mut rig = Rig::shared(id, fault).await;
    rig.start_all().await;
    rig.webhook("/hook", json!({})).await;
    rig.publish(events, 80.0);
    rig.more_requests(60).await;
    for _ in 0..times {
        for line in rig.lines.values() {
            line.cut().await;
        }
        sleep(Duration::from_millis(500)).await;
        for line in rig.lines.values() {
            line.restore().await;
        }
        sleep(Duration::from_millis(1_500)).await;
    }
    rig.recovers().await;
    rig.finish(Faults::of_each(times)).await;
}

#[tokio::test]
async fn f38_the_broker_is_far_away() {
    let delay = Duration::from_millis(100);
    far("F-38", "100 ± 50 ms in each direction between all roles and the broker", delay, 600, 100.0).await;
}

#[tokio::test]
#[ignore = "takes minutes; part of make chaos"]
async fn f38_the_broker_is_very_far_away() {
    let delay = Duration::from_secs(1);
    far("F-38x", "1,000 ± 500 ms in each direction between all roles and the broker", delay, 600, 100.0)
        .await;
}

async fn far(id: &str, fault: &str, delay: Duration, events: u64, per_second: f64) {
    let mut rig = Rig::shared(id, fault).await;
    rig.start_all().await;
    rig.webhook("/hook", json!({})).await;
    let connections = rig.accepted();
    for line in rig.lines.values() {
        for way in [Way::Up, Way::Down] {
            line.set(way, Toxic::Latency { delay, jitter: delay / 2 });
        }
    }
    let begun = SystemTime::now();
    rig.publish(events, per_second);
    rig.delivered(events).await;
    let took = begun.elapsed().unwrap_or_default().as_secs_f64();
    rig.remark(format!(
        "{events} events went through in {took:.1} s, {} new connections",
        rig.accepted() - connections
    ));
    assert_eq!(rig.accepted(), connections, "a far broker is no lost one");
    // The status looks at every queue, one after the other, within a few seconds: it cannot from so far away.
    for line in rig.lines.values() {
        line.clear();
    }
    rig.finish(Faults::NONE).await;
}

#[tokio::test]
#[ignore = "takes a minute; part of make chaos"]
async fn f39_the_line_is_thin() {
    let fault =
        "512 kbit/s in each direction between each role and the broker, events of 2 KiB (heartbeat 5 s)";
    let mut rig = Rig::shared("F-39", fault).await;
    rig.heartbeat(HEARTBEAT);
    rig.text_bytes = 2_000;
    rig.start_all().await;
    rig.webhook("/hook", json!({})).await;
    let connections = rig.accepted();
    for line in rig.lines.values() {
        for way in [Way::Up, Way::Down] {
            line.set(way, Toxic::Bandwidth { bytes_per_second: 64_000 });
        }
    }
    rig.publish(150, 5.0);
    rig.delivered(150).await;
    let more = rig.accepted() - connections;
    rig.remark(format!(
        "{more} new connections; much less, such as 64 kbit/s, does not do: what is prefetched and what is published must \
         pass within the 10 s of an answer"
    ));
    for line in rig.lines.values() {
        line.clear();
    }
    rig.finish(Faults::of_each(more as u64)).await;
}

#[tokio::test]
async fn f40_segments_are_small_and_connections_end_in_the_middle() {
    let fault = "segments of 1 byte to and from the worker for 3 s; then connections of router and worker end in the \
                 middle of a frame after 30,000 bytes, for 6 s; ends are passed on late";
    let mut rig = Rig::shared("F-40", fault).await;
    rig.start_all().await;
    rig.webhook("/hook", json!({})).await;
    rig.publish(900, 60.0);
    rig.more_requests(60).await;
    for way in [Way::Up, Way::Down] {
        rig.lines["worker"].set(way, Toxic::Slicer { bytes: 1, pause: Duration::ZERO });
    }
    sleep(Duration::from_secs(3)).await;
    rig.lines["worker"].clear();
    rig.recovers().await;
    let before = ["router", "worker"].map(|role| rig.lines[role].accepted());
    for role in ["router", "worker"] {
        rig.lines[role].set(Way::Down, Toxic::Limit { bytes: 30_000 });
        rig.lines[role].set(Way::Up, Toxic::SlowClose { delay: Duration::from_millis(300) });
    }
    sleep(Duration::from_secs(6)).await;
    for role in ["router", "worker"] {
        rig.lines[role].clear();
    }
    rig.recovers().await;
    let after = ["router", "worker"].map(|role| rig.lines[role].accepted());
    let [routers, workers] = [after[0] - before[0], after[1] - before[1]];
    rig.remark(format!("{routers} new connections of the router, {workers} of the worker"));
    // A session has two connections; one that is lost takes the other with it.
    let sessions = |connections: usize| connections.div_ceil(2) as u64;
    rig.finish(Faults { routers: sessions(routers), workers: sessions(workers), ..Faults::NONE }).await;
}

#[tokio::test]
#[ignore = "takes a minute; part of make chaos"]
async fn f41_lines_go_one_by_one_and_come_back_in_another_order() {
    let fault =
        "lines to the broker and to the receiver stop one by one and come back in another order, 3 rounds";
    let mut rig = Rig::shared("F-41", fault).await;
    rig.heartbeat(HEARTBEAT);
    rig.start_all().await;
    let receiver = Proxy::start(rig.receiver.address()).await;
    rig.receiver_at = Some(format!("http://{}", receiver.addr()));
    rig.webhook("/hook", json!({})).await;
    rig.publish(2_400, 40.0);
    let orders = [
        ["worker", "receiver", "router", "control"],
        ["receiver", "control", "worker", "router"],
        ["control", "router", "receiver", "worker"],
    ];
    for (round, back) in orders.iter().enumerate() {
        rig.more_requests(40).await;
        for name in ["router", "worker", "control", "receiver"] {
            let line = rig.lines.get(name).unwrap_or(&receiver);
            // Cut and half open by turns.
            if round % 2 == 0 {
                line.cut().await
            } else {
                line.stall().await
            }
            sleep(Duration::from_secs(2)).await;
        }
        for name in back {
            sleep(Duration::from_secs(2)).await;
            rig.lines.get(name).unwrap_or(&receiver).restore().await;
        }
        rig.recovers().await;
    }
    rig.finish(Faults::of_each(2 * 3)).await;
}

/// A worker in a namespace of its own, which reaches broker and receiver by one line.
struct Apart {
    namespace: Namespace,
    receiver: Proxy,
}

impl Apart {
    async fn start(rig: &mut Rig, role_too: bool) -> Self {
        let namespace = Namespace::create();
        rig.lines
            .insert("worker", Proxy::start_at(namespace.outside, rig.vhost.broker().amqp_address()).await);
        let receiver = Proxy::start_at(namespace.outside, rig.receiver.address()).await;
        rig.receiver_at = Some(format!("http://{}", receiver.addr()));
        let apart = Self { namespace, receiver };
        if role_too {
            rig.start("control");
            rig.start("router");
            apart.worker(rig, "worker");
            // Its health is served inside, out of reach.
            rig.ready("control").await;
            rig.ready("router").await;
        }
        apart
    }

    fn worker(&self, rig: &mut Rig, name: &str) {
        let through = self.namespace.through();
        rig.start_with(name, |start| start.through(through));
    }
}

#[tokio::test]
#[ignore = "needs root; part of make chaos"]
async fn f42_a_worker_is_parted_from_everything_and_comes_back() {
    let fault = "a worker in a network namespace: every packet dropped for 40 s (heartbeat 5 s), another worker goes on; \
                 then its link down for 20 s";
    if let Some(lacking) = machine::lacks(&NAMESPACES) {
        return report::not_run("F-42", fault, &lacking);
    }
    let mut rig = Rig::shared("F-42", fault).await;
    rig.heartbeat(HEARTBEAT);
    let apart = Apart::start(&mut rig, true).await;
    rig.webhook("/hook", json!({})).await;
    rig.publish(2_400, 30.0);
    rig.more_requests(40).await;
    apart.namespace.partition();
    let parted = SystemTime::now();
    // The other one reaches the broker by the same proxy, from outside.
    rig.start("worker2");
    rig.ready("worker2").await;
    let since = rig.recovers_since(parted + Duration::from_secs(1)).await;
    rig.remark(format!("the other worker went on after {:.1} s", since.as_secs_f64() + 1.0));
    let left = Duration::from_secs(40).saturating_sub(parted.elapsed().unwrap_or_default());
    sleep(left).await;
    apart.namespace.heal();
    rig.recovers().await;
    rig.stop("worker2").await;
    // Alone again: what comes now comes from the one that was parted.
    rig.more_requests(40).await;
    apart.namespace.exec("ip link set inside down");
    sleep(Duration::from_secs(20)).await;
    apart.namespace.exec("ip link set inside up");
    rig.recovers().await;
    rig.finish(Faults { workers: 3, ..Faults::NONE }).await;
}

#[tokio::test]
#[ignore = "needs root; part of make chaos"]
async fn f37_packets_are_lost() {
    let fault = "1 %, 5 % and 20 % of a worker's packets lost in each direction, 10 s each";
    if let Some(lacking) = machine::lacks(&NAMESPACES) {
        return report::not_run("F-37", fault, &lacking);
    }
    let mut rig = Rig::shared("F-37", fault).await;
    let apart = Apart::start(&mut rig, true).await;
    rig.webhook("/hook", json!({})).await;
    rig.publish(1_200, 40.0);
    rig.more_requests(40).await;
    for share in ["0.01", "0.05", "0.20"] {
        let before = rig.receiver.count();
        for chain in ["INPUT -i inside", "OUTPUT -o inside"] {
            apart
                .namespace
                .rule(&format!("{chain} -m statistic --mode random --probability {share} -j DROP"));
        }
        sleep(Duration::from_secs(10)).await;
        apart.namespace.heal();
        rig.remark(format!("{} requests in 10 s with {share} lost", rig.receiver.count() - before));
    }
    rig.recovers().await;
    // A request whose answer was lost for longer than the deadline comes again, and rightly so.
    rig.finish(Faults { workers: 3, ..Faults::NONE }).await;
}

#[tokio::test]
#[ignore = "needs root; part of make chaos"]
async fn f43_names_do_not_resolve() {
    let fault =
        "a receiver's name: SERVFAIL, NXDOMAIN, no address, refused, slow, silent, over TCP only, flapping";
    if let Some(lacking) = machine::lacks(&NAMESPACES) {
        return report::not_run("F-43", fault, &lacking);
    }
    let mut rig = Rig::shared("F-43", fault).await;
    let apart = Apart::start(&mut rig, false).await;
    apart.namespace.resolver();
    let outside = apart.namespace.outside;
    let dns = Dns::start(SocketAddr::new(outside, 53)).await;
    rig.start("control");
    rig.start("router");
    apart.worker(&mut rig, "worker");
    rig.ready("control").await;
    rig.ready("router").await;
    let port = apart.receiver.addr().port();
    let good = || Said::address(outside);
    let each = |said: Said| vec![said; 12];
    let flapping: Vec<Said> = (0..40)
        .map(|n| match n % 4 {
            0 => Said::NoSuchName,
            1 => Said::Failure,
            _ => good(),
        })
        .collect();
    let names: [(&str, Vec<Said>); 9] = [
        ("healthy", vec![]),
        ("servfail", each(Said::Failure)),
        ("nxdomain", each(Said::NoSuchName)),
        ("nothing", each(Said::Nothing)),
        ("refused", each(Said::Refused)),
        ("slow", vec![good().after(Duration::from_secs(4)); 12]),
        ("silent", each(Said::Silence)),
        ("tcp", vec![Said::OverTcp(Box::new(good()))]),
        ("flapping", flapping),
    ];
    for (name, mut answers) in names {
        // All of them get well in the end.
        answers.push(if name == "tcp" { Said::OverTcp(Box::new(good())) } else { good() });
        dns.answer(&format!("{name}.test"), answers);
        rig.webhook_at(&format!("http://{name}.test:{port}/{name}"), json!({})).await;
    }
    rig.publish(30, 10.0);
    rig.at_rest_within(Duration::from_secs(240)).await;
    for name in ["healthy", "servfail", "nxdomain", "silent", "tcp", "flapping"] {
        rig.remark(format!("{name} asked {} times", dns.asked(&format!("{name}.test"))));
    }
    // The healthy one does not wait for the others.
    let late = rig.lateness("/healthy");
    rig.remark(format!(
        "the healthy one got its last event {:.1} s after it was published",
        late.as_secs_f64()
    ));
    assert!(late < Duration::from_secs(5), "{late:?}");
    rig.finish(Faults::NONE).await;
}

#[tokio::test]
#[ignore = "needs root; part of make chaos"]
async fn f44_a_receiver_moves() {
    let fault = "a receiver's name gets another address while events flow";
    if let Some(lacking) = machine::lacks(&NAMESPACES) {
        return report::not_run("F-44", fault, &lacking);
    }
    let mut rig = Rig::shared("F-44", fault).await;
    let apart = Apart::start(&mut rig, false).await;
    apart.namespace.resolver();
    let outside = apart.namespace.outside;
    let dns = Dns::start(SocketAddr::new(outside, 53)).await;
    let second = apart.namespace.elsewhere;
    let port = apart.receiver.addr().port();
    let moved = Proxy::start_on(SocketAddr::new(second, port), rig.receiver.address()).await;
    dns.answer("moves.test", [Said::address(outside)]);
    rig.start("control");
    rig.start("router");
    apart.worker(&mut rig, "worker");
    rig.ready("control").await;
    rig.ready("router").await;
    rig.webhook_at(&format!("http://moves.test:{port}/hook"), json!({})).await;
    rig.publish(600, 40.0);
    rig.more_requests(100).await;
    dns.answer("moves.test", [Said::address(second)]);
    let told = SystemTime::now();
    // The old place is gone.
    apart.receiver.cut().await;
    eventually("the new place is found", async || moved.accepted() > 0).await;
    rig.recovers_since(told).await;
    rig.finish(Faults { workers: 1, ..Faults::NONE }).await;
}

#[tokio::test]
#[ignore = "needs root; part of make chaos"]
async fn f45_there_are_no_ports() {
    let fault = "a worker with 12 local ports, 100 slow requests to make at once";
    if let Some(lacking) = machine::lacks(&NAMESPACES) {
        return report::not_run("F-45", fault, &lacking);
    }
    let mut rig = Rig::shared("F-45", fault).await;
    let apart = Apart::start(&mut rig, false).await;
    rig.start("control");
    rig.start("router");
    apart.worker(&mut rig, "worker");
    rig.ready("control").await;
    rig.ready("router").await;
    let (webhook, _) = rig.webhook("/hook", json!({ "max_in_flight": 100 })).await;
    rig.receiver.answer("/hook", [postrider_testkit::Answer::Status(200).after(Duration::from_millis(700))]);
    // It has its connections to the broker.
    rig.publish(1, 1.0);
    rig.more_requests(1).await;
    apart.namespace.ports(40_000, 40_011);
    rig.publish(200, 200.0);
    sleep(Duration::from_secs(5)).await;
    apart.namespace.ports(32_768, 60_999);
    rig.recovers().await;
    rig.at_rest().await;
    rig.remark(format!("{} requests for 201 deliveries", rig.receiver.count()));
    let (_, shown) = rig.call(Method::GET, &format!("/v1/webhooks/{webhook}"), None).await;
    assert_eq!(shown["state"], "active", "our own want is not the receiver's fault: {shown:#}");
    rig.finish(Faults::NONE).await;
}

#[tokio::test]
async fn f46_a_receiver_takes_no_connection() {
    let fault = "a receiver whose queue of connections is full, beside a healthy one; then it is deleted";
    let mut rig = Rig::shared("F-46", fault).await;
    rig.start_all().await;
    let absent = Hostile::start(Manner::Absent).await;
    rig.webhook("/hook", json!({})).await;
    let few = json!({ "timeout_ms": 1000, "retry": { "initial_ms": 100, "max_attempts": 2, "jitter": 0.0 } });
    let (dead, _) = rig.webhook_at(&absent.url("/absent"), few).await;
    rig.configured().await;
    rig.publish(60, 30.0);
    let all = within(2 * patience(), async || (rig.latenesses("/hook", 0).len() == 60).then_some(()));
    assert!(all.await.is_some(), "the healthy one did not get everything");
    // Its breaker lets one through from time to time, for hours. It is deleted, and what is left of its is called off.
    let (status, problem) = rig.call(Method::DELETE, &format!("/v1/webhooks/{dead}"), None).await;
    assert!(status.is_success(), "{problem}");
    rig.at_rest().await;
    let late = rig.lateness("/hook");
    rig.remark(format!(
        "the healthy one got its last event {:.1} s after it was published",
        late.as_secs_f64()
    ));
    rig.finish(Faults::NONE).await;
}

#[tokio::test]
#[ignore = "takes a minute; part of make chaos"]
async fn f61_everything_is_suspended() {
    let fault = "broker and all roles stopped (SIGSTOP) for 45 s, then all go on (heartbeat 5 s)";
    let Some(mut rig) = Rig::own("F-61", fault).await else { return };
    rig.heartbeat(HEARTBEAT);
    rig.start_all().await;
    rig.webhook("/hook", json!({})).await;
    rig.publish(1_000, 50.0);
    rig.more_requests(100).await;
    for role in ROLES {
        rig.role(role).process.freeze();
    }
    if !rig.node().freeze(true).await {
        return;
    }
    sleep(Duration::from_secs(45)).await;
    rig.node().freeze(false).await;
    for role in ROLES {
        rig.role(role).process.thaw();
    }
    rig.recovers().await;
    rig.finish(Faults::of_each(2)).await;
}
