//! What a worker writes back. Every statement takes many runs and is fenced: a run whose token is no
//! longer the given one is left alone, and is missing from the answer.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Write as _;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;

use super::lease::{Lease, columns, distinct};
use super::sealed::Sealed;
use crate::id::{LeaseToken, RunId};
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
    /// All steps that were done under this lease.
    pub records: Vec<Sealed>,
    /// Whether it ended in an attempt of its own: not so when those before had used them all up.
    pub in_attempt: bool,
    /// Whether `records` are all there are of the run: then they are kept in its own row, which costs
    /// less to write than rows of theirs.
    pub records_are_all: bool,
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
    /// All steps that were done under this lease.
    pub records: Vec<Sealed>,
}

/// Ends runs: removes them from the queue, writes their records and those of their last steps.
/// Returns the runs that were ended; the others' leases were lost, and nothing is written of them.
/// Ends the leases `over` as well, of whose runs none is left then.
///
/// # Errors
///
/// [`StoreError::Database`]; nothing is written then, if the caller's transaction ends with it.
pub async fn finish<F: Borrow<Finished> + Sync>(
    conn: &mut PgConnection,
    finished: &[F],
    over: &[LeaseToken],
) -> Result<Vec<RunId>, StoreError> {
    let mut finished: Vec<&Finished> = finished.iter().map(Borrow::borrow).collect();
    // As those who cancel runs lock them: two must not wait for each other in a circle.
    finished.sort_unstable_by_key(|one| one.lease.run_id);
    let leases: Vec<Lease> = finished.iter().map(|one| one.lease).collect();
    let (runs, tokens) = columns(&leases);
    let status: Vec<&str> = finished.iter().map(|one| one.status.as_str()).collect();
    let finished_at: Vec<_> = finished.iter().map(|one| one.finished_at).collect();
    let output: Vec<_> = finished.iter().map(|one| one.output.as_ref()).collect();
    let error: Vec<_> =
        finished.iter().map(|one| one.error.as_ref().map(sqlx::types::Json)).collect();
    let whole: Vec<_> = finished.iter().copied().map(whole_records).collect();
    let counted: Vec<i16> = finished.iter().map(|one| i16::from(one.in_attempt)).collect();
    let in_rows = finished.iter().zip(&whole).filter(|(_, whole)| whole.is_none());
    let steps = Steps::of(
        in_rows.flat_map(|(one, _)| one.records.iter().map(|record| (one.lease.run_id, &**record))),
    );
    let over: Vec<_> = over.iter().map(|token| token.0).collect();
    // One statement: the rows deleted decide which runs and which steps are written. The share lock
    // keeps the leases from being taken over until this is committed. What is materialized is joined by
    // hash: the planner thinks that leases are short, and would read all of one for each run.
    sqlx::query_scalar!(
        r#"
        with live as materialized (
            select token, made_at, run_ids from lease where token = any($20) for share
        ),
        held as materialized (
            select live.token, live.made_at, h.run_id from live cross join unnest(live.run_ids) as h(run_id)
        ),
        ended as materialized (
            select e.*, held.made_at
            from unnest($1::uuid[], $2::bigint[], $3::text[], $4::timestamptz[],
                        $5::jsonb[], $6::jsonb[], $18::text[], $21::smallint[])
                as e(run_id, token, status, finished_at, output, error, steps, counted)
            join held using (run_id, token)
        ),
        gone as (
            delete from due_work w using ended e where w.run_id = e.run_id
            returning w.*, e.status, e.finished_at, e.output, e.error, e.steps, e.made_at,
                      e.counted
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
        ),
        freed as (delete from lease where token = any($19))
        insert into run (id, agent_id, task_id, revision, status, priority, attempt, trigger,
                         nominal_at, scheduled_at, started_at, finished_at, params, event,
                         definition, output, error, steps)
        select run_id, agent_id, task_id, revision, status, priority, attempt + counted, trigger,
               nominal_at, scheduled_at, coalesce(started_at, made_at), finished_at, params,
               event, definition, output, error, steps::json
        from gone
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
        &whole as &[Option<String>],
        &over,
        &distinct(&tokens),
        &counted,
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("finish runs"))
}

