//! No room on the disk of Postgres. Postgres may give up altogether when it cannot write its log; it
//! is started again when there is room, as a supervisor would.

use std::time::Duration;

use tokio::time::Instant;

use crate::world::World;
use crate::{Outcome, Plan};

pub(super) async fn inject(world: &mut World, plan: &Plan) -> Outcome<String> {
    let mut given_up = 0;
    for round in 0..plan.rounds {
        if round > 0 {
            tokio::time::sleep(plan.between_rounds(plan.outage)).await;
        }
        let disk = world.disk.as_ref().ok_or("there is no small disk")?;
        let mut ballast = disk.fill()?;
        let until = Instant::now() + plan.outage;
        while Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(50)).await;
            ballast.grow();
        }
        drop(ballast);
        if !world.postgres.is_alive() {
            world.postgres.start_again().await?;
            given_up += 1;
        }
        world.note_made_good();
    }
    Ok(format!("{} times, Postgres gave up {given_up} times", plan.rounds))
}
