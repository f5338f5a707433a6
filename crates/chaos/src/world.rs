//! Everything of one trial: the servers, the services, what they call, and who calls them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Utc};
use orchestrator_engine::clock::{Clock as _, SystemClock};
use orchestrator_engine::config::Env;
use orchestrator_engine::id;
use orchestrator_engine::store;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sqlx::postgres::PgPoolOptions;
use sqlx::{Executor as _, PgPool};
use tempfile::TempDir;

use crate::load::{Door, KEY};
use crate::plan::LEASE;
use crate::proxy::{Mode, Proxy};
use crate::receiver::Receiver;
use crate::servers::{Postgres, Redis};
use crate::services::Service;
use crate::{Outcome, Plan};

/// The room for Postgres on the disk that is filled, in MiB.
const SMALL_DISK_MIB: u32 = 700;

/// What a fault needs of its surroundings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing.
    Plain,
    /// The services reach Postgres through a [`Proxy`].
    BehindProxy,
    /// Postgres has its data on a small disk of its own.
    SmallDisk,
}

/// Everything of one trial.
pub struct World {
    /// The database server.
    pub postgres: Postgres,
    /// The hint server.
    pub redis: Redis,
    /// All processes: APIs, schedulers, workers, in this order.
    pub services: Vec<Service>,
    /// The place of the first worker among them.
    workers_from: usize,
    /// Between the services and Postgres, when the stage has one.
    proxy: Option<Proxy>,
    /// The small disk in memory, when the stage has one or the plan wants it.
    pub disk: Option<SmallDisk>,
    /// Chance.
    pub rng: StdRng,
    /// What all steps call.
    pub receiver: Receiver,
    /// The way in.
    pub door: Door,
    /// When a harm was made good again, each time.
    pub made_good: Vec<DateTime<Utc>>,
    /// Straight to the database, past the proxy: to look, never to touch.
    pub pool: PgPool,
    _folder: TempDir,
}

impl World {
    /// Starts everything and waits until it is ready. The services' words go to `logs`.
    ///
    /// # Errors
    ///
    /// When something cannot be started, or is not ready in time.
    pub async fn start(stage: Stage, plan: &Plan, logs: &Path) -> Outcome<Self> {
        let folder = tempfile::Builder::new()
            .prefix("orchestrator-chaos-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o711))
            .tempdir()?;
        let mount = || SmallDisk::mount(&folder.path().join("disk"));
        let disk = match (stage, plan.in_memory) {
            (Stage::SmallDisk, _) => Some(mount()?),
            (_, true) => mount().ok(),
            (_, false) => None,
        };
        let env = Env::from_process();
        let path = env.raw("PATH").unwrap_or_default();
        let place = disk.as_ref().map_or(folder.path(), |disk| &disk.folder).join("postgres");
        let beside = folder.path().join("redis");
        let (postgres, redis) =
            tokio::try_join!(Postgres::start(&place, path), Redis::start(&beside, path))?;
        if disk.is_some() {
            // The log of changes must fit beside the data.
            postgres.set("max_wal_size", "96MB").await?;
        }
        let pool = PgPoolOptions::new().max_connections(4).connect_lazy(postgres.url())?;
        store::migrate(&pool).await?;
        note_finishes(&pool).await?;

        let receiver = Receiver::start().await?;
        let mut database_url = postgres.url().to_owned();
        let mut proxy = None;
        if stage == Stage::BehindProxy {
            let before = Proxy::before(address(&database_url)?).await?;
            database_url = with_address(&database_url, before.address)?;
            proxy = Some(before);
        }
        let settings = settings(database_url, redis.url(), receiver.address);
        let mut services = services(&settings, plan, logs)?;
        let apis = services.iter().take(plan.processes[0]).map(Service::url).collect();
        let door = Door::to(apis)?;
        for service in &mut services {
            service.start()?;
        }
        let rng = StdRng::seed_from_u64(plan.seed);
        let world = Self {
            postgres,
            redis,
            services,
            workers_from: plan.processes[0] + plan.processes[1],
            proxy,
            disk,
            rng,
            receiver,
            door,
            made_good: Vec::new(),
            pool,
            _folder: folder,
        };
        for service in &world.services {
            service.ready().await?;
        }
        Ok(world)
    }

    /// Notes that a harm has just been made good: from here on it is counted how long the services
    /// take to be back.
    pub fn note_made_good(&mut self) {
        self.made_good.push(SystemClock.now());
    }

    /// Changes how the network to Postgres is.
    ///
    /// # Errors
    ///
    /// When the stage has no proxy.
    pub fn set_network(&self, mode: Mode) -> Outcome<()> {
        self.proxy.as_ref().ok_or("there is no proxy")?.set(mode);
        Ok(())
    }

    /// The workers.
    pub fn workers(&mut self) -> &mut [Service] {
        &mut self.services[self.workers_from..]
    }

    /// One of the workers, by chance.
    pub fn any_worker(&mut self) -> &mut Service {
        let workers = self.workers().len();
        let chosen = self.rng.random_range(0..workers);
        &mut self.workers()[chosen]
    }

    /// Processes that have ended without being told to, with how.
    pub fn ended_by_themselves(&mut self) -> Vec<String> {
        self.services
            .iter_mut()
            .filter_map(|service| {
                let status = service.ended_by_itself()?;
                Some(format!("{} ended by itself: {status}", service.name))
            })
            .collect()
    }

    /// Stops everything in order; returns what did not end well.
    pub async fn end(self) -> Vec<String> {
        self.pool.close().await;
        let mut services = self.services;
        let stops = services.iter_mut().map(Service::stop);
        let ended = futures::future::join_all(stops).await;
        self.postgres.end().await;
        self.redis.end().await;
        ended.into_iter().filter_map(Result::err).map(|error| error.to_string()).collect()
    }
}

/// What all services are told; each reads what is for it.
fn settings(database_url: String, redis_url: &str, receiver: SocketAddr) -> Vec<(String, String)> {
    let settings = [
        ("DATABASE_URL", database_url),
        ("REDIS_URL", redis_url.to_owned()),
        ("DATABASE_MAX_CONNECTIONS", "8".to_owned()),
        ("LOG_LEVEL", "WARNING".to_owned()),
        ("ADMIN_API_KEY", KEY.to_owned()),
        ("API_HOST", "127.0.0.1".to_owned()),
        ("API_RATE_LIMIT", "0".to_owned()),
        ("METRICS_HOST", "127.0.0.1".to_owned()),
        ("CATCH_UP_RATE", "100".to_owned()),
        ("WORKER_CONCURRENCY", "10".to_owned()),
        ("WORKER_LEASE_SECONDS", LEASE.as_secs().to_string()),
        ("HTTP_ALLOW_PRIVATE", receiver.to_string()),
    ];
    settings.map(|(name, value)| (name.to_owned(), value)).to_vec()
}

/// All processes, not started yet: APIs, schedulers, workers.
fn services(settings: &[(String, String)], plan: &Plan, logs: &Path) -> Outcome<Vec<Service>> {
    let mut services = Vec::new();
    for (kind, count) in ["api", "scheduler", "worker"].into_iter().zip(plan.processes) {
        for number in 0..count {
            services.push(Service::new(kind, number, settings, logs)?);
        }
    }
    Ok(services)
}

/// Notes by itself, in the same transaction, whenever a run is written down as finished: the tables
/// of the product keep one row a run, and so cannot show a run that was finished twice.
async fn note_finishes(pool: &PgPool) -> Outcome<()> {
    pool.execute(
        "create table chaos_finish (run_id uuid not null,
                                    at timestamptz not null default clock_timestamp());
         create function chaos_note() returns trigger language plpgsql as $$
         begin
             insert into chaos_finish (run_id) values (new.id);
             return null;
         end $$;
         create trigger chaos_note after insert on run for each row execute function chaos_note();",
    )
    .await?;
    Ok(())
}

