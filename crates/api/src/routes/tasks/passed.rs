//! Times that pass while no scheduler follows the schedule: around a pause and an edit. Every nominal
//! time gets exactly one disposition, these too.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use orchestrator_engine::explain::left_out;
use orchestrator_engine::store::fire::{Disposition, Occurrence};
use orchestrator_engine::store::ledger;
use orchestrator_engine::store::task::{TaskRow, Timing};
use orchestrator_engine::task::{CatchUp, ScheduleKind, TaskStatus};
use sqlx::PgConnection;

use super::{compiled, compiled_as};
use crate::problem::Problem;

/// How many times are counted one by one when a stretch of them is written off.
const COUNT_MAX: i32 = 100_000;
/// How long they are counted: the task is locked meanwhile, and hard rules take a millisecond a time.
const COUNT_FOR: Duration = Duration::from_millis(250);

/// Gives the times of the task's schedule after its cursor and before or at `to` rows that say why they did
/// not run: what the schedule leaves out is that, the others were skipped for `reason`.
///
/// # Errors
///
/// 503 without a database.
pub(super) async fn write_off(
    conn: &mut PgConnection,
    row: &TaskRow,
    reason: &str,
    to: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<(), Problem> {
    // Of a calendar that is gone, nobody knows what it left out.
    let schedule = compiled(conn, row).await?.or_else(|_| compiled_as(&row.spec, row.created_at));
    let Ok(schedule) = schedule else { return Ok(()) };
    let skipped = match row.status {
        TaskStatus::Paused => Disposition::SkippedPaused,
        _ => Disposition::SkippedTooOld,
    };
    let first = schedule.next_after(row.cursor_at);
    let times = std::iter::successors(first, |nominal| schedule.next_after(nominal.at))
        .take_while(|nominal| nominal.at <= to);
    let began = Instant::now();
    let mut stretches = Vec::new();
    for (place, nominal) in (1..=COUNT_MAX).zip(times) {
        let (disposition, reason) =
            left_out(&nominal).unwrap_or_else(|| (skipped, reason.to_owned()));
        Occurrence::note(&mut stretches, nominal.at, disposition, Some(reason));
        if place < COUNT_MAX && began.elapsed() <= COUNT_FOR {
            continue;
        }
        if let Some(end) = schedule.last_before(to + TimeDelta::seconds(1), nominal.at)
            && let Some(last) = stretches.last_mut()
            && end.at > nominal.at
        {
            last.stretch = Some((end.at, last.stretch.map_or(1, |(_, count)| count)));
            last.reason.get_or_insert_default().push_str("; there were at least so many");
        }
        break;
    }
    Ok(ledger::write_off(conn, row, stretches, now).await?)
}

/// How a paused task goes on: what has passed is written off, but for what `catch_up` makes up for
/// within the task's window, which is left to the scheduler. Returns when the task is due, and
/// whether it is over.
///
/// # Errors
///
/// 422 when this version cannot follow the schedule; 503 without a database.
pub(super) async fn resume(
    conn: &mut PgConnection,
    row: &TaskRow,
    catch_up: CatchUp,
    now: DateTime<Utc>,
) -> Result<(Timing, bool), Problem> {
    let schedule = compiled(conn, row).await?.map_err(Problem::invalid)?;
    let policy = &row.spec.policy;
    let window = TimeDelta::seconds(i64::from(policy.catch_up_window_seconds));
    let begin = row.cursor_at.max(now - window);
    // A time that is caught up is found behind the cursor, as if nobody had been there.
    let cursor_at = match catch_up {
        CatchUp::None => now,
        CatchUp::All => begin,
        CatchUp::Latest => {
            let last = schedule.last_fire_before(
                now + TimeDelta::microseconds(1),
                begin + TimeDelta::microseconds(1),
            );
            last.map_or(now, |last| last.at - TimeDelta::microseconds(1))
        }
    };
    let cursor_at = cursor_at.max(row.cursor_at);
    write_off(conn, row, &reason(row), cursor_at, now).await?;
    let next_fire_at = if cursor_at < now {
        schedule.next_after(cursor_at).map(|nominal| nominal.at)
    } else {
        schedule.next_fire_after(now).map(|nominal| nominal.at)
    };
    let by_clock = !matches!(row.spec.schedule_kind, ScheduleKind::Manual | ScheduleKind::Event);
    Ok((Timing { cursor_at, next_fire_at }, by_clock && next_fire_at.is_none()))
}

/// "the task was paused by ops since 2026-03-01T08:00:00Z: maintenance"
fn reason(row: &TaskRow) -> String {
    let who = row.paused_by.as_ref().map(|who| format!(" by {who}")).unwrap_or_default();
    let since = row.paused_at.map(|at| format!(" from {} on", at.format("%Y-%m-%dT%H:%M:%SZ")));
    let why = row.pause_reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    format!("the task was paused{who}{}{why}", since.unwrap_or_default())
}
