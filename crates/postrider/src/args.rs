//! The command line.

#![allow(clippy::doc_markdown, reason = "clap shows these comments as they are, in a terminal")]

mod access;
mod bench;
mod delivery;
mod listen;
mod replay;
mod selection;
mod stats;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use postrider_core::Timestamp;
use url::Url;

use crate::output::Format;

pub use access::{ApiKeyCreate, ApiKeys, Audit};
pub use bench::{Bench, BenchCommand};
pub use delivery::{Delivery, DeliveryCancel, DeliveryFilter};
pub use listen::Listen;
pub use replay::{Replay, ReplayRun, ReplayWhich};
pub use selection::Selection;
pub use stats::Stats;

/// The webhook engine behind your product's Webhooks page.
#[derive(Debug, Parser)]
#[command(
    name = "postrider",
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    after_help = "Exit codes: 0 ok, 1 other, 2 usage or not allowed, 3 not found, 4 refused as invalid, \
                  5 network or server, 6 conflict, 7 partly failed, 8 timed out waiting, 9 a role stood still, 130 interrupted.\n\
                  Settings: postrider config lists them all."
)]
pub struct Cli {
    /// Read settings from this TOML file; the environment (POSTRIDER_*) goes before it
    #[arg(long, global = true, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// How to print data [default: table in a terminal, json elsewhere]
    #[arg(short, long, global = true, value_name = "FORMAT")]
    pub output: Option<Format>,
    /// Print ids only
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// The API to talk to [default: POSTRIDER_API_URL]
    #[arg(long, global = true, value_name = "URL")]
    pub api: Option<Url>,
    /// Whose webhooks, events and deliveries [default: that of the API key, or default]
    #[arg(long, global = true, value_name = "TENANT")]
    pub tenant: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a role, or all of them in one process
    Serve {
        /// Which
        role: Role,
    },
    /// Show what Postrider does, with events of four products
    Demo(Demo),
    /// Tenants: the owners of webhooks and events
    #[command(subcommand)]
    Tenant(Tenant),
    /// Webhooks: who receives which events
    #[command(subcommand)]
    Webhook(Webhook),
    /// Events: send them, see what became of them
    #[command(subcommand)]
    Event(Event),
    /// Deliveries: one event for one webhook
    #[command(subcommand)]
    Delivery(Delivery),
    /// Dead letters: deliveries given up, messages that could not be read
    #[command(subcommand)]
    Dead(Dead),
    /// Replays: deliveries made again by filter, at a rate
    #[command(subcommand)]
    Replay(Replay),
    /// Catalogues: the event types of a product, what triggers them, how it speaks to receivers
    #[command(subcommand)]
    Catalogue(Catalogue),
    /// Event types: what webhooks can take
    #[command(subcommand)]
    EventType(EventType),
    /// Triggers: which events an action becomes
    #[command(subcommand)]
    Trigger(Trigger),
    /// Reminders: events that go out so many days before a date
    #[command(subcommand)]
    Reminder(Reminder),
    /// Settings of a tenant
    #[command(subcommand)]
    Settings(TenantSettings),
    /// API keys: who else may use the API, and for what
    #[command(subcommand)]
    ApiKeys(ApiKeys),
    /// List who changed what over the API, newest first; with --tenant, only of that tenant
    Audit(Audit),
    /// Print a link that logs in to the console, once
    Open(Open),
    /// Show what happened over time: events, attempts and how they ended, and how long they took
    Stats(Stats),
    /// Show the books: what was accepted, what became of it, and whether it adds up
    Status,
    /// Show what control was started with, what it stands on, and whether that is as it should be; exits with 6 if it is not
    System,
    /// Show the broker's queues, how full they are and whether they are as they should be; exits with 6 if one is not
    Queues {
        /// What about them.
        #[command(subcommand)]
        command: Option<Queues>,
    },
    /// Judge a run by ledgers and the store: nothing lost, invented, early, or unaccounted for
    Verify(Verify),
    /// Measure how fast it is on this machine and broker, beside what the same machine does without it
    Bench(Bench),
    /// The broker's queues and exchanges
    #[command(subcommand)]
    Topology(Topology),
    /// Forward real deliveries to a program on this machine, for as long as it runs: of every event type, unless some are named
    Listen(Box<Listen>),
    /// A receiver for trying things out: it shows what it gets and answers as told
    Inbox(Inbox),
    /// Show every setting, its value and where it came from
    Config,
    /// Ask the process on POSTRIDER_METRICS_LISTEN whether it is ready
    Healthcheck,
    /// Show the version
    Version,
    /// Print a script that completes this command in a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write the manual: a page for each command
    Man {
        /// Write postrider.1 and the others into this directory, which is made where it is missing
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
}

/// What to judge.
#[derive(Debug, Args)]
pub struct Verify {
    /// A publisher's ledger, as event send --ledger writes it; may be repeated
    #[arg(long, value_name = "FILE", required = true)]
    pub published: Vec<PathBuf>,
    /// A receiver's ledger, as inbox --ledger writes it; may be repeated
    #[arg(long, value_name = "FILE", required = true)]
    pub received: Vec<PathBuf>,
    /// The store, which may be in use: sqlite:PATH [default: POSTRIDER_STORE_URL]
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    /// Crashes and lost connections during the run: N of each role, or worker=N, router=N, control=N; may be repeated
    #[arg(long, value_name = "[ROLE=]N", value_parser = crashes)]
    pub crashes: Vec<Crashes>,
    /// Deliveries that a worker could have begun and not settled
    #[arg(long, value_name = "N", default_value_t = postrider_core::verify::Faults::NONE.in_flight)]
    pub in_flight: u64,
    /// Everything has ended: nothing may be pending but what is held for a paused webhook
    #[arg(long)]
    pub at_rest: bool,
    /// Somebody else published too: events that no ledger has are no invention
    #[arg(long)]
    pub other_publishers: bool,
    /// The receivers' ledgers are those of this webhook alone; may be repeated [default: of all]
    #[arg(long = "webhook", value_name = "ID")]
    pub webhooks: Vec<String>,
    /// How far the receivers' clocks may be behind those of the workers
    #[arg(long, value_name = "DURATION", default_value = "5ms", value_parser = duration)]
    pub clock: Duration,
    /// What chance was drawn from, to be shown
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

/// How often a role lost its process or its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crashes {
    /// Every role, so often.
    Each(u64),
    /// Workers, all together.
    Workers(u64),
    /// Routers, all together.
    Routers(u64),
    /// Control.
    Controls(u64),
}

/// What can be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Matches events to webhooks
    Router,
    /// Makes deliveries
    Worker,
    /// Serves the API, keeps the store and the books
    Control,
    /// All three, with topology and secrets made where they are missing
    All,
}

