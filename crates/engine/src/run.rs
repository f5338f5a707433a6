//! Runs and their steps, as every part of the system speaks of them.
//!
//! A run is in exactly one of two places: the queue (`due_work`: queued or running) or finished
//! (`run`); waiting runs will be the third. `docs/run-lifecycle.md` has the picture and every arrow.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An enum kept as `snake_case` text in Postgres and on the wire.
#[macro_export]
macro_rules! text_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord,
                 serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $text)] $variant,)+
        }

        impl $name {
            /// Every value, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word for it, in Postgres and on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(format!(
                        "{text:?} is not one of {}", [$($text),+].join(", "))),
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }
    };
}

text_enum! {
    /// Where a run is in its life.
    RunStatus {
        /// In the queue; a worker may take it at `run_at`.
        Queued = "queued",
        /// A worker holds its lease.
        Running = "running",
        /// It waits for a time, an event or an approval, and holds no slot.
        Waiting = "waiting",
        /// Every step ended well, was skipped, or was allowed to fail.
        Succeeded = "succeeded",
        /// Its last attempt failed; it can be retried by hand.
        Failed = "failed",
        /// Somebody ended it.
        Canceled = "canceled",
        /// It was not started in time (`expires_after_seconds`).
        Expired = "expired",
    }
}

impl RunStatus {
    /// Whether the run has ended and has a record.
    #[must_use]
    pub fn is_finished(self) -> bool {
        match self {
            Self::Queued | Self::Running | Self::Waiting => false,
            Self::Succeeded | Self::Failed | Self::Canceled | Self::Expired => true,
        }
    }
}

text_enum! {
    /// What made a run.
    Trigger {
        /// An occurrence of the task's schedule.
        Schedule = "schedule",
        /// An event that the task subscribes to.
        Event = "event",
        /// A condition that became true.
        Condition = "condition",
        /// Somebody asked for it: `run_now`, or a pipeline without a task.
        RunNow = "run_now",
        /// Past times filled in on request.
        Backfill = "backfill",
        /// A step of another run.
        RunTask = "run_task",
    }
}

text_enum! {
    /// Where a step is in its life.
    StepStatus {
        /// It was started and has not ended.
        Running = "running",
        /// Its tool answered.
        Succeeded = "succeeded",
        /// Its tool failed, or an expression of it did.
        Failed = "failed",
        /// Its `if` was false.
        Skipped = "skipped",
        /// The run was ended while the step was on.
        Canceled = "canceled",
    }
}

/// Why a run or a step failed, for people (`message`) and programs (`kind`). Holds no secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunError {
    /// A word for programs: `timeout`, `unreachable`, `tool_failed`, `refused`, `unknown_tool`,
    /// `expression`, `input`, `output`, `lease_lost`, `run_timeout`, `canceled`, `expired`,
    /// `definition`.
    pub kind: String,
    /// What happened, in one sentence.
    pub message: String,
    /// The path of the step that failed, when one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}

/// What is kept of one attempt at one step. The successful one is its checkpoint: a run that is
/// resumed does not do that step again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The place of the step in its run, unique in it: the ids from the outermost step inwards,
    /// joined by `/`, as in `weather` or `send/on_error/tell`.
    pub path: String,
    /// Which try at this step of this run it is, from 1, counted over all attempts of the run.
    pub attempt: i32,
    /// The step's own id.
    pub id: String,
    /// The tool's address; `None` for a control step.
    pub uses: Option<String>,
    /// How it went.
    pub status: StepStatus,
    /// When it was started.
    pub started_at: DateTime<Utc>,
    /// When it ended; `None` while it is on.
    pub finished_at: Option<DateTime<Utc>>,
    /// What the tool was given, secrets replaced.
    pub input: Option<Value>,
    /// What the tool answered, secrets replaced.
    pub output: Option<Value>,
    /// Why it failed.
    pub error: Option<RunError>,
}

/// What an expression can see of the run it belongs to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunInfo {
    /// The run's id.
    pub id: crate::id::RunId,
    /// The task, unless the run has none.
    pub task_id: Option<crate::id::TaskId>,
    /// Which attempt of the run this is, from 1.
    pub attempt: i32,
    /// What made it.
    pub trigger: Trigger,
    /// The time the schedule named, or, of a run that was asked for ahead of its time, that time.
    pub nominal_at: Option<DateTime<Utc>>,
    /// When it was to start: the nominal time and its jitter, or the moment it was asked for.
    pub scheduled_at: DateTime<Utc>,
}
