//! The firing loop: sleeps until the next task is due, fires what is due, in batches, each in one
//! transaction.
//!
//! Any number of schedulers run this at once. They claim different tasks (`SKIP LOCKED`); a task's
//! times, its runs and its next time change together or not at all; and the ledger's key refuses a
//! time that was fired before.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use lru::LruCache;
use orchestrator_boot::{Context, Outage, in_time};
use orchestrator_engine::id::{self, RunId, TaskId};
use orchestrator_engine::run::{RunStatus, Trigger};
use orchestrator_engine::schedule::{Schedule, ScheduleSpec};
use orchestrator_engine::store::calendar::{self, CalendarCache};
use orchestrator_engine::store::fire::{self, Decided, Decision, DueTask};
use orchestrator_engine::store::queue::{Canceled, NewWork};
use orchestrator_engine::store::{StoreError, fire::Disposition, reach};
use orchestrator_engine::streams::{Lifecycle, SCHEDULE};
use orchestrator_engine::task::TaskSpec;
use sqlx::PgConnection;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::decide::{Plan, decide};

/// The most tasks fired in one transaction: so many are claimed in under 5 ms.
pub const BATCH: u16 = 150;
/// How many revisions are kept ready; a home has tens, and memory must not grow with their number.
const PLANS_KEPT: NonZeroUsize = NonZeroUsize::new(2_048).expect("not zero");
/// How soon to look again for due tasks that another scheduler is firing.
const HELD_BY_ANOTHER: Duration = Duration::from_millis(10);
/// The longest sleep while Redis is away and cannot tell of changes.
const POLL_WITHOUT_REDIS: Duration = Duration::from_secs(1);