/// The demo.
#[derive(Debug, Args)]
pub struct Demo {
    /// Keep store, token, key and log here; what an earlier demo left there is removed
    /// [default: POSTRIDER_STATE_DIR, or target/demo]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Serve the API here, for as long as the demo runs
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub listen: std::net::SocketAddr,
}

/// Tenants.
#[derive(Debug, Subcommand)]
pub enum Tenant {
    /// Make a tenant
    Create {
        /// Its name: a-z, A-Z, 0-9, - and _
        id: String,
    },
    /// List tenants
    List(Page),
    /// Show a tenant
    Get {
        /// Its name
        id: String,
    },
    /// Delete a tenant
    Delete {
        /// Its name
        id: String,
    },
}

/// Which part of a list.
#[derive(Clone, Debug, Args)]
pub struct Page {
    /// At most this many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=200))]
    pub limit: Option<u32>,
    /// Go on where an earlier list ended
    #[arg(long, value_name = "CURSOR")]
    pub cursor: Option<String>,
    /// Every page, one after the other
    #[arg(long)]
    pub all: bool,
}

/// Webhooks.
#[derive(Debug, Subcommand)]
pub enum Webhook {
    /// Make a webhook; the answer shows its signing secret, this once
    Create(Box<WebhookCreate>),
    /// List webhooks, newest first
    List(WebhookList),
    /// Show a webhook, and which event types it takes today
    Get {
        /// Its id
        id: String,
    },
    /// Change a webhook: only what is given
    Update(Box<WebhookUpdate>),
    /// Delete webhooks
    Delete(Ids),
    /// Hold deliveries until the webhook is resumed
    Pause(Ids),
    /// Send what is held, and everything from now on
    Resume(Ids),
    /// Receive again after disable
    Enable(Ids),
    /// Skip deliveries; they can be replayed
    Disable(Ids),
    /// Send a signed sample, wait for the answer and show it
    Test(WebhookTest),
    /// Say why an event would, or would not, go to a webhook
    Explain {
        /// Its id
        id: String,
        /// The event as JSON, as upstream would send it (- reads standard input)
        #[arg(required_unless_present = "event", conflicts_with = "event")]
        file: Option<PathBuf>,
        /// The event of this id, which the books know
        #[arg(long, value_name = "ID")]
        event: Option<String>,
    },
    /// Make a new signing secret, or take the one given; the answer shows it
    RotateSecret(RotateSecret),
    /// Show the signing secret, where the profile allows it
    Secret {
        /// Its id
        id: String,
    },
}

/// Which webhooks.
#[derive(Debug, Args)]
pub struct WebhookList {
    /// In this state
    #[arg(long, value_parser = ["active", "paused", "disabled"])]
    pub state: Option<String>,
    /// That take events of this type: by name or alias, by group, by category or with everything
    #[arg(long, value_name = "TYPE")]
    pub event_type: Option<String>,
    /// Whose name has this in it, in upper or lower case
    #[arg(long, value_name = "TEXT")]
    pub name: Option<String>,
    /// Whose URL has this in it
    #[arg(long, value_name = "TEXT")]
    pub url: Option<String>,
    /// That speak this profile
    #[arg(long)]
    pub profile: Option<String>,
    /// That have failed since they last delivered something
    #[arg(long)]
    pub failing: bool,
    /// Made since then: 2h, or 2026-11-21T20:00:00Z
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub since: Option<String>,
    /// Made before then
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub until: Option<String>,
    /// Oldest first
    #[arg(long)]
    pub oldest_first: bool,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would take a doc comment here as help for every flag")]
    pub page: Page,
}

