//! Runs as callers see them: queued, running and finished ones in one list, and sending a finished
//! one back to the queue.
//!
//! What workers and the scheduler do with runs is in [`super::queue`] and [`super::execution`].

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;

use super::any_json::AnyJson;
use super::queue::Held;
use super::run_list::Among;
use super::{StoreError, run_list};
use crate::id::{AgentId, RunId, TaskId};
use crate::run::{RunStatus, Trigger};

/// A run, wherever it is in its life.
#[derive(Clone, Debug)]
pub struct RunRow {
    /// Its id.
    pub id: RunId,
    /// Who owns it.
    pub agent_id: AgentId,
    /// The task; `None` for a pipeline without a task.
    pub task_id: Option<TaskId>,
    /// The task's name.
    pub task_name: Option<String>,
    /// The task's title.
    pub task_title: Option<String>,
    /// The revision of the task it is pinned to.
    pub revision: Option<i32>,
    /// Where it is in its life.
    pub status: RunStatus,
    /// What made it.
    pub trigger: Trigger,
    /// Which attempt it is at, or ended with; 0 before the first.
    pub attempt: i16,
    /// 1 (first) to 9.
    pub priority: i16,
    /// The time the schedule named.
    pub nominal_at: Option<DateTime<Utc>>,
    /// When it was to start.
    pub scheduled_at: DateTime<Utc>,
    /// While it is queued: not to be started before this.
    pub run_at: Option<DateTime<Utc>>,
    /// While it is queued: what it waits for besides its time.
    pub waits_for: Option<Held>,
    /// When a worker first took it.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// Since when somebody wants it ended.
    pub cancel_requested_at: Option<DateTime<Utc>>,
    /// Why it failed; while it is queued or on, why its last attempt did.
    pub error: Option<Value>,
    /// What it came to. Not read by [`list`].
    pub output: Option<Value>,
    /// Parameters given with it, over the task's own. Not read by [`list`].
    pub params: Option<Value>,
    /// The event that started it. Not read by [`list`].
    pub event: Option<Value>,
    /// The payload of a pipeline without a task. Not read by [`list`].
    pub definition: Option<Value>,
}

/// What [`list`] and [`run_list::matching`] look for; everything that is `None` matches all.
#[derive(Clone, Debug, Default)]
pub struct RunFilter {
    /// Owned by this agent.
    pub agent_id: Option<AgentId>,
    /// Of this task.
    pub task_id: Option<TaskId>,
    /// In this state.
    pub status: Option<RunStatus>,
    /// Made by this.
    pub trigger: Option<Trigger>,
    /// To start not before.
    pub from: Option<DateTime<Utc>>,
    /// To start before.
    pub to: Option<DateTime<Utc>>,
    /// Whose error, or that of its last attempt, is of this kind.
    pub error_kind: Option<String>,
}

struct Row {
    id: RunId,
    agent_id: AgentId,
    task_id: Option<TaskId>,
    task_name: Option<String>,
    task_title: Option<String>,
    revision: Option<i32>,
    status: String,
    trigger: String,
    attempt: i16,
    priority: i16,
    nominal_at: Option<DateTime<Utc>>,
    scheduled_at: DateTime<Utc>,
    run_at: Option<DateTime<Utc>>,
    waits_for: Option<String>,
    started_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
    cancel_requested_at: Option<DateTime<Utc>>,
    error: Option<AnyJson>,
    output: Option<AnyJson>,
    params: Option<AnyJson>,
    event: Option<AnyJson>,
    definition: Option<AnyJson>,
}

impl Row {
    fn run(self) -> Result<RunRow, StoreError> {
        Ok(RunRow {
            id: self.id,
            agent_id: self.agent_id,
            task_id: self.task_id,
            task_name: self.task_name,
            task_title: self.task_title,
            revision: self.revision,
            status: self.status.parse().map_err(unreadable)?,
            trigger: self.trigger.parse().map_err(unreadable)?,
            attempt: self.attempt,
            priority: self.priority,
            nominal_at: self.nominal_at,
            scheduled_at: self.scheduled_at,
            run_at: self.run_at,
            waits_for: self.waits_for.map(|word| word.parse()).transpose().map_err(unreadable)?,
            started_at: self.started_at,
            finished_at: self.finished_at,
            cancel_requested_at: self.cancel_requested_at,
            error: self.error.map(AnyJson::shown),
            output: self.output.map(AnyJson::shown),
            params: self.params.map(AnyJson::shown),
            event: self.event.map(AnyJson::shown),
            definition: self.definition.map(AnyJson::shown),
        })
    }
}

fn unreadable(error: String) -> StoreError {
    StoreError::Database { doing: "read a run", source: sqlx::Error::Decode(error.into()) }
}

fn not_found(id: RunId) -> StoreError {
    StoreError::NotFound { what: "run", id: id.to_string() }
}

