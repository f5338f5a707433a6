//! Behind a real PgBouncer that lends its connections for a transaction at a time.
//!
//! `make test` installs one where it can. Where there is none, or one before 1.21, which cannot keep
//! prepared statements apart, what is left out is said on standard error.

use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr as _;
use std::time::Duration;

use orchestrator_boot::Service;
use orchestrator_engine::config::{Database, Env, Problems};
use orchestrator_engine::store;
use orchestrator_testkit::{FakeTools, TestApp, TestServers, task};
use serde_json::json;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tempfile::TempDir;

const NOW: &str = "2026-03-01T08:00:00Z";
/// The first that knows `max_prepared_statements`.
const KEEPS_STATEMENTS: (u32, u32) = (1, 21);

/// A running PgBouncer. Ends with the test.
struct Pooler {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Drop for Pooler {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The program and its version; `None`, said aloud, where there is none.
fn program() -> Option<(PathBuf, (u32, u32))> {
    let path = Env::from_process().raw("PATH").unwrap_or_default().to_owned();
    let found = std::env::split_paths(&path)
        .chain(["/usr/sbin", "/opt/homebrew/bin", "/usr/local/bin"].map(PathBuf::from))
        .map(|folder| folder.join("pgbouncer"))
        .find(|file| file.is_file());
    let Some(program) = found else {
        skipped("pgbouncer is not installed");
        return None;
    };
    let said = Command::new(&program).arg("--version").output().expect("pgbouncer runs");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let mut numbers = said
        .split_whitespace()
        .nth(1)
        .into_iter()
        .flat_map(|version| version.split('.'))
        .filter_map(|number| number.parse().ok());
    let version = (numbers.next().expect("a version"), numbers.next().expect("a version"));
    Some((program, version))
}

/// Past the capture of tests' output: somebody who reads the log is to see it.
fn skipped(why: &str) {
    drop(writeln!(std::io::stderr(), "SKIPPED a test behind PgBouncer: {why}"));
}

/// The program, where it is one that can serve us.
fn able_program() -> Option<PathBuf> {
    let (program, version) = program()?;
    if version < KEEPS_STATEMENTS {
        skipped(&format!("{}.{} is installed, 1.21 is needed", version.0, version.1));
        return None;
    }
    Some(program)
}

/// Starts one in front of the server of `servers`, with few connections for many clients.
async fn start(program: &Path, servers: &TestServers, settings: &str) -> Pooler {
    let postgres = PgConnectOptions::from_str(&servers.database_url).expect("a URL");
    let (_, rest) = servers.database_url.split_once("://").expect("a URL");
    let (who, _) = rest.split_once('@').expect("a user");
    let (user, password) = who.split_once(':').expect("a password");
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port is free")
        .port();
    let folder = tempfile::tempdir().expect("a folder can be made");
    let file = folder.path().join("pgbouncer.ini");
    let content = format!(
        "[databases]\n\
         * = host={} port={} user={user} password={password} \
             connect_query='set idle_in_transaction_session_timeout = 5000'\n\
         [pgbouncer]\n\
         listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
         pool_mode = transaction\ndefault_pool_size = 3\n{settings}\n",
        postgres.get_host(),
        postgres.get_port(),
    );
    std::fs::write(&file, content).expect("a file can be written");
    let mut command = Command::new(program);
    if rustix::process::geteuid().is_root() {
        command.args(["-u", "nobody"]);
    }
    let child = command
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("pgbouncer starts");
    let pooler = Pooler { child, port, _folder: folder };
    let up = async {
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), up).await.expect("pgbouncer listens");
    pooler
}

impl Pooler {
    /// `url`, by way of here.
    fn before(&self, url: &str) -> String {
        let (scheme, rest) = url.split_once("://").expect("a URL");
        let (who, place) = rest.split_once('@').expect("a user");
        let (_, database) = place.split_once('/').expect("a database");
        format!("{scheme}://{who}@127.0.0.1:{}/{database}", self.port)
    }
}

fn database(url: &str, direct: Option<&str>) -> Database {
    let pairs = [("DATABASE_URL", Some(url)), ("DATABASE_DIRECT_URL", direct)];
    let env = Env::from_pairs(pairs.into_iter().filter_map(|(name, url)| Some((name, url?))));
    let mut problems = Problems::default();
    let database = Database::read(&env, &mut problems);
    assert!(problems.is_empty(), "{problems}");
    database
}

async fn refusal(database: &Database) -> String {
    match orchestrator_boot::connect(database, Service::Cli).await {
        Ok(_) => panic!("it was let in"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn a_pooler_that_nobody_told_of_is_found_at_the_start() {
    let Some((program, _)) = program() else { return };
    let servers = TestServers::fresh().await;
    // As it comes it refuses our session's settings; told to, it drops them without a word.
    for settings in ["", "ignore_startup_parameters = options"] {
        let pooler = start(&program, &servers, settings).await;

        let said = refusal(&database(&pooler.before(&servers.database_url), None)).await;

        assert!(said.contains("set DATABASE_DIRECT_URL"), "{settings}: {said}");
    }
}

#[tokio::test]
async fn a_pooler_that_mixes_up_prepared_statements_is_found_at_the_start() {
    let Some((program, version)) = program() else { return };
    let servers = TestServers::fresh().await;
    let settings = if version < KEEPS_STATEMENTS { "" } else { "max_prepared_statements = 0" };
    let pooler = start(&program, &servers, settings).await;
    let url = pooler.before(&servers.database_url);

    let said = refusal(&database(&url, Some(&servers.database_url))).await;

    assert!(said.contains("max_prepared_statements"), "{said}");
}

/// What ends the session of a process that stands still, and so frees what it has locked: an option of the
/// connection, or the pooler's `connect_query`.
#[tokio::test]
async fn a_session_of_ours_is_ended_when_it_is_silent_in_a_transaction() {
    let servers = TestServers::fresh().await;
    let pooler = match able_program() {
        Some(program) => Some(start(&program, &servers, "max_prepared_statements = 200").await),
        None => None,
    };
    let direct = servers.database_url.as_str();
    let through = pooler.as_ref().map(|pooler| pooler.before(direct));
    let behind = through.map(|through| database(&through, Some(direct)));
    for settings in [Some(database(direct, None)), behind].into_iter().flatten() {
        let pool = orchestrator_boot::pool(&settings, Service::Cli).expect("a pool");

        let silent: String = sqlx::query_scalar("show idle_in_transaction_session_timeout")
            .fetch_one(&pool)
            .await
            .expect("the database answers");

        assert_eq!(silent, "5s");
    }
}

/// Three connections of Postgres for everything that an api, a scheduler and two workers ask. A run is
/// asked for by HTTP, one by SQL, one comes by its schedule.
#[tokio::test]
async fn the_whole_system_works_behind_a_pooler() {
    let Some(program) = able_program() else { return };
    let servers = TestServers::fresh().await;
    let pooler = start(&program, &servers, "max_prepared_statements = 200").await;
    let direct = servers.database_url.clone();
    let through = pooler.before(&direct);
    let settings = [
        ("DATABASE_URL", &*through),
        ("DATABASE_DIRECT_URL", &*direct),
        ("SCHEDULER_INTERVAL", "1"),
    ];
    let app = TestApp::on(servers, NOW, &settings).await;
    let pipeline = json!([{"id": "one", "uses": "test.echo", "with": {"n": 1}}]);
    let mut manual = task("manual", "", &pipeline);
    manual["name"] = json!("greet");
    let manual = app.add_task(manual).await;
    app.add_task(task("cron", "1 8 * * *", &pipeline)).await;
    let tools = FakeTools::default();
    let workers = [app.start_worker(&tools), app.start_worker(&tools)];
    let scheduler = app.start_scheduler();
    let (api, base) = app.start_api().await;
    // LISTEN holds a connection of its own, past the pooler: each worker's and the scheduler's.
    let listening = "select count(*) from pg_stat_activity
                     where datname = current_database() and query ilike 'listen %'";
    app.until(listening, 3).await;

    orchestrator_boot::install_crypto();
    let http = reqwest::Client::new();
    for _ in 0..50 {
        let answer = http
            .post(format!("{base}/tasks/{manual}/run_now"))
            .bearer_auth(orchestrator_testkit::ADMIN_KEY)
            .json(&json!({}))
            .send()
            .await
            .expect("the API answers");
        assert_eq!(answer.status(), 202);
    }
    sqlx::query("select orchestrator.enqueue('greet')")
        .execute(&app.servers.pool)
        .await
        .expect("a run can be added");
    app.clock.advance(chrono::TimeDelta::minutes(2));
    app.until("select count(*) from run where status = 'succeeded'", 52).await;
    let sessions = "select count(*) from pg_stat_activity where datname = current_database()
                    and application_name like 'orchestrator-%' and query not ilike 'listen %'";
    assert!(app.count(sessions).await <= 3, "more sessions than the pooler may have");
    for running in workers.into_iter().chain([scheduler, api]) {
        running.stop().await;
    }

    assert_eq!(app.until_idle().await, [("succeeded".to_owned(), 52)]);
    app.check_invariants().await;
}

/// Sixteen processes start at once on an empty database; the lock of the migrations is a session's.
#[tokio::test]
async fn processes_that_start_together_behind_a_pooler_make_one_schema_and_leave_no_lock() {
    let Some(program) = able_program() else { return };
    let servers = TestServers::fresh().await;
    sqlx::raw_sql(
        "drop schema public cascade; drop schema orchestrator cascade; create schema public",
    )
    .execute(&servers.pool)
    .await
    .expect("the schema can be dropped");
    let pooler = start(&program, &servers, "max_prepared_statements = 200").await;
    let through = pooler.before(&servers.database_url);
    let database = database(&through, Some(&servers.database_url));

    let starts = (0..16).map(|_| async {
        let pool = orchestrator_boot::connect(&database, Service::Cli).await?;
        let done = orchestrator_boot::bring_up_to_date(&database, Service::Cli, &pool).await;
        pool.close().await;
        done
    });
    let done: Result<Vec<()>, _> = futures::future::try_join_all(starts).await;

    done.expect("each finds or makes the schema");
    let pool = PgPoolOptions::new().connect(&servers.database_url).await.expect("an answer");
    let version = store::migrate::version(&pool).await.expect("a version");
    let locks: i64 = sqlx::query_scalar(
        "select count(*) from pg_locks where locktype = 'advisory'
         and database = (select oid from pg_database where datname = current_database())",
    )
    .fetch_one(&pool)
    .await
    .expect("locks can be counted");
    assert_eq!((version, locks), (store::migrate::known_version(), 0));
}
