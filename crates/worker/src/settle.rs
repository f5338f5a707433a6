//! What follows when the last write about a run is durable, or known not to be.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use crate::commit::{Write, Written};
use crate::held::Held;
use crate::tell::Subject;
use crate::{Worker, after, tell};

/// A run that the worker is through with.
pub(crate) struct Ending {
    pub(crate) worker: Arc<Worker>,
    pub(crate) held: Arc<Held>,
    pub(crate) subject: Subject,
    /// How long it was worked on.
    pub(crate) took: Duration,
    /// Room among what is not written yet.
    pub(crate) room: OwnedSemaphorePermit,
}

/// Tells what became of these runs, lets go of them, and does what follows from their ends.
pub(crate) async fn all(ended: Vec<(Ending, Write, Written)>) {
    let mut follow = Vec::new();
    for (ending, write, written) in ended {
        let Ending { worker, held, subject, took, room } = ending;
        worker.tracer.settle(&worker.ctx, held.lease, &write, written);
        tell::ended(&worker, &subject, &write, written, took);
        worker.holding.remove(held.lease);
        drop(room);
        match write {
            Write::Requeue(_) => worker.again.notify_one(),
            Write::Release(..) => follow.push((worker, None)),
            _ if written == Written::Done => {
                if let Some(after) = subject.ended(&write).filter(after::Ended::matters) {
                    follow.push((worker, Some(after)));
                }
            }
            _ => {}
        }
    }
    for (worker, ended) in follow {
        match ended {
            Some(ended) => after::ended(&worker.ctx, &ended).await,
            None => worker.ctx.streams.wake_workers().await,
        }
    }
}
