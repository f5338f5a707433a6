//! The queue: runs that may start, and the leases of those that have.
//!
//! A worker never holds a row lock while a tool is running: it *leases* the run until an instant,
//! and renews. A worker that dies simply stops renewing, and the run is leased again. So a run may
//! be worked on twice, but only the holder of the current [`LeaseToken`](crate::id::LeaseToken) can write about it.
//!
//! The database's clock decides every lease; a worker's clock decides nothing.

mod bulk;
mod called;
mod cancel;
mod commit;
mod enqueue;
mod expire;
mod held;
mod lease;
mod merge;
mod places;
mod rates;
mod sealed;
mod take;

pub use bulk::{MANY_MAX, retry_many};
pub use called::{Call, Called, enqueue_called};
pub use cancel::{Canceled, cancel, cancel_many};
pub use commit::{Finished, Requeued, checkpoint, finish, keep_steps, requeue};
pub(super) use enqueue::claim_first;
pub use enqueue::{Enqueued, Held, NewWork, enqueue, enqueue_batch, enqueue_many};
pub use expire::{Expired, expire, have_expired};
pub use held::{
    Admitted, Released, admit_tasks, catch_up_backlog, release_catch_up, supersede, tasks_to_admit,
};
pub use lease::{
    Lease, Leased, Past, Renewal, begin, end_lapsed, end_leases, put_back, release, renew,
};
pub use merge::{enqueue_trigger, hold_tasks};
pub use places::{Placed, admit_key, admit_keys, keys_to_admit};
pub use rates::{WaitingRate, admit_rate, admit_rates, held_come_due_in, waiting_rates};
pub use sealed::Sealed;
pub use take::{QueueView, Take, Taken, untaken};
