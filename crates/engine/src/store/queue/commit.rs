//! What a worker writes back. Every statement takes many runs and is fenced: a run whose token is no
//! longer the given one is left alone, and is missing from the answer.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;

use super::lease::{Lease, columns};
use crate::id::RunId;
use crate::run::{RunError, RunStatus, StepRecord};
use crate::store::{StoreError, seconds};

/// The end of a run.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The right to say so.
    pub lease: Lease,
    /// `succeeded`, `failed`, `canceled` or `expired`.
    pub status: RunStatus,
    /// When it ended.
    pub finished_at: DateTime<Utc>,
    /// What it came to.
    pub output: Option<Value>,
    /// Why it did not come to it; always there when it failed.
    pub error: Option<RunError>,
    /// Steps not yet checkpointed.
    pub records: Vec<StepRecord>,
}

/// A run that goes back to the queue for another try.
#[derive(Clone, Debug)]
pub struct Requeued {
    /// The right to say so.
    pub lease: Lease,
    /// How long it is to wait.
    pub delay: Duration,
    /// Whether the attempt counts. A step with its own `retry` tries again within one attempt.
    pub counts: bool,
    /// Why.
    pub error: RunError,
    /// Steps not yet checkpointed.
    pub records: Vec<StepRecord>,
}

/// Ends runs: removes them from the queue, writes their records and those of their last steps.
/// Returns the runs that were ended; the others' leases were lost, and nothing is written of them.
///
/// # Errors
///
/// [`StoreError::Database`]; nothing is written then, if the caller's transaction ends with it.
pub async fn finish(
    conn: &mut PgConnection,
    finished: &[Finished],
) -> Result<Vec<RunId>, StoreError> {
    let leases: Vec<Lease> = finished.iter().map(|one| one.lease).collect();
    let (runs, tokens) = columns(&leases);
    let status: Vec<&str> = finished.iter().map(|one| one.status.as_str()).collect();
    let finished_at: Vec<_> = finished.iter().map(|one| one.finished_at).collect();
    let output: Vec<_> = finished.iter().map(|one| one.output.as_ref()).collect();
    let error: Vec<_> =
        finished.iter().map(|one| one.error.as_ref().map(sqlx::types::Json)).collect();
    let steps = Steps::of(finished.iter().map(|one| (one.lease.run_id, &one.records[..])));
    // One statement: the rows deleted decide which runs and which steps are written.
    sqlx::query_scalar!(
        r#"
        with ended as (
            select * from unnest($1::uuid[], $2::bigint[], $3::text[], $4::timestamptz[],
                                 $5::jsonb[], $6::jsonb[])
                as e(run_id, token, status, finished_at, output, error)
        ),
        gone as (
            delete from due_work w using ended e
            where w.run_id = e.run_id and w.token = e.token and w.locked_by is not null
            returning w.*
        ),
        kept as (
            insert into run_step (run_id, path, attempt, id, uses, status, started_at, finished_at,
                                  input, output, error)
            select s.* from unnest($7::uuid[], $8::text[], $9::int[], $10::text[], $11::text[],
                                   $12::text[], $13::timestamptz[], $14::timestamptz[],
                                   $15::jsonb[], $16::jsonb[], $17::jsonb[])
                as s(run_id, path, attempt, id, uses, status, started_at, finished_at,
                     input, output, error)
            where s.run_id in (select run_id from gone)
            on conflict (run_id, path, attempt) do update set
                status = excluded.status, finished_at = excluded.finished_at,
                input = excluded.input, output = excluded.output, error = excluded.error
                where run_step.status = 'running'
        )
        insert into run (id, agent_id, task_id, revision, status, priority, attempt, trigger,
                         nominal_at, scheduled_at, started_at, finished_at, params, event,
                         definition, output, error)
        select g.run_id, g.agent_id, g.task_id, g.revision, e.status, g.priority, g.attempt,
               g.trigger, g.nominal_at, g.scheduled_at, g.started_at, e.finished_at, g.params,
               g.event, g.definition, e.output, e.error
        from gone g join ended e using (run_id)
        returning id as "id: RunId"
        "#,
        &runs,
        &tokens,
        &status as &[&str],
        &finished_at,
        &output as &[Option<&Value>],
        &error as &[Option<sqlx::types::Json<&RunError>>],
        &steps.run_id,
        &steps.path as &[&str],
        &steps.attempt,
        &steps.id as &[&str],
        &steps.uses as &[Option<&str>],
        &steps.status as &[&str],
        &steps.started_at,
        &steps.finished_at as &[Option<DateTime<Utc>>],
        &steps.input as &[Option<&Value>],
        &steps.output as &[Option<&Value>],
        &steps.error as &[Option<sqlx::types::Json<&RunError>>],
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("finish runs"))
}

