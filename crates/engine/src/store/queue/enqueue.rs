//! Putting runs into the queue.

use std::collections::btree_map::{BTreeMap, Entry};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;

use crate::id::{AgentId, RunId, TaskId};
use crate::run::Trigger;
use crate::store::{StoreError, seconds};
use crate::task::{PRIORITY, Rate, TaskSpec};
use crate::text_enum;

/// A run to be put into the queue.
#[derive(Clone, Debug)]
pub struct NewWork {
    /// The id the run is to have.
    pub run_id: RunId,
    /// Who owns it.
    pub agent_id: AgentId,
    /// The task and the revision it is pinned to; `None` for a pipeline without a task.
    pub task: Option<(TaskId, i32)>,
    /// 1 (first) to 9.
    pub priority: i16,
    /// How long after the database's present it may start.
    pub delay: Duration,
    /// What made it.
    pub trigger: Trigger,
    /// The time that the schedule named, or that was asked for; never null where `scheduled_at` lies
    /// ahead, so that lists by time find the run (`run_apart` in `migrations/`).
    pub nominal_at: Option<DateTime<Utc>>,
    /// When it is to start, for the record.
    pub scheduled_at: DateTime<Utc>,
    /// It ends `expired` when it was not started so long after it might have.
    pub expires_after: Option<Duration>,
    /// Parameters over the task's own.
    pub params: Option<Value>,
    /// What its expressions see as `event`.
    pub event: Option<Value>,
    /// The payload of a pipeline without a task.
    pub definition: Option<Value>,
    /// A key, and how long no second run with it is made.
    pub dedupe: Option<(String, Duration)>,
    /// A key of the owner's, and how many runs with it may be let in at once. The run is held then,
    /// until [`super::admit_key`].
    pub concurrency: Option<(String, u16)>,
    /// A rate of the owner's, and what it allows. The run is held then, until [`super::admit_rate`].
    pub rate: Option<Rate>,
    /// Whether its task's runs go one at a time ([`crate::task::Overlap::is_serial`]).
    pub serial: bool,
    /// What it must wait for besides its time.
    pub held: Option<Held>,
}

text_enum! {
    /// What a run in the queue waits for besides its time.
    Held {
        /// The run of its task before it ([`super::admit_tasks`]).
        Overlap = "overlap",
        /// Its turn after an outage ([`super::release_catch_up`]).
        CatchUp = "catch_up",
        /// A free place among the runs of its concurrency key ([`super::admit_key`]).
        Concurrency = "concurrency",
        /// Its turn by the rate of its task ([`super::admit_rate`]).
        Rate = "rate",
    }
}

impl NewWork {
    /// A run of a task at a revision, as its declaration `spec` wants its runs to be: due at once, `at` on the record.
    #[must_use]
    pub fn of_task(
        run_id: RunId,
        agent_id: AgentId,
        task: (TaskId, i32),
        spec: &TaskSpec,
        trigger: Trigger,
        at: DateTime<Utc>,
    ) -> Self {
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        let window = seconds(spec.dedupe_window_seconds);
        Self {
            run_id,
            agent_id,
            task: Some(task),
            priority: spec.priority,
            delay: Duration::ZERO,
            trigger,
            nominal_at: None,
            scheduled_at: at,
            expires_after: spec.expires_after_seconds.map(seconds),
            params: None,
            event: None,
            definition: None,
            dedupe: spec.dedupe_key.clone().filter(|_| !window.is_zero()).map(|key| (key, window)),
            concurrency: spec.concurrency(),
            rate: spec.rate(task.0),
            serial: spec.policy.overlap.is_serial(),
            held: None,
        }
    }

    /// A run of a payload without a task, asked for now, `at`, and due at once.
    #[must_use]
    pub fn of_payload(run_id: RunId, agent_id: AgentId, payload: Value, at: DateTime<Utc>) -> Self {
        Self {
            run_id,
            agent_id,
            task: None,
            priority: PRIORITY,
            delay: Duration::ZERO,
            trigger: Trigger::RunNow,
            nominal_at: None,
            scheduled_at: at,
            expires_after: None,
            params: None,
            event: None,
            definition: Some(payload),
            dedupe: None,
            concurrency: None,
            rate: None,
            serial: false,
            held: None,
        }
    }