/// A try of a webhook.
#[derive(Debug, Args)]
pub struct WebhookTest {
    /// Its id
    pub id: String,
    /// With the example of this event type
    #[arg(long, value_name = "TYPE")]
    pub event_type: Option<String>,
    /// With this data: JSON, @file, or - for standard input
    #[arg(short, long, value_name = "JSON")]
    pub data: Option<String>,
    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "75s", value_parser = duration)]
    pub wait_timeout: Duration,
}

/// A new secret.
#[derive(Debug, Args)]
pub struct RotateSecret {
    /// The webhook's id
    pub id: String,
    /// Take the secret in this file (- reads standard input)
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// Write the new secret to this new file (mode 0600) and do not show it
    #[arg(long, value_name = "FILE")]
    pub secret_to: Option<PathBuf>,
    /// For this long the old secret signs too, such as 24h [default: as the profile has it]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub overlap: Option<Duration>,
}

/// One or more ids.
#[derive(Debug, Args)]
pub struct Ids {
    /// The ids
    #[arg(required = true, num_args = 1..=1000, value_name = "ID")]
    pub ids: Vec<String>,
}

/// A new webhook.
#[derive(Debug, Args)]
pub struct WebhookCreate {
    /// What people call it
    #[arg(long, required_unless_present = "from_file")]
    pub name: Option<String>,
    /// Where deliveries go
    #[arg(long, required_unless_present = "from_file")]
    pub url: Option<Url>,
    /// The whole webhook as JSON, as the API takes it (- reads standard input)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["name", "url"])]
    pub from_file: Option<PathBuf>,
    /// Sign with the secret in this file, whsec_… or whsk_… (- reads standard input)
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// Write the signing secret to this new file (mode 0600) and do not show it
    #[arg(long, value_name = "FILE")]
    pub secret_to: Option<PathBuf>,
    /// Make it disabled: deliveries are skipped until it is enabled
    #[arg(long)]
    pub disabled: bool,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would take a doc comment here as help for every flag")]
    pub fields: WebhookFields,
}

/// Changes of a webhook.
#[derive(Debug, Args)]
pub struct WebhookUpdate {
    /// Its id
    pub id: String,
    /// What people call it
    #[arg(long)]
    pub name: Option<String>,
    /// Where deliveries go
    #[arg(long)]
    pub url: Option<Url>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would take a doc comment here as help for every flag")]
    pub fields: WebhookFields,
}

/// What a webhook has beside name and URL.
#[derive(Debug, Default, Args)]
pub struct WebhookFields {
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would take a doc comment here as help for every flag")]
    pub selection: Selection,
    /// Take events of every type; Postrider's own events only where named beside it
    #[arg(long)]
    pub all: bool,
    /// Which version of the profile's payload
    #[arg(long, value_name = "VERSION")]
    pub payload_version: Option<String>,
    /// Do not sign
    #[arg(long)]
    pub unsigned: bool,
    /// Deliver nothing before this time, such as 2026-12-01T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = instant)]
    pub active_from: Option<String>,
    /// Deliver nothing from this time on
    #[arg(long, value_name = "TIME", value_parser = instant)]
    pub expires_at: Option<String>,
    /// Disable the webhook after so many deliveries given up in a row; 0 for never
    #[arg(long, value_name = "N")]
    pub disable_after_failures: Option<u32>,
    /// Disable the webhook after failing for so long without a success, such as 5d; 0s for never
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub disable_after: Option<Duration>,
    /// The whole deadline of a request, such as 15s
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Most requests in flight
    #[arg(long, value_name = "N")]
    pub max_in_flight: Option<u32>,
    /// Most requests a second
    #[arg(long, value_name = "N")]
    pub rate_per_second: Option<u32>,
    /// Most attempts
    #[arg(long, value_name = "N")]
    pub max_attempts: Option<u32>,
    /// The intervals between attempts, such as 1m,5m,10m
    #[arg(long, value_name = "DURATIONS", value_delimiter = ',', value_parser = duration)]
    pub schedule: Vec<Duration>,
    /// Send an API key in this header
    #[arg(long, value_name = "HEADER", requires = "api_key_file", conflicts_with = "api_key_query")]
    pub api_key_header: Option<String>,
    /// Send an API key in this query parameter
    #[arg(long, value_name = "PARAMETER", requires = "api_key_file")]
    pub api_key_query: Option<String>,
    /// Read the API key from this file (- reads standard input)
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// Static headers as a JSON object of texts
    #[arg(long, value_name = "FILE")]
    pub headers_file: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would take a doc comment here as help for every flag")]
    pub auth: WebhookAuth,
}

