//! What SQL says to processes that listen (`NOTIFY`). Hints, like those of Redis: nothing is lost with one.

use sqlx::PgPool;
use sqlx::postgres::PgListener;

use super::StoreError;

/// Another program has added a run that is to be let in (`orchestrator.enqueue`).
pub const HELD: &str = "orchestrator_held";

/// A connection that listens to one channel.
pub struct Notices(PgListener);

impl Notices {
    /// Listens to `channel` with a connection of the pool, which it keeps.
    ///
    /// # Errors
    ///
    /// [`StoreError::Database`].
    pub async fn on(channel: &str, pool: &PgPool) -> Result<Self, StoreError> {
        let doing = "listen for notices";
        let mut listener =
            PgListener::connect_with(pool).await.map_err(StoreError::while_trying(doing))?;
        listener.listen(channel).await.map_err(StoreError::while_trying(doing))?;
        Ok(Self(listener))
    }

    /// Waits for the next notice, or for the connection to have been lost and made anew: something
    /// may have been said meanwhile.
    ///
    /// # Errors
    ///
    /// [`StoreError::Database`] when it could not be made anew.
    pub async fn next(&mut self) -> Result<(), StoreError> {
        self.0.try_recv().await.map_err(StoreError::while_trying("listen for notices"))?;
        Ok(())
    }
}
