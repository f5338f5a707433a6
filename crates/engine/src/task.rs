//! What an agent declares: a schedule, a pipeline and policies.
//!
//! [`TaskSpec`] is the wire form and what a revision stores, every default written out. Fields are
//! checked here ([`TaskSpec::problems`]); the schedule and the pipeline are checked by their modules.

mod admission;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::problem::Problem;
use crate::text_enum;

pub use admission::{
    DEBOUNCE_BOUND_MAX_SECONDS, DEBOUNCE_MAX_SECONDS, DEBOUNCE_MOVES, Debounce, Merging,
    RATE_KEY_MAX, RATE_LIMIT_MAX, RATE_PERIOD_MAX_SECONDS, Rate, RateLimit,
};

text_enum! {
    /// What a schedule is written in.
    ScheduleKind {
        /// Five or six fields, Vixie semantics.
        Cron = "cron",
        /// RFC 5545 recurrence rule.
        Rrule = "rrule",
        /// ISO 8601 duration or seconds.
        Interval = "interval",
        /// One time.
        Once = "once",
        /// A pattern of event topics.
        Event = "event",
        /// An expression that is asked again and again.
        Condition = "condition",
        /// Only when somebody asks.
        Manual = "manual",
    }
}

text_enum! {
    /// Where a task is in its life.
    TaskStatus {
        /// Its schedule is followed.
        Active = "active",
        /// Its schedule is not followed until somebody resumes it.
        Paused = "paused",
        /// Its schedule has no further times.
        Completed = "completed",
        /// Ended by somebody, for good.
        Canceled = "canceled",
    }
}

text_enum! {
    /// What to do when a task is due while its previous run has not ended.
    Overlap {
        /// Do not run; the occurrence is `skipped_overlap`.
        Skip = "skip",
        /// Let one run wait, no more.
        QueueOne = "queue_one",
        /// Let every run wait.
        QueueAll = "queue_all",
        /// End the previous run, then run.
        CancelRunning = "cancel_running",
        /// Run beside it.
        Allow = "allow",
    }
}

impl Overlap {
    /// Whether the task's runs go one at a time, those of its schedule waiting for any other.
    #[must_use]
    pub fn is_serial(self) -> bool {
        matches!(self, Self::QueueOne | Self::QueueAll | Self::CancelRunning)
    }
}

text_enum! {
    /// What to do with the times that passed while nobody was there.
    CatchUp {
        /// Nothing.
        None = "none",
        /// Run once, for the latest of them.
        Latest = "latest",
        /// Run for each.
        All = "all",
    }
}

text_enum! {
    /// What to do with a local time that a clock change leaves out.
    DstGap {
        /// Move it by the width of the gap (RFC 5545 §3.3.5): 02:30 becomes 03:30.
        Shift = "shift",
        /// Leave it out.
        Skip = "skip",
    }
}

text_enum! {
    /// What to do with a local time that a clock change brings twice.
    DstFold {
        /// The first of the two.
        First = "first",
        /// The second.
        Last = "last",
        /// Both.
        Both = "both",
    }
}

text_enum! {
    /// How the wait before the next attempt grows.
    Backoff {
        /// Doubles, with a random part (full jitter).
        ExponentialJitter = "exponential_jitter",
        /// Doubles.
        Exponential = "exponential",
        /// Grows by the same amount.
        Linear = "linear",
        /// Stays the same.
        Fixed = "fixed",
    }
}

/// How a schedule treats overlap, absence and clock changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// When the previous run has not ended.
    pub overlap: Overlap,
    /// When times passed unseen.
    pub catch_up: CatchUp,
    /// How old a time may be to be caught up, in seconds.
    pub catch_up_window_seconds: u32,
    /// The largest delay that is added to a nominal time, in seconds.
    pub jitter_seconds: u32,
    /// When a local time does not exist.
    pub dst_gap: DstGap,
    /// When a local time exists twice.
    pub dst_fold: DstFold,
    /// The task is paused when so many of its runs in a row have failed; `None`: never.
    pub pause_after_failures: Option<u16>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            overlap: Overlap::Skip,
            catch_up: CatchUp::Latest,
            catch_up_window_seconds: 3600,
            jitter_seconds: 0,
            dst_gap: DstGap::Shift,
            dst_fold: DstFold::First,
            pause_after_failures: None,
        }
    }
}

