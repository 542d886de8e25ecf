//! Putting a page together: who looks at it, what is around it, and what it says when the API refuses.

use askama::Template;
use axum::extract::{FromRequest, FromRequestParts, OptionalFromRequestParts, Request};
use axum::response::{Html as Body, IntoResponse, Redirect, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use postrider_core::Timestamp;
use serde::Deserialize;
use subtle::ConstantTimeEq as _;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::Console;
use crate::api::{Api, Call, Refused};
use crate::assets::{ADDRESSES, Addresses};
use crate::fields::{Fields, Form};
use crate::session::Session;
use crate::words::{Html, when};

/// The cookie of a session. Browsers send it back only over TLS or from this machine, and to nobody else.
pub(crate) const COOKIE: &str = "__Host-postrider";
/// The member of every form that proves that it is ours.
pub(crate) const PROOF: &str = "csrf";

/// Parts of the console, as the bar at the top has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Whether it works.
    Overview,
    /// One event for one webhook.
    Deliveries,
    /// What happened.
    Events,
    /// Receivers.
    Webhooks,
    /// What can be subscribed to.
    Catalogue,
    /// What the broker holds.
    Queues,
    /// Keys, tenants, the audit log.
    Settings,
}

impl Part {
    /// Every part, in the order of the bar.
    pub(crate) const ALL: [Self; 7] = [
        Self::Overview,
        Self::Deliveries,
        Self::Events,
        Self::Webhooks,
        Self::Catalogue,
        Self::Queues,
        Self::Settings,
    ];

    /// What it is called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Deliveries => "Deliveries",
            Self::Events => "Events",
            Self::Webhooks => "Webhooks",
            Self::Catalogue => "Catalogue",
            Self::Queues => "Queues",
            Self::Settings => "Settings",
        }
    }

    /// Where it begins.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Overview => "/",
            Self::Deliveries => "/deliveries",
            Self::Events => "/events",
            Self::Webhooks => "/webhooks",
            Self::Catalogue => "/catalogue",
            Self::Queues => "/queues",
            Self::Settings => "/settings",
        }
    }
}

/// Somebody who has logged in and asks for a page.
pub(crate) struct Visit {
    /// The API, as this person.
    pub(crate) api: Api,
    /// The time at which the page is made.
    pub(crate) now: Timestamp,
    /// The id of the session.
    pub(crate) id: Zeroizing<String>,
    /// The session.
    pub(crate) session: Session,
    console: Console,
    /// The path with its query.
    here: String,
    notice: Option<Notice>,
}

/// What a page says of what was just done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    /// What was done, or was not.
    pub(crate) text: String,
    /// Whether it was done.
    pub(crate) good: bool,
}

/// What is around every page.
pub(crate) struct Shell {
    /// What it is called, in the tab.
    pub(crate) title: String,
    /// The part that it belongs to.
    pub(crate) part: Part,
    /// What was just done.
    pub(crate) notice: Option<Notice>,
    /// What is the matter with the system, if anything is.
    pub(crate) trouble: Option<Html>,
    /// Whose things are shown; empty where the token decides.
    pub(crate) tenant: String,
    /// The proof for forms.
    pub(crate) csrf: String,
    /// What tells this showing of a form from another: see `Api::make_once`.
    pub(crate) once: String,
    /// Where this page is.
    pub(crate) here: String,
    /// What was read of the API, as `curl`.
    pub(crate) calls: Vec<String>,
    /// The same with the command line; empty if it has nothing like it.
    pub(crate) command: String,
    /// Whether the page refreshes itself.
    pub(crate) live: bool,
    /// The files that it loads.
    pub(crate) assets: &'static Addresses,
    /// When it was made.
    pub(crate) now: Timestamp,
    /// Which Postrider this is.
    pub(crate) version: &'static str,
}

impl Shell {
    /// The parts of the console.
    pub(crate) fn parts(&self) -> [Part; 7] {
        Part::ALL
    }

    /// When the page was made, for programs.
    pub(crate) fn made_at(&self) -> String {
        self.now.to_rfc3339()
    }
}

