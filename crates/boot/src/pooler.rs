//! Finding out what stands between us and Postgres, and whether it does us harm.
//!
//! A pooler that lends a connection for one transaction breaks what belongs to a session: settings,
//! locks, listening, prepared statements. Each of these fails late and in odd places, so it is found
//! out at the start.

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection as _, Row as _};

use crate::BoxError;
use crate::database::{SILENT, SILENT_MAX};

/// A setting of no meaning: a session that has it is the one that we asked for.
pub(crate) const MARK: &str = "orchestrator.own_session";

/// Said when a pooler was found that nobody told us of.
pub(crate) const UNDECLARED: &str = "DATABASE_URL goes through a pooler (PgBouncer), which keeps no \
    session for us: set DATABASE_DIRECT_URL to Postgres itself as well (docs/scaling.md)";

/// Said when it forgets what was prepared, or gives it to others.
const FORGETS: &str = "the pooler of DATABASE_URL does not keep prepared statements: it has to be \
    PgBouncer 1.21 or newer with max_prepared_statements above 0, or pool_mode = session \
    (docs/scaling.md)";

/// Whether a new connection was refused because of what we asked for our session.
pub(crate) fn refused_us(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .is_some_and(|error| error.message().contains("unsupported startup parameter"))
}

/// The value of a setting of the session; `None` where there is no such setting.
async fn value(
    connection: &mut PgConnection,
    setting: &'static str,
) -> Result<Option<String>, sqlx::Error> {
    // By the simple protocol, which every pooler passes on; the names are ours.
    let asked = format!("select current_setting('{setting}', true)");
    sqlx::raw_sql(sqlx::AssertSqlSafe(asked)).fetch_one(connection).await?.try_get(0)
}

/// Fails when the session does not have what was asked for it: a pooler has dropped it.
pub(crate) async fn refuse(connection: &mut PgConnection) -> Result<(), BoxError> {
    match value(connection, MARK).await?.as_deref() {
        Some("yes") => Ok(()),
        _ => Err(UNDECLARED.into()),
    }
}

/// Fails when prepared statements are not kept apart; warns when Postgres waits for ever for a
/// process that stands still.
pub(crate) async fn check(
    connection: &mut PgConnection,
    options: &PgConnectOptions,
) -> Result<(), BoxError> {
    // Each client calls its first statement the same. These two get the same connection of the
    // pooler, as long as nobody takes it in between.
    let mut other = PgConnection::connect_with(options).await?;
    let asked = async {
        sqlx::query("select 1").execute(&mut *connection).await?;
        sqlx::query("select 2").execute(&mut other).await?;
        sqlx::query("select 1").execute(&mut *connection).await
    };
    match asked.await {
        Ok(_) => {}
        Err(error) if is_mixed_up(&error) => return Err(FORGETS.into()),
        Err(error) => return Err(error.into()),
    }
    drop(other.close().await);
    if value(connection, SILENT).await?.as_deref() == Some("0") {
        tracing::warn!(
            "{SILENT} is 0 behind the pooler of DATABASE_URL: a process that stands still in a \
             transaction keeps its locks; add connect_query = 'set {SILENT} = {}' to PgBouncer's \
             entry of this database",
            SILENT_MAX.as_millis()
        );
    }
    Ok(())
}

/// 42P05 there is a statement of that name; 26000 there is none. PostgreSQL manual, appendix A.
fn is_mixed_up(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .is_some_and(|code| matches!(&*code, "42P05" | "26000"))
}
