//! Runs to be measured: a task of steps that do nothing, and runs of it with as much in and out as
//! the ceiling's rows have.

use std::time::Duration;

use orchestrator_engine::clock::{Clock as _, SystemClock};
use orchestrator_engine::id::{self, AgentId, RunId, TaskId};
use orchestrator_engine::run::Trigger;
use orchestrator_engine::store::agent;
use orchestrator_engine::store::queue::{self, NewWork};
use orchestrator_engine::store::task::{self, Timing};
use orchestrator_engine::task::TaskSpec;
use serde_json::{Value, json};

use super::Ground;
use super::ceiling::INSERTED;
use crate::Outcome;
use crate::database::Bench;
use crate::machine;

/// The name of the task.
pub const NAME: &str = "bench";

/// A database with a task whose runs do nothing.
pub struct Work {
    /// The database.
    pub bench: Bench,
    /// Whose task it is.
    pub agent: AgentId,
    /// The task.
    pub task: TaskId,
    /// How many steps a run has.
    pub steps: u32,
    patience: Duration,
}

impl Work {
    /// Makes the database `bench_<name>` with a task of `steps` steps.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub async fn fresh(ground: &Ground<'_>, name: &str, steps: u32) -> Outcome<Self> {
        let bench = Bench::fresh(ground.env, name).await?;
        let mut conn = bench.pool.acquire().await?;
        let agent = agent::get(&mut conn, "bench").await?.id;
        let now = SystemClock.now();
        let task = TaskId::new(now, &mut id::rng());
        let pipeline: Vec<_> = (1..=steps)
            .map(|n| json!({"id": format!("echo{n}"), "uses": "core.echo", "with": {"message": "${params.pad}"}}))
            .collect();
        let spec: TaskSpec = serde_json::from_value(json!({
            "name": NAME, "title": "A task that does nothing", "schedule_kind": "manual",
            "payload": {"params": {"seq": 0, "kind": "", "pad": ""}, "pipeline": pipeline},
        }))?;
        let timing = Timing { cursor_at: now, next_fire_at: None };
        task::insert(&mut conn, task, agent, agent, &spec, timing, now).await?;
        drop(conn);
        let patience = Duration::from_secs(ground.scale.quiet_seconds);
        Ok(Self { bench, agent, task, steps, patience })
    }

    /// Parameters of a run: what the payload of a row of the ceiling is.
    #[must_use]
    pub fn params(seq: u32) -> Value {
        json!({"seq": seq, "kind": "bench", "pad": "x".repeat(160)})
    }

    /// A run to be enqueued.
    #[must_use]
    pub fn new_run(&self, seq: u32) -> NewWork {
        let now = SystemClock.now();
        NewWork {
            run_id: RunId::new(now, &mut id::rng()),
            agent_id: self.agent,
            task: Some((self.task, 1)),
            priority: 5,
            delay: Duration::ZERO,
            trigger: Trigger::RunNow,
            nominal_at: None,
            scheduled_at: now,
            expires_after: None,
            params: Some(Self::params(seq)),
            event: None,
            definition: None,
            dedupe: None,
            concurrency: None,
            serial: false,
            held: None,
        }
    }

    /// Enqueues `count` runs in batches of 1,000; returns an id below all of theirs.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub async fn fill(&self, count: u32) -> Outcome<RunId> {
        // Ids of one millisecond do not sort by when they were made.
        let first = RunId(
            uuid::Builder::from_unix_timestamp_millis(
                u64::try_from(SystemClock.now().timestamp_millis())?,
                &[0; 10],
            )
            .into_uuid(),
        );
        let mut conn = self.bench.pool.acquire().await?;
        for from in (0..count).step_by(INSERTED as usize) {
            let batch = (from..count.min(from + INSERTED)).map(|seq| self.new_run(seq)).collect();
            queue::enqueue_many(&mut conn, batch).await?;
        }
        Ok(first)
    }

    /// Whether this build lets other programs enqueue by SQL.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub async fn has_sql_function(&self) -> Outcome<bool> {
        let functions = "select count(*) from pg_proc
            where proname = 'enqueue' and pronamespace = to_regnamespace('orchestrator')";
        Ok(self.bench.count(functions).await? > 0)
    }

    /// Brings what was filled to disk and waits for a quiet machine.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub async fn settle(&self) -> Outcome<()> {
        self.bench.settle().await?;
        machine::quiet(self.patience).await;
        Ok(())
    }
}
