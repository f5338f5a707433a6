//! What can go wrong, a file each.
//!
//! To add one: a file with `pub(super) async fn inject(world, plan)`, which does the harm, makes it
//! good again, and returns what it did in a few words; and a row in [`FAULTS`].

mod clock_off;
mod connections_refused;
mod disk_full;
mod network_cut;
mod network_lost;
mod network_slow;
mod postgres_restarted;
mod redis_lost;
mod rolling_restart;
mod sessions_terminated;
mod workers_killed;
mod workers_paused;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::world::{SmallDisk, Stage, World};
use crate::{Outcome, Plan};

type Inject = for<'a> fn(&'a mut World, &'a Plan) -> BoxFuture<'a, Outcome<String>>;

/// One way to do harm.
pub struct Fault {
    /// What `--fault` calls it.
    pub name: &'static str,
    /// What it is, for the table.
    pub about: &'static str,
    /// What it needs around it.
    pub stage: Stage,
    inject: Inject,
}

/// All of them.
pub const FAULTS: &[Fault] = &[
    Fault {
        name: "workers-killed",
        about: "SIGKILL of workers at random",
        stage: Stage::Plain,
        inject: |world, plan| workers_killed::inject(world, plan).boxed(),
    },
    Fault {
        name: "workers-paused",
        about: "SIGSTOP of workers past their lease, then SIGCONT",
        stage: Stage::Plain,
        inject: |world, plan| workers_paused::inject(world, plan).boxed(),
    },
    Fault {
        name: "postgres-restarted",
        about: "Postgres stopped with `-m immediate`",
        stage: Stage::Plain,
        inject: |world, plan| postgres_restarted::inject(world, plan).boxed(),
    },
    Fault {
        name: "sessions-terminated",
        about: "`pg_terminate_backend` at random",
        stage: Stage::Plain,
        inject: |world, plan| sessions_terminated::inject(world, plan).boxed(),
    },
    Fault {
        name: "connections-refused",
        about: "Postgres at `max_connections`",
        stage: Stage::Plain,
        inject: |world, plan| connections_refused::inject(world, plan).boxed(),
    },
    Fault {
        name: "redis-lost",
        about: "Redis killed, emptied, flushed",
        stage: Stage::Plain,
        inject: |world, plan| redis_lost::inject(world, plan).boxed(),
    },
    Fault {
        name: "network-cut",
        about: "network to Postgres: connections closed, then silent for a while",
        stage: Stage::BehindProxy,
        inject: |world, plan| network_cut::inject(world, plan).boxed(),
    },
    Fault {
        name: "network-slow",
        about: "network to Postgres: 50 ms more in each direction",
        stage: Stage::BehindProxy,
        inject: |world, plan| network_slow::inject(world, plan).boxed(),
    },
    Fault {
        name: "network-lost",
        about: "network to Postgres: open connections silent for ever",
        stage: Stage::BehindProxy,
        inject: |world, plan| network_lost::inject(world, plan).boxed(),
    },
    Fault {
        name: "disk-full",
        about: "no room on the disk of Postgres",
        stage: Stage::SmallDisk,
        inject: |world, plan| disk_full::inject(world, plan).boxed(),
    },
    Fault {
        name: "clock-off",
        about: "clocks of two workers an hour ahead and an hour behind",
        stage: Stage::Plain,
        inject: |world, plan| clock_off::inject(world, plan).boxed(),
    },
    Fault {
        name: "rolling-restart",
        about: "SIGTERM and a new process for each process in turn",
        stage: Stage::Plain,
        inject: |world, plan| rolling_restart::inject(world, plan).boxed(),
    },
];

impl Fault {
    /// The fault of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        FAULTS.iter().find(|fault| fault.name == name)
    }

    /// What this machine lacks for it.
    #[must_use]
    pub fn lacks(&self) -> Option<&'static str> {
        if self.stage == Stage::SmallDisk && !SmallDisk::can_be_mounted() {
            return Some(
                "no small disk can be mounted (only root can, and not in every container)",
            );
        }
        if self.name == "clock-off" && clock_off::library().is_none() {
            return Some("libfaketime is not installed (Debian: apt-get install faketime)");
        }
        None
    }

    pub(crate) async fn inject(&self, world: &mut World, plan: &Plan) -> Outcome<String> {
        (self.inject)(world, plan).await
    }
}