    /// Whether it is to be let in before it may begin.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.first_held().is_some()
    }

    /// Whose dedupe key it has, and which.
    pub(in crate::store) fn dedupe_of(&self) -> Option<(AgentId, String)> {
        self.dedupe.as_ref().map(|(key, _)| (self.agent_id, key.clone()))
    }

    /// The first of what it is to wait for. What comes first to last: its turn after an outage, the run
    /// before it, a place of its key, its rate.
    pub(super) fn first_held(&self) -> Option<Held> {
        let key = self.concurrency.as_ref().map(|_| Held::Concurrency);
        self.held.or(key).or(self.rate.as_ref().map(|_| Held::Rate))
    }
}

/// What became of a [`NewWork`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enqueued {
    /// The run that stands for it: the new one, or the one whose dedupe window is open.
    pub run_id: RunId,
    /// Whether it is an earlier one.
    pub deduplicated: bool,
}

/// Puts a run into the queue, unless its dedupe key names an earlier one.
///
/// # Errors
///
/// [`StoreError::Database`]; nothing is added then.
pub async fn enqueue(conn: &mut PgConnection, work: NewWork) -> Result<Enqueued, StoreError> {
    if let Some(earlier) = claim_key(conn, &work).await? {
        return Ok(Enqueued { run_id: earlier, deduplicated: true });
    }
    let run_id = work.run_id;
    enqueue_many(conn, vec![work]).await?;
    Ok(Enqueued { run_id, deduplicated: false })
}

/// Puts runs into the queue, but those whose dedupe key names an earlier one, also one of the same
/// batch. Says what became of each, in the order given. Two statements, however many there are.
///
/// # Errors
///
/// [`StoreError::Database`]; nothing is added then, if the caller's transaction ends with it.
pub async fn enqueue_batch(
    conn: &mut PgConnection,
    work: Vec<NewWork>,
) -> Result<Vec<Enqueued>, StoreError> {
    let holders = claim_first(conn, &work).await?;
    let mut kept = Vec::with_capacity(work.len());
    let mut enqueued = Vec::with_capacity(work.len());
    for one in work {
        let holder = one.dedupe_of().and_then(|key| holders.get(&key).copied());
        let holder = holder.unwrap_or(one.run_id);
        let deduplicated = holder != one.run_id;
        enqueued.push(Enqueued { run_id: holder, deduplicated });
        if !deduplicated {
            kept.push(one);
        }
    }
    enqueue_many(conn, kept).await?;
    Ok(enqueued)
}

/// Takes the dedupe key of each of `work` for the first run that wants it. Returns the run that has each.
pub(in crate::store) async fn claim_first(
    conn: &mut PgConnection,
    work: impl IntoIterator<Item = &NewWork>,
) -> Result<BTreeMap<(AgentId, String), RunId>, StoreError> {
    // In the order of the keys, so that two batches never wait for each other in a circle.
    let mut first: BTreeMap<(AgentId, String), (RunId, Duration)> = BTreeMap::new();
    for one in work {
        if let Some((key, window)) = &one.dedupe
            && let Entry::Vacant(vacant) = first.entry((one.agent_id, key.clone()))
        {
            vacant.insert((one.run_id, *window));
        }
    }
    claim_keys(conn, &first).await
}

