//! What a receiver's answer means.
//!
//! An answer is an outcome, not an error: errors on the delivery path mean that the broker or the program failed.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// The longest that a `Retry-After` is obeyed: 24 hours (`reference/reliability.md` R-12).
pub const MAX_RETRY_AFTER_MS: u64 = 24 * 3600 * 1000;

/// What became of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A status of the success set.
    Delivered {
        /// The HTTP status.
        status: u16,
    },
    /// The receiver asks for less: 429 and 503, and any answer with a `Retry-After`.
    Busy {
        /// The HTTP status.
        status: u16,
        /// How long it asks us to wait, milliseconds, already clamped.
        retry_after_ms: Option<u64>,
    },
    /// The receiver failed: 5xx, 408, 425, statuses above 599. Retried on the whole schedule.
    Failed {
        /// The HTTP status.
        status: u16,
    },
    /// The receiver does not want it as it is: other 4xx. Retried on a short schedule, since owners fix their servers.
    Refused {
        /// The HTTP status.
        status: u16,
    },
    /// A redirect, which is not followed. Retried on a short schedule.
    Redirected {
        /// The HTTP status.
        status: u16,
    },
    /// 410: the receiver wants nothing more, ever.
    Gone,
    /// There was no answer.
    Unreachable(Unreachable),
    /// The address is not one that a delivery may reach; nothing was sent.
    Blocked,
}

/// Why there was no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// The name did not resolve.
    Dns,
    /// No connection.
    Connect,
    /// No trusted or no common TLS.
    Tls,
    /// The total deadline passed.
    Timeout,
    /// The connection ended before an answer.
    Reset,
    /// What came back is not HTTP, or is beyond the bounds.
    BadResponse,
    /// The token server gave no token, so the receiver was not asked.
    Token,
    /// The worker stopped while the request was under way; what became of it is not known.
    Unknown,
    /// The fault is ours: the request could not be made.
    Internal,
    /// The worker's machine had no file descriptor, port or memory left for a connection. Says nothing of the receiver,
    /// and no attempt is spent on it.
    Local,
}

/// Which statuses mean success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Success {
    /// 200 to 299 (Standard Webhooks).
    #[default]
    #[serde(rename = "2xx")]
    Any2xx,
    /// 200 and nothing else.
    #[serde(rename = "200")]
    Only200,
    /// Everything below 400.
    #[serde(rename = "below_400")]
    Below400,
}

/// Which failures are tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retried {
    /// All but 410; other 4xx and redirects on a short schedule.
    #[default]
    Default,
    /// All, each on the whole schedule.
    Everything,
    /// Answers from 500 on and nothing else: not 4xx, not a timeout, not a connection that fails.
    ServerErrors,
}

impl Outcome {
    /// What an answer with this status and these `Retry-After` headers means.
    ///
    /// Of several `Retry-After` headers the largest counts; one that cannot be read is ignored.
    pub fn classify<'a>(
        success: Success,
        status: u16,
        retry_after: impl IntoIterator<Item = &'a [u8]>,
        now: Timestamp,
    ) -> Self {
        let delivered = match success {
            Success::Any2xx => (200..300).contains(&status),
            Success::Only200 => status == 200,
            Success::Below400 => status < 400,
        };
        if delivered {
            return Self::Delivered { status };
        }
        let retry_after_ms = retry_after.into_iter().filter_map(|value| parse_retry_after(value, now)).max();
        match status {
            410 => Self::Gone,
            429 | 503 => Self::Busy { status, retry_after_ms },
            _ if retry_after_ms.is_some() => Self::Busy { status, retry_after_ms },
            300..400 => Self::Redirected { status },
            408 | 425 => Self::Failed { status },
            400..500 => Self::Refused { status },
            _ => Self::Failed { status },
        }
    }

    /// The HTTP status, when there was an answer.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Delivered { status }
            | Self::Busy { status, .. }
            | Self::Failed { status }
            | Self::Refused { status }
            | Self::Redirected { status } => Some(*status),
            Self::Gone => Some(410),
            Self::Unreachable(_) | Self::Blocked => None,
        }
    }

    /// One word from a closed list: metric label, log field, filter in the API.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Delivered { .. } => "none",
            Self::Busy { status: 429, .. } => "http_429",
            Self::Gone => "http_410",
            Self::Redirected { .. } => "http_3xx",
            Self::Refused { .. } => "http_4xx",
            Self::Busy { status, .. } | Self::Failed { status } => match status {
                200..300 => "http_2xx",
                300..400 => "http_3xx",
                400..500 => "http_4xx",
                _ => "http_5xx",
            },
            Self::Unreachable(why) => why.class(),
            Self::Blocked => "egress_blocked",
        }
    }

    /// What the owner of the receiver can do about it, in one sentence; empty on success.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Delivered { .. } => "",
            Self::Busy { .. } => {
                "The receiver asks for less; give it more capacity, or pause the webhook until it has some."
            }
            Self::Failed { .. } => "The receiver failed; its own log of this moment says why.",
            Self::Refused { status: 401 | 403 } => {
                "The receiver refuses the credentials; check the API key and the signature secret on both sides."
            }
            Self::Refused { status: 404 | 405 } => {
                "Nothing accepts POST at this URL; check the URL of the webhook."
            }
            Self::Refused { .. } => {
                "The receiver does not accept this body; compare it with what it expects."
            }
            Self::Redirected { .. } => {
                "Redirects are not followed; set the webhook's URL to where it points."
            }
            Self::Gone => {
                "The receiver answered 410: it wants no more deliveries; delete the webhook, or correct its URL."
            }
            Self::Unreachable(why) => why.hint(),
            Self::Blocked => {
                "The address is private or reserved; POSTRIDER_EGRESS_ALLOW opens ranges that deliveries may reach."
            }
        }
    }
}

