//! Schedules: how late they fire, how fast a burst is through, what a million of them cost.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use orchestrator_engine::clock::{Clock as _, SystemClock};
use orchestrator_engine::config::Env;
use orchestrator_engine::store::fire;
use orchestrator_scheduler::fire::BATCH;
use serde_json::json;

use crate::Outcome;
use crate::database::Bench;
use crate::processes::Process;
use crate::table::{Table, quantile};

/// How much is measured.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Schedules spread over an hour.
    #[arg(long, default_value_t = 100_000)]
    spread: i32,
    /// For how many seconds their lateness is measured.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Tasks due in one second.
    #[arg(long, default_value_t = 10_000)]
    burst: i32,
    /// Schedules stored.
    #[arg(long, default_value_t = 1_000_000)]
    stored: i32,
    /// Only this part.
    #[arg(long)]
    part: Option<Part>,
}

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// How late schedules spread over an hour fire.
    Lateness,
    /// How fast many that are due at once are through.
    Burst,
    /// What a great many cost while nothing is due, and to claim.
    Stored,
}

/// Measures everything.
pub async fn run(args: Args, env: &Env) -> Outcome<()> {
    let mut table = Table::default();
    let asked = |part| args.part.is_none_or(|only| only == part);
    if asked(Part::Lateness) {
        lateness(&args, env, &mut table).await?;
    }
    if asked(Part::Burst) {
        burst(&args, env, &mut table).await?;
    }
    if asked(Part::Stored) {
        stored(&args, env, &mut table).await?;
    }
    table.write("scheduler")
}

impl Bench {
    /// Adds `count` tasks, the `n`th due at `first` + `n` * `every_micros`, at whole seconds.
    async fn add(
        &self,
        count: i32,
        kind: &str,
        expr: &str,
        first: DateTime<Utc>,
        every_micros: i64,
    ) -> Outcome<()> {
        let spec = json!({
            "title": "a task of a bench", "schedule_kind": kind, "schedule_expr": expr,
            "timezone": "UTC", "policy": {"catch_up_window_seconds": 86_400},
            "payload": {"params": {}, "pipeline": [
                {"id": "echo", "uses": "core.echo", "with": {"message": "a text of some length"}}]},
        });
        let mut tx = self.pool.begin().await?;
        sqlx::query(
            "with new as (
                 insert into task (id, agent_id, title, schedule_kind, status, revision, cursor_at,
                                   next_fire_at, created_at, updated_at)
                 select gen_random_uuid(), (select id from agent limit 1), 'a task of a bench', $2,
                        'active', 1, due - interval '1 hour', due, due - interval '1 hour', now()
                 from (select date_trunc('second', $3::timestamptz
                              + n * $4::bigint * interval '1 microsecond') as due
                       from generate_series(0, $1 - 1) as n) as times
                 returning id, agent_id, created_at)
             insert into task_revision (task_id, revision, spec, created_at, created_by)
             select id, 1, $5, created_at, agent_id from new",
        )
        .bind(count)
        .bind(kind)
        .bind(first)
        .bind(every_micros)
        .bind(spec)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        sqlx::query("vacuum analyze task").execute(&self.pool).await?;
        sqlx::query("vacuum analyze task_revision").execute(&self.pool).await?;
        sqlx::query("checkpoint").execute(&self.pool).await?;
        Ok(())
    }

    /// Transactions of this database so far.
    async fn transactions(&self) -> Outcome<i64> {
        // Statistics are told to others about once a second.
        tokio::time::sleep(Duration::from_secs(2)).await;
        self.count(
            "select xact_commit + xact_rollback from pg_stat_database where datname = current_database()",
        )
        .await
    }
}

