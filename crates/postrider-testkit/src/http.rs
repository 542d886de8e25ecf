//! A plain HTTP client for tests.

use std::time::Duration;

use rustls::crypto::ring;

use crate::must;

/// A client that follows no redirect, uses no proxy and waits at most 10 s.
///
/// It keeps no idle connections, so it may outlive the runtime of one test.
pub fn client() -> reqwest::Client {
    // Another crate of the same test may have installed the provider already; it is the same one.
    ring::default_provider().install_default().ok();
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .pool_max_idle_per_host(0)
        .timeout(Duration::from_secs(10))
        .build();
    must("build an HTTP client", client)
}
