//! How long a run waits for a worker that has nothing, or half of what it could, to do.
//!
//! Measured from the moment the enqueuer's commit was answered to the moment the first step began, by
//! one clock: the worker, the enqueuer and Postgres are on one machine. A step begins when the lease is
//! committed and the definition is at hand, so what is measured is the start of the work, not of the
//! lease. From the call instead of the commit is told too: nothing can hide in the commit then.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use orchestrator_engine::clock::{Clock as _, SystemClock};
use orchestrator_engine::id::RunId;
use orchestrator_engine::store::{execution, queue};
use orchestrator_engine::streams::Streams;
use sqlx::PgConnection;
use tokio::time::{Instant, MissedTickBehavior};

use super::work::{NAME, Work};
use super::{Ground, drain};
use crate::Outcome;
use crate::processes::Process;
use crate::table::{Rounds, quantile};

/// Runs a second on the idle system.
const RATE: u32 = 20;
/// Under load a batch is enqueued so often.
const EVERY: Duration = Duration::from_millis(10);
/// How long the load lasts; its first second, in which statements are prepared, is not looked at.
const LOAD_SECONDS: u32 = 11;
/// How long the last runs may take.
const END_MAX: Duration = Duration::from_secs(30);

/// When a run was enqueued.
#[derive(Clone, Copy)]
struct Enqueued {
    run: RunId,
    called: DateTime<Utc>,
    committed: DateTime<Utc>,
}

/// One round: idle, then under half of the load that a worker can bear.
pub async fn measure(ground: &Ground<'_>, figures: &mut Rounds) -> Outcome<()> {
    let count = ground.scale.pickups;
    let pace = Duration::from_secs(1) / RATE;
    for door in [Door::Engine, Door::Sql] {
        let Some(idle) = load(ground, door, pace, 1, count).await? else {
            eprintln!("  there is no orchestrator.enqueue(): not measured");
            continue;
        };
        let (commit, call) = waits(&idle);
        let what = match door {
            Door::Engine => "pickup, idle, 20/s",
            Door::Sql => "pickup, idle, 20/s, by SQL",
        };
        let p50 = [quantile(&commit, 0.5), quantile(&call, 0.5)];
        let p99 = [quantile(&commit, 0.99), quantile(&call, 0.99)];
        figures.add(&format!("{what}: commit to start, p50"), p50[0], "ms", "<= 1.5");
        figures.add(&format!("{what}: commit to start, p99"), p99[0], "ms", "<= 5");
        figures.add(&format!("{what}: call to start, p50"), p50[1], "ms", "");
        figures.add(&format!("{what}: call to start, p99"), p99[1], "ms", "");
    }

    let full = drain::fresh(ground, 1, 1, ground.scale.runs / 2).await?.per_second;
    let ticks_per_second = 1.0 / EVERY.as_secs_f64();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a few hundred runs"
    )]
    let batch = (full / 2.0 / ticks_per_second).round().max(1.0) as u32;
    let ticks = 100 * LOAD_SECONDS;
    let half = load(ground, Door::Engine, EVERY, batch, ticks).await?.unwrap_or_default();
    let warm = half.len() / LOAD_SECONDS as usize;
    let (commit, _) = waits(&half[warm..]);
    let reached = f64::from(batch) * ticks_per_second;
    figures.add("pickup, half load: runs enqueued", reached, "1/s", "");
    figures.add("pickup, half load: commit to start, p50", quantile(&commit, 0.5), "ms", "");
    figures.add("pickup, half load: commit to start, p99", quantile(&commit, 0.99), "ms", "<= 50");
    Ok(())
}

/// A run and when its first step began.
type Started = (Enqueued, DateTime<Utc>);

/// By which door runs come in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    /// As the API does: the commit, then the hint.
    Engine,
    /// By the SQL function, which wakes workers with the commit.
    Sql,
}

/// Enqueues `batch` runs every `pace`, `ticks` times. Returns what became of each, in the order of
/// enqueueing; `None` when there is no such door.
async fn load(
    ground: &Ground<'_>,
    door: Door,
    pace: Duration,
    batch: u32,
    ticks: u32,
) -> Outcome<Option<Vec<Started>>> {
    let work = Work::fresh(ground, "pickup", 1).await?;
    if door == Door::Sql && !work.has_sql_function().await? {
        return Ok(None);
    }
    work.settle().await?;
    let worker = Process::worker(ground.env, &work.bench.url, &ground.worker)?.ready().await?;
    let streams = Streams::new(ground.env.raw("REDIS_URL"), std::sync::Arc::new(SystemClock))?;
    let mut conn = work.bench.pool.acquire().await?;
    // The first run finds nothing compiled and nothing prepared; it does not count.
    queue::enqueue(&mut conn, work.new_run(0)).await?;
    streams.wake_workers().await;
    finish(&worker, 1).await?;

    let mut enqueued = Vec::with_capacity((batch * ticks) as usize);
    let mut pace = tokio::time::interval(pace);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for tick in 0..ticks {
        pace.tick().await;
        let runs: Vec<_> = (0..batch).map(|n| work.new_run(tick * batch + n)).collect();
        let mut ids: Vec<_> = runs.iter().map(|run| run.run_id).collect();
        let called = SystemClock.now();
        match door {
            Door::Engine => queue::enqueue_many(&mut conn, runs).await?,
            Door::Sql => ids = vec![by_sql(&mut conn, tick).await?],
        }
        let committed = SystemClock.now();
        if door == Door::Engine {
            streams.wake_workers().await;
        }
        enqueued.extend(ids.into_iter().map(|run| Enqueued { run, called, committed }));
    }
    finish(&worker, u64::from(batch * ticks) + 1).await?;
    drop(worker);

    let mut started = HashMap::with_capacity(enqueued.len());
    for some in enqueued.chunks(1_000) {
        let ids: Vec<_> = some.iter().map(|one| one.run).collect();
        let steps = execution::step_records(&mut conn, &ids).await?;
        started.extend(steps.into_iter().map(|(run, step)| (run, step.started_at)));
    }
    let of = |one: Enqueued| Some((one, *started.get(&one.run)?));
    let all: Vec<_> = enqueued.iter().copied().filter_map(of).collect();
    if all.len() == enqueued.len() {
        return Ok(Some(all));
    }
    Err(format!("{} of {} runs have a step on record", all.len(), enqueued.len()).into())
}

async fn by_sql(conn: &mut PgConnection, seq: u32) -> Outcome<RunId> {
    let id = sqlx::query_scalar("select orchestrator.enqueue($1, $2)")
        .bind(NAME)
        .bind(Work::params(seq))
        .fetch_one(conn)
        .await?;
    Ok(RunId(id))
}

async fn finish(worker: &Process, wanted: u64) -> Outcome<()> {
    let deadline = Instant::now() + END_MAX;
    while worker.finished().await < wanted {
        if Instant::now() > deadline {
            return Err(format!("the worker has not finished {wanted} runs").into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Milliseconds from the commit and from the call to the start, each sorted.
fn waits(all: &[Started]) -> (Vec<f64>, Vec<f64>) {
    let sorted = |since: fn(&Enqueued) -> DateTime<Utc>| {
        let mut waits: Vec<f64> = all
            .iter()
            .map(|(one, started)| (*started - since(one)).as_seconds_f64() * 1000.0)
            .collect();
        waits.sort_by(f64::total_cmp);
        waits
    };
    (sorted(|one| one.committed), sorted(|one| one.called))
}
