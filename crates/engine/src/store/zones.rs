//! The zone data that stored times were worked out with.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;

use super::StoreError;
use crate::id::{AgentId, TaskId};

/// The lock under which one process looks at every schedule (a number of our own).
const LOCK: i64 = 0x6f72_635f_7a6f_6e65;

/// An active task whose time is worked out from its schedule.
#[derive(Clone, Debug)]
pub struct Timed {
    /// The task.
    pub id: TaskId,
    /// Who owns it.
    pub agent_id: AgentId,
    /// Its name or title.
    pub name: String,
    /// What the revision in force declares.
    pub spec: Value,
    /// The start of its rule where it names none.
    pub created_at: DateTime<Utc>,
    /// Every nominal time up to here has its disposition.
    pub cursor_at: DateTime<Utc>,
    /// Nothing is fired before this.
    pub snoozed_until: Option<DateTime<Utc>>,
    /// When it is due, as stored.
    pub next_fire_at: DateTime<Utc>,
}

/// The version of the zone data that stored times were last looked at with; `None`: never.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn version(conn: &mut PgConnection) -> Result<Option<String>, StoreError> {
    sqlx::query_scalar!("select version from zone_data")
        .fetch_optional(conn)
        .await
        .map_err(StoreError::while_trying("read the version of the zone data"))
}

/// Takes the lock of this chore for the caller's transaction; `false` when another process has it.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn try_lock(conn: &mut PgConnection) -> Result<bool, StoreError> {
    sqlx::query_scalar!(r#"select pg_try_advisory_xact_lock($1) as "locked!""#, LOCK)
        .fetch_one(conn)
        .await
        .map_err(StoreError::while_trying("lock the zone data"))
}

/// Keeps the version that stored times were looked at with.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn keep_version(conn: &mut PgConnection, version: &str) -> Result<(), StoreError> {
    sqlx::query!(
        "
        insert into zone_data (version) values ($1)
        on conflict (only_row) do update set version = excluded.version
        ",
        version,
    )
    .execute(conn)
    .await
    .map_err(StoreError::while_trying("keep the version of the zone data"))?;
    Ok(())
}

/// At most `limit` active tasks behind `after` that follow a wall clock and are due some time, by id.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn page(
    conn: &mut PgConnection,
    after: Option<TaskId>,
    limit: i64,
) -> Result<Vec<Timed>, StoreError> {
    sqlx::query_as!(
        Timed,
        r#"
        select t.id as "id: TaskId", t.agent_id as "agent_id: AgentId", coalesce(t.name, t.title) as "name!", r.spec, t.created_at,
               t.cursor_at, t.snoozed_until, t.next_fire_at as "next_fire_at!"
        from task t
        join task_revision r on r.task_id = t.id and r.revision = t.revision
        where ($1::uuid is null or t.id > $1) and t.status = 'active'
          and t.next_fire_at is not null and t.schedule_kind in ('cron', 'rrule', 'once')
        order by t.id limit $2
        "#,
        after.map(|id| id.0),
        limit,
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("read the times of tasks"))
}

/// Makes the scheduler look at the task at `at`, unless somebody has moved its time since.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn move_fire(
    conn: &mut PgConnection,
    task: &Timed,
    at: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "
        update task set next_fire_at = $3
        where id = $1 and next_fire_at = $2 and cursor_at = $4 and status = 'active'
        ",
        task.id.0,
        task.next_fire_at,
        at,
        task.cursor_at,
    )
    .execute(conn)
    .await
    .map_err(StoreError::while_trying("move the time of a task"))?;
    Ok(())
}
