//! Fires due schedules, consumes events, wakes waiting runs, keeps house.

use std::process::ExitCode;

use orchestrator_boot::Service;

fn main() -> ExitCode {
    orchestrator_boot::run(Service::Scheduler, orchestrator_scheduler::serve)
}
