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
pub const NAMES: &[&str] = &[
    "run_in_one_place",
    "fired_has_run",
    "past_times_decided",
    "step_has_run",
    "consumed_event_once",
    "one_lease_a_run",
    "serial_runs_alone",
    "concurrency_in_bounds",
];

/// Asks every invariant. Costs a scan of the queue and of recent history: not for every second.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn check(conn: &mut PgConnection) -> Result<Vec<Invariant>, StoreError> {
    let row = sqlx::query!(
        r#"
        select
            (select count(*) from due_work w join run r on r.id = w.run_id)
                as "run_in_one_place!",
            (select count(*) from occurrence o
             where o.disposition in ('fired', 'backfilled')
               and o.decided_at > now() - interval '7 days'
               and not exists (select from due_work w where w.run_id = o.run_id)
               and not exists (select from run r where r.id = o.run_id))
                as "fired_has_run!",
            (select count(*) from task
             where status = 'active' and next_fire_at is null
               and schedule_kind in ('cron', 'rrule', 'interval', 'once'))
                as "past_times_decided!",
            (select count(*) from run_step s
             where s.run_id >= uuid_at(now() - interval '7 days')
               and not exists (select from due_work w where w.run_id = s.run_id)
               and not exists (select from run r where r.id = s.run_id))
                as "step_has_run!",
            (select count(*) from event_run e join event v on v.id = e.event_id
             where v.consumed_at is null)
                as "consumed_event_once!",
            (select count(*) from (
                select from due_work w join leased l on l.run_id = w.run_id
                group by w.run_id having count(*) > 1) as doubly)
                as "one_lease_a_run!",
            (select count(*) from (
                select from due_work
                where serial and held is null and trigger in ('schedule', 'backfill')
                group by task_id having count(*) > 1) as crowded)
                as "serial_runs_alone!",
            (select count(*) from (
                select from due_work
                where concurrency_key is not null and held is null
                group by agent_id, concurrency_key
                having count(*) > max(concurrency_limit)) as crowded)
                as "concurrency_in_bounds!"
        "#,
    )
    .fetch_one(conn)
    .await
    .map_err(StoreError::while_trying("check the invariants"))?;

    let invariant =
        |index: usize, says, violations| Invariant { name: NAMES[index], says, violations };
    Ok(vec![
        invariant(0, "a run is in the queue or finished, never both", row.run_in_one_place),
        invariant(1, "every time that fired has its run", row.fired_has_run),
        invariant(2, "an active schedule always has a next time", row.past_times_decided),
        invariant(3, "every step record has its run", row.step_has_run),
        invariant(4, "an event that started runs counts as consumed", row.consumed_event_once),
        invariant(5, "a run has one live lease at most", row.one_lease_a_run),
        invariant(
            6,
            "where runs of a schedule go one at a time, one at most is let in",
            row.serial_runs_alone,
        ),
        invariant(
            7,
            "never more runs of a concurrency key are let in than its limit",
            row.concurrency_in_bounds,
        ),
    ])
}
