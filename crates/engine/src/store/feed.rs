//! What calendar programs read: the tokens they come in with, and the runs that tasks have had and
//! will have.
//!
//! A feed token is a secret in a URL. So it is good for the feeds alone, and only its hash is kept.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;

use super::StoreError;
use super::agent::{FEED_PREFIX, hash, hint, secret};
use crate::agent::Agent;
use crate::id::{AgentId, FeedTokenId, RunId, TaskId};
use crate::task::TaskSpec;

/// The most feed tokens one agent may have.
pub const TOKENS_MAX: i64 = 20;

/// A feed token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRow {
    /// Its id.
    pub id: FeedTokenId,
    /// How it begins, to tell tokens apart.
    pub hint: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// Makes a token for the agent. Returns it and its secret, which is seen this once.
///
/// # Errors
///
/// [`StoreError::Conflict`] when it has [`TOKENS_MAX`].
pub async fn create_token(
    conn: &mut PgConnection,
    agent: AgentId,
    now: DateTime<Utc>,
) -> Result<(TokenRow, String), StoreError> {
    // The lock makes two requests count one after the other.
    sqlx::query!("select 1 as one from agent where id = $1 for update", agent.0)
        .fetch_optional(&mut *conn)
        .await
        .map_err(StoreError::while_trying("look up an agent"))?;
    let count = sqlx::query_scalar!(
        r#"select count(*) as "count!" from feed_token where agent_id = $1"#,
        agent.0
    )
    .fetch_one(&mut *conn)
    .await
    .map_err(StoreError::while_trying("count feed tokens"))?;
    if count >= TOKENS_MAX {
        return Err(StoreError::Conflict(format!(
            "you have {TOKENS_MAX} feed tokens already: revoke one first"
        )));
    }
    let secret = secret(FEED_PREFIX, &mut crate::id::rng());
    let row = sqlx::query_as!(
        TokenRow,
        r#"
        insert into feed_token (id, agent_id, hash, hint, created_at) values ($1, $2, $3, $4, $5)
        returning id as "id: FeedTokenId", hint, created_at
        "#,
        FeedTokenId::new(now, &mut crate::id::rng()).0,
        agent.0,
        hash(&secret),
        hint(&secret),
        now,
    )
    .fetch_one(conn)
    .await
    .map_err(StoreError::while_trying("make a feed token"))?;
    Ok((row, secret))
}

/// The agent's tokens, the newest first.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn tokens(conn: &mut PgConnection, agent: AgentId) -> Result<Vec<TokenRow>, StoreError> {
    sqlx::query_as!(
        TokenRow,
        r#"
        select id as "id: FeedTokenId", hint, created_at
        from feed_token where agent_id = $1 order by id desc
        "#,
        agent.0
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("list feed tokens"))
}

/// Refuses the token from now on, and returns what it was.
///
/// # Errors
///
/// [`StoreError::NotFound`] when the agent has no such token.
pub async fn revoke_token(
    conn: &mut PgConnection,
    agent: AgentId,
    token: FeedTokenId,
) -> Result<TokenRow, StoreError> {
    sqlx::query_as!(
        TokenRow,
        r#"
        delete from feed_token where agent_id = $1 and id = $2
        returning id as "id: FeedTokenId", hint, created_at
        "#,
        agent.0,
        token.0,
    )
    .fetch_optional(conn)
    .await
    .map_err(StoreError::while_trying("revoke a feed token"))?
    .ok_or_else(|| StoreError::NotFound { what: "feed token", id: token.to_string() })
}

/// Whose feeds `secret` opens; `None` when nobody's: it is unknown or revoked, or its agent is
/// disabled.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn authenticate(
    conn: &mut PgConnection,
    secret: &str,
) -> Result<Option<Agent>, StoreError> {
    sqlx::query_as!(
        Agent,
        r#"
        select agent.id as "id: AgentId", agent.name, agent.scopes
        from feed_token join agent on agent.id = feed_token.agent_id
        where feed_token.hash = $1 and agent.disabled_at is null
        "#,
        hash(secret),
    )
    .fetch_optional(conn)
    .await
    .map_err(StoreError::while_trying("recognise a feed token"))
}

