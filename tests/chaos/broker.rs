//! A broker that is killed, stopped, full, alarmed, absent, or not as expected.

use std::time::{Duration, SystemTime};

use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use postrider_core::verify::Faults;
use postrider_testkit::{Answer, eventually, within};
use reqwest::Method;
use serde_json::json;
use tokio::time::sleep;

use crate::machine;
use crate::rig::Rig;

#[tokio::test]
async fn f16_the_broker_is_killed() {
    killed("F-16", "the broker killed (kill -9) 2 times", 2, 900).await;
}

#[tokio::test]
#[ignore = "takes minutes; part of make chaos"]
async fn f16_the_broker_is_killed_ten_times() {
    killed("F-16x", "the broker killed (kill -9) 10 times", 10, 6_000).await;
}

async fn killed(id: &str, fault: &str, times: u64, events: u64) {
    let Some(mut rig) = Rig::own(id, fault).await else { return };
    rig.start_all().await;
    rig.webhook("/hook", json!({})).await;
    rig.node().settled().await;
    rig.publish(events, 150.0);
    for _ in 0..times {
        rig.more_requests(100).await;
        rig.node().kill().await;
        rig.node().start_again().await;
        rig.recovers().await;
    }
    rig.finish(Faults::of_each(times)).await;
}

#[tokio::test]
#[ignore = "part of make chaos"]
async fn f17_the_broker_is_restarted() {
    let fault = "the broker restarted in good order: stop_app and start_app, then all of it";
    let Some(mut rig) = Rig::own("F-17", fault).await else { return };
    rig.start_all().await;
    rig.webhook("/hook", json!({})).await;
    rig.node().settled().await;
    rig.publish(1_200, 100.0);
    rig.more_requests(100).await;
    if rig.node().ctl(&["stop_app"]).await.is_none() {
        return;
    }
    rig.node().ctl(&["start_app"]).await;
    rig.recovers().await;
    rig.more_requests(100).await;
    rig.node().stop().await;
    rig.node().start_again().await;
    rig.recovers().await;
    rig.finish(Faults::of_each(2)).await;
}

#[tokio::test]
async fn f18_the_broker_is_short_of_memory() {
    let Some(mut rig) =
        Rig::own("F-18", "a memory alarm for 12 s: every connection that publishes is blocked").await
    else {
        return;
    };
    rig.start_all().await;
    rig.webhook("/hook", json!({ "max_in_flight": 100, "timeout_ms": 10_000 })).await;
    rig.receiver.answer("/hook", [Answer::Status(200).after(Duration::from_millis(500))]);
    rig.publish(1_200, 40.0);
    if !with_work(&mut rig, async |rig: &Rig| rig.node().block(true).await).await {
        return;
    }
    blocked(&mut rig).await;
    rig.node().block(false).await;
    rig.recovers().await;
    rig.all_ready().await;
    // Nobody died: what is under way waits.
    rig.finish(Faults::NONE).await;
}

/// A connection is told that it is blocked when it publishes: router and worker stand still with work in their hands while
/// `alarm` is raised, and go on then. `false` where it cannot be raised.
async fn with_work(rig: &mut Rig, alarm: impl AsyncFnOnce(&Rig) -> bool) -> bool {
    rig.more_requests(60).await;
    eventually("requests wait for their answers", async || {
        rig.receiver.requests().last().is_some_and(|request| request.in_flight >= 5)
    })
    .await;
    for role in ["router", "worker"] {
        rig.role(role).process.freeze();
    }
    let confirmed = rig.confirmed();
    eventually("events wait for the router", async || rig.confirmed() >= confirmed + 20).await;
    let raised = alarm(rig).await;
    for role in ["router", "worker"] {
        rig.role(role).process.thaw();
    }
    raised
}

