//! Runs as they stand on the wire.

use chrono::{DateTime, Utc};
use orchestrator_engine::id::{RunId, TaskId};
use orchestrator_engine::run::{RunError, RunStatus, StepRecord, StepStatus, Trigger};
use orchestrator_engine::store::queue::Held;
use orchestrator_engine::store::run::RunRow;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::openapi::PayloadFields;

/// A run, as lists show it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Run {
    /// Its id.
    #[schema(value_type = uuid::Uuid)]
    pub id: RunId,
    /// The task; null for a payload without one.
    #[schema(value_type = Option<uuid::Uuid>)]
    pub task_id: Option<TaskId>,
    /// The task's name.
    pub task_name: Option<String>,
    /// The task's title.
    pub task_title: Option<String>,
    /// The revision of the task it is pinned to.
    pub revision: Option<i32>,
    /// `queued`, `running`, `waiting`, `succeeded`, `failed`, `canceled` or `expired`.
    #[schema(value_type = String)]
    pub status: RunStatus,
    /// What made it.
    #[schema(value_type = String)]
    pub trigger: Trigger,
    /// Which attempt it is at, or ended with; 0 before the first.
    pub attempt: i16,
    /// 1 (first) to 9.
    pub priority: i16,
    /// The time the schedule named, or, of a run that was asked for ahead of its time, that time.
    pub nominal_at: Option<DateTime<Utc>>,
    /// When it was to start.
    pub scheduled_at: DateTime<Utc>,
    /// While it is queued: not to be started before this.
    pub run_at: Option<DateTime<Utc>>,
    /// While it is queued: what it waits for besides its time. `overlap`: the run of its task before
    /// it; `catch_up`: its turn after an outage; `concurrency`: a free place of its concurrency key;
    /// `rate`: its turn by the `rate_limit` of its task.
    #[schema(value_type = Option<String>)]
    pub waits_for: Option<Held>,
    /// When a worker first took it.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// Since when somebody wants it ended.
    pub cancel_requested_at: Option<DateTime<Utc>>,
    /// Why it failed; before its end, why its last attempt did.
    #[schema(value_type = Option<Object>)]
    pub error: Option<Value>,
}

impl From<RunRow> for Run {
    fn from(row: RunRow) -> Self {
        Self {
            id: row.id,
            task_id: row.task_id,
            task_name: row.task_name,
            task_title: row.task_title,
            revision: row.revision,
            status: row.status,
            trigger: row.trigger,
            attempt: row.attempt,
            priority: row.priority,
            nominal_at: row.nominal_at,
            scheduled_at: row.scheduled_at,
            run_at: row.run_at,
            started_at: row.started_at,
            finished_at: row.finished_at,
            waits_for: row.waits_for,
            cancel_requested_at: row.cancel_requested_at,
            error: row.error,
        }
    }
}

/// A run with what it was given, what it came to, and its steps.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct RunDetail {
    /// As lists show it.
    #[serde(flatten)]
    pub run: Run,
    /// Parameters given with it, over the task's own.
    #[schema(value_type = Option<Object>)]
    pub params: Option<Value>,
    /// The event that started it.
    #[schema(value_type = Option<Object>)]
    pub event: Option<Value>,
    /// The payload, where there is no task.
    #[schema(value_type = Option<PayloadFields>)]
    pub payload: Option<Value>,
    /// What it came to.
    pub output: Option<Value>,
    /// Every attempt at every step, in the order in which they were started.
    pub steps: Vec<Step>,
}

/// One attempt at a step of a run.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Step {
    /// The step's own id.
    pub id: String,
    /// Its place in the run: the ids from the outermost step inwards, joined by `/`.
    pub path: String,
    /// The tool it calls; null for a control step.
    pub uses: Option<String>,
    /// `running`, `succeeded`, `failed`, `skipped` or `canceled`.
    #[schema(value_type = String)]
    pub status: StepStatus,
    /// Which try it is, from 1, over all attempts of the run.
    pub attempt: i32,
    /// When it was started.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// What the tool was given, secrets replaced.
    pub input: Option<Value>,
    /// What the tool answered, secrets replaced.
    pub output: Option<Value>,
    /// Why it failed.
    #[schema(value_type = Option<Object>)]
    pub error: Option<RunError>,
}

impl From<StepRecord> for Step {
    fn from(record: StepRecord) -> Self {
        Self {
            id: record.id,
            path: record.path,
            uses: record.uses,
            status: record.status,
            attempt: record.attempt,
            started_at: record.started_at,
            finished_at: record.finished_at,
            input: record.input,
            output: record.output,
            error: record.error,
        }
    }
}

/// A payload to be run once, without a task.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRun {
    /// What to do.
    #[schema(value_type = PayloadFields)]
    pub payload: Value,
    /// Parameters over the payload's own.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub params: Option<Map<String, Value>>,
    /// 1 (first) to 9; default 5.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 9)]
    pub priority: Option<i16>,
    /// It ends `expired` when it was not started so many seconds after it might have.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub expires_after_seconds: Option<u32>,
    /// A second run with this key inside the window is not made.
    #[serde(default)]
    pub dedupe_key: Option<String>,
    /// The window of `dedupe_key`.
    #[serde(default)]
    pub dedupe_window_seconds: u32,
}

/// What `cancel` takes.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CancelRun {}

/// What `retry` takes.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetryRun {
    /// Id of a step of the outermost list: it and all after it are done again. Without it, the run
    /// goes on behind the last step that succeeded.
    pub from_step: Option<String>,
}

impl RunDetail {
    /// A run with its steps.
    pub fn new(mut row: RunRow, steps: Vec<Step>) -> Self {
        Self {
            params: row.params.take(),
            event: row.event.take(),
            payload: row.definition.take(),
            output: row.output.take(),
            run: row.into(),
            steps,
        }
    }
}
