//! `/`: where to go from here.

use axum::Json;
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::state::Api;

/// Its route.
pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(root))
}

/// The doors of this server.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Doors {
    name: &'static str,
    version: &'static str,
    docs: &'static str,
    openapi: &'static str,
    health: &'static str,
    metrics: &'static str,
    tasks: &'static str,
    runs: &'static str,
}

/// Name the doors of this server.
#[utoipa::path(get, path = "/", tag = "server", security(()),
    responses((status = 200, description = "Where to go.", body = Doors)))]
async fn root() -> Json<Doors> {
    Json(Doors {
        name: "Personal Agent Orchestrator",
        version: orchestrator_engine::VERSION,
        docs: "/docs",
        openapi: "/openapi.json",
        health: "/health",
        metrics: "/metrics",
        tasks: "/tasks",
        runs: "/runs",
    })
}
