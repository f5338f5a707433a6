//! The protocol in all orders: with its rules nothing goes wrong, without any one of them something does.

use std::collections::BTreeSet;

use orchestrator_model::state::Faults;
use orchestrator_model::{Protocol, Rule, Scope};
use stateright::{Checker as _, HasDiscoveries, Model as _};

const NONE: Faults = Faults {
    pauses: 0,
    crashes: 0,
    stops: 0,
    lost_answers: 0,
    cancels: 0,
    put_offs: 0,
    rollbacks: 0,
};

/// One run and everything that can become of a worker.
const ONE_RUN: Scope = Scope {
    runs: 1,
    workers: 2,
    attempts: 2,
    slots: 1,
    ahead: 0,
    faults: Faults { pauses: 2, crashes: 1, stops: 1, lost_answers: 1, ..NONE },
};

/// One run, and callers that cancel it and put it off while workers take it.
const CALLERS: Scope = Scope {
    faults: Faults { pauses: 2, crashes: 1, cancels: 1, put_offs: 1, rollbacks: 1, ..NONE },
    ..ONE_RUN
};

/// Two runs that are leased together.
const BATCH: Scope = Scope {
    runs: 2,
    attempts: 1,
    slots: 2,
    faults: Faults { pauses: 1, stops: 1, lost_answers: 1, ..NONE },
    ..ONE_RUN
};

/// Two runs that are canceled together.
const BULK: Scope =
    Scope { faults: Faults { pauses: 1, crashes: 1, cancels: 1, rollbacks: 1, ..NONE }, ..BATCH };

/// Two runs, one of them leased ahead.
const AHEAD: Scope = Scope { slots: 1, ahead: 1, ..BATCH };

/// The same, and callers that cancel both.
const AHEAD_BULK: Scope = Scope { faults: BULK.faults, ..AHEAD };

fn nothing_goes_wrong(scope: Scope) {
    let checker = Protocol::new(scope).checker().spawn_bfs().join();
    println!("{} states, depth {}", checker.unique_state_count(), checker.max_depth());
    checker.assert_properties();
}

#[test]
fn a_run_ends_once_whatever_becomes_of_its_workers() {
    nothing_goes_wrong(ONE_RUN);
}

#[test]
fn callers_and_takers_see_each_other() {
    nothing_goes_wrong(CALLERS);
}

#[test]
fn runs_of_one_lease_do_not_get_in_each_others_way() {
    nothing_goes_wrong(BATCH);
}

#[test]
fn runs_canceled_together_end_or_are_stopped() {
    nothing_goes_wrong(BULK);
}

#[test]
fn a_run_leased_ahead_costs_no_attempt_until_it_is_begun() {
    nothing_goes_wrong(AHEAD);
}

#[test]
fn runs_leased_ahead_can_be_canceled() {
    nothing_goes_wrong(AHEAD_BULK);
}

/// The checker must find a way to `wrong` when the rule is left out.
#[track_caller]
fn is_needed(rule: Rule, scope: Scope, wrong: &'static str) {
    let found = HasDiscoveries::AnyOf(BTreeSet::from([wrong]));
    let protocol = Protocol::new(scope).without(rule);
    let checker = protocol.checker().finish_when(found).spawn_bfs().join();
    let way = checker.discovery(wrong).map(stateright::Path::into_actions);
    assert!(way.is_some(), "without {rule:?} all is well");
    println!("without {rule:?}, {wrong}: {:?}", way.unwrap_or_default());
}

#[test]
fn without_tokens_a_stale_worker_writes() {
    is_needed(Rule::NameTheToken, ONE_RUN, "a stale token writes nothing");
}

/// The answer to a release is lost, another run keeps the lease; by the time it is sent again somebody
/// else has the run.
#[test]
fn a_release_that_does_not_ask_whose_the_run_is_changes_another_workers() {
    is_needed(Rule::ReleaseOwn, BATCH, "a stale token writes nothing");
}

#[test]
fn lapses_that_do_not_count_let_a_run_be_called_for_ever() {
    is_needed(Rule::CountLapses, ONE_RUN, "a run is called once for each attempt, and once more");
}

#[test]
fn a_taker_that_does_not_wait_for_writers_begins_what_was_canceled() {
    is_needed(Rule::WaitForWriters, CALLERS, "what was canceled is not begun");
}

#[test]
fn a_caller_that_looks_before_it_writes_cancels_what_is_begun() {
    is_needed(Rule::WriteThenLook, CALLERS, "what was canceled is not begun");
}

/// The run was put off, and that was committed, between the lease and the look at its row.
#[test]
fn a_taker_that_does_not_ask_again_begins_what_was_put_off() {
    is_needed(Rule::AskWhetherDue, CALLERS, "what was put off is not begun early");
}

#[test]
fn a_run_begun_without_a_trace_is_called_beyond_its_attempts() {
    let wrong = "a run is called once for each attempt, and once more";
    is_needed(Rule::BeginDurably, AHEAD_BULK, wrong);
}

/// Its worker was lost in the last attempt, and the next gave it back before it could say so.
#[test]
fn a_worker_that_looks_at_the_last_holder_alone_goes_beyond_the_most() {
    is_needed(Rule::AskTheNumber, ONE_RUN, "no attempt beyond the most");
}
