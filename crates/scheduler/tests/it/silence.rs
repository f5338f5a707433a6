//! A database that says nothing more: a fail-over or a firewall has forgotten the connections.

use std::sync::Arc;

use orchestrator_boot::{Context, Service};
use orchestrator_engine::config::{Env, Settings};
use orchestrator_scheduler::{events, fire::Firing};
use orchestrator_testkit::TestApp;
use tokio::sync::Notify;

/// More connections fall silent than the pool has. While nothing is to be heard the clock is let run
/// ahead, so that nobody waits for the limit.
#[tokio::test]
async fn a_look_is_given_up_and_its_connection_with_it() {
    let app = TestApp::at("2026-03-01T08:00:00Z").await;
    let (network, url) = app.servers.behind_network().await;
    let env = [("DATABASE_URL", url.as_str()), ("DATABASE_MAX_CONNECTIONS", "2")];
    let settings = Settings::read(&Env::from_pairs(env)).unwrap();
    let pool = orchestrator_boot::pool(&settings.database, Service::Scheduler).unwrap();
    let ctx = Context::new(Service::Scheduler, settings, pool, Arc::new(app.clock.clone()));
    let mut firing = Firing::new(ctx.clone());
    let (held, size) = (Notify::new(), events::BatchSize::default());
    firing.fire_due().await.unwrap();

    for _ in 0..3 {
        network.fall_silent(&ctx.pool).await;
        tokio::time::pause();
        let fired = firing.fire_due().await;
        let consumed = events::consume_waiting(&ctx, &held, &size).await;
        tokio::time::resume();
        network.come_back();

        assert!(fired.is_err_and(|error| error.is_transient()));
        assert!(consumed.is_err_and(|error| error.is_transient()));
        firing.fire_due().await.unwrap();
    }
}
