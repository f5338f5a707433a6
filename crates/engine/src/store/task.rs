//! Tasks and their revisions. What became of their times is in [`super::ledger`].
//!
//! A change of what a task declares makes a new revision; runs stay pinned to theirs. Every change by
//! a caller counts `version` up, which is the task's entity tag. The scheduler's own writing
//! (`next_fire_at`, `cursor_at`, `fires`) is in [`super::fire`] and counts nothing.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;

use super::StoreError;
use super::audit::{self, NewAudit};
use crate::id::{AgentId, RunId, TaskId};
use crate::task::{ScheduleKind, TaskSpec, TaskStatus};

/// A task as it is now.
#[derive(Clone, Debug)]
pub struct TaskRow {
    /// Its id.
    pub id: TaskId,
    /// Who owns it.
    pub agent_id: AgentId,
    /// The owner's name.
    pub owner: String,
    /// Where it is in its life.
    pub status: TaskStatus,
    /// The revision in force.
    pub revision: i32,
    /// Counts every change by a caller.
    pub version: i32,
    /// Every nominal time up to here has its disposition.
    pub cursor_at: DateTime<Utc>,
    /// When the scheduler must look at it; `None`: never.
    pub next_fire_at: Option<DateTime<Utc>>,
    /// Nothing is fired before this.
    pub snoozed_until: Option<DateTime<Utc>>,
    /// How often it has fired.
    pub fires: i32,
    /// Since when it is paused.
    pub paused_at: Option<DateTime<Utc>>,
    /// The name of who paused it; `None` also when the system did.
    pub paused_by: Option<String>,
    /// Why it is paused.
    pub pause_reason: Option<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When a caller last changed it.
    pub updated_at: DateTime<Utc>,
    /// What the revision in force declares.
    pub spec: TaskSpec,
}

/// When a task is due from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Nominal times up to here are not looked at again.
    pub cursor_at: DateTime<Utc>,
    /// The first one after it; `None` for tasks that no clock starts.
    pub next_fire_at: Option<DateTime<Utc>>,
}

/// What [`list`] looks for; everything that is `None` matches all.
#[derive(Clone, Debug, Default)]
pub struct TaskFilter {
    /// Owned by this agent.
    pub agent_id: Option<AgentId>,
    /// In this state.
    pub status: Option<TaskStatus>,
    /// Scheduled this way.
    pub schedule_kind: Option<ScheduleKind>,
    /// Whose name or title contains this, upper and lower case alike.
    pub text: Option<String>,
}

struct Row {
    id: TaskId,
    agent_id: AgentId,
    owner: String,
    status: String,
    revision: i32,
    version: i32,
    cursor_at: DateTime<Utc>,
    next_fire_at: Option<DateTime<Utc>>,
    snoozed_until: Option<DateTime<Utc>>,
    fires: i32,
    paused_at: Option<DateTime<Utc>>,
    paused_by: Option<String>,
    pause_reason: Option<String>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    spec: Value,
}

impl Row {
    fn task(self) -> Result<TaskRow, StoreError> {
        Ok(TaskRow {
            id: self.id,
            agent_id: self.agent_id,
            owner: self.owner,
            status: self.status.parse().map_err(unreadable)?,
            revision: self.revision,
            version: self.version,
            cursor_at: self.cursor_at,
            next_fire_at: self.next_fire_at,
            snoozed_until: self.snoozed_until,
            fires: self.fires,
            paused_at: self.paused_at,
            paused_by: self.paused_by,
            pause_reason: self.pause_reason,
            created_at: self.created_at,
            updated_at: self.updated_at,
            spec: serde_json::from_value(self.spec)
                .map_err(|error| unreadable(error.to_string()))?,
        })
    }
}

pub(in crate::store) fn unreadable(error: String) -> StoreError {
    StoreError::Database { doing: "read a task", source: sqlx::Error::Decode(error.into()) }
}

