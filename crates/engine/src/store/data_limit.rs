//! What SQL has to know of `RUN_DATA_MAX_BYTES`: `orchestrator.enqueue` refuses larger parameters.

use sqlx::PgConnection;

use super::StoreError;

/// Has SQL refuse what is larger than `max_bytes` bytes of JSON.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn set(conn: &mut PgConnection, max_bytes: usize) -> Result<(), StoreError> {
    sqlx::query!(
        "update data_limit set max_bytes = $1 where max_bytes <> $1",
        i64::try_from(max_bytes).unwrap_or(i64::MAX),
    )
    .execute(conn)
    .await
    .map_err(StoreError::while_trying("set the limit of data"))?;
    Ok(())
}
