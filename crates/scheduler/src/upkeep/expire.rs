//! Runs that nobody began in time end: no worker was there, or they had to wait too long.

use orchestrator_boot::Context;
use orchestrator_engine::run::RunStatus;
use orchestrator_engine::store::queue::{self, Expired};
use orchestrator_engine::store::{StoreError, reach};
use orchestrator_engine::streams::Lifecycle;

/// The most runs ended in one transaction.
const BATCH: u16 = 500;

pub(super) async fn runs(ctx: &Context) -> Result<(), StoreError> {
    // Usually there are none, and one question is enough.
    while any(ctx).await? {
        let mut tx =
            ctx.pool.begin().await.map_err(StoreError::while_trying("begin to end runs"))?;
        let expired = queue::expire(&mut tx, BATCH).await?;
        tx.commit().await.map_err(StoreError::while_trying("commit the end of runs"))?;
        if expired.is_empty() {
            return Ok(()); // somebody has them in hand
        }
        let kind = RunStatus::Expired.as_str();
        let count = ctx.metrics.process().runs_finished.with_label_values(&[kind]);
        count.inc_by(expired.len() as u64);
        tell(ctx, &expired).await;
        let_next_in(ctx, &expired).await?;
    }
    Ok(())
}

async fn any(ctx: &Context) -> Result<bool, StoreError> {
    let mut conn = reach(&ctx.pool).await?;
    queue::have_expired(&mut conn).await
}

async fn tell(ctx: &Context, expired: &[Expired]) {
    let at = ctx.clock.now();
    let mut told = Vec::with_capacity(expired.len());
    for run in expired {
        tracing::warn!(run.id = %run.run_id, "run {} expired: nobody began it in time", run.run_id);
        told.push(Lifecycle {
            kind: "run.expired",
            agent_id: run.agent_id,
            task_id: run.task_id,
            run_id: Some(run.run_id),
            at,
        });
    }
    ctx.streams.lifecycle(&told).await;
}

/// Lets in what waited behind the runs.
async fn let_next_in(ctx: &Context, expired: &[Expired]) -> Result<(), StoreError> {
    let serial = expired.iter().filter(|run| run.serial);
    let mut tasks: Vec<_> = serial.filter_map(|run| run.task_id).collect();
    tasks.sort_unstable();
    tasks.dedup();
    let keyed = expired.iter().map(|run| (run.agent_id, run.concurrency_key.clone()));
    let mut keys: Vec<_> = keyed.filter_map(|(owner, key)| Some((owner, key?))).collect();
    keys.sort_unstable();
    keys.dedup();
    let mut admitted = queue::admit_tasks(&ctx.pool, &tasks).await?;
    admitted += queue::admit_keys(&ctx.pool, &keys).await?;
    if admitted.begun > 0 {
        ctx.streams.wake_workers().await;
    }
    if admitted.rate_waits {
        ctx.streams.wake_scheduler().await;
    }
    Ok(())
}
