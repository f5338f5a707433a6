//! Leases due work, runs pipelines, records results.

use std::process::ExitCode;

use orchestrator_boot::Service;

/// A run makes hundreds of small allocations, many of them freed by another thread.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    orchestrator_boot::run(Service::Worker, orchestrator_worker::serve)
}
