//! The worker on a real Postgres and Redis.

mod ahead;
mod bulk;
mod concurrency;
mod enqueue_sql;
mod fencing;
mod kept;
mod lifecycle;
mod notices;
mod order;
mod retry;
mod traces;
