//! What processes with nothing to do cost.

use std::time::{Duration, Instant};

use super::Ground;
use super::work::Work;
use crate::Outcome;
use crate::processes::Process;
use crate::statements::Door;
use crate::table::Rounds;

/// After the start, before anything is counted.
const SETTLE: Duration = Duration::from_secs(10);

/// One process of each kind, each behind a door of its own that counts its statements.
pub async fn measure(ground: &Ground<'_>, figures: &mut Rounds) -> Outcome<()> {
    let work = Work::fresh(ground, "idle", 1).await?;
    let doors = [
        Door::open(&work.bench.url).await?,
        Door::open(&work.bench.url).await?,
        Door::open(&work.bench.url).await?,
    ];
    let processes = [
        ("worker", Process::worker(ground.env, &doors[0].url, &ground.worker)?.ready().await?),
        ("api", Process::ready_api(ground.env, &doors[1].url).await?),
        ("scheduler", Process::ready_scheduler(ground.env, &doors[2].url).await?),
    ];
    tokio::time::sleep(SETTLE).await;
    let mut before = Vec::new();
    for ((_, process), door) in processes.iter().zip(&doors) {
        before.push((door.statements(), process.cpu_seconds()?));
    }
    let began = Instant::now();
    tokio::time::sleep(Duration::from_secs(2 * ground.scale.window_seconds)).await;
    let seconds = began.elapsed().as_secs_f64();
    for (((name, process), door), (statements, cpu)) in processes.iter().zip(&doors).zip(before) {
        #[expect(clippy::cast_precision_loss, reason = "a few statements")]
        let statements = (door.statements() - statements) as f64;
        let cpu = process.cpu_seconds()? - cpu;
        figures.add(&format!("idle {name}: statements"), statements / seconds, "1/s", "< 1");
        figures.add(&format!("idle {name}: share of a core"), 100.0 * cpu / seconds, "%", "< 1");
        let target = if *name == "worker" { "<= 20" } else { "" };
        figures.add(&format!("idle {name}: memory"), process.memory_mib()?, "MiB", target);
    }
    Ok(())
}
