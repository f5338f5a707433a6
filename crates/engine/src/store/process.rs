//! The processes that are alive, and the tools they offer. Both are told again and again: what is
//! not repeated fades.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{StoreError, seconds};
use crate::id::ProcessId;
use crate::tool::ToolSpec;

/// How often a process says that it is alive.
pub const HEARTBEAT: Duration = Duration::from_secs(10);
/// After how long without a word a process counts as gone: two heartbeats may be lost.
pub const GONE_AFTER: Duration = Duration::from_secs(35);

/// A process as it describes itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id, drawn at its start.
    pub id: ProcessId,
    /// `api`, `scheduler` or `worker`.
    pub service: String,
    /// The machine's name.
    pub host: String,
    /// Its number on that machine.
    pub pid: i32,
    /// Its build.
    pub version: String,
    /// How many runs it can work on at once.
    pub capacity: i32,
    /// How many it is working on.
    pub active: i32,
    /// When it started.
    pub started_at: DateTime<Utc>,
}

/// Says that a process is alive.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn heartbeat(conn: &mut PgConnection, process: &Process) -> Result<(), StoreError> {
    sqlx::query!(
        "
        insert into process (id, service, host, pid, version, capacity, active, started_at, seen_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, now())
        on conflict (id) do update set
            capacity = excluded.capacity, active = excluded.active, seen_at = now()
        ",
        process.id as ProcessId,
        process.service,
        process.host,
        process.pid,
        process.version,
        process.capacity,
        process.active,
        process.started_at,
    )
    .execute(conn)
    .await
    .map_err(StoreError::while_trying("say that the process is alive"))?;
    Ok(())
}

/// Says that a process has ended.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn leave(conn: &mut PgConnection, process: ProcessId) -> Result<(), StoreError> {
    sqlx::query!("delete from process where id = $1", process as ProcessId)
        .execute(conn)
        .await
        .map_err(StoreError::while_trying("say that the process has ended"))?;
    Ok(())
}

/// The processes of `service` heard of lately, longest running first.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn alive(conn: &mut PgConnection, service: &str) -> Result<Vec<Process>, StoreError> {
    sqlx::query_as!(
        Process,
        r#"
        select id as "id: ProcessId", service, host, pid, version, capacity, active, started_at
        from process
        where service = $1 and seen_at > now() - make_interval(secs => $2)
        order by started_at
        "#,
        service,
        seconds(GONE_AFTER),
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("list processes"))
}

/// The database's clock, which decides leases.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn database_time(conn: &mut PgConnection) -> Result<DateTime<Utc>, StoreError> {
    sqlx::query_scalar!(r#"select clock_timestamp() as "now!""#)
        .fetch_one(conn)
        .await
        .map_err(StoreError::while_trying("ask for the time"))
}

/// Forgets processes that have not been heard of for a long while. Returns how many.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn forget_gone(conn: &mut PgConnection) -> Result<u64, StoreError> {
    let done = sqlx::query!(
        "delete from process where seen_at < now() - make_interval(secs => $1)",
        seconds(GONE_AFTER * 10),
    )
    .execute(&mut *conn)
    .await
    .map_err(StoreError::while_trying("forget processes that are gone"))?;
    sqlx::query!("delete from sleeper where process_id not in (select id from process)")
        .execute(conn)
        .await
        .map_err(StoreError::while_trying("forget sleepers that are gone"))?;
    Ok(done.rows_affected())
}

/// Says which tools a worker offers; the newest description wins.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn offer_tools(conn: &mut PgConnection, tools: &[ToolSpec]) -> Result<(), StoreError> {
    let specs = serde_json::to_value(tools).unwrap_or_default();
    // Unchanged rows are only touched when their date is old: workers repeat this often.
    sqlx::query!(
        r#"
        insert into tool (address, description, input_schema, output_schema, timeout_seconds, scope,
                          source, seen_at)
        select t.*, now()
        from jsonb_to_recordset($1) as t(address text, description text, input_schema jsonb,
            output_schema jsonb, timeout_seconds int, scope text, source text)
        on conflict (address) do update set
            description = excluded.description, input_schema = excluded.input_schema,
            output_schema = excluded.output_schema, timeout_seconds = excluded.timeout_seconds,
            scope = excluded.scope, source = excluded.source, seen_at = excluded.seen_at
        where tool.seen_at < now() - interval '5 minutes'
           or (tool.description, tool.input_schema, tool.output_schema, tool.timeout_seconds,
               tool.scope, tool.source)
              is distinct from (excluded.description, excluded.input_schema, excluded.output_schema,
               excluded.timeout_seconds, excluded.scope, excluded.source)
        "#,
        specs,
    )
    .execute(conn)
    .await
    .map_err(StoreError::while_trying("offer tools"))?;
    Ok(())
}

/// Forgets tools that no worker has offered for `after`. Returns how many.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn forget_tools(conn: &mut PgConnection, after: Duration) -> Result<u64, StoreError> {
    let done = sqlx::query!(
        "delete from tool where seen_at < now() - make_interval(secs => $1)",
        seconds(after),
    )
    .execute(conn)
    .await
    .map_err(StoreError::while_trying("forget tools"))?;
    Ok(done.rows_affected())
}
