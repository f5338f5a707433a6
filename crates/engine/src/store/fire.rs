//! What the scheduler asks and writes: which tasks are due, and what became of their times.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;

use super::StoreError;
use super::queue::{Canceled, NewWork, claim_first, enqueue_many, supersede};
use crate::id::{AgentId, RunId, TaskId};
use crate::run::RunError;
use crate::text_enum;

text_enum! {
    /// What became of a nominal time, for ever.
    Disposition {
        /// A run was made.
        Fired = "fired",
        /// A later time's run stands for it too.
        Coalesced = "coalesced",
        /// A run was made later, on request.
        Backfilled = "backfilled",
        /// The previous run had not ended.
        SkippedOverlap = "skipped_overlap",
        /// The task was paused.
        SkippedPaused = "skipped_paused",
        /// It passed unseen, longer ago than the catch-up window, or catching up is off.
        SkippedTooOld = "skipped_too_old",
        /// The task excludes it.
        SkippedExcluded = "skipped_excluded",
        /// A clock change left it out.
        SkippedDst = "skipped_dst",
        /// A run with the same dedupe key was made shortly before.
        SkippedDuplicate = "skipped_duplicate",
    }
}

/// A task whose time has come, locked until the transaction ends.
#[derive(Clone, Debug)]
pub struct DueTask {
    /// The task.
    pub id: TaskId,
    /// Who owns it.
    pub agent_id: AgentId,
    /// The revision in force.
    pub revision: i32,
    /// What it declares ([`crate::task::TaskSpec`]).
    pub spec: Value,
    /// Counts the replacements of calendars that it names.
    pub calendar_epoch: i32,
    /// The start of its rule where it names none.
    pub created_at: DateTime<Utc>,
    /// Every nominal time up to here has its disposition.
    pub cursor_at: DateTime<Utc>,
    /// Nothing is fired before this.
    pub snoozed_until: Option<DateTime<Utc>>,
    /// When it was last resumed: times before were missed because it was paused.
    pub resumed_at: Option<DateTime<Utc>>,
    /// How often it has fired.
    pub fires: i32,
    /// How many of its runs have not ended.
    pub in_flight: i64,
    /// How many of those wait for another to end, or for their turn after an outage.
    pub waiting: i64,
}

/// What became of one nominal time, or of a stretch of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occurrence {
    /// The time, or the first of the stretch.
    pub nominal_at: DateTime<Utc>,
    /// What became of it.
    pub disposition: Disposition,
    /// Why, in plain words, where the disposition does not say it all.
    pub reason: Option<String>,
    /// The run that was made for it, or that stands for it.
    pub run_id: Option<RunId>,
    /// The last time of the stretch and how many it has; `None` for a single time.
    pub stretch: Option<(DateTime<Utc>, i32)>,
}

impl Occurrence {
    /// Adds a time without a run behind `all`: to the last stretch where that is of the same kind.
    pub fn note(
        all: &mut Vec<Self>,
        at: DateTime<Utc>,
        disposition: Disposition,
        reason: Option<String>,
    ) {
        if let Some(last) = all.last_mut()
            && last.disposition == disposition
            && last.reason == reason
        {
            let count = last.stretch.map_or(1, |(_, count)| count);
            last.stretch = Some((at, count + 1));
            return;
        }
        all.push(Self { nominal_at: at, disposition, reason, run_id: None, stretch: None });
    }
}

/// What the scheduler decided about a task.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The task.
    pub task_id: TaskId,
    /// The revision that was in force.
    pub revision: i32,
    /// Every nominal time up to here has its disposition now.
    pub cursor_at: DateTime<Utc>,
    /// When to look again; `None`: its schedule has no further times.
    pub next_fire_at: Option<DateTime<Utc>>,
    /// How often it has fired now.
    pub fires: i32,
    /// What became of the times up to `cursor_at`.
    pub occurrences: Vec<Occurrence>,
    /// The runs to make.
    pub work: Vec<NewWork>,
    /// The runs of the task that have not ended are to be canceled first (`cancel_running`).
    pub supersedes: bool,
}

/// What [`decide`] did besides what it was told.
#[derive(Clone, Debug, Default)]
pub struct Decided {
    /// Runs that were canceled, or whose workers are asked to.
    pub superseded: Vec<(TaskId, RunId, Canceled)>,
}

