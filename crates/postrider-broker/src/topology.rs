//! Exchanges, queues and bindings as a value (DESIGN §5.1), which `apply`, `diff` and `show` walk.
//!
//! Argument tables are the same on RabbitMQ 3.10 and 4: an argument is part of what a queue is, so a knob that operators
//! turn has no place here.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use lapin::options::{
    ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};
use postrider_core::Epoch;
use postrider_core::ladder;
use postrider_core::wire::{ConfigKind, ConfigRecord, TopologyRecord};
use tokio_util::sync::CancellationToken;

use crate::config_stream::{self, ConfigStream, Read};
use crate::error::BrokerError;
use crate::flow::Purpose;
use crate::metrics::Metrics;
use crate::names::{Lane, Names, PARK_RUNGS_SECS};
use crate::publish::within;
use crate::readiness::Readiness;
use crate::session::{Depth, Session, Settings};

/// How many shards a new installation has.
pub const DEFAULT_SHARDS: u16 = 2;
/// The most shards that can be asked for.
pub const MAX_SHARDS: u16 = 64;

const GIB: i64 = 1024 * 1024 * 1024;
/// How long a queue holds a message, milliseconds.
const TTL: &str = "x-message-ttl";
/// Where a queue sends what it holds no longer.
pub(crate) const DEAD_LETTERS_TO: &str = "x-dead-letter-exchange";

/// Everything that exists on the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Exchanges; all durable.
    pub exchanges: Vec<Exchange>,
    /// Queues and streams; all durable.
    pub queues: Vec<Queue>,
    /// Bindings.
    pub bindings: Vec<Binding>,
}

/// An exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub purpose: Purpose,
    /// How it routes.
    pub kind: Routing,
    /// Where a message goes that no binding takes.
    pub alternate: Option<String>,
}

/// How an exchange routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routing {
    /// By pattern.
    Topic,
    /// By exact key.
    Direct,
    /// To everything bound.
    Fanout,
}

/// A queue or a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub purpose: Purpose,
    /// Its arguments; they are part of what it is.
    pub arguments: BTreeMap<&'static str, Argument>,
}

/// The value of an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Argument {
    /// Text.
    Text(String),
    /// A whole number.
    Number(i64),
    /// A flag.
    Flag(bool),
}

/// A binding from an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The exchange.
    pub from: String,
    /// What is bound.
    pub to: Destination,
    /// The key or pattern.
    pub key: String,
}

/// What is bound to an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A queue.
    Queue(String),
    /// An exchange.
    Exchange(String),
}

/// How the broker differs from the topology.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// It does not exist.
    Missing(String),
    /// It exists with another argument.
    Other {
        /// Its name.
        name: String,
        /// Which argument.
        argument: String,
        /// What the broker says.
        detail: String,
    },
}

/// A queue as the broker has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looked {
    /// How full it is; nothing when it is missing or may not be looked at.
    pub depth: Option<Depth>,
    /// How it differs from what it should be.
    pub difference: Option<Difference>,
    /// Whether its arguments were compared, which takes the right to configure it.
    pub compared: bool,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(name) => write!(f, "missing  {name}"),
            Self::Other { name, argument, detail } => write!(f, "differs  {name}  {argument}: {detail}"),
        }
    }
}

impl Queue {
    /// `quorum`, `stream` or `classic`.
    pub fn kind(&self) -> &str {
        match self.arguments.get("x-queue-type") {
            Some(Argument::Text(kind)) => kind,
            _ => "classic",
        }
    }

    /// For how long it holds a message before the message goes on, milliseconds; nothing where it is not for waiting.
    pub fn delay_ms(&self) -> Option<u64> {
        match self.arguments.get(TTL) {
            Some(Argument::Number(ttl_ms)) => u64::try_from(*ttl_ms).ok(),
            _ => None,
        }
    }
}

