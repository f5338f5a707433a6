//! What is asked at once is worked on together: while one batch is on, the next gathers; who comes alone
//! goes at once. So many callers cost the database hardly more than one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::problem::Problem;

/// The most of one batch.
const BATCH: usize = 100;
/// So many may wait for their batch; beyond that, they wait to be heard.
const WAITING_MAX: usize = 1_000;
/// A batch that takes longer does not hold up the next: its connection may have fallen silent.
const SLOW: Duration = Duration::from_millis(250);

/// Work that is done for many at once.
pub trait Batched: Send + Sync + 'static {
    /// What one caller asks.
    type Asked: Send + 'static;
    /// What it is told.
    type Answer: Send + 'static;

    /// Answers each, in their order.
    fn answer(&self, asked: Vec<Self::Asked>) -> impl Future<Output = Vec<Self::Answer>> + Send;

    /// What is done while nobody asks; begun anew behind each batch.
    fn rest(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}

/// The door to [`Batched`] work. Clones share it; the work ends when the last is dropped.
pub struct Together<W: Batched>(mpsc::Sender<(W::Asked, oneshot::Sender<W::Answer>)>);

impl<W: Batched> Clone for Together<W> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<W: Batched> Together<W> {
    /// Starts the task that works.
    #[must_use]
    pub fn start(work: W) -> Self {
        let (sender, mut receiver) = mpsc::channel(WAITING_MAX);
        let work = Arc::new(work);
        tokio::spawn(async move {
            let mut batch = Vec::with_capacity(BATCH);
            loop {
                tokio::select! {
                    biased;
                    count = receiver.recv_many(&mut batch, BATCH) => if count == 0 { break },
                    () = work.rest() => continue,
                }
                let (asked, to): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
                let answering = Arc::clone(&work);
                let mut on = tokio::spawn(async move { answering.answer(asked).await });
                if let Ok(answers) = tokio::time::timeout(SLOW, &mut on).await {
                    tell(to, answers.unwrap_or_default());
                } else {
                    tokio::spawn(async move { tell(to, on.await.unwrap_or_default()) });
                }
            }
        });
        Self(sender)
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    ///
    /// 500 when the work has panicked.
    pub async fn ask(&self, asked: W::Asked) -> Result<W::Answer, Problem> {
        let (answer, answered) = oneshot::channel();
        self.0.send((asked, answer)).await.map_err(|_| Problem::internal())?;
        answered.await.map_err(|_| Problem::internal())
    }
}

/// Those without an answer are told nothing: the work has panicked.
fn tell<A>(to: Vec<oneshot::Sender<A>>, answers: Vec<A>) {
    for (to, answer) in to.into_iter().zip(answers) {
        drop(to.send(answer)); // the caller may be gone
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::sync::Notify;

    use super::*;

    /// Doubles; a batch with a zero in it waits until it is told to end.
    #[derive(Default)]
    struct Doubling {
        sizes: Mutex<Vec<usize>>,
        begun: Notify,
        end: Notify,
    }

    impl Batched for Arc<Doubling> {
        type Asked = u32;
        type Answer = u32;

        async fn answer(&self, asked: Vec<u32>) -> Vec<u32> {
            self.sizes.lock().unwrap().push(asked.len());
            if asked.contains(&0) {
                self.begun.notify_one();
                self.end.notified().await;
            }
            asked.into_iter().map(|one| 2 * one).collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_while_a_batch_is_on_is_one_batch_and_each_gets_its_own_answer() {
        let work = Arc::new(Doubling::default());
        let door = Together::start(Arc::clone(&work));
        let asking = |number| {
            let door = door.clone();
            tokio::spawn(async move { door.ask(number).await })
        };
        let first = asking(0);
        work.begun.notified().await;

        let others: Vec<_> = (1..=3).map(asking).collect();
        tokio::task::yield_now().await;
        work.end.notify_one();
        let mut answers = vec![first.await.unwrap().unwrap()];
        for other in others {
            answers.push(other.await.unwrap().unwrap());
        }

        assert_eq!(answers, [0, 2, 4, 6]);
        assert_eq!(*work.sizes.lock().unwrap(), [1, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_that_hangs_does_not_hold_up_the_next() {
        let work = Arc::new(Doubling::default());
        let door = Together::start(Arc::clone(&work));
        let hanging = {
            let door = door.clone();
            tokio::spawn(async move { door.ask(0).await })
        };
        work.begun.notified().await;

        assert_eq!(door.ask(21).await.unwrap(), 42);
        work.end.notify_one();
        assert_eq!(hanging.await.unwrap().unwrap(), 0);
    }
}
