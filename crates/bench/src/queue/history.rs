//! Whether millions of finished runs slow down the queue, and the lists of runs.

use std::time::Instant;

use orchestrator_engine::clock::{Clock as _, SystemClock};
use orchestrator_engine::id::{self, AgentId, RunId, TaskId};
use orchestrator_engine::run::RunStatus;
use orchestrator_engine::store::run::{self, RunFilter};
use rand::RngExt as _;

use super::Ground;
use super::drain::{self, drain};
use super::work::Work;
use crate::Outcome;
use crate::table::{Rounds, quantile};

/// Over so many days the finished runs lie.
const DAYS: i32 = 56;
/// Rows that one statement adds.
const CHUNK: u32 = 250_000;
/// How often each list is asked for.
const LISTS: u32 = 200;
/// Entries of a page.
const PAGE: i64 = 50;

/// Fills the history once; then drains beside it and without it, and asks for lists.
pub async fn measure(ground: &Ground<'_>, rounds: u32, figures: &mut Rounds) -> Outcome<()> {
    let count = ground.scale.history;
    let what = format!("{count} runs in the history");
    let work = Work::fresh(ground, "history", 1).await?;
    fill(&work, count).await?;
    for _ in 0..rounds {
        let normal = drain::fresh(ground, 1, 1, ground.scale.runs).await?.per_second;
        let beside =
            drain(ground, &work, 1, ground.scale.runs, ground.scale.runs).await?.per_second;
        figures.add(&format!("{what}: rate"), beside, "1/s", "");
        figures.add(&format!("{what}: ratio to none"), beside / normal, "", ">= 0.9");
    }
    let lists = [
        ("all", RunFilter::default()),
        ("of an agent", RunFilter { agent_id: Some(work.agent), ..RunFilter::default() }),
        ("of a task", RunFilter { task_id: Some(nth_task(7)), ..RunFilter::default() }),
        ("failed", RunFilter { status: Some(RunStatus::Failed), ..RunFilter::default() }),
        (
            "of an agent, failed",
            RunFilter {
                agent_id: Some(AgentId(nth_agent(3))),
                status: Some(RunStatus::Failed),
                ..RunFilter::default()
            },
        ),
    ];
    for (name, filter) in lists {
        let took = list(&work, &filter).await?;
        figures.add(&format!("{what}: list, {name}, p50"), quantile(&took, 0.5), "ms", "");
        figures.add(&format!("{what}: list, {name}, p99"), quantile(&took, 0.99), "ms", "");
    }
    Ok(())
}

/// The id of the `n`th of the thousand tasks in the history.
fn nth_task(n: u128) -> TaskId {
    TaskId(uuid::Uuid::from_u128(0x7a_0000_0000 + n))
}

/// The id of the `n`th of the nine agents in the history besides the owner of the task.
fn nth_agent(n: u128) -> uuid::Uuid {
    uuid::Uuid::from_u128(0xa6_0000_0000 + n)
}

/// Finished runs of a thousand tasks of ten agents, one in a hundred failed, evenly over the weeks up
/// to now, in the order in which they would have come.
async fn fill(work: &Work, count: u32) -> Outcome<()> {
    let pool = &work.bench.pool;
    sqlx::query("select ensure_run_partitions(now() - make_interval(days => $1), now())")
        .bind(DAYS)
        .execute(pool)
        .await?;
    let begin = SystemClock.now() - chrono::TimeDelta::days(DAYS.into());
    for from in (0..count).step_by(CHUNK as usize) {
        sqlx::query(
            "insert into run (id, agent_id, task_id, revision, status, priority, attempt, trigger,
                              scheduled_at, started_at, finished_at, output, error)
             select (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '7'
                     || lpad(to_hex(n), 19, '0'))::uuid,
                    case when n % 10 = 0 then $5 else
                        ('00000000-0000-0000-0000-00a600' || lpad(to_hex(n % 10), 6, '0'))::uuid end,
                    ('00000000-0000-0000-0000-007a00' || lpad(to_hex(n / 10 % 1000), 6, '0'))::uuid,
                    1, case when n % 100 = 3 then 'failed' else 'succeeded' end, 5, 1, 'schedule',
                    at, at, at + interval '1 s', $6,
                    case when n % 100 = 3 then '{\"kind\": \"tool_failed\", \"message\": \"it failed\"}'::jsonb end
             from (select n, $1::timestamptz + n * ($2::float8 * interval '1 s') as at
                   from generate_series($3::bigint, $4::bigint - 1) n) runs",
        )
        .bind(begin)
        .bind(f64::from(DAYS) * 86_400.0 / f64::from(count))
        .bind(i64::from(from))
        .bind(i64::from(count.min(from + CHUNK)))
        .bind(work.agent.0)
        .bind(Work::params(1))
        .execute(pool)
        .await?;
    }
    let there = work.bench.count("select count(*) from run_default").await?;
    if there > 0 {
        return Err(format!("{there} runs of the history are in no partition of a week").into());
    }
    work.bench.settle().await
}

/// How long pages from anywhere take, in milliseconds, sorted.
async fn list(work: &Work, filter: &RunFilter) -> Outcome<Vec<f64>> {
    let mut conn = work.bench.pool.acquire().await?;
    let mut took = Vec::new();
    for n in 0..LISTS {
        // Every tenth is the newest page, the others lie anywhere.
        let age = chrono::TimeDelta::seconds(id::rng().random_range(0..i64::from(DAYS) * 86_400));
        let before = RunId::new(SystemClock.now() - age, &mut id::rng());
        let before = (n % 10 > 0).then_some(before);
        let began = Instant::now();
        run::list(&mut conn, filter, before, PAGE).await?;
        took.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    took.sort_by(f64::total_cmp);
    Ok(took)
}