impl Topology {
    /// The topology under these names with `shards` shards.
    pub fn new(names: &Names, shards: u16) -> Self {
        let mut topology = Self { exchanges: Vec::new(), queues: Vec::new(), bindings: Vec::new() };
        let poison = names.poison();
        // Targets come before what is dead-lettered into them.
        for (purpose, terminal) in [
            (Purpose::Poison, names.poison()),
            (Purpose::Dead, names.dead()),
            (Purpose::Invalid, names.invalid()),
        ] {
            topology.pair(purpose, terminal, quorum().with("x-delivery-limit", 1_000_000));
        }
        let journal = names.journal();
        let arguments = quorum()
            .with("x-delivery-limit", 1_000_000)
            .with("x-max-length-bytes", 8 * GIB)
            .with_text("x-overflow", "reject-publish");
        topology.pair(Purpose::Journal, journal.clone(), arguments);

        let events = names.events();
        topology.exchange(Purpose::Events, &events, Routing::Topic, None);
        let arguments = dead_lettered(quorum(), &poison)
            .with("x-delivery-limit", 1000)
            .with("x-max-length-bytes", 4 * GIB)
            .with_flag("x-single-active-consumer");
        topology.queue(Purpose::Events, &events, arguments);
        topology.bind_queue(&events, &events, "#");

        let (deliveries, out) = (names.deliveries(), names.delay_out());
        topology.exchange(Purpose::Deliveries, &deliveries, Routing::Direct, Some(&poison));
        topology.exchange(Purpose::DelayOut, &out, Routing::Topic, Some(&poison));
        topology.bind_queue(&out, &events, "#.events");
        topology.bind_queue(&out, &journal, "#.journal");
        for shard in 0..shards {
            for lane in Lane::ALL {
                let queue = names.delivery_queue(lane, shard);
                let key = Names::destination(lane, shard);
                let arguments = dead_lettered(quorum(), &poison).with("x-delivery-limit", 1000);
                topology.queue(lane.into(), &queue, arguments);
                topology.bind_queue(&deliveries, &queue, &key);
                topology.bind_queue(&out, &queue, &format!("#.{key}"));
            }
        }

        for level in 0..ladder::LEVELS {
            let name = names.ladder(level);
            let next = level.checked_sub(1).map_or(out.clone(), |lower| names.ladder(lower));
            topology.exchange(Purpose::Delay, &name, Routing::Topic, Some(&poison));
            let ttl_ms = i64::try_from(names.unit_ms() << level).unwrap_or(i64::MAX);
            let arguments = dead_lettered(quorum(), &next).with(TTL, ttl_ms);
            topology.queue(Purpose::Delay, &name, arguments);
            let above = "*.".repeat((ladder::LEVELS - 1 - level) as usize);
            topology.bind_queue(&name, &name, &format!("{above}1.#"));
            topology.bindings.push(Binding {
                from: name,
                to: Destination::Exchange(next),
                key: format!("{above}0.#"),
            });
        }

        let park = names.park();
        topology.exchange(Purpose::Park, &park, Routing::Topic, Some(&poison));
        for rung_secs in PARK_RUNGS_SECS {
            let queue = names.park_queue(rung_secs);
            let ttl_ms = i64::from(rung_secs) * 1000;
            topology.queue(Purpose::Park, &queue, dead_lettered(quorum(), &out).with(TTL, ttl_ms));
            topology.bind_queue(&park, &queue, &format!("{rung_secs}.#"));
        }

        let config = stream(512 * 1024 * 1024, 8_000_000);
        topology.pair(Purpose::Config, names.config(), config);
        let seen = stream(GIB, 50_000_000).with_text("x-max-age", "24h");
        topology.pair(Purpose::Seen, names.seen(), seen);
        topology
    }

    fn exchange(&mut self, purpose: Purpose, name: &str, kind: Routing, alternate: Option<&str>) {
        self.exchanges.push(Exchange {
            name: name.to_owned(),
            purpose,
            kind,
            alternate: alternate.map(str::to_owned),
        });
    }

    fn queue(&mut self, purpose: Purpose, name: &str, arguments: Arguments) {
        self.queues.push(Queue { name: name.to_owned(), purpose, arguments: arguments.0 });
    }

