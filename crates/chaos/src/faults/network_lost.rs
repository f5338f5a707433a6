//! The network to Postgres forgets its connections, as after a fail-over: those that were open stay
//! silent for ever, without an end; new ones work.

use crate::proxy::Mode;
use crate::world::World;
use crate::{Outcome, Plan};

pub(super) async fn inject(world: &mut World, plan: &Plan) -> Outcome<String> {
    for round in 0..plan.rounds {
        if round > 0 {
            tokio::time::sleep(plan.between_rounds(plan.outage / 4)).await;
        }
        world.set_network(Mode::Lost)?;
        tokio::time::sleep(plan.outage / 4).await;
        world.set_network(Mode::Pass)?;
        world.note_made_good();
    }
    Ok(format!("{} times", plan.rounds))
}
