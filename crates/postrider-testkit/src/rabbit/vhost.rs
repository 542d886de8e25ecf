use std::{
    net::SocketAddr,
    process, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, options, types::FieldTable,
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::Broker;
use crate::{must, patience, patience::within};

const CONNECTION_NAME: &str = "postrider-testkit";

/// How long a test waits at its end for the deletion of its vhost.
const DELETE_LIMIT: Duration = Duration::from_secs(10);

/// A vhost of one test's own, deleted with the value.
#[derive(Debug)]
pub struct Vhost {
    broker: Broker,
    name: String,
    /// The test kit's own connection, made at the first use.
    connection: Mutex<Option<Connection>>,
}

/// A queue as the broker knows it.
#[derive(Clone, Debug)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// `quorum`, `stream` or `classic`.
    pub kind: String,
    /// Whether it survives a restart.
    pub durable: bool,
    /// The arguments that it was declared with.
    pub arguments: Value,
}

/// A message that a test took from a queue.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Where it was published last.
    pub exchange: String,
    /// Its routing key.
    pub routing_key: String,
    /// Whether somebody had it before.
    pub redelivered: bool,
    /// Its properties with its headers.
    pub properties: BasicProperties,
    /// Its body.
    pub body: Vec<u8>,
}

impl Taken {
    /// Its body as JSON.
    pub fn json(&self) -> Value {
        must("read a body as JSON", serde_json::from_slice(&self.body))
    }
}

impl Vhost {
    /// Makes a vhost; `hint`, best the test's subject, becomes a part of its name.
    pub async fn create(broker: &Broker, hint: &str) -> Self {
        let hint: String = hint.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let name = format!("test.{hint}.{}.{:016x}", process::id(), rand::random::<u64>());
        let vhost = Self { broker: broker.clone(), name, connection: Mutex::new(None) };
        must(&format!("create the vhost {}", vhost.name), vhost.set_up().await);
        vhost
    }

    async fn set_up(&self) -> anyhow::Result<()> {
        let name = &self.name;
        self.broker.manage(Method::PUT, &format!("vhosts/{name}"), Some(json!({}))).await?;
        let everything = json!({ "configure": ".*", "write": ".*", "read": ".*" });
        let user = self.broker.manage(Method::GET, "whoami", None).await?;
        let user = user["name"].as_str().context("the management API does not say who we are")?;
        self.broker.manage(Method::PUT, &format!("permissions/{name}/{user}"), Some(everything)).await?;
        Ok(())
    }

    /// Its name, which needs no percent-encoding.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its broker.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Its AMQP URL.
    pub fn url(&self) -> String {
        self.broker.url(&self.name)
    }

    /// Its AMQP URL by way of `address`, such as that of a [`Proxy`](crate::chaos::Proxy).
    pub fn url_through(&self, address: SocketAddr) -> String {
        self.broker.url_through(address, &self.name)
    }

    /// A new connection for the test's own use.
    pub async fn connect(&self) -> Connection {
        must("connect to RabbitMQ", self.open("test").await)
    }

    async fn open(&self, name: &str) -> lapin::Result<Connection> {
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        Connection::connect(&self.url(), properties).await
    }

    /// A new channel of the kit's own connection: a refusal closes a channel, so none is used twice.
    async fn channel(&self) -> anyhow::Result<Channel> {
        let mut connection = self.connection.lock().await;
        if let Some(open) = connection.as_ref().filter(|open| open.status().connected()) {
            // The broker may have just died; then a new connection tells.
            if let Ok(channel) = open.create_channel().await {
                return Ok(channel);
            }
        }
        let fresh = self.open(CONNECTION_NAME).await.context("connect to RabbitMQ")?;
        let channel = fresh.create_channel().await?;
        *connection = Some(fresh);
        Ok(channel)
    }

    /// Ready messages of a queue, at this moment. Unacknowledged ones do not count.
    pub async fn queue_depth(&self, queue: &str) -> u64 {
        let (ready, _) = must(&format!("look at the queue {queue}"), self.look(queue).await);
        ready
    }

    /// Consumers of a queue, at this moment.
    pub async fn consumer_count(&self, queue: &str) -> u64 {
        let (_, consumers) = must(&format!("look at the queue {queue}"), self.look(queue).await);
        consumers
    }

    async fn look(&self, queue: &str) -> anyhow::Result<(u64, u64)> {
        let channel = self.channel().await?;
        let passive = options::QueueDeclareOptions { passive: true, ..Default::default() };
        let queue = channel.queue_declare(queue.into(), passive, FieldTable::default()).await?;
        channel.close(200, "done".into()).await?;
        Ok((queue.message_count().into(), queue.consumer_count().into()))
    }

    /// All queues, by name.
    pub async fn queues(&self) -> Vec<Queue> {
        let path = format!("queues/{}?disable_stats=true&enable_queue_totals=true", self.name);
        let answer = must("list the queues", self.broker.manage(Method::GET, &path, None).await);
        let mut queues: Vec<Queue> = answer.as_array().into_iter().flatten().map(read_queue).collect();
        queues.sort_by(|a, b| a.name.cmp(&b.name));
        queues
    }

