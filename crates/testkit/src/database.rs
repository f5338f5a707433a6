//! A fresh Postgres database and Redis database for each test.

use std::str::FromStr as _;

use orchestrator_engine::config::Env;
use orchestrator_engine::store;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgConnection, PgPool,
};
use tokio::sync::OnceCell;

use crate::Network;

/// Held while the template is made, so that test binaries that start together make one.
const TEMPLATE_LOCK: i64 = 0x7465_6d70;
/// Where the tests count the Redis databases they have taken.
const COUNTER: &str = "testkit:taken";

static TEMPLATE: OnceCell<String> = OnceCell::const_new();

/// The databases of one test.
#[derive(Clone, Debug)]
pub struct TestServers {
    /// The Postgres database, migrated and empty.
    pub database_url: String,
    /// The Redis database, empty.
    pub redis_url: String,
    /// A pool on the Postgres database.
    pub pool: PgPool,
}

impl TestServers {
    /// Fresh databases.
    ///
    /// # Panics
    ///
    /// When no servers are there: tests are run by `make test`.
    pub async fn fresh() -> Self {
        let env = Env::from_process();
        let (Some(admin_url), Some(redis_url)) = (env.raw("DATABASE_URL"), env.raw("REDIS_URL"))
        else {
            panic!(
                "DATABASE_URL and REDIS_URL must name servers for tests: run `make test`, or one test \
                 with `make test ARGS='-p orchestrator-worker name_of_the_test'`"
            );
        };
        let options =
            PgConnectOptions::from_str(admin_url).expect("DATABASE_URL is a Postgres URL");
        let template = TEMPLATE.get_or_init(|| make_template(options.clone())).await;
        let name = format!("test_{}", uuid::Uuid::new_v4().simple());
        let mut admin = options.clone().connect().await.expect("the test database server answers");
        create(&mut admin, &format!("create database {name} template {template}")).await;
        drop(admin.close().await);
        let options = options.database(&name).log_statements(tracing::log::LevelFilter::Trace);
        let database_url = options.to_url_lossy().to_string();
        let pool = PgPoolOptions::new().max_connections(8).connect_lazy_with(options);
        Self { database_url, redis_url: redis_database(redis_url).await, pool }
    }

    /// The same Postgres database behind a network that can fall silent, and the URL that leads there.
    pub async fn behind_network(&self) -> (Network, String) {
        let options = PgConnectOptions::from_str(&self.database_url).expect("a Postgres URL");
        let server = (options.get_host().to_owned(), options.get_port());
        let mut found = tokio::net::lookup_host(server).await.expect("the server has an address");
        let network = Network::before(found.next().expect("the server has an address")).await;
        let there = options.host("127.0.0.1").port(network.address.port());
        (network, there.to_url_lossy().to_string())
    }
}

/// Makes the migrated database that all others are copies of, unless it is there.
async fn make_template(options: PgConnectOptions) -> String {
    let name = format!("orchestrator_template_{}", store::migrate::fingerprint());
    let mut admin = options.clone().connect().await.expect("the test database server answers");
    sqlx::query("select pg_advisory_lock($1)")
        .bind(TEMPLATE_LOCK)
        .execute(&mut admin)
        .await
        .expect("the template can be locked");
    let there: bool =
        sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
            .bind(&name)
            .fetch_one(&mut admin)
            .await
            .expect("databases can be listed");
    if !there {
        let raw = format!("{name}_raw");
        create(&mut admin, &format!("drop database if exists {raw}")).await;
        create(&mut admin, &format!("create database {raw}")).await;
        let pool = PgPoolOptions::new().connect_lazy_with(options.database(&raw));
        store::migrate(&pool).await.expect("the schema can be made");
        pool.close().await;
        create(&mut admin, &format!("alter database {raw} rename to {name}")).await;
    }
    drop(admin.close().await);
    name
}

async fn create(admin: &mut PgConnection, statement: &str) {
    // The names are our own: a version number or a UUID.
    admin.execute(AssertSqlSafe(statement.to_owned())).await.expect(statement);
}

/// The next Redis database that no test has, emptied.
async fn redis_database(url: &str) -> String {
    let client = redis::Client::open(url).expect("REDIS_URL is a Redis URL");
    let mut connection =
        client.get_multiplexed_async_connection().await.expect("the test Redis answers");
    let (_, count): (String, i64) = redis::cmd("CONFIG")
        .arg("GET")
        .arg("databases")
        .query_async(&mut connection)
        .await
        .expect("Redis tells its settings");
    let taken: i64 =
        redis::cmd("INCR").arg(COUNTER).query_async(&mut connection).await.expect("Redis counts");
    let number = taken % (count - 1).max(1) + 1;
    let url = with_database(url, number);
    let mut own = redis::Client::open(url.as_str())
        .expect("a Redis URL")
        .get_multiplexed_async_connection()
        .await
        .expect("the test Redis answers");
    let _: () = redis::cmd("FLUSHDB").query_async(&mut own).await.expect("Redis forgets");
    url
}

fn with_database(url: &str, number: i64) -> String {
    let (scheme, rest) = url.split_once("://").expect("a URL");
    let host = rest.split('/').next().expect("a host");
    format!("{scheme}://{host}/{number}")
}
