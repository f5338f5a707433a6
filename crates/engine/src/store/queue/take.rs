//! Taking runs out of the queue: [`QueueView::take`].
//!
//! Two steps. `take_due` (migration 0016) chooses runs and writes one row that leases them all; it is
//! the only thing that takers do one at a time. Then the rows are read. A taker remembers what it saw
//! (which leases are live, which lanes there are, how far each is empty), so that it never reads dead
//! rows twice; what it remembers is a hint, and a fresh [`QueueView`] finds the same runs.
//!
//! Whoever changes a queued run from outside (cancels it, puts it off) first writes to its row and then
//! looks whether it is leased ([`super::untaken`]). A taker that finds a row written to waits for that
//! writer. So one of the two always sees the other.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::lease::{Lease, Leased, Past};
use crate::id::{AgentId, LeaseToken, ProcessId, RunId, TaskId};
use crate::run::RunInfo;
use crate::store::any_json::AnyJson;
use crate::store::{StoreError, seconds};

/// Of the runs taken at once, the part that goes to those that have waited too long, whatever their
/// priority; with fewer slots than this, so many takes share one such run.
const AGED_PART: u32 = 4;
/// How often a look is wide while every look finds as much as wanted: so long may a lane that came up
/// meanwhile go unseen, and what a transaction committed late.
const WIDE_EVERY: Duration = Duration::from_millis(100);
/// How often everything is looked at again from its beginning, for the sake of transactions that
/// committed late; and how many times longer than such a look took, where it takes long.
const REWIND_EVERY: Duration = Duration::from_secs(1);
const REWIND_PART: u32 = 50;
/// The most lanes remembered. Beyond, all are forgotten and found again.
const LANES_MAX: usize = 4096;

/// What a taker remembers of the queue from one take to the next.
#[derive(Debug, Default)]
pub struct QueueView {
    live: Vec<i64>,
    highest: i64,
    rewound: i64,
    lanes: Vec<Lane>,
    takes: u64,
    /// The last look found as much as wanted.
    was_full: bool,
    wide_at: Option<Instant>,
    rewind_at: Option<Instant>,
    /// A batch that is leased and whose rows could not be read yet.
    unread: Option<Batch>,
    /// An answer was lost: there may be a lease that we do not know of.
    may_hold_more: bool,
}

/// The runs of one agent and priority.
#[derive(Clone, Debug)]
struct Lane {
    agent: AgentId,
    priority: i16,
    /// Nothing is left that was due before.
    since: DateTime<Utc>,
    /// The number of the last take that it had a part in.
    served: u64,
}

#[derive(Clone, Debug)]
struct Batch {
    token: LeaseToken,
    runs: Vec<RunId>,
    /// Those of them that are not begun yet.
    ahead: HashSet<RunId>,
}

/// What [`QueueView::take`] found.
#[derive(Debug, Default)]
pub struct Taken {
    /// The runs, in the order in which they are to be begun.
    pub runs: Vec<Leased>,
    /// How long until more may be due; `None`: nothing that is known of. Only when fewer runs were
    /// taken than wanted.
    pub next_in: Option<Duration>,
}

/// How to take: for whom, how many and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Take {
    /// Who takes.
    pub worker: ProcessId,
    /// How long the lease is to last.
    pub duration: Duration,
    /// The most runs.
    pub wanted: u16,
    /// Of them, how many are begun at once; the others are leased ahead ([`Leased::ahead`]).
    pub slots: u16,
    /// A run that has waited so long goes before others of a better priority, up to a quarter of
    /// what is taken.
    pub ageing: Duration,
}

