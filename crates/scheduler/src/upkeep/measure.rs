//! How long the queue is, and how old.

use orchestrator_boot::Context;
use orchestrator_engine::store::{StoreError, fire, queue, reach};

/// Beyond this the depth is not counted on: "very long" is enough to know.
const DEPTH_MAX: u32 = 100_000;

pub(super) async fn queue(ctx: &Context) -> Result<(), StoreError> {
    let mut conn = reach(&ctx.pool).await?;
    let (depth, oldest) = fire::backlog(&mut conn, DEPTH_MAX).await?;
    let metrics = ctx.metrics.scheduler();
    metrics.queue_depth.set(depth);
    metrics.catch_up_backlog.set(queue::catch_up_backlog(&mut conn, DEPTH_MAX).await?);
    metrics.oldest_due_seconds.set(oldest.map_or(0.0, |oldest| oldest.as_secs_f64()));
    Ok(())
}
