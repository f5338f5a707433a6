//! What a service is handed.

use std::sync::Arc;
use std::time::Duration;

use orchestrator_engine::clock::Clock;
use orchestrator_engine::config::{Secret, Service, Settings};
use orchestrator_engine::id::{self, ProcessId};
use orchestrator_engine::metrics::Metrics;
use orchestrator_engine::streams::Streams;
use sqlx::PgPool;

use crate::Traces;
use crate::database;
use crate::health::{CheckOutcome, HealthBoard};

/// How long the database may take to let us go.
const GOODBYE_MAX: Duration = Duration::from_secs(3);

/// What a service is handed. Clones share everything in it.
///
/// Nothing here belongs to a process: several services, or several workers, may be given one.
#[derive(Clone)]
pub struct Context {
    /// All settings.
    pub settings: Arc<Settings>,
    /// The database; its schema is up to date.
    pub pool: PgPool,
    /// Connections of a session of their own, to listen with: `pool`, or past its pooler.
    pub listening: PgPool,
    /// Redis, where there is one.
    pub streams: Streams,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What is counted and measured.
    pub metrics: Metrics,
    /// Where spans go, if anywhere.
    pub traces: Traces,
    /// What is well and what is not.
    pub health: HealthBoard,
    /// Who we are in heartbeats and leases. Two workers in one process need two: see
    /// [`Context::sibling`].
    pub process_id: ProcessId,
    /// When this context was made.
    pub started_at: chrono::DateTime<chrono::Utc>,
}

impl Context {
    /// A context for `service` with metrics, a health board that knows of the database, and an id of
    /// its own. Touches nothing outside.
    #[must_use]
    pub fn new(service: Service, settings: Settings, pool: PgPool, clock: Arc<dyn Clock>) -> Self {
        let started_at = clock.now();
        let metrics = Metrics::new(service);
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit an f64 for ever")]
        metrics.process().start_time.set(started_at.timestamp() as f64);
        let health = HealthBoard::new(Arc::clone(&clock));
        // Settings have checked the URL; should the driver still refuse it, we go on without.
        let url = settings.redis.url.as_ref().map(Secret::expose);
        let streams = Streams::new(url, Arc::clone(&clock)).unwrap_or_else(|error| {
            tracing::error!(%error, "REDIS_URL cannot be used; going on without Redis");
            Streams::none(Arc::clone(&clock))
        });
        let door = streams.clone();
        health.check("redis", false, move || {
            let door = door.clone();
            async move { ask_redis(&door).await }
        });
        // As with Redis: settings have checked the URL.
        let listening =
            database::listening(&settings.database, service, &pool).unwrap_or_else(|error| {
                tracing::error!(%error, "DATABASE_DIRECT_URL cannot be used; going on without");
                pool.clone()
            });
        let probe = pool.clone();
        health.check("database", true, move || {
            let pool = probe.clone();
            async move { ask_database(&pool).await }
        });
        let process_id = ProcessId::new(started_at, &mut id::rng());
        let traces = settings
            .tracing
            .as_ref()
            .map_or_else(Traces::none, |tracing| Traces::open(service, tracing, process_id));
        Self {
            settings: Arc::new(settings),
            pool,
            listening,
            streams,
            metrics,
            health,
            traces,
            process_id,
            started_at,
            clock,
        }
    }

    /// The same context under another process id, for a second worker beside the first.
    #[must_use]
    pub fn sibling(&self) -> Self {
        Self { process_id: ProcessId::new(self.clock.now(), &mut id::rng()), ..self.clone() }
    }

    /// Says goodbye to the database, which may have fallen silent, for at most three seconds; then sends
    /// the spans that are left.
    pub async fn close(&self) {
        let goodbye = async { tokio::join!(self.listening.close(), self.pool.close()) };
        if tokio::time::timeout(GOODBYE_MAX, goodbye).await.is_err() {
            tracing::warn!(
                "the database did not let us go within {} s; its connections are dropped",
                GOODBYE_MAX.as_secs()
            );
        }
        self.traces.close().await;
    }
}

async fn ask_redis(streams: &Streams) -> CheckOutcome {
    if !streams.is_configured() {
        return CheckOutcome::healthy_with("not configured: work is found by polling");
    }
    if streams.ping().await {
        CheckOutcome::healthy()
    } else {
        CheckOutcome::unhealthy("Redis does not answer: work is found by polling")
    }
}

async fn ask_database(pool: &PgPool) -> CheckOutcome {
    use sqlx::Connection as _;
    let asked = async { pool.acquire().await?.ping().await };
    match asked.await {
        Ok(()) => CheckOutcome::healthy(),
        // The error may hold the address, which is no business of whoever asks for our health.
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the database did not answer the health check"
            );
            CheckOutcome::unhealthy("the database does not answer")
        }
    }
}
