//! Runs that nobody begins in time.

use std::time::Duration;

use orchestrator_engine::id::RunId;
use orchestrator_engine::store::queue::{self, Held, NewWork};
use orchestrator_testkit::{FakeTools, TestApp, task};
use serde_json::json;

const NOW: &str = "2026-03-01T08:00:00Z";
/// Due, and expired in the same instant.
const AT_ONCE: Option<Duration> = Some(Duration::ZERO);

async fn add(app: &TestApp, work: NewWork) -> RunId {
    let mut conn = app.servers.pool.acquire().await.unwrap();
    queue::enqueue(&mut conn, work).await.unwrap().run_id
}

async fn expire(app: &TestApp) -> Vec<RunId> {
    let mut tx = app.servers.pool.begin().await.unwrap();
    let expired = queue::expire(&mut tx, 500).await.unwrap();
    tx.commit().await.unwrap();
    expired.into_iter().map(|run| run.run_id).collect()
}

/// No worker is there at all.
#[tokio::test]
async fn runs_that_no_worker_takes_end_as_expired_and_watchers_are_told() {
    let app = TestApp::at(NOW).await;
    let work: Vec<_> =
        (0..1_200).map(|_| NewWork { expires_after: AT_ONCE, ..app.work(None) }).collect();
    let mut conn = app.servers.pool.acquire().await.unwrap();
    queue::enqueue_many(&mut conn, work).await.unwrap();
    let later =
        add(&app, NewWork { expires_after: Some(Duration::from_hours(1)), ..app.work(None) }).await;

    let scheduler = app.start_scheduler();
    app.until("select count(*) from run where status = 'expired'", 1_200).await;
    let client = redis::Client::open(app.servers.redis_url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let told: redis::streams::StreamRangeReply = loop {
        let told: redis::streams::StreamRangeReply = redis::cmd("XRANGE")
            .arg(orchestrator_engine::streams::LIFECYCLE)
            .arg("-")
            .arg("+")
            .query_async(&mut connection)
            .await
            .unwrap();
        if told.ids.len() >= 1_200 {
            break told;
        }
    };
    scheduler.stop().await;

    let kinds: std::collections::BTreeSet<String> =
        told.ids.iter().filter_map(|entry| entry.get("kind")).collect();
    assert_eq!(kinds, ["run.expired".to_owned()].into());
    let (status, attempt, error, output) = app.finished(first(&app).await).await;
    assert_eq!(
        (status.as_str(), attempt, error.as_deref(), output),
        ("expired", 0, Some("expired"), None)
    );
    assert_eq!(app.count("select count(*) from due_work").await, 1, "{later} has an hour");
    app.check_invariants().await;
}

async fn first(app: &TestApp) -> RunId {
    sqlx::query_scalar("select id from run order by id limit 1")
        .fetch_one(&app.servers.pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_run_that_expires_while_it_is_held_ends_and_those_behind_it_are_let_in() {
    let app = TestApp::at(NOW).await;
    let task = app.add_task(task("manual", "", &json!([{"id": "one", "uses": "test.echo"}]))).await;
    let keyed = |expires_after| NewWork {
        concurrency: Some(("door".to_owned(), 1)),
        expires_after,
        ..app.work(Some(task))
    };
    let serial =
        |held, expires_after| NewWork { serial: true, held, expires_after, ..app.work(Some(task)) };
    // One that has its place and that nobody takes, one that waits, and one that may still begin.
    let placed = add(&app, keyed(AT_ONCE)).await;
    let keys = [(app.agent, "door".to_owned())];
    assert_eq!(queue::admit_keys(&app.servers.pool, &keys).await.unwrap().begun, 1);
    let held = add(&app, keyed(AT_ONCE)).await;
    let next = add(&app, keyed(None)).await;
    // The same for runs that go one at a time.
    let before = add(&app, serial(None, AT_ONCE)).await;
    let behind = add(&app, serial(Some(Held::Overlap), None)).await;
    let tools = FakeTools::default();

    let (scheduler, worker) = (app.start_scheduler(), app.start_worker(&tools));
    let ended = app.until_idle().await;
    scheduler.stop().await;
    worker.stop().await;

    assert_eq!(ended, [("expired".to_owned(), 3), ("succeeded".to_owned(), 2)]);
    for (run, status) in [
        (placed, "expired"),
        (held, "expired"),
        (before, "expired"),
        (next, "succeeded"),
        (behind, "succeeded"),
    ] {
        assert_eq!(app.finished(run).await.0, status);
    }
    app.check_invariants().await;
}

#[tokio::test]
async fn a_run_that_was_begun_does_not_expire_though_its_worker_is_lost() {
    let app = TestApp::at(NOW).await;
    let mut conn = app.servers.pool.acquire().await.unwrap();
    for _ in 0..3 {
        add(&app, NewWork { expires_after: AT_ONCE, ..app.work(None) }).await;
    }
    app.take(&mut conn, Duration::from_secs(30), 1).await;
    // A lease that has lapsed when it is given, and that nobody has swept yet.
    app.take(&mut conn, Duration::ZERO, 1).await;
    let never = add(&app, NewWork { expires_after: AT_ONCE, ..app.work(None) }).await;
    let mut tx = app.servers.pool.begin().await.unwrap();
    let expired = queue::expire(&mut tx, 500).await.unwrap();
    tx.rollback().await.unwrap();

    let ended: std::collections::BTreeSet<_> = expired.into_iter().map(|run| run.run_id).collect();
    assert_eq!(ended.len(), 2, "of the three, two were begun");
    assert!(ended.contains(&never));
    let taken = app.take(&mut conn, Duration::from_secs(30), 10).await.runs;
    let leases: Vec<_> = taken.iter().map(|run| run.lease).collect();
    queue::release(&mut conn, &leases).await.unwrap();
    assert_eq!(expire(&app).await, [], "they were given back by one who had begun them");
    app.check_invariants().await;
}

/// A worker that has leased a run and not read it yet, and the end of it, see each other.
#[tokio::test]
async fn a_run_that_is_being_leased_is_left_to_its_worker() {
    let app = TestApp::at(NOW).await;
    add(&app, NewWork { expires_after: AT_ONCE, ..app.work(None) }).await;
    let mut tx = app.servers.pool.begin().await.unwrap();
    let leased = app.take(&mut tx, Duration::from_secs(30), 1).await.runs;
    tx.commit().await.unwrap();

    assert_eq!(expire(&app).await, []);
    assert!(leased[0].expired, "its worker sees it");
}
