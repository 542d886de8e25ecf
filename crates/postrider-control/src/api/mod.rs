//! The API under `/v1`: one file for each resource.
//!
//! Around every handler, from the outside in: measuring, catching panics, the length of the URL, the token and what it may,
//! the body (content type, size, time), the `Idempotency-Key`, and a deadline.

mod access;
mod answer;
mod api_keys;
mod audit;
mod body;
mod cancellations;
mod catalogues;
mod cursor;
mod dead_letters;
mod deliveries;
mod event_types;
mod events;
mod export;
mod idempotency;
mod layers;
mod listen;
mod login_links;
mod merge;
mod problem;
mod queues;
mod reminders;
mod replays;
mod rights;
mod scope;
mod settings;
mod stats;
mod status;
mod system;
mod tenants;
#[cfg(test)]
mod tests;
mod webhooks;
mod wrong_tokens;

use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::get;
use postrider_core::Timestamp;
use postrider_core::address::EgressPolicy;
use postrider_core::seal::MasterKey;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::books::Bookkeeper;
use crate::config::{AdminToken, Setting};
use crate::keys::Uses;
use crate::link::Broker;
use crate::metrics::Metrics;
use crate::queues::Queues;
use crate::store::Store;

pub(crate) use export::Exports;
pub(crate) use idempotency::InProgress;
pub(crate) use layers::Bodies;
pub(crate) use problem::PROBLEM_CODES;
use wrong_tokens::Peer;
pub(crate) use wrong_tokens::WrongTokens;

/// Where the description of the API is; the only thing that needs no token.
pub(crate) const OPENAPI_PATH: &str = "/openapi.json";

/// What handlers work with.
pub(crate) struct Api {
    pub store: Arc<Store>,
    pub broker: Arc<dyn Broker>,
    pub books: Arc<Bookkeeper>,
    pub metrics: Metrics,
    pub key: MasterKey,
    pub token: AdminToken,
    pub wrong_tokens: WrongTokens,
    pub uses: Arc<Uses>,
    pub egress: EgressPolicy,
    pub https_only: bool,
    pub in_progress: InProgress,
    pub bodies: Bodies,
    pub exports: Exports,
    /// Who has logged in to the console.
    pub logins: Arc<postrider_console::Sessions>,
    /// The test inbox that the console shows.
    pub inbox: Option<Arc<dyn postrider_console::Inbox>>,
    pub queues: Arc<Queues>,
    pub started_at: Timestamp,
    /// What this process was started with.
    pub settings: Vec<Setting>,
    /// Where RabbitMQ is, without who asks it.
    pub broker_address: String,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Postrider",
        description = "Events in, webhooks out. Every POST takes an `Idempotency-Key`; errors are RFC 9457 problems \
                       with a `code` from a closed list and a `hint`. The token is an API key, or the admin token. The role that \
                       stands in the security of an operation is the scope that a key needs for it; a key acts for its \
                       own tenant, which need not be named, and sees no other."
    ),
    components(schemas(problem::ProblemBody)),
    security(("token" = [])),
    tags(
        (name = "events", description = "Things that happened"),
        (name = "webhooks", description = "Receivers' registrations"),
        (name = "event types", description = "What can be subscribed to"),
        (name = "catalogues", description = "Event types of products, their triggers and profiles"),
        (name = "deliveries", description = "One event for one webhook"),
        (name = "dead letters", description = "Deliveries given up, and messages that cannot be processed"),
        (name = "replays", description = "Deliveries made again by filter, at a rate"),
        (name = "tenants", description = "Owners of webhooks and events"),
        (name = "settings", description = "What a tenant decided"),
        (name = "reminders", description = "Events that are due some days before a date"),
        (name = "api keys", description = "Who else may use the API, and for what"),
        (name = "audit", description = "Who changed what"),
        (name = "console", description = "Logging in to the console"),
        (name = "stats", description = "What happened over time"),
        (name = "status", description = "The books, and how control and the broker do"),
    )
)]
struct Description;

fn described() -> OpenApiRouter<Arc<Api>> {
    let mut description = Description::openapi();
    let token = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    if let Some(components) = &mut description.components {
        components.add_security_scheme("token", token);
    }
    let mut router = OpenApiRouter::with_openapi(description)
        .routes(routes!(events::publish, events::list))
        .routes(routes!(events::get))
        .routes(routes!(webhooks::create, webhooks::list))
        .routes(routes!(webhooks::get, webhooks::patch, webhooks::delete))
        .routes(routes!(webhooks::pause))
        .routes(routes!(webhooks::resume))
        .routes(routes!(webhooks::enable))
        .routes(routes!(webhooks::disable))
        .routes(routes!(webhooks::rotate_secret))
        .routes(routes!(webhooks::get_secret))
        .routes(routes!(webhooks::test))
        .routes(routes!(webhooks::explain))
        .routes(routes!(deliveries::list))
        .routes(routes!(deliveries::export::export))
        .routes(routes!(deliveries::get))
        .routes(routes!(deliveries::redeliver))
        .routes(routes!(replays::create, replays::list))
        .routes(routes!(replays::get))
        .routes(routes!(replays::export::export))
        .routes(routes!(replays::run))
        .routes(routes!(replays::cancel))
        .routes(routes!(deliveries::cancel))
        .routes(routes!(cancellations::create, cancellations::list))
        .routes(routes!(dead_letters::list))
        .routes(routes!(dead_letters::get))
        .routes(routes!(dead_letters::resolve))
        .routes(routes!(dead_letters::redeliver))
        .routes(routes!(event_types::list))
        .routes(routes!(event_types::get))
        .routes(routes!(catalogues::list))
        .routes(routes!(catalogues::get, catalogues::put, catalogues::delete))
        .routes(routes!(settings::get, settings::patch))
        .routes(routes!(reminders::list))
        .routes(routes!(reminders::get, reminders::put, reminders::delete))
        .routes(routes!(tenants::create, tenants::list))
        .routes(routes!(tenants::get, tenants::delete))
        .routes(routes!(api_keys::create, api_keys::list))
        .routes(routes!(api_keys::get, api_keys::revoke))
        .routes(routes!(access::get))
        .routes(routes!(audit::list))
        .routes(routes!(login_links::create))
        .routes(routes!(stats::get))
        .routes(routes!(stats::webhooks))
        .routes(routes!(status::status))
        .routes(routes!(system::get))
        .routes(routes!(queues::list))
        .routes(routes!(queues::get));
    list_codes(router.get_openapi_mut());
    rights::describe(router.get_openapi_mut());
    router
}