/// Writes step records of runs that go on. A record that has ended is never changed: a late word
/// that the step is running is dropped. Returns the runs whose lease still held, for which alone
/// something was written.
///
/// # Errors
///
/// [`StoreError::Database`]; nothing is written then, if the caller's transaction ends with it.
pub async fn checkpoint(
    conn: &mut PgConnection,
    checkpoints: &[(Lease, Vec<StepRecord>)],
) -> Result<Vec<RunId>, StoreError> {
    let leases: Vec<Lease> = checkpoints.iter().map(|(lease, _)| *lease).collect();
    let (runs, tokens) = columns(&leases);
    let steps = Steps::of(checkpoints.iter().map(|(lease, records)| (lease.run_id, &records[..])));
    // The share lock keeps another worker from leasing the run until this is committed: a record can
    // not arrive behind the back of the run's next holder.
    sqlx::query_scalar!(
        r#"
        with held as materialized (
            select w.run_id
            from due_work w
            join unnest($1::uuid[], $2::bigint[]) as h(run_id, token)
              on w.run_id = h.run_id and w.token = h.token
            where w.locked_by is not null
            for share of w
        ),
        kept as (
            insert into run_step (run_id, path, attempt, id, uses, status, started_at, finished_at,
                                  input, output, error)
            select s.* from unnest($3::uuid[], $4::text[], $5::int[], $6::text[], $7::text[],
                                   $8::text[], $9::timestamptz[], $10::timestamptz[],
                                   $11::jsonb[], $12::jsonb[], $13::jsonb[])
                as s(run_id, path, attempt, id, uses, status, started_at, finished_at,
                     input, output, error)
            where s.run_id in (select run_id from held)
            on conflict (run_id, path, attempt) do update set
                status = excluded.status, finished_at = excluded.finished_at,
                input = excluded.input, output = excluded.output, error = excluded.error
                where run_step.status = 'running'
        )
        select run_id as "run_id: RunId" from held
        "#,
        &runs,
        &tokens,
        &steps.run_id,
        &steps.path as &[&str],
        &steps.attempt,
        &steps.id as &[&str],
        &steps.uses as &[Option<&str>],
        &steps.status as &[&str],
        &steps.started_at,
        &steps.finished_at as &[Option<DateTime<Utc>>],
        &steps.input as &[Option<&Value>],
        &steps.output as &[Option<&Value>],
        &steps.error as &[Option<sqlx::types::Json<&RunError>>],
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("checkpoint steps"))
}

/// Puts runs back into the queue for another try, with their lease given up, and writes the records
/// of their steps. Returns the runs that went back; the others' leases were lost.
///
/// # Errors
///
/// [`StoreError::Database`]; nothing is written then, if the caller's transaction ends with it.
pub async fn requeue(
    conn: &mut PgConnection,
    requeued: &[Requeued],
) -> Result<Vec<RunId>, StoreError> {
    let checkpoints: Vec<_> = requeued.iter().map(|one| (one.lease, one.records.clone())).collect();
    checkpoint(conn, &checkpoints).await?;

    let leases: Vec<Lease> = requeued.iter().map(|one| one.lease).collect();
    let (runs, tokens) = columns(&leases);
    let delay: Vec<f64> = requeued.iter().map(|one| seconds(one.delay)).collect();
    let uncounted: Vec<i16> = requeued.iter().map(|one| i16::from(!one.counts)).collect();
    let error: Vec<_> = requeued.iter().map(|one| sqlx::types::Json(&one.error)).collect();
    sqlx::query_scalar!(
        r#"
        update due_work w
        set locked_by = null, locked_until = null, attempt = w.attempt - back.uncounted,
            run_at = now() + make_interval(secs => back.delay), last_error = back.error
        from unnest($1::uuid[], $2::bigint[], $3::float8[], $4::smallint[], $5::jsonb[])
            as back(run_id, token, delay, uncounted, error)
        where w.run_id = back.run_id and w.token = back.token and w.locked_by is not null
        returning w.run_id as "run_id: RunId"
        "#,
        &runs,
        &tokens,
        &delay,
        &uncounted,
        &error as &[sqlx::types::Json<&RunError>],
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("put runs back into the queue"))
}

/// Step records turned into columns, as `unnest` takes them.
#[derive(Default)]
struct Steps<'a> {
    run_id: Vec<uuid::Uuid>,
    path: Vec<&'a str>,
    attempt: Vec<i32>,
    id: Vec<&'a str>,
    uses: Vec<Option<&'a str>>,
    status: Vec<&'static str>,
    started_at: Vec<DateTime<Utc>>,
    finished_at: Vec<Option<DateTime<Utc>>>,
    input: Vec<Option<&'a Value>>,
    output: Vec<Option<&'a Value>>,
    error: Vec<Option<sqlx::types::Json<&'a RunError>>>,
}

impl<'a> Steps<'a> {
    fn of(runs: impl Iterator<Item = (RunId, &'a [StepRecord])>) -> Self {
        let mut steps = Self::default();
        for (run, records) in runs {
            for record in records {
                steps.run_id.push(run.0);
                steps.path.push(&record.path);
                steps.attempt.push(record.attempt);
                steps.id.push(&record.id);
                steps.uses.push(record.uses.as_deref());
                steps.status.push(record.status.as_str());
                steps.started_at.push(record.started_at);
                steps.finished_at.push(record.finished_at);
                steps.input.push(record.input.as_ref());
                steps.output.push(record.output.as_ref());
                steps.error.push(record.error.as_ref().map(sqlx::types::Json));
            }
        }
        steps
    }
}