/// [`claim_key`] for many keys at once. Returns the run that has each.
async fn claim_keys(
    conn: &mut PgConnection,
    wanted: &BTreeMap<(AgentId, String), (RunId, Duration)>,
) -> Result<BTreeMap<(AgentId, String), RunId>, StoreError> {
    if wanted.is_empty() {
        return Ok(BTreeMap::new());
    }
    let agents: Vec<_> = wanted.keys().map(|(agent, _)| agent.0).collect();
    let keys: Vec<_> = wanted.keys().map(|(_, key)| key.clone()).collect();
    let runs: Vec<_> = wanted.values().map(|(run, _)| run.0).collect();
    let windows: Vec<_> = wanted.values().map(|(_, window)| seconds(*window)).collect();
    let rows = sqlx::query!(
        r#"
        insert into dedupe as d (agent_id, key, run_id, until)
        select w.agent_id, w.key, w.run_id, now() + make_interval(secs => w.seconds)
        from unnest($1::uuid[], $2::text[], $3::uuid[], $4::float8[])
             with ordinality as w(agent_id, key, run_id, seconds, n)
        order by w.n
        on conflict (agent_id, key) do update set
            run_id = case when d.until <= now() then excluded.run_id else d.run_id end,
            until = case when d.until <= now() then excluded.until else d.until end
        returning agent_id as "agent_id: AgentId", key, run_id as "run_id: RunId"
        "#,
        &agents,
        &keys,
        &runs,
        &windows,
    )
    .fetch_all(conn)
    .await
    .map_err(StoreError::while_trying("claim dedupe keys"))?;
    Ok(rows.into_iter().map(|row| ((row.agent_id, row.key), row.run_id)).collect())
}

/// Takes the dedupe key of `work` for its run. `None` when it is taken now or there is no key;
/// otherwise the run that has it.
async fn claim_key(conn: &mut PgConnection, work: &NewWork) -> Result<Option<RunId>, StoreError> {
    let Some((key, window)) = &work.dedupe else { return Ok(None) };
    // The update of a key whose window is open is empty, but locks the row: twins wait here.
    let holder = sqlx::query_scalar!(
        r#"
        insert into dedupe as d (agent_id, key, run_id, until)
        values ($1, $2, $3, now() + make_interval(secs => $4))
        on conflict (agent_id, key) do update set
            run_id = case when d.until <= now() then excluded.run_id else d.run_id end,
            until = case when d.until <= now() then excluded.until else d.until end
        returning run_id as "run_id: RunId"
        "#,
        work.agent_id as AgentId,
        key,
        work.run_id as RunId,
        seconds(*window),
    )
    .fetch_one(conn)
    .await
    .map_err(StoreError::while_trying("claim a dedupe key"))?;
    Ok((holder != work.run_id).then_some(holder))
}

/// Puts runs into the queue in one statement, due from the moment of the statement. Dedupe keys are not
/// looked at. The commit tells workers that sleep by then ([`crate::store::notices`]), sooner than Redis could.
///
/// # Errors
///
/// [`StoreError::Database`]; nothing is added then.
pub async fn enqueue_many(conn: &mut PgConnection, work: Vec<NewWork>) -> Result<(), StoreError> {
    if work.is_empty() {
        return Ok(());
    }
    let count = work.len();
    let mut columns = Columns::with_capacity(count);
    for one in work {
        columns.push(one);
    }
    let row = sqlx::query!(
        r#"
        with added as (
            insert into due_work (run_id, agent_id, task_id, revision, priority, run_at, trigger,
                                  nominal_at, scheduled_at, expires_at, params, event, definition,
                                  serial, held, concurrency_key, concurrency_limit, rate_key,
                                  rate_limit, rate_period_seconds)
            select run_id, agent_id, task_id, revision, priority,
                   statement_timestamp() + make_interval(secs => delay), trigger, nominal_at, scheduled_at,
                   statement_timestamp() + make_interval(secs => delay + expires_after), params, event,
                   definition, serial, held, concurrency_key, concurrency_limit, rate_key, rate_limit,
                   rate_period_seconds
            from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int[], $5::smallint[], $6::float8[],
                        $7::text[], $8::timestamptz[], $9::timestamptz[], $10::float8[],
                        $11::jsonb[], $12::jsonb[], $13::jsonb[], $14::bool[], $15::text[], $16::text[],
                        $17::int[], $18::text[], $19::int[], $20::int[])
                 as w(run_id, agent_id, task_id, revision, priority, delay, trigger, nominal_at,
                      scheduled_at, expires_after, params, event, definition, serial, held,
                      concurrency_key, concurrency_limit, rate_key, rate_limit, rate_period_seconds)
            returning 1
        )
        select count(*) as "count!",
               (select pg_notify('orchestrator_work', '')::text where exists (select from sleeper)) as told
        from added
        "#,
        &columns.run_id,
        &columns.agent_id,
        &columns.task_id as &[Option<uuid::Uuid>],
        &columns.revision as &[Option<i32>],
        &columns.priority,
        &columns.delay,
        &columns.trigger as &[&str],
        &columns.nominal_at as &[Option<DateTime<Utc>>],
        &columns.scheduled_at,
        &columns.expires_after as &[Option<f64>],
        &columns.params as &[Option<Value>],
        &columns.event as &[Option<Value>],
        &columns.definition as &[Option<Value>],
        &columns.serial,
        &columns.held as &[Option<&str>],
        &columns.concurrency_key as &[Option<String>],
        &columns.concurrency_limit as &[Option<i32>],
        &columns.rate_key as &[Option<String>],
        &columns.rate_limit as &[Option<i32>],
        &columns.rate_period_seconds as &[Option<i32>],
    )
    .fetch_one(conn)
    .await
    .map_err(StoreError::while_trying("enqueue runs"))?;
    debug_assert_eq!(row.count, i64::try_from(count).unwrap_or_default());
    Ok(())
}

