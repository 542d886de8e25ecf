//! The list as people see it, over an API that answers what it is told.

use super::*;

#[test]
fn the_address_is_what_the_api_is_asked() {
    let now = Timestamp::parse_rfc3339("2026-11-22T20:00:00Z").unwrap();
    let fields = Fields::parse(b"state=dead&range=1h&webhook=&cursor=x&other=y&since=2020-01-01T00:00:00Z");
    assert_eq!(
        asked(&fields, now),
        [("state", "dead".to_owned()), ("since", "2026-11-22T19:00:00Z".to_owned())],
        "a range is more than a time"
    );
    assert_eq!(
        command(&asked(&fields, now)),
        "postrider delivery list --state 'dead' --since '2026-11-22T19:00:00Z'"
    );
    let fields = Fields::parse(b"range=2h&until=2026-11-22T19:00:00Z&event_type=A");
    let told: Vec<String> =
        asked(&fields, now).iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(told, ["event_type=A", "since=2026-11-22T18:00:00Z", "until=2026-11-22T19:00:00Z"]);
    assert!(command(&asked(&fields, now)).contains(" --type 'A' "), "as the command calls it");
}

#[test]
fn a_webhook_is_meant_by_its_name_or_its_id() {
    let named = |names: &[&str]| -> Vec<Named> {
        let named = |(n, name): (usize, &&str)| Named { id: format!("wh_{n}"), name: (*name).to_owned() };
        names.iter().enumerate().map(named).collect()
    };
    assert_eq!(
        meant("Billing", &named(&["billing-old", "billing"])),
        Ok("wh_1".into()),
        "the whole name first"
    );
    assert_eq!(meant("bill", &named(&["billing"])), Ok("wh_0".into()), "a part that no other has");
    assert_eq!(meant("wh_9", &[]), Ok("wh_9".into()), "it may be deleted");
    for (typed, names, said) in [
        ("bill", &["billing", "bill-2"][..], "each has it in its name"),
        ("bill", &["bill", "Bill", "billing"], "each is called that"),
        ("bill", &[], "There is no webhook “bill”"),
    ] {
        let problem = meant(typed, &named(names)).unwrap_err();
        assert!(problem.contains(said), "{problem}");
        assert_eq!(problem.contains("wh_1"), !names.is_empty(), "{problem}");
        assert!(!problem.contains("wh_2"), "{problem}");
    }
}

#[test]
fn each_filter_has_a_chip_that_takes_it_away() {
    let told = |query: &str| -> Vec<(String, String)> {
        let fields = Fields::parse(query.as_bytes());
        let list = Filtered { path: PATH, fields: &fields };
        let chips = chips(&list, &Names(vec![Named { id: "wh_1".into(), name: "billing".into() }]));
        chips.into_iter().map(|chip| (chip.name, chip.link)).collect()
    };
    let pair = |name: &str, link: &str| (name.to_owned(), link.to_owned());
    assert_eq!(
        told("state=dead&webhook=wh_1&range=2h&d=x&since=2026-11-22T19:00:00Z"),
        [
            pair("webhook: billing", "/deliveries?state=dead&range=2h&since=2026-11-22T19%3A00%3A00Z"),
            pair("range: last 2h", "/deliveries?state=dead&webhook=wh_1&since=2026-11-22T19%3A00%3A00Z"),
        ]
    );
    assert_eq!(told("since=2026-11-22T19:00:00Z&range=oops")[0].0, "since: 2026-11-22T19:00:00Z");
    assert_eq!(told("state=dead"), []);
}

/// The API, with a webhook and without deliveries.
fn api() -> Router {
    let at = "2026-11-22T20:00:00Z";
    let attempt = json!({ "n": 1, "at": at, "duration_ms": 3, "url": "https://x/", "class": "http_5xx", "status": 503,
        "error": null, "hint": "Mend it.", "response_body": null, "response_headers": [], "next_at": null, "worker": "w" });
    let delivery = |state: &str, id: &str| {
        json!({ "id": id, "message_id": "m", "webhook": "wh_1", "event": "e1", "event_type": "<A>",
        "series": 1, "state": state, "held": false, "cancelling": false, "reason": "exhausted", "attempts": 1, "next_at": null,
        "last": { "class": "http_5xx", "status": 503, "hint": "Mend it." }, "created_at": at,
        "all_series": [{ "series": 1, "state": state, "held": false, "started_at": at, "ended_at": at, "repeats": 0,
        "attempts": [attempt] }] })
    };
    let list = json!({ "items": [delivery("dead", "d1"), delivery("pending", "d2"), delivery("delivered", "d3")], "next": "n" });
    let one = |state: &str, id: &str| {
        let delivery = delivery(state, id);
        get(move || async move { axum::Json(delivery) })
    };
    let webhooks = json!({ "items": [{ "id": "wh_1", "name": "billing" }] });
    let lines = "{\"id\":\"d1\"}\n{\"export\":{\"lines\":1}}\n";
    let file =
        [("content-type", "application/x-ndjson"), ("content-disposition", "attachment; filename=\"x\"")];
    Router::new()
        .route("/v1/deliveries", get(move || async move { axum::Json(list) }))
        .route("/v1/deliveries/d1", one("dead", "d1"))
        .route("/v1/deliveries/d2", one("pending", "d2"))
        .route("/v1/deliveries/d3", one("delivered", "d3"))
        .route(
            "/v1/deliveries/export",
            get(move |uri: http::Uri| async move { (file, format!("{lines}{uri}")) }),
        )
        .route("/v1/webhooks", get(move || async move { axum::Json(webhooks) }))
        .fallback(|| async {
            let problem =
                json!({ "status": 404, "code": "not_found", "detail": "no such delivery", "hint": "Look." });
            (StatusCode::NOT_FOUND, axum::Json(problem))
        })
}

