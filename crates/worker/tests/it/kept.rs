//! A connection that stays with whoever uses it call after call.

use std::str::FromStr as _;

use orchestrator_boot::KeptConnection;
use orchestrator_engine::store::StoreError;
use orchestrator_testkit::TestServers;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

async fn pool_of(connections: u32) -> PgPool {
    let servers = TestServers::fresh().await;
    let options = PgConnectOptions::from_str(&servers.database_url).expect("a Postgres URL");
    PgPoolOptions::new().max_connections(connections).connect_lazy_with(options)
}

/// The server's process behind the connection that is used now.
async fn backend(kept: &KeptConnection) -> i32 {
    let asked = kept.with(async |conn| {
        sqlx::query_scalar("select pg_backend_pid()")
            .fetch_one(conn)
            .await
            .map_err(StoreError::while_trying("ask who answers"))
    });
    asked.await.expect("the database answers")
}

#[tokio::test]
async fn it_is_the_same_from_call_to_call_and_nobody_elses_meanwhile() {
    let pool = pool_of(3).await;
    let (one, other) = (KeptConnection::new(pool.clone()), KeptConnection::new(pool.clone()));

    let first = backend(&one).await;
    let second = backend(&other).await;

    assert_ne!(first, second);
    assert_eq!((backend(&one).await, backend(&other).await), (first, second));
    assert_eq!((pool.size(), pool.num_idle()), (2, 0));
}

#[tokio::test]
async fn the_last_of_a_pool_is_not_kept_from_others() {
    let pool = pool_of(1).await;
    let kept = KeptConnection::new(pool.clone());

    let used = backend(&kept).await;

    // It would be waited for in vain otherwise.
    let mut conn = pool.acquire().await.expect("it was given back");
    let lent: i32 = sqlx::query_scalar("select pg_backend_pid()")
        .fetch_one(&mut *conn)
        .await
        .expect("the database answers");
    assert_eq!(lent, used);
}

#[tokio::test]
async fn one_that_is_not_used_goes_back() {
    let pool = pool_of(2).await;
    let kept = KeptConnection::new(pool.clone());
    backend(&kept).await;

    kept.rest().await;

    let (first, second) = (pool.acquire().await, pool.acquire().await);
    assert!(first.is_ok() && second.is_ok(), "both are there: {first:?}, {second:?}");
}

#[tokio::test]
async fn after_a_failure_the_pool_has_it_back() {
    let pool = pool_of(2).await;
    let kept = KeptConnection::new(pool.clone());
    backend(&kept).await;

    let failed = kept.with(async |conn| {
        sqlx::query("select 1 / 0").execute(conn).await.map_err(StoreError::while_trying("divide"))
    });

    failed.await.expect_err("it cannot be divided");
    let (first, second) = (pool.acquire().await, pool.acquire().await);
    assert!(first.is_ok() && second.is_ok(), "both are there: {first:?}, {second:?}");
}
