//! What Postgres alone can do here: the least that a durable scheduler writes, written by pgbench in
//! the largest batches that help. Nothing of ours is in it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use super::Ground;
use crate::Outcome;
use crate::database::Bench;
use crate::machine::{Meter, Spent};

/// Runs that the ceiling drains.
const DRAINED: u32 = 100_000;
/// Of which each client takes so many at once.
const BATCH: u32 = 500;
/// Clients that drain.
const DRAINERS: u32 = 2;
/// Clients that insert one by one.
pub const INSERTERS: u32 = 8;
/// Rows of a batch that is inserted.
pub const INSERTED: u32 = 1_000;

/// A rate and what it cost.
#[derive(Clone, Copy, Debug)]
pub struct Reached {
    /// Rows or runs a second.
    pub per_second: f64,
    /// Processor time of it.
    pub spent: Spent,
    /// How many.
    pub count: u32,
}

impl Reached {
    /// Microseconds of Postgres's processor time for one.
    #[must_use]
    pub fn postgres_us(&self) -> f64 {
        self.spent.postgres * 1e6 / f64::from(self.count)
    }
}

/// A database that belongs to the ceiling.
pub struct Ceiling<'a> {
    ground: &'a Ground<'a>,
    bench: Bench,
}

impl<'a> Ceiling<'a> {
    /// Makes the database.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub async fn open(ground: &'a Ground<'a>) -> Outcome<Self> {
        Ok(Self { ground, bench: Bench::empty(ground.env, "ceiling").await? })
    }

    /// The ceiling C: two clients; each leases 500 rows and commits, then deletes them, writes 500 rows
    /// of history with the payload, and commits.
    ///
    /// # Errors
    ///
    /// When pgbench is missing or fails.
    pub async fn drain(&self) -> Outcome<Reached> {
        self.fresh(DRAINED + BATCH * DRAINERS).await?;
        let options = ["-D", &format!("n={BATCH}")];
        let script = include_str!("../../ceiling/drain.sql");
        let batches = DRAINED / BATCH;
        let reached = self.pgbench(script, DRAINERS, batches, &options).await?;
        Ok(Reached {
            per_second: reached.per_second * f64::from(BATCH),
            count: reached.count * BATCH,
            ..reached
        })
    }

    /// Single rows, each its own commit, by eight clients.
    ///
    /// # Errors
    ///
    /// When pgbench is missing or fails.
    pub async fn insert(&self, count: u32) -> Outcome<Reached> {
        self.fresh(0).await?;
        self.pgbench(include_str!("../../ceiling/insert.sql"), INSERTERS, count, &[]).await
    }

    /// Batches of 1,000 rows, unnested from one array, on one connection.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub async fn unnest(&self, count: u32) -> Outcome<Reached> {
        self.fresh(0).await?;
        let batch: Vec<_> = (0..INSERTED)
            .map(|seq| json!({"seq": seq, "kind": "bench", "pad": "x".repeat(160)}).to_string())
            .map(|text| format!("\"{}\"", text.replace('"', "\\\"")))
            .collect();
        let batch = format!("{{{}}}", batch.join(","));
        let mut conn = self.bench.pool.acquire().await?;
        self.ground.quiet().await;
        let meter = Meter::begin(self.ground.servers, &[]);
        let began = Instant::now();
        for _ in 0..count / INSERTED {
            sqlx::query(
                "insert into due_work (task_id, payload)
                 select 1, p from unnest($1::text::jsonb[]) p",
            )
            .bind(&batch)
            .execute(&mut *conn)
            .await?;
        }
        let per_second = f64::from(count) / began.elapsed().as_secs_f64();
        Ok(Reached { per_second, spent: meter.end(&[]), count })
    }

    /// The tables anew, with `rows` waiting.
    async fn fresh(&self, rows: u32) -> Outcome<()> {
        sqlx::raw_sql(include_str!("../../ceiling/schema.sql")).execute(&self.bench.pool).await?;
        sqlx::query(include_str!("../../ceiling/fill.sql"))
            .bind(i32::try_from(rows)?)
            .execute(&self.bench.pool)
            .await?;
        self.bench.settle().await
    }

    async fn pgbench(
        &self,
        script: &str,
        clients: u32,
        transactions: u32,
        options: &[&str],
    ) -> Outcome<Reached> {
        self.ground.quiet().await;
        let meter = Meter::begin(self.ground.servers, &[]);
        let path = self.ground.env.raw("PATH").unwrap_or_default();
        let per_second =
            pgbench(path, &self.bench.url, script, clients, transactions, options).await?;
        eprintln!("  pgbench, {clients} clients: {per_second:.0} transactions/s");
        Ok(Reached { per_second, spent: meter.end(&[]), count: transactions })
    }
}

/// Runs a script of pgbench with prepared statements; returns transactions a second.
///
/// # Errors
///
/// When pgbench is missing or fails, with what it said.
pub async fn pgbench(
    search_path: &str,
    url: &str,
    script: &str,
    clients: u32,
    transactions: u32,
    options: &[&str],
) -> Outcome<f64> {
    let program = find(search_path)
        .ok_or("pgbench is not installed; it comes with the server's or the client's package")?;
    let mut child = tokio::process::Command::new(program)
        .args(["-n", "-M", "prepared", "-f", "-"])
        .args(["-c", &clients.to_string(), "-j", &clients.min(2).to_string()])
        .args(["-t", &(transactions / clients).to_string()])
        .args(options)
        // Not as an argument: it holds the password.
        .env("PGDATABASE", url)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(script.as_bytes()).await?;
    }
    let output = child.wait_with_output().await?;
    let text = String::from_utf8_lossy(&output.stdout);
    let rate =
        text.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    match rate {
        Some(rate) if output.status.success() => Ok(rate),
        _ => Err(format!("pgbench failed: {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}

/// In `PATH`, or where Debian keeps it.
fn find(search_path: &str) -> Option<PathBuf> {
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let debian = debian.filter_map(Result::ok).map(|version| version.path().join("bin"));
    std::env::split_paths(search_path)
        .chain(debian)
        .map(|folder| folder.join("pgbench"))
        .find(|program: &PathBuf| Path::is_file(program))
}
