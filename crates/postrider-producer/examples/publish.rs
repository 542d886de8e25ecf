//! Publishes one event, then a hundred at once.
//!
//! ```text
//! POSTRIDER_AMQP_URL=amqp://guest:guest@127.0.0.1:5672/%2f cargo run -p postrider-producer --example publish
//! ```

use anyhow::Context as _;
use postrider_producer::{NewEvent, Producer, Settings};
use serde_json::json;

#[tokio::main]
#[allow(clippy::print_stdout, reason = "an example shows what it does")]
async fn main() -> anyhow::Result<()> {
    let url =
        std::env::var("POSTRIDER_AMQP_URL").context("set POSTRIDER_AMQP_URL to the broker's address")?;
    let producer = Producer::connect(Settings::new(url)).await?;

    let registered =
        NewEvent::new("Client registered", &json!({ "object_id": "c-1042", "email": "jo@example.com" }))
            .context(&json!({ "ip": "192.0.2.10" }))
            .key("c-1042");
    println!("accepted {}", producer.publish(registered).await?);

    let logins = (0..100)
        .map(|n| NewEvent::new("USER_LOGIN", &json!({ "sub": format!("u-{n}") })).id(format!("login-{n}")));
    let ids = producer.publish_all(logins.collect()).await?;
    println!("accepted {} more", ids.len());
    Ok(())
}