/// How a webhook authenticates towards its receiver.
#[derive(Debug, Default, Args)]
pub struct WebhookAuth {
    /// Authenticate with this user name and a password (HTTP basic)
    #[arg(long, value_name = "USER", requires = "auth_basic_password_file",
        conflicts_with_all = ["auth_bearer_file", "auth_oauth2_url"])]
    pub auth_basic: Option<String>,
    /// Read the password from this file (- reads standard input)
    #[arg(long, value_name = "FILE", requires = "auth_basic")]
    pub auth_basic_password_file: Option<PathBuf>,
    /// Authenticate with the bearer token in this file (- reads standard input)
    #[arg(long, value_name = "FILE", conflicts_with = "auth_oauth2_url")]
    pub auth_bearer_file: Option<PathBuf>,
    /// Authenticate with tokens from this OAuth 2.0 token endpoint (client credentials)
    #[arg(long, value_name = "URL", requires = "auth_oauth2_client", requires = "auth_oauth2_secret_file")]
    pub auth_oauth2_url: Option<Url>,
    /// The client's id
    #[arg(long, value_name = "ID", requires = "auth_oauth2_url")]
    pub auth_oauth2_client: Option<String>,
    /// Read the client's secret from this file (- reads standard input)
    #[arg(long, value_name = "FILE", requires = "auth_oauth2_url")]
    pub auth_oauth2_secret_file: Option<PathBuf>,
    /// Ask for these scopes, separated by spaces
    #[arg(long, value_name = "SCOPES", requires = "auth_oauth2_url")]
    pub auth_oauth2_scope: Option<String>,
    /// Ask for this audience
    #[arg(long, value_name = "AUDIENCE", requires = "auth_oauth2_url")]
    pub auth_oauth2_audience: Option<String>,
    /// Send the client's id and secret in the body of the token request
    #[arg(long, requires = "auth_oauth2_url")]
    pub auth_oauth2_in_body: bool,
    /// Show this client certificate (PEM) to the receiver
    #[arg(long, value_name = "FILE", requires = "auth_tls_key_file")]
    pub auth_tls_certificate_file: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "auth_tls_certificate_file")]
    pub auth_tls_key_file: Option<PathBuf>,
    /// Trust the authority with these certificates (PEM) in place of the public ones
    #[arg(long, value_name = "FILE")]
    pub auth_tls_ca_file: Option<PathBuf>,
}

/// Events.
#[derive(Debug, Subcommand)]
pub enum Event {
    /// Send one event, many of the same, or a file of them
    Send(Send),
    /// List events
    List {
        /// Of this event type
        #[arg(long = "type", value_name = "TYPE")]
        event_type: Option<String>,
        /// With this fate: routed, unmatched or invalid
        #[arg(long)]
        fate: Option<String>,
        /// Accepted since then: 2h, or 2026-11-21T20:00:00Z
        #[arg(long, value_name = "TIME", value_parser = moment)]
        since: Option<String>,
        #[command(flatten)]
        #[allow(missing_docs, reason = "clap would take a doc comment here as help for every flag")]
        page: Page,
    },
    /// Show an event and what became of it
    Get {
        /// Its id
        id: String,
    },
    /// Say, without sending anything, whether events and actions would be taken as they are
    Validate {
        /// Events and actions, one JSON object a line, or one alone (- reads standard input)
        file: PathBuf,
        #[command(flatten)]
        #[allow(missing_docs, reason = "clap would take a doc comment here as help for every flag")]
        against: Against,
    },
}

/// Against which catalogues something is held.
#[derive(Debug, Args)]
pub struct Against {
    /// The catalogue in this file; may be repeated [default: with --tenant that tenant's, else the built-in ones]
    #[arg(long = "catalogue", value_name = "FILE")]
    pub catalogues: Vec<PathBuf>,
}

/// What to send.
#[derive(Debug, Args)]
pub struct Send {
    /// The event type
    #[arg(required_unless_present_any = ["from_file", "action"], conflicts_with_all = ["from_file", "action"])]
    pub event_type: Option<String>,
    /// Report this action, from which triggers make events, in place of an event
    #[arg(long, value_name = "ACTION", conflicts_with = "from_file")]
    pub action: Option<String>,
    /// The event's data: JSON, @file, or - for standard input
    #[arg(short, long, value_name = "JSON", conflicts_with = "from_file")]
    pub data: Option<String>,
    /// The event's current_context: JSON, @file, or - for standard input
    #[arg(long, value_name = "JSON", conflicts_with = "from_file")]
    pub context: Option<String>,
    /// The event's id, by which it is recognised when it is sent again [default: a random one]
    #[arg(long, conflicts_with_all = ["from_file", "count"])]
    pub id: Option<String>,
    /// The subject of the event
    #[arg(long, conflicts_with = "from_file")]
    pub key: Option<String>,
    /// Send it this many times, each with an id of its own
    #[arg(long, value_name = "N", conflicts_with = "from_file", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub count: Option<u64>,
    /// At most this many a second, such as 200/s
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub rate: Option<f64>,
    /// Send the events and actions in this file, one JSON object a line (- reads standard input)
    #[arg(long, value_name = "FILE")]
    pub from_file: Option<PathBuf>,
    /// Wait until every delivery of these events has ended; of an action the books know only its events
    #[arg(long, conflicts_with = "action")]
    pub wait: bool,
    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub wait_timeout: Duration,
    /// Write what was accepted into this file, on disk before anything else happens: for postrider verify
    #[arg(long, value_name = "FILE")]
    pub ledger: Option<PathBuf>,
}

