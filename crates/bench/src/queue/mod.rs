//! The queue, beside what bare Postgres does on the same server in the same minutes.
//!
//! Figures are ratios to a ceiling that is measured before and after ours ([`ceiling`]): runs a second
//! alone move with the machine's mood. What counts is the median of several rounds. One file measures
//! one thing; a part is a row or a few of the table.

mod backlog;
pub mod ceiling;
pub mod drain;
mod enqueue;
mod history;
mod idle;
mod pickup;
mod snapshot;
pub mod work;

use std::time::Duration;

use orchestrator_engine::config::Env;

use crate::Outcome;
use crate::database::Bench;
use crate::machine::{self, Servers};
use crate::table::Rounds;

/// How much is measured.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Of how many rounds the median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// Only these parts.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// One round of little: does everything work?
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    worker: WorkerArgs,
    /// Runs drained in a round. Default: 100,000; quick: 30,000.
    #[arg(long)]
    runs: Option<u32>,
    /// Runs waiting in the part backlog. Default: 1,000,000; quick: 200,000.
    #[arg(long)]
    backlog: Option<u32>,
    /// Finished runs in the part history. Default: 5,000,000 (3 GB); quick: 500,000.
    #[arg(long)]
    history: Option<u32>,
    /// How long the part snapshot holds its snapshot. Default: 600; quick: 60.
    #[arg(long)]
    snapshot_seconds: Option<u64>,
}

/// How workers are set up.
#[derive(Debug, clap::Args)]
pub struct WorkerArgs {
    /// `WORKER_CONCURRENCY` of each worker.
    #[arg(long, default_value_t = 50)]
    concurrency: u16,
    /// A further setting of each worker; may be given again and again.
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    worker_setting: Vec<(String, String)>,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// No-op runs, with one worker and with two, and runs of five steps.
    Drain,
    /// One by one, over HTTP, and in batches.
    Enqueue,
    /// From commit to start: idle, and under half the load there could be.
    Pickup,
    /// A million runs waiting.
    Backlog,
    /// A transaction that is left open.
    Snapshot,
    /// Millions of finished runs.
    History,
    /// Processes with nothing to do.
    Idle,
}

/// Where and how everything is measured.
pub struct Ground<'a> {
    /// The servers' addresses.
    pub env: &'a Env,
    /// The servers' processes.
    pub servers: Servers,
    /// Settings of each worker.
    pub worker: Vec<(String, String)>,
    /// How much.
    pub scale: Scale,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Runs drained.
    pub runs: u32,
    /// Runs enqueued one by one; in batches, ten times as many.
    pub singles: u32,
    /// Runs whose pickup is measured one by one.
    pub pickups: u32,
    /// Runs waiting.
    pub backlog: u32,
    /// Runs finished.
    pub history: u32,
    /// How long the snapshot is held, in seconds.
    pub snapshot_seconds: u64,
    /// How long a quiet machine is waited for before a measurement, in seconds.
    pub quiet_seconds: u64,
    /// How long a window of a steady load, or of idleness, is, in seconds.
    pub window_seconds: u64,
}

impl<'a> Ground<'a> {
    /// Finds the servers of `env` and looks whether they are set up for this.
    ///
    /// # Errors
    ///
    /// When they are not, or are not here.
    pub async fn find(env: &'a Env, worker: WorkerArgs, scale: Scale) -> Outcome<Self> {
        let bench = Bench::empty(env, "ground").await?;
        let stamps: String =
            sqlx::query_scalar("show track_commit_timestamp").fetch_one(&bench.pool).await?;
        if stamps != "on" {
            return Err(
                "Postgres must keep the times of commits (track_commit_timestamp=on): run \
                        this as `make bench-queue` does"
                    .into(),
            );
        }
        let servers = Servers::find(&bench.pool).await?;
        let mut settings = worker.worker_setting;
        settings.push(("WORKER_CONCURRENCY".to_owned(), worker.concurrency.to_string()));
        Ok(Self { env, servers, worker: settings, scale })
    }

    /// Waits for a quiet machine.
    pub async fn quiet(&self) {
        machine::quiet(Duration::from_secs(self.scale.quiet_seconds)).await;
    }
}

/// Measures everything that was asked for.
pub async fn run(args: Args, env: &Env) -> Outcome<()> {
    let quick = args.quick;
    let pick = |little, much| if quick { little } else { much };
    let scale = Scale {
        runs: args.runs.unwrap_or(pick(30_000, 100_000)),
        singles: pick(8_000, 20_000),
        pickups: pick(100, 500),
        backlog: args.backlog.unwrap_or(pick(200_000, 1_000_000)),
        history: args.history.unwrap_or(pick(500_000, 5_000_000)),
        snapshot_seconds: args.snapshot_seconds.unwrap_or(if quick { 60 } else { 600 }),
        quiet_seconds: if quick { 5 } else { 25 },
        window_seconds: if quick { 15 } else { 30 },
    };
    let ground = Ground::find(env, args.worker, scale).await?;
    let rounds = if quick { 1 } else { args.rounds };
    let asked = |part| args.only.is_empty() || args.only.contains(&part);
    let mut figures = Rounds::default();
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        if asked(Part::Drain) {
            drain::measure(&ground, &mut figures).await?;
        }
        if asked(Part::Enqueue) {
            enqueue::measure(&ground, &mut figures).await?;
        }
        if asked(Part::Pickup) {
            pickup::measure(&ground, &mut figures).await?;
        }
        if asked(Part::Backlog) {
            backlog::measure(&ground, &mut figures).await?;
        }
    }
    // What takes long is measured once; where there are rounds, within the part.
    if asked(Part::Snapshot) {
        snapshot::measure(&ground, &mut figures).await?;
    }
    if asked(Part::History) {
        history::measure(&ground, rounds, &mut figures).await?;
    }
    if asked(Part::Idle) {
        idle::measure(&ground, &mut figures).await?;
    }
    figures.into_table().write("queue")
}
