use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use postrider_testkit::{Answer, Receiver, http};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

#[tokio::test]
async fn answers_follow_the_script_and_the_last_repeats() {
    let receiver = Receiver::start().await;
    let busy = Answer::Status(429).with_header("Retry-After", "2").with_body("later");
    receiver.answer("/hook", [busy, Answer::Status(503), Answer::Status(204)]);
    let http = http::client();
    let mut statuses = Vec::new();
    for n in 0..4 {
        let answer = http.post(receiver.url("/hook?n=1")).body(format!("{n}")).send().await.unwrap();
        statuses.push(answer.status().as_u16());
        if n == 0 {
            assert_eq!(answer.headers()["retry-after"], "2");
            assert_eq!(answer.text().await.unwrap(), "later");
        }
    }
    assert_eq!(statuses, [429, 503, 204, 204]);
    assert_eq!(http.get(receiver.url("/other")).send().await.unwrap().status(), 200);

    let requests = receiver.wait_for(5).await;
    assert_eq!(requests[0].target, "/hook?n=1");
    assert_eq!((requests[4].seq, requests[4].method.as_str()), (4, "GET"));
    let to_hook = receiver.requests_to("/hook");
    assert_eq!(to_hook.iter().map(|request| request.json()).collect::<Vec<_>>(), [0, 1, 2, 3]);
}

#[tokio::test]
async fn a_function_may_decide() {
    let receiver = Receiver::start().await;
    receiver.answer_by("/hook", |request| match request.header("WEBHOOK-ID") {
        Some("good") => Answer::Status(200),
        _ => Answer::Status(500),
    });
    let post = async |id| {
        http::client()
            .post(receiver.url("/hook"))
            .header("webhook-id", id)
            .send()
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    assert_eq!((post("good").await, post("bad").await), (200, 500));
}

#[tokio::test]
async fn headers_are_kept_as_they_came() {
    let receiver = Receiver::start().await;
    let mut stream = TcpStream::connect(receiver.address()).await.unwrap();
    let request = "POST /a HTTP/1.1\r\nHost: x\r\nX-b: 1\r\nx-A: 2\r\nX-B: 3\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).await.unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200 ").count(), 2);

    let requests = receiver.requests();
    assert_eq!(&requests[0].body[..], b"abcde");
    let names: Vec<&str> = requests[0].headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["Host", "X-b", "x-A", "X-B", "Transfer-Encoding"]);
    assert_eq!(requests[0].header("x-b"), Some("1"));
    assert_eq!(requests[1].path(), "/b");
}

#[tokio::test]
async fn it_can_misbehave() {
    let receiver = Receiver::start().await;
    receiver.answer("/hang", [Answer::Hang]);
    receiver.answer("/reset", [Answer::Reset]);
    receiver.answer("/late", [Answer::Status(201).after(Duration::from_millis(150))]);
    receiver.answer("/raw", [Answer::Raw("no HTTP at all\r\n\r\n".into())]);
    receiver.answer("/endless", [Answer::Endless { chunk: vec![b'x'; 8192].into(), pause: Duration::ZERO }]);
    let http = http::client();

    let hang = http.get(receiver.url("/hang")).timeout(Duration::from_millis(150)).send().await;
    assert!(hang.unwrap_err().is_timeout());
    let reset = format!("{:?}", http.get(receiver.url("/reset")).send().await.unwrap_err());
    assert!(reset.contains("ConnectionReset"), "{reset}");
    let begun = Instant::now();
    assert_eq!(http.get(receiver.url("/late")).send().await.unwrap().status(), 201);
    assert!(begun.elapsed() >= Duration::from_millis(150));
    assert!(http.get(receiver.url("/raw")).send().await.is_err());
    let mut endless = http.get(receiver.url("/endless")).send().await.unwrap();
    let mut read = 0;
    while read < 1_000_000 {
        read += endless.chunk().await.unwrap().expect("a body without end").len();
    }
    assert_eq!(receiver.count(), 5);
}

#[tokio::test]
async fn requests_in_flight_are_counted() {
    let receiver = Receiver::start().await;
    receiver.answer("/slow", [Answer::Status(200).after(Duration::from_millis(300))]);
    let mut posts = JoinSet::new();
    for _ in 0..3 {
        posts.spawn(http::client().post(receiver.url("/slow")).send());
    }
    posts.join_all().await;
    http::client().post(receiver.url("/slow")).send().await.unwrap();
    let mut seen: Vec<usize> = receiver.requests().iter().map(|request| request.in_flight).collect();
    seen[..3].sort_unstable();
    assert_eq!(seen, [1, 2, 3, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_keeps_up_with_thousands_of_requests() {
    const CONNECTIONS: usize = 10;
    const EACH: usize = 1_000;
    let receiver = Receiver::start().await;
    let begun = Instant::now();
    let mut clients = JoinSet::new();
    for client in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(receiver.address()).await.unwrap();
        clients.spawn(async move {
            let mut answer = [0; 40];
            for n in 0..EACH {
                let body = format!("{client}-{n:04}");
                let head =
                    format!("POST /hook HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
                stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
                let expected = b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n";
                stream.read_exact(&mut answer[..expected.len()]).await.unwrap();
                assert_eq!(&answer[..expected.len()], expected);
            }
        });
    }
    clients.join_all().await;
    let took = begun.elapsed();
    let requests = receiver.wait_for(CONNECTIONS * EACH).await;
    let distinct: HashSet<_> = requests.iter().map(|request| request.body.clone()).collect();
    assert_eq!(distinct.len(), CONNECTIONS * EACH);
    tracing::warn!(?took, "10,000 requests");
    assert!(took < Duration::from_secs(10), "10,000 requests took {took:?}");
}
