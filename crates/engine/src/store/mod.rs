//! Every query, as free functions over a connection: the caller decides what shares a transaction.
//!
//! A file per noun. Postgres is the only source of truth; what Redis carries
//! ([`crate::streams`]) are hints about it.

pub mod agent;
mod any_json;
pub mod audit;
pub mod calendar;
pub mod data_limit;
pub mod event;
pub mod execution;
pub mod feed;
pub mod fire;
pub mod idempotency;
pub mod invariant;
pub mod ledger;
pub mod migrate;
pub mod notices;
pub mod process;
pub mod queue;
pub mod retention;
pub mod run;
pub mod run_list;
pub mod runnable;
pub mod task;
pub mod tool_catalogue;
pub mod zones;

use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{PgPool, Postgres};

pub use migrate::{MigrateError, migrate};

/// A connection of `pool`.
///
/// # Errors
///
/// [`StoreError::Database`] when there is none in time.
pub async fn reach(pool: &PgPool) -> Result<PoolConnection<Postgres>, StoreError> {
    pool.acquire().await.map_err(StoreError::while_trying("reach the database"))
}

/// Why a query did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such object, or it belongs to somebody else.
    #[error("no {what} {id}")]
    NotFound {
        /// The noun: `task`, `run`.
        what: &'static str,
        /// What was asked for.
        id: String,
    },

    /// The object is in a state that does not allow it.
    #[error("{0}")]
    Conflict(String),

    /// The object was changed by somebody else in between.
    #[error("the {what} was changed meanwhile: it is at version {current}")]
    Stale {
        /// The noun.
        what: &'static str,
        /// Its version now.
        current: i32,
    },

    /// The database refused or was out of reach.
    #[error("database failed while trying to {doing}")]
    Database {
        /// What was being done.
        doing: &'static str,
        /// What the driver said.
        #[source]
        source: sqlx::Error,
    },
}

impl StoreError {
    /// For `map_err`: says what was being done when the database failed.
    pub fn while_trying(doing: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Database { doing, source }
    }

    /// For a call that was given up: the database did not answer in time.
    #[must_use]
    pub fn no_answer(doing: &'static str) -> Self {
        let late = std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer in time");
        Self::Database { doing, source: sqlx::Error::Io(late) }
    }

    /// Whether the same call may succeed later: the database was out of reach or at its limit,
    /// and nothing is wrong with what was asked.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        let Self::Database { source, .. } = self else { return false };
        match source {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => true,
            // Classes 08 connection, 40 rollback (deadlock, serialisation), 53 resources, 57 operator
            // intervention (shutdown, restart), 58 system (disk); 25P03: the session was silent in a
            // transaction for too long, because this process stood still. PostgreSQL manual, appendix A.
            sqlx::Error::Database(error) => error.code().is_some_and(|code| {
                ["08", "25P03", "40", "53", "57", "58"].iter().any(|class| code.starts_with(class))
            }),
            _ => false,
        }
    }
}

/// Waits for what `name` stands for, and keeps others from it until the transaction ends.
async fn lock_name(conn: &mut sqlx::PgConnection, name: &str) -> Result<(), StoreError> {
    sqlx::query_scalar!("select pg_advisory_xact_lock(hashtextextended($1::text, 0))", name)
        .fetch_one(conn)
        .await
        .map_err(StoreError::while_trying("lock a name"))?;
    Ok(())
}

/// `duration` as Postgres takes it in `make_interval(secs => …)`.
pub(crate) fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
