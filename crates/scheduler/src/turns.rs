//! Lets the runs begin that had to wait: those that catch up after an outage, at a bounded rate and by
//! priority over all tasks; those whose task runs one at a time; those whose concurrency key had no
//! free place; those whose rate had let in enough.
//!
//! Whoever makes such runs, or ends the one before them, lets the next in itself; this looks again
//! for what a dead process left, and at once for what another program has added by SQL. It alone knows of turns that come by time, and sleeps until the next.

use std::sync::Arc;
use std::time::Duration;

use orchestrator_boot::{Context, Outage, within};
use orchestrator_engine::store::notices::{self, Notices};
use orchestrator_engine::store::queue::Admitted;
use orchestrator_engine::store::{StoreError, queue, reach};
use sqlx::PgConnection;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How often it is looked for runs that were left waiting.
const SWEEP: Duration = Duration::from_secs(30);
/// The same while Redis is away and nobody can tell of runs that wait.
const SWEEP_WITHOUT_REDIS: Duration = Duration::from_secs(1);
/// How often runs that catch up get their turn while there are some.
const TURN: Duration = Duration::from_millis(100);
/// How soon to look again for a run whose turn it is and that somebody else has in hand.
const HELD_BY_ANOTHER: Duration = Duration::from_millis(10);

/// How long one look may take: a transaction for each task and key, of which there may be many.
const TURN_MAX: Duration = Duration::from_secs(30);

/// Lets waiting runs begin until `stop`; looks at once when `made` says that there are new ones.
pub async fn run(ctx: Context, made: Arc<Notify>, stop: CancellationToken) {
    let mut outage = Outage::new("let waiting runs begin");
    loop {
        let pause = match within(TURN_MAX, "let waiting runs begin", take(&ctx)).await {
            Ok(next) => {
                outage.over();
                let longest = if ctx.streams.is_up() { SWEEP } else { SWEEP_WITHOUT_REDIS };
                next.map_or(longest, |next| next.clamp(HELD_BY_ANOTHER, longest))
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
    let mut notices = Notices::on(notices::HELD, &ctx.listening).await?;
    outage.over();
    loop {
        // Also at the start: something may have been said before.
        made.notify_one();
        notices.next().await?;
    }
}

/// Lets in what may begin now. Returns how long until it is the next run's turn; `None` when time alone
/// lets nobody in.
///
/// # Errors
///
/// When the database failed; what was committed before stays.
pub async fn take(ctx: &Context) -> Result<Option<Duration>, StoreError> {
    let mut conn = reach(&ctx.pool).await?;
    let released = queue::release_catch_up(&mut conn, ctx.settings.scheduler.catch_up_rate).await?;
    let mut tasks = queue::tasks_to_admit(&mut conn).await?;
    drop(conn);
    tasks.extend(released.tasks);
    tasks.sort_unstable();
    tasks.dedup();
    let mut admitted = queue::admit_tasks(&ctx.pool, &tasks).await?;
    admitted += admit_keys(ctx).await?;
    admitted += admit_rates(ctx).await?;
    if released.runs > 0 || admitted.begun > 0 {
        ctx.streams.wake_workers().await;
    }
    let mut conn = reach(&ctx.pool).await?;
    next_turn(&mut conn).await
}

async fn admit_keys(ctx: &Context) -> Result<Admitted, StoreError> {
    let mut conn = reach(&ctx.pool).await?;
    let keys = queue::keys_to_admit(&mut conn, None).await?;
    drop(conn);
    queue::admit_keys(&ctx.pool, &keys).await
}

async fn admit_rates(ctx: &Context) -> Result<Admitted, StoreError> {
    let mut conn = reach(&ctx.pool).await?;
    let rates = queue::waiting_rates(&mut conn, None).await?;
    drop(conn);
    let open = rates.into_iter().filter(|one| one.wait.is_zero()).map(|one| (one.owner, one.key));
    queue::admit_rates(&ctx.pool, &open.collect::<Vec<_>>()).await
}

async fn next_turn(conn: &mut PgConnection) -> Result<Option<Duration>, StoreError> {
    let catch_up = (queue::catch_up_backlog(conn, 1).await? > 0).then_some(TURN);
    let by_rate = queue::waiting_rates(conn, None).await?.into_iter().map(|one| one.wait).min();
    let by_time = queue::held_come_due_in(conn).await?;
    Ok([catch_up, by_rate, by_time].into_iter().flatten().min())
}
