//! How fast runs come into the queue, beside bare inserts.

use std::time::Instant;

use orchestrator_engine::clock::{Clock as _, SystemClock};
use orchestrator_engine::store::{agent, queue};
use serde_json::json;
use sqlx::{Connection as _, PgConnection};

use super::Ground;
use super::ceiling::{Ceiling, INSERTED, INSERTERS, Reached, pgbench};
use super::work::{NAME, Work};
use crate::Outcome;
use crate::http::{Http, post};
use crate::machine::Meter;
use crate::processes::Process;
use crate::statements::Door;
use crate::table::Rounds;

/// Requests of which the statements are counted.
const COUNTED: u32 = 200;
/// In batches so many times as many are enqueued as one by one.
const BATCHED: u32 = 10;

/// One round: inserts one by one, ours, inserts one by one; the same in batches.
pub async fn measure(ground: &Ground<'_>, figures: &mut Rounds) -> Outcome<()> {
    let ceiling = Ceiling::open(ground).await?;
    let count = ground.scale.singles;
    let before = ceiling.insert(count).await?;
    let (how, single) = singles(ground, count).await?;
    let request = run_now(ground, count).await?;
    let after = ceiling.insert(count).await?;
    let c = f64::midpoint(before.per_second, after.per_second);
    figures.add("ceiling: single inserts on 8 connections", c, "1/s", "");
    tell(figures, &format!("enqueued one by one, {how}"), &single, c, ">= 0.67");
    tell(figures, "POST /tasks/{id}/run_now on 8 connections", &request, c, ">= 0.35");
    let (statements, trips) = trips(ground).await?;
    figures.add("POST /tasks/{id}/run_now: statements", statements, "", "");
    figures.add("POST /tasks/{id}/run_now: waits for Postgres", trips, "", "");

    let count = count * BATCHED;
    let before = ceiling.unnest(count).await?;
    let many = many(ground, count).await?;
    let batch = run_batch(ground, count).await?;
    let after = ceiling.unnest(count).await?;
    let c = f64::midpoint(before.per_second, after.per_second);
    figures.add("ceiling: inserts in batches of 1000", c, "1/s", "");
    tell(figures, "enqueue_many in batches of 1000", &many, c, ">= 0.60");
    match batch {
        Some(batch) => tell(figures, "POST /runs/batch of 1000", &batch, c, ">= 0.60"),
        None => eprintln!("  there is no POST /runs/batch: not measured"),
    }
    Ok(())
}

fn tell(figures: &mut Rounds, what: &str, reached: &Reached, c: f64, target: &str) {
    let each = |seconds: f64| seconds * 1e6 / f64::from(reached.count);
    figures.add(&format!("{what}: rate"), reached.per_second, "1/s", "");
    figures.add(&format!("{what}: ratio"), reached.per_second / c, "", target);
    let spent = &reached.spent;
    figures.add(&format!("{what}: CPU, Postgres"), each(spent.postgres), "us", "");
    if spent.processes > 0.0 {
        figures.add(&format!("{what}: CPU, api"), each(spent.processes), "us", "");
        figures.add(&format!("{what}: CPU, Redis"), each(spent.redis), "us", "");
    }
}

/// By the SQL function, or where there is none, by the engine.
async fn singles(ground: &Ground<'_>, count: u32) -> Outcome<(&'static str, Reached)> {
    let work = Work::fresh(ground, "singles", 1).await?;
    let is_there = work.has_sql_function().await?;
    work.settle().await?;
    let meter = Meter::begin(ground.servers, &[]);
    let (how, per_second) = if is_there {
        let script = format!("select orchestrator.enqueue('{NAME}', '{}');", Work::params(1));
        let path = ground.env.raw("PATH").unwrap_or_default();
        let rate = pgbench(path, &work.bench.url, &script, INSERTERS, count, &[]).await?;
        ("orchestrator.enqueue()", rate)
    } else {
        ("queue::enqueue", by_engine(&work, count).await?)
    };
    let spent = meter.end(&[]);
    expect(&work, count).await?;
    Ok((how, Reached { per_second, spent, count }))
}

async fn by_engine(work: &Work, count: u32) -> Outcome<f64> {
    let mut clients = Vec::new();
    for _ in 0..INSERTERS {
        let mut conn = PgConnection::connect(&work.bench.url).await?;
        let runs: Vec<_> = (0..count / INSERTERS).map(|seq| work.new_run(seq)).collect();
        clients.push(async move {
            for run in runs {
                queue::enqueue(&mut conn, run).await?;
            }
            Outcome::Ok(())
        });
    }
    rate(clients, count).await
}

