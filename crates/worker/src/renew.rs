//! Keeping leases: all of a worker's in one statement, at a third of their length, so that two
//! renewals may be lost before a lease is.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use orchestrator_boot::Outage;
use orchestrator_engine::store::{StoreError, queue, reach};
use tokio::time::Instant;

use crate::commit::Write;
use crate::held::Why;
use crate::{Worker, in_time};

/// How often a hint may cause a renewal of its own: it may be about a run to be canceled.
const HINTED_MIN: Duration = Duration::from_secs(1);
/// A step that has been on for so long is shown as running.
const SHOWN_AFTER: Duration = Duration::from_millis(300);

/// Renews until the worker is dropped; hints ask for a renewal before its time.
pub(crate) async fn run(worker: &Worker) {
    let every = worker.ctx.settings.worker.lease / 3;
    let mut due = Instant::now() + every;
    let mut renewed = Instant::now();
    let mut outage = Outage::new("renew leases");
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(due) => {}
            () = worker.look.notified() => {
                tokio::time::sleep_until(renewed + HINTED_MIN).await;
            }
        }
        match in_time("renew leases", renew(worker)).await {
            Ok(()) => {
                outage.over();
                due = Instant::now() + every;
            }
            Err(error) => due = Instant::now() + outage.pause_after(&error),
        }
        renewed = Instant::now();
    }
}

async fn renew(worker: &Worker) -> Result<(), StoreError> {
    let held = worker.holding.all();
    if held.is_empty() {
        return Ok(());
    }
    let leases: Vec<_> = held.iter().map(|held| held.lease).collect();
    let mut conn = reach(&worker.ctx.pool).await?;
    let renewed = queue::renew(&mut conn, &leases, worker.ctx.settings.worker.lease).await?;
    drop(conn);
    let leases: HashSet<_> = leases.into_iter().collect();
    let renewed: HashMap<_, _> =
        renewed.into_iter().map(|one| (one.run_id, one.cancel_requested)).collect();
    let still_held = worker.holding.all();
    for held in still_held.iter().filter(|held| leases.contains(&held.lease)) {
        match renewed.get(&held.lease.run_id) {
            Some(true) => held.stop(Why::Canceled),
            Some(_) => {}
            // It may also have ended in this very moment; then nobody listens any more.
            None => held.stop(Why::LeaseLost),
        }
    }
    Ok(())
}

/// Shows steps that have been on for a while as running, until the worker is dropped.
pub(crate) async fn show_steps(worker: &Worker) {
    loop {
        tokio::time::sleep(SHOWN_AFTER).await;
        if worker.holding.is_empty() {
            worker.busy.notified().await;
        }
        for held in worker.holding.all() {
            if let Some(record) = held.untold_step(SHOWN_AFTER) {
                worker.committer.write(Write::Checkpoint(held.lease, vec![record.into()])).await;
            }
        }
    }
}
