//! Serves REST, OpenAPI, health and metrics on `API_PORT`.

use std::process::ExitCode;

use orchestrator_boot::Service;

/// A request makes many small allocations, many of them freed by another thread.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    orchestrator_boot::run(Service::Api, orchestrator_api::serve)
}
