//! What is old goes.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection};

use super::StoreError;
use crate::task::RATE_PERIOD_MAX_SECONDS;

/// First answers to requests with an `Idempotency-Key` are kept so long.
const IDEMPOTENCY_KEPT: Duration = Duration::from_hours(24);
/// Partitions are made so long ahead.
const PARTITIONS_AHEAD: Duration = Duration::from_hours(3 * 7 * 24);
/// The advisory lock that keeps two schedulers from pruning at once: `prune` in ASCII.
const LOCK: i64 = 0x70_72_75_6e_65;

/// How much was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Weekly partitions of runs and their steps.
    pub partitions: i32,
    /// Events.
    pub events: u64,
    /// Entries of the occurrence ledger.
    pub occurrences: u64,
}

/// Removes runs, events and ledger entries older than `kept` at `now`, and answers, tokens, dedupe keys
/// and rates whose time is over; makes the partitions of the weeks to come. `None` when another process is
/// doing so.
///
/// # Errors
///
/// [`StoreError::Database`]; nothing is removed then.
pub async fn prune(
    conn: &mut PgConnection,
    kept: Duration,
    now: DateTime<Utc>,
) -> Result<Option<Pruned>, StoreError> {
    let failed = || StoreError::while_trying("prune old records");
    let mut tx = conn.begin().await.map_err(failed())?;
    let ours = sqlx::query_scalar!(r#"select pg_try_advisory_xact_lock($1) as "ours!""#, LOCK)
        .fetch_one(&mut *tx)
        .await
        .map_err(failed())?;
    if !ours {
        return Ok(None);
    }
    let horizon = now - kept;
    sqlx::query!("select ensure_run_partitions($1, $2)", now, now + PARTITIONS_AHEAD,)
        .fetch_one(&mut *tx)
        .await
        .map_err(failed())?;
    let partitions =
        sqlx::query_scalar!(r#"select drop_run_partitions($1) as "dropped!""#, horizon,)
            .fetch_one(&mut *tx)
            .await
            .map_err(failed())?;
    let events = sqlx::query!(
        "
        delete from event
        where id < uuid_at($1) and consumed_at is not null
        ",
        horizon,
    )
    .execute(&mut *tx)
    .await
    .map_err(failed())?
    .rows_affected();
    let occurrences = sqlx::query!("delete from occurrence where decided_at < $1", horizon,)
        .execute(&mut *tx)
        .await
        .map_err(failed())?
        .rows_affected();
    sqlx::query!("delete from idempotency where created_at < $1", now - IDEMPOTENCY_KEPT,)
        .execute(&mut *tx)
        .await
        .map_err(failed())?;
    sqlx::query!("delete from access_token where expires_at < $1", now)
        .execute(&mut *tx)
        .await
        .map_err(failed())?;
    sqlx::query!("delete from dedupe where until < now()")
        .execute(&mut *tx)
        .await
        .map_err(failed())?;
    // No rate looks back further.
    sqlx::query!(
        "
        delete from rate_window
        where starts[cardinality(starts)] < now() - make_interval(secs => $1)
        ",
        f64::from(RATE_PERIOD_MAX_SECONDS),
    )
    .execute(&mut *tx)
    .await
    .map_err(failed())?;
    tx.commit().await.map_err(failed())?;
    Ok(Some(Pruned { partitions, events, occurrences }))
}
