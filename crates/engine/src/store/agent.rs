//! Agents, their API keys, and the access tokens made from keys.
//!
//! Secrets are 256 random bits; only their SHA-256 is kept, so a stolen database opens nothing. A
//! plain hash is enough: nobody can guess 256 bits, so there is nothing for a slow hash to slow down.

use std::time::Duration;

use base64::Engine as _;
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use sha2::{Digest, Sha256};
use sqlx::{PgConnection, PgPool};

use super::StoreError;
use crate::agent::Agent;
use crate::id::{AgentId, KeyId};

/// How every API key begins, so that a scanner of leaked texts knows it.
pub const KEY_PREFIX: &str = "orc_";
/// How every access token begins.
pub const TOKEN_PREFIX: &str = "oat_";
/// How every feed token begins.
pub const FEED_PREFIX: &str = "ofd_";
/// The name of the agent that [`ensure_admin`] makes.
pub const ADMIN: &str = "admin";
/// The longest name of an agent, in bytes.
pub const NAME_MAX: usize = 100;
/// The shortest secret that [`ensure_admin`] takes, in bytes.
pub const ADMIN_KEY_MIN: usize = 24;
/// The most live keys one agent may have.
pub const KEYS_MAX: i64 = 20;

/// An agent as its administrators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AgentRow {
    /// Its id.
    pub id: AgentId,
    /// Its name, unique.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Since when it is refused.
    pub disabled_at: Option<DateTime<Utc>>,
}

/// A key, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyRow {
    /// Its id.
    pub id: KeyId,
    /// How it begins, to tell keys apart.
    pub hint: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Since when it is refused.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// A key just made: the only time its secret is seen.
#[derive(Clone)]
pub struct NewKey {
    /// The key.
    pub row: KeyRow,
    /// What the agent sends. Never log it.
    pub secret: String,
}

/// Who a secret belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The agent.
    pub agent: Agent,
    /// The key that was sent, or that the token was made from.
    pub key_id: KeyId,
}

/// A new secret that begins with `prefix`.
pub(super) fn secret(prefix: &str, rng: &mut impl rand::Rng) -> String {
    let mut bits = [0; 32];
    rng.fill_bytes(&mut bits);
    format!("{prefix}{}", base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(bits))
}

pub(super) fn hash(secret: &str) -> Vec<u8> {
    Sha256::digest(secret.as_bytes()).to_vec()
}

pub(super) fn hint(secret: &str) -> String {
    secret.chars().take(KEY_PREFIX.len() + 4).collect()
}

/// What is wrong with the name of an agent, if anything.
///
/// # Errors
///
/// A sentence that says what a name looks like.
pub fn check_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if begins
        && name.len() <= NAME_MAX
        && name.chars().all(plain)
        && uuid::Uuid::parse_str(name).is_err()
    {
        return Ok(());
    }
    Err(format!(
        "must be 1 to {NAME_MAX} letters, digits, '-', '_' or '.', begin with a letter or digit, \
         and not look like an id"
    ))
}

/// Makes an agent without a key.
///
/// # Errors
///
/// [`StoreError::Conflict`] when the name is taken.
pub async fn create(
    conn: &mut PgConnection,
    name: &str,
    scopes: &[String],
    now: DateTime<Utc>,
) -> Result<AgentRow, StoreError> {
    let id = AgentId::new(now, &mut crate::id::rng());
    sqlx::query_as!(
        AgentRow,
        r#"
        insert into agent (id, name, scopes, created_at) values ($1, $2, $3, $4)
        on conflict (name) do nothing
        returning id as "id: AgentId", name, scopes, created_at, disabled_at
        "#,
        id.0,
        name,
        scopes,
        now,
    )
    .fetch_optional(conn)
    .await
    .map_err(StoreError::while_trying("make an agent"))?
    .ok_or_else(|| StoreError::Conflict(format!("there is an agent {name:?} already")))
}

/// The agent with this id or name.
///
/// # Errors
///
/// [`StoreError::NotFound`].
pub async fn get(conn: &mut PgConnection, id_or_name: &str) -> Result<AgentRow, StoreError> {
    sqlx::query_as!(
        AgentRow,
        r#"
        select id as "id: AgentId", name, scopes, created_at, disabled_at
        from agent where id = $1 or name = $2
        "#,
        id_or_name.parse::<uuid::Uuid>().ok(),
        id_or_name,
    )
    .fetch_optional(conn)
    .await
    .map_err(StoreError::while_trying("look up an agent"))?
    .ok_or_else(|| StoreError::NotFound { what: "agent", id: id_or_name.to_owned() })
}

/// At most `limit` agents older than `before`, the newest first.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn list(
    conn: &mut PgConnection,
    before: Option<AgentId>,
    limit: i64,
) -> Result<Vec<AgentRow>, StoreError> {
    sqlx::query_as!(
        AgentRow,
        r#"
        select id as "id: AgentId", name, scopes, created_at, disabled_at
        from agent where $1::uuid is null or id < $1
        order by id desc limit $2
        "#,
        before.map(|id| id.0),
        limit,
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("list agents"))
}