    fn bind_queue(&mut self, from: &str, queue: &str, key: &str) {
        let to = Destination::Queue(queue.to_owned());
        self.bindings.push(Binding { from: from.to_owned(), to, key: key.to_owned() });
    }

    /// A fanout exchange and a queue of one name, bound to each other.
    fn pair(&mut self, purpose: Purpose, name: String, arguments: Arguments) {
        self.exchange(purpose, &name, Routing::Fanout, None);
        self.queue(purpose, &name, arguments);
        self.bind_queue(&name, &name, "");
    }

    /// Declares whatever is missing. Doing it again changes nothing.
    ///
    /// # Errors
    /// [`BrokerError::Inequivalent`] when something exists with another argument; what came before it is declared.
    pub async fn apply(&self, session: &Session) -> Result<(), BrokerError> {
        let channel = session.declaring_channel().await?;
        for exchange in &self.exchanges {
            declare_exchange(&channel, exchange, false).await?;
        }
        for queue in &self.queues {
            declare_queue(&channel, queue, false).await?;
        }
        for binding in &self.bindings {
            let (from, key) = (short(&binding.from), short(&binding.key));
            let none = FieldTable::default();
            match &binding.to {
                Destination::Queue(name) => {
                    let bind = channel.queue_bind(short(name), from, key, QueueBindOptions::default(), none);
                    named(name, within("queue.bind", bind).await)?;
                }
                Destination::Exchange(name) => {
                    let bind =
                        channel.exchange_bind(short(name), from, key, ExchangeBindOptions::default(), none);
                    named(name, within("exchange.bind", bind).await)?;
                }
            }
        }
        Ok(())
    }

    /// Compares the broker with this topology, and changes nothing. Bindings cannot be read over AMQP: `apply` puts
    /// them back.
    ///
    /// # Errors
    /// [`BrokerError`] when the broker does not answer.
    pub async fn diff(&self, session: &Session) -> Result<Vec<Difference>, BrokerError> {
        let mut differences = Vec::new();
        let mut looker = Looker { session, channel: None };
        for exchange in &self.exchanges {
            differences.extend(looker.exchange(exchange).await?);
        }
        for queue in &self.queues {
            differences.extend(looker.queue(queue).await?.difference);
        }
        Ok(differences)
    }

    /// Looks at every queue of this topology, in its order, and changes nothing.
    ///
    /// # Errors
    /// [`BrokerError`] when the broker does not answer.
    pub async fn look(&self, session: &Session) -> Result<Vec<Looked>, BrokerError> {
        let mut looker = Looker { session, channel: None };
        let mut looked = Vec::with_capacity(self.queues.len());
        for queue in &self.queues {
            looked.push(looker.queue(queue).await?);
        }
        Ok(looked)
    }

    /// Deletes every queue and exchange of this topology, with what is in them. For demonstrations and tests.
    ///
    /// # Errors
    /// [`BrokerError`] when the broker does not answer.
    pub async fn delete(&self, session: &Session) -> Result<(), BrokerError> {
        let channel = session.declaring_channel().await?;
        for queue in &self.queues {
            let delete = channel.queue_delete(short(&queue.name), QueueDeleteOptions::default());
            named(&queue.name, within("queue.delete", delete).await)?;
        }
        for exchange in &self.exchanges {
            let delete = channel
                .exchange_delete(short(&exchange.name), lapin::options::ExchangeDeleteOptions::default());
            named(&exchange.name, within("exchange.delete", delete).await)?;
        }
        Ok(())
    }
}

/// Looks at what exists, over a channel that a refusal closes and the next look opens anew.
struct Looker<'a> {
    session: &'a Session,
    channel: Option<Channel>,
}

