//! What runs are pinned to, compiled once: a revision never changes, so it is kept ready.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;
use orchestrator_engine::id::TaskId;
use orchestrator_engine::pipeline::Pipeline;
use orchestrator_engine::problem::Problem;
use orchestrator_engine::store::queue::Leased;
use orchestrator_engine::store::{StoreError, execution, reach};
use orchestrator_engine::task::{Backoff, TaskSpec};
use serde_json::Value;
use sqlx::PgPool;

use crate::in_time;

/// How many revisions are kept ready.
const KEPT: NonZeroUsize = NonZeroUsize::new(512).expect("not zero");
/// What the addresses of tools without effects outside begin with.
const HARMLESS: &str = "core.";
/// What applies to a run without a task.
const ADHOC_RETRIES: i16 = 3;
const ADHOC_TIMEOUT: Duration = Duration::from_hours(1);

/// What a run is to do, and how often and how long it may try.
#[derive(Debug)]
pub struct Definition {
    /// The steps.
    pub pipeline: Pipeline,
    /// The most attempts.
    pub max_attempts: i32,
    /// How the wait between attempts grows.
    pub backoff: Backoff,
    /// How long an attempt may take.
    pub timeout: Duration,
    /// Nothing it does has effects outside: it may be done again without anybody noticing.
    pub is_harmless: bool,
    /// Its owner may need scopes to run it: it uses tools that ask for one, or secrets.
    pub asks_for_scopes: bool,
}

/// Why there is no [`Definition`].
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// It could not be read now.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// This build cannot run it.
    #[error("the task's definition cannot be run: {0}")]
    Unusable(String),
}

/// The definitions kept ready.
#[derive(Debug)]
pub struct Definitions(Mutex<LruCache<(TaskId, i32), Arc<Definition>>>);

impl Default for Definitions {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(KEPT)))
    }
}

impl Definitions {
    /// The definition that `run` is pinned to.
    ///
    /// # Errors
    ///
    /// [`DefinitionError`].
    pub async fn get(
        &self,
        pool: &PgPool,
        run: &Leased,
    ) -> Result<Arc<Definition>, DefinitionError> {
        let Some((task, revision)) = run.task else {
            let payload = run.definition.clone().unwrap_or_default();
            return Ok(Arc::new(adhoc(&payload)?));
        };
        let key = (task, revision);
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(kept) = kept {
            return Ok(kept);
        }
        let spec = in_time("read a task", read(pool, task, revision)).await?;
        let definition = Arc::new(of_task(spec)?);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put(key, Arc::clone(&definition));
        Ok(definition)
    }
}

async fn read(pool: &PgPool, task: TaskId, revision: i32) -> Result<Value, StoreError> {
    let mut conn = reach(pool).await?;
    execution::revision(&mut conn, task, revision).await
}

fn of_task(spec: Value) -> Result<Definition, DefinitionError> {
    let spec: TaskSpec = serde_json::from_value(spec)
        .map_err(|error| DefinitionError::Unusable(error.to_string()))?;
    let pipeline = load(&spec.payload)?;
    Ok(Definition {
        is_harmless: pipeline.uses_only(HARMLESS),
        asks_for_scopes: asks_for_scopes(&pipeline),
        pipeline,
        max_attempts: i32::from(spec.max_retries) + 1,
        backoff: spec.backoff_strategy,
        timeout: Duration::from_secs(spec.timeout_seconds.into()),
    })
}

fn adhoc(payload: &Value) -> Result<Definition, DefinitionError> {
    let pipeline = load(payload)?;
    Ok(Definition {
        is_harmless: pipeline.uses_only(HARMLESS),
        asks_for_scopes: asks_for_scopes(&pipeline),
        pipeline,
        max_attempts: i32::from(ADHOC_RETRIES) + 1,
        backoff: Backoff::ExponentialJitter,
        timeout: ADHOC_TIMEOUT,
    })
}

/// The tools that are harmless ask for none.
fn asks_for_scopes(pipeline: &Pipeline) -> bool {
    !pipeline.uses_only(HARMLESS) || !pipeline.secrets().is_empty()
}

fn load(payload: &Value) -> Result<Pipeline, DefinitionError> {
    Pipeline::load(payload).map_err(|problems| {
        let sentences: Vec<_> = problems.iter().map(Problem::to_string).collect();
        DefinitionError::Unusable(sentences.join("; "))
    })
}
