//! Runs that are asked for at once come into the queue together ([`crate::together`]). Each request is
//! answered when its run is durable, or with its own refusal; one that the database refuses does not take
//! its neighbours with it.
//!
//! A run is made of the task as it was when it was called last; the statement adds it only while that
//! is still true ([`queue::enqueue_called`]), and otherwise says what the task has become.
//!
//! Not for requests that look for an earlier answer or an earlier run (`Idempotency-Key`, dedupe
//! keys): those wait for their twins, in a transaction of their own.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use lru::LruCache;
use orchestrator_boot::{KeptConnection, in_time};
use orchestrator_engine::clock::Clock;
use orchestrator_engine::id::{self, AgentId, RunId, TaskId};
use orchestrator_engine::pipeline::Pipeline;
use orchestrator_engine::run::Trigger;
use orchestrator_engine::store::StoreError;
use orchestrator_engine::store::queue::{self, Call, Called, NewWork};
use orchestrator_engine::store::task;
use orchestrator_engine::streams::Teller;
use orchestrator_engine::task::{TaskSpec, TaskStatus};
use serde_json::{Map, Value, json};
use sqlx::{PgConnection, PgPool};

use crate::client::{self, Client};
use crate::problem::Problem;
use crate::state::tell_runs;
use crate::together::Batched;

/// How often a task that is being changed is looked at for one wish.
const LOOKS_MAX: usize = 5;
/// So many tasks are remembered.
const KEPT: NonZeroUsize = NonZeroUsize::new(512).expect("not zero");

/// A run that somebody asks for.
#[derive(Debug)]
pub struct Wish {
    /// The task, by id or name.
    pub reference: String,
    /// Whose tasks are looked at; `None`: everybody's.
    pub sees: Option<AgentId>,
    /// Who asks.
    pub agent: AgentId,
    /// The request.
    pub request_id: String,
    /// Where it comes from.
    pub client: Option<Client>,
    /// Parameters over the task's own.
    pub params: Option<Map<String, Value>>,
    /// When it was asked for.
    pub at: DateTime<Utc>,
}

/// What became of a [`Wish`].
#[derive(Clone, Copy, Debug)]
pub enum Granted {
    /// The run is in the queue.
    Queued(Queued),
    /// An earlier run may stand for it (dedupe key, `debounce_seconds`, `singleton`): nothing was done here.
    Alone,
}

/// A run in the queue.
#[derive(Clone, Copy, Debug)]
pub struct Queued {
    /// The run.
    pub run: RunId,
    /// The task.
    pub task: TaskId,
    /// Whose it is.
    pub owner: AgentId,
    /// Whether it waits to be let in.
    pub waits: bool,
}

type Answer = Result<Granted, Problem>;

/// The work of granting wishes.
pub struct Gather {
    conn: KeptConnection,
    teller: Arc<Teller>,
    clock: Arc<dyn Clock>,
    seen: Seen,
}

impl Batched for Gather {
    type Asked = Wish;
    /// Errors: 404, 409 and 422 as for any request that names a task and parameters; 503 without a
    /// database.
    type Answer = Answer;

    /// Puts the runs into the queue, with the record of who asked for them.
    async fn answer(&self, wishes: Vec<Wish>) -> Vec<Answer> {
        let granted = self.grant_all(&wishes).await;
        let made = granted.iter().filter_map(|one| match one {
            Ok(Granted::Queued(queued)) => Some((queued.owner, Some(queued.task), queued.run)),
            _ => None,
        });
        tell_runs(&self.teller, self.clock.now(), "run.queued", made);
        granted
    }

    async fn rest(&self) {
        self.conn.rest().await;
    }
}

impl Gather {
    /// With no task seen yet.
    #[must_use]
    pub fn new(pool: PgPool, teller: Arc<Teller>, clock: Arc<dyn Clock>) -> Self {
        Self { conn: KeptConnection::new(pool), teller, clock, seen: Seen::default() }
    }

    /// Grants a batch; where the database refuses it, each alone, so that only the one that is at fault
    /// fails.
    async fn grant_all(&self, wishes: &[Wish]) -> Vec<Answer> {
        let mut open: Vec<_> = wishes.iter().map(Open::new).collect();
        if let Err(error) = in_time("start runs", self.write(&mut open)).await {
            let each = !error.is_transient() && open.len() > 1;
            let problem = Problem::from(error);
            for one in open.iter_mut().filter(|one| one.answer.is_none()) {
                let alone = std::slice::from_mut(one);
                let tried =
                    if each { in_time("start a run", self.write(alone)).await } else { Ok(()) };
                let problem = tried.map_or_else(Problem::from, |()| problem.clone());
                one.answer.get_or_insert(Err(problem));
            }
        }
        open.into_iter().map(|one| one.answer.unwrap_or_else(|| Err(restless()))).collect()
    }