/// Every code that a problem can have.
fn list_codes(description: &mut utoipa::openapi::OpenApi) {
    let Some(components) = &mut description.components else { return };
    if let Some(RefOr::T(Schema::Object(problem))) = components.schemas.get_mut("Problem")
        && let Some(RefOr::T(Schema::Object(code))) = problem.properties.get_mut("code")
    {
        code.enum_values = Some(PROBLEM_CODES.iter().map(|code| code.as_str().into()).collect());
    }
}

/// The description of the API, as it is served under `/openapi.json`.
pub fn openapi() -> String {
    described().into_openapi().to_pretty_json().unwrap_or_default()
}

/// Every route with its method, as labels of metrics.
pub(crate) fn routes() -> Vec<(String, http::Method)> {
    let mut routes = vec![(OPENAPI_PATH.to_owned(), http::Method::GET)];
    for (path, item) in described().into_openapi().paths.paths {
        routes.extend(rights::operations(&item).map(|(method, _)| (path.clone(), method)));
    }
    routes
}

/// The whole API as a service.
pub(crate) fn router(api: Arc<Api>) -> Router {
    let (router, description) = described().split_for_parts();
    let door = scope::Door { api: api.clone(), rights: Arc::new(rights::Rights::of(&description)) };
    let description: Arc<str> = description.to_pretty_json().unwrap_or_default().into();
    let describe = move || {
        let description = description.clone();
        async move { ([(http::header::CONTENT_TYPE, "application/json")], description.to_string()) }
    };
    router
        .route(OPENAPI_PATH, get(describe))
        .fallback(layers::not_found)
        .method_not_allowed_fallback(layers::method_not_allowed)
        // `take_body` bounds bodies, at more than the framework's own limit.
        .layer(axum::extract::DefaultBodyLimit::disable())
        .layer(from_fn(layers::deadline))
        .layer(from_fn_with_state(api.clone(), idempotency::once))
        .layer(from_fn_with_state(api.clone(), layers::take_body))
        .layer(from_fn_with_state(door, scope::authorize))
        .layer(from_fn(layers::short_uri))
        .layer(CatchPanicLayer::custom(layers::panicked))
        .layer(from_fn_with_state(api.clone(), layers::measure))
        .with_state(api)
}

/// The API, and the console at every path that is not the API's.
fn with_console(api: Arc<Api>) -> Router {
    let surroundings = Arc::new(Surroundings { broker: api.broker.clone(), inbox: api.inbox.clone() });
    let logins = api.logins.clone();
    let api = router(api);
    let console = postrider_console::router(api.clone(), logins, surroundings);
    // Not by routes: the API decides by the route that it finds itself.
    Router::new().fallback(move |request: Request| {
        let path = request.uri().path();
        let is_ours = path == OPENAPI_PATH || path == "/v1" || path.starts_with("/v1/");
        if is_ours { api.clone() } else { console.clone() }.oneshot(request)
    })
}

/// What the console is told about the system.
struct Surroundings {
    broker: Arc<dyn Broker>,
    inbox: Option<Arc<dyn postrider_console::Inbox>>,
}

impl postrider_console::Surroundings for Surroundings {
    fn broker_lost_since(&self) -> Option<Timestamp> {
        let state = self.broker.state();
        (!state.connected).then_some(state.since)
    }

    fn now(&self) -> Timestamp {
        postrider_broker::now()
    }

    fn inbox(&self) -> Option<Arc<dyn postrider_console::Inbox>> {
        self.inbox.clone()
    }

    fn socket(&self, of: &http::Extensions) -> http::Extensions {
        let mut socket = http::Extensions::new();
        if let Some(peer) = of.get::<ConnectInfo<Peer>>() {
            socket.insert(*peer);
        }
        socket
    }
}

/// Answers requests until `shutdown`, then finishes those under way.
pub(crate) async fn serve(listener: tokio::net::TcpListener, api: Api, shutdown: CancellationToken) {
    listen::serve(listener, with_console(Arc::new(api)), shutdown).await;
}
