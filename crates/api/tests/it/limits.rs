//! Rate limits.

use serde_json::Value;

use crate::harness::{ADMIN_KEY, TestApi, request, send_to};

const THREE: &[(&str, &str)] = &[("API_RATE_LIMIT", "3")];

#[tokio::test]
async fn replicas_count_an_agents_requests_together() {
    let api = TestApi::with(THREE).await;
    let replica = api.replica(THREE);
    let ask = || request("GET", "/tools", ADMIN_KEY, &Value::Null);

    let first = api.send(ask()).await.expect(200);
    send_to(&replica, ask()).await.expect(200);
    api.send(ask()).await.expect(200);
    let refused = send_to(&replica, ask()).await.expect(429);
    let also = api.send(ask()).await.expect(429);

    assert_eq!(first.header("ratelimit-policy"), "\"agent\";q=3;w=60");
    assert!(first.header("ratelimit").starts_with("\"agent\";r=2;t="), "{:?}", first.headers);
    assert_eq!(refused.str("/type"), "/problems/rate-limited");
    for reply in [refused, also] {
        let seconds: u64 = reply.header("retry-after").parse().unwrap();
        assert!((1..=60).contains(&seconds), "{seconds}");
        assert!(reply.header("ratelimit").starts_with("\"agent\";r=0;"), "{:?}", reply.headers);
    }
}

/// Nothing listens at this port: every process counts for itself, by its own clock.
#[tokio::test]
async fn without_redis_each_replica_counts_for_itself() {
    let alone: &[(&str, &str)] = &[("API_RATE_LIMIT", "3"), ("REDIS_URL", "redis://127.0.0.1:1/0")];
    let api = TestApi::with(alone).await;
    let replica = api.replica(alone);
    let ask = || request("GET", "/tools", ADMIN_KEY, &Value::Null);

    for _ in 0..3 {
        api.send(ask()).await.expect(200);
    }
    api.send(ask()).await.expect(429);
    send_to(&replica, ask()).await.expect(200);
    api.clock.advance(chrono::TimeDelta::seconds(20));
    api.send(ask()).await.expect(200);
    api.send(ask()).await.expect(429);
}

#[tokio::test]
async fn whoever_guesses_keys_is_slowed_down() {
    let api = TestApi::new().await;
    let guess = || request("GET", "/tasks", "orc_guess", &Value::Null);

    for _ in 0..orchestrator_api::limits::FAILURES_PER_MINUTE {
        api.send(guess()).await.expect(401);
    }

    let refused = api.send(guess()).await.expect(429);
    assert!(!refused.header("retry-after").is_empty());
    api.get("/tasks").await.expect(200);
}

#[tokio::test]
async fn without_a_limit_nothing_is_counted() {
    let api = TestApi::with(&[("API_RATE_LIMIT", "0")]).await;

    let reply = api.get("/tools").await.expect(200);

    assert_eq!(reply.header("ratelimit"), "");
}