/// A task as it is declared, every default written out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskSpec {
    /// A slug, unique among the agent's tasks that are not canceled; routes take it for the id.
    #[serde(default)]
    pub name: Option<String>,
    /// What people call it.
    pub title: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// What the schedule is written in.
    pub schedule_kind: ScheduleKind,
    /// The schedule; empty for `manual`.
    #[serde(default)]
    pub schedule_expr: String,
    /// IANA name of the zone whose wall clock the schedule follows.
    #[serde(default = "defaults::timezone")]
    pub timezone: String,
    /// No occurrence before this; also the start (DTSTART) of a rule or an interval.
    #[serde(default)]
    pub starts_at: Option<DateTime<Utc>>,
    /// No occurrence after this.
    #[serde(default)]
    pub ends_at: Option<DateTime<Utc>>,
    /// No more than so many occurrences.
    #[serde(default)]
    pub max_fires: Option<u32>,
    /// Local dates (`2026-12-25`), date ranges (`2026-12-24/2026-12-26`, both included) and calendars
    /// of the owner (`calendar:de-holidays`) without occurrences.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Overlap, absence, clock changes.
    #[serde(default)]
    pub policy: Policy,
    /// `params` and `pipeline`; read by [`crate::pipeline`].
    pub payload: Value,
    /// 1 (first) to 9.
    #[serde(default = "defaults::priority")]
    pub priority: i16,
    /// How many attempts may follow the first.
    #[serde(default = "defaults::max_retries")]
    pub max_retries: i16,
    /// How the wait before the next attempt grows.
    #[serde(default = "defaults::backoff")]
    pub backoff_strategy: Backoff,
    /// How long one attempt of a run may take, in seconds.
    #[serde(default = "defaults::timeout_seconds")]
    pub timeout_seconds: u32,
    /// A run that was not started so many seconds after it was due ends `expired`.
    #[serde(default)]
    pub expires_after_seconds: Option<u32>,
    /// Runs with one key share `concurrency_limit`.
    #[serde(default)]
    pub concurrency_key: Option<String>,
    /// How many runs with `concurrency_key` may be on at once.
    #[serde(default = "defaults::concurrency_limit")]
    pub concurrency_limit: u16,
    /// A second run with this key inside the window is not made.
    #[serde(default)]
    pub dedupe_key: Option<String>,
    /// The window of `dedupe_key`, in seconds.
    #[serde(default)]
    pub dedupe_window_seconds: u32,
    /// At most so many runs are let in within any period; the others wait.
    #[serde(default)]
    pub rate_limit: Option<RateLimit>,
    /// A run of an event or of `run_now` begins so many seconds after the last of them.
    #[serde(default)]
    pub debounce_seconds: Option<u32>,
    /// But no more seconds after the first; `None`: ten times `debounce_seconds`.
    #[serde(default)]
    pub debounce_max_seconds: Option<u32>,
    /// An event or `run_now` makes no run while one of the task has not ended.
    #[serde(default)]
    pub singleton: bool,
}

mod defaults {
    pub(super) fn timezone() -> String {
        "UTC".to_owned()
    }
    pub(super) fn priority() -> i16 {
        super::PRIORITY
    }
    pub(super) fn max_retries() -> i16 {
        3
    }
    pub(super) fn backoff() -> super::Backoff {
        super::Backoff::ExponentialJitter
    }
    pub(super) fn timeout_seconds() -> u32 {
        3600
    }
    pub(super) fn concurrency_limit() -> u16 {
        1
    }
}

/// The priority of what declares none: in the middle of 1 (first) to 9.
pub const PRIORITY: i16 = 5;
/// The longest `name`, in bytes.
pub const NAME_MAX: usize = 100;
/// The longest `title`, in bytes.
pub const TITLE_MAX: usize = 300;
/// The longest `description`, in bytes.
pub const DESCRIPTION_MAX: usize = 10_000;
/// The longest `schedule_expr`, in bytes.
pub const SCHEDULE_EXPR_MAX: usize = 4_096;
/// The most entries of `exclude`.
pub const EXCLUDE_MAX: usize = 1_000;
/// The most attempts that may follow the first.
pub const RETRIES_MAX: i16 = 100;
/// The longest time one attempt may take, in seconds: a week.
pub const TIMEOUT_MAX_SECONDS: u32 = 7 * 24 * 3600;
/// The longest catch-up window, in seconds: a year.
pub const CATCH_UP_WINDOW_MAX_SECONDS: u32 = 366 * 24 * 3600;
/// The longest `concurrency_key`, in characters.
pub const CONCURRENCY_KEY_MAX: usize = 200;
/// The largest `concurrency_limit`.
pub const CONCURRENCY_LIMIT_MAX: u16 = 10_000;
/// The longest `dedupe_key`, in bytes.
pub const DEDUPE_KEY_MAX: usize = 200;
/// The largest `pause_after_failures`.
pub const PAUSE_AFTER_MAX: u16 = 1_000;
/// The largest jitter, in seconds: a day.
pub const JITTER_MAX_SECONDS: u32 = 24 * 3600;

