//! `/runs`: what was, is and will be done.

mod batch;
mod bulk;
mod wire;

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use orchestrator_engine::id::{self, AgentId, RunId};
use orchestrator_engine::run::{RunError, RunStatus, Trigger};
use orchestrator_engine::store::queue::{self, Canceled, NewWork};
use orchestrator_engine::store::run::{self, RunFilter};
use orchestrator_engine::store::{StoreError, execution, task, tool_catalogue};
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use self::wire::Run;
use self::wire::{CancelRun, NewRun, RetryRun, RunDetail};
use super::tasks::{Accepted, check_params, check_payload};
use crate::auth::{Caller, RunsRead, RunsWrite};
use crate::body::Sent;
use crate::change::{Answer, Begun, Change};
use crate::page::{List, Query};
use crate::problem::{Problem, ProblemDocument};
use crate::state::Api;
use crate::trace;

/// Its routes.
pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show))
        .routes(routes!(batch::create))
        .routes(routes!(bulk::cancel))
        .routes(routes!(bulk::retry))
        .routes(routes!(cancel))
        .routes(routes!(retry))
}

fn run_id(text: &str) -> Result<RunId, Problem> {
    text.parse().map_err(|_| Problem::no_such("run", text))
}

/// List runs, the newest first.
#[utoipa::path(
    get, path = "/runs", tag = "runs",
    params(
        ("task_id" = Option<String>, Query, description = "Id or name of the task."),
        ("status" = Option<String>, Query, description = "queued, running, waiting, succeeded, failed, canceled or expired."),
        ("trigger" = Option<String>, Query, description = "schedule, event, condition, run_now, backfill or run_task."),
        ("from" = Option<String>, Query, description = "Scheduled not before."),
        ("to" = Option<String>, Query, description = "Scheduled before."),
        ("error_kind" = Option<String>, Query, description = "Whose error is of this kind, as timeout."),
        ("limit" = Option<i64>, Query, description = "1 to 200; default 50."),
        ("cursor" = Option<String>, Query, description = "The next_cursor of the page before."),
    ),
    responses((status = 200, description = "A page.", body = List<Run>),
              (status = 400, description = "A parameter is wrong.", body = ProblemDocument))
)]
async fn list(
    State(api): State<Api>,
    caller: Caller<RunsRead>,
    mut query: Query,
) -> Result<Json<List<Run>>, Problem> {
    let mut filter = RunFilter {
        agent_id: caller.sees(),
        task_id: None,
        status: query.parsed("status"),
        trigger: query.parsed("trigger"),
        from: query.time("from"),
        to: query.time("to"),
        error_kind: query.text("error_kind"),
    };
    let task = query.text("task_id");
    let page = query.page();
    query.done()?;
    let mut conn = api.conn().await?;
    if let Some(reference) = task {
        filter.task_id = match task::find(&mut conn, &reference, caller.sees()).await {
            Ok(id) => Some(id),
            Err(StoreError::NotFound { .. }) => {
                return Ok(Json(List { items: Vec::new(), next_cursor: None }));
            }
            Err(error) => return Err(error.into()),
        };
    }
    let rows = run::list(&mut conn, &filter, page.cursor, page.ask()).await?;
    Ok(Json(page.of(rows, |row| row.id.to_string(), Run::from)))
}

/// Run a payload once, without a task.
#[utoipa::path(
    post, path = "/runs", tag = "runs", request_body = NewRun,
    responses((status = 202, description = "Queued.", body = Accepted,
               headers(("Location" = String))),
              (status = 422, description = "What is wrong, with pointers.", body = ProblemDocument))
)]
async fn create(
    State(api): State<Api>,
    caller: Caller<RunsWrite>,
    sent: Sent<NewRun>,
) -> Result<Answer, Problem> {
    let mut change = match Change::begin(&api, &caller, &sent.hash).await? {
        Begun::New(change) => change,
        Begun::Before(answer) => return Ok(answer),
    };
    let new = sent.body;
    let catalogue = tool_catalogue::catalogue(change.conn()).await?;
    let definition = check_payload(&new.payload, &catalogue, &caller.agent.scopes);
    let mut problems = Vec::new();
    if let Err(found) = &definition {
        problems.extend(found.iter().cloned().map(|entry| entry.under("/payload")));
    }
    let mut require = |fine: bool, pointer: &str, message: &str| {
        if !fine {
            problems.push(orchestrator_engine::problem::Problem::new(pointer, message));
        }
    };
    require(
        new.priority.is_none_or(|priority| (1..=9).contains(&priority)),
        "/priority",
        "must be 1 (first) to 9",
    );
    require(
        new.expires_after_seconds != Some(0),
        "/expires_after_seconds",
        "must be at least 1 second, or null",
    );
    require(new.dedupe_key.as_deref().is_none_or(batch::key_fits), "/dedupe_key", batch::KEY_RULE);
    require(
        new.dedupe_key.is_none() || new.dedupe_window_seconds > 0,
        "/dedupe_window_seconds",
        batch::WINDOW_RULE,
    );
    let (Ok(definition), true) = (definition, problems.is_empty()) else {
        return Err(Problem::invalid(problems));
    };
    check_params(&definition, new.params.as_ref(), api.options.data_max_bytes)?;
    let window = Duration::from_secs(new.dedupe_window_seconds.into());
    let run_id = RunId::new(change.now, &mut id::rng());
    let plain = NewWork::of_payload(run_id, caller.agent.id, definition, change.now);
    let work = NewWork {
        priority: new.priority.unwrap_or(plain.priority),
        expires_after: new.expires_after_seconds.map(|s| Duration::from_secs(s.into())),
        params: new.params.map(Value::Object),
        dedupe: new.dedupe_key.map(|key| (key, window)),
        ..plain
    };
    let queued = queue::enqueue(change.conn(), work).await?;
    change.audit("run.create", queued.run_id, json!({"deduplicated": queued.deduplicated})).await?;
    let accepted = Accepted { run_id: queued.run_id, deduplicated: queued.deduplicated };
    let answer =
        Answer::new(StatusCode::ACCEPTED, &accepted)?.location(format!("/runs/{}", queued.run_id));
    let answer = change.finish(answer).await?;
    if !queued.deduplicated {
        trace::made(&api, queued.run_id, None, Trigger::RunNow);
        api.tell_run("run.queued", caller.agent.id, None, queued.run_id).await;
    }
    Ok(answer)
}