impl QueueView {
    /// Leases due runs: by priority, in turns between agents, the longest due first; but some of
    /// those that have waited too long before all others. A run whose lease has lapsed is due again, with its attempt counted. Empty when
    /// nothing is due.
    ///
    /// # Errors
    ///
    /// [`StoreError::Database`]; what was leased all the same is returned by the next call.
    pub async fn take(&mut self, conn: &mut PgConnection, how: Take) -> Result<Taken, StoreError> {
        if self.may_hold_more {
            self.find_lost(conn, how.worker).await?;
        }
        let next_in = if self.unread.is_none() { self.choose(conn, how).await? } else { None };
        let Some(batch) = self.unread.clone() else {
            return Ok(Taken { runs: Vec::new(), next_in });
        };
        let runs = read(conn, &batch).await?;
        self.unread = None;
        self.note_served(&runs);
        Ok(Taken { runs, next_in })
    }

    /// Leases runs; what was leased is [`Self::unread`] then.
    async fn choose(
        &mut self,
        conn: &mut PgConnection,
        how: Take,
    ) -> Result<Option<Duration>, StoreError> {
        let began = Instant::now();
        self.takes += 1;
        let rewinds = self.rewind_at.is_none_or(|at| at <= began);
        let is_wide = rewinds || !self.was_full || self.wide_at.is_none_or(|at| at <= began);
        self.lanes.sort_by_key(|lane| (lane.priority, lane.served));
        self.may_hold_more = true;
        let mut next_in = self.ask(conn, how, rewinds, is_wide).await?;
        if !is_wide && !self.was_full {
            next_in = match self.unread {
                Some(_) => Some(Duration::ZERO), // there may be more: look again when these are begun
                None => self.ask(conn, how, rewinds, true).await?,
            };
        }
        self.may_hold_more = false;
        if rewinds {
            self.rewind_at = Some(began + (began.elapsed() * REWIND_PART).max(REWIND_EVERY));
        }
        if is_wide {
            self.wide_at = Some(began + WIDE_EVERY);
        }
        if self.lanes.len() > LANES_MAX {
            self.lanes.clear();
        }
        Ok(next_in)
    }

