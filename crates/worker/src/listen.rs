//! Hearing of new runs by the very commit that adds them: at once, and also of those that other programs add
//! by SQL (`orchestrator.enqueue`). Of all but these Redis tells too, a moment later.
//!
//! A worker that is not busy has a row in `sleeper`; whoever adds runs notifies only while there is one, since
//! a notification makes commits wait for each other.

use std::convert::Infallible;
use std::sync::atomic::Ordering;

use orchestrator_boot::Outage;
use orchestrator_engine::store::StoreError;
use orchestrator_engine::store::notices::{self, Heard, Notices};

use crate::Worker;

/// Passes notifications on as hints, until the worker is dropped.
pub(crate) async fn run(worker: &Worker) {
    let mut outage = Outage::new("hear of new runs");
    loop {
        let Err(error) = pass_on(worker, &mut outage).await;
        tokio::time::sleep(outage.pause_after(&error)).await;
    }
}

async fn pass_on(worker: &Worker, outage: &mut Outage) -> Result<Infallible, StoreError> {
    let mut heard = Notices::on(notices::WORK, &worker.ctx.listening).await?;
    outage.over();
    let mut is_new = true;
    loop {
        // A database that crashed, or another that took its place, knows no sleepers.
        if is_new {
            worker.forgotten.store(true, Ordering::Relaxed);
        }
        // Also at the start: something may have been said before.
        worker.again.notify_one();
        is_new = heard.next().await? == Heard::Anew;
    }
}
