//! `POST /runs/cancel` and `POST /runs/retry`: many runs at once, chosen by a filter.
//!
//! A call ends or retries at most [`queue::MANY_MAX`] runs, in one transaction with the record of who
//! asked for it; the answer says whether more are left, so that the caller repeats.

use std::collections::HashMap;

use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use orchestrator_engine::id::{AgentId, RunId, TaskId};
use orchestrator_engine::problem::Problem as Entry;
use orchestrator_engine::run::{RunError, RunStatus, Trigger};
use orchestrator_engine::store::queue::{self, Canceled};
use orchestrator_engine::store::run::{self, RunFilter};
use orchestrator_engine::store::run_list::{self, Among};
use orchestrator_engine::store::{StoreError, task};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::auth::{Caller, RunsWrite};
use crate::body::Sent;
use crate::change::{Answer, Begun, Change};
use crate::problem::{Problem, ProblemDocument};
use crate::state::Api;
use crate::{time, trace};

/// How many runs are counted to say how many there are.
const COUNT_MAX: i64 = 100_000;
/// How many ids an answer names.
const NAMED_MAX: usize = 100;

/// Which runs are to be ended. Without any filter, `all` has to be true.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(min_properties = 1)]
pub(super) struct CancelRuns {
    /// Id or name of the task.
    task_id: Option<String>,
    /// `queued` or `running`; without it, both.
    #[schema(value_type = Option<String>)]
    status: Option<RunStatus>,
    /// What made them.
    #[schema(value_type = Option<String>)]
    trigger: Option<Trigger>,
    /// Scheduled not before.
    #[serde(deserialize_with = "time::optional")]
    from: Option<DateTime<Utc>>,
    /// Scheduled before.
    #[serde(deserialize_with = "time::optional")]
    to: Option<DateTime<Utc>>,
    /// Whether all of them are meant, where there is no filter.
    all: bool,
    /// How many at most in this call; 1 to 1,000, the default.
    #[schema(minimum = 1, maximum = 1000)]
    limit: Option<u16>,
    /// The `next_cursor` of the answer before: those behind it.
    #[schema(value_type = Option<uuid::Uuid>)]
    cursor: Option<RunId>,
    /// Only counts them, up to 100,000.
    dry_run: bool,
}

/// Which runs are to be run again. Without any filter, `all` has to be true.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(min_properties = 1)]
pub(super) struct RetryRuns {
    /// Id or name of the task.
    task_id: Option<String>,
    /// `failed`, the default, `canceled` or `expired`.
    #[schema(value_type = Option<String>)]
    status: Option<RunStatus>,
    /// What made them.
    #[schema(value_type = Option<String>)]
    trigger: Option<Trigger>,
    /// Scheduled not before.
    #[serde(deserialize_with = "time::optional")]
    from: Option<DateTime<Utc>>,
    /// Scheduled before.
    #[serde(deserialize_with = "time::optional")]
    to: Option<DateTime<Utc>>,
    /// Whose error is of this kind, as `timeout`.
    error_kind: Option<String>,
    /// Whether all of them are meant, where there is no filter.
    all: bool,
    /// How many at most in this call; 1 to 1,000, the default.
    #[schema(minimum = 1, maximum = 1000)]
    limit: Option<u16>,
    /// The `next_cursor` of the answer before: those behind it. A run that fails again meanwhile is not
    /// among these.
    #[schema(value_type = Option<uuid::Uuid>)]
    cursor: Option<RunId>,
    /// Only counts them, up to 100,000.
    dry_run: bool,
}

/// What was done with the runs that match.
#[expect(clippy::struct_field_names, reason = "names of the wire")]
#[derive(Debug, Default, Serialize, utoipa::ToSchema)]
struct Done {
    /// How many were found, up to `limit`; in a dry run up to 100,000.
    matched: usize,
    /// Whether more match: the same request with this `cursor` does the next of them.
    more: bool,
    /// Where to go on; null where no more match.
    #[schema(value_type = Option<uuid::Uuid>)]
    next_cursor: Option<RunId>,
    /// Whether nothing was done.
    dry_run: bool,
    /// How many ended, or went back to the queue.
    done: usize,
    /// How many are on: their workers have been asked to end them.
    requested: usize,
    /// The first hundred, the newest first.
    #[schema(value_type = Vec<uuid::Uuid>)]
    run_ids: Vec<RunId>,
}

