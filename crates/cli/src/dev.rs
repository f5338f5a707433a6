//! `dev`: API, scheduler and worker in one process, on private servers that it starts itself.
//!
//! It is what somebody tries first, so every way in which it can fail ends in a sentence that says
//! what to do. Each service is handed the same [`Context`]; only process things (signals, ports,
//! exit codes) are done here in place of `orchestrator_boot::run`.

use std::fmt::Write as _; // writing into a String cannot fail
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use orchestrator_boot::{BoxError, Context, STOP_MAX, Service};
use orchestrator_engine::clock::{Clock as _, SystemClock};
use orchestrator_engine::config::{Env, Settings};
use orchestrator_engine::{store, telemetry};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::client::DATA_DIR;
use crate::failure::Failure;
use crate::secret_file;
use crate::servers::{Options, Place, Servers};

/// How often we look whether all is up, at the start.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How much, and where.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The API's port. Default: `API_PORT`, or 8080.
    #[arg(long)]
    port: Option<u16>,
    /// Where the private servers keep their data, and we the admin key.
    #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
    data_dir: PathBuf,
    /// How many workers. Each has `WORKER_CONCURRENCY` slots.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=32))]
    workers: u16,
}

/// Runs everything until Ctrl-C.
pub async fn run(args: Args, env: Env) -> Result<ExitCode, Failure> {
    let calm = CancellationToken::new();
    let hurry = CancellationToken::new();
    orchestrator_boot::stop_on_signal([calm.clone(), hurry.clone()])
        .map_err(Failure::while_doing("listen for signals"))?;
    let env = for_dev(env, &args);
    // Wrong settings are told before anything is started; the database is not known yet.
    let draft = match env.raw("DATABASE_URL").or(env.raw("DATABASE_URL_FILE")) {
        Some(_) => Settings::read(&env),
        None => Settings::read(&env.clone().with("DATABASE_URL", "postgres://127.0.0.1/none")),
    };
    let draft = draft.map_err(|problems| {
        let lines = problems.to_string().replace('\n', "\n  ");
        Failure::Usage(format!("settings are wrong:\n  {lines}"))
    })?;
    drop(telemetry::init(draft.log)); // set already only when a test runs us twice
    for warning in &draft.warnings {
        tracing::warn!("{warning}");
    }
    ensure_free((draft.api.host, draft.api.port).into())?;
    let place = Place::take(&args.data_dir)?;
    let options = Options {
        postgres: env.raw("DATABASE_URL").or(env.raw("DATABASE_URL_FILE")).is_none(),
        redis: env.raw("REDIS_URL").or(env.raw("REDIS_URL_FILE")).is_none(),
        throwaway: false,
        redis_databases: 16,
        postgres_settings: Vec::new(),
    };
    let search_path = env.raw("PATH").unwrap_or_default().to_owned();
    let mut servers = tokio::select! {
        servers = Servers::start(&place, options.clone(), &search_path) => servers?,
        () = calm.cancelled() => {
            Servers::end_leftovers(&place).await?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    let env = for_servers(env, &servers);
    let ended = tokio::select! {
        ended = beside_servers(&args, &env, &place, &calm) => ended,
        gone = servers.keep_up(&place, &options, &search_path) => Err(gone),
        () = hurry.cancelled() => {
            tracing::warn!("not waiting for runs; their leases run out by themselves");
            Err(Failure::failed("ended before everything was drained"))
        }
    };
    servers.stop().await;
    let others_ended = Servers::end_leftovers(&place).await; // what somebody started in place of ours
    ended.and(others_ended).map(|()| ExitCode::SUCCESS)
}

/// The environment with what differs in `dev`: the port of the command line, loopback alone, and the
/// MCP servers of the data dir where no file of them is named.
fn for_dev(env: Env, args: &Args) -> Env {
    let env = match args.port {
        Some(port) => env.with("API_PORT", port.to_string()),
        None => env,
    };
    let env = match env.raw("API_HOST") {
        Some(_) => env,
        None => env.with("API_HOST", Ipv4Addr::LOCALHOST.to_string()),
    };
    let own_servers = args.data_dir.join("mcp.json");
    match env.raw("MCP_CONFIG") {
        None if own_servers.is_file() => env.with("MCP_CONFIG", own_servers.to_string_lossy()),
        _ => env,
    }
}

/// The environment with the servers that we started.
fn for_servers(env: Env, servers: &Servers) -> Env {
    let env = match &servers.database_url {
        // Nothing stands between us and our own.
        Some(url) => env.with("DATABASE_URL", url).with("DATABASE_DIRECT_URL", url),
        None => env,
    };
    match &servers.redis_url {
        Some(url) => env.with("REDIS_URL", url),
        None => env,
    }
}

/// Says so early, before servers are started, when somebody has our port.
fn ensure_free(address: SocketAddr) -> Result<(), Failure> {
    match std::net::TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            Err(Failure::failed(format!(
                "port {} is taken by another program; take another: orchestrator dev --port {}",
                address.port(),
                address.port().wrapping_add(1).max(1024)
            )))
        }
        Err(error) => Err(Failure::failed(format!(
            "cannot listen on {address}: {error}; take another port: orchestrator dev --port 8081"
        ))),
    }
}

