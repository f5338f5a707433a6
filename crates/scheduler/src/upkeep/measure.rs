//! How long the queue is, and how old; and how long events have waited.
//!
//! Whoever is stuck measures nothing, so none of this is left to those who take runs or consume events.

use orchestrator_boot::Context;
use orchestrator_engine::store::{StoreError, event, fire, queue, reach};

/// Beyond this the depth is not counted on: "very long" is enough to know.
const DEPTH_MAX: u32 = 100_000;

/// Sets the gauges.
///
/// # Errors
///
/// When the database failed; the gauges stand still then.
pub async fn queue(ctx: &Context) -> Result<(), StoreError> {
    let mut conn = reach(&ctx.pool).await?;
    let (depth, oldest) = fire::backlog(&mut conn, DEPTH_MAX).await?;
    let metrics = ctx.metrics.scheduler();
    metrics.queue_depth.set(depth);
    metrics.catch_up_backlog.set(queue::catch_up_backlog(&mut conn, DEPTH_MAX).await?);
    metrics.oldest_due_seconds.set(oldest.map_or(0.0, |oldest| oldest.as_secs_f64()));
    let waited = event::waiting_since(&mut conn).await?.map(|since| ctx.clock.now() - since);
    metrics.event_lag_seconds.set(waited.map_or(0.0, |waited| waited.as_seconds_f64().max(0.0)));
    Ok(())
}
