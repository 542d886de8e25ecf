//! `postrider demo`: all roles in this process, four products side by side, a receiver that fails and one that breaks.
//!
//! Each run has names of its own on the broker (`demo-` and eight random digits) and a new store, so that it can run
//! beside anything else and again and again; what it made on the broker is deleted at its end, or by the next run if it
//! was killed. Every ✓ was checked: the demo fails when one of them does not come true.

mod catalogues;
mod products;
mod stage;
mod story;

use std::io::IsTerminal as _;

use tokio_util::sync::CancellationToken;
use url::Url;

use crate::api::Api;
use crate::args::{Demo, Role};
use crate::commands::Context;
use crate::exit::{Exit, Failure};
use crate::health::{self, Health};
use crate::output;
use crate::serve::{Fleet, Plan, Signals};
use stage::{Receiver, Stage, address, clear_broker};
use story::Story;

/// Shows Postrider at work. Without a terminal it ends by itself; in one it goes on until Ctrl-C.
///
/// # Errors
/// [`Failure`] with the first thing that did not come true.
pub async fn run(context: &Context, demo: &Demo) -> Result<Exit, Failure> {
    let mut signals = Signals::listen()?;
    let Stage { settings, api, health, lock: _lock } = Stage::set(context, demo).await?;
    let (api_address, health_address) = (address(&api)?, address(&health)?);
    let receiver = Receiver::start().await?;
    let (mut plan, _) = Plan::of(&settings, Role::All)?;
    plan.listen_on(api);
    let registry = health::registry()?;
    let mut fleet = Fleet::start(plan, registry.clone());
    let readiness = fleet.readiness.clone();
    let shown = Health { roles: readiness.clone(), registry, stopping: fleet.stopping.clone() };
    let stop_health = CancellationToken::new();
    tokio::spawn(health::serve(health, shown, stop_health.clone()));

    let base: Url = format!("http://{api_address}")
        .parse()
        .map_err(|error: url::ParseError| Failure::new(Exit::Other, "cannot name the API", error))?;
    let story = Story {
        out: context.out,
        api: Api::from_settings(&settings, Some(base.clone()))?,
        settings: &settings,
        receiver: &receiver,
        readiness,
        health: health_address,
    };
    let told = tokio::select! {
        told = story.tell() => told.map(|()| Exit::Ok),
        () = signals.next() => Ok(Exit::Interrupted),
        failure = fleet.failed() => Err(failure),
    };
    let told = match told {
        Ok(Exit::Ok) if std::io::stdin().is_terminal() => {
            story.invite(&base).await?;
            tokio::select! {
                () = signals.next() => Ok(Exit::Ok),
                failure = fleet.failed() => Err(failure),
            }
        }
        other => other,
    };
    let told = told.map_err(|failure| match &failure.next {
        Some(_) => failure,
        None => failure.next(format!("read {}", settings.state_dir.path().join("demo.log").display())),
    });
    let cleared = async {
        let stopped = fleet.stop().await;
        receiver.stop.cancel();
        stop_health.cancel();
        let cleared = clear_broker(&settings).await;
        stopped.and(cleared)
    };
    let cleared = tokio::select! {
        cleared = cleared => cleared,
        () = signals.next() => {
            output::note("postrider: second signal: the next demo with this state directory deletes this one's queues");
            std::process::exit(Exit::Interrupted as i32);
        }
    };
    told.and_then(|exit| cleared.map(|()| exit))
}