/// The task of this id.
///
/// # Errors
///
/// [`StoreError::NotFound`], [`StoreError::Database`].
pub async fn get(conn: &mut PgConnection, id: TaskId) -> Result<TaskRow, StoreError> {
    sqlx::query_as!(
        Row,
        r#"
        select t.id as "id: TaskId", t.agent_id as "agent_id: AgentId", owner.name as owner,
               t.status, t.revision, t.version, t.cursor_at, t.next_fire_at, t.snoozed_until,
               t.fires, t.paused_at, pauser.name as "paused_by?", t.pause_reason, t.created_at,
               t.updated_at, r.spec
        from task t
        join task_revision r on r.task_id = t.id and r.revision = t.revision
        join agent owner on owner.id = t.agent_id
        left join agent pauser on pauser.id = t.paused_by
        where t.id = $1
        "#,
        id.0,
    )
    .fetch_optional(conn)
    .await
    .map_err(StoreError::while_trying("read a task"))?
    .ok_or_else(|| not_found(&id.to_string()))?
    .task()
}

pub(in crate::store) fn not_found(reference: &str) -> StoreError {
    StoreError::NotFound { what: "task", id: reference.to_owned() }
}

/// The id of the task that `reference` names: by its id, or by its name among the tasks that are not
/// canceled. Only tasks of `owner` are looked at; `None`: all agents'.
///
/// # Errors
///
/// [`StoreError::NotFound`]; [`StoreError::Conflict`] when the name is that of several agents' tasks.
pub async fn find(
    conn: &mut PgConnection,
    reference: &str,
    owner: Option<AgentId>,
) -> Result<TaskId, StoreError> {
    let found = sqlx::query_scalar!(
        r#"
        select id as "id: TaskId" from task
        where (id = $1 or ($1::uuid is null and name = $2 and status <> 'canceled'))
          and ($3::uuid is null or agent_id = $3)
        limit 2
        "#,
        reference.parse::<uuid::Uuid>().ok(),
        reference,
        owner.map(|id| id.0),
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("look up a task"))?;
    match found[..] {
        [] => Err(not_found(reference)),
        [id] => Ok(id),
        _ => Err(ambiguous(reference)),
    }
}

pub(in crate::store) fn ambiguous(reference: &str) -> StoreError {
    StoreError::Conflict(format!("several agents have a task named {reference:?}: use the id"))
}

/// Holds the task until the transaction ends: no other caller and no scheduler changes it meanwhile.
/// Returns it as it is then.
///
/// # Errors
///
/// [`StoreError::NotFound`], [`StoreError::Database`].
pub async fn lock(conn: &mut PgConnection, id: TaskId) -> Result<TaskRow, StoreError> {
    sqlx::query_scalar!("select 1 from task where id = $1 for update", id.0)
        .fetch_optional(&mut *conn)
        .await
        .map_err(StoreError::while_trying("lock a task"))?;
    get(conn, id).await
}

/// At most `limit` tasks made before `before`, the newest first.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn list(
    conn: &mut PgConnection,
    filter: &TaskFilter,
    before: Option<TaskId>,
    limit: i64,
) -> Result<Vec<TaskRow>, StoreError> {
    sqlx::query_as!(
        Row,
        r#"
        select t.id as "id: TaskId", t.agent_id as "agent_id: AgentId", owner.name as owner,
               t.status, t.revision, t.version, t.cursor_at, t.next_fire_at, t.snoozed_until,
               t.fires, t.paused_at, pauser.name as "paused_by?", t.pause_reason, t.created_at,
               t.updated_at, r.spec
        from task t
        join task_revision r on r.task_id = t.id and r.revision = t.revision
        join agent owner on owner.id = t.agent_id
        left join agent pauser on pauser.id = t.paused_by
        where ($1::uuid is null or t.id < $1)
          and ($2::uuid is null or t.agent_id = $2)
          and ($3::text is null or t.status = $3)
          and ($4::text is null or t.schedule_kind = $4)
          and ($5::text is null or position(lower($5) in lower(t.title)) > 0
               or position(lower($5) in t.name) > 0)
        order by t.id desc limit $6
        "#,
        before.map(|id| id.0),
        filter.agent_id.map(|id| id.0),
        filter.status.map(TaskStatus::as_str),
        filter.schedule_kind.map(ScheduleKind::as_str),
        filter.text,
        limit,
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("list tasks"))?
    .into_iter()
    .map(Row::task)
    .collect()
}