/// Catalogues.
#[derive(Debug, Subcommand)]
pub enum Catalogue {
    /// Show what a catalogue would change, and make it the tenant's catalogue of its product
    Import {
        #[command(flatten)]
        #[allow(missing_docs, reason = "clap would take a doc comment here as help for every flag")]
        which: OneCatalogue,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Show what would change, and change nothing
        #[arg(long, conflicts_with = "yes")]
        dry_run: bool,
    },
    /// Print a tenant's catalogue, as import takes it
    Export {
        /// The product
        product: String,
        /// As what
        #[arg(long = "format", value_name = "FORMAT", default_value = "toml")]
        text: CatalogueText,
    },
    /// Compare a catalogue with the tenant's of the same product; exits with 6 if they differ
    Diff(OneCatalogue),
    /// Say what is wrong with catalogues, and what looks wrong; exits with 4 if something is wrong
    Check {
        /// The catalogues, TOML or JSON (- reads standard input)
        #[arg(value_name = "FILE", required_unless_present = "builtin")]
        files: Vec<PathBuf>,
        /// The catalogue of this name that comes with the program
        #[arg(long, value_name = "NAME", value_parser = crate::builtin::NAMES)]
        builtin: Vec<String>,
    },
    /// List a tenant's catalogues
    List,
    /// Delete a catalogue that no webhook uses
    Delete {
        /// The product
        product: String,
    },
}

/// A catalogue.
#[derive(Debug, Args)]
pub struct OneCatalogue {
    /// The catalogue, TOML or JSON (- reads standard input)
    #[arg(required_unless_present = "builtin", conflicts_with = "builtin")]
    pub file: Option<PathBuf>,
    /// The catalogue of this name that comes with the program
    #[arg(long, value_name = "NAME", value_parser = crate::builtin::NAMES)]
    pub builtin: Option<String>,
}

/// How a catalogue is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CatalogueText {
    /// As the files under catalogues/ are
    Toml,
    /// As the API takes it
    Json,
}

/// Event types.
#[derive(Debug, Subcommand)]
pub enum EventType {
    /// List event types
    List {
        /// Of this category, by its id
        #[arg(long)]
        category: Option<String>,
        /// Of this group, by its id
        #[arg(long)]
        group: Option<String>,
        /// With these words in name, alias, label or description
        #[arg(long, value_name = "WORDS")]
        search: Option<String>,
        #[command(flatten)]
        #[allow(missing_docs, reason = "clap would take a doc comment here as help for every flag")]
        page: Page,
    },
    /// Show an event type, what triggers it, and an example
    Show {
        /// Its name or an alias
        name: String,
    },
}

/// Triggers.
#[derive(Debug, Subcommand)]
pub enum Trigger {
    /// Say, without sending anything, which events actions would become
    Test {
        /// Actions, one JSON object a line, or one alone (- reads standard input)
        file: PathBuf,
        #[command(flatten)]
        #[allow(missing_docs, reason = "clap would take a doc comment here as help for every flag")]
        against: Against,
    },
}

/// Reminders.
#[derive(Debug, Subcommand)]
pub enum Reminder {
    /// Make a reminder, or move the one of this key
    Put {
        /// What it is about, such as units-4711; there is one reminder for each key
        key: String,
        /// The event type, one that is scheduled
        #[arg(long, value_name = "TYPE")]
        event_type: String,
        /// The date; the event goes out so many days before it as the tenant has set
        #[arg(long, value_name = "YYYY-MM-DD")]
        date: String,
        /// The event's data: JSON, @file, or - for standard input
        #[arg(short, long, value_name = "JSON")]
        data: Option<String>,
        /// The event's current_context: JSON, @file, or - for standard input
        #[arg(long, value_name = "JSON")]
        context: Option<String>,
    },
    /// Show a reminder
    Get {
        /// Its key
        key: String,
    },
    /// List reminders
    List {
        /// In this state
        #[arg(long, value_parser = ["pending", "sent", "cancelled"])]
        state: Option<String>,
        /// Due before then, such as 2026-12-01T00:00:00Z
        #[arg(long, value_name = "TIME", value_parser = instant)]
        due_before: Option<String>,
        /// Of this event type
        #[arg(long = "type", value_name = "TYPE")]
        event_type: Option<String>,
        #[command(flatten)]
        #[allow(missing_docs, reason = "clap would take a doc comment here as help for every flag")]
        page: Page,
    },
    /// Cancel reminders
    Cancel {
        /// Their keys
        #[arg(required = true, num_args = 1..=1000, value_name = "KEY")]
        keys: Vec<String>,
    },
}

