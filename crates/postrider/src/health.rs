//! What a process shows of itself: `/livez`, `/readyz`, `/metrics`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use postrider_broker::Readiness;
use prometheus::{IntGauge, Opts, Registry, TextEncoder};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::exit::{Exit, Failure};

/// How long open connections may go on once the process stops.
const CLOSING: Duration = Duration::from_secs(2);

/// What the server shows.
#[derive(Clone, Debug)]
pub struct Health {
    /// Each role and how it does.
    pub roles: Vec<(&'static str, Readiness)>,
    /// Every metric of the process.
    pub registry: Registry,
    /// A process that stops is not ready.
    pub stopping: CancellationToken,
}

/// A registry with the metrics that belong to the process and not to a role.
///
/// # Errors
/// [`Failure`] when a metric is registered twice.
pub fn registry() -> Result<Registry, Failure> {
    let bad = |error| Failure::new(Exit::Other, "cannot register the metrics of the process", error);
    let registry = Registry::new();
    let build = Opts::new("build_info", "The version of the process; always 1")
        .namespace("postrider")
        .const_label("version", env!("CARGO_PKG_VERSION"));
    let build = IntGauge::with_opts(build).map_err(bad)?;
    build.set(1);
    registry.register(Box::new(build)).map_err(bad)?;
    let process = prometheus::process_collector::ProcessCollector::for_self();
    registry.register(Box::new(process)).map_err(bad)?;
    Ok(registry)
}

/// Listens where the settings say.
///
/// # Errors
/// [`Failure`] that names the variable.
pub async fn bind(address: SocketAddr, variable: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        Failure::new(Exit::Other, format!("cannot listen on {address}"), error)
            .next(format!("stop what listens there, or set {variable} to another address"))
    })
}

/// Serves until `stop`. That may come later than `health.stopping`: a process that drains can still be watched.
pub async fn serve(listener: TcpListener, health: Health, stop: CancellationToken) {
    let server = axum::serve(listener, routes(health)).with_graceful_shutdown(stop.clone().cancelled_owned());
    let closing = async {
        stop.cancelled().await;
        tokio::time::sleep(CLOSING).await;
    };
    tokio::select! {
        ended = server => {
            if let Err(error) = ended {
                tracing::error!(%error, "the health and metrics server failed");
            }
        }
        () = closing => {}
    }
}

fn routes(health: Health) -> Router {
    Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(Arc::new(health))
}

async fn readyz(State(health): State<Arc<Health>>) -> Response {
    let mut ready = !health.stopping.is_cancelled();
    let mut parts = Vec::new();
    if !ready {
        parts.push(json!({"role": "process", "part": "process", "ready": false, "why": "it stops"}));
    }
    for (role, readiness) in &health.roles {
        let known = readiness.parts();
        if known.is_empty() {
            ready = false;
            parts.push(
                json!({"role": role, "part": "start", "ready": false, "why": "it has not started yet"}),
            );
        }
        for (part, state) in known {
            ready &= state.is_ok();
            parts.push(json!({"role": role, "part": part, "ready": state.is_ok(), "why": state.err()}));
        }
    }
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({"ready": ready, "parts": parts}))).into_response()
}

async fn metrics(State(health): State<Arc<Health>>) -> Response {
    match TextEncoder::new().encode_to_string(&health.registry.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot write the metrics: {error}\n"))
            .into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt as _;

    async fn ask(health: &Health, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = routes(health.clone()).oneshot(request).await.unwrap();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_names_every_part_and_why() {
        let (router, worker) = (Readiness::new(), Readiness::new());
        let roles = vec![("router", router.clone()), ("worker", worker.clone())];
        let health = Health { roles, registry: registry().unwrap(), stopping: CancellationToken::new() };
        router.set("broker", Ok(()));
        let (status, body) = ask(&health, "/readyz").await;
        assert_eq!(status, 503);
        assert!(body.contains("it has not started yet"), "{body}");
        worker.set("broker", Err("RabbitMQ cannot be reached".into()));
        let (status, body) = ask(&health, "/readyz").await;
        assert_eq!(status, 503);
        assert!(
            body.contains(
                r#""part":"broker","ready":false,"role":"worker","why":"RabbitMQ cannot be reached""#
            )
        );
        worker.set("broker", Ok(()));
        assert_eq!(ask(&health, "/readyz").await.0, 200);
        assert_eq!(ask(&health, "/livez").await.0, 200);
        health.stopping.cancel();
        assert_eq!(ask(&health, "/readyz").await.0, 503);
        assert_eq!(ask(&health, "/livez").await.0, 200);
    }

    #[tokio::test]
    async fn metrics_tell_the_version_and_the_process() {
        let health =
            Health { roles: vec![], registry: registry().unwrap(), stopping: CancellationToken::new() };
        let (status, body) = ask(&health, "/metrics").await;
        assert_eq!(status, 200);
        let version = env!("CARGO_PKG_VERSION");
        assert!(body.contains(&format!("postrider_build_info{{version=\"{version}\"}} 1")), "{body}");
        assert!(body.contains("process_resident_memory_bytes"), "{body}");
    }
}
