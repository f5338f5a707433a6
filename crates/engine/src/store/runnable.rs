//! Tasks as far as it matters to whoever starts runs of many of them at once.

use serde_json::Value;
use sqlx::PgConnection;

use super::StoreError;
use crate::id::{AgentId, TaskId};
use crate::task::TaskSpec;

/// A task that can be run.
#[derive(Clone, Debug)]
pub struct Runnable {
    /// Its id.
    pub id: TaskId,
    /// Who owns it.
    pub agent_id: AgentId,
    /// Its name.
    pub name: Option<String>,
    /// It runs no more.
    pub is_canceled: bool,
    /// The revision in force.
    pub revision: i32,
    /// What that declares.
    pub spec: TaskSpec,
}

struct Row {
    id: TaskId,
    agent_id: AgentId,
    name: Option<String>,
    is_canceled: bool,
    revision: i32,
    spec: Value,
}

/// The tasks of these ids, and those of these names that are not canceled; of `owner`, `None`: of all
/// agents. They cannot be canceled or edited until the transaction ends. Several agents may have a task
/// of one name.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn find(
    conn: &mut PgConnection,
    ids: &[uuid::Uuid],
    names: &[String],
    owner: Option<AgentId>,
) -> Result<Vec<Runnable>, StoreError> {
    let doing = "look up tasks to run";
    let rows = sqlx::query_as!(
        Row,
        r#"
        select t.id as "id: TaskId", t.agent_id as "agent_id: AgentId", t.name,
               t.status = 'canceled' as "is_canceled!", t.revision, r.spec
        from task t
        join task_revision r on r.task_id = t.id and r.revision = t.revision
        where (t.id = any($1) or (t.name = any($2) and t.status <> 'canceled'))
          and ($3::uuid is null or t.agent_id = $3)
        order by t.id
        for share of t
        "#,
        ids,
        names,
        owner.map(|owner| owner.0),
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying(doing))?;
    let unreadable = |error: serde_json::Error| StoreError::Database {
        doing,
        source: sqlx::Error::Decode(error.into()),
    };
    rows.into_iter()
        .map(|row| {
            Ok(Runnable {
                id: row.id,
                agent_id: row.agent_id,
                name: row.name,
                is_canceled: row.is_canceled,
                revision: row.revision,
                spec: serde_json::from_value(row.spec).map_err(unreadable)?,
            })
        })
        .collect()
}
