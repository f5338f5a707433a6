//! How much of everything.

use std::time::Duration;

/// How much load, and how much harm.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Runs and events that are sent in.
    pub runs: usize,
    /// How often a burst of runs that call nobody is sent in besides, and of how many; at most 1,000.
    pub bursts: (u32, usize),
    /// Over how long they are sent in.
    pub load: Duration,
    /// How often a fault comes, where it comes by itself and not at random.
    pub rounds: u32,
    /// How many processes, or connections, are killed where that is at random.
    pub kills: u32,
    /// How long something stays away.
    pub outage: Duration,
    /// What chance is drawn from.
    pub seed: u64,
    /// How many processes there are of the API, the scheduler and the worker.
    pub processes: [usize; 3],
    /// Keep the data of Postgres in memory where that can be done: what is tried is the end of
    /// processes and not of power, and disks are what most of a short trial waits for.
    pub in_memory: bool,
}

/// The length of a lease: `WORKER_LEASE_SECONDS`, the shortest that is allowed.
pub const LEASE: Duration = Duration::from_secs(5);

/// How much later than a lease the next run may finish after a fault.
pub const BACK_WITHIN: Duration = Duration::from_secs(5);

impl Plan {
    /// What `make chaos` does.
    #[must_use]
    pub fn full(runs: usize, seed: u64) -> Self {
        Self {
            runs,
            bursts: (6, (runs / 10).min(1_000)),
            load: Duration::from_mins(1),
            rounds: 4,
            kills: 200,
            outage: Duration::from_secs(8),
            seed,
            processes: [2, 2, 4],
            in_memory: false,
        }
    }

    /// What `make test` does.
    #[must_use]
    pub fn short() -> Self {
        Self {
            runs: 60,
            bursts: (2, 100),
            load: Duration::from_secs(4),
            rounds: 1,
            kills: 5,
            outage: Duration::from_secs(2),
            seed: 1,
            processes: [1, 1, 3],
            in_memory: true,
        }
    }

    /// Between two of the kills, so that all of them fall into the load.
    #[must_use]
    pub fn between_kills(&self) -> Duration {
        self.load.mul_f64(0.8) / self.kills
    }

    /// Between two rounds of a fault that takes `took` each time: the rounds are spread over the load.
    #[must_use]
    pub fn between_rounds(&self, took: Duration) -> Duration {
        (self.load.mul_f64(0.8) / self.rounds).saturating_sub(took)
    }
}