impl Looker<'_> {
    async fn channel(&mut self) -> Result<Channel, BrokerError> {
        match self.channel.take() {
            Some(channel) => Ok(channel),
            None => self.session.declaring_channel().await,
        }
    }

    async fn exchange(&mut self, exchange: &Exchange) -> Result<Option<Difference>, BrokerError> {
        let channel = self.channel().await?;
        let found = match declare_exchange(&channel, exchange, true).await {
            Ok(()) if self.session.may_declare() => declare_exchange(&channel, exchange, false).await,
            looked => looked,
        };
        self.judge(channel, &exchange.name, found)
    }

    async fn queue(&mut self, queue: &Queue) -> Result<Looked, BrokerError> {
        let channel = self.channel().await?;
        let looked = declare_queue(&channel, queue, true).await;
        let depth = looked.as_ref().ok().copied();
        // What is there can be compared by declaring it, which changes nothing of it.
        let compares = depth.is_some() && self.session.may_declare();
        let found = if compares { declare_queue(&channel, queue, false).await } else { looked };
        let compared = compares && !matches!(found, Err(BrokerError::Denied { .. }));
        let difference = self.judge(channel, &queue.name, found.map(drop))?;
        Ok(Looked { depth, difference, compared })
    }

    /// How what a declare found differs. A refusal has closed the channel.
    fn judge(
        &mut self,
        channel: Channel,
        name: &str,
        found: Result<(), BrokerError>,
    ) -> Result<Option<Difference>, BrokerError> {
        match found {
            Ok(()) => {
                self.channel = Some(channel);
                Ok(None)
            }
            Err(BrokerError::Missing { .. }) => Ok(Some(Difference::Missing(name.to_owned()))),
            Err(BrokerError::Inequivalent { name, argument, detail }) => {
                Ok(Some(Difference::Other { name, argument, detail }))
            }
            // A role with least rights may look and not declare: from now on it only looks, and takes what exists as it is.
            Err(BrokerError::Denied { .. }) => {
                self.session.only_look();
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for exchange in &self.exchanges {
            let kind = match exchange.kind {
                Routing::Topic => "topic",
                Routing::Direct => "direct",
                Routing::Fanout => "fanout",
            };
            write!(f, "exchange  {}  {kind}", exchange.name)?;
            match &exchange.alternate {
                Some(alternate) => writeln!(f, "  alternate-exchange={alternate}")?,
                None => writeln!(f)?,
            }
        }
        for queue in &self.queues {
            write!(f, "queue     {}", queue.name)?;
            for (name, value) in &queue.arguments {
                match value {
                    Argument::Text(text) => write!(f, "  {name}={text}")?,
                    Argument::Number(number) => write!(f, "  {name}={number}")?,
                    Argument::Flag(flag) => write!(f, "  {name}={flag}")?,
                }
            }
            writeln!(f)?;
        }
        for binding in &self.bindings {
            let (kind, name) = match &binding.to {
                Destination::Queue(name) => ("queue", name),
                Destination::Exchange(name) => ("exchange", name),
            };
            writeln!(f, "binding   {} -> {kind} {name}  {:?}", binding.from, binding.key)?;
        }
        Ok(())
    }
}

/// Whether a role may declare what is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Check, wait until somebody applied it, and say so.
    #[default]
    Check,
    /// Declare what is missing.
    Apply,
}

/// Applies the topology with `shards` shards (as many as there are, or [`DEFAULT_SHARDS`], when not given) and says so
/// on the config stream.
///
/// # Errors
/// [`BrokerError`]; in particular when something exists with another argument.
pub async fn apply(session: &Session, shards: Option<u16>) -> Result<TopologyRecord, BrokerError> {
    if shards.is_some_and(|shards| shards == 0 || shards > MAX_SHARDS) {
        return Err(BrokerError::Config(format!("the number of shards must be from 1 to {MAX_SHARDS}")));
    }
    let names = session.names();
    let existing = existing_shards(session).await?;
    let known = match existing {
        0 => None,
        _ => current(session).await?,
    };
    let shards = shards.or(known.map(|known| known.shards)).unwrap_or(DEFAULT_SHARDS.max(existing));
    let most_shards = shards.max(existing).max(known.map_or(0, |known| known.most_shards));
    Topology::new(names, most_shards).apply(session).await?;
    let record = TopologyRecord { shards, most_shards };
    if known != Some(record) {
        let revision = u64::try_from(crate::now().as_millis()).unwrap_or_default();
        let epoch = Epoch::from_trusted("");
        let record = ConfigRecord::of(&epoch, revision, ConfigKind::Topology, "topology", &record);
        config_stream::write(&session.publisher(), names, &record).await?;
    }
    Ok(record)
}