    /// Answers the wishes that have no answer. One statement does it while the tasks are as they were when
    /// we saw them last; those that are not are looked at again.
    async fn write(&self, open: &mut [Open<'_>]) -> Result<(), StoreError> {
        self.conn.with(async |conn| self.write_on(conn, open).await).await
    }

    async fn write_on(
        &self,
        conn: &mut PgConnection,
        open: &mut [Open<'_>],
    ) -> Result<(), StoreError> {
        for one in open.iter_mut().filter(|one| one.answer.is_none()) {
            // What is refused by what we saw may be granted by what is there now.
            one.run = self.seen.get(one.wish).and_then(|seen| seen.run(one.wish).ok().flatten());
        }
        for _ in 0..LOOKS_MAX {
            let mut asked: Vec<_> = open.iter_mut().filter(|one| one.answer.is_none()).collect();
            if asked.is_empty() {
                break;
            }
            let calls = asked.iter_mut().map(|one| one.call()).collect();
            let found = queue::enqueue_called(conn, calls).await?;
            for (one, found) in asked.into_iter().zip(found) {
                let called = match found {
                    Ok(called) => called,
                    Err(error) => {
                        one.answer = Some(Err(error.into()));
                        continue;
                    }
                };
                if called.is_queued {
                    one.answer = one.queued.map(|queued| Ok(Granted::Queued(queued)));
                    continue;
                }
                let seen = self.seen.look(conn, one.wish, called).await?;
                match seen.run(one.wish) {
                    Ok(Some(run)) => one.run = Some(run),
                    Ok(None) => one.answer = Some(Ok(Granted::Alone)),
                    Err(problem) => one.answer = Some(Err(problem)),
                }
            }
        }
        Ok(())
    }
}

/// A wish on its way to an answer.
struct Open<'a> {
    wish: &'a Wish,
    /// Its run, by what we know of the task.
    run: Option<NewWork>,
    /// That run, once it is on its way.
    queued: Option<Queued>,
    answer: Option<Answer>,
}

impl<'a> Open<'a> {
    fn new(wish: &'a Wish) -> Self {
        Self { wish, run: None, queued: None, answer: None }
    }

    fn call(&mut self) -> Call<'a> {
        let work = self.run.take();
        self.queued = work.as_ref().and_then(|work| {
            let (task, _) = work.task?;
            Some(Queued { run: work.run_id, task, owner: work.agent_id, waits: work.waits() })
        });
        let run = self.queued.map(|queued| queued.run);
        Call {
            reference: &self.wish.reference,
            sees: self.wish.sees,
            caller: self.wish.agent,
            request_id: &self.wish.request_id,
            detail: client::in_detail(
                json!({"run_id": run, "deduplicated": false}),
                self.wish.client,
            ),
            work,
        }
    }
}

/// When the task was another one at each look.
fn restless() -> Problem {
    Problem::conflict("the task is being changed again and again: ask once more")
}

/// The tasks as they were when they were called last.
struct Seen(Mutex<LruCache<Reference, Arc<Task>>>);

/// What was called, by whom (`None`: by one who sees everybody's tasks).
type Reference = (String, Option<AgentId>);

impl Default for Seen {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(KEPT)))
    }
}

impl Seen {
    fn get(&self, wish: &Wish) -> Option<Arc<Task>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(&(wish.reference.clone(), wish.sees)).cloned()
    }

    /// The task that `wish` calls, now that it is known to be `called`.
    async fn look(
        &self,
        conn: &mut PgConnection,
        wish: &Wish,
        called: Called,
    ) -> Result<Arc<Task>, StoreError> {
        let spec = task::revision_spec(conn, called.id, called.revision).await?;
        let task = Arc::new(Task::new(called, spec));
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.put((wish.reference.clone(), wish.sees), Arc::clone(&task));
        Ok(task)
    }
}

/// A task at a revision, as far as its runs need to know.
struct Task {
    called: Called,
    spec: TaskSpec,
    /// `None` when this build cannot read it: then a worker says so.
    pipeline: Option<Pipeline>,
}

impl Task {
    fn new(called: Called, spec: TaskSpec) -> Self {
        let pipeline = Pipeline::load(&spec.payload).ok();
        Self { called, spec, pipeline }
    }

    /// The run that `wish` asks for; `None` when earlier runs are to be looked at.
    fn run(&self, wish: &Wish) -> Result<Option<NewWork>, Problem> {
        if self.called.status == TaskStatus::Canceled {
            return Err(Problem::conflict("the task is canceled: it runs no more"));
        }
        if let (Some(params), Some(pipeline)) = (&wish.params, &self.pipeline) {
            let problems = pipeline.params_problems(params);
            if !problems.is_empty() {
                let problems = problems.into_iter().map(|entry| entry.under("/params"));
                return Err(Problem::invalid(problems.collect()));
            }
        }
        let (spec, called) = (&self.spec, &self.called);
        let run_id = RunId::new(wish.at, &mut id::rng());
        let of = (called.id, called.revision);
        let work = NewWork::of_task(run_id, called.agent_id, of, spec, Trigger::RunNow, wish.at);
        if work.dedupe.is_some() || spec.merging().is_any() {
            return Ok(None);
        }
        Ok(Some(NewWork { params: wish.params.clone().map(Value::Object), ..work }))
    }
}
