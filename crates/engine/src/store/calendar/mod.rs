//! Calendars that tasks name in `exclude`: the file as it was uploaded, and the dates it came to.
//!
//! A calendar that a task names cannot be deleted, and one that is replaced takes effect at once: each
//! task that names it is counted on (`calendar_epoch`) and looked at again by a scheduler. What has its
//! disposition keeps it.

mod load;

use chrono::{DateTime, NaiveDate, Utc};
use sqlx::PgConnection;

pub use self::load::{CalendarCache, of_schedule, take};
use super::StoreError;
use crate::id::{AgentId, CalendarId, TaskId};
use crate::schedule::calendar::{Calendar, PREFIX, Reading};

/// The most calendars of one agent.
pub const CALENDARS_MAX: i64 = 100;
/// How many users of a calendar are named at most.
pub const USERS_MAX: i64 = 100;

/// A calendar without its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CalendarRow {
    /// Its id.
    pub id: CalendarId,
    /// Whose it is.
    pub agent_id: AgentId,
    /// The owner's name.
    pub owner: String,
    /// What the owner's tasks call it.
    pub name: String,
    /// Counts the uploads.
    pub version: i32,
    /// How many events exclude a date.
    pub events: i32,
    /// How many dates it excludes.
    pub dates: i32,
    /// The earliest of them.
    pub first: NaiveDate,
    /// The latest of them.
    pub last: NaiveDate,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last replaced.
    pub updated_at: DateTime<Utc>,
}

/// A task that names a calendar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The task.
    pub id: TaskId,
    /// Its name, where it has one.
    pub name: Option<String>,
}

fn not_found(name: &str) -> StoreError {
    StoreError::NotFound { what: "calendar", id: name.to_owned() }
}

/// The agent's calendar of that name.
///
/// # Errors
///
/// [`StoreError::NotFound`], [`StoreError::Database`].
pub async fn get(
    conn: &mut PgConnection,
    agent: AgentId,
    name: &str,
) -> Result<CalendarRow, StoreError> {
    sqlx::query_as!(
        CalendarRow,
        r#"
        select c.id as "id: CalendarId", c.agent_id as "agent_id: AgentId", agent.name as owner,
               c.name, c.version, c.events, cardinality(c.dates) as "dates!",
               c.dates[1] as "first!", c.dates[cardinality(c.dates)] as "last!", c.created_at,
               c.updated_at
        from calendar c join agent on agent.id = c.agent_id
        where c.agent_id = $1 and c.name = $2
        "#,
        agent.0,
        name,
    )
    .fetch_optional(conn)
    .await
    .map_err(StoreError::while_trying("read a calendar"))?
    .ok_or_else(|| not_found(name))
}

/// At most `limit` calendars made before `before`, the newest first, of one agent or of all.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn list(
    conn: &mut PgConnection,
    owner: Option<AgentId>,
    before: Option<CalendarId>,
    limit: i64,
) -> Result<Vec<CalendarRow>, StoreError> {
    sqlx::query_as!(
        CalendarRow,
        r#"
        select c.id as "id: CalendarId", c.agent_id as "agent_id: AgentId", agent.name as owner,
               c.name, c.version, c.events, cardinality(c.dates) as "dates!",
               c.dates[1] as "first!", c.dates[cardinality(c.dates)] as "last!", c.created_at,
               c.updated_at
        from calendar c join agent on agent.id = c.agent_id
        where ($1::uuid is null or c.agent_id = $1) and ($2::uuid is null or c.id < $2)
        order by c.id desc limit $3
        "#,
        owner.map(|id| id.0),
        before.map(|id| id.0),
        limit,
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("list calendars"))
}

/// The file, as it was uploaded.
///
/// # Errors
///
/// [`StoreError::NotFound`], [`StoreError::Database`].
pub async fn file(conn: &mut PgConnection, id: CalendarId) -> Result<String, StoreError> {
    sqlx::query_scalar!("select ics from calendar where id = $1", id.0)
        .fetch_optional(conn)
        .await
        .map_err(StoreError::while_trying("read the file of a calendar"))?
        .ok_or_else(|| not_found(&id.to_string()))
}

/// The dates and what they are called.
///
/// # Errors
///
/// [`StoreError::NotFound`], [`StoreError::Database`].
pub async fn dates(conn: &mut PgConnection, id: CalendarId) -> Result<Calendar, StoreError> {
    let row = sqlx::query!("select dates, reasons from calendar where id = $1", id.0)
        .fetch_optional(conn)
        .await
        .map_err(StoreError::while_trying("read the dates of a calendar"))?
        .ok_or_else(|| not_found(&id.to_string()))?;
    Ok(Calendar::new(row.dates.into_iter().zip(row.reasons)))
}

/// The tasks that name the calendar and are not canceled, in the order of their making, at most
/// [`USERS_MAX`].
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn users(
    conn: &mut PgConnection,
    agent: AgentId,
    name: &str,
) -> Result<Vec<User>, StoreError> {
    // The first condition on the revision is that of its index.
    sqlx::query_as!(
        User,
        r#"
        select t.id as "id: TaskId", t.name
        from task_revision r join task t on t.id = r.task_id and t.revision = r.revision
        where r.spec -> 'exclude' <> '[]' and r.spec -> 'exclude' ? $2
          and t.agent_id = $1 and t.status <> 'canceled'
        order by t.id limit $3
        "#,
        agent.0,
        format!("{PREFIX}{name}"),
        USERS_MAX,
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("find the tasks of a calendar"))
}

