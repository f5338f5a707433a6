//! Metrics that every process has, and those that several services move.

use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::Maker;
use crate::config::Service;
use crate::run::RunStatus;

/// What every process has.
#[derive(Clone, Debug)]
pub struct ProcessMetrics {
    /// Runs that ended, by `status`: succeeded, failed, canceled, expired. Whoever ends one counts it.
    pub runs_finished: IntCounterVec,
    /// Database connections of this process, by `state`: idle, used, max.
    pub pool_connections: IntGaugeVec,
    /// 1 while Redis answers, else 0. Stays 0 without `REDIS_URL`.
    pub redis_up: IntGauge,
    /// Calls to Redis that failed. The system goes on by polling.
    pub redis_errors: IntCounter,
    /// Events, by `direction`: in (accepted), out (published to the stream).
    pub events: IntCounterVec,
    /// When the process started, in seconds since 1970.
    pub start_time: Gauge,
    /// Resident memory in bytes; 0 where the system does not tell.
    pub resident_memory: IntGauge,
}

impl ProcessMetrics {
    /// # Errors
    ///
    /// When `registry` already has a metric of one of these names.
    pub fn register(registry: &Registry, service: Service) -> prometheus::Result<Self> {
        let make = Maker(registry);
        let metrics = Self {
            runs_finished: make.counters(
                "orchestrator_tasks_total",
                "Runs that ended, by status.",
                &["status"],
            )?,
            pool_connections: make.gauges(
                "orchestrator_database_connections",
                "Database connections of this process, by state.",
                &["state"],
            )?,
            redis_up: make.gauge("orchestrator_redis_up", "1 while Redis answers, else 0.")?,
            redis_errors: make
                .counter("orchestrator_redis_errors_total", "Calls to Redis that failed.")?,
            events: make.counters(
                "orchestrator_events_total",
                "Events accepted (in) and published to the stream (out).",
                &["direction"],
            )?,
            start_time: make.seconds_gauge(
                "process_start_time_seconds",
                "When the process started, in seconds since 1970.",
            )?,
            resident_memory: make
                .gauge("process_resident_memory_bytes", "Resident memory in bytes.")?,
        };
        for status in RunStatus::ALL.iter().filter(|status| status.is_finished()) {
            metrics.runs_finished.with_label_values(&[status.as_str()]);
        }
        for state in ["idle", "used", "max"] {
            metrics.pool_connections.with_label_values(&[state]);
        }
        for direction in ["in", "out"] {
            metrics.events.with_label_values(&[direction]);
        }
        make.gauges(
            "orchestrator_build_info",
            "Always 1; the labels say what runs.",
            &["version", "service"],
        )?
        .with_label_values(&[crate::VERSION, service.as_str()])
        .set(1);
        Ok(metrics)
    }

    /// Brings the gauges that nobody moves up to date; called before each answer.
    pub fn observe(&self, pool: &sqlx::PgPool, streams: &crate::streams::Streams) {
        self.redis_up.set(i64::from(streams.is_up()));
        self.redis_errors.inc_by(streams.errors().saturating_sub(self.redis_errors.get()));
        let size = i64::from(pool.size());
        let idle = i64::try_from(pool.num_idle()).unwrap_or(i64::MAX);
        let set = |state, value| self.pool_connections.with_label_values(&[state]).set(value);
        set("idle", idle);
        set("used", (size - idle).max(0));
        set("max", i64::from(pool.options().get_max_connections()));
        if let Some(bytes) = resident_bytes() {
            self.resident_memory.set(bytes);
        }
    }
}

/// Resident memory, from the second field of `/proc/self/statm`, which counts pages (proc(5)).
/// `None` off Linux.
fn resident_bytes() -> Option<i64> {
    /// Every platform we build for has 4 KiB pages, but for some arm64 kernels, where this reads low.
    const PAGE_BYTES: i64 = 4096;
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: i64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(PAGE_BYTES)
}
