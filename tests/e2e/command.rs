//! The operator's commands, as an operator would use them.

use postrider_testkit::Answer;
use postrider_testkit::process;
use postrider_testkit::rabbit::{Broker, Vhost};
use serde_json::{Value, json};

use crate::system::System;

/// Runs a command that must succeed, and returns its JSON.
async fn postrider(system: &System, args: &[&str]) -> Value {
    let output = run(system, args).await;
    assert!(output.status.success(), "postrider {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
        panic!("postrider {args:?} printed no JSON ({e}): {}", String::from_utf8_lossy(&output.stdout))
    })
}

async fn run(system: &System, args: &[&str]) -> std::process::Output {
    let env = system.env();
    process::run(args.to_vec(), env.iter().map(|(name, value)| (*name, value.as_str()))).await
}

#[tokio::test]
async fn a_dead_delivery_is_found_mended_and_sent_again() {
    let vhost = Vhost::create(&Broker::shared().await, "command").await;
    let system = System::new(vhost.url()).await;
    let all = system.start("all").ready().await;
    postrider(&system, &["tenant", "create", "acme", "-o", "json"]).await;
    system
        .receiver
        .answer("/hook", [Answer::Status(500).with_body("full"), Answer::Status(500), Answer::Status(200)]);
    let webhook =
        json!({ "tenant": "acme", "retry": { "initial_ms": 100, "jitter": 0.0, "max_attempts": 2 } });
    let (webhook, _) = system.webhook("/hook", &webhook).await;
    let sent = postrider(
        &system,
        &[
            "--tenant",
            "acme",
            "event",
            "send",
            "Client registered",
            "--id",
            "e1",
            "-d",
            r#"{"n":1}"#,
            "-o",
            "json",
        ],
    )
    .await;
    assert!(sent.to_string().contains("e1"), "{sent}");
    system.receiver.wait_for(2).await;
    postrider_testkit::eventually("it is dead", async || {
        system.get("/v1/deliveries?tenant=acme&state=dead").await["items"]
            .as_array()
            .is_some_and(|items| items.len() == 1)
    })
    .await;
    let dead =
        postrider(&system, &["--tenant", "acme", "delivery", "list", "--state", "dead", "-o", "json"]).await;
    let delivery = dead["items"][0]["id"].as_str().or(dead[0]["id"].as_str()).unwrap().to_owned();
    let detail = postrider(&system, &["--tenant", "acme", "delivery", "get", &delivery, "-o", "json"]).await;
    assert!(detail.to_string().contains("full"), "the receiver's answer is shown: {detail:#}");
    assert!(detail.to_string().contains(&webhook), "{detail:#}");

    postrider(&system, &["--tenant", "acme", "delivery", "redeliver", &delivery, "--wait", "-o", "json"])
        .await;
    let requests = system.receiver.wait_for(3).await;
    assert_eq!(requests[0].header("webhook-id"), requests[2].header("webhook-id"));
    assert_eq!(requests[0].body, requests[2].body);
    let books = postrider(&system, &["status", "-o", "json"]).await;
    assert_eq!((&books["deliveries"]["dead"], &books["deliveries"]["delivered"]), (&json!(1), &json!(1)));
    assert_eq!(books["deliveries"]["dead_unresolved"], 0, "the later series delivered it");

    // The same as figures over time, which follow within seconds.
    let of_webhook = ["--tenant", "acme", "stats", "--webhook", &webhook, "--since", "2h", "-o", "json"];
    let stats = postrider_testkit::eventually_some("everything is added up", async || {
        let stats = postrider(&system, &of_webhook).await;
        (stats["totals"]["delivered"] == 1 && stats["totals"]["dead"] == 1).then_some(stats)
    })
    .await;
    let totals = &stats["totals"];
    for (name, n) in [("failed", 2), ("first_tried", 1), ("first_delivered", 0)] {
        assert_eq!(totals[name], n, "{name}: {totals:#}");
    }
    assert_eq!((&totals["by_status"]["5xx"], &totals["by_status"]["2xx"]), (&json!(2), &json!(1)));
    let types = json!([{ "event_type": "Client registered", "delivered": 1, "failed": 2 }]);
    assert_eq!(stats["by_event_type"], types);
    let of_tenant = system.get("/v1/stats?tenant=acme").await;
    assert_eq!((&of_tenant["totals"]["accepted"], &of_tenant["totals"]["failed"]), (&json!(1), &json!(2)));
    let sparks = system.get(&format!("/v1/stats/webhooks?tenant=acme&webhook={webhook}")).await;
    assert_eq!((&sparks["items"][0]["delivered"], &sparks["items"][0]["failed"]), (&json!(1), &json!(2)));
    let retried =
        ["--tenant", "acme", "delivery", "list", "--class", "none", "--status", "2xx", "-o", "json"];
    assert_eq!(postrider(&system, &retried).await["items"].as_array().map(Vec::len), Some(1));
    // All that fit, a line each.
    let exported = ["--tenant", "acme", "delivery", "export", "--class", "none", "--webhook", &webhook];
    assert_eq!(postrider(&system, &exported).await["id"], json!(delivery));
    let none = run(&system, &["delivery", "export", "--state", "dead", "--type", "Client registered"]).await;
    assert!(none.status.success() && none.stdout.is_empty(), "another tenant's is not there: {none:?}");
    assert_eq!(String::from_utf8_lossy(&none.stderr), "0 lines\n");
    assert_eq!(run(&system, &["delivery", "export", "--state", "gone"]).await.status.code(), Some(4));

    let missing = run(&system, &["delivery", "get", "0123456789abcdef0123456789abcdef"]).await;
    assert_eq!(missing.status.code(), Some(3), "{}", String::from_utf8_lossy(&missing.stderr));
    let usage = run(&system, &["delivery", "gte"]).await;
    assert_eq!(usage.status.code(), Some(2));
    all.stop().await;
}

