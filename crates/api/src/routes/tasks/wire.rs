//! Tasks as they stand on the wire.

use chrono::{DateTime, Utc};
use orchestrator_engine::id::{RunId, TaskId};
use orchestrator_engine::schedule::calendar::Calendars;
use orchestrator_engine::schedule::{Schedule, ScheduleSpec};
use orchestrator_engine::store::ledger::LedgerRow;
use orchestrator_engine::store::task::{Revision, TaskRow};
use orchestrator_engine::task::{TaskSpec, TaskStatus};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::openapi::TaskFields;
use crate::time;

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

/// What a change would make of a task.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct TaskPreview {
    /// Nothing was changed.
    pub dry_run: bool,
    /// The fields that would change.
    pub changed: Vec<String>,
    /// What would become of the next fires.
    pub fires: Moves,
    /// The task with the new declaration; what the server sets is as it is now.
    pub task: Task,
}

/// The next fires before and after a change, compared as far as both are known.
#[derive(Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Moves {
    /// In both.
    pub kept: Vec<DateTime<Utc>>,
    /// Only before.
    pub removed: Vec<DateTime<Utc>>,
    /// Only after.
    pub added: Vec<DateTime<Utc>>,
}

impl Moves {
    /// Compares two lists in order. Beyond the end of the shorter, if it is cut off there, nothing is
    /// said.
    pub fn between(before: &[DateTime<Utc>], after: &[DateTime<Utc>]) -> Self {
        let horizon = match (before.last(), after.last()) {
            (Some(one), Some(other)) if before.len() == after.len() => *one.min(other),
            (one, other) => one.copied().max(other.copied()).unwrap_or_default(),
        };
        let within = |times: &[DateTime<Utc>], keep: &dyn Fn(&DateTime<Utc>) -> bool| {
            times.iter().filter(|at| **at <= horizon && keep(at)).copied().collect()
        };
        Self {
            kept: within(before, &|at| after.contains(at)),
            removed: within(before, &|at| !after.contains(at)),
            added: within(after, &|at| !before.contains(at)),
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
    /// The new run, or the earlier one that stands for it.
    #[schema(value_type = uuid::Uuid)]
    pub run_id: RunId,
    /// Whether it is an earlier one (`debounce_seconds`, `singleton`, `dedupe_key`).
    pub deduplicated: bool,
}

/// What `snooze` takes: one of the two.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(min_properties = 1)]
pub struct Snooze {
    /// How much later than planned.
    #[schema(minimum = 1)]
    pub delay_seconds: Option<u64>,
    /// Or when.
    #[serde(deserialize_with = "time::optional")]
    pub until: Option<DateTime<Utc>>,
}

/// What `pause` takes.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pause {
    /// Why, for whoever finds it paused.
    pub reason: Option<String>,
}

/// What `resume` takes.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Resume {
    /// Whether nothing that was missed is made up for, whatever the task's policy says.
    pub skip_missed: bool,
}

/// What `backfill` takes.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Backfill {
    /// The first time that may be made up for.
    #[serde(deserialize_with = "time::required")]
    pub from: DateTime<Utc>,
    /// Where the range ends: times before it. Not in the future.
    #[serde(deserialize_with = "time::required")]
    pub to: DateTime<Utc>,
    /// Only show what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// What `backfill` did, or would do.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Backfilled {
    /// Nothing was done.
    pub dry_run: bool,
    /// How many runs were made, or would be.
    pub runs: usize,
    /// Every time of the range, in order.
    pub items: Vec<BackfilledTime>,
}

/// One time of a backfill.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct BackfilledTime {
    /// The time the schedule names.
    pub nominal_at: DateTime<Utc>,
    /// The same on the wall clock of the task.
    pub local: String,
    /// `run`, or `leave` where it is left as it is.
    pub action: &'static str,
    /// Why it is left, or what the ledger said of it before.
    pub reason: Option<String>,
    /// The run that was made.
    #[schema(value_type = Option<uuid::Uuid>)]
    pub run_id: Option<RunId>,
}

/// Why a task did or did not run at some time.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Explained {
    /// The time that was asked about.
    pub at: DateTime<Utc>,
    /// The same on the wall clock of the task.
    pub local: String,
    /// The disposition in the ledger; or `planned`; `undecided`: it has come, and nobody has dealt
    /// with it yet; `not_due`: the schedule does not name it; `not_followed`: the schedule is or was
    /// not followed at that time.
    pub verdict: String,
    /// In plain words.
    pub answer: String,
    /// The schedule that was in force, in plain words.
    pub schedule: String,
    /// The revision that was in force.
    pub revision: i32,
    /// What the ledger says.
    pub occurrence: Option<Occurrence>,
    /// The run that it names.
    pub run: Option<crate::routes::runs::Run>,
    /// The time before it that the schedule names.
    pub previous: Option<DateTime<Utc>>,
    /// The time after it that the schedule names.
    pub next: Option<DateTime<Utc>>,
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
    /// `planned`, or one that stays: `fired`, `coalesced`, `backfilled`, `skipped_…`.
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
