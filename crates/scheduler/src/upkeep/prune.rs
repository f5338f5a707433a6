//! What is old goes: runs by whole partitions, everything else by rows; and the partitions of the
//! weeks to come are made.

use std::time::Duration;

use orchestrator_boot::Context;
use orchestrator_engine::store::{StoreError, retention};

pub(super) async fn old(ctx: &Context) -> Result<(), StoreError> {
    let mut conn =
        ctx.pool.acquire().await.map_err(StoreError::while_trying("reach the database"))?;
    let kept = Duration::from_secs(u64::from(ctx.settings.retention_days) * 24 * 3600);
    let Some(pruned) = retention::prune(&mut conn, kept, ctx.clock.now()).await? else {
        return Ok(()); // another scheduler is at it
    };
    if pruned != retention::Pruned::default() {
        tracing::info!(?pruned, "old records were removed");
    }
    Ok(())
}
