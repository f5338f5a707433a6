//! What the schedulers measure for all of us.

use chrono::TimeDelta;
use orchestrator_boot::Service;
use orchestrator_engine::clock::Clock as _;
use orchestrator_engine::id::{self, EventId};
use orchestrator_engine::store::event::{self, NewEvent};
use orchestrator_engine::store::fire;
use orchestrator_scheduler::upkeep::measure;
use orchestrator_testkit::TestApp;
use serde_json::json;

const NOW: &str = "2026-03-01T08:00:00Z";

/// Nobody consumes them.
#[tokio::test]
async fn how_late_events_are_is_seen_while_their_consumption_is_stuck() {
    let app = TestApp::at(NOW).await;
    let ctx = app.context(Service::Scheduler);
    let lag = &ctx.metrics.scheduler().event_lag_seconds;
    for topic in ["mail.new", "mail.old"] {
        let event = NewEvent {
            id: EventId::new(app.clock.now(), &mut id::rng()),
            topic: topic.to_owned(),
            payload: json!({}),
            key: None,
            agent_id: None,
            stream_id: None,
            received_at: app.clock.now(),
        };
        event::publish(&mut app.servers.pool.acquire().await.unwrap(), &event).await.unwrap();
        app.clock.advance(TimeDelta::seconds(60));
    }

    measure::queue(&ctx).await.unwrap();
    let stuck = lag.get();
    sqlx::query("update event set consumed_at = $1")
        .bind(app.clock.now())
        .execute(&app.servers.pool)
        .await
        .unwrap();
    measure::queue(&ctx).await.unwrap();

    assert!((stuck - 120.0).abs() < 0.001, "{stuck}");
    assert!(lag.get().abs() < 0.001, "{}", lag.get());
}

/// More runs are due than are counted, of three lanes; one of the last is the oldest. Others are held, in a
/// lease, or to come.
#[tokio::test]
async fn the_oldest_due_run_is_found_however_long_the_queue_is() {
    let app = TestApp::at(NOW).await;
    sqlx::query(
        "insert into due_work (run_id, agent_id, priority, run_at, trigger, scheduled_at, definition, held)
         select md5(w.n::text)::uuid, md5(agent)::uuid, priority, now() - age * interval '1 second', 'run_now',
                now(), '{}', held
         from (values ('a', 5, 10, null, 20), ('a', 2, 20, null, 20), ('b', 5, 3600, null, 1),
                      ('b', 5, 9000, 'overlap', 1), ('b', 5, -9000, null, 20), ('b', 4, 7200, null, 1))
              as of(agent, priority, age, held, runs)
         cross join lateral (select row_number() over () + of.age * 100 as n from generate_series(1, runs)) as w",
    )
    .execute(&app.servers.pool)
    .await
    .unwrap();
    sqlx::query(
        "insert into lease (token, worker, until, made_at, run_ids, begun)
         select 1, gen_random_uuid(), now() + interval '1 hour', now(), array_agg(run_id), array_agg(run_id)
         from due_work where priority = 4",
    )
    .execute(&app.servers.pool)
    .await
    .unwrap();
    let mut conn = app.servers.pool.acquire().await.unwrap();

    let (some, oldest) = fire::backlog(&mut conn, 15).await.unwrap();
    let (all, _) = fire::backlog(&mut conn, 100).await.unwrap();

    let hour = TimeDelta::hours(1).to_std().unwrap();
    assert!(oldest.is_some_and(|age| hour <= age && age < 2 * hour), "{oldest:?}");
    assert_eq!((some, all), (15, 41));
}
