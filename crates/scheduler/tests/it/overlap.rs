//! A task that is due while its runs have not ended; and runs that wait for their turn.

use chrono::TimeDelta;
use orchestrator_boot::Service;
use orchestrator_engine::id::TaskId;
use orchestrator_engine::store::queue;
use orchestrator_testkit::{FakeTools, TestApp, task};
use serde_json::json;

const NOW: &str = "2026-03-01T08:00:00Z";

/// A task that is due every minute, whose runs hang.
async fn every_minute(app: &TestApp, overlap: &str) -> TaskId {
    let mut declared = task("cron", "* * * * *", &json!([{"id": "one", "uses": "test.hang"}]));
    declared["policy"] = json!({"overlap": overlap});
    app.add_task(declared).await
}

/// Goes a minute on and waits until its time is in the ledger.
async fn minute(app: &TestApp, minutes: i64) {
    app.clock.advance(TimeDelta::minutes(1));
    app.context(Service::Api).streams.wake_scheduler().await;
    app.until("select coalesce(sum(count), 0)::bigint from occurrence", minutes).await;
}

async fn ledger(app: &TestApp) -> Vec<String> {
    sqlx::query_scalar(
        "select to_char(nominal_at at time zone 'UTC', 'MI') || ' ' || disposition
         from occurrence order by nominal_at",
    )
    .fetch_all(&app.servers.pool)
    .await
    .unwrap()
}

#[tokio::test]
async fn with_queue_one_a_single_run_waits_and_begins_when_the_first_ends() {
    let app = TestApp::at(NOW).await;
    every_minute(&app, "queue_one").await;
    let tools = FakeTools::default();
    let (scheduler, worker) = (app.start_scheduler(), app.start_worker(&tools));

    minute(&app, 1).await;
    tools.called(1).await;
    minute(&app, 2).await;
    minute(&app, 3).await;
    let waiting = app.count("select count(*) from due_work where held = 'overlap'").await;
    let running = app.count("select count(*) from leased").await;
    tools.release();
    tools.called(2).await;
    let left = app.count("select count(*) from due_work").await;
    tools.release();
    app.until("select count(*) from run", 2).await;
    scheduler.stop().await;
    worker.stop().await;

    assert_eq!((running, waiting, left), (1, 1, 1));
    assert_eq!(ledger(&app).await, ["01 fired", "02 fired", "03 skipped_overlap"]);
    app.check_invariants().await;
}

#[tokio::test]
async fn with_queue_all_every_run_waits_and_they_go_one_after_the_other_in_order() {
    let app = TestApp::at(NOW).await;
    every_minute(&app, "queue_all").await;
    let tools = FakeTools::default();
    let (scheduler, workers) =
        (app.start_scheduler(), [app.start_worker(&tools), app.start_worker(&tools)]);

    for number in 1..=4 {
        minute(&app, number).await;
    }
    for number in 1..=4 {
        tools.called(number).await;
        assert_eq!(app.count("select count(*) from leased").await, 1);
        tools.release();
    }
    app.until("select count(*) from run", 4).await;
    scheduler.stop().await;
    for worker in workers {
        worker.stop().await;
    }

    assert_eq!(ledger(&app).await, ["01 fired", "02 fired", "03 fired", "04 fired"]);
    let disordered = "select count(*) from (select finished_at < lag(finished_at)
                          over (order by nominal_at) as early from run) r where early";
    assert_eq!(app.count(disordered).await, 0);
    app.check_invariants().await;
}

#[tokio::test]
async fn with_cancel_running_the_new_run_takes_the_place_of_the_old() {
    let app = TestApp::at(NOW).await;
    every_minute(&app, "cancel_running").await;
    let tools = FakeTools::default();
    let (scheduler, worker) = (app.start_scheduler(), app.start_worker(&tools));

    minute(&app, 1).await;
    tools.called(1).await;
    minute(&app, 2).await;
    tools.called(2).await;
    tools.release();
    app.until("select count(*) from run where status = 'succeeded'", 1).await;
    scheduler.stop().await;
    worker.stop().await;

    assert_eq!(ledger(&app).await, ["01 fired", "02 fired"]);
    assert_eq!(
        app.count("select count(*) from run where status = 'canceled' and nominal_at = '2026-03-01T08:01:00Z'")
            .await,
        1
    );
    app.check_invariants().await;
}

