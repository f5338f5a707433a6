//! SIGSTOP: a worker stands still past its lease and comes back thinking that nothing has happened.

use std::time::Duration;

use rand::RngExt as _;
use rustix::process::Signal;

use crate::plan::LEASE;
use crate::world::World;
use crate::{Outcome, Plan};

/// How much longer than a lease.
const PAST: Duration = Duration::from_secs(3);

pub(super) async fn inject(world: &mut World, plan: &Plan) -> Outcome<String> {
    for _ in 0..plan.rounds {
        let workers = world.workers().len();
        let spared = world.rng.random_range(0..workers);
        let other = (spared + 1) % workers;
        for signal in [Signal::STOP, Signal::CONT] {
            for (number, worker) in world.workers().iter().enumerate() {
                if number != spared && number != other {
                    worker.signal(signal)?;
                }
            }
            if signal == Signal::STOP {
                tokio::time::sleep(LEASE + PAST).await;
            }
        }
        tokio::time::sleep(plan.between_rounds(LEASE + PAST)).await;
    }
    Ok(format!("2 of 4 workers, {} times for {} s", plan.rounds, (LEASE + PAST).as_secs()))
}
