//! What every page says when the API refuses, knows nothing of it, or cannot answer.

use std::collections::BTreeSet;
use std::path::Path;

use axum::response::IntoResponse as _;
use axum::routing::get;
use axum::{Json, Router};
use http::{StatusCode, header};
use serde_json::json;

use crate::stage::Stage;

/// What a page does without an answer of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Without {
    /// It says why there is none.
    SaysWhy,
    /// It needs none to be shown: only what is sent from it is refused.
    Is,
    /// It is shown when there is nothing of that id: it may come to be.
    Waits,
    /// It is shown, and says in one place what cannot be known now.
    ShowsTheRest,
}

use Without::{Is, SaysWhy, ShowsTheRest, Waits};

/// Every page.
const PAGES: [(&str, Without); 39] = [
    ("/", SaysWhy),
    ("/deliveries", SaysWhy),
    ("/deliveries/cancel", SaysWhy),
    ("/deliveries/export", SaysWhy),
    ("/deliveries/{id}", SaysWhy),
    ("/events", SaysWhy),
    ("/events/{id}", SaysWhy),
    ("/send", Is),
    ("/send/{id}", Waits),
    ("/inbox", Is),
    ("/webhooks", SaysWhy),
    ("/webhooks/new", ShowsTheRest),
    ("/webhooks/{id}", SaysWhy),
    ("/webhooks/{id}/edit", SaysWhy),
    ("/webhooks/{id}/turn", SaysWhy),
    ("/catalogue", SaysWhy),
    ("/catalogue/{name}", SaysWhy),
    ("/catalogue/types/{name}", SaysWhy),
    ("/catalogue/import", Is),
    ("/catalogue/products/{product}/triggers", SaysWhy),
    ("/catalogue/products/{product}/triggers.md", SaysWhy),
    ("/catalogue/products/{product}/catalogue.json", SaysWhy),
    ("/queues", ShowsTheRest),
    ("/queues/{name}", SaysWhy),
    ("/dead-letters", SaysWhy),
    ("/dead-letters/{id}", SaysWhy),
    ("/jobs", SaysWhy),
    ("/jobs/{id}", SaysWhy),
    ("/jobs/{id}/export", SaysWhy),
    ("/settings", Is),
    ("/settings/api-keys", SaysWhy),
    ("/settings/api-keys/{id}/revoke", SaysWhy),
    ("/settings/audit", SaysWhy),
    ("/settings/reminders", SaysWhy),
    ("/settings/reminders/{key}/cancel", SaysWhy),
    ("/settings/system", SaysWhy),
    ("/settings/tenant", SaysWhy),
    ("/settings/tenants", SaysWhy),
    ("/settings/tenants/{id}/delete", SaysWhy),
];
/// Another name of a page, and pages that ask the API for nothing.
const OTHERS: [&str; 6] =
    ["/settings/webhooks", "/docs", "/docs/asyncapi", "/docs/asyncapi.yaml", "/login", "/login/kept"];

/// Routes of the sources that take this method.
fn routes(method: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            for route in code.split(".route(\"").skip(1) {
                let (path, rest) = route.split_once('"').unwrap();
                let handlers = rest.split('\n').next().unwrap_or_default();
                if handlers.contains(&format!(" {method}(")) || handlers.contains(&format!(".{method}(")) {
                    found.insert(path.to_owned());
                }
            }
        }
    }
    found
}

/// An API that answers this, whatever it is asked.
fn api(status: u16, code: &'static str, scope: Option<&'static str>) -> Router {
    let answer = move || async move {
        let mut problem = json!({ "status": status, "code": code, "detail": format!("the API says {code}"), "hint": "Do this." });
        if let Some(scope) = scope {
            problem["scope"] = scope.into();
        }
        (StatusCode::from_u16(status).unwrap(), Json(problem)).into_response()
    };
    Router::new().fallback(answer)
}

/// The path with something for each id.
fn filled(route: &str) -> String {
    let parts = route.split('/').map(|part| if part.starts_with('{') { "x1" } else { part });
    let path = parts.collect::<Vec<_>>().join("/");
    if route.ends_with("/turn") { format!("{path}?to=pause") } else { path }
}

