//! Who holds a run may write about it, and nobody else.

use std::time::Duration;

use orchestrator_engine::clock::Clock as _;
use orchestrator_engine::run::{RunError, RunStatus, StepRecord, StepStatus};
use orchestrator_engine::store::queue::{self, Finished, Lease, Past, Requeued, Sealed};
use orchestrator_testkit::TestApp;
use serde_json::json;

const NOW: &str = "2026-03-01T08:00:00Z";
const LEASE: Duration = Duration::from_secs(30);
/// A lease that has lapsed when it is given.
const LAPSED: Duration = Duration::ZERO;

fn success(app: &TestApp, lease: Lease) -> Finished {
    Finished {
        lease,
        status: RunStatus::Succeeded,
        finished_at: app.clock.now(),
        output: Some(json!("done")),
        error: None,
        records: vec![step(app).into()],
        in_attempt: true,
        records_are_all: false,
    }
}

/// A step that has succeeded.
pub(crate) fn step(app: &TestApp) -> StepRecord {
    StepRecord {
        path: "one".into(),
        attempt: 1,
        id: "one".into(),
        uses: Some("test.echo".into()),
        status: StepStatus::Succeeded,
        started_at: app.clock.now(),
        finished_at: Some(app.clock.now()),
        input: Some(json!({})),
        output: Some(json!({})),
        error: None,
    }
}

/// The first worker hangs past its lease; a second takes the run over and finishes it. The first
/// then wakes up and tries to checkpoint, to requeue and to finish.
#[tokio::test]
async fn a_worker_that_lost_its_lease_writes_nothing() {
    let app = TestApp::at(NOW).await;
    let mut conn = app.servers.pool.acquire().await.unwrap();
    let run = queue::enqueue(&mut conn, app.work(None)).await.unwrap().run_id;
    let first = app.take(&mut conn, LAPSED, 5).await.runs.remove(0);
    let second = app.take(&mut conn, LEASE, 5).await.runs.remove(0);

    let checkpoint = queue::checkpoint(&mut conn, &[(first.lease, vec![Sealed::from(step(&app))])])
        .await
        .unwrap();
    let requeue = Requeued {
        lease: first.lease,
        delay: Duration::ZERO,
        counts: true,
        error: RunError { kind: "timeout".into(), message: "late".into(), step: None },
        records: vec![step(&app).into()],
    };
    let requeued = queue::requeue(&mut conn, &[requeue]).await.unwrap();
    let renewed = queue::renew(&mut conn, &[first.lease], LEASE).await.unwrap();
    let released = queue::release(&mut conn, &[first.lease]).await.unwrap();
    let late = queue::finish(&mut conn, &[success(&app, first.lease)], &[]).await.unwrap();
    let right = queue::finish(&mut conn, &[success(&app, second.lease)], &[]).await.unwrap();
    let later = queue::finish(&mut conn, &[success(&app, first.lease)], &[]).await.unwrap();

    assert_eq!((first.past, second.past), (Past::Fresh, Past::Lapsed));
    assert_eq!((first.info.attempt, second.info.attempt), (1, 2));
    assert!(checkpoint.is_empty() && requeued.is_empty() && renewed.is_empty());
    assert_eq!(released, 0);
    assert_eq!((late, right, later), (vec![], vec![run], vec![]));
    assert_eq!(app.count("select count(*) from run_step").await, 1);
    app.check_invariants().await;
}

#[tokio::test]
async fn a_run_given_back_can_be_taken_at_once_and_has_burnt_no_attempt() {
    let app = TestApp::at(NOW).await;
    let mut conn = app.servers.pool.acquire().await.unwrap();
    queue::enqueue(&mut conn, app.work(None)).await.unwrap();

    let first = app.take(&mut conn, LEASE, 5).await.runs.remove(0);
    let nothing = app.take(&mut conn, LEASE, 5).await.runs;
    let released = queue::release(&mut conn, &[first.lease]).await.unwrap();
    let second = app.take(&mut conn, LEASE, 5).await.runs.remove(0);

    assert!(nothing.is_empty(), "a held run is nobody else's");
    assert_eq!(released, 1);
    assert_eq!((second.info.attempt, second.past), (1, Past::Returned));
}

#[tokio::test]
async fn a_late_word_that_a_step_is_running_does_not_undo_its_end() {
    let app = TestApp::at(NOW).await;
    let mut conn = app.servers.pool.acquire().await.unwrap();
    queue::enqueue(&mut conn, app.work(None)).await.unwrap();
    let held = app.take(&mut conn, LEASE, 5).await.runs.remove(0);
    let running = StepRecord { status: StepStatus::Running, output: None, ..step(&app) };

    queue::checkpoint(&mut conn, &[(held.lease, vec![Sealed::from(step(&app))])]).await.unwrap();
    queue::checkpoint(&mut conn, &[(held.lease, vec![Sealed::from(running)])]).await.unwrap();

    assert_eq!(app.steps(held.lease.run_id).await, ["one#1 succeeded"]);
}

/// A step that was on when its worker was lost does not stay so in a run that is over.
#[tokio::test]
async fn canceling_a_run_whose_worker_was_lost_ends_the_step_it_was_at() {
    let app = TestApp::at(NOW).await;
    let why = RunError { kind: "canceled".into(), message: "enough".into(), step: None };
    let mut tx = app.servers.pool.begin().await.unwrap();
    queue::enqueue(&mut tx, app.work(None)).await.unwrap();
    let lost = app.take(&mut tx, LEASE, 5).await.runs.remove(0);
    let running = StepRecord { status: StepStatus::Running, output: None, ..step(&app) };
    queue::checkpoint(&mut tx, &[(lost.lease, vec![Sealed::from(running)])]).await.unwrap();
    sqlx::query("update lease set until = now() - interval '1 s'").execute(&mut *tx).await.unwrap();

    let canceled = queue::cancel(&mut tx, lost.lease.run_id, &why).await.unwrap();
    tx.commit().await.unwrap();

    assert_eq!(canceled, queue::Canceled::Done);
    assert_eq!(app.steps(lost.lease.run_id).await, ["one#1 canceled"]);
}

#[tokio::test]
async fn canceling_ends_a_queued_run_and_asks_the_holder_of_a_leased_one() {
    let app = TestApp::at(NOW).await;
    let why = RunError { kind: "canceled".into(), message: "enough".into(), step: None };
    let mut tx = app.servers.pool.begin().await.unwrap();
    let queued = queue::enqueue(&mut tx, app.work(None)).await.unwrap().run_id;
    let first = queue::cancel(&mut tx, queued, &why).await.unwrap();
    let again = queue::cancel(&mut tx, queued, &why).await.unwrap();
    queue::enqueue(&mut tx, app.work(None)).await.unwrap();
    let held = app.take(&mut tx, LEASE, 5).await.runs.remove(0);
    let asked = queue::cancel(&mut tx, held.lease.run_id, &why).await.unwrap();
    let renewed = queue::renew(&mut tx, &[held.lease], LEASE).await.unwrap();
    tx.commit().await.unwrap();

    assert_eq!(first, queue::Canceled::Done);
    assert_eq!(again, queue::Canceled::NotQueued);
    assert_eq!(asked, queue::Canceled::Requested);
    assert!(renewed[0].cancel_requested);
}
