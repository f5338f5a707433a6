//! Which run is taken first.

use std::time::Duration;

use orchestrator_engine::store::queue;
use orchestrator_testkit::TestApp;

const NOW: &str = "2026-03-01T08:00:00Z";
const LEASE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn priority_comes_before_age_and_what_is_not_due_is_not_taken() {
    let app = TestApp::at(NOW).await;
    let mut conn = app.servers.pool.acquire().await.unwrap();
    let mut add = Vec::new();
    for (priority, delay_s) in [(5, 0), (9, 0), (1, 3600), (1, 0), (5, 0)] {
        let mut work = app.work(None);
        work.priority = priority;
        work.delay = Duration::from_secs(delay_s);
        add.push(work.run_id);
        queue::enqueue(&mut conn, work).await.unwrap();
    }

    let taken = app.take(&mut conn, LEASE, 3).await.runs;
    let rest = app.take(&mut conn, LEASE, 3).await;
    let wait = rest.next_in.unwrap();

    let ids = |runs: &[queue::Leased]| runs.iter().map(|run| run.lease.run_id).collect::<Vec<_>>();
    assert_eq!(ids(&taken), [add[3], add[0], add[4]]);
    assert_eq!(ids(&rest.runs), [add[1]]);
    assert!(wait <= LEASE, "a lease may lapse before the next run is due: {wait:?}");
}

#[tokio::test]
async fn an_empty_queue_has_no_next_run() {
    let app = TestApp::at(NOW).await;
    let mut conn = app.servers.pool.acquire().await.unwrap();

    assert_eq!(app.take(&mut conn, LEASE, 3).await.next_in, None);
}

#[tokio::test]
async fn a_second_run_with_the_same_dedupe_key_is_not_made_while_the_window_is_open() {
    let app = TestApp::at(NOW).await;
    let mut conn = app.servers.pool.acquire().await.unwrap();
    let keyed = |window_s| {
        let mut work = app.work(None);
        work.dedupe = Some(("mail-7".to_owned(), Duration::from_secs(window_s)));
        work
    };

    let first = queue::enqueue(&mut conn, keyed(600)).await.unwrap();
    let second = queue::enqueue(&mut conn, keyed(600)).await.unwrap();
    let other = queue::enqueue(&mut conn, {
        let mut work = keyed(0);
        work.dedupe = Some(("mail-8".to_owned(), Duration::ZERO));
        work
    });
    let other = other.await.unwrap();

    assert!(!first.deduplicated && second.deduplicated && !other.deduplicated);
    assert_eq!(first.run_id, second.run_id);
    assert_eq!(app.count("select count(*) from due_work").await, 2);
}
