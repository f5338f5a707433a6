//! What can be done to a task: run it now, snooze, pause, resume and cancel it.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use chrono::TimeDelta;
use orchestrator_engine::id::{self, RunId};
use orchestrator_engine::pipeline::Pipeline;
use orchestrator_engine::run::{RunError, Trigger};
use orchestrator_engine::store::queue::{self, Canceled, NewWork};
use orchestrator_engine::store::task::{self, TaskRow};
use orchestrator_engine::task::{CatchUp, TaskStatus};
use serde_json::{Value, json};

use super::passed;
use super::wire::{Accepted, Nothing, Pause, Resume, RunNow, Snooze, Task};
use super::{held, tell};
use crate::auth::{Caller, RunsWrite, TasksWrite};
use crate::body::{Sent, too_much};
use crate::change::{Answer, Begun, Change};
use crate::gather::{Granted, Wish};
use crate::problem::{Problem, ProblemDocument};
use crate::state::Api;
use crate::trace;

/// The furthest a task can be snoozed, in days.
const SNOOZE_MAX_DAYS: i64 = 366;
/// The longest reason of a pause, in bytes.
const REASON_MAX: usize = 1_000;

/// Run a task now, beside its schedule.
///
/// The parameters lie over the task's own. Where an earlier run of the task stands for this one
/// (`debounce_seconds`, `singleton`, `dedupe_key` in its window), no second is made, and the answer
/// names that one.
#[utoipa::path(
    post, path = "/tasks/{id}/run_now", tag = "tasks",
    params(("id" = String, Path, description = "Id or name."),
           ("If-Match" = Option<String>, Header, description = "The ETag it must be at.")),
    request_body = RunNow,
    responses((status = 202, description = "Queued.", body = Accepted),
              (status = 409, description = "Canceled.", body = ProblemDocument))
)]
pub(super) async fn run_now(
    State(api): State<Api>,
    Path(reference): Path<String>,
    caller: Caller<RunsWrite>,
    sent: Sent<RunNow>,
) -> Result<Answer, Problem> {
    if let Some(params) = &sent.body.params
        && let Some(problem) = too_much(params, "/params", api.options.data_max_bytes)
    {
        return Err(Problem::invalid(vec![problem]));
    }
    if caller.idempotency_key.is_none() && caller.if_match.is_none() {
        let wish = Wish {
            reference: reference.clone(),
            sees: caller.sees(),
            agent: caller.agent.id,
            request_id: caller.request_id.clone(),
            client: caller.client,
            params: sent.body.params.clone(),
            at: api.clock.now(),
        };
        if let Granted::Queued(queued) = api.gather.ask(wish).await?? {
            trace::made(&api, queued.run, Some(queued.task), Trigger::RunNow);
            if queued.waits {
                api.let_next_in(queued.owner, None).await;
                api.streams.wake_workers().await;
            }
            return accepted(queued.run, false);
        }
    }
    let mut change = match Change::begin(&api, &caller, &sent.hash).await? {
        Begun::New(change) => change,
        Begun::Before(answer) => return Ok(answer),
    };
    let row = held(change.conn(), &caller, &reference).await?;
    if row.status == TaskStatus::Canceled {
        return Err(Problem::conflict("the task is canceled: it runs no more"));
    }
    let params = sent.body.params;
    check_params(&row.spec.payload, params.as_ref(), api.options.data_max_bytes)?;
    let (spec, of, now) = (&row.spec, (row.id, row.revision), change.now);
    let run_id = RunId::new(now, &mut id::rng());
    let work = NewWork {
        params: params.map(Value::Object),
        ..NewWork::of_task(run_id, row.agent_id, of, spec, Trigger::RunNow, now)
    };
    let waits = work.waits();
    // `held` holds the task.
    let queued = queue::enqueue_trigger(change.conn(), work, spec.merging()).await?;
    let detail = json!({"run_id": queued.run_id, "deduplicated": queued.deduplicated});
    change.audit("task.run_now", row.id, detail).await?;
    let answer = change.finish(accepted(queued.run_id, queued.deduplicated)?).await?;
    if waits {
        api.let_next_in(row.agent_id, None).await;
        // It waits for its time first, and then for the others.
        if row.spec.debounce_seconds.is_some() {
            api.streams.wake_scheduler().await;
        }
    }
    if !queued.deduplicated {
        trace::made(&api, queued.run_id, Some(row.id), Trigger::RunNow);
        api.tell_run("run.queued", row.agent_id, Some(row.id), queued.run_id).await;
    }
    Ok(answer)
}