/// From a time to the start of the transaction that fired it, in milliseconds.
async fn lateness_ms(bench: &Bench, from: DateTime<Utc>) -> Outcome<Vec<f64>> {
    let mut late: Vec<f64> = sqlx::query_scalar(
        "select extract(epoch from decided_at - nominal_at)::float8 * 1000 from occurrence
         where disposition = 'fired' and nominal_at >= $1",
    )
    .bind(from)
    .fetch_all(&bench.pool)
    .await?;
    late.sort_by(f64::total_cmp);
    Ok(late)
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
async fn lateness(args: &Args, env: &Env, table: &mut Table) -> Outcome<()> {
    let bench = Bench::fresh(env, "spread").await?;
    let begin = SystemClock.now() + TimeDelta::seconds(i64::from(args.spread) / 10_000 + 10);
    bench
        .add(args.spread, "interval", "PT1H", begin, 3_600_000_000 / i64::from(args.spread))
        .await?;
    let scheduler = Process::scheduler(env, &bench.url)?;
    let wait = (begin - SystemClock.now()).to_std().unwrap_or_default();
    tokio::time::sleep(wait + Duration::from_secs(args.seconds)).await;
    let late = lateness_ms(&bench, begin).await?;
    let what = format!("{} schedules over an hour", args.spread);
    table.add(&format!("{what}: fired"), late.len() as f64, "", "");
    table.add(&format!("{what}: lateness p50"), quantile(&late, 0.5), "ms", "");
    table.add(&format!("{what}: lateness p99"), quantile(&late, 0.99), "ms", "< 50 ms");
    table.add(&format!("{what}: lateness max"), quantile(&late, 1.0), "ms", "");
    table.add(
        &format!("{what}: scheduler CPU"),
        100.0 * scheduler.cpu_seconds()? / (wait.as_secs_f64() + args.seconds as f64),
        "%",
        "",
    );
    table.add(&format!("{what}: scheduler memory"), scheduler.memory_mib()?, "MiB", "");
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
async fn burst(args: &Args, env: &Env, table: &mut Table) -> Outcome<()> {
    let bench = Bench::fresh(env, "burst").await?;
    let due = SystemClock.now() + TimeDelta::seconds(i64::from(args.burst) / 10_000 + 10);
    let due = DateTime::from_timestamp(due.timestamp(), 0).unwrap_or(due);
    bench.add(args.burst, "interval", "PT1H", due, 0).await?;
    let schedulers = [
        Process::scheduler(env, &bench.url)?,
        Process::scheduler(env, &bench.url)?,
        Process::scheduler(env, &bench.url)?,
    ];
    tokio::time::sleep((due - SystemClock.now()).to_std().unwrap_or_default()).await;
    let deadline = Instant::now() + Duration::from_mins(1);
    let through = loop {
        let fired = bench.count("select count(*) from due_work").await?;
        if fired >= i64::from(args.burst) || Instant::now() > deadline {
            break (SystemClock.now() - due).as_seconds_f64();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let late = lateness_ms(&bench, due).await?;
    let what = format!("{} tasks due in one second, 3 schedulers", args.burst);
    table.add(&format!("{what}: all fired after"), through, "s", "< 2 s");
    table.add(&format!("{what}: lateness p50"), quantile(&late, 0.5), "ms", "");
    table.add(&format!("{what}: lateness max"), quantile(&late, 1.0), "ms", "");
    let twice = "select count(*) - count(distinct task_id) from due_work";
    table.add(&format!("{what}: fired twice"), bench.count(twice).await? as f64, "", "0");
    let runs = bench.count("select count(*) from due_work").await?;
    table.add(&format!("{what}: runs"), runs as f64, "", &args.burst.to_string());
    drop(schedulers);
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
async fn stored(args: &Args, env: &Env, table: &mut Table) -> Outcome<()> {
    let few = Bench::fresh(env, "few").await?;
    let bench = Bench::fresh(env, "stored").await?;
    let far = SystemClock.now() + TimeDelta::days(2);
    few.add(10, "interval", "PT1H", far, 3_600_000_000 / 10).await?;
    bench.add(args.stored, "interval", "PT1H", far, 3_600_000_000 / i64::from(args.stored)).await?;
    let what = format!("{} schedules stored", args.stored);

    let idle_seconds = 60;
    for (bench, what) in [(&few, "10 schedules stored"), (&bench, &what[..])] {
        let scheduler = Process::scheduler(env, &bench.url)?;
        // Connections tell their first statistics late.
        tokio::time::sleep(Duration::from_secs(20)).await;
        let (before, cpu) = (bench.transactions().await?, scheduler.cpu_seconds()?);
        let began = Instant::now();
        tokio::time::sleep(Duration::from_secs(idle_seconds)).await;
        let transactions = bench.transactions().await? - before - 1;
        let seconds = began.elapsed().as_secs_f64();
        let cpu = scheduler.cpu_seconds()? - cpu;
        table.add(
            &format!("{what}: idle transactions"),
            transactions as f64 / seconds,
            "1/s",
            "< 1/s",
        );
        table.add(&format!("{what}: idle CPU"), 100.0 * cpu / seconds, "%", "");
        table.add(&format!("{what}: scheduler memory"), scheduler.memory_mib()?, "MiB", "");
    }
    for batch in [28, BATCH] {
        let mut took = Vec::new();
        for _ in 0..60 {
            let mut tx = bench.pool.begin().await?;
            let began = Instant::now();
            let due = fire::claim_due(&mut tx, far + TimeDelta::hours(1), batch).await?;
            took.push(began.elapsed().as_secs_f64() * 1000.0);
            assert_eq!(due.len(), usize::from(batch));
            tx.rollback().await?;
        }
        took.drain(..10); // warming up
        took.sort_by(f64::total_cmp);
        table.add(&format!("{what}: claim {batch}, p50"), quantile(&took, 0.5), "ms", "< 5 ms");
        table.add(&format!("{what}: claim {batch}, p99"), quantile(&took, 0.99), "ms", "");
    }
    Ok(())
}
