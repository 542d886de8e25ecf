use std::{env, fs, path::Path, process, time::Duration};

use anyhow::ensure;
use lapin::{Connection, ConnectionProperties};
use reqwest::{Method, Url};
use tempfile::TempDir;

use super::{Broker, broker, script};
use crate::{eventually, must, not_run, patience, patience::within, target_dir};

const KILL: &str = "POSTRIDER_TEST_BROKER_KILL";
const START: &str = "POSTRIDER_TEST_BROKER_START";
/// The `rabbitmqctl` of the tester's own broker.
const CTL: &str = "POSTRIDER_TEST_BROKER_CTL";

/// A RabbitMQ node that a test may kill and start again, removed with the value.
///
/// It has its own data, ports, name and epmd, and is removed even when the test process is killed.
#[derive(Debug)]
pub struct Node {
    broker: Broker,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// Started here, by `dev/broker`.
    Private(TempDir),
    /// The tester's own; these shell commands kill and start it.
    Outside { kill: String, start: String },
}

impl Node {
    /// A running node.
    ///
    /// Where `POSTRIDER_TEST_AMQP_URL` is set it is that broker, killed and started by the shell commands in
    /// `POSTRIDER_TEST_BROKER_KILL` and `POSTRIDER_TEST_BROKER_START`. If those are unset the test is counted
    /// as not run, and the answer is `None`: return from the test then.
    pub async fn start() -> Option<Self> {
        match must("the RabbitMQ that the environment names", broker::outside()) {
            Some((amqp, management)) => Self::outside(&amqp, &management),
            None => Some(Self::start_under(&target_dir().join("test-nodes")).await),
        }
    }

    fn outside(amqp: &Url, management: &Url) -> Option<Self> {
        let (Ok(kill), Ok(start)) = (env::var(KILL), env::var(START)) else {
            not_run(&format!("POSTRIDER_TEST_AMQP_URL is set, but not {KILL} and {START}"));
            return None;
        };
        let broker = Broker::at(amqp.as_str(), Some(management.as_str()));
        Some(Self { broker, place: Place::Outside { kill, start } })
    }

    /// A private node whose files are in a new directory under `parent`, such as a file system that may break.
    pub async fn start_under(parent: &Path) -> Self {
        must("start a RabbitMQ node", Self::private(parent).await)
    }

    /// Where its files are; nothing when it is the tester's own.
    pub fn directory(&self) -> Option<&Path> {
        match &self.place {
            Place::Private(directory) => Some(directory.path()),
            Place::Outside { .. } => None,
        }
    }

    async fn private(parent: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(parent)?;
        let directory = tempfile::Builder::new().prefix("node-").tempdir_in(parent)?;
        let owner = vec!["--owner".to_owned(), process::id().to_string()];
        let url = script::broker_async("start", owner, directory.path()).await;
        if url.is_err() {
            script::broker("remove", &[], directory.path()).ok();
        }
        Ok(Self { broker: Broker::at(&url?, None), place: Place::Private(directory) })
    }

    /// Where it listens; the same after every start.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Waits until the queues declared so far survive a kill; call it between declaring and killing.
    ///
    /// RabbitMQ keeps the names of new quorum queues and streams in a table that reaches the disk one second after
    /// the last declaration. Queues of a node killed before that start empty, confirmed messages included
    /// (seen on 3.10.8).
    pub async fn settled(&self) {
        match &self.place {
            Place::Private(directory) => {
                eventually("the names of the queues are on disk", async || {
                    must("look at the node's tables", names_on_disk(directory.path()))
                })
                .await;
            }
            // Its files are out of sight; this is the time that it takes.
            Place::Outside { .. } => tokio::time::sleep(Duration::from_secs(2)).await,
        }
    }

    /// Ends it as a power cut would: `kill -9`.
    pub async fn kill(&self) {
        let killed = match &self.place {
            Place::Private(directory) => script::broker_async("kill", Vec::new(), directory.path()).await,
            Place::Outside { kill, .. } => script::shell(kill.clone()).await,
        };
        must("kill the RabbitMQ node", killed);
    }

