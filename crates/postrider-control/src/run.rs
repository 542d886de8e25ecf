//! Control as a whole: what it starts, and in which order it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use postrider_broker::{BrokerError, Readiness, Session, Settings, supervise};
use prometheus::Registry;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::{self, Api};
use crate::books::Bookkeeper;
use crate::config::{Config, Listen};
use crate::keys::Uses;
use crate::link::{Broker, Link};
use crate::metrics::Metrics;
use crate::publisher::OutboxPublisher;
use crate::queues::Queues;
use crate::recorder::{Activity, Recorder};
use crate::release;
use crate::reminders::Reminders;
use crate::replays;
use crate::stats;
use crate::store::{Store, StoreError};

/// Why control could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The socket of the API.
    #[error("the API cannot listen on {address}: {cause}; set POSTRIDER_LISTEN to a free address")]
    Listen {
        /// Where.
        address: String,
        /// What the system says.
        cause: std::io::Error,
    },
    /// The metrics.
    #[error("the metrics of control cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
    /// A part of control ended while it was still needed.
    #[error("a part of control stopped ({0}); its log says why, restarting it is safe")]
    Stopped(String),
}

/// Runs control until `shutdown`.
///
/// The API answers from the start, also while the broker cannot be reached: then it reads, and refuses events. The
/// parts of `readiness` are `store`, `api`, `broker` and `config` (a snapshot of the configuration was written).
///
/// # Errors
/// [`Error`] when control cannot start.
pub async fn run(
    config: Config,
    registry: &Registry,
    readiness: Readiness,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let metrics = Metrics::register(registry)?;
    let broker_metrics = postrider_broker::Metrics::register(registry, config.broker.role)?;
    for part in ["store", "api", "broker", "config"] {
        readiness.set(part, Err("starting".into()));
    }
    let broker_address = config.broker.address();
    let store = Arc::new(Store::open(&config.store_url, &config.master_key).await?);
    metrics.store_up(true);
    readiness.set("store", Ok(()));
    let listener = bind(config.listen).await?;

    let link = Arc::new(Link::new(config.broker.names()));
    let activity = Activity::new();
    let broker: Arc<dyn Broker> = link.clone();
    let books = Arc::new(Bookkeeper::new(store.clone(), broker.clone(), activity.clone(), metrics.clone()));
    let uses = Arc::new(Uses::default());
    let queues = Arc::new(Queues::new(broker.clone()));
    let api = Api {
        store: store.clone(),
        queues: queues.clone(),
        broker,
        books: books.clone(),
        metrics: metrics.clone(),
        key: config.master_key,
        token: config.admin_token,
        wrong_tokens: api::WrongTokens::default(),
        uses: uses.clone(),
        egress: config.egress,
        https_only: config.https_only,
        in_progress: api::InProgress::default(),
        bodies: api::Bodies::default(),
        exports: api::Exports::default(),
        logins: Arc::default(),
        inbox: config.inbox,
        settings: config.settings,
        broker_address,
        started_at: postrider_broker::now(),
    };
    let recorder = Arc::new(Recorder {
        store: store.clone(),
        metrics: metrics.clone(),
        readiness: readiness.clone(),
        activity: activity.clone(),
    });
    let publisher = OutboxPublisher {
        store: store.clone(),
        link: link.clone(),
        metrics: metrics.clone(),
        readiness: readiness.clone(),
        activity,
    };
    let work = Arc::new(Work { settings: config.broker, metrics: broker_metrics, link, recorder, publisher });
    readiness.set("api", Ok(()));

    let mut tasks = Tasks { set: JoinSet::new(), stop: shutdown.child_token() };
    // The sessions end after the API, so that what it answered for is sent.
    let (stop, answered) = (tasks.stop.clone(), CancellationToken::new());
    let api_ended = answered.clone().drop_guard();
    tasks.start("api", async move {
        api::serve(listener, api, stop).await;
        drop(api_ended);
    });
    let stop = answered;
    let told = readiness.clone();
    tasks.start("sessions", async move {
        let (readiness, stop) = (&readiness, &stop);
        supervise(readiness, stop, || {
            let (work, readiness, stop) = (work.clone(), readiness.clone(), stop.clone());
            async move { work.session(&readiness, &stop).await }
        })
        .await;
    });
    let stop = tasks.stop.clone();
    tasks.start("books", async move { books.run(&stop, &told).await });
    let (used, stop) = (store.clone(), tasks.stop.clone());
    tasks.start("api keys", async move { uses.run(&used, &stop).await });
    let (held, stop) = (store.clone(), tasks.stop.clone());
    tasks.start("release", async move { release::release(&held, &stop).await });
    let (chosen, stop) = (store.clone(), tasks.stop.clone());
    tasks.start("replays", async move {
        tokio::join!(replays::plan(&chosen, &stop), replays::send(&chosen, &stop));
    });
    let (old, stop) = (store.clone(), tasks.stop.clone());
    tasks.start("upkeep", async move { release::upkeep(&old, &stop).await });
    let (counted, stop) = (store.clone(), tasks.stop.clone());
    tasks.start("stats", async move { stats::roll_up(&counted, &stop).await });
    let stop = tasks.stop.clone();
    tasks.start("queues", async move { queues.measure(&stop).await });
    let clock = Arc::new(postrider_broker::now);
    let reminders = Reminders { store: store.clone(), metrics, clock, turn: 0.into() };
    let stop = tasks.stop.clone();
    tasks.start("reminders", async move { reminders.run(&stop).await });
    let ended = tasks.finish().await;
    store.close().await;
    ended
}

