//! Private Postgres and Redis servers: started for one person on one machine, stopped with us.
//!
//! They belong to a [`Place`]: a folder that is locked while we use it. Both listen on loopback
//! alone, ask for a random password, and run as an unprivileged user when we are root. They are in
//! process groups of their own, so that Ctrl-C reaches us and not them: runs that drain still need
//! a database. If we are killed, they go on as orphans; the next start finds their pid files and
//! stops them before it starts its own.

mod account;
mod binaries;
mod keep;
mod place;
mod postgres;
mod process;
mod redis;

use crate::failure::Failure;

pub use place::Place;

/// What to start, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Start Postgres.
    pub postgres: bool,
    /// Start Redis.
    pub redis: bool,
    /// Nothing needs to outlive us: no waiting for disks. Many connections, for many tests at once.
    pub throwaway: bool,
    /// How many numbered databases Redis has; each test takes one.
    pub redis_databases: u32,
    /// Further settings of Postgres, `name=value`; they override ours.
    pub postgres_settings: Vec<String>,
}

/// The running servers.
#[derive(Debug)]
#[must_use = "servers that are not stopped go on without us"]
pub struct Servers {
    /// Where Postgres is, with user and password, when it was started.
    pub database_url: Option<String>,
    /// Where Redis is, with the password, when it was started.
    pub redis_url: Option<String>,
    running: Vec<Running>,
}

/// A server that we started.
#[derive(Debug)]
struct Running {
    kind: Kind,
    server: process::Server,
    url: String,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Postgres,
    Redis,
}

impl Kind {
    /// Starts one, and waits until it answers; returns its URL as well.
    async fn start(
        self,
        place: &Place,
        options: &Options,
        search_path: &str,
    ) -> Result<(process::Server, String), Failure> {
        match self {
            Self::Postgres => postgres::start(place, options, search_path).await,
            Self::Redis => redis::start(place, options, search_path).await,
        }
    }

    async fn answers(self, url: &str) -> bool {
        match self {
            Self::Postgres => postgres::answers(url).await,
            Self::Redis => redis::answers(url).await,
        }
    }
}

impl Servers {
    /// Starts what `options` asks for in `place`, and waits until it answers.
    ///
    /// # Errors
    ///
    /// When a program is missing or does not start; nothing is left running then.
    pub async fn start(
        place: &Place,
        options: Options,
        search_path: &str,
    ) -> Result<Self, Failure> {
        let mut servers = Self { database_url: None, redis_url: None, running: Vec::new() };
        match servers.start_all(place, &options, search_path).await {
            Ok(()) => Ok(servers),
            Err(failure) => {
                servers.stop().await;
                Err(failure)
            }
        }
    }

    async fn start_all(
        &mut self,
        place: &Place,
        options: &Options,
        search_path: &str,
    ) -> Result<(), Failure> {
        // Also of those that are not wanted this time.
        Self::end_leftovers(place).await?;
        if options.postgres {
            let url = self.start_one(Kind::Postgres, place, options, search_path).await?;
            postgres::ensure_database(&url).await?;
            self.database_url = Some(url);
        }
        if options.redis {
            let url = self.start_one(Kind::Redis, place, options, search_path).await?;
            self.redis_url = Some(url);
        }
        Ok(())
    }

    async fn start_one(
        &mut self,
        kind: Kind,
        place: &Place,
        options: &Options,
        search_path: &str,
    ) -> Result<String, Failure> {
        let (server, url) = kind.start(place, options, search_path).await?;
        self.running.push(Running { kind, server, url: url.clone() });
        Ok(url)
    }

    /// Stops what a killed predecessor left running in `place`.
    ///
    /// # Errors
    ///
    /// When something does not end.
    pub async fn end_leftovers(place: &Place) -> Result<(), Failure> {
        redis::end_leftover(place).await?;
        postgres::end_leftover(place).await
    }

    /// Stops them, the last started first, and waits until they have ended.
    pub async fn stop(self) {
        for one in self.running.into_iter().rev() {
            one.server.stop().await;
        }
    }
}
