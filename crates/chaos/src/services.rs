//! The services as processes: started, stopped, killed and started again, each in its own slot.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::Outcome;
use crate::world::quiet_port;

/// How long a service may take to end after SIGTERM (`STOP_MAX` of the services, and a little).
const END_MAX: Duration = Duration::from_secs(45);

/// How long a service may take to be ready.
const READY_WITHIN: Duration = Duration::from_mins(1);

/// How often it is asked.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// One service; its process is replaced in place.
pub struct Service {
    /// What it is called here: `worker-2`.
    pub name: String,
    /// The port at which it tells of its health.
    port: u16,
    program: PathBuf,
    env: Vec<(String, String)>,
    /// Further variables of the present process only.
    extra: Vec<(String, String)>,
    log: PathBuf,
    child: Option<Child>,
}

impl Service {
    /// The service `<kind>-<number>`, of the program `orchestrator-<kind>`, with `settings` and a port of
    /// its own; not started yet. Its words go to `<logs>/<name>.log`.
    ///
    /// # Errors
    ///
    /// When the program is not built.
    pub fn new(
        kind: &str,
        number: usize,
        settings: &[(String, String)],
        logs: &Path,
    ) -> Outcome<Self> {
        let port = quiet_port()?;
        let mut env = settings.to_vec();
        let port_name = if kind == "api" { "API_PORT" } else { "METRICS_PORT" };
        env.push((port_name.to_owned(), port.to_string()));
        let name = format!("{kind}-{number}");
        let log = logs.join(format!("{name}.log"));
        let program = program(&format!("orchestrator-{kind}"))?;
        Ok(Self { name, port, program, env, extra: Vec::new(), log, child: None })
    }

    /// Starts a process.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn start(&mut self) -> Outcome<()> {
        let out = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let child = Command::new(&self.program)
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .envs(self.extra.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .kill_on_drop(true)
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    /// Sends a signal.
    ///
    /// # Errors
    ///
    /// When there is no process.
    pub fn signal(&self, signal: Signal) -> Outcome<()> {
        let id = self.child.as_ref().and_then(Child::id).ok_or("there is no process to signal")?;
        let pid = Pid::from_raw(id.cast_signed()).ok_or("no process has the id 0")?;
        Ok(kill_process(pid, signal)?)
    }

    /// SIGKILL, and a new process at once, as a supervisor would.
    ///
    /// # Errors
    ///
    /// When there is no process, or none can be started.
    pub async fn kill_and_replace(&mut self) -> Outcome<()> {
        self.signal(Signal::KILL)?;
        self.wait().await?;
        self.start()
    }

    /// SIGTERM, then a new process with `extra` variables in its environment; returns when it is ready.
    ///
    /// # Errors
    ///
    /// When it does not end, or ends with a complaint, or does not become ready.
    pub async fn restart_with(&mut self, extra: Vec<(String, String)>) -> Outcome<()> {
        self.stop().await?;
        self.extra = extra;
        self.start()?;
        self.ready().await
    }

    /// Where it answers.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Waits until it says of itself that it is ready.
    ///
    /// # Errors
    ///
    /// When that takes longer than a minute.
    pub async fn ready(&self) -> Outcome<()> {
        let url = format!("{}/health/ready", self.url());
        let client = reqwest::Client::builder().no_proxy().build()?;
        let answers = async {
            while !client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let waited = tokio::time::timeout(READY_WITHIN, answers).await;
        waited.map_err(|_| format!("{} is not ready; see {}", self.name, self.log.display()).into())
    }

    /// SIGTERM, and waits until it has ended well.
    ///
    /// # Errors
    ///
    /// When it does not end, or ends with a complaint.
    pub async fn stop(&mut self) -> Outcome<()> {
        self.signal(Signal::TERM)?;
        let status = self.wait().await?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("{} ended badly when told to stop: {status}", self.name).into())
        }
    }

    async fn wait(&mut self) -> Outcome<ExitStatus> {
        let mut child = self.child.take().ok_or("there is no process to wait for")?;
        match tokio::time::timeout(END_MAX, child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => Err(format!("{} does not end", self.name).into()),
        }
    }

    /// How the process ended, if it did without being told to.
    pub fn ended_by_itself(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|child| child.try_wait().ok().flatten())
    }
}

/// A program of ours: beside this one, or (for tests) a folder above.
fn program(name: &str) -> Outcome<PathBuf> {
    let here = std::env::current_exe()?;
    here.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
        .ok_or_else(|| format!("{name} is not built: cargo build --bins").into())
}
