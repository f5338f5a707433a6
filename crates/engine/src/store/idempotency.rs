//! First answers, kept so that a repeated request gets the same one and does nothing again.
//!
//! The row is claimed at the start of the transaction that makes the change and filled in at its end:
//! either both are there or neither is. A twin that comes while the first is at work waits for it on
//! the row. Only answers of requests that changed something are kept; a refused request may be
//! corrected and sent again with the same key.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use sqlx::PgConnection;

use super::StoreError;
use crate::id::AgentId;

/// How long a first answer is kept.
pub const KEPT: TimeDelta = TimeDelta::hours(24);
/// The longest key, in bytes.
pub const KEY_MAX: usize = 255;

/// A first answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body; null for none.
    pub body: Value,
    /// Header names and values that belong to it.
    pub headers: Value,
}

/// What [`claim`] found.
#[derive(Clone, Debug, PartialEq)]
pub enum Claim {
    /// The key is new: do the work, then [`keep`] the answer.
    New,
    /// The same request was answered before.
    Answered(Answer),
    /// The key was used for another request.
    Different,
}

/// Claims `key` for a request. Waits while another transaction holds it.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn claim(
    conn: &mut PgConnection,
    agent: AgentId,
    key: &str,
    request_hash: &[u8],
    now: DateTime<Utc>,
) -> Result<Claim, StoreError> {
    let doing = "claim an idempotency key";
    // An answer past its time counts as absent, whether or not it has been pruned yet.
    let claimed = sqlx::query!(
        "
        insert into idempotency (agent_id, key, request_hash, created_at) values ($1, $2, $3, $4)
        on conflict (agent_id, key) do update set
            request_hash = excluded.request_hash, status = null, body = null, headers = null,
            created_at = excluded.created_at
        where idempotency.created_at <= $5
        ",
        agent.0,
        key,
        request_hash,
        now,
        now - KEPT,
    )
    .execute(&mut *conn)
    .await
    .map_err(StoreError::while_trying(doing))?;
    if claimed.rows_affected() == 1 {
        return Ok(Claim::New);
    }
    let first = sqlx::query!(
        "select request_hash, status, body, headers from idempotency where agent_id = $1 and key = $2",
        agent.0,
        key,
    )
    .fetch_one(conn)
    .await
    .map_err(StoreError::while_trying(doing))?;
    if first.request_hash != request_hash {
        return Ok(Claim::Different);
    }
    Ok(Claim::Answered(Answer {
        // A committed row always has its answer: both are written by one transaction.
        status: first.status.and_then(|status| u16::try_from(status).ok()).unwrap_or(200),
        body: first.body.unwrap_or(Value::Null),
        headers: first.headers.unwrap_or(Value::Null),
    }))
}

/// Keeps the answer of the request that claimed `key` in this transaction.
///
/// # Errors
///
/// [`StoreError::NotFound`] when the key was not claimed.
pub async fn keep(
    conn: &mut PgConnection,
    agent: AgentId,
    key: &str,
    answer: &Answer,
) -> Result<(), StoreError> {
    let kept = sqlx::query!(
        "
        update idempotency set status = $3, body = $4, headers = $5
        where agent_id = $1 and key = $2 and status is null
        ",
        agent.0,
        key,
        i16::try_from(answer.status).unwrap_or(200),
        answer.body,
        answer.headers,
    )
    .execute(conn)
    .await
    .map_err(StoreError::while_trying("keep an answer"))?;
    match kept.rows_affected() {
        1 => Ok(()),
        _ => Err(StoreError::NotFound { what: "idempotency key", id: key.to_owned() }),
    }
}
