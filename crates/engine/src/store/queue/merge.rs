//! Triggers that make no run of their own: while a run of their task has not begun they move it
//! (`debounce_seconds`), or while one has not ended it stands for them (`singleton`).
//!
//! Exact because whoever makes runs of such a task holds the task ([`hold_tasks`], or the row lock of
//! [`crate::store::task::lock`]) until its transaction ends; the scheduler, firing the task's times,
//! holds it as well.

use sqlx::PgConnection;

use super::enqueue::{Enqueued, Held, NewWork, RateColumns, enqueue};
use crate::id::{RunId, TaskId};
use crate::store::{StoreError, seconds};
use crate::task::{Debounce, Merging};

/// Holds tasks until the transaction ends, so that nobody else makes runs of them by a trigger. Always
/// in the order of their ids.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn hold_tasks(conn: &mut PgConnection, tasks: &[TaskId]) -> Result<(), StoreError> {
    let ids: Vec<_> = tasks.iter().map(|task| task.0).collect();
    sqlx::query_scalar!(
        "select 1 from task where id = any($1) order by id for no key update",
        &ids
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("hold tasks whose triggers merge"))?;
    Ok(())
}

/// Puts the run of a trigger into the queue, unless another stands for it: one of its task that has not
/// begun, which it then moves and gives its parameters and event (`debounce`); one that has not ended
/// (`singleton`); one whose dedupe window is open. They are looked for in this order. The caller holds
/// the task, where `merging` is anything.
///
/// # Errors
///
/// [`StoreError::Database`]; nothing is added then.
pub async fn enqueue_trigger(
    conn: &mut PgConnection,
    mut work: NewWork,
    merging: Merging,
) -> Result<Enqueued, StoreError> {
    let Some((task, _)) = work.task.filter(|_| merging.is_any()) else {
        return enqueue(conn, work).await;
    };
    let stands = |run_id| Ok(Enqueued { run_id, deduplicated: true });
    if let Some(debounce) = merging.debounce
        && let Some(run) = postpone(conn, task, &work, debounce).await?
    {
        return stands(run);
    }
    if merging.singleton
        && let Some(run) = not_ended(conn, task).await?
    {
        return stands(run);
    }
    let Some(debounce) = merging.debounce else { return enqueue(conn, work).await };
    work.delay += debounce.window;
    work.scheduled_at += debounce.window;
    let made = enqueue(&mut *conn, work).await?;
    if !made.deduplicated {
        sqlx::query!(
            "
            update due_work set debounce_until = run_at + make_interval(secs => $2)
            where run_id = $1
            ",
            made.run_id.0,
            seconds(debounce.most.saturating_sub(debounce.window)),
        )
        .execute(conn)
        .await
        .map_err(StoreError::while_trying("say how far a run may be moved"))?;
    }
    Ok(made)
}

/// Moves the run of the task that an earlier trigger made and nobody has begun to a window from now,
/// not beyond its bound; `work` tells what it is to be. Returns it; `None` when there is none.
async fn postpone(
    conn: &mut PgConnection,
    task: TaskId,
    work: &NewWork,
    debounce: Debounce,
) -> Result<Option<RunId>, StoreError> {
    // First the lock, then the look at leases: migration 0010 says why.
    let run = sqlx::query_scalar!(
        r#"
        select run_id as "run_id: RunId" from due_work
        where task_id = $1 and debounce_until is not null and started_at is null
          and run_id not in (select run_id from in_a_lease)
        order by run_id limit 1
        for update
        "#,
        task.0,
    )
    .fetch_optional(&mut *conn)
    .await
    .map_err(StoreError::while_trying("look for a run that a trigger moves"))?;
    let Some(run) = run else { return Ok(None) };

    // One that has its place or its turn keeps its time: others wait behind it. Of another revision
    // it becomes what that would have made, and waits anew. Two schedulers may consume events out of
    // their order, which is that of their ids.
    let first_held = work.first_held().map(Held::as_str);
    let (concurrency_key, concurrency_limit) = work.concurrency.clone().unzip();
    let rate = RateColumns::of(work.rate.clone());
    sqlx::query_scalar!(
        r#"
        with moved as (
            select run_id,
                   case when revision = $3 and held is distinct from $4 then run_at
                        else least(now() + make_interval(secs => $2), debounce_until) end as run_at
            from due_work
            where run_id = $1 and started_at is null
              and run_id not in (select run_id from in_a_lease)
        )
        update due_work w
        set run_at = m.run_at, scheduled_at = w.scheduled_at + (m.run_at - w.run_at),
            expires_at = m.run_at + make_interval(secs => $5),
            held = case when w.revision = $3 then w.held else $4 end,
            revision = $3, priority = $6, trigger = $7, params = $8, serial = $10,
            event = case when w.event ->> 'id' > $9::jsonb ->> 'id' then w.event else $9 end,
            concurrency_key = $11, concurrency_limit = $12,
            rate_key = $13, rate_limit = $14, rate_period_seconds = $15
        from moved m where w.run_id = m.run_id
        returning w.run_id as "run_id: RunId"
        "#,
        run.0,
        seconds(debounce.window),
        work.task.map(|(_, revision)| revision),
        first_held,
        work.expires_after.map(seconds),
        work.priority,
        work.trigger.as_str(),
        work.params,
        work.event,
        work.serial,
        concurrency_key,
        concurrency_limit.map(i32::from),
        rate.key,
        rate.limit,
        rate.period_seconds,
    )
    .fetch_optional(conn)
    .await
    .map_err(StoreError::while_trying("move a run that has not begun"))
}

/// The oldest run of the task that is queued or on.
async fn not_ended(conn: &mut PgConnection, task: TaskId) -> Result<Option<RunId>, StoreError> {
    sqlx::query_scalar!(
        r#"
        select run_id as "run_id: RunId" from due_work where task_id = $1 order by run_id limit 1
        "#,
        task.0,
    )
    .fetch_optional(conn)
    .await
    .map_err(StoreError::while_trying("look for a run of a task that has not ended"))
}