/// While publishing is blocked: router and worker say so within 20 s, and nothing more is begun.
async fn blocked(rig: &mut Rig) {
    let begun = SystemTime::now();
    for role in ["router", "worker"] {
        let told =
            within(Duration::from_secs(20), async || (rig.readyz(role).await == 503).then_some(())).await;
        assert!(told.is_some(), "the {role} is ready while the broker takes nothing");
    }
    let told = begun.elapsed().unwrap_or_default();
    rig.remark(format!("router and worker were not ready after {:.1} s", told.as_secs_f64()));
    // What had begun ends.
    sleep(Duration::from_secs(3)).await;
    let before = rig.receiver.count();
    sleep(Duration::from_secs(9).saturating_sub(told)).await;
    let more = rig.receiver.count() - before;
    assert!(more <= 5, "{more} requests while the broker takes nothing");
}

#[tokio::test]
#[ignore = "part of make chaos"]
async fn f19_the_broker_is_short_of_disk() {
    let Some(mut rig) = Rig::own("F-19", "a disk alarm for 12 s").await else { return };
    rig.start_all().await;
    rig.webhook("/hook", json!({ "max_in_flight": 100, "timeout_ms": 10_000 })).await;
    rig.receiver.answer("/hook", [Answer::Status(200).after(Duration::from_millis(500))]);
    rig.publish(1_200, 40.0);
    let full = async |rig: &Rig| rig.node().ctl(&["set_disk_free_limit", "900GB"]).await.is_some();
    if !with_work(&mut rig, full).await {
        return;
    }
    blocked(&mut rig).await;
    rig.node().ctl(&["set_disk_free_limit", "50MB"]).await;
    rig.recovers().await;
    rig.all_ready().await;
    rig.finish(Faults::NONE).await;
}

#[tokio::test]
async fn f21_confirms_come_late() {
    frozen("F-21", "the broker stopped (SIGSTOP) for 6 s", Duration::from_secs(6), Faults::of_each(1)).await;
}

#[tokio::test]
#[ignore = "takes minutes; part of make chaos"]
async fn f21_confirms_do_not_come_for_a_minute() {
    frozen("F-21x", "the broker stopped (SIGSTOP) for 60 s", Duration::from_secs(60), Faults::of_each(1))
        .await;
}

async fn frozen(id: &str, fault: &str, long: Duration, faults: Faults) {
    let Some(mut rig) = Rig::own(id, fault).await else { return };
    rig.start_all().await;
    rig.webhook("/hook", json!({})).await;
    rig.publish(800, 100.0);
    rig.more_requests(100).await;
    if !rig.node().freeze(true).await {
        return;
    }
    sleep(long).await;
    rig.node().freeze(false).await;
    rig.recovers().await;
    rig.finish(faults).await;
}

#[tokio::test]
async fn f22_a_queue_is_full() {
    let fault = "no worker, and the queues of deliveries take 20 messages each (reject-publish), for 6 s";
    let Some(mut rig) = Rig::own("F-22", fault).await else { return };
    rig.start_all().await;
    rig.webhook("/hook", json!({})).await;
    let policy = json!({
        "pattern": "^postrider\\.deliveries\\.", "apply-to": "queues",
        "definition": { "max-length": 20, "overflow": "reject-publish" },
    });
    let path = format!("policies/{}/full", rig.vhost.name());
    rig.stop("worker").await;
    rig.vhost.broker().manage(Method::PUT, &path, Some(policy)).await.unwrap();
    rig.publish(800, 200.0);
    // The router cannot get rid of what it has, and stops taking more.
    let full = async || {
        let queues: [u64; 2] = [
            rig.vhost.queue_depth("postrider.deliveries.fresh.0").await,
            rig.vhost.queue_depth("postrider.deliveries.fresh.1").await,
        ];
        queues.iter().any(|ready| *ready >= 20)
    };
    eventually("a queue is full", full).await;
    sleep(Duration::from_secs(6)).await;
    rig.start("worker");
    rig.recovers().await;
    rig.vhost.broker().manage(Method::DELETE, &path, None).await.unwrap();
    // A queue that is full is no fault: what is under way waits.
    rig.finish(Faults::NONE).await;
}