/// Settings of a tenant.
#[derive(Debug, Subcommand)]
pub enum TenantSettings {
    /// Show them
    Show,
    /// Change them: only what is given
    Set(SettingsSet),
}

/// Changes of a tenant's settings.
#[derive(Debug, Args)]
pub struct SettingsSet {
    /// Events of types that no catalogue has: accept or refuse
    #[arg(long, value_name = "WHAT", value_parser = ["accept", "refuse"])]
    pub unknown_types: Option<String>,
    /// Events whose data does not fit their type's schema: off, warn or refuse
    #[arg(long, value_name = "WHAT", value_parser = ["off", "warn", "refuse"])]
    pub schemas: Option<String>,
    /// Where the tenant's days begin, such as Europe/Berlin
    #[arg(long, value_name = "ZONE")]
    pub time_zone: Option<String>,
    /// When reminders go out, local time
    #[arg(long, value_name = "HH:MM")]
    pub send_at: Option<String>,
    /// So many days before its date a reminder goes out, such as PointsWillExpire=14, or PointsWillExpire=default; may
    /// be repeated
    #[arg(long, value_name = "TYPE=DAYS", value_parser = lead)]
    pub lead_days: Vec<(String, Option<u32>)>,
    /// The most active webhooks: a number, or none
    #[arg(long, value_name = "N", value_parser = number_or_none)]
    pub max_active_webhooks: Option<Limit>,
    /// Most requests in flight to all webhooks of the tenant: a number, or none
    #[arg(long, value_name = "N", value_parser = number_or_none)]
    pub max_in_flight: Option<Limit>,
    /// Most requests a second to all webhooks of the tenant: a number, or none
    #[arg(long, value_name = "N", value_parser = number_or_none)]
    pub rate_per_second: Option<Limit>,
}

/// A limit that may be lifted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(pub Option<u32>);

/// Dead letters.
#[derive(Debug, Subcommand)]
pub enum Dead {
    /// List dead letters
    List {
        /// Of this kind: dead, invalid or poison
        #[arg(long)]
        kind: Option<String>,
        /// Given up or refused for this reason
        #[arg(long)]
        reason: Option<String>,
        /// Only those that nobody has resolved and no later delivery has made good
        #[arg(long)]
        unresolved: bool,
        #[command(flatten)]
        #[allow(missing_docs, reason = "clap would take a doc comment here as help for every flag")]
        page: Page,
    },
    /// Show a dead letter
    Get {
        /// Its id
        id: String,
    },
    /// Mark dead letters as dealt with
    Resolve(Ids),
    /// Deliver dead letters again
    Redeliver(Ids),
}

/// The broker's queues.
#[derive(Debug, Subcommand)]
pub enum Queues {
    /// Show a queue: what it should be, how full it is and was, who writes to it and who reads it; exits with 6 if it is not as it should be
    Get {
        /// Its name
        name: String,
    },
}

/// The broker's queues and exchanges.
#[derive(Debug, Subcommand)]
pub enum Topology {
    /// Show what belongs there
    Show {
        /// With this many shards
        #[arg(long, value_name = "N", default_value = "2", value_parser = clap::value_parser!(u16).range(1..=64))]
        shards: u16,
    },
    /// Compare it with what the broker has; exits with 6 if they differ
    Diff(Shards),
    /// Declare what is missing
    Apply {
        /// Over how many shards
        #[command(flatten)]
        shards: Shards,
        /// Begin both streams anew, when RabbitMQ could not start them again after a power cut; restart control afterwards
        #[arg(long)]
        renew_streams: bool,
    },
}

/// How deliveries are spread.
#[derive(Clone, Copy, Debug, Args)]
pub struct Shards {
    /// Over how many shards deliveries are spread [default: as many as there are, or 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub shards: Option<u16>,
}

/// The built-in receiver.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Inbox {
    /// Listen here; requests go to /in/NAME
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8081")]
    pub listen: std::net::SocketAddr,
    /// Verify every request with the secret in this file (- reads standard input)
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// Verify as this profile signs, such as upmind or entrust [default: postrider]
    #[arg(long, value_name = "PROFILE", requires = "secret_file")]
    pub profile: Option<String>,
    /// Receive over TLS, and write the certificate of the authority made for it to this file: a webhook's tls.ca_pem
    #[arg(long, value_name = "FILE")]
    pub tls_ca_to: Option<PathBuf>,
    /// Write every request into this file, on disk before it is answered: for postrider verify
    #[arg(long, value_name = "FILE")]
    pub ledger: Option<PathBuf>,
    /// What to do with an inbox that runs.
    #[command(subcommand)]
    pub command: Option<InboxCommand>,
}

