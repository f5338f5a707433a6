//! `/tools`: what a step can use.

use axum::Json;
use axum::extract::{Path, State};
use chrono::{DateTime, Utc};
use orchestrator_engine::store::tool_catalogue;
use orchestrator_engine::tool::ToolSpec;
use serde::Serialize;
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::{Caller, Known};
use crate::page::{List, Query};
use crate::problem::{Problem, ProblemDocument};
use crate::state::Api;

/// Its routes.
pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show))
}

/// A tool.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Tool {
    /// `server.tool`, as a step names it in `uses`.
    address: String,
    /// What it does.
    description: String,
    /// JSON Schema of a step's `with`.
    input_schema: Value,
    /// JSON Schema of the result, where the tool declares one.
    output_schema: Option<Value>,
    /// How long a call may take when the step does not say.
    timeout_seconds: u32,
    /// The scope its user needs; null: none.
    scope: Option<String>,
    /// `builtin`, or `mcp:<server>`.
    source: String,
    /// When a worker last offered it.
    seen_at: DateTime<Utc>,
}

impl From<(ToolSpec, DateTime<Utc>)> for Tool {
    fn from((spec, seen_at): (ToolSpec, DateTime<Utc>)) -> Self {
        Self {
            address: spec.address,
            description: spec.description,
            input_schema: spec.input_schema,
            output_schema: spec.output_schema,
            timeout_seconds: spec.timeout_seconds,
            scope: spec.scope,
            source: spec.source,
            seen_at,
        }
    }
}

/// List the tools that workers offer, by address. The list is short and comes whole.
#[utoipa::path(get, path = "/tools", tag = "tools",
    responses((status = 200, description = "All of them.", body = List<Tool>)))]
async fn list(
    State(api): State<Api>,
    _: Caller<Known>,
    query: Query,
) -> Result<Json<List<Tool>>, Problem> {
    query.done()?;
    let mut conn = api.conn().await?;
    let items = tool_catalogue::list(&mut conn).await?.into_iter().map(Tool::from).collect();
    Ok(Json(List { items, next_cursor: None }))
}

/// Show a tool.
#[utoipa::path(get, path = "/tools/{address}", tag = "tools",
    params(("address" = String, Path, description = "server.tool")),
    responses((status = 200, description = "The tool.", body = Tool),
              (status = 404, description = "No worker offers it.", body = ProblemDocument)))]
async fn show(
    State(api): State<Api>,
    Path(address): Path<String>,
    _: Caller<Known>,
) -> Result<Json<Tool>, Problem> {
    let mut conn = api.conn().await?;
    tool_catalogue::list(&mut conn)
        .await?
        .into_iter()
        .find(|(tool, _)| tool.address == address)
        .map(|tool| Json(Tool::from(tool)))
        .ok_or_else(|| Problem::no_such("tool", &address))
}
