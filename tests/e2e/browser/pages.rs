//! Every page, light and dark, narrow and very wide: nothing in the way of anybody, nothing from elsewhere, nothing in the log.
//!
//! Pictures of all of them are kept under `target/test-report/screens`.

use std::collections::BTreeMap;

use postrider_testkit::Answer;
use reqwest::Method;
use serde_json::{Value, json};

use super::chromium::Browser;
use super::{Desk, LOGIN};
use crate::system::TOKEN;

/// A page, and what must be on it.
struct Page {
    /// Its path; a name in braces stands for an id.
    path: &'static str,
    /// What its pictures are called.
    name: &'static str,
    /// What its heading says.
    heading: &'static str,
    /// What can be seen on it.
    has: &'static [&'static str],
    /// The status that it comes with.
    status: u64,
}

const fn page(
    path: &'static str,
    name: &'static str,
    heading: &'static str,
    has: &'static [&'static str],
) -> Page {
    Page { path, name, heading, has, status: 200 }
}

/// Pages for everybody.
const OUTSIDE: [Page; 3] = [
    page("/login", "login", "Log in", &["input[name=token]"]),
    page("/login?code=no-such-code", "login-link", "Log in", &["button"]),
    Page { status: 400, ..page("/login/kept", "login-not-kept", "Log in", &["[data-testid=problem]"]) },
];

/// Pages of a Postrider that nobody has used yet.
const FIRST_USE: [Page; 12] = [
    page("/", "first-overview", "Overview", &["[data-testid=checklist]"]),
    page("/deliveries", "first-deliveries", "Deliveries", &["[data-testid=first-use]"]),
    page("/events", "first-events", "Events", &["[data-testid=first-use]"]),
    page("/inbox", "first-inbox", "Test inbox", &["[data-testid=first-use]"]),
    page("/webhooks", "first-webhooks", "Webhooks", &["[data-testid=first-use]"]),
    page("/webhooks/new", "first-webhook-new", "Create webhook", &["[name=other_types]"]),
    page("/catalogue", "first-catalogue", "Catalogue", &["[data-testid=catalogues]"]),
    page("/dead-letters", "first-dead-letters", "Dead letters", &["[data-testid=first-use]"]),
    page("/jobs", "first-jobs", "Jobs", &["[data-testid=first-use]"]),
    page("/settings/api-keys", "first-api-keys", "API keys", &["[data-testid=first-use]"]),
    page("/settings/reminders", "first-reminders", "Reminders", &["[data-testid=first-use]"]),
    page("/settings/audit", "first-audit", "Audit log", &["h1"]),
];

