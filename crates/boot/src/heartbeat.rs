//! Saying that we are alive, so that others need not guess.

use std::time::Duration;

use orchestrator_engine::config::Service;
use orchestrator_engine::store::process::{self, HEARTBEAT, Process};
use orchestrator_engine::store::{StoreError, reach};
use tokio_util::sync::CancellationToken;

use crate::{Context, Outage, in_time};

/// How long saying goodbye may take.
const LEAVE_MAX: Duration = Duration::from_secs(2);

/// Says once that this process is alive. `load`: how many runs it can work on at once, and how many
/// it is working on.
///
/// # Errors
///
/// When the database is out of reach.
async fn say(ctx: &Context, service: Service, load: (usize, usize)) -> Result<(), StoreError> {
    let system = rustix::system::uname();
    let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let us = Process {
        id: ctx.process_id,
        service: service.as_str().to_owned(),
        host: system.nodename().to_string_lossy().into_owned(),
        pid: i32::try_from(std::process::id()).unwrap_or(i32::MAX),
        version: orchestrator_engine::VERSION.to_owned(),
        capacity: number(load.0),
        active: number(load.1),
        started_at: ctx.started_at,
    };
    let mut conn = reach(&ctx.pool).await?;
    process::heartbeat(&mut conn, &us).await
}

/// Says every [`HEARTBEAT`] that this process is alive, until `stop`; then says goodbye. After the
/// first word the service counts as ready.
///
/// This is a task of its own: a busy service still has a pulse.
pub async fn beat(
    ctx: Context,
    service: Service,
    load: impl Fn() -> (usize, usize) + Send,
    stop: CancellationToken,
) {
    let mut outage = Outage::new("say that we are alive");
    loop {
        let pause = match in_time("say that we are alive", say(&ctx, service, load())).await {
            Ok(()) => {
                outage.over();
                ctx.health.ready(service.as_str());
                HEARTBEAT
            }
            Err(error) => outage.pause_after(&error),
        };
        if service == Service::Worker {
            ctx.streams.worker_alive(ctx.process_id, true).await;
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(pause) => {}
        }
    }
    if service == Service::Worker {
        ctx.streams.worker_alive(ctx.process_id, false).await;
    }
    let leave = async {
        let mut conn = ctx.pool.acquire().await.ok()?;
        process::leave(&mut conn, ctx.process_id).await.ok()
    };
    // When it fails, the row fades by itself.
    drop(tokio::time::timeout(LEAVE_MAX, leave).await);
}
