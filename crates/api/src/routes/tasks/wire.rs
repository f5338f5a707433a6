//! Tasks as they stand on the wire.

use chrono::{DateTime, Utc};
use orchestrator_engine::id::{RunId, TaskId};
use orchestrator_engine::schedule::calendar::Calendars;
use orchestrator_engine::schedule::{Schedule, ScheduleSpec};
use orchestrator_engine::store::task::{LedgerRow, Revision, TaskRow};
use orchestrator_engine::task::{TaskSpec, TaskStatus};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::openapi::TaskFields;

/// The fields of a task that only the server sets.
pub const OF_THE_SERVER: &[&str] = &[
    "id",
    "status",
    "revision",
    "version",
    "summary",
    "next_fire_at",
    "snoozed_until",
    "fires",
    "paused_at",
    "paused_by",
    "pause_reason",
    "created_at",
    "updated_at",
];

/// A task: what was declared, and what became of it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Task {
    #[serde(flatten)]
    #[schema(value_type = TaskFields)]
    spec: TaskSpec,
    /// Its id.
    #[schema(value_type = uuid::Uuid)]
    pub id: TaskId,
    /// `active`, `paused`, `completed` or `canceled`.
    #[schema(value_type = String)]
    status: TaskStatus,
    /// Which edit of the declaration is in force.
    revision: i32,
    /// Counts every change; the entity tag.
    pub version: i32,
    /// The schedule in plain words.
    summary: String,
    /// The next time the task is due.
    next_fire_at: Option<DateTime<Utc>>,
    /// Nothing is fired before this.
    snoozed_until: Option<DateTime<Utc>>,
    /// How often it has fired.
    fires: i32,
    /// Since when it is paused.
    paused_at: Option<DateTime<Utc>>,
    /// The name of who paused it.
    paused_by: Option<String>,
    /// Why it is paused.
    pause_reason: Option<String>,
    /// The name of the agent that owns it.
    created_by: String,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// When somebody last changed it.
    updated_at: DateTime<Utc>,
}

impl From<TaskRow> for Task {
    fn from(row: TaskRow) -> Self {
        // What was accepted compiles; after an upgrade that refuses it, the task can still be seen.
        // The words name a calendar and none of its dates.
        let spec = ScheduleSpec::from(&row.spec);
        let summary = Schedule::compile_with(&spec, row.created_at, &Calendars::any()).map_or_else(
            |_| "this version cannot follow the schedule".to_owned(),
            |schedule| schedule.summary().to_owned(),
        );
        Self {
            spec: row.spec,
            id: row.id,
            status: row.status,
            revision: row.revision,
            version: row.version,
            summary,
            next_fire_at: row.next_fire_at,
            snoozed_until: row.snoozed_until,
            fires: row.fires,
            paused_at: row.paused_at,
            paused_by: row.paused_by,
            pause_reason: row.pause_reason,
            created_by: row.owner,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// What `run_now` takes.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RunNow {
    /// Parameters over the task's own.
    #[schema(value_type = Option<Object>)]
    pub params: Option<serde_json::Map<String, Value>>,
}

/// The run that stands for what was asked.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Accepted {
    /// The new run, or the one whose dedupe window is open.
    #[schema(value_type = uuid::Uuid)]
    pub run_id: RunId,
    /// Whether it is an earlier one.
    pub deduplicated: bool,
}

/// What `snooze` takes: one of the two.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Snooze {
    /// How much later than planned.
    #[schema(minimum = 1)]
    pub delay_seconds: Option<u32>,
    /// Or when.
    pub until: Option<DateTime<Utc>>,
}

/// What `pause` takes.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pause {
    /// Why, for whoever finds it paused.
    pub reason: Option<String>,
}

/// What takes no fields.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Nothing {}

/// What became of a nominal time, or will.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Occurrence {
    /// The time the schedule names; of a stretch, the first.
    pub nominal_at: DateTime<Utc>,
    /// `planned`, or for ever one of `fired`, `coalesced`, `backfilled`, `skipped_…`.
    pub disposition: String,
    /// Why, where the disposition does not say it all.
    pub reason: Option<String>,
    /// The run that was made for it.
    #[schema(value_type = Option<uuid::Uuid>)]
    pub run_id: Option<RunId>,
    /// The last time of a stretch kept as one.
    pub until_at: Option<DateTime<Utc>>,
    /// How many times the stretch has.
    pub count: i32,
}

impl From<LedgerRow> for Occurrence {
    fn from(row: LedgerRow) -> Self {
        Self {
            nominal_at: row.nominal_at,
            disposition: row.disposition,
            reason: row.reason,
            run_id: row.run_id,
            until_at: row.until_at,
            count: row.count,
        }
    }
}

/// A revision of a task.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct TaskRevision {
    /// Counts from 1.
    pub revision: i32,
    /// What it declares.
    #[schema(value_type = TaskFields)]
    pub spec: Value,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// The name of who made it.
    pub created_by: String,
}

impl From<Revision> for TaskRevision {
    fn from(row: Revision) -> Self {
        let Revision { revision, spec, created_at, created_by } = row;
        Self { revision, spec, created_at, created_by }
    }
}
