//! The network to Postgres is slow: every message takes 50 ms more, and so every answer 100.

use std::time::Duration;

use crate::proxy::Mode;
use crate::world::World;
use crate::{Outcome, Plan};

const SLOWER_BY: Duration = Duration::from_millis(50);

pub(super) async fn inject(world: &mut World, plan: &Plan) -> Outcome<String> {
    world.set_network(Mode::Slow(SLOWER_BY))?;
    let took = plan.load.mul_f64(0.6);
    tokio::time::sleep(took).await;
    world.set_network(Mode::Pass)?;
    world.note_made_good();
    Ok(format!("for {} s", took.as_secs()))
}
