//! The protocol of leases as a model: every order in which two workers, their deaths and pauses, lost
//! answers and the API can get in each other's way, as far as a few faults and runs go.
//!
//! `state` is what there is, `postgres` what each statement does to it, `worker` what a worker
//! does in between, `properties` what must hold. The checker is stateright's. Clocks play no part: a
//! lease may run out at any moment, and whoever can act may as well stand still. How often things go wrong
//! is bounded ([`state::Faults`]); when and in which order is not.
//!
//! The actions, and what each stands for (`store/queue/` in the engine, the rest in the worker):
//!
//! | action | stands for |
//! |---|---|
//! | [`Action::Take`] | `take_due` in the migrations: sweeps what has lapsed, chooses, writes the lease |
//! | [`Action::GoOnTaking`] | the statements that follow in `take.rs`: `find_lost`, `read_rows`, the wait for writers, `read_rows` again, taking runs out of the lease |
//! | [`Action::Begin`] | taking a run that was leased ahead off the list, before anything is called |
//! | [`Action::Call`] | a step with effects outside, in `perform.rs` |
//! | [`Action::Commit`] | its answer, and `finish`, `requeue` or `release` in `commit.rs`, `lease.rs` |
//! | [`Action::Renew`] | `renew` in `lease.rs`, and what `renew.rs` makes of its answer |
//! | [`Action::Stop`], [`Action::Interrupt`], [`Action::Exit`] | SIGTERM: `drain` in the worker's `lease.rs`, and a new process; giving a run back before its first call stands for `after_outage` in `perform.rs` as well |
//! | [`Action::Crash`] | SIGKILL, and a new process |
//! | [`Action::Lapse`] | the database's clock passes `until` |
//! | [`Action::ComeDue`] | it passes `run_at` |
//! | [`Action::Ask`], [`Action::Look`], [`Action::CommitApi`], [`Action::GiveUp`] | `cancel`, `cancel_many`, `postpone`: the row is written to, then the leases are looked at, then it is ended or moved |
//!
//! With [`Answer::Lost`] the statement is done and its caller does not know. To try what a rule is for,
//! leave it out ([`Protocol::without`]).

mod postgres;
mod properties;
pub mod state;
mod worker;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use stateright::{Model, Property};

use state::{Api, Faults, Run, Stage, State, Take, Wish, Worker, WorkerNo};

/// How much there is of everything.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// Runs.
    pub runs: usize,
    /// Workers.
    pub workers: usize,
    /// The most attempts at a run.
    pub attempts: u8,
    /// Runs that a worker works on at once.
    pub slots: usize,
    /// Runs that it leases beyond that.
    pub ahead: usize,
    /// What may go wrong.
    pub faults: Faults,
}

/// A rule of the protocol that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Who ends or requeues a run must hold it.
    NameTheToken,
    /// So must who gives it back.
    ReleaseOwn,
    /// An attempt whose lease has run out counts.
    CountLapses,
    /// A taker that reads a row which somebody writes to waits for that.
    WaitForWriters,
    /// A taker asks of what it has read whether it is still due.
    AskWhetherDue,
    /// Whoever changes a queued run from outside writes to it first, and then looks at the leases.
    WriteThenLook,
    /// A run that was leased ahead is taken off the list before its first call.
    BeginDurably,
    /// A worker ends a run without a call when its attempts are used up, whoever had it before.
    AskTheNumber,
}

/// Whether the caller hears what the database did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// It does.
    Heard,
    /// It was done; the connection ended before the answer.
    Lost,
}

/// How a commit goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Commit {
    /// The call that it writes about failed, so that the run is to be tried again.
    pub failed: bool,
    /// Whether the worker hears of it.
    pub answer: Answer,
}

/// One thing that happens. Runs in a worker's hands are named by their place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the table of the module says what each stands for")]
pub enum Action {
    Take(WorkerNo, Answer),
    GoOnTaking(WorkerNo),
    Begin(WorkerNo, usize, Answer),
    Call(WorkerNo, usize),
    Commit(WorkerNo, usize, Commit),
    Renew(WorkerNo),
    Stop(WorkerNo),
    Interrupt(WorkerNo, usize),
    Exit(WorkerNo),
    Crash(WorkerNo),
    Lapse(usize),
    ComeDue(usize),
    Ask(Wish),
    Look,
    CommitApi,
    GiveUp,
}

/// The protocol, with all its rules but one at most.
#[derive(Clone, Debug)]
pub struct Protocol {
    scope: Scope,
    without: Option<Rule>,
    /// States from which all runs are known to end.
    ending: Arc<Mutex<HashSet<u64>>>,
}

impl Protocol {
    /// The protocol as it is.
    #[must_use]
    pub fn new(scope: Scope) -> Self {
        Self { scope, without: None, ending: Arc::default() }
    }

    /// The protocol without this rule.
    #[must_use]
    pub fn without(self, rule: Rule) -> Self {
        Self { without: Some(rule), ..self }
    }