fn accepted(run_id: RunId, deduplicated: bool) -> Result<Answer, Problem> {
    let accepted = Accepted { run_id, deduplicated };
    Ok(Answer::new(StatusCode::ACCEPTED, &accepted)?.location(format!("/runs/{run_id}")))
}

/// Refuses parameters that the pipeline does not declare, or that are larger than `max_bytes`.
pub(crate) fn check_params(
    payload: &Value,
    params: Option<&serde_json::Map<String, Value>>,
    max_bytes: usize,
) -> Result<(), Problem> {
    let (Some(params), Ok(pipeline)) = (params, Pipeline::load(payload)) else { return Ok(()) };
    let mut problems = pipeline.params_problems(params);
    problems.extend(too_much(params, "", max_bytes));
    if problems.is_empty() {
        return Ok(());
    }
    Err(Problem::invalid(problems.into_iter().map(|entry| entry.under("/params")).collect()))
}

/// A delay that somebody asks for. What is longer than a century is a century: too long either way,
/// and the sum with a time stays one.
pub(crate) fn delay_of(seconds: u64) -> TimeDelta {
    const CENTURY: TimeDelta = TimeDelta::days(36_525);
    let asked = i64::try_from(seconds).ok().and_then(TimeDelta::try_seconds);
    asked.unwrap_or(CENTURY).min(CENTURY)
}

/// Postpone the next due time of a task.
#[utoipa::path(
    post, path = "/tasks/{id}/snooze", tag = "tasks",
    params(("id" = String, Path, description = "Id or name."),
           ("If-Match" = Option<String>, Header, description = "The ETag it must be at.")),
    request_body = Snooze,
    responses((status = 200, description = "As it is now.", body = Task),
              (status = 409, description = "There is no next due time.", body = ProblemDocument))
)]
pub(super) async fn snooze(
    State(api): State<Api>,
    Path(reference): Path<String>,
    caller: Caller<TasksWrite>,
    sent: Sent<Snooze>,
) -> Result<Answer, Problem> {
    let mut change = match Change::begin(&api, &caller, &sent.hash).await? {
        Begun::New(change) => change,
        Begun::Before(answer) => return Ok(answer),
    };
    let now = change.now;
    let row = held(change.conn(), &caller, &reference).await?;
    let Some(next) = row.next_fire_at else {
        return Err(Problem::conflict("the task has no next due time that could be postponed"));
    };
    let until = match (sent.body.delay_seconds, sent.body.until) {
        (Some(seconds), None) if seconds > 0 => next + delay_of(seconds),
        (Some(_), None) => {
            return Err(Problem::invalid_at("/delay_seconds", "must be at least 1"));
        }
        (None, Some(until)) if until > next && until > now => until,
        (None, Some(_)) => {
            return Err(Problem::invalid_at(
                "/until",
                format!("must be in the future and after the next due time, {next}"),
            ));
        }
        _ => return Err(Problem::invalid_at("", "must have either delay_seconds or until")),
    };
    if until > next.max(now) + TimeDelta::days(SNOOZE_MAX_DAYS) {
        let pointer = if sent.body.until.is_some() { "/until" } else { "/delay_seconds" };
        let message =
            format!("must not postpone by more than {SNOOZE_MAX_DAYS} days; pause it instead");
        return Err(Problem::invalid_at(pointer, message));
    }
    task::snooze(change.conn(), &row, until, now).await?;
    done(&api, change, &row, "task.snooze", "task.snoozed", json!({"until": until})).await
}