#[test]
fn every_page_is_in_the_list() {
    let listed: BTreeSet<String> =
        PAGES.iter().map(|(path, _)| *path).chain(OTHERS).map(str::to_owned).collect();
    let mut found = routes("get");
    found.retain(|path| !path.starts_with("/assets") && !path.starts_with("/v1/"));
    assert_eq!(found, listed);
}

#[tokio::test]
async fn every_page_says_why_it_cannot_be_shown() {
    let troubles = [
        (403, "forbidden", Some("read"), "Not allowed"),
        (404, "not_found", None, "Not found"),
        (503, "store_unavailable", None, "Not available now"),
        // The API itself ends what takes too long.
        (503, "timeout", None, "Not available now"),
        (500, "internal", None, "That did not work"),
    ];
    for (status, code, scope, heading) in troubles {
        let stage = Stage::new(api(status, code, scope));
        for (route, without) in PAGES {
            let path = filled(route);
            let (answered, text) = stage.get(&path).await;
            let what = format!("{path}, {code}: {answered}, {text}");
            let is_shown = without == Is
                || (without == Waits && status == 404)
                || (without == ShowsTheRest && (status == 503 || route == "/webhooks/new"));
            if is_shown {
                assert_eq!(answered, 200, "{what}");
                assert!(!text.contains("data-testid=\"refused\""), "{what}");
                assert!(without != ShowsTheRest || text.contains(&format!("he API says {code}")), "{what}");
                continue;
            }
            assert_eq!(answered.as_u16(), status, "{what}");
            for part in [&format!(">{heading}</h1>"), &format!("the API says {code}."), "Do this."] {
                assert!(text.contains(part), "no {part}: {what}");
            }
            assert!(text.contains(&format!("href=\"{}\">Try again", path.replace('&', "&#38;"))), "{what}");
            assert_eq!(text.contains("does not have the scope <code>read</code>"), scope.is_some(), "{what}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_nobody_can_read_is_said_too() {
    let stage = Stage::new(Router::new().fallback(|| async { "oops" }));
    for (route, without) in PAGES.iter().filter(|(_, without)| *without == SaysWhy) {
        let (status, text) = stage.get(&filled(route)).await;
        assert_eq!(status, 500, "{route}, {without:?}: {text}");
        assert!(text.contains("could not read what the API answered"), "{route}: {text}");
    }
}

#[tokio::test]
async fn every_page_says_that_the_broker_is_lost() {
    let stage = Stage::without_broker(api(404, "not_found", None));
    for (route, _) in PAGES {
        let (_, text) = stage.get(&filled(route)).await;
        assert!(
            text.contains("RabbitMQ cannot be reached; it was lost") && text.contains(">1 min 30 s ago<"),
            "{route}: {text}"
        );
        assert!(text.contains("New events are refused with 503"), "{route}: {text}");
    }
}

/// Whatever is sent by somebody who may not is refused, and that is said.
#[tokio::test]
async fn no_form_does_what_a_key_may_not() {
    let stage = Stage::new(api(403, "forbidden", Some("manage")));
    let everything = [
        ("name", "n"),
        ("url", "https://example.com"),
        ("event_type", "A"),
        ("data", "{}"),
        ("event", "{}"),
        ("text", "schema = 1"),
        ("scopes", "read"),
        ("reason", "r"),
        ("id", "x1"),
        ("typed", "x1"),
        ("to", "pause"),
        ("webhook", "x1"),
        ("tenant", "t"),
        ("since", "24h"),
        ("answer", "503"),
        ("secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        ("new_type", "A"),
        ("new_days", "3"),
    ];
    let mut tried = 0;
    for route in routes("post") {
        if ["/login", "/logout"].contains(&route.as_str()) {
            continue;
        }
        let path = filled(&route).replace("?to=pause", "");
        let (status, headers, text) = stage.post(&path, &everything).await;
        let notices: Vec<&str> =
            headers.get_all(header::SET_COOKIE).iter().filter_map(|cookie| cookie.to_str().ok()).collect();
        let what = format!("{route}: {status}, {notices:?}, {text}");
        match status.as_u16() {
            // The page that it leads to says so.
            303 => assert!(notices.iter().any(|notice| notice.contains("notice=-Not+done")), "{what}"),
            403 => assert!(text.contains("the API says forbidden"), "{what}"),
            // Something was wrong with it before anybody asked.
            422 => assert!(text.contains("role=\"alert\"") || text.contains("aria-invalid"), "{what}"),
            // It was only looked at.
            200 if route == "/catalogue/import/edit" => {}
            _ => panic!("{what}"),
        }
        tried += 1;
    }
    assert!(tried > 20, "{tried}");
}

/// A list that nothing matches leads back to all of it; one in which there never was anything says what it is for.
#[tokio::test]
async fn an_empty_list_says_why_it_is_empty() {
    let nothing =
        json!({ "items": [], "next": null, "time_zone": "UTC", "send_at": "09:00", "lead_days": {} });
    let stage = Stage::new(Router::new().fallback(move || async move { Json(nothing) }));
    for (path, filter) in [
        ("/deliveries", "?state=dead"),
        ("/deliveries", "?class=timeout&attempts_from=3"),
        ("/events", "?fate=invalid"),
        ("/webhooks", "?name=bill"),
        ("/catalogue", "?search=order"),
        ("/dead-letters", "?reason=not_json"),
        ("/jobs", "?cursor=abc"),
        ("/settings/audit", "?operation=redeliver"),
        ("/settings/reminders", "?event_type=A"),
        ("/settings/tenants", "?cursor=abc"),
    ] {
        let (status, text) = stage.get(&format!("{path}{filter}")).await;
        assert_eq!(status, 200, "{path}{filter}: {text}");
        assert!(text.contains("data-testid=\"no-match\""), "{path}{filter}: {text}");
        if path == "/settings/tenants" {
            continue;
        }
        let (_, text) = stage.get(path).await;
        assert!(text.contains("data-testid=\"first-use\"") && !text.contains("no-match"), "{path}: {text}");
    }
}

/// Bodies go before the books do: what is left is shown, and that the body is gone.
#[tokio::test]
async fn a_body_that_was_removed_is_said_to_be() {
    let at = "2026-11-22T20:00:00Z";
    let delivery = json!({ "id": "d1", "message_id": "msg_1", "webhook": "wh_1", "event": "e1", "event_type": "A", "series": 1,
        "state": "delivered", "held": false, "cancelling": false, "reason": "", "attempts": 1, "next_at": null, "last": null,
        "created_at": at, "all_series": [{ "series": 1, "state": "delivered", "held": false, "started_at": at, "ended_at": at,
        "repeats": 0, "attempts": [{ "n": 1, "at": at, "duration_ms": 3, "url": "https://x/", "class": "none", "status": 200,
        "error": null, "hint": "", "response_body": null, "response_headers": [], "next_at": null, "worker": "w" }] }] });
    let event = json!({ "id": "e1", "event_type": "A", "event_time": at, "fate": "routed", "owed": 1, "reason": null, "detail": null,
        "marks": [], "accepted_at": at, "deliveries": [delivery] });
    let letter = json!({ "id": "dl1", "kind": "invalid", "reason": "not_json", "detail": "line 1", "at": at, "resolved": false,
        "resolved_at": null, "resolution": "", "class": "", "delivery": null, "webhook": null, "event": null, "event_type": null,
        "content_type": null, "body_base64": null, "body_text": null });
    let api = Router::new()
        .route("/v1/deliveries/d1", get(move || async move { Json(delivery) }))
        .route("/v1/events/e1", get(move || async move { Json(event) }))
        .route("/v1/dead-letters/dl1", get(move || async move { Json(letter) }))
        .fallback(|| async { StatusCode::NOT_FOUND });
    let stage = Stage::new(api);
    for (path, said) in [
        ("/deliveries/d1", "The body of the event was removed; attempts stay."),
        ("/events/e1", "There is no body: it was removed by age"),
        ("/dead-letters/dl1", "The message itself is not stored."),
    ] {
        let (status, text) = stage.get(path).await;
        assert_eq!(status, 200, "{path}: {text}");
        assert!(text.contains(said), "{path}: {text}");
    }
}