impl Unreachable {
    /// One word from a closed list.
    pub fn class(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::BadResponse => "bad_response",
            Self::Token => "token",
            Self::Unknown => "unknown",
            Self::Internal => "internal",
            Self::Local => "local",
        }
    }

    /// Whether the receiver was never asked, so that it says nothing of its health: the fault is of the token server, of
    /// this machine, or of what we have of the webhook.
    pub fn is_not_receivers(self) -> bool {
        matches!(self, Self::Token | Self::Internal | Self::Local | Self::Unknown)
    }

    fn hint(self) -> &'static str {
        match self {
            Self::Dns => "The name does not resolve; check the host in the URL and its DNS records.",
            Self::Connect => {
                "Nothing accepts connections there; check the port, the firewall and that it runs."
            }
            Self::Tls => "The TLS handshake failed; check the certificate's name, dates and chain.",
            Self::Timeout => "No answer in time; answer 202 at once and work later, or raise timeout_ms.",
            Self::Reset => {
                "The connection ended before an answer; the receiver or a proxy before it closed it."
            }
            Self::BadResponse => "The answer is not HTTP, or its head is too large.",
            Self::Token => {
                "The token server gave no token; check the webhook's token_url, client id, client secret and scope."
            }
            Self::Unknown => "The worker stopped while the request was under way; it was sent again.",
            Self::Internal => "The request could not be made; the worker's log of this moment says why.",
            Self::Local => {
                "The worker's machine has no file descriptors, ports or memory left; raise its limits or start another worker."
            }
        }
    }
}

/// Every word that [`Outcome::class`] can answer.
pub const CLASSES: [&str; 18] = [
    "none",
    "dns",
    "connect",
    "tls",
    "timeout",
    "reset",
    "bad_response",
    "token",
    "unknown",
    "internal",
    "local",
    "egress_blocked",
    "http_2xx",
    "http_3xx",
    "http_4xx",
    "http_429",
    "http_410",
    "http_5xx",
];

fn parse_retry_after(value: &[u8], now: Timestamp) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?.trim();
    if text.is_empty() || text.len() > 64 {
        return None;
    }
    let wait_ms = if text.bytes().all(|b| b.is_ascii_digit()) {
        text.parse::<u64>().map_or(u64::MAX, |seconds| seconds.saturating_mul(1000))
    } else {
        let at = httpdate::parse_http_date(text).ok()?;
        let since_epoch = at.duration_since(std::time::UNIX_EPOCH).ok()?;
        let at = Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).ok()?);
        at.since_ms(now)
    };
    Some(wait_ms.min(MAX_RETRY_AFTER_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classify(status: u16, retry_after: &[&str]) -> Outcome {
        let now = Timestamp::parse_rfc3339("1994-11-06T08:49:00Z").unwrap();
        Outcome::classify(Success::Any2xx, status, retry_after.iter().map(|v| v.as_bytes()), now)
    }

    #[test]
    fn statuses_have_one_meaning_each() {
        use Outcome::*;
        for status in [200, 201, 202, 204, 206, 299] {
            assert_eq!(classify(status, &[]), Delivered { status });
        }
        for status in [300, 301, 304, 308] {
            assert_eq!(classify(status, &[]), Redirected { status });
        }
        for status in [400, 401, 403, 404, 405, 413, 415, 422, 499] {
            assert_eq!(classify(status, &[]), Refused { status });
        }
        for status in [408, 425, 500, 502, 504, 599, 600, 999] {
            assert_eq!(classify(status, &[]), Failed { status });
        }
        assert_eq!(classify(410, &[]), Gone);
        assert_eq!(classify(429, &[]), Busy { status: 429, retry_after_ms: None });
        assert_eq!(classify(503, &[]), Busy { status: 503, retry_after_ms: None });
        assert_eq!(
            Outcome::classify(Success::Only200, 204, [], Timestamp::default()),
            Failed { status: 204 }
        );
        for status in [200, 204, 301, 304, 399] {
            let outcome = Outcome::classify(Success::Below400, status, [], Timestamp::default());
            assert_eq!(outcome, Delivered { status });
        }
        for success in [Success::Any2xx, Success::Only200, Success::Below400] {
            assert_eq!(Outcome::classify(success, 200, [], Timestamp::default()), Delivered { status: 200 });
            let refused = Outcome::classify(success, 401, [], Timestamp::default());
            assert_eq!(refused, Refused { status: 401 });
            assert!(refused.hint().contains("credentials"));
        }
    }

    #[test]
    fn retry_after_is_read_clamped_or_ignored() {
        let wait = |values: &[&str]| match classify(503, values) {
            Outcome::Busy { retry_after_ms, .. } => retry_after_ms,
            other => panic!("{other:?}"),
        };
        assert_eq!(wait(&["120"]), Some(120_000));
        assert_eq!(wait(&["0"]), Some(0));
        assert_eq!(wait(&["99999999999999999999"]), Some(MAX_RETRY_AFTER_MS));
        assert_eq!(wait(&["Sun, 06 Nov 1994 08:49:37 GMT"]), Some(37_000));
        assert_eq!(wait(&["Tue, 06 Nov 1984 08:49:37 GMT"]), Some(0));
        assert_eq!(wait(&["2", "7"]), Some(7_000));
        for ignored in ["-5", "abc", "", "1.5", &"9".repeat(65)] {
            assert_eq!(wait(&[ignored]), None, "{ignored:?}");
        }
    }

    #[test]
    fn classes_are_a_closed_list() {
        for status in 100..1000 {
            assert!(CLASSES.contains(&classify(status, &["5"]).class()), "{status}");
            assert!(CLASSES.contains(&classify(status, &[]).class()), "{status}");
        }
    }
}