/// A task with times to come.
#[derive(Clone, Debug)]
pub struct FeedTask {
    /// The task.
    pub id: TaskId,
    /// Who owns it.
    pub agent_id: AgentId,
    /// What it declares.
    pub spec: TaskSpec,
    /// The start of its rule where it names none.
    pub created_at: DateTime<Utc>,
    /// When a caller last changed it.
    pub updated_at: DateTime<Utc>,
    /// Every nominal time up to here has its disposition.
    pub cursor_at: DateTime<Utc>,
    /// The times before it are put off until then.
    pub snoozed_until: Option<DateTime<Utc>>,
    /// How often it has fired.
    pub fires: i32,
    /// Whether its schedule is followed.
    pub is_active: bool,
}

struct FeedTaskRow {
    id: TaskId,
    agent_id: AgentId,
    spec: Value,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    cursor_at: DateTime<Utc>,
    snoozed_until: Option<DateTime<Utc>>,
    fires: i32,
    is_active: bool,
}

impl FeedTaskRow {
    fn task(self) -> Result<FeedTask, StoreError> {
        let spec = serde_json::from_value(self.spec).map_err(|error| StoreError::Database {
            doing: "read a task",
            source: sqlx::Error::Decode(error.into()),
        })?;
        Ok(FeedTask {
            id: self.id,
            agent_id: self.agent_id,
            spec,
            created_at: self.created_at,
            updated_at: self.updated_at,
            cursor_at: self.cursor_at,
            snoozed_until: self.snoozed_until,
            fires: self.fires,
            is_active: self.is_active,
        })
    }
}

/// The `limit` active tasks that are due next, of one agent or of all, in that order; or the one task
/// `only`, whatever its state.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn tasks(
    conn: &mut PgConnection,
    owner: Option<AgentId>,
    only: Option<TaskId>,
    limit: i64,
) -> Result<Vec<FeedTask>, StoreError> {
    let rows = sqlx::query_as!(
        FeedTaskRow,
        r#"
        select t.id as "id: TaskId", t.agent_id as "agent_id: AgentId", r.spec, t.created_at,
               t.updated_at, t.cursor_at, t.snoozed_until, t.fires, t.status = 'active' as "is_active!"
        from task t join task_revision r on r.task_id = t.id and r.revision = t.revision
        where ($1::uuid is null or t.agent_id = $1)
          and (t.id = $2 or ($2::uuid is null and t.next_fire_at is not null))
        order by t.next_fire_at, t.id limit $3
        "#,
        owner.map(|id| id.0),
        only.map(|id| id.0),
        limit,
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("find the tasks that are due next"))?;
    rows.into_iter().map(FeedTaskRow::task).collect()
}

/// A nominal time that fired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FiredRow {
    /// The task.
    pub task_id: TaskId,
    /// The time.
    pub nominal_at: DateTime<Utc>,
    /// What became of it: `fired` or `backfilled`.
    pub disposition: String,
    /// The run that was made.
    pub run_id: Option<RunId>,
}

/// The `limit` latest times of `tasks` from `from` to before `to` for which a run was made.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn fired(
    conn: &mut PgConnection,
    tasks: &[TaskId],
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<FiredRow>, StoreError> {
    let tasks: Vec<uuid::Uuid> = tasks.iter().map(|task| task.0).collect();
    sqlx::query_as!(
        FiredRow,
        r#"
        select task_id as "task_id: TaskId", nominal_at, disposition, run_id as "run_id: RunId"
        from occurrence
        where task_id = any($1) and nominal_at >= $2 and nominal_at < $3
          and disposition in ('fired', 'backfilled')
        order by nominal_at desc limit $4
        "#,
        &tasks,
        from,
        to,
        limit,
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("read what has fired"))
}