#[tokio::test]
#[ignore = "part of make chaos"]
async fn f23_messages_find_no_queue() {
    let fault = "the bindings of the journal and of one queue of deliveries taken away for 6 s";
    let Some(mut rig) = Rig::own("F-23", fault).await else { return };
    rig.start_all().await;
    rig.webhook("/hook", json!({})).await;
    rig.publish(900, 100.0);
    rig.more_requests(100).await;
    let broker = rig.vhost.broker().clone();
    let bindings = format!("bindings/{}", rig.vhost.name());
    let all = broker.manage(Method::GET, &bindings, None).await.unwrap();
    for (source, queue) in
        [("postrider.journal", "postrider.journal"), ("postrider.deliveries", "postrider.deliveries.fresh.0")]
    {
        let found =
            all.as_array().unwrap().iter().find(|b| b["source"] == source && b["destination"] == queue);
        let key = found.unwrap()["properties_key"].as_str().unwrap();
        let path = format!("{bindings}/e/{source}/q/{queue}/{key}");
        broker.manage(Method::DELETE, &path, None).await.unwrap();
    }
    sleep(Duration::from_secs(6)).await;
    rig.remark(format!(
        "meanwhile /readyz: router {}, worker {}",
        rig.readyz("router").await,
        rig.readyz("worker").await
    ));
    // As an operator would: `postrider topology apply`.
    rig.command(&["topology", "apply"]).await;
    rig.recovers().await;
    rig.remark("deliveries without a queue went to poison, and are dead letters with a reason");
    rig.finish(Faults::of_each(8)).await;
}

#[tokio::test]
#[ignore = "part of make chaos"]
async fn f24_a_queue_is_deleted_under_its_consumers() {
    let fault = "an empty queue of deliveries and the journal's deleted under their consumers, and the topology applied again";
    let Some(mut rig) = Rig::own("F-24", fault).await else { return };
    rig.start_all().await;
    rig.webhook("/hook", json!({})).await;
    rig.publish(300, 300.0);
    rig.at_rest().await;
    for queue in ["postrider.deliveries.fresh.0", "postrider.journal"] {
        let path = format!("queues/{}/{queue}", rig.vhost.name());
        rig.vhost.broker().manage(Method::DELETE, &path, None).await.unwrap();
    }
    let noticed = SystemTime::now();
    let told =
        within(Duration::from_secs(20), async || (rig.readyz("worker").await == 503).then_some(())).await;
    assert!(told.is_some(), "a worker without one of its queues is ready");
    let told = noticed.elapsed().unwrap_or_default();
    rig.remark(format!("the worker was not ready after {:.1} s", told.as_secs_f64()));
    rig.command(&["topology", "apply"]).await;
    rig.all_ready().await;
    rig.publish(300, 300.0);
    rig.recovers().await;
    rig.finish(Faults::of_each(1)).await;
}

#[tokio::test]
async fn f29_connections_are_closed_by_force() {
    closed("F-29", "all connections that the broker lists closed by force, 4 times", 4, 1_200).await;
}

#[tokio::test]
#[ignore = "takes minutes; part of make chaos"]
async fn f29_connections_are_closed_by_force_for_minutes() {
    closed("F-29x", "all connections that the broker lists closed by force, 30 times", 30, 8_000).await;
}

