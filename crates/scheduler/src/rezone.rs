//! Zone data change: a country moves its clocks, and a new version of the program knows it. Stored
//! times were worked out with the old data, so each schedule is looked at once.

use chrono::{DateTime, Utc};
use orchestrator_engine::id::TaskId;
use orchestrator_engine::schedule::{Schedule, ScheduleSpec, ZONE_DATA};
use orchestrator_engine::store::calendar::{self, CalendarCache};
use orchestrator_engine::store::zones::{self, Timed};
use orchestrator_engine::store::{StoreError, reach};
use orchestrator_engine::task::TaskSpec;
use sqlx::{PgConnection, PgPool};

/// How many tasks are looked at at once.
const PAGE: i64 = 500;

/// A task whose next time is another one with this program's zone data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The task.
    pub task: TaskId,
    /// Its name or title.
    pub name: String,
    /// When it is due, as stored.
    pub from: DateTime<Utc>,
    /// When it is to be due; `None`: its schedule has no further time.
    pub to: Option<DateTime<Utc>>,
}

/// Looks at every schedule if the stored times are of other zone data than this program's; moves what
/// has to be moved. Returns how many were moved.
///
/// # Errors
///
/// When the database failed; it is done again at the next start then.
pub async fn if_changed(pool: &PgPool) -> Result<usize, StoreError> {
    let ours = ZONE_DATA;
    let doing = StoreError::while_trying("begin to look at zone data");
    let mut tx = pool.begin().await.map_err(doing)?;
    if zones::version(&mut tx).await?.as_deref() == Some(ours) || !zones::try_lock(&mut tx).await? {
        return Ok(0);
    }
    let moved = moves(pool, true).await?;
    for one in &moved {
        tracing::warn!(
            task.id = %one.task, from = %one.from, to = ?one.to,
            "the next time of {} moves: zone data {ours}", one.name
        );
    }
    zones::keep_version(&mut tx, ours).await?;
    tx.commit().await.map_err(StoreError::while_trying("keep the version of the zone data"))?;
    Ok(moved.len())
}

/// The tasks whose next time moves with this program's zone data; with `carry_out` they are moved.
///
/// # Errors
///
/// When the database failed; tasks before that may have been moved.
pub async fn moves(pool: &PgPool, carry_out: bool) -> Result<Vec<Move>, StoreError> {
    let mut conn = reach(pool).await?;
    let mut found = Vec::new();
    let mut after = None;
    let mut calendars = CalendarCache::default();
    loop {
        let page = zones::page(&mut conn, after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(found) };
        after = Some(last.id);
        for task in page {
            let Change::To(to) = change(&mut conn, &task, &mut calendars).await? else { continue };
            if carry_out {
                // Without a time left the scheduler, looking now, completes it.
                zones::move_fire(&mut conn, &task, to.unwrap_or(task.cursor_at)).await?;
            }
            let Timed { id, name, next_fire_at, .. } = task;
            found.push(Move { task: id, name, from: next_fire_at, to });
        }
    }
}

/// What this program's zone data do to the next time of a task.
enum Change {
    No,
    To(Option<DateTime<Utc>>),
}

/// Looks at the task's schedule. One that cannot be followed is left to firing.
async fn change(
    conn: &mut PgConnection,
    task: &Timed,
    cache: &mut CalendarCache,
) -> Result<Change, StoreError> {
    let Ok(spec) = serde_json::from_value::<TaskSpec>(task.spec.clone()) else {
        return Ok(Change::No);
    };
    let spec = ScheduleSpec::from(&spec);
    let calendars = calendar::of_schedule(conn, task.agent_id, &spec, cache).await?;
    let Ok(schedule) = Schedule::compile_with(&spec, task.created_at, &calendars) else {
        return Ok(Change::No);
    };
    // The scheduler looks at times that do not fire as well, a task just made is stored with one that
    // does: either is right.
    let nexts = [schedule.next_fire_after(task.cursor_at), schedule.next_after(task.cursor_at)];
    let nexts =
        nexts.map(|nominal| match (nominal.map(|nominal| nominal.at), task.snoozed_until) {
            (Some(next), Some(until)) => Some(next.max(until)),
            (next, _) => next,
        });
    let same = nexts.contains(&Some(task.next_fire_at));
    Ok(if same { Change::No } else { Change::To(nexts[0]) })
}
