//! Runs that wait for something other than their time: for their turn after an outage, for the run of
//! their task before them, for a free place among the runs of their concurrency key; in this order.
//!
//! A held run is in the queue like any other, but nobody leases it. Whoever ends a run of a serial
//! task calls [`admit`]; a chore calls it as well for every task that might be waiting, so a process
//! that dies in between only makes it later. Locks are always taken in one order: the task, then its
//! runs.

use sqlx::{PgConnection, PgPool};

use super::cancel::{Canceled, cancel};
use crate::id::{AgentId, RunId, TaskId};
use crate::run::RunError;
use crate::store::StoreError;

/// Lets the run of `task` that waits longest for the one before it begin, if no other is queued or
/// on. Returns it. To be called in a transaction of its own.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn admit(conn: &mut PgConnection, task: TaskId) -> Result<Option<RunId>, StoreError> {
    // The statement after this one sees whatever the lock waited for.
    sqlx::query_scalar!("select 1 from task where id = $1 for no key update", task.0)
        .fetch_optional(&mut *conn)
        .await
        .map_err(StoreError::while_trying("lock a task whose runs wait"))?;
    sqlx::query_scalar!(
        r#"
        update due_work
        set held = case when concurrency_key is not null then 'concurrency' end,
            run_at = greatest(run_at, now())
        where run_id = (select run_id from due_work where task_id = $1 and held = 'overlap'
                        order by scheduled_at, run_id limit 1)
          and not exists (select from due_work other where other.task_id = $1
                          and (other.held is null or other.held = 'concurrency'))
        returning run_id as "run_id: RunId"
        "#,
        task.0,
    )
    .fetch_optional(conn)
    .await
    .map_err(StoreError::while_trying("let the next run of a task begin"))
}

/// [`admit`] for each of the tasks, each in a transaction of its own. Returns how many runs were let in.
///
/// # Errors
///
/// [`StoreError::Database`]; what was committed before stays.
pub async fn admit_tasks(pool: &PgPool, tasks: &[TaskId]) -> Result<u64, StoreError> {
    let mut admitted = 0;
    for task in tasks {
        let mut tx =
            pool.begin().await.map_err(StoreError::while_trying("begin to admit a run"))?;
        admitted += u64::from(admit(&mut tx, *task).await?.is_some());
        tx.commit().await.map_err(StoreError::while_trying("commit an admission"))?;
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
                          and (o.held is null or o.held = 'concurrency'))
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
    /// Of those whose tasks run one at a time: the tasks, which need [`admit`].
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
                            when w.concurrency_key is not null then 'concurrency' end,
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

/// Lets runs of the concurrency key begin, by priority, then the longest due first, as many as have a
/// place: a run keeps its place from here until it has ended. Returns how many. To be called in a
/// transaction of its own.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn admit_key(
    conn: &mut PgConnection,
    owner: AgentId,
    key: &str,
) -> Result<u64, StoreError> {
    // The statement after this one sees whatever the lock waited for.
    sqlx::query_scalar!(
        "select pg_advisory_xact_lock(hashtextextended($1::text || '/' || $2::text, 0))",
        owner.to_string(),
        key,
    )
    .fetch_one(&mut *conn)
    .await
    .map_err(StoreError::while_trying("lock a concurrency key"))?;
    let done = sqlx::query!(
        "
        with places as (
            select coalesce((select concurrency_limit from due_work
                             where agent_id = $1 and concurrency_key = $2 and held = 'concurrency'
                             order by priority, scheduled_at limit 1), 0)
                 - (select count(*) from due_work
                    where agent_id = $1 and concurrency_key = $2 and held is null) as free
        )
        update due_work set held = null, run_at = greatest(run_at, now())
        where run_id in (
            select run_id from due_work
            where agent_id = $1 and concurrency_key = $2 and held = 'concurrency'
            order by priority, scheduled_at
            limit greatest((select free from places), 0))
        ",
        owner.0,
        key,
    )
    .execute(conn)
    .await
    .map_err(StoreError::while_trying("let runs of a concurrency key begin"))?;
    Ok(done.rows_affected())
}

/// The concurrency keys, of one agent or of all, that have both runs waiting and a free place.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn keys_to_admit(
    conn: &mut PgConnection,
    owner: Option<AgentId>,
) -> Result<Vec<(AgentId, String)>, StoreError> {
    let rows = sqlx::query!(
        r#"
        select w.agent_id as "agent_id: AgentId", w.concurrency_key as "key!"
        from (select agent_id, concurrency_key, max(concurrency_limit) as most from due_work
              where held = 'concurrency' and ($1::uuid is null or agent_id = $1)
              group by agent_id, concurrency_key) as w
        where w.most > (select count(*) from due_work o
                        where o.agent_id = w.agent_id and o.concurrency_key = w.concurrency_key
                          and o.held is null)
        "#,
        owner.map(|owner| owner.0),
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("look for concurrency keys with a free place"))?;
    Ok(rows.into_iter().map(|row| (row.agent_id, row.key)).collect())
}

/// [`admit_key`] for each of the keys, each in a transaction of its own. Returns how many runs were let
/// in.
///
/// # Errors
///
/// [`StoreError::Database`]; what was committed before stays.
pub async fn admit_keys(pool: &PgPool, keys: &[(AgentId, String)]) -> Result<u64, StoreError> {
    let mut admitted = 0;
    for (owner, key) in keys {
        let mut tx = pool.begin().await.map_err(StoreError::while_trying("begin to admit runs"))?;
        admitted += admit_key(&mut tx, *owner, key).await?;
        tx.commit().await.map_err(StoreError::while_trying("commit an admission"))?;
    }
    Ok(admitted)
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

/// Cancels every run of the task that is queued or on, for the sake of a new one. Returns each with
/// what became of it. The caller holds the task.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn supersede(
    conn: &mut PgConnection,
    task: TaskId,
    error: &RunError,
) -> Result<Vec<(RunId, Canceled)>, StoreError> {
    let runs = sqlx::query_scalar!(
        r#"select run_id as "run_id: RunId" from due_work where task_id = $1 order by run_id"#,
        task.0,
    )
    .fetch_all(&mut *conn)
    .await
    .map_err(StoreError::while_trying("list the runs of a task"))?;
    let mut ended = Vec::with_capacity(runs.len());
    for run in runs {
        ended.push((run, cancel(conn, run, error).await?));
    }
    Ok(ended)
}
