//! The ledger of a task's nominal times: what became of each.
//!
//! The scheduler's own writing is in [`super::fire`]; here it is read, and written for times that pass
//! without it: around a pause or an edit, and when somebody makes up for them.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::StoreError;
use super::fire::Occurrence;
use super::task::TaskRow;
use crate::id::{RunId, TaskId};

/// What became of a nominal time, or of a stretch of them.
#[derive(Clone, Debug)]
pub struct LedgerRow {
    /// The time, or the first of the stretch.
    pub nominal_at: DateTime<Utc>,
    /// What became of it.
    pub disposition: String,
    /// Why.
    pub reason: Option<String>,
    /// The run made for it.
    pub run_id: Option<RunId>,
    /// The last time of the stretch; `None` for a single time.
    pub until_at: Option<DateTime<Utc>>,
    /// How many times the stretch has.
    pub count: i32,
}

/// At most `limit` rows of the task's ledger with nominal times after `after` and before `to`, the
/// earliest first.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn list(
    conn: &mut PgConnection,
    task: TaskId,
    after: DateTime<Utc>,
    to: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<LedgerRow>, StoreError> {
    sqlx::query_as!(
        LedgerRow,
        r#"
        select nominal_at, disposition, reason, run_id as "run_id: RunId", until_at, count
        from occurrence
        where task_id = $1 and nominal_at > $2 and nominal_at < $3
        order by nominal_at limit $4
        "#,
        task.0,
        after,
        to,
        limit,
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("read the ledger of a task"))
}

/// Writes rows for nominal times that nobody will fire. A time that has a row keeps it. The caller holds the
/// task, so nobody adds one meanwhile.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn write_off(
    conn: &mut PgConnection,
    task: &TaskRow,
    mut rows: Vec<Occurrence>,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let times: Vec<_> = rows.iter().map(|row| row.nominal_at).collect();
    let known = sqlx::query_scalar!(
        "select nominal_at from occurrence where task_id = $1 and nominal_at = any($2)",
        task.id.0,
        &times,
    )
    .fetch_all(&mut *conn)
    .await
    .map_err(StoreError::while_trying("look which times are decided"))?;
    rows.retain(|row| !known.contains(&row.nominal_at));
    let rows = rows.into_iter().map(|row| (row, task.revision)).collect();
    super::fire::write_ledger(conn, task.id, rows, now).await
}

/// A row with the revision that decided it.
struct Decided {
    nominal_at: DateTime<Utc>,
    disposition: String,
    reason: Option<String>,
    run_id: Option<RunId>,
    until_at: Option<DateTime<Utc>>,
    count: i32,
    revision: i32,
}

impl Decided {
    fn split(self) -> (LedgerRow, i32) {
        let Self { nominal_at, disposition, reason, run_id, until_at, count, revision } = self;
        (LedgerRow { nominal_at, disposition, reason, run_id, until_at, count }, revision)
    }
}

/// The row that holds the nominal time `at`, or the stretch that it may lie in: the last row that
/// begins at or before `at`, if it reaches it. Whether the schedule names `at` is not asked. The
/// second value is the revision that decided.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn covering(
    conn: &mut PgConnection,
    task: TaskId,
    at: DateTime<Utc>,
) -> Result<Option<(LedgerRow, i32)>, StoreError> {
    let row = sqlx::query_as!(
        Decided,
        r#"
        select nominal_at, disposition, reason, run_id as "run_id: RunId", until_at, count, revision
        from (
            select * from occurrence where task_id = $1 and nominal_at <= $2
            order by nominal_at desc limit 1
        ) last
        where coalesce(until_at, nominal_at) >= $2
        "#,
        task.0,
        at,
    )
    .fetch_optional(conn)
    .await
    .map_err(StoreError::while_trying("look a time up in the ledger"))?;
    Ok(row.map(Decided::split))
}

/// Every row of the task that holds a time from `from` on and before `to`, stretches that reach into
/// it included, with the revision that decided; at most `limit`, the earliest first.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn between(
    conn: &mut PgConnection,
    task: TaskId,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<(LedgerRow, i32)>, StoreError> {
    let mut rows: Vec<_> = covering(conn, task, from).await?.into_iter().collect();
    let found = sqlx::query_as!(
        Decided,
        r#"
        select nominal_at, disposition, reason, run_id as "run_id: RunId", until_at, count, revision
        from occurrence
        where task_id = $1 and nominal_at >= $2 and nominal_at < $3
        order by nominal_at limit $4
        "#,
        task.0,
        from,
        to,
        limit,
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("read the ledger of a task"))?;
    let covered = rows.first().map(|(row, _)| row.nominal_at);
    let new = found.into_iter().filter(|row| Some(row.nominal_at) != covered);
    rows.extend(new.map(Decided::split));
    Ok(rows)
}

/// Puts rows in the place of those that begin at `removed`, in the caller's transaction, each with
/// the revision that decided it. The caller holds the task.
///
/// # Errors
///
/// [`StoreError::Database`]: also when a time would get a second row.
pub async fn replace(
    conn: &mut PgConnection,
    task: TaskId,
    removed: &[DateTime<Utc>],
    added: Vec<(Occurrence, i32)>,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "delete from occurrence where task_id = $1 and nominal_at = any($2)",
        task.0,
        removed,
    )
    .execute(&mut *conn)
    .await
    .map_err(StoreError::while_trying("take rows of the ledger apart"))?;
    super::fire::write_ledger(conn, task, added, now).await
}
