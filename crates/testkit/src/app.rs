//! The services on the databases of one test.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use orchestrator_boot::{Context, Service};
use orchestrator_engine::clock::{Clock as _, FakeClock};
use orchestrator_engine::config::{Env, Settings};
use orchestrator_engine::id::{self, AgentId, ProcessId, RunId, TaskId};
use orchestrator_engine::run::Trigger;
use orchestrator_engine::store::queue::{self, NewWork, QueueView, Take, Taken};
use orchestrator_engine::store::{agent, invariant};
use orchestrator_engine::task::TaskSpec;
use orchestrator_worker::Offer;
use serde_json::{Value, json};
use sqlx::PgConnection;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{FakeTools, TestServers};

/// The key of an admin, once [`TestApp::start_api`] was called.
pub const ADMIN_KEY: &str = "orc_test-admin-key-of-sufficient-length";

/// A system of one test: its databases, a clock that stands still, and an agent that owns tasks.
#[derive(Clone)]
pub struct TestApp {
    /// The databases.
    pub servers: TestServers,
    /// The clock that every service of this app asks.
    pub clock: FakeClock,
    /// The agent that owns what [`TestApp::add_task`] makes; it has the scope `admin`.
    pub agent: AgentId,
    env: Env,
}

/// A service that runs beside the test, in a runtime of its own, as a process would.
pub struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
    runtime: Option<Runtime>,
}

impl Running {
    fn start<F>(body: impl FnOnce(CancellationToken) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<(), orchestrator_boot::BoxError>> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime can be made");
        let stop = CancellationToken::new();
        let token = stop.clone();
        let task = runtime.spawn(async move { body(token).await.expect("the service runs") });
        Self { stop, task, runtime: Some(runtime) }
    }

    /// Tells it to stop, and waits until it has.
    pub async fn stop(mut self) {
        self.stop.cancel();
        (&mut self.task).await.expect("the service ends calmly");
    }

