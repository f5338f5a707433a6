//! Keeping runs that were taken from the queue ([`super::take`]), and giving them back.

use std::time::Duration;

use serde_json::Value;
use sqlx::PgConnection;

use crate::id::{AgentId, LeaseToken, RunId, TaskId};
use crate::run::{RunError, RunInfo};
use crate::store::{StoreError, seconds};
use crate::text_enum;

/// A worker's right to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// Which run.
    pub run_id: RunId,
    /// What every write about the run must present.
    pub token: LeaseToken,
}

/// A run just leased, with what is needed to work on it.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about a run")]
pub struct Leased {
    /// The right to it.
    pub lease: Lease,
    /// It was leased ahead: nothing of it may have effects outside before [`begin`]. When the lease
    /// lapses until then, that was no attempt.
    pub ahead: bool,
    /// Who owns it.
    pub agent_id: AgentId,
    /// The revision of its task that it is pinned to; `None` for a pipeline without a task.
    pub task: Option<(TaskId, i32)>,
    /// 1 (first) to 9.
    pub priority: i16,
    /// What its expressions see of it; the attempt is the one that begins now.
    pub info: RunInfo,
    /// Why what it was given cannot be read, where that is so: it can only fail.
    pub unreadable: Option<String>,
    /// Parameters over the task's own.
    pub params: Option<Value>,
    /// What its expressions see as `event`.
    pub event: Option<Value>,
    /// The payload of a pipeline without a task.
    pub definition: Option<Value>,
    /// Why the attempt before failed, as far as it could say.
    pub last_error: Option<RunError>,
    /// How long it might have been started already, by the database's clock.
    pub waited: Duration,
    /// It is not to be started any more (`expires_after_seconds`), and never was.
    pub expired: bool,
    /// Somebody asked that it be canceled while nobody held it.
    pub cancel_requested: bool,
    /// Whether there may be records of its steps, and why.
    pub past: Past,
    /// Whether another run of its task may wait for its end.
    pub serial: bool,
    /// The concurrency key whose place it has.
    pub concurrency_key: Option<String>,
}

text_enum! {
    /// What a run has behind it when it is leased.
    Past {
        /// Nothing: nobody has held it before.
        Fresh = "fresh",
        /// Its last holder gave it back.
        Returned = "returned",
        /// Its last holder neither finished it nor gave it back: it died, or was cut off.
        Lapsed = "lapsed",
    }
}

/// What renewing did to one lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// The run whose lease was renewed.
    pub run_id: RunId,
    /// Somebody wants it canceled: stop it.
    pub cancel_requested: bool,
}

/// Renews all of a worker's leases for `duration` from now, in one statement. A lease that is not in
/// the answer is lost: another worker has the run, or it has ended.
///
/// # Errors
///
/// [`StoreError::Database`]; the leases are then as they were.
pub async fn renew(
    conn: &mut PgConnection,
    leases: &[Lease],
    duration: Duration,
) -> Result<Vec<Renewal>, StoreError> {
    let (runs, tokens) = columns(leases);
    let rows = sqlx::query!(
        r#"
        with kept as (
            update lease set until = now() + make_interval(secs => $3)
            where token = any($4)
            returning token, run_ids
        ),
        held as materialized (
            select kept.token, r.run_id from kept cross join unnest(kept.run_ids) as r(run_id)
        )
        select w.run_id as "run_id: RunId", w.cancel_requested_at is not null as "cancel_requested!"
        from unnest($1::uuid[], $2::bigint[]) as given(run_id, token)
        join held using (run_id, token)
        join due_work w using (run_id)
        "#,
        &runs,
        &tokens,
        seconds(duration),
        &distinct(&tokens),
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("renew leases"))?;
    Ok(rows
        .into_iter()
        .map(|row| Renewal { run_id: row.run_id, cancel_requested: row.cancel_requested })
        .collect())
}

