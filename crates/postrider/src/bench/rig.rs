//! Everything that a bench runs: the roles, the sink, and who publishes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use postrider_producer::Producer;
use tokio::time::Instant;

use super::naked;
use super::patience::{Patience, reach};
use super::place::Place;
use super::plan::{Kind, Plan, Workload};
use super::publish::{Events, Load, Pace, Publisher};
use super::run::Run;
use super::sink::Sink;
use super::system::{Fleet, System};
use super::usage::{self, Cpu, Processes};
use super::{alone, behind, burst, produce, speed, steady};
use crate::exit::Failure;
use tokio_util::sync::CancellationToken;

/// How often is looked how far something is.
pub(super) const LOOK: Duration = Duration::from_millis(20);

/// Making so many webhooks is still being worked off when the last is made.
const MANY_WEBHOOKS: u32 = 1_000;
/// How long all processes together must have been quiet before something is measured.
const REST: Duration = Duration::from_secs(1);
/// The part of a core that they may use meanwhile.
const BUSY: f64 = 0.3;

/// Events that are routed.
pub(super) const ROUTED: &str = "postrider_events_total{fate=\"routed\"}";
/// Deliveries that are recorded as delivered.
pub(super) const DONE: &str = "postrider_recorded_total{kind=\"done\"}";

/// Everything that a bench runs. It ends with the value.
#[derive(Debug)]
pub(super) struct Rig<'a> {
    pub(super) plan: &'a Plan,
    pub(super) place: &'a Place,
    pub(super) system: System,
    pub(super) sink: Sink,
    pub(super) publisher: Publisher,
    pub(super) producer: Arc<Producer>,
    pub(super) client: reqwest::Client,
    pub(super) processes: Processes,
    /// The workloads that have their webhooks.
    prepared: BTreeSet<&'static str>,
    /// Why the broker's processor time is not known, where it is not.
    pub(super) broker_unseen: Option<String>,
}

impl<'a> Rig<'a> {
    /// Declares queues, and starts everything.
    pub(super) async fn start(plan: &'a Plan, place: &'a Place, fleet: Fleet) -> Result<Self, Failure> {
        place.apply().await?;
        let sink = Sink::start(plan.retry).await?;
        let mut system = System::at(place, fleet)?;
        for role in ["control", "router", "worker"] {
            system.begin(role)?;
        }
        for role in ["control", "router", "worker"] {
            system.ready(role).await?;
        }
        let mut processes = Processes::default();
        processes.add("publisher", [std::process::id()]);
        processes.add("sink", sink.pid());
        let broker = usage::broker(&place.parsed_url()?);
        processes.add("broker", broker.as_ref().ok().copied());
        for role in ["control", "router", "worker"] {
            processes.add(role, system.pids(role));
        }
        let (publisher, client) = (Publisher::connect(&place.url).await?, naked::client()?);
        let producer = produce::connect(place).await?;
        let (prepared, broker_unseen) = (BTreeSet::new(), broker.err());
        Ok(Self {
            plan,
            place,
            system,
            sink,
            publisher,
            producer,
            client,
            processes,
            prepared,
            broker_unseen,
        })
    }

    /// Waits until nothing works any more. A snapshot of a hundred thousand webhooks takes its time, and is no cost of a delivery.
    async fn at_rest(&self) -> Result<(), Failure> {
        let mut patience = Patience::with("seconds were quiet");
        loop {
            let before = self.processes.cpu();
            tokio::time::sleep(REST).await;
            if self.processes.cpu().sum_since(&before) < REST.as_secs_f64() * BUSY {
                return Ok(());
            }
            patience.at(0, Some(1))?;
        }
    }

    /// Gives a workload its turn.
    pub(super) async fn turn(&mut self, workload: &Workload) -> Result<Vec<Run>, Failure> {
        if self.prepared.insert(workload.name) {
            self.system.prepare(workload, self.plan.retry, &self.sink).await?;
            let (groups, fan_out) = workload.webhooks();
            if groups.saturating_mul(fan_out) > MANY_WEBHOOKS {
                self.at_rest().await?;
            }
            if workload.behind > 0 {
                behind::pile_up(self, workload).await?;
            }
        }
        match workload.kind {
            Kind::NakedLoop | Kind::NakedPost | Kind::Bare { .. } | Kind::Speed { .. } => {
                Ok(vec![speed::run(self, workload).await?])
            }
            Kind::Steady => Ok(vec![steady::run(self, workload).await?]),
            Kind::Burst => Ok(vec![burst::run(self, workload).await?]),
            Kind::Alone => alone::run(self, workload).await,
        }
    }

    /// Events of a workload on their way to the router.
    pub(super) fn load(&self, workload: &Workload, pace: Pace, most: u64, stop: &CancellationToken) -> Load {
        Load {
            events: Events::of(workload),
            exchange: self.place.names().events(),
            routing_key: None,
            pace,
            most,
            stop: stop.clone(),
        }
    }

    /// Deliveries recorded as delivered since control began.
    pub(super) async fn done(&mut self) -> Result<u64, Failure> {
        self.system.counters("control", &[DONE]).await
    }

    /// Waits until the sink has taken so many requests since its start.
    pub(super) async fn taken(&mut self, wanted: u64) -> Result<(), Failure> {
        let (sink, system) = (&mut self.sink, &mut self.system);
        reach("requests at the sink", wanted, LOOK, async || {
            system.check()?;
            Ok(sink.count().await?.taken)
        })
        .await
    }

    /// Waits until so many deliveries are recorded as delivered; for how long, seconds.
    pub(super) async fn recorded(&mut self, wanted: u64) -> Result<f64, Failure> {
        let (begun, system) = (Instant::now(), &mut self.system);
        reach("deliveries in the books", wanted, LOOK, async || system.counters("control", &[DONE]).await)
            .await?;
        Ok(begun.elapsed().as_secs_f64())
    }

    /// Begins to count what the processes use.
    pub(super) fn usage(&self) -> Usage {
        self.processes.forget_peaks();
        Usage(self.processes.cpu())
    }
}

/// What the processes had used at a time.
#[derive(Debug)]
pub(super) struct Usage(Cpu);

impl Usage {
    /// Writes down what they used since then for so many deliveries; without the roles, where these had no part in it.
    pub(super) fn into_run(self, rig: &Rig<'_>, deliveries: u64, naked: bool, run: &mut Run) {
        run.cpu_seconds_per_1000 = rig.processes.cpu().since(&self.0, deliveries);
        run.peak_mib = rig.processes.peaks_mib();
        if naked {
            for role in ["control", "router", "worker"] {
                run.cpu_seconds_per_1000.remove(role);
                run.peak_mib.remove(role);
            }
        }
    }
}
