//! A connection that calls share, and which calls are going on it.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rmcp::model::{CallToolRequestParams, CallToolResponse};
use rmcp::service::{Peer, RoleClient, ServiceError};
use tokio::sync::Notify;

/// A connection to a server.
pub(super) struct Connection {
    pub(super) peer: Peer<RoleClient>,
    calls: Mutex<Calls>,
}

/// The calls that are going, by number.
#[derive(Default)]
struct Calls {
    next: u64,
    going: BTreeSet<u64>,
    /// The first number that was free when a call was given up, until a sign of life comes.
    suspected_at: Option<u64>,
}

/// A call that is going; raises a suspicion when it is given up.
struct Going<'a> {
    connection: &'a Connection,
    suspect: &'a Notify,
    number: u64,
    answered: bool,
}

impl Drop for Going<'_> {
    fn drop(&mut self) {
        let mut calls = self.connection.calls();
        calls.going.remove(&self.number);
        if !self.answered {
            let next = calls.next;
            calls.suspected_at.get_or_insert(next);
            self.suspect.notify_one();
        }
    }
}

impl Connection {
    pub(super) fn new(peer: Peer<RoleClient>) -> Self {
        Self { peer, calls: Mutex::default() }
    }

    /// Sends a call and waits for its answer. Dropped before, it is canceled at the server, and
    /// `suspect` is told.
    pub(super) async fn call(
        &self,
        params: CallToolRequestParams,
        suspect: &Notify,
    ) -> Result<CallToolResponse, ServiceError> {
        let mut going = Going { connection: self, suspect, number: self.begin(), answered: false };
        let answer = self.peer.call_tool_once(params).await;
        going.answered = true;
        answer
    }

    /// The number of the first call after the suspicion; of the next one, when there is none.
    pub(super) fn suspected_at(&self) -> u64 {
        let calls = self.calls();
        calls.suspected_at.unwrap_or(calls.next)
    }

    /// There is no suspicion any more.
    pub(super) fn trust(&self) {
        self.calls().suspected_at = None;
    }

    /// Whether a call that began before the one of this number is still going.
    pub(super) fn is_going_since_before(&self, number: u64) -> bool {
        self.calls().going.first().is_some_and(|first| *first < number)
    }

    fn begin(&self) -> u64 {
        let mut calls = self.calls();
        let number = calls.next;
        calls.next += 1;
        calls.going.insert(number);
        number
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
