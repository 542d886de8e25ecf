//! What exchanges and queues are for, and the way that messages take between them and the roles: for drawings and lists.

use std::collections::HashMap;
use std::fmt;

use crate::names::Lane;
use crate::topology::{Argument, DEAD_LETTERS_TO, Destination, Queue, Topology};

/// What an exchange or a queue is for. A closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Events of upstream services, for the router.
    Events,
    /// The exchange in front of the lanes.
    Deliveries,
    /// First attempts, for the workers.
    Fresh,
    /// Later attempts, for the workers.
    Retry,
    /// Redeliveries and replays, for the workers.
    Replay,
    /// A level of the ladder: retries that wait.
    Delay,
    /// The exchange in which ladder and parking end.
    DelayOut,
    /// The parking: what waits without spending an attempt.
    Park,
    /// Deliveries given up.
    Dead,
    /// Messages that are no event.
    Invalid,
    /// Messages that killed their consumers or lost their way.
    Poison,
    /// Facts.
    Journal,
    /// The stream of configuration.
    Config,
    /// The stream of accepted ids.
    Seen,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Events,
        Self::Deliveries,
        Self::Fresh,
        Self::Retry,
        Self::Replay,
        Self::Delay,
        Self::DelayOut,
        Self::Park,
        Self::Dead,
        Self::Invalid,
        Self::Poison,
        Self::Journal,
        Self::Config,
        Self::Seen,
    ];

    /// One word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Deliveries => "deliveries",
            Self::Fresh => "fresh",
            Self::Retry => "retry",
            Self::Replay => "replay",
            Self::Delay => "delay",
            Self::DelayOut => "delay_out",
            Self::Park => "park",
            Self::Dead => "dead",
            Self::Invalid => "invalid",
            Self::Poison => "poison",
            Self::Journal => "journal",
            Self::Config => "config",
            Self::Seen => "seen",
        }
    }
}

impl From<Lane> for Purpose {
    fn from(lane: Lane) -> Self {
        match lane {
            Lane::Fresh => Self::Fresh,
            Lane::Retry => Self::Retry,
            Lane::Replay => Self::Replay,
        }
    }
}

/// Where messages come from, pass, or go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Station {
    /// The services that publish events.
    Upstream,
    /// The router.
    Router,
    /// The worker.
    Worker,
    /// Control.
    Control,
    /// The receivers of webhooks.
    Receivers,
    /// The exchanges of this purpose.
    Exchange(Purpose),
    /// The queues of this purpose.
    Queue(Purpose),
}

impl fmt::Display for Station {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upstream => f.write_str("upstream"),
            Self::Router => f.write_str("router"),
            Self::Worker => f.write_str("worker"),
            Self::Control => f.write_str("control"),
            Self::Receivers => f.write_str("receivers"),
            Self::Exchange(purpose) => write!(f, "exchange:{}", purpose.as_str()),
            Self::Queue(purpose) => write!(f, "queue:{}", purpose.as_str()),
        }
    }
}

/// How messages get from one station to the next. A closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Who stands first publishes.
    Publishes,
    /// By a binding.
    Routes,
    /// What no binding takes.
    Unroutable,
    /// What has waited for its time.
    Expires,
    /// What was handed out too often.
    Poisons,
    /// Who stands second takes and acks.
    Consumed,
    /// Who stands second reads, and everything stays.
    Read,
    /// As an HTTP request.
    Requests,
}

impl Step {
    /// One word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publishes => "publishes",
            Self::Routes => "routes",
            Self::Unroutable => "unroutable",
            Self::Expires => "expires",
            Self::Poisons => "poisons",
            Self::Consumed => "consumed",
            Self::Read => "read",
            Self::Requests => "requests",
        }
    }
}

/// One step of the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Edge {
    /// Where it begins.
    pub from: Station,
    /// Where it ends.
    pub to: Station,
    /// How messages take it.
    pub step: Step,
}

/// Which exchanges each role publishes to.
const PUBLISHED: [(Station, &[Purpose]); 4] = [
    (Station::Upstream, &[Purpose::Events]),
    (
        Station::Router,
        &[
            Purpose::Deliveries,
            Purpose::Journal,
            Purpose::Seen,
            Purpose::Invalid,
            Purpose::Park,
            Purpose::Poison,
        ],
    ),
    (
        Station::Worker,
        &[
            Purpose::Deliveries,
            Purpose::Journal,
            Purpose::Delay,
            Purpose::Park,
            Purpose::Dead,
            Purpose::Poison,
        ],
    ),
    (Station::Control, &[Purpose::Events, Purpose::Deliveries, Purpose::Config, Purpose::Park]),
];