async fn detail(
    conn: &mut sqlx::PgConnection,
    id: RunId,
    owner: Option<AgentId>,
) -> Result<RunDetail, Problem> {
    let row = run::get(conn, id, owner).await?;
    let records = execution::step_records(conn, &[id]).await?;
    Ok(RunDetail::new(row, records.into_iter().map(|(_, record)| record.into()).collect()))
}

/// Show a run and its steps.
#[utoipa::path(
    get, path = "/runs/{id}", tag = "runs",
    params(("id" = String, Path, description = "Id.")),
    responses((status = 200, description = "The run.", body = RunDetail),
              (status = 404, description = "None, or not yours.", body = ProblemDocument))
)]
async fn show(
    State(api): State<Api>,
    Path(id): Path<String>,
    caller: Caller<RunsRead>,
) -> Result<Json<RunDetail>, Problem> {
    let mut conn = api.conn().await?;
    Ok(Json(detail(&mut conn, run_id(&id)?, caller.sees()).await?))
}

/// Cancel a run: at once where nobody works on it, else at its worker's next sign of life.
#[utoipa::path(
    post, path = "/runs/{id}/cancel", tag = "runs",
    params(("id" = String, Path, description = "Id.")),
    request_body = CancelRun,
    responses((status = 200, description = "Canceled.", body = RunDetail),
              (status = 202, description = "Its worker has been asked.", body = RunDetail),
              (status = 409, description = "Over already.", body = ProblemDocument))
)]
async fn cancel(
    State(api): State<Api>,
    Path(id): Path<String>,
    caller: Caller<RunsWrite>,
    sent: Sent<CancelRun>,
) -> Result<Answer, Problem> {
    let id = run_id(&id)?;
    let mut change = match Change::begin(&api, &caller, &sent.hash).await? {
        Begun::New(change) => change,
        Begun::Before(answer) => return Ok(answer),
    };
    let before = run::get(change.conn(), id, caller.sees()).await?;
    let error = RunError {
        kind: "canceled".to_owned(),
        message: format!("canceled by {}", caller.agent.name),
        step: None,
    };
    let became = queue::cancel(change.conn(), id, &error).await?;
    let status = match became {
        Canceled::Done => StatusCode::OK,
        Canceled::Requested => StatusCode::ACCEPTED,
        Canceled::NotQueued => {
            let now = run::get(change.conn(), id, caller.sees()).await?;
            if now.status != RunStatus::Canceled {
                return Err(Problem::conflict(format!("the run has {} already", now.status)));
            }
            StatusCode::OK
        }
    };
    change.audit("run.cancel", id, json!({"status": before.status})).await?;
    let shown = detail(change.conn(), id, None).await?;
    let answer = change.finish(Answer::new(status, &shown)?).await?;
    api.count_canceled(usize::from(became == Canceled::Done));
    let kind = match status {
        StatusCode::OK => "run.canceled",
        _ => "run.cancel_requested",
    };
    api.let_next_in(before.agent_id, before.task_id).await;
    api.tell_run(kind, before.agent_id, before.task_id, id).await;
    Ok(answer)
}

/// Run a failed, canceled or expired run again, under its own id.
///
/// It gets the full number of attempts. Steps that succeeded are not done again, unless `from_step`
/// says so; records of steps that are to be done again stay, as `canceled` with the reason.
#[utoipa::path(
    post, path = "/runs/{id}/retry", tag = "runs",
    params(("id" = String, Path, description = "Id.")),
    request_body = RetryRun,
    responses((status = 202, description = "Queued.", body = RunDetail),
              (status = 409, description = "Not over, or succeeded.", body = ProblemDocument))
)]
async fn retry(
    State(api): State<Api>,
    Path(id): Path<String>,
    caller: Caller<RunsWrite>,
    sent: Sent<RetryRun>,
) -> Result<Answer, Problem> {
    let id = run_id(&id)?;
    let mut change = match Change::begin(&api, &caller, &sent.hash).await? {
        Begun::New(change) => change,
        Begun::Before(answer) => return Ok(answer),
    };
    let before = run::get(change.conn(), id, caller.sees()).await?;
    if before.status == RunStatus::Succeeded || !before.status.is_finished() {
        let message = format!(
            "the run is {}: only a failed, canceled or expired one can be retried",
            before.status
        );
        return Err(Problem::conflict(message));
    }
    let from_step = sent.body.from_step;
    let set_aside = run::retry(change.conn(), id, from_step.as_deref()).await?;
    let detail_of = json!({"from_step": from_step, "set_aside": set_aside});
    change.audit("run.retry", id, detail_of).await?;
    let shown = detail(change.conn(), id, None).await?;
    let answer = change.finish(Answer::new(StatusCode::ACCEPTED, &shown)?).await?;
    api.let_next_in(before.agent_id, before.task_id).await;
    trace::made_again(&api, id);
    api.tell_run("run.queued", before.agent_id, before.task_id, id).await;
    Ok(answer)
}