/// The run of this id, if it is `owner`'s; `None`: anybody's.
///
/// # Errors
///
/// [`StoreError::NotFound`], [`StoreError::Database`].
pub async fn get(
    conn: &mut PgConnection,
    id: RunId,
    owner: Option<AgentId>,
) -> Result<RunRow, StoreError> {
    let found = read(conn, &[id.0], true).await?.pop();
    found.filter(|run| owner.is_none_or(|owner| run.agent_id == owner)).ok_or_else(|| not_found(id))
}

/// At most `limit` runs made before `before`, the newest first, without what they were given and what
/// they came to. A run that moves on in this instant may be shown as it is by then.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn list(
    conn: &mut PgConnection,
    filter: &RunFilter,
    before: Option<RunId>,
    limit: i64,
) -> Result<Vec<RunRow>, StoreError> {
    let ids = run_list::matching(conn, filter, Among::All, before, limit).await?;
    let ids: Vec<_> = ids.into_iter().map(|id| id.0).collect();
    read(conn, &ids, false).await
}

/// These runs, the newest first; `whole`: with what they were given and what they came to.
async fn read(
    conn: &mut PgConnection,
    ids: &[uuid::Uuid],
    whole: bool,
) -> Result<Vec<RunRow>, StoreError> {
    let (Some(first), Some(last)) = (ids.iter().min(), ids.iter().max()) else {
        return Ok(Vec::new());
    };
    // One statement, so one snapshot: a run that moves between the two tables is seen once. The bounds
    // say which partitions need not be looked at.
    sqlx::query_as!(
        Row,
        r#"
        select r.id as "id!: RunId", r.agent_id as "agent_id!: AgentId",
               r.task_id as "task_id: TaskId", task.name as "task_name?", task.title as "task_title?",
               r.revision, r.status as "status!", r.trigger as "trigger!", r.attempt as "attempt!",
               r.priority as "priority!", r.nominal_at, r.scheduled_at as "scheduled_at!", r.run_at,
               r.waits_for, r.started_at, r.finished_at, r.cancel_requested_at, r.error as "error: AnyJson",
               r.output as "output: AnyJson", r.params as "params: AnyJson", r.event as "event: AnyJson",
               r.definition as "definition: AnyJson"
        from (
            select w.run_id as id, agent_id, task_id, revision,
                   case when l.token is null then 'queued' else 'running' end as status, trigger,
                   (attempt + case when l.token is null then 0 else 1 end)::smallint as attempt,
                   priority, nominal_at, scheduled_at, run_at, held as waits_for,
                   coalesce(started_at, l.made_at) as started_at,
                   null::timestamptz as finished_at, cancel_requested_at, last_error as error,
                   null::jsonb as output, case when $2::bool then params end as params,
                   case when $2 then event end as event,
                   case when $2 then definition end as definition
            from due_work w left join leased l on l.run_id = w.run_id
            where w.run_id = any($1)
            union all
            select id, agent_id, task_id, revision, status, trigger, attempt, priority, nominal_at,
                   scheduled_at, null, null, started_at, finished_at, null, error,
                   case when $2 then output end, case when $2 then params end,
                   case when $2 then event end, case when $2 then definition end
            from run where id = any($1) and id between $3 and $4
        ) r
        left join task on task.id = r.task_id
        order by r.id desc
        "#,
        ids,
        whole,
        first,
        last,
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("read runs"))?
    .into_iter()
    .map(Row::run)
    .collect()
}

/// Whose each of the runs is, and of which task; those that are nowhere are left out.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn owners(
    conn: &mut PgConnection,
    runs: &[RunId],
) -> Result<Vec<(RunId, AgentId, Option<TaskId>)>, StoreError> {
    let ids: Vec<_> = runs.iter().map(|run| run.0).collect();
    let (Some(first), Some(last)) = (ids.iter().min(), ids.iter().max()) else {
        return Ok(Vec::new());
    };
    let rows = sqlx::query!(
        r#"
        select run_id as "id!: RunId", agent_id as "agent_id!: AgentId", task_id as "task_id: TaskId"
        from due_work where run_id = any($1)
        union all
        select id, agent_id, task_id from run where id = any($1) and id between $2 and $3
        "#,
        &ids,
        first,
        last,
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("look whose runs they are"))?;
    Ok(rows.into_iter().map(|row| (row.id, row.agent_id, row.task_id)).collect())
}

