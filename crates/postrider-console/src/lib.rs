//! The console: what people see of Postrider in a browser.
//!
//! It is a client of the API, without a socket between them: whatever a page shows or does is a request to `/v1` with the token
//! of whoever has logged in. So the console can do nothing that the API cannot, for nobody who may not, and every change is checked
//! and audited in one place. It links no database and no broker.
//!
//! - `api` asks the API, and notes what was asked: each page ends with the same as `curl`.
//! - `session` is who has logged in, `login` how: with a key, or with a link that works once.
//! - `inbox` is how the test inbox is asked, by a client that is given: the console links none.
//! - `guard` is what surrounds every page: headers for the browser, and the proof that a form came from here.
//! - `page` puts a page together, `pages` has one module for each, with a template of the same name under `templates`.
//! - `chart` draws, `words` says times, numbers and states.
//! - `assets` are the files of the browser: Pico, htmx, `console.css` and `console.js`, all in the binary.
//!
//! Everything works without JavaScript. With it, pages refresh themselves and times run.

mod api;
mod assets;
mod chart;
mod fields;
mod guard;
mod inbox;
mod login;
mod page;
mod pages;
mod session;
#[cfg(test)]
mod stage;
#[cfg(test)]
mod templates;
mod words;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn;
use axum::routing::get;
use http::Extensions;
use postrider_core::Timestamp;
use tower_http::compression::CompressionLayer;

pub use inbox::{Asking, Inbox, NoAnswer};
pub use pages::{ASYNCAPI, AUDITED};
pub use session::{LINK, Sessions};

/// The largest form, bytes: a catalogue is the largest that is sent in one.
const MAX_FORM_BYTES: usize = 1024 * 1024;

/// What the console is told about the system beside what the API answers.
pub trait Surroundings: Send + Sync {
    /// Since when RabbitMQ cannot be reached; nothing while it can.
    fn broker_lost_since(&self) -> Option<Timestamp>;
    /// The time.
    fn now(&self) -> Timestamp;
    /// The test inbox, if whoever runs Postrider named one.
    fn inbox(&self) -> Option<Arc<dyn Inbox>> {
        None
    }
    /// What the API has to know of the socket over which a request came, out of that request's extensions.
    fn socket(&self, of: &Extensions) -> Extensions;
}

/// What the pages work with.
#[derive(Clone)]
pub(crate) struct Console {
    api: Router,
    sessions: Arc<Sessions>,
    surroundings: Arc<dyn Surroundings>,
}

/// The console over this API, as a service for every path that is not the API's.
pub fn router(api: Router, sessions: Arc<Sessions>, surroundings: Arc<dyn Surroundings>) -> Router {
    let console = Console { api, sessions, surroundings };
    Router::new()
        .merge(pages::routes())
        .merge(login::routes())
        .fallback(pages::nothing_here)
        .layer(from_fn(guard::same_origin))
        .layer(DefaultBodyLimit::max(MAX_FORM_BYTES))
        .with_state(console)
        // Pages are not packed: they hold what others wrote beside the proof of a form, and the length would tell of it.
        .route("/assets/{name}", get(assets::file).layer(CompressionLayer::new()))
        .layer(from_fn(guard::headers))
}
