//! How long the database may take to answer, and what becomes of a connection that did not.
//!
//! A connection falls silent when a fail-over or a firewall forgets it: nothing comes any more, no error
//! either. Whoever waits gives the call up then, and makes it again on another connection. The pool would
//! ask a connection that is given back whether it is there, and wait for that without a limit, its place
//! taken; so for a while after a call was given up, [`is_to_be_asked`] has it asked with one. One that falls silent in
//! the very moment in which it is given back, with nobody waiting for it, keeps its place until the kernel
//! gives it up (about 15 minutes); to ask every time would cost a round trip each.

use std::pin::Pin;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use orchestrator_engine::store::StoreError;

/// How long the database may take to answer one call, be it a statement or a short transaction.
pub const ANSWER_MAX: Duration = Duration::from_secs(10);

/// How long after a call was given up connections that come back are asked with a limit. What was dropped
/// comes back at once.
const DOUBT: Duration = Duration::from_secs(5);

static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
/// Until when connections are in doubt, in milliseconds since [`BEGUN`]; 0: never were. Of the process and
/// not of a pool, because a future that is dropped does not know which it used.
static IN_DOUBT_UNTIL: AtomicU64 = AtomicU64::new(0);

fn now_ms() -> u64 {
    u64::try_from(BEGUN.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Whether a connection that comes back to the pool may be one on which somebody waited in vain.
pub(crate) fn is_to_be_asked() -> bool {
    match IN_DOUBT_UNTIL.load(Ordering::Acquire) {
        0 => false,
        until => now_ms() <= until,
    }
}

/// What `call` gives, or an error that passes when the database does not answer within [`ANSWER_MAX`].
/// What was asked may have been done all the same.
///
/// # Errors
///
/// Those of `call`, and [`StoreError::no_answer`].
pub fn in_time<T>(
    doing: &'static str,
    call: impl Future<Output = Result<T, StoreError>>,
) -> impl Future<Output = Result<T, StoreError>> {
    within(ANSWER_MAX, doing, call)
}

/// The same for work of many statements, which may take `limit`.
///
/// # Errors
///
/// Those of `call`, and [`StoreError::no_answer`].
pub fn within<T>(
    limit: Duration,
    doing: &'static str,
    call: impl Future<Output = Result<T, StoreError>>,
) -> impl Future<Output = Result<T, StoreError>> {
    let call = Droppable::new(call); // on the heap from the start: it may be large
    async move {
        tokio::time::timeout(limit, call)
            .await
            .unwrap_or_else(|_| Err(StoreError::no_answer(doing)))
    }
}

/// A future that uses connections and may be dropped before its end.
pub struct Droppable<F> {
    inner: Pin<Box<F>>,
    is_over: bool,
}

impl<F: Future> Droppable<F> {
    /// Wraps `call`.
    pub fn new(call: F) -> Self {
        Self { inner: Box::pin(call), is_over: false }
    }
}

impl<F: Future> Future for Droppable<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let answer = self.inner.as_mut().poll(context);
        self.is_over = answer.is_ready();
        answer
    }
}

impl<F> Drop for Droppable<F> {
    /// Before the connections inside are dropped.
    fn drop(&mut self) {
        if !self.is_over {
            let until = now_ms() + u64::try_from(DOUBT.as_millis()).unwrap_or(0);
            IN_DOUBT_UNTIL.fetch_max(until.max(1), Ordering::AcqRel);
        }
    }
}
