//! What tests of several crates share: a database and a Redis of their own, a clock that stands
//! still, tools that do as they are told, and the services wired to them.
//!
//! Tests run against the real servers that `DATABASE_URL` and `REDIS_URL` name (`make test` starts
//! throw-away ones). Each test gets a database of its own, copied from a migrated template, and a
//! Redis database of its own.

#![expect(
    clippy::missing_panics_doc,
    reason = "whatever goes wrong here fails the test that asked, and that is its meaning"
)]

mod app;
mod database;
mod network;
mod tools;

pub use app::{ADMIN_KEY, Running, TestApp, task};
pub use database::TestServers;
pub use network::Network;
pub use tools::{Call, FakeTools};
