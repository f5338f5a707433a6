//! `/auth/me`: whose key was shown.

use axum::Json;
use orchestrator_engine::id::AgentId;
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::{Caller, Known};
use crate::problem::ProblemDocument;
use crate::state::Api;

/// Its route.
pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(me))
}

/// The agent that calls.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Me {
    /// Its id.
    #[schema(value_type = uuid::Uuid)]
    id: AgentId,
    /// Its name, as tasks show it in `created_by`.
    name: String,
    /// What it may do.
    scopes: Vec<String>,
}

/// Say whose key was shown.
#[utoipa::path(get, path = "/auth/me", tag = "agents",
    responses((status = 200, description = "The agent that calls.", body = Me),
              (status = 401, description = "Nobody's.", body = ProblemDocument)))]
async fn me(caller: Caller<Known>) -> Json<Me> {
    let agent = &caller.agent;
    Json(Me { id: agent.id, name: agent.name.clone(), scopes: agent.scopes.clone() })
}
