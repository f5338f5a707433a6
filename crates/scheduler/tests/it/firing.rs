//! Every time fires once, however many schedulers there are.

use chrono::TimeDelta;
use orchestrator_boot::Service;
use orchestrator_engine::clock::Clock as _;
use orchestrator_scheduler::fire::Firing;
use orchestrator_testkit::{FakeTools, TestApp, task};
use serde_json::json;

const NOW: &str = "2026-03-01T08:00:00Z";

fn echo(kind: &str, expr: &str) -> serde_json::Value {
    task(kind, expr, &json!([{"id": "one", "uses": "test.echo"}]))
}

/// Two thousand tasks are due in the same second. Two schedulers fire them, three workers run them.
#[tokio::test(flavor = "multi_thread")]
async fn two_schedulers_and_three_workers_make_each_run_once() {
    let app = TestApp::with(NOW, &[("WORKER_CONCURRENCY", "20")]).await;
    for _ in 0..2_000 {
        app.add_task(echo("once", "2026-03-01T08:00:01Z")).await;
    }
    let tools = FakeTools::default();
    app.clock.advance(TimeDelta::seconds(1));

    let schedulers = [app.start_scheduler(), app.start_scheduler()];
    let workers = [(); 3].map(|()| app.start_worker(&tools));
    app.until("select count(*) from run", 2_000).await;
    let ended = app.until_idle().await;
    for service in schedulers.into_iter().chain(workers) {
        service.stop().await;
    }

    assert_eq!(ended, [("succeeded".to_owned(), 2_000)]);
    assert_eq!(app.count("select count(distinct task_id) from run").await, 2_000);
    assert_eq!(
        app.count("select count(*) from occurrence where disposition = 'fired'").await,
        2_000
    );
    assert_eq!(app.count("select count(*) from task where status = 'completed'").await, 2_000);
    app.check_invariants().await;
}

#[tokio::test]
async fn a_scheduler_wakes_for_a_task_that_is_made_while_it_sleeps() {
    let app = TestApp::with(NOW, &[("SCHEDULER_INTERVAL", "300")]).await;
    let scheduler = app.start_scheduler();
    app.until("select count(*) from process where service = 'scheduler'", 1).await;

    app.add_task(echo("once", "2026-03-01T08:00:01Z")).await;
    app.clock.advance(TimeDelta::seconds(1));
    app.context(orchestrator_boot::Service::Api).streams.wake_scheduler().await;
    app.until("select count(*) from due_work", 1).await;
    scheduler.stop().await;

    assert_eq!(app.count("select count(*) from occurrence").await, 1);
}

#[tokio::test]
async fn a_run_knows_the_time_it_was_meant_for() {
    let app = TestApp::at(NOW).await;
    app.add_task(echo("cron", "30 9 * * *")).await;
    app.clock.set("2026-03-01T09:30:02Z".parse().unwrap());
    let scheduler = app.start_scheduler();
    app.until("select count(*) from due_work", 1).await;
    scheduler.stop().await;

    let nominal: chrono::DateTime<chrono::Utc> =
        sqlx::query_scalar("select nominal_at from due_work")
            .fetch_one(&app.servers.pool)
            .await
            .unwrap();
    let next: chrono::DateTime<chrono::Utc> = sqlx::query_scalar("select next_fire_at from task")
        .fetch_one(&app.servers.pool)
        .await
        .unwrap();
    assert_eq!(nominal.to_rfc3339(), "2026-03-01T09:30:00+00:00");
    assert_eq!(next.to_rfc3339(), "2026-03-02T09:30:00+00:00");
}

#[tokio::test]
async fn a_task_whose_schedule_cannot_be_followed_is_paused_and_harms_no_other() {
    let app = TestApp::at(NOW).await;
    let broken = app.add_task(echo("once", "2026-03-01T08:00:01Z")).await;
    app.add_task(echo("once", "2026-03-01T08:00:01Z")).await;
    sqlx::query("update task_revision set spec = spec - 'title' where task_id = $1")
        .bind(broken)
        .execute(&app.servers.pool)
        .await
        .unwrap();
    app.clock.advance(TimeDelta::seconds(1));

    let scheduler = app.start_scheduler();
    app.until("select count(*) from due_work", 1).await;
    app.until("select count(*) from task where status = 'paused' and pause_reason is not null", 1)
        .await;
    scheduler.stop().await;

    assert!(app.clock.now() > NOW.parse::<chrono::DateTime<chrono::Utc>>().unwrap());
}

async fn put_calendar(app: &TestApp, date: &str) {
    use orchestrator_engine::schedule::calendar::{Calendar, Reading};
    let date = (date.parse().unwrap(), "Fest".to_owned());
    let read = Reading { events: 1, calendar: Calendar::new([date]) };
    let mut tx = app.servers.pool.begin().await.unwrap();
    let now = app.clock.now();
    orchestrator_engine::store::calendar::put(&mut tx, app.agent, "fest", "", &read, None, now)
        .await
        .unwrap();
    tx.commit().await.unwrap();
}

