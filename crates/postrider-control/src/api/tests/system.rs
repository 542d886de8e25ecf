//! What control says of itself.

use super::*;

#[tokio::test]
async fn the_system_is_told_with_its_settings_and_no_secret() {
    let t = Test::new().await;
    let system = t.get("/v1/system").await;
    assert_eq!(system["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&system["store"]["kind"], &system["broker"]), (&json!("sqlite"), &json!("127.0.0.1:5672")));
    assert!(system["store"]["version"].as_str().unwrap().starts_with("3."), "{system}");
    assert!(system["store"]["schema"].as_i64().unwrap() >= 12, "{system}");
    let checks = system["checks"].as_array().unwrap();
    let names: Vec<&str> = checks.iter().map(|check| check["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["broker", "store", "queues", "arguments", "router", "worker"]);
    let ok = |name: &str| checks.iter().find(|check| check["name"] == name).unwrap()["ok"].clone();
    assert_eq!(ok("queues"), true, "{checks:?}");
    assert_eq!(system["settings"][0]["value"], "***");
    assert!(!system.to_string().contains(TOKEN));
}

/// The queues cannot be seen: that is neither well nor wrong, and the rest is told.
#[tokio::test]
async fn what_the_broker_does_not_say_is_not_known() {
    let t = Test::new().await;
    t.sheet.away.store(true, Ordering::SeqCst);
    let system = t.get("/v1/system").await;
    for check in system["checks"].as_array().unwrap() {
        let unknown = ["queues", "arguments"].contains(&check["name"].as_str().unwrap());
        assert!(!unknown || check["ok"].is_null(), "{check}");
    }
    assert_eq!(system["settings"].as_array().unwrap().len(), 1);
}
