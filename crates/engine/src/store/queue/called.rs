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
/// or revises one of the tasks meanwhile. They are due at once, and the commit tells workers that sleep. Of
/// each [`NewWork`], what a `run_now` does not have (a dedupe key, a delay, an event) is not looked at.
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
    let rows = sqlx::query_as!(
        Row,
        r#"
        select place as "place!", id as "id!: TaskId", agent_id as "agent_id!: AgentId",
               status as "status!", revision as "revision!", is_queued as "is_queued!",
               case when is_queued then
                   (select pg_notify('orchestrator_work', '')::text where exists (select from sleeper))
               end as told
        from enqueue_called($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,
                            $17, $18, $19, $20, $21)
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
    /// Empty when workers that sleep are told of the run by its commit; nothing is asked of it.
    #[expect(dead_code, reason = "a side effect has to be a column")]
    told: Option<String>,
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
