//! What every handler is given.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use orchestrator_boot::{Context, HealthBoard, Traces};
use orchestrator_engine::clock::Clock;
use orchestrator_engine::id::{AgentId, RunId, TaskId};
use orchestrator_engine::metrics::Metrics;
use orchestrator_engine::run::RunStatus;
use orchestrator_engine::schedule::zone_named_in;
use orchestrator_engine::store::{StoreError, queue, reach};
use orchestrator_engine::streams::{Lifecycle, Streams, Teller};
use serde_json::{Map, Value, json};
use sqlx::PgPool;
use sqlx::pool::PoolConnection;

use crate::callers::Callers;
use crate::gather::Gather;
use crate::limits::Limits;
use crate::problem::Problem;
use crate::together::Together;

/// What can be set about the API.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whose word about where a request comes from is believed.
    pub trusted_proxies: Arc<[ipnet::IpNet]>,
    /// How long an access token lives.
    pub token_lifetime: Duration,
    /// The zone of tasks that name none.
    pub default_timezone: chrono_tz::Tz,
    /// Whether `/metrics` answers.
    pub enable_metrics: bool,
    /// The largest params and event, in bytes of JSON (`RUN_DATA_MAX_BYTES`).
    pub data_max_bytes: usize,
}

impl Options {
    /// Gives a declaration that names no zone the one in which the DTSTART of its rule is written,
    /// or else [`Options::default_timezone`].
    pub fn fill_in_zone(&self, declared: &mut Map<String, Value>) {
        let text = |name: &str| declared.get(name).and_then(Value::as_str);
        let rule = text("schedule_expr").filter(|_| text("schedule_kind") == Some("rrule"));
        let zone = rule.and_then(zone_named_in);
        declared.entry("timezone").or_insert_with(|| {
            json!(zone.unwrap_or_else(|| self.default_timezone.name().to_owned()))
        });
    }
}

/// What every handler is given. Clones share everything.
#[derive(Clone)]
pub struct Api {
    /// The database.
    pub pool: PgPool,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Redis: hints.
    pub streams: Streams,
    /// What is counted and measured.
    pub metrics: Metrics,
    /// Where spans go, if anywhere.
    pub traces: Traces,
    /// What is well and what is not.
    pub health: HealthBoard,
    /// What can be set.
    pub options: Options,
    /// Since when this process serves.
    pub started_at: DateTime<Utc>,
    /// Rate limits.
    pub limits: Arc<Limits>,
    /// Where runs are told of that come in by the hundred.
    pub teller: Arc<Teller>,
    /// Where callers are recognised together.
    pub callers: Together<Callers>,
    /// Where runs that are asked for come in together.
    pub gather: Together<Gather>,
}

impl Api {
    /// The state of a service that was handed `ctx`.
    #[must_use]
    pub fn new(ctx: &Context) -> Self {
        let (pool, streams, clock) = (&ctx.pool, &ctx.streams, &ctx.clock);
        let per_minute = ctx.settings.api.rate_limit_per_minute;
        let limits = Arc::new(Limits::new(per_minute, streams.clone(), Arc::clone(clock)));
        let callers = Callers::new(pool.clone(), Arc::clone(clock), Arc::clone(&limits));
        let teller = Arc::new(Teller::start(streams.clone()).0);
        let gather = Gather::new(pool.clone(), Arc::clone(&teller), Arc::clone(clock));
        Self {
            pool: ctx.pool.clone(),
            clock: Arc::clone(&ctx.clock),
            streams: ctx.streams.clone(),
            metrics: ctx.metrics.clone(),
            traces: ctx.traces.clone(),
            health: ctx.health.clone(),
            options: Options {
                trusted_proxies: ctx.settings.api.trusted_proxies.as_slice().into(),
                token_lifetime: ctx.settings.api.token_lifetime,
                default_timezone: ctx.settings.default_timezone,
                enable_metrics: ctx.settings.enable_metrics,
                data_max_bytes: ctx.settings.run_data_max_bytes,
            },
            started_at: ctx.started_at,
            limits,
            teller,
            callers: Together::start(callers),
            gather: Together::start(gather),
        }
    }

