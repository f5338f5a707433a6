//! The spans of a worker: one for each attempt at a run, from its lease until what became of it is
//! durable, and one for each step of it.
//!
//! Nothing of this is in the way of a run that is not traced: then there is no [`Traced`], and the walk
//! calls the tools as it always does. Of a traced run, every call of a tool is told its span, so that the
//! tool can hand it on; the spans of steps are made from the records of the steps, which say when each began
//! and ended and how.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use orchestrator_boot::Context;
use orchestrator_boot::traces::{Span, SpanKind};
use orchestrator_engine::id::{self, RunId};
use orchestrator_engine::run::{RunStatus, StepRecord, StepStatus};
use orchestrator_engine::store::queue::{Lease, Leased, Sealed};
use orchestrator_engine::tool::{ToolCall, ToolCaller, ToolError};
use orchestrator_engine::trace::TraceParent;
use serde_json::Value;

use crate::commit::{Write, Written};

/// The attempts that are traced and on, by run.
#[derive(Default)]
pub(crate) struct Tracer(Mutex<HashMap<RunId, Arc<Traced>>>);

/// One attempt that is traced.
pub(crate) struct Traced {
    lease: Lease,
    /// The span of the attempt.
    place: TraceParent,
    begun: DateTime<Utc>,
    /// As it was at the beginning.
    span: Span,
    /// The spans of tools that were called, by the path of the step.
    calls: Mutex<HashMap<String, TraceParent>>,
}

impl Tracer {
    /// Begins the attempt at `run`; `None` when it is not traced.
    pub(crate) fn begin(&self, ctx: &Context, run: &Leased) -> Option<Arc<Traced>> {
        let root = ctx.traces.run(run.lease.run_id)?;
        let place = root.child(&mut id::rng());
        let begun = ctx.clock.now();
        let mut span = Span::new(place, Some(root.span), "run", SpanKind::Consumer, (begun, begun))
            .with("run.id", run.lease.run_id.to_string())
            .with("run.attempt", i64::from(run.info.attempt))
            .with("run.trigger", run.info.trigger.as_str())
            .with("run.waited_seconds", run.waited.as_secs_f64())
            .with("run.past", run.past.as_str());
        if let Some(task) = run.info.task_id {
            span = span.with("task.id", task.to_string());
        }
        let traced =
            Arc::new(Traced { lease: run.lease, place, begun, span, calls: Mutex::default() });
        self.open().insert(run.lease.run_id, Arc::clone(&traced));
        Some(traced)
    }

    /// The attempt under `lease`, when it is traced and on.
    pub(crate) fn find(&self, ctx: &Context, lease: Lease) -> Option<Arc<Traced>> {
        if !ctx.traces.is_on() {
            return None;
        }
        self.open().get(&lease.run_id).filter(|one| one.lease == lease).cloned()
    }

    /// Ends the attempt under `lease` with `outcome`.
    pub(crate) fn end(
        &self,
        ctx: &Context,
        lease: Lease,
        outcome: &'static str,
        error: Option<String>,
    ) {
        let Some(traced) = self.find(ctx, lease) else { return };
        self.open().remove(&lease.run_id);
        let mut span = traced.span.clone().with("run.outcome", outcome);
        span.times.1 = ctx.clock.now();
        span.error = error;
        ctx.traces.send(span);
    }

    /// Ends the attempt that `write` ended, when it is known whether that was `written`.
    pub(crate) fn settle(&self, ctx: &Context, lease: Lease, write: &Write, written: Written) {
        if ctx.traces.is_on() {
            let (outcome, error) = outcome(written, write);
            self.end(ctx, lease, outcome, error);
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<RunId, Arc<Traced>>> {
        lock(&self.0)
    }
}

impl Traced {
    /// Sends a span for each of `records` that this attempt began and that has ended.
    pub(crate) fn steps(&self, ctx: &Context, records: &[Sealed]) {
        for record in records.iter().filter(|record| record.started_at >= self.begun) {
            if let Some(ended) = record.finished_at {
                ctx.traces.send(self.step(record, ended));
            }
        }
    }

    fn step(&self, record: &StepRecord, ended: DateTime<Utc>) -> Span {
        let called = lock(&self.calls).remove(&record.path);
        let kind = if called.is_some() { SpanKind::Client } else { SpanKind::Internal };
        let place = called.unwrap_or_else(|| self.place.child(&mut id::rng()));
        let uses = record.uses.clone().unwrap_or_else(|| "control".to_owned());
        let times = (record.started_at, ended);
        let mut span = Span::new(place, Some(self.place.span), format!("step {uses}"), kind, times)
            .with("step.path", record.path.clone())
            .with("step.attempt", i64::from(record.attempt))
            .with("step.status", record.status.as_str())
            .with("uses", uses);
        if record.status == StepStatus::Failed {
            let kind = record.error.as_ref().map_or("tool_failed", |error| &error.kind);
            span = span.with("error.type", kind.to_owned());
            span.error = Some(kind.to_owned());
        }
        span
    }
}

/// What stands around every line that is logged during a traced attempt.
pub(crate) fn log_span(run: &Leased) -> tracing::Span {
    let task = run.info.task_id.map(tracing::field::display);
    tracing::info_span!("run", run.id = %run.lease.run_id, task.id = task)
}

/// Tools that are told the span of each call.
pub(crate) struct TracedTools {
    pub(crate) tools: Arc<dyn ToolCaller>,
    pub(crate) traced: Arc<Traced>,
}

impl ToolCaller for TracedTools {
    fn call(&self, mut call: ToolCall) -> BoxFuture<'_, Result<Value, ToolError>> {
        let place = self.traced.place.child(&mut id::rng());
        // `<run id>/<step path>`
        if let Some((_, path)) = call.idempotency_key.split_once('/') {
            lock(&self.traced.calls).insert(path.to_owned(), place);
        }
        call.trace = Some(place);
        self.tools.call(call)
    }
}

/// How an attempt ended, in a word, and the kind of its error.
fn outcome(written: Written, write: &Write) -> (&'static str, Option<String>) {
    match (written, write) {
        (Written::Stale, _) => ("lease_lost", Some("lease_lost".to_owned())),
        (Written::Refused, _) => ("not_written", Some("output".to_owned())),
        (Written::Done, Write::Requeue(requeued)) => {
            ("retrying", Some(requeued.error.kind.clone()))
        }
        (Written::Done, Write::Finish(finished)) => {
            let failed = matches!(finished.status, RunStatus::Failed | RunStatus::Expired);
            let kind = finished.error.as_ref().filter(|_| failed).map(|error| error.kind.clone());
            (finished.status.as_str(), kind)
        }
        (Written::Done, _) => ("released", None),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
