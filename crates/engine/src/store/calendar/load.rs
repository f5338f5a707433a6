//! The calendars that a schedule is compiled with.

use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use sqlx::PgConnection;

use super::StoreError;
use crate::id::{AgentId, CalendarId};
use crate::schedule::ScheduleSpec;
use crate::schedule::calendar::{Calendar, Calendars};

/// How many calendars a process keeps ready; a full one is a few megabytes.
const KEPT: NonZeroUsize = NonZeroUsize::new(32).expect("not zero");

/// Calendars that were read before, by id and version.
pub struct CalendarCache(LruCache<(CalendarId, i32), Arc<Calendar>>);

impl Default for CalendarCache {
    fn default() -> Self {
        Self(LruCache::new(KEPT))
    }
}

/// The calendars of `owner` that `spec` names, to compile it with. Those that were read before come
/// from `cache`. Asks nothing where `spec` names none. A name that is not there is not in the answer,
/// but those that are, for [`crate::schedule::Schedule::compile_with`] to suggest.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn of_schedule(
    conn: &mut PgConnection,
    owner: AgentId,
    spec: &ScheduleSpec,
    cache: &mut CalendarCache,
) -> Result<Calendars, StoreError> {
    let names: Vec<String> = spec.calendars().into_iter().map(str::to_owned).collect();
    load(conn, owner, &names, cache).await
}

/// The same by name, for a task that is about to name them: they are held until the transaction ends,
/// so that nobody replaces or deletes them meanwhile.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn take(
    conn: &mut PgConnection,
    owner: AgentId,
    names: &[String],
) -> Result<Calendars, StoreError> {
    if !names.is_empty() {
        sqlx::query!(
            "select id from calendar where agent_id = $1 and name = any($2) order by id for share",
            owner.0,
            names,
        )
        .fetch_all(&mut *conn)
        .await
        .map_err(StoreError::while_trying("hold calendars"))?;
    }
    load(conn, owner, names, &mut CalendarCache::default()).await
}

async fn load(
    conn: &mut PgConnection,
    owner: AgentId,
    names: &[String],
    cache: &mut CalendarCache,
) -> Result<Calendars, StoreError> {
    let mut calendars = Calendars::default();
    if names.is_empty() {
        return Ok(calendars);
    }
    let found = sqlx::query!(
        r#"
        select id as "id: CalendarId", name, version from calendar where agent_id = $1
        "#,
        owner.0,
    )
    .fetch_all(&mut *conn)
    .await
    .map_err(StoreError::while_trying("look up calendars"))?;
    for row in found {
        if !names.contains(&row.name) {
            calendars.suggest([row.name]);
            continue;
        }
        let key = (row.id, row.version);
        let kept = cache.0.get(&key).map(Arc::clone);
        let calendar = if let Some(kept) = kept {
            kept
        } else {
            let read = Arc::new(super::dates(conn, row.id).await?);
            cache.0.put(key, Arc::clone(&read));
            read
        };
        calendars.insert(row.name, calendar);
    }
    Ok(calendars)
}
