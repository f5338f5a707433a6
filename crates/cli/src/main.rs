//! The user's command line. Everything is in the library beside it.

use std::process::ExitCode;

fn main() -> ExitCode {
    orchestrator_cli::run()
}
