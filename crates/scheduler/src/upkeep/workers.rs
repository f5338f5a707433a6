//! Processes and tools that have not been heard of for long, and the set of workers in Redis.

use std::time::Duration;

use orchestrator_boot::Context;
use orchestrator_engine::store::{StoreError, process, reach};

/// A tool that no worker has offered for a day is no longer in the catalogue.
const TOOL_KEPT: Duration = Duration::from_hours(24);

pub(super) async fn forget(ctx: &Context) -> Result<(), StoreError> {
    let mut conn = reach(&ctx.pool).await?;
    process::forget_gone(&mut conn).await?;
    process::forget_tools(&mut conn, TOOL_KEPT).await?;
    let alive = process::alive(&mut conn, "worker").await?;
    let ids: Vec<_> = alive.iter().map(|worker| worker.id).collect();
    ctx.streams.set_active_workers(&ids).await;
    Ok(())
}
