//! The console as people meet it: a real browser, and the real command behind it.

mod chromium;
mod deliveries;
mod first_minutes;
mod forms;
mod keyboard;
mod logging_in;
mod motion;
mod outage;
mod pages;
mod without_scripts;

use postrider_testkit::eventually_some;
use postrider_testkit::rabbit::{Broker, Vhost};
use serde_json::{Value, json};

use crate::system::{Role, System, TOKEN};
use chromium::Browser;

/// An event type of the catalogue that the tests import.
const LOGIN: &str = "USER_LOGIN";

/// Somebody at a browser, and the Postrider whose console they look at.
struct Desk {
    browser: Browser,
    system: System,
    _postrider: Role,
    _vhost: Vhost,
}

impl Desk {
    /// Nobody has logged in yet. Nothing if this machine has no browser: then the test is counted as not run.
    async fn new(name: &str) -> Option<Self> {
        Self::with_scripts(name, true).await
    }

    async fn with_scripts(name: &str, scripts: bool) -> Option<Self> {
        Self::with(name, scripts, &[]).await
    }

    async fn with(name: &str, scripts: bool, environment: &[(&str, &str)]) -> Option<Self> {
        let vhost = Vhost::create(&Broker::shared().await, name).await;
        let system = System::new(vhost.url()).await;
        let browser = chromium::start(&system.url(""), scripts).await?;
        let postrider = system.start_with("all", environment).ready().await;
        Some(Self { browser, system, _postrider: postrider, _vhost: vhost })
    }

    /// The same with the admin token logged in, and an inbox that the console shows.
    async fn beside_inbox(name: &str, inbox: &str) -> Option<Self> {
        let desk = Self::with(name, true, &[("POSTRIDER_INBOX_URL", inbox)]).await?;
        desk.browser.log_in(TOKEN).await;
        Some(desk)
    }

    /// The same with the admin token logged in. Pages stay as they are loaded.
    async fn logged_in(name: &str) -> Option<Self> {
        let desk = Self::new(name).await?;
        desk.browser.log_in(TOKEN).await;
        desk.browser.refreshes_every(0).await;
        Some(desk)
    }

    /// Sends an event of this type over the API.
    async fn send(&self, event_type: &str, id: &str) {
        let data = json!({ "sub": "u-1", "name": "<img src=/x onerror=alert(1)>" });
        self.system.post("/v1/events", &json!({ "event_type": event_type, "id": id, "data": data })).await;
    }

    /// The first of a list of the API, once there is one.
    async fn first(&self, path: &str) -> Value {
        let found = async || self.system.get(path).await["items"].as_array()?.first().cloned();
        eventually_some(path, found).await
    }
}
