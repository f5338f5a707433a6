//! Traces of runs, sent to a collector that stands in for a real one: it decodes what it is sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::{get, post};
use axum::{Json, Router};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Attribute;
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use orchestrator_engine::id::RunId;
use orchestrator_engine::tool::ToolError;
use orchestrator_testkit::{ADMIN_KEY, FakeTools, TestApp, task};
use prost::Message as _;
use serde_json::{Value, json};
use tokio::sync::watch;

const NOW: &str = "2026-03-01T08:00:00Z";
const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const SECRET: &str = "hunter2-is-no-secret";

/// A collector, and a page that says which `traceparent` it was asked with.
#[derive(Clone)]
struct Collector {
    url: String,
    /// The service that sent it, and the span.
    spans: Arc<watch::Sender<Vec<(String, Span)>>>,
}

impl Collector {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("it has an address"));
        let collector = Self { url, spans: Arc::default() };
        let routes = Router::new()
            .route("/v1/traces", post(receive))
            .route("/page", get(page))
            .with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        collector
    }

    /// Waits until the trace `id` has `count` spans, and returns them.
    async fn trace(&self, id: &str, count: usize) -> Vec<(String, Span)> {
        let of = |all: &[(String, Span)]| -> Vec<_> {
            all.iter().filter(|(_, span)| hex(&span.trace_id) == id).cloned().collect()
        };
        let mut spans = self.spans.subscribe();
        let there = spans.wait_for(|all| of(all).len() >= count);
        let waited = tokio::time::timeout(std::time::Duration::from_mins(1), there).await;
        let Ok(Ok(all)) = waited else { panic!("too few of {id}: {:#?}", self.spans.borrow()) };
        of(&all)
    }
}

async fn receive(State(collector): State<Collector>, body: Bytes) -> Vec<u8> {
    let text = String::from_utf8_lossy(&body);
    assert!(!text.contains(SECRET), "a secret went into a trace");
    let request = ExportTraceServiceRequest::decode(body).expect("it is OTLP");
    collector.spans.send_modify(|spans| {
        for resource in request.resource_spans {
            let about = resource.resource.expect("a service says who it is");
            let name = about.attributes.iter().find(|one| one.key == "service.name");
            let name = name.and_then(|one| one.value.clone()?.value);
            let Some(Attribute::StringValue(name)) = name else { panic!("no service.name") };
            let of_scopes = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            spans.extend(of_scopes.map(|span| (name.clone(), span)));
        }
    });
    Vec::new()
}