    pub(crate) fn keeps(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    fn worker_actions(&self, state: &State, no: WorkerNo, actions: &mut Vec<Action>) {
        let worker = &state.workers[no];
        let answers = |lost_answers: u8| {
            let lost = (lost_answers > 0).then_some(Answer::Lost);
            std::iter::once(Answer::Heard).chain(lost)
        };
        let Scope { slots, ahead, .. } = self.scope;
        let has_room = worker.held.len() < slots + ahead;
        if !worker.stopping && worker.take == Take::None && has_room && !Self::take_waits(state) {
            actions.extend(answers(state.left.lost_answers).map(|answer| Action::Take(no, answer)));
        }
        if !Self::taking_waits(state, no) {
            actions.push(Action::GoOnTaking(no));
        }
        let begun =
            worker.held.iter().filter(|one| matches!(one.stage, Stage::Begun | Stage::Called));
        let has_slot = begun.count() < slots;
        for (place, held) in worker.held.iter().enumerate() {
            let is_over = matches!(held.stage, Stage::Writing(_));
            if worker.stopping && !is_over {
                actions.push(Action::Interrupt(no, place));
            }
            match held.stage {
                Stage::Ahead if has_slot && !worker.stopping => actions.extend(
                    answers(state.left.lost_answers).map(|answer| Action::Begin(no, place, answer)),
                ),
                Stage::Ahead => {}
                Stage::Begun => actions.push(Action::Call(no, place)),
                Stage::Called | Stage::Writing(_) if state.is_locked(held.run) => {}
                Stage::Called | Stage::Writing(_) => {
                    let can_fail = held.stage == Stage::Called && held.number < self.scope.attempts;
                    for failed in [false, true].into_iter().take(1 + usize::from(can_fail)) {
                        actions
                            .extend(answers(state.left.lost_answers).map(|answer| {
                                Action::Commit(no, place, Commit { failed, answer })
                            }));
                    }
                }
            }
        }
        if !worker.held.is_empty() {
            actions.push(Action::Renew(no));
        }
        if worker.stopping
            && worker.held.is_empty()
            && matches!(worker.take, Take::None | Take::Lost)
        {
            actions.push(Action::Exit(no));
        }
        if state.left.stops > 0 && !worker.stopping {
            actions.push(Action::Stop(no));
        }
        if state.left.crashes > 0 && *worker != Worker::default() {
            actions.push(Action::Crash(no));
        }
    }

    fn api_actions(state: &State, actions: &mut Vec<Action>) {
        match &state.api {
            Api::Idle => {
                if state.left.cancels > 0 {
                    actions.push(Action::Ask(Wish::Cancel));
                }
                if state.left.put_offs > 0 {
                    actions.push(Action::Ask(Wish::PutOff));
                }
                return;
            }
            Api::Wrote(..) | Api::Saw(..) => actions.push(Action::Look),
            Api::Looked(..) => actions.push(Action::CommitApi),
        }
        if state.left.rollbacks > 0 {
            actions.push(Action::GiveUp);
        }
    }

    fn act(&self, state: &mut State, action: Action) {
        Self::count(state, action);
        self.carry_out(state, action);
        state.normalise();
    }

    /// Of what may go wrong, this is used up.
    fn count(state: &mut State, action: Action) {
        let is_known = match action {
            Action::Lapse(place) => state.is_known(state.leases[place].token),
            _ => false,
        };
        let left = &mut state.left;
        match action {
            Action::Take(_, Answer::Lost)
            | Action::Begin(_, _, Answer::Lost)
            | Action::Commit(_, _, Commit { answer: Answer::Lost, .. }) => left.lost_answers -= 1,
            Action::Stop(_) => left.stops -= 1,
            Action::Crash(_) => left.crashes -= 1,
            Action::Lapse(_) if is_known => left.pauses -= 1,
            Action::Ask(Wish::Cancel) => left.cancels -= 1,
            Action::Ask(Wish::PutOff) => left.put_offs -= 1,
            Action::GiveUp => left.rollbacks -= 1,
            _ => {}
        }
    }

    fn carry_out(&self, state: &mut State, action: Action) {
        match action {
            Action::Take(worker, answer) => self.take_due(state, worker, answer),
            Action::GoOnTaking(worker) => self.go_on_taking(state, worker),
            Action::Begin(worker, place, answer) => self.begin(state, worker, place, answer),
            Action::Call(worker, place) => self.call(state, worker, place),
            Action::Commit(worker, place, how) => self.commit(state, worker, place, how),
            Action::Renew(worker) => Self::renew(state, worker),
            Action::Stop(worker) => state.workers[worker].stopping = true,
            Action::Interrupt(worker, place) => {
                state.workers[worker].held[place].stage = Stage::Writing(state::Write::Release);
            }
            Action::Exit(worker) | Action::Crash(worker) => Self::gone(state, worker),
            Action::Lapse(place) => {
                state.leases[place].live = false;
                let token = state.leases[place].token;
                let held = state.workers.iter_mut().flat_map(|worker| worker.held.iter_mut());
                held.filter(|held| held.token == token).for_each(|held| held.ran_out = true);
            }
            Action::ComeDue(run) => state.runs[run].due = true,
            Action::Ask(wish) => self.api_writes(state, wish),
            Action::Look => Self::api_looks(state),
            Action::CommitApi => Self::api_commits(state),
            Action::GiveUp => Self::api_gives_up(state),
        }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let run = Run { queued: true, due: true, ..Run::default() };
        vec![State {
            runs: vec![run; self.scope.runs],
            workers: vec![Worker::default(); self.scope.workers],
            left: self.scope.faults,
            ..State::default()
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for worker in 0..state.workers.len() {
            self.worker_actions(state, worker, actions);
        }
        let can_lapse = |token| state.left.pauses > 0 || !state.is_known(token);
        let live = state.leases.iter().enumerate();
        let live = live.filter(|(_, lease)| lease.live && can_lapse(lease.token));
        actions.extend(live.map(|(place, _)| Action::Lapse(place)));
        let later = state.runs.iter().enumerate().filter(|(_, run)| run.queued && !run.due);
        actions.extend(later.map(|(run, _)| Action::ComeDue(run)));
        Self::api_actions(state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        self.act(&mut state, action);
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}