/// Which queues each role empties.
const CONSUMED: [(Station, &[Purpose]); 3] = [
    (Station::Router, &[Purpose::Events]),
    (Station::Worker, &[Purpose::Fresh, Purpose::Retry, Purpose::Replay]),
    (Station::Control, &[Purpose::Journal, Purpose::Dead, Purpose::Invalid, Purpose::Poison]),
];

/// Which streams each role reads.
const READ: [(Station, &[Purpose]); 3] = [
    (Station::Router, &[Purpose::Config, Purpose::Seen]),
    (Station::Worker, &[Purpose::Config]),
    (Station::Control, &[Purpose::Config]),
];

/// The way of messages over a topology, each step once. Which steps there are does not depend on the number of shards.
pub fn edges(topology: &Topology) -> Vec<Edge> {
    let mut edges = Vec::new();
    let mut add = |from, to, step| {
        let edge = Edge { from, to, step };
        if !edges.contains(&edge) {
            edges.push(edge);
        }
    };
    for (role, purposes) in PUBLISHED {
        purposes.iter().for_each(|purpose| add(role, Station::Exchange(*purpose), Step::Publishes));
    }
    let exchanges: HashMap<&str, Station> = topology
        .exchanges
        .iter()
        .map(|exchange| (exchange.name.as_str(), Station::Exchange(exchange.purpose)))
        .collect();
    let queues: HashMap<&str, Station> =
        topology.queues.iter().map(|queue| (queue.name.as_str(), Station::Queue(queue.purpose))).collect();
    for binding in &topology.bindings {
        let to = match &binding.to {
            Destination::Queue(name) => queues.get(name.as_str()),
            Destination::Exchange(name) => exchanges.get(name.as_str()),
        };
        if let (Some(from), Some(to)) = (exchanges.get(binding.from.as_str()), to) {
            add(*from, *to, Step::Routes);
        }
    }
    for exchange in &topology.exchanges {
        if let Some(to) = exchange.alternate.as_deref().and_then(|name| exchanges.get(name)) {
            add(Station::Exchange(exchange.purpose), *to, Step::Unroutable);
        }
    }
    for queue in &topology.queues {
        if let Some(to) = dead_letters_to(queue).and_then(|name| exchanges.get(name)) {
            let step = if queue.delay_ms().is_some() { Step::Expires } else { Step::Poisons };
            add(Station::Queue(queue.purpose), *to, step);
        }
    }
    for (steps, step) in [(&CONSUMED, Step::Consumed), (&READ, Step::Read)] {
        for (role, purposes) in steps {
            purposes.iter().for_each(|purpose| add(Station::Queue(*purpose), *role, step));
        }
    }
    add(Station::Worker, Station::Receivers, Step::Requests);
    edges
}

/// Who can bring messages to the queues of this purpose, by the bindings, the nearest first: roles, and queues that pass on what they
/// hold no longer. The exchanges between are passed over.
pub fn writers(edges: &[Edge], purpose: Purpose) -> Vec<Edge> {
    let to = Station::Queue(purpose);
    let mut found: Vec<Edge> = Vec::new();
    let mut passed = vec![(to, false)];
    let mut next = 0;
    while let Some((at, astray)) = passed.get(next).copied() {
        next += 1;
        for edge in edges.iter().filter(|edge| edge.to == at && !is_short_cut(edge)) {
            let astray = astray || edge.step == Step::Unroutable;
            if matches!(edge.from, Station::Exchange(_)) {
                if passed.iter().all(|(known, _)| *known != edge.from) {
                    passed.push((edge.from, astray));
                }
            } else if found.iter().all(|known| known.from != edge.from) {
                found.push(Edge {
                    from: edge.from,
                    to,
                    step: if astray { Step::Unroutable } else { edge.step },
                });
            }
        }
    }
    found
}

