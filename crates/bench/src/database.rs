//! A database of its own for each measurement.

use orchestrator_boot::Service;
use orchestrator_engine::config::{Database, Env, Problems};
use orchestrator_engine::store::migrate;
use sqlx::PgPool;

use crate::Outcome;

/// A fresh database of the server in `DATABASE_URL`.
pub struct Bench {
    /// Where it is, with user and password.
    pub url: String,
    /// Connections to it.
    pub pool: PgPool,
}

impl Bench {
    /// An empty database `bench_<name>`; one of an earlier measurement is dropped.
    ///
    /// # Errors
    ///
    /// When `DATABASE_URL` is missing, or its user may make no databases.
    pub async fn empty(env: &Env, name: &str) -> Outcome<Self> {
        let base = env.raw("DATABASE_URL").ok_or("DATABASE_URL is not set")?.to_owned();
        let admin = PgPool::connect(&base).await?;
        for sql in [
            format!("drop database if exists bench_{name} with (force)"),
            format!("create database bench_{name}"),
        ] {
            sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&admin).await?;
        }
        admin.close().await;
        let url = with_database(&base, &format!("bench_{name}"));
        let env = Env::from_pairs([("DATABASE_URL", url.clone())]);
        let mut problems = Problems::default();
        let database = Database::read(&env, &mut problems);
        let pool = orchestrator_boot::connect(&database, Service::Cli).await?;
        Ok(Self { url, pool })
    }

    /// A database with our tables, and the agent `bench`, who may do everything.
    ///
    /// # Errors
    ///
    /// As [`Bench::empty`].
    pub async fn fresh(env: &Env, name: &str) -> Outcome<Self> {
        let bench = Self::empty(env, name).await?;
        migrate::migrate(&bench.pool).await?;
        sqlx::query("insert into agent (id, name, scopes, created_at) values (gen_random_uuid(), 'bench', '{admin}', now())")
            .execute(&bench.pool)
            .await?;
        Ok(bench)
    }

    /// A count.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub async fn count(&self, sql: &'static str) -> Outcome<i64> {
        Ok(sqlx::query_scalar(sql).fetch_one(&self.pool).await?)
    }

    /// A figure; 0 where the answer is null.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub async fn figure(&self, sql: &'static str) -> Outcome<f64> {
        Ok(sqlx::query_scalar::<_, Option<f64>>(sql).fetch_one(&self.pool).await?.unwrap_or(0.0))
    }

    /// Statements without parameters, one after another.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub async fn execute(&self, statements: &[&'static str]) -> Outcome<()> {
        for sql in statements {
            sqlx::raw_sql(*sql).execute(&self.pool).await?;
        }
        Ok(())
    }

    /// Vacuums what was filled and writes it to disk, so that neither happens while something is
    /// measured.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub async fn settle(&self) -> Outcome<()> {
        self.execute(&["vacuum (analyze)", "checkpoint"]).await
    }
}

fn with_database(url: &str, name: &str) -> String {
    let (path, query) =
        url.split_once('?').map_or((url, None), |(path, query)| (path, Some(query)));
    let server = path.rsplit_once('/').map_or(path, |(server, _)| server);
    query.map_or_else(|| format!("{server}/{name}"), |query| format!("{server}/{name}?{query}"))
}
