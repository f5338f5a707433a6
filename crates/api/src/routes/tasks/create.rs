//! `POST /tasks`.

use axum::extract::State;
use axum::http::StatusCode;
use orchestrator_engine::id::{self, TaskId};
use orchestrator_engine::store::task::Timing;
use orchestrator_engine::store::{task, tool_catalogue};
use serde_json::{Map, Value, json};

use super::check::{self, Against};
use super::{Task, scopes_of, take_created_by, tell};
use crate::auth::{Caller, TasksWrite};
use crate::body::Sent;
use crate::change::{Answer, Begun, Change};
use crate::openapi::TaskFields;
use crate::problem::{Problem, ProblemDocument};
use crate::state::Api;

/// Declare a task.
///
/// Everything in it is checked at once: fields, schedule, every step, every expression, and that the
/// owner may use its tools. A task that is accepted can run.
#[utoipa::path(
    post, path = "/tasks", tag = "tasks", request_body = TaskFields,
    responses(
        (status = 201, description = "Made.", body = Task,
         headers(("Location" = String), ("ETag" = String))),
        (status = 409, description = "The name is taken.", body = ProblemDocument),
        (status = 422, description = "What is wrong, with pointers.", body = ProblemDocument),
    )
)]
pub(super) async fn create(
    State(api): State<Api>,
    caller: Caller<TasksWrite>,
    sent: Sent<Map<String, Value>>,
) -> Result<Answer, Problem> {
    let mut change = match Change::begin(&api, &caller, &sent.hash).await? {
        Begun::New(change) => change,
        Begun::Before(answer) => return Ok(answer),
    };
    let now = change.now;
    let mut declared = sent.body;
    let created_by = take_created_by(change.conn(), &caller.agent, &mut declared).await?;
    let owner = created_by.unwrap_or(caller.agent.id);
    api.options.fill_in_zone(&mut declared);
    let scopes = scopes_of(change.conn(), &caller.agent, owner).await?;
    let catalogue = tool_catalogue::catalogue(change.conn()).await?;
    let declared = Value::Object(declared);
    let calendars = check::calendars(change.conn(), owner, &declared).await?;
    let against = Against {
        catalogue: &catalogue,
        scopes: &scopes,
        calendars: &calendars,
        created_at: now,
        now,
        fires: 0,
        in_force: None,
    };
    let checked = check::check(declared, &against).map_err(Problem::invalid)?;

    let id = TaskId::new(now, &mut id::rng());
    let timing = checked.timing.unwrap_or(Timing { cursor_at: now, next_fire_at: None });
    let spec = &checked.spec;
    task::insert(change.conn(), id, owner, caller.agent.id, spec, timing, now).await?;
    let detail = json!({"name": spec.name, "schedule_kind": spec.schedule_kind, "owner": owner});
    change.audit("task.create", id, detail).await?;
    let made = Task::from(task::get(change.conn(), id).await?);
    let answer = Answer::new(StatusCode::CREATED, &made)?
        .location(format!("/tasks/{id}"))
        .etag(made.version);
    let answer = change.finish(answer).await?;
    tell(&api, "task.created", owner, id).await;
    Ok(answer)
}
