//! One fault, from the start of the servers to the verdict.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::check::{self, Figures, Known, Ledger, Run, Step};
use crate::faults::Fault;
use crate::load::{self, Accepted, Door};
use crate::plan::{BACK_WITHIN, LEASE};
use crate::tasks::{SERIAL, TASKS};
use crate::world::World;
use crate::{Outcome, Plan};

/// How long the queue may take to become empty before what is in it counts as lost.
const EMPTY_WITHIN: Duration = Duration::from_mins(5);

/// How often the invariants are asked for while everything is going on.
const INVARIANTS_EVERY: Duration = Duration::from_secs(3);

/// What became of one fault.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// Which fault.
    pub fault: &'static str,
    /// What it is.
    pub about: &'static str,
    /// What was done, in a few words.
    pub done: String,
    /// What was counted.
    pub figures: Figures,
    /// How often the invariants were asked for.
    pub invariants_asked: usize,
    /// Requests that had to be sent again before they were answered.
    pub requests_again: usize,
    /// From the end of a harm to the next run that finished, in seconds: the longest of all times that it
    /// was done.
    pub back_after_seconds: f64,
    /// How long all of it took, in seconds.
    pub took_seconds: f64,
    /// What is wrong; empty when everything is as promised.
    pub problems: Vec<String>,
    /// The service was not back in time: apart from the others, because it is about time.
    pub too_late: Option<String>,
}

/// Starts everything, does the harm under load, and looks what became of every run. Logs, calls and
/// the verdict go to `folder`, which is emptied before.
///
/// # Errors
///
/// When the trial could not be held; a promise that was broken is no error but a problem of the verdict.
pub async fn trial(fault: &Fault, plan: &Plan, folder: &Path) -> Outcome<Verdict> {
    let began = Instant::now();
    drop(std::fs::remove_dir_all(folder)); // there is none the first time
    std::fs::create_dir_all(folder)?;
    let mut world = World::start(fault.stage, plan, folder).await?;
    let receiver = world.receiver.address.to_string();
    for task in TASKS {
        world.door.post("/tasks", &task.declare(&receiver)).await?;
    }
    let watch = CancellationToken::new();
    let watching = tokio::spawn(watch_invariants(world.door.clone(), watch.clone()));
    let sending = tokio::spawn(load::send_all(world.door.clone(), plan.clone()));
    let bursts = tokio::spawn(load::send_bursts(world.door.clone(), plan.clone()));

    tokio::time::sleep(plan.load / 10).await;
    let done = fault.inject(&mut world, plan).await?;
    let mut accepted = sending.await??;
    accepted.add(bursts.await??);
    let back_after = slowest_return(&world.pool, &world.made_good).await?;
    for task in SERIAL {
        let reason = json!({"reason": "the trial is over"});
        world.door.post(&format!("/tasks/{task}/pause"), &reason).await?;
    }
    let left = until_empty(&world.pool).await?;

    let mut problems = world.ended_by_themselves();
    watch.cancel();
    let violations = watching.await?;
    let invariants_asked = violations.asked;
    problems.extend(violations.found);
    world.receiver.log.write(&folder.join("calls.jsonl"))?;
    let requests_again = accepted.again;
    let known = gather(&world, accepted, left).await?;
    let figures = check::judge(&known);
    problems.extend(figures.problems());
    problems.extend(world.end().await);

    let limit = LEASE + BACK_WITHIN;
    let too_late = (back_after > limit.as_secs_f64())
        .then(|| format!("the next run finished after {back_after:.1} s, not {limit:?}"));
    let verdict = Verdict {
        fault: fault.name,
        about: fault.about,
        done,
        figures,
        invariants_asked,
        requests_again,
        back_after_seconds: back_after,
        took_seconds: began.elapsed().as_secs_f64(),
        problems,
        too_late,
    };
    std::fs::write(folder.join("verdict.json"), serde_json::to_string_pretty(&verdict)? + "\n")?;
    Ok(verdict)
}

/// From each of these moments to the next run that was written down as finished: the longest, in
/// seconds; infinite when one does not come.
async fn slowest_return(pool: &PgPool, moments: &[DateTime<Utc>]) -> Outcome<f64> {
    let mut slowest = 0.0_f64;
    for moment in moments {
        let finish = first_finish_after(pool, *moment).await?;
        let took = finish.map_or(f64::INFINITY, |finish| (finish - moment).as_seconds_f64());
        slowest = slowest.max(took);
    }
    Ok(slowest)
}

