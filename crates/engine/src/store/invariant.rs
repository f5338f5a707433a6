//! What must be true of the data at every moment, each as a query that counts the exceptions.
//!
//! To add one: write the query, give it a name here; `/admin/invariants`, the metric and the tests
//! take it from [`check`].

use sqlx::PgConnection;

use super::StoreError;

/// One sentence that must be true, and how often it is not.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Invariant {
    /// A word for programs.
    pub name: &'static str,
    /// The sentence.
    pub says: &'static str,
    /// How many rows contradict it.
    pub violations: i64,
}

/// Names of all invariants, for whoever needs them before they are first checked.
pub const NAMES: &[&str; 11] = &[
    "run_in_one_place",
    "fired_has_run",
    "past_times_decided",
    "step_has_run",
    "consumed_event_once",
    "one_lease_a_run",
    "serial_runs_alone",
    "concurrency_in_bounds",
    "rate_in_bounds",
    "held_runs_move",
    "queued_runs_whole",
];

/// Their sentences, in the same order.
const SAYS: &[&str; 11] = &[
    "a run is in the queue or finished, never both",
    "every time that fired has its run",
    "an active schedule always has a next time",
    "every step record has its run",
    "an event that started runs counts as consumed",
    "a run has one live lease at most",
    "where runs of a schedule go one at a time, one at most is let in",
    "never more runs of a concurrency key are let in than its limit",
    "within its period, a rate has let in no more runs than its limit",
    "a run that is held is let in within five minutes of its turn",
    "a queued run has a task or a pipeline of its own, and fields within their bounds",
];

/// Where there may be millions of rows, so many of the newest and as many of the oldest are looked at, found by an
/// index: history costs nothing then.
///
/// Asked every five minutes, a row is among the newest once as long as no more than 160 a second are new, and
/// among the oldest (of the queue; of the last seven days) before it goes. What is not looked at is the middle of a
/// queue of more than twice as many, and what came in a faster stream, until it is old.
const ROWS: i64 = 50_000;

