//! Metrics of the worker.

use chrono::{DateTime, Utc};
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, Registry};

use super::Maker;
use crate::run::{RunInfo, Trigger};

/// 5 ms to an hour: a local tool answers in milliseconds, a language model in minutes, and a run
/// may chain several and is cut off at its `timeout_seconds`, an hour by default.
const RUN_SECONDS: &[f64] =
    &[0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0];

/// 1 ms to 15 min: a hint wakes a worker in milliseconds, polling in seconds, and a queue longer
/// than the workers takes minutes.
const PICKUP_SECONDS: &[f64] =
    &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0];

/// 1 to 1,000: a lease takes at most 50 runs for the slots and 1,000 ahead of them, a commit at most 500.
const BATCH: &[f64] = &[1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];

/// Why a run or step went wrong in a worker: the kinds of `RunError`, and the worker's own trouble.
pub const REASONS: &[&str] = &[
    "timeout",
    "unreachable",
    "tool_failed",
    "refused",
    "unknown_tool",
    "expression",
    "input",
    "output",
    "lease_lost",
    "run_timeout",
    "canceled",
    "expired",
    "definition",
    "panic",
    "database",
];

/// Metrics of a worker process.
#[derive(Clone, Debug)]
pub struct WorkerMetrics {
    /// Steps that ended, by `tool` (its address, so bounded by the catalogue; control steps by their
    /// key, as `foreach`) and `status`.
    pub steps: IntCounterVec,
    /// Seconds from the first start of a run to its end, waits included.
    pub run_seconds: Histogram,
    /// Seconds of one attempt, from lease to result, in this worker.
    pub attempt_seconds: Histogram,
    /// Runs being executed now.
    pub active: IntGauge,
    /// Slots of this worker.
    pub capacity: IntGauge,
    /// What went wrong, by `reason`: the kinds of a run's error, `panic`, `database`.
    pub errors: IntCounterVec,
    /// Seconds from `run_at` to the lease.
    pub pickup_seconds: Histogram,
    /// Seconds from the time of an occurrence, jitter included, to the start of its run.
    pub occurrence_start_seconds: Histogram,
    /// Runs leased by one statement that found any.
    pub lease_batch: Histogram,
    /// Runs written back in one transaction.
    pub commit_batch: Histogram,
    /// Write-backs that came with a token no longer the run's, and so wrote nothing.
    pub stale_tokens: IntCounter,
    /// Leases returned at a graceful stop.
    pub leases_returned: IntCounter,
    /// Runs taken over from a worker whose lease ran out.
    pub leases_reclaimed: IntCounter,
    /// Tokens that language models charged, by `kind`: input, output.
    pub llm_tokens: IntCounterVec,
}

impl WorkerMetrics {
    /// # Errors
    ///
    /// When `registry` already has a metric of one of these names.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let make = Maker(registry);
        let metrics = Self {
            steps: make.counters(
                "orchestrator_pipeline_steps_total",
                "Steps that ended, by tool and status.",
                &["tool", "status"],
            )?,
            run_seconds: make.histogram(
                "orchestrator_task_duration_seconds",
                "Seconds from the first start of a run to its end, waits included.",
                RUN_SECONDS,
            )?,
            attempt_seconds: make.histogram(
                "orchestrator_worker_job_duration_seconds",
                "Seconds of one attempt at a run, from its lease to its result.",
                RUN_SECONDS,
            )?,
            active: make.gauge("orchestrator_worker_active_jobs", "Runs being executed now.")?,
            capacity: make.gauge("orchestrator_worker_capacity", "Slots of this worker.")?,
            errors: make.counters(
                "orchestrator_worker_errors_total",
                "What went wrong in a worker, by reason.",
                &["reason"],
            )?,
            pickup_seconds: make.histogram(
                "orchestrator_worker_pickup_seconds",
                "Seconds from the time a run may start to its lease.",
                PICKUP_SECONDS,
            )?,
            occurrence_start_seconds: make.histogram(
                "orchestrator_occurrence_start_seconds",
                "Seconds from the time of an occurrence, with its jitter, to the start of its run.",
                PICKUP_SECONDS,
            )?,
            lease_batch: make.histogram(
                "orchestrator_worker_lease_batch_size",
                "Runs leased by one statement that found any.",
                BATCH,
            )?,
            commit_batch: make.histogram(
                "orchestrator_worker_commit_batch_size",
                "Runs written back in one transaction.",
                BATCH,
            )?,
            stale_tokens: make.counter(
                "orchestrator_stale_tokens_total",
                "Write-backs refused because another worker had the run.",
            )?,
            leases_returned: make.counter(
                "orchestrator_worker_leases_returned_total",
                "Leases returned at a graceful stop.",
            )?,
            leases_reclaimed: make.counter(
                "orchestrator_leases_reclaimed_total",
                "Runs taken over from a worker whose lease ran out.",
            )?,
            llm_tokens: make.counters(
                "orchestrator_llm_tokens_total",
                "Tokens that language models charged, by kind.",
                &["kind"],
            )?,
        };
        for reason in REASONS {
            metrics.errors.with_label_values(&[reason]);
        }
        for kind in ["input", "output"] {
            metrics.llm_tokens.with_label_values(&[kind]);
        }
        Ok(metrics)
    }

    /// Notes that a run nobody had before starts at `now`; only those of schedules are measured.
    pub fn started(&self, run: &RunInfo, now: DateTime<Utc>) {
        if run.trigger == Trigger::Schedule {
            let late = (now - run.scheduled_at).as_seconds_f64();
            self.occurrence_start_seconds.observe(late.max(0.0));
        }
    }
}
