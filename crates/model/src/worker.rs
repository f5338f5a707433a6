//! What a worker does between two statements.

use crate::state::{End, Held, Stage, State, Take, Worker, Write, Wrong};
use crate::{Answer, Commit, Protocol, Rule, WorkerNo};

impl Protocol {
    /// The next statement of a look for work that is on.
    pub(crate) fn go_on_taking(&self, state: &mut State, worker: WorkerNo) {
        match std::mem::take(&mut state.workers[worker].take) {
            Take::None => {}
            Take::Lost => Self::find_lost(state, worker),
            Take::Chosen(token, runs) => {
                let touched = Self::touched(state, &runs);
                if touched.is_empty() || !self.keeps(Rule::WaitForWriters) {
                    let mut read = Self::read_rows(state, token, &runs);
                    if self.keeps(Rule::AskWhetherDue) {
                        read.retain(|held| state.runs[held.run].due);
                    }
                    Self::have_read(state, worker, token, runs.len(), read);
                } else {
                    state.workers[worker].take = Take::Doubtful(token, runs, touched);
                }
            }
            Take::Doubtful(token, runs, touched) => {
                for run in touched {
                    state.runs[run].marked = state.runs[run].queued;
                }
                state.workers[worker].take = Take::Again(token, runs);
            }
            Take::Again(token, runs) => {
                let mut read = Self::read_rows(state, token, &runs);
                read.retain(|held| state.runs[held.run].due);
                Self::have_read(state, worker, token, runs.len(), read);
            }
            Take::Read(token, read) => {
                Self::keep_only(state, token, &read);
                state.workers[worker].held.extend(read);
            }
        }
    }

    /// Whether [`Self::go_on_taking`] would wait for a row.
    pub(crate) fn taking_waits(state: &State, worker: WorkerNo) -> bool {
        match &state.workers[worker].take {
            Take::None => true,
            Take::Doubtful(_, _, touched) => touched.iter().any(|run| state.is_locked(*run)),
            Take::Lost | Take::Chosen(..) | Take::Again(..) | Take::Read(..) => false,
        }
    }

    fn have_read(state: &mut State, worker: WorkerNo, token: u8, chosen: usize, read: Vec<Held>) {
        for held in &read {
            let row = &state.runs[held.run];
            if !row.due {
                state.note(Wrong::BegunEarly);
            }
        }
        if read.len() < chosen {
            state.workers[worker].take = Take::Read(token, read);
        } else {
            state.workers[worker].held.extend(read);
        }
    }

    /// A run that was leased ahead is begun, now that there is a slot.
    pub(crate) fn begin(&self, state: &mut State, worker: WorkerNo, place: usize, answer: Answer) {
        let held = state.workers[worker].held[place].clone();
        let is_ours = self.mark_begun(state, &held);
        if answer == Answer::Lost {
            return;
        }
        if is_ours {
            state.workers[worker].held[place].stage = Stage::Begun;
        } else {
            state.workers[worker].held.remove(place);
        }
    }

    /// The run's step is called; or the run is given up, if its worker was lost in the last attempt.
    pub(crate) fn call(&self, state: &mut State, worker: WorkerNo, place: usize) {
        let held = &mut state.workers[worker].held[place];
        let asks = held.lapsed || self.keeps(Rule::AskTheNumber);
        if asks && held.number > self.scope.attempts {
            held.stage = Stage::Writing(Write::Finish);
            return;
        }
        held.stage = Stage::Called;
        held.called = true;
        let (run, is_beyond, ran_out) = (held.run, held.number > self.scope.attempts, held.ran_out);
        let row = &mut state.runs[run];
        row.calls += 1;
        let was_canceled = row.end == Some(End::Canceled);
        if is_beyond {
            state.note(Wrong::BeyondTheMost);
        }
        if was_canceled && !ran_out {
            state.note(Wrong::BegunAfterCancel);
        }
    }

    /// What became of the run is written, though the worker may not hear of it.
    pub(crate) fn commit(&self, state: &mut State, worker: WorkerNo, place: usize, how: Commit) {
        let held = state.workers[worker].held[place].clone();
        let again = how.failed && held.number < self.scope.attempts;
        let what = match held.stage {
            Stage::Writing(what) => what,
            _ if again => Write::Requeue,
            _ => Write::Finish,
        };
        let of_lease = state.workers[worker].held.iter().filter(|one| one.token == held.token);
        let is_over = of_lease.count() == 1;
        self.write(state, &held, what, is_over);
        let worker = &mut state.workers[worker];
        match how.answer {
            Answer::Heard => drop(worker.held.remove(place)),
            Answer::Lost => worker.held[place].stage = Stage::Writing(what), // and so again
        }
    }

    /// The process is gone, and a new one is there.
    pub(crate) fn gone(state: &mut State, worker: WorkerNo) {
        state.workers[worker] = Worker::default();
        for lease in state.leases.iter_mut().filter(|lease| lease.worker == Some(worker)) {
            lease.worker = None;
        }
    }
}
