//! Runs that wait for something other than their time: for their turn after an outage, for the run of
//! their task before them, for a free place among the runs of their concurrency key
//! ([`super::places`]), for their turn by a rate ([`super::rates`]); in this order.
//!
//! A held run is in the queue like any other, but nobody leases it. Whoever ends a run of a serial
//! task calls [`admit_tasks`]; a chore calls it as well for every task that might be waiting, so a process
//! that dies in between only makes it later. Locks are always taken in one order: the task, then its
//! runs.

use std::collections::HashMap;
use std::ops::AddAssign;

use sqlx::{PgConnection, PgPool};

use super::cancel::{Canceled, cancel_many};
use super::places::admit_keys;
use super::rates::admit_rates;
use crate::id::{AgentId, RunId, TaskId};
use crate::run::RunError;
use crate::store::StoreError;

/// What letting runs in came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Admitted {
    /// So many may begin: workers are to be told.
    pub begun: u64,
    /// Some wait for their rate: a scheduler is to be told, which works out when their turn is.
    pub rate_waits: bool,
}

impl AddAssign for Admitted {
    fn add_assign(&mut self, more: Self) {
        self.begun += more.begun;
        self.rate_waits |= more.rate_waits;
    }
}

/// What a run that had its turn waits for next.
enum Next {
    Nothing,
    Place(AgentId, String),
    Rate(AgentId, String),
}

/// Lets the run of `task` that waits longest for the one before it pass, if no other is queued or on.
/// Returns what it waits for next. To be called in a transaction of its own.
///
/// # Errors
///
/// [`StoreError::Database`].
async fn admit(conn: &mut PgConnection, task: TaskId) -> Result<Option<Next>, StoreError> {
    // The statement after this one sees whatever the lock waited for.
    sqlx::query_scalar!("select 1 from task where id = $1 for no key update", task.0)
        .fetch_optional(&mut *conn)
        .await
        .map_err(StoreError::while_trying("lock a task whose runs wait"))?;
    let row = sqlx::query!(
        r#"
        update due_work
        set held = case when concurrency_key is not null then 'concurrency'
                        when rate_key is not null then 'rate' end,
            run_at = greatest(run_at, now())
        where run_id = (select run_id from due_work where task_id = $1 and held = 'overlap'
                        order by scheduled_at, run_id limit 1)
          and not exists (select from due_work other where other.task_id = $1
                          and (other.held is null or other.held in ('concurrency', 'rate')))
        returning agent_id as "agent_id: AgentId", concurrency_key, rate_key
        "#,
        task.0,
    )
    .fetch_optional(conn)
    .await
    .map_err(StoreError::while_trying("let the next run of a task begin"))?;
    Ok(row.map(|row| match (row.concurrency_key, row.rate_key) {
        (Some(key), _) => Next::Place(row.agent_id, key),
        (None, Some(key)) => Next::Rate(row.agent_id, key),
        (None, None) => Next::Nothing,
    }))
}

/// Lets the next run of each of the tasks begin, if no other of the task is queued or on, as far as its
/// key and rate let it. Each task, key and rate is a transaction of its own.
///
/// # Errors
///
/// [`StoreError::Database`]; what was committed before stays.
pub async fn admit_tasks(pool: &PgPool, tasks: &[TaskId]) -> Result<Admitted, StoreError> {
    let mut admitted = Admitted::default();
    for task in tasks {
        let mut tx =
            pool.begin().await.map_err(StoreError::while_trying("begin to admit a run"))?;
        let next = admit(&mut tx, *task).await?;
        tx.commit().await.map_err(StoreError::while_trying("commit an admission"))?;
        match next {
            None => {}
            Some(Next::Nothing) => admitted.begun += 1,
            Some(Next::Place(owner, key)) => admitted += admit_keys(pool, &[(owner, key)]).await?,
            Some(Next::Rate(owner, key)) => admitted += admit_rates(pool, &[(owner, key)]).await?,
        }
    }
    Ok(admitted)
}

