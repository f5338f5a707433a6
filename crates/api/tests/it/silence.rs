//! A database that says nothing more: a fail-over or a firewall has forgotten the connections.

use serde_json::{Value, json};

use crate::harness::{ADMIN_KEY, TestApi, api_of_its_own, request, send_to, task};

/// More connections fall silent than the pool has. While nothing is to be heard the clock is let run
/// ahead, so that nobody waits for the limit.
#[tokio::test]
async fn a_request_is_given_up_and_its_connection_with_it() {
    let api = TestApi::new().await;
    let (network, url) = api.db.behind_network().await;
    let (app, pool) = api_of_its_own(&url, "2", &api.clock);
    let ask = || request("GET", "/tools", ADMIN_KEY, &Value::Null);
    send_to(&app, ask()).await.expect(200);

    for _ in 0..3 {
        network.fall_silent(&pool).await;
        tokio::time::pause();
        let refused = [send_to(&app, ask()).await, send_to(&app, ask()).await];
        tokio::time::resume();
        network.come_back();
        let answered = send_to(&app, ask()).await;

        for reply in refused {
            let reply = reply.expect(503);
            assert!(reply.header("retry-after").parse::<u64>().is_ok(), "{:?}", reply.headers);
            assert!(reply.str("/type").starts_with("/problems/"), "{}", reply.text);
        }
        answered.expect(200);
    }
}

/// Those that come at once share a connection, and so one that hangs would keep all others waiting for ever.
#[tokio::test]
async fn requests_that_come_together_are_given_up_together() {
    let api = TestApi::new().await;
    let made = api.post("/tasks", task("Later")).await.expect(201).str("/id");
    let (network, url) = api.db.behind_network().await;
    let (app, pool) = api_of_its_own(&url, "2", &api.clock);
    let start = || request("POST", &format!("/tasks/{made}/run_now"), ADMIN_KEY, &json!({}));
    send_to(&app, start()).await.expect(202);

    network.fall_silent(&pool).await;
    tokio::time::pause();
    let refused = [
        tokio::join!(send_to(&app, start()), send_to(&app, start())),
        tokio::join!(send_to(&app, start()), send_to(&app, start())), // on the other connection
    ];
    tokio::time::resume();
    network.come_back();
    let started = send_to(&app, start()).await;

    for (one, other) in refused {
        one.expect(503);
        other.expect(503);
    }
    started.expect(202);
}
