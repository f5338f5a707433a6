//! How fast a filled queue is emptied, every run with its record and those of its steps.

use std::time::{Duration, Instant};

use orchestrator_engine::id::RunId;
use orchestrator_engine::store::execution;

use super::Ground;
use super::ceiling::{Ceiling, Reached};
use super::work::Work;
use crate::Outcome;
use crate::machine::Meter;
use crate::processes::Process;
use crate::table::Rounds;

/// How often workers are asked how far they are. Their metrics cost them little, and Postgres nothing.
const LOOK: Duration = Duration::from_millis(100);
/// A worker that finishes nothing for so long has stopped.
const STALLED: Duration = Duration::from_mins(1);
/// Of so many runs it is looked whether their steps are on record.
const SAMPLE: i64 = 100;

/// One round: the ceiling, ours, the ceiling.
pub async fn measure(ground: &Ground<'_>, figures: &mut Rounds) -> Outcome<()> {
    let ceiling = Ceiling::open(ground).await?;
    let before = ceiling.drain().await?;
    let runs = ground.scale.runs;
    let one = fresh(ground, 1, 1, runs).await?;
    let two = fresh(ground, 1, 2, runs).await?;
    let five = fresh(ground, 5, 1, runs / 2).await?;
    let after = ceiling.drain().await?;
    let c = f64::midpoint(before.per_second, after.per_second);
    figures.add("ceiling C", c, "1/s", "");
    figures.add("ceiling C: Postgres CPU", before.postgres_us(), "us", "");
    let all = [
        ("no-op runs, 1 worker", one, ">= 0.60", "<= 55"),
        ("no-op runs, 2 workers", two, "> 0.65", ""),
        ("runs of 5 steps, 1 worker", five, ">= 0.20", ""),
    ];
    for (what, reached, ratio, cpu) in all {
        tell(figures, what, &reached, c, ratio, cpu);
    }
    Ok(())
}

/// Adds the figures of a drain.
pub fn tell(figures: &mut Rounds, what: &str, reached: &Reached, c: f64, ratio: &str, cpu: &str) {
    let each = |seconds: f64| seconds * 1e6 / f64::from(reached.count);
    let spent = &reached.spent;
    figures.add(&format!("{what}: rate"), reached.per_second, "1/s", "");
    figures.add(&format!("{what}: ratio to C"), reached.per_second / c, "", ratio);
    figures.add(
        &format!("{what}: CPU of a run, Postgres and workers"),
        each(spent.postgres + spent.processes),
        "us",
        cpu,
    );
    figures.add(&format!("{what}: CPU of a run, workers"), each(spent.processes), "us", "");
    figures.add(&format!("{what}: CPU of a run, Redis"), each(spent.redis), "us", "");
    figures.add(&format!("{what}: others' share of the machine"), spent.foreign_share, "", "< 0.1");
}

/// Drains `runs` runs of `steps` steps from a fresh database.
///
/// # Errors
///
/// As [`drain`].
pub async fn fresh(ground: &Ground<'_>, steps: u32, processes: u32, runs: u32) -> Outcome<Reached> {
    let work = Work::fresh(ground, "drain", steps).await?;
    drain(ground, &work, processes, runs, runs).await
}

/// Enqueues `runs` runs, starts workers, and waits until `first` of them are finished. The rate is
/// that of the first `first`, from the moment the first was leased to the commit that finished the
/// last of them.
///
/// # Errors
///
/// When workers do not start or stop finishing, or something is not on record.
pub async fn drain(
    ground: &Ground<'_>,
    work: &Work,
    processes: u32,
    runs: u32,
    first: u32,
) -> Outcome<Reached> {
    let since = work.fill(runs).await?;
    work.settle().await?;
    let meter = Meter::begin(ground.servers, &[]);
    let workers: Vec<_> = (0..processes)
        .map(|_| Process::worker(ground.env, &work.bench.url, &ground.worker))
        .collect::<Outcome<_>>()?;
    let done = wait(&workers, u64::from(first)).await?;
    let ids: Vec<_> = workers.iter().map(Process::id).collect();
    let spent = meter.end(&ids);
    drop(workers);
    let count = u32::try_from(done)?;
    if first == runs {
        check(work, since, runs).await?;
    }
    let seconds = seconds(work, since, first).await?;
    let per_second = f64::from(first) / seconds;
    eprintln!("  {processes} worker(s), the first {first} of {runs} runs: {per_second:.0}/s");
    Ok(Reached { per_second, spent, count })
}

/// Waits until so many runs are finished; returns how many are.
async fn wait(workers: &[Process], wanted: u64) -> Outcome<u64> {
    let (mut last, mut changed) = (0, Instant::now());
    loop {
        let mut done = 0;
        for worker in workers {
            done += worker.finished().await;
        }
        if done >= wanted {
            return Ok(done);
        }
        if done != last {
            (last, changed) = (done, Instant::now());
        }
        if changed.elapsed() > STALLED {
            return Err(format!("workers stopped at {done} of {wanted} runs").into());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// From the first lease to the commit of the run that was finished as number `first`.
async fn seconds(work: &Work, since: RunId, first: u32) -> Outcome<f64> {
    Ok(sqlx::query_scalar(
        "with ended as (
             select pg_xact_commit_timestamp(xmin) as at, started_at from run where id >= $1)
         select extract(epoch from
             (select at from ended order by at offset $2 - 1 limit 1)
             - (select min(started_at) from ended))::float8",
    )
    .bind(since.0)
    .bind(i64::from(first))
    .fetch_one(&work.bench.pool)
    .await?)
}

/// Whether every run has succeeded and is out of the queue, and whether steps are on record.
async fn check(work: &Work, since: RunId, runs: u32) -> Outcome<()> {
    let (succeeded, waiting): (i64, i64) = sqlx::query_as(
        "select (select count(*) from run where id >= $1 and status = 'succeeded'),
                (select count(*) from due_work where run_id >= $1)",
    )
    .bind(since.0)
    .fetch_one(&work.bench.pool)
    .await?;
    if (succeeded, waiting) != (i64::from(runs), 0) {
        return Err(format!("of {runs} runs {succeeded} have succeeded, {waiting} wait").into());
    }
    let sample: Vec<uuid::Uuid> =
        sqlx::query_scalar("select id from run where id >= $1 order by id desc limit $2")
            .bind(since.0)
            .bind(SAMPLE)
            .fetch_all(&work.bench.pool)
            .await?;
    let ids: Vec<_> = sample.into_iter().map(RunId).collect();
    let mut conn = work.bench.pool.acquire().await?;
    let steps = execution::step_records(&mut conn, &ids).await?.len();
    let wanted = ids.len() * work.steps as usize;
    if steps != wanted {
        return Err(format!("{} runs have {steps} steps on record, not {wanted}", ids.len()).into());
    }
    Ok(())
}