/// A link to the console.
#[derive(Debug, Args)]
pub struct Open {
    /// The page to come to, such as deliveries?state=dead [default: the overview]
    pub page: Option<String>,
}

/// What to do with an inbox that runs.
#[derive(Debug, Subcommand)]
pub enum InboxCommand {
    /// Say how it answers from now on
    Answer {
        /// The last part of the URL that it receives on
        name: String,
        /// A status, or hang
        answer: String,
        /// For this many requests
        #[arg(long, value_name = "N")]
        times: Option<u32>,
        /// For this long
        #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
        duration: Option<Duration>,
        /// Send Retry-After with it
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        retry_after: Option<Duration>,
        /// Where the inbox is [default: POSTRIDER_INBOX_URL]
        #[arg(long, value_name = "URL")]
        inbox: Option<Url>,
    },
    /// Give it the secret of one name, to verify what it gets
    Secret {
        /// The last part of the URL that it receives on
        name: String,
        /// The file with the secret (- reads standard input)
        #[arg(long, value_name = "FILE")]
        secret_file: PathBuf,
        /// The profile that signs, such as upmind or entrust [default: as before, at first postrider]
        #[arg(long, value_name = "PROFILE")]
        profile: Option<String>,
        /// Where the inbox is [default: POSTRIDER_INBOX_URL]
        #[arg(long, value_name = "URL")]
        inbox: Option<Url>,
    },
    /// List what it got
    List {
        /// The last part of the URL that it receives on
        name: String,
        /// Where the inbox is [default: POSTRIDER_INBOX_URL]
        #[arg(long, value_name = "URL")]
        inbox: Option<Url>,
    },
}

/// Reads `500ms`, `30s`, `5m`, `2h` or `3d`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 =
        digits.parse().map_err(|_| "write a number and a unit, such as 500ms, 30s or 5m".to_owned())?;
    let factor_ms = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err("the unit must be ms, s, m, h or d".to_owned()),
    };
    number.checked_mul(factor_ms).map(Duration::from_millis).ok_or_else(|| "it is too long".to_owned())
}

/// Reads `2`, `worker=2`, `router=2` or `control=2`.
fn crashes(text: &str) -> Result<Crashes, String> {
    let (role, number) = text.split_once('=').unwrap_or(("", text));
    let how: fn(u64) -> Crashes = match role {
        "" => Crashes::Each,
        "worker" => Crashes::Workers,
        "router" => Crashes::Routers,
        "control" => Crashes::Controls,
        _ => return Err("the role must be worker, router or control".to_owned()),
    };
    number.parse().map(how).map_err(|_| "write a number, or a role and a number such as worker=2".to_owned())
}

/// Reads a time, or how long ago it was, and returns RFC 3339.
fn moment(text: &str) -> Result<String, String> {
    if let Ok(ago) = duration(text) {
        let ago_ms = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
        let at_ms = postrider_broker::now().as_millis().saturating_sub(ago_ms);
        return Ok(Timestamp::from_millis(at_ms).to_rfc3339());
    }
    let at = Timestamp::parse_rfc3339(text).map(Timestamp::to_rfc3339);
    at.ok_or_else(|| "write how long ago, such as 2h, or a time such as 2026-11-21T20:00:00Z".to_owned())
}

/// Reads a time, or in how long it is, and returns RFC 3339.
fn later(text: &str) -> Result<String, String> {
    if let Ok(length) = duration(text) {
        let length_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        return Ok(postrider_broker::now().plus_ms(length_ms).to_rfc3339());
    }
    let at = Timestamp::parse_rfc3339(text).map(Timestamp::to_rfc3339);
    at.ok_or_else(|| "write in how long, such as 90d, or a time such as 2026-12-01T00:00:00Z".to_owned())
}

/// Reads a time and returns it as RFC 3339, UTC.
fn instant(text: &str) -> Result<String, String> {
    let at = Timestamp::parse_rfc3339(text).map(Timestamp::to_rfc3339);
    at.ok_or_else(|| "write a time such as 2026-12-01T00:00:00Z".to_owned())
}

/// Reads `PointsWillExpire=14` or `PointsWillExpire=default`. A name may hold `=` itself.
fn lead(text: &str) -> Result<(String, Option<u32>), String> {
    let (name, days) =
        text.rsplit_once('=').ok_or("write an event type, = and days, such as PointsWillExpire=14")?;
    if days == "default" {
        return Ok((name.to_owned(), None));
    }
    let days = days.parse().map_err(|_| "the days must be a whole number, or default".to_owned())?;
    Ok((name.to_owned(), Some(days)))
}

/// Reads a number or `none`.
fn number_or_none(text: &str) -> Result<Limit, String> {
    if text == "none" {
        return Ok(Limit(None));
    }
    text.parse().map(|number| Limit(Some(number))).map_err(|_| "write a whole number, or none".to_owned())
}

