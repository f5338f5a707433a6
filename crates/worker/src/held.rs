//! The runs this worker holds: who may still write about them, and how to stop them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use orchestrator_engine::id::{LeaseToken, RunId};
use orchestrator_engine::run::StepRecord;
use orchestrator_engine::store::queue::Lease;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Why a run is told to stop before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// This worker is to end; another goes on with the run.
    Shutdown,
    /// Somebody wants the run canceled.
    Canceled,
    /// Another worker has the run.
    LeaseLost,
    /// The attempt has used up its time.
    Timeout,
}

/// One held run.
#[derive(Debug)]
pub struct Held {
    /// The right to it.
    pub lease: Lease,
    /// Whether an earlier holder may have left rows of its steps.
    pub has_rows: bool,
    /// Canceled when it is to stop.
    pub stop: CancellationToken,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    why: Option<Why>,
    /// The step that is on, since when, and whether viewers have been told.
    step: Option<(Arc<StepRecord>, Instant, bool)>,
}

impl Held {
    /// Stops the run. The first reason counts, but for a lost lease, which overrides all.
    pub fn stop(&self, why: Why) {
        let mut state = self.state();
        if state.why.is_none() || why == Why::LeaseLost {
            state.why = Some(why);
        }
        drop(state);
        self.stop.cancel();
    }

    /// Why it was stopped, if it was.
    #[must_use]
    pub fn why(&self) -> Option<Why> {
        self.state().why
    }

    /// Notes which step is on; `None`: none is.
    pub fn set_step(&self, step: Option<Arc<StepRecord>>) {
        self.state().step = step.map(|record| (record, Instant::now(), false));
    }

    /// The step that has been on for `age` and that viewers have not been told of. Says it once.
    pub fn untold_step(&self, age: std::time::Duration) -> Option<StepRecord> {
        let mut state = self.state();
        let (record, since, told) = state.step.as_mut()?;
        if *told || since.elapsed() < age {
            return None;
        }
        *told = true;
        Some(StepRecord::clone(record))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All held runs of a worker, and how many of each lease are not over.
#[derive(Debug, Default)]
pub struct Holding(Mutex<Inside>);

#[derive(Debug, Default)]
struct Inside {
    runs: HashMap<RunId, Arc<Held>>,
    open: HashMap<LeaseToken, usize>,
}

impl Holding {
    /// Begins to hold a run.
    pub fn add(&self, lease: Lease, has_rows: bool) -> Arc<Held> {
        let held = Arc::new(Held {
            lease,
            has_rows,
            stop: CancellationToken::new(),
            state: Mutex::new(State::default()),
        });
        let mut inside = self.inside();
        inside.runs.insert(lease.run_id, Arc::clone(&held));
        *inside.open.entry(lease.token).or_default() += 1;
        held
    }

    /// Stops holding a run, unless it was leased again since.
    pub fn remove(&self, lease: Lease) {
        let mut inside = self.inside();
        if inside.runs.get(&lease.run_id).is_some_and(|held| held.lease == lease) {
            inside.runs.remove(&lease.run_id);
        }
    }

    /// The leases that are over once these of their runs are.
    #[must_use]
    pub fn over_with(&self, ending: &[Lease]) -> Vec<LeaseToken> {
        let inside = self.inside();
        let mut counts: HashMap<LeaseToken, usize> = HashMap::new();
        for lease in ending {
            *counts.entry(lease.token).or_default() += 1;
        }
        counts.retain(|token, count| inside.open.get(token).is_none_or(|open| open <= count));
        counts.into_keys().collect()
    }

    /// Notes that these runs are over, or not this worker's any more.
    pub fn ended(&self, leases: &[Lease]) {
        let mut inside = self.inside();
        for lease in leases {
            if let Some(open) = inside.open.get_mut(&lease.token) {
                *open -= 1;
                if *open == 0 {
                    inside.open.remove(&lease.token);
                }
            }
        }
    }

    /// Every held run.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Held>> {
        self.inside().runs.values().cloned().collect()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inside().runs.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inside().runs.is_empty()
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
