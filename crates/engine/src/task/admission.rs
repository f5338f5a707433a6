//! What a task declares about letting its runs in: a rate, and what becomes of triggers while a run has
//! not ended. Overlap is in [`super::Policy`], concurrency keys in [`TaskSpec`] itself.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::TaskSpec;
use crate::id::TaskId;

/// The largest `rate_limit.limit`.
pub const RATE_LIMIT_MAX: u16 = 1_000;
/// The longest `rate_limit.period_seconds`: 31 days.
pub const RATE_PERIOD_MAX_SECONDS: u32 = 31 * 24 * 3600;
/// The longest `rate_limit.key`, in characters.
pub const RATE_KEY_MAX: usize = 200;
/// The longest `debounce_seconds`: a day.
pub const DEBOUNCE_MAX_SECONDS: u32 = 24 * 3600;
/// How many times `debounce_seconds` a run is moved at most, unless `debounce_max_seconds` says otherwise.
pub const DEBOUNCE_MOVES: u32 = 10;
/// The longest `debounce_max_seconds`: ten days.
pub const DEBOUNCE_BOUND_MAX_SECONDS: u32 = DEBOUNCE_MOVES * DEBOUNCE_MAX_SECONDS;

/// How many runs may be let in within any stretch of time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// So many runs.
    pub limit: u16,
    /// Within any so many seconds.
    pub period_seconds: u32,
    /// Tasks of one agent with the same key share the rate; `None`: the task's own.
    #[serde(default)]
    pub key: Option<String>,
}

/// A rate with the name under which its runs are counted among those of their owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rate {
    /// The name: that of the declaration, or one of the task's own that no declaration can have.
    pub key: String,
    /// So many runs.
    pub limit: u16,
    /// Within any so many seconds.
    pub period_seconds: u32,
}

/// What a trigger (an event, `run_now`) becomes while a run of its task has not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Merging {
    /// It moves a run that has not begun.
    pub debounce: Option<Debounce>,
    /// It makes no second run.
    pub singleton: bool,
}

impl Merging {
    /// Whether there is anything to look for.
    #[must_use]
    pub fn is_any(self) -> bool {
        self.singleton || self.debounce.is_some()
    }
}

/// How far a trigger moves a run that has not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Debounce {
    /// So long after the trigger.
    pub window: Duration,
    /// But no longer after the first one.
    pub most: Duration,
}

impl TaskSpec {
    /// The rate that its runs are let in at, where it is the task `id`.
    #[must_use]
    pub fn rate(&self, id: TaskId) -> Option<Rate> {
        // `run_gates` (migration 0011) writes the same names.
        self.rate_limit.as_ref().map(|declared| Rate {
            key: declared
                .key
                .as_ref()
                .map_or_else(|| format!("task/{id}"), |key| format!("key/{key}")),
            limit: declared.limit,
            period_seconds: declared.period_seconds,
        })
    }

    /// What becomes of a trigger while a run of the task has not ended.
    #[must_use]
    pub fn merging(&self) -> Merging {
        let debounce = self.debounce_seconds.map(|window| Debounce {
            window: Duration::from_secs(window.into()),
            most: Duration::from_secs(
                self.debounce_max_seconds.unwrap_or(window.saturating_mul(DEBOUNCE_MOVES)).into(),
            ),
        });
        Merging { debounce, singleton: self.singleton }
    }

    /// What is wrong with `rate_limit` and the merging of triggers.
    pub(super) fn admission_problems(&self, require: &mut impl FnMut(bool, &str, String)) {
        if let Some(rate) = &self.rate_limit {
            require(
                (1..=RATE_LIMIT_MAX).contains(&rate.limit),
                "/rate_limit/limit",
                format!("must be 1 to {RATE_LIMIT_MAX} runs"),
            );
            require(
                (1..=RATE_PERIOD_MAX_SECONDS).contains(&rate.period_seconds),
                "/rate_limit/period_seconds",
                format!("must be 1 to {RATE_PERIOD_MAX_SECONDS} seconds (31 days)"),
            );
            let key = rate.key.as_deref().unwrap_or("-");
            require(
                (1..=RATE_KEY_MAX).contains(&key.chars().count()),
                "/rate_limit/key",
                format!("must have 1 to {RATE_KEY_MAX} characters, or be null for the task's own"),
            );
            require(
                !key.contains("${"),
                "/rate_limit/key",
                "is taken as it stands: expressions cannot be used in it".into(),
            );
        }
        require(
            self.debounce_seconds.is_none_or(|n| (1..=DEBOUNCE_MAX_SECONDS).contains(&n)),
            "/debounce_seconds",
            format!("must be 1 to {DEBOUNCE_MAX_SECONDS} seconds (a day), or null"),
        );
        match (self.debounce_seconds, self.debounce_max_seconds) {
            (_, None) => {}
            (None, Some(_)) => require(
                false,
                "/debounce_max_seconds",
                "has no meaning without debounce_seconds".into(),
            ),
            (Some(window), Some(most)) => require(
                (window..=DEBOUNCE_BOUND_MAX_SECONDS).contains(&most),
                "/debounce_max_seconds",
                format!(
                    "must be debounce_seconds ({window}) to {DEBOUNCE_BOUND_MAX_SECONDS} seconds \
                     (ten days), or null for {DEBOUNCE_MOVES} times debounce_seconds"
                ),
            ),
        }
    }
}
