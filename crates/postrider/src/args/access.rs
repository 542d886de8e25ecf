//! The command line of API keys and of the audit log.

#![allow(clippy::doc_markdown, reason = "clap shows these comments as they are, in a terminal")]

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Ids, Page, later, moment};

/// API keys.
#[derive(Debug, Subcommand)]
pub enum ApiKeys {
    /// Make a key for the tenant; the answer shows it, this once
    Create(ApiKeyCreate),
    /// List keys, newest first: all of them, or with --tenant that tenant's
    List(Page),
    /// Show a key, but not the key itself
    Get {
        /// Its id
        id: String,
    },
    /// Show whose the token in use is, and what it is for
    Whoami,
    /// Revoke keys: at once, and for good
    Revoke(Ids),
}

/// A new key.
#[derive(Debug, Args)]
pub struct ApiKeyCreate {
    /// What people call it
    #[arg(long)]
    pub name: String,
    /// What it is for; may be repeated. admin includes the others, and is for every tenant
    #[arg(long = "scope", value_name = "SCOPE", required = true, value_delimiter = ',',
        value_parser = ["events:write", "read", "manage", "replay", "admin"])]
    pub scopes: Vec<String>,
    /// It opens nothing after this long, such as 90d, or from this time on [default: never]
    #[arg(long, value_name = "TIME", value_parser = later)]
    pub expires: Option<String>,
    /// Write the key to this new file (mode 0600) and do not show it
    #[arg(long, value_name = "FILE")]
    pub key_to: Option<PathBuf>,
}

/// Which changes.
#[derive(Debug, Args)]
pub struct Audit {
    /// Made by this operation of the API, such as update_webhook
    #[arg(long)]
    pub operation: Option<String>,
    /// To what has this id
    #[arg(long, value_name = "ID")]
    pub subject: Option<String>,
    /// By the API key of this id, or by "admin token"
    #[arg(long)]
    pub actor: Option<String>,
    /// Made since then: 2h, or 2026-11-21T20:00:00Z
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub since: Option<String>,
    /// Made before then
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub until: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would take a doc comment here as help for every flag")]
    pub page: Page,
}
