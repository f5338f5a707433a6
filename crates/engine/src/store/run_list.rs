//! Which runs match: the ids behind lists, and behind ending or retrying many.
//!
//! Every page costs about as many rows as it has, also with tens of millions of runs in a hundred
//! partitions. Four things see to that:
//!
//! - The statement is planned for the values it is given each time, so what is not asked for is not
//!   there, and whole partitions are left out.
//! - Partitions are read one after the other, the newest first, until the page is full. Postgres does
//!   that only where the default partition is out of the question; so that one is asked by itself. (It
//!   is not out of the question while weeks between others have no partition: slower, and still right.)
//! - Only runs that did not succeed have an error. Said to Postgres as well, it reads nothing but those.
//! - The time in a run's id is when it was made, which for nearly all runs is when it was to start. `from`
//!   and `to` become bounds of ids; those made more than [`APART`] before or after are found by the index
//!   `run_apart`. Its condition holds all of them: a run cannot begin before it is made, and one that is
//!   made before its time has a nominal time, from its schedule or from who asked for it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{Connection as _, PgConnection};

use super::StoreError;
use super::run::RunFilter;
use crate::id::RunId;
use crate::run::{RunStatus, Trigger};

/// A run made within so long of its scheduled time counts as made on time. Twice what `run_apart` says:
/// the clocks of processes differ.
pub const APART: Duration = Duration::from_mins(1);

/// Where runs are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Among {
    /// Everywhere.
    All,
    /// Those queued or on that nobody has asked to end.
    Open,
    /// Those that are over.
    Over,
}

/// The bounds of ids of the weekly partitions; equal when there are none.
struct Weeks {
    first: uuid::Uuid,
    end: uuid::Uuid,
}

/// The partitions there are; besides, has statements planned for their values until the transaction
/// ends.
async fn weeks_planned_for_values(conn: &mut PgConnection) -> Result<Weeks, StoreError> {
    let row = sqlx::query!(
        r#"
        select uuid_at(min(w.monday)) as first, uuid_at(max(w.monday) + interval '7 days') as end,
               set_config('plan_cache_mode', 'force_custom_plan', true) as mode
        from (
            select to_date(right(c.relname, 7), 'IYYY"w"IW')::timestamp at time zone 'UTC' as monday
            from pg_inherits i join pg_class c on c.oid = i.inhrelid
            where i.inhparent = 'run'::regclass and c.relname ~ '^run_[0-9]{4}w[0-9]{2}$'
        ) as w
        "#,
    )
    .fetch_one(conn)
    .await
    .map_err(StoreError::while_trying("look at the partitions of runs"))?;
    let none = uuid::Uuid::nil();
    Ok(Weeks { first: row.first.unwrap_or(none), end: row.end.unwrap_or(none) })
}

/// The smallest id of a run made at `at`.
fn id_at(at: DateTime<Utc>) -> uuid::Uuid {
    let millis = u128::try_from(at.timestamp_millis()).unwrap_or(0).min((1 << 48) - 1);
    uuid::Uuid::from_u128(millis << 80)
}