async fn page(headers: HeaderMap) -> Json<Value> {
    let seen = headers.get("traceparent").map(|value| value.to_str().expect("it is text"));
    Json(json!({ "traceparent": seen }))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

fn trace_id(run: RunId) -> String {
    run.0.simple().to_string()
}

fn attribute(span: &Span, name: &str) -> Option<String> {
    let value = span.attributes.iter().find(|one| one.key == name)?.value.clone()?.value?;
    Some(match value {
        Attribute::StringValue(text) => text,
        Attribute::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    })
}

/// Spans as a tree: who sent it and its name, two spaces deeper than its parent.
fn tree(spans: &[(String, Span)], parent: &[u8], depth: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for (service, span) in spans.iter().filter(|(_, span)| span.parent_span_id == parent) {
        let path = attribute(span, "step.path").map_or(String::new(), |path| format!(" ({path})"));
        lines.push(format!("{}{service}: {}{path}", "  ".repeat(depth), span.name));
        lines.extend(tree(spans, &span.span_id, depth + 1));
    }
    lines
}

fn settings(collector: &str) -> [(&'static str, String); 4] {
    [
        ("ENABLE_TRACING", "true".to_owned()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.to_owned()),
        ("HTTP_ALLOW_PRIVATE", "127.0.0.1".to_owned()),
        ("SECRET_TOKEN", SECRET.to_owned()),
    ]
}

async fn app(settings: &[(&str, String)]) -> TestApp {
    orchestrator_boot::install_crypto();
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    TestApp::with(NOW, &settings).await
}

/// A task with a step that asks the page, and one that says what the page answered.
fn asking(collector: &Collector) -> Value {
    json!([
        {"id": "ask", "uses": "http.request", "with": {
            "url": format!("{}/page", collector.url),
            "headers": {"authorization": "Bearer ${secrets.TOKEN}"},
        }},
        {"id": "say", "uses": "core.echo", "with": {"seen": "${steps.ask.json.traceparent}"}},
    ])
}

/// Somebody whose own trace is on asks the API for a run. A worker does it, and asks a page.
#[tokio::test]
async fn a_run_is_one_trace_from_who_asked_for_it_to_the_page_that_a_step_asked() {
    let collector = Collector::start().await;
    let app = app(&settings(&collector.url)).await;
    let task = app.add_task(task("manual", "", &asking(&collector))).await;
    let (_api, url) = app.start_api().await;
    let _worker = app.start_worker_with_own_tools().await;

    let answer = reqwest::Client::new()
        .post(format!("{url}/tasks/{task}/run_now"))
        .bearer_auth(ADMIN_KEY)
        .header("traceparent", CALLER)
        .json(&json!({}))
        .send()
        .await
        .unwrap();
    let answer: Value = answer.json().await.unwrap();
    let run: RunId =
        answer["run_id"].as_str().unwrap_or_else(|| panic!("{answer}")).parse().unwrap();
    let spans = collector.trace(&trace_id(run), 4).await;
    let request = collector.trace("0af7651916cd43dd8448eb211c80319c", 1).await.remove(0).1;
    app.until_idle().await;

    assert_eq!(
        tree(&spans, &[], 0),
        [
            "orchestrator-api: enqueue",
            "  orchestrator-worker: run",
            "    orchestrator-worker: step http.request (ask)",
            "    orchestrator-worker: step core.echo (say)",
        ]
    );
    let named = |name: &str| &spans.iter().find(|(_, span)| span.name == name).unwrap().1;
    let (made, attempt, step) = (named("enqueue"), named("run"), named("step http.request"));
    // The page was asked with the step's span.
    let output = app.finished(run).await.3.unwrap();
    let seen = format!("00-{}-{}-01", trace_id(run), hex(&step.span_id));
    assert_eq!(output["seen"], seen.as_str());
    // The request is in the trace of its caller, and both know of each other.
    assert_eq!(
        (request.name.as_str(), request.kind),
        ("POST /tasks/{id}/run_now", SpanKind::Server as i32)
    );
    assert_eq!(hex(&request.parent_span_id), "b7ad6b7169203331");
    assert_eq!(
        (&request.links[0].span_id, &made.links[0].span_id),
        (&made.span_id, &request.span_id)
    );
    assert_eq!(attribute(attempt, "run.id"), Some(run.to_string()));
    assert_eq!(attribute(attempt, "task.id"), Some(task.to_string()));
    assert_eq!(attribute(attempt, "run.outcome").as_deref(), Some("succeeded"));
    assert_eq!(attribute(step, "step.status").as_deref(), Some("succeeded"));
}

/// A schedule comes due; the first attempt at its run fails, the second succeeds.
#[tokio::test]
async fn the_attempts_at_a_scheduled_run_are_in_one_trace() {
    let collector = Collector::start().await;
    let app = app(&settings(&collector.url)).await;
    let failed = AtomicBool::new(false);
    let tools = FakeTools::default().on("test.flaky", move |call| {
        if failed.swap(true, Ordering::SeqCst) {
            return Ok(call.input.clone());
        }
        let (tool, reason) = (call.address.clone(), "not now".to_owned());
        Err(ToolError::Busy { tool, reason, retry_after: None })
    });
    let mut declared =
        task("once", "2026-03-01T08:00:01Z", &json!([{"id": "try", "uses": "test.flaky"}]));
    declared["max_retries"] = json!(1);
    declared["backoff_strategy"] = json!("fixed");
    app.add_task(declared).await;
    let _worker = app.start_worker(&tools);
    app.clock.advance(chrono::TimeDelta::seconds(2));
    let _scheduler = app.start_scheduler();

    app.until("select count(*) from run", 1).await;
    let run: RunId =
        sqlx::query_scalar("select id from run").fetch_one(&app.servers.pool).await.unwrap();
    let spans = collector.trace(&trace_id(run), 5).await;

    assert_eq!(
        tree(&spans, &[], 0),
        [
            "orchestrator-scheduler: enqueue",
            "  orchestrator-worker: run",
            "    orchestrator-worker: step test.flaky (try)",
            "  orchestrator-worker: run",
            "    orchestrator-worker: step test.flaky (try)",
        ]
    );
    let outcomes: Vec<_> =
        spans.iter().filter_map(|(_, span)| attribute(span, "run.outcome")).collect();
    assert_eq!(outcomes, ["retrying", "succeeded"]);
    let failed = spans.iter().find(|(_, span)| span.name.starts_with("step")).unwrap();
    assert_eq!(attribute(&failed.1, "error.type").as_deref(), Some("tool_failed"));
    assert_eq!(failed.1.status.as_ref().unwrap().code, 2);
}

/// Nobody listens where traces are to be sent: runs go on, and a worker ends when it is told to.
#[tokio::test]
async fn a_collector_that_is_away_holds_nothing_up() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let app = app(&settings(&nobody)).await;
    let tools = FakeTools::default();
    let pipeline = json!([{"id": "say", "uses": "test.echo", "with": {"a": 1}}]);
    let task = app.add_task(task("manual", "", &pipeline)).await;
    let worker = app.start_worker(&tools);

    for _ in 0..20 {
        app.run_now(task).await;
    }
    let ended = app.until_idle().await;
    let stopping = tokio::time::timeout(std::time::Duration::from_secs(30), worker.stop()).await;

    assert_eq!(ended, [("succeeded".to_owned(), 20)]);
    assert!(stopping.is_ok(), "the worker waits for a collector");
}

/// Without `ENABLE_TRACING` nothing is sent, to nobody.
#[tokio::test]
async fn without_tracing_a_page_is_asked_without_a_traceparent() {
    let collector = Collector::start().await;
    let mut off = settings(&collector.url);
    off[0].1 = "false".to_owned();
    let app = app(&off).await;
    let task = app.add_task(task("manual", "", &asking(&collector))).await;
    let worker = app.start_worker_with_own_tools().await;

    let run = app.run_now(task).await;
    app.until_idle().await;
    worker.stop().await;

    assert_eq!(app.finished(run).await.3.unwrap(), json!({"seen": null}));
    assert!(collector.spans.borrow().is_empty());
}
