//! A transaction that is left open for minutes: what it sees may not be vacuumed away, so the queue's
//! dead rows pile up under it. The load keeps some runs waiting all the time, so that what is measured
//! is what the worker can do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use orchestrator_engine::store::queue;
use sqlx::{Connection as _, PgConnection};
use tokio::time::Instant;

use super::Ground;
use super::ceiling::INSERTED;
use super::work::Work;
use crate::Outcome;
use crate::processes::Process;
use crate::table::Rounds;

/// So many runs wait at all times, as far as can be known.
const WAITING: u64 = 20_000;
/// How often the worker is asked how far it is.
const LOOK: Duration = Duration::from_millis(100);
/// Before anything is measured.
const WARM_UP: Duration = Duration::from_secs(10);

/// Measures before the snapshot, and in the last window in which it is held.
pub async fn measure(ground: &Ground<'_>, figures: &mut Rounds) -> Outcome<()> {
    let work = Arc::new(Work::fresh(ground, "snapshot", 1).await?);
    work.fill(u32::try_from(WAITING)?).await?;
    work.settle().await?;
    let worker = Process::worker(ground.env, &work.bench.url, &ground.worker)?.ready().await?;
    let steady = Steady::begin(Arc::clone(&work));
    let window = Duration::from_secs(ground.scale.window_seconds);

    steady.rate(&worker, WARM_UP).await?;
    let normal = steady.rate(&worker, window).await?;
    let mut holder = PgConnection::connect(&work.bench.url).await?;
    sqlx::raw_sql("begin isolation level repeatable read; select count(*) from run")
        .execute(&mut holder)
        .await?;
    let held = Duration::from_secs(ground.scale.snapshot_seconds);
    steady.rate(&worker, held.saturating_sub(window)).await?;
    let under = steady.rate(&worker, window).await?;
    sqlx::raw_sql("commit").execute(&mut holder).await?;
    steady.end().await?;

    let what = format!("snapshot held for {} s", held.as_secs());
    figures.add("steady load: rate", normal, "1/s", "");
    figures.add(&format!("{what}: rate"), under, "1/s", "");
    figures.add(&format!("{what}: ratio"), under / normal, "", ">= 0.8");
    let dead = work
        .bench
        .figure("select (pg_total_relation_size('due_work') / 1048576.0)::float8")
        .await?;
    figures.add(&format!("{what}: size of the queue's table"), dead, "MiB", "");
    Ok(())
}

/// Keeps the queue filled.
struct Steady {
    finished: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    feeding: tokio::task::JoinHandle<Outcome<()>>,
}

impl Steady {
    fn begin(work: Arc<Work>) -> Self {
        let finished = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let feeding = tokio::spawn(feed(work, Arc::clone(&finished), Arc::clone(&stop)));
        Self { finished, stop, feeding }
    }

    /// Runs a second that the worker finishes within `window`.
    async fn rate(&self, worker: &Process, window: Duration) -> Outcome<f64> {
        let (before, began) = (worker.finished().await, Instant::now());
        loop {
            if self.feeding.is_finished() {
                return Err("runs could not be enqueued".into());
            }
            let now = worker.finished().await;
            self.finished.store(now, Ordering::Relaxed);
            if began.elapsed() >= window {
                #[expect(clippy::cast_precision_loss, reason = "a count of runs")]
                return Ok((now - before) as f64 / began.elapsed().as_secs_f64());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn end(self) -> Outcome<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.feeding.await?
    }
}

async fn feed(work: Arc<Work>, finished: Arc<AtomicU64>, stop: Arc<AtomicBool>) -> Outcome<()> {
    let mut conn = work.bench.pool.acquire().await?;
    let mut enqueued = WAITING;
    while !stop.load(Ordering::Relaxed) {
        if enqueued > finished.load(Ordering::Relaxed) + WAITING {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        }
        let runs = (0..INSERTED).map(|seq| work.new_run(seq)).collect();
        queue::enqueue_many(&mut conn, runs).await?;
        enqueued += u64::from(INSERTED);
    }
    Ok(())
}
