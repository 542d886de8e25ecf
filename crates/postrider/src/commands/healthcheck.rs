//! `postrider healthcheck`: for containers, which have no curl.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use url::Url;

use super::Context;
use crate::api::{http_client, read_body};
use crate::exit::{Exit, Failure, cause};
use crate::output::plain;

/// How long the process may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks the process that serves on `POSTRIDER_METRICS_LISTEN` whether it is ready.
///
/// # Errors
/// Exit code 5 when it is not, with what it waits for.
pub async fn run(context: &Context) -> Result<Exit, Failure> {
    let address = reachable(context.settings.observe.metrics_listen);
    let what = format!("the process on {address} is not ready");
    let failed = |why: String| Failure::new(Exit::Unavailable, what.clone(), why);
    let url: Url = format!("http://{address}/readyz")
        .parse()
        .map_err(|error: url::ParseError| failed(error.to_string()))?;
    let response =
        http_client(&url)?.get(url).timeout(TIMEOUT).send().await.map_err(|error| {
            failed(cause(&error)).next("check that it runs, and POSTRIDER_METRICS_LISTEN")
        })?;
    let ready = response.status().is_success();
    let raw = read_body(response).await.map_err(failed)?;
    if ready {
        context.out.note("ready");
        return Ok(Exit::Ok);
    }
    let body: Value = serde_json::from_str(&raw).unwrap_or_default();
    let waits: Vec<String> = body["parts"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|part| part["ready"] == false)
        .map(|part| {
            format!("{}/{}: {}", plain(part.get("role")), plain(part.get("part")), plain(part.get("why")))
        })
        .collect();
    Err(failed(waits.join("; ")))
}

/// The address at which a server that listens on all addresses is reached from here.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_asked_on_loopback() {
        assert_eq!(reachable("0.0.0.0:9090".parse().unwrap()).to_string(), "127.0.0.1:9090");
        assert_eq!(reachable("[::]:1".parse().unwrap()).to_string(), "[::1]:1");
        assert_eq!(reachable("10.0.0.1:1".parse().unwrap()).to_string(), "10.0.0.1:1");
    }
}
