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
    let count = world.workers().len() / 2;
    for round in 0..plan.rounds {
        if round > 0 {
            tokio::time::sleep(plan.between_rounds(LEASE + PAST)).await;
        }
        let workers = world.workers().len();
        let first = world.rng.random_range(0..workers);
        let chosen: Vec<usize> = (first..first + count).map(|number| number % workers).collect();
        for number in &chosen {
            world.workers()[*number].signal(Signal::STOP)?;
        }
        tokio::time::sleep(LEASE + PAST).await;
        for number in &chosen {
            world.workers()[*number].signal(Signal::CONT)?;
        }
        world.note_made_good();
    }
    let (all, seconds) = (world.workers().len(), (LEASE + PAST).as_secs());
    Ok(format!("{count} of {all} workers, {} times for {seconds} s", plan.rounds))
}
