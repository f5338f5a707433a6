//! Retrying many runs at once; [`super::cancel_many`] ends them.
//!
//! Which runs is asked with [`crate::store::run_list::matching`]; between that and these, any of them
//! may have moved on, so the answer says what really happened to each.

use sqlx::PgConnection;

use crate::id::RunId;
use crate::store::StoreError;

/// How many runs are ended or retried in one transaction: it holds their rows for well under a second.
pub const MANY_MAX: u16 = 1_000;

/// Sends runs that failed, were canceled or expired back to the queue, as
/// [`crate::store::run::retry`] does with one, in one statement. Those whose task's runs go one at a
/// time, or that have a concurrency key or a rate, are held until they are let in. Returns those that went back.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn retry_many(conn: &mut PgConnection, runs: &[RunId]) -> Result<Vec<RunId>, StoreError> {
    let ids: Vec<_> = runs.iter().map(|run| run.0).collect();
    sqlx::query_scalar!(
        r#"
        with gone as (
            delete from run where id = any($1) and status in ('failed', 'canceled', 'expired')
            returning *
        ),
        steps as (
            insert into run_step (run_id, path, attempt, id, uses, status, started_at, finished_at,
                                  input, output, error)
            select gone.id, s.* from gone cross join lateral json_to_recordset(gone.steps) as s(
                path text, attempt int, id text, uses text, status text, started_at timestamptz,
                finished_at timestamptz, input jsonb, output jsonb, error jsonb)
        )
        insert into due_work (run_id, agent_id, task_id, revision, priority, run_at, trigger,
                              nominal_at, scheduled_at, params, event, definition, last_error,
                              started_at, serial, held, concurrency_key, concurrency_limit, rate_key, rate_limit,
                              rate_period_seconds)
        select g.id, g.agent_id, g.task_id, g.revision, g.priority, statement_timestamp(), g.trigger,
               g.nominal_at, g.scheduled_at, g.params, g.event, g.definition, g.error,
               g.started_at, gates.serial, gates.held, gates.concurrency_key, gates.concurrency_limit,
               gates.rate_key, gates.rate_limit, gates.rate_period_seconds
        from gone g
        left join task_revision r on r.task_id = g.task_id and r.revision = g.revision
        cross join lateral run_gates(g.task_id, r.spec) as gates
        returning run_id as "run_id: RunId"
        "#,
        &ids,
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("send runs back to the queue"))
}