    /// Raises its memory alarm, so that it blocks every connection that publishes, or ends that. `false` when the
    /// tester's own broker has no `POSTRIDER_TEST_BROKER_CTL`: then the test is counted as not run.
    pub async fn block(&self, blocked: bool) -> bool {
        let done = match &self.place {
            Place::Private(directory) => {
                let action = if blocked { "block" } else { "unblock" };
                script::broker_async(action, Vec::new(), directory.path()).await
            }
            Place::Outside { .. } => {
                let Ok(ctl) = env::var(CTL) else {
                    not_run(&format!("POSTRIDER_TEST_AMQP_URL is set, but not {CTL}"));
                    return false;
                };
                let watermark = if blocked { "0" } else { "0.6" };
                script::shell(format!("{ctl} set_vm_memory_high_watermark {watermark}")).await
            }
        };
        must("set the node's memory alarm", done);
        true
    }

    /// Stops all of its processes where they stand, with their connections open (`true`), or lets them go on. `false` when
    /// it is the tester's own: then the test is counted as not run.
    pub async fn freeze(&self, frozen: bool) -> bool {
        let Place::Private(directory) = &self.place else {
            not_run("POSTRIDER_TEST_AMQP_URL is set, and that broker cannot be frozen");
            return false;
        };
        let action = if frozen { "freeze" } else { "thaw" };
        must("freeze the RabbitMQ node", script::broker_async(action, Vec::new(), directory.path()).await);
        true
    }

    /// Runs its `rabbitmqctl` and returns what that prints. Nothing when it is the tester's own without
    /// `POSTRIDER_TEST_BROKER_CTL`: then the test is counted as not run.
    pub async fn ctl(&self, arguments: &[&str]) -> Option<String> {
        let printed = match &self.place {
            Place::Private(directory) => script::ctl(directory.path(), arguments).await,
            Place::Outside { .. } => {
                let Ok(ctl) = env::var(CTL) else {
                    not_run(&format!("POSTRIDER_TEST_AMQP_URL is set, but not {CTL}"));
                    return None;
                };
                let quoted = |argument: &&str| format!(" '{}'", argument.replace('\'', r"'\''"));
                script::shell(ctl + &arguments.iter().map(quoted).collect::<String>()).await
            }
        };
        Some(must(&format!("rabbitmqctl {}", arguments.join(" ")), printed))
    }

    /// Stops it in good order.
    pub async fn stop(&self) {
        let stopped = match &self.place {
            Place::Private(directory) => script::broker_async("stop", Vec::new(), directory.path()).await,
            Place::Outside { kill, .. } => script::shell(kill.clone()).await,
        };
        must("stop the RabbitMQ node", stopped);
    }

    /// Starts it again on its own data and ports, and waits until it answers.
    pub async fn start_again(&self) {
        must("start the RabbitMQ node again", self.try_start_again().await);
    }

    /// Ends a test that killed it for good: the tester's own, which other tests need, is started again.
    pub async fn leave(self) {
        if matches!(self.place, Place::Outside { .. }) {
            self.start_again().await;
        }
    }

    async fn try_start_again(&self) -> anyhow::Result<()> {
        match &self.place {
            Place::Private(directory) => {
                let url = script::broker_async("start", Vec::new(), directory.path()).await?;
                let address = Broker::at(&url, None).amqp_address();
                ensure!(
                    address == self.broker.amqp_address(),
                    "its ports were taken, it now listens at {address}"
                );
            }
            Place::Outside { start, .. } => {
                script::shell(start.clone()).await?;
                let answers = within(patience(), async || self.answers().await.ok()).await;
                ensure!(answers.is_some(), "it does not answer after {START}");
            }
        }
        Ok(())
    }

    async fn answers(&self) -> anyhow::Result<()> {
        self.broker.manage(Method::GET, "vhosts", None).await?;
        Connection::connect(&self.broker.url("%2f"), ConnectionProperties::default()).await?;
        Ok(())
    }
}

/// Whether every table of queue names is in good order on disk: the third word of its file says so.
fn names_on_disk(node: &Path) -> anyhow::Result<bool> {
    const IN_ORDER: [u8; 4] = [0, 0, 0, 1];
    let mut all = true;
    for data in fs::read_dir(node.join("data"))? {
        let data = data?;
        for system in ["quorum", "coordination"] {
            // Absent where nothing of the kind was declared yet.
            let Ok(members) = fs::read_dir(data.path().join(system)) else {
                continue;
            };
            for member in members {
                let table = fs::read(member?.path().join("names.dets"));
                all &= table.is_ok_and(|table| table.get(8..12) == Some(&IN_ORDER));
            }
        }
    }
    Ok(all)
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Place::Private(directory) = &self.place {
            script::broker("remove", &[], directory.path()).ok();
        }
    }
}
