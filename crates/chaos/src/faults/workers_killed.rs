//! SIGKILL: a worker is gone in the middle of whatever it did; another process takes its place.

use rand::RngExt as _;

use crate::world::World;
use crate::{Outcome, Plan};

pub(super) async fn inject(world: &mut World, plan: &Plan) -> Outcome<String> {
    for _ in 0..plan.kills {
        let pause = plan.between_kills().mul_f64(world.rng.random_range(0.5..1.5));
        tokio::time::sleep(pause).await;
        world.any_worker().kill_and_replace().await?;
        world.note_made_good();
    }
    Ok(format!("{} kills", plan.kills))
}
