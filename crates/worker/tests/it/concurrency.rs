//! Runs that share a concurrency key.

use orchestrator_boot::Service;
use orchestrator_engine::store::queue;
use orchestrator_testkit::{FakeTools, TestApp, task};
use serde_json::json;

const NOW: &str = "2026-03-01T08:00:00Z";

async fn keyed(app: &TestApp, limit: u16) -> orchestrator_engine::id::TaskId {
    let mut declared = task("manual", "", &json!([{"id": "one", "uses": "test.hang"}]));
    declared["concurrency_key"] = json!("door");
    declared["concurrency_limit"] = json!(limit);
    app.add_task(declared).await
}

async fn enqueue(app: &TestApp, tasks: &[orchestrator_engine::id::TaskId], limit: u16) {
    let mut conn = app.servers.pool.acquire().await.expect("the database answers");
    for task in tasks {
        let mut work = app.work(Some(*task));
        work.concurrency = Some(("door".to_owned(), limit));
        queue::enqueue(&mut conn, work).await.expect("the database answers");
    }
    drop(conn);
    let mut tx = app.servers.pool.begin().await.expect("the database answers");
    queue::admit_key(&mut tx, app.agent, "door").await.expect("the database answers");
    tx.commit().await.expect("the database answers");
}

#[tokio::test]
async fn never_more_runs_of_a_key_are_on_than_its_limit_whatever_their_tasks_and_workers() {
    let app = TestApp::with(NOW, &[("WORKER_CONCURRENCY", "10")]).await;
    let (one, other) = (keyed(&app, 2).await, keyed(&app, 2).await);
    let tools = FakeTools::default();
    let workers = [app.start_worker(&tools), app.start_worker(&tools)];

    enqueue(&app, &[one, other, one, other, one, other], 2).await;
    for number in 1..=6_usize {
        tools.called(number.max(2)).await;
        let on = app.count("select count(*) from due_work where locked_by is not null").await;
        assert!(on <= 2, "{on} are on");
        app.check_invariants().await;
        tools.release();
        app.until("select count(*) from run", i64::try_from(number).unwrap()).await;
    }
    for worker in workers {
        worker.stop().await;
    }

    assert_eq!(app.until_idle().await, [("succeeded".to_owned(), 6)]);
}

#[tokio::test]
async fn a_run_whose_worker_died_keeps_its_place_until_another_has_ended_it() {
    let app = TestApp::with(NOW, &[("WORKER_LEASE_SECONDS", "5")]).await;
    let task = keyed(&app, 1).await;
    let tools = FakeTools::default();
    let lost = app.start_worker(&tools);
    enqueue(&app, &[task, task], 1).await;
    tools.called(1).await;

    lost.kill();
    let next = app.start_worker(&tools);
    tools.called(2).await;
    let held = app.count("select count(*) from due_work where held = 'concurrency'").await;
    tools.release();
    tools.called(3).await;
    tools.release();
    app.until_idle().await;
    next.stop().await;

    assert_eq!(held, 1, "the second waits until the first has ended");
    let keys: std::collections::BTreeSet<_> =
        tools.calls().into_iter().map(|call| call.key).collect();
    assert_eq!(keys.len(), 2, "three calls for two runs");
}

#[tokio::test]
async fn a_free_place_is_found_although_nobody_told_of_it() {
    let app = TestApp::at(NOW).await;
    let task = keyed(&app, 1).await;
    enqueue(&app, &[task, task], 1).await;
    sqlx::query("delete from due_work where held is null")
        .execute(&app.servers.pool)
        .await
        .unwrap();

    let mut conn = app.context(Service::Scheduler).pool.acquire().await.unwrap();
    let keys = queue::keys_to_admit(&mut conn, None).await.unwrap();

    assert_eq!(keys, [(app.agent, "door".to_owned())]);
}

/// A worker that is stopped (SIGSTOP, a frozen machine) in the middle of a transaction says nothing
/// more, and its connection stays open.
#[tokio::test]
async fn a_worker_that_stands_still_while_it_lets_runs_in_keeps_no_other_from_it() {
    let app = TestApp::at(NOW).await;
    let task = keyed(&app, 1).await;
    let mut work = app.work(Some(task));
    work.concurrency = Some(("door".to_owned(), 1));
    let mut conn = app.servers.pool.acquire().await.expect("the database answers");
    queue::enqueue(&mut conn, work).await.expect("the database answers");
    let (still, other) = (app.context(Service::Worker), app.context(Service::Worker));

    let mut begun = still.pool.begin().await.expect("the database answers");
    queue::admit_key(&mut begun, app.agent, "door").await.expect("the database answers");
    let door = [(app.agent, "door".to_owned())];
    let admitted = queue::admit_keys(&other.pool, &door).await.expect("nobody holds the key");

    assert_eq!(admitted, 1);
    begun.commit().await.expect_err("its session was ended");
}