/// Locks the `limit` tasks due longest at `now`. Tasks that another scheduler is firing in this
/// instant are skipped, not waited for. Empty when nothing is due.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn claim_due(
    conn: &mut PgConnection,
    now: DateTime<Utc>,
    limit: u16,
) -> Result<Vec<DueTask>, StoreError> {
    sqlx::query_as!(
        DueTask,
        r#"
        select t.id as "id: TaskId", t.agent_id as "agent_id: AgentId", t.revision, r.spec,
            t.calendar_epoch, t.created_at, t.cursor_at, t.snoozed_until, t.resumed_at, t.fires,
            on_now.in_flight as "in_flight!", on_now.waiting as "waiting!"
        from task t
        join task_revision r on r.task_id = t.id and r.revision = t.revision
        cross join lateral (
            select count(*) as in_flight,
                   count(*) filter (where w.held in ('overlap', 'catch_up')) as waiting
            from due_work w where w.task_id = t.id
        ) as on_now
        where t.next_fire_at <= $1
        order by t.next_fire_at
        limit $2
        for no key update of t skip locked
        "#,
        now,
        i64::from(limit),
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("claim due tasks"))
}

/// When the next task is due; `None` when none ever is.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn next_fire_at(conn: &mut PgConnection) -> Result<Option<DateTime<Utc>>, StoreError> {
    sqlx::query_scalar!("select min(next_fire_at) from task where next_fire_at is not null")
        .fetch_one(conn)
        .await
        .map_err(StoreError::while_trying("ask when the next task is due"))
}

/// Writes what was decided about tasks that [`claim_due`] locked: the ledger, the runs, and when to
/// look again, in the caller's transaction. A task without further times is `completed`.
///
/// # Errors
///
/// [`StoreError::Database`]: also when an occurrence is in the ledger already, which the lock and
/// `cursor_at` exclude; the caller's transaction must end then, and nothing has happened.
pub async fn decide(
    conn: &mut PgConnection,
    decisions: Vec<Decision>,
    now: DateTime<Utc>,
) -> Result<Decided, StoreError> {
    let mut decisions = decisions;
    drop_duplicates(conn, &mut decisions).await?;
    let superseding: Vec<_> = decisions
        .iter()
        .filter(|one| one.supersedes && !one.work.is_empty())
        .map(|one| one.task_id)
        .collect();
    let error = RunError {
        kind: "superseded".to_owned(),
        message: "the next run of its task took its place (overlap: cancel_running)".to_owned(),
        step: None,
    };
    let decided = Decided { superseded: supersede(conn, &superseding, &error).await? };

    let mut work = Vec::new();
    let mut tasks = TaskColumns::default();
    let mut ledger = LedgerColumns::default();
    for decision in decisions {
        tasks.push(&decision);
        for occurrence in decision.occurrences {
            ledger.push(decision.task_id, decision.revision, occurrence);
        }
        work.extend(decision.work);
    }
    tasks.write(conn, now).await?;
    ledger.write(conn, now).await?;
    enqueue_many(conn, work).await?;
    Ok(decided)
}

/// Takes back the runs whose dedupe key names an earlier one, and says so in the ledger.
async fn drop_duplicates(
    conn: &mut PgConnection,
    decisions: &mut [Decision],
) -> Result<(), StoreError> {
    let holders = claim_first(conn, decisions.iter().flat_map(|one| &one.work)).await?;
    if holders.is_empty() {
        return Ok(());
    }
    for decision in decisions {
        for work in std::mem::take(&mut decision.work) {
            let earlier = work.dedupe_of().and_then(|key| holders.get(&key).copied());
            let Some(earlier) = earlier.filter(|earlier| *earlier != work.run_id) else {
                decision.work.push(work);
                continue;
            };
            decision.fires -= 1;
            for occurrence in &mut decision.occurrences {
                if occurrence.run_id == Some(work.run_id) {
                    occurrence.run_id = Some(earlier);
                    if occurrence.disposition == Disposition::Fired {
                        occurrence.disposition = Disposition::SkippedDuplicate;
                        occurrence.reason =
                            Some("a run with the same dedupe_key is recent".to_owned());
                    }
                }
            }
        }
    }
    Ok(())
}

#[derive(Default)]
struct TaskColumns {
    id: Vec<uuid::Uuid>,
    cursor_at: Vec<DateTime<Utc>>,
    next_fire_at: Vec<Option<DateTime<Utc>>>,
    fires: Vec<i32>,
}

impl TaskColumns {
    fn push(&mut self, decision: &Decision) {
        self.id.push(decision.task_id.0);
        self.cursor_at.push(decision.cursor_at);
        self.next_fire_at.push(decision.next_fire_at);
        self.fires.push(decision.fires);
    }

