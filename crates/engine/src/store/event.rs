//! Events: kept before they are acknowledged, and turned into runs once.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;

use super::StoreError;
use crate::id::{AgentId, EventId, RunId, TaskId};

/// An event to be kept.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// The id it is to have.
    pub id: EventId,
    /// Its topic: words joined by dots.
    pub topic: String,
    /// What it carries.
    pub payload: Value,
    /// The sender's name for it: a second event of the same agent with this key is not kept.
    pub key: Option<String>,
    /// Who published it; `None`: another program, through the stream.
    pub agent_id: Option<AgentId>,
    /// The entry of the stream it came in by.
    pub stream_id: Option<String>,
    /// When it was received.
    pub received_at: DateTime<Utc>,
}

/// What became of a [`NewEvent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The event that stands for it.
    pub event_id: EventId,
    /// Whether it is an earlier one.
    pub deduplicated: bool,
}

/// An event as it is kept.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its id.
    pub id: EventId,
    /// Its topic.
    pub topic: String,
    /// What it carries.
    pub payload: Value,
    /// The sender's name for it.
    pub key: Option<String>,
    /// Who published it.
    pub agent_id: Option<AgentId>,
    /// When it was received.
    pub received_at: DateTime<Utc>,
    /// When its runs were made.
    pub consumed_at: Option<DateTime<Utc>>,
}

/// A task that waits for events.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// The task.
    pub task_id: TaskId,
    /// Who owns it.
    pub agent_id: AgentId,
    /// The revision in force.
    pub revision: i32,
    /// What it declares ([`crate::task::TaskSpec`]).
    pub spec: Value,
}

/// Which run an event started for a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Started {
    /// The event.
    pub event_id: EventId,
    /// The task.
    pub task_id: TaskId,
    /// The run.
    pub run_id: RunId,
}

/// Keeps an event, unless its key names an earlier one of the same agent.
///
/// # Errors
///
/// [`StoreError::Database`]; nothing is kept then.
pub async fn publish(conn: &mut PgConnection, event: &NewEvent) -> Result<Published, StoreError> {
    if ingest(conn, std::slice::from_ref(event)).await? == 1 {
        return Ok(Published { event_id: event.id, deduplicated: false });
    }
    let earlier = sqlx::query_scalar!(
        r#"
        select id as "id: EventId" from event
        where key = $1 and agent_id is not distinct from $2
        "#,
        event.key,
        event.agent_id as Option<AgentId>,
    )
    .fetch_one(conn)
    .await
    .map_err(StoreError::while_trying("find the event that has the key"))?;
    Ok(Published { event_id: earlier, deduplicated: true })
}

/// Keeps events that are not kept yet (by `key` or `stream_id`). Returns how many were new.
///
/// # Errors
///
/// [`StoreError::Database`]; nothing is kept then.
pub async fn ingest(conn: &mut PgConnection, events: &[NewEvent]) -> Result<u64, StoreError> {
    let id: Vec<_> = events.iter().map(|event| event.id.0).collect();
    let topic: Vec<_> = events.iter().map(|event| event.topic.as_str()).collect();
    let payload: Vec<_> = events.iter().map(|event| &event.payload).collect();
    let key: Vec<_> = events.iter().map(|event| event.key.as_deref()).collect();
    let agent: Vec<_> = events.iter().map(|event| event.agent_id.map(|agent| agent.0)).collect();
    let stream: Vec<_> = events.iter().map(|event| event.stream_id.as_deref()).collect();
    let received: Vec<_> = events.iter().map(|event| event.received_at).collect();
    let done = sqlx::query!(
        "
        insert into event (id, topic, payload, key, agent_id, stream_id, received_at)
        select * from unnest($1::uuid[], $2::text[], $3::jsonb[], $4::text[], $5::uuid[],
                             $6::text[], $7::timestamptz[])
        on conflict do nothing
        ",
        &id,
        &topic as &[&str],
        &payload as &[&Value],
        &key as &[Option<&str>],
        &agent as &[Option<uuid::Uuid>],
        &stream as &[Option<&str>],
        &received,
    )
    .execute(conn)
    .await
    .map_err(StoreError::while_trying("keep events"))?;
    Ok(done.rows_affected())
}

