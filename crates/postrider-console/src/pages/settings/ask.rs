//! Asking again before something is done that cannot be undone.

use askama::Template;
use http::StatusCode;

use crate::page::{Answer, Part, Shell, Visit, page_with};
use crate::words::Html;

/// What is asked.
pub(in crate::pages) struct Ask {
    /// The question, as the heading.
    pub(in crate::pages) heading: String,
    /// What it is about: names and values.
    pub(in crate::pages) facts: Vec<(&'static str, Html)>,
    /// What follows from it.
    pub(in crate::pages) follows: &'static str,
    /// Where the answer goes.
    pub(in crate::pages) action: String,
    /// What the button says.
    pub(in crate::pages) button: String,
    /// Where who changes their mind goes, and what that is called.
    pub(in crate::pages) back: (&'static str, &'static str),
    /// What must be typed; empty if nothing.
    pub(in crate::pages) typed: String,
    /// Why it was not done.
    pub(in crate::pages) problem: Option<String>,
}

#[derive(Template)]
#[template(path = "ask.html")]
struct AskPage {
    shell: Shell,
    ask: Ask,
}

/// The page that asks.
pub(in crate::pages) fn asks(visit: &Visit, ask: Ask) -> Answer {
    let mut shell = visit.shell(Part::Settings, ask.heading.clone());
    shell.live = false;
    let status = if ask.problem.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    page_with(status, &AskPage { shell, ask })
}
