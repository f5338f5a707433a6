//! From `main` to the exit code.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use orchestrator_engine::clock::SystemClock;
use orchestrator_engine::config::{Env, Service, Settings};
use orchestrator_engine::telemetry;
use tokio_util::sync::CancellationToken;

use crate::args::{self, Verb};
use crate::{BoxError, Context, database, healthcheck, port, signals};

/// How long a service may take to end after it was told to. Compose and Kubernetes are told to
/// wait a little longer.
pub const STOP_MAX: Duration = Duration::from_secs(40);

/// Wrong settings or arguments: trying again would fail the same way.
const EXIT_USAGE: u8 = 2;

/// Runs a service from its arguments and environment to its exit code: 0 it ended as asked,
/// 1 it failed, 2 its settings or arguments are wrong.
///
/// `body` is handed a [`Context`] with a database that answers and an up-to-date schema, and a
/// token; once that is canceled it has [`STOP_MAX`] to return.
pub fn run<F>(service: Service, body: F) -> ExitCode
where
    F: AsyncFnOnce(Context, CancellationToken) -> Result<(), BoxError>,
{
    let args: Vec<_> = std::env::args().skip(1).collect();
    match args::parse(&args) {
        Ok(Verb::Serve) => serve(service, body),
        Ok(Verb::Healthcheck) => check(service),
        Ok(Verb::Help) => {
            print!("{}", args::help(service));
            ExitCode::SUCCESS
        }
        Ok(Verb::Version) => {
            println!("{} {}", service.binary(), orchestrator_engine::VERSION);
            ExitCode::SUCCESS
        }
        Err(sentence) => {
            eprintln!("{}: {sentence}", service.binary());
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn settings(service: Service) -> Result<Settings, ExitCode> {
    Settings::read(&Env::from_process()).map_err(|problems| {
        let lines = problems.to_string().replace('\n', "\n  ");
        eprintln!("{}: settings are wrong:\n  {lines}", service.binary());
        ExitCode::from(EXIT_USAGE)
    })
}

/// Where a service answers for its health.
fn health_address(service: Service, settings: &Settings) -> SocketAddr {
    match service {
        Service::Api | Service::Cli => (settings.api.host, settings.api.port).into(),
        Service::Scheduler => {
            (settings.scheduler.metrics_host, settings.scheduler.metrics_port).into()
        }
        Service::Worker => (settings.worker.metrics_host, settings.worker.metrics_port).into(),
    }
}

fn check(service: Service) -> ExitCode {
    let settings = match settings(service) {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    match healthcheck::ask(health_address(service, &settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("{}: {sentence}", service.binary());
            ExitCode::FAILURE
        }
    }
}

fn serve<F>(service: Service, body: F) -> ExitCode
where
    F: AsyncFnOnce(Context, CancellationToken) -> Result<(), BoxError>,
{
    let settings = match settings(service) {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let logging = telemetry::init(settings.log);
    debug_assert!(logging.is_ok(), "run is called once, first thing in main");
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    install_crypto();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads(service, &settings))
        .thread_name(service.binary())
        .enable_all()
        .build();
    let ended = match runtime {
        Ok(runtime) => {
            let ended = runtime.block_on(live(service, settings, body));
            // What is left are blocking calls that nobody waits for any more.
            runtime.shutdown_timeout(Duration::from_secs(1));
            ended
        }
        Err(error) => Err(error.into()),
    };
    match ended {
        Ok(()) => {
            tracing::info!("{} has ended", service.binary());
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!(
                error = &*error as &dyn std::error::Error,
                "{} has failed",
                service.binary()
            );
            ExitCode::FAILURE
        }
    }
}

/// At least two, so that one busy handler never holds up the health port.
fn threads(service: Service, settings: &Settings) -> usize {
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    match (service, settings.api.workers) {
        (Service::Api, workers) if workers > 0 => usize::from(workers).max(2),
        _ => cores.max(2),
    }
}

/// Makes TLS work: the one place that chooses who does the cryptography. May be called again.
pub fn install_crypto() {
    // An error only says that a provider is installed already.
    drop(rustls::crypto::ring::default_provider().install_default());
}

async fn live<F>(service: Service, settings: Settings, body: F) -> Result<(), BoxError>
where
    F: AsyncFnOnce(Context, CancellationToken) -> Result<(), BoxError>,
{
    let stop = CancellationToken::new();
    signals::stop_on_signal([stop.clone()])?;
    tracing::info!(version = orchestrator_engine::VERSION, "{} starts", service.binary());
    let connected = tokio::select! {
        connected = database::connect(&settings.database, service) => connected?,
        () = stop.cancelled() => return Ok(()),
    };
    database::bring_up_to_date(&settings.database, service, &connected).await?;
    let address = health_address(service, &settings);
    let ctx = Context::new(service, settings, connected, Arc::new(SystemClock));
    ctx.health.expect(service.as_str());
    // The port outlives `stop`: while a worker drains, somebody may want to watch.
    let port_stop = CancellationToken::new();
    let _close_port = port_stop.clone().drop_guard();
    if matches!(service, Service::Scheduler | Service::Worker) {
        port::serve(ctx.clone(), address, port_stop).await?;
    }
    let ended = within(body(ctx.clone(), stop.clone()), &stop, &ctx.health).await;
    ctx.close().await;
    ended
}

/// Waits for `body`, and after `stop` for at most [`STOP_MAX`] longer.
async fn within(
    body: impl Future<Output = Result<(), BoxError>>,
    stop: &CancellationToken,
    health: &crate::HealthBoard,
) -> Result<(), BoxError> {
    let patience = async {
        stop.cancelled().await;
        health.stopping();
        tokio::time::sleep(STOP_MAX).await;
    };
    tokio::select! {
        ended = body => ended,
        () = patience => {
            Err(format!("did not end within {} s of being told to", STOP_MAX.as_secs()).into())
        }
    }
}
