//! Leases due work, runs pipelines, records results.

use std::process::ExitCode;

use orchestrator_boot::Service;

fn main() -> ExitCode {
    orchestrator_boot::run(Service::Worker, orchestrator_worker::serve)
}
