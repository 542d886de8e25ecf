use std::io::{ErrorKind, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use postrider_testkit::receiver::gzip_bomb;
use postrider_testkit::{Answer, Hostile, Manner, Receiver};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn one_closes_and_one_resets() {
    let closes = Hostile::start(Manner::Closes).await;
    let mut stream = TcpStream::connect(closes.address()).await.unwrap();
    assert_eq!(timeout(LONG, stream.read(&mut [0; 1])).await.unwrap().unwrap(), 0);
    let resets = Hostile::start(Manner::Resets).await;
    let mut stream = TcpStream::connect(resets.address()).await.unwrap();
    let error = timeout(LONG, stream.read(&mut [0; 1])).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn one_is_silent_and_one_is_not_there() {
    let short = Duration::from_millis(400);
    let silent = Hostile::start(Manner::Silent).await;
    let mut stream = TcpStream::connect(silent.address()).await.unwrap();
    assert!(timeout(short, stream.read(&mut [0; 1])).await.is_err());
    let absent = Hostile::start(Manner::Absent).await;
    // Its queue is full a moment later at most.
    for _ in 0..50 {
        if timeout(short, TcpStream::connect(absent.address())).await.is_err() {
            return;
        }
    }
    panic!("it takes every connection");
}

#[tokio::test]
async fn one_answers_before_it_reads() {
    let early = Hostile::start(Manner::Answers("HTTP/1.1 204 \r\n\r\n".into())).await;
    let mut stream = TcpStream::connect(early.address()).await.unwrap();
    let mut heard = [0; 17];
    timeout(LONG, stream.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(&heard, b"HTTP/1.1 204 \r\n\r\n");
}

#[tokio::test]
async fn one_answers_before_it_reads_the_body() {
    let early = Hostile::start(Manner::AnswersHead("HTTP/1.1 204 \r\n\r\n".into())).await;
    let mut stream = TcpStream::connect(early.address()).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\n").await.unwrap();
    let mut heard = [0; 17];
    assert!(timeout(Duration::from_millis(200), stream.read_exact(&mut heard)).await.is_err());
    stream.write_all(b"Content-Length: 5\r\n\r\n").await.unwrap();
    timeout(LONG, stream.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(&heard, b"HTTP/1.1 204 \r\n\r\n");
}

#[tokio::test]
async fn a_trickle_comes_byte_by_byte() {
    let receiver = Receiver::start().await;
    let pause = Duration::from_millis(20);
    receiver.answer("/slow", [Answer::Trickle { bytes: "0123456789".into(), pause }]);
    let mut stream = TcpStream::connect(receiver.address()).await.unwrap();
    let begun = Instant::now();
    stream.write_all(b"POST /slow HTTP/1.1\r\n\r\n").await.unwrap();
    let mut heard = Vec::new();
    timeout(LONG, stream.read_to_end(&mut heard)).await.unwrap().unwrap();
    assert_eq!(heard, b"0123456789");
    assert!(begun.elapsed() >= 10 * pause);
}

#[test]
fn a_bomb_unpacks_to_much_more() {
    let bomb = gzip_bomb(10_000);
    let mut gzip = Command::new("gzip")
        .args(["-dc"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    gzip.stdin.take().unwrap().write_all(&bomb).unwrap();
    let unpacked = gzip.wait_with_output().unwrap().stdout.len();
    assert!(bomb.len() < 10_100 && unpacked > 1_500_000, "{} bytes make {unpacked}", bomb.len());
}