/// What is done while the servers run.
async fn beside_servers(
    args: &Args,
    env: &Env,
    place: &Place,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let settings = Settings::read(env)
        .map_err(|problems| Failure::Usage(format!("settings are wrong:\n{problems}")))?;
    let key = admin_key(&settings, &place.data_dir)?;
    let base = base_url(settings.api.host, settings.api.port);
    write_env_file(&settings, &base, &place.data_dir)?;

    let pool = tokio::select! {
        pool = orchestrator_boot::connect(&settings.database, Service::Cli) => pool?,
        () = stop.cancelled() => return Ok(()),
    };
    orchestrator_boot::bring_up_to_date(&settings.database, Service::Cli, &pool).await?;
    store::agent::ensure_admin(&pool, &key, SystemClock.now())
        .await
        .map_err(Failure::while_doing("make the admin's key"))?;
    let ctx = Context::new(Service::Cli, settings, pool, Arc::new(SystemClock));
    let servers = ctx.settings.tools.mcp_config.as_deref();
    let up = || announce(&base, &place.data_dir, servers);
    let ended = serve_all(&ctx, args.workers, stop, up).await;
    ctx.close().await;
    ended
}

/// Runs the services until `stop`, or until one of them ends; `up` is called once all are up.
async fn serve_all(
    ctx: &Context,
    workers: u16,
    stop: &CancellationToken,
    up: impl FnOnce(),
) -> Result<(), Failure> {
    let stop = stop.child_token();
    let mut services: JoinSet<(&'static str, Result<(), BoxError>)> = JoinSet::new();
    for part in ["api", "scheduler", "worker"] {
        ctx.health.expect(part);
    }
    let (api, token) = (ctx.sibling(), stop.clone());
    services.spawn(async move { ("api", orchestrator_api::serve(api, token).await) });
    let (scheduler, token) = (ctx.sibling(), stop.clone());
    services.spawn(async move {
        ("scheduler", Box::pin(orchestrator_scheduler::serve(scheduler, token)).await)
    });
    for _ in 0..workers {
        let (worker, token) = (ctx.sibling(), stop.clone());
        services.spawn(async move { ("worker", orchestrator_worker::serve(worker, token).await) });
    }

    // `stop` first: services that end because of it have not ended early.
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        Some(first) = services.join_next() => return end(services, &stop, early(first)).await,
        () = until_ready(ctx) => up(),
    }
    let first = tokio::select! {
        biased;
        () = stop.cancelled() => Ok(()),
        Some(first) = services.join_next() => early(first),
    };
    ctx.health.stopping();
    end(services, &stop, first).await
}

