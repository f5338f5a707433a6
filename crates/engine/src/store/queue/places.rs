//! Concurrency keys: never more runs of a key are in than any of them allows.
//!
//! A run is *in* from the moment it is let in until it has ended, also while it waits for its rate, for
//! its worker, or for its next attempt. Tasks that share a key, and revisions of one, may declare
//! different limits: a run comes in when, with it, no more are in than the smallest limit among them.
//! So a limit that was lowered holds as soon as the first run that knows it is in.

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::held::Admitted;
use super::rates::admit_rates;
use crate::id::AgentId;
use crate::store::{StoreError, lock_name};

/// What [`admit_key`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// So many runs may begin.
    pub begun: u64,
    /// The rates that others wait for now.
    pub rates: Vec<String>,
}

/// Gives the free places of the concurrency key to runs whose time has come, by priority, then the
/// longest due first. To be called in a transaction of its own.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn admit_key(
    conn: &mut PgConnection,
    owner: AgentId,
    key: &str,
) -> Result<Placed, StoreError> {
    // The statement after this one sees whatever the lock waited for.
    lock_name(conn, &format!("{owner}/{key}")).await?;
    // Rows that somebody is moving or ending are left to the next look.
    let rates = sqlx::query_scalar!(
        "
        with inside as materialized (
            select count(*) as runs, min(concurrency_limit) as smallest from due_work
            where agent_id = $1 and concurrency_key = $2 and concurrency_key is not null
              and (held is null or held = 'rate')
        ),
        line as materialized (
            select run_id, concurrency_limit, priority, scheduled_at from due_work
            where agent_id = $1 and concurrency_key = $2 and held = 'concurrency'
              and run_at <= statement_timestamp()
            order by priority, scheduled_at, run_id
            limit greatest(0, coalesce((
                select concurrency_limit from due_work
                where agent_id = $1 and concurrency_key = $2 and held = 'concurrency'
                  and run_at <= statement_timestamp()
                order by priority, scheduled_at, run_id limit 1), 0)
                - (select runs from inside))
            for update skip locked
        ),
        fit as (
            select l.run_id
            from (select run_id, row_number() over line_up as place,
                         min(concurrency_limit) over line_up as smallest
                  from line window line_up as (order by priority, scheduled_at, run_id)) as l, inside
            where inside.runs + l.place <= least(l.smallest, inside.smallest)
        )
        update due_work w
        set held = case when w.rate_key is not null then 'rate' end,
            run_at = greatest(w.run_at, statement_timestamp())
        from fit where w.run_id = fit.run_id
        returning w.rate_key
        ",
        owner.0,
        key,
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("let runs of a concurrency key begin"))?;
    let mut placed = Placed::default();
    for rate in rates {
        match rate {
            None => placed.begun += 1,
            Some(rate) => placed.rates.push(rate),
        }
    }
    placed.rates.sort_unstable();
    placed.rates.dedup();
    Ok(placed)
}

/// The concurrency keys, of one agent or of all, that have both a run whose time has come and a free
/// place for it.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn keys_to_admit(
    conn: &mut PgConnection,
    owner: Option<AgentId>,
) -> Result<Vec<(AgentId, String)>, StoreError> {
    // From key to key by the index, however many runs wait for one.
    let rows = sqlx::query!(
        r#"
        with recursive keys as (
            (select agent_id, concurrency_key from due_work
             where held = 'concurrency' and agent_id between $1 and $2
             order by agent_id, concurrency_key limit 1)
            union all
            select next.agent_id, next.concurrency_key
            from keys k cross join lateral (
                select w.agent_id, w.concurrency_key from due_work w
                where w.held = 'concurrency' and w.agent_id between $1 and $2
                  and (w.agent_id, w.concurrency_key) > (k.agent_id, k.concurrency_key)
                order by w.agent_id, w.concurrency_key limit 1) as next
        )
        select k.agent_id as "agent_id!: AgentId", k.concurrency_key as "key!"
        from keys k
        cross join lateral (
            select concurrency_limit from due_work w
            where w.agent_id = k.agent_id and w.concurrency_key = k.concurrency_key
              and w.held = 'concurrency' and w.run_at <= now()
            order by w.priority, w.scheduled_at, w.run_id limit 1
        ) as first
        cross join lateral (
            select count(*) as runs, min(concurrency_limit) as smallest from due_work w
            where w.agent_id = k.agent_id and w.concurrency_key = k.concurrency_key
              and w.concurrency_key is not null and (w.held is null or w.held = 'rate')
        ) as inside
        where inside.runs < least(first.concurrency_limit, inside.smallest)
        "#,
        owner.map_or(Uuid::nil(), |owner| owner.0),
        owner.map_or(Uuid::max(), |owner| owner.0),
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("look for concurrency keys with a free place"))?;
    Ok(rows.into_iter().map(|row| (row.agent_id, row.key)).collect())
}

/// [`admit_key`] for each of the keys, and then their rates, each in a transaction of its own.
///
/// # Errors
///
/// [`StoreError::Database`]; what was committed before stays.
pub async fn admit_keys(pool: &PgPool, keys: &[(AgentId, String)]) -> Result<Admitted, StoreError> {
    let mut admitted = Admitted::default();
    for (owner, key) in keys {
        let mut tx = pool.begin().await.map_err(StoreError::while_trying("begin to admit runs"))?;
        let placed = admit_key(&mut tx, *owner, key).await?;
        tx.commit().await.map_err(StoreError::while_trying("commit an admission"))?;
        admitted.begun += placed.begun;
        let rates: Vec<_> = placed.rates.into_iter().map(|rate| (*owner, rate)).collect();
        admitted += admit_rates(pool, &rates).await?;
    }
    Ok(admitted)
}