/// Cancel the runs that match: at once where nobody works on them, else at their workers' next signs
/// of life. The newest first, at most 1,000 in a call.
#[utoipa::path(
    post, path = "/runs/cancel", tag = "runs",
    request_body = CancelRuns,
    responses((status = 200, description = "Canceled, or only counted.", body = Done),
              (status = 202, description = "Some workers have been asked.", body = Done),
              (status = 422, description = "What is wrong; an empty filter without `all`.", body = ProblemDocument))
)]
pub(super) async fn cancel(
    State(api): State<Api>,
    caller: Caller<RunsWrite>,
    sent: Sent<CancelRuns>,
) -> Result<Answer, Problem> {
    let asked = sent.body;
    let filter = RunFilter {
        agent_id: caller.sees(),
        task_id: None,
        status: asked.status,
        trigger: asked.trigger,
        from: asked.from,
        to: asked.to,
        error_kind: None,
    };
    let mut problems = Vec::new();
    if asked.status.is_some_and(RunStatus::is_finished) {
        problems.push(Entry::new("/status", "must be queued or running: others are over"));
    }
    let wanted = Wanted {
        is_empty: asked.task_id.is_none() && is_empty(&filter),
        task: asked.task_id,
        filter,
        among: Among::Open,
        all: asked.all,
        limit: asked.limit,
        cursor: asked.cursor,
        dry_run: asked.dry_run,
    };
    let mut change = match begin(&api, &caller, &sent.hash, &wanted, problems).await? {
        Begun::New(change) => change,
        Begun::Before(answer) => return Ok(answer),
    };
    let Some((runs, mut done)) = wanted.find(&mut change, &caller).await? else {
        return nothing(change, asked.dry_run).await;
    };
    if asked.dry_run {
        return change.finish(Answer::new(StatusCode::OK, &done)?).await;
    }
    let before = owners(&mut change, &runs).await?;
    let error = RunError {
        kind: "canceled".to_owned(),
        message: format!("canceled by {}", caller.agent.name),
        step: None,
    };
    let ended = queue::cancel_many(change.conn(), &runs, &error).await?;
    done.done = ended.iter().filter(|(_, what)| *what == Canceled::Done).count();
    done.requested = ended.len() - done.done;
    record(&mut change, "run.cancel_many", &wanted, &done).await?;
    let status = if done.requested > 0 { StatusCode::ACCEPTED } else { StatusCode::OK };
    let answer = change.finish(Answer::new(status, &done)?).await?;
    api.count_canceled(done.done);
    api.let_many_in(before.values().copied()).await;
    for (what, kind) in
        [(Canceled::Done, "run.canceled"), (Canceled::Requested, "run.cancel_requested")]
    {
        let told = ended.iter().filter(|(_, became)| *became == what);
        api.tell_runs(kind, told.filter_map(|(run, _)| with_owner(&before, *run)));
    }
    Ok(answer)
}

/// Run the runs that match again, under their own ids: those that failed, unless `status` says
/// otherwise. Steps that succeeded are not done again. The newest first, at most 1,000 in a call.
#[utoipa::path(
    post, path = "/runs/retry", tag = "runs",
    request_body = RetryRuns,
    responses((status = 202, description = "Queued.", body = Done),
              (status = 200, description = "Only counted.", body = Done),
              (status = 422, description = "What is wrong; an empty filter without `all`.", body = ProblemDocument))
)]
pub(super) async fn retry(
    State(api): State<Api>,
    caller: Caller<RunsWrite>,
    sent: Sent<RetryRuns>,
) -> Result<Answer, Problem> {
    let asked = sent.body;
    let mut filter = RunFilter {
        agent_id: caller.sees(),
        task_id: None,
        status: asked.status,
        trigger: asked.trigger,
        from: asked.from,
        to: asked.to,
        error_kind: asked.error_kind,
    };
    let is_empty = asked.task_id.is_none() && is_empty(&filter);
    let status = *filter.status.get_or_insert(RunStatus::Failed);
    let mut problems = Vec::new();
    if !matches!(status, RunStatus::Failed | RunStatus::Canceled | RunStatus::Expired) {
        problems.push(Entry::new("/status", "must be failed, canceled or expired"));
    }
    let wanted = Wanted {
        is_empty,
        task: asked.task_id,
        filter,
        among: Among::Over,
        all: asked.all,
        limit: asked.limit,
        cursor: asked.cursor,
        dry_run: asked.dry_run,
    };
    let mut change = match begin(&api, &caller, &sent.hash, &wanted, problems).await? {
        Begun::New(change) => change,
        Begun::Before(answer) => return Ok(answer),
    };
    let Some((runs, mut done)) = wanted.find(&mut change, &caller).await? else {
        return nothing(change, asked.dry_run).await;
    };
    if asked.dry_run {
        return change.finish(Answer::new(StatusCode::OK, &done)?).await;
    }
    let back = queue::retry_many(change.conn(), &runs).await?;
    done.done = back.len();
    let owners = owners(&mut change, &back).await?;
    record(&mut change, "run.retry_many", &wanted, &done).await?;
    let answer = change.finish(Answer::new(StatusCode::ACCEPTED, &done)?).await?;
    for run in &back {
        trace::made_again(&api, *run);
    }
    api.let_many_in(owners.values().copied()).await;
    api.tell_runs("run.queued", back.into_iter().filter_map(|run| with_owner(&owners, run)));
    Ok(answer)
}