/// Makes the agent's calendar of that name, or replaces it; then every active task that names it is
/// looked at again at once. Returns whether it is new, and how many tasks that was. The caller wakes
/// the schedulers after the commit.
///
/// # Errors
///
/// [`StoreError::Conflict`] when the agent has [`CALENDARS_MAX`]; [`StoreError::Stale`] when the
/// calendar is at none of the versions in `only_at`.
pub async fn put(
    conn: &mut PgConnection,
    agent: AgentId,
    name: &str,
    ics: &str,
    read: &Reading,
    only_at: Option<&[i32]>,
    now: DateTime<Utc>,
) -> Result<(bool, u64), StoreError> {
    // Tasks before the calendar, as whoever changes a task does: so nobody waits in a ring.
    hold_users(conn, agent, name).await?;
    let before = sqlx::query_scalar!(
        "select version from calendar where agent_id = $1 and name = $2 for update",
        agent.0,
        name,
    )
    .fetch_optional(&mut *conn)
    .await
    .map_err(StoreError::while_trying("hold a calendar"))?;
    if let Some(only_at) = only_at
        && !only_at.contains(&before.unwrap_or(0))
    {
        return Err(StoreError::Stale { what: "calendar", current: before.unwrap_or(0) });
    }
    if before.is_none() {
        check_room(conn, agent).await?;
    }
    let (dates, reasons): (Vec<NaiveDate>, Vec<String>) =
        read.calendar.dates().iter().cloned().unzip();
    let is_new = sqlx::query_scalar!(
        r#"
        insert into calendar (id, agent_id, name, ics, events, dates, reasons, created_at, updated_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $8)
        on conflict (agent_id, name) do update set
            ics = excluded.ics, events = excluded.events, dates = excluded.dates,
            reasons = excluded.reasons, updated_at = excluded.updated_at,
            version = calendar.version + 1
        returning version = 1 as "is_new!"
        "#,
        CalendarId::new(now, &mut crate::id::rng()).0,
        agent.0,
        name,
        ics,
        i32::try_from(read.events).unwrap_or(i32::MAX),
        &dates,
        &reasons,
        now,
    )
    .fetch_one(&mut *conn)
    .await
    .map_err(StoreError::while_trying("keep a calendar"))?;
    let touched = if is_new { 0 } else { touch_users(conn, agent, name, now).await? };
    Ok((is_new, touched))
}

async fn check_room(conn: &mut PgConnection, agent: AgentId) -> Result<(), StoreError> {
    let count = sqlx::query_scalar!(
        r#"select count(*) as "count!" from calendar where agent_id = $1"#,
        agent.0
    )
    .fetch_one(conn)
    .await
    .map_err(StoreError::while_trying("count calendars"))?;
    if count < CALENDARS_MAX {
        return Ok(());
    }
    Err(StoreError::Conflict(format!(
        "the agent has {CALENDARS_MAX} calendars already: delete one first"
    )))
}

async fn hold_users(conn: &mut PgConnection, agent: AgentId, name: &str) -> Result<(), StoreError> {
    sqlx::query!(
        "
        select t.id from task_revision r
        join task t on t.id = r.task_id and t.revision = r.revision
        where r.spec -> 'exclude' <> '[]' and r.spec -> 'exclude' ? $2 and t.agent_id = $1
        order by t.id for update of t
        ",
        agent.0,
        format!("{PREFIX}{name}"),
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("hold the tasks of a calendar"))?;
    Ok(())
}

/// A snoozed task keeps its moment: its times until then belong to it.
async fn touch_users(
    conn: &mut PgConnection,
    agent: AgentId,
    name: &str,
    now: DateTime<Utc>,
) -> Result<u64, StoreError> {
    let touched = sqlx::query!(
        "
        update task t
        set calendar_epoch = calendar_epoch + 1,
            next_fire_at = case when t.snoozed_until > $3 or t.next_fire_at is null
                                then t.next_fire_at else least(t.next_fire_at, $3) end
        from task_revision r
        where r.task_id = t.id and r.revision = t.revision
          and r.spec -> 'exclude' <> '[]' and r.spec -> 'exclude' ? $2
          and t.agent_id = $1 and t.status in ('active', 'paused')
        ",
        agent.0,
        format!("{PREFIX}{name}"),
        now,
    )
    .execute(conn)
    .await
    .map_err(StoreError::while_trying("tell the tasks of a calendar"))?;
    Ok(touched.rows_affected())
}

/// Deletes the agent's calendar of that name.
///
/// # Errors
///
/// [`StoreError::NotFound`]; [`StoreError::Conflict`] naming the tasks that use it.
pub async fn delete(conn: &mut PgConnection, agent: AgentId, name: &str) -> Result<(), StoreError> {
    let deleted =
        sqlx::query!("delete from calendar where agent_id = $1 and name = $2", agent.0, name)
            .execute(&mut *conn)
            .await
            .map_err(StoreError::while_trying("delete a calendar"))?;
    if deleted.rows_affected() == 0 {
        return Err(not_found(name));
    }
    // Looked at behind the lock of the deletion: whoever takes the calendar into use holds it.
    let users = users(conn, agent, name).await?;
    if users.is_empty() {
        return Ok(());
    }
    let named: Vec<String> =
        users.into_iter().map(|user| user.name.unwrap_or_else(|| user.id.to_string())).collect();
    Err(StoreError::Conflict(format!(
        "tasks name the calendar {name} in exclude: {}; change or cancel them first",
        named.join(", ")
    )))
}