/// Deletes both streams with what is in them; [`apply`] declares them again.
///
/// For streams that RabbitMQ cannot start again after a power cut (docs/guarantees.md). What is lost is the memory of the
/// event ids accepted lately, and the configuration until control is started, which writes it again.
///
/// # Errors
/// [`BrokerError`] when the broker does not answer.
pub async fn delete_streams(session: &Session) -> Result<(), BrokerError> {
    let channel = session.declaring_channel().await?;
    for stream in [session.names().config(), session.names().seen()] {
        let delete = channel.queue_delete(short(&stream), QueueDeleteOptions::default());
        named(&stream, within("queue.delete", delete).await)?;
    }
    Ok(())
}

/// Waits until the topology is there, declaring it where `mode` allows. The part `topology` of `readiness` says what is
/// missing or different, and what to do.
pub async fn ensure(
    settings: &Settings,
    metrics: &Metrics,
    mode: Mode,
    readiness: &Readiness,
    shutdown: &CancellationToken,
) {
    let look = || async {
        let session = Session::open(settings, metrics).await?;
        readiness.set("broker", Ok(()));
        let state = match mode {
            Mode::Apply => apply(&session, None).await.map(|_| Vec::new()),
            Mode::Check => Topology::new(session.names(), 1).diff(&session).await,
        };
        session.close().await;
        state
    };
    while !shutdown.is_cancelled() {
        match look().await {
            Ok(differences) if differences.is_empty() => {
                readiness.set("topology", Ok(()));
                return;
            }
            Ok(differences) => {
                let first = &differences[0];
                let more = match differences.len() - 1 {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                let why = match first {
                    Difference::Missing(name) => {
                        format!("{name}{more} missing; run: postrider topology apply")
                    }
                    Difference::Other { name, argument, detail } => {
                        format!(
                            "{name}{more} exists with another {argument} ({detail}); drain and delete it, then run: postrider topology apply"
                        )
                    }
                };
                readiness.set("topology", Err(why));
            }
            Err(error @ BrokerError::Inequivalent { .. }) => {
                readiness.set("topology", Err(error.to_string()))
            }
            Err(error) => readiness.set("broker", Err(error.to_string())),
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            () = shutdown.cancelled() => {}
        }
    }
}

/// How many shards have queues: every number from 0 on that exists.
async fn existing_shards(session: &Session) -> Result<u16, BrokerError> {
    for shard in 0..MAX_SHARDS {
        match session.depth(&session.names().delivery_queue(Lane::Fresh, shard)).await {
            Ok(_) => {}
            Err(BrokerError::Missing { .. }) => return Ok(shard),
            Err(error) => return Err(error),
        }
    }
    Ok(MAX_SHARDS)
}

/// What the config stream says of the topology.
async fn current(session: &Session) -> Result<Option<TopologyRecord>, BrokerError> {
    let mut stream = match ConfigStream::open(session).await {
        Err(BrokerError::Missing { .. }) => return Ok(None),
        other => other?,
    };
    let mut directory = postrider_core::directory::Directory::new();
    loop {
        match stream.next().await.ok_or(BrokerError::Lost)? {
            Read::Record(record) if record.kind == ConfigKind::Topology => {
                directory.apply(&record);
            }
            Read::Record(_) | Read::Unreadable(_) | Read::Damaged(_) => {}
            Read::CaughtUp => return Ok(directory.topology()),
        }
    }
}

#[derive(Default)]
struct Arguments(BTreeMap<&'static str, Argument>);

impl Arguments {
    fn with(mut self, name: &'static str, value: i64) -> Self {
        self.0.insert(name, Argument::Number(value));
        self
    }

    fn with_text(mut self, name: &'static str, value: &str) -> Self {
        self.0.insert(name, Argument::Text(value.to_owned()));
        self
    }

    fn with_flag(mut self, name: &'static str) -> Self {
        self.0.insert(name, Argument::Flag(true));
        self
    }
}

fn quorum() -> Arguments {
    Arguments::default().with_text("x-queue-type", "quorum").with_text("x-queue-leader-locator", "balanced")
}

/// Dead-lettering that loses nothing: at least once needs `reject-publish` too, or it silently falls back.
fn dead_lettered(arguments: Arguments, exchange: &str) -> Arguments {
    arguments
        .with_text(DEAD_LETTERS_TO, exchange)
        .with_text("x-dead-letter-strategy", "at-least-once")
        .with_text("x-overflow", "reject-publish")
}

fn stream(max_bytes: i64, segment_bytes: i64) -> Arguments {
    Arguments::default()
        .with_text("x-queue-type", "stream")
        .with("x-max-length-bytes", max_bytes)
        .with("x-stream-max-segment-size-bytes", segment_bytes)
}

async fn declare_exchange(channel: &Channel, exchange: &Exchange, passive: bool) -> Result<(), BrokerError> {
    let kind = match exchange.kind {
        Routing::Topic => ExchangeKind::Topic,
        Routing::Direct => ExchangeKind::Direct,
        Routing::Fanout => ExchangeKind::Fanout,
    };
    let mut arguments = FieldTable::default();
    if let Some(alternate) = &exchange.alternate {
        arguments.insert(short("alternate-exchange"), AMQPValue::LongString(alternate.as_str().into()));
    }
    let options = ExchangeDeclareOptions { durable: true, passive, ..ExchangeDeclareOptions::default() };
    let declare = channel.exchange_declare(short(&exchange.name), kind, options, arguments);
    named(&exchange.name, within("exchange.declare", declare).await)
}

async fn declare_queue(channel: &Channel, queue: &Queue, passive: bool) -> Result<Depth, BrokerError> {
    let mut arguments = FieldTable::default();
    for (name, value) in &queue.arguments {
        let value = match value {
            Argument::Text(text) => AMQPValue::LongString(text.as_str().into()),
            Argument::Number(number) => AMQPValue::LongLongInt(*number),
            Argument::Flag(flag) => AMQPValue::Boolean(*flag),
        };
        arguments.insert(short(name), value);
    }
    let options = QueueDeclareOptions { durable: true, passive, ..QueueDeclareOptions::default() };
    let declare = channel.queue_declare(short(&queue.name), options, arguments);
    let declared = named(&queue.name, within("queue.declare", declare).await)?;
    Ok(Depth { ready: declared.message_count(), consumers: declared.consumer_count() })
}

/// Puts the name of the object where the error has only that of the method.
fn named<T>(name: &str, result: Result<T, BrokerError>) -> Result<T, BrokerError> {
    result.map_err(|error| match error {
        BrokerError::Missing { .. } => BrokerError::Missing { name: name.to_owned() },
        BrokerError::Inequivalent { argument, detail, .. } => {
            BrokerError::Inequivalent { name: name.to_owned(), argument, detail }
        }
        other => other,
    })
}

fn short(text: &str) -> ShortString {
    ShortString::from(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topology_is_what_the_docs_show() {
        insta::assert_snapshot!(Topology::new(&Names::new("postrider", 1000), 2).to_string());
    }

    #[test]
    fn every_dead_letter_and_alternate_target_exists() {
        let topology = Topology::new(&Names::new("p", 20), 3);
        let exists = |name: &str| topology.exchanges.iter().any(|exchange| exchange.name == name);
        for exchange in &topology.exchanges {
            assert!(exchange.alternate.as_deref().is_none_or(exists), "{}", exchange.name);
        }
        for queue in &topology.queues {
            if let Some(Argument::Text(target)) = queue.arguments.get("x-dead-letter-exchange") {
                assert!(exists(target), "{}", queue.name);
                let strategy = queue.arguments.get("x-dead-letter-strategy");
                assert_eq!(strategy, Some(&Argument::Text("at-least-once".into())));
                assert_eq!(queue.arguments.get("x-overflow"), Some(&Argument::Text("reject-publish".into())));
            }
        }
    }
}