async fn closed(id: &str, fault: &str, times: u64, events: u64) {
    let mut rig = Rig::shared(id, fault).await;
    rig.start_all().await;
    rig.webhook("/hook", json!({})).await;
    let before: usize = rig.connections();
    rig.publish(events, 40.0);
    rig.more_requests(60).await;
    let mut closed = 0;
    for _ in 0..times {
        // The broker lists a connection a moment after it is there.
        eventually("the broker lists connections", async || {
            let now = rig.vhost.close_all_connections().await;
            closed += now;
            now > 0
        })
        .await;
        sleep(Duration::from_millis(1_500)).await;
    }
    rig.recovers().await;
    rig.remark(format!("{closed} connections closed"));
    eventually("there are as many connections as before", async || rig.connections() <= before).await;
    rig.finish(Faults::of_each(times)).await;
}

#[tokio::test]
#[ignore = "part of make chaos"]
async fn f30_permissions_are_taken_away() {
    let fault = "the user's permissions taken away for 8 s, then its password changed for 8 s, connections closed each time";
    let Some(mut rig) = Rig::own("F-30", fault).await else { return };
    let secret = "chaos-password-that-no-log-may-show";
    rig.user("hurt", secret).await;
    rig.start_all().await;
    rig.webhook("/hook", json!({})).await;
    rig.publish(1_500, 50.0);
    rig.more_requests(60).await;
    let permissions = format!("permissions/{}/hurt", rig.vhost.name());
    let all = json!({ "configure": ".*", "write": ".*", "read": ".*" });
    let broker = rig.vhost.broker().clone();
    for round in ["permissions", "password"] {
        let before = rig.accepted();
        if round == "permissions" {
            broker.manage(Method::DELETE, &permissions, None).await.unwrap();
        } else {
            let other = json!({ "password": "another", "tags": "" });
            broker.manage(Method::PUT, "users/hurt", Some(other)).await.unwrap();
        }
        rig.close_role_connections().await;
        sleep(Duration::from_secs(8)).await;
        for role in ["router", "worker"] {
            assert_eq!(rig.readyz(role).await, 503, "{role} without {round}");
        }
        rig.remark(format!("{} tries to connect in 8 s without {round}", rig.accepted() - before));
        if round == "permissions" {
            broker.manage(Method::PUT, &permissions, Some(all.clone())).await.unwrap();
        } else {
            let same = json!({ "password": secret, "tags": "" });
            broker.manage(Method::PUT, "users/hurt", Some(same)).await.unwrap();
        }
        rig.recovers().await;
    }
    for role in crate::rig::ROLES {
        assert!(!rig.role(role).process.log().contains(secret), "the log of {role} shows the password");
    }
    rig.finish(Faults::of_each(2)).await;
}

#[tokio::test]
async fn f31_the_broker_comes_later() {
    let Some(mut rig) = Rig::own("F-31", "no broker when all roles start; it comes 6 s later").await else {
        return;
    };
    rig.node().kill().await;
    for role in crate::rig::ROLES {
        rig.start(role);
    }
    sleep(Duration::from_secs(6)).await;
    for role in crate::rig::ROLES {
        assert!(
            rig.role(role).process.exited().is_none(),
            "{role} gave up: {}",
            rig.role(role).process.log()
        );
        assert_eq!(rig.livez(role).await, 200, "{role}");
        assert_eq!(rig.readyz(role).await, 503, "{role} is ready without a broker");
    }
    rig.node().start_again().await;
    let came = SystemTime::now();
    rig.all_ready().await;
    rig.remark(format!(
        "all roles ready {:.1} s after the broker",
        came.elapsed().unwrap_or_default().as_secs_f64()
    ));
    rig.webhook("/hook", json!({})).await;
    rig.publish(300, 200.0);
    rig.recovers_since(came).await;
    rig.finish(Faults::NONE).await;
}

