//! Events start their runs exactly once, from whichever side they come.

use orchestrator_boot::{Context, Service};
use orchestrator_engine::clock::Clock as _;
use orchestrator_engine::id::{self, EventId};
use orchestrator_engine::store::event::{self, NewEvent};
use orchestrator_engine::streams::EVENTS;
use orchestrator_scheduler::events::BatchSize;
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

async fn consume(ctx: &Context) {
    let held = tokio::sync::Notify::new();
    orchestrator_scheduler::events::consume_waiting(ctx, &held, &BatchSize::default())
        .await
        .unwrap();
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
    let long = "k".repeat(201);
    let entries: [&[&[u8]]; 7] = [
        &[b"nonsense", b"x"],
        &[b"topic", b"not a topic!"],
        &[b"topic", b"mail.new", b"payload", b"{\"name\":\"J\xf6rg\"}"],
        &[b"topic", b"mail.new", b"key", long.as_bytes()],
        &[b"topic", b"mail.new", b"key", b"a\0b"],
        &[b"topic", b"mail.new", b"payload", b"1e999"],
        &[b"topic", b"mail.new", b"key", b""],
    ];
    for fields in entries {
        let _: String = redis::cmd("XADD")
            .arg(EVENTS)
            .arg("*")
            .arg(fields)
            .query_async(&mut connection)
            .await
            .unwrap();
    }

    let scheduler = app.start_scheduler();
    app.until("select count(*) from event_run", 2).await;
    scheduler.stop().await;

    assert_eq!(app.count("select count(*) from event").await, 2);
    let without = "select count(*) from event where payload = 'null' and key is null";
    assert_eq!(app.count(without).await, 1, "as with REST, no payload is null");
    assert_eq!(app.count("select count(*) from event where payload = '\"1e999\"'").await, 1);
}

/// A task that waits for mail, with fields over the usual ones.
async fn merging(fields: &serde_json::Value) -> TestApp {
    let app = TestApp::with(NOW, &[("WORKER_CONCURRENCY", "20")]).await;
    let pipeline = json!([{"id": "one", "uses": "test.echo", "with": {"n": "${event.payload.n}"}}]);
    let mut declared = task("event", "mail.*", &pipeline);
    for (name, value) in fields.as_object().unwrap() {
        declared[name] = value.clone();
    }
    app.add_task(declared).await;
    app
}

const CONSUMED: &str = "select count(*) from event where consumed_at is not null";

#[tokio::test]
async fn events_within_the_window_are_one_run_that_sees_the_last_and_stands_for_all() {
    let app = merging(&json!({"debounce_seconds": 600})).await;
    for n in 0..30 {
        app.clock.advance(chrono::TimeDelta::milliseconds(1)); // ids tell the order, by milliseconds
        publish(&app, "mail.new", n, None).await;
    }
    let (scheduler, tools) = (app.start_scheduler(), FakeTools::default());
    app.until(CONSUMED, 30).await;
    let made = app.count("select count(*) from due_work").await;
    // Its time comes.
    sqlx::query("update due_work set run_at = now()").execute(&app.servers.pool).await.unwrap();
    let worker = app.start_worker(&tools);
    app.until_idle().await;
    publish(&app, "mail.new", 30, None).await;
    let ctx = app.context(Service::Scheduler);
    consume(&ctx).await;
    app.until(CONSUMED, 31).await;
    scheduler.stop().await;
    worker.stop().await;

    assert_eq!(made, 1);
    let seen: Vec<_> = tools.calls().into_iter().map(|call| call.input).collect();
    assert_eq!(seen, [json!({"n": 29})]);
    assert_eq!(app.count("select count(*) from event_run").await, 31);
    let stands_for = "select count(*) from event_run group by run_id order by 1 desc limit 1";
    assert_eq!(app.count(stands_for).await, 30, "the last event came too late for it");
    app.check_invariants().await;
}

