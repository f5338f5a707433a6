//! `/admin`: for whoever looks after the server.

use axum::Json;
use axum::extract::State;
use orchestrator_engine::store::invariant;
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::{Admin, Caller};
use crate::problem::Problem;
use crate::state::Api;

/// Its route.
pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(invariants))
}

/// What must be true of the data, and whether it is.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Invariants {
    /// Whether nothing contradicts.
    holds: bool,
    /// Each sentence.
    items: Vec<Invariant>,
}

/// A sentence that must be true.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Invariant {
    /// A word for it.
    name: &'static str,
    /// The sentence.
    says: &'static str,
    /// How many rows contradict it.
    violations: i64,
}

/// Ask everything that must be true of the data.
#[utoipa::path(get, path = "/admin/invariants", tag = "server",
    responses((status = 200, description = "Each sentence and its exceptions.", body = Invariants)))]
async fn invariants(State(api): State<Api>, _: Caller<Admin>) -> Result<Json<Invariants>, Problem> {
    let mut conn = api.conn().await?;
    let items: Vec<_> = invariant::check(&mut conn)
        .await?
        .into_iter()
        .map(|one| Invariant { name: one.name, says: one.says, violations: one.violations })
        .collect();
    Ok(Json(Invariants { holds: items.iter().all(|one| one.violations == 0), items }))
}