    /// Counts runs that were canceled without a worker. After the commit; a worker counts its own.
    pub fn count_canceled(&self, runs: usize) {
        let kind = RunStatus::Canceled.as_str();
        self.metrics.process().runs_finished.with_label_values(&[kind]).inc_by(runs as u64);
    }

    /// Tells whoever watches what became of a run, and workers that there may be something to do:
    /// a run to take, or one to stop. After the commit.
    pub async fn tell_run(
        &self,
        kind: &'static str,
        agent_id: AgentId,
        task_id: Option<TaskId>,
        run: RunId,
    ) {
        let change = Lifecycle { kind, agent_id, task_id, run_id: Some(run), at: self.clock.now() };
        self.streams.queued(&[change]).await;
    }

    /// The same of many runs, for which nobody waits.
    pub fn tell_runs(
        &self,
        kind: &'static str,
        runs: impl IntoIterator<Item = (AgentId, Option<TaskId>, RunId)>,
    ) {
        tell_runs(&self.teller, self.clock.now(), kind, runs);
    }

    /// [`Api::let_next_in`] for what many runs leave or fill, each task and each owner once.
    pub async fn let_many_in(&self, runs: impl IntoIterator<Item = (AgentId, Option<TaskId>)>) {
        let (mut owners, mut tasks) = (BTreeSet::new(), BTreeSet::new());
        for (owner, task) in runs {
            owners.insert(owner);
            tasks.extend(task);
        }
        let tasks: Vec<_> = tasks.into_iter().collect();
        if let Err(error) = self.admit(&tasks, owners).await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "runs that wait will be let in by a scheduler"
            );
        }
    }

    /// Lets runs begin that may: the next of the task, those of the owner's concurrency keys with a free
    /// place, and those whose turn it is by their rate. To be called when a run has come or ended; a
    /// scheduler does it later where this cannot.
    pub async fn let_next_in(&self, owner: AgentId, task: Option<TaskId>) {
        if let Err(error) = self.admit(task.as_slice(), [owner]).await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "runs that wait will be let in by a scheduler"
            );
        }
    }

    async fn admit(
        &self,
        tasks: &[TaskId],
        owners: impl IntoIterator<Item = AgentId>,
    ) -> Result<(), StoreError> {
        let mut admitted = queue::admit_tasks(&self.pool, tasks).await?;
        let owners: Vec<_> = owners.into_iter().collect();
        let mut keys = Vec::new();
        let mut conn = reach(&self.pool).await?;
        for owner in &owners {
            keys.extend(queue::keys_to_admit(&mut conn, Some(*owner)).await?);
        }
        drop(conn);
        admitted += queue::admit_keys(&self.pool, &keys).await?;
        let mut conn = reach(&self.pool).await?;
        let mut rates = Vec::new();
        for owner in owners {
            rates.extend(queue::waiting_rates(&mut conn, Some(owner)).await?);
        }
        drop(conn);
        let (open, later): (Vec<_>, Vec<_>) = rates.into_iter().partition(|one| one.wait.is_zero());
        let open: Vec<_> = open.into_iter().map(|one| (one.owner, one.key)).collect();
        admitted += queue::admit_rates(&self.pool, &open).await?;
        if admitted.rate_waits || !later.is_empty() {
            self.streams.wake_scheduler().await; // it works out when their turn is
        }
        Ok(())
    }

    /// A connection of the pool.
    ///
    /// # Errors
    ///
    /// 503 when none is free in time, or the database is out of reach.
    pub async fn conn(&self) -> Result<PoolConnection<sqlx::Postgres>, Problem> {
        Ok(reach(&self.pool).await?)
    }
}

/// Tells whoever watches what became of runs, and workers that there may be something to do.
pub(crate) fn tell_runs(
    teller: &Teller,
    at: DateTime<Utc>,
    kind: &'static str,
    runs: impl IntoIterator<Item = (AgentId, Option<TaskId>, RunId)>,
) {
    let mut runs = runs.into_iter().peekable();
    if runs.peek().is_none() {
        return;
    }
    for (agent_id, task_id, run) in runs {
        teller.tell(|| Lifecycle { kind, agent_id, task_id, run_id: Some(run), at });
    }
    teller.wake_workers();
}
