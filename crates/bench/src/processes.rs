//! The services as processes, and what they use.

use std::fs;
use std::process::{Child, Command, Stdio};

use orchestrator_engine::config::Env;
use rustix::process::{Pid, Signal, kill_process};

use crate::Outcome;

/// A scheduler beside this program; ended when dropped.
pub struct Process(Child);

impl Process {
    /// Starts `orchestrator-scheduler` from the folder of this program, on the servers of `env`.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn scheduler(env: &Env, database_url: &str) -> Outcome<Self> {
        let program = std::env::current_exe()?.with_file_name("orchestrator-scheduler");
        let child = Command::new(program)
            .env("DATABASE_URL", database_url)
            .env("REDIS_URL", env.raw("REDIS_URL").unwrap_or_default())
            .env("METRICS_PORT", "0")
            .env("METRICS_HOST", "127.0.0.1")
            .env("LOG_LEVEL", "WARNING")
            .stdin(Stdio::null())
            .spawn()?;
        Ok(Self(child))
    }

    /// Resident memory in MiB.
    ///
    /// # Errors
    ///
    /// When the process is gone, or this is no Linux.
    pub fn memory_mib(&self) -> Outcome<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
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
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        let fields: Vec<&str> =
            stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).unwrap_or(&"0").parse::<f64>();
        // utime and stime, in hundredths of a second on every Linux of today.
        Ok((ticks(11)? + ticks(12)?) / 100.0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM); // it may be gone
        }
        drop(self.0.wait());
    }
}