/// What a caller asks for.
struct Wanted {
    is_empty: bool,
    task: Option<String>,
    filter: RunFilter,
    among: Among,
    all: bool,
    limit: Option<u16>,
    cursor: Option<RunId>,
    dry_run: bool,
}

fn is_empty(filter: &RunFilter) -> bool {
    let RunFilter { agent_id: _, task_id, status, trigger, from, to, error_kind } = filter;
    task_id.is_none()
        && status.is_none()
        && trigger.is_none()
        && from.is_none()
        && to.is_none()
        && error_kind.is_none()
}

async fn begin(
    api: &Api,
    caller: &Caller<RunsWrite>,
    hash: &[u8],
    wanted: &Wanted,
    mut problems: Vec<Entry>,
) -> Result<Begun, Problem> {
    if wanted.is_empty && !wanted.all {
        let message = "names no filter: send \"all\": true to mean every run";
        problems.push(Entry::new("", message));
    }
    if wanted.limit.is_some_and(|limit| !(1..=queue::MANY_MAX).contains(&limit)) {
        problems.push(Entry::new("/limit", format!("must be 1 to {}", queue::MANY_MAX)));
    }
    if !problems.is_empty() {
        return Err(Problem::invalid(problems));
    }
    Change::begin(api, caller, hash).await
}

impl Wanted {
    /// The runs that match, the newest first, and what is to be said of them; `None` when there is no
    /// such task.
    async fn find(
        &self,
        change: &mut Change,
        caller: &Caller<RunsWrite>,
    ) -> Result<Option<(Vec<RunId>, Done)>, Problem> {
        let mut filter = self.filter.clone();
        if let Some(reference) = &self.task {
            filter.task_id = match task::find(change.conn(), reference, caller.sees()).await {
                Ok(id) => Some(id),
                Err(StoreError::NotFound { .. }) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
        }
        let most =
            if self.dry_run { COUNT_MAX } else { self.limit.unwrap_or(queue::MANY_MAX).into() };
        let mut runs =
            run_list::matching(change.conn(), &filter, self.among, self.cursor, most + 1).await?;
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let more = runs.len() > most;
        runs.truncate(most);
        let run_ids = runs.iter().take(NAMED_MAX).copied().collect();
        let done = Done {
            matched: runs.len(),
            more,
            next_cursor: runs.last().copied().filter(|_| more),
            dry_run: self.dry_run,
            done: 0,
            requested: 0,
            run_ids,
        };
        Ok(Some((runs, done)))
    }
}

async fn nothing(change: Change, dry_run: bool) -> Result<Answer, Problem> {
    let done = Done { dry_run, ..Done::default() };
    change.finish(Answer::new(StatusCode::OK, &done)?).await
}

/// Whose the runs are, and of which tasks.
async fn owners(
    change: &mut Change,
    runs: &[RunId],
) -> Result<HashMap<RunId, (AgentId, Option<TaskId>)>, Problem> {
    let rows = run::owners(change.conn(), runs).await?;
    Ok(rows.into_iter().map(|(run, owner, task)| (run, (owner, task))).collect())
}

fn with_owner(
    owners: &HashMap<RunId, (AgentId, Option<TaskId>)>,
    run: RunId,
) -> Option<(AgentId, Option<TaskId>, RunId)> {
    owners.get(&run).map(|(owner, task)| (*owner, *task, run))
}

/// One record for all of them, under the id of the newest.
async fn record(
    change: &mut Change,
    action: &str,
    wanted: &Wanted,
    done: &Done,
) -> Result<(), Problem> {
    let Some(newest) = done.run_ids.first() else { return Ok(()) };
    let filter = &wanted.filter;
    let detail: Value = json!({
        "filter": {
            "task_id": wanted.task, "status": filter.status, "trigger": filter.trigger,
            "from": filter.from, "to": filter.to, "error_kind": filter.error_kind,
        },
        "matched": done.matched, "done": done.done, "requested": done.requested,
        "run_ids": done.run_ids,
    });
    change.audit(action, newest, detail).await
}
