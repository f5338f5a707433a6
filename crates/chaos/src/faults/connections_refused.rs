//! `max_connections` is reached: somebody else has them all, and who reconnects is refused.

use std::time::Duration;

use sqlx::PgConnection;
use tokio::time::Instant;

use crate::world::World;
use crate::{Outcome, Plan};

/// Between two looks for a free connection, once there is none.
const BETWEEN: Duration = Duration::from_millis(20);

pub(super) async fn inject(world: &mut World, plan: &Plan) -> Outcome<String> {
    let mut most = 0;
    for _ in 0..plan.rounds {
        let mut taken: Vec<PgConnection> = vec![world.postgres.connect().await?];
        let until = Instant::now() + plan.outage;
        while Instant::now() < until {
            match world.postgres.connect().await {
                Ok(connection) => taken.push(connection),
                // All are taken; those of the services are wanted as well.
                Err(_) => {
                    sqlx::query(
                        "select pg_terminate_backend(pid) from pg_stat_activity
                         where application_name like 'orchestrator-%' limit 10",
                    )
                    .execute(&mut taken[0])
                    .await?;
                    tokio::time::sleep(BETWEEN).await;
                }
            }
        }
        most = most.max(taken.len());
        drop(taken);
        tokio::time::sleep(plan.between_rounds(plan.outage)).await;
    }
    Ok(format!("{} times, {most} of 100 connections taken", plan.rounds))
}