/// Sends a run that failed, was canceled or expired back to the queue under its own id, due at once,
/// with the full number of attempts before it. Steps that succeeded are not done again.
///
/// With `from_step`, the id of a step of the pipeline's outermost list, that step and all that were
/// started after it are done again. Their records stay for the history, as `canceled` with the
/// reason; what they had answered stays readable in them. Returns the paths that were set aside.
///
/// # Errors
///
/// [`StoreError::Conflict`] when the run is not over, or succeeded, or never reached the step; then the
/// caller's transaction must end.
pub async fn retry(
    conn: &mut PgConnection,
    id: RunId,
    from_step: Option<&str>,
) -> Result<Vec<String>, StoreError> {
    let doing = "send a run back to the queue";
    let run = sqlx::query!(
        "
        delete from run where id = $1 and status in ('failed', 'canceled', 'expired')
        returning agent_id, task_id, revision, priority, trigger, nominal_at, scheduled_at, started_at,
                  params, event, definition, error, steps
        ",
        id.0
    )
    .fetch_optional(&mut *conn)
    .await
    .map_err(StoreError::while_trying(doing))?
    .ok_or_else(|| {
        StoreError::Conflict("only a failed, canceled or expired run can be retried".into())
    })?;
    sqlx::query!(
        "
        insert into due_work (run_id, agent_id, task_id, revision, priority, run_at, trigger,
                              nominal_at, scheduled_at, params, event, definition, last_error,
                              started_at, serial, held, concurrency_key, concurrency_limit,
                              rate_key, rate_limit, rate_period_seconds)
        select $1, $2, $3, $4, $5, now(), $6, $7, $8, $9, $10, $11, $12, $13, gates.serial, gates.held,
               gates.concurrency_key, gates.concurrency_limit, gates.rate_key, gates.rate_limit,
               gates.rate_period_seconds
        from run_gates($3, (select spec from task_revision where task_id = $3 and revision = $4)) as gates
        ",
        id.0,
        run.agent_id,
        run.task_id,
        run.revision,
        run.priority,
        run.trigger,
        run.nominal_at,
        run.scheduled_at,
        run.params,
        run.event,
        run.definition,
        run.error,
        run.started_at, // whoever leases it looks for what was done then
    )
    .execute(&mut *conn)
    .await
    .map_err(StoreError::while_trying(doing))?;
    if let Some(steps) = run.steps {
        sqlx::query!(
            "
            insert into run_step (run_id, path, attempt, id, uses, status, started_at, finished_at,
                                  input, output, error)
            select $1, s.* from jsonb_to_recordset($2) as s(path text, attempt int, id text, uses text,
                status text, started_at timestamptz, finished_at timestamptz, input jsonb,
                output jsonb, error jsonb)
            ",
            id.0,
            steps,
        )
        .execute(&mut *conn)
        .await
        .map_err(StoreError::while_trying(doing))?;
    }
    match from_step {
        Some(step) => set_aside(conn, id, step).await,
        None => Ok(Vec::new()),
    }
}

/// The outermost list of steps runs one after the other, so what was started after a step of it
/// comes after it in the pipeline too.
async fn set_aside(
    conn: &mut PgConnection,
    id: RunId,
    from_step: &str,
) -> Result<Vec<String>, StoreError> {
    let reason = serde_json::json!({
        "kind": "canceled",
        "message": format!("set aside: the run was retried from step {from_step:?}"),
    });
    let paths = sqlx::query_scalar!(
        "
        update run_step set status = 'canceled', error = coalesce(error, $3),
                            finished_at = coalesce(finished_at, now())
        where run_id = $1 and status in ('succeeded', 'skipped', 'running')
          and started_at >= (
              select min(started_at) from run_step
              where run_id = $1 and (path = $2 or starts_with(path, $2 || '/')))
        returning path
        ",
        id.0,
        from_step,
        reason,
    )
    .fetch_all(&mut *conn)
    .await
    .map_err(StoreError::while_trying("set steps aside"))?;
    if paths.is_empty() && !was_reached(conn, id, from_step).await? {
        return Err(StoreError::Conflict(format!(
            "the run never reached a step {from_step:?}: leave from_step out to go on where it ended"
        )));
    }
    Ok(paths)
}

async fn was_reached(conn: &mut PgConnection, id: RunId, step: &str) -> Result<bool, StoreError> {
    sqlx::query_scalar!(
        r#"
        select exists (select from run_step where run_id = $1
                       and (path = $2 or starts_with(path, $2 || '/'))) as "reached!"
        "#,
        id.0,
        step,
    )
    .fetch_one(conn)
    .await
    .map_err(StoreError::while_trying("look for a step"))
}

/// How many runs are in each state: those queued and on, and those finished since `since`; of one
/// agent or of all.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn counts(
    conn: &mut PgConnection,
    owner: Option<AgentId>,
    since: DateTime<Utc>,
) -> Result<Vec<(RunStatus, i64)>, StoreError> {
    let rows = sqlx::query!(
        r#"
        select case when l.token is null then 'queued' else 'running' end as "status!",
               count(*) as "count!"
        from due_work w left join leased l on l.run_id = w.run_id
        where $1::uuid is null or w.agent_id = $1 group by 1
        union all
        select status, count(*) from run
        where ($1::uuid is null or agent_id = $1) and id >= uuid_at($2::timestamptz - interval '1 day')
          and finished_at >= $2
        group by 1
        "#,
        owner.map(|id| id.0),
        since,
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("count runs"))?;
    rows.into_iter().map(|row| Ok((row.status.parse().map_err(unreadable)?, row.count))).collect()
}
