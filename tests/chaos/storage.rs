//! A store whose disk fails, fills up, loses power; that is locked; that is copied.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use postrider_core::verify::Faults;
use postrider_testkit::within;
use serde_json::json;
use tokio::time::sleep;

use crate::machine::{self, Disk, Injected};
use crate::report;
use crate::rig::Rig;

#[tokio::test]
#[ignore = "needs root; part of make chaos"]
async fn f49_the_stores_power_is_cut() {
    let (id, fault) =
        ("F-49", "power cut of the store's disk (ext4 shutdown without a flush), control killed, 3 times");
    if let Some(lacking) = machine::lacks(&["root", "mkfs.ext4", "python3"]) {
        return report::not_run(id, fault, &lacking);
    }
    let disk = Disk::create(200);
    let mut rig = Rig::shared(id, fault).await;
    rig.store_in(disk.path.clone());
    rig.start_all().await;
    rig.webhook("/hook", json!({})).await;
    rig.publish(1_800, 100.0);
    for _ in 0..3 {
        rig.more_requests(150).await;
        disk.cut_power();
        rig.kill("control").await;
        disk.come_back();
        rig.start("control");
        rig.recovers().await;
        rig.ready("control").await;
    }
    rig.finish_with_disk(Faults { controls: 3, ..Faults::NONE }, disk).await;
}

#[tokio::test]
#[ignore = "needs strace; part of make chaos"]
async fn f50_the_disk_says_that_it_failed() {
    let (id, fault) = (
        "F-50",
        "every fsync and fdatasync of control fails with EIO until it ends; then it is started again",
    );
    if let Some(lacking) = machine::lacks(&["strace"]) {
        return report::not_run(id, fault, &lacking);
    }
    let mut rig = Rig::shared(id, fault).await;
    rig.start_all().await;
    rig.webhook("/hook", json!({})).await;
    rig.publish(1_200, 60.0);
    rig.more_requests(100).await;
    let injected = Injected::attach(rig.role("control").process.pid(), "inject=fsync,fdatasync:error=EIO");
    let begun = SystemTime::now();
    // Either it ends, or it says that it cannot work; it must not acknowledge what is on no disk.
    let told = within(Duration::from_secs(20), async || {
        let ended = rig.role("control").process.exited();
        if ended.is_some() || rig.readyz("control").await == 503 { Some(ended) } else { None }
    });
    let told = told.await;
    let after = begun.elapsed().unwrap_or_default().as_secs_f64();
    rig.remark(match told {
        Some(Some(status)) => format!("control ended after {after:.1} s with {status}"),
        Some(None) => format!("control was not ready after {after:.1} s"),
        None => "control did not say that anything was wrong".to_owned(),
    });
    sleep(Duration::from_secs(3)).await;
    drop(injected);
    rig.kill("control").await;
    rig.start("control");
    rig.recovers().await;
    rig.ready("control").await;
    rig.finish(Faults { controls: 1, ..Faults::NONE }).await;
    assert!(told.is_some(), "control says nothing while its disk fails");
}

#[tokio::test]
#[ignore = "needs root; part of make chaos"]
async fn f51_the_stores_disk_is_full() {
    let (id, fault) = ("F-51", "the store's disk full for 10 s");
    if let Some(lacking) = machine::lacks(&["root", "mkfs.ext4", "fallocate"]) {
        return report::not_run(id, fault, &lacking);
    }
    let disk = Disk::create(64);
    let mut rig = Rig::shared(id, fault).await;
    rig.store_in(disk.path.clone());
    rig.start_all().await;
    rig.webhook("/hook", json!({})).await;
    rig.publish(1_200, 60.0);
    rig.more_requests(100).await;
    disk.fill(64 * 1024);
    let begun = SystemTime::now();
    let told =
        within(Duration::from_secs(20), async || (rig.readyz("control").await == 503).then_some(())).await;
    let after = begun.elapsed().unwrap_or_default().as_secs_f64();
    rig.remark(if told.is_some() {
        format!("control was not ready after {after:.1} s")
    } else {
        "control did not say that it cannot write".to_owned()
    });
    let before = rig.receiver.count();
    sleep(Duration::from_secs(10).saturating_sub(begun.elapsed().unwrap_or_default())).await;
    rig.remark(format!("{} deliveries went on meanwhile", rig.receiver.count() - before));
    let (status, _) = rig.call(reqwest::Method::GET, "/v1/webhooks", None).await;
    assert!(status.is_success(), "reading still works: {status}");
    disk.make_room();
    rig.recovers().await;
    rig.ready("control").await;
    rig.finish_with_disk(Faults::NONE, disk).await;
    assert!(told.is_some(), "control says nothing while its disk is full");
}