/// Who can get messages from the queues of this purpose, by the bindings: roles, and queues by way of exchanges.
pub fn readers(edges: &[Edge], purpose: Purpose) -> Vec<Edge> {
    let from = Station::Queue(purpose);
    let mut found: Vec<Edge> = Vec::new();
    let mut passed: Vec<(Station, Option<Step>)> = vec![(from, None)];
    let mut next = 0;
    while let Some((at, first)) = passed.get(next).copied() {
        next += 1;
        let goes_on = |edge: &&Edge| first.is_none() || (edge.step == Step::Routes && !is_short_cut(edge));
        for edge in edges.iter().filter(|edge| edge.from == at).filter(goes_on) {
            let step = first.unwrap_or(edge.step);
            if matches!(edge.to, Station::Exchange(_)) {
                if passed.iter().all(|(known, _)| *known != edge.to) {
                    passed.push((edge.to, Some(step)));
                }
            } else if found.iter().all(|known| known.to != edge.to) {
                found.push(Edge { from, to: edge.to, step });
            }
        }
    }
    found
}

/// A level of the ladder that a message has no need of: it ends where the queues of the ladder end, and nobody publishes for that.
fn is_short_cut(edge: &Edge) -> bool {
    matches!((edge.from, edge.to, edge.step), (Station::Exchange(_), Station::Exchange(_), Step::Routes))
}

fn dead_letters_to(queue: &Queue) -> Option<&str> {
    match queue.arguments.get(DEAD_LETTERS_TO) {
        Some(Argument::Text(exchange)) => Some(exchange),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Names;

    fn way(shards: u16) -> Vec<Edge> {
        edges(&Topology::new(&Names::new("postrider", 1000), shards))
    }

    #[test]
    fn the_way_is_as_drawn() {
        let lines: Vec<String> = way(2)
            .iter()
            .map(|edge| format!("{} -{}-> {}", edge.from, edge.step.as_str(), edge.to))
            .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn each_queue_has_who_writes_and_who_reads() {
        let way = way(1);
        let told = |edges: Vec<Edge>, end: fn(&Edge) -> Station| {
            let told = edges.iter().map(|edge| format!("{} {}", end(edge), edge.step.as_str()));
            told.collect::<Vec<_>>().join(", ")
        };
        let lines: Vec<String> = Purpose::ALL
            .into_iter()
            .filter(|purpose| way.iter().any(|edge| edge.from == Station::Queue(*purpose)))
            .map(|purpose| {
                let from = told(writers(&way, purpose), |edge| edge.from);
                let to = told(readers(&way, purpose), |edge| edge.to);
                format!("{from} -> {} -> {to}", purpose.as_str())
            })
            .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn shards_and_names_do_not_change_the_way() {
        assert_eq!(way(1), way(64));
        assert_eq!(way(1), edges(&Topology::new(&Names::new("other", 20), 3)));
    }

    #[test]
    fn nothing_ends_on_the_broker_and_nothing_begins_there() {
        let way = way(1);
        let topology = Topology::new(&Names::new("p", 1000), 1);
        let exchanges = topology.exchanges.iter().map(|exchange| Station::Exchange(exchange.purpose));
        let queues = topology.queues.iter().map(|queue| Station::Queue(queue.purpose));
        for station in exchanges.chain(queues) {
            assert!(way.iter().any(|edge| edge.from == station), "nobody takes from {station}");
            assert!(
                way.iter().any(|edge| edge.to == station && edge.from != station),
                "nothing goes to {station}"
            );
        }
    }

    #[test]
    fn every_purpose_is_in_the_topology_under_its_own_word() {
        let topology = Topology::new(&Names::new("p", 1000), 1);
        let words: std::collections::HashSet<&str> = Purpose::ALL.into_iter().map(Purpose::as_str).collect();
        assert_eq!(words.len(), Purpose::ALL.len());
        for purpose in Purpose::ALL {
            let exchange = topology.exchanges.iter().any(|exchange| exchange.purpose == purpose);
            let queue = topology.queues.iter().any(|queue| queue.purpose == purpose);
            assert!(exchange || queue, "{}", purpose.as_str());
        }
        // The word stands in the name, so that nobody has to learn two.
        for queue in &topology.queues {
            assert!(queue.name.split('.').any(|part| part == queue.purpose.as_str()), "{}", queue.name);
        }
    }

    #[test]
    fn what_waits_says_how_long() {
        let topology = Topology::new(&Names::new("p", 50), 1);
        let delay = |name: &str| topology.queues.iter().find(|queue| queue.name == name).unwrap().delay_ms();
        assert_eq!(delay("p.delay.50.l03"), Some(400));
        assert_eq!(delay("p.park.30"), Some(30_000));
        assert_eq!(delay("p.events"), None);
        let kind = |name: &str| topology.queues.iter().find(|queue| queue.name == name).unwrap().kind();
        assert_eq!((kind("p.events"), kind("p.seen")), ("quorum", "stream"));
    }
}
