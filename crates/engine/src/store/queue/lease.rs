//! Taking runs out of the queue for a while, keeping them, and giving them back.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;

use crate::id::{AgentId, LeaseToken, ProcessId, RunId, TaskId};
use crate::run::{RunError, RunInfo};
use crate::store::{StoreError, seconds};
use crate::text_enum;

/// A worker's right to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// Which run.
    pub run_id: RunId,
    /// What every write about the run must present.
    pub token: LeaseToken,
}

/// A run just leased, with what is needed to work on it.
#[derive(Clone, Debug)]
pub struct Leased {
    /// The right to it.
    pub lease: Lease,
    /// Who owns it.
    pub agent_id: AgentId,
    /// The revision of its task that it is pinned to; `None` for a pipeline without a task.
    pub task: Option<(TaskId, i32)>,
    /// What its expressions see of it; the attempt is the one that begins now.
    pub info: RunInfo,
    /// Parameters over the task's own.
    pub params: Option<Value>,
    /// What its expressions see as `event`.
    pub event: Option<Value>,
    /// The payload of a pipeline without a task.
    pub definition: Option<Value>,
    /// Why the attempt before failed, as far as it could say.
    pub last_error: Option<RunError>,
    /// How long it might have been started already, by the database's clock.
    pub waited: Duration,
    /// It is not to be started any more (`expires_after_seconds`), and never was.
    pub expired: bool,
    /// Somebody asked that it be canceled while nobody held it.
    pub cancel_requested: bool,
    /// Whether there may be records of its steps, and why.
    pub past: Past,
    /// Whether another run of its task may wait for its end.
    pub serial: bool,
    /// The concurrency key whose place it has.
    pub concurrency_key: Option<String>,
}

text_enum! {
    /// What a run has behind it when it is leased.
    Past {
        /// Nothing: nobody has held it before.
        Fresh = "fresh",
        /// Its last holder gave it back.
        Returned = "returned",
        /// Its last holder neither finished it nor gave it back: it died, or was cut off.
        Lapsed = "lapsed",
    }
}

/// Leases at most `limit` runs to `worker` for `duration`, by priority, then by how long they are
/// due.
///
/// Due is: `run_at` has passed, and nobody holds the run or its holder's lease has lapsed. Rows that
/// another worker is taking in this instant are skipped, not waited for. Every returned run has its
/// attempt counted, even if the caller then does nothing. Empty when nothing is due.
///
/// # Errors
///
/// [`StoreError::Database`]; nothing is leased then.
pub async fn lease(
    conn: &mut PgConnection,
    worker: ProcessId,
    duration: Duration,
    limit: u16,
) -> Result<Vec<Leased>, StoreError> {
    let rows = sqlx::query_as!(
        Row,
        r#"
        with token as materialized (select nextval('lease_token') as token),
        due as materialized (
            select candidate.run_id, candidate.locked_by is not null as lapsed
            from generate_series(1, 9) as level(priority)
            cross join lateral (
                select w.run_id, w.locked_by
                from due_work w
                where w.priority = level.priority and w.run_at <= now() and w.held is null
                  and (w.locked_until is null or w.locked_until <= now())
                order by w.run_at
                limit $3
                for update skip locked
            ) as candidate
            limit $3
        )
        update due_work w
        set locked_by = $1, locked_until = now() + make_interval(secs => $2),
            token = (select token from token), attempt = w.attempt + 1,
            started_at = coalesce(w.started_at, now())
        from due
        where w.run_id = due.run_id
        returning w.run_id as "run_id: RunId", w.token as "token!: LeaseToken",
            w.agent_id as "agent_id: AgentId", w.task_id as "task_id: TaskId", w.revision,
            w.attempt, w.trigger, w.nominal_at, w.scheduled_at, w.params, w.event, w.definition,
            w.last_error, w.priority, w.run_at, w.serial, w.concurrency_key,
            extract(epoch from now() - w.run_at)::float8 as "waited!",
            (w.attempt = 1 and w.expires_at <= now()) is true as "expired!",
            w.cancel_requested_at is not null as "cancel_requested!",
            case when due.lapsed then 'lapsed' when w.started_at < now() then 'returned'
                 else 'fresh' end as "past!"
        "#,
        worker as ProcessId,
        seconds(duration),
        i64::from(limit),
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("lease due runs"))?;

    let mut rows = rows;
    rows.sort_by_key(|row| (row.priority, row.run_at));
    rows.into_iter().map(Row::leased).collect()
}

/// A row as the lease statement returns it.
struct Row {
    run_id: RunId,
    token: LeaseToken,
    agent_id: AgentId,
    task_id: Option<TaskId>,
    revision: Option<i32>,
    attempt: i16,
    trigger: String,
    nominal_at: Option<DateTime<Utc>>,
    scheduled_at: DateTime<Utc>,
    params: Option<Value>,
    event: Option<Value>,
    definition: Option<Value>,
    last_error: Option<Value>,
    priority: i16,
    run_at: DateTime<Utc>,
    serial: bool,
    concurrency_key: Option<String>,
    waited: f64,
    expired: bool,
    cancel_requested: bool,
    past: String,
}