/// When the first run after `from` was written down as finished; none when that does not come.
async fn first_finish_after(pool: &PgPool, from: DateTime<Utc>) -> Outcome<Option<DateTime<Utc>>> {
    let until = Instant::now() + EMPTY_WITHIN;
    loop {
        let first: Option<DateTime<Utc>> =
            sqlx::query_scalar("select min(at) from chaos_finish where at > $1")
                .bind(from)
                .fetch_one(pool)
                .await?;
        if first.is_some() || Instant::now() > until {
            return Ok(first);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until no run is in the queue and no event is waiting; returns how many still are when that
/// does not come.
async fn until_empty(pool: &PgPool) -> Outcome<i64> {
    let until = Instant::now() + EMPTY_WITHIN;
    loop {
        let (runs, events): (i64, i64) = sqlx::query_as(
            "select (select count(*) from due_work),
                    (select count(*) from event where consumed_at is null)",
        )
        .fetch_one(pool)
        .await?;
        if runs + events == 0 || Instant::now() > until {
            return Ok(runs);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// What asking for the invariants came to.
#[derive(Default)]
struct Violations {
    asked: usize,
    found: Vec<String>,
}

impl Violations {
    fn look(&mut self, answer: &Value) {
        for one in answer["items"].as_array().into_iter().flatten() {
            if one["violations"] != json!(0) {
                let (name, count) = (&one["name"], &one["violations"]);
                self.found.push(format!("invariant {name}: {count} violations"));
            }
        }
    }
}

/// Asks for the invariants again and again, whenever they can be had, until `stop`, and once more then.
async fn watch_invariants(door: Door, stop: CancellationToken) -> Violations {
    let mut violations = Violations::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(INVARIANTS_EVERY) => {}
        }
        match door.get("/admin/invariants").await {
            Ok(answer) => violations.look(&answer),
            Err(error) => violations.found.push(error.to_string()),
        }
        violations.asked += 1;
        if stop.is_cancelled() {
            return violations;
        }
    }
}

async fn gather(world: &World, accepted: Accepted, left: i64) -> Outcome<Known> {
    let pool = &world.pool;
    let ids: Vec<Uuid> = sqlx::query_scalar("select id from run").fetch_all(pool).await?;
    let runs: Vec<Run> = futures::stream::iter(ids)
        .map(|id| async move {
            let told = world.door.get(&format!("/runs/{id}")).await?;
            let run = read_run(id, &told).ok_or_else(|| format!("a run is told so: {told}"))?;
            Outcome::Ok(run)
        })
        .buffer_unordered(16)
        .try_collect()
        .await?;
    let started: Vec<(Uuid, Uuid)> =
        sqlx::query_as("select event_id, run_id from event_run").fetch_all(pool).await?;
    let mut by_event: HashMap<Uuid, Vec<Uuid>> = HashMap::new();
    for (event, run) in started {
        by_event.entry(event).or_default().push(run);
    }
    let ledgers: Vec<(String, i64, i64, i64)> = sqlx::query_as(
        "select t.name,
                extract(epoch from max(coalesce(o.until_at, o.nominal_at)) - min(o.nominal_at))::bigint
                    + 1,
                sum(o.count)::bigint, count(*) filter (where o.disposition = 'fired')
         from occurrence o join task t on t.id = o.task_id group by t.name",
    )
    .fetch_all(pool)
    .await?;
    Ok(Known {
        accepted: accepted.runs,
        events: accepted.events,
        started: by_event,
        runs,
        left,
        finishes: sqlx::query_as("select run_id, at from chaos_finish").fetch_all(pool).await?,
        ledgers: ledgers
            .into_iter()
            .map(|(task, times, decided, fired)| Ledger { task, times, decided, fired })
            .collect(),
        calls: world.receiver.log.calls(),
    })
}

fn read_run(id: Uuid, told: &Value) -> Option<Run> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let step = |step: &Value| {
        Some(Step {
            path: text(&step["path"])?,
            status: text(&step["status"])?,
            error_kind: text(&step["error"]["kind"]),
        })
    };
    Some(Run {
        id,
        task: text(&told["task_name"])?,
        status: text(&told["status"])?,
        attempt: told["attempt"].as_i64()?,
        answered: told["output"]["json"]["attempt"].as_i64(),
        steps: told["steps"].as_array()?.iter().map(step).collect::<Option<_>>()?,
    })
}