/// The scheduler has the schedule ready, with 2 March excluded, when the calendar is replaced by one
/// with 4 March; what happened on 2 March stays.
#[tokio::test]
async fn a_replaced_calendar_takes_effect_at_the_next_time() {
    let app = TestApp::at(NOW).await;
    put_calendar(&app, "2026-03-02").await;
    let mut declared = echo("cron", "30 9 * * *");
    declared["exclude"] = json!(["calendar:fest"]);
    declared["policy"] = json!({"overlap": "allow"});
    app.add_task(declared).await;
    let mut firing = orchestrator_scheduler::fire::Firing::new(
        app.context(orchestrator_boot::Service::Scheduler),
    );
    for day in ["01", "02"] {
        app.clock.set(format!("2026-03-{day}T09:30:00Z").parse().unwrap());
        firing.fire_due().await.unwrap();
    }

    put_calendar(&app, "2026-03-04").await;
    let next = firing.fire_due().await.unwrap();
    for day in ["03", "04", "05"] {
        app.clock.set(format!("2026-03-{day}T09:30:00Z").parse().unwrap());
        firing.fire_due().await.unwrap();
    }

    assert_eq!(next.unwrap().to_rfc3339(), "2026-03-03T09:30:00+00:00");
    let ledger: Vec<String> = sqlx::query_scalar(
        "select to_char(nominal_at, 'DD') || ' ' || disposition || coalesce(' ' || reason, '')
         from occurrence order by nominal_at",
    )
    .fetch_all(&app.servers.pool)
    .await
    .unwrap();
    assert_eq!(
        ledger,
        [
            "01 fired",
            "02 skipped_excluded 2026-03-02 is in calendar fest (Fest)",
            "03 fired",
            "04 skipped_excluded 2026-03-04 is in calendar fest (Fest)",
            "05 fired",
        ]
    );
    app.check_invariants().await;
}

#[tokio::test]
async fn a_task_whose_every_time_a_replaced_calendar_excludes_is_paused_with_the_reason() {
    let app = TestApp::at(NOW).await;
    put_calendar(&app, "2026-03-02").await;
    let mut declared = echo("once", "2026-03-04T09:30:00Z");
    declared["exclude"] = json!(["calendar:fest"]);
    app.add_task(declared).await;
    let mut firing = orchestrator_scheduler::fire::Firing::new(
        app.context(orchestrator_boot::Service::Scheduler),
    );

    put_calendar(&app, "2026-03-04").await;
    firing.fire_due().await.unwrap();

    let (status, reason): (String, String) =
        sqlx::query_as("select status, pause_reason from task")
            .fetch_one(&app.servers.pool)
            .await
            .unwrap();
    assert_eq!(status, "paused");
    assert!(reason.contains("every time of the schedule is excluded"), "{reason}");
    assert_eq!(app.count("select count(*) from due_work").await, 0);
}

/// Three tasks are due at once. Two have the same dedupe key, and one of them cancels what runs of it.
#[tokio::test]
async fn of_tasks_with_one_dedupe_key_that_are_due_at_once_one_fires() {
    let app = TestApp::at(NOW).await;
    for key in [Some("door"), Some("door"), None] {
        let mut declared = task("cron", "* * * * *", &json!([{"id": "one", "uses": "test.echo"}]));
        if let Some(key) = key {
            declared["dedupe_key"] = json!(key);
            declared["dedupe_window_seconds"] = json!(90);
            declared["policy"] = json!({"overlap": "cancel_running"});
        }
        app.add_task(declared).await;
    }
    let mut firing = Firing::new(app.context(Service::Scheduler));

    for _ in 0..2 {
        app.clock.advance(TimeDelta::minutes(1));
        firing.fire_due().await.unwrap();
    }

    let ledger: Vec<(String, bool)> = sqlx::query_as(
        "select disposition, coalesce(run_id = (select run_id from dedupe), false)
         from occurrence order by 1, 2",
    )
    .fetch_all(&app.servers.pool)
    .await
    .unwrap();
    let ledger: Vec<_> = ledger.iter().map(|(what, of_key)| (what.as_str(), *of_key)).collect();
    let duplicate = ("skipped_duplicate", true);
    let others = [("fired", false), ("fired", true), duplicate, duplicate, duplicate];
    assert_eq!(ledger, [&others[..], &[("skipped_overlap", false)]].concat());
    assert_eq!(app.count("select count(*) from due_work").await, 2, "a duplicate cancels nothing");
    assert_eq!(app.count("select sum(fires)::bigint from task").await, 2);
    app.check_invariants().await;
}
