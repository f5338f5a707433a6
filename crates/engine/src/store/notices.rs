//! What SQL says to processes that listen (`NOTIFY`). Hints, like those of Redis: nothing is lost with one.

use sqlx::postgres::PgListener;
use sqlx::{PgConnection, PgPool};

use super::StoreError;
use crate::id::ProcessId;

/// Somebody has added a run, and a worker has said that it sleeps ([`sleep`]).
pub const WORK: &str = "orchestrator_work";
/// Another program has added a run that is to be let in (`orchestrator.enqueue`).
pub const HELD: &str = "orchestrator_held";

/// What a listener came to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Something was said.
    Notice,
    /// The connection was lost and made anew: something may have been said meanwhile.
    Anew,
}

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

    /// Waits for the next notice, or for the connection to have been lost and made anew.
    ///
    /// # Errors
    ///
    /// [`StoreError::Database`] when it could not be made anew.
    pub async fn next(&mut self) -> Result<Heard, StoreError> {
        let notice =
            self.0.try_recv().await.map_err(StoreError::while_trying("listen for notices"))?;
        Ok(if notice.is_some() { Heard::Notice } else { Heard::Anew })
    }
}

/// Notes that this worker has nothing to do, so that whoever adds a run notifies. A run added
/// before that is committed notifies nobody: look once more after it.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn sleep(conn: &mut PgConnection, worker: ProcessId) -> Result<(), StoreError> {
    sqlx::query!("insert into sleeper (process_id) values ($1) on conflict do nothing", worker.0)
        .execute(conn)
        .await
        .map_err(StoreError::while_trying("note that a worker sleeps"))?;
    Ok(())
}

/// Notes that this worker is busy, or ends, and needs no notice.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn wake(conn: &mut PgConnection, worker: ProcessId) -> Result<(), StoreError> {
    sqlx::query!("delete from sleeper where process_id = $1", worker.0)
        .execute(conn)
        .await
        .map_err(StoreError::while_trying("note that a worker is busy"))?;
    Ok(())
}
