use std::time::Duration;

use postrider_testkit::{chaos::Proxy, eventually};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// An upstream that says everything back.
pub(crate) async fn echo() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await.ok();
            });
        }
    });
    address
}

async fn say(stream: &mut TcpStream, word: &[u8; 4]) -> bool {
    let mut heard = [0; 4];
    let talk = async {
        stream.write_all(word).await?;
        stream.read_exact(&mut heard).await
    };
    matches!(timeout(Duration::from_millis(200), talk).await, Ok(Ok(_))) && heard == *word
}

#[tokio::test]
async fn a_cut_line_resets_and_refuses() {
    let proxy = Proxy::start(echo().await).await;
    let mut before = TcpStream::connect(proxy.addr()).await.unwrap();
    assert!(say(&mut before, b"one.").await);

    proxy.cut().await;
    assert_eq!(before.read(&mut [0; 4]).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    let refused = TcpStream::connect(proxy.addr()).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);

    proxy.restore().await;
    let mut after = TcpStream::connect(proxy.addr()).await.unwrap();
    assert!(say(&mut after, b"two.").await);
}

#[tokio::test]
async fn a_stalled_line_moves_nothing_and_loses_nothing() {
    let proxy = Proxy::start(echo().await).await;
    let mut old = TcpStream::connect(proxy.addr()).await.unwrap();
    assert!(say(&mut old, b"one.").await);

    proxy.stall().await;
    let mut new = TcpStream::connect(proxy.addr()).await.unwrap();
    assert!(!say(&mut old, b"two.").await);
    assert!(!say(&mut new, b"new.").await);

    proxy.restore().await;
    let mut late = [0; 4];
    old.read_exact(&mut late).await.unwrap();
    assert_eq!(&late, b"two.");
    new.read_exact(&mut late).await.unwrap();
    assert_eq!(&late, b"new.");
}

#[tokio::test]
async fn a_dead_upstream_shows_as_a_reset() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let proxy = Proxy::start(closed).await;
    let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
    assert!(stream.read(&mut [0; 4]).await.is_err());
    eventually("the connection is gone", async || proxy.connections() == 0).await;
}