#[tokio::test]
async fn however_many_schedulers_consume_a_burst_it_is_one_run() {
    for fields in [json!({"debounce_seconds": 600}), json!({"singleton": true})] {
        let app = merging(&fields).await;
        for n in 0..450 {
            publish(&app, "mail.new", n, None).await;
        }
        let contexts: Vec<_> = (0..3).map(|_| app.context(Service::Scheduler)).collect();
        futures::future::join_all(contexts.iter().map(consume)).await;

        assert_eq!(app.count("select count(*) from due_work").await, 1, "{fields}");
        assert_eq!(app.count("select count(*) from event_run").await, 450, "{fields}");
        assert_eq!(app.count("select count(distinct run_id) from event_run").await, 1, "{fields}");
        app.check_invariants().await;
    }
}

#[tokio::test]
async fn an_event_makes_no_run_of_a_singleton_that_has_not_ended_and_names_that_one() {
    let app = merging(&json!({"singleton": true})).await;
    let tools = FakeTools::default().on("test.echo", |call| Ok(call.input.clone()));
    publish(&app, "mail.new", 1, None).await;
    app.clock.advance(chrono::TimeDelta::milliseconds(1)); // ids tell the order, by milliseconds
    publish(&app, "mail.new", 2, None).await;
    let scheduler = app.start_scheduler();
    app.until(CONSUMED, 2).await;
    let worker = app.start_worker(&tools);
    app.until("select count(*) from run", 1).await;
    publish(&app, "mail.new", 3, None).await;
    let ctx = app.context(Service::Scheduler);
    consume(&ctx).await;
    app.until("select count(*) from run", 2).await;
    scheduler.stop().await;
    worker.stop().await;

    let seen: Vec<_> = tools.calls().into_iter().map(|call| call.input).collect();
    assert_eq!(seen, [json!({"n": 1}), json!({"n": 3})]);
    let standing = "select count(*) from event_run e join event v on v.id = e.event_id
                    where v.payload->>'n' in ('1', '2')
                      and e.run_id = (select e.run_id from event_run e join event v on v.id = e.event_id
                                      where v.payload->>'n' = '1')";
    assert_eq!(app.count(standing).await, 2);
}

#[tokio::test]
async fn a_burst_of_events_goes_through_the_rate_of_its_task() {
    let app = merging(&json!({"rate_limit": {"limit": 3, "period_seconds": 1}})).await;
    for n in 0..8 {
        publish(&app, "mail.new", n, None).await;
    }
    let (scheduler, worker) = (app.start_scheduler(), app.start_worker(&FakeTools::default()));
    app.until(CONSUMED, 8).await;
    let ended = app.until_idle().await;
    scheduler.stop().await;
    worker.stop().await;

    assert_eq!(ended, [("succeeded".to_owned(), 8)]);
    app.check_invariants().await;
}

/// Sixty tasks wait for the same mail, of which a third has one dedupe key and one runs once at a time; 200
/// events are there at once: more than one transaction takes.
#[tokio::test]
async fn many_events_for_many_tasks_make_a_run_of_each_and_keep_their_order() {
    let app = TestApp::with(NOW, &[]).await;
    let pipeline = json!([{"id": "one", "uses": "test.echo"}]);
    for n in 0..60 {
        let mut declared = task("event", "mail.*", &pipeline);
        if n % 3 == 0 {
            declared["dedupe_key"] = json!("mail");
            declared["dedupe_window_seconds"] = json!(3_600);
        }
        declared["singleton"] = json!(n == 1);
        app.add_task(declared).await;
    }
    for n in 0..200 {
        app.clock.advance(chrono::TimeDelta::milliseconds(1)); // ids tell the order, by milliseconds
        publish(&app, "mail.new", n, None).await;
    }

    consume(&app.context(Service::Scheduler)).await;

    assert_eq!(app.count(CONSUMED).await, 200);
    assert_eq!(app.count("select count(*) from event_run").await, 12_000);
    assert_eq!(app.count("select count(*) from due_work").await, 39 * 200 + 1 + 1);
    let disordered = "select count(*) from (
        select event ->> 'id' < lag(event ->> 'id') over (partition by task_id order by run_at) as early
        from due_work) as made where early";
    assert_eq!(app.count(disordered).await, 0);
    app.check_invariants().await;
}
