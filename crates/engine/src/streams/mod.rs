//! Redis: hints and live events. Everything here may vanish at any moment; nothing may break.
//!
//! | key                           | kind   | written by             | read by              | kept               |
//! |-------------------------------|--------|------------------------|----------------------|--------------------|
//! | `orchestrator:work`           | stream | scheduler, api, worker | worker               | newest 1,000       |
//! | `orchestrator:schedule`       | stream | api                    | scheduler            | newest 1,000       |
//! | `orchestrator:events`         | stream | api, other programs    | scheduler (a group)  | until acknowledged |
//! | `orchestrator:lifecycle`      | stream | api, scheduler, worker | console, subscribers | newest 10,000      |
//! | `orchestrator:active_workers` | set    | worker, scheduler      | subscribers          | while alive        |
//! | `orchestrator:rate:<key>`     | string | api                    | api                  | a minute           |
//!
//! With Redis away every call answers at once that it could do nothing; it is tried again after
//! [`RETRY_AFTER`]. Going and coming are logged once each.

mod consumer;
mod listener;
mod rate;
mod teller;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use deadpool_redis::{Manager, Pool, PoolConfig, Runtime, Timeouts};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, Pipeline, RedisError};

pub use consumer::{Consumer, Entry};
pub use listener::Wake;
pub use rate::{Decision, decide as decide_rate};
pub use teller::Teller;

use crate::clock::Clock;
use crate::id::{AgentId, EventId, ProcessId, RunId, TaskId};

/// "There may be work." A worker that reads it asks Postgres what is due.
pub const WORK: &str = "orchestrator:work";
/// "A schedule has changed." A scheduler that reads it asks Postgres what is due next.
pub const SCHEDULE: &str = "orchestrator:schedule";
/// Named messages, from the API and from other programs.
pub const EVENTS: &str = "orchestrator:events";
/// What became of tasks and runs.
pub const LIFECYCLE: &str = "orchestrator:lifecycle";
/// The ids of the workers that are alive.
pub const ACTIVE_WORKERS: &str = "orchestrator:active_workers";

/// How long Redis is left alone after it could not be reached.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long a call may take before Redis counts as away.
const CALL_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a connection that the pool has tested is used by all without another test.
const TESTED_FOR: Duration = Duration::from_secs(1);
/// Connections for calls; those that wait for entries have their own.
const POOL_SIZE: usize = 8;
const HINTS_KEPT: usize = 1_000;
const LIFECYCLE_KEPT: usize = 10_000;

/// Something that became of a task or a run, for whoever watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifecycle {
    /// `noun.what`: `run.started`, `run.succeeded`, `task.paused`.
    pub kind: &'static str,
    /// Whose it is.
    pub agent_id: AgentId,
    /// The task, where there is one.
    pub task_id: Option<TaskId>,
    /// The run, where there is one.
    pub run_id: Option<RunId>,
    /// When it happened.
    pub at: DateTime<Utc>,
}

/// The process's door to Redis. Clones share it.
#[derive(Clone)]
pub struct Streams(Arc<Inner>);

struct Inner {
    pool: Option<Pool>,
    /// A connection of the pool's, and when it was tested: a test is a round trip of its own.
    tested: Mutex<Option<(Instant, MultiplexedConnection)>>,
    client: Option<Client>,
    clock: Arc<dyn Clock>,
    up: AtomicBool,
    retry_at_ms: AtomicI64,
    errors: AtomicU64,
}

fn hint(stream: &str) -> Cmd {
    let mut add = redis::cmd("XADD");
    add.arg(stream).arg("MAXLEN").arg("~").arg(HINTS_KEPT).arg("*").arg("v").arg(1);
    add
}

/// `adds`, and behind them what became of tasks and runs.
fn told(mut adds: Pipeline, changes: &[Lifecycle]) -> Pipeline {
    for change in changes {
        let add = adds.cmd("XADD").arg(LIFECYCLE).arg("MAXLEN").arg("~").arg(LIFECYCLE_KEPT);
        add.arg("*").arg("kind").arg(change.kind);
        add.arg("agent_id").arg(change.agent_id.to_string());
        if let Some(task) = change.task_id {
            add.arg("task_id").arg(task.to_string());
        }
        if let Some(run) = change.run_id {
            add.arg("run_id").arg(run.to_string());
        }
        add.arg("at").arg(change.at.to_rfc3339()).ignore();
    }
    adds
}