/// Locks the `limit` oldest events whose runs have not been made. Events that another scheduler is
/// consuming are skipped.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn claim_waiting(conn: &mut PgConnection, limit: u16) -> Result<Vec<Event>, StoreError> {
    sqlx::query_as!(
        Event,
        r#"
        select id as "id: EventId", topic, payload, key, agent_id as "agent_id: AgentId",
               received_at, consumed_at
        from event
        where consumed_at is null
        order by id
        limit $1
        for update skip locked
        "#,
        i64::from(limit),
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("claim waiting events"))
}

/// Whether events are there that were not consumed yet.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn are_waiting(conn: &mut PgConnection) -> Result<bool, StoreError> {
    sqlx::query_scalar!(
        r#"select exists (select from event where consumed_at is null) as "waiting!""#
    )
    .fetch_one(conn)
    .await
    .map_err(StoreError::while_trying("ask whether events wait"))
}

/// When the oldest event came in that was not consumed yet; `None`: all are.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn waiting_since(conn: &mut PgConnection) -> Result<Option<DateTime<Utc>>, StoreError> {
    sqlx::query_scalar!(
        "select received_at from event where consumed_at is null order by id limit 1"
    )
    .fetch_optional(conn)
    .await
    .map_err(StoreError::while_trying("look for the oldest event that waits"))
}

/// Every active task that waits for events.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn subscriptions(conn: &mut PgConnection) -> Result<Vec<Subscription>, StoreError> {
    sqlx::query_as!(
        Subscription,
        r#"
        select t.id as "task_id: TaskId", t.agent_id as "agent_id: AgentId", t.revision, r.spec
        from task t
        join task_revision r on r.task_id = t.id and r.revision = t.revision
        where t.schedule_kind = 'event' and t.status = 'active'
        "#,
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("list tasks that wait for events"))
}

/// Says that the runs of these events have been made, in the transaction that makes them.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn consumed(
    conn: &mut PgConnection,
    events: &[EventId],
    started: &[Started],
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let ids: Vec<_> = events.iter().map(|event| event.0).collect();
    sqlx::query!("update event set consumed_at = $2 where id = any($1)", &ids, now)
        .execute(&mut *conn)
        .await
        .map_err(StoreError::while_trying("mark events as consumed"))?;

    let event: Vec<_> = started.iter().map(|one| one.event_id.0).collect();
    let task: Vec<_> = started.iter().map(|one| one.task_id.0).collect();
    let run: Vec<_> = started.iter().map(|one| one.run_id.0).collect();
    sqlx::query!(
        "
        insert into event_run (event_id, task_id, run_id)
        select * from unnest($1::uuid[], $2::uuid[], $3::uuid[])
        ",
        &event,
        &task,
        &run,
    )
    .execute(conn)
    .await
    .map_err(StoreError::while_trying("note which runs events started"))?;
    Ok(())
}

/// An event and the runs it started, in no particular order.
///
/// # Errors
///
/// [`StoreError::NotFound`], [`StoreError::Database`].
pub async fn get(
    conn: &mut PgConnection,
    event: EventId,
) -> Result<(Event, Vec<Started>), StoreError> {
    let found = sqlx::query_as!(
        Event,
        r#"
        select id as "id: EventId", topic, payload, key, agent_id as "agent_id: AgentId",
               received_at, consumed_at
        from event where id = $1
        "#,
        event as EventId,
    )
    .fetch_optional(&mut *conn)
    .await
    .map_err(StoreError::while_trying("look up an event"))?
    .ok_or_else(|| StoreError::NotFound { what: "event", id: event.to_string() })?;
    let started = sqlx::query_as!(
        Started,
        r#"
        select event_id as "event_id: EventId", task_id as "task_id: TaskId",
               run_id as "run_id: RunId"
        from event_run where event_id = $1
        "#,
        event as EventId,
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("look up the runs of an event"))?;
    Ok((found, started))
}

/// The `limit` newest events before `before`, of one topic or of all, newest first.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn list(
    conn: &mut PgConnection,
    topic: Option<&str>,
    before: Option<EventId>,
    limit: i64,
) -> Result<Vec<Event>, StoreError> {
    sqlx::query_as!(
        Event,
        r#"
        select id as "id: EventId", topic, payload, key, agent_id as "agent_id: AgentId",
               received_at, consumed_at
        from event
        where ($1::text is null or topic = $1) and ($2::uuid is null or id < $2)
        order by id desc
        limit $3
        "#,
        topic,
        before as Option<EventId>,
        limit,
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("list events"))
}