/// The records of a run as the text that stands in its own row; `None`: they go to rows of their own.
fn whole_records(finished: &Finished) -> Option<String> {
    if !finished.records_are_all || finished.records.is_empty() {
        return None;
    }
    let mut text = String::new();
    for record in &finished.records {
        text.push(if text.is_empty() { '[' } else { ',' });
        text.push_str(&record.json()?);
    }
    Some(text + "]")
}

/// The most bytes of one row of `checkpoint`, but for a single record that is larger.
const CHECKPOINT_MAX: usize = 4 << 20;

/// Makes step records of runs that go on durable for as long as their leases last: those of one
/// lease in one row. Of two words about one attempt at one step, the one that it has ended counts.
/// Returns the runs whose lease held; what the others wrote counts for nothing. Whether a lease still
/// names the run is for whoever reads: to look for each in all that were leased with it costs more than
/// to write it, and a worker that gives a run back says so last.
///
/// # Errors
///
/// [`StoreError::Database`]; nothing is written then, if the caller's transaction ends with it.
pub async fn checkpoint<R: Borrow<Sealed>>(
    conn: &mut PgConnection,
    checkpoints: &[(Lease, Vec<R>)],
) -> Result<Vec<RunId>, StoreError> {
    let Some((row_tokens, rows)) = checkpoint_rows(checkpoints) else {
        return keep_steps(conn, checkpoints).await;
    };
    let leases: Vec<Lease> = checkpoints.iter().map(|(lease, _)| *lease).collect();
    let (runs, tokens) = columns(&leases);
    // The share lock keeps another worker from taking the lease over until this is committed.
    sqlx::query_scalar!(
        r#"
        with live as materialized (select token from lease where token = any($5) for share),
        kept as (
            insert into checkpoint (token, records)
            select k.token, k.records::json
            from unnest($3::bigint[], $4::text[]) as k(token, records) join live using (token)
        )
        select g.run_id as "run_id!: RunId"
        from unnest($1::uuid[], $2::bigint[]) as g(run_id, token) join live using (token)
        "#,
        &runs,
        &tokens,
        &row_tokens,
        &rows,
        &distinct(&tokens),
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("checkpoint steps"))
}

/// The rows of checkpoints: tokens and JSON arrays. `None` where Postgres could not read one back as
/// jsonb: then it has to be refused now.
fn checkpoint_rows<R: Borrow<Sealed>>(
    checkpoints: &[(Lease, Vec<R>)],
) -> Option<(Vec<i64>, Vec<String>)> {
    let mut open: HashMap<LeaseToken, String> = HashMap::new();
    let (mut tokens, mut rows) = (Vec::new(), Vec::new());
    for (lease, records) in checkpoints {
        let row = open.entry(lease.token).or_default();
        for record in records {
            let record = record.borrow().json()?;
            if row.len() + record.len() > CHECKPOINT_MAX && !row.is_empty() {
                tokens.push(lease.token.0);
                rows.push(std::mem::take(row) + "]");
            }
            row.push(if row.is_empty() { '[' } else { ',' });
            // The record is an object: its run stands in front of its fields.
            write!(row, "{{\"run_id\":\"{}\",{}", lease.run_id, record.get(1..)?).ok()?;
        }
    }
    for (token, row) in open.into_iter().filter(|(_, row)| !row.is_empty()) {
        tokens.push(token.0);
        rows.push(row + "]");
    }
    Some((tokens, rows))
}