/// Pause a task: its schedule is not followed until it is resumed. Runs that are queued or on go on.
#[utoipa::path(
    post, path = "/tasks/{id}/pause", tag = "tasks",
    params(("id" = String, Path, description = "Id or name."),
           ("If-Match" = Option<String>, Header, description = "The ETag it must be at.")),
    request_body = Pause,
    responses((status = 200, description = "As it is now.", body = Task),
              (status = 409, description = "Over already.", body = ProblemDocument))
)]
pub(super) async fn pause(
    State(api): State<Api>,
    Path(reference): Path<String>,
    caller: Caller<TasksWrite>,
    sent: Sent<Pause>,
) -> Result<Answer, Problem> {
    let reason = sent.body.reason.as_deref();
    if reason.is_some_and(|reason| reason.len() > REASON_MAX) {
        let message = format!("must have at most {REASON_MAX} bytes");
        return Err(Problem::invalid_at("/reason", message));
    }
    let mut change = match Change::begin(&api, &caller, &sent.hash).await? {
        Begun::New(change) => change,
        Begun::Before(answer) => return Ok(answer),
    };
    let now = change.now;
    let row = held(change.conn(), &caller, &reference).await?;
    match row.status {
        TaskStatus::Active => {}
        TaskStatus::Paused => return unchanged(change, row).await,
        over => {
            return Err(Problem::conflict(format!("the task is {over}: nothing is left to pause")));
        }
    }
    task::pause(change.conn(), &row, caller.agent.id, reason, now).await?;
    done(&api, change, &row, "task.pause", "task.paused", json!({"reason": reason})).await
}

/// Resume a paused task.
///
/// Its policy `catch_up` decides about the times that have passed meanwhile, within
/// `catch_up_window_seconds`; the others, or with `skip_missed` all, are `skipped_paused`.
#[utoipa::path(
    post, path = "/tasks/{id}/resume", tag = "tasks",
    params(("id" = String, Path, description = "Id or name."),
           ("If-Match" = Option<String>, Header, description = "The ETag it must be at.")),
    request_body = Resume,
    responses((status = 200, description = "As it is now; completed when no time is left.", body = Task),
              (status = 409, description = "Over already.", body = ProblemDocument))
)]
pub(super) async fn resume(
    State(api): State<Api>,
    Path(reference): Path<String>,
    caller: Caller<TasksWrite>,
    sent: Sent<Resume>,
) -> Result<Answer, Problem> {
    let mut change = match Change::begin(&api, &caller, &sent.hash).await? {
        Begun::New(change) => change,
        Begun::Before(answer) => return Ok(answer),
    };
    let now = change.now;
    let row = held(change.conn(), &caller, &reference).await?;
    match row.status {
        TaskStatus::Paused => {}
        TaskStatus::Active => return unchanged(change, row).await,
        over => return Err(Problem::conflict(format!("the task is {over}: it cannot be resumed"))),
    }
    let catch_up = if sent.body.skip_missed { CatchUp::None } else { row.spec.policy.catch_up };
    let (timing, completed) = passed::resume(change.conn(), &row, catch_up, now).await?;
    task::resume(change.conn(), &row, timing, completed, now).await?;
    done(&api, change, &row, "task.resume", "task.resumed", json!({"catch_up": catch_up})).await
}

