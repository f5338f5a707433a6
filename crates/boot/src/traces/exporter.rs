//! Sending spans, and saying once that it fails and once that it works again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
    is_away: AtomicBool,
    /// How many spans were lost in the outage that is on.
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
        Ok(Self { inner, is_away: AtomicBool::new(false), lost: AtomicU64::new(0) })
    }
}

impl opentelemetry_sdk::trace::SpanExporter for Watched {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len() as u64;
        let sent = self.inner.export(batch).await;
        match &sent {
            Ok(()) if self.is_away.swap(false, Ordering::Relaxed) => {
                let lost = self.lost.swap(0, Ordering::Relaxed);
                tracing::info!(lost, "traces are sent again; {lost} spans were lost");
            }
            Ok(()) => {}
            Err(error) => {
                self.lost.fetch_add(count, Ordering::Relaxed);
                if !self.is_away.swap(true, Ordering::Relaxed) {
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
    use std::sync::{Arc, Mutex};

    use opentelemetry_sdk::trace::SpanExporter as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn of_a_collector_that_is_away_is_told_once() {
        crate::install_crypto();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let endpoint = format!("http://127.0.0.1:{port}");
        let exporter = Watched::new(&Tracing { endpoint, headers: None, ratio: 1.0 }).unwrap();
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();

        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..3 {
                assert!(futures::executor::block_on(exporter.export(Vec::new())).is_err());
            }
        });

        let said = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(said.lines().filter(|line| line.contains("WARN")).count(), 1, "{said}");
    }

    #[test]
    fn headers_are_pairs_with_percent_encoded_values() {
        let read = headers("authorization=Basic%20YTpi, x-tenant = 7,nonsense");

        assert_eq!(read["authorization"], "Basic YTpi");
        assert_eq!(read["x-tenant"], "7");
        assert_eq!(read.len(), 2);
    }
}
