//! Traces: what happened to a run, from whoever made it to its last step, for a collector of OTLP.
//!
//! A run's trace has the run's id ([`orchestrator_engine::trace`]). Spans are made where the work is
//! done, from times that are known anyway, and handed over when they have ended: nothing is
//! measured, allocated or looked at for a run that is not traced. They hold names, ids and outcomes;
//! never what a step was given or answered.
//!
//! A thread of its own sends them. Up to [`WAITING_MAX`] wait for it; what comes on top is dropped, so a
//! collector that is slow or away costs memory up to there, and nobody's time.

mod exporter;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use opentelemetry::trace::{Link, SpanContext, Status, TraceFlags, TraceState};
use opentelemetry::{InstrumentationScope, SpanId, TraceId};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanEvents, SpanLinks, SpanProcessor,
};
use orchestrator_engine::config::{Service, Tracing};
use orchestrator_engine::id::{self, ProcessId, RunId, TaskId};
use orchestrator_engine::run::Trigger;
use orchestrator_engine::trace::{TraceParent, is_sampled};

pub use opentelemetry::KeyValue;
pub use opentelemetry::trace::SpanKind;

/// The most spans that wait to be sent, about 1 KiB each.
pub const WAITING_MAX: usize = 8_192;
/// The most spans sent at once.
const BATCH_MAX: usize = 1_024;
/// How long a span waits for others to be sent with.
const GATHER: Duration = Duration::from_secs(1);
/// How long the end of a process waits for its last spans to be sent.
const LAST_SPANS: Duration = Duration::from_secs(3);
/// The most links of a span; the specification's own limit.
pub const LINKS_MAX: usize = 128;

/// Where spans go. Without `ENABLE_TRACING` that is nowhere. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Traces(Option<Arc<Sending>>);

#[derive(Debug)]
struct Sending {
    processor: BatchSpanProcessor,
    scope: InstrumentationScope,
    ratio: f64,
}

/// A span that has ended.
#[derive(Clone, Debug)]
pub struct Span {
    /// Its own place.
    pub place: TraceParent,
    /// The span that it is a part of; `None`: it is the first of its trace.
    pub parent: Option<u64>,
    /// Of few values, for it is what traces are searched by.
    pub name: Cow<'static, str>,
    /// Who waits for whom.
    pub kind: SpanKind,
    /// When it began and ended.
    pub times: (DateTime<Utc>, DateTime<Utc>),
    /// What is known of it. No secrets, no bodies.
    pub attributes: Vec<KeyValue>,
    /// Spans of other traces that have to do with it.
    pub links: Vec<TraceParent>,
    /// The kind of error that it ended with.
    pub error: Option<String>,
}

impl Span {
    /// A span without attributes, links and error.
    #[must_use]
    pub fn new(
        place: TraceParent,
        parent: Option<u64>,
        name: impl Into<Cow<'static, str>>,
        kind: SpanKind,
        times: (DateTime<Utc>, DateTime<Utc>),
    ) -> Self {
        let name = name.into();
        let (attributes, links, error) = (Vec::new(), Vec::new(), None);
        Self { place, parent, name, kind, times, attributes, links, error }
    }

    /// Adds an attribute.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<opentelemetry::Value>) -> Self {
        self.attributes.push(KeyValue::new(name, value));
        self
    }
}

impl Traces {
    /// A door to nothing.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Opens what `settings` name. Connects when there is something to send; a process whose settings
    /// cannot be followed says so and goes on without traces.
    #[must_use]
    pub fn open(service: Service, settings: &Tracing, process: ProcessId) -> Self {
        let exporter = match exporter::Watched::new(settings) {
            Ok(exporter) => exporter,
            Err(error) => {
                tracing::error!(%error, "traces cannot be sent with these settings; going on without");
                return Self::none();
            }
        };
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(WAITING_MAX)
            .with_max_export_batch_size(BATCH_MAX)
            .with_scheduled_delay(GATHER)
            .build();
        let mut processor = BatchSpanProcessor::new(exporter, config);
        let version = orchestrator_engine::VERSION;
        let resource = Resource::builder_empty()
            .with_service_name(service.binary())
            .with_attribute(KeyValue::new("service.namespace", "orchestrator"))
            .with_attribute(KeyValue::new("service.version", version))
            .with_attribute(KeyValue::new("service.instance.id", process.to_string()))
            .build();
        processor.set_resource(&resource);
        let scope = InstrumentationScope::builder("orchestrator").with_version(version).build();
        Self(Some(Arc::new(Sending { processor, scope, ratio: settings.ratio })))
    }