impl Visit {
    /// What is around a page. Made last, when everything that the page shows was read.
    pub(crate) fn shell(&self, part: Part, title: impl Into<String>) -> Shell {
        let trouble = self.console.surroundings.broker_lost_since().map(|since| {
            let since = when(&since.to_rfc3339(), self.now);
            Html(format!(
                "<b>RabbitMQ cannot be reached; it was lost {since}.</b> What is shown is what is stored. New events are refused \
                 with 503 until it is back, and nothing is lost meanwhile."
            ))
        });
        Shell {
            title: title.into(),
            part,
            notice: self.notice.clone(),
            trouble,
            tenant: self.session.tenant.clone().unwrap_or_default(),
            csrf: self.session.csrf.clone(),
            once: crate::session::fresh().to_string(),
            here: self.here.clone(),
            calls: self.api.calls().iter().filter(|call| call.method == Method::GET).map(curl).collect(),
            command: String::new(),
            live: true,
            assets: &ADDRESSES,
            now: self.now,
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    /// The fields of the query of this page.
    pub(crate) fn query(&self) -> Fields {
        Fields::parse(self.here.split_once('?').map_or("", |(_, query)| query).as_bytes())
    }

    /// Everybody who has logged in.
    pub(crate) fn sessions(&self) -> &crate::Sessions {
        &self.console.sessions
    }

    /// Goes to a page and says there what was done.
    pub(crate) fn done(&self, path: &str, text: &str) -> Response {
        goes_to(path, &Notice { text: text.to_owned(), good: true })
    }

    /// Goes to a page and says there why something was not even asked for.
    pub(crate) fn refused_here(&self, path: &str, why: &str) -> Response {
        goes_to(path, &Notice { text: format!("Not done: {why}."), good: false })
    }

    /// Goes to a page and says there why something was not done.
    pub(crate) fn not_done(&self, path: &str, refused: &Refused) -> Answer {
        if refused.is_logged_out() {
            return Err(refused.clone().into());
        }
        let text = format!("Not done: {}. {}", refused.detail.trim_end_matches('.'), refused.hint);
        Ok(goes_to(path, &Notice { text, good: false }))
    }
}

/// How long a notice waits for the page that shows it, seconds.
const NOTICE_SECS: u32 = 30;
/// The longest notice, bytes of its encoded form.
const NOTICE_BYTES: usize = 1500;
const NOTICE_COOKIE: &str = "__Host-postrider-notice";

fn goes_to(path: &str, notice: &Notice) -> Response {
    let mark = if notice.good { '+' } else { '-' };
    let mut text: String = url::form_urlencoded::byte_serialize(notice.text.as_bytes()).collect();
    text.truncate(NOTICE_BYTES);
    let cookie = format!(
        "{NOTICE_COOKIE}={mark}{text}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age={NOTICE_SECS}"
    );
    let mut response = Redirect::to(path).into_response();
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

fn notice_in(headers: &HeaderMap) -> Option<Notice> {
    let value = cookie(headers, NOTICE_COOKIE)?;
    let good = value.starts_with('+');
    let pair = format!("t={}", value.get(1..)?);
    let text = url::form_urlencoded::parse(pair.as_bytes()).next()?.1.into_owned();
    Some(Notice { text, good })
}

fn curl(call: &Call) -> String {
    format!("curl -H \"Authorization: Bearer $POSTRIDER_API_TOKEN\" \"$POSTRIDER_API_URL{}\"", call.path)
}

/// The value of a cookie.
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = all.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(known, _)| *known == name).map(|(_, value)| value)
}

/// Whether a page was asked for by htmx, which refreshes a part of it.
pub(crate) fn is_refresh(headers: &HeaderMap) -> bool {
    headers.contains_key("hx-request")
}

impl FromRequestParts<Console> for Visit {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, console: &Console) -> Result<Self, Response> {
        let here = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let id = cookie(&parts.headers, COOKIE).map(|id| Zeroizing::new(id.to_owned()));
        let session = id.as_ref().and_then(|id| console.sessions.get(id, Instant::now()));
        let (Some(id), Some(session)) = (id, session) else {
            return Err(log_in(&parts.headers, &parts.method, &here));
        };
        let socket = console.surroundings.socket(&parts.extensions);
        let api = Api::new(console.api.clone(), session.token.clone(), session.tenant.clone(), socket);
        let now = console.surroundings.now();
        let notice = if is_refresh(&parts.headers) { None } else { notice_in(&parts.headers) };
        Ok(Self { api, now, id, session, console: console.clone(), here, notice })
    }
}

impl OptionalFromRequestParts<Console> for Visit {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(
        parts: &mut Parts,
        console: &Console,
    ) -> Result<Option<Self>, Self::Rejection> {
        Ok(<Self as FromRequestParts<Console>>::from_request_parts(parts, console).await.ok())
    }
}

/// Sends somebody who is not logged in to the login, and back afterwards.
fn log_in(headers: &HeaderMap, method: &Method, here: &str) -> Response {
    if is_refresh(headers) {
        // The script goes to the login.
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let next = if method.is_safe() && here != "/" { here } else { "" };
    if next.is_empty() {
        return Redirect::to("/login").into_response();
    }
    let next: String = url::form_urlencoded::byte_serialize(next.as_bytes()).collect();
    Redirect::to(&format!("/login?next={next}")).into_response()
}

/// A form that somebody who has logged in sent from a page of ours.
pub(crate) struct Sent {
    /// Who.
    pub(crate) visit: Visit,
    /// What.
    pub(crate) fields: Fields,
}

impl FromRequest<Console> for Sent {
    type Rejection = Response;

    async fn from_request(request: Request, console: &Console) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let visit = <Visit as FromRequestParts<Console>>::from_request_parts(&mut parts, console).await?;
        let request = Request::from_parts(parts, body);
        let Form(fields) = Form::from_request(request, console).await.map_err(IntoResponse::into_response)?;
        let proven = fields.exactly(PROOF).as_bytes().ct_eq(visit.session.csrf.as_bytes());
        if !bool::from(proven) {
            let text = "This form is of another login. Go back, reload the page, and send it again.";
            return Err((StatusCode::FORBIDDEN, text).into_response());
        }
        Ok(Self { visit, fields })
    }
}

