//! Rates: within any stretch of `rate_period_seconds` at most `rate_limit` runs are let in.
//!
//! The instants of the last runs of a rate are kept (`rate_window`), so the limit is exact and not an
//! average: a run is let in when the one `rate_limit` before it was let in a whole period ago. With
//! nothing before, that many may begin at once. It is the last thing a run waits for, so being let in
//! is being able to begin; an attempt after the first needs no second turn.

use std::time::Duration;

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::held::Admitted;
use crate::id::AgentId;
use crate::store::{StoreError, lock_name};

/// Lets runs of the rate begin whose time has come, by priority, then the longest due first. Returns
/// how many. To be called in a transaction of its own.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn admit_rate(
    conn: &mut PgConnection,
    owner: AgentId,
    key: &str,
) -> Result<u64, StoreError> {
    // The statements after this one see whatever the lock waited for.
    lock_name(conn, &format!("rate/{owner}/{key}")).await?;
    let mut admitted = 0;
    loop {
        // Runs of one limit at a time: the next may have another.
        let runs = admit_alike(conn, owner, key).await?;
        if runs == 0 {
            return Ok(admitted);
        }
        admitted += u64::try_from(runs).unwrap_or(0);
    }
}

/// Lets in the first run of the rate and those directly behind it that know the same limit.
async fn admit_alike(
    conn: &mut PgConnection,
    owner: AgentId,
    key: &str,
) -> Result<i64, StoreError> {
    // A clock that was set back must not bring an instant before the last. Rows that somebody is
    // moving or ending are left to the next look.
    sqlx::query_scalar!(
        r#"
        with known as materialized (
            select coalesce(r.starts, '{}') as starts, coalesce(r.kept, 0) as kept,
                   greatest(statement_timestamp(), r.starts[cardinality(r.starts)]) as at
            from (select) as always
            left join rate_window r on r.agent_id = $1 and r.key = $2
        ),
        first as materialized (
            select w.rate_limit as most, w.rate_period_seconds as period_seconds
            from due_work w, known
            where w.agent_id = $1 and w.rate_key = $2 and w.held = 'rate' and w.run_at <= known.at
            order by w.priority, w.scheduled_at, w.run_id limit 1
        ),
        line as materialized (
            select w.run_id, w.priority, w.scheduled_at,
                   w.rate_limit = first.most and w.rate_period_seconds = first.period_seconds as alike
            from due_work w, first, known
            where w.agent_id = $1 and w.rate_key = $2 and w.held = 'rate' and w.run_at <= known.at
            order by w.priority, w.scheduled_at, w.run_id
            limit coalesce((
                select greatest(0, first.most - (
                    select count(*) from unnest(known.starts) as start(at)
                    where start.at > known.at - make_interval(secs => first.period_seconds)))
                from first, known), 0)
            for update of w skip locked
        ),
        fit as (
            select run_id, bool_and(alike) over (order by priority, scheduled_at, run_id) as alike
            from line
        ),
        freed as (
            update due_work w set held = null, run_at = known.at
            from fit, known
            where w.run_id = fit.run_id and fit.alike
            returning w.run_id
        ),
        let_in as (select count(*)::int as runs from freed),
        noted as (
            insert into rate_window as r (agent_id, key, starts, kept, last_limit, last_period_seconds)
            select $1, $2, now_known.starts[greatest(1, cardinality(now_known.starts) - now_known.kept + 1):],
                   now_known.kept, now_known.most, now_known.period_seconds
            from (
                select known.starts || array_fill(known.at, array[let_in.runs]) as starts,
                       greatest(known.kept, first.most + 1) as kept, first.most, first.period_seconds
                from known, first, let_in where let_in.runs > 0
            ) as now_known
            on conflict (agent_id, key) do update set
                starts = excluded.starts, kept = excluded.kept, last_limit = excluded.last_limit,
                last_period_seconds = excluded.last_period_seconds
        )
        select runs::bigint as "runs!" from let_in
        "#,
        owner.0,
        key,
    )
    .fetch_one(conn)
    .await
    .map_err(StoreError::while_trying("let runs of a rate begin"))
}

