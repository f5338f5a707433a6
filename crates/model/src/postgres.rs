//! What each statement does to the rows. A statement is one step: Postgres (read committed) shows it one
//! snapshot, and where it meets a row that another transaction has changed, it waits and looks at it anew.

use crate::state::{
    Api, End, Held, Lease, Pick, RunNo, Stage, State, Take, Token, Wish, Worker, Write,
};
use crate::{Answer, Protocol, Rule, Scope, WorkerNo};

impl Protocol {
    /// Whether `take_due` would wait: a run of a lease that it sweeps is being written to.
    pub(crate) fn take_waits(state: &State) -> bool {
        let mut swept = state.leases.iter().filter(|lease| !lease.live);
        swept.any(|lease| lease.runs.iter().any(|run| state.is_locked(*run)))
    }

    /// `take_due`: sweeps, chooses, and writes the lease. One transaction under the advisory lock.
    pub(crate) fn take_due(&self, state: &mut State, worker: WorkerNo, answer: Answer) {
        let (lapsed, live): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.leases).into_iter().partition(|lease| !lease.live);
        state.leases = live;
        for lease in &lapsed {
            for run in &lease.runs {
                let was_begun = !lease.ahead.contains(run);
                let row = &mut state.runs[*run];
                if row.queued {
                    row.lapsed = true;
                    row.marked = false;
                    if was_begun && self.keeps(Rule::CountLapses) {
                        // Beyond the most nothing is called any more; counting on would never end.
                        row.attempt = (row.attempt + 1).min(self.scope.attempts + 1);
                        row.started = true;
                    }
                }
            }
        }
        let Scope { slots, ahead, .. } = self.scope;
        let begun = |worker: &Worker| {
            worker
                .held
                .iter()
                .filter(|held| matches!(held.stage, Stage::Begun | Stage::Called))
                .count()
        };
        let free = slots.saturating_sub(begun(&state.workers[worker]));
        let wanted = (slots + ahead).saturating_sub(state.workers[worker].held.len());
        let mut taken = Vec::new();
        let mut unbegun = Vec::new();
        for (run, row) in state.runs.iter().enumerate() {
            let is_free = row.queued && row.due && state.leases_of(run).next().is_none();
            if !is_free || taken.len() == wanted {
                continue;
            }
            if taken.len() - unbegun.len() >= free {
                unbegun.push(run);
            }
            taken.push(run);
        }
        let lost = answer == Answer::Lost;
        if !taken.is_empty() {
            let new = Token::MAX; // renumbered in a moment
            state.leases.push(Lease {
                token: new,
                worker: Some(worker),
                known: !lost,
                live: true,
                runs: taken.clone(),
                ahead: unbegun.clone(),
            });
            if !lost {
                let pick = |run: &RunNo| Pick { run: *run, ahead: unbegun.contains(run) };
                state.workers[worker].take = Take::Chosen(new, taken.iter().map(pick).collect());
            }
        }
        if lost {
            state.workers[worker].take = Take::Lost;
        }
    }

    /// `QueueView::find_lost`.
    pub(crate) fn find_lost(state: &mut State, worker: WorkerNo) {
        let lost =
            state.leases.iter_mut().rfind(|lease| lease.worker == Some(worker) && !lease.known);
        state.workers[worker].take = lost.map_or(Take::None, |lease| {
            lease.known = true;
            let pick = |run: &RunNo| Pick { run: *run, ahead: lease.ahead.contains(run) };
            Take::Chosen(lease.token, lease.runs.iter().map(pick).collect())
        });
    }

    /// `read_rows`: which of the runs are there, and what of it matters.
    pub(crate) fn read_rows(state: &State, token: Token, picks: &[Pick]) -> Vec<Held> {
        let lease = state.lease(token);
        let there = picks.iter().filter(|pick| state.runs[pick.run].queued);
        let read = there.map(|pick| {
            let row = &state.runs[pick.run];
            let how_far = if row.canceling {
                Stage::Writing(Write::Finish)
            } else if pick.ahead {
                Stage::Ahead
            } else {
                Stage::Begun
            };
            Held {
                run: pick.run,
                token,
                number: row.attempt + 1,
                lapsed: row.lapsed,
                stage: how_far,
                called: false,
                ran_out: lease.is_none_or(|lease| !lease.live),
            }
        });
        read.collect()
    }

    /// The rows that somebody writes to, or wrote to and gave up.
    pub(crate) fn touched(state: &State, picks: &[Pick]) -> Vec<RunNo> {
        let touched = |run: &RunNo| {
            state.runs[*run].queued && (state.runs[*run].marked || state.is_locked(*run))
        };
        picks.iter().map(|pick| pick.run).filter(touched).collect()
    }

    /// `update lease set run_ids = …`: what was left out while reading is nobody's.
    pub(crate) fn keep_only(state: &mut State, token: Token, kept: &[Held]) {
        if let Some(lease) = state.lease_mut(token) {
            lease.runs.retain(|run| kept.iter().any(|held| held.run == *run));
            lease.ahead.retain(|run| kept.iter().any(|held| held.run == *run));
        }
    }

    /// Takes a run off the list of those that are not begun. Returns whether it is still the worker's.
    pub(crate) fn mark_begun(&self, state: &mut State, held: &Held) -> bool {
        if !self.keeps(Rule::BeginDurably) {
            return true;
        }
        match state.lease_mut(held.token) {
            Some(lease) if lease.runs.contains(&held.run) => {
                lease.ahead.retain(|run| *run != held.run);
                true
            }
            _ => false,
        }
    }

    /// `finish`, `requeue` or `release`, with the end of the lease when none of its runs is left.
    pub(crate) fn write(&self, state: &mut State, held: &Held, what: Write, is_over: bool) {
        let lease = state.lease(held.token);
        let names = lease.is_some_and(|lease| lease.runs.contains(&held.run));
        let fenced = match what {
            Write::Finish | Write::Requeue => names || !self.keeps(Rule::NameTheToken),
            Write::Release => names || (lease.is_some() && !self.keeps(Rule::ReleaseOwn)),
        };
        if fenced && state.runs[held.run].queued {
            if !names {
                state.note(crate::state::Wrong::StaleWrite);
            }
            let row = &mut state.runs[held.run];
            row.marked = false;
            row.started = true;
            match what {
                Write::Finish => {
                    row.queued = false;
                    row.ended += 1;
                    row.end = Some(End::Worker);
                    row.attempt += 1;
                }
                Write::Requeue => {
                    row.attempt += 1;
                    row.lapsed = false;
                    row.due = false;
                }
                Write::Release => {
                    row.lapsed = false;
                    row.cut += u8::from(names && held.called);
                }
            }
            if what != Write::Finish
                && let Some(lease) = state.lease_mut(held.token)
            {
                lease.runs.retain(|run| *run != held.run);
                lease.ahead.retain(|run| *run != held.run);
            }
        }
        if is_over {
            state.leases.retain(|lease| lease.token != held.token);
        }
    }

    /// `renew`. Returns the tokens' runs that are still the worker's, and which of them are to stop.
    pub(crate) fn renew(state: &mut State, worker: WorkerNo) {
        let mut held = std::mem::take(&mut state.workers[worker].held);
        for lease in &mut state.leases {
            lease.live |= held.iter().any(|held| held.token == lease.token);
        }
        held.retain_mut(|held| {
            let row = &state.runs[held.run];
            let is_ours = row.queued
                && state.lease(held.token).is_some_and(|lease| lease.runs.contains(&held.run));
            let is_over = matches!(held.stage, Stage::Writing(_));
            if is_ours && row.canceling && !is_over {
                held.stage = Stage::Writing(Write::Finish);
            }
            is_ours || is_over
        });
        state.workers[worker].held = held;
    }

    /// The first statement of the API's transaction: it writes to the rows, which locks them.
    pub(crate) fn api_writes(&self, state: &mut State, wish: Wish) {
        let all = match wish {
            Wish::Cancel => 0..state.runs.len(),
            Wish::PutOff => 0..1,
        };
        let rows: Vec<_> = all.filter(|run| state.runs[*run].queued).collect();
        let rows = match wish {
            Wish::Cancel => rows,
            Wish::PutOff => Self::unbegun(state, &rows),
        };
        state.api = if rows.is_empty() {
            Api::Idle
        } else if self.keeps(Rule::WriteThenLook) {
            Api::Wrote(wish, rows)
        } else {
            let free = Self::free(state, wish, &rows);
            Api::Saw(wish, rows, free)
        };
    }

    /// The second: which of them does nobody hold? (`untaken`, the look of `postpone`)
    pub(crate) fn api_looks(state: &mut State) {
        state.api = match std::mem::take(&mut state.api) {
            Api::Wrote(wish, rows) => {
                let free = Self::free(state, wish, &rows);
                Api::Looked(wish, rows, free)
            }
            Api::Saw(wish, mut rows, free) => {
                rows.retain(|run| state.runs[*run].queued);
                Api::Looked(wish, rows, free)
            }
            other => other,
        };
    }

    fn free(state: &State, wish: Wish, rows: &[RunNo]) -> Vec<RunNo> {
        match wish {
            Wish::Cancel => {
                let held = |run: RunNo| state.leases_of(run).any(|lease| lease.live);
                rows.iter().copied().filter(|run| !held(*run)).collect()
            }
            Wish::PutOff => Self::unbegun(state, rows),
        }
    }

    fn unbegun(state: &State, rows: &[RunNo]) -> Vec<RunNo> {
        let unbegun =
            |run: &RunNo| !state.runs[*run].started && state.leases_of(*run).next().is_none();
        rows.iter().copied().filter(unbegun).collect()
    }

    /// The third, and the commit: what nobody holds is ended or moved; of the others a cancel is noted.
    pub(crate) fn api_commits(state: &mut State) {
        let Api::Looked(wish, rows, free) = std::mem::take(&mut state.api) else { return };
        for run in rows {
            let row = &mut state.runs[run];
            row.marked = match (wish, free.contains(&run)) {
                (Wish::Cancel, true) => {
                    row.queued = false;
                    row.ended += 1;
                    row.end = Some(End::Canceled);
                    false
                }
                (Wish::Cancel, false) => {
                    row.canceling = true;
                    false
                }
                (Wish::PutOff, true) => {
                    row.due = false;
                    false
                }
                (Wish::PutOff, false) => true, // it was only locked
            };
        }
    }

    /// The API's transaction is given up. Its mark stays on the rows.
    pub(crate) fn api_gives_up(state: &mut State) {
        if let Api::Wrote(_, rows) | Api::Looked(_, rows, _) = std::mem::take(&mut state.api) {
            for run in rows {
                state.runs[run].marked = true;
            }
        }
    }
}
