//! What a worker reads to work on a run: the definition it is pinned to, what was done already, and
//! how the run before went.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;

use super::StoreError;
use super::any_json::AnyJson;
use crate::id::{RunId, TaskId};
use crate::run::{StepRecord, StepStatus};

/// What a revision of a task declares ([`crate::task::TaskSpec`]).
///
/// # Errors
///
/// [`StoreError::NotFound`], [`StoreError::Database`].
pub async fn revision(
    conn: &mut PgConnection,
    task: TaskId,
    revision: i32,
) -> Result<Value, StoreError> {
    sqlx::query_scalar!(
        "select spec from task_revision where task_id = $1 and revision = $2",
        task as TaskId,
        revision,
    )
    .fetch_optional(conn)
    .await
    .map_err(StoreError::while_trying("read a task's revision"))?
    .ok_or_else(|| StoreError::NotFound { what: "task revision", id: format!("{task}/{revision}") })
}

/// The step records of runs, in the order in which they were started.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn step_records(
    conn: &mut PgConnection,
    runs: &[RunId],
) -> Result<Vec<(RunId, StepRecord)>, StoreError> {
    let ids: Vec<_> = runs.iter().map(|run| run.0).collect();
    let rows = sqlx::query_as!(
        StepRow,
        r#"
        select run_id as "run_id!: RunId", path as "path!", attempt as "attempt!", id as "id!", uses,
               status as "status!", started_at as "started_at!", finished_at,
               input as "input: AnyJson", output as "output: AnyJson", error as "error: AnyJson"
        from (
            select * from run_step where run_id = any($1)
            union all
            select r.id as run_id, s.* from run r cross join json_to_recordset(r.steps) as s(
                path text, attempt int, id text, uses text, status text, started_at timestamptz,
                finished_at timestamptz, input jsonb, output jsonb, error jsonb)
            where r.id = any($1)
            union all
            select s.run_id, s.path, s.attempt, s.id, s.uses, s.status, s.started_at, s.finished_at,
                   s.input, s.output, s.error
            from lease l join checkpointed s using (token)
            where l.run_ids && $1 and s.run_id = any($1) and s.run_id = any(l.run_ids)
        ) as step
        order by started_at, path, attempt
        "#,
        &ids,
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("read step records"))?;
    let mut records =
        rows.into_iter().map(StepRow::record).collect::<Result<Vec<_>, StoreError>>()?;
    // That a step is on was said before it ended, perhaps in another place.
    let over: HashSet<_> = records
        .iter()
        .filter(|(_, record)| record.status != StepStatus::Running)
        .map(|(run, record)| (*run, record.path.clone(), record.attempt))
        .collect();
    records.retain(|(run, record)| {
        record.status != StepStatus::Running
            || !over.contains(&(*run, record.path.clone(), record.attempt))
    });
    Ok(records)
}

struct StepRow {
    run_id: RunId,
    path: String,
    attempt: i32,
    id: String,
    uses: Option<String>,
    status: String,
    started_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
    input: Option<AnyJson>,
    output: Option<AnyJson>,
    error: Option<AnyJson>,
}

impl StepRow {
    fn record(self) -> Result<(RunId, StepRecord), StoreError> {
        let unreadable = |error: String| StoreError::Database {
            doing: "read a step record",
            source: sqlx::Error::Decode(error.into()),
        };
        let record = StepRecord {
            path: self.path,
            attempt: self.attempt,
            id: self.id,
            uses: self.uses,
            status: self.status.parse().map_err(unreadable)?,
            started_at: self.started_at,
            finished_at: self.finished_at,
            input: self.input.map(AnyJson::shown),
            output: self.output.map(AnyJson::shown),
            error: self
                .error
                .map(|error| serde_json::from_value(error.shown()))
                .transpose()
                .map_err(|error| unreadable(error.to_string()))?,
        };
        Ok((self.run_id, record))
    }
}

/// How the newest finished run of a task went, as expressions see it in `last`:
/// `{status, output, finished_at}`. `None` when none has finished.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn last_run(conn: &mut PgConnection, task: TaskId) -> Result<Option<Value>, StoreError> {
    let row = sqlx::query!(
        r#"
        select status, output as "output: AnyJson", finished_at from run
        where task_id = $1 order by id desc limit 1
        "#,
        task as TaskId,
    )
    .fetch_optional(conn)
    .await
    .map_err(StoreError::while_trying("read how the last run went"))?;
    Ok(row.map(|row| {
        serde_json::json!({
            "status": row.status, "output": row.output.map(AnyJson::shown), "finished_at": row.finished_at,
        })
    }))
}
