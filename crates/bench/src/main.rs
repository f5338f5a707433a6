//! Measures the services: real processes on real servers, no assertions.
//!
//! `make bench-scheduler`, `bench-queue` and `bench-peers` run this beside private servers with fsync
//! on. What is measured is printed as a table and written as JSON to `target/bench/`.

mod database;
mod http;
mod machine;
mod peers;
mod processes;
mod queue;
mod scheduler;
mod statements;
mod table;

use clap::Parser as _;
use orchestrator_engine::config::Env;
use tokio::signal::unix::{SignalKind, signal};

/// What is measured.
#[derive(Debug, clap::Parser)]
enum Cli {
    /// Schedules: lateness, a burst, a million of them.
    Scheduler(scheduler::Args),
    /// The queue, beside what Postgres alone can do.
    Queue(queue::Args),
    /// Two other queues on Postgres, beside the same ceiling and ours.
    Peers(peers::Args),
}

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let env = Env::from_process();
    let cli = Cli::parse();
    let measuring = async {
        match cli {
            Cli::Scheduler(args) => scheduler::run(args, &env).await,
            Cli::Queue(args) => queue::run(args, &env).await,
            Cli::Peers(args) => peers::run(args, &env).await,
        }
    };
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        outcome = measuring => outcome,
        // Processes that are measured end with what holds them, which a signal would leave no time for.
        _ = terminated.recv() => Err("told to end".into()),
    }
}
