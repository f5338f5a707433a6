//! A connection that stays with one task from call to call. To give it back to the pool and to take one again
//! costs two round trips; and the pool hands out those that have rested longest, so that a few busy tasks would
//! go through all of them and find each one's caches cold.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use orchestrator_engine::store::{StoreError, reach};
use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, PgPool, Postgres};
use tokio::time::Instant;

/// One that was not used for so long goes back to the pool.
const REST: Duration = Duration::from_millis(100);
/// After so long it goes back all the same: the pool closes those that are old.
const KEPT_MAX: Duration = Duration::from_mins(1);

/// A connection of a pool that is kept between calls, as long as the pool can spare one.
pub struct KeptConnection {
    pool: PgPool,
    kept: Mutex<Option<Kept>>,
}

struct Kept {
    conn: PoolConnection<Postgres>,
    since: Instant,
    used: Instant,
}

impl KeptConnection {
    /// One of `pool`, from the first call on.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool, kept: Mutex::new(None) }
    }

    /// Does `work` with the connection, which is kept where it succeeds. Calls at the same time have one each.
    ///
    /// # Errors
    ///
    /// Those of `work`; [`StoreError::Database`] when there is no connection.
    pub async fn with<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        // One whose rest nobody waited for may have fallen silent: the pool asks those that it lends.
        let kept = self.kept().take().filter(|kept| kept.used.elapsed() <= 2 * REST);
        let (mut conn, since) = if let Some(kept) = kept {
            (kept.conn, kept.since)
        } else {
            (reach(&self.pool).await?, Instant::now())
        };
        let done = work(&mut conn).await?;
        let used = Instant::now();
        if used - since < KEPT_MAX && self.is_spare() {
            *self.kept() = Some(Kept { conn, since, used });
        }
        Ok(done)
    }

    /// Gives the connection back when nobody has used it for a tenth of a second; never ends while there is none.
    /// Whoever waits for the next work to do waits for this as well.
    pub async fn rest(&self) {
        let used = self.kept().as_ref().map(|kept| kept.used);
        match used {
            Some(used) => tokio::time::sleep_until(used + REST).await,
            None => std::future::pending().await,
        }
        self.let_go();
    }

    /// Gives the connection back now.
    pub fn let_go(&self) {
        drop(self.kept().take());
    }

    /// Whether others find a connection while this one is kept.
    fn is_spare(&self) -> bool {
        self.pool.num_idle() > 0 || self.pool.size() < self.pool.options().get_max_connections()
    }

    fn kept(&self) -> MutexGuard<'_, Option<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
