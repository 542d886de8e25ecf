use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use postrider_testkit::dns::{Dns, Said};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 3);

async fn dns() -> Dns {
    Dns::start(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)).await
}

/// A question for addresses of the fourth version, as a client would send it.
fn question(name: &str) -> Vec<u8> {
    let mut query = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).unwrap());
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 0, 1, 0, 1]);
    query
}

/// The answer's code, whether it was cut short, and its last four bytes, which are an address if there is one.
fn parts(answer: &[u8]) -> (u8, bool, Option<[u8; 4]>) {
    assert_eq!(answer[..2], [0xab, 0xcd]);
    let addresses = u16::from_be_bytes([answer[6], answer[7]]);
    let address = (addresses > 0).then(|| answer[answer.len() - 4..].try_into().unwrap());
    (answer[3] & 0x0f, answer[2] & 2 != 0, address)
}

async fn ask(dns: &Dns, name: &str) -> Option<(u8, bool, Option<[u8; 4]>)> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&question(name), dns.address()).await.unwrap();
    let mut answer = [0; 512];
    let length = timeout(Duration::from_millis(500), socket.recv(&mut answer)).await.ok()?.unwrap();
    Some(parts(&answer[..length]))
}

#[tokio::test]
async fn it_answers_by_script_and_counts() {
    let dns = dns().await;
    let script = [Said::Failure, Said::NoSuchName, Said::Nothing, Said::Refused, Said::address(ADDRESS)];
    dns.answer("Hook.Test", script);
    let octets = Some(ADDRESS.octets());
    for expected in [(2, None), (3, None), (0, None), (5, None), (0, octets), (0, octets)] {
        let (code, truncated, address) = ask(&dns, "hook.test").await.unwrap();
        assert_eq!((code, address, truncated), (expected.0, expected.1, false));
    }
    assert_eq!(dns.asked("hook.test"), 6);
    assert_eq!(ask(&dns, "other.test").await.unwrap().0, 3, "names without a script do not exist");
}

#[tokio::test]
async fn it_is_slow_or_silent_when_told() {
    let dns = dns().await;
    dns.answer("silent.test", [Said::Silence]);
    dns.answer("slow.test", [Said::address(ADDRESS).after(Duration::from_millis(100))]);
    assert_eq!(ask(&dns, "silent.test").await, None);
    assert_eq!(ask(&dns, "slow.test").await.unwrap().2, Some(ADDRESS.octets()));
}

#[tokio::test]
async fn what_is_too_long_for_udp_is_asked_for_over_tcp() {
    let dns = dns().await;
    dns.answer("long.test", [Said::OverTcp(Box::new(Said::address(ADDRESS)))]);
    assert_eq!(ask(&dns, "long.test").await.unwrap(), (0, true, None));
    let mut stream = TcpStream::connect(dns.address()).await.unwrap();
    let query = question("long.test");
    stream.write_u16(u16::try_from(query.len()).unwrap()).await.unwrap();
    stream.write_all(&query).await.unwrap();
    let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(parts(&answer), (0, false, Some(ADDRESS.octets())));
}
