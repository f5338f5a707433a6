//! `/pipelines/validate`: whether a payload would be accepted.

use axum::Json;
use axum::extract::State;
use orchestrator_engine::store::tool_catalogue;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::tasks::check_payload;
use crate::auth::{Caller, Known};
use crate::body::Sent;
use crate::openapi::PayloadFields;
use crate::problem::{Mistake, Problem};
use crate::state::Api;

/// Its route.
pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(validate))
}

/// Whether a payload would be accepted.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Validated {
    /// Whether it would.
    valid: bool,
    /// What is wrong; empty when it would. Pointers are relative to the payload.
    problems: Vec<Mistake>,
    /// The payload with ids and defaults written out, when it would.
    #[schema(value_type = Option<PayloadFields>)]
    pipeline: Option<Value>,
}

/// Check a payload as `POST /tasks` would, without making a task.
#[utoipa::path(
    post, path = "/pipelines/validate", tag = "pipelines", request_body = PayloadFields,
    responses((status = 200, description = "Whether it would be accepted, and why not.",
               body = Validated))
)]
async fn validate(
    State(api): State<Api>,
    caller: Caller<Known>,
    sent: Sent<Map<String, Value>>,
) -> Result<Json<Validated>, Problem> {
    let mut conn = api.conn().await?;
    let catalogue = tool_catalogue::catalogue(&mut conn).await?;
    drop(conn);
    let checked = check_payload(&Value::Object(sent.body), &catalogue, &caller.agent.scopes);
    Ok(Json(match checked {
        Ok(pipeline) => Validated { valid: true, problems: Vec::new(), pipeline: Some(pipeline) },
        Err(problems) => Validated {
            valid: false,
            problems: problems.into_iter().map(Mistake::from).collect(),
            pipeline: None,
        },
    }))
}