/// Sets what is given, and returns the agent as it then is. `disabled` takes effect with the next
/// request; a disabled agent keeps its tasks, and its schedules go on.
///
/// # Errors
///
/// [`StoreError::NotFound`]; [`StoreError::Conflict`] when it would leave no administrator.
pub async fn update(
    conn: &mut PgConnection,
    id: AgentId,
    scopes: Option<&[String]>,
    disabled: Option<bool>,
    now: DateTime<Utc>,
) -> Result<AgentRow, StoreError> {
    // Two who disable each other's administrators at once would leave none.
    sqlx::query_scalar!("select 1 from agent where 'admin' = any(scopes) order by id for update")
        .fetch_all(&mut *conn)
        .await
        .map_err(StoreError::while_trying("hold the administrators"))?;
    let row = sqlx::query_as!(
        AgentRow,
        r#"
        update agent set
            scopes = coalesce($2, scopes),
            disabled_at = case $3::boolean
                when true then coalesce(disabled_at, $4) when false then null else disabled_at end
        where id = $1
        returning id as "id: AgentId", name, scopes, created_at, disabled_at
        "#,
        id.0,
        scopes,
        disabled,
        now,
    )
    .fetch_optional(&mut *conn)
    .await
    .map_err(StoreError::while_trying("change an agent"))?
    .ok_or_else(|| StoreError::NotFound { what: "agent", id: id.to_string() })?;
    let administrators = sqlx::query_scalar!(
        r#"select count(*) as "count!" from agent where 'admin' = any(scopes) and disabled_at is null"#
    )
    .fetch_one(conn)
    .await
    .map_err(StoreError::while_trying("count administrators"))?;
    if administrators == 0 {
        return Err(StoreError::Conflict(
            "this would leave no agent with the scope admin: make another one first".into(),
        ));
    }
    Ok(row)
}

/// Makes a key for the agent.
///
/// # Errors
///
/// [`StoreError::NotFound`]; [`StoreError::Conflict`] when it has [`KEYS_MAX`] live ones.
pub async fn create_key(
    conn: &mut PgConnection,
    agent: AgentId,
    now: DateTime<Utc>,
) -> Result<NewKey, StoreError> {
    // The lock makes two requests count one after the other.
    sqlx::query_scalar!("select 1 from agent where id = $1 for update", agent.0)
        .fetch_optional(&mut *conn)
        .await
        .map_err(StoreError::while_trying("look up an agent"))?
        .ok_or_else(|| StoreError::NotFound { what: "agent", id: agent.to_string() })?;
    let live = sqlx::query_scalar!(
        r#"select count(*) as "count!" from agent_key where agent_id = $1 and revoked_at is null"#,
        agent.0
    )
    .fetch_one(&mut *conn)
    .await
    .map_err(StoreError::while_trying("count keys"))?;
    if live >= KEYS_MAX {
        return Err(StoreError::Conflict(format!(
            "the agent has {KEYS_MAX} keys already: revoke one first"
        )));
    }
    let secret = secret(KEY_PREFIX, &mut crate::id::rng());
    let row = insert_key(conn, agent, &secret, now).await?;
    Ok(NewKey { row, secret })
}

async fn insert_key(
    conn: &mut PgConnection,
    agent: AgentId,
    secret: &str,
    now: DateTime<Utc>,
) -> Result<KeyRow, StoreError> {
    sqlx::query_as!(
        KeyRow,
        r#"
        insert into agent_key (id, agent_id, hash, hint, created_at) values ($1, $2, $3, $4, $5)
        returning id as "id: KeyId", hint, created_at, revoked_at
        "#,
        KeyId::new(now, &mut crate::id::rng()).0,
        agent.0,
        hash(secret),
        hint(secret),
        now,
    )
    .fetch_one(conn)
    .await
    .map_err(StoreError::while_trying("make a key"))
}

/// The agent's keys, the newest first, without their secrets.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn keys(conn: &mut PgConnection, agent: AgentId) -> Result<Vec<KeyRow>, StoreError> {
    sqlx::query_as!(
        KeyRow,
        r#"
        select id as "id: KeyId", hint, created_at, revoked_at
        from agent_key where agent_id = $1 order by id desc
        "#,
        agent.0
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("list keys"))
}

/// Refuses the key from now on, and every access token made from it. A second call changes nothing.
///
/// # Errors
///
/// [`StoreError::NotFound`] when the agent has no such key.
pub async fn revoke_key(
    conn: &mut PgConnection,
    agent: AgentId,
    key: KeyId,
    now: DateTime<Utc>,
) -> Result<KeyRow, StoreError> {
    let row = sqlx::query_as!(
        KeyRow,
        r#"
        update agent_key set revoked_at = coalesce(revoked_at, $3)
        where agent_id = $1 and id = $2
        returning id as "id: KeyId", hint, created_at, revoked_at
        "#,
        agent.0,
        key.0,
        now,
    )
    .fetch_optional(&mut *conn)
    .await
    .map_err(StoreError::while_trying("revoke a key"))?
    .ok_or_else(|| StoreError::NotFound { what: "key", id: key.to_string() })?;
    sqlx::query!("delete from access_token where key_id = $1", key.0)
        .execute(conn)
        .await
        .map_err(StoreError::while_trying("end the tokens of a key"))?;
    Ok(row)
}

