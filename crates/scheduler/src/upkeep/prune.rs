//! What is old goes: runs by whole partitions, everything else by rows; and the partitions of the
//! weeks to come are made.

use std::time::Duration;

use orchestrator_boot::Context;
use orchestrator_engine::store::{StoreError, reach, retention};

pub(super) async fn old(ctx: &Context) -> Result<(), StoreError> {
    let mut conn = reach(&ctx.pool).await?;
    let kept = Duration::from_secs(u64::from(ctx.settings.retention_days) * 24 * 3600);
    let Some(pruned) = retention::prune(&mut conn, kept, ctx.clock.now()).await? else {
        return Ok(()); // another scheduler is at it
    };
    if pruned.postponed {
        // A backup of hours is no fault: partitions are made three weeks ahead.
        tracing::info!(
            "runs are being read for long; partitions are made and dropped another time"
        );
    }
    if pruned != (retention::Pruned { postponed: pruned.postponed, ..Default::default() }) {
        tracing::info!(?pruned, "old records were removed");
    }
    Ok(())
}
