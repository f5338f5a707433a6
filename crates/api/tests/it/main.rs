//! The API on a real Postgres and Redis, called as a client calls it.

mod agents;
mod bad_requests;
mod changes;
mod harness;
mod limits;
mod pages;
mod runs;
mod tasks;
