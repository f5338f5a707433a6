//! What the schedulers measure for all of us.

use chrono::TimeDelta;
use orchestrator_boot::Service;
use orchestrator_engine::clock::Clock as _;
use orchestrator_engine::id::{self, EventId};
use orchestrator_engine::store::event::{self, NewEvent};
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