/// The rows turned into columns, as `unnest` takes them.
#[derive(Default)]
pub(super) struct Columns {
    pub(super) run_id: Vec<uuid::Uuid>,
    pub(super) agent_id: Vec<uuid::Uuid>,
    pub(super) task_id: Vec<Option<uuid::Uuid>>,
    pub(super) revision: Vec<Option<i32>>,
    pub(super) priority: Vec<i16>,
    pub(super) delay: Vec<f64>,
    pub(super) trigger: Vec<&'static str>,
    pub(super) nominal_at: Vec<Option<DateTime<Utc>>>,
    pub(super) scheduled_at: Vec<DateTime<Utc>>,
    pub(super) expires_after: Vec<Option<f64>>,
    pub(super) params: Vec<Option<Value>>,
    pub(super) event: Vec<Option<Value>>,
    pub(super) definition: Vec<Option<Value>>,
    pub(super) serial: Vec<bool>,
    pub(super) held: Vec<Option<&'static str>>,
    pub(super) concurrency_key: Vec<Option<String>>,
    pub(super) concurrency_limit: Vec<Option<i32>>,
    pub(super) rate_key: Vec<Option<String>>,
    pub(super) rate_limit: Vec<Option<i32>>,
    pub(super) rate_period_seconds: Vec<Option<i32>>,
}

impl Columns {
    pub(super) fn with_capacity(count: usize) -> Self {
        Self { run_id: Vec::with_capacity(count), ..Self::default() }
    }

    pub(super) fn push(&mut self, work: NewWork) {
        self.held.push(work.first_held().map(Held::as_str));
        self.run_id.push(work.run_id.0);
        self.agent_id.push(work.agent_id.0);
        self.task_id.push(work.task.map(|(id, _)| id.0));
        self.revision.push(work.task.map(|(_, revision)| revision));
        self.priority.push(work.priority);
        self.delay.push(seconds(work.delay));
        self.trigger.push(work.trigger.as_str());
        self.nominal_at.push(work.nominal_at);
        self.scheduled_at.push(work.scheduled_at);
        self.expires_after.push(work.expires_after.map(seconds));
        self.params.push(work.params);
        self.event.push(work.event);
        self.definition.push(work.definition);
        self.serial.push(work.serial);
        let (key, limit) = work.concurrency.unzip();
        self.concurrency_key.push(key);
        self.concurrency_limit.push(limit.map(i32::from));
        let rate = RateColumns::of(work.rate);
        self.rate_key.push(rate.key);
        self.rate_limit.push(rate.limit);
        self.rate_period_seconds.push(rate.period_seconds);
    }
}

/// A rate as a row has it: three values, or none.
#[derive(Default)]
pub(super) struct RateColumns {
    pub(super) key: Option<String>,
    pub(super) limit: Option<i32>,
    pub(super) period_seconds: Option<i32>,
}

impl RateColumns {
    pub(super) fn of(rate: Option<Rate>) -> Self {
        rate.map_or_else(Self::default, |rate| Self {
            key: Some(rate.key),
            limit: Some(rate.limit.into()),
            period_seconds: Some(i32::try_from(rate.period_seconds).unwrap_or(i32::MAX)),
        })
    }
}
