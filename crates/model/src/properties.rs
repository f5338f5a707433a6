//! What must hold in every state that can come about, and what must be able to come about, so that the
//! rest says something.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::PoisonError;

use stateright::{Model as _, Property};

use crate::state::{End, State, Wrong};
use crate::{Action, Answer, Commit, Protocol};

/// The most steps that an end may take when nothing goes wrong any more.
const STEPS_MAX: usize = 100;

pub(crate) fn all() -> Vec<Property<Protocol>> {
    vec![
        Property::always("a run is in the queue or finished", |_, state: &State| {
            state.runs.iter().all(|run| run.queued == (run.ended == 0))
        }),
        Property::always("a run is finished once", |_, state: &State| {
            state.runs.iter().all(|run| run.ended <= 1)
        }),
        Property::always("a run has one lease at most", |_, state: &State| {
            let mut queued = (0..state.runs.len()).filter(|run| state.runs[*run].queued);
            queued.all(|run| state.leases_of(run).count() <= 1)
        }),
        Property::always("a stale token writes nothing", |_, state: &State| {
            never(state, Wrong::StaleWrite)
        }),
        Property::always("a run is called once for each attempt, and once more", calls_in_bounds),
        Property::always("no attempt beyond the most", |_, state: &State| {
            never(state, Wrong::BeyondTheMost)
        }),
        Property::always("what was canceled is not begun", |_, state: &State| {
            never(state, Wrong::BegunAfterCancel)
        }),
        Property::always("what was put off is not begun early", |_, state: &State| {
            never(state, Wrong::BegunEarly)
        }),
        Property::always("every run can end", Protocol::can_end),
        Property::sometimes("workers finish all runs", |_, state: &State| {
            state.runs.iter().all(|run| run.end == Some(End::Worker))
        }),
    ]
}

fn never(state: &State, wrong: Wrong) -> bool {
    !state.wrongs.contains(&wrong)
}

/// Of a run in the queue the attempt that is on is not counted yet; of one that was canceled while its
/// lease had run out it never is. A call that a stopping worker cut off belongs to no attempt.
fn calls_in_bounds(_: &Protocol, state: &State) -> bool {
    state.runs.iter().all(|run| {
        let on = u8::from(run.end != Some(End::Worker));
        run.calls <= run.attempt + on + run.cut
    })
}

impl Protocol {
    /// Whether all runs end when from now on nothing goes wrong and everybody does what there is to do.
    fn can_end(&self, state: &State) -> bool {
        let mut state = state.clone();
        let mut passed = Vec::new();
        let mut ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..STEPS_MAX {
            let hash = fingerprint(&state);
            passed.push(hash);
            if ending.contains(&hash) || state.runs.iter().all(|run| !run.queued) {
                ending.extend(passed);
                return true;
            }
            let mut actions = Vec::new();
            self.actions(&state, &mut actions);
            actions.retain(|action| urgency(&state, *action).is_some());
            actions.sort_by_key(|action| urgency(&state, *action));
            let next = actions.into_iter().find_map(|action| self.next_state(&state, action));
            let Some(next) = next else { return false };
            state = next;
        }
        false
    }
}

fn fingerprint(state: &State) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

/// What is done first when nothing goes wrong; `None`: what goes wrong.
fn urgency(state: &State, action: Action) -> Option<u8> {
    match action {
        Action::Look | Action::CommitApi => Some(0),
        Action::GoOnTaking(_) => Some(1),
        Action::Interrupt(..) => Some(2),
        Action::Commit(_, _, Commit { failed: false, answer: Answer::Heard }) => Some(3),
        Action::Begin(_, _, Answer::Heard) => Some(4),
        Action::Call(..) => Some(5),
        Action::Exit(_) => Some(7),
        Action::ComeDue(_) => Some(8),
        Action::Take(_, Answer::Heard) => Some(9),
        // Its holder would renew it.
        Action::Lapse(place) if !state.is_known(state.leases[place].token) => Some(10),
        _ => None,
    }
}
