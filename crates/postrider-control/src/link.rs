//! The broker as the API and the books see it: there or not, and what it is asked.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use postrider_broker::topology::{Looked, Topology};
use postrider_broker::{BrokerError, Depth, Names, Outgoing, Session};
use postrider_core::Timestamp;
use postrider_core::wire::TopologyRecord;
use tokio::sync::watch;

/// The pause between questions that nobody waits for: many at once hold up what the broker has to do.
const BETWEEN: Duration = Duration::from_millis(20);
/// All pauses of one measurement together, at most.
const PAUSES: Duration = Duration::from_secs(3);

/// What is asked of the broker. A trait, so that tests of the API need none.
pub(crate) trait Broker: Send + Sync + 'static {
    /// The names on it.
    fn names(&self) -> &Names;

    /// Whether publishing would be taken now.
    fn is_flowing(&self) -> bool;

    /// Publishes and waits for the confirm.
    fn publish(&self, message: Outgoing) -> BoxFuture<'_, Result<(), BrokerError>>;

    /// How full a queue is.
    fn depth<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<Depth, BrokerError>>;

    /// The queues of a topology as they are now, in its order.
    fn look<'a>(&'a self, topology: &'a Topology) -> BoxFuture<'a, Result<Vec<Looked>, BrokerError>>;

    /// How full the queues of a topology are, in its order; nothing of one that is missing or may not be looked at. Arguments are not
    /// compared.
    fn depths<'a>(&'a self, topology: &'a Topology) -> BoxFuture<'a, Result<Vec<Option<u32>>, BrokerError>> {
        let look = self.look(topology);
        async move { Ok(look.await?.into_iter().map(|looked| Some(looked.depth?.ready)).collect()) }.boxed()
    }

    /// How the topology was applied, once that is known.
    fn topology(&self) -> Option<TopologyRecord>;

    /// How the session does.
    fn state(&self) -> LinkState;
}

/// How control's session with the broker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkState {
    /// There is one.
    pub connected: bool,
    /// The broker blocks it: it lacks memory or disk.
    pub blocked: bool,
    /// Since when there is one, or none.
    pub since: Timestamp,
}

/// The session of the moment.
#[derive(Debug)]
pub(crate) struct Link {
    names: Names,
    current: watch::Sender<Current>,
    topology: watch::Sender<Option<Known>>,
}

/// A session, or none, and since when.
#[derive(Debug)]
struct Current {
    session: Option<Arc<Session>>,
    since: Timestamp,
}

/// A topology with the revision that said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    revision: u64,
    topology: TopologyRecord,
}

impl Link {
    pub(crate) fn new(names: Names) -> Self {
        let none = Current { session: None, since: postrider_broker::now() };
        Self { names, current: watch::Sender::new(none), topology: watch::Sender::new(None) }
    }

    /// From now on over this session, or over none.
    pub(crate) fn over(&self, session: Option<Arc<Session>>) {
        self.current.send_modify(|current| {
            if session.is_some() || current.session.is_some() {
                current.since = postrider_broker::now();
            }
            current.session = session;
        });
    }

    /// Takes note of a topology record; the newest counts.
    pub(crate) fn learn(&self, revision: u64, topology: TopologyRecord) {
        self.topology.send_if_modified(|known| {
            let newer = known.is_none_or(|known| known.revision <= revision);
            if newer {
                *known = Some(Known { revision, topology });
            }
            newer
        });
    }

    /// The newest topology record with its revision.
    pub(crate) fn known_topology(&self) -> Option<(u64, TopologyRecord)> {
        self.topology.borrow().map(|known| (known.revision, known.topology))
    }

    fn session(&self) -> Option<Arc<Session>> {
        self.current.borrow().session.clone().filter(|session| !session.is_lost())
    }
}

impl Broker for Link {
    fn names(&self) -> &Names {
        &self.names
    }

    fn is_flowing(&self) -> bool {
        self.session().is_some_and(|session| session.publisher().is_flowing())
    }

    fn publish(&self, message: Outgoing) -> BoxFuture<'_, Result<(), BrokerError>> {
        let session = self.session();
        async move {
            // Only the publisher is kept over the wait: a session that ends must not live on in here.
            let publisher = session.ok_or(BrokerError::Lost)?.publisher();
            publisher.publish(message).await
        }
        .boxed()
    }

    fn depth<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<Depth, BrokerError>> {
        let session = self.session();
        async move { session.ok_or(BrokerError::Lost)?.depth(queue).await }.boxed()
    }

    fn look<'a>(&'a self, topology: &'a Topology) -> BoxFuture<'a, Result<Vec<Looked>, BrokerError>> {
        let session = self.session();
        async move {
            let session = session.ok_or(BrokerError::Lost)?;
            topology.look(&session).await
        }
        .boxed()
    }

    fn depths<'a>(&'a self, topology: &'a Topology) -> BoxFuture<'a, Result<Vec<Option<u32>>, BrokerError>> {
        let session = self.session();
        async move {
            let session = session.ok_or(BrokerError::Lost)?;
            let mut depths = Vec::with_capacity(topology.queues.len());
            let count = u32::try_from(topology.queues.len()).unwrap_or(u32::MAX).max(1);
            let pause = BETWEEN.min(PAUSES / count);
            for queue in &topology.queues {
                let depth = match session.depth(&queue.name).await {
                    Ok(depth) => Some(depth.ready),
                    Err(BrokerError::Missing { .. } | BrokerError::Denied { .. }) => None,
                    Err(error) => return Err(error),
                };
                depths.push(depth);
                tokio::time::sleep(pause).await;
            }
            Ok(depths)
        }
        .boxed()
    }

    fn topology(&self) -> Option<TopologyRecord> {
        self.known_topology().map(|(_, topology)| topology)
    }

    fn state(&self) -> LinkState {
        let session = self.session();
        LinkState {
            connected: session.is_some(),
            blocked: session.is_some_and(|session| session.publisher().is_blocked()),
            since: self.current.borrow().since,
        }
    }
}
