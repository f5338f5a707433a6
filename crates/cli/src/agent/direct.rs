//! Agents straight in the database: how the first one comes to be. What is done is recorded, as the
//! server would, but for who did it.

use orchestrator_boot::Service;
use orchestrator_engine::agent::check_scope;
use orchestrator_engine::clock::{Clock as _, SystemClock};
use orchestrator_engine::config::Database;
use orchestrator_engine::id::KeyId;
use orchestrator_engine::store::audit::{self, NewAudit};
use orchestrator_engine::store::{StoreError, agent};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};

use crate::failure::{Failure, with_causes};

/// The database.
pub struct Direct {
    pool: PgPool,
}

impl Direct {
    /// Connects, and brings the schema up to date: there may be none yet.
    pub async fn open(database: &Database) -> Result<Self, Failure> {
        let pool = orchestrator_boot::connect(database, Service::Cli).await?;
        orchestrator_boot::bring_up_to_date(database, Service::Cli, &pool).await?;
        Ok(Self { pool })
    }

    pub async fn create(&self, name: &str, scopes: &[String]) -> Result<Value, Failure> {
        agent::check_name(name).map_err(|said| Failure::Usage(format!("name: {said}")))?;
        for scope in scopes {
            check_scope(scope).map_err(Failure::Usage)?;
        }
        let mut tx = self.pool.begin().await.map_err(Failure::while_doing("begin"))?;
        let made = agent::create(&mut tx, name, scopes, SystemClock.now()).await.map_err(told)?;
        let detail = json!({"name": made.name, "scopes": made.scopes, "direct": true});
        record(&mut tx, "agent.create", &made.id.to_string(), detail).await?;
        tx.commit().await.map_err(Failure::while_doing("keep the agent"))?;
        to_json(&made)
    }

    pub async fn list(&self, limit: usize) -> Result<Value, Failure> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut conn = self.pool.acquire().await.map_err(Failure::while_doing("connect"))?;
        let agents = agent::list(&mut conn, None, limit).await.map_err(told)?;
        Ok(json!({"items": to_json(&agents)?, "next_cursor": null}))
    }

    pub async fn set_disabled(&self, reference: &str, disabled: bool) -> Result<Value, Failure> {
        let mut tx = self.pool.begin().await.map_err(Failure::while_doing("begin"))?;
        let before = agent::get(&mut tx, reference).await.map_err(told)?;
        let now = SystemClock.now();
        let after =
            agent::update(&mut tx, before.id, None, Some(disabled), now).await.map_err(told)?;
        let detail = json!({"disabled": disabled, "direct": true});
        record(&mut tx, "agent.update", &after.id.to_string(), detail).await?;
        tx.commit().await.map_err(Failure::while_doing("keep the change"))?;
        to_json(&after)
    }

    pub async fn create_key(&self, reference: &str) -> Result<Value, Failure> {
        let mut tx = self.pool.begin().await.map_err(Failure::while_doing("begin"))?;
        let owner = agent::get(&mut tx, reference).await.map_err(told)?;
        let made = agent::create_key(&mut tx, owner.id, SystemClock.now()).await.map_err(told)?;
        let detail = json!({"agent_id": owner.id, "hint": made.row.hint, "direct": true});
        record(&mut tx, "key.create", &made.row.id.to_string(), detail).await?;
        tx.commit().await.map_err(Failure::while_doing("keep the key"))?;
        let mut key = to_json(&made.row)?;
        key["key"] = Value::from(made.secret);
        Ok(key)
    }

    pub async fn keys(&self, reference: &str) -> Result<Value, Failure> {
        let mut conn = self.pool.acquire().await.map_err(Failure::while_doing("connect"))?;
        let owner = agent::get(&mut conn, reference).await.map_err(told)?;
        let keys = agent::keys(&mut conn, owner.id).await.map_err(told)?;
        Ok(json!({"items": to_json(&keys)?, "next_cursor": null}))
    }

    pub async fn revoke(&self, reference: &str, key: &str) -> Result<(), Failure> {
        let key: KeyId = key.parse().map_err(Failure::while_doing("read the key's id"))?;
        let mut tx = self.pool.begin().await.map_err(Failure::while_doing("begin"))?;
        let owner = agent::get(&mut tx, reference).await.map_err(told)?;
        let now = SystemClock.now();
        let revoked = agent::revoke_key(&mut tx, owner.id, key, now).await.map_err(told)?;
        let detail = json!({"agent_id": owner.id, "hint": revoked.hint, "direct": true});
        record(&mut tx, "key.revoke", &key.to_string(), detail).await?;
        tx.commit().await.map_err(Failure::while_doing("keep the change"))
    }
}

async fn record(
    conn: &mut PgConnection,
    action: &str,
    object_id: &str,
    detail: Value,
) -> Result<(), Failure> {
    let object_kind = action.split('.').next().unwrap_or(action);
    let row = NewAudit {
        at: SystemClock.now(),
        agent_id: None,
        action,
        object_kind,
        object_id,
        request_id: None,
        detail,
    };
    audit::record(conn, &row).await.map_err(told)
}

/// With the cause, which for a person at the database is no secret.
#[expect(clippy::needless_pass_by_value, reason = "it is for map_err")]
fn told(error: StoreError) -> Failure {
    Failure::failed(with_causes(&error))
}

fn to_json(row: &impl Serialize) -> Result<Value, Failure> {
    serde_json::to_value(row).map_err(Failure::while_doing("show the answer"))
}
