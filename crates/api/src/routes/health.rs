//! `/health` and `/metrics`: how the server is.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use orchestrator_boot::CheckOutcome;
use orchestrator_engine::metrics::TEXT_FORMAT;
use orchestrator_engine::store::process;
use serde_json::{Value, json};
use sqlx::PgPool;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::problem::Problem;
use crate::state::Api;

/// Its routes.
pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(health))
        .routes(routes!(live))
        .routes(routes!(ready))
        .routes(routes!(metrics))
}

/// Puts on the board what the API looks at besides its database. None of it is critical: without
/// Redis all goes on by polling, and without scheduler or workers tasks are still taken.
pub fn add_checks(api: &Api) {
    let streams = api.streams.clone();
    api.health.check("redis", false, move || {
        let streams = streams.clone();
        async move {
            if !streams.is_configured() {
                return CheckOutcome::healthy_with("not configured: wake-ups are polled for");
            }
            if streams.ping().await {
                CheckOutcome::healthy()
            } else {
                CheckOutcome::degraded("Redis does not answer: wake-ups are polled for")
            }
        }
    });
    for (check, service) in [("scheduler", "scheduler"), ("workers", "worker")] {
        let pool = api.pool.clone();
        api.health.check(check, false, move || {
            let pool = pool.clone();
            async move { alive(&pool, service).await }
        });
    }
}

async fn alive(pool: &PgPool, service: &'static str) -> CheckOutcome {
    let Ok(mut conn) = pool.acquire().await else {
        return CheckOutcome::unhealthy("the database does not answer");
    };
    match process::alive(&mut conn, service).await {
        Ok(alive) if alive.is_empty() => {
            CheckOutcome::unhealthy(format!("no {service} has been heard of lately"))
        }
        Ok(alive) => CheckOutcome::healthy_with(format!("{} alive", alive.len())),
        Err(_) => CheckOutcome::unhealthy("the database does not answer"),
    }
}

/// Say how the server is, part by part.
#[utoipa::path(get, path = "/health", tag = "server", security(()),
    responses((status = 200, description = "Healthy, or degraded.", body = Value),
              (status = 503, description = "Unhealthy.", body = Value)))]
async fn health(State(api): State<Api>) -> Response {
    let report = api.health.report().await;
    let status = StatusCode::from_u16(report.http_status()).unwrap_or(StatusCode::OK);
    (status, Json(report.to_json())).into_response()
}

/// Say that the process is there.
#[utoipa::path(get, path = "/health/live", tag = "server", security(()),
    responses((status = 200, description = "It is.", body = Value)))]
async fn live() -> Json<Value> {
    Json(json!({"status": "alive"}))
}

/// Say whether requests may be sent here.
#[utoipa::path(get, path = "/health/ready", tag = "server", security(()),
    responses((status = 200, description = "They may.", body = Value),
              (status = 503, description = "Not now.", body = Value)))]
async fn ready(State(api): State<Api>) -> Response {
    match api.health.is_ready().await {
        Ok(()) => Json(json!({"status": "ready"})).into_response(),
        Err(reason) => {
            let body = json!({"status": "not_ready", "message": reason});
            (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
        }
    }
}

/// Metrics in the Prometheus text format.
#[utoipa::path(get, path = "/metrics", tag = "server", security(()),
    responses((status = 200, description = "All of this process.", body = String,
               content_type = "text/plain"),
              (status = 404, description = "Switched off.")))]
async fn metrics(State(api): State<Api>) -> Result<Response, Problem> {
    if !api.options.enable_metrics {
        return Err(Problem::not_found("metrics are switched off (ENABLE_METRICS)"));
    }
    let process = api.metrics.process();
    process.observe(&api.pool, &api.streams);
    Ok(([(header::CONTENT_TYPE, TEXT_FORMAT)], api.metrics.render()).into_response())
}
