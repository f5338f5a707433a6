//! The worker on a real Postgres and Redis.

mod fencing;
mod lifecycle;
mod order;
mod retry;