/// What control does side by side. All of it ends together.
struct Tasks {
    set: JoinSet<&'static str>,
    stop: CancellationToken,
}

impl Tasks {
    fn start(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.set.spawn(async move {
            task.await;
            name
        });
    }

    /// Waits until everything has ended. One that ends by itself ends the others: half a control is none.
    async fn finish(mut self) -> Result<(), Error> {
        let mut ended = Ok(());
        while let Some(task) = self.set.join_next().await {
            match task {
                Ok(_) if self.stop.is_cancelled() => {}
                Ok(name) => ended = Err(Error::Stopped(name.to_owned())),
                Err(error) => ended = Err(Error::Stopped(error.to_string())),
            }
            self.stop.cancel();
        }
        ended
    }
}

async fn bind(listen: Listen) -> Result<tokio::net::TcpListener, Error> {
    match listen {
        Listen::Bound(listener) => Ok(listener),
        Listen::Address(address) => {
            let failed = |cause| Error::Listen { address: SocketAddr::to_string(&address), cause };
            tokio::net::TcpListener::bind(address).await.map_err(failed)
        }
    }
}

/// How long what a session has begun may take once it is to end: a broker that takes no messages must not hold it up.
const LAST: Duration = Duration::from_secs(15);

/// What is done over a session.
struct Work {
    settings: Settings,
    metrics: postrider_broker::Metrics,
    link: Arc<Link>,
    recorder: Arc<Recorder>,
    publisher: OutboxPublisher,
}

impl Work {
    /// One session, from its opening to its end.
    async fn session(&self, readiness: &Readiness, shutdown: &CancellationToken) -> Result<(), BrokerError> {
        let session = tokio::select! {
            session = Session::open(&self.settings, &self.metrics) => Arc::new(session?),
            () = shutdown.cancelled() => return Ok(()),
        };
        self.link.over(Some(session.clone()));
        readiness.set("broker", Ok(()));
        session.report_flow(readiness);
        // Whoever ends first ends the others: they finish what they hold.
        let stop = shutdown.child_token();
        let recording = async {
            let ended = self.recorder.run(&session, &stop).await;
            stop.cancel();
            ended
        };
        let publishing = async {
            let ended = self.publisher.run(&session, &stop).await;
            stop.cancel();
            ended
        };
        let losing = async {
            tokio::select! {
                () = session.lost() => {
                    // From now on there is none, whatever is still being finished over it.
                    self.link.over(None);
                    stop.cancel();
                    Err(BrokerError::Lost)
                }
                () = stop.cancelled() => Ok(()),
            }
        };
        let all = async { tokio::join!(recording, publishing, losing) };
        let late = async {
            stop.cancelled().await;
            tokio::time::sleep(LAST).await;
        };
        let ended = tokio::select! {
            ended = all => Some(ended),
            () = late => None,
        };
        self.link.over(None);
        session.close().await;
        if shutdown.is_cancelled() {
            if ended.is_none() {
                tracing::warn!(
                    "RabbitMQ did not take everything in time; what is in the outbox is sent at the next start"
                );
            }
            return Ok(());
        }
        let Some((recorded, published, lost)) = ended else { return Err(BrokerError::Lost) };
        // The more telling of the errors: `Lost` is often only what the other one caused.
        let mut error = BrokerError::Lost;
        for ended in [lost, recorded, published] {
            if let Err(told) = ended
                && !matches!(told, BrokerError::Lost)
            {
                error = told;
            }
        }
        Err(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever runs control may run it on any thread.
    #[test]
    fn control_can_be_spawned() {
        fn spawnable<F: Future + Send>(
            _: impl Fn(Config, &'static Registry, Readiness, CancellationToken) -> F,
        ) {
        }
        spawnable(run);
    }
}
