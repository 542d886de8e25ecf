//! What a bench has to itself: names on the broker that nobody else uses, and a directory.

use std::collections::BTreeMap;
use std::path::Path;

use postrider_broker::flow::Purpose;
use postrider_broker::topology::{self as broker_topology, Argument, Queue, Topology};
use postrider_broker::{Names, Session};
use tempfile::TempDir;
use url::Url;

use crate::commands::{Context, topology};
use crate::exit::{Exit, Failure};
use crate::settings::{Secret, Settings};

/// Names and a directory of one bench.
#[derive(Debug)]
pub(super) struct Place {
    /// The broker's URL.
    pub(super) url: Secret,
    settings: Settings,
    shards: u16,
    dir: TempDir,
}

impl Place {
    /// New names and a new directory, which is removed with the value.
    pub(super) fn new(
        context: &Context,
        within: Option<&Path>,
        shards: Option<u16>,
    ) -> Result<Self, Failure> {
        let mut settings = context.settings.clone();
        let url = settings.amqp_url()?;
        settings.broker.prefix = format!("bench-{:08x}", rand::random::<u32>());
        let mut dir = tempfile::Builder::new();
        dir.prefix("postrider-bench-");
        let within = within.map_or_else(std::env::temp_dir, Path::to_path_buf);
        let dir = dir.tempdir_in(&within).map_err(|error| {
            Failure::new(Exit::Other, format!("cannot make a directory in {}", within.display()), error)
                .next("give --dir a directory that can be written")
        })?;
        Ok(Self { url, settings, shards: shards.unwrap_or(broker_topology::DEFAULT_SHARDS), dir })
    }

    /// Where files go.
    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What every name on the broker begins with.
    pub(super) fn prefix(&self) -> &str {
        &self.settings.broker.prefix
    }

    /// The settings that this bench uses.
    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How many shards there are.
    pub(super) fn shards(&self) -> u16 {
        self.shards
    }

    /// The names on the broker.
    pub(super) fn names(&self) -> Names {
        Names::new(self.prefix(), self.settings.broker.delay_unit_ms)
    }

    /// The queue of the naked loop.
    pub(super) fn naked_queue(&self) -> String {
        format!("{}.naked", self.prefix())
    }

    /// The queues of the two bare hops: of events, and of deliveries.
    pub(super) fn bare_queues(&self) -> [String; 2] {
        ["events", "deliveries"].map(|hop| format!("{}.bare.{hop}", self.prefix()))
    }

    /// Where the broker is, without the password.
    pub(super) fn address(&self) -> Result<String, Failure> {
        Ok(self.settings.broker_as("bench")?.address())
    }

    /// The broker's URL, to look at.
    pub(super) fn parsed_url(&self) -> Result<Url, Failure> {
        Url::parse(self.url.reveal()).map_err(|error| Failure::usage("cannot read the broker's URL", error))
    }

    /// Declares everything.
    pub(super) async fn apply(&self) -> Result<(), Failure> {
        let settings = self.settings.broker_as("bench")?;
        topology::apply(&settings, Some(self.shards)).await?;
        let session = topology::open(&settings).await?;
        let quorum = BTreeMap::from([("x-queue-type", Argument::Text("quorum".to_owned()))]);
        let queues = self.baselines(&quorum);
        let baselines = Topology { exchanges: Vec::new(), queues, bindings: Vec::new() };
        let applied = baselines.apply(&session).await;
        session.close().await;
        applied.map_err(|error| topology::broker("cannot declare the queues of the baselines", &error))
    }

    /// Deletes everything.
    pub(super) async fn clear(&self) -> Result<(), Failure> {
        let left = |failure: Failure| {
            failure.next(format!("delete what is called {}.* on the broker by hand", self.prefix()))
        };
        let session = topology::open(&self.settings.broker_as("bench")?).await.map_err(left)?;
        let deleted = self.everything(&session).delete(&session).await;
        session.close().await;
        deleted.map_err(|error| left(topology::broker("cannot delete the bench's queues", &error)))
    }

    /// They stand where the lanes do.
    fn baselines(&self, arguments: &BTreeMap<&'static str, Argument>) -> Vec<Queue> {
        let names = [self.naked_queue()].into_iter().chain(self.bare_queues());
        names.map(|name| Queue { name, purpose: Purpose::Fresh, arguments: arguments.clone() }).collect()
    }

    fn everything(&self, session: &Session) -> Topology {
        let mut everything = Topology::new(session.names(), self.shards);
        everything.queues.extend(self.baselines(&BTreeMap::new()));
        everything
    }
}