/// The tasks that have a run waiting for the one before it, and none before it.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn tasks_to_admit(conn: &mut PgConnection) -> Result<Vec<TaskId>, StoreError> {
    sqlx::query_scalar!(
        r#"
        select distinct w.task_id as "task_id!: TaskId" from due_work w
        where w.held = 'overlap'
          and not exists (select from due_work o where o.task_id = w.task_id
                          and (o.held is null or o.held in ('concurrency', 'rate')))
        "#,
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("look for tasks whose runs wait"))
}

/// What [`release_catch_up`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Released {
    /// How many runs had their turn.
    pub runs: usize,
    /// Of those whose tasks run one at a time: the tasks, which need [`admit_tasks`].
    pub tasks: Vec<TaskId>,
}

/// Lets runs that catch up begin, by priority, then the longest due first: at most `rate` a second
/// over all callers, and at most one second's worth at once. Nothing when another caller is at it.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn release_catch_up(conn: &mut PgConnection, rate: u32) -> Result<Released, StoreError> {
    let rows = sqlx::query!(
        r#"
        with turn as materialized (
            select greatest(used_to, now() - interval '1 second') as used_to
            from pace where name = 'catch_up' for update skip locked
        ),
        next as materialized (
            select run_id from due_work where held = 'catch_up'
            order by priority, scheduled_at
            limit coalesce((select floor(extract(epoch from now() - used_to) * $1::int) from turn), 0)
            for update skip locked
        ),
        freed as (
            update due_work w
            set held = case when w.serial then 'overlap'
                            when w.concurrency_key is not null then 'concurrency'
                            when w.rate_key is not null then 'rate' end,
                run_at = greatest(w.run_at, now())
            from next where w.run_id = next.run_id
            returning w.task_id, w.serial
        ),
        used as (
            update pace set used_to = turn.used_to
                + make_interval(secs => (select count(*) from freed) / $1::int::float8)
            from turn where name = 'catch_up'
        )
        select task_id as "task_id: TaskId", serial from freed
        "#,
        i32::try_from(rate).unwrap_or(i32::MAX),
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("let runs that catch up begin"))?;
    let mut tasks: Vec<TaskId> =
        rows.iter().filter(|row| row.serial).filter_map(|row| row.task_id).collect();
    tasks.sort_unstable();
    tasks.dedup();
    Ok(Released { runs: rows.len(), tasks })
}

/// How many runs wait for their turn after an outage, looked at no further than `limit`.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn catch_up_backlog(conn: &mut PgConnection, limit: u32) -> Result<i64, StoreError> {
    sqlx::query_scalar!(
        r#"
        select count(*) as "count!"
        from (select from due_work where held = 'catch_up' limit $1) as waiting
        "#,
        i64::from(limit),
    )
    .fetch_one(conn)
    .await
    .map_err(StoreError::while_trying("count the runs that catch up"))
}

/// Cancels every run of the tasks that is queued or on, for the sake of a new one: a few statements for each
/// [`super::MANY_MAX`] of them. Returns each with what became of it. The caller holds the tasks.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn supersede(
    conn: &mut PgConnection,
    tasks: &[TaskId],
    error: &RunError,
) -> Result<Vec<(TaskId, RunId, Canceled)>, StoreError> {
    if tasks.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<_> = tasks.iter().map(|task| task.0).collect();
    let rows = sqlx::query!(
        r#"
        select run_id as "run_id: RunId", task_id as "task_id!: TaskId"
        from due_work where task_id = any($1)
        "#,
        &ids,
    )
    .fetch_all(&mut *conn)
    .await
    .map_err(StoreError::while_trying("list the runs of tasks"))?;
    let task_of: HashMap<_, _> = rows.into_iter().map(|row| (row.run_id, row.task_id)).collect();
    if task_of.is_empty() {
        return Ok(Vec::new());
    }
    let runs: Vec<_> = task_of.keys().copied().collect();
    let ended = cancel_many(conn, &runs, error).await?;
    Ok(ended.into_iter().map(|(run, what)| (task_of[&run], run, what)).collect())
}
