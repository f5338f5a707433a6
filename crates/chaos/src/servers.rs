//! The private Postgres and Redis of a trial, each in a place of its own, so that one can be broken
//! without the other.

use std::path::{Path, PathBuf};
use std::time::Duration;

use orchestrator_cli::servers::{Options, Place, Servers};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _};

use crate::Outcome;

/// How long a server that was told to may take to end.
const END_MAX: Duration = Duration::from_secs(20);

/// Ours: a killed server is started again with the same data, on the same port.
struct Server {
    place: Place,
    running: Option<Servers>,
    options: Options,
    search_path: String,
    pid_file: PathBuf,
}

impl Server {
    async fn start(folder: &Path, postgres: bool, search_path: &str) -> Outcome<Self> {
        let place = Place::take(folder).map_err(|failure| failure.to_string())?;
        let options = Options {
            postgres,
            redis: !postgres,
            throwaway: false,
            redis_databases: 1,
            postgres_settings: Vec::new(),
        };
        let pid_file = place.servers_dir.join(if postgres {
            "postgres/postmaster.pid"
        } else {
            "redis/redis.pid"
        });
        let port_file = if postgres { "postgres.port" } else { "redis.port" };
        place
            .write(&place.servers_dir.join(port_file), &crate::world::quiet_port()?.to_string())
            .map_err(|failure| failure.to_string())?;
        let search_path = search_path.to_owned();
        let mut server = Self { place, running: None, options, search_path, pid_file };
        server.start_again().await?;
        Ok(server)
    }

    async fn start_again(&mut self) -> Outcome<()> {
        let started = Servers::start(&self.place, self.options.clone(), &self.search_path).await;
        self.running = Some(started.map_err(|failure| failure.to_string())?);
        Ok(())
    }

    fn pid(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(&self.pid_file).ok()?;
        text.lines().next()?.trim().parse().ok().and_then(Pid::from_raw)
    }

    /// Whether the process is there, and no zombie.
    fn is_alive(&self) -> bool {
        self.pid().is_some_and(|pid| {
            std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
        })
    }

    /// Sends `signal` and waits until it has ended.
    async fn kill(&mut self, signal: Signal) -> Outcome<()> {
        let pid = self.pid().ok_or("a server to be killed does not run")?;
        kill_process(pid, signal)?;
        let ended = async {
            while self.is_alive() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(END_MAX, ended).await.map_err(|_| "a killed server does not end")?;
        self.reap().await;
        Ok(())
    }

    async fn reap(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
    }

    async fn end(mut self) {
        self.reap().await;
        self.place.remove();
    }
}

/// The database server.
pub struct Postgres {
    server: Server,
    url: String,
}

impl Postgres {
    /// Starts it with its data under `folder`, as durable as in production.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub async fn start(folder: &Path, search_path: &str) -> Outcome<Self> {
        let server = Server::start(folder, true, search_path).await?;
        let url = server.running.as_ref().and_then(|servers| servers.database_url.clone());
        Ok(Self { server, url: url.ok_or("Postgres has no address")? })
    }

    /// Where it is, with user, password and database.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A connection of our own.
    ///
    /// # Errors
    ///
    /// When it refuses.
    pub async fn connect(&self) -> Outcome<PgConnection> {
        let options: PgConnectOptions = self.url.parse()?;
        Ok(options.application_name("chaos").connect().await?)
    }

    /// `ALTER SYSTEM`, in force at once.
    ///
    /// # Errors
    ///
    /// When it refuses.
    pub async fn set(&self, name: &str, value: &str) -> Outcome<()> {
        let mut connection = self.connect().await?;
        let statement = format!("alter system set {name} = '{value}'");
        connection.execute(AssertSqlSafe(statement)).await?;
        connection.execute("select pg_reload_conf()").await?;
        Ok(())
    }

    /// `pg_ctl stop -m immediate`: no goodbye, no checkpoint; the next start replays the log.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub async fn stop_immediately(&mut self) -> Outcome<()> {
        self.server.kill(Signal::QUIT).await
    }

    /// Starts it again with its data, at the same address.
    ///
    /// # Errors
    ///
    /// When it cannot be started, or its port is taken.
    pub async fn start_again(&mut self) -> Outcome<()> {
        self.server.reap().await;
        self.server.start_again().await?;
        let url = self.server.running.as_ref().and_then(|servers| servers.database_url.as_ref());
        if url != Some(&self.url) {
            return Err("Postgres came back at another address: somebody took its port".into());
        }
        Ok(())
    }

    /// Whether its main process is there.
    pub fn is_alive(&self) -> bool {
        self.server.is_alive()
    }

    /// Ends it and removes its data.
    pub async fn end(self) {
        self.server.end().await;
    }
}

/// The hint server.
pub struct Redis {
    server: Server,
    url: String,
}

impl Redis {
    /// Starts it with its data under `folder`.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub async fn start(folder: &Path, search_path: &str) -> Outcome<Self> {
        let server = Server::start(folder, false, search_path).await?;
        let url = server.running.as_ref().and_then(|servers| servers.redis_url.clone());
        Ok(Self { server, url: url.ok_or("Redis has no address")? })
    }

    /// Where it is, with the password.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Forgets everything while it runs.
    ///
    /// # Errors
    ///
    /// When it refuses.
    pub async fn flush(&self) -> Outcome<()> {
        let client = redis::Client::open(self.url.as_str())?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        Ok(redis::cmd("FLUSHALL").query_async(&mut connection).await?)
    }

    /// SIGKILL.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub async fn kill(&mut self) -> Outcome<()> {
        self.server.kill(Signal::KILL).await
    }

    /// Starts it again, at the same address, with nothing of what it knew.
    ///
    /// # Errors
    ///
    /// When it cannot be started, or its port is taken.
    pub async fn start_empty(&mut self) -> Outcome<()> {
        let data = self.server.place.servers_dir.join("redis/appendonlydir");
        std::fs::remove_dir_all(data)?;
        self.server.start_again().await?;
        let url = self.server.running.as_ref().and_then(|servers| servers.redis_url.as_ref());
        if url != Some(&self.url) {
            return Err("Redis came back at another address: somebody took its port".into());
        }
        Ok(())
    }

    /// Ends it and removes its data.
    pub async fn end(self) {
        self.server.end().await;
    }
}