/// Pages of one that works.
const PAGES: [Page; 50] = [
    page("/", "overview", "Overview", &["[data-testid=needs]", "[data-testid=system]", "svg"]),
    page("/?range=30d", "overview-30d", "Overview", &["svg"]),
    page("/deliveries", "deliveries", "Deliveries", &["table[data-testid=deliveries]"]),
    page("/deliveries?state=cancelled", "deliveries-none", "Deliveries", &["[data-testid=no-match]"]),
    page("/deliveries?d={dead}", "deliveries-drawer", "Deliveries", &["[data-testid=drawer] table"]),
    page("/deliveries?d=none", "deliveries-drawer-none", "Deliveries", &["[data-testid=unknown]"]),
    Page {
        status: 422,
        ..page(
            "/deliveries?status=5xx&q=colour:red",
            "deliveries-mistyped",
            "Deliveries",
            &["[data-testid=mistyped]"],
        )
    },
    page("/deliveries/cancel?webhook={webhook}", "deliveries-cancel", "Cancel", &["[data-testid=plan]"]),
    page(
        "/deliveries/{delivered}",
        "delivery",
        LOGIN,
        &["[data-testid=state]", ".timeline", "[data-testid=course]"],
    ),
    page("/deliveries/{dead}", "delivery-dead", LOGIN, &["[data-testid=redeliver]"]),
    page("/events", "events", "Events", &["[data-testid=events]"]),
    page("/events?event_type=NONE", "events-none", "Events", &["[data-testid=no-match]"]),
    page("/events/{event}", "event", LOGIN, &["[data-testid=fate]"]),
    page("/events/{event}?explain={webhook}", "event-explained", LOGIN, &["[data-testid=steps]"]),
    page("/send", "send", "Send an event", &["[data-testid=send]"]),
    page("/send?type=USER_LOGIN", "send-example", "Send an event", &["[data-testid=send]"]),
    page("/send/{event}", "sent", LOGIN, &["[data-testid=steps]"]),
    page("/webhooks", "webhooks", "Webhooks", &["[data-testid=webhooks]"]),
    page("/webhooks?url=nothing", "webhooks-none", "Webhooks", &["[data-testid=no-match]"]),
    page("/webhooks/new", "webhook-new", "Create webhook", &["[data-testid=save]", "[data-search]"]),
    page("/webhooks/{webhook}", "webhook", "billing", &["[data-testid=state]"]),
    page("/webhooks/{webhook}?tab=deliveries", "webhook-deliveries", "billing", &["table"]),
    page("/webhooks/{webhook}?tab=test", "webhook-test", "billing", &["main form"]),
    page("/webhooks/{webhook}?tab=explain", "webhook-explain", "billing", &["main form"]),
    page("/webhooks/{broken}?tab=recover", "webhook-recover", "crm-broken", &["main form"]),
    page("/webhooks/{webhook}?tab=settings", "webhook-settings", "billing", &["[data-testid=rotate]"]),
    page("/webhooks/{webhook}/edit", "webhook-edit", "billing", &["[data-testid=save]"]),
    page("/webhooks/{webhook}/turn?to=delete", "webhook-delete", "billing", &["[data-testid=do]"]),
    page("/catalogue", "catalogue", "Catalogue", &["[data-testid=catalogues]"]),
    page("/catalogue/USER_LOGIN", "event-type", LOGIN, &["[data-testid=create]"]),
    page("/catalogue/import", "catalogue-import", "Import a catalogue", &["[data-testid=look]"]),
    page(
        "/catalogue/products/skillmine-auth/triggers",
        "triggers",
        "What triggers a webhook",
        &["[data-testid=markdown]"],
    ),
    page(
        "/queues",
        "queues",
        "Queues",
        &["[data-testid=queues]", "[data-testid=depths]", "[data-testid=rates]"],
    ),
    page("/queues/{retry}", "queue", "retry", &["[data-testid=measured]", "[data-testid=ends]"]),
    page("/queues/{config}", "queue-stream", "config", &["[data-testid=arguments]"]),
    Page { status: 404, ..page("/queues/nothing", "queue-none", "Not found", &["[data-testid=refused]"]) },
    page("/dead-letters", "dead-letters", "Dead letters", &["[data-testid=dead-letters]"]),
    page("/dead-letters/{letter}", "dead-letter", "", &["[data-testid=kind]"]),
    page("/jobs", "jobs", "Jobs", &["[data-testid=jobs]"]),
    page("/jobs/{job}", "job", "", &["[data-testid=state]"]),
    page("/settings", "settings", "Settings", &["[data-testid=settings]"]),
    page("/settings/api-keys", "api-keys", "API keys", &["[data-testid=api-keys]"]),
    page("/settings/audit", "audit", "Audit log", &["[data-testid=audit]"]),
    page("/settings/tenants", "tenants", "Tenants", &["[data-testid=tenants]"]),
    page("/settings/system", "system", "System", &["[data-testid=checks]", "[data-testid=settings]"]),
    page("/settings/tenant", "tenant", "Limits and defaults", &["[data-testid=save]"]),
    page("/settings/reminders", "reminders", "Reminders", &["[data-testid=reminders]"]),
    page("/docs", "reference", "API reference", &["h1"]),
    page("/docs/asyncapi", "publishers", "Publishing over RabbitMQ", &["[data-testid=file]"]),
    Page { status: 404, ..page("/no-such-page", "not-found", "Not found", &["[data-testid=refused]"]) },
];

