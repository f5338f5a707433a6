//! What is old goes.
//!
//! Rows go a few at a time, each time in a transaction of its own: nobody waits long for one, and what is
//! done stays done. Partitions are made and dropped in short transactions that give up where they would have
//! to wait: whoever stores a run queues behind them.

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
/// How many rows go in one transaction.
const ROWS: i64 = 5_000;

/// How much was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Weekly partitions of runs and their steps.
    pub partitions: i32,
    /// Events.
    pub events: u64,
    /// Entries of the occurrence ledger.
    pub occurrences: u64,
    /// Somebody reads runs for long (a backup): partitions are to be made and dropped another time.
    pub postponed: bool,
}

/// What goes by rows.
#[derive(Clone, Copy)]
enum Rows {
    Events,
    Occurrences,
    Answers,
    Tokens,
    DedupeKeys,
    Rates,
}

/// Removes runs, events and ledger entries older than `kept` at `now`, and answers, tokens, dedupe keys
/// and rates whose time is over; makes the partitions of the weeks to come. `None` when another process is
/// doing so.
///
/// # Errors
///
/// [`StoreError::Database`]; what was removed before stays so.
pub async fn prune(
    conn: &mut PgConnection,
    kept: Duration,
    now: DateTime<Utc>,
) -> Result<Option<Pruned>, StoreError> {
    let horizon = now - kept;
    let mut pruned = Pruned::default();
    match partitions(conn, Weeks::Make(now)).await? {
        Partitions::Done(_) => {}
        Partitions::InUse(_) => pruned.postponed = true,
        Partitions::NotOurs => return Ok(None),
    }
    for rows in [
        Rows::Events,
        Rows::Occurrences,
        Rows::Answers,
        Rows::Tokens,
        Rows::DedupeKeys,
        Rows::Rates,
    ] {
        let gone = delete_all(conn, rows, horizon, now).await?;
        match rows {
            Rows::Events => pruned.events = gone,
            Rows::Occurrences => pruned.occurrences = gone,
            Rows::Answers | Rows::Tokens | Rows::DedupeKeys | Rows::Rates => {}
        }
    }
    // Last, so that no entry of the ledger names a run that is gone.
    match partitions(conn, Weeks::Drop(horizon)).await? {
        Partitions::Done(dropped) => pruned.partitions = dropped,
        Partitions::InUse(dropped) => {
            pruned.partitions = dropped;
            pruned.postponed = true;
        }
        Partitions::NotOurs => {}
    }
    Ok(Some(pruned))
}

/// What became of partitions that were to be made or dropped.
enum Partitions {
    /// So many were.
    Done(i32),
    /// Somebody holds what this has to lock; so many were before.
    InUse(i32),
    /// Another process is pruning.
    NotOurs,
}

/// The partitioned tables, steps first: none of them is to outlive its run.
const TABLES: [&str; 2] = ["run_step", "run"];

/// What is done about partitions.
#[derive(Clone, Copy)]
enum Weeks {
    /// Those from this time on are made, [`PARTITIONS_AHEAD`].
    Make(DateTime<Utc>),
    /// Those before it are dropped.
    Drop(DateTime<Utc>),
}

/// Makes or drops those of one table after the other.
async fn partitions(conn: &mut PgConnection, weeks: Weeks) -> Result<Partitions, StoreError> {
    let failed = || StoreError::while_trying("make and drop partitions");
    let mut all = 0;
    for table in TABLES {
        let mut tx = conn.begin().await.map_err(failed())?;
        if !is_ours(&mut tx).await? {
            return Ok(Partitions::NotOurs);
        }
        match partitions_of(&mut tx, table, weeks).await {
            Err(error) if is_in_use(&error) => return Ok(Partitions::InUse(all)),
            done => all += done.map_err(failed())?,
        }
        tx.commit().await.map_err(failed())?;
    }
    Ok(Partitions::Done(all))
}