#[tokio::test]
async fn a_catalogue_is_imported_subscribed_to_by_group_and_tried() {
    let vhost = Vhost::create(&Broker::shared().await, "import").await;
    let system = System::new(vhost.url()).await;
    let all = system.start("all").ready().await;
    let folder = tempfile::tempdir().unwrap();

    // Nobody can be asked here, so without --yes nothing happens; a dry run only looks.
    let unasked = run(&system, &["catalogue", "import", "--builtin", "upmind-client"]).await;
    assert_eq!(unasked.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unasked.stderr).contains("--yes was not given"));
    let import = ["catalogue", "import", "--builtin", "upmind-client"];
    let trial = postrider(&system, &[&import[..], &["--dry-run", "-o", "json"]].concat()).await;
    let added = trial["changes"].as_array().unwrap().len();
    assert!(added > 23, "{trial:#}");
    assert_eq!(
        postrider(&system, &["event-type", "list", "--search", "two factor", "-o", "json"]).await["items"],
        json!([])
    );
    let done = postrider(&system, &[&import[..], &["--yes", "-o", "json"]].concat()).await;
    assert_eq!(done["changes"].as_array().unwrap().len(), added);
    let listed = postrider(&system, &["catalogue", "list", "-o", "json"]).await;
    assert_eq!(
        (&listed["items"][0]["product"], &listed["items"][0]["event_types"]),
        (&json!("upmind-client"), &json!(23))
    );
    let group = "client_security_and_authentication";
    let of_group = postrider(&system, &["event-type", "list", "--group", group, "-o", "json"]).await;
    assert_eq!(of_group["items"].as_array().unwrap().len(), 9);
    let shown =
        postrider(&system, &["event-type", "show", "Client added two_factor auth", "-o", "json"]).await;
    assert_eq!(shown["name"], "Client added two factor auth");

    // What is exported is what was imported; a change of it is seen before it is made.
    let exported = run(&system, &["catalogue", "export", "upmind-client"]).await;
    let text = String::from_utf8(exported.stdout).unwrap();
    let file = folder.path().join("mine.toml");
    std::fs::write(&file, &text).unwrap();
    let file = file.to_str().unwrap();
    assert!(run(&system, &["catalogue", "diff", file]).await.status.success());
    std::fs::write(file, text.replace("label = \"Client logged in\"", "label = \"Signed in\"")).unwrap();
    let differs = run(&system, &["catalogue", "diff", file, "-o", "table"]).await;
    assert_eq!(differs.status.code(), Some(6));
    let differs = String::from_utf8_lossy(&differs.stdout).into_owned();
    assert_eq!(differs.trim(), "~ event type Client logged in: label changed");
    std::fs::write(file, text.replace("name = \"Client deleted\"", "name = \"Client updated\"")).unwrap();
    let double = run(&system, &["catalogue", "import", file, "--yes"]).await;
    assert_eq!(double.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&double.stderr).contains("two event types of this name"));

    let webhook = postrider(
        &system,
        &[
            "webhook",
            "create",
            "--name",
            "security",
            "--url",
            &system.receiver.url("/security"),
            "--group",
            group,
            "--filter",
            "current_context.actor_type == 'client'",
            "-o",
            "json",
        ],
    )
    .await;
    let id = webhook["id"].as_str().unwrap().to_owned();

    // What would become of an action is said before it is sent, and is what becomes of it.
    let action = |actor: &str| {
        json!({
            "action": "client.password_set", "id": format!("set-by-{actor}"), "current_context": {"actor_type": actor},
            "data": {"object_id": "c-1"},
        })
    };
    let file = folder.path().join("actions.jsonl");
    std::fs::write(&file, format!("{}\n{}\n", action("client"), action("user"))).unwrap();
    let file = file.to_str().unwrap();
    let told = postrider(&system, &["--tenant", "default", "trigger", "test", file, "-o", "json"]).await;
    let event_of = |n: usize| told["items"][n]["events"][0].clone();
    assert_eq!(event_of(0)["event_type"], "Client password changed");
    assert_eq!(event_of(1)["event_type"], "Client password was reset");
    assert!(run(&system, &["event", "validate", file]).await.status.success());
    assert!(run(&system, &["event", "send", "--from-file", file]).await.status.success());
    let requests = system.receiver.wait_for(1).await;
    assert_eq!(requests[0].json()["event_type"], "Client password changed");
    assert_eq!(requests[0].header("webhook-event-id"), event_of(0)["id"].as_str());
    let reset = event_of(1)["id"].as_str().unwrap().to_owned();
    postrider_testkit::eventually("the reset is in the books", async || {
        run(&system, &["event", "get", &reset]).await.status.success()
    })
    .await;
    let explained = postrider(&system, &["webhook", "explain", &id, "--event", &reset, "-o", "json"]).await;
    assert_eq!(
        (&explained["match"], &explained["filter"]["holds"]),
        (&json!(false), &json!(false)),
        "{explained:#}"
    );
    assert_eq!(system.receiver.count(), 1, "staff's reset is filtered");

    // A sample, whose answer is shown.
    system.receiver.answer("/security", [Answer::Status(200).with_body("thanks"), Answer::Status(401)]);
    let tried = postrider(&system, &["webhook", "test", &id, "-o", "json"]).await;
    assert_eq!(tried["state"], "delivered", "{tried:#}");
    let requests = system.receiver.wait_for(2).await;
    assert_eq!(requests[1].header("webhook-test"), Some("true"));
    let refused = run(&system, &["webhook", "test", &id, "-o", "table"]).await;
    assert_eq!(refused.status.code(), Some(7));
    assert!(String::from_utf8_lossy(&refused.stdout).contains("401"));

    // Found by a type of its group, also under the alias, and not by another's.
    let takes = async |event_type: &str| {
        let listed = postrider(&system, &["webhook", "list", "--event-type", event_type, "-o", "json"]).await;
        listed["items"].as_array().unwrap().len()
    };
    assert_eq!(takes("Client added two_factor auth").await, 1);
    assert_eq!(takes("Client deleted").await, 0);

    // The group is used, so the catalogue stays.
    let kept = run(&system, &["catalogue", "delete", "upmind-client"]).await;
    assert_eq!(kept.status.code(), Some(6), "{}", String::from_utf8_lossy(&kept.stderr));
    all.stop().await;
}

