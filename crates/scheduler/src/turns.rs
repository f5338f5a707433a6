//! Lets the runs begin that had to wait: those that catch up after an outage, at a bounded rate and by
//! priority over all tasks; those whose task runs one at a time; those whose concurrency key had no
//! free place.
//!
//! Whoever makes such runs, or ends the one before them, lets the next in itself; this looks again
//! for what a dead process left, and at once for what another program has added by SQL.

use std::sync::Arc;
use std::time::Duration;

use orchestrator_boot::{Context, Outage};
use orchestrator_engine::store::notices::{self, Notices};
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

/// Notes in `made` that another program has added runs which are to be let in, until `stop`. The
/// function that adds them leaves that to us: it would have to keep others from it until its caller's
/// transaction ends.
pub async fn hear(ctx: Context, made: Arc<Notify>, stop: CancellationToken) {
    let mut outage = Outage::new("hear of runs that other programs add");
    let listen = async {
        loop {
            let Err(error) = pass_on(&ctx, &made, &mut outage).await;
            tokio::time::sleep(outage.pause_after(&error)).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = listen => {}
    }
}

async fn pass_on(
    ctx: &Context,
    made: &Notify,
    outage: &mut Outage,
) -> Result<std::convert::Infallible, StoreError> {
    let mut notices = Notices::on(notices::HELD, &ctx.pool).await?;
    outage.over();
    loop {
        // Also at the start: something may have been said before.
        made.notify_one();
        notices.next().await?;
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
