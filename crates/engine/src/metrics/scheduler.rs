//! Metrics of the scheduler.

use prometheus::{Gauge, Histogram, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::Maker;
use crate::task::ScheduleKind;

/// 5 ms to 15 min: on time is within tens of milliseconds, a lost wake-up costs up to
/// `SCHEDULER_INTERVAL` (10 s), and minutes mean that the scheduler was away.
const DRIFT_SECONDS: &[f64] =
    &[0.005, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0];

/// 1 to 150: how many due tasks one transaction fires at most (`BATCH` of the scheduler's `fire.rs`).
const BATCH: &[f64] = &[1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 150.0];

/// Metrics of a scheduler process.
#[derive(Clone, Debug)]
pub struct SchedulerMetrics {
    /// Seconds from an occurrence's nominal time (with its jitter) to the commit that fired it.
    pub drift_seconds: Histogram,
    /// Runs made by schedules, by `kind` of schedule.
    pub triggers: IntCounterVec,
    /// Occurrences that made no run of their own, by `reason` (their disposition).
    pub missed: IntCounterVec,
    /// Due tasks fired in one transaction.
    pub fire_batch: Histogram,
    /// Runs in the queue: due, not yet leased.
    pub queue_depth: IntGauge,
    /// Runs that were missed and wait for their turn.
    pub catch_up_backlog: IntGauge,
    /// When the next task is due, in seconds since 1970; 0 when none is.
    pub next_fire_seconds: Gauge,
    /// Runs that wait for a time, an event or an approval.
    pub waiting: IntGauge,
    /// Seconds that the longest due run has waited for a worker; 0 when none is due.
    pub oldest_due_seconds: Gauge,
    /// Seconds that the oldest event without its runs has waited; 0 when none waits.
    pub event_lag_seconds: Gauge,
    /// Rows that break an invariant, by `invariant`. Anything but 0 is a fault of ours. The
    /// scheduler sets every one of them from the list of queries, so all are there from its first look.
    pub invariant_violations: IntGaugeVec,
    /// Upkeep duties that failed, by `duty`.
    pub upkeep_errors: IntCounterVec,
}

impl SchedulerMetrics {
    /// # Errors
    ///
    /// When `registry` already has a metric of one of these names.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let make = Maker(registry);
        let metrics = Self {
            drift_seconds: make.histogram(
                "orchestrator_scheduler_drift_seconds",
                "Seconds from an occurrence's time to the commit that fired it.",
                DRIFT_SECONDS,
            )?,
            triggers: make.counters(
                "orchestrator_schedule_triggers_total",
                "Runs made by schedules, by kind of schedule.",
                &["kind"],
            )?,
            missed: make.counters(
                "orchestrator_missed_schedules_total",
                "Occurrences that made no run of their own, by reason.",
                &["reason"],
            )?,
            fire_batch: make.histogram(
                "orchestrator_scheduler_fire_batch_size",
                "Due tasks fired in one transaction.",
                BATCH,
            )?,
            queue_depth: make
                .gauge("orchestrator_queue_depth", "Runs in the queue: due, not yet leased.")?,
            catch_up_backlog: make.gauge(
                "orchestrator_catch_up_backlog",
                "Runs that were missed and wait for their turn.",
            )?,
            next_fire_seconds: make.seconds_gauge(
                "orchestrator_next_fire_timestamp_seconds",
                "When the next task is due, in seconds since 1970; 0 when none is.",
            )?,
            waiting: make.gauge(
                "orchestrator_runs_waiting",
                "Runs that wait for a time, an event or an approval.",
            )?,
            oldest_due_seconds: make.seconds_gauge(
                "orchestrator_queue_oldest_due_seconds",
                "Seconds that the longest due run has waited for a worker.",
            )?,
            event_lag_seconds: make.seconds_gauge(
                "orchestrator_event_lag_seconds",
                "Seconds that the oldest event without its runs has waited.",
            )?,
            invariant_violations: make.gauges(
                "orchestrator_invariant_violations",
                "Rows that break an invariant, by invariant.",
                &["invariant"],
            )?,
            upkeep_errors: make.counters(
                "orchestrator_upkeep_errors_total",
                "Upkeep duties that failed, by duty.",
                &["duty"],
            )?,
        };
        for kind in ScheduleKind::ALL {
            metrics.triggers.with_label_values(&[kind.as_str()]);
        }
        for reason in MISSED {
            metrics.missed.with_label_values(&[reason]);
        }
        Ok(metrics)
    }
}

/// The dispositions under which an occurrence makes no run of its own.
const MISSED: &[&str] = &[
    "coalesced",
    "skipped_overlap",
    "skipped_paused",
    "skipped_too_old",
    "skipped_excluded",
    "skipped_dst",
    "skipped_duplicate",
];
