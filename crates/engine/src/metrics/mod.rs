//! What is counted and measured, and served at `/metrics` in the Prometheus text format.
//!
//! Labels are bounded: never an id, never a free text. Label values that are known are created at
//! the start, because a counter that appears only at its first failure cannot be alerted on.
//!
//! To add one: a field in the struct of the service that moves it ([`ProcessMetrics`] when several
//! do), made in `register` through [`Maker`] with its unit at the end of its name, its label values
//! in the loop below; then a panel or an alert in `ops/monitoring`, or nobody will look at it.

mod api;
mod make;
mod process;
mod scheduler;
mod worker;

use std::sync::{Arc, OnceLock};

use prometheus::{Encoder as _, Registry, TextEncoder};

pub use api::ApiMetrics;
pub use make::Maker;
pub use process::ProcessMetrics;
pub use scheduler::SchedulerMetrics;
pub use worker::{REASONS, WorkerMetrics};

use crate::config::Service;

/// All metrics of a process. Clones share them.
///
/// The part of a service is registered when it is first asked for, once: in `orchestrator dev`
/// several services, and several workers, share one registry.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    process: ProcessMetrics,
    api: OnceLock<ApiMetrics>,
    scheduler: OnceLock<SchedulerMetrics>,
    worker: OnceLock<WorkerMetrics>,
}

/// Why registering cannot fail: a test registers all of them in one registry.
const DISTINCT: &str = "metric names are constants, valid and distinct";

impl Metrics {
    /// An own registry, with what every process has.
    ///
    /// # Panics
    ///
    /// Never: names are constants, and a test registers them all together.
    #[must_use]
    pub fn new(service: Service) -> Self {
        let registry = Registry::new();
        let process = ProcessMetrics::register(&registry, service).expect(DISTINCT);
        Self(Arc::new(Inner {
            registry,
            process,
            api: OnceLock::new(),
            scheduler: OnceLock::new(),
            worker: OnceLock::new(),
        }))
    }

    /// What every process has.
    #[must_use]
    pub fn process(&self) -> &ProcessMetrics {
        &self.0.process
    }

    /// The API's.
    ///
    /// # Panics
    ///
    /// Never; see [`Metrics::new`].
    #[must_use]
    pub fn api(&self) -> &ApiMetrics {
        self.0.api.get_or_init(|| ApiMetrics::register(&self.0.registry).expect(DISTINCT))
    }

    /// The scheduler's.
    ///
    /// # Panics
    ///
    /// Never; see [`Metrics::new`].
    #[must_use]
    pub fn scheduler(&self) -> &SchedulerMetrics {
        self.0
            .scheduler
            .get_or_init(|| SchedulerMetrics::register(&self.0.registry).expect(DISTINCT))
    }

    /// The worker's.
    ///
    /// # Panics
    ///
    /// Never; see [`Metrics::new`].
    #[must_use]
    pub fn worker(&self) -> &WorkerMetrics {
        self.0.worker.get_or_init(|| WorkerMetrics::register(&self.0.registry).expect(DISTINCT))
    }

    /// The registry, for a metric that is nobody else's business.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// Everything in the text format, content type [`TEXT_FORMAT`].
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.0.registry.gather(), &mut text) {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "metrics could not be written as text"
            );
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// The content type of [`Metrics::render`].
pub const TEXT_FORMAT: &str = prometheus::TEXT_FORMAT;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_services_share_one_registry_and_every_promised_name_is_there_from_the_start() {
        let metrics = Metrics::new(Service::Cli);
        let (_, _, _) = (metrics.api(), metrics.scheduler(), metrics.worker());
        let _again = metrics.worker();
        // These have labels that are known only when there are tools, routes and invariants.
        metrics.worker().steps.with_label_values(&["log.write", "succeeded"]).inc();

        let text = metrics.render();

        for name in [
            "orchestrator_tasks_total{status=\"failed\"}",
            "orchestrator_task_duration_seconds_count",
            "orchestrator_pipeline_steps_total{",
            "orchestrator_queue_depth ",
            "orchestrator_scheduler_drift_seconds_count",
            "orchestrator_schedule_triggers_total{kind=\"rrule\"}",
            "orchestrator_missed_schedules_total{reason=\"skipped_too_old\"}",
            "orchestrator_worker_active_jobs ",
            "orchestrator_worker_capacity ",
            "orchestrator_worker_job_duration_seconds_count",
            "orchestrator_worker_errors_total{reason=\"timeout\"}",
            "orchestrator_build_info{",
            "orchestrator_redis_up ",
        ] {
            assert!(text.contains(name), "{name} is missing");
        }
    }
}