/// Why there is no page.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The API refused.
    Refused(Box<Refused>),
    /// The template failed.
    Template(askama::Error),
}

impl From<Refused> for Trouble {
    fn from(refused: Refused) -> Self {
        Self::Refused(Box::new(refused))
    }
}

impl From<askama::Error> for Trouble {
    fn from(error: askama::Error) -> Self {
        Self::Template(error)
    }
}

/// A page, or why there is none.
pub(crate) type Answer = Result<Response, Trouble>;

/// A page as an answer.
pub(crate) fn page(template: &impl Template) -> Answer {
    page_with(StatusCode::OK, template)
}

/// A page as an answer with this status: a form that must be sent again has 422.
pub(crate) fn page_with(status: StatusCode, template: &impl Template) -> Answer {
    let mut response = (status, Body(template.render()?)).into_response();
    // A notice is shown once.
    let spent = HeaderValue::from_static(
        "__Host-postrider-notice=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0",
    );
    response.headers_mut().append(header::SET_COOKIE, spent);
    Ok(response)
}

#[derive(Template)]
#[template(path = "refused.html")]
struct RefusedPage {
    shell: Shell,
    heading: &'static str,
    refused: Refused,
    missing_scope: Option<String>,
}

/// What is missing, where a key does not have it.
#[derive(Deserialize)]
struct Missing {
    scope: Option<String>,
}

impl Visit {
    /// A page, or what the API said in place of it.
    pub(crate) fn or_refused(&self, part: Part, made: Answer) -> Response {
        let refused = match made {
            Ok(response) => return response,
            Err(Trouble::Template(error)) => {
                tracing::error!(%error, "a page cannot be made");
                return (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "The page cannot be made; the log of control says why.",
                )
                    .into_response();
            }
            Err(Trouble::Refused(refused)) => *refused,
        };
        if refused.is_logged_out() {
            // The key was revoked or has expired: the session opens nothing any more.
            self.console.sessions.end(&self.id);
            return Redirect::to("/login?over=1").into_response();
        }
        let status = StatusCode::from_u16(refused.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let heading = match status {
            StatusCode::NOT_FOUND => "Not found",
            StatusCode::FORBIDDEN => "Not allowed",
            StatusCode::SERVICE_UNAVAILABLE => "Not available now",
            _ => "That did not work",
        };
        let missing = serde_json::from_value::<Missing>(refused.more.clone().into());
        let missing_scope = missing.ok().and_then(|missing| missing.scope);
        let page = RefusedPage { shell: self.shell(part, heading), heading, refused, missing_scope };
        page_with(status, &page).unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_goes_to_the_next_page() {
        let notice = Notice { text: "Paused: billing; 100 % <ok>".into(), good: true };
        let response = goes_to("/webhooks", &notice);
        assert_eq!(response.headers()[header::LOCATION], "/webhooks");
        let set = response.headers()[header::SET_COOKIE].to_str().unwrap();
        let mut headers = HeaderMap::new();
        let pair = set.split(';').next().unwrap();
        headers.insert(header::COOKIE, HeaderValue::from_str(&format!("a=b; {pair}")).unwrap());
        assert_eq!(notice_in(&headers), Some(notice));
        assert!(set.contains("; Secure; HttpOnly"));
        headers.clear();
        assert_eq!(notice_in(&headers), None);
    }

    #[test]
    fn cookies_are_found_by_their_whole_name() {
        let mut headers = HeaderMap::new();
        headers
            .insert(header::COOKIE, HeaderValue::from_static("x__Host-postrider=no; __Host-postrider=yes"));
        assert_eq!(cookie(&headers, COOKIE), Some("yes"));
        assert_eq!(cookie(&headers, "other"), None);
    }

    #[test]
    fn who_is_not_logged_in_comes_back_to_where_they_wanted() {
        let to = |method: Method, here: &str| {
            log_in(&HeaderMap::new(), &method, here).headers()[header::LOCATION].to_str().unwrap().to_owned()
        };
        assert_eq!(to(Method::GET, "/deliveries?state=dead"), "/login?next=%2Fdeliveries%3Fstate%3Ddead");
        assert_eq!(to(Method::GET, "/"), "/login");
        assert_eq!(to(Method::POST, "/webhooks"), "/login", "a form is not sent again");
        let mut headers = HeaderMap::new();
        headers.insert("hx-request", HeaderValue::from_static("true"));
        assert_eq!(log_in(&headers, &Method::GET, "/").status(), StatusCode::UNAUTHORIZED);
    }
}