/// Cancel a task for good. Its runs that no worker has begun are canceled with it; its history stays,
/// and its name is free again.
#[utoipa::path(
    post, path = "/tasks/{id}/cancel", tag = "tasks",
    params(("id" = String, Path, description = "Id or name."),
           ("If-Match" = Option<String>, Header, description = "The ETag it must be at.")),
    request_body = Nothing,
    responses((status = 200, description = "As it is now.", body = Task))
)]
pub(super) async fn cancel(
    State(api): State<Api>,
    Path(reference): Path<String>,
    caller: Caller<TasksWrite>,
    sent: Sent<Nothing>,
) -> Result<Answer, Problem> {
    let mut change = match Change::begin(&api, &caller, &sent.hash).await? {
        Begun::New(change) => change,
        Begun::Before(answer) => return Ok(answer),
    };
    let row = held(change.conn(), &caller, &reference).await?;
    if row.status == TaskStatus::Canceled {
        return unchanged(change, row).await;
    }
    let ended = end(&mut change, &row).await?;
    let detail = json!({"runs": ended.asked});
    let answer = done(&api, change, &row, "task.cancel", "task.canceled", detail).await?;
    api.count_canceled(ended.canceled);
    Ok(answer)
}

/// Cancel a task, as `POST /tasks/{id}/cancel` does.
#[utoipa::path(
    delete, path = "/tasks/{id}", tag = "tasks",
    params(("id" = String, Path, description = "Id or name."),
           ("If-Match" = Option<String>, Header, description = "The ETag it must be at.")),
    responses((status = 204, description = "Canceled."),
              (status = 404, description = "None, or not yours.", body = ProblemDocument),
              (status = 412, description = "Changed meanwhile.", body = ProblemDocument))
)]
pub(super) async fn delete(
    State(api): State<Api>,
    Path(reference): Path<String>,
    caller: Caller<TasksWrite>,
) -> Result<Answer, Problem> {
    let mut change = Change::plain(&api, &caller).await?;
    let row = held(change.conn(), &caller, &reference).await?;
    let mut ended = Ended::default();
    if row.status != TaskStatus::Canceled {
        ended = end(&mut change, &row).await?;
        change.audit("task.cancel", row.id, json!({"runs": ended.asked})).await?;
    }
    let answer = change.finish(Answer::nothing()).await?;
    api.count_canceled(ended.canceled);
    tell(&api, "task.canceled", row.agent_id, row.id).await;
    Ok(answer)
}

/// How many runs of a task there were to cancel, and how many ended with it.
#[derive(Default)]
struct Ended {
    asked: usize,
    canceled: usize,
}

/// Cancels the task and its runs that nobody has begun.
async fn end(change: &mut Change, row: &TaskRow) -> Result<Ended, Problem> {
    let now = change.now;
    if matches!(row.status, TaskStatus::Active | TaskStatus::Paused) {
        let reason = "the task was canceled before this time was dealt with";
        passed::write_off(change.conn(), row, reason, now, now).await?;
    }
    task::cancel(change.conn(), row, now).await?;
    let error = RunError {
        kind: "canceled".to_owned(),
        message: "its task was canceled".to_owned(),
        step: None,
    };
    let runs = task::queued_runs(change.conn(), row.id).await?;
    let ended = queue::cancel_many(change.conn(), &runs, &error).await?;
    Ok(Ended {
        asked: runs.len(),
        canceled: ended.iter().filter(|(_, what)| *what == Canceled::Done).count(),
    })
}

/// Ends a change of a task: its record, its answer, and the word to whoever watches.
async fn done(
    api: &Api,
    mut change: Change,
    row: &TaskRow,
    action: &str,
    kind: &'static str,
    detail: Value,
) -> Result<Answer, Problem> {
    change.audit(action, row.id, detail).await?;
    let shown = Task::from(task::get(change.conn(), row.id).await?);
    let answer = Answer::new(StatusCode::OK, &shown)?.etag(shown.version);
    let answer = change.finish(answer).await?;
    tell(api, kind, row.agent_id, row.id).await;
    Ok(answer)
}

/// The answer where the task is as it was asked to be already.
async fn unchanged(change: Change, row: TaskRow) -> Result<Answer, Problem> {
    let shown = Task::from(row);
    let answer = Answer::new(StatusCode::OK, &shown)?.etag(shown.version);
    change.finish(answer).await
}