    /// Ends it in the middle of whatever it does, as a crash would: nothing is given back.
    pub fn kill(self) {
        drop(self);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl TestApp {
    /// Fresh databases, the clock at `now`.
    pub async fn at(now: &str) -> Self {
        Self::with(now, &[]).await
    }

    /// The same with settings.
    pub async fn with(now: &str, settings: &[(&str, &str)]) -> Self {
        Self::on(TestServers::fresh().await, now, settings).await
    }

    /// The same on `servers`, which nobody else has.
    pub async fn on(servers: TestServers, now: &str, settings: &[(&str, &str)]) -> Self {
        let clock = FakeClock::at(now.parse().expect("a time"));
        let mut env = Env::from_pairs([
            ("DATABASE_URL", servers.database_url.clone()),
            ("REDIS_URL", servers.redis_url.clone()),
        ]);
        for (name, value) in settings {
            env = env.with(name, *value);
        }
        let agent = AgentId::new(clock.now(), &mut id::rng());
        sqlx::query(
            "insert into agent (id, name, scopes, created_at) values ($1, 'tester', '{admin}', $2)",
        )
        .bind(agent)
        .bind(clock.now())
        .execute(&servers.pool)
        .await
        .expect("the agent can be added");
        Self { servers, clock, agent, env }
    }

    /// A context of a process of its own, with a pool of its own.
    #[must_use]
    pub fn context(&self, service: Service) -> Context {
        let settings = Settings::read(&self.env).expect("the settings of the test are right");
        let pool = orchestrator_boot::pool(&settings.database, service).expect("a pool");
        Context::new(service, settings, pool, Arc::new(self.clock.clone()))
    }

    /// Starts a worker that offers `tools`.
    #[must_use]
    pub fn start_worker(&self, tools: &FakeTools) -> Running {
        let (app, tools) = (self.clone(), tools.clone());
        Running::start(async move |stop| {
            let (_open, catalogue) = watch::channel(tools.specs());
            let offer = Offer { caller: Arc::new(tools), catalogue };
            let ctx = app.context(Service::Worker);
            let traces = ctx.traces.clone();
            let ended = Box::pin(orchestrator_worker::serve_with(ctx, offer, stop)).await;
            traces.close().await;
            ended
        })
    }

    /// Starts a worker with the tools that the settings name, as its process would.
    ///
    /// Returns when it offers those of the MCP servers that came up.
    pub async fn start_worker_with_own_tools(&self) -> Running {
        let app = self.clone();
        let worker = Running::start(async move |stop| {
            let ctx = app.context(Service::Worker);
            let traces = ctx.traces.clone();
            let ended = Box::pin(orchestrator_worker::serve(ctx, stop)).await;
            traces.close().await;
            ended
        });
        self.until("select count(*) from tool", 1).await;
        worker
    }

    /// Starts an API on a free port of this machine; returns its URL. [`ADMIN_KEY`] is an admin's.
    pub async fn start_api(&self) -> (Running, String) {
        agent::ensure_admin(&self.servers.pool, ADMIN_KEY, self.clock.now())
            .await
            .expect("the admin can be made");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        listener.set_nonblocking(true).expect("a listener can be told");
        let url = format!("http://{}", listener.local_addr().expect("it has an address"));
        let app = self.clone();
        let api = Running::start(async move |stop| {
            let ctx = app.context(Service::Api);
            let api = orchestrator_api::Api::new(&ctx);
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let router = orchestrator_api::router(api);
            orchestrator_api::door::serve(listener, router, stop, Duration::ZERO).await?;
            ctx.traces.close().await;
            Ok(())
        });
        (api, url)
    }

    /// Starts a scheduler.
    #[must_use]
    pub fn start_scheduler(&self) -> Running {
        let app = self.clone();
        Running::start(async move |stop| {
            let ctx = app.context(Service::Scheduler);
            let traces = ctx.traces.clone();
            let ended = Box::pin(orchestrator_scheduler::serve(ctx, stop)).await;
            traces.close().await;
            ended
        })
    }

    /// Keeps a task as the API would, without its checks.
    pub async fn add_task(&self, declared: Value) -> TaskId {
        let spec: TaskSpec = serde_json::from_value(declared).expect("a task");
        let now = self.clock.now();
        let task = TaskId::new(now, &mut id::rng());
        let next = next_fire_at(&spec, now);
        sqlx::query(
            "insert into task (id, agent_id, name, title, schedule_kind, status, revision, cursor_at,
                               next_fire_at, created_at, updated_at)
             values ($1, $2, $3, $4, $5, 'active', 1, $6, $7, $6, $6)",
        )
        .bind(task)
        .bind(self.agent)
        .bind(&spec.name)
        .bind(&spec.title)
        .bind(spec.schedule_kind.as_str())
        .bind(now)
        .bind(next)
        .execute(&self.servers.pool)
        .await
        .expect("the task can be added");
        sqlx::query(
            "insert into task_revision (task_id, revision, spec, created_at, created_by)
             values ($1, 1, $2, $3, $4)",
        )
        .bind(task)
        .bind(serde_json::to_value(&spec).expect("a task is JSON"))
        .bind(now)
        .bind(self.agent)
        .execute(&self.servers.pool)
        .await
        .expect("the revision can be added");
        task
    }

    /// Puts a run of `task` into the queue, due now.
    pub async fn run_now(&self, task: TaskId) -> RunId {
        let mut conn = self.servers.pool.acquire().await.expect("the database answers");
        let work = self.work(Some(task));
        queue::enqueue(&mut conn, work).await.expect("the run can be enqueued").run_id
    }

    /// Leases at most `wanted` runs for `lease`, as a worker does that has just started.
    pub async fn take(
        &self,
        conn: &mut PgConnection,
        lease: std::time::Duration,
        wanted: u16,
    ) -> Taken {
        self.take_ahead(conn, lease, wanted, wanted).await
    }

    /// As [`Self::take`], with all but `slots` of them leased ahead.
    pub async fn take_ahead(
        &self,
        conn: &mut PgConnection,
        lease: std::time::Duration,
        wanted: u16,
        slots: u16,
    ) -> Taken {
        let worker = ProcessId::new(self.clock.now(), &mut id::rng());
        let ageing = std::time::Duration::from_mins(1);
        let how = Take { worker, duration: lease, wanted, slots, ageing };
        QueueView::default().take(conn, how).await.expect("due runs can be leased")
    }

    /// A run due now, of `task` or of an empty pipeline.
    #[must_use]
    pub fn work(&self, task: Option<TaskId>) -> NewWork {
        let now = self.clock.now();
        NewWork {
            run_id: RunId::new(now, &mut id::rng()),
            agent_id: self.agent,
            task: task.map(|task| (task, 1)),
            priority: 5,
            delay: std::time::Duration::ZERO,
            trigger: Trigger::RunNow,
            nominal_at: None,
            scheduled_at: now,
            expires_after: None,
            params: None,
            event: None,
            definition: task.is_none().then(|| json!({"pipeline": []})),
            dedupe: None,
            concurrency: None,
            rate: None,
            serial: false,
            held: None,
        }
    }

    /// Waits until no run is in the queue, and returns how many have finished by status.
    ///
    /// # Panics
    ///
    /// When that takes longer than a minute.
    pub async fn until_idle(&self) -> Vec<(String, i64)> {
        let idle = async {
            while self.count("select count(*) from due_work").await > 0 {
                tokio::task::yield_now().await;
                self.watch_pause().await;
            }
        };
        let waited = tokio::time::timeout(std::time::Duration::from_mins(1), idle).await;
        assert!(waited.is_ok(), "runs are left in the queue");
        sqlx::query_as("select status, count(*) from run group by status order by status")
            .fetch_all(&self.servers.pool)
            .await
            .expect("runs can be counted")
    }

    /// Between two looks at the database: long enough to leave it to the services.
    async fn watch_pause(&self) {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }

    /// Waits until `query`, which counts, gives at least `count`.
    ///
    /// # Panics
    ///
    /// When that takes longer than a minute.
    pub async fn until(&self, query: &'static str, count: i64) {
        let there = async {
            while self.count(query).await < count {
                self.watch_pause().await;
            }
        };
        let waited = tokio::time::timeout(std::time::Duration::from_mins(1), there).await;
        assert!(waited.is_ok(), "waited in vain for {count} of: {query}");
    }

    /// What `query` counts.
    pub async fn count(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(&self.servers.pool).await.expect(query)
    }

    /// Status, attempt, error kind and output of a finished run.
    pub async fn finished(&self, run: RunId) -> (String, i16, Option<String>, Option<Value>) {
        sqlx::query_as("select status, attempt, error->>'kind', output from run where id = $1")
            .bind(run)
            .fetch_one(&self.servers.pool)
            .await
            .expect("the run has finished")
    }

    /// The steps of a run as `path#attempt status`, in the order of their start.
    pub async fn steps(&self, run: RunId) -> Vec<String> {
        sqlx::query_scalar(
            "select path || '#' || attempt || ' ' || status
             from (select path, attempt, status, started_at from run_step where run_id = $1
                   union all
                   select path, attempt, status, started_at from checkpointed where run_id = $1
                   union all
                   select s.* from run cross join json_to_recordset(steps) as s(
                       path text, attempt int, status text, started_at timestamptz) where id = $1) as step
             order by started_at, path, attempt",
        )
        .bind(run)
        .fetch_all(&self.servers.pool)
        .await
        .expect("steps can be read")
    }

    /// Checks every invariant.
    ///
    /// # Panics
    ///
    /// When one is violated.
    pub async fn check_invariants(&self) {
        let mut conn = self.servers.pool.acquire().await.expect("the database answers");
        let found = invariant::check(&mut conn).await.expect("invariants can be checked");
        let violated: Vec<_> = found.iter().filter(|one| one.violations > 0).collect();
        assert!(violated.is_empty(), "violated: {violated:?}");
    }
}

fn next_fire_at(spec: &TaskSpec, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    use orchestrator_engine::schedule::calendar::Calendars;
    use orchestrator_engine::schedule::{Schedule, ScheduleSpec};
    let schedule = Schedule::compile_with(&ScheduleSpec::from(spec), now, &Calendars::any())
        .expect("the schedule is right");
    schedule.next_after(now).map(|nominal| nominal.at)
}

/// A task with this schedule and pipeline, and defaults for the rest.
#[must_use]
pub fn task(kind: &str, expr: &str, pipeline: &Value) -> Value {
    json!({
        "title": "a test", "schedule_kind": kind, "schedule_expr": expr,
        "payload": {"pipeline": pipeline},
    })
}
