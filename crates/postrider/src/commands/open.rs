//! `postrider open`: a link to the console.

use url::Url;

use super::Context;
use crate::api::{Answer, Api};
use crate::args::Open;
use crate::exit::{Exit, Failure};

const WHAT: &str = "cannot make a link to the console";

/// Prints a link that logs in to the console, once, as whoever asks for it.
///
/// # Errors
/// [`Failure`] with what the API said.
pub async fn run(context: &Context, open: Open) -> Result<Exit, Failure> {
    let (link, answer) = link(&context.api()?, open.page.as_deref()).await?;
    if !context.out.is_table() {
        context.out.text(answer.raw.trim_end())?;
        return Ok(Exit::Ok);
    }
    context.out.text(link.as_str())?;
    if let Some(until) = answer.value["expires_at"].as_str() {
        context.out.note(&format!("It logs in once, until {until}."));
    }
    Ok(Exit::Ok)
}

/// A link that logs in and comes to a page, with what the API answered.
///
/// # Errors
/// [`Failure`] with what the API said.
pub(crate) async fn link(api: &Api, page: Option<&str>) -> Result<(Url, Answer), Failure> {
    let answer = api.post(WHAT, &["login-links"], None).await?;
    let path = answer.value["path"].as_str();
    let link = path.and_then(|path| api.base().join(path).ok());
    let mut link =
        link.ok_or_else(|| Failure::new(Exit::Unavailable, WHAT, "the API did not answer with a link"))?;
    if let Some(page) = page {
        link.query_pairs_mut().append_pair("next", &format!("/{}", page.trim_start_matches('/')));
    }
    Ok((link, answer))
}