    /// Asks `take_due` once. Returns what it says of the next run.
    async fn ask(
        &mut self,
        conn: &mut PgConnection,
        how: Take,
        rewinds: bool,
        is_wide: bool,
    ) -> Result<Option<Duration>, StoreError> {
        let agents: Vec<_> = self.lanes.iter().map(|lane| lane.agent.0).collect();
        let priorities: Vec<_> = self.lanes.iter().map(|lane| lane.priority).collect();
        let since: Vec<_> = self.lanes.iter().map(|lane| lane.since).collect();
        let row = sqlx::query!(
            r#"
            select lease_token as "token: LeaseToken", taken_runs as "runs!: Vec<RunId>", next_in,
                   live_tokens as "live!", low_token as "highest!", rewound_to as "rewound!",
                   lane_agents as "agents!: Vec<AgentId>", lane_priorities as "priorities!",
                   lane_since as "since!"
            from take_due($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
            "#,
            how.worker.0,
            seconds(how.duration),
            i32::from(how.wanted),
            self.aged(how.wanted),
            seconds(how.ageing),
            &self.live,
            self.highest,
            if rewinds { 0 } else { self.rewound },
            is_wide,
            &agents,
            &priorities,
            &since,
            i32::from(how.slots),
        )
        .fetch_one(conn)
        .await
        .map_err(StoreError::while_trying("lease due runs"))?;

        self.live = row.live;
        self.highest = row.highest;
        self.rewound = row.rewound;
        let served: HashMap<_, _> =
            self.lanes.iter().map(|lane| ((lane.agent, lane.priority), lane.served)).collect();
        let lanes = row.agents.into_iter().zip(row.priorities).zip(row.since);
        self.lanes = lanes
            .map(|((agent, priority), since)| Lane {
                agent,
                priority,
                since,
                served: served.get(&(agent, priority)).copied().unwrap_or(0),
            })
            .collect();
        self.was_full = row.runs.len() == usize::from(how.wanted);
        if let Some(token) = row.token {
            let ahead = row.runs.iter().skip(how.slots.into()).copied().collect();
            self.unread = Some(Batch { token, runs: row.runs, ahead });
        }
        let wait = |next_in: f64| Duration::try_from_secs_f64(next_in.max(0.0));
        Ok(row.next_in.map(|next_in| wait(next_in).unwrap_or(Duration::MAX)))
    }

    /// How many of `wanted` go to runs that have waited too long.
    fn aged(&self, wanted: u16) -> i32 {
        let one_priority =
            |lanes: &[Lane]| lanes.windows(2).all(|two| two[0].priority == two[1].priority);
        if one_priority(&self.lanes) {
            return 0; // the longest due go first anyway
        }
        match i32::from(wanted) / AGED_PART.cast_signed() {
            0 => i32::from(self.takes.is_multiple_of(AGED_PART.into())),
            part => part,
        }
    }

    /// Notes which lanes were served, so that others have their turn first the next time.
    fn note_served(&mut self, runs: &[Leased]) {
        for lane in &mut self.lanes {
            if runs.iter().any(|run| run.agent_id == lane.agent && run.priority == lane.priority) {
                lane.served = self.takes;
            }
        }
    }

    /// Finds the lease whose announcement was lost, if there is one.
    async fn find_lost(
        &mut self,
        conn: &mut PgConnection,
        worker: ProcessId,
    ) -> Result<(), StoreError> {
        let row = sqlx::query!(
            r#"
            select token as "token: LeaseToken", run_ids as "runs: Vec<RunId>",
                   coalesce(begun, run_ids) as "begun!: Vec<RunId>"
            from lease
            where token > $1 and worker = $2 order by token desc limit 1
            "#,
            self.highest,
            worker.0,
        )
        .fetch_optional(conn)
        .await
        .map_err(StoreError::while_trying("look for a lease whose answer was lost"))?;
        self.unread = row.map(|row| {
            let mut ahead: HashSet<_> = row.runs.iter().copied().collect();
            for begun in row.begun {
                ahead.remove(&begun);
            }
            Batch { token: row.token, runs: row.runs, ahead }
        });
        self.may_hold_more = false;
        Ok(())
    }
}

/// Reads the runs of a batch. Those that somebody ended or put off while they were being leased are
/// left out, and taken out of the lease.
async fn read(conn: &mut PgConnection, batch: &Batch) -> Result<Vec<Leased>, StoreError> {
    let mut rows = read_rows(conn, batch).await?;
    let doubtful: Vec<_> = rows.iter().filter(|row| row.touched).map(|row| row.run_id.0).collect();
    if !doubtful.is_empty() {
        // Waits for whoever is writing to them.
        sqlx::query_scalar!(
            "select 1 from due_work where run_id = any($1) order by run_id for update",
            &doubtful
        )
        .fetch_all(&mut *conn)
        .await
        .map_err(StoreError::while_trying("wait for changes of leased runs"))?;
        rows = read_rows(conn, batch).await?;
    }
    // Who put a run off may have committed before it was read, and after it was chosen.
    rows.retain(|row| row.is_due);
    if rows.len() < batch.runs.len() {
        let kept: Vec<_> = rows.iter().map(|row| row.run_id.0).collect();
        sqlx::query!(
            "update lease set run_ids = $2 where token = $1",
            batch.token as LeaseToken,
            &kept,
        )
        .execute(conn)
        .await
        .map_err(StoreError::while_trying("take runs out of a lease"))?;
    }
    rows.into_iter().map(|row| row.leased(batch)).collect()
}

async fn read_rows(conn: &mut PgConnection, batch: &Batch) -> Result<Vec<Row>, StoreError> {
    let runs: Vec<_> = batch.runs.iter().map(|run| run.0).collect();
    // A row that somebody writes to, or wrote to and gave up, shows who that was in xmax.
    sqlx::query_as!(
        Row,
        r#"
        select w.run_id as "run_id: RunId", w.agent_id as "agent_id: AgentId",
               w.task_id as "task_id: TaskId", w.revision, w.attempt, w.lapses, w.trigger,
               w.nominal_at, w.scheduled_at, w.params as "params: AnyJson", w.event as "event: AnyJson",
               w.definition as "definition: AnyJson", w.last_error as "last_error: AnyJson",
               w.priority, w.serial, w.concurrency_key,
               date_part('epoch', now() - w.run_at) as "waited!",
               (w.started_at is null and w.expires_at <= now()) is true as "expired!",
               w.cancel_requested_at is not null as "cancel_requested!",
               w.started_at is not null as "was_started!",
               w.xmax <> '0'::xid as "touched!", w.held is null and w.run_at <= clock_timestamp() as "is_due!"
        from unnest($1::uuid[]) with ordinality as chosen(run_id, place)
        join due_work w using (run_id)
        order by chosen.place
        "#,
        &runs,
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("read leased runs"))
}

/// A leased run as it stands in the queue.
#[expect(clippy::struct_excessive_bools, reason = "columns of a query")]
struct Row {
    run_id: RunId,
    agent_id: AgentId,
    task_id: Option<TaskId>,
    revision: Option<i32>,
    attempt: i16,
    lapses: i16,
    trigger: String,
    nominal_at: Option<DateTime<Utc>>,
    scheduled_at: DateTime<Utc>,
    params: Option<AnyJson>,
    event: Option<AnyJson>,
    definition: Option<AnyJson>,
    last_error: Option<AnyJson>,
    priority: i16,
    serial: bool,
    concurrency_key: Option<String>,
    waited: f64,
    expired: bool,
    cancel_requested: bool,
    was_started: bool,
    touched: bool,
    is_due: bool,
}

impl Row {
    fn leased(self, batch: &Batch) -> Result<Leased, StoreError> {
        let trigger = self.trigger.parse().map_err(|error: String| StoreError::Database {
            doing: "read a leased run",
            source: sqlx::Error::Decode(error.into()),
        })?;
        let mut unreadable = None;
        let mut readable = |name: &str, json: Option<AnyJson>| {
            json.and_then(|json| {
                json.0
                    .map_err(|why| unreadable = Some(format!("its {name} cannot be read: {why}")))
                    .ok()
            })
        };
        let (params, event) = (readable("params", self.params), readable("event", self.event));
        let definition = readable("definition", self.definition);
        Ok(Leased {
            unreadable,
            lease: Lease { run_id: self.run_id, token: batch.token },
            ahead: batch.ahead.contains(&self.run_id),
            agent_id: self.agent_id,
            task: self.task_id.zip(self.revision),
            priority: self.priority,
            info: RunInfo {
                id: self.run_id,
                task_id: self.task_id,
                attempt: i32::from(self.attempt) + 1,
                trigger,
                nominal_at: self.nominal_at,
                scheduled_at: self.scheduled_at,
            },
            params,
            event,
            definition,
            last_error: self
                .last_error
                .and_then(|error| serde_json::from_value(error.shown()).ok()),
            waited: Duration::try_from_secs_f64(self.waited).unwrap_or_default(),
            expired: self.expired,
            cancel_requested: self.cancel_requested,
            past: match (self.lapses, self.was_started) {
                (0, false) => Past::Fresh,
                (0, true) => Past::Returned,
                _ => Past::Lapsed,
            },
            serial: self.serial,
            concurrency_key: self.concurrency_key,
        })
    }
}

/// Of queued runs that the caller has written to or locked in this transaction, those that nobody
/// holds. Until it ends, nobody begins them.
///
/// # Errors
///
/// [`StoreError::Database`].
pub async fn untaken(conn: &mut PgConnection, runs: &[RunId]) -> Result<Vec<RunId>, StoreError> {
    let runs: Vec<_> = runs.iter().map(|run| run.0).collect();
    sqlx::query_scalar!(
        r#"
        select w.run_id as "run_id: RunId" from due_work w
        where w.run_id = any($1) and w.run_id not in (select run_id from leased)
        "#,
        &runs,
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("look which runs nobody holds"))
}
