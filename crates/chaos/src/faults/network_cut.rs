//! The network to Postgres breaks: connections are closed and none can be made; another time nothing
//! comes through and nobody is told, and then everything goes on.

use crate::proxy::Mode;
use crate::world::World;
use crate::{Outcome, Plan};

pub(super) async fn inject(world: &mut World, plan: &Plan) -> Outcome<String> {
    for round in 0..plan.rounds {
        if round > 0 {
            tokio::time::sleep(plan.between_rounds(plan.outage.mul_f64(1.25))).await;
        }
        world.set_network(Mode::Cut)?;
        tokio::time::sleep(plan.outage / 2).await;
        world.set_network(Mode::Pass)?;
        world.note_made_good();
        tokio::time::sleep(plan.outage / 4).await;
        world.set_network(Mode::Stalled)?;
        tokio::time::sleep(plan.outage / 2).await;
        world.set_network(Mode::Pass)?;
        world.note_made_good();
    }
    let each = plan.outage.as_secs_f64() / 2.0;
    Ok(format!("each {} times for {each} s", plan.rounds))
}
