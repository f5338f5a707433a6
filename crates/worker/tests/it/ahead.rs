//! Runs leased before there is a slot for them.

use std::time::Duration;

use orchestrator_engine::clock::Clock as _;
use orchestrator_engine::id::{self, ProcessId};
use orchestrator_engine::run::{StepRecord, StepStatus};
use orchestrator_engine::store::queue::{self, Past, QueueView, Sealed, Take};
use orchestrator_testkit::{FakeTools, TestApp, task};
use serde_json::json;

use crate::fencing::step;

const NOW: &str = "2026-03-01T08:00:00Z";
const LEASE: Duration = Duration::from_secs(30);
/// A lease that has lapsed when it is given.
const LAPSED: Duration = Duration::ZERO;

#[tokio::test]
async fn only_what_was_begun_under_a_lapsed_lease_counts_as_an_attempt() {
    let app = TestApp::at(NOW).await;
    let mut conn = app.servers.pool.acquire().await.unwrap();
    for _ in 0..3 {
        queue::enqueue(&mut conn, app.work(None)).await.unwrap();
    }
    let first = app.take_ahead(&mut conn, LAPSED, 10, 1).await.runs;
    let ahead: Vec<_> = first.iter().map(|run| run.ahead).collect();
    let begun = queue::begin(&mut conn, &[first[1].lease]).await.unwrap();
    let second = app.take_ahead(&mut conn, LEASE, 10, 10).await.runs;

    assert_eq!(ahead, [false, true, true]);
    assert_eq!(begun, [first[1].lease.run_id]);
    for (run, attempt) in first.iter().zip([2, 2, 1]) {
        let again = second.iter().find(|again| again.lease.run_id == run.lease.run_id).unwrap();
        assert_eq!((again.info.attempt, again.past), (attempt, Past::Lapsed));
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn who_lost_a_lease_begins_nothing_and_puts_nothing_back() {
    let app = TestApp::at(NOW).await;
    let mut conn = app.servers.pool.acquire().await.unwrap();
    queue::enqueue(&mut conn, app.work(None)).await.unwrap();
    let late = app.take_ahead(&mut conn, LAPSED, 10, 0).await.runs.remove(0);
    let held = app.take_ahead(&mut conn, LEASE, 10, 1).await.runs.remove(0);

    let begun = queue::begin(&mut conn, &[late.lease]).await.unwrap();
    queue::put_back(&mut conn, &[late.lease]).await.unwrap();
    let renewed = queue::renew(&mut conn, &[held.lease], LEASE).await.unwrap();
    let others = app.take_ahead(&mut conn, LEASE, 10, 1).await.runs;

    assert!(late.ahead && begun.is_empty());
    assert_eq!(renewed.len(), 1, "its holder has it still");
    assert!(others.is_empty(), "and nobody else can take it");
}

#[tokio::test]
async fn a_run_put_back_is_as_if_nobody_had_held_it() {
    let app = TestApp::at(NOW).await;
    let mut conn = app.servers.pool.acquire().await.unwrap();
    queue::enqueue(&mut conn, app.work(None)).await.unwrap();
    let ahead = app.take_ahead(&mut conn, LEASE, 10, 0).await.runs.remove(0);

    queue::put_back(&mut conn, &[ahead.lease]).await.unwrap();
    let again = app.take_ahead(&mut conn, LEASE, 10, 1).await.runs.remove(0);

    assert_eq!((again.info.attempt, again.past), (1, Past::Fresh));
    app.check_invariants().await;
}

/// A run put back lies before what its worker has seen since: it is found by every taker's next look.
#[tokio::test]
async fn a_taker_that_has_gone_on_finds_what_was_put_back() {
    let app = TestApp::at(NOW).await;
    let mut conn = app.servers.pool.acquire().await.unwrap();
    let batch = (0..6).map(|_| app.work(None)).collect();
    queue::enqueue_many(&mut conn, batch).await.unwrap();
    let worker = ProcessId::new(app.clock.now(), &mut id::rng());
    let how = Take { worker, duration: LEASE, wanted: 2, slots: 0, ageing: LEASE };
    let mut view = QueueView::default();
    let first = view.take(&mut conn, how).await.unwrap().runs;
    view.take(&mut conn, how).await.unwrap();

    let leases: Vec<_> = first.iter().map(|run| run.lease).collect();
    queue::put_back(&mut conn, &leases).await.unwrap();
    let third = view.take(&mut conn, how).await.unwrap().runs;

    let ids = |runs: &[queue::Leased]| {
        let mut ids: Vec<_> = runs.iter().map(|run| run.lease.run_id).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&first), ids(&third));
}

#[tokio::test]
async fn checkpoints_outlive_the_lease_under_which_they_were_written() {
    let app = TestApp::at(NOW).await;
    let mut conn = app.servers.pool.acquire().await.unwrap();
    let run = queue::enqueue(&mut conn, app.work(None)).await.unwrap().run_id;
    let lost = app.take_ahead(&mut conn, LAPSED, 10, 1).await.runs.remove(0);
    let on = StepRecord { path: "two".into(), status: StepStatus::Running, ..step(&app) };
    queue::checkpoint(&mut conn, &[(lost.lease, vec![Sealed::from(step(&app)), on.into()])])
        .await
        .unwrap();
    let before = app.steps(run).await;
    app.take_ahead(&mut conn, LEASE, 10, 1).await;

    assert_eq!(before, ["one#1 succeeded", "two#1 running"]);
    assert_eq!(app.steps(run).await, before);
    assert_eq!(app.count("select count(*) from run_step").await, 2);
    assert_eq!(app.count("select count(*) from checkpoint").await, 0, "they went with the lease");
}

/// Quick runs of several steps, more than there are slots: each checkpointed before its next step, all
/// done once, and none ahead any more in the end.
#[tokio::test]
async fn many_quick_runs_are_done_once_each_with_all_their_steps() {
    let app = TestApp::with(NOW, &[("WORKER_CONCURRENCY", "3")]).await;
    let echo = |id: &str| json!({"id": id, "uses": "core.echo", "with": {"message": id}});
    let pipeline = json!([echo("a"), echo("b"), echo("c")]);
    let task = app.add_task(task("manual", "", &pipeline)).await;
    let mut conn = app.servers.pool.acquire().await.unwrap();
    let batch = (0..400).map(|_| app.work(Some(task))).collect();
    queue::enqueue_many(&mut conn, batch).await.unwrap();

    let tools = FakeTools::default().on("core.echo", |call| Ok(call.input.clone()));
    let worker = app.start_worker(&tools);
    let ended = app.until_idle().await;
    worker.stop().await;

    assert_eq!(ended, [("succeeded".to_owned(), 400)]);
    let steps = "select count(*) from run where json_array_length(steps) = 3 and attempt = 1";
    assert_eq!(app.count(steps).await, 400);
    assert_eq!(tools.calls().len(), 1_200);
    assert_eq!(app.count("select count(*) from lease").await, 0);
    app.check_invariants().await;
}

/// Effects out there begin only when it is written that they do: a lease ahead is over by then.
#[tokio::test]
async fn a_run_with_effects_is_begun_before_its_first_step() {
    let app = TestApp::with(NOW, &[("WORKER_CONCURRENCY", "1")]).await;
    let quick = json!([{"id": "a", "uses": "core.echo", "with": {"message": "a"}}]);
    let quick = app.add_task(task("manual", "", &quick)).await;
    let slow = json!([{"id": "a", "uses": "test.hang", "with": {}}]);
    let slow = app.add_task(task("manual", "", &slow)).await;
    let mut conn = app.servers.pool.acquire().await.unwrap();
    let batch = (0..200).map(|_| app.work(Some(quick))).collect();
    queue::enqueue_many(&mut conn, batch).await.unwrap();
    let slow = queue::enqueue(&mut conn, app.work(Some(slow))).await.unwrap().run_id;

    let tools = FakeTools::default().on("core.echo", |call| Ok(call.input.clone()));
    let worker = app.start_worker(&tools);
    tools.called(201).await;
    let ahead: i64 = sqlx::query_scalar(
        "select count(*) from lease where $1 <> all (begun) and $1 = any (run_ids)",
    )
    .bind(slow)
    .fetch_one(&app.servers.pool)
    .await
    .unwrap();

    assert_eq!(tools.calls()[200].address, "test.hang");
    assert_eq!(ahead, 0);
    tools.release();
    app.until_idle().await;
    worker.stop().await;
}