impl Row {
    fn leased(self) -> Result<Leased, StoreError> {
        let unreadable = |error: String| StoreError::Database {
            doing: "read a leased run",
            source: sqlx::Error::Decode(error.into()),
        };
        let trigger = self.trigger.parse().map_err(unreadable)?;
        Ok(Leased {
            lease: Lease { run_id: self.run_id, token: self.token },
            agent_id: self.agent_id,
            task: self.task_id.zip(self.revision),
            info: RunInfo {
                id: self.run_id,
                task_id: self.task_id,
                attempt: i32::from(self.attempt),
                trigger,
                nominal_at: self.nominal_at,
                scheduled_at: self.scheduled_at,
            },
            params: self.params,
            event: self.event,
            definition: self.definition,
            last_error: self.last_error.and_then(|error| serde_json::from_value(error).ok()),
            waited: Duration::try_from_secs_f64(self.waited).unwrap_or_default(),
            expired: self.expired,
            cancel_requested: self.cancel_requested,
            past: self.past.parse().map_err(unreadable)?,
            serial: self.serial,
            concurrency_key: self.concurrency_key,
        })
    }
}

/// How long until a run that nobody holds may start; zero when one may already, `None` when the
/// queue holds none. Leases that may lapse are looked at too: the run may start when they do.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn next_due_in(conn: &mut PgConnection) -> Result<Option<Duration>, StoreError> {
    // Nine probes of the index, one a priority; held rows at its front are as few as slots.
    let wait = sqlx::query_scalar!(
        r#"
        select min(extract(epoch from candidate.at - now()))::float8
        from generate_series(1, 9) as level(priority)
        cross join lateral (
            (select w.run_at as at from due_work w
             where w.priority = level.priority and w.held is null and w.locked_until is null
             order by w.run_at limit 1)
            union all
            (select w.locked_until from due_work w
             where w.priority = level.priority and w.held is null and w.run_at <= now()
               and w.locked_until is not null
             order by w.run_at limit 1)
        ) as candidate
        "#,
    )
    .fetch_one(conn)
    .await
    .map_err(StoreError::while_trying("ask when the next run is due"))?;
    Ok(wait.map(|wait| Duration::try_from_secs_f64(wait.max(0.0)).unwrap_or(Duration::MAX)))
}

/// What renewing did to one lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// The run whose lease was renewed.
    pub run_id: RunId,
    /// Somebody wants it canceled: stop it.
    pub cancel_requested: bool,
}

/// Renews all of a worker's leases for `duration` from now, in one statement. A lease that is not in
/// the answer is lost: another worker has the run, or it has ended.
///
/// # Errors
///
/// [`StoreError::Database`]; the leases are then as they were.
pub async fn renew(
    conn: &mut PgConnection,
    leases: &[Lease],
    duration: Duration,
) -> Result<Vec<Renewal>, StoreError> {
    let (runs, tokens) = columns(leases);
    let rows = sqlx::query!(
        r#"
        update due_work w
        set locked_until = now() + make_interval(secs => $3)
        from unnest($1::uuid[], $2::bigint[]) as held(run_id, token)
        where w.run_id = held.run_id and w.token = held.token and w.locked_by is not null
        returning w.run_id as "run_id: RunId", w.cancel_requested_at is not null as "cancel_requested!"
        "#,
        &runs,
        &tokens,
        seconds(duration),
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("renew leases"))?;
    Ok(rows
        .into_iter()
        .map(|row| Renewal { run_id: row.run_id, cancel_requested: row.cancel_requested })
        .collect())
}

/// Gives leases back without burning the attempt: another worker may take the runs at once. Returns
/// how many were still ours.
///
/// # Errors
///
/// [`StoreError::Database`]; the runs are then taken over when the leases lapse.
pub async fn release(conn: &mut PgConnection, leases: &[Lease]) -> Result<u64, StoreError> {
    let (runs, tokens) = columns(leases);
    let done = sqlx::query!(
        "
        update due_work w
        set locked_by = null, locked_until = null, attempt = w.attempt - 1
        from unnest($1::uuid[], $2::bigint[]) as held(run_id, token)
        where w.run_id = held.run_id and w.token = held.token and w.locked_by is not null
        ",
        &runs,
        &tokens,
    )
    .execute(conn)
    .await
    .map_err(StoreError::while_trying("give leases back"))?;
    Ok(done.rows_affected())
}

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
/// the run from being leased between the two looks.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn cancel(
    conn: &mut PgConnection,
    run: RunId,
    error: &RunError,
) -> Result<Canceled, StoreError> {
    let held = sqlx::query_scalar!(
        r#"
        update due_work set cancel_requested_at = coalesce(cancel_requested_at, now())
        where run_id = $1
        returning coalesce(locked_until > now(), false) as "held!"
        "#,
        run as RunId,
    )
    .fetch_optional(&mut *conn)
    .await
    .map_err(StoreError::while_trying("request a cancel"))?;
    match held {
        None => return Ok(Canceled::NotQueued),
        Some(true) => return Ok(Canceled::Requested),
        Some(false) => {}
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

/// Leases as the columns that `unnest` takes.
pub(super) fn columns(leases: &[Lease]) -> (Vec<uuid::Uuid>, Vec<i64>) {
    leases.iter().map(|lease| (lease.run_id.0, lease.token.0)).unzip()
}
