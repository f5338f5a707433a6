//! The services as processes, and what they use.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use orchestrator_engine::config::Env;
use rustix::process::{Pid, Signal, kill_process};

use crate::Outcome;
use crate::http::Http;

/// How long a start may take.
const START_MAX: Duration = Duration::from_secs(30);

/// A service beside this program; ended when dropped.
pub struct Process {
    child: Child,
    /// Where it answers for its health and its metrics; the API also for the rest. 0: any.
    port: u16,
}

impl Process {
    /// Starts `orchestrator-scheduler` from the folder of this program, on the servers of `env`.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn scheduler(env: &Env, database_url: &str) -> Outcome<Self> {
        start("orchestrator-scheduler", env, database_url, 0, &[])
    }

    /// The same, and waits until it answers.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub async fn ready_scheduler(env: &Env, database_url: &str) -> Outcome<Self> {
        start("orchestrator-scheduler", env, database_url, free_port()?, &[])?.ready().await
    }

    /// Starts `orchestrator-worker` with further `settings`; does not wait for it.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn worker(env: &Env, database_url: &str, settings: &[(String, String)]) -> Outcome<Self> {
        start("orchestrator-worker", env, database_url, free_port()?, settings)
    }

    /// Starts `orchestrator-api` and waits until it answers. Requests are counted against a limit
    /// that none of ours reaches.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub async fn ready_api(env: &Env, database_url: &str) -> Outcome<Self> {
        let limit = [("API_RATE_LIMIT".to_owned(), "1000000".to_owned())];
        start("orchestrator-api", env, database_url, free_port()?, &limit)?.ready().await
    }

    /// Waits until it answers.
    ///
    /// # Errors
    ///
    /// When it does not, or has ended.
    pub async fn ready(mut self) -> Outcome<Self> {
        let deadline = Instant::now() + START_MAX;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("a service ended instead of starting ({status})").into());
            }
            if let Ok(mut http) = Http::connect(self.port).await
                && let Ok((200, _)) = http.get("/health/live").await
            {
                return Ok(self);
            }
            if Instant::now() > deadline {
                return Err("a service does not start".into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many runs it has finished, by its metrics; 0 while it does not answer yet.
    pub async fn finished(&self) -> u64 {
        let answer = async { Http::connect(self.port).await?.get("/metrics").await };
        let Ok((200, text)) = answer.await else { return 0 };
        text.lines()
            .filter(|line| line.starts_with("orchestrator_tasks_total{"))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok())
            .sum()
    }

    /// Resident memory in MiB.
    ///
    /// # Errors
    ///
    /// When the process is gone, or this is no Linux.
    pub fn memory_mib(&self) -> Outcome<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: f64 = line.unwrap_or_default().trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    }

    /// Seconds of processor time used so far.
    ///
    /// # Errors
    ///
    /// As [`Process::memory_mib`].
    pub fn cpu_seconds(&self) -> Outcome<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields: Vec<&str> =
            stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).unwrap_or(&"0").parse::<f64>();
        // utime and stime, in hundredths of a second on every Linux of today.
        Ok((ticks(11)? + ticks(12)?) / 100.0)
    }
}

fn start(
    name: &str,
    env: &Env,
    database_url: &str,
    port: u16,
    settings: &[(String, String)],
) -> Outcome<Process> {
    let program = std::env::current_exe()?.with_file_name(name);
    let listens = match name {
        "orchestrator-api" => ["API_PORT", "API_HOST"],
        _ => ["METRICS_PORT", "METRICS_HOST"],
    };
    let child = Command::new(&program)
        .env("DATABASE_URL", database_url)
        .env("REDIS_URL", env.raw("REDIS_URL").unwrap_or_default())
        .env(listens[0], port.to_string())
        .env(listens[1], "127.0.0.1")
        .env("LOG_LEVEL", "WARNING")
        .envs(settings.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .spawn()
        .map_err(|error| format!("{} cannot be started: {error}", program.display()))?;
    Ok(Process { child, port })
}

/// A port that was free a moment ago.
fn free_port() -> Outcome<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM); // it may be gone
        }
        drop(self.child.wait());
    }
}
