use std::{os::unix::process::ExitStatusExt, time::Duration};

use postrider_testkit::{
    eventually,
    process::{Postrider, free_port},
};

fn shell(script: &str) -> Postrider {
    Postrider::with(["-c", script]).env("GIVEN", "yes").binary("/bin/sh").start()
}

#[tokio::test]
async fn a_process_starts_clean_and_its_output_is_kept() {
    let process = shell("env; echo done >&2");
    assert!(process.wait_exit(Duration::from_secs(10)).await.success());
    let log = process.log();
    assert!(log.contains("GIVEN=yes") && log.contains("PATH=") && log.contains("done"), "{log}");
    assert!(!log.contains("CARGO"), "{log}");
}

#[tokio::test]
async fn signals_reach_it() {
    let process = shell("trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.05; done");
    eventually("it is up", async || process.log().contains("up")).await;
    process.freeze();
    process.terminate();
    let state = async || std::fs::read_to_string(format!("/proc/{}/stat", process.pid())).unwrap();
    eventually("it stands still", async || state().await.contains(") T ")).await;
    assert!(process.exited().is_none());
    process.thaw();
    assert_eq!(process.wait_exit(Duration::from_secs(10)).await.code(), Some(7));
    assert!(process.log().ends_with("bye\n"));

    let process = shell("sleep 60");
    process.kill();
    assert_eq!(process.wait_exit(Duration::from_secs(10)).await.signal(), Some(9));
    process.kill();
}

#[tokio::test]
#[should_panic(expected = "instead of becoming ready")]
async fn a_process_that_ends_is_not_waited_for() {
    shell("exit 3").wait_ready(format!("127.0.0.1:{}", free_port())).await;
}

#[test]
fn free_ports_differ() {
    let ports: std::collections::HashSet<u16> = (0..50).map(|_| free_port()).collect();
    assert_eq!(ports.len(), 50);
}
