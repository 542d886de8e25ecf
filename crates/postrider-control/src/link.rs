//! The broker as the API and the books see it: there or not, and what it is asked.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use postrider_broker::{BrokerError, Depth, Names, Outgoing, Session};
use postrider_core::Timestamp;
use postrider_core::wire::TopologyRecord;
use tokio::sync::watch;

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

    /// How the topology was applied, once that is known.
    fn topology(&self) -> Option<TopologyRecord>;

    /// Since when there is no session; nothing while there is one.
    fn lost_since(&self) -> Option<Timestamp>;
}

/// The session of the moment.
#[derive(Debug)]
pub(crate) struct Link {
    names: Names,
    session: watch::Sender<Option<Arc<Session>>>,
    topology: watch::Sender<Option<Known>>,
    /// Since when there is no session, once somebody has noticed.
    lost_since: Mutex<Option<Timestamp>>,
}

/// A topology with the revision that said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    revision: u64,
    topology: TopologyRecord,
}

impl Link {
    pub(crate) fn new(names: Names) -> Self {
        Self {
            names,
            session: watch::Sender::new(None),
            topology: watch::Sender::new(None),
            lost_since: Mutex::new(Some(postrider_broker::now())),
        }
    }

    /// From now on over this session, or over none.
    pub(crate) fn over(&self, session: Option<Arc<Session>>) {
        let mut lost_since = self.lost_since.lock().unwrap_or_else(PoisonError::into_inner);
        *lost_since =
            if session.is_some() { None } else { lost_since.or_else(|| Some(postrider_broker::now())) };
        self.session.send_replace(session);
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
        self.session.borrow().clone().filter(|session| !session.is_lost())
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

    fn topology(&self) -> Option<TopologyRecord> {
        self.known_topology().map(|(_, topology)| topology)
    }

    fn lost_since(&self) -> Option<Timestamp> {
        let mut lost_since = self.lost_since.lock().unwrap_or_else(PoisonError::into_inner);
        match self.session() {
            Some(_) => None,
            // A session that is lost and not yet put away is noticed here.
            None => Some(*lost_since.get_or_insert_with(postrider_broker::now)),
        }
    }
}
