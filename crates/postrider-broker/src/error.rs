//! What can go wrong between us and the broker.

/// Trouble with the broker. A session that met one is over; its supervisor opens another.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BrokerError {
    /// No connection could be made.
    #[error(
        "RabbitMQ at {address} cannot be reached: {cause}; check POSTRIDER_AMQP_URL and that the broker runs"
    )]
    Connect {
        /// Host and port; never the password.
        address: String,
        /// What the attempt said.
        cause: String,
    },
    /// The address of the broker cannot be read.
    #[error("POSTRIDER_AMQP_URL cannot be read: {0}; it looks like amqp://user:password@host:5672/vhost")]
    BadAddress(String),
    /// The session is over: a connection or channel was lost.
    #[error("the connection to RabbitMQ was lost")]
    Lost,
    /// The broker did not do something in time.
    #[error("RabbitMQ did not answer {what} within {seconds} s")]
    Timeout {
        /// What was asked.
        what: &'static str,
        /// How long it had.
        seconds: u64,
    },
    /// The broker did not confirm a message in time.
    #[error(
        "RabbitMQ did not confirm a message to {exchange} within {seconds} s; if that goes on after a power cut: docs/guarantees.md, \
         \"A stream does not come back\""
    )]
    Unconfirmed {
        /// Where the message was to go.
        exchange: String,
        /// How long it had, time in which the broker blocked the connection left out.
        seconds: u64,
    },
    /// The broker kept refusing a message: its queue is full.
    #[error("RabbitMQ refuses messages to {exchange}: its queue is full; free space or raise its limit")]
    Full {
        /// Where the message was to go.
        exchange: String,
    },
    /// A message had no queue to go to.
    #[error(
        "a message to {exchange} with key {routing_key} has no queue to go to; run: postrider topology apply"
    )]
    Unroutable {
        /// Where the message was to go.
        exchange: String,
        /// With which key.
        routing_key: String,
    },
    /// An exchange or queue does not exist.
    #[error("{name} does not exist; run: postrider topology apply")]
    Missing {
        /// Its name.
        name: String,
    },
    /// An exchange or queue exists with other arguments.
    #[error(
        "{name} exists with another {argument} than this release expects ({detail}); \
         drain and delete it, then run: postrider topology apply"
    )]
    Inequivalent {
        /// Its name.
        name: String,
        /// The argument that differs.
        argument: String,
        /// What the broker says.
        detail: String,
    },
    /// The user of the connection may not do it.
    #[error("RabbitMQ denies {what}: {detail}; grant the right to this role's user")]
    Denied {
        /// What was asked.
        what: &'static str,
        /// What the broker says.
        detail: String,
    },
    /// Configuration that this release cannot work with.
    #[error("{0}")]
    Config(String),
    /// Anything else that the broker or its protocol said.
    #[error("RabbitMQ failed at {what}: {cause}")]
    Protocol {
        /// What was asked.
        what: &'static str,
        /// What went wrong.
        cause: String,
    },
}

impl BrokerError {
    /// Gives the client library's error its meaning.
    pub(crate) fn of(what: &'static str, name: &str, error: &lapin::Error) -> Self {
        if let lapin::ErrorKind::ProtocolError(amqp) = error.kind() {
            let text = amqp.get_message().to_string();
            match amqp.get_id() {
                404 => return Self::Missing { name: name.to_owned() },
                403 => return Self::Denied { what, detail: text },
                406 if text.contains("inequivalent arg") => {
                    let argument = text.split('\'').nth(1).unwrap_or("argument").to_owned();
                    let detail = text.split_once("': ").map_or(text.clone(), |(_, rest)| rest.to_owned());
                    return Self::Inequivalent { name: name.to_owned(), argument, detail };
                }
                _ => {}
            }
        }
        match error.kind() {
            lapin::ErrorKind::InvalidChannelState(..)
            | lapin::ErrorKind::InvalidConnectionState(_)
            | lapin::ErrorKind::InvalidChannel(_)
            | lapin::ErrorKind::IOError(_)
            | lapin::ErrorKind::MissingHeartbeatError => Self::Lost,
            _ => Self::Protocol { what, cause: error.to_string() },
        }
    }
}
