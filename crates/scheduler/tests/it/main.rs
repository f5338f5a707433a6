//! The scheduler on a real Postgres and Redis.

mod events;
mod firing;
mod missed;
