//! The ledger of a task's nominal times: what became of each.
//!
//! The scheduler's own writing is in [`super::fire`]; here it is read, and written for times that pass
//! without it: around a pause or an edit, and when somebody makes up for them.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::StoreError;
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

/// Writes one row for nominal times that nobody will fire. A time that has a row keeps it.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn write_off(
    conn: &mut PgConnection,
    task: &TaskRow,
    times: &LedgerRow,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "
        insert into occurrence (task_id, nominal_at, disposition, reason, revision, until_at, count,
                                decided_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8)
        on conflict do nothing
        ",
        task.id.0,
        times.nominal_at,
        times.disposition,
        times.reason,
        task.revision,
        times.until_at,
        times.count,
        now,
    )
    .execute(conn)
    .await
    .map_err(StoreError::while_trying("write off occurrences"))?;
    Ok(())
}
