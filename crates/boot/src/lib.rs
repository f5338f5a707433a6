//! What every service does alike: settings → logs → pool → signals → health and metrics port →
//! body → calm end.
//!
//! A service is a `pub async fn serve(ctx: Context, stop: CancellationToken) -> Result<(), BoxError>`
//! and a `main` of one line, `orchestrator_boot::run(Service::Worker, orchestrator_worker::serve)`.
//! All that belongs to a process (arguments, signals, exit codes, the port) is here and not in
//! `serve`, so that `orchestrator dev` and tests can run several services in one process: they make
//! a [`Context`] and call each `serve`.

mod args;
mod context;
mod database;
mod health;
mod healthcheck;
mod heartbeat;
mod kept;
mod outage;
mod patience;
mod pooler;
mod port;
mod signals;
mod start;
pub mod traces;

pub use context::Context;
pub use database::{bring_up_to_date, connect, pool};
pub use health::{CheckOutcome, HealthBoard, HealthReport, HealthStatus};
pub use heartbeat::beat;
pub use kept::KeptConnection;
pub use orchestrator_engine::config::Service;
pub use outage::Outage;
pub use patience::{ANSWER_MAX, Droppable, in_time, within};
pub use signals::stop_on_signal;
pub use start::{STOP_MAX, install_crypto, run};
pub use traces::Traces;

/// What ends a service early. It is logged once, by whoever called `serve`.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;
