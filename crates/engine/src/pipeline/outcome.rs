//! What the executor is given and what it gives back.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::{Map, Value};

use crate::run::{RunError, RunInfo, StepRecord};

/// Keeps what a run has done.
pub trait Journal: Send + Sync {
    /// Keeps `records`: durable before it returns, they are the checkpoint that a resumed run goes
    /// on behind. A record replaces an earlier one of the same path and attempt.
    fn checkpoint(&self, records: Vec<StepRecord>) -> BoxFuture<'_, Result<(), JournalError>>;

    /// A step has started: a hint for viewers, which may be dropped.
    fn started(&self, record: &Arc<StepRecord>);

    /// It has ended; its record is let go of.
    fn ended(&self);
}

/// Why a checkpoint was not kept. The run must not go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// Another worker has the run now.
    #[error("another worker has the run")]
    LeaseLost,
    /// The records could not be written.
    #[error("the checkpoint could not be written: {0}")]
    Unavailable(String),
}

/// Finds the values of secrets.
pub trait Secrets: Send + Sync {
    /// The secret `name`; `None` when there is none, or the run's owner may not use it.
    fn get(&self, name: &str) -> Option<String>;
}

/// What a run brings with it.
pub struct RunContext {
    /// Which run, which attempt.
    pub info: RunInfo,
    /// How many attempts the run has in all (`max_retries` + 1).
    pub max_attempts: i32,
    /// What the run was given; laid over the defaults of the pipeline.
    pub params: Map<String, Value>,
    /// The event that made it.
    pub event: Option<Value>,
    /// The previous run of the task: `{"status": …, "output": …}`.
    pub last: Option<Value>,
    /// Where secrets come from.
    pub secrets: Arc<dyn Secrets>,
    /// The records of earlier attempts, in any order.
    pub records: Vec<StepRecord>,
    /// The largest input or output of a step, in bytes of JSON (`RUN_DATA_MAX_BYTES`).
    pub data_max_bytes: usize,
    /// A random number, 0 to below 1: the jitter of a step's own backoff.
    pub jitter: f64,
}

/// Whether and when another try may follow a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It would fail the same way, or every attempt is used.
    Never,
    /// Another attempt of the run may succeed; the caller decides when, but not before
    /// `retry_after`.
    Run {
        /// What the tool asked for.
        retry_after: Option<Duration>,
    },
    /// The failed step has a `retry` of its own and attempts left: the run is to be resumed after
    /// `delay`, which counts no attempt of the run.
    Step {
        /// How long to wait.
        delay: Duration,
    },
}

/// How an attempt of a run ended. `records` are those not yet checkpointed: they are to be written
/// in the transaction that ends the attempt.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Every step is done, skipped or was allowed to fail.
    Succeeded {
        /// The output of the last step of the pipeline that succeeded; null when none did.
        output: Value,
        /// Not yet checkpointed.
        records: Vec<StepRecord>,
    },
    /// A step failed.
    Failed {
        /// Why, and which step.
        error: RunError,
        /// What may follow.
        retry: Retry,
        /// Not yet checkpointed.
        records: Vec<StepRecord>,
    },
    /// The token was canceled; the caller knows why.
    Canceled {
        /// Not yet checkpointed.
        records: Vec<StepRecord>,
    },
    /// A checkpoint was refused. Nothing more is to be written for this attempt.
    Stopped {
        /// Why.
        error: JournalError,
    },
}
