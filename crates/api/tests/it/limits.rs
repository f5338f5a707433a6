//! Rate limits.

use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use orchestrator_api::door::Peer;
use serde_json::{Value, json};

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

/// They are recognised and counted together.
#[tokio::test]
async fn of_requests_that_come_at_once_each_has_its_own_answer() {
    let api = TestApi::with(&[("API_RATE_LIMIT", "4")]).await; // making the agent takes two
    let other = api.agent("other", &["tasks:read"]).await;
    let keys =
        [ADMIN_KEY, "orc_guess", &other, ADMIN_KEY, &other, "orc_guess", ADMIN_KEY, ADMIN_KEY];

    let asked = keys.map(|key| api.send(request("GET", "/tools", key, &Value::Null)));
    let replies = futures::future::join_all(asked).await;

    let statuses: Vec<_> = replies.iter().map(|reply| reply.status.as_u16()).collect();
    let of = |key| {
        keys.iter().zip(&statuses).filter(move |(sent, _)| **sent == key).map(|(_, status)| *status)
    };
    let mut of_admin: Vec<_> = of(ADMIN_KEY).collect();
    of_admin.sort_unstable();
    assert_eq!(of_admin, [200, 200, 429, 429]);
    assert!(of("orc_guess").all(|status| status == 401), "{statuses:?}");
    assert!(of(&other).all(|status| status == 200), "{statuses:?}");
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

/// A guess that comes from `peer` and says that it comes from `said`.
fn guess(peer: &str, said: &str) -> Request<Body> {
    from(peer, said, request("GET", "/tasks", "orc_guess", &Value::Null))
}

fn from(peer: &str, said: &str, mut request: Request<Body>) -> Request<Body> {
    let peer: SocketAddr = format!("{peer}:4711").parse().unwrap();
    request.extensions_mut().insert(ConnectInfo(Peer(peer)));
    request.headers_mut().insert("x-forwarded-for", said.parse().unwrap());
    request
}

/// One client behind a trusted proxy uses up its guesses, under ever new addresses in front of its own;
/// another behind the same proxy is not slowed down by that.
#[tokio::test]
async fn behind_a_trusted_proxy_each_client_is_counted_by_its_own_address() {
    let api = TestApi::with(&[("TRUSTED_PROXIES", "10.0.0.0/8")]).await;

    for n in 0..orchestrator_api::limits::FAILURES_PER_MINUTE {
        let spoofed = format!("192.0.2.{n}, 203.0.113.7");
        api.send(guess("10.0.0.9", &spoofed)).await.expect(401);
    }

    api.send(guess("10.0.0.9", "192.0.2.99, 203.0.113.7")).await.expect(429);
    api.send(guess("10.0.0.9", "203.0.113.8")).await.expect(401);
}

/// Nobody was named, or somebody else: the header is a stranger's word.
#[tokio::test]
async fn what_a_stranger_says_about_its_address_is_not_believed() {
    for settings in [&[][..], &[("TRUSTED_PROXIES", "10.0.0.0/8")]] {
        let api = TestApi::with(settings).await;

        for n in 0..orchestrator_api::limits::FAILURES_PER_MINUTE {
            api.send(guess("203.0.113.7", &format!("192.0.2.{n}"))).await.expect(401);
        }

        api.send(guess("203.0.113.7", "192.0.2.99")).await.expect(429);
    }
}

#[tokio::test]
async fn the_record_of_a_change_names_the_client() {
    let api = TestApi::with(&[("TRUSTED_PROXIES", "10.0.0.0/8")]).await;
    let body = json!({"name": "mail", "scopes": ["tasks:read"]});
    let create = request("POST", "/agents", ADMIN_KEY, &body);

    api.send(from("10.0.0.9", "192.0.2.1, 203.0.113.7", create)).await.expect(201);

    let audit = api.get("/audit?action=agent.create").await.expect(200);
    assert_eq!(audit.str("/items/0/detail/client"), "203.0.113.7");
}
