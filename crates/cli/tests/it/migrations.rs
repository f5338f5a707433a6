//! Migrations, both ways: new code on what old code wrote, and old code on the new schema.
//!
//! There are no old programs here to run. In their place stand two things that a checkout has:
//! [`WRITES`], what a program of each version wrote (by hand, from the code of its day), and
//! `tests/data/statements_NNNN.json`, every statement of the program as it was at schema version NNNN.
//! What this does not show: old code that reads a value which only new code writes.
//!
//! A new migration: what its code writes goes into [`WRITES`]. After a release, and before the first
//! migration behind it: `UPDATE_STATEMENTS=1 cargo test -p orchestrator-cli --test it statements`.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use orchestrator_engine::config::Env;
use orchestrator_engine::store;
use orchestrator_testkit::{ADMIN_KEY, FakeTools, TestApp, TestServers};
use serde_json::Value;
use sqlx::migrate::{Migration, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{Executor as _, SqlSafeStr as _};

/// What a program wrote that was made for this version of the schema: all that was new then. Each may
/// be written any number of times.
const WRITES: &[(i64, &str)] = &[
    (1, include_str!("../data/writes_0001.sql")),
    (2, include_str!("../data/writes_0002.sql")),
    (3, include_str!("../data/writes_0003.sql")),
    (4, include_str!("../data/writes_0004.sql")),
    (5, include_str!("../data/writes_0005.sql")),
    (6, include_str!("../data/writes_0006.sql")),
    (7, include_str!("../data/writes_0007.sql")),
    (8, include_str!("../data/writes_0008.sql")),
    (9, include_str!("../data/writes_0009.sql")),
    (10, include_str!("../data/writes_0010.sql")),
    (11, include_str!("../data/writes_0011.sql")),
];

fn in_crate(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

async fn migrations() -> Vec<Migration> {
    let found = Migrator::new(in_crate("../../migrations")).await.expect("migrations can be read");
    found.migrations.into_owned()
}

/// What the head of a migration says behind "Safe while old code runs:", to the end of the head.
fn promise(migration: &Migration) -> String {
    let head: Vec<_> =
        migration.sql.as_str().lines().map_while(|line| line.strip_prefix("--")).collect();
    let head = head.join(" ");
    let (_, promise) = head
        .split_once("Safe while old code runs:")
        .unwrap_or_else(|| panic!("migration {} does not say it", migration.version));
    promise.trim().to_owned()
}

/// An empty database, and a pool on it that makes everything in `public`, whatever the role is called.
async fn empty() -> (TestServers, PgPool) {
    let servers = TestServers::fresh().await;
    sqlx::raw_sql(
        "drop schema public cascade; drop schema orchestrator cascade; create schema public",
    )
    .execute(&servers.pool)
    .await
    .expect("the schema can be dropped");
    let options = PgConnectOptions::from_str(&servers.database_url)
        .expect("a URL")
        .options([("search_path", "public")]);
    let pool = PgPoolOptions::new().max_connections(2).connect_lazy_with(options);
    (servers, pool)
}

/// Brings the schema to the version of the last of `migrations`.
async fn migrate(pool: &PgPool, migrations: &[Migration]) {
    Migrator::with_migrations(migrations.to_vec()).run(pool).await.expect("the migration succeeds");
}

async fn write(pool: &PgPool, version: i64, why: &str) {
    let (_, statements) = WRITES.iter().find(|(of, _)| *of == version).expect("its writes");
    if let Err(error) = pool.execute(*statements).await {
        panic!("what code of version {version} writes is refused {why}: {error}");
    }
}

/// One step at a time, and at each the data of its day are added. At the end the services of today find
/// them, finish every run, list them, and nothing contradicts itself.
#[tokio::test]
async fn what_every_version_wrote_is_there_and_runs_after_all_migrations() {
    let (servers, pool) = empty().await;
    let all = migrations().await;
    for (index, migration) in all.iter().enumerate() {
        migrate(&pool, &all[..=index]).await;
        if WRITES.iter().any(|(version, _)| *version == migration.version) {
            write(&pool, migration.version, "by its own schema").await;
        }
    }
    let count = async |query: &'static str| -> i64 {
        sqlx::query_scalar(query).fetch_one(&pool).await.expect(query)
    };

    assert_eq!(
        store::migrate(&pool).await.expect("nothing is left to do"),
        store::migrate::known_version()
    );
    let (queued, finished, tasks) = (
        count("select count(*) from due_work").await,
        count("select count(*) from run").await,
        count("select count(*) from task").await,
    );
    let now: String = sqlx::query_scalar(
        r#"select to_char(now() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')"#,
    )
    .fetch_one(&pool)
    .await
    .expect("the time");
    let app = TestApp::on(servers, &now, &[("SCHEDULER_INTERVAL", "1")]).await;
    app.check_invariants().await;
    let (worker, scheduler) = (app.start_worker(&FakeTools::default()), app.start_scheduler());
    let ended = app.until_idle().await;
    let (api, base) = app.start_api().await;
    let runs = list(&format!("{base}/runs?limit=200")).await;
    let listed = list(&format!("{base}/tasks?limit=200")).await;
    for running in [worker, scheduler, api] {
        running.stop().await;
    }

    assert!(queued >= 10 && finished >= 2, "{queued} queued and {finished} finished");
    assert_eq!(ended, [("failed".to_owned(), 1), ("succeeded".to_owned(), queued + finished - 1)]);
    assert_eq!((runs, listed), (queued + finished, tasks));
    app.check_invariants().await;
}

async fn list(url: &str) -> i64 {
    orchestrator_boot::install_crypto();
    let answer =
        reqwest::Client::new().get(url).bearer_auth(ADMIN_KEY).send().await.expect("an answer");
    assert_eq!(answer.status(), 200, "{url}");
    let page: Value = answer.json().await.expect("JSON");
    i64::try_from(page["items"].as_array().expect("a list").len()).expect("a page")
}

/// Unless the head of a migration says "no", what code from before it writes is still taken.
#[tokio::test]
async fn what_old_code_writes_is_taken_by_every_schema_that_promises_so() {
    let (_servers, pool) = empty().await;
    let all = migrations().await;
    let mut allowed: BTreeSet<i64> = BTreeSet::new();
    for (index, migration) in all.iter().enumerate() {
        migrate(&pool, &all[..=index]).await;
        if promise(migration).starts_with("no") {
            allowed.clear();
        }
        allowed
            .extend(WRITES.iter().map(|(version, _)| *version).filter(|v| *v == migration.version));
        for version in &allowed {
            write(&pool, *version, &format!("by schema {}", migration.version)).await;
        }
    }
}

/// Every statement of the program as it was at an older version is still understood, unless the head of a
/// migration since says "no".
#[tokio::test]
async fn the_statements_of_old_code_are_understood_by_a_schema_that_promises_so() {
    let folder = in_crate("tests/data");
    if Env::from_process().raw("UPDATE_STATEMENTS").is_some() {
        let path = folder.join(format!("statements_{:04}.json", store::migrate::known_version()));
        let text = serde_json::to_string_pretty(&statements_now()).expect("JSON");
        std::fs::write(path, text + "\n").expect("a file can be written");
    }
    let newest = std::fs::read_dir(&folder)
        .expect("a folder")
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            name.strip_prefix("statements_")?.strip_suffix(".json")?.parse::<i64>().ok()
        })
        .max()
        .expect("the statements of one version at least");
    let file = folder.join(format!("statements_{newest:04}.json"));
    let statements: BTreeSet<String> =
        serde_json::from_slice(&std::fs::read(file).expect("a file")).expect("JSON");
    let since: Vec<_> =
        migrations().await.into_iter().filter(|migration| migration.version > newest).collect();
    if let Some(breaks) = since.iter().find(|migration| promise(migration).starts_with("no")) {
        let said = format!(
            "SKIPPED statements of version {newest}: {} is not for old code",
            breaks.version
        );
        drop(writeln!(std::io::stderr(), "{said}"));
        return;
    }
    let servers = TestServers::fresh().await;

    let mut refused = Vec::new();
    for statement in &statements {
        let mut conn = servers.pool.acquire().await.expect("the database answers");
        let sql = sqlx::AssertSqlSafe(statement.clone()).into_sql_str();
        if let Err(error) = (&mut *conn).prepare(sql).await {
            refused.push(format!("{error}:\n{statement}"));
        }
    }

    assert!(statements.len() > 100, "{} statements", statements.len());
    assert!(refused.is_empty(), "{} refused:\n{}", refused.len(), refused.join("\n"));
}

/// What the compiler has checked, one file a statement.
fn statements_now() -> BTreeSet<Cow<'static, str>> {
    std::fs::read_dir(in_crate("../../.sqlx"))
        .expect("the folder of checked statements")
        .map(|entry| {
            let text = std::fs::read(entry.expect("an entry").path()).expect("a file");
            let checked: Value = serde_json::from_slice(&text).expect("JSON");
            Cow::Owned(checked["query"].as_str().expect("a query").to_owned())
        })
        .collect()
}