#[tokio::test]
async fn settings_reminders_and_secrets_have_commands() {
    let vhost = Vhost::create(&Broker::shared().await, "settings").await;
    let system = System::new(vhost.url()).await;
    let all = system.start("all").ready().await;
    postrider(&system, &["catalogue", "import", "--builtin", "open-loyalty", "--yes", "-o", "json"]).await;
    let changed = [
        "settings",
        "set",
        "--time-zone",
        "Europe/Warsaw",
        "--lead-days",
        "PointsWillExpire=30",
        "--unknown-types",
        "refuse",
        "--max-active-webhooks",
        "1",
        "-o",
        "json",
    ];
    postrider(&system, &changed).await;
    let shown = postrider(&system, &["settings", "show", "-o", "json"]).await;
    assert_eq!(shown["time_zone"], "Europe/Warsaw");
    assert_eq!(
        (&shown["lead_days"]["PointsWillExpire"], &shown["unknown_types"]),
        (&json!(30), &json!("refuse"))
    );

    let put = [
        "reminder",
        "put",
        "units-1",
        "--event-type",
        "PointsWillExpire",
        "--date",
        "2199-01-01",
        "-o",
        "json",
    ];
    assert_eq!(postrider(&system, &put).await["state"], "pending");
    let listed = postrider(&system, &["reminder", "list", "--state", "pending", "-o", "json"]).await;
    assert_eq!(listed["items"][0]["key"], "units-1");
    assert!(run(&system, &["reminder", "cancel", "units-1"]).await.status.success());
    assert_eq!(postrider(&system, &["reminder", "get", "units-1", "-o", "json"]).await["state"], "cancelled");

    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    let create = |name: &'static str, more: &[&'static str]| {
        let url = system.receiver.url("/hook");
        let mut line: Vec<String> =
            ["webhook", "create", "--name", name, "--all", "--url", &url, "-o", "json"]
                .map(str::to_owned)
                .to_vec();
        line.extend(more.iter().map(|word| (*word).to_owned()));
        line
    };
    let line = create("one", &["--profile", "open-loyalty", "--expires-at", "2199-01-01T00:00:00Z"]);
    let line: Vec<&str> = line.iter().map(String::as_str).collect();
    let webhook = postrider(&system, &line).await;
    let id = webhook["id"].as_str().unwrap();
    // One active webhook is allowed, a disabled one beside it as well.
    let second = create("two", &[]);
    let second: Vec<&str> = second.iter().map(String::as_str).collect();
    assert_eq!(run(&system, &second).await.status.code(), Some(6));
    let disabled = postrider(&system, &[&second[..], &["--disabled"]].concat()).await;
    assert_eq!(disabled["state"], "disabled");
    let limited = run(&system, &["webhook", "enable", disabled["id"].as_str().unwrap()]).await;
    assert_eq!(limited.status.code(), Some(6), "{}", String::from_utf8_lossy(&limited.stderr));

    // A profile that shows its secret once and ends the old one at once.
    let never = run(&system, &["webhook", "secret", id]).await;
    assert!(!never.status.success());
    let overlap = run(&system, &["webhook", "rotate-secret", id, "--overlap", "1h"]).await;
    assert_eq!(overlap.status.code(), Some(4), "{}", String::from_utf8_lossy(&overlap.stderr));
    let to = secret.to_str().unwrap();
    let rotated =
        postrider(&system, &["webhook", "rotate-secret", id, "--secret-to", to, "-o", "json"]).await;
    let kept = std::fs::read_to_string(&secret).unwrap();
    assert!(kept.starts_with("whsec_") && !rotated.to_string().contains(kept.trim()), "{rotated}");
    all.stop().await;
}

