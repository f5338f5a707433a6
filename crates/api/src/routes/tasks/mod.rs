//! `/tasks`: what agents declare.

mod backfill;
mod check;
mod create;
mod explain;
mod lifecycle;
mod look;
mod passed;
mod patch;
mod wire;

use chrono::{DateTime, Utc};
use orchestrator_engine::agent::Agent;
use orchestrator_engine::id::{AgentId, TaskId};
use orchestrator_engine::schedule::calendar::Calendars;
use orchestrator_engine::schedule::{Schedule, ScheduleSpec};
use orchestrator_engine::store::calendar::CalendarCache;
use orchestrator_engine::store::task::TaskRow;
use orchestrator_engine::store::{StoreError, agent, calendar, task};
use orchestrator_engine::streams::Lifecycle;
use orchestrator_engine::task::TaskSpec;
use serde_json::{Map, Value};
use sqlx::PgConnection;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) use check::payload as check_payload;
pub(crate) use lifecycle::{check_params, delay_of};
pub use wire::{Accepted, Task};

use crate::auth::Caller;
use crate::problem::Problem;
use crate::state::Api;

/// Its routes.
pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(look::list, create::create))
        .routes(routes!(look::show, patch::patch, lifecycle::delete))
        .routes(routes!(lifecycle::run_now))
        .routes(routes!(lifecycle::snooze))
        .routes(routes!(lifecycle::pause))
        .routes(routes!(lifecycle::resume))
        .routes(routes!(lifecycle::cancel))
        .routes(routes!(backfill::backfill))
        .routes(routes!(explain::explain))
        .routes(routes!(look::occurrences))
        .routes(routes!(look::revisions))
}

/// The task that `reference` names, held until the transaction ends, if the caller may change it and
/// it is at a version the caller named.
async fn held<S>(
    conn: &mut PgConnection,
    caller: &Caller<S>,
    reference: &str,
) -> Result<TaskRow, Problem> {
    let id = task::find(conn, reference, caller.sees()).await?;
    let row = task::lock(conn, id).await?;
    caller.check_version(row.version)?;
    Ok(row)
}

/// Takes `created_by` out of a declaration. `None` where it is missing or null; otherwise the agent it
/// names, which only an admin may name besides itself.
async fn take_created_by(
    conn: &mut PgConnection,
    caller: &Agent,
    declared: &mut Map<String, Value>,
) -> Result<Option<AgentId>, Problem> {
    let named = match declared.remove("created_by") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(named)) => named,
        Some(_) => {
            return Err(Problem::invalid_at("/created_by", "must be the name or id of an agent"));
        }
    };
    if named == caller.name || named == caller.id.to_string() {
        return Ok(Some(caller.id));
    }
    let refuse = |message: String| Problem::invalid_at("/created_by", message);
    if !caller.is_admin() {
        return Err(refuse(format!(
            "must name you, {:?}: only an admin makes tasks for others",
            caller.name
        )));
    }
    match agent::get(conn, &named).await {
        Ok(agent) => Ok(Some(agent.id)),
        Err(StoreError::NotFound { .. }) => Err(refuse(format!("there is no agent {named:?}"))),
        Err(error) => Err(error.into()),
    }
}

/// What the owner may do.
async fn scopes_of(
    conn: &mut PgConnection,
    caller: &Agent,
    owner: AgentId,
) -> Result<Vec<String>, Problem> {
    if owner == caller.id {
        return Ok(caller.scopes.clone());
    }
    Ok(agent::get(conn, &owner.to_string()).await?.scopes)
}

/// The schedule in force of the task, with its owner's calendars; inside, why it cannot be followed.
async fn compiled(
    conn: &mut PgConnection,
    row: &TaskRow,
) -> Result<Result<Schedule, Vec<orchestrator_engine::problem::Problem>>, Problem> {
    let spec = ScheduleSpec::from(&row.spec);
    let mut cache = CalendarCache::default();
    let calendars = calendar::of_schedule(conn, row.agent_id, &spec, &mut cache).await?;
    Ok(Schedule::compile_with(&spec, row.created_at, &calendars))
}

/// The schedule of any revision of the task, for asking which times it names: what its calendars leave
/// out is not looked at, and one of them may be gone.
fn compiled_as(
    spec: &TaskSpec,
    created_at: DateTime<Utc>,
) -> Result<Schedule, Vec<orchestrator_engine::problem::Problem>> {
    Schedule::compile_with(&ScheduleSpec::from(spec), created_at, &Calendars::any())
}

/// Tells whoever watches, after the commit.
async fn tell(api: &Api, kind: &'static str, owner: AgentId, task: TaskId) {
    let change =
        Lifecycle { kind, agent_id: owner, task_id: Some(task), run_id: None, at: api.clock.now() };
    api.streams.lifecycle(&[change]).await;
    api.streams.wake_scheduler().await;
}