/// Makes an active task at its first revision, owned by `owner`.
///
/// # Errors
///
/// [`StoreError::Conflict`] when the owner has a task of this name.
pub async fn insert(
    conn: &mut PgConnection,
    id: TaskId,
    owner: AgentId,
    by: AgentId,
    spec: &TaskSpec,
    timing: Timing,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "
        insert into task (id, agent_id, name, title, schedule_kind, status, revision, cursor_at,
                          next_fire_at, created_at, updated_at)
        values ($1, $2, $3, $4, $5, 'active', 1, $6, $7, $8, $8)
        ",
        id.0,
        owner.0,
        spec.name,
        spec.title,
        spec.schedule_kind.as_str(),
        timing.cursor_at,
        timing.next_fire_at,
        now,
    )
    .execute(&mut *conn)
    .await
    .map_err(name_taken(spec, "make a task"))?;
    insert_revision(conn, id, 1, spec, by, now).await
}

/// Says which name is taken, where that is what the database refused.
fn name_taken(spec: &TaskSpec, doing: &'static str) -> impl FnOnce(sqlx::Error) -> StoreError {
    move |source| {
        let taken =
            source.as_database_error().and_then(|error| error.constraint()) == Some("task_name");
        if taken {
            let name = spec.name.as_deref().unwrap_or_default();
            StoreError::Conflict(format!("there is a task named {name:?} already"))
        } else {
            StoreError::Database { doing, source }
        }
    }
}

async fn insert_revision(
    conn: &mut PgConnection,
    id: TaskId,
    revision: i32,
    spec: &TaskSpec,
    by: AgentId,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let spec = serde_json::to_value(spec).map_err(|error| unreadable(error.to_string()))?;
    sqlx::query!(
        "
        insert into task_revision (task_id, revision, spec, created_at, created_by)
        values ($1, $2, $3, $4, $5)
        ",
        id.0,
        revision,
        spec,
        now,
        by.0,
    )
    .execute(conn)
    .await
    .map_err(StoreError::while_trying("make a revision"))?;
    Ok(())
}

/// Puts a new revision of the task in force. With `timing` the schedule starts anew from there, and
/// a completed task is active again; without, it goes on as it was.
///
/// # Errors
///
/// [`StoreError::Conflict`] when the owner has another task of the new name;
/// [`StoreError::Stale`] when the task is no longer at `task.version`.
pub async fn revise(
    conn: &mut PgConnection,
    task: &TaskRow,
    spec: &TaskSpec,
    timing: Option<Timing>,
    by: AgentId,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let changed = sqlx::query!(
        "
        update task set
            name = $3, title = $4, schedule_kind = $5, revision = revision + 1,
            version = version + 1, updated_at = $6,
            status = case when $7 and status = 'completed' then 'active' else status end,
            cursor_at = case when $7 then $8 else cursor_at end,
            next_fire_at = case when not $7 then next_fire_at
                                when status = 'paused' then null else $9 end,
            snoozed_until = case when $7 then null else snoozed_until end
        where id = $1 and version = $2
        ",
        task.id.0,
        task.version,
        spec.name,
        spec.title,
        spec.schedule_kind.as_str(),
        now,
        timing.is_some(),
        timing.map(|timing| timing.cursor_at),
        timing.and_then(|timing| timing.next_fire_at),
    )
    .execute(&mut *conn)
    .await
    .map_err(name_taken(spec, "change a task"))?;
    one_row(changed.rows_affected(), task)?;
    insert_revision(conn, task.id, task.revision + 1, spec, by, now).await
}

fn one_row(changed: u64, task: &TaskRow) -> Result<(), StoreError> {
    match changed {
        1 => Ok(()),
        _ => Err(StoreError::Stale { what: "task", current: task.version }),
    }
}

