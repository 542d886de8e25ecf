//! Lists as files: the same rows as the list has, whoever asks, and an honest last line.

use std::time::Duration;

use postrider_core::books::End;

use super::*;
use crate::api::export::Bounds;

const ALL: &str = "/v1/deliveries/export";

/// The lines of an export, and how it ended.
async fn exported(t: &Test, path: &str) -> (Vec<Value>, Value) {
    let (status, headers, lines) = read(t.send(request("GET", path, None)).await).await;
    assert_eq!(status, 200, "{path}: {lines}");
    assert_eq!(headers[header::CONTENT_TYPE], "application/x-ndjson");
    assert_eq!(headers[header::CONTENT_DISPOSITION], "attachment; filename=\"deliveries.ndjson\"");
    assert_eq!(headers[header::CACHE_CONTROL], "no-store");
    let mut lines = lines.as_array().unwrap().clone();
    let end = lines.pop().unwrap()["export"].take();
    (lines, end)
}

#[tokio::test]
async fn an_export_has_the_rows_of_the_list() {
    let t = Test::new().await;
    let webhook = t.webhook(json!({})).await["id"].as_str().unwrap().to_owned();
    t.happened("w1", &["e1", "e2", "e3"], &[&webhook], Some(End::Dead)).await;
    t.happened("w2", &["e4", "e5"], &[&webhook, "wh_other"], None).await;
    for filter in
        ["", "state=dead", "state=pending&webhook=wh_other", "event=e4", "class=timeout", "status=5xx"]
    {
        let list = t.get(&format!("/v1/deliveries?limit=200&{filter}")).await;
        let (lines, end) = exported(&t, &format!("{ALL}?{filter}")).await;
        assert_eq!(&lines, list["items"].as_array().unwrap(), "{filter}");
        let all = json!({ "lines": lines.len(), "complete": true, "cut": null, "next": null });
        assert_eq!(end, all, "{filter}");
    }
    assert_eq!(exported(&t, &format!("{ALL}?state=dead")).await.0.len(), 3);
    for (query, field) in [("state=gone", "state"), ("since=yesterday", "since"), ("limit=5", "limit")] {
        let (status, problem) = t.call("GET", &format!("{ALL}?{query}"), None).await;
        assert_eq!((status, &problem["field"]), (422, &json!(field)), "{problem}");
    }
    assert_eq!(t.call("GET", &format!("{ALL}?cursor=x"), None).await.1["code"], "bad_cursor");
    assert_eq!(t.call("GET", "/v1/replays/rpl_none/export", None).await.0, 404);
}

#[tokio::test]
async fn an_export_that_is_cut_says_so_and_where_it_goes_on() {
    let (time, silence) = (Duration::from_secs(60), Duration::from_secs(20));
    let t = Test::exporting(Exports::within(Bounds { page: 2, lines: 4, time, silence })).await;
    let names: Vec<String> = (0..7).map(|n| format!("e{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    t.happened("w1", &names, &["wh_1"], Some(End::Dead)).await;
    let (mut seen, end) = exported(&t, &format!("{ALL}?state=dead")).await;
    let next = end["next"].as_str().unwrap();
    assert_eq!((&end["lines"], &end["complete"], &end["cut"]), (&json!(4), &json!(false), &json!("lines")));
    // The cursor is good for the list too, and for no other filters.
    assert_eq!(
        t.get(&format!("/v1/deliveries?state=dead&cursor={next}")).await["items"].as_array().unwrap().len(),
        3
    );
    assert_eq!(t.call("GET", &format!("{ALL}?cursor={next}"), None).await.0, 400);
    let (rest, end) = exported(&t, &format!("{ALL}?state=dead&cursor={next}")).await;
    assert_eq!((&end["lines"], &end["complete"]), (&json!(3), &json!(true)));
    seen.extend(rest);
    assert_eq!(&seen, t.get("/v1/deliveries?state=dead").await["items"].as_array().unwrap());
}