/// Ten thousand of its runs wait, by hand, as many as take longer than a transaction may when they are canceled one
/// by one; another task is due with it.
#[tokio::test]
async fn with_cancel_running_any_number_of_runs_makes_room_for_the_new_one() {
    let app = TestApp::at(NOW).await;
    let (task, _other) =
        (every_minute(&app, "cancel_running").await, every_minute(&app, "skip").await);
    sqlx::query(
        "insert into due_work (run_id, agent_id, task_id, revision, priority, run_at, trigger, scheduled_at)
         select gen_random_uuid(), $1, $2, 1, 5, now(), 'run_now', now() from generate_series(1, 10000)",
    )
    .bind(app.agent)
    .bind(task)
    .execute(&app.servers.pool)
    .await
    .unwrap();
    app.clock.advance(TimeDelta::minutes(1));

    let ctx = app.context(Service::Scheduler);
    orchestrator_scheduler::fire::Firing::new(ctx).fire_due().await.unwrap();

    assert_eq!(app.count("select count(*) from run where status = 'canceled'").await, 10_000);
    assert_eq!(app.count("select count(*) from due_work").await, 2);
    app.check_invariants().await;
}

#[tokio::test]
async fn a_run_that_waits_is_let_in_although_the_worker_before_it_died_after_its_commit() {
    let app = TestApp::at(NOW).await;
    every_minute(&app, "queue_all").await;
    let scheduler = app.start_scheduler();
    minute(&app, 1).await;
    minute(&app, 2).await;
    scheduler.stop().await;
    assert_eq!(app.count("select count(*) from due_work where held = 'overlap'").await, 1);
    // The end of the first, and nothing that follows from it.
    sqlx::query("delete from due_work where held is null")
        .execute(&app.servers.pool)
        .await
        .unwrap();

    orchestrator_scheduler::turns::take(&app.context(Service::Scheduler)).await.unwrap();

    assert_eq!(app.count("select count(*) from due_work where held is null").await, 1);
}

/// Thirty hourly tasks of three priorities are found two hours late.
#[tokio::test]
async fn after_an_outage_runs_begin_at_a_bounded_rate_the_most_important_first() {
    let app = TestApp::with(NOW, &[("CATCH_UP_RATE", "5")]).await;
    for number in 0..30 {
        let mut declared = task("cron", "0 * * * *", &json!([{"id": "one", "uses": "test.echo"}]));
        declared["policy"] = json!({"catch_up_window_seconds": 86_400});
        declared["priority"] = json!(number % 3 + 1);
        app.add_task(declared).await;
    }
    app.clock.set("2026-03-01T10:30:00Z".parse().unwrap());
    let ctx = app.context(Service::Scheduler);
    orchestrator_scheduler::fire::Firing::new(ctx.clone()).fire_due().await.unwrap();
    assert_eq!(app.count("select count(*) from due_work where held = 'catch_up'").await, 30);

    let mut conn = app.servers.pool.acquire().await.unwrap();
    let first = queue::release_catch_up(&mut conn, 5).await.unwrap();
    let again = queue::release_catch_up(&mut conn, 5).await.unwrap();
    // What one second later is allowed is a second's worth again.
    sqlx::query("update pace set used_to = used_to - interval '1 second'")
        .execute(&mut *conn)
        .await
        .unwrap();
    let later = queue::release_catch_up(&mut conn, 5).await.unwrap();

    assert_eq!(first.runs, 5);
    assert!(again.runs <= 1, "the rate is bounded, but {} more were let in", again.runs);
    assert!((4..=5).contains(&later.runs), "{}", later.runs);
    assert_eq!(
        app.count("select count(*) from due_work where held is null and priority > 1").await,
        0
    );
    app.check_invariants().await;
}
