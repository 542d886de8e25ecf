//! The `postrider` command: it serves roles, operates them, and shows them at work.
//!
//! [`run`] is a table of contents: settings, then the command, then the exit code. The rest is one module for each
//! thing: the command line in [`args`], settings in [`settings`], the roles' process in [`serve`] and [`health`], the
//! API's client in [`api`] with one module for each resource in [`commands`], the built-in receiver in [`inbox`], what was
//! promised and received in [`ledger`], the [`demo`], measurements in [`mod@bench`]. Only [`output`] prints, and [`parity`]
//! says which command does which operation of the API.

pub mod api;
pub mod args;
pub mod bench;
pub mod builtin;
pub mod commands;
pub mod demo;
pub mod exit;
pub mod health;
pub mod inbox;
pub mod ledger;
pub mod output;
pub mod parity;
pub mod serve;
pub mod settings;
pub mod table;
pub mod telemetry;
pub mod watchdog;

use args::{Cli, Command};
use exit::{Exit, Failure};
use output::Output;
use settings::{Loaded, Settings};

/// Does what the command line says, and says so when it cannot.
pub fn run(cli: Cli) -> Exit {
    match attempt(cli) {
        Ok(exit) => exit,
        Err(failure) => {
            output::failure(&failure);
            failure.exit
        }
    }
}

fn attempt(cli: Cli) -> Result<Exit, Failure> {
    // One TLS provider for everything in the process. Somebody who embeds this crate may have installed it before.
    rustls::crypto::ring::default_provider().install_default().ok();
    let out = Output::new(cli.output, cli.quiet);
    let Loaded { settings, warnings } = Settings::load(cli.config.as_deref())?;
    for warning in &warnings {
        output::note(&format!("postrider: warning: {warning}"));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Other, "cannot start", error))?;
    let context = commands::Context { settings, api: cli.api, tenant: cli.tenant, out };
    let result = runtime.block_on(execute(&context, cli.command));
    // A role that did not stop in time must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    result
}

async fn execute(context: &commands::Context, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Serve { role } => serve::run(context, role).await,
        Command::Demo(demo) => demo::run(context, &demo).await,
        Command::Tenant(command) => commands::tenant::run(context, command).await,
        Command::Webhook(command) => commands::webhook::run(context, command).await,
        Command::Event(command) => commands::event::run(context, command).await,
        Command::Delivery(command) => commands::delivery::run(context, command).await,
        Command::Dead(command) => commands::dead::run(context, command).await,
        Command::Replay(command) => commands::replay::run(context, command).await,
        Command::Catalogue(command) => commands::catalogue::run(context, command).await,
        Command::EventType(command) => commands::event_type::run(context, command).await,
        Command::Trigger(command) => commands::trigger::run(context, command).await,
        Command::Reminder(command) => commands::reminder::run(context, command).await,
        Command::Settings(command) => commands::settings::run(context, command).await,
        Command::ApiKeys(command) => commands::api_keys::run(context, command).await,
        Command::Audit(audit) => commands::audit::run(context, audit).await,
        Command::Open(open) => commands::open::run(context, open).await,
        Command::Stats(asked) => commands::stats::run(context, asked).await,
        Command::Status => commands::status::run(context).await,
        Command::System => commands::system::run(context).await,
        Command::Queues { command } => commands::queues::run(context, command).await,
        Command::Verify(command) => commands::verify::run(context, command).await,
        Command::Bench(command) => bench::run(context, command).await,
        Command::Topology(command) => commands::topology::run(context, command).await,
        Command::Listen(listen) => commands::listen::run(context, *listen).await,
        Command::Inbox(inbox) => commands::inbox::run(context, inbox).await,
        Command::Config => commands::config::run(context),
        Command::Healthcheck => commands::healthcheck::run(context).await,
        Command::Version => commands::version(context),
        Command::Completions { shell } => commands::shell::completions(context, shell),
        Command::Man { dir } => commands::shell::man(context, &dir),
    }
}
