//! At most so many runs of a rate within any stretch of its period.

use std::time::Duration;

use orchestrator_boot::Service;
use orchestrator_engine::id::{AgentId, RunId, TaskId};
use orchestrator_engine::store::queue::{self, Held, NewWork};
use orchestrator_engine::store::run;
use orchestrator_engine::task::Rate;
use orchestrator_testkit::{FakeTools, TestApp, task};
use serde_json::{Value, json};

const NOW: &str = "2026-03-01T08:00:00Z";

/// A run made a second after the one before it.
fn rated(app: &TestApp, limit: u16) -> NewWork {
    app.clock.advance(chrono::TimeDelta::seconds(1));
    let mut work = app.work(None);
    work.rate = Some(Rate { key: "key/mail".to_owned(), limit, period_seconds: 60 });
    work
}

async fn add(app: &TestApp, work: NewWork) -> RunId {
    let mut conn = app.servers.pool.acquire().await.unwrap();
    queue::enqueue(&mut conn, work).await.unwrap().run_id
}

async fn admit(app: &TestApp) -> u64 {
    let mut tx = app.servers.pool.begin().await.unwrap();
    let admitted = queue::admit_rate(&mut tx, app.agent, "key/mail").await.unwrap();
    tx.commit().await.unwrap();
    app.check_invariants().await;
    admitted
}

/// The database's clock cannot be moved; what it noted can.
async fn pass(app: &TestApp, seconds: i32) {
    sqlx::query(
        "update rate_window set starts = array(
             select at - make_interval(secs => $1) from unnest(starts) with ordinality as s(at, n) order by n)",
    )
    .bind(f64::from(seconds))
    .execute(&app.servers.pool)
    .await
    .unwrap();
}

async fn waiting(app: &TestApp) -> Vec<(AgentId, String, Duration)> {
    let mut conn = app.servers.pool.acquire().await.unwrap();
    let rates = queue::waiting_rates(&mut conn, None).await.unwrap();
    rates.into_iter().map(|one| (one.owner, one.key, one.wait)).collect()
}

async fn waits_for(app: &TestApp, run: RunId) -> Option<Held> {
    let mut conn = app.servers.pool.acquire().await.unwrap();
    run::get(&mut conn, run, None).await.unwrap().waits_for
}

#[tokio::test]
async fn within_any_period_no_more_runs_are_let_in_than_the_limit_and_none_is_lost() {
    let app = TestApp::at(NOW).await;
    for _ in 0..7 {
        add(&app, rated(&app, 3)).await;
    }

    assert_eq!(admit(&app).await, 3);
    assert_eq!(admit(&app).await, 0);
    pass(&app, 55).await;
    assert_eq!(admit(&app).await, 0, "the first three are 55 s ago");
    let wait = waiting(&app).await[0].2;
    assert!(wait <= Duration::from_secs(5) && wait > Duration::ZERO, "{wait:?}");
    pass(&app, 5).await;
    assert_eq!(waiting(&app).await[0].2, Duration::ZERO);
    assert_eq!(admit(&app).await, 3);
    pass(&app, 60).await;
    assert_eq!(admit(&app).await, 1);
    assert!(waiting(&app).await.is_empty());
    assert_eq!(app.count("select count(*) from due_work where held is null").await, 7);
}

/// Two were let in 40 s ago, one now: the window slides, it is no bucket that is filled each minute.
#[tokio::test]
async fn the_period_slides() {
    let app = TestApp::at(NOW).await;
    for _ in 0..2 {
        add(&app, rated(&app, 3)).await;
    }
    assert_eq!(admit(&app).await, 2);
    pass(&app, 40).await;
    for _ in 0..5 {
        add(&app, rated(&app, 3)).await;
    }
    assert_eq!(admit(&app).await, 1);
    pass(&app, 20).await;
    assert_eq!(admit(&app).await, 2, "the first two have left the period, the third has not");
    pass(&app, 39).await;
    assert_eq!(admit(&app).await, 0);
    pass(&app, 1).await;
    assert_eq!(admit(&app).await, 1);
}