    /// Whether spans go anywhere.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The first span of a run's trace, if that is recorded. Every process answers alike.
    #[must_use]
    pub fn run(&self, run: RunId) -> Option<TraceParent> {
        let sending = self.0.as_ref()?;
        let place = TraceParent::of_run(run);
        is_sampled(place.trace, sending.ratio).then_some(place)
    }

    /// The span of a request that came with `asked`: what the caller decided about recording holds;
    /// where none decided, the part that the settings name. `None`: not recorded.
    #[must_use]
    pub fn request(&self, asked: Option<TraceParent>) -> Option<TraceParent> {
        let sending = self.0.as_ref()?;
        let rng = &mut id::rng();
        match asked {
            Some(asked) => asked.sampled.then(|| asked.child(rng)),
            None => Some(TraceParent::new(rng)).filter(|new| is_sampled(new.trace, sending.ratio)),
        }
    }

    /// Sends the first span of a run that was made (`by` what, within `times`), with a link to the
    /// request that asked for it. Returns its place, when the run is traced.
    #[expect(clippy::must_use_candidate, reason = "it is called for what it sends")]
    pub fn made(
        &self,
        run: RunId,
        task: Option<TaskId>,
        by: Trigger,
        times: (DateTime<Utc>, DateTime<Utc>),
        request: Option<TraceParent>,
    ) -> Option<TraceParent> {
        let place = self.run(run)?;
        let mut span = Span::new(place, None, "enqueue", SpanKind::Producer, times)
            .with("run.id", run.to_string())
            .with("run.trigger", by.as_str());
        if let Some(task) = task {
            span = span.with("task.id", task.to_string());
        }
        span.links.extend(request);
        self.send(span);
        Some(place)
    }

    /// Hands a span over. Never waits.
    pub fn send(&self, span: Span) {
        let Some(sending) = &self.0 else { return };
        let mut links = SpanLinks::default();
        links.dropped_count =
            u32::try_from(span.links.len().saturating_sub(LINKS_MAX)).unwrap_or(0);
        links.links = span.links.into_iter().take(LINKS_MAX).map(link).collect();
        let (begun, ended) = span.times;
        sending.processor.on_end(SpanData {
            span_context: context(span.place, false),
            parent_span_id: span.parent.map_or(SpanId::INVALID, SpanId::from),
            parent_span_is_remote: false,
            span_kind: span.kind,
            name: span.name,
            start_time: SystemTime::from(begun),
            end_time: SystemTime::from(ended.max(begun)),
            attributes: span.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links,
            status: span.error.map_or(Status::Unset, Status::error),
            instrumentation_scope: sending.scope.clone(),
        });
    }

    /// Sends what is left, for at most three seconds. What comes later is dropped.
    pub async fn close(&self) {
        let Some(sending) = self.0.clone() else { return };
        let closed = tokio::task::spawn_blocking(move || {
            sending.processor.shutdown_with_timeout(LAST_SPANS)
        });
        if !matches!(closed.await, Ok(Ok(()))) {
            tracing::debug!("the last spans could not be sent in time");
        }
    }
}

fn context(place: TraceParent, is_remote: bool) -> SpanContext {
    SpanContext::new(
        TraceId::from(place.trace),
        SpanId::from(place.span),
        if place.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() },
        is_remote,
        TraceState::NONE,
    )
}

fn link(place: TraceParent) -> Link {
    Link::new(context(place, true), Vec::new(), 0)
}
