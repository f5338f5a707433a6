//! The private Redis.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use tokio::process::Command;

use super::process::{self, NotUp, Server};
use super::{Options, Place, binaries};
use crate::failure::Failure;

/// How long a start may take: the log of commands is read first.
const START_MAX: Duration = Duration::from_secs(30);

/// In the servers' folder: the port, for the next start and for finding a leftover.
const PORT_FILE: &str = "redis.port";

/// In the data.
const PID_FILE: &str = "redis.pid";

/// Starts it; returns its URL. Its settings go into a file, because arguments can be seen by all.
pub(super) async fn start(
    place: &Place,
    options: &Options,
    search_path: &str,
) -> Result<(Server, String), Failure> {
    let program = binaries::redis(search_path)?;
    let data = place.folder("redis")?;
    let pid_file = data.join(PID_FILE);
    let port_file = place.servers_dir.join(PORT_FILE);
    let config = data.join("redis.conf");
    for attempt in 1..=process::PORT_TRIES {
        let port = process::free_port(&port_file, attempt == 1)?;
        place.write(&config, &settings(place, &data, &pid_file, port, options))?;
        place.write(&port_file, &port.to_string())?;
        let mut command = Command::new(&program);
        command.arg(&config);
        let log = place.servers_dir.join("redis.log");
        let mut server = Server::start("Redis", command, place, log, Signal::TERM)?;
        // The user is named because redis-cli takes an empty name for a name.
        let url = format!("redis://default:{}@127.0.0.1:{port}/0", place.password);
        match server.wait_until(START_MAX, || answers(&url)).await {
            Ok(()) => return Ok((server, url)),
            Err(NotUp::PortTaken) => {}
            Err(NotUp::Failed(failure)) => {
                server.stop().await;
                return Err(failure);
            }
        }
    }
    Err(Failure::failed("Redis found no free port on 127.0.0.1"))
}

/// Stops the one that a killed predecessor left.
pub(super) async fn end_leftover(place: &Place) -> Result<(), Failure> {
    let port = std::fs::read_to_string(place.servers_dir.join(PORT_FILE)).unwrap_or_default();
    // Redis rewrites its command line to `redis-server 127.0.0.1:<port>`; Valkey does alike.
    let sign = format!("-server 127.0.0.1:{}", port.trim());
    let pid_file = place.servers_dir.join("redis").join(PID_FILE);
    process::end_leftover("Redis", &pid_file, &sign, Signal::TERM).await
}

fn settings(place: &Place, data: &Path, pid_file: &Path, port: u16, options: &Options) -> String {
    let append_only = if options.throwaway { "no" } else { "yes" };
    format!(
        "bind 127.0.0.1\nport {port}\nprotected-mode yes\nrequirepass {}\ndatabases {}\n\
         dir {}\npidfile {}\ndaemonize no\nsave \"\"\nappendonly {append_only}\n\
         maxmemory-policy noeviction\n",
        place.password,
        options.redis_databases,
        quoted(data),
        quoted(pid_file),
    )
}

/// A path as `redis.conf` wants it.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display().to_string().replace('\\', "\\\\").replace('"', "\\\""))
}

/// Whether it lets us in.
pub(super) async fn answers(url: &str) -> bool {
    let asked = async {
        let client = redis::Client::open(url)?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        redis::cmd("PING").query_async::<String>(&mut connection).await
    };
    asked.await.is_ok_and(|answer| answer == "PONG")
}
