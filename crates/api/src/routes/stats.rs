//! `/stats`: counts for screens.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, TimeDelta, Utc};
use orchestrator_engine::run::RunStatus;
use orchestrator_engine::store::{process, run, task};
use orchestrator_engine::task::TaskStatus;
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::{Caller, RunsRead};
use crate::page::Query;
use crate::problem::Problem;
use crate::state::Api;

/// Finished runs are counted so far back.
const RECENT: TimeDelta = TimeDelta::hours(24);

/// Its route.
pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(stats))
}

/// Counts of what the caller may see.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Stats {
    /// Tasks by status.
    tasks: BTreeMap<&'static str, i64>,
    /// Runs by status: `queued`, `running` and `waiting` now, the others since `since`.
    runs: BTreeMap<&'static str, i64>,
    /// Finished runs are counted from here.
    since: DateTime<Utc>,
    /// Workers alive, how many runs they can work on at once, and on how many they are.
    workers: Workers,
    /// Schedulers alive.
    schedulers: usize,
}

/// What workers there are.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Workers {
    alive: usize,
    capacity: i64,
    active: i64,
}

/// Count tasks, runs and workers.
#[utoipa::path(get, path = "/stats", tag = "server",
    responses((status = 200, description = "The counts.", body = Stats)))]
async fn stats(
    State(api): State<Api>,
    caller: Caller<RunsRead>,
    query: Query,
) -> Result<Json<Stats>, Problem> {
    query.done()?;
    let since = api.clock.now() - RECENT;
    let mut conn = api.conn().await?;
    let mut tasks: BTreeMap<_, _> = TaskStatus::ALL.iter().map(|s| (s.as_str(), 0)).collect();
    for (status, count) in task::counts(&mut conn, caller.sees()).await? {
        tasks.insert(status.as_str(), count);
    }
    let mut runs: BTreeMap<_, _> = RunStatus::ALL.iter().map(|s| (s.as_str(), 0)).collect();
    for (status, count) in run::counts(&mut conn, caller.sees(), since).await? {
        runs.insert(status.as_str(), count);
    }
    let workers = process::alive(&mut conn, "worker").await?;
    let schedulers = process::alive(&mut conn, "scheduler").await?.len();
    Ok(Json(Stats {
        tasks,
        runs,
        since,
        workers: Workers {
            alive: workers.len(),
            capacity: workers.iter().map(|worker| i64::from(worker.capacity)).sum(),
            active: workers.iter().map(|worker| i64::from(worker.active)).sum(),
        },
        schedulers,
    }))
}