/// A rate for whose turn at least one run waits whose time has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingRate {
    /// Whose it is.
    pub owner: AgentId,
    /// Its name.
    pub key: String,
    /// How long until the first of the runs may be let in; zero when it may already.
    pub wait: Duration,
}

/// The rates, of one agent or of all, that runs wait for whose time has come.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn waiting_rates(
    conn: &mut PgConnection,
    owner: Option<AgentId>,
) -> Result<Vec<WaitingRate>, StoreError> {
    // From key to key by the index, however many runs wait for one.
    let rows = sqlx::query!(
        r#"
        with recursive keys as (
            (select agent_id, rate_key from due_work
             where held = 'rate' and agent_id between $1 and $2
             order by agent_id, rate_key limit 1)
            union all
            select next.agent_id, next.rate_key
            from keys k cross join lateral (
                select w.agent_id, w.rate_key from due_work w
                where w.held = 'rate' and w.agent_id between $1 and $2
                  and (w.agent_id, w.rate_key) > (k.agent_id, k.rate_key)
                order by w.agent_id, w.rate_key limit 1) as next
        )
        select k.agent_id as "agent_id!: AgentId", k.rate_key as "key!",
               case when cardinality(r.starts) >= first.rate_limit
                    then greatest(0, extract(epoch from
                        r.starts[cardinality(r.starts) - first.rate_limit + 1]
                        + make_interval(secs => first.rate_period_seconds) - now()))
                    else 0 end::float8 as "wait!"
        from keys k
        cross join lateral (
            select rate_limit, rate_period_seconds from due_work w
            where w.agent_id = k.agent_id and w.rate_key = k.rate_key
              and w.held = 'rate' and w.run_at <= now()
            order by w.priority, w.scheduled_at, w.run_id limit 1
        ) as first
        left join rate_window r on r.agent_id = k.agent_id and r.key = k.rate_key
        "#,
        owner.map_or(Uuid::nil(), |owner| owner.0),
        owner.map_or(Uuid::max(), |owner| owner.0),
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("look for rates that runs wait for"))?;
    let read = |wait| Duration::try_from_secs_f64(wait).unwrap_or(Duration::MAX);
    Ok(rows
        .into_iter()
        .map(|row| WaitingRate { owner: row.agent_id, key: row.key, wait: read(row.wait) })
        .collect())
}

/// How long until the time of a run comes that will then need a place of its key or a turn of its rate;
/// `None` when there is no such run.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn held_come_due_in(conn: &mut PgConnection) -> Result<Option<Duration>, StoreError> {
    let wait = sqlx::query_scalar!(
        r#"
        select extract(epoch from run_at - now())::float8 as "wait!" from due_work
        where held in ('concurrency', 'rate') and run_at > now()
        order by run_at limit 1
        "#,
    )
    .fetch_optional(conn)
    .await
    .map_err(StoreError::while_trying("ask when a held run comes due"))?;
    Ok(wait.map(|wait| Duration::try_from_secs_f64(wait).unwrap_or(Duration::MAX)))
}

/// [`admit_rate`] for each of the rates, each in a transaction of its own.
///
/// # Errors
///
/// [`StoreError::Database`]; what was committed before stays.
pub async fn admit_rates(
    pool: &PgPool,
    rates: &[(AgentId, String)],
) -> Result<Admitted, StoreError> {
    let mut admitted = Admitted::default();
    for (owner, key) in rates {
        let mut tx = pool.begin().await.map_err(StoreError::while_trying("begin to admit runs"))?;
        admitted.begun += admit_rate(&mut tx, *owner, key).await?;
        let left = sqlx::query_scalar!(
            r#"
            select exists (select from due_work
                           where agent_id = $1 and rate_key = $2 and held = 'rate') as "left!"
            "#,
            owner.0,
            key,
        );
        admitted.rate_waits |= left
            .fetch_one(&mut *tx)
            .await
            .map_err(StoreError::while_trying("ask who waits for a rate"))?;
        tx.commit().await.map_err(StoreError::while_trying("commit an admission"))?;
    }
    Ok(admitted)
}
