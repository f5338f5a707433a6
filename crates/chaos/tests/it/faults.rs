//! Each fault breaks no promise.

use std::path::Path;

use orchestrator_chaos::faults::Fault;
use orchestrator_chaos::{Plan, trial};

/// Holds a short trial of the fault.
async fn breaks_no_promise(name: &str) {
    let fault = Fault::named(name).expect("there is such a fault");
    if let Some(reason) = fault.lacks() {
        eprintln!("{name} is left out: {reason}");
        return;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("chaos").join(name);

    let verdict =
        Box::pin(trial(fault, &Plan::short(), &folder)).await.expect("the trial can be held");

    assert!(verdict.problems.is_empty(), "{verdict:#?}\nlogs are in {}", folder.display());
}

macro_rules! faults {
    ($($test:ident = $name:literal,)+) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $test() {
            breaks_no_promise($name).await;
        })+

        #[test]
        fn every_fault_has_its_test() {
            let tested = [$($name),+];
            for fault in orchestrator_chaos::faults::FAULTS {
                assert!(tested.contains(&fault.name), "{} has none", fault.name);
            }
        }
    };
}

faults! {
    no_run_is_lost_or_done_twice_when_workers_are_killed = "workers-killed",
    no_run_is_lost_or_done_twice_when_workers_stand_still_past_their_lease = "workers-paused",
    no_run_is_lost_or_done_twice_when_postgres_ends_without_a_goodbye = "postgres-restarted",
    no_run_is_lost_or_done_twice_when_sessions_are_terminated = "sessions-terminated",
    no_run_is_lost_or_done_twice_when_postgres_takes_no_connections = "connections-refused",
    no_run_is_lost_or_done_twice_when_redis_is_killed_and_forgets = "redis-lost",
    no_run_is_lost_or_done_twice_when_the_network_to_postgres_breaks = "network-cut",
    no_run_is_lost_or_done_twice_when_the_network_to_postgres_is_slow = "network-slow",
    no_run_is_lost_or_done_twice_when_connections_to_postgres_fall_silent = "network-lost",
    no_run_is_lost_or_done_twice_when_the_disk_of_postgres_is_full = "disk-full",
    no_run_is_lost_or_done_twice_when_clocks_of_workers_are_an_hour_off = "clock-off",
    no_run_is_lost_or_done_twice_when_every_process_is_replaced = "rolling-restart",
}