/// The narrowest window, CSS pixels: a telephone, or a large one with text at four times its size.
const NARROW: u32 = 320;
const WIDE: u32 = 1280;
/// A large screen, with one window on all of it.
const WIDEST: u32 = 2560;
/// Texts whose lines are too long to be read: of more than some 120 characters.
const LONG_LINES: &str = "
    const width = (one) => one.clientWidth / parseFloat(getComputedStyle(one).fontSize);
    return [...document.querySelectorAll('main :is(p, li, dd)')]
        .filter((one) => one.textContent.trim().length > 180 && !one.querySelector('ul, table, pre') && width(one) > 60)
        .map((one) => `${Math.round(width(one))} em: ${one.textContent.trim().slice(0, 60)}`)";
/// What the browser loads before it shows the first page, bytes on the wire.
const MOST_STATIC_BYTES: usize = 40_000;

/// Makes one of everything, and tells the ids by the names that paths have for them.
async fn furnish(desk: &Desk) -> BTreeMap<&'static str, String> {
    let system = &desk.system;
    system.import("skillmine-auth").await;
    system.import("open-loyalty").await;
    let settings = json!({ "lead_days": { "PointsWillExpire": 30 } });
    system.call(Method::PATCH, "/v1/settings", Some(&settings)).await;
    let reminder = json!({ "event_type": "PointsWillExpire", "date": "2199-12-31", "data": { "units": 1 } });
    system.call(Method::PUT, "/v1/reminders/points-1", Some(&reminder)).await;
    system.post("/v1/api-keys", &json!({ "name": "ci", "scopes": ["read"] })).await;
    let (webhook, _) = system.webhook("/hook", &json!({ "name": "billing" })).await;
    let broken = json!({ "name": "crm-broken", "retry": { "initial_ms": 100, "max_attempts": 2 } });
    let (broken, _) = system.webhook("/broken", &broken).await;
    let body = r#"{"error":"<b>down</b> for maintenance"}"#;
    system.receiver.answer("/broken", [Answer::Status(503).with_body(body)]);
    for n in 0..3 {
        desk.send(LOGIN, &format!("page-{n}")).await;
    }
    desk.first("/v1/dead-letters").await;
    system.at_rest().await;
    let replay = system.post("/v1/replays", &json!({ "states": ["dead"] })).await;
    let id = |item: Value| item["id"].as_str().unwrap().to_owned();
    BTreeMap::from([
        ("webhook", webhook),
        ("broken", broken),
        ("event", "page-0".to_owned()),
        ("delivered", id(desk.first("/v1/deliveries?state=delivered").await)),
        ("letter", id(desk.first("/v1/dead-letters").await)),
        ("job", id(replay)),
        ("dead", id(desk.first("/v1/deliveries?state=dead").await)),
        ("retry", "postrider.deliveries.retry.0".to_owned()),
        ("config", "postrider.config".to_owned()),
    ])
}

fn path_of(page: &Page, ids: &BTreeMap<&'static str, String>) -> String {
    let named = |path: String, (name, id): (&&str, &String)| path.replace(&format!("{{{name}}}"), id);
    let path = ids.iter().fold(page.path.to_owned(), named);
    assert!(!path.contains('{'), "{path}: no such thing was made");
    path
}

/// Looks at a page as it is, and tells what is wrong with it.
async fn judge(browser: &Browser, page: &Page, path: &str, name: &str) -> Vec<String> {
    browser.log().await;
    browser.open(path).await;
    browser.sees("h1").await;
    let mut wrong = Vec::new();
    let heading = browser.text("h1").await;
    if !heading.contains(page.heading) {
        wrong.push(format!("it is headed {heading:?}"));
    }
    for part in page.has {
        if browser.count(part).await == 0 {
            wrong.push(format!("there is no {part}"));
        }
    }
    browser.picture(name).await;
    wrong.extend(browser.barriers().await);
    let status = browser.status().await;
    if status != page.status {
        wrong.push(format!("status {status}"));
    }
    // The browser complains of the page itself where it comes with such a status.
    let expected = format!("status of {}", page.status);
    wrong.extend(browser.log().await.into_iter().filter(|entry| !entry.contains(&expected)));
    wrong.extend(browser.elsewhere().await.into_iter().map(|url| format!("asked elsewhere for {url}")));
    wrong.iter().map(|what| format!("{name}: {what}")).collect()
}

