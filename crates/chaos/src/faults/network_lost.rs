//! The network to Postgres forgets its connections, as after a fail-over: those that were open stay
//! silent for ever, without an end; new ones work.

use crate::proxy::Mode;
use crate::world::World;
use crate::{Outcome, Plan};

pub(super) async fn inject(world: &mut World, plan: &Plan) -> Outcome<String> {
    let proxy = world.proxy.as_ref().ok_or("there is no proxy")?;
    for round in 0..plan.rounds {
        if round > 0 {
            tokio::time::sleep(plan.between_rounds(plan.outage / 4)).await;
        }
        proxy.set(Mode::Lost);
        tokio::time::sleep(plan.outage / 4).await;
        proxy.set(Mode::Pass);
    }
    Ok(format!("{} times", plan.rounds))
}
