//! Runs of tasks that callers name, in one statement and one transaction.

use serde_json::Value;
use sqlx::PgConnection;

use super::NewWork;
use super::enqueue::Columns;
use crate::id::{AgentId, TaskId};
use crate::store::StoreError;
use crate::store::task::{ambiguous, not_found, unreadable};
use crate::task::TaskStatus;

/// A run of a task that somebody names.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// The task, by id or name.
    pub reference: &'a str,
    /// Whose tasks are looked at; `None`: everybody's.
    pub sees: Option<AgentId>,
    /// Who calls, for the record.
    pub caller: AgentId,
    /// The request, for the record.
    pub request_id: &'a str,
    /// What else the record is to say.
    pub detail: Value,
    /// The run, as the caller last saw the task; `None`: the task is only looked up.
    pub work: Option<NewWork>,
}

/// A task that a caller names, as far as a run of it needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Called {
    /// Its id.
    pub id: TaskId,
    /// Who owns it.
    pub agent_id: AgentId,
    /// Where it is in its life.
    pub status: TaskStatus,
    /// The revision in force.
    pub revision: i32,
    /// Whether the run of the [`Call`] is in the queue. It is not where the task is at another revision
    /// than the run is of, or canceled.
    pub is_queued: bool,
}

/// Looks up the tasks that are named, and puts the run of each into the queue that is still at the
/// revision which its run is of, with the record of who asked for it (`task.run_now`). Nobody cancels
/// or revises one of the tasks meanwhile. They are due at once. Of each [`NewWork`], what a `run_now` does not
/// have (a dedupe key, a delay, an event) is not looked at.
///
/// # Errors
///
/// [`StoreError::Database`]; nothing is added then. For each call, as for
/// [`find`](crate::store::task::find).
pub async fn enqueue_called(
    conn: &mut PgConnection,
    calls: Vec<Call<'_>>,
) -> Result<Vec<Result<Called, StoreError>>, StoreError> {
    let ids: Vec<_> = calls.iter().map(|one| one.reference.parse::<uuid::Uuid>().ok()).collect();
    let references: Vec<_> = calls.iter().map(|one| one.reference).collect();
    let sees: Vec<_> = calls.iter().map(|one| one.sees.map(|owner| owner.0)).collect();
    let mut work = Columns::with_capacity(calls.len());
    let (mut places, mut callers, mut requests, mut details) = (vec![], vec![], vec![], vec![]);
    for (place, call) in (1_i64..).zip(calls) {
        if let Some(one) = call.work {
            places.push(place);
            work.push(one);
            callers.push(call.caller.0);
            requests.push(call.request_id);
            details.push(call.detail);
        }
    }
    // Locked in the order of the ids, so that two who name several of the same tasks wait for each other
    // in one direction. What a statement that changes a task leaves behind is what is looked at here, and
    // the present begins behind that wait: workers look for what became due a moment ago.
    let rows = sqlx::query_as!(
        Row,
        r#"
        with found as (
            select n.place, task.id
            from unnest($1::uuid[], $2::text[], $3::uuid[])
                 with ordinality as n(id, name, owner, place)
            cross join lateral (
                select t.id from task t
                where t.id = n.id and (n.owner is null or t.agent_id = n.owner)
                union all
                (select t.id from task t
                 where n.id is null and t.name = n.name and t.status <> 'canceled'
                   and (n.owner is null or t.agent_id = n.owner)
                 limit 2)
            ) as task
        ), held as materialized (
            select found.place, t.id, t.agent_id, t.status, t.revision
            from found join task t on t.id = found.id
            order by t.id
            for key share of t
        ), asked as materialized (
            select w.*, held.agent_id, clock_timestamp() as now
            from unnest($4::bigint[], $5::uuid[], $6::uuid[], $7::int[], $8::smallint[],
                        $9::timestamptz[], $10::float8[], $11::jsonb[], $12::bool[], $13::text[],
                        $14::text[], $15::int[], $16::text[], $17::int[], $18::int[], $19::uuid[],
                        $20::text[], $21::jsonb[])
                 as w(place, run_id, task_id, revision, priority, scheduled_at, expires_after, params,
                      serial, held, concurrency_key, concurrency_limit, rate_key, rate_limit,
                      rate_period_seconds, caller, request_id, detail)
            join held on held.place = w.place and held.id = w.task_id
                     and held.revision = w.revision and held.status <> 'canceled'
            where not exists (select from held as twin where twin.place = w.place and twin.id <> w.task_id)
        ), queued as (
            insert into due_work (run_id, agent_id, task_id, revision, priority, run_at, trigger,
                                  scheduled_at, expires_at, params, serial, held, concurrency_key,
                                  concurrency_limit, rate_key, rate_limit, rate_period_seconds)
            select run_id, agent_id, task_id, revision, priority, now, 'run_now', scheduled_at,
                   now + make_interval(secs => expires_after), params, serial, held, concurrency_key, concurrency_limit, rate_key, rate_limit,
                   rate_period_seconds
            from asked
        ), recorded as (
            insert into audit_log (at, agent_id, action, object_kind, object_id, request_id, detail)
            select scheduled_at, caller, 'task.run_now', 'task', task_id::text, request_id, detail
            from asked
        )
        select held.place as "place!", held.id as "id!: TaskId", held.agent_id as "agent_id!: AgentId",
               held.status as "status!", held.revision as "revision!",
               asked.run_id is not null as "is_queued!"
        from held left join asked on asked.place = held.place
        "#,
        &ids as &[Option<uuid::Uuid>],
        &references as &[&str],
        &sees as &[Option<uuid::Uuid>],
        &places,
        &work.run_id,
        &work.task_id as &[Option<uuid::Uuid>],
        &work.revision as &[Option<i32>],
        &work.priority,
        &work.scheduled_at,
        &work.expires_after as &[Option<f64>],
        &work.params as &[Option<Value>],
        &work.serial,
        &work.held as &[Option<&str>],
        &work.concurrency_key as &[Option<String>],
        &work.concurrency_limit as &[Option<i32>],
        &work.rate_key as &[Option<String>],
        &work.rate_limit as &[Option<i32>],
        &work.rate_period_seconds as &[Option<i32>],
        &callers,
        &requests as &[&str],
        &details,
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("enqueue runs of tasks"))?;
    found(&references, rows)
}

/// A task that the call at `place`, from 1, may mean.
struct Row {
    place: i64,
    id: TaskId,
    agent_id: AgentId,
    status: String,
    revision: i32,
    is_queued: bool,
}

/// What each reference means.
fn found(
    references: &[&str],
    rows: Vec<Row>,
) -> Result<Vec<Result<Called, StoreError>>, StoreError> {
    let mut called: Vec<_> = references.iter().map(|text| Err(not_found(text))).collect();
    for row in rows {
        let status: TaskStatus = row.status.parse().map_err(unreadable)?;
        let place = usize::try_from(row.place - 1).unwrap_or(usize::MAX);
        let Some(one) = called.get_mut(place) else { continue };
        *one = match one {
            Err(StoreError::NotFound { .. }) => Ok(Called {
                id: row.id,
                agent_id: row.agent_id,
                status,
                revision: row.revision,
                is_queued: row.is_queued,
            }),
            _ => Err(ambiguous(references[place])),
        };
    }
    Ok(called)
}
