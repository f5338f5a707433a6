//! Measures the services: real processes on real servers, no assertions.
//!
//! `make bench-scheduler` runs this beside private servers with fsync on. What is measured is
//! printed as a table and written as JSON to `target/bench/`.

mod processes;
mod scheduler;
mod table;

use clap::Parser as _;
use orchestrator_engine::config::Env;

/// What is measured.
#[derive(Debug, clap::Parser)]
enum Cli {
    /// Schedules: lateness, a burst, a million of them.
    Scheduler(scheduler::Args),
}

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let env = Env::from_process();
    match Cli::parse() {
        Cli::Scheduler(args) => scheduler::run(args, &env).await,
    }
}
