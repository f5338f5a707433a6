//! REST on `API_PORT`: tasks, runs, events, agents, health, OpenAPI.

use orchestrator_boot::{BoxError, Context};
use tokio_util::sync::CancellationToken;

/// Serves until `stop`.
///
/// # Errors
///
/// What makes it impossible to go on.
pub async fn serve(ctx: Context, stop: CancellationToken) -> Result<(), BoxError> {
    ctx.health.ready("api");
    stop.cancelled().await;
    Ok(())
}
