//! The private Postgres.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use sqlx::migrate::MigrateDatabase as _;
use sqlx::{Connection as _, PgConnection, Postgres};
use tokio::process::Command;

use super::binaries::{self, PostgresPrograms};
use super::process::{self, NotUp, Server};
use super::{Options, Place};
use crate::failure::Failure;

/// The user that owns everything, and the database.
const NAME: &str = "orchestrator";

/// In the servers' folder: its data.
const DATA: &str = "postgres";

/// How long a start may take: after a crash the log is replayed first.
const START_MAX: Duration = Duration::from_mins(1);

/// The longest path of a unix socket, less `/.s.PGSQL.65535` (`sun_path` holds 104 bytes on macOS).
const SOCKET_FOLDER_MAX: usize = 104 - 17;

/// Small, for one person's machine. JIT compiles for longer than our queries take.
const TUNED: &[&str] = &[
    "shared_buffers=128MB",
    "jit=off",
    "password_encryption=scram-sha-256",
    "log_min_messages=warning",
    "log_line_prefix=%m [%p] ",
];

/// For data that nobody will miss: no waiting for disks, and room for many tests at once.
const THROWAWAY: &[&str] = &[
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "max_connections=400",
];

/// Starts it, making its data the first time; returns the URL of its database.
pub(super) async fn start(
    place: &Place,
    options: &Options,
    search_path: &str,
) -> Result<(Server, String), Failure> {
    let data = place.servers_dir.join(DATA);
    let sockets = place.folder("run")?;
    let version = std::fs::read_to_string(data.join("PG_VERSION")).ok();
    let programs =
        binaries::postgres(search_path, version.and_then(|text| text.trim().parse().ok()))?;
    if !data.exists() {
        init(place, &programs, &data, options).await?;
    }
    let port_file = place.servers_dir.join("postgres.port");
    for attempt in 1..=process::PORT_TRIES {
        let port = process::free_port(&port_file, attempt == 1)?;
        let command = command(&programs, &data, &sockets, port, options);
        let log = place.servers_dir.join("postgres.log");
        // SIGINT is the fast shutdown: connections are closed, everything is written.
        let mut server = Server::start("PostgreSQL", command, place, log, Signal::INT)?;
        let url = url(place, port, "postgres");
        match server.wait_until(START_MAX, || answers(&url)).await {
            Ok(()) => {
                place.write(&port_file, &port.to_string())?;
                return Ok((server, self::url(place, port, NAME)));
            }
            Err(NotUp::PortTaken) => {}
            Err(NotUp::Failed(failure)) => {
                server.stop().await;
                return Err(failure);
            }
        }
    }
    Err(Failure::failed("PostgreSQL found no free port on 127.0.0.1"))
}

/// Stops the one that a killed predecessor left.
pub(super) async fn end_leftover(place: &Place) -> Result<(), Failure> {
    let data = place.servers_dir.join(DATA);
    let sign = data.display().to_string(); // stands on its command line, behind -D
    process::end_leftover("PostgreSQL", &data.join("postmaster.pid"), &sign, Signal::INT).await
}

fn url(place: &Place, port: u16, database: &str) -> String {
    format!("postgres://{NAME}:{}@127.0.0.1:{port}/{database}", place.password)
}

fn command(
    programs: &PostgresPrograms,
    data: &Path,
    sockets: &Path,
    port: u16,
    options: &Options,
) -> Command {
    let mut command = Command::new(programs.folder.join("postgres"));
    command.arg("-D").arg(data).args(["-p", &port.to_string()]);
    let fits = sockets.as_os_str().len() <= SOCKET_FOLDER_MAX;
    command.arg("-c").arg(format!(
        "unix_socket_directories={}",
        if fits { sockets.display().to_string() } else { String::new() }
    ));
    command.args(["-c", "listen_addresses=127.0.0.1"]);
    let extra = if options.throwaway { THROWAWAY } else { &[] };
    for setting in TUNED.iter().chain(extra) {
        command.args(["-c", setting]);
    }
    // Of two words about one setting the later counts.
    for setting in &options.postgres_settings {
        command.args(["-c", setting]);
    }
    command
}

/// Makes the data, in a folder that becomes `data` when all has gone well: one half made by an
/// earlier try is never taken for the whole.
async fn init(
    place: &Place,
    programs: &PostgresPrograms,
    data: &Path,
    options: &Options,
) -> Result<(), Failure> {
    if !options.throwaway {
        eprintln!("orchestrator: making a private PostgreSQL in {}", data.display());
    }
    let draft = data.with_extension("new");
    match std::fs::remove_dir_all(&draft) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Failure::while_doing(format!("remove {}", draft.display()))(error));
        }
        _ => {}
    }
    let password_file: PathBuf = place.servers_dir.join("initdb.password");
    place.write(&password_file, &place.password)?;
    let mut command = Command::new(programs.folder.join("initdb"));
    command
        .arg("--pgdata")
        .arg(&draft)
        .arg("--pwfile")
        .arg(&password_file)
        .args(["--username", NAME, "--auth", "scram-sha-256", "--encoding", "UTF8", "--no-locale"])
        .process_group(0)
        .kill_on_drop(true);
    if options.throwaway {
        command.arg("--no-sync");
    }
    process::prepare(&mut command, place);
    let done = command.output().await.map_err(Failure::while_doing("run initdb"));
    drop(std::fs::remove_file(&password_file));
    let done = done?;
    if !done.status.success() {
        return Err(Failure::failed(format!(
            "initdb failed ({}):\n{}",
            done.status,
            String::from_utf8_lossy(&done.stderr).trim()
        )));
    }
    std::fs::rename(&draft, data)
        .map_err(Failure::while_doing(format!("move the new data to {}", data.display())))
}

/// Whether it lets us in.
pub(super) async fn answers(url: &str) -> bool {
    match PgConnection::connect(url).await {
        Ok(connection) => connection.close().await.is_ok(),
        Err(_) => false,
    }
}

/// Makes the database of `url` unless it is there.
pub(super) async fn ensure_database(url: &str) -> Result<(), Failure> {
    let made = async {
        if !Postgres::database_exists(url).await? {
            Postgres::create_database(url).await?;
        }
        Ok::<_, sqlx::Error>(())
    };
    made.await
        .map_err(|error| Failure::failed(format!("the database {NAME} could not be made: {error}")))
}