#[tokio::test]
async fn the_most_important_run_has_the_next_turn_then_the_longest_due() {
    let app = TestApp::at(NOW).await;
    let mut order = Vec::new();
    for priority in [5, 9, 5, 1] {
        let work = NewWork { priority, ..rated(&app, 1) };
        order.push((priority, add(&app, work).await));
    }
    order.sort_unstable();

    let mut let_in = Vec::new();
    for _ in 0..4 {
        assert_eq!(admit(&app).await, 1);
        let_in.extend(
            sqlx::query_as::<_, (i16, RunId)>(
                "delete from due_work where held is null returning priority, run_id",
            )
            .fetch_all(&app.servers.pool)
            .await
            .unwrap(),
        );
        pass(&app, 60).await;
    }

    assert_eq!(let_in, order);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_let_in_at_once_let_in_no_more_than_the_limit() {
    let app = TestApp::at(NOW).await;
    for _ in 0..60 {
        add(&app, rated(&app, 7)).await;
    }

    let rates = [(app.agent, "key/mail".to_owned())];
    let pool = &app.servers.pool;
    let all = futures::future::join_all((0..8).map(|_| queue::admit_rates(pool, &rates))).await;

    let begun: u64 = all.iter().map(|one| one.as_ref().unwrap().begun).sum();
    assert_eq!(begun, 7);
    assert!(all.into_iter().all(|one| one.unwrap().rate_waits));
    assert_eq!(app.count("select count(*) from due_work where held = 'rate'").await, 53);
    app.check_invariants().await;
}

#[tokio::test]
async fn a_limit_that_was_lowered_counts_what_the_higher_one_let_in() {
    let app = TestApp::at(NOW).await;
    for limit in [4, 4, 4, 2, 2, 4] {
        add(&app, rated(&app, limit)).await;
    }
    assert_eq!(
        admit(&app).await,
        3,
        "three may have had the fourth behind them, not the lower limit"
    );
    pass(&app, 60).await;
    assert_eq!(admit(&app).await, 3, "two under the lower limit, then one under the higher");
}

#[tokio::test]
async fn agents_and_keys_are_apart_and_a_run_without_a_rate_is_not_held() {
    let app = TestApp::at(NOW).await;
    let other = AgentId(uuid::Uuid::from_u128(7));
    for owner in [app.agent, app.agent, other] {
        add(&app, NewWork { agent_id: owner, ..rated(&app, 1) }).await;
    }
    let free = add(&app, app.work(None)).await;

    assert_eq!(admit(&app).await, 1);
    let left = waiting(&app).await;

    assert_eq!(waits_for(&app, free).await, None);
    let left: Vec<_> = left.into_iter().map(|(owner, _, wait)| (owner, wait.is_zero())).collect();
    assert_eq!(left.len(), 2);
    assert!(left.contains(&(app.agent, false)) && left.contains(&(other, true)), "{left:?}");
}

fn declared(rate: &Value) -> Value {
    let mut declared = task("cron", "* * * * *", &json!([{"id": "one", "uses": "test.echo"}]));
    declared["rate_limit"] = rate.clone();
    declared
}

/// Two tasks that share a rate, fired by two schedulers, done by two workers: the turns come by time
/// alone, and no minute-long sweep is waited for.
#[tokio::test]
async fn runs_of_a_rate_begin_by_themselves_when_their_turn_comes() {
    let app = TestApp::at(NOW).await;
    let rate = json!({"limit": 2, "period_seconds": 1, "key": "mail"});
    for _ in 0..2 {
        let mut one = declared(&rate);
        one["policy"] = json!({"catch_up": "all", "overlap": "allow"});
        app.add_task(one).await;
    }
    let tools = FakeTools::default();
    let schedulers = [app.start_scheduler(), app.start_scheduler()];
    let workers = [app.start_worker(&tools), app.start_worker(&tools)];

    app.clock.advance(chrono::TimeDelta::minutes(3));
    app.context(Service::Api).streams.wake_scheduler().await;
    app.until("select count(*) from run", 6).await;
    for service in schedulers.into_iter().chain(workers) {
        service.stop().await;
    }

    let starts: Vec<chrono::DateTime<chrono::Utc>> =
        sqlx::query_scalar("select unnest(starts) from rate_window")
            .fetch_all(&app.servers.pool)
            .await
            .unwrap();
    assert_eq!(starts.len(), 3, "one more than the limit is kept");
    assert!(starts[2] - starts[0] >= chrono::TimeDelta::seconds(1), "{starts:?}");
    assert_eq!(app.count("select count(*) from run where status = 'succeeded'").await, 6);
    app.check_invariants().await;
}

/// The order in which a run waits: the run before it, its key, its rate.
#[tokio::test]
async fn a_run_waits_for_the_one_before_it_then_for_its_key_then_for_its_rate() {
    let app = TestApp::at(NOW).await;
    let mut one = declared(&json!({"limit": 1, "period_seconds": 60, "key": "mail"}));
    one["concurrency_key"] = json!("door");
    let task: TaskId = app.add_task(one).await;
    let work = || NewWork {
        task: Some((task, 1)),
        definition: None,
        concurrency: Some(("door".to_owned(), 1)),
        serial: true,
        ..rated(&app, 1)
    };
    let first = add(&app, NewWork { priority: 1, ..work() }).await;
    let second = add(&app, NewWork { held: Some(Held::Overlap), ..work() }).await;
    let other =
        add(&app, NewWork { task: None, definition: Some(json!({})), priority: 2, ..work() }).await;
    let ctx = app.context(Service::Scheduler);
    let mut seen = Vec::new();
    for _ in 0..4 {
        orchestrator_scheduler::turns::take(&ctx).await.unwrap();
        let mut words = Vec::new();
        for run in [first, second, other] {
            let there =
                sqlx::query_scalar::<_, i64>("select count(*) from due_work where run_id = $1")
                    .bind(run)
                    .fetch_one(&app.servers.pool)
                    .await
                    .unwrap();
            words.push(match there {
                0 => "ended",
                _ => waits_for(&app, run).await.map_or("in", Held::as_str),
            });
        }
        seen.push(words);
        app.check_invariants().await;
        if seen.len() == 2 {
            pass(&app, 60).await;
        } else {
            sqlx::query("delete from due_work where held is null")
                .execute(&app.servers.pool)
                .await
                .unwrap();
        }
    }

    assert_eq!(
        seen,
        [
            ["in", "overlap", "concurrency"],
            // `other` has the free place, and waits for its rate; `second` stands behind it.
            ["ended", "concurrency", "rate"],
            ["ended", "concurrency", "in"],
            ["ended", "rate", "ended"],
        ]
    );
}

#[tokio::test]
async fn a_scheduler_sleeps_until_the_next_turn_and_is_not_woken_by_the_clock_for_nobody() {
    let app = TestApp::at(NOW).await;
    let ctx = app.context(Service::Scheduler);
    let take = || orchestrator_scheduler::turns::take(&ctx);
    assert_eq!(take().await.unwrap(), None);

    add(&app, rated(&app, 1)).await;
    assert_eq!(take().await.unwrap(), None, "it was let in");
    add(&app, NewWork { delay: Duration::from_secs(20), ..rated(&app, 1) }).await;
    let its_time = take().await.unwrap().unwrap();
    add(&app, rated(&app, 1)).await;
    pass(&app, 50).await;
    let its_turn = take().await.unwrap().unwrap();

    assert!(
        its_time > Duration::from_secs(10) && its_time <= Duration::from_secs(20),
        "{its_time:?}"
    );
    assert!(its_turn > Duration::ZERO && its_turn <= Duration::from_secs(10), "{its_turn:?}");
}

#[tokio::test]
async fn a_run_that_is_retried_by_hand_needs_another_turn() {
    let app = TestApp::at(NOW).await;
    let task = app.add_task(declared(&json!({"limit": 1, "period_seconds": 60}))).await;
    let rate = Rate { key: format!("task/{task}"), limit: 1, period_seconds: 60 };
    let run = add(&app, NewWork { rate: Some(rate.clone()), ..app.work(Some(task)) }).await;
    let rates = [(app.agent, rate.key.clone())];
    assert_eq!(queue::admit_rates(&app.servers.pool, &rates).await.unwrap().begun, 1);
    let error = orchestrator_engine::run::RunError {
        kind: "canceled".to_owned(),
        message: "by the test".to_owned(),
        step: None,
    };
    let mut tx = app.servers.pool.begin().await.unwrap();
    queue::cancel(&mut tx, run, &error).await.unwrap();
    run::retry(&mut tx, run, None).await.unwrap();
    tx.commit().await.unwrap();

    let again = queue::admit_rates(&app.servers.pool, &rates).await.unwrap();

    assert_eq!((again.begun, again.rate_waits), (0, true));
    assert_eq!(waits_for(&app, run).await, Some(Held::Rate));
}