/// Stops following the task's schedule until [`resume`]. Runs that are queued or on go on.
///
/// # Errors
///
/// [`StoreError::Stale`] when the task is not active at `task.version`.
pub async fn pause(
    conn: &mut PgConnection,
    task: &TaskRow,
    by: AgentId,
    reason: Option<&str>,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let changed = sqlx::query!(
        "
        update task set status = 'paused', next_fire_at = null, snoozed_until = null,
            paused_at = $3, paused_by = $4, pause_reason = $5,
            version = version + 1, updated_at = $3
        where id = $1 and version = $2 and status = 'active'
        ",
        task.id.0,
        task.version,
        now,
        by.0,
        reason,
    )
    .execute(conn)
    .await
    .map_err(StoreError::while_trying("pause a task"))?;
    one_row(changed.rows_affected(), task)
}

/// Pauses an active task if the last `policy.pause_after_failures` of its runs have failed, not
/// counting those made before it was last resumed. Returns how many failed, if it was paused. `run`
/// is the last of them, for the reason.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn pause_if_failing(
    conn: &mut PgConnection,
    id: TaskId,
    run: RunId,
    now: DateTime<Utc>,
) -> Result<Option<i32>, StoreError> {
    let doing = "pause a task whose runs fail";
    let failures = sqlx::query_scalar!(
        r#"
        with policy as (
            select t.id, (r.spec #>> '{policy,pause_after_failures}')::int as most,
                   uuid_at(coalesce(t.resumed_at, t.created_at)) as since
            from task t
            join task_revision r on r.task_id = t.id and r.revision = t.revision
            where t.id = $1 and t.status = 'active'
            for update of t
        )
        update task set status = 'paused', next_fire_at = null, snoozed_until = null, paused_at = $3,
            paused_by = null, version = version + 1, updated_at = $3,
            pause_reason = p.most || case p.most when 1 then ' run' else ' runs in a row' end
                || ' failed, the last of them ' || $2::text
        from policy p
        where task.id = p.id and p.most = (
            select count(*) filter (where status = 'failed')
            from (select status from run where task_id = p.id and id >= p.since
                  order by id desc limit p.most) as last)
        returning p.most as "most!"
        "#,
        id.0,
        run.to_string(),
        now,
    )
    .fetch_optional(&mut *conn)
    .await
    .map_err(StoreError::while_trying(doing))?;
    if let Some(failures) = failures {
        let row = NewAudit {
            at: now,
            agent_id: None,
            action: "task.pause",
            object_kind: "task",
            object_id: &id.to_string(),
            request_id: None,
            detail: serde_json::json!({"failures_in_a_row": failures, "last_run": run}),
        };
        audit::record(conn, &row).await?;
    }
    Ok(failures)
}

/// Follows the schedule of a paused task again. Without a further time it is completed.
///
/// # Errors
///
/// [`StoreError::Stale`] when the task is not paused at `task.version`.
pub async fn resume(
    conn: &mut PgConnection,
    task: &TaskRow,
    timing: Timing,
    completed: bool,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let changed = sqlx::query!(
        "
        update task set status = case when $6 then 'completed' else 'active' end,
            paused_at = null, paused_by = null, pause_reason = null,
            cursor_at = $3, next_fire_at = $4, version = version + 1, updated_at = $5,
            resumed_at = $5
        where id = $1 and version = $2 and status = 'paused'
        ",
        task.id.0,
        task.version,
        timing.cursor_at,
        timing.next_fire_at,
        now,
        completed,
    )
    .execute(conn)
    .await
    .map_err(StoreError::while_trying("resume a task"))?;
    one_row(changed.rows_affected(), task)
}

/// Postpones the next due time of an active task to `until`.
///
/// # Errors
///
/// [`StoreError::Stale`] when the task is not active, or has no next time, at `task.version`.
pub async fn snooze(
    conn: &mut PgConnection,
    task: &TaskRow,
    until: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let changed = sqlx::query!(
        "
        update task set next_fire_at = $3, snoozed_until = $3, version = version + 1, updated_at = $4
        where id = $1 and version = $2 and status = 'active' and next_fire_at is not null
        ",
        task.id.0,
        task.version,
        until,
        now,
    )
    .execute(conn)
    .await
    .map_err(StoreError::while_trying("snooze a task"))?;
    one_row(changed.rows_affected(), task)
}

/// Ends the task for good; its name is free again, its history stays.
///
/// # Errors
///
/// [`StoreError::Stale`] when the task is not at `task.version`.
pub async fn cancel(
    conn: &mut PgConnection,
    task: &TaskRow,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let changed = sqlx::query!(
        "
        update task set status = 'canceled', next_fire_at = null, snoozed_until = null,
            paused_at = null, paused_by = null, pause_reason = null,
            version = version + 1, updated_at = $3
        where id = $1 and version = $2 and status <> 'canceled'
        ",
        task.id.0,
        task.version,
        now,
    )
    .execute(conn)
    .await
    .map_err(StoreError::while_trying("cancel a task"))?;
    one_row(changed.rows_affected(), task)
}

/// The runs of the task that no worker has begun.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn queued_runs(conn: &mut PgConnection, task: TaskId) -> Result<Vec<RunId>, StoreError> {
    sqlx::query_scalar!(
        r#"
        select run_id as "run_id: RunId" from due_work
        where task_id = $1 and started_at is null and run_id not in (select run_id from leased)
        order by run_id
        "#,
        task.0,
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("list the queued runs of a task"))
}