/// Reads `200/s`, `200` or `0.5/s`.
fn rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    match number.parse::<f64>() {
        Ok(rate) if rate.is_finite() && (0.01..=1_000_000.0).contains(&rate) => Ok(rate),
        _ => Err("write events a second, such as 200/s".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn help_tree(command: &mut clap::Command, path: &str, text: &mut String) {
        use std::fmt::Write as _;
        let path = format!("{path} {}", command.get_name()).trim().to_owned();
        writeln!(text, "$ {path} --help\n{}", command.render_help()).unwrap();
        for subcommand in command.get_subcommands_mut() {
            help_tree(subcommand, &path, text);
        }
    }

    #[test]
    fn the_help_is_as_documented() {
        let mut command = Cli::command().term_width(100);
        command.build();
        let mut text = String::new();
        help_tree(&mut command, "", &mut text);
        insta::assert_snapshot!(text);
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("3d"), Ok(Duration::from_secs(3 * 86_400)));
        for bad in ["", "5", "s", "5x", "-5s", "99999999999999999999s", "9999999999999999d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn crashes_are_of_a_role_or_of_each() {
        assert_eq!(crashes("2"), Ok(Crashes::Each(2)));
        assert_eq!(crashes("worker=3"), Ok(Crashes::Workers(3)));
        for bad in ["", "worker", "broker=1", "router=", "-1"] {
            assert!(crashes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_given_or_ago() {
        assert_eq!(moment("2026-11-21T21:00:00+01:00").as_deref(), Ok("2026-11-21T20:00:00Z"));
        let now = postrider_broker::now();
        let ago = Timestamp::parse_rfc3339(&moment("2h").unwrap()).unwrap();
        assert!((7_200_000..7_260_000).contains(&now.plus_ms(1).since_ms(ago)));
        assert!(moment("yesterday").is_err());
        assert_eq!(later("2026-11-21T21:00:00+01:00").as_deref(), Ok("2026-11-21T20:00:00Z"));
        let in_two_hours = Timestamp::parse_rfc3339(&later("2h").unwrap()).unwrap();
        assert!((7_140_000..=7_200_000).contains(&in_two_hours.since_ms(postrider_broker::now())));
        assert!(later("tomorrow").is_err());
    }

    #[test]
    fn lead_times_belong_to_a_type() {
        assert_eq!(lead("PointsWillExpire=14"), Ok(("PointsWillExpire".to_owned(), Some(14))));
        assert_eq!(lead("a=b=default"), Ok(("a=b".to_owned(), None)));
        assert!(lead("14").is_err() && lead("A=soon").is_err());
        assert_eq!(number_or_none("none"), Ok(Limit(None)));
        assert_eq!(number_or_none("20"), Ok(Limit(Some(20))));
        assert!(number_or_none("many").is_err());
    }

    #[test]
    fn rates_are_per_second() {
        assert_eq!(rate("200/s"), Ok(200.0));
        assert_eq!(rate("0.5"), Ok(0.5));
        for bad in ["0", "-1", "NaN", "fast", "1/m"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let refused = |line: &str| Cli::try_parse_from(line.split(' ')).is_err();
        assert!(refused("postrider event send"));
        assert!(refused("postrider event send A --from-file f"));
        assert!(refused("postrider event send A --count 2 --id x"));
        assert!(refused("postrider webhook create --name a"));
        assert!(refused("postrider delivery list --class gone"));
        assert!(!refused("postrider delivery list --class http_429 --status 4xx --attempts-from 3"));
        assert!(!refused("postrider delivery export --state dead --since 2h"));
        assert!(refused("postrider delivery export --limit 5"));
        assert!(!refused("postrider stats --webhook wh_1 --since 24h"));
        assert!(refused("postrider delivery cancel"));
        assert!(refused("postrider delivery cancel d1 --webhook wh_1"));
        assert!(refused("postrider delivery cancel d1 --yes"));
        assert!(refused("postrider delivery cancel --webhook wh_1 --yes --dry-run"));
        assert!(!refused("postrider delivery cancel --webhook wh_1 --state held --yes"));
        assert!(refused("postrider webhook create --name a --url http://a --auth-basic user"));
        assert!(refused("postrider webhook create --name a --url http://a --auth-tls-certificate-file f"));
        assert!(refused("postrider event send A --action b"));
        assert!(refused("postrider catalogue import"));
        assert!(refused("postrider catalogue import f --builtin open-loyalty"));
        assert!(refused("postrider catalogue import --builtin closed-loyalty"));
        assert!(refused("postrider settings set --schemas maybe"));
        assert!(refused("postrider webhook create --name a --url http://a --api-key-header X"));
        assert!(refused("postrider serve everything"));
        assert!(refused("postrider api-keys create --name ci"));
        assert!(refused("postrider api-keys create --name ci --scope write"));
        assert!(!refused("postrider api-keys create --name ci --scope events:write,read --expires 90d"));
        assert!(!refused("postrider audit --since 2h --actor key_1 --all"));
        assert!(!refused("postrider event send --from-file f --rate 5/s -o jsonl"));
        assert!(refused("postrider completions tcsh"));
        assert!(refused("postrider man"));
    }
}
