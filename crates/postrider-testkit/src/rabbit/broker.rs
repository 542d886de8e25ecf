use std::{env, net::SocketAddr, path::Path};

use anyhow::{Context, bail};
use reqwest::{Method, Url};
use serde_json::Value;
use tokio::sync::OnceCell;

use super::{script, vhost};
use crate::{http, must, target_dir};

/// Where a RabbitMQ listens: AMQP and its management API, with credentials that may make vhosts.
#[derive(Clone, Debug)]
pub struct Broker {
    amqp: Url,
    management: Url,
    http: reqwest::Client,
}

impl Broker {
    /// The broker that ordinary tests share, each in a [`Vhost`](super::Vhost) of its own.
    ///
    /// `POSTRIDER_TEST_AMQP_URL` names one; otherwise the first test starts a private node under
    /// `target/test-broker`, and it stays for the other test binaries. `dev/test` stops it at its end,
    /// `make clean-broker` at any time.
    pub async fn shared() -> Self {
        static SHARED: OnceCell<(Url, Url)> = OnceCell::const_new();
        let (amqp, management) = SHARED
            .get_or_init(async || must("the shared RabbitMQ of the tests", Self::find_shared().await))
            .await
            .clone();
        Self { amqp, management, http: http::client() }
    }

    /// A broker by its URLs. Any vhost in `amqp` is dropped.
    pub fn at(amqp: &str, management: Option<&str>) -> Self {
        let (amqp, management) = must("the URLs of RabbitMQ", addresses(amqp, management));
        Self { amqp, management, http: http::client() }
    }

    async fn find_shared() -> anyhow::Result<(Url, Url)> {
        if let Some((amqp, management)) = outside()? {
            return Ok((amqp, management));
        }
        let directory = target_dir().join("test-broker");
        let (amqp, management) =
            addresses(&script::broker_async("start", vec!["--fresh".into()], &directory).await?, None)?;
        let broker = Self { amqp, management, http: http::client() };
        broker.sweep().await?;
        Ok((broker.amqp, broker.management))
    }

    /// Deletes the vhosts that killed test processes left behind.
    async fn sweep(&self) -> anyhow::Result<()> {
        let vhosts = self.manage(Method::GET, "vhosts", None).await?;
        for name in vhosts.as_array().into_iter().flatten().filter_map(|vhost| vhost["name"].as_str()) {
            let owner = vhost::owner(name);
            if owner.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists()) {
                self.manage(Method::DELETE, &format!("vhosts/{name}"), None).await?;
            }
        }
        Ok(())
    }

    /// The AMQP URL of one vhost, given percent-encoded.
    pub fn url(&self, vhost: &str) -> String {
        let mut url = self.amqp.clone();
        url.set_path(&format!("/{vhost}"));
        url.into()
    }

    /// The AMQP URL of one vhost by way of `address`, such as that of a [`Proxy`](crate::chaos::Proxy).
    pub fn url_through(&self, address: SocketAddr, vhost: &str) -> String {
        let mut url = self.amqp.clone();
        let set = url.set_host(Some(&address.ip().to_string())).is_ok()
            && url.set_port(Some(address.port())).is_ok();
        assert!(set, "{url} cannot point to {address}");
        url.set_path(&format!("/{vhost}"));
        url.into()
    }

    /// `host:port` of its AMQP listener.
    pub fn amqp_address(&self) -> String {
        let host = self.amqp.host_str().unwrap_or("127.0.0.1");
        format!("{host}:{}", self.amqp.port().unwrap_or(5672))
    }

    /// The URL of its management API, with credentials, ending in `/`.
    pub fn management_url(&self) -> &str {
        self.management.as_str()
    }

    /// A request to the management API; `path` comes after `/api/`. An empty answer is `Null`.
    ///
    /// # Errors
    /// When it cannot be reached, or refuses.
    pub async fn manage(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
        let what = format!("{method} /api/{path}");
        let url = self.management.join(&format!("api/{path}"))?;
        let mut request = self.http.request(method, url);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.with_context(|| what.clone())?;
        let status = answer.status();
        let text = answer.text().await.with_context(|| what.clone())?;
        if !status.is_success() {
            bail!("{what}: {status} {text}");
        }
        if text.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_str(&text)?) }
    }
}

/// The broker that the tester has named, if any.
pub(super) fn outside() -> anyhow::Result<Option<(Url, Url)>> {
    let Ok(amqp) = env::var("POSTRIDER_TEST_AMQP_URL") else { return Ok(None) };
    let management = env::var("POSTRIDER_TEST_MANAGEMENT_URL").ok();
    addresses(&amqp, management.as_deref())
        .context("POSTRIDER_TEST_AMQP_URL, POSTRIDER_TEST_MANAGEMENT_URL")
        .map(Some)
}

fn addresses(amqp: &str, management: Option<&str>) -> anyhow::Result<(Url, Url)> {
    let mut amqp = Url::parse(amqp).with_context(|| format!("{amqp:?} is no URL"))?;
    amqp.set_path("");
    let management = match management {
        Some(given) => Url::parse(given).with_context(|| format!("{given:?} is no URL"))?,
        None => {
            let user = if amqp.username().is_empty() { "guest" } else { amqp.username() };
            let password = amqp.password().unwrap_or("guest");
            let host = amqp.host_str().context("the AMQP URL names no host")?;
            let port = u32::from(amqp.port().unwrap_or(5672)) + 10_000;
            Url::parse(&format!("http://{user}:{password}@{host}:{port}/"))?
        }
    };
    Ok((amqp, management))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn management_is_found_from_the_amqp_url() {
        let (amqp, management) = addresses("amqp://me:p%40ss@broker:5700/some", None).unwrap();
        assert_eq!(amqp.as_str(), "amqp://me:p%40ss@broker:5700");
        assert_eq!(management.as_str(), "http://me:p%40ss@broker:15700/");
    }

    #[test]
    fn urls_carry_the_vhost_and_may_lead_elsewhere() {
        let broker = Broker::at("amqp://guest:guest@127.0.0.1:5672", None);
        assert_eq!(broker.url("a"), "amqp://guest:guest@127.0.0.1:5672/a");
        assert_eq!(broker.amqp_address(), "127.0.0.1:5672");
        let proxied = broker.url_through("127.0.0.1:9".parse().unwrap(), "a");
        assert_eq!(proxied, "amqp://guest:guest@127.0.0.1:9/a");
    }
}
