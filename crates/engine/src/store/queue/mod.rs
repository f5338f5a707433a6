//! The queue: runs that may start, and the leases of those that have.
//!
//! A worker never holds a row lock while a tool is running: it *leases* the run until an instant,
//! and renews. A worker that dies simply stops renewing, and the run is leased again. So a run may
//! be worked on twice, but only the holder of the current [`LeaseToken`](crate::id::LeaseToken) can write about it.
//!
//! The database's clock decides every lease; a worker's clock decides nothing.

mod cancel;
mod commit;
mod enqueue;
mod held;
mod lease;
mod take;

pub use cancel::{Canceled, cancel};
pub use commit::{Finished, Requeued, checkpoint, finish, requeue};
pub(super) use enqueue::claim_key;
pub use enqueue::{Enqueued, Held, NewWork, enqueue, enqueue_many};
pub use held::{
    Released, admit, admit_key, admit_keys, admit_tasks, catch_up_backlog, keys_to_admit,
    release_catch_up, supersede, tasks_to_admit,
};
pub use lease::{Lease, Leased, Past, Renewal, end_leases, release, renew};
pub use take::{QueueView, Take, Taken, untaken};