    /// Closes every connection of this vhost from the broker's side, except the kit's own; returns how many.
    ///
    /// The broker lists a connection a moment after it is open: wait for a count above 0 with
    /// [`eventually`](crate::eventually).
    pub async fn close_all_connections(&self) -> usize {
        must("close the connections", self.try_close_all_connections().await)
    }

    async fn try_close_all_connections(&self) -> anyhow::Result<usize> {
        let list =
            self.broker.manage(Method::GET, &format!("vhosts/{}/connections", self.name), None).await?;
        let mut closed = 0;
        for connection in list.as_array().into_iter().flatten() {
            if connection["user_provided_name"] == CONNECTION_NAME {
                continue;
            }
            let name = connection["name"].as_str().context("a connection without a name")?;
            let mut path = reqwest::Url::parse("http://encode/")?;
            path.path_segments_mut().ok().context("a path")?.push(name);
            let path = format!("connections{}", path.path());
            // One that ended by itself meanwhile is as good.
            if self.broker.manage(Method::DELETE, &path, None).await.is_ok() {
                closed += 1;
            }
        }
        Ok(closed)
    }

    /// Takes `count` messages from the head of a queue for good, waiting for them as long as patience lasts.
    pub async fn take(&self, queue: &str, count: usize) -> Vec<Taken> {
        let what = format!("take {count} messages from {queue}");
        let channel = must(&what, self.channel().await);
        let mut taken = Vec::with_capacity(count);
        while taken.len() < count {
            let next = within(patience(), async || must(&what, take_one(&channel, queue).await)).await;
            match next {
                Some(message) => taken.push(message),
                None => panic!("{what}: only {} came within {:?}", taken.len(), patience()),
            }
        }
        // Acknowledgements are written in the background; the close comes after them.
        must(&what, channel.close(200, "done".into()).await);
        taken
    }

    /// Takes what is ready in a queue, without waiting for more.
    pub async fn take_ready(&self, queue: &str) -> Vec<Taken> {
        let what = format!("empty the queue {queue}");
        let channel = must(&what, self.channel().await);
        let mut taken = Vec::new();
        while let Some(message) = must(&what, take_one(&channel, queue).await) {
            taken.push(message);
        }
        must(&what, channel.close(200, "done".into()).await);
        taken
    }

    /// Publishes one message, `mandatory`, and waits for its confirm.
    pub async fn publish(&self, exchange: &str, key: &str, body: &[u8], properties: BasicProperties) {
        let what = format!("publish to {exchange:?} with the key {key:?}");
        must(&what, self.try_publish(exchange, key, body, properties).await);
    }

    async fn try_publish(
        &self,
        exchange: &str,
        key: &str,
        body: &[u8],
        properties: BasicProperties,
    ) -> anyhow::Result<()> {
        let channel = self.channel().await?;
        channel.confirm_select(options::ConfirmSelectOptions::default()).await?;
        let mandatory = options::BasicPublishOptions { mandatory: true, ..Default::default() };
        let confirm = channel.basic_publish(exchange.into(), key.into(), mandatory, body, properties).await?;
        match tokio::time::timeout(patience(), confirm).await.context("no confirm")?? {
            Confirmation::Ack(None) => {}
            Confirmation::Ack(Some(returned)) => bail!("returned: {}", returned.reply_text),
            Confirmation::Nack(_) => bail!("refused by the broker"),
            Confirmation::NotRequested => bail!("confirms are off"),
        }
        channel.close(200, "done".into()).await?;
        Ok(())
    }
}

async fn take_one(channel: &Channel, queue: &str) -> anyhow::Result<Option<Taken>> {
    let Some(message) = channel.basic_get(queue.into(), options::BasicGetOptions::default()).await? else {
        return Ok(None);
    };
    let delivery = message.delivery;
    delivery.acker.ack(options::BasicAckOptions::default()).await?;
    Ok(Some(Taken {
        exchange: delivery.exchange.to_string(),
        routing_key: delivery.routing_key.to_string(),
        redelivered: delivery.redelivered,
        properties: delivery.properties,
        body: delivery.data,
    }))
}

fn read_queue(queue: &Value) -> Queue {
    let text = |field: &str| queue[field].as_str().unwrap_or_default().to_owned();
    Queue {
        name: text("name"),
        kind: text("type"),
        durable: queue["durable"] == true,
        arguments: queue["arguments"].clone(),
    }
}

/// The test process that made the vhost of this name.
pub(super) fn owner(name: &str) -> Option<u32> {
    let mut parts = name.strip_prefix("test.")?.rsplit('.');
    parts.next()?;
    parts.next()?.parse().ok()
}

impl Drop for Vhost {
    fn drop(&mut self) {
        let broker = self.broker.clone();
        let path = format!("vhosts/{}", self.name);
        // A thread, since the runtime of the test may be about to end. Nothing here may panic: the test may have.
        let deletion = thread::Builder::new().name("delete a vhost".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            if let Ok(runtime) = runtime {
                runtime.block_on(broker.manage(Method::DELETE, &path, None)).ok();
            }
        });
        if let Ok(deletion) = deletion {
            let deadline = Instant::now() + DELETE_LIMIT;
            while !deletion.is_finished() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
}
