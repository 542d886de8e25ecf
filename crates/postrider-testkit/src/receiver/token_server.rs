//! An OAuth 2.0 token server.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Answer, Receiver, Request};

/// Gives `token-1`, `token-2` and so on at `/token`, to whoever asks.
#[derive(Debug)]
pub struct TokenServer {
    receiver: Receiver,
    mood: Arc<Mutex<Mood>>,
}

#[derive(Clone, Debug)]
struct Mood {
    given: u32,
    expires_in: Option<u64>,
    delay: Duration,
    failure: Option<(u16, String)>,
}

impl TokenServer {
    /// A server whose tokens last an hour.
    pub async fn start() -> Self {
        let receiver = Receiver::start().await;
        let mood = Mood { given: 0, expires_in: Some(3600), delay: Duration::ZERO, failure: None };
        let mood = Arc::new(Mutex::new(mood));
        receiver.answer_by("/token", {
            let mood = mood.clone();
            move |_| answer(&mut mood.lock().unwrap_or_else(PoisonError::into_inner))
        });
        Self { receiver, mood }
    }

    /// The token endpoint.
    pub fn url(&self) -> String {
        self.receiver.url("/token")
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Arc<Request>> {
        self.receiver.requests()
    }

    /// From now on tokens last so many seconds, or do not say how long.
    pub fn expires_in(&self, seconds: Option<u64>) {
        self.change(|mood| mood.expires_in = seconds);
    }

    /// From now on an answer takes so long.
    pub fn takes(&self, delay: Duration) {
        self.change(|mood| mood.delay = delay);
    }

    /// From now on it answers this status and error code.
    pub fn fails(&self, status: u16, error: &str) {
        self.change(|mood| mood.failure = Some((status, error.to_owned())));
    }

    /// From now on it gives tokens again.
    pub fn recovers(&self) {
        self.change(|mood| mood.failure = None);
    }

    fn change(&self, change: impl FnOnce(&mut Mood)) {
        change(&mut self.mood.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

fn answer(mood: &mut Mood) -> Answer {
    let (status, body) = match &mood.failure {
        Some((status, error)) => (*status, serde_json::json!({ "error": error })),
        None => {
            mood.given += 1;
            let mut body = serde_json::json!({
                "access_token": format!("token-{}", mood.given),
                "token_type": "Bearer",
            });
            if let Some(seconds) = mood.expires_in {
                body["expires_in"] = seconds.into();
            }
            (200, body)
        }
    };
    let answer = Answer::Status(status).with_header("content-type", "application/json");
    answer.with_body(body.to_string()).after(mood.delay)
}
