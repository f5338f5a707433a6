//! What is well and what is not, told by those who know.
//!
//! A [`HealthBoard`] holds named checks. A check is either *asked* (a closure, run when somebody
//! wants to know, at most once a second) or *told* (a state that a service sets when it changes).
//! Critical ones decide the whole; the others only degrade it: with Redis gone the system goes on.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use orchestrator_engine::clock::Clock;
use orchestrator_engine::text_enum;
use tokio::time::Instant;

/// How long a check may take before it counts as failed.
const CHECK_MAX: Duration = Duration::from_secs(3);

/// How long an answer is given again: `/health` needs no key, and must not become a way to keep
/// the database busy.
const REPORT_AGE_MAX: Duration = Duration::from_secs(1);

text_enum! {
    /// How something is.
    HealthStatus {
        /// Well.
        Healthy = "healthy",
        /// It does its work, with something missing.
        Degraded = "degraded",
        /// It does not do its work.
        Unhealthy = "unhealthy",
    }
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckOutcome {
    /// How it is.
    pub status: HealthStatus,
    /// What there is to say: no addresses, no secrets, for anybody may read it.
    pub message: Option<String>,
}

impl CheckOutcome {
    /// All is well.
    #[must_use]
    pub fn healthy() -> Self {
        Self { status: HealthStatus::Healthy, message: None }
    }

    /// All is well, and there is something to say: `3 workers`.
    pub fn healthy_with(message: impl Into<String>) -> Self {
        Self { status: HealthStatus::Healthy, message: Some(message.into()) }
    }

    /// Works, with something missing.
    pub fn degraded(message: impl Into<String>) -> Self {
        Self { status: HealthStatus::Degraded, message: Some(message.into()) }
    }

    /// Does not work.
    pub fn unhealthy(message: impl Into<String>) -> Self {
        Self { status: HealthStatus::Unhealthy, message: Some(message.into()) }
    }
}

/// What `/health` answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthReport {
    /// The worst of the critical checks; degraded when only others are not well.
    pub status: HealthStatus,
    /// When the checks were run.
    pub timestamp: DateTime<Utc>,
    /// Each check by its name.
    pub checks: BTreeMap<String, CheckOutcome>,
    /// How long we have been here.
    pub uptime: Duration,
}

impl HealthReport {
    /// 200, or 503 when unhealthy.
    #[must_use]
    pub fn http_status(&self) -> u16 {
        if self.status == HealthStatus::Unhealthy { 503 } else { 200 }
    }

    /// The body: `{"status","timestamp","checks":{name:{"status","message"?}},"version","uptime"}`;
    /// `uptime` in whole seconds.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let checks: serde_json::Map<_, _> = self
            .checks
            .iter()
            .map(|(name, outcome)| {
                let mut check = serde_json::json!({ "status": outcome.status.as_str() });
                if let Some(message) = &outcome.message {
                    check["message"] = message.as_str().into();
                }
                (name.clone(), check)
            })
            .collect();
        serde_json::json!({
            "status": self.status.as_str(),
            "timestamp": self.timestamp.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
            "checks": checks,
            "version": orchestrator_engine::VERSION,
            "uptime": self.uptime.as_secs(),
        })
    }
}

type Asked = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = CheckOutcome> + Send>> + Send + Sync>;

#[derive(Clone)]
enum Source {
    Asked(Asked),
    Told(CheckOutcome),
}

#[derive(Clone)]
struct Check {
    critical: bool,
    source: Source,
}

struct Inner {
    clock: Arc<dyn Clock>,
    started: Instant,
    board: Mutex<Board>,
}

#[derive(Default)]
struct Board {
    checks: BTreeMap<String, Check>,
    /// Parts that must report before we are ready, and whether they have.
    parts: BTreeMap<String, bool>,
    stopping: bool,
    latest: Option<(Instant, HealthReport)>,
}

/// The checks of a process. Clones share them.
#[derive(Clone)]
pub struct HealthBoard(Arc<Inner>);

