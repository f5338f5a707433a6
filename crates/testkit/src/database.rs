//! A database of its own for every test, made in milliseconds from a migrated template.

use std::str::FromStr as _;

use orchestrator_engine::config::{Env, Problems};
use orchestrator_engine::id::{ProcessId, rng};
use orchestrator_engine::store::migrate;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tokio::sync::OnceCell;

/// The most connections of one test.
const CONNECTIONS_MAX: u32 = 10;

/// Any number: processes that want the template wait for each other on it.
const TEMPLATE_LOCK: i64 = 0x07e5_7da7_aba5;

/// A migrated, empty database. It is dropped with this.
pub struct TestDb {
    /// Its pool.
    pub pool: PgPool,
    /// Its URL, for a second process.
    pub url: String,
    name: String,
}

fn server() -> String {
    let url = Env::from_process().secret("DATABASE_URL", &mut Problems::default());
    url.expect("tests need DATABASE_URL, of a server on which they may make databases")
        .expose()
        .to_owned()
}

fn options(name: &str) -> PgConnectOptions {
    PgConnectOptions::from_str(&server()).expect("DATABASE_URL is a URL").database(name)
}

impl TestDb {
    /// A new database.
    ///
    /// # Panics
    ///
    /// Without a server.
    pub async fn new() -> Self {
        static TEMPLATE: OnceCell<String> = OnceCell::const_new();
        let template = TEMPLATE.get_or_init(template).await;
        let at = chrono::DateTime::UNIX_EPOCH;
        let name = format!("test_{}", ProcessId::new(at, &mut rng()).0.simple());
        let mut conn = PgConnection::connect(&server()).await.expect("the test server answers");
        let make = format!("create database {name} template {template}");
        conn.execute(AssertSqlSafe(make)).await.expect("a test database can be made");
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .connect_with(options(&name))
            .await
            .expect("the test database answers");
        let (base, _) = server()
            .rsplit_once('/')
            .map_or((server(), String::new()), |(base, n)| (base.to_owned(), n.to_owned()));
        Self { pool, url: format!("{base}/{name}"), name }
    }
}

impl Drop for TestDb {
    fn drop(&mut self) {
        let name = std::mem::take(&mut self.name);
        // Dropping is not async, and the test's own runtime may be at its end.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut conn = PgConnection::connect(&server()).await?;
                let drop = format!("drop database if exists {name} with (force)");
                conn.execute(AssertSqlSafe(drop)).await
            })?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        });
        drop(dropped.join());
    }
}

/// Makes the template, unless an earlier test has; returns its name.
async fn template() -> String {
    let name = format!("testkit_template_{}", migrate::known_version());
    let mut conn = PgConnection::connect(&server()).await.expect("the test server answers");
    sqlx::query("select pg_advisory_lock($1)")
        .bind(TEMPLATE_LOCK)
        .execute(&mut conn)
        .await
        .expect("the template can be locked");
    // Migrations that were edited no longer fit an older template: it is made anew then.
    for last in [false, true] {
        // Fails when it is there, which is as good.
        drop(conn.execute(AssertSqlSafe(format!("create database {name}"))).await);
        let pool = PgPoolOptions::new()
            .max_connections(2)
            .connect_with(options(&name))
            .await
            .expect("the template answers");
        let migrated = migrate::migrate(&pool).await;
        pool.close().await;
        match migrated {
            Ok(_) => break,
            Err(error) if last => panic!("the template cannot be migrated: {error:?}"),
            Err(_) => {
                let drop = format!("drop database {name} with (force)");
                conn.execute(AssertSqlSafe(drop)).await.expect("an old template can be dropped");
            }
        }
    }
    // Closing the connection gives the lock back.
    conn.close().await.expect("a connection can be closed");
    name
}
