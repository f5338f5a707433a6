//! The tools that workers offer. Workers write what they have ([`super::process`]); everybody else
//! reads it here, so a pipeline can be checked by a process that could not call a single one of its tools.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::StoreError;
use crate::tool::{Catalogue, ToolSpec};

/// Every tool ever offered and not yet forgotten, by address. A tool whose worker is down for a
/// moment stays: a task that uses it waits for its return.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn catalogue(conn: &mut PgConnection) -> Result<Catalogue, StoreError> {
    Ok(list(conn).await?.into_iter().map(|(tool, _)| (tool.address.clone(), tool)).collect())
}

/// The tools by address, each with when a worker last offered it.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn list(conn: &mut PgConnection) -> Result<Vec<(ToolSpec, DateTime<Utc>)>, StoreError> {
    let rows = sqlx::query!("select * from tool order by address")
        .fetch_all(conn)
        .await
        .map_err(StoreError::while_trying("list tools"))?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let tool = ToolSpec {
                address: row.address,
                description: row.description,
                input_schema: row.input_schema,
                output_schema: row.output_schema,
                timeout_seconds: u32::try_from(row.timeout_seconds).unwrap_or(0),
                scope: row.scope,
                source: row.source,
            };
            (tool, row.seen_at)
        })
        .collect())
}