/// What is wrong with the page that is open when its window is wide, and how far it reaches beyond it.
async fn judge_width(browser: &Browser, name: &str, width: u32) -> Vec<String> {
    browser.widen(width).await;
    let mut wrong = Vec::new();
    let overhang = browser.overhang().await;
    if overhang > 0 {
        wrong.push(format!("{name}: {overhang} px wider than the window"));
    }
    let lines: Vec<String> = serde_json::from_value(browser.run(LONG_LINES).await).unwrap();
    wrong.extend(lines.iter().map(|line| format!("{name}: a line of {line}")));
    browser.picture(name).await;
    browser.widen(WIDE).await;
    wrong
}

/// Looks at pages in both shades, and in a very wide and a narrow window.
async fn judge_all(browser: &Browser, pages: &[Page], ids: &BTreeMap<&'static str, String>) -> Vec<String> {
    let mut wrong = Vec::new();
    for shade in ["light", "dark"] {
        browser.prefers(shade).await;
        for page in pages {
            let name = format!("{}-{shade}", page.name);
            wrong.extend(judge(browser, page, &path_of(page, ids), &name).await);
            if shade == "light" {
                wrong.extend(judge_width(browser, &format!("{}-widest", page.name), WIDEST).await);
            }
        }
    }
    browser.prefers("light").await;
    browser.widen(NARROW).await;
    for page in pages {
        let name = format!("{}-narrow", page.name);
        wrong.extend(judge(browser, page, &path_of(page, ids), &name).await);
        let overhang = browser.overhang().await;
        if overhang > 0 {
            wrong.push(format!("{name}: {overhang} px wider than the window"));
        }
    }
    browser.widen(WIDE).await;
    wrong
}

#[tokio::test]
async fn every_page_is_for_everybody_and_complete() {
    let Some(desk) = Desk::new("console-pages").await else { return };
    let Desk { browser, .. } = &desk;
    let nothing = BTreeMap::new();
    let mut wrong = judge_all(browser, &OUTSIDE, &nothing).await;
    browser.log_in(TOKEN).await;
    browser.refreshes_every(0).await;
    wrong.extend(judge_all(browser, &FIRST_USE, &nothing).await);
    let ids = furnish(&desk).await;
    wrong.extend(judge_all(browser, &PAGES, &ids).await);
    assert!(wrong.is_empty(), "{} things are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn the_first_page_loads_little() {
    let Some(desk) = Desk::logged_in("console-size").await else { return };
    let Desk { browser, system, .. } = &desk;
    browser.open("/").await;
    let script = "return [...document.querySelectorAll('link[rel=stylesheet], link[rel=icon], script')]
        .map((file) => file.getAttribute('href') ?? file.getAttribute('src'))";
    let files: Vec<String> = serde_json::from_value(browser.run(script).await).unwrap();
    assert!(files.len() >= 4, "{files:?}");
    let mut sizes = BTreeMap::new();
    for file in files {
        let request = postrider_testkit::http::client().get(system.url(&file));
        let answer = request.header("accept-encoding", "gzip").send().await.unwrap();
        assert_eq!(answer.status(), 200, "{file}");
        let kept = answer.headers()["cache-control"].to_str().unwrap().to_owned();
        assert!(kept.contains("immutable"), "{file}: {kept}");
        sizes.insert(file, answer.bytes().await.unwrap().len());
    }
    let all: usize = sizes.values().sum();
    assert!(all <= MOST_STATIC_BYTES, "{all} bytes: {sizes:#?}");
}
