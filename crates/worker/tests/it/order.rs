//! Which run is taken first.

use std::time::Duration;

use orchestrator_engine::clock::Clock as _;
use orchestrator_engine::id::{self, AgentId, ProcessId};
use orchestrator_engine::run::RunError;
use orchestrator_engine::store::queue::{self, NewWork, QueueView, Take};
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

fn how(app: &TestApp, wanted: u16) -> Take {
    Take {
        worker: ProcessId::new(app.clock.now(), &mut id::rng()),
        duration: LEASE,
        wanted,
        slots: wanted,
        ageing: Duration::from_mins(1),
    }
}

/// One agent has a hundred runs waiting when another asks for three.
#[tokio::test]
async fn an_agent_with_many_runs_does_not_keep_those_of_another_waiting() {
    let app = TestApp::at(NOW).await;
    let mut conn = app.servers.pool.acquire().await.unwrap();
    let many = (0..100).map(|_| app.work(None)).collect();
    queue::enqueue_many(&mut conn, many).await.unwrap();
    let other = AgentId::new(app.clock.now(), &mut id::rng());
    let few = (0..3).map(|_| NewWork { agent_id: other, ..app.work(None) }).collect();
    queue::enqueue_many(&mut conn, few).await.unwrap();
    let mut view = QueueView::default();

    let taken = view.take(&mut conn, how(&app, 8)).await.unwrap().runs;
    let mut singles = Vec::new();
    queue::enqueue(&mut conn, NewWork { agent_id: other, ..app.work(None) }).await.unwrap();
    for _ in 0..2 {
        singles.extend(view.take(&mut conn, how(&app, 1)).await.unwrap().runs);
    }

    assert_eq!(taken.len(), 8, "what one leaves the other may have");
    assert_eq!(taken.iter().filter(|run| run.agent_id == other).count(), 3);
    assert!(singles.iter().any(|run| run.agent_id == other), "they take turns");
    app.check_invariants().await;
}

#[tokio::test]
async fn a_run_that_has_waited_too_long_goes_before_better_priorities() {
    let app = TestApp::at(NOW).await;
    let mut conn = app.servers.pool.acquire().await.unwrap();
    let low = NewWork { priority: 9, ..app.work(None) };
    let old = low.run_id;
    queue::enqueue(&mut conn, low).await.unwrap();
    let first = (0..20).map(|_| NewWork { priority: 1, ..app.work(None) }).collect();
    queue::enqueue_many(&mut conn, first).await.unwrap();
    let mut view = QueueView::default();

    let before = view.take(&mut conn, how(&app, 4)).await.unwrap().runs;
    sqlx::query("update due_work set run_at = run_at - interval '2 minutes' where run_id = $1")
        .bind(old)
        .execute(&app.servers.pool)
        .await
        .unwrap();
    let after = QueueView::default().take(&mut conn, how(&app, 4)).await.unwrap().runs;
    let place = |runs: &[queue::Leased]| runs.iter().filter(|run| run.lease.run_id == old).count();

    assert_eq!((before.len(), place(&before)), (4, 0));
    // The first take of a view does not know yet that there are several priorities; a worker takes on.
    let mut found = place(&after);
    let mut view = QueueView::default();
    for _ in 0..4 {
        found += place(&view.take(&mut conn, how(&app, 1)).await.unwrap().runs);
    }
    assert_eq!(found, 1, "one of four goes to who has waited longest");
}

/// A taker remembers that everything before a moment is gone. Then a run comes back to its old place.
#[tokio::test]
async fn a_run_that_was_given_back_is_found_by_who_has_looked_beyond_it() {
    let app = TestApp::at(NOW).await;
    let mut conn = app.servers.pool.acquire().await.unwrap();
    let old = app.work(None);
    let id = old.run_id;
    queue::enqueue(&mut conn, old).await.unwrap();
    sqlx::query("update due_work set run_at = run_at - interval '1 hour'")
        .execute(&app.servers.pool)
        .await
        .unwrap();
    let held = app.take(&mut conn, LEASE, 1).await.runs.remove(0);
    let mut view = QueueView::default();

    let nothing = view.take(&mut conn, how(&app, 5)).await.unwrap().runs;
    queue::enqueue(&mut conn, app.work(None)).await.unwrap();
    let newer = view.take(&mut conn, how(&app, 1)).await.unwrap().runs;
    queue::release(&mut conn, &[held.lease]).await.unwrap();
    let back = view.take(&mut conn, how(&app, 5)).await.unwrap().runs;

    assert!(nothing.is_empty());
    assert_eq!(newer.len(), 1);
    assert_eq!(back.iter().map(|run| run.lease.run_id).collect::<Vec<_>>(), [id]);
}

/// Somebody cancels a run in a transaction that is not over yet, while a worker leases it.
#[tokio::test]
async fn a_run_that_is_being_canceled_is_not_begun() {
    let app = TestApp::at(NOW).await;
    let mut conn = app.servers.pool.acquire().await.unwrap();
    let run = queue::enqueue(&mut conn, app.work(None)).await.unwrap().run_id;
    let why = RunError { kind: "canceled".into(), message: "enough".into(), step: None };
    let mut tx = app.servers.pool.begin().await.unwrap();
    let canceled = queue::cancel(&mut tx, run, &why).await.unwrap();

    let mut view = QueueView::default();
    let taking = view.take(&mut conn, how(&app, 1));
    let commit = async {
        app.until("select count(*) from leased", 1).await;
        tx.commit().await.unwrap();
    };
    let (taken, ()) = tokio::join!(taking, commit);

    assert_eq!(canceled, queue::Canceled::Done);
    assert!(taken.unwrap().runs.is_empty(), "it has ended");
    assert_eq!(app.count("select count(*) from run where status = 'canceled'").await, 1);
    assert_eq!(app.count("select count(*) from leased").await, 0, "and is in no lease");
    app.check_invariants().await;
}
