//! Ending runs on request.

use sqlx::PgConnection;

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
    end_lapsed(conn).await?;
    let asked = sqlx::query!(
        "
        update due_work set cancel_requested_at = coalesce(cancel_requested_at, now())
        where run_id = $1
        ",
        run as RunId,
    )
    .execute(&mut *conn)
    .await
    .map_err(StoreError::while_trying("request a cancel"))?;
    if asked.rows_affected() == 0 {
        return Ok(Canceled::NotQueued);
    }
    if untaken(conn, &[run]).await?.is_empty() {
        return Ok(Canceled::Requested);
    }
    sqlx::query!(
        "
        with gone as (delete from due_work where run_id = $1 returning *)
        insert into run (id, agent_id, task_id, revision, status, priority, attempt, trigger,
                         nominal_at, scheduled_at, started_at, finished_at, params, event,
                         definition, error)
        select run_id, agent_id, task_id, revision, 'canceled', priority, attempt, trigger,
               nominal_at, scheduled_at, started_at, now(), params, event, definition, $2
        from gone
        ",
        run as RunId,
        sqlx::types::Json(error) as _,
    )
    .execute(conn)
    .await
    .map_err(StoreError::while_trying("cancel a queued run"))?;
    Ok(Canceled::Done)
}
