//! What this machine spends: processor time of the servers and of others, read from `/proc`.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use sqlx::PgPool;

use crate::Outcome;

/// Ticks a second of `/proc/*/stat`, on every Linux of today.
const TICKS: f64 = 100.0;
/// A machine is quiet when nobody used more than this share of a core for half a second.
const QUIET_SHARE: f64 = 0.2;

/// The servers that are measured, as process ids.
#[derive(Clone, Copy, Debug)]
pub struct Servers {
    postgres: u32,
    redis: Option<u32>,
}

impl Servers {
    /// The Postgres that `pool` is connected to, on this machine, and the Redis that was started by
    /// the same process as this one.
    ///
    /// # Errors
    ///
    /// When Postgres is on another machine, or this is no Linux.
    pub async fn find(pool: &PgPool) -> Outcome<Self> {
        let backend: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(pool).await?;
        let stat = Stat::of(u32::try_from(backend)?)
            .ok_or("Postgres is not on this machine: its processor time cannot be read")?;
        let parent = Stat::of(std::process::id()).map_or(0, |stat| stat.parent);
        let redis = all()
            .into_iter()
            .find(|(_, stat)| stat.parent == parent && is_redis(&stat.name))
            .map(|(pid, _)| pid);
        Ok(Self { postgres: stat.parent, redis })
    }
}

fn is_redis(name: &str) -> bool {
    name.starts_with("redis") || name.starts_with("valkey")
}

/// One line of `/proc/<pid>/stat` (proc(5)).
struct Stat {
    name: String,
    parent: u32,
    /// Seconds of its own and of its children that have ended.
    seconds: f64,
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (head, tail) = text.rsplit_once(')')?;
        let name = head.split_once('(')?.1.to_owned();
        let fields: Vec<&str> = tail.split_whitespace().collect();
        let ticks: f64 =
            fields.get(11..15)?.iter().filter_map(|field| field.parse::<f64>().ok()).sum();
        Some(Self { name, parent: fields.get(1)?.parse().ok()?, seconds: ticks / TICKS })
    }
}

fn all() -> HashMap<u32, Stat> {
    let Ok(entries) = fs::read_dir("/proc") else { return HashMap::new() };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, Stat::of(pid)?)))
        .collect()
}

/// Seconds used by a process, its children, theirs, and those that have ended.
fn tree_seconds(root: u32, all: &HashMap<u32, Stat>) -> f64 {
    let mut seconds = 0.0;
    let mut todo = vec![root];
    while let Some(pid) = todo.pop() {
        seconds += all.get(&pid).map_or(0.0, |stat| stat.seconds);
        todo.extend(all.iter().filter(|(_, stat)| stat.parent == pid).map(|(pid, _)| *pid));
    }
    seconds
}

/// Seconds in which some core of the machine was busy.
fn busy_seconds() -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<f64> = text
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal: all but idle, waiting and stolen.
    [0, 1, 2, 5, 6].iter().filter_map(|index| fields.get(*index)).sum::<f64>() / TICKS
}

/// Waits until the other users of the machine are quiet, but no longer than `patience`.
pub async fn quiet(patience: Duration) {
    let deadline = Instant::now() + patience;
    let window = Duration::from_millis(500);
    while Instant::now() < deadline {
        let before = busy_seconds();
        tokio::time::sleep(window).await;
        if busy_seconds() - before < QUIET_SHARE * window.as_secs_f64() {
            return;
        }
    }
}

/// Processor seconds of each side.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    /// Postgres, with all it does in the background.
    pub postgres: f64,
    /// Redis.
    pub redis: f64,
    /// The processes measured.
    pub processes: f64,
    /// All others on this machine, as a share of it: above 0.1 the figures are not to be trusted.
    pub foreign_share: f64,
}

/// Measures processor time from its making on.
pub struct Meter {
    servers: Servers,
    processes: Vec<u32>,
    began: Instant,
    before: [f64; 5],
}

impl Meter {
    /// Begins. Processes started later are given to [`Meter::end`].
    #[must_use]
    pub fn begin(servers: Servers, processes: &[u32]) -> Self {
        let before = sample(servers, processes);
        Self { servers, processes: processes.to_vec(), began: Instant::now(), before }
    }

    /// What was spent since; `new` are processes started meanwhile, which count whole.
    #[must_use]
    pub fn end(&self, new: &[u32]) -> Spent {
        let processes: Vec<u32> = self.processes.iter().chain(new).copied().collect();
        let after = sample(self.servers, &processes);
        let [postgres, redis, ours, own, busy] =
            std::array::from_fn(|index| after[index] - self.before[index]);
        #[expect(clippy::cast_precision_loss, reason = "there are few cores")]
        let cores = std::thread::available_parallelism().map_or(1.0, |count| count.get() as f64);
        let foreign = (busy - postgres - redis - ours - own).max(0.0);
        Spent {
            postgres,
            redis,
            processes: ours,
            foreign_share: foreign / (self.began.elapsed().as_secs_f64() * cores),
        }
    }
}

/// Seconds of Postgres, Redis, the processes, this program with what it started and has ended, and
/// the machine.
fn sample(servers: Servers, processes: &[u32]) -> [f64; 5] {
    let all = all();
    let own = all.get(&std::process::id()).map_or(0.0, |stat| stat.seconds);
    [
        tree_seconds(servers.postgres, &all),
        servers.redis.map_or(0.0, |pid| tree_seconds(pid, &all)),
        processes.iter().map(|pid| tree_seconds(*pid, &all)).sum(),
        own,
        busy_seconds(),
    ]
}
