//! What tests of several crates share. Tests run on real Postgres and Redis: `DATABASE_URL` names a
//! server on which databases may be made, `REDIS_URL` a Redis.

mod database;

pub use database::TestDb;

use orchestrator_engine::config::{Env, Problems};

/// Where the Redis of the tests is.
///
/// # Panics
///
/// When `REDIS_URL` is not set.
#[must_use]
pub fn redis_url() -> String {
    let url = Env::from_process().secret("REDIS_URL", &mut Problems::default());
    url.expect("tests need REDIS_URL").expose().to_owned()
}
