//! The domain of the orchestrator: what a task, a schedule, a pipeline and a run are, and every
//! query that reads or writes them.
//!
//! No transport lives here: no web framework, no HTTP client, no command line. The services are
//! thin over this crate. All SQL is in [`store`], all of
//! Redis in [`streams`]; [`schedule`] and [`pipeline`] are pure.

pub mod agent;
pub mod backfill;
pub mod clock;
pub mod config;
pub mod explain;
pub mod feed;
pub mod id;
pub mod metrics;
pub mod pipeline;
pub mod problem;
pub mod run;
pub mod schedule;
pub mod store;
pub mod streams;
pub mod task;
pub mod telemetry;
pub mod tool;
pub mod trace;

/// The version of this build, as every service reports it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
