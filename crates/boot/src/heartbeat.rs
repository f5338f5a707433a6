//! Saying that we are alive, so that others need not guess.

use std::time::Duration;

use orchestrator_engine::config::Service;
use orchestrator_engine::store::process::{self, HEARTBEAT, Process};
use tokio_util::sync::CancellationToken;

use crate::Context;

/// How long saying goodbye may take.
const LEAVE_MAX: Duration = Duration::from_secs(2);

/// Says every [`HEARTBEAT`] that this process is alive, until `stop`; then says goodbye. `load`
/// tells how many runs it can work on at once, and how many it is working on.
///
/// This is a task of its own: a busy service still has a pulse.
pub async fn beat(
    ctx: Context,
    service: Service,
    load: impl Fn() -> (usize, usize) + Send,
    stop: CancellationToken,
) {
    let system = rustix::system::uname();
    let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let mut failing = false;
    loop {
        let (capacity, active) = load();
        let us = Process {
            id: ctx.process_id,
            service: service.as_str().to_owned(),
            host: system.nodename().to_string_lossy().into_owned(),
            pid: i32::try_from(std::process::id()).unwrap_or(i32::MAX),
            version: orchestrator_engine::VERSION.to_owned(),
            capacity: number(capacity),
            active: number(active),
            started_at: ctx.started_at,
        };
        let said = async {
            let mut conn = ctx.pool.acquire().await?;
            process::heartbeat(&mut conn, &us).await.map_err(crate::BoxError::from)
        };
        let said: Result<(), crate::BoxError> = said.await;
        if let Err(error) = &said
            && !failing
        {
            tracing::warn!(
                error = &**error as &dyn std::error::Error,
                "could not say that we are alive"
            );
        }
        failing = said.is_err();
        if service == Service::Worker {
            ctx.streams.worker_alive(ctx.process_id, true).await;
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(HEARTBEAT) => {}
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