/// Drives all clients at once; returns how many of `count` a second.
async fn rate<F>(clients: Vec<F>, count: u32) -> Outcome<f64>
where
    F: Future<Output = Outcome<()>> + Send + 'static,
{
    let began = Instant::now();
    let mut going = tokio::task::JoinSet::new();
    for client in clients {
        going.spawn(client);
    }
    while let Some(ended) = going.join_next().await {
        ended??;
    }
    Ok(f64::from(count) / began.elapsed().as_secs_f64())
}

async fn run_now(ground: &Ground<'_>, count: u32) -> Outcome<Reached> {
    let work = Work::fresh(ground, "run_now", 1).await?;
    let api = Process::ready_api(ground.env, &work.bench.url).await?;
    let key = key(&work).await?;
    let request = request(&key);
    let mut clients = Vec::new();
    for _ in 0..INSERTERS {
        let mut http = Http::connect(api.port()).await?;
        // Each connection of the pool has prepared its statements then.
        expect_status(http.send(&request).await?, &http)?;
        let request = request.clone();
        clients.push(async move {
            for _ in 0..count / INSERTERS {
                expect_status(http.send(&request).await?, &http)?;
            }
            Outcome::Ok(())
        });
    }
    work.settle().await?;
    let meter = Meter::begin(ground.servers, &[api.id()]);
    let per_second = rate(clients, count).await?;
    let spent = meter.end(&[]);
    expect(&work, count + INSERTERS).await?;
    Ok(Reached { per_second, spent, count })
}

/// How many statements one `run_now` sends to Postgres, and how often it waits for the answer.
async fn trips(ground: &Ground<'_>) -> Outcome<(f64, f64)> {
    let work = Work::fresh(ground, "trips", 1).await?;
    let door = Door::open(&work.bench.url).await?;
    let api = Process::ready_api(ground.env, &door.url).await?;
    let request = request(&key(&work).await?);
    let mut http = Http::connect(api.port()).await?;
    for _ in 0..20 {
        expect_status(http.send(&request).await?, &http)?;
    }
    let before = (door.statements(), door.trips());
    for _ in 0..COUNTED {
        expect_status(http.send(&request).await?, &http)?;
    }
    #[expect(clippy::cast_precision_loss, reason = "a count of statements")]
    let each = |after: u64, before: u64| (after - before) as f64 / f64::from(COUNTED);
    Ok((each(door.statements(), before.0), each(door.trips(), before.1)))
}

fn request(key: &str) -> Vec<u8> {
    post(&format!("/tasks/{NAME}/run_now"), key, &json!({"params": Work::params(1)}).to_string())
}

fn expect_status(status: u16, http: &Http) -> Outcome<()> {
    match status {
        200..300 => Ok(()),
        other => Err(format!("answered {other}: {}", String::from_utf8_lossy(http.body())).into()),
    }
}

async fn key(work: &Work) -> Outcome<String> {
    let mut conn = work.bench.pool.acquire().await?;
    Ok(agent::create_key(&mut conn, work.agent, SystemClock.now()).await?.secret)
}

/// Whether so many runs are in the queue.
async fn expect(work: &Work, count: u32) -> Outcome<()> {
    let there = work.bench.count("select count(*) from due_work").await?;
    if there == i64::from(count) {
        return Ok(());
    }
    Err(format!("{there} runs are in the queue, not {count}").into())
}

async fn many(ground: &Ground<'_>, count: u32) -> Outcome<Reached> {
    let work = Work::fresh(ground, "many", 1).await?;
    work.settle().await?;
    let meter = Meter::begin(ground.servers, &[]);
    let began = Instant::now();
    work.fill(count).await?;
    let per_second = f64::from(count) / began.elapsed().as_secs_f64();
    let spent = meter.end(&[]);
    expect(&work, count).await?;
    Ok(Reached { per_second, spent, count })
}

/// `None` when this build has no such route.
async fn run_batch(ground: &Ground<'_>, count: u32) -> Outcome<Option<Reached>> {
    let work = Work::fresh(ground, "run_batch", 1).await?;
    let api = Process::ready_api(ground.env, &work.bench.url).await?;
    let key = key(&work).await?;
    let runs: Vec<_> =
        (0..INSERTED).map(|seq| json!({"task": NAME, "params": Work::params(seq)})).collect();
    let request = post("/runs/batch", &key, &json!({"runs": runs}).to_string());
    let mut http = Http::connect(api.port()).await?;
    match http.send(&request).await? {
        404 | 405 => return Ok(None),
        status => expect_status(status, &http)?,
    }
    work.settle().await?;
    let meter = Meter::begin(ground.servers, &[api.id()]);
    let began = Instant::now();
    for _ in 0..count / INSERTED {
        expect_status(http.send(&request).await?, &http)?;
    }
    let per_second = f64::from(count) / began.elapsed().as_secs_f64();
    let spent = meter.end(&[]);
    expect(&work, count + INSERTED).await?;
    Ok(Some(Reached { per_second, spent, count }))
}
