//! Runs that are asked for at once come into the queue together.
//!
//! While one transaction is on, the next requests gather; a lone request goes at once. So many callers
//! cost the database hardly more than one. Each request is answered when its run is durable, or with
//! its own refusal; one that the database refuses does not take its neighbours with it.
//!
//! Not for requests that look for an earlier answer or an earlier run (`Idempotency-Key`, dedupe
//! keys): those wait for their twins, and have a transaction of their own.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use lru::LruCache;
use orchestrator_boot::in_time;
use orchestrator_engine::clock::Clock;
use orchestrator_engine::id::{self, AgentId, RunId, TaskId};
use orchestrator_engine::pipeline::Pipeline;
use orchestrator_engine::run::Trigger;
use orchestrator_engine::store::StoreError;
use orchestrator_engine::store::audit::{self, NewAudit};
use orchestrator_engine::store::queue::{self, NewWork};
use orchestrator_engine::store::task::{self, Called};
use orchestrator_engine::streams::{Lifecycle, Streams};
use orchestrator_engine::task::{TaskSpec, TaskStatus};
use serde_json::{Map, Value, json};
use sqlx::{PgConnection, PgPool};
use tokio::sync::{mpsc, oneshot};

use crate::client::{self, Client};
use crate::problem::Problem;

/// The most requests of one transaction.
const BATCH: usize = 100;
/// Requests that may wait for their transaction; beyond that, they wait to be heard.
const WAITING_MAX: usize = 1_000;
/// How many revisions are kept ready.
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

struct Waiting {
    wish: Wish,
    answer: oneshot::Sender<Answer>,
}

/// The door through which wishes come in. Clones share it; it closes when the last is dropped.
#[derive(Clone)]
pub struct Gather(mpsc::Sender<Waiting>);

impl Gather {
    /// Starts the task that writes.
    #[must_use]
    pub fn start(pool: PgPool, streams: Streams, clock: Arc<dyn Clock>) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let writer = Writer { pool, streams, clock, revisions: Revisions::default() };
        tokio::spawn(writer.run(receiver));
        Self(sender)
    }

    /// Puts the run into the queue, with the record of who asked for it.
    ///
    /// # Errors
    ///
    /// 404, 409 and 422 as for any request that names a task and parameters; 503 without a database.
    pub async fn grant(&self, wish: Wish) -> Answer {
        let (answer, answered) = oneshot::channel();
        // Either fails only when the task that writes has panicked.
        self.0.send(Waiting { wish, answer }).await.map_err(|_| Problem::internal())?;
        answered.await.unwrap_or_else(|_| Err(Problem::internal()))
    }
}

struct Writer {
    pool: PgPool,
    streams: Streams,
    clock: Arc<dyn Clock>,
    revisions: Revisions,
}

impl Writer {
    async fn run(self, mut waiting: mpsc::Receiver<Waiting>) {
        let mut batch = Vec::with_capacity(BATCH);
        while waiting.recv_many(&mut batch, BATCH).await > 0 {
            let (wishes, answers): (Vec<_>, Vec<_>) =
                batch.drain(..).map(|one| (one.wish, one.answer)).unzip();
            let granted = self.grant_all(&wishes).await;
            self.tell(&granted);
            for (answer, granted) in answers.into_iter().zip(granted) {
                drop(answer.send(granted)); // the caller may be gone
            }
        }
    }

    /// Grants a batch; where the database refuses it, each alone, so that only the one that is at fault
    /// fails.
    async fn grant_all(&self, wishes: &[Wish]) -> Vec<Answer> {
        let error = match in_time("start runs", self.write(wishes)).await {
            Ok(granted) => return granted,
            Err(error) => error,
        };
        if wishes.len() == 1 || error.is_transient() {
            let problem = Problem::from(error);
            return wishes.iter().map(|_| Err(problem.clone())).collect();
        }
        let mut granted = Vec::with_capacity(wishes.len());
        for wish in wishes {
            let alone = in_time("start a run", self.write(std::slice::from_ref(wish))).await;
            granted.extend(alone.unwrap_or_else(|error| vec![Err(Problem::from(error))]));
        }
        granted
    }

