//! The span of a request, and what joins it to the runs that it made.
//!
//! A run has a trace of its own, for it may begin long after its request: the first span of that trace
//! links to the request, and the request's span links to it. A request goes into the trace of its caller
//! where that sent a `traceparent`. What asks again and again whether we are well has no span.

use std::sync::{Arc, Mutex, PoisonError};

use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use chrono::{DateTime, Utc};
use orchestrator_boot::Traces;
use orchestrator_boot::traces::{LINKS_MAX, Span, SpanKind};
use orchestrator_engine::clock::Clock;
use orchestrator_engine::id::{self, RunId, TaskId};
use orchestrator_engine::run::Trigger;
use orchestrator_engine::trace::{TRACEPARENT, TraceParent};

use crate::state::Api;

tokio::task_local! {
    /// The request that is on.
    static ON: Arc<Traced>;
}

/// A request that is traced.
pub(crate) struct Traced {
    traces: Traces,
    clock: Arc<dyn Clock>,
    place: TraceParent,
    /// The caller's span.
    parent: Option<u64>,
    begun: DateTime<Utc>,
    /// The first spans of runs that it made.
    made: Mutex<Vec<TraceParent>>,
}

impl Traced {
    /// `None` when the request is not traced.
    pub(crate) fn begin(api: &Api, headers: &HeaderMap, path: &str) -> Option<Arc<Self>> {
        if !api.traces.is_on() || path.starts_with("/health") || path == "/metrics" {
            return None;
        }
        let asked: Option<TraceParent> =
            headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()?.parse().ok());
        Some(Arc::new(Self {
            traces: api.traces.clone(),
            clock: Arc::clone(&api.clock),
            place: api.traces.request(asked)?,
            parent: asked.map(|asked| asked.span),
            begun: api.clock.now(),
            made: Mutex::default(),
        }))
    }

    /// Its trace, as logs name it.
    pub(crate) fn id(&self) -> String {
        format!("{:032x}", self.place.trace)
    }

    /// Answers the request, and sends its span.
    pub(crate) async fn around(
        self: Arc<Self>,
        (method, route, request_id): (&Method, &str, &str),
        answer: impl Future<Output = Response>,
    ) -> Response {
        let response = ON.scope(Arc::clone(&self), answer).await;
        let status = response.status();
        let times = (self.begun, self.clock.now());
        let name = format!("{method} {route}");
        let mut span = Span::new(self.place, self.parent, name, SpanKind::Server, times)
            .with("http.request.method", method.to_string())
            .with("http.route", route.to_owned())
            .with("http.response.status_code", i64::from(status.as_u16()))
            .with("request.id", request_id.to_owned());
        span.links = std::mem::take(&mut *self.made.lock().unwrap_or_else(PoisonError::into_inner));
        span.error = error(status);
        self.traces.send(span);
        response
    }
}

/// What callers do wrong is no error of ours.
fn error(status: StatusCode) -> Option<String> {
    status.is_server_error().then(|| status.as_u16().to_string())
}

/// The request that is on has made a run.
pub(crate) fn made(api: &Api, run: RunId, task: Option<TaskId>, by: Trigger) {
    note(api, |times, request| api.traces.made(run, task, by, times, request));
}

/// The request that is on has put a finished run into the queue again.
pub(crate) fn made_again(api: &Api, run: RunId) {
    note(api, |times, request| {
        let root = api.traces.run(run)?;
        let place = root.child(&mut id::rng());
        let mut span = Span::new(place, Some(root.span), "retry", SpanKind::Producer, times)
            .with("run.id", run.to_string());
        span.links.extend(request);
        api.traces.send(span);
        Some(place)
    });
}

/// Sends a span that goes from the beginning of the request until now, and joins it to the request.
fn note(
    api: &Api,
    send: impl FnOnce((DateTime<Utc>, DateTime<Utc>), Option<TraceParent>) -> Option<TraceParent>,
) {
    if !api.traces.is_on() {
        return;
    }
    let on = ON.try_with(Arc::clone).ok();
    let now = api.clock.now();
    let begun = on.as_ref().map_or(now, |on| on.begun);
    let place = send((begun, now), on.as_ref().map(|on| on.place));
    if let (Some(on), Some(place)) = (on, place) {
        let mut made = on.made.lock().unwrap_or_else(PoisonError::into_inner);
        if made.len() < LINKS_MAX {
            made.push(place);
        }
    }
}
