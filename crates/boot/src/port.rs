//! The health and metrics port of scheduler and worker. (The API serves these beside its routes.)

use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use orchestrator_engine::metrics::TEXT_FORMAT;
use tokio_util::sync::CancellationToken;

use crate::{BoxError, Context};

/// `/health`, `/health/live`, `/health/ready` and `/metrics`.
fn routes(ctx: Context) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(ctx)
}

async fn health(State(ctx): State<Context>) -> Response {
    let report = ctx.health.report().await;
    let status = StatusCode::from_u16(report.http_status()).unwrap_or(StatusCode::OK);
    (status, Json(report.to_json())).into_response()
}

/// The process turns its loop: that it answers is the answer.
async fn live() -> Json<serde_json::Value> {
    Json(serde_json::json!({ "status": "alive" }))
}

async fn ready(State(ctx): State<Context>) -> Response {
    let (status, body) = readiness(ctx.health.is_ready().await);
    (status, Json(body)).into_response()
}

/// As the API answers it, too; `docs/api.md` has the form.
fn readiness(ready: Result<(), String>) -> (StatusCode, serde_json::Value) {
    match ready {
        Ok(()) => (StatusCode::OK, serde_json::json!({ "status": "ready" })),
        Err(reason) => (
            StatusCode::SERVICE_UNAVAILABLE,
            serde_json::json!({ "status": "not_ready", "message": reason }),
        ),
    }
}

async fn metrics(State(ctx): State<Context>) -> Response {
    if !ctx.settings.enable_metrics {
        return StatusCode::NOT_FOUND.into_response();
    }
    ctx.metrics.process().observe(&ctx.pool, &ctx.streams);
    ([(header::CONTENT_TYPE, TEXT_FORMAT)], ctx.metrics.render()).into_response()
}

/// Listens at `address` and serves until `stop`. Returns when it listens.
///
/// # Errors
///
/// When the address is taken, with what to do about it.
pub(crate) async fn serve(
    ctx: Context,
    address: SocketAddr,
    stop: CancellationToken,
) -> Result<(), BoxError> {
    let listener = tokio::net::TcpListener::bind(address).await.map_err(|error| {
        format!("the health and metrics port {address} cannot be opened: {error}; set METRICS_PORT")
    })?;
    tracing::info!(address = %listener.local_addr()?, "health and metrics are served");
    tokio::spawn(async move {
        let served =
            axum::serve(listener, routes(ctx)).with_graceful_shutdown(stop.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the health and metrics port has closed"
            );
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whoever_is_not_ready_says_why() {
        let (status, body) = readiness(Err("the worker has not begun".to_owned()));

        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body, json!({ "status": "not_ready", "message": "the worker has not begun" }));
        assert_eq!(readiness(Ok(())), (StatusCode::OK, json!({ "status": "ready" })));
    }
}