    /// One transaction; in it each wish is granted or refused by itself.
    async fn write(&self, wishes: &[Wish]) -> Result<Vec<Answer>, StoreError> {
        let mut tx =
            self.pool.begin().await.map_err(StoreError::while_trying("begin a transaction"))?;
        let named: Vec<_> =
            wishes.iter().map(|wish| (wish.reference.as_str(), wish.sees)).collect();
        let called = task::hold_called(&mut tx, &named).await?;
        let (mut answers, mut work, mut asked) = (Vec::new(), Vec::new(), Vec::new());
        for (wish, called) in wishes.iter().zip(called) {
            let new = match called {
                Ok(called) => self.revisions.get(&mut tx, called).await?.work(wish, called),
                Err(error) => Err(Problem::from(error)),
            };
            answers.push(new.map(|new| match new {
                None => Granted::Alone,
                Some((queued, new)) => {
                    work.push(new);
                    asked.push((wish, queued, queued.task.to_string()));
                    Granted::Queued(queued)
                }
            }));
        }
        let audits: Vec<_> = asked
            .iter()
            .map(|(wish, queued, task)| NewAudit {
                at: wish.at,
                agent_id: Some(wish.agent),
                action: "task.run_now",
                object_kind: "task",
                object_id: task,
                request_id: Some(&wish.request_id),
                detail: client::in_detail(
                    json!({"run_id": queued.run, "deduplicated": false}),
                    wish.client,
                ),
            })
            .collect();
        queue::enqueue_many(&mut tx, work).await?;
        audit::record_many(&mut tx, &audits).await?;
        tx.commit().await.map_err(StoreError::while_trying("commit runs"))?;
        Ok(answers)
    }

    /// Wakes workers and tells whoever watches, in one round trip that nobody waits for.
    fn tell(&self, granted: &[Answer]) {
        let changes: Vec<_> = granted
            .iter()
            .filter_map(|one| match one {
                Ok(Granted::Queued(queued)) => Some(Lifecycle {
                    kind: "run.queued",
                    agent_id: queued.owner,
                    task_id: Some(queued.task),
                    run_id: Some(queued.run),
                    at: self.clock.now(),
                }),
                _ => None,
            })
            .collect();
        if !changes.is_empty() {
            let streams = self.streams.clone();
            tokio::spawn(async move { streams.queued(&changes).await });
        }
    }
}

/// What tasks declare, kept ready: a revision never changes.
struct Revisions(Mutex<LruCache<(TaskId, i32), Arc<Revision>>>);

impl Default for Revisions {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(KEPT)))
    }
}

impl Revisions {
    async fn get(
        &self,
        conn: &mut PgConnection,
        called: Called,
    ) -> Result<Arc<Revision>, StoreError> {
        let key = (called.id, called.revision);
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(kept) = kept {
            return Ok(kept);
        }
        let spec = task::revision_spec(conn, called.id, called.revision).await?;
        let revision = Arc::new(Revision::of(spec));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put(key, Arc::clone(&revision));
        Ok(revision)
    }
}

/// What a revision of a task says about its runs.
struct Revision {
    spec: TaskSpec,
    /// `None` when this build cannot read it: then a worker says so.
    pipeline: Option<Pipeline>,
}

impl Revision {
    fn of(spec: TaskSpec) -> Self {
        let pipeline = Pipeline::load(&spec.payload).ok();
        Self { spec, pipeline }
    }

    /// The dedupe key and its window, where there are both.
    fn dedupe(&self) -> Option<(String, Duration)> {
        let window = Duration::from_secs(self.spec.dedupe_window_seconds.into());
        self.spec.dedupe_key.clone().filter(|_| !window.is_zero()).map(|key| (key, window))
    }

    /// The run that `wish` asks for; `None` when it takes a look at earlier runs.
    fn work(&self, wish: &Wish, task: Called) -> Result<Option<(Queued, NewWork)>, Problem> {
        if task.status == TaskStatus::Canceled {
            return Err(Problem::conflict("the task is canceled: it runs no more"));
        }
        if let (Some(params), Some(pipeline)) = (&wish.params, &self.pipeline) {
            let problems = pipeline.params_problems(params);
            if !problems.is_empty() {
                let problems = problems.into_iter().map(|entry| entry.under("/params"));
                return Err(Problem::invalid(problems.collect()));
            }
        }
        let spec = &self.spec;
        if self.dedupe().is_some() || spec.merging().is_any() {
            return Ok(None);
        }
        let work = NewWork {
            run_id: RunId::new(wish.at, &mut id::rng()),
            agent_id: task.agent_id,
            task: Some((task.id, task.revision)),
            priority: spec.priority,
            delay: Duration::ZERO,
            trigger: Trigger::RunNow,
            nominal_at: None,
            scheduled_at: wish.at,
            expires_after: spec
                .expires_after_seconds
                .map(|seconds| Duration::from_secs(seconds.into())),
            params: wish.params.clone().map(Value::Object),
            event: None,
            definition: None,
            dedupe: None,
            concurrency: spec.concurrency(),
            rate: spec.rate(task.id),
            serial: spec.policy.overlap.is_serial(),
            held: None,
        };
        let queued =
            Queued { run: work.run_id, task: task.id, owner: task.agent_id, waits: work.waits() };
        Ok(Some((queued, work)))
    }
}
