//! Every process is told to end and replaced, one after the other when the one before is ready, again
//! and again: what a deployment does.

use std::time::Duration;

use crate::world::World;
use crate::{Outcome, Plan};

/// Between two processes.
const BETWEEN: Duration = Duration::from_millis(300);

pub(super) async fn inject(world: &mut World, plan: &Plan) -> Outcome<String> {
    for round in 0..plan.rounds {
        if round > 0 {
            tokio::time::sleep(plan.between_rounds(BETWEEN * 20)).await;
        }
        for service in &mut world.services {
            service.restart_with(Vec::new()).await?;
            tokio::time::sleep(BETWEEN).await;
        }
        world.note_made_good();
    }
    Ok(format!("{} rounds of {} processes", plan.rounds, world.services.len()))
}