/// A port that is free and that the system gives to nobody by itself: a server that comes back finds
/// it free, and who knocks meanwhile does not connect to itself. No port is given twice: trials may be
/// held side by side.
pub(crate) fn quiet_port() -> Outcome<u16> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut rng = id::rng();
    (0..100)
        .map(|_| rng.random_range(20_000..32_000))
        .find(|port| {
            std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()
                && GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(*port)
        })
        .ok_or_else(|| "there is no free port between 20000 and 32000".into())
}

pub(crate) fn address(url: &str) -> Outcome<SocketAddr> {
    let host = url.rsplit('@').next().and_then(|rest| rest.split('/').next());
    Ok(host.ok_or("the database's URL names no host")?.parse()?)
}

fn with_address(url: &str, address: SocketAddr) -> Outcome<String> {
    let (user, rest) = url.rsplit_once('@').ok_or("the database's URL names no user")?;
    let (_, database) = rest.split_once('/').ok_or("the database's URL names no database")?;
    Ok(format!("{user}@{address}/{database}"))
}

/// A disk in memory with little room; gone when dropped.
pub struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// Whether one can be had here.
    pub fn can_be_mounted() -> bool {
        tempfile::tempdir().is_ok_and(|folder| Self::mount(&folder.path().join("disk")).is_ok())
    }

    fn mount(folder: &Path) -> Outcome<Self> {
        std::fs::create_dir_all(folder)?;
        let options = format!("size={SMALL_DISK_MIB}m,mode=711");
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "orchestrator-chaos"])
            .arg(folder)
            .output()?;
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
            return Err(format!("no small disk could be mounted: {said}").into());
        }
        Ok(Self { folder: folder.to_owned() })
    }

    /// Takes all the room that is left, again and again until dropped: what somebody frees goes too.
    pub fn fill(&self) -> Outcome<Ballast> {
        let path = self.folder.join("ballast");
        let file = std::fs::File::create(&path)?;
        let mut ballast = Ballast { path, file };
        ballast.grow();
        Ok(ballast)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(&self.folder).output());
    }
}

/// A file that fills the small disk; removed when dropped.
pub struct Ballast {
    path: PathBuf,
    file: std::fs::File,
}

impl Ballast {
    /// Takes what has become free.
    pub fn grow(&mut self) {
        use std::io::Write as _;
        for size in [1024 * 1024, 4096] {
            let piece = vec![1; size];
            while self.file.write_all(&piece).is_ok() {}
        }
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.path));
    }
}
