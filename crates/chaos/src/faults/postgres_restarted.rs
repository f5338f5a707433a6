//! `pg_ctl restart -m immediate`: what was committed is kept, everything else is gone.

use crate::world::World;
use crate::{Outcome, Plan};

pub(super) async fn inject(world: &mut World, plan: &Plan) -> Outcome<String> {
    for round in 0..plan.rounds {
        if round > 0 {
            tokio::time::sleep(plan.between_rounds(plan.outage / 2)).await;
        }
        world.postgres.stop_immediately().await?;
        // At once, and after it has been away for a while.
        if round % 2 == 1 {
            tokio::time::sleep(plan.outage).await;
        }
        world.postgres.start_again().await?;
        world.note_made_good();
    }
    Ok(format!("{} times", plan.rounds))
}
