//! What the end of a run means for others: the next run of its task or of its concurrency key may
//! begin, or the task is paused because too many failed in a row.
//!
//! Both happen after the run's end is durable, in transactions of their own: a run's commit never
//! waits for a task that somebody else holds. A worker that dies in between leaves the next run to
//! the scheduler's sweep, and the count to the next failure.

use orchestrator_boot::{Context, in_time};
use orchestrator_engine::id::{AgentId, RunId, TaskId};
use orchestrator_engine::run::RunStatus;
use orchestrator_engine::store::{StoreError, queue, task};
use orchestrator_engine::streams::Lifecycle;

/// A run of a task that has ended for good.
pub(crate) struct Ended {
    pub(crate) run: RunId,
    pub(crate) task: TaskId,
    pub(crate) agent: AgentId,
    pub(crate) status: RunStatus,
    /// Another run of the task may wait for it.
    pub(crate) serial: bool,
    /// Another run of the key may wait for its place.
    pub(crate) concurrency_key: Option<String>,
}

impl Ended {
    /// Whether anything may follow.
    pub(crate) fn matters(&self) -> bool {
        self.serial || self.concurrency_key.is_some() || self.status == RunStatus::Failed
    }
}

/// Does what follows; an outage is left to the scheduler.
pub(crate) async fn ended(ctx: &Context, ended: &Ended) {
    if let Err(error) = in_time("let the next run in", let_next_in(ctx, ended)).await {
        tracing::debug!(task.id = %ended.task, error = &error as &dyn std::error::Error,
            "the runs that waited for this one will be let in by a scheduler");
    }
    if ended.status == RunStatus::Failed
        && let Err(error) = in_time("look for failures", pause_if_failing(ctx, ended)).await
    {
        tracing::warn!(task.id = %ended.task, error = &error as &dyn std::error::Error,
            "pause_after_failures could not be looked at; the next failure will do it");
    }
}

async fn let_next_in(ctx: &Context, ended: &Ended) -> Result<(), StoreError> {
    let mut admitted = queue::Admitted::default();
    if ended.serial {
        admitted += queue::admit_tasks(&ctx.pool, &[ended.task]).await?;
    }
    if let Some(key) = &ended.concurrency_key {
        admitted += queue::admit_keys(&ctx.pool, &[(ended.agent, key.clone())]).await?;
    }
    if admitted.begun > 0 {
        ctx.streams.wake_workers().await;
    }
    if admitted.rate_waits {
        ctx.streams.wake_scheduler().await; // it works out when their turn is
    }
    Ok(())
}

async fn pause_if_failing(ctx: &Context, ended: &Ended) -> Result<(), StoreError> {
    let now = ctx.clock.now();
    let mut tx = ctx.pool.begin().await.map_err(StoreError::while_trying("begin to pause"))?;
    let paused = task::pause_if_failing(&mut tx, ended.task, ended.run, now).await?;
    tx.commit().await.map_err(StoreError::while_trying("commit a pause"))?;
    if let Some(failures) = paused {
        tracing::warn!(task.id = %ended.task, failures, "the task was paused: {failures} runs in a row failed");
        let change = Lifecycle {
            kind: "task.paused",
            agent_id: ended.agent,
            task_id: Some(ended.task),
            run_id: Some(ended.run),
            at: now,
        };
        ctx.streams.lifecycle(&[change]).await;
    }
    Ok(())
}
