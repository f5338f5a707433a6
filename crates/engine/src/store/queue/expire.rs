//! Ending runs that nobody began in time: no worker was there, or they were held, or had too many
//! before them. A worker that leases such a run ends it itself.

use sqlx::PgConnection;

use crate::id::{AgentId, RunId, TaskId};
use crate::run::RunError;
use crate::store::StoreError;

/// A run that was ended, and what its end means for others.
#[derive(Clone, Debug)]
pub struct Expired {
    /// The run.
    pub run_id: RunId,
    /// Who owns it.
    pub agent_id: AgentId,
    /// Its task.
    pub task_id: Option<TaskId>,
    /// Another run of its task may wait for its end.
    pub serial: bool,
    /// Another run of the key may have waited behind it.
    pub concurrency_key: Option<String>,
}

/// Whether there are runs that were never begun and are not to be any more.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn have_expired(conn: &mut PgConnection) -> Result<bool, StoreError> {
    sqlx::query_scalar!(
        r#"
        select exists (
            select from due_work where expires_at <= now() and started_at is null
        ) as "expired!"
        "#
    )
    .fetch_one(conn)
    .await
    .map_err(StoreError::while_trying("ask whether runs have expired"))
}

/// Ends at most `limit` runs that were never begun and are not to be any more, those that expired first
/// before others. Runs that somebody is changing in this instant are left alone. To be called in a
/// transaction of its own.
///
/// # Errors
///
/// [`StoreError::Database`]; none has ended then.
pub async fn expire(conn: &mut PgConnection, limit: u16) -> Result<Vec<Expired>, StoreError> {
    // First the locks, then the look at leases: migration 0010 says why.
    let runs = sqlx::query_scalar!(
        "
        select run_id from due_work
        where expires_at <= now() and started_at is null
          and run_id not in (select run_id from in_a_lease)
        order by expires_at limit $1
        for update skip locked
        ",
        i64::from(limit),
    )
    .fetch_all(&mut *conn)
    .await
    .map_err(StoreError::while_trying("look for runs that have expired"))?;
    if runs.is_empty() {
        return Ok(Vec::new());
    }
    let error = RunError {
        kind: "expired".to_owned(),
        message: "it was not started in time (expires_after_seconds)".to_owned(),
        step: None,
    };
    sqlx::query_as!(
        Expired,
        r#"
        with gone as (
            delete from due_work
            where run_id = any($1) and expires_at <= now() and started_at is null
              and run_id not in (select run_id from in_a_lease)
            returning *
        ),
        ended as (
            insert into run (id, agent_id, task_id, revision, status, priority, attempt, trigger,
                             nominal_at, scheduled_at, started_at, finished_at, params, event,
                             definition, error)
            select run_id, agent_id, task_id, revision, 'expired', priority, attempt, trigger,
                   nominal_at, scheduled_at, started_at, now(), params, event, definition, $2
            from gone
        )
        select run_id as "run_id: RunId", agent_id as "agent_id: AgentId",
               task_id as "task_id: TaskId", serial, concurrency_key
        from gone
        "#,
        &runs,
        sqlx::types::Json(error) as _,
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("end runs that have expired"))
}