impl HealthBoard {
    /// An empty board.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Inner { clock, started: Instant::now(), board: Mutex::default() }))
    }

    /// Adds (or replaces) a check that is asked. `critical`: when it is unhealthy, so are we;
    /// otherwise we are degraded.
    pub fn check<F, Fut>(&self, name: &str, critical: bool, ask: F)
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = CheckOutcome> + Send + 'static,
    {
        let asked: Asked = Arc::new(move || Box::pin(ask()));
        self.put(name, Check { critical, source: Source::Asked(asked) });
    }

    /// Adds (or replaces) a check that is told: how `name` is from now on.
    pub fn tell(&self, name: &str, critical: bool, outcome: CheckOutcome) {
        self.put(name, Check { critical, source: Source::Told(outcome) });
    }

    fn put(&self, name: &str, check: Check) {
        self.with_board(|board| {
            board.checks.insert(name.to_owned(), check);
            board.latest = None;
        });
    }

    /// Says that we are not ready before `part` is. Called before `part` is started.
    pub fn expect(&self, part: &str) {
        self.with_board(|board| board.parts.insert(part.to_owned(), false));
    }

    /// Says that `part` is up: it listens, or has begun its loop.
    pub fn ready(&self, part: &str) {
        self.with_board(|board| board.parts.insert(part.to_owned(), true));
    }

    /// Says that we are on our way out: not ready from now on, so that balancers turn away.
    pub fn stopping(&self) {
        self.with_board(|board| board.stopping = true);
    }

    /// Runs all checks (or gives the answer of a moment ago).
    pub async fn report(&self) -> HealthReport {
        let (checks, latest) =
            self.with_board(|board| (board.checks.clone(), board.latest.clone()));
        if let Some((at, report)) = latest
            && at.elapsed() < REPORT_AGE_MAX
        {
            return report;
        }
        // Beside each other: three that hang must not take three times as long.
        let mut asked = tokio::task::JoinSet::new();
        let mut outcomes = BTreeMap::new();
        for (name, check) in &checks {
            match &check.source {
                Source::Told(outcome) => {
                    outcomes.insert(name.clone(), outcome.clone());
                }
                Source::Asked(ask) => {
                    let (name, answer) = (name.clone(), ask());
                    // Kept when the check panics or hangs.
                    outcomes
                        .insert(name.clone(), CheckOutcome::unhealthy("the check gave no answer"));
                    asked.spawn(async move {
                        let outcome = tokio::time::timeout(CHECK_MAX, answer).await;
                        (name, outcome)
                    });
                }
            }
        }
        while let Some(done) = asked.join_next().await {
            if let Ok((name, Ok(outcome))) = done {
                outcomes.insert(name, outcome);
            }
        }
        let report = HealthReport {
            status: overall(&checks, &outcomes),
            timestamp: self.0.clock.now(),
            checks: outcomes,
            uptime: self.0.started.elapsed(),
        };
        self.with_board(|board| board.latest = Some((Instant::now(), report.clone())));
        report
    }

    /// Whether work may be sent here: every expected part is up, nothing critical is unhealthy, and
    /// we are not on our way out. When not: what is missing.
    ///
    /// # Errors
    ///
    /// A sentence for whoever asked.
    pub async fn is_ready(&self) -> Result<(), String> {
        let (missing, stopping) = self.with_board(|board| {
            let missing: Vec<_> = board
                .parts
                .iter()
                .filter(|(_, ready)| !**ready)
                .map(|(part, _)| part.clone())
                .collect();
            (missing, board.stopping)
        });
        if stopping {
            return Err("stopping".to_owned());
        }
        if !missing.is_empty() {
            return Err(format!("starting: waiting for {}", missing.join(", ")));
        }
        let report = self.report().await;
        if report.status == HealthStatus::Unhealthy {
            let ill: Vec<_> = report
                .checks
                .iter()
                .filter(|(_, outcome)| outcome.status == HealthStatus::Unhealthy)
                .map(|(name, _)| name.as_str())
                .collect();
            return Err(format!("unhealthy: {}", ill.join(", ")));
        }
        Ok(())
    }

    fn with_board<T>(&self, act: impl FnOnce(&mut Board) -> T) -> T {
        act(&mut self.0.board.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl std::fmt::Debug for HealthBoard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self.with_board(|board| board.checks.keys().cloned().collect::<Vec<_>>());
        f.debug_tuple("HealthBoard").field(&names).finish()
    }
}

fn overall(
    checks: &BTreeMap<String, Check>,
    outcomes: &BTreeMap<String, CheckOutcome>,
) -> HealthStatus {
    checks
        .iter()
        .filter_map(|(name, check)| {
            let status = outcomes.get(name)?.status;
            Some(if check.critical { status } else { status.min(HealthStatus::Degraded) })
        })
        .max()
        .unwrap_or(HealthStatus::Healthy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use orchestrator_engine::clock::FakeClock;

    fn board() -> HealthBoard {
        HealthBoard::new(Arc::new(FakeClock::at("2026-03-01T08:00:00Z".parse().unwrap())))
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_critical_degrades_and_what_is_critical_decides() {
        let board = board();
        board.check("database", true, || async { CheckOutcome::healthy() });
        board.tell("redis", false, CheckOutcome::unhealthy("gone"));
        let without_redis = board.report().await;
        board.check("database", true, || async { CheckOutcome::unhealthy("gone") });
        let without_database = board.report().await;

        assert_eq!(without_redis.status, HealthStatus::Degraded);
        assert_eq!(without_redis.http_status(), 200);
        assert_eq!(without_database.http_status(), 503);
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_hangs_counts_as_unhealthy_and_does_not_hold_the_answer_up() {
        let board = board();
        board.check("database", true, std::future::pending);

        let report = board.report().await;

        assert_eq!(report.checks["database"].status, HealthStatus::Unhealthy);
    }

    #[tokio::test(start_paused = true)]
    async fn ready_is_when_every_part_is_up_and_nobody_wants_to_stop() {
        let board = board();
        board.expect("api");
        board.expect("worker");
        board.ready("api");
        let early = board.is_ready().await;
        board.ready("worker");
        let up = board.is_ready().await;
        board.stopping();
        let late = board.is_ready().await;

        assert_eq!(early, Err("starting: waiting for worker".to_owned()));
        assert_eq!(up, Ok(()));
        assert!(late.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn the_body_has_the_fields_of_the_contract() {
        let board = board();
        board.tell("workers", false, CheckOutcome::healthy_with("2 alive"));

        assert_eq!(
            board.report().await.to_json(),
            serde_json::json!({
                "status": "healthy",
                "timestamp": "2026-03-01T08:00:00.000Z",
                "checks": { "workers": { "status": "healthy", "message": "2 alive" } },
                "version": orchestrator_engine::VERSION,
                "uptime": 0,
            })
        );
    }
}