/// Who each of `secrets` belongs to, whether it is a key or an access token; `None` when nobody: it is
/// unknown, revoked or expired, or its agent is disabled.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn authenticate(
    conn: &mut PgConnection,
    secrets: &[&str],
    now: DateTime<Utc>,
) -> Result<Vec<Option<Caller>>, StoreError> {
    let hashes: Vec<_> = secrets.iter().map(|secret| hash(secret)).collect();
    let rows = sqlx::query!(
        r#"
        select place as "place!", agent_id as "id!: AgentId", name as "name!", scopes as "scopes!",
               key_id as "key_id!: KeyId"
        from recognise($1, $2)
        "#,
        &hashes,
        now,
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("recognise callers"))?;
    let mut callers = vec![None; secrets.len()];
    for row in rows {
        let place = usize::try_from(row.place - 1).unwrap_or(usize::MAX);
        if let Some(caller) = callers.get_mut(place) {
            let agent = Agent { id: row.id, name: row.name, scopes: row.scopes };
            *caller = Some(Caller { agent, key_id: row.key_id });
        }
    }
    Ok(callers)
}

/// Makes an access token from a key; it is good for `lifetime`. Returns what the agent sends.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn issue_token(
    conn: &mut PgConnection,
    key: KeyId,
    lifetime: Duration,
    now: DateTime<Utc>,
) -> Result<String, StoreError> {
    let token = secret(TOKEN_PREFIX, &mut crate::id::rng());
    let lifetime = TimeDelta::from_std(lifetime).unwrap_or(TimeDelta::days(1));
    sqlx::query!(
        "insert into access_token (hash, key_id, expires_at) values ($1, $2, $3)",
        hash(&token),
        key.0,
        now + lifetime,
    )
    .execute(conn)
    .await
    .map_err(StoreError::while_trying("make an access token"))?;
    Ok(token)
}

/// Makes sure that the agent `admin` exists and that `key` is one of its keys. A key that was not known makes
/// it enabled and gives it the scope `admin`; one that was leaves it as it is: an administrator that was
/// disabled stays so. Other keys of it stay. Any number of processes may do this at once, again and again.
///
/// # Errors
///
/// [`StoreError::Conflict`] when `key` is shorter than [`ADMIN_KEY_MIN`], was revoked, or is another
/// agent's.
pub async fn ensure_admin(
    pool: &PgPool,
    key: &str,
    now: DateTime<Utc>,
) -> Result<AgentId, StoreError> {
    if key.len() < ADMIN_KEY_MIN {
        return Err(StoreError::Conflict(format!(
            "the admin key has fewer than {ADMIN_KEY_MIN} characters: a key that short can be guessed"
        )));
    }
    let doing = "make the admin agent";
    let mut tx = pool.begin().await.map_err(StoreError::while_trying(doing))?;
    // The update, even of nothing, holds the row until the end: a twin waits here.
    let admin = sqlx::query_scalar!(
        r#"
        insert into agent (id, name, scopes, created_at) values ($1, $2, array['admin'], $3)
        on conflict (name) do update set name = excluded.name
        returning id as "id: AgentId"
        "#,
        AgentId::new(now, &mut crate::id::rng()).0,
        ADMIN,
        now,
    )
    .fetch_one(&mut *tx)
    .await
    .map_err(StoreError::while_trying(doing))?;
    let known = sqlx::query!(
        r#"select agent_id as "agent_id: AgentId", revoked_at from agent_key where hash = $1"#,
        hash(key)
    )
    .fetch_optional(&mut *tx)
    .await
    .map_err(StoreError::while_trying(doing))?;
    match known {
        None => {
            insert_key(&mut tx, admin, key, now).await?;
            sqlx::query!(
                "
                update agent set
                    disabled_at = null,
                    scopes = case when 'admin' = any(scopes) then scopes else scopes || 'admin'::text end
                where id = $1
                ",
                admin.0
            )
            .execute(&mut *tx)
            .await
            .map_err(StoreError::while_trying(doing))?;
        }
        Some(row) if row.agent_id != admin => {
            return Err(StoreError::Conflict("the admin key is another agent's key".into()));
        }
        Some(row) if row.revoked_at.is_some() => {
            return Err(StoreError::Conflict("the admin key was revoked: set a new one".into()));
        }
        Some(_) => {}
    }
    tx.commit().await.map_err(StoreError::while_trying(doing))?;
    Ok(admin)
}
