//! Logging in: with a key or the admin token, or with a link that `postrider open` prints. And out.

use askama::Template;
use axum::Router;
use axum::extract::{FromRequest, Request, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use http::{HeaderValue, Method, StatusCode, header};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::Console;
use crate::api::{Api, Refused};
use crate::assets::{ADDRESSES, Addresses};
use crate::fields::{Fields, Form, Query};
use crate::page::{Answer, COOKIE, Sent, Trouble, Visit, page_with};

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    assets: &'static Addresses,
    /// Where to go afterwards.
    next: String,
    /// The code of a link that was followed.
    code: String,
    /// Why nobody is logged in.
    problem: Option<String>,
    /// A session was over.
    over: bool,
}

impl LoginPage {
    fn new(fields: &Fields) -> Self {
        Self {
            assets: &ADDRESSES,
            next: path_of_ours(fields.get("next")).to_owned(),
            code: fields.get("code").to_owned(),
            problem: None,
            over: fields.has("over"),
        }
    }
}

/// Pages for everybody.
pub(crate) fn routes() -> Router<Console> {
    Router::new()
        .route("/login", get(form).post(log_in))
        .route("/login/kept", get(kept))
        .route("/logout", post(log_out))
        .route("/tenant", post(choose_tenant))
}

/// A path of the console, and no address elsewhere.
pub(crate) fn path_of_ours(next: &str) -> &str {
    let ours = next.starts_with('/') && !next.starts_with("//") && !next.contains(['\\', '\n', '\r', '\t']);
    if ours { next } else { "/" }
}

async fn form(visit: Option<Visit>, Query(fields): Query) -> Response {
    let login = LoginPage::new(&fields);
    if visit.is_some() && login.code.is_empty() {
        return Redirect::to(&login.next).into_response();
    }
    shown(StatusCode::OK, &login)
}

fn shown(status: StatusCode, login: &LoginPage) -> Response {
    match page_with(status, login) {
        Ok(response) => response,
        Err(Trouble::Template(_) | Trouble::Refused(_)) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn log_in(State(console): State<Console>, request: Request) -> Response {
    let socket = console.surroundings.socket(request.extensions());
    let Form(fields) = match <Form as FromRequest<Console>>::from_request(request, &console).await {
        Ok(form) => form,
        Err(refused) => return refused.into_response(),
    };
    let mut login = LoginPage::new(&fields);
    let now = Instant::now();
    let by_link = !login.code.is_empty();
    let token = if login.code.is_empty() {
        Zeroizing::new(fields.get("token").to_owned())
    } else {
        let code = std::mem::take(&mut login.code);
        match console.sessions.follow(&code, now) {
            Some(token) => token,
            None => {
                let text = "This link was followed before, or is older than five minutes. `postrider open` prints another one.";
                login.problem = Some(text.to_owned());
                return shown(StatusCode::UNAUTHORIZED, &login);
            }
        }
    };
    let api = Api::new(console.api.clone(), token.clone(), None, socket);
    let entered = if by_link { look(&api).await } else { enter(&api, &console).await };
    if let Err(refused) = entered {
        let status = StatusCode::from_u16(refused.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        login.problem = Some(why_not(&refused));
        return shown(status, &login);
    }
    let id = console.sessions.begin(token, now);
    // Lax, so that a link in a mail finds its reader logged in. Forms have a proof of their own.
    let cookie = format!("{COOKIE}={}; Path=/; Secure; HttpOnly; SameSite=Lax", id.as_str());
    let next: String = url::form_urlencoded::byte_serialize(login.next.as_bytes()).collect();
    let mut response = Redirect::to(&format!("/login/kept?next={next}")).into_response();
    if let Ok(mut cookie) = HeaderValue::from_str(&cookie) {
        cookie.set_sensitive(true);
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

/// Whether the token may read.
async fn look(api: &Api) -> Result<(), Refused> {
    api.get::<IgnoredAny>("/v1/webhooks", &[("limit", "1")]).await.map(|_| ())
}

/// A link, as the API makes one.
#[derive(Deserialize)]
struct Link {
    path: String,
}

/// Whether the token may read, by having a link made for it: that is in the audit log, as every login is. Nobody else follows the link.
/// While the store cannot be written, people can still look.
async fn enter(api: &Api, console: &Console) -> Result<(), Refused> {
    match api.send::<Link>(Method::POST, "/v1/login-links", None).await {
        Ok(link) => {
            let code = link.path.split_once("code=").map_or("", |(_, code)| code);
            console.sessions.follow(code, Instant::now());
            Ok(())
        }
        Err(refused) if refused.status >= 500 => look(api).await,
        Err(refused) => Err(refused),
    }
}

/// What somebody is told whose token does not let them in: the same for every token that opens nothing.
fn why_not(refused: &Refused) -> String {
    match refused.code.as_str() {
        "unauthorized" => {
            "This is no key that opens anything: it is misspelt, has expired, or was revoked.".to_owned()
        }
        "forbidden" => {
            "This key may not read. The console needs the scope `read`, and more for changes.".to_owned()
        }
        _ => format!("{}. {}", refused.detail, refused.hint),
    }
}

/// Goes on if the browser kept the login, and says so if it did not.
async fn kept(visit: Option<Visit>, Query(fields): Query) -> Response {
    let mut login = LoginPage::new(&fields);
    if visit.is_some() {
        return Redirect::to(&login.next).into_response();
    }
    let text = "Your browser did not keep the login. It keeps one only over HTTPS, or from the same machine: open the console \
                at an https:// address, or through a tunnel at http://localhost.";
    login.problem = Some(text.to_owned());
    shown(StatusCode::BAD_REQUEST, &login)
}

async fn log_out(sent: Sent) -> Response {
    sent.visit.sessions().end(&sent.visit.id);
    let mut response = Redirect::to("/login").into_response();
    let gone = format!("{COOKIE}=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0");
    if let Ok(gone) = HeaderValue::from_str(&gone) {
        response.headers_mut().append(header::SET_COOKIE, gone);
    }
    response
}

/// Shows the things of another tenant, if the token may see them.
async fn choose_tenant(Sent { visit, fields }: Sent) -> Response {
    let tenant = fields.get("tenant").to_owned();
    let made = choose(&visit, tenant, path_of_ours(fields.get("next"))).await;
    visit.or_refused(crate::page::Part::Settings, made)
}

async fn choose(visit: &Visit, tenant: String, next: &str) -> Answer {
    if tenant.is_empty() {
        visit.sessions().choose_tenant(&visit.id, None);
        return Ok(visit.done(next, "The tenant of your login is shown."));
    }
    match visit.api.get::<IgnoredAny>("/v1/webhooks", &[("limit", "1"), ("tenant", &tenant)]).await {
        Ok(_) => {
            visit.sessions().choose_tenant(&visit.id, Some(tenant.clone()));
            Ok(visit.done(next, &format!("The tenant {tenant} is shown.")))
        }
        Err(refused) => visit.not_done(next, &refused),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_elsewhere() {
        for next in ["//evil.example", "https://evil.example", "/\\evil.example", "", "evil", "/\t/evil"] {
            assert_eq!(path_of_ours(next), "/", "{next}");
        }
        assert_eq!(path_of_ours("/deliveries?state=dead"), "/deliveries?state=dead");
    }
}