/// Writes step records as rows of their own, which outlive the lease. A record that has ended is never changed: a late word
/// that the step is running is dropped. Returns the runs whose lease still held, for which alone
/// something was written.
///
/// # Errors
///
/// [`StoreError::Database`]; nothing is written then, if the caller's transaction ends with it.
pub async fn keep_steps<R: Borrow<Sealed>>(
    conn: &mut PgConnection,
    kept: &[(Lease, Vec<R>)],
) -> Result<Vec<RunId>, StoreError> {
    let leases: Vec<Lease> = kept.iter().map(|(lease, _)| *lease).collect();
    let (runs, tokens) = columns(&leases);
    let steps = Steps::of(kept.iter().flat_map(|(lease, records)| {
        records.iter().map(|record| (lease.run_id, &**record.borrow()))
    }));
    // The share lock keeps another worker from taking the lease over until this is committed: a record
    // can not arrive behind the back of the run's next holder.
    sqlx::query_scalar!(
        r#"
        with live as materialized (
            select token, run_ids from lease where token = any($2) for share
        ),
        held as materialized (
            select h.run_id
            from unnest($1::uuid[], $2::bigint[]) as h(run_id, token)
            join live on live.token = h.token and h.run_id = any(live.run_ids)
            join due_work w on w.run_id = h.run_id
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
        select run_id as "run_id!: RunId" from held
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
    .map_err(StoreError::while_trying("write steps"))
}

/// Puts runs back into the queue for another try, with their lease given up, and writes the records
/// of their steps. Returns the runs that went back; the others' leases were lost.
///
/// # Errors
///
/// [`StoreError::Database`]; nothing is written then, if the caller's transaction ends with it.
pub async fn requeue<R: Borrow<Requeued>>(
    conn: &mut PgConnection,
    requeued: &[R],
) -> Result<Vec<RunId>, StoreError> {
    let mut requeued: Vec<&Requeued> = requeued.iter().map(Borrow::borrow).collect();
    requeued.sort_unstable_by_key(|one| one.lease.run_id);
    let steps: Vec<_> =
        requeued.iter().map(|one| (one.lease, one.records.iter().collect::<Vec<_>>())).collect();
    keep_steps(conn, &steps).await?;

    let leases: Vec<Lease> = requeued.iter().map(|one| one.lease).collect();
    let (runs, tokens) = columns(&leases);
    let delay: Vec<f64> = requeued.iter().map(|one| seconds(one.delay)).collect();
    let counted: Vec<i16> = requeued.iter().map(|one| i16::from(one.counts)).collect();
    let error: Vec<_> = requeued.iter().map(|one| sqlx::types::Json(&one.error)).collect();
    sqlx::query_scalar!(
        r#"
        with given as (
            select * from unnest($1::uuid[], $2::bigint[], $3::float8[], $4::smallint[], $5::jsonb[])
                as g(run_id, token, delay, counted, error)
        ),
        live as materialized (
            select token, made_at, run_ids from lease where token = any($2) for no key update
        ),
        back as (
            select given.*, live.made_at from given
            join live on live.token = given.token and given.run_id = any(live.run_ids)
        ),
        freed as (
            update lease l
            set run_ids = array(select r from unnest(l.run_ids) as r
                                where r not in (select run_id from back where back.token = l.token))
            where l.token in (select token from back)
        )
        update due_work w
        set attempt = w.attempt + back.counted, lapses = 0,
            started_at = coalesce(w.started_at, back.made_at),
            run_at = now() + make_interval(secs => back.delay), last_error = back.error
        from back
        where w.run_id = back.run_id
        returning w.run_id as "run_id: RunId"
        "#,
        &runs,
        &tokens,
        &delay,
        &counted,
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
    fn of(records: impl Iterator<Item = (RunId, &'a StepRecord)>) -> Self {
        // One statement writes a row only once: the last word about an attempt counts.
        let mut rows: Vec<(RunId, &StepRecord)> = Vec::new();
        let mut places: HashMap<(RunId, &str, i32), usize> = HashMap::new();
        for (run, record) in records {
            match places.entry((run, record.path.as_str(), record.attempt)) {
                Entry::Occupied(place) => rows[*place.get()] = (run, record),
                Entry::Vacant(place) => {
                    place.insert(rows.len());
                    rows.push((run, record));
                }
            }
        }
        let mut steps = Self::default();
        for (run, record) in rows {
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
        steps
    }
}
