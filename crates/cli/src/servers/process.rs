//! One server process: started, asked to end, waited for; and the one that a dead predecessor left.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::Place;
use crate::failure::Failure;

/// How long a server may take to write everything down and end.
const END_MAX: Duration = Duration::from_secs(30);

/// How often something is looked at that cannot tell us by itself.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// How often a start is tried when somebody takes the port between our looking and our using it.
pub(super) const PORT_TRIES: u32 = 5;

/// A server that we started.
#[derive(Debug)]
pub(super) struct Server {
    name: &'static str,
    child: Child,
    end_with: Signal,
    log: PathBuf,
}

impl Server {
    /// Starts `command` as the place's account, with an almost empty environment (a stray `PGPORT`
    /// must not reach it), its words going to `log`. `end_with` asks it to end.
    pub(super) fn start(
        name: &'static str,
        mut command: Command,
        place: &Place,
        log: PathBuf,
        end_with: Signal,
    ) -> Result<Self, Failure> {
        let out = place.log(&log)?;
        let doing = || Failure::while_doing(format!("start {name}"));
        let err = out.try_clone().map_err(doing())?;
        prepare(&mut command, place);
        let child = command
            .stdin(std::process::Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0)
            .kill_on_drop(true) // when a start is given up half-way; else we stop it in order
            .spawn()
            .map_err(doing())?;
        Ok(Self { name, child, end_with, log })
    }

    /// Waits until `answers` says yes; an error when the process ends before, or `within` is over.
    pub(super) async fn wait_until<F, Fut>(
        &mut self,
        within: Duration,
        answers: F,
    ) -> Result<(), NotUp>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = bool>,
    {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                let said = self.last_words();
                return Err(if said.contains("in use") {
                    NotUp::PortTaken
                } else {
                    NotUp::Failed(Failure::failed(format!(
                        "{} ended at its start ({status}); {} says:\n{said}",
                        self.name,
                        self.log.display()
                    )))
                });
            }
            if answers().await {
                return Ok(());
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(NotUp::Failed(Failure::failed(format!(
                    "{} did not answer within {} s; {} says:\n{}",
                    self.name,
                    within.as_secs(),
                    self.log.display(),
                    self.last_words()
                ))));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// What it is called.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Where its words go.
    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    /// Waits until it has ended; says how.
    pub(super) async fn ended(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }

    /// Asks it to end and waits; kills it when it does not.
    pub(super) async fn stop(mut self) {
        if let Some(pid) = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            let _ = kill_process(pid, self.end_with); // it may have ended just now
        }
        if tokio::time::timeout(END_MAX, self.child.wait()).await.is_err() {
            eprintln!(
                "orchestrator: {} did not end within {} s and is killed",
                self.name,
                END_MAX.as_secs()
            );
            drop(self.child.kill().await);
        }
    }
}

/// Why a server is not up.
#[derive(Debug)]
pub(super) enum NotUp {
    /// Somebody has its port; another may be free.
    PortTaken,
    /// Anything else.
    Failed(Failure),
}

/// Makes `command` run as the place's account in the servers' folder with a bare environment.
pub(super) fn prepare(command: &mut Command, place: &Place) {
    // LC_ALL: without it, Postgres on macOS becomes multi-threaded at its start and refuses to go on.
    command
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("LC_ALL", "C")
        .current_dir(&place.servers_dir);
    if let Some(account) = &place.account {
        command.uid(account.uid).gid(account.gid);
    }
}

/// The port of the last time (kept in `file`) when it is free, else any free one, on loopback.
pub(super) fn free_port(file: &Path, first_try: bool) -> Result<u16, Failure> {
    let bind = |port: u16| {
        std::net::TcpListener::bind(("127.0.0.1", port)).and_then(|listener| listener.local_addr())
    };
    let last = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok());
    if let Some(port) = last.filter(|_| first_try)
        && bind(port).is_ok()
    {
        return Ok(port);
    }
    let address = bind(0).map_err(Failure::while_doing("find a free port on 127.0.0.1"))?;
    Ok(address.port())
}

/// Ends the process that `pid_file` names in its first line, if it is alive and its command line
/// holds `sign`; anything else that got this pid since is left alone. Then removes the file.
pub(super) async fn end_leftover(
    name: &str,
    pid_file: &Path,
    sign: &str,
    end_with: Signal,
) -> Result<(), Failure> {
    let Ok(text) = std::fs::read_to_string(pid_file) else { return Ok(()) };
    // Postgres writes a negative number while `initdb` runs it alone.
    let number = text.lines().next().and_then(|line| line.trim().parse().ok());
    let pid = number.filter(|number: &i32| *number > 1).and_then(Pid::from_raw);
    if let Some(pid) = pid
        && is_alive(pid, sign)
    {
        eprintln!("orchestrator: stopping the {name} that an earlier run left behind (pid {pid})");
        kill_process(pid, end_with).map_err(|error| {
            Failure::failed(format!("the old {name} (pid {pid}) cannot be stopped: {error}"))
        })?;
        let deadline = tokio::time::Instant::now() + END_MAX;
        while is_alive(pid, sign) {
            if tokio::time::Instant::now() >= deadline {
                return Err(Failure::failed(format!(
                    "the old {name} (pid {pid}) does not end; stop it by hand and start again"
                )));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    match std::fs::remove_file(pid_file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::while_doing(format!("remove {}", pid_file.display()))(error))
        }
        _ => Ok(()),
    }
}

/// Whether `pid` runs a program whose command line holds `sign`. A zombie has none.
fn is_alive(pid: Pid, sign: &str) -> bool {
    let command = if Path::new("/proc/self").exists() {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .map(|words| String::from_utf8_lossy(&words).replace('\0', " "))
    } else {
        std::process::Command::new("ps")
            .args(["-o", "command=", "-p", &pid.to_string()])
            .output()
            .map(|answer| String::from_utf8_lossy(&answer.stdout).into_owned())
    };
    command.is_ok_and(|command| command.contains(sign))
}
