//! Ending runs on request.

use std::collections::HashSet;

use sqlx::PgConnection;

use super::MANY_MAX;
use super::lease::end_lapsed;
use super::take::untaken;
use crate::id::RunId;
use crate::run::RunError;
use crate::store::StoreError;

/// What became of a request to cancel a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canceled {
    /// It had not been started, or nobody held it: it is finished as `canceled`.
    Done,
    /// A worker holds it and will stop it at its next renewal.
    Requested,
    /// It is not in the queue: it has finished, or never was.
    NotQueued,
}

/// Cancels a run that is queued, or asks its worker to. To be called in a transaction, which keeps
/// the run from being begun between the two looks ([`super::untaken`]).
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn cancel(
    conn: &mut PgConnection,
    run: RunId,
    error: &RunError,
) -> Result<Canceled, StoreError> {
    let ended = cancel_many(conn, &[run], error).await?;
    Ok(ended.first().map_or(Canceled::NotQueued, |(_, what)| *what))
}

/// The same for many runs, at most [`MANY_MAX`] in a statement. Returns those that were still in the
/// queue, by id, with what became of them.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn cancel_many(
    conn: &mut PgConnection,
    runs: &[RunId],
    error: &RunError,
) -> Result<Vec<(RunId, Canceled)>, StoreError> {
    // What a lost worker left of them is moved to where it lasts, before anything is locked here.
    end_lapsed(conn).await?;
    let mut ended = Vec::with_capacity(runs.len());
    let mut runs = runs.to_vec();
    runs.sort_unstable();
    runs.dedup();
    for some in runs.chunks(MANY_MAX.into()) {
        let queued = ask(conn, some).await?;
        let free: HashSet<_> = untaken(conn, &queued).await?.into_iter().collect();
        end(conn, &free, error).await?;
        ended.extend(queued.into_iter().map(|run| {
            (run, if free.contains(&run) { Canceled::Done } else { Canceled::Requested })
        }));
    }
    Ok(ended)
}

/// Notes that the runs are to be canceled; returns those that are queued, by id. In that order they are
/// locked, so that two callers never wait for each other in a circle.
async fn ask(conn: &mut PgConnection, runs: &[RunId]) -> Result<Vec<RunId>, StoreError> {
    let ids: Vec<_> = runs.iter().map(|run| run.0).collect();
    let mut queued = sqlx::query_scalar!(
        r#"
        with locked as (
            select run_id from due_work where run_id = any($1) order by run_id for no key update
        )
        update due_work w set cancel_requested_at = coalesce(w.cancel_requested_at, now())
        from locked where w.run_id = locked.run_id
        returning w.run_id as "run_id: RunId"
        "#,
        &ids,
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("request a cancel"))?;
    queued.sort_unstable();
    Ok(queued)
}

/// Ends runs that the caller has locked and nobody holds.
async fn end(
    conn: &mut PgConnection,
    runs: &HashSet<RunId>,
    error: &RunError,
) -> Result<(), StoreError> {
    if runs.is_empty() {
        return Ok(());
    }
    let ids: Vec<_> = runs.iter().map(|run| run.0).collect();
    sqlx::query!(
        "
        with gone as (delete from due_work where run_id = any($1) returning *),
        left_open as (
            update run_step s set status = 'canceled', finished_at = now(), error = $2
            from gone where s.run_id = gone.run_id and s.status = 'running'
        )
        insert into run (id, agent_id, task_id, revision, status, priority, attempt, trigger,
                         nominal_at, scheduled_at, started_at, finished_at, params, event,
                         definition, error)
        select run_id, agent_id, task_id, revision, 'canceled', priority, attempt, trigger,
               nominal_at, scheduled_at, started_at, now(), params, event, definition, $2
        from gone
        ",
        &ids,
        sqlx::types::Json(error) as _,
    )
    .execute(conn)
    .await
    .map_err(StoreError::while_trying("cancel queued runs"))?;
    Ok(())
}
