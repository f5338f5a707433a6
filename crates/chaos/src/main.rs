//! `orchestrator-chaos`: does the faults one after the other, and prints what came of each.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser as _;
use orchestrator_chaos::faults::{FAULTS, Fault};
use orchestrator_chaos::{Outcome, Plan, Verdict, print, trial, write_json, write_table};
use tokio::signal::unix::{SignalKind, signal};

/// Breaks what the services stand on, under load, and looks what became of every run.
#[derive(Debug, clap::Parser)]
struct Cli {
    /// Only this fault; may be given more than once. Default: all.
    #[arg(long, value_parser = fault)]
    fault: Vec<String>,
    /// Runs and events that are sent in during each fault.
    #[arg(long, default_value_t = 10_000)]
    runs: usize,
    /// What chance is drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// As little of everything as the tests do, in place of all.
    #[arg(long, conflicts_with = "runs")]
    short: bool,
    /// A page whose table is to be replaced by the one of this run.
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    /// Where logs, calls and figures go.
    #[arg(long, default_value = "target/chaos", value_name = "DIR")]
    output: PathBuf,
}

fn fault(name: &str) -> Result<String, String> {
    let names: Vec<_> = FAULTS.iter().map(|fault| fault.name).collect();
    match Fault::named(name) {
        Some(fault) => Ok(fault.name.to_owned()),
        None => Err(format!("there are: {}", names.join(", "))),
    }
}

#[tokio::main]
async fn main() -> Outcome<ExitCode> {
    let cli = Cli::parse();
    let mut plan = if cli.short { Plan::short() } else { Plan::full(cli.runs, cli.seed) };
    plan.seed = cli.seed;
    let mut terminated = signal(SignalKind::terminate())?;
    let mut verdicts = Vec::new();
    for fault in FAULTS {
        if !cli.fault.is_empty() && !cli.fault.iter().any(|name| name == fault.name) {
            continue;
        }
        if let Some(reason) = fault.lacks() {
            println!("{:<20} left out: {reason}", fault.name);
            continue;
        }
        let folder = cli.output.join(fault.name);
        // Dropped before its end, a trial ends its servers and processes.
        let verdict = tokio::select! {
            verdict = Box::pin(trial(fault, &plan, &folder)) => verdict?,
            _ = tokio::signal::ctrl_c() => return Err("interrupted".into()),
            _ = terminated.recv() => return Err("terminated".into()),
        };
        print(&verdict);
        verdicts.push(verdict);
    }
    write_json(&verdicts, &cli.output.join("verdicts.json"))?;
    if let Some(page) = &cli.table {
        write_table(&verdicts, &plan, page)?;
    }
    Ok(ended(&verdicts, &cli.output))
}

fn ended(verdicts: &[Verdict], output: &Path) -> ExitCode {
    let bad = verdicts
        .iter()
        .filter(|verdict| !verdict.problems.is_empty() || verdict.too_late.is_some())
        .count();
    if bad == 0 {
        return ExitCode::SUCCESS;
    }
    println!("{bad} faults broke a promise; logs and calls are in {}", output.display());
    ExitCode::FAILURE
}