#[tokio::test]
async fn trace_context_goes_from_the_event_to_the_request_and_settings_hide_secrets() {
    let vhost = Vhost::create(&Broker::shared().await, "trace").await;
    let system = System::new(vhost.url()).await;
    let all = system.start("all").ready().await;
    system
        .webhook(
            "/hook",
            &json!({ "api_key": { "in": "header", "name": "X-API-Key", "value": "canary-key" } }),
        )
        .await;
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let url = system.env().iter().find(|(name, _)| *name == "POSTRIDER_API_URL").unwrap().1.clone();
    let response = postrider_testkit::http::client()
        .post(format!("{url}/v1/events"))
        .bearer_auth(crate::system::TOKEN)
        .header("traceparent", traceparent)
        .json(&json!({ "event_type": "A" }))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 202);
    let requests = system.receiver.wait_for(1).await;
    assert_eq!(requests[0].header("traceparent"), Some(traceparent));
    assert_eq!(requests[0].header("x-api-key"), Some("canary-key"));

    let config = run(&system, &["config"]).await;
    let shown = String::from_utf8_lossy(&config.stdout).into_owned();
    assert!(config.status.success() && shown.contains("master_key"), "{shown}");
    for secret in [crate::system::TOKEN, crate::system::MASTER_KEY] {
        assert!(!shown.contains(secret), "{shown}");
        assert!(!all.process.log().contains(secret));
    }
    assert!(!all.process.log().contains("canary-key"));
    let store = std::fs::read(system.store_path()).unwrap();
    let wal = std::fs::read(system.store_path().with_extension("db-wal")).unwrap_or_default();
    for bytes in [store, wal] {
        assert!(!bytes.windows(10).any(|window| window == b"canary-key"), "the store holds the key in clear");
    }
    all.stop().await;
}
