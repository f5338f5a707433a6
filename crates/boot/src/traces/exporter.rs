//! Sending spans, and saying once that it fails and once that it works again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry_otlp::{
    ExporterBuildError, Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::SpanData;
use orchestrator_engine::config::{Secret, Tracing};

/// How long a collector may take for one batch, tries in between included.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// An exporter of OTLP over HTTP. What cannot be sent is dropped, and counted for the log.
#[derive(Debug)]
pub(super) struct Watched {
    inner: SpanExporter,
    /// How many spans were lost in the outage that is on; 0 when there is none.
    lost: AtomicU64,
}

impl Watched {
    pub(super) fn new(settings: &Tracing) -> Result<Self, ExporterBuildError> {
        let headers = settings.headers.as_ref().map(Secret::expose).map(headers);
        let inner = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{}/v1/traces", settings.endpoint.trim_end_matches('/')))
            .with_headers(headers.unwrap_or_default())
            .with_timeout(ANSWER_MAX)
            .build()?;
        Ok(Self { inner, lost: AtomicU64::new(0) })
    }
}

impl opentelemetry_sdk::trace::SpanExporter for Watched {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len() as u64;
        let sent = self.inner.export(batch).await;
        match &sent {
            Ok(()) => {
                let lost = self.lost.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    tracing::info!(lost, "traces are sent again; {lost} spans were lost");
                }
            }
            Err(error) => {
                if self.lost.fetch_add(count, Ordering::Relaxed) == 0 {
                    tracing::warn!(%error, "traces cannot be sent; going on without them");
                }
            }
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Reads `name=value,name=value` (W3C Baggage, as OpenTelemetry has it); what is none is left out.
fn headers(written: &str) -> HashMap<String, String> {
    let pairs = written.split(',').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| {
            let value = percent_encoding::percent_decode_str(value.trim()).decode_utf8_lossy();
            (name.trim().to_owned(), value.into_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_pairs_with_percent_encoded_values() {
        let read = headers("authorization=Basic%20YTpi, x-tenant = 7,nonsense");

        assert_eq!(read["authorization"], "Basic YTpi");
        assert_eq!(read["x-tenant"], "7");
        assert_eq!(read.len(), 2);
    }
}