impl Streams {
    /// A door to the Redis at `url`; nothing is connected yet. `None`: there is none, and every call
    /// answers so.
    ///
    /// # Errors
    ///
    /// When `url` is not a Redis URL. The message does not repeat it: it may hold a password.
    pub fn new(url: Option<&str>, clock: Arc<dyn Clock>) -> Result<Self, RedisError> {
        let (pool, client) = match url {
            None => (None, None),
            Some(url) => {
                let client = Client::open(url)?;
                let config = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(CALL_TIMEOUT))
                    .set_response_timeout(Some(CALL_TIMEOUT));
                let manager = Manager::new_with_config(url, config)?;
                let timeouts = Timeouts {
                    wait: Some(CALL_TIMEOUT),
                    create: Some(CALL_TIMEOUT),
                    recycle: Some(CALL_TIMEOUT),
                };
                let pool = Pool::builder(manager)
                    .config(PoolConfig { max_size: POOL_SIZE, timeouts, ..PoolConfig::default() })
                    .runtime(Runtime::Tokio1)
                    .build()
                    .map_err(|error| {
                        RedisError::from((
                            redis::ErrorKind::InvalidClientConfig,
                            "the connection pool could not be made",
                            error.to_string(),
                        ))
                    })?;
                (Some(pool), Some(client))
            }
        };
        Ok(Self(Arc::new(Inner {
            up: AtomicBool::new(client.is_some()),
            pool,
            tested: Mutex::default(),
            client,
            clock,
            retry_at_ms: AtomicI64::new(0),
            errors: AtomicU64::new(0),
        })))
    }

    /// A door to nothing: every call answers that Redis is away.
    #[must_use]
    pub fn none(clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Inner {
            up: AtomicBool::new(false),
            pool: None,
            tested: Mutex::default(),
            client: None,
            clock,
            retry_at_ms: AtomicI64::new(0),
            errors: AtomicU64::new(0),
        }))
    }

    /// Whether Redis answered when it was last asked. False where there is none.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.0.up.load(Ordering::Relaxed)
    }

    /// Whether a Redis is configured at all.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        self.0.client.is_some()
    }

    /// How many calls have failed since the start.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.0.errors.load(Ordering::Relaxed)
    }

    /// Asks Redis whether it is there; what [`Self::is_up`] says is true afterwards.
    pub async fn ping(&self) -> bool {
        self.call::<String>(&redis::cmd("PING")).await.is_some()
    }

    /// Tells workers that there may be work.
    pub async fn wake_workers(&self) {
        self.hint(WORK).await;
    }

    /// Tells schedulers that a schedule has changed.
    pub async fn wake_scheduler(&self) {
        self.hint(SCHEDULE).await;
    }

    async fn hint(&self, stream: &str) {
        self.call::<String>(&hint(stream)).await;
    }

    /// Shows an event, kept in Postgres already, to schedulers and other programs. Returns whether Redis
    /// took it.
    pub async fn add_event(&self, id: EventId, topic: &str, payload: &serde_json::Value) -> bool {
        let mut add = redis::cmd("XADD");
        add.arg(EVENTS).arg("*").arg("event_id").arg(id.to_string());
        add.arg("topic").arg(topic).arg("payload").arg(payload.to_string());
        self.call::<String>(&add).await.is_some()
    }

    /// Tells whoever watches what became of tasks and runs; one round trip.
    pub async fn lifecycle(&self, changes: &[Lifecycle]) {
        if !changes.is_empty() {
            self.pipe(&told(redis::pipe(), changes)).await;
        }
    }

    /// Tells whoever watches that `count` changes of runs came too fast to be told one by one.
    async fn untold(&self, count: u64) {
        let mut add = redis::cmd("XADD");
        add.arg(LIFECYCLE).arg("MAXLEN").arg("~").arg(LIFECYCLE_KEPT);
        add.arg("*").arg("kind").arg("runs.changed").arg("count").arg(count);
        self.call::<String>(&add).await;
    }

    /// Wakes workers and tells whoever watches what became of runs; one round trip.
    pub async fn queued(&self, changes: &[Lifecycle]) {
        let mut wake = redis::pipe();
        wake.add_command(hint(WORK)).ignore();
        self.pipe(&told(wake, changes)).await;
    }

    /// Says that a worker is alive, or with `false` that it has ended.
    pub async fn worker_alive(&self, worker: ProcessId, alive: bool) {
        let mut change = redis::cmd(if alive { "SADD" } else { "SREM" });
        change.arg(ACTIVE_WORKERS).arg(worker.to_string());
        self.call::<i64>(&change).await;
    }

    /// Makes the set of active workers what Postgres says it is.
    pub async fn set_active_workers(&self, workers: &[ProcessId]) {
        let mut set = redis::pipe();
        set.atomic().cmd("DEL").arg(ACTIVE_WORKERS).ignore();
        if !workers.is_empty() {
            let ids: Vec<_> = workers.iter().map(ToString::to_string).collect();
            set.cmd("SADD").arg(ACTIVE_WORKERS).arg(ids).ignore();
        }
        self.pipe(&set).await;
    }

    /// Counts requests that come at once, so many of each key, against `per_minute`, together with all other
    /// replicas. Returns the decisions for each key. `None`: Redis is away.
    pub async fn rate_limits(
        &self,
        requests: &[(String, usize)],
        per_minute: u32,
    ) -> Option<Vec<Vec<Decision>>> {
        let mut evals = redis::pipe();
        for (key, count) in requests {
            let eval = evals.cmd("EVAL").arg(rate::SCRIPT).arg(1);
            eval.arg(format!("orchestrator:rate:{key}")).arg(per_minute).arg(*count);
        }
        let mut connection = self.connection().await?;
        let answer = evals.query_async::<Vec<(usize, i64)>>(&mut connection).await;
        let counted = requests.iter().zip(self.note(answer)?);
        Some(
            counted
                .map(|((_, count), (allowed, tat_in_us))| {
                    Decision::of_many(*count, allowed, tat_in_us, per_minute)
                })
                .collect(),
        )
    }

    /// Runs one command. `None`: Redis is away.
    async fn call<T: FromRedisValue>(&self, command: &Cmd) -> Option<T> {
        let mut connection = self.connection().await?;
        let answer = command.query_async(&mut connection).await;
        self.note(answer)
    }

    /// Runs several commands in one round trip.
    async fn pipe(&self, commands: &Pipeline) {
        if let Some(mut connection) = self.connection().await {
            let answer = commands.query_async::<()>(&mut connection).await;
            self.note(answer);
        }
    }

    async fn connection(&self) -> Option<MultiplexedConnection> {
        let pool = self.0.pool.as_ref()?;
        let now_ms = self.0.clock.now().timestamp_millis();
        let retry_at_ms = self.0.retry_at_ms.load(Ordering::Relaxed);
        let pause_ms = i64::try_from(RETRY_AFTER.as_millis()).unwrap_or(i64::MAX);
        // The second condition: a clock that was set back must not keep us away.
        if !self.is_up() && now_ms < retry_at_ms && retry_at_ms - now_ms <= pause_ms {
            return None;
        }
        if let Some((at, connection)) = &*self.tested()
            && at.elapsed() < TESTED_FOR
        {
            return Some(connection.clone());
        }
        match pool.get().await {
            Ok(connection) => {
                let connection = MultiplexedConnection::clone(&connection);
                *self.tested() = Some((Instant::now(), connection.clone()));
                Some(connection)
            }
            Err(error) => {
                self.went_away(&error);
                None
            }
        }
    }

    fn tested(&self) -> std::sync::MutexGuard<'_, Option<(Instant, MultiplexedConnection)>> {
        self.0.tested.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note<T>(&self, answer: Result<T, RedisError>) -> Option<T> {
        match answer {
            Ok(value) => {
                self.came_back();
                Some(value)
            }
            Err(error) => {
                self.went_away(&error);
                None
            }
        }
    }

    fn went_away(&self, error: &dyn std::error::Error) {
        self.0.errors.fetch_add(1, Ordering::Relaxed);
        *self.tested() = None;
        let pause_ms = i64::try_from(RETRY_AFTER.as_millis()).unwrap_or(i64::MAX);
        let retry_at = self.0.clock.now().timestamp_millis().saturating_add(pause_ms);
        self.0.retry_at_ms.store(retry_at, Ordering::Relaxed);
        if self.0.up.swap(false, Ordering::Relaxed) {
            tracing::warn!(%error, "Redis is away; going on without it, by polling");
        }
    }

    fn came_back(&self) {
        if !self.0.up.swap(true, Ordering::Relaxed) {
            tracing::info!("Redis is back");
        }
    }
}

impl std::fmt::Debug for Streams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streams").field("up", &self.is_up()).finish_non_exhaustive()
    }
}
