//! Leases due work, runs pipelines, records results.

use orchestrator_boot::{BoxError, Context};
use tokio_util::sync::CancellationToken;

/// Serves until `stop`.
///
/// # Errors
///
/// What makes it impossible to go on.
pub async fn serve(ctx: Context, stop: CancellationToken) -> Result<(), BoxError> {
    ctx.health.ready("worker");
    stop.cancelled().await;
    Ok(())
}
