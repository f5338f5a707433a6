//! Brings the schema to this build's version. Whichever service starts first does it; the others
//! wait for the lock and find it done.

use sha2::Digest as _;
use sqlx::migrate::Migrator;
use sqlx::{Connection as _, PgConnection, PgPool};

static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations");

/// Why the schema could not be brought to this build's version.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// A newer build has already changed the schema; this one does not know how to work with it.
    #[error(
        "the database is at schema version {found}, and this program knows versions up to {known}: \
         start a newer version of the orchestrator, or point DATABASE_URL at another database"
    )]
    TooNew {
        /// The version the database is at.
        found: i64,
        /// The newest version this build knows.
        known: i64,
    },

    /// A migration failed; nothing of it was kept.
    #[error("the database schema could not be brought up to date")]
    Failed(#[source] sqlx::migrate::MigrateError),

    /// The database was out of reach.
    #[error("the schema version could not be read")]
    Unreadable(#[source] sqlx::Error),
}

/// The newest schema version that this build knows.
#[must_use]
pub fn known_version() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// A word that differs whenever a migration of this build does, for whoever keeps copies of a
/// migrated database.
#[must_use]
pub fn fingerprint() -> String {
    let mut hash = sha2::Sha256::new();
    for migration in MIGRATIONS.iter() {
        hash.update(&migration.checksum);
    }
    hex::encode(&hash.finalize()[..6])
}

/// The schema version the database is at; 0 when it is empty.
///
/// # Errors
///
/// When the database is out of reach.
pub async fn version(pool: &PgPool) -> Result<i64, sqlx::Error> {
    // Not checked at compile time: the table is sqlx's own, and absent from an empty database.
    let present: bool = sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null")
        .fetch_one(pool)
        .await?;
    if !present {
        return Ok(0);
    }
    sqlx::query_scalar("select coalesce(max(version), 0) from _sqlx_migrations where success")
        .fetch_one(pool)
        .await
}

/// Has the connection make everything in the schema that holds our tables, or is to hold them. Otherwise a
/// role that is called `orchestrator` would go on in the schema of that name, which is for other
/// programs' calls, and find none of its migrations there.
async fn stay_home(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    // Not checked at compile time, as above.
    sqlx::query(
        "select set_config('search_path', quote_ident(coalesce(
             (select n.nspname from pg_class c join pg_namespace n on n.oid = c.relnamespace
              where c.oid = to_regclass('_sqlx_migrations')),
             current_schema(), 'public')), false)",
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Applies what is missing, under a lock, so that any number of processes may start at once.
/// Returns the version that the schema is then at.
///
/// # Errors
///
/// [`MigrateError::TooNew`] when the schema is ahead of this build; otherwise the failure, after
/// which the schema is as the last complete migration left it.
pub async fn migrate(pool: &PgPool) -> Result<i64, MigrateError> {
    let known = known_version();
    let found = version(pool).await.map_err(MigrateError::Unreadable)?;
    if found > known {
        return Err(MigrateError::TooNew { found, known });
    }
    let mut conn = pool.acquire().await.map_err(MigrateError::Unreadable)?;
    stay_home(&mut conn).await.map_err(MigrateError::Unreadable)?;
    // An index of a long history takes as long as it takes.
    let unlimited = sqlx::query("set statement_timeout = 0").execute(&mut *conn).await;
    unlimited.map_err(MigrateError::Unreadable)?;
    let done = MIGRATIONS.run_direct(None, &mut *conn, false).await;
    // It is not like the others any more.
    drop(conn.detach().close().await);
    match done {
        Ok(()) => Ok(known),
        // Another, newer process was faster between the two looks.
        Err(sqlx::migrate::MigrateError::VersionMissing(found)) if found > known => {
            Err(MigrateError::TooNew { found, known })
        }
        Err(error) => Err(MigrateError::Failed(error)),
    }
}