/// Stops all services and waits, at most [`STOP_MAX`]; the first failure is the answer.
async fn end(
    mut services: JoinSet<(&'static str, Result<(), BoxError>)>,
    stop: &CancellationToken,
    first: Result<(), Failure>,
) -> Result<(), Failure> {
    stop.cancel();
    let mut ended = first;
    let all = async {
        while let Some(next) = services.join_next().await {
            ended = std::mem::replace(&mut ended, Ok(())).and(told(next));
        }
    };
    if tokio::time::timeout(STOP_MAX, all).await.is_err() {
        return Err(Failure::failed(format!(
            "not everything ended within {} s of being told to",
            STOP_MAX.as_secs()
        )));
    }
    ended
}

/// How a service ended: its name and its answer, or its panic.
type Ended = Result<(&'static str, Result<(), BoxError>), tokio::task::JoinError>;

/// As [`told`], of a service that nobody told to end: it has failed, whatever it says.
fn early(ended: Ended) -> Result<(), Failure> {
    match ended {
        Ok((service, Ok(()))) => Err(Failure::failed(format!("the {service} ended by itself"))),
        other => told(other),
    }
}

fn told(ended: Ended) -> Result<(), Failure> {
    match ended {
        Ok((_, Ok(()))) => Ok(()),
        Ok((service, Err(error))) => {
            Err(Failure::failed(format!("the {service} has failed: {error}")))
        }
        Err(panic) => Err(Failure::failed(format!("a service has crashed: {panic}"))),
    }
}

async fn until_ready(ctx: &Context) {
    while ctx.health.is_ready().await.is_err() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The key of the first admin: `ADMIN_API_KEY`, the one of the last time, or a new one.
fn admin_key(settings: &Settings, data_dir: &Path) -> Result<String, Failure> {
    let path = data_dir.join("admin.key");
    let kept = std::fs::read_to_string(&path).ok().map(|text| text.trim().to_owned());
    let key = match (&settings.api.admin_key, kept) {
        (Some(given), _) => given.expose().to_owned(),
        (None, Some(kept)) if !kept.is_empty() => kept,
        _ => secret_file::random(),
    };
    secret_file::write(&path, &key)?;
    Ok(key)
}

/// `<data dir>/env`, for psql, redis-cli and our own command line.
fn write_env_file(settings: &Settings, base: &str, data_dir: &Path) -> Result<(), Failure> {
    let mut text = format!("DATABASE_URL={}\n", settings.database.url.expose());
    if let Some(url) = &settings.redis.url {
        let _ = writeln!(text, "REDIS_URL={}", url.expose());
    }
    let _ = writeln!(text, "ORCHESTRATOR_URL={base}");
    secret_file::write(&data_dir.join("env"), &text)
}

/// Where somebody on this machine reaches the API.
fn base_url(host: IpAddr, port: u16) -> String {
    let host = match host {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        host => host,
    };
    format!("http://{}", SocketAddr::new(host, port))
}

fn announce(base: &str, data_dir: &Path, mcp_config: Option<&Path>) {
    println!("\nReady.");
    println!("  API          {base}");
    println!("  Docs         {base}/docs");
    println!("  Admin key    {}", data_dir.join("admin.key").display());
    println!("  Databases    {} (for psql and redis-cli)", data_dir.join("env").display());
    if let Some(path) = mcp_config {
        println!("  MCP servers  {}", path.display());
    }
    println!("Ctrl-C stops everything.\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(port: Option<u16>) -> Args {
        Args { port, data_dir: "/nonexistent".into(), workers: 1 }
    }

    #[test]
    fn the_command_line_beats_the_environment_and_dev_stays_on_this_machine() {
        let env = for_dev(Env::from_pairs([("API_PORT", "9000")]), &args(Some(9001)));
        let open = for_dev(Env::from_pairs([("API_HOST", "0.0.0.0")]), &args(None));

        assert_eq!(env.raw("API_PORT"), Some("9001"));
        assert_eq!(env.raw("API_HOST"), Some("127.0.0.1"));
        assert_eq!(open.raw("API_HOST"), Some("0.0.0.0"));
    }

    #[test]
    fn the_mcp_servers_of_the_data_dir_are_taken_unless_others_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let args = Args { port: None, data_dir: folder.path().to_owned(), workers: 1 };
        let taken = |pairs: &[(&str, &str)]| {
            let env = for_dev(Env::from_pairs(pairs.iter().copied()), &args);
            env.raw("MCP_CONFIG").map(str::to_owned)
        };

        assert_eq!(taken(&[]), None);
        let own = folder.path().join("mcp.json");
        std::fs::write(&own, "{}").unwrap();
        assert_eq!(taken(&[]), Some(own.display().to_string()));
        assert_eq!(taken(&[("MCP_CONFIG", "mine.json")]).as_deref(), Some("mine.json"));
    }

    #[test]
    fn a_taken_port_is_told_with_what_to_do() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();

        let failure = ensure_free(taken.local_addr().unwrap()).unwrap_err();

        assert!(failure.to_string().contains("orchestrator dev --port"), "{failure}");
    }
}