/// A revision of a task.
#[derive(Clone, Debug)]
pub struct Revision {
    /// Counts from 1.
    pub revision: i32,
    /// What it declares.
    pub spec: Value,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// The name of who made it.
    pub created_by: String,
}

/// At most `limit` revisions of the task before number `before`, the newest first.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn revisions(
    conn: &mut PgConnection,
    task: TaskId,
    before: Option<i32>,
    limit: i64,
) -> Result<Vec<Revision>, StoreError> {
    sqlx::query_as!(
        Revision,
        "
        select r.revision, r.spec, r.created_at, agent.name as created_by
        from task_revision r join agent on agent.id = r.created_by
        where r.task_id = $1 and ($2::int is null or r.revision < $2)
        order by r.revision desc limit $3
        ",
        task.0,
        before,
        limit,
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("list revisions"))
}

/// What a revision of the task declares.
///
/// # Errors
///
/// [`StoreError::NotFound`], [`StoreError::Database`].
pub async fn revision_spec(
    conn: &mut PgConnection,
    task: TaskId,
    revision: i32,
) -> Result<TaskSpec, StoreError> {
    let spec = sqlx::query_scalar!(
        "select spec from task_revision where task_id = $1 and revision = $2",
        task.0,
        revision,
    )
    .fetch_optional(conn)
    .await
    .map_err(StoreError::while_trying("read a revision"))?
    .ok_or_else(|| not_found(&task.to_string()))?;
    serde_json::from_value(spec).map_err(|error| unreadable(error.to_string()))
}

/// The revision of the task that was in force at `at`; `None` before it was made.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn revision_at(
    conn: &mut PgConnection,
    task: TaskId,
    at: DateTime<Utc>,
) -> Result<Option<i32>, StoreError> {
    sqlx::query_scalar!(
        "select max(revision) from task_revision where task_id = $1 and created_at <= $2",
        task.0,
        at,
    )
    .fetch_one(conn)
    .await
    .map_err(StoreError::while_trying("look for the revision in force"))
}

/// How many tasks are in each state, of one agent or of all.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn counts(
    conn: &mut PgConnection,
    owner: Option<AgentId>,
) -> Result<Vec<(TaskStatus, i64)>, StoreError> {
    let rows = sqlx::query!(
        r#"
        select status, count(*) as "count!" from task
        where $1::uuid is null or agent_id = $1
        group by status
        "#,
        owner.map(|id| id.0),
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("count tasks"))?;
    rows.into_iter().map(|row| Ok((row.status.parse().map_err(unreadable)?, row.count))).collect()
}
