//! `orchestrator servers`, which `dev` and all other tests stand on.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use sqlx::{Connection as _, PgConnection};

use crate::system::{Place, free_port};

/// A running `orchestrator servers` whose command prints where Postgres is, and waits until its
/// input is closed.
struct Running {
    process: Child,
    input: Option<ChildStdin>,
    database_url: String,
    redis_url: String,
}

impl Running {
    fn start(data_dir: &Path) -> Self {
        let mut process = servers(data_dir)
            .args(["--", "sh", "-c", "echo $DATABASE_URL; echo $REDIS_URL; read wait; exit 7"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary is built");
        let mut lines = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        let mut next = || lines.next().expect("the servers start").expect("it prints text");
        let (database_url, redis_url) = (next(), next());
        Self { input: process.stdin.take(), process, database_url, redis_url }
    }

    /// Lets the command end; returns the exit code.
    fn end(mut self) -> Option<i32> {
        drop(self.input.take());
        self.process.wait().expect("it is our child").code()
    }

    /// As `kill -9` would: no chance to stop anything.
    fn kill(mut self) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it is our child");
    }
}

/// A process that is told to end, as by Ctrl-C, also when the test fails: it would leave servers behind.
struct Interrupted(Child);

impl Interrupted {
    fn end(&mut self) -> Option<i32> {
        let _ = kill_process(Pid::from_child(&self.0), Signal::INT); // it may have ended
        self.0.wait().expect("it is our child").code()
    }
}

impl Drop for Interrupted {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.end();
        }
    }
}

fn servers(data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orchestrator"));
    command.arg("servers").arg("--data-dir").arg(data_dir);
    command
}

async fn execute(url: &str, sql: &'static str) -> Result<u64, sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    Ok(sqlx::query(sql).execute(&mut connection).await?.rows_affected())
}

/// The first run makes the data and is killed, and its servers go on without it. The second finds
/// them, stops them, and starts its own on the same data; then it ends in order.
#[tokio::test]
async fn what_a_killed_run_left_behind_is_stopped_and_its_data_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");

    let first = Running::start(&data_dir);
    let url = first.database_url.clone();
    execute(&url, "create table kept as select 1 as x").await.unwrap();
    first.kill();
    execute(&url, "select x from kept").await.expect("it goes on as an orphan");
    let second = Running::start(&data_dir);
    let kept = execute(&second.database_url, "select x from kept").await.unwrap();
    let mut redis = redis::Client::open(second.redis_url.as_str())
        .unwrap()
        .get_multiplexed_async_connection()
        .await
        .unwrap();
    let pong: String = redis::cmd("PING").query_async(&mut redis).await.unwrap();
    let url = second.database_url.clone();
    let code = second.end();

    assert_eq!((kept, pong.as_str()), (1, "PONG"));
    assert_eq!(code, Some(7), "the command's exit code is ours");
    assert!(execute(&url, "select 1").await.is_err(), "the servers are stopped with us");
}

#[tokio::test]
async fn a_second_process_on_the_same_data_is_refused_with_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let first = Running::start(&data_dir);

    let second = servers(&data_dir).args(["--", "true"]).output().unwrap();
    first.end();

    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("in use by another orchestrator"), "{said}");
}

/// `dev` outlives its servers: both are killed, and it goes on with new ones on the same data.
#[test]
fn servers_of_dev_that_are_killed_are_started_again() {
    let place = Place::new();
    let dev = place
        .command()
        .args(["dev", "--port", &free_port().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary is built");
    let mut dev = Interrupted(dev);
    let mut said = BufReader::new(dev.0.stdout.take().expect("it is piped")).lines();
    let mut logged = BufReader::new(dev.0.stderr.take().expect("it is piped")).lines();
    assert!(
        said.any(|line| line.is_ok_and(|line| line == "Ready.")),
        "it ended before it was ready"
    );
    place.file("t.yaml", "{name: kept, title: t, schedule_kind: manual, payload: {pipeline: [{id: a, uses: core.echo}]}}");
    place.call(&["apply", "-f", "t.yaml"]).expect(0);

    for pid_file in ["postgres/postmaster.pid", "redis/redis.pid"] {
        let path = place.folder.path().join(".orchestrator/servers").join(pid_file);
        let text = std::fs::read_to_string(path).unwrap();
        let pid = text.lines().next().unwrap().parse().unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    }
    for _ in 0..2 {
        assert!(logged.any(|line| line.is_ok_and(|line| line.contains("is up again"))));
    }
    std::thread::spawn(move || logged.for_each(drop)); // what it says later must not fill the pipe
    place.call(&["task", "run", "kept", "--watch"]).expect(0);

    assert_eq!(dev.end(), Some(0), "it stops everything that it started");
}

#[tokio::test]
async fn the_password_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(&folder.path().join("data"));

    let mut wrong: url::Url = running.database_url.parse().unwrap();
    wrong.set_password(Some("guess")).unwrap();
    let refused = execute(wrong.as_str(), "select 1").await;
    running.end();

    assert!(matches!(refused, Err(sqlx::Error::Database(_))), "{refused:?}");
}

#[test]
fn wrong_settings_are_told_all_at_once_with_exit_code_2() {
    let told = Command::new(env!("CARGO_BIN_EXE_orchestrator"))
        .args(["dev", "--data-dir", "/nonexistent/never/made"])
        .env("ORCHESTRATOR_PROT", "1")
        .env("WORKER_CONCURRENCY", "0")
        .output()
        .unwrap();

    let said = String::from_utf8_lossy(&told.stderr).into_owned();
    assert_eq!(told.status.code(), Some(2), "{said}");
    assert!(said.contains("ORCHESTRATOR_PROT is not a setting"), "{said}");
    assert!(
        said.contains("WORKER_CONCURRENCY: \"0\" is not a whole number from 1 to 50"),
        "{said}"
    );
}
