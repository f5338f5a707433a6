//! Logs. One subscriber for the process, set up once by whoever owns `main`.
//!
//! Lines go to standard error: standard output belongs to what a command answers.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use crate::config::{Log, LogFormat, LogLevel};

/// What our dependencies may say at each level: at DEBUG theirs would drown ours.
fn directives(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Debug => {
            "debug,hyper=info,hyper_util=info,h2=info,rustls=info,reqwest=info,sqlx=info,redis=info,tower_http=info,rmcp=info"
        }
        LogLevel::Info => "info,sqlx=warn,rmcp=warn",
        LogLevel::Warning => "warn",
        LogLevel::Error => "error",
    }
}

/// Makes this process log as `log` says.
///
/// # Errors
///
/// When a subscriber is set already; logging then goes on as it was.
pub fn init(log: Log) -> Result<(), TryInitError> {
    let registry = tracing_subscriber::registry().with(EnvFilter::new(directives(log.level)));
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match log.format {
        LogFormat::Json => {
            registry.with(layer.json().flatten_event(true).with_current_span(true)).try_init()
        }
        LogFormat::Structured => {
            let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
            registry.with(layer.with_ansi(ansi)).try_init()
        }
    }
}