/// Gives leases back without burning the attempt: another worker may take the runs at once. Returns
/// how many were still ours.
///
/// # Errors
///
/// [`StoreError::Database`]; the runs are then taken over when the leases lapse.
pub async fn release(conn: &mut PgConnection, leases: &[Lease]) -> Result<u64, StoreError> {
    let (runs, tokens) = columns(leases);
    let done = sqlx::query_scalar!(
        r#"
        with live as materialized (
            select token, run_ids from lease where token = any($2) for no key update
        ),
        given as materialized (
            -- Said once more, because the answer was lost, it must not touch the run's next holder.
            select g.* from unnest($1::uuid[], $2::bigint[]) as g(run_id, token)
            join live on live.token = g.token and g.run_id = any(live.run_ids)
        ),
        back as (
            update lease l
            set run_ids = array(select r from unnest(l.run_ids) as r
                                where r not in (select run_id from given where token = l.token))
            where l.token = any($2)
            returning l.token, l.made_at
        ),
        noted as (
            update due_work w set started_at = coalesce(w.started_at, back.made_at), lapses = 0
            from given join back using (token)
            where w.run_id = given.run_id
            returning w.run_id
        )
        select count(*) as "count!" from noted
        "#,
        &runs,
        &tokens,
    )
    .fetch_one(&mut *conn)
    .await
    .map_err(StoreError::while_trying("give leases back"))?;
    rewind(conn).await?;
    Ok(done.unsigned_abs())
}

/// Notes that runs leased ahead are begun. Returns those whose leases hold.
///
/// # Errors
///
/// [`StoreError::Database`]; none may be begun then.
pub async fn begin(conn: &mut PgConnection, leases: &[Lease]) -> Result<Vec<RunId>, StoreError> {
    let (runs, tokens) = columns(leases);
    sqlx::query_scalar!(
        r#"
        with given as (
            select * from unnest($1::uuid[], $2::bigint[]) as g(run_id, token)
        ),
        begun as (
            update lease l
            set begun = l.begun || array(select run_id from given where token = l.token)
            where l.token = any($2)
            returning l.token, l.run_ids
        )
        select given.run_id as "run_id!: RunId"
        from given join begun on begun.token = given.token and given.run_id = any(begun.run_ids)
        "#,
        &runs,
        &tokens,
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("note that runs are begun"))
}

/// Gives runs back that were leased ahead and not begun, as if nobody had ever held them.
///
/// # Errors
///
/// [`StoreError::Database`]; they are then free when the leases lapse.
pub async fn put_back(conn: &mut PgConnection, leases: &[Lease]) -> Result<(), StoreError> {
    let (runs, tokens) = columns(leases);
    sqlx::query!(
        "
        update lease l
        set run_ids = array(select r from unnest(l.run_ids) as r
                            where r not in (select run_id from unnest($1::uuid[], $2::bigint[])
                                                as g(run_id, token) where g.token = l.token))
        where l.token = any($2)
        ",
        &runs,
        &tokens,
    )
    .execute(&mut *conn)
    .await
    .map_err(StoreError::while_trying("put runs back"))?;
    rewind(conn).await
}

/// Ends the leases that have lapsed, as takers do, for those who look at runs that nobody holds.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn end_lapsed(conn: &mut PgConnection) -> Result<(), StoreError> {
    sqlx::query_scalar!("select end_lapsed(array(select token from lease where until <= now()))")
        .fetch_one(conn)
        .await
        .map_err(StoreError::while_trying("end leases that have lapsed"))?;
    Ok(())
}

/// Ends leases of whose runs none is left.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn end_leases(conn: &mut PgConnection, tokens: &[LeaseToken]) -> Result<(), StoreError> {
    let tokens: Vec<_> = tokens.iter().map(|token| token.0).collect();
    sqlx::query!("delete from lease where token = any($1)", &tokens)
        .execute(conn)
        .await
        .map_err(StoreError::while_trying("end leases"))?;
    Ok(())
}

/// Tells takers that runs are back where they were in the order.
async fn rewind(conn: &mut PgConnection) -> Result<(), StoreError> {
    sqlx::query_scalar!("select nextval('lease_rewind')")
        .fetch_one(conn)
        .await
        .map_err(StoreError::while_trying("note that runs are back"))?;
    Ok(())
}

/// Each once: a statement about hundreds of runs has few leases to look up.
pub(super) fn distinct(tokens: &[i64]) -> Vec<i64> {
    let mut tokens = tokens.to_vec();
    tokens.sort_unstable();
    tokens.dedup();
    tokens
}

/// Leases as the columns that `unnest` takes.
pub(super) fn columns(leases: &[Lease]) -> (Vec<uuid::Uuid>, Vec<i64>) {
    leases.iter().map(|lease| (lease.run_id.0, lease.token.0)).unzip()
}
