//! Who did what. A row is written in the transaction of the change it tells of, so there is never
//! one without the other; the table itself refuses updates and deletions.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgConnection;

use super::StoreError;
use crate::id::AgentId;

/// One change, as it is to be recorded.
#[derive(Clone, Debug)]
pub struct NewAudit<'a> {
    /// When.
    pub at: DateTime<Utc>,
    /// Who; `None`: the system itself.
    pub agent_id: Option<AgentId>,
    /// `noun.verb`: `task.create`.
    pub action: &'a str,
    /// The noun it was done to.
    pub object_kind: &'a str,
    /// Its id.
    pub object_id: &'a str,
    /// The request that did it.
    pub request_id: Option<&'a str>,
    /// What else is worth knowing. No secrets, no payloads.
    pub detail: Value,
}

/// One recorded change.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AuditRow {
    /// Counts up.
    pub id: i64,
    /// When.
    pub at: DateTime<Utc>,
    /// Who; `None`: the system itself.
    pub agent_id: Option<AgentId>,
    /// The name of who did it.
    pub agent: Option<String>,
    /// `noun.verb`.
    pub action: String,
    /// The noun it was done to.
    pub object_kind: String,
    /// Its id.
    pub object_id: String,
    /// The request that did it.
    pub request_id: Option<String>,
    /// What else is worth knowing.
    pub detail: Value,
}

/// What [`list`] looks for; everything that is `None` matches all.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Done by this agent.
    pub agent_id: Option<AgentId>,
    /// This `noun.verb`.
    pub action: Option<String>,
    /// Done to this noun.
    pub object_kind: Option<String>,
    /// Done to the object of this id.
    pub object_id: Option<String>,
    /// Not before.
    pub from: Option<DateTime<Utc>>,
    /// Before.
    pub to: Option<DateTime<Utc>>,
}

/// Records a change. Call it in the transaction that makes it.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn record(conn: &mut PgConnection, audit: &NewAudit<'_>) -> Result<(), StoreError> {
    sqlx::query!(
        "
        insert into audit_log (at, agent_id, action, object_kind, object_id, request_id, detail)
        values ($1, $2, $3, $4, $5, $6, $7)
        ",
        audit.at,
        audit.agent_id.map(|id| id.0),
        audit.action,
        audit.object_kind,
        audit.object_id,
        audit.request_id,
        audit.detail,
    )
    .execute(conn)
    .await
    .map_err(StoreError::while_trying("record a change"))?;
    Ok(())
}

/// Records changes in one statement. Call it in the transaction that makes them.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn record_many(
    conn: &mut PgConnection,
    audits: &[NewAudit<'_>],
) -> Result<(), StoreError> {
    if audits.is_empty() {
        return Ok(());
    }
    let at: Vec<_> = audits.iter().map(|audit| audit.at).collect();
    let agents: Vec<_> = audits.iter().map(|audit| audit.agent_id.map(|id| id.0)).collect();
    let actions: Vec<_> = audits.iter().map(|audit| audit.action).collect();
    let kinds: Vec<_> = audits.iter().map(|audit| audit.object_kind).collect();
    let objects: Vec<_> = audits.iter().map(|audit| audit.object_id).collect();
    let requests: Vec<_> = audits.iter().map(|audit| audit.request_id).collect();
    let details: Vec<_> = audits.iter().map(|audit| audit.detail.clone()).collect();
    sqlx::query!(
        "
        insert into audit_log (at, agent_id, action, object_kind, object_id, request_id, detail)
        select * from unnest($1::timestamptz[], $2::uuid[], $3::text[], $4::text[], $5::text[],
                             $6::text[], $7::jsonb[])
        ",
        &at,
        &agents as &[Option<uuid::Uuid>],
        &actions as &[&str],
        &kinds as &[&str],
        &objects as &[&str],
        &requests as &[Option<&str>],
        &details,
    )
    .execute(conn)
    .await
    .map_err(StoreError::while_trying("record changes"))?;
    Ok(())
}

/// At most `limit` changes before number `before`, the newest first.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn list(
    conn: &mut PgConnection,
    filter: &AuditFilter,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<AuditRow>, StoreError> {
    sqlx::query_as!(
        AuditRow,
        r#"
        select audit_log.id, at, agent_id as "agent_id: AgentId", agent.name as "agent?", action,
               object_kind, object_id, request_id, detail
        from audit_log left join agent on agent.id = audit_log.agent_id
        where ($1::bigint is null or audit_log.id < $1)
          and ($2::uuid is null or agent_id = $2)
          and ($3::text is null or action = $3)
          and ($4::text is null or object_kind = $4)
          and ($5::text is null or object_id = $5)
          and ($6::timestamptz is null or at >= $6)
          and ($7::timestamptz is null or at < $7)
        order by audit_log.id desc limit $8
        "#,
        before,
        filter.agent_id.map(|id| id.0),
        filter.action,
        filter.object_kind,
        filter.object_id,
        filter.from,
        filter.to,
        limit,
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("list changes"))
}
