//! Metrics of the API.

use prometheus::{HistogramVec, IntCounterVec, Registry};

use super::Maker;

/// 1 ms to 10 s: a read takes one or two milliseconds, a preview of a hard rule tens, and nothing
/// should take seconds.
const REQUEST_SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Metrics of an API process.
#[derive(Clone, Debug)]
pub struct ApiMetrics {
    /// Requests answered, by `method`, `route` (the template, as `/runs/{id}`, or `unmatched`) and
    /// `status` class (`2xx` …).
    pub requests: IntCounterVec,
    /// Seconds from the head of a request to the head of its answer, by `method` and `route`.
    pub request_seconds: HistogramVec,
    /// Requests refused, by `reason`: `unauthorized`, `forbidden`, `rate_limited`, `too_large`.
    pub refused: IntCounterVec,
}

impl ApiMetrics {
    /// # Errors
    ///
    /// When `registry` already has a metric of one of these names.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let make = Maker(registry);
        let metrics = Self {
            requests: make.counters(
                "orchestrator_http_requests_total",
                "Requests answered, by method, route and class of status.",
                &["method", "route", "status"],
            )?,
            request_seconds: make.histograms(
                "orchestrator_http_request_duration_seconds",
                "Seconds from the head of a request to the head of its answer.",
                REQUEST_SECONDS,
                &["method", "route"],
            )?,
            refused: make.counters(
                "orchestrator_http_refused_total",
                "Requests refused before they reached their handler, by reason.",
                &["reason"],
            )?,
        };
        for reason in ["unauthorized", "forbidden", "rate_limited", "too_large"] {
            metrics.refused.with_label_values(&[reason]);
        }
        Ok(metrics)
    }

    /// Counts one answered request. `route` is the template, never the path as it was asked.
    pub fn answered(&self, method: &str, route: &str, status: u16, took: std::time::Duration) {
        let class = match status / 100 {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        };
        self.requests.with_label_values(&[method, route, class]).inc();
        self.request_seconds.with_label_values(&[method, route]).observe(took.as_secs_f64());
    }
}
