//! Logs. One subscriber for the process, set up once by whoever owns `main`.
//!
//! Lines go to standard error: standard output belongs to what a command answers. A JSON line about a
//! run, or logged while one was worked on, names its trace as `trace_id`: that is the run's id.

use std::fmt;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber, span};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::{Log, LogFormat, LogLevel};
use crate::id::RunId;

/// What our dependencies may say at each level: at DEBUG theirs would drown ours.
fn directives(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Debug => {
            "debug,hyper=info,hyper_util=info,h2=info,rustls=info,reqwest=info,sqlx=info,redis=info,tower_http=info,rmcp=info"
        }
        LogLevel::Info => "info,sqlx=warn,rmcp=warn",
        LogLevel::Warning => "warn",
        LogLevel::Error => "error",
    }
}

/// Makes this process log as `log` says.
///
/// # Errors
///
/// When a subscriber is set already; logging then goes on as it was.
pub fn init(log: Log) -> Result<(), TryInitError> {
    let registry = tracing_subscriber::registry().with(EnvFilter::new(directives(log.level)));
    match log.format {
        LogFormat::Json => registry.with(SpanTraces).with(json(std::io::stderr)).try_init(),
        LogFormat::Structured => {
            let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
            let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
            registry.with(layer.with_ansi(ansi)).try_init()
        }
    }
}

fn json<S, W>(writer: W) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .map_event_format(NamesTrace)
        .with_writer(writer)
}

/// The fields that say which trace something belongs to.
const TRACE_ID: &str = "trace_id";
const RUN_ID: &str = "run.id";

/// Finds the trace in the fields of a span or an event.
#[derive(Default)]
struct Finder(Option<String>);

impl Visit for Finder {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            TRACE_ID => self.0 = Some(value.to_owned()),
            RUN_ID => self.0 = value.parse().ok().map(|run: RunId| run.0.simple().to_string()),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if matches!(field.name(), TRACE_ID | RUN_ID) {
            self.record_str(field, &format!("{value:?}"));
        }
    }
}

fn is_about_a_trace(metadata: &tracing::Metadata<'_>) -> bool {
    let fields = metadata.fields();
    fields.field(RUN_ID).is_some() || fields.field(TRACE_ID).is_some()
}

/// The trace of a span, kept with it.
struct TraceOf(String);

/// Keeps with each span which trace it belongs to.
struct SpanTraces;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for SpanTraces {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, ctx: Context<'_, S>) {
        if !is_about_a_trace(attributes.metadata()) {
            return;
        }
        let mut finder = Finder::default();
        attributes.record(&mut finder);
        if let (Some(trace), Some(span)) = (finder.0, ctx.span(id)) {
            span.extensions_mut().insert(TraceOf(trace));
        }
    }
}

/// Lines of JSON with the trace that they belong to.
struct NamesTrace<F>(F);

impl<S, N, F> FormatEvent<S, N> for NamesTrace<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some(trace) = trace_of(ctx, event) else {
            return self.0.format_event(ctx, writer, event);
        };
        let mut line = String::new();
        self.0.format_event(ctx, Writer::new(&mut line), event)?;
        let open = line.trim_end();
        let open = open.strip_suffix('}').unwrap_or(open);
        writeln!(writer, r#"{open},"{TRACE_ID}":"{trace}"}}"#)
    }
}

/// The trace that an event names, or that the span around it belongs to.
fn trace_of<S, N>(ctx: &FmtContext<'_, S, N>, event: &Event<'_>) -> Option<String>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    if is_about_a_trace(event.metadata()) {
        let mut finder = Finder::default();
        event.record(&mut finder);
        if finder.0.is_some() {
            return finder.0;
        }
    }
    let mut around = ctx.event_scope()?;
    around.find_map(|span| span.extensions().get::<TraceOf>().map(|trace| trace.0.clone()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use serde_json::Value;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_json_line_about_a_run_names_its_trace() {
        let lines = Lines::default();
        let writer = lines.clone();
        let registry = tracing_subscriber::registry().with(SpanTraces);
        let run: RunId = "0198f3a1-7c2b-7def-8123-456789abcdef".parse().unwrap();

        tracing::subscriber::with_default(registry.with(json(move || writer.clone())), || {
            tracing::warn!(run.id = %run, "about a run");
            let work = tracing::info_span!("run", run.id = %run, task.id = "a-task");
            work.in_scope(|| tracing::info!(tool = "x", "within one"));
            let request = tracing::info_span!("request", trace_id = "4bf9");
            request.in_scope(|| tracing::info!("within a request"));
            tracing::info!("about nothing");
        });

        let bytes = lines.0.lock().unwrap().clone();
        let lines: Vec<Value> = String::from_utf8(bytes)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let traces: Vec<_> = lines.iter().map(|line| line["trace_id"].as_str()).collect();
        let of_run = Some("0198f3a17c2b7def8123456789abcdef");
        assert_eq!(traces, [of_run, of_run, Some("4bf9"), None]);
        assert_eq!(lines[1]["span"]["task.id"], "a-task");
    }
}
