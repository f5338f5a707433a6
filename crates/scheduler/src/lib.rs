//! Fires due schedules, turns events into runs, and keeps house.
//!
//! There is no leader: any number of schedulers may run, and every piece of work is claimed row by
//! row. The scheduler writes work; it never does any.

pub mod decide;
pub mod events;
pub mod fire;
pub mod rezone;
mod trace;
pub mod turns;
pub mod upkeep;

use std::sync::Arc;
use std::time::Duration;

use orchestrator_boot::{BoxError, Context, Service, in_time, within};
use orchestrator_engine::store::{StoreError, data_limit, reach};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How long a start may look at every schedule; the next start goes on.
const REZONE_MAX: Duration = Duration::from_mins(10);

/// Runs a scheduler until `stop`.
///
/// # Errors
///
/// None at present: an outage of Postgres or Redis is waited out.
pub async fn serve(ctx: Context, stop: CancellationToken) -> Result<(), BoxError> {
    ctx.health.expect("scheduler");
    tracing::info!("scheduling");
    let rezoning = within(REZONE_MAX, "look at zone data", rezone::if_changed(&ctx.pool));
    if let Err(error) = rezoning.await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "stored times could not be compared with this program's zone data; the next start will"
        );
    }
    if let Err(error) = in_time("set the limit of data", limit_data(&ctx)).await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "orchestrator.enqueue goes on with the limit of data it had; the next start will set it"
        );
    }
    let made = Arc::new(Notify::new());
    tokio::join!(
        fire::run(ctx.clone(), Arc::clone(&made), stop.clone()),
        turns::run(ctx.clone(), Arc::clone(&made), stop.clone()),
        turns::hear(ctx.clone(), Arc::clone(&made), stop.clone()),
        events::run(ctx.clone(), made, stop.clone()),
        upkeep::run(ctx.clone(), stop.clone()),
        orchestrator_boot::beat(ctx, Service::Scheduler, || (0, 0), stop),
    );
    Ok(())
}

/// Has SQL refuse what this program would refuse.
async fn limit_data(ctx: &Context) -> Result<(), StoreError> {
    let mut conn = reach(&ctx.pool).await?;
    data_limit::set(&mut conn, ctx.settings.run_data_max_bytes).await
}
