//! The places of the runs that a worker works on at a time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// The most runs that wait for a checkpoint without a slot.
const PARKED_MAX: usize = 900;

/// The slots of a worker.
#[derive(Debug)]
pub(crate) struct Slots {
    free: Arc<Semaphore>,
    parking: Semaphore,
    /// How many wait to have a slot again.
    returning: AtomicUsize,
}

/// A slot. Whoever waits for a checkpoint may leave it to others meanwhile.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
    permit: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Slots {
    /// So many slots, all free.
    pub(crate) fn new(count: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(count)),
            parking: Semaphore::new(PARKED_MAX),
            returning: AtomicUsize::new(0),
        }
    }

    /// The next slot that is free, in the order in which it is asked for one.
    pub(crate) async fn next(self: &Arc<Self>) -> Slot {
        let permit = Arc::clone(&self.free).acquire_owned().await.ok(); // it is never closed
        Slot { slots: Arc::clone(self), permit: Mutex::new(permit) }
    }

    /// A slot, if one is free now.
    pub(crate) fn try_next(self: &Arc<Self>) -> Option<Slot> {
        let permit = Arc::clone(&self.free).try_acquire_owned().ok()?;
        Some(Slot { slots: Arc::clone(self), permit: Mutex::new(Some(permit)) })
    }
}

impl Slot {
    /// Whether a slot that is free goes to a run that is on: no other should begin in this one.
    pub(crate) fn is_wanted_back(&self) -> bool {
        self.slots.returning.load(Ordering::Relaxed) > 0
    }

    /// Does `wait` without the slot, which others may use meanwhile, and has one again after it. With
    /// too many waiting already it keeps the slot.
    pub(crate) async fn leave_for<T>(&self, wait: impl Future<Output = T>) -> T {
        let parked: Option<SemaphorePermit<'_>> = self.slots.parking.try_acquire().ok();
        if parked.is_some() {
            drop(self.permit().take());
        }
        let outcome = wait.await;
        if parked.is_some() {
            self.slots.returning.fetch_add(1, Ordering::Relaxed);
            let permit = Arc::clone(&self.slots.free).acquire_owned().await.ok();
            self.slots.returning.fetch_sub(1, Ordering::Relaxed);
            *self.permit() = permit;
        }
        outcome
    }

    fn permit(&self) -> MutexGuard<'_, Option<OwnedSemaphorePermit>> {
        self.permit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt as _;
    use tokio::sync::oneshot;

    use super::Slots;

    #[tokio::test]
    async fn a_slot_that_is_left_is_anothers_and_has_to_be_waited_for() {
        let slots = Arc::new(Slots::new(1));
        let first = slots.next().await;
        assert!(slots.try_next().is_none());

        let (written, waits) = oneshot::channel();
        let mut left = Box::pin(first.leave_for(waits));
        assert!((&mut left).now_or_never().is_none(), "it waits for its checkpoint");
        let second = slots.try_next().expect("the slot is free meanwhile");

        written.send(()).expect("somebody waits");
        assert!((&mut left).now_or_never().is_none(), "it waits for a slot");
        assert!(second.is_wanted_back());
        drop(second);
        assert_eq!(left.await, Ok(()));
        assert!(!first.is_wanted_back());
        assert!(slots.try_next().is_none(), "it has the slot again");
    }
}
