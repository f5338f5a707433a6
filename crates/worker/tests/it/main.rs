//! The worker on a real Postgres and Redis.

mod concurrency;
mod fencing;
mod lifecycle;
mod order;
mod retry;