    async fn write(&self, conn: &mut PgConnection, now: DateTime<Utc>) -> Result<(), StoreError> {
        sqlx::query!(
            "
            update task t
            set cursor_at = d.cursor_at, next_fire_at = d.next_fire_at, fires = d.fires,
                snoozed_until = case when t.snoozed_until <= $5 then null else t.snoozed_until end,
                status = case when d.next_fire_at is null then 'completed' else t.status end,
                updated_at = case when d.next_fire_at is null then $5 else t.updated_at end
            from unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[], $4::int[])
                as d(id, cursor_at, next_fire_at, fires)
            where t.id = d.id
            ",
            &self.id,
            &self.cursor_at,
            &self.next_fire_at as &[Option<DateTime<Utc>>],
            &self.fires,
            now,
        )
        .execute(conn)
        .await
        .map_err(StoreError::while_trying("move due tasks on"))?;
        Ok(())
    }
}

/// Writes rows of one task's ledger, each with the revision that decided it.
pub(super) async fn write_ledger(
    conn: &mut PgConnection,
    task: TaskId,
    rows: Vec<(Occurrence, i32)>,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let mut ledger = LedgerColumns::default();
    for (occurrence, revision) in rows {
        ledger.push(task, revision, occurrence);
    }
    ledger.write(conn, now).await
}

#[derive(Default)]
struct LedgerColumns {
    task_id: Vec<uuid::Uuid>,
    nominal_at: Vec<DateTime<Utc>>,
    disposition: Vec<&'static str>,
    reason: Vec<Option<String>>,
    run_id: Vec<Option<uuid::Uuid>>,
    revision: Vec<i32>,
    until_at: Vec<Option<DateTime<Utc>>>,
    count: Vec<i32>,
}

impl LedgerColumns {
    fn push(&mut self, task: TaskId, revision: i32, occurrence: Occurrence) {
        self.task_id.push(task.0);
        self.nominal_at.push(occurrence.nominal_at);
        self.disposition.push(occurrence.disposition.as_str());
        self.reason.push(occurrence.reason);
        self.run_id.push(occurrence.run_id.map(|run| run.0));
        self.revision.push(revision);
        self.until_at.push(occurrence.stretch.map(|(until, _)| until));
        self.count.push(occurrence.stretch.map_or(1, |(_, count)| count));
    }

    async fn write(&self, conn: &mut PgConnection, now: DateTime<Utc>) -> Result<(), StoreError> {
        if self.task_id.is_empty() {
            return Ok(());
        }
        sqlx::query!(
            "
            insert into occurrence (task_id, nominal_at, disposition, reason, run_id, revision,
                                    until_at, count, decided_at)
            select o.*, $9::timestamptz
            from unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::text[], $5::uuid[],
                        $6::int[], $7::timestamptz[], $8::int[]) as o
            ",
            &self.task_id,
            &self.nominal_at,
            &self.disposition as &[&str],
            &self.reason as &[Option<String>],
            &self.run_id as &[Option<uuid::Uuid>],
            &self.revision,
            &self.until_at as &[Option<DateTime<Utc>>],
            &self.count,
            now,
        )
        .execute(conn)
        .await
        .map_err(StoreError::while_trying("write occurrences"))?;
        Ok(())
    }
}

/// Stops a schedule that this build cannot follow, so that it does not come up as due for ever: the
/// task is paused with `reason`.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn suspend(
    conn: &mut PgConnection,
    task: TaskId,
    reason: &str,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "
        update task
        set status = 'paused', next_fire_at = null, paused_at = $2, pause_reason = $3,
            version = version + 1, updated_at = $2
        where id = $1 and status = 'active'
        ",
        task as TaskId,
        now,
        reason,
    )
    .execute(conn)
    .await
    .map_err(StoreError::while_trying("suspend a task"))?;
    Ok(())
}

/// How many due runs nobody holds, counted no further than `limit`; and how long the longest due of them all
/// has been.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn backlog(
    conn: &mut PgConnection,
    limit: u32,
) -> Result<(i64, Option<Duration>), StoreError> {
    let row =
        sqlx::query!(r#"select depth as "depth!", oldest from backlog($1)"#, i64::from(limit))
            .fetch_one(conn)
            .await
            .map_err(StoreError::while_trying("measure the queue"))?;
    let oldest = row.oldest.and_then(|oldest| Duration::try_from_secs_f64(oldest).ok());
    Ok((row.depth, oldest))
}
