//! Tokens of OAuth 2.0: fetched for a webhook, kept until shortly before they end.
//!
//! One fetch at a time for each webhook: whoever needs the token meanwhile waits for that one, as long as its own deadline
//! lasts. A token server that fails is left alone for a moment. What is asked and what answers mean is in
//! [`postrider_core::auth`]; the address policy holds here too.

use std::sync::Arc;
use std::time::Duration;

use postrider_core::Webhook;
use postrider_core::auth::Token;
use postrider_core::outcome::Unreachable;
use postrider_core::webhook::Oauth2;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::http::{Deadline, Http, Sent};
use crate::kept::Kept;

/// The longest that a token server may take.
const LONGEST: Duration = Duration::from_secs(10);
/// How long a token server that failed is not asked again for the same webhook.
const PAUSE: Duration = Duration::from_secs(1);
/// Webhooks whose tokens are kept.
const MAX_KEPT: usize = 10_000;

/// The tokens of this worker.
#[derive(Debug)]
pub(crate) struct Tokens {
    http: Http,
    kept: Kept<Mutex<State>>,
}

/// What is known of one webhook's token.
#[derive(Debug, Default)]
struct State {
    token: Option<Arc<Held>>,
    /// Until when nobody asks again, and why the last one got nothing.
    failed: Option<(Instant, NoToken)>,
}

/// Why there is no token: what that is for the delivery, and a sentence without secrets.
type NoToken = (Unreachable, String);

/// A token that was fetched.
#[derive(Debug)]
pub(crate) struct Held {
    token: Token,
    renewed_at: Instant,
    ends_at: Instant,
}

impl Held {
    /// What `Authorization: Bearer` says.
    pub(crate) fn value(&self) -> &str {
        &self.token.value
    }
}

impl Tokens {
    /// Nothing is known yet.
    pub(crate) fn new(http: Http) -> Self {
        Self { http, kept: Kept::new(MAX_KEPT) }
    }

    /// A token for the webhook, within the deadline.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn token(
        &self,
        webhook: &Webhook,
        oauth2: &Oauth2,
        deadline: Deadline,
    ) -> Result<Arc<Held>, NoToken> {
        let kept = self.kept.of(webhook);
        let Ok(mut state) = tokio::time::timeout_at(deadline.end(), kept.lock()).await else {
            return Err((Unreachable::Token, format!("the token server: {}", deadline.missed())));
        };
        let begun = Instant::now();
        if let Some(token) = &state.token
            && begun < token.renewed_at
        {
            return Ok(token.clone());
        }
        let failure = match &state.failed {
            Some((until, why)) if begun < *until => why.clone(),
            _ => match self.fetch(oauth2, deadline.at_most(LONGEST)).await {
                Ok(token) => {
                    let held = Arc::new(Held {
                        renewed_at: begun + Duration::from_millis(token.renewed_after_ms()),
                        ends_at: begun + Duration::from_millis(token.lasts_ms),
                        token,
                    });
                    *state = State { token: Some(held.clone()), failed: None };
                    return Ok(held);
                }
                Err(why) => {
                    tracing::warn!(webhook.id = webhook.id.as_str(), why = why.1, "no token for the webhook");
                    state.failed = Some((Instant::now() + PAUSE, why.clone()));
                    why
                }
            },
        };
        // What was to be renewed early may still do.
        match &state.token {
            Some(token) if Instant::now() < token.ends_at => Ok(token.clone()),
            _ => Err(failure),
        }
    }

    /// The receiver refused this token: the next attempt fetches another.
    pub(crate) fn refused(&self, webhook: &Webhook, refused: &Arc<Held>) {
        let kept = self.kept.of(webhook);
        // Whoever has it locked fetches another already.
        let Ok(mut state) = kept.try_lock() else { return };
        if state.token.as_ref().is_some_and(|token| Arc::ptr_eq(token, refused)) {
            state.token = None;
        }
    }

    async fn fetch(&self, oauth2: &Oauth2, deadline: Deadline) -> Result<Token, NoToken> {
        let none = |why: String| (Unreachable::Token, why);
        // Checked when the webhook was saved; what the URL parser says may quote it.
        let url = oauth2.token_url.parse().map_err(|_| none("token_url is not a URL".to_owned()))?;
        match self.http.fetch(oauth2.request(url), deadline).await {
            Ok((status, body)) => oauth2.read_token(status, &body).map_err(|why| none(why.to_string())),
            Err(Sent::Blocked) => Err(none("the token server has a private or reserved address".to_owned())),
            Err(Sent::Unreachable(Unreachable::Local, why)) => Err((Unreachable::Local, why)),
            Err(Sent::Unreachable(_, why) | Sent::Stale(why)) => {
                Err(none(format!("the token server: {why}")))
            }
            Err(Sent::Answered(_)) => Err(none("the token server: no answer".to_owned())),
        }
    }
}