/// The ids of at most `limit` runs made before `before`, the newest first.
///
/// # Errors
///
/// [`StoreError::Database`].
#[expect(clippy::too_many_lines, reason = "one statement")]
pub async fn matching(
    conn: &mut PgConnection,
    filter: &RunFilter,
    among: Among,
    before: Option<RunId>,
    limit: i64,
) -> Result<Vec<RunId>, StoreError> {
    let mut tx = conn.begin().await.map_err(StoreError::while_trying("begin to look for runs"))?;
    let weeks = weeks_planned_for_values(&mut tx).await?;
    let before = before.map_or(uuid::Uuid::max(), |id| id.0);
    let on_time_from = filter.from.map(|from| id_at(from - APART));
    let on_time_to = filter.to.map(|to| id_at(to + APART));
    let is_over = filter.status.map(RunStatus::is_finished);
    let in_queue = among != Among::Over && is_over != Some(true);
    let over = among != Among::Open && is_over != Some(false);
    let found = sqlx::query_scalar!(
        r#"
        select r.id as "id!: RunId"
        from (
            (select w.run_id as id from due_work w left join leased l on l.run_id = w.run_id
             where $1::bool and w.run_id < $2
               and ($3::uuid is null or agent_id = $3)
               and ($4::uuid is null or task_id = $4)
               and ($5::text is null
                    or $5 = case when l.token is null then 'queued' else 'running' end)
               and ($6::text is null or trigger = $6)
               and ($7::timestamptz is null or scheduled_at >= $7)
               and ($8::timestamptz is null or scheduled_at < $8)
               and ($9::text is null or last_error ->> 'kind' = $9)
               and (not $10::bool or cancel_requested_at is null)
             order by w.run_id desc limit $11)
            union all
            -- Made on time.
            (select id from run
             where $12::bool and id < $2 and id >= $13 and id < $14
               and ($3::uuid is null or agent_id = $3)
               and ($4::uuid is null or task_id = $4)
               and ($5::text is null or status = $5)
               and ($6::text is null or trigger = $6)
               and ($7::timestamptz is null or scheduled_at >= $7)
               and ($8::timestamptz is null or scheduled_at < $8)
               and ($9::text is null or error ->> 'kind' = $9 and status <> 'succeeded')
             order by id desc limit $11)
            union all
            -- Made earlier.
            (select id from (
                select id from run
                where $12::bool and $7::timestamptz is not null and id < $2 and id >= $15 and id < $13
                  and ($3::uuid is null or agent_id = $3)
                  and ($4::uuid is null or task_id = $4)
                  and ($5::text is null or status = $5)
                  and ($6::text is null or trigger = $6)
                  and scheduled_at >= $7
                  and ($8::timestamptz is null or scheduled_at < $8)
                  and ($9::text is null or error ->> 'kind' = $9 and status <> 'succeeded')
                  and (coalesce(started_at, finished_at) - scheduled_at > interval '30 s'
                       or scheduled_at - nominal_at > interval '30 s'
                       or (trigger = 'run_now' and nominal_at is not null))
                offset 0) as early
             order by id desc limit $11)
            union all
            -- Made later.
            (select id from (
                select id from run
                where $12::bool and $8::timestamptz is not null and id < $2 and id >= $14 and id < $16
                  and ($3::uuid is null or agent_id = $3)
                  and ($4::uuid is null or task_id = $4)
                  and ($5::text is null or status = $5)
                  and ($6::text is null or trigger = $6)
                  and ($7::timestamptz is null or scheduled_at >= $7)
                  and scheduled_at < $8
                  and ($9::text is null or error ->> 'kind' = $9 and status <> 'succeeded')
                  and (coalesce(started_at, finished_at) - scheduled_at > interval '30 s'
                       or scheduled_at - nominal_at > interval '30 s'
                       or (trigger = 'run_now' and nominal_at is not null))
                offset 0) as late
             order by id desc limit $11)
            union all
            -- Outside all weeks.
            (select id from run_default
             where $12::bool and id < $2 and (id < $15 or id >= $16)
               and ($3::uuid is null or agent_id = $3)
               and ($4::uuid is null or task_id = $4)
               and ($5::text is null or status = $5)
               and ($6::text is null or trigger = $6)
               and ($7::timestamptz is null or scheduled_at >= $7)
               and ($8::timestamptz is null or scheduled_at < $8)
               and ($9::text is null or error ->> 'kind' = $9 and status <> 'succeeded')
             order by id desc limit $11)
        ) as r
        order by r.id desc limit $11
        "#,
        in_queue,
        before,
        filter.agent_id.map(|id| id.0),
        filter.task_id.map(|id| id.0),
        filter.status.map(RunStatus::as_str),
        filter.trigger.map(Trigger::as_str),
        filter.from,
        filter.to,
        filter.error_kind.as_deref(),
        among == Among::Open,
        limit,
        over,
        on_time_from.map_or(weeks.first, |from| from.max(weeks.first)),
        on_time_to.map_or(weeks.end, |to| to.min(weeks.end)),
        weeks.first,
        weeks.end,
    )
    .fetch_all(&mut *tx)
    .await
    .map_err(StoreError::while_trying("look for runs"))?;
    tx.commit().await.map_err(StoreError::while_trying("have looked for runs"))?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_id_of_a_moment_is_what_sql_says_it_is() {
        let at: DateTime<Utc> = "2026-11-25T07:22:32.404Z".parse().unwrap();
        assert_eq!(id_at(at).to_string(), "01a21195-b054-0000-0000-000000000000");
        assert_eq!(id_at(DateTime::UNIX_EPOCH - APART), uuid::Uuid::nil());
    }
}
