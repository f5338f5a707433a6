//! `servers … -- CMD`: runs a command beside private servers. Tests and `make check` use it.

use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};

use orchestrator_engine::config::Env;
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use crate::client::DATA_DIR;
use crate::failure::Failure;
use crate::servers::{Options, Place, Servers};

/// How places that are thrown away are called, so that one left by a killed process can be found.
const THROWAWAY_PREFIX: &str = "orchestrator-throwaway-";

/// Each test takes a database of its own.
const REDIS_DATABASES: u32 = 4096;

/// What to run, and where the servers keep their data.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the servers keep their data. Default: .orchestrator
    #[arg(long, value_name = "DIR", conflicts_with = "throwaway")]
    data_dir: Option<PathBuf>,
    /// Keep nothing: the servers are faster and gone at the end.
    #[arg(long)]
    throwaway: bool,
    /// How many numbered databases Redis has.
    #[arg(long, default_value_t = REDIS_DATABASES, value_parser = clap::value_parser!(u32).range(1..=16384))]
    redis_databases: u32,
    /// A setting of Postgres, as in `shared_buffers=1GB`; may be given again and again
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    postgres_setting: Vec<String>,
    /// The command, which finds `DATABASE_URL` and `REDIS_URL` in its environment.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

fn setting(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok(text.to_owned()),
        _ => Err("must be NAME=VALUE".to_owned()),
    }
}

/// Runs the command; its exit code is ours. The servers are stopped however it ends.
pub async fn run(args: Args, env: &Env) -> Result<ExitCode, Failure> {
    // From here on, for a Ctrl-C must not end us before the servers: the command gets it too.
    let mut interrupt =
        signal(SignalKind::interrupt()).map_err(Failure::while_doing("listen for SIGINT"))?;
    let mut terminate =
        signal(SignalKind::terminate()).map_err(Failure::while_doing("listen for SIGTERM"))?;
    let data_dir = if args.throwaway {
        sweep().await;
        new_throwaway()?
    } else {
        args.data_dir.unwrap_or_else(|| DATA_DIR.into())
    };
    let place = Place::take(&data_dir)?;
    let options = Options {
        postgres: true,
        redis: true,
        throwaway: args.throwaway,
        redis_databases: args.redis_databases,
        postgres_settings: args.postgres_setting,
    };
    let started = tokio::select! {
        started = Servers::start(&place, options, env.raw("PATH").unwrap_or_default()) => started,
        _ = interrupt.recv() => Err(Failure::failed("interrupted")),
        _ = terminate.recv() => Err(Failure::failed("terminated")),
    };
    let ended = match started {
        Ok(servers) => {
            let ended = command(&args.command, &servers, &mut terminate).await;
            servers.stop().await;
            ended
        }
        Err(failure) => {
            Servers::end_leftovers(&place).await?;
            Err(failure)
        }
    };
    if args.throwaway {
        place.remove();
    }
    ended
}

async fn command(
    words: &[String],
    servers: &Servers,
    terminate: &mut tokio::signal::unix::Signal,
) -> Result<ExitCode, Failure> {
    let Some((program, arguments)) = words.split_first() else {
        return Err(Failure::Usage("there is no command to run".to_owned()));
    };
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .envs(servers.database_url.as_ref().map(|url| ("DATABASE_URL", url)))
        .envs(servers.redis_url.as_ref().map(|url| ("REDIS_URL", url)))
        .spawn()
        .map_err(Failure::while_doing(format!("run {program}")))?;
    loop {
        tokio::select! {
            status = child.wait() => {
                let status = status.map_err(Failure::while_doing(format!("wait for {program}")))?;
                return Ok(ExitCode::from(code_of(status)));
            }
            _ = terminate.recv() => {
                let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
                if let Some(pid) = pid {
                    let _ = kill_process(pid, Signal::TERM); // it may have ended just now
                }
            }
        }
    }
}

/// As shells have it: the command's code, or 128 and the signal that ended it.
fn code_of(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt as _;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

fn new_throwaway() -> Result<PathBuf, Failure> {
    tempfile::Builder::new()
        .prefix(THROWAWAY_PREFIX)
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o711))
        .tempdir()
        .map(tempfile::TempDir::keep)
        .map_err(Failure::while_doing("make a temporary folder"))
}

/// Removes places of processes that were killed, and ends their servers.
async fn sweep() {
    let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.filter_map(Result::ok) {
        let ours = entry.file_name().to_string_lossy().starts_with(THROWAWAY_PREFIX)
            && entry.metadata().is_ok_and(|meta| {
                use std::os::unix::fs::MetadataExt as _;
                meta.is_dir() && meta.uid() == rustix::process::geteuid().as_raw()
            });
        // Not locked: nobody uses it. One that is just being made has no lock file yet.
        if ours
            && entry.path().join("lock").exists()
            && let Ok(place) = Place::take(&entry.path())
            && Servers::end_leftovers(&place).await.is_ok()
        {
            place.remove();
        }
    }
}
