//! The network to Postgres breaks: connections are closed and none can be made; another time nothing
//! comes through and nobody is told, and then everything goes on.

use crate::proxy::Mode;
use crate::world::World;
use crate::{Outcome, Plan};

pub(super) async fn inject(world: &mut World, plan: &Plan) -> Outcome<String> {
    let proxy = world.proxy.as_ref().ok_or("there is no proxy")?;
    for _ in 0..plan.rounds {
        for mode in [Mode::Cut, Mode::Stalled] {
            proxy.set(mode);
            tokio::time::sleep(plan.outage / 2).await;
            proxy.set(Mode::Pass);
            tokio::time::sleep(plan.outage / 4).await;
        }
        tokio::time::sleep(plan.between_rounds(plan.outage.mul_f64(1.5))).await;
    }
    let each = plan.outage.as_secs_f64() / 2.0;
    Ok(format!("each {} times for {each} s", plan.rounds))
}