/// Asks every invariant. Costs a few scans of the queue and a bounded look at history: not for every second.
///
/// A held run is no exception while runs end that let it in: one of the newest 100 of its task, or 1,000 of its
/// agent, within five minutes. Scalar subqueries, `offset 0` and comparisons of rows keep the planner from
/// reading all runs in order to join them.
///
/// # Errors
///
/// [`StoreError::Database`].
#[expect(clippy::too_many_lines, reason = "one query, a snapshot for all")]
pub async fn check(conn: &mut PgConnection) -> Result<Vec<Invariant>, StoreError> {
    let row = sqlx::query!(
        r#"
        select
            (select count(*) from (
                (select run_id from due_work order by run_id desc limit $1)
                union (select run_id from due_work order by run_id limit $1)) as w
             where (select 1 from run r where r.id = w.run_id) is not null)
                as "run_in_one_place!",
            (select count(*) from (
                (select task_id, nominal_at, disposition, run_id from occurrence
                 where decided_at > now() - interval '7 days' order by decided_at desc limit $1)
                union (select task_id, nominal_at, disposition, run_id from occurrence
                 where decided_at > now() - interval '7 days' order by decided_at limit $1)) as o
             where o.disposition in ('fired', 'backfilled')
               and (select 1 from due_work w where w.run_id = o.run_id) is null
               and (select 1 from run r where r.id = o.run_id) is null)
                as "fired_has_run!",
            (select count(*) from task
             where status = 'active' and next_fire_at is null
               and schedule_kind in ('cron', 'rrule', 'interval', 'once'))
                as "past_times_decided!",
            (select count(*) from (
                (select run_id, path, attempt from run_step
                 where run_id >= uuid_at(now() - interval '7 days') order by run_id desc limit $1)
                union (select run_id, path, attempt from run_step
                 where run_id >= uuid_at(now() - interval '7 days') order by run_id limit $1)) as s
             where (select 1 from due_work w where w.run_id = s.run_id) is null
               and (select 1 from run r where r.id = s.run_id) is null)
                as "step_has_run!",
            (select coalesce(sum((select count(*) from event_run e where e.event_id = v.id)), 0)::bigint
             from (select id from event where consumed_at is null order by id limit $1) as v)
                as "consumed_event_once!",
            (select count(*) from (
                select run_id from leased group by run_id having count(*) > 1) as doubly
             where (select 1 from due_work w where w.run_id = doubly.run_id) is not null)
                as "one_lease_a_run!",
            (select count(*) from (
                select from due_work
                where serial and held is null and trigger in ('schedule', 'backfill')
                group by task_id having count(*) > 1) as crowded)
                as "serial_runs_alone!",
            (select count(*) from (
                select from due_work
                where concurrency_key is not null and (held is null or held = 'rate')
                group by agent_id, concurrency_key
                having count(*) > min(concurrency_limit)) as crowded)
                as "concurrency_in_bounds!",
            (select count(*) from rate_window
             where starts[cardinality(starts)] - starts[cardinality(starts) - last_limit]
                   < make_interval(secs => last_period_seconds))
                as "rate_in_bounds!",
            (select count(*) from (
                select w.task_id from (
                    select distinct task_id from due_work
                    where held = 'overlap' and run_at < now() - interval '5 minutes') as w
                where (select 1 from due_work o where o.task_id = w.task_id
                       and (o.held is null or o.held in ('concurrency', 'rate')) limit 1) is null
                offset 0) as w
               where ((select max(finished_at) from (
                           select task_id, finished_at from run
                           where (task_id, id) <= (w.task_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
                           order by task_id desc, id desc limit 100) as r
                       where r.task_id = w.task_id)
                      > now() - interval '5 minutes') is not true)
            + (select count(*) from (select * from (
                select distinct on (agent_id, concurrency_key)
                       agent_id, concurrency_key, concurrency_limit, run_at
                from due_work where held = 'concurrency' and run_at <= now()
                order by agent_id, concurrency_key, priority, scheduled_at, run_id) as w
               where run_at < now() - interval '5 minutes'
               and (select count(*) < least(w.concurrency_limit, min(o.concurrency_limit))
                    from due_work o
                    where o.agent_id = w.agent_id and o.concurrency_key = w.concurrency_key
                      and (o.held is null or o.held = 'rate'))
               offset 0) as w
               where ((select max(finished_at) from (
                           select agent_id, finished_at from run
                           where (agent_id, id) <= (w.agent_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
                           order by agent_id desc, id desc limit 1000) as r
                       where r.agent_id = w.agent_id)
                      > now() - interval '5 minutes') is not true)
            + (select count(*) from (
                select distinct on (agent_id, rate_key)
                       agent_id, rate_key, rate_limit, rate_period_seconds, run_at
                from due_work where held = 'rate' and run_at <= now()
                order by agent_id, rate_key, priority, scheduled_at, run_id) as w
               where run_at < now() - interval '5 minutes'
               and not exists (
                   select from rate_window r where r.agent_id = w.agent_id and r.key = w.rate_key
                   and r.starts[cardinality(r.starts) - w.rate_limit + 1]
                       > now() - make_interval(secs => w.rate_period_seconds) - interval '5 minutes'))
            + (select count(*) from due_work, pace
               where held = 'catch_up' and run_at < now() - interval '5 minutes'
               and name = 'catch_up' and used_to < now() - interval '5 minutes')
                as "held_runs_move!",
            (select count(*) from due_work
             where (task_id is null and definition is not null and revision is null
                    or task_id is not null and definition is null and revision is not null) is not true
                or priority not between 1 and 9 or attempt < 0
                or trigger not in ('schedule', 'event', 'condition', 'run_now', 'backfill', 'run_task')
                or held not in ('overlap', 'catch_up', 'concurrency', 'rate')
                or num_nulls(concurrency_key, concurrency_limit) = 1
                or length(concurrency_key) not between 1 and 200 or concurrency_limit < 1
                or num_nulls(rate_key, rate_limit, rate_period_seconds) not in (0, 3)
                or length(rate_key) not between 1 and 210 or rate_limit < 1 or rate_period_seconds < 1)
                as "queued_runs_whole!"
        "#,
        ROWS,
    )
    .fetch_one(conn)
    .await
    .map_err(StoreError::while_trying("check the invariants"))?;

    let violations = [
        row.run_in_one_place,
        row.fired_has_run,
        row.past_times_decided,
        row.step_has_run,
        row.consumed_event_once,
        row.one_lease_a_run,
        row.serial_runs_alone,
        row.concurrency_in_bounds,
        row.rate_in_bounds,
        row.held_runs_move,
        row.queued_runs_whole,
    ];
    let sentences = NAMES.iter().zip(SAYS);
    Ok(sentences
        .zip(violations)
        .map(|((&name, &says), violations)| Invariant { name, says, violations })
        .collect())
}
