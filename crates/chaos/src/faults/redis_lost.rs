//! Redis forgets everything while it runs, then is killed and comes back empty.

use crate::world::World;
use crate::{Outcome, Plan};

pub(super) async fn inject(world: &mut World, plan: &Plan) -> Outcome<String> {
    for round in 0..plan.rounds {
        if round > 0 {
            tokio::time::sleep(plan.between_rounds(plan.outage + plan.outage / 4)).await;
        }
        world.redis.flush().await?;
        tokio::time::sleep(plan.outage / 4).await;
        world.redis.kill().await?;
        tokio::time::sleep(plan.outage).await;
        world.redis.start_empty().await?;
        world.note_made_good();
    }
    Ok(format!("{} times, {} s away", plan.rounds, plan.outage.as_secs()))
}
