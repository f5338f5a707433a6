//! Events start their runs exactly once, from whichever side they come.

use orchestrator_boot::Service;
use orchestrator_engine::clock::Clock as _;
use orchestrator_engine::id::{self, EventId};
use orchestrator_engine::store::event::{self, NewEvent};
use orchestrator_engine::streams::EVENTS;
use orchestrator_testkit::{FakeTools, TestApp, task};
use serde_json::json;

const NOW: &str = "2026-03-01T08:00:00Z";

async fn waiting_for(pattern: &str) -> TestApp {
    let app = TestApp::with(NOW, &[("WORKER_CONCURRENCY", "20")]).await;
    let pipeline = json!([{"id": "one", "uses": "test.echo", "with": {"n": "${event.payload.n}"}}]);
    app.add_task(task("event", pattern, &pipeline)).await;
    app
}

async fn publish(app: &TestApp, topic: &str, n: i64, key: Option<String>) -> event::Published {
    let new = NewEvent {
        id: EventId::new(app.clock.now(), &mut id::rng()),
        topic: topic.to_owned(),
        payload: json!({"n": n}),
        key,
        agent_id: Some(app.agent),
        stream_id: None,
        received_at: app.clock.now(),
    };
    let mut conn = app.servers.pool.acquire().await.unwrap();
    event::publish(&mut conn, &new).await.unwrap()
}

async fn add_foreign(app: &TestApp, count: i64) {
    let client = redis::Client::open(app.servers.redis_url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    for n in 0..count {
        let payload = json!({"n": n}).to_string();
        let _: String = redis::cmd("XADD")
            .arg(EVENTS)
            .arg("*")
            .arg("topic")
            .arg("mail.new")
            .arg("payload")
            .arg(payload)
            .query_async(&mut connection)
            .await
            .unwrap();
    }
}

/// A thousand events through the API's door and a thousand through the stream, while the scheduler
/// is killed in the middle and another comes.
#[tokio::test(flavor = "multi_thread")]
async fn events_from_both_sides_start_each_run_once_though_a_scheduler_dies() {
    let app = waiting_for("mail.*").await;
    let streams = app.context(Service::Api).streams;
    add_foreign(&app, 500).await;
    let first = app.start_scheduler();
    for n in 0..1_000 {
        let made = publish(&app, "mail.new", n, None).await;
        streams.add_event(made.event_id, "mail.new", &json!({"n": n})).await;
        if n == 300 {
            app.until("select count(*) from event_run", 100).await;
        }
    }
    first.kill();
    add_foreign(&app, 500).await;
    let second = app.start_scheduler();
    let worker = app.start_worker(&FakeTools::default());
    app.until("select count(*) from event where consumed_at is not null", 2_000).await;
    let ended = app.until_idle().await;
    second.stop().await;
    worker.stop().await;

    assert_eq!(ended, [("succeeded".to_owned(), 2_000)]);
    assert_eq!(app.count("select count(*) from event").await, 2_000);
    assert_eq!(app.count("select count(distinct event_id) from event_run").await, 2_000);
    app.check_invariants().await;
}

#[tokio::test]
async fn only_the_topics_that_match_start_a_run_and_it_sees_its_event() {
    let app = waiting_for("mail.*").await;
    publish(&app, "mail.new", 7, None).await;
    publish(&app, "mail.new.spam", 8, None).await;
    publish(&app, "calendar.new", 9, None).await;
    let tools = FakeTools::default();

    let (scheduler, worker) = (app.start_scheduler(), app.start_worker(&tools));
    app.until("select count(*) from event where consumed_at is not null", 3).await;
    app.until_idle().await;
    scheduler.stop().await;
    worker.stop().await;

    let seen: Vec<_> = tools.calls().into_iter().map(|call| call.input).collect();
    assert_eq!(seen, [json!({"n": 7})]);
}

#[tokio::test]
async fn an_event_with_a_key_is_kept_once() {
    let app = waiting_for("mail.#").await;

    let first = publish(&app, "mail.new", 1, Some("m-1".to_owned())).await;
    let second = publish(&app, "mail.new", 1, Some("m-1".to_owned())).await;

    assert!(!first.deduplicated && second.deduplicated);
    assert_eq!(first.event_id, second.event_id);
}

#[tokio::test]
async fn what_other_programs_write_wrongly_stops_nothing() {
    let app = waiting_for("mail.*").await;
    let client = redis::Client::open(app.servers.redis_url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    for fields in [["nonsense", "x"], ["topic", "not a topic!"], ["topic", "mail.new"]] {
        let _: String = redis::cmd("XADD")
            .arg(EVENTS)
            .arg("*")
            .arg(&fields)
            .query_async(&mut connection)
            .await
            .unwrap();
    }

    let scheduler = app.start_scheduler();
    app.until("select count(*) from event_run", 1).await;
    scheduler.stop().await;

    assert_eq!(app.count("select count(*) from event").await, 1);
}
