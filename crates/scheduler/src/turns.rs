//! Lets the runs begin that had to wait: those that catch up after an outage, at a bounded rate and by
//! priority over all tasks; those whose task runs one at a time; those whose concurrency key had no
//! free place.
//!
//! Whoever makes such runs, or ends the one before them, lets the next in itself; this looks again
//! for what a dead process left.

use std::sync::Arc;
use std::time::Duration;

use orchestrator_boot::{Context, Outage};
use orchestrator_engine::store::{StoreError, queue};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How often it is looked for runs that were left waiting.
const SWEEP: Duration = Duration::from_secs(30);
/// How often runs that catch up get their turn while there are some.
const TURN: Duration = Duration::from_millis(100);

/// Lets waiting runs begin until `stop`; looks at once when `made` says that there are new ones.
pub async fn run(ctx: Context, made: Arc<Notify>, stop: CancellationToken) {
    let mut outage = Outage::new("let waiting runs begin");
    loop {
        let pause = match take(&ctx).await {
            Ok(more) => {
                outage.over();
                if more { TURN } else { SWEEP }
            }
            Err(error) => outage.pause_after(&error),
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = made.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Lets in what may begin now. Returns whether runs that catch up are left.
///
/// # Errors
///
/// When the database failed; what was committed before stays.
pub async fn take(ctx: &Context) -> Result<bool, StoreError> {
    let mut conn =
        ctx.pool.acquire().await.map_err(StoreError::while_trying("reach the database"))?;
    let released = queue::release_catch_up(&mut conn, ctx.settings.scheduler.catch_up_rate).await?;
    let mut tasks = queue::tasks_to_admit(&mut conn).await?;
    drop(conn);
    tasks.extend(released.tasks);
    tasks.sort_unstable();
    tasks.dedup();
    let admitted = queue::admit_tasks(&ctx.pool, &tasks).await? + admit_keys(ctx).await?;
    if released.runs > 0 || admitted > 0 {
        ctx.streams.wake_workers().await;
    }
    let mut conn =
        ctx.pool.acquire().await.map_err(StoreError::while_trying("reach the database"))?;
    Ok(queue::catch_up_backlog(&mut conn, 1).await? > 0)
}

/// Lets runs begin that wait for a free place of their concurrency key, where there is one. Returns how
/// many.
///
/// # Errors
///
/// When the database failed; what was committed before stays.
pub async fn admit_keys(ctx: &Context) -> Result<u64, StoreError> {
    let mut conn =
        ctx.pool.acquire().await.map_err(StoreError::while_trying("reach the database"))?;
    let keys = queue::keys_to_admit(&mut conn, None).await?;
    drop(conn);
    queue::admit_keys(&ctx.pool, &keys).await
}
