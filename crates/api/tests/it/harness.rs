//! An API of its own for every test: a fresh database, a clock that stands still, a few tools.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use chrono::{DateTime, Utc};
use http_body_util::BodyExt as _;
use orchestrator_api::Api;
use orchestrator_boot::{Context, Service};
use orchestrator_engine::clock::{Clock as _, FakeClock};
use orchestrator_engine::config::{Env, Settings};
use orchestrator_engine::store::{agent, process};
use orchestrator_engine::tool::ToolSpec;
use orchestrator_testkit::TestServers;
use serde_json::{Value, json};
use sqlx::PgPool;
use tower::ServiceExt as _;

/// The admin's key in every test.
pub const ADMIN_KEY: &str = "orc_test-admin-key-of-sufficient-length";

pub struct TestApi {
    pub db: TestServers,
    pub clock: FakeClock,
    pub api: Api,
    app: Router,
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
    pub text: String,
}

impl Reply {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The pointers of the errors, sorted.
    pub fn pointers(&self) -> Vec<&str> {
        let mut pointers: Vec<_> = self.body["errors"]
            .as_array()
            .map(|errors| errors.iter().filter_map(|e| e["pointer"].as_str()).collect())
            .unwrap_or_default();
        pointers.sort_unstable();
        pointers
    }

    /// The same reply, after a look at its status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self
    }

    pub fn str(&self, pointer: &str) -> String {
        self.body.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    }
}

pub fn start() -> DateTime<Utc> {
    "2026-03-02T08:00:00Z".parse().unwrap()
}

impl TestApi {
    pub async fn new() -> Self {
        Self::with(&[]).await
    }

    /// With settings over the usual ones.
    pub async fn with(settings: &[(&str, &str)]) -> Self {
        let db = TestServers::fresh().await;
        let clock = FakeClock::at(start());
        agent::ensure_admin(&db.pool, ADMIN_KEY, clock.now()).await.unwrap();
        let mut conn = db.pool.acquire().await.unwrap();
        process::offer_tools(&mut conn, &tools()).await.unwrap();
        drop(conn);
        let api = api(&db, &clock, settings);
        Self { app: orchestrator_api::router(api.clone()), db, clock, api }
    }

    /// Another replica on the same database, Redis and clock.
    pub fn replica(&self, settings: &[(&str, &str)]) -> Router {
        orchestrator_api::router(api(&self.db, &self.clock, settings))
    }

    pub async fn send(&self, request: Request<Body>) -> Reply {
        send_to(&self.app, request).await
    }

    pub async fn call(&self, method: &str, path: &str, key: &str, body: Value) -> Reply {
        self.send(request(method, path, key, &body)).await
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.call("GET", path, ADMIN_KEY, Value::Null).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Reply {
        self.call("POST", path, ADMIN_KEY, body).await
    }

    /// A new agent with these scopes; its key.
    pub async fn agent(&self, name: &str, scopes: &[&str]) -> String {
        self.post("/agents", json!({"name": name, "scopes": scopes})).await.expect(201);
        self.post(&format!("/agents/{name}/keys"), json!({})).await.expect(201).str("/key")
    }
}

/// An API as its process makes it, with a pool of its own and without Redis.
pub fn api_of_its_own(
    database_url: &str,
    connections: &str,
    clock: &FakeClock,
) -> (Router, PgPool) {
    let env = [("DATABASE_URL", database_url), ("DATABASE_MAX_CONNECTIONS", connections)];
    let settings = Settings::read(&Env::from_pairs(env)).unwrap();
    let pool = orchestrator_boot::pool(&settings.database, Service::Api).unwrap();
    let ctx = Context::new(Service::Api, settings, pool.clone(), Arc::new(clock.clone()));
    (orchestrator_api::router(Api::new(&ctx)), pool)
}

fn api(db: &TestServers, clock: &FakeClock, settings: &[(&str, &str)]) -> Api {
    let mut all =
        vec![("DATABASE_URL", db.database_url.as_str()), ("REDIS_URL", db.redis_url.as_str())];
    all.retain(|(name, _)| !settings.iter().any(|(other, _)| other == name));
    all.extend_from_slice(settings);
    let settings = Settings::read(&Env::from_pairs(all)).unwrap();
    let clock = Arc::new(clock.clone());
    let ctx = Context::new(Service::Api, settings, db.pool.clone(), clock);
    let api = Api::new(&ctx);
    orchestrator_api::routes::health::add_checks(&api);
    api
}

pub fn request(method: &str, path: &str, key: &str, body: &Value) -> Request<Body> {
    let mut request =
        Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(path);
    if !key.is_empty() {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    if body.is_null() {
        return request.body(Body::empty()).unwrap();
    }
    request.header("content-type", "application/json").body(body.to_string().into()).unwrap()
}

pub async fn send_to(app: &Router, request: Request<Body>) -> Reply {
    let response = app.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let body = serde_json::from_str(&text).unwrap_or(Value::Null);
    Reply { status: parts.status, headers: parts.headers, body, text }
}

/// `log.write`, free for all, and `http.request`, which needs a scope.
fn tools() -> Vec<ToolSpec> {
    let tool = |address: &str, scope: Option<&str>, input_schema: Value| ToolSpec {
        address: address.to_owned(),
        description: format!("{address} for tests"),
        input_schema,
        output_schema: None,
        timeout_seconds: 30,
        scope: scope.map(str::to_owned),
        source: "builtin".to_owned(),
    };
    let message = json!({"type": "object", "required": ["message"], "additionalProperties": false,
                         "properties": {"message": {"type": "string"}}});
    let url = json!({"type": "object", "required": ["url"],
                     "properties": {"url": {"type": "string"}}});
    vec![tool("log.write", None, message), tool("http.request", Some("tool:http"), url)]
}

/// A task that is fine.
pub fn task(title: &str) -> Value {
    json!({
        "title": title, "schedule_kind": "cron", "schedule_expr": "30 8 * * *",
        "payload": {
            "params": {"city": "Chisinau"},
            "pipeline": [{"id": "hello", "uses": "log.write",
                          "with": {"message": "in ${params.city}"}}],
        },
    })
}

/// The task with fields over it.
#[expect(clippy::needless_pass_by_value, reason = "callers hand over a json!")]
pub fn task_with(fields: Value) -> Value {
    let mut task = task("A task");
    for (name, value) in fields.as_object().unwrap() {
        task[name] = value.clone();
    }
    task
}