/// Fires due schedules until `stop`; tells `held` when runs were made that wait for their turn.
pub async fn run(ctx: Context, held: Arc<Notify>, stop: CancellationToken) {
    let wake = ctx.streams.listen(SCHEDULE, stop.clone());
    let mut firing = Firing::new(ctx.clone());
    let mut outage = Outage::new("fire schedules");
    loop {
        let pause = match firing.fire_due().await {
            Ok(next) => {
                outage.over();
                firing.pause_until(next)
            }
            Err(error) => outage.pause_after(&error),
        };
        // Only now: the plan over all tasks that were due decides who is first.
        if std::mem::take(&mut firing.held) {
            held.notify_one();
        }
        tokio::select! {
            () = stop.cancelled() => return,
            // Somebody may have made runs that wait for their turn, too.
            () = wake.heard() => held.notify_one(),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// What the loop keeps between its turns.
pub struct Firing {
    ctx: Context,
    /// By task, revision, and how often calendars that it names were replaced.
    plans: LruCache<(TaskId, i32, i32), Arc<Plan>>,
    calendars: CalendarCache,
    /// Runs were made that wait for their turn, or for the run before them.
    held: bool,
}

impl Firing {
    /// A loop that has seen nothing yet.
    #[must_use]
    pub fn new(ctx: Context) -> Self {
        Self {
            ctx,
            plans: LruCache::new(PLANS_KEPT),
            calendars: CalendarCache::default(),
            held: false,
        }
    }

    /// How long to sleep when the next task is due at `next`.
    fn pause_until(&self, next: Option<DateTime<Utc>>) -> Duration {
        let longest = if self.ctx.streams.is_up() {
            self.ctx.settings.scheduler.interval
        } else {
            POLL_WITHOUT_REDIS.min(self.ctx.settings.scheduler.interval)
        };
        next.map_or(longest, |next| {
            let left = (next - self.ctx.clock.now()).to_std().unwrap_or(Duration::ZERO);
            // What is due and was not fired is in another scheduler's hands.
            if left.is_zero() { HELD_BY_ANOTHER } else { left.min(longest) }
        })
    }

    /// Fires everything that is due now. Returns when the next task is due.
    ///
    /// # Errors
    ///
    /// When the database failed; what was committed before stays.
    pub async fn fire_due(&mut self) -> Result<Option<DateTime<Utc>>, StoreError> {
        // Asked first: usually nothing is due, and one question is enough.
        let mut next = in_time("ask when a task is due", self.next_due()).await?;
        while next.is_some_and(|next| next <= self.ctx.clock.now()) {
            while in_time("fire schedules", self.fire_batch()).await? {}
            let after = in_time("ask when a task is due", self.next_due()).await?;
            if after == next {
                break; // another scheduler holds what is due
            }
            next = after;
        }
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        let seconds = next.map_or(0.0, |next| next.timestamp_millis() as f64 / 1_000.0);
        self.ctx.metrics.scheduler().next_fire_seconds.set(seconds);
        Ok(next)
    }

    async fn next_due(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        let mut conn = reach(&self.ctx.pool).await?;
        fire::next_fire_at(&mut conn).await
    }

    /// Fires at most [`BATCH`] due tasks in one transaction. Returns whether more may be due.
    async fn fire_batch(&mut self) -> Result<bool, StoreError> {
        let started_at = self.ctx.clock.now();
        let mut tx =
            self.ctx.pool.begin().await.map_err(StoreError::while_trying("begin to fire"))?;
        let due = fire::claim_due(&mut tx, started_at, BATCH).await?;
        if due.is_empty() {
            return Ok(false);
        }
        let count = due.len();
        let mut decisions = Vec::with_capacity(count);
        let mut kinds = Vec::new();
        for task in &due {
            match self.plan(&mut tx, task).await? {
                Ok(plan) => {
                    let decision =
                        decide(task, &plan, started_at, || RunId::new(started_at, &mut id::rng()));
                    kinds.push(plan.spec.schedule_kind);
                    decisions.push(decision);
                }
                Err(reason) => {
                    tracing::error!(task.id = %task.id, reason, "a task was paused: its schedule cannot be followed");
                    fire::suspend(&mut tx, task.id, &reason, started_at).await?;
                }
            }
        }
        let more = count == usize::from(BATCH)
            || decisions.iter().any(|one| one.next_fire_at.is_some_and(|next| next <= started_at));
        let mut told = told(&due, &decisions, started_at);
        let held = decisions.iter().any(|one| one.work.iter().any(NewWork::waits));
        let counted: Vec<_> =
            decisions.iter().zip(kinds).map(|(d, kind)| count_of(d, kind)).collect();
        let decided = fire::decide(&mut tx, decisions, started_at).await?;
        tx.commit().await.map_err(StoreError::while_trying("commit what was fired"))?;

        self.held |= held;
        told.extend(superseded(&due, &decided, started_at));
        let canceled = decided.superseded.iter().filter(|(_, _, what)| *what == Canceled::Done);
        let ended = &self.ctx.metrics.process().runs_finished;
        ended.with_label_values(&[RunStatus::Canceled.as_str()]).inc_by(canceled.count() as u64);
        self.measure(&counted, count);
        crate::trace::made(&self.ctx, &told, Trigger::Schedule);
        if !told.is_empty() {
            self.ctx.streams.wake_workers().await;
            self.ctx.streams.lifecycle(&told).await;
        }
        Ok(more)
    }

    /// The task's plan; inside, why there is none.
    async fn plan(
        &mut self,
        conn: &mut PgConnection,
        task: &DueTask,
    ) -> Result<Result<Arc<Plan>, String>, StoreError> {
        let key = (task.id, task.revision, task.calendar_epoch);
        if let Some(plan) = self.plans.get(&key) {
            return Ok(Ok(Arc::clone(plan)));
        }
        let spec: TaskSpec = match serde_json::from_value(task.spec.clone()) {
            Ok(spec) => spec,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let declared = ScheduleSpec::from(&spec);
        let calendars =
            calendar::of_schedule(conn, task.agent_id, &declared, &mut self.calendars).await?;
        Ok(match Schedule::compile_with(&declared, task.created_at, &calendars) {
            Ok(schedule) => {
                let plan = Arc::new(Plan { spec, schedule });
                self.plans.put(key, Arc::clone(&plan));
                Ok(plan)
            }
            Err(problems) => {
                Err(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
            }
        })
    }

    fn measure(&self, counted: &[Counted], batch: usize) {
        let metrics = self.ctx.metrics.scheduler();
        let now = self.ctx.clock.now();
        #[expect(clippy::cast_precision_loss, reason = "a batch is small")]
        metrics.fire_batch.observe(batch as f64);
        for one in counted {
            metrics.triggers.with_label_values(&[one.kind]).inc_by(one.due_at.len() as u64);
            for due_at in &one.due_at {
                metrics.drift_seconds.observe((now - *due_at).as_seconds_f64().max(0.0));
            }
            for (reason, count) in &one.missed {
                metrics.missed.with_label_values(&[reason]).inc_by(*count);
            }
        }
    }
}

/// What the metrics want to know of a decision once it is committed.
struct Counted {
    kind: &'static str,
    due_at: Vec<DateTime<Utc>>,
    missed: Vec<(&'static str, u64)>,
}

fn count_of(decision: &Decision, kind: orchestrator_engine::task::ScheduleKind) -> Counted {
    let missed = decision
        .occurrences
        .iter()
        .filter(|occurrence| occurrence.disposition != Disposition::Fired)
        .map(|occurrence| {
            let count = occurrence.stretch.map_or(1, |(_, count)| count);
            (occurrence.disposition.as_str(), u64::try_from(count).unwrap_or(0))
        })
        .collect();
    let due_at = decision.work.iter().map(|work| work.nominal_at.unwrap_or(work.scheduled_at));
    Counted { kind: kind.as_str(), due_at: due_at.collect(), missed }
}

/// What is told of runs that made room for others.
fn superseded(due: &[DueTask], decided: &Decided, at: DateTime<Utc>) -> Vec<Lifecycle> {
    let told = decided.superseded.iter().filter_map(|(task, run, what)| {
        let agent_id = due.iter().find(|one| one.id == *task)?.agent_id;
        let kind = match what {
            Canceled::Done => "run.canceled",
            Canceled::Requested => "run.cancel_requested",
            Canceled::NotQueued => return None,
        };
        Some(Lifecycle { kind, agent_id, task_id: Some(*task), run_id: Some(*run), at })
    });
    told.collect()
}

fn told(due: &[DueTask], decisions: &[Decision], at: DateTime<Utc>) -> Vec<Lifecycle> {
    let owner = |task: TaskId| due.iter().find(|one| one.id == task).map(|one| one.agent_id);
    let mut told = Vec::new();
    for decision in decisions {
        for work in &decision.work {
            told.push(Lifecycle {
                kind: "run.queued",
                agent_id: work.agent_id,
                task_id: Some(decision.task_id),
                run_id: Some(work.run_id),
                at,
            });
        }
        if decision.next_fire_at.is_none()
            && let Some(agent_id) = owner(decision.task_id)
        {
            let task_id = Some(decision.task_id);
            told.push(Lifecycle { kind: "task.completed", agent_id, task_id, run_id: None, at });
        }
    }
    told
}
