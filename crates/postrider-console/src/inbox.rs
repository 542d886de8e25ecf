//! The test inbox, as far as the console asks for something. The client is given, so that the console links none.

use std::fmt::Debug;
use std::pin::Pin;

use http::Method;

/// What an inbox answers, once it has.
pub type Asking<'a> = Pin<Box<dyn Future<Output = Result<String, NoAnswer>> + Send + 'a>>;

/// A running inbox. Its address is a setting of whoever runs Postrider, and nobody else's choice.
pub trait Inbox: Debug + Send + Sync {
    /// The beginning of its URL, without a slash at the end.
    fn address(&self) -> &str;
    /// Asks it. The path begins with `/_inbox`; the answer is bounded in time and in bytes.
    fn ask(&self, method: Method, path: String, body: Option<String>) -> Asking<'_>;
}

/// Why an inbox did not do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// It cannot be reached, takes too long, or says too much: why, in a sentence without a full stop.
    Unreachable(String),
    /// It refused: what it says.
    Refused(String),
}
