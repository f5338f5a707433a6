//! Runs that share a concurrency key.

use std::time::Duration;

use orchestrator_boot::Service;
use orchestrator_engine::id::{RunId, TaskId};
use orchestrator_engine::store::{queue, run};
use orchestrator_engine::tool::ToolError;
use orchestrator_testkit::{FakeTools, TestApp, task};
use serde_json::json;

const NOW: &str = "2026-03-01T08:00:00Z";

async fn keyed(app: &TestApp, limit: u16) -> TaskId {
    let mut declared = task("manual", "", &json!([{"id": "one", "uses": "test.hang"}]));
    declared["concurrency_key"] = json!("door");
    declared["concurrency_limit"] = json!(limit);
    app.add_task(declared).await
}

async fn enqueue(app: &TestApp, tasks: &[TaskId], limit: u16) {
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
        // A lease names its runs until the last of them has ended.
        let on = app.count("select count(*) from leased join due_work using (run_id)").await;
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

async fn add(app: &TestApp, task: TaskId, limit: u16, delay: Duration) -> RunId {
    let mut conn = app.servers.pool.acquire().await.expect("the database answers");
    app.clock.advance(chrono::TimeDelta::seconds(1)); // so that the first is the first in line
    let mut work = app.work(Some(task));
    work.concurrency = Some(("door".to_owned(), limit));
    work.delay = delay;
    queue::enqueue(&mut conn, work).await.expect("the database answers").run_id
}

async fn admit(app: &TestApp) -> u64 {
    let mut tx = app.servers.pool.begin().await.expect("the database answers");
    let placed = queue::admit_key(&mut tx, app.agent, "door").await.expect("the database answers");
    tx.commit().await.expect("the database answers");
    app.check_invariants().await;
    placed.begun
}

/// Takes a run that is in out of the queue, as its end does.
async fn end_one(app: &TestApp) {
    sqlx::query(
        "delete from due_work where run_id = (select min(run_id::text)::uuid from due_work where held is null)",
    )
    .execute(&app.servers.pool)
    .await
    .expect("the database answers");
}

#[tokio::test]
async fn a_limit_that_was_lowered_holds_as_soon_as_a_run_that_knows_it_is_next() {
    let app = TestApp::at(NOW).await;
    let task = keyed(&app, 3).await;
    for limit in [3, 3, 3, 1, 3, 3] {
        add(&app, task, limit, Duration::ZERO).await;
    }

    assert_eq!(admit(&app).await, 3);
    for left in [2, 1] {
        end_one(&app).await;
        assert_eq!(admit(&app).await, 0, "{left} of the old ones are in");
    }
    end_one(&app).await;
    assert_eq!(admit(&app).await, 1, "the one that knows the lower limit, alone");
    end_one(&app).await;
    assert_eq!(admit(&app).await, 2);
}

#[tokio::test]
async fn many_who_let_in_at_once_let_in_no_more_than_the_limit() {
    let app = TestApp::at(NOW).await;
    let task = keyed(&app, 5).await;
    for _ in 0..40 {
        add(&app, task, 5, Duration::ZERO).await;
    }

    let keys = [(app.agent, "door".to_owned())];
    let pool = &app.servers.pool;
    let all = futures::future::join_all((0..8).map(|_| queue::admit_keys(pool, &keys))).await;

    let begun: u64 = all.into_iter().map(|one| one.unwrap().begun).sum();
    assert_eq!(begun, 5);
    app.check_invariants().await;
}

#[tokio::test]
async fn a_run_whose_time_has_not_come_takes_no_place() {
    let app = TestApp::at(NOW).await;
    let task = keyed(&app, 1).await;
    add(&app, task, 1, Duration::from_hours(1)).await;
    let due = add(&app, task, 1, Duration::ZERO).await;

    assert_eq!(admit(&app).await, 1);

    let first: RunId = sqlx::query_scalar("select run_id from due_work where held is null")
        .fetch_one(&app.servers.pool)
        .await
        .unwrap();
    assert_eq!(first, due);
    let mut conn = app.servers.pool.acquire().await.unwrap();
    let wait = queue::held_come_due_in(&mut conn).await.unwrap().unwrap();
    assert!(wait > Duration::from_secs(3500), "a scheduler looks again then: {wait:?}");
}

/// The first fails and is tried again an hour later; the second must wait all that time.
#[tokio::test]
async fn a_run_keeps_its_place_between_its_attempts_and_gets_in_line_when_retried_by_hand() {
    let app = TestApp::at(NOW).await;
    let tools = FakeTools::default().on("test.fail", |call| {
        let tool = call.address.clone();
        let retry_after = Some(Duration::from_hours(1));
        Err(ToolError::Busy { tool, reason: "not now".to_owned(), retry_after })
    });
    let mut declared = task("manual", "", &json!([{"id": "one", "uses": "test.fail"}]));
    declared["concurrency_key"] = json!("door");
    let task = app.add_task(declared).await;
    let worker = app.start_worker(&tools);
    let first = add(&app, task, 1, Duration::ZERO).await;
    assert_eq!(admit(&app).await, 1);
    app.until("select count(*) from due_work where attempt = 1 and run_at > now()", 1).await;

    let second = add(&app, task, 1, Duration::ZERO).await;
    assert_eq!(admit(&app).await, 0, "the first waits for its next attempt, and has its place");
    worker.stop().await;
    let error = orchestrator_engine::run::RunError {
        kind: "canceled".to_owned(),
        message: "by the test".to_owned(),
        step: None,
    };
    let mut tx = app.servers.pool.begin().await.unwrap();
    queue::cancel(&mut tx, first, &error).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(admit(&app).await, 1, "the second");
    let mut tx = app.servers.pool.begin().await.unwrap();
    run::retry(&mut tx, first, None).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(admit(&app).await, 0, "the first, retried, waits for the second");

    let mut conn = app.servers.pool.acquire().await.unwrap();
    let held = run::get(&mut conn, first, None).await.unwrap().waits_for;
    let free = run::get(&mut conn, second, None).await.unwrap().waits_for;
    assert_eq!((held, free), (Some(queue::Held::Concurrency), None));
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

    assert_eq!(admitted.begun, 1);
    begun.commit().await.expect_err("its session was ended");
}
