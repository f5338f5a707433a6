//! `/audit`: who did what.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use orchestrator_engine::id::AgentId;
use orchestrator_engine::store::audit::{self, AuditFilter, AuditRow};
use orchestrator_engine::store::{StoreError, agent};
use serde::Serialize;
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::{AuditRead, Caller};
use crate::page::{List, Query};
use crate::problem::Problem;
use crate::state::Api;

/// Its route.
pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list))
}

/// A change that somebody made.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Audit {
    /// Counts up.
    id: i64,
    /// When.
    at: DateTime<Utc>,
    /// Who; null: the system itself.
    #[schema(value_type = Option<uuid::Uuid>)]
    agent_id: Option<AgentId>,
    /// The name of who did it.
    agent: Option<String>,
    /// `noun.verb`.
    action: String,
    /// The noun it was done to.
    object_kind: String,
    /// Its id.
    object_id: String,
    /// The request that did it.
    request_id: Option<String>,
    /// What else is worth knowing.
    #[schema(value_type = Object)]
    detail: Value,
}

impl From<AuditRow> for Audit {
    fn from(row: AuditRow) -> Self {
        Self {
            id: row.id,
            at: row.at,
            agent_id: row.agent_id,
            agent: row.agent,
            action: row.action,
            object_kind: row.object_kind,
            object_id: row.object_id,
            request_id: row.request_id,
            detail: row.detail,
        }
    }
}

/// List changes, the newest first.
#[utoipa::path(
    get, path = "/audit", tag = "audit",
    params(
        ("agent" = Option<String>, Query, description = "Name or id of who did it."),
        ("action" = Option<String>, Query, description = "noun.verb, as in task.create."),
        ("object_kind" = Option<String>, Query, description = "The noun it was done to."),
        ("object_id" = Option<String>, Query, description = "Its id."),
        ("from" = Option<String>, Query, description = "Not before."),
        ("to" = Option<String>, Query, description = "Before."),
        ("limit" = Option<i64>, Query, description = "1 to 200; default 50."),
        ("cursor" = Option<i64>, Query, description = "The next_cursor of the page before."),
    ),
    responses((status = 200, description = "A page.", body = List<Audit>))
)]
async fn list(
    State(api): State<Api>,
    _: Caller<AuditRead>,
    mut query: Query,
) -> Result<Json<List<Audit>>, Problem> {
    let agent_name = query.text("agent");
    let mut filter = AuditFilter {
        agent_id: None,
        action: query.text("action"),
        object_kind: query.text("object_kind"),
        object_id: query.text("object_id"),
        from: query.time("from"),
        to: query.time("to"),
    };
    let page = query.page();
    query.done()?;
    let mut conn = api.conn().await?;
    if let Some(name) = agent_name {
        filter.agent_id = match agent::get(&mut conn, &name).await {
            Ok(agent) => Some(agent.id),
            Err(StoreError::NotFound { .. }) => {
                return Ok(Json(List { items: Vec::new(), next_cursor: None }));
            }
            Err(error) => return Err(error.into()),
        };
    }
    let rows = audit::list(&mut conn, &filter, page.cursor, page.ask()).await?;
    Ok(Json(page.of(rows, |row| row.id.to_string(), Audit::from)))
}
