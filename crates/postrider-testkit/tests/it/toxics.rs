//! Each toxic of the proxy, over real sockets.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use postrider_testkit::chaos::{Proxy, Toxic, Way};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::proxy::echo;

const LONG: Duration = Duration::from_secs(20);

async fn proxy() -> (Proxy, TcpStream) {
    let proxy = Proxy::start(echo().await).await;
    let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
    // The whole line is up when this is over.
    round(&mut stream, b"hello").await;
    (proxy, stream)
}

/// Says something, hears it back, and tells how long that took.
async fn round(stream: &mut TcpStream, words: &[u8]) -> Duration {
    let begun = Instant::now();
    stream.write_all(words).await.unwrap();
    let mut heard = vec![0; words.len()];
    timeout(LONG, stream.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(heard, words);
    begun.elapsed()
}

#[tokio::test]
async fn latency_delays_each_way_and_keeps_the_throughput() {
    let (proxy, mut stream) = proxy().await;
    let (delay, jitter) = (Duration::from_millis(150), Duration::from_millis(50));
    proxy.set(Way::Up, Toxic::Latency { delay, jitter });
    assert!(round(&mut stream, b"one").await >= Duration::from_millis(100));
    proxy.set(Way::Down, Toxic::Latency { delay, jitter });
    assert!(round(&mut stream, b"two").await >= Duration::from_millis(200));

    // Fifty pieces that follow each other take one delay and not fifty.
    let begun = Instant::now();
    for _ in 0..50 {
        stream.write_all(&[7; 1000]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut heard = vec![0; 50_000];
    timeout(LONG, stream.read_exact(&mut heard)).await.unwrap().unwrap();
    assert!(heard.iter().all(|byte| *byte == 7));
    assert!(begun.elapsed() < 50 * Duration::from_millis(100), "{:?}", begun.elapsed());

    proxy.clear();
    round(&mut stream, b"three").await;
}

#[tokio::test]
async fn bandwidth_lets_no_more_through_than_it_says() {
    let (proxy, mut stream) = proxy().await;
    proxy.set(Way::Up, Toxic::Bandwidth { bytes_per_second: 20_000 });
    let took = round(&mut stream, &[1; 10_000]).await;
    assert!(took >= Duration::from_millis(450), "{took:?}");
}

#[tokio::test]
async fn a_slow_close_passes_the_end_on_later() {
    let (proxy, mut stream) = proxy().await;
    proxy.set(Way::Up, Toxic::SlowClose { delay: Duration::from_millis(300) });
    let begun = Instant::now();
    stream.shutdown().await.unwrap();
    // The upstream closes when it has heard the end.
    assert_eq!(timeout(LONG, stream.read(&mut [0; 1])).await.unwrap().unwrap(), 0);
    assert!(begun.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn a_timeout_passes_nothing_and_closes() {
    let (proxy, mut stream) = proxy().await;
    proxy.set(Way::Up, Toxic::Timeout { after: Duration::from_millis(300) });
    let begun = Instant::now();
    stream.write_all(b"lost").await.unwrap();
    // The end comes in good order, and before it nothing.
    assert_eq!(timeout(LONG, stream.read(&mut [0; 4])).await.unwrap().unwrap(), 0);
    assert!(begun.elapsed() >= Duration::from_millis(290));
}

#[tokio::test]
async fn a_reset_comes_while_bytes_pass() {
    let (proxy, mut stream) = proxy().await;
    proxy.set(Way::Down, Toxic::Reset { after: Duration::from_millis(300) });
    round(&mut stream, b"passes").await;
    let error = timeout(LONG, stream.read(&mut [0; 4])).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    proxy.clear();
    let mut next = TcpStream::connect(proxy.addr()).await.unwrap();
    round(&mut next, b"again").await;
    assert_eq!(proxy.accepted(), 2);
}

#[tokio::test]
async fn a_slicer_passes_small_segments() {
    let (proxy, mut stream) = proxy().await;
    proxy.set(Way::Down, Toxic::Slicer { bytes: 2, pause: Duration::from_millis(20) });
    stream.write_all(b"12345678").await.unwrap();
    let (mut heard, mut most, mut pieces) = (Vec::new(), 0, 0);
    let begun = Instant::now();
    while heard.len() < 8 {
        let mut buffer = [0; 64];
        let read = timeout(LONG, stream.read(&mut buffer)).await.unwrap().unwrap();
        heard.extend_from_slice(&buffer[..read]);
        most = most.max(read);
        pieces += 1;
    }
    assert_eq!(heard, b"12345678");
    assert!(begun.elapsed() >= Duration::from_millis(55), "{:?}", begun.elapsed());
    // On a busy machine two segments may be read at once, never all.
    assert!(most < 8 && pieces > 1, "{pieces} pieces, {most} bytes in the longest");
}

#[tokio::test]
async fn a_limit_closes_after_so_many_bytes() {
    let (proxy, mut stream) = proxy().await;
    // Five have passed already.
    proxy.set(Way::Down, Toxic::Limit { bytes: 8 });
    stream.write_all(b"123456").await.unwrap();
    let mut heard = Vec::new();
    timeout(LONG, stream.read_to_end(&mut heard)).await.unwrap().unwrap();
    assert_eq!(heard, b"123");
}