impl TaskSpec {
    /// The key that its runs share, and how many of them may be on at once.
    #[must_use]
    pub fn concurrency(&self) -> Option<(String, u16)> {
        self.concurrency_key.clone().map(|key| (key, self.concurrency_limit))
    }

    /// What is wrong with the plain fields: lengths, ranges, relations, and what is not built yet.
    /// The schedule and the pipeline are not looked at.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut require = |fine: bool, pointer: &str, message: String| {
            if !fine {
                problems.push(Problem::new(pointer, message));
            }
        };

        if let Some(name) = &self.name {
            require(
                is_slug(name),
                "/name",
                format!(
                    "must be 1 to {NAME_MAX} lower-case letters, digits, '-', '_' or '.', begin \
                     with a letter or digit, and not look like an id"
                ),
            );
        }
        require(
            !self.title.trim().is_empty() && self.title.len() <= TITLE_MAX,
            "/title",
            format!("must have 1 to {TITLE_MAX} bytes"),
        );
        require(
            self.description.len() <= DESCRIPTION_MAX,
            "/description",
            format!("must have at most {DESCRIPTION_MAX} bytes"),
        );
        require(
            self.schedule_expr.len() <= SCHEDULE_EXPR_MAX,
            "/schedule_expr",
            format!("must have at most {SCHEDULE_EXPR_MAX} bytes"),
        );
        require(
            self.exclude.len() <= EXCLUDE_MAX,
            "/exclude",
            format!("must have at most {EXCLUDE_MAX} entries"),
        );
        require((1..=9).contains(&self.priority), "/priority", "must be 1 (first) to 9".into());
        require(
            (0..=RETRIES_MAX).contains(&self.max_retries),
            "/max_retries",
            format!("must be 0 to {RETRIES_MAX}"),
        );
        require(
            (1..=TIMEOUT_MAX_SECONDS).contains(&self.timeout_seconds),
            "/timeout_seconds",
            format!("must be 1 to {TIMEOUT_MAX_SECONDS} seconds"),
        );
        require(
            self.expires_after_seconds != Some(0),
            "/expires_after_seconds",
            "must be at least 1 second, or null".into(),
        );
        require(
            self.policy.catch_up_window_seconds <= CATCH_UP_WINDOW_MAX_SECONDS,
            "/policy/catch_up_window_seconds",
            format!("must be at most {CATCH_UP_WINDOW_MAX_SECONDS} seconds"),
        );
        require(
            self.policy.jitter_seconds <= JITTER_MAX_SECONDS,
            "/policy/jitter_seconds",
            format!("must be at most {JITTER_MAX_SECONDS} seconds"),
        );
        require(
            self.policy.pause_after_failures.is_none_or(|n| (1..=PAUSE_AFTER_MAX).contains(&n)),
            "/policy/pause_after_failures",
            format!("must be 1 to {PAUSE_AFTER_MAX} failed runs in a row, or null for never"),
        );
        require(
            self.max_fires != Some(0),
            "/max_fires",
            "must be at least 1, or null for no limit".into(),
        );
        require(
            self.concurrency_key
                .as_ref()
                .is_none_or(|key| (1..=CONCURRENCY_KEY_MAX).contains(&key.chars().count())),
            "/concurrency_key",
            format!("must have 1 to {CONCURRENCY_KEY_MAX} characters"),
        );
        require(
            self.concurrency_key.as_ref().is_none_or(|key| !key.contains("${")),
            "/concurrency_key",
            "is taken as it stands: expressions cannot be used in it".into(),
        );
        require(
            (1..=CONCURRENCY_LIMIT_MAX).contains(&self.concurrency_limit),
            "/concurrency_limit",
            format!("must be 1 to {CONCURRENCY_LIMIT_MAX}"),
        );
        require(
            self.dedupe_key.as_ref().is_none_or(|key| (1..=DEDUPE_KEY_MAX).contains(&key.len())),
            "/dedupe_key",
            format!("must have 1 to {DEDUPE_KEY_MAX} bytes"),
        );
        if let (Some(start), Some(end)) = (self.starts_at, self.ends_at) {
            require(start < end, "/ends_at", "must be after starts_at".into());
        }
        self.admission_problems(&mut require);
        problems
    }
}

pub(crate) fn is_slug(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= NAME_MAX
        && name.starts_with(plain)
        && name.chars().all(|c| plain(c) || matches!(c, '-' | '_' | '.'))
        && uuid::Uuid::parse_str(name).is_err()
}
