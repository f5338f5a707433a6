//! `migrate`: brings the schema up to date. Services do so at their start; this is for those who
//! want it done before.

use std::process::ExitCode;

use orchestrator_boot::Service;
use orchestrator_engine::config::{Database, Env, Problems};

use crate::failure::Failure;

/// Brings the schema of `DATABASE_URL` up to date.
pub async fn run(env: &Env) -> Result<ExitCode, Failure> {
    let mut problems = Problems::default();
    let database = Database::read(env, &mut problems);
    if !problems.is_empty() {
        return Err(Failure::Usage(problems.to_string()));
    }
    let pool = orchestrator_boot::connect(&database, Service::Cli).await?;
    let migrated = orchestrator_boot::bring_up_to_date(&database, Service::Cli, &pool).await;
    pool.close().await;
    migrated?;
    eprintln!("orchestrator: the schema is up to date");
    Ok(ExitCode::SUCCESS)
}