/// Returns how many.
async fn partitions_of(
    conn: &mut PgConnection,
    table: &str,
    weeks: Weeks,
) -> Result<i32, sqlx::Error> {
    match weeks {
        Weeks::Make(from) => {
            let until = from + PARTITIONS_AHEAD;
            sqlx::query_scalar!(
                r#"select ensure_partitions($1, $2, $3) as "made!""#,
                table,
                from,
                until
            )
            .fetch_one(conn)
            .await
        }
        Weeks::Drop(before) => {
            sqlx::query_scalar!(r#"select drop_partitions($1, $2) as "dropped!""#, table, before)
                .fetch_one(conn)
                .await
        }
    }
}

/// Whether the lock was not to be had: in time (55P03), or only by a deadlock (40P01).
fn is_in_use(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| code == "55P03" || code == "40P01")
}

/// Keeps others from pruning until the transaction ends, and this transaction from waiting for a lock for
/// long. `false`: another process is pruning.
async fn is_ours(tx: &mut PgConnection) -> Result<bool, StoreError> {
    sqlx::query_scalar!(
        r#"
        select set_config('lock_timeout', '2s', true) is not null and pg_try_advisory_xact_lock($1) as "ours!"
        "#,
        LOCK,
    )
    .fetch_one(tx)
    .await
    .map_err(StoreError::while_trying("keep others from pruning"))
}

/// Deletes [`ROWS`] at a time until nothing is left, or another process is at it. Returns how many went.
async fn delete_all(
    conn: &mut PgConnection,
    rows: Rows,
    horizon: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<u64, StoreError> {
    let failed = || StoreError::while_trying("prune old records");
    let mut all = 0;
    loop {
        let mut tx = conn.begin().await.map_err(failed())?;
        if !is_ours(&mut tx).await? {
            return Ok(all);
        }
        let gone = match delete_some(&mut tx, rows, horizon, now).await {
            // Somebody holds one of them; the next round comes by here again.
            Err(error) if is_in_use(&error) => return Ok(all),
            gone => gone.map_err(failed())?,
        };
        tx.commit().await.map_err(failed())?;
        all += gone;
        if gone < ROWS.unsigned_abs() {
            return Ok(all);
        }
    }
}

/// Deletes at most [`ROWS`]. Where rows change (a dedupe key that is taken anew), the condition stands twice:
/// a row that changed meanwhile is looked at again, and stays.
async fn delete_some(
    conn: &mut PgConnection,
    rows: Rows,
    horizon: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<u64, sqlx::Error> {
    let done = match rows {
        Rows::Events => {
            sqlx::query!(
                "
                delete from event where id = any(array(
                    select id from event where id < uuid_at($1) and consumed_at is not null
                    order by id limit $2))
                ",
                horizon,
                ROWS,
            )
            .execute(conn)
            .await?
        }
        Rows::Occurrences => {
            sqlx::query!(
                "
                delete from occurrence where ctid = any(array(
                    select ctid from occurrence where decided_at < $1 order by decided_at limit $2))
                and decided_at < $1
                ",
                horizon,
                ROWS,
            )
            .execute(conn)
            .await?
        }
        Rows::Answers => {
            sqlx::query!(
                "
                delete from idempotency where ctid = any(array(
                    select ctid from idempotency where created_at < $1 limit $2))
                and created_at < $1
                ",
                now - IDEMPOTENCY_KEPT,
                ROWS,
            )
            .execute(conn)
            .await?
        }
        Rows::Tokens => {
            sqlx::query!(
                "
                delete from access_token where ctid = any(array(
                    select ctid from access_token where expires_at < $1 limit $2))
                and expires_at < $1
                ",
                now,
                ROWS,
            )
            .execute(conn)
            .await?
        }
        Rows::DedupeKeys => {
            sqlx::query!(
                "
                delete from dedupe where ctid = any(array(
                    select ctid from dedupe where until < now() limit $1))
                and until < now()
                ",
                ROWS,
            )
            .execute(conn)
            .await?
        }
        // No rate looks back further.
        Rows::Rates => {
            sqlx::query!(
                "
                delete from rate_window where ctid = any(array(
                    select ctid from rate_window
                    where starts[cardinality(starts)] < now() - make_interval(secs => $1) limit $2))
                and starts[cardinality(starts)] < now() - make_interval(secs => $1)
                ",
                f64::from(RATE_PERIOD_MAX_SECONDS),
                ROWS,
            )
            .execute(conn)
            .await?
        }
    };
    Ok(done.rows_affected())
}
