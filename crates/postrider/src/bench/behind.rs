//! Deliveries that wait while others are delivered: for a webhook whose receiver says that it is busy.

use postrider_broker::Lane;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::patience::{Patience, reach};
use super::plan::{Kind, Workload};
use super::publish::Pace;
use super::rig::{LOOK, ROUTED, Rig};
use super::sink::BUSY;
use crate::commands::topology;
use crate::exit::Failure;

/// Makes as many deliveries wait as a workload says. The sink asks for an hour of silence, so nothing more is sent and
/// everything is parked.
pub(super) async fn pile_up(rig: &mut Rig<'_>, workload: &Workload) -> Result<(), Failure> {
    let busy =
        Workload { name: BUSY, kind: Kind::Speed { fan_out: 1, groups: 1 }, baseline: None, ..*workload };
    rig.system.prepare(&busy, rig.plan.retry, &rig.sink).await?;
    let routed = rig.system.counters("router", &[ROUTED]).await? + busy.behind;
    let load = rig.load(&busy, Pace::Free, busy.behind, &CancellationToken::new());
    rig.publisher.publish(load).await?;
    let system = &mut rig.system;
    reach("events routed", routed, LOOK, async || system.counters("router", &[ROUTED]).await).await?;
    // Everything has been in a worker's hands once.
    let session = topology::open(&rig.place.settings().broker_as("bench")?).await?;
    let mut patience = Patience::with("deliveries have been parked");
    loop {
        let mut ready = 0;
        for shard in 0..rig.place.shards() {
            let queue = rig.place.names().delivery_queue(Lane::Fresh, shard);
            let depth = session.depth(&queue).await;
            ready += depth.map_err(|error| topology::broker("cannot look at a queue", &error))?.ready;
        }
        if ready == 0 {
            break;
        }
        patience.at(busy.behind.saturating_sub(u64::from(ready)), Some(busy.behind))?;
        rig.system.check()?;
        sleep(LOOK).await;
    }
    session.close().await;
    Ok(())
}
