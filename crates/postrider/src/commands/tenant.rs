//! `postrider tenant`.

use reqwest::Method;
use serde_json::json;

use super::{Context, each, list, show};
use crate::args::Tenant;
use crate::exit::{Exit, Failure};

/// Does what it says.
///
/// # Errors
/// [`Failure`] with what the API said.
pub async fn run(context: &Context, command: Tenant) -> Result<Exit, Failure> {
    match command {
        Tenant::Create { id } => {
            let body = json!({"id": id}).to_string();
            let what = format!("cannot make the tenant {id}");
            let answer = context.api()?.post(&what, &["tenants"], Some(body)).await?;
            context.out.one(&answer.raw, &answer.value)?;
            Ok(Exit::Ok)
        }
        Tenant::List(page) => {
            list(context, &["tenants"], &[], &page, &[("TENANT", "/id"), ("CREATED", "/created_at")]).await
        }
        Tenant::Get { id } => {
            show(context, &format!("cannot show the tenant {id}"), &["tenants", &id], &[]).await
        }
        Tenant::Delete { id } => {
            each(context, Method::DELETE, "cannot delete the tenant", &[id], |id| vec!["tenants", id])
                .await?;
            Ok(Exit::Ok)
        }
    }
}
