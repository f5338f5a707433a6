//! What the API counts requests with; it stands here because the engine has no tests on Redis.

use orchestrator_boot::Service;
use orchestrator_testkit::TestApp;

/// What Redis keeps of the key was written an hour ahead of what its clock says now.
#[tokio::test]
async fn a_quota_holds_although_the_clock_of_redis_is_set_back() {
    let app = TestApp::at("2026-03-01T08:00:00Z").await;
    let streams = app.context(Service::Api).streams;
    let client = redis::Client::open(app.servers.redis_url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let (seconds, _): (i64, i64) = redis::cmd("TIME").query_async(&mut connection).await.unwrap();
    let _: () = redis::cmd("SET")
        .arg("orchestrator:rate:door")
        .arg((seconds + 3_600) * 1_000_000)
        .query_async(&mut connection)
        .await
        .unwrap();

    let first = streams.rate_limits(&[("door".to_owned(), 3)], 2).await.unwrap();
    let second = streams.rate_limits(&[("door".to_owned(), 1)], 2).await.unwrap();

    let allowed: Vec<_> =
        first.iter().chain(&second).flatten().map(|decision| decision.allowed).collect();
    assert_eq!(allowed, [true, true, false, false], "the quota, as if the key were new");
}