#[tokio::test]
#[ignore = "takes a minute; part of make chaos"]
async fn f52_the_store_is_locked() {
    let (id, fault) = ("F-52", "somebody else holds the store's lock for 60 s");
    if let Some(lacking) = machine::lacks(&["python3"]) {
        return report::not_run(id, fault, &lacking);
    }
    let mut rig = Rig::shared(id, fault).await;
    rig.start_all().await;
    rig.webhook("/hook", json!({})).await;
    rig.publish(2_000, 30.0);
    rig.more_requests(60).await;
    let script = "import sqlite3, sys\n\
                  db = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)\n\
                  db.execute('begin immediate'); print('locked', flush=True); sys.stdin.readline(); db.execute('rollback')";
    let mut holder = Command::new("python3")
        .args(["-c", script])
        .arg(rig.store_path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said.trim(), "locked");
    let before = rig.receiver.count();
    sleep(Duration::from_secs(60)).await;
    rig.remark(format!("{} deliveries went on meanwhile", rig.receiver.count() - before));
    rig.remark(format!("/readyz of control at the end: {}", rig.readyz("control").await));
    writeln!(holder.stdin.take().unwrap()).unwrap();
    holder.wait().unwrap();
    rig.recovers().await;
    rig.ready("control").await;
    rig.finish(Faults::NONE).await;
}

#[tokio::test]
#[ignore = "part of make chaos"]
async fn f58_the_store_is_copied_under_load_and_put_back() {
    let (id, fault) =
        ("F-58", "a copy of the store made under load (VACUUM INTO), put in place of the store 10 s later");
    if let Some(lacking) = machine::lacks(&["python3"]) {
        return report::not_run(id, fault, &lacking);
    }
    let mut rig = Rig::shared(id, fault).await;
    rig.start_all().await;
    rig.webhook("/hook", json!({})).await;
    rig.publish(900, 60.0);
    rig.more_requests(150).await;
    let copy = rig.store_path().with_file_name("copy.db");
    let script = "import sqlite3, sys\nsqlite3.connect(sys.argv[1], timeout=30).execute('vacuum into ?', (sys.argv[2],))";
    let begun = SystemTime::now();
    machine::run("python3", ["-c".as_ref(), script.as_ref(), rig.store_path().as_os_str(), copy.as_os_str()])
        .unwrap();
    rig.remark(format!("the copy took {:.1} s", begun.elapsed().unwrap_or_default().as_secs_f64()));
    // The copy itself is in good order: no pair has two ends, nothing came from nowhere.
    let verdict = crate::judge::copy(&copy).await;
    assert!(verdict.violation(postrider_core::verify::Invariant::OneEnd).is_none(), "{verdict}");
    let status = rig.at_rest().await;
    rig.judge(&status, Faults::NONE, |_| ()).await;
    let delivered = rig.receiver.count();
    rig.stop("control").await;
    for end in ["", "-wal", "-shm"] {
        std::fs::remove_file(format!("{}{end}", rig.store_path().display())).ok();
    }
    std::fs::rename(&copy, rig.store_path()).unwrap();
    rig.start("control");
    rig.ready("control").await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(rig.receiver.count(), delivered, "a store that was put back sends nothing again");
    rig.remark("putting it back sent nothing again; its books show what it does not know as drift");
    rig.report();
}