#[tokio::test]
async fn f32_a_queue_has_other_arguments() {
    let mut rig =
        Rig::shared("F-32", "a queue of deliveries is there already, without what the topology gives it")
            .await;
    let channel = rig.vhost.connect().await.create_channel().await.unwrap();
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let queue = "postrider.deliveries.fresh.0";
    channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), arguments).await.unwrap();
    for role in ["router", "worker"] {
        rig.start(role);
    }
    for role in ["router", "worker"] {
        let process = &rig.role(role).process;
        let named = within(Duration::from_secs(30), async || {
            let log = process.log();
            (log.contains(queue) && log.contains("x-dead-letter-exchange")).then_some(())
        });
        assert!(named.await.is_some(), "the log of {role} names no argument: {}", process.log());
        assert_ne!(rig.readyz(role).await, 200, "{role} is ready");
    }
    let kept = rig.vhost.queues().await.into_iter().find(|found| found.name == queue).unwrap();
    assert!(kept.arguments.get("x-dead-letter-exchange").is_none(), "it was touched: {}", kept.arguments);
    rig.remark("router and worker name the queue and the argument, are not ready, and touch nothing");
    for role in ["router", "worker"] {
        rig.kill(role).await;
    }
    drop(channel);
    // The operator makes room; everything goes on.
    rig.vhost
        .broker()
        .manage(Method::DELETE, &format!("queues/{}/{queue}", rig.vhost.name()), None)
        .await
        .unwrap();
    rig.start_all().await;
    rig.webhook("/hook", json!({})).await;
    rig.publish(200, 200.0);
    rig.recovers().await;
    rig.finish(Faults::NONE).await;
}

#[tokio::test]
#[ignore = "needs root; part of make chaos"]
async fn f15_the_brokers_power_is_cut() {
    let (id, fault) = ("F-15", "power cut of the broker's disk (ext4 shutdown without a flush), 2 times");
    if let Some(lacking) = machine::lacks(&["root", "mkfs.ext4", "python3"]) {
        return crate::report::not_run(id, fault, &lacking);
    }
    let disk = machine::Disk::create(2_000);
    let node = postrider_testkit::rabbit::Node::start_under(&disk.path).await;
    let mut rig = Rig::with(id, fault, node).await;
    rig.start_all().await;
    rig.webhook("/hook", json!({})).await;
    rig.node().settled().await;
    // What an installer does: the topology is on disk before anything is trusted to it.
    machine::must("sync");
    rig.publish(1_500, 50.0);
    let mut damaged = 0;
    for _ in 0..2 {
        rig.more_requests(150).await;
        // Nothing can be read from the disk afterwards, so the processes are looked up before.
        let processes = ["pid", "epmd.pid"].map(|file| read_pid(&rig, file));
        disk.cut_power();
        for process in processes {
            machine::kill_group(process);
        }
        disk.come_back();
        rig.node().start_again().await;
        // What is in queues is delivered in any case; a router that can work is ready for longer than a moment.
        let mut steady = 0;
        for _ in 0..20 {
            steady = if rig.readyz("router").await == 200 { steady + 1 } else { 0 };
            if steady == 6 {
                break;
            }
            sleep(Duration::from_secs(1)).await;
        }
        if steady < 6 {
            // Streams are never flushed to disk. RabbitMQ 3.10.8 does not start one again whose file ends in zeros: what
            // is published to it is never confirmed, and the router waits and says so. This is what its operator does
            // (docs/guarantees.md): an hour's memory of ids is lost, and no event.
            damaged += 1;
            rig.command(&["topology", "apply", "--renew-streams"]).await;
            rig.stop("control").await;
            rig.start("control");
        }
        rig.recovers().await;
    }
    rig.remark(format!(
        "{damaged} of 2 times RabbitMQ could not start its streams again and they had to be made anew \
         (`postrider topology apply --renew-streams`), and control started again; recovery is counted from there"
    ));
    rig.finish_with_disk(Faults::of_each(4), disk).await;
}

/// The process whose id the node keeps in this file.
fn read_pid(rig: &Rig, file: &str) -> u32 {
    let path = rig.node().directory().unwrap().join(file);
    let kept = std::fs::read_to_string(path).unwrap();
    kept.split_whitespace().next().unwrap().parse().unwrap()
}
