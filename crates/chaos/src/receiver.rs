//! The tool that the steps of all runs call: an HTTP server that notes every call by itself, and
//! knows nothing of the product but the `Idempotency-Key`.
//!
//! `POST /<task>` is answered after `TAKES` with the attempt that called. A call whose caller
//! closes the connection before is noted as cut off, with the time at which it was.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use chrono::{DateTime, Utc};
use orchestrator_engine::clock::{Clock as _, SystemClock};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::Outcome;

/// How long an answer takes: long enough that a killed worker is often in the middle of one.
const TAKES: Duration = Duration::from_millis(100);

/// Tasks whose name ends so see their first call of each step refused with 503.
const FAILS_FIRST: &str = "-retried";

/// One call, as the receiver saw it.
#[derive(Clone, Debug, Serialize)]
pub struct Call {
    /// Which task, by its name.
    pub task: String,
    /// The run, from the `Idempotency-Key`.
    pub run: Uuid,
    /// The path of the step, from the `Idempotency-Key`.
    pub step: String,
    /// The attempt of the run that called, as it says itself.
    pub attempt: i64,
    /// When it came.
    pub began: DateTime<Utc>,
    /// When it was answered, or cut off; none while it is on.
    pub ended: Option<DateTime<Utc>>,
    /// The answer; none when the caller closed the connection before.
    pub status: Option<u16>,
}

/// What was called so far. Clones share it.
#[derive(Clone, Default)]
pub struct CallLog(Arc<Mutex<Noted>>);

#[derive(Default)]
struct Noted {
    calls: Vec<Call>,
    /// How many calls each key has had.
    by_key: HashMap<(Uuid, String), u32>,
}

impl CallLog {
    /// All calls, in the order in which they came.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.noted().calls.clone()
    }

    /// Writes all calls to `path`, as JSON, one a line.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Outcome<()> {
        let mut text = String::new();
        for call in self.calls() {
            text.push_str(&serde_json::to_string(&call)?);
            text.push('\n');
        }
        Ok(std::fs::write(path, text)?)
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that is on. Dropped before its answer, when the connection is closed, it notes that.
struct OnCall {
    log: CallLog,
    place: usize,
    status: Option<u16>,
}

impl Drop for OnCall {
    fn drop(&mut self) {
        if let Some(call) = self.log.noted().calls.get_mut(self.place) {
            call.ended = Some(SystemClock.now());
            call.status = self.status;
        }
    }
}

/// The listening receiver; closed when dropped.
pub struct Receiver {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it noted.
    pub log: CallLog,
    serving: JoinHandle<()>,
}

impl Receiver {
    /// Listens on a free port of loopback.
    ///
    /// # Errors
    ///
    /// When no port is free.
    pub async fn start() -> Outcome<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let log = CallLog::default();
        let routes = Router::new().route("/{task}", post(receive)).with_state(log.clone());
        let serving = tokio::spawn(async move { drop(axum::serve(listener, routes).await) });
        Ok(Self { address, log, serving })
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn receive(
    State(log): State<CallLog>,
    UrlPath(task): UrlPath<String>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> (StatusCode, Json<Value>) {
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).unwrap_or_default();
    let Some((run, step)) = split(key) else {
        return (StatusCode::BAD_REQUEST, Json(json!({"error": "no idempotency key of a run"})));
    };
    let attempt = body["attempt"].as_i64().unwrap_or_default();
    let mut on = {
        let mut noted = log.noted();
        let calls = noted.by_key.entry((run, step.clone())).or_default();
        *calls += 1;
        let is_refused = *calls == 1 && task.ends_with(FAILS_FIRST);
        let began = SystemClock.now();
        let call = Call { task, run, step, attempt, began, ended: None, status: None };
        noted.calls.push(call);
        let place = noted.calls.len() - 1;
        (OnCall { log: log.clone(), place, status: None }, is_refused)
    };
    tokio::time::sleep(TAKES).await;
    let status = if on.1 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    on.0.status = Some(status.as_u16());
    (status, Json(json!({"attempt": attempt})))
}

/// `<run id>/<step path>`.
fn split(key: &str) -> Option<(Uuid, String)> {
    let (run, step) = key.split_once('/')?;
    Some((run.parse().ok()?, step.to_owned()))
}
