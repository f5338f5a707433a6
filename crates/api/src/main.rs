//! Serves REST, OpenAPI, health and metrics on `API_PORT`.

use std::process::ExitCode;

use orchestrator_boot::Service;

fn main() -> ExitCode {
    orchestrator_boot::run(Service::Api, orchestrator_api::serve)
}