#[tokio::test]
async fn what_is_typed_becomes_the_address() {
    let stage = crate::stage::Stage::new(api());
    for (query, to) in [
        ("q=state:dead+webhook:billing&cursor=x&d=d1", "/deliveries?state=dead&webhook=wh_1"),
        ("q=status:5xx&state=dead&range=1h", "/deliveries?state=dead&range=1h&status=5xx"),
        ("q=since:2026-11-21T00:00:00Z&range=1h", "/deliveries?since=2026-11-21T00%3A00%3A00Z"),
        ("q=evt_1", "/events/evt_1"),
        ("q=msg_0123456789abcdef0123456789abcdef", "/deliveries/0123456789abcdef0123456789abcdef"),
    ] {
        let (status, leads) = stage.leads(&format!("/deliveries?{query}")).await;
        assert_eq!((status.as_u16(), leads.as_str()), (303, to), "{query}");
    }
}

#[tokio::test]
async fn what_is_mistyped_is_said_at_the_box_and_kept() {
    let stage = crate::stage::Stage::new(api());
    let (status, text) = stage.get("/deliveries?state=dead&q=colour:%3Cred%3E+class:timeout").await;
    assert_eq!(status, 422, "{text}");
    assert!(text.contains("value=\"colour:&#60;red&#62; class:timeout\""), "{text}");
    assert!(
        text.contains("There is no filter “colour”. Known are state, status (or code), class,"),
        "{text}"
    );
    assert!(text.contains("aria-invalid=\"true\" aria-describedby=\"q-problem\""), "{text}");
    assert!(text.contains("id=\"d-d1\""), "the list stays: {text}");
    assert!(text.contains("name=\"state\" value=\"dead\""), "and so does its filter: {text}");
    assert!(!text.contains("hx-get"), "a refresh would ask for it again");
}

#[tokio::test]
async fn a_delivery_opens_beside_the_list() {
    let stage = crate::stage::Stage::new(api());
    let (status, text) = stage.get("/deliveries?state=dead&cursor=c&d=d1").await;
    assert_eq!(status, 200, "{text}");
    for part in [
        "id=\"drawer\"",
        "&#60;A&#62; → billing",
        "Given up after 1 attempt: exhausted",
        "Mend it.",
        "href=\"/deliveries?state=dead&#38;cursor=c#d-d1\"",
        "href=\"/deliveries/d1\"",
        "href=\"/events/e1\"",
        "action=\"/deliveries/d1/redeliver\"",
        "name=\"back\" value=\"/deliveries?state=dead&#38;cursor=c&#38;d=d1\"",
        // The one behind it, and none before it.
        "href=\"/deliveries?state=dead&#38;cursor=c&#38;d=d2#drawer\" data-older",
        "id=\"d-d2\"",
    ] {
        assert!(text.contains(part), "no {part}: {text}");
    }
    assert!(!text.contains("data-newer") && !text.contains("action=\"/deliveries/d1/cancel\""), "{text}");
    let (_, text) = stage.get("/deliveries?d=d2").await;
    assert!(text.contains("action=\"/deliveries/d2/cancel\"") && text.contains("data-newer"), "{text}");
    let (_, text) = stage.get("/deliveries?d=d3").await;
    assert!(text.contains("It was delivered. The receiver gets it again"), "{text}");
}

#[tokio::test]
async fn a_delivery_that_is_not_there_is_said_and_the_list_stays() {
    let stage = crate::stage::Stage::new(api());
    let (status, text) = stage.get("/deliveries?d=%3Cnone%3E").await;
    assert_eq!(status, 200, "{text}");
    assert!(text.contains("There is no delivery") && text.contains("&#60;none&#62;"), "{text}");
    assert!(text.contains("id=\"d-d1\"") && text.contains("href=\"/deliveries\""), "{text}");
}

#[tokio::test]
async fn an_export_is_handed_on_with_its_name_and_the_filters() {
    let stage = crate::stage::Stage::new(api());
    let (headers, text) = stage.file("/deliveries/export?status=5xx&range=1h&state=&other=x").await;
    assert_eq!(headers["content-disposition"], "attachment; filename=\"x\"");
    assert_eq!(
        (&headers["content-type"], &headers["cache-control"]),
        (&"application/x-ndjson".parse().unwrap(), &"no-store".parse().unwrap())
    );
    assert!(text.ends_with("/v1/deliveries/export?status=5xx&since=2026-11-22T19%3A00%3A00Z"), "{text}");
    let (_, page) = stage.get("/deliveries?status=5xx&cursor=c&d=d1").await;
    assert!(page.contains("href=\"/deliveries/export?status=5xx\""), "{page}");
    assert!(!page.contains("redeliver-matching"), "a replay knows no status: {page}");
}
