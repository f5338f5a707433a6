//! Many runs ended at once.

use std::time::Duration;

use orchestrator_engine::id::{self, RunId};
use orchestrator_engine::run::RunError;
use orchestrator_engine::store::queue::{self, Canceled};
use orchestrator_testkit::TestApp;

/// Some are held, some are over, one never was; and one is named twice.
#[tokio::test]
async fn canceling_many_runs_says_what_became_of_each() {
    let app = TestApp::at("2026-03-01T08:00:00Z").await;
    let mut conn = app.servers.pool.acquire().await.unwrap();
    let mut runs = Vec::new();
    for _ in 0..4 {
        runs.push(queue::enqueue(&mut conn, app.work(None)).await.unwrap().run_id);
    }
    let taken = app.take(&mut conn, Duration::from_mins(1), 2).await.runs;
    let held: Vec<RunId> = taken.iter().map(|run| run.lease.run_id).collect();
    let free: Vec<RunId> = runs.iter().copied().filter(|run| !held.contains(run)).collect();
    let error = RunError { kind: "canceled".into(), message: "by the test".into(), step: None };
    let mut tx = app.servers.pool.begin().await.unwrap();
    queue::cancel(&mut tx, free[0], &error).await.unwrap();
    tx.commit().await.unwrap();
    let never = RunId::new("2026-03-01T08:00:00Z".parse().unwrap(), &mut id::rng());

    let asked: Vec<RunId> = runs.iter().rev().chain(&[never, free[1]]).copied().collect();
    let mut tx = app.servers.pool.begin().await.unwrap();
    let ended = queue::cancel_many(&mut tx, &asked, &error).await.unwrap();
    tx.commit().await.unwrap();

    let mut wanted = vec![(free[1], Canceled::Done)];
    wanted.extend(held.iter().map(|run| (*run, Canceled::Requested)));
    wanted.sort_by_key(|(run, _)| *run);
    assert_eq!(ended, wanted);
    assert_eq!(app.count("select count(*) from run where status = 'canceled'").await, 2);
    assert_eq!(
        app.count("select count(*) from due_work where cancel_requested_at is not null").await,
        2
    );
}
